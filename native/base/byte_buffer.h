/* base/byte_buffer.h - a growable run of bytes with an optional limit and an optional allocator.
 *
 * Owner: whoever holds the pst_byte_buffer; no locking. Layer: base.
 * Deliberately has no read position and never shrinks. */
#ifndef PST_BASE_BYTE_BUFFER_H
#define PST_BASE_BYTE_BUFFER_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/slice.h"

/* Owner: its holder. A zeroed struct is an empty buffer on the heap without limit. */
typedef struct pst_byte_buffer {
    uint8_t *data;
    size_t size;
    size_t capacity;
    size_t limit; /* Largest size in bytes; 0 means none. Growing past it is -PST_ELIMIT. */
    /* Gives `data` at least `capacity` bytes, keeps the first `size`, and updates both fields.
     * Returns 0 or -PST_ENOMEM. NULL: realloc. */
    int (*grow)(struct pst_byte_buffer *buffer, size_t capacity);
    void *grow_context;
} pst_byte_buffer;

/* An empty buffer on the heap; `limit` as in the struct. */
static inline pst_byte_buffer pst_byte_buffer_heap(size_t limit) {
    return (pst_byte_buffer){.limit = limit};
}

/* Makes room for `extra` more bytes. Returns 0, -PST_ELIMIT or -PST_ENOMEM; on failure nothing
 * changes. */
static inline int pst_byte_buffer_reserve(pst_byte_buffer *b, size_t extra) {
    if (extra <= b->capacity - b->size) {
        if (b->limit != 0 && (b->size > b->limit || extra > b->limit - b->size)) {
            return -PST_ELIMIT;
        }
        return 0;
    }
    size_t most = b->limit != 0 ? b->limit : SIZE_MAX / 4;
    if (b->size > most || extra > most - b->size) {
        return -PST_ELIMIT;
    }
    size_t wanted = b->size + extra;
    size_t capacity = b->capacity < 64 ? 64 : b->capacity + b->capacity / 2;
    capacity = capacity < wanted ? wanted : capacity;
    capacity = capacity > most ? most : capacity;
    if (b->grow != NULL) {
        return b->grow(b, capacity);
    }
    uint8_t *data = realloc(b->data, capacity);
    if (data == NULL) {
        return -PST_ENOMEM;
    }
    b->data = data;
    b->capacity = capacity;
    return 0;
}

static inline int pst_byte_buffer_append(pst_byte_buffer *b, const void *bytes, size_t size) {
    int rc = pst_byte_buffer_reserve(b, size);
    if (rc == 0 && size != 0) {
        memcpy(b->data + b->size, bytes, size);
        b->size += size;
    }
    return rc;
}

static inline pst_slice pst_byte_buffer_slice(const pst_byte_buffer *b) {
    return (pst_slice){b->data, b->size};
}

/* Frees a heap buffer (grow == NULL) and empties it; the limit stays. */
static inline void pst_byte_buffer_fini(pst_byte_buffer *b) {
    if (b->grow == NULL) {
        free(b->data);
    }
    b->data = NULL;
    b->size = 0;
    b->capacity = 0;
}

#endif
