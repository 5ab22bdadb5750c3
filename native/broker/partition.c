/* broker/partition.c - the partition object: references, news for waiters.
 *
 * Owner: any thread refs and unrefs; the rest as the struct says. Layer: broker.
 * Deliberately holds no records and no policy: the log has those. */
#include <stdlib.h>

#include "broker/broker_private.h"

pst_partition *pst_partition__create(pst_broker *broker, int32_t index, int32_t leader,
                                     int32_t leader_epoch) {
    pst_partition *partition = calloc(1, sizeof *partition);
    if (partition == NULL) {
        return NULL;
    }
    atomic_init(&partition->refs, 1);
    partition->index = index;
    partition->leader = leader;
    partition->leader_epoch = leader_epoch;
    partition->broker = broker;
    pst_list_init(&partition->offloaded);
    return partition;
}

pst_partition *pst_partition__ref(pst_partition *partition) {
    atomic_fetch_add_explicit(&partition->refs, 1, memory_order_relaxed);
    return partition;
}

static void run_close(pst_job *job) {
    pst_partition *partition = PST_CONTAINER_OF(job, pst_partition, drain_job);
    pst_broker *broker = partition->broker;
    (void)pst_log_close(
        partition->log); /* a failure took the directory offline; nobody is left to tell */
    free(partition);
    pthread_mutex_lock(&broker->offload_lock);
    broker->closing--;
    pthread_cond_broadcast(&broker->offload_done);
    pthread_mutex_unlock(&broker->offload_lock);
}

void pst_partition__unref(pst_partition *partition) {
    if (partition == NULL ||
        atomic_fetch_sub_explicit(&partition->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    PST_ASSERT(pst_list_empty(&partition->offloaded) && !partition->draining);
    if (partition->log == NULL) {
        free(partition);
        return;
    }
    pst_broker *broker = partition->broker;
    pthread_mutex_lock(&broker->offload_lock);
    broker->closing++;
    pthread_mutex_unlock(&broker->offload_lock);
    partition->drain_job.run = run_close;
    pst_iopool_submit(broker->settings.iopool, &partition->drain_job);
}

void pst_partition__wake(pst_broker *broker, pst_partition *partition, pst_shard *shard) {
    /* Pairs with the waiter, which sets its bit, fences, and reads the ends again. */
    pst_broker__fence();
    uint64_t waiters = atomic_load_explicit(&partition->waiters, memory_order_acquire);
    while (waiters != 0) {
        int index = __builtin_ctzll(waiters);
        waiters &= waiters - 1;
        if (shard != NULL && shard->index == index) {
            pst_fetch__note_local(shard, partition);
        } else {
            pst_fetch__note_remote(broker, index, partition);
        }
    }
}

int pst_partition__end_of_epoch(const pst_partition *partition, int32_t epoch, int32_t *epoch_out,
                                int64_t *end_out) {
    *epoch_out = -1;
    *end_out = -1;
    if (epoch == -1 || epoch > partition->leader_epoch) {
        return 0;
    }
    pst_log_offsets offsets;
    pst_log_get_offsets(partition->log, &offsets);
    if (epoch == partition->leader_epoch) {
        *epoch_out = epoch;
        *end_out = offsets.log_end;
        return 0;
    }
    PST_TRY(pst_log_end_offset_for_epoch(partition->log, epoch, epoch_out, end_out));
    if (*epoch_out == -1) { /* behind the last one that has records */
        int32_t latest = pst_log_epoch_at(partition->log, offsets.log_end);
        *epoch_out = latest >= 0 ? latest : epoch;
        *end_out = offsets.log_end;
    }
    return 0;
}

void pst_partition__appended(pst_broker *broker, pst_partition *partition, pst_shard *shard) {
    /* With durability `os` and one replica, what is in the page cache is committed. */
    pst_log_offsets offsets;
    pst_log_get_offsets(partition->log, &offsets);
    pst_log_advance_high_watermark(partition->log, offsets.log_end);
    pst_partition__wake(broker, partition, shard);
}
