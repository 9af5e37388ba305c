/* See at_fork.h. glibc's pthread_atfork() is linked into each library and calls what only glibc has, without which musl would not start the
 * program at all; musl exports the function itself. */
#include "at_fork.h"

#include <errno.h>

typedef void (*handler)(void);

extern int __register_atfork(handler prepare, handler parent, handler child, void *library) __attribute__((weak));
extern int pthread_atfork(handler prepare, handler parent, handler child) __attribute__((weak));
extern void *__dso_handle __attribute__((visibility("hidden")));

int leakline_at_fork(handler prepare, handler parent, handler child) {
    if (__register_atfork)
        return __register_atfork(prepare, parent, child, __dso_handle);
    return pthread_atfork ? pthread_atfork(prepare, parent, child) : ENOSYS;
}
