/* broker/dispatch.c - every frame comes in here: header, table of APIs, then the hot function or
 * the control plane.
 *
 * Owner: the reactor of the connection. Layer: broker.
 * Deliberately parses no body. Kafka's answers to what it cannot serve: an unknown key, a key or
 * version that is not served, or bytes that are no request close the connection; ApiVersions of an
 * unknown version gets error 35. */
#include "broker/broker_private.h"
#include "wire/api_table.h"

int pst_broker__respond_header(pst_exchange *exchange, int16_t api_key, int16_t api_version,
                               int32_t correlation_id) {
    const pst_api *api = pst_api_find(api_key);
    PST_ASSERT(api != NULL);
    size_t size = pst_api_response_header(api, api_version) == 1 ? 5 : 4;
    uint8_t *at = pst_exchange_reserve(exchange, size);
    if (at == NULL) {
        return -PST_ENOMEM;
    }
    uint32_t raw = htobe32((uint32_t)correlation_id);
    memcpy(at, &raw, sizeof raw);
    if (size == 5) {
        at[4] = 0; /* no tagged fields */
    }
    return 0;
}

/* Fills everything but `exchange`. -PST_EVERSION: the header up to the correlation id is valid, but
 * key or version are not served. */
static int parse_header(uint8_t *data, size_t size, pst_request *request_out,
                        const pst_api **api_out) {
    pst_reader reader = pst_reader_of(pst_slice_of(data, size));
    *request_out = (pst_request){.data = data, .size = size};
    request_out->api_key = pst_reader_i16(&reader);
    request_out->api_version = pst_reader_i16(&reader);
    request_out->correlation_id = pst_reader_i32(&reader);
    bool null;
    request_out->client_id = pst_reader_nullable_string(&reader, &null);
    PST_TRY(reader.err);
    const pst_api *api = pst_api_find(request_out->api_key);
    *api_out = api;
    if (api == NULL || !pst_api_serves(api, request_out->api_version)) {
        return -PST_EVERSION;
    }
    request_out->flexible = pst_api_flexible(api, request_out->api_version);
    if (request_out->flexible) {
        pst_reader_skip_tagged(&reader);
    }
    request_out->body = reader;
    return reader.err;
}

int pst_broker__parse_header(uint8_t *data, size_t size, pst_request *request_out) {
    const pst_api *api;
    return parse_header(data, size, request_out, &api);
}

void pst_broker__serve(pst_shard *shard, pst_request *request) {
    switch (request->api_key) {
        case PST_API_PRODUCE:
            pst_broker__produce(shard, request);
            break;
        case PST_API_FETCH:
            pst_broker__fetch(shard, request);
            break;
        case PST_API_METADATA:
            pst_broker__metadata(shard, request);
            break;
        case PST_API_LIST_OFFSETS:
            pst_broker__list_offsets(shard, request);
            break;
        case PST_API_OFFSET_FOR_LEADER_EPOCH:
            pst_broker__offset_for_leader_epoch(shard, request);
            break;
        case PST_API_API_VERSIONS:
            pst_broker__api_versions(shard, request);
            break;
        default:
            /* The generated table says "reactor" for a key without a function: our mistake. */
            PST_ASSERT(false);
    }
}

/* Whether the request can see or undo what an earlier Produce of its connection does. */
static bool meets_appends(const pst_request *request, const pst_api *api) {
    switch (request->api_key) {
        case PST_API_FETCH:
        case PST_API_LIST_OFFSETS:
        case PST_API_OFFSET_FOR_LEADER_EPOCH:
            return true;
        default:
            return api->barrier;
    }
}

static void run(pst_shard *shard, pst_request *request, const pst_api *api) {
    if (api->where == PST_API_REACTOR) {
        pst_broker__serve(shard, request);
        pst_frame_release(request->frame);
    } else {
        pst_broker__to_control(shard, request);
    }
}

void pst_broker__serve_frame(pst_shard *shard, pst_exchange *exchange, pst_frame *frame) {
    pst_request request;
    const pst_api *api = NULL;
    int rc = parse_header(frame->data, frame->size, &request, &api);
    PST_ASSERT(rc == 0); /* the same bytes were parsed before they were held back */
    request.exchange = exchange;
    request.frame = frame;
    run(shard, &request, api);
}

static void on_frame(void *context, pst_reactor *reactor, pst_conn *conn, pst_exchange *exchange,
                     uint8_t *data, size_t size) {
    pst_broker *broker = context;
    pst_shard *shard = &broker->shards[pst_reactor_index(reactor)];
    pst_broker__count(&shard->requests, 1);
    pst_request request;
    const pst_api *api = NULL;
    int rc = parse_header(data, size, &request, &api);
    request.exchange = exchange;
    if (rc == -PST_EVERSION && request.api_key == PST_API_API_VERSIONS) {
        pst_broker__api_versions_unsupported(&request);
    } else if (rc < 0) {
        pst_exchange_close_connection(exchange);
    } else if (request.api_key == PST_API_PRODUCE) {
        pst_broker__produce(shard, &request);
    } else {
        pst_produce__settle(shard, conn);
        if (!meets_appends(&request, api) || !pst_conn_order__hold_back(&request)) {
            run(shard, &request, api);
        }
    }
}

/* Reactors may run rounds before pst_broker_attach_net has finished and after the shards are gone.
 */
static pst_shard *shard_of(pst_broker *broker, pst_reactor *reactor) {
    int index = pst_reactor_index(reactor);
    return index < atomic_load_explicit(&broker->attached, memory_order_acquire)
               ? &broker->shards[index]
               : NULL;
}

static void on_round_begin(void *context, pst_reactor *reactor) {
    (void)context;
    (void)reactor;
    /* The epoch of this round is visible before the image is read (image.c (2)). */
    pst_broker__fence();
}

static void on_round_end(void *context, pst_reactor *reactor) {
    pst_shard *shard = shard_of(context, reactor);
    if (shard != NULL) {
        pst_produce__round_end(shard);
        pst_fetch__round_end(shard);
    }
}

static void on_conn_closed(void *context, pst_reactor *reactor, pst_conn *conn) {
    pst_shard *shard = shard_of(context, reactor);
    if (shard != NULL) {
        pst_fetch__conn_closed(shard, conn);
    }
    pst_conn_order__closed(conn);
}

static void on_stopping(void *context, pst_reactor *reactor) {
    pst_shard *shard = shard_of(context, reactor);
    if (shard != NULL) {
        pst_fetch__answer_parked(shard);
    }
}

void pst_broker_handler(pst_broker *broker, pst_net_handler *handler_out) {
    *handler_out = (pst_net_handler){
        .on_frame = on_frame,
        .on_round_begin = on_round_begin,
        .on_round_end = on_round_end,
        .on_conn_closed = on_conn_closed,
        .on_stopping = on_stopping,
        .context = broker,
    };
}
