/* fuzz_storage_recovery - opens a directory whose segment, index, epoch and snapshot files are the
 * input, reads what it serves, appends, and opens it again: never a crash, an endless loop or a
 * batch with a bad CRC after an unclean start. Byte 0: bit 0 clean marker, bits 1-2 which batches
 * get a right CRC. */
#include <dirent.h>
#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "storage/storage_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { READ_SIZE = 64 * 1024, READS_MAX = 200 };

static char dir[128];

static void put(const char *name, const uint8_t *bytes, size_t size) {
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size) {
        abort();
    }
    close(fd);
}

/* A fuzzer cannot guess a CRC: batches whose lengths hang together get theirs. */
static void repair(uint8_t *bytes, size_t size) {
    size_t at = 0;
    pst_batch batch;
    while (pst_batch_parse(pst_slice_of(bytes + at, size - at), &batch) == 0) {
        uint32_t crc = htobe32(
            pst_crc32c(0, bytes + at + PST_BATCH_CRC_START, batch.size - PST_BATCH_CRC_START));
        memcpy(bytes + at + PST_BATCH_CRC_OFFSET, &crc, 4);
        at += batch.size;
    }
}

static void check_batches(pst_slice left, bool crc) {
    pst_batch batch;
    while (pst_batch_parse(left, &batch) == 0) {
        if (crc && pst_batch_check_crc(&batch) != 0) {
            abort();
        }
        left = pst_slice_of(left.data + batch.size, left.size - batch.size);
    }
}

static void use(pst_log *log, bool unclean) {
    static uint8_t buffer[READ_SIZE];
    pst_log_offsets o;
    pst_log_get_offsets(log, &o);
    if (o.log_start > o.log_end) {
        abort();
    }
    int64_t at = o.log_start;
    for (int i = 0; i < READS_MAX && at < o.log_end; i++) {
        pst_log_read_request r = {.copy_buffer = buffer,
                                  .copy_capacity = sizeof buffer,
                                  .fetch_offset = at,
                                  .end_offset = o.log_end,
                                  .max_bytes = 4096,
                                  .min_one_batch = true,
                                  .may_block = true};
        pst_log_slice slice;
        pst_batch batch;
        int rc = pst_log_read(log, &r, &slice);
        if (rc == 0 && slice.copied > 0) {
            check_batches(pst_slice_of(buffer, slice.copied), unclean);
        }
        int64_t next = at + 1;
        if (rc == 0 && pst_batch_header(pst_slice_of(buffer, slice.copied), &batch) == 0 &&
            pst_batch_last_offset(&batch) >= at) {
            next = pst_batch_last_offset(&batch) + 1;
        }
        (void)pst_file_unref(slice.range.file);
        at = next;
    }
    int64_t offset;
    int64_t timestamp;
    (void)pst_log_offset_for_timestamp(log, 1, &offset, &timestamp);
    (void)pst_log_max_timestamp(log, &offset, &timestamp);
}

static void append(pst_log *log) {
    pst_byte_buffer bytes = {0};
    pst_batch_builder builder;
    pst_batch_builder_init(&builder, &bytes);
    (void)pst_batch_builder_append(&builder, 5, NULL, NULL, NULL, 0);
    (void)pst_batch_builder_finish(&builder);
    pst_append a = {.data = bytes.data, .size = bytes.size};
    (void)pst_batch_parse(pst_byte_buffer_slice(&bytes), &a.view);
    int rc;
    while ((rc = pst_log_append(log, &a, 1, 5)) == -PST_EAGAIN &&
           pst_log_prepare(log, a.size, 5) == 0) {
    }
    pst_byte_buffer_fini(&bytes);
}

static void open_and_use(bool unclean) {
    static const pst_log_config config = {.segment_bytes = 1 << 20,
                                          .segment_ms = INT64_MAX,
                                          .segment_index_bytes = 1 << 20,
                                          .index_interval_bytes = 100,
                                          .retention_ms = -1,
                                          .retention_bytes = -1,
                                          .max_message_bytes = -1,
                                          .timestamp_before_max_ms = INT64_MAX,
                                          .timestamp_after_max_ms = INT64_MAX,
                                          .cleanup_policy = 1};
    const char *dirs[] = {dir};
    char error[256];
    pst_storage_settings settings = {.dirs = dirs,
                                     .dir_count = 1,
                                     .file_cache_count = 8,
                                     .tail_pool_size = 65536,
                                     .producer_id_expiration_ms = 1000,
                                     .producer_ids_max = 100};
    pst_storage *storage;
    pst_log *log;
    if (pst_storage_open(&settings, error, sizeof error, &storage) != 0) {
        abort();
    }
    pst_log_spec spec = {.storage = storage, .topic = pst_slice_str("t"), .config = &config};
    if (pst_log_open(&spec, &log) == 0) {
        use(log, unclean);
        append(log);
        (void)pst_log_close(log);
    }
    (void)pst_storage_close(storage, false);
}

static void empty_dir(const char *path) {
    char child[512];
    DIR *stream = opendir(path);
    struct dirent *entry;
    while (stream != NULL && (entry = readdir(stream)) != NULL) {
        (void)snprintf(child, sizeof child, "%s/%.200s", path, entry->d_name);
        (void)unlink(child);
    }
    if (stream != NULL) {
        closedir(stream);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char partition[160];
    if (size < 8) {
        return 0;
    }
    if (dir[0] == '\0') {
        (void)snprintf(dir, sizeof dir, "/dev/shm/pst-fuzz-%d", (int)getpid());
        (void)mkdir(dir, 0755);
    }
    (void)snprintf(partition, sizeof partition, "%s/t-0", dir);
    (void)mkdir(partition, 0755);
    empty_dir(partition);
    empty_dir(dir);
    bool clean = (data[0] & 1) != 0;
    size_t index_size = data[1];
    size_t epochs_size = data[2];
    size_t rest = size - 3;
    index_size = index_size < rest / 4 ? index_size : rest / 4;
    epochs_size = epochs_size < rest / 4 ? epochs_size : rest / 4;
    size_t log_size = rest - index_size - epochs_size;
    uint8_t *log = malloc(log_size);
    if (log == NULL) {
        return 0;
    }
    memcpy(log, data + 3, log_size);
    if ((data[0] & 2) != 0) {
        repair(log, log_size);
    }
    size_t first = (data[0] & 4) != 0 ? log_size / 2 : log_size;
    put("t-0/00000000000000000000.log", log, first);
    if (first < log_size) {
        put("t-0/00000000000000000009.log", log + first, log_size - first);
    }
    if (index_size > 0) {
        put("t-0/00000000000000000000.index", data + 3 + log_size, index_size);
        put("t-0/00000000000000000000.timeindex", data + 3 + log_size, index_size / 12 * 12);
    }
    if (epochs_size > 0) {
        put("t-0/leader-epoch-checkpoint", data + size - epochs_size, epochs_size);
    }
    if ((data[0] & 8) != 0) {
        static const char checkpoint[] = "0\n1\nt 0 3\n";
        put("recovery-point-offset-checkpoint", (const uint8_t *)checkpoint, sizeof checkpoint - 1);
    }
    if (clean) {
        put(".kafka_cleanshutdown", data, 1);
    }
    open_and_use(!clean && (data[0] & 8) == 0);
    open_and_use(false);
    free(log);
    return 0;
}
