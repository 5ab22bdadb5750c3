/* storage/producer_snapshot.c - Kafka's producer snapshot file, version 1.
 * Owner: pure functions on bytes and a producer table.
 * int16 version, uint32 CRC-32C of all that follows, int32 count, then 46 bytes a producer. Only
 * the last batch of each is kept, as Kafka does; replay of later batches fills the window of five
 * again. */
#include "base/crc32c.h"
#include "storage/storage_private.h"
#include "wire/reader.h"
#include "wire/writer.h"

enum { VERSION = 1, HEADER_SIZE = 6, ENTRY_SIZE = 46 };

int pst_storage__snapshot_encode(const pst_storage__producers *producers, pst_byte_buffer *out) {
    pst_writer w = pst_writer_of(out);
    size_t start = pst_writer_position(&w);
    pst_writer_i16(&w, VERSION);
    size_t crc_at = pst_writer_reserve_i32(&w);
    size_t count_at = pst_writer_reserve_i32(&w);
    int32_t count = 0;
    const pst_list *head = producers == NULL ? NULL : &producers->lru;
    for (pst_list *l = head == NULL ? NULL : head->next; l != head; l = l->next) {
        const pst_storage__producer *p = PST_CONTAINER_OF(l, pst_storage__producer, lru);
        const pst_storage__producer_batch none = {-1, -1, -1, 0};
        const pst_storage__producer_batch *last =
            p->batch_count == 0 ? &none : &p->batches[p->batch_count - 1];
        if (p->epoch < 0) {
            continue; /* nothing of it is in the log */
        }
        pst_writer_i64(&w, p->producer_id);
        pst_writer_i16(&w, p->epoch);
        pst_writer_i32(&w, last->last_sequence);
        pst_writer_i64(&w, last->last_offset);
        pst_writer_i32(&w, last->offset_delta);
        pst_writer_i64(&w, p->last_timestamp);
        pst_writer_i32(&w, p->coordinator_epoch);
        pst_writer_i64(&w, p->txn_first_offset);
        count++;
    }
    if (!pst_writer_ok(&w)) {
        return w.err;
    }
    pst_writer_patch_i32(&w, count_at, count);
    const uint8_t *body = out->data + start + HEADER_SIZE;
    uint32_t crc = pst_crc32c(0, body, out->size - start - HEADER_SIZE);
    pst_writer_patch_i32(&w, crc_at, (int32_t)crc);
    return w.err;
}

int pst_storage__snapshot_decode(pst_storage *storage, pst_slice bytes,
                                 pst_storage__producers *producers) {
    pst_reader r = pst_reader_of(bytes);
    int16_t version = pst_reader_i16(&r);
    uint32_t crc = (uint32_t)pst_reader_i32(&r);
    if (r.err != 0 || version != VERSION) {
        return -PST_EMALFORMED;
    }
    if (pst_crc32c(0, bytes.data + HEADER_SIZE, bytes.size - HEADER_SIZE) != crc) {
        return -PST_ECRC;
    }
    int32_t count = pst_reader_array(&r, ENTRY_SIZE);
    for (int32_t i = 0; i < count && r.err == 0; i++) {
        int64_t id = pst_reader_i64(&r);
        int16_t epoch = pst_reader_i16(&r);
        pst_storage__producer_batch last;
        last.last_sequence = pst_reader_i32(&r);
        last.last_offset = pst_reader_i64(&r);
        last.offset_delta = pst_reader_i32(&r);
        last.timestamp = pst_reader_i64(&r);
        int32_t coordinator_epoch = pst_reader_i32(&r);
        int64_t txn_first_offset = pst_reader_i64(&r);
        if (r.err != 0 || id < 0 || epoch < 0 || last.offset_delta < 0 || last.last_offset < -1) {
            return -PST_EMALFORMED;
        }
        pst_storage__producer *p = pst_storage__producer_get(storage, producers, id);
        if (p == NULL) {
            return -PST_ENOMEM;
        }
        p->epoch = epoch;
        p->last_timestamp = last.timestamp;
        p->coordinator_epoch = coordinator_epoch;
        p->txn_first_offset = txn_first_offset;
        p->batch_count = 0;
        if (last.last_offset >= 0 && last.last_sequence >= 0) {
            p->batches[p->batch_count++] = last;
        }
    }
    return pst_reader_finish(&r);
}
