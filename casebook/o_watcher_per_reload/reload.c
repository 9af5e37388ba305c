/* A watcher for each reload of the configuration; the one before is forgotten with its inotify instance. */
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "../pace.h"

struct watcher {
    int inotify;
    int watch;
};

static struct watcher *watch(const char *path)
{
    struct watcher *watcher = malloc(sizeof *watcher);
    if (watcher == NULL)
        return NULL;
    watcher->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK); /* casebook: watcher */
    if (watcher->inotify < 0) {
        perror("reload: inotify_init1"); /* EMFILE at 128 of a user, long before any other limit */
        free(watcher);
        return NULL;
    }
    watcher->watch = inotify_add_watch(watcher->inotify, path, IN_CLOSE_WRITE);
    return watcher;
}

int main(void)
{
    struct watcher *watcher = NULL;
    for (unsigned reload = 0; pace_next(reload, 4); reload++) {
        free(watcher);
        watcher = watch("/etc/hostname");
    }
}
