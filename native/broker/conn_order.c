/* broker/conn_order.c - order of effects on one connection while appends of it are off the reactor.
 *
 * Owner: the reactor of the connection. Layer: broker.
 * Deliberately coarse: a request that can meet an append (a read, a barrier) waits for all appends
 * of its connection that left the reactor, whatever their partition. Produce never waits here: the
 * queues of the partitions keep its order. A connection without such appends costs one comparison.
 *
 * The waiting request is the last one delivered: its connection is held until it has been served.
 */
#include <stdlib.h>

#include "broker/broker_private.h"

/* The context of a connection that once had an append off the reactor. Owner: its reactor. */
struct conn_order {
    int32_t detached;       /* produce requests off the reactor */
    pst_exchange *exchange; /* of the request that waits for them, or NULL */
    pst_frame *frame;
};

static struct conn_order *order_of(const pst_conn *conn) {
    return conn != NULL ? pst_conn_context(conn) : NULL;
}

int pst_conn_order__begin(pst_conn *conn) {
    if (conn == NULL) {
        return 0;
    }
    struct conn_order *order = order_of(conn);
    if (order == NULL) {
        order = calloc(1, sizeof *order);
        if (order == NULL) {
            return -PST_ENOMEM;
        }
        pst_conn_set_context(conn, order);
    }
    order->detached++;
    return 0;
}

void pst_conn_order__end(pst_shard *shard, pst_conn *conn) {
    struct conn_order *order = order_of(conn);
    if (order == NULL) {
        return; /* it died meanwhile */
    }
    PST_ASSERT(order->detached > 0);
    if (--order->detached > 0 || order->exchange == NULL) {
        return;
    }
    pst_exchange *exchange = order->exchange;
    pst_frame *frame = order->frame;
    order->exchange = NULL;
    order->frame = NULL;
    pst_broker__serve_frame(shard, exchange, frame);
    pst_conn_resume(conn);
}

bool pst_conn_order__hold_back(pst_request *request) {
    pst_conn *conn = pst_exchange_conn(request->exchange);
    struct conn_order *order = order_of(conn);
    if (order == NULL || order->detached == 0) {
        return false;
    }
    PST_ASSERT(order->exchange == NULL);
    if (pst_conn_take_frame(request->exchange, &order->frame) < 0) {
        pst_exchange_close_connection(request->exchange);
        return true;
    }
    order->exchange = request->exchange;
    pst_conn_hold(conn);
    return true;
}

void pst_conn_order__closed(pst_conn *conn) {
    struct conn_order *order = order_of(conn);
    if (order == NULL) {
        return;
    }
    pst_conn_set_context(conn, NULL);
    if (order->exchange != NULL) {
        pst_exchange_finish(order->exchange, false);
        pst_frame_release(order->frame);
    }
    free(order);
}
