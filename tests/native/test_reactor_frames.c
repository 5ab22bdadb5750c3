/* Frames in, frames out: whatever way the bytes arrive, each frame is delivered once, whole, in
 * order. */
#include "test_reactor_support.h"

static void fill(uint8_t *data, size_t size, uint32_t seed) {
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (uint8_t)(seed >> 24);
    }
}

static void test_pipelined_frames_come_back_in_order(pst_net *net) {
    int fd = test_connect(net);
    uint8_t burst[200 * 24];
    for (uint32_t i = 0; i < 200; i++) {
        put_size(burst + i * 24, 20);
        fill(burst + i * 24 + 4, 20, i);
    }
    test_send(fd, burst, sizeof burst);
    for (uint32_t i = 0; i < 200; i++) {
        expect_frame(fd, burst + i * 24 + 4, 20);
    }
    close(fd);
}

static void test_frame_sent_byte_by_byte(pst_net *net) {
    int fd = test_connect(net);
    uint8_t frame[4 + 37];
    put_size(frame, 37);
    fill(frame + 4, 37, 5);
    for (size_t i = 0; i < sizeof frame; i++) {
        test_send(fd, frame + i, 1);
        struct timespec nap = {.tv_nsec = 200000};
        nanosleep(&nap, NULL);
    }
    expect_frame(fd, frame + 4, 37);
    close(fd);
}

static void test_frames_cut_anywhere(pst_net *net) {
    int fd = test_connect(net);
    uint8_t three[3 * 54];
    for (uint32_t i = 0; i < 3; i++) {
        put_size(three + i * 54, 50);
        fill(three + i * 54 + 4, 50, i);
    }
    for (size_t cut = 1; cut < sizeof three; cut++) {
        test_send(fd, three, cut);
        struct timespec nap = {.tv_nsec = 50000};
        nanosleep(&nap, NULL);
        test_send(fd, three + cut, sizeof three - cut);
        for (uint32_t i = 0; i < 3; i++) {
            expect_frame(fd, three + i * 54 + 4, 50);
        }
    }
    close(fd);
}

static void test_large_frames_of_changing_size(pst_net *net) {
    static const uint32_t sizes[] = {3,         70000, 1 << 20,          1 << 20,
                                     100,       65536, (1 << 20) + 5000, 9 << 20,
                                     100 << 10, 7,     20 << 20,         1};
    int fd = test_connect(net);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t *data = malloc(sizes[i]);
        fill(data, sizes[i], (uint32_t)i);
        send_frame(fd, data, sizes[i]);
        expect_frame(fd, data, sizes[i]);
        free(data);
    }
    close(fd);
}

static void test_pipelined_large_frames(pst_net *net) {
    int fd = test_connect(net);
    enum { COUNT = 5, SIZE = 100000 };
    uint8_t *data = malloc(COUNT * (SIZE + 4));
    for (int i = 0; i < COUNT; i++) {
        put_size(data + i * (SIZE + 4), SIZE);
        fill(data + i * (SIZE + 4) + 4, SIZE, (uint32_t)i);
    }
    for (int round = 0; round < 3; round++) {
        test_send(fd, data, COUNT * (SIZE + 4));
        for (int i = 0; i < COUNT; i++) {
            expect_frame(fd, data + i * (SIZE + 4) + 4, SIZE);
        }
    }
    free(data);
    close(fd);
}

static void test_lying_sizes_close(pst_net *net) {
    static const uint32_t lies[] = {0, 0xffffffff, 0x80000000, 0x7fffffff, (100 << 20) + 1};
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        int fd = test_connect(net);
        send_frame(fd, "before", 6);
        expect_frame(fd, "before", 6);
        uint8_t bad[12] = {0};
        put_size(bad, lies[i]);
        test_send(fd, bad, sizeof bad);
        expect_closed(fd);
    }
}

static void test_half_frame_then_end(pst_net *net) {
    int fd = test_connect(net);
    uint8_t half[10];
    put_size(half, 100);
    test_send(fd, half, sizeof half);
    shutdown(fd, SHUT_WR);
    expect_closed(fd);
}

static void test_answer_after_half_close(pst_net *net) {
    int fd = test_connect(net);
    send_frame(fd, "last words", 10);
    shutdown(fd, SHUT_WR);
    expect_frame(fd, "last words", 10);
    expect_closed(fd);
}

/* ---- a reader that does not read is not read from ---- */

static void test_slow_reader_is_not_read_from(void) {
    pst_net_handler handler = {.on_frame = echo_frame};
    pst_net *net = test_net(handler, test_limits(), 1, NULL);
    int fd = test_connect_buffered(net, 4096);
    struct timeval short_patience = {.tv_usec = 300000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &short_patience, sizeof short_patience);
    enum { SIZE = 60000 };
    uint8_t *frame = malloc(SIZE + 4);
    put_size(frame, SIZE);
    fill(frame + 4, SIZE, 9);
    int64_t sent_whole = 0;
    size_t in_frame = 0;
    for (;;) {
        ssize_t sent = send(fd, frame + in_frame, SIZE + 4 - in_frame, MSG_NOSIGNAL);
        if (sent < 0) {
            CHECK(errno == EAGAIN);
            break;
        }
        in_frame += (size_t)sent;
        if (in_frame == SIZE + 4) {
            in_frame = 0;
            sent_whole++;
        }
        CHECK(sent_whole < 4000); /* 240 MB taken from a client that reads nothing */
    }
    pst_net_statistics s;
    pst_net_get_statistics(net, &s);
    CHECK(s.frames < 400);
    int other = test_connect(net); /* everyone else is served */
    send_frame(other, "hello", 5);
    expect_frame(other, "hello", 5);
    close(other);
    for (int64_t i = 0; i < sent_whole; i++) {
        expect_frame(fd, frame + 4, SIZE);
    }
    test_send(fd, frame + in_frame, SIZE + 4 - in_frame);
    expect_frame(fd, frame + 4, SIZE);
    close(fd);
    free(frame);
    pst_net_stop(net, 1000);
    pst_net_get_statistics(net, &s);
    CHECK_EQ(s.connections, 0);
    pst_net_destroy(net);
}

/* ---- take_frame: owned bytes outlive the round, and are charged until released ---- */

static _Atomic(pst_frame *) taken[8];
static atomic_int taken_count;

static void take_frame(void *context, pst_reactor *reactor, pst_conn *conn, pst_exchange *exchange,
                       uint8_t *data, size_t size) {
    (void)context, (void)reactor, (void)conn;
    pst_frame *frame;
    data[0] = 'T'; /* borrowed bytes are writable */
    CHECK_EQ(pst_conn_take_frame(exchange, &frame), 0);
    CHECK_EQ(frame->size, size);
    atomic_store(&taken[atomic_load(&taken_count)], frame);
    atomic_fetch_add(&taken_count, 1);
    pst_exchange_finish(exchange, false);
}

static void test_taken_frames_outlive_their_round(void) {
    pst_net_handler handler = {.on_frame = take_frame};
    pst_net *net = test_net(handler, test_limits(), 1, NULL);
    int fd = test_connect(net);
    static const uint32_t sizes[] = {10, 5000, 200000, 200000, 10};
    uint8_t *data = malloc(200000);
    fill(data, 200000, 1);
    for (int i = 0; i < 5; i++) {
        send_frame(fd, data, sizes[i]);
    }
    WAIT_UNTIL(atomic_load(&taken_count) == 5);
    pst_net_statistics s;
    pst_net_get_statistics(net, &s);
    CHECK(s.frame_pool_used >= 405020);
    close(fd);
    for (int i = 0; i < 5; i++) {
        pst_frame *frame = atomic_load(&taken[i]);
        CHECK_EQ(frame->size, sizes[i]);
        CHECK(frame->data[0] == 'T' && memcmp(frame->data + 1, data + 1, sizes[i] - 1) == 0);
        pst_frame_release(frame);
    }
    WAIT_UNTIL((pst_net_get_statistics(net, &s), s.connections == 0 && s.frame_pool_used == 0));
    free(data);
    pst_net_destroy(net);
}

int main(void) {
    pst_net_handler handler = {.on_frame = echo_frame};
    pst_net *net = test_net(handler, test_limits(), 2, NULL);
    test_pipelined_frames_come_back_in_order(net);
    test_frame_sent_byte_by_byte(net);
    test_frames_cut_anywhere(net);
    test_large_frames_of_changing_size(net);
    test_pipelined_large_frames(net);
    test_lying_sizes_close(net);
    test_half_frame_then_end(net);
    test_answer_after_half_close(net);
    pst_net_stop(net, 1000);
    pst_net_statistics s;
    pst_net_get_statistics(net, &s);
    CHECK_EQ(s.connections, 0);
    CHECK_EQ(s.frame_pool_used, 0);
    pst_net_destroy(net);
    test_slow_reader_is_not_read_from();
    test_taken_frames_outlive_their_round();
    return 0;
}
