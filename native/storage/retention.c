/* storage/retention.c - which segments are old, and how they go.
 * Owner: the log's maintenance lock; runs on I/O threads or the control thread.
 * Never beyond the high watermark (KAFKA-5634); a time index alone decides nothing: before a
 * segment goes by age its batch headers have been read (reliability rule 16). Files are renamed to
 * `.deleted` first and unlinked after file.delete.delay.ms. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/storage_private.h"

typedef struct {
    int64_t log_start;
    int64_t high_watermark;
    int64_t excess; /* bytes above retention.bytes; negative: none */
    int64_t now_ms;
    bool by_size;
    bool by_time;
    int64_t retention_ms;
} policy;

/* 1 old, 0 not, negative. */
static int is_expired(pst_log *log, pst_segment *segment, const policy *p) {
    int64_t timestamp;
    int64_t offset;
    PST_TRY(pst_storage__hint_max_timestamp(log, segment, &timestamp, &offset));
    if (timestamp < 0) { /* no record has one: the age of the file counts, as far as we know it */
        return p->now_ms - segment->created_ms > p->retention_ms;
    }
    if (p->now_ms - timestamp <= p->retention_ms) {
        return 0;
    }
    PST_TRY(pst_storage__segment_max_timestamp(log, segment));
    pst_storage__lock_acquire(&log->index_lock);
    timestamp = segment->max_timestamp;
    pst_storage__lock_release(&log->index_lock);
    return timestamp >= 0 && p->now_ms - timestamp > p->retention_ms;
}

static int is_deletable(pst_log *log, pst_segment *segment, int64_t size, int64_t end, bool active,
                        policy *p) {
    if (end > p->high_watermark || (active && size == 0)) {
        return 0;
    }
    if (!active && end <= p->log_start) {
        return 1;
    }
    if (p->by_size && p->excess >= size) {
        return 1;
    }
    return p->by_time ? is_expired(log, segment, p) : 0;
}

static policy make_policy(pst_log *log, int64_t now_ms) {
    const pst_log_config *config = pst_storage__config(log);
    pst_log_offsets offsets;
    pst_log_get_offsets(log, &offsets);
    bool deletes = (config->cleanup_policy & 1) != 0;
    return (policy){
        .log_start = offsets.log_start,
        .high_watermark = offsets.high_watermark,
        .excess = pst_log_size(log) - config->retention_bytes,
        .now_ms = now_ms,
        .by_size = deletes && config->retention_bytes >= 0,
        .by_time = deletes && config->retention_ms >= 0,
        .retention_ms = config->retention_ms,
    };
}

/* How many segments from the oldest on may go; the active one counts as the last. */
static int count_deletable(pst_log *log, int64_t now_ms, uint32_t *count_out, bool *active_out) {
    pst_segment **segments;
    uint32_t count;
    policy p = make_policy(log, now_ms);
    *count_out = 0;
    *active_out = false;
    PST_TRY(pst_storage__segments_snapshot(log, &segments, &count));
    int rc = 1;
    for (uint32_t i = 0; i < count; i++) {
        pst_segment *segment = segments[i];
        bool active = i + 1 == count;
        if (rc == 1) {
            pst_storage__lock_acquire(&log->index_lock);
            int64_t size = segment->size;
            int64_t end = segment->end_offset;
            pst_storage__lock_release(&log->index_lock);
            rc = is_deletable(log, segment, size, end, active, &p);
            if (rc == 1) {
                p.excess -= size;
                *active_out = active;
                *count_out += 1;
            }
        }
        pst_storage__segment_unref(log->storage, segment);
    }
    free(segments);
    return rc < 0 ? rc : 0;
}

static int rename_file(pst_log *log, int64_t base, const char *suffix) {
    char name[PST_STORAGE__FILE_NAME_MAX];
    char from[PST_STORAGE__PATH_MAX];
    char to[PST_STORAGE__PATH_MAX + 16];
    int dirfd = log->storage->dirs[log->dir_index].fd;
    pst_storage__file_name(name, base, suffix);
    pst_storage__path(log, name, from);
    (void)snprintf(to, sizeof to, "%s.deleted", from);
    if (renameat(dirfd, from, dirfd, to) != 0) {
        return errno == ENOENT ? 0 : -PST_EIO;
    }
    pst_storage__discard(log->storage, log->dir_index, to, false,
                         pst_storage__config(log)->file_delete_delay_ms);
    return 0;
}

static int remove_files(pst_log *log, pst_segment *segment) {
    static const char *const suffixes[] = {".log", ".index", ".timeindex", ".txnindex",
                                           ".snapshot"};
    atomic_store(&segment->deleted, true);
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        if (rename_file(log, segment->base_offset, suffixes[i]) < 0) {
            return pst_storage__fail(log, "rename of an old segment", -PST_EIO);
        }
    }
    (void)pst_storage__file_drop(&log->storage->files,
                                 segment); /* ranges keep their own reference */
    pst_storage__forget_window(log->storage, segment->id);
    return 0;
}

/* Takes the oldest `count` rolled segments out of the log and moves the log start behind them. */
static void detach(pst_log *log, pst_segment **out, uint32_t count) {
    pst_storage__lock_acquire(&log->index_lock);
    memcpy(out, log->rolled, count * sizeof(pst_segment *));
    memmove(log->rolled, log->rolled + count, (log->rolled_count - count) * sizeof(pst_segment *));
    log->rolled_count -= count;
    int64_t first = log->rolled_count > 0 ? log->rolled[0]->base_offset : log->active->base_offset;
    if (first > atomic_load_explicit(&log->log_start, memory_order_relaxed)) {
        pst_storage__offsets_begin(log);
        atomic_store_explicit(&log->log_start, first, memory_order_release);
        pst_storage__offsets_end(log);
        if (pst_storage__epochs_truncate_start(&log->epochs, first)) {
            atomic_fetch_or_explicit(&log->flags, PST_LOG__EPOCHS_DIRTY, memory_order_relaxed);
        }
    }
    pst_storage__lock_release(&log->index_lock);
}

static int remove_oldest(pst_log *log, uint32_t count) {
    pst_segment **gone = calloc(count, sizeof(pst_segment *));
    if (gone == NULL) {
        return -PST_ENOMEM;
    }
    detach(log, gone, count);
    int rc = 0;
    for (uint32_t i = 0; i < count; i++) {
        rc = rc == 0 ? remove_files(log, gone[i]) : rc;
        pst_storage__segment_unref(log->storage, gone[i]);
    }
    free(gone);
    return rc;
}

static void expire_producers(pst_log *log, int64_t now_ms) {
    pst_storage__lock_acquire(&log->append_lock);
    if (log->producers != NULL) {
        pst_storage__producers_expire(log->storage, log->producers, now_ms);
    }
    pst_storage__lock_release(&log->append_lock);
}

static int apply(pst_log *log, int64_t now_ms) {
    PST_TRY(pst_storage__usable(log));
    expire_producers(log, now_ms);
    if (log->active == NULL) {
        return 0;
    }
    uint32_t count;
    bool with_active;
    PST_TRY(count_deletable(log, now_ms, &count, &with_active));
    if (with_active) { /* rolled, it takes no more appends; what came meanwhile counts too */
        PST_TRY(pst_storage__roll(log, now_ms));
        PST_TRY(count_deletable(log, now_ms, &count, &with_active));
    }
    count = count < log->rolled_count ? count : log->rolled_count;
    if (count == 0) {
        return 0;
    }
    PST_TRY(remove_oldest(log, count));
    PST_TRY(pst_storage__save_epochs(log, true));
    return (int)count;
}

int pst_log_apply_retention(pst_log *log, int64_t now_ms) {
    pst_storage__lock_acquire(&log->maintenance);
    int rc = apply(log, now_ms);
    pst_storage__lock_release(&log->maintenance);
    pst_storage__sweep(log->storage);
    return rc;
}
