// SPDX-License-Identifier: Apache-2.0
// Writes adapter files: from a trainer's f32 matrices, or from the tensors of a file already
// checked. Tensors come by layer, projection, A before B, so one source gives one sequence of
// bytes. One call, one thread.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/adapter_names.h"
#include "adapters/adapter_plan.h"
#include "base/arena.h"
#include "base/half.h"
#include "sora/adapter.h"

// One module about to be written, in the file's type.
struct item {
    struct adapter_config_module module;
    enum sora_dtype dtype;
    int32_t d_in, d_out;
    const uint8_t *a, *b;
};

struct document {
    struct adapter_config_source config; // its modules are filled in by write_document
    const struct sora_base *base;        // NULL: no base record
    bool with_weight_type;
    const char *training_json; // may be NULL
    bool peft;                 // only the tensors, as PEFT saves them
};

static void fill_tensor(struct safetensors_tensor *tensor, char *name, const struct item *item,
                        bool is_b)
{
    adapter_tensor_name_print(item->module.layer, item->module.proj, is_b, name);
    tensor->name = name;
    snprintf(tensor->dtype, sizeof tensor->dtype, "%s", adapter_dtype_name(item->dtype));
    tensor->rank = 2;
    tensor->shape[0] = is_b ? item->d_out : item->module.rank;
    tensor->shape[1] = is_b ? item->module.rank : item->d_in;
    tensor->data = is_b ? item->b : item->a;
    tensor->bytes =
        (size_t)tensor->shape[0] * (size_t)tensor->shape[1] * adapter_dtype_bytes(item->dtype);
}

// The metadata in its fixed order; texts live in config and base. Returns how many.
static int32_t fill_meta(const struct document *document, struct buf *config, struct buf *base,
                         struct safetensors_meta meta[5])
{
    int32_t count = 0;
    if (document->peft) {
        meta[count++] = (struct safetensors_meta){"format", "pt"};
        return count;
    }
    meta[count++] = (struct safetensors_meta){"format", ADAPTER_FORMAT_NAME};
    meta[count++] = (struct safetensors_meta){"format_version", ADAPTER_FORMAT_VERSION};
    adapter_config_print(config, &document->config);
    meta[count++] = (struct safetensors_meta){"adapter_config", config->data};
    if (document->base) {
        adapter_base_record_print(base, document->base, document->with_weight_type);
        meta[count++] = (struct safetensors_meta){"base", base->data};
    }
    if (document->training_json)
        meta[count++] = (struct safetensors_meta){"training", document->training_json};
    return count;
}

static sora_status write_document(struct document *document, const struct item *items,
                                  int32_t item_count, uint8_t **bytes, size_t *byte_count,
                                  struct sora_error *err)
{
    typedef char tensor_name[SORA_TENSOR_NAME_BYTES_MAX + 1];
    size_t count = (size_t)item_count;
    struct safetensors_tensor *tensors = calloc(2 * count + 1, sizeof *tensors);
    struct adapter_config_module *modules = calloc(count + 1, sizeof *modules);
    tensor_name *names = calloc(2 * count + 1, sizeof *names);
    struct safetensors_meta meta[5];
    struct buf config, base;
    sora_status status;
    buf_init(&config, ADAPTER_RECORD_BYTES_MAX);
    buf_init(&base, ADAPTER_RECORD_BYTES_MAX);
    if (!tensors || !modules || !names) {
        status = sora_fail(err, SORA_NO_MEMORY, "no memory to write %d modules", (int)item_count);
        goto done;
    }
    for (size_t i = 0; i < count; i++) {
        modules[i] = items[i].module;
        fill_tensor(&tensors[2 * i], names[2 * i], &items[i], false);
        fill_tensor(&tensors[2 * i + 1], names[2 * i + 1], &items[i], true);
    }
    document->config.modules = modules;
    document->config.module_count = item_count;
    int32_t meta_count = fill_meta(document, &config, &base, meta);
    status = buf_status(&config, err);
    if (status == SORA_OK)
        status = buf_status(&base, err);
    if (status == SORA_OK)
        status =
            safetensors_encode(meta, meta_count, tensors, 2 * item_count, bytes, byte_count, err);
done:
    buf_deinit(&config);
    buf_deinit(&base);
    free(tensors);
    free(modules);
    free(names);
    return status;
}

sora_status adapter_encode_plan(const struct adapter_plan *plan, const struct sora_base *base,
                                bool peft, uint8_t **bytes, size_t *byte_count,
                                struct sora_error *err)
{
    struct document document = {
        .config = {.base_name = plan->config.base_name,
                   .r = plan->config.r,
                   .lora_alpha = plan->config.lora_alpha,
                   .use_rslora = plan->config.use_rslora},
        .base = base,
        .training_json = plan->training_json,
        .peft = peft,
    };
    struct item *items = calloc((size_t)plan->pair_count + 1, sizeof *items);
    if (!items)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to write an adapter");
    int32_t count = 0;
    for (int32_t i = 0; i < ADAPTER_MODULE_COUNT_MAX; i++) {
        const struct adapter_pair *pair = &plan->pairs[i];
        if (!pair->a)
            continue;
        items[count++] = (struct item){
            .module = {i / SORA_PROJ_COUNT, (enum sora_proj)(i % SORA_PROJ_COUNT), pair->rank,
                       pair->alpha},
            .dtype = pair->dtype,
            .d_in = pair->d_in,
            .d_out = pair->d_out,
            .a = pair->a->data,
            .b = pair->b->data,
        };
    }
    sora_status status = write_document(&document, items, count, bytes, byte_count, err);
    free(items);
    return status;
}

static int compare_items(const void *left, const void *right)
{
    const struct item *a = left, *b = right;
    int32_t slot_a = a->module.layer * SORA_PROJ_COUNT + (int32_t)a->module.proj;
    int32_t slot_b = b->module.layer * SORA_PROJ_COUNT + (int32_t)b->module.proj;
    return (slot_a > slot_b) - (slot_a < slot_b);
}

static sora_status check_pair(const struct sora_base *base,
                              const struct sora_adapter_tensor_pair *pair, struct sora_error *err)
{
    if (pair->layer < 0 || pair->layer >= base->layer_count || (int)pair->proj < 0 ||
        pair->proj >= SORA_PROJ_COUNT)
        return sora_fail(err, SORA_MISMATCH, "layer %d, projection %d: the base has %d layers",
                         (int)pair->layer, (int)pair->proj, (int)base->layer_count);
    const char *name = sora_proj_name(pair->proj);
    int32_t d_in = base->d_in[pair->proj], d_out = base->d_out[pair->proj];
    int32_t bound = d_in < d_out ? d_in : d_out;
    if (pair->rank < 0 || pair->rank > bound)
        return sora_fail(err, SORA_MISMATCH, "layer %d %s: rank %d is not in [0, %d]",
                         (int)pair->layer, name, (int)pair->rank, (int)bound);
    if (!isfinite(pair->scale) || !isfinite((float)pair->scale))
        return sora_fail(err, SORA_MISMATCH, "layer %d %s: scale %g is not finite in f32",
                         (int)pair->layer, name, pair->scale);
    return SORA_OK;
}

// f32 values as `dtype` into out. A value that is not finite there is refused: an F16 file holds
// at most 65504.
static sora_status convert(const float *values, size_t count, enum sora_dtype dtype, uint8_t *out,
                           const struct item *item, char which, struct sora_error *err)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t half = dtype == SORA_F16 ? half_to_f16(values[i]) : half_to_bf16(values[i]);
        float back = dtype == SORA_F32   ? values[i]
                     : dtype == SORA_F16 ? half_from_f16(half)
                                         : half_from_bf16(half);
        if (!isfinite(back))
            return sora_fail(err, SORA_MISMATCH,
                             "layer %d %s lora_%c: value %g at index %zu is not "
                             "finite in %s",
                             (int)item->module.layer, sora_proj_name(item->module.proj), which,
                             (double)values[i], i, adapter_dtype_name(dtype));
        if (dtype == SORA_F32)
            memcpy(out + 4 * i, &values[i], 4);
        else
            memcpy(out + 2 * i, &half, 2);
    }
    return SORA_OK;
}

static sora_status convert_pair(const struct sora_adapter_source *source,
                                const struct sora_adapter_tensor_pair *pair, struct arena *arena,
                                struct item *item, struct sora_error *err)
{
    size_t item_bytes = adapter_dtype_bytes(source->dtype);
    *item = (struct item){
        .module = {pair->layer, pair->proj, pair->rank,
                   adapter_config_alpha_for(pair->scale, pair->rank)},
        .dtype = source->dtype,
        .d_in = source->base->d_in[pair->proj],
        .d_out = source->base->d_out[pair->proj],
    };
    size_t a_count = (size_t)pair->rank * (size_t)item->d_in;
    size_t b_count = (size_t)pair->rank * (size_t)item->d_out;
    uint8_t *a = arena_alloc(arena, a_count, item_bytes);
    uint8_t *b = arena_alloc(arena, b_count, item_bytes);
    if (!a || !b)
        return sora_fail(err, SORA_LIMIT, "an adapter over %u bytes, or no memory for it",
                         SORA_ADAPTER_BYTES_MAX);
    item->a = a;
    item->b = b;
    sora_status status = convert(pair->a, a_count, source->dtype, a, item, 'A', err);
    if (status == SORA_OK)
        status = convert(pair->b, b_count, source->dtype, b, item, 'B', err);
    return status;
}

static sora_status convert_all(const struct sora_adapter_source *source, struct arena *arena,
                               struct item *items, int32_t *item_count, struct sora_error *err)
{
    for (int32_t i = 0; i < source->pair_count; i++) {
        const struct sora_adapter_tensor_pair *pair = &source->pairs[i];
        sora_status status = check_pair(source->base, pair, err);
        if (status == SORA_OK && pair->rank > 0)
            status = convert_pair(source, pair, arena, &items[(*item_count)++], err);
        if (status != SORA_OK)
            return status;
    }
    if (*item_count > 1)
        qsort(items, (size_t)*item_count, sizeof *items, compare_items);
    for (int32_t i = 1; i < *item_count; i++) {
        if (compare_items(&items[i - 1], &items[i]) == 0)
            return sora_fail(err, SORA_MALFORMED, "layer %d %s comes twice",
                             (int)items[i].module.layer, sora_proj_name(items[i].module.proj));
    }
    return SORA_OK;
}

sora_status sora_adapter_encode(const struct sora_adapter_source *source, uint8_t **bytes,
                                size_t *byte_count, struct sora_error *err)
{
    struct document document = {
        .config = {.base_name = source->base_name, .r = source->r_max, .lora_alpha = source->alpha},
        .base = source->base,
        .with_weight_type = true,
        .training_json = source->training_json,
    };
    struct arena arena;
    int32_t item_count = 0;
    *bytes = NULL;
    *byte_count = 0;
    if (source->pair_count < 0 || source->pair_count > ADAPTER_MODULE_COUNT_MAX)
        return sora_fail(err, SORA_LIMIT, "%d modules, the limit is %d", (int)source->pair_count,
                         ADAPTER_MODULE_COUNT_MAX);
    if (source->r_max < 1 || source->r_max > SORA_WIDTH_MAX || !isfinite(source->alpha))
        return sora_fail(err, SORA_MALFORMED, "r_max %d, alpha %g: expected r_max in [1, %d]",
                         (int)source->r_max, source->alpha, SORA_WIDTH_MAX);
    sora_status status =
        source->training_json ? adapter_training_record_check(source->training_json, err) : SORA_OK;
    if (status != SORA_OK)
        return status;
    struct item *items = calloc((size_t)source->pair_count + 1, sizeof *items);
    if (!items)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to write an adapter");
    arena_init(&arena, SORA_ADAPTER_BYTES_MAX);
    status = convert_all(source, &arena, items, &item_count, err);
    if (status == SORA_OK)
        status = write_document(&document, items, item_count, bytes, byte_count, err);
    arena_deinit(&arena);
    free(items);
    return status;
}
