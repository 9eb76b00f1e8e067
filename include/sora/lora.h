// SPDX-License-Identifier: Apache-2.0
// What a low-rank adapter looks like to the arithmetic, and what a base model looks like to an
// adapter. Plain data, no functions: adapters/ fills a sora_lora, src/kernel computes with it, and
// neither knows the other. A sora_lora is immutable while any step may read it; whoever built it
// (a sora_adapter, a trainer) owns its memory.
#ifndef SORA_LORA_H
#define SORA_LORA_H

#include <stdint.h>

// The seven adapted projections of a decoder layer, in the order of the file format.
enum sora_proj {
    SORA_PROJ_Q,
    SORA_PROJ_K,
    SORA_PROJ_V,
    SORA_PROJ_O,
    SORA_PROJ_GATE,
    SORA_PROJ_UP,
    SORA_PROJ_DOWN,
    SORA_PROJ_COUNT
};

// Element types an adapter may be stored and computed in; I8 is for computing alone, I16 for keys
// and values.
enum sora_dtype { SORA_F32, SORA_F16, SORA_BF16, SORA_I8, SORA_I16 };

// Columns of an I8 module's bt that lie together.
#define SORA_LORA_I8_COLUMNS 32

// One module: y += scale * B (A x). Rank 0: a and bt are NULL and the module costs nothing.
struct sora_lora_module {
    int32_t rank;
    float scale;           // alpha/rank of the file, i.e. alpha/r_max of training
    enum sora_dtype dtype; // of a and bt
    const void *a;         // [rank, d_in], row-major, 64-byte aligned
    // B transposed, 64-byte aligned: [rank, d_out]; I8: [rank, 32] of columns 0 .. 31, then of the
    // next 32, and of the last ones as many as are left. So what a few columns need is one piece.
    const void *bt;
    // I8: [rank], what the products of row r of a and of bt are multiplied by together; else NULL.
    const float *scales;
};

struct sora_lora {
    int32_t layer_count;
    const struct sora_lora_module *modules; // [layer_count][SORA_PROJ_COUNT]
};

// One adapter as a sequence uses it. Several make a list, which computes what one adapter does
// whose ranks are theirs, one after another in the order of the list.
struct sora_lora_part {
    const struct sora_lora *lora;
    float scale;      // multiplies every module's scale; 1 for a plain request
    int32_t rank_max; // only the first ranks of each module; 0: all
};

// The dimensions and identity of a base model, as far as an adapter cares. Filled by the model.
struct sora_base {
    char architecture[32]; // "llama", "qwen3", ...
    int32_t layer_count;
    int32_t hidden;       // width of the residual stream
    int32_t intermediate; // width inside the MLP
    int32_t head_count;
    int32_t kv_head_count;
    int32_t head_dim;
    int32_t vocab_size;
    int32_t d_in[SORA_PROJ_COUNT];
    int32_t d_out[SORA_PROJ_COUNT];
    // SHA-256 over the dimensions above and every norm weight as f32, in lower-case hex: what
    // quantization leaves alone. DESIGN.md section 3.
    char fingerprint[65];
    char weight_type[16]; // the type most projections are stored in: "Q4_1"
};

#endif
