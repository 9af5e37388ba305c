/* What the files of the recorder's life share: recorder.c, recorder_environment.c. */
#ifndef LEAKLINE_RECORDER_PRIVATE_H
#define LEAKLINE_RECORDER_PRIVATE_H

#include <limits.h>

#include "recording_private.h"

/* What the environment asked for. */
struct leakline_asked {
    char recording[PATH_MAX]; /* "": nothing; a pattern: expand() in recorder.c */
    int pid;                  /* 0: any */
    int parent;               /* of the process that called exec; 0: it is nobody's child here */
    bool follow;              /* children are recorded too */
};
extern struct leakline_asked leakline_asked;
extern int leakline_own_pid;
extern int leakline_parent_pid; /* of a child that is recorded too, else 0 */

void leakline_environment_take(void);

#endif
