/* The wrappers of functions of sockets that do not make one: failures are kept, descriptors may come with a message. See intercepted.h. */
#define _GNU_SOURCE
#include <sys/socket.h>

#include "intercept.h"

/* EINPROGRESS and the like are no failure yet; EISCONN tells that an earlier one succeeded. */
static void failed(int number, enum leakline_function function) {
    int error = errno;
    if (error != EINPROGRESS && error != EALREADY && error != EAGAIN && error != EINTR && error != EISCONN && leakline_enter()) {
        leakline_socket_failed(number, function, error);
        leakline_leave();
    }
    errno = error;
}

#define LEAKLINE_DEFINE(name, parameters, arguments)                                                                               \
    int leakline_intercept_##name parameters {                                                                                     \
        int result = LEAKLINE_REAL(name) arguments;                                                                                \
        if (result < 0 && LEAKLINE_WANTED)                                                                                         \
            failed(number, LEAKLINE_FUNCTION_##name);                                                                              \
        return result;                                                                                                             \
    }                                                                                                                              \
    LEAKLINE_EXPORT(name);
LEAKLINE_SOCKET_CALLS(LEAKLINE_DEFINE)
#undef LEAKLINE_DEFINE

/* A message that is only peeked at brings its descriptors too. */
ssize_t leakline_intercept_recvmsg(int number, struct msghdr *message, int flags) {
    ssize_t result = LEAKLINE_REAL(recvmsg)(number, message, flags);
    if (result >= 0 && message->msg_controllen && LEAKLINE_WANTED)
        leakline_received(message, LEAKLINE_FUNCTION_recvmsg, LEAKLINE_CALLER);
    return result;
}
LEAKLINE_EXPORT(recvmsg);

int leakline_intercept_recvmmsg(int number, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout) {
    int result = LEAKLINE_REAL(recvmmsg)(number, messages, count, flags, timeout);
    for (int i = 0; i < result && LEAKLINE_WANTED; i++)
        if (messages[i].msg_hdr.msg_controllen)
            leakline_received(&messages[i].msg_hdr, LEAKLINE_FUNCTION_recvmmsg, LEAKLINE_CALLER);
    return result;
}
LEAKLINE_EXPORT(recvmmsg);
