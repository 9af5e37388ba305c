/* The table of interceptions, and what the wrappers record. See intercept.h. */
#define _GNU_SOURCE
#include "intercept.h"
#include "recording_layout.h"
#include "unwind_libraries.h"
#include "unwind_symbols.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifndef SCM_PIDFD
#define SCM_PIDFD 4
#endif

#define LEAKLINE_DECLARE(name, ...) extern char leakline_wrapper_##name[] __asm__("leakline_intercept_" #name) __attribute__((visibility("hidden")));
LEAKLINE_INTERCEPTED(LEAKLINE_DECLARE)
#undef LEAKLINE_DECLARE

#define LEAKLINE_ROW(name, ...) [LEAKLINE_FUNCTION_##name] = {#name, leakline_wrapper_##name},
const struct leakline_interception leakline_interceptions[LEAKLINE_FUNCTION_END] = {LEAKLINE_INTERCEPTED(LEAKLINE_ROW)};
#undef LEAKLINE_ROW
_Static_assert(LEAKLINE_FUNCTION_END <= LEAKLINE_FUNCTIONS, "a recording has room for every name");

const char *leakline_function_name(uint32_t function) {
    return function < LEAKLINE_FUNCTION_END ? leakline_interceptions[function].name : NULL;
}

/* --- libraries that were loaded since */

#define LOADING_TRIES 1000 /* calls; a library without end is none that is being loaded */

/* Loading is noticed by the loader's counter and not by intercepting dlopen(), which goes by who calls it. */
static void look_at_libraries(void) {
    static uint64_t seen;
    static unsigned tries;
    uint64_t generation = leakline_libraries_generation();
    if (__builtin_expect(__atomic_load_n(&seen, __ATOMIC_RELAXED) == generation, 1))
        return;
    if (leakline_loader_answers())
        leakline_python_prepare();
    /* One that is still being loaded is looked at again at the next calls. */
    if (!leakline_patch_all() && __atomic_add_fetch(&tries, 1, __ATOMIC_RELAXED) < LOADING_TRIES)
        return;
    __atomic_store_n(&tries, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&seen, generation, __ATOMIC_RELAXED);
}

static void *(*real_dlsym)(void *, const char *);

bool leakline_find_dlsym(void) {
    if (!real_dlsym)
        *(void **)&real_dlsym = leakline_find_symbol("dlsym");
    return real_dlsym != NULL;
}

/* The counter grows before a library is relocated, which would undo a patch: so the loader's lock is waited for, as the call is about to do
 * anyway. The real dlsym() goes by who calls it and is jumped to: nothing may come after it. */
void *leakline_intercept_dlsym(void *library, const char *name) {
    static uint64_t seen;
    if (LEAKLINE_WANTED && __atomic_load_n(&seen, __ATOMIC_RELAXED) != leakline_libraries_generation()) {
        int error = errno;
        real_dlsym(RTLD_DEFAULT, "dlsym");
        uint64_t generation = leakline_libraries_generation();
        leakline_patch_all();
        __atomic_store_n(&seen, generation, __ATOMIC_RELAXED);
        errno = error;
    }
    return real_dlsym(library, name);
}

/* --- what wrappers ask */

bool leakline_request_opens(unsigned long request) {
#define LEAKLINE_CASE(name, value) case value:
    switch (request) {
        LEAKLINE_REQUESTS(LEAKLINE_CASE)
        return true;
    }
#undef LEAKLINE_CASE
    return false;
}

int leakline_number_of(void *stream) {
    int error = errno;
    int number = fileno(stream);
    errno = error;
    return number;
}

/* --- what wrappers record */

void leakline_made(int number, enum leakline_how how, int related, enum leakline_function function, struct leakline_registers caller) {
    int error = errno;
    bool exhausted = number < 0 && (error == EMFILE || error == ENFILE);
    if ((number >= 0 || exhausted) && leakline_enter()) {
        look_at_libraries();
        uint32_t stack = leakline_stack_here(&caller);
        if (exhausted)
            leakline_exhausted(error, function, stack);
        else
            leakline_opened(number, how, related, function, stack);
        leakline_leave();
    }
    errno = error;
}

void leakline_made_pair(bool made, const int numbers[2], enum leakline_function function, struct leakline_registers caller) {
    int error = errno;
    if (!made) {
        leakline_made(-1, LEAKLINE_HOW_OPENED, -1, function, caller);
    } else if (leakline_enter()) {
        uint32_t stack = leakline_stack_here(&caller);
        for (int i = 0; i < 2; i++)
            leakline_opened(numbers[i], LEAKLINE_HOW_OPENED, -1, function, stack);
        leakline_leave();
    }
    errno = error;
}

/* After the call, as it closes only if it succeeds, and the number is nobody else's in between. */
void leakline_replaced(int number, enum leakline_how how, int original, enum leakline_function function, struct leakline_registers caller) {
    int error = errno;
    if (leakline_enter()) {
        uint32_t stack = leakline_stack_here(&caller);
        leakline_closing(number, function, stack);
        leakline_opened(number, how, original, function, stack);
        leakline_leave();
    }
    errno = error;
}

uint32_t leakline_before_close(int number, enum leakline_function function, struct leakline_registers caller) {
    int error = errno;
    uint32_t stack = 0;
    if (number >= 0 && leakline_enter()) {
        stack = leakline_stack_here(&caller);
        leakline_closing(number, function, stack);
        leakline_leave();
    }
    errno = error;
    return stack;
}

void leakline_after_failed_close(int number, enum leakline_function function, uint32_t stack) {
    int error = errno;
    if (number >= 0 && leakline_enter()) {
        leakline_close_failed(number, error, function, stack);
        leakline_leave();
    }
    errno = error;
}

void leakline_before_close_range(unsigned first, unsigned last, enum leakline_function function, struct leakline_registers caller) {
    int error = errno;
    if (leakline_enter()) {
        leakline_closing_range(first, last, function, leakline_stack_here(&caller));
        leakline_leave();
    }
    errno = error;
}

static void received_in(const struct cmsghdr *header, enum leakline_function function, uint32_t stack) {
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
        int number;
        memcpy(&number, CMSG_DATA(header) + i * sizeof number, sizeof number);
        leakline_opened(number, LEAKLINE_HOW_RECEIVED, -1, function, stack);
    }
}

void leakline_received(const struct msghdr *message, enum leakline_function function, struct leakline_registers caller) {
    int error = errno;
    uint32_t stack = 0;
    bool entered = false;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR((struct msghdr *)message, header)) {
        if (header->cmsg_level != SOL_SOCKET || (header->cmsg_type != SCM_RIGHTS && header->cmsg_type != SCM_PIDFD) ||
            header->cmsg_len < CMSG_LEN(sizeof(int)))
            continue;
        if (!entered && !(entered = leakline_enter()))
            break;
        stack = stack ? stack : leakline_stack_here(&caller);
        received_in(header, function, stack);
    }
    if (entered)
        leakline_leave();
    errno = error;
}
