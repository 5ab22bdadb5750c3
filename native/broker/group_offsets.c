/* broker/group_offsets.c - the table of committed offsets of group_tables.h.
 *
 * Owner: the table's mutex. Layer: broker. Deliberately without shards: the lock is held for a
 * few hundred nanoseconds, and a group's requests meet at one coordinator anyway.
 *
 * A hash of groups, in each a hash of topics, in each an array sorted by partition. */
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/hash.h"
#include "broker/group_tables.h"
#include "broker/name_table.h"

/* Owner: the table's mutex. */
typedef struct entry {
    pst_broker_offset value;
    char *metadata; /* NULL when empty */
    size_t metadata_size;
} entry;

/* Owner: the table's mutex. Its name follows it in the same allocation. */
typedef struct topic_node {
    pst_named named;
    struct topic_node *next; /* in order of first commit */
    entry *entries;          /* ascending by partition */
    size_t count;
    size_t capacity;
} topic_node;

/* Owner: the table's mutex. Its name follows it in the same allocation. */
typedef struct group_node {
    pst_named named;
    pst_name_table topics;
    topic_node *first;
    topic_node *last;
    size_t offsets;
    size_t text; /* bytes of topic names and metadata, for the size of a snapshot */
} group_node;

struct pst_broker_offsets {
    pthread_mutex_t lock;
    pst_broker_offsets_limits limits;
    pst_name_table groups;
    size_t offsets;
    size_t bytes;
};

int pst_broker_offsets_create(const pst_broker_offsets_limits *limits, pst_broker_offsets **out) {
    *out = NULL;
    pst_broker_offsets *table = calloc(1, sizeof *table);
    if (table == NULL) {
        return -PST_ENOMEM;
    }
    table->limits = *limits;
    if (table->limits.max_offsets == 0) {
        table->limits.max_offsets = 10000000;
    }
    if (table->limits.max_groups == 0) {
        table->limits.max_groups = 100000;
    }
    if (table->limits.max_bytes == 0) {
        table->limits.max_bytes = (size_t)1 << 30;
    }
    if (pthread_mutex_init(&table->lock, NULL) != 0) {
        free(table);
        return -PST_ENOMEM;
    }
    *out = table;
    return 0;
}

static size_t topic_cost(const topic_node *topic) {
    return sizeof *topic + topic->named.size;
}

static size_t entry_cost(const entry *e) {
    return sizeof *e + e->metadata_size;
}

/* The caller has unlinked it, or frees the whole group. */
static void topic_destroy(pst_broker_offsets *table, group_node *group, topic_node *topic) {
    for (size_t i = 0; i < topic->count; i++) {
        table->bytes -= entry_cost(&topic->entries[i]);
        group->text -= topic->entries[i].metadata_size;
        free(topic->entries[i].metadata);
    }
    table->offsets -= topic->count;
    group->offsets -= topic->count;
    group->text -= topic->named.size;
    table->bytes -= topic_cost(topic);
    free(topic->entries);
    free(topic);
}

static void group_destroy(pst_broker_offsets *table, group_node *group) {
    topic_node *topic = group->first;
    while (topic != NULL) {
        topic_node *next = topic->next;
        topic_destroy(table, group, topic);
        topic = next;
    }
    free(group->topics.slots);
    table->bytes -= sizeof *group + group->named.size;
    free(group);
}

void pst_broker_offsets_destroy(pst_broker_offsets *table) {
    if (table == NULL) {
        return;
    }
    for (size_t i = 0; i < table->groups.capacity; i++) {
        if (table->groups.slots[i] != NULL) {
            group_destroy(table, (group_node *)table->groups.slots[i]);
        }
    }
    free(table->groups.slots);
    pthread_mutex_destroy(&table->lock);
    free(table);
}

static group_node *find_group(pst_broker_offsets *table, const char *name, size_t size) {
    uint64_t hash = pst_hash_bytes(name, size, table->limits.seed);
    return (group_node *)pst_name_table__find(&table->groups, hash, name, size);
}

static topic_node *find_topic(pst_broker_offsets *table, group_node *group, const char *name,
                              size_t size) {
    uint64_t hash = pst_hash_bytes(name, size, table->limits.seed);
    return (topic_node *)pst_name_table__find(&group->topics, hash, name, size);
}

/* Where `partition` is, or belongs. */
static size_t entry_position(const topic_node *topic, int32_t partition) {
    size_t low = 0;
    size_t high = topic->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (topic->entries[middle].value.partition < partition) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static entry *find_entry(pst_broker_offsets *table, const char *group_name, size_t group_size,
                         const char *topic_name, size_t topic_size, int32_t partition,
                         group_node **group_out, topic_node **topic_out) {
    *group_out = find_group(table, group_name, group_size);
    *topic_out = NULL;
    if (*group_out == NULL) {
        return NULL;
    }
    *topic_out = find_topic(table, *group_out, topic_name, topic_size);
    if (*topic_out == NULL) {
        return NULL;
    }
    size_t at = entry_position(*topic_out, partition);
    if (at == (*topic_out)->count || (*topic_out)->entries[at].value.partition != partition) {
        return NULL;
    }
    return &(*topic_out)->entries[at];
}

static int add_group(pst_broker_offsets *table, const char *name, size_t size, group_node **out) {
    PST_TRY(pst_name_table__reserve(&table->groups));
    group_node *group = calloc(1, sizeof *group + size + 1);
    if (group == NULL) {
        return -PST_ENOMEM;
    }
    char *copy = (char *)(group + 1);
    if (size > 0) {
        memcpy(copy, name, size);
    }
    group->named = (pst_named){pst_hash_bytes(name, size, table->limits.seed), copy, size};
    pst_name_table__insert(&table->groups, &group->named);
    table->bytes += sizeof *group + size;
    *out = group;
    return 0;
}

static int add_topic(pst_broker_offsets *table, group_node *group, const char *name, size_t size,
                     topic_node **out) {
    PST_TRY(pst_name_table__reserve(&group->topics));
    topic_node *topic = calloc(1, sizeof *topic + size + 1);
    if (topic == NULL) {
        return -PST_ENOMEM;
    }
    char *copy = (char *)(topic + 1);
    if (size > 0) {
        memcpy(copy, name, size);
    }
    topic->named = (pst_named){pst_hash_bytes(name, size, table->limits.seed), copy, size};
    pst_name_table__insert(&group->topics, &topic->named);
    if (group->last == NULL) {
        group->first = topic;
    } else {
        group->last->next = topic;
    }
    group->last = topic;
    group->text += size;
    table->bytes += topic_cost(topic);
    *out = topic;
    return 0;
}

static void unlink_topic(group_node *group, topic_node *topic) {
    topic_node *before = NULL;
    for (topic_node *at = group->first; at != topic; at = at->next) {
        before = at;
    }
    if (before == NULL) {
        group->first = topic->next;
    } else {
        before->next = topic->next;
    }
    if (group->last == topic) {
        group->last = before;
    }
    pst_name_table__erase(&group->topics, &topic->named);
}

/* Takes out a topic or a group that holds nothing any more. */
static void drop_if_empty(pst_broker_offsets *table, group_node *group, topic_node *topic) {
    if (topic != NULL && topic->count == 0) {
        unlink_topic(group, topic);
        topic_destroy(table, group, topic);
    }
    if (group->first == NULL) {
        pst_name_table__erase(&table->groups, &group->named);
        group_destroy(table, group);
    }
}

static int insert_entry(topic_node *topic, int32_t partition, entry **out) {
    if (topic->count == topic->capacity) {
        size_t capacity = topic->capacity == 0 ? 1 : topic->capacity * 2;
        entry *grown = realloc(topic->entries, capacity * sizeof *grown);
        if (grown == NULL) {
            return -PST_ENOMEM;
        }
        topic->entries = grown;
        topic->capacity = capacity;
    }
    size_t at = entry_position(topic, partition);
    memmove(&topic->entries[at + 1], &topic->entries[at],
            (topic->count - at) * sizeof *topic->entries);
    memset(&topic->entries[at], 0, sizeof *topic->entries);
    topic->count++;
    *out = &topic->entries[at];
    return 0;
}

/* -PST_ELIMIT when a new entry, topic or group would pass a limit. */
static int check_limits(const pst_broker_offsets *table, const group_node *group,
                        const topic_node *topic, const entry *known, size_t names_size,
                        size_t metadata_size) {
    const pst_broker_offsets_limits *limits = &table->limits;
    size_t more = metadata_size;
    if (known == NULL) {
        more += sizeof(entry);
        if (table->offsets >= limits->max_offsets) {
            return -PST_ELIMIT;
        }
    }
    if (topic == NULL) {
        more += sizeof(topic_node) + names_size;
    }
    if (group == NULL) {
        more += sizeof(group_node);
        if (table->groups.used >= limits->max_groups) {
            return -PST_ELIMIT;
        }
    }
    if (table->bytes > limits->max_bytes || more > limits->max_bytes - table->bytes) {
        return -PST_ELIMIT;
    }
    return 0;
}

static int put_locked(pst_broker_offsets *table, const char *group_name, size_t group_size,
                      const char *topic_name, size_t topic_size, const pst_broker_offset *value,
                      char *metadata, size_t metadata_size) {
    group_node *group;
    topic_node *topic;
    entry *known = find_entry(table, group_name, group_size, topic_name, topic_size,
                              value->partition, &group, &topic);
    PST_TRY(check_limits(table, group, topic, known, group_size + topic_size, metadata_size));
    int rc = 0;
    if (group == NULL) {
        PST_TRY(add_group(table, group_name, group_size, &group));
    }
    if (topic == NULL) {
        rc = add_topic(table, group, topic_name, topic_size, &topic);
        if (rc < 0) {
            goto fail;
        }
    }
    if (known == NULL) {
        rc = insert_entry(topic, value->partition, &known);
        if (rc < 0) {
            goto fail;
        }
        table->offsets++;
        group->offsets++;
        table->bytes += sizeof *known;
    }
    table->bytes = table->bytes - known->metadata_size + metadata_size;
    group->text = group->text - known->metadata_size + metadata_size;
    free(known->metadata);
    known->value = *value;
    known->metadata = metadata;
    known->metadata_size = metadata_size;
    return 0;
fail:
    drop_if_empty(table, group, topic);
    return rc;
}

int pst_broker_offsets_put(pst_broker_offsets *table, const char *group, size_t group_size,
                           const char *topic, size_t topic_size, const pst_broker_offset *value,
                           const char *metadata, size_t metadata_size) {
    char *copy = NULL;
    if (metadata_size > 0) {
        copy = malloc(metadata_size);
        if (copy == NULL) {
            return -PST_ENOMEM;
        }
        memcpy(copy, metadata, metadata_size);
    }
    pthread_mutex_lock(&table->lock);
    int rc = put_locked(table, group, group_size, topic, topic_size, value, copy, metadata_size);
    pthread_mutex_unlock(&table->lock);
    if (rc < 0) {
        free(copy);
    }
    return rc;
}

int pst_broker_offsets_get(pst_broker_offsets *table, const char *group_name, size_t group_size,
                           const char *topic_name, size_t topic_size, int32_t partition,
                           pst_broker_offset_row **row_out) {
    *row_out = NULL;
    pthread_mutex_lock(&table->lock);
    group_node *group;
    topic_node *topic;
    int rc = -PST_ENOENT;
    const entry *known = find_entry(table, group_name, group_size, topic_name, topic_size,
                                    partition, &group, &topic);
    if (known != NULL) {
        pst_broker_offset_row *row = malloc(sizeof *row + topic_size + known->metadata_size);
        rc = row == NULL ? -PST_ENOMEM : 0;
        if (row != NULL) {
            char *text = (char *)(row + 1);
            row->value = known->value;
            row->topic = pst_broker_name__copy(&text, topic_name, topic_size);
            row->metadata = pst_broker_name__copy(&text, known->metadata, known->metadata_size);
            *row_out = row;
        }
    }
    pthread_mutex_unlock(&table->lock);
    return rc;
}

int pst_broker_offsets_read(pst_broker_offsets *table, const char *group_name, size_t group_size,
                            const char *topic_name, size_t topic_size, int32_t partition,
                            char *metadata, size_t capacity, pst_broker_offset *value_out,
                            size_t *metadata_size_out) {
    memset(value_out, 0, sizeof *value_out);
    *metadata_size_out = 0;
    pthread_mutex_lock(&table->lock);
    group_node *group;
    topic_node *topic;
    int rc = -PST_ENOENT;
    const entry *known = find_entry(table, group_name, group_size, topic_name, topic_size,
                                    partition, &group, &topic);
    if (known != NULL) {
        *value_out = known->value;
        *metadata_size_out = known->metadata_size;
        rc = known->metadata_size > capacity ? -PST_ELIMIT : 0;
        if (rc == 0 && known->metadata_size > 0) {
            memcpy(metadata, known->metadata, known->metadata_size);
        }
    }
    pthread_mutex_unlock(&table->lock);
    return rc;
}

int pst_broker_offsets_remove(pst_broker_offsets *table, const char *group_name, size_t group_size,
                              const char *topic_name, size_t topic_size, int32_t partition) {
    pthread_mutex_lock(&table->lock);
    group_node *group;
    topic_node *topic;
    int rc = -PST_ENOENT;
    entry *known = find_entry(table, group_name, group_size, topic_name, topic_size, partition,
                              &group, &topic);
    if (known != NULL) {
        rc = 0;
        table->bytes -= entry_cost(known);
        table->offsets--;
        group->offsets--;
        group->text -= known->metadata_size;
        free(known->metadata);
        size_t at = (size_t)(known - topic->entries);
        memmove(known, known + 1, (topic->count - at - 1) * sizeof *known);
        topic->count--;
        drop_if_empty(table, group, topic);
    }
    pthread_mutex_unlock(&table->lock);
    return rc;
}

size_t pst_broker_offsets_remove_group(pst_broker_offsets *table, const char *name, size_t size) {
    pthread_mutex_lock(&table->lock);
    size_t removed = 0;
    group_node *group = find_group(table, name, size);
    if (group != NULL) {
        removed = group->offsets;
        pst_name_table__erase(&table->groups, &group->named);
        group_destroy(table, group);
    }
    pthread_mutex_unlock(&table->lock);
    return removed;
}

/* One allocation: the rows, then their text. */
static int copy_rows(const group_node *group, pst_broker_offset_row **rows_out) {
    pst_broker_offset_row *rows = malloc(group->offsets * sizeof *rows + group->text);
    if (rows == NULL) {
        return -PST_ENOMEM;
    }
    char *text = (char *)(rows + group->offsets);
    size_t at = 0;
    for (const topic_node *topic = group->first; topic != NULL; topic = topic->next) {
        pst_broker_name name = pst_broker_name__copy(&text, topic->named.name, topic->named.size);
        for (size_t i = 0; i < topic->count; i++) {
            const entry *e = &topic->entries[i];
            rows[at].value = e->value;
            rows[at].topic = name;
            rows[at].metadata = pst_broker_name__copy(&text, e->metadata, e->metadata_size);
            at++;
        }
    }
    PST_ASSERT(at == group->offsets);
    *rows_out = rows;
    return 0;
}

int pst_broker_offsets_rows(pst_broker_offsets *table, const char *name, size_t size,
                            pst_broker_offset_row **rows_out, size_t *count_out) {
    *rows_out = NULL;
    *count_out = 0;
    pthread_mutex_lock(&table->lock);
    int rc = 0;
    const group_node *group = find_group(table, name, size);
    if (group != NULL) {
        rc = copy_rows(group, rows_out);
        if (rc == 0) {
            *count_out = group->offsets;
        }
    }
    pthread_mutex_unlock(&table->lock);
    return rc;
}

void pst_broker_rows_free(pst_broker_offset_row *rows) {
    free(rows);
}

int pst_broker_offsets_groups(pst_broker_offsets *table, pst_broker_name **names_out,
                              size_t *count_out) {
    *names_out = NULL;
    *count_out = 0;
    pthread_mutex_lock(&table->lock);
    int rc = 0;
    size_t count = table->groups.used;
    size_t text_size = 0;
    for (size_t i = 0; i < table->groups.capacity; i++) {
        text_size += table->groups.slots[i] == NULL ? 0 : table->groups.slots[i]->size;
    }
    if (count > 0) {
        pst_broker_name *names = malloc(count * sizeof *names + text_size);
        if (names == NULL) {
            rc = -PST_ENOMEM;
        } else {
            char *text = (char *)(names + count);
            size_t at = 0;
            for (size_t i = 0; i < table->groups.capacity; i++) {
                const pst_named *item = table->groups.slots[i];
                if (item != NULL) {
                    names[at++] = pst_broker_name__copy(&text, item->name, item->size);
                }
            }
            *names_out = names;
            *count_out = count;
        }
    }
    pthread_mutex_unlock(&table->lock);
    return rc;
}

void pst_broker_names_free(pst_broker_name *names) {
    free(names);
}

size_t pst_broker_offsets_size(pst_broker_offsets *table) {
    pthread_mutex_lock(&table->lock);
    size_t size = table->offsets;
    pthread_mutex_unlock(&table->lock);
    return size;
}

size_t pst_broker_offsets_bytes(pst_broker_offsets *table) {
    pthread_mutex_lock(&table->lock);
    size_t bytes = table->bytes;
    pthread_mutex_unlock(&table->lock);
    return bytes;
}
