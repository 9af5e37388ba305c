/* The table itself: records, owners, its file, fork, and a file system that is full of other things. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "descriptor_table.h"
#include "tests.h"

#ifdef LEAKLINE_ADVICE_POPULATE /* the build that plays an older kernel */
#define ADVICE_IS_KNOWN 0
#else
#define ADVICE_IS_KNOWN 1
#endif
#define PATH "test.table"
#define ROUNDS 20000

static struct leakline_header header_on_disk(void) {
    struct leakline_header header;
    int file = open(PATH, O_RDONLY | O_CLOEXEC);
    CHECK(file >= 0 && pread(file, &header, sizeof header, 0) == sizeof header);
    close(file);
    return header;
}

static struct leakline_slot slot_on_disk(int number) {
    struct leakline_header header = header_on_disk();
    struct leakline_slot slot;
    int file = open(PATH, O_RDONLY | O_CLOEXEC);
    off_t offset = (off_t)(header.slots_offset + (uint64_t)number * header.slot_size);
    CHECK(file >= 0 && pread(file, &slot, sizeof slot, offset) == sizeof slot);
    close(file);
    return slot;
}

static size_t count(struct leakline_table *table) { return leakline_table_list(table, NULL, 0); }

static void expect_status(pid_t child, int status) {
    int found;
    CHECK(waitpid(child, &found, 0) == child);
    CHECK(WIFEXITED(found) && WEXITSTATUS(found) == status);
}

static void records(void) {
    struct leakline_table *table = leakline_table_create(PATH);
    CHECK(table != NULL);
    CHECK(leakline_table_create(PATH) == NULL && errno == EEXIST);
    struct leakline_header header = header_on_disk();
    CHECK(memcmp(header.magic, LEAKLINE_MAGIC, 8) == 0);
    CHECK(header.pid == getpid() && header.start_time_ticks > 0 && header.state == LEAKLINE_LIVE);

    CHECK(leakline_table_put(table, 7, LEAKLINE_KIND_EPOLL, 0) == 0);
    CHECK(leakline_table_put(table, 7, LEAKLINE_KIND_EVENTFD, 0) == 0); /* the number was closed behind our back */
    CHECK(count(table) == 1);
    struct leakline_slot slot = slot_on_disk(7);
    CHECK(slot.kind == LEAKLINE_KIND_EVENTFD && slot.generation == 2 && slot.sequence % 2 == 0);
    CHECK(slot.tid == (uint32_t)syscall(SYS_gettid) && slot.source == LEAKLINE_REGISTERED);
    CHECK(leakline_table_put(table, 8, 12345, 0) == 0 && slot_on_disk(8).kind == LEAKLINE_KIND_OTHER);
    CHECK(leakline_table_forget(table, 8) == 1 && leakline_table_forget(table, 8) == 0);
    CHECK(slot_on_disk(8).kind == LEAKLINE_KIND_NONE);

    CHECK(leakline_table_put(table, -1, LEAKLINE_KIND_FILE, 0) == -1);
    CHECK(leakline_table_put(table, (int)header.slot_count, LEAKLINE_KIND_FILE, 0) == -1);
    CHECK(leakline_table_forget(table, 1 << 30) == 0);
    struct leakline_counters counters;
    leakline_table_counters(table, &counters);
    CHECK(counters.out_of_range == 2 && counters.unpublished == 0 && counters.changes % 2 == 0);

    /* The last slot that can be shown; on an old kernel only the first 16384 are. */
    int last = (int)header.slot_count - 1;
    CHECK(leakline_table_put(table, last, LEAKLINE_KIND_FILE, 0) == 0 && count(table) == 2);
    leakline_table_counters(table, &counters);
    CHECK(counters.unpublished == (ADVICE_IS_KNOWN || header.slot_count <= 16384 ? 0 : 1));
    leakline_table_close(table);
    CHECK(header_on_disk().state == LEAKLINE_CLOSED);
    CHECK(leakline_table_put(table, 7, LEAKLINE_KIND_FILE, 0) == 0 && count(table) == 0); /* closed: nothing happens */
    CHECK(unlink(PATH) == 0);
}

static void owners(void) {
    struct leakline_table *table = leakline_table_create(NULL);
    char name[8] = "";
    uint32_t first = leakline_owner_add(table, "first", 5);
    CHECK(first == 1 && leakline_owner_name(table, first, name, sizeof name) == 5 && memcmp(name, "first", 5) == 0);
    CHECK(leakline_table_put(table, 3, LEAKLINE_KIND_EPOLL, first) == 0);
    CHECK(leakline_table_put(table, 4, LEAKLINE_KIND_EPOLL, first) == 0);
    leakline_owner_release(table, first);
    CHECK(leakline_owner_add(table, "second", 6) == 2); /* 3 still has the name of the first */
    CHECK(leakline_owner_name(table, first, name, sizeof name) == 5);
    CHECK(leakline_table_forget(table, 4) == 1);
    CHECK(leakline_owner_name(table, first, name, sizeof name) == 5);
    CHECK(leakline_table_forget(table, 3) == 1);
    CHECK(leakline_owner_name(table, first, name, sizeof name) == 0);
    CHECK(leakline_owner_add(table, "third", 5) == first);
    uint32_t used = 2;
    while (leakline_owner_add(table, "more", 4) != 0)
        used++;
    CHECK(used == LEAKLINE_OWNERS - 1);
    leakline_table_close(table);
}

static void assigning(void) {
    struct leakline_table *table = leakline_table_create(NULL);
    uint32_t owner = leakline_owner_add(table, "session", 7);
    struct leakline_entry entry;
    int number = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    leakline_lock();
    leakline_change_begin(table);
    CHECK(leakline_record_opened(table, number, LEAKLINE_KIND_UNIX, 0, LEAKLINE_OPENED) == 0);
    leakline_change_end(table);
    leakline_unlock();
    CHECK(leakline_table_list(table, &entry, 1) == 1 && entry.owner == 0 && entry.inode != 0);
    CHECK(leakline_table_assign(table, number, owner, entry.generation + 1) == 0);
    CHECK(leakline_table_assign(table, number, owner, entry.generation) == 1);
    CHECK(leakline_table_list(table, &entry, 1) == 1 && entry.owner == owner);
    CHECK(leakline_table_put(table, number, LEAKLINE_KIND_UNIX, 0) == 0);
    CHECK(leakline_table_assign(table, number, owner, 0) == 0); /* the caller's own */
    CHECK(leakline_table_assign(table, number + 1, owner, 0) == 0);
    close(number);
    leakline_table_close(table);
}

static void child_of_fork(struct leakline_table *table) {
    struct leakline_entry entries[4];
    CHECK(leakline_table_list(table, entries, 4) == 1 && entries[0].inherited == 1);
    CHECK(leakline_table_put(table, 20, LEAKLINE_KIND_FILE, 0) == 0 && leakline_table_forget(table, 10) == 1);
    CHECK(leakline_table_list(table, entries, 4) == 1 && entries[0].number == 20 && entries[0].inherited == 0);
    struct leakline_table *own = leakline_table_create("child.table");
    CHECK(own && own != table && leakline_table_put(own, 21, LEAKLINE_KIND_FILE, 0) == 0);
    leakline_table_close(table);
    leakline_table_close(own);
    CHECK(unlink("child.table") == 0);
    _exit(0);
}

/* clone() without handlers, as glibc's _Fork or another runtime does it: the kernel alone keeps the child from the file. */
static void child_of_clone(struct leakline_table *table) {
    CHECK(leakline_table_put(table, 22, LEAKLINE_KIND_FILE, 0) == 0 && leakline_table_forget(table, 10) == 1);
    _exit(0);
}

static void forks(void) {
    struct leakline_table *table = leakline_table_create(PATH);
    CHECK(leakline_table_put(table, 10, LEAKLINE_KIND_FILE, 0) == 0);
    struct leakline_header before = header_on_disk();
    pid_t child = fork();
    if (child == 0)
        child_of_fork(table);
    expect_status(child, 0);
    child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0)
        child_of_clone(table);
    expect_status(child, 0);
    struct leakline_header after = header_on_disk();
    CHECK(memcmp(&before, &after, sizeof before) == 0 && after.state == LEAKLINE_LIVE);
    CHECK(slot_on_disk(10).kind == LEAKLINE_KIND_FILE && slot_on_disk(20).kind == LEAKLINE_KIND_NONE);
    CHECK(slot_on_disk(22).kind == LEAKLINE_KIND_NONE && count(table) == 1);
    leakline_table_close(table);
    CHECK(unlink(PATH) == 0);
}

static bool is_open(int number) { return fcntl(number, F_GETFD) >= 0; }

/* What a child is to close (an eventfd, a pair of sockets), and what it must not: numbers that were closed behind the table's back
 * and are a file and another socket by now, and what another table holds. */
struct inheritance {
    struct leakline_table *closing, *keeping;
    int event, pair[2], file, stranger, kept;
};

static struct inheritance leave_inheritance(void) {
    struct inheritance made = {.closing = leakline_table_create(PATH), .keeping = leakline_table_create(NULL)};
    made.event = eventfd(0, EFD_CLOEXEC);
    made.file = eventfd(0, EFD_CLOEXEC);
    made.kept = eventfd(0, EFD_CLOEXEC);
    made.stranger = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, made.pair) == 0);
    leakline_table_put(made.closing, made.event, LEAKLINE_KIND_EVENTFD, 0);
    leakline_table_put(made.closing, made.file, LEAKLINE_KIND_EVENTFD, 0);
    leakline_table_put(made.closing, made.stranger, LEAKLINE_KIND_UNIX, 0);
    leakline_table_put(made.closing, made.pair[0], LEAKLINE_KIND_UNIX, 0);
    leakline_table_put(made.closing, made.pair[1], LEAKLINE_KIND_UNIX, 0);
    leakline_table_put(made.keeping, made.kept, LEAKLINE_KIND_EVENTFD, 0);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC), other = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(dup2(null, made.file) == made.file && dup2(other, made.stranger) == made.stranger);
    close(null);
    close(other);
    leakline_table_close_in_child(made.closing);
    return made;
}

static struct leakline_counters counters_of(struct leakline_table *table) {
    struct leakline_counters counters = {0};
    leakline_table_counters(table, &counters);
    return counters;
}

static void heir_of_fork(const struct inheritance *got) {
    CHECK(!is_open(got->event) && !is_open(got->pair[0]) && !is_open(got->pair[1]));
    CHECK(is_open(got->file) && is_open(got->stranger) && is_open(got->kept));
    CHECK(count(got->closing) == 0 && count(got->keeping) == 1);
    struct leakline_counters counters = counters_of(got->closing);
    CHECK(counters.closed_in_child == 3 && counters.strange_in_child == 2);
    int own = eventfd(0, EFD_CLOEXEC); /* the child's child closes it */
    leakline_table_put(got->closing, own, LEAKLINE_KIND_EVENTFD, 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(!is_open(own) && counters_of(got->closing).closed_in_child == 1);
        _exit(0);
    }
    expect_status(child, 0);
    CHECK(is_open(own));
    _exit(0);
}

/* No handler runs here: nothing is closed before the first call, and then only what a number's inode proves. */
static void heir_of_clone(const struct inheritance *got) {
    CHECK(is_open(got->event) && is_open(got->pair[0]) && is_open(got->pair[1]));
    struct leakline_counters counters = counters_of(got->closing);
    CHECK(counters.closed_in_child == 2 && counters.strange_in_child == 1);
    CHECK(!is_open(got->pair[0]) && !is_open(got->pair[1]));
    CHECK(is_open(got->event) && is_open(got->file) && is_open(got->stranger) && is_open(got->kept));
    pid_t child = fork();
    if (child == 0)
        _exit(!is_open(got->event) || !is_open(got->file) || counters_of(got->closing).closed_in_child != 0);
    expect_status(child, 0);
    _exit(0);
}

static void closing_in_a_child(void) {
    struct inheritance left = leave_inheritance();
    struct leakline_counters before = counters_of(left.closing);
    pid_t child = fork();
    if (child == 0)
        heir_of_fork(&left);
    expect_status(child, 0);
    leakline_lock(); /* whoever holds the lock is not in the child */
    child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0)
        heir_of_clone(&left);
    leakline_unlock();
    expect_status(child, 0);
    struct leakline_counters after = counters_of(left.closing);
    CHECK(memcmp(&before, &after, sizeof before) == 0 && count(left.closing) == 5);
    CHECK(is_open(left.event) && is_open(left.pair[0]) && is_open(left.pair[1]));
    int numbers[] = {left.event, left.pair[0], left.pair[1], left.file, left.stranger, left.kept};
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
        close(numbers[i]);
    leakline_table_close(left.closing);
    leakline_table_close(left.keeping);
    CHECK(unlink(PATH) == 0);
}

static void *churn(void *data) {
    struct leakline_table *table = data;
    uint32_t owner = leakline_owner_add(table, "churn", 5);
    for (int i = 0; i < ROUNDS; i++) {
        CHECK(leakline_table_put(table, 100 + i % 50, LEAKLINE_KIND_FILE, owner) == 0);
        leakline_table_forget(table, 100 + i % 50);
    }
    leakline_owner_release(table, owner);
    return NULL;
}

static void threads(void) {
    struct leakline_table *table = leakline_table_create(PATH);
    pthread_t workers[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&workers[i], NULL, churn, table) == 0);
    for (int i = 0; i < 50; i++) { /* forks meanwhile: the child must find the lock free and its copy whole */
        pid_t child = fork();
        if (child == 0) {
            struct leakline_entry entries[64];
            size_t listed = leakline_table_list(table, entries, 64);
            CHECK(listed <= 4);
            for (size_t entry = 0; entry < listed; entry++)
                CHECK(entries[entry].kind == LEAKLINE_KIND_FILE && entries[entry].inherited == 1);
            _exit(0);
        }
        expect_status(child, 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(workers[i], NULL);
    CHECK(count(table) == 0);
    struct leakline_counters counters;
    leakline_table_counters(table, &counters);
    CHECK(counters.opened == 4 * ROUNDS && counters.closed == counters.opened);
    CHECK(leakline_owner_add(table, "again", 5) == 1); /* every reference was given back */
    leakline_table_close(table);
    CHECK(unlink(PATH) == 0);
}

static void limits(void) {
    struct leakline_table *tables[64];
    int made = 0;
    while (made < 64 && (tables[made] = leakline_table_create(NULL)))
        made++;
    CHECK(made == 8 && errno == ENFILE);
    while (made > 0)
        leakline_table_close(tables[--made]);
    CHECK(leakline_table_create("no/such/directory") == NULL && errno == ENOENT);
    CHECK(symlink("target", PATH) == 0 && leakline_table_create(PATH) == NULL && errno == EEXIST && unlink(PATH) == 0);
}

void test_descriptor_table(void) {
    unlink(PATH);
    records();
    owners();
    assigning();
    forks();
    closing_in_a_child();
    threads();
    limits();
}
