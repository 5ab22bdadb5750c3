# cython: language_level=3, boundscheck=False, wraparound=False
"""Binds native/wire/message.h, batch.h and codec.h: cells to objects and back, nothing else.

Only penstock.engine imports this; other code is typed against penstock.protocol.codec.MessageCodec.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stddef cimport size_t
from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, INT16_MAX,
)
from libc.string cimport memcpy

from importlib import import_module


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    int PyObject_GetBuffer(object, Py_buffer *, int) except -1
    void PyBuffer_Release(Py_buffer *)
    int PyBUF_SIMPLE

cdef extern from "<stdbool.h>" nogil:
    ctypedef bint c_bool "bool"

cdef extern from "base/slice.h" nogil:
    ctypedef struct pst_slice:
        const uint8_t *data
        size_t size
    pst_slice pst_slice_of(const void *data, size_t size) noexcept

cdef extern from "base/error.h" nogil:
    enum:
        PST_ENOMEM
        PST_EVERSION
        PST_ETRUNC
    const char *pst_strerror(int rc) noexcept

cdef extern from "base/byte_buffer.h" nogil:
    ctypedef struct pst_byte_buffer:
        uint8_t *data
        size_t size
        size_t capacity
    pst_byte_buffer pst_byte_buffer_heap(size_t limit) noexcept
    void pst_byte_buffer_fini(pst_byte_buffer *) noexcept

cdef extern from "wire/reader.h" nogil:
    ctypedef struct pst_reader:
        const uint8_t *cur
        const uint8_t *end
        int err
    pst_reader pst_reader_of(pst_slice) noexcept
    int16_t pst_reader_i16(pst_reader *) noexcept

cdef extern from "wire/writer.h" nogil:
    ctypedef struct pst_writer:
        pst_byte_buffer *buffer
        int err
    pst_writer pst_writer_of(pst_byte_buffer *) noexcept
    void pst_writer_i16(pst_writer *, int16_t) noexcept

cdef extern from "wire/schema.h" nogil:
    enum:
        PST_SCHEMA_BOOL
        PST_SCHEMA_INT8
        PST_SCHEMA_INT16
        PST_SCHEMA_UINT16
        PST_SCHEMA_INT32
        PST_SCHEMA_UINT32
        PST_SCHEMA_INT64
        PST_SCHEMA_FLOAT64
        PST_SCHEMA_UUID
        PST_SCHEMA_STRING
        PST_SCHEMA_BYTES
        PST_SCHEMA_STRUCT
        PST_SCHEMA_ARRAY
        PST_SCHEMA_DEFAULT_NULL
        PST_SCHEMA_KEY
    enum pst_schema_kind:
        PST_SCHEMA_HEADER
        PST_SCHEMA_REQUEST
        PST_SCHEMA_RESPONSE
    ctypedef struct pst_schema_field:
        uint16_t name
        uint16_t struct_index
        uint8_t type
        uint8_t flags
        int16_t tag
        int64_t default_value
    ctypedef struct pst_schema_struct:
        uint16_t name
        uint16_t field_first
        uint16_t field_count
    ctypedef struct pst_schema_message:
        uint16_t name
        uint16_t module
        uint16_t root
        int16_t api_key
        int16_t version_first
        int16_t version_last
        int16_t flexible_first
        uint16_t kind
    const char pst_schema_names[]
    const pst_schema_field pst_schema_fields[]
    const pst_schema_struct pst_schema_structs[]
    const size_t pst_schema_struct_count
    const pst_schema_message *pst_schema_find(pst_schema_kind, int16_t) noexcept
    const pst_schema_message *pst_schema_find_name(const char *) noexcept

cdef extern from "wire/api_table.h" nogil:
    ctypedef struct pst_api:
        int16_t key
    const pst_api *pst_api_find(int16_t) noexcept
    int16_t pst_api_request_header(const pst_api *, int16_t) noexcept
    int16_t pst_api_response_header(const pst_api *, int16_t) noexcept

cdef extern from "wire/message.h" nogil:
    enum:
        PST_CELL_ABSENT
        PST_CELL_NULL
        PST_CELL_SET
    ctypedef struct pst_cell  # the union is anonymous in C: its members are spelled as paths
    ctypedef struct pst_cell:
        int64_t number "as.number"
        double real "as.real"
        const uint8_t *bytes "as.bytes"
        pst_cell *cells "as.cells"
        uint32_t size
        uint32_t state
    ctypedef struct pst_arena:
        pass
    size_t PST_ARENA_SIZE_MAX
    size_t pst_arena_cap(size_t) noexcept
    void pst_arena_init(pst_arena *, size_t) noexcept
    void pst_arena_fini(pst_arena *) noexcept
    void *pst_arena_alloc(pst_arena *, size_t) noexcept
    bint pst_schema_has(const pst_schema_field *, int16_t) noexcept
    size_t pst_schema_fixed_size(uint8_t) noexcept
    size_t pst_schema_cell_count(uint16_t, int16_t) noexcept
    int pst_message_decode(
        const pst_schema_message *, int16_t, pst_reader *, pst_arena *, pst_cell **) noexcept
    int pst_message_encode(
        const pst_schema_message *, int16_t, const pst_cell *, pst_writer *) noexcept

cdef extern from "wire/batch.h" nogil:
    enum:
        PST_BATCH_HEADER_SIZE
    ctypedef struct pst_batch:
        const uint8_t *data
        size_t size
        int64_t base_offset
        int16_t attributes
        int64_t base_timestamp
        int64_t max_timestamp
        int32_t record_count
    ctypedef struct pst_record:
        c_bool key_null
        c_bool value_null
        int32_t offset_delta
        int32_t header_count
        int64_t timestamp_delta
        pst_slice key
        pst_slice value
        pst_slice headers
    ctypedef struct pst_record_iter:
        pass
    ctypedef struct pst_record_header:
        pst_slice key
        pst_slice value
        c_bool value_null
    ctypedef struct pst_batch_builder:
        int64_t base_offset
        int64_t producer_id
        int32_t leader_epoch
        int32_t base_sequence
        int16_t producer_epoch
        int16_t attributes
    int pst_batch_parse(pst_slice, pst_batch *) noexcept
    int pst_batch_check_crc(const pst_batch *) noexcept
    int pst_batch_check_stored(const pst_batch *) noexcept
    int pst_batch_codec(const pst_batch *) noexcept
    c_bool pst_batch_is_control(const pst_batch *) noexcept
    c_bool pst_batch_is_log_append_time(const pst_batch *) noexcept
    pst_slice pst_batch_records(const pst_batch *) noexcept
    void pst_record_iter_init(pst_record_iter *, pst_slice, int32_t) noexcept
    int pst_record_iter_next(pst_record_iter *, pst_record *) noexcept
    int pst_record_header_next(pst_reader *, pst_slice *, pst_slice *, c_bool *) noexcept
    void pst_batch_builder_init(pst_batch_builder *, pst_byte_buffer *) noexcept
    int pst_batch_builder_append(
        pst_batch_builder *, int64_t, const pst_slice *, const pst_slice *,
        const pst_record_header *, size_t) noexcept
    int pst_batch_builder_finish(pst_batch_builder *) noexcept
    int pst_batch_rewrite(const pst_batch *, int, pst_slice, pst_byte_buffer *) noexcept

cdef extern from "codec/codec.h" nogil:
    ctypedef struct pst_codec:
        int level_default
    const pst_codec *pst_codec_by_id(int) noexcept
    int pst_codec_compress(int, int, pst_slice, pst_byte_buffer *) noexcept
    int pst_codec_decompress(int, pst_slice, size_t, pst_byte_buffer *) noexcept


cdef object fail(int rc, str what):
    if rc == -PST_ENOMEM:
        raise MemoryError(what)
    if rc == -PST_EVERSION:
        raise LookupError(f"{what}: {pst_strerror(rc).decode()}")
    raise ValueError(f"{what}: {pst_strerror(rc).decode()}")


cdef str name_at(uint16_t offset):
    return (pst_schema_names + offset).decode()


cdef inline object to_bytes(pst_slice value):
    return PyBytes_FromStringAndSize(<const char *>value.data, <Py_ssize_t>value.size)


cdef inline int64_t load_integer(uint8_t kind, const uint8_t *at):
    """One big-endian integer or boolean."""
    cdef uint64_t raw = 0
    cdef size_t i
    for i in range(pst_schema_fixed_size(kind)):
        raw = raw << 8 | at[i]
    if kind == PST_SCHEMA_INT8:
        return <int8_t>raw
    if kind == PST_SCHEMA_INT16:
        return <int16_t>raw
    if kind == PST_SCHEMA_INT32:
        return <int32_t>raw
    return <int64_t>raw


cdef int64_t integer_in_range(uint8_t kind, object value) except? -1:
    cdef int64_t number
    cdef int bits
    if kind == PST_SCHEMA_BOOL:
        return 1 if value else 0
    try:
        number = value
    except OverflowError:
        raise ValueError(f"integer out of range: {value}") from None
    if kind == PST_SCHEMA_INT64:
        return number
    bits = 8 * <int>pst_schema_fixed_size(kind)
    if kind == PST_SCHEMA_UINT16 or kind == PST_SCHEMA_UINT32:
        if number < 0 or number >> bits != 0:
            raise ValueError(f"integer out of range: {number}")
    elif number < -(<int64_t>1 << (bits - 1)) or number >= <int64_t>1 << (bits - 1):
        raise ValueError(f"integer out of range: {number}")
    return number


cdef class _Shape:
    """The Python side of one struct: its class, and its attribute names in schema order."""

    cdef object make
    cdef type cls
    cdef list names


cdef class _Frame:
    """A tree under construction, and what must outlive it."""

    cdef pst_arena arena
    cdef list kept

    def __cinit__(self):
        pst_arena_init(&self.arena, PST_ARENA_SIZE_MAX)
        self.kept = []

    def __dealloc__(self):
        pst_arena_fini(&self.arena)

    cdef void *alloc(self, size_t size) except NULL:
        cdef void *memory = pst_arena_alloc(&self.arena, size)
        if memory is NULL:
            raise ValueError("message too large")
        return memory


cdef class MessageCodec:
    """See penstock.protocol.codec.MessageCodec."""

    cdef list _shapes  # by struct index; None until the message is first used

    def __init__(self):
        self._shapes = [None] * pst_schema_struct_count

    # -- cells to objects

    cdef _Shape _shape(self, uint16_t index):
        return <_Shape>self._shapes[index]

    cdef int _prepare(self, const pst_schema_message *message) except -1:
        """Loads the module of a message when it is first used."""
        if self._shapes[message.root] is None:
            module = import_module("penstock.protocol." + name_at(message.module))
            self._load(message.root, module)
        return 0

    cdef int _load(self, uint16_t index, object module) except -1:
        cdef const pst_schema_struct *row = &pst_schema_structs[index]
        cdef const pst_schema_field *field
        cdef _Shape shape = _Shape.__new__(_Shape)
        cdef uint16_t i
        from sys import intern
        shape.cls = getattr(module, name_at(row.name))
        shape.make = shape.cls.__new__
        shape.names = []
        for i in range(row.field_count):
            field = &pst_schema_fields[row.field_first + i]
            shape.names.append(intern(name_at(field.name)))
            if field.type == PST_SCHEMA_STRUCT and self._shapes[field.struct_index] is None:
                self._load(field.struct_index, module)
        self._shapes[index] = shape
        return 0

    cdef object _default(self, const pst_schema_field *field):
        if field.flags & PST_SCHEMA_DEFAULT_NULL:
            return None
        if field.flags & PST_SCHEMA_ARRAY:
            return []
        if field.type == PST_SCHEMA_STRING:
            return ""
        if field.type == PST_SCHEMA_BYTES:
            return b""
        if field.type == PST_SCHEMA_UUID:
            return bytes(16)
        if field.type == PST_SCHEMA_FLOAT64:
            return 0.0
        if field.type == PST_SCHEMA_BOOL:
            return field.default_value != 0
        if field.type == PST_SCHEMA_STRUCT:
            return self._shape(field.struct_index).cls()
        return field.default_value

    cdef object _scalar(self, uint8_t kind, const pst_cell *cell):
        if kind == PST_SCHEMA_STRING:
            return PyUnicode_DecodeUTF8(<const char *>cell.bytes, cell.size, NULL)
        if kind == PST_SCHEMA_BYTES or kind == PST_SCHEMA_UUID:
            return PyBytes_FromStringAndSize(<const char *>cell.bytes, cell.size)
        if kind == PST_SCHEMA_BOOL:
            return cell.number != 0
        if kind == PST_SCHEMA_FLOAT64:
            return cell.real
        return cell.number

    cdef list _list(self, const pst_schema_field *field, int16_t version, const pst_cell *cell):
        cdef list values = []
        cdef const pst_cell *at = cell.cells
        cdef const uint8_t *raw = cell.bytes
        cdef size_t width
        cdef uint32_t i
        if field.type == PST_SCHEMA_STRUCT:
            width = pst_schema_cell_count(field.struct_index, version)
            for i in range(cell.size):
                values.append(self._object(field.struct_index, version, at))
                at += width
        elif field.type == PST_SCHEMA_STRING or field.type == PST_SCHEMA_BYTES:
            for i in range(cell.size):
                values.append(self._scalar(field.type, at))
                at += 1
        else:
            width = pst_schema_fixed_size(field.type)
            for i in range(cell.size):
                if field.type == PST_SCHEMA_UUID:
                    values.append(PyBytes_FromStringAndSize(<const char *>raw, 16))
                elif field.type == PST_SCHEMA_BOOL:
                    values.append(raw[0] != 0)
                else:
                    values.append(load_integer(field.type, raw))
                raw += width
        return values

    cdef object _object(self, uint16_t index, int16_t version, const pst_cell *cells):
        cdef const pst_schema_struct *row = &pst_schema_structs[index]
        cdef const pst_schema_field *field
        cdef _Shape shape = self._shape(index)
        cdef object made = shape.make(shape.cls)
        cdef object value
        cdef uint16_t i
        for i in range(row.field_count):
            field = &pst_schema_fields[row.field_first + i]
            if not pst_schema_has(field, version):
                value = self._default(field)
            else:
                if cells.state == PST_CELL_ABSENT:
                    value = self._default(field)
                elif cells.state == PST_CELL_NULL:
                    value = None
                elif field.flags & PST_SCHEMA_ARRAY:
                    value = self._list(field, version, cells)
                elif field.type == PST_SCHEMA_STRUCT:
                    value = self._object(field.struct_index, version, cells.cells)
                else:
                    value = self._scalar(field.type, cells)
                cells += 1
            setattr(made, shape.names[i], value)
        return made

    cdef object _decode(
        self, const pst_schema_message *message, int16_t version, pst_reader *reader
    ):
        cdef pst_arena arena
        cdef pst_cell *root
        cdef int rc
        self._prepare(message)
        pst_arena_init(&arena, pst_arena_cap(<size_t>(reader.end - reader.cur)))
        try:
            rc = pst_message_decode(message, version, reader, &arena, &root)
            if rc != 0:
                fail(rc, f"{name_at(message.name)} {version}")
            return self._object(message.root, version, root)
        finally:
            pst_arena_fini(&arena)

    # -- objects to cells

    cdef int _put_scalar(self, _Frame frame, uint8_t kind, object value, pst_cell *cell) except -1:
        cdef Py_ssize_t size
        cell.state = PST_CELL_SET
        if kind == PST_SCHEMA_STRING:
            cell.bytes = <const uint8_t *>PyUnicode_AsUTF8AndSize(value, &size)
            if size > INT16_MAX:
                raise ValueError(f"string of {size} bytes: at most {INT16_MAX}")
            cell.size = <uint32_t>size
        elif kind == PST_SCHEMA_BYTES or kind == PST_SCHEMA_UUID:
            if type(value) is not bytes:
                if not isinstance(value, (bytes, bytearray, memoryview)):
                    raise TypeError(f"bytes expected, not {type(value).__name__}")
                value = bytes(value)
                frame.kept.append(value)
            size = PyBytes_GET_SIZE(value)
            if kind == PST_SCHEMA_UUID and size != 16:
                raise ValueError(f"uuid of {size} bytes")
            if size > 0x7ffffffe:
                raise ValueError("bytes too large")
            cell.bytes = <const uint8_t *>PyBytes_AS_STRING(value)
            cell.size = <uint32_t>size
        elif kind == PST_SCHEMA_FLOAT64:
            cell.real = value
        else:
            cell.number = integer_in_range(kind, value)
        return 0

    cdef int _put_list(
        self, _Frame frame, const pst_schema_field *field, int16_t version, list values,
        pst_cell *cell
    ) except -1:
        cdef size_t count = <size_t>len(values)
        cdef size_t width = 1
        cdef pst_cell *at
        cdef pst_cell one
        cdef uint8_t *raw
        cdef size_t k
        cell.state = PST_CELL_SET
        cell.size = <uint32_t>count
        if count == 0:
            return 0
        if field.type in (PST_SCHEMA_STRUCT, PST_SCHEMA_STRING, PST_SCHEMA_BYTES):
            if field.type == PST_SCHEMA_STRUCT:
                width = pst_schema_cell_count(field.struct_index, version)
            at = <pst_cell *>frame.alloc(count * width * sizeof(pst_cell))
            cell.cells = at
            for value in values:
                if field.type == PST_SCHEMA_STRUCT:
                    self._put_object(frame, field.struct_index, version, value, at)
                else:
                    self._put_scalar(frame, field.type, value, at)
                at += width
            return 0
        width = pst_schema_fixed_size(field.type)
        raw = <uint8_t *>frame.alloc(count * width)
        cell.bytes = raw
        for value in values:
            self._put_scalar(frame, field.type, value, &one)
            if field.type == PST_SCHEMA_UUID:
                memcpy(raw, one.bytes, 16)
            else:
                for k in range(width):
                    raw[k] = <uint8_t>(one.number >> (8 * (width - 1 - k)) & 0xff)
            raw += width
        return 0

    cdef int _put_object(
        self, _Frame frame, uint16_t index, int16_t version, object value, pst_cell *cells
    ) except -1:
        cdef const pst_schema_struct *row = &pst_schema_structs[index]
        cdef const pst_schema_field *field
        cdef _Shape shape = self._shape(index)
        cdef uint16_t i
        if type(value) is not shape.cls:
            raise TypeError(f"{shape.cls.__name__} expected, not {type(value).__name__}")
        for i in range(row.field_count):
            field = &pst_schema_fields[row.field_first + i]
            if not pst_schema_has(field, version):
                continue
            try:
                self._put_field(frame, field, version, getattr(value, shape.names[i]), cells)
            except (TypeError, ValueError) as error:
                error.add_note(f"in {shape.cls.__name__}.{shape.names[i]}")
                raise
            cells += 1
        return 0

    cdef int _put_field(
        self, _Frame frame, const pst_schema_field *field, int16_t version, object value,
        pst_cell *cell
    ) except -1:
        if value is None:
            cell.state = PST_CELL_NULL
        elif field.flags & PST_SCHEMA_ARRAY:
            if type(value) is not list:
                value = list(value)
                frame.kept.append(value)
            self._put_list(frame, field, version, <list>value, cell)
        elif field.type == PST_SCHEMA_STRUCT:
            cell.cells = <pst_cell *>frame.alloc(
                (pst_schema_cell_count(field.struct_index, version) + 1) * sizeof(pst_cell)
            )
            cell.state = PST_CELL_SET
            self._put_object(frame, field.struct_index, version, value, cell.cells)
        else:
            self._put_scalar(frame, field.type, value, cell)
        return 0

    cdef int _encode(
        self, const pst_schema_message *message, int16_t version, object value, pst_writer *writer
    ) except -1:
        cdef _Frame frame = _Frame()
        cdef pst_cell *root
        cdef int rc
        if version < message.version_first or version > message.version_last:
            fail(-PST_EVERSION, f"{name_at(message.name)} {version}")
        self._prepare(message)
        root = <pst_cell *>frame.alloc(
            (pst_schema_cell_count(message.root, version) + 1) * sizeof(pst_cell)
        )
        self._put_object(frame, message.root, version, value, root)
        rc = pst_message_encode(message, version, root, writer)
        if rc != 0:
            fail(rc, f"{name_at(message.name)} {version}")
        return 0

    # -- frames

    cdef const pst_schema_message *_find(self, pst_schema_kind kind, int16_t key) except NULL:
        cdef const pst_schema_message *message = pst_schema_find(kind, key)
        if message is NULL:
            raise LookupError(f"unknown API key {key}")
        return message

    def decode_request(self, int16_t api_key, int16_t version, frame):
        cdef const pst_schema_message *message = self._find(PST_SCHEMA_REQUEST, api_key)
        cdef const pst_schema_message *header = pst_schema_find_name(b"RequestHeader")
        cdef const uint8_t[::1] view = frame
        cdef pst_reader reader = pst_reader_of(_of(view))
        if version < message.version_first or version > message.version_last:
            fail(-PST_EVERSION, f"{name_at(message.name)} {version}")
        head = self._decode(
            header, pst_api_request_header(pst_api_find(api_key), version), &reader
        )
        return head, self._decode(message, version, &reader)

    def decode_response(self, int16_t api_key, int16_t version, frame):
        cdef const pst_schema_message *message = self._find(PST_SCHEMA_RESPONSE, api_key)
        cdef const pst_schema_message *header = pst_schema_find_name(b"ResponseHeader")
        cdef const uint8_t[::1] view = frame
        cdef pst_reader reader = pst_reader_of(_of(view))
        if version < message.version_first or version > message.version_last:
            fail(-PST_EVERSION, f"{name_at(message.name)} {version}")
        head = self._decode(
            header, pst_api_response_header(pst_api_find(api_key), version), &reader
        )
        return head.correlation_id, self._decode(message, version, &reader)

    def encode_request(
        self, int16_t api_key, int16_t version, int32_t correlation_id, client_id, message
    ):
        cdef const pst_schema_message *row = self._find(PST_SCHEMA_REQUEST, api_key)
        cdef const pst_schema_message *header = pst_schema_find_name(b"RequestHeader")
        cdef int16_t header_version = pst_api_request_header(pst_api_find(api_key), version)
        self._prepare(header)
        head = self._shape(header.root).cls(
            request_api_key=api_key, request_api_version=version, correlation_id=correlation_id,
            client_id=client_id,
        )
        return self._pair(header, header_version, head, row, version, message)

    def encode_response(
        self, int16_t api_key, int16_t version, int32_t correlation_id, message
    ):
        cdef const pst_schema_message *row = self._find(PST_SCHEMA_RESPONSE, api_key)
        cdef const pst_schema_message *header = pst_schema_find_name(b"ResponseHeader")
        cdef int16_t header_version = pst_api_response_header(pst_api_find(api_key), version)
        self._prepare(header)
        head = self._shape(header.root).cls(correlation_id=correlation_id)
        return self._pair(header, header_version, head, row, version, message)

    cdef bytes _pair(
        self, const pst_schema_message *header, int16_t header_version, object head,
        const pst_schema_message *row, int16_t version, object message
    ):
        cdef pst_byte_buffer buffer = pst_byte_buffer_heap(0)
        cdef pst_writer writer = pst_writer_of(&buffer)
        try:
            self._encode(header, header_version, head, &writer)
            self._encode(row, version, message, &writer)
            return PyBytes_FromStringAndSize(<const char *>buffer.data, <Py_ssize_t>buffer.size)
        finally:
            pst_byte_buffer_fini(&buffer)

    # -- records

    cdef const pst_schema_message *_named(self, str name) except NULL:
        cdef const pst_schema_message *row = pst_schema_find_name(name.encode())
        if row is NULL or row.kind in (
            PST_SCHEMA_HEADER, PST_SCHEMA_REQUEST, PST_SCHEMA_RESPONSE
        ):
            raise LookupError(f"unknown record schema {name!r}")
        return row

    def decode_record(self, str name, data):
        cdef const pst_schema_message *row = self._named(name)
        cdef const uint8_t[::1] view = data
        cdef pst_reader reader = pst_reader_of(_of(view))
        cdef int16_t prefix = pst_reader_i16(&reader)
        if reader.err != 0:
            fail(reader.err, name)
        if row.kind != PST_SCHEMA_KEY:
            return prefix, self._decode(row, prefix, &reader)
        if prefix != row.api_key:
            raise LookupError(f"{name}: record type {prefix}, not {row.api_key}")
        return 0, self._decode(row, 0, &reader)

    def encode_record(self, str name, int16_t version, message):
        cdef const pst_schema_message *row = self._named(name)
        cdef pst_byte_buffer buffer = pst_byte_buffer_heap(0)
        cdef pst_writer writer = pst_writer_of(&buffer)
        try:
            pst_writer_i16(&writer, row.api_key if row.kind == PST_SCHEMA_KEY else version)
            self._encode(row, version, message, &writer)
            return PyBytes_FromStringAndSize(<const char *>buffer.data, <Py_ssize_t>buffer.size)
        finally:
            pst_byte_buffer_fini(&buffer)

    # -- batches

    def decode_batches(self, data):
        cdef const uint8_t[::1] view = data
        cdef pst_slice left = _of(view)
        cdef pst_batch batch
        cdef list records = []
        cdef int rc
        while left.size > 0:
            rc = pst_batch_parse(left, &batch)
            if rc == -PST_ETRUNC:
                break
            if rc == 0:
                rc = pst_batch_check_crc(&batch)
            if rc == 0:
                rc = pst_batch_check_stored(&batch)
            if rc != 0:
                fail(rc, f"batch at offset {batch.base_offset}")
            if not pst_batch_is_control(&batch):
                _read_batch(&batch, records)
            left = pst_slice_of(left.data + batch.size, left.size - batch.size)
        return records

    def build_batch(
        self, records, *, int64_t base_offset=0, int32_t leader_epoch=-1, int64_t producer_id=-1,
        int16_t producer_epoch=-1, int32_t base_sequence=-1, int16_t attributes=0, int codec=0,
    ):
        cdef pst_byte_buffer plain = pst_byte_buffer_heap(0)
        cdef pst_byte_buffer packed = pst_byte_buffer_heap(0)
        cdef pst_byte_buffer final = pst_byte_buffer_heap(0)
        cdef pst_batch_builder builder
        cdef pst_batch batch
        cdef const pst_codec *row = pst_codec_by_id(codec)
        cdef int rc
        if row is NULL:
            raise LookupError(f"unknown codec {codec}")
        if attributes & 7:
            raise ValueError("attributes: the codec has an argument of its own")
        try:
            pst_batch_builder_init(&builder, &plain)
            builder.base_offset = base_offset
            builder.leader_epoch = leader_epoch
            builder.producer_id = producer_id
            builder.producer_epoch = producer_epoch
            builder.base_sequence = base_sequence
            builder.attributes = attributes
            for timestamp, key, value, headers in records:
                _append_record(&builder, timestamp, key, value, list(headers))
            rc = pst_batch_builder_finish(&builder)
            if rc != 0:
                fail(rc, "batch")
            if codec == 0:
                return to_bytes(pst_slice_of(plain.data, plain.size))
            rc = pst_batch_parse(pst_slice_of(plain.data, plain.size), &batch)
            if rc == 0:
                with nogil:
                    rc = pst_codec_compress(
                        codec, row.level_default, pst_batch_records(&batch), &packed
                    )
            if rc == 0:
                rc = pst_batch_rewrite(
                    &batch, codec, pst_slice_of(packed.data, packed.size), &final
                )
            if rc != 0:
                fail(rc, "batch")
            return to_bytes(pst_slice_of(final.data, final.size))
        finally:
            pst_byte_buffer_fini(&plain)
            pst_byte_buffer_fini(&packed)
            pst_byte_buffer_fini(&final)


cdef inline pst_slice _of(const uint8_t[::1] view):
    if view.shape[0] == 0:
        return pst_slice_of(NULL, 0)
    return pst_slice_of(&view[0], <size_t>view.shape[0])


cdef int _read_batch(const pst_batch *batch, list records) except -1:
    cdef pst_byte_buffer plain = pst_byte_buffer_heap(0)
    cdef pst_slice section = pst_batch_records(batch)
    cdef pst_record_iter walk
    cdef pst_record record
    cdef pst_reader encoded
    cdef pst_slice key, value
    cdef c_bool null
    cdef int codec = pst_batch_codec(batch)
    cdef int rc
    cdef int64_t timestamp
    cdef list headers
    try:
        if codec != 0:
            with nogil:
                rc = pst_codec_decompress(codec, section, 0, &plain)
            if rc != 0:
                fail(rc, f"batch at offset {batch.base_offset}")
            section = pst_slice_of(plain.data, plain.size)
        pst_record_iter_init(&walk, section, batch.record_count)
        while True:
            rc = pst_record_iter_next(&walk, &record)
            if rc != 1:
                break
            headers = []
            encoded = pst_reader_of(record.headers)
            while pst_record_header_next(&encoded, &key, &value, &null) == 1:
                headers.append((to_bytes(key), None if null else to_bytes(value)))
            if pst_batch_is_log_append_time(batch):
                timestamp = batch.max_timestamp
            else:
                timestamp = <int64_t>(
                    <uint64_t>batch.base_timestamp + <uint64_t>record.timestamp_delta
                )
            records.append((
                <int64_t>(<uint64_t>batch.base_offset + <uint64_t><int64_t>record.offset_delta),
                timestamp,
                None if record.key_null else to_bytes(record.key),
                None if record.value_null else to_bytes(record.value),
                headers,
            ))
        if rc != 0:
            fail(rc, f"batch at offset {batch.base_offset}")
    finally:
        pst_byte_buffer_fini(&plain)
    return 0


cdef inline pst_slice _bytes_of(bytes value):
    return pst_slice_of(PyBytes_AS_STRING(value), <size_t>PyBytes_GET_SIZE(value))


cdef int _append_record(
    pst_batch_builder *builder, int64_t timestamp, bytes key, bytes value, list headers
) except -1:
    cdef pst_record_header encoded[64]
    cdef pst_slice key_slice
    cdef pst_slice value_slice
    cdef size_t count = <size_t>len(headers)
    cdef size_t i
    cdef int rc
    cdef bytes header_key, header_value
    if count > 64:
        raise ValueError("more than 64 headers in one record")
    for i in range(count):
        header_key, header_value = headers[i]
        if header_key is None:
            raise TypeError("a header's key is bytes")
        encoded[i].key = _bytes_of(header_key)
        encoded[i].value_null = header_value is None
        if header_value is not None:
            encoded[i].value = _bytes_of(header_value)
        else:
            encoded[i].value = pst_slice_of(NULL, 0)
    if key is not None:
        key_slice = _bytes_of(key)
    if value is not None:
        value_slice = _bytes_of(value)
    rc = pst_batch_builder_append(
        builder, timestamp, &key_slice if key is not None else NULL,
        &value_slice if value is not None else NULL, encoded, count,
    )
    if rc != 0:
        fail(rc, "record")
    return 0
