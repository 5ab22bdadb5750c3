/* base/assert.h - assertions for our own mistakes, on in release builds too.
 * Bytes from the network or the disk never reach one (DESIGN law 2). */
#ifndef PST_BASE_ASSERT_H
#define PST_BASE_ASSERT_H

_Noreturn void pst_assert_fail(const char *expr, const char *file, int line);

#define PST_ASSERT(expr)                                \
    do {                                                \
        if (__builtin_expect(!(expr), 0)) {             \
            pst_assert_fail(#expr, __FILE__, __LINE__); \
        }                                               \
    } while (0)

#define PST_LIKELY(x) __builtin_expect(!!(x), 1)
#define PST_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Marks a field that threads other than the owner read; the comment beside it names the pairing. */
#define PST_SHARED

#endif
