/* broker/control.c - both ways between reactors and the control plane: requests up, answers down.
 *
 * Owner: to_control and the notes run on the connection's reactor; respond, redispatch, close and
 * drained on any thread. Layer: broker. Deliberately knows no API: the table says which requests
 * are barriers.
 *
 * A full ring: the request is kept, its connection held, and offered again when the engine reports
 * room. The offer is repeated once after the request became visible in `held_count`, so that a ring
 * drained in between is not missed. */
#include <stdlib.h>

#include "broker/broker_private.h"
#include "wire/api_table.h"

/* What an exchange that is in the control plane carries as its context. */
static char barrier_mark;

/* A request that waits for room in the ring. Owner: its reactor. */
struct held_request {
    pst_list link;
    pst_control_request request;
    pst_exchange *exchange;
};

static int offer(pst_broker *broker, const pst_control_request *request) {
    return broker->settings.offer_control(broker->settings.context, request);
}

static int hold(pst_shard *shard, pst_exchange *exchange, const pst_control_request *request) {
    struct held_request *held = malloc(sizeof *held);
    if (held == NULL) {
        return -PST_ENOMEM;
    }
    held->request = *request;
    held->exchange = exchange;
    pst_conn *conn = pst_exchange_conn(exchange);
    if (conn != NULL) {
        pst_conn_hold(conn);
    }
    pst_list_push_back(&shard->held, &held->link);
    atomic_fetch_add_explicit(&shard->held_count, 1, memory_order_seq_cst);
    pst_broker__fence();
    return 0;
}

static void offer_held(pst_shard *shard) {
    while (!pst_list_empty(&shard->held)) {
        struct held_request *held = PST_CONTAINER_OF(shard->held.next, struct held_request, link);
        int rc = offer(shard->broker, &held->request);
        if (rc == -PST_EAGAIN) {
            return;
        }
        pst_list_remove(&held->link);
        atomic_fetch_sub_explicit(&shard->held_count, 1, memory_order_seq_cst);
        pst_conn *conn = pst_exchange_conn(held->exchange);
        if (conn != NULL) {
            pst_conn_resume(conn);
        }
        if (rc < 0) {
            pst_frame_release(held->request.frame);
            pst_exchange_close_connection(held->exchange);
        }
        free(held);
    }
}

void pst_broker__offer_held(pst_note *note, pst_reactor *reactor) {
    (void)reactor;
    pst_shard *shard = PST_CONTAINER_OF(note, pst_shard, drained_note);
    atomic_store_explicit(&shard->drained_pending, false, memory_order_seq_cst);
    offer_held(shard);
}

void pst_broker__drop_held(pst_shard *shard) {
    for (pst_list *link; (link = pst_list_pop_front(&shard->held)) != NULL;) {
        struct held_request *held = PST_CONTAINER_OF(link, struct held_request, link);
        pst_frame_release(held->request.frame);
        free(held);
    }
    atomic_store(&shard->held_count, 0);
}

void pst_broker__to_control(pst_shard *shard, pst_request *request) {
    pst_exchange *exchange = request->exchange;
    pst_conn *conn = pst_exchange_conn(exchange);
    const pst_api *api = pst_api_find(request->api_key);
    pst_control_request up = {
        .token = pst_exchange_token(exchange),
        .api_key = request->api_key,
        .api_version = request->api_version,
    };
    up.frame = request->frame;
    request->frame = NULL;
    if (conn == NULL || (up.frame == NULL && pst_conn_take_frame(exchange, &up.frame) < 0)) {
        pst_frame_release(up.frame);
        pst_exchange_close_connection(exchange);
        return;
    }
    up.listener = pst_conn_listener(conn);
    const char *peer = pst_conn_peer(conn);
    size_t peer_size = strnlen(peer, sizeof up.peer - 1);
    memcpy(up.peer, peer, peer_size);
    if (api->barrier) {
        pst_conn_hold(conn);
        pst_exchange_set_context(exchange, &barrier_mark);
    }
    /* Behind requests that wait already, so that connections are served in turn. */
    int rc = pst_list_empty(&shard->held) ? offer(shard->broker, &up) : -PST_EAGAIN;
    if (rc == -PST_EAGAIN) {
        rc = hold(shard, exchange, &up);
        if (rc == 0) {
            offer_held(shard);
            return;
        }
    }
    if (rc < 0) {
        pst_frame_release(up.frame);
        pst_exchange_close_connection(exchange);
    }
}

static void reclaim_retired(pst_broker *broker) {
    /* A call that holds the lock reclaims itself, or the next one does. */
    if (atomic_load_explicit(&broker->has_retired, memory_order_relaxed) &&
        pthread_mutex_trylock(&broker->control_lock) == 0) {
        pst_image__reclaim(broker, false);
        pthread_mutex_unlock(&broker->control_lock);
    }
}

void pst_broker_control_drained(pst_broker *broker) {
    reclaim_retired(broker);
    pst_broker__fence();
    int count = atomic_load_explicit(&broker->attached, memory_order_acquire);
    for (int i = 0; i < count; i++) {
        pst_shard *shard = &broker->shards[i];
        if (atomic_load_explicit(&shard->held_count, memory_order_seq_cst) != 0 &&
            !atomic_exchange_explicit(&shard->drained_pending, true, memory_order_seq_cst)) {
            pst_reactor_post(shard->reactor, &shard->drained_note);
        }
    }
}

/* ---- answers ---- */

enum answer_kind { ANSWER_RESPOND, ANSWER_REDISPATCH, ANSWER_CLOSE };

/* On its way to the reactor of `token`. Owner: the note's receiver. */
struct answer {
    pst_note note;
    pst_broker *broker;
    pst_token token;
    enum answer_kind kind;
    uint8_t *data;
    size_t size;
    pst_frame *frame;
};

static void leave_control(pst_exchange *exchange) {
    pst_conn *conn = pst_exchange_conn(exchange);
    if (pst_exchange_context(exchange) == &barrier_mark && conn != NULL) {
        pst_conn_resume(conn);
    }
    pst_exchange_set_context(exchange, NULL);
}

static void respond(pst_exchange *exchange, struct answer *answer) {
    if (answer->size == 0) {
        free(answer->data);
        pst_exchange_finish(exchange, false);
    } else if (pst_exchange_add_owned(exchange, answer->data, answer->size) < 0) {
        pst_exchange_close_connection(exchange);
    } else {
        pst_exchange_finish(exchange, true);
    }
    answer->data = NULL;
}

static void redispatch(pst_shard *shard, pst_exchange *exchange, pst_frame *frame) {
    pst_request request;
    int rc = pst_broker__parse_header(frame->data, frame->size, &request);
    if (rc < 0 || pst_api_find(request.api_key)->where != PST_API_REACTOR ||
        request.api_key == PST_API_PRODUCE) {
        pst_exchange_close_connection(exchange);
        return;
    }
    request.exchange = exchange;
    request.redispatched = true;
    pst_broker__serve(shard, &request);
}

static void run_answer(pst_note *note, pst_reactor *reactor) {
    struct answer *answer = PST_CONTAINER_OF(note, struct answer, note);
    pst_shard *shard = &answer->broker->shards[pst_reactor_index(reactor)];
    pst_exchange *exchange = pst_net_exchange(reactor, answer->token);
    if (exchange == NULL) {
        free(answer->data);
    } else {
        leave_control(exchange);
        switch (answer->kind) {
            case ANSWER_RESPOND:
                respond(exchange, answer);
                break;
            case ANSWER_REDISPATCH:
                redispatch(shard, exchange, answer->frame);
                break;
            case ANSWER_CLOSE:
                pst_exchange_close_connection(exchange);
                break;
        }
    }
    pst_frame_release(answer->frame);
    free(answer);
}

static void post_answer(const struct answer *from) {
    struct answer *answer = malloc(sizeof *answer);
    if (answer == NULL) {
        /* The exchange stays open and its connection is not answered: the idle limit closes it. */
        free(from->data);
        pst_frame_release(from->frame);
        return;
    }
    *answer = *from;
    answer->note.run = run_answer;
    pst_reactor_post(pst_token_reactor(answer->broker->settings.net, answer->token), &answer->note);
}

void pst_broker_respond(pst_broker *broker, pst_token token, uint8_t *data, size_t size) {
    post_answer(&(struct answer){
        .broker = broker, .token = token, .kind = ANSWER_RESPOND, .data = data, .size = size});
}

void pst_broker_redispatch(pst_broker *broker, pst_token token, pst_frame *frame) {
    post_answer(&(struct answer){
        .broker = broker, .token = token, .kind = ANSWER_REDISPATCH, .frame = frame});
}

void pst_broker_close_connection(pst_broker *broker, pst_token token) {
    post_answer(&(struct answer){.broker = broker, .token = token, .kind = ANSWER_CLOSE});
}
