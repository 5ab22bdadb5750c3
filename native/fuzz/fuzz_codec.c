/* fuzz_codec - the decompressors: output stays within its bound; what is compressed comes back.
 * Input: one byte for the codec, then compressed bytes. */
#include <stdlib.h>

#include "codec/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    enum { BOUND = 1 << 20 };
    if (size < 1) {
        return 0;
    }
    int id = data[0] % PST_CODEC_COUNT;
    pst_slice bytes = pst_slice_of(data + 1, size - 1);
    pst_byte_buffer plain = {0};
    pst_byte_buffer packed = {0};
    pst_byte_buffer again = {0};
    if (pst_codec_decompress(id, bytes, BOUND, &plain) == 0) {
        const pst_codec *codec = pst_codec_by_id(id);
        if (plain.size > BOUND ||
            pst_codec_compress(id, codec->level_default, pst_byte_buffer_slice(&plain), &packed) !=
                0 ||
            pst_codec_decompress(id, pst_byte_buffer_slice(&packed), BOUND, &again) != 0 ||
            !pst_slice_eq(pst_byte_buffer_slice(&plain), pst_byte_buffer_slice(&again))) {
            abort();
        }
    } else if (plain.size != 0) {
        abort();
    }
    if (plain.capacity > 2 * BOUND + PST_CODEC_STEP) {
        abort();
    }
    pst_byte_buffer_fini(&plain);
    pst_byte_buffer_fini(&packed);
    pst_byte_buffer_fini(&again);
    return 0;
}
