/* Which library an address is in, and how often libraries were loaded: asked of the loader without its locks, where it can be. */
#ifndef LEAKLINE_UNWIND_LIBRARIES_H
#define LEAKLINE_UNWIND_LIBRARIES_H

#include <stdbool.h>
#include <stdint.h>

/* To be called once, from the constructor. */
void leakline_libraries_prepare(void);
/* Whether `pc` is in a library (or the program, or the kernel's vdso); *frame_header: its PT_GNU_EH_FRAME segment, NULL if it has none. */
bool leakline_find_library(uintptr_t pc, const uint8_t **frame_header);
/* The library that has `pc`, as dl_iterate_phdr describes it, without asking the loader; false: unknown, or before glibc 2.35. */
struct dl_phdr_info;
bool leakline_describe_library(uintptr_t pc, struct dl_phdr_info *information);
/* Whether "in no library" is final: before glibc 2.35 it may only mean that the loader was busy. */
bool leakline_find_library_final(void);
/* Whether dl_iterate_phdr can be called without waiting for ever: its lock is not held, as far as can be seen, by a thread that may not exist
 * (in the child of a fork) or by what a signal handler interrupted. Waits a little (ten thousand turns) for one who holds it shortly. */
bool leakline_loader_answers(void);
/* Whether loads are counted without asking the loader (for tests). */
bool leakline_libraries_counted(void);

#endif
