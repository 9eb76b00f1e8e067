// SPDX-License-Identifier: Apache-2.0
// Hugging Face folders: a small tokenizer.json in many variants, and the default model's
// vocabulary written as tokenizer.json, which must encode as the reference does.
#include "text_fixture.h"

#include "base/gguf.h"
#include "temp_folder.h"
#include "text/tokenizer.h"

// Single letters, a space, digits and a few merges; <s> and <end> are special, <user> is not.
#define ADDED                                               \
    "[{\"id\":20,\"content\":\"<s>\",\"special\":true},"    \
    "{\"id\":21,\"content\":\"<end>\",\"special\":true},"   \
    "{\"id\":22,\"content\":\"<user>\",\"special\":false}," \
    "{\"id\":23,\"content\":\"<user>s\",\"special\":false}]"
#define VOCAB                                                                               \
    "{\"a\":0,\"b\":1,\"c\":2,\"\xc4\xa0\":3,\"1\":4,\"2\":5,\"ab\":6,\"abc\":7,\"\xc4\xa0" \
    "a\":8,\"bc\":9,\"12\":10,\"\xc4\xa0\xc4\xa0\":11}"
#define MERGES "[\"a b\",\"ab c\",\"\xc4\xa0 a\",\"b c\",\"1 2\",\"\xc4\xa0 \xc4\xa0\"]"
#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"
#define ROOT_WITH(extra, pre, model) \
    "{" extra "\"added_tokens\":" ADDED ",\"pre_tokenizer\":" pre ",\"model\":" model "}"
#define MODEL_WITH(extra, vocab, merges) \
    "{\"type\":\"BPE\"" extra ",\"vocab\":" vocab ",\"merges\":" merges "}"
#define MODEL MODEL_WITH("", VOCAB, MERGES)
#define ROOT ROOT_WITH("", BYTE_LEVEL, MODEL)

static sora_status parse(const char *json, const char *tokenizer_config, const char *generation,
                         struct sora_tokenizer *tokenizer, struct sora_error *err)
{
    memset(tokenizer, 0, sizeof *tokenizer);
    struct vocab_hf_files files = {.tokenizer = json, .tokenizer_bytes = strlen(json)};
    if (tokenizer_config != NULL) {
        files.tokenizer_config = tokenizer_config;
        files.tokenizer_config_bytes = strlen(tokenizer_config);
    }
    if (generation != NULL) {
        files.generation_config = generation;
        files.generation_config_bytes = strlen(generation);
    }
    return vocab_hf_parse(&files, tokenizer, err);
}

static void deinit(struct sora_tokenizer *tokenizer)
{
    vocab_destroy(tokenizer->vocab);
    pretokenizer_destroy(tokenizer->pretokenizer);
}

static void expect_ids(const char *json, const char *text, bool parse_special, const char *ids)
{
    struct sora_error err = {0};
    struct sora_tokenizer tokenizer;
    assert_ok(parse(json, NULL, NULL, &tokenizer, &err));
    int32_t *tokens, count;
    assert_ok(sora_tokenizer_encode(&tokenizer, text, strlen(text), parse_special, false, &tokens,
                                    &count, &err));
    char found[256] = "";
    for (int32_t i = 0; i < count; i++)
        snprintf(found + strlen(found), sizeof found - strlen(found), "%s%d", i > 0 ? " " : "",
                 tokens[i]);
    assert_string_equal(found, ids);
    free(tokens);
    deinit(&tokenizer);
}

static void merges_follow_their_ranks(void **state)
{
    (void)state;
    expect_ids(ROOT, "abc", false, "7");
    expect_ids(ROOT, "bcabc", false, "9 7");
    expect_ids(ROOT, " abc", false, "3 7"); // "a b" comes before " a"
    expect_ids(ROOT, " a  a", false, "8 3 8");
    expect_ids(ROOT, "", false, "");
}

static void bytes_without_a_token_are_left_out_or_become_unk(void **state)
{
    (void)state;
    expect_ids(ROOT, "axb", false, "6"); // the neighbours meet, as in the reference
    expect_ids(ROOT_WITH("", BYTE_LEVEL, MODEL_WITH(",\"unk_token\":\"<s>\"", VOCAB, MERGES)),
               "axb", false, "0 20 1");
}

static void merges_may_be_pairs(void **state)
{
    (void)state;
    expect_ids(ROOT_WITH("", BYTE_LEVEL, MODEL_WITH("", VOCAB, "[[\"a\",\"b\"],[\"ab\",\"c\"]]")),
               "abc", false, "7");
}

static void a_whole_word_is_taken_when_merges_are_ignored(void **state)
{
    (void)state;
    expect_ids(ROOT_WITH("", BYTE_LEVEL, MODEL_WITH("", VOCAB, "[\"b c\"]")), "abc", false, "0 9");
    expect_ids(ROOT_WITH("", BYTE_LEVEL, MODEL_WITH(",\"ignore_merges\":true", VOCAB, "[\"b c\"]")),
               "abc", false, "7");
}

static void added_tokens_are_found_leftmost_and_longest(void **state)
{
    (void)state;
    expect_ids(ROOT, "a<s>b<user>c<user>s", true, "0 20 1 22 2 23");
    expect_ids(ROOT, "a<user>", false, "0 22"); // a plain added token always
    expect_ids(ROOT, "<s>", false, ""); // a special one on request; no letter of it is known
    expect_ids(ROOT, "a<s", true, "0");
}

static void digits_are_cut_out_before_the_words(void **state)
{
    (void)state;
    expect_ids(ROOT, "  12", false, "3 3 10");
    expect_ids(ROOT_WITH("",
                         "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\","
                         "\"individual_digits\":true}," BYTE_LEVEL "]}",
                         MODEL),
               "  12", false, "11 4 5");
    expect_ids(ROOT_WITH("",
                         "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\","
                         "\"individual_digits\":false}," BYTE_LEVEL "]}",
                         MODEL),
               "  12", false, "11 10");
}

static void a_split_by_a_pattern_is_followed(void **state)
{
    (void)state;
    expect_ids(
        ROOT_WITH("",
                  "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
                  "{\"Regex\":\"b\"},\"behavior\":\"Isolated\",\"invert\":false},"
                  "{\"type\":\"ByteLevel\",\"use_regex\":false}]}",
                  MODEL),
        "abc", false, "0 1 2");
}

static void nfc_is_applied_when_asked(void **state)
{
    (void)state;
    // "a" + U+030A gives U+00E5, whose bytes are the two tokens here.
    const char *model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"\xc3\x83\":1,\"\xc2\xa5\":2},"
                        "\"merges\":[]}";
    char json[1024];
    snprintf(json, sizeof json, "{\"pre_tokenizer\":" BYTE_LEVEL ",\"model\":%s}", model);
    expect_ids(json, "a\xcc\x8a", false, "0");
    snprintf(json, sizeof json,
             "{\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":" BYTE_LEVEL ",\"model\":%s}",
             model);
    expect_ids(json, "a\xcc\x8a", false, "1 2");
    expect_ids(json, "a\xcc\x8a\xff", false, "0"); // no UTF-8: not normalized
}

static void what_is_not_understood_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        sora_status status;
        const char *text;
    } cases[] = {
        {"{}", SORA_UNSUPPORTED, "model type"},
        {"[]", SORA_UNSUPPORTED, "model type"},
        {"{\"model\":{\"type\":\"Unigram\"}}", SORA_UNSUPPORTED, "Unigram"},
        {"{\"model\":{\"type\":\"BPE\"}}", SORA_MALFORMED, "vocab"},
        {"{\"model\":", SORA_MALFORMED, "tokenizer.json"},
        {ROOT_WITH("", "null", MODEL), SORA_UNSUPPORTED, "pre_tokenizer"},
        {ROOT_WITH("", "{\"type\":\"Metaspace\"}", MODEL), SORA_UNSUPPORTED, "Metaspace"},
        {ROOT_WITH("", "{\"type\":\"Digits\"}", MODEL), SORA_UNSUPPORTED, "ByteLevel"},
        {ROOT_WITH("", "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", MODEL),
         SORA_UNSUPPORTED, "add_prefix_space"},
        {ROOT_WITH("",
                   "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
                   "{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}," BYTE_LEVEL "]}",
                   MODEL),
         SORA_UNSUPPORTED, "pattern ("},
        {ROOT_WITH("",
                   "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
                   "{\"Regex\":\"a\"},\"behavior\":\"Removed\"}," BYTE_LEVEL "]}",
                   MODEL),
         SORA_UNSUPPORTED, "Removed"},
        {ROOT_WITH("\"normalizer\":{\"type\":\"NFKC\"},", BYTE_LEVEL, MODEL), SORA_UNSUPPORTED,
         "NFKC"},
        {ROOT_WITH("\"decoder\":{\"type\":\"WordPiece\"},", BYTE_LEVEL, MODEL), SORA_UNSUPPORTED,
         "WordPiece"},
        {ROOT_WITH("", BYTE_LEVEL, MODEL_WITH(",\"byte_fallback\":true", VOCAB, MERGES)),
         SORA_UNSUPPORTED, "byte_fallback"},
        {ROOT_WITH("", BYTE_LEVEL, MODEL_WITH(",\"dropout\":0.1", VOCAB, MERGES)), SORA_UNSUPPORTED,
         "dropout"},
        {ROOT_WITH("", BYTE_LEVEL, MODEL_WITH("", "{\"a\":0,\"b\":0}", "[]")), SORA_MALFORMED,
         "id 0"},
        {ROOT_WITH("", BYTE_LEVEL, MODEL_WITH("", "{\"a\":-1}", "[]")), SORA_MALFORMED, "\"a\""},
        {ROOT_WITH("", BYTE_LEVEL, MODEL_WITH("", "{\"a\":1.5}", "[]")), SORA_MALFORMED, "\"a\""},
        {ROOT_WITH("", BYTE_LEVEL, MODEL_WITH("", "{\"a\":99999999}", "[]")), SORA_MALFORMED,
         "\"a\""},
        {ROOT_WITH("", BYTE_LEVEL, MODEL_WITH("", VOCAB, "[\"a x\"]")), SORA_MALFORMED, "merge 0"},
        {ROOT_WITH("", BYTE_LEVEL, MODEL_WITH("", VOCAB, "[\"ab\"]")), SORA_MALFORMED, "merge 0"},
        {ROOT_WITH("", BYTE_LEVEL, MODEL_WITH("", VOCAB, "[[\"a\"]]")), SORA_MALFORMED, "merge 0"},
        {ROOT_WITH("", BYTE_LEVEL, MODEL_WITH("", VOCAB, "[1]")), SORA_MALFORMED, "merge 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sora_error err = {0};
        struct sora_tokenizer tokenizer;
        assert_int_equal(parse(cases[i].json, NULL, NULL, &tokenizer, &err), cases[i].status);
        if (strstr(err.text, cases[i].text) == NULL)
            fail_msg("case %zu: %s", i, err.text);
        deinit(&tokenizer);
    }
}

static void the_configs_give_the_ids(void **state)
{
    (void)state;
    static const struct {
        const char *root, *config, *generation;
        int32_t bos, eos;
        bool adds_bos, ends_0;
    } cases[] = {
        {ROOT, NULL, NULL, -1, -1, false, false},
        {ROOT, "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"<end>\"}}", NULL, 20, 21, false,
         false},
        {ROOT, "{\"bos_token\":\"<s>\",\"add_bos_token\":true}", "{\"eos_token_id\":[21,0]}", 20,
         21, true, true},
        {ROOT, NULL, "{\"eos_token_id\":0,\"pad_token_id\":5}", -1, 0, false, true},
        {ROOT, NULL, "{\"eos_token_id\":[-1,99999,\"x\"]}", -1, -1, false, false},
        {ROOT_WITH("\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":"
                   "\"ByteLevel\"},{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
                   "{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\"}}]}]},",
                   BYTE_LEVEL, MODEL),
         NULL, NULL, 20, -1, true, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sora_error err = {0};
        struct sora_tokenizer tokenizer;
        assert_ok(parse(cases[i].root, cases[i].config, cases[i].generation, &tokenizer, &err));
        assert_int_equal(sora_tokenizer_bos(&tokenizer), cases[i].bos);
        assert_int_equal(sora_tokenizer_eos(&tokenizer), cases[i].eos);
        assert_int_equal(sora_tokenizer_adds_bos(&tokenizer), cases[i].adds_bos);
        assert_int_equal(sora_tokenizer_is_end(&tokenizer, 0), cases[i].ends_0);
        assert_false(sora_tokenizer_is_end(&tokenizer, 5));
        deinit(&tokenizer);
    }
}

static void a_named_template_is_taken_from_the_list(void **state)
{
    (void)state;
    struct sora_error err = {0};
    struct sora_tokenizer tokenizer;
    assert_ok(parse(ROOT,
                    "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"x\"},{\"name\":"
                    "\"default\",\"template\":\"{% for message in messages %}{{'<|im_start|>' + "
                    "message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% "
                    "endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% "
                    "endif %}\"}]}",
                    NULL, &tokenizer, &err));
    assert_int_equal(tokenizer.chat, CHAT_CHATML);
    deinit(&tokenizer);
}

// The strings of a GGUF array as zero-terminated copies in a JSON array.
static cJSON *strings_of(const struct gguf *gguf, const char *key)
{
    int64_t count = gguf_get_strings(gguf, key);
    struct gguf_string *views = calloc((size_t)count, sizeof *views);
    gguf_copy_strings(gguf, key, views);
    cJSON *array = cJSON_CreateArray();
    for (int64_t i = 0; i < count; i++) {
        char text[512];
        snprintf(text, sizeof text, "%.*s", (int)views[i].bytes, views[i].data);
        cJSON_AddItemToArray(array, cJSON_CreateString(text));
    }
    free(views);
    return array;
}

// tokenizer.json of the default model, with merges as pairs or as lines.
static char *model_as_json(const char *path, bool pairs)
{
    struct sora_error err = {0};
    struct gguf *gguf;
    assert_ok(gguf_open(path, &gguf, &err));
    cJSON *root = cJSON_Parse("{\"pre_tokenizer\":" BYTE_LEVEL ",\"model\":{\"type\":\"BPE\"}}");
    cJSON *model = cJSON_GetObjectItem(root, "model");
    cJSON *added = cJSON_AddArrayToObject(root, "added_tokens");
    cJSON *vocab = cJSON_AddObjectToObject(model, "vocab");
    cJSON *tokens = strings_of(gguf, "tokenizer.ggml.tokens"), *item;
    int id = 0;
    cJSON_ArrayForEach(item, tokens)
    {
        if (id < 17) {
            cJSON *token = cJSON_CreateObject();
            cJSON_AddNumberToObject(token, "id", id);
            cJSON_AddStringToObject(token, "content", item->valuestring);
            cJSON_AddBoolToObject(token, "special", true);
            cJSON_AddItemToArray(added, token);
        }
        cJSON_AddNumberToObject(vocab, item->valuestring, id++);
    }
    cJSON_Delete(tokens);
    cJSON *merges = strings_of(gguf, "tokenizer.ggml.merges");
    if (pairs) {
        cJSON *lines = merges;
        merges = cJSON_CreateArray();
        cJSON_ArrayForEach(item, lines)
        {
            char *space = strchr(item->valuestring + 1, ' ');
            *space = 0;
            const char *pair[2] = {item->valuestring, space + 1};
            cJSON_AddItemToArray(merges, cJSON_CreateStringArray(pair, 2));
        }
        cJSON_Delete(lines);
    }
    cJSON_AddItemToObject(model, "merges", merges);
    char *json = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    gguf_close(gguf);
    return json;
}

static void the_default_vocabulary_as_json_has_the_reference_ids(void **state)
{
    (void)state;
    const char *path = fixture_model_path(__func__);
    if (path == NULL)
        skip();
    for (int pairs = 0; pairs < 2; pairs++) {
        struct sora_error err = {0};
        char *json = model_as_json(path, pairs);
        char *folder = temp_folder_create();
        char *file = file_join(folder, "tokenizer.json");
        assert_ok(file_write_atomic(file, json, strlen(json), &err));
        sora_tokenizer *tokenizer;
        assert_ok(sora_tokenizer_open(folder, &tokenizer, &err));
        assert_int_equal(fixture_golden_differences(tokenizer), 0);
        sora_tokenizer_close(tokenizer);
        temp_folder_remove(folder);
        free(file);
        free(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_follow_their_ranks),
        cmocka_unit_test(bytes_without_a_token_are_left_out_or_become_unk),
        cmocka_unit_test(merges_may_be_pairs),
        cmocka_unit_test(a_whole_word_is_taken_when_merges_are_ignored),
        cmocka_unit_test(added_tokens_are_found_leftmost_and_longest),
        cmocka_unit_test(digits_are_cut_out_before_the_words),
        cmocka_unit_test(a_split_by_a_pattern_is_followed),
        cmocka_unit_test(nfc_is_applied_when_asked),
        cmocka_unit_test(what_is_not_understood_is_refused_by_name),
        cmocka_unit_test(the_configs_give_the_ids),
        cmocka_unit_test(a_named_template_is_taken_from_the_list),
        cmocka_unit_test(the_default_vocabulary_as_json_has_the_reference_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
