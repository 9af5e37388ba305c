/* What descriptor_table.c (records) and table_life.c (making, forking, ending) share, and nobody else sees. */
#ifndef LEAKLINE_TABLE_PRIVATE_H
#define LEAKLINE_TABLE_PRIVATE_H

#include <stdbool.h>

#include "descriptor_table.h"

#define LEAKLINE_TABLES 8
#define CHUNK 65536u /* the file gets its storage in pieces of this size */
#define CHUNKS ((LEAKLINE_HEADER_SIZE + LEAKLINE_OWNERS * sizeof(struct leakline_owner) + \
                 (size_t)LEAKLINE_SLOTS_HIGHEST * sizeof(struct leakline_slot)) / CHUNK + 1)

struct leakline_table {
    bool used;
    size_t size;
    char *image;                       /* the truth */
    char *shared;                      /* what others read; NULL: unpublished, or this is a forked child */
    uint64_t generation;               /* of the last record made */
    uint64_t inherited_to;             /* records up to this generation came from the parent */
    bool close_in_child;
    uint64_t closed_in_child, strange_in_child;
    unsigned char stored[CHUNKS];      /* chunk of the file that has storage */
};

/* Where things are in an image. */
static inline struct leakline_header *header_of(char *image) { return (struct leakline_header *)image; }

static inline size_t owner_offset(uint32_t owner) { return LEAKLINE_HEADER_SIZE + (size_t)owner * sizeof(struct leakline_owner); }

static inline size_t slot_offset(uint32_t number) { return owner_offset(LEAKLINE_OWNERS) + (size_t)number * sizeof(struct leakline_slot); }

static inline struct leakline_owner *owner_at(char *image, uint32_t owner) { return (struct leakline_owner *)(image + owner_offset(owner)); }

static inline struct leakline_slot *slot_at(char *image, uint32_t number) { return (struct leakline_slot *)(image + slot_offset(number)); }

/* Locks; false, and not locked, when the table was closed (by another thread, perhaps a moment ago). */
bool leakline_lock_table(const struct leakline_table *table);
/* LOCKED. Storage for a part of the file. Writing to a hole of a full file system would be SIGBUS; asking first is an errno. */
bool leakline_stored(struct leakline_table *table, size_t offset, size_t size);
uint64_t leakline_now_ns(void);
bool leakline_is_socket(uint32_t kind);
/* In a child, whose thread has another number. */
void leakline_forget_thread_number(void);

#endif
