/* The replies put right: fclose() flushes and closes the duplicate; the connection itself stays. */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../pace.h"

static int reply(int connection, unsigned request)
{
    int copy = dup(connection);
    FILE *stream = copy < 0 ? NULL : fdopen(copy, "w");
    if (stream == NULL) {
        if (copy >= 0)
            close(copy);
        return -1;
    }
    fprintf(stream, "reply %u\n", request);
    return fclose(stream);
}

int main(void)
{
    int ends[2];
    char line[100];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return 1;
    for (unsigned request = 0; pace_next(request, 10); request++)
        if (reply(ends[0], request) != 0 || read(ends[1], line, sizeof line) <= 0)
            perror("reply");
}
