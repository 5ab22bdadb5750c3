/* Record batches: build, parse, patch, rewrite, and the ways in which one can be wrong. */
#include <endian.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "check.h"
#include "wire/batch.h"

static pst_byte_buffer buffer;

static pst_slice build(int count, bool with_headers) {
    buffer.size = 0;
    pst_batch_builder builder;
    pst_batch_builder_init(&builder, &buffer);
    for (int i = 0; i < count; i++) {
        pst_slice key = pst_slice_str("key");
        pst_slice value = pst_slice_str("some value");
        pst_record_header headers[2] = {{pst_slice_str("h"), pst_slice_str("v"), false},
                                        {pst_slice_str("n"), {NULL, 0}, true}};
        CHECK_EQ(
            pst_batch_builder_append(&builder, 1000 + (i * 7) % 5, i % 3 == 2 ? NULL : &key,
                                     i % 4 == 3 ? NULL : &value, headers, with_headers ? 2 : 0),
            0);
    }
    CHECK_EQ(pst_batch_builder_finish(&builder), 0);
    return pst_byte_buffer_slice(&buffer);
}

static void reseal(uint8_t *data, size_t size) {
    uint32_t crc = htobe32(pst_crc32c(0, data + PST_BATCH_CRC_START, size - PST_BATCH_CRC_START));
    memcpy(data + PST_BATCH_CRC_OFFSET, &crc, sizeof crc);
}

static void test_built_batch_parses_and_iterates(void) {
    pst_slice bytes = build(10, true);
    pst_batch batch;
    CHECK_EQ(pst_batch_parse_produced(bytes, &batch), 0);
    CHECK_EQ(batch.record_count, 10);
    CHECK_EQ(batch.last_offset_delta, 9);
    CHECK_EQ(batch.base_timestamp, 1000);
    CHECK_EQ(batch.max_timestamp, 1004);
    CHECK_EQ(batch.producer_id, -1);
    CHECK_EQ(pst_batch_last_sequence(&batch), -1);
    pst_record_iter iter;
    pst_record record;
    pst_record_iter_init(&iter, pst_batch_records(&batch), batch.record_count);
    int count = 0;
    size_t total = 0;
    int rc;
    while ((rc = pst_record_iter_next(&iter, &record)) == 1) {
        CHECK_EQ(record.offset_delta, count);
        CHECK_EQ(record.key_null, count % 3 == 2);
        CHECK_EQ(record.value_null, count % 4 == 3);
        CHECK_EQ(record.header_count, 2);
        pst_reader headers = pst_reader_of(record.headers);
        pst_slice key;
        pst_slice value;
        bool null;
        CHECK_EQ(pst_record_header_next(&headers, &key, &value, &null), 1);
        CHECK(pst_slice_eq(key, pst_slice_str("h")) && !null);
        CHECK_EQ(pst_record_header_next(&headers, &key, &value, &null), 1);
        CHECK(null);
        CHECK_EQ(pst_record_header_next(&headers, &key, &value, &null), 0);
        total += record.size;
        count++;
    }
    CHECK_EQ(rc, 0);
    CHECK_EQ(count, 10);
    CHECK_EQ(total, pst_batch_records(&batch).size);
    pst_record_scan scan;
    CHECK_EQ(pst_batch_scan(&batch, pst_batch_records(&batch), &scan), 0);
    CHECK_EQ(scan.max_timestamp, 1004);
    CHECK_EQ(scan.max_timestamp_index, 2);
    CHECK_EQ(scan.min_timestamp, 1000);
    CHECK_EQ(scan.null_key_index, 2);
}

static void test_every_cut_and_every_flipped_bit_is_refused(void) {
    pst_slice bytes = build(3, true);
    pst_batch batch;
    for (size_t size = 0; size < bytes.size; size++) {
        CHECK(pst_batch_parse_produced(pst_slice_of(bytes.data, size), &batch) < 0);
    }
    for (size_t at = 0; at < bytes.size; at++) {
        for (int bit = 0; bit < 8; bit++) {
            buffer.data[at] ^= (uint8_t)(1 << bit);
            bool outside = at >= 12 && at < 16; /* the leader epoch alone has no check */
            CHECK((pst_batch_parse_produced(bytes, &batch) < 0) != outside);
            buffer.data[at] ^= (uint8_t)(1 << bit);
        }
    }
}

static void test_wrong_headers_get_their_own_codes(void) {
    pst_batch batch;
    pst_slice bytes = build(3, false);
    uint8_t *data = buffer.data;
    data[PST_BATCH_CRC_OFFSET] ^= 1;
    CHECK_EQ(pst_batch_parse_produced(bytes, &batch), -PST_ECRC);
    data[PST_BATCH_CRC_OFFSET] ^= 1;
    data[PST_BATCH_MAGIC_OFFSET] = 1;
    CHECK_EQ(pst_batch_parse_produced(bytes, &batch), -PST_EMAGIC);
    CHECK_EQ(batch.size, bytes.size);
    data[PST_BATCH_MAGIC_OFFSET] = 3;
    CHECK_EQ(pst_batch_parse_produced(bytes, &batch), -PST_EMALFORMED);
    data[PST_BATCH_MAGIC_OFFSET] = 2;
    data[22] = 5; /* codec */
    reseal(data, bytes.size);
    CHECK_EQ(pst_batch_parse_produced(bytes, &batch), -PST_ECODEC);
    data[22] = 0;
    data[26] = 7; /* last offset delta */
    reseal(data, bytes.size);
    CHECK_EQ(pst_batch_parse_produced(bytes, &batch), -PST_ERECORD);
    CHECK_EQ(pst_batch_check_stored(&batch), 0);
    data[26] = 2;
    data[7] = 1; /* base offset */
    CHECK_EQ(pst_batch_parse_produced(bytes, &batch), -PST_ERECORD);
    data[7] = 0;
    memset(data + 43, 0, 8); /* producer id 0, but no sequence */
    reseal(data, bytes.size);
    CHECK_EQ(pst_batch_parse_produced(bytes, &batch), -PST_ERECORD);
    memset(data + 43, 0xff, 8);
    data[60] = 200; /* count, and the delta with it */
    data[26] = 199;
    reseal(data, bytes.size);
    CHECK_EQ(pst_batch_parse_produced(bytes, &batch), -PST_ERECORD);
    memset(data + 8, 0xff, 4); /* batch length -1 */
    CHECK_EQ(pst_batch_parse(bytes, &batch), -PST_EMALFORMED);
    memcpy(data + 8, "\x7f\xff\xff\xff", 4);
    CHECK_EQ(pst_batch_parse(bytes, &batch), -PST_ETRUNC);
    CHECK_EQ(pst_batch_parse_produced(pst_slice_of(NULL, 0), &batch), -PST_ERECORD);
}

static void test_patches_keep_the_crc_valid(void) {
    pst_slice bytes = build(5, false);
    pst_batch batch;
    pst_batch_patch_offset(buffer.data, 1234567890123, 42);
    CHECK_EQ(pst_batch_parse(bytes, &batch), 0);
    CHECK_EQ(pst_batch_check_crc(&batch), 0);
    CHECK_EQ(batch.base_offset, 1234567890123);
    CHECK_EQ(pst_batch_last_offset(&batch), 1234567890127);
    CHECK_EQ(batch.leader_epoch, 42);
    pst_batch_patch_log_append_time(buffer.data, bytes.size, 987654321);
    CHECK_EQ(pst_batch_parse(bytes, &batch), 0);
    CHECK_EQ(pst_batch_check_crc(&batch), 0);
    CHECK(pst_batch_is_log_append_time(&batch));
    CHECK_EQ(batch.max_timestamp, 987654321);
}

static void test_rewrite_changes_codec_and_records_only(void) {
    pst_slice bytes = build(4, false);
    pst_batch batch;
    CHECK_EQ(pst_batch_parse(bytes, &batch), 0);
    pst_byte_buffer out = {0};
    CHECK_EQ(pst_batch_rewrite(&batch, 4, pst_slice_str("compressed"), &out), 0);
    pst_batch made;
    CHECK_EQ(pst_batch_parse_produced(pst_byte_buffer_slice(&out), &made), 0);
    CHECK_EQ(pst_batch_codec(&made), 4);
    CHECK_EQ(made.record_count, 4);
    CHECK_EQ(made.max_timestamp, batch.max_timestamp);
    CHECK(pst_slice_eq(pst_batch_records(&made), pst_slice_str("compressed")));
    pst_byte_buffer_fini(&out);
}

static void test_records_that_lie_are_refused_at_every_byte(void) {
    pst_slice bytes = build(3, true);
    pst_batch batch;
    CHECK_EQ(pst_batch_parse(bytes, &batch), 0);
    pst_slice records = pst_batch_records(&batch);
    pst_record_scan scan;
    for (size_t size = 0; size < records.size; size++) {
        CHECK(pst_batch_scan(&batch, pst_slice_of(records.data, size), &scan) < 0);
    }
    uint8_t *start = buffer.data + PST_BATCH_HEADER_SIZE;
    for (size_t at = 0; at < records.size; at++) {
        for (int value = 0; value < 256; value++) {
            uint8_t before = start[at];
            start[at] = (uint8_t)value;
            (void)pst_batch_scan(&batch, records, &scan); /* must not read outside: ASan watches */
            start[at] = before;
        }
    }
    batch.record_count = 2;
    CHECK_EQ(pst_batch_scan(&batch, records, &scan), -PST_EMALFORMED);
    batch.record_count = 4;
    CHECK(pst_batch_scan(&batch, records, &scan) < 0);
}

static void test_sequences_wrap(void) {
    CHECK_EQ(pst_sequence_add(INT32_MAX, 1), 0);
    CHECK_EQ(pst_sequence_add(INT32_MAX - 1, 3), 1);
    CHECK_EQ(pst_sequence_add(5, 3), 8);
}

int main(void) {
    test_built_batch_parses_and_iterates();
    test_every_cut_and_every_flipped_bit_is_refused();
    test_wrong_headers_get_their_own_codes();
    test_patches_keep_the_crc_valid();
    test_rewrite_changes_codec_and_records_only();
    test_records_that_lie_are_refused_at_every_byte();
    test_sequences_wrap();
    pst_byte_buffer_fini(&buffer);
    return 0;
}
