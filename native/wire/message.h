/* wire/message.h - the generic codec: any message of the schema table to a tree of cells, and back.
 *
 * Owner: the caller, on any thread; no shared state. Layer: wire. Knows no message by name: it
 * walks schema_table.c on the bounded cursor. Deliberately not for hot APIs: broker/ parses those
 * by hand on the same cursor.
 *
 * The tree: a struct is a block of cells, one for each field that its version has, in the schema's
 * order. A cell of an array of structs points at `size` such blocks end to end; of an array of
 * strings or bytes at `size` cells; of an array of numbers, booleans or uuids at `size` elements as
 * they stand on the wire (big-endian). Decoded strings and bytes borrow from the frame.
 *
 * (1) Memory: cells come from an arena with a cap, which a decoder derives from the frame's size.
 * (2) Unknown tagged fields are skipped; nothing of them is stored.
 * (3) A tagged field with its default value is not written, as in Kafka. */
#ifndef PST_WIRE_MESSAGE_H
#define PST_WIRE_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

#include "wire/reader.h"
#include "wire/schema.h"
#include "wire/writer.h"

enum pst_cell_state {
    PST_CELL_ABSENT = 0, /* a tagged field that was not there: it has its default */
    PST_CELL_NULL,
    PST_CELL_SET,
};

typedef struct pst_cell {
    union {
        int64_t number; /* bool, all integers */
        double real;
        const uint8_t *bytes;   /* uuid, string, bytes, array of fixed-size elements */
        struct pst_cell *cells; /* struct, array of structs, strings or bytes */
    } as;
    uint32_t size; /* bytes of a string or bytes; elements of an array */
    uint32_t state;
} pst_cell;

_Static_assert(sizeof(pst_cell) == 16, "the arena's cap counts on it");

/* Bytes of arena for a frame of `frame_size`: 8 times, plus 64 KiB, at most 64 MiB. */
#define PST_ARENA_SIZE_MAX ((size_t)64 * 1024 * 1024)
static inline size_t pst_arena_cap(size_t frame_size) {
    size_t most = PST_ARENA_SIZE_MAX;
    return frame_size > most / 8           ? most
           : frame_size * 8 + 65536 > most ? most
                                           : frame_size * 8 + 65536;
}

typedef struct pst_arena_chunk pst_arena_chunk;

/* Memory that is freed at once. Owner: the caller. The first bytes come from inside the struct. */
typedef struct pst_arena {
    pst_arena_chunk *chunks;
    uint8_t *at;
    size_t left;
    size_t used;
    size_t cap;
    _Alignas(16) uint8_t first[1024];
} pst_arena;

void pst_arena_init(pst_arena *arena, size_t cap);
void pst_arena_fini(pst_arena *arena);

/* Zeroed, aligned to 16; NULL when the cap or the memory is exhausted. */
void *pst_arena_alloc(pst_arena *arena, size_t size);

/* True when this version of the message has the field. */
static inline bool pst_schema_has(const pst_schema_field *field, int16_t version) {
    return version >= field->version_first && version <= field->version_last;
}

static inline bool pst_schema_nullable(const pst_schema_field *field, int16_t version) {
    return version >= field->nullable_first && version <= field->nullable_last;
}

/* Bytes of one element of a fixed-size type on the wire; 0 for strings, bytes and structs. */
size_t pst_schema_fixed_size(uint8_t type);

/* Cells of one struct in this version. */
size_t pst_schema_cell_count(uint16_t struct_index, int16_t version);

/* Reads one message from the cursor, which may hold more behind it. `*root_out` is the root's
 * block, valid as long as arena and frame. Returns 0, -PST_EVERSION, -PST_ETRUNC, -PST_EMALFORMED
 * or -PST_ELIMIT (arena). */
int pst_message_decode(const pst_schema_message *message, int16_t version, pst_reader *reader,
                       pst_arena *arena, pst_cell **root_out);

/* Writes one message. Returns 0, -PST_EVERSION, -PST_EINVAL (null where not allowed, a number out
 * of its type's range, an absent field that has no tag), -PST_ELIMIT or -PST_ENOMEM. */
int pst_message_encode(const pst_schema_message *message, int16_t version, const pst_cell *root,
                       pst_writer *writer);

#endif
