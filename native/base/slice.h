/* base/slice.h - borrowed bytes.
 * Owner: whoever owns the memory pointed to; a slice never frees. */
#ifndef PST_BASE_SLICE_H
#define PST_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const uint8_t *data;
    size_t size;
} pst_slice;

typedef struct {
    uint8_t bytes[16];
} pst_uuid;

static inline pst_slice pst_slice_of(const void *data, size_t size) {
    return (pst_slice){.data = (const uint8_t *)data, .size = size};
}

static inline pst_slice pst_slice_str(const char *text) {
    return pst_slice_of(text, strlen(text));
}

static inline bool pst_slice_eq(pst_slice a, pst_slice b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline bool pst_uuid_eq(const pst_uuid *a, const pst_uuid *b) {
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

static inline bool pst_uuid_is_zero(const pst_uuid *a) {
    static const pst_uuid zero;
    return pst_uuid_eq(a, &zero);
}

#endif
