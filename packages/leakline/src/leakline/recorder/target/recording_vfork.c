/* vfork: the child is this very thread until it calls exec, in the same memory, with descriptors of its own. What it closes is still open in the
 * parent. So a thread is marked from just before the system call until the parent goes on (the model is Android's bionic).
 *
 * Not in C: the child returns from this function and uses the stack below, so the parent's return address is kept in a register, as libc does.
 */
#include "recording_private.h"

__thread uint32_t leakline_vforked;

void leakline_vfork_begin(void) { leakline_vforked++; }
void leakline_vfork_end(void) { leakline_vforked--; }

__asm__(".text\n"
        ".globl vfork, __vfork, leakline_intercept_vfork, leakline_intercept___vfork\n"
        ".hidden leakline_intercept_vfork, leakline_intercept___vfork\n"
        ".type vfork, %function\n"
        ".type __vfork, %function\n"
        "vfork:\n"
        "__vfork:\n"
        "leakline_intercept_vfork:\n"
        "leakline_intercept___vfork:\n"
#if defined(__x86_64__)
        "    endbr64\n"
        "    popq %rdi\n" /* kept by the system call, as is rsi */
        "    movq leakline_vforked@gottpoff(%rip), %rsi\n"
        "    addl $1, %fs:(%rsi)\n"
        "    movl $58, %eax\n" /* SYS_vfork */
        "    syscall\n"
        "    pushq %rdi\n"
        "    testl %eax, %eax\n"
        "    jz 1f\n" /* the child */
        "    subl $1, %fs:(%rsi)\n"
        "    cmpl $-4095, %eax\n"
        "    jae 2f\n"
        "1:  ret\n"
        "2:  negl %eax\n"
        "    pushq %rax\n"
        "    call __errno_location@PLT\n"
        "    popq %rdx\n"
        "    movl %edx, (%rax)\n"
        "    movl $-1, %eax\n"
        "    ret\n"
#elif defined(__aarch64__)
        "    mrs x9, tpidr_el0\n"
        "    adrp x10, :gottprel:leakline_vforked\n"
        "    ldr x10, [x10, #:gottprel_lo12:leakline_vforked]\n"
        "    add x9, x9, x10\n"
        "    ldr w11, [x9]\n"
        "    add w11, w11, #1\n"
        "    str w11, [x9]\n"
        "    mov x0, #0x4111\n" /* CLONE_VM | CLONE_VFORK | SIGCHLD */
        "    mov x1, #0\n"
        "    mov x8, #220\n" /* SYS_clone */
        "    svc #0\n"
        "    cbz x0, 1f\n" /* the child */
        "    ldr w11, [x9]\n"
        "    sub w11, w11, #1\n"
        "    str w11, [x9]\n"
        "    cmn x0, #4095\n"
        "    b.cs 2f\n"
        "1:  ret\n"
        "2:  stp x29, x30, [sp, #-32]!\n"
        "    neg w0, w0\n"
        "    str w0, [sp, #16]\n"
        "    bl __errno_location\n"
        "    ldr w1, [sp, #16]\n"
        "    str w1, [x0]\n"
        "    mov w0, #-1\n"
        "    ldp x29, x30, [sp], #32\n"
        "    ret\n"
#endif
        ".size vfork, .-vfork\n");
