/* Fetch without sessions: bytes in, bytes out, over loopback; limits, errors, parking and waking.
 */
#include <fcntl.h>

#include "test_broker_fetch_support.h"

static const int16_t VERSIONS[] = {4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18};

static void test_every_version_returns_the_batch_byte_for_byte(fixture *fx) {
    fx_publish(fx, "versions", 1, 2, 0);
    size_t size = fx_append(fx, 1, 0, 3, 100, 1000);
    int fd = test_connect(fx->net);
    for (size_t i = 0; i < sizeof VERSIONS / sizeof VERSIONS[0]; i++) {
        int16_t v = VERSIONS[i];
        ask_part parts[] = {ASK("versions", 1, 0, 0), ASK("versions", 1, 1, 0)};
        fetch_ask ask = fetch_of(v, 2, parts);
        fetch_got got = fetch(fd, &ask);
        CHECK_EQ(got.error, 0);
        CHECK_EQ(got.session_id, 0);
        CHECK_EQ(got.count, 2);
        CHECK_EQ(got.parts[0].error, 0);
        CHECK_EQ(got.parts[0].size, size);
        CHECK_EQ(got.parts[0].high_watermark, 3);
        CHECK_EQ(got.parts[0].last_stable, 3);
        CHECK_EQ(got.parts[0].log_start, v >= 5 ? 0 : -2);
        CHECK_EQ(got.parts[0].aborted, -1);
        CHECK_EQ(got.parts[1].size, 0);
        CHECK_EQ(got.parts[1].high_watermark, 0);
        pst_batch batch;
        CHECK_EQ(pst_batch_parse(got.parts[0].records, &batch), 0);
        CHECK_EQ(pst_batch_check_crc(&batch), 0);
        CHECK_EQ(got.parts[0].index, 0);
        if (v >= 13) {
            pst_uuid id = fx_id(1);
            CHECK(pst_uuid_eq(&got.parts[0].id, &id));
        } else {
            CHECK(strcmp(got.parts[0].topic, "versions") == 0);
        }
        free(got.data);
    }
    close(fd);
}

static void test_fetch_returns_whole_batch_for_mid_batch_offset(fixture *fx) {
    fx_publish(fx, "middle", 2, 1, 0);
    size_t size = fx_append(fx, 2, 0, 10, 10, 1000);
    int fd = test_connect(fx->net);
    ask_part part = ASK("middle", 2, 0, 7);
    fetch_ask ask = fetch_of(11, 1, &part);
    ask.isolation = 1;
    fetch_got got = fetch(fd, &ask);
    CHECK_EQ(got.parts[0].size, size);
    CHECK_EQ(got.parts[0].aborted, 0); /* read_committed: an empty list, not null */
    free(got.data);
    close(fd);
}

static int16_t error_of(int fd, int16_t version, ask_part part, fetch_got *got_out) {
    fetch_ask ask = fetch_of(version, 1, &part);
    fetch_got got = fetch(fd, &ask);
    free(got.data);
    CHECK_EQ(got.count, 1);
    *got_out = got;
    return got.parts[0].error;
}

static void test_errors_of_partitions(fixture *fx) {
    fx_publish(fx, "errors", 3, 1, 5);
    fx_append(fx, 3, 0, 4, 10, 1000);
    int fd = test_connect(fx->net);
    fetch_got got;
    CHECK_EQ(error_of(fd, 12, ASK("nobody", 0, 0, 0), &got), PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    CHECK_EQ(got.parts[0].high_watermark, -1);
    CHECK_EQ(got.parts[0].log_start, -1);
    CHECK_EQ(got.parts[0].aborted, 0);
    CHECK_EQ(error_of(fd, 12, ASK("errors", 0, 1, 0), &got), PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    CHECK_EQ(error_of(fd, 13, ASK("", 99, 0, 0), &got), PST_KAFKA_UNKNOWN_TOPIC_ID);
    CHECK_EQ(error_of(fd, 13, ASK("", 3, 1, 0), &got), PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    CHECK_EQ(error_of(fd, 13, ASK("", 3, 0, 5), &got), PST_KAFKA_OFFSET_OUT_OF_RANGE);
    CHECK_EQ(got.parts[0].high_watermark, -1);
    CHECK_EQ(got.parts[0].last_stable, -1);
    CHECK_EQ(got.parts[0].log_start, -1);
    CHECK_EQ(got.parts[0].aborted, -1);
    CHECK_EQ(error_of(fd, 13, ASK("", 3, 0, -1), &got), PST_KAFKA_OFFSET_OUT_OF_RANGE);
    CHECK_EQ(error_of(fd, 13, ASK("", 3, 0, 4), &got), 0);
    ask_part part = ASK("", 3, 0, 0);
    part.leader_epoch = 4;
    CHECK_EQ(error_of(fd, 13, part, &got), PST_KAFKA_FENCED_LEADER_EPOCH);
    CHECK_EQ(got.parts[0].leader_id, -1);
    CHECK_EQ(error_of(fd, 16, part, &got), PST_KAFKA_FENCED_LEADER_EPOCH);
    CHECK_EQ(got.parts[0].leader_id, 7);
    CHECK_EQ(got.parts[0].leader_epoch, 5);
    CHECK_EQ(got.endpoint_node, 7);
    part.leader_epoch = 6;
    CHECK_EQ(error_of(fd, 16, part, &got), PST_KAFKA_UNKNOWN_LEADER_EPOCH);
    CHECK_EQ(got.endpoint_node, -1);
    part.leader_epoch = 5;
    part.last_epoch = 5;
    CHECK_EQ(error_of(fd, 16, part, &got), 0);
    CHECK(got.parts[0].size > 0);
    part.offset = 9; /* beyond the end of that epoch */
    CHECK_EQ(error_of(fd, 16, part, &got), 0);
    CHECK_EQ(got.parts[0].diverging_epoch, 5);
    CHECK_EQ(got.parts[0].diverging_end, 4);
    CHECK_EQ(got.parts[0].size, 0);
    close(fd);
}

static void test_limits_of_bytes(fixture *fx) {
    fx_publish(fx, "limits", 4, 3, 0);
    size_t size = 0;
    for (int32_t i = 0; i < 3; i++) {
        size = fx_append(fx, 4, i, 1, 5000, 1000);
        fx_append(fx, 4, i, 1, 5000, 1000);
    }
    int fd = test_connect(fx->net);
    ask_part parts[] = {ASK("limits", 4, 2, 0), ASK("limits", 4, 0, 0), ASK("limits", 4, 1, 0)};
    fetch_ask ask = fetch_of(13, 3, parts);
    ask.max_bytes = 1; /* one whole batch of the first partition, nothing else */
    fetch_got got = fetch(fd, &ask);
    CHECK_EQ(got.parts[0].index, 2);
    CHECK(got.parts[0].size >= (int32_t)size);
    CHECK(got.parts[0].size < (int32_t)size * 2);
    CHECK_EQ(got.parts[1].size, 0);
    CHECK_EQ(got.parts[2].size, 0);
    free(got.data);
    ask = fetch_of(13, 3, parts);
    ask.parts[0].max_bytes = 10; /* the first one exceeds its own limit */
    ask.parts[1].max_bytes = 10; /* a later one does not: its first batch does not fit */
    got = fetch(fd, &ask);
    CHECK(got.parts[0].size >= (int32_t)size);
    CHECK(got.parts[0].size < (int32_t)size * 2);
    CHECK_EQ(got.parts[1].size, 0);
    CHECK_EQ(got.parts[2].size, size * 2);
    free(got.data);
    close(fd);
}

static void test_large_answers_leave_as_files_in_order(fixture *fx) {
    fx_publish(fx, "large", 5, 8, 0);
    size_t size = 0;
    for (int32_t i = 0; i < 8; i++) {
        size = fx_append(fx, 5, i, 1, i % 2 == 0 ? 100000 : 100, 1000);
    }
    int fd = test_connect(fx->net);
    ask_part parts[8];
    for (int32_t i = 0; i < 8; i++) {
        parts[i] = ASK("large", 5, i, 0);
    }
    for (int16_t v = 11; v <= 13; v++) {
        fetch_ask ask = fetch_of(v, 8, parts);
        fetch_got got = fetch(fd, &ask);
        CHECK_EQ(got.count, 8);
        for (int32_t i = 0; i < 8; i++) {
            CHECK_EQ(got.parts[i].index, i);
            CHECK(i % 2 == 0 ? got.parts[i].size > 100000 : got.parts[i].size == (int32_t)size);
            pst_batch batch;
            CHECK_EQ(pst_batch_parse(got.parts[i].records, &batch), 0);
            CHECK_EQ(pst_batch_check_crc(&batch), 0);
        }
        free(got.data);
    }
    close(fd);
}

/* ---- pages that are not in memory ---- */

static int forget_pages(const char *path, const struct stat *stat, int flag, struct FTW *ftw) {
    (void)stat;
    (void)ftw;
    size_t length = strlen(path);
    if (flag == FTW_F && length > 4 && strcmp(path + length - 4, ".log") == 0) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        CHECK(fd >= 0);
        CHECK_EQ(fsync(fd), 0);
        CHECK_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
        close(fd);
    }
    return 0;
}

static void test_absent_pages_are_read_off_the_reactor(fixture *fx) {
    fx_publish(fx, "cold", 12, 2, 0);
    for (int i = 0; i < 60; i++) { /* more than the tail holds */
        fx_append(fx, 12, i % 2, 1, 200000, 1000);
    }
    int fds[2] = {test_connect(fx->net), test_connect(fx->net)};
    for (int64_t offset = 0; offset < 20; offset += 5) {
        nftw(fx->dir, forget_pages, 16, FTW_PHYS);
        ask_part parts[] = {ASK("cold", 12, 0, offset), ASK("cold", 12, 1, offset)};
        fetch_ask ask = fetch_of(13, 2, parts);
        ask.max_wait_ms = 1000;
        ask.session_epoch = 0;
        fetch_send(fds[0], 1, &ask);
        fetch_send(fds[1], 2, &ask);
        for (int i = 0; i < 2; i++) {
            fetch_got got = fetch_receive(fds[i], i + 1, 13);
            CHECK_EQ(got.count, 2);
            CHECK(got.parts[0].size > 200000 && got.parts[1].size > 200000);
            pst_batch batch;
            CHECK_EQ(pst_batch_parse(got.parts[1].records, &batch), 0);
            CHECK_EQ(batch.base_offset, offset);
            CHECK_EQ(pst_batch_check_crc(&batch), 0);
            free(got.data);
        }
    }
    pst_net_statistics net;
    pst_storage_statistics storage;
    pst_net_get_statistics(fx->net, &net);
    pst_storage_get_statistics(fx->storage, &storage);
    printf("cold: %lld reads, %lld ranges\n", (long long)storage.cold_reads,
           (long long)net.cold_ranges);
    for (int i = 0; i < 2; i++) { /* a client that does not wait for its cold answer */
        nftw(fx->dir, forget_pages, 16, FTW_PHYS);
        ask_part part = ASK("cold", 12, 0, 20 + i);
        fetch_ask ask = fetch_of(13, 1, &part);
        fetch_send(fds[i], 3, &ask);
        close(fds[i]);
    }
}

/* ---- waiting ---- */

static void test_parked_fetch_is_woken_by_an_append(fixture *fx) {
    fx_publish(fx, "wake", 6, 2, 0);
    int reader = test_connect(fx->net);
    int writers[] = {test_connect(fx->net),
                     test_connect(fx->net)}; /* one of them on the reader's reactor */
    for (int round = 0; round < 20; round++) {
        ask_part parts[] = {ASK("wake", 6, 0, round * 3), ASK("wake", 6, 1, 0)};
        fetch_ask ask = fetch_of(11, 2, parts);
        ask.max_wait_ms = 20000;
        int64_t parked = fx_parked(fx);
        fetch_send(reader, round, &ask);
        WAIT_UNTIL(fx_parked(fx) == parked + 1);
        int writer = writers[round % 2];
        produce_send(writer, round, "wake", 0, 3, 50);
        fetch_got got = fetch_receive(reader, round, 11);
        CHECK_EQ(got.parts[0].high_watermark, round * 3 + 3);
        CHECK(got.parts[0].size > 0);
        free(got.data);
        response rs = rs_receive(writer, round, false);
        free(rs.data);
    }
    close(reader);
    close(writers[0]);
    close(writers[1]);
}

static void test_parked_fetch_ends_at_its_deadline(fixture *fx) {
    fx_publish(fx, "deadline", 7, 1, 0);
    int fd = test_connect(fx->net);
    ask_part part = ASK("deadline", 7, 0, 0);
    fetch_ask ask = fetch_of(13, 1, &part);
    ask.max_wait_ms = 60;
    int64_t begin = pst_monotonic_ms();
    fetch_got got = fetch(fd, &ask);
    int64_t took = pst_monotonic_ms() - begin;
    CHECK(took >= 59 && took < 5000);
    CHECK_EQ(got.parts[0].error, 0);
    CHECK_EQ(got.parts[0].size, 0);
    free(got.data);
    close(fd);
}

static void test_min_bytes_are_gathered_over_partitions(fixture *fx) {
    fx_publish(fx, "gather", 8, 2, 0);
    int fd = test_connect(fx->net);
    ask_part parts[] = {ASK("gather", 8, 0, 0), ASK("gather", 8, 1, 0)};
    fetch_ask ask = fetch_of(13, 2, parts);
    ask.max_wait_ms = 20000;
    ask.min_bytes = 2500;
    int64_t parked = fx_parked(fx);
    fetch_send(fd, 1, &ask);
    WAIT_UNTIL(fx_parked(fx) == parked + 1);
    fx_append(fx, 8, 0, 1, 1000, 1000);
    fx_append(fx, 8, 1, 1, 1000, 1000);
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    CHECK_EQ(poll(&ready, 1, 50), 0);
    fx_append(fx, 8, 0, 1, 1000, 1000);
    fetch_got got = fetch_receive(fd, 1, 13);
    CHECK(got.parts[0].size + got.parts[1].size >= 3000);
    free(got.data);
    close(fd);
}

static void test_deletion_wakes_with_the_right_error(fixture *fx) {
    int fd = test_connect(fx->net);
    for (int16_t v = 12; v <= 13; v++) {
        fx_publish(fx, "gone", 20 + v, 1, 0);
        ask_part part = ASK("gone", 20 + v, 0, 0);
        fetch_ask ask = fetch_of(v, 1, &part);
        ask.max_wait_ms = 20000;
        int64_t parked = fx_parked(fx);
        fetch_send(fd, v, &ask);
        WAIT_UNTIL(fx_parked(fx) == parked + 1);
        fx_delete(fx, 20 + v);
        fetch_got got = fetch_receive(fd, v, v);
        CHECK_EQ(got.parts[0].error,
                 v == 13 ? PST_KAFKA_UNKNOWN_TOPIC_ID : PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
        free(got.data);
    }
    close(fd);
}

static void test_closed_connections_drop_their_fetches(fixture *fx) {
    fx_publish(fx, "closed", 9, 1, 0);
    ask_part part = ASK("closed", 9, 0, 0);
    fetch_ask ask = fetch_of(13, 1, &part);
    ask.max_wait_ms = 20000;
    int64_t parked = fx_parked(fx);
    int fds[20];
    for (int i = 0; i < 20; i++) {
        fds[i] = test_connect(fx->net);
        fetch_send(fds[i], i, &ask);
    }
    WAIT_UNTIL(fx_parked(fx) == parked + 20);
    for (int i = 0; i < 20; i += 2) {
        close(fds[i]);
    }
    pst_net_statistics statistics;
    do {
        pst_net_get_statistics(fx->net, &statistics);
    } while (statistics.connections > 10);
    fx_append(fx, 9, 0, 1, 10, 1000);
    for (int i = 1; i < 20; i += 2) {
        fetch_got got = fetch_receive(fds[i], i, 13);
        CHECK(got.parts[0].size > 0);
        free(got.data);
        close(fds[i]);
    }
}

/* Processor time of the process while a thousand fetches are parked and nothing happens. */
static void test_parked_fetches_cost_nothing(fixture *fx) {
    fx_publish(fx, "idle", 10, 4, 0);
    enum { COUNT = 1000 };
    static int fds[COUNT];
    int64_t parked = fx_parked(fx);
    for (int i = 0; i < COUNT; i++) {
        ask_part part = ASK("idle", 10, i % 4, 0);
        fetch_ask ask = fetch_of(13, 1, &part);
        ask.max_wait_ms = 60000;
        fds[i] = test_connect(fx->net);
        fetch_send(fds[i], i, &ask);
    }
    WAIT_UNTIL(fx_parked(fx) == parked + COUNT);
    struct timespec before, after, nap = {.tv_nsec = 300 * 1000 * 1000};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    nanosleep(&nap, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    int64_t ns = (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec;
    printf("1000 parked fetches: %lld us of CPU in 300 ms\n", (long long)ns / 1000);
    CHECK(ns < 3000000);
    for (int32_t i = 0; i < 4; i++) {
        fx_append(fx, 10, i, 1, 10, 1000);
    }
    for (int i = 0; i < COUNT; i++) {
        fetch_got got = fetch_receive(fds[i], i, 13);
        CHECK(got.parts[0].size > 0);
        free(got.data);
        close(fds[i]);
    }
}

/* Every batch arrives once, in order, while another connection appends: no wake-up is lost. */
static void *run_writer(void *context) {
    fixture *fx = context;
    int fd = test_connect(fx->net);
    for (int i = 0; i < 300; i++) {
        produce_send(fd, i, "stream", i % 3, 1, 200);
        response rs = rs_receive(fd, i, false);
        free(rs.data);
    }
    close(fd);
    return NULL;
}

static void *run_reader(void *context) {
    fixture *fx = context;
    int fd = test_connect(fx->net);
    int64_t offsets[3] = {0};
    while (offsets[0] + offsets[1] + offsets[2] < 300) {
        ask_part parts[] = {ASK("stream", 11, 0, offsets[0]), ASK("stream", 11, 1, offsets[1]),
                            ASK("stream", 11, 2, offsets[2])};
        fetch_ask ask = fetch_of(13, 3, parts);
        ask.max_wait_ms = 15000;
        fetch_got got = fetch(fd, &ask);
        int32_t bytes = 0;
        for (int i = 0; i < got.count; i++) {
            pst_slice left = got.parts[i].records;
            bytes += got.parts[i].size;
            pst_batch batch;
            while (left.size > 0 && pst_batch_parse(left, &batch) == 0) {
                CHECK_EQ(batch.base_offset, offsets[got.parts[i].index]);
                offsets[got.parts[i].index]++;
                left.data += batch.size;
                left.size -= batch.size;
            }
        }
        CHECK(bytes > 0); /* never a deadline */
        free(got.data);
    }
    close(fd);
    return NULL;
}

static void test_no_wakeup_is_lost(fixture *fx) {
    fx_publish(fx, "stream", 11, 3, 0);
    pthread_t threads[4];
    CHECK_EQ(pthread_create(&threads[0], NULL, run_writer, fx), 0);
    for (int i = 1; i < 4; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, run_reader, fx), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void test_a_partition_named_twice_is_answered_once_as_asked_last(fixture *fx) {
    fx_publish(fx, "twice", 40, 2, 0);
    fx_publish(fx, "other", 41, 2, 0);
    size_t size = fx_append(fx, 40, 0, 1, 100, 1000);
    fx_append(fx, 40, 0, 1, 100, 1000);
    fx_append(fx, 40, 1, 1, 100, 1000);
    int fd = test_connect(fx->net);
    for (int16_t v = 12; v <= 13; v++) {
        for (int32_t epoch = -1; epoch <= 0; epoch++) { /* without a session, and for a new one */
            ask_part parts[] = {ASK("twice", 40, 0, 0), ASK("other", 41, 0, 0),
                                ASK("twice", 40, 1, 0), ASK("twice", 40, 0, 1)};
            fetch_ask ask = fetch_of(v, 4, parts);
            ask.session_epoch = epoch;
            fetch_got got = fetch(fd, &ask);
            CHECK_EQ(got.count, 3);
            CHECK_EQ(got.parts[0].index, 0);
            CHECK_EQ(got.parts[0].size, size); /* from offset 1 */
            CHECK_EQ(got.parts[2].index, 1);
            CHECK_EQ(got.parts[2].size, size);
            free(got.data);
        }
    }
    close(fd);
}

/* ---- the stop ---- */

static void test_a_stop_answers_parked_fetches_at_once(void) {
    fixture fx;
    fx_start(&fx, 2, 100, 120000);
    fx_publish(&fx, "stop", 1, 1, 0);
    size_t size = fx_append(&fx, 1, 0, 1, 100, 1000);
    int fds[4];
    for (int i = 0; i < 4; i++) {
        ask_part part = ASK("stop", 1, 0, 0);
        fetch_ask ask = fetch_of(13, 1, &part);
        ask.max_wait_ms = 30000;
        ask.min_bytes = 1 << 20;
        fds[i] = test_connect(fx.net);
        fetch_send(fds[i], i, &ask);
    }
    WAIT_UNTIL(fx_parked(&fx) == 4);
    int64_t begin = pst_monotonic_ms();
    pst_net_stop(fx.net, 20000);
    CHECK(pst_monotonic_ms() - begin < 5000);
    for (int i = 0; i < 4; i++) {
        fetch_got got = fetch_receive(fds[i], i, 13);
        CHECK_EQ(got.parts[0].error, 0);
        CHECK_EQ(got.parts[0].size, size);
        free(got.data);
        expect_closed(fds[i]);
    }
    fx_stop(&fx);
}

/* ---- bad input ---- */

static void test_cut_and_lying_requests_close_the_connection(fixture *fx) {
    pst_byte_buffer buffer = {0};
    pst_writer w = pst_writer_of(&buffer);
    rq_begin(&w, 1, 12, 1, true);
    size_t head = buffer.size;
    pst_writer_i32(&w, -1);
    pst_writer_i32(&w, 0);
    pst_writer_i32(&w, 1);
    pst_writer_i32(&w, 1000);
    pst_writer_i8(&w, 0);
    pst_writer_i32(&w, 0);
    pst_writer_i32(&w, -1);
    size_t topics = buffer.size;
    pst_writer_compact_array(&w, 1);
    pst_writer_compact_string(&w, pst_slice_str("nobody"));
    pst_writer_compact_array(&w, 1);
    for (int i = 0; i < 32 + 1; i++) {
        pst_writer_u8(&w, 0);
    }
    pst_writer_u8(&w, 0);
    pst_writer_compact_array(&w, 0);
    pst_writer_compact_string(&w, pst_slice_str(""));
    pst_writer_u8(&w, 0);
    CHECK(pst_writer_ok(&w));
    for (size_t size = head; size <= buffer.size; size++) {
        int fd = test_connect(fx->net);
        send_frame(fd, buffer.data + 4, (uint32_t)(size - 4));
        if (size == buffer.size) {
            response rs = rs_receive(fd, 1, true);
            free(rs.data);
            close(fd);
        } else {
            expect_closed(fd);
        }
    }
    static const uint8_t LIES[][5] = {
        {0x00}, {0xff, 0xff, 0xff, 0xff, 0x0f}, {0xff, 0xff, 0xff, 0xff, 0x07}};
    for (size_t i = 0; i < 3; i++) { /* null, and far too many */
        uint8_t frame[128];
        memcpy(frame, buffer.data + 4, topics - 4);
        memcpy(frame + topics - 4, LIES[i], 5);
        int fd = test_connect(fx->net);
        send_frame(fd, frame, (uint32_t)topics - 4 + 5);
        expect_closed(fd);
    }
    pst_byte_buffer_fini(&buffer);
}

int main(void) {
    fixture fx;
    fx_start(&fx, 2, 100, 120000);
    test_every_version_returns_the_batch_byte_for_byte(&fx);
    test_fetch_returns_whole_batch_for_mid_batch_offset(&fx);
    test_errors_of_partitions(&fx);
    test_limits_of_bytes(&fx);
    test_large_answers_leave_as_files_in_order(&fx);
    test_absent_pages_are_read_off_the_reactor(&fx);
    test_parked_fetch_is_woken_by_an_append(&fx);
    test_parked_fetch_ends_at_its_deadline(&fx);
    test_min_bytes_are_gathered_over_partitions(&fx);
    test_deletion_wakes_with_the_right_error(&fx);
    test_closed_connections_drop_their_fetches(&fx);
    test_parked_fetches_cost_nothing(&fx);
    test_no_wakeup_is_lost(&fx);
    test_cut_and_lying_requests_close_the_connection(&fx);
    test_a_partition_named_twice_is_answered_once_as_asked_last(&fx);
    fx_stop(&fx);
    test_a_stop_answers_parked_fetches_at_once();
    return 0;
}
