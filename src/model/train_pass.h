// SPDX-License-Identifier: Apache-2.0
// One training pass through the whole model: forward over packed sequences that keeps what the
// backward needs, cross-entropy at scored tokens only, and the backward down to the lowest adapted
// module. The base is frozen and stays quantized; panels are unpacked to f32 as they are needed.
// A train_pass owns its activations and works for one thread at a time.
// Letters: N tokens of the batch, d widths, r rank of a module.
#ifndef MODEL_TRAIN_PASS_H
#define MODEL_TRAIN_PASS_H

#include "base/pool.h"
#include "model/weights.h"

// The trainable module beside one frozen projection: y = W x + scale * B (g o (A x)).
// rank 0: not adapted. g NULL: plain LoRA. Gradients are added to, so the caller zeroes them.
struct train_module {
    int32_t rank;
    float scale;
    float *a, *b, *g;    // [rank, d_in], [d_out, rank], [rank]
    float *da, *db, *dg; // alike
};

struct train_batch {
    const int32_t *tokens; // [token_count], the sequences one after another
    int32_t token_count;
    const int32_t *starts; // [sequence_count + 1], offsets into tokens
    int32_t sequence_count;
    // Scored tokens: position p in the packed batch is scored from position p - 1 of its own
    // sequence. Ascending, never the first of a sequence.
    const int32_t *scored;
    int32_t scored_count;
};

struct train_pass;

struct train_pass_options {
    int32_t tokens_max;        // of a batch
    int32_t rank_max;          // of a module
    int32_t threads;           // 0: as many as the machine has
    enum sora_compute compute; // F32, or INT8: the forward multiplies as serving with int8 does.
                               // Gradients are f32 in both
    bool recompute;            // keep one activation a layer and compute the others again
};
SORA_CHECKED sora_status train_pass_create(const struct sora_model *model,
                                           const struct train_pass_options *options,
                                           struct train_pass **pass, struct sora_error *err);
void train_pass_destroy(struct train_pass *pass);
// The threads of the pass, for the optimizer's use between two runs.
struct pool *train_pass_pool(struct train_pass *pass);

// Forward and backward. modules [layer_count][SORA_PROJ_COUNT]. dropout on each module's input,
// drawn from `seed`; 0 for none. *loss: mean cross-entropy over scored tokens (natural log);
// gradients of that mean are added to the modules' da, db, dg.
SORA_CHECKED sora_status train_pass_run(struct train_pass *pass, const struct train_batch *batch,
                                        const struct train_module *modules, float dropout,
                                        uint64_t seed, double *loss, struct sora_error *err);

#endif
