/* The libraries that were loaded while stacks were recorded: which file an address is in. One that was unloaded stays listed.
 *
 * dl_iterate_phdr holds a lock of the loader, whose holder may be a callback of the target that opens a file, and which a child of fork() may
 * have inherited held by nobody. So nobody waits here for another thread without a bound: of a stack that comes at such a moment, the
 * libraries are those that _dl_find_object knows, and unknown before glibc 2.35.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <string.h>
#include <sys/auxv.h>

#include "recording_private.h"
#include "system_calls.h"
#include "unwind_libraries.h"

#define SPINS 100000u

static bool lock;
static uint64_t known; /* the table is that of this generation, less one: 0 is never */
static unsigned char seen[LEAKLINE_LIBRARIES], is_libzmq[LEAKLINE_LIBRARIES];

static struct leakline_library_record *record_at(uint32_t library) {
    return (struct leakline_library_record *)(leakline_recording.base + LEAKLINE_LIBRARIES_AT) + (library - 1u);
}

void leakline_libraries_forget(void) {
    lock = false;
    known = 0;
    memset(is_libzmq, 0, sizeof is_libzmq);
}

uint32_t leakline_library_of(uint64_t address) {
    uint32_t bound = __atomic_load_n(&leakline_header()->library_bound, __ATOMIC_ACQUIRE);
    for (uint32_t library = 1; library <= bound; library++) {
        const struct leakline_library_record *record = record_at(library);
        if (address >= record->start && address < record->end && !__atomic_load_n(&record->unloaded, __ATOMIC_RELAXED))
            return library;
    }
    return 0;
}

bool leakline_library_is_libzmq(uint32_t number) { return number != 0 && is_libzmq[number - 1u]; }

/* --- what the loader says of one */

struct module {
    struct leakline_library_record record;
    char path[PATH_MAX];
};

static void find_build_id(struct module *module, const char *notes, uint64_t size) {
    for (uint64_t at = 0; at + sizeof(ElfW(Nhdr)) <= size;) {
        const ElfW(Nhdr) *note = (const ElfW(Nhdr) *)(notes + at);
        uint64_t name = at + sizeof *note, text = name + ((note->n_namesz + 3u) & ~3u);
        if (text > size || note->n_descsz > size - text)
            return;
        if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 && memcmp(notes + name, "GNU", 4) == 0) {
            uint32_t length = note->n_descsz < sizeof module->record.build_id ? note->n_descsz : (uint32_t)sizeof module->record.build_id;
            memcpy(module->record.build_id, notes + text, length);
            module->record.build_id_length = length;
            return;
        }
        at = text + ((note->n_descsz + 3u) & ~3u);
    }
}

static void describe(const struct dl_phdr_info *info, struct module *module) {
    struct leakline_library_record *record = &module->record;
    memset(record, 0, sizeof *record);
    record->bias = info->dlpi_addr;
    record->start = UINT64_MAX;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uint64_t start = info->dlpi_addr + header->p_vaddr;
        if (header->p_type == PT_LOAD) {
            record->start = start < record->start ? start : record->start;
            record->end = start + header->p_memsz > record->end ? start + header->p_memsz : record->end;
        } else if (header->p_type == PT_NOTE && record->build_id_length == 0) {
            find_build_id(module, (const char *)start, header->p_memsz);
        }
    }
    long length = -1;
    if (!info->dlpi_name || info->dlpi_name[0] == '\0' || (uint64_t)info->dlpi_phdr == getauxval(AT_PHDR)) { /* the program; musl has argv[0] */
        length = leakline_call4(SYS_readlinkat, AT_FDCWD, (long)"/proc/self/exe", (long)module->path, sizeof module->path);
    } else {
        length = (long)strnlen(info->dlpi_name, sizeof module->path);
        memcpy(module->path, info->dlpi_name, (size_t)length);
    }
    record->path_length = length > 0 ? (uint32_t)length : 0;
}

/* --- the table */

static bool is_same(const struct leakline_library_record *record, const struct module *module) {
    const struct leakline_library_record *other = &module->record;
    return record->start == other->start && record->end == other->end && record->bias == other->bias &&
           record->path_length == other->path_length && record->build_id_length == other->build_id_length &&
           memcmp(record->build_id, other->build_id, sizeof record->build_id) == 0 &&
           memcmp(leakline_recording.base + LEAKLINE_TEXT_AT + record->path, module->path, record->path_length) == 0 &&
           (!record->unloaded || record->build_id_length != 0); /* without one it may be another file by now */
}

static uint32_t add(struct module *module, uint64_t generation) {
    struct leakline_recording_header *header = leakline_header();
    uint32_t index = header->library_bound;
    uint64_t text = UINT64_MAX;
    if (index < LEAKLINE_LIBRARIES && leakline_stored(LEAKLINE_LIBRARIES_AT + index * sizeof module->record, sizeof module->record))
        text = leakline_text_room(module->record.path_length);
    if (text == UINT64_MAX) {
        __atomic_fetch_add(&header->libraries_full, 1, __ATOMIC_RELAXED);
        return 0;
    }
    memcpy(leakline_recording.base + LEAKLINE_TEXT_AT + text, module->path, module->record.path_length);
    module->record.path = text;
    module->record.loaded_at_generation = generation;
    module->record.state = LEAKLINE_RECORD_READY;
    *record_at(index + 1u) = module->record;
    const char *slash = memrchr(module->path, '/', module->record.path_length), *name = slash ? slash + 1 : module->path;
    uint64_t length = (uint64_t)(module->path + module->record.path_length - name);
    is_libzmq[index] = length >= 6 && memcmp(name, "libzmq", 6) == 0;
    seen[index] = 1;
    __atomic_store_n(&header->library_bound, index + 1u, __ATOMIC_RELEASE);
    return index + 1u;
}

/* Its number; 0: no room for it. */
static uint32_t place(const struct dl_phdr_info *info, uint64_t generation) {
    static struct module module; /* LOCKED, and too large for a small stack */
    describe(info, &module);
    if (module.record.end == 0)
        return 0;
    uint32_t bound = leakline_header()->library_bound;
    for (uint32_t library = 1; library <= bound; library++) {
        if (!seen[library - 1u] && is_same(record_at(library), &module)) {
            seen[library - 1u] = 1;
            __atomic_store_n(&record_at(library)->unloaded, 0, __ATOMIC_RELAXED);
            return library;
        }
    }
    return add(&module, generation);
}

static int visit(struct dl_phdr_info *info, size_t size, void *generation) {
    (void)size;
    place(info, *(uint64_t *)generation);
    return 0;
}

static bool take_lock(void) {
    for (uint32_t spins = 0; spins < SPINS; spins++) {
        if (!__atomic_exchange_n(&lock, true, __ATOMIC_ACQUIRE))
            return true;
        leakline_pause();
    }
    return false;
}

bool leakline_libraries_refresh(uint64_t generation) {
    if (__atomic_load_n(&known, __ATOMIC_ACQUIRE) > generation)
        return true;
    uint64_t signals = leakline_block_signals();
    if (!take_lock()) {
        leakline_restore_signals(signals);
        return false;
    }
    bool answers = known > generation || leakline_loader_answers();
    if (known <= generation && answers) {
        uint64_t now = leakline_libraries_generation();
        memset(seen, 0, sizeof seen);
        dl_iterate_phdr(visit, &now);
        for (uint32_t library = 1; library <= leakline_header()->library_bound; library++)
            if (!seen[library - 1u])
                __atomic_store_n(&record_at(library)->unloaded, 1, __ATOMIC_RELAXED);
        __atomic_store_n(&known, (now > generation ? now : generation) + 1u, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&lock, false, __ATOMIC_RELEASE);
    leakline_restore_signals(signals);
    return answers;
}

uint32_t leakline_library_learn(uint64_t address, uint64_t generation) {
    struct dl_phdr_info info;
    if (!leakline_describe_library(address, &info))
        return 0;
    uint64_t signals = leakline_block_signals();
    uint32_t library = 0;
    if (!__atomic_exchange_n(&lock, true, __ATOMIC_ACQUIRE)) {
        memset(seen, 0, sizeof seen);
        library = place(&info, generation);
        __atomic_store_n(&lock, false, __ATOMIC_RELEASE);
    }
    leakline_restore_signals(signals);
    return library;
}
