/* The same mistake while nobody else opens anything: the second close fails with EBADF, which nobody looks at. It is the
 * harmless form, until the next thread is added.
 */
#include <sys/socket.h>
#include <unistd.h>

enum { UPLOADS = 20 };

static int send_data(int connection)
{
    if (send(connection, "data", 4, MSG_NOSIGNAL) >= 0)
        return 0;
    close(connection); /* it failed, so away with it */
    return -1;
}

static void upload(void)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return;
    close(ends[1]); /* the peer goes away */
    send_data(ends[0]);
    close(ends[0]); /* casebook: again */
}

int main(void)
{
    for (int number = 0; number < UPLOADS; number++)
        upload();
}
