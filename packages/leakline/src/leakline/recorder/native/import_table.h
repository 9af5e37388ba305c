/* Where a loaded ELF library keeps the addresses of what it imports. x86_64 and aarch64; shared by import_hook.c (the ledger's, one library)
 * and target/patch.c (the recorder's, all libraries).
 *
 * A slot is named by a relocation: JUMP_SLOT (a call through the PLT), GLOB_DAT (its address was taken, or -fno-plt), or an absolute
 * word (a pointer to the function in initialised data). With RELRO the loader has made its page read-only.
 */
#ifndef LEAKLINE_IMPORT_TABLE_H
#define LEAKLINE_IMPORT_TABLE_H

#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

#if defined(__x86_64__)
#define LEAKLINE_IS_CALL(type) ((type) == R_X86_64_JUMP_SLOT)
#define LEAKLINE_IS_IMPORT(type) (LEAKLINE_IS_CALL(type) || (type) == R_X86_64_GLOB_DAT)
#define LEAKLINE_IS_POINTER(type) ((type) == R_X86_64_64)
#elif defined(__aarch64__)
#define LEAKLINE_IS_CALL(type) ((type) == R_AARCH64_JUMP_SLOT)
#define LEAKLINE_IS_IMPORT(type) (LEAKLINE_IS_CALL(type) || (type) == R_AARCH64_GLOB_DAT)
#define LEAKLINE_IS_POINTER(type) ((type) == R_AARCH64_ABS64)
#else
#error "leakline's import hooks know x86_64 and aarch64"
#endif

struct leakline_imports {
    ElfW(Addr) base;
    ElfW(Addr) start, end;                     /* of what is mapped */
    ElfW(Addr) read_only_start, read_only_end; /* RELRO */
    const ElfW(Sym) *symbols;
    const char *strings;
    const ElfW(Rela) *tables[2]; /* DT_RELA, DT_JMPREL */
    size_t sizes[2];             /* bytes */
    size_t relative;             /* so many of the first table come first, and import nothing */
};

/* glibc has made these entries absolute, but for read-only dynamic sections; musl leaves them relative to the base. */
static inline const void *leakline_dynamic_pointer(const struct leakline_imports *imports, ElfW(Addr) value) {
    return (const void *)(value < imports->base ? imports->base + value : value);
}

static inline void leakline_read_dynamic(struct leakline_imports *imports, const ElfW(Dyn) *entry) {
    for (; entry->d_tag != DT_NULL; entry++) {
        switch (entry->d_tag) {
        case DT_SYMTAB:
            imports->symbols = leakline_dynamic_pointer(imports, entry->d_un.d_ptr);
            break;
        case DT_STRTAB:
            imports->strings = leakline_dynamic_pointer(imports, entry->d_un.d_ptr);
            break;
        case DT_RELA:
            imports->tables[0] = leakline_dynamic_pointer(imports, entry->d_un.d_ptr);
            break;
        case DT_RELASZ:
            imports->sizes[0] = entry->d_un.d_val;
            break;
        case DT_RELACOUNT:
            imports->relative = entry->d_un.d_val;
            break;
        case DT_JMPREL:
            imports->tables[1] = leakline_dynamic_pointer(imports, entry->d_un.d_ptr);
            break;
        case DT_PLTRELSZ:
            imports->sizes[1] = entry->d_un.d_val;
            break;
        }
    }
}

/* False: it imports nothing by name. */
static inline bool leakline_read_imports(struct leakline_imports *imports, const struct dl_phdr_info *info) {
    ElfW(Addr) page = (ElfW(Addr))sysconf(_SC_PAGESIZE);
    *imports = (struct leakline_imports){.base = info->dlpi_addr, .start = (ElfW(Addr))-1};
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        ElfW(Addr) start = imports->base + header->p_vaddr, end = start + header->p_memsz;
        if (header->p_type == PT_LOAD) {
            imports->start = start < imports->start ? start : imports->start;
            imports->end = end > imports->end ? end : imports->end;
        }
        if (header->p_type == PT_DYNAMIC)
            leakline_read_dynamic(imports, (const ElfW(Dyn) *)start);
        if (header->p_type == PT_GNU_RELRO) { /* rounded as the loader does: the last, partial page stays writable */
            imports->read_only_start = start & ~(page - 1);
            imports->read_only_end = end & ~(page - 1);
        }
    }
    return imports->symbols && imports->strings;
}

static inline bool leakline_is_read_only(const struct leakline_imports *imports, const void *slot) {
    return (ElfW(Addr))slot >= imports->read_only_start && (ElfW(Addr))slot < imports->read_only_end;
}

static inline const char *leakline_import_name(const struct leakline_imports *imports, const ElfW(Rela) *relocation) {
    return imports->strings + imports->symbols[ELF64_R_SYM(relocation->r_info)].st_name;
}

#endif
