/* storage/storage_private.h - what the files of this room share.
 *
 * Lock order (first taken first):
 *   log maintenance -> log append -> storage mutex -> tail pool mutex -> file cache mutex
 *   -> log index lock -> a segment's file slot (spin) ; index window mutex is a leaf.
 * A log's append lock is never held across fsync, open of a new file, fallocate, roll or
 * decompression. */
#ifndef PST_STORAGE_STORAGE_PRIVATE_H
#define PST_STORAGE_STORAGE_PRIVATE_H

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/assert.h"
#include "base/byte_buffer.h"
#include "base/error.h"
#include "base/file.h"
#include "base/iopool.h"
#include "base/list.h"
#include "storage/lock.h"
#include "storage/log.h"
#include "storage/storage.h"
#include "wire/batch.h"

enum {
    PST_STORAGE__PATH_MAX = 400, /* "<topic-N>/<file>", relative to a log directory */
    PST_STORAGE__FILE_NAME_MAX = 64,
    PST_STORAGE__TAIL_SIZE = 64 * 1024, /* bytes of one ring */
    PST_STORAGE__WINDOW_ENTRIES = 1024,
    PST_STORAGE__WINDOWS = 64,
    PST_STORAGE__PRODUCER_BATCHES = 5, /* Kafka's ProducerStateEntry.NUM_BATCHES_TO_RETAIN */
    PST_STORAGE__APPEND_HINTS = 4,
    PST_STORAGE__READ_HINTS = 2,
    PST_STORAGE__HINTS = PST_STORAGE__APPEND_HINTS + PST_STORAGE__READ_HINTS,
    PST_STORAGE__DIRS_MAX = 16,
};

/* ---- io.c: system calls that finish what they began ---- */

/* Reads exactly `size` bytes; -PST_ETRUNC at the end of the file. */
int pst_storage__read_full(int fd, void *data, size_t size, int64_t pos);
/* One read without waiting for a disk. Returns bytes (0 at the end), or -PST_EAGAIN, -PST_EIO. */
int64_t pst_storage__read_now(int fd, void *data, size_t size, int64_t pos, bool may_block);
int pst_storage__write_full(int fd, const void *data, size_t size, int64_t pos);
/* Writes every byte; changes `iov`. -PST_ENOSPC, -PST_EIO ... */
int pst_storage__pwritev_full(int fd, struct iovec *iov, int count, int64_t pos);
/* Write aside, fsync when `sync`, rename, fsync the directory when `sync`. */
int pst_storage__replace_file(int dirfd, const char *name, pst_slice bytes, bool sync);
/* Creates or truncates and writes in place: for directories that did not exist before, and for
 * hints. */
int pst_storage__write_file(int dirfd, const char *name, pst_slice bytes, bool sync);
/* Whole file into `out` (its limit holds). -PST_ENOENT, -PST_ELIMIT, -PST_EIO. */
int pst_storage__read_file(int dirfd, const char *name, pst_byte_buffer *out);
/* One line on stderr: "penstock: ...". */
__attribute__((format(printf, 1, 2))) void pst_storage__report(const char *format, ...);

/* ---- segments ---- */

typedef struct {
    uint32_t
        offset; /* relative to the segment's base: the last offset of the batch at `position` */
    uint32_t position;
} pst_storage__index_entry;

typedef struct __attribute__((packed)) {
    int64_t timestamp; /* largest so far */
    uint32_t offset;   /* relative: last offset of the batch that has it */
} pst_storage__time_entry;

/* Sparse index of one segment, in memory. Owner: the segment's (see there). */
typedef struct {
    pst_storage__index_entry *entries;
    pst_storage__time_entry *times;
    uint32_t count;
    uint32_t capacity;
    uint32_t time_count;
    uint32_t time_capacity;
} pst_storage__index;

/* Owner: counted. Fields marked (i) change under the log's index lock, (a) under its append lock;
 * everything else is constant. A rolled segment changes no more. */
typedef struct pst_segment {
    atomic_int refs;
    uint32_t since_index; /* (a) bytes since the last index entry */
    uint64_t id;          /* unique in the storage, for the index windows */
    int64_t base_offset;
    int64_t size;            /* (i) published bytes */
    int64_t end_offset;      /* (i) of a rolled segment: base of the next; of the active: log end */
    int64_t first_timestamp; /* (a) max timestamp of the first batch, -1 */
    int64_t max_timestamp;   /* (i) -1: none or not known yet */
    int64_t max_timestamp_offset;          /* (i) last offset of the batch that has it */
    int64_t created_ms;                    /* wall clock */
    atomic_llong allocated;                /* bytes reserved on disk by fallocate */
    pst_storage__index index;              /* (i) empty for rolled segments whose index is saved */
    PST_SHARED atomic_uintptr_t file_slot; /* pst_file *, bit 0 is a spin lock */
    PST_SHARED atomic_bool file_used;      /* second chance for the cache */
    atomic_bool deleted;
    pst_list cache_link; /* file cache mutex */
    pst_job job; /* background work: of whoever set the first bit of `work`, until it is 0 */
    struct pst_log *job_log;
    PST_SHARED atomic_uint work; /* PST_STORAGE__WORK_*: wanted, or under way */
} pst_segment;

enum {
    PST_STORAGE__WORK_RUNS = 1,
    PST_STORAGE__WORK_FLUSH = 2,
    PST_STORAGE__WORK_ALLOCATE = 4, /* up to `allocated` */
    PST_STORAGE__WORK_INDEX = 8,    /* room for more index entries */
};

pst_segment *pst_storage__segment_create(pst_storage *storage, int64_t base_offset);
pst_segment *pst_storage__segment_ref(pst_segment *segment);
void pst_storage__segment_unref(pst_storage *storage, pst_segment *segment);

/* "<offset20><suffix>" */
void pst_storage__file_name(char out[PST_STORAGE__FILE_NAME_MAX], int64_t offset,
                            const char *suffix);
/* Parses "<offset20><suffix>"; false when it is something else. */
bool pst_storage__parse_name(const char *name, const char *suffix, int64_t *offset_out);

/* ---- index.c ---- */
void pst_storage__index_fini(pst_storage__index *index);
/* Growth failures are ignored: an index is a hint. */
void pst_storage__index_add(pst_storage__index *index, uint32_t offset, uint32_t position);
void pst_storage__time_add(pst_storage__index *index, int64_t timestamp, uint32_t offset);
/* Kafka's rule for one batch: an entry when more than `interval` bytes lie behind the last one.
 * Also moves the largest timestamp and `since_index`. */
void pst_storage__segment_index_batch(pst_segment *segment, const pst_batch *batch,
                                      int64_t position, int64_t interval);
/* Little room is left: time for pst_storage__index_grow, so that no append has to allocate. */
bool pst_storage__index_is_short(const pst_storage__index *index);
/* An index with twice the room of one with these capacities; entries are copied by
 * pst_storage__index_move. False when memory is refused. */
bool pst_storage__index_larger(uint32_t capacity, uint32_t time_capacity,
                               pst_storage__index *index_out);
/* Copies the entries of `index` into the room of `larger`, if they fit, and swaps the two rooms. */
void pst_storage__index_move(pst_storage__index *index, pst_storage__index *larger);
/* Position of the last entry with offset <= `relative`, or 0. */
int64_t pst_storage__index_floor(const pst_storage__index *index, uint32_t relative);
/* Relative offset of the last time entry with timestamp <= `timestamp`, or 0. */
uint32_t pst_storage__time_floor(const pst_storage__index *index, int64_t timestamp);
void pst_storage__index_encode(const pst_storage__index *index, pst_byte_buffer *offsets,
                               pst_byte_buffer *times);
/* Both decoders check order and bounds; -PST_EMALFORMED when the bytes cannot be an index of the
 * segment. */
int pst_storage__index_decode(pst_slice offsets, pst_slice times, int64_t segment_size,
                              pst_storage__index *index_out);
int pst_storage__index_save(int dirfd, const pst_segment *segment, bool sync);
int pst_storage__index_load(int dirfd, pst_segment *segment);

/* ---- file_cache.c ---- */

typedef struct {
    pthread_mutex_t mutex;
    pst_list ring; /* segments with an open file, clock order */
    int count;
    int capacity;
    atomic_llong opens;
} pst_storage__file_cache;

void pst_storage__file_cache_init(pst_storage__file_cache *cache, int capacity);
void pst_storage__file_cache_fini(pst_storage__file_cache *cache);
/* The segment's file if it is open, with a reference; else NULL. */
pst_file *pst_storage__file_get(pst_segment *segment);
/* Takes `file` (one reference stays with the cache); evicts others beyond the capacity. */
void pst_storage__file_put(pst_storage__file_cache *cache, pst_segment *segment, pst_file *file);
int pst_storage__file_drop(pst_storage__file_cache *cache, pst_segment *segment);

/* ---- tail.c ---- */

/* The last bytes of one active segment. Owner: the pool until attached, then the log's index lock.
 */
typedef struct pst_storage__tail {
    pst_log *log; /* pool mutex; NULL: free */
    PST_SHARED atomic_bool used;
    int64_t start; /* file positions held: [start, end) */
    int64_t end;
    uint8_t *data; /* ring: position & (size - 1) */
} pst_storage__tail;

typedef struct {
    pthread_mutex_t mutex;
    pst_storage__tail *tails;
    int count;
    int capacity;
    int hand;
    atomic_llong bytes;
} pst_storage__tail_pool;

int pst_storage__tail_pool_init(pst_storage__tail_pool *pool, int64_t size);
void pst_storage__tail_pool_fini(pst_storage__tail_pool *pool);
/* Gives the log a ring if one is to be had. Takes pool mutex, then the index lock. */
void pst_storage__tail_attach(pst_log *log);
void pst_storage__tail_detach(pst_log *log);
/* The three below: index lock held. */
void pst_storage__tail_append(pst_storage__tail *tail, const uint8_t *data, size_t size);
void pst_storage__tail_reset(pst_storage__tail *tail, int64_t position);
void pst_storage__tail_copy(const pst_storage__tail *tail, int64_t position, void *out,
                            size_t size);

/* ---- epochs.c: owner: the log's index lock ---- */

typedef struct {
    int64_t start_offset;
    int32_t epoch;
} pst_storage__epoch;

typedef struct {
    pst_storage__epoch *entries; /* NULL while `first` is enough */
    pst_storage__epoch first;
    int32_t count;
    int32_t capacity;
} pst_storage__epochs;

void pst_storage__epochs_fini(pst_storage__epochs *epochs);
const pst_storage__epoch *pst_storage__epochs_at(const pst_storage__epochs *epochs, int32_t i);
/* Room for one more entry, so that an append cannot fail after its write. */
int pst_storage__epochs_reserve(pst_storage__epochs *epochs);
/* Returns 1 when something changed, 0 when not, -PST_ENOMEM. Entries that contradict are removed.
 */
int pst_storage__epochs_assign(pst_storage__epochs *epochs, int32_t epoch, int64_t start_offset);
int32_t pst_storage__epochs_latest(const pst_storage__epochs *epochs);
void pst_storage__epochs_end_offset(const pst_storage__epochs *epochs, int32_t epoch,
                                    int64_t log_end, int32_t *epoch_out, int64_t *end_out);
int32_t pst_storage__epochs_for_offset(const pst_storage__epochs *epochs, int64_t offset);
bool pst_storage__epochs_truncate_start(pst_storage__epochs *epochs, int64_t log_start);
bool pst_storage__epochs_truncate_end(pst_storage__epochs *epochs, int64_t log_end);
int pst_storage__epochs_encode(const pst_storage__epochs *epochs, pst_byte_buffer *out);
int pst_storage__epochs_decode(pst_slice text, pst_storage__epochs *epochs);

/* ---- producer_state.c: owner: the log's append lock ---- */

typedef struct {
    int64_t last_offset;
    int64_t timestamp;
    int32_t last_sequence;
    int32_t offset_delta;
} pst_storage__producer_batch;

typedef struct pst_storage__producer {
    pst_list lru;
    int64_t producer_id;
    int64_t last_timestamp;
    int64_t txn_first_offset; /* -1: none */
    int32_t coordinator_epoch;
    int32_t pending; /* last accepted append of the array under way, -1 */
    int16_t epoch;   /* -1: nothing known yet */
    uint8_t batch_count;
    pst_storage__producer_batch batches[PST_STORAGE__PRODUCER_BATCHES]; /* oldest first */
} pst_storage__producer;

typedef struct {
    pst_storage__producer **slots; /* open addressing, linear probing, power of two */
    uint32_t capacity;
    uint32_t count;
    pst_list lru; /* least recently appending first */
} pst_storage__producers;

int pst_storage__producers_create(pst_storage__producers **out);
void pst_storage__producers_destroy(pst_storage *storage, pst_storage__producers *producers);
pst_storage__producer *pst_storage__producer_find(const pst_storage__producers *producers,
                                                  int64_t id);
/* Finds or adds; may evict this log's least recent one when the storage is at its maximum. NULL: no
 * memory. */
pst_storage__producer *pst_storage__producer_get(pst_storage *storage,
                                                 pst_storage__producers *producers, int64_t id);
/* The check of append number `i`; earlier accepted ones of the array count. 0, -PST_EDUPLICATE
 * (sets base_offset and log_append_time_ms), -PST_ESEQUENCE, -PST_EPRODUCEREPOCH. Changes nothing.
 */
int pst_storage__producer_check(const pst_storage__producer *producer, pst_append *appends, int i);
/* Records a batch that is in the log (offsets final). Also used by replay. */
void pst_storage__producer_update(pst_storage__producers *producers,
                                  pst_storage__producer *producer, const pst_batch *batch,
                                  const pst_slice *control_record);
void pst_storage__producers_expire(pst_storage *storage, pst_storage__producers *producers,
                                   int64_t now_ms);

/* ---- producer_snapshot.c ---- */
int pst_storage__snapshot_encode(const pst_storage__producers *producers, pst_byte_buffer *out);
int pst_storage__snapshot_decode(pst_storage *storage, pst_slice bytes,
                                 pst_storage__producers *producers);

/* ---- checkpoint.c: text files ---- */
typedef int (*pst_storage__offset_visitor)(void *context, pst_slice name, int64_t offset);
/* "0\n<count>\n<topic> <partition> <offset>\n"...: calls `visit` with "topic-partition". */
int pst_storage__offsets_decode(pst_slice text, pst_storage__offset_visitor visit, void *context);
int pst_storage__metadata_encode(const pst_uuid *topic_id, pst_byte_buffer *out);
int pst_storage__metadata_decode(pst_slice text, pst_uuid *topic_id_out);
void pst_storage__uuid_text(const pst_uuid *id, char out[23]);
int pst_storage__uuid_parse(pst_slice text, pst_uuid *id_out);

/* ---- scan.c: walking the batches of a segment file ---- */

/* Owner: the function that walks. */
typedef struct {
    int fd;
    bool may_block;
    int64_t size;    /* bytes of the file that count */
    uint8_t *buffer; /* caller's */
    size_t capacity;
    int64_t buffer_pos;
    size_t buffer_size;
} pst_storage__scan;

/* Header at `pos`. 0; 1 at the end; -PST_EAGAIN, -PST_EIO; -PST_ECORRUPT when it cannot be a batch
 * or does not fit the file. */
int pst_storage__scan_header(pst_storage__scan *scan, int64_t pos, pst_batch *batch_out);
/* CRC over the bytes of a batch whose header was just read. 0, -PST_ECRC, -PST_EIO. */
int pst_storage__scan_crc(pst_storage__scan *scan, int64_t pos, const pst_batch *batch);

/* ---- the log ---- */

typedef struct {
    int64_t from_offset; /* offsets [from, to) are damaged */
    int64_t to_offset;
    int64_t segment_base;
    int64_t position; /* bytes [position, end) of that segment */
    int64_t end;
} pst_storage__damage;

typedef struct {
    int64_t offset;
    int64_t position;
} pst_storage__hint;

enum {
    PST_LOG__CLOSED = 1,
    PST_LOG__CREATED = 2, /* the directory exists */
    PST_LOG__DELETED = 4,
    PST_LOG__ROLLING = 8, /* appends are refused until the roll has ended */
    PST_LOG__FORCE_ROLL =
        16, /* an append asked for it, or the active segment ends in damaged bytes */
    PST_LOG__EPOCHS_DIRTY = 32,
    PST_LOG__HAS_SNAPSHOTS = 64,
};

/* Owner: (a) append lock, (i) index lock, (m) maintenance lock, atomics as noted; the rest is
 * constant. */
struct pst_log {
    pst_storage__lock append_lock;
    pst_storage__lock index_lock;
    pst_storage__lock maintenance;
    atomic_int refs;
    pst_storage *storage;
    PST_SHARED _Atomic(const pst_log_config *) config;
    char *name;    /* "topic-N" */
    pst_list link; /* storage mutex */
    pst_uuid topic_id;
    int32_t partition;
    int32_t leader_epoch;
    int16_t dir_index;
    uint16_t topic_size; /* bytes of `name` that are the topic */
    PST_SHARED atomic_uint flags;
    PST_SHARED atomic_uint sequence; /* odd while the offsets change; writers hold the index lock */
    PST_SHARED atomic_llong log_start;
    PST_SHARED atomic_llong high_watermark;
    PST_SHARED atomic_llong log_end;
    PST_SHARED atomic_llong recovery_point;
    pst_segment *active;  /* (i); NULL until the first prepare */
    pst_segment **rolled; /* (i) ascending */
    uint32_t rolled_count;
    uint32_t rolled_capacity;
    pst_storage__hint hints[PST_STORAGE__HINTS]; /* (i) batch boundaries of the active segment */
    uint8_t append_hint;
    uint8_t read_hint;
    uint16_t damage_count;
    pst_storage__damage *damage;       /* set at open */
    pst_storage__tail *tail;           /* (i) */
    pst_storage__epochs epochs;        /* (i) */
    pst_storage__producers *producers; /* (a) NULL until the first idempotent batch */
};

static inline const pst_log_config *pst_storage__config(const pst_log *log) {
    return atomic_load_explicit(&((pst_log *)(uintptr_t)log)->config, memory_order_acquire);
}

static inline unsigned pst_storage__flags(const pst_log *log) {
    return atomic_load_explicit(&((pst_log *)(uintptr_t)log)->flags, memory_order_acquire);
}

pst_log *pst_storage__log_ref(pst_log *log);
void pst_storage__log_unref(pst_log *log);
void pst_storage__path(const pst_log *log, const char *file, char out[PST_STORAGE__PATH_MAX]);
/* Opens the partition directory; the caller closes. */
int pst_storage__open_dir(const pst_log *log, int *fd_out);
/* The segment's file with a reference, opened when need be. -PST_EAGAIN when it would have to be
 * opened and `may_open` is false; -PST_ENOENT when retention was faster. */
int pst_storage__segment_file(pst_log *log, pst_segment *segment, bool may_open,
                              pst_file **file_out);
/* Takes the log's directory offline after `rc`; returns -PST_EIO. */
int pst_storage__fail(pst_log *log, const char *what, int rc);
/* 0, -PST_ECLOSED or -PST_EOFFLINE. */
int pst_storage__usable(const pst_log *log);
/* Index lock held: brackets of a change of offsets. */
void pst_storage__offsets_begin(pst_log *log);
void pst_storage__offsets_end(pst_log *log);
void pst_storage__hint_append(pst_log *log, int64_t offset, int64_t position);
/* A segment that holds `offset` or is the first after it; index lock held; NULL when there is none.
 */
pst_segment *pst_storage__segment_for(pst_log *log, int64_t offset);
int pst_storage__add_rolled(pst_log *log, pst_segment *segment);
/* All segments, oldest first, each with a reference; the caller unrefs and frees. */
int pst_storage__segments_snapshot(pst_log *log, pst_segment ***segments_out, uint32_t *count_out);
/* Position in a rolled or active segment from which a scan for `offset` must start. */
int pst_storage__position_floor(pst_log *log, pst_segment *segment, int64_t offset, bool may_block,
                                int64_t *position_out);
/* Saves the epochs file if it is dirty. Maintenance lock held. */
int pst_storage__save_epochs(pst_log *log, bool sync);
/* Writes "<offset>.snapshot" of the producers; append lock must keep them still. */
int pst_storage__save_snapshot(pst_log *log, int dirfd, int64_t offset, bool sync);
/* Flushes the segments that hold anything in [recovery point, offset) and moves the recovery point.
 */
int pst_storage__flush_upto(pst_log *log, int64_t offset);
/* Reserves disk space behind the active segment's end; failure only means that writes reserve it.
 */
void pst_storage__allocate(pst_log *log, pst_segment *segment, int fd, int64_t upto);
/* Rolls: maintenance lock held. */
int pst_storage__roll(pst_log *log, int64_t now_ms);
/* Rebuilds the index of a rolled segment from its headers, and saves it. */
int pst_storage__rebuild_index(pst_log *log, pst_segment *segment, pst_storage__index *index_out);
/* Largest timestamp of a rolled segment, from its batch headers unless known. Blocks. */
int pst_storage__segment_max_timestamp(pst_log *log, pst_segment *segment);
/* The same, but the last entry of the time index is believed: where to look, never what to delete.
 */
int pst_storage__hint_max_timestamp(pst_log *log, pst_segment *segment, int64_t *timestamp_out,
                                    int64_t *offset_out);

/* recovery.c */
int pst_storage__recover(pst_log *log, int64_t recovery_point, int64_t log_start, bool clean);

/* recovery_walk.c */

/* One pass over a segment file, which can be resumed. Owner: the function that walks. */
typedef struct {
    pst_log *log;
    pst_segment *segment;
    int fd;
    bool check_crc;
    bool index;          /* feed the segment's sparse index and timestamps */
    bool epochs;         /* note epochs that the cache does not know */
    int64_t offset_max;  /* batches must end below: base of the next segment, else INT64_MAX */
    int64_t position;    /* in/out: where the walk stands; after a failure, the bad batch */
    int64_t next_offset; /* in/out: smallest offset that may follow */
    bool saw_producer;
} pst_storage__walk;

/* 0 at the end of the file; -PST_ECORRUPT at `position`; -PST_EIO, -PST_ENOMEM. */
int pst_storage__walk_segment(pst_storage__walk *walk);
/* The next valid batch after walk->position: 0 and its place, or 1 when there is none. */
int pst_storage__resync(pst_storage__walk *walk, int64_t *position_out, int64_t *offset_out);
/* Producer state of every batch in [from_offset, log end). */
int pst_storage__replay_producers(pst_log *log, int dirfd, int64_t from_offset);

/* ---- the storage ---- */

typedef struct pst_storage__known {
    struct pst_storage__known *next;
    int64_t recovery_point;
    int64_t closed_end; /* log end when the log was closed; durable after a clean close, else -1 */
    int64_t log_start;
    bool exists;
    bool clean; /* its files can be trusted without validation */
    char name[];
} pst_storage__known;

typedef struct {
    char *path;
    int fd;
    int lock_fd;
    bool clean; /* the marker was there at open */
    PST_SHARED atomic_bool offline;
    pst_storage__known **buckets; /* partitions without an open log; storage mutex */
    uint32_t bucket_count;
    uint32_t known_count;
} pst_storage__dir;

typedef struct pst_storage__trash {
    pst_list link;
    int64_t deadline_ms; /* monotonic */
    int dir_index;
    bool is_dir;
    char path[]; /* relative to the log directory */
} pst_storage__trash;

typedef struct {
    uint64_t segment_id; /* 0: free */
    uint32_t first;      /* number of the first entry */
    uint32_t count;
    uint32_t total; /* entries of the whole file */
    bool used;
    pst_storage__index_entry *entries;
} pst_storage__window;

struct pst_storage {
    pst_storage__dir dirs[PST_STORAGE__DIRS_MAX];
    int dir_count;
    pst_iopool *iopool;
    pthread_mutex_t mutex; /* logs, trash, known tables, jobs */
    pthread_cond_t idle;   /* no job under way */
    pst_list logs;
    pst_list trash;
    int jobs;
    bool trash_job;
    pthread_mutex_t checkpoint_mutex;
    pst_storage__file_cache files;
    pst_storage__tail_pool tails;
    pthread_mutex_t window_mutex;
    pst_storage__window windows[PST_STORAGE__WINDOWS];
    int window_hand;
    int64_t producer_id_expiration_ms;
    int32_t producer_ids_max;
    atomic_llong producer_ids;
    atomic_llong log_count;
    atomic_llong rolls;
    atomic_llong cold_reads;
    atomic_ullong next_segment_id;
};

/* Takes what is known of a partition out of the table. */
pst_storage__known *pst_storage__take_known(pst_storage *storage, int dir_index, const char *name);
/* Takes the node. */
void pst_storage__give_known(pst_storage *storage, int dir_index, pst_storage__known *known);
pst_storage__known *pst_storage__known_create(pst_slice name);
void pst_storage__set_offline(pst_storage *storage, int dir_index, const char *what, int rc);
/* Removes `path` (relative to the directory) after `delay_ms`, at the latest when the storage
 * closes. */
void pst_storage__discard(pst_storage *storage, int dir_index, const char *path, bool is_dir,
                          int64_t delay_ms);
/* Submits trash that is due. */
void pst_storage__sweep(pst_storage *storage);
int pst_storage__remove_dir(int dirfd, const char *name);
/* Background jobs on a log; each holds a reference. */
void pst_storage__flush_later(pst_log *log, pst_segment *segment);
void pst_storage__allocate_later(pst_log *log, pst_segment *segment);
void pst_storage__grow_index_later(pst_log *log, pst_segment *segment);
void pst_storage__forget_window(pst_storage *storage, uint64_t segment_id);

#endif
