// Incident D in C++: the reader of a monitor is closed, and later its socket. See README.md.
#include "session.hpp"

class BrokenSession : public Session {
  public:
    using Session::Session;

    // It is up: nobody needs its events any more. But closing the socket will send one: MONITOR_STOPPED, from the reaper.
    void StopWatching() { monitor_.close(); }
};

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
