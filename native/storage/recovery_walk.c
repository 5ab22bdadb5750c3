/* storage/recovery_walk.c - passes over segment files: validation, index rebuild, producer replay,
 * search for the next good batch after damage. Owner: the function that walks; runs at open or on
 * I/O threads. Memory is one buffer, whatever the file claims (reliability rule 16). */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "storage/storage_private.h"

enum {
    CRC_BUFFER_SIZE = 256 * 1024,
    HOP_BUFFER_SIZE = 4096,
    CONTROL_BATCH_MAX = 512,
};

static int64_t buffer_size(int64_t file_size, int64_t most) {
    return file_size < most
               ? (file_size > PST_BATCH_HEADER_SIZE ? file_size : PST_BATCH_HEADER_SIZE)
               : most;
}

/* A header that the log could have written here. */
static bool fits(const pst_storage__walk *walk, const pst_batch *batch) {
    int64_t last = pst_batch_last_offset(batch);
    return batch->base_offset >= walk->next_offset && last >= batch->base_offset &&
           last < walk->offset_max && last - walk->segment->base_offset <= INT32_MAX &&
           pst_batch_check_stored(batch) == 0;
}

static int note_epoch(pst_storage__walk *walk, const pst_batch *batch) {
    if (!walk->epochs || batch->leader_epoch <= pst_storage__epochs_latest(&walk->log->epochs)) {
        return 0;
    }
    int rc =
        pst_storage__epochs_assign(&walk->log->epochs, batch->leader_epoch, batch->base_offset);
    if (rc > 0) {
        atomic_fetch_or_explicit(&walk->log->flags, PST_LOG__EPOCHS_DIRTY, memory_order_relaxed);
    }
    return rc < 0 ? rc : 0;
}

int pst_storage__walk_segment(pst_storage__walk *walk) {
    int64_t size = walk->segment->size;
    int64_t capacity = buffer_size(size, walk->check_crc ? CRC_BUFFER_SIZE : HOP_BUFFER_SIZE);
    uint8_t *buffer = malloc((size_t)capacity);
    if (buffer == NULL) {
        return -PST_ENOMEM;
    }
    pst_storage__scan scan = {
        .fd = walk->fd,
        .may_block = true,
        .size = size,
        .buffer = buffer,
        .capacity = (size_t)capacity,
    };
    int64_t interval = pst_storage__config(walk->log)->index_interval_bytes;
    int rc = 0;
    for (;;) {
        pst_batch batch;
        rc = pst_storage__scan_header(&scan, walk->position, &batch);
        if (rc != 0) {
            break;
        }
        if (!fits(walk, &batch) ||
            (walk->check_crc && pst_storage__scan_crc(&scan, walk->position, &batch) != 0)) {
            rc = -PST_ECORRUPT;
            break;
        }
        if (walk->index) {
            pst_storage__segment_index_batch(walk->segment, &batch, walk->position, interval);
        }
        rc = note_epoch(walk, &batch);
        if (rc < 0) {
            break;
        }
        walk->saw_producer |= pst_batch_has_producer(&batch);
        walk->next_offset = pst_batch_last_offset(&batch) + 1;
        walk->position += (int64_t)batch.size;
    }
    free(buffer);
    return rc == 1 ? 0 : rc;
}

/* ---- after damage ---- */

static bool good_batch(pst_storage__walk *walk, pst_storage__scan *scan, int64_t position,
                       pst_batch *batch_out) {
    return pst_storage__scan_header(scan, position, batch_out) == 0 && fits(walk, batch_out) &&
           pst_storage__scan_crc(scan, position, batch_out) == 0;
}

int pst_storage__resync(pst_storage__walk *walk, int64_t *position_out, int64_t *offset_out) {
    int64_t size = walk->segment->size;
    int64_t capacity = buffer_size(size, CRC_BUFFER_SIZE);
    uint8_t *window = malloc((size_t)capacity);
    uint8_t *buffer = malloc((size_t)capacity);
    int rc = window == NULL || buffer == NULL ? -PST_ENOMEM : 1;
    pst_storage__scan scan = {.fd = walk->fd,
                              .may_block = true,
                              .size = size,
                              .buffer = buffer,
                              .capacity = (size_t)capacity};
    int64_t at = walk->position + 1;
    while (rc == 1 && size - at >= PST_BATCH_HEADER_SIZE) {
        int64_t n = pst_storage__read_now(walk->fd, window, (size_t)capacity, at, true);
        if (n < 0) {
            rc = (int)n;
            break;
        }
        if (n < PST_BATCH_HEADER_SIZE) {
            break;
        }
        int64_t looks = n - PST_BATCH_HEADER_SIZE + 1;
        for (int64_t i = 0; i < looks && rc == 1; i++) {
            pst_batch batch;
            if (window[i + PST_BATCH_MAGIC_OFFSET] == 2 &&
                good_batch(walk, &scan, at + i, &batch)) {
                *position_out = at + i;
                *offset_out = batch.base_offset;
                rc = 0;
            }
        }
        at += looks;
    }
    free(window);
    free(buffer);
    return rc;
}

/* ---- indexes of rolled segments ---- */

int pst_storage__rebuild_index(pst_log *log, pst_segment *segment, pst_storage__index *index_out) {
    pst_file *file;
    int dirfd;
    memset(index_out, 0, sizeof *index_out);
    PST_TRY(pst_storage__segment_file(log, segment, true, &file));
    pst_segment copy = {.base_offset = segment->base_offset,
                        .size = segment->size,
                        .first_timestamp = -1,
                        .max_timestamp = -1};
    pst_storage__walk walk = {.log = log,
                              .segment = &copy,
                              .fd = file->fd,
                              .index = true,
                              .offset_max = INT64_MAX,
                              .next_offset = segment->base_offset};
    int rc = pst_storage__walk_segment(&walk);
    (void)pst_file_unref(file);
    if (rc == -PST_ECORRUPT) {
        rc = 0; /* what lies before the damage can be found; readers meet the rest themselves */
    }
    if (rc == 0) {
        rc = pst_storage__open_dir(log, &dirfd);
    }
    if (rc == 0) {
        (void)pst_storage__index_save(dirfd, &copy,
                                      false); /* a hint: failing to keep it is harmless */
        close(dirfd);
        *index_out = copy.index;
        return 0;
    }
    pst_storage__index_fini(&copy.index);
    return rc;
}

/* ---- producers ---- */

/* The value of a control record, for the coordinator epoch in it. */
static bool control_value(int fd, int64_t position, const pst_batch *header, uint8_t *bytes,
                          pst_slice *value_out) {
    pst_batch batch;
    pst_record_iter iter;
    pst_record record;
    if (header->size > CONTROL_BATCH_MAX ||
        pst_storage__read_full(fd, bytes, header->size, position) < 0 ||
        pst_batch_parse(pst_slice_of(bytes, header->size), &batch) < 0) {
        return false;
    }
    pst_record_iter_init(&iter, pst_batch_records(&batch), batch.record_count);
    if (pst_record_iter_next(&iter, &record) != 1) {
        return false;
    }
    *value_out = record.value;
    return true;
}

static int replay_batch(pst_log *log, int fd, int64_t position, const pst_batch *batch) {
    uint8_t bytes[CONTROL_BATCH_MAX];
    pst_slice value;
    if (log->producers == NULL) {
        PST_TRY(pst_storage__producers_create(&log->producers));
    }
    pst_storage__producer *p =
        pst_storage__producer_get(log->storage, log->producers, batch->producer_id);
    if (p == NULL) {
        return -PST_ENOMEM;
    }
    bool control = pst_batch_is_control(batch) && control_value(fd, position, batch, bytes, &value);
    pst_storage__producer_update(log->producers, p, batch, control ? &value : NULL);
    return 0;
}

static int replay_segment(pst_log *log, int fd, const pst_segment *segment, int64_t from_offset) {
    uint8_t buffer[HOP_BUFFER_SIZE];
    pst_storage__scan scan = {.fd = fd,
                              .may_block = true,
                              .size = segment->size,
                              .buffer = buffer,
                              .capacity = sizeof buffer};
    int64_t position = 0;
    for (;;) {
        for (uint32_t i = 0; i < log->damage_count; i++) {
            if (log->damage[i].segment_base == segment->base_offset &&
                log->damage[i].position == position) {
                position = log->damage[i].end;
            }
        }
        pst_batch batch;
        int rc = pst_storage__scan_header(&scan, position, &batch);
        if (rc != 0) {
            return rc == 1 || rc == -PST_ECORRUPT ? 0 : rc;
        }
        if (pst_batch_has_producer(&batch) && pst_batch_last_offset(&batch) >= from_offset) {
            PST_TRY(replay_batch(log, fd, position, &batch));
        }
        position += (int64_t)batch.size;
    }
}

static int replay_file(pst_log *log, int dirfd, const pst_segment *segment, int64_t from_offset) {
    char name[PST_STORAGE__FILE_NAME_MAX];
    pst_storage__file_name(name, segment->base_offset, ".log");
    int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -PST_EIO;
    }
    int rc = replay_segment(log, fd, segment, from_offset);
    close(fd);
    return rc;
}

int pst_storage__replay_producers(pst_log *log, int dirfd, int64_t from_offset) {
    for (uint32_t i = 0; i < log->rolled_count; i++) {
        if (log->rolled[i]->end_offset > from_offset) {
            PST_TRY(replay_file(log, dirfd, log->rolled[i], from_offset));
        }
    }
    if (log->active == NULL || log->active->end_offset <= from_offset) {
        return 0;
    }
    return replay_file(log, dirfd, log->active, from_offset);
}
