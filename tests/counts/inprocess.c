/* tests/counts/inprocess.c - one engine and one blocking client in a process, for counting what a
 * produce costs.
 *
 * usage: inprocess DIRECTORY RECORD_BYTES WARM_UP REQUESTS
 * Sends Produce v9 requests of one batch, one at a time, and prints how many allocations the
 * reactor made for the REQUESTS after the WARM_UP ones. Under callgrind the difference of two runs
 * is the cost of one request. malloc is interposed, so it is built without sanitizers. */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "penstock.h"
#include "wire/batch.h"
#include "wire/writer.h"

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static atomic_bool counting;
static atomic_long allocations;

static void note_allocation(void) {
    if (atomic_load_explicit(&counting, memory_order_relaxed)) {
        char name[16] = "";
        prctl(PR_GET_NAME, name);
        if (strncmp(name, "pst-reactor", 11) == 0) {
            atomic_fetch_add(&allocations, 1);
        }
    }
}

void *malloc(size_t size) {
    note_allocation();
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    note_allocation();
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    note_allocation();
    return __libc_realloc(old, size);
}

static void must(int rc, const char *what) {
    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", what, pst_engine_strerror(rc));
        exit(1);
    }
}

static int start(const char *directory, pst_engine **engine_out) {
    char error[256] = "";
    const char *dirs[] = {directory};
    pst_engine_settings settings = {.log_dirs = dirs, .log_dir_count = 1, .reactors = 1};
    int rc = pst_engine_open(&settings, error, sizeof error, engine_out);
    if (rc < 0) {
        fprintf(stderr, "open: %s\n", error);
        exit(1);
    }
    pst_engine_listener listener = {.host = "127.0.0.1"};
    int32_t port;
    must(pst_engine_bind(*engine_out, &listener, 1, &port, error, sizeof error), "bind");
    pst_engine_endpoint endpoint = {.host = "127.0.0.1", .port = port};
    pst_engine_cluster cluster = {
        .cluster_id = "counts", .endpoints = &endpoint, .endpoint_count = 1};
    must(pst_engine_publish_cluster(*engine_out, &cluster), "cluster");
    pst_engine_partition partition = {0};
    pst_engine_topic topic = {.name = "t",
                              .name_size = 1,
                              .id = {1},
                              .partitions = &partition,
                              .partition_count = 1,
                              .config = {.segment_bytes = 1 << 30,
                                         .segment_ms = INT64_MAX,
                                         .segment_index_bytes = 10 << 20,
                                         .index_interval_bytes = 4096,
                                         .retention_ms = -1,
                                         .retention_bytes = -1,
                                         .max_message_bytes = 1 << 20,
                                         .message_timestamp_before_max_ms = INT64_MAX,
                                         .message_timestamp_after_max_ms = 3600000,
                                         .compression_type = -1,
                                         .cleanup_policy = 1,
                                         .min_insync_replicas = 1}};
    int32_t failed;
    must(pst_engine_publish_topics(*engine_out, &topic, 1, NULL, 0, &failed), "topics");
    must(pst_engine_serve(*engine_out), "serve");
    return port;
}

static void build(int record_bytes, pst_byte_buffer *frame) {
    pst_byte_buffer batch = {0};
    pst_batch_builder builder;
    pst_batch_builder_init(&builder, &batch);
    uint8_t *value = calloc(1, (size_t)record_bytes);
    pst_slice slice = pst_slice_of(value, (size_t)record_bytes);
    pst_batch_builder_append(&builder, 1700000000000, NULL, &slice, NULL, 0);
    must(pst_batch_builder_finish(&builder), "batch");
    free(value);
    pst_writer w = pst_writer_of(frame);
    pst_writer_i32(&w, 0);
    pst_writer_i16(&w, 0);
    pst_writer_i16(&w, 9);
    pst_writer_i32(&w, 1);
    pst_writer_string(&w, pst_slice_str("counts"));
    pst_writer_u8(&w, 0);
    pst_writer_uvarint(&w, 0);
    pst_writer_i16(&w, 1);
    pst_writer_i32(&w, 30000);
    pst_writer_compact_array(&w, 1);
    pst_writer_compact_string(&w, pst_slice_str("t"));
    pst_writer_compact_array(&w, 1);
    pst_writer_i32(&w, 0);
    pst_writer_compact_bytes(&w, pst_byte_buffer_slice(&batch));
    pst_writer_u8(&w, 0);
    pst_writer_u8(&w, 0);
    pst_writer_u8(&w, 0);
    pst_writer_patch_size(&w, 0);
    must(w.err, "frame");
    pst_byte_buffer_fini(&batch);
}

static void exactly(int fd, uint8_t *data, size_t size) {
    while (size > 0) {
        ssize_t n = recv(fd, data, size, 0);
        if (n <= 0) {
            fprintf(stderr, "the connection was lost\n");
            exit(1);
        }
        data += n;
        size -= (size_t)n;
    }
}

static void call(int fd, const pst_byte_buffer *frame) {
    uint8_t answer[256];
    uint32_t size;
    for (size_t sent = 0; sent < frame->size;) {
        ssize_t n = send(fd, frame->data + sent, frame->size - sent, MSG_NOSIGNAL);
        if (n <= 0) {
            perror("send");
            exit(1);
        }
        sent += (size_t)n;
    }
    exactly(fd, (uint8_t *)&size, 4);
    size = ntohl(size);
    if (size > sizeof answer) {
        fprintf(stderr, "an answer of %u bytes\n", size);
        exit(1);
    }
    exactly(fd, answer, size);
    /* correlation id, tags, 1 topic, its name, 1 partition, index, error code */
    size_t at = 4 + 1 + 1 + 2 + 1 + 4;
    if (answer[at] != 0 || answer[at + 1] != 0) {
        fprintf(stderr, "error code %d\n", answer[at] << 8 | answer[at + 1]);
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: inprocess DIRECTORY RECORD_BYTES WARM_UP REQUESTS\n");
        return 2;
    }
    pst_engine *engine;
    int port = start(argv[1], &engine);
    pst_byte_buffer frame = {0};
    build(atoi(argv[2]), &frame);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        perror("connect");
        return 1;
    }
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    for (int i = 0; i < atoi(argv[3]); i++) {
        call(fd, &frame);
    }
    atomic_store(&counting, true);
    for (int i = 0; i < atoi(argv[4]); i++) {
        call(fd, &frame);
    }
    atomic_store(&counting, false);
    printf("%ld\n", atomic_load(&allocations));
    close(fd);
    pst_byte_buffer_fini(&frame);
    pst_engine_stop(engine, true);
    pst_engine_destroy(engine);
    return 0;
}
