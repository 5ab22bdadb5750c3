/* test_broker_dispatch.c - headers, ApiVersions, and the way up to the control plane and back. */
#include "test_broker_support.h"

static pst_byte_buffer out;
static pst_byte_buffer in;

static void send_api_versions(int fd, int16_t version, int32_t correlation_id, const char *name,
                              const char *cluster_id, int32_t node_id) {
    pst_writer w = test_request(&out, PST_API_API_VERSIONS, version, correlation_id, "c");
    if (version >= 3) {
        pst_writer_compact_string(&w, pst_slice_str(name));
        pst_writer_compact_string(&w, pst_slice_str("1.2-3"));
        if (version >= 5) {
            pst_slice id = pst_slice_str(cluster_id != NULL ? cluster_id : "");
            pst_writer_any_string(&w, true, cluster_id != NULL ? &id : NULL);
            pst_writer_i32(&w, node_id);
        }
        pst_writer_u8(&w, 0);
    }
    test_send_buffer(fd, &out);
}

/* The error of a response; checks the table when there is none. */
static int16_t receive_api_versions(int fd, int16_t version, int32_t correlation_id) {
    CHECK(test_response(fd, &in));
    pst_reader r = pst_reader_of(pst_byte_buffer_slice(&in));
    CHECK_EQ(pst_reader_i32(&r), correlation_id);
    int16_t error = pst_reader_i16(&r);
    int32_t count = pst_reader_any_array(&r, version >= 3, 6);
    bool produce = false;
    for (int32_t i = 0; i < count; i++) {
        int16_t key = pst_reader_i16(&r);
        int16_t min = pst_reader_i16(&r);
        int16_t max = pst_reader_i16(&r);
        produce = produce || (key == PST_API_PRODUCE && min == 0 && max == 13);
        CHECK(pst_api_find(key)->where != PST_API_NOWHERE);
        if (version >= 3) {
            pst_reader_skip_tagged(&r);
        }
    }
    CHECK_EQ(produce, error == 0);
    if (version >= 1) {
        CHECK_EQ(pst_reader_i32(&r), 0);
    }
    if (version >= 3) {
        pst_reader_skip_tagged(&r);
    }
    CHECK_EQ(pst_reader_finish(&r), 0);
    return error;
}

static void test_api_versions_answers_every_version(test_broker *t) {
    int fd = test_connect(t->net);
    for (int16_t version = 0; version <= 5; version++) {
        send_api_versions(fd, version, version, "librdkafka", "test-cluster-id", 7);
        CHECK_EQ(receive_api_versions(fd, version, version), 0);
        if (version >= 3) {
            send_api_versions(fd, version, 50, "bad name", NULL, -1);
            CHECK_EQ(receive_api_versions(fd, version, 50), PST_KAFKA_INVALID_REQUEST);
        }
    }
    send_api_versions(fd, 5, 1, "a", NULL, 1);
    CHECK_EQ(receive_api_versions(fd, 5, 1), 0);
    send_api_versions(fd, 5, 2, "a", "other", 7);
    CHECK_EQ(receive_api_versions(fd, 5, 2), PST_KAFKA_REBOOTSTRAP_REQUIRED);
    send_api_versions(fd, 5, 3, "a", "test-cluster-id", 8);
    CHECK_EQ(receive_api_versions(fd, 5, 3), PST_KAFKA_REBOOTSTRAP_REQUIRED);
    close(fd);
}

static void test_too_new_api_versions_gets_error_35_in_a_v0_body(test_broker *t) {
    static const int16_t versions[] = {6, 99, INT16_MAX, -1};
    int fd = test_connect(t->net);
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        send_api_versions(fd, versions[i], 9, "x", NULL, -1);
        CHECK(test_response(fd, &in));
        static const uint8_t expected[] = {0, 0, 0, 9, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 5};
        CHECK_EQ(in.size, sizeof expected);
        CHECK(memcmp(in.data, expected, sizeof expected) == 0);
    }
    close(fd);
}

static void expect_refused(test_broker *t, const uint8_t *bytes, uint32_t size) {
    int fd = test_connect(t->net);
    send_frame(fd, bytes, size);
    CHECK(!test_response(fd, &in));
    close(fd);
}

static void test_what_is_not_served_closes_the_connection(test_broker *t) {
    static const struct {
        int16_t key, version;
    } requests[] = {{4, 0},
                    {95, 0},
                    {1000, 0},
                    {-1, 0},
                    {PST_API_PRODUCE, 2},
                    {PST_API_PRODUCE, 14},
                    {PST_API_METADATA, 14},
                    {PST_API_METADATA, -1},
                    {PST_API_END_TXN, 0}};
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        test_request(&out, requests[i].key, requests[i].version, 1, "c");
        expect_refused(t, out.data, (uint32_t)out.size);
    }
    /* Every cut of a flexible request: nothing but a close, and no one else suffers. */
    pst_writer w = test_request(&out, PST_API_API_VERSIONS, 3, 1, "client");
    pst_writer_compact_string(&w, pst_slice_str("name"));
    pst_writer_compact_string(&w, pst_slice_str("1"));
    pst_writer_u8(&w, 0);
    for (size_t cut = 0; cut < out.size; cut++) {
        expect_refused(t, out.data, (uint32_t)cut);
    }
}

static void respond(test_broker *t, const pst_control_request *up, const char *text) {
    char *bytes = strdup(text);
    pst_broker_respond(t->broker, up->token, (uint8_t *)bytes, strlen(bytes));
    pst_frame_release(up->frame);
}

static void expect_text(int fd, const char *text) {
    CHECK(test_response(fd, &in));
    CHECK_EQ(in.size, strlen(text));
    CHECK(memcmp(in.data, text, in.size) == 0);
}

static void test_control_requests_go_up_whole_and_are_answered_in_order(test_broker *t) {
    int fd = test_connect(t->net);
    pst_writer w = test_request(&out, PST_API_FIND_COORDINATOR, 0, 1, "me");
    pst_writer_string(&w, pst_slice_str("group"));
    test_send_buffer(fd, &out);
    pst_control_request up = test_take_up(t);
    CHECK_EQ(up.api_key, PST_API_FIND_COORDINATOR);
    CHECK_EQ(up.api_version, 0);
    CHECK_EQ(up.listener, 3);
    CHECK(strcmp(up.peer, "127.0.0.1") == 0);
    CHECK(pst_slice_eq(pst_slice_of(up.frame->data, up.frame->size), pst_byte_buffer_slice(&out)));
    /* Not a barrier: what follows is answered at once, but leaves behind it. */
    send_api_versions(fd, 0, 2, "", NULL, 0);
    usleep(20000);
    respond(t, &up, "first");
    expect_text(fd, "first");
    CHECK_EQ(receive_api_versions(fd, 0, 2), 0);
    close(fd);
}

static void test_barrier_holds_the_connection_until_it_is_answered(test_broker *t) {
    int fd = test_connect(t->net);
    test_request(&out, PST_API_CREATE_TOPICS, 2, 1, "me");
    test_send_buffer(fd, &out);
    pst_control_request up = test_take_up(t);
    pst_broker_statistics before;
    pst_broker_get_statistics(t->broker, &before);
    send_api_versions(fd, 0, 2, "", NULL, 0);
    usleep(50000);
    pst_broker_statistics after;
    pst_broker_get_statistics(t->broker, &after);
    CHECK_EQ(after.requests, before.requests);
    respond(t, &up, "created");
    expect_text(fd, "created");
    CHECK_EQ(receive_api_versions(fd, 0, 2), 0);
    close(fd);
}

static void test_full_ring_drops_nothing_and_keeps_order(test_broker *t) {
    enum { CLIENTS = 5, REQUESTS = 3 };
    t->up_room = 0;
    int fds[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = test_connect(t->net);
        for (int k = 0; k < REQUESTS; k++) {
            test_request(&out, PST_API_FIND_COORDINATOR, 0, k, "me");
            test_send_buffer(fds[i], &out);
        }
    }
    usleep(50000);
    CHECK_EQ(t->up_count, 0);
    int taken = 0;
    while (taken < CLIENTS * REQUESTS) {
        pthread_mutex_lock(&t->lock);
        t->up_room = 2;
        pthread_mutex_unlock(&t->lock);
        pst_broker_control_drained(t->broker);
        pst_control_request up = test_take_up(t);
        pst_request request;
        CHECK_EQ(pst_broker__parse_header(up.frame->data, up.frame->size, &request), 0);
        char text[8];
        snprintf(text, sizeof text, "%d", request.correlation_id);
        respond(t, &up, text);
        taken++;
    }
    for (int i = 0; i < CLIENTS; i++) {
        expect_text(fds[i], "0");
        expect_text(fds[i], "1");
        expect_text(fds[i], "2");
        close(fds[i]);
    }
    t->up_room = TEST_CONTROL_MAX;
}

static void test_stale_tokens_and_closes(test_broker *t) {
    int fd = test_connect(t->net);
    test_request(&out, PST_API_FIND_COORDINATOR, 0, 1, "me");
    test_send_buffer(fd, &out);
    pst_control_request up = test_take_up(t);
    pst_control_request again = up;
    again.frame = NULL;
    respond(t, &up, "once");
    expect_text(fd, "once");
    respond(t, &again, "twice");
    test_send_buffer(fd, &out);
    up = test_take_up(t);
    pst_broker_close_connection(t->broker, up.token);
    CHECK(!test_response(fd, &in));
    respond(t, &up, "late");
    close(fd);
}

int main(void) {
    test_broker t;
    test_broker_start(&t, 2);
    test_api_versions_answers_every_version(&t);
    test_too_new_api_versions_gets_error_35_in_a_v0_body(&t);
    test_what_is_not_served_closes_the_connection(&t);
    test_control_requests_go_up_whole_and_are_answered_in_order(&t);
    test_barrier_holds_the_connection_until_it_is_answered(&t);
    test_full_ring_drops_nothing_and_keeps_order(&t);
    test_stale_tokens_and_closes(&t);
    test_broker_stop(&t);
    pst_byte_buffer_fini(&in);
    pst_byte_buffer_fini(&out);
    return 0;
}
