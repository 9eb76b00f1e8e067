// SPDX-License-Identifier: Apache-2.0
// tile_product for each instruction set against plain loops on ragged shapes, its independence of
// the rows that share a call, transposing and packing, and products of any width and depth.
#include "kernel/tile_dispatch.h"
#include "kernel_fixture.h"

enum { A_STRIDE = 300, B_STRIDE = 19, C_STRIDE = 21, ROWS = 29, DEPTH = 290 };

struct fixture {
    float *a, *b, *c;
};

static struct fixture make(void)
{
    struct rng rng;
    rng_seed(&rng, 11);
    return (struct fixture){normals(&rng, ROWS * A_STRIDE), normals(&rng, DEPTH * B_STRIDE),
                            normals(&rng, ROWS * C_STRIDE)};
}

static void release(struct fixture *f)
{
    free(f->a);
    free(f->b);
    free(f->c);
}

static struct tile_product product_of(const struct fixture *f, float *c, int32_t rows,
                                      int32_t columns, int32_t k_count, bool add)
{
    return (struct tile_product){.a = f->a,
                                 .a_stride = A_STRIDE,
                                 .b = f->b,
                                 .b_stride = B_STRIDE,
                                 .c = c,
                                 .c_stride = C_STRIDE,
                                 .rows = rows,
                                 .columns = columns,
                                 .k_count = k_count,
                                 .add = add};
}

// What lies beside the product stays as it was, so whole arrays are compared.
static void check_one(tile_product_fn *function, const struct fixture *f, int32_t rows,
                      int32_t columns, int32_t k_count, bool add)
{
    float *want = copy_of(f->c, ROWS * C_STRIDE), *found = copy_of(f->c, ROWS * C_STRIDE);
    struct tile_product product = product_of(f, want, rows, columns, k_count, add);
    tile_product_ref(&product);
    product.c = found;
    function(&product);
    if (values_differ(found, want, ROWS * C_STRIDE, 2e-5) >= 0)
        fail_msg("%d x %d x %d differs at %d", rows, columns, k_count,
                 (int)values_differ(found, want, ROWS * C_STRIDE, 2e-5));
    free(want);
    free(found);
}

static void check_all(tile_product_fn *function)
{
    struct fixture f = make();
    for (int32_t rows = 1; rows <= ROWS; rows++)
        for (int32_t columns = 1; columns <= TILE_COLUMNS; columns++)
            check_one(function, &f, rows, columns, 1 + (rows * 37 + columns * 11) % DEPTH,
                      (rows + columns) % 2 == 0);
    check_one(function, &f, ROWS, TILE_COLUMNS, DEPTH, true);
    release(&f);
}

static void the_portable_product_is_right(void **state)
{
    (void)state;
    check_all(tile_product_portable);
}

static void the_avx2_product_is_right(void **state)
{
    (void)state;
    need_isa(CPU_AVX2, "the_avx2_product_is_right");
    check_all(tile_product_avx2);
}

static void the_avx512_product_is_right(void **state)
{
    (void)state;
    need_isa(CPU_AVX512, "the_avx512_product_is_right");
    check_all(tile_product_avx512);
}

static void a_wrong_product_is_seen(void **state)
{
    (void)state;
    struct fixture f = make();
    float *c = copy_of(f.c, ROWS * C_STRIDE);
    struct tile_product product = product_of(&f, c, 5, 9, 40, false);
    tile_product(&product);
    float *want = copy_of(f.c, ROWS * C_STRIDE);
    product.c = want;
    product.k_count = 41;
    tile_product_ref(&product);
    assert_true(values_differ(c, want, ROWS * C_STRIDE, 2e-5) >= 0);
    free(c);
    free(want);
    release(&f);
}

// A row's bits are the same alone, in any company, and when its chain over k is cut in two.
static void a_row_does_not_depend_on_its_neighbours(void **state)
{
    (void)state;
    need_isa(CPU_AVX2, "a_row_does_not_depend_on_its_neighbours");
    struct fixture f = make();
    float *together = floats(ROWS * C_STRIDE), *alone = floats(ROWS * C_STRIDE);
    struct tile_product product = product_of(&f, together, ROWS, TILE_COLUMNS, DEPTH, false);
    tile_product(&product);
    for (int32_t row = 0; row < ROWS; row++) {
        struct tile_product one =
            product_of(&f, alone + row * C_STRIDE, 1, TILE_COLUMNS, 100, false);
        one.a += row * A_STRIDE;
        tile_product(&one);
        one.a += 100;
        one.b += 100 * B_STRIDE;
        one.k_count = DEPTH - 100;
        one.add = true;
        tile_product(&one);
    }
    assert_int_equal(bits_differ(together, alone, ROWS * C_STRIDE), -1);
    free(together);
    free(alone);
    release(&f);
}

static void check_transpose(tile_transpose_fn *function)
{
    struct rng rng;
    rng_seed(&rng, 12);
    float *from = normals(&rng, 40 * 45);
    for (int32_t rows = 0; rows <= 35; rows++)
        for (int32_t columns = 0; columns <= 35; columns++) {
            float *to = floats(40 * 45);
            function(from, 45, rows, columns, to, 40);
            for (int32_t r = 0; r < 40; r++)
                for (int32_t c = 0; c < 45; c++)
                    assert_true(to[c * 40 + r] ==
                                (r < rows && c < columns ? from[r * 45 + c] : 0.0f));
            free(to);
        }
    free(from);
}

static void transposing_swaps_rows_and_columns(void **state)
{
    (void)state;
    check_transpose(tile_transpose_portable);
    check_transpose(tile_transpose);
}

static void packing_fills_up_with_zeros(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 13);
    float *from = normals(&rng, 50 * 50);
    for (int32_t columns = 1; columns <= TILE_COLUMNS; columns++) {
        float plain[33 * TILE_COLUMNS], transposed[33 * TILE_COLUMNS];
        memset(plain, 0x7f, sizeof plain);
        memset(transposed, 0x7f, sizeof transposed);
        tile_pack(from, 50, 33, columns, plain);
        tile_pack_transposed(from, 50, 33, columns, transposed);
        for (int32_t k = 0; k < 33; k++)
            for (int32_t j = 0; j < TILE_COLUMNS; j++) {
                const bool there = j < columns;
                assert_true(plain[k * TILE_COLUMNS + j] == (there ? from[k * 50 + j] : 0.0f));
                assert_true(transposed[k * TILE_COLUMNS + j] == (there ? from[j * 50 + k] : 0.0f));
            }
    }
    free(from);
}

// Element (k, j) of B, however it is stored.
static double b_at(const float *b, int32_t stride, bool transposed, int32_t k, int32_t j)
{
    return (double)b[transposed ? j * stride + k : k * stride + j];
}

static void check_multiply(int32_t rows, int32_t columns, int32_t k_count, bool transposed,
                           bool add)
{
    struct rng rng;
    rng_seed(&rng, 14);
    const int32_t stride = (transposed ? k_count : columns) + 3;
    float *a = normals(&rng, (size_t)(rows * k_count));
    float *b = normals(&rng, (size_t)((transposed ? columns : k_count) * stride));
    float *c = normals(&rng, (size_t)(rows * columns));
    float *before = copy_of(c, (size_t)(rows * columns));
    tile_multiply(&(struct tile_matrices){.a = a,
                                          .a_stride = (size_t)k_count,
                                          .b = b,
                                          .b_stride = (size_t)stride,
                                          .b_transposed = transposed,
                                          .c = c,
                                          .c_stride = (size_t)columns,
                                          .rows = rows,
                                          .columns = columns,
                                          .k_count = k_count,
                                          .add = add});
    for (int32_t i = 0; i < rows; i++)
        for (int32_t j = 0; j < columns; j++) {
            double want = add ? (double)before[i * columns + j] : 0.0;
            for (int32_t k = 0; k < k_count; k++)
                want += (double)a[i * k_count + k] * b_at(b, stride, transposed, k, j);
            const double error = fabs(want - (double)c[i * columns + j]);
            if (!(error < 1e-4))
                fail_msg("%d x %d x %d: off by %g", rows, columns, k_count, error);
        }
    free(a);
    free(b);
    free(c);
    free(before);
}

static void products_of_any_width_and_depth_are_right(void **state)
{
    (void)state;
    static const int32_t shapes[][3] = {{1, 1, 1},   {7, 16, 256}, {13, 40, 257}, {64, 35, 64},
                                        {8, 64, 99}, {3, 17, 600}, {30, 8, 31}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int32_t flags = 0; flags < 4; flags++)
            check_multiply(shapes[i][0], shapes[i][1], shapes[i][2], flags & 1, flags & 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_comparers_see_a_difference),
        cmocka_unit_test(the_portable_product_is_right),
        cmocka_unit_test(the_avx2_product_is_right),
        cmocka_unit_test(the_avx512_product_is_right),
        cmocka_unit_test(a_wrong_product_is_seen),
        cmocka_unit_test(a_row_does_not_depend_on_its_neighbours),
        cmocka_unit_test(transposing_swaps_rows_and_columns),
        cmocka_unit_test(packing_fills_up_with_zeros),
        cmocka_unit_test(products_of_any_width_and_depth_are_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
