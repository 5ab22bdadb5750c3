/* broker/group_members.c - the table of members and their deadlines of group_tables.h.
 *
 * Owner: the table's mutex. Layer: broker. Deliberately without shards, as group_offsets.c.
 *
 * A hash, and a binary heap on `queued`, the deadline the heap believes in. A touch changes only
 * `deadline`, so heartbeats never move the heap; queued <= deadline always holds. */
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/hash.h"
#include "broker/group_tables.h"
#include "broker/name_table.h"

/* Owner: the table's mutex. Its name (group, then member) follows it in the same allocation. */
typedef struct member_node {
    pst_named named;
    size_t group_size;
    size_t heap_index;
    int64_t deadline;
    int64_t queued; /* what the heap is ordered by; never later than `deadline` */
    int32_t generation;
} member_node;

struct pst_broker_members {
    pthread_mutex_t lock;
    pst_broker_members_limits limits;
    pst_name_table members;
    member_node **heap;
    size_t heap_capacity; /* its size is members.used */
};

int pst_broker_members_create(const pst_broker_members_limits *limits, pst_broker_members **out) {
    *out = NULL;
    pst_broker_members *table = calloc(1, sizeof *table);
    if (table == NULL) {
        return -PST_ENOMEM;
    }
    table->limits = *limits;
    if (table->limits.max_members == 0) {
        table->limits.max_members = 1000000;
    }
    if (pthread_mutex_init(&table->lock, NULL) != 0) {
        free(table);
        return -PST_ENOMEM;
    }
    *out = table;
    return 0;
}

void pst_broker_members_destroy(pst_broker_members *table) {
    if (table == NULL) {
        return;
    }
    for (size_t i = 0; i < table->members.used; i++) {
        free(table->heap[i]);
    }
    free(table->heap);
    free(table->members.slots);
    pthread_mutex_destroy(&table->lock);
    free(table);
}

/* Two names as one key. The hash of the first seeds the second, so that "ab"+"c" and "a"+"bc"
 * differ; equality looks at the border too. */
static uint64_t member_hash(const pst_broker_members *table, const char *group, size_t group_size,
                            const char *member, size_t member_size) {
    uint64_t seed = pst_hash_bytes(group, group_size, table->limits.seed);
    return pst_hash_bytes(member, member_size, seed);
}

static member_node *find_member(const pst_broker_members *table, const char *group,
                                size_t group_size, const char *member, size_t member_size) {
    const pst_name_table *t = &table->members;
    if (t->used == 0) {
        return NULL;
    }
    uint64_t hash = member_hash(table, group, group_size, member, member_size);
    size_t mask = t->capacity - 1;
    for (size_t at = (size_t)hash & mask; t->slots[at] != NULL; at = (at + 1) & mask) {
        member_node *node = (member_node *)t->slots[at];
        if (node->named.hash == hash && node->group_size == group_size &&
            node->named.size - group_size == member_size &&
            (group_size == 0 || memcmp(node->named.name, group, group_size) == 0) &&
            (member_size == 0 || memcmp(node->named.name + group_size, member, member_size) == 0)) {
            return node;
        }
    }
    return NULL;
}

static void heap_set(pst_broker_members *table, size_t at, member_node *node) {
    table->heap[at] = node;
    node->heap_index = at;
}

static void heap_up(pst_broker_members *table, size_t at) {
    member_node *node = table->heap[at];
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (table->heap[parent]->queued <= node->queued) {
            break;
        }
        heap_set(table, at, table->heap[parent]);
        at = parent;
    }
    heap_set(table, at, node);
}

static void heap_down(pst_broker_members *table, size_t at, size_t size) {
    member_node *node = table->heap[at];
    for (;;) {
        size_t child = at * 2 + 1;
        if (child >= size) {
            break;
        }
        if (child + 1 < size && table->heap[child + 1]->queued < table->heap[child]->queued) {
            child++;
        }
        if (table->heap[child]->queued >= node->queued) {
            break;
        }
        heap_set(table, at, table->heap[child]);
        at = child;
    }
    heap_set(table, at, node);
}

static void set_deadline(pst_broker_members *table, member_node *node, int64_t deadline) {
    node->deadline = deadline;
    if (deadline < node->queued) {
        node->queued = deadline;
        heap_up(table, node->heap_index);
    }
}

static int heap_reserve(pst_broker_members *table) {
    if (table->members.used < table->heap_capacity) {
        return 0;
    }
    size_t capacity = table->heap_capacity == 0 ? 16 : table->heap_capacity * 2;
    member_node **heap = realloc(table->heap, capacity * sizeof *heap);
    if (heap == NULL) {
        return -PST_ENOMEM;
    }
    table->heap = heap;
    table->heap_capacity = capacity;
    return 0;
}

static int add_member(pst_broker_members *table, const char *group, size_t group_size,
                      const char *member, size_t member_size, member_node **out) {
    if (table->members.used >= table->limits.max_members) {
        return -PST_ELIMIT;
    }
    PST_TRY(heap_reserve(table));
    PST_TRY(pst_name_table__reserve(&table->members));
    member_node *node = calloc(1, sizeof *node + group_size + member_size + 1);
    if (node == NULL) {
        return -PST_ENOMEM;
    }
    char *text = (char *)(node + 1);
    node->named.name = text;
    node->named.size = group_size + member_size;
    node->named.hash = member_hash(table, group, group_size, member, member_size);
    node->group_size = group_size;
    (void)pst_broker_name__copy(&text, group, group_size);
    (void)pst_broker_name__copy(&text, member, member_size);
    *out = node;
    return 0;
}

int pst_broker_members_upsert(pst_broker_members *table, const char *group, size_t group_size,
                              const char *member, size_t member_size, int32_t generation,
                              int64_t deadline) {
    pthread_mutex_lock(&table->lock);
    int rc = 0;
    member_node *node = find_member(table, group, group_size, member, member_size);
    if (node != NULL) {
        node->generation = generation;
        set_deadline(table, node, deadline);
    } else {
        rc = add_member(table, group, group_size, member, member_size, &node);
        if (rc == 0) {
            node->generation = generation;
            node->deadline = deadline;
            node->queued = deadline;
            heap_set(table, table->members.used, node);
            pst_name_table__insert(&table->members, &node->named);
            heap_up(table, node->heap_index);
        }
    }
    pthread_mutex_unlock(&table->lock);
    return rc;
}

int pst_broker_members_touch(pst_broker_members *table, const char *group, size_t group_size,
                             const char *member, size_t member_size, int64_t deadline) {
    pthread_mutex_lock(&table->lock);
    member_node *node = find_member(table, group, group_size, member, member_size);
    if (node != NULL) {
        set_deadline(table, node, deadline);
    }
    pthread_mutex_unlock(&table->lock);
    return node == NULL ? -PST_ENOENT : 0;
}

/* Out of heap and hash; the node itself stays. */
static void detach(pst_broker_members *table, member_node *node) {
    size_t last = table->members.used - 1;
    size_t at = node->heap_index;
    pst_name_table__erase(&table->members, &node->named);
    if (at != last) {
        heap_set(table, at, table->heap[last]);
        heap_down(table, at, last);
        heap_up(table, at);
    }
}

int pst_broker_members_remove(pst_broker_members *table, const char *group, size_t group_size,
                              const char *member, size_t member_size) {
    pthread_mutex_lock(&table->lock);
    member_node *node = find_member(table, group, group_size, member, member_size);
    if (node != NULL) {
        detach(table, node);
        free(node);
    }
    pthread_mutex_unlock(&table->lock);
    return node == NULL ? -PST_ENOENT : 0;
}

/* Corrects the queue until its head is not due, or is really due. */
static bool head_is_due(pst_broker_members *table, int64_t now) {
    while (table->members.used > 0 && table->heap[0]->queued <= now) {
        member_node *head = table->heap[0];
        if (head->deadline <= now && head->queued == head->deadline) {
            return true;
        }
        head->queued = head->deadline;
        heap_down(table, 0, table->members.used);
    }
    return false;
}

int pst_broker_members_expired(pst_broker_members *table, int64_t now,
                               pst_broker_member_row **rows_out, size_t *count_out) {
    *rows_out = NULL;
    *count_out = 0;
    pthread_mutex_lock(&table->lock);
    int rc = 0;
    size_t count = 0;
    size_t text_size = 0;
    for (size_t i = 0; i < table->members.used; i++) {
        if (table->heap[i]->deadline <= now) {
            count++;
            text_size += table->heap[i]->named.size;
        }
    }
    pst_broker_member_row *rows = NULL;
    if (count > 0) {
        rows = malloc(count * sizeof *rows + text_size);
        rc = rows == NULL ? -PST_ENOMEM : 0;
    }
    if (rc == 0) {
        char *text = rows == NULL ? NULL : (char *)(rows + count);
        size_t at = 0;
        while (head_is_due(table, now)) {
            member_node *node = table->heap[0];
            size_t member_size = node->named.size - node->group_size;
            rows[at].group = pst_broker_name__copy(&text, node->named.name, node->group_size);
            rows[at].member =
                pst_broker_name__copy(&text, node->named.name + node->group_size, member_size);
            rows[at].deadline = node->deadline;
            rows[at].generation = node->generation;
            at++;
            detach(table, node);
            free(node);
        }
        PST_ASSERT(at == count);
        *rows_out = rows;
        *count_out = count;
    }
    pthread_mutex_unlock(&table->lock);
    return rc;
}

void pst_broker_member_rows_free(pst_broker_member_row *rows) {
    free(rows);
}

int64_t pst_broker_members_next_deadline(pst_broker_members *table) {
    pthread_mutex_lock(&table->lock);
    int64_t deadline = table->members.used == 0 ? -1 : table->heap[0]->queued;
    pthread_mutex_unlock(&table->lock);
    return deadline;
}

size_t pst_broker_members_size(pst_broker_members *table) {
    pthread_mutex_lock(&table->lock);
    size_t size = table->members.used;
    pthread_mutex_unlock(&table->lock);
    return size;
}
