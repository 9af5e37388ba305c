// A client whose query makes a socket each time: through templates, an anonymous namespace, a lambda, a thread and a signal handler.
#include <csignal>
#include <cstdio>
#include <functional>
#include <thread>
#include <vector>

#include <unistd.h>

#include "wrapper.hpp"

namespace app {

template <class Reply> class Client {
  public:
    __attribute__((noinline)) int QryServerPort(int service) {
        wrapper::socket_t query(service); // the line of the leak
        return query.handle() + 1;
    }
};

namespace {
__attribute__((noinline)) int hidden(const std::function<int(int)> &call) { return call(3) + 1; }
} // namespace

volatile int handled, waited;
__attribute__((noinline)) void on_signal(int) { handled = dup(2); }
__attribute__((noinline)) int interrupted() {
    while (handled == 0)
        waited = waited + 1;
    return handled;
}

} // namespace app

int main() {
    app::Client<std::vector<int>> client;
    int sum = client.QryServerPort(1) + client.QryServerPort(2);
    sum += app::hidden([&](int service) { return client.QryServerPort(service) + 1; });
    std::thread([&] { sum += client.QryServerPort(4); }).join();
    std::signal(SIGALRM, app::on_signal);
    std::thread([pid = pthread_self()] {
        while (app::waited == 0) // not before it is there: it would be interrupted on its way
            std::this_thread::yield();
        pthread_kill(pid, SIGALRM);
    }).detach();
    sum += app::interrupted();
    std::printf("%d\nready\n", sum);
    std::fflush(stdout);
    return std::getchar() != EOF;
}
