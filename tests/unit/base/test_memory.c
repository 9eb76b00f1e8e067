// SPDX-License-Identifier: Apache-2.0
// Tests of arena, checked arithmetic, allocation guard, buffer and cursor.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/assert.h"
#include "base/buf.h"
#include "base/cursor.h"
#include "edge_page.h"

static void arena_memory_is_zeroed_and_aligned(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 1u << 20);
    for (size_t bytes = 0; bytes < 400; ++bytes) {
        unsigned char *data = arena_alloc(&arena, bytes, 1);
        assert_non_null(data);
        assert_int_equal((uintptr_t)data % 64, 0);
        for (size_t i = 0; i < bytes; ++i)
            assert_int_equal(data[i], 0);
        memset(data, 0xAA, bytes);
        char *text = arena_strdup(&arena, "hello", bytes % 6);
        assert_memory_equal(text, "hello", bytes % 6);
        assert_int_equal(text[bytes % 6], 0);
    }
    arena_deinit(&arena);
    assert_int_equal(arena.bytes_used, 0);
}

static void arena_blocks_do_not_overlap(void **state)
{
    (void)state;
    enum { BLOCKS = 200 };
    struct arena arena;
    unsigned char *blocks[BLOCKS];
    arena_init(&arena, 64u << 20);
    for (size_t i = 0; i < BLOCKS; ++i) { // small ones and ones beyond a chunk, mixed
        size_t bytes = i % 5 == 0 ? 100000 : i + 1;
        blocks[i] = arena_alloc(&arena, bytes, 1);
        memset(blocks[i], (int)i, bytes);
    }
    for (size_t i = 0; i < BLOCKS; ++i) {
        size_t bytes = i % 5 == 0 ? 100000 : i + 1;
        for (size_t j = 0; j < bytes; ++j)
            assert_int_equal(blocks[i][j], (unsigned char)i);
    }
    arena_deinit(&arena);
}

static void the_bound_of_an_arena_holds(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 100);
    assert_non_null(arena_alloc(&arena, 10, 6));
    assert_null(arena_alloc(&arena, 41, 1));
    assert_non_null(arena_alloc(&arena, 40, 1));
    assert_null(arena_alloc(&arena, 1, 1));
    assert_null(arena_strdup(&arena, "", 0)); // its zero is one byte too many
    assert_non_null(arena_alloc(&arena, 0, 8));
    assert_int_equal(arena.bytes_used, 100);
    arena_deinit(&arena);
}

static void sizes_that_overflow_are_refused(void **state)
{
    (void)state;
    struct arena arena;
    size_t out;
    arena_init(&arena, SIZE_MAX);
    assert_null(arena_alloc(&arena, SIZE_MAX / 2, 3));
    assert_null(arena_alloc(&arena, SIZE_MAX, 1));
    assert_null(arena_strdup(&arena, "x", SIZE_MAX));
    assert_null(aligned_calloc(SIZE_MAX / 8, 16));
    assert_null(aligned_calloc(SIZE_MAX, 1));
    assert_false(checked_mul(SIZE_MAX, 2, &out));
    assert_false(checked_add(SIZE_MAX, 1, &out));
    assert_true(checked_mul(SIZE_MAX / 3, 3, &out));
    assert_true(checked_add(SIZE_MAX - 1, 1, &out));
    arena_deinit(&arena);
}

static void aligned_memory_is_zeroed_and_aligned(void **state)
{
    (void)state;
    unsigned char *data = aligned_calloc(1000, 7);
    assert_int_equal((uintptr_t)data % 64, 0);
    for (size_t i = 0; i < 7000; ++i)
        assert_int_equal(data[i], 0);
    free(data);
    void *nothing = aligned_calloc(0, 8);
    assert_non_null(nothing);
    free(nothing);
}

static void alloc_aligned(void)
{
    free(aligned_calloc(1, 1));
}

static void alloc_in_arena(void)
{
    struct arena arena;
    arena_init(&arena, 1000);
    arena_alloc(&arena, 1, 1);
    arena_deinit(&arena);
}

static void grow_buffer(void)
{
    struct buf buf;
    buf_init(&buf, 1000);
    buf_text(&buf, "x");
    buf_deinit(&buf);
}

static void assert_nothing(void)
{
}

static void assert_false_thing(void)
{
    ASSERT(1 + 1 == 3);
}

// Whether `call` aborts a child process, inside `guards` nested guards.
static bool aborts(void (*call)(void), int guards)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(1);
        for (int i = 0; i < guards; ++i)
            alloc_guard_enter();
        call();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void an_allocation_inside_the_guard_aborts(void **state)
{
    (void)state;
    void (*const calls[])(void) = {alloc_aligned, alloc_in_arena, grow_buffer};
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; ++i) {
        assert_false(aborts(calls[i], 0));
        assert_true(aborts(calls[i], 1));
        assert_true(aborts(calls[i], 2));
    }
    assert_false(aborts(assert_nothing, 1));
    assert_true(aborts(alloc_guard_leave, 0));
}

static void the_guard_nests_and_ends(void **state)
{
    (void)state;
    assert_false(alloc_guard_active());
    alloc_guard_enter();
    alloc_guard_enter();
    alloc_guard_leave();
    assert_true(alloc_guard_active());
    alloc_guard_leave();
    assert_false(alloc_guard_active());
    alloc_aligned();
}

static void a_failed_assertion_aborts(void **state)
{
    (void)state;
    assert_true(aborts(assert_false_thing, 0));
}

static void a_buffer_grows_and_stays_terminated(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 1u << 20);
    assert_string_equal(buf.data, "");
    for (int i = 0; i < 1000; ++i) {
        buf_printf(&buf, "%d,", i);
        assert_int_equal(strlen(buf.data), buf.bytes);
    }
    assert_int_equal(buf.bytes, 3890);
    assert_memory_equal(buf.data + buf.bytes - 8, "998,999,", 8);
    assert_int_equal(buf_status(&buf, NULL), SORA_OK);
    buf_clear(&buf);
    assert_string_equal(buf.data, "");
    buf_deinit(&buf);
    assert_string_equal(buf.data, "");
}

static void the_bound_of_a_buffer_is_exact_and_sticky(void **state)
{
    (void)state;
    struct buf buf;
    struct sora_error err;
    buf_init(&buf, 10);
    buf_text(&buf, "12345");
    buf_printf(&buf, "%d", 67890);
    assert_int_equal(buf_status(&buf, &err), SORA_OK);
    buf_printf(&buf, "%d", 1);
    assert_int_equal(buf_status(&buf, &err), SORA_LIMIT);
    assert_non_null(strstr(err.text, "10 bytes"));
    assert_string_equal(buf.data, "1234567890");
    buf_clear(&buf);
    buf_append(&buf, "abcdefghijk", 11);
    buf_text(&buf, "z"); // would fit, but the error sticks
    assert_int_equal(buf_status(&buf, &err), SORA_LIMIT);
    assert_int_equal(buf.bytes, 0);
    assert_null(buf_take(&buf, NULL));
    buf_deinit(&buf);
}

static void a_printf_over_the_bound_leaves_no_bytes(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 3); // its memory is larger than its bound
    buf_text(&buf, "a");
    buf_printf(&buf, "%s", "bcd");
    assert_int_equal(buf.status, SORA_LIMIT);
    assert_string_equal(buf.data, "a");
    buf_deinit(&buf);
}

static void a_taken_buffer_belongs_to_the_caller(void **state)
{
    (void)state;
    struct buf buf;
    size_t bytes;
    buf_init(&buf, 100);
    char *text = buf_take(&buf, &bytes);
    assert_string_equal(text, "");
    assert_int_equal(bytes, 0);
    free(text);
    buf_text(&buf, "hello");
    text = buf_take(&buf, &bytes);
    assert_string_equal(text, "hello");
    assert_int_equal(bytes, 5);
    assert_int_equal(buf.bytes, 0);
    free(text);
    buf_deinit(&buf);
}

static void json_strings_are_escaped(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes;
        const char *want;
    } cases[] = {
        {"", 0, "\"\""},
        {"plain", 5, "\"plain\""},
        {"a\"b\\c/", 6, "\"a\\\"b\\\\c/\""},
        {"\b\f\n\r\t\x01\x7F", 7, "\"\\b\\f\\n\\r\\t\\u0001\\u007f\""},
        {"a\0b", 3, "\"a\\u0000b\""},
        {"h\xC3\xA9\xF0\x9F\x98\x80", 7, "\"h\xC3\xA9\xF0\x9F\x98\x80\""},
        {"a\xFFz", 3, "\"a\xEF\xBF\xBDz\""},
        {"\xE2\x82", 2, "\"\xEF\xBF\xBD\""},
        {"\xED\xA0\x80", 3, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        struct buf buf;
        buf_init(&buf, 1000);
        buf_json_string(&buf, cases[i].text, cases[i].bytes);
        assert_string_equal(buf.data, cases[i].want);
        buf_deinit(&buf);
    }
}

static void a_cursor_reads_little_endian(void **state)
{
    (void)state;
    static const uint8_t data[] = {1,  2, 3, 4, 5,    6,    7, 8, 9, 10, 11, 12, 13,   14,
                                   15, 0, 0, 0, 0x80, 0x3F, 0, 0, 0, 0,  0,  0,  0xF0, 0xBF};
    struct cursor cursor;
    cursor_init(&cursor, data, sizeof data);
    assert_int_equal(cursor_u8(&cursor), 1);
    assert_int_equal(cursor_u16(&cursor), 0x0302);
    assert_int_equal(cursor_u32(&cursor), 0x07060504);
    assert_true(cursor_u64(&cursor) == 0x0F0E0D0C0B0A0908u);
    cursor_align(&cursor, 16);
    assert_int_equal(cursor.pos, 16);
    assert_true(cursor_f32(&cursor) == 1.0f);
    assert_true(cursor_f64(&cursor) == -1.0);
    assert_int_equal(cursor_left(&cursor), 0);
    assert_int_equal(cursor_status(&cursor, "x", NULL), SORA_OK);
}

static void a_truncated_source_is_reported_with_its_byte(void **state)
{
    (void)state;
    struct edge_page page;
    struct cursor cursor;
    struct sora_error err;
    edge_page_copy(&page, "abcdef", 6);
    cursor_init(&cursor, page.data, page.bytes);
    assert_int_equal(cursor_u32(&cursor), 0x64636261);
    assert_int_equal(cursor_u32(&cursor), 0);
    assert_int_equal(cursor_u8(&cursor), 0); // sticky, although a byte is there
    assert_null(cursor_bytes(&cursor, 0));
    assert_int_equal(cursor_left(&cursor), 0);
    assert_int_equal(cursor_status(&cursor, "gguf header", &err), SORA_MALFORMED);
    assert_string_equal(err.text, "gguf header: truncated at byte 4 of 6");
    edge_page_deinit(&page);
}

static void a_view_never_passes_the_end(void **state)
{
    (void)state;
    static const size_t sizes[] = {4, SIZE_MAX, SIZE_MAX - 2};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i) {
        struct cursor cursor;
        cursor_init(&cursor, "abc", 3);
        assert_non_null(cursor_bytes(&cursor, 2));
        assert_null(cursor_bytes(&cursor, sizes[i]));
        assert_true(cursor.failed);
        assert_int_equal(cursor.failed_at, 2);
    }
    struct cursor cursor;
    cursor_init(&cursor, NULL, 0);
    assert_non_null(cursor_bytes(&cursor, 0));
    assert_false(cursor.failed);
    cursor_init(&cursor, "abc", 3);
    cursor_u8(&cursor);
    cursor_align(&cursor, 8); // the padding itself is cut
    assert_true(cursor.failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_memory_is_zeroed_and_aligned),
        cmocka_unit_test(arena_blocks_do_not_overlap),
        cmocka_unit_test(the_bound_of_an_arena_holds),
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(aligned_memory_is_zeroed_and_aligned),
        cmocka_unit_test(an_allocation_inside_the_guard_aborts),
        cmocka_unit_test(the_guard_nests_and_ends),
        cmocka_unit_test(a_failed_assertion_aborts),
        cmocka_unit_test(a_buffer_grows_and_stays_terminated),
        cmocka_unit_test(the_bound_of_a_buffer_is_exact_and_sticky),
        cmocka_unit_test(a_printf_over_the_bound_leaves_no_bytes),
        cmocka_unit_test(a_taken_buffer_belongs_to_the_caller),
        cmocka_unit_test(json_strings_are_escaped),
        cmocka_unit_test(a_cursor_reads_little_endian),
        cmocka_unit_test(a_truncated_source_is_reported_with_its_byte),
        cmocka_unit_test(a_view_never_passes_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
