/* broker/broker.c - the room's life: creation, attachment to the reactors, closing of logs, round
 * callbacks, numbers.
 *
 * Owner: the engine creates and destroys on one thread; callbacks run on reactors. Layer: broker.
 * Deliberately serves no request: dispatch.c does. */
#include "broker/broker.h"

#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"
#include "broker/broker_private.h"

_Static_assert(PST_BROKER_REACTORS_MAX <= 64, "one bit per reactor in pst_partition.waiters");

int pst_broker_create(const pst_broker_settings *settings, pst_broker **broker_out) {
    *broker_out = NULL;
    pst_broker *broker = calloc(1, sizeof *broker);
    if (broker == NULL) {
        return -PST_ENOMEM;
    }
    broker->settings = *settings;
    pthread_mutex_init(&broker->offload_lock, NULL);
    pthread_cond_init(&broker->offload_done, NULL);
    pthread_mutex_init(&broker->control_lock, NULL);
    if (getrandom(&broker->hash_seed, sizeof broker->hash_seed, GRND_NONBLOCK) !=
        (ssize_t)sizeof broker->hash_seed) {
        broker->hash_seed = (uint64_t)pst_monotonic_ns() ^ (uint64_t)(uintptr_t)broker;
    }
    int rc = pst_image__init(broker);
    if (rc == 0) {
        rc = pst_broker__api_versions_init(broker);
    }
    if (rc == 0) {
        rc = pst_fetch__broker_create(broker);
    }
    if (rc < 0) {
        pst_broker_destroy(broker);
        return rc;
    }
    *broker_out = broker;
    return 0;
}

int pst_broker_attach_net(pst_broker *broker, pst_net *net) {
    int count = pst_net_reactor_count(net);
    if (count > PST_BROKER_REACTORS_MAX) {
        return -PST_ELIMIT;
    }
    broker->settings.net = net;
    for (int i = 0; i < count; i++) {
        pst_shard *shard = &broker->shards[i];
        shard->broker = broker;
        shard->reactor = pst_net_reactor(net, i);
        shard->index = i;
        pst_list_init(&shard->held);
        shard->drained_note.run = pst_broker__offer_held;
        broker->shard_count = i + 1;
        PST_TRY(pst_produce__create(shard));
        PST_TRY(pst_fetch__create(shard));
        pst_reactor_set_context(shard->reactor, shard);
    }
    atomic_store_explicit(&broker->attached, count, memory_order_release);
    return 0;
}

/* ---- parallel work on the I/O pool ---- */

enum { PARALLEL_JOBS = 16 };

/* Owner: the waiting call; `next` by any worker, `running` under `lock`. */
struct parallel {
    void (*run)(void *context, int32_t i);
    void *context;
    pst_broker *broker;
    int32_t count;
    atomic_int next;
    pthread_mutex_t lock;
    pthread_cond_t done;
    int running;
};

struct parallel_job {
    pst_job job;
    struct parallel *parallel;
};

static void run_parallel(pst_job *job) {
    struct parallel *parallel = PST_CONTAINER_OF(job, struct parallel_job, job)->parallel;
    atomic_fetch_add(&parallel->broker->io_active, 1);
    for (;;) {
        int32_t i = atomic_fetch_add_explicit(&parallel->next, 1, memory_order_relaxed);
        if (i >= parallel->count) {
            break;
        }
        parallel->run(parallel->context, i);
    }
    atomic_fetch_sub(&parallel->broker->io_active, 1);
    pthread_mutex_lock(&parallel->lock);
    if (--parallel->running == 0) {
        pthread_cond_signal(&parallel->done);
    }
    pthread_mutex_unlock(&parallel->lock);
}

void pst_broker__parallel(pst_broker *broker, int32_t count, void (*run)(void *context, int32_t i),
                          void *context) {
    if (count == 0) {
        return;
    }
    struct parallel parallel = {.run = run, .context = context, .broker = broker, .count = count};
    struct parallel_job jobs[PARALLEL_JOBS];
    pst_iopool_statistics pool;
    pst_iopool_get_statistics(broker->settings.iopool, &pool);
    int job_count = pool.threads < PARALLEL_JOBS ? pool.threads : PARALLEL_JOBS;
    job_count = job_count < count ? job_count : (int)count;
    pthread_mutex_init(&parallel.lock, NULL);
    pthread_cond_init(&parallel.done, NULL);
    parallel.running = job_count;
    for (int i = 0; i < job_count; i++) {
        jobs[i] = (struct parallel_job){.job = {.run = run_parallel}, .parallel = &parallel};
        pst_iopool_submit(broker->settings.iopool, &jobs[i].job);
    }
    pthread_mutex_lock(&parallel.lock);
    while (parallel.running != 0) {
        pthread_cond_wait(&parallel.done, &parallel.lock);
    }
    pthread_mutex_unlock(&parallel.lock);
    pthread_cond_destroy(&parallel.done);
    pthread_mutex_destroy(&parallel.lock);
}

/* ---- the end ---- */

static void close_log(void *context, int32_t i) {
    pst_partition *partition = ((pst_partition **)context)[i];
    (void)pst_log_close(
        partition->log); /* a failure took the directory offline: no clean marker then */
    partition->log = NULL;
}

/* Partitions of the image that have a log, as an array of `*count_out`; NULL when out of memory. */
static pst_partition **open_partitions(const pst_image *image, int32_t *count_out) {
    size_t total = 0;
    for (int32_t i = 0; i < pst_image__topic_count(image); i++) {
        total += (size_t)pst_image__topic_at(image, i)->partition_count;
    }
    *count_out = 0;
    pst_partition **partitions = malloc((total + 1) * sizeof partitions[0]);
    for (int32_t i = 0; partitions != NULL && i < pst_image__topic_count(image); i++) {
        const pst_topic *topic = pst_image__topic_at(image, i);
        for (int32_t k = 0; k < topic->partition_count; k++) {
            if (topic->partitions[k]->log != NULL) {
                partitions[(*count_out)++] = topic->partitions[k];
            }
        }
    }
    return partitions;
}

static void tear_down_shards(pst_broker *broker) {
    atomic_store_explicit(&broker->attached, 0, memory_order_release);
    for (int i = 0; i < broker->shard_count; i++) {
        pst_shard *shard = &broker->shards[i];
        pst_broker__drop_held(shard);
        if (shard->fetch != NULL) {
            pst_fetch__destroy(shard);
            shard->fetch = NULL;
        }
        if (shard->produce != NULL) {
            pst_produce__destroy(shard);
            shard->produce = NULL;
        }
        pst_byte_buffer_fini(&shard->scratch);
    }
    broker->shard_count = 0;
    if (broker->fetch_sessions != NULL) {
        pst_fetch__broker_destroy(broker);
        broker->fetch_sessions = NULL;
    }
}

static void wait_for_offloaded(pst_broker *broker) {
    pthread_mutex_lock(&broker->offload_lock);
    while (broker->offload_pending != 0 || broker->closing != 0) {
        pthread_cond_wait(&broker->offload_done, &broker->offload_lock);
    }
    pthread_mutex_unlock(&broker->offload_lock);
}

int pst_broker_close_logs(pst_broker *broker) {
    atomic_store_explicit(&broker->stopping, true, memory_order_relaxed);
    pthread_mutex_lock(&broker->control_lock);
    wait_for_offloaded(broker);
    if (broker->settings.net != NULL) {
        pst_net_run_notes(broker->settings.net); /* of the appends that were waited for */
    }
    tear_down_shards(broker);
    pst_image__reclaim(broker, true);
    wait_for_offloaded(broker);
    int32_t count;
    pst_partition **partitions = open_partitions(pst_broker__image(broker), &count);
    if (partitions != NULL) {
        pst_broker__parallel(broker, count, close_log, partitions);
        free(partitions);
        broker->logs_closed = true;
    }
    pthread_mutex_unlock(&broker->control_lock);
    return partitions != NULL ? 0 : -PST_ENOMEM;
}

void pst_broker_destroy(pst_broker *broker) {
    if (broker == NULL) {
        return;
    }
    const pst_image *image = pst_broker__image(broker);
    if (image != NULL) {
        if (!broker->logs_closed) {
            (void)pst_broker_close_logs(broker);
        }
        pst_image__destroy((pst_image *)(uintptr_t)image);
        wait_for_offloaded(broker);
    } else {
        tear_down_shards(broker);
    }
    pst_broker__api_versions_fini(broker);
    pthread_mutex_destroy(&broker->control_lock);
    pthread_cond_destroy(&broker->offload_done);
    pthread_mutex_destroy(&broker->offload_lock);
    free(broker);
}

void pst_broker_get_statistics(pst_broker *broker, pst_broker_statistics *statistics_out) {
    *statistics_out = (pst_broker_statistics){0};
    for (int i = 0; i < PST_BROKER_REACTORS_MAX; i++) {
        pst_shard *shard = &broker->shards[i];
#define ADD(field) \
    statistics_out->field += atomic_load_explicit(&shard->field, memory_order_relaxed)
        ADD(requests);
        ADD(produce_requests);
        ADD(produce_batches);
        ADD(produce_bytes);
        ADD(fetch_requests);
        ADD(fetch_bytes);
        ADD(fetches_parked);
        ADD(offloaded_appends);
#undef ADD
    }
    statistics_out->fetch_sessions = pst_fetch__session_count(broker);
}
