/* A check that says what failed and where, also in a build without assertions. */
#ifndef LEAKLINE_TARGET_TESTS_H
#define LEAKLINE_TARGET_TESTS_H

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

#endif
