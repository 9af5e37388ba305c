/* Questions to the loader on the path of a call (unwind_libraries.h).
 *
 * dl_iterate_phdr answers both, under the loader's lock. That lock is a danger here: fork() in glibc does not reset it, so a child of a
 * program with threads can inherit it held by nobody; and a signal may come between the lock being taken and its owner being noted.
 * Therefore: libraries are found through _dl_find_object (glibc 2.35, no lock, for signal handlers), and loads are counted by reading the
 * loader's own counter, _dl_load_adds in _rtld_global. It only grows, before code of the new library can run; and an address means another
 * function only after a load. Its place differs between versions and is looked for at the start: the word that equals dlpi_adds, behind
 * the recursive mutexes of which one is held while dl_iterate_phdr calls back. Only a single match is believed.
 */
#define _GNU_SOURCE
#include "unwind_libraries.h"
#include "origin.h"
#include "system_calls.h"
#include "unwind_symbols.h"

#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

/* struct dl_find_object of glibc 2.35, whose headers may be older; room for what some architectures have behind. */
struct found_object {
    unsigned long long flags;
    void *map_start, *map_end;
    struct link_map *link_map;
    const uint8_t *frame_header;
    unsigned long long more[12];
};

static int (*find_object)(void *address, struct found_object *result);
static const volatile unsigned long long *load_count;
static const pthread_mutex_t *loader_lock;

static int read_count(struct dl_phdr_info *information, size_t size, void *count) {
    (void)size;
    *(uint64_t *)count = information->dlpi_adds + information->dlpi_subs;
    return 1;
}

uint64_t leakline_libraries_generation(void) {
    if (load_count != NULL) return *load_count;
    uint64_t count = 0; /* an unknown loader; in musl no library is ever unloaded */
    dl_iterate_phdr(read_count, &count);
    return count;
}

bool leakline_libraries_counted(void) { return load_count != NULL; }

/* --- finding the counter */

struct search {
    uintptr_t loader; /* address of _rtld_global */
    const volatile unsigned long long *count;
    const pthread_mutex_t *lock;
    unsigned matches;
};

#ifdef __GLIBC__
static bool is_recursive(uintptr_t address) {
    const pthread_mutex_t *lock = (const pthread_mutex_t *)address;
    return lock->__data.__kind == PTHREAD_MUTEX_RECURSIVE_NP && lock->__data.__count < 16;
}

/* Held by this thread. Before glibc 2.34 a program without libpthread only counts, without an owner. */
static bool is_held(uintptr_t address, int thread) {
    const pthread_mutex_t *lock = (const pthread_mutex_t *)address;
    return is_recursive(address) && lock->__data.__count > 0 && (lock->__data.__owner == thread || lock->__data.__owner == 0);
}

static void consider(struct search *search, uintptr_t lock, uintptr_t count, unsigned long long loads) {
    const volatile unsigned long long *place = (const volatile unsigned long long *)count;
    if (*place != loads) return;
    if (search->count != place) search->matches++;
    search->count = place;
    search->lock = (const pthread_mutex_t *)lock;
}

/* In struct rtld_global: dl_load_lock, dl_load_write_lock (held now), from 2.35 on dl_load_tls_lock, then dl_load_adds. */
static void search_segment(struct search *search, uintptr_t end, unsigned long long loads) {
    const uintptr_t lock_size = sizeof(pthread_mutex_t), word = sizeof(unsigned long long);
    int thread = (int)leakline_call0(SYS_gettid);
    const size_t *global = (const size_t *)search->loader; /* newer ones begin with dl_nns (1 to 16) and dl_load_adds, and have no locks */
    if (global[0] >= 1 && global[0] <= 16) consider(search, 0, search->loader + word, loads);
    for (uintptr_t lock = search->loader; lock + 2 * lock_size + word <= end; lock += word) {
        if (!is_held(lock, thread)) continue;
        consider(search, lock, lock + lock_size, loads);
        if (is_recursive(lock + lock_size)) consider(search, lock, lock + 2 * lock_size, loads);
    }
}

static int search_library(struct dl_phdr_info *information, size_t size, void *argument) {
    (void)size;
    struct search *search = argument;
    for (int i = 0; i < information->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &information->dlpi_phdr[i];
        uintptr_t start = information->dlpi_addr + segment->p_vaddr, end = start + segment->p_memsz;
        if (segment->p_type != PT_LOAD || search->loader < start || search->loader >= end) continue;
        search_segment(search, end, information->dlpi_adds);
        return 1;
    }
    return 0;
}
#endif

void leakline_libraries_prepare(void) {
#ifndef LEAKLINE_OLD_LOADER /* tests: as before glibc 2.35 */
    find_object = (int (*)(void *, struct found_object *))leakline_find_symbol("_dl_find_object");
#endif
#ifdef __GLIBC__
    struct search search = {.loader = (uintptr_t)leakline_find_symbol("_rtld_global")};
    if (search.loader == 0) return;
    dl_iterate_phdr(search_library, &search);
    if (search.matches != 1) return;
    loader_lock = search.lock;
    load_count = search.count;
#endif
}

/* --- finding a library */

struct lookup {
    uintptr_t pc;
    const uint8_t *frame_header;
};

static int look_up(struct dl_phdr_info *information, size_t size, void *argument) {
    (void)size;
    struct lookup *lookup = argument;
    const uint8_t *header = NULL;
    bool inside = false;
    for (int i = 0; i < information->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &information->dlpi_phdr[i];
        uintptr_t start = information->dlpi_addr + segment->p_vaddr;
        if (segment->p_type == PT_LOAD && lookup->pc - start < segment->p_memsz) inside = true;
        if (segment->p_type == PT_GNU_EH_FRAME) header = (const uint8_t *)start;
    }
    lookup->frame_header = header;
    return inside;
}

bool leakline_loader_answers(void) {
#ifdef __GLIBC__
    if (loader_lock == NULL) return true;
    int thread = (int)leakline_call0(SYS_gettid), process = (int)leakline_call0(SYS_getpid);
    const volatile int *state = &loader_lock->__data.__lock, *owner = &loader_lock->__data.__owner;
    for (int tries = 0; tries < 10000; tries++) {
        int holder = *owner;
        if (*state == 0 || holder == thread) return true;
        if (holder != 0 && leakline_call3(SYS_tgkill, process, holder, 0) == -ESRCH) return false;
        leakline_call0(SYS_sched_yield);
    }
    return false;
#else
    return true;
#endif
}

bool leakline_find_library_final(void) { return find_object != NULL; }

bool leakline_describe_library(uintptr_t pc, struct dl_phdr_info *information) {
    struct found_object object = {0};
    if (find_object == NULL || find_object((void *)pc, &object) != 0 || object.link_map == NULL) return false;
    const ElfW(Ehdr) *header = object.map_start; /* the first segment begins with the file, except in oddly linked ones */
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return false;
    *information = (struct dl_phdr_info){.dlpi_addr = object.link_map->l_addr,
                                         .dlpi_name = object.link_map->l_name,
                                         .dlpi_phdr = (const ElfW(Phdr) *)((const char *)header + header->e_phoff),
                                         .dlpi_phnum = header->e_phnum};
    return true;
}

bool leakline_find_library(uintptr_t pc, const uint8_t **frame_header) {
    *frame_header = NULL;
    if (find_object != NULL) {
        struct found_object object = {0};
        if (find_object((void *)pc, &object) != 0) return false;
        *frame_header = object.frame_header;
        return true;
    }
    if (!leakline_loader_answers()) return false;
    struct lookup lookup = {.pc = pc};
    if (dl_iterate_phdr(look_up, &lookup) == 0) return false;
    *frame_header = lookup.frame_header;
    return true;
}
