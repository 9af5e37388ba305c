/* Which memory around a stack pointer is readable, without a lock, an allocation or a descriptor (unwind_memory.h).
 *
 * pthread_getattr_np would know a thread's stack, but it allocates, locks, and reads /proc. So the kernel is asked page by page, with a
 * system call that can do nothing else: rt_sigprocmask with a `how` that does not exist copies the set in (EFAULT) before it looks at `how`
 * (EINVAL). What it said is kept for a thread's own stack only, whose pages stay as long as frames are on them; coroutine and signal stacks
 * may be unmapped at any time, and are asked about at every walk.
 */
#define _GNU_SOURCE
#include "unwind_memory.h"
#include "system_calls.h"
#include "unwind_symbols.h"

#include <errno.h>
#include <stddef.h>

#define PAGE ((uintptr_t)4096) /* where pages are larger, some are asked about twice */
#define OWN_SPAN ((uintptr_t)1 << 20) /* how far from its top, or beyond what is known, a thread's own stack is looked for at once */
#define FRAME_SPAN ((uintptr_t)1 << 24) /* how far one frame of another stack may reach */

static uintptr_t main_stack_end;
static bool probe_works;

/* The own stack of this thread: from the deepest page seen to its top; empty before the first walk. */
static __thread volatile uintptr_t own_low, own_high;
/* Where a search for it failed last: not repeated for a stack pointer in here. */
static __thread volatile uintptr_t foreign_low, foreign_high;

static bool page_readable(uintptr_t address) {
    enum { no_such_how = 0x7fffffff, set_size = 8 };
    return leakline_call4(SYS_rt_sigprocmask, no_such_how, (long)(address & ~(PAGE - 1)), 0, set_size) == -EINVAL;
}

bool leakline_readable(uintptr_t address) { return probe_works && page_readable(address); }

void leakline_memory_prepare(void) {
    void **end = leakline_find_symbol("__libc_stack_end");
    main_stack_end = end == NULL ? 0 : (uintptr_t)*end;
    /* Where a system call filter or another kernel answers otherwise, stacks that are not known count as unreadable. */
    int here = 0;
    probe_works = page_readable((uintptr_t)&here) && !page_readable(PAGE) && !page_readable(~(uintptr_t)0);
}

/* Whether all from `from` to `to` is readable; else *gap is the first page that is not. */
static bool all_readable(uintptr_t from, uintptr_t to, uintptr_t *gap) {
    for (uintptr_t page = from & ~(PAGE - 1); page < to; page += PAGE) {
        *gap = page;
        if (!leakline_readable(page)) return false;
    }
    return true;
}

static uintptr_t thread_pointer(void) {
    uintptr_t pointer;
#if defined(__x86_64__)
    __asm__("movq %%fs:0, %0" : "=r"(pointer));
#else
    __asm__("mrs %0, tpidr_el0" : "=r"(pointer));
#endif
    return pointer;
}

static bool joined(uintptr_t sp, uintptr_t top) {
    uintptr_t gap;
    if (sp >= top || top - sp > OWN_SPAN) return false;
    if (sp >= foreign_low && sp < foreign_high) return false;
    if (all_readable(sp, top, &gap)) return true;
    foreign_low = sp & ~(PAGE - 1);
    foreign_high = gap;
    return false;
}

/* glibc and musl put a thread's control block, which the thread pointer points to, on top of its stack, in one mapping. The first thread's
 * stack ends at __libc_stack_end. */
static bool find_own(uintptr_t sp) {
    if (own_high != 0) {
        if (!joined(sp, own_low)) return false;
        own_low = sp & ~(PAGE - 1);
        return true;
    }
    uintptr_t top = thread_pointer();
    if (!joined(sp, top)) {
        top = main_stack_end;
        if (!joined(sp, top)) return false;
    }
    own_low = sp & ~(PAGE - 1);
    own_high = top; /* last: a signal handler that comes in between finds nothing yet */
    return true;
}

void leakline_stack_at(uintptr_t sp, struct leakline_stack *stack) {
    if ((sp >= own_low && sp < own_high) || find_own(sp)) {
        *stack = (struct leakline_stack){.low = own_low, .high = own_high, .own = true};
        return;
    }
    uintptr_t page = sp & ~(PAGE - 1);
    *stack = (struct leakline_stack){.low = page, .high = leakline_readable(page) ? page + PAGE : page, .own = false};
}

bool leakline_stack_reach(struct leakline_stack *stack, uintptr_t address) {
    if (stack->high == stack->low || stack->own || address < stack->high - sizeof(uintptr_t) || address - stack->high > FRAME_SPAN)
        return leakline_on_stack(stack, stack->low, address);
    while (stack->high - sizeof(uintptr_t) < address) {
        if (!leakline_readable(stack->high)) return false;
        stack->high += PAGE;
    }
    return true;
}

bool leakline_word_readable(uintptr_t address) {
    uintptr_t here = (uintptr_t)__builtin_frame_address(0), last = address + sizeof(uintptr_t) - 1;
    if (here >= own_low && address >= here && address < own_high && own_high - address >= sizeof(uintptr_t)) return true;
    return leakline_readable(address) && ((address ^ last) < PAGE || leakline_readable(last));
}
