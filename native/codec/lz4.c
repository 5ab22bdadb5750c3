/* codec/lz4.c - the lz4 frame format, as Kafka's clients write it (64 KiB independent blocks).
 *
 * Owner: nobody; contexts live for one call. Layer: codec. */
#include <lz4frame.h>
#include <string.h>

#include "codec/codec_private.h"

enum {
    LEVEL_FAST = 9, /* Kafka's default level means the fast compressor */
    LEVEL_HIGH_MIN = 3,
    LEVEL_HIGH_MAX = 12, /* the library's own maximum; Kafka allows up to 17 */
};

int pst_codec__lz4_compress(pst_slice in, int level, pst_byte_buffer *out) {
    LZ4F_preferences_t preferences;
    memset(&preferences, 0, sizeof preferences);
    preferences.frameInfo.blockSizeID = LZ4F_max64KB;
    preferences.frameInfo.blockMode = LZ4F_blockIndependent;
    if (level == LEVEL_FAST) {
        preferences.compressionLevel = 0;
    } else {
        int high = level < LEVEL_HIGH_MIN ? LEVEL_HIGH_MIN : level;
        preferences.compressionLevel = high > LEVEL_HIGH_MAX ? LEVEL_HIGH_MAX : high;
    }
    size_t bound = LZ4F_compressFrameBound(in.size, &preferences);
    PST_TRY(pst_byte_buffer_reserve(out, bound));
    size_t made = LZ4F_compressFrame(out->data + out->size, bound, in.data, in.size, &preferences);
    if (LZ4F_isError(made)) {
        return -PST_ENOMEM;
    }
    out->size += made;
    return 0;
}

int pst_codec__lz4_decompress(pst_slice in, size_t size_max, pst_byte_buffer *out) {
    LZ4F_dctx *context = NULL;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&context, LZ4F_VERSION))) {
        return -PST_ENOMEM;
    }
    size_t start = out->size;
    size_t hint = 1; /* 0: a frame has just ended */
    int rc;
    for (;;) {
        size_t room;
        rc = pst_codec__step(out, start, size_max, &room);
        if (rc != 0) {
            break;
        }
        size_t taken = in.size;
        size_t made = room;
        hint = LZ4F_decompress(context, out->data + out->size, &made, in.data, &taken, NULL);
        if (LZ4F_isError(hint)) {
            rc = -PST_EMALFORMED;
            break;
        }
        out->size += made;
        in.data += taken;
        in.size -= taken;
        if (in.size == 0 && (hint == 0 || made < room)) {
            rc = hint == 0 ? 0 : -PST_ETRUNC;
            break;
        }
        if (taken == 0 && made == 0) {
            rc = -PST_EMALFORMED;
            break;
        }
    }
    LZ4F_freeDecompressionContext(context);
    return rc;
}
