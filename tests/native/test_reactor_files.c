/* File parts: sendfile in slices, small ones copied, absent pages read elsewhere, short files never
 * padded. */
#include <fcntl.h>
#include <sys/stat.h>

#include "test_reactor_support.h"

enum { FILE_SIZE = 3 << 20 };

static pst_file *file;
static uint8_t *content;

/* Request: count (1 byte) of ranges {pos u32, size u32}; response: "head", the ranges with "--"
 * between, "tail". */
static void range_frame(void *context, pst_reactor *reactor, pst_conn *conn, pst_exchange *exchange,
                        uint8_t *data, size_t size) {
    (void)context, (void)reactor, (void)conn;
    CHECK_EQ(size, 1 + data[0] * 8u);
    memcpy(pst_exchange_reserve(exchange, 4), "head", 4);
    for (int i = 0; i < data[0]; i++) {
        pst_file_range range = {.file = pst_file_ref(file),
                                .pos = get_size(data + 1 + i * 8),
                                .size = get_size(data + 5 + i * 8)};
        CHECK_EQ(pst_exchange_add_file(exchange, range), 0);
        memcpy(pst_exchange_reserve(exchange, 2), "--", 2);
    }
    memcpy(pst_exchange_reserve(exchange, 4), "tail", 4);
    pst_exchange_finish(exchange, true);
}

static size_t put_request(uint8_t *out, const uint32_t (*ranges)[2], uint8_t count) {
    put_size(out, 1 + count * 8u);
    out[4] = count;
    for (int i = 0; i < count; i++) {
        put_size(out + 5 + i * 8, ranges[i][0]);
        put_size(out + 9 + i * 8, ranges[i][1]);
    }
    return 5 + count * 8u;
}

static void expect_ranges(int fd, const uint32_t (*ranges)[2], uint8_t count) {
    uint8_t *expected = malloc(100 + FILE_SIZE * 2);
    size_t at = 4;
    memcpy(expected, "head", 4);
    for (int i = 0; i < count; i++) {
        memcpy(expected + at, content + ranges[i][0], ranges[i][1]);
        at += ranges[i][1];
        memcpy(expected + at, "--", 2);
        at += 2;
    }
    memcpy(expected + at, "tail", 4);
    expect_frame(fd, expected, (uint32_t)at + 4);
    free(expected);
}

static const uint32_t small[2][2] = {{5, 100}, {70000, 9000}};
static const uint32_t mixed[4][2] = {{1, 2500000}, {3000000, 10}, {100, 0}, {4096, 262144}};

static void test_ranges(pst_net *net) {
    int fd = test_connect(net);
    uint8_t request[200];
    for (int round = 0; round < 3; round++) {
        size_t size = put_request(request, small, 2);
        size += put_request(request + size, mixed, 4);
        size += put_request(request + size, small, 2);
        test_send(fd, request, size);
        expect_ranges(fd, small, 2);
        expect_ranges(fd, mixed, 4);
        expect_ranges(fd, small, 2);
    }
    close(fd);
    WAIT_UNTIL(pst_file_refs(file) == 1);
}

static void drop_cache(void) {
    CHECK_EQ(fsync(file->fd), 0);
    CHECK_EQ(posix_fadvise(file->fd, 0, 0, POSIX_FADV_DONTNEED), 0);
}

static void test_absent_pages(pst_net *net) {
    pst_net_statistics s;
    int fd = test_connect(net);
    uint8_t request[200];
    drop_cache();
    test_send(fd, request, put_request(request, mixed, 4));
    expect_ranges(fd, mixed, 4);
    drop_cache();
    test_send(fd, request, put_request(request, small, 2));
    expect_ranges(fd, small, 2);
    close(fd);
    /* A client that leaves while its slice is read costs nobody anything. */
    for (int i = 0; i < 20; i++) {
        drop_cache();
        fd = test_connect(net);
        test_send(fd, request, put_request(request, mixed, 4));
        close(fd);
    }
    WAIT_UNTIL((pst_net_get_statistics(net, &s), s.connections == 0));
    WAIT_UNTIL(pst_file_refs(file) == 1);
    printf("cold ranges: %lld\n", (long long)s.cold_ranges);
}

static void test_short_file_closes(pst_net *net, uint32_t size) {
    const uint32_t beyond[1][2] = {{FILE_SIZE - 1000, size}};
    int fd = test_connect(net);
    uint8_t request[20];
    test_send(fd, request, put_request(request, beyond, 1));
    uint8_t byte;
    size_t got = 0;
    while (test_receive(fd, &byte, 1)) {
        got++;
    }
    CHECK(got <= 4 + 4 + 1000); /* nothing was padded */
    close(fd);
    WAIT_UNTIL(pst_file_refs(file) == 1);
}

/* Eight readers of 2.5 MB that do not read: a small request beside them is answered. */
static void test_fat_consumers_do_not_hold_the_loop(pst_net *net) {
    int fat[8];
    uint8_t request[200];
    for (int i = 0; i < 8; i++) {
        fat[i] = test_connect_buffered(net, 4096);
        for (int n = 0; n < 4; n++) {
            test_send(fat[i], request, put_request(request, mixed, 4));
        }
    }
    int fd = test_connect(net);
    for (int i = 0; i < 50; i++) {
        test_send(fd, request, put_request(request, small, 2));
        expect_ranges(fd, small, 2);
    }
    close(fd);
    for (int i = 0; i < 8; i++) {
        close(fat[i]);
    }
    WAIT_UNTIL(pst_file_refs(file) == 1);
}

int main(void) {
    char path[] = "test_reactor_files.XXXXXX";
    int raw = mkostemp(path, O_CLOEXEC);
    CHECK(raw >= 0);
    CHECK_EQ(unlink(path), 0);
    content = malloc(FILE_SIZE);
    for (size_t i = 0; i < FILE_SIZE; i++) {
        content[i] = (uint8_t)(i * 2654435761u >> 13);
    }
    CHECK_EQ(write(raw, content, FILE_SIZE), FILE_SIZE);
    CHECK_EQ(pst_file_create(raw, &file), 0);
    pst_iopool *iopool;
    CHECK_EQ(pst_iopool_create(2, &iopool), 0);
    pst_net_handler handler = {.on_frame = range_frame};
    pst_net *net = test_net(handler, test_limits(), 1, iopool);
    test_ranges(net);
    test_absent_pages(net);
    test_short_file_closes(net, 1500);
    test_short_file_closes(net, 100000);
    test_fat_consumers_do_not_hold_the_loop(net);
    pst_net_destroy(net);
    pst_iopool_destroy(iopool);
    CHECK_EQ(pst_file_unref(file), 0);
    free(content);
    return 0;
}
