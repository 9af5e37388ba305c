/* Stacks: the same stack has the same number, two different ones never. Found by hash, compared whole; nothing is locked.
 *
 * A new stack is written where nobody looks, then its number is put into the index by one compare-and-swap: who loses against the same stack
 * takes the winner's number and leaves its own record unused. Addresses are those of the process: a stored stack stays the same one while its
 * libraries do (`generation`).
 */
#include <string.h>

#include "recording_private.h"
#include "system_calls.h"
#include "unwind_path.h"

#define INDEX_SIZE (2u * LEAKLINE_STACKS)
#define PROBES 1024u

static struct leakline_stack_record *record_at(uint32_t stack) {
    return (struct leakline_stack_record *)(leakline_recording.base + LEAKLINE_STACKS_AT) + (stack - 1u);
}

static uint64_t padded(uint64_t numbers) { return (numbers * sizeof(uint16_t) + 7u) & ~UINT64_C(7); }

struct python_frame {
    uint32_t code;
    int32_t instruction_entry; /* instruction * 2 + entry */
};

static struct python_frame packed(const struct leakline_python_frame *frame) {
    return (struct python_frame){frame->code, (int32_t)((uint32_t)frame->instruction << 1 | (frame->entry & 1u))};
}

static uint64_t hash_of(const struct leakline_origin *origin) {
    uint64_t hash = origin->flags ^ (uint64_t)origin->native_count << 32 ^ (uint64_t)origin->python_count << 48;
    hash = leakline_hash(hash, origin->native, origin->native_count * sizeof origin->native[0]);
    return leakline_hash(hash, origin->python, origin->python_count * sizeof origin->python[0]);
}

/* Whether all addresses still are in the libraries where they were when the stack was stored. */
static bool same_libraries(struct leakline_stack_record *record, const struct leakline_origin *origin, const uint16_t *libraries) {
    if (__atomic_load_n(&record->generation, __ATOMIC_RELAXED) == origin->generation)
        return true;
    if (!leakline_libraries_refresh(origin->generation))
        return false;
    for (uint32_t i = 0; i < origin->native_count; i++)
        if (leakline_library_of(origin->native[i]) != libraries[i])
            return false;
    __atomic_store_n(&record->generation, origin->generation, __ATOMIC_RELAXED);
    return true;
}

static const struct python_frame *python_of(const struct leakline_stack_record *record) {
    return (const struct python_frame *)(leakline_recording.base + LEAKLINE_FRAMES_AT + record->frames + record->native_count * sizeof(uint64_t) +
                                         padded(record->native_count));
}

static bool same_python(const struct leakline_stack_record *record, const struct leakline_origin *origin) {
    if (record->python_count != origin->python_count)
        return false;
    const struct python_frame *python = python_of(record);
    for (uint32_t i = 0; i < origin->python_count; i++) {
        struct python_frame frame = packed(&origin->python[i]);
        if (python[i].code != frame.code || python[i].instruction_entry != frame.instruction_entry)
            return false;
    }
    return true;
}

static bool is_stack(struct leakline_stack_record *record, const struct leakline_origin *origin) {
    if (record->native_count != origin->native_count || record->flags != origin->flags)
        return false;
    const char *frames = leakline_recording.base + LEAKLINE_FRAMES_AT + record->frames;
    uint64_t native_size = origin->native_count * sizeof(uint64_t);
    if (memcmp(frames, origin->native, native_size) != 0 || !same_python(record, origin))
        return false;
    return same_libraries(record, origin, (const uint16_t *)(frames + native_size));
}

/* Gives which of them are libzmq's. */
static uint32_t write_frames(char *frames, const struct leakline_origin *origin) {
    bool known = leakline_libraries_refresh(origin->generation);
    uint64_t native_size = origin->native_count * sizeof(uint64_t);
    memcpy(frames, origin->native, native_size);
    uint16_t *libraries = (uint16_t *)(frames + native_size);
    uint32_t libzmq = 0;
    for (uint32_t i = 0; i < origin->native_count; i++) {
        libraries[i] = (uint16_t)(known ? leakline_library_of(origin->native[i]) : leakline_library_learn(origin->native[i], origin->generation));
        if (leakline_library_is_libzmq(libraries[i]))
            libzmq |= LEAKLINE_LIBZMQ_ANYWHERE | (i == 0 ? LEAKLINE_LIBZMQ_INNERMOST : 0);
    }
    struct python_frame *python = (struct python_frame *)(frames + native_size + padded(origin->native_count));
    for (uint32_t i = 0; i < origin->python_count; i++)
        python[i] = packed(&origin->python[i]);
    return libzmq;
}

/* Takes room for `size` more out of a counter that may not pass `limit`; UINT64_MAX when there is none. */
static uint64_t take(uint64_t *used, uint64_t size, uint64_t limit) {
    uint64_t before = __atomic_load_n(used, __ATOMIC_RELAXED);
    do {
        if (before + size > limit)
            return UINT64_MAX;
    } while (!__atomic_compare_exchange_n(used, &before, before + size, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return before;
}

/* Found when its first frames are: libpython may be loaded later than the recording begins. Threads that come at once write the same. */
static void write_interpreter(struct leakline_recording_header *header) {
    struct leakline_range ranges[LEAKLINE_EVAL_RANGES];
    size_t count = leakline_python_eval_ranges(ranges, LEAKLINE_EVAL_RANGES);
    for (size_t i = 0; i < count; i++) {
        __atomic_store_n(&header->eval_ranges[i].start, ranges[i].start, __ATOMIC_RELAXED);
        __atomic_store_n(&header->eval_ranges[i].end, ranges[i].end, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&header->eval_range_count, (uint32_t)count, __ATOMIC_RELEASE);
    __atomic_store_n(&header->python_version, leakline_python_version(), __ATOMIC_RELEASE);
}

/* A record with all but its number in the index; 0: no room. */
static uint32_t write_stack(uint64_t hash, const struct leakline_origin *origin) {
    struct leakline_recording_header *header = leakline_header();
    uint64_t size = origin->native_count * sizeof(uint64_t) + padded(origin->native_count) + origin->python_count * sizeof(struct python_frame);
    uint64_t path_at = size;
    size += padded(origin->path_words);
    uint64_t frames = take(&header->frames_used, size, LEAKLINE_FRAMES_SIZE);
    if (frames == UINT64_MAX || (size && !leakline_stored(LEAKLINE_FRAMES_AT + frames, size)))
        return 0;
    uint32_t stack = __atomic_load_n(&header->stack_bound, __ATOMIC_RELAXED);
    do {
        if (stack >= LEAKLINE_STACKS)
            return 0;
    } while (!__atomic_compare_exchange_n(&header->stack_bound, &stack, stack + 1u, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    stack++;
    struct leakline_stack_record *record = record_at(stack);
    if (!leakline_stored((uint64_t)((char *)record - leakline_recording.base), sizeof *record))
        return 0;
    if (origin->python_count && !leakline_sealed && __atomic_load_n(&header->python_version, __ATOMIC_RELAXED) == 0)
        write_interpreter(header);
    record->libzmq = (uint16_t)write_frames(leakline_recording.base + LEAKLINE_FRAMES_AT + frames, origin);
    if (origin->path_words)
        memcpy(leakline_recording.base + LEAKLINE_FRAMES_AT + frames + path_at, origin->path, origin->path_words * sizeof(uint16_t));
    record->path_words = origin->path_words;
    record->flags = (uint16_t)origin->flags;
    record->hash = (uint32_t)(hash >> 32);
    record->frames = frames;
    record->native_count = origin->native_count;
    record->python_count = origin->python_count;
    record->generation = origin->generation;
    record->first_at_ns = leakline_now_ns();
    return stack;
}

static uint32_t find_or_write(const struct leakline_origin *origin, uint64_t hash) {
    uint32_t *index = (uint32_t *)(leakline_recording.base + LEAKLINE_STACK_INDEX_AT);
    uint32_t written = 0;
    for (uint32_t probe = 0; probe < PROBES; probe++) {
        uint64_t place = (hash + probe) & (INDEX_SIZE - 1u);
        if (!leakline_stored(LEAKLINE_STACK_INDEX_AT + place * sizeof *index, sizeof *index))
            break;
        uint32_t stack = __atomic_load_n(&index[place], __ATOMIC_ACQUIRE);
        if (stack == 0) {
            if (!written && !(written = write_stack(hash, origin)))
                break;
            __atomic_store_n(&record_at(written)->state, LEAKLINE_RECORD_READY, __ATOMIC_RELEASE);
            if (__atomic_compare_exchange_n(&index[place], &stack, written, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
                return written;
        }
        if (record_at(stack)->hash == hash >> 32 && is_stack(record_at(stack), origin)) {
            if (written)
                __atomic_store_n(&record_at(written)->state, LEAKLINE_RECORD_NONE, __ATOMIC_RELEASE);
            return stack;
        }
    }
    __atomic_fetch_add(&leakline_header()->stacks_full, 1, __ATOMIC_RELAXED);
    return 0;
}

/* --- what comes next: a program in a loop opens from the same places in the same order
 *
 * The stack that came after this one last time is fetched while the next call is on its way, and looked at before the index, which lies on a
 * page of its own for nearly each of many stacks. Private memory, in any order: what it says is compared. */

static uint32_t successors[LEAKLINE_STACKS];
static __thread uint32_t latest;

static uint32_t expected(void) {
    uint32_t stack = latest ? __atomic_load_n(&successors[latest - 1u], __ATOMIC_RELAXED) : 0;
    return stack <= __atomic_load_n(&leakline_header()->stack_bound, __ATOMIC_ACQUIRE) ? stack : 0;
}

static void fetch_record(uint32_t stack) {
    if (stack)
        __builtin_prefetch(record_at(stack));
}

static void follow(uint32_t stack) {
    latest = stack;
    fetch_record(expected());
}

/* Its path, whose frames are fetched. */
static struct leakline_path path_of(uint32_t stack) {
    if (!stack || __atomic_load_n(&record_at(stack)->state, __ATOMIC_ACQUIRE) != LEAKLINE_RECORD_READY)
        return (struct leakline_path){.word_count = 0};
    const struct leakline_stack_record *record = record_at(stack);
    const char *frames = leakline_recording.base + LEAKLINE_FRAMES_AT + record->frames;
    __builtin_prefetch(frames);
    __builtin_prefetch(frames + 64);
    return (struct leakline_path){
        .generation = __atomic_load_n(&record->generation, __ATOMIC_RELAXED),
        .native = (const uint64_t *)frames,
        .words = (const uint16_t *)(python_of(record) + record->python_count),
        .native_count = record->native_count,
        .word_count = record->path_words,
    };
}

/* What comes next again and again came next at first, too: its frames lie behind these. */
static void fetch_behind(const struct leakline_path *path) {
    const char *end = (const char *)(path->words + path->word_count);
    __builtin_prefetch(end);
    __builtin_prefetch(end + 64);
    __builtin_prefetch(end + 128);
}

uint32_t leakline_stack(const struct leakline_origin *origin) {
    uint32_t stack = expected();
    bool found = stack && __atomic_load_n(&record_at(stack)->state, __ATOMIC_ACQUIRE) == LEAKLINE_RECORD_READY &&
                 is_stack(record_at(stack), origin);
    if (!found) {
        stack = find_or_write(origin, hash_of(origin));
        if (latest && stack)
            __atomic_store_n(&successors[latest - 1u], stack, __ATOMIC_RELAXED);
    }
    follow(stack);
    return stack;
}

/* --- the stack of a call */

/* The stack that these native frames were of last is this one, if the Python frames are the same, too. */
static bool is_known(const struct leakline_origin *origin) {
    if (origin->stack == 0)
        return false;
    const struct leakline_stack_record *record = record_at(origin->stack);
    return record->flags == origin->flags && same_python(record, origin);
}

uint32_t leakline_stack_here(const struct leakline_registers *caller) {
    struct leakline_origin origin; /* only what is counted is read: clearing it would cost more than filling it */
    origin.native_count = origin.python_count = 0;
    origin.flags = 0;
    origin.generation = 0;
    origin.stack = 0;
    uint16_t noted[LEAKLINE_PATH_WORDS];
    origin.path = noted;
    origin.path_words = 0;
    uint32_t next = expected();
    struct leakline_path path = path_of(next);
    if (leakline_unwind_varies(caller->pc) && leakline_unwind_along(caller, &path, &origin)) {
        origin.stack = next;
        fetch_behind(&path);
    } else {
        leakline_unwind(caller, &origin);
    }
    leakline_python(&origin);
    if (is_known(&origin)) {
        if (origin.stack == next)
            follow(next);
        return origin.stack;
    }
    uint32_t stack = leakline_stack(&origin);
    leakline_unwind_numbered(&origin, stack);
    return stack;
}
