/* broker/fetch_wait.c - fetches that wait: parked for bytes or time, or away on an I/O thread.
 *
 * Owner: the reactor; news arrive from every thread under `news_lock`, one note in flight per
 * reactor. Layer: broker. Deliberately has no tick and no scan: a parked fetch costs nothing until
 * its partition has news.
 *
 * Waiters, both sides (DESIGN 3):
 *   here:      set the reactor's bit in partition->waiters, full fence, read the ends again;
 *   appender:  publish the end, full fence, read the bits; the one who clears a bit adds the
 * partition to that reactor's news. The bit is set again when the news are worked off and somebody
 * still waits. An end published before the bit was set is seen by the second reading; one published
 * later sees the bit. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "broker/fetch_private.h"

enum { WATCH_BUCKETS_FIRST = 64 };

static uint64_t own_bit(const pst_shard *shard) {
    return UINT64_C(1) << shard->index;
}

/* ---- watches: partition -> parked fetches ---- */

static size_t bucket_of(const struct pst_fetch_shard *fs, const pst_partition *partition) {
    return (size_t)pst_hash_u64((uint64_t)(uintptr_t)partition, fs->seed) & (fs->bucket_count - 1);
}

static pst_fetch_watch *find_watch(const struct pst_fetch_shard *fs,
                                   const pst_partition *partition) {
    pst_fetch_watch *watch = fs->buckets[bucket_of(fs, partition)];
    while (watch != NULL && watch->partition != partition) {
        watch = watch->next;
    }
    return watch;
}

/* Doubles the table; keeps the old one when memory is refused. */
static void grow_buckets(struct pst_fetch_shard *fs) {
    size_t old_count = fs->bucket_count;
    pst_fetch_watch **old = fs->buckets;
    pst_fetch_watch **buckets = calloc(old_count * 2, sizeof(pst_fetch_watch *));
    if (buckets == NULL) {
        return;
    }
    fs->buckets = buckets;
    fs->bucket_count = old_count * 2;
    for (size_t i = 0; i < old_count; i++) {
        pst_fetch_watch *watch = old[i];
        while (watch != NULL) {
            pst_fetch_watch *next = watch->next;
            size_t bucket = bucket_of(fs, watch->partition);
            watch->next = fs->buckets[bucket];
            fs->buckets[bucket] = watch;
            watch = next;
        }
    }
    free(old);
}

static pst_fetch_watch *get_watch(struct pst_fetch_shard *fs, pst_partition *partition) {
    pst_fetch_watch *watch = find_watch(fs, partition);
    if (watch != NULL) {
        return watch;
    }
    watch = fs->free_watches;
    if (watch != NULL) {
        fs->free_watches = watch->next;
    } else {
        watch = malloc(sizeof *watch);
        if (watch == NULL) {
            return NULL;
        }
    }
    if (fs->watch_count >= fs->bucket_count) {
        grow_buckets(fs);
    }
    watch->partition = pst_partition__ref(partition);
    pst_list_init(&watch->parts);
    size_t bucket = bucket_of(fs, partition);
    watch->next = fs->buckets[bucket];
    fs->buckets[bucket] = watch;
    fs->watch_count++;
    return watch;
}

static void drop_watch(struct pst_fetch_shard *fs, pst_fetch_watch *watch) {
    pst_fetch_watch **link = &fs->buckets[bucket_of(fs, watch->partition)];
    while (*link != watch) {
        link = &(*link)->next;
    }
    *link = watch->next;
    fs->watch_count--;
    atomic_fetch_and_explicit(&watch->partition->waiters, ~own_bit(fs->shard),
                              memory_order_relaxed);
    pst_partition__unref(watch->partition);
    watch->partition = NULL;
    watch->next = fs->free_watches;
    fs->free_watches = watch;
}

static void set_bit(pst_shard *shard, pst_partition *partition) {
    uint64_t bit = own_bit(shard);
    if ((atomic_load_explicit(&partition->waiters, memory_order_seq_cst) & bit) == 0) {
        atomic_fetch_or_explicit(&partition->waiters, bit, memory_order_seq_cst);
    }
}

/* ---- parking ---- */

/* Long waits end together: up to a sixteenth late, 16 ms at most, on a multiple of a power of two.
 * A thousand idle consumers then cost a wake-up per group instead of one each; data still wakes a
 * fetch at once. */
static int64_t common_deadline(int64_t now_ms, int64_t wait_ms) {
    int64_t step = 1;
    while (step < 16 && step * 2 <= wait_ms / 16) {
        step *= 2;
    }
    return (now_ms + wait_ms + step - 1) & ~(step - 1);
}

static void on_deadline(pst_timer *timer, pst_reactor *reactor) {
    (void)reactor;
    pst_fetch_op *op = PST_CONTAINER_OF(timer, pst_fetch_op, timer);
    pst_fetch__unpark(op);
    pst_fetch__execute(op, false);
}

void pst_fetch__unpark(pst_fetch_op *op) {
    struct pst_fetch_shard *fs = op->shard->fetch;
    pst_timer_cancel(op->shard->reactor, &op->timer);
    for (int32_t i = 0; i < op->part_count; i++) {
        pst_fetch_part *part = &op->parts[i];
        pst_fetch_watch *watch = part->watch;
        if (watch == NULL) {
            continue;
        }
        part->watch = NULL;
        pst_list_remove(&part->link);
        if (pst_list_empty(&watch->parts)) {
            drop_watch(fs, watch);
        }
    }
    pst_list_remove(&op->link);
    fs->parked_parts -= op->part_count;
    op->state = PST_FETCH_RUNNING;
    op->ready = false;
}

/* Puts every partition on its watch; false when memory is refused. */
static bool watch_all(pst_fetch_op *op) {
    struct pst_fetch_shard *fs = op->shard->fetch;
    for (int32_t i = 0; i < op->part_count; i++) {
        pst_fetch_part *part = &op->parts[i];
        part->available = 0;
        if (part->partition == NULL) {
            continue;
        }
        pst_fetch_watch *watch = get_watch(fs, part->partition);
        if (watch == NULL) {
            return false;
        }
        part->watch = watch;
        pst_list_push_back(&watch->parts, &part->link);
        set_bit(op->shard, part->partition);
    }
    return true;
}

static bool all_still_wait(pst_fetch_op *op) {
    for (int32_t i = 0; i < op->part_count; i++) {
        if (op->parts[i].watch != NULL && !pst_fetch__still_waits(&op->parts[i])) {
            return false;
        }
    }
    return true;
}

void pst_fetch__park(pst_fetch_op *op) {
    struct pst_fetch_shard *fs = op->shard->fetch;
    if (fs->stopping || fs->parked_parts > PST_FETCH_PARKED_PARTITIONS_MAX - op->part_count) {
        pst_fetch__execute(op, false);
        return;
    }
    pst_fetch__ref_partitions(op);
    op->state = PST_FETCH_PARKED;
    op->bytes = 0;
    pst_timer_init(&op->timer, on_deadline);
    pst_list_push_back(&fs->parked, &op->link);
    fs->parked_parts += op->part_count;
    bool watched = watch_all(op);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with pst_partition__wake */
    if (!watched || !all_still_wait(op)) {
        pst_fetch__unpark(op);
        pst_fetch__execute(op, false);
        return;
    }
    int64_t now = pst_reactor_now_ms(op->shard->reactor);
    pst_timer_arm(op->shard->reactor, &op->timer, common_deadline(now, op->max_wait_ms));
    pst_broker__count(&op->shard->fetches_parked, 1);
}

/* ---- news ---- */

/* Takes the caller's reference when it returns true. */
static bool news_push(pst_fetch_news *news, pst_partition *partition) {
    if (news->count == news->capacity) {
        size_t capacity = news->capacity == 0 ? 16 : news->capacity * 2;
        pst_partition **items = realloc(news->items, capacity * sizeof(pst_partition *));
        if (items == NULL) {
            return false;
        }
        news->items = items;
        news->capacity = capacity;
    }
    news->items[news->count++] = partition;
    return true;
}

static void news_clear(pst_fetch_news *news) {
    for (size_t i = 0; i < news->count; i++) {
        pst_partition__unref(news->items[i]);
    }
    news->count = 0;
}

/* True for the one caller who takes the reactor's bit away and must tell it. */
static bool claim_bit(pst_partition *partition, int index) {
    uint64_t bit = UINT64_C(1) << index;
    return (atomic_fetch_and_explicit(&partition->waiters, ~bit, memory_order_acq_rel) & bit) != 0;
}

void pst_fetch__note_remote(pst_broker *broker, int index, pst_partition *partition) {
    struct pst_fetch_shard *fs = broker->shards[index].fetch;
    if (!claim_bit(partition, index)) {
        return;
    }
    (void)pst_partition__ref(partition);
    pthread_mutex_lock(&fs->news_lock);
    bool kept = news_push(&fs->remote, partition);
    if (!kept) {
        fs->remote_overflow = true;
    }
    bool post = !fs->wake_posted;
    fs->wake_posted = true;
    pthread_mutex_unlock(&fs->news_lock);
    if (!kept) {
        pst_partition__unref(partition);
    }
    if (post) {
        pst_reactor_post(broker->shards[index].reactor, &fs->wake);
    }
}

void pst_fetch__note_local(pst_shard *shard, pst_partition *partition) {
    struct pst_fetch_shard *fs = shard->fetch;
    if (!claim_bit(partition, shard->index)) {
        return;
    }
    (void)pst_partition__ref(partition);
    if (!news_push(&fs->local, partition)) {
        fs->local_overflow = true;
        pst_partition__unref(partition);
    }
}

/* Collects the fetches of a watch that can be answered now: answering unlinks, so it happens
 * afterwards. */
static void look_at_watch(struct pst_fetch_shard *fs, pst_fetch_watch *watch, pst_list *ready) {
    set_bit(fs->shard, watch->partition);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with pst_partition__wake */
    for (pst_list *node = watch->parts.next; node != &watch->parts; node = node->next) {
        pst_fetch_part *part = PST_CONTAINER_OF(node, pst_fetch_part, link);
        pst_fetch_op *op = part->op;
        if (!op->ready && !pst_fetch__still_waits(part)) {
            op->ready = true;
            pst_list_remove(&op->link);
            pst_list_push_back(ready, &op->link);
        }
    }
}

static void answer_ready(pst_list *ready) {
    while (!pst_list_empty(ready)) {
        pst_fetch_op *op = PST_CONTAINER_OF(ready->next, pst_fetch_op, link);
        pst_fetch__unpark(op);
        pst_fetch__execute(op, false);
    }
}

static void work_off(struct pst_fetch_shard *fs, pst_fetch_news *news, bool overflow) {
    pst_list ready;
    pst_list_init(&ready);
    for (size_t i = 0; i < news->count; i++) {
        pst_fetch_watch *watch = find_watch(fs, news->items[i]);
        if (watch != NULL) {
            look_at_watch(fs, watch, &ready);
        }
    }
    for (size_t i = 0; overflow && i < fs->bucket_count; i++) {
        for (pst_fetch_watch *watch = fs->buckets[i]; watch != NULL; watch = watch->next) {
            look_at_watch(fs, watch, &ready);
        }
    }
    news_clear(news);
    answer_ready(&ready);
}

void pst_fetch__wake(pst_shard *shard) {
    struct pst_fetch_shard *fs = shard->fetch;
    pthread_mutex_lock(&fs->news_lock);
    pst_fetch_news taken = fs->remote;
    fs->remote = fs->taken;
    bool overflow = fs->remote_overflow;
    fs->remote_overflow = false;
    fs->wake_posted = false;
    pthread_mutex_unlock(&fs->news_lock);
    fs->taken = taken;
    work_off(fs, &fs->taken, overflow);
}

static void run_wake(pst_note *note, pst_reactor *reactor) {
    (void)reactor;
    pst_fetch__wake(PST_CONTAINER_OF(note, struct pst_fetch_shard, wake)->shard);
}

void pst_fetch__round_end(pst_shard *shard) {
    struct pst_fetch_shard *fs = shard->fetch;
    if (fs->local.count == 0 && !fs->local_overflow) {
        return;
    }
    bool overflow = fs->local_overflow;
    fs->local_overflow = false;
    work_off(fs, &fs->local, overflow);
}

void pst_fetch__answer_parked(pst_shard *shard) {
    shard->fetch->stopping = true;
    answer_ready(&shard->fetch->parked);
}

/* ---- cold reads ---- */

static void cold_done(pst_note *note, pst_reactor *reactor) {
    (void)reactor;
    pst_fetch_op *op = PST_CONTAINER_OF(note, pst_fetch_op, note);
    pst_list_remove(&op->link);
    op->state = PST_FETCH_RUNNING;
    pst_conn *conn = pst_exchange_conn(op->exchange);
    if (op->held && conn != NULL) {
        pst_conn_resume(conn);
    }
    op->held = false;
    if (op->conn_closed) {
        pst_fetch__abandon(op);
        return;
    }
    pst_fetch__respond(op);
}

static void cold_run(pst_job *job) {
    pst_fetch_op *op = PST_CONTAINER_OF(job, pst_fetch_op, job);
    pst_shard *shard = op->shard;
    pst_broker *broker = shard->broker;
    pst_fetch__read(op, NULL, true);
    pst_reactor_post(shard->reactor, &op->note);
    atomic_fetch_sub_explicit(&broker->io_active, 1, memory_order_release);
    atomic_fetch_sub_explicit(&shard->fetch->cold_running, 1, memory_order_release);
}

void pst_fetch__go_cold(pst_fetch_op *op) {
    pst_shard *shard = op->shard;
    pst_fetch__ref_partitions(op);
    op->state = PST_FETCH_COLD;
    op->job.run = cold_run;
    op->note.run = cold_done;
    pst_list_push_back(&shard->fetch->cold, &op->link);
    pst_conn *conn = pst_exchange_conn(op->exchange);
    if (op->session != NULL && conn != NULL) {
        pst_conn_hold(conn); /* a later fetch of the session must not overtake this one */
        op->held = true;
    }
    atomic_fetch_add_explicit(&shard->broker->io_active, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&shard->fetch->cold_running, 1, memory_order_relaxed);
    pst_iopool_submit(shard->broker->settings.iopool, &op->job);
}

/* ---- connections and shards ---- */

static void mark_closed(pst_list *ops, const pst_conn *conn) {
    for (pst_list *node = ops->next; node != ops; node = node->next) {
        pst_fetch_op *op = PST_CONTAINER_OF(node, pst_fetch_op, link);
        if (op->conn == conn) {
            op->conn_closed = true;
            op->held = false;
        }
    }
}

void pst_fetch__conn_closed(pst_shard *shard, pst_conn *conn) {
    struct pst_fetch_shard *fs = shard->fetch;
    pst_list *node = fs->parked.next;
    while (node != &fs->parked) {
        pst_fetch_op *op = PST_CONTAINER_OF(node, pst_fetch_op, link);
        node = node->next;
        if (op->conn == conn) {
            pst_fetch__unpark(op);
            pst_fetch__abandon(op);
        }
    }
    mark_closed(&fs->moving, conn);
    mark_closed(&fs->cold, conn);
}

int pst_fetch__create(pst_shard *shard) {
    struct pst_fetch_shard *fs = calloc(1, sizeof *fs);
    if (fs == NULL) {
        return -PST_ENOMEM;
    }
    int32_t slots = shard->broker->settings.fetch_sessions_max;
    fs->shard = shard;
    pst_list_init(&fs->free_ops);
    pst_list_init(&fs->parked);
    pst_list_init(&fs->moving);
    pst_list_init(&fs->cold);
    pst_list_init(&fs->lookups);
    fs->seed = pst_hash_u64((uint64_t)pst_monotonic_ns(), (uint64_t)(uintptr_t)fs);
    fs->wake.run = run_wake;
    fs->bucket_count = WATCH_BUCKETS_FIRST;
    fs->buckets = calloc(fs->bucket_count, sizeof(pst_fetch_watch *));
    fs->scratch = malloc(PST_FETCH_SCRATCH_SIZE);
    fs->sessions = calloc(slots > 0 ? (size_t)slots : 1, sizeof(pst_fetch_session *));
    if (fs->buckets == NULL || fs->scratch == NULL || fs->sessions == NULL ||
        pthread_mutex_init(&fs->news_lock, NULL) != 0) {
        free(fs->buckets);
        free(fs->scratch);
        free(fs->sessions);
        free(fs);
        return -PST_ENOMEM;
    }
    shard->fetch = fs;
    return 0;
}

static void free_ops(pst_list *ops) {
    while (!pst_list_empty(ops)) {
        pst_fetch_op *op = PST_CONTAINER_OF(ops->next, pst_fetch_op, link);
        pst_fetch__session_leave(op);
        pst_fetch__free_op(op);
    }
}

void pst_fetch__destroy(pst_shard *shard) {
    struct pst_fetch_shard *fs = shard->fetch;
    if (fs == NULL) {
        return;
    }
    while (atomic_load_explicit(&fs->cold_running, memory_order_acquire) != 0) {
        sched_yield(); /* no reactor runs any more; the last reads end by themselves */
    }
    for (size_t i = 0; i < fs->bucket_count; i++) {
        while (fs->buckets[i] != NULL) {
            drop_watch(fs, fs->buckets[i]);
        }
    }
    while (fs->free_watches != NULL) {
        pst_fetch_watch *watch = fs->free_watches;
        fs->free_watches = watch->next;
        free(watch);
    }
    free_ops(&fs->parked);
    free_ops(&fs->moving);
    free_ops(&fs->cold);
    pst_list_offsets__destroy_lookups(&fs->lookups);
    free_ops(&fs->free_ops);
    pst_fetch__sessions_of_shard_destroy(shard);
    news_clear(&fs->local);
    news_clear(&fs->remote);
    news_clear(&fs->taken);
    free(fs->local.items);
    free(fs->remote.items);
    free(fs->taken.items);
    free(fs->buckets);
    free(fs->scratch);
    free(fs->seen);
    free(fs->sessions);
    pthread_mutex_destroy(&fs->news_lock);
    free(fs);
    shard->fetch = NULL;
}
