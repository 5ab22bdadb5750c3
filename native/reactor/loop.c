/* reactor/loop.c - the round of a reactor, and its mailbox.
 *
 * Owner: the reactor's thread; pst_reactor_post is for any. Layer: reactor.
 *
 * Sleeping and waking: the loop sets `sleeping`, then looks at the mailbox once more; a poster
 * pushes, then looks at `sleeping`. Both are sequentially consistent, so one of the two sees the
 * other. The eventfd is edge-triggered and never read: each write is an edge. */
#include <limits.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "reactor/reactor_private.h"

static _Thread_local pst_reactor *current;

void pst_reactor__set_current(pst_reactor *reactor) {
    current = reactor;
}

bool pst_reactor_is_current(const pst_reactor *reactor) {
    return current == reactor;
}

/* ---- mailbox ---- */

void pst_reactor_post(pst_reactor *reactor, pst_note *note) {
    /* Once pushed, the note may run and lead to the net's end; destroy waits for posters that are
     * still in here. */
    atomic_fetch_add_explicit(&reactor->posters, 1, memory_order_relaxed);
    pst_note *head = atomic_load_explicit(&reactor->mailbox, memory_order_relaxed);
    do {
        note->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&reactor->mailbox, &head, note,
                                                    memory_order_seq_cst, memory_order_relaxed));
    if (atomic_load_explicit(&reactor->sleeping, memory_order_seq_cst) &&
        atomic_exchange_explicit(&reactor->sleeping, false, memory_order_seq_cst)) {
        uint64_t one = 1;
        ssize_t written = write(reactor->wake_fd, &one, sizeof one);
        PST_ASSERT(written == (ssize_t)sizeof one);
    }
    atomic_fetch_sub_explicit(&reactor->posters, 1, memory_order_release);
}

void pst_reactor__drain_mailbox(pst_reactor *reactor) {
    pst_note *newest = atomic_load_explicit(&reactor->mailbox, memory_order_relaxed);
    if (newest == NULL) {
        return;
    }
    newest = atomic_exchange_explicit(&reactor->mailbox, NULL, memory_order_acquire);
    pst_note *oldest = NULL;
    while (newest != NULL) {
        pst_note *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        pst_note *next = oldest->next; /* run may free the note */
        oldest->run(oldest, reactor);
        oldest = next;
    }
}

/* ---- the round ---- */

static int wait_ms(pst_reactor *reactor) {
    if (!pst_list_empty(&reactor->ready) || !pst_list_empty(&reactor->flush) ||
        reactor->overdraft_dirty) {
        return 0;
    }
    int64_t next = pst_reactor__wheel_next_ms(&reactor->wheel);
    if (reactor->stopping && (next < 0 || next > reactor->stop_deadline_ms)) {
        next = reactor->stop_deadline_ms;
    }
    if (next < 0) {
        return -1;
    }
    int64_t left = next - pst_monotonic_ms();
    return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

static int sleep_and_collect(pst_reactor *reactor, struct epoll_event *events) {
    int timeout = wait_ms(reactor);
    if (timeout != 0) {
        atomic_store_explicit(&reactor->sleeping, true, memory_order_seq_cst);
    }
    if (atomic_load_explicit(&reactor->mailbox, memory_order_seq_cst) != NULL) {
        timeout = 0;
    }
    atomic_fetch_add_explicit(&reactor->epoch, 1, memory_order_seq_cst);
    int count = epoll_wait(reactor->epoll_fd, events, PST_EVENTS_MAX, timeout);
    atomic_fetch_add_explicit(&reactor->epoch, 1, memory_order_seq_cst);
    atomic_store_explicit(&reactor->sleeping, false, memory_order_seq_cst);
    reactor->now_ms = pst_monotonic_ms();
    reactor->wall_ms = pst_wall_ms();
    reactor->round++;
    return count < 0 ? 0 : count;
}

static void take_event(pst_reactor *reactor, const struct epoll_event *event) {
    if (event->data.u64 >> 63 != 0) {
        pst_net__accept(reactor, (int)(uint32_t)event->data.u64);
        return;
    }
    pst_conn *conn = event->data.u64 == 0 ? NULL : pst_conn__find(reactor, event->data.u64);
    if (conn == NULL || conn->dead) {
        return; /* the wake eventfd, or a connection that ended in this round */
    }
    if ((event->events & (EPOLLERR | EPOLLHUP)) != 0 && !pst_conn__gate_open(conn)) {
        pst_conn__kill(conn);
        return;
    }
    if ((event->events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0) {
        conn->peer_shut = true;
    }
    if ((event->events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0 && !conn->eof) {
        conn->readable = true;
        pst_conn__add_ready(conn);
    }
    if ((event->events & EPOLLOUT) != 0 && !conn->writable) {
        conn->writable = true;
        pst_conn__add_flush(conn);
    }
}

/* Moves the list behind `from` to `to`, which is empty and not initialised. */
static void list_take(pst_list *from, pst_list *to) {
    pst_list_push_front(from, to);
    pst_list_remove(from);
}

static void receive_turn(pst_reactor *reactor) {
    pst_list turn;
    list_take(&reactor->ready, &turn);
    size_t large_max = reactor->staging_size * 4;
    while (!pst_list_empty(&turn)) {
        if (reactor->staging_size - reactor->staging_used < PST_READ_MINIMUM ||
            reactor->round_large >= large_max) {
            break;
        }
        pst_list *link = pst_list_pop_front(&turn);
        pst_conn__receive(PST_CONTAINER_OF(link, pst_conn, ready_link));
    }
    /* Whoever did not get a turn comes first in the next round. */
    while (!pst_list_empty(&turn)) {
        pst_list *link = turn.prev;
        pst_list_remove(link);
        pst_list_push_front(&reactor->ready, link);
    }
}

static void flush_turn(pst_reactor *reactor) {
    pst_list turn;
    list_take(&reactor->flush, &turn);
    pst_list *link;
    while ((link = pst_list_pop_front(&turn)) != NULL) {
        pst_conn__flush(PST_CONTAINER_OF(link, pst_conn, flush_link));
    }
}

static void end_round(pst_reactor *reactor) {
    pst_reactor__buffers_end_round(reactor);
    reactor->staging_used = 0;
    reactor->round_large = 0;
    flush_turn(reactor);
    pst_reactor__chunks_end_round(reactor);
    pst_conn__reap(reactor);
    pst_reactor__overdraft_round(reactor);
    pst_reactor__count(&reactor->counters.rounds, 1);
}

static bool finished(pst_reactor *reactor) {
    if (!reactor->stopping) {
        return false;
    }
    if (reactor->conn_count > 0 && reactor->now_ms >= reactor->stop_deadline_ms) {
        pst_conn__kill_all(reactor);
        pst_reactor__buffers_end_round(reactor);
        pst_conn__reap(reactor);
    }
    if (reactor->conn_count > 0) {
        return false;
    }
    if (reactor->cold_jobs > 0) { /* their notes still name this reactor; reads take milliseconds */
        reactor->stop_deadline_ms = reactor->now_ms + 1000;
        return false;
    }
    return true;
}

void *pst_reactor__main(void *arg) {
    pst_reactor *reactor = arg;
    pst_net_handler *handler = &reactor->net->handler;
    struct epoll_event events[PST_EVENTS_MAX];
    char name[16];
    snprintf(name, sizeof name, "pst-reactor-%d", reactor->index & 0xff);
    pthread_setname_np(pthread_self(), name);
    pst_reactor__set_current(reactor);
    while (!finished(reactor)) {
        int count = sleep_and_collect(reactor, events);
        if (handler->on_round_begin != NULL) {
            handler->on_round_begin(handler->context, reactor);
        }
        pst_reactor__drain_mailbox(reactor);
        pst_reactor__wheel_fire(reactor);
        for (int i = 0; i < count; i++) {
            take_event(reactor, &events[i]);
        }
        receive_turn(reactor);
        if (handler->on_round_end != NULL) {
            handler->on_round_end(handler->context, reactor);
        }
        end_round(reactor);
    }
    /* Asleep for good: whoever waits for this reactor to pass a boundary need not. */
    atomic_fetch_add_explicit(&reactor->epoch, 1, memory_order_seq_cst);
    pst_reactor__set_current(NULL);
    return NULL;
}

/* ---- stop ---- */

void pst_reactor__run_start_note(pst_note *note, pst_reactor *reactor) {
    (void)note;
    if (!reactor->stopping) {
        pst_net__listeners_watch(reactor->net, true);
    }
}

void pst_reactor__run_stop_note(pst_note *note, pst_reactor *reactor) {
    (void)note;
    reactor->stopping = true;
    reactor->stop_deadline_ms = reactor->now_ms + reactor->net->grace_ms;
    if (reactor->index == 0) {
        pst_timer_cancel(reactor, &reactor->accept_timer);
        pst_net__listeners_close(reactor->net);
    }
    pst_conn__drain_all(reactor);
    pst_net_handler *handler = &reactor->net->handler;
    if (handler->on_stopping != NULL) {
        handler->on_stopping(handler->context, reactor);
    }
}

/* ---- the door ---- */

int pst_reactor_index(const pst_reactor *reactor) {
    return reactor->index;
}

int64_t pst_reactor_now_ms(const pst_reactor *reactor) {
    return reactor->now_ms;
}

int64_t pst_reactor_wall_ms(const pst_reactor *reactor) {
    return reactor->wall_ms;
}

void *pst_reactor_context(pst_reactor *reactor) {
    return reactor->context;
}

void pst_reactor_set_context(pst_reactor *reactor, void *context) {
    reactor->context = context;
}

uint64_t pst_reactor_epoch(const pst_reactor *reactor) {
    return atomic_load_explicit(&reactor->epoch, memory_order_seq_cst);
}
