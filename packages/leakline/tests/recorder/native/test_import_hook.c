/* Hooking a library's imports: both ways of linking, errno, page protections, and only that library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "descriptor_hooks.h"
#include "import_hook.h"
#include "tests.h"

struct victim {
    void *handle;
    int (*eventfd)(void);
    int (*epoll)(void);
    int (*socket)(int, int);
    int (*accept)(int);
    int (*pipe)(int[2]);
    int (*open)(const char *, int, mode_t);
    int (*close)(int);
};

static struct victim load(const char *path) {
    struct victim victim = {.handle = dlopen(path, RTLD_LAZY | RTLD_LOCAL)};
    CHECK(victim.handle != NULL);
    *(void **)&victim.eventfd = dlsym(victim.handle, "victim_eventfd");
    *(void **)&victim.epoll = dlsym(victim.handle, "victim_epoll");
    *(void **)&victim.socket = dlsym(victim.handle, "victim_socket");
    *(void **)&victim.accept = dlsym(victim.handle, "victim_accept");
    *(void **)&victim.pipe = dlsym(victim.handle, "victim_pipe");
    *(void **)&victim.open = dlsym(victim.handle, "victim_open");
    *(void **)&victim.close = dlsym(victim.handle, "victim_close");
    return victim;
}

/* The lines of /proc/self/maps that name the library. */
static void mappings(const char *name, char *text, size_t room) {
    char line[512];
    text[0] = '\0';
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && fgets(line, sizeof line, maps)) {
        if (strstr(line, name))
            strncat(text, line, room - strlen(text) - 1);
    }
    CHECK(maps && fclose(maps) == 0 && text[0]);
}

static struct leakline_entry only_entry(struct leakline_table *table) {
    struct leakline_entry entry;
    CHECK(leakline_table_list(table, &entry, 1) == 1);
    return entry;
}

static void expect_closed(struct leakline_table *table, const struct victim *victim, int number) {
    CHECK(victim->close(number) == 0 && leakline_table_list(table, NULL, 0) == 0);
    CHECK(fcntl(number, F_GETFD) == -1 && errno == EBADF);
}

static void expect_kind(struct leakline_table *table, const struct victim *victim, int number, uint32_t kind) {
    struct leakline_entry entry = only_entry(table);
    CHECK(number >= 0 && entry.number == number && entry.kind == kind && entry.source == LEAKLINE_OPENED);
    expect_closed(table, victim, number);
}

static void kinds(struct leakline_table *table, const struct victim *victim) {
    expect_kind(table, victim, victim->eventfd(), LEAKLINE_KIND_EVENTFD);
    expect_kind(table, victim, victim->epoll(), LEAKLINE_KIND_EPOLL);
    expect_kind(table, victim, victim->socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC), LEAKLINE_KIND_TCP);
    expect_kind(table, victim, victim->socket(AF_INET6, SOCK_DGRAM), LEAKLINE_KIND_UDP);
    expect_kind(table, victim, victim->socket(AF_UNIX, SOCK_SEQPACKET), LEAKLINE_KIND_UNIX);
    expect_kind(table, victim, victim->open("made_by_hook", O_CREAT | O_RDWR, 0640), LEAKLINE_KIND_FILE);
    struct stat status;
    CHECK(stat("made_by_hook", &status) == 0 && (status.st_mode & 0777) == 0640 && unlink("made_by_hook") == 0);
    int ends[2];
    CHECK(victim->pipe(ends) == 0 && leakline_table_list(table, NULL, 0) == 2);
    CHECK(victim->close(ends[0]) == 0 && victim->close(ends[1]) == 0 && leakline_table_list(table, NULL, 0) == 0);
}

static void accepted(struct leakline_table *table, const struct victim *victim) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0); /* ours, so it must not be listed; the kernel is asked for its kind */
    CHECK(bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr *)&address, size) == 0);
    int number = victim->accept(listener);
    struct leakline_entry entry = only_entry(table);
    CHECK(entry.number == number && entry.kind == LEAKLINE_KIND_TCP && entry.source == LEAKLINE_ACCEPTED && entry.inode);
    expect_closed(table, victim, number);
    close(client);
    close(listener);
}

static void errno_is_kept(struct leakline_table *table, const struct victim *victim) {
    errno = 77;
    int number = victim->socket(AF_UNIX, SOCK_STREAM);
    CHECK(number >= 0 && errno == 77);
    CHECK(victim->close(number) == 0 && errno == 77);
    CHECK(victim->close(number) == -1 && errno == EBADF);
    CHECK(victim->open("no/such/file", O_RDONLY, 0) == -1 && errno == ENOENT);
    CHECK(victim->socket(-1, -1) == -1 && errno != 77);
    CHECK(leakline_table_list(table, NULL, 0) == 0);
}

static void owner_of_thread(struct leakline_table *table, const struct victim *victim) {
    uint32_t owner = leakline_owner_add(table, "here", 4);
    CHECK(leakline_owner_use(owner) == 0);
    int number = victim->eventfd();
    CHECK(leakline_owner_use(0) == owner && only_entry(table).owner == owner);
    CHECK(leakline_table_assign(table, number, 0, 0) == 0); /* an eventfd: the event was about an earlier socket */
    expect_closed(table, victim, number);
    leakline_owner_release(table, owner);
}

/* Descriptors at hand answer a hooked library's calls, even where none could be opened; what is left is closed. */
static void standby(struct leakline_table *table, const struct victim *victim) {
    struct rlimit before, none;
    CHECK(leakline_standby_fill(2, 1) == 0 && leakline_table_list(table, NULL, 0) == 3);
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = (struct rlimit){0, before.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    int number = victim->eventfd(), epoll = victim->epoll();
    CHECK(number >= 0 && epoll >= 0 && leakline_table_list(table, NULL, 0) == 3);
    CHECK(victim->epoll() == -1 && errno == EMFILE); /* it is used up */
    leakline_standby_end();
    CHECK(leakline_table_list(table, NULL, 0) == 2 && victim->eventfd() == -1 && errno == EMFILE);
    CHECK(leakline_standby_fill(1, 0) == -1 && errno == EMFILE && leakline_table_list(table, NULL, 0) == 2);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(victim->close(epoll) == 0);
    expect_closed(table, victim, number);
    CHECK(leakline_standby_fill(LEAKLINE_STANDBY + 1, 0) == -1 && errno == EINVAL);

    none.rlim_cur = (rlim_t)eventfd(0, EFD_CLOEXEC) + 2; /* room for two more: the third fails, and none is left open */
    CHECK(close((int)none.rlim_cur - 2) == 0 && setrlimit(RLIMIT_NOFILE, &none) == 0);
    CHECK(leakline_standby_fill(1, 2) == -1 && errno == EMFILE && leakline_table_list(table, NULL, 0) == 0);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
}

static void library(const char *path, const char *name) {
    char before[8192], after[8192];
    struct victim victim = load(path);
    int early = victim.eventfd(); /* binds this one lazily; the others are still unbound */
    struct leakline_table *table = leakline_table_create(NULL);
    struct leakline_hooked hooked;
    leakline_hook_target(table);
    mappings(name, before, sizeof before);
    leakline_hook_library(name, &hooked);
    mappings(name, after, sizeof after);
    CHECK(strcmp(before, after) == 0); /* read-only pages are read-only again */
    CHECK(hooked.libraries == 1 && hooked.slots == 7 && hooked.failed == 0 && __builtin_popcountll(hooked.functions) == 7);
    leakline_hook_library(name, &hooked);
    CHECK(hooked.slots == 7);

    CHECK(victim.close(early) == 0); /* unknown to the table: the plain call */
    int foreign = eventfd(0, 0);
    CHECK(leakline_table_list(table, NULL, 0) == 0);
    close(foreign);
    kinds(table, &victim);
    accepted(table, &victim);
    errno_is_kept(table, &victim);
    owner_of_thread(table, &victim);
    standby(table, &victim);

    leakline_hook_target_end(table);
    int unrecorded = victim.eventfd();
    CHECK(unrecorded >= 0 && leakline_table_list(table, NULL, 0) == 0 && victim.close(unrecorded) == 0);
    leakline_table_close(table);
    CHECK(dlclose(victim.handle) == 0);
}

static void no_such_library(void) {
    struct leakline_hooked hooked;
    leakline_hook_library("libnobodyhasthis", &hooked);
    CHECK(hooked.libraries == 0 && hooked.slots == 0);
    leakline_hook_library("/libvictim", &hooked); /* unloaded above */
    CHECK(hooked.libraries == 0);
}

void test_import_hook(void) {
    for (int round = 0; round < 3; round++) { /* each is unloaded and comes back with fresh imports */
        library("./libvictim_lazy.so", "libvictim_lazy");
        library("./libvictim_now.so", "/libvictim_now");
    }
    no_such_library();
}
