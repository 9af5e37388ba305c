// The client of incident H, as far as the broken program and the one put right have it in common.
#pragma once

#include <nearby.hpp>

// Something else has work to do while the process exits: metrics are sent.
struct Flush {
    ~Flush() { std::this_thread::sleep_for(std::chrono::milliseconds(500)); }
};

// Its context is never terminated, as it is a global's, so libzmq's thread tries to connect until the process is gone.
inline void work_while_the_server_is_away() {
    auto *context = new zmq::context_t(1);
    auto *client = new zmq::socket_t(*context, zmq::socket_type::dealer);
    client->set(zmq::sockopt::linger, 0);
    client->set(zmq::sockopt::reconnect_ivl, 10);
    client->connect("tcp://127.0.0.1:1");
    nearby::ready();
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
}
