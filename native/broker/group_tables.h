/* broker/group_tables.h - committed offsets, and the session deadlines of group members.
 *
 * Owner: each table belongs to the engine and is guarded by one mutex of its own; every function
 * may be called from any thread and holds no other lock. Layer: broker. Python writes the member
 * table and decides what an expiry means; reactors will serve Heartbeat, OffsetCommit and
 * OffsetFetch from both. Deliberately knows no group states and no records: it stores what it is
 * told.
 *
 * Names are UTF-8 bytes with a size, copied on insertion. Memory is bounded by the limits given at
 * creation. Functions return 0 or -PST_E*; results that they allocate are owned by the caller and
 * freed with the function named beside them. */
#ifndef PST_BROKER_GROUP_TABLES_H
#define PST_BROKER_GROUP_TABLES_H

#include <stddef.h>
#include <stdint.h>

/* A borrowed or owned name; see the function that returns it. */
typedef struct pst_broker_name {
    const char *data;
    size_t size;
} pst_broker_name;

/* ---- committed offsets ---------------------------------------------------------------------- */

/* Owner: its mutex. */
typedef struct pst_broker_offsets pst_broker_offsets;

typedef struct pst_broker_offsets_limits {
    size_t max_offsets; /* over all groups; 0: 10,000,000 */
    size_t max_groups;  /* groups with at least one offset; 0: 100,000 */
    size_t max_bytes;   /* all memory of the table; 0: 1 GiB */
    uint64_t seed;      /* of the hash; random per process */
} pst_broker_offsets_limits;

/* Owner: its holder. One committed offset; timestamps are wall clock milliseconds. */
typedef struct pst_broker_offset {
    uint8_t topic_id[16];
    int64_t offset;
    int64_t commit_timestamp;
    int64_t expire_timestamp; /* -1: the broker's retention applies */
    int32_t partition;
    int32_t leader_epoch; /* -1: none */
} pst_broker_offset;

/* Owner: its holder. `topic` and `metadata` point into the allocation the row came with. */
typedef struct pst_broker_offset_row {
    pst_broker_offset value;
    pst_broker_name topic;
    pst_broker_name metadata;
} pst_broker_offset_row;

int pst_broker_offsets_create(const pst_broker_offsets_limits *limits, pst_broker_offsets **out);
void pst_broker_offsets_destroy(pst_broker_offsets *table); /* NULL is fine */

/* Insert or replace. -PST_ELIMIT at a limit (nothing changed), -PST_ENOMEM. */
int pst_broker_offsets_put(pst_broker_offsets *table, const char *group, size_t group_size,
                           const char *topic, size_t topic_size, const pst_broker_offset *value,
                           const char *metadata, size_t metadata_size);

/* One row, owned: pst_broker_rows_free. -PST_ENOENT when there is none. */
int pst_broker_offsets_get(pst_broker_offsets *table, const char *group, size_t group_size,
                           const char *topic, size_t topic_size, int32_t partition,
                           pst_broker_offset_row **row_out);

/* Without allocating, for reactors: the metadata's bytes are copied into `metadata` (`capacity`
 * bytes). -PST_ENOENT; -PST_ELIMIT when they do not fit (*metadata_size_out is their size). */
int pst_broker_offsets_read(pst_broker_offsets *table, const char *group, size_t group_size,
                            const char *topic, size_t topic_size, int32_t partition, char *metadata,
                            size_t capacity, pst_broker_offset *value_out,
                            size_t *metadata_size_out);

/* 0, or -PST_ENOENT when there is none. */
int pst_broker_offsets_remove(pst_broker_offsets *table, const char *group, size_t group_size,
                              const char *topic, size_t topic_size, int32_t partition);

/* Everything of one group; how many offsets that were. */
size_t pst_broker_offsets_remove_group(pst_broker_offsets *table, const char *group,
                                       size_t group_size);

/* A snapshot of one group, by topic in order of first commit, partitions ascending. Owned:
 * pst_broker_rows_free. An unknown group has none (0, *count_out 0, *rows_out NULL). */
int pst_broker_offsets_rows(pst_broker_offsets *table, const char *group, size_t group_size,
                            pst_broker_offset_row **rows_out, size_t *count_out);
void pst_broker_rows_free(pst_broker_offset_row *rows);

/* A snapshot of the groups with offsets, in no order. Owned: pst_broker_names_free. */
int pst_broker_offsets_groups(pst_broker_offsets *table, pst_broker_name **names_out,
                              size_t *count_out);
void pst_broker_names_free(pst_broker_name *names);

size_t pst_broker_offsets_size(pst_broker_offsets *table);
size_t pst_broker_offsets_bytes(pst_broker_offsets *table);

/* ---- members -------------------------------------------------------------------------------- */

/* Owner: its mutex. */
typedef struct pst_broker_members pst_broker_members;

typedef struct pst_broker_members_limits {
    size_t max_members; /* 0: 1,000,000 */
    uint64_t seed;      /* of the hash; random per process */
} pst_broker_members_limits;

/* Owner: its holder. Both names point into the allocation the row came with. */
typedef struct pst_broker_member_row {
    pst_broker_name group;
    pst_broker_name member;
    int64_t deadline;
    int32_t generation;
} pst_broker_member_row;

int pst_broker_members_create(const pst_broker_members_limits *limits, pst_broker_members **out);
void pst_broker_members_destroy(pst_broker_members *table); /* NULL is fine */

/* Insert or replace. Deadlines are monotonic milliseconds. -PST_ELIMIT, -PST_ENOMEM. */
int pst_broker_members_upsert(pst_broker_members *table, const char *group, size_t group_size,
                              const char *member, size_t member_size, int32_t generation,
                              int64_t deadline);

/* Move the deadline of a known member; -PST_ENOENT when it is not there. Allocates nothing. */
int pst_broker_members_touch(pst_broker_members *table, const char *group, size_t group_size,
                             const char *member, size_t member_size, int64_t deadline);

int pst_broker_members_remove(pst_broker_members *table, const char *group, size_t group_size,
                              const char *member, size_t member_size);

/* Take out every member whose deadline is <= `now`, earliest first. Owned:
 * pst_broker_member_rows_free. On -PST_ENOMEM nothing was taken out. */
int pst_broker_members_expired(pst_broker_members *table, int64_t now,
                               pst_broker_member_row **rows_out, size_t *count_out);
void pst_broker_member_rows_free(pst_broker_member_row *rows);

/* No later than the earliest deadline, -1 when the table is empty. It may be early: a touch moves
 * the deadline only, and the queue is corrected when it is looked at. */
int64_t pst_broker_members_next_deadline(pst_broker_members *table);

size_t pst_broker_members_size(pst_broker_members *table);

#endif
