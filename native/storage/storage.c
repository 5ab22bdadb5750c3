/* storage/storage.c - log directories: locks, marker, checkpoints, and what their logs share.
 * Owner: the engine opens and closes; everything else is guarded by the storage's mutexes. */
#include "storage/storage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "storage/storage_private.h"

static const char marker_name[] = ".kafka_cleanshutdown";
static const char recovery_name[] = "recovery-point-offset-checkpoint";
static const char log_start_name[] = "log-start-offset-checkpoint";

enum { CHECKPOINT_FILE_MAX = 64 * 1024 * 1024 };

static void say(char *out, size_t size, const char *what, const char *path, int err) {
    (void)snprintf(out, size, "%s %s: %s", what, path, strerror(err));
}

static int lock_dir(pst_storage__dir *dir, char *error_out, size_t error_size) {
    dir->fd = open(dir->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir->fd < 0) {
        say(error_out, error_size, "cannot open log directory", dir->path, errno);
        return pst_err_from_errno(errno);
    }
    dir->lock_fd = openat(dir->fd, ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (dir->lock_fd < 0) {
        say(error_out, error_size, "cannot create .lock in", dir->path, errno);
        return pst_err_from_errno(errno);
    }
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(dir->lock_fd, F_OFD_SETLK, &lock) != 0) {
        if (errno == EAGAIN || errno == EACCES) {
            (void)snprintf(error_out, error_size,
                           "log directory %s is in use by another broker (its .lock is held)",
                           dir->path);
            return -PST_ELOCKED;
        }
        say(error_out, error_size, "cannot lock", dir->path, errno);
        return pst_err_from_errno(errno);
    }
    return 0;
}

/* The marker is consumed before anything is written (KAFKA-10471). */
static int consume_marker(pst_storage__dir *dir, char *error_out, size_t error_size) {
    if (unlinkat(dir->fd, marker_name, 0) == 0) {
        dir->clean = true;
        if (fsync(dir->fd) != 0) {
            say(error_out, error_size, "cannot flush", dir->path, errno);
            return -PST_EIO;
        }
        return 0;
    }
    if (errno == ENOENT) {
        return 0;
    }
    say(error_out, error_size, "cannot remove the clean-shutdown marker in", dir->path, errno);
    return pst_err_from_errno(errno);
}

static bool is_partition_name(const char *name) {
    const char *dash = strrchr(name, '-');
    if (dash == NULL || dash == name || dash - name > 249 || dash[1] == '\0' ||
        strlen(dash + 1) > 10 || strncmp(name, "__cluster_metadata-", 19) == 0) {
        return false;
    }
    return dash[1 + strspn(dash + 1, "0123456789")] == '\0';
}

static bool ends_with(const char *name, const char *suffix) {
    size_t n = strlen(name);
    size_t m = strlen(suffix);
    return n > m && strcmp(name + n - m, suffix) == 0;
}

static bool entry_is_dir(int dirfd, const struct dirent *entry) {
    struct stat st;
    if (entry->d_type != DT_UNKNOWN) {
        return entry->d_type == DT_DIR;
    }
    return fstatat(dirfd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

static int list_dir(pst_storage *storage, int dir_index) {
    pst_storage__dir *dir = &storage->dirs[dir_index];
    int fd = openat(dir->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (stream == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return -PST_EIO;
    }
    int rc = 0;
    struct dirent *entry;
    while (rc == 0 && (entry = readdir(stream)) != NULL) {
        if (entry->d_name[0] == '.' || !entry_is_dir(dir->fd, entry)) {
            continue;
        }
        if (ends_with(entry->d_name, "-delete")) {
            pst_storage__discard(storage, dir_index, entry->d_name, true, 0);
        } else if (is_partition_name(entry->d_name)) {
            pst_storage__known *known = pst_storage__known_create(pst_slice_str(entry->d_name));
            if (known == NULL) {
                rc = -PST_ENOMEM;
                break;
            }
            known->exists = true;
            known->clean = dir->clean;
            pst_storage__give_known(storage, dir_index, known);
        }
    }
    closedir(stream);
    return rc;
}

/* ---- what is known of partitions without an open log ---- */

pst_storage__known *pst_storage__known_create(pst_slice name) {
    pst_storage__known *known = calloc(1, sizeof *known + name.size + 1);
    if (known != NULL) {
        memcpy(known->name, name.data, name.size);
        known->closed_end = -1;
    }
    return known;
}

static uint32_t name_hash(pst_slice name) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < name.size; i++) {
        h = (h ^ name.data[i]) * 16777619u;
    }
    return h ^ (h >> 15);
}

static pst_storage__known **known_slot(pst_storage__dir *dir, pst_slice name) {
    if (dir->bucket_count == 0) {
        return NULL;
    }
    pst_storage__known **slot = &dir->buckets[name_hash(name) & (dir->bucket_count - 1)];
    while (*slot != NULL && !pst_slice_eq(pst_slice_str((*slot)->name), name)) {
        slot = &(*slot)->next;
    }
    return slot;
}

static void known_grow(pst_storage__dir *dir) {
    uint32_t wanted = dir->bucket_count == 0 ? 64 : dir->bucket_count * 2;
    pst_storage__known **buckets = calloc(wanted, sizeof(pst_storage__known *));
    if (buckets == NULL) {
        return; /* longer chains, nothing worse */
    }
    for (uint32_t i = 0; i < dir->bucket_count; i++) {
        pst_storage__known *node = dir->buckets[i];
        while (node != NULL) {
            pst_storage__known *next = node->next;
            pst_storage__known **slot =
                &buckets[name_hash(pst_slice_str(node->name)) & (wanted - 1)];
            node->next = *slot;
            *slot = node;
            node = next;
        }
    }
    free(dir->buckets);
    dir->buckets = buckets;
    dir->bucket_count = wanted;
}

pst_storage__known *pst_storage__take_known(pst_storage *storage, int dir_index, const char *name) {
    pst_storage__dir *dir = &storage->dirs[dir_index];
    pthread_mutex_lock(&storage->mutex);
    pst_storage__known **slot = known_slot(dir, pst_slice_str(name));
    pst_storage__known *known = slot == NULL ? NULL : *slot;
    if (known != NULL) {
        *slot = known->next;
        known->next = NULL;
        dir->known_count--;
    }
    if (dir->known_count == 0) { /* after start-up the table is empty: give its memory back */
        free(dir->buckets);
        dir->buckets = NULL;
        dir->bucket_count = 0;
    }
    pthread_mutex_unlock(&storage->mutex);
    return known;
}

void pst_storage__give_known(pst_storage *storage, int dir_index, pst_storage__known *known) {
    pst_storage__dir *dir = &storage->dirs[dir_index];
    pthread_mutex_lock(&storage->mutex);
    if (dir->known_count >= dir->bucket_count) {
        known_grow(dir);
    }
    pst_storage__known **slot = known_slot(dir, pst_slice_str(known->name));
    if (slot == NULL || *slot != NULL) {
        free(known);
    } else {
        *slot = known;
        dir->known_count++;
    }
    pthread_mutex_unlock(&storage->mutex);
}

typedef struct {
    pst_storage__dir *dir;
    bool log_start;
} load_context;

static int load_offset(void *context, pst_slice name, int64_t offset) {
    load_context *c = context;
    pst_storage__known **slot = known_slot(c->dir, name);
    if (slot != NULL && *slot != NULL) {
        if (c->log_start) {
            (*slot)->log_start = offset;
        } else {
            (*slot)->recovery_point = offset;
        }
    }
    return 0;
}

/* A checkpoint that cannot be read costs a longer validation, never data. */
static void load_checkpoint(pst_storage__dir *dir, const char *name, bool log_start) {
    pst_byte_buffer text = {.limit = CHECKPOINT_FILE_MAX};
    load_context context = {dir, log_start};
    int rc = pst_storage__read_file(dir->fd, name, &text);
    if (rc == 0) {
        rc = pst_storage__offsets_decode(pst_byte_buffer_slice(&text), load_offset, &context);
    }
    if (rc < 0 && rc != -PST_ENOENT) {
        pst_storage__report("%s/%s cannot be used (%s)", dir->path, name, pst_strerror(rc));
        dir->clean = false;
        for (uint32_t i = 0; i < dir->bucket_count; i++) {
            for (pst_storage__known *k = dir->buckets[i]; k != NULL; k = k->next) {
                k->clean = false;
            }
        }
    }
    pst_byte_buffer_fini(&text);
}

/* ---- open and close ---- */

static void free_storage(pst_storage *storage) {
    for (int i = 0; i < storage->dir_count; i++) {
        pst_storage__dir *dir = &storage->dirs[i];
        for (uint32_t b = 0; b < dir->bucket_count; b++) {
            while (dir->buckets[b] != NULL) {
                pst_storage__known *next = dir->buckets[b]->next;
                free(dir->buckets[b]);
                dir->buckets[b] = next;
            }
        }
        free(dir->buckets);
        if (dir->lock_fd >= 0) {
            close(dir->lock_fd);
        }
        if (dir->fd >= 0) {
            close(dir->fd);
        }
        free(dir->path);
    }
    pst_list *link;
    while ((link = pst_list_pop_front(&storage->trash)) != NULL) {
        free(PST_CONTAINER_OF(link, pst_storage__trash, link));
    }
    for (int i = 0; i < PST_STORAGE__WINDOWS; i++) {
        free(storage->windows[i].entries);
    }
    pst_storage__file_cache_fini(&storage->files);
    pst_storage__tail_pool_fini(&storage->tails);
    pthread_mutex_destroy(&storage->mutex);
    pthread_mutex_destroy(&storage->checkpoint_mutex);
    pthread_mutex_destroy(&storage->window_mutex);
    pthread_cond_destroy(&storage->idle);
    free(storage);
}

static int open_dir(pst_storage *storage, int i, char *error_out, size_t error_size) {
    pst_storage__dir *dir = &storage->dirs[i];
    PST_TRY(lock_dir(dir, error_out, error_size));
    PST_TRY(consume_marker(dir, error_out, error_size));
    int rc = list_dir(storage, i);
    if (rc < 0) {
        (void)snprintf(error_out, error_size, "cannot list log directory %s", dir->path);
        return rc;
    }
    load_checkpoint(dir, recovery_name, false);
    load_checkpoint(dir, log_start_name, true);
    return 0;
}

int pst_storage_open(const pst_storage_settings *settings, char *error_out, size_t error_size,
                     pst_storage **storage_out) {
    *storage_out = NULL;
    PST_ASSERT(error_size >= 256);
    PST_ASSERT(settings->dir_count >= 1 && settings->dir_count <= PST_STORAGE__DIRS_MAX);
    error_out[0] = '\0';
    pst_storage *storage = calloc(1, sizeof *storage);
    if (storage == NULL) {
        return -PST_ENOMEM;
    }
    pthread_mutex_init(&storage->mutex, NULL);
    pthread_mutex_init(&storage->checkpoint_mutex, NULL);
    pthread_mutex_init(&storage->window_mutex, NULL);
    pthread_cond_init(&storage->idle, NULL);
    pst_list_init(&storage->logs);
    pst_list_init(&storage->trash);
    storage->iopool = settings->iopool;
    storage->producer_id_expiration_ms = settings->producer_id_expiration_ms;
    storage->producer_ids_max = settings->producer_ids_max;
    pst_storage__file_cache_init(&storage->files, settings->file_cache_count);
    int rc = pst_storage__tail_pool_init(&storage->tails, settings->tail_pool_size);
    for (int i = 0; rc == 0 && i < settings->dir_count; i++) {
        pst_storage__dir *dir = &storage->dirs[i];
        dir->fd = -1;
        dir->lock_fd = -1;
        dir->path = strdup(settings->dirs[i]);
        storage->dir_count = i + 1;
        rc = dir->path == NULL ? -PST_ENOMEM : open_dir(storage, i, error_out, error_size);
    }
    if (rc < 0) {
        if (error_out[0] == '\0') {
            (void)snprintf(error_out, error_size, "%s", pst_strerror(rc));
        }
        free_storage(storage);
        return rc;
    }
    *storage_out = storage;
    pst_storage__sweep(storage);
    return 0;
}

static int write_marker(pst_storage__dir *dir) {
    static const char content[] = "{\"version\":0,\"brokerEpoch\":-1}";
    return pst_storage__replace_file(dir->fd, marker_name, pst_slice_str(content), true);
}

/* After syncfs every byte the closed logs wrote is on the disk: their ends are recovery points now.
 */
static int settle_dir(pst_storage__dir *dir) {
    if (atomic_load(&dir->offline)) {
        return -PST_EOFFLINE;
    }
    if (syncfs(dir->fd) != 0) {
        return -PST_EIO;
    }
    for (uint32_t b = 0; b < dir->bucket_count; b++) {
        for (pst_storage__known *k = dir->buckets[b]; k != NULL; k = k->next) {
            k->recovery_point = k->closed_end >= 0 ? k->closed_end : k->recovery_point;
        }
    }
    return 0;
}

static void empty_trash(pst_storage *storage) {
    pst_list *link;
    while ((link = pst_list_pop_front(&storage->trash)) != NULL) {
        pst_storage__trash *trash = PST_CONTAINER_OF(link, pst_storage__trash, link);
        int fd = storage->dirs[trash->dir_index].fd;
        if (trash->is_dir) {
            (void)pst_storage__remove_dir(fd, trash->path);
        } else {
            (void)unlinkat(fd, trash->path, 0);
        }
        free(trash);
    }
}

int pst_storage_close(pst_storage *storage, bool clean) {
    pthread_mutex_lock(&storage->mutex);
    PST_ASSERT(pst_list_empty(&storage->logs));
    while (storage->jobs > 0) {
        pthread_cond_wait(&storage->idle, &storage->mutex);
    }
    pthread_mutex_unlock(&storage->mutex);
    empty_trash(storage);
    int rc = 0;
    if (clean) {
        for (int i = 0; i < storage->dir_count; i++) {
            int settled = settle_dir(&storage->dirs[i]);
            rc = settled < 0 ? settled : rc;
        }
        int written = rc == 0 ? pst_storage_checkpoint(storage) : rc;
        for (int i = 0; written == 0 && i < storage->dir_count; i++) {
            written = write_marker(&storage->dirs[i]);
        }
        rc = written < 0 ? written : rc;
        if (rc < 0) {
            for (int i = 0; i < storage->dir_count; i++) {
                (void)unlinkat(storage->dirs[i].fd, marker_name, 0);
            }
        }
    }
    free_storage(storage);
    return rc;
}

/* ---- checkpoints ---- */

typedef struct {
    pst_byte_buffer body;
    int64_t count;
    int rc;
} lines;

static void add_line(lines *l, const char *name, int64_t offset) {
    const char *dash = strrchr(name, '-');
    char line[320];
    int n = snprintf(line, sizeof line, "%.*s %s %lld\n", (int)(dash - name), name, dash + 1,
                     (long long)offset);
    int rc = pst_byte_buffer_append(&l->body, line, (size_t)n);
    l->rc = rc < 0 ? rc : l->rc;
    l->count++;
}

static int write_lines(int dirfd, const char *name, const lines *l) {
    pst_byte_buffer text = {0};
    char head[48];
    int n = snprintf(head, sizeof head, "0\n%lld\n", (long long)l->count);
    int rc = l->rc;
    if (rc == 0) {
        rc = pst_byte_buffer_append(&text, head, (size_t)n);
    }
    if (rc == 0) {
        rc = pst_byte_buffer_append(&text, l->body.data, l->body.size);
    }
    if (rc == 0) {
        rc = pst_storage__replace_file(dirfd, name, pst_byte_buffer_slice(&text), true);
    }
    pst_byte_buffer_fini(&text);
    return rc;
}

static void collect(pst_storage *storage, int dir_index, lines *recovery, lines *starts) {
    pst_storage__dir *dir = &storage->dirs[dir_index];
    pthread_mutex_lock(&storage->mutex);
    for (pst_list *l = storage->logs.next; l != &storage->logs; l = l->next) {
        pst_log *log = PST_CONTAINER_OF(l, pst_log, link);
        if (log->dir_index != dir_index || (pst_storage__flags(log) & PST_LOG__CREATED) == 0) {
            continue;
        }
        int64_t start = atomic_load(&log->log_start);
        add_line(recovery, log->name, atomic_load(&log->recovery_point));
        if (start > 0) {
            add_line(starts, log->name, start);
        }
    }
    for (uint32_t b = 0; b < dir->bucket_count; b++) {
        for (pst_storage__known *k = dir->buckets[b]; k != NULL; k = k->next) {
            if (k->exists) {
                add_line(recovery, k->name, k->recovery_point);
                if (k->log_start > 0) {
                    add_line(starts, k->name, k->log_start);
                }
            }
        }
    }
    pthread_mutex_unlock(&storage->mutex);
}

int pst_storage_checkpoint(pst_storage *storage) {
    int result = 0;
    pst_storage__sweep(storage);
    pthread_mutex_lock(&storage->checkpoint_mutex);
    for (int i = 0; i < storage->dir_count; i++) {
        if (atomic_load(&storage->dirs[i].offline)) {
            continue;
        }
        lines recovery = {0};
        lines starts = {0};
        collect(storage, i, &recovery, &starts);
        int rc = write_lines(storage->dirs[i].fd, recovery_name, &recovery);
        if (rc == 0) {
            rc = write_lines(storage->dirs[i].fd, log_start_name, &starts);
        }
        if (rc == -PST_EIO) {
            pst_storage__set_offline(storage, i, "checkpoint", rc);
        }
        result = rc < 0 ? rc : result;
        pst_byte_buffer_fini(&recovery.body);
        pst_byte_buffer_fini(&starts.body);
    }
    pthread_mutex_unlock(&storage->checkpoint_mutex);
    return result;
}

/* ---- questions ---- */

bool pst_storage_dir_online(pst_storage *storage, int dir_index) {
    PST_ASSERT(dir_index >= 0 && dir_index < storage->dir_count);
    return !atomic_load_explicit(&storage->dirs[dir_index].offline, memory_order_acquire);
}

void pst_storage__set_offline(pst_storage *storage, int dir_index, const char *what, int rc) {
    pst_storage__dir *dir = &storage->dirs[dir_index];
    if (!atomic_exchange(&dir->offline, true)) {
        pst_storage__report("log directory %s is offline: %s failed (%s)", dir->path, what,
                            pst_strerror(rc));
    }
}

int pst_storage_get_dir_info(pst_storage *storage, int dir_index, pst_storage_dir_info *info_out) {
    memset(info_out, 0, sizeof *info_out);
    struct statvfs vfs;
    info_out->online = pst_storage_dir_online(storage, dir_index);
    if (fstatvfs(storage->dirs[dir_index].fd, &vfs) != 0) {
        return pst_err_from_errno(errno);
    }
    info_out->total_bytes = (int64_t)(vfs.f_blocks * vfs.f_frsize);
    info_out->usable_bytes = (int64_t)(vfs.f_bavail * vfs.f_frsize);
    return 0;
}

int pst_storage_visit_dirs(pst_storage *storage,
                           void (*visit)(void *context, int dir_index, const char *name),
                           void *context) {
    for (int i = 0; i < storage->dir_count; i++) {
        pst_byte_buffer names = {0}; /* zero-terminated, one after the other */
        int rc = 0;
        pthread_mutex_lock(&storage->mutex);
        pst_storage__dir *dir = &storage->dirs[i];
        for (uint32_t b = 0; rc == 0 && b < dir->bucket_count; b++) {
            for (pst_storage__known *k = dir->buckets[b]; rc == 0 && k != NULL; k = k->next) {
                rc = k->exists ? pst_byte_buffer_append(&names, k->name, strlen(k->name) + 1) : 0;
            }
        }
        for (pst_list *l = storage->logs.next; rc == 0 && l != &storage->logs; l = l->next) {
            pst_log *log = PST_CONTAINER_OF(l, pst_log, link);
            if (log->dir_index == i && (pst_storage__flags(log) & PST_LOG__CREATED) != 0) {
                rc = pst_byte_buffer_append(&names, log->name, strlen(log->name) + 1);
            }
        }
        pthread_mutex_unlock(&storage->mutex);
        for (size_t at = 0; rc == 0 && at < names.size;) {
            const char *name = (const char *)names.data + at;
            visit(context, i, name);
            at += strlen(name) + 1;
        }
        pst_byte_buffer_fini(&names);
        PST_TRY(rc);
    }
    return 0;
}

void pst_storage_get_statistics(pst_storage *storage, pst_storage_statistics *statistics_out) {
    pthread_mutex_lock(&storage->files.mutex);
    statistics_out->open_files = storage->files.count;
    pthread_mutex_unlock(&storage->files.mutex);
    statistics_out->tail_bytes = atomic_load(&storage->tails.bytes);
    statistics_out->producer_ids = atomic_load(&storage->producer_ids);
    statistics_out->logs = atomic_load(&storage->log_count);
    statistics_out->rolls = atomic_load(&storage->rolls);
    statistics_out->cold_reads = atomic_load(&storage->cold_reads);
}
