/* Stacks that are not the thread's own, and frames that need more registers than pc, sp and fp. */
#define _GNU_SOURCE
#include "unwind_tests.h"

#include <pthread.h>
#include <sys/mman.h>
#include <ucontext.h>

static volatile int done;
static ucontext_t main_context, coroutine_context;

__attribute__((noinline)) static void level(int depth) {
    volatile char room[300];
    room[0] = 1;
    if (depth == 0) walk_here();
    else level(depth - 1);
    done += room[0];
}

static void coroutine(void) {
    level(0);
    CHECK(seen.flags == 0 && seen.native_count >= 2);
    level(20);
    CHECK(seen.flags == 0 && seen.native_count >= 22);
    swapcontext(&coroutine_context, &main_context);
    level(3);
}

static void run_on(void *stack, size_t size) {
    CHECK(getcontext(&coroutine_context) == 0);
    coroutine_context.uc_stack = (stack_t){.ss_sp = stack, .ss_size = size};
    coroutine_context.uc_link = &main_context;
    makecontext(&coroutine_context, coroutine, 0);
    CHECK(swapcontext(&main_context, &coroutine_context) == 0);
    level(2); /* on the own stack, while the other one is still in use */
    CHECK(seen.flags == 0);
    CHECK(swapcontext(&main_context, &coroutine_context) == 0);
}

/* `size` bytes with nothing readable before and behind. */
static char *guarded(size_t size) {
    char *memory = mmap(NULL, size + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED && mprotect(memory + 4096, size, PROT_READ | PROT_WRITE) == 0);
    return memory + 4096;
}

static void test_coroutines(void) {
    enum { size = 1 << 17 };
    void *heap = malloc(size);
    run_on(heap, size);
    free(heap);
    for (int i = 0; i < 20; i++) { /* the same addresses, of another size each time */
        size_t room = (size_t)size - (size_t)(i % 3) * 16384;
        char *stack = guarded(room);
        run_on(stack, room);
        CHECK(munmap(stack - 4096, room + 8192) == 0);
    }
}

static void *in_thread(void *unused) {
    (void)unused;
    level(5);
    CHECK(seen.flags == 0);
    test_coroutines();
    return NULL;
}

static void test_given_stack(void) {
    enum { size = 1 << 18 };
    pthread_attr_t attributes;
    pthread_t thread;
    char *stack = guarded(size);
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstack(&attributes, stack, size) == 0);
    CHECK(pthread_create(&thread, &attributes, in_thread, NULL) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(munmap(stack - 4096, size + 8192) == 0);
}

#if defined(__x86_64__)
/* void in_rbx(void (*f)(void)): its CFA is rbx + 16. void on_stack(void (*f)(void), void *top): runs f on another stack. by_expression: the CFA
 * is where an expression says. Written by hand, as compilers hardly make such frames: libc's lazy binding and others do. */
__asm__(".text\n"
        "in_rbx: .cfi_startproc\n\tpush %rbx\n\t.cfi_def_cfa_offset 16\n\t.cfi_offset %rbx, -16\n\tmov %rsp, %rbx\n\t.cfi_def_cfa_register %rbx\n\t"
        "sub $1000, %rsp\n\tand $-64, %rsp\n\tcall *%rdi\n\tmov %rbx, %rsp\n\tpop %rbx\n\t.cfi_def_cfa %rsp, 8\n\tret\n\t.cfi_endproc\n"
        "on_stack: .cfi_startproc\n\tpush %rbp\n\t.cfi_def_cfa_offset 16\n\t.cfi_offset %rbp, -16\n\tmov %rsp, %rbp\n\t.cfi_def_cfa_register %rbp\n\t"
        "mov %rsi, %rsp\n\tcall *%rdi\n\tmov %rbp, %rsp\n\tpop %rbp\n\t.cfi_def_cfa %rsp, 8\n\tret\n\t.cfi_endproc\n"
        "by_expression: .cfi_startproc\n\tsub $56, %rsp\n\t"
        /* DW_CFA_def_cfa_expression: rsp + 0, lit16, lit4, mul, plus: 64 */
        ".cfi_escape 0x0f, 0x06, 0x77, 0x00, 0x40, 0x34, 0x1e, 0x22\n\t"
        "call *%rdi\n\tadd $56, %rsp\n\t.cfi_def_cfa %rsp, 8\n\tret\n\t.cfi_endproc\n");
void in_rbx(void (*function)(void));
void on_stack(void (*function)(void), void *top);
void by_expression(void (*function)(void));

static void inner(void) { level(1); }
static void twice(void) { in_rbx(inner); }
static void thrice(void) { by_expression(twice); }

static void test_odd_frames(void) {
    level(0);
    int base = seen.native_count;
    in_rbx(inner);
    CHECK(seen.flags == 0 && seen.native_count == base + 3);
    thrice();
    CHECK(seen.flags == 0 && seen.native_count >= base + 5);
    char *stack = guarded(65536);
    on_stack(thrice, stack + 65536);
    CHECK(seen.flags == 0 && seen.native_count >= base + 6);
    CHECK(munmap(stack - 4096, 65536 + 8192) == 0);
}
#else
static void test_odd_frames(void) {}
#endif

void test_stacks(void) {
    pthread_t thread;
    test_odd_frames();
    test_coroutines();
    CHECK(pthread_create(&thread, NULL, in_thread, NULL) == 0 && pthread_join(thread, NULL) == 0);
    test_given_stack();
}
