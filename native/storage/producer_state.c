/* storage/producer_state.c - what each idempotent producer wrote last, and whether its next batch
 * fits. Owner: the log's append lock. Follows Kafka 4.4's ProducerAppendInfo and
 * ProducerStateEntry:
 *  - a repeat of one of the last five batches of the same epoch is a duplicate, answered with its
 * offset;
 *  - an older epoch is refused; a new epoch starts at sequence 0;
 *  - a producer nobody knows may start at any sequence;
 *  - after sequence 2147483647 comes 0.
 * State leaves only by age (producer.id.expiration.ms) or when the storage holds too many ids,
 * never by retention or DeleteRecords. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "storage/storage_private.h"

enum { SLOTS_MIN = 4 };

int pst_storage__producers_create(pst_storage__producers **out) {
    *out = NULL;
    pst_storage__producers *producers = calloc(1, sizeof *producers);
    if (producers == NULL) {
        return -PST_ENOMEM;
    }
    producers->slots = calloc(SLOTS_MIN, sizeof *producers->slots);
    if (producers->slots == NULL) {
        free(producers);
        return -PST_ENOMEM;
    }
    producers->capacity = SLOTS_MIN;
    pst_list_init(&producers->lru);
    *out = producers;
    return 0;
}

void pst_storage__producers_destroy(pst_storage *storage, pst_storage__producers *producers) {
    if (producers == NULL) {
        return;
    }
    for (uint32_t i = 0; i < producers->capacity; i++) {
        free(producers->slots[i]);
    }
    atomic_fetch_sub_explicit(&storage->producer_ids, producers->count, memory_order_relaxed);
    free(producers->slots);
    free(producers);
}

static uint32_t slot_of(const pst_storage__producers *producers, int64_t id) {
    return (uint32_t)pst_hash_u64((uint64_t)id, 0) & (producers->capacity - 1);
}

pst_storage__producer *pst_storage__producer_find(const pst_storage__producers *producers,
                                                  int64_t id) {
    uint32_t i = slot_of(producers, id);
    while (producers->slots[i] != NULL) {
        if (producers->slots[i]->producer_id == id) {
            return producers->slots[i];
        }
        i = (i + 1) & (producers->capacity - 1);
    }
    return NULL;
}

static void insert(pst_storage__producers *producers, pst_storage__producer *producer) {
    uint32_t i = slot_of(producers, producer->producer_id);
    while (producers->slots[i] != NULL) {
        i = (i + 1) & (producers->capacity - 1);
    }
    producers->slots[i] = producer;
}

/* Linear probing without tombstones: the run after the hole is put back in place. */
static void remove_producer(pst_storage *storage, pst_storage__producers *producers,
                            pst_storage__producer *producer) {
    uint32_t i = slot_of(producers, producer->producer_id);
    while (producers->slots[i] != producer) {
        i = (i + 1) & (producers->capacity - 1);
    }
    producers->slots[i] = NULL;
    for (i = (i + 1) & (producers->capacity - 1); producers->slots[i] != NULL;
         i = (i + 1) & (producers->capacity - 1)) {
        pst_storage__producer *moved = producers->slots[i];
        producers->slots[i] = NULL;
        insert(producers, moved);
    }
    pst_list_remove(&producer->lru);
    producers->count--;
    atomic_fetch_sub_explicit(&storage->producer_ids, 1, memory_order_relaxed);
    free(producer);
}

static bool grow(pst_storage__producers *producers) {
    if (producers->count + 1 <= producers->capacity - producers->capacity / 4) {
        return true;
    }
    pst_storage__producer **old = producers->slots;
    uint32_t old_capacity = producers->capacity;
    pst_storage__producer **slots = calloc((size_t)old_capacity * 2, sizeof *slots);
    if (slots == NULL) {
        return false;
    }
    producers->slots = slots;
    producers->capacity = old_capacity * 2;
    for (uint32_t i = 0; i < old_capacity; i++) {
        if (old[i] != NULL) {
            insert(producers, old[i]);
        }
    }
    free(old);
    return true;
}

/* Entries with pending appends are not evicted: they are part of the array under way. */
static void evict_one(pst_storage *storage, pst_storage__producers *producers) {
    for (pst_list *link = producers->lru.next; link != &producers->lru; link = link->next) {
        pst_storage__producer *oldest = PST_CONTAINER_OF(link, pst_storage__producer, lru);
        if (oldest->pending < 0 && oldest->txn_first_offset < 0) {
            remove_producer(storage, producers, oldest);
            return;
        }
    }
}

pst_storage__producer *pst_storage__producer_get(pst_storage *storage,
                                                 pst_storage__producers *producers, int64_t id) {
    pst_storage__producer *producer = pst_storage__producer_find(producers, id);
    if (producer != NULL) {
        return producer;
    }
    if (atomic_load_explicit(&storage->producer_ids, memory_order_relaxed) >=
        storage->producer_ids_max) {
        evict_one(storage, producers);
    }
    if (!grow(producers)) {
        return NULL;
    }
    producer = calloc(1, sizeof *producer);
    if (producer == NULL) {
        return NULL;
    }
    producer->producer_id = id;
    producer->last_timestamp = -1;
    producer->txn_first_offset = -1;
    producer->coordinator_epoch = -1;
    producer->pending = -1;
    producer->epoch = -1;
    insert(producers, producer);
    pst_list_push_back(&producers->lru, &producer->lru);
    producers->count++;
    atomic_fetch_add_explicit(&storage->producer_ids, 1, memory_order_relaxed);
    return producer;
}

/* An accepted append of the array that belongs to the producer, newest first; -1: none before
 * `before`. */
static int pending_before(const pst_storage__producer *producer, const pst_append *appends,
                          int before) {
    for (int j = before - 1; j >= 0; j--) {
        if (appends[j].rc == 0 && appends[j].view.producer_id == producer->producer_id) {
            return j;
        }
    }
    return -1;
}

static bool is_repeat(const pst_storage__producer *producer, pst_append *appends, int i) {
    pst_append *a = &appends[i];
    int32_t last_sequence = pst_batch_last_sequence(&a->view);
    int32_t delta = a->view.last_offset_delta;
    for (int j = producer->pending; j >= 0; j = pending_before(producer, appends, j)) {
        const pst_batch *v = &appends[j].view;
        if (v->producer_epoch == a->view.producer_epoch && v->last_offset_delta == delta &&
            pst_batch_last_sequence(v) == last_sequence) {
            a->base_offset = appends[j].base_offset;
            a->log_append_time_ms = v->max_timestamp;
            return true;
        }
    }
    if (producer->epoch != a->view.producer_epoch) {
        return false;
    }
    for (int b = 0; b < producer->batch_count; b++) {
        const pst_storage__producer_batch *kept = &producer->batches[b];
        if (kept->last_sequence == last_sequence && kept->offset_delta == delta) {
            a->base_offset = kept->last_offset - kept->offset_delta;
            a->log_append_time_ms = kept->timestamp;
            return true;
        }
    }
    return false;
}

int pst_storage__producer_check(const pst_storage__producer *producer, pst_append *appends, int i) {
    pst_append *a = &appends[i];
    const pst_batch *view = &a->view;
    if (!a->from_control_plane && is_repeat(producer, appends, i)) {
        return -PST_EDUPLICATE;
    }
    int16_t epoch = producer->epoch;
    int32_t last = producer->batch_count == 0
                       ? -1
                       : producer->batches[producer->batch_count - 1].last_sequence;
    if (producer->pending >= 0) {
        epoch = appends[producer->pending].view.producer_epoch;
        last = pst_batch_last_sequence(&appends[producer->pending].view);
    }
    if (view->producer_epoch < epoch) {
        return -PST_EPRODUCEREPOCH;
    }
    if (a->from_control_plane) {
        return 0;
    }
    if (epoch == -1) {
        return 0;
    }
    if (view->producer_epoch != epoch) {
        return view->base_sequence == 0 ? 0 : -PST_ESEQUENCE;
    }
    bool next = (int64_t)view->base_sequence == (int64_t)last + 1 ||
                (view->base_sequence == 0 && last == INT32_MAX);
    return next ? 0 : -PST_ESEQUENCE;
}

/* Kafka's end transaction marker: value is version (i16) and coordinator epoch (i32). */
static void apply_marker(pst_storage__producer *producer, const pst_slice *control_record) {
    producer->txn_first_offset = -1;
    if (control_record != NULL && control_record->size >= 6) {
        const uint8_t *p = control_record->data + 2;
        producer->coordinator_epoch = (int32_t)(((uint32_t)p[0] << 24) | ((uint32_t)p[1] << 16) |
                                                ((uint32_t)p[2] << 8) | (uint32_t)p[3]);
    }
}

void pst_storage__producer_update(pst_storage__producers *producers,
                                  pst_storage__producer *producer, const pst_batch *batch,
                                  const pst_slice *control_record) {
    if (batch->producer_epoch > producer->epoch || producer->epoch < 0) {
        producer->epoch = batch->producer_epoch;
        producer->batch_count = 0;
    }
    producer->last_timestamp = batch->max_timestamp;
    pst_list_remove(&producer->lru);
    pst_list_push_back(&producers->lru, &producer->lru);
    if (pst_batch_is_control(batch)) {
        apply_marker(producer, control_record);
        return;
    }
    if (producer->batch_count == PST_STORAGE__PRODUCER_BATCHES) {
        memmove(producer->batches, producer->batches + 1,
                (PST_STORAGE__PRODUCER_BATCHES - 1) * sizeof producer->batches[0]);
        producer->batch_count--;
    }
    producer->batches[producer->batch_count++] = (pst_storage__producer_batch){
        .last_offset = pst_batch_last_offset(batch),
        .timestamp = batch->max_timestamp,
        .last_sequence = pst_batch_last_sequence(batch),
        .offset_delta = batch->last_offset_delta,
    };
    if (pst_batch_is_transactional(batch) && producer->txn_first_offset < 0) {
        producer->txn_first_offset = batch->base_offset;
    }
}

void pst_storage__producers_expire(pst_storage *storage, pst_storage__producers *producers,
                                   int64_t now_ms) {
    pst_list *link = producers->lru.next;
    while (link != &producers->lru) {
        pst_storage__producer *producer = PST_CONTAINER_OF(link, pst_storage__producer, lru);
        link = link->next;
        if (producer->txn_first_offset < 0 && producer->pending < 0 &&
            now_ms - producer->last_timestamp >= storage->producer_id_expiration_ms) {
            remove_producer(storage, producers, producer);
        }
    }
}
