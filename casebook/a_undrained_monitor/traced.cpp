// What trace.py traces: sockets that are closed before the I/O thread is blocked, and after. `traced DATACENTER NOWHERE`
//
// Says "closed" after each of its two rounds; a line on stdin begins the second.
#include <nearby.hpp>

enum class Use { never_connected, silent, asks };

static void make_use_close(zmq::context_t &context, const char *datacenter, Use use) {
    zmq::socket_t socket(context, zmq::socket_type::dealer);
    socket.set(zmq::sockopt::linger, 0);
    socket.set(zmq::sockopt::rcvtimeo, 200);
    if (use != Use::never_connected)
        socket.connect(datacenter);
    if (use == Use::asks) {
        socket.send(zmq::str_buffer("which port has the service?"));
        zmq::message_t answer;
        (void)socket.recv(answer);
    }
    socket.close();
    std::this_thread::sleep_for(std::chrono::milliseconds(300)); // what follows is to be seen before the next one
}

static void round(zmq::context_t &context, const char *datacenter) {
    for (Use use : {Use::never_connected, Use::silent, Use::asks})
        make_use_close(context, datacenter, use);
    std::puts("closed");
    std::fflush(stdout);
    std::getchar();
}

int main(int, char **words) {
    zmq::context_t context(1);
    zmq::socket_t session(context, zmq::socket_type::dealer), reader(context, zmq::socket_type::pair);
    session.set(zmq::sockopt::linger, 0);
    session.set(zmq::sockopt::reconnect_ivl, 1);
    reader.set(zmq::sockopt::rcvhwm, 1); // the sooner is it full
    zmq_socket_monitor(session.handle(), "inproc://session", ZMQ_EVENT_ALL);
    reader.connect("inproc://session");
    round(context, words[1]);
    session.connect(words[2]);
    std::puts("connecting");
    std::fflush(stdout);
    std::getchar();
    round(context, words[1]);
    _exit(0);
}
