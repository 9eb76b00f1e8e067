// SPDX-License-Identifier: Apache-2.0
// What both containers share: the check of a model's dimensions, and tensor names by pattern.
#include "model/checkpoint.h"

#include <stdio.h>
#include <string.h>

#include "base/gguf.h"

void checkpoint_tensor_name(const char *pattern, int32_t layer,
                            char name[SORA_TENSOR_NAME_BYTES_MAX + 1])
{
    const char *mark = strstr(pattern, "%d");
    if (mark == NULL)
        snprintf(name, SORA_TENSOR_NAME_BYTES_MAX + 1, "%s", pattern);
    else
        snprintf(name, SORA_TENSOR_NAME_BYTES_MAX + 1, "%.*s%d%s", (int)(mark - pattern), pattern,
                 layer, mark + 2);
}

sora_status checkpoint_check_shape(const struct checkpoint_tensor *tensor, int32_t rows,
                                   int32_t cols, struct sora_error *err)
{
    if (tensor->rows != rows || tensor->cols != cols)
        return sora_fail(err, SORA_MISMATCH, "tensor %s: shape [%d, %d], expected [%d, %d]",
                         tensor->name, tensor->rows, tensor->cols, rows, cols);
    size_t row_bytes = weight_type_row_bytes(tensor->type, cols);
    if (row_bytes == 0)
        return sora_fail(err, SORA_MALFORMED, "tensor %s: %d columns are no whole blocks of %s",
                         tensor->name, cols, weight_type_name((int32_t)tensor->type));
    if (tensor->data == NULL || tensor->bytes != row_bytes * (size_t)rows)
        return sora_fail(err, SORA_MALFORMED, "tensor %s: %zu bytes, expected %zu", tensor->name,
                         tensor->bytes, row_bytes * (size_t)rows);
    return SORA_OK;
}

int32_t checkpoint_source_row(const struct checkpoint_tensor *tensor, int32_t row)
{
    return tensor->permuted_head_dim == 0 ? row : gguf_rotary_row(row, tensor->permuted_head_dim);
}

sora_status checkpoint_check_base(struct sora_base *base, struct sora_error *err)
{
    const struct {
        const char *name;
        int32_t value, max;
    } dims[] = {
        {"layer count", base->layer_count, SORA_LAYER_COUNT_MAX},
        {"hidden width", base->hidden, SORA_WIDTH_MAX},
        {"intermediate width", base->intermediate, SORA_WIDTH_MAX},
        {"head count", base->head_count, SORA_WIDTH_MAX},
        {"kv head count", base->kv_head_count, SORA_WIDTH_MAX},
        {"head_dim", base->head_dim, SORA_HEAD_DIM_MAX},
        {"vocabulary size", base->vocab_size, SORA_VOCAB_SIZE_MAX},
    };
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        if (dims[i].value < 1 || dims[i].value > dims[i].max)
            return sora_fail(err, SORA_LIMIT, "%s is %d, must be 1 .. %d", dims[i].name,
                             dims[i].value, dims[i].max);
    }
    if (base->head_count % base->kv_head_count != 0)
        return sora_fail(err, SORA_MALFORMED, "%d heads are no multiple of %d kv heads",
                         base->head_count, base->kv_head_count);
    if (base->head_dim % 2 != 0)
        return sora_fail(err, SORA_MALFORMED, "head_dim %d is odd", base->head_dim);
    int64_t q = (int64_t)base->head_count * base->head_dim;
    int64_t kv = (int64_t)base->kv_head_count * base->head_dim;
    if (q > SORA_WIDTH_MAX)
        return sora_fail(err, SORA_LIMIT, "%d heads of %d exceed a width of %d", base->head_count,
                         base->head_dim, SORA_WIDTH_MAX);
    const int32_t in[SORA_PROJ_COUNT] = {base->hidden, base->hidden, base->hidden,      (int32_t)q,
                                         base->hidden, base->hidden, base->intermediate};
    const int32_t out[SORA_PROJ_COUNT] = {(int32_t)q,   (int32_t)kv,        (int32_t)kv,
                                          base->hidden, base->intermediate, base->intermediate,
                                          base->hidden};
    memcpy(base->d_in, in, sizeof in);
    memcpy(base->d_out, out, sizeof out);
    return SORA_OK;
}
