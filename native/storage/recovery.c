/* storage/recovery.c - opening a partition directory that exists.
 * Owner: pst_log_open; nobody else sees the log yet.
 *
 *  - after a clean stop the files are trusted: only the headers behind the last index entry are
 * walked;
 *  - otherwise every segment that reaches beyond the recovery point, and the last one always, is
 * validated in full: structure, offsets, CRC. Bad bytes beyond the recovery point are a torn tail:
 * cut and reported. Before it they are damage: kept, reported, answered with -PST_ECORRUPT, never
 * cut;
 *  - a damaged log carries a file that makes the next start validate again, clean stop or not. */
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
#include "storage/text.h"

static const char damage_name[] = "penstock-damage";

enum { TEXT_FILE_MAX = 32 * 1024 * 1024, SNAPSHOT_FILE_MAX = 64 * 1024 * 1024 };

/* Growing list of offsets. Owner: the recovery under way. */
typedef struct {
    int64_t *items;
    uint32_t count;
    uint32_t capacity;
} offsets;

/* Owner: pst_storage__recover. */
typedef struct {
    pst_log *log;
    int dirfd;
    offsets bases;
    offsets snapshots;
    int64_t recovery_point;
    int64_t damaged_from;   /* base of the first damaged segment, INT64_MAX: none */
    int64_t validated_from; /* base of the first segment walked completely */
    int64_t log_end;
    bool clean;
    bool epochs_known;
    bool saw_producer;
} recovery;

static int add_offset(offsets *list, int64_t offset) {
    if (list->count == list->capacity) {
        uint32_t wanted = list->capacity == 0 ? 8 : list->capacity * 2;
        int64_t *bigger = realloc(list->items, wanted * sizeof *bigger);
        if (bigger == NULL) {
            return -PST_ENOMEM;
        }
        list->items = bigger;
        list->capacity = wanted;
    }
    list->items[list->count++] = offset;
    return 0;
}

static int by_offset(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* ---- the directory ---- */

static bool ends_with(const char *name, const char *suffix) {
    size_t n = strlen(name);
    size_t m = strlen(suffix);
    return n > m && strcmp(name + n - m, suffix) == 0;
}

/* A finished compaction of a broker that stopped before it renamed: only superseded copies are
 * removed. */
static bool is_orphan(const recovery *r, const char *name) {
    if (ends_with(name, ".deleted") || ends_with(name, ".cleaned") || ends_with(name, ".tmp")) {
        return true;
    }
    if (!ends_with(name, ".swap") || strlen(name) < 25) {
        return false;
    }
    char log_name[PST_STORAGE__FILE_NAME_MAX];
    (void)snprintf(log_name, sizeof log_name, "%.20s.log", name);
    return faccessat(r->dirfd, log_name, F_OK, 0) == 0;
}

static int list_files(recovery *r) {
    int fd = openat(r->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
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
        int64_t offset;
        if (pst_storage__parse_name(entry->d_name, ".log", &offset)) {
            rc = add_offset(&r->bases, offset);
        } else if (pst_storage__parse_name(entry->d_name, ".snapshot", &offset)) {
            rc = add_offset(&r->snapshots, offset);
        } else if (strcmp(entry->d_name, damage_name) == 0) {
            r->damaged_from = 0;
        } else if (is_orphan(r, entry->d_name)) {
            (void)unlinkat(r->dirfd, entry->d_name, 0);
        }
    }
    closedir(stream);
    if (r->bases.count > 1) {
        qsort(r->bases.items, r->bases.count, sizeof(int64_t), by_offset);
    }
    if (r->snapshots.count > 1) {
        qsort(r->snapshots.items, r->snapshots.count, sizeof(int64_t), by_offset);
    }
    return rc;
}

/* ---- partition.metadata, epochs, damage ---- */

static int read_metadata(recovery *r) {
    pst_byte_buffer text = {.limit = TEXT_FILE_MAX};
    pst_uuid id;
    int rc = pst_storage__read_file(r->dirfd, "partition.metadata", &text);
    if (rc == 0) {
        rc = pst_storage__metadata_decode(pst_byte_buffer_slice(&text), &id);
    }
    pst_byte_buffer_fini(&text);
    if (rc == -PST_EIO) {
        return rc;
    }
    if (rc == 0 && pst_uuid_is_zero(&r->log->topic_id)) {
        r->log->topic_id = id;
        return 0;
    }
    if (rc == 0 && !pst_uuid_eq(&id, &r->log->topic_id)) {
        char have[23];
        pst_storage__uuid_text(&id, have);
        pst_storage__report("%s holds another topic of that name (topic id %s); it is left alone",
                            r->log->name, have);
        return -PST_EEXIST;
    }
    if (rc == 0 || pst_uuid_is_zero(&r->log->topic_id)) {
        return 0;
    }
    pst_byte_buffer fresh = {0};
    rc = pst_storage__metadata_encode(&r->log->topic_id, &fresh);
    if (rc == 0) {
        rc = pst_storage__replace_file(r->dirfd, "partition.metadata",
                                       pst_byte_buffer_slice(&fresh), true);
    }
    pst_byte_buffer_fini(&fresh);
    return rc;
}

static int read_epochs(recovery *r) {
    pst_byte_buffer text = {.limit = TEXT_FILE_MAX};
    int rc = pst_storage__read_file(r->dirfd, "leader-epoch-checkpoint", &text);
    if (rc == 0) {
        rc = pst_storage__epochs_decode(pst_byte_buffer_slice(&text), &r->log->epochs);
    }
    pst_byte_buffer_fini(&text);
    if (rc == -PST_EIO || rc == -PST_ENOMEM) {
        return rc;
    }
    r->epochs_known = rc == 0;
    if (rc < 0) {
        pst_storage__epochs_fini(&r->log->epochs);
        atomic_fetch_or_explicit(&r->log->flags, PST_LOG__EPOCHS_DIRTY, memory_order_relaxed);
        if (rc != -PST_ENOENT) {
            pst_storage__report("%s: leader-epoch-checkpoint is damaged and rebuilt from the log",
                                r->log->name);
        }
    }
    return 0;
}

static void read_damage(recovery *r) {
    pst_byte_buffer text = {.limit = 4096};
    int64_t base;
    if (r->damaged_from == INT64_MAX) {
        return;
    }
    if (pst_storage__read_file(r->dirfd, damage_name, &text) == 0) {
        pst_storage__text t = {text.data, text.data + text.size};
        if (pst_storage__text_number(&t, '\n', &base) && base > 0) {
            r->damaged_from = base;
        }
    }
    pst_byte_buffer_fini(&text);
}

static int add_damage(recovery *r, const pst_segment *segment, pst_storage__damage damage) {
    pst_log *log = r->log;
    if (log->damage_count == UINT16_MAX) {
        return -PST_ECORRUPT;
    }
    pst_storage__damage *bigger =
        realloc(log->damage, ((size_t)log->damage_count + 1) * sizeof *bigger);
    if (bigger == NULL) {
        return -PST_ENOMEM;
    }
    log->damage = bigger;
    log->damage[log->damage_count++] = damage;
    pst_storage__report(
        "%s: offsets %lld to %lld are damaged (%020lld.log, bytes %lld to %lld); "
        "nothing was cut",
        log->name, (long long)damage.from_offset, (long long)damage.to_offset - 1,
        (long long)segment->base_offset, (long long)damage.position, (long long)damage.end);
    if (log->damage_count > 1) {
        return 0;
    }
    char text[32];
    int n = snprintf(text, sizeof text, "%lld\n", (long long)segment->base_offset);
    return pst_storage__replace_file(r->dirfd, damage_name, pst_slice_of(text, (size_t)n), true);
}

/* ---- segments ---- */

static void unlink_segment(recovery *r, int64_t base) {
    static const char *const suffixes[] = {".log", ".index", ".timeindex", ".txnindex",
                                           ".snapshot"};
    char name[PST_STORAGE__FILE_NAME_MAX];
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        pst_storage__file_name(name, base, suffixes[i]);
        (void)unlinkat(r->dirfd, name, 0);
    }
}

/* Cuts the segment at `position` and removes what follows it. */
static int cut(recovery *r, pst_segment *segment, int fd, int64_t position, uint32_t i) {
    int64_t bytes = segment->size - position;
    if (ftruncate(fd, (off_t)position) != 0 || fsync(fd) != 0) {
        return -PST_EIO;
    }
    segment->size = position;
    for (uint32_t k = i + 1; k < r->bases.count; k++) {
        char name[PST_STORAGE__FILE_NAME_MAX];
        struct stat st;
        pst_storage__file_name(name, r->bases.items[k], ".log");
        if (fstatat(r->dirfd, name, &st, 0) == 0) {
            bytes += (int64_t)st.st_size;
        }
        unlink_segment(r, r->bases.items[k]);
    }
    r->bases.count = i + 1;
    pst_storage__report("%s: cut %lld bytes of a torn tail at position %lld of %020lld.log",
                        r->log->name, (long long)bytes, (long long)position,
                        (long long)segment->base_offset);
    return 0;
}

/* What a walk found bad. 0: walk on from walk->position; 1: the log ends here. */
static int handle_bad(recovery *r, pst_storage__walk *walk, uint32_t i) {
    pst_segment *segment = walk->segment;
    if (walk->next_offset >= r->recovery_point) {
        PST_TRY(cut(r, segment, walk->fd, walk->position, i));
        return 1;
    }
    int64_t position;
    int64_t offset;
    int found = pst_storage__resync(walk, &position, &offset);
    if (found < 0) {
        return found;
    }
    bool last = i + 1 == r->bases.count;
    if (found == 1) {
        position = segment->size;
        offset = last ? r->recovery_point : walk->offset_max;
    }
    PST_TRY(add_damage(r, segment,
                       (pst_storage__damage){.from_offset = walk->next_offset,
                                             .to_offset = offset,
                                             .segment_base = segment->base_offset,
                                             .position = walk->position,
                                             .end = position}));
    walk->position = position;
    walk->next_offset = offset;
    if (found == 1 && last) {
        atomic_fetch_or_explicit(&r->log->flags, PST_LOG__FORCE_ROLL, memory_order_relaxed);
    }
    return found;
}

static int validate(recovery *r, pst_segment *segment, int fd, uint32_t i) {
    bool last = i + 1 == r->bases.count;
    pst_storage__index_fini(&segment->index);
    segment->since_index = 0;
    segment->max_timestamp = -1;
    pst_storage__walk walk = {
        .log = r->log,
        .segment = segment,
        .fd = fd,
        .check_crc = true,
        .index = true,
        .epochs = true,
        .offset_max = last ? INT64_MAX : r->bases.items[i + 1],
        .next_offset = segment->base_offset,
    };
    int rc;
    do {
        rc = pst_storage__walk_segment(&walk);
        rc = rc == -PST_ECORRUPT ? handle_bad(r, &walk, i) : rc == 0 ? 1 : rc;
    } while (rc == 0);
    if (rc < 0) {
        return rc;
    }
    last = i + 1 == r->bases.count;
    if (last &&
        walk.next_offset < r->recovery_point) { /* the file is shorter than what was flushed */
        PST_TRY(add_damage(r, segment,
                           (pst_storage__damage){.from_offset = walk.next_offset,
                                                 .to_offset = r->recovery_point,
                                                 .segment_base = segment->base_offset,
                                                 .position = segment->size,
                                                 .end = segment->size}));
        walk.next_offset = r->recovery_point;
        atomic_fetch_or_explicit(&r->log->flags, PST_LOG__FORCE_ROLL, memory_order_relaxed);
    }
    r->saw_producer |= walk.saw_producer;
    r->log_end = walk.next_offset;
    return 0;
}

/* The last segment after a clean stop: index from its file, then the few headers behind it. */
static int trust_last(recovery *r, pst_segment *segment, int fd) {
    pst_batch first;
    uint8_t header[PST_BATCH_HEADER_SIZE];
    pst_storage__walk walk = {
        .log = r->log,
        .segment = segment,
        .fd = fd,
        .index = true,
        .epochs = true,
        .offset_max = INT64_MAX,
        .next_offset = segment->base_offset,
    };
    int rc = pst_storage__index_load(r->dirfd, segment);
    if (rc == -PST_EIO || rc == -PST_ENOMEM) {
        return rc;
    }
    const pst_storage__index *index = &segment->index;
    if (index->time_count > 0) {
        const pst_storage__time_entry *t = &index->times[index->time_count - 1];
        segment->max_timestamp = t->timestamp;
        segment->max_timestamp_offset = segment->base_offset + t->offset;
    }
    if (index->count > 0) {
        walk.position = index->entries[index->count - 1].position;
        if (pst_storage__read_full(fd, header, sizeof header, 0) < 0 ||
            pst_batch_header(pst_slice_of(header, sizeof header), &first) < 0) {
            return -PST_ECORRUPT;
        }
        segment->first_timestamp = first.max_timestamp;
    }
    int64_t indexed =
        index->count == 0 ? -1 : segment->base_offset + index->entries[index->count - 1].offset;
    PST_TRY(pst_storage__walk_segment(&walk));
    if (walk.next_offset <= indexed || walk.next_offset < r->recovery_point) {
        return -PST_ECORRUPT;
    }
    r->log_end = walk.next_offset;
    return 0;
}

static int scan_epochs(recovery *r, pst_segment *segment, int fd) {
    pst_storage__walk walk = {.log = r->log,
                              .segment = segment,
                              .fd = fd,
                              .epochs = true,
                              .offset_max = INT64_MAX,
                              .next_offset = segment->base_offset};
    int rc = pst_storage__walk_segment(&walk);
    return rc == -PST_ECORRUPT ? 0 : rc;
}

static int open_segment(recovery *r, pst_segment *segment, int fd, uint32_t i) {
    bool last = i + 1 == r->bases.count;
    int64_t end = last ? INT64_MAX : r->bases.items[i + 1];
    bool trusted = r->clean || (!last && end <= r->recovery_point);
    trusted = trusted && segment->base_offset < r->damaged_from;
    r->log_end = segment->base_offset;
    if (trusted && last) {
        int rc = r->epochs_known ? trust_last(r, segment, fd) : -PST_ECORRUPT;
        if (rc != -PST_ECORRUPT) {
            return rc;
        }
        trusted = false; /* the marker said clean, the bytes say otherwise: look at all of them */
    }
    if (trusted) {
        return r->epochs_known ? 0 : scan_epochs(r, segment, fd);
    }
    r->validated_from =
        segment->base_offset < r->validated_from ? segment->base_offset : r->validated_from;
    PST_TRY(validate(r, segment, fd, i));
    if (i + 1 < r->bases.count) {
        PST_TRY(pst_storage__index_save(r->dirfd, segment, false));
        pst_storage__index_fini(&segment->index);
    }
    return 0;
}

static int load_segment(recovery *r, uint32_t i) {
    char name[PST_STORAGE__FILE_NAME_MAX];
    struct stat st;
    bool last = i + 1 == r->bases.count;
    int64_t end = last ? INT64_MAX : r->bases.items[i + 1];
    bool needs_file = last || !r->epochs_known || r->bases.items[i] >= r->damaged_from ||
                      (!r->clean && end > r->recovery_point);
    pst_segment *segment = pst_storage__segment_create(r->log->storage, r->bases.items[i]);
    if (segment == NULL) {
        return -PST_ENOMEM;
    }
    pst_storage__file_name(name, segment->base_offset, ".log");
    int fd = needs_file ? openat(r->dirfd, name, O_RDWR | O_CLOEXEC) : -1;
    int rc = 0;
    if ((needs_file && fd < 0) ||
        (fd >= 0 ? fstat(fd, &st) : fstatat(r->dirfd, name, &st, 0)) != 0) {
        rc = pst_err_from_errno(errno);
    } else {
        segment->size = (int64_t)st.st_size;
        atomic_store(&segment->allocated, segment->size);
        segment->created_ms = pst_wall_ms();
        rc = needs_file ? open_segment(r, segment, fd, i) : 0;
    }
    if (fd >= 0) {
        close(fd);
    }
    last = i + 1 == r->bases.count; /* a cut may have removed the rest */
    if (rc == 0 && last) {
        segment->end_offset = r->log_end;
        r->log->active = segment;
    } else if (rc == 0) {
        segment->end_offset = r->bases.items[i + 1];
        rc = pst_storage__add_rolled(r->log, segment);
    }
    if (rc < 0) {
        pst_storage__segment_unref(r->log->storage, segment);
        if (r->log->active == segment) {
            r->log->active = NULL;
        }
    }
    return rc;
}

/* ---- producers ---- */

static int load_snapshot(recovery *r, int64_t offset) {
    pst_log *log = r->log;
    pst_byte_buffer bytes = {.limit = SNAPSHOT_FILE_MAX};
    char name[PST_STORAGE__FILE_NAME_MAX];
    pst_storage__file_name(name, offset, ".snapshot");
    int rc = pst_storage__read_file(r->dirfd, name, &bytes);
    if (rc == 0) {
        rc = pst_storage__producers_create(&log->producers);
    }
    if (rc == 0) {
        rc = pst_storage__snapshot_decode(log->storage, pst_byte_buffer_slice(&bytes),
                                          log->producers);
    }
    if (rc < 0 || log->producers->count == 0) {
        pst_storage__producers_destroy(log->storage, log->producers);
        log->producers = NULL;
    }
    pst_byte_buffer_fini(&bytes);
    return rc;
}

static bool is_base(const recovery *r, int64_t offset) {
    return bsearch(&offset, r->bases.items, r->bases.count, sizeof(int64_t), by_offset) != NULL;
}

/* Newest snapshot that is whole and not beyond the log; older ones stay where Kafka would keep
 * them. */
static int load_producers(recovery *r) {
    int64_t from = -1;
    for (uint32_t i = r->snapshots.count; i > 0; i--) {
        int64_t offset = r->snapshots.items[i - 1];
        int rc = -PST_EMALFORMED;
        if (from >= 0 && is_base(r, offset)) {
            continue;
        }
        if (from < 0 && offset <= r->log_end) {
            rc = load_snapshot(r, offset);
            if (rc == -PST_EIO || rc == -PST_ENOMEM) {
                return rc;
            }
        }
        if (rc == 0) {
            from = offset;
            atomic_fetch_or_explicit(&r->log->flags, PST_LOG__HAS_SNAPSHOTS, memory_order_relaxed);
            continue;
        }
        char name[PST_STORAGE__FILE_NAME_MAX];
        pst_storage__file_name(name, offset, ".snapshot");
        (void)unlinkat(r->dirfd, name, 0);
    }
    if (from == r->log_end || (from < 0 && r->clean && r->snapshots.count == 0)) {
        return 0; /* a clean stop without a snapshot: there were no producers */
    }
    if (from >= r->validated_from && !r->saw_producer) {
        return 0;
    }
    if (from < 0 && r->bases.items[0] >= r->validated_from && !r->saw_producer) {
        return 0;
    }
    return pst_storage__replay_producers(r->log, r->dirfd, from < 0 ? 0 : from);
}

/* ---- the whole ---- */

static int recover_segments(recovery *r) {
    for (uint32_t i = 0; i < r->bases.count; i++) {
        PST_TRY(load_segment(r, i));
    }
    return 0;
}

static void set_offsets(recovery *r, int64_t log_start) {
    pst_log *log = r->log;
    int64_t first = r->bases.count > 0 ? r->bases.items[0] : log_start;
    int64_t start = log_start > first ? log_start : first;
    if (r->bases.count == 0 && r->recovery_point > r->log_end) {
        pst_storage__report("%s: no segment left of offsets up to %lld", log->name,
                            (long long)r->recovery_point - 1);
        r->log_end = r->recovery_point; /* offsets are never given twice */
        start = r->log_end;
    }
    if (start > r->log_end) {
        r->log_end = start;
        atomic_fetch_or_explicit(&log->flags, PST_LOG__FORCE_ROLL, memory_order_relaxed);
    }
    atomic_store(&log->log_start, start);
    atomic_store(&log->log_end, r->log_end);
    atomic_store(&log->recovery_point,
                 r->recovery_point < r->log_end ? r->recovery_point : r->log_end);
    bool changed = pst_storage__epochs_truncate_end(&log->epochs, r->log_end);
    changed |= pst_storage__epochs_truncate_start(&log->epochs, start);
    if (changed) {
        atomic_fetch_or_explicit(&log->flags, PST_LOG__EPOCHS_DIRTY, memory_order_relaxed);
    }
    if (log->active != NULL) {
        log->active->end_offset = r->log_end;
        if ((pst_storage__flags(log) & PST_LOG__FORCE_ROLL) == 0) {
            pst_storage__hint_append(log, r->log_end, log->active->size);
        }
    }
}

static int run(recovery *r, int64_t log_start) {
    PST_TRY(list_files(r));
    PST_TRY(read_metadata(r));
    PST_TRY(read_epochs(r));
    read_damage(r);
    PST_TRY(recover_segments(r));
    set_offsets(r, log_start);
    return r->bases.count == 0 ? 0 : load_producers(r);
}

int pst_storage__recover(pst_log *log, int64_t recovery_point, int64_t log_start, bool clean) {
    recovery r = {
        .log = log,
        .recovery_point = recovery_point,
        .damaged_from = INT64_MAX,
        .validated_from = INT64_MAX,
        .clean = clean,
    };
    PST_TRY(pst_storage__open_dir(log, &r.dirfd));
    atomic_fetch_or_explicit(&log->flags, PST_LOG__CREATED, memory_order_relaxed);
    int rc = run(&r, log_start);
    close(r.dirfd);
    free(r.bases.items);
    free(r.snapshots.items);
    return rc;
}
