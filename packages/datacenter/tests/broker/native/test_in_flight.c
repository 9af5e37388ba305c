/* The table of calls in flight against a plain list, over random steps. */
#include "in_flight.h"

#include "check.h"

enum { MOST = 700, STEPS = 200000 };

static struct flight model[MOST];
static size_t model_count;

static struct flight *model_find(uint64_t id) {
    for (size_t n = 0; n < model_count; n++)
        if (model[n].id == id)
            return &model[n];
    return NULL;
}

static void model_drop(struct flight *call) { *call = model[--model_count]; }

static void check_same(const struct in_flight *table) {
    struct flight *found;
    size_t seen = 0;
    for (size_t at = 0; (found = in_flight_next(table, &at)); at++, seen++) {
        struct flight *expected = model_find(found->id);
        CHECK(expected && expected->slot == found->slot && expected->until_ms == found->until_ms);
        CHECK(in_flight_find(table, found->id) == found);
        CHECK(found->until_ms >= table->earliest_ms);
    }
    CHECK(seen == model_count && table->count == model_count);
}

/* Takes out all of one slot while it goes through the table, as the end of an instance does. */
static void drop_slot(struct in_flight *table, uint32_t slot) {
    struct flight *found;
    for (size_t at = 0; (found = in_flight_next(table, &at));)
        if (found->slot == slot)
            in_flight_drop(table, found);
        else
            at++;
    for (size_t n = model_count; n-- > 0;)
        if (model[n].slot == slot)
            model_drop(&model[n]);
}

static void run(size_t most, unsigned ids, unsigned seed) {
    struct in_flight table;
    CHECK(in_flight_begin(&table, most));
    srandom(seed);
    model_count = 0;
    for (int step = 0; step < STEPS; step++) {
        uint64_t id = UINT64_C(1) << 63 | (uint64_t)(random() % ids) * 0x10001;
        struct flight *expected = model_find(id), *found = in_flight_find(&table, id);
        CHECK(!expected == !found);
        if (found && random() % 3) {
            in_flight_drop(&table, found);
            model_drop(expected);
        } else if (!found) {
            bool room = in_flight_room(&table);
            CHECK(room == (model_count < most));
            if (room) {
                struct flight call = {id, random() % 1000, (uint32_t)(random() % 5)};
                in_flight_put(&table, id, call.slot, call.until_ms);
                model[model_count++] = call;
            }
        }
        if (step % 1000 == 999) {
            drop_slot(&table, (uint32_t)(random() % 5));
            check_same(&table);
        }
    }
    for (uint32_t slot = 0; slot < 5; slot++)
        drop_slot(&table, slot);
    CHECK(table.count == 0 && table.earliest_ms == INT64_MAX);
    in_flight_end(&table);
}

void test_in_flight(void) {
    run(3, 10, 1);
    run(200, 300, 2);
    run(MOST, 900, 3);
}
