// SPDX-License-Identifier: Apache-2.0
// PEFT's AdaLoRA computes W x + scaling / (ranknum + 1e-5) B (E * (A x)), with E one number for
// each rank. E goes into B here, so that what is left is LoRA; ranks whose E is zero compute
// nothing and are left out; the others are put in the order of their weight, as in every file of
// ours. One call, one thread.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/adapter_plan.h"

// One rank of a module and what it weighs: |E| |A| |B|.
struct column {
    int32_t index;
    double weight;
};

static int compare_columns(const void *left, const void *right)
{
    const struct column *a = left, *b = right;
    if (a->weight != b->weight)
        return a->weight < b->weight ? 1 : -1;
    return a->index - b->index;
}

// A module in f32.
struct factors {
    float *a, *b, *e; // [rank, d_in], [d_out, rank], [rank]
    struct column *columns;
    int32_t kept;
};

static void factors_free(struct factors *factors)
{
    free(factors->a);
    free(factors->b);
    free(factors->e);
    free(factors->columns);
}

static sora_status factors_read(const struct adapter_pair *pair, struct factors *factors,
                                struct sora_error *err)
{
    size_t rank = (size_t)pair->rank, float_bytes = sizeof(float);
    size_t a_row_bytes = (size_t)pair->d_in * float_bytes;
    size_t b_column_bytes = (size_t)pair->d_out * float_bytes;
    memset(factors, 0, sizeof *factors);
    factors->a = calloc(rank, a_row_bytes);
    factors->b = calloc(rank, b_column_bytes);
    factors->e = calloc(rank, sizeof *factors->e);
    factors->columns = calloc(rank, sizeof *factors->columns);
    if (!factors->a || !factors->b || !factors->e || !factors->columns)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for tensor \"%s\"", pair->a->name);
    sora_status status = safetensors_to_f32(pair->a, factors->a, err);
    if (status == SORA_OK)
        status = safetensors_to_f32(pair->b, factors->b, err);
    if (status == SORA_OK)
        status = safetensors_to_f32(pair->e, factors->e, err);
    return status;
}

static void choose_columns(const struct adapter_pair *pair, struct factors *factors)
{
    for (int32_t k = 0; k < pair->rank; k++) {
        double a = 0, b = 0;
        for (int32_t i = 0; i < pair->d_in; i++)
            a += pow(factors->a[(size_t)k * (size_t)pair->d_in + (size_t)i], 2);
        for (int32_t o = 0; o < pair->d_out; o++)
            b += pow(factors->b[(size_t)o * (size_t)pair->rank + (size_t)k], 2);
        if (factors->e[k] != 0)
            factors->columns[factors->kept++] =
                (struct column){k, fabs((double)factors->e[k]) * sqrt(a) * sqrt(b)};
    }
    qsort(factors->columns, (size_t)factors->kept, sizeof *factors->columns, compare_columns);
}

// The pair's new tensors, of the ranks that were chosen.
static sora_status write_folded(struct adapter_plan *plan, struct adapter_pair *pair,
                                const struct factors *factors, struct sora_error *err)
{
    struct safetensors_tensor a_shape = *pair->a, b_shape = *pair->b;
    void *a_data, *b_data;
    a_shape.shape[0] = b_shape.shape[1] = factors->kept;
    const struct safetensors_tensor *a = adapter_plan_make(plan, &a_shape, SORA_F32, &a_data, err);
    const struct safetensors_tensor *b =
        a ? adapter_plan_make(plan, &b_shape, SORA_F32, &b_data, err) : NULL;
    if (!b)
        return SORA_LIMIT;
    float *a_out = a_data, *b_out = b_data;
    for (int32_t j = 0; j < factors->kept; j++) {
        int32_t k = factors->columns[j].index;
        memcpy(a_out + (size_t)j * (size_t)pair->d_in, factors->a + (size_t)k * (size_t)pair->d_in,
               (size_t)pair->d_in * sizeof *a_out);
        for (int32_t o = 0; o < pair->d_out; o++) {
            float value = factors->b[(size_t)o * (size_t)pair->rank + (size_t)k] * factors->e[k];
            if (!isfinite(value))
                return sora_fail(err, SORA_MISMATCH,
                                 "tensor \"%s\": value %g at rank %d times lora_B is not finite",
                                 pair->e->name, (double)factors->e[k], (int)k);
            b_out[(size_t)o * (size_t)factors->kept + (size_t)j] = value;
        }
    }
    pair->a = a;
    pair->b = b;
    return SORA_OK;
}

static sora_status fold_pair(struct adapter_plan *plan, struct adapter_pair *pair,
                             struct sora_error *err)
{
    struct factors factors;
    sora_status status = factors_read(pair, &factors, err);
    if (status != SORA_OK)
        goto done;
    choose_columns(pair, &factors);
    if (factors.kept == 0) {
        memset(pair, 0, sizeof *pair);
        goto done;
    }
    status = write_folded(plan, pair, &factors, err);
    pair->e = NULL;
    pair->rank = factors.kept;
    pair->dtype = SORA_F32;
    pair->alpha = adapter_config_alpha_for((double)pair->scale, pair->rank);
done:
    factors_free(&factors);
    return status;
}

sora_status adapter_adalora_fold(struct adapter_plan *plan, struct sora_error *err)
{
    plan->pair_count = 0;
    for (int32_t i = 0; i < ADAPTER_MODULE_COUNT_MAX; i++) {
        struct adapter_pair *pair = &plan->pairs[i];
        sora_status status = SORA_OK;
        if (!pair->a)
            continue;
        if (pair->rank == 0)
            memset(pair, 0, sizeof *pair);
        else
            status = fold_pair(plan, pair, err);
        if (status != SORA_OK)
            return status;
        plan->pair_count += pair->a ? 1 : 0;
    }
    return SORA_OK;
}
