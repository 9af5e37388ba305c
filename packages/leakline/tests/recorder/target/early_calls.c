/* A preloaded library that opens files when nobody expects it: in its constructor, and in malloc(), which others call from theirs. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char heap[64 << 20];
static atomic_size_t used;
static atomic_uint calls;
static __thread int inside;

static void open_a_file(void) {
    if (inside++ == 0 && calls++ % 100 == 0 && close(open("/proc/self/maps", O_RDONLY)))
        abort();
    inside--;
}

void *malloc(size_t size) {
    open_a_file();
    char *block = heap + atomic_fetch_add(&used, (size + 31) & ~(size_t)15);
    if (block + size + 32 > heap + sizeof heap)
        abort();
    *(size_t *)block = size;
    return block + 16;
}

void free(void *block) { (void)block; }

void *calloc(size_t count, size_t size) { return malloc(count * size); }

void *realloc(void *old, size_t size) {
    void *block = malloc(size);
    size_t before = old ? ((size_t *)old)[-2] : 0;
    return memcpy(block, old ? old : block, before < size ? before : size);
}

__attribute__((constructor)) static void begin(void) { open_a_file(); }
