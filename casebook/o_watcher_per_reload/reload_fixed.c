/* The watcher put right: one instance for the life of the process; a reload only changes what is watched. */
#include <sys/inotify.h>
#include <unistd.h>

#include "../pace.h"

int main(void)
{
    int inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (inotify < 0) {
        perror("reload: inotify_init1");
        return 1;
    }
    int watch = -1;
    for (unsigned reload = 0; pace_next(reload, 4); reload++) {
        if (watch >= 0)
            inotify_rm_watch(inotify, watch);
        watch = inotify_add_watch(inotify, "/etc/hostname", IN_CLOSE_WRITE);
    }
    close(inotify);
}
