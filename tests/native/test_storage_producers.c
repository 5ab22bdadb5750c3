/* test_storage_producers.c - idempotent producers: duplicates, gaps, epochs, wrap, arrays,
 * restarts. */
#include "storage_fixture.h"

static pst_append produce(fixture *f, int64_t id, int epoch, int32_t sequence, int count) {
    pst_byte_buffer bytes = make_batch(count, 10, 1000, id, (int16_t)epoch, sequence);
    pst_append a = make_append(&bytes);
    CHECK_EQ(append_array(f, &a, 1), 0);
    pst_byte_buffer_fini(&bytes);
    a.data = NULL;
    return a;
}

static int64_t log_end(fixture *f) {
    pst_log_offsets o;
    pst_log_get_offsets(f->log, &o);
    return o.log_end;
}

static void test_last_five_batches_are_duplicates(void) {
    fixture f;
    fixture_open(&f);
    for (int i = 0; i < 7; i++) {
        CHECK_EQ(produce(&f, 9, 0, i * 2, 2).rc, 0);
    }
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 2; i < 7; i++) {
            pst_append a = produce(&f, 9, 0, i * 2, 2);
            CHECK_EQ(a.rc, -PST_EDUPLICATE);
            CHECK_EQ(a.base_offset, i * 2);
            CHECK_EQ(a.log_append_time_ms, 1001);
        }
        CHECK_EQ(produce(&f, 9, 0, 2, 2).rc, -PST_ESEQUENCE);  /* sixth from the end */
        CHECK_EQ(produce(&f, 9, 0, 12, 1).rc, -PST_ESEQUENCE); /* half of a batch is no duplicate */
        CHECK_EQ(produce(&f, 9, 0, 15, 1).rc, -PST_ESEQUENCE); /* a gap */
        CHECK_EQ(log_end(&f), 14);
        fixture_reopen_after_kill(&f); /* the window is rebuilt from the log */
    }
    CHECK_EQ(produce(&f, 9, 0, 14, 1).rc, 0);
    fixture_close(&f, true);
}

static void test_epochs_fence(void) {
    fixture f;
    fixture_open(&f);
    CHECK_EQ(produce(&f, 9, 1, 5, 1).rc, 0); /* nobody knows it: any sequence */
    CHECK_EQ(produce(&f, 9, 0, 6, 1).rc, -PST_EPRODUCEREPOCH);
    CHECK_EQ(produce(&f, 9, 2, 6, 1).rc, -PST_ESEQUENCE);
    CHECK_EQ(produce(&f, 9, 2, 0, 1).rc, 0);
    CHECK_EQ(produce(&f, 9, 1, 6, 1).rc, -PST_EPRODUCEREPOCH);
    CHECK_EQ(produce(&f, 9, 2, 1, 1).rc, 0);
    CHECK_EQ(produce(&f, 8, 0, 0, 1).rc, 0); /* another producer does not care */
    fixture_close(&f, true);
}

static void test_sequences_wrap(void) {
    fixture f;
    fixture_open(&f);
    CHECK_EQ(produce(&f, 9, 0, INT32_MAX - 1, 2).rc, 0); /* ends at INT32_MAX */
    CHECK_EQ(produce(&f, 9, 0, 1, 1).rc, -PST_ESEQUENCE);
    CHECK_EQ(produce(&f, 9, 0, 0, 1).rc, 0);
    CHECK_EQ(produce(&f, 7, 0, INT32_MAX, 3).rc, 0); /* INT32_MAX, 0, 1 */
    CHECK_EQ(produce(&f, 7, 0, INT32_MAX, 3).rc, -PST_EDUPLICATE);
    CHECK_EQ(produce(&f, 7, 0, 2, 1).rc, 0);
    fixture_reopen(&f, true);
    CHECK_EQ(produce(&f, 7, 0, 2, 1).rc, -PST_EDUPLICATE);
    CHECK_EQ(produce(&f, 7, 0, 3, 1).rc, 0);
    fixture_close(&f, true);
}

static void test_one_array_with_the_same_producer(void) {
    fixture f;
    fixture_open(&f);
    pst_byte_buffer bytes[7];
    pst_append a[7];
    int32_t sequences[7] = {0, 1, 1, 3, 2, 0, 3};
    int expected[7] = {0, 0, -PST_EDUPLICATE, -PST_ESEQUENCE, 0, -PST_EDUPLICATE, 0};
    int64_t offsets[7] = {0, 1, 1, -1, 2, 0, 3};
    for (int i = 0; i < 7; i++) {
        bytes[i] = make_batch(1, 10, 1000, 9, 0, sequences[i]);
        a[i] = make_append(&bytes[i]);
    }
    CHECK_EQ(append_array(&f, a, 7), 0);
    for (int i = 0; i < 7; i++) {
        CHECK_EQ(a[i].rc, expected[i]);
        CHECK_EQ(a[i].base_offset, offsets[i]);
        pst_byte_buffer_fini(&bytes[i]);
    }
    CHECK_EQ(log_end(&f), 4);
    CHECK_EQ(produce(&f, 9, 0, 3, 1).rc, -PST_EDUPLICATE);
    CHECK_EQ(produce(&f, 9, 0, 4, 1).rc, 0);
    check_reads_everything(&f, 0, 5);
    fixture_close(&f, true);
}

static void test_state_survives_rolls_and_restarts(void) {
    fixture f;
    fixture_open(&f);
    f.config.segment_bytes = 1000;
    for (int i = 0; i < 60; i++) {
        CHECK_EQ(produce(&f, 100 + i % 3, 0, i / 3, 1).rc, 0);
    }
    for (int pass = 0; pass < 4; pass++) {
        if (pass % 2 == 0) {
            fixture_reopen(&f, true);
        } else {
            fixture_reopen_after_kill(&f);
        }
        for (int p = 0; p < 3; p++) {
            CHECK_EQ(produce(&f, 100 + p, 0, 19, 1).rc, -PST_EDUPLICATE);
            CHECK_EQ(produce(&f, 100 + p, 0, 21, 1).rc, -PST_ESEQUENCE);
        }
    }
    int64_t start;
    CHECK_EQ(pst_log_delete_records(f.log, -1, &start), 0);
    CHECK(pst_log_apply_retention(f.log, 2000) > 0);
    CHECK_EQ(produce(&f, 100, 0, 19, 1).rc, -PST_EDUPLICATE); /* state goes by age only */
    fixture_close(&f, true);
}

static void test_ids_expire_and_are_capped(void) {
    fixture f;
    fixture_init(&f);
    f.producer_expiration_ms = 100;
    f.producer_ids_max = 10;
    fixture_open_storage(&f);
    fixture_open_log(&f);
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(produce(&f, i, 0, 0, 1).rc, 0);
    }
    pst_storage_statistics st;
    pst_storage_get_statistics(f.storage, &st);
    CHECK_EQ(st.producer_ids, 10);
    CHECK_EQ(produce(&f, 49, 0, 0, 1).rc, -PST_EDUPLICATE);
    CHECK_EQ(pst_log_apply_retention(f.log, 1099), 0);
    pst_storage_get_statistics(f.storage, &st);
    CHECK_EQ(st.producer_ids, 10);
    CHECK_EQ(pst_log_apply_retention(f.log, 1101), 0);
    pst_storage_get_statistics(f.storage, &st);
    CHECK_EQ(st.producer_ids, 0);
    CHECK_EQ(produce(&f, 49, 0, 7, 1).rc, 0);
    fixture_close(&f, true);
}

static void test_damaged_snapshot_costs_a_replay(void) {
    fixture f;
    fixture_open(&f);
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(produce(&f, 9, 0, i, 1).rc, 0);
    }
    fixture_close_storage(&f, true);
    char path[512];
    fixture_path(&f, "00000000000000000005.snapshot", path);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    CHECK_EQ(pwrite(fd, "x", 1, 20), 1);
    close(fd);
    fixture_open_storage(&f);
    fixture_open_log(&f);
    CHECK_EQ(produce(&f, 9, 0, 4, 1).rc, -PST_EDUPLICATE);
    CHECK_EQ(produce(&f, 9, 0, 1, 1).rc, -PST_EDUPLICATE);
    CHECK_EQ(produce(&f, 9, 0, 5, 1).rc, 0);
    fixture_close(&f, true);
}

int main(void) {
    test_last_five_batches_are_duplicates();
    test_epochs_fence();
    test_sequences_wrap();
    test_one_array_with_the_same_producer();
    test_state_survives_rolls_and_restarts();
    test_ids_expire_and_are_capped();
    test_damaged_snapshot_costs_a_replay();
    return 0;
}
