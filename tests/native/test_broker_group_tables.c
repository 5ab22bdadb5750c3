/* Committed offsets and member deadlines: rules of broker/group_tables.h, and a random walk against
 * plain arrays. */
#include <pthread.h>
#include <string.h>

#include "base/error.h"
#include "broker/group_tables.h"
#include "check.h"

static int put(pst_broker_offsets *t, const char *group, const char *topic, int32_t partition,
               int64_t offset, const char *metadata) {
    pst_broker_offset value = {.offset = offset,
                               .commit_timestamp = 1,
                               .expire_timestamp = -1,
                               .partition = partition,
                               .leader_epoch = 7};
    return pst_broker_offsets_put(t, group, strlen(group), topic, strlen(topic), &value, metadata,
                                  strlen(metadata));
}

static int64_t get(pst_broker_offsets *t, const char *group, const char *topic, int32_t partition) {
    pst_broker_offset_row *row;
    int rc = pst_broker_offsets_get(t, group, strlen(group), topic, strlen(topic), partition, &row);
    if (rc < 0) {
        CHECK_EQ(rc, -PST_ENOENT);
        return -1;
    }
    int64_t offset = row->value.offset;
    CHECK_EQ(row->value.partition, partition);
    CHECK_EQ(row->topic.size, strlen(topic));
    pst_broker_rows_free(row);
    return offset;
}

static void test_put_get_replace_remove(void) {
    pst_broker_offsets_limits limits = {.seed = 42};
    pst_broker_offsets *t;
    CHECK_EQ(pst_broker_offsets_create(&limits, &t), 0);
    CHECK_EQ(get(t, "g", "t", 0), -1);
    CHECK_EQ(put(t, "g", "t", 2, 20, "m2"), 0);
    CHECK_EQ(put(t, "g", "t", 0, 5, ""), 0);
    CHECK_EQ(put(t, "g", "u", 1, 9, "meta"), 0);
    CHECK_EQ(put(t, "", "t", 0, 77, ""), 0);
    CHECK_EQ(put(t, "g", "t", 2, 21, "longer metadata"), 0);
    CHECK_EQ(pst_broker_offsets_size(t), 4);
    CHECK_EQ(get(t, "g", "t", 2), 21);
    CHECK_EQ(get(t, "", "t", 0), 77);

    pst_broker_offset_row *rows;
    size_t count;
    CHECK_EQ(pst_broker_offsets_rows(t, "g", 1, &rows, &count), 0);
    CHECK_EQ(count, 3);
    CHECK_EQ(rows[0].value.partition, 0);
    CHECK_EQ(rows[1].value.partition, 2);
    CHECK_EQ(rows[1].metadata.size, 15);
    CHECK(memcmp(rows[2].topic.data, "u", 1) == 0);
    CHECK(memcmp(rows[2].metadata.data, "meta", 4) == 0);
    pst_broker_rows_free(rows);

    pst_broker_offset value;
    size_t metadata_size;
    char buffer[4];
    CHECK_EQ(pst_broker_offsets_read(t, "g", 1, "u", 1, 1, buffer, 4, &value, &metadata_size), 0);
    CHECK_EQ(value.offset, 9);
    CHECK_EQ(metadata_size, 4);
    CHECK_EQ(pst_broker_offsets_read(t, "g", 1, "t", 1, 2, buffer, 4, &value, &metadata_size),
             -PST_ELIMIT);
    CHECK_EQ(metadata_size, 15);

    CHECK_EQ(pst_broker_offsets_remove(t, "g", 1, "t", 1, 2), 0);
    CHECK_EQ(pst_broker_offsets_remove(t, "g", 1, "t", 1, 2), -PST_ENOENT);
    CHECK_EQ(pst_broker_offsets_remove_group(t, "g", 1), 2);
    CHECK_EQ(pst_broker_offsets_remove_group(t, "g", 1), 0);
    pst_broker_name *names;
    CHECK_EQ(pst_broker_offsets_groups(t, &names, &count), 0);
    CHECK_EQ(count, 1);
    CHECK_EQ(names[0].size, 0);
    pst_broker_names_free(names);
    CHECK_EQ(pst_broker_offsets_remove(t, "", 0, "t", 1, 0), 0);
    CHECK_EQ(pst_broker_offsets_size(t), 0);
    CHECK_EQ(pst_broker_offsets_bytes(t), 0);
    pst_broker_offsets_destroy(t);
    pst_broker_offsets_destroy(NULL);
}

static void test_limits_refuse_and_change_nothing(void) {
    pst_broker_offsets_limits limits = {.max_offsets = 2, .max_groups = 1, .max_bytes = 1000};
    pst_broker_offsets *t;
    CHECK_EQ(pst_broker_offsets_create(&limits, &t), 0);
    CHECK_EQ(put(t, "g", "t", 0, 1, ""), 0);
    CHECK_EQ(put(t, "h", "t", 0, 1, ""), -PST_ELIMIT);
    CHECK_EQ(put(t, "g", "t", 1, 1, ""), 0);
    CHECK_EQ(put(t, "g", "t", 2, 1, ""), -PST_ELIMIT);
    char big[2000];
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = 0;
    CHECK_EQ(put(t, "g", "t", 1, 2, big), -PST_ELIMIT);
    CHECK_EQ(get(t, "g", "t", 1), 1);
    CHECK_EQ(put(t, "g", "t", 1, 2, "small"), 0);
    CHECK_EQ(get(t, "g", "t", 1), 2);
    pst_broker_offsets_destroy(t);
}

enum { GROUPS = 7, TOPICS = 5, PARTITIONS = 9 };

static void test_random_walk_of_offsets(void) {
    pst_broker_offsets_limits limits = {.seed = 7};
    pst_broker_offsets *t;
    CHECK_EQ(pst_broker_offsets_create(&limits, &t), 0);
    static int64_t model[GROUPS][TOPICS][PARTITIONS];
    memset(model, 0xff, sizeof model);
    unsigned state = 12345;
    for (int step = 0; step < 50000; step++) {
        state = state * 1103515245u + 12345u;
        unsigned draw = state >> 8;
        unsigned g = draw % GROUPS;
        unsigned u = draw / GROUPS % TOPICS;
        unsigned p = draw / GROUPS / TOPICS % PARTITIONS;
        char group[16];
        char topic[16];
        snprintf(group, sizeof group, "group-%u", g);
        snprintf(topic, sizeof topic, "topic-%u", u);
        unsigned action = draw / 10000 % 8;
        if (action == 0 && draw % 50 == 0) {
            pst_broker_offsets_remove_group(t, group, strlen(group));
            memset(model[g], 0xff, sizeof model[g]);
        } else if (action < 4) {
            int rc = pst_broker_offsets_remove(t, group, strlen(group), topic, strlen(topic),
                                               (int32_t)p);
            CHECK_EQ(rc, model[g][u][p] == -1 ? -PST_ENOENT : 0);
            model[g][u][p] = -1;
        } else {
            CHECK_EQ(put(t, group, topic, (int32_t)p, step, step % 3 == 0 ? "meta" : ""), 0);
            model[g][u][p] = step;
        }
        CHECK_EQ(get(t, group, topic, (int32_t)p), model[g][u][p]);
    }
    size_t expected = 0;
    for (int g = 0; g < GROUPS; g++) {
        for (int u = 0; u < TOPICS; u++) {
            for (int p = 0; p < PARTITIONS; p++) {
                expected += model[g][u][p] != -1;
            }
        }
    }
    CHECK_EQ(pst_broker_offsets_size(t), expected);
    pst_broker_offsets_destroy(t);
}

static int upsert(pst_broker_members *t, const char *group, const char *member, int64_t deadline) {
    return pst_broker_members_upsert(t, group, strlen(group), member, strlen(member), 3, deadline);
}

static void test_members_expire_in_order_of_their_deadlines(void) {
    pst_broker_members_limits limits = {.max_members = 4, .seed = 1};
    pst_broker_members *t;
    CHECK_EQ(pst_broker_members_create(&limits, &t), 0);
    CHECK_EQ(pst_broker_members_next_deadline(t), -1);
    CHECK_EQ(upsert(t, "g", "late", 300), 0);
    CHECK_EQ(upsert(t, "g", "early", 100), 0);
    CHECK_EQ(upsert(t, "h", "early", 200), 0);
    CHECK_EQ(upsert(t, "he", "arly", 250), 0);
    CHECK_EQ(upsert(t, "g", "more", 1), -PST_ELIMIT);
    CHECK_EQ(pst_broker_members_size(t), 4);
    CHECK_EQ(pst_broker_members_next_deadline(t), 100);
    /* A touch moves the deadline; the queue finds out when it looks. */
    CHECK_EQ(pst_broker_members_touch(t, "g", 1, "early", 5, 400), 0);
    CHECK_EQ(pst_broker_members_touch(t, "g", 1, "nobody", 6, 400), -PST_ENOENT);
    CHECK(pst_broker_members_next_deadline(t) <= 200);

    pst_broker_member_row *rows;
    size_t count;
    CHECK_EQ(pst_broker_members_expired(t, 150, &rows, &count), 0);
    CHECK_EQ(count, 0);
    CHECK(rows == NULL);
    CHECK_EQ(pst_broker_members_next_deadline(t), 200);
    CHECK_EQ(pst_broker_members_expired(t, 300, &rows, &count), 0);
    CHECK_EQ(count, 3);
    CHECK_EQ(rows[0].deadline, 200);
    CHECK_EQ(rows[0].group.size, 1);
    CHECK(memcmp(rows[1].group.data, "he", 2) == 0);
    CHECK(memcmp(rows[1].member.data, "arly", 4) == 0);
    CHECK_EQ(rows[2].deadline, 300);
    CHECK_EQ(rows[2].generation, 3);
    pst_broker_member_rows_free(rows);
    /* Earlier again. */
    CHECK_EQ(pst_broker_members_touch(t, "g", 1, "early", 5, 310), 0);
    CHECK_EQ(pst_broker_members_next_deadline(t), 310);
    CHECK_EQ(pst_broker_members_remove(t, "g", 1, "early", 5), 0);
    CHECK_EQ(pst_broker_members_remove(t, "g", 1, "early", 5), -PST_ENOENT);
    CHECK_EQ(pst_broker_members_size(t), 0);
    pst_broker_members_destroy(t);
}

enum { MEMBERS = 64 };

static void test_random_walk_of_members(void) {
    pst_broker_members_limits limits = {.seed = 9};
    pst_broker_members *t;
    CHECK_EQ(pst_broker_members_create(&limits, &t), 0);
    int64_t model[MEMBERS];
    memset(model, 0xff, sizeof model);
    unsigned state = 99;
    int64_t now = 0;
    for (int step = 0; step < 40000; step++) {
        state = state * 1103515245u + 12345u;
        unsigned draw = state >> 8;
        unsigned m = draw % MEMBERS;
        char member[16];
        snprintf(member, sizeof member, "m%u", m);
        int64_t deadline = now + 1 + draw / MEMBERS % 500;
        unsigned action = draw / 40000 % 10;
        if (action < 4) {
            CHECK_EQ(upsert(t, "g", member, deadline), 0);
            model[m] = deadline;
        } else if (action < 7) {
            int rc = pst_broker_members_touch(t, "g", 1, member, strlen(member), deadline);
            CHECK_EQ(rc, model[m] == -1 ? -PST_ENOENT : 0);
            model[m] = model[m] == -1 ? -1 : deadline;
        } else if (action < 8) {
            int rc = pst_broker_members_remove(t, "g", 1, member, strlen(member));
            CHECK_EQ(rc, model[m] == -1 ? -PST_ENOENT : 0);
            model[m] = -1;
        } else {
            now += draw % 40;
            size_t expected = 0;
            int64_t earliest = INT64_MAX;
            for (int i = 0; i < MEMBERS; i++) {
                earliest = model[i] != -1 && model[i] < earliest ? model[i] : earliest;
                if (model[i] != -1 && model[i] <= now) {
                    expected++;
                    model[i] = -1;
                }
            }
            CHECK(pst_broker_members_next_deadline(t) <= earliest);
            pst_broker_member_row *rows;
            size_t count;
            CHECK_EQ(pst_broker_members_expired(t, now, &rows, &count), 0);
            CHECK_EQ(count, expected);
            for (size_t i = 1; i < count; i++) {
                CHECK(rows[i - 1].deadline <= rows[i].deadline);
            }
            pst_broker_member_rows_free(rows);
        }
    }
    pst_broker_members_destroy(t);
}

static void *hammer(void *arg) {
    void **tables = arg;
    for (int i = 0; i < 5000; i++) {
        CHECK_EQ(put(tables[0], "g", "t", i % 16, i, "x"), 0);
        (void)get(tables[0], "g", "t", i % 16);
        CHECK_EQ(upsert(tables[1], "g", i % 2 == 0 ? "a" : "b", i), 0);
        (void)pst_broker_members_touch(tables[1], "g", 1, "a", 1, i + 5);
    }
    return NULL;
}

static void test_two_threads_share_the_tables(void) {
    pst_broker_offsets_limits offset_limits = {.seed = 1};
    pst_broker_members_limits member_limits = {.seed = 1};
    pst_broker_offsets *offsets;
    pst_broker_members *members;
    CHECK_EQ(pst_broker_offsets_create(&offset_limits, &offsets), 0);
    CHECK_EQ(pst_broker_members_create(&member_limits, &members), 0);
    void *tables[2] = {offsets, members};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, hammer, tables), 0);
    }
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
    CHECK_EQ(pst_broker_offsets_size(offsets), 16);
    CHECK_EQ(pst_broker_members_size(members), 2);
    pst_broker_offsets_destroy(offsets);
    pst_broker_members_destroy(members);
}

int main(void) {
    test_put_get_replace_remove();
    test_limits_refuse_and_change_nothing();
    test_random_walk_of_offsets();
    test_members_expire_in_order_of_their_deadlines();
    test_random_walk_of_members();
    test_two_threads_share_the_tables();
    return 0;
}
