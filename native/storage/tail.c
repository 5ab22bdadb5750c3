/* storage/tail.c - the last bytes of logs that somebody reads at their end, in memory.
 * Owner: the pool's mutex decides who has a ring; its bytes belong to that log's index lock.
 * One global pool, so that memory is bounded whatever the number of partitions (DESIGN 3).
 * Deliberately starts empty: a log's next appends fill it, older bytes are in the page cache
 * anyway. */
#include <stdlib.h>
#include <string.h>

#include "storage/storage_private.h"

enum { EVICT_LOOKS = 8 };

int pst_storage__tail_pool_init(pst_storage__tail_pool *pool, int64_t size) {
    memset(pool, 0, sizeof *pool);
    pthread_mutex_init(&pool->mutex, NULL);
    atomic_init(&pool->bytes, 0);
    int64_t count = size / PST_STORAGE__TAIL_SIZE;
    pool->capacity = count > 65536 ? 65536 : (int)count;
    if (pool->capacity > 0) {
        pool->tails = calloc((size_t)pool->capacity, sizeof *pool->tails);
        if (pool->tails == NULL) {
            return -PST_ENOMEM;
        }
    }
    return 0;
}

void pst_storage__tail_pool_fini(pst_storage__tail_pool *pool) {
    for (int i = 0; i < pool->count; i++) {
        PST_ASSERT(pool->tails[i].log == NULL);
        free(pool->tails[i].data);
    }
    free(pool->tails);
    pthread_mutex_destroy(&pool->mutex);
}

static pst_storage__tail *find_free(pst_storage__tail_pool *pool) {
    if (pool->count < pool->capacity) {
        pst_storage__tail *tail = &pool->tails[pool->count];
        tail->data = malloc(PST_STORAGE__TAIL_SIZE);
        if (tail->data != NULL) {
            pool->count++;
            atomic_fetch_add_explicit(&pool->bytes, PST_STORAGE__TAIL_SIZE, memory_order_relaxed);
            return tail;
        }
    }
    for (int looks = 0; looks < EVICT_LOOKS && pool->count > 0; looks++) {
        pst_storage__tail *tail = &pool->tails[pool->hand];
        pool->hand = (pool->hand + 1) % pool->count;
        if (tail->log == NULL) {
            return tail;
        }
        if (!atomic_exchange_explicit(&tail->used, false, memory_order_relaxed)) {
            pst_log *victim = tail->log;
            pst_storage__lock_acquire(&victim->index_lock);
            victim->tail = NULL;
            pst_storage__lock_release(&victim->index_lock);
            tail->log = NULL;
            return tail;
        }
    }
    return NULL;
}

void pst_storage__tail_attach(pst_log *log) {
    pst_storage__tail_pool *pool = &log->storage->tails;
    if (pool->capacity == 0) {
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    pst_storage__lock_acquire(&log->index_lock);
    bool wanted = log->tail == NULL && (pst_storage__flags(log) & PST_LOG__CLOSED) == 0;
    pst_storage__lock_release(&log->index_lock);
    pst_storage__tail *tail = wanted ? find_free(pool) : NULL;
    if (tail != NULL) {
        pst_storage__lock_acquire(&log->index_lock);
        if ((pst_storage__flags(log) & PST_LOG__CLOSED) == 0) {
            tail->log = log;
            atomic_store_explicit(&tail->used, true, memory_order_relaxed);
            pst_storage__tail_reset(tail, log->active != NULL ? log->active->size : 0);
            log->tail = tail;
        }
        pst_storage__lock_release(&log->index_lock);
    }
    pthread_mutex_unlock(&pool->mutex);
}

void pst_storage__tail_detach(pst_log *log) {
    pst_storage__tail_pool *pool = &log->storage->tails;
    pthread_mutex_lock(&pool->mutex);
    pst_storage__lock_acquire(&log->index_lock);
    if (log->tail != NULL) {
        log->tail->log = NULL;
        log->tail = NULL;
    }
    pst_storage__lock_release(&log->index_lock);
    pthread_mutex_unlock(&pool->mutex);
}

void pst_storage__tail_reset(pst_storage__tail *tail, int64_t position) {
    tail->start = position;
    tail->end = position;
}

void pst_storage__tail_append(pst_storage__tail *tail, const uint8_t *data, size_t size) {
    if (size > PST_STORAGE__TAIL_SIZE / 2) { /* large answers leave as file ranges */
        pst_storage__tail_reset(tail, tail->end + (int64_t)size);
        return;
    }
    size_t at = (size_t)tail->end & (PST_STORAGE__TAIL_SIZE - 1);
    size_t first = PST_STORAGE__TAIL_SIZE - at;
    first = first < size ? first : size;
    memcpy(tail->data + at, data, first);
    memcpy(tail->data, data + first, size - first);
    tail->end += (int64_t)size;
    if (tail->end - tail->start > PST_STORAGE__TAIL_SIZE) {
        tail->start = tail->end - PST_STORAGE__TAIL_SIZE;
    }
}

void pst_storage__tail_copy(const pst_storage__tail *tail, int64_t position, void *out,
                            size_t size) {
    PST_ASSERT(position >= tail->start && (int64_t)size <= tail->end - position);
    size_t at = (size_t)position & (PST_STORAGE__TAIL_SIZE - 1);
    size_t first = PST_STORAGE__TAIL_SIZE - at;
    first = first < size ? first : size;
    memcpy(out, tail->data + at, first);
    memcpy((uint8_t *)out + first, tail->data, size - first);
}
