/* Incident I in C: sessions to ZooKeeper are opened, then the worker is forked. zookeeper_close() in the parent ends the
 * sessions, not the connections: the worker has a copy of each.
 *
 *     sessions HOSTS
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

enum { CLUSTERS = 12, SECONDS = 180 };

static zhandle_t *sessions[CLUSTERS];

static void ignore(zhandle_t *session, int type, int state, const char *path, void *context)
{
    (void)session, (void)type, (void)state, (void)path, (void)context;
}

static int connect_all(const char *hosts)
{
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    for (int i = 0; i < CLUSTERS; i++)
        sessions[i] = zookeeper_init(hosts, ignore, 30000, NULL, NULL, 0);
    for (int i = 0; i < CLUSTERS; i++)
        for (int tries = 0; sessions[i] == NULL || zoo_state(sessions[i]) != ZOO_CONNECTED_STATE; tries++)
            if (tries == 3000 || usleep(10000) != 0)
                return -1;
    return 0;
}

static pid_t fork_worker(void)
{
    pid_t worker = fork();
    if (worker == 0) {
        sleep(SECONDS); /* its work, which has nothing to do with ZooKeeper */
        _exit(0);
    }
    return worker;
}

int main(int count, char **words)
{
    if (count != 2 || connect_all(words[1]) != 0)
        return 1;
    pid_t worker = fork_worker();
    for (int i = 0; i < CLUSTERS; i++)
        zookeeper_close(sessions[i]);
    printf("ready %d\n", worker);
    fflush(stdout);
    waitpid(worker, NULL, 0);
}
