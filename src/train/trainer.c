// SPDX-License-Identifier: Apache-2.0
// A training step, see trainer.h.
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "train/adamw.h"
#include "train/budget.h"
#include "train/proximal.h"
#include "train/train_group.h"

struct trainer {
    struct sora_train_options options;
    struct params params;
    const struct sora_base *base;
    struct train_pass *pass;
    struct budget budget;
    int64_t steered_steps; // 0: xi is as given
    int64_t steps_done;
};

sora_status trainer_create(const sora_model *model, const struct sora_train_options *options,
                           int32_t tokens_max, struct trainer **trainer, struct sora_error *err)
{
    struct trainer *made = calloc(1, sizeof(*made));
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a trainer");
    made->options = *options;
    const struct sora_base *base = &model->info.base;
    made->base = base;
    sora_status status =
        params_init(&made->params, base, options->targets, options->rank,
                    options->alpha / options->rank, options->method == SORA_METHOD_SORA, err);
    if (status == SORA_OK)
        status = train_pass_create(model,
                                   &(struct train_pass_options){.tokens_max = tokens_max,
                                                                .rank_max = options->rank,
                                                                .threads = options->threads,
                                                                .compute = options->compute,
                                                                .recompute = options->recompute},
                                   &made->pass, err);
    if (status != SORA_OK) {
        trainer_destroy(made);
        return status;
    }
    params_randomize(&made->params, base, options->seed);
    *trainer = made;
    return SORA_OK;
}

void trainer_destroy(struct trainer *trainer)
{
    if (trainer == NULL)
        return;
    train_pass_destroy(trainer->pass);
    params_deinit(&trainer->params);
    free(trainer);
}

struct params *trainer_params(struct trainer *trainer)
{
    return &trainer->params;
}

int64_t trainer_steps_done(const struct trainer *trainer)
{
    return trainer->steps_done;
}

void trainer_set_steps_done(struct trainer *trainer, int64_t steps)
{
    trainer->steps_done = steps;
}

sora_status trainer_cut(struct trainer *trainer, struct sora_error *err)
{
    ASSERT(trainer->steered_steps == 0); // the budget's memory lies with the parameters
    return params_cut(&trainer->params, trainer->base, err);
}

sora_status trainer_steer(struct trainer *trainer, int64_t parameters_end, int64_t steps,
                          struct sora_error *err)
{
    const sora_status status =
        budget_init(&trainer->budget, &trainer->params, trainer->base, parameters_end, err);
    if (status == SORA_OK)
        trainer->steered_steps = steps;
    return status;
}

// xi for the gates as they are after the optimizer's step.
static double steer_xi(struct trainer *trainer, double xi)
{
    if (trainer->steered_steps == 0)
        return xi;
    const int64_t allowed =
        budget_allowed(&trainer->budget, trainer->steps_done - 1, trainer->steered_steps);
    const double needed = budget_xi(&trainer->budget, &trainer->params, trainer->base, allowed,
                                    trainer->options.threshold);
    return needed > xi ? needed : xi;
}

// Adds the gradient of lambda * mean |g| and returns the mean. A gate at zero gets none.
static double add_gate_penalty(struct params *params, double lambda)
{
    const int64_t count = params->gate_count;
    const float *gates = params->values + params->matrix_count;
    float *grads = params->grads + params->matrix_count;
    // The mean is over all gates of the start: those that were cut are zeros of it.
    const double all = (double)params->rank_count_full;
    const float pull = (float)(lambda / all);
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += fabs((double)gates[i]);
        if (gates[i] != 0.0f)
            grads[i] += gates[i] > 0.0f ? pull : -pull;
    }
    return sum / all;
}

// Dropout draws anew at every step, and in every process of a group.
static uint64_t dropout_seed(const struct trainer *trainer)
{
    const struct sora_train_group *group = trainer->options.group;
    const uint64_t process = group != NULL ? (uint64_t)group->rank : 0;
    const uint64_t step = (uint64_t)trainer->steps_done + 1;
    return trainer->options.seed ^ (step * 0x9e3779b97f4a7c15u) ^ (process * 0xd1342543de82ef95u);
}

// Gradients of the mean cross-entropy over the batch's own scored tokens.
static sora_status own_gradients(struct trainer *trainer, const struct train_batch *batch,
                                 struct trainer_outcome *outcome, struct sora_error *err)
{
    struct params *params = &trainer->params;
    const int64_t count = params->matrix_count + params->gate_count;
    memset(params->grads, 0, (size_t)count * sizeof(float));
    *outcome =
        (struct trainer_outcome){.tokens = batch->token_count, .scored = batch->scored_count};
    if (batch->token_count == 0) // of a group, more processes than examples
        return SORA_OK;
    return train_pass_run(trainer->pass, batch, params->modules, (float)trainer->options.dropout,
                          dropout_seed(trainer), &outcome->cross_entropy, err);
}

// From means over each process's share to means over all of the step's scored tokens.
static void add_up(struct trainer *trainer, struct trainer_outcome *outcome)
{
    const struct sora_train_group *group = trainer->options.group;
    const struct params *params = &trainer->params;
    const int64_t count = params->matrix_count + params->gate_count;
    double sums[] = {(double)outcome->tokens, (double)outcome->scored,
                     outcome->cross_entropy * (double)outcome->scored};
    group->sum_doubles(group->context, sums, 3);
    const float weight = (float)((double)outcome->scored / sums[1]);
    for (int64_t i = 0; i < count; i++)
        params->grads[i] *= weight;
    group->sum(group->context, params->grads, (size_t)count);
    outcome->tokens = (int64_t)sums[0];
    outcome->scored = (int64_t)sums[1];
    outcome->cross_entropy = sums[2] / sums[1];
}

sora_status trainer_gradients(struct trainer *trainer, const struct train_batch *batch,
                              struct trainer_outcome *outcome, struct sora_error *err)
{
    struct params *params = &trainer->params;
    const int64_t count = params->matrix_count + params->gate_count;
    const sora_status status =
        train_group_agree(trainer->options.group, own_gradients(trainer, batch, outcome, err), err);
    if (status != SORA_OK)
        return status;
    if (trainer->options.group != NULL)
        add_up(trainer, outcome);
    outcome->gate_l1 = add_gate_penalty(params, trainer->options.lambda);
    outcome->grad_norm = sqrt(adamw_square_sum(params->grads, count));
    return SORA_OK;
}

// torch.nn.utils.clip_grad_norm_: at most 1. A clip of 0 is none.
static double clip_scale(double clip, double norm)
{
    const double scale = clip / (norm + 1e-6);
    return clip > 0.0 && scale < 1.0 ? scale : 1.0;
}

sora_status trainer_step(struct trainer *trainer, const struct train_batch *batch, double lr_factor,
                         double xi, struct trainer_outcome *outcome, struct sora_error *err)
{
    struct params *params = &trainer->params;
    const struct sora_train_options *options = &trainer->options;
    const sora_status status = trainer_gradients(trainer, batch, outcome, err);
    if (status != SORA_OK)
        return status;
    if (!isfinite(outcome->cross_entropy) || !isfinite(outcome->grad_norm))
        return sora_fail(err, SORA_LIMIT,
                         "step %lld: loss %g with gradient norm %g is not finite; a smaller "
                         "learning rate may help",
                         (long long)trainer->steps_done + 1, outcome->cross_entropy,
                         outcome->grad_norm);
    trainer->steps_done++;
    struct adamw_step step = adamw_step_defaults();
    step.step = trainer->steps_done;
    step.grad_scale = clip_scale(options->clip, outcome->grad_norm);
    step.lr = options->lr * lr_factor;
    step.weight_decay = options->weight_decay;
    struct pool *pool = train_pass_pool(trainer->pass);
    adamw_update(pool, &step, params->grads, params->matrix_count, params->values, params->moments1,
                 params->moments2);
    const int64_t gates = params->matrix_count;
    step.lr = options->gate_lr * lr_factor;
    step.weight_decay = 0.0;
    adamw_update(pool, &step, params->grads + gates, params->gate_count, params->values + gates,
                 params->moments1 + gates, params->moments2 + gates);
    outcome->xi = steer_xi(trainer, xi);
    proximal_step(params->values + gates, params->gate_count, outcome->xi, options->threshold);
    return SORA_OK;
}
