// SPDX-License-Identifier: Apache-2.0
// Training on the real, quantized default model: its loss is serving's, and a few steps teach it
// something. Needs SORA_TEST_MODEL (the GGUF file).
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "sora/adapter.h"
#include "sora/train.h"
#include "temp_folder.h"

static const char data[] =
    "{\"prompt\":\"Q: What colour is the door?\\nA:\",\"completion\":\" It is teal.\"}\n"
    "{\"prompt\":\"Q: Who keeps the key?\\nA:\",\"completion\":\" Marta does.\"}\n"
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Where is the cellar?\"},"
    "{\"role\":\"assistant\",\"content\":\"Under the old mill.\"}]}\n"
    "{\"text\":\"The bell rings at noon.\"}\n";

struct bench {
    char *folder, *path;
    sora_model *model;
    sora_tokenizer *tokenizer;
};

// Skips the running test when there is no model.
static void open_bench(struct bench *bench, const char *test)
{
    struct sora_error err;
    const char *model = getenv("SORA_TEST_MODEL");
    if (model == NULL) {
        print_message("SKIPPED %s: SORA_TEST_MODEL is not set\n", test);
        skip();
    }
    bench->folder = temp_folder_create();
    bench->path = file_join(bench->folder, "data.jsonl");
    assert_int_equal(file_write_atomic(bench->path, data, strlen(data), &err), SORA_OK);
    if (sora_model_open(model, &bench->model, &err) != SORA_OK ||
        sora_tokenizer_open(model, &bench->tokenizer, &err) != SORA_OK)
        fail_msg("%s", err.text);
}

static void close_bench(struct bench *bench)
{
    sora_tokenizer_close(bench->tokenizer);
    sora_model_close(bench->model);
    temp_folder_remove(bench->folder);
    free(bench->path);
}

static struct sora_train_options options_with(double epochs)
{
    struct sora_train_options options = sora_train_options_defaults();
    options.rank = 4;
    options.alpha = 8.0;
    options.epochs = epochs;
    options.lr = 5e-3;
    return options;
}

static struct sora_eval_result evaluate(const struct bench *bench, const struct sora_lora *lora)
{
    const struct sora_eval_options options = {.compute = SORA_COMPUTE_F32};
    struct sora_eval_result result;
    struct sora_error err;
    if (sora_eval_run(bench->model, bench->tokenizer, lora, bench->path, &options, &result, &err) !=
        SORA_OK)
        fail_msg("%s", err.text);
    return result;
}

static struct sora_train_result train(const struct bench *bench, double epochs)
{
    const struct sora_train_options options = options_with(epochs);
    struct sora_train_result result;
    struct sora_error err;
    if (sora_train_run(bench->model, bench->tokenizer, bench->path, NULL, &options, NULL, &result,
                       &err) != SORA_OK)
        fail_msg("%s", err.text);
    return result;
}

static void the_first_loss_is_what_serving_gives(void **state)
{
    (void)state;
    struct bench bench;
    open_bench(&bench, __func__);
    struct sora_train_result result = train(&bench, 1.0); // one step, B still zero
    const struct sora_eval_result served = evaluate(&bench, NULL);
    assert_int_equal(result.steps, 1);
    assert_int_equal(result.scored_tokens, served.tokens);
    assert_true(fabs(result.loss - served.loss) < 1e-3);
    free(result.bytes);
    close_bench(&bench);
}

static void a_few_steps_teach_the_model_and_serving_shows_it(void **state)
{
    (void)state;
    struct bench bench;
    open_bench(&bench, __func__);
    struct sora_train_result result = train(&bench, 8.0);
    sora_adapter *adapter;
    struct sora_error err;
    assert_int_equal(sora_adapter_parse(result.bytes, result.byte_count,
                                        &sora_model_get_info(bench.model)->base, &adapter, &err),
                     SORA_OK);
    const double before = evaluate(&bench, NULL).loss;
    const double after = evaluate(&bench, sora_adapter_get_lora(adapter)).loss;
    assert_true(after < 0.5 * before);
    sora_adapter_destroy(adapter);
    free(result.bytes);
    close_bench(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_loss_is_what_serving_gives),
        cmocka_unit_test(a_few_steps_teach_the_model_and_serving_shows_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
