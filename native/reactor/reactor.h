/* reactor/reactor.h - the door of the room: event loops, listeners, connections, responses in
 * order. Bytes and descriptors only: a frame is a size-prefixed run of bytes; what it says is the
 * handler's matter.
 *
 * Threads: pst_net owns `reactor_count` threads, one epoll each. The first reactor owns the
 * listeners and deals accepted sockets out round robin. Everything marked (reactor) is called on,
 * and only valid on, the thread that owns the connection; entry points assert it. Everything marked
 * (any) may be called from every thread and goes through a mailbox.
 *
 * One loop round: epoll_wait; mailbox; timers; for every ready connection recv and, for each whole
 * frame, handler.on_frame; handler.on_round_end (appends of the round happen here); then every
 * connection with finished responses is written. A round ends early when the round's staging memory
 * is full.
 *
 * Ownership rules:
 * 1. The frame bytes given to on_frame are borrowed. They stay valid and writable until
 * on_round_end of the same round has returned. Whoever needs them longer calls pst_conn_take_frame
 * before that.
 * 2. Each frame gets one pst_exchange: the place of its response in the connection's order. It
 * belongs to the handler from on_frame until pst_exchange_finish or pst_exchange_close_connection,
 * exactly one of which must be called, also after the connection died (then it only frees).
 * 3. A token names an exchange across threads and is checked: a stale token is ignored.
 * 4. No more than `limits.exchanges_max` exchanges of a connection are open: beyond it the
 * connection is not read. */
#ifndef PST_REACTOR_REACTOR_H
#define PST_REACTOR_REACTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/file.h"
#include "base/iopool.h"
#include "base/list.h"
#include "base/slice.h"

typedef struct pst_net pst_net;
typedef struct pst_reactor pst_reactor;
typedef struct pst_conn pst_conn;

/* Survives the exchange it names; unique for the life of the net. */
typedef struct {
    uint64_t conn;     /* reactor index 8 bits, slot 24 bits, generation 32 bits */
    uint64_t sequence; /* number of the request on its connection */
} pst_token;

typedef struct pst_exchange pst_exchange;

/* A frame taken out of the round: owned memory, charged to the frame pool until it is released. */
typedef struct pst_frame {
    uint8_t *data; /* without the 4-byte size prefix */
    size_t size;
    size_t charge;
    pst_net *net;
} pst_frame;
void pst_frame_release(pst_frame *frame); /* (any) NULL allowed */

typedef struct {
    /* (reactor) A whole frame arrived. `bytes` as in rule 1. Must not block. */
    void (*on_frame)(void *context, pst_reactor *reactor, pst_conn *conn, pst_exchange *exchange,
                     uint8_t *data, size_t size);
    /* (reactor) All frames of this round were delivered: execute what was gathered. */
    void (*on_round_end)(void *context, pst_reactor *reactor);
    /* (reactor) The loop woke: called once per round before mailbox and frames, with the loop's
     * clocks refreshed. */
    void (*on_round_begin)(void *context, pst_reactor *reactor);
    /* (reactor) The connection is going away; its open exchanges stay valid until finished. May be
     * NULL. */
    void (*on_conn_closed)(void *context, pst_reactor *reactor, pst_conn *conn);
    /* (reactor) pst_net_stop began: no further frame comes. What only waits should be answered now,
     * so that the stop does not wait for it. May be NULL. */
    void (*on_stopping)(void *context, pst_reactor *reactor);
    void *context;
} pst_net_handler;

typedef struct {
    int64_t frame_size_max; /* bytes, after authentication */
    int64_t frame_size_max_unauthenticated;
    int64_t frame_pool_size; /* bytes held in unfinished and taken frames, all connections */
    int64_t connections_max;
    int64_t connections_per_address_max;
    int32_t exchanges_max;        /* requests in progress per connection */
    int64_t frame_progress_bytes; /* a started frame must move this many bytes ... */
    int64_t frame_progress_ms;    /* ... in this time */
    int64_t response_stall_ms;    /* a response that does not leave */
    int64_t idle_ms;              /* connections.max.idle.ms */
    int64_t round_staging_size;   /* bytes of frames a reactor gathers in one round */
    int64_t send_queue_size_max;  /* bytes of memory responses queued per connection before it is no
                                     longer read */
} pst_net_limits;

typedef struct {
    const char *host; /* numeric address or name; "" or NULL = any */
    int port;         /* 0 = a free one */
    int listener;     /* number the handler sees in pst_conn_listener */
    bool requires_authentication;
} pst_net_listener;

typedef struct {
    int reactor_count;
    const pst_net_listener *listeners;
    int listener_count;
    pst_net_limits limits;
    pst_net_handler handler;
    pst_iopool *iopool; /* borrowed: cold file ranges are read there */
} pst_net_settings;

/* Binds and listens, starts the threads; they accept after pst_net_start. `error_out` gets one
 * sentence. */
int pst_net_create(const pst_net_settings *settings, char *error_out, size_t error_size,
                   pst_net **net_out);
int pst_net_port(const pst_net *net, int listener_index);
int pst_net_start(pst_net *net);
/* Graceful: stop accepting and reading, give open exchanges `grace_ms` to finish and leave, then
 * close; joins. */
void pst_net_stop(pst_net *net, int64_t grace_ms);
/* After pst_net_stop, which does it too: runs the notes that were posted since, on the calling
 * thread and in the reactors' names. Every connection is dead by then. Notes posted later still are
 * never run. */
void pst_net_run_notes(pst_net *net);
void pst_net_destroy(pst_net *net);
/* In a forked child: closes the descriptors that would keep ports taken and epolls shared. Nothing
 * else works there. */
void pst_net_abandon(pst_net *net);

int pst_net_reactor_count(const pst_net *net);
pst_reactor *pst_net_reactor(pst_net *net, int index);

/* ---- per reactor ---- */
int pst_reactor_index(const pst_reactor *reactor);
/* (any) Is the calling thread this reactor's? */
bool pst_reactor_is_current(const pst_reactor *reactor);
int64_t pst_reactor_now_ms(const pst_reactor *reactor); /* monotonic, read once per round */
int64_t pst_reactor_wall_ms(const pst_reactor *reactor);
void *pst_reactor_context(pst_reactor *reactor); /* one pointer per reactor for the room above */
void pst_reactor_set_context(pst_reactor *reactor, void *context);
/* Loop-boundary counter for the reclaiming of retired objects: odd while running a round, even
 * while asleep in epoll_wait (asleep counts as passed). (any) */
uint64_t pst_reactor_epoch(const pst_reactor *reactor);

/* A note to a reactor: embedded in the sender's object, delivered in order by `run` on the
 * reactor's thread. Posting to a reactor that is asleep writes its eventfd once per batch. (any) */
typedef struct pst_note {
    struct pst_note *next;
    void (*run)(struct pst_note *note, pst_reactor *reactor);
} pst_note;
void pst_reactor_post(pst_reactor *reactor, pst_note *note);

/* (reactor) One-shot timers on the reactor's wheel, 1 ms resolution; embedded; re-arming moves it.
 * No tick when idle. */
typedef struct pst_timer {
    pst_list link;
    int64_t deadline_ms;
    void (*fire)(struct pst_timer *timer, pst_reactor *reactor);
} pst_timer;
void pst_timer_init(pst_timer *timer, void (*fire)(pst_timer *timer, pst_reactor *reactor));
void pst_timer_arm(pst_reactor *reactor, pst_timer *timer, int64_t deadline_ms);
void pst_timer_cancel(pst_reactor *reactor, pst_timer *timer);

/* ---- connections and exchanges (reactor) ---- */
int pst_conn_listener(const pst_conn *conn);
const char *pst_conn_peer(
    const pst_conn *conn); /* numeric address, valid while the connection lives */
bool pst_conn_authenticated(const pst_conn *conn);
void pst_conn_set_authenticated(pst_conn *conn);
void *pst_conn_context(
    const pst_conn *conn); /* one pointer for the room above, e.g. fetch bookkeeping */
void pst_conn_set_context(pst_conn *conn, void *context);
/* Barrier: while the count is above zero no further frame of this connection is delivered (bytes
 * wait). */
void pst_conn_hold(pst_conn *conn);
void pst_conn_resume(pst_conn *conn);

/* Copies the frame (`data`,`size` as given to on_frame; if it arrived in a buffer of its own, takes
 * that buffer) out of the round. The address of the bytes may change. -PST_ELIMIT when the pool
 * refuses; the caller then closes. */
int pst_conn_take_frame(pst_exchange *exchange, pst_frame **frame_out);

pst_conn *pst_exchange_conn(pst_exchange *exchange); /* NULL once the connection died */
pst_reactor *pst_exchange_reactor(pst_exchange *exchange);
pst_token pst_exchange_token(const pst_exchange *exchange);
void *pst_exchange_context(const pst_exchange *exchange);
void pst_exchange_set_context(pst_exchange *exchange, void *context);
/* (reactor) Finds the open exchange a token names, NULL if it is gone. */
pst_exchange *pst_net_exchange(pst_reactor *reactor, pst_token token);
pst_reactor *pst_token_reactor(pst_net *net, pst_token token); /* (any) */

/* The response under construction. Memory parts come from the reactor's arena; file parts hold a
 * counted file. The 4-byte size prefix is added by finish. */
/* Reserves `size` contiguous bytes of the response and returns where to write them (valid until the
 * next call on this exchange); NULL = out of memory. pst_exchange_trim gives back the unused end of
 * the last reservation. */
uint8_t *pst_exchange_reserve(pst_exchange *exchange, size_t size);
void pst_exchange_trim(pst_exchange *exchange, size_t unused);
/* Takes the reference in `range`. The bytes follow what was written before. */
int pst_exchange_add_file(pst_exchange *exchange, pst_file_range range);
/* Takes malloc'ed memory. */
int pst_exchange_add_owned(pst_exchange *exchange, uint8_t *data, size_t size);
size_t pst_exchange_size(const pst_exchange *exchange); /* bytes so far */
/* Drops everything written so far: the response starts over. */
void pst_exchange_reset(pst_exchange *exchange);

/* The response is whole: it leaves when its turn comes. With `has_response` false (acks=0) the slot
 * is just freed. */
void pst_exchange_finish(pst_exchange *exchange, bool has_response);
/* Answers nothing and closes the connection once earlier responses have left. */
void pst_exchange_close_connection(pst_exchange *exchange);

typedef struct {
    int64_t connections;
    int64_t accepted;
    int64_t refused;
    int64_t frames;
    int64_t bytes_in;
    int64_t bytes_out;
    int64_t frame_pool_used;
    int64_t rounds;
    int64_t closed_slow;
    int64_t cold_ranges;
} pst_net_statistics;
void pst_net_get_statistics(pst_net *net, pst_net_statistics *statistics_out); /* (any) */

#endif
