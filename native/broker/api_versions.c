/* broker/api_versions.c - ApiVersions 0-5, from the one table of APIs.
 *
 * Owner: the bodies are built once by the engine's thread and read by reactors. Layer: broker.
 * Leaves out: supported and finalised features (none has its APIs served yet), throttling.
 *
 * The response header is version 0 for every version. Produce is advertised from 0 although 0-2 are
 * not served (KAFKA-18659). Error 35 carries this API's own range in a version 0 body (KIP-511). A
 * request that names another cluster or node is told REBOOTSTRAP_REQUIRED (KIP-1242), which like
 * Kafka looks at the node only when a cluster is named. */
#include "broker/broker_private.h"
#include "wire/api_table.h"
#include "wire/error_codes.h"

static void write_body(pst_writer *w, int16_t version, int16_t error, bool with_keys) {
    bool flexible = version >= 3;
    int32_t count = 0;
    for (size_t i = 0; with_keys && i < pst_api_row_count; i++) {
        count += pst_api_rows[i].where != PST_API_NOWHERE ? 1 : 0;
    }
    pst_writer_i16(w, error);
    pst_writer_any_array(w, flexible, count);
    for (size_t i = 0; with_keys && i < pst_api_row_count; i++) {
        const pst_api *api = &pst_api_rows[i];
        if (api->where != PST_API_NOWHERE) {
            pst_writer_i16(w, api->key);
            pst_writer_i16(w, api->advertised_min);
            pst_writer_i16(w, api->version_max);
            pst_writer_no_tagged(w, flexible);
        }
    }
    if (version >= 1) {
        pst_writer_i32(w, 0); /* throttle time */
    }
    pst_writer_no_tagged(w, flexible);
}

int pst_broker__api_versions_init(pst_broker *broker) {
    const pst_api *api = pst_api_find(PST_API_API_VERSIONS);
    PST_ASSERT(api != NULL && api->version_max < PST_BROKER_API_VERSIONS_COUNT);
    for (int16_t version = 0; version <= api->version_max; version++) {
        pst_writer w = pst_writer_of(&broker->api_versions[version]);
        write_body(&w, version, PST_KAFKA_NONE, true);
        PST_TRY(w.err);
    }
    return 0;
}

void pst_broker__api_versions_fini(pst_broker *broker) {
    for (int i = 0; i < PST_BROKER_API_VERSIONS_COUNT; i++) {
        pst_byte_buffer_fini(&broker->api_versions[i]);
    }
}

static void respond(pst_request *request, pst_slice body) {
    uint8_t *at = pst_exchange_reserve(request->exchange, sizeof(int32_t) + body.size);
    if (at == NULL) {
        pst_exchange_close_connection(request->exchange);
        return;
    }
    uint32_t correlation_id = htobe32((uint32_t)request->correlation_id);
    memcpy(at, &correlation_id, sizeof correlation_id);
    memcpy(at + sizeof correlation_id, body.data, body.size);
    pst_exchange_finish(request->exchange, true);
}

static int keep_capacity(pst_byte_buffer *buffer, size_t capacity) {
    (void)buffer;
    (void)capacity;
    return -PST_ENOMEM;
}

static void respond_error(pst_request *request, int16_t version, int16_t error) {
    uint8_t bytes[32];
    pst_byte_buffer buffer = {.data = bytes, .capacity = sizeof bytes, .grow = keep_capacity};
    pst_writer w = pst_writer_of(&buffer);
    write_body(&w, version, error, false);
    PST_ASSERT(pst_writer_ok(&w));
    respond(request, pst_byte_buffer_slice(&buffer));
}

void pst_broker__api_versions_unsupported(pst_request *request) {
    const pst_api *api = pst_api_find(PST_API_API_VERSIONS);
    uint8_t bytes[32];
    pst_byte_buffer buffer = {.data = bytes, .capacity = sizeof bytes, .grow = keep_capacity};
    pst_writer w = pst_writer_of(&buffer);
    pst_writer_i16(&w, PST_KAFKA_UNSUPPORTED_VERSION);
    pst_writer_array(&w, 1);
    pst_writer_i16(&w, api->key);
    pst_writer_i16(&w, api->version_min);
    pst_writer_i16(&w, api->version_max);
    PST_ASSERT(pst_writer_ok(&w));
    respond(request, pst_byte_buffer_slice(&buffer));
}

static bool is_alphanumeric(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Kafka: [a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])? */
static bool is_software_word(pst_slice text) {
    if (text.size == 0 || !is_alphanumeric(text.data[0]) ||
        !is_alphanumeric(text.data[text.size - 1])) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (!is_alphanumeric(text.data[i]) && text.data[i] != '-' && text.data[i] != '.') {
            return false;
        }
    }
    return true;
}

void pst_broker__api_versions(pst_shard *shard, pst_request *request) {
    int16_t version = request->api_version;
    pst_reader *r = &request->body;
    pst_broker *broker = shard->broker;
    if (version >= 3) {
        pst_slice name = pst_reader_compact_string(r);
        pst_slice software_version = pst_reader_compact_string(r);
        bool no_cluster = true;
        pst_slice cluster_id = {NULL, 0};
        int32_t node_id = -1;
        if (version >= 5) {
            cluster_id = pst_reader_compact_nullable_string(r, &no_cluster);
            node_id = pst_reader_i32(r);
        }
        pst_reader_skip_tagged(r);
        if (!pst_reader_ok(r)) {
            pst_exchange_close_connection(request->exchange);
            return;
        }
        if (!is_software_word(name) || !is_software_word(software_version)) {
            respond_error(request, version, PST_KAFKA_INVALID_REQUEST);
            return;
        }
        const pst_cluster_spec *cluster = pst_image__cluster(pst_broker__image(broker));
        if (!no_cluster &&
            (!pst_slice_eq(cluster_id, cluster->cluster_id) || node_id != cluster->node_id)) {
            respond_error(request, version, PST_KAFKA_REBOOTSTRAP_REQUIRED);
            return;
        }
    }
    respond(request, pst_byte_buffer_slice(&broker->api_versions[version]));
}
