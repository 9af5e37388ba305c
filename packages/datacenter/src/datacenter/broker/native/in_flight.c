/* See in_flight.h. */
#define _GNU_SOURCE
#include "in_flight.h"

#include <stdlib.h>
#include <sys/random.h>

enum { FIRST_CAPACITY = 256 };

static size_t home(const struct in_flight *table, uint64_t id) {
    uint64_t mixed = (id ^ table->seed) * UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ mixed >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return (size_t)(mixed ^ mixed >> 32) & (table->capacity - 1);
}

/* Where the id is, or the free place where it would be. */
static struct flight *place(const struct in_flight *table, uint64_t id) {
    size_t at = home(table, id);
    while (table->places[at].id && table->places[at].id != id)
        at = (at + 1) & (table->capacity - 1);
    return &table->places[at];
}

bool in_flight_begin(struct in_flight *table, size_t most) {
    *table = (struct in_flight){.capacity = FIRST_CAPACITY, .most = most, .earliest_ms = INT64_MAX};
    if (getrandom(&table->seed, sizeof table->seed, GRND_NONBLOCK) != sizeof table->seed)
        table->seed = (uint64_t)(uintptr_t)table; /* early at boot: better than none */
    table->places = calloc(table->capacity, sizeof *table->places);
    return table->places;
}

void in_flight_end(struct in_flight *table) {
    free(table->places);
    table->places = NULL;
}

bool in_flight_room(struct in_flight *table) {
    if (table->count == table->most)
        return false;
    if ((table->count + 1) * 2 <= table->capacity)
        return true;
    struct in_flight larger = *table;
    larger.capacity *= 2;
    larger.places = calloc(larger.capacity, sizeof *larger.places);
    if (!larger.places)
        return false;
    for (size_t at = 0; at < table->capacity; at++)
        if (table->places[at].id)
            *place(&larger, table->places[at].id) = table->places[at];
    free(table->places);
    *table = larger;
    return true;
}

struct flight *in_flight_find(const struct in_flight *table, uint64_t id) {
    struct flight *found = place(table, id);
    return found->id ? found : NULL;
}

void in_flight_put(struct in_flight *table, uint64_t id, uint32_t slot, int64_t until_ms) {
    *place(table, id) = (struct flight){id, until_ms, slot};
    table->count++;
    if (until_ms < table->earliest_ms)
        table->earliest_ms = until_ms;
}

void in_flight_drop(struct in_flight *table, struct flight *call) {
    size_t mask = table->capacity - 1, hole = (size_t)(call - table->places);
    for (size_t at = (hole + 1) & mask; table->places[at].id; at = (at + 1) & mask) {
        size_t distance = (at - home(table, table->places[at].id)) & mask; /* how far from where it belongs */
        if (distance >= ((at - hole) & mask)) { /* the hole is on its way: it moves there */
            table->places[hole] = table->places[at];
            hole = at;
        }
    }
    table->places[hole].id = 0;
    if (--table->count == 0)
        table->earliest_ms = INT64_MAX;
}

struct flight *in_flight_next(const struct in_flight *table, size_t *at) {
    while (*at < table->capacity && !table->places[*at].id)
        ++*at;
    return *at < table->capacity ? &table->places[*at] : NULL;
}
