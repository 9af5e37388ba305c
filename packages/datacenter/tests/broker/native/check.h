/* CHECK: abort, naming the condition, unless it holds. And the tests that are not in test_relay_loop.c. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                                           \
    do {                                                                                                                           \
        if (!(condition)) {                                                                                                        \
            fprintf(stderr, "%s:%d: not true: %s (errno: %s)\n", __FILE__, __LINE__, #condition, strerror(errno));                 \
            abort();                                                                                                               \
        }                                                                                                                          \
    } while (0)

void test_in_flight(void);

#endif
