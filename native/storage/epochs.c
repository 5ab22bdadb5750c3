/* storage/epochs.c - leader epochs and where each began (KIP-101, KIP-279), Kafka's
 * LeaderEpochFileCache. Owner: the log's index lock. Epochs and start offsets both grow from entry
 * to entry. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/storage_private.h"
#include "storage/text.h"

enum { EPOCHS_MAX = 1 << 20 };

void pst_storage__epochs_fini(pst_storage__epochs *epochs) {
    free(epochs->entries);
    memset(epochs, 0, sizeof *epochs);
}

static pst_storage__epoch *all(pst_storage__epochs *epochs) {
    return epochs->entries != NULL ? epochs->entries : &epochs->first;
}

const pst_storage__epoch *pst_storage__epochs_at(const pst_storage__epochs *epochs, int32_t i) {
    return epochs->entries != NULL ? &epochs->entries[i] : &epochs->first;
}

int pst_storage__epochs_reserve(pst_storage__epochs *epochs) {
    int32_t capacity = epochs->entries == NULL ? 1 : epochs->capacity;
    if (epochs->count < capacity) {
        return 0;
    }
    if (epochs->count >= EPOCHS_MAX) {
        return -PST_ELIMIT;
    }
    int32_t wanted = capacity * 2 < 4 ? 4 : capacity * 2;
    pst_storage__epoch *bigger = realloc(epochs->entries, (size_t)wanted * sizeof *bigger);
    if (bigger == NULL) {
        return -PST_ENOMEM;
    }
    if (epochs->entries == NULL && epochs->count == 1) {
        bigger[0] = epochs->first;
    }
    epochs->entries = bigger;
    epochs->capacity = wanted;
    return 0;
}

int32_t pst_storage__epochs_latest(const pst_storage__epochs *epochs) {
    return epochs->count == 0 ? -1 : pst_storage__epochs_at(epochs, epochs->count - 1)->epoch;
}

int pst_storage__epochs_assign(pst_storage__epochs *epochs, int32_t epoch, int64_t start_offset) {
    if (epoch < 0 || start_offset < 0) {
        return 0;
    }
    pst_storage__epoch *entries = all(epochs);
    if (epochs->count > 0 && entries[epochs->count - 1].epoch == epoch) {
        return 0;
    }
    int32_t keep = epochs->count;
    while (keep > 0 &&
           (entries[keep - 1].epoch >= epoch || entries[keep - 1].start_offset >= start_offset)) {
        keep--;
    }
    epochs->count = keep;
    int rc = pst_storage__epochs_reserve(epochs);
    if (rc < 0) {
        return rc;
    }
    all(epochs)[epochs->count++] = (pst_storage__epoch){start_offset, epoch};
    return 1;
}

void pst_storage__epochs_end_offset(const pst_storage__epochs *epochs, int32_t epoch,
                                    int64_t log_end, int32_t *epoch_out, int64_t *end_out) {
    *epoch_out = -1;
    *end_out = -1;
    int32_t latest = pst_storage__epochs_latest(epochs);
    if (epoch == -1 || epochs->count == 0 || epoch > latest) {
        return;
    }
    if (epoch == latest) {
        *epoch_out = epoch;
        *end_out = log_end;
        return;
    }
    int32_t higher = 0; /* first entry above `epoch`; exists, since the latest is */
    while (pst_storage__epochs_at(epochs, higher)->epoch <= epoch) {
        higher++;
    }
    *end_out = pst_storage__epochs_at(epochs, higher)->start_offset;
    *epoch_out = higher == 0 ? epoch : pst_storage__epochs_at(epochs, higher - 1)->epoch;
}

int32_t pst_storage__epochs_for_offset(const pst_storage__epochs *epochs, int64_t offset) {
    for (int32_t i = epochs->count; i > 0; i--) {
        const pst_storage__epoch *e = pst_storage__epochs_at(epochs, i - 1);
        if (e->start_offset <= offset) {
            return e->epoch;
        }
    }
    return -1;
}

bool pst_storage__epochs_truncate_start(pst_storage__epochs *epochs, int64_t log_start) {
    pst_storage__epoch *entries = all(epochs);
    int32_t drop = 0; /* keep the last entry at or below the start; it begins there now */
    while (drop + 1 < epochs->count && entries[drop + 1].start_offset <= log_start) {
        drop++;
    }
    bool changed = drop > 0;
    if (drop > 0) {
        memmove(entries, entries + drop, (size_t)(epochs->count - drop) * sizeof *entries);
        epochs->count -= drop;
    }
    if (epochs->count > 0 && entries[0].start_offset < log_start) {
        entries[0].start_offset = log_start;
        changed = true;
    }
    return changed;
}

bool pst_storage__epochs_truncate_end(pst_storage__epochs *epochs, int64_t log_end) {
    bool changed = false;
    while (epochs->count > 0 &&
           pst_storage__epochs_at(epochs, epochs->count - 1)->start_offset >= log_end) {
        epochs->count--;
        changed = true;
    }
    return changed;
}

int pst_storage__epochs_encode(const pst_storage__epochs *epochs, pst_byte_buffer *out) {
    char line[64];
    int n = snprintf(line, sizeof line, "0\n%d\n", epochs->count);
    PST_TRY(pst_byte_buffer_append(out, line, (size_t)n));
    for (int32_t i = 0; i < epochs->count; i++) {
        const pst_storage__epoch *e = pst_storage__epochs_at(epochs, i);
        n = snprintf(line, sizeof line, "%d %lld\n", e->epoch, (long long)e->start_offset);
        PST_TRY(pst_byte_buffer_append(out, line, (size_t)n));
    }
    return 0;
}

int pst_storage__epochs_decode(pst_slice text, pst_storage__epochs *epochs) {
    pst_storage__text t = {text.data, text.data + text.size};
    int64_t version;
    int64_t count;
    if (!pst_storage__text_number(&t, '\n', &version) || version != 0 ||
        !pst_storage__text_number(&t, '\n', &count) || count < 0 || count > EPOCHS_MAX) {
        return -PST_EMALFORMED;
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t epoch;
        int64_t start;
        if (!pst_storage__text_number(&t, ' ', &epoch) ||
            !pst_storage__text_number(&t, '\n', &start) || epoch < 0 || epoch > INT32_MAX ||
            start < 0) {
            return -PST_EMALFORMED;
        }
        int rc = pst_storage__epochs_assign(epochs, (int32_t)epoch, start);
        if (rc < 0) {
            return rc;
        }
        if (epochs->count != i + 1) {
            return -PST_EMALFORMED; /* not ascending */
        }
    }
    return 0;
}
