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
#include "unwind_symbols.h"

void *leakline_real_functions[LEAKLINE_FUNCTION_END];

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
    struct leakline_symbols symbols;
    (void)size;
    if (holds_us(library)) {
        search->past_ours = true;
        return 0;
    }
    if (!leakline_read_symbols(library, &symbols))
        return 0;
    void **found = search->past_ours ? search->after : search->before;
    for (unsigned function = search->first; function < search->end; function++)
        if (!found[function])
            found[function] = leakline_find_symbol_in(&symbols, leakline_interceptions[function].name);
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

/* All at once, so that later no call asks the loader, whose lock a child of fork() may have inherited locked: none is NULL from here on. */
__attribute__((constructor)) void leakline_find_real_functions(void) { find(LEAKLINE_FUNCTION_NONE + 1, LEAKLINE_FUNCTION_END); }

/* Before the constructor: while the loader runs those of other libraries, mostly in the only thread. */
void *leakline_find_real(enum leakline_function function) {
    find(function, function + 1);
    return __atomic_load_n(&leakline_real_functions[function], __ATOMIC_RELAXED);
}
