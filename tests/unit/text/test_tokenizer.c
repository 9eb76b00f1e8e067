// SPDX-License-Identifier: Apache-2.0
// The tokenizer of the default model against Hugging Face's ids, and its behaviour at the edges:
// special tokens, bytes that are not UTF-8, long words, decoding.
#include "text_fixture.h"

#include "base/clock.h"
#include "base/rng.h"

static sora_tokenizer *model; // NULL when SORA_TEST_MODEL is not set

static int open_model(void **state)
{
    (void)state;
    const char *path = fixture_model_path("test_tokenizer");
    struct sora_error err = {0};
    if (path != NULL && sora_tokenizer_open(path, &model, &err) != SORA_OK)
        fail_msg("%s", err.text);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    sora_tokenizer_close(model);
    return 0;
}

static void need_model(const char *test)
{
    if (model != NULL)
        return;
    print_message("SKIPPED %s: SORA_TEST_MODEL is not set\n", test);
    skip();
}

static int32_t *encode(const char *text, size_t bytes, bool parse_special, int32_t *count)
{
    struct sora_error err = {0};
    int32_t *tokens;
    assert_ok(
        sora_tokenizer_encode(model, text, bytes, parse_special, false, &tokens, count, &err));
    return tokens;
}

static void the_golden_texts_have_the_reference_ids(void **state)
{
    (void)state;
    need_model(__func__);
    assert_int_equal(fixture_golden_differences(model), 0);
}

static void the_golden_comparer_sees_a_wrong_id(void **state)
{
    (void)state;
    need_model(__func__);
    cJSON *ids = cJSON_Parse("[253, 253]");
    assert_true(fixture_encodes_to(model, " a a", 4, ids));
    cJSON_ReplaceItemInArray(ids, 1, cJSON_CreateNumber(254));
    assert_false(fixture_encodes_to(model, " a a", 4, ids));
    assert_false(fixture_encodes_to(model, " a", 2, ids));
    cJSON_Delete(ids);
}

static void decoding_the_golden_ids_gives_the_text(void **state)
{
    (void)state;
    need_model(__func__);
    struct sora_error err = {0};
    cJSON *golden = fixture_golden("tokenizer.json");
    const cJSON *item;
    cJSON_ArrayForEach(item, golden)
    {
        size_t text_bytes, bytes;
        char *decoded, *text = fixture_text(item, "text", &text_bytes);
        int32_t count;
        int32_t *tokens = encode(text, text_bytes, true, &count);
        assert_ok(sora_tokenizer_decode(model, tokens, count, false, &decoded, &bytes, &err));
        assert_int_equal(bytes, text_bytes);
        assert_memory_equal(decoded, text, bytes + 1);
        free(decoded);
        free(text);
        free(tokens);
    }
    cJSON_Delete(golden);
}

static void the_detokenizer_gives_whole_code_points_that_join_to_the_text(void **state)
{
    (void)state;
    need_model(__func__);
    struct sora_error err = {0};
    const char *text = "caf\xc3\xa9 \xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7 "
                       "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e";
    int32_t count;
    int32_t *tokens = encode(text, strlen(text), false, &count);
    sora_detokenizer *detokenizer;
    assert_ok(sora_detokenizer_create(model, true, &detokenizer, &err));
    char joined[256] = "";
    size_t bytes, joined_bytes = 0;
    for (int32_t i = 0; i <= count; i++) {
        const char *piece = i < count ? sora_detokenizer_push(detokenizer, tokens[i], &bytes)
                                      : sora_detokenizer_flush(detokenizer, &bytes);
        if (bytes > 0)
            assert_int_not_equal((unsigned char)piece[0] & 0xc0, 0x80); // starts a code point
        memcpy(joined + joined_bytes, piece, bytes);
        joined_bytes += bytes;
    }
    assert_int_equal(joined_bytes, strlen(text));
    assert_memory_equal(joined, text, joined_bytes);
    sora_detokenizer_destroy(detokenizer);
    free(tokens);
}

static void a_cut_code_point_is_flushed_as_one_replacement(void **state)
{
    (void)state;
    need_model(__func__);
    struct sora_error err = {0};
    const char *emoji = "\xf0\x9f\x99\x82"; // several tokens
    int32_t count;
    int32_t *tokens = encode(emoji, 4, false, &count);
    assert_true(count > 1);
    char *text;
    size_t bytes;
    assert_ok(sora_tokenizer_decode(model, tokens, count - 1, false, &text, &bytes, &err));
    assert_string_equal(text, "\xef\xbf\xbd");
    free(text);
    free(tokens);
}

static void special_text_is_a_token_only_on_request(void **state)
{
    (void)state;
    need_model(__func__);
    const char *text = "a<|im_end|>b";
    int32_t count;
    int32_t *tokens = encode(text, strlen(text), true, &count);
    assert_int_equal(count, 3);
    assert_int_equal(tokens[1], 2);
    free(tokens);
    tokens = encode(text, strlen(text), false, &count);
    assert_true(count > 3);
    for (int32_t i = 0; i < count; i++)
        assert_false(sora_tokenizer_is_special(model, tokens[i]));
    free(tokens);
}

static void special_tokens_can_be_left_out_of_decoded_text(void **state)
{
    (void)state;
    need_model(__func__);
    struct sora_error err = {0};
    const int32_t tokens[] = {1, 4093, 2, -1, 1 << 30};
    char *text;
    size_t bytes;
    assert_ok(sora_tokenizer_decode(model, tokens, 5, true, &text, &bytes, &err));
    assert_string_equal(text, "user");
    free(text);
    assert_ok(sora_tokenizer_decode(model, tokens, 5, false, &text, &bytes, &err));
    assert_string_equal(text, "<|im_start|>user<|im_end|>");
    free(text);
    assert_ok(sora_tokenizer_decode(model, tokens, 0, false, &text, &bytes, &err));
    assert_string_equal(text, "");
    free(text);
}

static void the_models_ids_are_known(void **state)
{
    (void)state;
    need_model(__func__);
    assert_int_equal(sora_tokenizer_vocab_size(model), 49152);
    assert_int_equal(sora_tokenizer_bos(model), 1);
    assert_int_equal(sora_tokenizer_eos(model), 2);
    assert_false(sora_tokenizer_adds_bos(model));
    assert_true(sora_tokenizer_is_end(model, 0)); // <|endoftext|>
    assert_true(sora_tokenizer_is_end(model, 2)); // <|im_end|>
    assert_false(sora_tokenizer_is_end(model, 1));
    assert_false(sora_tokenizer_is_end(model, -1));
    assert_false(sora_tokenizer_is_end(model, 49152));
    assert_true(sora_tokenizer_is_special(model, 16));
    assert_false(sora_tokenizer_is_special(model, 17));
    size_t bytes;
    const char *piece = sora_tokenizer_piece(model, 253, &bytes);
    assert_int_equal(bytes, 2);
    assert_memory_equal(piece, " a", 2);
    (void)sora_tokenizer_piece(model, 49152, &bytes);
    assert_int_equal(bytes, 0);
}

static void bos_is_added_only_on_request(void **state)
{
    (void)state;
    need_model(__func__);
    struct sora_error err = {0};
    int32_t *tokens, count;
    assert_ok(sora_tokenizer_encode(model, "", 0, false, true, &tokens, &count, &err));
    assert_int_equal(count, 1);
    assert_int_equal(tokens[0], 1);
    free(tokens);
    assert_ok(sora_tokenizer_encode(model, "", 0, false, false, &tokens, &count, &err));
    assert_int_equal(count, 0);
    assert_non_null(tokens);
    free(tokens);
}

static void broken_utf8_is_tokenized_as_bytes(void **state)
{
    (void)state;
    need_model(__func__);
    // Lead bytes alone, a surrogate, an overlong form, a cut sequence; all of these bytes but
    // 0xc0 have tokens in this vocabulary.
    const char text[] = "ok \xe6\x97 x\xed\xa0\x80y\xe2\x80";
    int32_t count;
    int32_t *tokens = encode(text, sizeof text - 1, true, &count);
    char joined[64];
    size_t joined_bytes = 0;
    for (int32_t i = 0; i < count; i++) {
        size_t bytes;
        const char *piece = sora_tokenizer_piece(model, tokens[i], &bytes);
        memcpy(joined + joined_bytes, piece, bytes);
        joined_bytes += bytes;
    }
    assert_int_equal(joined_bytes, sizeof text - 1);
    assert_memory_equal(joined, text, joined_bytes);
    free(tokens);
}

static void every_byte_has_a_token_or_is_left_out_quietly(void **state)
{
    (void)state;
    need_model(__func__);
    for (int byte = 0; byte < 256; byte++) {
        char text[3] = {'a', (char)byte, 'a'};
        int32_t count;
        int32_t *tokens = encode(text, 3, true, &count);
        assert_true(count >= 1 && count <= 3);
        free(tokens);
    }
}

// Time of one word of this many equal bytes, in us.
static int64_t time_of_word(size_t bytes, char byte)
{
    char *text = malloc(bytes);
    memset(text, byte, bytes);
    int64_t start = clock_now_us();
    int32_t count;
    free(encode(text, bytes, true, &count));
    int64_t taken = clock_now_us() - start;
    free(text);
    return taken;
}

static void a_word_of_100_kb_takes_less_than_a_second(void **state)
{
    (void)state;
    need_model(__func__);
    static const char bytes[] = {'a', ' ', '\n', '-', '7', '\xf0'};
    for (size_t i = 0; i < sizeof bytes; i++)
        assert_true(time_of_word(100000, bytes[i]) < 1000000);
}

static void a_word_of_random_letters_of_1_mb_takes_seconds_at_most(void **state)
{
    (void)state;
    need_model(__func__);
    size_t bytes = 1 << 20;
    char *text = malloc(bytes);
    struct rng rng;
    rng_seed(&rng, 5);
    for (size_t i = 0; i < bytes; i++)
        text[i] = (char)('a' + rng_below(&rng, 26));
    int64_t start = clock_now_us();
    int32_t count;
    free(encode(text, bytes, true, &count));
    assert_true(clock_now_us() - start < 20000000); // under sanitizers, too
    free(text);
}

static void too_long_texts_and_words_are_refused_with_the_bound(void **state)
{
    (void)state;
    need_model(__func__);
    struct sora_error err = {0};
    int32_t *tokens, count;
    assert_int_equal(sora_tokenizer_encode(model, "", (size_t)SORA_TEXT_BYTES_MAX + 1, true, false,
                                           &tokens, &count, &err),
                     SORA_LIMIT);
    assert_null(tokens);
    size_t bytes = SORA_WORD_BYTES_MAX + 1;
    char *text = malloc(bytes);
    memset(text, 'x', bytes);
    assert_int_equal(sora_tokenizer_encode(model, text, bytes, true, false, &tokens, &count, &err),
                     SORA_LIMIT);
    assert_non_null(strstr(err.text, "2097152"));
    free(text);
}

static void a_missing_file_is_an_error_and_not_a_model_without_vocabulary(void **state)
{
    (void)state;
    struct sora_error err = {0};
    sora_tokenizer *tokenizer;
    assert_int_not_equal(sora_tokenizer_open("/nonexistent/model.gguf", &tokenizer, &err), SORA_OK);
    assert_null(tokenizer);
}

static void a_folder_without_tokenizer_json_has_no_tokenizer(void **state)
{
    (void)state;
    struct sora_error err = {0};
    sora_tokenizer *tokenizer;
    assert_ok(sora_tokenizer_open(GOLDEN_DIR "/tiny/llama", &tokenizer, &err));
    assert_null(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_golden_texts_have_the_reference_ids),
        cmocka_unit_test(the_golden_comparer_sees_a_wrong_id),
        cmocka_unit_test(decoding_the_golden_ids_gives_the_text),
        cmocka_unit_test(the_detokenizer_gives_whole_code_points_that_join_to_the_text),
        cmocka_unit_test(a_cut_code_point_is_flushed_as_one_replacement),
        cmocka_unit_test(special_text_is_a_token_only_on_request),
        cmocka_unit_test(special_tokens_can_be_left_out_of_decoded_text),
        cmocka_unit_test(the_models_ids_are_known),
        cmocka_unit_test(bos_is_added_only_on_request),
        cmocka_unit_test(broken_utf8_is_tokenized_as_bytes),
        cmocka_unit_test(every_byte_has_a_token_or_is_left_out_quietly),
        cmocka_unit_test(a_word_of_100_kb_takes_less_than_a_second),
        cmocka_unit_test(a_word_of_random_letters_of_1_mb_takes_seconds_at_most),
        cmocka_unit_test(too_long_texts_and_words_are_refused_with_the_bound),
        cmocka_unit_test(a_missing_file_is_an_error_and_not_a_model_without_vocabulary),
        cmocka_unit_test(a_folder_without_tokenizer_json_has_no_tokenizer),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
