// SPDX-License-Identifier: Apache-2.0
// The bodies of matmul_panels and panel_unpack, compiled once per instruction set by matmul.c,
// matmul_avx2.c and matmul_avx512.c, which define MATMUL_SUFFIX. Few rows: weights are unpacked in
// registers, several panels side by side to hide the latency of the accumulators' chains. More
// rows: a panel is unpacked a chunk of k at a time, then tiles of rows x 16 outputs run over it.
// In both, an output is one chain of fused multiply-adds over k.
#ifndef KERNEL_MATMUL_BODY_H
#define KERNEL_MATMUL_BODY_H

#include "base/assert.h"
#include "kernel/kernel_dispatch.h"
#include "kernel/lanes.h"
#include "kernel/panel.h"

#define VECS (WEIGHT_PANEL_ROWS / VEC_LANES) // vectors in one k of a panel
// Rows up to which weights are unpacked in registers, and rows in a tile: as many as the
// registers hold (16 with AVX2, 32 with AVX-512). Plain C has no use for either.
#if defined(LANES_PORTABLE)
#define DIRECT_ROWS_MAX 0
#define TILE_ROWS_MAX 4
#elif VEC_LANES == 16
#define DIRECT_ROWS_MAX 7
#define TILE_ROWS_MAX 12
#else
#define DIRECT_ROWS_MAX 4
#define TILE_ROWS_MAX 6
#endif
#define DIRECT_VECS_MAX 16 // accumulators of a direct group
#define UNIT_VALUES 8      // k handled at a time: one word of nibbles

#define PASTE_AGAIN(name, suffix) name##_##suffix
#define PASTE(name, suffix) PASTE_AGAIN(name, suffix)

// What the quants of 16 / VECS rows are multiplied with. d_high: for the upper nibble of a byte,
// which is used where it stands, 16 times too large. All scalings are by powers of two: exact.
struct scales {
    vec d, d_high, m;
};

LANES_FN struct scales load_scales(enum weight_type type, const uint8_t *block, int v)
{
    const uint16_t *from = (const uint16_t *)block + v * VEC_LANES;
    vec d = vec_load_f16(from);
    if (type == WEIGHT_Q8_0) // bytes are used at the top of their word
        return (struct scales){vec_mul(d, vec_set1(0x1p-24f)), d, d};
    vec m = type == WEIGHT_Q4_1 ? vec_load_f16(from + WEIGHT_PANEL_ROWS) : d;
    return (struct scales){d, vec_mul(d, vec_set1(0x1p-4f)), m};
}

// A unit's quants of VEC_LANES rows: one word each (4 bits), or two (8 bits).
struct raw {
    ivec word[2];
};

LANES_FN struct raw load_raw(enum weight_type type, const uint8_t *quants, int unit, int v)
{
    const size_t stride = 4 * WEIGHT_PANEL_ROWS;
    const uint8_t *from = quants + 4 * VEC_LANES * v;
    struct raw raw;
    if (type == WEIGHT_Q8_0) {
        const ivec signs = ivec_set1((int32_t)0x80808080u);
        raw.word[0] = ivec_xor(ivec_load(from + 2 * (size_t)unit * stride), signs);
        raw.word[1] = ivec_xor(ivec_load(from + (2 * (size_t)unit + 1) * stride), signs);
    } else {
        raw.word[0] = raw.word[1] = ivec_load(from + (size_t)unit * stride);
    }
    return raw;
}

// Weight j (0 to 7) of a unit as f32, rounded once as quant_row_to_f32 does.
LANES_FN vec quant_vec(enum weight_type type, const struct raw *raw, const struct scales *s, int j)
{
    if (type == WEIGHT_Q8_0) {
        ivec top = raw->word[j / 4];
        if (j % 4 != 3)
            top = ivec_sll(top, 24 - 8 * (j % 4));
        if (j % 4 != 0)
            top = ivec_and(top, ivec_set1((int32_t)0xff000000u));
        return vec_mul(vec_from_int(top), s->d);
    }
    ivec word = raw->word[0];
    if (j / 2 != 0)
        word = ivec_srl(word, 8 * (j / 2));
    ivec q = ivec_and(word, ivec_set1(j % 2 == 0 ? 0x0f : 0xf0));
    vec d = j % 2 == 0 ? s->d : s->d_high;
    if (type == WEIGHT_Q4_1)
        return vec_fma(vec_from_int(q), d, s->m);
    return vec_mul(vec_from_int(ivec_sub(q, ivec_set1(j % 2 == 0 ? 8 : 128))), d);
}

// Asks for the block `ahead` bytes on: the hardware's own prefetch stops where panels end. May
// point past the last panel, which a prefetch may.
LANES_FN void prefetch_block(enum weight_type type, const uint8_t *block, size_t ahead)
{
    uintptr_t first = (uintptr_t)block + ahead;
    LANES_UNROLL(9)
    for (size_t line = 0; line < panel_block_bytes(type); line += 64)
        __builtin_prefetch((const void *)(first + line), 0, 2);
}

LANES_FN vec dense_vec(enum weight_type type, const uint8_t *data, size_t k, int v)
{
    size_t index = k * WEIGHT_PANEL_ROWS + (size_t)(v * VEC_LANES);
    if (type == WEIGHT_F32)
        return vec_load((const float *)data + index);
    const uint16_t *halves = (const uint16_t *)data + index;
    return type == WEIGHT_F16 ? vec_load_f16(halves) : vec_load_bf16(halves);
}

#if DIRECT_ROWS_MAX > 0
// --- few rows: weights unpacked in registers ---

struct direct {
    const uint8_t *data;
    size_t panel_stride; // bytes
    const float *x;      // rows of d_in
    int32_t d_in;
};

LANES_FN void direct_dense(enum weight_type type, int rows, int panels, const struct direct *in,
                           vec *acc)
{
    for (int32_t k = 0; k < in->d_in; k++) {
        LANES_UNROLL(16)
        for (int p = 0; p < panels; p++) {
            LANES_UNROLL(2)
            for (int v = 0; v < VECS; v++) {
                vec w = dense_vec(type, in->data + (size_t)p * in->panel_stride, (size_t)k, v);
                LANES_UNROLL(8)
                for (int r = 0; r < rows; r++) {
                    vec *to = &acc[(p * rows + r) * VECS + v];
                    *to =
                        vec_fma(w, vec_set1(in->x[(size_t)r * (size_t)in->d_in + (size_t)k]), *to);
                }
            }
        }
    }
}

// One unit of one panel into the panel's accumulators.
LANES_FN void direct_unit(enum weight_type type, int rows, const struct direct *in,
                          const uint8_t *quants, const struct scales *s, int32_t block, int unit,
                          vec *acc)
{
    struct raw raw[VECS];
    LANES_UNROLL(2)
    for (int v = 0; v < VECS; v++)
        raw[v] = load_raw(type, quants, unit, v);
    const float *x = in->x + (size_t)block * PANEL_BLOCK_VALUES + (size_t)(unit * UNIT_VALUES);
    LANES_UNROLL(8)
    for (int j = 0; j < UNIT_VALUES; j++) {
        LANES_UNROLL(2)
        for (int v = 0; v < VECS; v++) {
            vec w = quant_vec(type, &raw[v], &s[v], j);
            LANES_UNROLL(8)
            for (int r = 0; r < rows; r++)
                acc[r * VECS + v] = vec_fma(
                    w, vec_set1(x[(size_t)r * (size_t)in->d_in + (size_t)j]), acc[r * VECS + v]);
        }
    }
}

LANES_FN void direct_quantized(enum weight_type type, int rows, int panels, const struct direct *in,
                               vec *acc)
{
    for (int32_t block = 0; block < in->d_in / PANEL_BLOCK_VALUES; block++) {
        const uint8_t *data = in->data + (size_t)block * panel_block_bytes(type);
        struct scales s[DIRECT_VECS_MAX];
        LANES_UNROLL(16)
        for (int p = 0; p < panels; p++)
            LANES_UNROLL(2)
        for (int v = 0; v < VECS; v++)
            s[p * VECS + v] = load_scales(type, data + (size_t)p * in->panel_stride, v);
        LANES_UNROLL(16)
        for (int p = 0; p < panels; p++) // the same block of the next group of panels
            prefetch_block(type, data + (size_t)p * in->panel_stride,
                           (size_t)panels * in->panel_stride);
        data += panel_scale_bytes(type);
        for (int unit = 0; unit < PANEL_BLOCK_VALUES / UNIT_VALUES; unit++)
            LANES_UNROLL(16)
        for (int p = 0; p < panels; p++)
            direct_unit(type, rows, in, data + (size_t)p * in->panel_stride, &s[p * VECS], block,
                        unit, &acc[p * rows * VECS]);
    }
}

// `panels` panels from `first` on for all of the job's rows.
LANES_FN void direct_group(enum weight_type type, int rows, int panels,
                           const struct matmul_job *job, int32_t first)
{
    const struct weight *weight = job->weight;
    struct direct in = {panel_data(weight, first),
                        WEIGHT_PANEL_ROWS * weight_type_row_bytes(type, weight->d_in), job->x,
                        weight->d_in};
    vec acc[DIRECT_VECS_MAX];
    LANES_UNROLL(16)
    for (int i = 0; i < panels * rows * VECS; i++)
        acc[i] = vec_zero();
    if (panel_type_quantized(type))
        direct_quantized(type, rows, panels, &in, acc);
    else
        direct_dense(type, rows, panels, &in, acc);
    LANES_UNROLL(16)
    for (int i = 0; i < panels * rows * VECS; i++) {
        int p = i / (rows * VECS), r = i / VECS % rows, v = i % VECS;
        int32_t column = (first + p) * WEIGHT_PANEL_ROWS + v * VEC_LANES;
        vec_store_part(job->y + (size_t)r * (size_t)weight->d_out + column, acc[i],
                       weight->d_out - column);
    }
}

LANES_FN void direct_panels(enum weight_type type, int rows, int panels,
                            const struct matmul_job *job, int32_t first, int32_t count)
{
    int32_t done = 0;
    for (; done + panels <= count; done += panels)
        direct_group(type, rows, panels, job, first + done);
    for (; panels > 1 && done < count; done++)
        direct_group(type, rows, 1, job, first + done);
}

typedef void direct_fn(const struct matmul_job *job, int32_t first, int32_t count);

// Panels side by side: eight chains or more where the registers allow.
#define DIRECT_ONE(type, rows, panels)                                                             \
    static void direct_##type##_##rows(const struct matmul_job *job, int32_t first, int32_t count) \
    {                                                                                              \
        direct_panels(WEIGHT_##type, rows, panels, job, first, count);                             \
    }
#if VEC_LANES == 16
#define DIRECT_ROWS(type)                                                           \
    DIRECT_ONE(type, 1, 8)                                                          \
    DIRECT_ONE(type, 2, 4)                                                          \
    DIRECT_ONE(type, 3, 4)                                                          \
    DIRECT_ONE(type, 4, 2)                                                          \
    DIRECT_ONE(type, 5, 2)                                                          \
    DIRECT_ONE(type, 6, 2)                                                          \
    DIRECT_ONE(type, 7, 2)                                                          \
    static direct_fn *const direct_of_##type[] = {                                  \
        direct_##type##_1, direct_##type##_2, direct_##type##_3, direct_##type##_4, \
        direct_##type##_5, direct_##type##_6, direct_##type##_7};
#else
#define DIRECT_ROWS(type)                                                               \
    DIRECT_ONE(type, 1, 4)                                                              \
    DIRECT_ONE(type, 2, 1)                                                              \
    DIRECT_ONE(type, 3, 1)                                                              \
    DIRECT_ONE(type, 4, 1)                                                              \
    static direct_fn *const direct_of_##type[] = {direct_##type##_1, direct_##type##_2, \
                                                  direct_##type##_3, direct_##type##_4};
#endif
DIRECT_ROWS(F32)
DIRECT_ROWS(F16)
DIRECT_ROWS(BF16)
DIRECT_ROWS(Q4_0)
DIRECT_ROWS(Q4_1)
DIRECT_ROWS(Q8_0)

static direct_fn *const *direct_table(enum weight_type type)
{
    switch (type) {
    case WEIGHT_F32:
        return direct_of_F32;
    case WEIGHT_F16:
        return direct_of_F16;
    case WEIGHT_BF16:
        return direct_of_BF16;
    case WEIGHT_Q4_0:
        return direct_of_Q4_0;
    case WEIGHT_Q4_1:
        return direct_of_Q4_1;
    case WEIGHT_Q8_0:
        return direct_of_Q8_0;
    }
    ASSERT(!"a known type");
    return NULL;
}
#endif

// --- more rows: chunks of a panel unpacked to f32, then tiles ---

LANES_FN void unpack_dense(enum weight_type type, const uint8_t *data, int32_t k_first,
                           int32_t k_count, float *out)
{
    for (int32_t k = 0; k < k_count; k++)
        LANES_UNROLL(2)
    for (int v = 0; v < VECS; v++)
        vec_store(out + (size_t)k * WEIGHT_PANEL_ROWS + v * VEC_LANES,
                  dense_vec(type, data, (size_t)(k_first + k), v));
}

LANES_FN void unpack_quantized(enum weight_type type, const uint8_t *data, int32_t k_first,
                               int32_t k_count, size_t panel_stride, float *out)
{
    for (int32_t block = 0; block < k_count / PANEL_BLOCK_VALUES; block++) {
        const uint8_t *from =
            data + (size_t)(k_first / PANEL_BLOCK_VALUES + block) * panel_block_bytes(type);
        prefetch_block(type, from, panel_stride);
        LANES_UNROLL(2)
        for (int v = 0; v < VECS; v++) {
            struct scales s = load_scales(type, from, v);
            for (int unit = 0; unit < PANEL_BLOCK_VALUES / UNIT_VALUES; unit++) {
                struct raw raw = load_raw(type, from + panel_scale_bytes(type), unit, v);
                int k = block * PANEL_BLOCK_VALUES + unit * UNIT_VALUES;
                LANES_UNROLL(8)
                for (int j = 0; j < UNIT_VALUES; j++)
                    vec_store(out + (k + j) * WEIGHT_PANEL_ROWS + v * VEC_LANES,
                              quant_vec(type, &raw, &s, j));
            }
        }
    }
}

void PASTE(panel_unpack, MATMUL_SUFFIX)(const struct weight *weight, int32_t panel, int32_t k_first,
                                        int32_t k_count, float *out)
{
    const uint8_t *data = panel_data(weight, panel);
    const size_t stride = WEIGHT_PANEL_ROWS * weight_type_row_bytes(weight->type, weight->d_in);
    switch (weight->type) {
    case WEIGHT_F32:
        unpack_dense(WEIGHT_F32, data, k_first, k_count, out);
        return;
    case WEIGHT_F16:
        unpack_dense(WEIGHT_F16, data, k_first, k_count, out);
        return;
    case WEIGHT_BF16:
        unpack_dense(WEIGHT_BF16, data, k_first, k_count, out);
        return;
    case WEIGHT_Q4_0:
        unpack_quantized(WEIGHT_Q4_0, data, k_first, k_count, stride, out);
        return;
    case WEIGHT_Q4_1:
        unpack_quantized(WEIGHT_Q4_1, data, k_first, k_count, stride, out);
        return;
    case WEIGHT_Q8_0:
        unpack_quantized(WEIGHT_Q8_0, data, k_first, k_count, stride, out);
        return;
    }
}

// A tile's part of one chunk: y [rows, columns <= 16] carries the chains from chunk to chunk.
struct tile {
    const float *unpacked; // [k_count][16]
    const float *x;        // rows, x_stride apart, at the chunk's first k
    size_t x_stride;
    int32_t k_count;
    float *y;
    size_t y_stride;
    int32_t columns;
    bool fresh; // the chains start here
};

LANES_FN void run_tile(int rows, const struct tile *tile)
{
    vec acc[TILE_ROWS_MAX * VECS];
    LANES_UNROLL(24)
    for (int i = 0; i < rows * VECS; i++) {
        int32_t first = i % VECS * VEC_LANES;
        acc[i] = tile->fresh ? vec_zero()
                             : vec_load_part(tile->y + (size_t)(i / VECS) * tile->y_stride + first,
                                             tile->columns - first);
    }
    const float *x = tile->x;
    const float *weights = tile->unpacked;
    for (int32_t k = 0; k < tile->k_count; k++, x++, weights += WEIGHT_PANEL_ROWS) {
        vec w[VECS];
        LANES_UNROLL(2)
        for (int v = 0; v < VECS; v++)
            w[v] = vec_load(weights + v * VEC_LANES);
        LANES_UNROLL(12)
        for (int r = 0; r < rows; r++) {
            vec each = vec_set1(x[(size_t)r * tile->x_stride]);
            LANES_UNROLL(2)
            for (int v = 0; v < VECS; v++)
                acc[r * VECS + v] = vec_fma(w[v], each, acc[r * VECS + v]);
        }
    }
    LANES_UNROLL(24)
    for (int i = 0; i < rows * VECS; i++) {
        int32_t first = i % VECS * VEC_LANES;
        vec_store_part(tile->y + (size_t)(i / VECS) * tile->y_stride + first, acc[i],
                       tile->columns - first);
    }
}

typedef void tile_fn(const struct tile *tile);
#define TILE_ONE(rows)                               \
    static void tile_##rows(const struct tile *tile) \
    {                                                \
        run_tile(rows, tile);                        \
    }
TILE_ONE(1)
TILE_ONE(2)
TILE_ONE(3)
TILE_ONE(4)
#if TILE_ROWS_MAX == 4
static tile_fn *const tiles[] = {tile_1, tile_2, tile_3, tile_4};
#else
TILE_ONE(5)
TILE_ONE(6)
#if TILE_ROWS_MAX == 6
static tile_fn *const tiles[] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
#else
TILE_ONE(7)
TILE_ONE(8)
TILE_ONE(9)
TILE_ONE(10)
TILE_ONE(11)
TILE_ONE(12)
static tile_fn *const tiles[] = {tile_1, tile_2, tile_3, tile_4,  tile_5,  tile_6,
                                 tile_7, tile_8, tile_9, tile_10, tile_11, tile_12};
#endif
#endif

// All rows over one unpacked chunk, in tiles of nearly equal height.
static void tile_rows(const struct matmul_job *job, struct tile tile)
{
    const int32_t tile_count = (job->m + TILE_ROWS_MAX - 1) / TILE_ROWS_MAX;
    for (int32_t i = 0, row = 0; i < tile_count; i++) {
        int32_t rows = (job->m - row) / (tile_count - i);
        tiles[rows - 1](&tile);
        tile.x += (size_t)rows * tile.x_stride;
        tile.y += (size_t)rows * tile.y_stride;
        row += rows;
    }
}

static void tiled_panel(const struct matmul_job *job, int32_t panel, float *unpacked)
{
    const struct weight *weight = job->weight;
    const int32_t chunks = (weight->d_in + MATMUL_CHUNK_VALUES - 1) / MATMUL_CHUNK_VALUES;
    const int32_t each = (weight->d_in + chunks - 1) / chunks;
    const int32_t step = (each + PANEL_BLOCK_VALUES - 1) / PANEL_BLOCK_VALUES * PANEL_BLOCK_VALUES;
    const int32_t column = panel * WEIGHT_PANEL_ROWS;
    for (int32_t k = 0; k < weight->d_in; k += step) {
        int32_t k_count = weight->d_in - k < step ? weight->d_in - k : step;
        PASTE(panel_unpack, MATMUL_SUFFIX)(weight, panel, k, k_count, unpacked);
        struct tile tile = {.unpacked = unpacked,
                            .x = job->x + k,
                            .x_stride = (size_t)weight->d_in,
                            .k_count = k_count,
                            .y = job->y + column,
                            .y_stride = (size_t)weight->d_out,
                            .columns = weight->d_out - column,
                            .fresh = k == 0};
        tile_rows(job, tile);
    }
}

void PASTE(matmul_panels, MATMUL_SUFFIX)(const struct matmul_job *job, int32_t first, int32_t count,
                                         float *unpacked)
{
#if DIRECT_ROWS_MAX > 0
    if (job->m <= DIRECT_ROWS_MAX) {
        direct_table(job->weight->type)[job->m - 1](job, first, count);
        return;
    }
#endif
    for (int32_t panel = first; panel < first + count; panel++)
        tiled_panel(job, panel, unpacked);
}

#endif
