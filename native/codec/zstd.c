/* codec/zstd.c - zstd frames with a bounded window.
 *
 * Owner: nobody; contexts live for one call. Layer: codec. */
#include <zstd.h>

#include "codec/codec_private.h"

enum { WINDOW_LOG_MAX = 23 };
_Static_assert((size_t)1 << WINDOW_LOG_MAX == PST_CODEC_ZSTD_WINDOW_MAX,
               "one bound, two spellings");

int pst_codec__zstd_compress(pst_slice in, int level, pst_byte_buffer *out) {
    size_t bound = ZSTD_compressBound(in.size);
    if (ZSTD_isError(bound)) {
        return -PST_ELIMIT;
    }
    PST_TRY(pst_byte_buffer_reserve(out, bound));
    ZSTD_CCtx *context = ZSTD_createCCtx();
    if (context == NULL) {
        return -PST_ENOMEM;
    }
    int rc = 0;
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level);
    if (level > 19) {
        /* Levels above 19 choose windows that readers like ours refuse. */
        ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, WINDOW_LOG_MAX);
    }
    size_t made = ZSTD_compress2(context, out->data + out->size, bound, in.data, in.size);
    if (ZSTD_isError(made)) {
        rc = -PST_ENOMEM;
    } else {
        out->size += made;
    }
    ZSTD_freeCCtx(context);
    return rc;
}

int pst_codec__zstd_decompress(pst_slice in, size_t size_max, pst_byte_buffer *out) {
    ZSTD_DCtx *context = ZSTD_createDCtx();
    if (context == NULL) {
        return -PST_ENOMEM;
    }
    ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    ZSTD_inBuffer input = {in.data, in.size, 0};
    size_t start = out->size;
    int rc;
    for (;;) {
        size_t room;
        rc = pst_codec__step(out, start, size_max, &room);
        if (rc != 0) {
            break;
        }
        ZSTD_outBuffer output = {out->data + out->size, room, 0};
        size_t taken_before = input.pos;
        size_t hint = ZSTD_decompressStream(context, &output, &input);
        if (ZSTD_isError(hint)) {
            rc = -PST_EMALFORMED;
            break;
        }
        out->size += output.pos;
        if (input.pos == input.size && (hint == 0 || output.pos < output.size)) {
            rc = hint == 0 ? 0 : -PST_ETRUNC;
            break;
        }
        if (input.pos == taken_before && output.pos == 0) {
            rc = -PST_EMALFORMED;
            break;
        }
    }
    ZSTD_freeDCtx(context);
    return rc;
}
