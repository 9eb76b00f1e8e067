// SPDX-License-Identifier: Apache-2.0
// See row_quant.h. The plain version, which is the reference too, and the split over threads.
#include "kernel/row_quant.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/assert.h"
#include "kernel/kernel_dispatch.h"

#define ROWS_EACH 4 // rows of one pool task

static size_t aligned(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

size_t row_quant_bytes(int32_t m, int32_t d_in)
{
    ASSERT(m > 0 && d_in > 0);
    size_t rows = (size_t)m, values = rows * (((size_t)d_in + 31) / 32 * 32);
    size_t blocks = values / ROW_QUANT_BLOCK;
    size_t narrow = aligned(values) + 2 * aligned(blocks * sizeof(float)) +
                    aligned(blocks * sizeof(int32_t)) + aligned(blocks * sizeof(struct row_spike)) +
                    aligned(rows * sizeof(int32_t));
    return narrow + aligned(values * sizeof(int16_t)) + aligned(blocks * sizeof(float)) +
           aligned(blocks * sizeof(int32_t));
}

static void *take(uint8_t **next, size_t bytes)
{
    void *taken = *next;
    *next += aligned(bytes);
    return taken;
}

// The two largest magnitudes and the place of the first. False: not all are finite.
static bool two_largest(const float *x, float *high, float *next, int32_t *highest)
{
    bool finite = true;
    *high = *next = 0;
    *highest = 0;
    for (int32_t i = 0; i < ROW_QUANT_BLOCK; i++) {
        float a = fabsf(x[i]);
        finite = finite && a <= FLT_MAX;
        if (a > *high) {
            *next = *high;
            *high = a;
            *highest = i;
        } else if (a > *next) {
            *next = a;
        }
    }
    return finite;
}

// 1 / scale; 0 where that is no number, and then all q are 0.
static float inverse_of(float high, float levels)
{
    float inverse = levels / high;
    return inverse <= FLT_MAX ? inverse : 0;
}

// The largest sum of the two values of a pair of one sign; the one at `skip` counts as 0.
static float largest_pair(const float *x, int32_t skip)
{
    float largest = 0;
    for (int32_t i = 0; i < ROW_QUANT_BLOCK; i += 2) {
        const float a = i == skip ? 0 : x[i], b = i + 1 == skip ? 0 : x[i + 1];
        largest = fmaxf(largest, fmaxf(a, 0) + fmaxf(b, 0));
        largest = fmaxf(largest, fmaxf(-a, 0) + fmaxf(-b, 0));
    }
    return largest;
}

void row_quant_narrow_portable(unsigned form, const float *x, struct row_narrow_block *out)
{
    float high, next;
    int32_t highest;
    bool finite = two_largest(x, &high, &next, &highest);
    out->spike = -1;
    if (finite && high > ROW_QUANT_SPIKE_RATIO * next) {
        out->spike = highest;
        high = next;
    }
    if (form == ROW_QUANT_PAIRS)
        high = largest_pair(x, out->spike);
    const float inverse = finite ? inverse_of(high, 127.0f) : 0;
    out->scale = finite ? high / 127.0f : NAN;
    out->sum = 0;
    for (int32_t i = 0; i < ROW_QUANT_BLOCK; i++) {
        // A spike, or what is not finite, may be no int at all.
        int8_t q = i == out->spike || inverse == 0 ? 0 : (int8_t)lrintf(x[i] * inverse);
        out->q[i / 8 * 8 + row_quant_place(form, i % 8)] = q;
        out->sum += q;
    }
}

void row_quant_wide_portable(const float *x, struct row_wide_block *out)
{
    static const uint8_t places[4] = {0, 2, 1, 3};
    float high, next;
    int32_t highest;
    bool finite = two_largest(x, &high, &next, &highest);
    const float inverse = finite ? inverse_of(high, 32767.0f) : 0;
    out->scale = finite ? high / 32767.0f : NAN;
    out->sum = 0;
    for (int32_t i = 0; i < ROW_QUANT_BLOCK; i++) {
        int16_t q = inverse == 0 ? 0 : (int16_t)lrintf(x[i] * inverse);
        out->q[i / 4 * 4 + places[i % 4]] = q;
        out->sum += q;
    }
}

// Up to `left` blocks from block `first` on, into arrays of one for each; returns how many.
static size_t narrow_run(const struct row_quant *quant, size_t first, size_t left,
                         struct row_narrow_run *run)
{
    const unsigned form = quant->forms & (ROW_QUANT_NARROW | ROW_QUANT_PAIRS);
    const float *x = quant->x + first * ROW_QUANT_BLOCK;
    run->q = quant->narrow.q + first * ROW_QUANT_BLOCK;
    if (quant->isa != CPU_PORTABLE && form == ROW_QUANT_NARROW && left >= ROW_QUANT_RUN) {
        row_quant_narrow_run_avx2(x, run);
        return ROW_QUANT_RUN;
    }
    struct row_narrow_block block = {.q = run->q};
    (quant->isa == CPU_PORTABLE ? row_quant_narrow_portable : row_quant_narrow_avx2)(form, x,
                                                                                     &block);
    run->scales[0] = block.scale;
    run->sums[0] = block.sum;
    run->spikes[0] = block.spike;
    return 1;
}

static void list_spike(const struct row_quant *quant, size_t block, int32_t place)
{
    const struct row_narrow *narrow = &quant->narrow;
    const size_t blocks = (size_t)quant->d_in / ROW_QUANT_BLOCK, row = block / blocks;
    narrow->spikes[row * blocks + (size_t)narrow->spike_counts[row]++] =
        (struct row_spike){(uint32_t)(block % blocks * ROW_QUANT_BLOCK) + (uint32_t)place,
                           quant->x[block * ROW_QUANT_BLOCK + (size_t)place]};
}

// Rows [first, end), whose blocks lie one after another.
static void fill_narrow(const struct row_quant *quant, int32_t first, int32_t end)
{
    const struct row_narrow *narrow = &quant->narrow;
    const size_t blocks = (size_t)quant->d_in / ROW_QUANT_BLOCK;
    const size_t last = (size_t)end * blocks;
    struct row_narrow_run run;
    memset(narrow->spike_counts + first, 0, (size_t)(end - first) * sizeof *narrow->spike_counts);
    for (size_t b = (size_t)first * blocks, count; b < last; b += count) {
        count = narrow_run(quant, b, last - b, &run);
        for (size_t i = 0; i < count; i++) {
            narrow->scales[b + i] = run.scales[i];
            narrow->minus_sums[b + i] = -run.sums[i];
            narrow->offsets[b + i] = run.scales[i] * (float)run.sums[i];
            if (run.spikes[i] >= 0)
                list_spike(quant, b + i, run.spikes[i]);
        }
    }
}

static void fill_wide(const struct row_quant *quant, int32_t row)
{
    const struct row_wide *wide = &quant->wide;
    const size_t blocks = (size_t)quant->d_in / ROW_QUANT_BLOCK;
    for (size_t b = (size_t)row * blocks; b < ((size_t)row + 1) * blocks; b++) {
        const size_t at = b * ROW_QUANT_BLOCK;
        struct row_wide_block block = {.q = wide->q + at};
        (quant->isa == CPU_PORTABLE ? row_quant_wide_portable : row_quant_wide_avx2)(quant->x + at,
                                                                                     &block);
        wide->scales[b] = block.scale;
        wide->minus_sums[b] = -block.sum;
    }
}

void row_quant_rows(const struct row_quant *quant, int32_t first, int32_t end)
{
    if (quant->forms & (ROW_QUANT_NARROW | ROW_QUANT_PAIRS))
        fill_narrow(quant, first, end);
    for (int32_t row = first; row < end && quant->forms & ROW_QUANT_WIDE; row++)
        fill_wide(quant, row);
}

static void begin(enum cpu_isa isa, const float *x, int32_t m, int32_t d_in, unsigned forms,
                  void *memory, struct row_quant *quant)
{
    ASSERT(m > 0 && d_in > 0 && d_in % ROW_QUANT_BLOCK == 0);
    ASSERT((forms & ROW_QUANT_NARROW) == 0 || (forms & ROW_QUANT_PAIRS) == 0);
    const size_t rows = (size_t)m, values = rows * (size_t)d_in;
    const size_t blocks = values / ROW_QUANT_BLOCK;
    uint8_t *next = memory;
    *quant = (struct row_quant){.m = m, .d_in = d_in, .forms = forms, .x = x, .isa = isa};
    quant->narrow.q = take(&next, values);
    quant->narrow.scales = take(&next, blocks * sizeof(float));
    quant->narrow.minus_sums = take(&next, blocks * sizeof(int32_t));
    quant->narrow.offsets = take(&next, blocks * sizeof(float));
    quant->narrow.spikes = take(&next, blocks * sizeof(struct row_spike));
    quant->narrow.spike_counts = take(&next, rows * sizeof(int32_t));
    quant->wide.q = take(&next, values * sizeof(int16_t));
    quant->wide.scales = take(&next, blocks * sizeof(float));
    quant->wide.minus_sums = take(&next, blocks * sizeof(int32_t));
}

void row_quant_begin(const float *x, int32_t m, int32_t d_in, unsigned forms, void *memory,
                     struct row_quant *quant)
{
    begin(cpu_isa(), x, m, d_in, forms, memory, quant);
}

static void fill_rows(void *context, int32_t first, int32_t end, int32_t thread)
{
    (void)thread;
    row_quant_rows(context, first, end);
}

void row_quant_fill_on(enum cpu_isa isa, struct pool *pool, const float *x, int32_t m, int32_t d_in,
                       unsigned forms, void *memory, struct row_quant *quant)
{
    begin(isa, x, m, d_in, forms, memory, quant);
    pool_run_rows(pool, m, d_in, ROWS_EACH, fill_rows, quant);
}

void row_quant_fill(struct pool *pool, const float *x, int32_t m, int32_t d_in, unsigned forms,
                    void *memory, struct row_quant *quant)
{
    row_quant_fill_on(cpu_isa(), pool, x, m, d_in, forms, memory, quant);
}
