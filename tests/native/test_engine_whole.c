/* test_engine_whole.c - one engine as a process has it: several reactors under real clients on
 * loopback while the control plane changes everything it may change; then a graceful stop under
 * load, and a second engine on the same directory that must hold every acknowledged record once
 * and in order. Its point is what the sanitizers see: all threads of the core run here together.
 *
 * Records name their writer and count up per partition, so the log tells what is missing, doubled
 * or out of order. WHOLE_SECONDS changes how long the load lasts. */
#include <arpa/inet.h>
#include <errno.h>
#include <ftw.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "codec/codec.h"
#include "penstock.h"
#include "wire/batch.h"
#include "wire/error_codes.h"
#include "wire/writer.h"

enum {
    STAY = 0, /* grows by partitions, loses nothing */
    TRIM,     /* retention by size and DeleteRecords */
    SQUEEZE,  /* recompressed: every append goes through an I/O thread */
    TOPICS,
    GONE = TOPICS, /* deleted and made anew all the time; nothing is counted */
    PARTS_MAX = 5,
    WRITERS = 4, /* two idempotent, one plain, one with acks 0 */
    READERS = 2,
    DEPTH = 3,
    ENTRIES_MAX = 4,
    RECORDS_MAX = 6,
    VALUE_MAX = 3000,
    PENDING_MAX = 256,
    LOST = -1, /* the connection ended */
};

static const char *const topic_names[] = {"stay", "trim", "squeeze", "gone"};

/* What one writer did to one partition. Owner: the writer; the main thread after its end. */
typedef struct {
    int64_t *offsets; /* by number: where it was acknowledged, -1 otherwise */
    int64_t capacity;
    int64_t sent;
} ledger;

static ledger ledgers[WRITERS][TOPICS][PARTS_MAX];
static _Atomic int32_t part_counts[TOPICS + 1];
static _Atomic int32_t server_port;
static atomic_bool ending;
static atomic_long acknowledged, refused, fetched, asked, lost_connections;

static uint32_t chance(uint32_t *state, uint32_t below) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state % below;
}

static int64_t now_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- a blocking client ---- */

static int dial(void) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)server_port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    struct timeval patience = {.tv_sec = 30};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        CHECK(atomic_load(&ending));
        close(fd);
        return LOST;
    }
    return fd;
}

static int send_all(int fd, const pst_byte_buffer *bytes) {
    for (size_t sent = 0; sent < bytes->size;) {
        ssize_t n = send(fd, bytes->data + sent, bytes->size - sent, MSG_NOSIGNAL);
        if (n <= 0) {
            CHECK(errno != EAGAIN);
            return LOST;
        }
        sent += (size_t)n;
    }
    return 0;
}

static int receive(int fd, uint8_t *data, size_t size) {
    while (size > 0) {
        ssize_t n = recv(fd, data, size, 0);
        if (n <= 0) {
            CHECK(n == 0 || errno != EAGAIN); /* no answer within the patience */
            return LOST;
        }
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

/* The next response without its length. */
static int receive_frame(int fd, pst_byte_buffer *frame) {
    uint32_t size;
    if (receive(fd, (uint8_t *)&size, sizeof size) < 0) {
        return LOST;
    }
    frame->size = 0;
    size = ntohl(size);
    CHECK(size < 64u << 20);
    CHECK_EQ(pst_byte_buffer_reserve(frame, size), 0);
    if (receive(fd, frame->data, size) < 0) {
        return LOST;
    }
    frame->size = size;
    return 0;
}

static size_t begin(pst_writer *w, int16_t key, int16_t version, int32_t correlation) {
    size_t start = pst_writer_position(w);
    pst_writer_i32(w, 0);
    pst_writer_i16(w, key);
    pst_writer_i16(w, version);
    pst_writer_i32(w, correlation);
    pst_writer_string(w, pst_slice_str("whole"));
    return start;
}

static void end(pst_writer *w, size_t start) {
    CHECK(pst_writer_ok(w));
    uint32_t size = htonl((uint32_t)(pst_writer_position(w) - start - 4));
    memcpy(w->buffer->data + start, &size, sizeof size);
}

/* ---- writers ---- */

typedef struct {
    int topic, part, count;
    int64_t first; /* number of the first record */
} entry;

typedef struct {
    pst_byte_buffer bytes;
    entry entries[ENTRIES_MAX];
    int entry_count;
    bool in_use;
} produce;

typedef struct {
    int number;
    int acks;
    bool idempotent;
    uint32_t random;
    int32_t correlation;
    produce requests[DEPTH];
} writer;

static void note_sent(ledger *at, int count) {
    while (at->sent + count > at->capacity) {
        int64_t capacity = at->capacity == 0 ? 1024 : at->capacity * 2;
        at->offsets = realloc(at->offsets, (size_t)capacity * sizeof at->offsets[0]);
        CHECK(at->offsets != NULL);
        for (int64_t i = at->capacity; i < capacity; i++) {
            at->offsets[i] = -1;
        }
        at->capacity = capacity;
    }
    at->sent += count;
}

static void build_batch(writer *self, const entry *e, pst_byte_buffer *out) {
    static const uint8_t zeros[VALUE_MAX];
    pst_batch_builder builder;
    pst_batch_builder_init(&builder, out);
    if (self->idempotent) {
        builder.producer_id = 1000 + self->number;
        builder.producer_epoch = 0;
        builder.base_sequence = (int32_t)e->first;
    }
    for (int i = 0; i < e->count; i++) {
        uint8_t bytes[VALUE_MAX];
        size_t size =
            16 + chance(&self->random, chance(&self->random, 8) == 0 ? VALUE_MAX - 16 : 200);
        memcpy(bytes, zeros, size);
        uint32_t who[2] = {(uint32_t)self->number, (uint32_t)e->part};
        int64_t number = e->first + i;
        memcpy(bytes, who, sizeof who);
        memcpy(bytes + sizeof who, &number, sizeof number);
        pst_slice value = pst_slice_of(bytes, size);
        pst_batch_builder_append(&builder, now_ms(), NULL, &value, NULL, 0);
    }
    CHECK_EQ(pst_batch_builder_finish(&builder), 0);
}

static void choose_entries(writer *self, produce *request) {
    request->entry_count = 0;
    int wanted = 1 + (int)chance(&self->random, ENTRIES_MAX);
    for (int i = 0; i < wanted; i++) {
        entry e = {.topic = (int)chance(&self->random, TOPICS)};
        e.part = (int)chance(&self->random, (uint32_t)atomic_load(&part_counts[e.topic]));
        for (int k = 0; k < request->entry_count; k++) {
            if (request->entries[k].topic == e.topic && request->entries[k].part == e.part) {
                e.topic = -1;
                break;
            }
        }
        if (e.topic >= 0) {
            ledger *at = &ledgers[self->number][e.topic][e.part];
            e.count = 1 + (int)chance(&self->random, RECORDS_MAX);
            e.first = at->sent;
            note_sent(at, e.count);
            request->entries[request->entry_count++] = e;
        }
    }
}

static void build_produce(writer *self, produce *request) {
    choose_entries(self, request);
    request->bytes.size = 0;
    pst_writer w = pst_writer_of(&request->bytes);
    size_t start = begin(&w, 0, 7, self->correlation++);
    pst_writer_i16(&w, -1);
    pst_writer_i16(&w, (int16_t)self->acks);
    pst_writer_i32(&w, 30000);
    pst_writer_i32(&w, request->entry_count);
    for (int i = 0; i < request->entry_count; i++) {
        const entry *e = &request->entries[i];
        pst_byte_buffer batch = {0};
        build_batch(self, e, &batch);
        pst_writer_string(&w, pst_slice_str(topic_names[e->topic]));
        pst_writer_i32(&w, 1);
        pst_writer_i32(&w, e->part);
        pst_writer_bytes(&w, pst_byte_buffer_slice(&batch));
        pst_byte_buffer_fini(&batch);
    }
    end(&w, start);
    request->in_use = true;
}

static void take_answer(writer *self, const produce *request, const pst_byte_buffer *frame) {
    pst_reader r = pst_reader_of(pst_byte_buffer_slice(frame));
    pst_reader_i32(&r);
    CHECK_EQ(pst_reader_i32(&r), request->entry_count);
    for (int i = 0; i < request->entry_count; i++) {
        const entry *e = &request->entries[i];
        pst_slice name = pst_reader_string(&r);
        CHECK(pst_slice_eq(name, pst_slice_str(topic_names[e->topic])));
        CHECK_EQ(pst_reader_i32(&r), 1);
        CHECK_EQ(pst_reader_i32(&r), e->part);
        CHECK_EQ(pst_reader_i16(&r), PST_KAFKA_NONE);
        int64_t base = pst_reader_i64(&r);
        pst_reader_i64(&r);
        pst_reader_i64(&r);
        CHECK(base >= 0);
        for (int k = 0; k < e->count; k++) {
            ledgers[self->number][e->topic][e->part].offsets[e->first + k] = base + k;
        }
        atomic_fetch_add(&acknowledged, e->count);
    }
    pst_reader_i32(&r);
    CHECK_EQ(pst_reader_finish(&r), 0);
}

/* Sends what is unanswered, in order, and takes the answers. A plain writer never sends twice. */
static int exchange(writer *self, int fd, pst_byte_buffer *frame) {
    for (int i = 0; i < DEPTH; i++) {
        if (self->requests[i].in_use && send_all(fd, &self->requests[i].bytes) < 0) {
            return LOST;
        }
    }
    for (int i = 0; i < DEPTH; i++) {
        if (self->requests[i].in_use && self->acks != 0) {
            if (receive_frame(fd, frame) < 0) {
                return LOST;
            }
            take_answer(self, &self->requests[i], frame);
        }
        self->requests[i].in_use = false;
    }
    return 0;
}

static void *write_records(void *argument) {
    writer *self = argument;
    pst_byte_buffer frame = {0};
    int fd = LOST;
    while (!atomic_load(&ending) || fd >= 0) {
        if (fd < 0 && (fd = dial()) < 0) {
            break;
        }
        bool again = false;
        for (int i = 0; i < DEPTH; i++) {
            again = again || self->requests[i].in_use;
        }
        for (int i = 0; i < DEPTH && !again; i++) {
            build_produce(self, &self->requests[i]);
        }
        if (exchange(self, fd, &frame) < 0) {
            atomic_fetch_add(&lost_connections, 1);
            close(fd);
            fd = LOST;
            for (int i = 0; i < DEPTH && !self->idempotent; i++) {
                self->requests[i].in_use = false;
            }
        } else if (self->acks == 0) {
            usleep(500); /* nothing else slows it down */
        }
    }
    for (int i = 0; i < DEPTH; i++) {
        pst_byte_buffer_fini(&self->requests[i].bytes);
    }
    pst_byte_buffer_fini(&frame);
    return NULL;
}

/* Bad batches, and good ones to a topic that comes and goes. */
static void *write_badly(void *argument) {
    uint32_t random = 77;
    pst_byte_buffer out = {0}, frame = {0};
    (void)argument;
    int fd = LOST;
    for (int32_t n = 0; !atomic_load(&ending); n++) {
        if (fd < 0 && (fd = dial()) < 0) {
            break;
        }
        uint32_t kind = chance(&random, 4);
        const char *name = kind < 3 ? topic_names[chance(&random, TOPICS)] : topic_names[GONE];
        pst_byte_buffer batch = {0};
        pst_batch_builder builder;
        pst_batch_builder_init(&builder, &batch);
        pst_slice value = pst_slice_str("a batch that is changed below, or not");
        for (int i = 0; i < 3; i++) {
            pst_batch_builder_append(&builder, now_ms(), NULL, &value, NULL, 0);
        }
        CHECK_EQ(pst_batch_builder_finish(&builder), 0);
        if (kind == 0) {
            batch.data[batch.size - 1] ^= 1; /* CRC */
        } else if (kind == 1) {
            batch.data[11] ^= 4; /* length */
        } else if (kind == 2) {
            batch.data[PST_BATCH_MAGIC_OFFSET] = 1;
        }
        out.size = 0;
        pst_writer w = pst_writer_of(&out);
        size_t start = begin(&w, 0, 7, n);
        pst_writer_i16(&w, -1);
        pst_writer_i16(&w, -1);
        pst_writer_i32(&w, 30000);
        pst_writer_i32(&w, 1);
        pst_writer_string(&w, pst_slice_str(name));
        pst_writer_i32(&w, 1);
        pst_writer_i32(&w, (int32_t)chance(&random, 2));
        pst_writer_bytes(&w, pst_byte_buffer_slice(&batch));
        end(&w, start);
        pst_byte_buffer_fini(&batch);
        if (send_all(fd, &out) < 0 || receive_frame(fd, &frame) < 0) {
            close(fd);
            fd = LOST;
            continue;
        }
        pst_reader r = pst_reader_of(pst_byte_buffer_slice(&frame));
        CHECK_EQ(pst_reader_i32(&r), n);
        pst_reader_i32(&r);
        pst_reader_string(&r);
        pst_reader_i32(&r);
        pst_reader_i32(&r);
        int16_t code = pst_reader_i16(&r);
        CHECK(pst_reader_ok(&r));
        if (kind < 3) {
            CHECK(code != PST_KAFKA_NONE);
            CHECK(code != PST_KAFKA_UNKNOWN_SERVER_ERROR && code != PST_KAFKA_KAFKA_STORAGE_ERROR);
        } else {
            CHECK(code == PST_KAFKA_NONE || code == PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION ||
                  code == PST_KAFKA_NOT_LEADER_OR_FOLLOWER);
        }
        atomic_fetch_add(&refused, 1);
        usleep(200);
    }
    if (fd >= 0) {
        close(fd);
    }
    pst_byte_buffer_fini(&out);
    pst_byte_buffer_fini(&frame);
    return NULL;
}

/* ---- readers ---- */

typedef struct {
    uint32_t random;
    int32_t session, epoch;
    int32_t correlation;
    bool moved[TOPICS + 1][PARTS_MAX];
    int64_t at[TOPICS + 1][PARTS_MAX];
    pst_byte_buffer out, frame;
} reader;

static void build_fetch(reader *self) {
    self->out.size = 0;
    pst_writer w = pst_writer_of(&self->out);
    size_t start = begin(&w, 1, 11, ++self->correlation);
    pst_writer_i32(&w, -1);
    pst_writer_i32(&w, (int32_t)chance(&self->random, 100));
    pst_writer_i32(&w, chance(&self->random, 2) == 0 ? 1 : 100000);
    pst_writer_i32(&w, 1 << 20);
    pst_writer_i8(&w, (int8_t)chance(&self->random, 2));
    pst_writer_i32(&w, self->session);
    pst_writer_i32(&w, self->epoch);
    pst_writer_i32(&w, TOPICS + 1);
    for (int t = 0; t <= TOPICS; t++) {
        pst_writer_string(&w, pst_slice_str(topic_names[t]));
        int32_t count = atomic_load(&part_counts[t]), listed = 0;
        size_t place = pst_writer_position(&w);
        pst_writer_i32(&w, 0);
        for (int32_t p = 0; p < count; p++) {
            if (self->epoch > 0 && !self->moved[t][p]) {
                continue;
            }
            self->moved[t][p] = false;
            listed++;
            pst_writer_i32(&w, p);
            pst_writer_i32(&w, -1);
            pst_writer_i64(&w, self->at[t][p]);
            pst_writer_i64(&w, -1);
            pst_writer_i32(&w, 1 + (int32_t)chance(&self->random, 200000));
        }
        uint32_t raw = htonl((uint32_t)listed);
        memcpy(self->out.data + place, &raw, sizeof raw);
    }
    pst_writer_i32(&w, 0);
    pst_writer_string(&w, pst_slice_str(""));
    end(&w, start);
}

static int topic_of(pst_slice name) {
    for (int t = 0; t <= TOPICS; t++) {
        if (pst_slice_eq(name, pst_slice_str(topic_names[t]))) {
            return t;
        }
    }
    CHECK(!"a topic that was asked for");
    return 0;
}

static void take_records(reader *self, int t, int32_t p, pst_slice records) {
    while (records.size > 0) {
        pst_batch batch;
        int rc = pst_batch_parse(records, &batch);
        if (rc == -PST_ETRUNC) {
            break; /* a cut last batch is allowed */
        }
        CHECK_EQ(rc, 0);
        CHECK_EQ(pst_batch_check_crc(&batch), 0);
        if (t != GONE) { /* a topic made anew begins anew */
            CHECK(batch.base_offset <= self->at[t][p] || t == TRIM);
            CHECK(pst_batch_last_offset(&batch) >= self->at[t][p]);
        }
        self->at[t][p] = pst_batch_last_offset(&batch) + 1;
        atomic_fetch_add(&fetched, batch.record_count);
        records = pst_slice_of(records.data + batch.size, records.size - batch.size);
    }
}

static void take_partition(reader *self, int t, pst_reader *r) {
    int32_t p = pst_reader_i32(r);
    int16_t code = pst_reader_i16(r);
    int64_t high = pst_reader_i64(r);
    int64_t stable = pst_reader_i64(r);
    int64_t log_start = pst_reader_i64(r);
    CHECK(pst_reader_i32(r) <= 0);
    pst_reader_i32(r);
    bool null;
    pst_slice records = pst_reader_nullable_bytes(r, &null);
    CHECK(pst_reader_ok(r) && p >= 0 && p < PARTS_MAX);
    self->moved[t][p] = true;
    if (code == PST_KAFKA_NONE) {
        CHECK(high >= stable && stable >= log_start);
        take_records(self, t, p, records);
    } else if (code == PST_KAFKA_OFFSET_OUT_OF_RANGE && t >= TRIM && t != SQUEEZE) {
        self->at[t][p] = t == GONE ? 0 : log_start < 0 ? self->at[t][p] : log_start;
    } else {
        CHECK(t == GONE);
        CHECK(code == PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION ||
              code == PST_KAFKA_NOT_LEADER_OR_FOLLOWER || code == PST_KAFKA_UNKNOWN_TOPIC_ID ||
              code == PST_KAFKA_INCONSISTENT_TOPIC_ID);
        self->at[t][p] = 0;
    }
}

static void take_fetch(reader *self) {
    pst_reader r = pst_reader_of(pst_byte_buffer_slice(&self->frame));
    CHECK_EQ(pst_reader_i32(&r), self->correlation);
    pst_reader_i32(&r);
    int16_t code = pst_reader_i16(&r);
    int32_t session = pst_reader_i32(&r);
    if (code != PST_KAFKA_NONE) {
        CHECK(code == PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND ||
              code == PST_KAFKA_INVALID_FETCH_SESSION_EPOCH ||
              code == PST_KAFKA_FETCH_SESSION_TOPIC_ID_ERROR);
        self->session = self->epoch = 0;
        return;
    }
    self->session = session;
    self->epoch = session == 0 ? 0 : self->epoch + 1;
    for (int32_t topics = pst_reader_i32(&r); topics > 0 && pst_reader_ok(&r); topics--) {
        int t = topic_of(pst_reader_string(&r));
        for (int32_t parts = pst_reader_i32(&r); parts > 0; parts--) {
            take_partition(self, t, &r);
        }
    }
    CHECK_EQ(pst_reader_finish(&r), 0);
}

static int list_by_time(reader *self, int fd) {
    int t = (int)chance(&self->random, TOPICS);
    int64_t when = chance(&self->random, 4) == 0 ? -1 - (int64_t)chance(&self->random, 2)
                                                 : now_ms() - (int64_t)chance(&self->random, 3000);
    self->out.size = 0;
    pst_writer w = pst_writer_of(&self->out);
    size_t start = begin(&w, 2, 5, ++self->correlation);
    pst_writer_i32(&w, -1);
    pst_writer_i8(&w, 0);
    pst_writer_i32(&w, 1);
    pst_writer_string(&w, pst_slice_str(topic_names[t]));
    pst_writer_i32(&w, 1);
    pst_writer_i32(&w, (int32_t)chance(&self->random, 2));
    pst_writer_i32(&w, -1);
    pst_writer_i64(&w, when);
    end(&w, start);
    if (send_all(fd, &self->out) < 0 || receive_frame(fd, &self->frame) < 0) {
        return LOST;
    }
    pst_reader r = pst_reader_of(pst_byte_buffer_slice(&self->frame));
    CHECK_EQ(pst_reader_i32(&r), self->correlation);
    pst_reader_i32(&r);
    CHECK_EQ(pst_reader_i32(&r), 1);
    pst_reader_string(&r);
    CHECK_EQ(pst_reader_i32(&r), 1);
    pst_reader_i32(&r);
    CHECK_EQ(pst_reader_i16(&r), PST_KAFKA_NONE);
    int64_t timestamp = pst_reader_i64(&r), offset = pst_reader_i64(&r);
    CHECK(when < 0 || offset == -1 || timestamp >= when);
    CHECK(when >= 0 || offset >= 0);
    return 0;
}

static void *read_records(void *argument) {
    reader *self = argument;
    int fd = LOST;
    while (!atomic_load(&ending)) {
        if (fd < 0) {
            if ((fd = dial()) < 0) {
                break;
            }
            self->session = self->epoch = 0; /* as clients do; the old one is evicted */
        }
        build_fetch(self);
        int rc = send_all(fd, &self->out);
        if (rc == 0 && chance(&self->random, 60) == 0) {
            rc = LOST; /* leaves with the answer under way */
        }
        if (rc == 0) {
            rc = receive_frame(fd, &self->frame);
        }
        if (rc == 0) {
            take_fetch(self);
            rc = chance(&self->random, 4) == 0 ? list_by_time(self, fd) : 0;
        }
        if (rc < 0) {
            close(fd);
            fd = LOST;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    pst_byte_buffer_fini(&self->out);
    pst_byte_buffer_fini(&self->frame);
    return NULL;
}

/* ---- a client of the control plane: answers come late, and leave in order ---- */

static void build_question(pst_byte_buffer *out, uint32_t *random, int32_t correlation) {
    char name[32];
    pst_writer w = pst_writer_of(out);
    size_t start;
    switch (chance(random, 4)) {
        case 0:
            start = begin(&w, 18, 0, correlation); /* ApiVersions: answered at once */
            break;
        case 1:
            start = begin(&w, 10, 1, correlation); /* FindCoordinator */
            pst_writer_string(&w, pst_slice_str("group"));
            pst_writer_i8(&w, 0);
            break;
        case 2:
            start = begin(&w, 19, 2, correlation); /* CreateTopics: holds its connection */
            pst_writer_i32(&w, 0);
            pst_writer_i32(&w, 1000);
            pst_writer_bool(&w, false);
            break;
        default:
            start = begin(&w, 3, 4, correlation); /* Metadata of a topic that may be missing */
            pst_writer_i32(&w, 1);
            snprintf(name, sizeof name, "auto-%u", chance(random, 40));
            pst_writer_string(&w, pst_slice_str(name));
            pst_writer_bool(&w, true);
            break;
    }
    end(&w, start);
}

static void *ask(void *argument) {
    uint32_t random = (uint32_t)(uintptr_t)argument;
    pst_byte_buffer out = {0}, frame = {0};
    int32_t correlation = 0;
    int fd = LOST;
    while (!atomic_load(&ending)) {
        if (fd < 0 && (fd = dial()) < 0) {
            break;
        }
        int count = 1 + (int)chance(&random, 8);
        int32_t first = correlation;
        out.size = 0;
        for (int i = 0; i < count; i++) {
            build_question(&out, &random, correlation++);
        }
        int rc = send_all(fd, &out);
        if (rc == 0 && chance(&random, 50) == 0) {
            rc = LOST;
        }
        for (int i = 0; i < count && rc == 0; i++) {
            rc = receive_frame(fd, &frame);
            if (rc == 0) {
                pst_reader r = pst_reader_of(pst_byte_buffer_slice(&frame));
                CHECK_EQ(pst_reader_i32(&r), first + i);
                atomic_fetch_add(&asked, 1);
            }
        }
        if (rc < 0) {
            close(fd);
            fd = LOST;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    pst_byte_buffer_fini(&out);
    pst_byte_buffer_fini(&frame);
    return NULL;
}

/* ---- the control thread ---- */

typedef struct {
    pst_engine *engine;
    uint32_t random;
    pst_engine_request pending[PENDING_MAX];
    int pending_count;
    uint8_t gone_version;
    bool gone_there;
    int made;
} control;

static void publish(pst_engine *engine, const char *name, const uint8_t *id, int topic,
                    int32_t count) {
    pst_engine_partition parts[PARTS_MAX] = {0};
    for (int32_t i = 0; i < count; i++) {
        parts[i].index = i;
    }
    pst_engine_topic spec = {.name = name,
                             .name_size = strlen(name),
                             .partitions = parts,
                             .partition_count = count,
                             .config = {.segment_bytes = 64 << 10,
                                        .segment_ms = INT64_MAX,
                                        .segment_index_bytes = 10 << 20,
                                        .index_interval_bytes = 4096,
                                        .retention_ms = -1,
                                        .retention_bytes = topic == TRIM ? 256 << 10 : -1,
                                        .file_delete_delay_ms = 20,
                                        .max_message_bytes = 1 << 20,
                                        .message_timestamp_before_max_ms = INT64_MAX,
                                        .message_timestamp_after_max_ms = 3600000,
                                        .compression_type = topic == SQUEEZE ? PST_CODEC_LZ4 : -1,
                                        .compression_lz4_level = 1,
                                        .cleanup_policy = 1,
                                        .min_insync_replicas = 1}};
    memcpy(spec.id, id, sizeof spec.id);
    int32_t failed;
    CHECK_EQ(pst_engine_publish_topics(engine, &spec, 1, NULL, 0, &failed), 0);
    CHECK_EQ(failed, 0);
}

static void publish_kept(pst_engine *engine, int topic) {
    uint8_t id[16] = {(uint8_t)(topic + 1)};
    publish(engine, topic_names[topic], id, topic, atomic_load(&part_counts[topic]));
}

static void change_gone(control *self) {
    uint8_t id[16] = {100, self->gone_version};
    if (self->gone_there) {
        int32_t failed;
        CHECK_EQ(pst_engine_publish_topics(self->engine, NULL, 0, id, 1, &failed), 0);
        self->gone_version++;
    } else {
        publish(self->engine, topic_names[GONE], id, GONE, 2);
    }
    self->gone_there = !self->gone_there;
}

static void delete_records(control *self) {
    uint8_t id[16] = {TRIM + 1};
    int32_t part = (int32_t)chance(&self->random, 2);
    pst_engine_offsets offsets;
    CHECK_EQ(pst_engine_get_offsets(self->engine, id, part, &offsets), 0);
    CHECK(offsets.log_start <= offsets.high_watermark);
    int64_t span = offsets.high_watermark - offsets.log_start;
    int64_t to = chance(&self->random, 10) == 0 ? -1 : offsets.log_start + span / 4, log_start;
    int rc = pst_engine_delete_records(self->engine, id, part, to, &log_start);
    /* Retention may have overtaken what was read above. */
    CHECK(rc == 0 || rc == -PST_EOFFSET);
}

static void change_something(control *self) {
    int64_t size;
    uint8_t id[16] = {STAY + 1};
    switch (chance(&self->random, 8)) {
        case 0:
            if (atomic_load(&part_counts[STAY]) < PARTS_MAX && chance(&self->random, 8) == 0) {
                uint8_t stay[16] = {STAY + 1};
                int32_t count = atomic_load(&part_counts[STAY]) + 1;
                publish(self->engine, topic_names[STAY], stay, STAY, count);
                atomic_store(&part_counts[STAY], count);
            }
            break;
        case 1:
        case 2:
            change_gone(self);
            break;
        case 3:
            delete_records(self);
            break;
        case 4:
            CHECK_EQ(pst_engine_run_retention(self->engine), 0);
            break;
        case 5:
            CHECK_EQ(pst_engine_checkpoint(self->engine), 0);
            break;
        case 6:
            CHECK_EQ(pst_engine_log_size(self->engine, id, 0, &size), 0);
            publish_kept(self->engine, (int)chance(&self->random, TOPICS));
            break;
        default: {
            pst_engine_counter counters[64];
            CHECK(pst_engine_get_statistics(self->engine, counters, 64) > 0);
            break;
        }
    }
}

static void auto_create(control *self, const pst_engine_request *request) {
    pst_reader r = pst_reader_of(pst_slice_of(request->data, request->size));
    pst_reader_skip(&r, 8);
    pst_reader_string(&r);
    pst_reader_i32(&r);
    pst_slice name = pst_reader_string(&r);
    CHECK(pst_reader_ok(&r) && name.size < 32);
    char text[32] = "";
    memcpy(text, name.data, name.size);
    uint8_t id[16] = {50};
    memcpy(id + 1, text, 8);
    publish(self->engine, text, id, GONE, 1);
    self->made++;
}

static void answer(control *self, pst_engine_request *request) {
    uint32_t luck = chance(&self->random, 100);
    if (luck == 0) {
        (void)pst_engine_close_connection(self->engine, request->connection, request->sequence);
    }
    if (request->may_redispatch) {
        auto_create(self, request);
        (void)pst_engine_redispatch(self->engine, request->connection, request->sequence,
                                    request->frame);
        return;
    }
    uint8_t response[64] = {0};
    memcpy(response, request->data + 4, 4); /* the correlation id */
    (void)pst_engine_respond(self->engine, request->connection, request->sequence, response,
                             4 + chance(&self->random, 60));
    if (luck == 1) { /* twice: the second finds nothing */
        (void)pst_engine_respond(self->engine, request->connection, request->sequence, response, 8);
    }
    pst_engine_frame_release(request->frame);
}

/* Takes requests and answers some of those that wait, in any order. */
static int serve_control(control *self, bool all) {
    struct pollfd wake = {.fd = pst_engine_eventfd(self->engine), .events = POLLIN};
    (void)poll(&wake, 1, 1);
    int got = pst_engine_drain(self->engine, self->pending + self->pending_count,
                               PENDING_MAX - self->pending_count);
    if (got > 0) {
        self->pending_count += got;
    }
    int count = all ? self->pending_count : (self->pending_count + 1) / 2;
    for (int i = 0; i < count; i++) {
        int which = (int)chance(&self->random, (uint32_t)self->pending_count);
        pst_engine_request request = self->pending[which];
        self->pending[which] = self->pending[--self->pending_count];
        if (got == -PST_ECLOSED) {
            pst_engine_frame_release(request.frame);
        } else {
            answer(self, &request);
        }
    }
    return got;
}

static pst_engine *open_engine(const char *directory) {
    char error[256] = "";
    const char *dirs[] = {directory};
    pst_engine_limit limits[] = {{"penstock.open.files", 64}};
    pst_engine_settings settings = {.log_dirs = dirs,
                                    .log_dir_count = 1,
                                    .reactors = 3,
                                    .io_threads = 3,
                                    .limits = limits,
                                    .limit_count = 1};
    pst_engine *engine;
    if (pst_engine_open(&settings, error, sizeof error, &engine) < 0) {
        fprintf(stderr, "%s\n", error);
        exit(1);
    }
    return engine;
}

static void serve(pst_engine *engine) {
    char error[256] = "";
    pst_engine_listener listener = {.host = "127.0.0.1"};
    int32_t port;
    CHECK_EQ(pst_engine_bind(engine, &listener, 1, &port, error, sizeof error), 0);
    pst_engine_endpoint endpoint = {.host = "127.0.0.1", .port = port};
    pst_engine_cluster cluster = {.cluster_id = "whole",
                                  .endpoints = &endpoint,
                                  .endpoint_count = 1,
                                  .auto_create_topics = true};
    CHECK_EQ(pst_engine_publish_cluster(engine, &cluster), 0);
    for (int t = 0; t < TOPICS; t++) {
        publish_kept(engine, t);
    }
    CHECK_EQ(pst_engine_serve(engine), 0);
    atomic_store(&server_port, port);
}

static void *stop_gracefully(void *engine) {
    CHECK_EQ(pst_engine_stop(engine, true), 0);
    return NULL;
}

/* ---- what the log holds ---- */

typedef struct {
    int topic, part;
    int64_t next;          /* offset expected next */
    int64_t first;         /* log start */
    int64_t seen[WRITERS]; /* last number seen, -1: none */
    int64_t strangers;     /* records of write_badly that were good: none in kept topics */
} verifier;

static void verify_record(verifier *v, int64_t offset, pst_slice value) {
    uint32_t who[2];
    int64_t number;
    CHECK(value.size >= 16);
    memcpy(who, value.data, sizeof who);
    memcpy(&number, value.data + sizeof who, sizeof number);
    CHECK(who[0] < WRITERS);
    CHECK_EQ(who[1], v->part);
    const ledger *at = &ledgers[who[0]][v->topic][v->part];
    int64_t *seen = &v->seen[who[0]];
    CHECK(number >= 0 && number < at->sent);
    CHECK(number > *seen);
    CHECK(at->offsets[number] == -1 || at->offsets[number] == offset);
    if (v->topic != TRIM || *seen >= 0) { /* whatever was passed over was never acknowledged */
        for (int64_t i = *seen + 1; i < number; i++) {
            CHECK_EQ(at->offsets[i], -1);
        }
        CHECK(who[0] >= 2 || number == *seen + 1); /* and idempotent writers pass over nothing */
    }
    *seen = number;
}

static void verify_batch(verifier *v, const pst_batch *batch) {
    CHECK_EQ(pst_batch_check_crc(batch), 0);
    CHECK(batch->base_offset == v->next || (v->next == v->first && batch->base_offset < v->next));
    pst_byte_buffer plain = {0};
    pst_slice records = pst_batch_records(batch);
    if (v->topic == SQUEEZE) {
        CHECK_EQ(pst_batch_codec(batch), PST_CODEC_LZ4);
        CHECK_EQ(pst_codec_decompress(pst_batch_codec(batch), records, 0, &plain), 0);
        records = pst_byte_buffer_slice(&plain);
    }
    pst_record_iter iter;
    pst_record_iter_init(&iter, records, batch->record_count);
    pst_record record;
    while (pst_record_iter_next(&iter, &record) == 1) {
        int64_t offset = batch->base_offset + record.offset_delta;
        if (offset >= v->first) {
            verify_record(v, offset, record.value);
        }
    }
    pst_byte_buffer_fini(&plain);
    v->next = pst_batch_last_offset(batch) + 1;
}

static void verify_partition(pst_engine *engine, int topic, int part) {
    uint8_t id[16] = {(uint8_t)(topic + 1)};
    pst_engine_offsets offsets;
    CHECK_EQ(pst_engine_get_offsets(engine, id, part, &offsets), 0);
    verifier v = {
        .topic = topic, .part = part, .next = offsets.log_start, .first = offsets.log_start};
    memset(v.seen, 0xff, sizeof v.seen);
    CHECK(topic == TRIM || offsets.log_start == 0);
    while (v.next < offsets.log_end) {
        uint8_t *data;
        size_t size;
        CHECK_EQ(pst_engine_read(engine, id, part, v.next, 1 << 20, &data, &size), 0);
        CHECK(size > 0);
        for (pst_slice left = pst_slice_of(data, size); left.size > 0;) {
            pst_batch batch;
            CHECK_EQ(pst_batch_parse(left, &batch), 0);
            verify_batch(&v, &batch);
            left = pst_slice_of(left.data + batch.size, left.size - batch.size);
        }
        pst_engine_free(data);
    }
    CHECK_EQ(v.next, offsets.log_end);
    for (int w = 0; w < WRITERS; w++) { /* nothing acknowledged is missing at the end */
        const ledger *at = &ledgers[w][topic][part];
        for (int64_t i = v.seen[w] + 1; i < at->sent; i++) {
            CHECK(at->offsets[i] < offsets.log_start);
        }
    }
}

static void verify(pst_engine *engine) {
    for (int t = 0; t < TOPICS; t++) {
        for (int p = 0; p < atomic_load(&part_counts[t]); p++) {
            verify_partition(engine, t, p);
        }
    }
}

static int remove_one(const char *path, const struct stat *stat, int flag, struct FTW *ftw) {
    (void)stat;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void run_load(const char *directory) {
    static writer writers[WRITERS] = {{.number = 0, .acks = -1, .idempotent = true, .random = 11},
                                      {.number = 1, .acks = 1, .idempotent = true, .random = 12},
                                      {.number = 2, .acks = 1, .random = 13},
                                      {.number = 3, .acks = 0, .random = 14}};
    static reader readers[READERS] = {{.random = 21}, {.random = 22}};
    static control plane = {.random = 31};
    pthread_t threads[WRITERS + READERS + 3], stopper;
    int count = 0;
    plane.engine = open_engine(directory);
    serve(plane.engine);
    for (int i = 0; i < WRITERS; i++) {
        CHECK_EQ(pthread_create(&threads[count++], NULL, write_records, &writers[i]), 0);
    }
    for (int i = 0; i < READERS; i++) {
        CHECK_EQ(pthread_create(&threads[count++], NULL, read_records, &readers[i]), 0);
    }
    CHECK_EQ(pthread_create(&threads[count++], NULL, write_badly, NULL), 0);
    CHECK_EQ(pthread_create(&threads[count++], NULL, ask, (void *)(uintptr_t)41), 0);
    CHECK_EQ(pthread_create(&threads[count++], NULL, ask, (void *)(uintptr_t)42), 0);
    const char *seconds = getenv("WHOLE_SECONDS");
    int64_t until = now_ms() + 1000 * (seconds == NULL ? 4 : atoi(seconds));
    while (now_ms() < until) {
        CHECK(serve_control(&plane, false) >= 0);
        if (chance(&plane.random, 4) == 0) {
            change_something(&plane);
        }
    }
    atomic_store(&ending, true);
    CHECK_EQ(pthread_create(&stopper, NULL, stop_gracefully, plane.engine), 0);
    while (serve_control(&plane, true) != -PST_ECLOSED) {
    }
    (void)serve_control(&plane, true);
    pthread_join(stopper, NULL);
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
    }
    pst_engine_destroy(plane.engine);
    printf(
        "%ld acknowledged, %ld refused or to a lost topic, %ld fetched, %ld control answers, "
        "%d topics made, %d deleted, %ld connections lost\n",
        acknowledged, refused, fetched, asked, plane.made, plane.gone_version, lost_connections);
}

int main(void) {
    char directory[] = "/tmp/pst-whole-XXXXXX";
    char path[64];
    CHECK(mkdtemp(directory) != NULL);
    part_counts[STAY] = 2;
    part_counts[TRIM] = part_counts[SQUEEZE] = part_counts[GONE] = 2;
    run_load(directory);
    CHECK(acknowledged > 100 && fetched > 100 && asked > 20);
    snprintf(path, sizeof path, "%s/.kafka_cleanshutdown", directory);
    CHECK_EQ(access(path, F_OK), 0);
    for (int round = 0; round < 2; round++) { /* after the clean stop, and after none */
        pst_engine *engine = open_engine(directory);
        serve(engine);
        verify(engine);
        CHECK_EQ(pst_engine_stop(engine, false), 0);
        pst_engine_destroy(engine);
        CHECK(access(path, F_OK) != 0);
    }
    for (int w = 0; w < WRITERS; w++) {
        for (int t = 0; t < TOPICS; t++) {
            for (int p = 0; p < PARTS_MAX; p++) {
                free(ledgers[w][t][p].offsets);
            }
        }
    }
    nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
