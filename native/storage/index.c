/* storage/index.c - sparse offset and time index of one segment, in memory and in Kafka's files.
 * Owner: the log's index lock. Entries are hints: every user checks what lies at the position.
 *
 * .index: 8 bytes an entry, relative offset and position; .timeindex: 12 bytes, timestamp and
 * relative offset; both big-endian (Kafka's OffsetIndex and TimeIndex). An offset entry names the
 * last offset of the batch at its position. Deliberately not mapped: 65,530 maps are a hard limit.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/storage_private.h"

_Static_assert(sizeof(pst_storage__index_entry) == 8, "offset index entry");
_Static_assert(sizeof(pst_storage__time_entry) == 12, "time index entry");

enum { INDEX_FILE_MAX = 512 * 1024 * 1024, INDEX_ENTRIES_MIN = 16 };

void pst_storage__index_fini(pst_storage__index *index) {
    free(index->entries);
    free(index->times);
    memset(index, 0, sizeof *index);
}

static uint32_t doubled(uint32_t capacity) {
    return capacity < INDEX_ENTRIES_MIN ? INDEX_ENTRIES_MIN : capacity * 2;
}

static bool grow(void **array, uint32_t *capacity, uint32_t count, size_t element) {
    if (count < *capacity) {
        return true;
    }
    uint32_t wanted = doubled(*capacity);
    void *bigger = realloc(*array, wanted * element);
    if (bigger == NULL) {
        return false;
    }
    *array = bigger;
    *capacity = wanted;
    return true;
}

bool pst_storage__index_is_short(const pst_storage__index *index) {
    return index->capacity - index->count <= index->capacity / 4 ||
           index->time_capacity - index->time_count <= index->time_capacity / 4;
}

bool pst_storage__index_larger(uint32_t capacity, uint32_t time_capacity,
                               pst_storage__index *index_out) {
    *index_out = (pst_storage__index){.capacity = doubled(capacity),
                                      .time_capacity = doubled(time_capacity)};
    index_out->entries = malloc(index_out->capacity * sizeof *index_out->entries);
    index_out->times = malloc(index_out->time_capacity * sizeof *index_out->times);
    if (index_out->entries == NULL || index_out->times == NULL) {
        pst_storage__index_fini(index_out);
        return false;
    }
    return true;
}

void pst_storage__index_move(pst_storage__index *index, pst_storage__index *larger) {
    if (index->count > larger->capacity || index->time_count > larger->time_capacity) {
        return; /* it grew meanwhile */
    }
    if (index->count > 0) {
        memcpy(larger->entries, index->entries, index->count * sizeof *index->entries);
    }
    if (index->time_count > 0) {
        memcpy(larger->times, index->times, index->time_count * sizeof *index->times);
    }
    /* The counts stay untouched: appends read them with the append lock alone. */
    pst_storage__index old = *larger;
    larger->entries = index->entries;
    larger->times = index->times;
    index->entries = old.entries;
    index->times = old.times;
    index->capacity = old.capacity;
    index->time_capacity = old.time_capacity;
}

void pst_storage__index_add(pst_storage__index *index, uint32_t offset, uint32_t position) {
    if (index->count > 0 && index->entries[index->count - 1].offset >= offset) {
        return;
    }
    void *entries = index->entries;
    if (!grow(&entries, &index->capacity, index->count, sizeof *index->entries)) {
        return;
    }
    index->entries = entries;
    index->entries[index->count++] = (pst_storage__index_entry){offset, position};
}

void pst_storage__time_add(pst_storage__index *index, int64_t timestamp, uint32_t offset) {
    if (timestamp < 0 ||
        (index->time_count > 0 && index->times[index->time_count - 1].timestamp >= timestamp)) {
        return;
    }
    void *times = index->times;
    if (!grow(&times, &index->time_capacity, index->time_count, sizeof *index->times)) {
        return;
    }
    index->times = times;
    index->times[index->time_count++] = (pst_storage__time_entry){timestamp, offset};
}

void pst_storage__segment_index_batch(pst_segment *segment, const pst_batch *batch,
                                      int64_t position, int64_t interval) {
    int64_t last = pst_batch_last_offset(batch);
    if (batch->max_timestamp > segment->max_timestamp) {
        segment->max_timestamp = batch->max_timestamp;
        segment->max_timestamp_offset = last;
    }
    if (position == 0) {
        segment->first_timestamp = batch->max_timestamp;
    }
    if ((int64_t)segment->since_index > interval && position <= INT32_MAX) {
        pst_storage__index_add(&segment->index, (uint32_t)(last - segment->base_offset),
                               (uint32_t)position);
        pst_storage__time_add(&segment->index, segment->max_timestamp,
                              (uint32_t)(segment->max_timestamp_offset - segment->base_offset));
        segment->since_index = 0;
    }
    segment->since_index += (uint32_t)batch->size;
}

int64_t pst_storage__index_floor(const pst_storage__index *index, uint32_t relative) {
    uint32_t low = 0;
    uint32_t high = index->count;
    while (low < high) { /* first entry with offset > relative */
        uint32_t middle = low + (high - low) / 2;
        if (index->entries[middle].offset <= relative) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == 0 ? 0 : (int64_t)index->entries[low - 1].position;
}

uint32_t pst_storage__time_floor(const pst_storage__index *index, int64_t timestamp) {
    uint32_t low = 0;
    uint32_t high = index->time_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (index->times[middle].timestamp <= timestamp) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == 0 ? 0 : index->times[low - 1].offset;
}

void pst_storage__index_encode(const pst_storage__index *index, pst_byte_buffer *offsets,
                               pst_byte_buffer *times) {
    for (uint32_t i = 0; i < index->count; i++) {
        uint32_t raw[2] = {htobe32(index->entries[i].offset), htobe32(index->entries[i].position)};
        (void)pst_byte_buffer_append(offsets, raw, sizeof raw);
    }
    for (uint32_t i = 0; i < index->time_count; i++) {
        uint8_t raw[12];
        uint64_t timestamp = htobe64((uint64_t)index->times[i].timestamp);
        uint32_t offset = htobe32(index->times[i].offset);
        memcpy(raw, &timestamp, 8);
        memcpy(raw + 8, &offset, 4);
        (void)pst_byte_buffer_append(times, raw, sizeof raw);
    }
}

static int decode_offsets(pst_slice bytes, int64_t segment_size, pst_storage__index *index) {
    if (bytes.size % 8 != 0 || bytes.size > INDEX_FILE_MAX) {
        return -PST_EMALFORMED;
    }
    uint32_t count = (uint32_t)(bytes.size / 8);
    if (count == 0) {
        return 0;
    }
    index->entries = malloc(count * sizeof *index->entries);
    if (index->entries == NULL) {
        return -PST_ENOMEM;
    }
    index->capacity = count;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t raw[2];
        memcpy(raw, bytes.data + (size_t)i * 8, 8);
        pst_storage__index_entry e = {be32toh(raw[0]), be32toh(raw[1])};
        if (e.offset > INT32_MAX || (int64_t)e.position >= segment_size ||
            (i > 0 && (e.offset <= index->entries[i - 1].offset ||
                       e.position <= index->entries[i - 1].position))) {
            return -PST_EMALFORMED;
        }
        index->entries[i] = e;
    }
    index->count = count;
    return 0;
}

static int decode_times(pst_slice bytes, pst_storage__index *index) {
    if (bytes.size % 12 != 0 || bytes.size > INDEX_FILE_MAX) {
        return -PST_EMALFORMED;
    }
    uint32_t count = (uint32_t)(bytes.size / 12);
    if (count == 0) {
        return 0;
    }
    index->times = malloc(count * sizeof *index->times);
    if (index->times == NULL) {
        return -PST_ENOMEM;
    }
    index->time_capacity = count;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t timestamp;
        uint32_t offset;
        memcpy(&timestamp, bytes.data + (size_t)i * 12, 8);
        memcpy(&offset, bytes.data + (size_t)i * 12 + 8, 4);
        pst_storage__time_entry e = {(int64_t)be64toh(timestamp), be32toh(offset)};
        if (e.timestamp < 0 || e.offset > INT32_MAX ||
            (i > 0 && (e.timestamp <= index->times[i - 1].timestamp ||
                       e.offset < index->times[i - 1].offset))) {
            return -PST_EMALFORMED;
        }
        index->times[i] = e;
    }
    index->time_count = count;
    return 0;
}

int pst_storage__index_decode(pst_slice offsets, pst_slice times, int64_t segment_size,
                              pst_storage__index *index_out) {
    memset(index_out, 0, sizeof *index_out);
    int rc = decode_offsets(offsets, segment_size, index_out);
    if (rc == 0) {
        rc = decode_times(times, index_out);
    }
    if (rc < 0) {
        pst_storage__index_fini(index_out);
    }
    return rc;
}

/* Kafka ends a closed time index with the largest timestamp of the segment. */
int pst_storage__index_save(int dirfd, const pst_segment *segment, bool sync) {
    pst_byte_buffer offsets = {0};
    pst_byte_buffer times = {0};
    char name[PST_STORAGE__FILE_NAME_MAX];
    pst_storage__index_encode(&segment->index, &offsets, &times);
    const pst_storage__index *index = &segment->index;
    if (segment->max_timestamp >= 0 &&
        (index->time_count == 0 ||
         index->times[index->time_count - 1].timestamp < segment->max_timestamp)) {
        uint8_t raw[12];
        uint64_t timestamp = htobe64((uint64_t)segment->max_timestamp);
        uint32_t offset = htobe32((uint32_t)(segment->max_timestamp_offset - segment->base_offset));
        memcpy(raw, &timestamp, 8);
        memcpy(raw + 8, &offset, 4);
        (void)pst_byte_buffer_append(&times, raw, sizeof raw);
    }
    pst_storage__file_name(name, segment->base_offset, ".index");
    int rc = pst_storage__write_file(dirfd, name, pst_byte_buffer_slice(&offsets), sync);
    if (rc == 0) {
        pst_storage__file_name(name, segment->base_offset, ".timeindex");
        rc = pst_storage__write_file(dirfd, name, pst_byte_buffer_slice(&times), sync);
    }
    pst_byte_buffer_fini(&offsets);
    pst_byte_buffer_fini(&times);
    return rc;
}

int pst_storage__index_load(int dirfd, pst_segment *segment) {
    pst_byte_buffer offsets = {.limit = INDEX_FILE_MAX};
    pst_byte_buffer times = {.limit = INDEX_FILE_MAX};
    char name[PST_STORAGE__FILE_NAME_MAX];
    pst_storage__file_name(name, segment->base_offset, ".index");
    int rc = pst_storage__read_file(dirfd, name, &offsets);
    if (rc == 0) {
        pst_storage__file_name(name, segment->base_offset, ".timeindex");
        rc = pst_storage__read_file(dirfd, name, &times);
    }
    if (rc == 0) {
        pst_storage__index loaded;
        rc = pst_storage__index_decode(pst_byte_buffer_slice(&offsets),
                                       pst_byte_buffer_slice(&times), segment->size, &loaded);
        if (rc == 0) {
            pst_storage__index_fini(&segment->index);
            segment->index = loaded;
        }
    }
    pst_byte_buffer_fini(&offsets);
    pst_byte_buffer_fini(&times);
    return rc;
}
