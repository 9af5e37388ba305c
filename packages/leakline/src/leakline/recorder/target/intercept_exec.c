/* The wrappers of functions that start a program: its environment is what the target passes, and, if it is to be recorded too, what
 * `leakline run` had put there. Also called in a vfork child, which shares its parent's memory: nothing is allocated that stays.
 */
#define _GNU_SOURCE
#include <alloca.h>
#include <spawn.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "intercept.h"
#include "system_calls.h"

/* One for a thread, and kept: after an exec in a vfork child nobody could give it back. */
static __thread struct {
    void *memory;
    size_t size;
} room;

static void *room_for(size_t size) {
    if (size > room.size) {
        size = (size + 0xffffu) & ~(size_t)0xffffu;
        if (room.memory)
            leakline_call3(SYS_munmap, (long)room.memory, (long)room.size, 0);
        long memory = leakline_call6(SYS_mmap, 0, (long)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        room.memory = memory < 0 && memory > -4096 ? NULL : (void *)memory;
        room.size = room.memory ? size : 0;
    }
    return room.memory;
}

/* The environment to pass on. Without memory for another: as it is. */
static char *const *environment_for(char *const environment[], bool child) {
    size_t size = leakline_environment_size(environment, child);
    void *memory = size ? room_for(size) : NULL;
    return memory ? leakline_environment_fill(memory, environment, child) : environment;
}

static char *const *own_environment(char *const environment[]) { return environment_for(environment, false); }

int leakline_intercept_execve(const char *path, char *const arguments[], char *const environment[]) {
    return LEAKLINE_REAL(execve)(path, arguments, own_environment(environment));
}
LEAKLINE_EXPORT(execve);

int leakline_intercept_execv(const char *path, char *const arguments[]) {
    char *const *environment = own_environment(environ);
    if (environment == environ)
        return LEAKLINE_REAL(execv)(path, arguments);
    return LEAKLINE_REAL(execve)(path, arguments, environment);
}
LEAKLINE_EXPORT(execv);

int leakline_intercept_execvpe(const char *file, char *const arguments[], char *const environment[]) {
    return LEAKLINE_REAL(execvpe)(file, arguments, own_environment(environment));
}
LEAKLINE_EXPORT(execvpe);

int leakline_intercept_execvp(const char *file, char *const arguments[]) {
    char *const *environment = own_environment(environ);
    if (environment == environ)
        return LEAKLINE_REAL(execvp)(file, arguments);
    return LEAKLINE_REAL(execvpe)(file, arguments, environment);
}
LEAKLINE_EXPORT(execvp);

int leakline_intercept_fexecve(int number, char *const arguments[], char *const environment[]) {
    return LEAKLINE_REAL(fexecve)(number, arguments, own_environment(environment));
}
LEAKLINE_EXPORT(fexecve);

int leakline_intercept_execveat(int folder, const char *path, char *const arguments[], char *const environment[], int flags) {
    return LEAKLINE_REAL(execveat)(folder, path, arguments, own_environment(environment), flags);
}
LEAKLINE_EXPORT(execveat);

/* The arguments of execl and its like as an array, on the caller's stack as libc has them. `list` stands behind the NULL afterwards. */
static size_t count_arguments(va_list list) {
    size_t count = 1;
    while (va_arg(list, char *))
        count++;
    return count;
}

static void copy_arguments(char **arguments, const char *first, size_t count, va_list list) {
    arguments[0] = (char *)first;
    for (size_t i = 1; i <= count; i++)
        arguments[i] = va_arg(list, char *);
}

#define LEAKLINE_ARGUMENTS(arguments, first, then)                                                                                 \
    va_list list;                                                                                                                  \
    va_start(list, first);                                                                                                         \
    size_t count = first ? count_arguments(list) : 0;                                                                              \
    va_end(list);                                                                                                                  \
    char **arguments = alloca((count + 1) * sizeof *arguments);                                                                    \
    va_start(list, first);                                                                                                         \
    copy_arguments(arguments, first, count, list);                                                                                 \
    then;                                                                                                                          \
    va_end(list)

int leakline_intercept_execl(const char *path, const char *first, ...) {
    LEAKLINE_ARGUMENTS(arguments, first, );
    return leakline_intercept_execv(path, arguments);
}
LEAKLINE_EXPORT(execl);

int leakline_intercept_execlp(const char *file, const char *first, ...) {
    LEAKLINE_ARGUMENTS(arguments, first, );
    return leakline_intercept_execvp(file, arguments);
}
LEAKLINE_EXPORT(execlp);

int leakline_intercept_execle(const char *path, const char *first, ...) {
    LEAKLINE_ARGUMENTS(arguments, first, char *const *environment = va_arg(list, char *const *));
    return leakline_intercept_execve(path, arguments, environment);
}
LEAKLINE_EXPORT(execle);

#define LEAKLINE_DEFINE(name)                                                                                                      \
    int leakline_intercept_##name(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,                         \
                                  const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[]) {       \
        return LEAKLINE_REAL(name)(pid, path, actions, attributes, arguments, environment_for(environment, true));                 \
    }                                                                                                                              \
    LEAKLINE_EXPORT(name);
LEAKLINE_DEFINE(posix_spawn)
LEAKLINE_DEFINE(posix_spawnp)
#undef LEAKLINE_DEFINE

const char *leakline_shell_command(const char *command) {
    size_t before = command ? leakline_shell_words_size() : 0;
    char *memory = before ? room_for(before + strlen(command) + 1u) : NULL;
    if (!memory)
        return command;
    strcpy(leakline_shell_words_fill(memory), command);
    return memory;
}

int leakline_intercept_system(const char *command) { return LEAKLINE_REAL(system)(leakline_shell_command(command)); }
LEAKLINE_EXPORT(system);
