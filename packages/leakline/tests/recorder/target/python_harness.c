/* Calls the recorder's walk of Python frames from inside any interpreter (through ctypes) and hands out what it found. Keeps the code
 * objects that the walk numbers, whole, so that a test compares them with what the interpreter says.
 */
#define _GNU_SOURCE
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "origin.h"
#include "recording.h"

#define EXPORT __attribute__((visibility("default")))

enum { CODES = 1 << 17, NATIVE = 512 };

struct code {
    struct leakline_code_text text;
    char *bytes; /* file, name, lines one after the other */
};
static struct code codes[CODES];
static uint32_t code_count, called;
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
    if (code_count == CODES)
        return 0;
    struct code *code = &codes[code_count];
    size_t size = (size_t)text->file_length + text->name_length + text->lines_length;
    code->bytes = malloc(size + 1);
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

EXPORT void walk_many(struct leakline_origin *origin, int times) {
    for (int i = 0; i < times; i++)
        leakline_python(origin);
}
