/* reactor/receive.c - from bytes to frames.
 *
 * Owner: the reactor's thread. Layer: reactor. It knows a frame's size and nothing of its content.
 *
 * Three ways to receive, one recv per connection and round:
 * - staging: into the reactor's round arena; whole frames are handed out where they lie, the rest
 * is stashed;
 * - continue: the rest of an unfinished frame goes straight into its buffer, and what follows a
 * small one into staging;
 * - large: a connection whose last frame was large starts the next in a buffer of that size.
 * The sockets are edge-triggered: `readable` holds until a recv comes back short. */
#include <string.h>

#include "base/error.h"
#include "reactor/reactor_private.h"

static int64_t size_at(const uint8_t *p) {
    uint32_t raw = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    return (int32_t)raw;
}

static bool size_allowed(const pst_conn *conn, int64_t size) {
    const pst_net_limits *limits = &conn->reactor->net->limits;
    return size > 0 && size <= (conn->authenticated ? limits->frame_size_max
                                                    : limits->frame_size_max_unauthenticated);
}

static void frame_clock_start(pst_conn *conn) {
    conn->frame_mark_ms = conn->reactor->now_ms;
    conn->frame_moved = 0;
    pst_conn__arm(conn, conn->frame_mark_ms + conn->reactor->net->limits.frame_progress_ms);
}

/* The peer does not speak the protocol: nothing more is read, what is in progress is answered. */
static void reject(pst_conn *conn) {
    conn->closing = true;
    conn->readable = false;
    pst_conn__linger(conn);
}

static void deliver(pst_conn *conn, uint8_t *data, size_t size, pst_reactor__buffer *own) {
    pst_reactor *reactor = conn->reactor;
    pst_exchange *exchange = pst_reactor__exchange_open(conn);
    if (exchange == NULL) {
        reject(conn);
        return;
    }
    exchange->frame_data = data;
    exchange->frame_size = size;
    exchange->frame_round = reactor->round;
    exchange->frame_buffer = own;
    conn->frame_hint = size >= PST_FRAME_LARGE ? size : 0;
    conn->frame_proven = size > conn->frame_proven ? size : conn->frame_proven;
    pst_reactor__count(&reactor->counters.frames, 1);
    pst_net_handler *handler = &reactor->net->handler;
    handler->on_frame(handler->context, reactor, conn, exchange, data, size);
}

/* Hands out the whole frames at the front of `data`; returns the bytes consumed. */
static size_t deliver_staged(pst_conn *conn, uint8_t *data, size_t size) {
    size_t used = 0;
    while (size - used >= 4) {
        int64_t frame = size_at(data + used);
        if (!size_allowed(conn, frame)) {
            reject(conn);
            return size;
        }
        if ((size_t)frame > size - used - 4 || !pst_conn__gate_open(conn)) {
            break;
        }
        uint8_t *start = data + used + 4;
        used += 4 + (size_t)frame;
        deliver(conn, start, (size_t)frame, NULL);
    }
    return used;
}

bool pst_conn__has_frame(const pst_conn *conn) {
    const pst_reactor__buffer *buffer = conn->buffer;
    if (buffer == NULL || buffer->end - buffer->start < 4) {
        return false;
    }
    int64_t frame = size_at(buffer->data + buffer->start);
    return frame > 0 && (size_t)frame <= buffer->end - buffer->start - 4;
}

static void deliver_buffered(pst_conn *conn) {
    pst_reactor *reactor = conn->reactor;
    while (conn->buffer != NULL && conn->buffer->end - conn->buffer->start >= 4) {
        pst_reactor__buffer *buffer = conn->buffer;
        size_t start = buffer->start;
        int64_t frame = size_at(buffer->data + start);
        if (!size_allowed(conn, frame)) {
            reject(conn);
            return;
        }
        if ((size_t)frame > buffer->end - start - 4 || !pst_conn__gate_open(conn)) {
            return;
        }
        buffer->start += 4 + (size_t)frame;
        pst_reactor__overdraft_return(conn);
        bool last = buffer->start == buffer->end;
        if (last) {
            conn->buffer = NULL;
            pst_reactor__buffer_release_after_round(reactor, buffer);
        } else {
            frame_clock_start(conn);
        }
        reactor->round_large += (size_t)frame;
        deliver(conn, buffer->data + start + 4, (size_t)frame, last && start == 0 ? buffer : NULL);
    }
}

/* Keeps bytes of the staging memory that could not be handed out. They are charged even if the pool
 * is full: one recv's worth at most. */
static void stash(pst_conn *conn, const uint8_t *data, size_t size) {
    PST_ASSERT(conn->buffer == NULL);
    size_t wanted = size < 4 ? 4 : (size_t)size_at(data) + 4;
    wanted = pst_reactor__buffer_first_size(wanted, conn->frame_proven);
    wanted = wanted < size ? size : wanted;
    pst_reactor__buffer *buffer = pst_reactor__buffer_acquire(conn->reactor, wanted);
    if (buffer == NULL) {
        pst_conn__kill(conn);
        return;
    }
    memcpy(buffer->data, data, size);
    buffer->end = size;
    buffer->charge = size;
    pst_net__pool_charge(conn->reactor->net, size);
    conn->buffer = buffer;
    frame_clock_start(conn);
}

/* Makes room behind the unfinished frame. Growth follows what has arrived, four-fold, or what was
 * proven. */
static int buffer_grow(pst_conn *conn, size_t needed) {
    pst_reactor *reactor = conn->reactor;
    pst_reactor__buffer *old = conn->buffer;
    size_t have = old->end - old->start;
    size_t target = pst_reactor__buffer_first_size(needed, conn->frame_proven);
    target = target < have * 4 ? have * 4 : target;
    target = target > needed ? needed : target;
    pst_reactor__buffer *buffer = pst_reactor__buffer_acquire(reactor, target);
    if (buffer == NULL) {
        return -PST_ENOMEM;
    }
    memcpy(buffer->data, old->data + old->start, have);
    buffer->end = have;
    buffer->charge = have;
    pst_net__pool_charge(reactor->net, have);
    conn->buffer = buffer;
    if (old->start > 0) { /* frames of it may be borrowed in this round */
        pst_reactor__buffer_release_after_round(reactor, old);
    } else {
        pst_reactor__buffer_release(reactor, old);
    }
    return 0;
}

static void received(pst_conn *conn, size_t got, size_t asked) {
    pst_reactor *reactor = conn->reactor;
    conn->readable = got == asked || conn->peer_shut;
    conn->active_ms = reactor->now_ms;
    pst_reactor__count(&reactor->counters.bytes_in, (int64_t)got);
}

/* recv returned no bytes. */
static void received_nothing(pst_conn *conn, ssize_t rc) {
    if (rc == -PST_EAGAIN) {
        conn->readable = false;
    } else if (rc == 0) {
        conn->readable = false;
        pst_conn__linger(conn);
    } else {
        pst_conn__kill(conn);
    }
}

static void take_staged(pst_conn *conn, uint8_t *data, size_t size) {
    pst_reactor *reactor = conn->reactor;
    reactor->staging_used += (size + 63) & ~(size_t)63;
    if (reactor->staging_used > reactor->staging_size) {
        reactor->staging_used = reactor->staging_size;
    }
    size_t used = deliver_staged(conn, data, size);
    if (used < size && !conn->dead) {
        stash(conn, data + used, size - used);
    }
}

static void receive_staging(pst_conn *conn) {
    pst_reactor *reactor = conn->reactor;
    size_t size = reactor->staging_size - reactor->staging_used;
    size = size > PST_READ_TURN_SIZE ? PST_READ_TURN_SIZE : size;
    if (pst_net__pool_full(reactor->net) && size > PST_READ_MINIMUM) {
        size = PST_READ_MINIMUM;
    }
    struct iovec iov = {.iov_base = reactor->staging + reactor->staging_used, .iov_len = size};
    ssize_t got = pst_conn__socket_recv(conn, &iov, 1);
    if (got <= 0) {
        received_nothing(conn, got);
        return;
    }
    received(conn, (size_t)got, size);
    take_staged(conn, iov.iov_base, (size_t)got);
}

/* How many of `wanted` bytes may be charged; 0 = the connection starves now. */
static size_t grant(pst_conn *conn, size_t wanted) {
    size_t granted = pst_net__pool_reserve(conn->reactor->net, wanted);
    if (granted == 0 && conn->overdraft) {
        pst_net__pool_charge(conn->reactor->net, wanted);
        return wanted;
    }
    if (granted == 0) {
        pst_reactor__starve(conn);
    }
    return granted;
}

static void receive_buffer(pst_conn *conn) {
    pst_reactor *reactor = conn->reactor;
    size_t have = conn->buffer->end - conn->buffer->start;
    size_t needed = have < 4 ? 4 : (size_t)size_at(conn->buffer->data + conn->buffer->start) + 4;
    if (conn->buffer->end == conn->buffer->capacity && buffer_grow(conn, needed) < 0) {
        pst_conn__kill(conn);
        return;
    }
    pst_reactor__buffer *buffer = conn->buffer;
    size_t wanted = buffer->capacity - buffer->end;
    bool to_end = have >= 4 && needed - have <= wanted;
    wanted = to_end ? needed - have : wanted;
    wanted = wanted > PST_READ_LARGE_SIZE ? PST_READ_LARGE_SIZE : wanted;
    size_t granted = grant(conn, wanted);
    if (granted == 0) {
        return;
    }
    struct iovec iov[2] = {{.iov_base = buffer->data + buffer->end, .iov_len = granted}};
    int count = 1;
    size_t asked = granted;
    size_t room = reactor->staging_size - reactor->staging_used;
    if (to_end && needed - have == granted && conn->frame_hint == 0 && needed < PST_FRAME_LARGE &&
        room >= PST_READ_MINIMUM) {
        iov[1].iov_base = reactor->staging + reactor->staging_used;
        iov[1].iov_len = room > PST_READ_TURN_SIZE ? PST_READ_TURN_SIZE : room;
        asked += iov[1].iov_len;
        count = 2;
    }
    ssize_t got = pst_conn__socket_recv(conn, iov, count);
    size_t kept = got <= 0 ? 0 : (size_t)got > granted ? granted : (size_t)got;
    if (kept < granted) {
        pst_net__pool_release(reactor->net, granted - kept);
    }
    if (got <= 0) {
        received_nothing(conn, got);
        return;
    }
    buffer->end += kept;
    buffer->charge += kept;
    conn->frame_moved += kept;
    received(conn, (size_t)got, asked);
    deliver_buffered(conn);
    if ((size_t)got > kept && !conn->dead) {
        take_staged(conn, iov[1].iov_base, (size_t)got - kept);
    }
}

/* Starts a frame in a buffer of its own. False: no room for it, receive through staging. */
static bool receive_large(pst_conn *conn) {
    pst_reactor *reactor = conn->reactor;
    size_t wanted = conn->frame_hint + 4;
    wanted = wanted > PST_READ_LARGE_SIZE ? PST_READ_LARGE_SIZE : wanted;
    size_t granted = pst_net__pool_reserve(reactor->net, wanted);
    if (granted < wanted) {
        pst_net__pool_release(reactor->net, granted); /* the staging way charges what it keeps */
        return false;
    }
    pst_reactor__buffer *buffer = pst_reactor__buffer_acquire(reactor, conn->frame_hint + 4);
    if (buffer == NULL) {
        pst_net__pool_release(reactor->net, wanted);
        return false;
    }
    struct iovec iov = {.iov_base = buffer->data, .iov_len = wanted};
    ssize_t got = pst_conn__socket_recv(conn, &iov, 1);
    size_t kept = got > 0 ? (size_t)got : 0;
    pst_net__pool_release(reactor->net, wanted - kept);
    if (got <= 0) {
        pst_reactor__buffer_release(reactor, buffer);
        received_nothing(conn, got);
        return true;
    }
    buffer->end = kept;
    buffer->charge = kept;
    conn->buffer = buffer;
    frame_clock_start(conn);
    received(conn, kept, wanted);
    deliver_buffered(conn);
    return true;
}

void pst_conn__receive(pst_conn *conn) {
    if (conn->dead || conn->closing) {
        return;
    }
    if (conn->buffer != NULL && pst_conn__gate_open(conn)) {
        deliver_buffered(conn);
    }
    if (conn->dead || conn->closing) {
        return;
    }
    if (!pst_conn__gate_open(conn)) {
        conn->gated = true;
        return;
    }
    if (conn->eof || !conn->readable) {
        if (conn->eof) {
            pst_conn__add_flush(conn);
        }
        return;
    }
    if (conn->buffer != NULL) {
        receive_buffer(conn);
    } else if (conn->frame_hint == 0 || !receive_large(conn)) {
        receive_staging(conn);
    }
    if (conn->dead || conn->closing) {
        return;
    }
    if (!pst_conn__gate_open(conn)) {
        conn->gated = true;
    } else if (conn->readable) {
        pst_conn__add_ready(conn);
    }
}
