// A header-only wrapper over the C functions, as cppzmq's zmq.hpp is.
#pragma once
extern "C" int zmq_socket(int type);

namespace wrapper {
class socket_t {
  public:
    explicit socket_t(int type) : handle_(make(type)) {}
    int handle() const { return handle_; }

  private:
    static int make(int type) { return zmq_socket(type) + 1; }
    int handle_;
};
} // namespace wrapper
