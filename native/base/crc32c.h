/* base/crc32c.h - CRC-32C (Castagnoli), the checksum of record batches and of our own journal.
 *
 * Owner: nobody; pure functions, safe on any thread. Layer: base.
 * Deliberately has no streaming object: pass the previous result back in. */
#ifndef PST_BASE_CRC32C_H
#define PST_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* CRC of `crc`'s bytes followed by `data`; start with 0. pst_crc32c(0, "123456789", 9) is
 * 0xe3069283. */
uint32_t pst_crc32c(uint32_t crc, const void *data, size_t size);

/* CRC of A followed by B, from crc(A), crc(B) and B's size in bytes. */
uint32_t pst_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t size_b);

/* CRC of a run in which bytes have changed: `diff` is old XOR new of `diff_size` bytes, and
 * `size_after` bytes of the run follow them. Costs O(diff_size + log size_after). */
uint32_t pst_crc32c_patch(uint32_t crc, const void *diff, size_t diff_size, uint64_t size_after);

/* The fallback without CPU instructions, for tests that compare the two. */
uint32_t pst_crc32c_by_table(uint32_t crc, const void *data, size_t size);

/* The implementation chosen for this CPU: "table", "sse42", "sse42+pclmul" or "armv8". */
const char *pst_crc32c_name(void);

#endif
