/* bench/loadgen.c - a neutral load generator: speaks Produce v9 and Fetch v12 to any Kafka broker
 * from one thread.
 *
 * Closed loop (no --rate): every connection keeps --depth requests in flight; for capacity.
 * Open loop (--rate R): request i is due at start + i/R, whoever is late; latency runs from that
 * intended time, so a stall of the broker is charged to every request that should have been sent
 * meanwhile. Batches are prepared before the clock starts and sent again and again; only the
 * correlation id changes. It deliberately does no metadata, group or transaction work: the caller
 * creates the topic, and one broker leads it. Prints one JSON object. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "bench/histogram.h"
#include "wire/batch.h"
#include "wire/reader.h"
#include "wire/writer.h"

enum { DEPTH_MAX = 4096, RECEIVE_SIZE = 1 << 21, CORRELATION_AT = 8, EVENTS_MAX = 256 };

typedef enum { MODE_PRODUCE, MODE_FETCH, MODE_POLL, MODE_REPEAT } load_mode;

typedef struct {
    const char *host;
    int port;
    const char *topic;
    load_mode mode;
    int partitions;
    int connections;
    int depth;
    int batch_bytes;
    int record_bytes;
    int records;
    int acks;
    int max_bytes;
    int wait_ms;
    double rate;
    double seconds;
    double warmup;
    bool spin;
} options;

/* Owner: the one thread, as is everything below. */
typedef struct {
    int fd;
    int in_flight;
    uint32_t head; /* index of the oldest request in flight */
    int64_t intended[DEPTH_MAX];
    int partition[DEPTH_MAX];
    int64_t next_offset;
    int own_partition;
    uint8_t *out;
    size_t out_size, out_sent, out_capacity;
    uint8_t *in;
    size_t in_size, in_capacity;
    bool writing;
} connection;

typedef struct {
    options opt;
    int epoll;
    connection *connections;
    pst_byte_buffer *frames; /* one prepared frame a partition */
    int next_partition;
    int64_t start_ns, measure_from_ns, end_ns;
    uint64_t scheduled, sent, answered, errors, bytes, empty;
    int last_error;
    histogram latency;
} load;

static void die(const char *what) {
    fprintf(stderr, "loadgen: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- frames ---- */

static void build_batch(const options *opt, pst_byte_buffer *out) {
    pst_batch_builder builder;
    pst_batch_builder_init(&builder, out);
    uint8_t *value = malloc((size_t)opt->record_bytes);
    uint64_t state = 88172645463325252ULL;
    for (int i = 0; i < opt->records; i++) {
        for (int j = 0; j < opt->record_bytes; j++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            value[j] = (uint8_t)('a' + state % 26);
        }
        pst_slice slice = pst_slice_of(value, (size_t)opt->record_bytes);
        pst_batch_builder_append(&builder, pst_wall_ms(), NULL, &slice, NULL, 0);
    }
    free(value);
    if (pst_batch_builder_finish(&builder) < 0) {
        fprintf(stderr, "loadgen: batch too large\n");
        exit(1);
    }
}

static void begin_frame(pst_writer *w, int16_t key, int16_t version) {
    pst_writer_i32(w, 0); /* size, patched */
    pst_writer_i16(w, key);
    pst_writer_i16(w, version);
    pst_writer_i32(w, 0); /* correlation id at CORRELATION_AT */
    pst_writer_string(w, pst_slice_str("loadgen"));
    pst_writer_u8(w, 0);
}

static void build_produce(const options *opt, int partition, pst_slice batch,
                          pst_byte_buffer *out) {
    pst_writer w = pst_writer_of(out);
    begin_frame(&w, 0, 9);
    pst_writer_uvarint(&w, 0); /* no transactional id */
    pst_writer_i16(&w, (int16_t)opt->acks);
    pst_writer_i32(&w, 30000);
    pst_writer_compact_array(&w, 1);
    pst_writer_compact_string(&w, pst_slice_str(opt->topic));
    pst_writer_compact_array(&w, 1);
    pst_writer_i32(&w, partition);
    pst_writer_compact_bytes(&w, batch);
    pst_writer_u8(&w, 0);
    pst_writer_u8(&w, 0);
    pst_writer_u8(&w, 0);
    pst_writer_patch_size(&w, 0);
}

/* The fetch offset is patched before each send; its place is the return value. */
static size_t build_fetch(const options *opt, int partition, pst_byte_buffer *out) {
    pst_writer w = pst_writer_of(out);
    begin_frame(&w, 1, 12);
    pst_writer_i32(&w, -1);
    pst_writer_i32(&w, opt->wait_ms);
    pst_writer_i32(&w, 1);
    pst_writer_i32(&w, opt->max_bytes);
    pst_writer_i8(&w, 0);
    pst_writer_i32(&w, 0);
    pst_writer_i32(&w, -1);
    pst_writer_compact_array(&w, 1);
    pst_writer_compact_string(&w, pst_slice_str(opt->topic));
    pst_writer_compact_array(&w, 1);
    pst_writer_i32(&w, partition);
    pst_writer_i32(&w, -1);
    size_t offset_at = pst_writer_position(&w);
    pst_writer_i64(&w, 0);
    pst_writer_i32(&w, -1);
    pst_writer_i64(&w, -1);
    pst_writer_i32(&w, opt->max_bytes);
    pst_writer_u8(&w, 0);
    pst_writer_u8(&w, 0);
    pst_writer_compact_array(&w, 0);
    pst_writer_compact_string(&w, pst_slice_str(""));
    pst_writer_u8(&w, 0);
    pst_writer_patch_size(&w, 0);
    return offset_at;
}

static size_t fetch_offset_at;

static void build_frames(load *l) {
    l->frames = calloc((size_t)l->opt.partitions, sizeof *l->frames);
    pst_byte_buffer batch = {0};
    if (l->opt.mode == MODE_PRODUCE) {
        build_batch(&l->opt, &batch);
    }
    for (int p = 0; p < l->opt.partitions; p++) {
        if (l->opt.mode == MODE_PRODUCE) {
            build_produce(&l->opt, p, pst_byte_buffer_slice(&batch), &l->frames[p]);
        } else {
            fetch_offset_at = build_fetch(&l->opt, p, &l->frames[p]);
        }
    }
    l->opt.batch_bytes = (int)batch.size;
    pst_byte_buffer_fini(&batch);
}

/* ---- answers ---- */

static void note_error(load *l, int code) {
    if (code != 0) {
        l->errors++;
        l->last_error = code;
    }
}

static void read_produce(load *l, pst_reader *r) {
    pst_reader_skip_tagged(r);
    pst_reader_compact_array(r, 1);
    pst_reader_compact_string(r);
    pst_reader_compact_array(r, 1);
    pst_reader_i32(r);
    int16_t code = pst_reader_i16(r);
    note_error(l, pst_reader_ok(r) ? code : -2);
    l->bytes += (uint64_t)l->opt.batch_bytes;
}

/* Follows the log: the next fetch starts behind the last whole batch; at the end it starts over. */
static void follow(load *l, connection *c, pst_slice records) {
    pst_batch batch;
    int64_t next = -1;
    while (pst_batch_parse(records, &batch) == 0) {
        next = pst_batch_last_offset(&batch) + 1;
        records = pst_slice_of(records.data + batch.size, records.size - batch.size);
    }
    if (next >= 0) {
        c->next_offset = next;
    } else if (l->opt.mode == MODE_FETCH) {
        c->next_offset = 0;
    }
}

static void read_fetch(load *l, connection *c, pst_reader *r) {
    bool null = false;
    pst_reader_skip_tagged(r);
    pst_reader_i32(r); /* throttle */
    int16_t code = pst_reader_i16(r);
    pst_reader_i32(r); /* session */
    int32_t topics = pst_reader_compact_array(r, 1);
    pst_slice records = {0};
    if (topics > 0) {
        pst_reader_compact_string(r);
        pst_reader_compact_array(r, 1);
        pst_reader_i32(r);
        code = pst_reader_i16(r);
        pst_reader_skip(r, 24);
        pst_reader_compact_nullable_array(r, 1, &null);
        pst_reader_i32(r);
        records = pst_reader_compact_nullable_bytes(r, &null);
    }
    note_error(l, pst_reader_ok(r) ? code : -2);
    l->bytes += records.size;
    l->empty += records.size == 0;
    if (l->opt.mode == MODE_FETCH || (l->opt.mode == MODE_POLL && records.size > 0)) {
        follow(l, c, records);
    }
}

static void answer(load *l, connection *c, const uint8_t *data, size_t size, int64_t now) {
    uint32_t slot = c->head++ % DEPTH_MAX;
    c->in_flight--;
    pst_reader r = pst_reader_of(pst_slice_of(data, size));
    pst_reader_i32(&r);
    uint64_t before = l->bytes;
    uint64_t errors = l->errors;
    if (l->opt.mode == MODE_PRODUCE) {
        read_produce(l, &r);
    } else {
        read_fetch(l, c, &r);
    }
    if (now < l->measure_from_ns || now > l->end_ns) {
        l->bytes = before;
        l->errors = errors;
        return;
    }
    l->answered++;
    histogram_add(&l->latency, now - c->intended[slot]);
}

static void receive(load *l, connection *c) {
    for (;;) {
        if (c->in_capacity - c->in_size < RECEIVE_SIZE / 4) {
            c->in_capacity = c->in_capacity == 0 ? 65536 : c->in_capacity * 2;
            c->in = realloc(c->in, c->in_capacity);
        }
        size_t room = c->in_capacity - c->in_size;
        ssize_t n = recv(c->fd, c->in + c->in_size, room, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            die("connection lost");
        }
        if (n < 0) {
            return;
        }
        c->in_size += (size_t)n;
        int64_t now = pst_monotonic_ns();
        size_t at = 0;
        while (c->in_size - at >= 4) {
            uint32_t raw;
            memcpy(&raw, c->in + at, 4);
            size_t size = ntohl(raw);
            if (c->in_size - at - 4 < size) {
                break;
            }
            answer(l, c, c->in + at + 4, size, now);
            at += 4 + size;
        }
        memmove(c->in, c->in + at, c->in_size - at);
        c->in_size -= at;
        if ((size_t)n < room) {
            return;
        }
    }
}

/* ---- requests ---- */

static void flush_out(load *l, connection *c) {
    while (c->out_sent < c->out_size) {
        ssize_t n = send(c->fd, c->out + c->out_sent, c->out_size - c->out_sent,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN) {
                die("send");
            }
            break;
        }
        c->out_sent += (size_t)n;
    }
    bool want = c->out_sent < c->out_size;
    if (!want) {
        c->out_size = 0;
        c->out_sent = 0;
    }
    if (want != c->writing) {
        c->writing = want;
        struct epoll_event event = {.events = EPOLLIN | (want ? EPOLLOUT : 0), .data.ptr = c};
        epoll_ctl(l->epoll, EPOLL_CTL_MOD, c->fd, &event);
    }
}

static void queue_request(load *l, connection *c, int64_t intended) {
    int partition = c->own_partition;
    if (l->opt.mode == MODE_PRODUCE) {
        partition = l->next_partition;
        l->next_partition = (l->next_partition + 1) % l->opt.partitions;
    }
    pst_byte_buffer *frame = &l->frames[partition];
    if (c->out_capacity - c->out_size < frame->size) {
        c->out_capacity = (c->out_size + frame->size) * 2;
        c->out = realloc(c->out, c->out_capacity);
    }
    uint8_t *at = c->out + c->out_size;
    memcpy(at, frame->data, frame->size);
    uint32_t correlation = htonl((uint32_t)l->sent);
    memcpy(at + CORRELATION_AT, &correlation, 4);
    if (l->opt.mode != MODE_PRODUCE) {
        uint64_t offset = htobe64((uint64_t)c->next_offset);
        memcpy(at + fetch_offset_at, &offset, 8);
    }
    c->out_size += frame->size;
    c->intended[(c->head + (uint32_t)c->in_flight) % DEPTH_MAX] = intended;
    c->in_flight++;
    l->sent++;
}

static void fill_closed(load *l, connection *c) {
    int64_t now = pst_monotonic_ns();
    while (c->in_flight < l->opt.depth && now < l->end_ns) {
        queue_request(l, c, now);
    }
    flush_out(l, c);
}

/* Sends everything that is due; returns when the next one is (ns). */
static int64_t fill_open(load *l) {
    int64_t now = pst_monotonic_ns();
    double gap = 1e9 / l->opt.rate;
    for (;;) {
        int64_t due = l->start_ns + (int64_t)((double)l->scheduled * gap);
        if (due > now || due > l->end_ns) {
            return due;
        }
        connection *c = &l->connections[l->scheduled % (uint64_t)l->opt.connections];
        if (c->in_flight >= DEPTH_MAX) {
            fprintf(stderr, "loadgen: more than %d requests behind schedule\n", DEPTH_MAX);
            exit(1);
        }
        l->scheduled++;
        queue_request(l, c, due);
        flush_out(l, c);
    }
}

/* ---- life ---- */

static void connect_all(load *l) {
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->connections = calloc((size_t)l->opt.connections, sizeof *l->connections);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)l->opt.port)};
    if (inet_pton(AF_INET, l->opt.host, &address.sin_addr) != 1) {
        fprintf(stderr, "loadgen: --host wants an IPv4 address\n");
        exit(1);
    }
    for (int i = 0; i < l->opt.connections; i++) {
        connection *c = &l->connections[i];
        c->own_partition = i % l->opt.partitions;
        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0) {
            die("connect");
        }
        int one = 1;
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &event);
    }
}

static void run(load *l) {
    struct epoll_event events[EVENTS_MAX];
    bool open_loop = l->opt.rate > 0;
    l->start_ns = pst_monotonic_ns();
    l->measure_from_ns = l->start_ns + (int64_t)(l->opt.warmup * 1e9);
    l->end_ns = l->measure_from_ns + (int64_t)(l->opt.seconds * 1e9);
    for (int i = 0; !open_loop && i < l->opt.connections; i++) {
        fill_closed(l, &l->connections[i]);
    }
    while (pst_monotonic_ns() < l->end_ns) {
        int timeout = 100;
        if (open_loop) {
            int64_t left = fill_open(l) - pst_monotonic_ns();
            timeout = l->opt.spin || left < 1000000 ? 0 : (int)(left / 1000000);
        }
        int n = epoll_wait(l->epoll, events, EVENTS_MAX, timeout);
        for (int i = 0; i < n; i++) {
            connection *c = events[i].data.ptr;
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
                receive(l, c);
            }
            if (open_loop) {
                flush_out(l, c);
            } else {
                fill_closed(l, c);
            }
        }
    }
}

static void report(const load *l) {
    double seconds = l->opt.seconds;
    static const struct {
        const char *name;
        double quantile;
    } quantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}};
    printf(
        "{\"requests\": %llu, \"requests_per_second\": %.1f, \"bytes\": %llu, \"mb_per_second\": "
        "%.2f, ",
        (unsigned long long)l->answered, (double)l->answered / seconds,
        (unsigned long long)l->bytes, (double)l->bytes / seconds / 1e6);
    printf(
        "\"errors\": %llu, \"last_error\": %d, \"empty\": %llu, \"seconds\": %.3f, "
        "\"batch_bytes\": %d, ",
        (unsigned long long)l->errors, l->last_error, (unsigned long long)l->empty, seconds,
        l->opt.batch_bytes);
    printf("\"latency_ns\": {");
    for (size_t i = 0; i < sizeof quantiles / sizeof quantiles[0]; i++) {
        printf("\"%s\": %lld, ", quantiles[i].name,
               (long long)histogram_quantile(&l->latency, quantiles[i].quantile));
    }
    printf("\"max\": %lld}}\n", (long long)l->latency.max);
}

static void usage(void) {
    fprintf(
        stderr,
        "usage: loadgen --host IPV4 --port N --topic NAME [--mode produce|fetch|poll|repeat] "
        "[--partitions 16]\n"
        "  [--connections 4] [--depth 1] [--records 1] [--record-bytes 100] [--acks 1] [--rate R]\n"
        "  [--seconds 5] [--warmup 1] [--max-bytes 1048576] [--wait-ms 500] [--offset N] [--spin]\n"
        "fetch follows the log and starts over at its end; poll stays at its end;\n"
        "repeat asks for --offset again and again\n");
    exit(2);
}

int main(int argc, char **argv) {
    static load l = {.opt = {.host = "127.0.0.1",
                             .port = 9092,
                             .topic = "bench",
                             .partitions = 16,
                             .connections = 4,
                             .depth = 1,
                             .record_bytes = 100,
                             .records = 1,
                             .acks = 1,
                             .max_bytes = 1 << 20,
                             .wait_ms = 500,
                             .seconds = 5,
                             .warmup = 1}};
    static const struct option names[] = {
        {"host", 1, 0, 'h'},   {"port", 1, 0, 'p'},       {"topic", 1, 0, 't'},
        {"mode", 1, 0, 'm'},   {"partitions", 1, 0, 'P'}, {"connections", 1, 0, 'c'},
        {"depth", 1, 0, 'd'},  {"records", 1, 0, 'r'},    {"record-bytes", 1, 0, 'b'},
        {"acks", 1, 0, 'a'},   {"rate", 1, 0, 'R'},       {"seconds", 1, 0, 's'},
        {"warmup", 1, 0, 'w'}, {"max-bytes", 1, 0, 'M'},  {"wait-ms", 1, 0, 'W'},
        {"offset", 1, 0, 'o'}, {"spin", 0, 0, 'S'},       {0, 0, 0, 0}};
    options *o = &l.opt;
    int64_t offset = 0;
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (c) {
            case 'h':
                o->host = optarg;
                break;
            case 'p':
                o->port = atoi(optarg);
                break;
            case 't':
                o->topic = optarg;
                break;
            case 'm':
                o->mode = strcmp(optarg, "produce") == 0  ? MODE_PRODUCE
                          : strcmp(optarg, "fetch") == 0  ? MODE_FETCH
                          : strcmp(optarg, "repeat") == 0 ? MODE_REPEAT
                                                          : MODE_POLL;
                break;
            case 'P':
                o->partitions = atoi(optarg);
                break;
            case 'c':
                o->connections = atoi(optarg);
                break;
            case 'd':
                o->depth = atoi(optarg);
                break;
            case 'r':
                o->records = atoi(optarg);
                break;
            case 'b':
                o->record_bytes = atoi(optarg);
                break;
            case 'a':
                o->acks = atoi(optarg);
                break;
            case 'R':
                o->rate = atof(optarg);
                break;
            case 's':
                o->seconds = atof(optarg);
                break;
            case 'w':
                o->warmup = atof(optarg);
                break;
            case 'M':
                o->max_bytes = atoi(optarg);
                break;
            case 'W':
                o->wait_ms = atoi(optarg);
                break;
            case 'o':
                offset = atoll(optarg);
                break;
            case 'S':
                o->spin = true;
                break;
            default:
                usage();
        }
    }
    if (o->partitions < 1 || o->connections < 1 || o->depth < 1 || o->depth > DEPTH_MAX ||
        o->records < 1) {
        usage();
    }
    build_frames(&l);
    connect_all(&l);
    for (int i = 0; i < o->connections; i++) {
        l.connections[i].next_offset = offset;
    }
    run(&l);
    report(&l);
    return l.answered == 0 || l.errors > 0;
}
