/* wire/writer.h - appends protocol primitives to a growable buffer.
 *
 * Owner: whoever holds the pst_writer, on its own stack; the buffer is borrowed. Layer: wire.
 * Deliberately does not send, compress or know any message.
 *
 * The error is sticky: after a failed growth nothing more is written, and `err` is -PST_ENOMEM or
 * -PST_ELIMIT (base/byte_buffer.h). Callers write a whole message, then check pst_writer_ok once.
 * Positions for reserve and patch count from the buffer's start, and stay valid as it grows. */
#ifndef PST_WIRE_WRITER_H
#define PST_WIRE_WRITER_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "base/byte_buffer.h"
#include "base/error.h"
#include "base/slice.h"

/* Owner: the function that writes. */
typedef struct pst_writer {
    pst_byte_buffer *buffer;
    int err;
} pst_writer;

static inline pst_writer pst_writer_of(pst_byte_buffer *buffer) {
    pst_writer w = {buffer, 0};
    return w;
}

static inline bool pst_writer_ok(const pst_writer *w) {
    return w->err == 0;
}

static inline void pst_writer_fail(pst_writer *w, int err) {
    if (w->err == 0) {
        w->err = err;
    }
}

static inline size_t pst_writer_position(const pst_writer *w) {
    return w->buffer->size;
}

/* Room for `size` bytes, counted as written; NULL after a failure. Valid until the next write. */
static inline uint8_t *pst_writer_reserve(pst_writer *w, size_t size) {
    if (w->err != 0) {
        return NULL;
    }
    pst_byte_buffer *b = w->buffer;
    if (size > b->capacity - b->size) {
        w->err = pst_byte_buffer_reserve(b, size);
        if (w->err != 0) {
            return NULL;
        }
    }
    uint8_t *at = b->data + b->size;
    b->size += size;
    return at;
}

static inline void pst_writer_raw(pst_writer *w, const void *bytes, size_t size) {
    if (size == 0) {
        return;
    }
    uint8_t *at = pst_writer_reserve(w, size);
    if (at != NULL) {
        memcpy(at, bytes, size);
    }
}

static inline void pst_writer_u8(pst_writer *w, uint8_t value) {
    uint8_t *at = pst_writer_reserve(w, 1);
    if (at != NULL) {
        *at = value;
    }
}

static inline void pst_writer_i8(pst_writer *w, int8_t value) {
    pst_writer_u8(w, (uint8_t)value);
}

static inline void pst_writer_bool(pst_writer *w, bool value) {
    pst_writer_u8(w, value ? 1 : 0);
}

static inline void pst_writer_u16(pst_writer *w, uint16_t value) {
    uint16_t raw = htobe16(value);
    pst_writer_raw(w, &raw, sizeof raw);
}

static inline void pst_writer_i16(pst_writer *w, int16_t value) {
    pst_writer_u16(w, (uint16_t)value);
}

static inline void pst_writer_u32(pst_writer *w, uint32_t value) {
    uint32_t raw = htobe32(value);
    pst_writer_raw(w, &raw, sizeof raw);
}

static inline void pst_writer_i32(pst_writer *w, int32_t value) {
    pst_writer_u32(w, (uint32_t)value);
}

static inline void pst_writer_u64(pst_writer *w, uint64_t value) {
    uint64_t raw = htobe64(value);
    pst_writer_raw(w, &raw, sizeof raw);
}

static inline void pst_writer_i64(pst_writer *w, int64_t value) {
    pst_writer_u64(w, (uint64_t)value);
}

static inline void pst_writer_f64(pst_writer *w, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    pst_writer_u64(w, bits);
}

static inline void pst_writer_uuid(pst_writer *w, pst_uuid id) {
    pst_writer_raw(w, id.bytes, sizeof id.bytes);
}

static inline void pst_writer_uvarlong(pst_writer *w, uint64_t value) {
    uint8_t encoded[10];
    size_t size = 0;
    while (value >= 0x80) {
        encoded[size++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    encoded[size++] = (uint8_t)value;
    pst_writer_raw(w, encoded, size);
}

static inline void pst_writer_uvarint(pst_writer *w, uint32_t value) {
    pst_writer_uvarlong(w, value);
}

static inline void pst_writer_varlong(pst_writer *w, int64_t value) {
    pst_writer_uvarlong(w, ((uint64_t)value << 1) ^ (uint64_t)(value >> 63));
}

static inline void pst_writer_varint(pst_writer *w, int32_t value) {
    pst_writer_uvarint(w, ((uint32_t)value << 1) ^ (uint32_t)(value >> 31));
}

/* Bytes that an unsigned varint of `value` takes. */
static inline size_t pst_uvarlong_size(uint64_t value) {
    return ((size_t)(63 - __builtin_clzll(value | 1)) * 9 + 73) / 64;
}

static inline size_t pst_varlong_size(int64_t value) {
    return pst_uvarlong_size(((uint64_t)value << 1) ^ (uint64_t)(value >> 63));
}

/* STRING; longer than 32767 bytes is -PST_ELIMIT. */
static inline void pst_writer_string(pst_writer *w, pst_slice value) {
    if (value.size > INT16_MAX) {
        pst_writer_fail(w, -PST_ELIMIT);
        return;
    }
    pst_writer_i16(w, (int16_t)value.size);
    pst_writer_raw(w, value.data, value.size);
}

/* The bytes' length must fit an int32, which every frame already guarantees. */
static inline void pst_writer_bytes(pst_writer *w, pst_slice value) {
    if (value.size > INT32_MAX) {
        pst_writer_fail(w, -PST_ELIMIT);
        return;
    }
    pst_writer_i32(w, (int32_t)value.size);
    pst_writer_raw(w, value.data, value.size);
}

static inline void pst_writer_compact_bytes(pst_writer *w, pst_slice value) {
    if (value.size >= INT32_MAX) {
        pst_writer_fail(w, -PST_ELIMIT);
        return;
    }
    pst_writer_uvarint(w, (uint32_t)value.size + 1);
    pst_writer_raw(w, value.data, value.size);
}

static inline void pst_writer_compact_string(pst_writer *w, pst_slice value) {
    if (value.size > INT16_MAX) {
        pst_writer_fail(w, -PST_ELIMIT);
        return;
    }
    pst_writer_compact_bytes(w, value);
}

/* Either form; a NULL pointer writes null. */
static inline void pst_writer_any_string(pst_writer *w, bool flexible, const pst_slice *value) {
    if (flexible) {
        if (value == NULL) {
            pst_writer_uvarint(w, 0);
        } else {
            pst_writer_compact_string(w, *value);
        }
    } else if (value == NULL) {
        pst_writer_i16(w, -1);
    } else {
        pst_writer_string(w, *value);
    }
}

static inline void pst_writer_any_bytes(pst_writer *w, bool flexible, const pst_slice *value) {
    if (flexible) {
        if (value == NULL) {
            pst_writer_uvarint(w, 0);
        } else {
            pst_writer_compact_bytes(w, *value);
        }
    } else if (value == NULL) {
        pst_writer_i32(w, -1);
    } else {
        pst_writer_bytes(w, *value);
    }
}

/* The length prefix alone of BYTES or RECORDS whose bytes leave by other means (sendfile). */
static inline void pst_writer_any_bytes_size(pst_writer *w, bool flexible, uint32_t size) {
    if (flexible) {
        pst_writer_uvarint(w, size + 1);
    } else {
        pst_writer_u32(w, size);
    }
}

static inline void pst_writer_array(pst_writer *w, int32_t count) {
    pst_writer_i32(w, count);
}

static inline void pst_writer_compact_array(pst_writer *w, int32_t count) {
    pst_writer_uvarint(w, (uint32_t)(count + 1));
}

/* The count of either form; -1 writes null. */
static inline void pst_writer_any_array(pst_writer *w, bool flexible, int32_t count) {
    if (flexible) {
        pst_writer_compact_array(w, count);
    } else {
        pst_writer_array(w, count);
    }
}

/* An empty tagged section, in flexible versions only. */
static inline void pst_writer_no_tagged(pst_writer *w, bool flexible) {
    if (flexible) {
        pst_writer_u8(w, 0);
    }
}

/* An int32 to be patched later; returns its position (0 after a failure: patching is then ignored).
 */
static inline size_t pst_writer_reserve_i32(pst_writer *w) {
    size_t at = pst_writer_position(w);
    pst_writer_i32(w, 0);
    return at;
}

static inline void pst_writer_patch_i32(pst_writer *w, size_t at, int32_t value) {
    if (w->err != 0) {
        return;
    }
    PST_ASSERT(w->buffer->size >= sizeof(int32_t) && at <= w->buffer->size - sizeof(int32_t));
    uint32_t raw = htobe32((uint32_t)value);
    memcpy(w->buffer->data + at, &raw, sizeof raw);
}

/* Patches the int32 at `at` with the count of bytes written after it: a frame's or a batch's
 * length. */
static inline void pst_writer_patch_size(pst_writer *w, size_t at) {
    if (w->err != 0) {
        return;
    }
    size_t size = pst_writer_position(w) - at - sizeof(int32_t);
    if (size > INT32_MAX) {
        pst_writer_fail(w, -PST_ELIMIT);
        return;
    }
    pst_writer_patch_i32(w, at, (int32_t)size);
}

#endif
