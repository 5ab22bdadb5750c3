/* The generic codec from C: the arena's cap, versions, and the API table. */
#include <string.h>

#include "check.h"
#include "wire/api_table.h"
#include "wire/message.h"

static void test_cells_stop_at_the_arena_cap(void) {
    /* DeleteTopics 5: an array of the shortest strings, one byte each, sixteen bytes a cell. */
    const pst_schema_message *row = pst_schema_find(PST_SCHEMA_REQUEST, PST_API_DELETE_TOPICS);
    enum { COUNT = 100000 };
    pst_byte_buffer frame = {0};
    pst_writer w = pst_writer_of(&frame);
    pst_writer_compact_array(&w, COUNT);
    for (int i = 0; i < COUNT; i++) {
        pst_writer_u8(&w, 1);
    }
    pst_writer_i32(&w, 1000);
    pst_writer_u8(&w, 0);
    pst_arena arena;
    pst_cell *root;
    pst_reader r = pst_reader_of(pst_byte_buffer_slice(&frame));
    pst_arena_init(&arena, pst_arena_cap(frame.size));
    CHECK_EQ(pst_message_decode(row, 5, &r, &arena, &root), -PST_ELIMIT);
    CHECK(root == NULL);
    CHECK(arena.used <= pst_arena_cap(frame.size));
    pst_arena_fini(&arena);
    r = pst_reader_of(pst_byte_buffer_slice(&frame));
    pst_arena_init(&arena, PST_ARENA_SIZE_MAX);
    CHECK_EQ(pst_message_decode(row, 5, &r, &arena, &root), 0);
    CHECK_EQ(pst_reader_finish(&r), 0);
    CHECK_EQ(root[0].size, COUNT);
    CHECK_EQ(root[1].as.number, 1000);
    pst_arena_fini(&arena);
    r = pst_reader_of(pst_byte_buffer_slice(&frame));
    pst_arena_init(&arena, PST_ARENA_SIZE_MAX);
    CHECK_EQ(pst_message_decode(row, 7, &r, &arena, &root), -PST_EVERSION);
    pst_arena_fini(&arena);
    pst_byte_buffer_fini(&frame);
}

static void test_arena_memory_is_aligned_zeroed_and_capped(void) {
    pst_arena arena;
    pst_arena_init(&arena, 100000);
    for (int i = 0; i < 100; i++) {
        uint8_t *memory = pst_arena_alloc(&arena, (size_t)i * 7 + 1);
        CHECK(memory != NULL);
        CHECK_EQ((uintptr_t)memory % 16, 0);
        CHECK(memory[0] == 0 && memory[i * 7] == 0);
        memset(memory, 0xff, (size_t)i * 7 + 1);
    }
    CHECK(pst_arena_alloc(&arena, 100000) == NULL);
    pst_arena_fini(&arena);
    CHECK_EQ(pst_arena_cap(0), 65536);
    CHECK_EQ(pst_arena_cap(SIZE_MAX), PST_ARENA_SIZE_MAX);
}

static void test_api_table(void) {
    const pst_api *produce = pst_api_find(PST_API_PRODUCE);
    CHECK_EQ(produce->advertised_min, 0);
    CHECK(!pst_api_serves(produce, 2));
    CHECK(pst_api_serves(produce, 3));
    const pst_api *versions = pst_api_find(PST_API_API_VERSIONS);
    CHECK_EQ(pst_api_request_header(versions, 3), 2);
    CHECK_EQ(pst_api_response_header(versions, 3), 0);
    CHECK_EQ(pst_api_request_header(pst_api_find(PST_API_OFFSET_DELETE), 0), 1);
    CHECK(pst_api_find(4) == NULL && pst_api_find(-1) == NULL && pst_api_find(INT16_MAX) == NULL);
    CHECK_EQ(pst_api_row_count, 91);
    for (size_t i = 0; i < pst_api_row_count; i++) {
        const pst_api *row = &pst_api_rows[i];
        CHECK(pst_api_find(row->key) == row);
        CHECK(pst_schema_find(PST_SCHEMA_REQUEST, row->key) != NULL);
        CHECK(pst_schema_find(PST_SCHEMA_RESPONSE, row->key) != NULL);
        CHECK_EQ(row->where == PST_API_NOWHERE, row->version_min > row->version_max);
    }
}

int main(void) {
    test_cells_stop_at_the_arena_cap();
    test_arena_memory_is_aligned_zeroed_and_capped();
    test_api_table();
    return 0;
}
