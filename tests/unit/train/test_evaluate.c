// SPDX-License-Identifier: Apache-2.0
// Evaluation by the serving engine: the same loss as the training pass, choices judged by the sum
// of their tokens, Matthews correlation, generation, more examples than sequences at once.
#include "byte_tokenizer.h"

#include <math.h>
#include <stdio.h>

#include "sora/train.h"
#include "train/batches.h"
#include "train/evaluate.h"
#include "train/trainer.h"

static char *folder;
static sora_tokenizer *tokenizer;
static sora_model *model;

static int set_up(void **state)
{
    (void)state;
    struct sora_error err;
    folder = temp_folder_create();
    tokenizer = byte_tokenizer_open(folder);
    return sora_model_open(GOLDEN_DIR "/train/llama/base", &model, &err) == SORA_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    sora_model_close(model);
    sora_tokenizer_close(tokenizer);
    temp_folder_remove(folder);
    return 0;
}

static struct sora_eval_result evaluate(const char *text, const struct sora_eval_options *options)
{
    struct sora_eval_result result;
    struct sora_error err;
    char *path = write_file(folder, "eval.jsonl", text);
    if (sora_eval_run(model, tokenizer, NULL, path, options, &result, &err) != SORA_OK)
        fail_msg("%s", err.text);
    free(path);
    return result;
}

// Mean loss of the whole file by the training pass, B being zero.
static double training_loss(const char *text)
{
    struct example_index data;
    struct batches batches;
    struct train_batch batch;
    struct trainer *trainer;
    struct trainer_outcome outcome;
    struct sora_error err;
    const struct dataset_rules rules = {
        .tokenizer = tokenizer, .vocab_size = 320, .example_tokens_max = 256};
    struct sora_train_options options = sora_train_options_defaults();
    options.batch_tokens = 100000;
    options.epochs = 1.0;
    options.threads = 1;
    char *path = write_file(folder, "training.jsonl", text);
    assert_int_equal(example_index_open(path, &rules, &data, &err), SORA_OK);
    free(path);
    assert_int_equal(batches_init(&batches, &data, &options, &err), SORA_OK);
    assert_int_equal(trainer_create(model, &options, batches.tokens_max, &trainer, &err), SORA_OK);
    assert_int_equal(batches_get(&batches, 0, &batch, &err), SORA_OK);
    assert_int_equal(trainer_gradients(trainer, &batch, &outcome, &err), SORA_OK);
    trainer_destroy(trainer);
    batches_deinit(&batches);
    example_index_close(&data);
    return outcome.cross_entropy;
}

static const char mixed[] =
    "{\"prompt\":\"Is it?\",\"completion\":\" yes\"}\n"
    "{\"text\":\"Some plain text that is a little longer than the others.\"}\n"
    "{\"tokens\":[1,300,3,4,5,6],\"loss_from\":4}\n"
    "{\"messages\":[{\"role\":\"user\",\"content\":\"hey\"},"
    "{\"role\":\"assistant\",\"content\":\"ho\"},{\"role\":\"user\",\"content\":\"?\"},"
    "{\"role\":\"assistant\",\"content\":\"yes\"}]}\n";

static void serving_gives_the_loss_of_training(void **state)
{
    (void)state;
    const struct sora_eval_options options = {.threads = 2};
    const struct sora_eval_result result = evaluate(mixed, &options);
    assert_int_equal(result.examples, 4);
    assert_true(fabs(result.loss - training_loss(mixed)) < 1e-4);
    assert_true(fabs(result.perplexity - exp(result.loss)) < 1e-9);
    assert_false(result.has_accuracy);
    assert_false(result.has_exact_match);
    // 5 + 56 + 2 + (3 + 4) scored tokens.
    assert_int_equal(result.tokens, 70);
}

static void a_limit_takes_the_first_examples(void **state)
{
    (void)state;
    const struct sora_eval_options options = {.threads = 1, .limit = 1};
    const struct sora_eval_result result = evaluate(mixed, &options);
    assert_int_equal(result.examples, 1);
    assert_int_equal(result.tokens, 5);
}

// Loss times tokens of one completion without its end token: what a choice scores, negated.
static double completion_score(const char *prompt, const char *completion)
{
    char text[256];
    size_t at = (size_t)snprintf(text, sizeof(text), "{\"tokens\":[");
    const size_t from = strlen(prompt), bytes = from + strlen(completion);
    for (size_t i = 0; i < bytes; i++)
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%d", i > 0 ? "," : "",
                               i < from ? prompt[i] : completion[i - from]);
    snprintf(text + at, sizeof(text) - at, "],\"loss_from\":%zu}\n", from);
    const struct sora_eval_options options = {.threads = 1};
    const struct sora_eval_result result = evaluate(text, &options);
    return -result.loss * (double)result.tokens;
}

// Writes a line whose right answer is `right`; returns whether the model prefers it.
static bool add_choice_line(char *text, size_t bytes, const char *prompt,
                            const char *const *choices, int32_t count, int32_t right)
{
    size_t at = strlen(text);
    at += (size_t)snprintf(text + at, bytes - at,
                           "{\"prompt\":\"%s\",\"completion\":\"%s\",\"choices\":[", prompt,
                           choices[right]);
    int32_t best = 0;
    double best_score = -INFINITY;
    for (int32_t c = 0; c < count; c++) {
        at += (size_t)snprintf(text + at, bytes - at, "%s\"%s\"", c > 0 ? "," : "", choices[c]);
        const double score = completion_score(prompt, choices[c]);
        best = score > best_score ? c : best;
        best_score = score > best_score ? score : best_score;
    }
    snprintf(text + at, bytes - at, "]}\n");
    return best == right;
}

static void choices_are_judged_by_the_sum_of_their_tokens(void **state)
{
    (void)state;
    static const char *const single[] = {"a", "b", "c"};
    static const char *const several[] = {"no", "yes", "perhaps"};
    static const char *const prompts[] = {"one", "two", "three", "four", "five", "six", "seven"};
    for (int32_t kind = 0; kind < 2; kind++) {
        char text[4096] = "";
        int32_t right = 0;
        for (int32_t i = 0; i < 7; i++)
            right += add_choice_line(text, sizeof(text), prompts[i], kind == 0 ? single : several,
                                     3, i % 3);
        const struct sora_eval_options options = {.threads = 2, .generate = true};
        const struct sora_eval_result result = evaluate(text, &options);
        assert_true(result.has_accuracy);
        assert_false(result.has_exact_match);
        assert_true(isnan(result.mcc));
        assert_true(fabs(result.accuracy - right / 7.0) < 1e-12);
    }
}

static void two_classes_have_a_matthews_correlation(void **state)
{
    (void)state;
    static const char *const yes_no[] = {"n", "y"};
    static const char *const prompts[] = {"one",  "two", "three", "four",
                                          "five", "six", "seven", "eight"};
    char text[4096] = "";
    double table[2][2] = {{0}};
    for (int32_t i = 0; i < 8; i++) {
        const int32_t right = i < 5;
        const bool good = add_choice_line(text, sizeof(text), prompts[i], yes_no, 2, right);
        table[right][good ? right : 1 - right] += 1.0;
    }
    const double tn = table[0][0], fp = table[0][1], fn = table[1][0], tp = table[1][1];
    const double product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn);
    const double want = product > 0.0 ? (tp * tn - fp * fn) / sqrt(product) : 0.0;
    const struct sora_eval_options options = {.threads = 2};
    const struct sora_eval_result result = evaluate(text, &options);
    assert_true(fabs(result.mcc - want) < 1e-12);
    assert_true(fabs(result.accuracy - (tp + tn) / 8.0) < 1e-12);
}

static void more_examples_than_sequences_are_all_scored(void **state)
{
    (void)state;
    char text[16384] = "";
    size_t at = 0;
    for (int32_t i = 0; i < 100; i++)
        at += (size_t)snprintf(text + at, sizeof(text) - at,
                               "{\"prompt\":\"number %d is\",\"completion\":\" %d\"}\n", i, i * 7);
    const struct sora_eval_options options = {.threads = 2};
    const struct sora_eval_result result = evaluate(text, &options);
    assert_int_equal(result.examples, 100);
    assert_true(fabs(result.loss - training_loss(text)) < 1e-4);
}

// The greedy answer of the model to a prompt, by asking for the loss of every continuation.
static int32_t likeliest_byte(const char *prompt)
{
    int32_t best = 'a';
    double best_score = -INFINITY;
    for (char c = 'a'; c <= 'z'; c++) {
        const char completion[2] = {c, '\0'};
        const double score = completion_score(prompt, completion);
        best = score > best_score ? c : best;
        best_score = score > best_score ? score : best_score;
    }
    return best;
}

static void generation_is_compared_after_trimming(void **state)
{
    (void)state;
    // An untrained model never ends after one letter, so it cannot match.
    char text[256];
    snprintf(text, sizeof(text), "{\"prompt\":\"Say\",\"completion\":\" %c \"}\n",
             likeliest_byte("Say"));
    struct sora_eval_options options = {.threads = 2, .generate = true};
    struct sora_eval_result result = evaluate(text, &options);
    assert_true(result.has_exact_match);
    assert_true(result.exact_match == 0.0);
    options.generate = false;
    result = evaluate(text, &options);
    assert_false(result.has_exact_match);
}

static void a_cancelled_evaluation_says_so(void **state)
{
    (void)state;
    struct dataset dataset;
    struct sora_eval_result result;
    struct sora_error err;
    const struct dataset_rules rules = {.vocab_size = 320, .example_tokens_max = 256};
    const struct sora_eval_options options = {.threads = 1};
    atomic_bool cancel;
    atomic_init(&cancel, true);
    static const char text[] = "{\"tokens\":[1,2,3]}";
    assert_int_equal(dataset_parse("d", text, strlen(text), &rules, &dataset, &err), SORA_OK);
    assert_int_equal(
        evaluate_dataset(model, NULL, NULL, &dataset, &options, &cancel, &result, &err),
        SORA_CANCELLED);
    dataset_close(&dataset);
}

static void an_example_beyond_the_context_is_refused(void **state)
{
    (void)state;
    char text[1024] = "{\"text\":\"";
    struct sora_eval_result result;
    struct sora_error err;
    const struct sora_eval_options options = {.threads = 1};
    memset(text + 9, 'x', 256); // and the end token: 257, the context is 256
    memcpy(text + 265, "\"}", 3);
    char *path = write_file(folder, "long.jsonl", text);
    assert_int_equal(sora_eval_run(model, tokenizer, NULL, path, &options, &result, &err),
                     SORA_LIMIT);
    assert_non_null(strstr(err.text, "long.jsonl line 1"));
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(serving_gives_the_loss_of_training),
        cmocka_unit_test(a_limit_takes_the_first_examples),
        cmocka_unit_test(choices_are_judged_by_the_sum_of_their_tokens),
        cmocka_unit_test(two_classes_have_a_matthews_correlation),
        cmocka_unit_test(more_examples_than_sequences_are_all_scored),
        cmocka_unit_test(generation_is_compared_after_trimming),
        cmocka_unit_test(a_cancelled_evaluation_says_so),
        cmocka_unit_test(an_example_beyond_the_context_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
