/* wire/schema.h - row formats of the generated schema table (schema_table.c).
 *
 * Owner: nobody (constants). Layer: wire. Names are offsets into pst_schema_names, so that the
 * table needs no relocation and stays shared between processes. Version ranges are closed; first >
 * last is empty; INT16_MAX means "and all later". */
#ifndef PST_WIRE_SCHEMA_H
#define PST_WIRE_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pst_schema_type {
    PST_SCHEMA_BOOL,
    PST_SCHEMA_INT8,
    PST_SCHEMA_INT16,
    PST_SCHEMA_UINT16,
    PST_SCHEMA_INT32,
    PST_SCHEMA_UINT32,
    PST_SCHEMA_INT64,
    PST_SCHEMA_FLOAT64,
    PST_SCHEMA_UUID,
    PST_SCHEMA_STRING,
    PST_SCHEMA_BYTES, /* and RECORDS */
    PST_SCHEMA_STRUCT,
};

enum pst_schema_flag {
    PST_SCHEMA_ARRAY = 1,
    PST_SCHEMA_NEVER_COMPACT = 2, /* RequestHeader.client_id keeps its int16 length */
    PST_SCHEMA_DEFAULT_NULL = 4,
};

enum pst_schema_kind {
    PST_SCHEMA_HEADER,
    PST_SCHEMA_REQUEST,
    PST_SCHEMA_RESPONSE,
    PST_SCHEMA_DATA,  /* consumer protocol, marker, snapshot: no prefix of their own in the table */
    PST_SCHEMA_KEY,   /* record key; api_key is the record type that stands before it */
    PST_SCHEMA_VALUE, /* record value; its version stands before it */
};

typedef struct pst_schema_field {
    uint16_t name;         /* the Python attribute */
    uint16_t struct_index; /* of type STRUCT */
    uint8_t type;          /* pst_schema_type, of the element if an array */
    uint8_t flags;
    int16_t version_first;
    int16_t version_last;
    int16_t nullable_first;
    int16_t nullable_last;
    int16_t tag; /* -1: an ordinary field */
    int64_t default_value;
} pst_schema_field;

typedef struct pst_schema_struct {
    uint16_t name; /* the Python class */
    uint16_t field_first;
    uint16_t field_count;
} pst_schema_struct;

typedef struct pst_schema_message {
    uint16_t name;   /* Kafka's: "FetchRequest" */
    uint16_t module; /* the Python module within penstock.protocol: "messages.fetch" */
    uint16_t root;
    int16_t api_key; /* record type for keys and values; -1: none */
    int16_t version_first;
    int16_t version_last;
    int16_t flexible_first; /* INT16_MAX: never flexible */
    uint16_t kind;          /* pst_schema_kind */
} pst_schema_message;

extern const char pst_schema_names[];
extern const pst_schema_field pst_schema_fields[];
extern const pst_schema_struct pst_schema_structs[];
extern const pst_schema_message pst_schema_messages[];
extern const size_t pst_schema_field_count;
extern const size_t pst_schema_struct_count;
extern const size_t pst_schema_message_count;

/* The row of a request or response; NULL when there is none. */
const pst_schema_message *pst_schema_find(enum pst_schema_kind kind, int16_t api_key);

/* The row of Kafka's name ("OffsetCommitKey"); NULL when there is none. */
const pst_schema_message *pst_schema_find_name(const char *name);

#endif
