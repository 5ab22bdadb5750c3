/* CRC-32C: known vectors, the two implementations against each other, combining and patching. */
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "check.h"

enum { SIZE = 70000 };

static uint8_t bytes[SIZE];

static void test_known_vectors(void) {
    CHECK_EQ(pst_crc32c(0, "123456789", 9), 0xe3069283u);
    CHECK_EQ(pst_crc32c(0, "", 0), 0);
    /* RFC 3720, B.4 */
    uint8_t block[32];
    memset(block, 0, sizeof block);
    CHECK_EQ(pst_crc32c(0, block, sizeof block), 0x8a9136aau);
    memset(block, 0xff, sizeof block);
    CHECK_EQ(pst_crc32c(0, block, sizeof block), 0x62a8ab43u);
    for (int i = 0; i < 32; i++) {
        block[i] = (uint8_t)i;
    }
    CHECK_EQ(pst_crc32c(0, block, sizeof block), 0x46dd794eu);
}

static void test_lanes_equal_the_table_for_every_size_and_alignment(void) {
    for (size_t size = 0; size < 2000; size++) {
        CHECK_EQ(pst_crc32c(7, bytes + size % 9, size),
                 pst_crc32c_by_table(7, bytes + size % 9, size));
    }
    for (size_t size = 2000; size < SIZE - 16; size += 997) {
        CHECK_EQ(pst_crc32c(1, bytes + size % 9, size),
                 pst_crc32c_by_table(1, bytes + size % 9, size));
    }
}

static void test_combine_equals_one_run(void) {
    for (size_t cut = 0; cut < SIZE; cut += 1237) {
        uint32_t a = pst_crc32c(0, bytes, cut);
        uint32_t b = pst_crc32c(0, bytes + cut, SIZE - cut);
        CHECK_EQ(pst_crc32c_combine(a, b, SIZE - cut), pst_crc32c(0, bytes, SIZE));
        CHECK_EQ(pst_crc32c(a, bytes + cut, SIZE - cut), pst_crc32c(0, bytes, SIZE));
    }
}

static void test_patch_equals_recomputation(void) {
    uint32_t crc = pst_crc32c(0, bytes, SIZE);
    for (size_t at = 0; at + 22 <= SIZE; at += 4999) {
        uint8_t diff[22];
        for (size_t i = 0; i < sizeof diff; i++) {
            diff[i] = (uint8_t)(i * 37 + at);
            bytes[at + i] ^= diff[i];
        }
        crc = pst_crc32c_patch(crc, diff, sizeof diff, SIZE - at - sizeof diff);
        CHECK_EQ(crc, pst_crc32c(0, bytes, SIZE));
    }
}

int main(void) {
    srand(1);
    for (size_t i = 0; i < SIZE; i++) {
        bytes[i] = (uint8_t)rand();
    }
    CHECK(pst_crc32c_name() != NULL);
    test_known_vectors();
    test_lanes_equal_the_table_for_every_size_and_alignment();
    test_combine_equals_one_run();
    test_patch_equals_recomputation();
    return 0;
}
