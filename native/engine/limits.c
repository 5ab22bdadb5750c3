/* engine/limits.c - the one table of limits: every ring, pool, queue and deadline of the engine
 * takes its size here.
 *
 * Owner: pure; runs once at open. Layer: engine. Values come from three places: the table's
 * default, the machine (descriptors, CPUs), and the configuration keys that Python passes down. It
 * deliberately knows no topic configuration. */
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "engine/engine_private.h"

#define KIB INT64_C(1024)
#define MIB (1024 * KIB)

/* Descriptors beside connections and segments, one line per consumer. */
enum {
    FILES_PYTHON = 64,      /* modules being loaded, pipes, what an embedding process has open */
    FILES_STORE = 8,        /* SQLite: database, WAL, index, temporary */
    FILES_DIRECTORIES = 64, /* locks, directories being synced, checkpoints being replaced */
    FILES_IO_JOBS = 256,    /* segments and indexes held by running jobs and responses */
    FILES_REACTORS = 16,    /* epoll and eventfd of each, listeners */
    FILES_RESERVED = FILES_PYTHON + FILES_STORE + FILES_DIRECTORIES + FILES_IO_JOBS +
        FILES_REACTORS,
    CONNECTIONS_LEAST = 64,
    OPEN_FILES_MOST = 3584, /* with the reserve about 4,000: the rest is for connections */
};

typedef struct {
    const char *key; /* configuration key, or NULL: not configurable */
    size_t place;    /* in pst_engine__limits */
    bool narrow;     /* the field is an int32_t */
    int64_t value;   /* default; 0 where the machine decides */
    int64_t least;   /* smaller values of the key mean the default */
} row;

#define WIDE(field) offsetof(pst_engine__limits, field), false
#define NARROW(field) offsetof(pst_engine__limits, field), true

static const row rows[] = {
    {"socket.request.max.bytes", WIDE(net.frame_size_max), 100 * MIB, 1},
    {"penstock.frame.max.bytes.unauthenticated", WIDE(net.frame_size_max_unauthenticated), 64 * KIB,
     1},
    {"penstock.frame.pool.bytes", WIDE(net.frame_pool_size), 256 * MIB, MIB},
    {"max.connections", WIDE(net.connections_max), INT32_MAX, 1},
    {"max.connections.per.ip", WIDE(net.connections_per_address_max), INT32_MAX, 0},
    {"penstock.requests.in.progress", NARROW(net.exchanges_max), 16, 1},
    {NULL, WIDE(net.frame_progress_bytes), KIB, 1},
    {"penstock.frame.timeout.ms", WIDE(net.frame_progress_ms), 10000, 1},
    {"penstock.send.timeout.ms", WIDE(net.response_stall_ms), 0, 1}, /* 0: as idle */
    {"connections.max.idle.ms", WIDE(net.idle_ms), 600000, 0},
    {NULL, WIDE(net.round_staging_size), MIB, 1},
    {NULL, WIDE(net.send_queue_size_max), 4 * MIB, 1},
    {NULL, WIDE(control_ring), 1024, 1},
    {NULL, WIDE(stop_grace_ms), 5000, 0},
    {"penstock.open.files", WIDE(open_files), 0, 64},
    {NULL, WIDE(tail_bytes), 64 * MIB, 0},
    {NULL, WIDE(producer_ids), 100000, 1},
    {"producer.id.expiration.ms", WIDE(producer_id_expiration_ms), 86400000, 1},
    {"max.incremental.fetch.session.cache.slots", WIDE(fetch_sessions), 1000, 0},
    {NULL, WIDE(fetch_session_eviction_ms), 120000, 1},
    {"fetch.max.bytes", WIDE(fetch_max_bytes), 55 * MIB, 1024},
    {NULL, WIDE(fetch_copy_bytes), 16 * KIB, 0},
    {NULL, WIDE(committed_offsets), 10000000, 1},
    {NULL, WIDE(group_members), 1000000, 1},
};

static void put(pst_engine__limits *limits, const row *at, int64_t value) {
    char *place = (char *)limits + at->place;
    if (at->narrow) {
        int32_t narrow = value > INT32_MAX ? INT32_MAX : (int32_t)value;
        memcpy(place, &narrow, sizeof narrow);
    } else {
        memcpy(place, &value, sizeof value);
    }
}

static int64_t cpu_count(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) < 0) {
        return 1;
    }
    int count = CPU_COUNT(&set);
    return count < 1 ? 1 : count;
}

static int64_t descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur > INT32_MAX) {
        return INT32_MAX;
    }
    return (int64_t)limit.rlim_cur;
}

/* Descriptors are what a machine runs out of first: segments get a fifth, the reserve what it
 * needs, connections the rest. */
static int share_descriptors(pst_engine__limits *limits, char *error_out, size_t error_size) {
    int64_t all = descriptor_limit();
    if (limits->open_files == 0) {
        limits->open_files = all / 5 < OPEN_FILES_MOST ? all / 5 : OPEN_FILES_MOST;
    }
    int64_t left = all - FILES_RESERVED - limits->open_files;
    if (left < CONNECTIONS_LEAST) {
        snprintf(error_out, error_size,
                 "the limit of %lld open files is too low: at least %lld are needed (ulimit -n)",
                 (long long)all,
                 (long long)(FILES_RESERVED + limits->open_files + CONNECTIONS_LEAST));
        return -PST_EMFILE;
    }
    if (limits->net.connections_max > left) {
        limits->net.connections_max = left;
    }
    return 0;
}

int pst_engine__limits_init(const pst_engine_settings *settings, char *error_out, size_t error_size,
                            pst_engine__limits *limits_out) {
    memset(limits_out, 0, sizeof *limits_out);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        put(limits_out, &rows[i], rows[i].value);
        for (int32_t k = 0; rows[i].key != NULL && k < settings->limit_count; k++) {
            if (strcmp(rows[i].key, settings->limits[k].name) == 0 &&
                settings->limits[k].value >= rows[i].least) {
                put(limits_out, &rows[i], settings->limits[k].value);
            }
        }
    }
    pst_net_limits *net = &limits_out->net;
    if (net->response_stall_ms == 0) {
        net->response_stall_ms = net->idle_ms;
    }
    int64_t cpus = cpu_count();
    limits_out->reactors = settings->reactors > 0 ? settings->reactors : cpus < 4 ? cpus : 4;
    limits_out->io_threads = settings->io_threads > 0 ? settings->io_threads : 4;
    return share_descriptors(limits_out, error_out, error_size);
}
