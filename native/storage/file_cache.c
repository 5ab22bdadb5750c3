/* storage/file_cache.c - at most N segment descriptors open at a time.
 * Owner: any thread. A segment's slot holds the file; bit 0 of the slot is a spin lock of a few
 * instructions, so that an append on one log never meets another log's. Eviction is second chance
 * and skips files that somebody else holds: responses keep ranges of them. */
#include <sched.h>

#include "storage/storage_private.h"

static uintptr_t slot_lock(pst_segment *segment) {
    for (int spins = 0;; spins++) {
        uintptr_t value = atomic_fetch_or_explicit(&segment->file_slot, 1, memory_order_acquire);
        if ((value & 1) == 0) {
            return value;
        }
        if (spins > 100) {
            sched_yield();
        } else {
            pst_storage__relax();
        }
    }
}

static void slot_unlock(pst_segment *segment, uintptr_t value) {
    atomic_store_explicit(&segment->file_slot, value, memory_order_release);
}

void pst_storage__file_cache_init(pst_storage__file_cache *cache, int capacity) {
    pthread_mutex_init(&cache->mutex, NULL);
    pst_list_init(&cache->ring);
    cache->count = 0;
    cache->capacity = capacity < 8 ? 8 : capacity;
    atomic_init(&cache->opens, 0);
}

void pst_storage__file_cache_fini(pst_storage__file_cache *cache) {
    PST_ASSERT(cache->count == 0);
    pthread_mutex_destroy(&cache->mutex);
}

pst_file *pst_storage__file_get(pst_segment *segment) {
    if (atomic_load_explicit(&segment->file_slot, memory_order_relaxed) == 0) {
        return NULL;
    }
    uintptr_t value = slot_lock(segment);
    pst_file *file = (pst_file *)value;
    if (file != NULL) {
        pst_file_ref(file);
        atomic_store_explicit(&segment->file_used, true, memory_order_relaxed);
    }
    slot_unlock(segment, value);
    return file;
}

/* Removes the file from the slot; cache mutex held. With `idle_only`, not when others hold it. */
static pst_file *take(pst_storage__file_cache *cache, pst_segment *segment, bool idle_only) {
    uintptr_t value = slot_lock(segment);
    pst_file *file = (pst_file *)value;
    if (file != NULL && idle_only && pst_file_refs(file) > 1) {
        slot_unlock(segment, value);
        return NULL;
    }
    slot_unlock(segment, 0);
    if (file != NULL) {
        pst_list_remove(&segment->cache_link);
        cache->count--;
    }
    return file;
}

static int evict(pst_storage__file_cache *cache, pst_file **out, int out_max) {
    int taken = 0;
    int looks = cache->count * 2;
    while (cache->count > cache->capacity && taken < out_max && looks-- > 0) {
        pst_segment *segment = PST_CONTAINER_OF(cache->ring.next, pst_segment, cache_link);
        pst_list_remove(&segment->cache_link);
        pst_list_push_back(&cache->ring, &segment->cache_link);
        if (atomic_exchange_explicit(&segment->file_used, false, memory_order_relaxed)) {
            continue;
        }
        pst_file *file = take(cache, segment, true);
        if (file != NULL) {
            out[taken++] = file;
        }
    }
    return taken;
}

void pst_storage__file_put(pst_storage__file_cache *cache, pst_segment *segment, pst_file *file) {
    pst_file *closing[8];
    pthread_mutex_lock(&cache->mutex);
    uintptr_t value = slot_lock(segment);
    bool installed = value == 0;
    if (installed) {
        pst_list_push_back(&cache->ring, &segment->cache_link);
        cache->count++;
        value = (uintptr_t)file;
    }
    atomic_store_explicit(&segment->file_used, true, memory_order_relaxed);
    slot_unlock(segment, value);
    int n = evict(cache, closing, 8);
    pthread_mutex_unlock(&cache->mutex);
    atomic_fetch_add_explicit(&cache->opens, 1, memory_order_relaxed);
    if (!installed) {
        (void)pst_file_unref(file); /* another thread opened it at the same time */
    }
    for (int i = 0; i < n; i++) {
        (void)pst_file_unref(closing[i]);
    }
}

int pst_storage__file_drop(pst_storage__file_cache *cache, pst_segment *segment) {
    pthread_mutex_lock(&cache->mutex);
    pst_file *file = take(cache, segment, false);
    pthread_mutex_unlock(&cache->mutex);
    return pst_file_unref(file);
}
