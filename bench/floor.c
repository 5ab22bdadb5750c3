/* bench/floor.c - the machine's own limit for Produce: recv, CRC, pwrite, answer; nothing else.
 *
 * One thread, one epoll. It writes as a log must: a fresh file per partition, space fallocated
 * ahead with the size kept, no byte overwritten. One pwrite a request. It understands just enough
 * of Produce v9 to find partition and batch, and checks nothing but the CRC; it is no broker.
 * Prints its port, then serves until its standard input ends. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "wire/reader.h"

enum {
    PARTITIONS_MAX = 256,
    BUFFER_SIZE = 4 << 20,
    AHEAD = 64 << 20,
    FILE_SIZE_MAX = 1 << 30,
    CONNECTIONS_MAX = 4096,
};

typedef struct {
    int fd;
    uint8_t *in;
    size_t in_size;
    uint8_t *out;
    size_t out_size;
} connection;

typedef struct {
    int fd;
    int number;
    int64_t position;
    int64_t allocated;
    int64_t next_offset;
} partition_file;

static partition_file files[PARTITIONS_MAX];
static const char *directory;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static partition_file *file_for(int32_t partition, size_t size) {
    partition_file *f = &files[(uint32_t)partition % PARTITIONS_MAX];
    if (f->fd == 0 || f->position + (int64_t)size > FILE_SIZE_MAX) {
        char path[512];
        if (f->fd != 0) {
            close(f->fd);
            snprintf(path, sizeof path, "%s/%d-%d", directory, partition, f->number++);
            unlink(path);
        }
        snprintf(path, sizeof path, "%s/%d-%d", directory, partition, f->number);
        f->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (f->fd < 0) {
            die("open");
        }
        f->position = 0;
        f->allocated = 0;
    }
    if (f->position + (int64_t)size > f->allocated && f->position + (int64_t)size > (1 << 20)) {
        if (fallocate(f->fd, FALLOC_FL_KEEP_SIZE, f->allocated, AHEAD) == 0) {
            f->allocated += AHEAD;
        } else {
            f->allocated = INT64_MAX / 2;
        }
    }
    return f;
}

static void put(connection *c, const void *bytes, size_t size) {
    memcpy(c->out + c->out_size, bytes, size);
    c->out_size += size;
}

static void put_u16(connection *c, uint16_t v) {
    v = htons(v);
    put(c, &v, sizeof v);
}

static void put_u32(connection *c, uint32_t v) {
    v = htonl(v);
    put(c, &v, sizeof v);
}

static void put_u64(connection *c, uint64_t v) {
    v = htobe64(v);
    put(c, &v, sizeof v);
}

/* The answer of Produce v9 for one partition. */
static void respond(connection *c, uint32_t correlation, pst_slice topic, int32_t partition,
                    uint16_t code, int64_t offset) {
    size_t start = c->out_size;
    uint8_t byte;
    put_u32(c, 0);
    put_u32(c, correlation);
    byte = 0;
    put(c, &byte, 1);
    byte = 2;
    put(c, &byte, 1);
    byte = (uint8_t)(topic.size + 1);
    put(c, &byte, 1);
    put(c, topic.data, topic.size);
    byte = 2;
    put(c, &byte, 1);
    put_u32(c, (uint32_t)partition);
    put_u16(c, code);
    put_u64(c, (uint64_t)offset);
    put_u64(c, UINT64_MAX); /* no log append time */
    put_u64(c, 0);          /* log start */
    byte = 1;
    put(c, &byte, 1); /* no record errors */
    byte = 0;
    put(c, &byte, 1); /* no message */
    put(c, &byte, 1); /* tagged: partition, topic */
    put(c, &byte, 1);
    put_u32(c, 0); /* throttle */
    put(c, &byte, 1);
    uint32_t size = htonl((uint32_t)(c->out_size - start - 4));
    memcpy(c->out + start, &size, 4);
}

static void serve_frame(connection *c, uint8_t *data, size_t size) {
    pst_reader r = pst_reader_of(pst_slice_of(data, size));
    pst_reader_i32(&r); /* key, version */
    uint32_t correlation = pst_reader_u32(&r);
    pst_reader_string(&r);
    pst_reader_skip_tagged(&r);
    pst_reader_skip(&r, 1 + 2 + 4); /* no transactional id, acks, timeout */
    pst_reader_compact_array(&r, 1);
    pst_slice topic = pst_reader_compact_string(&r);
    pst_reader_compact_array(&r, 1);
    int32_t partition = pst_reader_i32(&r);
    pst_slice batch = pst_reader_compact_bytes(&r);
    if (!pst_reader_ok(&r) || batch.size < 61) {
        fprintf(stderr, "floor: not a Produce v9 request\n");
        exit(1);
    }
    uint32_t crc;
    memcpy(&crc, batch.data + 17, 4);
    uint16_t code = ntohl(crc) == pst_crc32c(0, batch.data + 21, batch.size - 21) ? 0 : 2;
    partition_file *f = file_for(partition, batch.size);
    uint64_t offset = htobe64((uint64_t)f->next_offset);
    memcpy((uint8_t *)(uintptr_t)batch.data, &offset, 8);
    if (pwrite(f->fd, batch.data, batch.size, f->position) != (ssize_t)batch.size) {
        die("pwrite");
    }
    f->position += (int64_t)batch.size;
    respond(c, correlation, topic, partition, code, f->next_offset++);
}

static bool serve(connection *c) {
    ssize_t n = recv(c->fd, c->in + c->in_size, BUFFER_SIZE - c->in_size, MSG_DONTWAIT);
    if (n <= 0) {
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    }
    c->in_size += (size_t)n;
    size_t at = 0;
    while (c->in_size - at >= 4) {
        uint32_t raw;
        memcpy(&raw, c->in + at, 4);
        size_t size = ntohl(raw);
        if (c->in_size - at - 4 < size) {
            break;
        }
        serve_frame(c, c->in + at + 4, size);
        at += 4 + size;
    }
    memmove(c->in, c->in + at, c->in_size - at);
    c->in_size -= at;
    if (c->out_size > 0 && send(c->fd, c->out, c->out_size, MSG_NOSIGNAL) < 0) {
        return false;
    }
    c->out_size = 0;
    return true;
}

static int listen_on_loopback(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 512) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0) {
        die("listen");
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: floor EMPTY-DIRECTORY\n");
        return 2;
    }
    directory = argv[1];
    int listener = listen_on_loopback();
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    static connection stdin_marker;
    event.data.ptr = &stdin_marker;
    epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    struct epoll_event events[256];
    for (;;) {
        int n = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            connection *c = events[i].data.ptr;
            if (c == &stdin_marker) {
                return 0;
            }
            if (c == NULL) {
                c = calloc(1, sizeof *c);
                c->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                int one = 1;
                setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                c->in = malloc(BUFFER_SIZE);
                c->out = malloc(BUFFER_SIZE);
                event.data.ptr = c;
                epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
            } else if (!serve(c)) {
                close(c->fd);
                free(c->in);
                free(c->out);
                free(c);
            }
        }
    }
}
