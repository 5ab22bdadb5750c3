/* storage/scan.c - walks the batches of a segment file through a buffer of the caller.
 * Owner: the function that walks. Memory stays that of the buffer, whatever a header claims. */
#include <string.h>

#include "base/crc32c.h"
#include "storage/storage_private.h"

/* Makes [pos, pos + size) available; `size` is at most the buffer's capacity. */
static int fill(pst_storage__scan *scan, int64_t pos, size_t size) {
    if (pos >= scan->buffer_pos &&
        pos - scan->buffer_pos <= (int64_t)scan->buffer_size - (int64_t)size) {
        return 0;
    }
    int64_t left = scan->size - pos;
    size_t want = left < (int64_t)scan->capacity ? (size_t)left : scan->capacity;
    PST_ASSERT(size <= want);
    scan->buffer_pos = pos;
    scan->buffer_size = 0;
    while (scan->buffer_size < size) {
        int64_t n = pst_storage__read_now(scan->fd, scan->buffer + scan->buffer_size,
                                          want - scan->buffer_size,
                                          pos + (int64_t)scan->buffer_size, scan->may_block);
        if (n < 0) {
            return (int)n;
        }
        if (n == 0) {
            return -PST_ECORRUPT; /* the file is shorter than it was when we looked */
        }
        scan->buffer_size += (size_t)n;
    }
    return 0;
}

int pst_storage__scan_header(pst_storage__scan *scan, int64_t pos, pst_batch *batch_out) {
    memset(batch_out, 0, sizeof *batch_out);
    if (pos >= scan->size) {
        return 1;
    }
    if (scan->size - pos < PST_BATCH_HEADER_SIZE) {
        return -PST_ECORRUPT;
    }
    PST_TRY(fill(scan, pos, PST_BATCH_HEADER_SIZE));
    pst_slice bytes = pst_slice_of(scan->buffer + (pos - scan->buffer_pos), PST_BATCH_HEADER_SIZE);
    if (pst_batch_header(bytes, batch_out) < 0 || (int64_t)batch_out->size > scan->size - pos ||
        batch_out->base_offset < 0 || batch_out->last_offset_delta < 0 ||
        batch_out->base_offset > INT64_MAX - 1 - batch_out->last_offset_delta) {
        return -PST_ECORRUPT;
    }
    return 0;
}

int pst_storage__scan_crc(pst_storage__scan *scan, int64_t pos, const pst_batch *batch) {
    uint32_t crc = 0;
    int64_t at = pos + PST_BATCH_CRC_START;
    int64_t end = pos + (int64_t)batch->size;
    while (at < end) {
        size_t n = end - at < (int64_t)scan->capacity ? (size_t)(end - at) : scan->capacity;
        int64_t have = scan->buffer_pos + (int64_t)scan->buffer_size - at;
        if (at >= scan->buffer_pos && have > 0) {
            n = have < (int64_t)n ? (size_t)have : n;
        } else {
            PST_TRY(fill(scan, at, n));
        }
        crc = pst_crc32c(crc, scan->buffer + (at - scan->buffer_pos), n);
        at += (int64_t)n;
    }
    return crc == batch->crc ? 0 : -PST_ECRC;
}
