// SPDX-License-Identifier: Apache-2.0
// Whole SoRA runs against PyTorch's: every step's loss, gradient norm and zero gates, the first
// gradients and the final parameters. The reference numbers and the tolerances are described in
// tests/golden/README.md.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/safetensors.h"
#include "expect_close.h"
#include "golden.h"
#include "sora/adapter.h"
#include "train/schedule.h"
#include "train/trainer.h"

struct tensors {
    struct file_map map;
    struct safetensors *file;
};

static void open_tensors(const char *name, const char *file, struct tensors *tensors)
{
    char path[512];
    struct sora_error err;
    snprintf(path, sizeof(path), GOLDEN_DIR "/train/%s/%s", name, file);
    assert_int_equal(file_map_open(path, &tensors->map, &err), SORA_OK);
    assert_int_equal(safetensors_parse(tensors->map.data, tensors->map.bytes, &tensors->file, &err),
                     SORA_OK);
}

static void close_tensors(struct tensors *tensors)
{
    safetensors_destroy(tensors->file);
    file_map_close(&tensors->map);
}

// Visits A, B and g of every module: with what the file says, and where our number is.
static void for_each_tensor(const struct tensors *tensors, const struct sora_base *base,
                            struct params *params, bool gradients,
                            void (*visit)(const struct safetensors_tensor *theirs, float *ours,
                                          size_t count))
{
    for (int32_t layer = 0; layer < base->layer_count; layer++) {
        for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++) {
            const struct train_module *m = params_module(params, layer, (enum sora_proj)proj);
            const struct {
                char letter;
                float *value, *gradient;
                size_t count;
            } parts[] = {{'A', m->a, m->da, (size_t)(m->rank * base->d_in[proj])},
                         {'B', m->b, m->db, (size_t)(m->rank * base->d_out[proj])},
                         {'g', m->g, m->dg, (size_t)m->rank}};
            for (int32_t i = 0; i < 3; i++) {
                char name[128];
                snprintf(name, sizeof(name), "model.layers.%d.%s.%c", layer,
                         sora_proj_path((enum sora_proj)proj), parts[i].letter);
                const struct safetensors_tensor *theirs = safetensors_find(tensors->file, name);
                assert_non_null(theirs);
                assert_int_equal(theirs->bytes, parts[i].count * sizeof(float));
                visit(theirs, gradients ? parts[i].gradient : parts[i].value, parts[i].count);
            }
        }
    }
}

static void load_tensor(const struct safetensors_tensor *theirs, float *ours, size_t count)
{
    (void)count;
    struct sora_error err;
    assert_int_equal(safetensors_to_f32(theirs, ours, &err), SORA_OK);
}

static double tolerance; // of compare_tensor, times the tensor's largest number

static void compare_tensor(const struct safetensors_tensor *theirs, float *ours, size_t count)
{
    float *want = calloc(count, sizeof(float));
    assert_non_null(want);
    load_tensor(theirs, want, count);
    double max = 0.0;
    for (size_t i = 0; i < count; i++)
        max = fmax(max, fabs((double)want[i]));
    expect_close(theirs->name, ours, want, count, tolerance * max, 0.0);
    free(want);
}

struct golden_run {
    cJSON *json;
    sora_model *model;
    struct sora_train_options options;
    struct trainer *trainer;
    int64_t steps, warmup_steps;
    int32_t tokens[512], starts[64], scored[512];
};

static void open_run(const char *name, int32_t threads, struct golden_run *run)
{
    char path[512];
    struct sora_error err;
    memset(run, 0, sizeof(*run));
    snprintf(path, sizeof(path), GOLDEN_DIR "/train/%s/run.json", name);
    run->json = golden_json(path);
    snprintf(path, sizeof(path), GOLDEN_DIR "/train/%s/base", name);
    assert_int_equal(sora_model_open(path, &run->model, &err), SORA_OK);
    run->options = sora_train_options_defaults();
    run->options.rank = golden_member(run->json, "r")->valueint;
    run->options.alpha = golden_member(run->json, "alpha")->valuedouble;
    run->options.lr = golden_member(run->json, "lr")->valuedouble;
    run->options.gate_lr = golden_member(run->json, "gate_lr")->valuedouble;
    run->options.weight_decay = golden_member(run->json, "weight_decay")->valuedouble;
    run->options.clip = golden_member(run->json, "max_grad_norm")->valuedouble;
    run->options.lambda = golden_member(run->json, "lambda_l1")->valuedouble;
    run->options.threads = threads;
    run->steps = golden_member(run->json, "steps")->valueint;
    run->warmup_steps = golden_member(run->json, "warmup_steps")->valueint;
    assert_int_equal(trainer_create(run->model, &run->options, 512, &run->trainer, &err), SORA_OK);
    struct tensors init;
    open_tensors(name, "init.safetensors", &init);
    for_each_tensor(&init, &sora_model_get_info(run->model)->base, trainer_params(run->trainer),
                    false, load_tensor);
    close_tensors(&init);
}

static void close_run(struct golden_run *run)
{
    trainer_destroy(run->trainer);
    sora_model_close(run->model);
    cJSON_Delete(run->json);
}

static struct train_batch batch_of(struct golden_run *run, int64_t step)
{
    struct train_batch batch = {
        .tokens = run->tokens, .starts = run->starts, .scored = run->scored};
    const cJSON *sequences = cJSON_GetArrayItem(golden_member(run->json, "batches"), (int)step),
                *sequence;
    cJSON_ArrayForEach(sequence, sequences)
    {
        size_t count;
        int32_t *tokens = golden_ints(golden_member(sequence, "tokens"), &count);
        const int32_t from = golden_member(sequence, "loss_from")->valueint;
        memcpy(run->tokens + batch.token_count, tokens, count * sizeof(int32_t));
        for (int32_t i = from > 1 ? from : 1; i < (int32_t)count; i++)
            run->scored[batch.scored_count++] = batch.token_count + i;
        batch.token_count += (int32_t)count;
        run->starts[++batch.sequence_count] = batch.token_count;
        free(tokens);
    }
    return batch;
}

static void replay_first_gradients(const char *name)
{
    struct golden_run run;
    struct tensors grads;
    struct sora_error err;
    struct trainer_outcome outcome;
    open_run(name, 2, &run);
    open_tensors(name, "first_grads.safetensors", &grads);
    const struct train_batch batch = batch_of(&run, 0);
    assert_int_equal(trainer_gradients(run.trainer, &batch, &outcome, &err), SORA_OK);
    tolerance = 1e-4;
    for_each_tensor(&grads, &sora_model_get_info(run.model)->base, trainer_params(run.trainer),
                    true, compare_tensor);
    close_tensors(&grads);
    close_run(&run);
}

static void compare_step(const cJSON *log, const struct trainer_outcome *outcome, int64_t zeros)
{
    const double loss = golden_member(log, "cross_entropy")->valuedouble;
    const double gate_l1 = golden_member(log, "gate_l1_mean")->valuedouble;
    const double norm = golden_member(log, "grad_norm")->valuedouble;
    assert_true(fabs(outcome->cross_entropy - loss) < 2e-5);
    assert_true(fabs(outcome->gate_l1 - gate_l1) < 1e-6);
    assert_true(fabs(outcome->grad_norm / norm - 1.0) < 1e-5);
    assert_int_equal(zeros, golden_member(log, "zero_gates")->valueint);
}

static void replay_run(const char *name)
{
    struct golden_run run;
    struct tensors final;
    struct sora_error err;
    open_run(name, 2, &run);
    size_t xi_count;
    float *xi = golden_floats(golden_member(run.json, "xi"), &xi_count);
    struct params *params = trainer_params(run.trainer);
    for (int64_t step = 0; step < run.steps; step++) {
        const struct train_batch batch = batch_of(&run, step);
        struct trainer_outcome outcome;
        assert_int_equal(
            trainer_step(run.trainer, &batch, schedule_factor(step, run.steps, run.warmup_steps),
                         (double)xi[(size_t)step * xi_count / (size_t)run.steps], &outcome, &err),
            SORA_OK);
        compare_step(cJSON_GetArrayItem(golden_member(run.json, "log"), (int)step), &outcome,
                     params->gate_count - params_ranks_kept(params));
    }
    open_tensors(name, "final.safetensors", &final);
    tolerance = 1e-3;
    for_each_tensor(&final, &sora_model_get_info(run.model)->base, params, false, compare_tensor);
    close_tensors(&final);
    free(xi);
    close_run(&run);
}

static void the_first_gradients_of_a_llama_are_pytorchs(void **state)
{
    (void)state;
    replay_first_gradients("llama");
}

static void the_first_gradients_of_a_qwen3_are_pytorchs(void **state)
{
    (void)state;
    replay_first_gradients("qwen3");
}

static void a_run_on_a_llama_follows_pytorch_step_by_step(void **state)
{
    (void)state;
    replay_run("llama");
}

static void a_run_on_a_qwen3_follows_pytorch_step_by_step(void **state)
{
    (void)state;
    replay_run("qwen3");
}

// Some steps on a number of threads; returns all parameters.
static float *parameters_after_steps(int32_t threads, int64_t *count)
{
    struct golden_run run;
    struct sora_error err;
    open_run("qwen3", threads, &run);
    for (int64_t step = 0; step < 4; step++) {
        const struct train_batch batch = batch_of(&run, step);
        struct trainer_outcome outcome;
        assert_int_equal(trainer_step(run.trainer, &batch, 1.0, 1e-3, &outcome, &err), SORA_OK);
    }
    const struct params *params = trainer_params(run.trainer);
    *count = params->matrix_count + params->gate_count;
    float *copy = malloc((size_t)*count * sizeof(float));
    assert_non_null(copy);
    memcpy(copy, params->values, (size_t)*count * sizeof(float));
    close_run(&run);
    return copy;
}

static void the_number_of_threads_changes_no_bit_of_the_parameters(void **state)
{
    (void)state;
    int64_t count;
    float *one = parameters_after_steps(1, &count), *three = parameters_after_steps(3, &count);
    assert_memory_equal(one, three, (size_t)count * sizeof(float));
    free(one);
    free(three);
}

static void a_loss_that_is_not_finite_stops_before_the_update(void **state)
{
    (void)state;
    struct golden_run run;
    struct sora_error err;
    struct trainer_outcome outcome;
    open_run("llama", 1, &run);
    struct params *params = trainer_params(run.trainer);
    params->values[0] = NAN;
    params_module(params, 0, SORA_PROJ_Q)->b[0] = 1.0f;
    const float before = params->values[1];
    const struct train_batch batch = batch_of(&run, 0);
    assert_int_equal(trainer_step(run.trainer, &batch, 1.0, 0.1, &outcome, &err), SORA_LIMIT);
    assert_non_null(strstr(err.text, "step 1: loss"));
    assert_true(params->values[1] == before);
    close_run(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_gradients_of_a_llama_are_pytorchs),
        cmocka_unit_test(the_first_gradients_of_a_qwen3_are_pytorchs),
        cmocka_unit_test(a_run_on_a_llama_follows_pytorch_step_by_step),
        cmocka_unit_test(a_run_on_a_qwen3_follows_pytorch_step_by_step),
        cmocka_unit_test(the_number_of_threads_changes_no_bit_of_the_parameters),
        cmocka_unit_test(a_loss_that_is_not_finite_stops_before_the_update),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
