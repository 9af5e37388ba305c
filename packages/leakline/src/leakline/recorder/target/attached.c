/* What leakline calls in a running process, by ptrace, in a thread that waits anywhere: a recording begins; it ends, and all is as it was. */
#define _GNU_SOURCE
#include <errno.h>

#include "patch.h"
#include "recording.h"

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
    return error;
}

/* Ends it. How many slots could not be put back; the library stays, and does nothing. */
int leakline_recorder_detach(void) {
    leakline_patch_restore();
    leakline_recording_end();
    return 0;
}
