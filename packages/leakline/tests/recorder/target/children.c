/* Makes children by clone() and _Fork() in every way that shares or copies memory; each closes all that it has, and opens something. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <fcntl.h>
static char stack[65536];

static int child(void *unused) {
    (void)unused;
    for (int number = 3; number < 40; number++)
        close(number);
    return open("/dev/null", O_RDONLY) < 0;
}

static void ended(pid_t process) {
    int status;
    if (process < 0 || waitpid(process, &status, 0) != process || status != 0)
        abort();
}

int main(void) {
    for (int i = 0; i < 20; i++)
        if (open("/dev/null", O_RDONLY) < 0)
            abort();
    static const int ways[] = {0, CLONE_VM | CLONE_VFORK, CLONE_VM};
    for (unsigned i = 0; i < sizeof ways / sizeof ways[0]; i++)
        ended(clone(child, stack + sizeof stack, ways[i] | SIGCHLD, NULL));
    pid_t process = _Fork();
    if (process == 0)
        _exit(child(NULL));
    ended(process);
    int last = open("/dev/zero", O_RDONLY); /* the parent goes on */
    close(3);
    printf("{\"last\": %d}\n", last);
    fflush(stdout);
    return getchar() != '\n';
}
