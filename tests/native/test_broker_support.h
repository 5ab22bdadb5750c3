/* test_broker_support.h - a broker on loopback over a fresh directory, blocking clients, and a
 * control plane that the test plays itself. */
#ifndef PST_TEST_BROKER_SUPPORT_H
#define PST_TEST_BROKER_SUPPORT_H

#include <ftw.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "broker/broker.h"
#include "broker/broker_private.h"
#include "storage/storage.h"
#include "test_reactor_support.h"
#include "wire/api_table.h"
#include "wire/batch.h"
#include "wire/error_codes.h"
#include "wire/reader.h"
#include "wire/writer.h"

enum { TEST_CONTROL_MAX = 64 };

typedef struct {
    char dir[64];
    pst_iopool *iopool;
    pst_storage *storage;
    pst_broker *broker;
    pst_net *net;
    pthread_mutex_t lock; /* guards the rest */
    pst_control_request up[TEST_CONTROL_MAX];
    int up_count;
    int up_room; /* offers beyond it are refused */
} test_broker;

static inline int test_offer(void *context, const pst_control_request *request) {
    test_broker *t = context;
    pthread_mutex_lock(&t->lock);
    int rc = t->up_count < t->up_room ? 0 : -PST_EAGAIN;
    if (rc == 0) {
        t->up[t->up_count++] = *request;
    }
    pthread_mutex_unlock(&t->lock);
    return rc;
}

static inline void test_publish_cluster(test_broker *t, bool auto_create) {
    pst_endpoint endpoints[2] = {{.host = "other.example", .port = 1, .listener = 9},
                                 {.host = "here.example", .port = 9092, .listener = 3}};
    pst_cluster_spec cluster = {.cluster_id = pst_slice_str("test-cluster-id"),
                                .node_id = 7,
                                .controller_id = 7,
                                .endpoints = endpoints,
                                .endpoint_count = 2,
                                .auto_create_topics = auto_create};
    CHECK_EQ(pst_broker_publish_cluster(t->broker, &cluster), 0);
}

static inline void test_broker_start(test_broker *t, int reactors) {
    *t = (test_broker){.up_room = TEST_CONTROL_MAX};
    pthread_mutex_init(&t->lock, NULL);
    snprintf(t->dir, sizeof t->dir, "/tmp/pst-broker-XXXXXX");
    CHECK(mkdtemp(t->dir) != NULL);
    CHECK_EQ(pst_iopool_create(2, &t->iopool), 0);
    const char *dirs[] = {t->dir};
    pst_storage_settings storage = {.dirs = dirs,
                                    .dir_count = 1,
                                    .iopool = t->iopool,
                                    .file_cache_count = 256,
                                    .tail_pool_size = 1 << 20,
                                    .producer_id_expiration_ms = 86400000,
                                    .producer_ids_max = 10000};
    char error[256];
    CHECK_EQ(pst_storage_open(&storage, error, sizeof error, &t->storage), 0);
    pst_broker_settings settings = {.storage = t->storage,
                                    .iopool = t->iopool,
                                    .offer_control = test_offer,
                                    .context = t,
                                    .fetch_sessions_max = 100,
                                    .fetch_session_eviction_ms = 120000,
                                    .fetch_max_bytes = 57671680,
                                    .fetch_copy_size = 16384};
    CHECK_EQ(pst_broker_create(&settings, &t->broker), 0);
    test_publish_cluster(t, false);
    pst_net_handler handler;
    pst_broker_handler(t->broker, &handler);
    pst_net_listener listener = {.host = "127.0.0.1", .listener = 3};
    pst_net_settings net = {.reactor_count = reactors,
                            .listeners = &listener,
                            .listener_count = 1,
                            .limits = test_limits(),
                            .handler = handler,
                            .iopool = t->iopool};
    CHECK_EQ(pst_net_create(&net, error, sizeof error, &t->net), 0);
    CHECK_EQ(pst_broker_attach_net(t->broker, t->net), 0);
    CHECK_EQ(pst_net_start(t->net), 0);
}

static inline int test_remove(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline void test_broker_stop_after(test_broker *t, int64_t grace_ms) {
    pst_net_stop(t->net, grace_ms);
    CHECK_EQ(pst_broker_close_logs(t->broker), 0);
    pst_net_destroy(t->net);
    pst_broker_destroy(t->broker);
    CHECK_EQ(pst_storage_close(t->storage, true), 0);
    pst_iopool_destroy(t->iopool);
    for (int i = 0; i < t->up_count; i++) {
        pst_frame_release(t->up[i].frame);
    }
    pthread_mutex_destroy(&t->lock);
    nftw(t->dir, test_remove, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void test_broker_stop(test_broker *t) {
    test_broker_stop_after(t, 2000);
}

/* Waits for the control plane's next request and takes it. */
static inline pst_control_request test_take_up(test_broker *t) {
    for (int i = 0; i < 20000; i++) {
        pthread_mutex_lock(&t->lock);
        if (t->up_count > 0) {
            pst_control_request request = t->up[0];
            memmove(&t->up[0], &t->up[1], sizeof t->up[0] * (size_t)--t->up_count);
            pthread_mutex_unlock(&t->lock);
            return request;
        }
        pthread_mutex_unlock(&t->lock);
        usleep(1000);
    }
    CHECK(!"a request for the control plane");
    abort();
}

static inline pst_log_config test_config(void) {
    pst_log_config config;
    memset(&config, 0, sizeof config);
    config.segment_bytes = 1 << 30;
    config.segment_ms = 604800000;
    config.segment_index_bytes = 10 << 20;
    config.index_interval_bytes = 4096;
    config.retention_ms = 604800000;
    config.retention_bytes = -1;
    config.file_delete_delay_ms = 60000;
    config.max_message_bytes = 1048588;
    config.timestamp_before_max_ms = INT64_MAX;
    config.timestamp_after_max_ms = 3600000;
    config.compression_type = -1;
    config.cleanup_policy = 1;
    config.min_insync_replicas = 1;
    return config;
}

static inline pst_uuid test_uuid(uint32_t number) {
    pst_uuid id = {{0x10}};
    memcpy(id.bytes + 4, &number, sizeof number);
    return id;
}

enum { TEST_PARTITIONS_MAX = 10000 };

static inline void test_publish_topic(test_broker *t, const char *name, uint32_t id,
                                      int32_t partitions, const pst_log_config *config,
                                      bool internal) {
    static pst_partition_spec specs[TEST_PARTITIONS_MAX];
    for (int32_t i = 0; i < partitions; i++) {
        specs[i] = (pst_partition_spec){.index = i, .leader = 7, .leader_epoch = 4};
    }
    pst_topic_spec topic = {.name = pst_slice_str(name),
                            .id = test_uuid(id),
                            .is_internal = internal,
                            .partitions = specs,
                            .partition_count = partitions};
    memcpy(&topic.config, config, sizeof *config);
    int32_t failed;
    CHECK_EQ(pst_broker_publish_topics(t->broker, &topic, 1, NULL, 0, &failed), 0);
    CHECK_EQ(failed, 0);
}

static inline void test_remove_topic(test_broker *t, uint32_t id) {
    pst_uuid removed = test_uuid(id);
    int32_t failed;
    CHECK_EQ(pst_broker_publish_topics(t->broker, NULL, 0, &removed, 1, &failed), 0);
}

/* ---- requests ---- */

/* An empty request with its header; `buffer` is overwritten. */
static inline pst_writer test_request(pst_byte_buffer *buffer, int16_t key, int16_t version,
                                      int32_t correlation_id, const char *client_id) {
    buffer->size = 0;
    pst_writer w = pst_writer_of(buffer);
    pst_writer_i16(&w, key);
    pst_writer_i16(&w, version);
    pst_writer_i32(&w, correlation_id);
    pst_writer_string(&w, pst_slice_str(client_id));
    const pst_api *api = pst_api_find(key);
    if (api != NULL && pst_api_flexible(api, version)) {
        pst_writer_u8(&w, 0);
    }
    return w;
}

static inline void test_send_buffer(int fd, const pst_byte_buffer *buffer) {
    send_frame(fd, buffer->data, (uint32_t)buffer->size);
}

/* Reads one response into `buffer`; false when the connection was closed instead. */
static inline bool test_response(int fd, pst_byte_buffer *buffer) {
    uint8_t prefix[4];
    if (!test_receive(fd, prefix, sizeof prefix)) {
        return false;
    }
    size_t size = get_size(prefix);
    buffer->size = 0;
    CHECK_EQ(pst_byte_buffer_reserve(buffer, size), 0);
    buffer->size = size;
    CHECK(test_receive(fd, buffer->data, size));
    return true;
}

/* A reader behind the response header, whose correlation id must be `correlation_id`. */
static inline pst_reader test_body(const pst_byte_buffer *buffer, int16_t key, int16_t version,
                                   int32_t correlation_id) {
    pst_reader r = pst_reader_of(pst_byte_buffer_slice(buffer));
    CHECK_EQ(pst_reader_i32(&r), correlation_id);
    if (pst_api_response_header(pst_api_find(key), version) == 1) {
        CHECK_EQ(pst_reader_u8(&r), 0);
    }
    return r;
}

#endif
