/* The upload put right: who closes forgets the number, so that the second event finds nothing to close. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { UPLOADS = 200 };

static void *write_log(void *unused)
{
    for (int line = 0; line < UPLOADS; line++) {
        int log = open("/dev/null", O_WRONLY | O_CLOEXEC);
        if (dprintf(log, "upload %d failed\n", line) < 0)
            perror("log");
        close(log);
    }
    return unused;
}

static void hang_up(int *connection)
{
    if (*connection < 0)
        return;
    close(*connection);
    *connection = -1;
}

static void upload(void)
{
    int ends[2];
    struct pollfd what = {.events = POLLOUT};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return;
    close(ends[1]); /* the peer goes away */
    what.fd = ends[0];
    poll(&what, 1, 1000);
    const short reasons[] = {POLLHUP, POLLERR | POLLOUT}; /* both are told at once, and both are handled */
    for (unsigned i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (what.revents & reasons[i])
            hang_up(&ends[0]);
}

int main(void)
{
    pthread_t logger;
    if (pthread_create(&logger, NULL, write_log, NULL) != 0)
        return 1;
    for (int number = 0; number < UPLOADS; number++)
        upload();
    pthread_join(logger, NULL);
}
