/* Six levels of calls, built once for each set of options (VARIANT); unwind_paths.c combines them to 6^6 call paths. */
#include <alloca.h>
#include <stdint.h>

#define JOIN_(a, b, c) a##b##_##c
#define JOIN(a, b, c) JOIN_(a, b, c)
#define NAME(level) JOIN(level_, level, VARIANT)

void next_level(unsigned level, unsigned path);

/* Something for each level to keep over the call: many registers, aligned vectors, memory of a size known only at run time. */
typedef float vector __attribute__((vector_size(32)));

#define LEVEL(level, body)                                                                                                                 \
    unsigned NAME(level)(unsigned path, unsigned a, unsigned b);                                                                           \
    __attribute__((noinline)) unsigned NAME(level)(unsigned path, unsigned a, unsigned b) {                                                \
        unsigned c = a * 3 + b, d = a ^ b, e = a - b, f = b * 7;                                                                           \
        body;                                                                                                                              \
        return a + b * c + d * e + f;                                                                                                      \
    }

LEVEL(0, next_level(0, path))
LEVEL(1, volatile char room[3000]; room[a % 3000] = 1; next_level(1, path); c += (unsigned)room[5])
LEVEL(2, volatile char *room = alloca(path % 500 + 16); room[3] = 2; next_level(2, path); d += (unsigned)room[3])
LEVEL(3, volatile vector v; v[0] = (float)a; next_level(3, path); e += (unsigned)v[0])
LEVEL(4, volatile vector v; volatile char *room = alloca(path % 300 + 8); v[1] = (float)b; room[0] = 1; next_level(4, path); f += (unsigned)(v[1] + (float)room[0]))
LEVEL(5, if (a != b) next_level(5, path); else next_level(5, path + 0 * c))
