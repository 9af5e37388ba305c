/* The clean-up put right: who opened closes; whoever else finds a failure only reports it. */
#include <sys/socket.h>
#include <unistd.h>

enum { UPLOADS = 20 };

static int send_data(int connection)
{
    return send(connection, "data", 4, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

static void upload(void)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return;
    close(ends[1]); /* the peer goes away */
    if (send_data(ends[0]) != 0)
        usleep(100); /* it is tried again later */
    close(ends[0]);
}

int main(void)
{
    for (int number = 0; number < UPLOADS; number++)
        upload();
}
