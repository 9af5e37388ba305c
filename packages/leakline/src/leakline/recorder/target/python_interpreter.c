/* Finds the CPython interpreter of this process: a libpythonX.Y.so or a python program, by the symbols that it exports.
 *
 * dlsym would allocate (dlerror) and, with two Pythons in a process, mix them; so the symbol tables are read here, object by object.
 */
#define _GNU_SOURCE
#include "python_interpreter.h"

#include <elf.h>
#include <link.h>
#include <string.h>

struct object {
    ElfW(Addr) base;
    const ElfW(Sym) *symbols;
    const char *strings;
    const uint32_t *gnu_hash, *hash; /* DT_GNU_HASH, DT_HASH: one of them is enough */
};

/* glibc has made these entries absolute, musl leaves them relative to the base. */
static const void *dynamic_pointer(ElfW(Addr) base, ElfW(Addr) value) {
    return (const void *)(value < base ? base + value : value);
}

static bool read_object(const struct dl_phdr_info *info, struct object *object) {
    *object = (struct object){.base = info->dlpi_addr};
    const ElfW(Dyn) *entry = NULL;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            entry = (const ElfW(Dyn) *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    for (; entry && entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_SYMTAB)
            object->symbols = dynamic_pointer(object->base, entry->d_un.d_ptr);
        else if (entry->d_tag == DT_STRTAB)
            object->strings = dynamic_pointer(object->base, entry->d_un.d_ptr);
        else if (entry->d_tag == DT_GNU_HASH)
            object->gnu_hash = dynamic_pointer(object->base, entry->d_un.d_ptr);
        else if (entry->d_tag == DT_HASH)
            object->hash = dynamic_pointer(object->base, entry->d_un.d_ptr);
    }
    return object->symbols && object->strings && (object->gnu_hash || object->hash);
}

static bool is_definition(const struct object *object, const ElfW(Sym) *symbol, const char *name) {
    return symbol->st_shndx != SHN_UNDEF && strcmp(object->strings + symbol->st_name, name) == 0;
}

static const ElfW(Sym) *find_by_gnu_hash(const struct object *object, const char *name) {
    uint32_t hash = 5381;
    for (const char *c = name; *c; c++)
        hash = hash * 33 + (unsigned char)*c;
    const uint32_t *table = object->gnu_hash;
    uint32_t buckets = table[0], first = table[1], words = table[2], shift = table[3];
    const ElfW(Addr) *bloom = (const ElfW(Addr) *)(table + 4);
    const uint32_t *bucket = (const uint32_t *)(bloom + words), *chain = bucket + buckets;
    const unsigned bits = 8 * sizeof(ElfW(Addr));
    if (!buckets || !words)
        return NULL;
    ElfW(Addr) mask = (ElfW(Addr))1 << hash % bits | (ElfW(Addr))1 << (hash >> shift) % bits;
    if ((bloom[hash / bits % words] & mask) != mask)
        return NULL;
    uint32_t index = bucket[hash % buckets];
    for (; index >= first; index++) {
        uint32_t found = chain[index - first];
        if ((found | 1) == (hash | 1) && is_definition(object, object->symbols + index, name))
            return object->symbols + index;
        if (found & 1)
            break;
    }
    return NULL;
}

static const ElfW(Sym) *find_by_hash(const struct object *object, const char *name) {
    uint32_t hash = 0, high;
    for (const char *c = name; *c; c++) {
        hash = (hash << 4) + (unsigned char)*c;
        high = hash & 0xf0000000;
        hash = (hash ^ high >> 24) & ~high;
    }
    const uint32_t *bucket = object->hash + 2, *chain = bucket + object->hash[0];
    if (!object->hash[0])
        return NULL;
    for (uint32_t index = bucket[hash % object->hash[0]]; index; index = chain[index])
        if (is_definition(object, object->symbols + index, name))
            return object->symbols + index;
    return NULL;
}

static void *find(const struct object *object, const char *name, size_t *size) {
    const ElfW(Sym) *symbol = object->gnu_hash ? find_by_gnu_hash(object, name) : find_by_hash(object, name);
    if (size)
        *size = symbol ? symbol->st_size : 0;
    return symbol ? (void *)(object->base + symbol->st_value) : NULL;
}

static size_t find_names(const struct object *object, struct leakline_python *python) {
    size_t evaluate_size;
    struct leakline_python_names *names = &python->names;
    *(void **)&names->this_thread = find(object, "PyGILState_GetThisThreadState", NULL);
    *(void **)&names->attached = find(object, "_PyThreadState_UncheckedGet", NULL);
    if (!names->attached)
        *(void **)&names->attached = find(object, "PyThreadState_GetUnchecked", NULL);
    *(void **)&names->interpreters = find(object, "PyInterpreterState_Head", NULL);
    *(void **)&names->version_text = find(object, "Py_GetVersion", NULL);
    names->version = find(object, "Py_Version", NULL);
    names->runtime = find(object, "_PyRuntime", NULL);
    names->finalizing = find(object, "_Py_Finalizing", NULL);
    names->code_type = find(object, "PyCode_Type", NULL);
    names->text_type = find(object, "PyUnicode_Type", NULL);
    names->bytes_type = find(object, "PyBytes_Type", NULL);
    names->evaluate = find(object, "_PyEval_EvalFrameDefault", &evaluate_size);
    names->debug_build = find(object, "_Py_NegativeRefcount", NULL);
    return evaluate_size;
}

/* "3.9.18 (main, ...)" as 0x030912f0. Py_GetVersion only joins constants into a static buffer, always the same. */
static uint32_t parse_version(const char *text) {
    uint32_t part[3] = {0};
    for (int i = 0; i < 3; i++) {
        while (*text >= '0' && *text <= '9' && part[i] < 256)
            part[i] = part[i] * 10 + (uint32_t)(*text++ - '0');
        if (*text == '.')
            text++;
    }
    return (part[0] & 0xff) << 24 | (part[1] & 0xff) << 16 | (part[2] & 0xff) << 8 | 0xf0;
}

static bool find_layout(struct leakline_python *python) {
    const struct leakline_python_names *names = &python->names;
    bool known = leakline_python_described(names->runtime, python->version, &python->layout);
    const size_t count = sizeof leakline_python_layouts / sizeof *leakline_python_layouts;
    for (size_t i = 0; i < count && !known && !names->debug_build; i++) {
        known = python->version >> 16 == (0x0300u | leakline_python_layouts[i].minor);
        python->layout = leakline_python_layouts[i];
    }
    if (!known)
        return false;
    const bool in_runtime = python->layout.runtime_finalizing != LEAKLINE_PYTHON_NONE;
    python->finalizing = names->finalizing;
    if (in_runtime)
        python->finalizing = names->runtime ? (const uintptr_t *)(names->runtime + python->layout.runtime_finalizing) : NULL;
    return python->finalizing != NULL;
}

/* Another library that was loaded in the same place would have its symbols elsewhere. */
bool leakline_python_is_same(const struct leakline_python *one, const struct leakline_python *other) {
    return one->base == other->base && memcmp(&one->names, &other->names, sizeof one->names) == 0;
}

struct search {
    const struct leakline_python *known;
    struct leakline_python *python;
};

static int look_at(struct dl_phdr_info *info, size_t size, void *argument) {
    (void)size;
    const struct leakline_python *known = ((struct search *)argument)->known;
    struct leakline_python *python = ((struct search *)argument)->python;
    struct object object;
    if (!read_object(info, &object) || !find(&object, "PyGILState_GetThisThreadState", NULL))
        return 0;
    *python = (struct leakline_python){.base = info->dlpi_addr};
    size_t evaluate_size = find_names(&object, python);
    if (known && leakline_python_is_same(known, python)) {
        *python = *known;
        return 1;
    }
    const struct leakline_python_names *names = &python->names;
    if (!names->attached || !names->interpreters || !names->code_type || !names->text_type || !names->bytes_type)
        return 0;
    if (names->version)
        python->version = *names->version;
    else if (names->version_text)
        python->version = parse_version(names->version_text());
    if (!find_layout(python))
        return 0;
    leakline_python_find_ranges(python, info->dlpi_name ? info->dlpi_name : "", evaluate_size);
    return 1;
}

bool leakline_python_find(const struct leakline_python *known, struct leakline_python *python) {
    struct search search = {known, python};
    return dl_iterate_phdr(look_at, &search) == 1;
}
