/* broker/produce_private.h - what the files of Produce share.
 *
 *   produce.c           parse and validate a request; its parts join the round
 *   produce_round.c     one append per partition and round; then responses, or detachment
 *   produce_records.c   rules about single records
 *   produce_response.c  results to bytes
 *   offload.c           the queues of partitions whose appends must leave the reactor
 *   internal.c          appends of the control plane, which use the same queues
 *   recompress.c        what needs the records of a compressed batch
 *
 * Life of a part: gathered in the round (borrowed frame bytes) -> appended there and answered, or
 * copied into a detached operation with the frame taken -> queued on its partition -> appended by
 * an I/O thread -> one note when the operation's last part is done -> answered on the reactor. */
#ifndef PST_BROKER_PRODUCE_PRIVATE_H
#define PST_BROKER_PRODUCE_PRIVATE_H

#include "broker/broker_private.h"
#include "wire/batch.h"

/* The topic configuration that validation and recompression need; copied, so that a queued part
 * does not depend on the image. */
typedef struct {
    int64_t max_message_bytes;
    int64_t timestamp_before_max_ms; /* INT64_MAX: no limit */
    int64_t timestamp_after_max_ms;  /* INT64_MAX: no limit */
    int32_t compression_type;        /* -1: as produced */
    int32_t compression_level;
    bool compacted;
    bool create_time;
} pst_produce_rules;

/* A record that caused its batch to be refused. */
typedef struct {
    int32_t index;
    bool timestamp; /* out of range; else it has no key in a compacted topic */
} pst_produce_record_error;

/* One partition of a request, or one internal append. Owner: the round (reactor), then the queue of
 * its partition, then its operation again. */
typedef struct pst_produce_part {
    pst_list link; /* partition->offloaded */
    pst_partition
        *partition; /* NULL when unknown; a counted reference once detached and offloaded */
    void (*done)(struct pst_produce_part *part); /* called off the reactor after the append */
    void *owner;                                 /* for `done` */
    uint8_t *data;                               /* the batch */
    size_t size;
    pst_batch view;
    uint8_t *rewritten; /* malloc'ed batch that replaced the client's, or NULL */
    pst_produce_rules rules;
    pst_slice topic_name; /* of the first part of a topic; empty from version 13 on */
    pst_uuid topic_id;
    int32_t topic_part_count; /* parts of the topic, on its first part; 0 on the others */
    int32_t index;
    int32_t next;               /* index of the next part of the same partition in this round, -1 */
    int32_t record_error_count; /* of `record_errors` */
    pst_produce_record_error *record_errors; /* malloc'ed, NULL when none; freed with the part */
    int rc;             /* the core's code behind `error`, where there is one */
    int16_t error;      /* Kafka's */
    bool needs_records; /* the compressed records must be opened before the append */
    bool offloaded;
    bool from_control_plane;
    const char *message; /* a constant */
    int64_t base_offset;
    int64_t log_append_time_ms;
    int64_t log_start_offset;
} pst_produce_part;

/* One request. Owner: the round, or the detached operation. */
typedef struct {
    pst_exchange *exchange;
    uint8_t *data; /* the frame */
    size_t size;
    int32_t correlation_id;
    int16_t version;
    int16_t acks;
    int32_t topic_count; /* topics with at least one part */
    int32_t first_part;  /* in the round */
    int32_t part_count;
} pst_produce_op;

/* One partition with parts in this round. Owner: its reactor. */
typedef struct {
    pst_partition *partition;
    int32_t first;
    int32_t last;
    int32_t count;
    bool needs_records;
} pst_produce_group;

typedef struct {
    uint32_t stamp;
    int32_t group;
} pst_produce_slot;

/* Owner: its reactor. The arrays grow to the largest round seen and stay. */
struct pst_produce_round {
    pst_produce_op *ops;
    int32_t op_count, op_capacity;
    pst_produce_part *parts;
    int32_t part_count, part_capacity;
    pst_produce_group *groups;
    int32_t group_count, group_capacity;
    pst_append *appends;
    int32_t append_capacity;
    pst_produce_slot
        *slots; /* partition -> group, open addressing, valid where `stamp` is this round's */
    uint32_t slot_count;
    uint32_t stamp;
    uint64_t conn_bits; /* hashes of the connections with an operation in the round */
    pst_list detached;  /* of the operations in progress off the reactor */
};

/* Grows `*array` (element `size`) to hold `wanted`; 0 or -PST_ENOMEM. */
int pst_produce__grow(void **array, int32_t *capacity, int32_t wanted, size_t size);

/* ---- produce_response.c ---- */
/* Writes and finishes the response (or closes the connection: acks=0 with an error). */
void pst_produce__respond(pst_shard *shard, const pst_produce_op *op,
                          const pst_produce_part *parts);

/* ---- offload.c ---- */
/* Queues a part (its partition already counted). `done` is called from an I/O thread once the
 * results are set. */
void pst_produce__offload(pst_broker *broker, pst_produce_part *part);
/* Fills the results of one part from its append. */
void pst_produce__set_result(pst_produce_part *part, const pst_append *append,
                             int64_t log_start_offset);
void pst_produce__set_failure(pst_produce_part *part, int rc, int64_t log_start_offset);
static inline pst_append pst_produce__append_of(const pst_produce_part *part) {
    return (pst_append){.data = part->data,
                        .size = part->size,
                        .view = part->view,
                        .from_control_plane = part->from_control_plane};
}

/* ---- produce_records.c ---- */
/* False for a timestamp that the topic refuses. */
bool pst_produce__timestamp_ok(const pst_produce_rules *rules, int64_t timestamp, int64_t now_ms);
/* Checks what one walk over `records` told; if the rules are broken, sets the part's error and
 * lists the records. */
void pst_produce__check_scan(pst_produce_part *part, const pst_record_scan *scan, pst_slice records,
                             int64_t now_ms);
/* The text for one refused record. */
const char *pst_produce__record_message(const pst_produce_record_error *error);

/* ---- recompress.c ---- */
/* (I/O thread) Opens the records of a part: checks them and, if its topic has a codec of its own,
 * writes the batch anew into `rewritten`. Sets the part's error instead of failing. */
void pst_produce__open_records(pst_produce_part *part, int64_t now_ms);

#endif
