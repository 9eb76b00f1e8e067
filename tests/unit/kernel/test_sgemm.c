// SPDX-License-Identifier: Apache-2.0
// sgemm: the check that decides between OpenBLAS and plain loops, and the plain loops themselves.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernel/sgemm.h"

static void forgets_beta(enum sgemm_op op_a, enum sgemm_op op_b, int32_t m, int32_t n, int32_t k,
                         float alpha, const float *a, int32_t lda, const float *b, int32_t ldb,
                         float beta, float *c, int32_t ldc)
{
    (void)beta;
    sgemm_ref(op_a, op_b, m, n, k, alpha, a, lda, b, ldb, 0.0f, c, ldc);
}

static void wrong_in_one_element(enum sgemm_op op_a, enum sgemm_op op_b, int32_t m, int32_t n,
                                 int32_t k, float alpha, const float *a, int32_t lda,
                                 const float *b, int32_t ldb, float beta, float *c, int32_t ldc)
{
    sgemm_ref(op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    if (m == 130)
        c[(size_t)77 * (size_t)ldc + 3] += 0.01f;
}

static void leaves_nan(enum sgemm_op op_a, enum sgemm_op op_b, int32_t m, int32_t n, int32_t k,
                       float alpha, const float *a, int32_t lda, const float *b, int32_t ldb,
                       float beta, float *c, int32_t ldc)
{
    for (int32_t i = 0; beta == 0.0f && i < m * n; i++)
        c[i] *= 0.0f; // what a kernel that multiplies by beta would do
    sgemm_ref(op_a, op_b, m, n, k, alpha, a, lda, b, ldb, 1.0f, c, ldc);
}

static void the_plain_loops_pass_the_check(void **state)
{
    (void)state;
    assert_true(sgemm_check(sgemm_ref));
}

static void the_chosen_product_passes_the_check(void **state)
{
    (void)state;
    assert_true(sgemm_check(sgemm));
    if (!sgemm_uses_blas())
        print_message("OpenBLAS is wrong on this machine; the plain loops are used\n");
}

static void a_wrong_product_is_found(void **state)
{
    (void)state;
    assert_false(sgemm_check(forgets_beta));
    assert_false(sgemm_check(wrong_in_one_element));
    assert_false(sgemm_check(leaves_nan));
}

static void an_empty_product_touches_nothing(void **state)
{
    (void)state;
    const float one = 1.0f;
    float c = 7.0f;
    sgemm(SGEMM_PLAIN, SGEMM_PLAIN, 0, 1, 1, 1.0f, &one, 1, &one, 1, 0.0f, &c, 1);
    assert_true(c == 7.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_plain_loops_pass_the_check),
        cmocka_unit_test(the_chosen_product_passes_the_check),
        cmocka_unit_test(a_wrong_product_is_found),
        cmocka_unit_test(an_empty_product_touches_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
