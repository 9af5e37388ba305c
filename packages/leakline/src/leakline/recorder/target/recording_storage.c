/* The file of a recording, and the storage that it gets as it is used. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "recording_private.h"
#include "system_calls.h"

#ifndef LEAKLINE_ADVICE_POPULATE
#define LEAKLINE_ADVICE_POPULATE 23 /* MADV_POPULATE_WRITE, since Linux 5.14 */
#endif
#define PAGE (1u << LEAKLINE_PAGE_BITS)
#define CHUNK 65536u /* the file gets its storage in pieces of this size, but for the indexes, where hashes lead everywhere: a page at a time */

struct leakline_recording leakline_recording;
bool leakline_sealed;

unsigned char leakline_stored_pages[LEAKLINE_RECORDING_PAGES];

static long advise(uint64_t offset, uint64_t size, int advice) {
    return leakline_call3(SYS_madvise, (long)(leakline_recording.base + offset), (long)size, advice);
}

/* Gives storage to the piece with this page; false: there is none. */
static bool store_piece(uint64_t page) {
    uint64_t start = page * PAGE;
    bool is_index = start >= LEAKLINE_CODE_INDEX_AT && start < LEAKLINE_FRAMES_AT;
    uint64_t piece = is_index && getauxval(AT_PAGESZ) == PAGE ? PAGE : CHUNK; /* arm64 kernels may have pages of 64 KiB */
    start = start / piece * piece;
    uint64_t size = leakline_recording.size - start < piece ? leakline_recording.size - start : piece;
    if (__atomic_load_n(&leakline_sealed, __ATOMIC_RELAXED) || advise(start, size, LEAKLINE_ADVICE_POPULATE) != 0) {
        __atomic_fetch_add(&leakline_header()->unstored, 1, __ATOMIC_RELAXED);
        return false;
    }
    for (uint64_t each = start / PAGE; each < (start + size) / PAGE; each++)
        __atomic_store_n(&leakline_stored_pages[each], 1, __ATOMIC_RELAXED);
    return true;
}

/* A system call for each piece that is used for the first time: an allocator in the target makes more. */
bool leakline_store(uint64_t offset, uint64_t size) {
    for (uint64_t page = offset / PAGE; page <= (offset + size - 1u) / PAGE; page++)
        if (!leakline_has_storage(page * PAGE) && !store_piece(page))
            return false;
    return true;
}

/* What is stored from the beginning where the kernel cannot populate single pages (before Linux 5.14, it answers EINVAL to an unknown advice). */
static long store_fixed_part(int file, uint64_t size) {
    const struct {
        uint64_t offset, size;
    } parts[] = {
        {0, LEAKLINE_FRAMES_AT},
        {LEAKLINE_FRAMES_AT, 4u << 20},
        {LEAKLINE_TEXT_AT, 2u << 20},
        {LEAKLINE_SLOTS_AT, 16384u * sizeof(struct leakline_slot)},
    };
    for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        uint64_t length = parts[i].offset + parts[i].size < size ? parts[i].size : size - parts[i].offset;
        long error = leakline_call4(SYS_fallocate, file, 0, (long)parts[i].offset, (long)length);
        if (error)
            return error;
        memset(&leakline_stored_pages[parts[i].offset / PAGE], 1, length / PAGE);
    }
    return 0;
}

static long store_header(int file, uint64_t size) {
    long error = advise(0, CHUNK, LEAKLINE_ADVICE_POPULATE);
    if (error == -EINVAL)
        return store_fixed_part(file, size);
    if (error == 0)
        memset(leakline_stored_pages, 1, CHUNK / PAGE);
    return error == -EFAULT ? -ENOSPC : error; /* where a write would be SIGBUS */
}

/* A second recording of this process is mapped over the first one's place: see leakline_storage_unmap. */
static long map_file(int file, uint64_t size) {
    char *place = leakline_recording.base;
    bool again = place && leakline_recording.size == size;
    memset(leakline_stored_pages, 0, sizeof leakline_stored_pages);
    long mapped = leakline_call6(SYS_mmap, again ? (long)place : 0, (long)size, PROT_READ | PROT_WRITE, again ? MAP_SHARED | MAP_FIXED : MAP_SHARED,
                                 file, 0);
    if (mapped < 0 && mapped > -4096)
        return mapped;
    leakline_recording.base = (char *)mapped;
    leakline_recording.size = size;
    /* Else the kernel reads ahead in the holes: up to 2 MB of zeros, 4 ms, at the first use of each section. Without effect where it is refused. */
    advise(0, size, MADV_RANDOM);
    long error = store_header(file, size);
    if (error)
        leakline_storage_unmap();
    return error;
}

/* Beyond RLIMIT_FSIZE, ftruncate would end the target by SIGXFSZ, also that of a file in memory. */
static bool exceeds_file_limit(uint64_t size) {
    struct rlimit64 limit;
    return leakline_call4(SYS_prlimit64, 0, RLIMIT_FSIZE, 0, (long)&limit) == 0 && limit.rlim_cur < size;
}

int leakline_storage_map(const char *path, uint64_t size) {
    if (exceeds_file_limit(size))
        return -EFBIG;
    long file = path ? leakline_call4(SYS_openat, AT_FDCWD, (long)path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600)
                     : leakline_call3(SYS_memfd_create, (long)"leakline", 1 /* MFD_CLOEXEC */, 0);
    if (file < 0)
        return (int)file;
    long error = leakline_call3(SYS_ftruncate, file, (long)size, 0);
    if (!error)
        error = map_file((int)file, size);
    leakline_call3(SYS_close, file, 0, 0);
    if (error && path)
        leakline_call3(SYS_unlinkat, AT_FDCWD, (long)path, 0);
    return (int)error;
}

/* Without storage of its own until it is written to, which hardly ever happens. */
static void map_scratch(void) {
    leakline_call6(SYS_mmap, (long)leakline_recording.base, (long)leakline_recording.size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

void leakline_storage_unmap(void) { map_scratch(); }

/* The mapping is not MADV_DONTFORK: a signal handler may fork in the middle of a write, without any handler of ours being told (_Fork, clone), and the
 * child goes on with that write. It would fault; so it writes what its parent writes too. Nothing else of the child gets that far. */
void leakline_storage_forget(bool writing) {
    if (leakline_recording.base && writing)
        map_scratch();
    else if (leakline_recording.base)
        leakline_call3(SYS_munmap, (long)leakline_recording.base, (long)leakline_recording.size, 0);
    leakline_recording.base = NULL;
    leakline_sealed = false;
}

/* What a process behind a filter can use up: some ten thousand stacks. 8 MB. */
void leakline_recording_seal(void) {
    struct leakline_recording_header *header = leakline_header();
    if (!leakline_enter())
        return;
    const struct {
        uint64_t offset, size;
    } parts[] = {
        {LEAKLINE_LIBRARIES_AT, LEAKLINE_CODES_AT - LEAKLINE_LIBRARIES_AT},
        {LEAKLINE_CODES_AT + header->code_bound * sizeof(struct leakline_code_record), 4096 * sizeof(struct leakline_code_record)},
        {LEAKLINE_STACKS_AT + header->stack_bound * sizeof(struct leakline_stack_record), 16384 * sizeof(struct leakline_stack_record)},
        {LEAKLINE_WRONG_CLOSES_AT, LEAKLINE_FRAMES_AT - LEAKLINE_WRONG_CLOSES_AT},
        {LEAKLINE_FRAMES_AT + header->frames_used, 4u << 20},
        {LEAKLINE_TEXT_AT + header->text_used, 1u << 20},
        {LEAKLINE_SLOTS_AT, 16384 * sizeof(struct leakline_slot)},
    };
    for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        uint64_t room = leakline_recording.size - parts[i].offset;
        leakline_stored(parts[i].offset, parts[i].size < room ? parts[i].size : room);
    }
    __atomic_store_n(&leakline_sealed, true, __ATOMIC_RELAXED);
    leakline_leave();
}
