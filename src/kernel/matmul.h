// SPDX-License-Identifier: Apache-2.0
// y = W x for a batch of rows, W packed (weight.h). Every output is one chain of fused
// multiply-adds over k = 0 .. d_in-1 into one f32 accumulator that starts at zero: the same bits
// for any number of rows, any split over threads, any tile, and for the portable, AVX2 and AVX-512
// kernels alike. With x as integers, see matmul_int8.h.
#ifndef KERNEL_MATMUL_H
#define KERNEL_MATMUL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "kernel/row_quant.h"
#include "kernel/weight.h"

// Floats of scratch that matmul needs for this weight on this many threads; the caller keeps one
// buffer as large as its largest weight asks.
size_t matmul_scratch_count(int32_t d_in, int32_t threads);

// One product of a call to matmul_run: y [m, d_out] = W x.
struct matmul_call {
    const struct weight *weight;
    float *y;
};

// Memory that is read soon after a product: it is fetched into the cache beside it, an equal part
// with each panel, while the arithmetic of many rows leaves memory idle. A hint: nothing but time
// depends on it, and what finds no room is left.
struct matmul_region {
    const void *first;
    size_t bytes, before; // its own, and of all regions before it in a list
};
struct matmul_ahead {
    const struct matmul_region *regions;
    int32_t region_count;
    size_t bytes; // of all
};

// Other work on the same x, an adapter's. `before`: tasks that threads take before those of the
// products, by index; no product waits for them (NULL when there are none). `after`: columns
// [first, end) of y of call number `call` were set, on the thread that set them; different ranges
// at the same time. `reads` (NULL: none): what `after` will read for such a range, up to `max`
// regions; products with integers fetch it beside just these columns.
struct matmul_beside {
    void (*before)(void *context, int32_t index, int32_t thread);
    int32_t before_count;
    void (*after)(void *context, int32_t call, int32_t first, int32_t end, int32_t thread);
    int32_t (*reads)(void *context, int32_t call, int32_t first, int32_t end,
                     struct matmul_region *regions, int32_t max);
    void *context;
};

// Products that read the same x (q, k, v), as one piece of work for the pool. All arrays are
// row-major and dense, and do not overlap.
struct matmul_work {
    const struct matmul_call *calls; // weights of one d_in
    int32_t call_count;
    const float *x; // [m, d_in]
    int32_t m;
    const struct row_quant *quant;      // x as integers, for the weights that have a kernel for it
                                        // (matmul_int8.h); NULL: all in f32
    const struct matmul_beside *beside; // NULL: none
    const struct matmul_ahead *ahead;   // NULL: none. Products with integers only
};
void matmul_run(struct pool *pool, const struct matmul_work *work, float *scratch);
// One product: x [m, d_in], y [m, d_out].
void matmul(struct pool *pool, const struct weight *weight, const float *x, int32_t m, float *y,
            float *scratch);
// The reference: plain loops over weight_row_to_f32 and fmaf. scratch [d_in].
void matmul_ref(const struct weight *weight, const float *x, int32_t m, float *y, float *scratch);

#endif
