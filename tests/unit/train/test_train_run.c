// SPDX-License-Identifier: Apache-2.0
// Whole training runs on a tiny model: the adapter's file parses, holds the record and helps; the
// hooks are called; stages, cancelling, bad input and repeated seeds behave.
#include "train_fixture.h"

#include <math.h>
#include <stdio.h>

#include "base/json.h"
#include "sora/adapter.h"
#include "sora/train.h"

static struct sora_train_options small_options(void)
{
    struct sora_train_options options = sora_train_options_defaults();
    options.rank = 8;
    options.alpha = 16.0;
    options.lr = 1e-2;
    options.gate_lr = 1e-2;
    options.clip = 1.0;
    options.epochs = 30.0;
    options.batch_tokens = 24;
    options.threads = 2;
    options.seed = 3;
    return options;
}

struct calls {
    int64_t steps, evals;
    struct sora_train_progress last;
    double first_eval_loss, last_eval_loss;
    atomic_bool cancel;
    int64_t cancel_at;
};

static void on_step(void *context, const struct sora_train_progress *progress)
{
    struct calls *calls = context;
    calls->steps++;
    calls->last = *progress;
    assert_int_equal(progress->step, calls->steps);
    if (progress->step == calls->cancel_at)
        atomic_store(&calls->cancel, true);
}

static void on_eval(void *context, const struct sora_train_progress *progress,
                    const struct sora_eval_result *result)
{
    struct calls *calls = context;
    assert_int_equal(progress->stage, calls->evals);
    if (calls->evals++ == 0)
        calls->first_eval_loss = result->loss;
    calls->last_eval_loss = result->loss;
}

static sora_status train(const struct sora_train_options *options, const char *eval,
                         struct calls *calls, struct sora_train_result *result,
                         struct sora_error *err)
{
    const struct sora_train_hooks hooks = {
        .context = calls, .on_step = on_step, .on_eval = on_eval, .cancel = &calls->cancel};
    return sora_train_run(model, tokenizer, data_path, eval, options, &hooks, result, err);
}

static void a_run_learns_and_its_file_serves(void **state)
{
    (void)state;
    struct sora_train_options options = small_options();
    struct sora_train_result result;
    struct sora_eval_result before, after;
    struct calls calls = {0};
    struct sora_error err;
    sora_adapter *adapter;
    if (train(&options, eval_path, &calls, &result, &err) != SORA_OK)
        fail_msg("%s", err.text);
    assert_int_equal(calls.steps, result.steps);
    assert_int_equal(calls.last.steps, result.steps);
    assert_int_equal(calls.evals, 1);
    assert_true(result.loss < 1.0); // 5.8 at first
    assert_true(result.has_eval && result.eval.accuracy == 1.0);
    assert_int_equal(sora_adapter_parse(result.bytes, result.byte_count,
                                        &sora_model_get_info(model)->base, &adapter, &err),
                     SORA_OK);
    const struct sora_adapter_info *info = sora_adapter_get_info(adapter);
    assert_int_equal(info->parameters, result.parameters);
    assert_int_equal(info->r_max, 8);
    const struct sora_eval_options eval_options = {.threads = 1, .generate = true};
    assert_int_equal(sora_eval_run(model, tokenizer, NULL, data_path, &eval_options, &before, &err),
                     SORA_OK);
    assert_int_equal(sora_eval_run(model, tokenizer, sora_adapter_get_lora(adapter), data_path,
                                   &eval_options, &after, &err),
                     SORA_OK);
    assert_true(after.loss < 1.0 && before.loss > 5.0);
    assert_true(before.exact_match == 0.0);
    assert_true(after.exact_match >= 0.75); // greedy answers are the completions
    // Completions of one prompt are references of one answer.
    char *twice = write_file(folder, "twice.jsonl",
                             "{\"prompt\":\"red\",\"completion\":\" apple\"}\n"
                             "{\"prompt\":\"blue\",\"completion\":\" sky\"}\n"
                             "{\"prompt\":\"red\",\"completion\":\" car\"}\n");
    assert_int_equal(sora_eval_run(model, tokenizer, sora_adapter_get_lora(adapter), twice,
                                   &eval_options, &after, &err),
                     SORA_OK);
    assert_true(fabs(after.exact_match - 2.0 / 3.0) < 1e-12);
    assert_true(after.rouge_l == 1.0);
    assert_true(after.bleu == 0.0); // there are no four words in a row
    free(twice);
    sora_adapter_destroy(adapter);
    free(result.bytes);
}

static void the_record_says_how_it_was_made(void **state)
{
    (void)state;
    struct sora_train_options options = small_options();
    struct sora_train_result result;
    struct calls calls = {0};
    struct sora_error err;
    sora_adapter *adapter;
    cJSON *record;
    options.epochs = 1.0;
    assert_int_equal(sora_train_parse_xi("linear:0:0.1:3", &options, &err), SORA_OK);
    assert_int_equal(train(&options, eval_path, &calls, &result, &err), SORA_OK);
    assert_int_equal(sora_adapter_parse(result.bytes, result.byte_count, NULL, &adapter, &err),
                     SORA_OK);
    const char *text = sora_adapter_get_info(adapter)->training_json;
    assert_non_null(text);
    assert_int_equal(json_parse(text, strlen(text), &record, &err), SORA_OK);
    const char *strings[][2] = {{"method", "sora"},
                                {"threshold", "paper"},
                                {"weight_type", "F32"},
                                {"version", SORA_VERSION}};
    for (size_t i = 0; i < 4; i++) {
        const char *value = NULL;
        assert_int_equal(json_get_string(record, strings[i][0], &value, &err), SORA_OK);
        assert_string_equal(value, strings[i][1]);
    }
    const char *numbers[] = {"r_max", "alpha", "lambda", "gate_lr",
                             "lr",    "seed",  "steps",  "tokens"};
    for (size_t i = 0; i < 8; i++)
        assert_true(cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(record, numbers[i])));
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(record, "xi_schedule")),
                     3);
    const cJSON *metrics = cJSON_GetObjectItemCaseSensitive(record, "metrics");
    assert_true(json_has(metrics, "eval_accuracy"));
    const char *digest = NULL;
    assert_int_equal(json_get_string(record, "data_digest", &digest, &err), SORA_OK);
    assert_int_equal(strlen(digest), 64);
    cJSON_Delete(record);
    sora_adapter_destroy(adapter);
    free(result.bytes);
}

static void stages_sparsify_and_are_evaluated(void **state)
{
    (void)state;
    struct sora_train_options options = small_options();
    struct sora_train_result result;
    struct calls calls = {0};
    struct sora_error err;
    options.epochs = 5.0;
    assert_int_equal(sora_train_parse_xi("list:0,0.02,0.1", &options, &err), SORA_OK);
    assert_int_equal(train(&options, eval_path, &calls, &result, &err), SORA_OK);
    assert_int_equal(calls.evals, 3);
    assert_int_equal(calls.last.stage, 2);
    assert_int_equal(calls.last.stage_count, 3);
    assert_true(calls.last.xi == 0.1);
    assert_true(result.kept < 0.8 && result.kept > 0.0);
    assert_int_equal(calls.last.gates, 3 * 7 * 8);
    assert_true(calls.last.gates_kept < calls.last.gates);
    free(result.bytes);
}

static void a_run_ends_at_its_budget_of_parameters(void **state)
{
    (void)state;
    const double targets[] = {0.3, 0.05, 20000.0};
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        struct sora_train_options options = small_options();
        struct sora_train_result result;
        struct calls calls = {0};
        struct sora_error err;
        options.epochs = 10.0;
        options.target_params = targets[i];
        assert_int_equal(train(&options, NULL, &calls, &result, &err), SORA_OK);
        const double full = (double)result.parameters_full;
        const double budget = targets[i] < 1.0 ? targets[i] * full : targets[i];
        assert_true((double)result.parameters <= budget);
        assert_true((double)result.parameters > budget - 500.0); // about two ranks
        free(result.bytes);
    }
}

static void a_strong_xi_leaves_the_base_alone(void **state)
{
    (void)state;
    struct sora_train_options options = small_options();
    struct sora_train_result result;
    struct calls calls = {0};
    struct sora_error err;
    options.epochs = 2.0;
    options.xi[0] = 10.0;
    assert_int_equal(train(&options, NULL, &calls, &result, &err), SORA_OK);
    assert_int_equal(result.parameters, 0);
    assert_false(result.has_eval);
    free(result.bytes);
}

static void a_plain_lora_keeps_all(void **state)
{
    (void)state;
    struct sora_train_options options = small_options();
    struct sora_train_result result;
    struct calls calls = {0};
    struct sora_error err;
    options.method = SORA_METHOD_LORA;
    options.dropout = 0.1;
    assert_int_equal(train(&options, NULL, &calls, &result, &err), SORA_OK);
    assert_true(result.kept == 1.0);
    assert_true(result.loss < 2.0);
    assert_int_equal(calls.last.gates_kept, calls.last.gates);
    free(result.bytes);
}

static void the_same_seed_gives_the_same_file(void **state)
{
    (void)state;
    struct sora_train_options options = small_options();
    struct sora_train_result one, two, other;
    struct sora_error err;
    options.epochs = 2.0;
    struct calls calls = {0};
    assert_int_equal(train(&options, NULL, &calls, &one, &err), SORA_OK);
    options.threads = 1;
    calls = (struct calls){0};
    assert_int_equal(train(&options, NULL, &calls, &two, &err), SORA_OK);
    options.seed++;
    calls = (struct calls){0};
    assert_int_equal(train(&options, NULL, &calls, &other, &err), SORA_OK);
    assert_int_equal(one.byte_count, two.byte_count);
    assert_memory_equal(one.bytes, two.bytes, one.byte_count);
    assert_true(other.byte_count != one.byte_count ||
                memcmp(one.bytes, other.bytes, one.byte_count) != 0);
    free(one.bytes);
    free(two.bytes);
    free(other.bytes);
}

static void a_cancelled_run_ends_at_the_next_step(void **state)
{
    (void)state;
    struct sora_train_options options = small_options();
    struct sora_train_result result;
    struct calls calls = {.cancel_at = 2};
    struct sora_error err;
    assert_int_equal(train(&options, NULL, &calls, &result, &err), SORA_CANCELLED);
    assert_int_equal(calls.steps, 2);
}

static void bad_input_is_refused_before_the_first_step(void **state)
{
    (void)state;
    struct sora_train_options options = small_options();
    struct sora_train_result result;
    struct calls calls = {0};
    struct sora_error err;
    options.rank = 0;
    assert_int_equal(train(&options, NULL, &calls, &result, &err), SORA_LIMIT);
    options = small_options();
    options.example_tokens_max = 5;
    assert_int_equal(train(&options, NULL, &calls, &result, &err), SORA_LIMIT);
    assert_non_null(strstr(err.text, "train.jsonl line 1"));
    options = small_options();
    char *bad = write_file(folder, "bad.jsonl", "{\"prompt\":\"a\",\"completion\":\"b\"}\n{}\n");
    assert_int_equal(train(&options, bad, &calls, &result, &err), SORA_MALFORMED);
    assert_non_null(strstr(err.text, "bad.jsonl line 2"));
    assert_int_equal(calls.steps, 0);
    free(bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_learns_and_its_file_serves),
        cmocka_unit_test(the_record_says_how_it_was_made),
        cmocka_unit_test(stages_sparsify_and_are_evaluated),
        cmocka_unit_test(a_run_ends_at_its_budget_of_parameters),
        cmocka_unit_test(a_strong_xi_leaves_the_base_alone),
        cmocka_unit_test(a_plain_lora_keeps_all),
        cmocka_unit_test(the_same_seed_gives_the_same_file),
        cmocka_unit_test(a_cancelled_run_ends_at_the_next_step),
        cmocka_unit_test(bad_input_is_refused_before_the_first_step),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
