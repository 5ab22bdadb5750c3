/* storage/log_read.c - from offsets to bytes: memory, page cache or disk.
 * Owner: any thread; takes the index lock for moments, never the append lock. On a reactor
 * (may_block false) nothing here waits for a disk: what might is answered with -PST_EAGAIN.
 *
 * A read is three questions: where does the batch of fetch_offset begin (`position`), where does
 * end_offset's batch begin (`clip`), and do the bytes between leave as a copy or as a range. Hints
 * answer the first two for readers at the end; otherwise the sparse index gives a place to walk
 * headers from. */
#include <stdlib.h>
#include <string.h>

#include "storage/storage_private.h"

enum { SCAN_BUFFER_SIZE = 4096 };

/* Owner: the read under way. */
typedef struct {
    const pst_log_read_request *request;
    pst_segment *segment; /* referenced */
    int64_t position;
    bool position_known;
    int64_t clip;        /* -1: not known yet */
    bool clip_is_end;    /* the clip is where end_offset begins, not merely before it */
    int64_t size;        /* published bytes of the segment */
    int64_t segment_end; /* first offset after the segment */
    int64_t end_offset;  /* request's, not beyond the log end */
    int64_t log_end;
    int64_t first_batch_size; /* -1: not known */
    bool active;
} locator;

/* ---- index windows: a page of a rolled segment's .index, shared by all logs ---- */

void pst_storage__forget_window(pst_storage *storage, uint64_t segment_id) {
    pthread_mutex_lock(&storage->window_mutex);
    for (int i = 0; i < PST_STORAGE__WINDOWS; i++) {
        if (storage->windows[i].segment_id == segment_id) {
            storage->windows[i].segment_id = 0;
        }
    }
    pthread_mutex_unlock(&storage->window_mutex);
}

/* True and a position when a window covers `relative`. */
static bool window_floor(pst_storage *storage, uint64_t id, uint32_t relative,
                         int64_t *position_out) {
    bool found = false;
    pthread_mutex_lock(&storage->window_mutex);
    for (int i = 0; i < PST_STORAGE__WINDOWS && !found; i++) {
        pst_storage__window *w = &storage->windows[i];
        if (w->segment_id != id) {
            continue;
        }
        bool from_start = w->first == 0;
        bool to_end = w->first + w->count == w->total;
        if (w->count == 0) {
            found = w->total == 0;
            *position_out = 0;
            w->used = true;
            continue;
        }
        if ((relative >= w->entries[0].offset || from_start) &&
            (relative < w->entries[w->count - 1].offset || to_end)) {
            pst_storage__index view = {.entries = w->entries, .count = w->count};
            *position_out = pst_storage__index_floor(&view, relative);
            w->used = true;
            found = true;
        }
    }
    pthread_mutex_unlock(&storage->window_mutex);
    return found;
}

static void window_store(pst_storage *storage, uint64_t id, const pst_storage__index *index,
                         uint32_t first) {
    uint32_t left = index->count - first;
    uint32_t count = left < PST_STORAGE__WINDOW_ENTRIES ? left : PST_STORAGE__WINDOW_ENTRIES;
    pthread_mutex_lock(&storage->window_mutex);
    pst_storage__window *w = NULL;
    for (int looks = 0; looks < 2 * PST_STORAGE__WINDOWS && w == NULL; looks++) {
        pst_storage__window *candidate = &storage->windows[storage->window_hand];
        storage->window_hand = (storage->window_hand + 1) % PST_STORAGE__WINDOWS;
        if (candidate->segment_id == 0 || !candidate->used) {
            w = candidate;
        }
        candidate->used = false;
    }
    if (w != NULL && w->entries == NULL) {
        w->entries = malloc(PST_STORAGE__WINDOW_ENTRIES * sizeof *w->entries);
    }
    if (w != NULL && w->entries != NULL) {
        if (count > 0) {
            memcpy(w->entries, index->entries + first, count * sizeof *w->entries);
        }
        w->segment_id = id;
        w->first = first;
        w->count = count;
        w->total = index->count;
        w->used = true;
    }
    pthread_mutex_unlock(&storage->window_mutex);
}

/* Reads the .index file of a rolled segment (rebuilding it when it is bad) and keeps a window of
 * it. */
static int load_window(pst_log *log, pst_segment *segment, uint32_t relative,
                       int64_t *position_out) {
    int dirfd;
    PST_TRY(pst_storage__open_dir(log, &dirfd));
    pst_segment copy = {.base_offset = segment->base_offset, .size = segment->size};
    int rc = pst_storage__index_load(dirfd, &copy);
    close(dirfd);
    if (rc == -PST_ENOENT || rc == -PST_EMALFORMED || rc == -PST_ELIMIT || rc == -PST_ETRUNC) {
        rc = pst_storage__rebuild_index(log, segment, &copy.index);
    }
    if (rc == 0) {
        *position_out = pst_storage__index_floor(&copy.index, relative);
        uint32_t at = 0;
        while (at < copy.index.count && copy.index.entries[at].offset <= relative) {
            at++;
        }
        uint32_t back = PST_STORAGE__WINDOW_ENTRIES / 8; /* most readers go forward */
        window_store(log->storage, segment->id, &copy.index, at < back ? 0 : at - back);
    }
    pst_storage__index_fini(&copy.index);
    return rc;
}

int pst_storage__position_floor(pst_log *log, pst_segment *segment, int64_t offset, bool may_block,
                                int64_t *position_out) {
    *position_out = 0;
    int64_t relative = offset - segment->base_offset;
    if (relative <= 0) {
        return 0;
    }
    uint32_t capped = relative > INT32_MAX ? INT32_MAX : (uint32_t)relative;
    pst_storage__lock_acquire(&log->index_lock);
    bool active = log->active == segment;
    if (active) {
        *position_out = pst_storage__index_floor(&segment->index, capped);
    }
    pst_storage__lock_release(&log->index_lock);
    if (active || window_floor(log->storage, segment->id, capped, position_out)) {
        return 0;
    }
    return may_block ? load_window(log, segment, capped, position_out) : -PST_EAGAIN;
}

/* ---- damage ---- */

static const pst_storage__damage *damage_at_offset(const pst_log *log, int64_t offset) {
    for (uint32_t i = 0; i < log->damage_count; i++) {
        if (offset >= log->damage[i].from_offset && offset < log->damage[i].to_offset) {
            return &log->damage[i];
        }
    }
    return NULL;
}

/* The damaged run at or after `position` of a segment. */
static const pst_storage__damage *damage_after(const pst_log *log, int64_t base, int64_t position) {
    for (uint32_t i = 0; i < log->damage_count; i++) {
        if (log->damage[i].segment_base == base && log->damage[i].end > position) {
            return &log->damage[i];
        }
    }
    return NULL;
}

/* ---- locating, index lock held ---- */

static void locate_active(pst_log *log, locator *at) {
    int64_t wanted = at->request->fetch_offset;
    for (int i = 0; i < PST_STORAGE__HINTS; i++) {
        if (log->hints[i].offset == wanted) {
            at->position = log->hints[i].position;
            at->position_known = true;
        }
        if (log->hints[i].offset == at->end_offset && at->clip < 0) {
            at->clip = log->hints[i].position;
            at->clip_is_end = true;
        }
    }
    if (!at->position_known) {
        at->position = pst_storage__index_floor(&log->active->index,
                                                (uint32_t)(wanted - log->active->base_offset));
    }
    if (at->end_offset == at->log_end) {
        at->clip = at->size;
    }
}

static int locate(pst_log *log, locator *at, int64_t offset) {
    at->clip = -1;
    at->clip_is_end = false;
    at->position = 0;
    at->position_known = false;
    at->first_batch_size = -1;
    pst_segment *segment = pst_storage__segment_for(log, offset);
    if (segment == NULL) {
        return -PST_EOFFSET;
    }
    at->segment = pst_storage__segment_ref(segment);
    at->log_end =
        atomic_load_explicit(&log->log_end, memory_order_relaxed); /* goes with the size */
    at->size = segment->size;
    at->active = segment == log->active;
    at->segment_end = at->active ? at->log_end : segment->end_offset;
    if (at->active) {
        locate_active(log, at);
    } else if (at->end_offset >= at->segment_end) {
        at->clip = at->size;
    }
    return 0;
}

/* ---- answers from memory, index lock held ---- */

/* Finds the batch of the fetch offset inside the ring. Returns false when the ring does not reach
 * it. */
static bool walk_tail(const pst_storage__tail *tail, locator *at) {
    uint8_t header[PST_BATCH_HEADER_SIZE];
    int64_t position = at->position;
    while (position >= tail->start && tail->end - position >= PST_BATCH_HEADER_SIZE) {
        pst_batch batch;
        pst_storage__tail_copy(tail, position, header, sizeof header);
        if (pst_batch_header(pst_slice_of(header, sizeof header), &batch) < 0 ||
            (int64_t)batch.size > tail->end - position) {
            return false;
        }
        if (pst_batch_last_offset(&batch) >= at->request->fetch_offset) {
            at->position = position;
            at->position_known = true;
            at->first_batch_size = (int64_t)batch.size;
            return true;
        }
        position += (int64_t)batch.size;
    }
    return false;
}

/* How much of [position, clip) to give; may say 0 only for max_bytes 0 without min_one_batch. */
static int64_t amount(const locator *at) {
    const pst_log_read_request *r = at->request;
    int64_t have = at->clip - at->position;
    int64_t want = r->max_bytes > 0 ? r->max_bytes : 0;
    if (r->min_one_batch && at->first_batch_size > want) {
        want = at->first_batch_size;
    }
    return have < want ? have : want;
}

static bool read_tail(pst_log *log, locator *at, pst_log_slice *out) {
    pst_storage__tail *tail = log->tail;
    if (!at->active || tail == NULL || at->clip < 0 || log->damage_count > 0 ||
        at->position < tail->start || tail->end != at->size || !walk_tail(tail, at)) {
        return false;
    }
    int64_t n = amount(at);
    if (n > (int64_t)at->request->copy_capacity) {
        return false;
    }
    pst_storage__tail_copy(tail, at->position, at->request->copy_buffer, (size_t)n);
    atomic_store_explicit(&tail->used, true, memory_order_relaxed);
    out->copied = (size_t)n;
    out->first_batch_size = at->first_batch_size;
    return true;
}

/* ---- walking headers in the file ---- */

/* The first batch at or after `from` whose last offset (or base offset, with `by_base`) reaches
 * `offset`. 0 and its position; 1 when the segment ends first (position_out is the end then). */
static int walk_file(pst_log *log, pst_storage__scan *scan, int64_t base, int64_t from,
                     int64_t offset, bool by_base, int64_t *position_out, pst_batch *batch_out) {
    int64_t position = from;
    for (;;) {
        const pst_storage__damage *damage =
            log->damage_count > 0 ? damage_after(log, base, position) : NULL;
        if (damage != NULL && position >= damage->position) {
            position = damage->end;
            continue;
        }
        int rc = pst_storage__scan_header(scan, position, batch_out);
        *position_out = position;
        if (rc != 0) {
            return rc;
        }
        int64_t reach = by_base ? batch_out->base_offset : pst_batch_last_offset(batch_out);
        if (reach >= offset) {
            return 0;
        }
        position += (int64_t)batch_out->size;
    }
}

static int find_position(pst_log *log, locator *at, pst_storage__scan *scan) {
    if (at->position_known) {
        return 0;
    }
    int64_t offset = at->request->fetch_offset;
    int64_t from = at->position;
    if (!at->active) {
        PST_TRY(
            pst_storage__position_floor(log, at->segment, offset, at->request->may_block, &from));
    }
    pst_batch batch;
    int64_t base = at->segment->base_offset;
    int rc = walk_file(log, scan, base, from, offset, false, &at->position, &batch);
    if (from > 0 &&
        (rc == -PST_ECORRUPT || (rc == 0 && at->position == from && batch.base_offset > offset))) {
        if (!at->request->may_block) {
            return -PST_EAGAIN; /* the index lied: a long walk is not for a reactor */
        }
        rc = walk_file(log, scan, base, 0, offset, false, &at->position, &batch);
    }
    if (rc == 0) {
        at->position_known = true;
        at->first_batch_size = (int64_t)batch.size;
    }
    return rc;
}

/* Needed only when the answer might reach end_offset. */
static int find_clip(pst_log *log, locator *at, pst_storage__scan *scan) {
    if (at->clip >= 0) {
        return 0;
    }
    int64_t from = 0;
    PST_TRY(pst_storage__position_floor(log, at->segment, at->end_offset - 1,
                                        at->request->may_block, &from));
    from = from < at->position ? at->position : from;
    int64_t want = at->request->max_bytes;
    want = at->request->min_one_batch && at->first_batch_size > want ? at->first_batch_size : want;
    if (want <= from - at->position) {
        at->clip = from;
        return 0;
    }
    pst_batch batch;
    int rc = walk_file(log, scan, at->segment->base_offset, from, at->end_offset, true, &at->clip,
                       &batch);
    at->clip_is_end = rc > 0 || (rc == 0 && batch.base_offset == at->end_offset);
    return rc > 0 ? 0 : rc;
}

/* The first batch's size matters only when max_bytes cuts the answer. */
static int find_first_size(locator *at, pst_storage__scan *scan) {
    if (at->first_batch_size >= 0 || !at->request->min_one_batch ||
        at->clip - at->position <= at->request->max_bytes) {
        return 0;
    }
    pst_batch batch;
    int rc = pst_storage__scan_header(scan, at->position, &batch);
    if (rc == 0) {
        at->first_batch_size = (int64_t)batch.size;
    }
    return rc;
}

/* The bytes that the walk has read already. */
static int64_t copy_walked(const locator *at, const pst_storage__scan *scan, int64_t n) {
    int64_t have = scan->buffer_pos + (int64_t)scan->buffer_size - at->position;
    if (at->position < scan->buffer_pos || have <= 0) {
        return 0;
    }
    n = n < have ? n : have;
    memcpy(at->request->copy_buffer, scan->buffer + (at->position - scan->buffer_pos), (size_t)n);
    return n;
}

static int deliver(pst_log *log, locator *at, pst_file *file, const pst_storage__scan *scan,
                   pst_log_slice *out) {
    if (log->damage_count > 0) {
        const pst_storage__damage *damage =
            damage_after(log, at->segment->base_offset, at->position);
        if (damage != NULL && damage->position < at->clip) {
            at->clip = damage->position;
            at->clip_is_end = false;
        }
    }
    int64_t n = amount(at);
    out->first_batch_size = at->first_batch_size;
    if (n <= 0) {
        return 0;
    }
    if (n > (int64_t)at->request->copy_capacity) {
        out->range = (pst_file_range){pst_file_ref(file), at->position, n};
        return 0;
    }
    int64_t done = copy_walked(at, scan, n);
    while (done < n) {
        int64_t got =
            pst_storage__read_now(file->fd, at->request->copy_buffer + done, (size_t)(n - done),
                                  at->position + done, at->request->may_block);
        if (got <= 0) {
            return got == 0 ? -PST_ECORRUPT : (int)got;
        }
        done += got;
    }
    out->copied = (size_t)n;
    return 0;
}

/* The next fetch of this reader begins where this answer ended, if it ended at a known boundary. */
static void remember(pst_log *log, const locator *at, const pst_log_slice *out) {
    int64_t given = (int64_t)out->copied + out->range.size;
    if (!at->active || !at->clip_is_end || given == 0 || at->position + given != at->clip ||
        at->end_offset == at->log_end) {
        return;
    }
    pst_storage__lock_acquire(&log->index_lock);
    if (log->active == at->segment) {
        log->hints[PST_STORAGE__APPEND_HINTS + log->read_hint] =
            (pst_storage__hint){at->end_offset, at->clip};
        log->read_hint = (uint8_t)((log->read_hint + 1) % PST_STORAGE__READ_HINTS);
    }
    pst_storage__lock_release(&log->index_lock);
}

/* 1: the segment ends before the offset (a gap): go on with the next one. */
static int read_file(pst_log *log, locator *at, pst_log_slice *out) {
    uint8_t buffer[SCAN_BUFFER_SIZE];
    pst_file *file;
    int rc =
        pst_storage__segment_file(log, at->segment, at->active || at->request->may_block, &file);
    if (rc < 0) {
        return rc;
    }
    pst_storage__scan scan = {
        .fd = file->fd,
        .may_block = at->request->may_block,
        .size = at->size,
        .buffer = buffer,
        .capacity = sizeof buffer,
    };
    if (at->request->may_block) {
        atomic_fetch_add_explicit(&log->storage->cold_reads, 1, memory_order_relaxed);
    }
    rc = find_position(log, at, &scan);
    if (rc == 0) {
        rc = find_clip(log, at, &scan);
    }
    if (rc == 0) {
        rc = find_first_size(at, &scan);
    }
    if (rc == 0) {
        rc = deliver(log, at, file, &scan, out);
    }
    if (rc == 0) {
        remember(log, at, out);
    }
    (void)pst_file_unref(file);
    return rc;
}

static bool near_end(const locator *at) {
    return at->active && at->size - at->position <= PST_STORAGE__TAIL_SIZE;
}

/* A failed read means the disk fails; a file that retention took away means the offset is gone. */
static int judge(pst_log *log, const locator *at, int rc) {
    if (rc == -PST_ENOENT || rc == -PST_EIO) {
        PST_TRY(pst_storage__usable(log));
        if (at->request->fetch_offset < atomic_load(&log->log_start) ||
            atomic_load(&at->segment->deleted)) {
            return -PST_EOFFSET;
        }
        return pst_storage__fail(log, "read", rc);
    }
    return rc;
}

static int read_from(pst_log *log, locator *at, int64_t offset, pst_log_slice *out,
                     bool *warm_out) {
    pst_storage__lock_acquire(&log->index_lock);
    int rc = locate(log, at, offset);
    bool done = rc == 0 && read_tail(log, at, out);
    bool has_tail = log->tail != NULL;
    pst_storage__lock_release(&log->index_lock);
    if (rc < 0) {
        return rc;
    }
    rc = done ? 0 : judge(log, at, read_file(log, at, out));
    *warm_out = rc == 0 && !has_tail && near_end(at);
    return rc;
}

int pst_log_read(pst_log *log, const pst_log_read_request *request, pst_log_slice *slice_out) {
    memset(slice_out, 0, sizeof *slice_out);
    slice_out->first_batch_size = -1;
    PST_TRY(pst_storage__usable(log));
    pst_log_offsets offsets;
    pst_log_get_offsets(log, &offsets);
    if (request->fetch_offset < offsets.log_start || request->fetch_offset > offsets.log_end) {
        return -PST_EOFFSET;
    }
    bool warm = false;
    int rc = 0;
    int64_t end = request->end_offset < offsets.log_end ? request->end_offset : offsets.log_end;
    if (request->fetch_offset >= end) {
        pst_storage__lock_acquire(&log->index_lock);
        warm = log->tail == NULL && log->active != NULL;
        pst_storage__lock_release(&log->index_lock);
    } else if (log->damage_count > 0 && damage_at_offset(log, request->fetch_offset) != NULL) {
        return -PST_ECORRUPT;
    } else {
        int64_t offset = request->fetch_offset;
        locator at;
        do {
            at = (locator){.request = request, .end_offset = end};
            rc = read_from(log, &at, offset, slice_out, &warm);
            offset = at.segment_end;
            pst_storage__segment_unref(log->storage, at.segment);
        } while (rc == 1 && offset < end);
        rc = rc == 1 ? 0 : rc;
    }
    if (warm) {
        pst_storage__tail_attach(log);
    }
    return rc;
}

/* ---- estimates ---- */

static int64_t estimate(pst_log *log, const pst_segment *segment, int64_t offset) {
    if (offset >= segment->end_offset) {
        return segment->size;
    }
    if (segment != log->active) {
        int64_t span = segment->end_offset - segment->base_offset;
        double share = (double)(offset - segment->base_offset) / (double)(span > 0 ? span : 1);
        return (int64_t)(share * (double)segment->size);
    }
    for (int i = 0; i < PST_STORAGE__HINTS; i++) {
        if (log->hints[i].offset == offset) {
            return log->hints[i].position;
        }
    }
    return pst_storage__index_floor(&segment->index, (uint32_t)(offset - segment->base_offset));
}

static int64_t part(pst_log *log, const pst_segment *segment, int64_t from, int64_t to) {
    if (to <= segment->base_offset || from >= segment->end_offset) {
        return 0;
    }
    int64_t low = from <= segment->base_offset ? 0 : estimate(log, segment, from);
    return estimate(log, segment, to) - low;
}

int64_t pst_log_size_between(pst_log *log, int64_t from_offset, int64_t to_offset) {
    int64_t size = 0;
    if (to_offset <= from_offset) {
        return 0;
    }
    pst_storage__lock_acquire(&log->index_lock);
    if (log->active != NULL) {
        size += part(log, log->active, from_offset, to_offset);
    }
    for (uint32_t i = log->rolled_count; i > 0 && log->rolled[i - 1]->end_offset > from_offset;
         i--) {
        size += part(log, log->rolled[i - 1], from_offset, to_offset);
    }
    pst_storage__lock_release(&log->index_lock);
    return size;
}
