// SPDX-License-Identifier: Apache-2.0
// Streaming UTF-8: any cut of the bytes gives the same text, and broken bytes are replaced as
// Python's errors="replace" does.
#include "text_fixture.h"

#include "text/utf8_stream.h"

#define FFFD "\xef\xbf\xbd"

static const struct {
    const char *bytes, *text; // text from Python
} cases[] = {
    {"", ""},
    {"plain", "plain"},
    {"\xc3\xa9\xe6\x97\xa5\xf0\x9f\x99\x82", "\xc3\xa9\xe6\x97\xa5\xf0\x9f\x99\x82"},
    {"a\xffz", "a" FFFD "z"},
    {"\xc0\xaf", FFFD FFFD},                   // overlong
    {"\xe0\x80\xaf", FFFD FFFD FFFD},          // overlong
    {"\xed\xa0\x80", FFFD FFFD FFFD},          // surrogate
    {"\xf4\x90\x80\x80", FFFD FFFD FFFD FFFD}, // beyond U+10FFFF
    {"\xf0\x9f\x99", FFFD},                    // cut: one maximal part
    {"\xf0\x9f\x99z", FFFD "z"},
    {"\xe6\x97\xe6\x97\xa5", FFFD "\xe6\x97\xa5"},
    {"\x80\x80", FFFD FFFD},
    {"\xc3\xc3\xa9", FFFD "\xc3\xa9"},
    {"\xf0\x9f\xc3\xa9\xe2\x82", FFFD "\xc3\xa9" FFFD},
};

static void every_cut_of_the_bytes_gives_the_same_text(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const char *bytes = cases[c].bytes;
        size_t count = strlen(bytes);
        for (unsigned cuts = 0; cuts < 1u << (count > 0 ? count - 1 : 0); cuts++) {
            struct utf8_stream stream = {0};
            char text[UTF8_STREAM_ROOM(16) * 2] = "";
            size_t text_bytes = 0;
            for (size_t start = 0, i = 1; i <= count; i++) {
                if (i < count && !(cuts >> (i - 1) & 1))
                    continue;
                text_bytes +=
                    utf8_stream_push(&stream, bytes + start, i - start, text + text_bytes);
                start = i;
            }
            text_bytes += utf8_stream_finish(&stream, text + text_bytes);
            assert_int_equal(text_bytes, strlen(cases[c].text));
            assert_memory_equal(text, cases[c].text, text_bytes);
        }
    }
}

static void a_code_point_is_given_out_with_its_last_byte(void **state)
{
    (void)state;
    struct utf8_stream stream = {0};
    char out[UTF8_STREAM_ROOM(1)];
    const char *emoji = "\xf0\x9f\x99\x82";
    for (int i = 0; i < 3; i++)
        assert_int_equal(utf8_stream_push(&stream, emoji + i, 1, out), 0);
    assert_int_equal(utf8_stream_push(&stream, emoji + 3, 1, out), 4);
    assert_memory_equal(out, emoji, 4);
    assert_int_equal(utf8_stream_finish(&stream, out), 0);
}

static void an_empty_push_changes_nothing(void **state)
{
    (void)state;
    struct utf8_stream stream = {0};
    char out[UTF8_STREAM_ROOM(1)];
    assert_int_equal(utf8_stream_push(&stream, "\xc3", 1, out), 0);
    assert_int_equal(utf8_stream_push(&stream, "", 0, out), 0);
    assert_int_equal(utf8_stream_push(&stream, "\xa9", 1, out), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut_of_the_bytes_gives_the_same_text),
        cmocka_unit_test(a_code_point_is_given_out_with_its_last_byte),
        cmocka_unit_test(an_empty_push_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
