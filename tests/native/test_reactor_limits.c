/* Limits: connections, slow peers, the frame pool and its one overdraft. */
#include "test_reactor_support.h"

static const pst_net_handler echo = {.on_frame = echo_frame};

static void test_limit_per_address(void) {
    pst_net_limits limits = test_limits();
    limits.connections_per_address_max = 3;
    pst_net *net = test_net(echo, limits, 2, NULL);
    int fds[3];
    for (int round = 0; round < 3; round++) {
        pst_net_statistics s;
        for (int i = 0; i < 3; i++) {
            fds[i] = test_connect(net);
            send_frame(fds[i], "in", 2);
            expect_frame(fds[i], "in", 2);
        }
        expect_closed(test_connect(net)); /* refused = closed */
        pst_net_get_statistics(net, &s);
        CHECK_EQ(s.refused, round + 1);
        for (int i = 0; i < 3; i++) {
            close(fds[i]);
        }
        WAIT_UNTIL((pst_net_get_statistics(net, &s), s.connections == 0));
    }
    pst_net_destroy(net);
}

static void test_limit_in_total(void) {
    pst_net_limits limits = test_limits();
    limits.connections_max = 2;
    pst_net *net = test_net(echo, limits, 1, NULL);
    int a = test_connect(net);
    int b = test_connect(net);
    expect_closed(test_connect(net));
    send_frame(b, "x", 1);
    expect_frame(b, "x", 1);
    close(a);
    close(b);
    pst_net_destroy(net);
}

static void test_thousand_connections(void) {
    pst_net *net = test_net(echo, test_limits(), 2, NULL);
    enum { COUNT = 1000 };
    static int fds[COUNT];
    for (int i = 0; i < COUNT; i++) {
        fds[i] = test_connect(net);
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++) {
            send_frame(fds[i], &i, sizeof i);
        }
        for (int i = 0; i < COUNT; i++) {
            expect_frame(fds[i], &i, sizeof i);
        }
    }
    pst_net_statistics s;
    pst_net_get_statistics(net, &s);
    CHECK_EQ(s.connections, COUNT);
    CHECK_EQ(s.frames, 3 * COUNT);
    for (int i = 0; i < COUNT; i++) {
        close(fds[i]);
    }
    WAIT_UNTIL((pst_net_get_statistics(net, &s), s.connections == 0));
    pst_net_destroy(net);
}

static void test_slow_frame_is_closed_and_idle_too(void) {
    pst_net_limits limits = test_limits();
    limits.frame_progress_ms = 200;
    limits.idle_ms = 800;
    pst_net *net = test_net(echo, limits, 1, NULL);
    int slow = test_connect(net);
    int idle = test_connect(net);
    int steady = test_connect(net);
    uint8_t start[100] = {0};
    put_size(start, 90000);
    int64_t before = pst_monotonic_ms();
    test_send(slow, start, sizeof start);
    /* 2 KiB each 50 ms is progress, however long the frame takes. */
    uint8_t *body = calloc(1, 40004);
    put_size(body, 40000);
    for (int at = 0; at < 40004; at += 2048) {
        test_send(steady, body + at, at + 2048 > 40004 ? (size_t)(40004 - at) : 2048);
        struct timespec nap = {.tv_nsec = 50000000};
        nanosleep(&nap, NULL);
    }
    expect_frame(steady, body + 4, 40000);
    expect_closed(slow);
    expect_closed(idle);
    CHECK(pst_monotonic_ms() - before >= 800);
    pst_net_statistics s;
    pst_net_get_statistics(net, &s);
    CHECK_EQ(s.closed_slow, 1);
    free(body);
    close(steady);
    pst_net_destroy(net);
}

static void test_stalled_response_is_closed(void) {
    pst_net_limits limits = test_limits();
    limits.response_stall_ms = 300;
    pst_net *net = test_net(echo, limits, 1, NULL);
    int fd = test_connect_buffered(net, 4096);
    struct timeval patience = {.tv_usec = 100000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    uint8_t *frame = calloc(1, 500004);
    put_size(frame, 500000);
    for (int i = 0; i < 100; i++) {
        if (send(fd, frame, 500004, MSG_NOSIGNAL) != 500004) {
            break;
        }
    }
    pst_net_statistics s;
    WAIT_UNTIL((pst_net_get_statistics(net, &s), s.closed_slow == 1 && s.connections == 0));
    free(frame);
    close(fd);
    pst_net_destroy(net);
}

/* Six frames of 3 MB meet a pool of 4 MB: they finish one after the other, the nearest its end
 * first, and the pool never holds more than its size and one frame (and what staging stashed). */
static void test_full_pool_lets_one_frame_overdraw(int reactors) {
    pst_net_limits limits = test_limits();
    limits.frame_pool_size = 4 << 20;
    limits.frame_progress_ms = 400; /* the waiting ones' clocks stand still */
    pst_net *net = test_net(echo, limits, reactors, NULL);
    enum { COUNT = 6, SIZE = 3 << 20 };
    int fds[COUNT];
    size_t sent[COUNT] = {0};
    uint8_t *frame = calloc(1, SIZE + 4);
    put_size(frame, SIZE);
    pst_net_statistics s;
    for (int i = 0; i < COUNT; i++) {
        fds[i] = test_connect(net);
        test_send(fds[i], frame, 1000000); /* fills the pool with unfinished frames */
        sent[i] = 1000000;
    }
    int finished = 0;
    int64_t most = 0;
    int64_t end = pst_monotonic_ms() + 20000;
    static size_t got[COUNT];
    memset(got, 0, sizeof got);
    static uint8_t sink[65536];
    while (finished < COUNT) {
        CHECK(pst_monotonic_ms() < end);
        for (int i = 0; i < COUNT; i++) {
            if (sent[i] < SIZE + 4) {
                size_t left = SIZE + 4 - sent[i];
                ssize_t n = send(fds[i], frame + sent[i], left > 100000 ? 100000 : left,
                                 MSG_DONTWAIT | MSG_NOSIGNAL);
                CHECK(n > 0 || errno == EAGAIN);
                sent[i] += n > 0 ? (size_t)n : 0;
            }
            ssize_t n = recv(fds[i], sink, sizeof sink, MSG_DONTWAIT);
            CHECK(n > 0 || (n < 0 && errno == EAGAIN));
            if (n > 0) {
                got[i] += (size_t)n;
                finished += got[i] == SIZE + 4;
            }
        }
        pst_net_get_statistics(net, &s);
        most = s.frame_pool_used > most ? s.frame_pool_used : most;
    }
    /* While a reactor copies a growing frame into a larger buffer, both are held and charged. */
    int64_t copied = (int64_t)reactors * SIZE;
    CHECK(most <= (4 << 20) + SIZE + COUNT * (256 << 10) + copied);
    CHECK_EQ(s.closed_slow, 0);
    for (int i = 0; i < COUNT; i++) {
        close(fds[i]);
    }
    WAIT_UNTIL((pst_net_get_statistics(net, &s), s.frame_pool_used == 0));
    free(frame);
    pst_net_destroy(net);
}

/* The one that may overdraw goes silent: it is closed, and the next has its turn. */
static void test_silent_overdraft_is_closed(void) {
    pst_net_limits limits = test_limits();
    limits.frame_pool_size = 1 << 20;
    limits.frame_progress_ms = 300;
    pst_net *net = test_net(echo, limits, 1, NULL);
    enum { SIZE = 2 << 20 };
    uint8_t *frame = calloc(1, SIZE + 4);
    put_size(frame, SIZE);
    int silent = test_connect(net);
    test_send(silent, frame, 1 << 20);
    pst_net_statistics s;
    WAIT_UNTIL((pst_net_get_statistics(net, &s), s.frame_pool_used >= 1 << 20));
    int good = test_connect(net);
    test_send(good, frame, SIZE + 4);
    expect_frame(good, frame + 4, SIZE);
    expect_closed(silent);
    pst_net_get_statistics(net, &s);
    CHECK_EQ(s.closed_slow, 1);
    close(good);
    free(frame);
    pst_net_destroy(net);
}

int main(void) {
    test_limit_per_address();
    test_limit_in_total();
    test_thousand_connections();
    test_slow_frame_is_closed_and_idle_too();
    test_stalled_response_is_closed();
    test_full_pool_lets_one_frame_overdraw(1);
    test_full_pool_lets_one_frame_overdraw(2);
    test_silent_overdraft_is_closed();
    return 0;
}
