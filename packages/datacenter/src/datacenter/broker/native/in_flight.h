/* The calls that instances were handed and have not answered: id -> whose it is, and until when. A hash table with open addressing
 * that grows up to its bound. Not thread-safe. */
#ifndef DATACENTER_IN_FLIGHT_H
#define DATACENTER_IN_FLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct flight {
    uint64_t id; /* never 0: that is a free place */
    int64_t until_ms;
    uint32_t slot;
};

struct in_flight {
    struct flight *places;
    size_t capacity; /* a power of two, at least twice `count`: a search ends at a free place */
    size_t count, most;
    int64_t earliest_ms; /* no `until_ms` is before it */
    uint64_t seed;       /* so that no client can choose ids that all meet at one place */
};

/* At most `most` calls. false without memory. */
bool in_flight_begin(struct in_flight *table, size_t most);
void in_flight_end(struct in_flight *table);

/* Makes room for one more; false if there are `most`, or without memory. */
bool in_flight_room(struct in_flight *table);
struct flight *in_flight_find(const struct in_flight *table, uint64_t id);
/* Of an id that is not in it, after in_flight_room. Places found before are not valid any more. */
void in_flight_put(struct in_flight *table, uint64_t id, uint32_t slot, int64_t until_ms);
/* Takes it out. Others move: what is at its place then is another, or none. */
void in_flight_drop(struct in_flight *table, struct flight *call);

/* All of them: begin with *at = 0; after each, *at += 1, unless it was dropped. NULL after the last. No one is missed; after drops
 * one that was left may come twice. */
struct flight *in_flight_next(const struct in_flight *table, size_t *at);

#endif
