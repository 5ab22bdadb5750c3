/* test_storage_log.c - append, read, roll, offsets, epochs, retention and reopening of one log. */
#include "storage_fixture.h"

static void test_append_then_read_back(void) {
    fixture f;
    fixture_open(&f);
    append_ok(&f, 3, 100, 1000);
    append_ok(&f, 2, 100, 1001);
    pst_log_offsets o;
    pst_log_get_offsets(f.log, &o);
    CHECK_EQ(o.log_start, 0);
    CHECK_EQ(o.log_end, 5);
    CHECK_EQ(o.high_watermark, 5);
    check_reads_everything(&f, 0, 5);
    /* a mid-batch offset gets the whole batch */
    CHECK_EQ(first_offset_at(&f, 1), 0);
    CHECK_EQ(first_offset_at(&f, 4), 3);
    fixture_close(&f, true);
}

static void test_offsets_outside_are_refused(void) {
    fixture f;
    fixture_open(&f);
    append_ok(&f, 1, 10, 1);
    pst_log_slice s;
    CHECK_EQ(read_slice(&f, 2, 2, 100, true, &s), -PST_EOFFSET);
    CHECK_EQ(read_slice(&f, -1, 1, 100, true, &s), -PST_EOFFSET);
    CHECK_EQ(read_slice(&f, 1, 1, 100, true, &s), 0);
    CHECK_EQ(s.copied, 0);
    CHECK(s.range.file == NULL);
    fixture_close(&f, true);
}

static void test_end_offset_clips_at_its_batch(void) {
    fixture f;
    fixture_open(&f);
    for (int i = 0; i < 50; i++) {
        append_ok(&f, 2, 200, 1000 + i);
    }
    for (int64_t from = 0; from < 100; from += 7) {
        for (int64_t to = from + 1; to <= 100; to += 13) {
            int64_t last = -1;
            read_range(&f, from, to, 1 << 20, &last);
            CHECK(last >= 0);
            CHECK(last < to + 1); /* the batch of `to - 1`, never the next one */
            CHECK(last >= to - 1);
        }
    }
    fixture_close(&f, true);
}

static void test_an_answer_that_ends_on_an_index_entry_moves_no_boundary(void) {
    fixture f;
    fixture_open(&f);
    for (int i = 0; i < 200; i++) {
        append_ok(&f, 2, 200, 1000 + i);
    }
    pst_log_slice s;
    CHECK_EQ(read_slice(&f, 0, 2, 1, true, &s), 0);
    int64_t size = s.first_batch_size;
    CHECK(size > 400);
    pst_file_unref(s.range.file);
    for (int64_t to = 300; to < 400; to += 14) {
        for (int64_t count = 1; count < to / 2; count++) {
            CHECK_EQ(read_slice(&f, 0, to, count * size, true, &s), 0);
            pst_file_unref(s.range.file);
            CHECK_EQ(first_offset_at(&f, to), to);
        }
    }
    fixture_close(&f, true);
}

static void test_max_bytes_and_first_batch(void) {
    fixture f;
    fixture_open(&f);
    append_ok(&f, 1, 5000, 1);
    append_ok(&f, 1, 5000, 2);
    pst_log_slice s;
    CHECK_EQ(read_slice(&f, 0, 2, 10, true, &s), 0);
    CHECK(s.copied > 5000 && s.copied < 5200);
    CHECK_EQ((int64_t)s.copied, s.first_batch_size);
    CHECK_EQ(read_slice(&f, 0, 2, 10, false, &s), 0);
    CHECK_EQ(s.copied, 10);
    CHECK_EQ(read_slice(&f, 0, 2, 0, false, &s), 0);
    CHECK_EQ(s.copied, 0);
    fixture_close(&f, true);
}

static void test_rolls_by_size_and_reads_across(void) {
    fixture f;
    fixture_open(&f);
    f.config.segment_bytes = 4096;
    f.config.index_interval_bytes = 512;
    for (int i = 0; i < 200; i++) {
        append_ok(&f, 3, 100, 1000 + i);
    }
    pst_storage_statistics st;
    pst_storage_get_statistics(f.storage, &st);
    CHECK(st.rolls > 10);
    check_reads_everything(&f, 0, 600);
    for (int64_t at = 0; at < 600; at += 11) {
        int64_t first = first_offset_at(&f, at);
        CHECK(first <= at && first > at - 3);
    }
    fixture_reopen(&f, true);
    check_reads_everything(&f, 0, 600);
    fixture_reopen(&f, false);
    check_reads_everything(&f, 0, 600);
    append_ok(&f, 1, 100, 5000);
    check_reads_everything(&f, 0, 601);
    fixture_close(&f, true);
}

static void test_rolls_by_record_time(void) {
    fixture f;
    fixture_open(&f);
    f.config.segment_ms = 1000;
    append_ok(&f, 1, 10, 100000);
    append_ok(&f, 1, 10, 101000);
    append_ok(&f, 1, 10, 101001);
    pst_storage_statistics st;
    pst_storage_get_statistics(f.storage, &st);
    CHECK_EQ(st.rolls, 1);
    fixture_close(&f, true);
}

static void test_tail_serves_small_reads(void) {
    fixture f;
    fixture_open(&f);
    append_ok(&f, 1, 100, 1);
    int64_t last;
    read_range(&f, 1, 1, 1000, &last); /* a reader waits at the end */
    pst_storage_statistics st;
    pst_storage_get_statistics(f.storage, &st);
    CHECK_EQ(st.tail_bytes, 65536);
    for (int i = 0; i < 3000; i++) {
        append_ok(&f, 1, (size_t)(100 + i % 50), 2);
        read_range(&f, i + 1, i + 2, 1000, &last);
        CHECK_EQ(last, i + 1);
    }
    append_ok(&f, 1, 60000, 2); /* larger than half a ring */
    append_ok(&f, 1, 60, 2);
    read_range(&f, 3002, 3003, 1000, &last);
    CHECK_EQ(last, 3002);
    check_reads_everything(&f, 0, 3003);
    fixture_close(&f, true);
}

static void test_delete_records_moves_the_start(void) {
    fixture f;
    fixture_open(&f);
    f.config.segment_bytes = 2000;
    for (int i = 0; i < 50; i++) {
        append_ok(&f, 1, 200, 1000);
    }
    int64_t start;
    CHECK_EQ(pst_log_delete_records(f.log, 51, &start), -PST_EOFFSET);
    CHECK_EQ(pst_log_delete_records(f.log, 30, &start), 0);
    CHECK_EQ(start, 30);
    pst_log_slice s;
    CHECK_EQ(read_slice(&f, 29, 50, 100, true, &s), -PST_EOFFSET);
    CHECK(pst_log_apply_retention(f.log, 1000) > 0);
    check_reads_everything(&f, 30, 50);
    CHECK_EQ(pst_storage_checkpoint(f.storage), 0);
    fixture_reopen(&f, false);
    pst_log_offsets o;
    pst_log_get_offsets(f.log, &o);
    CHECK_EQ(o.log_start, 30);
    CHECK_EQ(pst_log_delete_records(f.log, -1, &start), 0);
    CHECK_EQ(start, 50);
    fixture_close(&f, true);
}

static void test_retention_by_size_and_time(void) {
    fixture f;
    fixture_open(&f);
    f.config.segment_bytes = 2000;
    f.config.retention_bytes = 5000;
    for (int i = 0; i < 50; i++) {
        append_ok(&f, 1, 200, 1000 + i);
    }
    CHECK(pst_log_apply_retention(f.log, 2000) > 0);
    CHECK(pst_log_size(f.log) >= 5000);
    CHECK(pst_log_size(f.log) < 7100);
    f.config.retention_bytes = -1;
    f.config.retention_ms = 100;
    fixture_reopen(&f, true); /* timestamps of rolled segments now come from their files */
    CHECK(pst_log_apply_retention(f.log, 1000000) > 0);
    CHECK_EQ(pst_log_size(f.log), 0);
    pst_log_offsets o;
    pst_log_get_offsets(f.log, &o);
    CHECK_EQ(o.log_start, 50);
    CHECK_EQ(o.log_end, 50);
    append_ok(&f, 1, 200, 1000000);
    check_reads_everything(&f, 50, 51);
    fixture_close(&f, true);
}

static void test_retention_stops_at_the_high_watermark(void) {
    fixture f;
    fixture_open(&f);
    f.config.segment_bytes = 2000;
    f.config.retention_bytes = 0;
    f.keep_watermark = true;
    for (int i = 0; i < 20; i++) {
        append_ok(&f, 1, 200, 1000);
    }
    CHECK_EQ(pst_log_apply_retention(f.log, 2000), 0);
    pst_log_advance_high_watermark(f.log, 10);
    CHECK(pst_log_apply_retention(f.log, 2000) > 0);
    pst_log_offsets o;
    pst_log_get_offsets(f.log, &o);
    CHECK(o.log_start <= 10);
    fixture_close(&f, true);
}

static void test_timestamps(void) {
    fixture f;
    fixture_open(&f);
    f.config.segment_bytes = 4096;
    f.config.index_interval_bytes = 300;
    for (int i = 0; i < 100; i++) {
        append_ok(&f, 2, 100, 1000 + i * 10); /* records at t and t + 1 */
    }
    for (int pass = 0; pass < 2; pass++) {
        int64_t offset;
        int64_t ts;
        for (int i = 0; i < 100; i += 7) {
            CHECK_EQ(pst_log_offset_for_timestamp(f.log, 1000 + i * 10, &offset, &ts), 0);
            CHECK_EQ(offset, 2 * i);
            CHECK_EQ(ts, 1000 + i * 10);
            CHECK_EQ(pst_log_offset_for_timestamp(f.log, 1001 + i * 10, &offset, &ts), 0);
            CHECK_EQ(offset, 2 * i + 1);
        }
        CHECK_EQ(pst_log_offset_for_timestamp(f.log, 5000, &offset, &ts), 0);
        CHECK_EQ(offset, -1);
        CHECK_EQ(pst_log_max_timestamp(f.log, &offset, &ts), 0);
        CHECK_EQ(offset, 199);
        CHECK_EQ(ts, 1991);
        fixture_reopen(&f, true);
    }
    fixture_close(&f, true);
}

static void test_log_append_time(void) {
    fixture f;
    fixture_open(&f);
    f.config.timestamp_type = 1;
    f.now = 777;
    pst_append a = append_ok(&f, 2, 10, 1);
    CHECK_EQ(a.log_append_time_ms, 777);
    int64_t last;
    read_range(&f, 0, 2, 1000, &last);
    pst_batch b;
    CHECK_EQ(pst_batch_parse(pst_slice_of(f.read_buffer, f.read_size), &b), 0);
    CHECK_EQ(pst_batch_check_crc(&b), 0);
    CHECK_EQ(b.max_timestamp, 777);
    CHECK(pst_batch_is_log_append_time(&b));
    fixture_close(&f, true);
}

static void test_limits_of_size_and_time(void) {
    fixture f;
    fixture_open(&f);
    f.config.max_message_bytes = 500;
    append_ok(&f, 1, 10, 1000);
    CHECK_EQ(append_rc(&f, 1, 1000, 1000), -PST_ETOOLARGE);
    f.config.timestamp_after_max_ms = 100;
    f.config.timestamp_before_max_ms = 200;
    f.now = 1000;
    CHECK_EQ(append_rc(&f, 1, 10, 1101), -PST_ETIMESTAMP);
    CHECK_EQ(append_rc(&f, 1, 10, 1100), 0);
    CHECK_EQ(append_rc(&f, 1, 10, 799), -PST_ETIMESTAMP);
    CHECK_EQ(append_rc(&f, 1, 10, 800), 0);
    pst_log_offsets o;
    pst_log_get_offsets(f.log, &o);
    CHECK_EQ(o.log_end, 3);
    fixture_close(&f, true);
}

static void test_epochs(void) {
    fixture f;
    fixture_open(&f);
    int32_t epoch;
    int64_t end;
    append_ok(&f, 5, 10, 1);
    f.epoch = 3;
    fixture_reopen(&f, true);
    CHECK_EQ(pst_log_leader_epoch(f.log), 3);
    pst_log_end_offset_for_epoch(f.log, 3, &epoch, &end);
    CHECK_EQ(end, 5); /* known before the first record of the epoch */
    append_ok(&f, 5, 10, 1);
    for (int pass = 0; pass < 2; pass++) {
        pst_log_end_offset_for_epoch(f.log, 0, &epoch, &end);
        CHECK_EQ(epoch, 0);
        CHECK_EQ(end, 5);
        pst_log_end_offset_for_epoch(f.log, 2, &epoch, &end);
        CHECK_EQ(epoch, 0);
        CHECK_EQ(end, 5);
        pst_log_end_offset_for_epoch(f.log, 3, &epoch, &end);
        CHECK_EQ(epoch, 3);
        CHECK_EQ(end, 10);
        pst_log_end_offset_for_epoch(f.log, 4, &epoch, &end);
        CHECK_EQ(epoch, -1);
        CHECK_EQ(end, -1);
        CHECK_EQ(pst_log_epoch_at(f.log, 4), 0);
        CHECK_EQ(pst_log_epoch_at(f.log, 5), 3);
        if (pass == 0) {
            unlink_in_log(&f, "leader-epoch-checkpoint"); /* rebuilt from the batches */
        }
        fixture_reopen_after_kill(&f);
    }
    fixture_close(&f, true);
}

static void test_wrong_topic_id_is_left_alone(void) {
    fixture f;
    fixture_open(&f);
    append_ok(&f, 1, 10, 1);
    CHECK_EQ(pst_log_close(f.log), 0);
    f.topic_id.bytes[0] ^= 1;
    pst_log_spec spec = fixture_spec(&f);
    CHECK_EQ(pst_log_open(&spec, &f.log), -PST_EEXIST);
    f.topic_id.bytes[0] ^= 1;
    CHECK_EQ(pst_log_open(&spec, &f.log), -PST_EEXIST);
    spec = fixture_spec(&f);
    CHECK_EQ(pst_log_open(&spec, &f.log), 0);
    fixture_close(&f, true);
}

static void test_delete_removes_the_directory(void) {
    fixture f;
    fixture_open(&f);
    append_ok(&f, 1, 10, 1);
    pst_log_slice s;
    pst_log_read_request r = {.fetch_offset = 0,
                              .end_offset = 1,
                              .max_bytes = 1000,
                              .may_block = true,
                              .min_one_batch = true};
    CHECK_EQ(pst_log_read(f.log, &r, &s), 0);
    CHECK(s.range.file != NULL);
    CHECK_EQ(pst_log_delete(f.log), 0);
    CHECK_EQ(append_rc(&f, 1, 10, 1), -PST_ECLOSED);
    char byte;
    CHECK_EQ(pread(s.range.file->fd, &byte, 1, s.range.pos), 1);
    pst_file_unref(s.range.file);
    CHECK_EQ(pst_log_close(f.log), 0);
    f.log = NULL;
    CHECK_EQ(count_entries(&f, "topic-0"), -1);
    pst_log_spec spec = fixture_spec(&f);
    CHECK_EQ(pst_log_open(&spec, &f.log), 0); /* the same name again, from nothing */
    append_ok(&f, 1, 10, 1);
    check_reads_everything(&f, 0, 1);
    fixture_close(&f, true);
}

static void test_second_opener_is_refused(void) {
    fixture f;
    fixture_open(&f);
    char error[256];
    const char *dirs[] = {f.dir};
    pst_storage_settings settings = {.dirs = dirs, .dir_count = 1, .producer_ids_max = 10};
    pst_storage *second;
    CHECK_EQ(pst_storage_open(&settings, error, sizeof error, &second), -PST_ELOCKED);
    CHECK(strstr(error, f.dir) != NULL);
    fixture_close(&f, true);
}

int main(void) {
    test_append_then_read_back();
    test_offsets_outside_are_refused();
    test_end_offset_clips_at_its_batch();
    test_an_answer_that_ends_on_an_index_entry_moves_no_boundary();
    test_max_bytes_and_first_batch();
    test_rolls_by_size_and_reads_across();
    test_rolls_by_record_time();
    test_tail_serves_small_reads();
    test_delete_records_moves_the_start();
    test_retention_by_size_and_time();
    test_retention_stops_at_the_high_watermark();
    test_timestamps();
    test_log_append_time();
    test_limits_of_size_and_time();
    test_epochs();
    test_wrong_topic_id_is_left_alone();
    test_delete_removes_the_directory();
    test_second_opener_is_refused();
    return 0;
}
