/* Points the import slots of a loaded ELF library at descriptor_hooks.c. With RELRO their page is read-only: it is made writable for the one
 * store, then read-only again.
 */
#define _GNU_SOURCE
#include "import_hook.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "descriptor_hooks.h"
#include "import_table.h"

struct search {
    const char *name;
    struct leakline_hooked *result;
    const char *symbol; /* NULL: all of leakline_hooks; else this one alone, by `function` */
    void *function;
    void **previous;
};

const char *leakline_hook_name(unsigned index) { return index < leakline_hook_count ? leakline_hooks[index].name : NULL; }

static bool name_fits(const char *path, const char *name) {
    const char *file = strrchr(path, '/');
    return strstr(strchr(name, '/') || !file ? path : file + 1, name) != NULL;
}

static int write_slot(const struct leakline_imports *library, void **slot, void *function) {
    ElfW(Addr) page_size = (ElfW(Addr))sysconf(_SC_PAGESIZE);
    void *page = (void *)((ElfW(Addr))slot & ~(page_size - 1));
    bool read_only = leakline_is_read_only(library, slot);
    if (read_only && mprotect(page, page_size, PROT_READ | PROT_WRITE) != 0)
        return errno;
    __atomic_store_n(slot, function, __ATOMIC_RELEASE);
    if (read_only)
        mprotect(page, page_size, PROT_READ);
    return 0;
}

static void hook_slot(const struct leakline_imports *library, const ElfW(Rela) *relocation, struct leakline_hooked *result) {
    const char *symbol = leakline_import_name(library, relocation);
    for (unsigned i = 0; i < leakline_hook_count; i++) {
        if (strcmp(symbol, leakline_hooks[i].name) != 0)
            continue;
        void **slot = (void **)(library->base + relocation->r_offset);
        int error = *slot == leakline_hooks[i].function ? 0 : write_slot(library, slot, leakline_hooks[i].function);
        if (error) {
            result->failed++;
            result->error = error;
        } else {
            result->slots++;
            result->functions |= UINT64_C(1) << i;
        }
        return;
    }
}

static void replace_slot(const struct leakline_imports *library, const ElfW(Rela) *relocation, struct search *search) {
    if (strcmp(leakline_import_name(library, relocation), search->symbol) != 0)
        return;
    void **slot = (void **)(library->base + relocation->r_offset);
    void *before = *slot;
    if (before != search->function && search->previous) /* first: the function may be called at once */
        __atomic_store_n(search->previous, before, __ATOMIC_RELEASE);
    int error = before == search->function ? 0 : write_slot(library, slot, search->function);
    search->result->slots += !error;
    search->result->failed += !!error;
    search->result->error = error ? error : search->result->error;
}

static int visit(struct dl_phdr_info *info, size_t size, void *data) {
    (void)size;
    struct search *search = data;
    struct leakline_imports library;
    if (!name_fits(info->dlpi_name, search->name) || !leakline_read_imports(&library, info))
        return 0;
    search->result->libraries++;
    for (int table = 0; table < 2; table++) {
        size_t count = library.tables[table] ? library.sizes[table] / sizeof(ElfW(Rela)) : 0;
        for (size_t i = 0; i < count; i++) {
            const ElfW(Rela) *relocation = &library.tables[table][i];
            if (!LEAKLINE_IS_IMPORT(ELF64_R_TYPE(relocation->r_info)))
                continue;
            if (search->symbol)
                replace_slot(&library, relocation, search);
            else
                hook_slot(&library, relocation, search->result);
        }
    }
    return 0;
}

/* dl_iterate_phdr holds a lock of the C library that fork() copies as it is (glibc 2.36: _dl_load_write_lock): the child's own first
 * look would never return. Ours is held across fork(), so no thread of ours is inside at that moment, whoever forks. */
static void look(struct search *search) {
    leakline_lock();
    dl_iterate_phdr(visit, search);
    leakline_unlock();
}

void leakline_hook_library(const char *name, struct leakline_hooked *result) {
    struct search search = {.name = name, .result = result};
    memset(result, 0, sizeof *result);
    look(&search);
}

void leakline_replace_import(const char *name, const char *symbol, void *function, void **previous,
                             struct leakline_hooked *result) {
    struct search search = {.name = name, .result = result, .symbol = symbol, .function = function, .previous = previous};
    memset(result, 0, sizeof *result);
    look(&search);
}
