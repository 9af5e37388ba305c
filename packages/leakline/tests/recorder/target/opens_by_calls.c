/* Opens a descriptor by each of several calls, each in a function of its own; for hold_aarch64.py, which runs it in an emulator. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define OPENS(name, call)                                                                                                                  \
    __attribute__((noinline)) static int by_##name(void) {                                                                                 \
        int number = call;                                                                                                                 \
        __asm__(""); /* so that it is no tail call */                                                                                      \
        return number;                                                                                                                     \
    }
OPENS(open, open("/dev/null", O_RDONLY)) /* line 17: hold_aarch64.py counts from here */
OPENS(openat, openat(AT_FDCWD, "/dev/null", O_RDONLY))
OPENS(socket, socket(AF_UNIX, SOCK_STREAM, 0))
OPENS(dup, dup(0))
OPENS(eventfd, eventfd(0, 0))
OPENS(epoll_create1, epoll_create1(0))
OPENS(timerfd_create, timerfd_create(CLOCK_MONOTONIC, 0))
OPENS(fopen, fileno(fopen("/dev/null", "r")))

int main(void) {
    int (*const functions[])(void) = {by_open, by_openat, by_socket, by_dup, by_eventfd, by_epoll_create1, by_timerfd_create, by_fopen};
    for (unsigned i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (functions[i]() < 0)
            return 1;
    return 0;
}
