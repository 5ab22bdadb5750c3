/* storage/log.c - a log's life (open, close, delete), its offsets and its epochs.
 * Owner: see pst_log. Deliberately holds no rule about appends or reads: log_append.c, log_read.c.
 */
#include "storage/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "storage/storage_private.h"

enum { TOPIC_SIZE_MAX = 249 };

/* ---- small things the other files use ---- */

pst_log *pst_storage__log_ref(pst_log *log) {
    int before = atomic_fetch_add_explicit(&log->refs, 1, memory_order_relaxed);
    PST_ASSERT(before > 0);
    return log;
}

void pst_storage__log_unref(pst_log *log) {
    int before = atomic_fetch_sub_explicit(&log->refs, 1, memory_order_acq_rel);
    PST_ASSERT(before > 0);
    if (before > 1) {
        return;
    }
    pst_storage__segment_unref(log->storage, log->active);
    for (uint32_t i = 0; i < log->rolled_count; i++) {
        pst_storage__segment_unref(log->storage, log->rolled[i]);
    }
    free(log->rolled);
    free(log->damage);
    pst_storage__epochs_fini(&log->epochs);
    pst_storage__producers_destroy(log->storage, log->producers);
    free(log->name);
    free(log);
}

void pst_storage__path(const pst_log *log, const char *file, char out[PST_STORAGE__PATH_MAX]) {
    (void)snprintf(out, PST_STORAGE__PATH_MAX, "%s/%s", log->name, file);
}

int pst_storage__open_dir(const pst_log *log, int *fd_out) {
    *fd_out = openat(log->storage->dirs[log->dir_index].fd, log->name,
                     O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *fd_out < 0 ? pst_err_from_errno(errno) : 0;
}

int pst_storage__segment_file(pst_log *log, pst_segment *segment, bool may_open,
                              pst_file **file_out) {
    *file_out = pst_storage__file_get(segment);
    if (*file_out != NULL) {
        return 0;
    }
    if (!may_open) {
        return -PST_EAGAIN;
    }
    char name[PST_STORAGE__FILE_NAME_MAX];
    char path[PST_STORAGE__PATH_MAX];
    pst_storage__file_name(name, segment->base_offset, ".log");
    pst_storage__path(log, name, path);
    int fd = openat(log->storage->dirs[log->dir_index].fd, path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return pst_err_from_errno(errno);
    }
    pst_file *file;
    PST_TRY(pst_file_create(fd, &file));
    *file_out = pst_file_ref(file);
    pst_storage__file_put(&log->storage->files, segment, file);
    return 0;
}

int pst_storage__fail(pst_log *log, const char *what, int rc) {
    char text[300];
    (void)snprintf(text, sizeof text, "%s of %s", what, log->name);
    pst_storage__set_offline(log->storage, log->dir_index, text, rc);
    return -PST_EIO;
}

int pst_storage__usable(const pst_log *log) {
    if ((pst_storage__flags(log) & PST_LOG__CLOSED) != 0) {
        return -PST_ECLOSED;
    }
    return atomic_load_explicit(&log->storage->dirs[log->dir_index].offline, memory_order_acquire)
               ? -PST_EOFFLINE
               : 0;
}

void pst_storage__hint_append(pst_log *log, int64_t offset, int64_t position) {
    log->hints[log->append_hint] = (pst_storage__hint){offset, position};
    log->append_hint = (uint8_t)((log->append_hint + 1) % PST_STORAGE__APPEND_HINTS);
}

pst_segment *pst_storage__segment_for(pst_log *log, int64_t offset) {
    if (log->active != NULL && (offset >= log->active->base_offset || log->rolled_count == 0)) {
        return log->active;
    }
    uint32_t low = 0;
    uint32_t high = log->rolled_count;
    while (low < high) { /* first with base > offset */
        uint32_t middle = low + (high - low) / 2;
        if (log->rolled[middle]->base_offset <= offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (log->rolled_count == 0) {
        return NULL;
    }
    return log->rolled[low == 0 ? 0 : low - 1];
}

int pst_storage__add_rolled(pst_log *log, pst_segment *segment) {
    if (log->rolled_count == log->rolled_capacity) {
        uint32_t wanted = log->rolled_capacity == 0 ? 4 : log->rolled_capacity * 2;
        pst_segment **bigger = realloc(log->rolled, wanted * sizeof(pst_segment *));
        if (bigger == NULL) {
            return -PST_ENOMEM;
        }
        log->rolled = bigger;
        log->rolled_capacity = wanted;
    }
    log->rolled[log->rolled_count++] = segment;
    return 0;
}

int pst_storage__segments_snapshot(pst_log *log, pst_segment ***segments_out, uint32_t *count_out) {
    *segments_out = NULL;
    *count_out = 0;
    for (;;) {
        pst_storage__lock_acquire(&log->index_lock);
        uint32_t wanted = log->rolled_count + 1;
        pst_storage__lock_release(&log->index_lock);
        pst_segment **segments = calloc(wanted, sizeof(pst_segment *));
        if (segments == NULL) {
            return -PST_ENOMEM;
        }
        pst_storage__lock_acquire(&log->index_lock);
        uint32_t count = 0;
        bool fits = log->rolled_count + 1 <= wanted;
        for (uint32_t i = 0; fits && i < log->rolled_count; i++) {
            segments[count++] = pst_storage__segment_ref(log->rolled[i]);
        }
        if (fits && log->active != NULL) {
            segments[count++] = pst_storage__segment_ref(log->active);
        }
        pst_storage__lock_release(&log->index_lock);
        if (fits) {
            *segments_out = segments;
            *count_out = count;
            return 0;
        }
        free(segments);
    }
}

/* ---- offsets: log.h (6) ----
 * A sequence counter without fences: the data are release stores after the odd value and acquire
 * loads before the second look at the counter, so a reader that saw any new value also sees the
 * counter odd or moved. */

void pst_storage__offsets_begin(pst_log *log) {
    unsigned sequence = atomic_load_explicit(&log->sequence, memory_order_relaxed);
    atomic_store_explicit(&log->sequence, sequence + 1, memory_order_relaxed);
}

void pst_storage__offsets_end(pst_log *log) {
    unsigned sequence = atomic_load_explicit(&log->sequence, memory_order_relaxed);
    atomic_store_explicit(&log->sequence, sequence + 1, memory_order_release);
}

void pst_log_get_offsets(const pst_log *log, pst_log_offsets *offsets_out) {
    for (;;) {
        unsigned before = atomic_load_explicit(&log->sequence, memory_order_acquire);
        int64_t start = atomic_load_explicit(&log->log_start, memory_order_acquire);
        int64_t watermark = atomic_load_explicit(&log->high_watermark, memory_order_acquire);
        int64_t end = atomic_load_explicit(&log->log_end, memory_order_acquire);
        unsigned after = atomic_load_explicit(&log->sequence, memory_order_relaxed);
        if (before == after && (before & 1) == 0) {
            *offsets_out = (pst_log_offsets){
                .log_start = start,
                .last_stable = watermark,
                .high_watermark = watermark,
                .log_end = end,
            };
            return;
        }
        pst_storage__relax();
    }
}

void pst_log_advance_high_watermark(pst_log *log, int64_t offset) {
    pst_storage__lock_acquire(&log->index_lock);
    int64_t end = atomic_load_explicit(&log->log_end, memory_order_relaxed);
    int64_t wanted = offset < end ? offset : end;
    if (wanted > atomic_load_explicit(&log->high_watermark, memory_order_relaxed)) {
        pst_storage__offsets_begin(log);
        atomic_store_explicit(&log->high_watermark, wanted, memory_order_release);
        pst_storage__offsets_end(log);
    }
    pst_storage__lock_release(&log->index_lock);
}

int pst_log_delete_records(pst_log *log, int64_t offset, int64_t *log_start_out) {
    *log_start_out = -1;
    PST_TRY(pst_storage__usable(log));
    pst_storage__lock_acquire(&log->index_lock);
    int64_t watermark = atomic_load_explicit(&log->high_watermark, memory_order_relaxed);
    int64_t start = atomic_load_explicit(&log->log_start, memory_order_relaxed);
    int64_t wanted = offset == -1 ? watermark : offset;
    int rc = 0;
    if (wanted < 0 || wanted > watermark) {
        rc = -PST_EOFFSET;
    } else if (wanted > start) {
        pst_storage__offsets_begin(log);
        atomic_store_explicit(&log->log_start, wanted, memory_order_release);
        pst_storage__offsets_end(log);
        start = wanted;
        if (pst_storage__epochs_truncate_start(&log->epochs, wanted)) {
            atomic_fetch_or_explicit(&log->flags, PST_LOG__EPOCHS_DIRTY, memory_order_release);
        }
    }
    pst_storage__lock_release(&log->index_lock);
    if (rc == 0) {
        *log_start_out = start;
    }
    return rc;
}

int64_t pst_log_size(pst_log *log) {
    pst_storage__lock_acquire(&log->index_lock);
    int64_t size = log->active == NULL ? 0 : log->active->size;
    for (uint32_t i = 0; i < log->rolled_count; i++) {
        size += log->rolled[i]->size;
    }
    pst_storage__lock_release(&log->index_lock);
    return size;
}

/* ---- epochs ---- */

int32_t pst_log_leader_epoch(const pst_log *log) {
    return log->leader_epoch;
}

int pst_log_end_offset_for_epoch(pst_log *log, int32_t epoch, int32_t *epoch_out,
                                 int64_t *end_offset_out) {
    pst_storage__lock_acquire(&log->index_lock);
    pst_storage__epochs_end_offset(&log->epochs, epoch,
                                   atomic_load_explicit(&log->log_end, memory_order_relaxed),
                                   epoch_out, end_offset_out);
    pst_storage__lock_release(&log->index_lock);
    return 0;
}

int32_t pst_log_epoch_at(pst_log *log, int64_t offset) {
    pst_storage__lock_acquire(&log->index_lock);
    int32_t epoch = pst_storage__epochs_for_offset(&log->epochs, offset);
    pst_storage__lock_release(&log->index_lock);
    return epoch;
}

/* ---- open ---- */

void pst_log_set_config(pst_log *log, const pst_log_config *config) {
    atomic_store_explicit(&log->config, config, memory_order_release);
}

static int create(const pst_log_spec *spec, pst_log **log_out) {
    char name[TOPIC_SIZE_MAX + 16];
    *log_out = NULL;
    if (spec->topic.size == 0 || spec->topic.size > TOPIC_SIZE_MAX || spec->partition < 0 ||
        memchr(spec->topic.data, '/', spec->topic.size) != NULL) {
        return -PST_EINVAL;
    }
    pst_log *log = calloc(1, sizeof *log);
    if (log == NULL) {
        return -PST_ENOMEM;
    }
    (void)snprintf(name, sizeof name, "%.*s-%d", (int)spec->topic.size,
                   (const char *)spec->topic.data, spec->partition);
    log->name = strdup(name);
    if (log->name == NULL) {
        free(log);
        return -PST_ENOMEM;
    }
    atomic_init(&log->refs, 1);
    atomic_init(&log->config, spec->config);
    atomic_init(&log->flags, 0);
    log->storage = spec->storage;
    log->topic_id = spec->topic_id;
    log->partition = spec->partition;
    log->leader_epoch = spec->leader_epoch;
    log->dir_index = (int16_t)spec->dir_index;
    log->topic_size = (uint16_t)spec->topic.size;
    for (int i = 0; i < PST_STORAGE__HINTS; i++) {
        log->hints[i].offset = -1;
    }
    *log_out = log;
    return 0;
}

int pst_log_open(const pst_log_spec *spec, pst_log **log_out) {
    *log_out = NULL;
    PST_ASSERT(spec->dir_index >= 0 && spec->dir_index < spec->storage->dir_count);
    if (!pst_storage_dir_online(spec->storage, spec->dir_index)) {
        return -PST_EOFFLINE;
    }
    pst_log *log;
    PST_TRY(create(spec, &log));
    pst_storage__known *known = pst_storage__take_known(spec->storage, spec->dir_index, log->name);
    if (known != NULL && known->exists) {
        int rc = pst_storage__recover(log, known->recovery_point, known->log_start, known->clean);
        if (rc < 0) {
            pst_storage__give_known(spec->storage, spec->dir_index, known);
            pst_storage__log_unref(log);
            return rc;
        }
    }
    free(known);
    int64_t end = atomic_load_explicit(&log->log_end, memory_order_relaxed);
    atomic_store_explicit(&log->high_watermark, end, memory_order_relaxed);
    /* A new leader notes where its epoch begins at once, records or not (KAFKA-7415). */
    int assigned = spec->leader_epoch > pst_storage__epochs_latest(&log->epochs)
                       ? pst_storage__epochs_assign(&log->epochs, spec->leader_epoch, end)
                       : 0;
    if (assigned < 0) {
        pst_storage__log_unref(log);
        return assigned;
    }
    if (assigned > 0 && (pst_storage__flags(log) & PST_LOG__CREATED) != 0) {
        atomic_fetch_or_explicit(&log->flags, PST_LOG__EPOCHS_DIRTY, memory_order_relaxed);
    }
    pthread_mutex_lock(&spec->storage->mutex);
    pst_list_push_back(&spec->storage->logs, &log->link);
    pthread_mutex_unlock(&spec->storage->mutex);
    atomic_fetch_add_explicit(&spec->storage->log_count, 1, memory_order_relaxed);
    *log_out = log;
    return 0;
}

/* ---- close and delete ---- */

/* From here on no append begins, and none is under way. */
static void refuse(pst_log *log) {
    pst_storage__lock_acquire(&log->append_lock);
    atomic_fetch_or_explicit(&log->flags, PST_LOG__CLOSED, memory_order_release);
    pst_storage__lock_release(&log->append_lock);
    pst_storage__tail_detach(log);
}

static bool wants_snapshot(const pst_log *log) {
    return (pst_storage__flags(log) & PST_LOG__HAS_SNAPSHOTS) != 0 ||
           (log->producers != NULL && log->producers->count > 0);
}

/* What Kafka expects of a directory after a clean stop. The storage flushes it all with one syncfs.
 */
static int save(pst_log *log, int dirfd) {
    if (log->active != NULL) {
        PST_TRY(pst_storage__index_save(dirfd, log->active, false));
        if (atomic_load(&log->active->allocated) > log->active->size) {
            pst_file *file;
            PST_TRY(pst_storage__segment_file(log, log->active, true, &file));
            int cut = ftruncate(file->fd, (off_t)log->active->size);
            (void)pst_file_unref(file);
            if (cut != 0) {
                return -PST_EIO;
            }
        }
    }
    PST_TRY(pst_storage__save_epochs(log, false));
    if (wants_snapshot(log)) {
        PST_TRY(pst_storage__save_snapshot(log, dirfd, atomic_load(&log->log_end), false));
    }
    return 0;
}

/* The descriptor that was written through: a failed close may be a failed write (KAFKA-19221). */
static int close_active(pst_log *log) {
    return log->active == NULL ? 0 : pst_storage__file_drop(&log->storage->files, log->active);
}

static int close_files(pst_log *log) {
    int dirfd;
    int rc = pst_storage__open_dir(log, &dirfd);
    if (rc == 0) {
        rc = save(log, dirfd);
        close(dirfd);
    }
    int closed = close_active(log);
    rc = rc == 0 ? closed : rc;
    return rc < 0 ? pst_storage__fail(log, "close", rc) : 0;
}

static void remember(pst_log *log, bool clean) {
    pst_storage__known *known = pst_storage__known_create(pst_slice_str(log->name));
    if (known == NULL) {
        return; /* as if the broker had been killed: the next start validates */
    }
    known->exists = true;
    known->clean = clean;
    known->recovery_point = atomic_load(&log->recovery_point);
    known->closed_end = clean ? atomic_load(&log->log_end) : -1;
    known->log_start = atomic_load(&log->log_start);
    pst_storage__give_known(log->storage, log->dir_index, known);
}

int pst_log_close(pst_log *log) {
    int rc = 0;
    pst_storage__lock_acquire(&log->maintenance);
    refuse(log);
    pthread_mutex_lock(&log->storage->mutex);
    pst_list_remove(&log->link);
    pthread_mutex_unlock(&log->storage->mutex);
    unsigned flags = pst_storage__flags(log);
    if ((flags & PST_LOG__DELETED) != 0) {
        (void)close_active(log);
    } else if ((flags & PST_LOG__CREATED) != 0) {
        bool online = pst_storage_dir_online(log->storage, log->dir_index);
        rc = online ? close_files(log) : -PST_EOFFLINE;
        remember(log, rc == 0);
    }
    pst_storage__lock_release(&log->maintenance);
    atomic_fetch_sub_explicit(&log->storage->log_count, 1, memory_order_relaxed);
    pst_storage__log_unref(log);
    return rc;
}

/* Kafka's name: "<topic>-<partition>.<32 hex digits>-delete", cut to what a file name may have. */
static void delete_name(const pst_log *log, char out[256]) {
    uint8_t raw[16];
    char hex[33];
    if (getrandom(raw, sizeof raw, 0) != (ssize_t)sizeof raw) {
        int64_t now = pst_monotonic_ns();
        memcpy(raw, &now, 8);
        memcpy(raw + 8, &log, sizeof log < 8 ? sizeof log : 8);
    }
    for (int i = 0; i < 16; i++) {
        (void)snprintf(hex + 2 * i, 3, "%02x", raw[i]);
    }
    (void)snprintf(out, 256, "%.215s.%s-delete", log->name, hex);
}

int pst_log_delete(pst_log *log) {
    pst_storage__lock_acquire(&log->maintenance);
    refuse(log);
    unsigned before = atomic_fetch_or(&log->flags, PST_LOG__DELETED);
    int rc = 0;
    if ((before & PST_LOG__DELETED) == 0 && (before & PST_LOG__CREATED) != 0) {
        char name[256];
        int dirfd = log->storage->dirs[log->dir_index].fd;
        delete_name(log, name);
        if (renameat(dirfd, log->name, dirfd, name) != 0) {
            rc = pst_storage__fail(log, "delete", pst_err_from_errno(errno));
        } else if (fsync(dirfd) != 0) {
            rc = pst_storage__fail(log, "delete", -PST_EIO);
        } else {
            pst_storage__discard(log->storage, log->dir_index, name, true,
                                 pst_storage__config(log)->file_delete_delay_ms);
        }
    }
    pst_storage__lock_release(&log->maintenance);
    return rc;
}
