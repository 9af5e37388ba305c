// The client of incident A over the real cppzmq and libzmq: a socket for each query, and none is closed.
#include <cstdio>
#include <unistd.h>

#include <zmq.hpp>

static zmq::context_t *context;

__attribute__((noinline)) static int QryServerPort(const char *address) {
    auto *query = new zmq::socket_t(*context, zmq::socket_type::req); // the line of the leak
    query->connect(address);
    return query->handle() != nullptr;
}

int main() {
    context = new zmq::context_t(1);
    int made = 0;
    for (int i = 0; i < 5; i++)
        made += QryServerPort("tcp://127.0.0.1:1");
    std::printf("%d\nready\n", made);
    std::fflush(stdout);
    int answer = std::getchar();
    _exit(answer != EOF);
}
