// SPDX-License-Identifier: Apache-2.0
// Tests of JSON parsing and its accessors.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "edge_page.h"
#include "golden.h"
#include "sora/limits.h"

// Parses from memory without a byte behind it.
static sora_status parse(const char *text, size_t bytes, cJSON **tree, struct sora_error *err)
{
    struct edge_page page;
    edge_page_copy(&page, text, bytes);
    sora_status status = json_parse(page.data, page.bytes, tree, err);
    edge_page_deinit(&page);
    return status;
}

static void valid_texts_are_accepted(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{}",
        "[]",
        " \t\r\n[ ] \n",
        "null",
        "true",
        "-0",
        "0.5e-3",
        "1E+5",
        "\"\"",
        "\"\\u00e9\\ud83d\\ude00\\/\\b\"",
        "\"h\xC3\xA9\x7F\"",
        "{\"a\":1,\"A\":2,\"\":3}",
        "{\"a\":{\"a\":{\"a\":[1,2]}}}",
        "[{\"a\":1},{\"a\":1}]",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; ++i) {
        struct sora_error err = {0};
        cJSON *tree = NULL;
        if (parse(texts[i], strlen(texts[i]), &tree, &err) != SORA_OK)
            fail_msg("%s: %s", texts[i], err.text);
        cJSON_Delete(tree);
    }
}

static void invalid_texts_are_refused_with_the_byte(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes;
        int at; // -1: no byte in the text
    } cases[] = {
        {"", 0, 0},
        {"  ", 2, 2},
        {"{} x", 4, 3},
        {"{}{}", 4, 2},
        {"\xEF\xBB\xBF{}", 5, 0}, // byte order mark
        {"[1,]", 4, 3},
        {"[1 2]", 5, 3},
        {"[1", 2, 2},
        {"{\"a\"}", 5, 4},
        {"{\"a\":}", 6, 5},
        {"{a:1}", 5, 1},
        {"{\"a\":1,}", 8, 7},
        {"{\"a\":1", 6, 6},
        {"[01]", 4, 2},
        {"1.", 2, 2},
        {".5", 2, 0},
        {"+1", 2, 0},
        {"-", 1, 1},
        {"1e", 2, 2},
        {"0x10", 4, 1},
        {"NaN", 3, 0},
        {"nul", 3, 0},
        {"truex", 5, 4},
        {"'a'", 3, 0},
        {"\"a", 2, 2},
        {"\"a\nb\"", 5, 2},
        {"\"a\0b\"", 5, 2},
        {"{}\0", 3, 2},
        {"\x0B{}", 3, 0},
        {"\"\\x\"", 4, 2},
        {"\"\\", 2, 2},
        {"\"\\u12", 5, 5},
        {"\"\\u12g4\"", 8, 5},
        {"\"\\u0000\"", 8, 7},
        {"\"\\udc00\"", 8, 7},
        {"\"\\ud800\"", 8, 7},
        {"\"\\ud800\\u0041\"", 14, 13},
        {"\"\xC0\x80\"", 4, 1},
        {"\"ab\xED\xA0\x80\"", 7, 3},
        {"\"\xE2\x82", 3, 1},
        {"[1e999]", 7, -1},
        {"{\"a\":1,\"b\":2,\"a\":3}", 19, -1},
        {"{\"a\":1,\"\\u0061\":3}", 18, -1},
        {"[[{\"x\":{\"k\":1,\"k\":1}}]]", 23, -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        struct sora_error err = {0};
        cJSON *tree = NULL;
        char want[32];
        snprintf(want, sizeof want, cases[i].at >= 0 ? "JSON at byte %d:" : "JSON:", cases[i].at);
        if (parse(cases[i].text, cases[i].bytes, &tree, &err) != SORA_MALFORMED)
            fail_msg("accepted: %s", cases[i].text);
        if (strncmp(err.text, want, strlen(want)) != 0)
            fail_msg("%s: %s, not %s", cases[i].text, err.text, want);
        assert_null(tree);
    }
}

static void depth_is_bounded(void **state)
{
    (void)state;
    char text[4 * SORA_JSON_DEPTH_MAX];
    for (int depth = SORA_JSON_DEPTH_MAX - 1; depth <= SORA_JSON_DEPTH_MAX + 1; ++depth) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        cJSON *tree = NULL;
        assert_int_equal(parse(text, 2 * (size_t)depth, &tree, NULL),
                         depth <= SORA_JSON_DEPTH_MAX ? SORA_OK : SORA_MALFORMED);
        cJSON_Delete(tree);
    }
}

static void the_count_of_values_is_bounded(void **state)
{
    (void)state;
    struct sora_error err;
    cJSON *tree = NULL;
    assert_int_equal(json_parse_within("[1,[2],{\"a\":3}]", 15, 6, &tree, &err), SORA_OK);
    cJSON_Delete(tree);
    assert_int_equal(json_parse_within("[1,[2],{\"a\":3}]", 15, 5, &tree, &err), SORA_LIMIT);
    assert_string_equal(err.text, "JSON at byte 12: too many values (more than 5)");
}

static void a_long_number_is_refused(void **state)
{
    (void)state;
    char text[65];
    cJSON *tree = NULL;
    memset(text, '1', sizeof text);
    assert_int_equal(parse(text, 63, &tree, NULL), SORA_OK);
    cJSON_Delete(tree);
    assert_int_equal(parse(text, 64, &tree, NULL), SORA_MALFORMED);
}

// 50,000 keys: comparing all pairs would take minutes.
static void many_keys_are_checked_quickly(void **state)
{
    (void)state;
    struct buf text;
    buf_init(&text, 4u << 20);
    buf_text(&text, "{");
    for (int i = 0; i < 50000; ++i)
        buf_printf(&text, "\"key%d\":0,", i);
    size_t bytes = text.bytes;
    for (int twice = 0; twice < 2; ++twice) {
        struct sora_error err = {0};
        cJSON *tree = NULL;
        text.bytes = bytes;
        buf_text(&text, twice ? "\"key25000\":1}" : "\"other\":1}");
        assert_int_equal(json_parse(text.data, text.bytes, &tree, &err),
                         twice ? SORA_MALFORMED : SORA_OK);
        assert_true(!twice || strstr(err.text, "\"key25000\"") != NULL);
        cJSON_Delete(tree);
    }
    buf_deinit(&text);
}

static cJSON *tree_of(const char *text)
{
    cJSON *tree = NULL;
    assert_int_equal(json_parse(text, strlen(text), &tree, NULL), SORA_OK);
    return tree;
}

static void integers_are_read_exactly(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        sora_status status;
        int64_t want; // 77: untouched
    } cases[] = {
        {"{}", SORA_OK, 77},
        {"{\"n\":null}", SORA_OK, 77},
        {"{\"n\":5}", SORA_OK, 5},
        {"{\"n\":-5}", SORA_OK, -5},
        {"{\"n\":5.0}", SORA_OK, 5},
        {"{\"n\":1e3}", SORA_OK, 1000},
        {"{\"n\":9007199254740991}", SORA_OK, 9007199254740991},
        {"{\"n\":9007199254740992}", SORA_MALFORMED, 77},
        {"{\"n\":9007199254740993}", SORA_MALFORMED, 77},
        {"{\"n\":-9007199254740992}", SORA_MALFORMED, 77},
        {"{\"n\":1e300}", SORA_MALFORMED, 77},
        {"{\"n\":5.5}", SORA_MALFORMED, 77},
        {"{\"n\":\"5\"}", SORA_MALFORMED, 77},
        {"{\"n\":true}", SORA_MALFORMED, 77},
        {"{\"n\":[5]}", SORA_MALFORMED, 77},
        {"{\"N\":5}", SORA_OK, 77}, // names are case-sensitive
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        cJSON *tree = tree_of(cases[i].text);
        int64_t value = 77;
        assert_int_equal(json_get_int(tree, "n", INT64_MIN, INT64_MAX, &value, NULL),
                         cases[i].status);
        assert_true(value == cases[i].want);
        cJSON_Delete(tree);
    }
}

static void a_wrong_field_is_named_with_value_and_range(void **state)
{
    (void)state;
    struct sora_error err;
    int64_t whole = 77;
    double number = 77;
    bool truth = true;
    const char *text = "kept";
    cJSON *tree = tree_of("{\"n\":9,\"s\":\"a\\nb\",\"o\":{},\"t\":false}");
    assert_int_equal(json_get_int(tree, "n", 1, 8, &whole, &err), SORA_MALFORMED);
    assert_string_equal(err.text, "n: must be an integer in [1, 8], found 9");
    assert_int_equal(json_get_int(tree, "n", 10, 20, &whole, &err), SORA_MALFORMED);
    assert_int_equal(json_get_number(tree, "n", 0, 2.5, &number, &err), SORA_MALFORMED);
    assert_string_equal(err.text, "n: must be a number in [0, 2.5], found 9");
    assert_int_equal(json_get_number(tree, "s", 0, 2, &number, &err), SORA_MALFORMED);
    assert_string_equal(err.text, "s: must be a number in [0, 2], found \"a\\nb\"");
    assert_int_equal(json_get_bool(tree, "o", &truth, &err), SORA_MALFORMED);
    assert_string_equal(err.text, "o: must be true or false, found an object");
    assert_int_equal(json_get_string(tree, "t", &text, &err), SORA_MALFORMED);
    assert_string_equal(err.text, "t: must be a string, found false");
    assert_true(whole == 77 && number == 77 && truth);
    assert_string_equal(text, "kept");
    cJSON_Delete(tree);
}

static void right_fields_are_read(void **state)
{
    (void)state;
    double number = 0;
    bool truth = false;
    const char *text = NULL;
    cJSON *tree = tree_of("{\"n\":0.25,\"s\":\"a\",\"t\":true,\"z\":null}");
    assert_int_equal(json_get_number(tree, "n", 0, 1, &number, NULL), SORA_OK);
    assert_int_equal(json_get_bool(tree, "t", &truth, NULL), SORA_OK);
    assert_int_equal(json_get_string(tree, "s", &text, NULL), SORA_OK);
    assert_true(number == 0.25 && truth);
    assert_string_equal(text, "a");
    assert_int_equal(json_get_number(tree, "z", 0, 1, &number, NULL), SORA_OK);
    assert_int_equal(json_get_bool(tree, "none", &truth, NULL), SORA_OK);
    assert_int_equal(json_get_string(NULL, "s", &text, NULL), SORA_OK);
    assert_true(number == 0.25 && truth);
    assert_true(json_has(tree, "n"));
    assert_false(json_has(tree, "z"));
    assert_false(json_has(tree, "none"));
    assert_false(json_has(NULL, "n"));
    cJSON_Delete(tree);
}

static void golden_files_are_read(void **state)
{
    (void)state;
    cJSON *tree = golden_json(GOLDEN_DIR "/prox.json");
    assert_non_null(tree);
    cJSON_Delete(tree);
    size_t count;
    tree = tree_of("[[1,2],[3.5],[]]");
    float *floats = golden_floats(tree, &count);
    assert_int_equal(count, 3);
    assert_true(floats[0] == 1 && floats[1] == 2 && floats[2] == 3.5f);
    int32_t *ints = golden_ints(tree->child, &count);
    assert_int_equal(count, 2);
    assert_int_equal(ints[1], 2);
    free(ints);
    free(floats);
    cJSON_Delete(tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_texts_are_accepted),
        cmocka_unit_test(invalid_texts_are_refused_with_the_byte),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(the_count_of_values_is_bounded),
        cmocka_unit_test(a_long_number_is_refused),
        cmocka_unit_test(many_keys_are_checked_quickly),
        cmocka_unit_test(integers_are_read_exactly),
        cmocka_unit_test(a_wrong_field_is_named_with_value_and_range),
        cmocka_unit_test(right_fields_are_read),
        cmocka_unit_test(golden_files_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
