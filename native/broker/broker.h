/* broker/broker.h - the door of the room where Kafka meets bytes: request dispatch, the published
 * image of topics, partitions, produce, fetch, list offsets, delayed fetches.
 *
 * Threads: the handler callbacks run on reactors; publish, append, read and the other control calls
 * come from the control thread (one at a time: the caller serialises them); offloaded work runs on
 * I/O threads. It does not decide anything that DESIGN gives to Python: other requests go up
 * through `offer_control`. */
#ifndef PST_BROKER_BROKER_H
#define PST_BROKER_BROKER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"
#include "reactor/reactor.h"
#include "storage/log.h"

typedef struct pst_broker pst_broker;

/* A request for the control plane. `frame` is owned by the receiver once offer_control returned 0.
 */
typedef struct {
    pst_token token;
    int16_t api_key;
    int16_t api_version;
    int32_t listener;
    pst_frame *frame; /* the whole request, header included, without the size prefix */
    char peer[64];    /* numeric address */
} pst_control_request;

typedef struct {
    pst_storage *storage; /* borrowed, as are the next two */
    pst_iopool *iopool;
    pst_net *net; /* set by pst_broker_attach_net */
    /* (reactor) Puts a request into the ring; -PST_EAGAIN when it is full (the broker then holds
     * the connection and offers again when the engine calls pst_broker_control_drained). */
    int (*offer_control)(void *context, const pst_control_request *request);
    void *context;
    int32_t fetch_sessions_max;        /* max.incremental.fetch.session.cache.slots */
    int64_t fetch_session_eviction_ms; /* min.incremental.fetch.session.eviction.ms, 120000 */
    int64_t fetch_max_bytes;           /* fetch.max.bytes of the broker, 57671680 */
    int32_t
        fetch_copy_size; /* answers up to this many bytes per partition are copied, else sendfile */
    bool auto_create_topics;
} pst_broker_settings;

int pst_broker_create(const pst_broker_settings *settings, pst_broker **broker_out);
/* The callbacks to give to pst_net_create. */
void pst_broker_handler(pst_broker *broker, pst_net_handler *handler_out);
/* After pst_net_create, before pst_net_start. */
int pst_broker_attach_net(pst_broker *broker, pst_net *net);
/* After pst_net_stop and before pst_net_destroy: no reactor runs any more. Waits for offloaded
 * appends, then closes every log (in parallel on the I/O pool). */
int pst_broker_close_logs(pst_broker *broker);
void pst_broker_destroy(pst_broker *broker);

/* ---- published image (control thread) ---- */

typedef struct {
    int32_t index;
    int32_t leader; /* node id, -1 = none */
    int32_t leader_epoch;
    int32_t dir_index;
} pst_partition_spec;

typedef struct {
    pst_slice name;
    pst_uuid id;
    bool is_internal;
    const pst_partition_spec *partitions; /* sorted by index, dense from 0 */
    int32_t partition_count;
    pst_log_config config;
} pst_topic_spec;

typedef struct {
    const char *host;
    int32_t port;
    int32_t listener; /* which listener this endpoint is told on */
} pst_endpoint;

typedef struct {
    pst_slice cluster_id;
    int32_t node_id;
    int32_t controller_id;
    const char *rack;              /* NULL = none */
    const pst_endpoint *endpoints; /* this broker's, one per listener */
    int32_t endpoint_count;
    bool auto_create_topics;
    /* Finalised features as ApiVersions v3+ tells them: name, min, max level; empty in this issue
     * unless their APIs are served. */
} pst_cluster_spec;

int pst_broker_publish_cluster(pst_broker *broker, const pst_cluster_spec *spec);
/* One new image for all of them; when it returns every reactor sees it. Upsert of an existing topic
 * adds partitions and replaces the configuration. New partitions' logs are opened (recovered) in
 * parallel on the I/O pool and the call waits for them. `failed_out` counts partitions whose log
 * could not be opened (they answer KAFKA_STORAGE_ERROR). */
int pst_broker_publish_topics(pst_broker *broker, const pst_topic_spec *topics, int32_t topic_count,
                              const pst_uuid *removed, int32_t removed_count, int32_t *failed_out);

/* ---- control plane's own use of partitions (control thread; blocks shortly) ---- */
/* Appends one batch (built by the control plane) under Kafka's rules for internal appends. */
int pst_broker_append(pst_broker *broker, const pst_uuid *topic_id, int32_t partition,
                      uint8_t *batch, size_t size, int64_t *base_offset_out);
/* Reads whole batches from `offset` into `buffer`; *size_out bytes. 0 bytes at the end.
 * -PST_ETOOLARGE: not even one batch fits; *size_out is then its size (0 if `capacity` does not
 * hold a batch header of 61 bytes). */
int pst_broker_read(pst_broker *broker, const pst_uuid *topic_id, int32_t partition, int64_t offset,
                    uint8_t *buffer, size_t capacity, size_t *size_out);
int pst_broker_get_offsets(pst_broker *broker, const pst_uuid *topic_id, int32_t partition,
                           pst_log_offsets *offsets_out);
int pst_broker_delete_records(pst_broker *broker, const pst_uuid *topic_id, int32_t partition,
                              int64_t offset, int64_t *log_start_out);
int pst_broker_log_size(pst_broker *broker, const pst_uuid *topic_id, int32_t partition,
                        int64_t *size_out);
/* Applies retention to every log on the I/O pool; returns at once. */
void pst_broker_start_retention(pst_broker *broker);

/* ---- answers of the control plane (any thread) ---- */
/* Answers a control request with a whole response body (header included); copies nothing: takes
 * malloc'ed memory. */
void pst_broker_respond(pst_broker *broker, pst_token token, uint8_t *data, size_t size);
/* Runs the request again in C (Metadata after auto-creation); takes the frame back. */
void pst_broker_redispatch(pst_broker *broker, pst_token token, pst_frame *frame);
void pst_broker_close_connection(pst_broker *broker, pst_token token);
/* The ring has room again: connections held for it are offered once more. */
void pst_broker_control_drained(pst_broker *broker);

/* The Kafka error code that describes 0 or -PST_E* best. */
int16_t pst_broker_kafka_error(int rc);

typedef struct {
    int64_t requests;
    int64_t produce_requests;
    int64_t produce_batches;
    int64_t produce_bytes;
    int64_t fetch_requests;
    int64_t fetch_bytes;
    int64_t fetches_parked;
    int64_t offloaded_appends;
    int64_t fetch_sessions;
} pst_broker_statistics;
void pst_broker_get_statistics(pst_broker *broker, pst_broker_statistics *statistics_out);

#endif
