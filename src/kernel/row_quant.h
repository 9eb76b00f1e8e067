// SPDX-License-Identifier: Apache-2.0
// Rows of activations as integers, for products with quantized weights (matmul_int8.h). Per row and
// block of 32 values: x ~ scale * q, rounded to nearest.
// For weights of 4 bits q has 8, -127 .. 127, and a block's scale is an integer, 1 .. 32767, times
// the row's: a kernel multiplies by it for nothing where it adds 16-bit sums. A value that stands
// out of its block (a spike) would coarsen the other 31: it is taken out, kept in f32 and
// multiplied exactly.
// For weights of 8 bits q has 16, -32767 .. 32767, which is as good as exact, or 8, with spikes
// taken out, of which two neighbours (k = 2 i, 2 i + 1) of one sign make at most 128: the sum of
// their products with unsigned bytes fits 16 bits.
// A row's result depends on that row alone, to the bit, on every machine.
#ifndef KERNEL_ROW_QUANT_H
#define KERNEL_ROW_QUANT_H

#include <stddef.h>
#include <stdint.h>

#include "base/cpu.h"
#include "base/pool.h"

#define ROW_QUANT_BLOCK 32
// A block's largest magnitude is a spike when it is more than this times the second largest. On
// SmolLM2-135M a twentieth of the blocks have one at 4, and the mean error of log-probabilities was
// 0.035 at 2, 0.043 at 3 and at 4, 0.057 at 5 (nine positions, 16 bits for the output matrix,
// scales of any value; what it is now stands in docs/engine.md).
#define ROW_QUANT_SPIKE_RATIO 4.0f

struct row_spike {
    uint32_t k; // unsigned: what is taken from it by kernels are shifts
    float value;
};

// Which forms are filled; of NARROW and PAIRS, which share their memory, one at most.
enum { ROW_QUANT_NARROW = 1, ROW_QUANT_WIDE = 2, ROW_QUANT_PAIRS = 4 };

// m rows of d_in values, B = d_in / 32 blocks. Kernels read it, row_quant_fill writes it.
struct row_quant {
    int32_t m, d_in;
    unsigned forms;
    const float *x; // [m][d_in]
    enum cpu_isa isa;
    struct row_narrow {
        // [m][d_in]. NARROW: each 8 values as k = 0 2 4 6 1 3 5 7: a word of nibbles; PAIRS: as
        // they come.
        int8_t *q;
        float *row_scales;   // [m]; PAIRS: 1
        float *scales;       // [m][B], of row_scales; NARROW: integers
        uint32_t *factors;   // [m][B], NARROW: the same as two 16-bit words
        int32_t *minus_sums; // [m][B]: of the block's q, negated, for bytes: they have 128 too much
        float
            *offsets; // [m][B], for nibbles: scale * sum, what a weight's minimum is multiplied by
        struct row_spike *spikes; // [m][B]: at most one a block, k ascending
        int32_t *spike_counts;    // [m]
    } narrow;
    struct row_wide {
        int16_t *q;          // [m][d_in], each 4 values as k = 0 2 1 3: a word of bytes
        float *scales;       // [m][B]
        int32_t *minus_sums; // [m][B]
    } wide;
};

// Bytes of memory for up to m rows of up to d_in values.
size_t row_quant_bytes(int32_t m, int32_t d_in);
// x [m, d_in], d_in a multiple of 32. memory: row_quant_bytes, 64-byte aligned; *quant points into
// it. Values that are not finite make the row's products NaN.
void row_quant_fill(struct pool *pool, const float *x, int32_t m, int32_t d_in, unsigned forms,
                    void *memory, struct row_quant *quant);

// The same in two steps, for a caller that has a pool's tasks of its own: no row is filled yet;
void row_quant_begin(const float *x, int32_t m, int32_t d_in, unsigned forms, void *memory,
                     struct row_quant *quant);
// fills rows [first, end); different rows at the same time.
void row_quant_rows(const struct row_quant *quant, int32_t first, int32_t end);

#endif
