/* broker/offset_for_leader_epoch.c - OffsetForLeaderEpoch 2-4: where an epoch ends, so that clients
 * notice truncation.
 *
 * Owner: the connection's reactor. Layer: broker. Answers at once from the epoch cache of each log;
 * deliberately allocates nothing: the body is read twice, first to validate and measure, then to
 * answer. */
#include <endian.h>
#include <string.h>

#include "broker/broker_private.h"
#include "wire/api_keys.h"
#include "wire/error_codes.h"

/* Where the answer is written. NULL: the first pass, which measures. Owner: the function. */
typedef struct {
    uint8_t *at;
    size_t size;
} sink;

static void put(sink *s, const void *bytes, size_t size) {
    if (s->at != NULL && size > 0) {
        memcpy(s->at + s->size, bytes, size);
    }
    s->size += size;
}

static void put_u8(sink *s, uint8_t value) {
    put(s, &value, sizeof value);
}

static void put_i16(sink *s, int16_t value) {
    uint16_t raw = htobe16((uint16_t)value);
    put(s, &raw, sizeof raw);
}

static void put_i32(sink *s, int32_t value) {
    uint32_t raw = htobe32((uint32_t)value);
    put(s, &raw, sizeof raw);
}

static void put_i64(sink *s, int64_t value) {
    uint64_t raw = htobe64((uint64_t)value);
    put(s, &raw, sizeof raw);
}

static void put_uvarint(sink *s, uint32_t value) {
    for (; value >= 0x80; value >>= 7) {
        put_u8(s, (uint8_t)(value | 0x80));
    }
    put_u8(s, (uint8_t)value);
}

static void put_count(sink *s, bool flexible, int32_t count) {
    if (flexible) {
        put_uvarint(s, (uint32_t)count + 1);
    } else {
        put_i32(s, count);
    }
}

static int16_t look_up(const pst_topic *topic, int32_t index, int32_t current_epoch, int32_t asked,
                       int32_t *epoch_out, int64_t *end_out) {
    *epoch_out = -1;
    *end_out = -1;
    pst_partition *partition = topic == NULL ? NULL : pst_topic__partition(topic, index);
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
    int rc = pst_partition__end_of_epoch(partition, asked, epoch_out, end_out);
    return rc < 0 ? pst_broker__kafka_error(rc) : 0;
}

static void walk_partition(pst_reader *r, bool flexible, const pst_topic *topic, sink *s) {
    int32_t index = pst_reader_i32(r);
    int32_t current_epoch = pst_reader_i32(r);
    int32_t asked = pst_reader_i32(r);
    if (flexible) {
        pst_reader_skip_tagged(r);
    }
    int32_t epoch = -1;
    int64_t end = -1;
    int16_t error = 0;
    if (s->at != NULL) {
        error = look_up(topic, index, current_epoch, asked, &epoch, &end);
    }
    put_i16(s, error);
    put_i32(s, index);
    put_i32(s, epoch);
    put_i64(s, end);
    if (flexible) {
        put_u8(s, 0);
    }
}

/* One pass over the body; with a NULL sink it only validates and measures. */
static int walk(pst_reader r, int16_t version, bool flexible, const pst_image *image, sink *s) {
    if (version >= 3) {
        (void)pst_reader_i32(&r); /* replica id */
    }
    int32_t topics = pst_reader_any_array(&r, flexible, flexible ? 3 : 6);
    put_i32(s, 0); /* throttle time */
    put_count(s, flexible, topics);
    for (int32_t i = 0; i < topics && pst_reader_ok(&r); i++) {
        pst_slice name = pst_reader_any_string(&r, flexible);
        const pst_topic *topic = s->at == NULL ? NULL : pst_image__topic_by_name(image, name);
        if (flexible) {
            put_uvarint(s, (uint32_t)name.size + 1);
        } else {
            put_i16(s, (int16_t)name.size);
        }
        put(s, name.data, name.size);
        int32_t count = pst_reader_any_array(&r, flexible, flexible ? 13 : 12);
        put_count(s, flexible, count);
        for (int32_t k = 0; k < count && pst_reader_ok(&r); k++) {
            walk_partition(&r, flexible, topic, s);
        }
        if (flexible) {
            pst_reader_skip_tagged(&r);
            put_u8(s, 0);
        }
    }
    if (flexible) {
        pst_reader_skip_tagged(&r);
        put_u8(s, 0);
    }
    return pst_reader_finish(&r);
}

void pst_broker__offset_for_leader_epoch(pst_shard *shard, pst_request *request) {
    pst_exchange *exchange = request->exchange;
    const pst_image *image = pst_broker__image(shard->broker);
    sink measure = {NULL, 0};
    uint8_t *block = NULL;
    if (walk(request->body, request->api_version, request->flexible, image, &measure) == 0 &&
        pst_broker__respond_header(exchange, PST_API_OFFSET_FOR_LEADER_EPOCH, request->api_version,
                                   request->correlation_id) == 0) {
        block = pst_exchange_reserve(exchange, measure.size);
    }
    if (block == NULL) {
        pst_exchange_close_connection(exchange);
        return;
    }
    sink answer = {block, 0};
    (void)walk(request->body, request->api_version, request->flexible, image, &answer);
    PST_ASSERT(answer.size == measure.size);
    pst_exchange_finish(exchange, true);
}
