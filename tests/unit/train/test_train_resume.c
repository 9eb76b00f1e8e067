// SPDX-License-Identifier: Apache-2.0
// Runs that last: a run that was stopped after any step, or in an evaluation, goes on to the same
// bytes; checkpoints of another run, damaged ones and ones in the way are refused by name; early
// stop, and ranks that leave the training between stages.
#include "train_fixture.h"

#include <stdio.h>

#include "sora/adapter.h"
#include "sora/train.h"
#include "train/run_state.h"
#include "train/train_checkpoint.h"
#include "train/trainer.h"

// Three stages of pruning with dropout, evaluated within the stages too: all that a checkpoint
// has to keep is in use. 3 stages x 2 epochs x 2 steps.
static struct sora_train_options full_options(void)
{
    struct sora_train_options options = sora_train_options_defaults();
    struct sora_error err;
    options.rank = 6;
    options.alpha = 12.0;
    options.lr = 1e-2;
    options.gate_lr = 1e-2;
    options.clip = 1.0;
    options.dropout = 0.1;
    options.epochs = 2.0;
    options.batch_tokens = 24;
    options.threads = 2;
    options.seed = 3;
    options.eval_steps = 3;
    options.patience = 5;
    assert_int_equal(sora_train_parse_xi("list:0.02,0.1,0.15", &options, &err), SORA_OK);
    return options;
}

struct watch {
    int64_t steps, evals, rungs, first_step;
    int64_t cancel_at_step;
    bool resumed, pending;
    int64_t resumed_step;
    atomic_bool cancel;
};

static void on_start(void *context, const struct sora_train_start *start)
{
    struct watch *watch = context;
    watch->resumed = start->resumed;
    watch->resumed_step = start->resumed_step;
    watch->pending = start->resumed_eval_pending;
}

static void on_step(void *context, const struct sora_train_progress *progress)
{
    struct watch *watch = context;
    if (watch->steps++ == 0)
        watch->first_step = progress->step;
    if (progress->step == watch->cancel_at_step)
        atomic_store(&watch->cancel, true);
}

static void on_eval(void *context, const struct sora_train_progress *progress,
                    const struct sora_eval_result *result)
{
    (void)progress;
    (void)result;
    ((struct watch *)context)->evals++;
}

static sora_status on_rung(void *context, const struct sora_train_rung *rung, const uint8_t *bytes,
                           size_t byte_count, struct sora_error *err)
{
    struct watch *watch = context;
    sora_adapter *adapter;
    assert_int_equal(sora_adapter_parse(bytes, byte_count, NULL, &adapter, err), SORA_OK);
    assert_int_equal(sora_adapter_get_info(adapter)->parameters, rung->parameters);
    sora_adapter_destroy(adapter);
    watch->rungs++;
    return SORA_OK;
}

static sora_status train(const struct sora_train_options *options, struct watch *watch,
                         struct sora_train_result *result, struct sora_error *err)
{
    const struct sora_train_hooks hooks = {.context = watch,
                                           .on_step = on_step,
                                           .on_eval = on_eval,
                                           .cancel = &watch->cancel,
                                           .on_start = on_start,
                                           .on_rung = on_rung};
    return sora_train_run(model, tokenizer, data_path, eval_path, options, &hooks, result, err);
}

// A folder for checkpoints that does not exist yet.
static const char *fresh_folder(char out[512])
{
    static int32_t count;
    snprintf(out, 512, "%s/run-%d", folder, count++);
    return out;
}

static void a_run_stopped_after_any_step_ends_in_the_same_bytes(void **state)
{
    (void)state;
    struct sora_train_options options = full_options();
    struct sora_train_result whole, resumed;
    struct sora_error err;
    char path[512];
    struct watch all = {0};
    if (train(&options, &all, &whole, &err) != SORA_OK)
        fail_msg("%s", err.text);
    assert_true(whole.steps >= 10 && whole.kept < 1.0 && whole.kept > 0.0);
    for (int64_t stop = 1; stop <= all.steps; stop++) {
        struct watch first = {.cancel_at_step = stop}, second = {0};
        options.checkpoint = fresh_folder(path);
        options.resume = false;
        options.threads = 2;
        const sora_status status = train(&options, &first, &resumed, &err);
        assert_int_equal(status, SORA_CANCELLED);
        assert_non_null(strstr(err.text, path));
        options.resume = true;
        options.threads = 1; // the number of threads decides nothing
        if (train(&options, &second, &resumed, &err) != SORA_OK)
            fail_msg("%s", err.text);
        assert_true(second.resumed);
        assert_int_equal(second.resumed_step, stop);
        assert_int_equal(first.steps + second.steps, all.steps);
        assert_int_equal(first.evals + second.evals, all.evals);
        assert_int_equal(resumed.steps, whole.steps);
        assert_int_equal(resumed.tokens, whole.tokens);
        assert_true(resumed.loss == whole.loss);
        assert_int_equal(resumed.byte_count, whole.byte_count);
        assert_memory_equal(resumed.bytes, whole.bytes, whole.byte_count);
        assert_int_equal(resumed.rung_count, 3);
        for (int32_t i = 0; i < 3; i++) {
            assert_int_equal(resumed.rungs[i].parameters, whole.rungs[i].parameters);
            assert_true(resumed.rungs[i].eval.loss == whole.rungs[i].eval.loss);
        }
        free(resumed.bytes);
    }
    free(whole.bytes);
}

static void a_steered_run_resumes_to_the_same_bytes(void **state)
{
    (void)state;
    struct sora_train_options options = full_options();
    struct sora_train_result whole, resumed;
    struct sora_error err;
    char path[512];
    struct watch all = {0}, first = {.cancel_at_step = 5}, second = {0};
    options.xi_count = 1;
    options.epochs = 5.0;
    options.target_params = 0.4;
    assert_int_equal(train(&options, &all, &whole, &err), SORA_OK);
    options.checkpoint = fresh_folder(path);
    assert_int_equal(train(&options, &first, &resumed, &err), SORA_CANCELLED);
    options.resume = true;
    assert_int_equal(train(&options, &second, &resumed, &err), SORA_OK);
    assert_int_equal(second.first_step, 6);
    assert_int_equal(resumed.byte_count, whole.byte_count);
    assert_memory_equal(resumed.bytes, whole.bytes, whole.byte_count);
    free(whole.bytes);
    free(resumed.bytes);
}

static void a_finished_run_resumes_to_its_result(void **state)
{
    (void)state;
    struct sora_train_options options = full_options();
    struct sora_train_result whole, again;
    struct sora_error err;
    char path[512];
    struct watch first = {0}, second = {0};
    options.checkpoint = fresh_folder(path);
    options.resume = true; // nothing there yet: from the start
    assert_int_equal(train(&options, &first, &whole, &err), SORA_OK);
    assert_false(first.resumed);
    assert_int_equal(first.rungs, 3);
    assert_int_equal(train(&options, &second, &again, &err), SORA_OK);
    assert_int_equal(second.steps, 0);
    assert_int_equal(second.rungs, 0);
    assert_int_equal(again.byte_count, whole.byte_count);
    assert_memory_equal(again.bytes, whole.bytes, whole.byte_count);
    free(whole.bytes);
    free(again.bytes);
}

static void expect_refused(const struct sora_train_options *options, sora_status want,
                           const char *named)
{
    struct sora_train_result result;
    struct sora_error err;
    struct watch watch = {0};
    assert_int_equal(train(options, &watch, &result, &err), want);
    if (strstr(err.text, named) == NULL)
        fail_msg("\"%s\" does not name \"%s\"", err.text, named);
    assert_int_equal(watch.steps, 0);
}

static void a_checkpoint_of_another_run_is_refused_by_name(void **state)
{
    (void)state;
    struct sora_train_options options = full_options(), other;
    struct sora_train_result result;
    struct sora_error err;
    char path[512];
    struct watch watch = {.cancel_at_step = 2};
    options.checkpoint = fresh_folder(path);
    assert_int_equal(train(&options, &watch, &result, &err), SORA_CANCELLED);
    expect_refused(&options, SORA_PRECONDITION, "holds the checkpoint");
    options.resume = true;
    other = options;
    other.lr = 2e-2;
    other.seed = 4;
    expect_refused(&other, SORA_MISMATCH, "lr was \"0.01");
    expect_refused(&other, SORA_MISMATCH, "seed was \"3\", is \"4\"");
    other = options;
    other.targets[SORA_PROJ_Q] = false;
    expect_refused(&other, SORA_MISMATCH, "targets was");
    char *kept = data_path;
    data_path = write_file(folder, "other.jsonl", "{\"prompt\":\"a\",\"completion\":\"b\"}\n");
    expect_refused(&options, SORA_MISMATCH, "data was");
    free(data_path);
    data_path = kept;
    sora_model *qwen = model;
    assert_int_equal(sora_model_open(GOLDEN_DIR "/train/llama/base", &model, &err), SORA_OK);
    expect_refused(&options, SORA_MISMATCH, "model was");
    sora_model_close(model);
    model = qwen;
    options.checkpoint = NULL;
    expect_refused(&options, SORA_MALFORMED, "folder");
}

static void a_damaged_checkpoint_is_refused(void **state)
{
    (void)state;
    struct sora_train_options options = full_options();
    struct sora_train_result result;
    struct sora_error err;
    char path[512], *bytes;
    size_t byte_count;
    struct watch watch = {.cancel_at_step = 2};
    options.checkpoint = fresh_folder(path);
    assert_int_equal(train(&options, &watch, &result, &err), SORA_CANCELLED);
    options.resume = true;
    char *file = file_join(path, "checkpoint.safetensors");
    assert_int_equal(file_read(file, 64 << 20, &bytes, &byte_count, &err), SORA_OK);
    bytes[byte_count - 7] ^= 1;
    assert_int_equal(file_write_atomic(file, bytes, byte_count, &err), SORA_OK);
    expect_refused(&options, SORA_MALFORMED, "damaged");
    assert_int_equal(file_write_atomic(file, bytes, byte_count / 2, &err), SORA_OK);
    expect_refused(&options, SORA_MALFORMED, "checkpoint.safetensors");
    assert_int_equal(file_write_atomic(file, "{}", 2, &err), SORA_OK);
    expect_refused(&options, SORA_MALFORMED, "checkpoint.safetensors");
    free(bytes);
    free(file);
}

static void half_written_checkpoints_are_removed(void **state)
{
    (void)state;
    char path[512];
    bool found = true;
    struct sora_error err;
    fresh_folder(path);
    assert_int_equal(file_make_folder(path, &err), SORA_OK);
    char *leftover = write_file(path, "checkpoint.safetensors.0123.tmp", "half");
    char *other = write_file(path, "notes.tmp", "mine");
    assert_int_equal(train_checkpoint_open(path, &found, &err), SORA_OK);
    assert_false(found);
    assert_false(file_exists(leftover));
    assert_true(file_exists(other));
    free(leftover);
    free(other);
}

static void patience_ends_a_stage_at_its_best(void **state)
{
    (void)state;
    struct sora_train_options options = full_options();
    struct sora_train_result result;
    struct sora_error err;
    struct watch watch = {0};
    options.xi_count = 1;
    options.xi[0] = 0.0;
    options.lr = 0.0; // nothing is learnt, so nothing gets better
    options.gate_lr = 0.0;
    options.lambda = 0.0;
    options.epochs = 20.0;
    options.eval_steps = 2;
    options.patience = 3;
    options.metric = SORA_METRIC_LOSS;
    assert_int_equal(train(&options, &watch, &result, &err), SORA_OK);
    assert_int_equal(watch.steps, 8); // the first evaluation is the best, three more are not
    assert_int_equal(watch.evals, 4);
    assert_int_equal(result.rungs[0].step, 2);
    assert_int_equal(result.rung_count, 1);
    free(result.bytes);
    options.metric = SORA_METRIC_MCC;
    options.patience = 0;
    options.eval_steps = 0;
    char *kept = eval_path;
    eval_path = write_file(folder, "text.jsonl", "{\"text\":\"no choices here\"}\n");
    assert_int_equal(train(&options, &watch, &result, &err), SORA_MISMATCH);
    assert_non_null(strstr(err.text, "mcc"));
    free(eval_path);
    eval_path = NULL;
    options.patience = 1;
    assert_int_equal(train(&options, &watch, &result, &err), SORA_MALFORMED);
    eval_path = kept;
}

static void cut_ranks_leave_the_numbers_of_the_others(void **state)
{
    (void)state;
    const struct sora_base *base = &sora_model_get_info(model)->base;
    struct sora_train_options options = full_options();
    struct params params;
    struct sora_error err;
    assert_int_equal(params_init(&params, base, options.targets, 6, 2.0, true, &err), SORA_OK);
    params_randomize(&params, base, 7);
    const int64_t count = params.matrix_count + params.gate_count;
    for (int64_t i = 0; i < count; i++) {
        params.moments1[i] = params.values[i] + 1.0f;
        params.moments2[i] = params.values[i] + 2.0f;
    }
    struct train_module *k = params_module(&params, 1, SORA_PROJ_K);
    struct train_module *up = params_module(&params, 0, SORA_PROJ_UP);
    const int32_t d_in = base->d_in[SORA_PROJ_K], d_out = base->d_out[SORA_PROJ_K];
    for (int32_t i = 0; i < 6 * d_out; i++)
        k->b[i] = (float)i;
    k->g[0] = k->g[3] = 0.0f;
    for (int32_t j = 0; j < 6; j++)
        up->g[j] = 0.0f;
    const float a_first = k->a[d_in], gate = k->g[4];
    const int64_t full = params.matrix_count;
    assert_int_equal(params_cut(&params, base, &err), SORA_OK);
    k = params_module(&params, 1, SORA_PROJ_K);
    assert_int_equal(k->rank, 4);
    assert_int_equal(params_module(&params, 0, SORA_PROJ_UP)->rank, 0);
    assert_true(k->a[0] == a_first && k->g[2] == gate);
    for (int32_t o = 0; o < d_out; o++) {
        const float kept[4] = {(float)(6 * o + 1), (float)(6 * o + 2), (float)(6 * o + 4),
                               (float)(6 * o + 5)};
        assert_memory_equal(k->b + 4 * o, kept, sizeof(kept));
    }
    assert_true(params.moments1[k->g - params.values + 2] == gate + 1.0f);
    assert_true(params.moments2[k->a - params.values] == a_first + 2.0f);
    assert_int_equal(params.matrix_count_full, full);
    assert_true(params.matrix_count < full);
    assert_int_equal(params_ranks(&params), params_ranks_kept(&params));
    int32_t ranks[SORA_LAYER_COUNT_MAX * SORA_PROJ_COUNT] = {0};
    ranks[SORA_PROJ_UP] = 1; // there are none left of layer 0's up
    assert_int_equal(params_resize(&params, base, ranks, &err), SORA_MALFORMED);
    params_deinit(&params);
}

static void stages_that_lose_all_ranks_go_on(void **state)
{
    (void)state;
    struct sora_train_options options = full_options();
    struct sora_train_result result;
    struct sora_error err;
    struct watch watch = {.cancel_at_step = 7};
    char path[512];
    options.patience = options.eval_steps = 0;
    assert_int_equal(sora_train_parse_xi("list:0,10,20", &options, &err), SORA_OK);
    options.checkpoint = fresh_folder(path);
    assert_int_equal(train(&options, &watch, &result, &err), SORA_CANCELLED);
    options.resume = true;
    watch = (struct watch){.cancel_at_step = 11};
    assert_int_equal(train(&options, &watch, &result, &err), SORA_CANCELLED);
    watch = (struct watch){0};
    if (train(&options, &watch, &result, &err) != SORA_OK)
        fail_msg("%s", err.text);
    assert_int_equal(result.parameters, 0);
    assert_int_equal(result.rungs[0].gates_kept, result.rungs[0].gates);
    free(result.bytes);
}

static void a_state_is_read_back_exactly(void **state)
{
    (void)state;
    struct run_state made = {.step = 12, .steps_done = 11, .has_best = true, .rung_count = 1};
    struct run_state read;
    struct sora_error err;
    char *json;
    made.epoch_loss = 1.0 / 3.0;
    made.rungs[0] = (struct sora_train_rung){.loss = 0.1, .has_eval = true};
    made.rungs[0].eval.mcc = __builtin_nan("");
    assert_int_equal(run_state_encode(&made, &json, &err), SORA_OK);
    assert_int_equal(run_state_decode(json, strlen(json), &read, &err), SORA_OK);
    assert_true(read.epoch_loss == made.epoch_loss && read.rungs[0].loss == 0.1);
    assert_true(read.rungs[0].eval.mcc != read.rungs[0].eval.mcc);
    assert_int_equal(read.step, 12);
    char *step = strstr(json, "\"step\"");
    memcpy(step, "\"stop\"", 6);
    assert_int_equal(run_state_decode(json, strlen(json), &read, &err), SORA_MALFORMED);
    assert_non_null(strstr(err.text, "\"step\" is missing"));
    free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_stopped_after_any_step_ends_in_the_same_bytes),
        cmocka_unit_test(a_steered_run_resumes_to_the_same_bytes),
        cmocka_unit_test(a_finished_run_resumes_to_its_result),
        cmocka_unit_test(a_checkpoint_of_another_run_is_refused_by_name),
        cmocka_unit_test(a_damaged_checkpoint_is_refused),
        cmocka_unit_test(half_written_checkpoints_are_removed),
        cmocka_unit_test(patience_ends_a_stage_at_its_best),
        cmocka_unit_test(cut_ranks_leave_the_numbers_of_the_others),
        cmocka_unit_test(stages_that_lose_all_ranks_go_on),
        cmocka_unit_test(a_state_is_read_back_exactly),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
