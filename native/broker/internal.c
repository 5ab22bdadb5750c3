/* broker/internal.c - the control plane's own use of partitions: append, read, offsets,
 * DeleteRecords, retention.
 *
 * Owner: the control thread calls; it may wait here, as the door says. Layer: broker.
 * Deliberately bypasses the checks for clients (internal topics, control batches) and nothing else:
 * appends keep the order of the partition's queue, and wake the same waiters. */
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "broker/produce_private.h"

/* The partition with one more reference, or NULL and the reason. */
static pst_partition *find(pst_broker *broker, const pst_uuid *topic_id, int32_t index,
                           int *rc_out) {
    const pst_topic *topic = pst_image__topic_by_id(pst_broker__image(broker), topic_id);
    pst_partition *partition = topic != NULL ? pst_topic__partition(topic, index) : NULL;
    *rc_out = partition == NULL ? -PST_ENOENT : partition->log == NULL ? -PST_EOFFLINE : 0;
    return *rc_out == 0 ? pst_partition__ref(partition) : NULL;
}

/* Takes and gives back control_lock around the lookup: publication holds it while logs open. */
static pst_partition *find_locked(pst_broker *broker, const pst_uuid *topic_id, int32_t index,
                                  int *rc_out) {
    pthread_mutex_lock(&broker->control_lock);
    pst_partition *partition = find(broker, topic_id, index, rc_out);
    pthread_mutex_unlock(&broker->control_lock);
    return partition;
}

/* Owner: the waiting call; `finished` under offload_lock. */
struct internal_append {
    pst_broker *broker;
    bool finished;
};

static void internal_done(pst_produce_part *part) {
    struct internal_append *append = part->owner;
    pst_broker *broker = append->broker;
    pthread_mutex_lock(&broker->offload_lock);
    append->finished = true;
    pthread_cond_broadcast(&broker->offload_done);
    pthread_mutex_unlock(&broker->offload_lock);
}

static int append_queued(pst_broker *broker, pst_partition *partition, pst_append *append) {
    struct internal_append internal = {.broker = broker};
    pst_produce_part part = {
        .partition = partition,
        .done = internal_done,
        .owner = &internal,
        .data = append->data,
        .size = append->size,
        .view = append->view,
        .from_control_plane = true,
        .base_offset = -1,
    };
    pst_produce__offload(broker, &part);
    pthread_mutex_lock(&broker->offload_lock);
    while (!internal.finished) {
        pthread_cond_wait(&broker->offload_done, &broker->offload_lock);
    }
    pthread_mutex_unlock(&broker->offload_lock);
    append->base_offset = part.base_offset;
    return part.rc;
}

static int append_internal(pst_broker *broker, pst_partition *partition, uint8_t *batch,
                           size_t size, int64_t *base_offset_out) {
    pst_append append = {.data = batch, .size = size, .from_control_plane = true};
    PST_TRY(pst_batch_parse(pst_slice_of(batch, size), &append.view));
    if (append.view.size != size) {
        return -PST_EMALFORMED;
    }
    PST_TRY(pst_batch_check_crc(&append.view));
    int rc = -PST_EAGAIN;
    if (atomic_load_explicit(&partition->offload_count, memory_order_acquire) == 0) {
        rc = pst_log_append(partition->log, &append, 1, pst_wall_ms());
        if (rc == 0) {
            pst_partition__appended(broker, partition, NULL);
            rc = append.rc == -PST_EDUPLICATE ? 0 : append.rc;
        }
    }
    if (rc == -PST_EAGAIN) {
        rc = append_queued(broker, partition, &append);
    }
    if (rc == 0) {
        *base_offset_out = append.base_offset;
    }
    return rc;
}

int pst_broker_append(pst_broker *broker, const pst_uuid *topic_id, int32_t partition_index,
                      uint8_t *batch, size_t size, int64_t *base_offset_out) {
    *base_offset_out = -1;
    int rc;
    pst_partition *partition = find_locked(broker, topic_id, partition_index, &rc);
    if (partition != NULL) {
        rc = append_internal(broker, partition, batch, size, base_offset_out);
        pst_partition__unref(partition);
    }
    return rc;
}

int pst_broker_get_offsets(pst_broker *broker, const pst_uuid *topic_id, int32_t partition_index,
                           pst_log_offsets *offsets_out) {
    *offsets_out = (pst_log_offsets){0};
    int rc;
    pst_partition *partition = find_locked(broker, topic_id, partition_index, &rc);
    if (partition != NULL) {
        pst_log_get_offsets(partition->log, offsets_out);
        pst_partition__unref(partition);
    }
    return rc;
}

int pst_broker_delete_records(pst_broker *broker, const pst_uuid *topic_id, int32_t partition_index,
                              int64_t offset, int64_t *log_start_out) {
    *log_start_out = -1;
    int rc;
    pst_partition *partition = find_locked(broker, topic_id, partition_index, &rc);
    if (partition != NULL) {
        rc = pst_log_delete_records(partition->log, offset, log_start_out);
        pst_partition__wake(broker, partition, NULL);
        pst_partition__unref(partition);
    }
    return rc;
}

int pst_broker_log_size(pst_broker *broker, const pst_uuid *topic_id, int32_t partition_index,
                        int64_t *size_out) {
    *size_out = 0;
    int rc;
    pst_partition *partition = find_locked(broker, topic_id, partition_index, &rc);
    if (partition != NULL) {
        *size_out = pst_log_size(partition->log);
        pst_partition__unref(partition);
    }
    return rc;
}

/* ---- reading ---- */

/* The bytes of a range of a segment, at most `capacity`. */
static int copy_range(const pst_file_range *range, uint8_t *buffer, size_t capacity,
                      size_t *size_out) {
    size_t wanted = (uint64_t)range->size < capacity ? (size_t)range->size : capacity;
    size_t done = 0;
    while (done < wanted) {
        ssize_t got = pread(range->file->fd, buffer + done, wanted - done,
                            (off_t)(range->pos + (int64_t)done));
        if (got <= 0) {
            return -PST_EIO;
        }
        done += (size_t)got;
    }
    *size_out = done;
    return 0;
}

/* Bytes of the whole batches at the start of `bytes`. When not even the first is whole: 0, and its
 * size. */
static size_t whole_batches(pst_slice bytes, size_t *first_size_out) {
    size_t at = 0;
    pst_batch batch;
    *first_size_out = 0;
    while (pst_batch_header(pst_slice_of(bytes.data + at, bytes.size - at), &batch) == 0) {
        if (at == 0) {
            *first_size_out = batch.size;
        }
        if (batch.size > bytes.size - at) {
            break;
        }
        at += batch.size;
    }
    return at;
}

static int read_partition(pst_partition *partition, int64_t offset, uint8_t *buffer,
                          size_t capacity, size_t *size_out) {
    pst_log_offsets offsets;
    pst_log_get_offsets(partition->log, &offsets);
    pst_log_read_request request = {
        .copy_buffer = buffer,
        .copy_capacity = capacity,
        .fetch_offset = offset,
        .end_offset = offsets.log_end,
        .max_bytes = (int64_t)capacity,
        .may_block = true,
    };
    pst_log_slice slice;
    PST_TRY(pst_log_read(partition->log, &request, &slice));
    size_t size = slice.copied;
    if (slice.range.file != NULL) {
        int rc = copy_range(&slice.range, buffer, capacity, &size);
        (void)pst_file_unref(slice.range.file);
        PST_TRY(rc);
    }
    size_t first_size;
    *size_out = whole_batches(pst_slice_of(buffer, size), &first_size);
    if (*size_out == 0 && offset < offsets.log_end) {
        *size_out = first_size;
        return -PST_ETOOLARGE;
    }
    return 0;
}

int pst_broker_read(pst_broker *broker, const pst_uuid *topic_id, int32_t partition_index,
                    int64_t offset, uint8_t *buffer, size_t capacity, size_t *size_out) {
    *size_out = 0;
    int rc;
    pst_partition *partition = find_locked(broker, topic_id, partition_index, &rc);
    if (partition != NULL) {
        rc = read_partition(partition, offset, buffer, capacity, size_out);
        pst_partition__unref(partition);
    }
    return rc;
}

/* ---- retention ---- */

/* Owner: the job. Each partition is a counted reference. */
struct retention {
    pst_job job;
    pst_broker *broker;
    int32_t count;
    pst_partition *partitions[];
};

static void run_retention(pst_job *job) {
    struct retention *retention = PST_CONTAINER_OF(job, struct retention, job);
    pst_broker *broker = retention->broker;
    for (int32_t i = 0; i < retention->count; i++) {
        pst_partition *partition = retention->partitions[i];
        bool skip = atomic_load_explicit(&broker->stopping, memory_order_relaxed) ||
                    atomic_load_explicit(&partition->deleted, memory_order_relaxed);
        atomic_fetch_add(&broker->io_active, 1);
        if (!skip) {
            /* A failure took the directory offline; the next append says so. */
            (void)pst_log_apply_retention(partition->log, pst_wall_ms());
        }
        atomic_fetch_sub(&broker->io_active, 1);
        pst_partition__unref(partition);
    }
    free(retention);
    pthread_mutex_lock(&broker->offload_lock);
    broker->retention_running = false;
    broker->offload_pending--;
    pthread_cond_broadcast(&broker->offload_done);
    pthread_mutex_unlock(&broker->offload_lock);
}

static struct retention *plan_retention(pst_broker *broker) {
    const pst_image *image = pst_broker__image(broker);
    size_t total = 0;
    for (int32_t i = 0; i < pst_image__topic_count(image); i++) {
        total += (size_t)pst_image__topic_at(image, i)->partition_count;
    }
    struct retention *retention = malloc(sizeof *retention + total * sizeof(pst_partition *));
    if (retention == NULL) {
        return NULL;
    }
    *retention = (struct retention){.job = {.run = run_retention}, .broker = broker};
    for (int32_t i = 0; i < pst_image__topic_count(image); i++) {
        const pst_topic *topic = pst_image__topic_at(image, i);
        for (int32_t k = 0; k < topic->partition_count; k++) {
            if (topic->partitions[k]->log != NULL) {
                retention->partitions[retention->count++] =
                    pst_partition__ref(topic->partitions[k]);
            }
        }
    }
    return retention;
}

void pst_broker_start_retention(pst_broker *broker) {
    pthread_mutex_lock(&broker->control_lock);
    pst_image__reclaim(broker, false);
    pthread_mutex_lock(&broker->offload_lock);
    bool busy = broker->retention_running;
    pthread_mutex_unlock(&broker->offload_lock);
    /* A round that still runs does the work of this one. */
    struct retention *retention = busy ? NULL : plan_retention(broker);
    if (retention != NULL) {
        pthread_mutex_lock(&broker->offload_lock);
        broker->retention_running = true;
        broker->offload_pending++;
        pthread_mutex_unlock(&broker->offload_lock);
        pst_iopool_submit(broker->settings.iopool, &retention->job);
    }
    pthread_mutex_unlock(&broker->control_lock);
}
