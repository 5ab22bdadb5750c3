/* broker/offload.c - appends that must leave the reactor: first in first out per partition, drained
 * by I/O threads.
 *
 * Owner: the queues are under broker->offload_lock; a drained part belongs to the draining job
 * until `done`. Layer: broker. Deliberately one job per partition at a time: that is what keeps the
 * order, and what pst_log_prepare asks for.
 *
 * (1) `offload_count` goes up before a part is queued and down (release) after its append.
 * (2) A job takes what is queued, up to DRAIN_PARTS, opens records where needed, and appends all of
 * it at once; a log that cannot take it is prepared and asked again, then batch by batch. */
#include "base/clock.h"
#include "broker/produce_private.h"
#include "wire/error_codes.h"

enum {
    DRAIN_PARTS = 64,
    PREPARE_TRIES = 4,
};

void pst_produce__set_failure(pst_produce_part *part, int rc, int64_t log_start_offset) {
    part->rc = rc;
    part->error = pst_broker__kafka_error(rc);
    if (rc == -PST_ESEQUENCE || rc == -PST_EPRODUCEREPOCH || rc == -PST_ERECORD ||
        rc == -PST_ETIMESTAMP) {
        part->log_start_offset = log_start_offset;
    }
}

void pst_produce__set_result(pst_produce_part *part, const pst_append *append,
                             int64_t log_start_offset) {
    if (append->rc < 0 && append->rc != -PST_EDUPLICATE) {
        pst_produce__set_failure(part, append->rc, log_start_offset);
        return;
    }
    part->base_offset = append->base_offset;
    part->log_append_time_ms = append->log_append_time_ms;
    part->log_start_offset = log_start_offset;
}

/* Appends as many as fit at once; the results are in `appends`. */
static int append_prepared(pst_log *log, pst_append *appends, int count) {
    size_t size = 0;
    for (int i = 0; i < count; i++) {
        size += appends[i].size;
    }
    int rc = -PST_EAGAIN;
    for (int i = 0; i < PREPARE_TRIES && rc == -PST_EAGAIN; i++) {
        int64_t now_ms = pst_wall_ms();
        if (i > 0) {
            PST_TRY(pst_log_prepare(log, size, now_ms));
        }
        rc = pst_log_append(log, appends, count, now_ms);
    }
    return rc;
}

static void append_all(pst_log *log, pst_append *appends, int count) {
    int rc = append_prepared(log, appends, count);
    if (rc == -PST_EAGAIN && count > 1) {
        /* More than one segment holds: one after the other. */
        for (int i = 0; i < count; i++) {
            int one = append_prepared(log, &appends[i], 1);
            appends[i].rc = one < 0 ? one : appends[i].rc;
        }
        return;
    }
    for (int i = 0; rc < 0 && i < count; i++) {
        appends[i].rc = rc;
    }
}

/* Appends the parts that have no error yet. */
static void append_parts(pst_partition *partition, pst_produce_part **parts, int count) {
    pst_append appends[DRAIN_PARTS];
    int used = 0;
    int64_t now_ms = pst_wall_ms();
    for (int i = 0; i < count; i++) {
        if (parts[i]->needs_records) {
            pst_produce__open_records(parts[i], now_ms);
        }
        if (parts[i]->error == PST_KAFKA_NONE) {
            appends[used++] = pst_produce__append_of(parts[i]);
        }
    }
    if (used > 0) {
        append_all(partition->log, appends, used);
        pst_partition__appended(partition->broker, partition, NULL);
    }
    pst_log_offsets offsets;
    pst_log_get_offsets(partition->log, &offsets);
    int at = 0;
    for (int i = 0; i < count; i++) {
        if (parts[i]->error == PST_KAFKA_NONE) {
            pst_produce__set_result(parts[i], &appends[at++], offsets.log_start);
        }
    }
}

static void run_drain(pst_job *job) {
    pst_partition *partition = PST_CONTAINER_OF(job, pst_partition, drain_job);
    pst_broker *broker = partition->broker;
    pst_produce_part *parts[DRAIN_PARTS];
    int count = 0;
    pthread_mutex_lock(&broker->offload_lock);
    while (count < DRAIN_PARTS && !pst_list_empty(&partition->offloaded)) {
        pst_list *link = pst_list_pop_front(&partition->offloaded);
        parts[count++] = PST_CONTAINER_OF(link, pst_produce_part, link);
    }
    pthread_mutex_unlock(&broker->offload_lock);

    atomic_fetch_add(&broker->io_active, 1);
    append_parts(partition, parts, count);
    atomic_fetch_sub(&broker->io_active, 1);
    atomic_fetch_sub_explicit(&partition->offload_count, count, memory_order_release);
    for (int i = 0; i < count; i++) {
        parts[i]->done(parts[i]);
    }

    pthread_mutex_lock(&broker->offload_lock);
    bool more = !pst_list_empty(&partition->offloaded);
    partition->draining = more;
    broker->offload_pending -= count;
    pthread_cond_broadcast(&broker->offload_done);
    pthread_mutex_unlock(&broker->offload_lock);
    if (more) {
        /* Behind the jobs of other partitions: a busy one does not keep a thread. */
        pst_iopool_submit(broker->settings.iopool, &partition->drain_job);
    } else {
        pst_partition__unref(partition);
    }
}

void pst_produce__offload(pst_broker *broker, pst_produce_part *part) {
    pst_partition *partition = part->partition;
    pthread_mutex_lock(&broker->offload_lock);
    atomic_fetch_add_explicit(&partition->offload_count, 1, memory_order_relaxed);
    broker->offload_pending++;
    pst_list_push_back(&partition->offloaded, &part->link);
    bool idle = !partition->draining;
    partition->draining = true;
    pthread_mutex_unlock(&broker->offload_lock);
    if (idle) {
        pst_partition__ref(partition); /* of the job */
        partition->drain_job.run = run_drain;
        pst_iopool_submit(broker->settings.iopool, &partition->drain_job);
    }
}
