"""What the binding sees of native/include/penstock.h; every function is `noexcept nogil`."""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint64_t


cdef extern from "penstock.h" nogil:
    enum:
        PST_ELIMIT
        PST_ECLOSED
        PST_ENOENT
    ctypedef struct pst_engine:
        pass
    ctypedef struct pst_engine_frame:
        pass
    ctypedef struct pst_engine_limit:
        const char *name
        int64_t value
    ctypedef struct pst_engine_settings:
        int32_t node_id
        const char *const *log_dirs
        int32_t log_dir_count
        int32_t reactors
        int32_t io_threads
        const pst_engine_limit *limits
        int32_t limit_count
    ctypedef struct pst_engine_listener:
        const char *host
        int32_t port
    ctypedef struct pst_engine_request:
        uint64_t connection
        uint64_t sequence
        int16_t api_key
        int16_t api_version
        int32_t listener
        bint may_redispatch
        const uint8_t *data
        size_t size
        pst_engine_frame *frame
        char peer[64]
    ctypedef struct pst_engine_endpoint:
        const char *host
        int32_t port
        int32_t listener
    ctypedef struct pst_engine_cluster:
        const char *cluster_id
        const char *rack
        const pst_engine_endpoint *endpoints
        int32_t endpoint_count
        int32_t node_id
        int32_t controller_id
        bint auto_create_topics
    ctypedef struct pst_engine_topic_config:
        int64_t segment_bytes
        int64_t segment_ms
        int64_t segment_jitter_ms
        int64_t segment_index_bytes
        int64_t index_interval_bytes
        int64_t retention_ms
        int64_t retention_bytes
        int64_t file_delete_delay_ms
        int64_t max_message_bytes
        int64_t message_timestamp_before_max_ms
        int64_t message_timestamp_after_max_ms
        int32_t message_timestamp_type
        int32_t compression_type
        int32_t compression_gzip_level
        int32_t compression_lz4_level
        int32_t compression_zstd_level
        int32_t cleanup_policy
        int32_t min_insync_replicas
        int32_t preallocate
    ctypedef struct pst_engine_partition:
        int32_t index
        int32_t leader_epoch
        int32_t log_dir
    ctypedef struct pst_engine_topic:
        const char *name
        size_t name_size
        uint8_t id[16]
        bint is_internal
        const pst_engine_partition *partitions
        int32_t partition_count
        pst_engine_topic_config config
    ctypedef struct pst_engine_offsets:
        int64_t log_start
        int64_t last_stable
        int64_t high_watermark
        int64_t log_end
    ctypedef struct pst_engine_dir_info:
        int64_t total_bytes
        int64_t usable_bytes
        bint online
    ctypedef struct pst_engine_counter:
        const char *name
        int64_t value
    const char *pst_engine_strerror(int rc) noexcept
    int16_t pst_engine_kafka_error(int rc) noexcept
    int pst_engine_open(const pst_engine_settings *settings, char *error_out, size_t error_size,
                        pst_engine **engine_out) noexcept
    int pst_engine_bind(pst_engine *engine, const pst_engine_listener *listeners, int32_t count,
                        int32_t *ports_out, char *error_out, size_t error_size) noexcept
    int pst_engine_serve(pst_engine *engine) noexcept
    int pst_engine_stop(pst_engine *engine, bint graceful) noexcept
    void pst_engine_destroy(pst_engine *engine) noexcept
    void pst_engine_abandon(pst_engine *engine) noexcept
    int pst_engine_eventfd(const pst_engine *engine) noexcept
    int pst_engine_drain(pst_engine *engine, pst_engine_request *requests_out, int limit) noexcept
    void pst_engine_frame_release(pst_engine_frame *frame) noexcept
    int pst_engine_respond(pst_engine *engine, uint64_t connection, uint64_t sequence,
                           const uint8_t *data, size_t size) noexcept
    int pst_engine_redispatch(pst_engine *engine, uint64_t connection, uint64_t sequence,
                              pst_engine_frame *frame) noexcept
    int pst_engine_close_connection(pst_engine *engine, uint64_t connection,
                                    uint64_t sequence) noexcept
    int pst_engine_publish_cluster(pst_engine *engine, const pst_engine_cluster *cluster) noexcept
    int pst_engine_publish_topics(pst_engine *engine, const pst_engine_topic *topics,
                                  int32_t topic_count, const uint8_t *removed,
                                  int32_t removed_count, int32_t *failed_out) noexcept
    int pst_engine_append(pst_engine *engine, const uint8_t *topic_id, int32_t partition,
                          const uint8_t *batch, size_t size, int64_t *base_offset_out) noexcept
    int pst_engine_read(pst_engine *engine, const uint8_t *topic_id, int32_t partition,
                        int64_t offset, size_t size_max, uint8_t **data_out,
                        size_t *size_out) noexcept
    void pst_engine_free(void *data) noexcept
    int pst_engine_get_offsets(pst_engine *engine, const uint8_t *topic_id, int32_t partition,
                               pst_engine_offsets *offsets_out) noexcept
    int pst_engine_delete_records(pst_engine *engine, const uint8_t *topic_id, int32_t partition,
                                  int64_t offset, int64_t *log_start_out) noexcept
    int pst_engine_log_size(pst_engine *engine, const uint8_t *topic_id, int32_t partition,
                            int64_t *size_out) noexcept
    int pst_engine_get_dir_info(pst_engine *engine, int32_t dir,
                                pst_engine_dir_info *info_out) noexcept
    int pst_engine_run_retention(pst_engine *engine) noexcept
    int pst_engine_checkpoint(pst_engine *engine) noexcept
    int pst_engine_get_statistics(pst_engine *engine, pst_engine_counter *counters_out,
                                  int capacity) noexcept
    pst_broker_offsets *pst_engine_offset_table(pst_engine *engine) noexcept
    pst_broker_members *pst_engine_member_table(pst_engine *engine) noexcept

    ctypedef struct pst_broker_offsets:
        pass
    ctypedef struct pst_broker_members:
        pass
    ctypedef struct pst_broker_name:
        const char *data
        size_t size
    ctypedef struct pst_broker_offset:
        uint8_t topic_id[16]
        int64_t offset
        int64_t commit_timestamp
        int64_t expire_timestamp
        int32_t partition
        int32_t leader_epoch
    ctypedef struct pst_broker_offset_row:
        pst_broker_offset value
        pst_broker_name topic
        pst_broker_name metadata
    ctypedef struct pst_broker_member_row:
        pst_broker_name group
        pst_broker_name member
    int pst_broker_offsets_put(pst_broker_offsets *table, const char *group, size_t group_size,
                               const char *topic, size_t topic_size,
                               const pst_broker_offset *value, const char *metadata,
                               size_t metadata_size) noexcept
    int pst_broker_offsets_get(pst_broker_offsets *table, const char *group, size_t group_size,
                               const char *topic, size_t topic_size, int32_t partition,
                               pst_broker_offset_row **row_out) noexcept
    int pst_broker_offsets_remove(pst_broker_offsets *table, const char *group, size_t group_size,
                                  const char *topic, size_t topic_size,
                                  int32_t partition) noexcept
    size_t pst_broker_offsets_remove_group(pst_broker_offsets *table, const char *group,
                                           size_t group_size) noexcept
    int pst_broker_offsets_rows(pst_broker_offsets *table, const char *group, size_t group_size,
                                pst_broker_offset_row **rows_out, size_t *count_out) noexcept
    void pst_broker_rows_free(pst_broker_offset_row *rows) noexcept
    int pst_broker_offsets_groups(pst_broker_offsets *table, pst_broker_name **names_out,
                                  size_t *count_out) noexcept
    void pst_broker_names_free(pst_broker_name *names) noexcept
    size_t pst_broker_offsets_size(pst_broker_offsets *table) noexcept
    int pst_broker_members_upsert(pst_broker_members *table, const char *group, size_t group_size,
                                  const char *member, size_t member_size, int32_t generation,
                                  int64_t deadline) noexcept
    int pst_broker_members_touch(pst_broker_members *table, const char *group, size_t group_size,
                                 const char *member, size_t member_size,
                                 int64_t deadline) noexcept
    int pst_broker_members_remove(pst_broker_members *table, const char *group, size_t group_size,
                                  const char *member, size_t member_size) noexcept
    int pst_broker_members_expired(pst_broker_members *table, int64_t now,
                                   pst_broker_member_row **rows_out, size_t *count_out) noexcept
    void pst_broker_member_rows_free(pst_broker_member_row *rows) noexcept
    int64_t pst_broker_members_next_deadline(pst_broker_members *table) noexcept
    size_t pst_broker_members_size(pst_broker_members *table) noexcept
