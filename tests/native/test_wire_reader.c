/* The bounded cursor and the writer: round trips, and every way in which bytes can lie. */
#include <string.h>

#include "check.h"
#include "wire/reader.h"
#include "wire/writer.h"

static pst_byte_buffer buffer;

static pst_writer fresh(void) {
    buffer.size = 0;
    return pst_writer_of(&buffer);
}

static pst_reader reread(void) {
    return pst_reader_of(pst_byte_buffer_slice(&buffer));
}

static void test_primitives_round_trip(void) {
    pst_writer w = fresh();
    pst_uuid id = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
    pst_writer_i8(&w, -3);
    pst_writer_i16(&w, INT16_MIN);
    pst_writer_u16(&w, 65535);
    pst_writer_i32(&w, INT32_MIN);
    pst_writer_u32(&w, UINT32_MAX);
    pst_writer_i64(&w, INT64_MIN);
    pst_writer_f64(&w, 2.5);
    pst_writer_bool(&w, true);
    pst_writer_uuid(&w, id);
    CHECK(pst_writer_ok(&w));
    pst_reader r = reread();
    CHECK_EQ(pst_reader_i8(&r), -3);
    CHECK_EQ(pst_reader_i16(&r), INT16_MIN);
    CHECK_EQ(pst_reader_u16(&r), 65535);
    CHECK_EQ(pst_reader_i32(&r), INT32_MIN);
    CHECK_EQ(pst_reader_u32(&r), UINT32_MAX);
    CHECK_EQ(pst_reader_i64(&r), INT64_MIN);
    CHECK(pst_reader_f64(&r) == 2.5);
    CHECK(pst_reader_bool(&r));
    pst_uuid got = pst_reader_uuid(&r);
    CHECK(pst_uuid_eq(&got, &id));
    CHECK_EQ(pst_reader_finish(&r), 0);
}

static void test_varints_round_trip_at_their_edges(void) {
    for (unsigned bit = 0; bit < 64; bit++) {
        for (int delta = -1; delta <= 1; delta++) {
            uint64_t value = (1ull << bit) + (uint64_t)(int64_t)delta;
            pst_writer w = fresh();
            pst_writer_uvarlong(&w, value);
            CHECK_EQ(buffer.size, pst_uvarlong_size(value));
            pst_writer_varlong(&w, (int64_t)value);
            pst_writer_varint(&w, (int32_t)value);
            pst_writer_uvarint(&w, (uint32_t)value);
            pst_reader r = reread();
            CHECK(pst_reader_uvarlong(&r) == value);
            CHECK(pst_reader_varlong(&r) == (int64_t)value);
            CHECK(pst_reader_varint(&r) == (int32_t)value);
            CHECK(pst_reader_uvarint(&r) == (uint32_t)value);
            CHECK_EQ(pst_reader_finish(&r), 0);
        }
    }
}

static int read_uvarint_error(const char *bytes, size_t size) {
    pst_reader r = pst_reader_of(pst_slice_of(bytes, size));
    (void)pst_reader_uvarint(&r);
    CHECK(r.cur == r.end || r.err == 0);
    return r.err;
}

static void test_a_varint_ends_at_five_bytes_and_at_the_end(void) {
    CHECK_EQ(read_uvarint_error("\xff\xff\xff\xff\x0f", 5), 0);
    CHECK_EQ(read_uvarint_error("\xff\xff\xff\xff\x1f", 5), -PST_EMALFORMED);
    CHECK_EQ(read_uvarint_error("\x80\x80\x80\x80\x80\x00", 6), -PST_EMALFORMED);
    CHECK_EQ(read_uvarint_error("\x80\x80", 2), -PST_ETRUNC);
    CHECK_EQ(read_uvarint_error("", 0), -PST_ETRUNC);
    pst_reader r = pst_reader_of(pst_slice_of("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02", 10));
    (void)pst_reader_uvarlong(&r);
    CHECK_EQ(r.err, -PST_EMALFORMED);
    r = pst_reader_of(pst_slice_of("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 10));
    CHECK(pst_reader_uvarlong(&r) == 1ull << 63);
}

static void test_strings_and_bytes_in_every_form(void) {
    for (int flexible = 0; flexible < 2; flexible++) {
        pst_writer w = fresh();
        pst_slice text = pst_slice_str("abc");
        pst_slice empty = {NULL, 0};
        pst_writer_any_string(&w, flexible, &text);
        pst_writer_any_string(&w, flexible, &empty);
        pst_writer_any_string(&w, flexible, NULL);
        pst_writer_any_bytes(&w, flexible, &text);
        pst_writer_any_bytes(&w, flexible, NULL);
        pst_writer_any_array(&w, flexible, 3);
        pst_writer_raw(&w, "xyz", 3);
        pst_reader r = reread();
        bool null;
        CHECK(pst_slice_eq(pst_reader_any_string(&r, flexible), text));
        CHECK(pst_reader_any_nullable_string(&r, flexible, &null).size == 0 && !null);
        (void)pst_reader_any_nullable_string(&r, flexible, &null);
        CHECK(null);
        CHECK(pst_slice_eq(pst_reader_any_bytes(&r, flexible), text));
        (void)pst_reader_any_nullable_bytes(&r, flexible, &null);
        CHECK(null);
        CHECK_EQ(pst_reader_any_array(&r, flexible, 1), 3);
        CHECK_EQ(pst_reader_left(&r), 3);
        CHECK_EQ(r.err, 0);
    }
}

static void test_null_where_not_allowed_is_an_error(void) {
    pst_reader r = pst_reader_of(pst_slice_of("\xff\xff", 2));
    (void)pst_reader_string(&r);
    CHECK_EQ(r.err, -PST_EMALFORMED);
    r = pst_reader_of(pst_slice_of("\0", 1));
    (void)pst_reader_compact_string(&r);
    CHECK_EQ(r.err, -PST_EMALFORMED);
    r = pst_reader_of(pst_slice_of("\xff\xff\xff\xff", 4));
    CHECK_EQ(pst_reader_array(&r, 1), 0);
    CHECK_EQ(r.err, -PST_EMALFORMED);
}

static void test_counts_and_lengths_that_lie(void) {
    pst_reader r = pst_reader_of(pst_slice_of("\x7f\xff\xff\xff....", 8));
    CHECK_EQ(pst_reader_array(&r, 1), 0);
    CHECK_EQ(r.err, -PST_ETRUNC);
    r = pst_reader_of(pst_slice_of("\0\0\0\2....", 8));
    CHECK_EQ(pst_reader_array(&r, 2), 2);
    r = pst_reader_of(pst_slice_of("\0\0\0\2....", 8));
    CHECK_EQ(pst_reader_array(&r, 3), 0);
    CHECK_EQ(r.err, -PST_ETRUNC);
    r = pst_reader_of(pst_slice_of("\xff\xff\xff\xfe....", 8));
    bool null;
    (void)pst_reader_nullable_bytes(&r, &null);
    CHECK(!null);
    CHECK_EQ(r.err, -PST_EMALFORMED);
    CHECK_EQ(pst_reader_i32(&r), 0);
    CHECK_EQ(r.err, -PST_EMALFORMED);
}

static void test_tagged_sections_are_skipped_and_bounded(void) {
    pst_writer w = fresh();
    pst_writer_uvarint(&w, 2);
    pst_writer_uvarint(&w, 0);
    pst_writer_uvarint(&w, 3);
    pst_writer_raw(&w, "abc", 3);
    pst_writer_uvarint(&w, 9);
    pst_writer_uvarint(&w, 0);
    pst_reader r = reread();
    pst_reader_skip_tagged(&r);
    CHECK_EQ(pst_reader_finish(&r), 0);
    r = reread();
    CHECK_EQ(pst_reader_tagged_count(&r), 2);
    uint32_t tag;
    pst_reader field = pst_reader_tagged_next(&r, &tag);
    CHECK_EQ(tag, 0);
    CHECK_EQ(pst_reader_left(&field), 3);
    field = pst_reader_tagged_next(&r, &tag);
    CHECK_EQ(tag, 9);
    CHECK_EQ(pst_reader_finish(&field), 0);
    w = fresh();
    pst_writer_uvarint(&w, PST_TAGGED_FIELDS_MAX + 1);
    for (unsigned i = 0; i <= PST_TAGGED_FIELDS_MAX; i++) {
        pst_writer_uvarint(&w, i);
        pst_writer_uvarint(&w, 0);
    }
    r = reread();
    pst_reader_skip_tagged(&r);
    CHECK_EQ(r.err, -PST_EMALFORMED);
    r = pst_reader_of(pst_slice_of("\1\0\x7f", 3));
    pst_reader_skip_tagged(&r);
    CHECK_EQ(r.err, -PST_ETRUNC);
}

static void test_lengths_are_patched(void) {
    pst_writer w = fresh();
    size_t at = pst_writer_reserve_i32(&w);
    pst_writer_raw(&w, "hello", 5);
    pst_writer_patch_size(&w, at);
    pst_reader r = reread();
    CHECK_EQ(pst_reader_i32(&r), 5);
}

static void test_writer_stops_at_the_buffer_limit(void) {
    pst_byte_buffer small = {.limit = 10};
    pst_writer w = pst_writer_of(&small);
    pst_writer_i64(&w, 1);
    CHECK(pst_writer_ok(&w));
    pst_writer_i32(&w, 1);
    CHECK_EQ(w.err, -PST_ELIMIT);
    CHECK_EQ(small.size, 8);
    pst_byte_buffer_fini(&small);
}

int main(void) {
    test_primitives_round_trip();
    test_varints_round_trip_at_their_edges();
    test_a_varint_ends_at_five_bytes_and_at_the_end();
    test_strings_and_bytes_in_every_form();
    test_null_where_not_allowed_is_an_error();
    test_counts_and_lengths_that_lie();
    test_tagged_sections_are_skipped_and_bounded();
    test_lengths_are_patched();
    test_writer_stops_at_the_buffer_limit();
    pst_byte_buffer_fini(&buffer);
    return 0;
}
