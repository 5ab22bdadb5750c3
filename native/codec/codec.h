/* codec/codec.h - the compression codecs of record batches behind one table.
 *
 * Owner: nobody; each call keeps its state on its own stack or heap, so any thread may call. Layer:
 * codec. Deliberately knows no batch: it turns bytes into bytes. May take milliseconds: never on a
 * reactor.
 *
 * (1) Output is bounded: decompression stops at `size_max` with -PST_EBOMB and never allocates from
 * a length that the input claims, but grows by what has been produced. (2) Both directions append
 * to `out` and on failure restore its size. */
#ifndef PST_CODEC_CODEC_H
#define PST_CODEC_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/byte_buffer.h"
#include "base/slice.h"

/* Kafka's ids: bits 0-2 of a batch's attributes. */
enum pst_codec_id {
    PST_CODEC_NONE = 0,
    PST_CODEC_GZIP = 1,
    PST_CODEC_SNAPPY = 2,
    PST_CODEC_LZ4 = 3,
    PST_CODEC_ZSTD = 4,
    PST_CODEC_COUNT = 5,
};

/* Largest decompressed records section in bytes unless a caller says otherwise. */
#define PST_CODEC_OUTPUT_MAX ((size_t)128 * 1024 * 1024)
/* A zstd frame may ask for a window of this many bytes (Kafka's clients stay below). */
#define PST_CODEC_ZSTD_WINDOW_MAX ((size_t)8 * 1024 * 1024)
/* Decompression grows its output by at least this much at a time. */
#define PST_CODEC_STEP ((size_t)64 * 1024)

/* Constant. Levels are those of compression.<name>.level; all 0 where a codec has none. */
typedef struct pst_codec {
    int id;
    const char *name; /* Kafka's: none, gzip, snappy, lz4, zstd */
    int level_min;
    int level_max;
    int level_default;
    int (*compress)(pst_slice in, int level, pst_byte_buffer *out);
    int (*decompress)(pst_slice in, size_t size_max, pst_byte_buffer *out);
} pst_codec;

/* The row of an id or of a name; NULL when there is none. */
const pst_codec *pst_codec_by_id(int id);
const pst_codec *pst_codec_by_name(pst_slice name);

/* As Kafka validates compression.<name>.level: gzip -1 or 1..9, lz4 1..17, zstd its library's
 * range. */
bool pst_codec_level_ok(const pst_codec *codec, int level);

/* Appends the compressed form. Returns 0, -PST_ENOMEM, -PST_ELIMIT (limit of `out`) or -PST_ECODEC
 * (id). */
int pst_codec_compress(int id, int level, pst_slice in, pst_byte_buffer *out);

/* Appends at most `size_max` decompressed bytes (0: PST_CODEC_OUTPUT_MAX). Returns 0; -PST_EBOMB
 * above it; -PST_EMALFORMED or -PST_ETRUNC for bad input; -PST_ECODEC for an unknown id;
 * -PST_ENOMEM. */
int pst_codec_decompress(int id, pst_slice in, size_t size_max, pst_byte_buffer *out);

#endif
