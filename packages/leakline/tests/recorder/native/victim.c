/* A library with imports to hook. Built twice: bound lazily through a PLT, and at once without one, behind RELRO. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

int victim_eventfd(void) { return eventfd(0, EFD_CLOEXEC); }
int victim_epoll(void) { return epoll_create1(EPOLL_CLOEXEC); }
int victim_socket(int domain, int type) { return socket(domain, type, 0); }
int victim_accept(int listener) { return accept4(listener, NULL, NULL, SOCK_CLOEXEC); }
int victim_pipe(int ends[2]) { return pipe(ends); }
int victim_open(const char *path, int flags, mode_t mode) { return open(path, flags, mode); }
int victim_close(int number) { return close(number); }
