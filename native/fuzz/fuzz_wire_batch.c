/* fuzz_wire_batch - record batches: header, checks, records, and patches that must keep a valid CRC
 * valid. The CRC of the input is made right first: a fuzzer cannot guess it. */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "wire/batch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    if (copy == NULL) {
        return 0;
    }
    memcpy(copy, data, size);
    pst_batch batch;
    pst_slice bytes = pst_slice_of(copy, size);
    if (pst_batch_parse(bytes, &batch) == 0) {
        uint32_t crc =
            htobe32(pst_crc32c(0, copy + PST_BATCH_CRC_START, batch.size - PST_BATCH_CRC_START));
        memcpy(copy + PST_BATCH_CRC_OFFSET, &crc, sizeof crc);
        (void)pst_batch_parse_produced(bytes, &batch);
        (void)pst_batch_parse(bytes, &batch);
        (void)pst_batch_check_stored(&batch);
        (void)pst_batch_last_offset(&batch);
        (void)pst_batch_last_sequence(&batch);
        pst_record_scan scan;
        (void)pst_batch_scan(&batch, pst_batch_records(&batch), &scan);
        pst_batch_patch_offset(copy, 77, 5);
        pst_batch_patch_log_append_time(copy, batch.size, 123456789);
        if (pst_batch_parse(bytes, &batch) != 0 || pst_batch_check_crc(&batch) != 0) {
            abort();
        }
        pst_byte_buffer out = {0};
        pst_batch made;
        if (pst_batch_rewrite(&batch, 0, pst_batch_records(&batch), &out) != 0 ||
            pst_batch_parse(pst_byte_buffer_slice(&out), &made) != 0 ||
            pst_batch_check_crc(&made) != 0) {
            abort();
        }
        pst_byte_buffer_fini(&out);
    }
    free(copy);
    return 0;
}
