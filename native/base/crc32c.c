/* base/crc32c.c - CRC-32C by CPU instruction where there is one, by table elsewhere.
 *
 * Owner: nobody; the tables are written once, by a constructor, before any thread can call.
 * Deliberately leaves wider folds (VPCLMULQDQ) out: three lanes already run at memory speed.
 *
 * The state is a polynomial over GF(2) modulo P, bit-reflected: bit 31 is x^0. Appending n zero
 * bytes to a run multiplies its state by x^(8n). So lanes that run side by side are joined by one
 * carry-less product each, and runs can be combined or patched without being read again. */
#include "base/crc32c.h"

#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#endif

#define POLYNOMIAL 0x82f63b78u
#define ONE 0x80000000u /* x^0 */

typedef uint32_t update_function(uint32_t state, const uint8_t *data, size_t size);

/* table[k][b]: state after byte b and k zero bytes. */
static uint32_t table[8][256];
/* power[k] = x^(2^k) mod P; the exponents repeat from 2^32 - 1 on, so 32 entries reach everything.
 */
static uint32_t power[32];
static update_function *update;
static const char *update_name;

/* a * b mod P. */
static uint32_t multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (uint32_t bit = ONE; bit != 0 && a != 0; bit >>= 1) {
        if ((a & bit) != 0) {
            product ^= b;
            a ^= bit;
        }
        b = (b & 1) != 0 ? (b >> 1) ^ POLYNOMIAL : b >> 1;
    }
    return product;
}

/* x^exponent mod P. */
static uint32_t x_to(uint64_t exponent) {
    uint32_t result = ONE;
    for (unsigned k = 0; exponent != 0; exponent >>= 1, k++) {
        if ((exponent & 1) != 0) {
            result = multiply(power[k & 31], result);
        }
    }
    return result;
}

static uint32_t update_by_table(uint32_t state, const uint8_t *data, size_t size) {
    while (size >= 8) {
        uint32_t low = state ^ ((uint32_t)data[0] | (uint32_t)data[1] << 8 |
                                (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24);
        state = table[7][low & 0xff] ^ table[6][(low >> 8) & 0xff] ^ table[5][(low >> 16) & 0xff] ^
                table[4][low >> 24] ^ table[3][data[4]] ^ table[2][data[5]] ^ table[1][data[6]] ^
                table[0][data[7]];
        data += 8;
        size -= 8;
    }
    while (size-- > 0) {
        state = (state >> 8) ^ table[0][(state ^ *data++) & 0xff];
    }
    return state;
}

#if defined(__x86_64__)

/* Lane lengths in bytes: three lanes of each tier run side by side. */
#define TIER_COUNT 3
static const size_t tier_size[TIER_COUNT] = {4096, 512, 64};
/* x^(8n - 33) for one and two lanes of n bytes. The product of two reflected values is shifted by
 * one bit and the crc32 instruction multiplies by x^32: hence 33 less. */
static uint32_t tier_one[TIER_COUNT];
static uint32_t tier_two[TIER_COUNT];

static inline uint64_t load64(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

__attribute__((target("sse4.2"))) static uint32_t update_by_crc32(uint32_t state,
                                                                  const uint8_t *data,
                                                                  size_t size) {
    uint64_t wide = state;
    for (; size >= 8; size -= 8, data += 8) {
        wide = _mm_crc32_u64(wide, load64(data));
    }
    state = (uint32_t)wide;
    for (; size > 0; size--) {
        state = _mm_crc32_u8(state, *data++);
    }
    return state;
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t update_by_lanes(uint32_t state,
                                                                         const uint8_t *data,
                                                                         size_t size) {
    for (int tier = 0; tier < TIER_COUNT; tier++) {
        size_t lane = tier_size[tier];
        while (size >= 3 * lane) {
            uint64_t a = state;
            uint64_t b = 0;
            uint64_t c = 0;
            for (size_t i = 0; i < lane; i += 8) {
                a = _mm_crc32_u64(a, load64(data + i));
                b = _mm_crc32_u64(b, load64(data + lane + i));
                c = _mm_crc32_u64(c, load64(data + 2 * lane + i));
            }
            __m128i shifted_a = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)a),
                                                     _mm_cvtsi32_si128((int)tier_two[tier]), 0);
            __m128i shifted_b = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)b),
                                                     _mm_cvtsi32_si128((int)tier_one[tier]), 0);
            uint64_t joined = (uint64_t)_mm_cvtsi128_si64(_mm_xor_si128(shifted_a, shifted_b));
            state = (uint32_t)(_mm_crc32_u64(0, joined) ^ c);
            data += 3 * lane;
            size -= 3 * lane;
        }
    }
    return update_by_crc32(state, data, size);
}

static void choose(void) {
    for (int tier = 0; tier < TIER_COUNT; tier++) {
        tier_one[tier] = x_to(8 * tier_size[tier] - 33);
        tier_two[tier] = x_to(16 * tier_size[tier] - 33);
    }
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
        update = update_by_lanes;
        update_name = "sse42+pclmul";
    } else if (__builtin_cpu_supports("sse4.2")) {
        update = update_by_crc32;
        update_name = "sse42";
    }
}

#elif defined(__aarch64__)

#define PST_HWCAP_CRC32 (1ul << 7)

__attribute__((target("+crc"))) static uint32_t update_by_armv8(uint32_t state, const uint8_t *data,
                                                                size_t size) {
    for (; size >= 8; size -= 8, data += 8) {
        uint64_t word;
        memcpy(&word, data, sizeof word);
        state = __crc32cd(state, word);
    }
    for (; size > 0; size--) {
        state = __crc32cb(state, *data++);
    }
    return state;
}

static void choose(void) {
    if ((getauxval(AT_HWCAP) & PST_HWCAP_CRC32) != 0) {
        update = update_by_armv8;
        update_name = "armv8";
    }
}

#else

static void choose(void) {
}

#endif

__attribute__((constructor)) static void prepare(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t state = byte;
        for (int bit = 0; bit < 8; bit++) {
            state = (state & 1) != 0 ? (state >> 1) ^ POLYNOMIAL : state >> 1;
        }
        table[0][byte] = state;
    }
    for (uint32_t byte = 0; byte < 256; byte++) {
        for (int k = 1; k < 8; k++) {
            uint32_t before = table[k - 1][byte];
            table[k][byte] = (before >> 8) ^ table[0][before & 0xff];
        }
    }
    power[0] = ONE >> 1;
    for (int k = 1; k < 32; k++) {
        power[k] = multiply(power[k - 1], power[k - 1]);
    }
    update = update_by_table;
    update_name = "table";
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
    choose();
}

uint32_t pst_crc32c(uint32_t crc, const void *data, size_t size) {
    return ~update(~crc, (const uint8_t *)data, size);
}

uint32_t pst_crc32c_by_table(uint32_t crc, const void *data, size_t size) {
    return ~update_by_table(~crc, (const uint8_t *)data, size);
}

static uint32_t shift(uint32_t state, uint64_t size) {
    /* 8 * size could overflow; x^(8n) is (x^8)^n, and exponents are equal modulo 2^32 - 1. */
    uint64_t exponent = (size % 0xffffffffu) * 8 % 0xffffffffu;
    return multiply(x_to(exponent), state);
}

uint32_t pst_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t size_b) {
    return shift(crc_a, size_b) ^ crc_b;
}

uint32_t pst_crc32c_patch(uint32_t crc, const void *diff, size_t diff_size, uint64_t size_after) {
    /* With state 0 at its start a run's CRC is linear: crc(old) ^ crc(new) = state(old ^ new). */
    uint32_t state = update(0, (const uint8_t *)diff, diff_size);
    return crc ^ shift(state, size_after);
}

const char *pst_crc32c_name(void) {
    return update_name;
}
