// SPDX-License-Identifier: Apache-2.0
// The plan of a training run, see batches.h.
#include "train/batches.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "sora/limits.h"
#include "train/dataset_line.h"
#include "train/train_group.h"

// Examples of one stage: whole epochs, then a part of one.
static int64_t stage_visits(double epochs, int32_t example_count)
{
    const double visits = ceil(epochs * (double)example_count - 1e-9);
    return visits < 1.0 ? 1 : (int64_t)visits;
}

static void shuffle_stages(struct batches *batches, int64_t visits, int32_t stage_count,
                           int32_t *one_epoch, uint64_t seed)
{
    const int32_t example_count = batches->data->example_count;
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

static bool add_step(struct batches *batches, const struct batches_step *step)
{
    if (!dataset_grow((void **)&batches->steps, sizeof(*step), batches->step_count, 1,
                      &batches->step_capacity))
        return false;
    batches->steps[batches->step_count++] = *step;
    return true;
}

// Cuts order[first .. end), one epoch or the rest of a stage, into steps; false: no memory.
static bool pack(struct batches *batches, int64_t first, int64_t end, int32_t stage,
                 int32_t batch_tokens)
{
    struct batches_step step = {.first = first, .stage = stage};
    int64_t tokens = 0;
    for (int64_t at = first; at < end; at++) {
        const int32_t count = batches->data->entries[batches->order[at]].token_count;
        if (step.count > 0 && tokens + count > batch_tokens) {
            if (!add_step(batches, &step))
                return false;
            step = (struct batches_step){.first = at, .stage = stage};
            tokens = 0;
        }
        step.count++;
        tokens += count;
        if (tokens > batches->tokens_max)
            batches->tokens_max = (int32_t)tokens;
    }
    step.ends_epoch = true;
    return add_step(batches, &step);
}

static bool plan_steps(struct batches *batches, int64_t visits, int32_t stage_count,
                       int32_t batch_tokens)
{
    const int64_t example_count = batches->data->example_count;
    for (int32_t stage = 0; stage < stage_count; stage++) {
        const int64_t stage_end = (stage + 1) * visits;
        for (int64_t at = stage * visits; at < stage_end; at += example_count)
            if (!pack(batches, at, at + example_count < stage_end ? at + example_count : stage_end,
                      stage, batch_tokens))
                return false;
        batches->steps[batches->step_count - 1].ends_stage = true;
    }
    return true;
}

sora_status batches_init(struct batches *batches, struct example_index *data,
                         const struct sora_train_options *options, struct sora_error *err)
{
    *batches = (struct batches){.data = data, .group = options->group};
    if (options->epochs * data->example_count * options->xi_count > SORA_TRAIN_VISITS_MAX)
        return sora_fail(
            err, SORA_LIMIT, "%g epochs of %d examples in %d stages, limit %d examples",
            options->epochs, data->example_count, options->xi_count, SORA_TRAIN_VISITS_MAX);
    const int64_t visits = stage_visits(options->epochs, data->example_count);
    const int64_t total = visits * options->xi_count;
    int32_t *one_epoch = calloc((size_t)data->example_count, sizeof(int32_t));
    batches->order = calloc((size_t)total, sizeof(int32_t));
    bool ok = one_epoch != NULL && batches->order != NULL;
    if (ok) {
        shuffle_stages(batches, visits, options->xi_count, one_epoch, options->seed);
        ok = plan_steps(batches, visits, options->xi_count, options->batch_tokens);
    }
    if (ok) {
        const size_t n = (size_t)batches->tokens_max;
        batches->tokens = calloc(n, sizeof(int32_t));
        batches->scored = calloc(n, sizeof(int32_t));
        batches->starts = calloc(n + 1, sizeof(int32_t));
        batches->costs = calloc(n, sizeof(int32_t)); // an example has a token at least
    }
    free(one_epoch);
    if (batches->tokens != NULL && batches->scored != NULL && batches->starts != NULL &&
        batches->costs != NULL)
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
    free(batches->costs);
    *batches = (struct batches){0};
}

sora_status batches_get(struct batches *batches, int64_t step, struct train_batch *batch,
                        struct sora_error *err)
{
    const struct batches_step *plan = &batches->steps[step];
    const int32_t *examples = batches->order + plan->first;
    int32_t first, count;
    for (int32_t i = 0; i < plan->count; i++)
        batches->costs[i] = batches->data->entries[examples[i]].token_count;
    train_group_share(batches->group, batches->costs, plan->count, &first, &count);
    const sora_status status = example_index_load(batches->data, examples + first, count, err);
    if (status != SORA_OK)
        return status;
    const struct dataset *window = &batches->data->window;
    *batch = (struct train_batch){.tokens = batches->tokens,
                                  .starts = batches->starts,
                                  .scored = batches->scored,
                                  .token_count = (int32_t)window->token_count,
                                  .sequence_count = count};
    // Examples lie one after another in the window, as they do in the batch.
    memcpy(batches->tokens, window->tokens, (size_t)window->token_count * sizeof(int32_t));
    for (int32_t i = 0; i < count; i++)
        batches->starts[i] = (int32_t)window->examples[i].first;
    batches->starts[count] = batch->token_count;
    for (int32_t t = 0; t < batch->token_count; t++)
        if (window->scored[t])
            batches->scored[batch->scored_count++] = t;
    return SORA_OK;
}
