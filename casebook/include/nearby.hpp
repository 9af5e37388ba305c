// What the C++ programs of the casebook have in common: a server to talk to, the line that says that they run, their pace.
#pragma once

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>

#include <unistd.h>
#include <zmq.hpp>

namespace nearby {

inline constexpr auto ends_after = std::chrono::seconds(120); // should nobody end it

// Says which process to look at, and that there is something to see.
inline void ready() {
    std::printf("ready %d\n", getpid());
    std::fflush(stdout);
}

// Calls `step` at this pace. Ends the process after `ends_after`, at once: threads may still use their sockets.
template <typename Step> [[noreturn]] void paced(int per_second, Step step) {
    const auto end = std::chrono::steady_clock::now() + ends_after;
    while (std::chrono::steady_clock::now() < end) {
        step();
        std::this_thread::sleep_for(std::chrono::microseconds(1'000'000 / per_second));
    }
    _exit(0);
}

inline std::string endpoint_of(zmq::socket_t &bound) { return bound.get(zmq::sockopt::last_endpoint); }

// A server that answers each message with the same, in a thread and a context of its own, for ever: its endpoint.
inline std::string answering_server() {
    auto *context = new zmq::context_t(1);
    auto *server = new zmq::socket_t(*context, zmq::socket_type::router);
    server->bind("tcp://127.0.0.1:*");
    std::thread([server] {
        for (;;) {
            zmq::message_t part;
            (void)server->recv(part);
            server->send(part, part.more() ? zmq::send_flags::sndmore : zmq::send_flags::none);
        }
    }).detach();
    return endpoint_of(*server);
}

// A server that answers one message, and is gone: nobody listens at its endpoint any more.
class MortalServer {
  public:
    MortalServer() : socket_(context_, zmq::socket_type::router) { socket_.bind("tcp://127.0.0.1:*"); }

    std::string endpoint() { return endpoint_of(socket_); }

    void answer_and_die() {
        bool more = true;
        while (more) {
            zmq::message_t part;
            (void)socket_.recv(part);
            more = part.more();
            socket_.send(part, more ? zmq::send_flags::sndmore : zmq::send_flags::none);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(50)); // the answer is on its way
        socket_.set(zmq::sockopt::linger, 0);
        socket_.close();
        context_.close();
    }

  private:
    zmq::context_t context_{1};
    zmq::socket_t socket_;
};

} // namespace nearby
