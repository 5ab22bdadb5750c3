/* test_broker_produce.c - Produce: request bytes to response bytes for good and bad batches,
 * duplicates, order with appends off the reactor, recompression. */
#include "base/crc32c.h"
#include "codec/codec.h"
#include "test_broker_support.h"

static pst_byte_buffer out;
static pst_byte_buffer in;

enum {
    TOPIC = 1,
    COMPACTED = 2,
    INTERNAL = 3,
    GZIPPED = 4,
    STAMPED = 5,
    STRICT_TIME = 6,
    TWO_ISR = 7
};

typedef struct {
    int32_t index;
    int16_t error;
    int64_t base_offset;
    int64_t append_time;
    int64_t log_start;
    int32_t record_errors;
    int32_t first_record_error;
    bool message;
} seen_part;

/* ---- batches ---- */

typedef struct {
    int32_t count;
    size_t value_size;
    int codec;
    int64_t producer_id;
    int32_t sequence;
    int16_t attributes;
    int64_t timestamp;
    int32_t null_key; /* index of the record without a key, -1: none */
} batch_spec;

static batch_spec plain(int32_t count) {
    return (batch_spec){.count = count,
                        .value_size = 10,
                        .producer_id = -1,
                        .sequence = -1,
                        .timestamp = pst_wall_ms(),
                        .null_key = -1};
}

static void make_batch(const batch_spec *spec, pst_byte_buffer *batch) {
    static uint8_t value[1 << 20];
    pst_byte_buffer raw = {0};
    pst_batch_builder builder;
    pst_batch_builder_init(&builder, &raw);
    builder.producer_id = spec->producer_id;
    builder.producer_epoch = spec->producer_id >= 0 ? 0 : -1;
    builder.base_sequence = spec->sequence;
    builder.attributes = spec->attributes;
    for (int32_t i = 0; i < spec->count; i++) {
        pst_slice key = pst_slice_str("k");
        pst_slice bytes = pst_slice_of(value, spec->value_size);
        CHECK_EQ(pst_batch_builder_append(&builder, spec->timestamp + i,
                                          i == spec->null_key ? NULL : &key, &bytes, NULL, 0),
                 0);
    }
    CHECK_EQ(pst_batch_builder_finish(&builder), 0);
    batch->size = 0;
    if (spec->codec == 0) {
        CHECK_EQ(pst_byte_buffer_append(batch, raw.data, raw.size), 0);
    } else {
        pst_batch view;
        pst_byte_buffer packed = {0};
        CHECK_EQ(pst_batch_parse(pst_byte_buffer_slice(&raw), &view), 0);
        const pst_codec *codec = pst_codec_by_id(spec->codec);
        CHECK_EQ(pst_codec_compress(spec->codec, codec->level_default, pst_batch_records(&view),
                                    &packed),
                 0);
        CHECK_EQ(pst_batch_rewrite(&view, spec->codec, pst_byte_buffer_slice(&packed), batch), 0);
        pst_byte_buffer_fini(&packed);
    }
    pst_byte_buffer_fini(&raw);
}

/* Sets bytes of a batch and makes its CRC right again. */
static void poke(pst_byte_buffer *batch, size_t at, const void *bytes, size_t size) {
    memcpy(batch->data + at, bytes, size);
    uint32_t crc = htobe32(
        pst_crc32c(0, batch->data + PST_BATCH_CRC_START, batch->size - PST_BATCH_CRC_START));
    memcpy(batch->data + PST_BATCH_CRC_OFFSET, &crc, sizeof crc);
}

/* ---- requests ---- */

static const char *name_of(uint32_t topic) {
    static const char *const names[] = {"nowhere", "t",       "compacted", "__consumer_offsets",
                                        "gzipped", "stamped", "strict",    "two-isr"};
    return topic < sizeof names / sizeof names[0] ? names[topic] : "nowhere";
}

typedef struct {
    int16_t version;
    int16_t acks;
    int32_t correlation_id;
    const char *client_id;
    const char *transactional_id;
} produce_head;

static produce_head head(int16_t version) {
    return (produce_head){.version = version, .acks = -1, .correlation_id = 5, .client_id = "c"};
}

static void write_produce(const produce_head *h, uint32_t topic, int32_t partition,
                          int32_t part_count, pst_slice records) {
    pst_writer w = test_request(&out, PST_API_PRODUCE, h->version, h->correlation_id, h->client_id);
    bool flexible = h->version >= 9;
    pst_slice id = pst_slice_str(h->transactional_id != NULL ? h->transactional_id : "");
    pst_writer_any_string(&w, flexible, h->transactional_id != NULL ? &id : NULL);
    pst_writer_i16(&w, h->acks);
    pst_writer_i32(&w, 1000);
    pst_writer_any_array(&w, flexible, 1);
    if (h->version >= 13) {
        pst_writer_uuid(&w, test_uuid(topic));
    } else {
        pst_slice name = pst_slice_str(name_of(topic));
        pst_writer_any_string(&w, flexible, &name);
    }
    pst_writer_any_array(&w, flexible, part_count);
    for (int32_t i = 0; i < part_count; i++) {
        pst_writer_i32(&w, partition + i);
        pst_writer_any_bytes(&w, flexible, records.data != NULL ? &records : NULL);
        pst_writer_no_tagged(&w, flexible);
    }
    pst_writer_no_tagged(&w, flexible);
    pst_writer_no_tagged(&w, flexible);
    CHECK(pst_writer_ok(&w));
}

static void read_part(pst_reader *r, int16_t version, seen_part *part) {
    bool flexible = version >= 9;
    *part = (seen_part){.index = pst_reader_i32(r), .first_record_error = -1};
    part->error = pst_reader_i16(r);
    part->base_offset = pst_reader_i64(r);
    part->append_time = pst_reader_i64(r);
    part->log_start = version >= 5 ? pst_reader_i64(r) : 0;
    if (version >= 8) {
        bool null;
        part->record_errors = pst_reader_any_array(r, flexible, 4);
        for (int32_t i = 0; i < part->record_errors; i++) {
            part->first_record_error = pst_reader_i32(r);
            (void)pst_reader_any_nullable_string(r, flexible, &null);
            if (flexible) {
                pst_reader_skip_tagged(r);
            }
        }
        (void)pst_reader_any_nullable_string(r, flexible, &null);
        part->message = !null;
    }
    if (flexible) {
        pst_reader_skip_tagged(r);
    }
}

/* One topic; fills up to `max` parts and returns their number. */
static int32_t receive_parts(int fd, const produce_head *h, uint32_t topic, seen_part *parts,
                             int32_t max) {
    CHECK(test_response(fd, &in));
    pst_reader r = test_body(&in, PST_API_PRODUCE, h->version, h->correlation_id);
    bool flexible = h->version >= 9;
    CHECK_EQ(pst_reader_any_array(&r, flexible, 4), 1);
    if (h->version >= 13) {
        pst_uuid id = pst_reader_uuid(&r);
        pst_uuid expected = test_uuid(topic);
        CHECK(pst_uuid_eq(&id, &expected));
    } else {
        CHECK(pst_slice_eq(pst_reader_any_string(&r, flexible), pst_slice_str(name_of(topic))));
    }
    int32_t count = pst_reader_any_array(&r, flexible, 22);
    CHECK(count <= max);
    for (int32_t i = 0; i < count; i++) {
        read_part(&r, h->version, &parts[i]);
    }
    if (flexible) {
        pst_reader_skip_tagged(&r);
    }
    CHECK_EQ(pst_reader_i32(&r), 0);
    if (flexible) {
        pst_reader_skip_tagged(&r);
    }
    CHECK_EQ(pst_reader_finish(&r), 0);
    return count;
}

static seen_part produce(int fd, const produce_head *h, uint32_t topic, int32_t partition,
                         pst_slice records) {
    seen_part part;
    write_produce(h, topic, partition, 1, records);
    test_send_buffer(fd, &out);
    CHECK_EQ(receive_parts(fd, h, topic, &part, 1), 1);
    CHECK_EQ(part.index, partition);
    return part;
}

static seen_part produce_spec(int fd, int16_t version, uint32_t topic, int32_t partition,
                              const batch_spec *spec) {
    pst_byte_buffer batch = {0};
    make_batch(spec, &batch);
    produce_head h = head(version);
    seen_part part = produce(fd, &h, topic, partition, pst_byte_buffer_slice(&batch));
    pst_byte_buffer_fini(&batch);
    return part;
}

/* Reads the log from the start as the control plane does and checks it batch by batch; returns its
 * end. */
static int64_t check_log(test_broker *t, uint32_t topic, int32_t partition, int codec) {
    static uint8_t buffer[4 << 20];
    pst_uuid id = test_uuid(topic);
    int64_t offset = 0;
    for (;;) {
        size_t size;
        CHECK_EQ(pst_broker_read(t->broker, &id, partition, offset, buffer, sizeof buffer, &size),
                 0);
        if (size == 0) {
            return offset;
        }
        for (size_t at = 0; at < size;) {
            pst_batch batch;
            CHECK_EQ(pst_batch_parse(pst_slice_of(buffer + at, size - at), &batch), 0);
            CHECK_EQ(pst_batch_check_crc(&batch), 0);
            CHECK_EQ(batch.base_offset, offset);
            CHECK_EQ(batch.leader_epoch, 4);
            if (codec >= 0) {
                CHECK_EQ(pst_batch_codec(&batch), codec);
            }
            offset = pst_batch_last_offset(&batch) + 1;
            at += batch.size;
        }
    }
}

/* ---- tests ---- */

static void test_every_version_appends(test_broker *t) {
    int fd = test_connect(t->net);
    int64_t expected = 0;
    for (int16_t version = 3; version <= 13; version++) {
        for (int round = 0; round < 2; round++) {
            batch_spec spec = plain(3);
            seen_part part = produce_spec(fd, version, TOPIC, 0, &spec);
            CHECK_EQ(part.error, 0);
            CHECK_EQ(part.base_offset, expected);
            CHECK_EQ(part.append_time, -1);
            CHECK_EQ(part.log_start, 0);
            CHECK(part.record_errors == 0 && !part.message);
            expected += 3;
        }
    }
    CHECK_EQ(check_log(t, TOPIC, 0, 0), expected);
    pst_uuid id = test_uuid(TOPIC);
    pst_log_offsets offsets;
    CHECK_EQ(pst_broker_get_offsets(t->broker, &id, 0, &offsets), 0);
    CHECK_EQ(offsets.log_end, expected);
    CHECK_EQ(offsets.high_watermark, expected);
    CHECK_EQ(offsets.last_stable, expected);
    close(fd);
}

static void expect_error(int fd, const produce_head *h, uint32_t topic, int32_t partition,
                         pst_slice records, int16_t error) {
    seen_part part = produce(fd, h, topic, partition, records);
    CHECK_EQ(part.error, error);
    CHECK_EQ(part.base_offset, -1);
    CHECK_EQ(part.append_time, -1);
}

static void test_unknown_places_get_their_codes(test_broker *t) {
    int fd = test_connect(t->net);
    pst_byte_buffer batch = {0};
    batch_spec spec = plain(1);
    make_batch(&spec, &batch);
    pst_slice good = pst_byte_buffer_slice(&batch);
    for (int16_t version = 3; version <= 13; version++) {
        produce_head h = head(version);
        int16_t unknown =
            version >= 13 ? PST_KAFKA_UNKNOWN_TOPIC_ID : PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
        expect_error(fd, &h, 1000, 0, good, unknown);
        expect_error(fd, &h, TOPIC, 99, good, PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
        expect_error(fd, &h, TOPIC, -1, good, PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
        expect_error(fd, &h, INTERNAL, 0, good, PST_KAFKA_INVALID_TOPIC_EXCEPTION);
        expect_error(fd, &h, TWO_ISR, 0, good, PST_KAFKA_NOT_ENOUGH_REPLICAS);
        h.acks = 2;
        expect_error(fd, &h, TOPIC, 0, good, PST_KAFKA_INVALID_REQUIRED_ACKS);
        h.acks = 1;
        CHECK_EQ(produce(fd, &h, TWO_ISR, 0, good).error, 0);
        h.transactional_id = "tx";
        expect_error(fd, &h, TOPIC, 0, good, PST_KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    }
    produce_head admin = head(9);
    admin.client_id = "__admin_client";
    CHECK_EQ(produce(fd, &admin, INTERNAL, 0, good).error, 0);
    pst_byte_buffer_fini(&batch);
    close(fd);
}

static void test_bad_batches_get_their_codes_and_never_reach_the_log(test_broker *t) {
    int fd = test_connect(t->net);
    produce_head h = head(8);
    pst_byte_buffer batch = {0};
    batch_spec spec = plain(3);
    int64_t end = check_log(t, TOPIC, 0, -1);
#define FRESH() make_batch(&spec, &batch)
#define EXPECT(code) expect_error(fd, &h, TOPIC, 0, pst_byte_buffer_slice(&batch), (code))
    FRESH();
    expect_error(fd, &h, TOPIC, 0, (pst_slice){NULL, 0}, PST_KAFKA_INVALID_RECORD);
    expect_error(fd, &h, TOPIC, 0, pst_slice_of(batch.data, 0), PST_KAFKA_INVALID_RECORD);
    batch.data[batch.size - 1] ^= 1; /* CRC */
    EXPECT(PST_KAFKA_CORRUPT_MESSAGE);
    FRESH();
    batch.size -= 1; /* ends early */
    EXPECT(PST_KAFKA_INVALID_RECORD);
    FRESH();
    CHECK_EQ(pst_byte_buffer_reserve(&batch, batch.size), 0);
    CHECK_EQ(pst_byte_buffer_append(&batch, batch.data, batch.size), 0); /* two batches */
    EXPECT(PST_KAFKA_INVALID_RECORD);
    for (uint8_t magic = 0; magic < 5; magic++) {
        if (magic != 2) {
            FRESH();
            batch.data[PST_BATCH_MAGIC_OFFSET] = magic;
            EXPECT(magic < 2 ? PST_KAFKA_INVALID_RECORD : PST_KAFKA_CORRUPT_MESSAGE);
        }
    }
    static const uint32_t lengths[] = {0, 1, 13, 48, UINT32_MAX, 0x80000000u};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        FRESH();
        uint32_t length = htobe32(lengths[i]);
        memcpy(batch.data + 8, &length, sizeof length);
        seen_part part = produce(fd, &h, TOPIC, 0, pst_byte_buffer_slice(&batch));
        CHECK(part.error == PST_KAFKA_CORRUPT_MESSAGE || part.error == PST_KAFKA_INVALID_RECORD);
    }
    FRESH();
    batch.data[7] = 1; /* base offset 1 */
    EXPECT(PST_KAFKA_INVALID_RECORD);
    static const struct {
        size_t at;
        uint8_t bytes[8];
        size_t size;
        int16_t code;
    } pokes[] = {
        {23, {0, 0, 0, 3}, 4, PST_KAFKA_INVALID_RECORD}, /* last offset delta 3 of 3 records */
        {23, {0xff, 0xff, 0xff, 0xff}, 4, PST_KAFKA_INVALID_RECORD}, /* ... -1 */
        {57, {0, 0, 0, 0}, 4, PST_KAFKA_INVALID_RECORD},             /* count 0 */
        {57, {0x7f, 0xff, 0xff, 0xff}, 4, PST_KAFKA_INVALID_RECORD}, /* count INT_MAX */
        {57, {0xff, 0xff, 0xff, 0xff}, 4, PST_KAFKA_INVALID_RECORD}, /* count -1 */
        {43,
         {0, 0, 0, 0, 0, 0, 0, 9},
         8,
         PST_KAFKA_INVALID_RECORD},                      /* a producer without a sequence */
        {21, {0, 0x20}, 2, PST_KAFKA_INVALID_RECORD},    /* control */
        {21, {0, 0x10}, 2, PST_KAFKA_INVALID_TXN_STATE}, /* transactional */
        {21, {0, 0x08}, 2, PST_KAFKA_INVALID_TIMESTAMP}, /* log append time */
        {21, {0, 0x05}, 2, PST_KAFKA_UNSUPPORTED_COMPRESSION_TYPE}, /* no such codec */
        {61, {0x7f}, 1, PST_KAFKA_INVALID_RECORD},                  /* first record's length */
        {61, {0x01}, 1, PST_KAFKA_INVALID_RECORD},                  /* ... -1 */
    };
    for (size_t i = 0; i < sizeof pokes / sizeof pokes[0]; i++) {
        FRESH();
        poke(&batch, pokes[i].at, pokes[i].bytes, pokes[i].size);
        EXPECT(pokes[i].code);
    }
    spec.timestamp = pst_wall_ms() + 2 * 3600000;
    FRESH();
    seen_part part = produce(fd, &h, TOPIC, 0, pst_byte_buffer_slice(&batch));
    CHECK(part.error == PST_KAFKA_INVALID_TIMESTAMP && part.record_errors == 3 && part.message);
    CHECK_EQ(part.log_start, 0);
    spec = plain(1);
    spec.value_size = 1 << 20;
    FRESH();
    EXPECT(PST_KAFKA_MESSAGE_TOO_LARGE);
    spec = plain(1);
    spec.codec = PST_CODEC_ZSTD;
    FRESH();
    h.version = 6;
    EXPECT(PST_KAFKA_UNSUPPORTED_COMPRESSION_TYPE);
#undef EXPECT
#undef FRESH
    CHECK_EQ(check_log(t, TOPIC, 0, -1), end);
    pst_byte_buffer_fini(&batch);
    close(fd);
}

static void test_duplicates_are_answered_with_their_first_offset(test_broker *t) {
    int fd = test_connect(t->net);
    int64_t offsets[7];
    for (int32_t i = 0; i < 7; i++) {
        batch_spec spec = plain(2);
        spec.producer_id = 77;
        spec.sequence = 2 * i;
        seen_part part = produce_spec(fd, 9, TOPIC, 1, &spec);
        CHECK_EQ(part.error, 0);
        offsets[i] = part.base_offset;
    }
    for (int32_t i = 2; i < 7; i++) { /* the last five */
        batch_spec spec = plain(2);
        spec.producer_id = 77;
        spec.sequence = 2 * i;
        seen_part part = produce_spec(fd, 9, TOPIC, 1, &spec);
        CHECK_EQ(part.error, 0);
        CHECK_EQ(part.base_offset, offsets[i]);
    }
    batch_spec gap = plain(2);
    gap.producer_id = 77;
    gap.sequence = 20;
    seen_part part = produce_spec(fd, 9, TOPIC, 1, &gap);
    CHECK_EQ(part.error, PST_KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER);
    CHECK(part.base_offset == -1 && part.log_start == 0);
    CHECK_EQ(check_log(t, TOPIC, 1, 0), 14);
    close(fd);
}

static void test_acks_0_answers_nothing_and_closes_on_error(test_broker *t) {
    int fd = test_connect(t->net);
    pst_byte_buffer batch = {0};
    batch_spec spec = plain(1);
    make_batch(&spec, &batch);
    produce_head h = head(9);
    int64_t end = check_log(t, TOPIC, 2, -1);
    h.acks = 0;
    write_produce(&h, TOPIC, 2, 1, pst_byte_buffer_slice(&batch));
    test_send_buffer(fd, &out);
    h.acks = 1;
    CHECK_EQ(produce(fd, &h, TOPIC, 2, pst_byte_buffer_slice(&batch)).base_offset, end + 1);
    h.acks = 0;
    write_produce(&h, TOPIC, 99, 1, pst_byte_buffer_slice(&batch));
    test_send_buffer(fd, &out);
    CHECK(!test_response(fd, &in));
    pst_byte_buffer_fini(&batch);
    close(fd);
}

static void test_compacted_topics_refuse_records_without_key(test_broker *t) {
    int fd = test_connect(t->net);
    int64_t expected = 0;
    for (int codec = 0; codec <= 4; codec++) {
        batch_spec spec = plain(4);
        spec.codec = codec;
        seen_part part = produce_spec(fd, 9, COMPACTED, 0, &spec);
        CHECK_EQ(part.error, 0);
        CHECK_EQ(part.base_offset, expected);
        expected += 4;
        spec.null_key = 2;
        part = produce_spec(fd, 9, COMPACTED, 0, &spec);
        CHECK_EQ(part.error, PST_KAFKA_INVALID_RECORD);
        CHECK_EQ(part.record_errors, 1);
        CHECK_EQ(part.first_record_error, 2);
        CHECK(part.message && part.base_offset == -1);
    }
    CHECK_EQ(check_log(t, COMPACTED, 0, -1), expected);
    close(fd);
}

static void test_topic_codec_rewrites_and_keeps_offsets(test_broker *t) {
    int fd = test_connect(t->net);
    int64_t expected = 0;
    for (int codec = 0; codec <= 4; codec++) {
        batch_spec spec = plain(50);
        spec.codec = codec;
        seen_part part = produce_spec(fd, 9, GZIPPED, 0, &spec);
        CHECK_EQ(part.error, 0);
        CHECK_EQ(part.base_offset, expected);
        expected += 50;
    }
    CHECK_EQ(check_log(t, GZIPPED, 0, PST_CODEC_GZIP), expected);
    close(fd);
}

static void test_timestamp_rules_of_topics(test_broker *t) {
    int fd = test_connect(t->net);
    for (int codec = 0; codec <= 4; codec += 4) {
        batch_spec spec = plain(2);
        spec.codec = codec;
        int64_t before = pst_wall_ms();
        seen_part part = produce_spec(fd, 9, STAMPED, 0, &spec);
        CHECK_EQ(part.error, 0);
        CHECK(part.append_time >= before - 1000 && part.append_time <= pst_wall_ms() + 1000);
        CHECK_EQ(produce_spec(fd, 9, STRICT_TIME, 0, &spec).error, 0);
        spec.timestamp = pst_wall_ms() - 600000;
        CHECK_EQ(produce_spec(fd, 9, STRICT_TIME, 0, &spec).error, PST_KAFKA_INVALID_TIMESTAMP);
        spec.timestamp = pst_wall_ms() + 2 * 3600000;
        part = produce_spec(fd, 9, TOPIC, 0, &spec);
        CHECK_EQ(part.error, PST_KAFKA_INVALID_TIMESTAMP);
        CHECK_EQ(part.record_errors, 2);
        spec.timestamp = INT64_MIN + 5;
        CHECK_EQ(produce_spec(fd, 9, STRICT_TIME, 0, &spec).error, PST_KAFKA_INVALID_TIMESTAMP);
    }
    check_log(t, STAMPED, 0, -1);
    close(fd);
}

/* Requests for several partitions, some of which must leave the reactor (first open; a topic's
 * codec), pipelined: the responses come in request order and each partition keeps the order of the
 * requests. */
static void test_pipelined_requests_keep_order_with_offloaded_appends(test_broker *t) {
    enum { ROUNDS = 40, PARTS = 3 };
    int fd = test_connect(t->net);
    static const uint32_t topics[] = {GZIPPED, TOPIC};
    for (int which = 0; which < 2; which++) {
        uint32_t topic = topics[which];
        int32_t first = topic == TOPIC ? 3 : 1;
        pst_byte_buffer batch = {0};
        for (int32_t i = 0; i < ROUNDS; i++) {
            batch_spec spec = plain(1 + i % 3);
            spec.codec = i % 2 == 0 ? 0 : PST_CODEC_GZIP; /* every other one needs no rewriting */
            make_batch(&spec, &batch);
            produce_head h = head(9);
            h.correlation_id = i;
            write_produce(&h, topic, first, PARTS, pst_byte_buffer_slice(&batch));
            test_send_buffer(fd, &out);
        }
        int64_t expected = 0;
        for (int32_t i = 0; i < ROUNDS; i++) {
            produce_head h = head(9);
            h.correlation_id = i;
            seen_part parts[PARTS];
            CHECK_EQ(receive_parts(fd, &h, topic, parts, PARTS), PARTS);
            for (int32_t k = 0; k < PARTS; k++) {
                CHECK(parts[k].error == 0 && parts[k].index == first + k);
                CHECK_EQ(parts[k].base_offset, expected);
            }
            expected += 1 + i % 3;
        }
        for (int32_t k = 0; k < PARTS; k++) {
            CHECK_EQ(check_log(t, topic, first + k, topic == GZIPPED ? PST_CODEC_GZIP : -1),
                     expected);
        }
        pst_byte_buffer_fini(&batch);
    }
    pst_broker_statistics statistics;
    pst_broker_get_statistics(t->broker, &statistics);
    CHECK(statistics.offloaded_appends > 0);
    close(fd);
}

static void write_list_offsets(const char *topic, int32_t partition) {
    pst_writer w = test_request(&out, PST_API_LIST_OFFSETS, 2, 77, "c");
    pst_writer_i32(&w, -1);
    pst_writer_i8(&w, 0);
    pst_writer_i32(&w, 1);
    pst_writer_string(&w, pst_slice_str(topic));
    pst_writer_i32(&w, 1);
    pst_writer_i32(&w, partition);
    pst_writer_i64(&w, -1);
    CHECK(pst_writer_ok(&w));
}

static int64_t receive_list_offsets(int fd, int32_t partition) {
    CHECK(test_response(fd, &in));
    pst_reader r = test_body(&in, PST_API_LIST_OFFSETS, 2, 77);
    CHECK_EQ(pst_reader_i32(&r), 0);
    CHECK_EQ(pst_reader_i32(&r), 1);
    (void)pst_reader_string(&r);
    CHECK_EQ(pst_reader_i32(&r), 1);
    CHECK_EQ(pst_reader_i32(&r), partition);
    CHECK_EQ(pst_reader_i16(&r), 0);
    (void)pst_reader_i64(&r);
    int64_t offset = pst_reader_i64(&r);
    CHECK_EQ(pst_reader_finish(&r), 0);
    return offset;
}

static void add_frame(pst_byte_buffer *packet) {
    uint32_t size = htobe32((uint32_t)out.size);
    CHECK_EQ(pst_byte_buffer_append(packet, &size, sizeof size), 0);
    CHECK_EQ(pst_byte_buffer_append(packet, out.data, out.size), 0);
}

/* Appends that leave the reactor (the first of a log; a codec of the topic) and a request that
 * meets them, in one packet and without waiting: the later one sees the earlier one. */
static void test_reads_see_offloaded_appends_of_their_connection(test_broker *t) {
    enum { PARTS = 12, ROUNDS = 3 };
    pst_log_config config = test_config();
    config.compression_type = PST_CODEC_GZIP;
    config.compression_level = -1;
    test_publish_topic(t, "fresh", 60, PARTS, &config, false);
    int fd = test_connect(t->net);
    pst_byte_buffer batch = {0};
    pst_byte_buffer packet = {0};
    produce_head h = head(13);
    h.acks = 0;
    for (int32_t i = 0; i < PARTS; i++) {
        packet.size = 0;
        for (int round = 0; round < ROUNDS; round++) {
            batch_spec spec = plain(50);
            make_batch(&spec, &batch);
            write_produce(&h, 60, i, 1, pst_byte_buffer_slice(&batch));
            add_frame(&packet);
            write_list_offsets("fresh", i);
            add_frame(&packet);
        }
        test_send(fd, packet.data, packet.size);
        for (int round = 0; round < ROUNDS; round++) {
            CHECK_EQ(receive_list_offsets(fd, i), 50 * (round + 1));
        }
    }
    /* A barrier of the control plane waits too; a client that leaves is forgotten. */
    for (int round = 0; round < 2; round++) {
        packet.size = 0;
        write_produce(&h, 60, 0, 1, pst_byte_buffer_slice(&batch));
        add_frame(&packet);
        pst_writer w = test_request(&out, PST_API_DELETE_RECORDS, 0, 78, "c");
        pst_writer_i32(&w, 0);
        pst_writer_i32(&w, 1000);
        add_frame(&packet);
        write_list_offsets("fresh", 0);
        add_frame(&packet);
        test_send(fd, packet.data, packet.size);
        pst_control_request up = test_take_up(t);
        CHECK_EQ(up.api_key, PST_API_DELETE_RECORDS);
        pst_uuid id = test_uuid(60);
        pst_log_offsets offsets;
        CHECK_EQ(pst_broker_get_offsets(t->broker, &id, 0, &offsets), 0);
        CHECK_EQ(offsets.log_end, 50 * (ROUNDS + round + 1));
        pst_frame_release(up.frame);
        uint8_t *answer = calloc(1, 12);
        answer[3] = 78;
        pst_broker_respond(t->broker, up.token, answer, 12);
        CHECK(test_response(fd, &in));
        CHECK_EQ(receive_list_offsets(fd, 0), 50 * (ROUNDS + round + 1));
    }
    for (int round = 0; round < 20; round++) {
        int leaver = test_connect(t->net);
        packet.size = 0;
        for (int i = 0; i < 3; i++) {
            write_produce(&h, 60, 1, 1, pst_byte_buffer_slice(&batch));
            add_frame(&packet);
        }
        write_list_offsets("fresh", 1);
        add_frame(&packet);
        test_send(leaver, packet.data, packet.size);
        struct linger hard = {.l_onoff = 1};
        setsockopt(leaver, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        usleep((useconds_t)round * 50);
        close(leaver);
    }
    pst_byte_buffer_fini(&packet);
    pst_byte_buffer_fini(&batch);
    close(fd);
}

/* Owner: its thread. */
typedef struct {
    test_broker *t;
    int32_t producer;
} producer_thread;

static void *run_producer(void *arg) {
    enum { BATCHES = 60 };
    producer_thread *self = arg;
    int fd = test_connect(self->t->net);
    pst_byte_buffer request = {0};
    pst_byte_buffer batch = {0};
    for (int32_t i = 0; i < BATCHES; i++) {
        batch_spec spec = plain(1);
        spec.producer_id = 1000 + self->producer;
        spec.sequence = i;
        spec.codec = i % 7 == 0 ? PST_CODEC_LZ4 : 0;
        make_batch(&spec, &batch);
        pst_writer w = test_request(&request, PST_API_PRODUCE, 3, i, "p");
        pst_writer_i16(&w, -1);
        pst_writer_i16(&w, 1);
        pst_writer_i32(&w, 1000);
        pst_writer_i32(&w, 1);
        pst_writer_string(&w, pst_slice_str("compacted"));
        pst_writer_i32(&w, 1);
        pst_writer_i32(&w, 1);
        pst_writer_bytes(&w, pst_byte_buffer_slice(&batch));
        test_send_buffer(fd, &request);
    }
    for (int32_t i = 0; i < BATCHES; i++) {
        uint8_t response[128];
        CHECK(test_receive(fd, response, 4));
        uint32_t size = get_size(response);
        CHECK(size <= sizeof response && test_receive(fd, response, size));
        /* correlation id, count, name, count, index, error */
        CHECK_EQ(get_size(response), i);
        CHECK_EQ(response[4 + 4 + 2 + 9 + 4 + 4 + 1], 0);
    }
    pst_byte_buffer_fini(&batch);
    pst_byte_buffer_fini(&request);
    close(fd);
    return NULL;
}

/* Idempotent producers on several reactors, one partition, every seventh batch off the reactor: a
 * sequence out of order would be an error. The control plane appends in between. */
static void test_producers_on_all_reactors_keep_their_sequences(test_broker *t) {
    enum { PRODUCERS = 4, INTERNAL_APPENDS = 20 };
    pthread_t threads[PRODUCERS];
    producer_thread producers[PRODUCERS];
    for (int32_t i = 0; i < PRODUCERS; i++) {
        producers[i] = (producer_thread){.t = t, .producer = i};
        CHECK_EQ(pthread_create(&threads[i], NULL, run_producer, &producers[i]), 0);
    }
    pst_uuid id = test_uuid(COMPACTED);
    pst_byte_buffer batch = {0};
    int64_t last = -1;
    for (int i = 0; i < INTERNAL_APPENDS; i++) {
        batch_spec spec = plain(1);
        make_batch(&spec, &batch);
        int64_t base_offset;
        CHECK_EQ(pst_broker_append(t->broker, &id, 1, batch.data, batch.size, &base_offset), 0);
        CHECK(base_offset > last);
        last = base_offset;
        usleep(500);
    }
    for (int32_t i = 0; i < PRODUCERS; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK_EQ(check_log(t, COMPACTED, 1, -1), PRODUCERS * 60 + INTERNAL_APPENDS);
    pst_byte_buffer_fini(&batch);
}

static void test_small_segments_roll_under_pipelining(test_broker *t) {
    pst_log_config config = test_config();
    config.segment_bytes = 2000;
    test_publish_topic(t, "t", TOPIC, 8, &config, false);
    int fd = test_connect(t->net);
    enum { REQUESTS = 100 };
    produce_head h = head(9);
    pst_byte_buffer batch = {0};
    for (int32_t i = 0; i < REQUESTS; i++) {
        batch_spec spec = plain(2);
        spec.value_size = 150;
        make_batch(&spec, &batch);
        write_produce(&h, TOPIC, 7, 1, pst_byte_buffer_slice(&batch));
        test_send_buffer(fd, &out);
    }
    for (int32_t i = 0; i < REQUESTS; i++) {
        seen_part part;
        CHECK_EQ(receive_parts(fd, &h, TOPIC, &part, 1), 1);
        CHECK_EQ(part.error, 0);
        CHECK_EQ(part.base_offset, 2 * i);
    }
    CHECK_EQ(check_log(t, TOPIC, 7, 0), 2 * REQUESTS);
    batch_spec large = plain(1);
    large.value_size = 3000;
    CHECK_EQ(produce_spec(fd, 9, TOPIC, 7, &large).error, PST_KAFKA_RECORD_LIST_TOO_LARGE);
    pst_byte_buffer_fini(&batch);
    close(fd);
}

static void test_cut_requests_close_the_connection(test_broker *t) {
    pst_byte_buffer batch = {0};
    batch_spec spec = plain(1);
    make_batch(&spec, &batch);
    int64_t end = check_log(t, TOPIC, 0, -1);
    static const int16_t versions[] = {3, 9, 13};
    for (size_t i = 0; i < 3; i++) {
        produce_head h = head(versions[i]);
        write_produce(&h, TOPIC, 0, 1, pst_byte_buffer_slice(&batch));
        for (size_t cut = 10; cut < out.size; cut++) {
            int fd = test_connect(t->net);
            send_frame(fd, out.data, (uint32_t)cut);
            CHECK(!test_response(fd, &in));
            close(fd);
        }
    }
    CHECK_EQ(check_log(t, TOPIC, 0, -1), end);
    pst_byte_buffer_fini(&batch);
}

static void publish(test_broker *t) {
    pst_log_config config = test_config();
    test_publish_topic(t, "t", TOPIC, 8, &config, false);
    test_publish_topic(t, "__consumer_offsets", INTERNAL, 1, &config, true);
    config.cleanup_policy = 2;
    test_publish_topic(t, "compacted", COMPACTED, 2, &config, false);
    config = test_config();
    config.compression_type = PST_CODEC_GZIP;
    config.compression_level = -1;
    test_publish_topic(t, "gzipped", GZIPPED, 4, &config, false);
    config = test_config();
    config.timestamp_type = 1;
    test_publish_topic(t, "stamped", STAMPED, 1, &config, false);
    config = test_config();
    config.timestamp_before_max_ms = 60000;
    test_publish_topic(t, "strict", STRICT_TIME, 1, &config, false);
    config = test_config();
    config.min_insync_replicas = 2;
    test_publish_topic(t, "two-isr", TWO_ISR, 1, &config, false);
}

/* Stopped without grace while appends are on their way through the I/O threads: nothing hangs,
 * nothing leaks. */
static void test_stop_with_appends_in_flight(void) {
    for (int round = 0; round < 5; round++) {
        test_broker t;
        test_broker_start(&t, 2);
        publish(&t);
        int fds[4];
        pst_byte_buffer batch = {0};
        batch_spec spec = plain(200);
        make_batch(&spec, &batch);
        for (int i = 0; i < 4; i++) {
            fds[i] = test_connect(t.net);
            produce_head h = head(9);
            for (int k = 0; k < 12; k++) {
                write_produce(&h, GZIPPED, 0, 4, pst_byte_buffer_slice(&batch));
                test_send_buffer(fds[i], &out);
            }
        }
        usleep((useconds_t)round * 2000);
        test_broker_stop_after(&t, 0);
        for (int i = 0; i < 4; i++) {
            close(fds[i]);
        }
        pst_byte_buffer_fini(&batch);
    }
}

/* Deletion while producers write: each request is answered, with success or Kafka's code for a
 * topic that is gone. */
static void test_deletion_under_load_answers_everything(test_broker *t) {
    enum { ROUNDS = 10, REQUESTS = 12 };
    pst_log_config config = test_config();
    pst_byte_buffer batch = {0};
    int fd = test_connect(t->net);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t topic = 500 + round;
        test_publish_topic(t, "nowhere", topic, 3, &config, false);
        produce_head h = head(13);
        for (int i = 0; i < REQUESTS; i++) {
            batch_spec spec = plain(2);
            make_batch(&spec, &batch);
            write_produce(&h, topic, 0, 3, pst_byte_buffer_slice(&batch));
            test_send_buffer(fd, &out);
        }
        usleep(round * 100);
        test_remove_topic(t, topic);
        for (int i = 0; i < REQUESTS; i++) {
            seen_part parts[3];
            CHECK_EQ(receive_parts(fd, &h, topic, parts, 3), 3);
            for (int k = 0; k < 3; k++) {
                CHECK(parts[k].error == 0 || parts[k].error == PST_KAFKA_UNKNOWN_TOPIC_ID ||
                      parts[k].error == PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
            }
        }
    }
    pst_byte_buffer_fini(&batch);
    close(fd);
}

int main(void) {
    test_stop_with_appends_in_flight();
    test_broker t;
    test_broker_start(&t, 2);
    publish(&t);
    test_deletion_under_load_answers_everything(&t);
    test_every_version_appends(&t);
    test_unknown_places_get_their_codes(&t);
    test_bad_batches_get_their_codes_and_never_reach_the_log(&t);
    test_duplicates_are_answered_with_their_first_offset(&t);
    test_acks_0_answers_nothing_and_closes_on_error(&t);
    test_compacted_topics_refuse_records_without_key(&t);
    test_topic_codec_rewrites_and_keeps_offsets(&t);
    test_timestamp_rules_of_topics(&t);
    test_pipelined_requests_keep_order_with_offloaded_appends(&t);
    test_reads_see_offloaded_appends_of_their_connection(&t);
    test_producers_on_all_reactors_keep_their_sequences(&t);
    test_cut_requests_close_the_connection(&t);
    test_small_segments_roll_under_pipelining(&t);
    test_broker_stop(&t);
    pst_byte_buffer_fini(&in);
    pst_byte_buffer_fini(&out);
    return 0;
}
