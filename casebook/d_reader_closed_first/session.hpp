// Incident D in C++, as far as the broken program and the one put right have it in common.
#pragma once

#include <nearby.hpp>

inline constexpr int per_second = 40;

// One connection to a service, and the monitor that tells when it is up.
class Session {
  public:
    Session(zmq::context_t &context, const std::string &endpoint)
        : socket_(context, zmq::socket_type::dealer), monitor_(context, zmq::socket_type::pair) {
        socket_.set(zmq::sockopt::linger, 0);
        zmq_socket_monitor(socket_.handle(), "inproc://session", ZMQ_EVENT_ALL);
        monitor_.connect("inproc://session");
        socket_.connect(endpoint);
        for (int event = 0; event != ZMQ_EVENT_HANDSHAKE_SUCCEEDED;) {
            zmq::message_t number, address;
            (void)monitor_.recv(number);
            (void)monitor_.recv(address);
            event = *number.data<uint16_t>();
        }
    }

    // Some calls of the service, at the usual pace.
    void Work() {
        for (int call = 0; call < 4; call++) {
            socket_.send(zmq::str_buffer("call"));
            zmq::message_t reply;
            (void)socket_.recv(reply);
            std::this_thread::sleep_for(std::chrono::microseconds(1'000'000 / per_second));
        }
    }

    void End() { socket_.close(); }

  protected:
    zmq::socket_t socket_, monitor_;
};
