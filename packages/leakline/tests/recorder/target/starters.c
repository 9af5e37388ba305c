/* Starts itself by one function that starts programs: `starters child|self NAME`, in a child or in its own place. The one that was started prints
 * "started PID", what of the recorder it sees in its environment, and whether its arguments arrived; and opens a descriptor.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pty.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utmp.h>

#define SELF "/proc/self/exe"

extern char **environ;

static int started(int count, char **arguments) {
    printf("started %d\n", getpid());
    for (char **variable = environ; *variable; variable++)
        if (strncmp(*variable, "LEAKLINE_", 9) == 0 || strncmp(*variable, "LD_PRELOAD=", 11) == 0)
            printf("sees %s\n", *variable);
    if (count != 4 || strcmp(arguments[2], "one") || strcmp(arguments[3], "two") || getenv("STARTER") == NULL)
        puts("arguments are lost");
    return eventfd(0, 0) < 0;
}

static void start(const char *name) {
    char *const arguments[] = {"starters", "started", "one", "two", NULL};
    char *const environment[] = {"STARTER=1", NULL};
    char path[4096] = "";
    if (readlink(SELF, path, sizeof path - 1) < 0)
        return;
    if (strcmp(name, "execve") == 0)
        execve(SELF, arguments, environment);
    else if (strcmp(name, "execv") == 0)
        execv(SELF, arguments);
    else if (strcmp(name, "execvp") == 0)
        execvp(path, arguments);
    else if (strcmp(name, "execvpe") == 0)
        execvpe(path, arguments, environment);
    else if (strcmp(name, "execl") == 0)
        execl(SELF, "starters", "started", "one", "two", NULL);
    else if (strcmp(name, "execlp") == 0)
        execlp(path, "starters", "started", "one", "two", NULL);
    else if (strcmp(name, "execle") == 0)
        execle(SELF, "starters", "started", "one", "two", NULL, environment);
    else if (strcmp(name, "fexecve") == 0)
        fexecve(open(SELF, O_RDONLY | O_CLOEXEC), arguments, environment);
    else if (strcmp(name, "execveat") == 0)
        execveat(AT_FDCWD, SELF, arguments, environment, 0);
}

static pid_t spawn(const char *name) {
    char *const arguments[] = {"starters", "started", "one", "two", NULL};
    char *const environment[] = {"STARTER=1", NULL};
    pid_t child = -1;
    if (strcmp(name, "posix_spawn") == 0)
        posix_spawn(&child, SELF, NULL, NULL, arguments, environment);
    else if (strcmp(name, "posix_spawnp") == 0)
        posix_spawnp(&child, SELF, NULL, NULL, arguments, environment);
    else if (strcmp(name, "vfork") == 0) {
        if ((child = vfork()) == 0) {
            execve(SELF, arguments, environment);
            _exit(1);
        }
    } else if (strcmp(name, "system") == 0 || strcmp(name, "popen") == 0) {
        char path[4096] = "", command[8192];
        if (readlink(SELF, path, sizeof path - 1) < 0)
            return -1;
        snprintf(command, sizeof command, "'%s' started one 'two'", path);
        fflush(stdout);
        if (strcmp(name, "system") == 0 ? system(command) != 0 : pclose(popen(command, "w")) != 0)
            return -1;
        return fork() ?: (_exit(0), 0); /* for who waits for a child */
    } else if ((child = fork()) == 0) {
        start(name);
        _exit(1);
    }
    return child;
}

/* What becomes of 0, 1 and 2 in a child. */
static int streams(const char *name) {
    pid_t child = fork();
    if (child == 0) {
        int ends[2], told = dup(1);
        if (strcmp(name, "daemon") == 0)
            daemon(1, 0);
        else if (openpty(ends, ends + 1, NULL, NULL, NULL) == 0)
            login_tty(ends[1]);
        dprintf(told, "started %d\n", getpid());
        pause();
    }
    return 0;
}

int main(int count, char **arguments) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    setenv("STARTER", "1", 0);
    if (count > 1 && strcmp(arguments[1], "started") == 0)
        return started(count, arguments);
    if (count != 3)
        return 2;
    int status = 0;
    if (strcmp(arguments[1], "self") == 0)
        start(arguments[2]);
    else if (strcmp(arguments[1], "streams") == 0)
        streams(arguments[2]);
    else if (waitpid(spawn(arguments[2]), &status, 0) < 0)
        return 3;
    return status != 0;
}
