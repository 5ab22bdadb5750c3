/* base/assert.c - the end of a process that broke its own invariant. */
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void pst_assert_fail(const char *expr, const char *file, int line) {
    fprintf(stderr, "penstock: assertion failed: %s (%s:%d)\n", expr, file, line);
    abort();
}
