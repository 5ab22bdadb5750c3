/* reactor/reactor_private.h - what the files of the room share. Nobody outside includes it.
 *
 * File map: net.c (net: create, stop, counters), listener.c (bind, accept, address limits), loop.c
 * (the round and the mailbox), timer.c (wheel), conn.c (life of a connection, its deadlines),
 * receive.c (bytes to frames), buffer.c (buffers of unfinished frames, frame pool), exchange.c
 * (responses), send.c (responses to bytes), socket.c (the system calls on a socket; TLS goes
 * there). */
#ifndef PST_REACTOR_REACTOR_PRIVATE_H
#define PST_REACTOR_REACTOR_PRIVATE_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#include "base/assert.h"
#include "reactor/reactor.h"

enum {
    PST_WHEEL_LEVELS = 7, /* 42 bits of milliseconds: no deadline lies beyond the top level */
    PST_WHEEL_SLOTS = 64,
    PST_CHUNK_SIZE = 32768,
    PST_CHUNKS_KEPT = 128,
    PST_PARTS_INLINE = 4,
    PST_PARTS_KEPT = 64, /* longest part table that stays with a recycled exchange */
    PST_EXCHANGE_BLOCK = 32,
    PST_BUFFER_CLASSES = 9,
    PST_BUFFER_CLASS_TRIM = 4,        /* giving back this much is worth a malloc_trim */
    PST_BUFFER_CLASS_NONE = 255,      /* larger than every class: never cached */
    PST_BUFFERS_KEPT_SIZE = 64 << 20, /* bytes of free buffers per reactor */
    PST_BUFFER_TRIM_MS = 5000,
    PST_FRAME_LARGE = 65536,        /* from here on frames are received into buffers of their own */
    PST_READ_TURN_SIZE = 256 << 10, /* bytes of staging one connection may take per round */
    PST_READ_LARGE_SIZE = 1
        << 20,               /* bytes one connection may receive into its own buffer per round */
    PST_READ_MINIMUM = 4096, /* staging below this ends the round's reading */
    PST_FILE_SLICE = 256 << 10,
    PST_FILE_COPY_MAX =
        16384, /* file parts up to here are copied and leave with their neighbours */
    PST_FILE_COLD_TRIES = 8,
    PST_WRITE_TURN_SIZE = 1 << 20,
    PST_IOV_MAX = 64,
    PST_EVENTS_MAX = 256,
    PST_ACCEPTS_PER_ROUND = 64,
    PST_ACCEPT_PAUSE_MS = 50,
    PST_LINGER_MS = 1000, /* a peer that shut its side gets this long to be answered */
    PST_CONN_SLOTS_MAX = 1 << 24,
};

/* ---- timer.c ---- */
typedef struct { /* owner: its reactor */
    int64_t now_ms;
    uint64_t occupied[PST_WHEEL_LEVELS]; /* bits of empty slots are cleared lazily */
    pst_list slots[PST_WHEEL_LEVELS][PST_WHEEL_SLOTS];
    pst_list due;
} pst_reactor__wheel;

void pst_reactor__wheel_init(pst_reactor__wheel *wheel, int64_t now_ms);
/* Moves every timer with deadline <= now_ms to `due`. */
void pst_reactor__wheel_advance(pst_reactor__wheel *wheel, int64_t now_ms);
/* Earliest time at which the wheel has work (a deadline, or a slot to be spread over finer ones),
 * or -1. */
int64_t pst_reactor__wheel_next_ms(pst_reactor__wheel *wheel);
void pst_reactor__wheel_fire(pst_reactor *reactor);

/* ---- buffer.c ---- */
typedef struct pst_reactor__buffer { /* owner: its reactor; after take_frame: the frame */
    struct pst_reactor__buffer *next;
    size_t capacity;
    size_t start;  /* first byte not yet delivered */
    size_t end;    /* bytes arrived */
    size_t charge; /* bytes charged to the frame pool */
    uint8_t size_class;
    _Alignas(64) uint8_t data[];
} pst_reactor__buffer;

typedef struct { /* owner: its reactor */
    pst_reactor__buffer *free;
    int free_count;
    int free_count_low; /* least since the last trim: that many were not needed */
} pst_reactor__buffer_class;

/* NULL when memory ends. Capacity is at least `size`. */
pst_reactor__buffer *pst_reactor__buffer_acquire(pst_reactor *reactor, size_t size);
/* Gives the buffer and its charge back. */
void pst_reactor__buffer_release(pst_reactor *reactor, pst_reactor__buffer *buffer);
/* Released when the round's frames are no longer borrowed. */
void pst_reactor__buffer_release_after_round(pst_reactor *reactor, pst_reactor__buffer *buffer);
void pst_reactor__buffers_end_round(pst_reactor *reactor);
void pst_reactor__buffer_free(pst_reactor__buffer *buffer); /* (any) without its charge */
void pst_reactor__buffers_init(pst_reactor *reactor);
void pst_reactor__buffers_fini(pst_reactor *reactor);
/* Largest size the first buffer of a frame may have, given what the connection delivered before. */
size_t pst_reactor__buffer_first_size(size_t wanted, size_t proven);

void pst_net__pool_charge(pst_net *net, size_t size);
void pst_net__pool_release(pst_net *net, size_t size);
/* Charges up to `wanted` bytes and returns how many; 0 = the pool is full. */
size_t pst_net__pool_reserve(pst_net *net, size_t wanted);
bool pst_net__pool_full(pst_net *net);
void pst_reactor__starve(pst_conn *conn);
void pst_reactor__unstarve_one(pst_conn *conn);
/* Once per round: hand the overdraft to the unfinished frame nearest its end, or tell the reactor
 * that has it. */
void pst_reactor__overdraft_round(pst_reactor *reactor);
void pst_reactor__overdraft_return(pst_conn *conn);

/* ---- exchange.c ---- */
typedef struct pst_reactor__chunk { /* owner: its reactor */
    struct pst_reactor__chunk *next;
    uint32_t refs; /* parts in it, plus one while it is the reactor's current chunk */
    uint32_t used;
    uint8_t data[];
} pst_reactor__chunk;

typedef enum { PST_PART_CHUNK, PST_PART_OWNED, PST_PART_FILE } pst_reactor__part_kind;

typedef struct {
    pst_reactor__part_kind kind;
    union {
        pst_reactor__chunk *chunk;
        uint8_t *owned; /* malloc'ed */
        pst_file *file; /* counted */
    } from;
    union {
        uint8_t *data;
        int64_t pos;
    } at;
    size_t size; /* bytes not sent yet */
} pst_reactor__part;

typedef enum {
    PST_EXCHANGE_OPEN,
    PST_EXCHANGE_FINISHED,
    PST_EXCHANGE_CLOSE
} pst_reactor__exchange_state;

struct pst_exchange { /* owner: its reactor */
    pst_list link;    /* in conn->exchanges, request order */
    pst_conn *conn;
    uint64_t sequence;
    void *context;
    pst_reactor__exchange_state state;
    bool has_response;
    uint16_t part_count;
    uint16_t part_capacity;
    uint16_t part_next; /* first part not sent completely */
    uint8_t *prefix;    /* where finish writes the size; NULL until the first byte is reserved */
    size_t size;        /* bytes of the response without the prefix */
    size_t memory_size; /* bytes of it that are memory */
    pst_reactor__part *parts;
    pst_reactor__part inline_parts[PST_PARTS_INLINE];
    /* The request, valid in round `frame_round` only. */
    uint8_t *frame_data;
    size_t frame_size;
    uint64_t frame_round;
    pst_reactor__buffer *frame_buffer; /* set when the frame fills a buffer of its own */
};

typedef struct pst_reactor__exchange_block {
    struct pst_reactor__exchange_block *next;
    pst_exchange exchanges[PST_EXCHANGE_BLOCK];
} pst_reactor__exchange_block;

pst_exchange *pst_reactor__exchange_open(pst_conn *conn);
/* Unlinks and recycles it, with all its parts. */
void pst_reactor__exchange_free(pst_exchange *exchange);
void pst_reactor__exchanges_fini(pst_reactor *reactor);
/* Replaces a small file part by a copy. 0, -PST_EAGAIN (pages absent) or -PST_EIO (the file ends
 * early). */
int pst_reactor__part_copy(pst_reactor *reactor, pst_reactor__part *part);
void pst_reactor__part_drop(pst_reactor *reactor, pst_reactor__part *part);
/* Lets the current chunk start over when nothing refers to it. */
void pst_reactor__chunks_end_round(pst_reactor *reactor);

/* ---- conn.c ---- */
struct pst_conn {        /* owner: its reactor */
    pst_list ready_link; /* in reactor->ready or reactor->starved */
    pst_list flush_link; /* in reactor->flush */
    pst_list exchanges;  /* open and finished ones, request order */
    pst_reactor *reactor;
    void *context;
    uint64_t id; /* token.conn */
    uint64_t sequence_next;
    int fd; /* -1 once dead */
    int listener;
    int32_t exchange_count;
    int32_t holds;
    bool authenticated;
    bool dead;     /* no socket; stays until its last exchange is finished */
    bool readable; /* bytes, end or error may wait in the socket */
    bool writable;
    bool peer_shut; /* the kernel announced the end: one more recv will meet it */
    bool eof;       /* no more bytes will be received */
    bool closing;   /* no more frames are delivered */
    bool gated;     /* frames or bytes wait for the gate to open */
    bool starved;   /* unread because the frame pool is full */
    bool overdraft;
    bool cold;      /* an I/O job reads the next file slice */
    bool cold_seen; /* it happened before: look closer at the next slices */
    uint8_t cold_tries;
    size_t frame_hint;           /* size of the last frame if it was large, else 0 */
    size_t frame_proven;         /* largest frame delivered so far */
    size_t queued_size;          /* memory of finished responses not sent yet */
    pst_reactor__buffer *buffer; /* bytes that were not delivered yet, or NULL */
    uint64_t frame_moved;        /* bytes received since frame_mark_ms */
    int64_t frame_mark_ms;
    int64_t active_ms;    /* last byte in or out */
    int64_t send_mark_ms; /* last byte out, or the moment a response began to wait */
    int64_t linger_ms;    /* deadline after the peer shut its side */
    pst_timer timer;      /* the earliest of all deadlines, kept lazily */
    uint8_t address[16];
    char peer[INET6_ADDRSTRLEN];
};
_Static_assert(sizeof(pst_conn) <= 448,
               "an idle connection costs no more than 512 bytes with its slot");

void pst_conn__open(pst_reactor *reactor, int fd, int listener, bool authenticated,
                    const uint8_t address[16]);
void pst_conn__kill(pst_conn *conn);
pst_conn *pst_conn__find(pst_reactor *reactor, uint64_t id); /* dead ones too */
void pst_conn__arm(pst_conn *conn, int64_t deadline_ms);
bool pst_conn__gate_open(const pst_conn *conn);
void pst_conn__ungate(pst_conn *conn);
void pst_conn__add_ready(pst_conn *conn);
void pst_conn__add_flush(pst_conn *conn);
/* No further frame; what is in progress is answered, then it closes (after PST_LINGER_MS at the
 * latest). */
void pst_conn__linger(pst_conn *conn);
/* Kills a lingering connection that has nothing left to answer. */
void pst_conn__settle(pst_conn *conn);
void pst_conn__reap(pst_reactor *reactor);
void pst_conn__table_fini(pst_reactor *reactor);
void pst_conn__drain_all(pst_reactor *reactor);
void pst_conn__kill_all(pst_reactor *reactor);

/* ---- receive.c / send.c / socket.c ---- */
bool pst_conn__has_frame(const pst_conn *conn);
void pst_conn__receive(pst_conn *conn);
void pst_conn__flush(pst_conn *conn);
/* > 0 bytes; 0 = end; -PST_EAGAIN; other = dead. */
ssize_t pst_conn__socket_recv(pst_conn *conn, const struct iovec *iov, int count);
ssize_t pst_conn__socket_send(pst_conn *conn, const struct iovec *iov, int count, bool more);
ssize_t pst_conn__socket_sendfile(pst_conn *conn, int fd, int64_t pos, size_t size);

/* ---- listener.c ---- */
typedef struct { /* owner: reactor 0 after start */
    int fd;
    int port;
    int listener;
    bool requires_authentication;
} pst_reactor__listener;

typedef struct {
    uint8_t address[16];
    uint32_t count; /* 0 = free entry */
} pst_net__address;

int pst_net__listen(const pst_net_listener *wanted, char *error_out, size_t error_size,
                    pst_reactor__listener *listener_out);
void pst_net__accept(pst_reactor *reactor, int listener_index);
void pst_net__listeners_watch(pst_net *net, bool on);
void pst_net__listeners_close(pst_net *net);
void pst_net__accept_timer_fire(pst_timer *timer, pst_reactor *reactor);
/* Counts a connection; false = over a limit. */
bool pst_net__admit(pst_net *net, const uint8_t address[16]);
void pst_net__leave(pst_net *net, const uint8_t address[16]);

/* ---- loop.c / net.c ---- */
typedef struct { /* written by the reactor, read by anyone (relaxed) */
    _Atomic int64_t connections;
    _Atomic int64_t accepted;
    _Atomic int64_t frames;
    _Atomic int64_t bytes_in;
    _Atomic int64_t bytes_out;
    _Atomic int64_t rounds;
    _Atomic int64_t closed_slow;
    _Atomic int64_t cold_ranges;
} pst_reactor__counters;

static inline void pst_reactor__count(_Atomic int64_t *counter, int64_t by) {
    /* One writer: no locked instruction is needed. */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by,
                          memory_order_relaxed);
}

struct pst_reactor { /* owner: its thread; PST_SHARED fields say otherwise */
    pst_net *net;
    int index;
    int epoll_fd;
    int wake_fd; /* eventfd, edge-triggered: never read */
    pthread_t thread;
    bool thread_started;
    PST_SHARED _Atomic(pst_note *) mailbox; /* newest first */
    PST_SHARED atomic_bool
        sleeping;                  /* set before the mailbox is checked; seq_cst pairs with post */
    PST_SHARED atomic_int posters; /* threads inside pst_reactor_post */
    PST_SHARED _Atomic uint64_t epoch;
    void *context;
    int64_t now_ms;
    int64_t wall_ms;
    uint64_t round;
    bool stopping;
    int64_t stop_deadline_ms;
    int cold_jobs; /* jobs that will still post to this reactor */

    pst_list ready; /* connections with something to receive or deliver */
    pst_list flush; /* connections with something to send */
    pst_list starved;
    pst_list dead; /* connections to free at the end of the round (ready_link) */
    bool overdraft_dirty;
    pst_note pool_note; /* posted when the frame pool has room again */
    PST_SHARED atomic_bool pool_note_posted;

    uint8_t *staging;
    size_t staging_size;
    size_t staging_used;
    uint8_t
        *copy_scratch; /* file slices pass through it where cachestat is refused; NULL until then */
    size_t round_large; /* bytes of this round's frames in buffers of their own */

    pst_reactor__buffer_class buffers[PST_BUFFER_CLASSES];
    size_t buffers_kept_size;
    pst_reactor__buffer *round_buffers;
    pst_timer buffer_timer;

    pst_reactor__chunk *chunk;
    pst_reactor__chunk *chunks_free;
    int chunks_free_count;
    pst_list exchanges_free;
    pst_reactor__exchange_block *exchange_blocks;

    pst_conn **conns; /* by slot */
    uint32_t *generations;
    uint32_t *slots_free;
    uint32_t slots_free_count;
    uint32_t slot_count;
    uint32_t slot_capacity;
    pst_list conns_free; /* recycled structs (ready_link) */
    int64_t conn_count;  /* living ones */

    pst_timer accept_timer; /* reactor 0: accepting pauses while descriptors are short */
    pst_note stop_note;
    pst_note start_note;
    pst_reactor__wheel wheel;
    pst_reactor__counters counters;
};

typedef struct { /* owner: `lock` */
    pthread_mutex_t lock;
    uint64_t owner; /* id of the connection that may overdraw, 0 = none; ids are never 0 */
    int64_t *best;  /* per reactor: bytes missing to its starved frame nearest the end, -1 = none */
} pst_net__overdraft;

struct pst_net { /* immutable after start but for the fields that name their lock or are atomic */
    pst_net_limits limits;
    pst_net_handler handler;
    pst_iopool *iopool;
    int reactor_count;
    pst_reactor *reactors;
    int listener_count;
    pst_reactor__listener *listeners;
    int next_reactor; /* owner: reactor 0 */
    bool started;
    bool stopped;
    int64_t grace_ms; /* written before the stop notes are posted */
    PST_SHARED _Atomic int64_t pool_used;
    PST_SHARED atomic_int starved_count;
    PST_SHARED _Atomic int64_t connections;
    PST_SHARED _Atomic int64_t refused;
    PST_SHARED atomic_bool cachestat_missing;
    pst_net__overdraft overdraft;
    pthread_mutex_t address_lock;
    pst_net__address *addresses; /* owner: address_lock; open addressing, power of two */
    uint32_t address_capacity;
    uint32_t address_count;
    uint64_t address_seed;
};

#define PST_ASSERT_ON(reactor_) PST_ASSERT(pst_reactor_is_current(reactor_))

void *pst_reactor__main(void *reactor);
void pst_reactor__drain_mailbox(pst_reactor *reactor);
void pst_reactor__set_current(pst_reactor *reactor);
/* A note posted at most once until it ran. */
void pst_reactor__post_pool_note(pst_reactor *reactor);
void pst_reactor__run_pool_note(pst_note *note, pst_reactor *reactor);
void pst_reactor__run_stop_note(pst_note *note, pst_reactor *reactor);
void pst_reactor__run_start_note(pst_note *note, pst_reactor *reactor);

#endif
