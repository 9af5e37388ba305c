/* Calls the recorder's walk of Python frames from inside any interpreter (through ctypes) and hands out what it found. Keeps the code
 * objects that the walk numbers, whole, so that a test compares them with what the interpreter says.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>

#include "origin.h"
#include "recording.h"

#define EXPORT __attribute__((visibility("default")))

enum { CODES = 1 << 18, NATIVE = 512 };

struct code {
    struct leakline_code_text text;
    char *bytes; /* file, name, lines one after the other */
};
bool leakline_sealed; /* recording_storage.c has it: no seccomp filter here */
static struct code codes[CODES];
static uint32_t code_count, called;
static char bytes[1 << 26]; /* not malloc's: a walk may have interrupted malloc in this very thread */
static size_t bytes_used;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool same(const struct code *code, const struct leakline_code_text *text) {
    const struct leakline_code_text *kept = &code->text;
    return kept->file_length == text->file_length && kept->name_length == text->name_length && kept->lines_length == text->lines_length &&
           kept->first_line == text->first_line && kept->flags == text->flags && memcmp(kept->file, text->file, text->file_length) == 0 &&
           memcmp(kept->name, text->name, text->name_length) == 0 && memcmp(kept->lines, text->lines, text->lines_length) == 0;
}

static uint32_t keep(const struct leakline_code_text *text) {
    for (uint32_t i = code_count; i-- > 0 && i + 4096 > code_count;)
        if (same(&codes[i], text))
            return i + 1;
    size_t size = (size_t)text->file_length + text->name_length + text->lines_length;
    if (code_count == CODES || size > sizeof bytes - bytes_used)
        return 0;
    struct code *code = &codes[code_count];
    code->bytes = bytes + bytes_used;
    bytes_used += size;
    code->text = *text;
    code->text.file = memcpy(code->bytes, text->file, text->file_length);
    code->text.name = memcpy(code->bytes + text->file_length, text->name, text->name_length);
    code->text.lines = memcpy(code->bytes + text->file_length + text->name_length, text->lines, text->lines_length);
    return ++code_count;
}

uint32_t leakline_code(uintptr_t address, const struct leakline_code_text *text) {
    (void)address;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pthread_mutex_lock(&lock);
    called++;
    uint32_t number = keep(text);
    pthread_mutex_unlock(&lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return number;
}

const char *leakline_code_stored(uint32_t number, uint32_t lengths[3]) {
    const struct code *code = &codes[number - 1];
    lengths[0] = code->text.file_length, lengths[1] = code->text.name_length, lengths[2] = code->text.lines_length;
    return code->bytes;
}

EXPORT const struct leakline_code_text *code_text(uint32_t number) { return number && number <= code_count ? &codes[number - 1].text : NULL; }
EXPORT uint32_t code_calls(void) { return called; }
EXPORT void prepare(void) { leakline_python_prepare(); }
EXPORT void forget(void) { leakline_python_forget(); }
EXPORT uint32_t version(void) { return leakline_python_version(); }

/* The walk, and how many native frames lie in the evaluation function: as many as frames that are entries. -1: not known. */
EXPORT int capture(struct leakline_origin *origin) {
    void *native[NATIVE];
    struct leakline_range ranges[8];
    memset(origin, 0, sizeof *origin);
    leakline_python(origin);
    size_t count = leakline_python_eval_ranges(ranges, 8);
    int depth = backtrace(native, NATIVE), evaluations = 0;
    for (int i = 0; i < depth; i++)
        for (size_t j = 0; j < count; j++)
            evaluations += (uintptr_t)native[i] - 1 >= ranges[j].start && (uintptr_t)native[i] - 1 < ranges[j].end;
    return count && depth < NATIVE ? evaluations : -1;
}

/* The walk alone, as after a change of the loaded libraries if the generation is another one. */
EXPORT void capture_at(struct leakline_origin *origin, uint64_t generation) {
    memset(origin, 0, sizeof *origin);
    origin->generation = generation;
    leakline_python(origin);
}

EXPORT void walk_many(struct leakline_origin *origin, int times) {
    for (int i = 0; i < times; i++)
        leakline_python(origin);
}

/* "file:name" of the innermost Python frame, that is of the function that calls this. */
EXPORT int innermost(char *text, int size) {
    struct leakline_origin origin = {0};
    leakline_python(&origin);
    const struct leakline_code_text *code = origin.python_count ? code_text(origin.python[0].code) : NULL;
    if (!code || (int)(code->file_length + code->name_length) + 2 > size)
        return -1;
    memcpy(text, code->file, code->file_length);
    text[code->file_length] = ':';
    memcpy(text + code->file_length + 1, code->name, code->name_length);
    return (int)(code->file_length + code->name_length) + 1;
}

/* --- walks in a signal handler, between any two instructions of the interpreter */
enum { INTERRUPTED = 20000 };
static struct leakline_origin interrupted[INTERRUPTED];
static int interrupted_count;

static void on_timer(int number) {
    (void)number;
    int error = errno, place = __atomic_fetch_add(&interrupted_count, 1, __ATOMIC_RELAXED);
    if (place < INTERRUPTED)
        leakline_python(&interrupted[place]);
    errno = error;
}

EXPORT void arm(int microseconds) {
    struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
    struct itimerval every = {{0, microseconds}, {0, microseconds}};
    sigaction(SIGPROF, &action, NULL);
    setitimer(ITIMER_PROF, &every, NULL);
}
EXPORT const struct leakline_origin *interruptions(int *count) {
    *count = interrupted_count < INTERRUPTED ? interrupted_count : INTERRUPTED;
    return interrupted;
}

/* --- a thread that Python does not know, which calls into Python */
struct foreign {
    void (*callback)(void);
    int before, after;
};

static void *run_foreign(void *argument) {
    struct foreign *foreign = argument;
    struct leakline_origin origin = {0};
    leakline_python(&origin);
    foreign->before = origin.python_count | (int)origin.flags;
    foreign->callback();
    leakline_python(&origin);
    foreign->after = origin.python_count | (int)origin.flags;
    return NULL;
}

/* How many frames the thread had outside of the callback: 0. */
EXPORT int call_in_thread(void (*callback)(void)) {
    struct foreign foreign = {.callback = callback};
    pthread_t thread;
    if (pthread_create(&thread, NULL, run_foreign, &foreign) != 0)
        return -1;
    pthread_join(thread, NULL);
    return foreign.before + foreign.after;
}
