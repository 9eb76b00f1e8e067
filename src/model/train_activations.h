// SPDX-License-Identifier: Apache-2.0
// The inside of a train_pass: what the forward keeps for the backward, and the scratch of both.
// Private to train_pass.c, train_forward.c, train_backward.c and train_rows.c; one thread at a
// time. Kept per layer is the least from which the rest is cheap to compute again: normed inputs,
// rotated queries and keys and the MLP's product are not kept. With `recompute` it is x_in alone:
// the rest of a layer is shared by all and computed again when the backward gets there.
// Of the last layer only the predecessors of scored tokens need more than keys and values: its
// other activations have a row for each of those (M of them) instead of every token. Letters: N =
// tokens_max, E hidden, F intermediate, Q = head_count * head_dim, K alike for kv.
#ifndef MODEL_TRAIN_ACTIVATIONS_H
#define MODEL_TRAIN_ACTIVATIONS_H

#include <stdbool.h>

#include "base/arena.h"
#include "kernel/attention_train.h"
#include "kernel/frozen_linear.h"
#include "kernel/lora_train.h"
#include "model/train_pass.h"

struct train_layer {
    float *x_in;               // [N, E] residual stream before the layer
    float *q, *k, *v;          // [M, Q], [N, K], [N, K] as projected: before head norms and RoPE
    float *attention;          // [M, Q] input of o_proj
    float *x_mid;              // [M, E] residual stream before the MLP
    float *gate, *up;          // [M, F]
    float *t[SORA_PROJ_COUNT]; // [N, rank_max] A x of each module
};

// The tokens that are queries in a layer.
struct train_queries {
    int32_t count;            // M
    const int32_t *rows;      // [M] of the batch; NULL: all
    const int32_t *starts;    // [sequence_count + 1]
    const int32_t *positions; // [M] within the own sequence
};

struct train_pass {
    const struct sora_model *model;
    struct pool *pool;
    int32_t tokens_max, rank_max, logit_rows_max;
    enum sora_compute compute; // F32 or INT8: of the base's products in the forward
    bool recompute;
    struct arena arena;
    struct attention_shape attention_shape;
    float *rope;                // [N][head_dim]
    struct train_layer *layers; // [layer_count]
    float *x_out;               // [M, E] residual stream after the last layer

    // Scratch of either direction.
    float *normed;                 // [N, E]
    float *q_rot, *k_rot;          // [N, Q], [N, K]
    float *mlp;                    // [N, F]
    float *branch;                 // [N, E] output of o_proj or down_proj
    float *gathered;               // [M, E] rows of queries
    float *dropped;                // [N, F or E or Q] a module's input after dropout, its gradient
    float *side[FROZEN_PARTS_MAX]; // [N, rank_max] of modules: u or dt, see lora_train.h
    float *lora_scratch, *frozen_scratch, *attention_scratch;
    float *matmul_scratch; // with INT8, like
    void *quant_memory;    // x as integers
    // Gradients: dx of the residual stream, the others of what their names say.
    float *dx, *dnormed;              // [N, E]
    float *dattention, *dq, *dk, *dv; // [N, Q], [N, Q], [N, K], [N, K]
    float *dmlp, *dgate, *dup;        // [N, F]
    // Output head, for up to logit_rows_max scored tokens at a time.
    float *logits;      // [rows, vocab]
    float *head_normed; // [rows, E]
    int32_t *head_targets;
    double *head_losses;

    // The batch of the current run.
    const struct train_batch *batch;
    const struct train_module *modules;
    float dropout;
    uint64_t seed;
    int32_t *positions;                                // [N] within the own sequence
    int32_t *tail_rows, *tail_positions, *tail_starts; // the queries of the last layer
    int32_t length_max;                                // longest sequence of the batch
    int32_t layer_lowest; // lowest layer with a module; layer_count when there is none
};

const struct train_module *train_pass_module(const struct train_pass *pass, int32_t layer,
                                             enum sora_proj proj);
// Whether any of the projections first .. last of a layer carries a module.
bool train_pass_adapts(const struct train_pass *pass, int32_t layer, enum sora_proj first,
                       enum sora_proj last);
// The module of a projection as its kernels want it; rank 0: none.
struct lora_train train_pass_lora(const struct train_pass *pass, int32_t layer,
                                  enum sora_proj proj);
struct train_queries train_pass_queries(const struct train_pass *pass, int32_t layer);
struct attention_train train_pass_attention(const struct train_pass *pass, int32_t layer);
// Seed of the dropout mask of one module in this run.
uint64_t train_pass_dropout_seed(const struct train_pass *pass, int32_t layer, enum sora_proj proj);

// Projections of a layer that read the same input, in either direction.
struct train_projections {
    int32_t layer, count;
    enum sora_proj projs[FROZEN_PARTS_MAX];
    float *values[FROZEN_PARTS_MAX]; // y, written by the forward; dy, read by the backward
};
// Each y = W x + bias + scale B (g o (A dropout(x))), n rows.
void train_project(struct train_pass *pass, const struct train_projections *projections,
                   const float *x, int32_t n);
// Gradients of the modules, and dx overwritten with that of the input; dx NULL: not wanted.
void train_project_backward(struct train_pass *pass, const struct train_projections *projections,
                            const float *x, int32_t n, float *dx);
// Logits of n rows; and dx overwritten with the gradient of theirs.
void train_project_logits(struct train_pass *pass, const float *x, int32_t n, float *logits);
void train_project_logits_backward(struct train_pass *pass, const float *dlogits, int32_t n,
                                   float *dx);

// Fills the layers' activations and x_out.
void train_forward(struct train_pass *pass);
// With recompute: a layer's activations again, from its x_in.
void train_forward_again(struct train_pass *pass, int32_t index);
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
// out[i] = from[rows[i]], and to[rows[i]] += from[i]; m rows of d. Rows are distinct.
void train_rows_gather(struct pool *pool, const float *from, const int32_t *rows, int32_t m,
                       int32_t d, float *out);
void train_rows_scatter(struct pool *pool, const float *from, const int32_t *rows, int32_t m,
                        int32_t d, float *to);
// Each row of y [m, d] += bias [d].
void train_rows_add_bias(struct pool *pool, const float *bias, int32_t m, int32_t d, float *y);
// out = a + b; out may be a.
void train_rows_add(struct pool *pool, const float *a, const float *b, int32_t m, int32_t d,
                    float *out);

#endif
