// SPDX-License-Identifier: Apache-2.0
// Stop strings in text that comes in pieces, against a plain search over the whole text.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <string.h>

#include "base/rng.h"
#include "server/stop_match.h"

// Where the text must end: before the stop string that is complete first, the longest of several.
static size_t expected_end(const char *text, const char *const *stops, int32_t count, bool *hit)
{
    size_t bytes = strlen(text);
    for (size_t end = 1; end <= bytes; end++) {
        size_t longest = 0;
        for (int32_t i = 0; i < count; i++) {
            size_t length = strlen(stops[i]);
            if (length <= end && length > longest &&
                memcmp(text + end - length, stops[i], length) == 0)
                longest = length;
        }
        if (longest > 0) {
            *hit = true;
            return end - longest;
        }
    }
    *hit = false;
    return bytes;
}

static void check_split(const char *text, const char *const *stops, int32_t count, struct rng *rng)
{
    struct stop_match match;
    struct buf out;
    bool hit, expected_hit;
    size_t expected = expected_end(text, stops, count, &expected_hit), bytes = strlen(text);
    buf_init(&out, 1u << 16);
    stop_match_init(&match, stops, count);
    hit = false;
    for (size_t at = 0; at < bytes;) {
        size_t piece = 1 + rng_below(rng, 4);
        if (piece > bytes - at)
            piece = bytes - at;
        hit = stop_match_push(&match, text + at, piece, false, &out);
        // What is given out is never taken back.
        assert_true(out.bytes <= expected);
        at += piece;
    }
    if (!hit)
        stop_match_flush(&match, &out);
    assert_int_equal(hit, expected_hit);
    assert_int_equal(out.bytes, expected);
    assert_memory_equal(out.data, text, expected);
    stop_match_deinit(&match);
    buf_deinit(&out);
}

static void any_split_of_a_text_gives_the_same_result(void **state)
{
    (void)state;
    static const char *const stops[] = {"aab", "ba", "abab", "bbb", "caa"};
    struct rng rng;
    rng_seed(&rng, 7);
    for (int i = 0; i < 4000; i++) {
        char text[24];
        size_t bytes = rng_below(&rng, sizeof text);
        for (size_t j = 0; j < bytes; j++)
            text[j] = (char)('a' + rng_below(&rng, 3));
        text[bytes] = '\0';
        int32_t first = (int32_t)rng_below(&rng, 4);
        check_split(text, stops + first, 1 + (int32_t)rng_below(&rng, 2), &rng);
    }
}

static void a_possible_beginning_is_held_back_until_it_is_decided(void **state)
{
    (void)state;
    static const char *const stops[] = {"\n\nUser:"};
    struct stop_match match;
    struct buf out;
    buf_init(&out, 1024);
    stop_match_init(&match, stops, 1);
    assert_false(stop_match_push(&match, "Hi\n", 3, false, &out));
    assert_string_equal(out.data, "Hi");
    assert_false(stop_match_push(&match, "\nUse", 4, false, &out));
    assert_string_equal(out.data, "Hi");
    assert_false(stop_match_push(&match, "d", 1, false, &out));
    assert_string_equal(out.data, "Hi\n\nUsed");
    assert_true(stop_match_push(&match, "\n\nUser: more", 12, false, &out));
    assert_string_equal(out.data, "Hi\n\nUsed");
    assert_int_equal(match.hit, 0);
    assert_true(stop_match_push(&match, "later", 5, false, &out));
    assert_string_equal(out.data, "Hi\n\nUsed");
    stop_match_deinit(&match);
    buf_deinit(&out);
}

static void a_kept_stop_string_ends_the_text(void **state)
{
    (void)state;
    static const char *const stops[] = {"x", "END"};
    struct stop_match match;
    struct buf out;
    buf_init(&out, 1024);
    stop_match_init(&match, stops, 2);
    assert_true(stop_match_push(&match, "the END of", 10, true, &out));
    assert_string_equal(out.data, "the END");
    assert_int_equal(match.hit, 1);
    stop_match_deinit(&match);
    buf_deinit(&out);
}

static void without_stop_strings_text_passes_at_once(void **state)
{
    (void)state;
    struct stop_match match;
    struct buf out;
    buf_init(&out, 1024);
    stop_match_init(&match, NULL, 0);
    assert_false(stop_match_push(&match, "abc", 3, false, &out));
    assert_string_equal(out.data, "abc");
    stop_match_deinit(&match);
    buf_deinit(&out);
}

static void the_reference_search_tells_a_wrong_end(void **state)
{
    (void)state;
    static const char *const stops[] = {"b"};
    bool hit;
    assert_int_not_equal(expected_end("aab", stops, 1, &hit), 3);
    assert_true(hit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_split_of_a_text_gives_the_same_result),
        cmocka_unit_test(a_possible_beginning_is_held_back_until_it_is_decided),
        cmocka_unit_test(a_kept_stop_string_ends_the_text),
        cmocka_unit_test(without_stop_strings_text_passes_at_once),
        cmocka_unit_test(the_reference_search_tells_a_wrong_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
