/* reactor/send.c - from finished responses to bytes, in request order.
 *
 * Owner: the reactor's thread; a cold slice is read by an I/O thread. Layer: reactor.
 *
 * Memory parts of neighbouring responses leave in one call. Large file parts leave by sendfile in
 * slices, each probed first: absent pages are read by an I/O job and the connection goes on by a
 * note, while others are served. A connection gets PST_WRITE_TURN_SIZE bytes a turn. A file that
 * ends early closes its connection: nothing is ever padded. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "reactor/reactor_private.h"

#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

enum { COLD_READ_SIZE = 1 << 20, COLD_SCRATCH_SIZE = 256 << 10 };

/* ---- cold slices ---- */

typedef struct { /* owner: the reactor, then the I/O thread, then (by the note) the reactor */
    pst_job job;
    pst_note note;
    pst_reactor *reactor;
    uint64_t conn_id;
    pst_file *file;
    int64_t pos;
    size_t size;  /* bytes that must be there */
    size_t ahead; /* bytes worth reading while the disk is at it */
    bool failed;
} cold_read;

static void cold_done(pst_note *note, pst_reactor *reactor) {
    cold_read *cold = PST_CONTAINER_OF(note, cold_read, note);
    pst_conn *conn = pst_conn__find(reactor, cold->conn_id);
    reactor->cold_jobs--;
    if (conn != NULL && !conn->dead) {
        conn->cold = false;
        conn->send_mark_ms = reactor->now_ms;
        if (cold->failed) {
            pst_conn__kill(conn);
        } else {
            pst_conn__add_flush(conn);
        }
    }
    free(cold);
}

static void cold_run(pst_job *job) {
    cold_read *cold = PST_CONTAINER_OF(job, cold_read, job);
    uint8_t *scratch = malloc(COLD_SCRATCH_SIZE);
    size_t done = 0;
    while (scratch != NULL && done < cold->ahead) {
        size_t size = cold->ahead - done;
        size = size > COLD_SCRATCH_SIZE ? COLD_SCRATCH_SIZE : size;
        ssize_t got = pread(cold->file->fd, scratch, size, cold->pos + (int64_t)done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            break;
        }
        done += (size_t)got;
    }
    cold->failed = done < cold->size;
    free(scratch);
    pst_file_unref(cold->file);
    pst_reactor_post(cold->reactor, &cold->note);
}

static void cold_start(pst_conn *conn, const pst_reactor__part *part, size_t slice) {
    pst_reactor *reactor = conn->reactor;
    cold_read *cold = calloc(1, sizeof *cold);
    if (cold == NULL) {
        pst_conn__kill(conn);
        return;
    }
    cold->job.run = cold_run;
    cold->note.run = cold_done;
    cold->reactor = reactor;
    cold->conn_id = conn->id;
    cold->file = pst_file_ref(part->from.file);
    cold->pos = part->at.pos;
    cold->size = slice;
    cold->ahead = part->size > COLD_READ_SIZE ? COLD_READ_SIZE : part->size;
    conn->cold = true;
    conn->cold_seen = true;
    conn->cold_tries++;
    reactor->cold_jobs++;
    pst_reactor__count(&reactor->counters.cold_ranges, 1);
    pst_iopool_submit(reactor->net->iopool, &cold->job);
}

typedef enum { RESIDENT, ABSENT, UNKNOWN } residence;

/* Whether the page that holds byte `pos` can be read without waiting. */
static residence probe_byte(int fd, int64_t pos) {
    uint8_t byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    ssize_t got = preadv2(fd, &iov, 1, pos, RWF_NOWAIT);
    if (got < 0 && errno == EAGAIN) {
        return ABSENT;
    }
    return RESIDENT; /* also at the end of the file and where RWF_NOWAIT is not known: sendfile
                        tells */
}

static residence probe(pst_conn *conn, int fd, int64_t pos, size_t size) {
    pst_net *net = conn->reactor->net;
    if (net->iopool == NULL || conn->cold_tries >= PST_FILE_COLD_TRIES) {
        return RESIDENT;
    }
    if (atomic_load_explicit(&net->cachestat_missing, memory_order_relaxed)) {
        return UNKNOWN;
    }
    struct {
        uint64_t offset;
        uint64_t size;
    } range = {(uint64_t)pos, size};
    struct {
        uint64_t cached;
        uint64_t dirty;
        uint64_t writeback;
        uint64_t evicted;
        uint64_t recently_evicted;
    } found = {0};
    if (syscall(SYS_cachestat, fd, &range, &found, 0) < 0) {
        if (errno == ENOSYS || errno == EPERM) {
            atomic_store_explicit(&net->cachestat_missing, true, memory_order_relaxed);
        }
        return UNKNOWN;
    }
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t pages = ((uint64_t)pos + size - 1) / page - (uint64_t)pos / page + 1;
    if (found.cached < pages) {
        return ABSENT;
    }
    /* A page may be there and still be on its way from the disk; after a miss the last one tells.
     */
    return conn->cold_seen ? probe_byte(fd, pos + (int64_t)size - 1) : RESIDENT;
}

/* ---- parts ---- */

/* Consumes `sent` bytes from the front of the queue, and frees the responses that are whole. */
static void advance(pst_conn *conn, size_t sent) {
    while (!pst_list_empty(&conn->exchanges)) {
        pst_exchange *exchange = PST_CONTAINER_OF(conn->exchanges.next, pst_exchange, link);
        if (exchange->state != PST_EXCHANGE_FINISHED) {
            break;
        }
        while (exchange->part_next < exchange->part_count) {
            pst_reactor__part *part = &exchange->parts[exchange->part_next];
            if (part->size > sent) {
                part->size -= sent;
                if (part->kind == PST_PART_FILE) {
                    part->at.pos += (int64_t)sent;
                } else {
                    part->at.data += sent;
                }
                return;
            }
            sent -= part->size;
            pst_reactor__part_drop(conn->reactor, part);
            exchange->part_next++;
        }
        pst_reactor__exchange_free(exchange);
    }
    PST_ASSERT(sent == 0);
}

/* What stands at the front of the queue: runs of memory, and what comes behind them. */
typedef struct {
    struct iovec iov[PST_IOV_MAX];
    int count;
    size_t size;
    pst_reactor__part *file; /* a large file part follows */
    bool close;              /* the connection ends behind them */
    bool more;               /* further finished bytes follow */
    bool cold;               /* a small file part is absent: stop here */
} gathered;

/* False: the gather is full or a file part stops it. */
static bool gather_part(pst_conn *conn, pst_reactor__part *part, gathered *g) {
    if (part->kind == PST_PART_FILE) {
        if (part->size > PST_FILE_COPY_MAX) {
            g->file = part;
            g->more = true;
            return false;
        }
        int rc = pst_reactor__part_copy(conn->reactor, part);
        if (rc < 0) {
            g->file = part;
            g->cold = rc == -PST_EAGAIN && conn->reactor->net->iopool != NULL &&
                      conn->cold_tries < PST_FILE_COLD_TRIES;
            g->more = !g->cold;
            return false;
        }
    }
    if (part->size == 0) {
        return true; /* trimmed to nothing */
    }
    struct iovec *last = g->count > 0 ? &g->iov[g->count - 1] : NULL;
    if (last != NULL && (uint8_t *)last->iov_base + last->iov_len == part->at.data) {
        last->iov_len += part->size;
    } else if (g->count == PST_IOV_MAX) {
        g->more = true;
        return false;
    } else {
        g->iov[g->count++] = (struct iovec){.iov_base = part->at.data, .iov_len = part->size};
    }
    g->size += part->size;
    return g->size < PST_WRITE_TURN_SIZE;
}

static void gather(pst_conn *conn, gathered *g) {
    g->count = 0;
    g->size = 0;
    g->file = NULL;
    g->close = g->more = g->cold = false;
    for (pst_list *link = conn->exchanges.next; link != &conn->exchanges; link = link->next) {
        pst_exchange *exchange = PST_CONTAINER_OF(link, pst_exchange, link);
        if (exchange->state != PST_EXCHANGE_FINISHED) {
            g->close = exchange->state == PST_EXCHANGE_CLOSE;
            return;
        }
        for (int i = exchange->part_next; i < exchange->part_count; i++) {
            if (!gather_part(conn, &exchange->parts[i], g)) {
                return;
            }
        }
    }
}

static void moved(pst_conn *conn, size_t sent) {
    pst_reactor *reactor = conn->reactor;
    conn->active_ms = reactor->now_ms;
    conn->send_mark_ms = reactor->now_ms;
    pst_reactor__count(&reactor->counters.bytes_out, (int64_t)sent);
    advance(conn, sent);
}

static ssize_t send_copied(pst_conn *conn, const pst_reactor__part *part, size_t slice) {
    pst_reactor *reactor = conn->reactor;
    if (reactor->copy_scratch == NULL) {
        reactor->copy_scratch = malloc(PST_FILE_SLICE);
        if (reactor->copy_scratch == NULL) {
            return -PST_ENOMEM;
        }
    }
    struct iovec iov = {.iov_base = reactor->copy_scratch, .iov_len = slice};
    ssize_t got = preadv2(part->from.file->fd, &iov, 1, part->at.pos, RWF_NOWAIT);
    if (got < 0 && errno == EOPNOTSUPP) {
        return pst_conn__socket_sendfile(conn, part->from.file->fd, part->at.pos, slice);
    }
    if (got < 0 && errno == EAGAIN) {
        return -PST_ENOTREADY;
    }
    if (got <= 0) {
        return got == 0 ? 0 : -PST_EIO;
    }
    iov.iov_len = (size_t)got;
    return pst_conn__socket_send(conn, &iov, 1, false);
}

/* Sends one slice. False: the turn of this connection is over. */
static bool send_slice(pst_conn *conn, const pst_reactor__part *part, size_t *budget) {
    size_t slice = part->size > PST_FILE_SLICE ? PST_FILE_SLICE : part->size;
    int fd = part->from.file->fd;
    residence where = probe(conn, fd, part->at.pos, slice);
    ssize_t sent = -PST_ENOTREADY;
    if (where == RESIDENT) {
        sent = pst_conn__socket_sendfile(conn, fd, part->at.pos, slice);
    } else if (where == UNKNOWN) {
        sent = send_copied(conn, part, slice);
    }
    if (sent == -PST_ENOTREADY) {
        cold_start(conn, part, slice);
        return false;
    }
    if (sent == -PST_EAGAIN) {
        conn->writable = false;
        return false;
    }
    if (sent <= 0) { /* dead, or the file ends before what was promised */
        pst_conn__kill(conn);
        return false;
    }
    conn->cold_tries = 0;
    *budget -= (size_t)sent > *budget ? *budget : (size_t)sent;
    moved(conn, (size_t)sent);
    return true;
}

static bool send_memory(pst_conn *conn, const gathered *g, size_t *budget) {
    ssize_t sent = pst_conn__socket_send(conn, g->iov, g->count, g->more);
    if (sent == -PST_EAGAIN) {
        conn->writable = false;
        return false;
    }
    if (sent < 0) {
        pst_conn__kill(conn);
        return false;
    }
    *budget -= (size_t)sent > *budget ? *budget : (size_t)sent;
    conn->writable = (size_t)sent == g->size;
    moved(conn, (size_t)sent);
    return conn->writable;
}

/* One turn. Leaves when everything finished is sent, the socket is full, a slice is absent, or the
 * budget is used. */
static void turn(pst_conn *conn) {
    size_t budget = PST_WRITE_TURN_SIZE;
    advance(conn, 0); /* requests that have no response */
    while (!conn->dead && conn->writable && !conn->cold) {
        gathered g;
        gather(conn, &g);
        if (g.count > 0) {
            if (!send_memory(conn, &g, &budget)) {
                return;
            }
        } else if (g.cold) {
            cold_start(conn, g.file, g.file->size);
            return;
        } else if (g.file != NULL) {
            if (!send_slice(conn, g.file, &budget)) {
                return;
            }
        } else {
            if (g.close) {
                pst_conn__kill(conn);
            }
            return;
        }
        if (budget == 0) {
            pst_conn__add_flush(conn); /* others first */
            return;
        }
    }
}

void pst_conn__flush(pst_conn *conn) {
    if (conn->dead) {
        return;
    }
    if (conn->writable && !conn->cold) {
        conn->send_mark_ms = conn->reactor->now_ms;
    }
    turn(conn);
    if (conn->dead) {
        return;
    }
    if (!conn->writable) {
        pst_conn__arm(conn, conn->send_mark_ms + conn->reactor->net->limits.response_stall_ms);
    }
    pst_conn__ungate(conn);
    pst_conn__settle(conn);
}
