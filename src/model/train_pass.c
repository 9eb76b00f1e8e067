// SPDX-License-Identifier: Apache-2.0
// A training pass: its memory, the check of a batch, and the order of its halves. See
// train_pass.h; one thread at a time per pass.
#include "model/train_pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/cpu.h"
#include "base/log.h"
#include "kernel/attention_train.h"
#include "kernel/frozen_linear.h"
#include "kernel/lora_train.h"
#include "kernel/sgemm.h"
#include "model/train_activations.h"

// Bytes of logits held at once. A chunk of scored tokens costs one unpacking of the output matrix
// in each direction, so it should be no smaller than sgemm likes; 64 MB is 340 rows of 49 k words.
enum { LOGIT_BYTES_MAX = 64 << 20, LOGIT_ROWS_MIN = 16, LOGIT_ROWS_MAX = 256 };

const struct train_module *train_pass_module(const struct train_pass *pass, int32_t layer,
                                             enum sora_proj proj)
{
    return &pass->modules[layer * SORA_PROJ_COUNT + (int32_t)proj];
}

bool train_pass_adapts(const struct train_pass *pass, int32_t layer, enum sora_proj first,
                       enum sora_proj last)
{
    for (int32_t proj = (int32_t)first; proj <= (int32_t)last; proj++)
        if (train_pass_module(pass, layer, (enum sora_proj)proj)->rank > 0)
            return true;
    return false;
}

uint64_t train_pass_dropout_seed(const struct train_pass *pass, int32_t layer, enum sora_proj proj)
{
    const uint64_t place = (uint64_t)(layer * SORA_PROJ_COUNT + (int32_t)proj + 1);
    return pass->seed ^ (place * 0xd1342543de82ef95u);
}

static bool take(struct train_pass *pass, size_t rows, size_t width, float **out)
{
    size_t count;
    if (!checked_mul(rows, width, &count))
        return false;
    *out = arena_alloc(&pass->arena, count > 0 ? count : 1, sizeof(float));
    return *out != NULL;
}

static bool take_layer(struct train_pass *pass, struct train_layer *layer)
{
    const struct sora_base *base = &pass->model->info.base;
    const size_t n = (size_t)pass->tokens_max;
    const size_t e = (size_t)base->hidden, f = (size_t)base->intermediate;
    const size_t q = (size_t)base->head_count * (size_t)base->head_dim;
    const size_t k = (size_t)base->kv_head_count * (size_t)base->head_dim;
    bool ok = take(pass, n, e, &layer->x_in) && take(pass, n, q, &layer->q) &&
              take(pass, n, k, &layer->k) && take(pass, n, k, &layer->v) &&
              take(pass, n, q, &layer->attention) && take(pass, n, e, &layer->x_mid) &&
              take(pass, n, f, &layer->gate) && take(pass, n, f, &layer->up);
    for (int32_t proj = 0; ok && proj < SORA_PROJ_COUNT; proj++)
        ok = take(pass, n, (size_t)pass->rank_max, &layer->t[proj]);
    return ok;
}

static bool take_scratch(struct train_pass *pass)
{
    const struct sora_base *base = &pass->model->info.base;
    const size_t n = (size_t)pass->tokens_max;
    const size_t e = (size_t)base->hidden, f = (size_t)base->intermediate;
    const size_t q = (size_t)base->head_count * (size_t)base->head_dim;
    const size_t k = (size_t)base->kv_head_count * (size_t)base->head_dim;
    const size_t widest = e > f ? (e > q ? e : q) : (f > q ? f : q);
    return take(pass, n, e, &pass->x_out) && take(pass, n, e, &pass->normed) &&
           take(pass, n, q, &pass->q_rot) && take(pass, n, k, &pass->k_rot) &&
           take(pass, n, f, &pass->mlp) && take(pass, n, e, &pass->branch) &&
           take(pass, n, 2 * widest, &pass->dropped) && take(pass, n, e, &pass->dx) &&
           take(pass, n, e, &pass->dnormed) && take(pass, n, q, &pass->dattention) &&
           take(pass, n, q, &pass->dq) && take(pass, n, k, &pass->dk) &&
           take(pass, n, k, &pass->dv) && take(pass, n, f, &pass->dmlp) &&
           take(pass, n, f, &pass->dgate) && take(pass, n, f, &pass->dup) &&
           take(pass, n, (size_t)base->head_dim, &pass->rope);
}

static bool take_head(struct train_pass *pass)
{
    const struct sora_base *base = &pass->model->info.base;
    const size_t rows = (size_t)pass->logit_rows_max, e = (size_t)base->hidden;
    pass->head_targets = arena_alloc(&pass->arena, rows, sizeof(int32_t));
    pass->head_losses = arena_alloc(&pass->arena, rows, sizeof(double));
    pass->positions = arena_alloc(&pass->arena, (size_t)pass->tokens_max, sizeof(int32_t));
    return pass->head_targets != NULL && pass->head_losses != NULL && pass->positions != NULL &&
           take(pass, rows, (size_t)base->vocab_size, &pass->logits) &&
           take(pass, rows, e, &pass->head_x) && take(pass, rows, e, &pass->head_normed) &&
           take(pass, rows, e, &pass->head_dx);
}

static bool take_kernel_scratch(struct train_pass *pass)
{
    const struct weights *weights = &pass->model->weights;
    size_t frozen = frozen_linear_scratch_count(weights->output.d_out, weights->output.d_in);
    for (int32_t layer = 0; layer < weights->layer_count; layer++) {
        for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++) {
            const struct weight *weight = &weights->layers[layer].projections[proj];
            const size_t count = frozen_linear_scratch_count(weight->d_out, weight->d_in);
            frozen = count > frozen ? count : frozen;
        }
    }
    return take(pass, 1, frozen, &pass->frozen_scratch) &&
           take(pass, 1, lora_train_scratch_count(pass->tokens_max, pass->rank_max),
                &pass->lora_scratch) &&
           take(pass, 1, attention_train_scratch_count(pass->tokens_max, pool_threads(pass->pool)),
                &pass->attention_scratch);
}

static bool take_memory(struct train_pass *pass)
{
    const int32_t layer_count = pass->model->weights.layer_count;
    pass->layers = arena_alloc(&pass->arena, (size_t)layer_count, sizeof(*pass->layers));
    bool ok = pass->layers != NULL;
    for (int32_t layer = 0; ok && layer < layer_count; layer++)
        ok = take_layer(pass, &pass->layers[layer]);
    return ok && take_scratch(pass) && take_head(pass) && take_kernel_scratch(pass);
}

static int32_t logit_rows_for(int32_t vocab_size, int32_t tokens_max)
{
    int32_t rows = LOGIT_BYTES_MAX / (vocab_size * (int32_t)sizeof(float));
    rows = rows < LOGIT_ROWS_MIN ? LOGIT_ROWS_MIN : rows;
    rows = rows > LOGIT_ROWS_MAX ? LOGIT_ROWS_MAX : rows;
    return rows < tokens_max ? rows : tokens_max;
}

sora_status train_pass_create(const struct sora_model *model, int32_t tokens_max, int32_t rank_max,
                              int32_t threads, struct train_pass **pass, struct sora_error *err)
{
    const struct sora_base *base = &model->info.base;
    if (tokens_max < 1 || tokens_max > SORA_CONTEXT_MAX)
        return sora_fail(err, SORA_LIMIT, "a batch of %d tokens is outside 1 to %d", tokens_max,
                         SORA_CONTEXT_MAX);
    if (rank_max < 1 || rank_max > SORA_TRAIN_RANK_MAX)
        return sora_fail(err, SORA_LIMIT, "rank %d is outside 1 to %d", rank_max,
                         SORA_TRAIN_RANK_MAX);
    struct train_pass *made = calloc(1, sizeof(*made));
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a training pass");
    made->model = model;
    made->tokens_max = tokens_max;
    made->rank_max = rank_max;
    made->logit_rows_max = logit_rows_for(base->vocab_size, tokens_max);
    made->attention_shape = (struct attention_shape){.head_count = base->head_count,
                                                     .kv_head_count = base->kv_head_count,
                                                     .head_dim = base->head_dim,
                                                     .window = model->config.sliding_window,
                                                     .scale = 1.0f / sqrtf((float)base->head_dim)};
    arena_init(&made->arena, SIZE_MAX);
    sora_status status = pool_create(threads > 0 ? threads : cpu_count(), &made->pool, err);
    if (status == SORA_OK && !take_memory(made))
        status = sora_fail(err, SORA_NO_MEMORY,
                           "no memory for the activations of %d tokens after %zu bytes; a smaller "
                           "batch needs less",
                           tokens_max, made->arena.bytes_used);
    if (status != SORA_OK) {
        train_pass_destroy(made);
        return status;
    }
    rope_table(model->inv_freq, base->head_dim, tokens_max, made->rope);
    if (!sgemm_uses_blas())
        log_warn("train_pass", "blas_is_wrong",
                 "detail=\"OpenBLAS gives wrong products on this CPU; plain loops are used, "
                 "training is many times slower\"");
    *pass = made;
    return SORA_OK;
}

void train_pass_destroy(struct train_pass *pass)
{
    if (pass == NULL)
        return;
    pool_destroy(pass->pool);
    arena_deinit(&pass->arena);
    free(pass);
}

struct pool *train_pass_pool(struct train_pass *pass)
{
    return pass->pool;
}

static sora_status check_sequences(struct train_pass *pass, const struct train_batch *batch,
                                   struct sora_error *err)
{
    if (batch->token_count < 1 || batch->token_count > pass->tokens_max)
        return sora_fail(err, SORA_LIMIT, "a batch of %d tokens is outside 1 to %d",
                         batch->token_count, pass->tokens_max);
    if (batch->starts[0] != 0 || batch->starts[batch->sequence_count] != batch->token_count)
        return sora_fail(err, SORA_MALFORMED, "the sequences do not cover the %d tokens",
                         batch->token_count);
    pass->length_max = 0;
    for (int32_t s = 0; s < batch->sequence_count; s++) {
        const int32_t length = batch->starts[s + 1] - batch->starts[s];
        if (length < 1)
            return sora_fail(err, SORA_MALFORMED, "sequence %d is empty", s);
        pass->length_max = length > pass->length_max ? length : pass->length_max;
        for (int32_t i = 0; i < length; i++)
            pass->positions[batch->starts[s] + i] = i;
    }
    return SORA_OK;
}

static sora_status check_tokens(const struct train_pass *pass, const struct train_batch *batch,
                                struct sora_error *err)
{
    const int32_t vocab = pass->model->info.base.vocab_size;
    for (int32_t i = 0; i < batch->token_count; i++)
        if (batch->tokens[i] < 0 || batch->tokens[i] >= vocab)
            return sora_fail(err, SORA_MISMATCH, "token %d at %d is outside the vocabulary of %d",
                             batch->tokens[i], i, vocab);
    if (batch->scored_count < 1)
        return sora_fail(err, SORA_MALFORMED, "no token of the batch is scored");
    for (int32_t i = 0; i < batch->scored_count; i++) {
        const int32_t at = batch->scored[i];
        if (at < 1 || at >= batch->token_count || (i > 0 && at <= batch->scored[i - 1]) ||
            pass->positions[at] == 0)
            return sora_fail(err, SORA_MALFORMED,
                             "scored token %d at %d is out of order or first of its sequence", i,
                             at);
    }
    return SORA_OK;
}

static sora_status check_modules(struct train_pass *pass, struct sora_error *err)
{
    const int32_t layer_count = pass->model->weights.layer_count;
    pass->layer_lowest = layer_count;
    for (int32_t layer = layer_count - 1; layer >= 0; layer--) {
        if (train_pass_adapts(pass, layer, SORA_PROJ_Q, SORA_PROJ_DOWN))
            pass->layer_lowest = layer;
        for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++) {
            const int32_t rank = train_pass_module(pass, layer, (enum sora_proj)proj)->rank;
            if (rank < 0 || rank > pass->rank_max)
                return sora_fail(err, SORA_LIMIT, "layer %d: rank %d is outside 0 to %d", layer,
                                 rank, pass->rank_max);
        }
    }
    return SORA_OK;
}

sora_status train_pass_run(struct train_pass *pass, const struct train_batch *batch,
                           const struct train_module *modules, float dropout, uint64_t seed,
                           double *loss, struct sora_error *err)
{
    ASSERT(dropout >= 0.0f && dropout < 1.0f);
    pass->batch = batch;
    pass->modules = modules;
    pass->dropout = dropout;
    pass->seed = seed;
    sora_status status = check_sequences(pass, batch, err);
    if (status == SORA_OK)
        status = check_tokens(pass, batch, err);
    if (status == SORA_OK)
        status = check_modules(pass, err);
    if (status != SORA_OK)
        return status;
    alloc_guard_enter();
    train_forward(pass);
    *loss = train_backward_head(pass);
    train_backward(pass);
    alloc_guard_leave();
    return SORA_OK;
}
