/* broker/produce_response.c - results to the bytes of a Produce response, written straight into the
 * exchange.
 *
 * Owner: the reactor of the connection. Layer: broker. Deliberately decides nothing but the close
 * of an acks=0 connection after an error: its client gets no other sign.
 *
 * Node endpoints (version 10+) are left out: the image knows the endpoints of this broker alone,
 * and this broker is never named as the new leader by itself. */
#include "broker/produce_private.h"
#include "wire/error_codes.h"

/* Owner: the function that writes. Room was reserved for the largest form of everything. */
struct cursor {
    uint8_t *at;
    bool flexible;
};

static void put8(struct cursor *c, uint8_t value) {
    *c->at++ = value;
}

static void put16(struct cursor *c, int16_t value) {
    uint16_t raw = htobe16((uint16_t)value);
    memcpy(c->at, &raw, sizeof raw);
    c->at += sizeof raw;
}

static void put32(struct cursor *c, int32_t value) {
    uint32_t raw = htobe32((uint32_t)value);
    memcpy(c->at, &raw, sizeof raw);
    c->at += sizeof raw;
}

static void put64(struct cursor *c, int64_t value) {
    uint64_t raw = htobe64((uint64_t)value);
    memcpy(c->at, &raw, sizeof raw);
    c->at += sizeof raw;
}

static void put_uvarint(struct cursor *c, uint32_t value) {
    while (value >= 0x80) {
        put8(c, (uint8_t)(value | 0x80));
        value >>= 7;
    }
    put8(c, (uint8_t)value);
}

static void put_array(struct cursor *c, int32_t count) {
    if (c->flexible) {
        put_uvarint(c, (uint32_t)count + 1);
    } else {
        put32(c, count);
    }
}

static void put_string(struct cursor *c, pst_slice text) {
    if (c->flexible) {
        put_uvarint(c, (uint32_t)text.size + 1);
    } else {
        put16(c, (int16_t)text.size);
    }
    memcpy(c->at, text.data, text.size);
    c->at += text.size;
}

static void put_nullable(struct cursor *c, const char *text) {
    if (text != NULL) {
        put_string(c, pst_slice_str(text));
    } else if (c->flexible) {
        put8(c, 0);
    } else {
        put16(c, -1);
    }
}

static void put_no_tags(struct cursor *c) {
    if (c->flexible) {
        put8(c, 0);
    }
}

static size_t text_size(const char *text) {
    return text != NULL ? strlen(text) : 0;
}

/* An upper bound of the response, header included. */
static size_t size_of(const pst_produce_op *op, const pst_produce_part *parts) {
    size_t size = 5 + 5 + 4 + 1;
    for (int32_t i = 0; i < op->part_count; i++) {
        const pst_produce_part *part = &parts[i];
        /* The fixed fields are 30 bytes; 5 for each length or count; the leader's tag. */
        size += 30 + 5 + 5 + 12 + text_size(part->message);
        for (int32_t k = 0; k < part->record_error_count; k++) {
            size += 4 + 5 + 1 + text_size(pst_produce__record_message(&part->record_errors[k]));
        }
        size += parts[i].topic_part_count > 0 ? 16 + 5 + parts[i].topic_name.size + 5 + 1 : 0;
    }
    return size;
}

static void put_leader(struct cursor *c, int16_t version, const pst_produce_part *part) {
    if (version < 10 || part->error != PST_KAFKA_NOT_LEADER_OR_FOLLOWER ||
        part->partition == NULL) {
        put_no_tags(c);
        return;
    }
    put8(c, 1); /* tagged fields */
    put8(c, 0); /* tag: current leader */
    put8(c, 9); /* size */
    put32(c, part->partition->leader);
    put32(c, part->partition->leader_epoch);
    put8(c, 0);
}

static void put_part(struct cursor *c, int16_t version, const pst_produce_part *part) {
    bool ok = part->error == PST_KAFKA_NONE;
    put32(c, part->index);
    put16(c, part->error);
    put64(c, ok ? part->base_offset : -1);
    put64(c, ok ? part->log_append_time_ms : -1);
    if (version >= 5) {
        put64(c, part->log_start_offset);
    }
    if (version >= 8) {
        put_array(c, part->record_error_count);
        for (int32_t i = 0; i < part->record_error_count; i++) {
            put32(c, part->record_errors[i].index);
            put_nullable(c, pst_produce__record_message(&part->record_errors[i]));
            put_no_tags(c);
        }
        put_nullable(c, part->message);
    }
    put_leader(c, version, part);
}

static void put_response(struct cursor *c, const pst_produce_op *op,
                         const pst_produce_part *parts) {
    put32(c, op->correlation_id);
    put_no_tags(c);
    put_array(c, op->topic_count);
    int32_t left = 0;
    for (int32_t i = 0; i < op->part_count; i++) {
        const pst_produce_part *part = &parts[i];
        if (part->topic_part_count > 0) {
            left = part->topic_part_count;
            if (op->version >= 13) {
                memcpy(c->at, part->topic_id.bytes, sizeof part->topic_id.bytes);
                c->at += sizeof part->topic_id.bytes;
            } else {
                put_string(c, part->topic_name);
            }
            put_array(c, left);
        }
        put_part(c, op->version, part);
        if (--left == 0) {
            put_no_tags(c);
        }
    }
    put32(c, 0); /* throttle time */
    put_no_tags(c);
}

void pst_produce__respond(pst_shard *shard, const pst_produce_op *op,
                          const pst_produce_part *parts) {
    (void)shard;
    if (op->acks == 0) {
        for (int32_t i = 0; i < op->part_count; i++) {
            if (parts[i].error != PST_KAFKA_NONE) {
                pst_exchange_close_connection(op->exchange);
                return;
            }
        }
        pst_exchange_finish(op->exchange, false);
        return;
    }
    size_t size = size_of(op, parts);
    struct cursor c = {.at = pst_exchange_reserve(op->exchange, size),
                       .flexible = op->version >= 9};
    if (c.at == NULL) {
        pst_exchange_close_connection(op->exchange);
        return;
    }
    const uint8_t *start = c.at;
    put_response(&c, op, parts);
    size_t used = (size_t)(c.at - start);
    PST_ASSERT(used <= size);
    pst_exchange_trim(op->exchange, size - used);
    pst_exchange_finish(op->exchange, true);
}
