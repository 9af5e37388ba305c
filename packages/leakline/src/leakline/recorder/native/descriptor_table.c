/* The table of descriptors: its records. See descriptor_table.h for the contract, table_layout.h for the file, table_life.c for how
 * it begins, is forked and ends. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "file_status.h"
#include "table_private.h"

#ifndef LEAKLINE_ADVICE_POPULATE
#define LEAKLINE_ADVICE_POPULATE 23 /* MADV_POPULATE_WRITE, since Linux 5.14 */
#endif

/* initial-exec: the first use in a thread must not allocate, as the dynamic models do. */
static __thread uint32_t current_owner __attribute__((tls_model("initial-exec")));
static __thread uint32_t current_tid __attribute__((tls_model("initial-exec")));

static struct leakline_slot *slot_of(struct leakline_table *table, int number) {
    if (number < 0 || (uint32_t)number >= header_of(table->image)->slot_count)
        return NULL;
    return slot_at(table->image, (uint32_t)number);
}

uint64_t leakline_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint32_t thread_number(void) {
    if (current_tid == 0)
        current_tid = (uint32_t)syscall(SYS_gettid);
    return current_tid;
}

void leakline_forget_thread_number(void) { current_tid = 0; }

/* --- publishing */

bool leakline_stored(struct leakline_table *table, size_t offset, size_t size) {
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
    char *shared = table->shared;
    if (!shared)
        return;
    if (!leakline_stored(table, offset, size)) {
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
    char *shared = table->shared;
    if (shared)
        __atomic_store_n(&header_of(shared)->changes, header_of(table->image)->changes, __ATOMIC_SEQ_CST);
}

void leakline_change_end(struct leakline_table *table) {
    struct leakline_header *header = header_of(table->image);
    header->changes++;
    char *shared = table->shared;
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
    if (!leakline_lock_table(table))
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
    if (!leakline_lock_table(table))
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
    if (!leakline_lock_table(table))
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

bool leakline_is_socket(uint32_t kind) {
    return kind == LEAKLINE_KIND_TCP || kind == LEAKLINE_KIND_UDP || kind == LEAKLINE_KIND_UNIX ||
           kind == LEAKLINE_KIND_NETLINK || kind == LEAKLINE_KIND_SOCKET;
}

static uint64_t socket_inode(int number, uint32_t kind) {
    struct stat status;
    return leakline_is_socket(kind) && leakline_fstat(number, &status) == 0 ? status.st_ino : 0;
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
    slot->opened_at_ns = leakline_now_ns();
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
    if (!leakline_lock_table(table))
        return 0;
    leakline_change_begin(table);
    int result = leakline_record_opened(table, number, kind, owner, LEAKLINE_REGISTERED);
    leakline_change_end(table);
    leakline_unlock();
    return result;
}

int leakline_table_forget(struct leakline_table *table, int number) {
    if (!leakline_lock_table(table))
        return 0;
    leakline_change_begin(table);
    int found = leakline_record_closed(table, number);
    leakline_change_end(table);
    leakline_unlock();
    return found;
}

int leakline_table_assign(struct leakline_table *table, int number, uint32_t owner, uint64_t generation) {
    if (!leakline_lock_table(table))
        return 0;
    struct leakline_slot *slot = slot_of(table, number);
    bool found = slot && leakline_is_socket(slot->kind) && slot->source != LEAKLINE_REGISTERED &&
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
    if (!leakline_lock_table(table))
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
    if (!leakline_lock_table(table))
        return;
    const struct leakline_header *header = header_of(table->image);
    *counters = (struct leakline_counters){
        .changes = header->changes,
        .opened = header->opened,
        .closed = header->closed,
        .unpublished = header->unpublished,
        .out_of_range = header->out_of_range,
        .closed_in_child = table->closed_in_child,
        .strange_in_child = table->strange_in_child,
    };
    leakline_unlock();
}

void leakline_table_complete(struct leakline_table *table, int complete, const char *because) {
    if (!leakline_lock_table(table))
        return;
    struct leakline_header *header = header_of(table->image), *public = header_of(table->shared);
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

const char *leakline_kind_name(uint32_t kind) {
    static const char *const names[] = {
#define LEAKLINE_KIND(name, text) text,
        LEAKLINE_KINDS(LEAKLINE_KIND)
#undef LEAKLINE_KIND
    };
    return kind < LEAKLINE_KIND_COUNT ? names[kind] : NULL;
}
