/* pthread_atfork() of whatever C library the target has. */
#ifndef LEAKLINE_AT_FORK_H
#define LEAKLINE_AT_FORK_H

/* 0, or an errno. The handlers may be NULL. */
int leakline_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

#endif
