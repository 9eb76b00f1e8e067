// SPDX-License-Identifier: Apache-2.0
// y += scale * B (A x) for rows that carry adapters, at each module's exact rank, in two halves
// beside the base's product of the same modules (matmul.h): shrink, t = A x, for all modules that
// read one x, in tasks; expand, y += B t, a range of columns at a time, by the thread that has just
// set them to W x. Rows of one adapter are computed together, whatever their place in the
// batch; rank 0 and rows without an adapter cost nothing. A row's result depends on its own x and
// adapter alone, to the bit.
// Shrink: one dot product per rank, in a fixed order over d_in. Expand: y[o] grows by
// t[r] * B[o, r] for r = 0, 1, ... in turn. A row that is in several groups grows by them
// in the order of the groups, to the bit as by one adapter of their ranks one after another.
#ifndef KERNEL_LORA_MATMUL_H
#define KERNEL_LORA_MATMUL_H

#include <stddef.h>
#include <stdint.h>

#include "base/cpu.h"
#include "kernel/matmul.h"
#include "sora/limits.h"
#include "sora/lora.h"

#define LORA_CALLS_MAX 3                         // q, k and v read the same x
#define LORA_PARTS_MAX SORA_REQUEST_ADAPTERS_MAX // groups that one row is in

// The rows of a batch that share one adapter view.
struct lora_group {
    const struct sora_lora *lora;
    float scale;      // multiplies the module's own
    int32_t rank_max; // first ranks only; 0: all
    int32_t row_count;
    const int32_t *rows; // indices into the batch
};

// One module of one group, all that its kernels read: a cache line.
struct lora_part {
    _Alignas(64) const void *a; // [rank, d_in] and maybe more ranks than are used
    const void *bt;             // [rank, d_out] as well
    const float *scales;        // I8: [rank], t[r] is multiplied by scales[r] too
    const int32_t *rows;
    float *t;    // [row_count, rank]
    float scale; // t is multiplied by it
    int32_t rank, row_count;
    int32_t rank_stored; // that bt has
    enum sora_dtype dtype;
};

// Modules of one layer that read the same x, for the groups of a batch. The caller fills the first
// part; lora_work_init the rest.
struct lora_work {
    const struct lora_group *groups;
    int32_t group_count, layer;
    int32_t call_count; // <= LORA_CALLS_MAX
    enum sora_proj projs[LORA_CALLS_MAX];
    const float *x; // [m, d_in]
    int32_t d_in;
    float *scratch; // lora_scratch_count floats

    enum cpu_isa isa;
    struct lora_part *parts[LORA_CALLS_MAX]; // of each module: the groups with ranks, in order
    int32_t part_counts[LORA_CALLS_MAX];
    int64_t rank_sum;    // over rows and modules
    int64_t shrink_cost; // of all ranks
};

// Floats of scratch for up to m rows, each in LORA_PARTS_MAX groups at most, and a largest module
// rank. A step uses, from the start, a line for each part and one for each rank it computes.
size_t lora_scratch_count(int32_t m, int32_t rank_max);
// Returns the sum over rows and modules of the ranks to compute; 0: nothing else needs a call.
int64_t lora_work_init(struct lora_work *work);
// Tasks of equal cost for this many threads; 1: too little to share.
int32_t lora_shrink_tasks(const struct lora_work *work, int32_t threads);
// Fills one task's part of all t from x; different tasks at the same time.
void lora_shrink_task(const struct lora_work *work, int32_t index, int32_t task_count);
// The memory that lora_expand_columns will read of I8 adapters for these columns: up to `max`
// regions, returned is how many. That of others lies too far apart.
int32_t lora_expand_reads(const struct lora_work *work, int32_t call, int32_t first, int32_t end,
                          struct matmul_region *regions, int32_t max);
// Adds to columns [first, end) of module `call` in y [m, d_out], first a multiple of 8. After all
// shrink tasks; by any thread, different columns at the same time.
void lora_expand_columns(const struct lora_work *work, int32_t call, float *y, int32_t d_out,
                         int32_t first, int32_t end);
// The reference, in double: y [m, d_out] += scale * B (A x) of one module. scratch [rank].
int64_t lora_matmul_ref(const struct lora_group *groups, int32_t group_count, int32_t layer,
                        enum sora_proj proj, const float *x, int32_t d_in, float *y, int32_t d_out,
                        float *scratch);

#endif
