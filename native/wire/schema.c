/* wire/schema.c - look-ups in the schema table.
 *
 * Owner: nobody (constants). Layer: wire. Callers look up once and keep the row. */
#include "wire/schema.h"

#include <string.h>

const pst_schema_message *pst_schema_find(enum pst_schema_kind kind, int16_t api_key) {
    for (size_t i = 0; i < pst_schema_message_count; i++) {
        const pst_schema_message *row = &pst_schema_messages[i];
        if (row->kind == kind && row->api_key == api_key) {
            return row;
        }
    }
    return NULL;
}

const pst_schema_message *pst_schema_find_name(const char *name) {
    for (size_t i = 0; i < pst_schema_message_count; i++) {
        if (strcmp(pst_schema_names + pst_schema_messages[i].name, name) == 0) {
            return &pst_schema_messages[i];
        }
    }
    return NULL;
}
