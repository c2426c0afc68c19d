/* Test macros: CHECK reports and goes on, RUN names what is running, the runner in main.c counts. */
#ifndef MINITEST_H
#define MINITEST_H

#include <stdio.h>

extern int minitest_checks, minitest_failures;

#define CHECK(condition)                                                                            \
    do {                                                                                            \
        __atomic_fetch_add(&minitest_checks, 1, __ATOMIC_RELAXED); /* a check may stand in a job */ \
        if (!(condition)) {                                                                         \
            __atomic_fetch_add(&minitest_failures, 1, __ATOMIC_RELAXED);                            \
            fprintf(stderr, "%s:%d: %s: failed: %s\n", __FILE__, __LINE__, __func__, #condition);   \
        }                                                                                           \
    } while (0)

#define RUN(test)                                                  \
    do {                                                           \
        printf("  %s\n", #test);                                   \
        fflush(stdout); /* a child of fork would print it again */ \
        test();                                                    \
    } while (0)

#endif
