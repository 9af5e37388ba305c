/* What the tests of the native walk have in common. Every walk is compared with libgcc's (LEAKLINE_UNWIND_CHECK). */
#ifndef LEAKLINE_UNWIND_TESTS_H
#define LEAKLINE_UNWIND_TESTS_H

#include "../../native/tests.h"
#include "origin.h"
#include "unwind_check.h"

/* Stands for an intercepted function: walks from its caller; the result stays in `seen`, of this thread. */
void walk_here(void);
extern __thread struct leakline_origin seen;
/* How far the longer tests go: 1 in `make test`, more in `make hold-unwind`. */
extern int long_run;

void test_frames(void);
void test_signals(void);
void test_stacks(void);
void test_broken(void);
void test_libraries(void);
void test_threads(void);
void test_table(void);

#endif
