// SPDX-License-Identifier: Apache-2.0
// Matrix products by OpenBLAS, checked once before they are believed. See sgemm.h.
#include "kernel/sgemm.h"

#include <cblas.h>
#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool blas_is_right;

static void sgemm_blas(enum sgemm_op op_a, enum sgemm_op op_b, int32_t m, int32_t n, int32_t k,
                       float alpha, const float *a, int32_t lda, const float *b, int32_t ldb,
                       float beta, float *c, int32_t ldc)
{
    cblas_sgemm(CblasRowMajor, op_a == SGEMM_PLAIN ? CblasNoTrans : CblasTrans,
                op_b == SGEMM_PLAIN ? CblasNoTrans : CblasTrans, m, n, k, alpha, a, lda, b, ldb,
                beta, c, ldc);
}

static void scale_rows(int32_t m, int32_t n, float beta, float *c, int32_t ldc)
{
    for (int32_t i = 0; i < m; i++) {
        float *row = c + (size_t)i * (size_t)ldc;
        for (int32_t j = 0; j < n; j++)
            row[j] = beta == 0.0f ? 0.0f : beta * row[j];
    }
}

// B is read along rows: C[i, :] += alpha A[i, l] B[l, :].
static void add_plain_b(enum sgemm_op op_a, int32_t m, int32_t n, int32_t k, float alpha,
                        const float *a, int32_t lda, const float *b, int32_t ldb, float *c,
                        int32_t ldc)
{
    enum { BLOCK = 64 }; // rows of B that stay in the first cache
    for (int32_t l0 = 0; l0 < k; l0 += BLOCK) {
        const int32_t l1 = l0 + BLOCK < k ? l0 + BLOCK : k;
        for (int32_t i = 0; i < m; i++) {
            float *restrict row = c + (size_t)i * (size_t)ldc;
            for (int32_t l = l0; l < l1; l++) {
                const float value =
                    alpha * (op_a == SGEMM_PLAIN ? a[(size_t)i * (size_t)lda + (size_t)l]
                                                 : a[(size_t)l * (size_t)lda + (size_t)i]);
                const float *restrict source = b + (size_t)l * (size_t)ldb;
                for (int32_t j = 0; j < n; j++)
                    row[j] += value * source[j];
            }
        }
    }
}

static float dot(const float *x, int32_t step, const float *y, int32_t k)
{
    float sums[8] = {0};
    int32_t l = 0;
    for (; l + 8 <= k; l += 8)
        for (int32_t e = 0; e < 8; e++)
            sums[e] += x[(size_t)(l + e) * (size_t)step] * y[l + e];
    for (; l < k; l++)
        sums[0] += x[(size_t)l * (size_t)step] * y[l];
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) +
           ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

static void add_transposed_b(enum sgemm_op op_a, int32_t m, int32_t n, int32_t k, float alpha,
                             const float *a, int32_t lda, const float *b, int32_t ldb, float *c,
                             int32_t ldc)
{
    for (int32_t j = 0; j < n; j++) {
        const float *source = b + (size_t)j * (size_t)ldb;
        for (int32_t i = 0; i < m; i++) {
            const float *row = op_a == SGEMM_PLAIN ? a + (size_t)i * (size_t)lda : a + i;
            c[(size_t)i * (size_t)ldc + (size_t)j] +=
                alpha * dot(row, op_a == SGEMM_PLAIN ? 1 : lda, source, k);
        }
    }
}

void sgemm_ref(enum sgemm_op op_a, enum sgemm_op op_b, int32_t m, int32_t n, int32_t k, float alpha,
               const float *a, int32_t lda, const float *b, int32_t ldb, float beta, float *c,
               int32_t ldc)
{
    scale_rows(m, n, beta, c, ldc);
    if (op_b == SGEMM_PLAIN)
        add_plain_b(op_a, m, n, k, alpha, a, lda, b, ldb, c, ldc);
    else
        add_transposed_b(op_a, m, n, k, alpha, a, lda, b, ldb, c, ldc);
}

// Largest side of a checked shape: past one cache block of every OpenBLAS kernel.
enum { CHECK_SIDE = 400 };

struct check_case {
    int32_t m, n, k;
    float alpha, beta;
};

static float check_value(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / 8388608.0f - 1.0f;
}

static bool case_agrees(sgemm_function *function, const struct check_case *one, enum sgemm_op op_a,
                        enum sgemm_op op_b, const float *a, const float *b, float *c)
{
    const int32_t lda = op_a == SGEMM_PLAIN ? one->k : one->m;
    const int32_t ldb = op_b == SGEMM_PLAIN ? one->n : one->k;
    for (int32_t i = 0; i < one->m * one->n; i++)
        c[i] = one->beta == 0.0f ? NAN : 0.25f;
    function(op_a, op_b, one->m, one->n, one->k, one->alpha, a, lda, b, ldb, one->beta, c, one->n);
    for (int32_t i = 0; i < one->m; i++) {
        for (int32_t j = 0; j < one->n; j++) {
            double sum = 0.0;
            for (int32_t l = 0; l < one->k; l++)
                sum += (double)a[op_a == SGEMM_PLAIN ? i * lda + l : l * lda + i] *
                       (double)b[op_b == SGEMM_PLAIN ? l * ldb + j : j * ldb + l];
            const double want = (double)one->alpha * sum + (double)one->beta * 0.25;
            // Values are below 1: k products err by well under k times 1e-6. NaN fails.
            if (!(fabs((double)c[i * one->n + j] - want) <= 1e-5 + 2e-6 * one->k))
                return false;
        }
    }
    return true;
}

bool sgemm_check(sgemm_function *function)
{
    static const struct check_case cases[] = {
        {1, 1, 1, 1.0f, 0.0f},     {3, 5, 7, 1.0f, 1.0f},      {17, 33, 65, 0.5f, 0.0f},
        {64, 16, 96, 1.0f, 1.0f},  {31, 192, 130, 1.0f, 0.0f}, {130, 47, 40, 2.0f, 1.0f},
        {20, 30, 400, 1.0f, 0.0f},
    };
    const size_t count = (size_t)CHECK_SIDE * CHECK_SIDE;
    float *memory = calloc(3 * count, sizeof(float));
    if (memory == NULL)
        return false;
    uint32_t state = 1;
    for (size_t i = 0; i < 2 * count; i++)
        memory[i] = check_value(&state);
    bool agrees = true;
    for (size_t i = 0; agrees && i < sizeof(cases) / sizeof(cases[0]); i++)
        for (int32_t ops = 0; agrees && ops < 4; ops++)
            agrees = case_agrees(function, &cases[i], ops & 1 ? SGEMM_TRANSPOSED : SGEMM_PLAIN,
                                 ops & 2 ? SGEMM_TRANSPOSED : SGEMM_PLAIN, memory, memory + count,
                                 memory + 2 * count);
    free(memory);
    return agrees;
}

static void check_blas(void)
{
    openblas_set_num_threads(1);
    blas_is_right = sgemm_check(sgemm_blas);
}

bool sgemm_uses_blas(void)
{
    ASSERT(pthread_once(&once, check_blas) == 0);
    return blas_is_right;
}

void sgemm(enum sgemm_op op_a, enum sgemm_op op_b, int32_t m, int32_t n, int32_t k, float alpha,
           const float *a, int32_t lda, const float *b, int32_t ldb, float beta, float *c,
           int32_t ldc)
{
    if (m <= 0 || n <= 0)
        return;
    sgemm_function *function = sgemm_uses_blas() ? sgemm_blas : sgemm_ref;
    function(op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
