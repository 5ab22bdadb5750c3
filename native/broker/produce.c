/* broker/produce.c - Produce 3-13: parse, validate while the bytes are hot, join the round.
 *
 * Owner: the reactor of the connection. Layer: broker.
 * Leaves out: transactions (a transactional id or batch is refused), authorization, quotas.
 *
 * Version notes: 7+ allows zstd; 5+ tells the log start offset; 8+ record errors and messages; 10+
 * the current leader; 13 names topics by id.
 *
 * The order of checks is Kafka's, because a client sees only the first failure: topic and
 * partition; one batch of magic 2; acks; internal topics; min.insync.replicas; base offset; size;
 * CRC; batch fields; records. */
#include <stdlib.h>

#include "broker/produce_private.h"
#include "wire/error_codes.h"

int pst_produce__grow(void **array, int32_t *capacity, int32_t wanted, size_t size) {
    if (wanted <= *capacity) {
        return 0;
    }
    int32_t next = *capacity < 16 ? 16 : *capacity;
    while (next < wanted) {
        next *= 2;
    }
    void *grown = realloc(*array, (size_t)next * size);
    if (grown == NULL) {
        return -PST_ENOMEM;
    }
    *array = grown;
    *capacity = next;
    return 0;
}

/* What all parts of one request share. Owner: the function that parses. */
struct context {
    pst_shard *shard;
    pst_request *request;
    const pst_image *image;
    const pst_cluster_spec *cluster;
    int64_t now_ms;
    int16_t acks;
    int16_t request_error; /* of every part whose topic and partition exist */
    bool internal_allowed;
};

static int64_t no_limit_below_zero(int64_t value) {
    return value < 0 ? INT64_MAX : value;
}

static pst_produce_rules rules_of(const pst_log_config *config) {
    return (pst_produce_rules){
        .max_message_bytes = no_limit_below_zero(config->max_message_bytes),
        .timestamp_before_max_ms = no_limit_below_zero(config->timestamp_before_max_ms),
        .timestamp_after_max_ms = no_limit_below_zero(config->timestamp_after_max_ms),
        .compression_type = config->compression_type,
        .compression_level = config->compression_level,
        .compacted = (config->cleanup_policy & 2) != 0,
        .create_time = config->timestamp_type == 0,
    };
}

/* Kafka's ProduceRequest.validateRecords: one whole batch, magic 2, zstd from version 7 on. */
static int16_t check_envelope(pst_produce_part *part, int16_t version) {
    int rc = pst_batch_parse(pst_slice_of(part->data, part->size), &part->view);
    if (rc == -PST_ETRUNC || rc == -PST_EMAGIC) {
        return PST_KAFKA_INVALID_RECORD; /* Kafka finds no batch in bytes that end early. */
    }
    if (rc < 0) {
        return PST_KAFKA_CORRUPT_MESSAGE;
    }
    if (version < 7 && pst_batch_codec(&part->view) == 4) {
        return PST_KAFKA_UNSUPPORTED_COMPRESSION_TYPE;
    }
    return part->view.size == part->size ? PST_KAFKA_NONE : PST_KAFKA_INVALID_RECORD;
}

static int16_t check_partition(const struct context *c, const pst_topic *topic,
                               const pst_partition *partition) {
    if (c->request_error != 0) {
        return c->request_error;
    }
    if (topic->is_internal && !c->internal_allowed) {
        return PST_KAFKA_INVALID_TOPIC_EXCEPTION;
    }
    if (partition->leader != c->cluster->node_id) {
        return PST_KAFKA_NOT_LEADER_OR_FOLLOWER;
    }
    if (partition->log == NULL || atomic_load_explicit(&partition->failed, memory_order_acquire)) {
        return PST_KAFKA_KAFKA_STORAGE_ERROR;
    }
    if (c->acks == -1 && topic->config->min_insync_replicas > 1) {
        return PST_KAFKA_NOT_ENOUGH_REPLICAS;
    }
    return PST_KAFKA_NONE;
}

static int16_t check_batch(const pst_produce_part *part, const pst_log_config *config) {
    const pst_batch *view = &part->view;
    if (view->base_offset != 0) {
        return PST_KAFKA_INVALID_RECORD;
    }
    if ((int64_t)view->size > part->rules.max_message_bytes) {
        return PST_KAFKA_MESSAGE_TOO_LARGE;
    }
    if (pst_batch_check_crc(view) < 0) {
        return PST_KAFKA_CORRUPT_MESSAGE;
    }
    int rc = pst_batch_check(view);
    if (rc < 0) {
        return pst_broker__kafka_error(rc);
    }
    if (pst_batch_is_control(view)) {
        return PST_KAFKA_INVALID_RECORD;
    }
    if (pst_batch_is_transactional(view)) {
        return PST_KAFKA_INVALID_TXN_STATE;
    }
    if (pst_batch_is_log_append_time(view)) {
        return PST_KAFKA_INVALID_TIMESTAMP;
    }
    return (int64_t)view->size > config->segment_bytes ? PST_KAFKA_RECORD_LIST_TOO_LARGE
                                                       : PST_KAFKA_NONE;
}

static int64_t log_start_of(const pst_partition *partition) {
    pst_log_offsets offsets;
    pst_log_get_offsets(partition->log, &offsets);
    return offsets.log_start;
}

/* Records of an uncompressed batch are walked here; those of a compressed one only where the topic
 * demands it, and then off the reactor (DESIGN law 7). */
static void check_records(const struct context *c, pst_produce_part *part) {
    const pst_produce_rules *rules = &part->rules;
    const pst_batch *view = &part->view;
    bool rewrites =
        rules->compression_type >= 0 && rules->compression_type != pst_batch_codec(view);
    if (pst_batch_codec(view) == 0) {
        pst_record_scan scan;
        pst_slice records = pst_batch_records(view);
        if (pst_batch_scan(view, records, &scan) < 0) {
            part->error = PST_KAFKA_INVALID_RECORD;
        } else {
            pst_produce__check_scan(part, &scan, records, c->now_ms);
        }
        part->needs_records = rewrites;
        return;
    }
    part->needs_records = rewrites || rules->compacted ||
                          (rules->create_time && rules->timestamp_before_max_ms != INT64_MAX);
    if (rules->create_time && !pst_produce__timestamp_ok(rules, view->max_timestamp, c->now_ms)) {
        part->needs_records = true; /* The answer names the records. */
    }
}

static void check_part(const struct context *c, const pst_topic *topic, pst_produce_part *part) {
    bool by_id = c->request->api_version >= 13;
    pst_partition *partition = topic != NULL ? pst_topic__partition(topic, part->index) : NULL;
    if (topic == NULL && by_id) {
        part->error = PST_KAFKA_UNKNOWN_TOPIC_ID;
        return;
    }
    if (partition == NULL || atomic_load_explicit(&partition->deleted, memory_order_acquire)) {
        part->error = PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
        return;
    }
    part->partition = partition;
    part->error = check_envelope(part, c->request->api_version);
    if (part->error == 0) {
        part->error = check_partition(c, topic, partition);
    }
    if (part->error != 0) {
        return;
    }
    part->rules = rules_of(topic->config);
    part->error = check_batch(part, topic->config);
    if (part->error == 0) {
        check_records(c, part);
    }
    if (part->error == PST_KAFKA_INVALID_RECORD || part->error == PST_KAFKA_INVALID_TIMESTAMP ||
        part->error == PST_KAFKA_INVALID_TXN_STATE) {
        part->log_start_offset = log_start_of(partition);
    }
}

static int read_partition(const struct context *c, const pst_topic *topic, pst_produce_part *part) {
    pst_request *request = c->request;
    pst_reader *r = &request->body;
    part->index = pst_reader_i32(r);
    bool null;
    pst_slice records = pst_reader_any_nullable_bytes(r, request->flexible, &null);
    if (request->flexible) {
        pst_reader_skip_tagged(r);
    }
    PST_TRY(r->err);
    if (records.size > 0) {
        part->data = request->data + (records.data - request->data);
        part->size = records.size;
    }
    check_part(c, topic, part);
    return 0;
}

static int read_topic(const struct context *c, pst_produce_op *op) {
    struct pst_produce_round *round = c->shard->produce;
    pst_request *request = c->request;
    pst_reader *r = &request->body;
    pst_slice name = {NULL, 0};
    pst_uuid id = {{0}};
    const pst_topic *topic;
    if (request->api_version >= 13) {
        id = pst_reader_uuid(r);
        topic = pst_image__topic_by_id(c->image, &id);
    } else {
        name = pst_reader_any_string(r, request->flexible);
        topic = pst_image__topic_by_name(c->image, name);
    }
    int32_t count = pst_reader_any_array(r, request->flexible, request->flexible ? 6 : 8);
    PST_TRY(r->err);
    PST_TRY(pst_produce__grow((void **)&round->parts, &round->part_capacity,
                              round->part_count + count, sizeof round->parts[0]));
    for (int32_t i = 0; i < count; i++) {
        pst_produce_part *part = &round->parts[round->part_count];
        *part = (pst_produce_part){
            .topic_name = name,
            .topic_id = id,
            .topic_part_count = i == 0 ? count : 0,
            .next = -1,
            .base_offset = -1,
            .log_append_time_ms = -1,
            .log_start_offset = -1,
        };
        PST_TRY(read_partition(c, topic, part));
        round->part_count++;
    }
    op->topic_count += count > 0 ? 1 : 0;
    op->part_count += count;
    if (request->flexible) {
        pst_reader_skip_tagged(r);
    }
    return r->err;
}

static int read_request(struct context *c, pst_produce_op *op) {
    pst_request *request = c->request;
    pst_reader *r = &request->body;
    bool no_transactional_id;
    (void)pst_reader_any_nullable_string(r, request->flexible, &no_transactional_id);
    op->acks = pst_reader_i16(r);
    (void)pst_reader_i32(r); /* timeout: one replica, nothing to wait for */
    int32_t topics = pst_reader_any_array(r, request->flexible, request->flexible ? 3 : 6);
    PST_TRY(r->err);
    c->acks = op->acks;
    if (!no_transactional_id) {
        c->request_error = PST_KAFKA_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    } else if (op->acks < -1 || op->acks > 1) {
        c->request_error = PST_KAFKA_INVALID_REQUIRED_ACKS;
    }
    for (int32_t i = 0; i < topics; i++) {
        PST_TRY(read_topic(c, op));
    }
    if (request->flexible) {
        pst_reader_skip_tagged(r);
    }
    return r->err;
}

static uint64_t conn_bit(const pst_conn *conn) {
    uint64_t mixed = (uint64_t)(uintptr_t)conn * 0x9e3779b97f4a7c15ULL;
    return (uint64_t)1 << (mixed >> 58);
}

void pst_broker__produce(pst_shard *shard, pst_request *request) {
    struct pst_produce_round *round = shard->produce;
    struct context c = {
        .shard = shard,
        .request = request,
        .image = pst_broker__image(shard->broker),
        .now_ms = pst_reactor_wall_ms(shard->reactor),
        .internal_allowed = pst_slice_eq(request->client_id, pst_slice_str("__admin_client")),
    };
    c.cluster = pst_image__cluster(c.image);
    int32_t first = round->part_count;
    pst_produce_op op = {
        .exchange = request->exchange,
        .data = request->data,
        .size = request->size,
        .correlation_id = request->correlation_id,
        .version = request->api_version,
        .first_part = first,
    };
    int rc = pst_produce__grow((void **)&round->ops, &round->op_capacity, round->op_count + 1,
                               sizeof round->ops[0]);
    if (rc == 0) {
        rc = read_request(&c, &op);
    }
    if (rc < 0) {
        while (round->part_count > first) {
            free(round->parts[--round->part_count].record_errors);
        }
        pst_exchange_close_connection(request->exchange);
        return;
    }
    round->ops[round->op_count++] = op;
    round->conn_bits |= conn_bit(pst_exchange_conn(request->exchange));
    pst_broker__count(&shard->produce_requests, 1);
}

void pst_produce__settle(pst_shard *shard, const pst_conn *conn) {
    struct pst_produce_round *round = shard->produce;
    if ((round->conn_bits & conn_bit(conn)) == 0) {
        return;
    }
    for (int32_t i = 0; i < round->op_count; i++) {
        if (pst_exchange_conn(round->ops[i].exchange) == conn) {
            pst_produce__round_end(shard);
            return;
        }
    }
}
