/* The table of descriptors: writing. See descriptor_table.h for the contract, table_layout.h for the file. */
#define _GNU_SOURCE
#include "descriptor_table.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef LEAKLINE_ADVICE_POPULATE
#define LEAKLINE_ADVICE_POPULATE 23 /* MADV_POPULATE_WRITE, since Linux 5.14 */
#endif

#define LEAKLINE_TABLES 8
#define CHUNK 65536u /* the file gets its storage in pieces of this size */
#define CHUNKS ((LEAKLINE_HEADER_SIZE + LEAKLINE_OWNERS * sizeof(struct leakline_owner) + \
                 (size_t)LEAKLINE_SLOTS_HIGHEST * sizeof(struct leakline_slot)) / CHUNK + 1)
#define SLOTS_WITHOUT_POPULATE 16384u /* what is shown to others on a kernel older than 5.14 */

struct leakline_table {
    bool used;
    size_t size;
    char *image;                       /* the truth */
    char *shared;                      /* what others read; NULL: unpublished, or this is a forked child */
    unsigned char *same_process;       /* a page that the kernel clears in any child, also where no atfork handler runs */
    uint64_t generation;               /* of the last record made */
    uint64_t inherited_to;             /* records up to this generation came from the parent */
    unsigned char stored[CHUNKS];      /* chunk of the file that has storage */
};

static struct leakline_table tables[LEAKLINE_TABLES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t handlers = PTHREAD_ONCE_INIT;

/* initial-exec: the first use in a thread must not allocate, as the dynamic models do. */
static __thread uint32_t current_owner __attribute__((tls_model("initial-exec")));
static __thread uint32_t current_tid __attribute__((tls_model("initial-exec")));

/* --- lock and fork */

void leakline_lock(void) { pthread_mutex_lock(&lock); }

void leakline_unlock(void) { pthread_mutex_unlock(&lock); }

/* False, and not locked, when the table was closed (by another thread, perhaps a moment ago). */
static bool lock_table(const struct leakline_table *table) {
    leakline_lock();
    if (table->used)
        return true;
    leakline_unlock();
    return false;
}

static void after_fork_in_child(void) {
    current_tid = 0;
    for (int i = 0; i < LEAKLINE_TABLES; i++) {
        tables[i].shared = NULL; /* MADV_DONTFORK: it is not mapped here */
        tables[i].inherited_to = tables[i].generation;
    }
    leakline_unlock();
}

static void install_fork_handlers(void) { pthread_atfork(leakline_lock, leakline_unlock, after_fork_in_child); }

/* --- where things are */

static struct leakline_header *header_of(char *image) { return (struct leakline_header *)image; }

static size_t owner_offset(uint32_t owner) { return LEAKLINE_HEADER_SIZE + (size_t)owner * sizeof(struct leakline_owner); }

static size_t slot_offset(uint32_t number) { return owner_offset(LEAKLINE_OWNERS) + (size_t)number * sizeof(struct leakline_slot); }

static struct leakline_owner *owner_at(char *image, uint32_t owner) { return (struct leakline_owner *)(image + owner_offset(owner)); }

static struct leakline_slot *slot_at(char *image, uint32_t number) { return (struct leakline_slot *)(image + slot_offset(number)); }

static struct leakline_slot *slot_of(struct leakline_table *table, int number) {
    if (number < 0 || (uint32_t)number >= header_of(table->image)->slot_count)
        return NULL;
    return slot_at(table->image, (uint32_t)number);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint32_t thread_number(void) {
    if (current_tid == 0)
        current_tid = (uint32_t)syscall(SYS_gettid);
    return current_tid;
}

/* --- publishing */

static char *shared_of(struct leakline_table *table) { return table->shared && *table->same_process ? table->shared : NULL; }

/* Storage for a part of the file. Writing to a hole of a full file system would be SIGBUS; asking first is an errno. */
static bool stored(struct leakline_table *table, size_t offset, size_t size) {
    for (size_t chunk = offset / CHUNK; chunk <= (offset + size - 1) / CHUNK; chunk++) {
        if (table->stored[chunk])
            continue;
        size_t start = chunk * CHUNK;
        size_t length = table->size - start < CHUNK ? table->size - start : CHUNK;
        if (madvise(table->shared + start, length, LEAKLINE_ADVICE_POPULATE) != 0)
            return false;
        table->stored[chunk] = 1;
    }
    return true;
}

/* Copies a record to the shared image. Its first word is the sequence: odd while the rest is being written. */
static void publish(struct leakline_table *table, size_t offset, size_t size) {
    char *shared = shared_of(table);
    if (!shared)
        return;
    if (!stored(table, offset, size)) {
        header_of(table->image)->unpublished++;
        return;
    }
    uint32_t *sequence = (uint32_t *)(shared + offset);
    uint32_t before = __atomic_load_n(sequence, __ATOMIC_RELAXED);
    __atomic_store_n(sequence, before | 1u, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(shared + offset + sizeof *sequence, table->image + offset + sizeof *sequence, size - sizeof *sequence);
    __atomic_store_n(sequence, (before | 1u) + 1u, __ATOMIC_RELEASE);
}

void leakline_change_begin(struct leakline_table *table) {
    header_of(table->image)->changes++;
    char *shared = shared_of(table);
    if (shared)
        __atomic_store_n(&header_of(shared)->changes, header_of(table->image)->changes, __ATOMIC_SEQ_CST);
}

void leakline_change_end(struct leakline_table *table) {
    struct leakline_header *header = header_of(table->image);
    header->changes++;
    char *shared = shared_of(table);
    if (!shared)
        return;
    struct leakline_header *public = header_of(shared);
    __atomic_store_n(&public->owner_bound, header->owner_bound, __ATOMIC_RELAXED);
    __atomic_store_n(&public->slot_bound, header->slot_bound, __ATOMIC_RELAXED);
    __atomic_store_n(&public->opened, header->opened, __ATOMIC_RELAXED);
    __atomic_store_n(&public->closed, header->closed, __ATOMIC_RELAXED);
    __atomic_store_n(&public->unpublished, header->unpublished, __ATOMIC_RELAXED);
    __atomic_store_n(&public->out_of_range, header->out_of_range, __ATOMIC_RELAXED);
    __atomic_store_n(&public->changes, header->changes, __ATOMIC_SEQ_CST);
}

/* --- owners */

static void refer_to(struct leakline_table *table, uint32_t owner, int by) {
    if (owner == 0)
        return;
    struct leakline_owner *record = owner_at(table->image, owner);
    record->references += (uint32_t)by;
    if (record->references == 0 && record->state == LEAKLINE_OWNER_RELEASED)
        record->state = LEAKLINE_OWNER_FREE;
    publish(table, owner_offset(owner), sizeof *record);
}

static uint32_t valid_owner(struct leakline_table *table, uint32_t owner) {
    bool valid = owner < LEAKLINE_OWNERS && owner_at(table->image, owner)->state == LEAKLINE_OWNER_USED;
    return valid ? owner : 0;
}

uint32_t leakline_owner_add(struct leakline_table *table, const char *name, size_t length) {
    if (!lock_table(table))
        return 0;
    struct leakline_header *header = header_of(table->image);
    uint32_t owner = 1; /* number 0 says that the owner is not known */
    while (owner < LEAKLINE_OWNERS && owner_at(table->image, owner)->state != LEAKLINE_OWNER_FREE)
        owner++;
    if (owner == LEAKLINE_OWNERS) {
        owner = 0;
    } else {
        struct leakline_owner *record = owner_at(table->image, owner);
        leakline_change_begin(table);
        record->state = LEAKLINE_OWNER_USED;
        record->references = 0;
        record->length = (uint32_t)(length < sizeof record->name ? length : sizeof record->name);
        memcpy(record->name, name, record->length);
        if (owner >= header->owner_bound)
            header->owner_bound = owner + 1u;
        publish(table, owner_offset(owner), sizeof *record);
        leakline_change_end(table);
    }
    leakline_unlock();
    return owner;
}

void leakline_owner_release(struct leakline_table *table, uint32_t owner) {
    if (!lock_table(table))
        return;
    if (valid_owner(table, owner)) {
        struct leakline_owner *record = owner_at(table->image, owner);
        leakline_change_begin(table);
        record->state = record->references ? LEAKLINE_OWNER_RELEASED : LEAKLINE_OWNER_FREE;
        publish(table, owner_offset(owner), sizeof *record);
        leakline_change_end(table);
    }
    leakline_unlock();
}

size_t leakline_owner_name(struct leakline_table *table, uint32_t owner, char *name, size_t room) {
    size_t length = 0;
    if (!lock_table(table))
        return 0;
    if (owner > 0 && owner < LEAKLINE_OWNERS && owner_at(table->image, owner)->state != LEAKLINE_OWNER_FREE) {
        const struct leakline_owner *record = owner_at(table->image, owner);
        length = record->length;
        memcpy(name, record->name, length < room ? length : room);
    }
    leakline_unlock();
    return length;
}

uint32_t leakline_owner_use(uint32_t owner) {
    uint32_t before = current_owner;
    current_owner = owner;
    return before;
}

uint32_t leakline_owner_current(void) { return current_owner; }

/* --- slots */

static bool is_socket(uint32_t kind) {
    return kind == LEAKLINE_KIND_TCP || kind == LEAKLINE_KIND_UDP || kind == LEAKLINE_KIND_UNIX ||
           kind == LEAKLINE_KIND_NETLINK || kind == LEAKLINE_KIND_SOCKET;
}

static uint64_t socket_inode(int number, uint32_t kind) {
    struct stat status;
    return is_socket(kind) && fstat(number, &status) == 0 ? status.st_ino : 0;
}

int leakline_record_closed(struct leakline_table *table, int number) {
    struct leakline_slot *slot = slot_of(table, number);
    if (!slot || slot->kind == LEAKLINE_KIND_NONE)
        return 0;
    refer_to(table, slot->owner, -1);
    memset(slot, 0, sizeof *slot);
    header_of(table->image)->closed++;
    publish(table, slot_offset((uint32_t)number), sizeof *slot);
    return 1;
}

int leakline_record_opened(struct leakline_table *table, int number, uint32_t kind, uint32_t owner, enum leakline_source source) {
    struct leakline_header *header = header_of(table->image);
    struct leakline_slot *slot = slot_of(table, number);
    if (!slot) {
        header->out_of_range++;
        return -1;
    }
    leakline_record_closed(table, number);
    slot->kind = kind > LEAKLINE_KIND_NONE && kind < LEAKLINE_KIND_COUNT ? kind : LEAKLINE_KIND_OTHER;
    slot->owner = valid_owner(table, owner);
    slot->tid = thread_number();
    slot->source = source;
    slot->generation = ++table->generation;
    slot->opened_at_ns = now_ns();
    slot->inode = socket_inode(number, slot->kind);
    refer_to(table, slot->owner, +1);
    header->opened++;
    if ((uint64_t)number >= header->slot_bound)
        header->slot_bound = (uint64_t)number + 1u;
    publish(table, slot_offset((uint32_t)number), sizeof *slot);
    return 0;
}

uint32_t leakline_recorded_kind(struct leakline_table *table, int number) {
    struct leakline_slot *slot = slot_of(table, number);
    return slot ? slot->kind : (uint32_t)LEAKLINE_KIND_NONE;
}

int leakline_table_put(struct leakline_table *table, int number, uint32_t kind, uint32_t owner) {
    if (!lock_table(table))
        return 0;
    leakline_change_begin(table);
    int result = leakline_record_opened(table, number, kind, owner, LEAKLINE_REGISTERED);
    leakline_change_end(table);
    leakline_unlock();
    return result;
}

int leakline_table_forget(struct leakline_table *table, int number) {
    if (!lock_table(table))
        return 0;
    leakline_change_begin(table);
    int found = leakline_record_closed(table, number);
    leakline_change_end(table);
    leakline_unlock();
    return found;
}

int leakline_table_assign(struct leakline_table *table, int number, uint32_t owner, uint64_t generation) {
    if (!lock_table(table))
        return 0;
    struct leakline_slot *slot = slot_of(table, number);
    bool found = slot && is_socket(slot->kind) && slot->source != LEAKLINE_REGISTERED &&
                 (generation == 0 || slot->generation == generation);
    if (found) {
        leakline_change_begin(table);
        uint32_t before = slot->owner;
        slot->owner = valid_owner(table, owner);
        refer_to(table, slot->owner, +1);
        refer_to(table, before, -1);
        publish(table, slot_offset((uint32_t)number), sizeof *slot);
        leakline_change_end(table);
    }
    leakline_unlock();
    return found;
}

size_t leakline_table_list(struct leakline_table *table, struct leakline_entry *entries, size_t room) {
    if (!lock_table(table))
        return 0;
    size_t count = 0;
    for (uint32_t number = 0; number < header_of(table->image)->slot_bound; number++) {
        const struct leakline_slot *slot = slot_at(table->image, number);
        if (slot->kind == LEAKLINE_KIND_NONE)
            continue;
        if (count < room)
            entries[count] = (struct leakline_entry){
                .number = (int32_t)number,
                .kind = slot->kind,
                .owner = slot->owner,
                .tid = slot->tid,
                .source = slot->source,
                .inherited = slot->generation <= table->inherited_to,
                .generation = slot->generation,
                .opened_at_ns = slot->opened_at_ns,
                .inode = slot->inode,
            };
        count++;
    }
    leakline_unlock();
    return count;
}

void leakline_table_counters(struct leakline_table *table, struct leakline_counters *counters) {
    if (!lock_table(table))
        return;
    const struct leakline_header *header = header_of(table->image);
    *counters = (struct leakline_counters){
        .changes = header->changes,
        .opened = header->opened,
        .closed = header->closed,
        .unpublished = header->unpublished,
        .out_of_range = header->out_of_range,
    };
    leakline_unlock();
}

void leakline_table_complete(struct leakline_table *table, int complete, const char *because) {
    if (!lock_table(table))
        return;
    struct leakline_header *header = header_of(table->image), *public = header_of(shared_of(table));
    leakline_change_begin(table);
    header->complete = complete != 0;
    snprintf(header->incomplete_because, sizeof header->incomplete_because, "%s", because);
    if (public) {
        public->complete = header->complete;
        memcpy(public->incomplete_because, header->incomplete_because, sizeof header->incomplete_because);
    }
    leakline_change_end(table);
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

const char *leakline_kind_name(uint32_t kind) {
    static const char *const names[] = {
#define LEAKLINE_KIND(name, text) text,
        LEAKLINE_KINDS(LEAKLINE_KIND)
#undef LEAKLINE_KIND
    };
    return kind < LEAKLINE_KIND_COUNT ? names[kind] : NULL;
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
    header->created_at_ns = now_ns();
    struct stat namespace;
    header->pid_namespace = stat("/proc/self/ns/pid", &namespace) == 0 ? namespace.st_ino : 0;
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
    if (stored(table, 0, LEAKLINE_HEADER_SIZE))
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
    if (table->same_process)
        munmap(table->same_process, (size_t)sysconf(_SC_PAGESIZE));
    table->image = NULL;
    table->same_process = NULL;
}

static int map_private(struct leakline_table *table) {
    uint32_t slots = slots_wanted();
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    table->size = slot_offset(slots);
    table->image = mmap(NULL, table->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    table->same_process = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (table->image == MAP_FAILED)
        table->image = NULL;
    if (table->same_process == MAP_FAILED)
        table->same_process = NULL;
    if (!table->image || !table->same_process || madvise(table->same_process, page, MADV_WIPEONFORK) != 0) {
        unmap_private(table);
        return -1;
    }
    *table->same_process = 1;
    fill_header(header_of(table->image), slots);
    return 0;
}

struct leakline_table *leakline_table_create(const char *path) {
    pthread_once(&handlers, install_fork_handlers);
    leakline_lock();
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
    if (!lock_table(table))
        return;
    char *shared = shared_of(table);
    if (shared) {
        __atomic_store_n(&header_of(shared)->state, (uint32_t)LEAKLINE_CLOSED, __ATOMIC_RELEASE);
        munmap(shared, table->size);
    }
    table->shared = NULL;
    unmap_private(table);
    table->used = false;
    leakline_unlock();
}
