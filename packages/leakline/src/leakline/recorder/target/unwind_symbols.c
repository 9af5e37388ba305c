/* Symbols of loaded libraries, read from their own tables (unwind_symbols.h). Nothing is allocated. */
#define _GNU_SOURCE
#include "unwind_symbols.h"

#include <string.h>

static uintptr_t address_in(const struct dl_phdr_info *library, uintptr_t pointer) {
    /* glibc has added the base already, except in libraries whose dynamic section is read-only. */
    return pointer < library->dlpi_addr ? pointer + library->dlpi_addr : pointer;
}

bool leakline_read_symbols(const struct dl_phdr_info *library, struct leakline_symbols *symbols) {
    const ElfW(Dyn) *entry = NULL;
    for (int i = 0; i < library->dlpi_phnum; i++)
        if (library->dlpi_phdr[i].p_type == PT_DYNAMIC)
            entry = (const ElfW(Dyn) *)(library->dlpi_addr + library->dlpi_phdr[i].p_vaddr);
    *symbols = (struct leakline_symbols){.base = library->dlpi_addr};
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

/* The address of symbol `index` if it is the function or variable of that name in its default version; other versions are for programs of old. */
static void *symbol_at(const struct leakline_symbols *symbols, uint32_t index, const char *name) {
    const ElfW(Sym) *symbol = &symbols->table[index];
    unsigned type = ELF64_ST_TYPE(symbol->st_info);
    if (symbol->st_shndx == SHN_UNDEF || (type != STT_FUNC && type != STT_OBJECT) || ELF64_ST_BIND(symbol->st_info) == STB_LOCAL ||
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
static void *find_by_gnu_hash(const struct leakline_symbols *symbols, const char *name) {
    const uint32_t *table = symbols->gnu_hash;
    uint32_t buckets = table[0], first = table[1], filter = table[2], hash = hash_of(name);
    const uint32_t *bucket = (const uint32_t *)((const ElfW(Addr) *)(table + 4) + filter);
    const uint32_t *chain = bucket + buckets;
    uint32_t index = buckets ? bucket[hash % buckets] : 0;
    if (index < first)
        return NULL;
    for (;; index++) {
        uint32_t other = chain[index - first];
        void *found = (other | 1) == (hash | 1) ? symbol_at(symbols, index, name) : NULL;
        if (found || other & 1)
            return found;
    }
}

void *leakline_find_symbol_in(const struct leakline_symbols *symbols, const char *name) {
    if (symbols->gnu_hash)
        return find_by_gnu_hash(symbols, name);
    for (uint32_t index = 1; symbols->hash && index < symbols->hash[1]; index++) {
        void *found = symbol_at(symbols, index, name);
        if (found)
            return found;
    }
    return NULL;
}

/* --- in any library */

struct search {
    const char *name;
    void *found;
};

static int search_library(struct dl_phdr_info *library, size_t size, void *argument) {
    struct search *search = argument;
    struct leakline_symbols symbols;
    (void)size;
    if (leakline_read_symbols(library, &symbols))
        search->found = leakline_find_symbol_in(&symbols, search->name);
    return search->found != NULL;
}

void *leakline_find_symbol(const char *name) {
    struct search search = {.name = name};
    dl_iterate_phdr(search_library, &search);
    return search.found;
}
