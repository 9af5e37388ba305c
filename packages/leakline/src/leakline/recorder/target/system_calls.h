/* System calls of the recorder itself: not through libc, whose functions the recorder intercepts and whose errno is the target's.
 * Each returns the kernel's answer, or minus the errno.
 */
#ifndef LEAKLINE_SYSTEM_CALLS_H
#define LEAKLINE_SYSTEM_CALLS_H

#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>

static inline long leakline_call6(long number, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "cc");
    return x0;
#else
#error "the recorder runs on x86-64 and aarch64"
#endif
}

/* In a loop that waits for another thread. */
static inline void leakline_pause(void) {
#if defined(__x86_64__)
    __asm__ volatile("pause");
#else
    __asm__ volatile("yield");
#endif
}

static inline long leakline_call4(long number, long a, long b, long c, long d) { return leakline_call6(number, a, b, c, d, 0, 0); }
static inline long leakline_call3(long number, long a, long b, long c) { return leakline_call6(number, a, b, c, 0, 0, 0); }
static inline long leakline_call0(long number) { return leakline_call6(number, 0, 0, 0, 0, 0, 0); }

/* No handler runs in this thread until the mask is put back: one that jumped out (siglongjmp) would leave a lock of the loader held for ever.
 * The kernel's sets have 64 signals, of which SIGKILL and SIGSTOP are never blocked: all bits set says that a system call filter refused. */
static inline uint64_t leakline_block_signals(void) {
    uint64_t all = ~UINT64_C(0), before = 0;
    return leakline_call4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&before, sizeof all) == 0 ? before : all;
}

static inline void leakline_restore_signals(uint64_t before) {
    if (before != ~UINT64_C(0))
        leakline_call4(SYS_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, sizeof before);
}

#endif
