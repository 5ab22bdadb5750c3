/* codec/gzip.c - gzip by zlib.
 *
 * Owner: nobody; state on the caller's stack. Layer: codec. Several members one after another are
 * read as one stream, and what follows the last one is ignored: as Java's GZIPInputStream does. */
#include <string.h>
#include <zlib.h>

#include "codec/codec_private.h"

enum { WINDOW_GZIP = 15 + 16, MEMORY_LEVEL = 8 };

/* zlib counts input in 32 bits. */
static uInt portion(size_t size) {
    return size > UINT32_MAX ? UINT32_MAX : (uInt)size;
}

int pst_codec__gzip_compress(pst_slice in, int level, pst_byte_buffer *out) {
    z_stream stream;
    memset(&stream, 0, sizeof stream);
    if (in.size > UINT32_MAX) {
        return -PST_ELIMIT;
    }
    if (deflateInit2(&stream, level, Z_DEFLATED, WINDOW_GZIP, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) !=
        Z_OK) {
        return -PST_ENOMEM;
    }
    size_t bound = deflateBound(&stream, in.size);
    int rc = pst_byte_buffer_reserve(out, bound);
    if (rc != 0) {
        goto done;
    }
    stream.next_in = (z_const Bytef *)in.data;
    stream.avail_in = (uInt)in.size;
    stream.next_out = out->data + out->size;
    stream.avail_out = portion(bound);
    if (deflate(&stream, Z_FINISH) != Z_STREAM_END) {
        rc = -PST_EMALFORMED;
        goto done;
    }
    out->size += stream.total_out;
done:
    deflateEnd(&stream);
    return rc;
}

/* True when another gzip member follows. */
static bool member_follows(const z_stream *stream) {
    return stream->avail_in >= 2 && stream->next_in[0] == 0x1f && stream->next_in[1] == 0x8b;
}

int pst_codec__gzip_decompress(pst_slice in, size_t size_max, pst_byte_buffer *out) {
    z_stream stream;
    memset(&stream, 0, sizeof stream);
    if (in.size > UINT32_MAX) {
        return -PST_ELIMIT;
    }
    stream.next_in = (z_const Bytef *)in.data;
    stream.avail_in = (uInt)in.size;
    if (inflateInit2(&stream, WINDOW_GZIP) != Z_OK) {
        return -PST_ENOMEM;
    }
    size_t start = out->size;
    int rc;
    for (;;) {
        size_t room;
        rc = pst_codec__step(out, start, size_max, &room);
        if (rc != 0) {
            break;
        }
        uInt given = portion(room);
        stream.next_out = out->data + out->size;
        stream.avail_out = given;
        int status = inflate(&stream, Z_NO_FLUSH);
        size_t made = given - stream.avail_out;
        out->size += made;
        if (status == Z_STREAM_END) {
            if (!member_follows(&stream)) {
                break;
            }
            if (inflateReset(&stream) != Z_OK) {
                rc = -PST_EMALFORMED;
                break;
            }
        } else if (status == Z_MEM_ERROR) {
            rc = -PST_ENOMEM;
            break;
        } else if (status != Z_OK && status != Z_BUF_ERROR) {
            rc = -PST_EMALFORMED;
            break;
        } else if (stream.avail_in == 0 && stream.avail_out != 0) {
            rc = -PST_ETRUNC;
            break;
        }
    }
    inflateEnd(&stream);
    return rc;
}
