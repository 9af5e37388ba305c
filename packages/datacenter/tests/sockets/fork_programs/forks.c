/* Forks by C code, of which Python's own hooks are told nothing. */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

void PyOS_AfterFork_Child(void);

/* No Python runs in the child: it says that it is there, then waits until it is killed (or its parent's thread ends). */
pid_t fork_and_wait(int ready) {
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (write(ready, "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    return pid;
}

/* As a C extension has to do it that goes on with Python in the child; call it with the GIL held. */
pid_t fork_and_tell_python(void) {
    pid_t pid = fork();
    if (pid == 0)
        PyOS_AfterFork_Child();
    return pid;
}

/* Without the handlers of fork(). */
pid_t clone_and_return(void) { return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }
