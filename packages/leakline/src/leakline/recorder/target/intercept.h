/* What stands in place of libc's functions in the target: the table of it, and what the wrappers share. See intercepted.h for the list.
 *
 * A wrapper calls the real function, keeps its result and errno, and records only what succeeded; a close is recorded before, as the
 * number may be another thread's at once. Nothing is held over the real call, so that a thread may be cancelled in it as ever.
 */
#ifndef LEAKLINE_INTERCEPT_H
#define LEAKLINE_INTERCEPT_H

#include <errno.h>

#include "intercepted.h"
#include "patch.h"
#include "recording.h"

struct leakline_interception {
    const char *name;
    void *replacement;
};

/* By number: enum leakline_function. The last one's number is LEAKLINE_FUNCTION_END - 1; 0 is empty. */
extern const struct leakline_interception leakline_interceptions[LEAKLINE_FUNCTION_END];

/* Stands for dlsym in import tables that are patched, and is never preloaded: a library that was loaded since is patched before any of its
 * functions can be looked up. */
void *leakline_intercept_dlsym(void *library, const char *name);
/* Finds the real one, as each walk over import tables begins; false: no library has it yet (libdl, before glibc 2.34). */
bool leakline_find_dlsym(void);

/* --- intercept_real.c */

/* Finds the real functions; a constructor. */
void leakline_find_real_functions(void);
/* Of a call that comes before it. */
void *leakline_find_real(enum leakline_function function);

extern void *leakline_real_functions[LEAKLINE_FUNCTION_END];

static inline void *leakline_real(enum leakline_function function) {
    void *real = __atomic_load_n(&leakline_real_functions[function], __ATOMIC_RELAXED);
    return __builtin_expect(real != NULL, 1) ? real : leakline_find_real(function);
}

/* The real function of that name, to be called. Its type is the wrapper's. */
#define LEAKLINE_REAL(name) ((__typeof__(&leakline_intercept_##name))leakline_real(LEAKLINE_FUNCTION_##name))

/* A wrapper is hidden, so that no other library's function can be taken for it; its exported name is an alias, declared by its assembler name as
 * libc's headers declare the plain one with attributes of their own. */
#define LEAKLINE_EXPORT(name)                                                                                                      \
    extern __typeof__(leakline_intercept_##name) leakline_export_##name __asm__(#name)                                             \
        __attribute__((alias("leakline_intercept_" #name), visibility("default")))

/* Whether a wrapper has anything to tell: the one branch that it costs while nothing is recorded. */
#define LEAKLINE_WANTED __builtin_expect(!__atomic_load_n(&leakline_idle, __ATOMIC_RELAXED), 0)

/* What is given to a shell in place of `command`, which may be NULL: if children are to be recorded, the shell is told what their environment says.
 * libc starts it by itself, with the target's environment. Kept until the thread's next such call; `command` itself without memory for it. */
const char *leakline_shell_command(const char *command);
/* Whether an ioctl() with this request makes a descriptor. */
bool leakline_request_opens(unsigned long request);
/* fileno() that keeps errno: -1 for a stream without a descriptor. `FILE` of <stdio.h>. */
int leakline_number_of(void *stream);

/* --- intercept.c: what wrappers record. None changes errno. */

/* After a call that made `number` (negative: that failed with this errno). */
void leakline_made(int number, enum leakline_how how, int related, enum leakline_function function, struct leakline_registers caller);
void leakline_made_pair(bool made, const int numbers[2], enum leakline_function function, struct leakline_registers caller);
/* After a call that made `number` a copy of `original`. */
void leakline_replaced(int number, enum leakline_how how, int original, enum leakline_function function, struct leakline_registers caller);
/* Before a close; its stack, for after it. 0 when nothing is recorded. */
uint32_t leakline_before_close(int number, enum leakline_function function, struct leakline_registers caller);
void leakline_after_failed_close(int number, enum leakline_function function, uint32_t stack);
void leakline_before_close_range(unsigned first, unsigned last, enum leakline_function function, struct leakline_registers caller);
/* Whether close_range with these arguments closes anything; before it does, marks a thread that is going to have descriptors of its own. */
bool leakline_close_range_closes(unsigned first, unsigned last, unsigned flags);
/* This thread has descriptors of its own from now on. */
void leakline_unshared(void);
/* What a message brought along. */
struct msghdr;
void leakline_received(const struct msghdr *message, enum leakline_function function, struct leakline_registers caller);

#endif
