/* reactor/exchange.c - responses under construction, and frames taken out of their round.
 *
 * Owner: the reactor's thread; a taken frame may be released by any thread. Layer: reactor. Sending
 * is send.c's.
 *
 * Memory parts live in chunks of the reactor that small responses share, so that neighbours leave
 * as one run of bytes. Exchanges, chunks and long part tables are recycled: after warm-up a request
 * allocates nothing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/error.h"
#include "reactor/reactor_private.h"

#define CHUNK_ROOM (PST_CHUNK_SIZE - sizeof(pst_reactor__chunk))

/* ---- chunks ---- */

static void chunk_unref(pst_reactor *reactor, pst_reactor__chunk *chunk) {
    if (--chunk->refs > 0) {
        return;
    }
    if (reactor->chunks_free_count >= PST_CHUNKS_KEPT) {
        free(chunk);
        return;
    }
    chunk->next = reactor->chunks_free;
    reactor->chunks_free = chunk;
    reactor->chunks_free_count++;
}

static pst_reactor__chunk *chunk_with_room(pst_reactor *reactor, size_t size) {
    pst_reactor__chunk *chunk = reactor->chunk;
    if (chunk != NULL && size <= CHUNK_ROOM - chunk->used) {
        return chunk;
    }
    if (chunk != NULL) {
        reactor->chunk = NULL;
        chunk_unref(reactor, chunk);
    }
    chunk = reactor->chunks_free;
    if (chunk != NULL) {
        reactor->chunks_free = chunk->next;
        reactor->chunks_free_count--;
    } else {
        chunk = malloc(PST_CHUNK_SIZE);
        if (chunk == NULL) {
            return NULL;
        }
    }
    chunk->next = NULL;
    chunk->refs = 1;
    chunk->used = 0;
    reactor->chunk = chunk;
    return chunk;
}

void pst_reactor__chunks_end_round(pst_reactor *reactor) {
    if (reactor->chunk != NULL && reactor->chunk->refs == 1) {
        reactor->chunk->used = 0;
    }
}

/* ---- parts ---- */

void pst_reactor__part_drop(pst_reactor *reactor, pst_reactor__part *part) {
    switch (part->kind) {
        case PST_PART_CHUNK:
            chunk_unref(reactor, part->from.chunk);
            break;
        case PST_PART_OWNED:
            free(part->from.owned);
            break;
        case PST_PART_FILE:
            pst_file_unref(part->from.file);
            break;
    }
}

static pst_reactor__part *part_add(pst_exchange *exchange) {
    if (exchange->part_count == exchange->part_capacity) {
        if (exchange->part_capacity > UINT16_MAX / 2) {
            return NULL;
        }
        uint16_t capacity = (uint16_t)(exchange->part_capacity * 2);
        bool is_inline = exchange->parts == exchange->inline_parts;
        pst_reactor__part *parts =
            realloc(is_inline ? NULL : exchange->parts, capacity * sizeof parts[0]);
        if (parts == NULL) {
            return NULL;
        }
        if (is_inline) {
            memcpy(parts, exchange->inline_parts, sizeof exchange->inline_parts);
        }
        exchange->parts = parts;
        exchange->part_capacity = capacity;
    }
    return &exchange->parts[exchange->part_count++];
}

static uint8_t *reserve_raw(pst_exchange *exchange, size_t size) {
    pst_reactor *reactor = exchange->conn->reactor;
    if (size > CHUNK_ROOM) {
        uint8_t *owned = malloc(size);
        pst_reactor__part *part = owned == NULL ? NULL : part_add(exchange);
        if (part == NULL) {
            free(owned);
            return NULL;
        }
        part->kind = PST_PART_OWNED;
        part->from.owned = owned;
        part->at.data = owned;
        part->size = size;
        return owned;
    }
    pst_reactor__chunk *chunk = chunk_with_room(reactor, size);
    if (chunk == NULL) {
        return NULL;
    }
    uint8_t *data = chunk->data + chunk->used;
    pst_reactor__part *last =
        exchange->part_count > 0 ? &exchange->parts[exchange->part_count - 1] : NULL;
    if (last != NULL && last->kind == PST_PART_CHUNK && last->from.chunk == chunk &&
        last->at.data + last->size == data) {
        last->size += size;
    } else {
        pst_reactor__part *part = part_add(exchange);
        if (part == NULL) {
            return NULL;
        }
        chunk->refs++;
        part->kind = PST_PART_CHUNK;
        part->from.chunk = chunk;
        part->at.data = data;
        part->size = size;
    }
    chunk->used += (uint32_t)size;
    return data;
}

static int need_prefix(pst_exchange *exchange) {
    if (exchange->prefix == NULL) {
        exchange->prefix = reserve_raw(exchange, 4);
    }
    return exchange->prefix == NULL ? -PST_ENOMEM : 0;
}

int pst_reactor__part_copy(pst_reactor *reactor, pst_reactor__part *part) {
    PST_ASSERT(part->kind == PST_PART_FILE && part->size <= CHUNK_ROOM);
    pst_reactor__chunk *chunk = chunk_with_room(reactor, part->size);
    if (chunk == NULL) {
        return -PST_ENOMEM;
    }
    uint8_t *data = chunk->data + chunk->used;
    struct iovec iov = {.iov_base = data, .iov_len = part->size};
    ssize_t got = preadv2(part->from.file->fd, &iov, 1, part->at.pos, RWF_NOWAIT);
    if (got < 0 && errno == EOPNOTSUPP) { /* a file system of memory */
        got = pread(part->from.file->fd, data, part->size, part->at.pos);
    }
    if (got < 0) {
        return errno == EAGAIN ? -PST_EAGAIN : -PST_EIO;
    }
    if ((size_t)got < part->size) {
        return -PST_EAGAIN; /* partly absent, or the file ends: the I/O thread finds out which */
    }
    pst_file_unref(part->from.file);
    part->kind = PST_PART_CHUNK;
    part->from.chunk = chunk;
    part->at.data = data;
    chunk->refs++;
    chunk->used += (uint32_t)part->size;
    return 0;
}

/* ---- exchanges ---- */

pst_exchange *pst_reactor__exchange_open(pst_conn *conn) {
    pst_reactor *reactor = conn->reactor;
    if (pst_list_empty(&reactor->exchanges_free)) {
        pst_reactor__exchange_block *block = malloc(sizeof *block);
        if (block == NULL) {
            return NULL;
        }
        block->next = reactor->exchange_blocks;
        reactor->exchange_blocks = block;
        for (int i = 0; i < PST_EXCHANGE_BLOCK; i++) {
            pst_exchange *fresh = &block->exchanges[i];
            fresh->parts = fresh->inline_parts;
            fresh->part_capacity = PST_PARTS_INLINE;
            pst_list_push_back(&reactor->exchanges_free, &fresh->link);
        }
    }
    pst_list *link = pst_list_pop_front(&reactor->exchanges_free);
    pst_exchange *exchange = PST_CONTAINER_OF(link, pst_exchange, link);
    exchange->conn = conn;
    exchange->sequence = conn->sequence_next++;
    exchange->context = NULL;
    exchange->state = PST_EXCHANGE_OPEN;
    exchange->has_response = false;
    exchange->part_count = 0;
    exchange->part_next = 0;
    exchange->prefix = NULL;
    exchange->size = 0;
    exchange->memory_size = 0;
    exchange->frame_buffer = NULL;
    pst_list_push_back(&conn->exchanges, &exchange->link);
    conn->exchange_count++;
    return exchange;
}

static void drop_parts(pst_exchange *exchange) {
    pst_reactor *reactor = exchange->conn->reactor;
    for (int i = exchange->part_next; i < exchange->part_count; i++) {
        pst_reactor__part_drop(reactor, &exchange->parts[i]);
    }
    exchange->part_count = 0;
    exchange->part_next = 0;
}

void pst_reactor__exchange_free(pst_exchange *exchange) {
    pst_conn *conn = exchange->conn;
    pst_reactor *reactor = conn->reactor;
    drop_parts(exchange);
    if (exchange->part_capacity > PST_PARTS_KEPT) {
        free(exchange->parts);
        exchange->parts = exchange->inline_parts;
        exchange->part_capacity = PST_PARTS_INLINE;
    }
    if (exchange->state == PST_EXCHANGE_FINISHED) {
        conn->queued_size -= exchange->memory_size;
    }
    pst_list_remove(&exchange->link);
    pst_list_push_front(&reactor->exchanges_free, &exchange->link);
    exchange->conn = NULL;
    if (--conn->exchange_count == 0 && conn->dead) {
        pst_list_remove(&conn->ready_link);
        pst_list_push_back(&reactor->dead, &conn->ready_link);
    }
}

void pst_reactor__exchanges_fini(pst_reactor *reactor) {
    while (reactor->exchange_blocks != NULL) {
        pst_reactor__exchange_block *block = reactor->exchange_blocks;
        reactor->exchange_blocks = block->next;
        for (int i = 0; i < PST_EXCHANGE_BLOCK; i++) {
            pst_exchange *exchange = &block->exchanges[i];
            if (exchange->parts != exchange->inline_parts) {
                free(exchange->parts);
            }
        }
        free(block);
    }
    free(reactor->chunk);
    while (reactor->chunks_free != NULL) {
        pst_reactor__chunk *chunk = reactor->chunks_free;
        reactor->chunks_free = chunk->next;
        free(chunk);
    }
}

/* ---- the door ---- */

pst_conn *pst_exchange_conn(pst_exchange *exchange) {
    return exchange->conn->dead ? NULL : exchange->conn;
}

pst_reactor *pst_exchange_reactor(pst_exchange *exchange) {
    return exchange->conn->reactor;
}

pst_token pst_exchange_token(const pst_exchange *exchange) {
    return (pst_token){.conn = exchange->conn->id, .sequence = exchange->sequence};
}

void *pst_exchange_context(const pst_exchange *exchange) {
    return exchange->context;
}

void pst_exchange_set_context(pst_exchange *exchange, void *context) {
    exchange->context = context;
}

pst_exchange *pst_net_exchange(pst_reactor *reactor, pst_token token) {
    PST_ASSERT_ON(reactor);
    pst_conn *conn = pst_conn__find(reactor, token.conn);
    if (conn == NULL) {
        return NULL;
    }
    for (pst_list *link = conn->exchanges.next; link != &conn->exchanges; link = link->next) {
        pst_exchange *exchange = PST_CONTAINER_OF(link, pst_exchange, link);
        if (exchange->sequence == token.sequence) {
            return exchange->state == PST_EXCHANGE_OPEN ? exchange : NULL;
        }
    }
    return NULL;
}

uint8_t *pst_exchange_reserve(pst_exchange *exchange, size_t size) {
    PST_ASSERT(exchange->state == PST_EXCHANGE_OPEN);
    if (exchange->prefix == NULL) {
        if (size > SIZE_MAX - 4) {
            return NULL;
        }
        uint8_t *data = reserve_raw(exchange, size + 4);
        if (data == NULL) {
            return NULL;
        }
        exchange->prefix = data;
        exchange->size += size;
        exchange->memory_size += size + 4;
        return data + 4;
    }
    uint8_t *data = reserve_raw(exchange, size);
    if (data != NULL) {
        exchange->size += size;
        exchange->memory_size += size;
    }
    return data;
}

void pst_exchange_trim(pst_exchange *exchange, size_t unused) {
    PST_ASSERT(exchange->part_count > 0);
    pst_reactor__part *last = &exchange->parts[exchange->part_count - 1];
    PST_ASSERT(last->kind != PST_PART_FILE && unused <= last->size && unused <= exchange->size);
    if (last->kind == PST_PART_CHUNK) {
        pst_reactor__chunk *chunk = last->from.chunk;
        if (last->at.data + last->size == chunk->data + chunk->used) {
            chunk->used -= (uint32_t)unused;
        }
    }
    last->size -= unused;
    exchange->size -= unused;
    exchange->memory_size -= unused;
}

int pst_exchange_add_file(pst_exchange *exchange, pst_file_range range) {
    PST_ASSERT(exchange->state == PST_EXCHANGE_OPEN && range.size >= 0);
    pst_reactor__part *part = NULL;
    if (range.file != NULL && range.size > 0 && need_prefix(exchange) == 0) {
        part = part_add(exchange);
    }
    if (part == NULL) {
        pst_file_unref(range.file);
        return range.size == 0 || range.file == NULL ? 0 : -PST_ENOMEM;
    }
    part->kind = PST_PART_FILE;
    part->from.file = range.file;
    part->at.pos = range.pos;
    part->size = (size_t)range.size;
    exchange->size += part->size;
    return 0;
}

int pst_exchange_add_owned(pst_exchange *exchange, uint8_t *data, size_t size) {
    PST_ASSERT(exchange->state == PST_EXCHANGE_OPEN);
    pst_reactor__part *part = NULL;
    if (size > 0 && need_prefix(exchange) == 0) {
        part = part_add(exchange);
    }
    if (part == NULL) {
        free(data);
        return size == 0 ? 0 : -PST_ENOMEM;
    }
    part->kind = PST_PART_OWNED;
    part->from.owned = data;
    part->at.data = data;
    part->size = size;
    exchange->size += size;
    exchange->memory_size += size;
    return 0;
}

size_t pst_exchange_size(const pst_exchange *exchange) {
    return exchange->size;
}

void pst_exchange_reset(pst_exchange *exchange) {
    PST_ASSERT(exchange->state == PST_EXCHANGE_OPEN);
    drop_parts(exchange);
    exchange->prefix = NULL;
    exchange->size = 0;
    exchange->memory_size = 0;
}

void pst_exchange_finish(pst_exchange *exchange, bool has_response) {
    pst_conn *conn = exchange->conn;
    PST_ASSERT_ON(conn->reactor);
    PST_ASSERT(exchange->state == PST_EXCHANGE_OPEN);
    if (conn->dead) {
        pst_reactor__exchange_free(exchange);
        return;
    }
    if (!has_response) {
        pst_exchange_reset(exchange);
    } else if (exchange->size > INT32_MAX || need_prefix(exchange) < 0) {
        pst_exchange_close_connection(exchange);
        return;
    } else {
        uint32_t size = (uint32_t)exchange->size;
        uint8_t prefix[4] = {(uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8),
                             (uint8_t)size};
        memcpy(exchange->prefix, prefix, sizeof prefix);
    }
    exchange->has_response = has_response;
    exchange->state = PST_EXCHANGE_FINISHED;
    conn->queued_size += exchange->memory_size;
    if (conn->exchanges.next == &exchange->link) {
        pst_conn__add_flush(conn);
    }
}

void pst_exchange_close_connection(pst_exchange *exchange) {
    pst_conn *conn = exchange->conn;
    PST_ASSERT_ON(conn->reactor);
    PST_ASSERT(exchange->state == PST_EXCHANGE_OPEN);
    if (conn->dead) {
        pst_reactor__exchange_free(exchange);
        return;
    }
    pst_exchange_reset(exchange);
    exchange->state = PST_EXCHANGE_CLOSE;
    conn->closing = true;
    pst_conn__add_flush(conn);
}

/* ---- taken frames ---- */

typedef struct { /* owner: whoever took it */
    pst_frame frame;
    pst_reactor__buffer *buffer; /* holds the bytes, or NULL: they follow this struct */
} taken_frame;

static bool round_buffer_unlink(pst_reactor *reactor, pst_reactor__buffer *buffer) {
    for (pst_reactor__buffer **at = &reactor->round_buffers; *at != NULL; at = &(*at)->next) {
        if (*at == buffer) {
            *at = buffer->next;
            return true;
        }
    }
    return false;
}

int pst_conn_take_frame(pst_exchange *exchange, pst_frame **frame_out) {
    *frame_out = NULL;
    pst_reactor *reactor = exchange->conn->reactor;
    PST_ASSERT_ON(reactor);
    PST_ASSERT(exchange->frame_round == reactor->round && exchange->frame_data != NULL);
    pst_net *net = reactor->net;
    pst_reactor__buffer *buffer = exchange->frame_buffer;
    size_t size = exchange->frame_size;
    /* Small frames may overdraw by an eighth: the ring of control requests bounds their number. */
    if (buffer == NULL && pst_net__pool_full(net) &&
        (size > PST_FRAME_LARGE ||
         atomic_load_explicit(&net->pool_used, memory_order_relaxed) >
             net->limits.frame_pool_size + net->limits.frame_pool_size / 8)) {
        return -PST_ELIMIT;
    }
    taken_frame *taken = malloc(sizeof *taken + (buffer == NULL ? size : 0));
    if (taken == NULL) {
        return -PST_ENOMEM;
    }
    taken->buffer = buffer;
    taken->frame.size = size;
    taken->frame.net = net;
    if (buffer != NULL) {
        PST_ASSERT(round_buffer_unlink(reactor, buffer));
        taken->frame.data = exchange->frame_data;
        taken->frame.charge = buffer->charge;
    } else {
        taken->frame.data = (uint8_t *)(taken + 1);
        taken->frame.charge = size;
        memcpy(taken->frame.data, exchange->frame_data, size);
        pst_net__pool_charge(net, size);
    }
    exchange->frame_data = NULL;
    exchange->frame_buffer = NULL;
    *frame_out = &taken->frame;
    return 0;
}

void pst_frame_release(pst_frame *frame) {
    if (frame == NULL) {
        return;
    }
    taken_frame *taken = PST_CONTAINER_OF(frame, taken_frame, frame);
    pst_net__pool_release(frame->net, frame->charge);
    if (taken->buffer != NULL) {
        pst_reactor__buffer_free(taken->buffer);
    }
    free(taken);
}
