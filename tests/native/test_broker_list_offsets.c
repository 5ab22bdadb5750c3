/* ListOffsets and OffsetForLeaderEpoch: every version, special timestamps, lookups by time,
 * fencing, duplicates. */
#include "test_broker_fetch_support.h"

typedef struct {
    const char *topic;
    int32_t index;
    int32_t epoch;
    int64_t timestamp;
} list_ask;

typedef struct {
    char topic[32];
    int32_t index;
    int16_t error;
    int64_t timestamp, offset;
    int32_t epoch;
} list_got;

static void list_send(int fd, int16_t v, int8_t isolation, int count, const list_ask *asks) {
    bool flexible = v >= 6;
    pst_byte_buffer buffer = {0};
    pst_writer w = pst_writer_of(&buffer);
    rq_begin(&w, 2, v, v, flexible);
    pst_writer_i32(&w, -1);
    if (v >= 2) {
        pst_writer_i8(&w, isolation);
    }
    pst_writer_any_array(&w, flexible, count);
    for (int i = 0; i < count; i++) {
        pst_slice name = pst_slice_str(asks[i].topic);
        pst_writer_any_string(&w, flexible, &name);
        pst_writer_any_array(&w, flexible, 1);
        pst_writer_i32(&w, asks[i].index);
        if (v >= 4) {
            pst_writer_i32(&w, asks[i].epoch);
        }
        pst_writer_i64(&w, asks[i].timestamp);
        pst_writer_no_tagged(&w, flexible);
        pst_writer_no_tagged(&w, flexible);
    }
    if (v >= 10) {
        pst_writer_i32(&w, 1000);
    }
    pst_writer_no_tagged(&w, flexible);
    rq_send(fd, &w);
}

static int list_receive(int fd, int16_t v, list_got *got, int most) {
    bool flexible = v >= 6;
    response rs = rs_receive(fd, v, flexible);
    pst_reader *r = &rs.r;
    if (v >= 2) {
        CHECK_EQ(pst_reader_i32(r), 0);
    }
    int total = 0;
    int32_t topics = pst_reader_any_array(r, flexible, 6);
    for (int32_t i = 0; i < topics; i++) {
        pst_slice name = pst_reader_any_string(r, flexible);
        int32_t count = pst_reader_any_array(r, flexible, 20);
        for (int32_t k = 0; k < count; k++) {
            CHECK(total < most && name.size < sizeof got->topic);
            list_got *part = &got[total++];
            memset(part, 0, sizeof *part);
            memcpy(part->topic, name.data, name.size);
            part->index = pst_reader_i32(r);
            part->error = pst_reader_i16(r);
            part->timestamp = pst_reader_i64(r);
            part->offset = pst_reader_i64(r);
            part->epoch = v >= 4 ? pst_reader_i32(r) : -1;
            if (flexible) {
                pst_reader_skip_tagged(r);
            }
        }
        if (flexible) {
            pst_reader_skip_tagged(r);
        }
    }
    if (flexible) {
        pst_reader_skip_tagged(r);
    }
    CHECK_EQ(pst_reader_finish(r), 0);
    free(rs.data);
    return total;
}

static list_got list_one(int fd, int16_t v, list_ask ask) {
    list_got got;
    list_send(fd, v, 0, 1, &ask);
    CHECK_EQ(list_receive(fd, v, &got, 1), 1);
    CHECK_EQ(got.index, ask.index);
    return got;
}

static void expect(list_got got, int16_t error, int64_t offset, int64_t timestamp, int32_t epoch) {
    CHECK_EQ(got.error, error);
    CHECK_EQ(got.offset, offset);
    CHECK_EQ(got.timestamp, timestamp);
    CHECK_EQ(got.epoch, epoch);
}

/* Kafka's ListOffsetsRequestTest, testResponseDefaultOffsetAndLeaderEpochForAllVersions. */
static void test_offsets_and_epochs_in_every_version(fixture *fx) {
    fx_publish(fx, "list", 1, 1, 0);
    for (int i = 0; i < 9; i++) {
        fx_append(fx, 1, 0, 1, 10, 1000);
    }
    fx_append(fx, 1, 0, 1, 10, 2000);
    int fd = test_connect(fx->net);
    for (int16_t v = 1; v <= 11; v++) {
        int32_t epoch = v >= 4 ? 0 : -1;
        expect(list_one(fd, v, (list_ask){"list", 0, -1, 0}), 0, 0, 1000, epoch);
        expect(list_one(fd, v, (list_ask){"list", 0, -1, 1500}), 0, 9, 2000, epoch);
        expect(list_one(fd, v, (list_ask){"list", 0, -1, 2001}), 0, -1, -1, -1);
        expect(list_one(fd, v, (list_ask){"list", 0, -1, -2}), 0, 0, -1, epoch);
        expect(list_one(fd, v, (list_ask){"list", 0, -1, -1}), 0, 10, -1, epoch);
        list_got got = list_one(fd, v, (list_ask){"list", 0, -1, -3});
        if (v >= 7) {
            expect(got, 0, 9, 2000, epoch);
        } else {
            expect(got, PST_KAFKA_UNSUPPORTED_VERSION, -1, -1, -1);
        }
        got = list_one(fd, v, (list_ask){"list", 0, -1, -4});
        if (v >= 8) {
            expect(got, 0, 0, -1, epoch);
        } else {
            expect(got, PST_KAFKA_UNSUPPORTED_VERSION, -1, -1, -1);
        }
        expect(list_one(fd, v, (list_ask){"list", 0, -1, -5}),
               v >= 9 ? 0 : PST_KAFKA_UNSUPPORTED_VERSION, -1, -1, -1);
        expect(list_one(fd, v, (list_ask){"list", 0, -1, -6}),
               v >= 11 ? 0 : PST_KAFKA_UNSUPPORTED_VERSION, -1, -1, -1);
        expect(list_one(fd, v, (list_ask){"list", 0, -1, -7}), PST_KAFKA_UNSUPPORTED_VERSION, -1,
               -1, -1);
    }
    close(fd);
}

static void test_errors(fixture *fx) {
    fx_publish(fx, "epochs", 2, 1, 3);
    int fd = test_connect(fx->net);
    expect(list_one(fd, 8, (list_ask){"nobody", 0, -1, -1}), PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION,
           -1, -1, -1);
    expect(list_one(fd, 8, (list_ask){"epochs", 1, -1, -1}), PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION,
           -1, -1, -1);
    expect(list_one(fd, 8, (list_ask){"epochs", 0, 2, -1}), PST_KAFKA_FENCED_LEADER_EPOCH, -1, -1,
           -1);
    expect(list_one(fd, 8, (list_ask){"epochs", 0, 4, -1}), PST_KAFKA_UNKNOWN_LEADER_EPOCH, -1, -1,
           -1);
    expect(list_one(fd, 8, (list_ask){"epochs", 0, 3, -1}), 0, 0, -1, 3);
    expect(list_one(fd, 8, (list_ask){"epochs", 0, 3, -2}), 0, 0, -1, 3);
    expect(list_one(fd, 8, (list_ask){"epochs", 0, 3, -3}), 0, -1, -1, -1);
    expect(list_one(fd, 8, (list_ask){"epochs", 0, 3, 0}), 0, -1, -1, -1);
    close(fd);
}

static void test_duplicates_are_refused_once(fixture *fx) {
    fx_publish(fx, "twice", 3, 2, 0);
    int fd = test_connect(fx->net);
    list_ask asks[] = {
        {"twice", 0, -1, -1}, {"twice", 1, -1, -1}, {"twice", 0, -1, -2}, {"nobody", 0, -1, -1}};
    list_got got[4];
    for (int16_t v = 1; v <= 11; v += 5) {
        list_send(fd, v, 1, 4, asks);
        CHECK_EQ(list_receive(fd, v, got, 4), 3);
        CHECK_EQ(got[0].error, PST_KAFKA_INVALID_REQUEST);
        CHECK_EQ(got[1].error, 0);
        CHECK_EQ(got[1].index, 1);
        CHECK_EQ(got[2].error, PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    }
    list_send(fd, 6, 0, 0, NULL);
    CHECK_EQ(list_receive(fd, 6, got, 4), 0);
    close(fd);
}

static void test_deleted_records_move_the_earliest(fixture *fx) {
    fx_publish(fx, "trim", 4, 1, 0);
    fx_append(fx, 4, 0, 10, 10, 1000);
    pst_uuid topic = fx_id(4);
    int64_t log_start;
    CHECK_EQ(pst_broker_delete_records(fx->broker, &topic, 0, 4, &log_start), 0);
    int fd = test_connect(fx->net);
    expect(list_one(fd, 8, (list_ask){"trim", 0, -1, -2}), 0, 4, -1, 0);
    expect(list_one(fd, 8, (list_ask){"trim", 0, -1, -1}), 0, 10, -1, 0);
    expect(list_one(fd, 8, (list_ask){"trim", 0, -1, 1007}), 0, 7, 1007, 0);
    close(fd);
}

/* ---- OffsetForLeaderEpoch ---- */

static void epoch_of(int fd, int16_t v, const char *topic, int32_t current, int32_t asked,
                     int16_t error, int32_t epoch, int64_t end) {
    bool flexible = v >= 4;
    pst_byte_buffer buffer = {0};
    pst_writer w = pst_writer_of(&buffer);
    rq_begin(&w, 23, v, 5, flexible);
    if (v >= 3) {
        pst_writer_i32(&w, -1);
    }
    pst_writer_any_array(&w, flexible, 1);
    pst_slice name = pst_slice_str(topic);
    pst_writer_any_string(&w, flexible, &name);
    pst_writer_any_array(&w, flexible, 1);
    pst_writer_i32(&w, 0);
    pst_writer_i32(&w, current);
    pst_writer_i32(&w, asked);
    pst_writer_no_tagged(&w, flexible);
    pst_writer_no_tagged(&w, flexible);
    pst_writer_no_tagged(&w, flexible);
    rq_send(fd, &w);
    response rs = rs_receive(fd, 5, flexible);
    pst_reader *r = &rs.r;
    CHECK_EQ(pst_reader_i32(r), 0);
    CHECK_EQ(pst_reader_any_array(r, flexible, 6), 1);
    CHECK(pst_slice_eq(pst_reader_any_string(r, flexible), name));
    CHECK_EQ(pst_reader_any_array(r, flexible, 6), 1);
    CHECK_EQ(pst_reader_i16(r), error);
    CHECK_EQ(pst_reader_i32(r), 0);
    CHECK_EQ(pst_reader_i32(r), epoch);
    CHECK_EQ(pst_reader_i64(r), end);
    for (int i = 0; flexible && i < 3; i++) {
        CHECK_EQ(pst_reader_uvarint(r), 0);
    }
    CHECK_EQ(pst_reader_finish(r), 0);
    free(rs.data);
}

static void test_ends_of_epochs(fixture *fx) {
    fx_publish(fx, "ends", 5, 1, 2);
    int fd = test_connect(fx->net);
    for (int16_t v = 2; v <= 4; v++) {
        int64_t end = v - 2;
        epoch_of(fd, v, "ends", -1, 2, 0, 2, end);
        epoch_of(fd, v, "ends", 2, 2, 0, 2, end);
        epoch_of(fd, v, "ends", -1, 3, 0, -1, -1);
        epoch_of(fd, v, "ends", -1, -1, 0, -1, -1);
        /* Before the first epoch, as Kafka 4.4 answers, also while the log is empty. */
        epoch_of(fd, v, "ends", -1, -2, 0, -2, 0);
        epoch_of(fd, v, "ends", -1, INT32_MIN, 0, INT32_MIN, 0);
        epoch_of(fd, v, "ends", -1, 1, 0, 1, 0);
        epoch_of(fd, v, "ends", 1, 2, PST_KAFKA_FENCED_LEADER_EPOCH, -1, -1);
        epoch_of(fd, v, "ends", 3, 2, PST_KAFKA_UNKNOWN_LEADER_EPOCH, -1, -1);
        epoch_of(fd, v, "nobody", -1, 2, PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION, -1, -1);
        fx_append(fx, 5, 0, 1, 10, 1000);
    }
    fx_publish(fx, "empty", 6, 1, 3);
    epoch_of(fd, 4, "empty", -1, 0, 0, 0, 0);
    epoch_of(fd, 4, "empty", -1, -2, 0, -2, 0);
    close(fd);
}

static void test_lying_requests_close_the_connection(fixture *fx) {
    static const int16_t KEYS[][2] = {{2, 1}, {2, 11}, {23, 2}, {23, 4}};
    for (int i = 0; i < 4; i++) {
        for (size_t extra = 0; extra < 40; extra++) {
            bool flexible = i % 2 == 1;
            pst_byte_buffer buffer = {0};
            pst_writer w = pst_writer_of(&buffer);
            rq_begin(&w, KEYS[i][0], KEYS[i][1], 1, flexible);
            for (size_t k = 0; k < extra; k++) {
                pst_writer_u8(&w, 0x7f);
            }
            int fd = test_connect(fx->net);
            rq_send(fd, &w);
            expect_closed(fd);
        }
    }
}

int main(void) {
    fixture fx;
    fx_start(&fx, 2, 100, 120000);
    test_offsets_and_epochs_in_every_version(&fx);
    test_errors(&fx);
    test_duplicates_are_refused_once(&fx);
    test_deleted_records_move_the_earliest(&fx);
    test_ends_of_epochs(&fx);
    test_lying_requests_close_the_connection(&fx);
    fx_stop(&fx);
    return 0;
}
