/* Forks by C code, of which Python's own hooks are told nothing. */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

void PyOS_BeforeFork(void);
void PyOS_AfterFork_Child(void);
void PyOS_AfterFork_Parent(void);
extern const unsigned long Py_Version __attribute__((weak)); /* since 3.11 */

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
    const int before_too = &Py_Version && Py_Version >= 0x030d0000; /* 3.13 aborts in the child where it was not told before */
    if (before_too)
        PyOS_BeforeFork();
    pid_t pid = fork();
    if (pid == 0)
        PyOS_AfterFork_Child();
    else if (before_too)
        PyOS_AfterFork_Parent();
    return pid;
}

/* Without the handlers of fork(). */
pid_t clone_and_return(void) { return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }
