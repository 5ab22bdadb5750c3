/* broker/metadata.c - Metadata 0-13, answered from the image.
 *
 * Owner: the reactor of the connection. Layer: broker.
 * Leaves out: authorization (there is no authorizer: Kafka's full set of operations is told),
 * throttling, listeners missing on other brokers (there is one broker).
 *
 * Version notes: 0 asks for all topics with an empty list, 1+ with null. 4+ may forbid
 * auto-creation. 10 and 11 carry topic ids that may not be used; 12+ may ask by id, and then names
 * are ignored as Kafka does. 8-10 tell the cluster's authorized operations. 13 adds a top-level
 * error.
 *
 * A legal topic that is missing and may be created sends the whole request to the control plane,
 * which creates the topic and hands the request back: then it is answered from the image, whatever
 * is in it. */
#include <limits.h>
#include <stdlib.h>

#include "base/hash.h"
#include "broker/broker_private.h"
#include "wire/error_codes.h"

enum {
    /* AclOperation codes as bits: READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS,
       ALTER_CONFIGS. */
    TOPIC_OPERATIONS = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11,
    /* CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE.
     */
    CLUSTER_OPERATIONS = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12,
    TOPIC_NAME_SIZE_MAX = 249,
    SCRATCH_KEPT = 256 * 1024, /* bytes of the response buffer kept between requests */
};

/* One entry of the request's list. */
struct wanted {
    pst_slice name;
    bool name_null;
    pst_uuid id;
};

/* Owner: the function that serves the request. */
struct metadata {
    pst_shard *shard;
    pst_request *request;
    const pst_image *image;
    const pst_cluster_spec *cluster;
    int16_t version;
    bool flexible;
    bool all_topics;
    bool by_id;
    bool allow_auto_creation;
    bool cluster_operations;
    bool topic_operations;
    int32_t count; /* entries of the list */
    pst_reader list;
    int16_t error; /* of the whole request */
};

static struct wanted read_wanted(const struct metadata *m, pst_reader *r) {
    struct wanted wanted = {.name_null = false};
    if (m->version >= 10) {
        wanted.id = pst_reader_uuid(r);
        wanted.name = pst_reader_any_nullable_string(r, m->flexible, &wanted.name_null);
    } else {
        wanted.name = pst_reader_any_string(r, m->flexible);
    }
    if (m->flexible) {
        pst_reader_skip_tagged(r);
    }
    return wanted;
}

/* Kafka's rule for names: 1-249 of [a-zA-Z0-9._-], neither "." nor "..". */
static bool is_legal_name(pst_slice name) {
    if (name.size == 0 || name.size > TOPIC_NAME_SIZE_MAX ||
        pst_slice_eq(name, pst_slice_str(".")) || pst_slice_eq(name, pst_slice_str(".."))) {
        return false;
    }
    for (size_t i = 0; i < name.size; i++) {
        uint8_t c = name.data[i];
        bool legal = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     c == '.' || c == '_' || c == '-';
        if (!legal) {
            return false;
        }
    }
    return true;
}

/* Reads the whole body; remembers where the list starts; notes what kind of request it is. */
static int parse(struct metadata *m, bool *creates_out) {
    pst_reader *r = &m->request->body;
    bool null = false;
    *creates_out = false;
    if (m->version == 0) {
        m->count = pst_reader_array(r, 2);
    } else {
        m->count = pst_reader_any_nullable_array(r, m->flexible, m->version >= 10 ? 18 : 2, &null);
    }
    m->all_topics = null || (m->version == 0 && m->count == 0);
    m->list = *r;
    for (int32_t i = 0; i < m->count && pst_reader_ok(r); i++) {
        struct wanted wanted = read_wanted(m, r);
        bool has_id = !pst_uuid_is_zero(&wanted.id);
        m->by_id = m->by_id || has_id;
        if ((m->version < 12 && (wanted.name_null || has_id)) || (wanted.name_null && !has_id)) {
            m->error = PST_KAFKA_INVALID_REQUEST;
        }
        if (!wanted.name_null && !*creates_out && is_legal_name(wanted.name)) {
            *creates_out = pst_image__topic_by_name(m->image, wanted.name) == NULL;
        }
    }
    m->allow_auto_creation = m->version < 4 || pst_reader_bool(r);
    m->cluster_operations = m->version >= 8 && m->version <= 10 && pst_reader_bool(r);
    m->topic_operations = m->version >= 8 && pst_reader_bool(r);
    if (m->flexible) {
        pst_reader_skip_tagged(r);
    }
    *creates_out = *creates_out && m->error == 0 && !m->by_id && m->allow_auto_creation &&
                   m->cluster->auto_create_topics && !m->request->redispatched;
    return r->err;
}

/* ---- entries seen already: Kafka answers a repeated topic once, and a short request cannot ask
 * for a long answer many times over ---- */

/* Owner: the function that serves the request. */
struct seen {
    const void **slots; /* pst_topic, or the bytes of an unknown name or id */
    size_t *sizes;
    size_t mask;
};

static int seen_init(struct seen *seen, int32_t count) {
    size_t slots = 16;
    while (slots < (size_t)count * 2) {
        slots *= 2;
    }
    seen->mask = slots - 1;
    seen->slots = calloc(slots, sizeof seen->slots[0] + sizeof seen->sizes[0]);
    seen->sizes = (size_t *)(void *)(seen->slots + slots);
    return seen->slots != NULL ? 0 : -PST_ENOMEM;
}

/* True if these bytes were added before; adds them. */
static bool seen_before(struct seen *seen, const void *bytes, size_t size, uint64_t seed) {
    size_t at = pst_hash_bytes(bytes, size, seed) & seen->mask;
    for (; seen->slots[at] != NULL; at = (at + 1) & seen->mask) {
        if (seen->sizes[at] == size && memcmp(seen->slots[at], bytes, size) == 0) {
            return true;
        }
    }
    seen->slots[at] = bytes;
    seen->sizes[at] = size;
    return false;
}

/* ---- writing ---- */

static void write_brokers(const struct metadata *m, pst_writer *w) {
    const pst_cluster_spec *cluster = m->cluster;
    pst_conn *conn = pst_exchange_conn(m->request->exchange);
    int listener = conn != NULL ? pst_conn_listener(conn) : 0;
    const pst_endpoint *endpoint = cluster->endpoint_count > 0 ? &cluster->endpoints[0] : NULL;
    for (int32_t i = 0; i < cluster->endpoint_count; i++) {
        if (cluster->endpoints[i].listener == listener) {
            endpoint = &cluster->endpoints[i];
        }
    }
    pst_writer_any_array(w, m->flexible, endpoint != NULL && m->error == 0 ? 1 : 0);
    if (endpoint == NULL || m->error != 0) {
        return;
    }
    pst_slice host = pst_slice_str(endpoint->host);
    pst_writer_i32(w, cluster->node_id);
    pst_writer_any_string(w, m->flexible, &host);
    pst_writer_i32(w, endpoint->port);
    if (m->version >= 1) {
        pst_slice rack = pst_slice_str(cluster->rack != NULL ? cluster->rack : "");
        pst_writer_any_string(w, m->flexible, cluster->rack != NULL ? &rack : NULL);
    }
    pst_writer_no_tagged(w, m->flexible);
}

static void write_nodes(const struct metadata *m, pst_writer *w, bool some, int32_t node) {
    pst_writer_any_array(w, m->flexible, some ? 1 : 0);
    if (some) {
        pst_writer_i32(w, node);
    }
}

static void write_partition(const struct metadata *m, pst_writer *w,
                            const pst_partition *partition) {
    /* A log that could not be opened is an offline replica, and the partition has no leader. */
    bool offline = atomic_load_explicit(&partition->failed, memory_order_acquire);
    int32_t leader = offline ? -1 : partition->leader;
    int32_t node = m->cluster->node_id;
    pst_writer_i16(w, leader < 0 ? PST_KAFKA_LEADER_NOT_AVAILABLE : PST_KAFKA_NONE);
    pst_writer_i32(w, partition->index);
    pst_writer_i32(w, leader);
    if (m->version >= 7) {
        pst_writer_i32(w, partition->leader_epoch);
    }
    write_nodes(m, w, true, node);
    write_nodes(m, w, true, node);
    if (m->version >= 5) {
        write_nodes(m, w, offline, node);
    }
    pst_writer_no_tagged(w, m->flexible);
}

static void write_topic_head(const struct metadata *m, pst_writer *w, int16_t error,
                             const pst_slice *name, const pst_uuid *id, bool is_internal) {
    pst_writer_i16(w, error);
    pst_writer_any_string(w, m->flexible, name);
    if (m->version >= 10) {
        pst_writer_uuid(w, *id);
    }
    if (m->version >= 1) {
        pst_writer_bool(w, is_internal);
    }
}

static void write_topic_tail(const struct metadata *m, pst_writer *w, bool named) {
    if (m->version >= 8) {
        pst_writer_i32(w, m->topic_operations && named ? TOPIC_OPERATIONS : INT32_MIN);
    }
    pst_writer_no_tagged(w, m->flexible);
}

static void write_topic(const struct metadata *m, pst_writer *w, const pst_topic *topic) {
    pst_slice name = pst_slice_of(topic->name, (size_t)topic->name_size);
    write_topic_head(m, w, PST_KAFKA_NONE, &name, &topic->id, topic->is_internal);
    pst_writer_any_array(w, m->flexible, topic->partition_count);
    for (int32_t i = 0; i < topic->partition_count; i++) {
        write_partition(m, w, topic->partitions[i]);
    }
    write_topic_tail(m, w, true);
}

static bool is_internal_name(pst_slice name) {
    return pst_slice_eq(name, pst_slice_str("__consumer_offsets")) ||
           pst_slice_eq(name, pst_slice_str("__transaction_state")) ||
           pst_slice_eq(name, pst_slice_str("__share_group_state"));
}

static void write_missing(const struct metadata *m, pst_writer *w, const struct wanted *wanted) {
    static const pst_uuid no_id;
    if (m->error != 0) {
        pst_slice name = wanted->name_null ? pst_slice_str("") : wanted->name;
        write_topic_head(m, w, m->error, &name, &wanted->id, false);
    } else if (m->by_id) {
        write_topic_head(m, w, PST_KAFKA_UNKNOWN_TOPIC_ID, NULL, &wanted->id, false);
    } else {
        int16_t error = is_legal_name(wanted->name) ? PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION
                                                    : PST_KAFKA_INVALID_TOPIC_EXCEPTION;
        write_topic_head(m, w, error, &wanted->name, &no_id, is_internal_name(wanted->name));
    }
    pst_writer_any_array(w, m->flexible, 0);
    write_topic_tail(m, w, m->error == 0 && !m->by_id);
}

/* The listed topics, each once. Returns how many. */
static int32_t write_listed(const struct metadata *m, pst_writer *w) {
    struct seen seen;
    if (seen_init(&seen, m->count) < 0) {
        pst_writer_fail(w, -PST_ENOMEM);
        return 0;
    }
    int32_t written = 0;
    uint64_t seed = m->shard->broker->hash_seed;
    pst_reader list = m->list;
    for (int32_t i = 0; i < m->count; i++) {
        const uint8_t *start = list.cur;
        struct wanted wanted = read_wanted(m, &list);
        if (m->by_id && m->error == 0 && pst_uuid_is_zero(&wanted.id)) {
            continue;
        }
        pst_topic *topic = NULL;
        if (m->error == 0) {
            topic = m->by_id ? pst_image__topic_by_id(m->image, &wanted.id)
                             : pst_image__topic_by_name(m->image, wanted.name);
        }
        /* The id opens the entry in every version that has one. */
        const void *bytes = m->by_id ? start : wanted.name.data;
        size_t size = m->by_id ? sizeof wanted.id.bytes : wanted.name.size;
        static const uint8_t nothing;
        if (seen_before(&seen, bytes != NULL ? bytes : &nothing, size, seed)) {
            continue;
        }
        written++;
        if (topic != NULL) {
            write_topic(m, w, topic);
        } else {
            write_missing(m, w, &wanted);
        }
    }
    free(seen.slots);
    return written;
}

static void write_topics(const struct metadata *m, pst_writer *w) {
    if (m->all_topics) {
        int32_t count = pst_image__topic_count(m->image);
        pst_writer_any_array(w, m->flexible, count);
        for (int32_t i = 0; i < count; i++) {
            write_topic(m, w, pst_image__topic_at(m->image, i));
        }
        return;
    }
    /* Repeated entries are left out, so the count is known last: it is never larger than the
     * list's. */
    size_t at = pst_writer_position(w);
    pst_writer_any_array(w, m->flexible, m->count);
    size_t start = pst_writer_position(w);
    int32_t written = write_listed(m, w);
    if (!pst_writer_ok(w) || written == m->count) {
        return;
    }
    size_t end = pst_writer_position(w);
    w->buffer->size = at;
    pst_writer_any_array(w, m->flexible, written);
    size_t moved = pst_writer_position(w);
    memmove(w->buffer->data + moved, w->buffer->data + start, end - start);
    w->buffer->size = moved + (end - start);
}

static void write_response(const struct metadata *m, pst_writer *w) {
    if (m->version >= 3) {
        pst_writer_i32(w, 0); /* throttle time */
    }
    write_brokers(m, w);
    if (m->version >= 2) {
        pst_writer_any_string(w, m->flexible, m->error == 0 ? &m->cluster->cluster_id : NULL);
    }
    if (m->version >= 1) {
        pst_writer_i32(w, m->error == 0 ? m->cluster->controller_id : -1);
    }
    write_topics(m, w);
    if (m->version >= 8 && m->version <= 10) {
        pst_writer_i32(w, m->cluster_operations ? CLUSTER_OPERATIONS : INT32_MIN);
    }
    if (m->version >= 13) {
        pst_writer_i16(w, m->error);
    }
    pst_writer_no_tagged(w, m->flexible);
}

void pst_broker__metadata(pst_shard *shard, pst_request *request) {
    struct metadata m = {
        .shard = shard,
        .request = request,
        .image = pst_broker__image(shard->broker),
        .version = request->api_version,
        .flexible = request->flexible,
    };
    m.cluster = pst_image__cluster(m.image);
    bool creates;
    if (parse(&m, &creates) < 0) {
        pst_exchange_close_connection(request->exchange);
        return;
    }
    if (creates) {
        pst_broker__to_control(shard, request);
        return;
    }
    shard->scratch.size = 0;
    pst_writer w = pst_writer_of(&shard->scratch);
    write_response(&m, &w);
    pst_exchange *exchange = request->exchange;
    uint8_t *at = NULL;
    if (pst_writer_ok(&w) &&
        pst_broker__respond_header(exchange, request->api_key, request->api_version,
                                   request->correlation_id) == 0) {
        at = pst_exchange_reserve(exchange, shard->scratch.size);
    }
    if (at == NULL) {
        pst_exchange_close_connection(exchange);
    } else {
        memcpy(at, shard->scratch.data, shard->scratch.size);
        pst_exchange_finish(exchange, true);
    }
    if (shard->scratch.capacity > SCRATCH_KEPT) {
        pst_byte_buffer_fini(&shard->scratch);
    }
}
