/* engine/engine.c - the life of an engine: builds the rooms in order, and takes them down in order.
 *
 * Owner: see penstock.h. Layer: engine, the composition root: the only place that sees every room's
 * door.
 *
 * Start: I/O pool, storage (locks), broker, tables; bind: reactors; publish; serve: accepting.
 * Stop: reactors stop accepting and answer what is in progress while calls still work; then calls
 * end; late notes run; logs close; the storage writes its marker and unlocks; the I/O pool ends.
 * The net's shell and the ring stay until destroy: frames in Python's hands name the net, and
 * asyncio holds the eventfd. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/engine_private.h"

const char *pst_engine_strerror(int rc) {
    return pst_strerror(rc);
}

int16_t pst_engine_kafka_error(int rc) {
    return pst_broker_kafka_error(rc);
}

static bool is_forked(const pst_engine *engine) {
    return getpid() != engine->pid;
}

int pst_engine__enter(pst_engine *engine) {
    if (is_forked(engine)) {
        return -PST_ECLOSED;
    }
    pthread_rwlock_rdlock(&engine->calls);
    if (engine->closed) {
        pthread_rwlock_unlock(&engine->calls);
        return -PST_ECLOSED;
    }
    return 0;
}

void pst_engine__leave(pst_engine *engine) {
    pthread_rwlock_unlock(&engine->calls);
}

/* ---- open ---- */

static int offer_control(void *context, const pst_control_request *request) {
    pst_engine *engine = context;
    return pst_engine__ring_push(&engine->ring, request);
}

static uint64_t seed(void) {
    uint64_t value;
    if (getrandom(&value, sizeof value, GRND_NONBLOCK) != (ssize_t)sizeof value) {
        value = (uint64_t)pst_monotonic_ns();
    }
    return value;
}

static int create_tables(pst_engine *engine) {
    const pst_engine__limits *limits = &engine->limits;
    pst_broker_offsets_limits offsets = {.max_offsets = (size_t)limits->committed_offsets,
                                         .seed = seed()};
    pst_broker_members_limits members = {.max_members = (size_t)limits->group_members,
                                         .seed = seed()};
    PST_TRY(pst_broker_offsets_create(&offsets, &engine->offsets));
    return pst_broker_members_create(&members, &engine->members);
}

static int open_rooms(pst_engine *engine, const pst_engine_settings *settings, char *error_out,
                      size_t error_size) {
    const pst_engine__limits *limits = &engine->limits;
    PST_TRY(pst_engine__ring_init(&engine->ring, limits->control_ring));
    PST_TRY(pst_iopool_create((int)limits->io_threads, &engine->iopool));
    pst_storage_settings storage = {
        .dirs = settings->log_dirs,
        .dir_count = settings->log_dir_count,
        .iopool = engine->iopool,
        .file_cache_count = (int)limits->open_files,
        .tail_pool_size = limits->tail_bytes,
        .producer_id_expiration_ms = limits->producer_id_expiration_ms,
        .producer_ids_max = (int32_t)limits->producer_ids,
    };
    PST_TRY(pst_storage_open(&storage, error_out, error_size, &engine->storage));
    pst_broker_settings broker = {
        .storage = engine->storage,
        .iopool = engine->iopool,
        .offer_control = offer_control,
        .context = engine,
        .fetch_sessions_max = (int32_t)limits->fetch_sessions,
        .fetch_session_eviction_ms = limits->fetch_session_eviction_ms,
        .fetch_max_bytes = limits->fetch_max_bytes,
        .fetch_copy_size = (int32_t)limits->fetch_copy_bytes,
    };
    PST_TRY(pst_broker_create(&broker, &engine->broker));
    return create_tables(engine);
}

int pst_engine_open(const pst_engine_settings *settings, char *error_out, size_t error_size,
                    pst_engine **engine_out) {
    *engine_out = NULL;
    PST_ASSERT(error_size > 0);
    error_out[0] = '\0';
    /* The ring's ends want cache lines of their own, more than malloc promises. */
    pst_engine *engine = aligned_alloc(_Alignof(pst_engine), sizeof *engine);
    if (engine == NULL) {
        return -PST_ENOMEM;
    }
    memset(engine, 0, sizeof *engine);
    engine->pid = getpid();
    engine->node_id = settings->node_id;
    engine->ring.eventfd = -1;
    pthread_rwlock_init(&engine->calls, NULL);
    pthread_mutex_init(&engine->stop_lock, NULL);
    int rc = pst_engine__limits_init(settings, error_out, error_size, &engine->limits);
    if (rc == 0) {
        rc = open_rooms(engine, settings, error_out, error_size);
    }
    if (rc < 0) {
        if (error_out[0] == '\0') {
            snprintf(error_out, error_size, "the engine cannot start: %s", pst_strerror(rc));
        }
        pst_engine_destroy(engine);
        return rc;
    }
    *engine_out = engine;
    return 0;
}

/* ---- bind and serve ---- */

static int create_net(pst_engine *engine, const pst_net_listener *listeners, int32_t count,
                      char *error_out, size_t error_size) {
    pst_net_settings settings = {
        .reactor_count = (int)engine->limits.reactors,
        .listeners = listeners,
        .listener_count = count,
        .limits = engine->limits.net,
        .iopool = engine->iopool,
    };
    pst_broker_handler(engine->broker, &settings.handler);
    PST_TRY(pst_net_create(&settings, error_out, error_size, &engine->net));
    return pst_broker_attach_net(engine->broker, engine->net);
}

int pst_engine_bind(pst_engine *engine, const pst_engine_listener *listeners, int32_t count,
                    int32_t *ports_out, char *error_out, size_t error_size) {
    PST_ASSERT(error_size > 0 && count >= 0);
    error_out[0] = '\0';
    PST_TRY(pst_engine__enter(engine));
    PST_ASSERT(engine->net == NULL);
    pst_net_listener *wanted = calloc((size_t)count + 1, sizeof wanted[0]);
    int rc = wanted == NULL ? -PST_ENOMEM : 0;
    for (int32_t i = 0; rc == 0 && i < count; i++) {
        wanted[i] =
            (pst_net_listener){.host = listeners[i].host, .port = listeners[i].port, .listener = i};
    }
    if (rc == 0) {
        rc = create_net(engine, wanted, count, error_out, error_size);
    }
    for (int32_t i = 0; rc == 0 && i < count; i++) {
        ports_out[i] = pst_net_port(engine->net, i);
    }
    if (rc < 0 && error_out[0] == '\0') {
        snprintf(error_out, error_size, "the engine cannot listen: %s", pst_strerror(rc));
    }
    free(wanted);
    pst_engine__leave(engine);
    return rc;
}

int pst_engine_serve(pst_engine *engine) {
    PST_TRY(pst_engine__enter(engine));
    int rc = engine->net == NULL ? -PST_ENOTREADY : pst_net_start(engine->net);
    pst_engine__leave(engine);
    return rc;
}

/* ---- stop ---- */

static int close_rooms(pst_engine *engine, bool clean) {
    int rc = 0;
    if (engine->broker != NULL) {
        rc = pst_broker_close_logs(engine->broker);
        pst_broker_destroy(engine->broker);
        engine->broker = NULL;
    }
    if (engine->storage != NULL) {
        int closed = pst_storage_close(engine->storage, clean && rc == 0);
        rc = rc < 0 ? rc : closed;
        engine->storage = NULL;
    }
    pst_iopool_destroy(engine->iopool);
    engine->iopool = NULL;
    return rc;
}

int pst_engine_stop(pst_engine *engine, bool graceful) {
    if (is_forked(engine)) {
        return -PST_ECLOSED;
    }
    pthread_mutex_lock(&engine->stop_lock);
    int rc = 0;
    if (!engine->stopped) {
        engine->stopped = true;
        if (engine->net != NULL) {
            pst_net_stop(engine->net, graceful ? engine->limits.stop_grace_ms : 0);
        }
        pthread_rwlock_wrlock(&engine->calls);
        engine->closed = true;
        pthread_rwlock_unlock(&engine->calls);
        if (engine->net != NULL) {
            pst_net_run_notes(engine->net);
        }
        rc = close_rooms(engine, graceful);
    }
    pthread_mutex_unlock(&engine->stop_lock);
    return rc;
}

void pst_engine_destroy(pst_engine *engine) {
    if (engine == NULL || is_forked(engine)) {
        return; /* a child frees nothing: its threads are gone and may have held locks */
    }
    (void)pst_engine_stop(engine, false);
    pst_engine__ring_fini(&engine->ring);
    pst_net_destroy(engine->net);
    pst_broker_offsets_destroy(engine->offsets);
    pst_broker_members_destroy(engine->members);
    pthread_rwlock_destroy(&engine->calls);
    pthread_mutex_destroy(&engine->stop_lock);
    free(engine);
}

void pst_engine_abandon(pst_engine *engine) {
    if (!is_forked(engine)) {
        return;
    }
    if (engine->net != NULL) {
        pst_net_abandon(engine->net);
    }
    if (engine->storage != NULL) {
        pst_storage_abandon(engine->storage);
    }
    close(engine->ring.eventfd);
}
