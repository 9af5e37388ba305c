/* A peer goes away: that is a hang-up and an error, two events, and the handler of each closes the connection. Between
 * the two another thread may have been given the number: then its log file is closed instead.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { UPLOADS = 200 };

static atomic_int turn; /* 0: the upload's, 1: the log's; the two meet each time, where in production one in a million does */

static void wait_for(int whose)
{
    while (atomic_load(&turn) != whose)
        usleep(100);
}

static void *write_log(void *unused)
{
    for (int line = 0; line < UPLOADS; line++) {
        wait_for(1);
        int log = open("/dev/null", O_WRONLY | O_CLOEXEC);
        atomic_store(&turn, 0);
        wait_for(1);
        if (dprintf(log, "upload %d failed\n", line) < 0)
            perror("log");
        close(log);
        atomic_store(&turn, 0);
    }
    return unused;
}

static void hang_up(int connection)
{
    close(connection); /* casebook: close */
    atomic_store(&turn, 1);
    wait_for(0);
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
            hang_up(ends[0]);
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
