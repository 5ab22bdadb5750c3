/* penstock.h - the engine as the binding sees it: one opaque handle, plain structs, negative error
 * codes.
 *
 * Threads: create and destroy on one thread. bind, serve, publish and the calls on partitions come
 * from the control thread; pst_engine_stop may come from another thread meanwhile, and may overlap
 * them; respond, redispatch and close_connection come from any. No call takes the GIL or calls
 * back. Functions return 0 (or a count) or -PST_E* of base/error.h; pst_engine_strerror and
 * pst_engine_kafka_error explain. Several engines live in one process. In a forked child every call
 * but pst_engine_abandon returns -PST_ECLOSED. */
#ifndef PENSTOCK_H
#define PENSTOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "broker/group_tables.h"

typedef struct pst_engine pst_engine;
typedef struct pst_engine_frame pst_engine_frame; /* owned bytes of a request */

const char *pst_engine_strerror(int rc);
int16_t pst_engine_kafka_error(int rc);

/* ---- life ---- */

typedef struct {
    const char *name; /* a configuration key: Kafka's or `penstock.*` */
    int64_t value;
} pst_engine_limit;

typedef struct {
    int32_t node_id;
    const char *const *log_dirs; /* absolute paths that exist */
    int32_t log_dir_count;
    int32_t reactors;               /* 0: CPUs in the affinity mask, at most 4 */
    int32_t io_threads;             /* 0: 4 */
    const pst_engine_limit *limits; /* keys that the table does not know are ignored */
    int32_t limit_count;
} pst_engine_settings;

typedef struct {
    const char *host; /* NULL or "": any */
    int32_t port;     /* 0: a free one */
} pst_engine_listener;

/* Locks and reads the log directories. `error_out` (256 bytes or more) receives one sentence on
 * failure. */
int pst_engine_open(const pst_engine_settings *settings, char *error_out, size_t error_size,
                    pst_engine **engine_out);
/* Listening sockets; nothing is accepted yet. Once. */
int pst_engine_bind(pst_engine *engine, const pst_engine_listener *listeners, int32_t count,
                    int32_t *ports_out, char *error_out, size_t error_size);
int pst_engine_serve(pst_engine *engine);
/* Stops accepting, answers what is in progress (the ring is still drained and answered meanwhile),
 * flushes, writes the clean-shutdown marker, unlocks. Not graceful: no waiting, no marker.
 * Idempotent; blocks. */
int pst_engine_stop(pst_engine *engine, bool graceful);
/* Stops ungracefully if need be. Every pst_engine_frame must be released before. NULL allowed. */
void pst_engine_destroy(pst_engine *engine);
/* In a forked child: closes listeners and locks, frees nothing. */
void pst_engine_abandon(pst_engine *engine);

/* ---- requests for the control plane ---- */

typedef struct {
    uint64_t connection; /* the token's halves */
    uint64_t sequence;
    int16_t api_key;
    int16_t api_version;
    int32_t listener;    /* index given to bind */
    bool may_redispatch; /* C can answer this one later, from the frame */
    const uint8_t *data; /* the frame's bytes, header first; valid until its release */
    size_t size;
    pst_engine_frame *frame;
    char peer[64]; /* numeric address */
} pst_engine_request;

/* Readable while requests wait. Valid until destroy. */
int pst_engine_eventfd(const pst_engine *engine);
/* Takes up to `limit` requests, returns how many; their frames belong to the caller. Control thread
 * only. */
int pst_engine_drain(pst_engine *engine, pst_engine_request *requests_out, int limit);
void pst_engine_frame_release(pst_engine_frame *frame); /* any thread; NULL allowed */

/* Header and body without the length, copied. A token whose connection is gone is ignored. */
int pst_engine_respond(pst_engine *engine, uint64_t connection, uint64_t sequence,
                       const uint8_t *data, size_t size);
/* Takes the frame, also on failure. */
int pst_engine_redispatch(pst_engine *engine, uint64_t connection, uint64_t sequence,
                          pst_engine_frame *frame);
int pst_engine_close_connection(pst_engine *engine, uint64_t connection, uint64_t sequence);

/* ---- image ---- */

typedef struct {
    const char *host;
    int32_t port;
    int32_t listener;
} pst_engine_endpoint;

typedef struct {
    const char *cluster_id;
    const char *rack; /* NULL: none */
    const pst_engine_endpoint *endpoints;
    int32_t endpoint_count;
    int32_t node_id;
    int32_t controller_id;
    bool auto_create_topics;
} pst_engine_cluster;

/* A topic's effective configuration, in the words of Kafka's keys; -1 is unlimited. */
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
    int64_t message_timestamp_before_max_ms;
    int64_t message_timestamp_after_max_ms;
    int32_t message_timestamp_type; /* 0 CreateTime, 1 LogAppendTime */
    int32_t compression_type;       /* -1 producer, else the codec's id */
    int32_t compression_gzip_level;
    int32_t compression_lz4_level;
    int32_t compression_zstd_level;
    int32_t cleanup_policy; /* bit 0 delete, bit 1 compact */
    int32_t min_insync_replicas;
    int32_t preallocate;
} pst_engine_topic_config;

typedef struct {
    int32_t index;
    int32_t leader_epoch;
    int32_t log_dir;
} pst_engine_partition;

typedef struct {
    const char *name; /* UTF-8, not terminated */
    size_t name_size;
    uint8_t id[16];
    bool is_internal;
    const pst_engine_partition *partitions; /* dense from 0 */
    int32_t partition_count;
    pst_engine_topic_config config;
} pst_engine_topic;

int pst_engine_publish_cluster(pst_engine *engine, const pst_engine_cluster *cluster);
/* One new image with all of it. `removed` holds `removed_count` ids of 16 bytes. *failed_out:
 * partitions whose log could not be opened. */
int pst_engine_publish_topics(pst_engine *engine, const pst_engine_topic *topics,
                              int32_t topic_count, const uint8_t *removed, int32_t removed_count,
                              int32_t *failed_out);

/* ---- partitions (`topic_id`: 16 bytes) ---- */

typedef struct {
    int64_t log_start;
    int64_t last_stable;
    int64_t high_watermark;
    int64_t log_end;
} pst_engine_offsets;

int pst_engine_append(pst_engine *engine, const uint8_t *topic_id, int32_t partition,
                      const uint8_t *batch, size_t size, int64_t *base_offset_out);
/* Whole batches from the one that holds `offset`: at least one, else at most `size_max` bytes; none
 * at the end. *data_out is malloc'ed, free it with pst_engine_free. */
int pst_engine_read(pst_engine *engine, const uint8_t *topic_id, int32_t partition, int64_t offset,
                    size_t size_max, uint8_t **data_out, size_t *size_out);
void pst_engine_free(void *data);
int pst_engine_get_offsets(pst_engine *engine, const uint8_t *topic_id, int32_t partition,
                           pst_engine_offsets *offsets_out);
/* `offset` -1: up to the high watermark. */
int pst_engine_delete_records(pst_engine *engine, const uint8_t *topic_id, int32_t partition,
                              int64_t offset, int64_t *log_start_out);
int pst_engine_log_size(pst_engine *engine, const uint8_t *topic_id, int32_t partition,
                        int64_t *size_out);

typedef struct {
    int64_t total_bytes;
    int64_t usable_bytes;
    bool online;
} pst_engine_dir_info;
int pst_engine_get_dir_info(pst_engine *engine, int32_t dir, pst_engine_dir_info *info_out);

/* Both are queued to I/O threads and return at once. */
int pst_engine_run_retention(pst_engine *engine);
int pst_engine_checkpoint(pst_engine *engine);

/* ---- tables of the group coordinator: they live as long as the engine ---- */
pst_broker_offsets *pst_engine_offset_table(pst_engine *engine);
pst_broker_members *pst_engine_member_table(pst_engine *engine);

/* ---- numbers ---- */
typedef struct {
    const char *name;
    int64_t value;
} pst_engine_counter;
/* Fills up to `capacity` counters and returns how many there are; 0 once stopped. */
int pst_engine_get_statistics(pst_engine *engine, pst_engine_counter *counters_out, int capacity);

#endif
