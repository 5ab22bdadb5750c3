/* storage/checkpoint.c - the text formats of Kafka's checkpoint files and of partition.metadata.
 * Owner: pure functions on bytes; storage.c and recovery.c do the reading and writing. */
#include <stdio.h>
#include <string.h>

#include "storage/storage_private.h"
#include "storage/text.h"

int pst_storage__offsets_decode(pst_slice text, pst_storage__offset_visitor visit, void *context) {
    pst_storage__text t = {text.data, text.data + text.size};
    int64_t version;
    int64_t count;
    if (!pst_storage__text_number(&t, '\n', &version) || version != 0 ||
        !pst_storage__text_number(&t, '\n', &count) || count < 0) {
        return -PST_EMALFORMED;
    }
    for (int64_t i = 0; i < count; i++) {
        pst_slice topic;
        int64_t partition;
        int64_t offset;
        char name[300];
        if (!pst_storage__text_word(&t, ' ', &topic) || topic.size == 0 || topic.size > 249 ||
            memchr(topic.data, 0, topic.size) != NULL ||
            !pst_storage__text_number(&t, ' ', &partition) || partition < 0 ||
            partition > INT32_MAX || !pst_storage__text_number(&t, '\n', &offset) || offset < 0) {
            return -PST_EMALFORMED;
        }
        int n = snprintf(name, sizeof name, "%.*s-%lld", (int)topic.size, (const char *)topic.data,
                         (long long)partition);
        PST_TRY(visit(context, pst_slice_of(name, (size_t)n), offset));
    }
    return 0;
}

static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void pst_storage__uuid_text(const pst_uuid *id, char out[23]) {
    uint32_t bits = 0;
    int have = 0;
    int n = 0;
    for (size_t i = 0; i < sizeof id->bytes; i++) {
        bits = (bits << 8) | id->bytes[i];
        have += 8;
        while (have >= 6) {
            have -= 6;
            out[n++] = base64url[(bits >> have) & 63];
        }
    }
    out[n++] = base64url[(bits << (6 - have)) & 63];
    out[n] = '\0';
}

int pst_storage__uuid_parse(pst_slice text, pst_uuid *id_out) {
    uint32_t bits = 0;
    int have = 0;
    size_t n = 0;
    memset(id_out, 0, sizeof *id_out);
    if (text.size != 22) {
        return -PST_EMALFORMED;
    }
    for (size_t i = 0; i < text.size; i++) {
        const char *at = text.data[i] == 0 ? NULL : strchr(base64url, text.data[i]);
        if (at == NULL) {
            return -PST_EMALFORMED;
        }
        bits = (bits << 6) | (uint32_t)(at - base64url);
        have += 6;
        if (have >= 8) {
            have -= 8;
            id_out->bytes[n++] = (uint8_t)(bits >> have);
        }
    }
    return 0;
}

int pst_storage__metadata_encode(const pst_uuid *topic_id, pst_byte_buffer *out) {
    char id[23];
    char text[64];
    pst_storage__uuid_text(topic_id, id);
    int n = snprintf(text, sizeof text, "version: 0\ntopic_id: %s", id);
    return pst_byte_buffer_append(out, text, (size_t)n);
}

int pst_storage__metadata_decode(pst_slice text, pst_uuid *topic_id_out) {
    static const char head[] = "version: 0\ntopic_id: ";
    size_t head_size = sizeof head - 1;
    memset(topic_id_out, 0, sizeof *topic_id_out);
    while (text.size > 0 &&
           (text.data[text.size - 1] == '\n' || text.data[text.size - 1] == '\r')) {
        text.size--;
    }
    if (text.size < head_size || memcmp(text.data, head, head_size) != 0) {
        return -PST_EMALFORMED;
    }
    return pst_storage__uuid_parse(pst_slice_of(text.data + head_size, text.size - head_size),
                                   topic_id_out);
}
