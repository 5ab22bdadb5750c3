/* test_reactor_support.h - a net on loopback with a test's own handler, and blocking clients. */
#ifndef PST_TEST_REACTOR_SUPPORT_H
#define PST_TEST_REACTOR_SUPPORT_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "check.h"
#include "reactor/reactor.h"

static inline pst_net_limits test_limits(void) {
    return (pst_net_limits){
        .frame_size_max = 100 << 20,
        .frame_size_max_unauthenticated = 64 << 10,
        .frame_pool_size = 256 << 20,
        .connections_max = 5000,
        .connections_per_address_max = INT32_MAX,
        .exchanges_max = 16,
        .frame_progress_bytes = 1024,
        .frame_progress_ms = 10000,
        .response_stall_ms = 60000,
        .idle_ms = 60000,
        .round_staging_size = 1 << 20,
        .send_queue_size_max = 1 << 20,
    };
}

static inline pst_net *test_net(pst_net_handler handler, pst_net_limits limits, int reactors,
                                pst_iopool *iopool) {
    pst_net_listener listener = {.host = "127.0.0.1", .port = 0, .listener = 3};
    pst_net_settings settings = {.reactor_count = reactors,
                                 .listeners = &listener,
                                 .listener_count = 1,
                                 .limits = limits,
                                 .handler = handler,
                                 .iopool = iopool};
    char error[256];
    pst_net *net;
    int rc = pst_net_create(&settings, error, sizeof error, &net);
    if (rc < 0) {
        fprintf(stderr, "%s\n", error);
    }
    CHECK_EQ(rc, 0);
    CHECK_EQ(pst_net_start(net), 0);
    return net;
}

static inline int test_connect_buffered(const pst_net *net, int receive_buffer) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    if (receive_buffer > 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    }
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)pst_net_port(net, 0)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK_EQ(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct timeval patience = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return fd;
}

static inline int test_connect(const pst_net *net) {
    return test_connect_buffered(net, 0);
}

static inline void test_send(int fd, const void *data, size_t size) {
    const uint8_t *at = data;
    while (size > 0) {
        ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
        CHECK(sent > 0);
        at += sent;
        size -= (size_t)sent;
    }
}

/* False: the peer closed (or reset) first. */
static inline bool test_receive(int fd, void *data, size_t size) {
    uint8_t *at = data;
    while (size > 0) {
        ssize_t got = recv(fd, at, size, 0);
        if (got == 0 || (got < 0 && errno == ECONNRESET)) {
            return false;
        }
        CHECK(got > 0);
        at += got;
        size -= (size_t)got;
    }
    return true;
}

static inline void put_size(uint8_t *p, uint32_t size) {
    uint32_t big = htonl(size);
    memcpy(p, &big, 4);
}

static inline uint32_t get_size(const uint8_t *p) {
    uint32_t big;
    memcpy(&big, p, 4);
    return ntohl(big);
}

static inline void send_frame(int fd, const void *data, uint32_t size) {
    uint8_t prefix[4];
    put_size(prefix, size);
    test_send(fd, prefix, 4);
    test_send(fd, data, size);
}

/* Receives one frame and checks that it is `data`. */
static inline void expect_frame(int fd, const void *data, uint32_t size) {
    uint8_t prefix[4];
    CHECK(test_receive(fd, prefix, 4));
    CHECK_EQ(get_size(prefix), size);
    uint8_t *got = malloc(size + 1);
    CHECK(test_receive(fd, got, size));
    CHECK(memcmp(got, data, size) == 0);
    free(got);
}

static inline void expect_closed(int fd) {
    uint8_t byte;
    CHECK(!test_receive(fd, &byte, 1));
    close(fd);
}

/* Waits until `condition` holds; the deadline is a test failure. */
#define WAIT_UNTIL(condition)                           \
    do {                                                \
        int64_t wait_end = pst_monotonic_ms() + 20000;  \
        while (!(condition)) {                          \
            CHECK(pst_monotonic_ms() < wait_end);       \
            struct timespec nap = {.tv_nsec = 1000000}; \
            nanosleep(&nap, NULL);                      \
        }                                               \
    } while (0)

static inline void echo_now(pst_exchange *exchange, const uint8_t *data, size_t size) {
    uint8_t *out = pst_exchange_reserve(exchange, size);
    CHECK(out != NULL);
    memcpy(out, data, size);
    pst_exchange_finish(exchange, true);
}

static inline void echo_frame(void *context, pst_reactor *reactor, pst_conn *conn,
                              pst_exchange *exchange, uint8_t *data, size_t size) {
    (void)context;
    CHECK(pst_reactor_is_current(reactor));
    CHECK_EQ(pst_conn_listener(conn), 3);
    echo_now(exchange, data, size);
}

#endif
