/* codec/snappy.c - snappy: reads raw blocks and xerial framing, writes xerial framing.
 *
 * Owner: nobody; no state. Layer: codec. Xerial framing is what Kafka's Java client writes and the
 * only form that all clients read: a 16-byte header, then blocks of an int32 size and a raw snappy
 * block each. */
#include <endian.h>
#include <snappy-c.h>
#include <string.h>

#include "codec/codec_private.h"

enum {
    XERIAL_HEADER_SIZE = 16,
    XERIAL_BLOCK_SIZE = 32 * 1024,
    /* A copy element of 3 bytes yields at most 64: no honest block grows by more. */
    RATIO_MAX = 22,
};

static const uint8_t xerial_header[XERIAL_HEADER_SIZE] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0,
                                                          0,    0,   0,   1,   0,   0,   0,   1};

/* Its first 8 bytes: the version behind them may differ. */
static bool is_xerial(pst_slice in) {
    return in.size >= XERIAL_HEADER_SIZE && memcmp(in.data, xerial_header, 8) == 0;
}

int pst_codec__snappy_compress(pst_slice in, int level, pst_byte_buffer *out) {
    (void)level;
    PST_TRY(pst_byte_buffer_append(out, xerial_header, sizeof xerial_header));
    while (in.size > 0) {
        size_t size = in.size < XERIAL_BLOCK_SIZE ? in.size : XERIAL_BLOCK_SIZE;
        size_t made = snappy_max_compressed_length(size);
        PST_TRY(pst_byte_buffer_reserve(out, sizeof(uint32_t) + made));
        uint8_t *at = out->data + out->size;
        if (snappy_compress((const char *)in.data, size, (char *)at + sizeof(uint32_t), &made) !=
            SNAPPY_OK) {
            return -PST_EMALFORMED;
        }
        uint32_t prefix = htobe32((uint32_t)made);
        memcpy(at, &prefix, sizeof prefix);
        out->size += sizeof prefix + made;
        in.data += size;
        in.size -= size;
    }
    return 0;
}

/* One raw block; its claimed length is believed only as far as the block's own size allows. */
static int decompress_block(pst_slice in, size_t size_left, pst_byte_buffer *out) {
    size_t size = 0;
    if (snappy_uncompressed_length((const char *)in.data, in.size, &size) != SNAPPY_OK) {
        return -PST_EMALFORMED;
    }
    if (size / RATIO_MAX > in.size) {
        return -PST_EMALFORMED;
    }
    if (size > size_left) {
        return -PST_EBOMB;
    }
    PST_TRY(pst_byte_buffer_reserve(out, size == 0 ? 1 : size));
    if (snappy_uncompress((const char *)in.data, in.size, (char *)out->data + out->size, &size) !=
        SNAPPY_OK) {
        return -PST_EMALFORMED;
    }
    out->size += size;
    return 0;
}

int pst_codec__snappy_decompress(pst_slice in, size_t size_max, pst_byte_buffer *out) {
    if (!is_xerial(in)) {
        return decompress_block(in, size_max, out);
    }
    size_t start = out->size;
    while (in.size > 0) {
        if (is_xerial(in)) { /* at the start, and between concatenated streams */
            in.data += XERIAL_HEADER_SIZE;
            in.size -= XERIAL_HEADER_SIZE;
            continue;
        }
        uint32_t prefix;
        if (in.size < sizeof prefix) {
            return -PST_ETRUNC;
        }
        memcpy(&prefix, in.data, sizeof prefix);
        size_t size = be32toh(prefix);
        in.data += sizeof prefix;
        in.size -= sizeof prefix;
        if (size > in.size) {
            return -PST_ETRUNC;
        }
        PST_TRY(decompress_block((pst_slice){in.data, size}, size_max - (out->size - start), out));
        in.data += size;
        in.size -= size;
    }
    return 0;
}
