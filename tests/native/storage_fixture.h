/* storage_fixture.h - one storage with one log in a temporary directory, for the storage tests. */
#ifndef PST_TEST_STORAGE_FIXTURE_H
#define PST_TEST_STORAGE_FIXTURE_H

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/iopool.h"
#include "check.h"
#include "storage/log.h"
#include "storage/storage.h"
#include "wire/batch.h"

#define FIXTURE_UNUSED __attribute__((unused))

typedef struct {
    char dir[128];
    pst_iopool *pool;
    pst_storage *storage;
    pst_log *log;
    pst_log_config config;
    pst_uuid topic_id;
    int32_t epoch;
    int64_t now;
    bool keep_watermark;
    int32_t producer_ids_max;
    int64_t producer_expiration_ms;
    uint8_t read_buffer[1 << 20];
    size_t read_size;
} fixture;

FIXTURE_UNUSED static void fixture_path(const fixture *f, const char *name, char out[512]) {
    (void)snprintf(out, 512, "%s/topic-0/%s", f->dir, name);
}

FIXTURE_UNUSED static pst_log_spec fixture_spec(fixture *f) {
    return (pst_log_spec){.storage = f->storage,
                          .topic = pst_slice_str("topic"),
                          .topic_id = f->topic_id,
                          .leader_epoch = f->epoch,
                          .config = &f->config};
}

FIXTURE_UNUSED static void fixture_open_storage(fixture *f) {
    char error[256];
    const char *dirs[] = {f->dir};
    pst_storage_settings settings = {.dirs = dirs,
                                     .dir_count = 1,
                                     .iopool = f->pool,
                                     .file_cache_count = 16,
                                     .tail_pool_size = 4 * 65536,
                                     .producer_id_expiration_ms = f->producer_expiration_ms,
                                     .producer_ids_max = f->producer_ids_max};
    int rc = pst_storage_open(&settings, error, sizeof error, &f->storage);
    if (rc != 0) {
        fprintf(stderr, "%s\n", error);
    }
    CHECK_EQ(rc, 0);
}

FIXTURE_UNUSED static void fixture_open_log(fixture *f) {
    pst_log_spec spec = fixture_spec(f);
    CHECK_EQ(pst_log_open(&spec, &f->log), 0);
}

FIXTURE_UNUSED static void fixture_init(fixture *f) {
    memset(f, 0, sizeof *f);
    const char *base = getenv("TMPDIR");
    (void)snprintf(f->dir, sizeof f->dir, "%.90s/pst-storage-XXXXXX", base != NULL ? base : "/tmp");
    CHECK(mkdtemp(f->dir) != NULL);
    CHECK_EQ(pst_iopool_create(1, &f->pool), 0);
    for (int i = 0; i < 16; i++) {
        f->topic_id.bytes[i] = (uint8_t)(i * 7 + 1);
    }
    f->producer_ids_max = 1000;
    f->producer_expiration_ms = 86400000;
    f->config = (pst_log_config){.segment_bytes = 1 << 30,
                                 .segment_ms = 604800000,
                                 .segment_index_bytes = 10 << 20,
                                 .index_interval_bytes = 4096,
                                 .retention_ms = -1,
                                 .retention_bytes = -1,
                                 .max_message_bytes = 1 << 20,
                                 .timestamp_before_max_ms = INT64_MAX,
                                 .timestamp_after_max_ms = INT64_MAX,
                                 .compression_type = -1,
                                 .cleanup_policy = 1};
    f->now = 1000;
}

FIXTURE_UNUSED static void fixture_open(fixture *f) {
    fixture_init(f);
    fixture_open_storage(f);
    fixture_open_log(f);
}

FIXTURE_UNUSED static void remove_tree(const char *path) {
    char child[512];
    DIR *d = opendir(path);
    if (d == NULL) {
        return;
    }
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        (void)snprintf(child, sizeof child, "%.250s/%.250s", path, e->d_name);
        if (unlink(child) != 0) {
            remove_tree(child);
        }
    }
    closedir(d);
    rmdir(path);
}

FIXTURE_UNUSED static void fixture_close_storage(fixture *f, bool clean) {
    if (f->log != NULL) {
        CHECK_EQ(pst_log_close(f->log), 0);
        f->log = NULL;
    }
    CHECK_EQ(pst_storage_close(f->storage, clean), 0);
    f->storage = NULL;
}

FIXTURE_UNUSED static void fixture_end(fixture *f) {
    pst_iopool_destroy(f->pool);
    remove_tree(f->dir);
}

FIXTURE_UNUSED static void fixture_close(fixture *f, bool clean) {
    fixture_close_storage(f, clean);
    fixture_end(f);
}

FIXTURE_UNUSED static void fixture_reopen(fixture *f, bool clean) {
    fixture_close_storage(f, clean);
    fixture_open_storage(f);
    fixture_open_log(f);
}

/* kill -9: what is on the disk now is what the next start finds. */
FIXTURE_UNUSED static void copy_tree(const char *from, const char *to) {
    char a[512];
    char b[512];
    static uint8_t bytes[1 << 20];
    CHECK(mkdir(to, 0755) == 0);
    DIR *d = opendir(from);
    CHECK(d != NULL);
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        (void)snprintf(a, sizeof a, "%.250s/%.250s", from, e->d_name);
        (void)snprintf(b, sizeof b, "%.250s/%.250s", to, e->d_name);
        if (stat(a, &st) != 0) {
            continue;
        }
        if (S_ISDIR(st.st_mode)) {
            copy_tree(a, b);
            continue;
        }
        int in = open(a, O_RDONLY);
        int out = open(b, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        ssize_t n;
        while ((n = read(in, bytes, sizeof bytes)) > 0) {
            CHECK(write(out, bytes, (size_t)n) == n);
        }
        close(in);
        close(out);
    }
    closedir(d);
}

FIXTURE_UNUSED static void fixture_reopen_after_kill(fixture *f) {
    char copy[160];
    (void)snprintf(copy, sizeof copy, "%s.copy", f->dir);
    copy_tree(f->dir, copy);
    fixture_close_storage(f, false);
    remove_tree(f->dir);
    CHECK(rename(copy, f->dir) == 0);
    fixture_open_storage(f);
    fixture_open_log(f);
}

FIXTURE_UNUSED static void unlink_in_log(const fixture *f, const char *name) {
    char path[512];
    fixture_path(f, name, path);
    CHECK(unlink(path) == 0);
}

FIXTURE_UNUSED static int count_entries(const fixture *f, const char *name) {
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", f->dir, name);
    DIR *d = opendir(path);
    int n = 0;
    if (d == NULL) {
        return -1;
    }
    while (readdir(d) != NULL) {
        n++;
    }
    closedir(d);
    return n - 2;
}

/* One batch of `count` records of `value_size` bytes; record i has timestamp + i. Caller frees. */
FIXTURE_UNUSED static pst_byte_buffer make_batch(int count, size_t value_size, int64_t timestamp,
                                                 int64_t producer_id, int16_t producer_epoch,
                                                 int32_t base_sequence) {
    static uint8_t value[1 << 20];
    pst_byte_buffer out = {0};
    pst_batch_builder b;
    pst_slice v = pst_slice_of(value, value_size);
    pst_batch_builder_init(&b, &out);
    b.producer_id = producer_id;
    b.producer_epoch = producer_epoch;
    b.base_sequence = base_sequence;
    for (int i = 0; i < count; i++) {
        CHECK_EQ(pst_batch_builder_append(&b, timestamp + i, NULL, &v, NULL, 0), 0);
    }
    CHECK_EQ(pst_batch_builder_finish(&b), 0);
    return out;
}

FIXTURE_UNUSED static pst_append make_append(pst_byte_buffer *bytes) {
    pst_append a = {.data = bytes->data, .size = bytes->size};
    CHECK_EQ(pst_batch_parse(pst_slice_of(bytes->data, bytes->size), &a.view), 0);
    return a;
}

FIXTURE_UNUSED static int append_array(fixture *f, pst_append *appends, int count) {
    size_t size = 0;
    for (int i = 0; i < count; i++) {
        size += appends[i].size;
    }
    int rc;
    while ((rc = pst_log_append(f->log, appends, count, f->now)) == -PST_EAGAIN) {
        int prepared = pst_log_prepare(f->log, size, f->now);
        if (prepared < 0) {
            return prepared;
        }
    }
    if (rc == 0 && !f->keep_watermark) {
        pst_log_offsets o;
        pst_log_get_offsets(f->log, &o);
        pst_log_advance_high_watermark(f->log, o.log_end);
    }
    return rc;
}

FIXTURE_UNUSED static int append_rc(fixture *f, int count, size_t value_size, int64_t timestamp) {
    pst_byte_buffer bytes = make_batch(count, value_size, timestamp, -1, -1, -1);
    pst_append a = make_append(&bytes);
    int rc = append_array(f, &a, 1);
    pst_byte_buffer_fini(&bytes);
    return rc < 0 ? rc : a.rc;
}

FIXTURE_UNUSED static pst_append append_ok(fixture *f, int count, size_t value_size,
                                           int64_t timestamp) {
    pst_byte_buffer bytes = make_batch(count, value_size, timestamp, -1, -1, -1);
    pst_append a = make_append(&bytes);
    CHECK_EQ(append_array(f, &a, 1), 0);
    CHECK_EQ(a.rc, 0);
    pst_byte_buffer_fini(&bytes);
    a.data = NULL;
    return a;
}

FIXTURE_UNUSED static int read_slice(fixture *f, int64_t from, int64_t end, int64_t max_bytes,
                                     bool min_one, pst_log_slice *out) {
    pst_log_read_request r = {.copy_buffer = f->read_buffer,
                              .copy_capacity = sizeof f->read_buffer,
                              .fetch_offset = from,
                              .end_offset = end,
                              .max_bytes = max_bytes,
                              .min_one_batch = min_one,
                              .may_block = false};
    int rc = pst_log_read(f->log, &r, out);
    if (rc == -PST_EAGAIN) {
        r.may_block = true;
        rc = pst_log_read(f->log, &r, out);
    }
    f->read_size = rc == 0 ? out->copied : 0;
    return rc;
}

/* Reads and checks the batches; the last offset seen, -1 for none. */
FIXTURE_UNUSED static void read_range(fixture *f, int64_t from, int64_t end, int64_t max_bytes,
                                      int64_t *last_out) {
    pst_log_slice s;
    *last_out = -1;
    CHECK_EQ(read_slice(f, from, end, max_bytes, true, &s), 0);
    pst_slice left = pst_slice_of(f->read_buffer, s.copied);
    pst_batch b;
    while (left.size > 0 && pst_batch_parse(left, &b) == 0) {
        CHECK_EQ(pst_batch_check_crc(&b), 0);
        CHECK(*last_out < 0 ? b.base_offset <= from : b.base_offset == *last_out + 1);
        *last_out = pst_batch_last_offset(&b);
        left = pst_slice_of(left.data + b.size, left.size - b.size);
    }
    CHECK(*last_out < 0 || *last_out >= from);
}

FIXTURE_UNUSED static int64_t first_offset_at(fixture *f, int64_t from) {
    pst_log_slice s;
    pst_batch b;
    pst_log_offsets o;
    pst_log_get_offsets(f->log, &o);
    CHECK_EQ(read_slice(f, from, o.log_end, 1000, true, &s), 0);
    CHECK_EQ(pst_batch_header(pst_slice_of(f->read_buffer, s.copied), &b), 0);
    CHECK(pst_batch_last_offset(&b) >= from);
    return b.base_offset;
}

FIXTURE_UNUSED static void check_reads_everything(fixture *f, int64_t from, int64_t end) {
    pst_log_offsets o;
    pst_log_get_offsets(f->log, &o);
    CHECK_EQ(o.log_end, end);
    CHECK_EQ(o.log_start, from);
    while (from < end) {
        int64_t last;
        read_range(f, from, end, 3000, &last);
        CHECK(last >= from);
        from = last + 1;
    }
    CHECK_EQ(from, end);
}

#endif
