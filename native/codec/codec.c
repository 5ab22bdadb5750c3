/* codec/codec.c - the table of codecs.
 *
 * Owner: nobody; safe on any thread. Layer: codec. */
#include "codec/codec.h"

#include "base/assert.h"
#include "codec/codec_private.h"

static int copy_compress(pst_slice in, int level, pst_byte_buffer *out) {
    (void)level;
    return pst_byte_buffer_append(out, in.data, in.size);
}

static int copy_decompress(pst_slice in, size_t size_max, pst_byte_buffer *out) {
    return in.size > size_max ? -PST_EBOMB : pst_byte_buffer_append(out, in.data, in.size);
}

/* Levels: Kafka's GzipCompression, Lz4Compression, ZstdCompression. */
static const pst_codec codecs[PST_CODEC_COUNT] = {
    {PST_CODEC_NONE, "none", 0, 0, 0, copy_compress, copy_decompress},
    {PST_CODEC_GZIP, "gzip", 1, 9, -1, pst_codec__gzip_compress, pst_codec__gzip_decompress},
    {PST_CODEC_SNAPPY, "snappy", 0, 0, 0, pst_codec__snappy_compress, pst_codec__snappy_decompress},
    {PST_CODEC_LZ4, "lz4", 1, 17, 9, pst_codec__lz4_compress, pst_codec__lz4_decompress},
    {PST_CODEC_ZSTD, "zstd", -131072, 22, 3, pst_codec__zstd_compress, pst_codec__zstd_decompress},
};

const pst_codec *pst_codec_by_id(int id) {
    return id >= 0 && id < PST_CODEC_COUNT ? &codecs[id] : NULL;
}

const pst_codec *pst_codec_by_name(pst_slice name) {
    for (int id = 0; id < PST_CODEC_COUNT; id++) {
        if (pst_slice_eq(name, pst_slice_str(codecs[id].name))) {
            return &codecs[id];
        }
    }
    return NULL;
}

bool pst_codec_level_ok(const pst_codec *codec, int level) {
    return (level >= codec->level_min && level <= codec->level_max) ||
           level == codec->level_default;
}

int pst_codec_compress(int id, int level, pst_slice in, pst_byte_buffer *out) {
    const pst_codec *codec = pst_codec_by_id(id);
    if (codec == NULL) {
        return -PST_ECODEC;
    }
    size_t start = out->size;
    int rc = codec->compress(in, level, out);
    if (rc != 0) {
        out->size = start;
    }
    return rc;
}

int pst_codec_decompress(int id, pst_slice in, size_t size_max, pst_byte_buffer *out) {
    const pst_codec *codec = pst_codec_by_id(id);
    if (codec == NULL) {
        return -PST_ECODEC;
    }
    size_t start = out->size;
    size_t bound = size_max == 0 ? PST_CODEC_OUTPUT_MAX : size_max;
    int rc = codec->decompress(in, bound, out);
    if (rc == 0 && out->size - start > bound) {
        rc = -PST_EBOMB;
    }
    if (rc != 0) {
        out->size = start;
    }
    return rc;
}
