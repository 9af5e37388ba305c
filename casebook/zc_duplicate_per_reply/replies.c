/* A reply is written through a stdio stream upon a duplicate of the connection; the stream is flushed and forgotten. */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../pace.h"

static int reply(int connection, unsigned request)
{
    FILE *stream = fdopen(dup(connection), "w"); /* casebook: duplicate */
    if (stream == NULL)
        return -1;
    fprintf(stream, "reply %u\n", request);
    return fflush(stream);
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
