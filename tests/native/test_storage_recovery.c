/* test_storage_recovery.c - what a start finds after kills, torn writes and flipped bits. */
#include "storage_fixture.h"

static const char log_file[] = "00000000000000000000.log";

static void write_at(const fixture *f, const char *name, int64_t pos, const void *bytes, size_t n) {
    char path[512];
    fixture_path(f, name, path);
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    CHECK(fd >= 0);
    CHECK_EQ(pwrite(fd, bytes, n, pos), (ssize_t)n);
    close(fd);
}

static void cut_at(const fixture *f, const char *name, int64_t size) {
    char path[512];
    fixture_path(f, name, path);
    CHECK_EQ(truncate(path, size), 0);
}

static int64_t size_of(const fixture *f, const char *name) {
    char path[512];
    struct stat st;
    fixture_path(f, name, path);
    return stat(path, &st) == 0 ? (int64_t)st.st_size : -1;
}

static uint8_t byte_at(const fixture *f, const char *name, int64_t pos) {
    char path[512];
    uint8_t byte;
    fixture_path(f, name, path);
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    CHECK_EQ(pread(fd, &byte, 1, pos), 1);
    close(fd);
    return byte;
}

static int64_t log_end(fixture *f) {
    pst_log_offsets o;
    pst_log_get_offsets(f->log, &o);
    return o.log_end;
}

/* Four batches of 2 records without any flush: everything is beyond the recovery point. */
static void start(fixture *f) {
    fixture_open(f);
    for (int i = 0; i < 4; i++) {
        append_ok(f, 2, 20, 1000 + i);
    }
}

static void close_log(fixture *f, bool clean) {
    fixture_close_storage(f, clean);
}

static void open_again(fixture *f) {
    fixture_open_storage(f);
    fixture_open_log(f);
}

static void test_torn_tail_is_cut_at_every_byte(void) {
    fixture f;
    start(&f);
    close_log(&f, false);
    int64_t size = size_of(&f, log_file);
    int64_t batch = size / 4;
    char saved[160];
    (void)snprintf(saved, sizeof saved, "%s.saved", f.dir);
    copy_tree(f.dir, saved);
    for (int64_t cut = size - 1; cut > size - batch; cut -= 3) {
        remove_tree(f.dir);
        copy_tree(saved, f.dir);
        cut_at(&f, log_file, cut);
        open_again(&f);
        check_reads_everything(&f, 0, 6);
        append_ok(&f, 1, 20, 2000);
        check_reads_everything(&f, 0, 7);
        close_log(&f, false);
    }
    remove_tree(saved);
    fixture_end(&f);
}

/* Any flip in the last batch: outside base offset and leader epoch the CRC sees it, there structure
 * may. */
static void test_flips_in_the_last_batch(void) {
    fixture f;
    start(&f);
    close_log(&f, false);
    int64_t size = size_of(&f, log_file);
    int64_t batch = size / 4;
    char saved[160];
    (void)snprintf(saved, sizeof saved, "%s.saved", f.dir);
    copy_tree(f.dir, saved);
    for (int64_t pos = size - batch; pos < size; pos++) {
        remove_tree(f.dir);
        copy_tree(saved, f.dir);
        uint8_t flipped = (uint8_t)(byte_at(&f, log_file, pos) ^ 0x40);
        write_at(&f, log_file, pos, &flipped, 1);
        open_again(&f);
        int64_t at = pos - (size - batch);
        if (at >= 16) { /* magic and everything the CRC covers */
            CHECK_EQ(log_end(&f), 6);
        }
        CHECK(log_end(&f) >= 6);
        append_rc(&f, 1, 20, 2000);
        close_log(&f, false);
    }
    remove_tree(saved);
    fixture_end(&f);
}

static void test_damage_before_the_recovery_point_is_kept(void) {
    fixture f;
    start(&f);
    CHECK_EQ(pst_log_flush(f.log), 0);
    append_ok(&f, 2, 20, 2000);
    CHECK_EQ(pst_storage_checkpoint(f.storage), 0);
    close_log(&f, false);
    int64_t size = size_of(&f, log_file);
    int64_t batch = size / 5;
    uint8_t junk = (uint8_t)(byte_at(&f, log_file, batch + 70) ^ 1);
    write_at(&f, log_file, batch + 70, &junk, 1); /* second batch: offsets 2 and 3 */
    for (int pass = 0; pass < 3; pass++) {
        open_again(&f);
        CHECK_EQ(log_end(&f), 10);
        pst_log_slice s;
        int64_t last;
        read_range(&f, 0, 10, 1 << 20, &last);
        CHECK_EQ(last, 1); /* the answer ends before the damage */
        CHECK_EQ(read_slice(&f, 2, 10, 1000, true, &s), -PST_ECORRUPT);
        CHECK_EQ(read_slice(&f, 3, 10, 1000, true, &s), -PST_ECORRUPT);
        read_range(&f, 4, 10, 1 << 20, &last);
        CHECK_EQ(last, 9);
        CHECK_EQ(size_of(&f, log_file), size);
        close_log(&f, pass == 1); /* a clean stop does not make it forgotten */
    }
    fixture_end(&f);
}

static void test_lost_end_before_the_recovery_point(void) {
    fixture f;
    start(&f);
    CHECK_EQ(pst_log_flush(f.log), 0);
    close_log(&f, true);
    int64_t size = size_of(&f, log_file);
    cut_at(&f, log_file, size - 5);
    for (int pass = 0; pass < 2; pass++) {
        open_again(&f);
        pst_log_slice s;
        CHECK_EQ(log_end(&f), 8 + pass); /* offsets are not given again */
        CHECK_EQ(read_slice(&f, 6, 8, 1000, true, &s), -PST_ECORRUPT);
        append_ok(&f, 1, 20, 3000);
        int64_t last;
        read_range(&f, 8, 9, 1000, &last);
        CHECK_EQ(last, 8);
        close_log(&f, false);
        if (pass == 0) {
            CHECK(size_of(&f, "00000000000000000008.log") > 0);
        }
    }
    fixture_end(&f);
}

static void test_truncation_of_a_clean_file_is_noticed(void) {
    fixture f;
    start(&f);
    close_log(&f, true);
    cut_at(&f, log_file, size_of(&f, log_file) / 4 * 3); /* at a batch boundary */
    open_again(&f);
    pst_log_slice s;
    CHECK_EQ(log_end(&f), 8);
    CHECK_EQ(read_slice(&f, 6, 8, 1000, true, &s), -PST_ECORRUPT);
    fixture_close(&f, true);
}

static void test_indexes_are_hints(void) {
    fixture f;
    fixture_open(&f);
    f.config.segment_bytes = 4096;
    f.config.index_interval_bytes = 200;
    for (int i = 0; i < 100; i++) {
        append_ok(&f, 2, 50, 1000 + i);
    }
    close_log(&f, true);
    static const uint8_t zeros[64];
    for (int kind = 0; kind < 4; kind++) {
        char path[512];
        (void)snprintf(path, sizeof path, "%s/topic-0", f.dir);
        DIR *d = opendir(path);
        struct dirent *e;
        while ((e = readdir(d)) != NULL) {
            if (strstr(e->d_name, "index") == NULL) {
                continue;
            }
            if (kind == 0) {
                unlink_in_log(&f, e->d_name);
            } else if (kind == 1) {
                cut_at(&f, e->d_name, 13);
            } else if (kind == 2) {
                cut_at(&f, e->d_name, 0);
                write_at(&f, e->d_name, 0, zeros, 48);
            } else { /* plausible, and wrong */
                static const uint8_t lie[24] = {0, 0, 0, 1, 0, 0, 0, 77, 0, 0, 0, 2, 0, 0, 4, 33};
                cut_at(&f, e->d_name, 0);
                write_at(&f, e->d_name, 0, lie, strstr(e->d_name, "time") != NULL ? 0 : 16);
            }
        }
        closedir(d);
        open_again(&f);
        check_reads_everything(&f, 0, 200);
        for (int64_t at = 0; at < 200; at += 3) {
            CHECK_EQ(first_offset_at(&f, at), at - at % 2);
        }
        int64_t offset;
        int64_t ts;
        CHECK_EQ(pst_log_offset_for_timestamp(f.log, 1050, &offset, &ts), 0);
        CHECK_EQ(ts, 1050);
        close_log(&f, true);
    }
    fixture_end(&f);
}

static void test_files_of_others_are_left_alone(void) {
    fixture f;
    start(&f);
    close_log(&f, true);
    write_at(&f, "notes.txt", 0, "x", 1);
    write_at(&f, "00000000000000000000.log.deleted", 0, "x", 1);
    write_at(&f, "00000000000000000000.log.cleaned", 0, "x", 1);
    write_at(&f, "00000000000000000000.log.swap", 0, "x", 1);
    write_at(&f, "00000000000000000099.log.swap", 0, "x", 1);
    write_at(&f, "00000000000000000099.snapshot", 0, "x", 1); /* beyond the log */
    open_again(&f);
    check_reads_everything(&f, 0, 8);
    CHECK_EQ(size_of(&f, "notes.txt"), 1);
    CHECK_EQ(size_of(&f, "00000000000000000000.log.deleted"), -1);
    CHECK_EQ(size_of(&f, "00000000000000000000.log.cleaned"), -1);
    CHECK_EQ(size_of(&f, "00000000000000000000.log.swap"), -1);
    CHECK_EQ(size_of(&f, "00000000000000000099.log.swap"), 1); /* its original is gone */
    CHECK_EQ(size_of(&f, "00000000000000000099.snapshot"), -1);
    fixture_close(&f, true);
}

static void test_torn_text_files(void) {
    static const char *const names[] = {"partition.metadata", "leader-epoch-checkpoint"};
    for (int i = 0; i < 2; i++) {
        for (int64_t size = 0; size < 5; size += 4) {
            fixture f;
            start(&f);
            close_log(&f, i == 0);
            cut_at(&f, names[i], size);
            open_again(&f);
            check_reads_everything(&f, 0, 8);
            CHECK_EQ(pst_log_epoch_at(f.log, 3), 0);
            fixture_close(&f, true);
        }
    }
}

static void test_torn_checkpoints(void) {
    static const char *const names[] = {"../recovery-point-offset-checkpoint",
                                        "../log-start-offset-checkpoint"};
    for (int i = 0; i < 2; i++) {
        fixture f;
        start(&f);
        close_log(&f, true);
        write_at(&f, names[i], 0, "zz", 2);
        open_again(&f);
        check_reads_everything(&f, 0, 8);
        fixture_close(&f, true);
    }
}

static void test_kill_between_rolls(void) {
    fixture f;
    fixture_open(&f);
    f.config.segment_bytes = 1500;
    for (int i = 0; i < 40; i++) {
        append_ok(&f, 1, 100, 1000 + i);
        if (i % 9 == 4) {
            fixture_reopen_after_kill(&f);
            check_reads_everything(&f, 0, i + 1);
        }
    }
    fixture_close(&f, true);
}

static void test_empty_last_segment(void) {
    fixture f;
    start(&f);
    close_log(&f, false);
    write_at(&f, "00000000000000000008.log", 0, "", 0); /* killed right after a roll */
    open_again(&f);
    check_reads_everything(&f, 0, 8);
    append_ok(&f, 1, 20, 3000);
    check_reads_everything(&f, 0, 9);
    fixture_close(&f, true);
}

static void test_marker_and_checkpoints_are_kafkas(void) {
    fixture f;
    char bytes[128] = {0};
    char path[512];
    start(&f);
    CHECK_EQ(size_of(&f, "../.kafka_cleanshutdown"), -1);
    close_log(&f, true);
    fixture_path(&f, "../.kafka_cleanshutdown", path);
    int fd = open(path, O_RDONLY);
    CHECK(read(fd, bytes, sizeof bytes) > 0);
    close(fd);
    CHECK(strcmp(bytes, "{\"version\":0,\"brokerEpoch\":-1}") == 0);
    memset(bytes, 0, sizeof bytes);
    fixture_path(&f, "../recovery-point-offset-checkpoint", path);
    fd = open(path, O_RDONLY);
    CHECK(read(fd, bytes, sizeof bytes) > 0);
    close(fd);
    CHECK(strcmp(bytes, "0\n1\ntopic 0 8\n") == 0);
    memset(bytes, 0, sizeof bytes);
    fixture_path(&f, "leader-epoch-checkpoint", path);
    fd = open(path, O_RDONLY);
    CHECK(read(fd, bytes, sizeof bytes) > 0);
    close(fd);
    CHECK(strcmp(bytes, "0\n1\n0 0\n") == 0);
    memset(bytes, 0, sizeof bytes);
    fixture_path(&f, "partition.metadata", path);
    fd = open(path, O_RDONLY);
    CHECK(read(fd, bytes, sizeof bytes) > 0);
    close(fd);
    CHECK(strcmp(bytes, "version: 0\ntopic_id: AQgPFh0kKzI5QEdOVVxjag") == 0);
    CHECK_EQ(size_of(&f, "00000000000000000000.index"), 0);
    CHECK_EQ(size_of(&f, "00000000000000000000.timeindex"), 12);
    fixture_end(&f);
}

int main(void) {
    test_torn_tail_is_cut_at_every_byte();
    test_flips_in_the_last_batch();
    test_damage_before_the_recovery_point_is_kept();
    test_lost_end_before_the_recovery_point();
    test_truncation_of_a_clean_file_is_noticed();
    test_indexes_are_hints();
    test_files_of_others_are_left_alone();
    test_torn_text_files();
    test_torn_checkpoints();
    test_kill_between_rolls();
    test_empty_last_segment();
    test_marker_and_checkpoints_are_kafkas();
    return 0;
}
