/* base/hash.h - a 64-bit non-cryptographic hash, seeded against chosen keys. Owner: nobody. */
#ifndef PST_BASE_HASH_H
#define PST_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t pst_hash_mix(uint64_t a, uint64_t b) {
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Multiply-fold over 8-byte words. `seed` is per table and random, so that peers cannot choose
 * collisions ahead of time. */
static inline uint64_t pst_hash_bytes(const void *data, size_t size, uint64_t seed) {
    const uint8_t *bytes = (const uint8_t *)data;
    uint64_t h = seed ^ 0x9e3779b97f4a7c15ULL ^ size;
    while (size >= 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        h = pst_hash_mix(h ^ word, 0xe7037ed1a0b428dbULL);
        bytes += 8;
        size -= 8;
    }
    uint64_t tail = 0;
    if (size > 0) {
        memcpy(&tail, bytes, size);
    }
    return pst_hash_mix(h ^ tail, 0x8ebc6af09c88c6e3ULL ^ seed);
}

static inline uint64_t pst_hash_u64(uint64_t value, uint64_t seed) {
    return pst_hash_mix(value ^ seed ^ 0x9e3779b97f4a7c15ULL, 0xe7037ed1a0b428dbULL);
}

#endif
