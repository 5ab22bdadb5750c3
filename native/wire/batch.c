/* wire/batch.c - parsing, checking, patching and reading record batches of magic 2.
 *
 * Owner: nobody; pure functions on bytes. Layer: wire. Building is in batch_builder.c. */
#include "wire/batch.h"

#include <endian.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/error.h"

/* Offsets of header fields that are written in place. */
enum {
    OFFSET_LEADER_EPOCH = 12,
    OFFSET_ATTRIBUTES = 21,
    OFFSET_MAX_TIMESTAMP = 35,
    LEGACY_SIZE_MIN = 26, /* offset, size, and the 14 bytes of an empty magic 0 record */
};

_Static_assert((int)PST_BATCH_CRC_START == (int)OFFSET_ATTRIBUTES,
               "the CRC starts at the attributes");

int pst_batch_header(pst_slice bytes, pst_batch *batch_out) {
    memset(batch_out, 0, sizeof *batch_out);
    pst_reader r = pst_reader_of(bytes);
    int64_t base_offset = pst_reader_i64(&r);
    int32_t length = pst_reader_i32(&r);
    int32_t leader_epoch = pst_reader_i32(&r);
    int8_t magic = pst_reader_i8(&r);
    if (!pst_reader_ok(&r)) {
        return r.err;
    }
    batch_out->data = bytes.data;
    batch_out->base_offset = base_offset;
    batch_out->magic = magic;
    if (magic < 0 || magic > 2 || length < LEGACY_SIZE_MIN - PST_BATCH_LOG_OVERHEAD) {
        return -PST_EMALFORMED;
    }
    batch_out->size = (size_t)length + PST_BATCH_LOG_OVERHEAD;
    if (magic < 2) {
        return -PST_EMAGIC;
    }
    if (batch_out->size < PST_BATCH_HEADER_SIZE) {
        return -PST_EMALFORMED;
    }
    batch_out->leader_epoch = leader_epoch;
    batch_out->crc = pst_reader_u32(&r);
    batch_out->attributes = pst_reader_i16(&r);
    batch_out->last_offset_delta = pst_reader_i32(&r);
    batch_out->base_timestamp = pst_reader_i64(&r);
    batch_out->max_timestamp = pst_reader_i64(&r);
    batch_out->producer_id = pst_reader_i64(&r);
    batch_out->producer_epoch = pst_reader_i16(&r);
    batch_out->base_sequence = pst_reader_i32(&r);
    batch_out->record_count = pst_reader_i32(&r);
    return r.err;
}

int pst_batch_parse(pst_slice bytes, pst_batch *batch_out) {
    int rc = pst_batch_header(bytes, batch_out);
    if (rc == 0 && batch_out->size > bytes.size) {
        return -PST_ETRUNC;
    }
    return rc;
}

int pst_batch_check_crc(const pst_batch *batch) {
    uint32_t crc =
        pst_crc32c(0, batch->data + PST_BATCH_CRC_START, batch->size - PST_BATCH_CRC_START);
    return crc == batch->crc ? 0 : -PST_ECRC;
}

int pst_batch_check(const pst_batch *batch) {
    if (pst_batch_codec(batch) > 4) {
        return -PST_ECODEC;
    }
    if (batch->record_count < 1 || batch->last_offset_delta != batch->record_count - 1) {
        return -PST_ERECORD;
    }
    size_t records_size = batch->size - PST_BATCH_HEADER_SIZE;
    if (pst_batch_codec(batch) == 0 &&
        (size_t)batch->record_count > records_size / PST_BATCH_RECORD_SIZE_MIN) {
        return -PST_ERECORD;
    }
    if (batch->producer_id < -1) {
        return -PST_ERECORD;
    }
    if (pst_batch_has_producer(batch) && (batch->base_sequence < 0 || batch->producer_epoch < 0)) {
        return -PST_ERECORD;
    }
    return 0;
}

int pst_batch_check_stored(const pst_batch *batch) {
    if (pst_batch_codec(batch) > 4) {
        return -PST_ECODEC;
    }
    if (batch->base_offset < 0 || batch->last_offset_delta < 0 ||
        batch->base_offset > INT64_MAX - batch->last_offset_delta) {
        return -PST_ERECORD;
    }
    /* Compaction may remove any record but keeps the offsets that the batch spans. */
    if (batch->record_count < 0 || batch->record_count - 1 > batch->last_offset_delta) {
        return -PST_ERECORD;
    }
    return 0;
}

int pst_batch_parse_produced(pst_slice bytes, pst_batch *batch_out) {
    if (bytes.size == 0) {
        memset(batch_out, 0, sizeof *batch_out);
        return -PST_ERECORD;
    }
    PST_TRY(pst_batch_parse(bytes, batch_out));
    if (batch_out->size != bytes.size || batch_out->base_offset != 0) {
        return -PST_ERECORD;
    }
    PST_TRY(pst_batch_check_crc(batch_out));
    return pst_batch_check(batch_out);
}

void pst_batch_patch_offset(uint8_t *data, int64_t base_offset, int32_t leader_epoch) {
    uint64_t offset = htobe64((uint64_t)base_offset);
    uint32_t epoch = htobe32((uint32_t)leader_epoch);
    memcpy(data, &offset, sizeof offset);
    memcpy(data + OFFSET_LEADER_EPOCH, &epoch, sizeof epoch);
}

void pst_batch_patch_log_append_time(uint8_t *data, size_t size, int64_t timestamp) {
    enum { CHANGED = OFFSET_MAX_TIMESTAMP + 8 - OFFSET_ATTRIBUTES };
    PST_ASSERT(size >= PST_BATCH_HEADER_SIZE);
    uint8_t *changed = data + OFFSET_ATTRIBUTES;
    uint8_t diff[CHANGED];
    memcpy(diff, changed, CHANGED);
    changed[1] = (uint8_t)(changed[1] | PST_BATCH_LOG_APPEND_TIME);
    uint64_t time = htobe64((uint64_t)timestamp);
    memcpy(data + OFFSET_MAX_TIMESTAMP, &time, sizeof time);
    for (size_t i = 0; i < CHANGED; i++) {
        diff[i] ^= changed[i];
    }
    uint32_t crc;
    memcpy(&crc, data + PST_BATCH_CRC_OFFSET, sizeof crc);
    crc = pst_crc32c_patch(be32toh(crc), diff, CHANGED, size - OFFSET_ATTRIBUTES - CHANGED);
    crc = htobe32(crc);
    memcpy(data + PST_BATCH_CRC_OFFSET, &crc, sizeof crc);
}

void pst_record_iter_init(pst_record_iter *iter, pst_slice records, int32_t count) {
    iter->reader = pst_reader_of(records);
    iter->left = count;
}

/* A varint length and that many bytes; -1 is null. */
static pst_slice read_sized(pst_reader *r, bool *null_out) {
    return pst_reader__sized(r, pst_reader_varint(r), null_out);
}

int pst_record_header_next(pst_reader *headers, pst_slice *key_out, pst_slice *value_out,
                           bool *value_null_out) {
    *key_out = (pst_slice){NULL, 0};
    *value_out = (pst_slice){NULL, 0};
    *value_null_out = true;
    if (headers->err != 0) {
        return headers->err;
    }
    if (pst_reader_left(headers) == 0) {
        return 0;
    }
    bool key_null;
    *key_out = read_sized(headers, &key_null);
    *value_out = read_sized(headers, value_null_out);
    if (key_null) {
        pst_reader_fail(headers, -PST_EMALFORMED);
    }
    return headers->err != 0 ? headers->err : 1;
}

int pst_record_iter_next(pst_record_iter *iter, pst_record *record_out) {
    memset(record_out, 0, sizeof *record_out);
    pst_reader *r = &iter->reader;
    if (iter->left <= 0) {
        return pst_reader_finish(r);
    }
    const uint8_t *start = r->cur;
    int32_t size = pst_reader_varint(r);
    if (size < 0) {
        pst_reader_fail(r, -PST_EMALFORMED);
    }
    pst_reader body = pst_reader_of(pst_reader_slice(r, r->err == 0 ? (size_t)size : 0));
    if (r->err != 0) {
        return r->err;
    }
    record_out->size = (size_t)(r->cur - start);
    record_out->attributes = pst_reader_i8(&body);
    record_out->timestamp_delta = pst_reader_varlong(&body);
    record_out->offset_delta = pst_reader_varint(&body);
    record_out->key = read_sized(&body, &record_out->key_null);
    record_out->value = read_sized(&body, &record_out->value_null);
    record_out->header_count = pst_reader_varint(&body);
    if (record_out->header_count < 0 ||
        (size_t)record_out->header_count > pst_reader_left(&body) / 2) {
        pst_reader_fail(&body, -PST_EMALFORMED);
    }
    record_out->headers = pst_slice_of(body.cur, pst_reader_left(&body));
    for (int32_t i = 0; i < record_out->header_count && body.err == 0; i++) {
        pst_slice key;
        pst_slice value;
        bool value_null;
        if (pst_record_header_next(&body, &key, &value, &value_null) == 0) {
            pst_reader_fail(&body, -PST_EMALFORMED);
        }
    }
    if (pst_reader_finish(&body) != 0) {
        /* A record that is cut or too long inside its own length is a lie, not a short read. */
        pst_reader_fail(r, -PST_EMALFORMED);
        return r->err;
    }
    iter->left--;
    return 1;
}

int pst_batch_scan(const pst_batch *batch, pst_slice records, pst_record_scan *scan_out) {
    *scan_out = (pst_record_scan){.max_timestamp = -1,
                                  .max_timestamp_index = -1,
                                  .null_key_index = -1,
                                  .min_timestamp = INT64_MAX};
    pst_record_iter iter;
    pst_record record;
    pst_record_iter_init(&iter, records, batch->record_count);
    int32_t index = 0;
    int rc;
    while ((rc = pst_record_iter_next(&iter, &record)) == 1) {
        if (record.offset_delta != index) {
            return -PST_ERECORD;
        }
        int64_t timestamp =
            (int64_t)((uint64_t)batch->base_timestamp + (uint64_t)record.timestamp_delta);
        if (scan_out->max_timestamp_index < 0 || timestamp > scan_out->max_timestamp) {
            scan_out->max_timestamp = timestamp;
            scan_out->max_timestamp_index = index;
        }
        if (timestamp < scan_out->min_timestamp) {
            scan_out->min_timestamp = timestamp;
        }
        if (record.key_null && scan_out->null_key_index < 0) {
            scan_out->null_key_index = index;
        }
        index++;
    }
    return rc;
}
