/* Forks while another thread is inside the loader, whose lock the child may then inherit held by nobody; each child opens something.
 * Of the forks that were asked for, the number that met a held lock is not known: the longer the thread is inside, the more. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int stop, loads;

static int look(struct dl_phdr_info *info, size_t size, void *unused) {
    (void)info;
    (void)size;
    (void)unused;
    for (volatile int i = 0; i < 2000; i++)
        continue;
    return 0;
}

static void *be_in_loader(void *unused) {
    while (!stop) {
        void *library = dlopen("libutil.so.1", RTLD_NOW); /* a new generation, so that each child looks at the libraries again */
        if (!library)
            abort();
        loads++;
        for (int i = 0; i < 20; i++)
            dl_iterate_phdr(look, NULL);
        dlclose(library);
    }
    return unused;
}

__attribute__((noinline)) static int open_in_child(void) {
    int number = open("/dev/null", O_RDONLY); /* opened here */
    return number + 0 * dup(number);
}

int main(int count, char **words) {
    pthread_t thread;
    int forks = count > 1 ? atoi(words[1]) : 1, bad = 0;
    if (open_in_child() < 0 || pthread_create(&thread, NULL, be_in_loader, NULL) != 0)
        return 2;
    while (loads < 2)
        usleep(100);
    for (int i = 0; i < forks; i++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            alarm(20); /* one that hangs is killed */
            _exit(open_in_child() < 0);
        }
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
            bad++;
    }
    stop = 1;
    pthread_join(thread, NULL);
    printf("%d\n", bad);
    return 0;
}
