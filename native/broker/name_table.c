/* broker/name_table.c - the hash behind name_table.h: open addressing, linear probes.
 *
 * Owner: the table's user, under its mutex. Layer: broker. Deliberately without tombstones. */
#include "broker/name_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"

pst_named *pst_name_table__find(const pst_name_table *t, uint64_t hash, const char *name,
                                size_t size) {
    if (t->used == 0) {
        return NULL;
    }
    size_t mask = t->capacity - 1;
    for (size_t at = (size_t)hash & mask; t->slots[at] != NULL; at = (at + 1) & mask) {
        pst_named *item = t->slots[at];
        if (item->hash == hash && item->size == size &&
            (size == 0 || memcmp(item->name, name, size) == 0)) {
            return item;
        }
    }
    return NULL;
}

static void table_place(pst_named **slots, size_t capacity, pst_named *item) {
    size_t mask = capacity - 1;
    size_t at = (size_t)item->hash & mask;
    while (slots[at] != NULL) {
        at = (at + 1) & mask;
    }
    slots[at] = item;
}

int pst_name_table__reserve(pst_name_table *t) {
    if (t->used < t->capacity - t->capacity / 4) {
        return 0;
    }
    size_t capacity = t->capacity == 0 ? 4 : t->capacity * 2;
    pst_named **slots = calloc(capacity, sizeof *slots);
    if (slots == NULL) {
        return -PST_ENOMEM;
    }
    for (size_t i = 0; i < t->capacity; i++) {
        if (t->slots[i] != NULL) {
            table_place(slots, capacity, t->slots[i]);
        }
    }
    free(t->slots);
    t->slots = slots;
    t->capacity = capacity;
    return 0;
}

void pst_name_table__insert(pst_name_table *t, pst_named *item) {
    table_place(t->slots, t->capacity, item);
    t->used++;
}

void pst_name_table__erase(pst_name_table *t, const pst_named *item) {
    size_t mask = t->capacity - 1;
    size_t hole = (size_t)item->hash & mask;
    while (t->slots[hole] != item) {
        PST_ASSERT(t->slots[hole] != NULL);
        hole = (hole + 1) & mask;
    }
    for (size_t at = (hole + 1) & mask; t->slots[at] != NULL; at = (at + 1) & mask) {
        size_t home = (size_t)t->slots[at]->hash & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            t->slots[hole] = t->slots[at];
            hole = at;
        }
    }
    t->slots[hole] = NULL;
    t->used--;
    if (t->used == 0) {
        free(t->slots);
        t->slots = NULL;
        t->capacity = 0;
    }
}

pst_broker_name pst_broker_name__copy(char **text, const char *bytes, size_t size) {
    pst_broker_name name = {*text, size};
    if (size > 0) {
        memcpy(*text, bytes, size);
    }
    *text += size;
    return name;
}
