/* engine/control.c - what the control plane asks of a running engine: requests, answers, image,
 * partitions.
 *
 * Owner: the control thread; answers come from any thread. Layer: engine. It converts the plain
 * structs of penstock.h to the rooms' own and decides nothing. */
#include <stdlib.h>
#include <string.h>

#include "engine/engine_private.h"
#include "wire/api_table.h"

enum {
    READ_SIZE_MIN = 61, /* a batch header: less would not tell how large the batch is */
    READ_FIRST_SIZE_MAX = 1 << 20,
    READ_TRIES = 4,
};

static pst_uuid uuid_of(const uint8_t *bytes) {
    pst_uuid id;
    memcpy(id.bytes, bytes, sizeof id.bytes);
    return id;
}

static pst_token token_of(uint64_t connection, uint64_t sequence) {
    return (pst_token){.conn = connection, .sequence = sequence};
}

/* ---- requests and answers ---- */

int pst_engine_eventfd(const pst_engine *engine) {
    return engine->ring.eventfd;
}

static pst_frame *frame_of(pst_engine_frame *frame) {
    return (pst_frame *)(void *)frame; /* the opaque name outside is this struct inside */
}

int pst_engine_drain(pst_engine *engine, pst_engine_request *requests_out, int limit) {
    PST_TRY(pst_engine__enter(engine));
    pst_engine__ring_clear(&engine->ring);
    int count = 0;
    pst_control_request from;
    while (count < limit && pst_engine__ring_pop(&engine->ring, &from)) {
        pst_engine_request *to = &requests_out[count++];
        const pst_api *api = pst_api_find(from.api_key);
        to->connection = from.token.conn;
        to->sequence = from.token.sequence;
        to->api_key = from.api_key;
        to->api_version = from.api_version;
        to->listener = from.listener;
        to->may_redispatch = api != NULL && api->where == PST_API_REACTOR;
        to->frame = (pst_engine_frame *)(void *)from.frame;
        to->data = from.frame->data;
        to->size = from.frame->size;
        _Static_assert(sizeof to->peer == sizeof from.peer, "same size");
        memcpy(to->peer, from.peer, sizeof to->peer);
    }
    pst_engine__ring_signal_rest(&engine->ring);
    if (count > 0) {
        pst_broker_control_drained(engine->broker);
    }
    pst_engine__leave(engine);
    return count;
}

void pst_engine_frame_release(pst_engine_frame *frame) {
    pst_frame_release(frame_of(frame));
}

int pst_engine_respond(pst_engine *engine, uint64_t connection, uint64_t sequence,
                       const uint8_t *data, size_t size) {
    PST_TRY(pst_engine__enter(engine));
    int rc = 0;
    uint8_t *copy = malloc(size > 0 ? size : 1);
    if (copy == NULL) {
        rc = -PST_ENOMEM;
    } else {
        memcpy(copy, data, size);
        pst_broker_respond(engine->broker, token_of(connection, sequence), copy, size);
    }
    pst_engine__leave(engine);
    return rc;
}

int pst_engine_redispatch(pst_engine *engine, uint64_t connection, uint64_t sequence,
                          pst_engine_frame *frame) {
    int rc = pst_engine__enter(engine);
    if (rc < 0) {
        pst_engine_frame_release(frame);
        return rc;
    }
    pst_broker_redispatch(engine->broker, token_of(connection, sequence), frame_of(frame));
    pst_engine__leave(engine);
    return 0;
}

int pst_engine_close_connection(pst_engine *engine, uint64_t connection, uint64_t sequence) {
    PST_TRY(pst_engine__enter(engine));
    pst_broker_close_connection(engine->broker, token_of(connection, sequence));
    pst_engine__leave(engine);
    return 0;
}

/* ---- image ---- */

int pst_engine_publish_cluster(pst_engine *engine, const pst_engine_cluster *cluster) {
    PST_TRY(pst_engine__enter(engine));
    int rc = -PST_ENOMEM;
    pst_endpoint *endpoints = calloc((size_t)cluster->endpoint_count + 1, sizeof endpoints[0]);
    if (endpoints != NULL) {
        for (int32_t i = 0; i < cluster->endpoint_count; i++) {
            endpoints[i].host = cluster->endpoints[i].host;
            endpoints[i].port = cluster->endpoints[i].port;
            endpoints[i].listener = cluster->endpoints[i].listener;
        }
        pst_cluster_spec spec = {
            .cluster_id = pst_slice_str(cluster->cluster_id),
            .node_id = cluster->node_id,
            .controller_id = cluster->controller_id,
            .rack = cluster->rack,
            .endpoints = endpoints,
            .endpoint_count = cluster->endpoint_count,
            .auto_create_topics = cluster->auto_create_topics,
        };
        rc = pst_broker_publish_cluster(engine->broker, &spec);
        free(endpoints);
    }
    pst_engine__leave(engine);
    return rc;
}

static int32_t compression_level(const pst_engine_topic_config *config) {
    switch (config->compression_type) {
        case 1:
            return config->compression_gzip_level;
        case 3:
            return config->compression_lz4_level;
        case 4:
            return config->compression_zstd_level;
        default:
            return 0;
    }
}

static pst_log_config log_config(const pst_engine_topic_config *config) {
    return (pst_log_config){
        .segment_bytes = config->segment_bytes,
        .segment_ms = config->segment_ms,
        .segment_jitter_ms = config->segment_jitter_ms,
        .segment_index_bytes = config->segment_index_bytes,
        .index_interval_bytes = config->index_interval_bytes,
        .retention_ms = config->retention_ms,
        .retention_bytes = config->retention_bytes,
        .file_delete_delay_ms = config->file_delete_delay_ms,
        .max_message_bytes = config->max_message_bytes,
        .timestamp_before_max_ms = config->message_timestamp_before_max_ms,
        .timestamp_after_max_ms = config->message_timestamp_after_max_ms,
        .timestamp_type = config->message_timestamp_type,
        .compression_type = config->compression_type,
        .compression_level = compression_level(config),
        .cleanup_policy = config->cleanup_policy,
        .min_insync_replicas = config->min_insync_replicas,
        .preallocate = config->preallocate,
        .durability = 0,
    };
}

static void fill_topic(const pst_engine *engine, const pst_engine_topic *from,
                       pst_partition_spec *partitions, pst_topic_spec *to) {
    for (int32_t i = 0; i < from->partition_count; i++) {
        partitions[i] = (pst_partition_spec){
            .index = from->partitions[i].index,
            .leader = engine->node_id,
            .leader_epoch = from->partitions[i].leader_epoch,
            .dir_index = from->partitions[i].log_dir,
        };
    }
    *to = (pst_topic_spec){
        .name = pst_slice_of(from->name, from->name_size),
        .id = uuid_of(from->id),
        .is_internal = from->is_internal,
        .partitions = partitions,
        .partition_count = from->partition_count,
        .config = log_config(&from->config),
    };
}

int pst_engine_publish_topics(pst_engine *engine, const pst_engine_topic *topics,
                              int32_t topic_count, const uint8_t *removed, int32_t removed_count,
                              int32_t *failed_out) {
    *failed_out = 0;
    size_t partition_count = 0;
    for (int32_t i = 0; i < topic_count; i++) {
        partition_count += (size_t)topics[i].partition_count;
    }
    PST_TRY(pst_engine__enter(engine));
    pst_topic_spec *specs = calloc((size_t)topic_count + 1, sizeof specs[0]);
    pst_partition_spec *partitions = calloc(partition_count + 1, sizeof partitions[0]);
    pst_uuid *gone = calloc((size_t)removed_count + 1, sizeof gone[0]);
    int rc = -PST_ENOMEM;
    if (specs != NULL && partitions != NULL && gone != NULL) {
        size_t at = 0;
        for (int32_t i = 0; i < topic_count; i++) {
            fill_topic(engine, &topics[i], partitions + at, &specs[i]);
            at += (size_t)topics[i].partition_count;
        }
        if (removed_count > 0) {
            memcpy(gone, removed, (size_t)removed_count * sizeof gone[0]);
        }
        rc = pst_broker_publish_topics(engine->broker, specs, topic_count, gone, removed_count,
                                       failed_out);
    }
    free(specs);
    free(partitions);
    free(gone);
    pst_engine__leave(engine);
    return rc;
}

/* ---- partitions ---- */

int pst_engine_append(pst_engine *engine, const uint8_t *topic_id, int32_t partition,
                      const uint8_t *batch, size_t size, int64_t *base_offset_out) {
    *base_offset_out = -1;
    PST_TRY(pst_engine__enter(engine));
    pst_uuid id = uuid_of(topic_id);
    int rc = -PST_ENOMEM;
    uint8_t *copy = malloc(size > 0 ? size : 1); /* the log patches the batch in place */
    if (copy != NULL) {
        memcpy(copy, batch, size);
        rc = pst_broker_append(engine->broker, &id, partition, copy, size, base_offset_out);
        free(copy);
    }
    pst_engine__leave(engine);
    return rc;
}

static int read_batches(pst_broker *broker, const pst_uuid *id, int32_t partition, int64_t offset,
                        size_t size_max, uint8_t **data_out, size_t *size_out) {
    size_t capacity = size_max < READ_FIRST_SIZE_MAX ? size_max : READ_FIRST_SIZE_MAX;
    capacity = capacity < READ_SIZE_MIN ? READ_SIZE_MIN : capacity;
    for (int i = 0; i < READ_TRIES; i++) {
        uint8_t *data = malloc(capacity);
        if (data == NULL) {
            return -PST_ENOMEM;
        }
        size_t size = 0;
        int rc = pst_broker_read(broker, id, partition, offset, data, capacity, &size);
        if (rc == 0) {
            *data_out = data;
            *size_out = size;
            return 0;
        }
        free(data);
        if (rc != -PST_ETOOLARGE || size <= capacity) {
            return rc;
        }
        capacity = size; /* the first batch is given whole, however large */
    }
    return -PST_EAGAIN;
}

int pst_engine_read(pst_engine *engine, const uint8_t *topic_id, int32_t partition, int64_t offset,
                    size_t size_max, uint8_t **data_out, size_t *size_out) {
    *data_out = NULL;
    *size_out = 0;
    PST_TRY(pst_engine__enter(engine));
    pst_uuid id = uuid_of(topic_id);
    int rc = read_batches(engine->broker, &id, partition, offset, size_max, data_out, size_out);
    pst_engine__leave(engine);
    return rc;
}

void pst_engine_free(void *data) {
    free(data);
}

int pst_engine_get_offsets(pst_engine *engine, const uint8_t *topic_id, int32_t partition,
                           pst_engine_offsets *offsets_out) {
    memset(offsets_out, 0, sizeof *offsets_out);
    PST_TRY(pst_engine__enter(engine));
    pst_uuid id = uuid_of(topic_id);
    pst_log_offsets offsets;
    int rc = pst_broker_get_offsets(engine->broker, &id, partition, &offsets);
    if (rc == 0) {
        offsets_out->log_start = offsets.log_start;
        offsets_out->last_stable = offsets.last_stable;
        offsets_out->high_watermark = offsets.high_watermark;
        offsets_out->log_end = offsets.log_end;
    }
    pst_engine__leave(engine);
    return rc;
}

int pst_engine_delete_records(pst_engine *engine, const uint8_t *topic_id, int32_t partition,
                              int64_t offset, int64_t *log_start_out) {
    *log_start_out = -1;
    PST_TRY(pst_engine__enter(engine));
    pst_uuid id = uuid_of(topic_id);
    int rc = 0;
    if (offset == -1) {
        pst_log_offsets offsets;
        rc = pst_broker_get_offsets(engine->broker, &id, partition, &offsets);
        offset = offsets.high_watermark;
    }
    if (rc == 0) {
        rc = pst_broker_delete_records(engine->broker, &id, partition, offset, log_start_out);
    }
    pst_engine__leave(engine);
    return rc;
}

int pst_engine_log_size(pst_engine *engine, const uint8_t *topic_id, int32_t partition,
                        int64_t *size_out) {
    *size_out = 0;
    PST_TRY(pst_engine__enter(engine));
    pst_uuid id = uuid_of(topic_id);
    int rc = pst_broker_log_size(engine->broker, &id, partition, size_out);
    pst_engine__leave(engine);
    return rc;
}

int pst_engine_get_dir_info(pst_engine *engine, int32_t dir, pst_engine_dir_info *info_out) {
    *info_out = (pst_engine_dir_info){.total_bytes = -1, .usable_bytes = -1};
    PST_TRY(pst_engine__enter(engine));
    pst_storage_dir_info info;
    int rc = pst_storage_get_dir_info(engine->storage, dir, &info);
    if (rc == 0) {
        info_out->total_bytes = info.total_bytes;
        info_out->usable_bytes = info.usable_bytes;
        info_out->online = info.online;
    }
    pst_engine__leave(engine);
    return rc;
}

/* ---- periodic work ---- */

int pst_engine_run_retention(pst_engine *engine) {
    PST_TRY(pst_engine__enter(engine));
    pst_broker_start_retention(engine->broker);
    pst_engine__leave(engine);
    return 0;
}

static void checkpoint_run(pst_job *job) {
    pst_engine *engine = PST_CONTAINER_OF(job, pst_engine, checkpoint_job);
    if (pst_engine__enter(engine) == 0) {
        (void)pst_storage_checkpoint(engine->storage); /* a failure took the directory offline */
        pst_engine__leave(engine);
    }
    atomic_store_explicit(&engine->checkpoint_queued, false, memory_order_release);
}

int pst_engine_checkpoint(pst_engine *engine) {
    PST_TRY(pst_engine__enter(engine));
    if (!atomic_exchange_explicit(&engine->checkpoint_queued, true, memory_order_acq_rel)) {
        engine->checkpoint_job.run = checkpoint_run;
        pst_iopool_submit(engine->iopool, &engine->checkpoint_job);
    }
    pst_engine__leave(engine);
    return 0;
}

/* ---- tables ---- */

pst_broker_offsets *pst_engine_offset_table(pst_engine *engine) {
    return engine->offsets;
}

pst_broker_members *pst_engine_member_table(pst_engine *engine) {
    return engine->members;
}
