/* Points import slots of every loaded library at the wrappers of intercept.c, and puts them back.
 *
 * Which slots: those whose present content is libc's function, or lies in the library itself, which is a call that lazy binding has not looked
 * up yet. Any other content is somebody else's interception (datacenter's ledger in libzmq, a sanitizer), and stays.
 *
 * A library that another thread is just loading is in the list before it is relocated. Patched then, it would be relocated on top (lazy binding
 * adds the base to what is there: a wild pointer), and making its RELRO pages read-only would crash the loader in the middle. So a library with RELRO
 * is left alone until /proc/self/maps shows those pages read-only: the loader does that last, and never undoes it. The loader's own lock
 * must not be waited for: its holder may be a constructor that waits for this very thread.
 */
#define _GNU_SOURCE
#include "patch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "../native/import_table.h"
#include "at_fork.h"
#include "intercept.h"
#include "recording_private.h"
#include "system_calls.h"
#include "unwind_libraries.h"

#define NAMES 1024  /* places in the table of names: a power of two, sparse */
#define SLOTS 65536 /* places for remembered slots: a power of two; what has no room is not patched */
#define LIBRARIES 4096
#define C_LIBRARIES 8

struct range {
    ElfW(Addr) start, end;
};

struct remembered {
    void **slot;
    void *before;
};

struct read_only {
    ElfW(Addr) start;
    bool done; /* the loader has finished with the library */
};

static bool held;                /* the lock; over fork() too, see before_fork */
static __thread bool walking;   /* this thread holds it: a signal handler must not wait for it */
static bool patching;
static uint32_t patched;
static uint16_t names[NAMES]; /* function numbers, by the hash of their name */
static struct remembered remembered[SLOTS];

/* One walk. `relro` is sorted by address, as the maps are. */
static struct range c_libraries[C_LIBRARIES];
static unsigned c_library_count;
static struct read_only relro[LIBRARIES];
static unsigned relro_count;
static bool relro_known, unfinished, has_dlsym;
static unsigned long long unloaded; /* libraries, as dl_iterate_phdr counts */
static uint64_t walked;                     /* the generation that was patched whole */

static bool try_lock(void) { return !__atomic_exchange_n(&held, true, __ATOMIC_ACQUIRE); }
static void unlock(void) { __atomic_store_n(&held, false, __ATOMIC_RELEASE); }

static void lock(void) { /* for the time of a walk */
    while (!try_lock())
        leakline_call0(SYS_sched_yield);
}

/* --- names */

static uint32_t hash_of(const char *name) {
    uint32_t hash = 5381;
    for (const unsigned char *at = (const unsigned char *)name; *at; at++)
        hash = hash * 33 + *at;
    return hash ^ hash >> 15;
}

static void learn_names(void) {
    if (names[0] || patching)
        return;
    for (uint16_t function = 1; function < LEAKLINE_FUNCTION_END; function++) {
        uint32_t place = hash_of(leakline_interceptions[function].name) & (NAMES - 1);
        while (names[place] && names[place] != function)
            place = (place + 1) & (NAMES - 1);
        names[place] = function;
    }
}
_Static_assert(LEAKLINE_FUNCTION_END < NAMES / 2, "the table of names stays sparse");

/* The wrapper of a function of that name, and libc's own in *real; NULL: none. */
static void *wrapper_of(const char *name, void **real) {
    for (uint32_t place = hash_of(name) & (NAMES - 1); names[place]; place = (place + 1) & (NAMES - 1)) {
        uint16_t function = names[place];
        if (strcmp(leakline_interceptions[function].name, name) == 0) {
            *real = leakline_real(function);
            return leakline_interceptions[function].replacement;
        }
    }
    *real = NULL;
    return has_dlsym && strcmp(name, "dlsym") == 0 ? (void *)leakline_intercept_dlsym : NULL;
}

/* --- what was there */

static struct remembered *place_of(void **slot) {
    uint32_t place = (uint32_t)((uintptr_t)slot >> 3) * 2654435761u >> 16;
    for (uint32_t tries = 0; tries < 256; tries++, place++) {
        struct remembered *found = &remembered[place & (SLOTS - 1)];
        if (!found->slot || found->slot == slot)
            return found;
    }
    return NULL;
}

/* --- which libraries */

/* libc and what belongs to it call each other as they are built to; the loader and the vdso import nothing of use. */
static bool belongs_to_libc(const char *path) {
    static const char *const beginnings[] = {"libc.so", "libc-", "libpthread", "libdl.", "libdl-", "librt.", "librt-", "ld-", "ld64", "linux-vdso"};
    const char *file = strrchr(path, '/');
    file = file ? file + 1 : path;
    for (unsigned i = 0; i < sizeof beginnings / sizeof *beginnings; i++)
        if (strncmp(file, beginnings[i], strlen(beginnings[i])) == 0)
            return true;
    return false;
}

static bool holds(const struct leakline_imports *imports, const void *address) {
    return (ElfW(Addr))address >= imports->start && (ElfW(Addr))address < imports->end;
}

static bool in_c_library(const void *address) {
    for (unsigned i = 0; i < c_library_count; i++)
        if ((ElfW(Addr))address >= c_libraries[i].start && (ElfW(Addr))address < c_libraries[i].end)
            return true;
    return false;
}

static int survey(struct dl_phdr_info *info, size_t size, void *argument) {
    struct leakline_imports imports;
    (void)size, (void)argument;
    bool named = leakline_read_imports(&imports, info);
    unloaded = info->dlpi_subs;
    if (belongs_to_libc(info->dlpi_name)) {
        if (c_library_count < C_LIBRARIES)
            c_libraries[c_library_count++] = (struct range){imports.start, imports.end};
        return 0;
    }
    if (!named || imports.read_only_start >= imports.read_only_end || relro_count == LIBRARIES)
        return 0;
    unsigned place = relro_count++;
    for (; place > 0 && relro[place - 1].start > imports.read_only_start; place--)
        relro[place] = relro[place - 1];
    relro[place] = (struct read_only){imports.read_only_start, false};
    return 0;
}

/* --- /proc/self/maps */

struct line {
    ElfW(Addr) start, end;
    char permission; /* the second: 'w' or '-' */
    int field;
};

static void use_line(const struct line *line, unsigned *next) {
    for (; *next < relro_count && relro[*next].start < line->end; ++*next)
        if (relro[*next].start >= line->start)
            relro[*next].done = line->permission == '-';
}

/* One byte of "start-end rwxp …\n". */
static void read_byte(struct line *line, char byte, unsigned *next) {
    if (byte == '\n') {
        use_line(line, next);
        *line = (struct line){0};
        return;
    }
    ElfW(Addr) digit = (ElfW(Addr))(byte <= '9' ? byte - '0' : byte - 'a' + 10);
    if (line->field == 0 && byte != '-')
        line->start = line->start << 4 | digit;
    else if (line->field == 1 && byte != ' ')
        line->end = line->end << 4 | digit;
    else if (line->field == 3)
        line->permission = byte;
    line->field += line->field >= 2 || byte == '-' || byte == ' ';
}

/* False where there is no /proc (a chroot). */
static bool look_at_maps(void) {
    static char buffer[4096];
    struct line line = {0};
    unsigned next = 0;
    long length, file = leakline_call4(SYS_openat, AT_FDCWD, (long)"/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
    if (file < 0)
        return false;
    while ((length = leakline_call3(SYS_read, file, (long)buffer, sizeof buffer)) > 0)
        for (long at = 0; at < length; at++)
            read_byte(&line, buffer[at], &next);
    leakline_call3(SYS_close, file, 0, 0);
    return true;
}

/* Whether the loader has finished with a library: 1, not yet: 0. Without /proc, or without RELRO, the content of slots has to tell. */
static bool is_finished(const struct leakline_imports *imports) {
    if (imports->read_only_start >= imports->read_only_end || !relro_known)
        return true;
    for (unsigned low = 0, high = relro_count; low < high;) {
        unsigned middle = (low + high) / 2;
        if (relro[middle].start == imports->read_only_start)
            return relro[middle].done;
        if (relro[middle].start < imports->read_only_start)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

/* --- slots */

struct visit {
    const struct leakline_imports *imports;
    bool restoring, writable;
};

/* Makes the RELRO pages writable before the first store to them. */
static bool make_writable(struct visit *visit, const void *slot) {
    const struct leakline_imports *imports = visit->imports;
    if (!leakline_is_read_only(imports, slot) || visit->writable)
        return true;
    size_t size = imports->read_only_end - imports->read_only_start;
    visit->writable = leakline_call3(SYS_mprotect, (long)imports->read_only_start, (long)size, PROT_READ | PROT_WRITE) == 0;
    return visit->writable;
}

static void patch_slot(struct visit *visit, void **slot, void *wrapper, const void *real, bool call) {
    void *before = __atomic_load_n(slot, __ATOMIC_RELAXED);
    if (before == wrapper || before == NULL) /* NULL: a weak function that this libc does not have, which the program asks for */
        return;
    bool of_libc = before == real || in_c_library(before);
    bool lazy = call && holds(visit->imports, before);
    struct remembered *place = of_libc || lazy ? place_of(slot) : NULL;
    if (!place || !make_writable(visit, slot))
        return;
    *place = (struct remembered){slot, before};
    __atomic_store_n(slot, wrapper, __ATOMIC_RELEASE);
    patched++;
}

static void restore_slot(struct visit *visit, void **slot, void *wrapper) {
    struct remembered *place = place_of(slot);
    if (!place || !place->slot || __atomic_load_n(slot, __ATOMIC_RELAXED) != wrapper || !make_writable(visit, slot))
        return;
    __atomic_store_n(slot, place->before, __ATOMIC_RELEASE);
    patched--;
}

static void visit_relocation(struct visit *visit, const ElfW(Rela) *relocation) {
    uint32_t type = ELF64_R_TYPE(relocation->r_info);
    void **slot = (void **)(visit->imports->base + relocation->r_offset);
    if (!LEAKLINE_IS_IMPORT(type) && (!LEAKLINE_IS_POINTER(type) || relocation->r_addend != 0 || (uintptr_t)slot % sizeof *slot != 0))
        return;
    if (visit->imports->symbols[ELF64_R_SYM(relocation->r_info)].st_shndx != SHN_UNDEF) /* a function of its own, of that name */
        return;
    void *real, *wrapper = wrapper_of(leakline_import_name(visit->imports, relocation), &real);
    if (!wrapper)
        return;
    if (visit->restoring)
        restore_slot(visit, slot, wrapper);
    else
        patch_slot(visit, slot, wrapper, real, LEAKLINE_IS_CALL(type));
}

static int visit_library(struct dl_phdr_info *info, size_t size, void *argument) {
    struct leakline_imports imports;
    struct visit visit = {.imports = &imports, .restoring = *(const bool *)argument};
    (void)size;
    if (!leakline_read_imports(&imports, info) || belongs_to_libc(info->dlpi_name) || holds(&imports, (const void *)&held))
        return 0;
    if (!visit.restoring && (info->dlpi_subs != unloaded || !is_finished(&imports))) {
        unfinished = true;
        return 0;
    }
    for (int table = 0; table < 2; table++) {
        size_t count = imports.tables[table] ? imports.sizes[table] / sizeof(ElfW(Rela)) : 0;
        for (size_t i = table == 0 ? imports.relative : 0; i < count; i++)
            visit_relocation(&visit, &imports.tables[table][i]);
    }
    if (visit.writable)
        leakline_call3(SYS_mprotect, (long)imports.read_only_start, (long)(imports.read_only_end - imports.read_only_start), PROT_READ);
    return 0;
}

/* --- all libraries */

static void walk(bool restoring) {
    c_library_count = relro_count = 0;
    unfinished = false;
    walking = true;
    if (!restoring) {
        has_dlsym = leakline_find_dlsym();
        dl_iterate_phdr(survey, NULL);
        relro_known = look_at_maps();
    }
    dl_iterate_phdr(visit_library, &restoring);
    walking = false;
}

/* dl_iterate_phdr holds a lock of the C library that fork() copies as it is (glibc 2.36: _dl_load_write_lock): the child's own first look would
 * never return. Ours is held over fork(), so none of our walks is inside at that moment; whether one of the target's was is asked at each walk. */
static void before_fork(void) {
    if (!walking)
        lock();
}

static void after_fork(void) {
    if (!walking)
        unlock();
}

int leakline_patch_begin(void) {
    static bool handlers;
    if (!handlers && leakline_at_fork(before_fork, after_fork, after_fork) != 0)
        return -ENOMEM;
    handlers = true;
    leakline_find_real_functions();
    lock();
    learn_names();
    __atomic_store_n(&patching, true, __ATOMIC_RELEASE);
    uint64_t generation = leakline_libraries_generation();
    walk(false);
    walked = unfinished ? 0 : generation;
    unlock();
    return 0;
}

bool leakline_patch_all(void) {
    if (!__atomic_load_n(&patching, __ATOMIC_ACQUIRE))
        return true;
    if (walking || !leakline_loader_answers())
        return false;
    uint64_t signals = leakline_block_signals();
    if (!try_lock()) {
        leakline_restore_signals(signals);
        return false;
    }
    uint64_t generation = leakline_libraries_generation();
    bool done = !patching || generation == walked || leakline_sealed; /* a filter may kill who opens /proc/self/maps */
    if (!done) {
        walk(false);
        done = !unfinished;
        walked = done ? generation : 0;
    }
    unlock();
    leakline_restore_signals(signals);
    return done;
}

void leakline_patch_restore(void) {
    lock();
    __atomic_store_n(&patching, false, __ATOMIC_RELEASE);
    walk(true);
    memset(remembered, 0, sizeof remembered);
    patched = 0;
    unlock();
}

uint32_t leakline_patched_slots(void) { return __atomic_load_n(&patched, __ATOMIC_RELAXED); }
