/* broker/name_table.h - things found by name, for the tables of group_tables.h.
 *
 * Owner: the table that holds one, under its mutex. Layer: broker. Deliberately copies no name: it
 * lies with the thing. */
#ifndef PST_BROKER_NAME_TABLE_H
#define PST_BROKER_NAME_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "broker/group_tables.h"

/* Owner: the table that holds it. First member of everything that is found by name. */
typedef struct {
    uint64_t hash;
    const char *name;
    size_t size;
} pst_named;

/* Owner: the table it is part of. Open addressing, linear probes, at most 3/4 full. */
typedef struct {
    pst_named **slots;
    size_t capacity; /* 0 or a power of two */
    size_t used;
} pst_name_table;

/* NULL: none. */
pst_named *pst_name_table__find(const pst_name_table *t, uint64_t hash, const char *name,
                                size_t size);
/* Makes room for one more. */
int pst_name_table__reserve(pst_name_table *t);
/* Room was reserved. */
void pst_name_table__insert(pst_name_table *t, pst_named *item);
/* Closes the gap by moving back what probed past it, so that no tombstones pile up. */
void pst_name_table__erase(pst_name_table *t, const pst_named *item);

/* Appends `size` bytes at *text and says where they are. */
pst_broker_name pst_broker_name__copy(char **text, const char *bytes, size_t size);

#endif
