/* What differs between x86_64 and aarch64 when the registers of a stopped thread are read and set. */
#ifndef LEAKLINE_PTRACE_REGISTERS_H
#define LEAKLINE_PTRACE_REGISTERS_H

#include <elf.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/user.h>

#define LEAKLINE_FLOATING_SIZE 16384 /* XSAVE with AMX tiles needs 11 008 bytes; aarch64 528 */

static inline bool leakline_regset_get(pid_t tid, int set, void *data, size_t *size) {
    struct iovec room = {data, *size};
    if (ptrace(PTRACE_GETREGSET, tid, (void *)(long)set, &room) != 0)
        return false;
    *size = room.iov_len;
    return true;
}

static inline bool leakline_regset_set(pid_t tid, int set, const void *data, size_t size) {
    struct iovec content = {(void *)data, size};
    return ptrace(PTRACE_SETREGSET, tid, (void *)(long)set, &content) == 0;
}

#if defined(__x86_64__)

#define LEAKLINE_FLOATING_SET NT_X86_XSTATE
#define LEAKLINE_SYSTEM_CALL_SIZE 2 /* bytes of the instruction `syscall` */
#define LEAKLINE_RED_ZONE 128       /* below the stack pointer, that leaf functions use */

typedef struct user_regs_struct leakline_user_registers;

static inline uint64_t leakline_pc(const leakline_user_registers *registers) { return registers->rip; }
static inline uint64_t leakline_sp(const leakline_user_registers *registers) { return registers->rsp; }
static inline int64_t leakline_result(const leakline_user_registers *registers) { return (int64_t)registers->rax; }

/* Number of the system call that a thread stopped in is in, with its arguments; -1 when it is in none. */
static inline long leakline_system_call(pid_t tid, const leakline_user_registers *registers, uint64_t arguments[6]) {
    (void)tid;
    const uint64_t values[] = {registers->rdi, registers->rsi, registers->rdx, registers->r10, registers->r8, registers->r9};
    for (int i = 0; i < 6; i++)
        arguments[i] = values[i];
    return (long)registers->orig_rax;
}

/* At the entry of a system call: it is not to be done. */
static inline bool leakline_skip_system_call(pid_t tid, const leakline_user_registers *registers) {
    leakline_user_registers changed = *registers;
    changed.orig_rax = (unsigned long long)-1;
    return leakline_regset_set(tid, NT_PRSTATUS, &changed, sizeof changed);
}

/* Registers of a thread inside a system call or at its entry -> those just before it. */
static inline void leakline_rewind(leakline_user_registers *registers, long number, uint64_t first_argument) {
    (void)first_argument;
    registers->rax = (unsigned long long)number;
    registers->orig_rax = (unsigned long long)-1;
    registers->rip -= LEAKLINE_SYSTEM_CALL_SIZE;
}

/* ... -> those just after it, with this result. `registers` are the rewound ones. */
static inline void leakline_unwind_with(leakline_user_registers *registers, int64_t result) {
    registers->rax = (unsigned long long)result;
    registers->rip += LEAKLINE_SYSTEM_CALL_SIZE;
}

static inline void leakline_set_fourth_argument(leakline_user_registers *registers, uint64_t value) { registers->r10 = value; }

/* Prepares a call of function(first, second) that returns to address 0. `sp` is aligned to 16; the word below is written too. */
static inline void leakline_set_call(leakline_user_registers *registers, uint64_t function, uint64_t first, uint64_t second,
                                     uint64_t sp) {
    registers->rip = function;
    registers->rdi = first;
    registers->rsi = second;
    registers->rax = 0; /* no vector registers in use, for variadic functions */
    registers->rsp = sp - 8; /* as after a `call`: the return address, written by the caller of this */
    registers->orig_rax = (unsigned long long)-1; /* no system call is to be restarted */
    registers->eflags &= ~0x400ull; /* the ABI: direction flag clear */
}

#elif defined(__aarch64__)

#ifndef NT_ARM_SYSTEM_CALL
#define NT_ARM_SYSTEM_CALL 0x404
#endif
#define LEAKLINE_FLOATING_SET NT_PRFPREG /* what SVE has beyond is lost at every system call anyway */
#define LEAKLINE_SYSTEM_CALL_SIZE 4
#define LEAKLINE_RED_ZONE 0

typedef struct user_regs_struct leakline_user_registers;

static inline uint64_t leakline_pc(const leakline_user_registers *registers) { return registers->pc; }
static inline uint64_t leakline_sp(const leakline_user_registers *registers) { return registers->sp; }
static inline int64_t leakline_result(const leakline_user_registers *registers) { return (int64_t)registers->regs[0]; }

static inline long leakline_system_call(pid_t tid, const leakline_user_registers *registers, uint64_t arguments[6]) {
    int number = -1;
    size_t size = sizeof number;
    for (int i = 0; i < 6; i++)
        arguments[i] = registers->regs[i];
    return leakline_regset_get(tid, NT_ARM_SYSTEM_CALL, &number, &size) ? number : -1;
}

static inline bool leakline_skip_system_call(pid_t tid, const leakline_user_registers *registers) {
    (void)registers;
    int none = -1;
    return leakline_regset_set(tid, NT_ARM_SYSTEM_CALL, &none, sizeof none);
}

static inline void leakline_rewind(leakline_user_registers *registers, long number, uint64_t first_argument) {
    registers->regs[8] = (unsigned long long)number;
    registers->regs[0] = first_argument;
    registers->pc -= LEAKLINE_SYSTEM_CALL_SIZE;
}

static inline void leakline_unwind_with(leakline_user_registers *registers, int64_t result) {
    registers->regs[0] = (unsigned long long)result;
    registers->pc += LEAKLINE_SYSTEM_CALL_SIZE;
}

static inline void leakline_set_fourth_argument(leakline_user_registers *registers, uint64_t value) { registers->regs[3] = value; }

static inline void leakline_set_call(leakline_user_registers *registers, uint64_t function, uint64_t first, uint64_t second,
                                     uint64_t sp) {
    registers->pc = function;
    registers->regs[0] = first;
    registers->regs[1] = second;
    registers->regs[29] = 0; /* frame pointer: the chain ends here */
    registers->regs[30] = 0; /* link register: the return address */
    registers->sp = sp;
}

#else
#error "leakline's attach knows x86_64 and aarch64"
#endif

#endif
