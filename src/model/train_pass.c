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
#include "kernel/matmul.h"
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

struct lora_train train_pass_lora(const struct train_pass *pass, int32_t layer, enum sora_proj proj)
{
    const struct train_module *module = train_pass_module(pass, layer, proj);
    const struct weight *weight = &pass->model->weights.layers[layer].projections[proj];
    return (struct lora_train){.rank = module->rank,
                               .d_in = weight->d_in,
                               .d_out = weight->d_out,
                               .scale = module->scale,
                               .a = module->a,
                               .b = module->b,
                               .g = module->g,
                               .da = module->da,
                               .db = module->db,
                               .dg = module->dg};
}

struct train_queries train_pass_queries(const struct train_pass *pass, int32_t layer)
{
    if (layer == pass->model->weights.layer_count - 1)
        return (struct train_queries){pass->batch->scored_count, pass->tail_rows, pass->tail_starts,
                                      pass->tail_positions};
    return (struct train_queries){pass->batch->token_count, NULL, pass->batch->starts,
                                  pass->positions};
}

struct attention_train train_pass_attention(const struct train_pass *pass, int32_t layer)
{
    const struct train_queries queries = train_pass_queries(pass, layer);
    return (struct attention_train){.shape = &pass->attention_shape,
                                    .starts = pass->batch->starts,
                                    .query_starts = queries.starts,
                                    .positions = queries.positions,
                                    .sequence_count = pass->batch->sequence_count,
                                    .length_max = pass->length_max,
                                    .q = pass->q_rot,
                                    .k = pass->k_rot,
                                    .v = pass->layers[layer].v,
                                    .scratch = pass->attention_scratch};
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
    bool ok = take(pass, n, q, &layer->q) && take(pass, n, k, &layer->k) &&
              take(pass, n, k, &layer->v) && take(pass, n, q, &layer->attention) &&
              take(pass, n, e, &layer->x_mid) && take(pass, n, f, &layer->gate) &&
              take(pass, n, f, &layer->up);
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
           take(pass, n, e, &pass->gathered) && take(pass, n, 2 * widest, &pass->dropped) &&
           take(pass, n, e, &pass->dx) && take(pass, n, e, &pass->dnormed) &&
           take(pass, n, q, &pass->dattention) && take(pass, n, q, &pass->dq) &&
           take(pass, n, k, &pass->dk) && take(pass, n, k, &pass->dv) &&
           take(pass, n, f, &pass->dmlp) && take(pass, n, f, &pass->dgate) &&
           take(pass, n, f, &pass->dup) && take(pass, n, (size_t)base->head_dim, &pass->rope);
}

static bool take_head(struct train_pass *pass)
{
    const struct sora_base *base = &pass->model->info.base;
    const size_t rows = (size_t)pass->logit_rows_max, e = (size_t)base->hidden;
    pass->head_targets = arena_alloc(&pass->arena, rows, sizeof(int32_t));
    pass->head_losses = arena_alloc(&pass->arena, rows, sizeof(double));
    return pass->head_targets != NULL && pass->head_losses != NULL &&
           take(pass, rows, (size_t)base->vocab_size, &pass->logits) &&
           take(pass, rows, e, &pass->head_normed);
}

static bool take_places(struct train_pass *pass)
{
    int32_t **const arrays[] = {&pass->positions, &pass->tail_rows, &pass->tail_positions,
                                &pass->tail_starts};
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof arrays / sizeof arrays[0]; i++) {
        *arrays[i] = arena_alloc(&pass->arena, (size_t)pass->tokens_max + 1, sizeof(int32_t));
        ok = *arrays[i] != NULL;
    }
    return ok;
}

static int32_t widest_input(const struct sora_base *base)
{
    int32_t widest = base->hidden;
    for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++)
        widest = base->d_in[proj] > widest ? base->d_in[proj] : widest;
    return widest;
}

static bool take_int8_scratch(struct train_pass *pass)
{
    const int32_t widest = widest_input(&pass->model->info.base);
    const size_t bytes = row_quant_bytes(pass->tokens_max, widest);
    pass->quant_memory = arena_alloc(&pass->arena, bytes, 1);
    return pass->quant_memory != NULL &&
           take(pass, 1, matmul_scratch_count(widest, pool_threads(pass->pool)),
                &pass->matmul_scratch);
}

static bool take_kernel_scratch(struct train_pass *pass)
{
    const int32_t threads = pool_threads(pass->pool);
    for (int32_t i = 0; i < FROZEN_PARTS_MAX; i++)
        if (!take(pass, (size_t)pass->tokens_max, (size_t)pass->rank_max, &pass->side[i]))
            return false;
    return take(pass, 1, frozen_linear_scratch_count(threads), &pass->frozen_scratch) &&
           take(pass, 1, lora_train_scratch_count(pass->tokens_max, pass->rank_max),
                &pass->lora_scratch) &&
           take(pass, 1, attention_train_scratch_count(pass->tokens_max, threads),
                &pass->attention_scratch) &&
           (pass->compute != SORA_COMPUTE_INT8 || take_int8_scratch(pass));
}

static bool take_memory(struct train_pass *pass)
{
    const int32_t layer_count = pass->model->weights.layer_count;
    const size_t n = (size_t)pass->tokens_max, e = (size_t)pass->model->info.base.hidden;
    pass->layers = arena_alloc(&pass->arena, (size_t)layer_count, sizeof(*pass->layers));
    bool ok = pass->layers != NULL;
    for (int32_t layer = 0; ok && layer < layer_count; layer++) {
        struct train_layer *made = &pass->layers[layer];
        if (layer > 0 && pass->recompute) {
            *made = pass->layers[0];
            // The one product that is not repeated is down_proj's.
            ok = take(pass, n, (size_t)pass->rank_max, &made->t[SORA_PROJ_DOWN]);
        } else {
            ok = take_layer(pass, made);
        }
        ok = ok && take(pass, n, e, &made->x_in);
    }
    return ok && take_scratch(pass) && take_head(pass) && take_places(pass) &&
           take_kernel_scratch(pass);
}

static int32_t logit_rows_for(int32_t vocab_size, int32_t tokens_max)
{
    int32_t rows = LOGIT_BYTES_MAX / (vocab_size * (int32_t)sizeof(float));
    rows = rows < LOGIT_ROWS_MIN ? LOGIT_ROWS_MIN : rows;
    rows = rows > LOGIT_ROWS_MAX ? LOGIT_ROWS_MAX : rows;
    return rows < tokens_max ? rows : tokens_max;
}

sora_status train_pass_create(const struct sora_model *model,
                              const struct train_pass_options *options, struct train_pass **pass,
                              struct sora_error *err)
{
    const struct sora_base *base = &model->info.base;
    const int32_t tokens_max = options->tokens_max, rank_max = options->rank_max;
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
    made->compute = options->compute;
    made->recompute = options->recompute;
    made->logit_rows_max = logit_rows_for(base->vocab_size, tokens_max);
    made->attention_shape = (struct attention_shape){.head_count = base->head_count,
                                                     .kv_head_count = base->kv_head_count,
                                                     .head_dim = base->head_dim,
                                                     .window = model->config.sliding_window,
                                                     .scale = 1.0f / sqrtf((float)base->head_dim)};
    arena_init(&made->arena, SIZE_MAX);
    sora_status status =
        pool_create(options->threads > 0 ? options->threads : cpu_count(), &made->pool, err);
    if (status == SORA_OK && !take_memory(made))
        status = sora_fail(err, SORA_NO_MEMORY,
                           "no memory for the activations of %d tokens after %zu bytes; a smaller "
                           "batch or --recompute needs less",
                           tokens_max, made->arena.bytes_used);
    if (status != SORA_OK) {
        train_pass_destroy(made);
        return status;
    }
    rope_table(model->inv_freq, base->head_dim, tokens_max, made->rope);
    if (cpu_isa() == CPU_PORTABLE && !sgemm_uses_blas())
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

// The queries of the last layer: the scored tokens' predecessors.
static void place_tail(struct train_pass *pass, const struct train_batch *batch)
{
    int32_t at = 0;
    for (int32_t s = 0; s < batch->sequence_count; s++) {
        pass->tail_starts[s] = at;
        for (; at < batch->scored_count && batch->scored[at] < batch->starts[s + 1]; at++) {
            pass->tail_rows[at] = batch->scored[at] - 1;
            pass->tail_positions[at] = pass->positions[batch->scored[at] - 1];
        }
    }
    pass->tail_starts[batch->sequence_count] = at;
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
    place_tail(pass, batch);
    alloc_guard_enter();
    train_forward(pass);
    *loss = train_backward_head(pass);
    train_backward(pass);
    alloc_guard_leave();
    return SORA_OK;
}
