/* broker/fetch_respond.c - the Fetch response, written straight into the memory that leaves.
 *
 * Owner: the connection's reactor. Layer: broker. Deliberately reads no log: lengths are known
 * before the first byte is written, so a prefix never has to be patched behind a file range. */
#include <endian.h>
#include <string.h>

#include "broker/fetch_private.h"
#include "wire/api_keys.h"
#include "wire/error_codes.h"

enum {
    HEAD_SIZE_MAX = 32,       /* throttle, error, session, count of topics, closing tags */
    TOPIC_SIZE_MAX = 32,      /* without its name */
    PARTITION_SIZE_MAX = 112, /* without its records */
    ENDPOINT_SIZE_MAX = 64,   /* without host and rack */
};

/* Memory reserved from the exchange and how far it is filled. Owner: the function that composes. */
typedef struct {
    pst_exchange *exchange;
    uint8_t *at, *end;
    size_t last_max; /* upper bound of what follows the last partition */
    bool flexible;
    bool failed;
} composer;

/* Upper bound of the memory bytes from partition `from` to the next file range, or to the end of
 * the response. */
static size_t bound_from(const pst_fetch_op *op, int32_t from) {
    size_t bound = HEAD_SIZE_MAX + PARTITION_SIZE_MAX;
    int32_t topic = -1;
    for (int32_t i = from; i < op->part_count; i++) {
        const pst_fetch_part *part = &op->parts[i];
        if (!part->include) {
            continue;
        }
        if (part->topic != topic) {
            topic = part->topic;
            bound += TOPIC_SIZE_MAX + (size_t)op->topics[topic].name_size;
        }
        bound += PARTITION_SIZE_MAX;
        if (part->range.file != NULL) {
            break;
        }
        bound += part->size;
    }
    return bound;
}

static void open_block(composer *c, const pst_fetch_op *op, int32_t from) {
    size_t bound = bound_from(op, from) + c->last_max;
    c->at = pst_exchange_reserve(c->exchange, bound);
    c->failed = c->at == NULL;
    c->end = c->failed ? NULL : c->at + bound;
}

static void close_block(composer *c) {
    pst_exchange_trim(c->exchange, (size_t)(c->end - c->at));
}

static void put(composer *c, const void *bytes, size_t size) {
    PST_ASSERT(size <= (size_t)(c->end - c->at));
    if (size > 0) {
        memcpy(c->at, bytes, size);
        c->at += size;
    }
}

static void put_i8(composer *c, int8_t value) {
    put(c, &value, sizeof value);
}

static void put_i16(composer *c, int16_t value) {
    uint16_t raw = htobe16((uint16_t)value);
    put(c, &raw, sizeof raw);
}

static void put_i32(composer *c, int32_t value) {
    uint32_t raw = htobe32((uint32_t)value);
    put(c, &raw, sizeof raw);
}

static void put_i64(composer *c, int64_t value) {
    uint64_t raw = htobe64((uint64_t)value);
    put(c, &raw, sizeof raw);
}

static void put_uvarint(composer *c, uint32_t value) {
    while (value >= 0x80) {
        put_i8(c, (int8_t)(uint8_t)(value | 0x80));
        value >>= 7;
    }
    put_i8(c, (int8_t)value);
}

/* The count of an array, or the length of bytes, of either form. -1 is null. */
static void put_count(composer *c, int32_t count) {
    if (c->flexible) {
        put_uvarint(c, (uint32_t)(count + 1));
    } else {
        put_i32(c, count);
    }
}

static void put_compact_string(composer *c, const char *text, size_t size) {
    if (text == NULL) {
        put_uvarint(c, 0);
        return;
    }
    put_uvarint(c, (uint32_t)size + 1);
    put(c, text, size);
}

/* ---- parts ---- */

static void put_tags(composer *c, const pst_fetch_op *op, const pst_fetch_part *part,
                     int32_t node_id) {
    bool diverging = part->error == 0 && part->partition != NULL && part->diverging_epoch >= 0;
    bool leader = op->api_version >= 16 && part->error == PST_KAFKA_FENCED_LEADER_EPOCH &&
                  part->partition != NULL;
    put_uvarint(c, (diverging ? 1u : 0u) + (leader ? 1u : 0u));
    if (diverging) {
        put_uvarint(c, 0);
        put_uvarint(c, 13);
        put_i32(c, part->diverging_epoch);
        put_i64(c, part->diverging_end);
        put_uvarint(c, 0);
    }
    if (leader) {
        put_uvarint(c, 1);
        put_uvarint(c, 9);
        put_i32(c, node_id);
        put_i32(c, part->partition->leader_epoch);
        put_uvarint(c, 0);
    }
}

/* The list of aborted transactions: empty under read_committed and where Kafka answers before it
 * looks at the log; else null. */
static int32_t aborted_count(const pst_fetch_op *op, const pst_fetch_part *part) {
    if (part->unresolved) {
        return 0;
    }
    bool read = part->error == 0 && part->diverging_epoch < 0;
    return op->isolation == 1 && read ? 0 : -1;
}

static void put_partition(composer *c, pst_fetch_op *op, int32_t at, int32_t node_id) {
    pst_fetch_part *part = &op->parts[at];
    put_i32(c, part->index);
    put_i16(c, part->error);
    put_i64(c, part->high_watermark);
    put_i64(c, part->last_stable);
    if (op->api_version >= 5) {
        put_i64(c, part->log_start);
    }
    put_count(c, aborted_count(op, part));
    if (op->api_version >= 11) {
        put_i32(c, -1); /* preferred read replica */
    }
    put_count(c, (int32_t)part->size);
    if (part->range.file != NULL) {
        close_block(c);
        pst_file_range range = part->range;
        part->range.file = NULL;
        if (pst_exchange_add_file(c->exchange, range) < 0) {
            c->failed = true;
            return;
        }
        open_block(c, op, at + 1);
        if (c->failed) {
            return;
        }
    } else {
        put(c, part->copy, part->size);
    }
    if (c->flexible) {
        put_tags(c, op, part, node_id);
    }
}

static void put_topic_key(composer *c, const pst_fetch_op *op, const pst_fetch_topic *topic) {
    if (op->api_version >= 13) {
        put(c, topic->id.bytes, sizeof topic->id.bytes);
        return;
    }
    pst_slice name = pst_fetch__topic_name(op, topic);
    if (c->flexible) {
        put_uvarint(c, (uint32_t)name.size + 1);
    } else {
        put_i16(c, (int16_t)name.size);
    }
    put(c, name.data, name.size);
}

/* KIP-951: where the current leader of a fenced partition is. There is one node: this one, as the
 * client sees it. */
static const pst_endpoint *own_endpoint(const pst_fetch_op *op, const pst_cluster_spec *cluster) {
    bool wanted = false;
    for (int32_t i = 0; i < op->part_count && op->api_version >= 16; i++) {
        wanted |= op->parts[i].include && op->parts[i].error == PST_KAFKA_FENCED_LEADER_EPOCH;
    }
    for (int32_t i = 0; wanted && cluster != NULL && i < cluster->endpoint_count; i++) {
        if (cluster->endpoints[i].listener == op->listener) {
            return &cluster->endpoints[i];
        }
    }
    return NULL;
}

static size_t string_size(const char *text) {
    return text == NULL ? 0 : strlen(text);
}

static void put_endpoint(composer *c, const pst_cluster_spec *cluster,
                         const pst_endpoint *endpoint) {
    size_t host = string_size(endpoint->host);
    size_t rack = string_size(cluster->rack);
    size_t size = 1 + 4 + pst_uvarlong_size(host + 1) + host + 4 +
                  (cluster->rack == NULL ? 1 : pst_uvarlong_size(rack + 1) + rack) + 1;
    put_uvarint(c, 1); /* one tagged field */
    put_uvarint(c, 0);
    put_uvarint(c, (uint32_t)size);
    put_uvarint(c, 2); /* one endpoint */
    put_i32(c, cluster->node_id);
    put_compact_string(c, endpoint->host == NULL ? "" : endpoint->host, host);
    put_i32(c, endpoint->port);
    put_compact_string(c, cluster->rack, rack);
    put_uvarint(c, 0);
}

/* ---- the whole ---- */

/* Partitions of the same topic that follow each other share an entry. */
static int32_t run_length(const pst_fetch_op *op, int32_t from, int32_t *next_out) {
    int32_t topic = op->parts[from].topic;
    int32_t count = 0;
    int32_t i = from;
    for (; i < op->part_count; i++) {
        if (!op->parts[i].include) {
            continue;
        }
        if (op->parts[i].topic != topic) {
            break;
        }
        count++;
    }
    *next_out = i;
    return count;
}

static int32_t next_included(const pst_fetch_op *op, int32_t from) {
    while (from < op->part_count && !op->parts[from].include) {
        from++;
    }
    return from;
}

static int32_t count_runs(const pst_fetch_op *op) {
    int32_t runs = 0;
    for (int32_t i = next_included(op, 0); i < op->part_count;) {
        int32_t next;
        (void)run_length(op, i, &next);
        runs++;
        i = next_included(op, next);
    }
    return runs;
}

static void compose(pst_fetch_op *op, int32_t session_id) {
    const pst_cluster_spec *cluster = pst_image__cluster(pst_broker__image(op->shard->broker));
    const pst_endpoint *endpoint = own_endpoint(op, cluster);
    composer c = {.exchange = op->exchange, .flexible = op->flexible};
    if (endpoint != NULL) {
        c.last_max = ENDPOINT_SIZE_MAX + string_size(endpoint->host) + string_size(cluster->rack);
    }
    open_block(&c, op, 0);
    if (c.failed) {
        pst_exchange_close_connection(op->exchange);
        return;
    }
    put_i32(&c, 0); /* throttle time */
    if (op->api_version >= 7) {
        put_i16(&c, op->error);
        put_i32(&c, session_id);
    }
    put_count(&c, count_runs(op));
    for (int32_t i = next_included(op, 0); i < op->part_count && !c.failed;) {
        int32_t next;
        int32_t count = run_length(op, i, &next);
        put_topic_key(&c, op, &op->topics[op->parts[i].topic]);
        put_count(&c, count);
        for (; i < next && !c.failed; i++) {
            if (op->parts[i].include) {
                put_partition(&c, op, i, cluster == NULL ? -1 : cluster->node_id);
            }
        }
        if (c.flexible && !c.failed) {
            put_uvarint(&c, 0);
        }
        i = next_included(op, next);
    }
    if (c.failed) {
        pst_exchange_close_connection(op->exchange);
        return;
    }
    if (endpoint != NULL) {
        put_endpoint(&c, cluster, endpoint);
    } else if (c.flexible) {
        put_uvarint(&c, 0);
    }
    close_block(&c);
    pst_exchange_finish(op->exchange, true);
}

/* Which partitions are told, and under which session. */
static int32_t settle_session(pst_fetch_op *op) {
    bool whole = op->error == 0 && op->kind != PST_FETCH_INCREMENTAL;
    for (int32_t i = 0; i < op->part_count; i++) {
        op->parts[i].include = whole;
    }
    if (op->error != 0) {
        return 0;
    }
    switch (op->kind) {
        case PST_FETCH_SESSIONLESS:
            return 0;
        case PST_FETCH_FULL:
            return pst_fetch__session_create(op);
        case PST_FETCH_INCREMENTAL:
            if (op->superseded || op->session->epoch != op->expected_epoch) {
                /* Another request of the session came in between. */
                op->error = PST_KAFKA_INVALID_FETCH_SESSION_EPOCH;
                return op->session_id;
            }
            pst_fetch__session_filter(op);
            return op->session_id;
    }
    return 0;
}

void pst_fetch__respond(pst_fetch_op *op) {
    if (pst_exchange_conn(op->exchange) == NULL) {
        pst_fetch__abandon(op);
        return;
    }
    if (pst_broker__respond_header(op->exchange, PST_API_FETCH, op->api_version,
                                   op->correlation_id) < 0) {
        pst_exchange_close_connection(op->exchange);
        pst_fetch__op_release(op);
        return;
    }
    int32_t session_id = settle_session(op);
    compose(op, session_id);
    pst_broker__count(&op->shard->fetch_bytes, op->bytes);
    pst_fetch__op_release(op);
}
