/* wire/message_encode.c - cells to bytes.
 *
 * Owner: the caller. Layer: wire. The tree comes from our own Python, whose values are still
 * checked here: a wrong one is -PST_EINVAL, never a malformed frame. */
#include "base/error.h"
#include "wire/message.h"

/* What an encode carries down. Owner: pst_message_encode. */
typedef struct encoder {
    int16_t version;
    bool flexible;
} encoder;

static void encode_struct(const encoder *e, pst_writer *w, uint16_t struct_index,
                          const pst_cell *cells);

static bool in_range(uint8_t type, int64_t value) {
    switch ((enum pst_schema_type)type) {
        case PST_SCHEMA_BOOL:
            return value == 0 || value == 1;
        case PST_SCHEMA_INT8:
            return value >= INT8_MIN && value <= INT8_MAX;
        case PST_SCHEMA_INT16:
            return value >= INT16_MIN && value <= INT16_MAX;
        case PST_SCHEMA_UINT16:
            return value >= 0 && value <= UINT16_MAX;
        case PST_SCHEMA_INT32:
            return value >= INT32_MIN && value <= INT32_MAX;
        case PST_SCHEMA_UINT32:
            return value >= 0 && value <= UINT32_MAX;
        case PST_SCHEMA_INT64:
        case PST_SCHEMA_FLOAT64:
        case PST_SCHEMA_UUID:
        case PST_SCHEMA_STRING:
        case PST_SCHEMA_BYTES:
        case PST_SCHEMA_STRUCT:
            return true;
    }
    return false;
}

static void encode_fixed(pst_writer *w, uint8_t type, const pst_cell *cell) {
    if (type == PST_SCHEMA_UUID) {
        pst_writer_raw(w, cell->as.bytes, 16);
        return;
    }
    if (type == PST_SCHEMA_FLOAT64) {
        pst_writer_f64(w, cell->as.real);
        return;
    }
    int64_t value = cell->as.number;
    if (!in_range(type, value)) {
        pst_writer_fail(w, -PST_EINVAL);
        return;
    }
    switch (pst_schema_fixed_size(type)) {
        case 1:
            pst_writer_u8(w, (uint8_t)value);
            break;
        case 2:
            pst_writer_u16(w, (uint16_t)value);
            break;
        case 4:
            pst_writer_u32(w, (uint32_t)value);
            break;
        default:
            pst_writer_i64(w, value);
            break;
    }
}

static void encode_sized(const encoder *e, pst_writer *w, const pst_schema_field *field,
                         const pst_cell *cell) {
    bool compact = e->flexible && (field->flags & PST_SCHEMA_NEVER_COMPACT) == 0;
    pst_slice value = {cell->as.bytes, cell->size};
    const pst_slice *given = cell->state == PST_CELL_NULL ? NULL : &value;
    if (field->type == PST_SCHEMA_STRING) {
        pst_writer_any_string(w, compact, given);
    } else {
        pst_writer_any_bytes(w, compact, given);
    }
}

static void encode_array(const encoder *e, pst_writer *w, const pst_schema_field *field,
                         const pst_cell *cell) {
    if (cell->state == PST_CELL_NULL) {
        pst_writer_any_array(w, e->flexible, -1);
        return;
    }
    if (cell->size >= INT32_MAX) {
        pst_writer_fail(w, -PST_ELIMIT);
        return;
    }
    pst_writer_any_array(w, e->flexible, (int32_t)cell->size);
    size_t fixed = pst_schema_fixed_size(field->type);
    if (fixed != 0) {
        pst_writer_raw(w, cell->as.bytes, cell->size * fixed);
        return;
    }
    if (field->type == PST_SCHEMA_STRUCT) {
        size_t width = pst_schema_cell_count(field->struct_index, e->version);
        for (uint32_t i = 0; i < cell->size && w->err == 0; i++) {
            encode_struct(e, w, field->struct_index, cell->as.cells + (size_t)i * width);
        }
        return;
    }
    for (uint32_t i = 0; i < cell->size && w->err == 0; i++) {
        if (cell->as.cells[i].state != PST_CELL_SET) {
            pst_writer_fail(w, -PST_EINVAL);
            return;
        }
        encode_sized(e, w, field, &cell->as.cells[i]);
    }
}

static void encode_field(const encoder *e, pst_writer *w, const pst_schema_field *field,
                         const pst_cell *cell) {
    bool nullable = pst_schema_nullable(field, e->version);
    if (cell->state == PST_CELL_ABSENT || (cell->state == PST_CELL_NULL && !nullable)) {
        pst_writer_fail(w, -PST_EINVAL);
        return;
    }
    if ((field->flags & PST_SCHEMA_ARRAY) != 0) {
        encode_array(e, w, field, cell);
    } else if (field->type == PST_SCHEMA_STRUCT) {
        if (nullable) {
            pst_writer_i8(w, cell->state == PST_CELL_NULL ? -1 : 1);
        }
        if (cell->state == PST_CELL_SET) {
            encode_struct(e, w, field->struct_index, cell->as.cells);
        }
    } else if (field->type == PST_SCHEMA_STRING || field->type == PST_SCHEMA_BYTES) {
        encode_sized(e, w, field, cell);
    } else if (cell->state == PST_CELL_NULL) {
        pst_writer_fail(w, -PST_EINVAL);
    } else {
        encode_fixed(w, field->type, cell);
    }
}

static bool struct_is_default(const encoder *e, uint16_t struct_index, const pst_cell *cells);

static bool is_default(const encoder *e, const pst_schema_field *field, const pst_cell *cell) {
    static const uint8_t zero_uuid[16];
    bool default_null = (field->flags & PST_SCHEMA_DEFAULT_NULL) != 0;
    if (cell->state == PST_CELL_ABSENT) {
        return true;
    }
    if (cell->state == PST_CELL_NULL || default_null) {
        return cell->state == PST_CELL_NULL && default_null;
    }
    if ((field->flags & PST_SCHEMA_ARRAY) != 0) {
        return cell->size == 0;
    }
    switch ((enum pst_schema_type)field->type) {
        case PST_SCHEMA_STRING:
        case PST_SCHEMA_BYTES:
            return cell->size == 0;
        case PST_SCHEMA_UUID:
            return memcmp(cell->as.bytes, zero_uuid, sizeof zero_uuid) == 0;
        case PST_SCHEMA_FLOAT64:
            return cell->as.number == 0; /* bits: -0.0 is not the default */
        case PST_SCHEMA_STRUCT:
            return struct_is_default(e, field->struct_index, cell->as.cells);
        case PST_SCHEMA_BOOL:
        case PST_SCHEMA_INT8:
        case PST_SCHEMA_INT16:
        case PST_SCHEMA_UINT16:
        case PST_SCHEMA_INT32:
        case PST_SCHEMA_UINT32:
        case PST_SCHEMA_INT64:
            return cell->as.number == field->default_value;
    }
    return false;
}

static bool struct_is_default(const encoder *e, uint16_t struct_index, const pst_cell *cells) {
    const pst_schema_struct *shape = &pst_schema_structs[struct_index];
    const pst_schema_field *field = &pst_schema_fields[shape->field_first];
    for (uint16_t i = 0; i < shape->field_count; i++, field++) {
        if (pst_schema_has(field, e->version) && !is_default(e, field, cells++)) {
            return false;
        }
    }
    return true;
}

/* One tagged field: its value is written aside first, for its size stands before it. */
static void encode_tagged_field(const encoder *e, pst_writer *w, const pst_schema_field *field,
                                const pst_cell *cell) {
    pst_byte_buffer aside = {.limit = w->buffer->limit};
    pst_writer value = pst_writer_of(&aside);
    encode_field(e, &value, field, cell);
    if (value.err != 0) {
        pst_writer_fail(w, value.err);
    } else {
        pst_writer_uvarint(w, (uint32_t)field->tag);
        pst_writer_uvarint(w, (uint32_t)aside.size);
        pst_writer_raw(w, aside.data, aside.size);
    }
    pst_byte_buffer_fini(&aside);
}

/* The next tagged field that must be written, in ascending order of tags; NULL after the last. */
static const pst_schema_field *next_tagged(const encoder *e, const pst_schema_struct *shape,
                                           const pst_cell *cells, int after,
                                           const pst_cell **cell_out) {
    const pst_schema_field *found = NULL;
    const pst_schema_field *field = &pst_schema_fields[shape->field_first];
    for (uint16_t i = 0; i < shape->field_count; i++, field++) {
        if (!pst_schema_has(field, e->version)) {
            continue;
        }
        const pst_cell *cell = cells++;
        if (field->tag > after && (found == NULL || field->tag < found->tag) &&
            !is_default(e, field, cell)) {
            found = field;
            *cell_out = cell;
        }
    }
    return found;
}

static void encode_struct(const encoder *e, pst_writer *w, uint16_t struct_index,
                          const pst_cell *cells) {
    const pst_schema_struct *shape = &pst_schema_structs[struct_index];
    const pst_schema_field *field = &pst_schema_fields[shape->field_first];
    const pst_cell *cell = cells;
    uint32_t tagged = 0;
    for (uint16_t i = 0; i < shape->field_count && w->err == 0; i++, field++) {
        if (!pst_schema_has(field, e->version)) {
            continue;
        }
        if (field->tag < 0) {
            encode_field(e, w, field, cell);
        } else if (!is_default(e, field, cell)) {
            tagged++;
        }
        cell++;
    }
    if (!e->flexible) {
        return;
    }
    pst_writer_uvarint(w, tagged);
    int after = -1;
    while (tagged-- > 0 && w->err == 0) {
        field = next_tagged(e, shape, cells, after, &cell);
        encode_tagged_field(e, w, field, cell);
        after = field->tag;
    }
}

int pst_message_encode(const pst_schema_message *message, int16_t version, const pst_cell *root,
                       pst_writer *writer) {
    if (version < message->version_first || version > message->version_last) {
        return -PST_EVERSION;
    }
    encoder e = {version, version >= message->flexible_first};
    encode_struct(&e, writer, message->root, root);
    return writer->err;
}
