/* A thread that hardly ever waits, with values in vector registers over its system calls; prints when they were changed. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>

int main(void) {
    printf("ready\n");
    fflush(stdout);
    for (unsigned long turn = 1;; turn++) {
        double a = (double)turn, b = a * 3, c = a * 5;
        errno = 77;
        __asm__ volatile("" : "+x"(a), "+x"(b), "+x"(c));
        long result;
        struct pollfd *none = NULL;
#if defined(__x86_64__)
        register long zero __asm__("rdx") = 0;
        __asm__ volatile("syscall" : "=a"(result) : "a"(7), "D"(none), "S"(0), "r"(zero) : "rcx", "r11", "memory");
#else
        result = poll(none, 0, 0);
#endif
        __asm__ volatile("" : "+x"(a), "+x"(b), "+x"(c));
        for (volatile int i = 0; i < 2000; i++) {
        }
        if (a != (double)turn || b != a * 3 || c != a * 5 || errno != 77 || result != 0) {
            printf("wrong at %lu: %f %f %f %d %ld\n", turn, a, b, c, errno, result);
            fflush(stdout);
            return 1;
        }
    }
}
