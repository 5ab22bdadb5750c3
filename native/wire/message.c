/* wire/message.c - decoding into cells, and the arena. Encoding is in message_encode.c.
 *
 * Owner: the caller. Layer: wire. Recursion goes as deep as the schema nests, which no input
 * changes. */
#include "wire/message.h"

#include <stdlib.h>

#include "base/error.h"

struct pst_arena_chunk {
    pst_arena_chunk *next;
    size_t size;
};

enum { CHUNK_SIZE_MIN = 8192, ALIGNMENT = 16 };
_Static_assert(sizeof(pst_arena_chunk) == ALIGNMENT, "a chunk's memory starts aligned");

void pst_arena_init(pst_arena *arena, size_t cap) {
    arena->chunks = NULL;
    arena->at = arena->first;
    arena->left = sizeof arena->first;
    arena->used = 0;
    arena->cap = cap;
}

void pst_arena_fini(pst_arena *arena) {
    while (arena->chunks != NULL) {
        pst_arena_chunk *chunk = arena->chunks;
        arena->chunks = chunk->next;
        free(chunk);
    }
    arena->left = 0;
}

void *pst_arena_alloc(pst_arena *arena, size_t size) {
    if (size > arena->cap - arena->used) {
        return NULL;
    }
    size_t rounded = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (rounded > arena->left) {
        size_t wanted = arena->used < CHUNK_SIZE_MIN ? CHUNK_SIZE_MIN : arena->used;
        wanted = wanted < rounded ? rounded : wanted;
        pst_arena_chunk *chunk = malloc(sizeof *chunk + wanted);
        if (chunk == NULL) {
            return NULL;
        }
        chunk->next = arena->chunks;
        chunk->size = wanted;
        arena->chunks = chunk;
        arena->at = (uint8_t *)(chunk + 1);
        arena->left = wanted;
    }
    void *memory = arena->at;
    arena->at += rounded;
    arena->left -= rounded;
    arena->used += rounded < arena->cap - arena->used ? rounded : arena->cap - arena->used;
    return memset(memory, 0, rounded);
}

size_t pst_schema_fixed_size(uint8_t type) {
    switch ((enum pst_schema_type)type) {
        case PST_SCHEMA_BOOL:
        case PST_SCHEMA_INT8:
            return 1;
        case PST_SCHEMA_INT16:
        case PST_SCHEMA_UINT16:
            return 2;
        case PST_SCHEMA_INT32:
        case PST_SCHEMA_UINT32:
            return 4;
        case PST_SCHEMA_INT64:
        case PST_SCHEMA_FLOAT64:
            return 8;
        case PST_SCHEMA_UUID:
            return 16;
        case PST_SCHEMA_STRING:
        case PST_SCHEMA_BYTES:
        case PST_SCHEMA_STRUCT:
            return 0;
    }
    return 0;
}

size_t pst_schema_cell_count(uint16_t struct_index, int16_t version) {
    const pst_schema_struct *shape = &pst_schema_structs[struct_index];
    const pst_schema_field *field = &pst_schema_fields[shape->field_first];
    size_t count = 0;
    for (uint16_t i = 0; i < shape->field_count; i++, field++) {
        count += pst_schema_has(field, version) ? 1 : 0;
    }
    return count;
}

/* What a decode carries down. Owner: pst_message_decode. */
typedef struct decoder {
    pst_arena *arena;
    int16_t version;
    bool flexible;
} decoder;

static size_t struct_size_min(const decoder *d, uint16_t struct_index);

/* The fewest bytes a value of the field's element type takes. */
static size_t element_size_min(const decoder *d, const pst_schema_field *field, bool nullable) {
    size_t fixed = pst_schema_fixed_size(field->type);
    if (fixed != 0) {
        return fixed;
    }
    if (field->type == PST_SCHEMA_STRUCT) {
        return nullable ? 1 : struct_size_min(d, field->struct_index);
    }
    bool compact = d->flexible && (field->flags & PST_SCHEMA_NEVER_COMPACT) == 0;
    return compact ? 1 : field->type == PST_SCHEMA_STRING ? 2 : 4;
}

static size_t struct_size_min(const decoder *d, uint16_t struct_index) {
    const pst_schema_struct *shape = &pst_schema_structs[struct_index];
    const pst_schema_field *field = &pst_schema_fields[shape->field_first];
    size_t size = d->flexible ? 1 : 0;
    for (uint16_t i = 0; i < shape->field_count; i++, field++) {
        if (!pst_schema_has(field, d->version) || field->tag >= 0) {
            continue;
        }
        if ((field->flags & PST_SCHEMA_ARRAY) != 0) {
            size += d->flexible ? 1 : 4;
        } else {
            size += element_size_min(d, field, pst_schema_nullable(field, d->version));
        }
    }
    return size;
}

static void decode_struct(decoder *d, pst_reader *r, uint16_t struct_index, pst_cell *cells);

static pst_cell *alloc_cells(decoder *d, pst_reader *r, size_t count) {
    if (count > PST_ARENA_SIZE_MAX / sizeof(pst_cell)) {
        pst_reader_fail(r, -PST_ELIMIT);
        return NULL;
    }
    pst_cell *cells = pst_arena_alloc(d->arena, count * sizeof(pst_cell));
    if (cells == NULL) {
        pst_reader_fail(r, -PST_ELIMIT);
    }
    return cells;
}

static void decode_fixed(pst_reader *r, uint8_t type, pst_cell *cell) {
    cell->state = PST_CELL_SET;
    switch ((enum pst_schema_type)type) {
        case PST_SCHEMA_BOOL:
            cell->as.number = pst_reader_bool(r);
            break;
        case PST_SCHEMA_INT8:
            cell->as.number = pst_reader_i8(r);
            break;
        case PST_SCHEMA_INT16:
            cell->as.number = pst_reader_i16(r);
            break;
        case PST_SCHEMA_UINT16:
            cell->as.number = pst_reader_u16(r);
            break;
        case PST_SCHEMA_INT32:
            cell->as.number = pst_reader_i32(r);
            break;
        case PST_SCHEMA_UINT32:
            cell->as.number = pst_reader_u32(r);
            break;
        case PST_SCHEMA_INT64:
            cell->as.number = pst_reader_i64(r);
            break;
        case PST_SCHEMA_FLOAT64:
            cell->as.real = pst_reader_f64(r);
            break;
        case PST_SCHEMA_UUID:
            cell->as.bytes = pst_reader_take(r, 16);
            cell->size = 16;
            break;
        case PST_SCHEMA_STRING:
        case PST_SCHEMA_BYTES:
        case PST_SCHEMA_STRUCT:
            pst_reader_fail(r, -PST_EINVAL);
            break;
    }
}

static void decode_sized(const decoder *d, pst_reader *r, const pst_schema_field *field,
                         bool nullable, pst_cell *cell) {
    bool compact = d->flexible && (field->flags & PST_SCHEMA_NEVER_COMPACT) == 0;
    bool null;
    pst_slice value = field->type == PST_SCHEMA_STRING
                          ? pst_reader_any_nullable_string(r, compact, &null)
                          : pst_reader_any_nullable_bytes(r, compact, &null);
    if (null && !nullable) {
        pst_reader_fail(r, -PST_EMALFORMED);
    }
    cell->state = null ? PST_CELL_NULL : PST_CELL_SET;
    cell->as.bytes = value.data;
    cell->size = (uint32_t)value.size;
}

static void decode_array(decoder *d, pst_reader *r, const pst_schema_field *field, pst_cell *cell) {
    bool null;
    int32_t count =
        pst_reader_any_nullable_array(r, d->flexible, element_size_min(d, field, false), &null);
    if (null && !pst_schema_nullable(field, d->version)) {
        pst_reader_fail(r, -PST_EMALFORMED);
    }
    cell->state = null ? PST_CELL_NULL : PST_CELL_SET;
    cell->size = (uint32_t)count;
    if (count == 0) {
        return;
    }
    size_t fixed = pst_schema_fixed_size(field->type);
    if (fixed != 0) {
        cell->as.bytes = pst_reader_take(r, (size_t)count * fixed);
        return;
    }
    size_t width = field->type == PST_SCHEMA_STRUCT
                       ? pst_schema_cell_count(field->struct_index, d->version)
                       : 1;
    pst_cell *cells = alloc_cells(d, r, (size_t)count * width);
    cell->as.cells = cells;
    for (int32_t i = 0; i < count && r->err == 0; i++) {
        if (field->type == PST_SCHEMA_STRUCT) {
            decode_struct(d, r, field->struct_index, cells + (size_t)i * width);
        } else {
            decode_sized(d, r, field, false, cells + i);
        }
    }
}

static void decode_field(decoder *d, pst_reader *r, const pst_schema_field *field, pst_cell *cell) {
    if ((field->flags & PST_SCHEMA_ARRAY) != 0) {
        decode_array(d, r, field, cell);
        return;
    }
    bool nullable = pst_schema_nullable(field, d->version);
    if (field->type == PST_SCHEMA_STRUCT) {
        if (nullable && pst_reader_i8(r) < 0) {
            cell->state = PST_CELL_NULL;
            return;
        }
        cell->state = PST_CELL_SET;
        cell->as.cells = alloc_cells(d, r, pst_schema_cell_count(field->struct_index, d->version));
        if (r->err == 0) {
            decode_struct(d, r, field->struct_index, cell->as.cells);
        }
    } else if (field->type == PST_SCHEMA_STRING || field->type == PST_SCHEMA_BYTES) {
        decode_sized(d, r, field, nullable, cell);
    } else {
        decode_fixed(r, field->type, cell);
    }
}

/* The section behind a flexible struct. Known tags land in their cells, whatever their order. */
static void decode_tagged(decoder *d, pst_reader *r, const pst_schema_struct *shape,
                          pst_cell *cells) {
    uint32_t count = pst_reader_tagged_count(r);
    for (uint32_t i = 0; i < count && r->err == 0; i++) {
        uint32_t tag = pst_reader_uvarint(r);
        uint32_t size = pst_reader_uvarint(r);
        const pst_schema_field *field = &pst_schema_fields[shape->field_first];
        pst_cell *cell = cells;
        pst_cell *known = NULL;
        for (uint16_t k = 0; k < shape->field_count; k++, field++) {
            if (!pst_schema_has(field, d->version)) {
                continue;
            }
            if (field->tag >= 0 && (uint32_t)field->tag == tag) {
                known = cell;
                break;
            }
            cell++;
        }
        if (known == NULL && size > PST_TAGGED_FIELD_SIZE_MAX) {
            pst_reader_fail(r, -PST_EMALFORMED);
        }
        pst_reader value = pst_reader_of(pst_reader_slice(r, size));
        if (known == NULL || r->err != 0) {
            continue;
        }
        memset(known, 0, sizeof *known);
        decode_field(d, &value, field, known);
        if (pst_reader_finish(&value) != 0) {
            pst_reader_fail(r, pst_reader_finish(&value));
        }
    }
}

static void decode_struct(decoder *d, pst_reader *r, uint16_t struct_index, pst_cell *cells) {
    const pst_schema_struct *shape = &pst_schema_structs[struct_index];
    const pst_schema_field *field = &pst_schema_fields[shape->field_first];
    pst_cell *cell = cells;
    for (uint16_t i = 0; i < shape->field_count && r->err == 0; i++, field++) {
        if (!pst_schema_has(field, d->version)) {
            continue;
        }
        if (field->tag < 0) {
            decode_field(d, r, field, cell);
        }
        cell++;
    }
    if (d->flexible && r->err == 0) {
        decode_tagged(d, r, shape, cells);
    }
}

int pst_message_decode(const pst_schema_message *message, int16_t version, pst_reader *reader,
                       pst_arena *arena, pst_cell **root_out) {
    *root_out = NULL;
    if (version < message->version_first || version > message->version_last) {
        return -PST_EVERSION;
    }
    decoder d = {arena, version, version >= message->flexible_first};
    pst_cell *root = alloc_cells(&d, reader, pst_schema_cell_count(message->root, version));
    if (reader->err == 0) {
        decode_struct(&d, reader, message->root, root);
    }
    if (reader->err == 0) {
        *root_out = root;
    }
    return reader->err;
}
