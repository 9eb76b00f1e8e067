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
#define LEVELS 127.0f
#define FACTOR_MAX 32767 // of a block's scale, of its row's

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
                    2 * aligned(blocks * sizeof(int32_t)) +
                    aligned(blocks * sizeof(struct row_spike)) + aligned(rows * sizeof(float)) +
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

void row_quant_scan_portable(unsigned form, const float *x, size_t blocks, float *largest,
                             int32_t *spikes)
{
    for (size_t b = 0; b < blocks; b++, x += ROW_QUANT_BLOCK) {
        float high, next;
        int32_t highest;
        const bool finite = two_largest(x, &high, &next, &highest);
        const bool spike = finite && high > ROW_QUANT_SPIKE_RATIO * next;
        spikes[b] = spike ? highest : -1;
        largest[b] = finite ? spike ? next : high : NAN;
        if (finite && form == ROW_QUANT_PAIRS)
            largest[b] = largest_pair(x, spikes[b]);
    }
}

void row_quant_round_portable(unsigned form, const float *x, size_t blocks, const float *inverses,
                              int8_t *q, int32_t *sums)
{
    for (size_t b = 0; b < blocks; b++, x += ROW_QUANT_BLOCK, q += ROW_QUANT_BLOCK) {
        sums[b] = 0;
        for (int32_t i = 0; i < ROW_QUANT_BLOCK; i++) {
            // A spike, whose block is done again, may be no int at all.
            const float bounded = fmaxf(-128, fminf(x[i] * inverses[b], 127));
            const int8_t rounded = (int8_t)lrintf(bounded);
            q[i / 8 * 8 + row_quant_place(form, i % 8)] = rounded;
            sums[b] += rounded;
        }
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

// Rows' part of struct row_narrow. Blocks lie one after another, so most is done for all at once.
struct narrow_rows {
    unsigned form;
    int32_t rows;
    size_t blocks; // of a row
    const float *x;
    int8_t *q;
    float *row_scales, *scales, *offsets;
    uint32_t *factors;
    int32_t *minus_sums, *spike_counts;
    struct row_spike *spikes;
    row_quant_scan_fn *scan;
    row_quant_round_fn *round;
};

static struct narrow_rows narrow_rows_of(const struct row_quant *quant, int32_t first, int32_t end)
{
    const bool portable = quant->isa == CPU_PORTABLE;
    const struct row_narrow *narrow = &quant->narrow;
    const size_t blocks = (size_t)quant->d_in / ROW_QUANT_BLOCK, at = (size_t)first * blocks;
    return (struct narrow_rows){
        .form = quant->forms & (ROW_QUANT_NARROW | ROW_QUANT_PAIRS),
        .rows = end - first,
        .blocks = blocks,
        .x = quant->x + at * ROW_QUANT_BLOCK,
        .q = narrow->q + at * ROW_QUANT_BLOCK,
        .row_scales = narrow->row_scales + first,
        .scales = narrow->scales + at,
        .offsets = narrow->offsets + at,
        .factors = narrow->factors + at,
        .minus_sums = narrow->minus_sums + at,
        .spike_counts = narrow->spike_counts + first,
        .spikes = narrow->spikes + at,
        .scan = portable ? row_quant_scan_portable : row_quant_scan_avx2,
        .round = portable ? row_quant_round_portable : row_quant_round_avx2,
    };
}

static void list_spikes(const struct narrow_rows *all, const int32_t *places)
{
    const size_t blocks = all->blocks;
    for (size_t row = 0; row < (size_t)all->rows; row++) {
        int32_t count = 0;
        for (size_t b = row * blocks; b < (row + 1) * blocks; b++)
            if (places[b] >= 0) {
                const size_t at = b * ROW_QUANT_BLOCK + (size_t)places[b];
                all->spikes[row * blocks + (size_t)count++] =
                    (struct row_spike){(uint32_t)(at - row * blocks * ROW_QUANT_BLOCK), all->x[at]};
            }
        all->spike_counts[row] = count;
    }
}

// The largest of magnitudes, by their bits, which order them and put NaN above all.
static float largest_of(const float *magnitudes, size_t count)
{
    int32_t top = 0;
    for (size_t i = 0; i < count; i++) {
        int32_t bits;
        memcpy(&bits, &magnitudes[i], sizeof bits);
        top = bits > top ? bits : top;
    }
    float found;
    memcpy(&found, &top, sizeof found);
    return found;
}

// 1 / scale; 0 where that is no number, and then all q are 0.
static float inverse_or_0(float scale)
{
    const float inverse = 1 / scale;
    return inverse <= FLT_MAX ? inverse : 0;
}

// A row's scales, on entry what the blocks' 127 has to stand for, become factors of the row's
// scale, whole and rounded up. In a row of less than 1e-34 all are 1 and all q 0.
static void find_factors(size_t blocks, float top, float *row_scale, float *scales,
                         uint32_t *restrict factors, float *restrict inverses)
{
    const float unit = top / (FACTOR_MAX * LEVELS), factors_of = FACTOR_MAX * inverse_or_0(top);
    const float usable = factors_of <= FLT_MAX ? factors_of : 0;
    for (size_t b = 0; b < blocks; b++) {
        const int32_t below = (int32_t)(scales[b] * usable);
        const int32_t factor = below < FACTOR_MAX ? below + 1 : FACTOR_MAX;
        factors[b] = (uint32_t)factor * 0x10001U;
        scales[b] = (float)factor;
        inverses[b] = inverse_or_0(unit * (float)factor);
    }
    *row_scale = unit;
}

static void find_scales(const struct narrow_rows *all, float *inverses)
{
    const size_t blocks = all->blocks;
    for (size_t row = 0; row < (size_t)all->rows; row++) {
        float *scales = all->scales + row * blocks, *row_inverses = inverses + row * blocks;
        const float top = largest_of(scales, blocks);
        if (!(top <= FLT_MAX)) {
            all->row_scales[row] = NAN;
            memset(row_inverses, 0, blocks * sizeof *inverses);
        } else if (all->form == ROW_QUANT_NARROW) {
            find_factors(blocks, top, &all->row_scales[row], scales, all->factors + row * blocks,
                         row_inverses);
        } else {
            all->row_scales[row] = 1;
            for (size_t b = 0; b < blocks; b++) {
                scales[b] /= LEVELS;
                row_inverses[b] = inverse_or_0(scales[b]);
            }
        }
    }
}

// Blocks with a spike once more, without it.
static void round_beside_spikes(const struct narrow_rows *all, const float *inverses, int32_t *sums)
{
    for (size_t row = 0; row < (size_t)all->rows; row++)
        for (int32_t i = 0; i < all->spike_counts[row]; i++) {
            const uint32_t k = all->spikes[row * all->blocks + (size_t)i].k;
            const size_t b = row * all->blocks + k / ROW_QUANT_BLOCK;
            float rest[ROW_QUANT_BLOCK];
            memcpy(rest, all->x + b * ROW_QUANT_BLOCK, sizeof rest);
            rest[k % ROW_QUANT_BLOCK] = 0;
            all->round(all->form, rest, 1, inverses + b, all->q + b * ROW_QUANT_BLOCK, sums + b);
        }
}

// Rows that are not finite: their scale is NaN, the rest need only be numbers.
static void clear_broken_rows(const struct narrow_rows *all)
{
    const size_t blocks = all->blocks;
    for (size_t row = 0; row < (size_t)all->rows; row++) {
        if (!isnan(all->row_scales[row]))
            continue;
        memset(all->q + row * blocks * ROW_QUANT_BLOCK, 0, blocks * ROW_QUANT_BLOCK);
        memset(all->scales + row * blocks, 0, blocks * sizeof *all->scales);
        memset(all->factors + row * blocks, 0, blocks * sizeof *all->factors);
        memset(all->minus_sums + row * blocks, 0, blocks * sizeof *all->minus_sums);
    }
}

// Until they have their own values, arrays hold what leads to them.
static void fill_narrow(const struct row_quant *quant, int32_t first, int32_t end)
{
    const struct narrow_rows all = narrow_rows_of(quant, first, end);
    const size_t count = (size_t)all.rows * all.blocks;
    float *largest = all.scales, *inverses = all.offsets;
    int32_t *places = all.minus_sums, *sums = all.minus_sums;
    all.scan(all.form, all.x, count, largest, places);
    list_spikes(&all, places);
    find_scales(&all, inverses);
    all.round(all.form, all.x, count, inverses, all.q, sums);
    round_beside_spikes(&all, inverses, sums);
    clear_broken_rows(&all);
    for (size_t b = 0; b < count; b++) {
        all.offsets[b] = all.scales[b] * (float)sums[b];
        sums[b] = -sums[b];
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
    quant->narrow.row_scales = take(&next, rows * sizeof(float));
    quant->narrow.scales = take(&next, blocks * sizeof(float));
    quant->narrow.factors = take(&next, blocks * sizeof(uint32_t));
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
