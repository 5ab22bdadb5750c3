/* broker/publish.c - deltas from the control plane become the next image: logs are opened, deleted
 * and told their configuration here.
 *
 * Owner: the control thread, under control_lock. Layer: broker.
 * Deliberately decides nothing: names, ids and configurations were validated by Python.
 *
 * Order of one call: removed partitions are marked and their logs renamed away; new logs are
 * opened; the new image is stored; logs learn their configuration; waiters of removed partitions
 * are woken; old images are reclaimed. */
#include <stdlib.h>

#include "broker/broker_private.h"

int pst_broker_publish_cluster(pst_broker *broker, const pst_cluster_spec *spec) {
    struct pst_cluster *cluster = pst_cluster__create(spec);
    if (cluster == NULL) {
        return -PST_ENOMEM;
    }
    pthread_mutex_lock(&broker->control_lock);
    const pst_image *old = pst_broker__image(broker);
    int32_t count = pst_image__topic_count(old);
    pst_topic **topics = malloc(((size_t)count + 1) * sizeof topics[0]);
    pst_image *image = NULL;
    if (topics != NULL) {
        for (int32_t i = 0; i < count; i++) {
            topics[i] = pst_image__topic_at(old, i);
        }
        image = pst_image__create(broker, cluster, topics, count);
        free(topics);
    }
    if (image != NULL) {
        pst_image__publish(broker, image);
    }
    pthread_mutex_unlock(&broker->control_lock);
    pst_cluster__unref(cluster);
    return image != NULL ? 0 : -PST_ENOMEM;
}

/* One partition whose log is to be opened or deleted. */
struct log_work {
    pst_partition *partition;
    const pst_topic *topic;
    int32_t dir_index;
};

/* Owner: the publishing call. */
struct publication {
    pst_broker *broker;
    const pst_image *old;
    pst_topic **fresh; /* upserted topics, one reference each */
    int32_t fresh_count;
    pst_topic **topics; /* of the next image */
    int32_t topic_count;
    struct log_work *opens;
    int32_t open_count;
    struct log_work *deletes;
    int32_t delete_count;
    atomic_int failed;
};

static void open_log(void *context, int32_t i) {
    struct publication *publication = context;
    struct log_work *work = &publication->opens[i];
    pst_log_spec spec = {
        .storage = publication->broker->settings.storage,
        .dir_index = work->dir_index,
        .topic = pst_slice_of(work->topic->name, (size_t)work->topic->name_size),
        .partition = work->partition->index,
        .topic_id = work->topic->id,
        .leader_epoch = work->partition->leader_epoch,
        .config = work->topic->config,
    };
    pst_log *log;
    if (pst_log_open(&spec, &log) < 0) {
        atomic_store_explicit(&work->partition->failed, true, memory_order_release);
        atomic_fetch_add_explicit(&publication->failed, 1, memory_order_relaxed);
        return;
    }
    work->partition->log = log;
    /* One replica: whatever recovery kept is committed. */
    pst_log_offsets offsets;
    pst_log_get_offsets(log, &offsets);
    pst_log_advance_high_watermark(log, offsets.log_end);
}

static void delete_log(void *context, int32_t i) {
    struct publication *publication = context;
    /* A failure took the directory offline; the topic is gone from the image all the same. */
    (void)pst_log_delete(publication->deletes[i].partition->log);
}

static bool is_removed(const pst_uuid *id, const pst_uuid *removed, int32_t removed_count) {
    for (int32_t i = 0; i < removed_count; i++) {
        if (pst_uuid_eq(id, &removed[i])) {
            return true;
        }
    }
    return false;
}

static int plan_deletes(struct publication *publication, const pst_uuid *removed,
                        int32_t removed_count) {
    int32_t total = 0;
    for (int32_t i = 0; i < removed_count; i++) {
        const pst_topic *topic = pst_image__topic_by_id(publication->old, &removed[i]);
        total += topic != NULL ? topic->partition_count : 0;
    }
    publication->deletes = malloc(((size_t)total + 1) * sizeof publication->deletes[0]);
    if (publication->deletes == NULL) {
        return -PST_ENOMEM;
    }
    for (int32_t i = 0; i < removed_count; i++) {
        const pst_topic *topic = pst_image__topic_by_id(publication->old, &removed[i]);
        for (int32_t k = 0; topic != NULL && k < topic->partition_count; k++) {
            pst_partition *partition = topic->partitions[k];
            bool seen = atomic_exchange_explicit(&partition->deleted, true, memory_order_seq_cst);
            if (!seen && partition->log != NULL) {
                struct log_work *work = &publication->deletes[publication->delete_count++];
                *work = (struct log_work){.partition = partition, .topic = topic};
            }
        }
    }
    return 0;
}

/* Fills the partitions of a new topic object: those of `old` are shared, the others are created and
 * planned. */
static int fill_topic(struct publication *publication, pst_topic *topic, const pst_topic *old,
                      const pst_topic_spec *spec) {
    for (int32_t i = 0; i < topic->partition_count; i++) {
        if (old != NULL && i < old->partition_count) {
            topic->partitions[i] = pst_partition__ref(old->partitions[i]);
            continue;
        }
        const pst_partition_spec *from = &spec->partitions[i];
        pst_partition *partition = pst_partition__create(publication->broker, from->index,
                                                         from->leader, from->leader_epoch);
        if (partition == NULL) {
            return -PST_ENOMEM;
        }
        topic->partitions[i] = partition;
        publication->opens[publication->open_count++] =
            (struct log_work){.partition = partition, .topic = topic, .dir_index = from->dir_index};
    }
    return 0;
}

static int plan_upserts(struct publication *publication, const pst_topic_spec *specs,
                        int32_t spec_count) {
    int64_t partitions = 0;
    for (int32_t i = 0; i < spec_count; i++) {
        partitions += specs[i].partition_count;
    }
    publication->fresh = calloc((size_t)spec_count + 1, sizeof publication->fresh[0]);
    publication->opens = malloc(((size_t)partitions + 1) * sizeof publication->opens[0]);
    if (publication->fresh == NULL || publication->opens == NULL) {
        return -PST_ENOMEM;
    }
    for (int32_t i = 0; i < spec_count; i++) {
        const pst_topic *old = pst_image__topic_by_id(publication->old, &specs[i].id);
        if (old != NULL && old->partition_count > specs[i].partition_count) {
            return -PST_EINVAL; /* Kafka never takes partitions away. */
        }
        pst_topic *topic = pst_topic__create(&specs[i], old);
        if (topic == NULL) {
            return -PST_ENOMEM;
        }
        publication->fresh[publication->fresh_count++] = topic;
        PST_TRY(fill_topic(publication, topic, old, &specs[i]));
    }
    return 0;
}

static int compare_ids(const void *a, const void *b) {
    const pst_topic *x = *(pst_topic *const *)a;
    const pst_topic *y = *(pst_topic *const *)b;
    return memcmp(x->id.bytes, y->id.bytes, sizeof x->id.bytes);
}

/* The topics of the next image: the old ones that are neither removed nor replaced, and the fresh
 * ones. */
static int plan_topics(struct publication *publication, const pst_uuid *removed,
                       int32_t removed_count) {
    int32_t old_count = pst_image__topic_count(publication->old);
    size_t room = (size_t)old_count + (size_t)publication->fresh_count + 1;
    publication->topics = malloc(room * sizeof publication->topics[0]);
    if (publication->topics == NULL) {
        return -PST_ENOMEM;
    }
    size_t fresh_count = (size_t)publication->fresh_count;
    qsort(publication->fresh, fresh_count, sizeof publication->fresh[0], compare_ids);
    for (int32_t i = 0; i < old_count; i++) {
        pst_topic *topic = pst_image__topic_at(publication->old, i);
        bool replaced = bsearch(&topic, publication->fresh, fresh_count,
                                sizeof publication->fresh[0], compare_ids) != NULL;
        if (!replaced && !is_removed(&topic->id, removed, removed_count)) {
            publication->topics[publication->topic_count++] = topic;
        }
    }
    for (int32_t i = 0; i < publication->fresh_count; i++) {
        publication->topics[publication->topic_count++] = publication->fresh[i];
    }
    return 0;
}

/* The old blocks are freed with their image, after the logs have left them. */
static void tell_configurations(struct publication *publication) {
    for (int32_t i = 0; i < publication->fresh_count; i++) {
        const pst_topic *topic = publication->fresh[i];
        const pst_topic *old = pst_image__topic_by_id(publication->old, &topic->id);
        for (int32_t k = 0; old != NULL && old->config != topic->config && k < old->partition_count;
             k++) {
            if (topic->partitions[k]->log != NULL) {
                pst_log_set_config(topic->partitions[k]->log, topic->config);
            }
        }
    }
}

static void wake_removed(struct publication *publication, const pst_uuid *removed,
                         int32_t removed_count) {
    for (int32_t i = 0; i < removed_count; i++) {
        const pst_topic *topic = pst_image__topic_by_id(publication->old, &removed[i]);
        for (int32_t k = 0; topic != NULL && k < topic->partition_count; k++) {
            pst_partition__wake(publication->broker, topic->partitions[k], NULL);
        }
    }
}

static int publish(struct publication *publication, const pst_topic_spec *topics,
                   int32_t topic_count, const pst_uuid *removed, int32_t removed_count) {
    pst_broker *broker = publication->broker;
    PST_TRY(plan_upserts(publication, topics, topic_count));
    PST_TRY(plan_topics(publication, removed, removed_count));
    PST_TRY(plan_deletes(publication, removed, removed_count));
    pst_broker__parallel(broker, publication->delete_count, delete_log, publication);
    pst_broker__parallel(broker, publication->open_count, open_log, publication);
    pst_image *image = pst_image__create(broker, pst_image__cluster_block(publication->old),
                                         publication->topics, publication->topic_count);
    if (image == NULL) {
        return -PST_ENOMEM;
    }
    tell_configurations(publication);
    pst_image__publish(broker, image);
    wake_removed(publication, removed, removed_count);
    return 0;
}

int pst_broker_publish_topics(pst_broker *broker, const pst_topic_spec *topics, int32_t topic_count,
                              const pst_uuid *removed, int32_t removed_count, int32_t *failed_out) {
    *failed_out = 0;
    pthread_mutex_lock(&broker->control_lock);
    struct publication publication = {.broker = broker, .old = pst_broker__image(broker)};
    int rc = publish(&publication, topics, topic_count, removed, removed_count);
    *failed_out = atomic_load(&publication.failed);
    /* The image holds its own references; after a failure these are the last, and the logs close
     * again. */
    for (int32_t i = 0; i < publication.fresh_count; i++) {
        pst_topic__unref(publication.fresh[i]);
    }
    free(publication.fresh);
    free(publication.topics);
    free(publication.opens);
    free(publication.deletes);
    pst_image__reclaim(broker, false);
    pthread_mutex_unlock(&broker->control_lock);
    return rc;
}
