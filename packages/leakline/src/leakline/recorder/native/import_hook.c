/* Finds the import slots of a loaded ELF library and points them at descriptor_hooks.c. x86_64 and aarch64.
 *
 * A slot is named by a relocation: JUMP_SLOT (a call through the PLT) or GLOB_DAT (its address was taken, or -fno-plt). With RELRO
 * the loader has made the page read-only: it is made writable for the one store, then read-only again.
 */
#define _GNU_SOURCE
#include "import_hook.h"

#include <errno.h>
#include <link.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "descriptor_hooks.h"

#if defined(__x86_64__)
#define IS_IMPORT(type) ((type) == R_X86_64_JUMP_SLOT || (type) == R_X86_64_GLOB_DAT)
#elif defined(__aarch64__)
#define IS_IMPORT(type) ((type) == R_AARCH64_JUMP_SLOT || (type) == R_AARCH64_GLOB_DAT)
#else
#error "leakline's import hooks know x86_64 and aarch64"
#endif

struct search {
    const char *name;
    struct leakline_hooked *result;
    const char *symbol; /* NULL: all of leakline_hooks; else this one alone, by `function` */
    void *function;
    void **previous;
};

struct library {
    ElfW(Addr) base;
    ElfW(Addr) read_only_start, read_only_end; /* RELRO */
    const ElfW(Sym) *symbols;
    const char *strings;
    const ElfW(Rela) *tables[2]; /* DT_RELA, DT_JMPREL */
    size_t sizes[2];
};

const char *leakline_hook_name(unsigned index) { return index < leakline_hook_count ? leakline_hooks[index].name : NULL; }

static bool name_fits(const char *path, const char *name) {
    const char *file = strrchr(path, '/');
    return strstr(strchr(name, '/') || !file ? path : file + 1, name) != NULL;
}

/* glibc has made these entries absolute, musl leaves them relative to the base. */
static const void *dynamic_pointer(const struct library *library, ElfW(Addr) value) {
    return (const void *)(value < library->base ? library->base + value : value);
}

static void read_dynamic(struct library *library, const ElfW(Dyn) *entry) {
    for (; entry->d_tag != DT_NULL; entry++) {
        switch (entry->d_tag) {
        case DT_SYMTAB:
            library->symbols = dynamic_pointer(library, entry->d_un.d_ptr);
            break;
        case DT_STRTAB:
            library->strings = dynamic_pointer(library, entry->d_un.d_ptr);
            break;
        case DT_RELA:
            library->tables[0] = dynamic_pointer(library, entry->d_un.d_ptr);
            break;
        case DT_RELASZ:
            library->sizes[0] = entry->d_un.d_val;
            break;
        case DT_JMPREL:
            library->tables[1] = dynamic_pointer(library, entry->d_un.d_ptr);
            break;
        case DT_PLTRELSZ:
            library->sizes[1] = entry->d_un.d_val;
            break;
        }
    }
}

static bool read_library(struct library *library, const struct dl_phdr_info *info) {
    ElfW(Addr) page = (ElfW(Addr))sysconf(_SC_PAGESIZE);
    library->base = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        ElfW(Addr) start = library->base + header->p_vaddr;
        if (header->p_type == PT_DYNAMIC)
            read_dynamic(library, (const ElfW(Dyn) *)start);
        if (header->p_type == PT_GNU_RELRO) { /* rounded as the loader does: the last, partial page stays writable */
            library->read_only_start = start & ~(page - 1);
            library->read_only_end = (start + header->p_memsz) & ~(page - 1);
        }
    }
    return library->symbols && library->strings;
}

static int write_slot(const struct library *library, void **slot, void *function) {
    ElfW(Addr) page_size = (ElfW(Addr))sysconf(_SC_PAGESIZE);
    void *page = (void *)((ElfW(Addr))slot & ~(page_size - 1));
    bool read_only = (ElfW(Addr))slot >= library->read_only_start && (ElfW(Addr))slot < library->read_only_end;
    if (read_only && mprotect(page, page_size, PROT_READ | PROT_WRITE) != 0)
        return errno;
    __atomic_store_n(slot, function, __ATOMIC_RELEASE);
    if (read_only)
        mprotect(page, page_size, PROT_READ);
    return 0;
}

static void hook_slot(const struct library *library, const ElfW(Rela) *relocation, struct leakline_hooked *result) {
    const char *symbol = library->strings + library->symbols[ELF64_R_SYM(relocation->r_info)].st_name;
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

static void replace_slot(const struct library *library, const ElfW(Rela) *relocation, struct search *search) {
    if (strcmp(library->strings + library->symbols[ELF64_R_SYM(relocation->r_info)].st_name, search->symbol) != 0)
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
    struct library library = {0};
    if (!name_fits(info->dlpi_name, search->name) || !read_library(&library, info))
        return 0;
    search->result->libraries++;
    for (int table = 0; table < 2; table++) {
        size_t count = library.tables[table] ? library.sizes[table] / sizeof(ElfW(Rela)) : 0;
        for (size_t i = 0; i < count; i++) {
            const ElfW(Rela) *relocation = &library.tables[table][i];
            if (!IS_IMPORT(ELF64_R_TYPE(relocation->r_info)))
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
