// Incident A in C++, as it was written: when its server is gone, the client stops to read its monitor, and makes a socket
// for each question. See README.md; fixed.cpp has the lines to change.
#include "client.hpp"

__attribute__((noinline)) static bool QryServerPort(zmq::context_t &context, const std::string &datacenter) {
    zmq::socket_t query(context, zmq::socket_type::dealer); // casebook: leaks
    query.set(zmq::sockopt::linger, 0);
    query.set(zmq::sockopt::rcvtimeo, answer_ms);
    query.connect(datacenter);
    query.send(zmq::str_buffer("which port has the service?"));
    zmq::message_t answer;
    return query.recv(answer).has_value();
}

int main() {
    const std::string datacenter = nearby::answering_server();
    nearby::MortalServer server;
    zmq::context_t context(1);
    Session session(context, server.endpoint());
    server.answer_and_die();
    bool timer = true;
    nearby::ready();
    nearby::paced(per_second, [&] {
        while (timer) {
            const int event = session.NextEvent();
            if (event == ZMQ_EVENT_DISCONNECTED)
                timer = false; // the server is gone: nothing will happen until the next connect
            if (event == 0)
                break;
        }
        QryServerPort(context, datacenter);
    });
}
