/* What the files of the recording share, and nobody else sees. */
#ifndef LEAKLINE_RECORDING_PRIVATE_H
#define LEAKLINE_RECORDING_PRIVATE_H

#include "recording.h"
#include "recording_layout.h"

/* The recording of this process. `base` is where its file is mapped; it changes only while nothing is recorded. */
struct leakline_recording {
    char *base;
    uint64_t size;
    uint32_t slot_count;
};
extern struct leakline_recording leakline_recording;

static inline struct leakline_recording_header *leakline_header(void) { return (struct leakline_recording_header *)leakline_recording.base; }

/* --- recording_storage.c */

/* No system call asks for storage from now on. */
extern bool leakline_sealed;
enum { LEAKLINE_PAGE_BITS = 12 };
#define LEAKLINE_RECORDING_PAGES (LEAKLINE_FILE_SIZE(LEAKLINE_SLOTS_HIGHEST) >> LEAKLINE_PAGE_BITS)
/* Pages of the file that have storage. */
extern unsigned char leakline_stored_pages[LEAKLINE_RECORDING_PAGES];
static inline bool leakline_has_storage(uint64_t offset) {
    return __atomic_load_n(&leakline_stored_pages[offset >> LEAKLINE_PAGE_BITS], __ATOMIC_RELAXED);
}
/* Storage for a part of the file. Writing to a hole of a full file system would be SIGBUS; asking first is an answer. Counts what it refuses. */
bool leakline_store(uint64_t offset, uint64_t size);
static inline bool leakline_stored(uint64_t offset, uint64_t size) {
    bool one_page = offset >> LEAKLINE_PAGE_BITS == (offset + size - 1u) >> LEAKLINE_PAGE_BITS;
    return __builtin_expect(one_page && leakline_has_storage(offset), 1) || leakline_store(offset, size);
}
/* Makes and maps the file (path NULL: an anonymous one) with storage for its header. 0, or minus the errno. */
int leakline_storage_map(const char *path, uint64_t size);
/* Replaces the file by scratch memory: a thread that is still at it writes to nobody. */
void leakline_storage_unmap(void);
/* In a child: gives up the parent's mapping. `writing`: this thread was interrupted while it wrote, and will go on. */
void leakline_storage_forget(bool writing);

/* --- recording.c */

void leakline_bracket_start(bool on);  /* lets threads enter, or none */
bool leakline_bracket_is_on(void);     /* threads may enter, unless this is a child */
bool leakline_bracket_inside(void);    /* this thread is inside */
void leakline_bracket_forget(void);    /* in a child: this thread is another one, and in no bracket */
void leakline_mark_open(int number, enum leakline_how how);
uint64_t leakline_now_ns(void);
/* Raises a bound that readers use. */
void leakline_raise(uint32_t *bound, uint32_t to);

/* --- recording_libraries.c */

/* In a child or a new recording: nothing is known. */
void leakline_libraries_forget(void);
/* Whether library `number` is libzmq: what it opens is nobody else's to close. */
bool leakline_library_is_libzmq(uint32_t number);
/* Brings the table up to date if the generation grew. False: it could not be (another thread is at it, or the loader does not answer). */
bool leakline_libraries_refresh(uint64_t generation);
/* The library of one address, where the table could not be refreshed: put into it if it is not there. 0: unknown. */
uint32_t leakline_library_learn(uint64_t address, uint64_t generation);
/* Number of the library that holds an address, 0 if none does. */
uint32_t leakline_library_of(uint64_t address);

/* --- recording_codes.c */

void leakline_codes_forget(void);
/* Room for so many bytes of text; its offset, or UINT64_MAX. */
uint64_t leakline_text_room(uint64_t size);
uint64_t leakline_hash(uint64_t hash, const void *data, uint64_t size);

/* --- recording_vfork.c */

/* Memory is shared with a child that is this very thread: nothing is recorded until it is gone. */
extern __thread uint32_t leakline_vforked;

/* --- recorder.c */

extern bool leakline_ask_pid; /* a child that shares our memory runs beside us */
bool leakline_is_other_process(void);
static inline bool leakline_in_vfork_child(void) {
    return __builtin_expect(leakline_vforked != 0, 0) || (__builtin_expect(leakline_ask_pid, 0) && leakline_is_other_process());
}

/* The process is a child that no handler was told of. */
void leakline_child_late(void);
/* Begins what the environment asks for; at the first call, or from the constructor. */
void leakline_start(void);
extern unsigned char *leakline_same_process; /* 1; the kernel clears the page in any child */

#endif
