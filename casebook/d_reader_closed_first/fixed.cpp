// Incident D in C++, put right: the monitor is stopped while it can still be read, then its reader is closed.
#include "session.hpp"

class FixedSession : public Session {
  public:
    using Session::Session;

    void StopWatching() {
        zmq_socket_monitor(socket_.handle(), nullptr, 0);
        monitor_.close();
    }
};

int main() {
    const std::string endpoint = nearby::answering_server();
    zmq::context_t context(1);
    FixedSession session(context, endpoint);
    session.StopWatching();
    session.Work();
    session.End();
    zmq::socket_t questions(context, zmq::socket_type::dealer); // one for all: none could leak
    questions.set(zmq::sockopt::linger, 0);
    questions.connect(endpoint);
    nearby::ready();
    nearby::paced(per_second, [&] {
        questions.send(zmq::str_buffer("where?"));
        zmq::message_t answer;
        (void)questions.recv(answer);
    });
}
