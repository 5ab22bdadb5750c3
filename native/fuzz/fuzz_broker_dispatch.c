/* fuzz_broker_dispatch - frames of a client into the broker's dispatch, over real logs and a fake
 * reactor of one thread: the harness stands in for the reactor room and for the I/O pool, so that
 * every run of an input takes the same way. Checked: each request is answered exactly once, each
 * answer decodes by the schema of its version without a rest, and nothing is read beyond a frame.
 *
 * Input: frames, each behind two bytes: the low 12 bits are its length, the high 4 are flags. */
#include <endian.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "broker/broker.h"
#include "storage/storage.h"
#include "wire/api_keys.h"
#include "wire/api_table.h"
#include "wire/batch.h"
#include "wire/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    FLAG_ROUND_ENDS = 0x8000, /* after this frame */
    FLAG_CLIENT_LEAVES = 0x4000,
    FLAG_REPAIR = 0x2000, /* batches get a right CRC */
    FLAG_JOBS_WAIT = 0x1000,
    LENGTH_MASK = 0x0fff,
    FRAMES_MAX = 16,
    LISTENER = 1,
};

#define must(condition) must_hold((condition), #condition, __LINE__)

static void must_hold(bool ok, const char *what, int line) {
    if (!ok) {
        fprintf(stderr, "line %d: %s\n", line, what);
        abort();
    }
}

/* ---- the fake reactor room. Owner: the one thread. ---- */

struct pst_net {
    int unused;
};

struct pst_reactor {
    void *context;
    uint64_t epoch;
    int64_t now_ms;
};

struct pst_conn {
    void *context;
    int holds;
    bool dead;
    bool closing;
};

struct pst_exchange {
    pst_conn *conn;
    void *context;
    uint64_t sequence;
    const uint8_t *frame;
    size_t frame_size;
    bool open;
    bool answered;
    pst_byte_buffer response;
    int16_t api_key;
    int16_t api_version;
    int32_t correlation_id;
};

static pst_net net;
static pst_reactor reactor;
static pst_conn conn;
static pst_exchange exchanges[FRAMES_MAX];
static uint8_t *frames[FRAMES_MAX];
static int frame_count;
static pst_list timers = {&timers, &timers};
static pst_list jobs = {&jobs, &jobs};
static pst_note *notes_first, **notes_last = &notes_first;
static bool jobs_inline; /* while the control plane publishes and waits */
static pst_control_request up[FRAMES_MAX];
static int up_count;

int pst_conn_listener(const pst_conn *c) {
    (void)c;
    return LISTENER;
}

const char *pst_conn_peer(const pst_conn *c) {
    (void)c;
    return "127.0.0.1";
}

void *pst_conn_context(const pst_conn *c) {
    return c->context;
}

void pst_conn_set_context(pst_conn *c, void *context) {
    c->context = context;
}

void pst_conn_hold(pst_conn *c) {
    c->holds++;
}

void pst_conn_resume(pst_conn *c) {
    must(c->holds-- > 0);
}

int pst_conn_take_frame(pst_exchange *exchange, pst_frame **frame_out) {
    must(exchange->frame != NULL); /* still in its round */
    pst_frame *frame = malloc(sizeof *frame);
    must(frame != NULL);
    *frame = (pst_frame){.data = malloc(exchange->frame_size + 1), .size = exchange->frame_size};
    must(frame->data != NULL);
    memcpy(frame->data, exchange->frame, exchange->frame_size);
    *frame_out = frame;
    return 0;
}

void pst_frame_release(pst_frame *frame) {
    if (frame != NULL) {
        free(frame->data);
        free(frame);
    }
}

pst_conn *pst_exchange_conn(pst_exchange *exchange) {
    return exchange->conn->dead ? NULL : exchange->conn;
}

pst_token pst_exchange_token(const pst_exchange *exchange) {
    return (pst_token){.conn = 1, .sequence = exchange->sequence};
}

void *pst_exchange_context(const pst_exchange *exchange) {
    return exchange->context;
}

void pst_exchange_set_context(pst_exchange *exchange, void *context) {
    exchange->context = context;
}

pst_exchange *pst_net_exchange(pst_reactor *r, pst_token token) {
    (void)r;
    pst_exchange *exchange = &exchanges[token.sequence];
    return exchange->open ? exchange : NULL;
}

uint8_t *pst_exchange_reserve(pst_exchange *exchange, size_t size) {
    must(exchange->open);
    must(pst_byte_buffer_reserve(&exchange->response, size) == 0);
    uint8_t *at = exchange->response.data + exchange->response.size;
    exchange->response.size += size;
    return at;
}

void pst_exchange_trim(pst_exchange *exchange, size_t unused) {
    must(unused <= exchange->response.size);
    exchange->response.size -= unused;
}

int pst_exchange_add_file(pst_exchange *exchange, pst_file_range range) {
    must(exchange->open);
    if (range.size > 0) {
        uint8_t *at = pst_exchange_reserve(exchange, (size_t)range.size);
        must(pread(range.file->fd, at, (size_t)range.size, range.pos) == range.size);
    }
    (void)pst_file_unref(range.file);
    return 0;
}

int pst_exchange_add_owned(pst_exchange *exchange, uint8_t *data, size_t size) {
    must(exchange->open);
    must(pst_byte_buffer_append(&exchange->response, data, size) == 0);
    free(data);
    return 0;
}

void pst_exchange_finish(pst_exchange *exchange, bool has_response) {
    must(exchange->open);
    exchange->open = false;
    exchange->answered = has_response;
}

void pst_exchange_close_connection(pst_exchange *exchange) {
    pst_exchange_finish(exchange, false);
    exchange->conn->closing = true;
}

int pst_net_reactor_count(const pst_net *n) {
    (void)n;
    return 1;
}

pst_reactor *pst_net_reactor(pst_net *n, int index) {
    (void)n;
    (void)index;
    return &reactor;
}

int pst_reactor_index(const pst_reactor *r) {
    (void)r;
    return 0;
}

int64_t pst_reactor_now_ms(const pst_reactor *r) {
    return r->now_ms;
}

int64_t pst_reactor_wall_ms(const pst_reactor *r) {
    return 1700000000000 + r->now_ms;
}

void pst_reactor_set_context(pst_reactor *r, void *context) {
    r->context = context;
}

uint64_t pst_reactor_epoch(const pst_reactor *r) {
    return r->epoch;
}

pst_reactor *pst_token_reactor(pst_net *n, pst_token token) {
    (void)n;
    (void)token;
    return &reactor;
}

void pst_reactor_post(pst_reactor *r, pst_note *note) {
    (void)r;
    note->next = NULL;
    *notes_last = note;
    notes_last = &note->next;
}

static bool run_notes(void) {
    bool ran = notes_first != NULL;
    while (notes_first != NULL) {
        pst_note *note = notes_first;
        notes_first = note->next;
        if (notes_first == NULL) {
            notes_last = &notes_first;
        }
        note->run(note, &reactor);
    }
    return ran;
}

void pst_net_run_notes(pst_net *n) {
    (void)n;
    (void)run_notes();
}

void pst_timer_init(pst_timer *timer, void (*fire)(pst_timer *timer, pst_reactor *r)) {
    pst_list_init(&timer->link);
    timer->fire = fire;
}

void pst_timer_arm(pst_reactor *r, pst_timer *timer, int64_t deadline_ms) {
    (void)r;
    timer->deadline_ms = deadline_ms;
    pst_list_remove(&timer->link);
    pst_list_push_back(&timers, &timer->link);
}

void pst_timer_cancel(pst_reactor *r, pst_timer *timer) {
    (void)r;
    pst_list_remove(&timer->link);
}

/* ---- the fake I/O pool ---- */

void pst_iopool_submit(pst_iopool *pool, pst_job *job) {
    (void)pool;
    if (jobs_inline) {
        job->run(job);
    } else {
        pst_list_push_back(&jobs, &job->link);
    }
}

void pst_iopool_get_statistics(pst_iopool *pool, pst_iopool_statistics *statistics_out) {
    (void)pool;
    *statistics_out = (pst_iopool_statistics){.threads = 1};
}

static bool run_jobs(void) {
    bool ran = false;
    for (pst_list *link; (link = pst_list_pop_front(&jobs)) != NULL;) {
        pst_job *job = PST_CONTAINER_OF(link, pst_job, link);
        job->run(job);
        ran = true;
    }
    return ran;
}

/* ---- the broker ---- */

static char dir[64];
static pst_storage *storage;
static pst_broker *broker;
static pst_net_handler handler;

static int offer(void *context, const pst_control_request *request) {
    (void)context;
    must(up_count < FRAMES_MAX);
    up[up_count++] = *request;
    return 0;
}

static void publish(const char *name, uint8_t id, int32_t partitions, int32_t codec,
                    int32_t cleanup_policy) {
    pst_partition_spec parts[4];
    for (int32_t i = 0; i < partitions; i++) {
        parts[i] = (pst_partition_spec){.index = i, .leader = 0, .leader_epoch = 2};
    }
    pst_topic_spec topic = {.name = pst_slice_str(name),
                            .id = {{id}},
                            .partitions = parts,
                            .partition_count = partitions,
                            .config = {.segment_bytes = 64 * 1024,
                                       .segment_ms = INT64_MAX,
                                       .segment_index_bytes = 64 * 1024,
                                       .index_interval_bytes = 1024,
                                       .retention_ms = -1,
                                       .retention_bytes = 256 * 1024,
                                       .max_message_bytes = 2048,
                                       .timestamp_before_max_ms = INT64_MAX,
                                       .timestamp_after_max_ms = INT64_MAX,
                                       .compression_type = codec,
                                       .compression_level = -1,
                                       .cleanup_policy = cleanup_policy,
                                       .min_insync_replicas = 1}};
    int32_t failed;
    jobs_inline = true;
    must(pst_broker_publish_topics(broker, &topic, 1, NULL, 0, &failed) == 0 && failed == 0);
    jobs_inline = false;
}

/* A topic whose logs have never been opened. */
static void renew(void) {
    static const pst_uuid id = {{4}};
    int32_t failed;
    jobs_inline = true;
    must(pst_broker_publish_topics(broker, NULL, 0, &id, 1, &failed) == 0);
    jobs_inline = false;
    publish("n", 4, 2, -1, 1);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void clean_up(void) {
    (void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void start(void) {
    (void)snprintf(dir, sizeof dir, "/dev/shm/pst-fuzz-XXXXXX");
    must(mkdtemp(dir) != NULL);
    (void)atexit(clean_up);
    const char *dirs[] = {dir};
    char error[256];
    pst_storage_settings settings = {.dirs = dirs,
                                     .dir_count = 1,
                                     .iopool = (pst_iopool *)(void *)&net, /* never looked into */
                                     .file_cache_count = 8,
                                     .tail_pool_size = 1 << 20,
                                     .producer_id_expiration_ms = 1000,
                                     .producer_ids_max = 100};
    must(pst_storage_open(&settings, error, sizeof error, &storage) == 0);
    pst_broker_settings of = {.storage = storage,
                              .offer_control = offer,
                              .fetch_sessions_max = 4,
                              .fetch_session_eviction_ms = 1,
                              .fetch_max_bytes = 1 << 20,
                              .fetch_copy_size = 512};
    must(pst_broker_create(&of, &broker) == 0);
    pst_broker_handler(broker, &handler);
    must(pst_broker_attach_net(broker, &net) == 0);
    pst_endpoint endpoint = {.host = "h", .port = 1, .listener = LISTENER};
    pst_cluster_spec cluster = {.cluster_id = pst_slice_str("c"),
                                .rack = "r",
                                .endpoints = &endpoint,
                                .endpoint_count = 1,
                                .auto_create_topics = true};
    must(pst_broker_publish_cluster(broker, &cluster) == 0);
    publish("t", 1, 3, -1, 1);
    publish("z", 2, 2, 1, 1);
    publish("k", 3, 1, -1, 2);
    publish("n", 4, 2, -1, 1);
}

/* ---- one connection ---- */

/* The first batch in the frame gets its CRC: a fuzzer cannot guess one. */
static void repair(uint8_t *bytes, size_t size) {
    pst_batch batch;
    for (size_t at = 12; at + PST_BATCH_CRC_START < size; at++) {
        if (bytes[at + 16] == 2 &&
            pst_batch_parse(pst_slice_of(bytes + at, size - at), &batch) == 0) {
            uint32_t crc = htobe32(
                pst_crc32c(0, bytes + at + PST_BATCH_CRC_START, batch.size - PST_BATCH_CRC_START));
            memcpy(bytes + at + PST_BATCH_CRC_OFFSET, &crc, sizeof crc);
            return;
        }
    }
}

static void deliver(const uint8_t *bytes, size_t size, bool repaired) {
    uint8_t *frame = malloc(size + (size == 0 ? 1 : 0));
    must(frame != NULL);
    memcpy(frame, bytes, size);
    if (repaired) {
        repair(frame, size);
    }
    pst_exchange *exchange = &exchanges[frame_count];
    *exchange = (pst_exchange){.conn = &conn,
                               .sequence = (uint64_t)frame_count,
                               .frame = frame,
                               .frame_size = size,
                               .open = true};
    pst_reader r = pst_reader_of(pst_slice_of(frame, size));
    exchange->api_key = pst_reader_i16(&r);
    exchange->api_version = pst_reader_i16(&r);
    exchange->correlation_id = pst_reader_i32(&r);
    frames[frame_count++] = frame;
    handler.on_frame(handler.context, &reactor, &conn, exchange, frame, size);
}

static void end_round(void) {
    handler.on_round_end(handler.context, &reactor);
    for (int i = 0; i < frame_count; i++) {
        free(frames[i]);
        frames[i] = NULL;
        exchanges[i].frame = NULL;
    }
}

static bool answer_control(void) {
    bool any = up_count > 0;
    for (int i = 0; i < up_count; i++) {
        if (up[i].api_key == PST_API_METADATA) {
            pst_broker_redispatch(broker, up[i].token, up[i].frame);
            continue;
        }
        pst_frame_release(up[i].frame);
        pst_broker_respond(broker, up[i].token, NULL, 0);
    }
    up_count = 0;
    return any;
}

static bool fire_timers(void) {
    bool any = !pst_list_empty(&timers);
    reactor.now_ms += any ? 1000 : 1;
    for (pst_list *link; (link = pst_list_pop_front(&timers)) != NULL;) {
        pst_timer *timer = PST_CONTAINER_OF(link, pst_timer, link);
        timer->fire(timer, &reactor);
    }
    return any;
}

/* Until nothing is under way. */
static void settle(void) {
    for (bool more = true; more;) {
        end_round();
        more = run_jobs();
        more = run_notes() || more;
        more = answer_control() || more;
        more = more || fire_timers();
    }
}

static void leave(void) {
    if (!conn.dead) {
        conn.dead = true;
        handler.on_conn_closed(handler.context, &reactor, &conn);
    }
}

static void check_response(const pst_exchange *exchange) {
    pst_reader r = pst_reader_of(pst_byte_buffer_slice(&exchange->response));
    must(pst_reader_i32(&r) == exchange->correlation_id);
    const pst_api *api = pst_api_find(exchange->api_key);
    must(api != NULL);
    int16_t version = pst_api_serves(api, exchange->api_version) ? exchange->api_version : 0;
    if (pst_api_response_header(api, version) == 1) {
        pst_reader_skip_tagged(&r);
    }
    pst_arena arena;
    pst_cell *root;
    pst_arena_init(&arena, PST_ARENA_SIZE_MAX);
    const pst_schema_message *schema = pst_schema_find(PST_SCHEMA_RESPONSE, exchange->api_key);
    must(schema != NULL);
    must(pst_message_decode(schema, version, &r, &arena, &root) == 0);
    must(pst_reader_finish(&r) == 0);
    pst_arena_fini(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static unsigned inputs;
    if (broker == NULL) {
        start();
    }
    if (++inputs % 64 == 0) {
        renew();
    }
    if (inputs % 1024 == 0) {
        pst_broker_start_retention(broker);
    }
    conn = (pst_conn){0};
    frame_count = 0;
    while (size >= 2 && frame_count < FRAMES_MAX && !conn.closing && !conn.dead) {
        unsigned head = (unsigned)data[0] << 8 | data[1];
        size_t length = head & LENGTH_MASK;
        length = length < size - 2 ? length : size - 2;
        reactor.epoch++;
        handler.on_round_begin(handler.context, &reactor);
        deliver(data + 2, length, (head & FLAG_REPAIR) != 0);
        data += 2 + length;
        size -= 2 + length;
        if ((head & FLAG_CLIENT_LEAVES) != 0) {
            leave();
        }
        if (conn.holds > 0) {
            settle();
        } else if ((head & FLAG_ROUND_ENDS) != 0) {
            end_round();
            (void)((head & FLAG_JOBS_WAIT) == 0 && run_jobs());
            (void)run_notes();
        }
        reactor.epoch++;
    }
    settle();
    must(conn.dead || conn.holds == 0);
    leave();
    settle();
    for (int i = 0; i < frame_count; i++) {
        must(!exchanges[i].open);
        if (exchanges[i].answered) {
            check_response(&exchanges[i]);
        }
        pst_byte_buffer_fini(&exchanges[i].response);
    }
    return 0;
}
