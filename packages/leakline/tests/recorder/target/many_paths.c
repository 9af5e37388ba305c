/* Opens from 256 call paths, two rounds in the same order, then two in another, in as many threads as asked for: `many_paths ROUNDS THREADS`. Which
 * path opened a descriptor is printed for those of the last round, which stay open. */
#include <alloca.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define PATHS 256

typedef int (*function)(unsigned);
static __attribute__((noinline)) int innermost(unsigned path) {
    (void)path;
    return eventfd(0, 0);
}

#define SMALL __attribute__((noinline, optimize("omit-frame-pointer")))
#define POINTER __attribute__((noinline, optimize("no-omit-frame-pointer")))
#define LEVEL(name, next)                                                                                                                  \
    static SMALL int name##_0(unsigned path) { return next(path >> 2) + 0; }                                                               \
    static SMALL int name##_1(unsigned path) { volatile char room[100]; room[path % 100] = 1; return next(path >> 2) + room[path % 100] - 1; } \
    static POINTER int name##_2(unsigned path) { volatile char *room = alloca(path % 2 * 16 + 16); room[3] = 1; return next(path >> 2) + room[3] - 1; } \
    static POINTER int name##_3(unsigned path) { volatile int result = next(path >> 2); return result; }                                    \
    static const function name##s[] = {name##_0, name##_1, name##_2, name##_3};

#define INNERMOST(path) innermost(path)
LEVEL(fourth, INNERMOST)
#define FOURTH(path) fourths[(path) & 3](path)
LEVEL(third, FOURTH)
#define THIRD(path) thirds[(path) & 3](path)
LEVEL(second, THIRD)
#define SECOND(path) seconds[(path) & 3](path)
LEVEL(first, SECOND)

static int rounds;

static void *run(void *unused) {
    (void)unused;
    for (int round = 0; round < rounds; round++)
        for (unsigned i = 0; i < PATHS; i++) {
            unsigned path = i * (2u * ((unsigned)round / 2u) + 1u) % PATHS;
            int number = firsts[path & 3](path);
            if (number < 0)
                abort();
            if (round + 1 < rounds)
                close(number);
            else
                printf("%d %u\n", number, path);
        }
    return NULL;
}

int main(int count, char **words) {
    if (count != 3)
        return 2;
    rounds = atoi(words[1]);
    pthread_t threads[16];
    int running = atoi(words[2]);
    for (int i = 0; i < running; i++)
        if (pthread_create(&threads[i], NULL, run, NULL))
            return 1;
    for (int i = 0; i < running; i++)
        pthread_join(threads[i], NULL);
    printf("ready\n");
    fflush(stdout);
    getchar();
    return 0;
}
