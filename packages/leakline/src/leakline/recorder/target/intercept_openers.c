/* The wrappers of functions that make descriptors. See intercepted.h. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <termios.h>

#include "intercept.h"

#define LEAKLINE_DEFINE(name, parameters, arguments, how, related, is_new)                                                         \
    int leakline_intercept_##name parameters {                                                                                     \
        int result = LEAKLINE_REAL(name) arguments;                                                                                \
        if (LEAKLINE_WANTED && (is_new))                                                                                   \
            leakline_made(result, LEAKLINE_HOW_##how, related, LEAKLINE_FUNCTION_##name, LEAKLINE_CALLER);                         \
        return result;                                                                                                             \
    }                                                                                                                              \
    LEAKLINE_EXPORT(name);
LEAKLINE_OPENERS(LEAKLINE_DEFINE)
#undef LEAKLINE_DEFINE

static bool takes_mode(int flags) { return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE; }

/* An argument that was not passed is not read. */
#define LEAKLINE_MODE(mode)                                                                                                        \
    mode_t mode = 0;                                                                                                               \
    if (takes_mode(flags)) {                                                                                                       \
        va_list list;                                                                                                              \
        va_start(list, flags);                                                                                                     \
        mode = va_arg(list, mode_t);                                                                                               \
        va_end(list);                                                                                                              \
    }

#define LEAKLINE_DEFINE(name, parameters, arguments)                                                                               \
    int leakline_intercept_##name parameters {                                                                                     \
        LEAKLINE_MODE(mode)                                                                                                        \
        int result = LEAKLINE_REAL(name) arguments;                                                                                \
        if (LEAKLINE_WANTED)                                                                                               \
            leakline_made(result, LEAKLINE_HOW_OPENED, -1, LEAKLINE_FUNCTION_##name, LEAKLINE_CALLER);                             \
        return result;                                                                                                             \
    }                                                                                                                              \
    LEAKLINE_EXPORT(name);
LEAKLINE_OPENERS_WITH_MODE(LEAKLINE_DEFINE)
#undef LEAKLINE_DEFINE

int leakline_intercept_mq_open(const char *name, int flags, ...) {
    mode_t mode = 0;
    struct mq_attr *attributes = NULL;
    if (flags & O_CREAT) {
        va_list list;
        va_start(list, flags);
        mode = va_arg(list, mode_t);
        attributes = va_arg(list, struct mq_attr *);
        va_end(list);
    }
    int result = LEAKLINE_REAL(mq_open)(name, flags, mode, attributes);
    if (LEAKLINE_WANTED)
        leakline_made(result, LEAKLINE_HOW_OPENED, -1, LEAKLINE_FUNCTION_mq_open, LEAKLINE_CALLER);
    return result;
}
LEAKLINE_EXPORT(mq_open);

#define LEAKLINE_DEFINE(name, parameters, arguments, first, second)                                                                \
    int leakline_intercept_##name parameters {                                                                                     \
        int result = LEAKLINE_REAL(name) arguments;                                                                                \
        if (LEAKLINE_WANTED) {                                                                                             \
            int numbers[2] = {-1, -1};                                                                                             \
            if (result == 0)                                                                                                       \
                numbers[0] = first, numbers[1] = second;                                                                           \
            leakline_made_pair(result == 0, numbers, LEAKLINE_FUNCTION_##name, LEAKLINE_CALLER);                                   \
        }                                                                                                                          \
        return result;                                                                                                             \
    }                                                                                                                              \
    LEAKLINE_EXPORT(name);
LEAKLINE_PAIR_OPENERS(LEAKLINE_DEFINE)
#undef LEAKLINE_DEFINE

#define LEAKLINE_DEFINE(name, type, parameters, arguments, number_of)                                                              \
    type *leakline_intercept_##name parameters {                                                                                   \
        type *result = LEAKLINE_REAL(name) arguments;                                                                              \
        if (LEAKLINE_WANTED)                                                                                               \
            leakline_made(result ? number_of(result) : -1, LEAKLINE_HOW_OPENED, -1, LEAKLINE_FUNCTION_##name, LEAKLINE_CALLER);    \
        return result;                                                                                                             \
    }                                                                                                                              \
    LEAKLINE_EXPORT(name);
LEAKLINE_STREAM_OPENERS(LEAKLINE_DEFINE)
#undef LEAKLINE_DEFINE

/* The old descriptor is closed even if the new file cannot be opened. */
#define LEAKLINE_DEFINE(name)                                                                                                      \
    FILE *leakline_intercept_##name(const char *path, const char *mode, FILE *stream) {                                            \
        if (LEAKLINE_WANTED)                                                                                               \
            leakline_before_close(leakline_number_of(stream), LEAKLINE_FUNCTION_##name, LEAKLINE_CALLER);                          \
        FILE *result = LEAKLINE_REAL(name)(path, mode, stream);                                                                    \
        if (LEAKLINE_WANTED)                                                                                               \
            leakline_made(result ? fileno(result) : -1, LEAKLINE_HOW_OPENED, -1, LEAKLINE_FUNCTION_##name, LEAKLINE_CALLER);       \
        return result;                                                                                                             \
    }                                                                                                                              \
    LEAKLINE_EXPORT(name);
LEAKLINE_STREAM_REOPENERS(LEAKLINE_DEFINE)
#undef LEAKLINE_DEFINE

/* A number that is made a copy of itself stays what it is. */
#define LEAKLINE_DEFINE(name, parameters, arguments)                                                                               \
    int leakline_intercept_##name parameters {                                                                                     \
        int result = LEAKLINE_REAL(name) arguments;                                                                                \
        if (LEAKLINE_WANTED && result >= 0 && original != number)                                                          \
            leakline_replaced(number, LEAKLINE_HOW_DUPLICATED, original, LEAKLINE_FUNCTION_##name, LEAKLINE_CALLER);               \
        return result;                                                                                                             \
    }                                                                                                                              \
    LEAKLINE_EXPORT(name);
LEAKLINE_REPLACERS(LEAKLINE_DEFINE)
#undef LEAKLINE_DEFINE

/* The third argument is read as a pointer, as libc does: it is one for some commands, and none was passed for others. */
#define LEAKLINE_DEFINE(name)                                                                                                      \
    int leakline_intercept_##name(int number, int command, ...) {                                                                  \
        va_list list;                                                                                                              \
        va_start(list, command);                                                                                                   \
        void *argument = va_arg(list, void *);                                                                                     \
        va_end(list);                                                                                                              \
        int result = LEAKLINE_REAL(name)(number, command, argument);                                                               \
        if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && LEAKLINE_WANTED)                                         \
            leakline_made(result, LEAKLINE_HOW_DUPLICATED, number, LEAKLINE_FUNCTION_##name, LEAKLINE_CALLER);                     \
        return result;                                                                                                             \
    }                                                                                                                              \
    LEAKLINE_EXPORT(name);
LEAKLINE_CONTROLS(LEAKLINE_DEFINE)
#undef LEAKLINE_DEFINE

int leakline_intercept_ioctl(int number, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    int result = LEAKLINE_REAL(ioctl)(number, request, argument);
    if (leakline_request_opens(request) && LEAKLINE_WANTED)
        leakline_made(result, LEAKLINE_HOW_OPENED, -1, LEAKLINE_FUNCTION_ioctl, LEAKLINE_CALLER);
    return result;
}
LEAKLINE_EXPORT(ioctl);
