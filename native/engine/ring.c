/* engine/ring.c - requests on their way to Python: a bounded ring with many producers and one
 * eventfd.
 *
 * Owner: reactors push, the control thread pops. Layer: engine. It deliberately never blocks: a
 * full ring is the caller's to handle.
 *
 * Each cell carries the number of the turn that may use it (D. Vyukov's bounded queue). The eventfd
 * is written once per batch: by the push that finds `signalled` down. The consumer takes it down
 * before it pops; both sides use read-modify-writes on it, so a push whose signal was saved is seen
 * by the pops that follow. */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/engine_private.h"

int pst_engine__ring_init(pst_engine__ring *ring, int64_t capacity) {
    PST_ASSERT(capacity > 0 && (capacity & (capacity - 1)) == 0);
    ring->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ring->cells = calloc((size_t)capacity, sizeof ring->cells[0]);
    if (ring->cells == NULL || ring->eventfd < 0) {
        return ring->cells == NULL ? -PST_ENOMEM : -PST_EMFILE;
    }
    ring->mask = (uint64_t)capacity - 1;
    for (uint64_t i = 0; i <= ring->mask; i++) {
        atomic_init(&ring->cells[i].turn, i);
    }
    return 0;
}

void pst_engine__ring_fini(pst_engine__ring *ring) {
    pst_control_request request;
    while (ring->cells != NULL && pst_engine__ring_pop(ring, &request)) {
        pst_frame_release(request.frame);
    }
    free(ring->cells);
    ring->cells = NULL;
    if (ring->eventfd >= 0) {
        close(ring->eventfd);
        ring->eventfd = -1;
    }
}

static void signal_consumer(pst_engine__ring *ring) {
    if (!atomic_exchange_explicit(&ring->signalled, true, memory_order_seq_cst)) {
        uint64_t one = 1;
        ssize_t written = write(ring->eventfd, &one, sizeof one);
        PST_ASSERT(written == (ssize_t)sizeof one);
    }
}

int pst_engine__ring_push(pst_engine__ring *ring, const pst_control_request *request) {
    uint64_t at = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    pst_engine__cell *cell;
    for (;;) {
        cell = &ring->cells[at & ring->mask];
        uint64_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
        if (turn == at) {
            if (atomic_compare_exchange_weak_explicit(&ring->tail, &at, at + 1,
                                                      memory_order_relaxed, memory_order_relaxed)) {
                break;
            }
        } else if (turn < at) {
            return -PST_EAGAIN; /* the consumer has not come round yet */
        } else {
            at = atomic_load_explicit(&ring->tail, memory_order_relaxed);
        }
    }
    cell->request = *request;
    atomic_store_explicit(&cell->turn, at + 1, memory_order_release);
    signal_consumer(ring);
    return 0;
}

static bool waits(pst_engine__ring *ring) {
    pst_engine__cell *cell = &ring->cells[ring->head & ring->mask];
    return atomic_load_explicit(&cell->turn, memory_order_acquire) == ring->head + 1;
}

bool pst_engine__ring_pop(pst_engine__ring *ring, pst_control_request *request_out) {
    if (!waits(ring)) {
        return false;
    }
    pst_engine__cell *cell = &ring->cells[ring->head & ring->mask];
    *request_out = cell->request;
    atomic_store_explicit(&cell->turn, ring->head + ring->mask + 1, memory_order_release);
    ring->head++;
    return true;
}

void pst_engine__ring_clear(pst_engine__ring *ring) {
    uint64_t count;
    ssize_t got = read(ring->eventfd, &count, sizeof count);
    (void)got; /* nothing to read is fine: a call without an event */
    atomic_exchange_explicit(&ring->signalled, false, memory_order_seq_cst);
}

void pst_engine__ring_signal_rest(pst_engine__ring *ring) {
    if (waits(ring)) {
        signal_consumer(ring);
    }
}
