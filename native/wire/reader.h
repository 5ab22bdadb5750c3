/* wire/reader.h - the bounded cursor: every byte from a socket or a file is parsed through it.
 *
 * Owner: whoever holds the pst_reader, on its own stack; the bytes are borrowed. Layer: wire.
 * Deliberately does not copy, allocate, log or know any message.
 *
 * Rules:
 * (1) The error is sticky. The first failure sets `err` and moves `cur` to `end`, so that each
 * later read fails too and returns zero or an empty slice. Callers read a whole struct, then check
 * once. (2) A varint ends after 5 bytes, a varlong after 10, and both at `end`. (3) An array count
 * is refused when it exceeds the bytes left divided by the smallest element, so that a caller may
 * allocate `count` elements without a second check. (4) Null is a flag, never a length of -1. A
 * field that may not be null and is, is an error.
 *
 * Errors: -PST_ETRUNC when the bytes end early, -PST_EMALFORMED for a value that cannot be. */
#ifndef PST_WIRE_READER_H
#define PST_WIRE_READER_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"
#include "base/slice.h"

/* KIP-482 sets no limit to unknown tagged fields; these are ours (DESIGN law 1). */
#define PST_TAGGED_FIELDS_MAX 256u
#define PST_TAGGED_FIELD_SIZE_MAX (128u * 1024u)

/* Owner: the function that parses. */
typedef struct pst_reader {
    const uint8_t *cur;
    const uint8_t *end;
    int err;
} pst_reader;

static inline pst_reader pst_reader_of(pst_slice bytes) {
    pst_reader r = {bytes.data, bytes.data == NULL ? NULL : bytes.data + bytes.size, 0};
    return r;
}

static inline size_t pst_reader_left(const pst_reader *r) {
    return (size_t)(r->end - r->cur);
}

static inline bool pst_reader_ok(const pst_reader *r) {
    return r->err == 0;
}

/* Marks the reader as failed with `err` (a negative code); the first failure stays. */
static inline void pst_reader_fail(pst_reader *r, int err) {
    if (r->err == 0) {
        r->err = err;
    }
    r->cur = r->end;
}

/* 0 when everything was read without error and nothing is left, else the error. */
static inline int pst_reader_finish(const pst_reader *r) {
    if (r->err != 0) {
        return r->err;
    }
    return r->cur == r->end ? 0 : -PST_EMALFORMED;
}

/* The next `size` bytes, or NULL after a failure. */
static inline const uint8_t *pst_reader_take(pst_reader *r, size_t size) {
    if (size > pst_reader_left(r)) {
        pst_reader_fail(r, -PST_ETRUNC);
        return NULL;
    }
    const uint8_t *at = r->cur;
    r->cur += size;
    return at;
}

static inline pst_slice pst_reader_slice(pst_reader *r, size_t size) {
    const uint8_t *at = pst_reader_take(r, size);
    return at == NULL ? (pst_slice){NULL, 0} : (pst_slice){at, size};
}

static inline void pst_reader_skip(pst_reader *r, size_t size) {
    (void)pst_reader_take(r, size);
}

static inline uint8_t pst_reader_u8(pst_reader *r) {
    const uint8_t *at = pst_reader_take(r, 1);
    return at == NULL ? 0 : *at;
}

static inline int8_t pst_reader_i8(pst_reader *r) {
    return (int8_t)pst_reader_u8(r);
}

static inline bool pst_reader_bool(pst_reader *r) {
    return pst_reader_u8(r) != 0;
}

static inline uint16_t pst_reader_u16(pst_reader *r) {
    uint16_t raw = 0;
    const uint8_t *at = pst_reader_take(r, sizeof raw);
    if (at != NULL) {
        memcpy(&raw, at, sizeof raw);
    }
    return be16toh(raw);
}

static inline int16_t pst_reader_i16(pst_reader *r) {
    return (int16_t)pst_reader_u16(r);
}

static inline uint32_t pst_reader_u32(pst_reader *r) {
    uint32_t raw = 0;
    const uint8_t *at = pst_reader_take(r, sizeof raw);
    if (at != NULL) {
        memcpy(&raw, at, sizeof raw);
    }
    return be32toh(raw);
}

static inline int32_t pst_reader_i32(pst_reader *r) {
    return (int32_t)pst_reader_u32(r);
}

static inline uint64_t pst_reader_u64(pst_reader *r) {
    uint64_t raw = 0;
    const uint8_t *at = pst_reader_take(r, sizeof raw);
    if (at != NULL) {
        memcpy(&raw, at, sizeof raw);
    }
    return be64toh(raw);
}

static inline int64_t pst_reader_i64(pst_reader *r) {
    return (int64_t)pst_reader_u64(r);
}

static inline double pst_reader_f64(pst_reader *r) {
    uint64_t bits = pst_reader_u64(r);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline pst_uuid pst_reader_uuid(pst_reader *r) {
    pst_uuid id = {{0}};
    const uint8_t *at = pst_reader_take(r, sizeof id.bytes);
    if (at != NULL) {
        memcpy(id.bytes, at, sizeof id.bytes);
    }
    return id;
}

/* Unsigned LEB128 of at most `bytes_max` bytes; bits beyond `bits` are an error. */
static inline uint64_t pst_reader_leb128(pst_reader *r, unsigned bytes_max, unsigned bits) {
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes_max; i++) {
        if (r->cur == r->end) {
            pst_reader_fail(r, -PST_ETRUNC);
            return 0;
        }
        uint64_t byte = *r->cur++;
        unsigned shift = 7 * i;
        if (shift + 7 > bits && ((byte & 0x7f) >> (bits - shift)) != 0) {
            break;
        }
        value |= (byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            return value;
        }
    }
    pst_reader_fail(r, -PST_EMALFORMED);
    return 0;
}

/* The protocol's UNSIGNED_VARINT. */
static inline uint32_t pst_reader_uvarint(pst_reader *r) {
    if (r->cur != r->end && (*r->cur & 0x80) == 0) {
        return *r->cur++;
    }
    return (uint32_t)pst_reader_leb128(r, 5, 32);
}

static inline uint64_t pst_reader_uvarlong(pst_reader *r) {
    if (r->cur != r->end && (*r->cur & 0x80) == 0) {
        return *r->cur++;
    }
    return pst_reader_leb128(r, 10, 64);
}

/* The protocol's VARINT and VARLONG: zigzag over the unsigned form. */
static inline int32_t pst_reader_varint(pst_reader *r) {
    uint32_t raw = pst_reader_uvarint(r);
    return (int32_t)((raw >> 1) ^ (0u - (raw & 1u)));
}

static inline int64_t pst_reader_varlong(pst_reader *r) {
    uint64_t raw = pst_reader_uvarlong(r);
    return (int64_t)((raw >> 1) ^ (0u - (raw & 1u)));
}

/* `length` of a nullable value: -1 is null, less is an error. */
static inline pst_slice pst_reader__sized(pst_reader *r, int64_t length, bool *null_out) {
    *null_out = false;
    if (length < 0) {
        if (length == -1 && r->err == 0) {
            *null_out = true;
        } else {
            pst_reader_fail(r, -PST_EMALFORMED);
        }
        return (pst_slice){NULL, 0};
    }
    return pst_reader_slice(r, (size_t)length);
}

static inline pst_slice pst_reader__not_null(pst_reader *r, pst_slice value, bool null) {
    if (null) {
        pst_reader_fail(r, -PST_EMALFORMED);
    }
    return value;
}

/* STRING, NULLABLE_STRING: int16 length. The slice is borrowed from the frame; not checked as
 * UTF-8. */
static inline pst_slice pst_reader_nullable_string(pst_reader *r, bool *null_out) {
    return pst_reader__sized(r, pst_reader_i16(r), null_out);
}

static inline pst_slice pst_reader_string(pst_reader *r) {
    bool null;
    pst_slice value = pst_reader_nullable_string(r, &null);
    return pst_reader__not_null(r, value, null);
}

/* BYTES, NULLABLE_BYTES, RECORDS before flexible versions: int32 length. */
static inline pst_slice pst_reader_nullable_bytes(pst_reader *r, bool *null_out) {
    return pst_reader__sized(r, pst_reader_i32(r), null_out);
}

static inline pst_slice pst_reader_bytes(pst_reader *r) {
    bool null;
    pst_slice value = pst_reader_nullable_bytes(r, &null);
    return pst_reader__not_null(r, value, null);
}

/* COMPACT_BYTES and COMPACT_RECORDS: unsigned varint of length + 1, 0 is null. */
static inline pst_slice pst_reader_compact_nullable_bytes(pst_reader *r, bool *null_out) {
    return pst_reader__sized(r, (int64_t)pst_reader_uvarint(r) - 1, null_out);
}

static inline pst_slice pst_reader_compact_bytes(pst_reader *r) {
    bool null;
    pst_slice value = pst_reader_compact_nullable_bytes(r, &null);
    return pst_reader__not_null(r, value, null);
}

/* COMPACT_STRING: as COMPACT_BYTES, and at most 32767 bytes long (Kafka refuses longer ones). */
static inline pst_slice pst_reader_compact_nullable_string(pst_reader *r, bool *null_out) {
    int64_t length = (int64_t)pst_reader_uvarint(r) - 1;
    return pst_reader__sized(r, length > INT16_MAX ? -2 : length, null_out);
}

static inline pst_slice pst_reader_compact_string(pst_reader *r) {
    bool null;
    pst_slice value = pst_reader_compact_nullable_string(r, &null);
    return pst_reader__not_null(r, value, null);
}

/* Either form, for code that serves flexible and older versions alike. */
static inline pst_slice pst_reader_any_string(pst_reader *r, bool flexible) {
    return flexible ? pst_reader_compact_string(r) : pst_reader_string(r);
}

static inline pst_slice pst_reader_any_nullable_string(pst_reader *r, bool flexible,
                                                       bool *null_out) {
    return flexible ? pst_reader_compact_nullable_string(r, null_out)
                    : pst_reader_nullable_string(r, null_out);
}

static inline pst_slice pst_reader_any_bytes(pst_reader *r, bool flexible) {
    return flexible ? pst_reader_compact_bytes(r) : pst_reader_bytes(r);
}

static inline pst_slice pst_reader_any_nullable_bytes(pst_reader *r, bool flexible,
                                                      bool *null_out) {
    return flexible ? pst_reader_compact_nullable_bytes(r, null_out)
                    : pst_reader_nullable_bytes(r, null_out);
}

static inline int32_t pst_reader__counted(pst_reader *r, int64_t count, size_t element_size_min,
                                          bool *null_out) {
    *null_out = false;
    if (count < 0) {
        if (count == -1 && r->err == 0) {
            *null_out = true;
        } else {
            pst_reader_fail(r, -PST_EMALFORMED);
        }
        return 0;
    }
    size_t smallest = element_size_min == 0 ? 1 : element_size_min;
    if ((uint64_t)count > pst_reader_left(r) / smallest) {
        pst_reader_fail(r, -PST_ETRUNC);
        return 0;
    }
    return (int32_t)count;
}

/* ARRAY (int32 count) and COMPACT_ARRAY (unsigned varint of count + 1). `element_size_min` is the
 * fewest bytes one element takes. Returns the count, 0 for null and after a failure. */
static inline int32_t pst_reader_nullable_array(pst_reader *r, size_t element_size_min,
                                                bool *null_out) {
    return pst_reader__counted(r, pst_reader_i32(r), element_size_min, null_out);
}

static inline int32_t pst_reader_compact_nullable_array(pst_reader *r, size_t element_size_min,
                                                        bool *null_out) {
    return pst_reader__counted(r, (int64_t)pst_reader_uvarint(r) - 1, element_size_min, null_out);
}

static inline int32_t pst_reader_any_nullable_array(pst_reader *r, bool flexible,
                                                    size_t element_size_min, bool *null_out) {
    return flexible ? pst_reader_compact_nullable_array(r, element_size_min, null_out)
                    : pst_reader_nullable_array(r, element_size_min, null_out);
}

static inline int32_t pst_reader_any_array(pst_reader *r, bool flexible, size_t element_size_min) {
    bool null;
    int32_t count = pst_reader_any_nullable_array(r, flexible, element_size_min, &null);
    if (null) {
        pst_reader_fail(r, -PST_EMALFORMED);
    }
    return count;
}

static inline int32_t pst_reader_array(pst_reader *r, size_t element_size_min) {
    return pst_reader_any_array(r, false, element_size_min);
}

static inline int32_t pst_reader_compact_array(pst_reader *r, size_t element_size_min) {
    return pst_reader_any_array(r, true, element_size_min);
}

/* Tagged fields (KIP-482). To read known ones:
 *     uint32_t count = pst_reader_tagged_count(&r);
 *     for (uint32_t i = 0; i < count; i++) {
 *         uint32_t tag;
 *         pst_reader field = pst_reader_tagged_next(&r, &tag);
 *         if (tag == 0) { ...read from &field...; if (pst_reader_finish(&field) != 0) fail }
 *     }
 * A field that is not read is thereby skipped. */
static inline uint32_t pst_reader_tagged_count(pst_reader *r) {
    uint32_t count = pst_reader_uvarint(r);
    if (count > PST_TAGGED_FIELDS_MAX || count > pst_reader_left(r) / 2) {
        pst_reader_fail(r, -PST_EMALFORMED);
        return 0;
    }
    return count;
}

static inline pst_reader pst_reader_tagged_next(pst_reader *r, uint32_t *tag_out) {
    *tag_out = pst_reader_uvarint(r);
    uint32_t size = pst_reader_uvarint(r);
    if (size > PST_TAGGED_FIELD_SIZE_MAX) {
        pst_reader_fail(r, -PST_EMALFORMED);
    }
    if (r->err != 0) {
        *tag_out = UINT32_MAX;
    }
    pst_reader field = pst_reader_of(pst_reader_slice(r, r->err == 0 ? size : 0));
    field.err = r->err;
    return field;
}

/* Skips a whole tagged section without storing anything of it. */
static inline void pst_reader_skip_tagged(pst_reader *r) {
    uint32_t count = pst_reader_tagged_count(r);
    for (uint32_t i = 0; i < count && r->err == 0; i++) {
        uint32_t tag;
        (void)pst_reader_tagged_next(r, &tag);
    }
}

#endif
