/* engine/engine_private.h - what the files of the composition root share. Nobody outside includes
 * it.
 *
 * File map: limits.c (the one table of limits), ring.c (requests on their way to Python), engine.c
 * (life), control.c (what Python asks), counters.c (numbers). */
#ifndef PST_ENGINE_ENGINE_PRIVATE_H
#define PST_ENGINE_ENGINE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/iopool.h"
#include "broker/broker.h"
#include "penstock.h"
#include "storage/storage.h"

/* ---- limits.c ---- */

/* Owner: immutable after open. Every capacity of the engine. */
typedef struct {
    pst_net_limits net;
    int64_t reactors;
    int64_t io_threads;
    int64_t control_ring; /* requests on their way to Python; a power of two */
    int64_t stop_grace_ms;
    int64_t open_files; /* descriptors of segments kept open */
    int64_t tail_bytes; /* recent batches kept in memory, all logs */
    int64_t producer_ids;
    int64_t producer_id_expiration_ms;
    int64_t fetch_sessions;
    int64_t fetch_session_eviction_ms;
    int64_t fetch_max_bytes;
    int64_t fetch_copy_bytes; /* answers up to here are copied instead of sent from the file */
    int64_t committed_offsets;
    int64_t group_members;
} pst_engine__limits;

int pst_engine__limits_init(const pst_engine_settings *settings, char *error_out, size_t error_size,
                            pst_engine__limits *limits_out);

/* ---- ring.c ---- */

typedef struct {
    _Atomic uint64_t turn; /* whose turn the cell is: position (free) or position + 1 (filled) */
    pst_control_request request;
} pst_engine__cell;

/* Bounded, many producers (reactors), one consumer (the control thread). */
typedef struct {
    pst_engine__cell *cells;
    uint64_t mask;
    _Alignas(64) _Atomic uint64_t tail; /* producers */
    _Alignas(64) uint64_t head;         /* consumer */
    atomic_bool signalled;              /* the eventfd was written and not cleared since */
    int eventfd;
} pst_engine__ring;

int pst_engine__ring_init(pst_engine__ring *ring, int64_t capacity);
void pst_engine__ring_fini(pst_engine__ring *ring); /* releases the frames in it */
/* (any) 0 or -PST_EAGAIN when full. */
int pst_engine__ring_push(pst_engine__ring *ring, const pst_control_request *request);
/* (control) False when empty. */
bool pst_engine__ring_pop(pst_engine__ring *ring, pst_control_request *request_out);
/* (control) Before popping: from here on a push signals again. */
void pst_engine__ring_clear(pst_engine__ring *ring);
/* (control) After popping: stays readable if something is left. */
void pst_engine__ring_signal_rest(pst_engine__ring *ring);

/* ---- engine.c ---- */

struct pst_engine {            /* owner: see each field */
    pid_t pid;                 /* immutable; a forked child differs */
    pst_engine__limits limits; /* immutable */
    int32_t node_id;           /* immutable */
    /* Read: inside a call. Write: the step to closed. So nothing closes under a call. */
    pthread_rwlock_t calls;
    bool closed;               /* owner: `calls` */
    pthread_mutex_t stop_lock; /* one stop at a time */
    bool stopped;              /* owner: stop_lock */
    pst_iopool *iopool;
    pst_storage *storage;
    pst_broker *broker;
    pst_net *net; /* set by bind; stays until destroy, frames name it */
    pst_broker_offsets *offsets;
    pst_broker_members *members;
    pst_engine__ring ring;
    pst_job checkpoint_job;
    atomic_bool checkpoint_queued;
};

/* Begins a call: 0, or -PST_ECLOSED. Every 0 is paired with pst_engine__leave. */
int pst_engine__enter(pst_engine *engine);
void pst_engine__leave(pst_engine *engine);

#endif
