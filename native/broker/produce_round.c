/* broker/produce_round.c - executes what a loop round gathered: one append per partition, then the
 * responses.
 *
 * Owner: the reactor. Layer: broker. Deliberately never blocks: what a log cannot do at once, what
 * needs the records of a compressed batch, and whatever comes behind such a batch is queued on the
 * partition (offload.c).
 *
 * (1) The parts of a partition keep the order in which their requests arrived, in the append as in
 * the queue. (2) An operation is answered once all its parts have results; only then does its frame
 * go. */
#include <stdlib.h>

#include "broker/produce_private.h"
#include "wire/error_codes.h"

/* A request with parts off the reactor. Owner: its reactor but for `pending`, and the queued parts
 * while queued. */
struct detached {
    pst_list link; /* round->detached */
    pst_note note;
    pst_shard *shard;
    pst_produce_op op;
    pst_frame *frame;
    atomic_int pending; /* parts without a result; whoever takes it to 0 posts the note */
    pst_produce_part parts[];
};

int pst_produce__create(pst_shard *shard) {
    shard->produce = calloc(1, sizeof *shard->produce);
    if (shard->produce == NULL) {
        return -PST_ENOMEM;
    }
    pst_list_init(&shard->produce->detached);
    return 0;
}

static void free_detached(struct detached *detached) {
    for (int32_t i = 0; i < detached->op.part_count; i++) {
        pst_produce_part *part = &detached->parts[i];
        free(part->rewritten);
        free(part->record_errors);
        if (part->offloaded) {
            pst_partition__unref(part->partition);
        }
    }
    pst_frame_release(detached->frame);
    free(detached);
}

void pst_produce__destroy(pst_shard *shard) {
    struct pst_produce_round *round = shard->produce;
    /* Results whose note found no reactor any more. */
    for (pst_list *link; (link = pst_list_pop_front(&round->detached)) != NULL;) {
        free_detached(PST_CONTAINER_OF(link, struct detached, link));
    }
    free(round->ops);
    free(round->parts);
    free(round->groups);
    free(round->appends);
    free(round->slots);
    free(round);
}

/* ---- gathering by partition ---- */

static int prepare_slots(struct pst_produce_round *round) {
    uint32_t wanted = 32;
    while (wanted < (uint32_t)round->part_count * 2) {
        wanted *= 2;
    }
    round->stamp++;
    if (wanted > round->slot_count || round->stamp == 0) {
        pst_produce_slot *slots = calloc(wanted, sizeof slots[0]);
        if (slots == NULL) {
            return -PST_ENOMEM;
        }
        free(round->slots);
        round->slots = slots;
        round->slot_count = wanted;
        round->stamp = 1;
    }
    PST_TRY(pst_produce__grow((void **)&round->groups, &round->group_capacity, round->part_count,
                              sizeof round->groups[0]));
    return pst_produce__grow((void **)&round->appends, &round->append_capacity, round->part_count,
                             sizeof round->appends[0]);
}

static pst_produce_group *group_of(struct pst_produce_round *round, pst_partition *partition) {
    uint64_t mixed = (uint64_t)(uintptr_t)partition * 0x9e3779b97f4a7c15ULL;
    uint32_t mask = round->slot_count - 1;
    for (uint32_t at = (uint32_t)(mixed >> 32) & mask;; at = (at + 1) & mask) {
        pst_produce_slot *slot = &round->slots[at];
        if (slot->stamp != round->stamp) {
            slot->stamp = round->stamp;
            slot->group = round->group_count++;
            pst_produce_group *group = &round->groups[slot->group];
            *group = (pst_produce_group){.partition = partition, .first = -1, .last = -1};
            return group;
        }
        if (round->groups[slot->group].partition == partition) {
            return &round->groups[slot->group];
        }
    }
}

static int gather(struct pst_produce_round *round) {
    round->group_count = 0;
    PST_TRY(prepare_slots(round));
    for (int32_t i = 0; i < round->part_count; i++) {
        pst_produce_part *part = &round->parts[i];
        if (part->error != 0) {
            continue;
        }
        pst_produce_group *group = group_of(round, part->partition);
        if (group->last < 0) {
            group->first = i;
        } else {
            round->parts[group->last].next = i;
        }
        group->last = i;
        group->count++;
        group->needs_records = group->needs_records || part->needs_records;
    }
    return 0;
}

/* ---- one append per partition ---- */

static void offload_group(struct pst_produce_round *round, const pst_produce_group *group) {
    for (int32_t i = group->first; i >= 0; i = round->parts[i].next) {
        round->parts[i].offloaded = true;
    }
}

static void append_group(pst_shard *shard, const pst_produce_group *group) {
    struct pst_produce_round *round = shard->produce;
    pst_partition *partition = group->partition;
    /* Acquire: pairs with the release after the last queued append, which then lies before ours. */
    if (group->needs_records ||
        atomic_load_explicit(&partition->offload_count, memory_order_acquire) != 0) {
        offload_group(round, group);
        return;
    }
    int32_t count = 0;
    for (int32_t i = group->first; i >= 0; i = round->parts[i].next) {
        round->appends[count++] = pst_produce__append_of(&round->parts[i]);
    }
    int rc =
        pst_log_append(partition->log, round->appends, count, pst_reactor_wall_ms(shard->reactor));
    if (rc == -PST_EAGAIN) {
        offload_group(round, group);
        return;
    }
    if (rc == 0) {
        pst_partition__appended(shard->broker, partition, shard);
    }
    pst_log_offsets offsets;
    pst_log_get_offsets(partition->log, &offsets);
    int64_t bytes = 0;
    int32_t at = 0;
    for (int32_t i = group->first; i >= 0; i = round->parts[i].next, at++) {
        if (rc < 0) {
            pst_produce__set_failure(&round->parts[i], rc, -1);
        } else {
            pst_produce__set_result(&round->parts[i], &round->appends[at], offsets.log_start);
            bytes += (int64_t)round->parts[i].size;
        }
    }
    pst_broker__count(&shard->produce_batches, count);
    pst_broker__count(&shard->produce_bytes, bytes);
}

/* ---- operations that leave the reactor ---- */

static void run_finished(pst_note *note, pst_reactor *reactor) {
    (void)reactor;
    struct detached *detached = PST_CONTAINER_OF(note, struct detached, note);
    pst_list_remove(&detached->link);
    pst_shard *shard = detached->shard;
    pst_conn *conn = pst_exchange_conn(detached->op.exchange);
    pst_produce__respond(shard, &detached->op, detached->parts);
    free_detached(detached);
    pst_conn_order__end(shard, conn);
}

static void part_done(pst_produce_part *part) {
    struct detached *detached = part->owner;
    /* Release: the results of this part are visible to whoever takes the count to 0. */
    if (atomic_fetch_sub_explicit(&detached->pending, 1, memory_order_acq_rel) == 1) {
        pst_reactor_post(detached->shard->reactor, &detached->note);
    }
}

static void *moved(const void *at, const pst_produce_op *op, const pst_frame *frame) {
    return frame->data + ((const uint8_t *)at - op->data);
}

static void detach(pst_shard *shard, const pst_produce_op *op, int32_t offloaded) {
    struct pst_produce_round *round = shard->produce;
    size_t parts_size = (size_t)op->part_count * sizeof(pst_produce_part);
    struct detached *detached = malloc(sizeof *detached + parts_size);
    pst_frame *frame = NULL;
    if (detached == NULL || pst_conn_take_frame(op->exchange, &frame) < 0 ||
        pst_conn_order__begin(pst_exchange_conn(op->exchange)) < 0) {
        pst_frame_release(frame);
        free(detached);
        pst_exchange_close_connection(op->exchange);
        for (int32_t i = 0; i < op->part_count; i++) {
            free(round->parts[op->first_part + i].record_errors);
        }
        return;
    }
    *detached =
        (struct detached){.note = {.run = run_finished}, .shard = shard, .op = *op, .frame = frame};
    atomic_init(&detached->pending, offloaded);
    memcpy(detached->parts, &round->parts[op->first_part], parts_size);
    for (int32_t i = 0; i < op->part_count; i++) {
        pst_produce_part *part = &detached->parts[i];
        if (part->topic_name.data != NULL) {
            part->topic_name.data = moved(part->topic_name.data, op, frame);
        }
        if (part->data != NULL) {
            part->data = moved(part->data, op, frame);
            part->view.data = part->data;
        }
        part->done = part_done;
        part->owner = detached;
        if (part->offloaded) {
            pst_partition__ref(part->partition);
        }
    }
    detached->op.data = frame->data;
    detached->op.first_part = 0;
    pst_list_push_back(&round->detached, &detached->link);
    pst_broker__count(&shard->offloaded_appends, offloaded);
    int32_t part_count = op->part_count;
    for (int32_t i = 0; i < part_count && offloaded > 0; i++) {
        /* After the last one is queued the operation may be finished: only `offloaded` is looked at
         * then. */
        if (detached->parts[i].offloaded) {
            offloaded--;
            pst_produce__offload(shard->broker, &detached->parts[i]);
        }
    }
}

static void conclude(pst_shard *shard, const pst_produce_op *op) {
    pst_produce_part *parts = &shard->produce->parts[op->first_part];
    int32_t offloaded = 0;
    for (int32_t i = 0; i < op->part_count; i++) {
        offloaded += parts[i].offloaded ? 1 : 0;
    }
    if (offloaded > 0) {
        detach(shard, op, offloaded);
    } else {
        pst_produce__respond(shard, op, parts);
        for (int32_t i = 0; i < op->part_count; i++) {
            free(parts[i].record_errors);
        }
    }
}

void pst_produce__round_end(pst_shard *shard) {
    struct pst_produce_round *round = shard->produce;
    if (round->op_count == 0) {
        return;
    }
    int rc = gather(round);
    if (rc < 0) {
        for (int32_t i = 0; i < round->part_count; i++) {
            if (round->parts[i].error == 0) {
                pst_produce__set_failure(&round->parts[i], rc, -1);
            }
        }
        round->group_count = 0;
    }
    for (int32_t i = 0; i < round->group_count; i++) {
        append_group(shard, &round->groups[i]);
    }
    for (int32_t i = 0; i < round->op_count; i++) {
        conclude(shard, &round->ops[i]);
    }
    round->op_count = 0;
    round->part_count = 0;
    round->conn_bits = 0;
}
