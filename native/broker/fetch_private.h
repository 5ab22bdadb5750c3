/* broker/fetch_private.h - what the files of the fetch path share: one fetch in progress, parked
 * fetches of a reactor, incremental fetch sessions (KIP-227).
 *
 * Files: fetch.c parses and reads; fetch_wait.c parks and wakes; fetch_session.c keeps sessions and
 * moves them between reactors; fetch_respond.c composes the answer.
 *
 * Life of a fetch (all on its reactor, unless said):
 *   fetch.c parse -> session (maybe one mailbox round trip) -> read -> respond
 *                                                              | cold page: an I/O thread reads ->
 * note -> respond | too few bytes: parked -> news or deadline -> read -> respond
 *
 * It deliberately knows no replica: a replica id sent by a client is ignored (CVE-2018-1288). */
#ifndef PST_BROKER_FETCH_PRIVATE_H
#define PST_BROKER_FETCH_PRIVATE_H

#include "broker/broker_private.h"

enum {
    /* Bounds of memory. A fetch of more partitions closes its connection; a reactor that has this
     * many partitions parked answers at once; a full session store makes fetches sessionless. */
    PST_FETCH_PARTITIONS_MAX = 65536,
    PST_FETCH_PARKED_PARTITIONS_MAX = 262144,
    PST_FETCH_SESSION_PARTITIONS_MAX = 65536,
    PST_FETCH_SESSIONS_PARTITIONS_MAX = 524288,
    PST_FETCH_POOLED_OPS_MAX = 1024, /* finished operations kept for the next fetch, per reactor */
    PST_FETCH_POOLED_PARTITIONS_MAX = 64, /* larger ones are freed instead */
    PST_FETCH_POOLED_NAMES_MAX = 4096,
    PST_FETCH_SCRATCH_SIZE = 256 *
        1024, /* small answers of one fetch are gathered here, per reactor */
};

typedef struct pst_fetch_op pst_fetch_op;
typedef struct pst_fetch_session pst_fetch_session;

/* A topic of a fetch. Owner: its operation. The name lies in the operation's `names`. */
typedef struct {
    pst_uuid id; /* version 13 and up, else zero */
    uint32_t name_at;
    int16_t name_size;
} pst_fetch_topic;

/* A partition of a fetch: what was asked and what was read. Owner: as its operation. */
typedef struct {
    pst_list link; /* in a watch while parked */
    struct pst_fetch_watch *watch;
    pst_fetch_op *op;
    pst_partition
        *partition; /* NULL: `error` says why; counted while the operation is parked or cold */
    int64_t offset;
    int64_t available; /* bytes counted so far while parked */
    int32_t topic;     /* index into the operation's topics */
    int32_t index;
    int32_t max_bytes;
    int32_t leader_epoch;
    int32_t last_fetched_epoch;
    int32_t session_part; /* index into the session's partitions; valid while the session's epoch is
                             the expected one */
    /* result */
    int16_t error;    /* Kafka's code */
    bool unresolved;  /* the error comes from before the log: it does not end a wait */
    bool refuse_zstd; /* topic compressed with zstd, client too old for it */
    bool include;
    int32_t diverging_epoch; /* -1: none */
    int64_t diverging_end;
    int64_t high_watermark;
    int64_t last_stable;
    int64_t log_start;
    size_t size;          /* bytes of records */
    const uint8_t *copy;  /* in the reactor's scratch memory, or NULL: `range` */
    pst_file_range range; /* owned */
} pst_fetch_part;

typedef struct {
    int32_t topic;
    int32_t index;
} pst_fetch_forgotten;

enum pst_fetch_kind {
    PST_FETCH_SESSIONLESS,
    PST_FETCH_FULL, /* creates a session with its answer */
    PST_FETCH_INCREMENTAL,
};

enum pst_fetch_state {
    PST_FETCH_RUNNING, /* on the stack of its reactor */
    PST_FETCH_PARKED,
    PST_FETCH_COLD,   /* an I/O thread reads */
    PST_FETCH_MOVING, /* waits for its session */
};

/* One fetch. Owner: its reactor; the I/O thread while COLD; the session's owner between the two
 * notes while MOVING. */
struct pst_fetch_op {
    pst_list link; /* shard: free, parked, moving or cold */
    pst_shard *shard;
    pst_exchange *exchange;
    pst_conn *conn; /* for comparison only */
    int16_t api_version;
    int32_t correlation_id;
    bool flexible;
    bool conn_closed; /* answer nothing */
    bool held;        /* we hold its connection */
    enum pst_fetch_state state;
    enum pst_fetch_kind kind;
    int16_t error; /* of the whole response */
    int32_t max_wait_ms;
    int32_t min_bytes;
    int32_t max_bytes;
    int8_t isolation;
    int32_t session_id;
    int32_t session_epoch; /* as asked */
    int32_t listener;

    pst_fetch_session
        *session; /* incremental only; NULL with `superseded` once another reactor has it */
    pst_list session_link;  /* in session->ops */
    int32_t expected_epoch; /* of the session when this fetch is answered */
    bool superseded;

    pst_fetch_topic *topics;
    int32_t topic_count, topic_capacity;
    char *names;
    uint32_t names_size, names_capacity;
    pst_fetch_part *parts;
    int32_t part_count, part_capacity;
    pst_fetch_forgotten *forgotten;
    int32_t forgotten_count, forgotten_capacity;

    int64_t bytes; /* read, or counted while parked */
    bool failed;   /* a partition failed: no wait */
    bool cold;     /* a read would have blocked */
    bool counted;  /* partitions hold references of this operation */

    pst_timer timer;
    pst_job job;
    pst_note note;              /* back from the I/O thread; there and back while MOVING */
    int owner;                  /* MOVING: the reactor asked */
    pst_fetch_session *arrived; /* MOVING: handed over, or NULL */
    int16_t move_error;
    int moves;
    bool ready; /* PARKED: to be answered once the list in hand has been walked */
};

/* Parked fetches of one partition on one reactor. Owner: the reactor. */
typedef struct pst_fetch_watch {
    pst_partition *partition;     /* counted */
    pst_list parts;               /* of pst_fetch_part.link */
    struct pst_fetch_watch *next; /* bucket or free list */
} pst_fetch_watch;

/* A growing list of counted partitions. Owner: see its place. */
typedef struct {
    pst_partition **items;
    size_t count, capacity;
} pst_fetch_news;

/* Owner: the reactor, but for what `news_lock` guards. */
struct pst_fetch_shard {
    pst_shard *shard;
    pst_list free_ops;
    int free_count;
    pst_list parked;
    pst_list moving; /* also those that wait for a session on its way to this reactor */
    pst_list cold;
    pst_list lookups; /* searches of list_offsets.c under way */
    int64_t parked_parts;
    pst_fetch_watch **buckets;
    size_t bucket_count, watch_count;
    pst_fetch_watch *free_watches;
    uint64_t seed;
    uint8_t *scratch;
    int32_t *seen; /* the partitions of the request in hand, by hash; grows and stays */
    size_t seen_size;
    pst_fetch_news local; /* this reactor's own appends of the round */
    pst_fetch_news taken; /* swapped with `remote` while it is worked off */
    pst_note wake;
    bool local_overflow;
    bool stopping; /* nothing parks any more */

    pthread_mutex_t news_lock;
    pst_fetch_news remote; /* under news_lock */
    bool remote_overflow;  /* under news_lock: memory was refused, look at every watch */
    bool wake_posted;      /* under news_lock */

    pst_fetch_session **sessions;       /* by slot: those this reactor owns */
    PST_SHARED atomic_int cold_running; /* jobs that still touch this shard */
};

/* ---- fetch.c ---- */
pst_fetch_op *pst_fetch__op_get(pst_shard *shard);
/* Drops every reference and gives the operation back to the pool. The exchange must have been
 * finished. */
void pst_fetch__op_release(pst_fetch_op *op);
/* For the end of the shard: touches no exchange. */
void pst_fetch__free_op(pst_fetch_op *op);
int pst_fetch__add_topic(pst_fetch_op *op, const pst_uuid *id, pst_slice name, int32_t *topic_out);
pst_fetch_part *pst_fetch__add_part(pst_fetch_op *op); /* NULL: out of memory; zeroed */
static inline pst_slice pst_fetch__topic_name(const pst_fetch_op *op,
                                              const pst_fetch_topic *topic) {
    return topic->name_size == 0
               ? (pst_slice){NULL, 0}
               : pst_slice_of(op->names + topic->name_at, (size_t)topic->name_size);
}
/* (reactor) Reads every partition of `op`, answers, parks or hands over to an I/O thread. */
void pst_fetch__execute(pst_fetch_op *op, bool may_wait);
/* (reactor) The session of a MOVING fetch is here or is known not to be: goes on. */
void pst_fetch__resume(pst_fetch_op *op);
/* Whether `offset` of a parked partition still only waits: false = answer at once. Adds new bytes
 * to the operation. */
bool pst_fetch__still_waits(pst_fetch_part *part);
void pst_fetch__ref_partitions(pst_fetch_op *op);
/* (any: whoever owns the operation now) Reads with `may_block`; `scratch` NULL: file ranges only.
 */
void pst_fetch__read(pst_fetch_op *op, uint8_t *scratch, bool may_block);
/* (reactor) Answers nothing and releases. */
void pst_fetch__abandon(pst_fetch_op *op);

/* ---- fetch_respond.c ---- */
/* (reactor) Answers from the results and releases `op`. */
void pst_fetch__respond(pst_fetch_op *op);

/* ---- fetch_wait.c ---- */
/* (reactor) Parks `op`; it may be answered before this returns. */
void pst_fetch__park(pst_fetch_op *op);
/* (reactor) Takes a parked fetch off its watches and timer; it is RUNNING then. */
void pst_fetch__unpark(pst_fetch_op *op);
void pst_fetch__go_cold(pst_fetch_op *op);

/* ---- fetch_session.c ---- */

/* Owner: the session's. */
typedef struct {
    pst_uuid id;
    char *name; /* owned; NULL while an id has not been resolved */
    int32_t name_size;
    int32_t part_count; /* 0 = free */
    int32_t loaded_at;  /* scratch of pst_fetch_map__load */
    int32_t hash_next;  /* bucket, or free list */
} pst_fetch_session_topic;

/* Owner: the session's. */
typedef struct {
    int64_t offset;
    int64_t high_watermark; /* as last told to the client */
    int64_t log_start;
    int32_t topic, index;
    int32_t max_bytes, leader_epoch, last_fetched_epoch;
    int32_t prev, next; /* order of service; -1 ends it */
    int32_t hash_next;  /* bucket, or free list */
} pst_fetch_session_part;

/* Owner: the reactor that the slot's tag names. */
struct pst_fetch_session {
    int32_t id;
    int32_t slot;
    int32_t epoch; /* the next one expected */
    bool uses_topic_ids;
    bool detached; /* no longer found by its id; freed with its last operation */
    pst_list ops;  /* fetches in progress: pst_fetch_op.session_link */
    uint64_t seed;
    pst_fetch_session_topic *topics;
    int32_t topic_used, topic_capacity, topic_free;
    pst_fetch_session_part *parts;
    int32_t part_used, part_capacity, part_free, part_count;
    int32_t head, tail;
    int32_t *part_buckets, *topic_buckets;
    int32_t bucket_count; /* of both, a power of two */
};

static inline int32_t pst_fetch__next_epoch(int32_t epoch) {
    return epoch < 0 ? -1 : epoch == INT32_MAX ? 1 : epoch + 1;
}

/* (reactor) Decides about the session of a parsed fetch: fills kind, session, error and, for an
 * incremental one, replaces topics and parts by the session's. Returns false when the fetch now
 * waits for its session (MOVING). */
bool pst_fetch__session_apply(pst_fetch_op *op);
/* (reactor) Creates the session of a full fetch out of its results; 0 = none. */
int32_t pst_fetch__session_create(pst_fetch_op *op);
/* (reactor) For an incremental fetch: marks what goes into the answer and remembers it. */
void pst_fetch__session_filter(pst_fetch_op *op);
void pst_fetch__session_leave(pst_fetch_op *op);
void pst_fetch__sessions_of_shard_destroy(pst_shard *shard);

/* ---- list_offsets.c ---- */
/* For the end of the shard: frees the searches that no reactor will answer. */
void pst_list_offsets__destroy_lookups(pst_list *lookups);

#endif
