/* storage/jobs.c - background work on I/O threads: delayed removal, flush after a roll, space
 * ahead. Owner: each job owns itself and holds a reference to its log; the storage counts jobs
 * under way and does not close before they have ended. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "storage/storage_private.h"

enum { PATH_DEPTH_MAX = 4 };

/* ---- counting ---- */

static void job_begin(pst_storage *storage) {
    pthread_mutex_lock(&storage->mutex);
    storage->jobs++;
    pthread_mutex_unlock(&storage->mutex);
}

static void job_end(pst_storage *storage) {
    pthread_mutex_lock(&storage->mutex);
    if (--storage->jobs == 0) {
        pthread_cond_broadcast(&storage->idle);
    }
    pthread_mutex_unlock(&storage->mutex);
}

/* ---- trash ---- */

static int remove_tree(int dirfd, const char *name, int depth) {
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (stream == NULL) {
        int rc = pst_err_from_errno(errno);
        if (fd >= 0) {
            close(fd);
        }
        return rc;
    }
    struct dirent *entry;
    while ((entry = readdir(stream)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        if (unlinkat(fd, entry->d_name, 0) != 0 && (errno == EISDIR || errno == EPERM) &&
            depth < PATH_DEPTH_MAX) {
            (void)remove_tree(fd, entry->d_name, depth + 1);
        }
    }
    closedir(stream);
    return unlinkat(dirfd, name, AT_REMOVEDIR) == 0 ? 0 : pst_err_from_errno(errno);
}

int pst_storage__remove_dir(int dirfd, const char *name) {
    return remove_tree(dirfd, name, 0);
}

void pst_storage__discard(pst_storage *storage, int dir_index, const char *path, bool is_dir,
                          int64_t delay_ms) {
    size_t size = strlen(path) + 1;
    pst_storage__trash *trash = malloc(sizeof *trash + size);
    if (trash == NULL) {
        return; /* the next start removes it: its name says what it is */
    }
    trash->deadline_ms = pst_monotonic_ms() + (delay_ms < 0 ? 0 : delay_ms);
    trash->dir_index = dir_index;
    trash->is_dir = is_dir;
    memcpy(trash->path, path, size);
    pthread_mutex_lock(&storage->mutex);
    pst_list_push_back(&storage->trash, &trash->link);
    pthread_mutex_unlock(&storage->mutex);
}

typedef struct {
    pst_job job;
    pst_storage *storage;
} sweep_job;

static pst_storage__trash *due(pst_storage *storage, int64_t now) {
    pst_storage__trash *found = NULL;
    pthread_mutex_lock(&storage->mutex);
    for (pst_list *l = storage->trash.next; l != &storage->trash && found == NULL; l = l->next) {
        pst_storage__trash *trash = PST_CONTAINER_OF(l, pst_storage__trash, link);
        if (trash->deadline_ms <= now) {
            found = trash;
        }
    }
    if (found != NULL) {
        pst_list_remove(&found->link);
    }
    pthread_mutex_unlock(&storage->mutex);
    return found;
}

static void run_sweep(pst_job *job) {
    sweep_job *sweep = PST_CONTAINER_OF(job, sweep_job, job);
    pst_storage *storage = sweep->storage;
    int64_t now = pst_monotonic_ms();
    pst_storage__trash *trash;
    while ((trash = due(storage, now)) != NULL) {
        int fd = storage->dirs[trash->dir_index].fd;
        if (trash->is_dir) {
            (void)remove_tree(fd, trash->path, 0);
        } else {
            (void)unlinkat(fd, trash->path, 0);
        }
        free(trash);
    }
    free(sweep);
    pthread_mutex_lock(&storage->mutex);
    storage->trash_job = false;
    pthread_mutex_unlock(&storage->mutex);
    job_end(storage);
}

void pst_storage__sweep(pst_storage *storage) {
    int64_t now = pst_monotonic_ms();
    bool wanted = false;
    pthread_mutex_lock(&storage->mutex);
    for (pst_list *l = storage->trash.next; l != &storage->trash && !wanted; l = l->next) {
        wanted = PST_CONTAINER_OF(l, pst_storage__trash, link)->deadline_ms <= now;
    }
    sweep_job *sweep = NULL;
    if (wanted && !storage->trash_job && storage->iopool != NULL) {
        sweep = calloc(1, sizeof *sweep);
    }
    if (sweep != NULL) {
        storage->trash_job = true;
        storage->jobs++;
    }
    pthread_mutex_unlock(&storage->mutex);
    if (sweep != NULL) {
        sweep->storage = storage;
        sweep->job.run = run_sweep;
        pst_iopool_submit(storage->iopool, &sweep->job);
    }
}

/* ---- work on one segment ---- */

static void flush(pst_log *log, pst_segment *segment) {
    if (pst_storage__usable(log) == 0) {
        (void)pst_storage__flush_upto(log, segment->end_offset);
    }
}

static void allocate(pst_log *log, pst_segment *segment) {
    pst_file *file = NULL;
    if (pst_storage__usable(log) == 0 &&
        pst_storage__segment_file(log, segment, true, &file) == 0) {
        int64_t upto = atomic_load_explicit(&segment->allocated, memory_order_relaxed);
        pst_storage__allocate(log, segment, file->fd, upto);
        (void)pst_file_unref(file);
    }
}

/* Under the maintenance lock: a roll or a close may be writing the index out. */
static void grow_index(pst_log *log, pst_segment *segment) {
    pst_storage__lock_acquire(&log->maintenance);
    pst_storage__lock_acquire(&log->index_lock);
    bool wanted = segment == log->active && pst_storage__index_is_short(&segment->index);
    uint32_t capacity = segment->index.capacity;
    uint32_t time_capacity = segment->index.time_capacity;
    pst_storage__lock_release(&log->index_lock);
    pst_storage__index larger;
    /* Without memory the append allocates, and so does one that was faster than this. */
    if (wanted && pst_storage__index_larger(capacity, time_capacity, &larger)) {
        pst_storage__lock_acquire(&log->index_lock);
        pst_storage__index_move(&segment->index, &larger);
        pst_storage__lock_release(&log->index_lock);
        pst_storage__index_fini(&larger);
    }
    pst_storage__lock_release(&log->maintenance);
}

static void run_work(pst_job *job) {
    pst_segment *segment = PST_CONTAINER_OF(job, pst_segment, job);
    pst_log *log = segment->job_log;
    pst_storage *storage = log->storage;
    unsigned idle = PST_STORAGE__WORK_RUNS;
    do {
        unsigned work =
            atomic_exchange_explicit(&segment->work, PST_STORAGE__WORK_RUNS, memory_order_acq_rel);
        if ((work & PST_STORAGE__WORK_FLUSH) != 0) {
            flush(log, segment);
        }
        if ((work & PST_STORAGE__WORK_ALLOCATE) != 0) {
            allocate(log, segment);
        }
        if ((work & PST_STORAGE__WORK_INDEX) != 0) {
            grow_index(log, segment);
        }
        idle = PST_STORAGE__WORK_RUNS;
    } while (!atomic_compare_exchange_strong_explicit(&segment->work, &idle, 0,
                                                      memory_order_acq_rel, memory_order_acquire));
    /* From here on the job may be in use again. */
    pst_storage__segment_unref(storage, segment);
    pst_storage__log_unref(log);
    job_end(storage);
}

/* Allocates nothing: appends call it. */
static void want(pst_log *log, pst_segment *segment, unsigned work) {
    if (log->storage->iopool == NULL ||
        (atomic_load_explicit(&segment->work, memory_order_relaxed) & work) != 0) {
        return;
    }
    unsigned before = atomic_fetch_or_explicit(&segment->work, work | PST_STORAGE__WORK_RUNS,
                                               memory_order_acq_rel);
    if ((before & PST_STORAGE__WORK_RUNS) != 0) {
        return; /* whoever runs it sees the bit */
    }
    segment->job.run = run_work;
    segment->job_log = pst_storage__log_ref(log);
    (void)pst_storage__segment_ref(segment);
    job_begin(log->storage);
    pst_iopool_submit(log->storage->iopool, &segment->job);
}

void pst_storage__flush_later(pst_log *log, pst_segment *segment) {
    want(log, segment, PST_STORAGE__WORK_FLUSH);
}

void pst_storage__allocate_later(pst_log *log, pst_segment *segment) {
    want(log, segment, PST_STORAGE__WORK_ALLOCATE);
}

void pst_storage__grow_index_later(pst_log *log, pst_segment *segment) {
    want(log, segment, PST_STORAGE__WORK_INDEX);
}
