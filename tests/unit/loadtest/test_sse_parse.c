// SPDX-License-Identifier: Apache-2.0
// Server-sent events: the WHATWG's rules, in pieces of any size.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loadtest/sse_parse.h"
#include "sora/limits.h"

// The events, each in brackets.
static bool note_event(void *context, const char *data, size_t bytes)
{
    struct buf *out = context;
    assert_int_equal(data[bytes], '\0');
    buf_text(out, "<");
    buf_append(out, data, bytes);
    buf_text(out, ">");
    return true;
}

static bool refuse_event(void *context, const char *data, size_t bytes)
{
    (void)context;
    (void)data;
    (void)bytes;
    return false;
}

static void parse_in_pieces(const char *text, size_t piece, struct buf *out)
{
    struct sse_parse parse;
    struct sora_error err;
    size_t bytes = strlen(text);
    sse_parse_init(&parse);
    for (size_t at = 0; at < bytes; at += piece) {
        size_t count = bytes - at < piece ? bytes - at : piece;
        assert_int_equal(sse_parse_feed(&parse, text + at, count, note_event, out, &err), SORA_OK);
    }
    sse_parse_deinit(&parse);
}

static void events_are_found_in_pieces_of_any_size(void **state)
{
    (void)state;
    static const struct {
        const char *text, *events;
    } cases[] = {
        {"data: a\n\ndata: b\n\n", "<a><b>"},
        {"data:a\r\n\r\ndata:  b\r\n\r\n", "<a>< b>"},
        {"data: a\r\rdata: b\r\r", "<a><b>"},
        {"data: a\ndata: b\n\n", "<a\nb>"},
        {"data\n\n", "<>"},
        {"data\ndata\n\n", "<\n>"},
        {": comment\n\n:\n\ndata: a\n\n", "<a>"},
        {"event: x\nid: 1\nretry: 5\ndata: a\nunknown\n\n", "<a>"},
        {"\xEF\xBB\xBF"
         "data: a\n\n",
         "<a>"},
        {"data: a\n\n\xEF\xBB\xBF"
         "data: b\n\n",
         "<a>"}, // a mark only counts at the start
        {"data: cut off\n", ""},
        {"data: cut off", ""},
        {"\n\n\n", ""},
        {"datas: a\n\n", ""},
        {"data: {\"a\":\"x: y\"}\n\n", "<{\"a\":\"x: y\"}>"},
        {"data: a\n\r\ndata: b\n\n", "<a><b>"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t piece = 1; piece < 8; piece++) {
            struct buf out;
            buf_init(&out, 1 << 16);
            parse_in_pieces(cases[i].text, piece, &out);
            assert_string_equal(out.data != NULL ? out.data : "", cases[i].events);
            buf_deinit(&out);
        }
    }
}

static void an_endless_line_is_refused(void **state)
{
    (void)state;
    struct sse_parse parse;
    struct sora_error err = {.text = ""};
    char piece[4096];
    sora_status status = SORA_OK;
    size_t fed = 0;
    memset(piece, 'x', sizeof piece);
    sse_parse_init(&parse);
    while (status == SORA_OK && fed < 2 * SORA_LOADTEST_EVENT_BYTES_MAX) {
        status = sse_parse_feed(&parse, piece, sizeof piece, note_event, NULL, &err);
        fed += sizeof piece;
    }
    assert_int_equal(status, SORA_LIMIT);
    assert_true(fed <= SORA_LOADTEST_EVENT_BYTES_MAX + sizeof piece);
    sse_parse_deinit(&parse);
}

static void an_endless_event_is_refused(void **state)
{
    (void)state;
    struct sse_parse parse;
    struct sora_error err = {.text = ""};
    char line[1024];
    sora_status status = SORA_OK;
    memset(line, 'x', sizeof line);
    memcpy(line, "data:", 5);
    line[sizeof line - 1] = '\n';
    sse_parse_init(&parse);
    for (int i = 0; i < 2048 && status == SORA_OK; i++)
        status = sse_parse_feed(&parse, line, sizeof line, note_event, NULL, &err);
    assert_int_equal(status, SORA_LIMIT);
    sse_parse_deinit(&parse);
}

static void a_refused_event_ends_the_parsing_and_clear_begins_anew(void **state)
{
    (void)state;
    struct sse_parse parse;
    struct sora_error err;
    struct buf out;
    buf_init(&out, 1024);
    sse_parse_init(&parse);
    assert_int_equal(sse_parse_feed(&parse, "data: a\n\ndata: b", 16, refuse_event, NULL, &err),
                     SORA_CANCELLED);
    sse_parse_clear(&parse);
    assert_false(sse_parse_is_inside(&parse));
    assert_int_equal(sse_parse_feed(&parse, "data: c\n\nda", 11, note_event, &out, &err), SORA_OK);
    assert_string_equal(out.data, "<c>");
    assert_true(sse_parse_is_inside(&parse));
    sse_parse_deinit(&parse);
    buf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_are_found_in_pieces_of_any_size),
        cmocka_unit_test(an_endless_line_is_refused),
        cmocka_unit_test(an_endless_event_is_refused),
        cmocka_unit_test(a_refused_event_ends_the_parsing_and_clear_begins_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
