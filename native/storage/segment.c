/* storage/segment.c - the counted object of one segment file, and the names of its files.
 * Owner: counted; see pst_segment. Deliberately does no I/O but to drop its descriptor. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/storage_private.h"

pst_segment *pst_storage__segment_create(pst_storage *storage, int64_t base_offset) {
    pst_segment *segment = calloc(1, sizeof *segment);
    if (segment == NULL) {
        return NULL;
    }
    atomic_init(&segment->refs, 1);
    atomic_init(&segment->file_slot, 0);
    atomic_init(&segment->file_used, false);
    atomic_init(&segment->deleted, false);
    atomic_init(&segment->allocated, 0);
    atomic_init(&segment->work, 0);
    segment->id = atomic_fetch_add_explicit(&storage->next_segment_id, 1, memory_order_relaxed) + 1;
    segment->base_offset = base_offset;
    segment->end_offset = base_offset;
    segment->first_timestamp = -1;
    segment->max_timestamp = -1;
    segment->max_timestamp_offset = base_offset;
    pst_list_init(&segment->cache_link);
    return segment;
}

pst_segment *pst_storage__segment_ref(pst_segment *segment) {
    int before = atomic_fetch_add_explicit(&segment->refs, 1, memory_order_relaxed);
    PST_ASSERT(before > 0);
    return segment;
}

void pst_storage__segment_unref(pst_storage *storage, pst_segment *segment) {
    if (segment == NULL) {
        return;
    }
    int before = atomic_fetch_sub_explicit(&segment->refs, 1, memory_order_acq_rel);
    PST_ASSERT(before > 0);
    if (before == 1) {
        (void)pst_storage__file_drop(&storage->files, segment);
        pst_storage__index_fini(&segment->index);
        free(segment);
    }
}

void pst_storage__file_name(char out[PST_STORAGE__FILE_NAME_MAX], int64_t offset,
                            const char *suffix) {
    (void)snprintf(out, PST_STORAGE__FILE_NAME_MAX, "%020lld%s", (long long)offset, suffix);
}

bool pst_storage__parse_name(const char *name, const char *suffix, int64_t *offset_out) {
    int64_t value = 0;
    *offset_out = -1;
    for (int i = 0; i < 20; i++) {
        if (name[i] < '0' || name[i] > '9') {
            return false;
        }
        int digit = name[i] - '0';
        if (value > (INT64_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    if (strcmp(name + 20, suffix) != 0) {
        return false;
    }
    *offset_out = value;
    return true;
}
