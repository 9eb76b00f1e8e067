// SPDX-License-Identifier: Apache-2.0
// The bodies of matmul_int8_panels, compiled once per instruction set by matmul_int8.c,
// matmul_int8_avx2.c, matmul_int8_avx512.c and matmul_int8_vnni.c. Each defines, for vectors of
// VEC_LANES words, a word for each output:
//   INT8_SUFFIX, INT8_ROWS     the name, and rows of a tile: as many as the registers hold
//   INT8_WORDS_IN_MEMORY       where dot_* take each x as the address of its word, else broadcast
//   dot_nibbles(sum, w, x)     adds products of unsigned bytes w (0 .. 15) and signed bytes x to
//                              sums of a form of its own; holds for a block's 8 calls
//   nibbles_scaled(sum, factor, scale)
//                              each output's sum times the block's scale, given as two 16-bit
//                              words and as f32, rounded to f32 once
//   dot_bytes(sum, w, x)       adds products of unsigned bytes w and signed bytes x, of the form
//                              ROW_QUANT_PAIRS, to 32-bit words
//   dot_pairs(sum, w, x)       adds both products of each word's 16-bit pairs to that word
// Integer sums of a block are exact, so all orders and widths give the same bits; the chain of
// f32 sums over blocks is spelled out in finish_nibbles and finish_bytes.
#ifndef KERNEL_MATMUL_INT8_BODY_H
#define KERNEL_MATMUL_INT8_BODY_H

#include "base/assert.h"
#include "kernel/kernel_dispatch.h"
#include "kernel/panel.h"

#define VECS (WEIGHT_PANEL_ROWS / VEC_LANES)
#define UNITS 4             // words of nibbles in a row's block
#define PREFETCH_BYTES 2048 // how far ahead a panel's only tile fetches
#define PREFETCH_TILES 4    // of a panel, over which fetching the next one is spread
#define FETCH_LINES 4       // of regions that a tile asks for with a block

#define PASTE_AGAIN(name, suffix) name##_##suffix
#define PASTE(name, suffix) PASTE_AGAIN(name, suffix)

// What is multiplied: weights of a type and the form of x that goes with them.
enum int8_kind { INT8_Q4_0, INT8_Q4_1, INT8_WIDE, INT8_PAIRS };

LANES_FN enum weight_type type_of(enum int8_kind kind)
{
    return kind == INT8_Q4_0 ? WEIGHT_Q4_0 : kind == INT8_Q4_1 ? WEIGHT_Q4_1 : WEIGHT_Q8_0;
}

// Memory that a tile fetches into the cache, `step` bytes with each block.
struct int8_fetch {
    const uint8_t *at, *end;
    size_t step;
};

// A walk over regions, which goes on from tile to tile and panel to panel: over the job's own, then
// over those of job->ahead.
struct int8_walk {
    const uint8_t *at, *end;                 // what is left of a region
    const struct matmul_region *next, *last; // those after it
};
struct int8_regions {
    struct int8_walk now, later;
    int64_t allowed; // bytes that this panel may still ask for
};

static struct int8_walk walk_from(const struct matmul_ahead *list, size_t from)
{
    struct int8_walk walk = {0};
    if (list == NULL || from >= list->bytes)
        return walk;
    int32_t low = 0; // the last region that does not begin after `from`
    for (int32_t high = list->region_count; high - low > 1;) {
        const int32_t middle = low + (high - low) / 2;
        if (list->regions[middle].before <= from)
            low = middle;
        else
            high = middle;
    }
    const struct matmul_region *region = &list->regions[low];
    walk.at = (const uint8_t *)region->first + (from - region->before);
    walk.end = (const uint8_t *)region->first + region->bytes;
    walk.next = region + 1;
    walk.last = list->regions + list->region_count;
    return walk;
}

// False: none is left.
static bool next_region(struct int8_regions *regions)
{
    struct int8_walk *now = &regions->now;
    if (now->next == now->last) {
        *now = regions->later;
        regions->later = (struct int8_walk){0};
        return now->at != NULL;
    }
    now->at = now->next->first;
    now->end = now->at + now->next->bytes;
    now->next++;
    return true;
}

// Asks for the next lines, as far as the panel is allowed to. At a region's end that may be lines
// past it: to look at each costs more.
LANES_FN void fetch_regions(struct int8_regions *regions)
{
    struct int8_walk *now = &regions->now;
    if (regions->allowed <= 0)
        return;
    while (now->at >= now->end)
        if (!next_region(regions)) {
            regions->allowed = 0;
            return;
        }
    LANES_UNROLL(4)
    for (int i = 0; i < FETCH_LINES; i++)
        __builtin_prefetch(now->at + 64 * i, 0, 2);
    now->at += 64 * FETCH_LINES;
    regions->allowed -= 64 * FETCH_LINES;
}

// Where a tile has a panel's nibbles from: unpacked as it goes; the same, and kept for the panel's
// other tiles, of which a multiplication is then all that is left; or kept by the first.
enum nibble_source { NIBBLES_PACKED, NIBBLES_SPREADING, NIBBLES_SPREAD };

// One tile: `rows` rows by the 16 outputs of a panel.
struct int8_tile {
    const struct matmul_job *job;
    const uint8_t *panel; // its packed data
    uint8_t *spread;      // the same, spread (kernel_dispatch.h)
    int32_t row, column;
    struct int8_fetch next; // of the panel that comes next
    struct int8_regions *ahead;
};

#define ROW_GROUP 3 // rows behind one pointer: strides of 0, 1 and 2 are addressing modes
#define ROW_GROUPS ((INT8_ROWS + ROW_GROUP - 1) / ROW_GROUP)

// Where a tile's rows are in the block at hand: what moves on from block to block.
struct int8_rows {
    size_t d_in, blocks; // strides from row to row
    const int8_t *narrow[ROW_GROUPS];
    const int16_t *wide[ROW_GROUPS];
    const float *scales[ROW_GROUPS], *offsets[ROW_GROUPS];
    const uint32_t *factors[ROW_GROUPS];
    const int32_t *minus_sums[ROW_GROUPS];
};

LANES_FN struct int8_rows first_block(enum int8_kind kind, int rows, const struct int8_tile *tile)
{
    const struct row_quant *quant = tile->job->quant;
    struct int8_rows at = {.d_in = (size_t)quant->d_in,
                           .blocks = (size_t)quant->d_in / PANEL_BLOCK_VALUES};
    LANES_UNROLL(3)
    for (int g = 0; g < ROW_GROUPS; g++) {
        const size_t row = (size_t)(tile->row + (g * ROW_GROUP < rows ? g * ROW_GROUP : 0));
        if (kind == INT8_WIDE) {
            at.wide[g] = quant->wide.q + row * at.d_in;
            at.scales[g] = quant->wide.scales + row * at.blocks;
            at.minus_sums[g] = quant->wide.minus_sums + row * at.blocks;
            continue;
        }
        at.narrow[g] = quant->narrow.q + row * at.d_in;
        at.scales[g] = quant->narrow.scales + row * at.blocks;
        at.offsets[g] = quant->narrow.offsets + row * at.blocks;
        at.factors[g] = quant->narrow.factors + row * at.blocks;
        at.minus_sums[g] = quant->narrow.minus_sums + row * at.blocks;
    }
    return at;
}

LANES_FN void next_block(enum int8_kind kind, struct int8_rows *at)
{
    LANES_UNROLL(3)
    for (int g = 0; g < ROW_GROUPS; g++) {
        at->scales[g]++;
        if (kind == INT8_WIDE)
            at->wide[g] += PANEL_BLOCK_VALUES;
        else
            at->narrow[g] += PANEL_BLOCK_VALUES;
        at->offsets[g]++;
        at->factors[g]++;
        at->minus_sums[g]++;
    }
}

LANES_FN ivec word_at(const void *from)
{
    int32_t word;
    memcpy(&word, from, sizeof word);
    return ivec_set1(word);
}

// A word of a row's x, for all outputs.
#if defined(INT8_WORDS_IN_MEMORY)
typedef const void *row_word;
LANES_FN row_word row_word_at(const void *from)
{
    return from;
}
#else
typedef ivec row_word;
LANES_FN row_word row_word_at(const void *from)
{
    return word_at(from);
}
#endif

// The even and odd k of a unit of a block.
LANES_FN void unit_nibbles(enum nibble_source source, int unit, const uint8_t *quants,
                           uint8_t *spread, ivec even[VECS], ivec odd[VECS])
{
    const ivec mask = ivec_set1(0x0f0f0f0f);
    LANES_UNROLL(2)
    for (int v = 0; v < VECS; v++) {
        uint8_t *kept = spread + (unit * VECS + v) * 8 * VEC_LANES;
        if (source == NIBBLES_SPREAD) {
            even[v] = ivec_load(kept);
            odd[v] = ivec_load(kept + 4 * VEC_LANES);
            continue;
        }
        ivec word = ivec_load(quants + (unit * VECS + v) * 4 * VEC_LANES);
        even[v] = ivec_and(word, mask);
        odd[v] = ivec_and(ivec_srl(word, 4), mask);
        if (source == NIBBLES_SPREADING) {
            ivec_store(kept, even[v]);
            ivec_store(kept + 4 * VEC_LANES, odd[v]);
        }
    }
}

// The block's products of all rows: sums [rows][VECS], exact.
LANES_FN void nibble_block(enum nibble_source source, int rows, const struct int8_rows *at,
                           const uint8_t *quants, uint8_t *spread, ivec *sums)
{
    LANES_UNROLL(32)
    for (int i = 0; i < rows * VECS; i++)
        sums[i] = ivec_set1(0);
    LANES_UNROLL(4)
    for (int unit = 0; unit < UNITS; unit++) {
        ivec low[VECS], high[VECS];
        unit_nibbles(source, unit, quants, spread, low, high);
        LANES_UNROLL(8)
        for (int r = 0; r < rows; r++) {
            const int8_t *x = at->narrow[r / ROW_GROUP] + (size_t)(r % ROW_GROUP) * at->d_in;
            row_word even = row_word_at(x + 8 * unit), odd = row_word_at(x + 8 * unit + 4);
            LANES_UNROLL(2)
            for (int v = 0; v < VECS; v++) {
                sums[r * VECS + v] = dot_nibbles(sums[r * VECS + v], low[v], even);
                sums[r * VECS + v] = dot_nibbles(sums[r * VECS + v], high[v], odd);
            }
        }
    }
}

// Scales and minimums of a block of nibbles, w = d * q + m; those of Q4_0 have 8 too much.
LANES_FN void nibble_scales(enum int8_kind kind, enum nibble_source source, const uint8_t *scales,
                            float *kept, vec d[VECS], vec m[VECS])
{
    LANES_UNROLL(2)
    for (int v = 0; v < VECS; v++) {
        const uint16_t *from = (const uint16_t *)scales + v * VEC_LANES;
        float *keep = kept + 2 * v * VEC_LANES;
        if (source == NIBBLES_SPREAD) {
            d[v] = vec_load(keep);
            m[v] = vec_load(keep + VEC_LANES);
            continue;
        }
        d[v] = vec_load_f16(from);
        m[v] = kind == INT8_Q4_1 ? vec_load_f16(from + WEIGHT_PANEL_ROWS)
                                 : vec_mul(d[v], vec_set1(-8));
        if (source == NIBBLES_SPREADING) {
            vec_store(keep, d[v]);
            vec_store(keep + VEC_LANES, m[v]);
        }
    }
}

// What the chains of a tile's rows gain from a block of nibbles: d * (scale * sum) and
// m * (scale * sum(q)).
LANES_FN void finish_nibbles(int rows, const struct int8_rows *at, const vec d[VECS],
                             const vec m[VECS], const ivec *sums, vec *acc)
{
    LANES_UNROLL(8)
    for (int r = 0; r < rows; r++) {
        const int g = r / ROW_GROUP;
        const size_t of_row = (size_t)(r % ROW_GROUP) * at->blocks;
        const ivec factor = word_at(&at->factors[g][of_row]);
        const vec scale = vec_set1(at->scales[g][of_row]);
        const vec offset = vec_set1(at->offsets[g][of_row]);
        LANES_UNROLL(2)
        for (int v = 0; v < VECS; v++) {
            vec *to = &acc[r * VECS + v];
            *to = vec_fma(nibbles_scaled(sums[r * VECS + v], factor, scale), d[v], *to);
            *to = vec_fma(m[v], offset, *to);
        }
    }
}

LANES_FN void add_nibbles(enum int8_kind kind, enum nibble_source source, int rows,
                          const struct int8_rows *at, const uint8_t *data, uint8_t *spread,
                          vec *acc)
{
    ivec sums[INT8_ROWS * VECS];
    vec d[VECS], m[VECS];
    nibble_block(source, rows, at, data + panel_scale_bytes(type_of(kind)), spread, sums);
    nibble_scales(kind, source, data, (float *)(void *)(spread + MATMUL_SPREAD_SCALES), d, m);
    finish_nibbles(rows, at, d, m, sums, acc);
}

// What 128 times the row's values, which the bytes have too much, leaves to begin with.
LANES_FN void begin_bytes(int rows, const struct int8_rows *at, ivec *sums)
{
    LANES_UNROLL(8)
    for (int r = 0; r < rows; r++) {
        ivec begin = word_at(at->minus_sums[r / ROW_GROUP] + (size_t)(r % ROW_GROUP) * at->blocks);
        begin = ivec_sll(begin, 7);
        LANES_UNROLL(2)
        for (int v = 0; v < VECS; v++)
            sums[r * VECS + v] = begin;
    }
}

LANES_FN void pair_block(int rows, const struct int8_rows *at, const uint8_t *quants, ivec *sums)
{
    begin_bytes(rows, at, sums);
    LANES_UNROLL(8)
    for (int w = 0; w < PANEL_BLOCK_VALUES / 4; w++) {
        ivec words[VECS];
        LANES_UNROLL(2)
        for (int v = 0; v < VECS; v++)
            words[v] = ivec_load(quants + w * 4 * WEIGHT_PANEL_ROWS + v * 4 * VEC_LANES);
        LANES_UNROLL(8)
        for (int r = 0; r < rows; r++) {
            const int8_t *x = at->narrow[r / ROW_GROUP] + (size_t)(r % ROW_GROUP) * at->d_in;
            row_word word = row_word_at(x + 4 * w);
            LANES_UNROLL(2)
            for (int v = 0; v < VECS; v++)
                sums[r * VECS + v] = dot_bytes(sums[r * VECS + v], words[v], word);
        }
    }
}

LANES_FN void wide_block(int rows, const struct int8_rows *at, const uint8_t *quants, ivec *sums)
{
    const ivec mask = ivec_set1(0x00ff00ff);
    begin_bytes(rows, at, sums);
    LANES_UNROLL(2)
    for (int w = 0; w < PANEL_BLOCK_VALUES / 4; w++) {
        ivec even[VECS], odd[VECS];
        LANES_UNROLL(2)
        for (int v = 0; v < VECS; v++) {
            ivec word = ivec_load(quants + w * 4 * WEIGHT_PANEL_ROWS + v * 4 * VEC_LANES);
            even[v] = ivec_and(word, mask);
            odd[v] = ivec_and(ivec_srl(word, 8), mask);
        }
        LANES_UNROLL(8)
        for (int r = 0; r < rows; r++) {
            const int16_t *x = at->wide[r / ROW_GROUP] + (size_t)(r % ROW_GROUP) * at->d_in;
            row_word low = row_word_at(x + 4 * w), high = row_word_at(x + 4 * w + 2);
            LANES_UNROLL(2)
            for (int v = 0; v < VECS; v++) {
                sums[r * VECS + v] = dot_pairs(sums[r * VECS + v], even[v], low);
                sums[r * VECS + v] = dot_pairs(sums[r * VECS + v], odd[v], high);
            }
        }
    }
}

// What the chains of a tile's rows gain from a block of bytes: d * scale * sum.
LANES_FN void add_bytes(enum int8_kind kind, int rows, const struct int8_rows *at,
                        const uint8_t *data, vec *acc)
{
    ivec sums[INT8_ROWS * VECS];
    const uint8_t *quants = data + panel_scale_bytes(WEIGHT_Q8_0);
    if (kind == INT8_WIDE)
        wide_block(rows, at, quants, sums);
    else
        pair_block(rows, at, quants, sums);
    vec d[VECS];
    LANES_UNROLL(2)
    for (int v = 0; v < VECS; v++)
        d[v] = vec_load_f16((const uint16_t *)data + v * VEC_LANES);
    LANES_UNROLL(8)
    for (int r = 0; r < rows; r++) {
        const float scale = at->scales[r / ROW_GROUP][(size_t)(r % ROW_GROUP) * at->blocks];
        LANES_UNROLL(2)
        for (int v = 0; v < VECS; v++) {
            vec *to = &acc[r * VECS + v];
            *to = vec_fma(vec_from_int(sums[r * VECS + v]), vec_mul(d[v], vec_set1(scale)), *to);
        }
    }
}

// Column k of a panel, as quant_row_to_f32 gives it.
LANES_FN vec column_vec(enum weight_type type, const uint8_t *panel, uint32_t k, int v)
{
    const bool nibbles = type != WEIGHT_Q8_0;
    const uint32_t each = nibbles ? 8 : 4, bits = nibbles ? 4 : 8; // k of a word, bits of one
    const uint8_t *block = panel + (size_t)(k / PANEL_BLOCK_VALUES) * panel_block_bytes(type);
    const uint16_t *scales = (const uint16_t *)block + v * VEC_LANES;
    const uint32_t in_block = k % PANEL_BLOCK_VALUES;
    const uint8_t *words = block + panel_scale_bytes(type) +
                           in_block / each * 4 * WEIGHT_PANEL_ROWS + v * 4 * VEC_LANES;
    vec d = vec_load_f16(scales);
    ivec q = ivec_and(ivec_srl(ivec_load(words), (int)(bits * (in_block % each))),
                      ivec_set1(nibbles ? 15 : 255));
    if (type == WEIGHT_Q4_1)
        return vec_fma(vec_from_int(q), d, vec_load_f16(scales + WEIGHT_PANEL_ROWS));
    return vec_mul(vec_from_int(ivec_sub(q, ivec_set1(nibbles ? 8 : 128))), d);
}

// Then each row's scale, and its spikes in order of k.
LANES_FN void finish_rows(enum weight_type type, int rows, const struct int8_tile *tile, vec *acc)
{
    const struct row_quant *quant = tile->job->quant;
    const size_t blocks = (size_t)quant->d_in / PANEL_BLOCK_VALUES;
    LANES_UNROLL(8)
    for (int r = 0; r < rows; r++) {
        const vec scale = vec_set1(quant->narrow.row_scales[tile->row + r]);
        LANES_UNROLL(2)
        for (int v = 0; v < VECS; v++)
            acc[r * VECS + v] = vec_mul(acc[r * VECS + v], scale);
        const struct row_spike *spikes = quant->narrow.spikes + (size_t)(tile->row + r) * blocks;
        const int32_t count = quant->narrow.spike_counts[tile->row + r];
        for (int32_t i = 0; i < count; i++) {
            vec value = vec_set1(spikes[i].value);
            LANES_UNROLL(2)
            for (int v = 0; v < VECS; v++)
                acc[r * VECS + v] = vec_fma(column_vec(type, tile->panel, spikes[i].k, v), value,
                                            acc[r * VECS + v]);
        }
    }
}

LANES_FN void fetch_on(struct int8_fetch *fetch)
{
    const uint8_t *end = fetch->at + fetch->step;
    for (; fetch->at < end && fetch->at < fetch->end; fetch->at += 64)
        __builtin_prefetch(fetch->at, 0, 2);
}

LANES_FN void run_tile(enum int8_kind kind, enum nibble_source source, int rows,
                       const struct int8_tile *tile)
{
    const enum weight_type type = type_of(kind);
    const struct matmul_job *job = tile->job;
    const int32_t d_out = job->weight->d_out, columns = d_out - tile->column;
    float *y = job->y + (size_t)tile->row * (size_t)d_out + tile->column;
    vec acc[INT8_ROWS * VECS];
    LANES_UNROLL(32)
    for (int i = 0; i < rows * VECS; i++)
        acc[i] = vec_zero();
    LANES_UNROLL(8)
    for (int r = 0; r < rows; r++) // a store that waits for its line holds up those of the sums
        __builtin_prefetch(y + (size_t)r * (size_t)d_out, 1, 3);
    const uint8_t *data = tile->panel;
    uint8_t *spread = tile->spread;
    struct int8_rows at = first_block(kind, rows, tile);
    struct int8_fetch next = tile->next;
    const bool fetches = next.at < next.end || tile->ahead->allowed > 0;
    for (size_t left = at.blocks; left > 0; left--) {
        if (fetches) {
            fetch_on(&next);
            fetch_regions(tile->ahead);
        }
        if (type == WEIGHT_Q8_0)
            add_bytes(kind, rows, &at, data, acc);
        else
            add_nibbles(kind, source, rows, &at, data, spread, acc);
        next_block(kind, &at);
        data += panel_block_bytes(type);
        if (source != NIBBLES_PACKED)
            spread += MATMUL_SPREAD_BYTES;
    }
    if (kind != INT8_WIDE)
        finish_rows(type, rows, tile, acc);
    LANES_UNROLL(32)
    for (int i = 0; i < rows * VECS; i++) {
        int32_t first = i % VECS * VEC_LANES;
        vec_store_part(y + (size_t)(i / VECS) * (size_t)d_out + first, acc[i], columns - first);
    }
}

typedef void int8_tile_fn(const struct int8_tile *tile);
#define TILE_ONE(type, source, rows)                                          \
    static void tile_##type##_##source##_##rows(const struct int8_tile *tile) \
    {                                                                         \
        run_tile(INT8_##type, NIBBLES_##source, rows, tile);                  \
    }
#if INT8_ROWS == 4
#define TILES(type, source)                                                                 \
    TILE_ONE(type, source, 1)                                                               \
    TILE_ONE(type, source, 2)                                                               \
    TILE_ONE(type, source, 3)                                                               \
    TILE_ONE(type, source, 4)                                                               \
    static int8_tile_fn *const tiles_##type##_##source[] = {                                \
        tile_##type##_##source##_1, tile_##type##_##source##_2, tile_##type##_##source##_3, \
        tile_##type##_##source##_4};
#else
#define TILES(type, source)                                                                 \
    TILE_ONE(type, source, 1)                                                               \
    TILE_ONE(type, source, 2)                                                               \
    TILE_ONE(type, source, 3)                                                               \
    TILE_ONE(type, source, 4)                                                               \
    TILE_ONE(type, source, 5)                                                               \
    TILE_ONE(type, source, 6)                                                               \
    TILE_ONE(type, source, 7)                                                               \
    TILE_ONE(type, source, 8)                                                               \
    static int8_tile_fn *const tiles_##type##_##source[] = {                                \
        tile_##type##_##source##_1, tile_##type##_##source##_2, tile_##type##_##source##_3, \
        tile_##type##_##source##_4, tile_##type##_##source##_5, tile_##type##_##source##_6, \
        tile_##type##_##source##_7, tile_##type##_##source##_8};
#endif
TILES(Q4_0, PACKED)
TILES(Q4_0, SPREADING)
TILES(Q4_0, SPREAD)
TILES(Q4_1, PACKED)
TILES(Q4_1, SPREADING)
TILES(Q4_1, SPREAD)
TILES(WIDE, PACKED)
TILES(PAIRS, PACKED)

// The tiles of a job, by how many rows they have, less one.
static int8_tile_fn *const *tile_table(const struct matmul_job *job, enum nibble_source source)
{
    static int8_tile_fn *const *const q4_0[] = {tiles_Q4_0_PACKED, tiles_Q4_0_SPREADING,
                                                tiles_Q4_0_SPREAD};
    static int8_tile_fn *const *const q4_1[] = {tiles_Q4_1_PACKED, tiles_Q4_1_SPREADING,
                                                tiles_Q4_1_SPREAD};
    const enum weight_type type = job->weight->type;
    ASSERT(panel_type_quantized(type));
    if (type == WEIGHT_Q8_0)
        return job->quant->forms & ROW_QUANT_PAIRS ? tiles_PAIRS_PACKED : tiles_WIDE_PACKED;
    return (type == WEIGHT_Q4_1 ? q4_1 : q4_0)[source];
}

// Of tile number `index` of a panel's.
static enum nibble_source source_of(const struct matmul_job *job, int32_t index, int32_t tile_count)
{
    if (tile_count == 1 || job->weight->d_in > MATMUL_SPREAD_VALUES_MAX)
        return NIBBLES_PACKED;
    return index == 0 ? NIBBLES_SPREADING : NIBBLES_SPREAD;
}

// All rows [low, high) by one panel, in tiles of nearly equal height. The first ones fetch the
// weights that come next, a part each, so that memory is not asked for more at once than it gives,
// and of the job's regions what a panel may. The others need not look.
static void run_panel(const struct matmul_job *job, int32_t panel, int32_t low, int32_t high,
                      struct int8_regions *ahead, uint8_t *spread)
{
    const size_t block_bytes = panel_block_bytes(job->weight->type);
    const size_t bytes = (size_t)(job->weight->d_in / PANEL_BLOCK_VALUES) * block_bytes;
    const int32_t tile_count = (high - low + INT8_ROWS - 1) / INT8_ROWS;
    const int32_t fetching = tile_count < PREFETCH_TILES ? tile_count : PREFETCH_TILES;
    struct int8_tile tile = {.job = job,
                             .panel = panel_data(job->weight, panel),
                             .spread = spread,
                             .ahead = ahead,
                             .row = low,
                             .column = panel * WEIGHT_PANEL_ROWS};
    // May go on past the last panel: a hint may.
    tile.next.end = tile.panel + (tile_count == 1 ? PREFETCH_BYTES : bytes);
    tile.next.step = (block_bytes / (size_t)fetching + 63) / 64 * 64;
    const uint8_t *last = tile.next.end + bytes;
    for (int32_t i = 0; i < tile_count; i++) {
        int32_t rows = (high - tile.row) / (tile_count - i);
        size_t part = tile.next.step * (size_t)(job->weight->d_in / PANEL_BLOCK_VALUES);
        tile.next.at = tile.next.end;
        tile.next.end = (size_t)(last - tile.next.at) < part ? last : tile.next.at + part;
        tile_table(job, source_of(job, i, tile_count))[rows - 1](&tile);
        tile.row += rows;
    }
}

// Rows in blocks that stay in the second cache while a task's panels pass over them.
void PASTE(matmul_int8_panels, INT8_SUFFIX)(const struct matmul_job *job, int32_t first,
                                            int32_t count, uint8_t *spread)
{
    const int32_t rows_each = job->weight->d_in > 2048 ? 64 : 128;
    struct int8_regions ahead = {.now = walk_from(&job->own, 0),
                                 .later = walk_from(job->ahead, job->ahead_from)};
    const size_t each = job->ahead_each + (job->own.bytes + (size_t)count - 1) / (size_t)count;
    for (int32_t low = 0; low < job->m; low += rows_each) {
        const int32_t high = job->m - low < rows_each ? job->m : low + rows_each;
        for (int32_t panel = first; panel < first + count; panel++) {
            ahead.allowed += low == 0 ? (int64_t)each : 0;
            run_panel(job, panel, low, high, &ahead, spread);
        }
    }
}

#endif
