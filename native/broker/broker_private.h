/* broker/broker_private.h - what the files of this room share.
 *
 * Objects and owners
 *  pst_broker           the room; created once, its image pointer is the meeting place
 *  pst_shard            one per reactor, owned by that reactor: gathered appends, parked fetches,
 * sessions, pools pst_image            immutable after publication; reached through
 * pst_broker__image() inside a round only pst_topic            immutable after publication; shared
 * by images; counted by images pst_partition        counted: the topic holds one reference, every
 * parked or offloaded operation another
 *
 * Reclaiming: what an image no longer reaches is retired by the control thread and freed when every
 * reactor has passed a loop boundary (pst_reactor_epoch); asleep counts as passed.
 *
 * Waiters (DESIGN 3): a parked fetch sets its reactor's bit in partition->waiters, full fence,
 * reads the ends again. An appender publishes the end, full fence, reads the bits and sends at most
 * one note per reactor and round. */
#ifndef PST_BROKER_BROKER_PRIVATE_H
#define PST_BROKER_BROKER_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/iopool.h"
#include "base/list.h"
#include "broker/broker.h"
#include "wire/reader.h"
#include "wire/writer.h"

enum { PST_BROKER_REACTORS_MAX = 64 };

typedef struct pst_partition pst_partition;
typedef struct pst_topic pst_topic;
typedef struct pst_image pst_image;
typedef struct pst_shard pst_shard;

/* Owner: immutable but for the fields marked PST_SHARED and those under `offload_lock`. */
struct pst_partition {
    atomic_int refs;
    int32_t index;
    int32_t leader_epoch;
    PST_SHARED atomic_bool deleted; /* set once by the control thread before waiters are woken */
    PST_SHARED atomic_bool failed;  /* its log could not be opened: KAFKA_STORAGE_ERROR */
    pst_log *log;
    PST_SHARED _Atomic uint64_t waiters; /* one bit per reactor */
    /* Appends that must leave the reactor, first in first out; while it is not empty every append
     * to this partition queues behind it. Drained by one job at a time. */
    pst_list offloaded; /* of pst_produce_part.link, under broker->offload_lock */
    bool draining;      /* under broker->offload_lock: drain_job is queued or running */
    int32_t leader;     /* node id, -1 = none */
    /* Entries queued or being appended. Incremented before an entry is queued, decremented
     * (release) after its append: whoever reads 0 (acquire) after queueing nothing himself may
     * append directly. */
    PST_SHARED atomic_int offload_count;
    pst_broker *broker;
    pst_job drain_job; /* drains `offloaded`; closes the log when the last reference is gone */
};

/* Owner: immutable after publication. */
struct pst_topic {
    atomic_int refs; /* images that hold it */
    pst_uuid id;
    bool is_internal;
    int32_t partition_count;
    int16_t name_size;
    char *name;
    pst_log_config *
        config; /* one block per topic and configuration; counted with the topic, retired like it */
    pst_partition **partitions;
};

/* ---- image.c ---- */
/* Valid until the end of the current round (reactor) or the control call (control thread). */
const pst_image *pst_broker__image(pst_broker *broker);
pst_topic *pst_image__topic_by_name(const pst_image *image, pst_slice name); /* NULL = unknown */
pst_topic *pst_image__topic_by_id(const pst_image *image, const pst_uuid *id);
int32_t pst_image__topic_count(const pst_image *image);
pst_topic *pst_image__topic_at(const pst_image *image, int32_t index); /* sorted by name */
const pst_cluster_spec *pst_image__cluster(const pst_image *image);
/* NULL if out of range. */
static inline pst_partition *pst_topic__partition(const pst_topic *topic, int32_t index) {
    return index >= 0 && index < topic->partition_count ? topic->partitions[index] : NULL;
}

/* ---- partition.c ---- */
pst_partition *pst_partition__ref(pst_partition *partition);
/* The last one closes the log on the I/O pool and frees. Any thread. */
void pst_partition__unref(pst_partition *partition);
/* One reference, no log yet. NULL when out of memory. */
pst_partition *pst_partition__create(pst_broker *broker, int32_t index, int32_t leader,
                                     int32_t leader_epoch);
/* Kafka's answer to "where does this epoch end": the largest known epoch up to `epoch`, and where
 * the one after it starts; -1, -1 for -1 and for epochs that lie ahead. A leader's own epoch starts
 * with its leadership, so that one is known here before its first record. */
int pst_partition__end_of_epoch(const pst_partition *partition, int32_t epoch, int32_t *epoch_out,
                                int64_t *end_out);
/* Call after an append published a new end: moves the high watermark as the durability mode says
 * and wakes waiters. `round` is the current shard's, or NULL off the reactors. */
void pst_partition__appended(pst_broker *broker, pst_partition *partition, pst_shard *shard);
/* Wakes every reactor with a parked fetch on it (delete, configuration, storage failure). */
void pst_partition__wake(pst_broker *broker, pst_partition *partition, pst_shard *shard);

/* ---- request view: dispatch.c parses the header once ---- */
typedef struct {
    pst_exchange *exchange;
    int16_t api_key;
    int16_t api_version;
    int32_t correlation_id;
    pst_slice client_id; /* empty if null */
    bool flexible;       /* body encoding */
    pst_reader body;     /* at the first byte of the body */
    uint8_t *data;       /* the whole frame, writable */
    size_t size;
    bool redispatched; /* comes back from the control plane: never goes up again */
    pst_frame
        *frame; /* holds the bytes of a request that was held back; else NULL: the round does */
} pst_request;

/* Parses the request header of `data`; 0 or a negative code (the connection is then closed). */
int pst_broker__parse_header(uint8_t *data, size_t size, pst_request *request_out);
/* (reactor) Runs a request that is served on reactors. */
void pst_broker__serve(pst_shard *shard, pst_request *request);

/* Each hot API: (reactor) reads `request->body`, answers through the exchange now or later, or
 * closes the connection for bytes that cannot be parsed. */
void pst_broker__api_versions(pst_shard *shard, pst_request *request);
void pst_broker__metadata(pst_shard *shard, pst_request *request);
void pst_broker__produce(pst_shard *shard, pst_request *request);
void pst_broker__fetch(pst_shard *shard, pst_request *request);
void pst_broker__list_offsets(pst_shard *shard, pst_request *request);
void pst_broker__offset_for_leader_epoch(pst_shard *shard, pst_request *request);
/* Hands the request up; holds the connection when the API table says barrier. Takes
 * `request->frame`. */
void pst_broker__to_control(pst_shard *shard, pst_request *request);
/* (reactor) Serves a request that was held back; takes the frame. */
void pst_broker__serve_frame(pst_shard *shard, pst_exchange *exchange, pst_frame *frame);

/* ---- conn_order.c: a request waits for the appends of its connection that are off the reactor */
/* One more produce request of `conn` (NULL: dead, nothing to do) leaves the reactor; -PST_ENOMEM.
 */
int pst_conn_order__begin(pst_conn *conn);
/* It has been answered; the last one lets the waiting request go. */
void pst_conn_order__end(pst_shard *shard, pst_conn *conn);
/* True: the request is taken and will be served (or its connection closed) later. */
bool pst_conn_order__hold_back(pst_request *request);
void pst_conn_order__closed(pst_conn *conn);

/* Starts a response: writes the response header (correlation id, empty tagged fields when the
 * header is flexible). */
int pst_broker__respond_header(pst_exchange *exchange, int16_t api_key, int16_t api_version,
                               int32_t correlation_id);

/* Makes room in a doubling array for one more element of `size` bytes; -PST_ELIMIT beyond `most`.
 */
static inline int pst_broker__grow(void **items, int32_t count, int32_t *capacity, size_t size,
                                   int32_t most) {
    if (count < *capacity) {
        return 0;
    }
    if (count >= most) {
        return -PST_ELIMIT;
    }
    int32_t wanted = *capacity == 0 ? 4 : *capacity * 2;
    void *grown = realloc(*items, (size_t)wanted * size);
    if (grown == NULL) {
        return -PST_ENOMEM;
    }
    *items = grown;
    *capacity = wanted;
    return 0;
}

/* ---- errors.c ---- */
/* The one switch from PST_E* to Kafka's code (PST_KAFKA_* of wire/error_codes.h). */
int16_t pst_broker__kafka_error(int rc);

/* ---- per reactor state ---- */
struct pst_produce_round; /* produce.c */
struct pst_fetch_shard;   /* fetch_wait.c */

/* Owner: its reactor. */
struct pst_shard {
    pst_broker *broker;
    pst_reactor *reactor;
    int index;
    struct pst_produce_round *produce; /* gathered appends of this round; produce.c */
    struct pst_fetch_shard *fetch;     /* parked fetches and the sessions this reactor owns;
                                          fetch_wait.c, fetch_session.c */
    pst_note wake_note; /* at most one in flight: partitions with news for this reactor's waiters */
    PST_SHARED atomic_bool wake_pending;
    pst_list held; /* requests (and their connections) held because the control ring was full */
    PST_SHARED atomic_int held_count; /* written by the owner; control_drained reads it */
    pst_note drained_note; /* the ring has room: offer `held` again; at most one in flight */
    PST_SHARED atomic_bool drained_pending;
    pst_byte_buffer scratch; /* responses whose size is not known ahead (Metadata) */
    /* statistics: written by the owner, read by anyone (relaxed) */
    PST_SHARED _Atomic int64_t requests, produce_requests, produce_batches, produce_bytes;
    PST_SHARED _Atomic int64_t fetch_requests, fetch_bytes, fetches_parked, offloaded_appends;
};

/* produce.c: executes what was gathered (called by on_round_end before pst_fetch__round_end). */
int pst_produce__create(pst_shard *shard);
void pst_produce__destroy(pst_shard *shard);
void pst_produce__round_end(pst_shard *shard);

/* Executes what was gathered now if `conn` has a part in it: a later request of one connection sees
 * the effects of its earlier ones. */
void pst_produce__settle(pst_shard *shard, const pst_conn *conn);

/* fetch_wait.c / fetch_session.c */
int pst_fetch__broker_create(
    pst_broker *broker); /* session slots; stored in broker->fetch_sessions */
void pst_fetch__broker_destroy(pst_broker *broker);
int pst_fetch__create(pst_shard *shard);
void pst_fetch__destroy(pst_shard *shard);
/* (reactor) Partitions whose waiters bit of this reactor was set have news: look at the parked
 * fetches again. */
void pst_fetch__wake(pst_shard *shard);
/* (reactor) Same-reactor news are kept in the shard and looked at once per round, after the
 * appends. */
void pst_fetch__note_local(pst_shard *shard, pst_partition *partition);
void pst_fetch__round_end(pst_shard *shard);
/* An appender on any thread puts `partition` on the list of news of reactor `index`. */
void pst_fetch__note_remote(pst_broker *broker, int index, pst_partition *partition);
/* (reactor) The broker stops: parked fetches are answered with what there is, and from now on none
 * waits. */
void pst_fetch__answer_parked(pst_shard *shard);
/* (reactor) The connection died: parked fetches of it are dropped. */
void pst_fetch__conn_closed(pst_shard *shard, pst_conn *conn);

int64_t pst_fetch__session_count(pst_broker *broker); /* (any) */

struct pst_fetch_sessions;

enum { PST_BROKER_API_VERSIONS_COUNT = 6 };

/* Owner: see each field. */
struct pst_broker {
    pst_broker_settings settings; /* immutable */
    pst_shard shards[PST_BROKER_REACTORS_MAX];
    int shard_count;
    PST_SHARED _Atomic(const pst_image *)
        image;                          /* release by the control thread, acquire by readers */
    struct pst_image_retired *retired;  /* under control_lock */
    PST_SHARED atomic_bool has_retired; /* written under control_lock; a hint to look there */
    struct pst_fetch_sessions *fetch_sessions;
    pthread_mutex_t offload_lock; /* the offload queues of all partitions (short, rare) */
    pthread_cond_t offload_done; /* with offload_lock: an entry of the control plane was appended, a
                                    log was closed, or the last offloaded entry is done */
    int64_t
        offload_pending; /* under offload_lock: entries queued or being appended, all partitions */
    bool retention_running;          /* under offload_lock; counts as one pending entry */
    PST_SHARED atomic_bool stopping; /* long jobs end early */
    int64_t closing;                 /* under offload_lock: logs being closed on the I/O pool */
    pthread_mutex_t control_lock;    /* serialises control calls */
    uint64_t hash_seed;              /* immutable */
    PST_SHARED atomic_int attached;  /* shards usable; release by attach, acquire by rounds */
    /* I/O jobs of this room that are inside a log. A retired configuration is freed only after it
     * was seen at 0. */
    PST_SHARED atomic_int io_active;
    bool logs_closed; /* control thread */
    pst_byte_buffer
        api_versions[PST_BROKER_API_VERSIONS_COUNT]; /* immutable: response bodies by version */
};

/* ---- image.c ---- */
/* The first, empty image. */
int pst_image__init(pst_broker *broker);
/* Replaces the image: `image` is owned by the broker from here; the old one is retired.
 * (control_lock) */
void pst_image__publish(pst_broker *broker, const pst_image *image);
/* Frees what every reactor has left behind; `force` when no reactor runs any more. (control_lock)
 */
void pst_image__reclaim(pst_broker *broker, bool force);
/* A new image with these topics (each gains one reference) and this cluster. `topics` is sorted in
 * place. NULL when out of memory. */
struct pst_cluster;
pst_image *pst_image__create(pst_broker *broker, struct pst_cluster *cluster, pst_topic **topics,
                             int32_t topic_count);
void pst_image__destroy(pst_image *image);
struct pst_cluster *pst_image__cluster_block(const pst_image *image);
/* Copies the strings. One reference for the caller. */
struct pst_cluster *pst_cluster__create(const pst_cluster_spec *spec);
void pst_cluster__unref(struct pst_cluster *cluster);
/* A topic without partitions but with room for `partition_count`; reuses `old`'s configuration
 * block if equal. One reference for the caller. */
pst_topic *pst_topic__create(const pst_topic_spec *spec, const pst_topic *old);
void pst_topic__unref(pst_topic *topic);

/* ---- broker.c ---- */
/* Runs `run(context, i)` for i in [0, count) on the I/O pool, several at a time, and waits. */
void pst_broker__parallel(pst_broker *broker, int32_t count, void (*run)(void *context, int32_t i),
                          void *context);

/* ---- control.c ---- */
/* (reactor) The note that offers held requests again. */
void pst_broker__offer_held(pst_note *note, pst_reactor *reactor);
/* (reactor) Forgets requests that were never offered. */
void pst_broker__drop_held(pst_shard *shard);

/* ---- api_versions.c ---- */
int pst_broker__api_versions_init(pst_broker *broker);
void pst_broker__api_versions_fini(pst_broker *broker);
/* Answers a version that is not served: error 35 in a v0 body (KIP-511). */
void pst_broker__api_versions_unsupported(pst_request *request);

/* A full fence. ThreadSanitizer knows none; a locked instruction on a private variable is one all
 * the same. */
static inline void pst_broker__fence(void) {
#ifdef __SANITIZE_THREAD__
    atomic_int own = 0;
    atomic_fetch_add_explicit(&own, 1, memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Adds to a counter that one thread writes and others read. */
static inline void pst_broker__count(_Atomic int64_t *counter, int64_t amount) {
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + amount,
                          memory_order_relaxed);
}

#endif
