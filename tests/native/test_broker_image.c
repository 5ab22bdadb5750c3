/* test_broker_image.c - publication under load: what reactors see, what is reclaimed, what a
 * partition costs. */
#include <malloc.h>

#include "test_broker_support.h"

static void test_lookup_finds_what_was_published(test_broker *t) {
    pst_log_config config = test_config();
    char name[16];
    for (uint32_t i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "topic-%03u", (i * 7) % 300);
        test_publish_topic(t, name, (i * 7) % 300, 1, &config, false);
    }
    const pst_image *image = pst_broker__image(t->broker);
    CHECK_EQ(pst_image__topic_count(image), 300);
    for (uint32_t i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "topic-%03u", i);
        const pst_topic *topic = pst_image__topic_by_name(image, pst_slice_str(name));
        pst_uuid id = test_uuid(i);
        CHECK(topic != NULL && topic == pst_image__topic_by_id(image, &id));
        CHECK(topic == pst_image__topic_at(image, (int32_t)i));
    }
    CHECK(pst_image__topic_by_name(image, pst_slice_str("topic-300")) == NULL);
    CHECK(pst_image__topic_by_name(image, (pst_slice){NULL, 0}) == NULL);
    pst_uuid removed[300];
    for (uint32_t i = 0; i < 300; i++) {
        removed[i] = test_uuid(i);
    }
    int32_t failed;
    CHECK_EQ(pst_broker_publish_topics(t->broker, NULL, 0, removed, 300, &failed), 0);
    CHECK_EQ(pst_image__topic_count(pst_broker__image(t->broker)), 0);
}

static void test_upsert_adds_partitions_and_keeps_the_old_ones(test_broker *t) {
    pst_log_config config = test_config();
    test_publish_topic(t, "grows", 1, 2, &config, false);
    const pst_topic *before = pst_image__topic_at(pst_broker__image(t->broker), 0);
    pst_partition *first = before->partitions[0];
    pst_log_config *block = before->config;
    test_publish_topic(t, "grows", 1, 4, &config, false);
    const pst_topic *after = pst_image__topic_at(pst_broker__image(t->broker), 0);
    CHECK_EQ(after->partition_count, 4);
    CHECK(after->partitions[0] == first && after->config == block);
    config.retention_ms = 5;
    test_publish_topic(t, "grows", 1, 4, &config, false);
    const pst_topic *altered = pst_image__topic_at(pst_broker__image(t->broker), 0);
    CHECK(altered->partitions[0] == first && altered->config->retention_ms == 5);
    test_remove_topic(t, 1);
}

/* ---- readers against a publisher ---- */

typedef struct {
    test_broker *t;
    atomic_bool stop;
    atomic_int answers;
} readers;

static void *run_reader(void *arg) {
    readers *self = arg;
    int fd = test_connect(self->t->net);
    pst_byte_buffer out = {0};
    pst_byte_buffer in = {0};
    while (!atomic_load(&self->stop)) {
        pst_writer w = test_request(&out, PST_API_METADATA, 1, 3, "c");
        pst_writer_i32(&w, -1);
        test_send_buffer(fd, &out);
        CHECK(test_response(fd, &in));
        /* Churning topics come and go; the steady one is always whole. */
        pst_reader r = test_body(&in, PST_API_METADATA, 1, 3);
        CHECK_EQ(pst_reader_i32(&r), 1);
        pst_reader_skip(&r, 4 + 2 + 12 + 4 + 2 + 4);
        int32_t count = pst_reader_i32(&r);
        bool steady = false;
        for (int32_t i = 0; i < count; i++) {
            CHECK_EQ(pst_reader_i16(&r), 0);
            pst_slice name = pst_reader_string(&r);
            steady = steady || pst_slice_eq(name, pst_slice_str("steady"));
            pst_reader_skip(&r, 1);
            int32_t partitions = pst_reader_i32(&r);
            pst_reader_skip(&r, (size_t)partitions * 26);
        }
        CHECK(steady);
        CHECK_EQ(pst_reader_finish(&r), 0);
        atomic_fetch_add(&self->answers, 1);
    }
    pst_byte_buffer_fini(&in);
    pst_byte_buffer_fini(&out);
    close(fd);
    return NULL;
}

static void test_readers_see_whole_images_while_topics_come_and_go(test_broker *t) {
    enum { READERS = 3, ROUNDS = 150 };
    readers shared = {.t = t};
    pst_log_config config = test_config();
    test_publish_topic(t, "steady", 1, 2, &config, false);
    pthread_t threads[READERS];
    for (int i = 0; i < READERS; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, run_reader, &shared), 0);
    }
    for (uint32_t i = 0; i < ROUNDS; i++) {
        test_publish_topic(t, "churn", 10 + i, 1 + (int32_t)(i % 3), &config, false);
        config.retention_ms = 1000 + i;
        test_publish_topic(t, "steady", 1, 2 + (int32_t)(i / 20), &config, false);
        test_publish_cluster(t, false);
        test_remove_topic(t, 10 + i);
    }
    while (atomic_load(&shared.answers) < 20) {
        usleep(1000);
    }
    atomic_store(&shared.stop, true);
    for (int i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
    }
    /* Nobody is inside an old image any more. */
    for (int i = 0; i < 1000 && atomic_load(&t->broker->has_retired); i++) {
        usleep(1000);
        pst_broker_control_drained(t->broker);
    }
    CHECK(!atomic_load(&t->broker->has_retired));
    test_remove_topic(t, 1);
}

static void test_ten_thousand_partitions_are_cheap(test_broker *t) {
    enum { PARTITIONS = 10000 };
    pst_log_config config = test_config();
    struct mallinfo2 before = mallinfo2();
    int64_t start = pst_monotonic_ms();
    test_publish_topic(t, "wide", 1, PARTITIONS, &config, false);
    int64_t took = pst_monotonic_ms() - start;
    struct mallinfo2 after = mallinfo2();
    size_t used = after.uordblks + after.hblkhd - before.uordblks - before.hblkhd;
    fprintf(stderr, "%d partitions: %zu bytes each, opened in %lld ms\n", PARTITIONS,
            used / PARTITIONS, (long long)took);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK(used / PARTITIONS <= 2048);
#endif
    test_remove_topic(t, 1);
}

int main(void) {
    test_broker t;
    test_broker_start(&t, 2);
    test_lookup_finds_what_was_published(&t);
    test_upsert_adds_partitions_and_keeps_the_old_ones(&t);
    test_readers_see_whole_images_while_topics_come_and_go(&t);
    test_ten_thousand_partitions_are_cheap(&t);
    test_broker_stop(&t);
    return 0;
}
