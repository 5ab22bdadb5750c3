/* storage/log_prepare.c - what an append must not wait for: first files, roll, space ahead, flush.
 * Owner: the log's maintenance lock; runs on I/O threads. While a roll is under way appends are
 * refused with -PST_EAGAIN instead of waiting (log.h: the append lock is never held across it). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/storage_private.h"

static const char epochs_name[] = "leader-epoch-checkpoint";
static const char metadata_name[] = "partition.metadata";

/* ---- files that accompany the segments ---- */

static int write_epochs(pst_log *log, int dirfd, bool fresh, bool sync) {
    pst_byte_buffer text = {0};
    pst_storage__lock_acquire(&log->index_lock);
    int rc = pst_storage__epochs_encode(&log->epochs, &text);
    atomic_fetch_and_explicit(&log->flags, ~(unsigned)PST_LOG__EPOCHS_DIRTY, memory_order_acq_rel);
    pst_storage__lock_release(&log->index_lock);
    if (rc == 0) {
        rc = fresh ? pst_storage__write_file(dirfd, epochs_name, pst_byte_buffer_slice(&text), sync)
                   : pst_storage__replace_file(dirfd, epochs_name, pst_byte_buffer_slice(&text),
                                               sync);
    }
    if (rc < 0) {
        atomic_fetch_or_explicit(&log->flags, PST_LOG__EPOCHS_DIRTY, memory_order_relaxed);
    }
    pst_byte_buffer_fini(&text);
    return rc;
}

int pst_storage__save_epochs(pst_log *log, bool sync) {
    if ((pst_storage__flags(log) & PST_LOG__EPOCHS_DIRTY) == 0) {
        return 0;
    }
    int dirfd;
    PST_TRY(pst_storage__open_dir(log, &dirfd));
    int rc = write_epochs(log, dirfd, false, sync);
    close(dirfd);
    return rc;
}

int pst_storage__save_snapshot(pst_log *log, int dirfd, int64_t offset, bool sync) {
    pst_byte_buffer bytes = {0};
    char name[PST_STORAGE__FILE_NAME_MAX];
    pst_storage__file_name(name, offset, ".snapshot");
    int rc = pst_storage__snapshot_encode(log->producers, &bytes);
    if (rc == 0) {
        rc = pst_storage__replace_file(dirfd, name, pst_byte_buffer_slice(&bytes), sync);
    }
    pst_byte_buffer_fini(&bytes);
    return rc;
}

/* ---- a new segment file ---- */

static int open_new(pst_log *log, int dirfd, int64_t base, int64_t now_ms,
                    pst_segment **segment_out) {
    char name[PST_STORAGE__FILE_NAME_MAX];
    struct stat st;
    *segment_out = NULL;
    pst_storage__file_name(name, base, ".log");
    int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 && errno == EEXIST) { /* left by an attempt that failed later; it must be empty */
        fd = openat(dirfd, name, O_RDWR | O_CLOEXEC);
        if (fd >= 0 && (fstat(fd, &st) != 0 || st.st_size != 0)) {
            close(fd);
            return -PST_ECORRUPT;
        }
    }
    if (fd < 0) {
        return pst_err_from_errno(errno);
    }
    pst_segment *segment = pst_storage__segment_create(log->storage, base);
    if (segment == NULL) {
        close(fd);
        return -PST_ENOMEM;
    }
    segment->created_ms = now_ms;
    (void)pst_storage__index_larger(0, 0, &segment->index);
    const pst_log_config *config = pst_storage__config(log);
    if (config->preallocate != 0 && config->segment_bytes > 0 &&
        fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)config->segment_bytes) == 0) {
        atomic_store(&segment->allocated, config->segment_bytes);
    }
    pst_file *file;
    int rc = pst_file_create(fd, &file);
    if (rc < 0) {
        pst_storage__segment_unref(log->storage, segment);
        return rc;
    }
    pst_storage__file_put(&log->storage->files, segment, file);
    *segment_out = segment;
    return 0;
}

/* Index lock held. */
static void install(pst_log *log, pst_segment *segment) {
    log->active = segment;
    for (int i = 0; i < PST_STORAGE__HINTS; i++) {
        log->hints[i] = (pst_storage__hint){-1, 0};
    }
    pst_storage__hint_append(log, segment->base_offset, 0);
    if (log->tail != NULL) {
        pst_storage__tail_reset(log->tail, 0);
    }
}

static int create_files(pst_log *log, int64_t now_ms) {
    int dirfd;
    bool fresh = (pst_storage__flags(log) & PST_LOG__CREATED) == 0;
    if (fresh && mkdirat(log->storage->dirs[log->dir_index].fd, log->name, 0755) != 0 &&
        errno != EEXIST) {
        return pst_err_from_errno(errno);
    }
    PST_TRY(pst_storage__open_dir(log, &dirfd));
    int64_t base = atomic_load_explicit(&log->log_end, memory_order_relaxed);
    pst_segment *segment = NULL;
    int rc = open_new(log, dirfd, base, now_ms, &segment);
    if (rc == 0 && fresh && !pst_uuid_is_zero(&log->topic_id)) {
        pst_byte_buffer text = {0};
        rc = pst_storage__metadata_encode(&log->topic_id, &text);
        if (rc == 0) {
            rc = pst_storage__write_file(dirfd, metadata_name, pst_byte_buffer_slice(&text), false);
        }
        pst_byte_buffer_fini(&text);
    }
    if (rc == 0 && fresh) {
        rc = write_epochs(log, dirfd, true, false);
    }
    close(dirfd);
    if (rc < 0) {
        pst_storage__segment_unref(log->storage, segment);
        return rc;
    }
    pst_storage__lock_acquire(&log->append_lock);
    pst_storage__lock_acquire(&log->index_lock);
    install(log, segment);
    atomic_fetch_or_explicit(&log->flags, PST_LOG__CREATED, memory_order_release);
    atomic_fetch_and_explicit(&log->flags, ~(unsigned)PST_LOG__FORCE_ROLL, memory_order_release);
    pst_storage__lock_release(&log->index_lock);
    pst_storage__lock_release(&log->append_lock);
    return 0;
}

/* ---- roll ---- */

/* Everything of the old segment that outlives it. Appends are refused meanwhile, so nothing moves.
 */
static int settle(pst_log *log, pst_segment *old, int dirfd, int64_t base) {
    PST_TRY(pst_storage__index_save(dirfd, old, false));
    PST_TRY(pst_storage__save_snapshot(log, dirfd, base, false));
    PST_TRY(pst_storage__save_epochs(log, true));
    if (atomic_load(&old->allocated) > old->size) {
        pst_file *file;
        PST_TRY(pst_storage__segment_file(log, old, true, &file));
        int cut = ftruncate(file->fd, (off_t)old->size);
        (void)pst_file_unref(file);
        if (cut != 0) {
            return -PST_EIO;
        }
    }
    return 0;
}

static int swap(pst_log *log, pst_segment *old, pst_segment *segment) {
    pst_storage__lock_acquire(&log->append_lock);
    pst_storage__lock_acquire(&log->index_lock);
    int rc = pst_storage__add_rolled(log, old);
    if (rc == 0) {
        old->end_offset = segment->base_offset;
        pst_storage__index_fini(&old->index);
        install(log, segment);
        atomic_fetch_or_explicit(&log->flags, PST_LOG__HAS_SNAPSHOTS, memory_order_relaxed);
        atomic_fetch_and_explicit(&log->flags, ~(unsigned)PST_LOG__FORCE_ROLL,
                                  memory_order_release);
    }
    atomic_fetch_and_explicit(&log->flags, ~(unsigned)PST_LOG__ROLLING, memory_order_release);
    pst_storage__lock_release(&log->index_lock);
    pst_storage__lock_release(&log->append_lock);
    return rc;
}

int pst_storage__roll(pst_log *log, int64_t now_ms) {
    pst_storage__lock_acquire(&log->append_lock);
    pst_segment *old = log->active;
    int64_t base = atomic_load_explicit(&log->log_end, memory_order_relaxed);
    bool wanted = old != NULL && old->base_offset < base;
    unsigned clear = wanted ? 0u : (unsigned)PST_LOG__FORCE_ROLL;
    atomic_fetch_and_explicit(&log->flags, ~clear, memory_order_release);
    if (wanted) {
        atomic_fetch_or_explicit(&log->flags, PST_LOG__ROLLING, memory_order_release);
    }
    pst_storage__lock_release(&log->append_lock);
    if (!wanted) {
        return 0;
    }
    int dirfd = -1;
    pst_segment *segment = NULL;
    int rc = pst_storage__open_dir(log, &dirfd);
    if (rc == 0) {
        rc = open_new(log, dirfd, base, now_ms, &segment);
    }
    if (rc == 0) {
        rc = settle(log, old, dirfd, base);
    }
    if (rc == 0) {
        rc = swap(log, old, segment);
    }
    if (rc < 0 &&
        segment != NULL) { /* an empty file inside the old segment's offsets must not stay */
        char name[PST_STORAGE__FILE_NAME_MAX];
        pst_storage__file_name(name, base, ".log");
        (void)unlinkat(dirfd, name, 0);
    }
    if (dirfd >= 0) {
        close(dirfd);
    }
    if (rc < 0) {
        atomic_fetch_and_explicit(&log->flags, ~(unsigned)PST_LOG__ROLLING, memory_order_release);
        pst_storage__segment_unref(log->storage, segment);
        return rc;
    }
    atomic_fetch_add_explicit(&log->storage->rolls, 1, memory_order_relaxed);
    pst_storage__flush_later(log, old);
    return 0;
}

/* ---- space ahead ---- */

void pst_storage__allocate(pst_log *log, pst_segment *segment, int fd, int64_t upto) {
    pst_storage__lock_acquire(&log->index_lock);
    bool active = log->active == segment;
    int64_t size = segment->size;
    pst_storage__lock_release(&log->index_lock);
    if (!active || upto <= size ||
        fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)size, (off_t)(upto - size)) != 0) {
        return; /* then each write finds its own room */
    }
    pst_storage__lock_acquire(&log->index_lock);
    active = log->active == segment;
    size = segment->size;
    pst_storage__lock_release(&log->index_lock);
    if (!active && ftruncate(fd, (off_t)size) != 0) {
        (void)pst_storage__fail(log, "cut of a rolled segment", -PST_EIO);
    }
}

/* ---- the door ---- */

static bool too_full(pst_log *log, size_t size) {
    const pst_log_config *config = pst_storage__config(log);
    pst_storage__lock_acquire(&log->append_lock);
    const pst_segment *active = log->active;
    bool full = (pst_storage__flags(log) & PST_LOG__FORCE_ROLL) != 0 ||
                (active->size > 0 && active->size > config->segment_bytes - (int64_t)size);
    pst_storage__lock_release(&log->append_lock);
    return full;
}

/* ENOSPC and lack of memory or descriptors pass; any other failure of the disk takes it offline. */
static int judge(pst_log *log, const char *what, int rc) {
    if (rc == 0 || rc == -PST_ENOSPC || rc == -PST_ENOMEM || rc == -PST_EMFILE ||
        rc == -PST_ECORRUPT) {
        return rc;
    }
    return pst_storage__fail(log, what, rc);
}

int pst_log_prepare(pst_log *log, size_t size, int64_t now_ms) {
    pst_storage__lock_acquire(&log->maintenance);
    int rc = pst_storage__usable(log);
    if (rc == 0 && log->active == NULL) {
        rc = judge(log, "create", create_files(log, now_ms));
    } else if (rc == 0 && too_full(log, size)) {
        rc = judge(log, "roll", pst_storage__roll(log, now_ms));
    }
    if (rc == 0) { /* the descriptor may have been evicted */
        pst_file *file;
        rc = judge(log, "open", pst_storage__segment_file(log, log->active, true, &file));
        if (rc == 0) {
            (void)pst_file_unref(file);
        }
    }
    pst_storage__lock_release(&log->maintenance);
    return rc;
}

/* ---- flush ---- */

static int sync_name(int dirfd, const char *name) {
    int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? 0 : pst_err_from_errno(errno);
    }
    int rc = fsync(fd) == 0 ? 0 : -PST_EIO;
    close(fd);
    return rc;
}

static int sync_segment(pst_log *log, int dirfd, pst_segment *segment) {
    pst_file *file;
    char name[PST_STORAGE__FILE_NAME_MAX];
    int rc = pst_storage__segment_file(log, segment, true, &file);
    if (rc == -PST_ENOENT && atomic_load(&segment->deleted)) {
        return 0;
    }
    PST_TRY(rc);
    rc = fdatasync(file->fd) == 0 ? 0 : -PST_EIO;
    (void)pst_file_unref(file);
    PST_TRY(rc);
    pst_storage__file_name(name, segment->base_offset, ".index");
    PST_TRY(sync_name(dirfd, name));
    pst_storage__file_name(name, segment->base_offset, ".timeindex");
    PST_TRY(sync_name(dirfd, name));
    pst_storage__file_name(name, segment->base_offset, ".snapshot");
    return sync_name(dirfd, name);
}

static void move_recovery_point(pst_log *log, int64_t offset) {
    long long now = atomic_load(&log->recovery_point);
    while (now < offset && !atomic_compare_exchange_weak(&log->recovery_point, &now, offset)) {
    }
}

static int sync_all(pst_log *log, int dirfd, int64_t offset) {
    pst_segment **segments;
    uint32_t count;
    int64_t from = atomic_load(&log->recovery_point);
    PST_TRY(pst_storage__segments_snapshot(log, &segments, &count));
    int rc = 0;
    for (uint32_t i = 0; i < count; i++) {
        bool last = i + 1 == count;
        int64_t end = last ? INT64_MAX : segments[i + 1]->base_offset;
        if (rc == 0 && segments[i]->base_offset < offset && end > from) {
            rc = sync_segment(log, dirfd, segments[i]);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        pst_storage__segment_unref(log->storage, segments[i]);
    }
    free(segments);
    return rc;
}

int pst_storage__flush_upto(pst_log *log, int64_t offset) {
    int dirfd;
    if (atomic_load(&log->recovery_point) >= offset) {
        return 0;
    }
    int rc = pst_storage__open_dir(log, &dirfd);
    if (rc == 0) {
        rc = sync_all(log, dirfd, offset);
        if (rc == 0) {
            rc = sync_name(dirfd, epochs_name);
        }
        if (rc == 0) {
            rc = sync_name(dirfd, metadata_name);
        }
        if (rc == 0 && (fsync(dirfd) != 0 || fsync(log->storage->dirs[log->dir_index].fd) != 0)) {
            rc = -PST_EIO;
        }
        close(dirfd);
    }
    if (rc == 0) {
        move_recovery_point(log, offset);
    } else if ((pst_storage__flags(log) & PST_LOG__CLOSED) == 0) {
        rc = judge(log, "flush", rc);
    }
    return rc;
}

int pst_log_flush(pst_log *log) {
    PST_TRY(pst_storage__usable(log));
    if ((pst_storage__flags(log) & PST_LOG__CREATED) == 0) {
        return 0;
    }
    int64_t end = atomic_load_explicit(&log->log_end, memory_order_acquire);
    pst_storage__lock_acquire(&log->maintenance);
    int rc = pst_storage__usable(log);
    if (rc == 0) {
        rc = judge(log, "flush", pst_storage__save_epochs(log, true));
    }
    pst_storage__lock_release(&log->maintenance);
    return rc == 0 ? pst_storage__flush_upto(log, end) : rc;
}
