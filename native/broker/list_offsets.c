/* broker/list_offsets.c - ListOffsets 1-11: latest, earliest and the other special timestamps, and
 * lookups by time.
 *
 * Owner: the connection's reactor; while timestamps are looked up, the operation belongs to an I/O
 * thread (a lookup may scan a segment). Layer: broker. Deliberately knows no replica and no tier: a
 * client's replica id is ignored, and the tiered specials answer as Kafka does for a topic without
 * remote storage. */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "broker/fetch_private.h"
#include "wire/api_keys.h"
#include "wire/error_codes.h"

enum {
    LIST_PARTITIONS_MAX = 65536, /* more close the connection */
    READ_COMMITTED = 1,
};

/* Kafka's special timestamps and the version that brought each. */
enum {
    LATEST = -1,
    EARLIEST = -2,
    MAX_TIMESTAMP = -3,           /* version 7 */
    EARLIEST_LOCAL = -4,          /* version 8 */
    LATEST_TIERED = -5,           /* version 9 */
    EARLIEST_PENDING_UPLOAD = -6, /* version 11 */
};

/* Owner: as the operation. */
typedef struct {
    int32_t topic;
    int32_t index;
    int32_t current_epoch;
    int64_t timestamp; /* asked; then answered */
    int64_t offset;
    int32_t leader_epoch;
    int16_t error;
    bool skip;             /* a second entry for the same partition */
    pst_partition *lookup; /* counted: the log is searched on an I/O thread */
} list_part;

/* Owner: as the operation. */
typedef struct {
    uint32_t name_at;
    int16_t name_size;
    int32_t first, count; /* partitions; `count` counts those answered */
} list_topic;

/* Owner: the reactor, or the I/O thread while `job` is out. */
typedef struct {
    pst_list link; /* in shard->fetch->lookups while a job is out */
    pst_shard *shard;
    pst_exchange *exchange;
    int32_t correlation_id;
    int16_t version;
    bool flexible;
    int8_t isolation;
    list_topic *topics;
    int32_t topic_count, topic_capacity;
    list_part *parts;
    int32_t part_count, part_capacity;
    uint8_t *names;
    uint32_t names_size, names_capacity;
    pst_job job;
    pst_note note;
} list_op;

static void destroy(list_op *op) {
    pst_list_remove(&op->link);
    for (int32_t i = 0; i < op->part_count; i++) {
        pst_partition__unref(op->parts[i].lookup);
    }
    free(op->topics);
    free(op->parts);
    free(op->names);
    free(op);
}

static int keep_name(list_op *op, pst_slice name, uint32_t *at_out) {
    *at_out = op->names_size;
    if (name.size > op->names_capacity - op->names_size) {
        uint32_t wanted = op->names_capacity == 0 ? 256 : op->names_capacity;
        while (wanted - op->names_size < name.size) {
            wanted *= 2;
        }
        uint8_t *grown = realloc(op->names, wanted);
        if (grown == NULL) {
            return -PST_ENOMEM;
        }
        op->names = grown;
        op->names_capacity = wanted;
    }
    if (name.size > 0) {
        memcpy(op->names + op->names_size, name.data, name.size);
        op->names_size += (uint32_t)name.size;
    }
    return 0;
}

static pst_slice topic_name(const list_op *op, int32_t topic) {
    const list_topic *row = &op->topics[topic];
    return pst_slice_of(op->names == NULL ? NULL : op->names + row->name_at,
                        (size_t)row->name_size);
}

/* ---- parsing ---- */

static int parse_partitions(list_op *op, pst_reader *r, int32_t topic) {
    size_t smallest = 12u + (op->version >= 4 ? 4u : 0u) + (op->flexible ? 1u : 0u);
    int32_t count = pst_reader_any_array(r, op->flexible, smallest);
    op->topics[topic].first = op->part_count;
    for (int32_t i = 0; i < count && pst_reader_ok(r); i++) {
        PST_TRY(pst_broker__grow((void **)&op->parts, op->part_count, &op->part_capacity,
                                 sizeof *op->parts, LIST_PARTITIONS_MAX));
        list_part *part = &op->parts[op->part_count++];
        memset(part, 0, sizeof *part);
        part->topic = topic;
        part->index = pst_reader_i32(r);
        part->current_epoch = op->version >= 4 ? pst_reader_i32(r) : -1;
        part->timestamp = pst_reader_i64(r);
        if (op->flexible) {
            pst_reader_skip_tagged(r);
        }
    }
    return r->err;
}

static int parse(list_op *op, pst_reader *r) {
    (void)pst_reader_i32(r); /* replica id */
    op->isolation = op->version >= 2 ? pst_reader_i8(r) : 0;
    int32_t topics = pst_reader_any_array(r, op->flexible, op->flexible ? 3 : 6);
    for (int32_t i = 0; i < topics && pst_reader_ok(r); i++) {
        pst_slice name = pst_reader_any_string(r, op->flexible);
        PST_TRY(r->err);
        PST_TRY(pst_broker__grow((void **)&op->topics, op->topic_count, &op->topic_capacity,
                                 sizeof *op->topics, LIST_PARTITIONS_MAX));
        list_topic *topic = &op->topics[op->topic_count];
        memset(topic, 0, sizeof *topic);
        topic->name_size = (int16_t)name.size;
        PST_TRY(keep_name(op, name, &topic->name_at));
        PST_TRY(parse_partitions(op, r, op->topic_count++));
        if (op->flexible) {
            pst_reader_skip_tagged(r);
        }
    }
    if (op->version >= 10) {
        (void)pst_reader_i32(r); /* how long to wait for remote storage: there is none */
    }
    if (op->flexible) {
        pst_reader_skip_tagged(r);
    }
    return pst_reader_finish(r);
}

/* ---- duplicates ---- */

static uint64_t part_hash(const list_op *op, const list_part *part, uint64_t seed) {
    pst_slice name = topic_name(op, part->topic);
    return pst_hash_u64((uint64_t)(uint32_t)part->index,
                        pst_hash_bytes(name.data, name.size, seed));
}

static bool same_partition(const list_op *op, const list_part *a, const list_part *b) {
    return a->index == b->index && (a->topic == b->topic || pst_slice_eq(topic_name(op, a->topic),
                                                                         topic_name(op, b->topic)));
}

static void answer_error(list_part *part, int16_t error) {
    part->error = error;
    part->timestamp = -1;
    part->offset = -1;
    part->leader_epoch = -1;
}

/* A partition named twice is answered once, with INVALID_REQUEST. */
static int mark_duplicates(list_op *op) {
    if (op->part_count < 2) {
        return 0;
    }
    size_t size = 4;
    while (size < (size_t)op->part_count * 2) {
        size *= 2;
    }
    int32_t *table = malloc(size * sizeof *table);
    if (table == NULL) {
        return -PST_ENOMEM;
    }
    memset(table, 0xff, size * sizeof *table);
    uint64_t seed = op->shard->broker->hash_seed;
    for (int32_t i = 0; i < op->part_count; i++) {
        size_t at = (size_t)part_hash(op, &op->parts[i], seed) & (size - 1);
        while (table[at] >= 0 && !same_partition(op, &op->parts[table[at]], &op->parts[i])) {
            at = (at + 1) & (size - 1);
        }
        if (table[at] < 0) {
            table[at] = i;
        } else {
            op->parts[i].skip = true;
            answer_error(&op->parts[table[at]], PST_KAFKA_INVALID_REQUEST);
        }
    }
    free(table);
    return 0;
}

/* ---- answers ---- */

static bool unsupported(int64_t timestamp, int16_t version) {
    switch (timestamp) {
        case LATEST:
        case EARLIEST:
            return false;
        case MAX_TIMESTAMP:
            return version < 7;
        case EARLIEST_LOCAL:
            return version < 8;
        case LATEST_TIERED:
            return version < 9;
        case EARLIEST_PENDING_UPLOAD:
            return version < 11;
        default:
            return timestamp < 0;
    }
}

static int16_t check_partition(const pst_partition *partition, int32_t current_epoch) {
    if (partition == NULL || atomic_load_explicit(&partition->deleted, memory_order_acquire)) {
        return PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    }
    if (atomic_load_explicit(&partition->failed, memory_order_acquire) || partition->log == NULL) {
        return PST_KAFKA_KAFKA_STORAGE_ERROR;
    }
    if (current_epoch != -1 && current_epoch != partition->leader_epoch) {
        return current_epoch < partition->leader_epoch ? PST_KAFKA_FENCED_LEADER_EPOCH
                                                       : PST_KAFKA_UNKNOWN_LEADER_EPOCH;
    }
    return 0;
}

/* The epoch of the first record there; the leader's where the log ends. */
static int32_t epoch_at(pst_partition *partition, int64_t offset, const pst_log_offsets *offsets) {
    int32_t epoch = pst_log_epoch_at(partition->log, offset);
    return epoch < 0 && offset >= offsets->log_end ? partition->leader_epoch : epoch;
}

static void answer(list_part *part, int64_t offset, int64_t timestamp, int32_t epoch) {
    part->error = 0;
    part->offset = offset;
    part->timestamp = timestamp;
    part->leader_epoch = epoch;
}

/* Answers what needs no search; the rest gets its `lookup`. */
static void answer_now(const list_op *op, pst_partition *partition, list_part *part) {
    pst_log_offsets offsets;
    pst_log_get_offsets(partition->log, &offsets);
    switch (part->timestamp) {
        case LATEST:
            answer(part,
                   op->isolation == READ_COMMITTED ? offsets.last_stable : offsets.high_watermark,
                   -1, partition->leader_epoch);
            return;
        case EARLIEST:
        case EARLIEST_LOCAL:
            answer(part, offsets.log_start, -1, epoch_at(partition, offsets.log_start, &offsets));
            return;
        case LATEST_TIERED:
        case EARLIEST_PENDING_UPLOAD:
            answer(part, -1, -1, -1);
            return;
        default:
            part->lookup = pst_partition__ref(partition);
            return;
    }
}

/* True when a search is needed. */
static bool answer_all(list_op *op) {
    const pst_image *image = pst_broker__image(op->shard->broker);
    bool lookups = false;
    int32_t known = -1;
    const pst_topic *topic = NULL;
    for (int32_t i = 0; i < op->part_count; i++) {
        list_part *part = &op->parts[i];
        if (part->skip) {
            continue;
        }
        op->topics[part->topic].count++;
        if (part->error != 0) {
            continue;
        }
        if (unsupported(part->timestamp, op->version)) {
            answer_error(part, PST_KAFKA_UNSUPPORTED_VERSION);
            continue;
        }
        if (part->topic != known) {
            known = part->topic;
            topic = pst_image__topic_by_name(image, topic_name(op, known));
        }
        pst_partition *partition = topic == NULL ? NULL : pst_topic__partition(topic, part->index);
        int16_t error = check_partition(partition, part->current_epoch);
        if (error != 0) {
            answer_error(part, error);
            continue;
        }
        answer_now(op, partition, part);
        lookups |= part->lookup != NULL;
    }
    return lookups;
}

/* (I/O thread) */
static void look_up(const list_op *op, list_part *part) {
    pst_partition *partition = part->lookup;
    int64_t offset = -1;
    int64_t timestamp = -1;
    pst_log_offsets offsets;
    pst_log_get_offsets(partition->log, &offsets);
    int rc =
        part->timestamp == MAX_TIMESTAMP
            ? pst_log_max_timestamp(partition->log, &offset, &timestamp)
            : pst_log_offset_for_timestamp(partition->log, part->timestamp, &offset, &timestamp);
    if (rc < 0) {
        bool gone = atomic_load_explicit(&partition->deleted, memory_order_acquire);
        answer_error(part,
                     gone ? PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION : pst_broker__kafka_error(rc));
        return;
    }
    int64_t end = op->isolation == READ_COMMITTED ? offsets.last_stable : offsets.high_watermark;
    if (offset < 0 || offset >= end) {
        answer(part, -1, -1, -1);
        return;
    }
    answer(part, offset, timestamp, pst_log_epoch_at(partition->log, offset));
}

/* ---- response ---- */

static void put(uint8_t **at, const void *bytes, size_t size) {
    if (size > 0) {
        memcpy(*at, bytes, size);
        *at += size;
    }
}

static void put_i16(uint8_t **at, int16_t value) {
    uint16_t raw = htobe16((uint16_t)value);
    put(at, &raw, sizeof raw);
}

static void put_i32(uint8_t **at, int32_t value) {
    uint32_t raw = htobe32((uint32_t)value);
    put(at, &raw, sizeof raw);
}

static void put_i64(uint8_t **at, int64_t value) {
    uint64_t raw = htobe64((uint64_t)value);
    put(at, &raw, sizeof raw);
}

static void put_u8(uint8_t **at, uint8_t value) {
    put(at, &value, sizeof value);
}

static void put_uvarint(uint8_t **at, uint32_t value) {
    for (; value >= 0x80; value >>= 7) {
        put_u8(at, (uint8_t)(value | 0x80));
    }
    put_u8(at, (uint8_t)value);
}

static void put_count(uint8_t **at, bool flexible, int32_t count) {
    if (flexible) {
        put_uvarint(at, (uint32_t)count + 1);
    } else {
        put_i32(at, count);
    }
}

static void put_part(uint8_t **at, const list_op *op, const list_part *part) {
    put_i32(at, part->index);
    put_i16(at, part->error);
    put_i64(at, part->timestamp);
    put_i64(at, part->offset);
    if (op->version >= 4) {
        put_i32(at, part->leader_epoch);
    }
    if (op->flexible) {
        put_u8(at, 0);
    }
}

static void put_topic(uint8_t **at, const list_op *op, int32_t index) {
    const list_topic *topic = &op->topics[index];
    pst_slice name = topic_name(op, index);
    if (op->flexible) {
        put_uvarint(at, (uint32_t)name.size + 1);
    } else {
        put_i16(at, (int16_t)name.size);
    }
    put(at, name.data, name.size);
    put_count(at, op->flexible, topic->count);
    for (int32_t i = topic->first; i < op->part_count && op->parts[i].topic == index; i++) {
        if (!op->parts[i].skip) {
            put_part(at, op, &op->parts[i]);
        }
    }
    if (op->flexible) {
        put_u8(at, 0);
    }
}

/* A topic entry all of whose partitions were named before is left out. */
static bool topic_answered(const list_op *op, int32_t index) {
    const list_topic *topic = &op->topics[index];
    return topic->count > 0 || topic->first >= op->part_count ||
           op->parts[topic->first].topic != index;
}

static void respond(list_op *op) {
    size_t bound = 32 + (size_t)op->topic_count * 16 + op->names_size + (size_t)op->part_count * 32;
    int32_t topics = 0;
    for (int32_t i = 0; i < op->topic_count; i++) {
        topics += topic_answered(op, i) ? 1 : 0;
    }
    uint8_t *block = NULL;
    if (pst_broker__respond_header(op->exchange, PST_API_LIST_OFFSETS, op->version,
                                   op->correlation_id) == 0) {
        block = pst_exchange_reserve(op->exchange, bound);
    }
    if (block == NULL) {
        pst_exchange_close_connection(op->exchange);
        destroy(op);
        return;
    }
    uint8_t *at = block;
    if (op->version >= 2) {
        put_i32(&at, 0); /* throttle time */
    }
    put_count(&at, op->flexible, topics);
    for (int32_t i = 0; i < op->topic_count; i++) {
        if (topic_answered(op, i)) {
            put_topic(&at, op, i);
        }
    }
    if (op->flexible) {
        put_u8(&at, 0);
    }
    PST_ASSERT((size_t)(at - block) <= bound);
    pst_exchange_trim(op->exchange, bound - (size_t)(at - block));
    pst_exchange_finish(op->exchange, true);
    destroy(op);
}

static void run_done(pst_note *note, pst_reactor *reactor) {
    (void)reactor;
    list_op *op = PST_CONTAINER_OF(note, list_op, note);
    if (pst_exchange_conn(op->exchange) == NULL) {
        pst_exchange_finish(op->exchange, false);
        destroy(op);
        return;
    }
    respond(op);
}

static void run_lookups(pst_job *job) {
    list_op *op = PST_CONTAINER_OF(job, list_op, job);
    pst_shard *shard = op->shard;
    pst_broker *broker = shard->broker;
    for (int32_t i = 0; i < op->part_count; i++) {
        if (op->parts[i].lookup != NULL) {
            look_up(op, &op->parts[i]);
        }
    }
    pst_reactor_post(shard->reactor, &op->note);
    atomic_fetch_sub_explicit(&broker->io_active, 1, memory_order_release);
    atomic_fetch_sub_explicit(&shard->fetch->cold_running, 1, memory_order_release);
}

void pst_list_offsets__destroy_lookups(pst_list *lookups) {
    while (!pst_list_empty(lookups)) {
        destroy(PST_CONTAINER_OF(lookups->next, list_op, link));
    }
}

void pst_broker__list_offsets(pst_shard *shard, pst_request *request) {
    list_op *op = calloc(1, sizeof *op);
    if (op == NULL) {
        pst_exchange_close_connection(request->exchange);
        return;
    }
    pst_list_init(&op->link);
    op->shard = shard;
    op->exchange = request->exchange;
    op->correlation_id = request->correlation_id;
    op->version = request->api_version;
    op->flexible = request->flexible;
    if (parse(op, &request->body) < 0 || mark_duplicates(op) < 0) {
        pst_exchange_close_connection(op->exchange);
        destroy(op);
        return;
    }
    if (!answer_all(op)) {
        respond(op);
        return;
    }
    op->job.run = run_lookups;
    op->note.run = run_done;
    pst_list_push_back(&shard->fetch->lookups, &op->link);
    atomic_fetch_add_explicit(&shard->broker->io_active, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&shard->fetch->cold_running, 1, memory_order_relaxed);
    pst_iopool_submit(shard->broker->settings.iopool, &op->job);
}
