/* reactor/buffer.c - buffers of unfinished frames, and the pool that bounds all of them.
 *
 * Owner: the reactor's thread; the pool and the overdraft belong to the net (atomics, one mutex).
 * Layer: reactor.
 *
 * A buffer's size class follows what arrived, never what a length field claims, except on
 * connections that have delivered frames of that class before. The pool is charged as bytes arrive.
 * When it is full, unfinished frames are not read ("starved") and their progress clocks stand
 * still, but for one: the frame nearest its end in the whole net may overdraw. A connection without
 * an unfinished frame still gets PST_READ_MINIMUM bytes a round. */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "reactor/reactor_private.h"

#define BUFFER_MAPPED \
    (256u << 10) /* from here on mapped, so that giving it back returns the memory */

/* With slack, so that a batch of exactly 1 MiB and its request header share the class of 1 MiB. */
static const size_t class_sizes[PST_BUFFER_CLASSES] = {
    512,
    4096,
    (64u << 10) + 4096,
    (256u << 10) + 16384,
    (1u << 20) + 65536,
    (4u << 20) + 65536,
    (16u << 20) + 65536,
    (64u << 20) + 65536,
    (128u << 20) + 65536,
};

static int class_of(size_t size) {
    for (int i = 0; i < PST_BUFFER_CLASSES; i++) {
        if (size <= class_sizes[i]) {
            return i;
        }
    }
    return PST_BUFFER_CLASS_NONE;
}

size_t pst_reactor__buffer_first_size(size_t wanted, size_t proven) {
    size_t first = proven > class_sizes[2] ? proven : class_sizes[2];
    return wanted < first ? wanted : first;
}

static pst_reactor__buffer *buffer_create(size_t capacity, uint8_t size_class) {
    size_t whole = sizeof(pst_reactor__buffer) + capacity;
    pst_reactor__buffer *buffer = aligned_alloc(64, (whole + 63) & ~(size_t)63);
    if (buffer != NULL) {
        buffer->capacity = capacity;
        buffer->size_class = size_class;
    }
    return buffer;
}

void pst_reactor__buffer_free(pst_reactor__buffer *buffer) {
    free(buffer);
}

pst_reactor__buffer *pst_reactor__buffer_acquire(pst_reactor *reactor, size_t size) {
    int size_class = class_of(size);
    pst_reactor__buffer *buffer = NULL;
    if (size_class == PST_BUFFER_CLASS_NONE) {
        buffer = buffer_create(size, PST_BUFFER_CLASS_NONE);
    } else {
        pst_reactor__buffer_class *cache = &reactor->buffers[size_class];
        buffer = cache->free;
        if (buffer != NULL) {
            cache->free = buffer->next;
            cache->free_count--;
            if (cache->free_count < cache->free_count_low) {
                cache->free_count_low = cache->free_count;
            }
            reactor->buffers_kept_size -= buffer->capacity;
        } else {
            buffer = buffer_create(class_sizes[size_class], (uint8_t)size_class);
        }
    }
    if (buffer != NULL) {
        buffer->next = NULL;
        buffer->start = 0;
        buffer->end = 0;
        buffer->charge = 0;
    }
    return buffer;
}

void pst_reactor__buffer_release(pst_reactor *reactor, pst_reactor__buffer *buffer) {
    if (buffer->charge > 0) {
        pst_net__pool_release(reactor->net, buffer->charge);
        buffer->charge = 0;
    }
    if (buffer->size_class == PST_BUFFER_CLASS_NONE ||
        buffer->capacity > PST_BUFFERS_KEPT_SIZE - reactor->buffers_kept_size) {
        pst_reactor__buffer_free(buffer);
        return;
    }
    pst_reactor__buffer_class *cache = &reactor->buffers[buffer->size_class];
    buffer->next = cache->free;
    cache->free = buffer;
    cache->free_count++;
    reactor->buffers_kept_size += buffer->capacity;
    if (pst_list_empty(&reactor->buffer_timer.link)) {
        pst_timer_arm(reactor, &reactor->buffer_timer, reactor->now_ms + PST_BUFFER_TRIM_MS);
    }
}

void pst_reactor__buffer_release_after_round(pst_reactor *reactor, pst_reactor__buffer *buffer) {
    buffer->next = reactor->round_buffers;
    reactor->round_buffers = buffer;
}

void pst_reactor__buffers_end_round(pst_reactor *reactor) {
    while (reactor->round_buffers != NULL) {
        pst_reactor__buffer *buffer = reactor->round_buffers;
        reactor->round_buffers = buffer->next;
        pst_reactor__buffer_release(reactor, buffer);
    }
}

/* Frees what was not needed since the last time, and sleeps for good once nothing is kept. */
static void trim(pst_timer *timer, pst_reactor *reactor) {
    size_t freed = 0;
    for (int i = 0; i < PST_BUFFER_CLASSES; i++) {
        pst_reactor__buffer_class *cache = &reactor->buffers[i];
        for (int unused = cache->free_count_low; unused > 0; unused--) {
            pst_reactor__buffer *buffer = cache->free;
            cache->free = buffer->next;
            cache->free_count--;
            reactor->buffers_kept_size -= buffer->capacity;
            freed += buffer->capacity;
            pst_reactor__buffer_free(buffer);
        }
        cache->free_count_low = cache->free_count;
    }
    if (freed >= class_sizes[PST_BUFFER_CLASS_TRIM]) {
        malloc_trim(0); /* so that an idle broker is small again */
    }
    if (reactor->buffers_kept_size > 0) {
        pst_timer_arm(reactor, timer, reactor->now_ms + PST_BUFFER_TRIM_MS);
    }
}

void pst_reactor__buffers_init(pst_reactor *reactor) {
    pst_timer_init(&reactor->buffer_timer, trim);
}

void pst_reactor__buffers_fini(pst_reactor *reactor) {
    pst_reactor__buffers_end_round(reactor);
    for (int i = 0; i < PST_BUFFER_CLASSES; i++) {
        pst_reactor__buffer_class *cache = &reactor->buffers[i];
        while (cache->free != NULL) {
            pst_reactor__buffer *buffer = cache->free;
            cache->free = buffer->next;
            pst_reactor__buffer_free(buffer);
        }
        cache->free_count = 0;
    }
}

/* ---- the pool ---- */

void pst_net__pool_charge(pst_net *net, size_t size) {
    atomic_fetch_add_explicit(&net->pool_used, (int64_t)size, memory_order_seq_cst);
}

void pst_net__pool_release(pst_net *net, size_t size) {
    int64_t used = atomic_fetch_sub_explicit(&net->pool_used, (int64_t)size, memory_order_seq_cst);
    used -= (int64_t)size;
    PST_ASSERT(used >= 0);
    /* Pairs with starve: it counts itself first and looks at the pool again afterwards. */
    if (PST_UNLIKELY(atomic_load_explicit(&net->starved_count, memory_order_seq_cst) > 0) &&
        used < net->limits.frame_pool_size) {
        for (int i = 0; i < net->reactor_count; i++) {
            pst_reactor__post_pool_note(&net->reactors[i]);
        }
    }
}

bool pst_net__pool_full(pst_net *net) {
    return atomic_load_explicit(&net->pool_used, memory_order_seq_cst) >=
           net->limits.frame_pool_size;
}

size_t pst_net__pool_reserve(pst_net *net, size_t wanted) {
    int64_t before =
        atomic_fetch_add_explicit(&net->pool_used, (int64_t)wanted, memory_order_seq_cst);
    int64_t room = net->limits.frame_pool_size - before;
    if (room >= (int64_t)wanted) {
        return wanted;
    }
    size_t granted = room > 0 ? (size_t)room : 0;
    pst_net__pool_release(net, wanted - granted);
    return granted;
}

/* ---- starvation and the one overdraft ---- */

static int64_t missing(const pst_conn *conn) {
    const pst_reactor__buffer *buffer = conn->buffer;
    if (buffer == NULL || buffer->end - buffer->start < 4) {
        return INT64_MAX;
    }
    const uint8_t *p = buffer->data + buffer->start;
    int64_t size =
        (int64_t)((uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]);
    return size + 4 - (int64_t)(buffer->end - buffer->start);
}

void pst_reactor__starve(pst_conn *conn) {
    pst_reactor *reactor = conn->reactor;
    if (!conn->starved) {
        conn->starved = true;
        pst_list_remove(&conn->ready_link);
        pst_list_push_back(&reactor->starved, &conn->ready_link);
        atomic_fetch_add_explicit(&reactor->net->starved_count, 1, memory_order_seq_cst);
    }
    reactor->overdraft_dirty = true;
}

void pst_reactor__unstarve_one(pst_conn *conn) {
    if (conn->starved) {
        conn->starved = false;
        pst_list_remove(&conn->ready_link);
        conn->frame_mark_ms = conn->reactor->now_ms;
        conn->frame_moved = 0;
        conn->reactor->overdraft_dirty = true;
        atomic_fetch_sub_explicit(&conn->reactor->net->starved_count, 1, memory_order_seq_cst);
    }
}

void pst_reactor__post_pool_note(pst_reactor *reactor) {
    if (!atomic_exchange_explicit(&reactor->pool_note_posted, true, memory_order_seq_cst)) {
        pst_reactor_post(reactor, &reactor->pool_note);
    }
}

void pst_reactor__run_pool_note(pst_note *note, pst_reactor *reactor) {
    (void)note;
    atomic_store_explicit(&reactor->pool_note_posted, false, memory_order_seq_cst);
    reactor->overdraft_dirty = true;
    if (pst_net__pool_full(reactor->net)) {
        return;
    }
    while (!pst_list_empty(&reactor->starved)) {
        pst_conn *conn = PST_CONTAINER_OF(reactor->starved.next, pst_conn, ready_link);
        pst_reactor__unstarve_one(conn);
        pst_conn__add_ready(conn);
    }
}

void pst_reactor__overdraft_round(pst_reactor *reactor) {
    if (!reactor->overdraft_dirty) {
        return;
    }
    reactor->overdraft_dirty = false;
    pst_net *net = reactor->net;
    pst_conn *nearest = NULL;
    int64_t nearest_missing = -1;
    for (pst_list *link = reactor->starved.next; link != &reactor->starved; link = link->next) {
        pst_conn *conn = PST_CONTAINER_OF(link, pst_conn, ready_link);
        int64_t m = missing(conn);
        if (nearest == NULL || m < nearest_missing) {
            nearest = conn;
            nearest_missing = m;
        }
    }
    bool room = !pst_net__pool_full(net);
    int tell = -1;
    pthread_mutex_lock(&net->overdraft.lock);
    net->overdraft.best[reactor->index] = nearest_missing;
    if (net->overdraft.owner == 0 && !room) {
        int best = -1;
        for (int i = 0; i < net->reactor_count; i++) {
            int64_t m = net->overdraft.best[i];
            if (m >= 0 && (best < 0 || m < net->overdraft.best[best])) {
                best = i;
            }
        }
        if (best == reactor->index) {
            net->overdraft.owner = nearest->id;
            nearest->overdraft = true;
        } else {
            tell = best;
        }
    }
    pthread_mutex_unlock(&net->overdraft.lock);
    if (nearest != NULL && nearest->overdraft) {
        pst_reactor__unstarve_one(nearest);
        pst_conn__add_ready(nearest);
    }
    if (nearest != NULL && room) {
        pst_reactor__post_pool_note(reactor);
    }
    if (tell >= 0) {
        pst_reactor__post_pool_note(&net->reactors[tell]);
    }
}

void pst_reactor__overdraft_return(pst_conn *conn) {
    if (!conn->overdraft) {
        return;
    }
    pst_net *net = conn->reactor->net;
    conn->overdraft = false;
    pthread_mutex_lock(&net->overdraft.lock);
    PST_ASSERT(net->overdraft.owner == conn->id);
    net->overdraft.owner = 0;
    pthread_mutex_unlock(&net->overdraft.lock);
    for (int i = 0; i < net->reactor_count; i++) {
        pst_reactor__post_pool_note(&net->reactors[i]);
    }
}
