/* broker/fetch.c - Fetch 4-18: parsing, resolving, reading.
 *
 * Owner: the connection's reactor; pst_fetch__read also runs on an I/O thread, which owns the
 * operation meanwhile. Layer: broker. Deliberately knows no replica (a client's replica id is read
 * and ignored, CVE-2018-1288), no quota and no preferred read replica.
 *
 * The offsets of a partition are read once per fetch and its file is sliced once (DESIGN law 4):
 * the answer's high watermark, log start and bytes belong together. */
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "base/hash.h"
#include "broker/fetch_private.h"
#include "wire/batch.h"
#include "wire/error_codes.h"

enum { FETCH_READ_COMMITTED = 1 };

/* ---- operations ---- */

pst_fetch_op *pst_fetch__op_get(pst_shard *shard) {
    struct pst_fetch_shard *fs = shard->fetch;
    pst_list *node = pst_list_pop_front(&fs->free_ops);
    if (node != NULL) {
        fs->free_count--;
        return PST_CONTAINER_OF(node, pst_fetch_op, link);
    }
    pst_fetch_op *op = calloc(1, sizeof *op);
    if (op != NULL) {
        op->shard = shard;
        pst_list_init(&op->link);
        pst_list_init(&op->session_link);
    }
    return op;
}

static void drop_results(pst_fetch_op *op) {
    for (int32_t i = 0; i < op->part_count; i++) {
        pst_fetch_part *part = &op->parts[i];
        if (part->range.file != NULL) {
            (void)pst_file_unref(part->range.file);
            part->range.file = NULL;
        }
        part->size = 0;
        part->copy = NULL;
    }
}

static void free_op(pst_fetch_op *op) {
    free(op->topics);
    free(op->names);
    free(op->parts);
    free(op->forgotten);
    free(op);
}

static void reset_op(pst_fetch_op *op) {
    drop_results(op);
    if (op->counted) {
        for (int32_t i = 0; i < op->part_count; i++) {
            pst_partition__unref(op->parts[i].partition);
        }
    }
    op->counted = false;
    op->topic_count = 0;
    op->names_size = 0;
    op->part_count = 0;
}

void pst_fetch__op_release(pst_fetch_op *op) {
    struct pst_fetch_shard *fs = op->shard->fetch;
    reset_op(op);
    pst_fetch__session_leave(op);
    pst_list_remove(&op->link);
    if (fs->free_count >= PST_FETCH_POOLED_OPS_MAX ||
        op->part_capacity > PST_FETCH_POOLED_PARTITIONS_MAX ||
        op->topic_capacity > PST_FETCH_POOLED_PARTITIONS_MAX ||
        op->forgotten_capacity > PST_FETCH_POOLED_PARTITIONS_MAX ||
        op->names_capacity > PST_FETCH_POOLED_NAMES_MAX) {
        free_op(op);
        return;
    }
    pst_fetch_op kept = *op;
    memset(op, 0, sizeof *op);
    op->shard = kept.shard;
    op->topics = kept.topics;
    op->topic_capacity = kept.topic_capacity;
    op->names = kept.names;
    op->names_capacity = kept.names_capacity;
    op->parts = kept.parts;
    op->part_capacity = kept.part_capacity;
    op->forgotten = kept.forgotten;
    op->forgotten_capacity = kept.forgotten_capacity;
    pst_list_init(&op->link);
    pst_list_init(&op->session_link);
    pst_list_push_front(&fs->free_ops, &op->link);
    fs->free_count++;
}

void pst_fetch__free_op(pst_fetch_op *op) {
    reset_op(op);
    pst_list_remove(&op->link);
    free_op(op);
}

int pst_fetch__add_topic(pst_fetch_op *op, const pst_uuid *id, pst_slice name, int32_t *topic_out) {
    *topic_out = -1;
    PST_TRY(pst_broker__grow((void **)&op->topics, op->topic_count, &op->topic_capacity,
                             sizeof *op->topics, PST_FETCH_PARTITIONS_MAX));
    if (name.size > op->names_capacity - op->names_size) {
        uint32_t wanted = op->names_capacity == 0 ? 256 : op->names_capacity * 2;
        while (wanted - op->names_size < name.size) {
            wanted *= 2;
        }
        char *grown = realloc(op->names, wanted);
        if (grown == NULL) {
            return -PST_ENOMEM;
        }
        op->names = grown;
        op->names_capacity = wanted;
    }
    pst_fetch_topic *topic = &op->topics[op->topic_count];
    topic->id = *id;
    topic->name_at = op->names_size;
    topic->name_size = (int16_t)name.size;
    if (name.size > 0) {
        memcpy(op->names + op->names_size, name.data, name.size);
        op->names_size += (uint32_t)name.size;
    }
    *topic_out = op->topic_count++;
    return 0;
}

pst_fetch_part *pst_fetch__add_part(pst_fetch_op *op) {
    if (pst_broker__grow((void **)&op->parts, op->part_count, &op->part_capacity, sizeof *op->parts,
                         PST_FETCH_PARTITIONS_MAX) < 0) {
        return NULL;
    }
    pst_fetch_part *part = &op->parts[op->part_count++];
    memset(part, 0, sizeof *part);
    part->op = op;
    part->session_part = -1;
    return part;
}

void pst_fetch__ref_partitions(pst_fetch_op *op) {
    if (op->counted) {
        return;
    }
    for (int32_t i = 0; i < op->part_count; i++) {
        if (op->parts[i].partition != NULL) {
            (void)pst_partition__ref(op->parts[i].partition);
        }
    }
    op->counted = true;
}

/* ---- parsing ---- */

static int parse_partition(pst_fetch_op *op, pst_reader *r, int32_t topic) {
    int16_t version = op->api_version;
    pst_fetch_part *part = pst_fetch__add_part(op);
    if (part == NULL) {
        return -PST_ELIMIT;
    }
    part->topic = topic;
    part->index = pst_reader_i32(r);
    part->leader_epoch = version >= 9 ? pst_reader_i32(r) : -1;
    part->offset = pst_reader_i64(r);
    part->last_fetched_epoch = version >= 12 ? pst_reader_i32(r) : -1;
    if (version >= 5) {
        (void)pst_reader_i64(r); /* the follower's log start */
    }
    part->max_bytes = pst_reader_i32(r);
    if (op->flexible) {
        pst_reader_skip_tagged(r); /* directory id (v17), high watermark (v18): followers' */
    }
    return r->err;
}

static size_t partition_size_min(int16_t version) {
    return 16u + (version >= 5 ? 8u : 0u) + (version >= 9 ? 4u : 0u) + (version >= 12 ? 5u : 0u);
}

static int parse_topic_key(pst_fetch_op *op, pst_reader *r, int32_t *topic_out) {
    pst_uuid id = {{0}};
    pst_slice name = {NULL, 0};
    if (op->api_version >= 13) {
        id = pst_reader_uuid(r);
    } else {
        name = pst_reader_any_string(r, op->flexible);
    }
    if (r->err != 0) {
        return r->err;
    }
    return pst_fetch__add_topic(op, &id, name, topic_out);
}

static size_t topic_size_min(const pst_fetch_op *op) {
    return op->api_version >= 13 ? 18 : op->flexible ? 3 : 6;
}

static int parse_topics(pst_fetch_op *op, pst_reader *r) {
    int32_t topics = pst_reader_any_array(r, op->flexible, topic_size_min(op));
    for (int32_t i = 0; i < topics && pst_reader_ok(r); i++) {
        int32_t topic;
        PST_TRY(parse_topic_key(op, r, &topic));
        int32_t count = pst_reader_any_array(r, op->flexible, partition_size_min(op->api_version));
        for (int32_t k = 0; k < count && pst_reader_ok(r); k++) {
            PST_TRY(parse_partition(op, r, topic));
        }
        if (op->flexible) {
            pst_reader_skip_tagged(r);
        }
    }
    return r->err;
}

static int parse_forgotten(pst_fetch_op *op, pst_reader *r) {
    int32_t topics = pst_reader_any_array(r, op->flexible, topic_size_min(op));
    for (int32_t i = 0; i < topics && pst_reader_ok(r); i++) {
        int32_t topic;
        PST_TRY(parse_topic_key(op, r, &topic));
        int32_t count = pst_reader_any_array(r, op->flexible, 4);
        for (int32_t k = 0; k < count && pst_reader_ok(r); k++) {
            PST_TRY(pst_broker__grow((void **)&op->forgotten, op->forgotten_count,
                                     &op->forgotten_capacity, sizeof *op->forgotten,
                                     PST_FETCH_PARTITIONS_MAX));
            op->forgotten[op->forgotten_count++] =
                (pst_fetch_forgotten){.topic = topic, .index = pst_reader_i32(r)};
        }
        if (op->flexible) {
            pst_reader_skip_tagged(r);
        }
    }
    return r->err;
}

static int parse(pst_fetch_op *op, pst_reader *r, int64_t broker_max_bytes) {
    int16_t version = op->api_version;
    if (version < 15) {
        (void)pst_reader_i32(r); /* replica id */
    }
    op->max_wait_ms = pst_reader_i32(r);
    op->min_bytes = pst_reader_i32(r);
    op->max_bytes = pst_reader_i32(r);
    op->isolation = pst_reader_i8(r);
    op->session_id = 0;
    op->session_epoch = -1;
    if (version >= 7) {
        op->session_id = pst_reader_i32(r);
        op->session_epoch = pst_reader_i32(r);
    }
    PST_TRY(parse_topics(op, r));
    if (version >= 7) {
        PST_TRY(parse_forgotten(op, r));
    }
    if (version >= 11) {
        (void)pst_reader_any_string(r, op->flexible); /* rack: there is one replica */
    }
    if (op->flexible) {
        pst_reader_skip_tagged(r); /* cluster id, replica state: for controllers and followers */
    }
    if (op->max_bytes > broker_max_bytes) {
        op->max_bytes = (int32_t)broker_max_bytes;
    }
    if (op->min_bytes > op->max_bytes) {
        op->min_bytes = op->max_bytes;
    }
    return pst_reader_finish(r);
}

/* ---- partitions named twice ---- */

static bool same_topic(const pst_fetch_op *op, int32_t a, int32_t b) {
    const pst_fetch_topic *x = &op->topics[a];
    const pst_fetch_topic *y = &op->topics[b];
    return a == b || (pst_uuid_eq(&x->id, &y->id) &&
                      pst_slice_eq(pst_fetch__topic_name(op, x), pst_fetch__topic_name(op, y)));
}

static uint64_t part_hash(const pst_fetch_op *op, const pst_fetch_part *part, uint64_t seed) {
    const pst_fetch_topic *topic = &op->topics[part->topic];
    pst_slice name = pst_fetch__topic_name(op, topic);
    uint64_t hash = name.size > 0 ? pst_hash_bytes(name.data, name.size, seed)
                                  : pst_hash_bytes(topic->id.bytes, sizeof topic->id.bytes, seed);
    return pst_hash_u64((uint64_t)(uint32_t)part->index, hash);
}

static bool one_topic_ascending(const pst_fetch_op *op) {
    for (int32_t i = 1; i < op->part_count; i++) {
        if (op->parts[i].topic != op->parts[0].topic ||
            op->parts[i].index <= op->parts[i - 1].index) {
            return false;
        }
    }
    return true;
}

static int reserve_seen(struct pst_fetch_shard *fs, size_t wanted) {
    if (wanted <= fs->seen_size) {
        return 0;
    }
    size_t size = fs->seen_size == 0 ? 64 : fs->seen_size;
    while (size < wanted) {
        size *= 2;
    }
    int32_t *seen = realloc(fs->seen, size * sizeof *seen);
    if (seen == NULL) {
        return -PST_ENOMEM;
    }
    fs->seen = seen;
    fs->seen_size = size;
    return 0;
}

/* Kafka keeps requests in a map: a partition named twice is answered once, in its first place, as
 * it was asked last. */
static int merge_duplicates(pst_fetch_op *op) {
    struct pst_fetch_shard *fs = op->shard->fetch;
    if (op->part_count < 2 || one_topic_ascending(op)) {
        return 0;
    }
    size_t size = 4;
    while (size < (size_t)op->part_count * 2) {
        size *= 2;
    }
    PST_TRY(reserve_seen(fs, size));
    memset(fs->seen, 0xff, size * sizeof *fs->seen);
    int32_t kept = 0;
    for (int32_t i = 0; i < op->part_count; i++) {
        pst_fetch_part *part = &op->parts[i];
        size_t at = (size_t)part_hash(op, part, fs->seed) & (size - 1);
        while (fs->seen[at] >= 0 && (op->parts[fs->seen[at]].index != part->index ||
                                     !same_topic(op, op->parts[fs->seen[at]].topic, part->topic))) {
            at = (at + 1) & (size - 1);
        }
        if (fs->seen[at] >= 0) {
            int32_t topic = op->parts[fs->seen[at]].topic;
            op->parts[fs->seen[at]] = *part;
            op->parts[fs->seen[at]].topic = topic;
        } else {
            fs->seen[at] = kept;
            op->parts[kept++] = *part;
        }
    }
    op->part_count = kept;
    return 0;
}

/* ---- resolving ---- */

static void unresolved(pst_fetch_part *part, int16_t error) {
    part->partition = NULL;
    part->error = error;
    part->unresolved = true;
}

/* Finds the partitions in the image of this round. */
static void resolve(pst_fetch_op *op) {
    const pst_image *image = pst_broker__image(op->shard->broker);
    int32_t known = -1;
    pst_topic *topic = NULL;
    int16_t error = 0;
    for (int32_t i = 0; i < op->part_count; i++) {
        pst_fetch_part *part = &op->parts[i];
        if (part->topic != known) {
            const pst_fetch_topic *asked = &op->topics[part->topic];
            pst_slice name = pst_fetch__topic_name(op, asked);
            known = part->topic;
            if (op->api_version >= 13) {
                topic =
                    pst_uuid_is_zero(&asked->id) ? NULL : pst_image__topic_by_id(image, &asked->id);
                /* A session remembers the name: the topic may have been made anew. */
                error = name.size > 0 && pst_image__topic_by_name(image, name) != NULL
                            ? PST_KAFKA_INCONSISTENT_TOPIC_ID
                            : PST_KAFKA_UNKNOWN_TOPIC_ID;
            } else {
                topic = pst_image__topic_by_name(image, name);
                error = PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
            }
        }
        if (topic == NULL) {
            unresolved(part, error);
            continue;
        }
        pst_partition *partition = pst_topic__partition(topic, part->index);
        if (partition == NULL) {
            unresolved(part, PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
            continue;
        }
        part->partition = partition;
        part->refuse_zstd = op->api_version < 10 && topic->config->compression_type == 4;
    }
}

/* ---- reading ---- */

static void fail_part(pst_fetch_op *op, pst_fetch_part *part, int16_t error) {
    if (error == PST_KAFKA_KAFKA_STORAGE_ERROR && op->api_version <= 5) {
        error = PST_KAFKA_NOT_LEADER_OR_FOLLOWER; /* older clients do not know the code and would
                                                     not retry */
    }
    part->error = error;
    part->high_watermark = -1;
    part->last_stable = -1;
    part->log_start = -1;
    part->size = 0;
    op->failed = true;
}

static int16_t gone_error(const pst_fetch_op *op) {
    return op->api_version >= 13 ? PST_KAFKA_UNKNOWN_TOPIC_ID
                                 : PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
}

/* The state of the partition and the client's leader epoch; 0 when it can be read. */
static int16_t check_partition(const pst_fetch_op *op, const pst_fetch_part *part) {
    const pst_partition *partition = part->partition;
    if (atomic_load_explicit(&partition->deleted, memory_order_acquire)) {
        return gone_error(op);
    }
    if (atomic_load_explicit(&partition->failed, memory_order_acquire) || partition->log == NULL) {
        return PST_KAFKA_KAFKA_STORAGE_ERROR;
    }
    if (part->leader_epoch >= 0 && part->leader_epoch != partition->leader_epoch) {
        return part->leader_epoch < partition->leader_epoch ? PST_KAFKA_FENCED_LEADER_EPOCH
                                                            : PST_KAFKA_UNKNOWN_LEADER_EPOCH;
    }
    return 0;
}

/* KIP-595: does the client's last epoch end before its offset? Returns an error code or 0. */
static int16_t check_divergence(pst_fetch_part *part, const pst_log_offsets *offsets) {
    pst_partition *partition = part->partition;
    int32_t epoch;
    int64_t end;
    part->diverging_epoch = -1;
    if (part->last_fetched_epoch < 0) {
        return 0;
    }
    int rc = pst_partition__end_of_epoch(partition, part->last_fetched_epoch, &epoch, &end);
    if (rc < 0) {
        return pst_broker__kafka_error(rc);
    }
    if (epoch < 0 || end < 0 || part->offset < offsets->log_start) {
        return PST_KAFKA_OFFSET_OUT_OF_RANGE;
    }
    if (epoch < part->last_fetched_epoch || end < part->offset) {
        part->diverging_epoch = epoch;
        part->diverging_end = end;
    }
    return 0;
}

/* What is left of the response while its partitions are read. */
typedef struct {
    int64_t limit;
    bool min_one; /* nothing has been read yet: one whole batch is given whatever its size */
    uint8_t *scratch;
    size_t scratch_used;
    bool may_block;
} reading;

/* For an answer cut at its limit. Where the log did not say, the batch's own length field is looked
 * at. */
static bool first_batch_is_whole(const pst_fetch_part *part, const pst_log_slice *slice,
                                 const reading *state) {
    if (slice->first_batch_size > 0) {
        return (uint64_t)slice->first_batch_size <= part->size;
    }
    uint8_t head[PST_BATCH_LOG_OVERHEAD];
    if (part->size < sizeof head) {
        return false;
    }
    if (part->copy != NULL) {
        memcpy(head, part->copy, sizeof head);
    } else {
        struct iovec to = {head, sizeof head};
        int flags = state->may_block ? 0 : RWF_NOWAIT;
        if (preadv2(part->range.file->fd, &to, 1, part->range.pos, flags) != (ssize_t)sizeof head) {
            return false;
        }
    }
    uint32_t length;
    memcpy(&length, head + 8, sizeof length);
    return be32toh(length) <= part->size - sizeof head;
}

static void read_records(pst_fetch_op *op, pst_fetch_part *part, int64_t end, reading *state) {
    int64_t max_bytes = part->max_bytes < state->limit ? part->max_bytes : state->limit;
    max_bytes = max_bytes < 0 ? 0 : max_bytes;
    if (part->offset >= end || (max_bytes == 0 && !state->min_one)) {
        return;
    }
    size_t room = state->scratch == NULL ? 0 : PST_FETCH_SCRATCH_SIZE - state->scratch_used;
    size_t copy_size = (size_t)op->shard->broker->settings.fetch_copy_size;
    pst_log_read_request request = {
        .copy_buffer = state->scratch == NULL ? NULL : state->scratch + state->scratch_used,
        .copy_capacity = room < copy_size ? room : copy_size,
        .fetch_offset = part->offset,
        .end_offset = end,
        .max_bytes = max_bytes,
        .min_one_batch = state->min_one,
        .may_block = state->may_block,
    };
    pst_log_slice slice = {0};
    int rc = pst_log_read(part->partition->log, &request, &slice);
    if (rc == -PST_EAGAIN && !state->may_block) {
        op->cold = true;
        return;
    }
    if (rc < 0) {
        bool gone = atomic_load_explicit(&part->partition->deleted, memory_order_acquire);
        fail_part(op, part, gone ? gone_error(op) : pst_broker__kafka_error(rc));
        return;
    }
    if (slice.range.file != NULL) {
        part->range = slice.range;
        part->size = (size_t)slice.range.size;
    } else {
        part->copy = request.copy_buffer;
        part->size = slice.copied;
    }
    if (!state->min_one && (int64_t)part->size >= max_bytes &&
        !first_batch_is_whole(part, &slice, state)) {
        /* Only the first batch of a response may exceed its limits, and a client that gets a cut
         * batch first believes that it cannot make progress. */
        if (part->range.file != NULL) {
            (void)pst_file_unref(part->range.file);
            part->range.file = NULL;
        }
        part->size = 0;
    } else if (part->copy != NULL) {
        state->scratch_used += part->size;
    }
}

static void read_part(pst_fetch_op *op, pst_fetch_part *part, reading *state) {
    part->diverging_epoch = -1;
    part->high_watermark = part->last_stable = part->log_start = -1;
    if (part->partition == NULL) {
        return;
    }
    part->error = check_partition(op, part);
    if (part->error != 0) {
        fail_part(op, part, part->error);
        return;
    }
    pst_log_offsets offsets;
    pst_log_get_offsets(part->partition->log, &offsets);
    part->error = check_divergence(part, &offsets);
    if (part->error == 0 && part->diverging_epoch < 0 &&
        (part->offset < offsets.log_start || part->offset > offsets.log_end)) {
        part->error = PST_KAFKA_OFFSET_OUT_OF_RANGE;
    }
    if (part->error != 0) {
        fail_part(op, part, part->error);
        return;
    }
    part->high_watermark = offsets.high_watermark;
    part->last_stable = offsets.last_stable;
    part->log_start = offsets.log_start;
    if (part->diverging_epoch >= 0) {
        op->failed = true;
        return;
    }
    if (part->refuse_zstd) {
        fail_part(op, part, PST_KAFKA_UNSUPPORTED_COMPRESSION_TYPE);
        return;
    }
    read_records(
        op, part,
        op->isolation == FETCH_READ_COMMITTED ? offsets.last_stable : offsets.high_watermark,
        state);
}

void pst_fetch__read(pst_fetch_op *op, uint8_t *scratch, bool may_block) {
    drop_results(op);
    op->bytes = 0;
    op->failed = false;
    op->cold = false;
    reading state = {
        .limit = op->max_bytes, .min_one = true, .scratch = scratch, .may_block = may_block};
    for (int32_t i = 0; i < op->part_count && !op->cold; i++) {
        pst_fetch_part *part = &op->parts[i];
        read_part(op, part, &state);
        if (part->size > 0) {
            state.min_one = false;
            state.limit = (int64_t)part->size < state.limit ? state.limit - (int64_t)part->size : 0;
            op->bytes += (int64_t)part->size;
        }
    }
}

bool pst_fetch__still_waits(pst_fetch_part *part) {
    pst_fetch_op *op = part->op;
    if (check_partition(op, part) != 0) {
        return false;
    }
    pst_log_offsets offsets;
    pst_log_get_offsets(part->partition->log, &offsets);
    if (part->offset < offsets.log_start || part->offset > offsets.log_end) {
        return false;
    }
    int64_t end =
        op->isolation == FETCH_READ_COMMITTED ? offsets.last_stable : offsets.high_watermark;
    if (part->offset >= end) {
        return true;
    }
    int64_t available = 1;
    if (op->min_bytes > 1) {
        available = pst_log_size_between(part->partition->log, part->offset, end);
        available = available < part->max_bytes ? available : part->max_bytes;
        available = available < 0 ? 0 : available;
    }
    op->bytes += available - part->available;
    part->available = available;
    return op->bytes < op->min_bytes;
}

/* ---- one fetch ---- */

void pst_fetch__abandon(pst_fetch_op *op) {
    pst_exchange_finish(op->exchange, false);
    pst_fetch__op_release(op);
}

static bool has_readable(const pst_fetch_op *op) {
    for (int32_t i = 0; i < op->part_count; i++) {
        if (!op->parts[i].unresolved) {
            return true;
        }
    }
    return false;
}

void pst_fetch__execute(pst_fetch_op *op, bool may_wait) {
    pst_fetch__read(op, op->shard->fetch->scratch, false);
    if (op->cold) {
        drop_results(op);
        pst_fetch__go_cold(op);
        return;
    }
    if (may_wait && op->max_wait_ms > 0 && op->bytes < op->min_bytes && !op->failed &&
        has_readable(op)) {
        drop_results(op);
        pst_fetch__park(op);
        return;
    }
    pst_fetch__respond(op);
}

static void proceed(pst_fetch_op *op) {
    if (!pst_fetch__session_apply(op)) {
        return;
    }
    if (op->error != 0) {
        pst_fetch__respond(op);
        return;
    }
    resolve(op);
    pst_fetch__execute(op, true);
}

void pst_fetch__resume(pst_fetch_op *op) {
    op->state = PST_FETCH_RUNNING;
    pst_list_remove(&op->link);
    pst_conn *conn = pst_exchange_conn(op->exchange);
    if (op->held && conn != NULL) {
        pst_conn_resume(conn);
    }
    op->held = false;
    if (op->conn_closed) {
        pst_fetch__abandon(op);
        return;
    }
    proceed(op);
}

void pst_broker__fetch(pst_shard *shard, pst_request *request) {
    pst_conn *conn = pst_exchange_conn(request->exchange);
    pst_fetch_op *op = pst_fetch__op_get(shard);
    if (op == NULL) {
        pst_exchange_close_connection(request->exchange);
        return;
    }
    op->exchange = request->exchange;
    op->conn = conn;
    op->listener = conn == NULL ? 0 : pst_conn_listener(conn);
    op->api_version = request->api_version;
    op->correlation_id = request->correlation_id;
    op->flexible = request->flexible;
    int rc = parse(op, &request->body, shard->broker->settings.fetch_max_bytes);
    if (rc == 0) {
        rc = merge_duplicates(op);
    }
    if (rc < 0) {
        pst_exchange_close_connection(request->exchange);
        pst_fetch__op_release(op);
        return;
    }
    pst_broker__count(&shard->fetch_requests, 1);
    proceed(op);
}
