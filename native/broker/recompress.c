/* broker/recompress.c - what needs the records of a batch opened: keys of compacted topics,
 * timestamp limits, a topic's own codec.
 *
 * Owner: the I/O thread that drains the partition. Layer: broker. Deliberately keeps offsets,
 * timestamps, producer fields and the number of batches: only the codec bits, the length and the
 * CRC of a rewritten batch differ. */
#include <stdlib.h>

#include "broker/produce_private.h"
#include "codec/codec.h"
#include "wire/error_codes.h"

static int rewrite(pst_produce_part *part, pst_slice records) {
    int codec = part->rules.compression_type;
    pst_byte_buffer compressed = {0};
    pst_byte_buffer batch = {0};
    pst_slice section = records;
    int rc = 0;
    if (codec != PST_CODEC_NONE) {
        rc = pst_codec_compress(codec, part->rules.compression_level, records, &compressed);
        section = pst_byte_buffer_slice(&compressed);
    }
    if (rc == 0) {
        rc = pst_batch_rewrite(&part->view, codec, section, &batch);
    }
    pst_batch view;
    if (rc == 0) {
        rc = pst_batch_parse(pst_byte_buffer_slice(&batch), &view);
    }
    pst_byte_buffer_fini(&compressed);
    if (rc < 0) {
        pst_byte_buffer_fini(&batch);
        return rc;
    }
    part->rewritten = batch.data;
    part->data = batch.data;
    part->size = batch.size;
    part->view = view;
    return (int64_t)part->size > part->rules.max_message_bytes ? -PST_ETOOLARGE : 0;
}

void pst_produce__open_records(pst_produce_part *part, int64_t now_ms) {
    int codec = pst_batch_codec(&part->view);
    pst_byte_buffer opened = {0};
    pst_slice records = pst_batch_records(&part->view);
    int rc = 0;
    if (codec != PST_CODEC_NONE) {
        rc = pst_codec_decompress(codec, records, 0, &opened);
        records = pst_byte_buffer_slice(&opened);
    }
    pst_record_scan scan;
    if (rc == 0 && pst_batch_scan(&part->view, records, &scan) < 0) {
        rc = -PST_ERECORD;
    }
    if (rc == 0) {
        pst_produce__check_scan(part, &scan, records, now_ms);
        bool rewrites = part->rules.compression_type >= 0 && part->rules.compression_type != codec;
        if (part->error == PST_KAFKA_NONE && rewrites) {
            rc = rewrite(part, records);
        }
    }
    if (rc < 0) {
        pst_produce__set_failure(part, rc, -1);
    }
    pst_byte_buffer_fini(&opened);
}
