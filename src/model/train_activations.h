// SPDX-License-Identifier: Apache-2.0
// The inside of a train_pass: what the forward keeps for the backward, and the scratch of both.
// Private to train_pass.c, train_forward.c, train_backward.c and train_rows.c; one thread at a
// time. Kept per layer is the least from which the rest is cheap to compute again: normed inputs,
// rotated queries and keys and the MLP's product are not kept. Letters: N = tokens_max, E hidden, F
// intermediate, Q = head_count * head_dim, K alike for kv.
#ifndef MODEL_TRAIN_ACTIVATIONS_H
#define MODEL_TRAIN_ACTIVATIONS_H

#include <stdbool.h>

#include "base/arena.h"
#include "kernel/attention.h"
#include "model/train_pass.h"

struct train_layer {
    float *x_in;               // [N, E] residual stream before the layer
    float *q, *k, *v;          // [N, Q], [N, K], [N, K] as projected: before head norms and RoPE
    float *attention;          // [N, Q] input of o_proj
    float *x_mid;              // [N, E] residual stream before the MLP
    float *gate, *up;          // [N, F]
    float *t[SORA_PROJ_COUNT]; // [N, rank_max] A x of each module
};

struct train_pass {
    const struct sora_model *model;
    struct pool *pool;
    int32_t tokens_max, rank_max, logit_rows_max;
    struct arena arena;
    struct attention_shape attention_shape;
    float *rope;                // [N][head_dim]
    struct train_layer *layers; // [layer_count]
    float *x_out;               // [N, E] residual stream after the last layer

    // Scratch of either direction.
    float *normed;        // [N, E]
    float *q_rot, *k_rot; // [N, Q], [N, K]
    float *mlp;           // [N, F]
    float *branch;        // [N, E] output of o_proj or down_proj
    float *dropped;       // [N, F or E or Q] a module's input after dropout, its gradient
    float *lora_scratch, *frozen_scratch, *attention_scratch;
    // Gradients: dx of the residual stream, the others of what their names say.
    float *dx, *dnormed;              // [N, E]
    float *dattention, *dq, *dk, *dv; // [N, Q], [N, Q], [N, K], [N, K]
    float *dmlp, *dgate, *dup;        // [N, F]
    // Output head, for up to logit_rows_max scored tokens at a time.
    float *logits;                         // [rows, vocab]
    float *head_x, *head_normed, *head_dx; // [rows, E]
    int32_t *head_targets;
    double *head_losses;

    // The batch of the current run.
    const struct train_batch *batch;
    const struct train_module *modules;
    float dropout;
    uint64_t seed;
    int32_t *positions;   // [N] within the own sequence
    int32_t length_max;   // longest sequence of the batch
    int32_t layer_lowest; // lowest layer with a module; layer_count when there is none
};

const struct train_module *train_pass_module(const struct train_pass *pass, int32_t layer,
                                             enum sora_proj proj);
// Whether any of the projections first .. last of a layer carries a module.
bool train_pass_adapts(const struct train_pass *pass, int32_t layer, enum sora_proj first,
                       enum sora_proj last);
// Seed of the dropout mask of one module in this run.
uint64_t train_pass_dropout_seed(const struct train_pass *pass, int32_t layer, enum sora_proj proj);

// Fills the layers' activations and x_out.
void train_forward(struct train_pass *pass);
// Rotated queries and keys of a layer, from its q and k, into q_rot and k_rot.
void train_forward_rotate(struct train_pass *pass, const struct train_layer *layer, int32_t index);
// Output head: returns the mean loss and overwrites dx with its gradient.
double train_backward_head(struct train_pass *pass);
// From dx down to the lowest module.
void train_backward(struct train_pass *pass);

// Row-wise kernels shared out over the pool.
void train_rows_norm(struct pool *pool, const float *x, const float *weight, float eps, int32_t m,
                     int32_t d, float *out);
void train_rows_norm_backward(struct pool *pool, const float *x, const float *weight, float eps,
                              const float *dout, int32_t m, int32_t d, float *dx);
void train_rows_rope(struct pool *pool, float *x, int32_t m, int32_t head_count, int32_t head_dim,
                     const float *table, const int32_t *positions, bool backward);
void train_rows_swiglu(struct pool *pool, const float *gate, const float *up, int32_t m, int32_t d,
                       float *out);
void train_rows_swiglu_backward(struct pool *pool, const float *gate, const float *up,
                                const float *dout, int32_t m, int32_t d, float *dgate, float *dup);
// out = a + b.
void train_rows_add(struct pool *pool, const float *a, const float *b, int32_t m, int32_t d,
                    float *out);

#endif
