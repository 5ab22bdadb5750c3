/* codec/codec_private.h - shared by the files of codec/ only.
 *
 * Owner: nobody. Layer: codec. */
#ifndef PST_CODEC_CODEC_PRIVATE_H
#define PST_CODEC_CODEC_PRIVATE_H

#include "base/error.h"
#include "codec/codec.h"

int pst_codec__gzip_compress(pst_slice in, int level, pst_byte_buffer *out);
int pst_codec__gzip_decompress(pst_slice in, size_t size_max, pst_byte_buffer *out);
int pst_codec__snappy_compress(pst_slice in, int level, pst_byte_buffer *out);
int pst_codec__snappy_decompress(pst_slice in, size_t size_max, pst_byte_buffer *out);
int pst_codec__lz4_compress(pst_slice in, int level, pst_byte_buffer *out);
int pst_codec__lz4_decompress(pst_slice in, size_t size_max, pst_byte_buffer *out);
int pst_codec__zstd_compress(pst_slice in, int level, pst_byte_buffer *out);
int pst_codec__zstd_decompress(pst_slice in, size_t size_max, pst_byte_buffer *out);

/* Makes room for the next step of output. `start` is the size of `out` before the call. One byte
 * above `size_max` may be produced, so that a stream which ends exactly there is told from one that
 * goes on: after that byte this is -PST_EBOMB. `*room_out` is how much may be written at out->data
 * + out->size. */
static inline int pst_codec__step(pst_byte_buffer *out, size_t start, size_t size_max,
                                  size_t *room_out) {
    *room_out = 0;
    size_t produced = out->size - start;
    if (produced > size_max) {
        return -PST_EBOMB;
    }
    size_t left = size_max - produced;
    size_t step = left < PST_CODEC_STEP ? left + 1 : PST_CODEC_STEP;
    PST_TRY(pst_byte_buffer_reserve(out, step));
    size_t room = out->capacity - out->size;
    /* A buffer that has grown geometrically has more room than a step: use it, within the bound. */
    *room_out = room <= left ? room : left + 1 < room ? left + 1 : room;
    return 0;
}

#endif
