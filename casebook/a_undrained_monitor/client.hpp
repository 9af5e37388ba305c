// The client of incident A in C++, as far as the broken one and the one put right have it in common.
#pragma once

#include <nearby.hpp>

inline constexpr int per_second = 40;
inline constexpr int reconnect_ms = 1; // the monitor is full after a second; with the default of 100 ms after two minutes
inline constexpr int answer_ms = 15;

// A session with one service, watched through a socket monitor, which a timer reads.
class Session {
  public:
    Session(zmq::context_t &context, const std::string &endpoint)
        : socket_(context, zmq::socket_type::dealer), monitor_(context, zmq::socket_type::pair) {
        socket_.set(zmq::sockopt::linger, 0);
        socket_.set(zmq::sockopt::reconnect_ivl, reconnect_ms);
        zmq_socket_monitor(socket_.handle(), "inproc://session", ZMQ_EVENT_ALL);
        monitor_.connect("inproc://session");
        socket_.connect(endpoint);
        socket_.send(zmq::str_buffer("call"));
    }

    // The number of the next event, 0 if there is none now.
    int NextEvent() {
        zmq::message_t event, address;
        if (!monitor_.recv(event, zmq::recv_flags::dontwait))
            return 0;
        (void)monitor_.recv(address);
        return *event.data<uint16_t>();
    }

  private:
    zmq::socket_t socket_, monitor_;
};
