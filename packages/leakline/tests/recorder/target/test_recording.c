/* The recording's records: interning, slots, wrong closes, full tables; by one thread and by 16. Run under ASan and UBSan, and under TSan. */
#define _GNU_SOURCE
#include <errno.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "recording_private.h"
#include "tests.h"

const char *leakline_function_name(uint32_t function) {
    static const char *const names[] = {"", "open", "close", "bind", "connect"};
    return function < sizeof names / sizeof names[0] ? names[function] : NULL;
}

static struct leakline_origin origin_of(uint64_t seed, uint16_t native, uint16_t python) {
    struct leakline_origin origin = {.native_count = native, .python_count = python};
    for (uint16_t i = 0; i < native; i++)
        origin.native[i] = 0x1000 + i * 16u + (i == native / 2 ? seed << 12 : 0);
    for (uint16_t i = 0; i < python; i++)
        origin.python[i] = (struct leakline_python_frame){.code = 1u + i, .instruction = (int32_t)(seed % 1000), .entry = i + 1u == python};
    return origin;
}

static uint32_t intern(uint64_t seed, uint16_t native, uint16_t python) {
    struct leakline_origin origin = origin_of(seed, native, python);
    CHECK(leakline_enter());
    uint32_t stack = leakline_stack(&origin);
    leakline_leave();
    return stack;
}

static struct leakline_stack_record *stack_at(uint32_t stack) {
    return (struct leakline_stack_record *)(leakline_recording.base + LEAKLINE_STACKS_AT) + (stack - 1u);
}

static const struct leakline_slot *slot_at(int number) {
    return (const struct leakline_slot *)(leakline_recording.base + LEAKLINE_SLOTS_AT) + number;
}

static void opened(int number, uint32_t stack) {
    CHECK(leakline_enter());
    leakline_opened(number, LEAKLINE_HOW_OPENED, -1, 1, stack);
    leakline_leave();
}

static void closing(int number, uint32_t stack) {
    CHECK(leakline_enter());
    leakline_closing(number, 2, stack);
    leakline_leave();
}

static void close_failed(int number, uint32_t stack) {
    closing(number, stack);
    CHECK(leakline_enter());
    leakline_close_failed(number, EBADF, 2, stack);
    leakline_leave();
}

static void begin(const char *path) {
    unlink(path);
    errno = 0;
    CHECK(leakline_recording_begin(path) == 0 && errno == 0);
    CHECK(leakline_recording_begin(path) == -EALREADY);
    CHECK(leakline_recording_on());
}

/* --- by one thread */

static void test_equal_stacks_have_one_number(void) {
    begin("stacks");
    uint32_t one = intern(1, 20, 5);
    CHECK(one && intern(1, 20, 5) == one);
    CHECK(intern(2, 20, 5) != one && intern(1, 19, 5) != one && intern(1, 20, 4) != one && intern(1, 20, 0) != one);
    CHECK(intern(0, 0, 0) && intern(0, 0, 0) == intern(0, 0, 0));
    CHECK(intern(3, LEAKLINE_NATIVE_FRAMES, LEAKLINE_PYTHON_FRAMES) == intern(3, LEAKLINE_NATIVE_FRAMES, LEAKLINE_PYTHON_FRAMES));
    leakline_recording_end();
    CHECK(!leakline_recording_on() && !leakline_enter());
}

static void test_colliding_hashes_are_different_stacks(void) {
    begin("collisions");
    uint32_t one = intern(1, 20, 0), two = intern(2, 20, 0);
    stack_at(two)->hash = stack_at(one)->hash; /* as if: what is compared is the content */
    CHECK(intern(1, 20, 0) == one && intern(2, 20, 0) == two); /* it came next last time, and its content is the same */
    CHECK(intern(3, 20, 0));
    uint32_t three = intern(2, 20, 0); /* looked for in the index: its hash leads past the record that was changed */
    CHECK(three && three != one && three != two);
    leakline_recording_end();
}

static void test_a_full_table_of_stacks_is_counted(void) {
#ifdef LEAKLINE_ADVICE_POPULATE /* as an old kernel: a fixed part of the file is stored */
    const uint32_t room = 20000;
#else
    const uint32_t room = LEAKLINE_STACKS;
#endif
    begin("full");
    uint32_t stacks = 0;
    while (intern(stacks + 1u, 20, 0) == stacks + 1u)
        stacks++;
    CHECK(stacks >= room && leakline_header()->stacks_full == 1);
    CHECK(intern(stacks + 2u, 20, 0) == 0 && leakline_header()->stacks_full == 2);
    CHECK(intern(77, 20, 0) == 77 && intern(stacks, 20, 0) == stacks);
    opened(5, 0);
    closing(5, 0);
    leakline_recording_end();
}

static uint32_t code(uintptr_t address, const char *file, const char *name, uint32_t line, const char *lines, uint32_t lines_length) {
    struct leakline_code_text text = {.file = file,
                                      .name = name,
                                      .file_length = (uint32_t)strlen(file),
                                      .name_length = (uint32_t)strlen(name),
                                      .first_line = line,
                                      .python_version = 0x030b07f0,
                                      .lines = (const unsigned char *)lines,
                                      .lines_length = lines_length};
    CHECK(leakline_enter());
    uint32_t number = leakline_code(address, &text);
    leakline_leave();
    return number;
}

static void test_codes_are_told_apart_by_content(void) {
    begin("codes");
    uint32_t one = code(0x1000, "a.py", "f", 1, "\1\2", 2);
    CHECK(one && code(0x1000, "a.py", "f", 1, "\1\2", 2) == one && code(0x2000, "a.py", "f", 1, "\1\2", 2) == one);
    uint32_t other = code(0x1000, "b.py", "f", 1, "\1\2", 2); /* another object at the same address */
    CHECK(other && other != one && code(0x1000, "a.py", "f", 2, "\1\2", 2) != one && code(0x1000, "a.pyf", "", 1, "\1\2", 2) != one);
    static char long_lines[200000];
    uint32_t cut = code(0x3000, "c.py", "g", 1, long_lines, sizeof long_lines);
    const struct leakline_code_record *record = (const struct leakline_code_record *)(leakline_recording.base + LEAKLINE_CODES_AT) + (cut - 1u);
    CHECK(cut && record->lines_length == 65536 && record->flags & LEAKLINE_TEXT_CUT);
    for (uint32_t line = 0; line < LEAKLINE_CODES + 10u; line++)
        code(0x1000 + line * 16u, "d.py", "h", line, "", 0);
    CHECK(leakline_header()->codes_full == 10u + 5u);
    CHECK(code(0x1000, "a.py", "f", 1, "\1\2", 2) == one && code(0x9, "e.py", "new", 1, "", 0) == 0);
    leakline_recording_end();
}

static void test_a_slot_keeps_its_open_its_close_and_its_errors(void) {
    begin("slots");
    uint32_t by = intern(1, 3, 0), closer = intern(2, 3, 0);
    uint64_t closed_before = leakline_header()->closed;
    opened(900, by);
    uint64_t generation = slot_at(900)->generation;
    CHECK(leakline_enter());
    leakline_socket_failed(900, 3, EADDRINUSE);
    leakline_socket_failed(900, 4, ECONNREFUSED);
    leakline_leave();
    CHECK(slot_at(900)->bind_error == EADDRINUSE && slot_at(900)->connect_error == ECONNREFUSED);
    CHECK(slot_at(900)->how == LEAKLINE_HOW_OPENED && slot_at(900)->tid == (uint32_t)gettid() && slot_at(900)->related == -1);
    closing(900, closer);
    CHECK(slot_at(900)->how == 0 && slot_at(900)->stack == by && slot_at(900)->close_stack == closer);
    opened(900, by);
    CHECK(slot_at(900)->generation > generation && slot_at(900)->bind_error == 0 && slot_at(900)->close_stack == closer);
    opened(900, by); /* closed where nobody saw it */
    CHECK(stack_at(by)->opened == 3 && stack_at(by)->closed == 2 && leakline_header()->closed == closed_before + 2);
    CHECK(leakline_header()->slot_bound == 901 && slot_at(900)->sequence % 2 == 0);
    CHECK(leakline_enter());
    leakline_closing_range(3, ~0u, 2, closer);
    leakline_leave();
    CHECK(slot_at(900)->how == 0 && stack_at(by)->closed == 3);
    opened(-1, by);
    opened((int)leakline_recording.slot_count, by);
    CHECK(leakline_header()->out_of_range == 2 && stack_at(by)->opened == 3);
    leakline_recording_end();
}

static void test_wrong_closes(void) {
    begin("wrong");
    uint32_t by = intern(1, 3, 0), first = intern(2, 3, 0), second = intern(3, 3, 0);
    const struct leakline_wrong_close_record *wrong =
        (const struct leakline_wrong_close_record *)(leakline_recording.base + LEAKLINE_WRONG_CLOSES_AT);
    const uint64_t *seen = &leakline_header()->wrong_closes_seen;
    close_failed(700, first); /* never open */
    CHECK(*seen == 0);
    opened(700, by);
    opened(701, by);
    closing(700, first);
    close_failed(700, second);
    CHECK(*seen == 1 && wrong[0].kind == LEAKLINE_NOTHING_OPEN && wrong[0].number == 700 && wrong[0].error == EBADF && wrong[0].stack == second);
    CHECK(wrong[0].earlier_close_stack == first && wrong[0].open_stack == by && wrong[0].sequence % 2 == 0);
    close_failed(701, first); /* the table took it for open: the earlier close was not seen */
    CHECK(*seen == 2 && wrong[1].earlier_close_stack == 0 && wrong[1].open_stack == by);
    for (int number = 600; number < 700; number++) { /* all there may be, as a daemon does */
        opened(number, by);
        closing(number, by);
    }
    for (int number = 605; number < 720; number += 1 + number % 3)
        close_failed(number, first);
    CHECK(*seen == 2 + 8 && wrong[0].kind && wrong[1].kind);
    for (int place = 2; place < 10; place++)
        CHECK(wrong[place].kind == 0);
    uint64_t before = *seen;
    close_failed(650, first); /* a pair in a loop is no sweep */
    close_failed(651, first);
    CHECK(*seen == before + 2 && wrong[before].kind && wrong[before + 1].kind);
    for (int i = 0; i < 300; i++)
        close_failed(660, i % 2 ? first : second);
    CHECK(*seen == before + 302);
    leakline_recording_end();
}

static void test_libzmqs_descriptors_are_its_own(void) {
    begin("libzmq");
    uint32_t by = intern(1, 3, 0), inside = intern(2, 3, 0), outside = intern(3, 3, 0);
    stack_at(by)->libzmq = LEAKLINE_LIBZMQ_INNERMOST | LEAKLINE_LIBZMQ_ANYWHERE;
    stack_at(inside)->libzmq = LEAKLINE_LIBZMQ_ANYWHERE;
    opened(800, by);
    closing(800, inside);
    CHECK(leakline_header()->wrong_closes_seen == 0);
    opened(800, by);
    closing(800, outside);
    const struct leakline_wrong_close_record *wrong =
        (const struct leakline_wrong_close_record *)(leakline_recording.base + LEAKLINE_WRONG_CLOSES_AT);
    CHECK(leakline_header()->wrong_closes_seen == 1 && wrong->kind == LEAKLINE_LIBRARY_OWNER && wrong->stack == outside && wrong->open_stack == by);
    leakline_recording_end();
}

static void *close_elsewhere(void *stack) {
    closing(710, *(uint32_t *)stack);
    return NULL;
}

/* The same origin closes a number twice, and another one had opened it in between: the victim's own close then finds nothing. */
static void closed_by_another_thread(bool twice) {
    uint32_t earlier = intern(4, 3, 0), by = intern(1, 3, 0), foreign = intern(2, 3, 0), own = intern(3, 3, 0);
    pthread_t thread;
    opened(710, earlier);
    closing(710, twice ? foreign : own);
    opened(710, by);
    CHECK(pthread_create(&thread, NULL, close_elsewhere, &foreign) == 0 && pthread_join(thread, NULL) == 0);
    close_failed(710, own);
    const struct leakline_wrong_close_record *wrong =
        (const struct leakline_wrong_close_record *)(leakline_recording.base + LEAKLINE_WRONG_CLOSES_AT);
    CHECK(wrong->kind == (twice ? LEAKLINE_OTHER_OWNER : LEAKLINE_NOTHING_OPEN));
    CHECK(wrong->earlier_close_stack == foreign && wrong->stack == own && wrong->open_stack == by);
}

static void test_a_descriptor_that_another_thread_closed(void) {
    begin("other");
    closed_by_another_thread(true);
    leakline_recording_end();
    begin("handed-over");
    closed_by_another_thread(false);
    leakline_recording_end();
}

static void test_a_sweep_over_numbers_that_never_were_is_no_wrong_close(void) {
    begin("sweep");
    uint32_t by = intern(1, 3, 0), sweep = intern(2, 3, 0);
    for (int number = 720; number < 722; number++) {
        opened(number, by);
        closing(number, by);
    }
    const struct leakline_wrong_close_record *wrong =
        (const struct leakline_wrong_close_record *)(leakline_recording.base + LEAKLINE_WRONG_CLOSES_AT);
    close_failed(720, sweep);
    close_failed(721, sweep);
    CHECK(wrong->kind == LEAKLINE_NOTHING_OPEN && wrong->number == 720);
    close_failed(722, sweep);
    CHECK(wrong->kind == 0);
    leakline_recording_end();
}

static void test_the_first_exhaustion_is_kept(void) {
    begin("exhausted");
    uint32_t by = intern(1, 3, 0);
    CHECK(leakline_enter());
    leakline_exhausted(EMFILE, 1, by);
    leakline_exhausted(ENFILE, 1, 0);
    leakline_leave();
    const struct leakline_recording_header *header = leakline_header();
    CHECK(header->exhausted == 2 && header->exhausted_error == EMFILE && header->exhausted_stack == by && header->exhausted_first == 1);
    leakline_recording_end();
}

static void test_what_is_open_already_is_older(void) {
    int number = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(number >= 0);
    begin("older");
    CHECK(slot_at(number)->how == LEAKLINE_HOW_OLDER && slot_at(0)->how == LEAKLINE_HOW_OLDER);
    CHECK(leakline_header()->marked == leakline_header()->generation);
    close(number);
    leakline_recording_end();
}

static void test_the_libraries_are_those_of_the_loader(void) {
    begin("libraries");
    CHECK(leakline_enter());
    struct leakline_registers here = LEAKLINE_CALLER;
    uint32_t stack = leakline_stack_here(&here);
    uint32_t own = leakline_library_of((uint64_t)(uintptr_t)&test_the_libraries_are_those_of_the_loader);
    uint32_t libc = leakline_library_of((uint64_t)(uintptr_t)dlsym(RTLD_DEFAULT, "qsort"));
    leakline_leave();
    CHECK(stack && own && libc && own != libc && leakline_library_of(1) == 0);
    const struct leakline_library_record *record = (const struct leakline_library_record *)(leakline_recording.base + LEAKLINE_LIBRARIES_AT) + (own - 1u);
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path);
    CHECK(length == (ssize_t)record->path_length && memcmp(leakline_recording.base + LEAKLINE_TEXT_AT + record->path, path, (size_t)length) == 0);
    leakline_recording_end();
}

/* --- children */

static int status_of(pid_t child) {
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_children_record_nothing(void) {
    begin("children");
    opened(400, intern(1, 3, 0));
    pid_t child = fork();
    if (child == 0)
        _exit(leakline_enter() || leakline_recording_on());
    CHECK(status_of(child) == 0);
    child = _Fork(); /* no handler is told */
    if (child == 0)
        _exit(leakline_enter() || leakline_recording_on());
    CHECK(status_of(child) == 0);
    child = vfork();
    if (child == 0)
        _exit(leakline_enter() || leakline_recording_on());
    CHECK(status_of(child) == 0);
    CHECK(leakline_recording_on() && leakline_enter()); /* the parent goes on */
    leakline_leave();
    leakline_recording_end();
}

/* In a process that may have as many, which the one that runs the tests hardly is. */
static int record_a_million(void) {
    leakline_recording.slot_count = LEAKLINE_SLOTS_HIGHEST;
    leakline_recording.size = 0; /* the next one is mapped elsewhere */
    begin("million");
    uint32_t by = intern(1, 3, 0), closer = intern(2, 3, 0);
    int highest = (int)LEAKLINE_SLOTS_HIGHEST - 1;
    CHECK(highest >= 1000000);
#ifdef LEAKLINE_ADVICE_POPULATE /* as an old kernel: room for the first 16384 is stored */
    opened(highest, by);
    CHECK(slot_at(highest)->how == 0 && stack_at(by)->opened == 0);
    opened(16383, by);
    CHECK(slot_at(16383)->how == LEAKLINE_HOW_OPENED);
    leakline_recording_end();
    return 0;
#endif
    opened(highest, by);
    opened(1000000, by);
    opened(highest + 1, by);
    CHECK(slot_at(highest)->how == LEAKLINE_HOW_OPENED && slot_at(highest)->stack == by && slot_at(1000000)->stack == by);
    CHECK(leakline_header()->slot_bound == LEAKLINE_SLOTS_HIGHEST && leakline_header()->out_of_range == 1 && stack_at(by)->opened == 2);
    closing(highest, closer);
    CHECK(leakline_enter());
    leakline_closing_range(3, ~0u, 2, closer);
    leakline_leave();
    CHECK(slot_at(highest)->how == 0 && slot_at(1000000)->how == 0 && stack_at(by)->closed == 2);
    leakline_recording_end();
    return 0;
}

static void test_descriptors_are_numbered_to_a_million(void) {
    begin("hundreds");
    leakline_recording_end();
    pid_t child = fork();
    if (child == 0)
        _exit(record_a_million());
    CHECK(status_of(child) == 0);
}

static void fork_in_handler(int signal) {
    (void)signal;
    CHECK(!leakline_enter()); /* inside */
    pid_t child = fork();
    CHECK(child >= 0);
    if (child > 0)
        CHECK(status_of(child) == 7);
}

/* The child of a signal handler goes on with what was interrupted: where its parent has the file, it has nothing. */
static void test_a_fork_in_the_middle_of_a_write(void) {
    begin("handler");
    uint32_t by = intern(1, 3, 0);
    pid_t parent = getpid();
    struct sigaction action = {.sa_handler = fork_in_handler};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    CHECK(leakline_enter());
    char *base = leakline_recording.base; /* as a register keeps it */
    raise(SIGUSR1);
    ((struct leakline_slot *)(base + LEAKLINE_SLOTS_AT))[450].stack = by;
    if (getpid() != parent)
        _exit(7);
    leakline_leave();
    CHECK(leakline_header()->skipped == 1);
    leakline_recording_end();
}

/* --- by 16 threads */

enum { THREADS = 16, ROUNDS = 3000, OWN = 20, SHARED_STACKS = 300 };

static void *churn(void *argument) {
    unsigned thread = (unsigned)(uintptr_t)argument, random = thread + 1u;
    for (unsigned round = 0; round < ROUNDS; round++) {
        random = random * 1664525u + 1013904223u;
        uint32_t stack = intern(1u + (random >> 8) % SHARED_STACKS, 20, 3);
        CHECK(stack);
        int number = 2000 + (int)(thread * OWN + (random >> 16) % OWN);
        if (slot_at(number)->how)
            closing(number, stack);
        else
            opened(number, stack);
        code(random % 64 * 16u, "file.py", "function", random % 200u, "lines", 5);
    }
    for (int number = 2000 + (int)thread * OWN; number < 2000 + (int)(thread + 1u) * OWN; number++)
        if (slot_at(number)->how)
            closing(number, 0);
    return NULL;
}

static void test_threads_agree(void) {
    begin("threads");
    pthread_t threads[THREADS];
    uint64_t open_before = leakline_header()->generation - leakline_header()->closed;
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, churn, (void *)i) == 0);
    for (unsigned i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    const struct leakline_recording_header *header = leakline_header();
    CHECK(header->generation - header->closed == open_before && header->skipped == 0);
    uint64_t total = 0;
    for (uint32_t stack = 1; stack <= header->stack_bound; stack++) {
        CHECK(stack_at(stack)->opened == stack_at(stack)->closed);
        total += stack_at(stack)->opened;
    }
    CHECK(total == header->generation - header->marked);
    for (uint64_t seed = 1; seed <= SHARED_STACKS; seed++) { /* each stack has one number, whoever came first */
        uint32_t stack = intern(seed, 20, 3);
        uint32_t used = 0;
        for (uint32_t other = 1; other <= header->stack_bound; other++)
            used += stack_at(other)->hash == stack_at(stack)->hash && stack_at(other)->opened > 0;
        CHECK(used <= 1);
    }
    leakline_recording_end();
}

int main(int count, char **arguments) {
    bool only_threads = count > 1 && strcmp(arguments[1], "threads") == 0;
    if (!only_threads) {
        test_equal_stacks_have_one_number();
        test_colliding_hashes_are_different_stacks();
        test_a_full_table_of_stacks_is_counted();
        test_codes_are_told_apart_by_content();
        test_a_slot_keeps_its_open_its_close_and_its_errors();
        test_wrong_closes();
        test_libzmqs_descriptors_are_its_own();
        test_a_descriptor_that_another_thread_closed();
        test_a_sweep_over_numbers_that_never_were_is_no_wrong_close();
        test_the_first_exhaustion_is_kept();
        test_what_is_open_already_is_older();
        test_the_libraries_are_those_of_the_loader();
        test_children_record_nothing();
        test_descriptors_are_numbered_to_a_million();
        test_a_fork_in_the_middle_of_a_write();
    }
    test_threads_agree();
    return 0;
}
