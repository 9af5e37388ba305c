/* The functions that the wrappers call: libc's, or those of another library that intercepts them too.
 *
 * Not by dlsym: it may allocate, and the allocator (a preloaded one, just starting) may be who calls. Constructors of other libraries run before
 * ours, so a call may come at any time before. What is here allocates nothing and takes only the lock of dl_iterate_phdr, which may be taken again.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <link.h>
#include <string.h>

#include "intercept.h"

void *leakline_real_functions[LEAKLINE_FUNCTION_END];

struct symbols {
    uintptr_t base;
    const ElfW(Sym) *table;
    const char *names;
    const uint16_t *versions; /* NULL: no versions */
    const uint32_t *gnu_hash;
    const uint32_t *hash;
};

static uintptr_t address_in(const struct dl_phdr_info *library, uintptr_t pointer) {
    /* glibc has added the base already, except in libraries whose dynamic section is read-only. */
    return pointer < library->dlpi_addr ? pointer + library->dlpi_addr : pointer;
}

static bool find_symbols(const struct dl_phdr_info *library, struct symbols *symbols) {
    const ElfW(Dyn) *entry = NULL;
    for (int i = 0; i < library->dlpi_phnum; i++)
        if (library->dlpi_phdr[i].p_type == PT_DYNAMIC)
            entry = (const ElfW(Dyn) *)(library->dlpi_addr + library->dlpi_phdr[i].p_vaddr);
    *symbols = (struct symbols){.base = library->dlpi_addr};
    for (; entry && entry->d_tag != DT_NULL; entry++) {
        uintptr_t value = address_in(library, entry->d_un.d_ptr);
        switch (entry->d_tag) {
        case DT_SYMTAB:
            symbols->table = (const ElfW(Sym) *)value;
            break;
        case DT_STRTAB:
            symbols->names = (const char *)value;
            break;
        case DT_VERSYM:
            symbols->versions = (const uint16_t *)value;
            break;
        case DT_GNU_HASH:
            symbols->gnu_hash = (const uint32_t *)value;
            break;
        case DT_HASH:
            symbols->hash = (const uint32_t *)value;
            break;
        }
    }
    return symbols->table && symbols->names;
}

/* The address of symbol `index` if it is the function of that name in its default version; other versions are for programs of old. */
static void *function_at(const struct symbols *symbols, uint32_t index, const char *name) {
    const ElfW(Sym) *symbol = &symbols->table[index];
    if (symbol->st_shndx == SHN_UNDEF || ELF64_ST_TYPE(symbol->st_info) != STT_FUNC || ELF64_ST_BIND(symbol->st_info) == STB_LOCAL ||
        (symbols->versions && symbols->versions[index] & 0x8000) || strcmp(symbols->names + symbol->st_name, name) != 0)
        return NULL;
    return (void *)(symbols->base + symbol->st_value);
}

static uint32_t hash_of(const char *name) {
    uint32_t hash = 5381;
    for (const unsigned char *at = (const unsigned char *)name; *at; at++)
        hash = hash * 33 + *at;
    return hash;
}

/* DT_GNU_HASH: bucket count, first hashed symbol, size and shift of a filter; filter; buckets; a chain of hashes whose last has bit 0 set. */
static void *find_by_gnu_hash(const struct symbols *symbols, const char *name) {
    const uint32_t *table = symbols->gnu_hash;
    uint32_t buckets = table[0], first = table[1], filter = table[2], hash = hash_of(name);
    const uint32_t *bucket = (const uint32_t *)((const ElfW(Addr) *)(table + 4) + filter);
    const uint32_t *chain = bucket + buckets;
    uint32_t index = buckets ? bucket[hash % buckets] : 0;
    if (index < first)
        return NULL;
    for (;; index++) {
        uint32_t other = chain[index - first];
        void *found = (other | 1) == (hash | 1) ? function_at(symbols, index, name) : NULL;
        if (found || other & 1)
            return found;
    }
}

static void *find_in(const struct symbols *symbols, const char *name) {
    if (symbols->gnu_hash)
        return find_by_gnu_hash(symbols, name);
    for (uint32_t index = 1; symbols->hash && index < symbols->hash[1]; index++) {
        void *found = function_at(symbols, index, name);
        if (found)
            return found;
    }
    return NULL;
}

/* Preloaded, the real function is the next one after ours, as other preloaded libraries may have theirs. Attached, ours is last in the order of
 * libraries, and it is the first of all: the one that the target calls. */
struct search {
    enum leakline_function first, end;
    bool past_ours;
    void *before[LEAKLINE_FUNCTION_END];
    void *after[LEAKLINE_FUNCTION_END];
};

static bool holds_us(const struct dl_phdr_info *library) {
    uintptr_t address = (uintptr_t)&leakline_find_real - library->dlpi_addr;
    for (int i = 0; i < library->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &library->dlpi_phdr[i];
        if (segment->p_type == PT_LOAD && address - segment->p_vaddr < segment->p_memsz)
            return true;
    }
    return false;
}

static int search_library(struct dl_phdr_info *library, size_t size, void *argument) {
    struct search *search = argument;
    struct symbols symbols;
    (void)size;
    if (holds_us(library)) {
        search->past_ours = true;
        return 0;
    }
    if (!find_symbols(library, &symbols))
        return 0;
    void **found = search->past_ours ? search->after : search->before;
    for (unsigned function = search->first; function < search->end; function++)
        if (!found[function])
            found[function] = find_in(&symbols, leakline_interceptions[function].name);
    return 0;
}

/* A name that this libc does not have: whoever calls it has found ours, and is told what an old kernel would tell. */
static long absent(void) {
    errno = ENOSYS;
    return -1;
}

static void find(enum leakline_function first, enum leakline_function end) {
    struct search search = {.first = first, .end = end};
    dl_iterate_phdr(search_library, &search);
    for (unsigned function = first; function < end; function++) {
        void *real = search.after[function] ? search.after[function] : search.before[function];
        __atomic_store_n(&leakline_real_functions[function], real ? real : (void *)absent, __ATOMIC_RELAXED);
    }
}

/* All at once, so that later no call asks the loader, whose lock a child of fork() may have inherited locked. */
__attribute__((constructor)) void leakline_find_real_functions(void) { find(LEAKLINE_FUNCTION_NONE + 1, LEAKLINE_FUNCTION_END); }

void *leakline_find_real(enum leakline_function function) {
    find(function, function + 1);
    return __atomic_load_n(&leakline_real_functions[function], __ATOMIC_RELAXED);
}
