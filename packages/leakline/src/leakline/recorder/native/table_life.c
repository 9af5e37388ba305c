/* How a table begins, what fork() does to it, and how it ends; and the one lock. See descriptor_table.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "descriptor_hooks.h"
#include "file_status.h"
#include "table_private.h"
#include "old_names.h"

#define SLOTS_WITHOUT_POPULATE 16384u /* what is shown to others on a kernel older than 5.14 */

static struct leakline_table tables[LEAKLINE_TABLES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t handlers = PTHREAD_ONCE_INIT;
/* The version that glibc has had since the machine's beginning, so that this loads into those before 2.34, too. */
#if defined(__GLIBC__) && defined(__x86_64__)
__asm__(".symver pthread_once,pthread_once@GLIBC_2.2.5");
#elif defined(__GLIBC__) && defined(__aarch64__)
__asm__(".symver pthread_once,pthread_once@GLIBC_2.17");
#endif
static unsigned char *same_process; /* 1; the kernel clears the page in any child, also where no atfork handler runs */

/* --- the lock */

/* `late`: not at the fork, but at the first call after it. */
static void begin_in_child(bool late);

void leakline_lock(void) {
    if (same_process && !__atomic_load_n(same_process, __ATOMIC_RELAXED)) {
        /* A child of clone() or _Fork(): no handler ran, and whoever held the lock does not exist here. */
        lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
        begin_in_child(true);
    }
    pthread_mutex_lock(&lock);
}

void leakline_unlock(void) { pthread_mutex_unlock(&lock); }

bool leakline_lock_table(const struct leakline_table *table) {
    leakline_lock();
    if (table->used)
        return true;
    leakline_unlock();
    return false;
}

/* --- fork */

/* Whether a number still is what was recorded: nobody may close another's descriptor, but some do. For what has no inode of its
 * own only the sort can be told: anonymous inodes have no type bits (the kernel keeps that for programs that look). */
static bool is_recorded(const struct leakline_slot *slot, int number) {
    struct stat status;
    if (leakline_fstat(number, &status) != 0)
        return false;
    if (leakline_is_socket(slot->kind))
        return S_ISSOCK(status.st_mode) && (slot->inode == 0 || slot->inode == status.st_ino);
    switch (slot->kind) {
    case LEAKLINE_KIND_EVENTFD:
    case LEAKLINE_KIND_EPOLL:
    case LEAKLINE_KIND_INOTIFY:
    case LEAKLINE_KIND_TIMERFD:
    case LEAKLINE_KIND_SIGNALFD:
        return (status.st_mode & S_IFMT) == 0;
    case LEAKLINE_KIND_PIPE:
        return S_ISFIFO(status.st_mode);
    }
    return true;
}

/* In a child. Records up to generation `unsure` are of descriptors that came here long ago: their numbers may have been closed and
 * be others' by now. A socket's inode proves which it is; what has none stays open, and so does its record.
 * Only what may be done in a signal handler: the threads that are not here may have held any lock. */
static void close_inherited(struct leakline_table *table, uint64_t unsure) {
    for (uint32_t number = 0; number < header_of(table->image)->slot_bound; number++) {
        const struct leakline_slot *slot = slot_at(table->image, number);
        if (slot->kind == LEAKLINE_KIND_NONE || (slot->inode == 0 && slot->generation <= unsure))
            continue;
        bool recorded = is_recorded(slot, (int)number);
        leakline_record_closed(table, (int)number);
        if (recorded && close((int)number) == 0)
            table->closed_in_child++;
        else
            table->strange_in_child++;
    }
}

static void begin_in_child(bool late) {
    __atomic_store_n(same_process, 1, __ATOMIC_RELAXED);
    leakline_forget_thread_number();
    leakline_standby_forget();
    for (struct leakline_table *table = tables; table < tables + LEAKLINE_TABLES; table++) {
        if (!table->used)
            continue;
        table->shared = NULL; /* MADV_DONTFORK: it is not mapped here */
        uint64_t inherited_before = table->inherited_to;
        table->inherited_to = table->generation;
        table->closed_in_child = table->strange_in_child = 0;
        header_of(table->image)->changes &= ~UINT64_C(1);
        if (table->close_in_child)
            close_inherited(table, late ? table->generation : inherited_before);
    }
}

static void after_fork_in_child(void) {
    begin_in_child(false);
    leakline_unlock();
}

static void install_fork_handlers(void) { pthread_atfork(leakline_lock, leakline_unlock, after_fork_in_child); }

/* LOCKED. Made once a process, and kept for ever. */
static bool map_same_process(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (same_process)
        return true;
    unsigned char *made = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED)
        return false;
    if (madvise(made, page, MADV_WIPEONFORK) != 0) {
        munmap(made, page);
        return false;
    }
    *made = 1;
    same_process = made;
    return true;
}

void leakline_table_close_in_child(struct leakline_table *table) {
    if (!leakline_lock_table(table))
        return;
    table->close_in_child = true;
    leakline_unlock();
}

/* --- making and ending a table */

/* Field 22 of /proc/self/stat; the name in field 2 may hold spaces and brackets, so count from the last bracket. */
static uint64_t start_time_ticks(void) {
    char text[1024];
    int number = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    if (number < 0)
        return 0;
    ssize_t length = read(number, text, sizeof text - 1);
    close(number);
    text[length > 0 ? length : 0] = '\0';
    char *field = strrchr(text, ')');
    for (int i = 2; field && i < 22; i++)
        field = strchr(field + 1, ' ');
    return field ? strtoull(field, NULL, 10) : 0;
}

static void fill_header(struct leakline_header *header, uint32_t slots) {
    header->layout_version = LEAKLINE_LAYOUT_VERSION;
    header->header_size = LEAKLINE_HEADER_SIZE;
    header->owner_size = sizeof(struct leakline_owner);
    header->owner_count = LEAKLINE_OWNERS;
    header->slot_size = sizeof(struct leakline_slot);
    header->slot_count = slots;
    header->owners_offset = owner_offset(0);
    header->slots_offset = slot_offset(0);
    header->pid = (int32_t)getpid();
    header->state = LEAKLINE_LIVE;
    header->start_time_ticks = start_time_ticks();
    header->created_at_ns = leakline_now_ns();
    struct stat namespace;
    header->pid_namespace = leakline_stat("/proc/self/ns/pid", &namespace) == 0 ? namespace.st_ino : 0;
    header->kind_count = LEAKLINE_KIND_COUNT;
    for (uint32_t kind = 0; kind < LEAKLINE_KIND_COUNT; kind++)
        snprintf(header->kinds[kind], sizeof header->kinds[kind], "%s", leakline_kind_name(kind));
}

static uint32_t slots_wanted(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_max > LEAKLINE_SLOTS_HIGHEST)
        return LEAKLINE_SLOTS_HIGHEST;
    return limit.rlim_max < 64 ? 64 : (uint32_t)limit.rlim_max;
}

/* Storage for the header. A kernel that cannot give storage to single pages later gets a fixed part of the file now. */
static bool store_first_part(struct leakline_table *table, int file) {
    if (leakline_stored(table, 0, LEAKLINE_HEADER_SIZE))
        return true;
    if (errno != EINVAL)
        return false;
    size_t part = slot_offset(SLOTS_WITHOUT_POPULATE);
    if (part > table->size)
        part = table->size;
    int error = posix_fallocate(file, 0, (off_t)part);
    if (error) {
        errno = error;
        return false;
    }
    memset(table->stored, 1, part == table->size ? part / CHUNK + 1 : part / CHUNK);
    return true;
}

static int publish_at(struct leakline_table *table, const char *path) {
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0)
        return -1;
    table->shared = MAP_FAILED;
    bool made = ftruncate(file, (off_t)table->size) == 0;
    if (made)
        table->shared = mmap(NULL, table->size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    made = made && table->shared != MAP_FAILED && madvise(table->shared, table->size, MADV_DONTFORK) == 0 &&
           store_first_part(table, file);
    int error = errno;
    close(file);
    if (made) {
        memcpy(table->shared, table->image, LEAKLINE_HEADER_SIZE);
        __atomic_thread_fence(__ATOMIC_RELEASE);
        memcpy(table->shared, LEAKLINE_MAGIC, 8);
        return 0;
    }
    if (table->shared != MAP_FAILED)
        munmap(table->shared, table->size);
    table->shared = NULL;
    unlink(path);
    errno = error == EFAULT ? ENOSPC : error; /* what MADV_POPULATE_WRITE answers where a write would be SIGBUS */
    return -1;
}

static void unmap_private(struct leakline_table *table) {
    if (table->image)
        munmap(table->image, table->size);
    table->image = NULL;
}

static int map_private(struct leakline_table *table) {
    uint32_t slots = slots_wanted();
    table->size = slot_offset(slots);
    table->image = mmap(NULL, table->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (table->image == MAP_FAILED) {
        table->image = NULL;
        return -1;
    }
    fill_header(header_of(table->image), slots);
    return 0;
}

struct leakline_table *leakline_table_create(const char *path) {
    pthread_once(&handlers, install_fork_handlers);
    leakline_lock();
    if (!map_same_process()) {
        leakline_unlock();
        return NULL;
    }
    struct leakline_table *table = tables;
    while (table < tables + LEAKLINE_TABLES && table->used)
        table++;
    if (table == tables + LEAKLINE_TABLES) {
        errno = ENFILE;
        table = NULL;
    } else {
        memset(table, 0, sizeof *table);
        table->used = map_private(table) == 0;
        if (table->used && path && publish_at(table, path) != 0) {
            int error = errno;
            unmap_private(table);
            table->used = false;
            errno = error;
        }
        if (!table->used)
            table = NULL;
    }
    leakline_unlock();
    return table;
}

void leakline_table_close(struct leakline_table *table) {
    if (!leakline_lock_table(table))
        return;
    char *shared = table->shared;
    if (shared) {
        __atomic_store_n(&header_of(shared)->state, (uint32_t)LEAKLINE_CLOSED, __ATOMIC_RELEASE);
        munmap(shared, table->size);
    }
    table->shared = NULL;
    unmap_private(table);
    table->used = false;
    leakline_unlock();
}
