/* For LD_PRELOAD into real programs: walks at each open, close, read, write and lock of theirs, compares with libgcc, and says at the end of
 * the process what it saw. */
#define _GNU_SOURCE
#include "origin.h"
#include "unwind_check.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static int (*real_open)(const char *, int, ...), (*real_openat)(int, const char *, int, ...), (*real_close)(int);
static ssize_t (*real_read)(int, void *, size_t), (*real_write)(int, const void *, size_t);
static int (*real_lock)(pthread_mutex_t *);
static bool ready;
static __thread bool inside;

#define WALK                                                                                                                               \
    do {                                                                                                                                   \
        if (ready && !inside) {                                                                                                            \
            inside = true;                                                                                                                 \
            struct leakline_registers caller = LEAKLINE_CALLER;                                                                            \
            struct leakline_origin origin = {0};                                                                                           \
            leakline_unwind(&caller, &origin);                                                                                             \
            inside = false;                                                                                                                \
        }                                                                                                                                  \
    } while (0)

__attribute__((constructor)) static void begin(void) {
    *(void **)&real_open = dlsym(RTLD_NEXT, "open");
    *(void **)&real_openat = dlsym(RTLD_NEXT, "openat");
    *(void **)&real_close = dlsym(RTLD_NEXT, "close");
    *(void **)&real_read = dlsym(RTLD_NEXT, "read");
    *(void **)&real_write = dlsym(RTLD_NEXT, "write");
    leakline_unwind_prepare();
    ready = true;
}

__attribute__((destructor)) static void end(void) {
    struct leakline_unwind_checks *checks = &leakline_unwind_checks;
    const char *name = getenv("UNWIND_STRESS");
    FILE *file = name == NULL ? NULL : fopen(name, "a");
    if (file == NULL) return;
    fprintf(file, "%s: %lu walks, %lu broken (%lu where libgcc goes on), %lu different\n", program_invocation_short_name, checks->walks,
            checks->broken, checks->shorter, checks->different);
    fclose(file);
}

EXPORT int open(const char *path, int flags, ...);
EXPORT int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    WALK;
    return real_open == NULL ? -1 : real_open(path, flags, mode);
}

EXPORT int open64(const char *path, int flags, ...) __attribute__((alias("open")));

EXPORT int openat(int folder, const char *path, int flags, ...);
EXPORT int openat(int folder, const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    WALK;
    return real_openat == NULL ? -1 : real_openat(folder, path, flags, mode);
}

EXPORT int openat64(int folder, const char *path, int flags, ...) __attribute__((alias("openat")));

EXPORT int close(int number);
EXPORT int close(int number) {
    WALK;
    return real_close == NULL ? -1 : real_close(number);
}

EXPORT ssize_t read(int number, void *to, size_t size);
EXPORT ssize_t read(int number, void *to, size_t size) {
    WALK;
    return real_read(number, to, size);
}

EXPORT ssize_t write(int number, const void *from, size_t size);
EXPORT ssize_t write(int number, const void *from, size_t size) {
    WALK;
    return real_write(number, from, size);
}

/* Not malloc, which many programs bring themselves: this is called nearly as often, by libraries of every kind. */
EXPORT int pthread_mutex_lock(pthread_mutex_t *mutex);
EXPORT int pthread_mutex_lock(pthread_mutex_t *mutex) {
    static __thread unsigned count;
    if (count++ % 16 == 0) WALK;
    if (real_lock == NULL) *(void **)&real_lock = dlsym(RTLD_NEXT, "pthread_mutex_lock");
    return real_lock(mutex);
}
