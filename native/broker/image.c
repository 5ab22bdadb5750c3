/* broker/image.c - the published image: topics by name, by id and in order; retired and reclaimed
 * by reactor epochs.
 *
 * Owner: an image is immutable once published; control_lock covers publication and reclaiming.
 * Layer: broker. Deliberately knows no logs: publish.c opens and deletes them.
 *
 * (1) A reactor uses an image, and every topic reached through it, only inside one round.
 * (2) An image is retired after its successor was stored. It is freed when each reactor was seen
 * outside a round (even epoch) or in another round than at retirement, and no I/O job of this room
 * is inside a log. Nobody waits for that: it is looked at when the next image is published, when
 * the control plane has emptied its ring, and before each round of retention. */
#include <stdlib.h>

#include "base/hash.h"
#include "broker/broker_private.h"

/* Owner: counted by images; immutable. The strings lie behind the struct. */
struct pst_cluster {
    atomic_int refs;
    pst_cluster_spec spec;
};

/* Owner: immutable after publication. One allocation. */
struct pst_image {
    struct pst_cluster *cluster;
    uint64_t seed;
    uint32_t mask; /* of both tables */
    int32_t topic_count;
    pst_topic **sorted;
    pst_topic **by_name; /* open addressing, linear probing, at most half full */
    pst_topic **by_id;
};

/* Owner: control_lock. */
struct pst_image_retired {
    struct pst_image_retired *next;
    const pst_image *image;
    uint64_t left; /* bit i: reactor i may still be inside */
    uint64_t epochs[PST_BROKER_REACTORS_MAX];
};

/* A configuration shared by the topics that replaced one another with it. Owner: counted. */
struct config_block {
    atomic_int refs;
    pst_log_config config;
};

/* ---- cluster ---- */

static char *put_string(char **at, const void *bytes, size_t size) {
    char *start = *at;
    memcpy(start, bytes, size);
    start[size] = '\0';
    *at += size + 1;
    return start;
}

struct pst_cluster *pst_cluster__create(const pst_cluster_spec *spec) {
    size_t endpoints_size = (size_t)spec->endpoint_count * sizeof(pst_endpoint);
    size_t size = sizeof(struct pst_cluster) + endpoints_size + spec->cluster_id.size + 1;
    size += spec->rack != NULL ? strlen(spec->rack) + 1 : 0;
    for (int32_t i = 0; i < spec->endpoint_count; i++) {
        size += strlen(spec->endpoints[i].host) + 1;
    }
    struct pst_cluster *cluster = malloc(size);
    if (cluster == NULL) {
        return NULL;
    }
    atomic_init(&cluster->refs, 1);
    cluster->spec = *spec;
    pst_endpoint *endpoints = (pst_endpoint *)(void *)(cluster + 1);
    char *at = (char *)endpoints + endpoints_size;
    cluster->spec.endpoints = endpoints;
    char *id = put_string(&at, spec->cluster_id.size > 0 ? (const void *)spec->cluster_id.data : "",
                          spec->cluster_id.size);
    cluster->spec.cluster_id = pst_slice_of(id, spec->cluster_id.size);
    if (spec->rack != NULL) {
        cluster->spec.rack = put_string(&at, spec->rack, strlen(spec->rack));
    }
    for (int32_t i = 0; i < spec->endpoint_count; i++) {
        endpoints[i] = spec->endpoints[i];
        endpoints[i].host =
            put_string(&at, spec->endpoints[i].host, strlen(spec->endpoints[i].host));
    }
    return cluster;
}

void pst_cluster__unref(struct pst_cluster *cluster) {
    if (cluster != NULL &&
        atomic_fetch_sub_explicit(&cluster->refs, 1, memory_order_acq_rel) == 1) {
        free(cluster);
    }
}

struct pst_cluster *pst_image__cluster_block(const pst_image *image) {
    return image->cluster;
}

const pst_cluster_spec *pst_image__cluster(const pst_image *image) {
    return &image->cluster->spec;
}

/* ---- topics ---- */

static struct config_block *config_block_of(pst_log_config *config) {
    return PST_CONTAINER_OF(config, struct config_block, config);
}

static pst_log_config *take_config(const pst_log_config *wanted, const pst_topic *old) {
    if (old != NULL && memcmp(old->config, wanted, sizeof *wanted) == 0) {
        atomic_fetch_add_explicit(&config_block_of(old->config)->refs, 1, memory_order_relaxed);
        return old->config;
    }
    struct config_block *block = malloc(sizeof *block);
    if (block == NULL) {
        return NULL;
    }
    atomic_init(&block->refs, 1);
    /* Copied whole, padding included, so that equality above can compare bytes. */
    memcpy(&block->config, wanted, sizeof *wanted);
    return &block->config;
}

static void drop_config(pst_log_config *config) {
    struct config_block *block = config_block_of(config);
    if (atomic_fetch_sub_explicit(&block->refs, 1, memory_order_acq_rel) == 1) {
        free(block);
    }
}

pst_topic *pst_topic__create(const pst_topic_spec *spec, const pst_topic *old) {
    size_t partitions_size = (size_t)spec->partition_count * sizeof(pst_partition *);
    if (spec->name.size > INT16_MAX) {
        return NULL;
    }
    pst_topic *topic = calloc(1, sizeof *topic + partitions_size + spec->name.size + 1);
    if (topic == NULL) {
        return NULL;
    }
    topic->config = take_config(&spec->config, old);
    if (topic->config == NULL) {
        free(topic);
        return NULL;
    }
    atomic_init(&topic->refs, 1);
    topic->id = spec->id;
    topic->is_internal = spec->is_internal;
    topic->partition_count = spec->partition_count;
    topic->partitions = (pst_partition **)(void *)(topic + 1);
    topic->name = (char *)(topic + 1) + partitions_size;
    topic->name_size = (int16_t)spec->name.size;
    memcpy(topic->name, spec->name.data, spec->name.size);
    return topic;
}

void pst_topic__unref(pst_topic *topic) {
    if (topic == NULL || atomic_fetch_sub_explicit(&topic->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (int32_t i = 0; i < topic->partition_count; i++) {
        pst_partition__unref(topic->partitions[i]);
    }
    drop_config(topic->config);
    free(topic);
}

/* ---- lookup ---- */

const pst_image *pst_broker__image(pst_broker *broker) {
    return atomic_load_explicit(&broker->image, memory_order_acquire);
}

pst_topic *pst_image__topic_by_name(const pst_image *image, pst_slice name) {
    uint32_t at = (uint32_t)pst_hash_bytes(name.data, name.size, image->seed) & image->mask;
    for (pst_topic *topic; (topic = image->by_name[at]) != NULL; at = (at + 1) & image->mask) {
        if (pst_slice_eq(name, pst_slice_of(topic->name, (size_t)topic->name_size))) {
            return topic;
        }
    }
    return NULL;
}

static uint64_t hash_id(const pst_uuid *id, uint64_t seed) {
    return pst_hash_bytes(id->bytes, sizeof id->bytes, seed);
}

pst_topic *pst_image__topic_by_id(const pst_image *image, const pst_uuid *id) {
    uint32_t at = (uint32_t)hash_id(id, image->seed) & image->mask;
    for (pst_topic *topic; (topic = image->by_id[at]) != NULL; at = (at + 1) & image->mask) {
        if (pst_uuid_eq(&topic->id, id)) {
            return topic;
        }
    }
    return NULL;
}

int32_t pst_image__topic_count(const pst_image *image) {
    return image->topic_count;
}

pst_topic *pst_image__topic_at(const pst_image *image, int32_t index) {
    return image->sorted[index];
}

/* ---- building ---- */

static int compare_names(const void *a, const void *b) {
    const pst_topic *x = *(pst_topic *const *)a;
    const pst_topic *y = *(pst_topic *const *)b;
    int16_t shorter = x->name_size < y->name_size ? x->name_size : y->name_size;
    int order = memcmp(x->name, y->name, (size_t)shorter);
    return order != 0 ? order : x->name_size - y->name_size;
}

static void insert(pst_topic **table, uint32_t mask, uint64_t hash, pst_topic *topic) {
    uint32_t at = (uint32_t)hash & mask;
    while (table[at] != NULL) {
        at = (at + 1) & mask;
    }
    table[at] = topic;
}

pst_image *pst_image__create(pst_broker *broker, struct pst_cluster *cluster, pst_topic **topics,
                             int32_t topic_count) {
    size_t slots = 4;
    while (slots < (size_t)topic_count * 2) {
        slots *= 2;
    }
    size_t pointers = (size_t)topic_count + 2 * slots;
    pst_image *image = calloc(1, sizeof *image + pointers * sizeof(pst_topic *));
    if (image == NULL) {
        return NULL;
    }
    bool in_order = true;
    for (int32_t i = 1; i < topic_count && in_order; i++) {
        in_order = compare_names(&topics[i - 1], &topics[i]) <= 0;
    }
    if (!in_order) {
        qsort(topics, (size_t)topic_count, sizeof topics[0], compare_names);
    }
    image->seed = broker->hash_seed;
    image->mask = (uint32_t)slots - 1;
    image->topic_count = topic_count;
    image->sorted = (pst_topic **)(void *)(image + 1);
    image->by_name = image->sorted + topic_count;
    image->by_id = image->by_name + slots;
    atomic_fetch_add_explicit(&cluster->refs, 1, memory_order_relaxed);
    image->cluster = cluster;
    for (int32_t i = 0; i < topic_count; i++) {
        pst_topic *topic = topics[i];
        atomic_fetch_add_explicit(&topic->refs, 1, memory_order_relaxed);
        image->sorted[i] = topic;
        insert(image->by_name, image->mask,
               pst_hash_bytes(topic->name, (size_t)topic->name_size, image->seed), topic);
        insert(image->by_id, image->mask, hash_id(&topic->id, image->seed), topic);
    }
    return image;
}

void pst_image__destroy(pst_image *image) {
    for (int32_t i = 0; i < image->topic_count; i++) {
        pst_topic__unref(image->sorted[i]);
    }
    pst_cluster__unref(image->cluster);
    free(image);
}

int pst_image__init(pst_broker *broker) {
    pst_cluster_spec empty = {.cluster_id = pst_slice_str(""), .node_id = -1, .controller_id = -1};
    struct pst_cluster *cluster = pst_cluster__create(&empty);
    if (cluster == NULL) {
        return -PST_ENOMEM;
    }
    pst_image *image = pst_image__create(broker, cluster, NULL, 0);
    pst_cluster__unref(cluster);
    if (image == NULL) {
        return -PST_ENOMEM;
    }
    atomic_store_explicit(&broker->image, image, memory_order_release);
    return 0;
}

/* ---- publication and reclaiming ---- */

void pst_image__publish(pst_broker *broker, const pst_image *image) {
    struct pst_image_retired *retired = calloc(1, sizeof *retired);
    const pst_image *old = atomic_exchange_explicit(&broker->image, image, memory_order_seq_cst);
    pst_image__reclaim(broker, false);
    if (retired == NULL) {
        return; /* Without a place to remember it the old image must stay forever: reactors may be
                   inside. */
    }
    retired->image = old;
    int count = atomic_load_explicit(&broker->attached, memory_order_acquire);
    for (int i = 0; i < count; i++) {
        retired->epochs[i] = pst_reactor_epoch(broker->shards[i].reactor);
        if ((retired->epochs[i] & 1) != 0) {
            retired->left |= (uint64_t)1 << i;
        }
    }
    retired->next = broker->retired;
    broker->retired = retired;
    atomic_store_explicit(&broker->has_retired, true, memory_order_relaxed);
}

static bool is_free(pst_broker *broker, struct pst_image_retired *retired) {
    uint64_t left = retired->left;
    while (left != 0) {
        int index = __builtin_ctzll(left);
        left &= left - 1;
        if (pst_reactor_epoch(broker->shards[index].reactor) != retired->epochs[index]) {
            retired->left &= ~((uint64_t)1 << index);
        }
    }
    return retired->left == 0;
}

void pst_image__reclaim(pst_broker *broker, bool force) {
    if (!force && atomic_load_explicit(&broker->io_active, memory_order_seq_cst) != 0) {
        return;
    }
    struct pst_image_retired **link = &broker->retired;
    while (*link != NULL) {
        struct pst_image_retired *retired = *link;
        if (!force && !is_free(broker, retired)) {
            link = &retired->next;
            continue;
        }
        *link = retired->next;
        pst_image__destroy((pst_image *)(uintptr_t)retired->image);
        free(retired);
    }
    atomic_store_explicit(&broker->has_retired, broker->retired != NULL, memory_order_relaxed);
}
