/* Codecs: round trips, the output bound at its edge, and bytes that lie. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "check.h"
#include "codec/codec.h"

static pst_byte_buffer packed;
static pst_byte_buffer unpacked;

static uint8_t *sample(size_t size, bool compressible) {
    uint8_t *data = malloc(size == 0 ? 1 : size);
    CHECK(data != NULL);
    for (size_t i = 0; i < size; i++) {
        data[i] = compressible ? (uint8_t)"departure "[i % 10] : (uint8_t)rand();
    }
    return data;
}

static void test_round_trip_and_exact_bound(int id, size_t size, bool compressible) {
    uint8_t *data = sample(size, compressible);
    packed.size = 0;
    const pst_codec *codec = pst_codec_by_id(id);
    CHECK_EQ(pst_codec_compress(id, codec->level_default, pst_slice_of(data, size), &packed), 0);
    unpacked.size = 0;
    CHECK_EQ(pst_byte_buffer_append(&unpacked, "kept", 4), 0);
    /* Exactly the bound passes; one byte less does not. */
    size_t bound = size == 0 ? 1 : size;
    CHECK_EQ(pst_codec_decompress(id, pst_byte_buffer_slice(&packed), bound, &unpacked), 0);
    CHECK_EQ(unpacked.size, size + 4);
    CHECK(memcmp(unpacked.data, "kept", 4) == 0);
    CHECK(memcmp(unpacked.data + 4, data, size) == 0);
    if (size > 1) {
        unpacked.size = 4;
        CHECK_EQ(pst_codec_decompress(id, pst_byte_buffer_slice(&packed), size - 1, &unpacked),
                 -PST_EBOMB);
        CHECK_EQ(unpacked.size, 4);
    }
    free(data);
}

static void test_cut_and_damaged_input_fails_cleanly(int id) {
    uint8_t *data = sample(3000, true);
    packed.size = 0;
    const pst_codec *codec = pst_codec_by_id(id);
    CHECK_EQ(pst_codec_compress(id, codec->level_default, pst_slice_of(data, 3000), &packed), 0);
    for (size_t size = 0; size < packed.size; size++) {
        unpacked.size = 0;
        int rc = pst_codec_decompress(id, pst_slice_of(packed.data, size), 4000, &unpacked);
        /* An xerial stream may end after its header: that is an empty stream. */
        CHECK(rc < 0 || (id == PST_CODEC_SNAPPY && size == 16));
    }
    for (size_t at = 0; at < packed.size; at++) {
        for (int bit = 0; bit < 8; bit++) {
            packed.data[at] ^= (uint8_t)(1 << bit);
            unpacked.size = 0;
            (void)pst_codec_decompress(id, pst_byte_buffer_slice(&packed), 4000, &unpacked);
            CHECK(unpacked.size <= 4000);
            packed.data[at] ^= (uint8_t)(1 << bit);
        }
    }
    free(data);
}

static void test_bombs_cost_little(void) {
    size_t size = (size_t)64 << 20;
    uint8_t *zeros = calloc(1, size);
    CHECK(zeros != NULL);
    for (int id = PST_CODEC_GZIP; id < PST_CODEC_COUNT; id++) {
        packed.size = 0;
        CHECK_EQ(pst_codec_compress(id, pst_codec_by_id(id)->level_default,
                                    pst_slice_of(zeros, size), &packed),
                 0);
        pst_byte_buffer out = {0};
        CHECK_EQ(pst_codec_decompress(id, pst_byte_buffer_slice(&packed), 1 << 20, &out),
                 -PST_EBOMB);
        CHECK(out.capacity <= 3 << 20);
        pst_byte_buffer_fini(&out);
    }
    free(zeros);
}

static void test_snappy_reads_raw_blocks(void) {
    static const char raw[] = "\x05\x10hello";
    unpacked.size = 0;
    CHECK_EQ(pst_codec_decompress(PST_CODEC_SNAPPY, pst_slice_of(raw, 7), 0, &unpacked), 0);
    CHECK(pst_slice_eq(pst_byte_buffer_slice(&unpacked), pst_slice_str("hello")));
    /* A claim of 2 GiB in five bytes allocates nothing. */
    pst_byte_buffer out = {0};
    CHECK_EQ(
        pst_codec_decompress(PST_CODEC_SNAPPY, pst_slice_of("\xff\xff\xff\xff\x07", 5), 0, &out),
        -PST_EMALFORMED);
    CHECK_EQ(out.capacity, 0);
}

static void test_gzip_reads_several_members(void) {
    packed.size = 0;
    CHECK_EQ(pst_codec_compress(PST_CODEC_GZIP, 6, pst_slice_str("one "), &packed), 0);
    CHECK_EQ(pst_codec_compress(PST_CODEC_GZIP, 6, pst_slice_str("two"), &packed), 0);
    unpacked.size = 0;
    CHECK_EQ(pst_codec_decompress(PST_CODEC_GZIP, pst_byte_buffer_slice(&packed), 0, &unpacked), 0);
    CHECK(pst_slice_eq(pst_byte_buffer_slice(&unpacked), pst_slice_str("one two")));
}

static void test_levels_and_names(void) {
    CHECK(pst_codec_by_name(pst_slice_str("zstd"))->id == PST_CODEC_ZSTD);
    CHECK(pst_codec_by_name(pst_slice_str("lzma")) == NULL);
    CHECK(pst_codec_by_id(5) == NULL && pst_codec_by_id(-1) == NULL);
    CHECK(pst_codec_level_ok(pst_codec_by_id(PST_CODEC_GZIP), -1));
    CHECK(!pst_codec_level_ok(pst_codec_by_id(PST_CODEC_GZIP), 0));
    CHECK(!pst_codec_level_ok(pst_codec_by_id(PST_CODEC_GZIP), 10));
    CHECK(pst_codec_level_ok(pst_codec_by_id(PST_CODEC_LZ4), 17));
    CHECK(!pst_codec_level_ok(pst_codec_by_id(PST_CODEC_LZ4), 0));
    CHECK(pst_codec_level_ok(pst_codec_by_id(PST_CODEC_ZSTD), -131072));
    CHECK(!pst_codec_level_ok(pst_codec_by_id(PST_CODEC_ZSTD), 23));
    CHECK_EQ(pst_codec_compress(7, 0, pst_slice_str("x"), &packed), -PST_ECODEC);
    CHECK_EQ(pst_codec_decompress(7, pst_slice_str("x"), 0, &packed), -PST_ECODEC);
}

static void test_every_level_can_be_read_back(void) {
    uint8_t *data = sample(100000, true);
    static const int levels[][3] = {{1, 9, -1}, {0, 0, 0}, {1, 12, 17}, {-5, 19, 22}};
    for (int id = PST_CODEC_GZIP; id < PST_CODEC_COUNT; id++) {
        for (int i = 0; i < 3; i++) {
            packed.size = 0;
            unpacked.size = 0;
            CHECK_EQ(pst_codec_compress(id, levels[id - 1][i], pst_slice_of(data, 100000), &packed),
                     0);
            CHECK_EQ(pst_codec_decompress(id, pst_byte_buffer_slice(&packed), 0, &unpacked), 0);
            CHECK(pst_slice_eq(pst_byte_buffer_slice(&unpacked), pst_slice_of(data, 100000)));
        }
    }
    free(data);
}

int main(void) {
    static const size_t sizes[] = {0, 1, 100, 32768, 65535, 65536, 65537, 1000003};
    srand(1);
    for (int id = 0; id < PST_CODEC_COUNT; id++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            test_round_trip_and_exact_bound(id, sizes[i], true);
            test_round_trip_and_exact_bound(id, sizes[i], false);
        }
        if (id != PST_CODEC_NONE) {
            test_cut_and_damaged_input_fails_cleanly(id);
        }
    }
    test_bombs_cost_little();
    test_snappy_reads_raw_blocks();
    test_gzip_reads_several_members();
    test_levels_and_names();
    test_every_level_can_be_read_back();
    pst_byte_buffer_fini(&packed);
    pst_byte_buffer_fini(&unpacked);
    return 0;
}
