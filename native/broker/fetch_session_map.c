/* broker/fetch_session_map.c - the partitions of one fetch session: a hash map that keeps an order
 * of service.
 *
 * Owner: as the session: one reactor. Layer: broker. Deliberately knows no slots, no epochs and no
 * other reactor.
 *
 * Topics and partitions lie in two growing arrays, linked by index: entries do not move while the
 * session lives, so an index stays good until its partition is forgotten. */
#include "broker/fetch_session_map.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { BUCKETS_FIRST = 8 };

pst_fetch_session *pst_fetch_map__create(bool uses_topic_ids, uint64_t seed) {
    pst_fetch_session *session = calloc(1, sizeof *session);
    if (session == NULL) {
        return NULL;
    }
    session->uses_topic_ids = uses_topic_ids;
    session->seed = seed;
    session->topic_free = session->part_free = session->head = session->tail = -1;
    pst_list_init(&session->ops);
    return session;
}

void pst_fetch_map__destroy(pst_fetch_session *session) {
    for (int32_t i = 0; i < session->topic_used; i++) {
        free(session->topics[i].name);
    }
    free(session->topics);
    free(session->parts);
    free(session->part_buckets);
    free(session->topic_buckets);
    free(session);
}

/* ---- hashing ---- */

static int32_t topic_bucket(const pst_fetch_session *session, const pst_uuid *id, pst_slice name) {
    uint64_t hash = session->uses_topic_ids
                        ? pst_hash_bytes(id->bytes, sizeof id->bytes, session->seed)
                        : pst_hash_bytes(name.data, name.size, session->seed);
    return (int32_t)(hash & (uint64_t)(session->bucket_count - 1));
}

static int32_t bucket_of_topic(const pst_fetch_session *session,
                               const pst_fetch_session_topic *topic) {
    return topic_bucket(session, &topic->id, pst_slice_of(topic->name, (size_t)topic->name_size));
}

static int32_t part_bucket(const pst_fetch_session *session, int32_t topic, int32_t index) {
    uint64_t key = (uint64_t)(uint32_t)topic << 32 | (uint32_t)index;
    return (int32_t)(pst_hash_u64(key, session->seed) & (uint64_t)(session->bucket_count - 1));
}

static int rehash(pst_fetch_session *session) {
    int32_t count = session->bucket_count == 0 ? BUCKETS_FIRST : session->bucket_count * 2;
    int32_t *parts = malloc((size_t)count * sizeof(int32_t));
    int32_t *topics = malloc((size_t)count * sizeof(int32_t));
    if (parts == NULL || topics == NULL) {
        free(parts);
        free(topics);
        return -PST_ENOMEM;
    }
    memset(parts, 0xff, (size_t)count * sizeof(int32_t));
    memset(topics, 0xff, (size_t)count * sizeof(int32_t));
    free(session->part_buckets);
    free(session->topic_buckets);
    session->part_buckets = parts;
    session->topic_buckets = topics;
    session->bucket_count = count;
    for (int32_t i = session->head; i >= 0; i = session->parts[i].next) {
        int32_t bucket = part_bucket(session, session->parts[i].topic, session->parts[i].index);
        session->parts[i].hash_next = parts[bucket];
        parts[bucket] = i;
    }
    for (int32_t i = 0; i < session->topic_used; i++) {
        if (session->topics[i].part_count > 0) {
            int32_t bucket = bucket_of_topic(session, &session->topics[i]);
            session->topics[i].hash_next = topics[bucket];
            topics[bucket] = i;
        }
    }
    return 0;
}

static int32_t find_topic(const pst_fetch_session *session, const pst_uuid *id, pst_slice name) {
    if (session->bucket_count == 0) {
        return -1;
    }
    int32_t at = session->topic_buckets[topic_bucket(session, id, name)];
    while (at >= 0) {
        const pst_fetch_session_topic *topic = &session->topics[at];
        bool same = session->uses_topic_ids
                        ? pst_uuid_eq(&topic->id, id)
                        : pst_slice_eq(pst_slice_of(topic->name, (size_t)topic->name_size), name);
        if (same) {
            return at;
        }
        at = topic->hash_next;
    }
    return -1;
}

static int32_t find_part(const pst_fetch_session *session, int32_t topic, int32_t index) {
    int32_t at = session->part_buckets[part_bucket(session, topic, index)];
    while (at >= 0 && (session->parts[at].topic != topic || session->parts[at].index != index)) {
        at = session->parts[at].hash_next;
    }
    return at;
}

/* ---- entries ---- */

static int set_name(pst_fetch_session_topic *topic, pst_slice name) {
    char *copy = malloc(name.size == 0 ? 1 : name.size);
    if (copy == NULL) {
        return -PST_ENOMEM;
    }
    if (name.size > 0) {
        memcpy(copy, name.data, name.size);
    }
    topic->name = copy;
    topic->name_size = (int32_t)name.size;
    return 0;
}

/* Room for one more entry: the head of the free list or the end of the array; -1 without memory. */
static int32_t take_entry(void **items, size_t size, int32_t *used, int32_t *capacity) {
    if (*used == *capacity) {
        int32_t wanted = *capacity == 0 ? 4 : *capacity * 2;
        void *grown = realloc(*items, (size_t)wanted * size);
        if (grown == NULL) {
            return -1;
        }
        *items = grown;
        *capacity = wanted;
    }
    return (*used)++;
}

static int add_topic(pst_fetch_session *session, const pst_uuid *id, pst_slice name,
                     int32_t *at_out) {
    int32_t at = session->topic_free;
    if (at >= 0) {
        session->topic_free = session->topics[at].hash_next;
    } else {
        at = take_entry((void **)&session->topics, sizeof *session->topics, &session->topic_used,
                        &session->topic_capacity);
        if (at < 0) {
            return -PST_ENOMEM;
        }
    }
    pst_fetch_session_topic *topic = &session->topics[at];
    memset(topic, 0, sizeof *topic);
    topic->id = *id;
    if (!session->uses_topic_ids && set_name(topic, name) < 0) {
        topic->hash_next = session->topic_free;
        session->topic_free = at;
        return -PST_ENOMEM;
    }
    int32_t bucket = bucket_of_topic(session, topic);
    topic->hash_next = session->topic_buckets[bucket];
    session->topic_buckets[bucket] = at;
    *at_out = at;
    return 0;
}

static void drop_topic(pst_fetch_session *session, int32_t at) {
    pst_fetch_session_topic *topic = &session->topics[at];
    int32_t *link = &session->topic_buckets[bucket_of_topic(session, topic)];
    while (*link != at) {
        link = &session->topics[*link].hash_next;
    }
    *link = topic->hash_next;
    free(topic->name);
    memset(topic, 0, sizeof *topic);
    topic->hash_next = session->topic_free;
    session->topic_free = at;
}

static void link_last(pst_fetch_session *session, int32_t at) {
    pst_fetch_session_part *part = &session->parts[at];
    part->prev = session->tail;
    part->next = -1;
    if (session->tail >= 0) {
        session->parts[session->tail].next = at;
    } else {
        session->head = at;
    }
    session->tail = at;
}

static void unlink_part(pst_fetch_session *session, int32_t at) {
    pst_fetch_session_part *part = &session->parts[at];
    if (part->prev >= 0) {
        session->parts[part->prev].next = part->next;
    } else {
        session->head = part->next;
    }
    if (part->next >= 0) {
        session->parts[part->next].prev = part->prev;
    } else {
        session->tail = part->prev;
    }
}

void pst_fetch_map__move_to_end(pst_fetch_session *session, int32_t at) {
    if (session->tail != at) {
        unlink_part(session, at);
        link_last(session, at);
    }
}

static int add_part(pst_fetch_session *session, int32_t topic, int32_t index, int32_t *at_out) {
    int32_t at = session->part_free;
    if (at >= 0) {
        session->part_free = session->parts[at].hash_next;
    } else {
        at = take_entry((void **)&session->parts, sizeof *session->parts, &session->part_used,
                        &session->part_capacity);
        if (at < 0) {
            return -PST_ENOMEM;
        }
    }
    pst_fetch_session_part *part = &session->parts[at];
    memset(part, 0, sizeof *part);
    part->topic = topic;
    part->index = index;
    part->high_watermark = part->log_start = -1;
    int32_t bucket = part_bucket(session, topic, index);
    part->hash_next = session->part_buckets[bucket];
    session->part_buckets[bucket] = at;
    link_last(session, at);
    session->topics[topic].part_count++;
    session->part_count++;
    *at_out = at;
    return 0;
}

int pst_fetch_map__put(pst_fetch_session *session, const pst_fetch_op *op,
                       const pst_fetch_part *part, int32_t *at_out) {
    *at_out = -1;
    if (session->part_count >= session->bucket_count) {
        PST_TRY(rehash(session));
    }
    const pst_fetch_topic *asked = &op->topics[part->topic];
    pst_slice name = pst_fetch__topic_name(op, asked);
    int32_t topic = find_topic(session, &asked->id, name);
    int32_t at = topic < 0 ? -1 : find_part(session, topic, part->index);
    if (at < 0) {
        if (session->part_count >= PST_FETCH_SESSION_PARTITIONS_MAX) {
            return -PST_ELIMIT;
        }
        bool added = topic < 0;
        if (added) {
            PST_TRY(add_topic(session, &asked->id, name, &topic));
        }
        int rc = add_part(session, topic, part->index, &at);
        if (rc < 0) {
            if (added) {
                drop_topic(session, topic);
            }
            return rc;
        }
    }
    pst_fetch_session_part *kept = &session->parts[at];
    kept->offset = part->offset;
    kept->max_bytes = part->max_bytes;
    kept->leader_epoch = part->leader_epoch;
    kept->last_fetched_epoch = part->last_fetched_epoch;
    *at_out = at;
    return 0;
}

void pst_fetch_map__forget(pst_fetch_session *session, const pst_fetch_op *op, int32_t asked,
                           int32_t index) {
    const pst_fetch_topic *key = &op->topics[asked];
    int32_t topic = find_topic(session, &key->id, pst_fetch__topic_name(op, key));
    int32_t at = topic < 0 ? -1 : find_part(session, topic, index);
    if (at < 0) {
        return;
    }
    int32_t *link = &session->part_buckets[part_bucket(session, topic, index)];
    while (*link != at) {
        link = &session->parts[*link].hash_next;
    }
    *link = session->parts[at].hash_next;
    unlink_part(session, at);
    session->parts[at].hash_next = session->part_free;
    session->part_free = at;
    session->part_count--;
    if (--session->topics[topic].part_count == 0) {
        drop_topic(session, topic);
    }
}

/* Copies a topic into the operation; under topic ids it learns the name as soon as the id is known.
 */
static int load_topic(pst_fetch_session_topic *topic, bool by_id, pst_fetch_op *op,
                      const pst_image *image, int32_t *at_out) {
    if (by_id && topic->name == NULL) {
        const pst_topic *known = pst_image__topic_by_id(image, &topic->id);
        if (known != NULL) {
            PST_TRY(set_name(topic, pst_slice_of(known->name, (size_t)known->name_size)));
        }
    }
    return pst_fetch__add_topic(op, &topic->id, pst_slice_of(topic->name, (size_t)topic->name_size),
                                at_out);
}

int pst_fetch_map__load(pst_fetch_session *session, pst_fetch_op *op, const pst_image *image) {
    op->topic_count = 0;
    op->names_size = 0;
    op->part_count = 0;
    for (int32_t i = 0; i < session->topic_used; i++) {
        session->topics[i].loaded_at = -1;
    }
    for (int32_t at = session->head; at >= 0; at = session->parts[at].next) {
        const pst_fetch_session_part *kept = &session->parts[at];
        pst_fetch_session_topic *topic = &session->topics[kept->topic];
        if (topic->loaded_at < 0) {
            PST_TRY(load_topic(topic, session->uses_topic_ids, op, image, &topic->loaded_at));
        }
        pst_fetch_part *part = pst_fetch__add_part(op);
        if (part == NULL) {
            return -PST_ENOMEM;
        }
        part->topic = topic->loaded_at;
        part->index = kept->index;
        part->offset = kept->offset;
        part->max_bytes = kept->max_bytes;
        part->leader_epoch = kept->leader_epoch;
        part->last_fetched_epoch = kept->last_fetched_epoch;
        part->session_part = at;
    }
    return 0;
}
