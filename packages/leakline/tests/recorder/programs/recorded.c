/* Opens descriptors under the recorder without intercepting anything: linked with the recorder's own sources, so that a test has a real
 * recording of a stack that it knows.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "recording.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT int recorded_begin(const char *path) {
    return leakline_recording_begin(path);
}

EXPORT int recorded_open(void) {
    int number = (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY | O_CLOEXEC);
    if (leakline_enter()) {
        struct leakline_registers caller = LEAKLINE_CALLER;
        leakline_opened(number, LEAKLINE_HOW_OPENED, -1, 0, leakline_stack_here(&caller));
        leakline_leave();
    }
    return number;
}
