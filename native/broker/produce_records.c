/* broker/produce_records.c - rules about single records: keys of compacted topics, timestamp
 * limits.
 *
 * Owner: the caller, on a reactor (uncompressed batches) or an I/O thread. Layer: broker.
 * Deliberately walks the records a second time only after a rule was broken, to name them as Kafka
 * does. */
#include <stdlib.h>

#include "broker/produce_private.h"
#include "wire/error_codes.h"

enum { RECORD_ERRORS_MAX = 1000 }; /* named in one answer */

bool pst_produce__timestamp_ok(const pst_produce_rules *rules, int64_t timestamp, int64_t now_ms) {
    int64_t oldest = now_ms - rules->timestamp_before_max_ms;
    int64_t after = rules->timestamp_after_max_ms;
    int64_t newest = after > INT64_MAX - now_ms ? INT64_MAX : now_ms + after;
    return timestamp == -1 || (timestamp >= oldest && timestamp <= newest);
}

const char *pst_produce__record_message(const pst_produce_record_error *error) {
    return error->timestamp ? "Timestamp of the record is out of range."
                            : "Compacted topic cannot accept message without key.";
}

static void list_records(pst_produce_part *part, pst_slice records, int64_t now_ms) {
    int32_t room =
        part->view.record_count < RECORD_ERRORS_MAX ? part->view.record_count : RECORD_ERRORS_MAX;
    part->record_errors = malloc((size_t)room * sizeof part->record_errors[0]);
    if (part->record_errors == NULL) {
        return; /* The error stands without its list. */
    }
    pst_record_iter iter;
    pst_record_iter_init(&iter, records, part->view.record_count);
    pst_record record;
    for (int32_t i = 0;
         part->record_error_count < room && pst_record_iter_next(&iter, &record) == 1; i++) {
        int64_t timestamp =
            (int64_t)((uint64_t)part->view.base_timestamp + (uint64_t)record.timestamp_delta);
        bool keyless = part->rules.compacted && record.key_null;
        bool untimely = !keyless && part->rules.create_time &&
                        !pst_produce__timestamp_ok(&part->rules, timestamp, now_ms);
        if (keyless || untimely) {
            part->record_errors[part->record_error_count++] =
                (pst_produce_record_error){.index = i, .timestamp = untimely};
        }
    }
}

void pst_produce__check_scan(pst_produce_part *part, const pst_record_scan *scan, pst_slice records,
                             int64_t now_ms) {
    const pst_produce_rules *rules = &part->rules;
    bool keyless = rules->compacted && scan->null_key_index >= 0;
    bool untimely =
        rules->create_time && (!pst_produce__timestamp_ok(rules, scan->max_timestamp, now_ms) ||
                               !pst_produce__timestamp_ok(rules, scan->min_timestamp, now_ms));
    if (!keyless && !untimely) {
        return;
    }
    list_records(part, records, now_ms);
    /* As in Kafka, one bad timestamp among the refused records decides the code. */
    bool timestamps = false;
    for (int32_t i = 0; i < part->record_error_count; i++) {
        timestamps = timestamps || part->record_errors[i].timestamp;
    }
    if (timestamps || !keyless) {
        part->error = PST_KAFKA_INVALID_TIMESTAMP;
        part->message = "One or more records have been rejected due to invalid timestamp";
    } else {
        part->error = PST_KAFKA_INVALID_RECORD;
        part->message = "One or more records have been rejected due to record errors";
    }
}
