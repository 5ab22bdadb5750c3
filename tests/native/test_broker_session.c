/* Incremental fetch sessions (KIP-227): what is told again, what is remembered, who owns them, how
 * they end. */
#include "broker/fetch_private.h"
#include "test_broker_fetch_support.h"

static int64_t session_count(fixture *fx) {
    return pst_fetch__session_count(fx->broker);
}

static fetch_ask full(int16_t version, int count, const ask_part *parts) {
    fetch_ask ask = fetch_of(version, count, parts);
    ask.session_epoch = 0;
    return ask;
}

static fetch_ask incremental(int16_t version, int32_t id, int32_t epoch, int count,
                             const ask_part *parts) {
    fetch_ask ask = fetch_of(version, count, parts);
    ask.session_id = id;
    ask.session_epoch = epoch;
    return ask;
}

static int32_t open_session(int fd, int16_t version, int count, const ask_part *parts) {
    fetch_ask ask = full(version, count, parts);
    fetch_got got = fetch(fd, &ask);
    CHECK_EQ(got.error, 0);
    free(got.data);
    return got.session_id;
}

/* Sends an empty incremental fetch and frees the records. */
static fetch_got next(int fd, int16_t version, int32_t id, int32_t epoch) {
    fetch_ask ask = incremental(version, id, epoch, 0, NULL);
    fetch_got got = fetch(fd, &ask);
    free(got.data);
    return got;
}

static void close_all(int fd, int16_t version, int32_t id) {
    fetch_ask ask = fetch_of(version, 0, NULL);
    ask.session_id = id;
    fetch_got got = fetch(fd, &ask);
    CHECK_EQ(got.error, 0);
    CHECK_EQ(got.session_id, 0);
    free(got.data);
}

static void test_only_changes_are_told(fixture *fx) {
    fx_publish(fx, "changes", 1, 3, 0);
    int fd = test_connect(fx->net);
    for (int16_t v = 7; v <= 18; v++) {
        ask_part parts[] = {ASK("changes", 1, 0, 0), ASK("changes", 1, 1, 0),
                            ASK("changes", 1, 2, 0)};
        fetch_ask ask = full(v, 3, parts);
        fetch_got got = fetch(fd, &ask);
        CHECK_EQ(got.error, 0);
        CHECK_EQ(got.count, 3);
        int32_t id = got.session_id;
        CHECK(id > 0);
        for (int i = 0; i < 3; i++) {
            parts[i].offset = got.parts[i].high_watermark;
        }
        free(got.data);
        ask = incremental(v, id, 1, 3, parts);
        got = fetch(fd, &ask);
        CHECK_EQ(got.error, 0);
        CHECK_EQ(got.session_id, id);
        CHECK_EQ(got.count, 0);
        free(got.data);
        fx_append(fx, 1, 1, 2, 50, 1000);
        got = next(fd, v, id, 2);
        CHECK_EQ(got.count, 1);
        CHECK_EQ(got.parts[0].index, 1);
        CHECK_EQ(got.parts[0].high_watermark, parts[1].offset + 2);
        CHECK(got.parts[0].size > 0);
        parts[1].offset += 2;
        ask = incremental(v, id, 3, 1, &parts[1]);
        got = fetch(fd, &ask);
        CHECK_EQ(got.count, 0);
        free(got.data);
        close_all(fd, v, id);
        CHECK_EQ(next(fd, v, id, 4).error, PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    }
    CHECK_EQ(session_count(fx), 0);
    close(fd);
}

static void test_a_changed_log_start_is_told(fixture *fx) {
    fx_publish(fx, "start", 2, 1, 0);
    fx_append(fx, 2, 0, 5, 10, 1000);
    int fd = test_connect(fx->net);
    ask_part part = ASK("start", 2, 0, 5);
    int32_t id = open_session(fd, 13, 1, &part);
    CHECK_EQ(next(fd, 13, id, 1).count, 0);
    pst_uuid topic = fx_id(2);
    int64_t log_start;
    CHECK_EQ(pst_broker_delete_records(fx->broker, &topic, 0, 3, &log_start), 0);
    fetch_got got = next(fd, 13, id, 2);
    CHECK_EQ(got.count, 1);
    CHECK_EQ(got.parts[0].log_start, 3);
    CHECK_EQ(got.parts[0].size, 0);
    CHECK_EQ(next(fd, 13, id, 3).count, 0);
    close_all(fd, 13, id);
    close(fd);
}

static void test_partitions_with_data_move_to_the_end(fixture *fx) {
    fx_publish(fx, "rotate", 3, 4, 0);
    for (int32_t i = 0; i < 4; i++) {
        fx_append(fx, 3, i, 1, 1000, 1000);
    }
    int fd = test_connect(fx->net);
    ask_part parts[4];
    for (int32_t i = 0; i < 4; i++) {
        parts[i] = ASK("rotate", 3, i, 0);
    }
    int32_t id = open_session(fd, 12, 4, parts);
    for (int i = 0; i < 8; i++) { /* room for one partition each time: everybody gets a turn */
        fetch_ask ask = incremental(12, id, 1 + i, 0, NULL);
        ask.max_bytes = 500;
        fetch_got got = fetch(fd, &ask);
        int with_data = 0;
        for (int k = 0; k < got.count; k++) {
            if (got.parts[k].size > 0) {
                CHECK_EQ(got.parts[k].index, i % 4);
                with_data++;
            }
        }
        CHECK_EQ(with_data, 1);
        free(got.data);
    }
    close_all(fd, 12, id);
    close(fd);
}

/* Free slots carry the id 0: asking for it must not wait for a session. */
static void test_session_zero_is_not_found(fixture *fx) {
    int fd = test_connect(fx->net);
    CHECK_EQ(next(fd, 13, 0, 2).error, PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    CHECK_EQ(next(fd, 13, 0, INT32_MIN).error, PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    close(fd);
}

static void test_errors_of_sessions(fixture *fx) {
    fx_publish(fx, "wrong", 4, 1, 0);
    int fd = test_connect(fx->net);
    ask_part part = ASK("wrong", 4, 0, 0);
    int32_t id = open_session(fd, 13, 1, &part);
    CHECK_EQ(next(fd, 13, id, 2).error, PST_KAFKA_INVALID_FETCH_SESSION_EPOCH);
    CHECK_EQ(next(fd, 13, id, -2).error, PST_KAFKA_INVALID_FETCH_SESSION_EPOCH);
    CHECK_EQ(next(fd, 12, id, 1).error, PST_KAFKA_FETCH_SESSION_TOPIC_ID_ERROR);
    CHECK_EQ(next(fd, 13, id, 1).error, 0);
    CHECK_EQ(next(fd, 13, id, 1).error, PST_KAFKA_INVALID_FETCH_SESSION_EPOCH);
    fetch_got got = next(fd, 13, id ^ 0x40000000, 2);
    CHECK_EQ(got.error, PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    CHECK_EQ(got.session_id, 0);
    CHECK_EQ(next(fd, 13, 0, 2).error, PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    CHECK_EQ(next(fd, 13, -7, 2).error, PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    CHECK_EQ(next(fd, 13, INT32_MAX, 2).error, PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    fetch_ask ask = full(13, 1, &part); /* a full fetch that names the old session ends it */
    ask.session_id = id;
    got = fetch(fd, &ask);
    CHECK(got.session_id > 0 && got.session_id != id);
    free(got.data);
    CHECK_EQ(next(fd, 13, id, 2).error, PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    CHECK_EQ(session_count(fx), 1);
    close_all(fd, 13, got.session_id);
    close(fd);
    CHECK_EQ(pst_fetch__next_epoch(INT32_MAX), 1);
    CHECK_EQ(pst_fetch__next_epoch(0), 1);
    CHECK_EQ(pst_fetch__next_epoch(-1), -1);
}

static void test_forgotten_partitions_leave(fixture *fx) {
    fx_publish(fx, "forget", 5, 2, 0);
    fx_append(fx, 5, 0, 1, 10, 1000);
    fx_append(fx, 5, 1, 1, 10, 1000);
    int fd = test_connect(fx->net);
    for (int16_t v = 12; v <= 13; v++) {
        ask_part parts[] = {ASK("forget", 5, 0, 0), ASK("forget", 5, 1, 0)};
        int32_t id = open_session(fd, v, 2, parts);
        fetch_ask ask = incremental(v, id, 1, 0, NULL);
        ask.forget_count = 1;
        ask.forget[0] = parts[0];
        fetch_got got = fetch(fd, &ask);
        CHECK_EQ(got.count, 1);
        CHECK_EQ(got.parts[0].index, 1);
        free(got.data);
        ask = incremental(v, id, 2, 1, &parts[0]); /* and comes back */
        got = fetch(fd, &ask);
        CHECK_EQ(got.count, 2);
        free(got.data);
        ask = incremental(v, id, 3, 0, NULL);
        ask.forget_count = 2;
        ask.forget[0] = parts[0];
        ask.forget[1] = parts[1];
        got = fetch(fd, &ask); /* nothing left: the session ends */
        CHECK_EQ(got.error, 0);
        CHECK_EQ(got.session_id, 0);
        CHECK_EQ(got.count, 0);
        free(got.data);
        CHECK_EQ(next(fd, v, id, 4).error, PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    }
    CHECK_EQ(session_count(fx), 0);
    close(fd);
}

static void test_unknown_topics_resolve_later_and_recreated_ones_are_inconsistent(fixture *fx) {
    int fd = test_connect(fx->net);
    ask_part part = ASK("later", 30, 0, 0);
    fetch_ask ask = full(13, 1, &part);
    fetch_got got = fetch(fd, &ask);
    CHECK_EQ(got.parts[0].error, PST_KAFKA_UNKNOWN_TOPIC_ID);
    int32_t id = got.session_id;
    CHECK(id > 0);
    free(got.data);
    CHECK_EQ(next(fd, 13, id, 1).parts[0].error, PST_KAFKA_UNKNOWN_TOPIC_ID);
    fx_publish(fx, "later", 30, 1, 0);
    got = next(fd, 13, id, 2); /* told again, now that the error is gone */
    CHECK_EQ(got.count, 1);
    CHECK_EQ(got.parts[0].error, 0);
    CHECK_EQ(got.parts[0].high_watermark, 0);
    CHECK_EQ(next(fd, 13, id, 3).count, 0);
    fx_delete(fx, 30);
    CHECK_EQ(next(fd, 13, id, 4).parts[0].error, PST_KAFKA_UNKNOWN_TOPIC_ID);
    fx_publish(fx, "later", 31, 1, 0);
    CHECK_EQ(next(fd, 13, id, 5).parts[0].error, PST_KAFKA_INCONSISTENT_TOPIC_ID);
    close_all(fd, 13, id);
    close(fd);
}

/* ---- owners ---- */

static void test_a_session_follows_its_client_between_reactors(fixture *fx) {
    fx_publish(fx, "move", 6, 2, 0);
    int fds[4];
    for (int i = 0; i < 4; i++) {
        fds[i] = test_connect(fx->net);
    }
    ask_part parts[] = {ASK("move", 6, 0, 0), ASK("move", 6, 1, 0)};
    int32_t id = open_session(fds[0], 13, 2, parts);
    for (int32_t epoch = 1; epoch < 200; epoch++) {
        fetch_got got = next(fds[epoch % 4], 13, id, epoch);
        CHECK_EQ(got.error, 0);
        CHECK_EQ(got.session_id, id);
        CHECK_EQ(got.count, 0);
        if (epoch % 10 == 0) { /* wrong from elsewhere: the session stays as it is */
            CHECK_EQ(next(fds[(epoch + 1) % 4], 13, id, epoch).error,
                     PST_KAFKA_INVALID_FETCH_SESSION_EPOCH);
            CHECK_EQ(next(fds[(epoch + 1) % 4], 12, id, epoch + 1).error,
                     PST_KAFKA_FETCH_SESSION_TOPIC_ID_ERROR);
        }
    }
    close_all(fds[1], 13, id); /* from any connection */
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(next(fds[i], 13, id, 200).error, PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
        close(fds[i]);
    }
    CHECK_EQ(session_count(fx), 0);
}

static void test_sessions_survive_their_connection(fixture *fx) {
    fx_publish(fx, "survive", 7, 1, 0);
    ask_part part = ASK("survive", 7, 0, 0);
    int fd = test_connect(fx->net);
    int32_t id = open_session(fd, 13, 1, &part);
    close(fd);
    for (int32_t epoch = 1; epoch < 20; epoch++) {
        fd = test_connect(fx->net);
        CHECK_EQ(next(fd, 13, id, epoch).error, 0);
        close(fd);
    }
    fd = test_connect(fx->net);
    close_all(fd, 13, id);
    close(fd);
}

static void test_a_fetch_overtaken_elsewhere_is_refused(fixture *fx) {
    fx_publish(fx, "overtake", 8, 1, 0);
    for (int i = 0; i < 4; i++) {
        int fds[2] = {test_connect(fx->net), test_connect(fx->net)};
        if (i % 2 == 1) { /* so that both fall on one reactor half of the time */
            close(fds[1]);
            fds[1] = test_connect(fx->net);
        }
        ask_part part = ASK("overtake", 8, 0, i);
        int32_t id = open_session(fds[0], 13, 1, &part);
        fetch_ask ask = incremental(13, id, 1, 0, NULL);
        ask.max_wait_ms = 20000;
        int64_t parked = fx_parked(fx);
        fetch_send(fds[0], 900, &ask);
        WAIT_UNTIL(fx_parked(fx) == parked + 1);
        CHECK_EQ(next(fds[1], 13, id, 2).error, 0);
        fx_append(fx, 8, 0, 1, 10, 1000);
        fetch_got got = fetch_receive(fds[0], 900, 13);
        CHECK_EQ(got.error, PST_KAFKA_INVALID_FETCH_SESSION_EPOCH);
        CHECK_EQ(got.session_id, id);
        CHECK_EQ(got.count, 0);
        free(got.data);
        got = next(fds[1], 13, id, 3);
        CHECK_EQ(got.count, 1);
        CHECK(got.parts[0].size > 0);
        close_all(fds[1], 13, id);
        close(fds[0]);
        close(fds[1]);
    }
}

static void test_pipelined_fetches_of_one_connection_keep_their_order(fixture *fx) {
    fx_publish(fx, "pipeline", 9, 1, 0);
    int fd = test_connect(fx->net);
    ask_part part = ASK("pipeline", 9, 0, 0);
    int32_t id = open_session(fd, 13, 1, &part);
    for (int32_t epoch = 1; epoch <= 5; epoch++) {
        fetch_ask ask = incremental(13, id, epoch, 0, NULL);
        ask.max_wait_ms = 20000;
        fetch_send(fd, epoch, &ask);
    }
    for (int32_t epoch = 1; epoch <= 4;
         epoch++) { /* each later one ends the wait of the one before */
        fetch_got got = fetch_receive(fd, epoch, 13);
        CHECK_EQ(got.error, 0);
        CHECK_EQ(got.count, 0);
        free(got.data);
    }
    fx_append(fx, 9, 0, 1, 10, 1000);
    fetch_got got = fetch_receive(fd, 5, 13);
    CHECK_EQ(got.count, 1);
    free(got.data);
    close_all(fd, 13, id);
    close(fd);
}

static void *run_hopper(void *context) {
    fixture *fx = context;
    int fds[3] = {test_connect(fx->net), test_connect(fx->net), test_connect(fx->net)};
    for (int round = 0; round < 10; round++) {
        ask_part parts[] = {ASK("hop", 10, 0, 0), ASK("hop", 10, 1, 0)};
        int32_t id = open_session(fds[round % 3], 13, 2, parts);
        CHECK(id > 0);
        for (int32_t epoch = 1; epoch < 20; epoch++) {
            fetch_ask ask = incremental(13, id, epoch, 0, NULL);
            ask.max_wait_ms = epoch % 5 == 0 ? 2 : 0;
            fetch_got got = fetch(fds[(round + epoch) % 3], &ask);
            CHECK_EQ(got.error, 0);
            free(got.data);
        }
        close_all(fds[(round + 1) % 3], 13, id);
    }
    close(fds[0]);
    close(fds[1]);
    close(fds[2]);
    return NULL;
}

static void test_many_sessions_hop_at_once(fixture *fx) {
    fx_publish(fx, "hop", 10, 2, 0);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, run_hopper, fx), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK_EQ(session_count(fx), 0);
}

/* ---- eviction ---- */

static void test_full_store_makes_fetches_sessionless(void) {
    fixture fx;
    fx_start(&fx, 2, 2, 120000);
    fx_publish(&fx, "evict", 1, 2, 0);
    int fds[3] = {test_connect(fx.net), test_connect(fx.net), test_connect(fx.net)};
    ask_part parts[] = {ASK("evict", 1, 0, 0), ASK("evict", 1, 1, 0)};
    int32_t first = open_session(fds[0], 13, 1, parts);
    int32_t second = open_session(fds[1], 13, 2, parts);
    CHECK(first > 0 && second > 0);
    CHECK_EQ(open_session(fds[2], 13, 2, parts), 0); /* none is old enough */
    close_all(fds[2], 13, first);
    CHECK(open_session(fds[2], 13, 2, parts) > 0);
    CHECK_EQ(session_count(&fx), 2);
    for (int i = 0; i < 3; i++) {
        close(fds[i]);
    }
    fx_stop(&fx);
}

static void test_the_stale_session_is_evicted_whoever_owns_it(void) {
    fixture fx;
    fx_start(&fx, 2, 2, 1);
    fx_publish(&fx, "evict", 1, 2, 0);
    int fds[3] = {test_connect(fx.net), test_connect(fx.net), test_connect(fx.net)};
    ask_part parts[] = {ASK("evict", 1, 0, 0), ASK("evict", 1, 1, 0)};
    for (int round = 0; round < 20; round++) {
        int32_t old = open_session(fds[0], 13, 1, parts);
        int32_t other = open_session(fds[1], 13, 1, parts);
        int32_t id = 0;
        WAIT_UNTIL((id = open_session(fds[2], 13, 2, parts)) > 0);
        CHECK_EQ(session_count(&fx), 2);
        CHECK_EQ(next(fds[2], 13, id, 1).error, 0);
        int16_t a = old > 0 ? next(fds[0], 13, old, 1).error : PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND;
        int16_t b =
            other > 0 ? next(fds[1], 13, other, 1).error : PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND;
        CHECK(a == PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND ||
              b == PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    }
    for (int i = 0; i < 3; i++) {
        close(fds[i]);
    }
    fx_stop(&fx);
}

static void test_no_sessions_at_all(void) {
    fixture fx;
    fx_start(&fx, 1, 0, 120000);
    fx_publish(&fx, "none", 1, 1, 0);
    int fd = test_connect(fx.net);
    ask_part part = ASK("none", 1, 0, 0);
    CHECK_EQ(open_session(fd, 13, 1, &part), 0);
    CHECK_EQ(next(fd, 13, 1, 1).error, PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND);
    close(fd);
    fx_stop(&fx);
}

/* Stopping frees sessions and parked fetches (the leak checker looks). */
static void test_stop_with_fetches_parked(void) {
    fixture fx;
    fx_start(&fx, 2, 10, 120000);
    fx_publish(&fx, "stop", 1, 1, 0);
    ask_part part = ASK("stop", 1, 0, 0);
    int fds[4];
    for (int i = 0; i < 4; i++) {
        fds[i] = test_connect(fx.net);
        int32_t id = open_session(fds[i], 13, 1, &part);
        fetch_ask ask = incremental(13, id, 1, 0, NULL);
        ask.max_wait_ms = 60000;
        fetch_send(fds[i], 1, &ask);
    }
    WAIT_UNTIL(fx_parked(&fx) == 4);
    fx_stop(&fx);
    for (int i = 0; i < 4; i++) {
        close(fds[i]);
    }
}

int main(void) {
    fixture fx;
    fx_start(&fx, 2, 100, 120000);
    test_session_zero_is_not_found(&fx);
    test_only_changes_are_told(&fx);
    test_a_changed_log_start_is_told(&fx);
    test_partitions_with_data_move_to_the_end(&fx);
    test_errors_of_sessions(&fx);
    test_forgotten_partitions_leave(&fx);
    test_unknown_topics_resolve_later_and_recreated_ones_are_inconsistent(&fx);
    test_a_session_follows_its_client_between_reactors(&fx);
    test_sessions_survive_their_connection(&fx);
    test_a_fetch_overtaken_elsewhere_is_refused(&fx);
    test_pipelined_fetches_of_one_connection_keep_their_order(&fx);
    test_many_sessions_hop_at_once(&fx);
    fx_stop(&fx);
    test_full_store_makes_fetches_sessionless();
    test_the_stale_session_is_evicted_whoever_owns_it();
    test_no_sessions_at_all();
    test_stop_with_fetches_parked();
    return 0;
}
