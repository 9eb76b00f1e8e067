// SPDX-License-Identifier: Apache-2.0
// Data files: what each shape of line becomes, which tokens are scored, and what a bad line says.
#include "byte_tokenizer.h"

#include <stdio.h>

#include "base/sha256.h"
#include "sora/limits.h"
#include "train/dataset.h"

static char *folder;
static sora_tokenizer *tokenizer;

static int set_up(void **state)
{
    (void)state;
    folder = temp_folder_create();
    tokenizer = byte_tokenizer_open(folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sora_tokenizer_close(tokenizer);
    temp_folder_remove(folder);
    return 0;
}

static struct dataset_rules rules_with(const sora_tokenizer *with)
{
    return (struct dataset_rules){.tokenizer = with, .vocab_size = 320, .example_tokens_max = 200};
}

static sora_status parse(const char *text, const sora_tokenizer *with, struct dataset *dataset,
                         struct sora_error *err)
{
    const struct dataset_rules rules = rules_with(with);
    return dataset_parse("d.jsonl", text, strlen(text), &rules, dataset, err);
}

// The tokens of an example as text: bytes as they are, special tokens as < and >, a scored token
// with ' behind it.
static void show(const struct dataset *dataset, int32_t index, char *out)
{
    const struct dataset_example *example = &dataset->examples[index];
    for (int64_t i = example->first; i < example->first + example->token_count; i++) {
        const int32_t token = dataset->tokens[i];
        *out++ = token == BYTE_IM_START ? '<' : token == BYTE_IM_END ? '>' : (char)token;
        if (dataset->scored[i])
            *out++ = '\'';
    }
    *out = '\0';
}

static void expect_shown(const char *line, const char *want)
{
    struct dataset dataset;
    struct sora_error err;
    char shown[2048];
    if (parse(line, tokenizer, &dataset, &err) != SORA_OK)
        fail_msg("%s", err.text);
    assert_int_equal(dataset.example_count, 1);
    show(&dataset, 0, shown);
    assert_string_equal(shown, want);
    dataset_close(&dataset);
}

static void a_completion_and_its_end_are_scored(void **state)
{
    (void)state;
    expect_shown("{\"prompt\":\"Q:\",\"completion\":\" a\"}", "Q: 'a'>'");
    // The text of a special token is text.
    expect_shown("{\"prompt\":\"<|\",\"completion\":\"x\"}\n", "<|x'>'");
    // Nothing tells the first token of an example without a prompt.
    expect_shown("{\"prompt\":\"\",\"completion\":\"ab\"}", "ab'>'");
}

static void a_text_is_scored_but_for_its_first_token(void **state)
{
    (void)state;
    expect_shown("{\"text\":\"abc\"}", "ab'c'>'");
}

static void every_assistant_turn_is_scored(void **state)
{
    (void)state;
    expect_shown("{\"messages\":[{\"role\":\"user\",\"content\":\"h\"},"
                 "{\"role\":\"assistant\",\"content\":\"yo\"}]}",
                 "<user\nh>\n<assistant\ny'o'>'");
    expect_shown("{\"messages\":[{\"role\":\"user\",\"content\":\"h\"},"
                 "{\"role\":\"assistant\",\"content\":\"y\"},"
                 "{\"role\":\"user\",\"content\":\"q\"},"
                 "{\"role\":\"assistant\",\"content\":\"z\"},"
                 "{\"role\":\"user\",\"content\":\"never answered\"}]}",
                 "<user\nh>\n<assistant\ny'>'\n<user\nq>\n<assistant\nz'>'");
}

static void ids_are_taken_as_they_are(void **state)
{
    (void)state;
    struct dataset dataset;
    struct sora_error err;
    assert_int_equal(parse("{\"tokens\":[1,2,3,4],\"loss_from\":2}\n\n  \n{\"tokens\":[5,319]}\r\n",
                           NULL, &dataset, &err),
                     SORA_OK);
    assert_int_equal(dataset.example_count, 2);
    assert_int_equal(dataset.token_count, 6);
    assert_int_equal(dataset.longest, 4);
    const uint8_t scored[] = {0, 0, 1, 1, 0, 1};
    const int32_t tokens[] = {1, 2, 3, 4, 5, 319};
    assert_memory_equal(dataset.scored, scored, sizeof(scored));
    assert_memory_equal(dataset.tokens, tokens, sizeof(tokens));
    assert_int_equal(dataset.examples[1].line, 4);
    dataset_close(&dataset);
}

static void choices_are_kept_apart(void **state)
{
    (void)state;
    struct dataset dataset;
    struct sora_error err;
    assert_int_equal(parse("{\"prompt\":\"p\",\"completion\":\"no\",\"choices\":[\"yes\",\"no\"],"
                           "\"other\":1}",
                           tokenizer, &dataset, &err),
                     SORA_OK);
    const struct dataset_example *example = &dataset.examples[0];
    assert_int_equal(example->prompt_count, 1);
    assert_int_equal(example->completion_count, 2);
    assert_int_equal(example->choice_count, 2);
    assert_int_equal(example->choice_right, 1);
    assert_int_equal(dataset.choices[0].token_count, 3);
    assert_int_equal(dataset.choices[1].first, 3);
    const int32_t letters[] = {'y', 'e', 's', 'n', 'o'};
    assert_memory_equal(dataset.choice_tokens, letters, sizeof(letters));
    dataset_close(&dataset);
}

static void the_digest_is_of_the_file(void **state)
{
    (void)state;
    static const char text[] = "{\"tokens\":[1,2]}\n";
    struct dataset dataset;
    struct sora_error err;
    char digest[65];
    char *path = write_file(folder, "two.jsonl", text);
    const struct dataset_rules rules = rules_with(NULL);
    assert_int_equal(dataset_open(path, &rules, &dataset, &err), SORA_OK);
    assert_int_equal(sha256_of(text, strlen(text), digest, &err), SORA_OK);
    assert_string_equal(dataset.digest, digest);
    dataset_close(&dataset);
    free(path);
}

static void a_bad_line_is_named_with_its_reason(void **state)
{
    (void)state;
    const struct {
        const char *line, *reason;
    } rows[] = {
        {"{\"prompt\":\"a\"}", "\"completion\" is missing"},
        {"{\"prompt\":\"a\",\"completion\":\"\"}", "the completion is empty"},
        {"{\"prompt\":1,\"completion\":\"b\"}", "prompt"},
        {"{\"prompt\":\"a\",\"completion\":\"b\",\"text\":\"c\"}", "both \"prompt\" and \"text\""},
        {"{\"question\":\"a\"}", "none of \"prompt\", \"messages\", \"text\", \"tokens\""},
        {"[1,2]", "it is no JSON object"},
        {"{\"text\":\"a\"", "JSON"},
        {"{\"text\":\"\"}", "none of them scored"},
        {"{\"tokens\":[1]}", "none of them scored"},
        {"{\"tokens\":[]}", "none of them scored"},
        {"{\"tokens\":[1,320]}", "token 1 is no id from 0 to 319"},
        {"{\"tokens\":[1,-1]}", "token 1 is no id"},
        {"{\"tokens\":[1,1.5]}", "token 1 is no id"},
        {"{\"tokens\":[1,\"2\"]}", "token 1 is no id"},
        {"{\"tokens\":[1,1e300]}", "token 1 is no id"},
        {"{\"tokens\":7}", "\"tokens\" is no array"},
        {"{\"tokens\":[1,2],\"loss_from\":2}", "\"loss_from\" is 2, but there are 2 tokens"},
        {"{\"tokens\":[1,2],\"loss_from\":-1}", "loss_from"},
        {"{\"messages\":[]}", "0 messages"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "no message has the role"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "message 0: \"content\" is missing"},
        {"{\"messages\":[3]}", "message 0: it is no object"},
        {"{\"prompt\":\"a\",\"completion\":\"b\",\"choices\":[\"b\"]}", "1 choices"},
        {"{\"prompt\":\"a\",\"completion\":\"b\",\"choices\":[\"c\",\"d\"]}",
         "the completion is none of the choices"},
        {"{\"prompt\":\"a\",\"completion\":\"b\",\"choices\":[\"b\",\"b\"]}",
         "choices 0 and 1 are the same"},
        {"{\"prompt\":\"a\",\"completion\":\"b\",\"choices\":[\"b\",2]}", "choice 1 is no string"},
        {"{\"prompt\":\"a\",\"completion\":\"b\",\"choices\":[\"b\",\"\"]}", "no tokens"},
        {"{\"prompt\":\"\",\"completion\":\"b\",\"choices\":[\"b\",\"c\"]}", "need a prompt"},
        {"{\"prompt\":\"a\",\"completion\":\"b\",\"choices\":\"b\"}", "\"choices\" is no array"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[512];
        struct dataset dataset;
        struct sora_error err = {0};
        snprintf(text, sizeof(text), "{\"tokens\":[1,2]}\n\n%s\n", rows[i].line);
        const sora_status status = parse(text, tokenizer, &dataset, &err);
        if (status == SORA_OK || strncmp(err.text, "d.jsonl line 3: ", 16) != 0 ||
            strstr(err.text, rows[i].reason) == NULL)
            fail_msg("%s gives %s: %s", rows[i].line, sora_status_name(status), err.text);
        assert_null(dataset.tokens);
    }
}

static void a_file_without_examples_is_refused(void **state)
{
    (void)state;
    const char *texts[] = {"", "\n", " \r\n\t\n"};
    for (size_t i = 0; i < 3; i++) {
        struct dataset dataset;
        struct sora_error err;
        assert_int_equal(parse(texts[i], tokenizer, &dataset, &err), SORA_MALFORMED);
        assert_string_equal(err.text, "d.jsonl: no examples");
    }
}

static void an_example_that_is_too_long_is_refused(void **state)
{
    (void)state;
    char text[1024] = "{\"text\":\"";
    struct dataset dataset;
    struct sora_error err;
    memset(text + 9, 'a', 199);
    memcpy(text + 9 + 199, "\"}", 3);
    assert_int_equal(parse(text, tokenizer, &dataset, &err), SORA_OK); // 199 and the end token
    dataset_close(&dataset);
    memcpy(text + 9 + 199, "a\"}", 4);
    assert_int_equal(parse(text, tokenizer, &dataset, &err), SORA_LIMIT);
    assert_string_equal(err.text, "d.jsonl line 1: the example has more than 200 tokens");
}

static void a_line_that_is_too_long_is_refused(void **state)
{
    (void)state;
    const size_t bytes = SORA_TRAIN_LINE_BYTES_MAX + 1;
    char *text = malloc(bytes + 1);
    assert_non_null(text);
    memset(text, ' ', bytes);
    text[bytes] = '\0';
    struct dataset dataset;
    struct sora_error err;
    assert_int_equal(parse(text, tokenizer, &dataset, &err), SORA_LIMIT);
    free(text);
}

static void text_without_a_tokenizer_is_refused(void **state)
{
    (void)state;
    struct dataset dataset;
    struct sora_error err;
    assert_int_equal(parse("{\"text\":\"abc\"}", NULL, &dataset, &err), SORA_UNSUPPORTED);
    assert_non_null(strstr(err.text, "needs a tokenizer"));
}

static void a_missing_file_is_not_found(void **state)
{
    (void)state;
    struct dataset dataset;
    struct sora_error err;
    const struct dataset_rules rules = rules_with(NULL);
    assert_int_equal(dataset_open("/nowhere/at/all.jsonl", &rules, &dataset, &err), SORA_NOT_FOUND);
    dataset_close(&dataset); // what a failed open leaves may be closed
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_completion_and_its_end_are_scored),
        cmocka_unit_test(a_text_is_scored_but_for_its_first_token),
        cmocka_unit_test(every_assistant_turn_is_scored),
        cmocka_unit_test(ids_are_taken_as_they_are),
        cmocka_unit_test(choices_are_kept_apart),
        cmocka_unit_test(the_digest_is_of_the_file),
        cmocka_unit_test(a_bad_line_is_named_with_its_reason),
        cmocka_unit_test(a_file_without_examples_is_refused),
        cmocka_unit_test(an_example_that_is_too_long_is_refused),
        cmocka_unit_test(a_line_that_is_too_long_is_refused),
        cmocka_unit_test(text_without_a_tokenizer_is_refused),
        cmocka_unit_test(a_missing_file_is_not_found),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
