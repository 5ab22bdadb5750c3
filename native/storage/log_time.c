/* storage/log_time.c - ListOffsets: from timestamps to records.
 * Owner: any I/O thread. May scan and decompress; memory is bounded by one batch and the codec's
 * cap. Time indexes say where to begin; the answer always comes from a batch that was read. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/codec.h"
#include "storage/storage_private.h"

enum { SCAN_BUFFER_SIZE = 4096 };

typedef struct {
    int64_t timestamp;
    int64_t offset;
} time_offset;

/* What to look for in the records of one batch. Owner: the search under way. */
typedef struct {
    int64_t timestamp;  /* first record at or above ... */
    int64_t offset_min; /* ... with an offset at or above */
    bool exact;         /* or the first one with exactly this timestamp */
    time_offset found;  /* offset -1: none */
} query;

/* ---- records ---- */

static int search_records(const pst_batch *batch, pst_slice records, query *q) {
    pst_record_iter iter;
    pst_record record;
    int rc;
    pst_record_iter_init(&iter, records, batch->record_count);
    while ((rc = pst_record_iter_next(&iter, &record)) == 1) {
        int64_t offset = batch->base_offset + record.offset_delta;
        int64_t timestamp =
            pst_batch_is_log_append_time(batch)
                ? batch->max_timestamp
                : (int64_t)((uint64_t)batch->base_timestamp + (uint64_t)record.timestamp_delta);
        bool hit = q->exact ? timestamp == q->timestamp : timestamp >= q->timestamp;
        if (hit && offset >= q->offset_min) {
            q->found = (time_offset){timestamp, offset};
            return 0;
        }
    }
    return rc;
}

static int search_batch(int fd, int64_t position, const pst_batch *header, query *q) {
    pst_byte_buffer plain = {0};
    uint8_t *bytes = malloc(header->size);
    if (bytes == NULL) {
        return -PST_ENOMEM;
    }
    pst_batch batch;
    int rc = pst_storage__read_full(fd, bytes, header->size, position);
    if (rc == 0) {
        rc = pst_batch_parse(pst_slice_of(bytes, header->size), &batch);
    }
    if (rc == 0) {
        pst_slice records = pst_batch_records(&batch);
        if (pst_batch_codec(&batch) != PST_CODEC_NONE) {
            rc = pst_codec_decompress(pst_batch_codec(&batch), records, 0, &plain);
            records = pst_byte_buffer_slice(&plain);
        }
        rc = rc == 0 ? search_records(&batch, records, q) : rc;
    }
    pst_byte_buffer_fini(&plain);
    free(bytes);
    return rc == 0 || rc == -PST_ENOMEM || rc == -PST_EIO ? rc : -PST_ECORRUPT;
}

/* Walks batches from `from` until the query is answered. 0 found or not; see q->found. */
static int search_segment(pst_log *log, pst_segment *segment, int64_t size, int64_t from,
                          query *q) {
    uint8_t buffer[SCAN_BUFFER_SIZE];
    pst_file *file;
    PST_TRY(pst_storage__segment_file(log, segment, true, &file));
    pst_storage__scan scan = {.fd = file->fd,
                              .may_block = true,
                              .size = size,
                              .buffer = buffer,
                              .capacity = sizeof buffer};
    int64_t position = from;
    int rc = 0;
    while (q->found.offset < 0) {
        pst_batch batch;
        rc = pst_storage__scan_header(&scan, position, &batch);
        if (rc != 0) {
            break;
        }
        bool may_hold =
            q->exact ? batch.max_timestamp == q->timestamp : batch.max_timestamp >= q->timestamp;
        if (may_hold && pst_batch_last_offset(&batch) >= q->offset_min &&
            !pst_batch_is_control(&batch)) {
            rc = search_batch(file->fd, position, &batch, q);
            if (rc < 0) {
                break;
            }
        }
        position += (int64_t)batch.size;
    }
    (void)pst_file_unref(file);
    return rc == 1 ? 0 : rc;
}

/* ---- segments ---- */

static void known_max(pst_log *log, const pst_segment *segment, time_offset *out,
                      int64_t *size_out) {
    pst_storage__lock_acquire(&log->index_lock);
    *out = (time_offset){segment->max_timestamp, segment->max_timestamp_offset};
    *size_out = segment->size;
    pst_storage__lock_release(&log->index_lock);
}

/* The last entry of a rolled segment's .timeindex; false when there is none to be had. */
static bool last_time_entry(pst_log *log, const pst_segment *segment, time_offset *out) {
    char name[PST_STORAGE__FILE_NAME_MAX];
    char path[PST_STORAGE__PATH_MAX];
    struct stat st;
    uint8_t raw[12];
    pst_storage__file_name(name, segment->base_offset, ".timeindex");
    pst_storage__path(log, name, path);
    int fd = openat(log->storage->dirs[log->dir_index].fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool ok = fstat(fd, &st) == 0 && st.st_size >= 12 && st.st_size % 12 == 0 &&
              pst_storage__read_full(fd, raw, sizeof raw, (int64_t)st.st_size - 12) == 0;
    close(fd);
    if (!ok) {
        return false;
    }
    uint64_t timestamp;
    uint32_t offset;
    memcpy(&timestamp, raw, 8);
    memcpy(&offset, raw + 8, 4);
    *out = (time_offset){(int64_t)be64toh(timestamp), segment->base_offset + be32toh(offset)};
    return out->timestamp >= 0 && be32toh(offset) <= INT32_MAX;
}

int pst_storage__segment_max_timestamp(pst_log *log, pst_segment *segment) {
    time_offset max;
    int64_t size;
    known_max(log, segment, &max, &size);
    if (max.timestamp >= 0 || size == 0) {
        return 0;
    }
    uint8_t buffer[SCAN_BUFFER_SIZE];
    pst_file *file;
    PST_TRY(pst_storage__segment_file(log, segment, true, &file));
    pst_storage__scan scan = {.fd = file->fd,
                              .may_block = true,
                              .size = size,
                              .buffer = buffer,
                              .capacity = sizeof buffer};
    int64_t position = 0;
    int rc;
    pst_batch batch;
    while ((rc = pst_storage__scan_header(&scan, position, &batch)) == 0) {
        if (batch.max_timestamp > max.timestamp) {
            max = (time_offset){batch.max_timestamp, pst_batch_last_offset(&batch)};
        }
        position += (int64_t)batch.size;
    }
    (void)pst_file_unref(file);
    if (rc < 0) {
        return rc;
    }
    pst_storage__lock_acquire(&log->index_lock);
    segment->max_timestamp = max.timestamp;
    segment->max_timestamp_offset = max.offset;
    pst_storage__lock_release(&log->index_lock);
    return 0;
}

int pst_storage__hint_max_timestamp(pst_log *log, pst_segment *segment, int64_t *timestamp_out,
                                    int64_t *offset_out) {
    time_offset max;
    int64_t size;
    known_max(log, segment, &max, &size);
    if (max.timestamp < 0 && size > 0 && !last_time_entry(log, segment, &max)) {
        PST_TRY(pst_storage__segment_max_timestamp(log, segment));
        known_max(log, segment, &max, &size);
    }
    *timestamp_out = max.timestamp;
    *offset_out = max.offset;
    return 0;
}

/* Where to begin to look for `timestamp`: behind the last entry below it. */
static int time_position(pst_log *log, pst_segment *segment, int64_t timestamp,
                         int64_t *position_out) {
    *position_out = 0;
    pst_storage__lock_acquire(&log->index_lock);
    bool active = log->active == segment;
    if (active) {
        uint32_t relative = pst_storage__time_floor(&segment->index, timestamp - 1);
        *position_out = pst_storage__index_floor(&segment->index, relative);
    }
    pst_storage__lock_release(&log->index_lock);
    if (active) {
        return 0;
    }
    int dirfd;
    PST_TRY(pst_storage__open_dir(log, &dirfd));
    pst_segment copy = {.base_offset = segment->base_offset, .size = segment->size};
    if (pst_storage__index_load(dirfd, &copy) == 0) {
        uint32_t relative = pst_storage__time_floor(&copy.index, timestamp - 1);
        *position_out = pst_storage__index_floor(&copy.index, relative);
    }
    close(dirfd);
    pst_storage__index_fini(&copy.index);
    return 0;
}

static int find_in(pst_log *log, pst_segment *segment, query *q) {
    time_offset max;
    int64_t size;
    int64_t from;
    PST_TRY(pst_storage__hint_max_timestamp(log, segment, &max.timestamp, &max.offset));
    if (max.timestamp < q->timestamp) {
        return 0;
    }
    PST_TRY(time_position(log, segment, q->timestamp, &from));
    known_max(log, segment, &max, &size);
    int rc = search_segment(log, segment, size, from, q);
    if (from > 0 && (rc == -PST_ECORRUPT || (rc == 0 && q->found.offset < 0))) {
        rc = search_segment(log, segment, size, 0, q); /* the index may lie */
    }
    return rc;
}

static int for_segments(pst_log *log, int (*visit)(pst_log *, pst_segment *, query *), query *q) {
    pst_segment **segments;
    uint32_t count;
    PST_TRY(pst_storage__segments_snapshot(log, &segments, &count));
    int rc = 0;
    for (uint32_t i = 0; i < count; i++) {
        bool below = i + 1 < count && segments[i + 1]->base_offset <= q->offset_min;
        if (rc == 0 && !below && (q->exact || q->found.offset < 0)) {
            rc = visit(log, segments[i], q);
            if (rc == -PST_ENOENT && atomic_load(&segments[i]->deleted)) {
                rc = 0;
            }
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        pst_storage__segment_unref(log->storage, segments[i]);
    }
    free(segments);
    return rc;
}

int pst_log_offset_for_timestamp(pst_log *log, int64_t timestamp, int64_t *offset_out,
                                 int64_t *timestamp_out) {
    *offset_out = -1;
    *timestamp_out = -1;
    PST_TRY(pst_storage__usable(log));
    query q = {
        .timestamp = timestamp, .offset_min = atomic_load(&log->log_start), .found = {-1, -1}};
    PST_TRY(for_segments(log, find_in, &q));
    if (q.found.offset >= 0) {
        *offset_out = q.found.offset;
        *timestamp_out = q.found.timestamp;
    }
    return 0;
}

/* Keeps the segment's largest timestamp when it is the largest so far. */
static int find_max(pst_log *log, pst_segment *segment, query *q) {
    time_offset max;
    PST_TRY(pst_storage__hint_max_timestamp(log, segment, &max.timestamp, &max.offset));
    if (max.timestamp > q->timestamp) {
        q->timestamp = max.timestamp;
        q->found = max;
    }
    return 0;
}

int pst_log_max_timestamp(pst_log *log, int64_t *offset_out, int64_t *timestamp_out) {
    *offset_out = -1;
    *timestamp_out = -1;
    PST_TRY(pst_storage__usable(log));
    int64_t start = atomic_load(&log->log_start);
    query best = {.timestamp = -1, .offset_min = start, .exact = true, .found = {-1, -1}};
    PST_TRY(for_segments(log, find_max, &best));
    if (best.found.offset < 0) {
        return 0;
    }
    query q = {.timestamp = best.timestamp, .offset_min = start, .found = {-1, -1}};
    PST_TRY(for_segments(log, find_in, &q));
    if (q.found.offset >= 0) {
        *offset_out = q.found.offset;
        *timestamp_out = q.found.timestamp;
    }
    return 0;
}
