/* Where the interpreter's evaluation function lies, with the parts that the compiler split off (_PyEval_EvalFrameDefault.cold and the like).
 *
 * Those have local symbols, which are in the library's file but not in memory. A file that was replaced since it was loaded is told by
 * the function itself, which would lie elsewhere; a stripped one has none: then the function alone is known. Where it is so short that
 * most of it must have been split off (Debian's 3.14), its jumps lead there: no other code jumps into the middle of a function.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>

#include "python_interpreter.h"
#include "recording_private.h"
#include "system_calls.h"
#include "unwind_find.h"

static const char evaluate[] = "_PyEval_EvalFrameDefault";
enum { SHORTEST = 8192 }; /* of 3.6 to 3.13 a whole one has 31 KiB and more */

struct file {
    const unsigned char *bytes;
    size_t size;
};

static const void *inside(const struct file *file, uint64_t offset, uint64_t size) {
    return offset <= file->size && size <= file->size - offset ? file->bytes + offset : NULL;
}

static const ElfW(Shdr) *find_section(const struct file *file, const ElfW(Ehdr) *header, uint32_t type) {
    const ElfW(Shdr) *sections = inside(file, header->e_shoff, (uint64_t)header->e_shnum * sizeof *sections);
    for (unsigned i = 0; sections && i < header->e_shnum; i++)
        if (sections[i].sh_type == type)
            return &sections[i];
    return NULL;
}

/* The parts with names that begin with the function's, among them itself. */
static void read_symbols(const struct file *file, struct leakline_python *python) {
    const ElfW(Ehdr) *header = inside(file, 0, sizeof *header);
    if (!header || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_shentsize != sizeof(ElfW(Shdr)))
        return;
    const ElfW(Shdr) *table = find_section(file, header, SHT_SYMTAB);
    const ElfW(Shdr) *names = table ? inside(file, header->e_shoff + (uint64_t)table->sh_link * sizeof *table, sizeof *table) : NULL;
    const ElfW(Sym) *symbols = table ? inside(file, table->sh_offset, table->sh_size) : NULL;
    const char *strings = names ? inside(file, names->sh_offset, names->sh_size) : NULL;
    if (!symbols || !strings)
        return;
    struct leakline_range found[LEAKLINE_PYTHON_RANGES];
    size_t count = 0;
    bool itself = false;
    for (size_t i = 0; i < table->sh_size / sizeof *symbols && count < LEAKLINE_PYTHON_RANGES; i++) {
        const ElfW(Sym) *symbol = &symbols[i];
        if (ELF64_ST_TYPE(symbol->st_info) != STT_FUNC || !symbol->st_size || symbol->st_name + sizeof evaluate > names->sh_size)
            continue;
        const char *name = strings + symbol->st_name;
        if (memcmp(name, evaluate, sizeof evaluate - 1) != 0 || (name[sizeof evaluate - 1] != '.' && name[sizeof evaluate - 1] != '\0'))
            continue;
        found[count].start = python->base + symbol->st_value;
        found[count].end = found[count].start + symbol->st_size;
        itself |= found[count++].start == (uintptr_t)python->names.evaluate;
    }
    if (!itself)
        return;
    memcpy(python->ranges, found, count * sizeof *found);
    python->range_count = count;
}

static void read_file(struct leakline_python *python, const char *path) {
    long number = leakline_call4(SYS_openat, AT_FDCWD, (long)(*path ? path : "/proc/self/exe"), O_RDONLY | O_CLOEXEC, 0);
    if (number < 0)
        return;
    long end = leakline_call3(SYS_lseek, number, 0, SEEK_END);
    if (end > 0) {
        long mapped = leakline_call6(SYS_mmap, 0, end, PROT_READ, MAP_PRIVATE, number, 0);
        if (mapped > 0 || mapped < -4095) {
            const struct file file = {(const unsigned char *)mapped, (size_t)end};
            read_symbols(&file, python);
            leakline_call3(SYS_munmap, mapped, end, 0);
        }
    }
    leakline_call3(SYS_close, number, 0, 0);
}

struct part {
    struct leakline_range range;
    uintptr_t first; /* where the first jump into its middle leads */
    bool certain;
};

static void note_jump(struct part *parts, uintptr_t target) {
    struct leakline_description found;
    if (!leakline_find_description(target, &found) || target == found.start || found.size < SHORTEST)
        return;
    for (struct part *part = parts; part < parts + LEAKLINE_PYTHON_RANGES - 1; part++) {
        if (!part->range.start)
            *part = (struct part){.range = {found.start, found.start + found.size}, .first = target};
        if (part->range.start == found.start) {
            part->certain |= part->first != target; /* once may be chance: bytes that only look like a jump */
            return;
        }
    }
}

/* Any byte may begin an instruction: jmp and jcc with 32 bits. On other processors nothing is found. */
static void follow_jumps(struct leakline_python *python) {
    struct part parts[LEAKLINE_PYTHON_RANGES - 1] = {0};
    const struct leakline_range function = python->ranges[0];
#ifdef __x86_64__
    for (uintptr_t at = function.start; at + 6 <= function.end; at++) {
        const unsigned char *code = (const unsigned char *)at;
        const unsigned length = code[0] == 0xe9 ? 1 : code[0] == 0x0f && (code[1] & 0xf0) == 0x80 ? 2 : 0;
        int32_t distance;
        memcpy(&distance, code + length, sizeof distance);
        const uintptr_t target = at + length + sizeof distance + (uintptr_t)(intptr_t)distance;
        if (length && (target < function.start || target >= function.end))
            note_jump(parts, target);
    }
#else
    (void)function, (void)note_jump;
#endif
    for (const struct part *part = parts; part < parts + LEAKLINE_PYTHON_RANGES - 1; part++)
        if (part->certain)
            python->ranges[python->range_count++] = part->range;
    if (python->range_count == 1)
        python->range_count = 0;
}

void leakline_python_find_ranges(struct leakline_python *python, const char *path, size_t size) {
    if (!python->names.evaluate || !size)
        return;
    python->ranges[0].start = (uintptr_t)python->names.evaluate;
    python->ranges[0].end = python->ranges[0].start + size;
    python->range_count = 1;
    if (!__atomic_load_n(&leakline_sealed, __ATOMIC_RELAXED)) /* a filter may kill who opens a file */
        read_file(python, path);
    if (python->range_count == 1 && size < SHORTEST)
        follow_jumps(python);
}
