// Incident D in C++: the reader of a monitor is closed, and later its socket. See README.md.
#include "session.hpp"

class BrokenSession : public Session {
  public:
    using Session::Session;

    // It is up: nobody needs its events any more. But closing the socket will send one: MONITOR_STOPPED, from the reaper.
    void StopWatching() { monitor_.close(); }
};

// Where a service is, from the name server: a socket for each question, closed on every path.
__attribute__((noinline)) static bool Ask(zmq::context_t &context, const std::string &endpoint) {
    zmq::socket_t question(context, zmq::socket_type::dealer); // casebook: leaks
    question.set(zmq::sockopt::linger, 0);
    question.connect(endpoint);
    question.send(zmq::str_buffer("where?"));
    zmq::message_t answer;
    return question.recv(answer).has_value();
}

int main() {
    const std::string endpoint = nearby::answering_server();
    zmq::context_t context(1);
    BrokenSession session(context, endpoint);
    session.StopWatching();
    session.Work();
    session.End();
    nearby::ready();
    nearby::paced(per_second, [&] { Ask(context, endpoint); });
}
