/* storage/log_append.c - the append: check, number, write once, publish.
 * Owner: the log's append lock, taken once per array of batches. Runs on reactors: nothing here
 * opens a new file, flushes, allocates disk space or decompresses; what needs that is answered with
 * -PST_EAGAIN.
 *
 * Order, per array:
 *   1. room: no active segment, or a roll is due -> -PST_EAGAIN and nothing was done;
 *   2. each batch: size, timestamps, producer; accepted ones get their offsets and are patched in
 * place;
 *   3. one pwritev; a failure takes back all of 2 (log.h (3), (5));
 *   4. producers, index, epoch, tail, and last the offsets: log.h (1). */
#include <stdlib.h>
#include <unistd.h>

#include "base/hash.h"
#include "storage/storage_private.h"

enum {
    IOV_COUNT = 128,
    ALLOCATE_FROM = 1024 * 1024,
    ALLOCATE_STEP_MAX = 64 * 1024 * 1024,
};

/* What one array adds up to. Owner: the append under way. */
typedef struct {
    pst_append *appends;
    int count;
    int accepted;
    size_t size; /* bytes of the accepted ones */
    int64_t first_offset;
    int64_t next_offset;
    int64_t now_ms;
} array;

/* ---- 1. room ---- */

static int64_t roll_jitter(const pst_log *log, const pst_log_config *config) {
    if (config->segment_jitter_ms <= 0) {
        return 0;
    }
    uint64_t h = pst_hash_u64((uint64_t)log->active->base_offset, (uint64_t)log->partition);
    return (int64_t)((h >> 1) % (uint64_t)config->segment_jitter_ms);
}

/* Kafka's LogSegment.shouldRoll. */
static bool should_roll(const pst_log *log, const pst_log_config *config, int64_t size,
                        int64_t offsets, int64_t max_timestamp, int64_t now_ms) {
    const pst_segment *active = log->active;
    if ((pst_storage__flags(log) & PST_LOG__FORCE_ROLL) != 0) {
        return true;
    }
    int64_t relative =
        atomic_load_explicit(&log->log_end, memory_order_relaxed) - active->base_offset;
    if (active->size == 0) {
        return relative > 0 && relative > INT32_MAX - offsets;
    }
    int64_t waited = active->first_timestamp >= 0 && max_timestamp >= 0
                         ? max_timestamp - active->first_timestamp
                         : now_ms - active->created_ms;
    int64_t index_max = config->segment_index_bytes;
    return active->size > config->segment_bytes - size || active->size > INT32_MAX - size ||
           waited > config->segment_ms - roll_jitter(log, config) ||
           (int64_t)active->index.count >= index_max / 8 ||
           (int64_t)active->index.time_count >= index_max / 12 - 1 ||
           relative > INT32_MAX - offsets;
}

static int check_room(pst_log *log, const array *work) {
    const pst_log_config *config = pst_storage__config(log);
    if (log->active == NULL || (pst_storage__flags(log) & PST_LOG__ROLLING) != 0) {
        return -PST_EAGAIN;
    }
    int64_t size = 0;
    int64_t offsets = 0;
    int64_t max_timestamp = -1;
    for (int i = 0; i < work->count; i++) {
        const pst_batch *view = &work->appends[i].view;
        size += (int64_t)work->appends[i].size;
        offsets += (int64_t)view->last_offset_delta + 1;
        int64_t timestamp = config->timestamp_type == 1 ? work->now_ms : view->max_timestamp;
        max_timestamp = timestamp > max_timestamp ? timestamp : max_timestamp;
    }
    if (should_roll(log, config, size, offsets, max_timestamp, work->now_ms)) {
        atomic_fetch_or_explicit(&log->flags, PST_LOG__FORCE_ROLL, memory_order_relaxed);
        return -PST_EAGAIN;
    }
    return 0;
}

/* ---- 2. one batch ---- */

static bool out_of_range(int64_t timestamp, const pst_log_config *config, int64_t now_ms) {
    if (timestamp < 0) {
        return false; /* none */
    }
    return (timestamp > now_ms && timestamp - now_ms > config->timestamp_after_max_ms) ||
           (timestamp < now_ms && now_ms - timestamp > config->timestamp_before_max_ms);
}

/* Header fields for compressed batches; each record where that costs no decompression (DESIGN law
 * 7). */
static int check_timestamps(const pst_append *a, const pst_log_config *config, int64_t now_ms) {
    const pst_batch *view = &a->view;
    if (config->timestamp_type == 1 || a->from_control_plane) {
        return 0;
    }
    if (out_of_range(view->max_timestamp, config, now_ms) ||
        out_of_range(view->base_timestamp, config, now_ms)) {
        return -PST_ETIMESTAMP;
    }
    if (pst_batch_codec(view) != 0 || view->record_count <= 1 ||
        config->timestamp_before_max_ms == INT64_MAX) {
        return 0;
    }
    pst_record_scan scan;
    pst_batch own = *view;
    own.data = a->data;
    PST_TRY(pst_batch_scan(&own, pst_batch_records(&own), &scan));
    return out_of_range(scan.min_timestamp, config, now_ms) ||
                   out_of_range(scan.max_timestamp, config, now_ms)
               ? -PST_ETIMESTAMP
               : 0;
}

static int check_batch(const pst_append *a, const pst_log_config *config, int64_t now_ms) {
    if ((config->max_message_bytes >= 0 && (int64_t)a->size > config->max_message_bytes) ||
        (int64_t)a->size > config->segment_bytes) {
        return -PST_ETOOLARGE;
    }
    if (!a->from_control_plane && pst_batch_is_control(&a->view)) {
        return -PST_ERECORD;
    }
    return check_timestamps(a, config, now_ms);
}

static int check_producer(pst_log *log, array *work, int i, pst_storage__producer **producer_out) {
    pst_append *a = &work->appends[i];
    *producer_out = NULL;
    if (!pst_batch_has_producer(&a->view)) {
        return 0;
    }
    if (log->producers == NULL) {
        PST_TRY(pst_storage__producers_create(&log->producers));
    }
    pst_storage__producer *producer =
        pst_storage__producer_get(log->storage, log->producers, a->view.producer_id);
    if (producer == NULL) {
        return -PST_ENOMEM;
    }
    int rc = pst_storage__producer_check(producer, work->appends, i);
    if (rc == 0) {
        *producer_out = producer;
    }
    return rc;
}

static void stamp(pst_append *a, const pst_log_config *config, int64_t now_ms) {
    if (config->timestamp_type == 1) {
        pst_batch_patch_log_append_time(a->data, a->size, now_ms);
        a->view.max_timestamp = now_ms;
        a->view.attributes = (int16_t)(a->view.attributes | PST_BATCH_LOG_APPEND_TIME);
        a->log_append_time_ms = now_ms;
    }
}

static void accept(pst_log *log, array *work, int i) {
    pst_append *a = &work->appends[i];
    pst_storage__producer *producer = NULL;
    const pst_log_config *config = pst_storage__config(log);
    a->base_offset = -1;
    a->log_append_time_ms = -1;
    a->rc = check_batch(a, config, work->now_ms);
    if (a->rc == 0) {
        a->rc = check_producer(log, work, i, &producer);
    }
    if (a->rc < 0) {
        return;
    }
    a->base_offset = work->next_offset;
    a->view.base_offset = work->next_offset;
    a->view.leader_epoch = log->leader_epoch;
    pst_batch_patch_offset(a->data, work->next_offset, log->leader_epoch);
    stamp(a, config, work->now_ms);
    if (producer != NULL) {
        producer->pending = i;
    }
    work->next_offset += (int64_t)a->view.last_offset_delta + 1;
    work->size += a->size;
    work->accepted++;
}

/* ---- 3. the write ---- */

static int write_all(const array *work, int fd, int64_t position) {
    struct iovec iov[IOV_COUNT];
    int used = 0;
    int64_t at = position;
    for (int i = 0; i < work->count; i++) {
        if (work->appends[i].rc < 0) {
            continue;
        }
        iov[used++] = (struct iovec){work->appends[i].data, work->appends[i].size};
        if (used == IOV_COUNT) {
            int64_t size = 0;
            for (int k = 0; k < used; k++) {
                size += (int64_t)iov[k].iov_len;
            }
            PST_TRY(pst_storage__pwritev_full(fd, iov, used, at));
            at += size;
            used = 0;
        }
    }
    return used == 0 ? 0 : pst_storage__pwritev_full(fd, iov, used, at);
}

static void clear_pending(pst_log *log, array *work) {
    for (int i = 0; i < work->count; i++) {
        const pst_append *a = &work->appends[i];
        if (a->rc == 0 && log->producers != NULL && pst_batch_has_producer(&a->view)) {
            pst_storage__producer *p =
                pst_storage__producer_find(log->producers, a->view.producer_id);
            if (p != NULL) {
                p->pending = -1;
            }
        }
    }
}

/* Repeats of a batch of this very array fail with it. */
static void fail_all(pst_log *log, array *work, int rc) {
    clear_pending(log, work);
    for (int i = 0; i < work->count; i++) {
        pst_append *a = &work->appends[i];
        if (a->rc == 0 || (a->rc == -PST_EDUPLICATE && a->base_offset >= work->first_offset)) {
            a->rc = rc;
            a->base_offset = -1;
        }
    }
}

static int write_array(pst_log *log, array *work) {
    pst_file *file;
    pst_segment *active = log->active;
    int64_t position = active->size;
    int rc = pst_storage__segment_file(log, active, true, &file);
    if (rc < 0) {
        return rc == -PST_EMFILE || rc == -PST_ENOMEM ? rc : pst_storage__fail(log, "open", rc);
    }
    rc = write_all(work, file->fd, position);
    if (rc == -PST_ENOSPC) {
        if (ftruncate(file->fd, (off_t)position) != 0) {
            rc = pst_storage__fail(log, "cut after a full disk", -PST_EIO);
        } else {
            atomic_store_explicit(&active->allocated, position, memory_order_relaxed);
        }
    } else if (rc < 0) {
        rc = pst_storage__fail(log, "write", rc);
    }
    (void)pst_file_unref(file);
    return rc;
}

/* ---- 4. after the write ---- */

static void commit_producers(pst_log *log, const array *work) {
    for (int i = 0; i < work->count; i++) {
        const pst_append *a = &work->appends[i];
        if (a->rc < 0 || !pst_batch_has_producer(&a->view)) {
            continue;
        }
        pst_storage__producer *p = pst_storage__producer_find(log->producers, a->view.producer_id);
        PST_ASSERT(p != NULL);
        p->pending = -1;
        pst_storage__producer_update(log->producers, p, &a->view, NULL);
    }
}

static void publish(pst_log *log, const array *work) {
    pst_segment *active = log->active;
    int64_t interval = pst_storage__config(log)->index_interval_bytes;
    int64_t position = active->size;
    pst_storage__lock_acquire(&log->index_lock);
    for (int i = 0; i < work->count; i++) {
        const pst_append *a = &work->appends[i];
        if (a->rc < 0) {
            continue;
        }
        pst_storage__segment_index_batch(active, &a->view, position, interval);
        if (log->tail != NULL) {
            pst_storage__tail_append(log->tail, a->data, a->size);
        }
        position += (int64_t)a->size;
    }
    if (log->leader_epoch > pst_storage__epochs_latest(&log->epochs) &&
        pst_storage__epochs_assign(&log->epochs, log->leader_epoch, work->first_offset) > 0) {
        atomic_fetch_or_explicit(&log->flags, PST_LOG__EPOCHS_DIRTY, memory_order_relaxed);
    }
    active->size = position;
    active->end_offset = work->next_offset;
    pst_storage__hint_append(log, work->next_offset, position);
    pst_storage__offsets_begin(log);
    atomic_store_explicit(&log->log_end, work->next_offset, memory_order_release);
    pst_storage__offsets_end(log);
    bool is_short = pst_storage__index_is_short(&active->index);
    pst_storage__lock_release(&log->index_lock);
    if (is_short) {
        pst_storage__grow_index_later(log, active);
    }
}

static void reserve_ahead(pst_log *log) {
    pst_segment *active = log->active;
    int64_t limit = pst_storage__config(log)->segment_bytes;
    int64_t allocated = atomic_load_explicit(&active->allocated, memory_order_relaxed);
    if (active->size < ALLOCATE_FROM || allocated >= limit) {
        return;
    }
    int64_t step = active->size < ALLOCATE_STEP_MAX ? active->size : ALLOCATE_STEP_MAX;
    if (active->size < allocated - step / 2) {
        return;
    }
    int64_t upto = active->size > limit - step ? limit : active->size + step;
    atomic_store_explicit(&active->allocated, upto, memory_order_relaxed);
    pst_storage__allocate_later(log, active);
}

static int append_locked(pst_log *log, array *work) {
    PST_TRY(pst_storage__usable(log));
    PST_TRY(check_room(log, work));
    work->first_offset = atomic_load_explicit(&log->log_end, memory_order_relaxed);
    work->next_offset = work->first_offset;
    for (int i = 0; i < work->count; i++) {
        accept(log, work, i);
    }
    if (work->accepted == 0) {
        return 0;
    }
    int rc = write_array(log, work);
    if (rc < 0) {
        fail_all(log, work, rc);
        return 0;
    }
    commit_producers(log, work);
    publish(log, work);
    reserve_ahead(log);
    return 0;
}

int pst_log_append(pst_log *log, pst_append *appends, int count, int64_t now_ms) {
    array work = {.appends = appends, .count = count, .now_ms = now_ms};
    if (count <= 0) {
        return 0;
    }
    pst_storage__lock_acquire(&log->append_lock);
    int rc = append_locked(log, &work);
    pst_storage__lock_release(&log->append_lock);
    return rc;
}
