/* storage/log.h - one partition's log on one disk: segments, indexes, leader epochs, producer
 * state. Owner: whoever holds the log's append lock (inside pst_log); readers never take it.
 *
 * Lock order: append lock -> index lock (segment list and sparse indexes; leaf) -> tail lock
 * (leaf). The append lock is never held across fsync, open, fallocate, roll or decompression.
 *
 * Invariants (tests cite them as "log.h (n)"):
 * (1) no offset is assigned ahead of its bytes: the end is published (release) after pwritev
 * returned; (2) after -PST_EIO the directory is offline and the log refuses appends and reads; (3)
 * after -PST_ENOSPC the partial bytes are cut back under the append lock and reads go on; (4) a
 * file's size is its valid length (preallocation keeps the size); (5) producer state changes only
 * together with the append that caused it; (6) log start <= last stable <= high watermark <= log
 * end, always readable as one consistent set. */
#ifndef PST_STORAGE_LOG_H
#define PST_STORAGE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/file.h"
#include "base/slice.h"
#include "storage/storage.h"
#include "wire/batch.h"

/* The part of a topic's configuration that the log obeys. Plain values, -1 where Kafka says
 * unlimited. */
typedef struct {
    int64_t segment_bytes;
    int64_t segment_ms;
    int64_t segment_jitter_ms;
    int64_t segment_index_bytes;
    int64_t index_interval_bytes;
    int64_t retention_ms;
    int64_t retention_bytes;
    int64_t file_delete_delay_ms;
    int64_t max_message_bytes;
    int64_t timestamp_before_max_ms;
    int64_t timestamp_after_max_ms;
    int32_t timestamp_type;   /* 0 CreateTime, 1 LogAppendTime */
    int32_t compression_type; /* -1 producer, 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd */
    int32_t compression_level;
    int32_t cleanup_policy; /* bit 0 delete, bit 1 compact */
    int32_t min_insync_replicas;
    int32_t preallocate;
    int32_t durability; /* 0 os; 1 fsync (a later issue) */
} pst_log_config;

typedef struct {
    pst_storage *storage;
    int dir_index;
    pst_slice topic; /* name; copied */
    int32_t partition;
    pst_uuid topic_id;
    int32_t leader_epoch;         /* current epoch of the (only) leader */
    const pst_log_config *config; /* borrowed until pst_log_set_config gives another or the log
                                     closes: one block per topic, not per partition */
} pst_log_spec;

/* Opens the log, recovering it if its directory exists; creates nothing on disk until the first
 * append. Blocks: I/O thread or start-up only. Recovery: newest valid .snapshot, then every batch
 * after it; validates each last segment in full when the last stop was not clean, cuts a torn tail,
 * rebuilds missing or wrong indexes. */
int pst_log_open(const pst_log_spec *spec, pst_log **log_out);

/* Flushes, writes the producer snapshot and indexes, closes files. Blocks. Ranges held by responses
 * stay valid. */
int pst_log_close(pst_log *log);

/* Renames the directory to `<name>.<uuid>-delete`, marks the log closed, and removes the files
 * after file.delete.delay.ms or at close, on an I/O thread. Blocks shortly. The object is still
 * freed by pst_log_close. */
int pst_log_delete(pst_log *log);

void pst_log_set_config(pst_log *log, const pst_log_config *config);

/* ---- append ---- */

typedef struct {
    uint8_t *data; /* one batch; base offset and leader epoch are patched in place */
    size_t size;
    pst_batch view;          /* parsed and validated by the caller (wire/batch.h) */
    bool from_control_plane; /* internal append: control batches and any producer are allowed */
    /* results */
    int rc; /* 0, -PST_EDUPLICATE (base_offset is the original one), -PST_ESEQUENCE,
               -PST_EPRODUCEREPOCH, -PST_ENOSPC, -PST_EIO ... */
    int64_t base_offset;
    int64_t log_append_time_ms; /* -1 unless LogAppendTime */
} pst_append;

/* Appends `count` batches in order with one pwritev, each with its own result. Returns
 * 0: every `rc` is set, the accepted ones are published (log end moved; high watermark is the
 * caller's); -PST_EAGAIN: nothing was done: the log needs pst_log_prepare first (first open, roll);
 * -PST_ECLOSED / -PST_EOFFLINE / -PST_ENOTREADY: nothing was done.
 * `now_ms` is wall time. Called on reactors and on I/O threads; takes the append lock once. */
int pst_log_append(pst_log *log, pst_append *appends, int count, int64_t now_ms);

/* Makes the next pst_log_append of up to `size` bytes possible: creates directory, files, rolls the
 * segment (indexes and producer snapshot saved), preallocates ahead. Blocks: I/O threads only. One
 * caller at a time per log (the offload queue of the partition sees to it). */
int pst_log_prepare(pst_log *log, size_t size, int64_t now_ms);

/* ---- offsets ---- */

typedef struct {
    int64_t log_start;
    int64_t last_stable;
    int64_t high_watermark;
    int64_t log_end;
} pst_log_offsets;

/* One consistent set, without the lock (sequence counter). */
void pst_log_get_offsets(const pst_log *log, pst_log_offsets *offsets_out);
/* Moves the high watermark (and with it the last stable offset) forward, never past the log end. */
void pst_log_advance_high_watermark(pst_log *log, int64_t offset);
/* DeleteRecords: new log start; -PST_EOFFSET beyond the high watermark. Segments wholly below are
 * deleted later. */
int pst_log_delete_records(pst_log *log, int64_t offset, int64_t *log_start_out);

int32_t pst_log_leader_epoch(const pst_log *log);
/* OffsetForLeaderEpoch: the largest epoch <= `epoch` and its end offset; epoch_out -1 and offset -1
 * if unknown. */
int pst_log_end_offset_for_epoch(pst_log *log, int32_t epoch, int32_t *epoch_out,
                                 int64_t *end_offset_out);
/* The epoch of the batch at `offset` as the epoch cache knows it, -1 if none. */
int32_t pst_log_epoch_at(pst_log *log, int64_t offset);

/* First record with timestamp >= `timestamp` at an offset >= log start. Blocks (may scan): I/O
 * threads. *offset_out = -1 if there is none. For a compressed batch the codec is used to find the
 * exact record. */
int pst_log_offset_for_timestamp(pst_log *log, int64_t timestamp, int64_t *offset_out,
                                 int64_t *timestamp_out);
/* Offset and timestamp of the record with the largest timestamp (first of equals), -1/-1 if empty.
 * Blocks. */
int pst_log_max_timestamp(pst_log *log, int64_t *offset_out, int64_t *timestamp_out);

/* ---- read ---- */

typedef struct {
    uint8_t *copy_buffer; /* where small answers may be copied to */
    size_t copy_capacity; /* bytes; answers up to this size are copied when they can be without
                             blocking */
    int64_t fetch_offset; /* first offset wanted; the batch that holds it is returned whole */
    int64_t
        end_offset; /* exclusive: high watermark or last stable offset, read once by the caller */
    int64_t max_bytes; /* upper bound; the last batch may be cut (clients expect that) */
    bool
        min_one_batch; /* if the first batch is larger than max_bytes, give it whole all the same */
    bool may_block;    /* true on I/O threads: absent pages are read; false: -PST_EAGAIN instead */
} pst_log_read_request;

typedef struct {
    size_t copied;            /* bytes put into copy_buffer; then `range.file` is NULL */
    pst_file_range range;     /* else an owned reference to a range of one segment file (drop with
                                 pst_file_unref) */
    int64_t first_batch_size; /* bytes of the first batch, when known, else -1 */
} pst_log_slice;

/* Finds the bytes for a fetch, from the tail in memory, the page cache or the disk. Returns 0 (both
 * empty: nothing between the offsets), -PST_EOFFSET (below log start or beyond log end),
 * -PST_EAGAIN (would block), -PST_EIO, -PST_EOFFLINE, -PST_ECLOSED, -PST_ECORRUPT. Never crosses a
 * segment. Any thread. */
int pst_log_read(pst_log *log, const pst_log_read_request *request, pst_log_slice *slice_out);

/* Bytes between two offsets as the index estimates them (for min_bytes of a delayed fetch); exact
 * at the tail. */
int64_t pst_log_size_between(pst_log *log, int64_t from_offset, int64_t to_offset);

/* ---- background work (I/O threads or control thread) ---- */

/* Retention by time, size and log start; returns the number of segments deleted or negative. */
int pst_log_apply_retention(pst_log *log, int64_t now_ms);
/* Flushes everything and moves the recovery point. */
int pst_log_flush(pst_log *log);
int64_t pst_log_size(pst_log *log);

#endif
