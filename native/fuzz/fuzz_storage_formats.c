/* fuzz_storage_formats - the small files of a log directory: indexes, producer snapshot, leader
 * epochs, offset checkpoints, partition.metadata. The first byte picks the format; what decodes
 * must encode again. */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "storage/storage_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok) {
    if (!ok) {
        abort();
    }
}

static int ignore_offset(void *context, pst_slice name, int64_t offset) {
    (void)context;
    require(name.size > 2 && offset >= 0);
    return 0;
}

static void try_index(pst_slice in) {
    size_t half = in.size / 2;
    pst_storage__index index;
    if (pst_storage__index_decode(pst_slice_of(in.data, half),
                                  pst_slice_of(in.data + half, in.size - half), INT32_MAX,
                                  &index) == 0) {
        pst_byte_buffer offsets = {0};
        pst_byte_buffer times = {0};
        pst_storage__index_encode(&index, &offsets, &times);
        require(offsets.size == half && times.size == in.size - half);
        require(half == 0 || memcmp(offsets.data, in.data, half) == 0);
        (void)pst_storage__index_floor(&index, 1000);
        (void)pst_storage__time_floor(&index, 1000);
        pst_byte_buffer_fini(&offsets);
        pst_byte_buffer_fini(&times);
        pst_storage__index_fini(&index);
    }
}

static void try_snapshot(pst_slice in) {
    static pst_storage storage;
    storage.producer_ids_max = 100;
    uint8_t *copy = malloc(in.size + 6);
    if (copy == NULL) {
        return;
    }
    uint32_t crc = htobe32(pst_crc32c(0, in.data, in.size));
    memcpy(copy, "\0\1", 2);
    memcpy(copy + 2, &crc, 4);
    if (in.size > 0) {
        memcpy(copy + 6, in.data, in.size);
    }
    pst_storage__producers *producers;
    require(pst_storage__producers_create(&producers) == 0);
    if (pst_storage__snapshot_decode(&storage, pst_slice_of(copy, in.size + 6), producers) == 0) {
        pst_byte_buffer out = {0};
        require(pst_storage__snapshot_encode(producers, &out) == 0);
        require(out.size <= in.size + 6);
        pst_byte_buffer_fini(&out);
    }
    pst_storage__producers_destroy(&storage, producers);
    free(copy);
}

static void try_text(pst_slice in, int kind) {
    pst_storage__epochs epochs = {0};
    pst_byte_buffer out = {0};
    pst_uuid id;
    if (kind == 0 && pst_storage__epochs_decode(in, &epochs) == 0) {
        pst_storage__epochs again = {0};
        require(pst_storage__epochs_encode(&epochs, &out) == 0);
        require(pst_storage__epochs_decode(pst_byte_buffer_slice(&out), &again) == 0);
        require(again.count == epochs.count);
        pst_storage__epochs_fini(&again);
    } else if (kind == 1) {
        (void)pst_storage__offsets_decode(in, ignore_offset, NULL);
    } else if (kind == 2 && pst_storage__metadata_decode(in, &id) == 0) {
        require(pst_storage__metadata_encode(&id, &out) == 0);
    }
    pst_storage__epochs_fini(&epochs);
    pst_byte_buffer_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    pst_slice in = pst_slice_of(data + 1, size - 1);
    switch (data[0] % 5) {
        case 0:
            try_index(in);
            break;
        case 1:
            try_snapshot(in);
            break;
        default:
            try_text(in, data[0] % 5 - 2);
    }
    return 0;
}
