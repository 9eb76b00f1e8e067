// SPDX-License-Identifier: Apache-2.0
// Tests of UTF-8 steps, escaping, error texts and log lines.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/utf8.h"
#include "sora/status.h"

static void code_points_round_trip(void **state)
{
    (void)state;
    for (uint32_t code = 0; code <= 0x10FFFF; ++code) {
        if (code >= 0xD800 && code <= 0xDFFF)
            continue;
        char out[4];
        uint32_t back;
        size_t length = utf8_encode(code, out);
        assert_int_equal(utf8_next(out, length, &back), length);
        assert_int_equal(back, code);
    }
}

static void broken_sequences_consume_the_longest_prefix(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes, consumed;
    } cases[] = {
        {"\x80", 1, 1},             // continuation alone
        {"\xC0\x80", 2, 1},         // overlong zero
        {"\xE0\x80\x80", 3, 1},     // overlong
        {"\xED\xA0\x80", 3, 1},     // surrogate
        {"\xF4\x90\x80\x80", 4, 1}, // beyond U+10FFFF
        {"\xF5\x80\x80\x80", 4, 1}, // no such lead
        {"\xE2\x82", 2, 2},         // cut
        {"\xF0\x9F\x98", 3, 3},     // cut
        {"\xF0\x9F\x98x", 4, 3},    // cut by a letter
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        uint32_t code;
        assert_int_equal(utf8_next(cases[i].text, cases[i].bytes, &code), cases[i].consumed);
        assert_true(code == UTF8_BROKEN);
        assert_false(utf8_valid(cases[i].text, cases[i].bytes));
    }
    assert_true(utf8_valid("h\xC3\xA9 \xF0\x9F\x98\x80", 8));
}

static void foreign_text_is_escaped(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
        bool quoted;
    } cases[] = {
        {"plain h\xC3\xA9", "plain h\xC3\xA9", false},
        {"a\nb\tc\rd", "a\\nb\\tc\\rd", false},
        {"\x1B[31m\x7F", "\\x1B[31m\\x7F", false},
        {"\xC3(", "\\xC3(", false},
        {"\xC2\x85\xE2\x80\xA8\xE2\x80\xAE", "\\u0085\\u2028\\u202E", false},
        {"say \"a\\b\"", "say \\\"a\\\\b\\\"", true},
        {"say \"a\\b\"", "say \"a\\b\"", false},
        {"", "", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        char out[64];
        size_t length =
            utf8_escape(out, sizeof out, cases[i].text, strlen(cases[i].text), cases[i].quoted);
        assert_string_equal(out, cases[i].want);
        assert_int_equal(length, strlen(out));
    }
}

static void long_text_is_cut_at_a_whole_character(void **state)
{
    (void)state;
    char text[64] = {0};
    for (int i = 0; i < 20; ++i)
        memcpy(text + 3 * i, "\xE2\x82\xAC", 3);
    for (size_t room = 8; room < 64; ++room) {
        char out[64];
        size_t length = utf8_escape(out, room, text, strlen(text), false);
        assert_true(length < room);
        assert_int_equal(length, strlen(out));
        assert_true(utf8_valid(out, length));
        assert_true(room > 60 || strcmp(out + length - 3, "...") == 0);
    }
    char exact[16];
    utf8_escape(exact, 8, "1234567", 7, false);
    assert_string_equal(exact, "1234567");
    utf8_escape(exact, 8, "12345678", 8, false);
    assert_string_equal(exact, "1234...");
}

static void a_failure_carries_code_and_escaped_text(void **state)
{
    (void)state;
    struct sora_error err;
    assert_int_equal(sora_fail(&err, SORA_LIMIT, "rank %d of \"%s\"", 96, "x\ny\xFF"), SORA_LIMIT);
    assert_int_equal(err.code, SORA_LIMIT);
    assert_string_equal(err.text, "rank 96 of \"x\\ny\\xFF\"");
    assert_int_equal(sora_fail(NULL, SORA_BUSY, "nobody reads %d", 1), SORA_BUSY);
}

static void a_failure_is_prefixed_on_its_way_up(void **state)
{
    (void)state;
    struct sora_error err;
    (void)sora_fail(&err, SORA_IO, "disk\x01");
    assert_int_equal(sora_fail_within(&err, err.code, "file %s", "a"), SORA_IO);
    assert_string_equal(err.text, "file a: disk\\x01");
    assert_int_equal(sora_fail_within(NULL, SORA_IO, "x"), SORA_IO);
}

static void an_endless_failure_text_is_cut(void **state)
{
    (void)state;
    char text[4096];
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = 0;
    struct sora_error err;
    (void)sora_fail(&err, SORA_IO, "%s", text);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_string_equal(err.text + strlen(err.text) - 3, "...");
    (void)sora_fail_within(&err, SORA_IO, "%s", text);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    memset(text, '\xE2', 1000);
    (void)sora_fail(&err, SORA_IO, "%s", text);
    assert_true(utf8_valid(err.text, strlen(err.text)));
}

static void every_status_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(sora_status_name(SORA_OK), "ok");
    assert_string_equal(sora_status_name(SORA_NOT_FOUND), "not_found");
    assert_string_equal(sora_status_name(SORA_INTERNAL), "internal");
    assert_string_equal(sora_status_name((sora_status)99), "unknown");
}

struct lines {
    char text[8192];
    size_t bytes, count;
};

static void keep_line(void *context, const char *line, size_t bytes)
{
    struct lines *lines = context;
    assert_true(lines->bytes + bytes < sizeof lines->text);
    memcpy(lines->text + lines->bytes, line, bytes);
    lines->bytes += bytes;
    lines->text[lines->bytes] = 0;
    ++lines->count;
}

static void a_log_record_is_one_line(void **state)
{
    (void)state;
    struct lines lines = {0};
    log_set_sink(keep_line, &lines);
    char quoted[LOG_QUOTE_BYTES];
    log_warn("sched", "admit", "adapter=%s n=%d raw=%s", log_quote(quoted, "a\n\"b\""), 3, "x\ny");
    log_set_sink(NULL, NULL);
    assert_int_equal(lines.count, 1);
    assert_memory_equal(lines.text, "t_us=", 5);
    assert_string_equal(strchr(lines.text, ' '),
                        " level=warn module=sched event=admit adapter=\"a\\n\\\"b\\\"\" n=3 "
                        "raw=x\\ny\n");
}

static void records_below_the_level_are_dropped(void **state)
{
    (void)state;
    struct lines lines = {0};
    log_set_sink(keep_line, &lines);
    log_debug("m", "e", "%s", "");
    assert_int_equal(lines.count, 0);
    log_set_level(LOG_DEBUG);
    log_debug("m", "e", "%s", "");
    assert_int_equal(lines.count, 1);
    log_set_level(LOG_NONE);
    log_error("m", "e", "%s", "");
    assert_int_equal(lines.count, 1);
    log_set_level(LOG_INFO);
    log_set_sink(NULL, NULL);
}

static void a_long_record_is_cut_and_ends_in_a_newline(void **state)
{
    (void)state;
    struct lines lines = {0};
    char text[4000];
    memset(text, '\x01', sizeof text); // each becomes four characters
    text[sizeof text - 1] = 0;
    log_set_sink(keep_line, &lines);
    log_error("m", "e", "%s", text);
    log_set_sink(NULL, NULL);
    assert_true(lines.bytes <= 2048);
    assert_string_equal(lines.text + lines.bytes - 4, "...\n");
    assert_ptr_equal(strchr(lines.text, '\n'), lines.text + lines.bytes - 1);
}

static void a_quote_always_fits(void **state)
{
    (void)state;
    char out[LOG_QUOTE_BYTES], text[1000];
    memset(text, '"', sizeof text);
    text[sizeof text - 1] = 0;
    assert_ptr_equal(log_quote(out, text), out);
    assert_true(strlen(out) < LOG_QUOTE_BYTES);
    assert_string_equal(out + strlen(out) - 4, "...\"");
    assert_string_equal(log_quote(out, NULL), "\"\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(code_points_round_trip),
        cmocka_unit_test(broken_sequences_consume_the_longest_prefix),
        cmocka_unit_test(foreign_text_is_escaped),
        cmocka_unit_test(long_text_is_cut_at_a_whole_character),
        cmocka_unit_test(a_failure_carries_code_and_escaped_text),
        cmocka_unit_test(a_failure_is_prefixed_on_its_way_up),
        cmocka_unit_test(an_endless_failure_text_is_cut),
        cmocka_unit_test(every_status_has_a_name),
        cmocka_unit_test(a_log_record_is_one_line),
        cmocka_unit_test(records_below_the_level_are_dropped),
        cmocka_unit_test(a_long_record_is_cut_and_ends_in_a_newline),
        cmocka_unit_test(a_quote_always_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
