/* What `leakline run` puts into the environment: read and taken out when the recording begins, put back for a program that is to be recorded. */
#define _GNU_SOURCE
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "recorder_private.h"
#include "system_calls.h"

#define LIBRARY "libleakline_recorder.so"
#define PRELOAD "LD_PRELOAD="
#define RECORDING "LEAKLINE_RECORDING="
#define PID "LEAKLINE_PID="
#define PARENT "LEAKLINE_PARENT=" /* of a recorded child that calls exec: it stays that child */
#define FOLLOW "LEAKLINE_FOLLOW=1"

struct leakline_asked leakline_asked;
static char library[PATH_MAX]; /* our part of LD_PRELOAD, as it was written there */

static bool begins(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

static bool is_separator(char character) { return character == ':' || character == ' '; }

/* The part of a list of libraries that names this one; its length, 0 if there is none. */
static size_t our_part(const char *list, const char **part) {
    while (*list) {
        size_t length = strcspn(list, ": ");
        size_t name = sizeof LIBRARY - 1u;
        if (length >= name && memcmp(list + length - name, LIBRARY, name) == 0 && (length == name || list[length - name - 1u] == '/')) {
            *part = list;
            return length;
        }
        list += length + (list[length] != '\0');
    }
    return 0;
}

/* Writes the variable without our part; false: nothing else was there. */
static bool take_preload(const char *variable, char *rest) {
    const char *list = variable + sizeof PRELOAD - 1u, *found;
    strcpy(rest, variable);
    size_t length = our_part(list, &found);
    if (length == 0)
        return true;
    if (length < sizeof library) {
        memcpy(library, found, length);
        library[length] = '\0';
    }
    char *part = rest + (found - variable);
    const char *after = found + length;
    if (is_separator(*after))
        after++;
    else if (found > list)
        part--; /* the last one goes with the separator before it */
    strcpy(part, after);
    return rest[sizeof PRELOAD - 1u] != '\0';
}

static void copy(char *to, const char *from, size_t room) {
    size_t length = strnlen(from, room - 1u);
    memcpy(to, from, length);
    to[length] = '\0';
}

static int number(const char *digits) {
    int value = 0;
    for (; *digits >= '0' && *digits <= '9' && value < 100000000; digits++)
        value = value * 10 + (*digits - '0');
    return value;
}

/* False: the variable is ours. */
static bool keep(const char *variable) {
    if (begins(variable, RECORDING))
        copy(leakline_asked.recording, variable + sizeof RECORDING - 1u, sizeof leakline_asked.recording);
    else if (begins(variable, PID))
        leakline_asked.pid = number(variable + sizeof PID - 1u);
    else if (begins(variable, PARENT))
        leakline_asked.parent = number(variable + sizeof PARENT - 1u);
    else if (strcmp(variable, FOLLOW) == 0)
        leakline_asked.follow = true;
    else
        return true;
    return false;
}

/* In an array of its own, which main() is given, too. The one on the stack stays as it is: behind its NULL is what the kernel tells of the
 * machine, and Go goes through it to its first NULL. */
void leakline_environment_take(void) {
    size_t count = 0, size = 0;
    for (char **from = environ; *from; from++, count++)
        if (begins(*from, PRELOAD))
            size += strlen(*from) + 1u;
    size += (count + 1u) * sizeof(char *);
    long memory = leakline_call6(SYS_mmap, 0, (long)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char **array = memory < 0 && memory > -4096 ? NULL : (char **)memory, **to = array;
    char *text = (char *)(array ? array + count + 1u : NULL);
    for (char **from = environ; *from; from++) {
        bool kept = keep(*from);
        if (!array || !kept)
            continue;
        if (!begins(*from, PRELOAD)) {
            *to++ = *from;
        } else if (take_preload(*from, text)) {
            *to++ = text;
            text += strlen(text) + 1u;
        }
    }
    if (array)
        environ = array;
}

/* --- for exec */

/* Behind a filter of system calls not: the beginning of a recording takes some that are not every program's. */
static bool wanted(bool child) {
    return !leakline_sealed && leakline_asked.recording[0] && library[0] && (leakline_asked.follow || !child);
}

static const char *preload_of(char *const environment[]) {
    for (; *environment; environment++)
        if (begins(*environment, PRELOAD))
            return *environment + sizeof PRELOAD - 1u;
    return "";
}

#define LONGEST_PID 12u

size_t leakline_environment_size(char *const environment[], bool child) {
    if (!environment || !wanted(child || leakline_in_vfork_child()))
        return 0;
    size_t count = 0;
    while (environment[count])
        count++;
    return (count + 6u) * sizeof(char *) + sizeof PRELOAD + strlen(library) + 1u + strlen(preload_of(environment)) + sizeof RECORDING +
           strlen(leakline_asked.recording) + sizeof PID + sizeof PARENT + 2u * LONGEST_PID + sizeof FOLLOW;
}

static char *append(char *to, const char *text) {
    size_t length = strlen(text);
    memcpy(to, text, length + 1u);
    return to + length;
}

static char *append_number(char *to, uint32_t value) {
    char digits[LONGEST_PID], *digit = digits + sizeof digits - 1u;
    *digit = '\0';
    do
        *--digit = (char)('0' + value % 10u);
    while (value /= 10u);
    return append(to, digit);
}

char **leakline_environment_fill(void *memory, char *const environment[], bool child) {
    char **to = memory;
    size_t count = 0;
    while (environment[count])
        count++;
    char *text = (char *)(to + count + 6u);
    const char *preload = preload_of(environment), *part;
    bool there = our_part(preload, &part) != 0;
    for (; *environment; environment++)
        if (there || !begins(*environment, PRELOAD))
            *to++ = *environment;
    if (!there) {
        *to++ = text;
        text = append(append(text, PRELOAD), library);
        text = preload[0] ? append(append(text, ":"), preload) + 1 : text + 1;
    }
    *to++ = text;
    text = append(append(text, RECORDING), leakline_asked.recording) + 1;
    if (!child && !leakline_in_vfork_child()) {
        *to++ = text;
        text = append_number(append(text, PID), (uint32_t)leakline_own_pid) + 1;
        *to++ = text;
        text = append_number(append(text, PARENT), (uint32_t)leakline_parent_pid) + 1;
    }
    if (leakline_asked.follow)
        *to++ = append(text, FOLLOW) - (sizeof FOLLOW - 1u);
    *to = NULL;
    return memory;
}

/* --- for a shell, which libc starts with the target's own environment: a command in front of the target's. On the same line, as the shell counts
 * lines in its complaints. */

#define EXPORT "export " PRELOAD "'"
#define AND_OTHERS "'\"${LD_PRELOAD:+:$LD_PRELOAD}\" " RECORDING "'"
#define AND_FOLLOW "' " FOLLOW "; "

size_t leakline_shell_words_size(void) {
    if (!wanted(true) || strchr(library, '\'') || strchr(leakline_asked.recording, '\''))
        return 0;
    return sizeof EXPORT + strlen(library) + sizeof AND_OTHERS + strlen(leakline_asked.recording) + sizeof AND_FOLLOW;
}

char *leakline_shell_words_fill(char *to) {
    return append(append(append(append(append(to, EXPORT), library), AND_OTHERS), leakline_asked.recording), AND_FOLLOW);
}
