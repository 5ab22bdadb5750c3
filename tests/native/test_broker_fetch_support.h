/* test_broker_fetch_support.h - a broker with a real log and a real net on loopback, and the
 * requests that read. */
#ifndef PST_TEST_BROKER_FETCH_SUPPORT_H
#define PST_TEST_BROKER_FETCH_SUPPORT_H

#include <dirent.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>

#include "broker/broker.h"
#include "test_reactor_support.h"
#include "wire/batch.h"
#include "wire/error_codes.h"
#include "wire/reader.h"
#include "wire/writer.h"

enum { FX_TOPICS_MAX = 8, FX_PARTS_MAX = 64, FX_LISTENER = 3 };

typedef struct {
    char dir[64];
    pst_iopool *iopool;
    pst_storage *storage;
    pst_broker *broker;
    pst_net *net;
} fixture;

static inline int fx_offer(void *context, const pst_control_request *request) {
    (void)context;
    pst_frame_release(request->frame);
    return 0;
}

static inline pst_log_config fx_config(void) {
    return (pst_log_config){
        .segment_bytes = 1 << 30,
        .segment_ms = INT64_C(604800000),
        .segment_index_bytes = 10 << 20,
        .index_interval_bytes = 4096,
        .retention_ms = -1,
        .retention_bytes = -1,
        .file_delete_delay_ms = 60000,
        .max_message_bytes = 10 << 20,
        .timestamp_before_max_ms = INT64_MAX,
        .timestamp_after_max_ms = INT64_MAX,
        .compression_type = -1,
        .cleanup_policy = 1,
        .min_insync_replicas = 1,
    };
}

static inline void fx_start(fixture *fx, int reactors, int32_t sessions_max, int64_t eviction_ms) {
    memset(fx, 0, sizeof *fx);
    snprintf(fx->dir, sizeof fx->dir, "/tmp/pst-fetch-XXXXXX");
    CHECK(mkdtemp(fx->dir) != NULL);
    CHECK_EQ(pst_iopool_create(2, &fx->iopool), 0);
    const char *dirs[] = {fx->dir};
    pst_storage_settings storage = {.dirs = dirs,
                                    .dir_count = 1,
                                    .iopool = fx->iopool,
                                    .file_cache_count = 100,
                                    .tail_pool_size = 4 << 20,
                                    .producer_id_expiration_ms = 86400000,
                                    .producer_ids_max = 1000};
    char error[256];
    CHECK_EQ(pst_storage_open(&storage, error, sizeof error, &fx->storage), 0);
    pst_broker_settings settings = {.storage = fx->storage,
                                    .iopool = fx->iopool,
                                    .offer_control = fx_offer,
                                    .fetch_sessions_max = sessions_max,
                                    .fetch_session_eviction_ms = eviction_ms,
                                    .fetch_max_bytes = 57671680,
                                    .fetch_copy_size = 16384};
    CHECK_EQ(pst_broker_create(&settings, &fx->broker), 0);
    pst_net_handler handler;
    pst_broker_handler(fx->broker, &handler);
    pst_net_listener listener = {.host = "127.0.0.1", .port = 0, .listener = FX_LISTENER};
    pst_net_settings net = {.reactor_count = reactors,
                            .listeners = &listener,
                            .listener_count = 1,
                            .limits = test_limits(),
                            .handler = handler,
                            .iopool = fx->iopool};
    CHECK_EQ(pst_net_create(&net, error, sizeof error, &fx->net), 0);
    CHECK_EQ(pst_broker_attach_net(fx->broker, fx->net), 0);
    pst_endpoint endpoint = {
        .host = "localhost", .port = pst_net_port(fx->net, 0), .listener = FX_LISTENER};
    pst_cluster_spec cluster = {.cluster_id = pst_slice_str("test"),
                                .node_id = 7,
                                .controller_id = 7,
                                .endpoints = &endpoint,
                                .endpoint_count = 1};
    CHECK_EQ(pst_broker_publish_cluster(fx->broker, &cluster), 0);
    CHECK_EQ(pst_net_start(fx->net), 0);
}

static inline int fx_remove(const char *path, const struct stat *stat, int flag, struct FTW *ftw) {
    (void)stat;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline void fx_stop(fixture *fx) {
    pst_net_stop(fx->net, 100);
    CHECK_EQ(pst_broker_close_logs(fx->broker), 0);
    pst_broker_destroy(fx->broker);
    pst_net_destroy(fx->net);
    CHECK_EQ(pst_storage_close(fx->storage, true), 0);
    pst_iopool_destroy(fx->iopool);
    nftw(fx->dir, fx_remove, 16, FTW_DEPTH | FTW_PHYS);
}

static inline pst_uuid fx_id(int number) {
    pst_uuid id = {{0}};
    id.bytes[0] = 0xab;
    id.bytes[15] = (uint8_t)number;
    return id;
}

static inline void fx_publish(fixture *fx, const char *name, int id, int32_t partitions,
                              int32_t epoch) {
    pst_partition_spec parts[FX_PARTS_MAX];
    for (int32_t i = 0; i < partitions; i++) {
        parts[i] = (pst_partition_spec){.index = i, .leader = 7, .leader_epoch = epoch};
    }
    pst_topic_spec topic = {.name = pst_slice_str(name),
                            .id = fx_id(id),
                            .partitions = parts,
                            .partition_count = partitions,
                            .config = fx_config()};
    int32_t failed;
    CHECK_EQ(pst_broker_publish_topics(fx->broker, &topic, 1, NULL, 0, &failed), 0);
    CHECK_EQ(failed, 0);
}

static inline void fx_delete(fixture *fx, int id) {
    pst_uuid removed = fx_id(id);
    int32_t failed;
    CHECK_EQ(pst_broker_publish_topics(fx->broker, NULL, 0, &removed, 1, &failed), 0);
}

/* One batch of `count` records of `size` bytes with timestamps `timestamp`, +1, ... */
static inline void fx_batch(pst_byte_buffer *out, int count, size_t size, int64_t timestamp) {
    pst_batch_builder builder;
    pst_batch_builder_init(&builder, out);
    uint8_t *value = calloc(1, size + 1);
    memset(value, 'v', size);
    for (int i = 0; i < count; i++) {
        pst_slice bytes = {value, size};
        CHECK_EQ(pst_batch_builder_append(&builder, timestamp + i, NULL, &bytes, NULL, 0), 0);
    }
    CHECK_EQ(pst_batch_builder_finish(&builder), 0);
    free(value);
}

/* Appends from this thread; returns the size of the batch. */
static inline size_t fx_append(fixture *fx, int id, int32_t partition, int count, size_t size,
                               int64_t timestamp) {
    pst_byte_buffer batch = {0};
    fx_batch(&batch, count, size, timestamp);
    pst_uuid topic = fx_id(id);
    int64_t base;
    CHECK_EQ(pst_broker_append(fx->broker, &topic, partition, batch.data, batch.size, &base), 0);
    size_t bytes = batch.size;
    pst_byte_buffer_fini(&batch);
    return bytes;
}

/* ---- requests ---- */

static inline void rq_begin(pst_writer *w, int16_t key, int16_t version, int32_t correlation,
                            bool flexible) {
    (void)pst_writer_reserve_i32(w);
    pst_writer_i16(w, key);
    pst_writer_i16(w, version);
    pst_writer_i32(w, correlation);
    pst_writer_string(w, pst_slice_str("test"));
    pst_writer_no_tagged(w, flexible);
}

static inline void rq_send(int fd, pst_writer *w) {
    CHECK(pst_writer_ok(w));
    pst_writer_patch_size(w, 0);
    test_send(fd, w->buffer->data, w->buffer->size);
    pst_byte_buffer_fini(w->buffer);
}

typedef struct {
    uint8_t *data;
    pst_reader r;
} response;

static inline response rs_receive(int fd, int32_t correlation, bool flexible) {
    uint8_t prefix[4];
    CHECK(test_receive(fd, prefix, 4));
    uint32_t size = get_size(prefix);
    response rs = {.data = malloc(size + 1)};
    CHECK(test_receive(fd, rs.data, size));
    rs.r = pst_reader_of(pst_slice_of(rs.data, size));
    CHECK_EQ(pst_reader_i32(&rs.r), correlation);
    if (flexible) {
        CHECK_EQ(pst_reader_uvarint(&rs.r), 0);
    }
    return rs;
}

typedef struct {
    const char *topic; /* up to version 12 */
    int id;            /* from version 13 */
    int32_t index;
    int64_t offset;
    int32_t max_bytes;
    int32_t leader_epoch;
    int32_t last_epoch;
} ask_part;

#define ASK(name, topic_id, partition, from) \
    (ask_part){.topic = (name),              \
               .id = (topic_id),             \
               .index = (partition),         \
               .offset = (from),             \
               .max_bytes = 1 << 20,         \
               .leader_epoch = -1,           \
               .last_epoch = -1}

typedef struct {
    int16_t version;
    int32_t max_wait_ms, min_bytes, max_bytes;
    int8_t isolation;
    int32_t session_id, session_epoch;
    int part_count;
    ask_part parts[FX_PARTS_MAX];
    int forget_count;
    ask_part forget[8];
} fetch_ask;

static inline fetch_ask fetch_of(int16_t version, int part_count, const ask_part *parts) {
    fetch_ask ask = {.version = version,
                     .min_bytes = 1,
                     .max_bytes = 50 << 20,
                     .session_epoch = -1,
                     .part_count = part_count};
    for (int i = 0; i < part_count; i++) {
        ask.parts[i] = parts[i];
    }
    return ask;
}

static inline void rq_topic(pst_writer *w, const fetch_ask *ask, const ask_part *part) {
    bool flexible = ask->version >= 12;
    if (ask->version >= 13) {
        pst_writer_uuid(w, fx_id(part->id));
    } else {
        pst_slice name = pst_slice_str(part->topic);
        pst_writer_any_string(w, flexible, &name);
    }
    pst_writer_any_array(w, flexible, 1);
}

static inline void fetch_send(int fd, int32_t correlation, const fetch_ask *ask) {
    int16_t v = ask->version;
    bool flexible = v >= 12;
    pst_byte_buffer buffer = {0};
    pst_writer w = pst_writer_of(&buffer);
    rq_begin(&w, 1, v, correlation, flexible);
    if (v < 15) {
        pst_writer_i32(&w, -1);
    }
    pst_writer_i32(&w, ask->max_wait_ms);
    pst_writer_i32(&w, ask->min_bytes);
    pst_writer_i32(&w, ask->max_bytes);
    pst_writer_i8(&w, ask->isolation);
    if (v >= 7) {
        pst_writer_i32(&w, ask->session_id);
        pst_writer_i32(&w, ask->session_epoch);
    }
    pst_writer_any_array(&w, flexible, ask->part_count);
    for (int i = 0; i < ask->part_count; i++) {
        const ask_part *part = &ask->parts[i];
        rq_topic(&w, ask, part);
        pst_writer_i32(&w, part->index);
        if (v >= 9) {
            pst_writer_i32(&w, part->leader_epoch);
        }
        pst_writer_i64(&w, part->offset);
        if (v >= 12) {
            pst_writer_i32(&w, part->last_epoch);
        }
        if (v >= 5) {
            pst_writer_i64(&w, -1);
        }
        pst_writer_i32(&w, part->max_bytes);
        if (v >= 18) { /* a follower's high watermark: read over */
            pst_writer_uvarint(&w, 1);
            pst_writer_uvarint(&w, 1);
            pst_writer_uvarint(&w, 8);
            pst_writer_i64(&w, 5);
        } else {
            pst_writer_no_tagged(&w, flexible);
        }
        pst_writer_no_tagged(&w, flexible);
    }
    if (v >= 7) {
        pst_writer_any_array(&w, flexible, ask->forget_count);
        for (int i = 0; i < ask->forget_count; i++) {
            rq_topic(&w, ask, &ask->forget[i]);
            pst_writer_i32(&w, ask->forget[i].index);
            pst_writer_no_tagged(&w, flexible);
        }
    }
    if (v >= 11) {
        pst_slice rack = pst_slice_str("rack");
        pst_writer_any_string(&w, flexible, &rack);
    }
    pst_writer_no_tagged(&w, flexible);
    rq_send(fd, &w);
}

typedef struct {
    char topic[32];
    pst_uuid id;
    int32_t index;
    int16_t error;
    int64_t high_watermark, last_stable, log_start;
    int32_t aborted; /* -1 null */
    int32_t size;
    pst_slice records;
    int32_t diverging_epoch;
    int64_t diverging_end;
    int32_t leader_id, leader_epoch;
} got_part;

typedef struct {
    int16_t error;
    int32_t session_id;
    int count;
    got_part parts[FX_PARTS_MAX];
    int32_t endpoint_node; /* -1 none */
    uint8_t *data;
} fetch_got;

static inline void got_tags(pst_reader *r, got_part *part) {
    uint32_t tags = pst_reader_tagged_count(r);
    for (uint32_t i = 0; i < tags; i++) {
        uint32_t tag;
        pst_reader field = pst_reader_tagged_next(r, &tag);
        if (tag == 0) {
            part->diverging_epoch = pst_reader_i32(&field);
            part->diverging_end = pst_reader_i64(&field);
        } else {
            CHECK_EQ(tag, 1);
            part->leader_id = pst_reader_i32(&field);
            part->leader_epoch = pst_reader_i32(&field);
        }
        pst_reader_skip_tagged(&field);
        CHECK_EQ(pst_reader_finish(&field), 0);
    }
}

static inline void got_partition(pst_reader *r, int16_t v, got_part *part) {
    bool flexible = v >= 12, null;
    part->index = pst_reader_i32(r);
    part->error = pst_reader_i16(r);
    part->high_watermark = pst_reader_i64(r);
    part->last_stable = pst_reader_i64(r);
    part->log_start = v >= 5 ? pst_reader_i64(r) : -2;
    part->aborted = pst_reader_any_nullable_array(r, flexible, 16, &null);
    part->aborted = null ? -1 : part->aborted;
    if (v >= 11) {
        CHECK_EQ(pst_reader_i32(r), -1);
    }
    part->records = pst_reader_any_bytes(r, flexible);
    part->size = (int32_t)part->records.size;
    part->diverging_epoch = part->leader_id = part->leader_epoch = -1;
    if (flexible) {
        got_tags(r, part);
    }
}

/* The caller frees `data`, where records point to. */
static inline fetch_got fetch_receive(int fd, int32_t correlation, int16_t v) {
    bool flexible = v >= 12;
    response rs = rs_receive(fd, correlation, flexible);
    fetch_got got = {.endpoint_node = -1, .data = rs.data};
    pst_reader *r = &rs.r;
    CHECK_EQ(pst_reader_i32(r), 0);
    if (v >= 7) {
        got.error = pst_reader_i16(r);
        got.session_id = pst_reader_i32(r);
    }
    int32_t topics = pst_reader_any_array(r, flexible, 6);
    for (int32_t i = 0; i < topics; i++) {
        char name[32] = "";
        pst_uuid id = {{0}};
        if (v >= 13) {
            id = pst_reader_uuid(r);
        } else {
            pst_slice text = pst_reader_any_string(r, flexible);
            CHECK(text.size < sizeof name);
            memcpy(name, text.data, text.size);
        }
        int32_t count = pst_reader_any_array(r, flexible, 20);
        for (int32_t k = 0; k < count; k++) {
            CHECK(got.count < FX_PARTS_MAX);
            got_part *part = &got.parts[got.count++];
            got_partition(r, v, part);
            memcpy(part->topic, name, sizeof name);
            part->id = id;
        }
        if (flexible) {
            CHECK_EQ(pst_reader_uvarint(r), 0);
        }
    }
    if (flexible) {
        uint32_t tags = pst_reader_tagged_count(r);
        for (uint32_t i = 0; i < tags; i++) {
            uint32_t tag;
            pst_reader field = pst_reader_tagged_next(r, &tag);
            CHECK_EQ(tag, 0);
            CHECK_EQ(pst_reader_compact_array(&field, 10), 1);
            got.endpoint_node = pst_reader_i32(&field);
            CHECK(pst_slice_eq(pst_reader_compact_string(&field), pst_slice_str("localhost")));
            CHECK(pst_reader_i32(&field) > 0);
            CHECK_EQ(pst_reader_uvarint(&field), 0);
            CHECK_EQ(pst_reader_uvarint(&field), 0);
            CHECK_EQ(pst_reader_finish(&field), 0);
        }
    }
    CHECK_EQ(pst_reader_finish(r), 0);
    return got;
}

static inline fetch_got fetch(int fd, const fetch_ask *ask) {
    static atomic_int correlation;
    int32_t number = atomic_fetch_add(&correlation, 1);
    fetch_send(fd, number, ask);
    return fetch_receive(fd, number, ask->version);
}

static inline int64_t fx_parked(fixture *fx) {
    pst_broker_statistics statistics;
    pst_broker_get_statistics(fx->broker, &statistics);
    return statistics.fetches_parked;
}

/* One Produce v3 request with acks 1 of one batch. */
static inline void produce_send(int fd, int32_t correlation, const char *topic, int32_t partition,
                                int count, size_t size) {
    pst_byte_buffer batch = {0};
    fx_batch(&batch, count, size, 1000);
    pst_byte_buffer buffer = {0};
    pst_writer w = pst_writer_of(&buffer);
    rq_begin(&w, 0, 3, correlation, false);
    pst_writer_i16(&w, -1); /* no transactional id */
    pst_writer_i16(&w, 1);
    pst_writer_i32(&w, 1000);
    pst_writer_i32(&w, 1);
    pst_writer_string(&w, pst_slice_str(topic));
    pst_writer_i32(&w, 1);
    pst_writer_i32(&w, partition);
    pst_writer_bytes(&w, pst_byte_buffer_slice(&batch));
    rq_send(fd, &w);
    pst_byte_buffer_fini(&batch);
}

#endif
