/* reactor/conn.c - the life of a connection: slot, gate, deadlines, end.
 *
 * Owner: the reactor's thread. Layer: reactor. Receiving is receive.c's, sending is send.c's.
 *
 *   open --frames--> serving --eof, bad size, stop--> lingering --all answered, or the deadline-->
 * dead --> freed
 *                       \--- error, deadline, close_connection
 * -------------------------------------/ A dead connection has no socket. Its struct stays while an
 * exchange of it is open, so that tokens still find it. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "reactor/reactor_private.h"

/* ---- slots ---- */

static uint32_t slot_of(uint64_t id) {
    return (uint32_t)(id >> 32) & (PST_CONN_SLOTS_MAX - 1);
}

static int slots_grow(pst_reactor *reactor) {
    uint32_t capacity = reactor->slot_capacity == 0 ? 64 : reactor->slot_capacity * 2;
    if (capacity > PST_CONN_SLOTS_MAX) {
        return -PST_ELIMIT;
    }
    pst_conn **conns = realloc(reactor->conns, capacity * sizeof conns[0]);
    if (conns == NULL) {
        return -PST_ENOMEM;
    }
    reactor->conns = conns;
    uint32_t *generations = realloc(reactor->generations, capacity * sizeof generations[0]);
    if (generations == NULL) {
        return -PST_ENOMEM;
    }
    reactor->generations = generations;
    uint32_t *slots_free = realloc(reactor->slots_free, capacity * sizeof slots_free[0]);
    if (slots_free == NULL) {
        return -PST_ENOMEM;
    }
    reactor->slots_free = slots_free;
    for (uint32_t i = reactor->slot_capacity; i < capacity; i++) {
        conns[i] = NULL;
        generations[i] = 0;
    }
    reactor->slot_capacity = capacity;
    return 0;
}

static int slot_take(pst_reactor *reactor, uint32_t *slot_out) {
    *slot_out = 0;
    if (reactor->slots_free_count > 0) {
        *slot_out = reactor->slots_free[--reactor->slots_free_count];
        return 0;
    }
    if (reactor->slot_count == reactor->slot_capacity) {
        PST_TRY(slots_grow(reactor));
    }
    *slot_out = reactor->slot_count++;
    return 0;
}

pst_conn *pst_conn__find(pst_reactor *reactor, uint64_t id) {
    uint32_t slot = slot_of(id);
    if (slot >= reactor->slot_count || reactor->conns[slot] == NULL ||
        reactor->conns[slot]->id != id) {
        return NULL;
    }
    return reactor->conns[slot];
}

/* ---- deadlines ---- */

static int64_t earlier(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static bool sends(const pst_conn *conn) {
    if (pst_list_empty(&conn->exchanges)) {
        return false;
    }
    const pst_exchange *first = PST_CONTAINER_OF(conn->exchanges.next, pst_exchange, link);
    return first->state != PST_EXCHANGE_OPEN;
}

/* One timer serves every deadline of the connection. It is armed for the earliest that may pass and
 * finds out here what is really due; deadlines that moved away cost nothing until then. */
static void timer_fire(pst_timer *timer, pst_reactor *reactor) {
    pst_conn *conn = PST_CONTAINER_OF(timer, pst_conn, timer);
    const pst_net_limits *limits = &reactor->net->limits;
    int64_t now = reactor->now_ms;
    int64_t next = now + limits->idle_ms;
    if (conn->linger_ms != 0) {
        if (now >= conn->linger_ms) {
            pst_conn__kill(conn);
            return;
        }
        next = earlier(next, conn->linger_ms);
    }
    if (conn->exchange_count == 0 && conn->buffer == NULL) {
        if (now - conn->active_ms >= limits->idle_ms) {
            pst_conn__kill(conn);
            return;
        }
        next = earlier(next, conn->active_ms + limits->idle_ms);
    }
    if (conn->buffer != NULL) {
        bool still = conn->starved || !pst_conn__gate_open(conn);
        if (still || conn->frame_moved >= (uint64_t)limits->frame_progress_bytes) {
            conn->frame_mark_ms = now;
            conn->frame_moved = 0;
        } else if (now - conn->frame_mark_ms >= limits->frame_progress_ms) {
            pst_reactor__count(&reactor->counters.closed_slow, 1);
            pst_conn__kill(conn);
            return;
        }
        next = earlier(next, conn->frame_mark_ms + limits->frame_progress_ms);
    }
    if (sends(conn)) {
        if (!conn->cold && now - conn->send_mark_ms >= limits->response_stall_ms) {
            pst_reactor__count(&reactor->counters.closed_slow, 1);
            pst_conn__kill(conn);
            return;
        }
        next = earlier(next, (conn->cold ? now : conn->send_mark_ms) + limits->response_stall_ms);
    }
    pst_timer_arm(reactor, timer, next);
}

void pst_conn__arm(pst_conn *conn, int64_t deadline_ms) {
    if (pst_list_empty(&conn->timer.link) || deadline_ms < conn->timer.deadline_ms) {
        pst_timer_arm(conn->reactor, &conn->timer, deadline_ms);
    }
}

/* ---- open ---- */

static pst_conn *conn_alloc(pst_reactor *reactor) {
    pst_list *link = pst_list_pop_front(&reactor->conns_free);
    if (link != NULL) {
        return PST_CONTAINER_OF(link, pst_conn, ready_link);
    }
    return malloc(sizeof(pst_conn));
}

static void refuse(pst_reactor *reactor, int fd, const uint8_t address[16]) {
    close(fd);
    pst_net__leave(reactor->net, address);
    atomic_fetch_add_explicit(&reactor->net->refused, 1, memory_order_relaxed);
}

void pst_conn__open(pst_reactor *reactor, int fd, int listener, bool authenticated,
                    const uint8_t address[16]) {
    uint32_t slot;
    pst_conn *conn = conn_alloc(reactor);
    if (conn == NULL || reactor->stopping || slot_take(reactor, &slot) < 0) {
        if (conn != NULL) {
            pst_list_push_back(&reactor->conns_free, &conn->ready_link);
        }
        refuse(reactor, fd, address);
        return;
    }
    memset(conn, 0, sizeof *conn);
    reactor->conns[slot] = conn;
    reactor->generations[slot]++;
    conn->reactor = reactor;
    conn->id = (uint64_t)reactor->index << 56 | (uint64_t)slot << 32 | reactor->generations[slot];
    conn->fd = fd;
    conn->listener = listener;
    conn->authenticated = authenticated;
    conn->writable = true;
    conn->active_ms = reactor->now_ms;
    conn->send_mark_ms = reactor->now_ms;
    memcpy(conn->address, address, sizeof conn->address);
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    bool v4 = memcmp(address, mapped, sizeof mapped) == 0;
    inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? address + 12 : address, conn->peer, sizeof conn->peer);
    pst_list_init(&conn->ready_link);
    pst_list_init(&conn->flush_link);
    pst_list_init(&conn->exchanges);
    pst_timer_init(&conn->timer, timer_fire);
    reactor->conn_count++;
    pst_reactor__count(&reactor->counters.connections, 1);
    pst_reactor__count(&reactor->counters.accepted, 1);
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* Edge-triggered for both directions: registered once, never changed. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.u64 = conn->id};
    if (epoll_ctl(reactor->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        pst_conn__kill(conn);
        return;
    }
    pst_conn__arm(conn, reactor->now_ms + reactor->net->limits.idle_ms);
}

/* ---- the gate: whether the next frame may be delivered ---- */

bool pst_conn__gate_open(const pst_conn *conn) {
    const pst_net_limits *limits = &conn->reactor->net->limits;
    return !conn->closing && conn->holds == 0 && conn->exchange_count < limits->exchanges_max &&
           (int64_t)conn->queued_size < limits->send_queue_size_max;
}

void pst_conn__ungate(pst_conn *conn) {
    if (conn->gated && !conn->dead && pst_conn__gate_open(conn)) {
        conn->gated = false;
        conn->frame_mark_ms = conn->reactor->now_ms;
        conn->frame_moved = 0;
        pst_conn__add_ready(conn);
    }
}

void pst_conn__add_ready(pst_conn *conn) {
    if (!conn->dead && !conn->starved && pst_list_empty(&conn->ready_link)) {
        pst_list_push_back(&conn->reactor->ready, &conn->ready_link);
    }
}

void pst_conn__add_flush(pst_conn *conn) {
    if (!conn->dead && pst_list_empty(&conn->flush_link)) {
        pst_list_push_back(&conn->reactor->flush, &conn->flush_link);
    }
}

/* ---- the end ---- */

void pst_conn__linger(pst_conn *conn) {
    conn->eof = true;
    if (conn->linger_ms == 0) {
        conn->linger_ms = conn->reactor->now_ms + PST_LINGER_MS;
        pst_conn__arm(conn, conn->linger_ms);
    }
    pst_conn__add_flush(conn); /* flush settles it */
}

void pst_conn__settle(pst_conn *conn) {
    bool undelivered = !conn->closing && pst_conn__has_frame(conn);
    if (!conn->dead && (conn->eof || conn->closing) && conn->exchange_count == 0 && !undelivered) {
        pst_conn__kill(conn);
    }
}

void pst_conn__kill(pst_conn *conn) {
    if (conn->dead) {
        return;
    }
    pst_reactor *reactor = conn->reactor;
    pst_net *net = reactor->net;
    /* A forked child may hold the socket too: take it out of the epoll and end it for both. */
    epoll_ctl(reactor->epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL);
    shutdown(conn->fd, SHUT_RDWR);
    close(conn->fd);
    conn->fd = -1;
    if (conn->starved) {
        pst_reactor__unstarve_one(conn);
    }
    pst_reactor__overdraft_return(conn);
    conn->dead = true;
    conn->closing = true;
    pst_list_remove(&conn->ready_link);
    pst_list_remove(&conn->flush_link);
    pst_timer_cancel(reactor, &conn->timer);
    if (conn->buffer != NULL) {
        pst_reactor__buffer_release_after_round(reactor, conn->buffer);
        conn->buffer = NULL;
    }
    pst_net__leave(net, conn->address);
    reactor->conn_count--;
    pst_reactor__count(&reactor->counters.connections, -1);
    if (net->handler.on_conn_closed != NULL) {
        net->handler.on_conn_closed(net->handler.context, reactor, conn);
    }
    for (pst_list *link = conn->exchanges.next; link != &conn->exchanges;) {
        pst_exchange *exchange = PST_CONTAINER_OF(link, pst_exchange, link);
        link = link->next;
        if (exchange->state != PST_EXCHANGE_OPEN) {
            pst_reactor__exchange_free(exchange);
        }
    }
    if (conn->exchange_count == 0) {
        pst_list_remove(&conn->ready_link);
        pst_list_push_back(&reactor->dead, &conn->ready_link);
    }
}

void pst_conn__reap(pst_reactor *reactor) {
    pst_list *link;
    while ((link = pst_list_pop_front(&reactor->dead)) != NULL) {
        pst_conn *conn = PST_CONTAINER_OF(link, pst_conn, ready_link);
        uint32_t slot = slot_of(conn->id);
        reactor->conns[slot] = NULL;
        reactor->slots_free[reactor->slots_free_count++] = slot;
        pst_list_push_back(&reactor->conns_free, &conn->ready_link);
    }
}

void pst_conn__drain_all(pst_reactor *reactor) {
    for (uint32_t i = 0; i < reactor->slot_count; i++) {
        pst_conn *conn = reactor->conns[i];
        if (conn != NULL && !conn->dead && conn->eof) {
            pst_conn__kill(conn); /* nobody waits for its answers */
        } else if (conn != NULL && !conn->dead) {
            conn->closing = true;
            pst_conn__add_flush(conn);
        }
    }
}

void pst_conn__kill_all(pst_reactor *reactor) {
    for (uint32_t i = 0; i < reactor->slot_count; i++) {
        if (reactor->conns[i] != NULL) {
            pst_conn__kill(reactor->conns[i]);
        }
    }
}

void pst_conn__table_fini(pst_reactor *reactor) {
    pst_conn__reap(reactor);
    for (uint32_t i = 0; i < reactor->slot_count; i++) {
        pst_conn *conn = reactor->conns[i];
        if (conn == NULL) {
            continue;
        }
        while (!pst_list_empty(&conn->exchanges)) {
            pst_reactor__exchange_free(PST_CONTAINER_OF(conn->exchanges.next, pst_exchange, link));
        }
        pst_list_remove(&conn->ready_link);
        free(conn);
    }
    pst_list *link;
    while ((link = pst_list_pop_front(&reactor->conns_free)) != NULL) {
        free(PST_CONTAINER_OF(link, pst_conn, ready_link));
    }
    free(reactor->conns);
    free(reactor->generations);
    free(reactor->slots_free);
}

/* ---- the door ---- */

int pst_conn_listener(const pst_conn *conn) {
    return conn->listener;
}

const char *pst_conn_peer(const pst_conn *conn) {
    return conn->peer;
}

bool pst_conn_authenticated(const pst_conn *conn) {
    return conn->authenticated;
}

void pst_conn_set_authenticated(pst_conn *conn) {
    PST_ASSERT_ON(conn->reactor);
    conn->authenticated = true;
}

void *pst_conn_context(const pst_conn *conn) {
    return conn->context;
}

void pst_conn_set_context(pst_conn *conn, void *context) {
    PST_ASSERT_ON(conn->reactor);
    conn->context = context;
}

void pst_conn_hold(pst_conn *conn) {
    PST_ASSERT_ON(conn->reactor);
    conn->holds++;
}

void pst_conn_resume(pst_conn *conn) {
    PST_ASSERT_ON(conn->reactor);
    PST_ASSERT(conn->holds > 0);
    conn->holds--;
    pst_conn__ungate(conn);
}
