/* broker/broker_private.h - what the files of this room share.
 *
 * Objects and owners
 *  pst_broker           the room; created once, its image pointer is the meeting place
 *  pst_shard            one per reactor, owned by that reactor: gathered appends, parked fetches, sessions, pools
 *  pst_image            immutable after publication; reached through pst_broker__image() inside a round only
 *  pst_topic            immutable after publication; shared by images; counted by images
 *  pst_partition        counted: the topic holds one reference, every parked or offloaded operation another
 *
 * Reclaiming: what an image no longer reaches is retired by the control thread and freed when every reactor
 * has passed a loop boundary (pst_reactor_epoch); asleep counts as passed.
 *
 * Waiters (DESIGN 3): a parked fetch sets its reactor's bit in partition->waiters, full fence, reads the ends again.
 * An appender publishes the end, full fence, reads the bits and sends at most one note per reactor and round. */
#ifndef PST_BROKER_BROKER_PRIVATE_H
#define PST_BROKER_BROKER_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

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
    PST_SHARED atomic_bool deleted;   /* set once by the control thread before waiters are woken */
    PST_SHARED atomic_bool failed;    /* its log could not be opened: KAFKA_STORAGE_ERROR */
    pst_log *log;
    PST_SHARED _Atomic uint64_t waiters;    /* one bit per reactor */
    /* Appends that must leave the reactor, first in first out; while it is not empty every append to this
     * partition queues behind it. Drained by one job at a time. */
    pst_list offloaded;               /* of pst_offload.link, under broker->offload_lock[hash] */
    bool draining;
};

/* Owner: immutable after publication. */
struct pst_topic {
    atomic_int refs;          /* images that hold it */
    pst_uuid id;
    bool is_internal;
    int32_t partition_count;
    int16_t name_size;
    char *name;
    pst_log_config *config;   /* one block per topic and configuration; counted with the topic, retired like it */
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
void pst_partition__unref(pst_partition *partition);
/* Call after an append published a new end: moves the high watermark as the durability mode says and wakes waiters.
 * `round` is the current shard's, or NULL off the reactors. */
void pst_partition__appended(pst_broker *broker, pst_partition *partition, pst_shard *shard);
/* Wakes every reactor with a parked fetch on it (delete, configuration, storage failure). */
void pst_partition__wake(pst_broker *broker, pst_partition *partition, pst_shard *shard);

/* ---- request view: dispatch.c parses the header once ---- */
typedef struct {
    pst_exchange *exchange;
    int16_t api_key;
    int16_t api_version;
    int32_t correlation_id;
    pst_slice client_id;      /* empty if null */
    bool flexible;            /* body encoding */
    pst_reader body;          /* at the first byte of the body */
    uint8_t *data;            /* the whole frame, writable */
    size_t size;
} pst_request;

/* Each hot API: (reactor) reads `request->body`, answers through the exchange now or later, or closes the connection
 * for bytes that cannot be parsed. */
void pst_broker__api_versions(pst_shard *shard, pst_request *request);
void pst_broker__metadata(pst_shard *shard, pst_request *request);
void pst_broker__produce(pst_shard *shard, pst_request *request);
void pst_broker__fetch(pst_shard *shard, pst_request *request);
void pst_broker__list_offsets(pst_shard *shard, pst_request *request);
void pst_broker__offset_for_leader_epoch(pst_shard *shard, pst_request *request);
/* Hands the request up; holds the connection when the API table says barrier. */
void pst_broker__to_control(pst_shard *shard, pst_request *request);

/* Starts a response: writes the response header (correlation id, empty tagged fields when the header is flexible). */
int pst_broker__respond_header(pst_exchange *exchange, int16_t api_key, int16_t api_version, int32_t correlation_id);

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
    struct pst_fetch_shard *fetch;     /* parked fetches and the sessions this reactor owns; fetch_wait.c, fetch_session.c */
    pst_note wake_note;                /* at most one in flight: partitions with news for this reactor's waiters */
    PST_SHARED atomic_bool wake_pending;
    pst_list held;                     /* connections held because the control ring was full */
    /* statistics: written by the owner, read by anyone (relaxed) */
    PST_SHARED _Atomic int64_t requests, produce_requests, produce_batches, produce_bytes;
    PST_SHARED _Atomic int64_t fetch_requests, fetch_bytes, fetches_parked, offloaded_appends;
};

/* produce.c: executes what was gathered (called by on_round_end before pst_fetch__round_end). */
int pst_produce__create(pst_shard *shard);
void pst_produce__destroy(pst_shard *shard);
void pst_produce__round_end(pst_shard *shard);

/* fetch_wait.c / fetch_session.c */
int pst_fetch__broker_create(pst_broker *broker); /* session slots; stored in broker->fetch_sessions */
void pst_fetch__broker_destroy(pst_broker *broker);
int pst_fetch__create(pst_shard *shard);
void pst_fetch__destroy(pst_shard *shard);
/* (reactor) Partitions whose waiters bit of this reactor was set have news: look at the parked fetches again. */
void pst_fetch__wake(pst_shard *shard);
/* (reactor) Same-reactor news are kept in the shard and looked at once per round, after the appends. */
void pst_fetch__note_local(pst_shard *shard, pst_partition *partition);
void pst_fetch__round_end(pst_shard *shard);
/* An appender on any thread puts `partition` on the list of news of reactor `index`. */
void pst_fetch__note_remote(pst_broker *broker, int index, pst_partition *partition);
/* (reactor) The connection died: parked fetches of it are dropped. */
void pst_fetch__conn_closed(pst_shard *shard, pst_conn *conn);

struct pst_fetch_sessions;

/* Owner: see each field. */
struct pst_broker {
    pst_broker_settings settings;          /* immutable */
    pst_shard shards[PST_BROKER_REACTORS_MAX];
    int shard_count;
    PST_SHARED _Atomic(const pst_image *) image; /* release by the control thread, acquire by readers */
    struct pst_image_retired *retired;     /* control thread */
    struct pst_fetch_sessions *fetch_sessions;
    pthread_mutex_t offload_lock;          /* the offload queues of all partitions (short, rare) */
    pthread_mutex_t control_lock;          /* serialises control calls */
};

#endif
