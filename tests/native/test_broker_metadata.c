/* test_broker_metadata.c - Metadata of every version, by name, by id, all; auto-creation through
 * the control plane. */
#include "test_broker_support.h"

static pst_byte_buffer out;
static pst_byte_buffer in;

typedef struct {
    int16_t error;
    char name[64];
    bool name_null;
    pst_uuid id;
    bool internal;
    int32_t partitions;
    int32_t operations;
} seen_topic;

typedef struct {
    int32_t brokers;
    char host[64];
    int32_t port;
    char cluster_id[64];
    int32_t controller;
    int32_t count;
    seen_topic topics[16];
    int32_t cluster_operations;
    int16_t error;
} seen_metadata;

/* `count` -1: null (0 in version 0). Names may be NULL when ids are given. */
static void send_metadata(int fd, int16_t version, const char *const *names, const pst_uuid *ids,
                          int32_t count, bool auto_create) {
    pst_writer w = test_request(&out, PST_API_METADATA, version, version, "c");
    bool flexible = version >= 9;
    pst_writer_any_array(&w, flexible, version == 0 && count < 0 ? 0 : count);
    for (int32_t i = 0; i < count; i++) {
        pst_slice name = pst_slice_str(names != NULL && names[i] != NULL ? names[i] : "");
        if (version >= 10) {
            pst_writer_uuid(&w, ids != NULL ? ids[i] : (pst_uuid){{0}});
        }
        pst_writer_any_string(&w, flexible, names != NULL && names[i] != NULL ? &name : NULL);
        pst_writer_no_tagged(&w, flexible);
    }
    if (version >= 4) {
        pst_writer_bool(&w, auto_create);
    }
    if (version >= 8 && version <= 10) {
        pst_writer_bool(&w, true);
    }
    if (version >= 8) {
        pst_writer_bool(&w, true);
    }
    pst_writer_no_tagged(&w, flexible);
    test_send_buffer(fd, &out);
}

static void copy_text(char *to, pst_slice text) {
    CHECK(text.size < 64);
    if (text.size > 0) {
        memcpy(to, text.data, text.size);
    }
    to[text.size] = '\0';
}

static void read_partition(pst_reader *r, int16_t version, int32_t index) {
    bool flexible = version >= 9;
    CHECK_EQ(pst_reader_i16(r), 0);
    CHECK_EQ(pst_reader_i32(r), index);
    CHECK_EQ(pst_reader_i32(r), 7);
    if (version >= 7) {
        CHECK_EQ(pst_reader_i32(r), 4);
    }
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(pst_reader_any_array(r, flexible, 4), 1);
        CHECK_EQ(pst_reader_i32(r), 7);
    }
    if (version >= 5) {
        CHECK_EQ(pst_reader_any_array(r, flexible, 4), 0);
    }
    if (flexible) {
        pst_reader_skip_tagged(r);
    }
}

static seen_topic read_topic(pst_reader *r, int16_t version) {
    bool flexible = version >= 9;
    seen_topic topic = {.error = pst_reader_i16(r)};
    copy_text(topic.name, pst_reader_any_nullable_string(r, flexible, &topic.name_null));
    if (version >= 10) {
        topic.id = pst_reader_uuid(r);
    }
    if (version >= 1) {
        topic.internal = pst_reader_bool(r);
    }
    topic.partitions = pst_reader_any_array(r, flexible, 10);
    for (int32_t i = 0; i < topic.partitions; i++) {
        read_partition(r, version, i);
    }
    topic.operations = version >= 8 ? pst_reader_i32(r) : 0;
    if (flexible) {
        pst_reader_skip_tagged(r);
    }
    return topic;
}

static seen_metadata receive_metadata(int fd, int16_t version) {
    CHECK(test_response(fd, &in));
    pst_reader reader = test_body(&in, PST_API_METADATA, version, version);
    pst_reader *r = &reader;
    bool flexible = version >= 9;
    bool null;
    seen_metadata m = {0};
    if (version >= 3) {
        CHECK_EQ(pst_reader_i32(r), 0);
    }
    m.brokers = pst_reader_any_array(r, flexible, 8);
    for (int32_t i = 0; i < m.brokers; i++) {
        CHECK_EQ(pst_reader_i32(r), 7);
        copy_text(m.host, pst_reader_any_string(r, flexible));
        m.port = pst_reader_i32(r);
        if (version >= 1) {
            (void)pst_reader_any_nullable_string(r, flexible, &null);
            CHECK(null);
        }
        if (flexible) {
            pst_reader_skip_tagged(r);
        }
    }
    if (version >= 2) {
        copy_text(m.cluster_id, pst_reader_any_nullable_string(r, flexible, &null));
    }
    if (version >= 1) {
        m.controller = pst_reader_i32(r);
    }
    m.count = pst_reader_any_array(r, flexible, 2);
    CHECK(m.count <= 16);
    for (int32_t i = 0; i < m.count; i++) {
        m.topics[i] = read_topic(r, version);
    }
    m.cluster_operations = version >= 8 && version <= 10 ? pst_reader_i32(r) : 0;
    m.error = version >= 13 ? pst_reader_i16(r) : 0;
    if (flexible) {
        pst_reader_skip_tagged(r);
    }
    CHECK_EQ(pst_reader_finish(r), 0);
    return m;
}

static void test_every_version_lists_all_topics_in_order(test_broker *t) {
    int fd = test_connect(t->net);
    for (int16_t version = 0; version <= 13; version++) {
        send_metadata(fd, version, NULL, NULL, -1, true);
        seen_metadata m = receive_metadata(fd, version);
        CHECK_EQ(m.brokers, 1);
        CHECK(strcmp(m.host, "here.example") == 0 && m.port == 9092);
        CHECK(version < 2 || strcmp(m.cluster_id, "test-cluster-id") == 0);
        CHECK(version < 1 || m.controller == 7);
        CHECK_EQ(m.count, 3);
        CHECK(strcmp(m.topics[0].name, "__consumer_offsets") == 0);
        CHECK_EQ(m.topics[0].internal, version >= 1);
        CHECK(strcmp(m.topics[1].name, "alpha") == 0 && m.topics[1].partitions == 3);
        CHECK(strcmp(m.topics[2].name, "beta") == 0 && m.topics[2].partitions == 1);
        if (version >= 8) {
            CHECK_EQ(m.topics[1].operations, 3576);
        }
        if (version >= 8 && version <= 10) {
            CHECK_EQ(m.cluster_operations, 8096);
        }
        if (version >= 10) {
            pst_uuid id = test_uuid(1);
            CHECK(pst_uuid_eq(&m.topics[1].id, &id));
        }
    }
    close(fd);
}

static void test_named_topics_answer_each_once_and_unknown_ones_with_codes(test_broker *t) {
    static const char *const names[] = {"beta", "missing", "beta", "bad/name", "", "missing", ".."};
    int fd = test_connect(t->net);
    for (int16_t version = 0; version <= 13; version++) {
        send_metadata(fd, version, names, NULL, 7, true);
        seen_metadata m = receive_metadata(fd, version);
        CHECK_EQ(m.count, 5);
        CHECK_EQ(m.topics[0].error, 0);
        CHECK_EQ(m.topics[1].error, PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
        CHECK(strcmp(m.topics[1].name, "missing") == 0);
        for (int i = 2; i < 5; i++) {
            CHECK_EQ(m.topics[i].error, PST_KAFKA_INVALID_TOPIC_EXCEPTION);
        }
        if (version >= 1) {
            send_metadata(fd, version, NULL, NULL, 0, true);
            CHECK_EQ(receive_metadata(fd, version).count, 0);
        }
    }
    close(fd);
}

static void test_ids_are_served_from_version_12(test_broker *t) {
    pst_uuid ids[] = {test_uuid(2), test_uuid(99), test_uuid(2)};
    int fd = test_connect(t->net);
    for (int16_t version = 12; version <= 13; version++) {
        send_metadata(fd, version, NULL, ids, 3, true);
        seen_metadata m = receive_metadata(fd, version);
        CHECK_EQ(m.count, 2);
        CHECK(m.topics[0].error == 0 && strcmp(m.topics[0].name, "beta") == 0);
        CHECK_EQ(m.topics[1].error, PST_KAFKA_UNKNOWN_TOPIC_ID);
        CHECK(m.topics[1].name_null && pst_uuid_eq(&m.topics[1].id, &ids[1]));
        CHECK_EQ(m.topics[1].operations, INT32_MIN);
    }
    static const char *const names[] = {"beta", "beta", "beta"};
    send_metadata(fd, 11, names, ids, 3, true);
    seen_metadata m = receive_metadata(fd, 11);
    CHECK_EQ(m.brokers, 0);
    CHECK_EQ(m.topics[0].error, PST_KAFKA_INVALID_REQUEST);
    close(fd);
}

static void test_missing_topic_goes_up_once_and_is_answered_after_creation(test_broker *t) {
    static const char *const names[] = {"fresh"};
    int fd = test_connect(t->net);
    test_publish_cluster(t, true);
    send_metadata(fd, 12, names, NULL, 1, false);
    CHECK_EQ(receive_metadata(fd, 12).topics[0].error, PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    send_metadata(fd, 12, names, NULL, 1, true);
    pst_control_request up = test_take_up(t);
    CHECK_EQ(up.api_key, PST_API_METADATA);
    pst_log_config config = test_config();
    test_publish_topic(t, "fresh", 50, 2, &config, false);
    pst_broker_redispatch(t->broker, up.token, up.frame);
    seen_metadata m = receive_metadata(fd, 12);
    CHECK(m.topics[0].error == 0 && m.topics[0].partitions == 2);
    /* The control plane could not create it: the answer is final all the same. */
    static const char *const refused[] = {"refused"};
    send_metadata(fd, 3, refused, NULL, 1, true);
    up = test_take_up(t);
    pst_broker_redispatch(t->broker, up.token, up.frame);
    CHECK_EQ(receive_metadata(fd, 3).topics[0].error, PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    /* A name that can never exist does not go up. */
    static const char *const illegal[] = {"no/way"};
    send_metadata(fd, 3, illegal, NULL, 1, true);
    CHECK_EQ(receive_metadata(fd, 3).topics[0].error, PST_KAFKA_INVALID_TOPIC_EXCEPTION);
    test_publish_cluster(t, false);
    test_remove_topic(t, 50);
    close(fd);
}

static void test_cut_and_lying_requests_close_the_connection(test_broker *t) {
    static const char *const names[] = {"alpha"};
    int discard = test_connect(t->net);
    for (int16_t version = 1; version <= 13; version += 12) {
        send_metadata(discard, version, names, NULL, 1, true);
        (void)receive_metadata(discard, version);
        size_t size = out.size;
        for (size_t cut = 10; cut < size; cut++) {
            int fd = test_connect(t->net);
            send_frame(fd, out.data, (uint32_t)cut);
            CHECK(!test_response(fd, &in));
            close(fd);
        }
    }
    pst_writer w = test_request(&out, PST_API_METADATA, 1, 1, "c");
    pst_writer_i32(&w, INT32_MAX);
    int fd = test_connect(t->net);
    test_send_buffer(fd, &out);
    CHECK(!test_response(fd, &in));
    close(fd);
    close(discard);
}

int main(void) {
    test_broker t;
    test_broker_start(&t, 2);
    pst_log_config config = test_config();
    test_publish_topic(&t, "beta", 2, 1, &config, false);
    test_publish_topic(&t, "alpha", 1, 3, &config, false);
    test_publish_topic(&t, "__consumer_offsets", 3, 5, &config, true);
    test_every_version_lists_all_topics_in_order(&t);
    test_named_topics_answer_each_once_and_unknown_ones_with_codes(&t);
    test_ids_are_served_from_version_12(&t);
    test_missing_topic_goes_up_once_and_is_answered_after_creation(&t);
    test_cut_and_lying_requests_close_the_connection(&t);
    test_broker_stop(&t);
    pst_byte_buffer_fini(&in);
    pst_byte_buffer_fini(&out);
    return 0;
}
