// SPDX-License-Identifier: Apache-2.0
// The plan of a training run, see batches.h.
#include "train/batches.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "sora/limits.h"

// Examples of one stage: whole epochs, then a part of one.
static int64_t stage_visits(double epochs, int32_t example_count)
{
    const double visits = ceil(epochs * (double)example_count - 1e-9);
    return visits < 1.0 ? 1 : (int64_t)visits;
}

static void shuffle_stages(struct batches *batches, int64_t visits, int32_t stage_count,
                           int32_t *one_epoch, uint64_t seed)
{
    const int32_t example_count = batches->dataset->example_count;
    struct rng rng;
    rng_seed(&rng, seed);
    for (int64_t at = 0; at < visits * stage_count;) {
        const int64_t stage_end = (at / visits + 1) * visits;
        for (int32_t i = 0; i < example_count; i++)
            one_epoch[i] = i;
        rng_shuffle(&rng, one_epoch, example_count);
        const int64_t left = stage_end - at;
        const int64_t count = left < example_count ? left : example_count;
        memcpy(batches->order + at, one_epoch, (size_t)count * sizeof(int32_t));
        at += count;
    }
}

// Cuts order[first .. end), one epoch or the rest of a stage, into steps.
static void pack(struct batches *batches, int64_t first, int64_t end, int32_t stage,
                 int32_t batch_tokens)
{
    struct batches_step step = {.first = first, .stage = stage};
    int64_t tokens = 0;
    for (int64_t at = first; at < end; at++) {
        const int32_t count = batches->dataset->examples[batches->order[at]].token_count;
        if (step.count > 0 && tokens + count > batch_tokens) {
            batches->steps[batches->step_count++] = step;
            step = (struct batches_step){.first = at, .stage = stage};
            tokens = 0;
        }
        step.count++;
        tokens += count;
        if (tokens > batches->tokens_max)
            batches->tokens_max = (int32_t)tokens;
    }
    step.ends_epoch = true;
    batches->steps[batches->step_count++] = step;
}

static void plan_steps(struct batches *batches, int64_t visits, int32_t stage_count,
                       int32_t batch_tokens)
{
    const int64_t example_count = batches->dataset->example_count;
    for (int32_t stage = 0; stage < stage_count; stage++) {
        const int64_t stage_end = (stage + 1) * visits;
        for (int64_t at = stage * visits; at < stage_end; at += example_count)
            pack(batches, at, at + example_count < stage_end ? at + example_count : stage_end,
                 stage, batch_tokens);
        batches->steps[batches->step_count - 1].ends_stage = true;
    }
}

sora_status batches_init(struct batches *batches, const struct dataset *dataset,
                         const struct sora_train_options *options, struct sora_error *err)
{
    *batches = (struct batches){.dataset = dataset};
    if (options->epochs * dataset->example_count * options->xi_count > SORA_TRAIN_VISITS_MAX)
        return sora_fail(
            err, SORA_LIMIT, "%g epochs of %d examples in %d stages, limit %d examples",
            options->epochs, dataset->example_count, options->xi_count, SORA_TRAIN_VISITS_MAX);
    const int64_t visits = stage_visits(options->epochs, dataset->example_count);
    const int64_t total = visits * options->xi_count;
    int32_t *one_epoch = calloc((size_t)dataset->example_count, sizeof(int32_t));
    batches->order = calloc((size_t)total, sizeof(int32_t));
    batches->steps = calloc((size_t)total, sizeof(*batches->steps)); // at most one each
    if (one_epoch != NULL && batches->order != NULL && batches->steps != NULL) {
        shuffle_stages(batches, visits, options->xi_count, one_epoch, options->seed);
        plan_steps(batches, visits, options->xi_count, options->batch_tokens);
        const size_t n = (size_t)batches->tokens_max;
        batches->tokens = calloc(n, sizeof(int32_t));
        batches->scored = calloc(n, sizeof(int32_t));
        batches->starts = calloc(n + 1, sizeof(int32_t));
    }
    free(one_epoch);
    if (batches->tokens != NULL && batches->scored != NULL && batches->starts != NULL)
        return SORA_OK;
    batches_deinit(batches);
    return sora_fail(err, SORA_NO_MEMORY, "no memory to plan %lld examples", (long long)total);
}

void batches_deinit(struct batches *batches)
{
    free(batches->order);
    free(batches->steps);
    free(batches->tokens);
    free(batches->starts);
    free(batches->scored);
    *batches = (struct batches){0};
}

struct train_batch batches_get(struct batches *batches, int64_t step)
{
    const struct dataset *dataset = batches->dataset;
    const struct batches_step *plan = &batches->steps[step];
    struct train_batch batch = {.tokens = batches->tokens,
                                .starts = batches->starts,
                                .scored = batches->scored,
                                .sequence_count = plan->count};
    for (int32_t i = 0; i < plan->count; i++) {
        const struct dataset_example *example = &dataset->examples[batches->order[plan->first + i]];
        batches->starts[i] = batch.token_count;
        memcpy(batches->tokens + batch.token_count, dataset->tokens + example->first,
               (size_t)example->token_count * sizeof(int32_t));
        for (int32_t t = 0; t < example->token_count; t++)
            if (dataset->scored[example->first + t])
                batches->scored[batch.scored_count++] = batch.token_count + t;
        batch.token_count += example->token_count;
    }
    batches->starts[plan->count] = batch.token_count;
    return batch;
}
