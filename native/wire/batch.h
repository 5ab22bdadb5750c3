/* wire/batch.h - record batch, magic 2: a borrowed view, patches in place, records, and a builder.
 *
 * Owner: whoever holds the struct; the bytes are borrowed. Layer: wire; pure functions on bytes.
 * Deliberately does not decompress (that is codec/), decide policy, or know partitions. Legacy
 * magic 0 and 1 are only recognised. Layout: Kafka's docs/implementation/message-format.
 *
 * (1) Nothing here trusts a length or count beyond the bytes given.
 * (2) Base offset and leader epoch lie outside the CRC; patching them leaves the batch valid. */
#ifndef PST_WIRE_BATCH_H
#define PST_WIRE_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/byte_buffer.h"
#include "base/slice.h"
#include "wire/reader.h"

enum {
    PST_BATCH_LOG_OVERHEAD = 12, /* base offset and batch length: present in every magic */
    PST_BATCH_MAGIC_OFFSET = 16,
    PST_BATCH_CRC_OFFSET = 17,
    PST_BATCH_CRC_START = 21, /* the CRC covers from here (attributes) to the end */
    PST_BATCH_HEADER_SIZE = 61,
    PST_BATCH_RECORD_SIZE_MIN =
        7, /* length, attributes, two deltas, null key, null value, no headers */
};

enum {
    PST_BATCH_CODEC_MASK = 0x07,
    PST_BATCH_LOG_APPEND_TIME = 0x08,
    PST_BATCH_TRANSACTIONAL = 0x10,
    PST_BATCH_CONTROL = 0x20,
    PST_BATCH_DELETE_HORIZON = 0x40,
};

/* A parsed header. Owner: the function that parses. */
typedef struct pst_batch {
    const uint8_t *data; /* the first byte of the batch (its base offset) */
    size_t size;         /* the whole batch in bytes: batch length + 12 */
    int64_t base_offset;
    int32_t leader_epoch;
    int8_t magic;
    uint32_t crc;
    int16_t attributes;
    int32_t last_offset_delta;
    int64_t base_timestamp;
    int64_t max_timestamp;
    int64_t producer_id; /* -1: none */
    int16_t producer_epoch;
    int32_t base_sequence;
    int32_t record_count;
} pst_batch;

/* Reads the header at the start of `bytes`, which may hold the header alone (61 bytes): for walking
 * a segment. Returns 0; -PST_ETRUNC when `bytes` is shorter than a header; -PST_EMALFORMED when the
 * batch length is below the smallest; -PST_EMAGIC for magic 0 and 1 (`data`, `size`, `base_offset`
 * and `magic` are set then) and -PST_EMALFORMED for other magics. Checks no field and no CRC. */
int pst_batch_header(pst_slice bytes, pst_batch *batch_out);

/* As pst_batch_header, and the whole batch must be inside `bytes` (-PST_ETRUNC else). More may
 * follow. */
int pst_batch_parse(pst_slice bytes, pst_batch *batch_out);

/* 0 or -PST_ECRC. */
int pst_batch_check_crc(const pst_batch *batch);

/* What Kafka requires of every batch from a client or in a log, CRC apart: codec known
 * (-PST_ECODEC); count >= 1, last offset delta = count - 1, an uncompressed count that fits its
 * bytes, producer id and sequence and epoch not below their minimum (-PST_ERECORD). Compacted
 * batches in a log break the delta rule: use pst_batch_check_stored for them. */
int pst_batch_check(const pst_batch *batch);

/* The weaker form for batches read back from a log: counts may be smaller than offsets, down to 0.
 */
int pst_batch_check_stored(const pst_batch *batch);

/* Everything a Produce handler needs first: parse, exactly one batch in `bytes`, base offset 0,
 * CRC, check. Codes: -PST_ETRUNC, -PST_EMALFORMED, -PST_ECRC (Kafka: CORRUPT_MESSAGE), -PST_EMAGIC
 * and -PST_ERECORD (INVALID_RECORD), -PST_ECODEC. Flags are left to the caller. */
int pst_batch_parse_produced(pst_slice bytes, pst_batch *batch_out);

static inline int pst_batch_codec(const pst_batch *batch) {
    return batch->attributes & PST_BATCH_CODEC_MASK;
}

static inline bool pst_batch_is_control(const pst_batch *batch) {
    return (batch->attributes & PST_BATCH_CONTROL) != 0;
}

static inline bool pst_batch_is_transactional(const pst_batch *batch) {
    return (batch->attributes & PST_BATCH_TRANSACTIONAL) != 0;
}

static inline bool pst_batch_is_log_append_time(const pst_batch *batch) {
    return (batch->attributes & PST_BATCH_LOG_APPEND_TIME) != 0;
}

static inline bool pst_batch_has_producer(const pst_batch *batch) {
    return batch->producer_id >= 0;
}

/* Sums of two header fields; they wrap instead of overflowing when a stored header lies. */
static inline int64_t pst_batch_last_offset(const pst_batch *batch) {
    return (int64_t)((uint64_t)batch->base_offset + (uint64_t)(int64_t)batch->last_offset_delta);
}

/* Sequences run modulo 2^31: after 2147483647 comes 0. */
static inline int32_t pst_sequence_add(int32_t sequence, int32_t delta) {
    return (int32_t)(((uint32_t)sequence + (uint32_t)delta) & INT32_MAX);
}

static inline int32_t pst_batch_last_sequence(const pst_batch *batch) {
    return batch->base_sequence < 0
               ? -1
               : pst_sequence_add(batch->base_sequence, batch->last_offset_delta);
}

/* The records section, compressed or not. Valid only after pst_batch_parse. */
static inline pst_slice pst_batch_records(const pst_batch *batch) {
    return pst_slice_of(batch->data + PST_BATCH_HEADER_SIZE, batch->size - PST_BATCH_HEADER_SIZE);
}

/* In place, outside the CRC. `data` points at the batch's first byte. */
void pst_batch_patch_offset(uint8_t *data, int64_t base_offset, int32_t leader_epoch);

/* LogAppendTime in place: attributes, max timestamp and CRC (by linearity: the records are not
 * read). `size` is the whole batch's. */
void pst_batch_patch_log_append_time(uint8_t *data, size_t size, int64_t timestamp);

/* One record of an uncompressed records section; slices are borrowed. */
typedef struct pst_record {
    int8_t attributes;
    bool key_null;
    bool value_null;
    int32_t offset_delta;
    int32_t header_count;
    int64_t timestamp_delta;
    pst_slice key;
    pst_slice value;
    pst_slice headers; /* the encoded headers, already bounds-checked: pst_record_header_next */
    size_t size;       /* the record in bytes with its length prefix */
} pst_record;

/* Owner: the function that iterates. */
typedef struct pst_record_iter {
    pst_reader reader;
    int32_t left;
} pst_record_iter;

/* `records` is the decompressed section, `count` the header's record count. */
void pst_record_iter_init(pst_record_iter *iter, pst_slice records, int32_t count);

/* 1 and a record; 0 at the end; -PST_ETRUNC or -PST_EMALFORMED (bytes left over too). */
int pst_record_iter_next(pst_record_iter *iter, pst_record *record_out);

/* Reads one header from the cursor over pst_record.headers. 1, or 0 at the end. */
int pst_record_header_next(pst_reader *headers, pst_slice *key_out, pst_slice *value_out,
                           bool *value_null_out);

/* What one walk over all records tells. */
typedef struct pst_record_scan {
    int64_t max_timestamp;       /* base + largest delta; -1 when there is none */
    int32_t max_timestamp_index; /* index of the first record that has it */
    int32_t null_key_index;      /* index of the first record without a key, -1: none */
    int64_t min_timestamp;
} pst_record_scan;

/* Walks an uncompressed section, checks each record, and that offset deltas are 0, 1, 2, ...
 * (-PST_ERECORD). */
int pst_batch_scan(const pst_batch *batch, pst_slice records, pst_record_scan *scan_out);

/* One record to write. Pointers are borrowed; NULL data with `*_null` set writes null. */
typedef struct pst_record_header {
    pst_slice key;
    pst_slice value;
    bool value_null;
} pst_record_header;

/* Owner: the function that builds. Fields above the line are set by pst_batch_builder_init and may
 * be changed before the first append. */
typedef struct pst_batch_builder {
    pst_byte_buffer *out; /* borrowed; the batch begins at its size at init */
    int64_t base_offset;
    int64_t producer_id;
    int32_t leader_epoch;
    int32_t base_sequence;
    int16_t producer_epoch;
    int16_t attributes; /* codec bits must be 0 */
    /* -- */
    size_t start;
    int64_t base_timestamp;
    int64_t max_timestamp;
    int32_t count;
    int err;
} pst_batch_builder;

/* No producer, base offset 0, epoch -1, attributes 0. */
void pst_batch_builder_init(pst_batch_builder *builder, pst_byte_buffer *out);

/* Appends one record. A sticky error; reported by finish too. */
int pst_batch_builder_append(pst_batch_builder *builder, int64_t timestamp, const pst_slice *key,
                             const pst_slice *value, const pst_record_header *headers,
                             size_t header_count);

/* Writes header and CRC. At least one record. Returns 0, -PST_ENOMEM, -PST_ELIMIT or -PST_ERECORD
 * (empty). */
int pst_batch_builder_finish(pst_batch_builder *builder);

/* Appends to `out` the batch with another records section and codec: header copied, codec bits,
 * length and CRC new. `records` must already be compressed with `codec`. */
int pst_batch_rewrite(const pst_batch *batch, int codec, pst_slice records, pst_byte_buffer *out);

#endif
