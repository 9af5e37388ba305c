/*
 * Opens in a signal handler on an alternate stack of so many bytes beyond the kernel's frame, with a page below it that
 * nothing may touch. Prints how many bytes of it were used.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, ROOM = 64 * PAGE, PAINT = 0xa5 };

static void handle(int number)
{
    (void)number;
    int opened = open("/dev/null", O_RDONLY);
    if (opened >= 0)
        close(opened);
}

int main(int count, char **words)
{
    if (count != 2)
        return 2;
    size_t size = getauxval(AT_MINSIGSTKSZ) + (size_t)atol(words[1]);
    unsigned char *guard = mmap(NULL, PAGE + ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (guard == MAP_FAILED || size > ROOM)
        return 2;
    unsigned char *bottom = guard + PAGE;
    memset(bottom, PAINT, size);
    if (mprotect(guard, PAGE, PROT_NONE) != 0)
        return 2;
    stack_t stack = {.ss_sp = bottom, .ss_size = size};
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_ONSTACK};
    if (sigaltstack(&stack, NULL) != 0 || sigaction(SIGUSR1, &action, NULL) != 0)
        return 2;
    for (int times = 0; times < 3; times++)
        raise(SIGUSR1);
    size_t unused = 0;
    while (unused < size && bottom[unused] == PAINT)
        unused++;
    printf("%zu\n", size - unused);
    return 0;
}
