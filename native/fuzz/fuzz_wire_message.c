/* fuzz_wire_message - the generic codec: whatever decodes must encode, decode again, and be the
 * same. Input: one byte for the message, one for the version, then the message's bytes. */
#include <stdlib.h>

#include "wire/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) {
        return 0;
    }
    const pst_schema_message *message = &pst_schema_messages[data[0] % pst_schema_message_count];
    int span = message->version_last - message->version_first + 1;
    int16_t version = (int16_t)(message->version_first + data[1] % span);
    pst_slice bytes = pst_slice_of(data + 2, size - 2);
    pst_reader reader = pst_reader_of(bytes);
    pst_arena arena;
    pst_cell *root;
    pst_arena_init(&arena, pst_arena_cap(bytes.size));
    pst_byte_buffer first = {0};
    pst_byte_buffer second = {0};
    if (pst_message_decode(message, version, &reader, &arena, &root) == 0) {
        pst_writer writer = pst_writer_of(&first);
        if (pst_message_encode(message, version, root, &writer) != 0) {
            abort();
        }
        pst_arena_fini(&arena);
        pst_arena_init(&arena, PST_ARENA_SIZE_MAX);
        reader = pst_reader_of(pst_byte_buffer_slice(&first));
        if (pst_message_decode(message, version, &reader, &arena, &root) != 0 ||
            pst_reader_finish(&reader) != 0) {
            abort();
        }
        writer = pst_writer_of(&second);
        if (pst_message_encode(message, version, root, &writer) != 0 ||
            !pst_slice_eq(pst_byte_buffer_slice(&first), pst_byte_buffer_slice(&second))) {
            abort();
        }
    }
    pst_arena_fini(&arena);
    pst_byte_buffer_fini(&first);
    pst_byte_buffer_fini(&second);
    return 0;
}
