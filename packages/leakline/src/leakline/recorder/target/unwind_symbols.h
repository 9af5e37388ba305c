/* Symbols of loaded libraries, by their own tables.
 *
 * Not by dlsym: it may allocate, and a library that is linked with it where glibc is 2.34 or later cannot be loaded into an earlier one, which
 * has it in libdl (and a program need not have that).
 */
#ifndef LEAKLINE_UNWIND_SYMBOLS_H
#define LEAKLINE_UNWIND_SYMBOLS_H

#include <link.h>
#include <stdbool.h>
#include <stdint.h>

struct leakline_symbols {
    uintptr_t base;
    const ElfW(Sym) *table;
    const char *names;
    const uint16_t *versions; /* NULL: no versions */
    const uint32_t *gnu_hash;
    const uint32_t *hash;
};

/* Finds the tables of a library; false if it has none. */
bool leakline_read_symbols(const struct dl_phdr_info *library, struct leakline_symbols *symbols);
/* The function or variable of that name that the library has, in its default version; NULL if none. */
void *leakline_find_symbol_in(const struct leakline_symbols *symbols, const char *name);
/* The same in all libraries, in the order in which they were loaded. Takes the lock of dl_iterate_phdr: for the constructor. */
void *leakline_find_symbol(const char *name);

#endif
