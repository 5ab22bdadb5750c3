# cython: language_level=3, boundscheck=False, wraparound=False
"""The binding of the native engine: convert, call without the GIL, check, return. It decides
nothing.

`engine.py` is the only importer. C owns C memory, Python owns Python memory: bytes that come up are
copied, but for a `Frame`, which holds one native reference until `release`.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_WarnEx
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from penstock.errors import EngineError, ForkedError, StartError


cdef enum:
    ERROR_SIZE = 512
    DRAIN_MAX = 256
    COUNTERS_MAX = 64


cdef object failure(int rc, str what):
    text = pst_engine_strerror(rc).decode()
    return EngineError(f"{what}: {text}", pst_engine_kafka_error(rc))


cdef const uint8_t *id_bytes(bytes topic_id) except NULL:
    if len(topic_id) != 16:
        raise ValueError("a topic id has 16 bytes")
    return <const uint8_t *><const char *>topic_id


cdef str text_of(pst_broker_name name):
    return name.data[:name.size].decode("utf-8", "surrogateescape")


cdef bytes bytes_of(str name):
    return name.encode("utf-8", "surrogateescape")


@cython.no_gc_clear
cdef class Frame:
    """Owned bytes of one request, kept for `Engine.redispatch`; a read-only buffer until then."""

    cdef pst_engine_frame *_frame
    cdef const uint8_t *_data
    cdef Py_ssize_t _size
    cdef int _exports
    cdef object _engine

    def __getbuffer__(self, Py_buffer *view, int flags):
        if self._frame == NULL:
            raise ValueError("the frame was released")
        PyBuffer_FillInfo(view, self, <void *>self._data, self._size, 1, flags)
        self._exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self._exports -= 1

    def release(self):
        """Idempotent. BufferError while a memoryview of it lives."""
        if self._exports > 0:
            raise BufferError("a view of the frame is in use")
        pst_engine_frame_release(self._frame)
        self._frame = NULL

    def __dealloc__(self):
        if self._frame != NULL:
            pst_engine_frame_release(self._frame)
            PyErr_WarnEx(ResourceWarning, b"a request frame was not released", 1)


cdef class Engine:
    """One native engine. Made by `open_engine`."""

    cdef pst_engine *_engine
    cdef pst_engine_request *_requests
    cdef object __weakref__

    def __dealloc__(self):
        with nogil:
            pst_engine_destroy(self._engine)
        free(self._requests)

    cdef int check(self, int rc, str what) except -1:
        if rc >= 0:
            return 0
        if rc == -PST_ECLOSED:
            raise ForkedError("the broker is stopped, or belongs to the parent process")
        raise failure(rc, what)

    # -- life ----------------------------------------------------------------------------------
    def bind(self, list listeners):
        """[(host, port)] -> ports."""
        cdef int32_t count = <int32_t>len(listeners)
        cdef char[ERROR_SIZE] error
        cdef int rc
        cdef int32_t i
        hosts = [host.encode() for host, port in listeners]
        cdef pst_engine_listener *raw = <pst_engine_listener *>calloc(
            count + 1, sizeof(pst_engine_listener))
        cdef int32_t *ports = <int32_t *>calloc(count + 1, sizeof(int32_t))
        try:
            if raw == NULL or ports == NULL:
                raise MemoryError
            for i in range(count):
                raw[i].host = <const char *><bytes>hosts[i]
                raw[i].port = listeners[i][1]
            with nogil:
                rc = pst_engine_bind(self._engine, raw, count, ports, error, ERROR_SIZE)
            if rc < 0:
                raise StartError((<bytes>error).decode("utf-8", "replace"))
            return [ports[i] for i in range(count)]
        finally:
            free(raw)
            free(ports)

    def serve(self):
        cdef int rc
        with nogil:
            rc = pst_engine_serve(self._engine)
        self.check(rc, "cannot serve")

    def stop(self, bint graceful):
        cdef int rc
        with nogil:
            rc = pst_engine_stop(self._engine, graceful)
        self.check(rc, "the logs could not be closed cleanly")

    def abandon(self):
        with nogil:
            pst_engine_abandon(self._engine)

    # -- requests ------------------------------------------------------------------------------
    def eventfd(self):
        return pst_engine_eventfd(self._engine)

    def drain(self, int limit):
        """[(token, api_key, api_version, frame bytes, peer, listener, Frame or None)]"""
        cdef int count
        cdef int i
        cdef pst_engine_request *request
        cdef Frame kept
        if limit > DRAIN_MAX:
            limit = DRAIN_MAX
        with nogil:
            count = pst_engine_drain(self._engine, self._requests, limit)
        if count == -PST_ECLOSED:
            return []
        self.check(count, "cannot take requests")
        found = []
        for i in range(count):
            request = &self._requests[i]
            data = PyBytes_FromStringAndSize(<const char *>request.data, <Py_ssize_t>request.size)
            kept = None
            if request.may_redispatch:
                kept = Frame.__new__(Frame)
                kept._frame = request.frame
                kept._data = request.data
                kept._size = <Py_ssize_t>request.size
                kept._engine = self
            else:
                pst_engine_frame_release(request.frame)
            token = (<object>request.connection << 64) | request.sequence
            found.append((token, request.api_key, request.api_version, data,
                          request.peer.decode("ascii", "replace"), request.listener, kept))
        return found

    def respond(self, object token, object payload):
        cdef Py_buffer view
        cdef int rc
        cdef uint64_t connection = token >> 64
        cdef uint64_t sequence = token & 0xFFFFFFFFFFFFFFFF
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        with nogil:
            rc = pst_engine_respond(self._engine, connection, sequence, <const uint8_t *>view.buf,
                                    <size_t>view.len)
        PyBuffer_Release(&view)
        if rc != -PST_ECLOSED:
            self.check(rc, "cannot answer")

    def redispatch(self, object token, Frame frame not None):
        """Takes the frame."""
        cdef int rc
        cdef uint64_t connection = token >> 64
        cdef uint64_t sequence = token & 0xFFFFFFFFFFFFFFFF
        cdef pst_engine_frame *raw = frame._frame
        if raw == NULL or frame._exports > 0:
            raise BufferError("the frame was released or is in use")
        frame._frame = NULL
        with nogil:
            rc = pst_engine_redispatch(self._engine, connection, sequence, raw)
        if rc != -PST_ECLOSED:
            self.check(rc, "cannot redispatch")

    def close_connection(self, object token):
        cdef int rc
        cdef uint64_t connection = token >> 64
        cdef uint64_t sequence = token & 0xFFFFFFFFFFFFFFFF
        with nogil:
            rc = pst_engine_close_connection(self._engine, connection, sequence)
        if rc != -PST_ECLOSED:
            self.check(rc, "cannot close a connection")

    # -- image ---------------------------------------------------------------------------------
    def publish_cluster(self, bytes cluster_id, int32_t node_id, int32_t controller_id,
                        bytes rack, list endpoints, bint auto_create):
        """endpoints: [(host bytes, port, listener index)]"""
        cdef pst_engine_cluster raw
        cdef int rc
        cdef int32_t i
        cdef int32_t count = <int32_t>len(endpoints)
        cdef pst_engine_endpoint *places = <pst_engine_endpoint *>calloc(
            count + 1, sizeof(pst_engine_endpoint))
        if places == NULL:
            raise MemoryError
        try:
            for i in range(count):
                host, port, listener = endpoints[i]
                places[i].host = <const char *><bytes>host
                places[i].port = port
                places[i].listener = listener
            raw.cluster_id = cluster_id
            raw.rack = NULL
            if rack is not None:
                raw.rack = rack
            raw.endpoints = places
            raw.endpoint_count = count
            raw.node_id = node_id
            raw.controller_id = controller_id
            raw.auto_create_topics = auto_create
            with nogil:
                rc = pst_engine_publish_cluster(self._engine, &raw)
        finally:
            free(places)
        self.check(rc, "cannot publish the cluster")

    def publish_topics(self, list topics, list removed):
        """topics: [(name bytes, id, is_internal, ((index, leader epoch, log dir), ...), config)],
        removed: [id]. -> partitions whose log could not be opened."""
        cdef int32_t count = <int32_t>len(topics)
        cdef int32_t failed = 0
        cdef int rc = 0
        cdef int32_t i
        cdef size_t at = 0
        cdef size_t partition_count = 0
        cdef bytes gone = b"".join(removed)
        cdef const uint8_t *gone_bytes = <const uint8_t *><const char *>gone
        cdef int32_t gone_count = <int32_t>len(removed)
        cdef pst_engine_topic *raw
        cdef pst_engine_partition *partitions
        if len(gone) != 16 * len(removed):
            raise ValueError("a topic id has 16 bytes")
        for topic in topics:
            partition_count += <size_t>len(topic[3])
        raw = <pst_engine_topic *>calloc(<size_t>count + 1, sizeof(pst_engine_topic))
        partitions = <pst_engine_partition *>calloc(partition_count + 1,
                                                    sizeof(pst_engine_partition))
        try:
            if raw == NULL or partitions == NULL:
                raise MemoryError
            for i in range(count):
                name, topic_id, internal, places, config = topics[i]
                raw[i].name = <const char *><bytes>name
                raw[i].name_size = <size_t>len(name)
                memcpy(raw[i].id, id_bytes(topic_id), 16)
                raw[i].is_internal = internal
                raw[i].partitions = partitions + at
                raw[i].partition_count = <int32_t>len(places)
                for index, epoch, log_dir in places:
                    partitions[at].index = index
                    partitions[at].leader_epoch = epoch
                    partitions[at].log_dir = log_dir
                    at += 1
                fill_config(&raw[i].config, config)
            with nogil:
                rc = pst_engine_publish_topics(self._engine, raw, count, gone_bytes, gone_count,
                                               &failed)
        finally:
            free(raw)
            free(partitions)
        self.check(rc, "cannot publish topics")
        return failed

    # -- partitions ----------------------------------------------------------------------------
    def append(self, bytes topic_id, int32_t partition, object batch):
        cdef Py_buffer view
        cdef int64_t base_offset
        cdef int rc
        cdef const uint8_t *raw_id = id_bytes(topic_id)
        PyObject_GetBuffer(batch, &view, PyBUF_SIMPLE)
        with nogil:
            rc = pst_engine_append(self._engine, raw_id, partition, <const uint8_t *>view.buf,
                                   <size_t>view.len, &base_offset)
        PyBuffer_Release(&view)
        self.check(rc, "cannot append")
        return base_offset

    def read(self, bytes topic_id, int32_t partition, int64_t offset, size_t size_max):
        cdef uint8_t *data
        cdef size_t size
        cdef int rc
        cdef const uint8_t *raw_id = id_bytes(topic_id)
        with nogil:
            rc = pst_engine_read(self._engine, raw_id, partition, offset, size_max, &data, &size)
        self.check(rc, "cannot read")
        try:
            return PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>size)
        finally:
            pst_engine_free(data)

    def offsets(self, bytes topic_id, int32_t partition):
        """(log start, last stable, high watermark, log end)"""
        cdef pst_engine_offsets found
        cdef int rc
        cdef const uint8_t *raw_id = id_bytes(topic_id)
        with nogil:
            rc = pst_engine_get_offsets(self._engine, raw_id, partition, &found)
        self.check(rc, "cannot tell offsets")
        return found.log_start, found.last_stable, found.high_watermark, found.log_end

    def delete_records(self, bytes topic_id, int32_t partition, int64_t offset):
        cdef int64_t log_start
        cdef int rc
        cdef const uint8_t *raw_id = id_bytes(topic_id)
        with nogil:
            rc = pst_engine_delete_records(self._engine, raw_id, partition, offset, &log_start)
        self.check(rc, "cannot delete records")
        return log_start

    def log_size(self, bytes topic_id, int32_t partition):
        cdef int64_t size
        cdef int rc
        cdef const uint8_t *raw_id = id_bytes(topic_id)
        with nogil:
            rc = pst_engine_log_size(self._engine, raw_id, partition, &size)
        self.check(rc, "cannot tell the size")
        return size

    def dir_info(self, int32_t log_dir):
        """(total bytes, usable bytes, online)"""
        cdef pst_engine_dir_info info
        cdef int rc
        with nogil:
            rc = pst_engine_get_dir_info(self._engine, log_dir, &info)
        self.check(rc, "cannot describe the log directory")
        return info.total_bytes, info.usable_bytes, bool(info.online)

    def run_retention(self):
        cdef int rc
        with nogil:
            rc = pst_engine_run_retention(self._engine)
        self.check(rc, "cannot start retention")

    def checkpoint(self):
        cdef int rc
        with nogil:
            rc = pst_engine_checkpoint(self._engine)
        self.check(rc, "cannot write checkpoints")

    def statistics(self):
        cdef pst_engine_counter[COUNTERS_MAX] counters
        cdef int count
        cdef int i
        with nogil:
            count = pst_engine_get_statistics(self._engine, counters, COUNTERS_MAX)
        return {counters[i].name.decode(): counters[i].value for i in range(count)}


cdef int fill_config(pst_engine_topic_config *raw, tuple config) except -1:
    (raw.segment_bytes, raw.segment_ms, raw.segment_jitter_ms, raw.segment_index_bytes,
     raw.index_interval_bytes, raw.retention_ms, raw.retention_bytes, raw.file_delete_delay_ms,
     raw.max_message_bytes, raw.message_timestamp_before_max_ms,
     raw.message_timestamp_after_max_ms, raw.message_timestamp_type, raw.compression_type,
     raw.compression_gzip_level, raw.compression_lz4_level, raw.compression_zstd_level,
     raw.cleanup_policy, raw.min_insync_replicas, raw.preallocate) = config
    return 0


def open_engine(int32_t node_id, list log_dirs, int32_t reactors, int32_t io_threads, dict limits):
    """Locks and reads the directories. StartError with one sentence."""
    cdef Engine self = Engine.__new__(Engine)
    cdef pst_engine_settings raw
    cdef char[ERROR_SIZE] error
    cdef int rc
    cdef Py_ssize_t i
    names = [name.encode() for name in limits]
    values = list(limits.values())
    cdef const char **dirs = <const char **>calloc(len(log_dirs) + 1, sizeof(char *))
    cdef pst_engine_limit *table = <pst_engine_limit *>calloc(
        len(names) + 1, sizeof(pst_engine_limit))
    self._requests = <pst_engine_request *>malloc(DRAIN_MAX * sizeof(pst_engine_request))
    try:
        if dirs == NULL or table == NULL or self._requests == NULL:
            raise MemoryError
        for i in range(len(log_dirs)):
            dirs[i] = <const char *><bytes>log_dirs[i]
        for i in range(len(names)):
            table[i].name = <const char *><bytes>names[i]
            table[i].value = values[i]
        raw.node_id = node_id
        raw.log_dirs = dirs
        raw.log_dir_count = <int32_t>len(log_dirs)
        raw.reactors = reactors
        raw.io_threads = io_threads
        raw.limits = table
        raw.limit_count = <int32_t>len(names)
        with nogil:
            rc = pst_engine_open(&raw, error, ERROR_SIZE, &self._engine)
        if rc < 0:
            raise StartError((<bytes>error).decode("utf-8", "replace"))
    finally:
        free(dirs)
        free(table)
    return self


cdef class OffsetTable:
    """Committed offsets (groups.ports.OffsetTable). `entry_type` is called with one's fields."""

    cdef pst_broker_offsets *_table
    cdef object _engine
    cdef object _entry_type

    def __cinit__(self, Engine engine not None, object entry_type):
        self._engine = engine
        self._table = pst_engine_offset_table(engine._engine)
        self._entry_type = entry_type

    cdef object entry(self, const pst_broker_offset_row *row):
        return self._entry_type(
            <bytes>row.value.topic_id[:16], text_of(row.topic), row.value.partition,
            row.value.offset, row.value.leader_epoch, text_of(row.metadata),
            row.value.commit_timestamp, row.value.expire_timestamp)

    def put(self, str group, bytes topic_id, str topic, int32_t partition, int64_t offset,
            int32_t leader_epoch, str metadata, int64_t commit_timestamp,
            int64_t expire_timestamp):
        cdef pst_broker_offset value
        cdef bytes g = bytes_of(group)
        cdef bytes t = bytes_of(topic)
        cdef bytes m = bytes_of(metadata)
        memcpy(value.topic_id, id_bytes(topic_id), 16)
        value.offset = offset
        value.commit_timestamp = commit_timestamp
        value.expire_timestamp = expire_timestamp
        value.partition = partition
        value.leader_epoch = leader_epoch
        if pst_broker_offsets_put(self._table, g, <size_t>len(g), t, <size_t>len(t), &value, m,
                                  <size_t>len(m)) < 0:
            raise MemoryError("the table of committed offsets is full")

    def get(self, str group, str topic, int32_t partition):
        cdef pst_broker_offset_row *row
        cdef bytes g = bytes_of(group)
        cdef bytes t = bytes_of(topic)
        cdef int rc = pst_broker_offsets_get(self._table, g, <size_t>len(g), t, <size_t>len(t),
                                             partition, &row)
        if rc == -PST_ENOENT:
            return None
        if rc < 0:
            raise MemoryError
        try:
            return self.entry(row)
        finally:
            pst_broker_rows_free(row)

    def remove(self, str group, str topic, int32_t partition):
        cdef bytes g = bytes_of(group)
        cdef bytes t = bytes_of(topic)
        return pst_broker_offsets_remove(self._table, g, <size_t>len(g), t, <size_t>len(t),
                                         partition) == 0

    def remove_group(self, str group):
        cdef bytes g = bytes_of(group)
        return pst_broker_offsets_remove_group(self._table, g, <size_t>len(g))

    def iterate(self, str group):
        cdef pst_broker_offset_row *rows
        cdef size_t count
        cdef size_t i
        cdef bytes g = bytes_of(group)
        if pst_broker_offsets_rows(self._table, g, <size_t>len(g), &rows, &count) < 0:
            raise MemoryError
        try:
            return iter([self.entry(&rows[i]) for i in range(count)])
        finally:
            pst_broker_rows_free(rows)

    def groups(self):
        cdef pst_broker_name *names
        cdef size_t count
        cdef size_t i
        if pst_broker_offsets_groups(self._table, &names, &count) < 0:
            raise MemoryError
        try:
            return iter([text_of(names[i]) for i in range(count)])
        finally:
            pst_broker_names_free(names)

    def size(self):
        return pst_broker_offsets_size(self._table)


cdef class MemberTable:
    """Session deadlines (groups.ports.MemberTable)."""

    cdef pst_broker_members *_table
    cdef object _engine

    def __cinit__(self, Engine engine not None):
        self._engine = engine
        self._table = pst_engine_member_table(engine._engine)

    def upsert(self, str group, str member, int32_t generation, int64_t deadline):
        cdef bytes g = bytes_of(group)
        cdef bytes m = bytes_of(member)
        if pst_broker_members_upsert(self._table, g, <size_t>len(g), m, <size_t>len(m), generation,
                                     deadline) < 0:
            raise MemoryError("the table of group members is full")

    def touch(self, str group, str member, int64_t deadline):
        cdef bytes g = bytes_of(group)
        cdef bytes m = bytes_of(member)
        return pst_broker_members_touch(self._table, g, <size_t>len(g), m, <size_t>len(m),
                                        deadline) == 0

    def remove(self, str group, str member):
        cdef bytes g = bytes_of(group)
        cdef bytes m = bytes_of(member)
        return pst_broker_members_remove(self._table, g, <size_t>len(g), m, <size_t>len(m)) == 0

    def expired(self, int64_t now):
        cdef pst_broker_member_row *rows
        cdef size_t count
        cdef size_t i
        if pst_broker_members_expired(self._table, now, &rows, &count) < 0:
            raise MemoryError
        try:
            return [(text_of(rows[i].group), text_of(rows[i].member)) for i in range(count)]
        finally:
            pst_broker_member_rows_free(rows)

    def next_deadline(self):
        return pst_broker_members_next_deadline(self._table)

    def size(self):
        return pst_broker_members_size(self._table)
