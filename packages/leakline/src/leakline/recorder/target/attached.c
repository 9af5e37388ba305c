/* What leakline calls in a running process, by ptrace, in a thread that waits anywhere: a recording begins; it ends, and all is as it was. */
#define _GNU_SOURCE
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include "patch.h"
#include "recording.h"
#include "system_calls.h"

#define PUBLIC __attribute__((visibility("default")))

PUBLIC int leakline_recorder_attach(const char *path);
PUBLIC int leakline_recorder_detach(void);

/* Begins a recording in a new file at `path` (NULL: an anonymous one). 0, or minus the errno; EALREADY: this process is being recorded. */
int leakline_recorder_attach(const char *path) {
    int error = leakline_recording_begin(path);
    if (error)
        return error;
    error = leakline_patch_begin();
    if (error)
        leakline_recording_end();
    else if (leakline_call3(SYS_prctl, PR_GET_SECCOMP, 0, 0) == SECCOMP_MODE_FILTER) /* which the tracer sets aside for now */
        leakline_recording_seal();
    return error;
}

/* Ends it. The library stays, and does nothing. 0. */
int leakline_recorder_detach(void) {
    leakline_patch_restore();
    leakline_recording_end();
    return 0;
}
