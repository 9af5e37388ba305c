/* Stacks that cannot be walked: the walk ends there, says so, and never faults. */
#define _GNU_SOURCE
#include "unwind_tests.h"
#include "unwind_rules.h"

#include <pthread.h>
#include <sys/mman.h>

static volatile int done;

/* --- code that nothing describes, as a just-in-time compiler makes it */

__attribute__((noinline)) static void from_unknown_code(void) {
    walk_here();
    done++;
}

static void test_unknown_code(void) {
#if defined(__x86_64__)
    static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3}; /* push rbp; mov rbp, rsp; call *rdi; pop rbp; ret */
#else
    static const unsigned char code[] = {0xfd, 0x7b, 0xbf, 0xa9, 0xfd, 0x03, 0, 0x91, 0, 0, 0x3f, 0xd6, 0xfd, 0x7b, 0xc1, 0xa8, 0xc0, 3, 0x5f, 0xd6};
#endif
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    memcpy(page, code, sizeof code);
    CHECK(mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0);
    __builtin___clear_cache(page, page + sizeof code);
    for (int i = 0; i < 3; i++) {
        seen.native_count = 0;
        ((void (*)(void (*)(void)))(uintptr_t)page)(from_unknown_code);
        CHECK(seen.flags == LEAKLINE_NATIVE_BROKEN && seen.native_count == 2);
        CHECK(seen.native[1] - (uintptr_t)page < sizeof code);
    }
    CHECK(munmap(page, 4096) == 0);
}

/* --- registers and words that somebody overwrote */

static struct leakline_registers captured;

__attribute__((noinline)) static void capture(void) { captured = LEAKLINE_CALLER; }

static bool all_return_addresses(void) {
    for (int i = 0; i < seen.native_count; i++)
        if (leakline_after_call(seen.native[i]) != 1) return false;
    return true;
}

/* A frame with a frame pointer, by which the CFA is found. */
__attribute__((noinline, optimize("O0"))) static void test_registers(void) {
    static char heap[64];
    char *nothing = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    volatile uintptr_t here = 0;
    capture();
    leakline_unwind(&captured, &seen);
    CHECK(seen.flags == 0 && seen.native_count >= 4);
    const uintptr_t odd[] = {0, 1, 8, 4096, ~(uintptr_t)0, ~(uintptr_t)7, (uintptr_t)1 << 63, (uintptr_t)1 << 47, ((uintptr_t)1 << 47) - 8,
                             0x4141414141414141, (uintptr_t)nothing, (uintptr_t)nothing + 4088, (uintptr_t)heap, (uintptr_t)&captured,
                             captured.sp - 256, captured.sp + 1, captured.fp + 4, (uintptr_t)&here, captured.sp - 16,
                             captured.sp - 4096};
    const size_t on_stack __attribute__((unused)) = 3; /* the last ones: what stands there may look like a frame, or like the end */
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        struct leakline_registers registers = captured;
#if defined(__x86_64__)
        registers.fp = odd[i];
        leakline_unwind(&registers, &seen);
        CHECK(seen.native[0] == captured.pc && all_return_addresses());
        CHECK(seen.flags == LEAKLINE_NATIVE_BROKEN || i >= sizeof odd / sizeof odd[0] - on_stack);
#endif
        registers = captured;
        registers.sp = odd[i];
        leakline_unwind(&registers, &seen);
        CHECK(seen.native[0] == captured.pc && seen.native_count >= 1);
        registers = (struct leakline_registers){.pc = odd[i], .sp = captured.sp, .fp = captured.fp};
        leakline_unwind(&registers, &seen);
        CHECK(odd[i] == 0 || (seen.native[0] == odd[i] && seen.native_count >= 1));
    }
    CHECK(munmap(nothing, 4096) == 0);
}

/* Overwrites the saved frame pointer (0) or the return address (1) of its own frame, and puts it back. */
__attribute__((noinline, optimize("O0"))) static void overwrite(int which, uintptr_t value) {
    volatile uintptr_t *record = __builtin_frame_address(0);
    uintptr_t before = record[which];
    record[which] = value;
    walk_here();
    record[which] = before;
}

static void test_overwritten(void) {
    const uintptr_t odd[] = {1, 0x4141414141414141, (uintptr_t)&captured, (uintptr_t)test_overwritten + 4, 4096};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        overwrite(1, odd[i]);
        CHECK(seen.native_count == 1 && seen.flags == LEAKLINE_NATIVE_BROKEN);
        overwrite(0, odd[i]);
        CHECK(seen.native_count >= 2 && all_return_addresses());
    }
    overwrite(1, 0); /* how a stack ends */
    CHECK(seen.native_count == 1 && seen.flags == 0);
}

/* --- anything at all */

static uint64_t random_state = 88172645463325252u;

static uint64_t random_word(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* A word as it may stand on a stack: a return address, a place on that stack or past its ends, or noise. */
static uintptr_t any_word(const struct leakline_origin *real, uintptr_t low, size_t size) {
    switch (random_word() % 8) {
    case 0:
    case 1:
    case 2: return real->native[random_word() % real->native_count];
    case 3:
    case 4: return low + random_word() % size / 8 * 8;
    case 5: return low + size - 64 + random_word() % 128;
    case 6: return random_word();
    default: return random_word() % 65536;
    }
}

static int collect(const void *a, const void *b) {
    (void)a;
    (void)b;
    walk_here();
    return 0;
}

static void test_anything(void) {
    enum { size = 16384 };
    char *memory = mmap(NULL, size + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED && mprotect(memory + 4096, size, PROT_READ | PROT_WRITE) == 0);
    uintptr_t low = (uintptr_t)memory + 4096;
    int pair[2] = {0, 1};
    qsort(pair, 2, sizeof pair[0], collect);
    struct leakline_origin real = seen;
    for (int round = 0; round < 20000 * long_run; round++) {
        for (int i = 0; i < 64; i++) ((uintptr_t *)low)[random_word() % (size / 8)] = any_word(&real, low, size);
        struct leakline_registers registers = {.pc = real.native[random_word() % real.native_count], .fp = any_word(&real, low, size)};
        registers.sp = random_word() % 16 == 0 ? any_word(&real, low, size) : low + random_word() % size / 8 * 8;
        leakline_unwind(&registers, &seen);
        CHECK(seen.native_count >= 1 && seen.native_count <= LEAKLINE_NATIVE_FRAMES && seen.native[0] == registers.pc);
        CHECK(all_return_addresses());
    }
    CHECK(munmap(memory, size + 8192) == 0);
}

/* --- another stack right below a thread's own: the gap between them must be noticed */

#if defined(__x86_64__) /* where a return address is found through fp */
enum { OTHER = 65536, GAP = 4096, OWN = 1 << 18 };

__attribute__((noinline, optimize("O0"))) static void *above_another_stack(void *memory) {
    capture();
    for (int i = 0; i < 2; i++) { /* before and after the own stack is known */
        uintptr_t gap = (uintptr_t)memory + OTHER;
        struct leakline_registers registers = {.pc = captured.pc, .sp = gap - 1024, .fp = gap + 8};
        leakline_unwind(&registers, &seen);
        CHECK(seen.native_count == 1 && seen.flags == LEAKLINE_NATIVE_BROKEN);
        leakline_unwind(&captured, &seen);
        CHECK(seen.native_count >= 2 && seen.flags == 0);
    }
    return NULL;
}

static void test_another_below(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    char *memory = mmap(NULL, OTHER + GAP + OWN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED && mprotect(memory + OTHER, GAP, PROT_NONE) == 0);
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstack(&attributes, memory + OTHER + GAP, OWN) == 0);
    CHECK(pthread_create(&thread, &attributes, above_another_stack, memory) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(munmap(memory, OTHER + GAP + OWN) == 0);
}
#else
static void test_another_below(void) {}
#endif

static void *in_thread(void *unused) {
    (void)unused;
    test_registers();
    test_overwritten();
    return NULL;
}

void test_broken(void) {
    pthread_t thread;
    test_unknown_code();
    leakline_unwind_checks.off = true;
    test_registers();
    test_overwritten();
    test_anything();
    test_another_below();
    CHECK(pthread_create(&thread, NULL, in_thread, NULL) == 0 && pthread_join(thread, NULL) == 0);
    leakline_unwind_checks.off = false;
}
