/* The control ring: nothing lost, nothing doubled, each producer's order kept, the eventfd never
 * forgotten. */
#include <poll.h>
#include <pthread.h>

#include "check.h"
#include "engine/engine_private.h"

enum { PRODUCERS = 4, EACH = 20000, CAPACITY = 64 };

static pst_engine__ring ring;
static atomic_int full;

static void *produce(void *arg) {
    int64_t producer = (int64_t)(intptr_t)arg;
    for (uint64_t i = 0; i < EACH; i++) {
        pst_control_request request = {.token = {.conn = (uint64_t)producer, .sequence = i}};
        while (pst_engine__ring_push(&ring, &request) == -PST_EAGAIN) {
            atomic_fetch_add_explicit(&full, 1, memory_order_relaxed);
            sched_yield();
        }
    }
    return NULL;
}

int main(void) {
    CHECK_EQ(pst_engine__ring_init(&ring, CAPACITY), 0);
    pst_control_request request = {0};
    CHECK(!pst_engine__ring_pop(&ring, &request));
    for (int i = 0; i < CAPACITY; i++) {
        CHECK_EQ(pst_engine__ring_push(&ring, &request), 0);
    }
    CHECK_EQ(pst_engine__ring_push(&ring, &request), -PST_EAGAIN);
    struct pollfd readable = {.fd = ring.eventfd, .events = POLLIN};
    CHECK_EQ(poll(&readable, 1, 0), 1);
    pst_engine__ring_clear(&ring);
    for (int i = 0; i < 10; i++) {
        CHECK(pst_engine__ring_pop(&ring, &request));
    }
    pst_engine__ring_signal_rest(&ring);
    CHECK_EQ(poll(&readable, 1, 0), 1); /* something is left: it stays readable */
    pst_engine__ring_clear(&ring);
    while (pst_engine__ring_pop(&ring, &request)) {
    }
    pst_engine__ring_signal_rest(&ring);
    CHECK_EQ(poll(&readable, 1, 0), 0);

    pthread_t threads[PRODUCERS];
    for (intptr_t i = 0; i < PRODUCERS; i++) {
        pthread_create(&threads[i], NULL, produce, (void *)i);
    }
    uint64_t next[PRODUCERS] = {0};
    int taken = 0;
    while (taken < PRODUCERS * EACH) {
        CHECK_EQ(poll(&readable, 1, 20000), 1); /* a lost wake-up ends here */
        pst_engine__ring_clear(&ring);
        for (int i = 0; i < 16 && pst_engine__ring_pop(&ring, &request); i++) {
            CHECK_EQ(request.token.sequence, next[request.token.conn]);
            next[request.token.conn]++;
            taken++;
        }
        pst_engine__ring_signal_rest(&ring);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_EQ(next[i], EACH);
    }
    pst_engine__ring_fini(&ring);
    return 0;
}
