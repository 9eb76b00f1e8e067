// SPDX-License-Identifier: Apache-2.0
// The kernels by instruction set: what the files of one kernel share, and how a test runs a
// chosen one. Callers use the public functions, which take the best that cpu_isa() offers.
// Where no AVX-512 body exists, the AVX2 one runs in its place. Private to src/kernel and tests.
#ifndef KERNEL_DISPATCH_H
#define KERNEL_DISPATCH_H

#include <stdbool.h>

#include "base/cpu.h"
#include "kernel/activation.h"
#include "kernel/attention.h"
#include "kernel/lora_matmul.h"
#include "kernel/matmul.h"
#include "kernel/matmul_int8.h"
#include "kernel/row_quant.h"

// --- matmul ---
// k that a panel is unpacked for at a time: 256 x 16 floats are 16 KB, half of a first cache.
#define MATMUL_CHUNK_VALUES 256

struct matmul_job {
    const struct weight *weight;
    const float *x; // [m, d_in]
    int32_t m;
    float *y; // [m, d_out]
    // For matmul_int8_panels only: x in 8 bits; what is fetched beside the panels, all of `own` and
    // of `ahead` (NULL: none) from a byte on so many for each panel.
    const struct row_quant *quant;
    struct matmul_ahead own;
    const struct matmul_ahead *ahead;
    size_t ahead_from, ahead_each;
};
// Panels [first, first + count) of a job. unpacked: one thread's scratch, 64-byte aligned,
// [MATMUL_CHUNK_VALUES][16].
typedef void matmul_panels_fn(const struct matmul_job *job, int32_t first, int32_t count,
                              float *unpacked);
matmul_panels_fn matmul_panels_portable, matmul_panels_avx2, matmul_panels_avx512;
void matmul_run_on(enum cpu_isa isa, struct pool *pool, const struct matmul_work *work,
                   float *scratch);

// A panel's block of nibbles spread out, a byte each, and its scales and minimums as f32: what
// tiles after the first read. Bytes of it: even and odd k of 8, of vectors of outputs; [16], [16].
// Only of panels of so many k at most (160 KB), as it is to stay in the second cache.
#define MATMUL_SPREAD_VALUES_MAX 8192
#define MATMUL_SPREAD_SCALES (32 * WEIGHT_PANEL_ROWS)
#define MATMUL_SPREAD_BYTES (MATMUL_SPREAD_SCALES + 2 * WEIGHT_PANEL_ROWS * (int)sizeof(float))
// Panels [first, first + count) of a job with a quantized weight and job->quant. spread: one
// thread's scratch, 64-byte aligned, [d_in / 32][MATMUL_SPREAD_BYTES] if d_in is not above the
// bound.
typedef void matmul_int8_panels_fn(const struct matmul_job *job, int32_t first, int32_t count,
                                   uint8_t *spread);
matmul_int8_panels_fn matmul_int8_panels_portable, matmul_int8_panels_avx2,
    matmul_int8_panels_avx512, matmul_int8_panels_vnni;

// --- row_quant ---
// Where a form has value k of its eight.
static inline int row_quant_place(unsigned form, int k)
{
    return form & ROW_QUANT_PAIRS ? k : k / 2 + k % 2 * 4;
}
// Blocks that lie one after another, form ROW_QUANT_NARROW or ROW_QUANT_PAIRS, in two steps.
// What a block's 127 has to stand for, as magnitudes of x or of pairs of them, spikes[block] set
// apart (its place in the block, -1: none); NaN or infinite where the block has such values.
typedef void row_quant_scan_fn(unsigned form, const float *x, size_t blocks, float *largest,
                               int32_t *spikes);
// q = x * inverses[block], rounded to nearest, and sums of q; what is beyond a byte is undefined.
typedef void row_quant_round_fn(unsigned form, const float *x, size_t blocks, const float *inverses,
                                int8_t *q, int32_t *sums);
row_quant_scan_fn row_quant_scan_portable, row_quant_scan_avx2;
row_quant_round_fn row_quant_round_portable, row_quant_round_avx2;
struct row_wide_block {
    int16_t *q; // [32], written
    float scale;
    int32_t sum;
};
typedef void row_quant_wide_fn(const float *x, struct row_wide_block *out);
row_quant_wide_fn row_quant_wide_portable, row_quant_wide_avx2;
void row_quant_fill_on(enum cpu_isa isa, struct pool *pool, const float *x, int32_t m, int32_t d_in,
                       unsigned forms, void *memory, struct row_quant *quant);

// --- lora_matmul ---
// Ranks [first, end): t[i][rank] = a[rank] . x[rows[i]].
struct lora_shrink {
    const struct lora_part *part;
    const float *x;
    int32_t d_in;
};
// Outputs [first, end): y[rows[i]][o] += t[i][r] * bt[r][o] for each r in turn.
struct lora_expand {
    const struct lora_part *part;
    float *y;
    int32_t d_out;
};
typedef void lora_shrink_fn(const struct lora_shrink *work, int32_t first, int32_t end);
typedef void lora_expand_fn(const struct lora_expand *work, int32_t first, int32_t end);
lora_shrink_fn lora_shrink_portable, lora_shrink_avx2;
lora_expand_fn lora_expand_portable, lora_expand_avx2;
int64_t lora_work_init_on(enum cpu_isa isa, struct lora_work *work);

// --- attention ---
// The first position that a row at `pos` attends to.
static inline int32_t attention_start(const struct attention_shape *shape, int32_t pos)
{
    return shape->window > 0 && pos >= shape->window ? pos - shape->window + 1 : 0;
}

// What a row's heads of one kv head make of some positions: max [H/G], sum [H/G] of
// e^(score - max), and values [H/G][D] weighted by them.
static inline size_t attention_part_floats(const struct attention_shape *shape)
{
    return (size_t)(shape->head_count / shape->kv_head_count) * ((size_t)shape->head_dim + 2);
}

// Of a chunk with an I16 cache: queries and weights as integers, and what their products with keys
// and values are multiplied by. Written on the way.
struct attention_i16 {
    int16_t *q;           // [H/G][D]
    float *q_scales;      // [H/G], times the shape's scale
    float *value_scales;  // [ATTENTION_CHUNK_TOKENS]
    int16_t *weights;     // [H/G][ATTENTION_CHUNK_TOKENS]
    float *weight_scales; // [H/G]
};

// The chunk of positions [first, end), of which the row sees some, for one row and kv head. q: of
// the kv head's first query head. scores [H/G][ATTENTION_CHUNK_TOKENS] is scratch; part is written.
struct attention_chunk {
    const struct attention_shape *shape;
    const struct attention_cache *cache;
    const struct attention_row *row;
    int32_t kv_head, first, end;
    bool cold; // nobody has read its keys and values or asked for them: ask in time
    const float *q;
    float *scores, *part;
    const struct attention_i16 *i16; // of an I16 cache, else not read
    // Blocks that the thread will read after this chunk, and asks for with each of its own.
    const int32_t *next_blocks;
    int32_t next_count, next_kv_head;
};
typedef void attention_chunk_fn(const struct attention_chunk *work);
typedef void attention_merge_fn(const struct attention_shape *shape, float *into,
                                const float *part);
typedef void attention_finish_fn(const struct attention_shape *shape, const float *part,
                                 float *out);
attention_chunk_fn attention_chunk_portable, attention_chunk_avx2;
attention_merge_fn attention_merge_portable, attention_merge_avx2;
attention_finish_fn attention_finish_portable, attention_finish_avx2;
// A chunk with an I16 cache, and its steps for positions [first, end): scores, weights, part.
void attention_chunk_i16(enum cpu_isa isa, const struct attention_chunk *work);
typedef void attention_i16_fn(const struct attention_chunk *work, int32_t first, int32_t end);
attention_i16_fn attention_score_i16_portable, attention_score_i16_avx2, attention_score_i16_avx512,
    attention_score_i16_vnni;
attention_i16_fn attention_soften_i16_portable, attention_soften_i16_avx2,
    attention_soften_i16_avx512, attention_soften_i16_vnni;
attention_i16_fn attention_weigh_i16_portable, attention_weigh_i16_avx2, attention_weigh_i16_avx512,
    attention_weigh_i16_vnni;
void attention_store_i16(enum cpu_isa isa, const struct attention_shape *shape,
                         const struct attention_cache *cache, int32_t slot, const float *key,
                         const float *value);
// Magnitudes of integer keys and values. The products of a sum stay within 32 bits, since of
// queries (and weights) the magnitudes of all together are bounded: rounding each of `count`
// included.
#define ATTENTION_KEY_LEVELS 16383
#define ATTENTION_VALUE_LEVELS 8191
#define I16_SUM_MAX(levels, count) ((float)(INT32_MAX / (levels) - (count) / 2))
// [count] values to integers, rounded to nearest, times the scale that is returned: none is above
// levels, their sum is about sum_max at most. NaN when not all are finite.
typedef float attention_to_i16_fn(const float *x, int32_t count, float levels, float sum_max,
                                  int16_t *q);
attention_to_i16_fn attention_to_i16_portable, attention_to_i16_avx2, attention_to_i16_avx512,
    attention_to_i16_vnni;
// [count] values to f16; what is beyond its range becomes the largest number of that sign.
typedef void attention_to_f16_fn(const float *from, size_t count, uint16_t *to);
attention_to_f16_fn attention_to_f16_portable, attention_to_f16_avx2;
void attention_on(enum cpu_isa isa, struct pool *pool, const struct attention_shape *shape,
                  const struct attention_cache *cache, const struct attention_row *rows, int32_t m,
                  const float *q, float *out, void *scratch);

// --- activation ---
typedef void swiglu_fn(const float *gate, const float *up, size_t count, float *out);
typedef void swiglu_backward_fn(const float *gate, const float *up, const float *dout, size_t count,
                                float *dgate, float *dup);
swiglu_fn swiglu_portable, swiglu_avx2, swiglu_avx512;
swiglu_backward_fn swiglu_backward_portable, swiglu_backward_avx2, swiglu_backward_avx512;
// e^x elementwise, the one that softmax and silu use; out may be x.
typedef void exp_fn(const float *x, size_t count, float *out);
exp_fn exp_portable, exp_avx2, exp_avx512;
exp_fn *exp_on(enum cpu_isa isa);

#endif
