/* broker/fetch_session.c - incremental fetch sessions (KIP-227): where they live, who owns them,
 * how they move and end.
 *
 * Owner: a session belongs to the reactor that its slot's tag names; only that reactor touches it.
 * A tag is changed by compare-and-swap: to another owner by the owner itself (handing over), to 0
 * by whoever closes or evicts. Layer: broker. The contents of a session are in fetch_session_map.c.
 *
 * A fetch on another reactor moves the session to it:
 *
 *   home: tag names Y --note--> Y: epoch right? tag (id,Y)->(id,home), unhook --note--> home: hook
 * in, go on Y: else the error goes back and the session stays
 *
 * Numbered rules:
 * (1) whoever turns a tag to 0 tells the owner to free the session (or frees it, being the owner);
 * (2) a session that arrives with a tag that no longer names its receiver is freed there;
 * (3) a session that still serves a fetch is freed with the last one.
 *
 * Sessions end by the client's close, by eviction, or empty; never with a connection. Eviction
 * follows Kafka: the one unused for longer than min.incremental.fetch.session.eviction.ms, else,
 * among those older than it, the smallest if the new one is larger. There are no followers, so
 * nobody is privileged. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "broker/fetch_session_map.h"
#include "wire/error_codes.h"

enum { MOVES_MAX = 16, EVICTION_TRIES = 4 };

/* Owner: the fields say. */
typedef struct {
    PST_SHARED _Atomic uint64_t
        tag; /* id << 8 | owner; 0 = free. Changed by compare-and-swap only */
    PST_SHARED _Atomic int64_t last_used_ms;
    PST_SHARED _Atomic int64_t created_ms;
    PST_SHARED _Atomic int32_t size; /* partitions */
    int32_t next_free;               /* under the store's lock */
} session_slot;

/* Owner: `lock` guards the free list and the making of ids. */
struct pst_fetch_sessions {
    pthread_mutex_t lock;
    session_slot *slots;
    int32_t slot_count;
    int32_t slot_bits;
    int32_t free_head;
    uint64_t seed, made;
    PST_SHARED _Atomic int64_t count;
    PST_SHARED _Atomic int64_t partitions; /* in all sessions; approximate while they change */
};

/* Tells an owner that a session of its is gone. Owner: in flight, then the receiver. */
typedef struct {
    pst_note note;
    pst_shard *shard;
    int32_t id;
} drop_note;

static uint64_t tag_of(int32_t id, int owner) {
    return (uint64_t)(uint32_t)id << 8 | (uint64_t)owner;
}

static int32_t tag_id(uint64_t tag) {
    return (int32_t)(uint32_t)(tag >> 8);
}

static int tag_owner(uint64_t tag) {
    return (int)(tag & 0xff);
}

static struct pst_fetch_sessions *store_of(const pst_shard *shard) {
    return shard->broker->fetch_sessions;
}

/* The slot an id names, or NULL. */
static session_slot *slot_of(struct pst_fetch_sessions *store, int32_t id, int32_t *index_out) {
    *index_out = id & ((INT32_C(1) << store->slot_bits) - 1);
    return id > 0 && *index_out < store->slot_count ? &store->slots[*index_out] : NULL;
}

static uint64_t load_tag(session_slot *slot) {
    return atomic_load_explicit(&slot->tag, memory_order_acquire);
}

static bool swap_tag(session_slot *slot, uint64_t from, uint64_t to) {
    return atomic_compare_exchange_strong_explicit(&slot->tag, &from, to, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

static void free_session(struct pst_fetch_sessions *store, pst_fetch_session *session) {
    atomic_fetch_sub_explicit(&store->partitions, session->part_count, memory_order_relaxed);
    pst_fetch_map__destroy(session);
}

/* (owner) No longer found here; rule 3. */
static void detach(pst_shard *shard, pst_fetch_session *session) {
    if (shard->fetch->sessions[session->slot] == session) {
        shard->fetch->sessions[session->slot] = NULL;
    }
    session->detached = true;
    if (pst_list_empty(&session->ops)) {
        free_session(store_of(shard), session);
    }
}

static void drop_local(pst_shard *shard, int32_t id) {
    int32_t index;
    if (slot_of(store_of(shard), id, &index) == NULL) {
        return;
    }
    pst_fetch_session *session = shard->fetch->sessions[index];
    if (session != NULL && session->id == id) {
        detach(shard, session);
    }
}

static void run_drop(pst_note *note, pst_reactor *reactor) {
    (void)reactor;
    drop_note *drop = PST_CONTAINER_OF(note, drop_note, note);
    drop_local(drop->shard, drop->id);
    free(drop);
}

/* Rule 1. Without memory for the note the session stays hooked until its slot is used there again.
 */
static void tell_owner(pst_shard *shard, int owner, int32_t id) {
    if (owner == shard->index) {
        drop_local(shard, id);
        return;
    }
    drop_note *drop = malloc(sizeof *drop);
    if (drop == NULL) {
        return;
    }
    drop->note.run = run_drop;
    drop->shard = &shard->broker->shards[owner];
    drop->id = id;
    pst_reactor_post(drop->shard->reactor, &drop->note);
}

static void release_slot(struct pst_fetch_sessions *store, int32_t index) {
    pthread_mutex_lock(&store->lock);
    store->slots[index].next_free = store->free_head;
    store->free_head = index;
    pthread_mutex_unlock(&store->lock);
    atomic_fetch_sub_explicit(&store->count, 1, memory_order_relaxed);
}

/* (any reactor) Ends a session wherever it is. */
static void close_session(pst_shard *shard, int32_t id) {
    struct pst_fetch_sessions *store = store_of(shard);
    int32_t index;
    session_slot *slot = slot_of(store, id, &index);
    while (slot != NULL) {
        uint64_t tag = load_tag(slot);
        if (tag_id(tag) != id) {
            return;
        }
        if (swap_tag(slot, tag, 0)) {
            release_slot(store, index);
            tell_owner(shard, tag_owner(tag), id);
            return;
        }
    }
}

/* ---- making room ---- */

/* Under the store's lock. The slot whose session yields to a new one of `size` partitions, -1 if
 * none does. */
static int32_t pick_victim(struct pst_fetch_sessions *store, int64_t eviction_ms, int64_t now_ms,
                           int32_t size, uint64_t *tag_out) {
    int32_t oldest = -1, smallest = -1;
    int64_t oldest_ms = INT64_MAX;
    int32_t smallest_size = INT32_MAX;
    uint64_t oldest_tag = 0, smallest_tag = 0;
    for (int32_t i = 0; i < store->slot_count; i++) {
        session_slot *slot = &store->slots[i];
        uint64_t tag = load_tag(slot);
        if (tag == 0) {
            continue;
        }
        int64_t used = atomic_load_explicit(&slot->last_used_ms, memory_order_relaxed);
        int64_t created = atomic_load_explicit(&slot->created_ms, memory_order_relaxed);
        int32_t held = atomic_load_explicit(&slot->size, memory_order_relaxed);
        if (used < oldest_ms) {
            oldest = i;
            oldest_ms = used;
            oldest_tag = tag;
        }
        if (now_ms - created > eviction_ms && held < smallest_size) {
            smallest = i;
            smallest_size = held;
            smallest_tag = tag;
        }
    }
    if (oldest >= 0 && now_ms - oldest_ms > eviction_ms) {
        *tag_out = oldest_tag;
        return oldest;
    }
    if (smallest >= 0 && size > smallest_size) {
        *tag_out = smallest_tag;
        return smallest;
    }
    return -1;
}

/* Under the store's lock. A slot for a new session: free, or taken from another one, whose tag is
 * returned. */
static int32_t take_slot(struct pst_fetch_sessions *store, const pst_shard *shard, int64_t now_ms,
                         int32_t size, uint64_t *evicted_out) {
    *evicted_out = 0;
    int32_t index = store->free_head;
    if (index >= 0) {
        store->free_head = store->slots[index].next_free;
        return index;
    }
    for (int tries = 0; tries < EVICTION_TRIES; tries++) {
        uint64_t tag = 0;
        index = pick_victim(store, shard->broker->settings.fetch_session_eviction_ms, now_ms, size,
                            &tag);
        if (index < 0) {
            return -1;
        }
        if (swap_tag(&store->slots[index], tag, 0)) {
            *evicted_out = tag;
            return index;
        }
    }
    return -1;
}

/* Under the store's lock. Not guessable from others, so that clients do not disturb each other by
 * accident. */
static int32_t make_id(struct pst_fetch_sessions *store, int32_t index, int32_t not_this) {
    int32_t id;
    do {
        uint64_t random = pst_hash_u64(store->made++, store->seed);
        id = (int32_t)((random << store->slot_bits) & INT32_MAX) | index;
    } while (id == 0 || id == not_this);
    return id;
}

static void touch(struct pst_fetch_sessions *store, const pst_fetch_session *session,
                  int64_t now_ms) {
    session_slot *slot = &store->slots[session->slot];
    atomic_store_explicit(&slot->last_used_ms, now_ms, memory_order_relaxed);
    atomic_store_explicit(&slot->size, session->part_count, memory_order_relaxed);
}

/* ---- a full fetch's answer makes a session ---- */

static int fill_session(pst_fetch_session *session, pst_fetch_op *op) {
    for (int32_t i = 0; i < op->part_count; i++) {
        pst_fetch_part *part = &op->parts[i];
        int32_t at;
        PST_TRY(pst_fetch_map__put(session, op, part, &at));
        session->parts[at].high_watermark = part->high_watermark;
        session->parts[at].log_start = part->log_start;
    }
    return 0;
}

int32_t pst_fetch__session_create(pst_fetch_op *op) {
    pst_shard *shard = op->shard;
    struct pst_fetch_sessions *store = store_of(shard);
    int64_t now_ms = pst_reactor_now_ms(shard->reactor);
    if (store->slot_count == 0 ||
        atomic_load_explicit(&store->partitions, memory_order_relaxed) + op->part_count >
            PST_FETCH_SESSIONS_PARTITIONS_MAX) {
        return 0;
    }
    pst_fetch_session *session = pst_fetch_map__create(op->api_version >= 13, store->seed);
    if (session == NULL) {
        return 0;
    }
    if (fill_session(session, op) < 0) {
        pst_fetch_map__destroy(session);
        return 0;
    }
    uint64_t evicted = 0;
    pthread_mutex_lock(&store->lock);
    int32_t index = take_slot(store, shard, now_ms, session->part_count, &evicted);
    if (index >= 0) {
        session->id = make_id(store, index, tag_id(evicted));
    }
    pthread_mutex_unlock(&store->lock);
    if (index < 0) {
        pst_fetch_map__destroy(session);
        return 0;
    }
    if (evicted != 0) {
        tell_owner(shard, tag_owner(evicted), tag_id(evicted));
    } else {
        atomic_fetch_add_explicit(&store->count, 1, memory_order_relaxed);
    }
    session->slot = index;
    session->epoch = 1;
    atomic_fetch_add_explicit(&store->partitions, session->part_count, memory_order_relaxed);
    if (shard->fetch->sessions[index] != NULL) {
        detach(shard,
               shard->fetch->sessions[index]); /* closed elsewhere; its note is still on the way */
    }
    shard->fetch->sessions[index] = session;
    atomic_store_explicit(&store->slots[index].created_ms, now_ms, memory_order_relaxed);
    touch(store, session, now_ms);
    atomic_store_explicit(&store->slots[index].tag, tag_of(session->id, shard->index),
                          memory_order_release);
    return session->id;
}

/* ---- an incremental fetch ---- */

/* In Kafka a connection's next request is not read before the last answer left: a fetch of this
 * session that is still parked for the same connection is answered with what there is. */
static void settle_earlier(pst_fetch_session *session, const pst_fetch_op *op) {
    bool again = op->conn != NULL;
    while (again) {
        again = false;
        for (pst_list *node = session->ops.next; node != &session->ops; node = node->next) {
            pst_fetch_op *earlier = PST_CONTAINER_OF(node, pst_fetch_op, session_link);
            if (earlier != op && earlier->conn == op->conn && earlier->state == PST_FETCH_PARKED) {
                pst_fetch__unpark(earlier);
                pst_fetch__execute(earlier, false);
                again = true;
                break;
            }
        }
    }
}

static int16_t check_session(const pst_fetch_session *session, const pst_fetch_op *op) {
    if (session->epoch != op->session_epoch) {
        return PST_KAFKA_INVALID_FETCH_SESSION_EPOCH;
    }
    if (session->uses_topic_ids != (op->api_version >= 13)) {
        return PST_KAFKA_FETCH_SESSION_TOPIC_ID_ERROR;
    }
    return 0;
}

/* Takes over what the request adds, changes and forgets. */
static int update_session(struct pst_fetch_sessions *store, pst_fetch_session *session,
                          pst_fetch_op *op) {
    int32_t before = session->part_count;
    int rc = 0;
    for (int32_t i = 0; i < op->part_count && rc == 0; i++) {
        int32_t at;
        rc = pst_fetch_map__put(session, op, &op->parts[i], &at);
    }
    for (int32_t i = 0; i < op->forgotten_count; i++) {
        pst_fetch_map__forget(session, op, op->forgotten[i].topic, op->forgotten[i].index);
    }
    int64_t total = atomic_fetch_add_explicit(&store->partitions, session->part_count - before,
                                              memory_order_relaxed);
    if (rc == 0 && session->part_count > before && total > PST_FETCH_SESSIONS_PARTITIONS_MAX) {
        rc = -PST_ELIMIT;
    }
    return rc;
}

static void use_session(pst_fetch_session *session, pst_fetch_op *op) {
    pst_shard *shard = op->shard;
    struct pst_fetch_sessions *store = store_of(shard);
    settle_earlier(session, op);
    op->error = check_session(session, op);
    if (op->error != 0) {
        return;
    }
    if (update_session(store, session, op) < 0) {
        close_session(shard, session->id); /* the client starts anew with a full fetch */
        op->error = PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND;
        return;
    }
    if (session->part_count == 0) {
        close_session(shard, session->id);
        op->kind = PST_FETCH_SESSIONLESS;
        return;
    }
    touch(store, session, pst_reactor_now_ms(shard->reactor));
    session->epoch = pst_fetch__next_epoch(session->epoch);
    op->kind = PST_FETCH_INCREMENTAL;
    op->session = session;
    op->expected_epoch = session->epoch;
    pst_list_push_back(&session->ops, &op->session_link);
    if (pst_fetch_map__load(session, op, pst_broker__image(shard->broker)) < 0) {
        op->error = PST_KAFKA_UNKNOWN_SERVER_ERROR;
    }
}

/* ---- moving ---- */

static void hook_in(pst_shard *shard, pst_fetch_session *session) {
    struct pst_fetch_sessions *store = store_of(shard);
    if (load_tag(&store->slots[session->slot]) != tag_of(session->id, shard->index)) {
        free_session(store, session); /* rule 2 */
        return;
    }
    if (shard->fetch->sessions[session->slot] != NULL) {
        detach(shard, shard->fetch->sessions[session->slot]);
    }
    shard->fetch->sessions[session->slot] = session;
}

/* Goes on with the fetches that found the tag here before the session was. */
static void resume_awaiting(pst_shard *shard, int32_t id) {
    pst_list *moving = &shard->fetch->moving;
    pst_list *node = moving->next;
    while (node != moving) {
        pst_fetch_op *op = PST_CONTAINER_OF(node, pst_fetch_op, link);
        node = node->next;
        if (op->owner < 0 && op->session_id == id) {
            pst_fetch__resume(op);
            node = moving->next; /* the list may have changed */
        }
    }
}

/* (home) The owner has answered. */
static void run_reply(pst_note *note, pst_reactor *reactor) {
    (void)reactor;
    pst_fetch_op *op = PST_CONTAINER_OF(note, pst_fetch_op, note);
    pst_shard *shard = op->shard;
    int32_t id = op->session_id;
    bool arrived = op->arrived != NULL;
    if (arrived) {
        hook_in(shard, op->arrived);
        op->arrived = NULL;
    }
    pst_fetch__resume(op);
    if (arrived) {
        resume_awaiting(shard, id);
    }
}

/* (owner) A fetch on another reactor wants the session. */
static void run_request(pst_note *note, pst_reactor *reactor) {
    (void)reactor;
    pst_fetch_op *op = PST_CONTAINER_OF(note, pst_fetch_op, note);
    pst_shard *home = op->shard;
    pst_shard *owner = &home->broker->shards[op->owner];
    int32_t index;
    session_slot *slot = slot_of(store_of(owner), op->session_id, &index);
    pst_fetch_session *session = slot == NULL ? NULL : owner->fetch->sessions[index];
    if (session != NULL && session->id == op->session_id) {
        op->move_error = check_session(session, op);
        if (op->move_error == 0 &&
            swap_tag(slot, tag_of(session->id, owner->index), tag_of(session->id, home->index))) {
            owner->fetch->sessions[index] = NULL;
            while (!pst_list_empty(&session->ops)) {
                pst_fetch_op *left =
                    PST_CONTAINER_OF(session->ops.next, pst_fetch_op, session_link);
                pst_list_remove(&left->session_link);
                left->session = NULL;
                left->superseded = true;
            }
            op->arrived = session;
        }
    }
    op->note.run = run_reply;
    pst_reactor_post(home->reactor, &op->note);
}

/* Waits for the session: `owner` is asked, or -1 when it is already on its way here. */
static void start_move(pst_fetch_op *op, int owner) {
    pst_shard *shard = op->shard;
    pst_conn *conn = pst_exchange_conn(op->exchange);
    if (conn != NULL) {
        pst_conn_hold(conn); /* its later requests wait */
        op->held = true;
    }
    op->state = PST_FETCH_MOVING;
    op->owner = owner;
    op->arrived = NULL;
    op->move_error = 0;
    op->moves++;
    pst_list_push_back(&shard->fetch->moving, &op->link);
    if (owner >= 0) {
        op->note.run = run_request;
        pst_reactor_post(shard->broker->shards[owner].reactor, &op->note);
    }
}

static bool apply_incremental(pst_fetch_op *op) {
    pst_shard *shard = op->shard;
    int32_t index;
    session_slot *slot = slot_of(store_of(shard), op->session_id, &index);
    uint64_t tag = slot == NULL ? 0 : load_tag(slot);
    /* A free slot's tag carries the id 0, which no session has. */
    if (op->session_id == 0 || tag_id(tag) != op->session_id || op->moves > MOVES_MAX) {
        op->error = PST_KAFKA_FETCH_SESSION_ID_NOT_FOUND;
        return true;
    }
    if (op->move_error != 0) {
        op->error = op->move_error;
        return true;
    }
    if (tag_owner(tag) != shard->index) {
        start_move(op, tag_owner(tag));
        return false;
    }
    pst_fetch_session *session = shard->fetch->sessions[index];
    if (session == NULL || session->id != op->session_id) {
        start_move(op, -1);
        return false;
    }
    use_session(session, op);
    return true;
}

bool pst_fetch__session_apply(pst_fetch_op *op) {
    op->kind = PST_FETCH_SESSIONLESS;
    if (op->session_epoch != 0 && op->session_epoch != -1) {
        return apply_incremental(op);
    }
    if (op->session_id != 0) {
        close_session(op->shard, op->session_id);
    }
    if (op->session_epoch == 0) {
        op->kind = PST_FETCH_FULL;
    }
    return true;
}

/* ---- the answer of an incremental fetch ---- */

void pst_fetch__session_filter(pst_fetch_op *op) {
    pst_fetch_session *session = op->session;
    for (int32_t i = 0; i < op->part_count; i++) {
        pst_fetch_part *part = &op->parts[i];
        pst_fetch_session_part *kept = &session->parts[part->session_part];
        part->include = part->size > 0 || part->error != 0 ||
                        kept->high_watermark != part->high_watermark ||
                        kept->log_start != part->log_start || part->diverging_epoch >= 0;
        /* After an error the partition is told again once the error is gone. */
        kept->high_watermark = part->error != 0 ? -1 : part->high_watermark;
        kept->log_start = part->log_start;
        if (part->size > 0) {
            pst_fetch_map__move_to_end(session, part->session_part);
        }
    }
}

void pst_fetch__session_leave(pst_fetch_op *op) {
    pst_fetch_session *session = op->session;
    if (op->arrived != NULL) {
        free_session(store_of(op->shard), op->arrived);
        op->arrived = NULL;
    }
    if (session == NULL) {
        return;
    }
    op->session = NULL;
    pst_list_remove(&op->session_link);
    if (session->detached && pst_list_empty(&session->ops)) {
        free_session(store_of(op->shard), session);
    }
}

/* ---- the store ---- */

int pst_fetch__broker_create(pst_broker *broker) {
    struct pst_fetch_sessions *store = calloc(1, sizeof *store);
    if (store == NULL) {
        return -PST_ENOMEM;
    }
    int32_t count = broker->settings.fetch_sessions_max;
    count = count < 0 ? 0 : count;
    count = count > (INT32_C(1) << 20) ? INT32_C(1) << 20 : count;
    broker->settings.fetch_sessions_max = count;
    while ((INT32_C(1) << store->slot_bits) < count) {
        store->slot_bits++;
    }
    store->slot_count = count;
    store->free_head = -1;
    store->seed = pst_hash_u64((uint64_t)pst_monotonic_ns(), (uint64_t)(uintptr_t)store);
    store->slots = calloc(count > 0 ? (size_t)count : 1, sizeof *store->slots);
    if (store->slots == NULL || pthread_mutex_init(&store->lock, NULL) != 0) {
        free(store->slots);
        free(store);
        return -PST_ENOMEM;
    }
    for (int32_t i = count - 1; i >= 0; i--) {
        store->slots[i].next_free = store->free_head;
        store->free_head = i;
    }
    broker->fetch_sessions = store;
    return 0;
}

void pst_fetch__broker_destroy(pst_broker *broker) {
    struct pst_fetch_sessions *store = broker->fetch_sessions;
    if (store == NULL) {
        return;
    }
    pthread_mutex_destroy(&store->lock);
    free(store->slots);
    free(store);
    broker->fetch_sessions = NULL;
}

void pst_fetch__sessions_of_shard_destroy(pst_shard *shard) {
    for (int32_t i = 0; i < shard->broker->settings.fetch_sessions_max; i++) {
        if (shard->fetch->sessions[i] != NULL) {
            free_session(store_of(shard), shard->fetch->sessions[i]);
            shard->fetch->sessions[i] = NULL;
        }
    }
}

int64_t pst_fetch__session_count(pst_broker *broker) {
    return broker->fetch_sessions == NULL
               ? 0
               : atomic_load_explicit(&broker->fetch_sessions->count, memory_order_relaxed);
}
