/* A program with every kind of import slot: its own, a pointer in data that cannot be written, and two libraries, one bound lazily and one at once behind
 * RELRO (victim.c). Reads commands: "open" opens a descriptor through each, "load FILE" loads a library and opens through it at once; prints their
 * numbers in the order of the slots.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

typedef int open_function(const char *, int, mode_t);
typedef int eventfd_function(unsigned, int);

static eventfd_function *const pointer = eventfd;
static eventfd_function *volatile stored; /* made before: out of reach */

static void *load(const char *path) {
    void *library = dlopen(path, RTLD_LAZY);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(2);
    }
    return library;
}

int main(int count, char **words) {
    char line[4096];
    if (count != 3)
        return 2;
    void *lazy = load(words[1]), *now = load(words[2]);
    open_function *lazy_open = (open_function *)dlsym(lazy, "victim_open"), *now_open = (open_function *)dlsym(now, "victim_open");
    stored = pointer;
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "load ", 5) == 0) {
            open_function *opens = (open_function *)dlsym(load(line + 5), "victim_open");
            printf("%d\n", opens("/dev/null", O_RDONLY, 0));
        } else {
            int own = open("/dev/null", O_RDONLY), in_data = pointer(0, 0);
            int by_lazy = lazy_open("/dev/null", O_RDONLY, 0), by_now = now_open("/dev/null", O_RDONLY, 0);
            printf("%d %d %d %d %d\n", own, in_data, by_lazy, by_now, stored(0, 0));
        }
        fflush(stdout);
    }
    return 0;
}
