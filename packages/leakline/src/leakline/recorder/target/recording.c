/* The records on the path of an open or a close. See recording.h for the contract, recording_layout.h for the file.
 *
 * A slot is written by whoever has its sequence number odd: two threads write one slot only when a number is opened and closed wrongly at once,
 * so that waiting is short and hardly ever happens. It is bounded all the same: a thread that was stopped at the wrong moment stops nobody.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <time.h>

#include "recording_private.h"
#include "system_calls.h"
#include "unwind_memory.h"

#define SPINS 200000u /* some milliseconds at least: longer than a thread that was preempted with a slot waits for its turn */

#define NEAR 8           /* who closes all there may be leaves out those that it needs */
#define KEPT_OF_A_RUN 8u /* so that one loop does not push all others out */

static bool on; /* something is recorded in this process */
static __thread bool inside;
/* Of the function that entered the bracket: its frame record, which stays as it is until it has left; and what it is writing. */
static __thread struct {
    uintptr_t frame, words[2];
    uint32_t *writing, odd; /* its sequence number while it is written by this thread */
    struct leakline_slot *slot;
} entered;
static __thread uint32_t current_tid;
static uint64_t python_ends_since; /* when an interpreter that is being finalised first closed something; 0 before */
/* The close that this thread is about to make, or made last. */
static __thread struct {
    int number;
    uint32_t stack;
    uint64_t generation; /* of what it closes; 0: nothing is open by the table */
    bool swept;          /* this run of closes from one place met a number that was never open: the program closes whatever there may be */
    uint32_t kept_count; /* wrong closes of this run, and where they are kept */
    uint32_t kept[KEPT_OF_A_RUN];
} closing;

static void count(uint64_t *counter);
static void end_writing(uint32_t *sequence);

/* --- the bracket */

bool leakline_idle;

void leakline_bracket_start(bool start) {
    python_ends_since = 0;
    __atomic_store_n(&on, start, __ATOMIC_RELEASE);
    __atomic_store_n(&leakline_idle, !start, __ATOMIC_RELAXED);
}

bool leakline_bracket_is_on(void) { return __atomic_load_n(&on, __ATOMIC_ACQUIRE); }
bool leakline_bracket_inside(void) { return inside; }

void leakline_bracket_forget(void) {
    inside = false;
    entered.writing = NULL, entered.slot = NULL;
    current_tid = 0;
    closing.kept_count = 0, closing.swept = false;
}

bool leakline_recording_on(void) {
    return __atomic_load_n(&on, __ATOMIC_ACQUIRE) && !inside && !leakline_in_vfork_child() &&
           __atomic_load_n(leakline_same_process, __ATOMIC_RELAXED);
}

/* --- a signal handler may jump out of the bracket (siglongjmp): what was entered is never left */

static bool on_alternate_stack(void) {
    stack_t stack = {0};
    return leakline_call3(SYS_sigaltstack, 0, (long)&stack, 0) != 0 || stack.ss_flags & SS_ONSTACK;
}

/* Whether the function that entered is still there. A handler that interrupted it is called below its frame, which holds what it held then; who
 * calls from above, or finds it overwritten, comes after a jump. Only told on a thread's own stack, of which both are: an alternate one
 * may lie anywhere. */
static bool is_abandoned(uintptr_t frame) {
    struct leakline_stack now, then;
    if (__atomic_load_n(&leakline_sealed, __ATOMIC_RELAXED) || on_alternate_stack())
        return false;
    leakline_stack_at(frame, &now);
    leakline_stack_at(entered.frame, &then);
    if (!now.own || !then.own)
        return false;
    return frame >= entered.frame || leakline_load(entered.frame) != entered.words[0] ||
           leakline_load(entered.frame + sizeof(uintptr_t)) != entered.words[1];
}

/* A slot that is half written says that nothing is open: if something is, comparing with /proc finds it. Counters may be wrong by one. */
static bool forget_abandoned(uintptr_t frame) {
    if (!is_abandoned(frame))
        return false;
    if (entered.writing && __atomic_load_n(entered.writing, __ATOMIC_RELAXED) == entered.odd) {
        if (entered.slot && (const uint32_t *)entered.slot == entered.writing && entered.slot->how) {
            entered.slot->how = 0;
            count(&leakline_header()->closed);
        }
        end_writing(entered.writing);
    }
    closing.kept_count = 0, closing.swept = false;
    count(&leakline_header()->skipped);
    return true;
}

__attribute__((noinline)) bool leakline_enter(void) {
    if (!__atomic_load_n(&on, __ATOMIC_ACQUIRE)) {
        leakline_start();
        if (!__atomic_load_n(&on, __ATOMIC_ACQUIRE))
            return false;
    }
    if (leakline_in_vfork_child())
        return false;
    if (!__atomic_load_n(leakline_same_process, __ATOMIC_RELAXED)) {
        leakline_child_late();
        if (!__atomic_load_n(&on, __ATOMIC_ACQUIRE))
            return false;
    }
    uintptr_t frame = *(uintptr_t *)__builtin_frame_address(0);
    if (inside && !forget_abandoned(frame)) { /* a signal handler: found by reconciling */
        __atomic_fetch_add(&leakline_header()->skipped, 1, __ATOMIC_RELAXED);
        return false;
    }
    entered.frame = frame;
    entered.words[0] = ((const uintptr_t *)frame)[0];
    entered.words[1] = ((const uintptr_t *)frame)[1];
    inside = true;
    return true;
}

void leakline_leave(void) { inside = false; }

/* --- small things */

uint64_t leakline_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now); /* a tick (1-4 ms) is precise enough, and it costs a third */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint32_t thread_number(void) {
    if (current_tid == 0 && !__atomic_load_n(&leakline_sealed, __ATOMIC_RELAXED))
        current_tid = (uint32_t)leakline_call0(SYS_gettid);
    return current_tid;
}

void leakline_raise(uint32_t *bound, uint32_t to) {
    uint32_t before = __atomic_load_n(bound, __ATOMIC_RELAXED);
    while (before < to && !__atomic_compare_exchange_n(bound, &before, to, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
    }
}

static void count(uint64_t *counter) { __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }

static struct leakline_stack_record *stack_at(uint32_t stack) {
    return (struct leakline_stack_record *)(leakline_recording.base + LEAKLINE_STACKS_AT) + (stack - 1u);
}

/* --- writing a record whose first word is a sequence number */

static uint32_t *stuck, stuck_at; /* one that was waited for in vain, and is waited for no more */

static bool begin_writing(uint32_t *sequence) {
    if (__builtin_expect(sequence == stuck, 0) && __atomic_load_n(sequence, __ATOMIC_RELAXED) == stuck_at) {
        count(&leakline_header()->skipped);
        return false;
    }
    for (uint32_t spins = 0; spins < SPINS; spins++) {
        uint32_t even = __atomic_load_n(sequence, __ATOMIC_RELAXED) & ~1u;
        entered.odd = even + 1u;
        entered.writing = sequence; /* before it is: a handler may jump away right after */
        if (__atomic_compare_exchange_n(sequence, &even, even + 1u, true, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
            __atomic_thread_fence(__ATOMIC_RELEASE); /* no reader sees a change before the odd number */
            return true;
        }
        entered.writing = NULL;
        leakline_pause();
        if (spins % 64 == 63 && !__atomic_load_n(&leakline_sealed, __ATOMIC_RELAXED))
            leakline_call0(SYS_sched_yield); /* who has it lost the processor */
    }
    stuck_at = __atomic_load_n(sequence, __ATOMIC_RELAXED);
    stuck = stuck_at & 1u ? sequence : NULL;
    count(&leakline_header()->skipped);
    return false;
}

static void end_writing(uint32_t *sequence) {
    __atomic_store_n(sequence, __atomic_load_n(sequence, __ATOMIC_RELAXED) + 1u, __ATOMIC_RELEASE);
    entered.writing = NULL;
}

/* A slot, being written; NULL if there is none or no storage for it. */
static struct leakline_slot *begin_slot(int number) {
    if (number < 0 || (uint32_t)number >= leakline_recording.slot_count) {
        count(&leakline_header()->out_of_range);
        return NULL;
    }
    uint64_t offset = LEAKLINE_SLOTS_AT + (uint64_t)number * sizeof(struct leakline_slot);
    if (!leakline_stored(offset, sizeof(struct leakline_slot)))
        return NULL;
    struct leakline_slot *slot = (struct leakline_slot *)(leakline_recording.base + offset);
    entered.slot = slot;
    return begin_writing(&slot->sequence) ? slot : NULL;
}

/* --- opens and closes */

/* The slot is being written. */
static void close_slot(struct leakline_slot *slot, uint32_t function, uint32_t stack, uint64_t now) {
    if (slot->stack)
        count(&stack_at(slot->stack)->closed);
    count(&leakline_header()->closed);
    slot->how = 0;
    slot->closed_alike = stack != 0 && slot->close_stack == stack && slot->earlier_open_stack != slot->stack;
    slot->close_stack = stack;
    slot->close_tid = thread_number();
    slot->close_function = (uint16_t)function;
    slot->closed_at_ns = now;
}

void leakline_opened(int number, enum leakline_how how, int related, uint32_t function, uint32_t stack) {
    struct leakline_slot *slot = begin_slot(number);
    if (!slot)
        return;
    uint64_t now = leakline_now_ns();
    if (slot->how) /* it was closed where the recorder does not see it */
        close_slot(slot, 0, 0, now);
    slot->how = (uint16_t)how;
    slot->function = (uint16_t)function;
    slot->earlier_open_stack = slot->stack;
    slot->stack = stack;
    slot->related = related;
    slot->tid = thread_number();
    slot->bind_error = slot->connect_error = 0;
    slot->generation = __atomic_add_fetch(&leakline_header()->generation, 1, __ATOMIC_RELAXED);
    slot->opened_at_ns = now;
    end_writing(&slot->sequence);
    if (stack) {
        count(&stack_at(stack)->opened);
        __atomic_store_n(&stack_at(stack)->last_at_ns, now, __ATOMIC_RELAXED);
    }
    leakline_raise(&leakline_header()->slot_bound, (uint32_t)number + 1u);
}

void leakline_mark_open(int number, enum leakline_how how) {
    struct leakline_slot *slot = begin_slot(number);
    if (!slot)
        return;
    if (slot->generation == 0) { /* else another thread opened it meanwhile */
        slot->how = (uint16_t)how;
        slot->related = -1;
        slot->generation = __atomic_add_fetch(&leakline_header()->generation, 1, __ATOMIC_RELAXED);
        slot->opened_at_ns = leakline_now_ns();
        count(&leakline_header()->marked);
    }
    end_writing(&slot->sequence);
    leakline_raise(&leakline_header()->slot_bound, (uint32_t)number + 1u);
}

static struct leakline_wrong_close_record wrong_close_of(const struct leakline_slot *slot, int number, uint32_t function, uint32_t stack);
static void keep_wrong_close(const struct leakline_wrong_close_record *wrong);
static void begin_close(int number, uint32_t stack) {
    int distance = number > closing.number ? number - closing.number : closing.number - number;
    if (stack != closing.stack || distance == 0 || distance > NEAR)
        closing.kept_count = 0, closing.swept = false;
    closing.number = number;
    closing.stack = stack;
    closing.generation = 0;
}

/* Whether the slot, being written, is libzmq's, and the stack does not go through libzmq. */
static bool is_libzmqs(const struct leakline_slot *slot, uint32_t stack) {
    return slot->stack && stack && stack_at(slot->stack)->libzmq & LEAKLINE_LIBZMQ_INNERMOST &&
           !(stack_at(stack)->libzmq & LEAKLINE_LIBZMQ_ANYWHERE);
}

/* An interpreter closes all as it ends. What it had opened before is what the program has left open: its slot stays. */
static bool left_to_the_end(const struct leakline_slot *slot) {
    if (!leakline_python_ends())
        return false;
    uint64_t now = leakline_now_ns(), since = 0;
    if (__atomic_compare_exchange_n(&python_ends_since, &since, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        since = now;
    return slot->opened_at_ns <= since;
}

void leakline_closing(int number, uint32_t function, uint32_t stack) {
    begin_close(number, stack);
    if (number < 0 || (uint32_t)number >= __atomic_load_n(&leakline_header()->slot_bound, __ATOMIC_ACQUIRE))
        return;
    struct leakline_slot *slot = begin_slot(number);
    if (!slot)
        return;
    struct leakline_wrong_close_record wrong = {0};
    if (slot->how && !left_to_the_end(slot)) {
        closing.generation = slot->generation;
        if (is_libzmqs(slot, stack)) {
            wrong = wrong_close_of(slot, number, function, stack);
            wrong.kind = LEAKLINE_LIBRARY_OWNER;
        }
        close_slot(slot, function, stack, leakline_now_ns());
    }
    end_writing(&slot->sequence);
    if (wrong.kind)
        keep_wrong_close(&wrong);
}

void leakline_closing_range(unsigned first, unsigned last, uint32_t function, uint32_t stack) {
    uint32_t bound = __atomic_load_n(&leakline_header()->slot_bound, __ATOMIC_ACQUIRE);
    for (uint32_t number = first; number < bound && number <= last; number++) {
        uint64_t offset = LEAKLINE_SLOTS_AT + (uint64_t)number * sizeof(struct leakline_slot);
        if (!leakline_has_storage(offset)) /* so that a million of numbers takes none */
            continue;
        struct leakline_slot *slot = (struct leakline_slot *)(leakline_recording.base + offset);
        if (__atomic_load_n(&slot->how, __ATOMIC_RELAXED))
            leakline_closing((int)number, function, stack);
    }
}

/* --- wrong closes and other failures */

static struct leakline_wrong_close_record *begin_wrong_close(uint64_t place) {
    uint64_t offset = LEAKLINE_WRONG_CLOSES_AT + place * sizeof(struct leakline_wrong_close_record);
    if (!leakline_stored(offset, sizeof(struct leakline_wrong_close_record)))
        return NULL;
    struct leakline_wrong_close_record *record = (struct leakline_wrong_close_record *)(leakline_recording.base + offset);
    return begin_writing(&record->sequence) ? record : NULL;
}

/* A sweep that comes to a number which was never open: what it began with was no wrong close either. */
static void begin_sweep(void) {
    for (uint32_t i = 0; i < closing.kept_count; i++) {
        struct leakline_wrong_close_record *record = begin_wrong_close(closing.kept[i]);
        if (!record)
            continue;
        /* Another's, when the ring has gone round. */
        if (record->stack == closing.stack && record->tid == thread_number() && record->kind != LEAKLINE_LIBRARY_OWNER)
            record->kind = 0;
        end_writing(&record->sequence);
    }
    closing.kept_count = 0;
    closing.swept = true;
}

static void keep_wrong_close(const struct leakline_wrong_close_record *wrong) {
    if (closing.kept_count == KEPT_OF_A_RUN)
        return;
    uint64_t place = __atomic_fetch_add(&leakline_header()->wrong_closes_seen, 1, __ATOMIC_RELAXED) % LEAKLINE_WRONG_CLOSES;
    struct leakline_wrong_close_record *record = begin_wrong_close(place);
    if (!record)
        return;
    uint32_t sequence = record->sequence;
    *record = *wrong;
    record->sequence = sequence;
    end_writing(&record->sequence);
    closing.kept[closing.kept_count++] = (uint32_t)place;
}

static struct leakline_wrong_close_record wrong_close_of(const struct leakline_slot *slot, int number, uint32_t function, uint32_t stack) {
    return (struct leakline_wrong_close_record){
        .number = number,
        .function = function,
        .stack = stack,
        .tid = thread_number(),
        .earlier_close_stack = slot->close_stack,
        .earlier_close_tid = slot->close_tid,
        .open_stack = slot->stack,
        .open_tid = slot->tid,
        .at_ns = leakline_now_ns(),
        .earlier_close_at_ns = slot->closed_at_ns,
        .opened_at_ns = slot->opened_at_ns,
    };
}

/* Whether a number was ever open here, as far as the table goes. */
static bool was_open(int number) {
    if (number < 0 || (uint32_t)number >= __atomic_load_n(&leakline_header()->slot_bound, __ATOMIC_ACQUIRE))
        return false;
    uint64_t offset = LEAKLINE_SLOTS_AT + (uint64_t)number * sizeof(struct leakline_slot);
    return leakline_has_storage(offset) &&
           __atomic_load_n(&((struct leakline_slot *)(leakline_recording.base + offset))->generation, __ATOMIC_RELAXED) != 0;
}

/* Who is wrong is certain only where somebody closed what he had closed before, and what this thread has opened since: LEAKLINE_OTHER_OWNER. */
void leakline_close_failed(int number, int error, uint32_t function, uint32_t stack) {
    if (error != EBADF || closing.swept)
        return;
    if (!was_open(number)) { /* no wrong close, but a program that tries */
        begin_sweep();
        return;
    }
    struct leakline_slot *slot = begin_slot(number);
    if (!slot)
        return;
    struct leakline_wrong_close_record wrong = wrong_close_of(slot, number, function, stack);
    bool closed_unseen = closing.generation == slot->generation || (slot->how && leakline_python_ends()), closed_alike = slot->closed_alike;
    end_writing(&slot->sequence);
    wrong.error = (uint32_t)error;
    wrong.kind = LEAKLINE_NOTHING_OPEN;
    if (closed_unseen) { /* what the table takes for open was closed where the recorder does not see it, or does not note it */
        wrong.earlier_close_stack = wrong.earlier_close_tid = 0;
        wrong.earlier_close_at_ns = 0;
    } else if (closed_alike && wrong.open_tid == wrong.tid && wrong.earlier_close_tid != wrong.tid) {
        wrong.kind = LEAKLINE_OTHER_OWNER;
    }
    keep_wrong_close(&wrong);
}

void leakline_socket_failed(int number, uint32_t function, int error) {
    const char *name = leakline_function_name(function);
    struct leakline_slot *slot = begin_slot(number);
    if (!slot)
        return;
    if (name && name[0] == 'b')
        slot->bind_error = (uint16_t)error;
    else
        slot->connect_error = (uint16_t)error;
    end_writing(&slot->sequence);
}

void leakline_exhausted(int error, uint32_t function, uint32_t stack) {
    struct leakline_recording_header *header = leakline_header();
    if (__atomic_fetch_add(&header->exhausted, 1, __ATOMIC_RELAXED) != 0)
        return;
    header->exhausted_at_ns = leakline_now_ns();
    header->exhausted_error = (uint32_t)error;
    header->exhausted_function = function;
    header->exhausted_stack = stack;
    __atomic_store_n(&header->exhausted_first, 1, __ATOMIC_RELEASE);
}
