/* check.h - the whole test framework of the native tests: one process a file, the first failure
 * ends it. */
#ifndef PST_TEST_CHECK_H
#define PST_TEST_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(expr)                                                                  \
    do {                                                                             \
        if (!(expr)) {                                                               \
            fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #expr); \
            exit(1);                                                                 \
        }                                                                            \
    } while (0)

#define CHECK_EQ(a, b)                                                                        \
    do {                                                                                      \
        long long check_a = (long long)(a);                                                   \
        long long check_b = (long long)(b);                                                   \
        if (check_a != check_b) {                                                             \
            fprintf(stderr, "%s:%d: %s = %lld, expected %s = %lld\n", __FILE__, __LINE__, #a, \
                    check_a, #b, check_b);                                                    \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

#endif
