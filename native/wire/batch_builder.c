/* wire/batch_builder.c - writes record batches of magic 2, and rewrites one with another records
 * section.
 *
 * Owner: nobody; pure functions on bytes. Layer: wire. Deliberately does not compress. */
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "wire/batch.h"
#include "wire/writer.h"

/* Smallest length of a varint-prefixed field; null takes one byte. */
static size_t sized_size(const pst_slice *value) {
    return value == NULL ? 1 : pst_varlong_size((int64_t)value->size) + value->size;
}

static void write_sized(pst_writer *w, const pst_slice *value) {
    if (value == NULL) {
        pst_writer_varint(w, -1);
        return;
    }
    pst_writer_varint(w, (int32_t)value->size);
    pst_writer_raw(w, value->data, value->size);
}

/* Writes length and CRC of the batch that starts at `start` and ends with the buffer. */
static int seal(pst_byte_buffer *out, size_t start) {
    size_t size = out->size - start;
    if (size - PST_BATCH_LOG_OVERHEAD > INT32_MAX) {
        return -PST_ELIMIT;
    }
    uint8_t *data = out->data + start;
    uint32_t length = htobe32((uint32_t)(size - PST_BATCH_LOG_OVERHEAD));
    memcpy(data + 8, &length, sizeof length);
    uint32_t crc = htobe32(pst_crc32c(0, data + PST_BATCH_CRC_START, size - PST_BATCH_CRC_START));
    memcpy(data + PST_BATCH_CRC_OFFSET, &crc, sizeof crc);
    return 0;
}

void pst_batch_builder_init(pst_batch_builder *builder, pst_byte_buffer *out) {
    *builder = (pst_batch_builder){
        .out = out,
        .producer_id = -1,
        .producer_epoch = -1,
        .base_sequence = -1,
        .leader_epoch = -1,
        .start = out->size,
    };
    pst_writer w = pst_writer_of(out);
    uint8_t *header = pst_writer_reserve(&w, PST_BATCH_HEADER_SIZE);
    if (header != NULL) {
        memset(header, 0, PST_BATCH_HEADER_SIZE);
    }
    builder->err = w.err;
}

int pst_batch_builder_append(pst_batch_builder *builder, int64_t timestamp, const pst_slice *key,
                             const pst_slice *value, const pst_record_header *headers,
                             size_t header_count) {
    if (builder->err != 0) {
        return builder->err;
    }
    if (builder->count == INT32_MAX) {
        builder->err = -PST_ELIMIT;
        return builder->err;
    }
    if (builder->count == 0) {
        builder->base_timestamp = timestamp;
        builder->max_timestamp = timestamp;
    } else if (timestamp > builder->max_timestamp) {
        builder->max_timestamp = timestamp;
    }
    int64_t delta = (int64_t)((uint64_t)timestamp - (uint64_t)builder->base_timestamp);
    size_t size = 1 + pst_varlong_size(delta) + pst_varlong_size(builder->count) + sized_size(key) +
                  sized_size(value) + pst_varlong_size((int64_t)header_count);
    for (size_t i = 0; i < header_count; i++) {
        size += sized_size(&headers[i].key) +
                sized_size(headers[i].value_null ? NULL : &headers[i].value);
    }
    if (size > INT32_MAX) {
        builder->err = -PST_ELIMIT;
        return builder->err;
    }
    pst_writer w = pst_writer_of(builder->out);
    pst_writer_varint(&w, (int32_t)size);
    pst_writer_i8(&w, 0);
    pst_writer_varlong(&w, delta);
    pst_writer_varint(&w, builder->count);
    write_sized(&w, key);
    write_sized(&w, value);
    pst_writer_varint(&w, (int32_t)header_count);
    for (size_t i = 0; i < header_count; i++) {
        write_sized(&w, &headers[i].key);
        write_sized(&w, headers[i].value_null ? NULL : &headers[i].value);
    }
    builder->err = w.err;
    builder->count++;
    return builder->err;
}

int pst_batch_builder_finish(pst_batch_builder *builder) {
    if (builder->err != 0) {
        return builder->err;
    }
    if (builder->count == 0) {
        return -PST_ERECORD;
    }
    /* The header's own room is already in the buffer: write it through a second, fixed one. */
    pst_byte_buffer fixed = {.data = builder->out->data + builder->start,
                             .capacity = PST_BATCH_HEADER_SIZE,
                             .limit = PST_BATCH_HEADER_SIZE};
    pst_writer w = pst_writer_of(&fixed);
    pst_writer_i64(&w, builder->base_offset);
    pst_writer_i32(&w, 0);
    pst_writer_i32(&w, builder->leader_epoch);
    pst_writer_i8(&w, 2);
    pst_writer_u32(&w, 0);
    pst_writer_i16(&w, builder->attributes);
    pst_writer_i32(&w, builder->count - 1);
    pst_writer_i64(&w, builder->base_timestamp);
    pst_writer_i64(&w, builder->max_timestamp);
    pst_writer_i64(&w, builder->producer_id);
    pst_writer_i16(&w, builder->producer_epoch);
    pst_writer_i32(&w, builder->base_sequence);
    pst_writer_i32(&w, builder->count);
    PST_ASSERT(w.err == 0 && fixed.size == PST_BATCH_HEADER_SIZE);
    return seal(builder->out, builder->start);
}

int pst_batch_rewrite(const pst_batch *batch, int codec, pst_slice records, pst_byte_buffer *out) {
    size_t start = out->size;
    if (records.size > INT32_MAX) {
        return -PST_ELIMIT;
    }
    PST_TRY(pst_byte_buffer_reserve(out, PST_BATCH_HEADER_SIZE + records.size));
    PST_TRY(pst_byte_buffer_append(out, batch->data, PST_BATCH_HEADER_SIZE));
    PST_TRY(pst_byte_buffer_append(out, records.data, records.size));
    uint8_t *attributes = out->data + start + PST_BATCH_CRC_START;
    attributes[1] = (uint8_t)((attributes[1] & ~PST_BATCH_CODEC_MASK) | codec);
    int rc = seal(out, start);
    if (rc != 0) {
        out->size = start;
    }
    return rc;
}
