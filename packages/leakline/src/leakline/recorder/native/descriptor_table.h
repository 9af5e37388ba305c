/* The table of descriptors: a private image that is the truth, and a shared one (a mapped file) that other processes read.
 *
 * Why two: at fork() the child needs the state of that very moment, so that it can close what it inherited, while the parent goes
 * on. Private memory is copied by the kernel at that moment; a shared file is not. The file is not even mapped in the child.
 *
 * Every function may be called from any thread. None allocates; none takes Python's GIL; those marked LOCKED need leakline_lock().
 * On a table that was closed the others do nothing and return 0.
 */
#ifndef LEAKLINE_DESCRIPTOR_TABLE_H
#define LEAKLINE_DESCRIPTOR_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "table_layout.h"

#define LEAKLINE_PUBLIC __attribute__((visibility("default")))

struct leakline_table;

/* A slot as it is handed out by leakline_table_list. */
struct leakline_entry {
    int32_t number;
    uint32_t kind;
    uint32_t owner;
    uint32_t tid;
    uint32_t source;
    uint32_t inherited; /* 1: it was in the table when this process was forked */
    uint64_t generation;
    uint64_t opened_at_ns;
    uint64_t inode;
};

struct leakline_counters {
    uint64_t changes, opened, closed, unpublished, out_of_range;
    uint64_t closed_in_child, strange_in_child; /* by leakline_table_close_in_child; strange: not what was recorded, left alone */
};

/* Makes a table and its file (which must not exist), mode 0600. The file's descriptor is closed again. path NULL: a table that
 * nobody else can read. NULL with errno: ENFILE when all LEAKLINE_TABLES are in use, else what the kernel said. */
LEAKLINE_PUBLIC struct leakline_table *leakline_table_create(const char *path);
/* Marks the file closed, unmaps it and ends the table, which must not be the hooks' target any more. Removing the file is up to
 * the caller. */
LEAKLINE_PUBLIC void leakline_table_close(struct leakline_table *table);

/* 0, or -1 when the number has no slot. A record that was there is replaced: its number must have been closed behind our back. */
LEAKLINE_PUBLIC int leakline_table_put(struct leakline_table *table, int number, uint32_t kind, uint32_t owner);
/* 1 if there was a record, else 0. */
LEAKLINE_PUBLIC int leakline_table_forget(struct leakline_table *table, int number);
/* Names the owner of a socket that a hooked library opened, as its events do late and by number: other kinds, and what the caller
 * registered, keep their owner, for their number was reused. generation 0: whatever is there now. 1 if done, else 0. */
LEAKLINE_PUBLIC int leakline_table_assign(struct leakline_table *table, int number, uint32_t owner, uint64_t generation);
/* Number of records; at most `room` of them are copied, in order of their number. */
LEAKLINE_PUBLIC size_t leakline_table_list(struct leakline_table *table, struct leakline_entry *entries, size_t room);
LEAKLINE_PUBLIC void leakline_table_counters(struct leakline_table *table, struct leakline_counters *counters);

/* From now on a child of fork() closes, by number, what is in the table, before fork() returns in it: also one that C code forks.
 * Closing a number takes nothing from the parent. A child of clone() or _Fork(), where no handler runs, does so at its first call
 * into this library, and then only to sockets: their inodes tell them from what took their numbers meanwhile. vfork() and
 * posix_spawn() share the memory until they exec, which closes what is close-on-exec: nothing happens there. */
LEAKLINE_PUBLIC void leakline_table_close_in_child(struct leakline_table *table);

/* NULL beyond the last. */
LEAKLINE_PUBLIC const char *leakline_kind_name(uint32_t kind);

/* Says in the file whether the table holds all that it should, and if not, why. */
LEAKLINE_PUBLIC void leakline_table_complete(struct leakline_table *table, int complete, const char *because);

/* Owner number, or 0 when all are in use. A longer name is cut at `length` 112. */
LEAKLINE_PUBLIC uint32_t leakline_owner_add(struct leakline_table *table, const char *name, size_t length);
LEAKLINE_PUBLIC void leakline_owner_release(struct leakline_table *table, uint32_t owner);
/* Length of the name; 0 when there is no such owner. */
LEAKLINE_PUBLIC size_t leakline_owner_name(struct leakline_table *table, uint32_t owner, char *name, size_t room);
/* Owner of what this thread opens from now on; returns the one before. */
LEAKLINE_PUBLIC uint32_t leakline_owner_use(uint32_t owner);

/* Held round (system call + record), and over fork(): the kernel copies descriptors and memory at different moments, so a child
 * would otherwise know of descriptors that it has not, and the reverse (43 of 600 forks). */
void leakline_lock(void);
void leakline_unlock(void);

/* LOCKED, as a bracket round a system call and its record: readers see from `changes` that the two do not match yet. */
void leakline_change_begin(struct leakline_table *table);
void leakline_change_end(struct leakline_table *table);
/* LOCKED, inside a change. */
int leakline_record_opened(struct leakline_table *table, int number, uint32_t kind, uint32_t owner, enum leakline_source source);
int leakline_record_closed(struct leakline_table *table, int number);
/* LOCKED. LEAKLINE_KIND_NONE when the number has no record. */
uint32_t leakline_recorded_kind(struct leakline_table *table, int number);
/* The owner that this thread opens descriptors for. */
uint32_t leakline_owner_current(void);

#endif
