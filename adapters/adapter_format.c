// SPDX-License-Identifier: Apache-2.0
// sora_adapter: a parsed file, packed for the kernels in one allocation. Immutable once made; any
// thread may read it, its creator destroys it.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/adapter_load.h"
#include "adapters/adapter_names.h"
#include "adapters/adapter_plan.h"
#include "base/arena.h"
#include "base/assert.h"
#include "base/file.h"
#include "base/pages.h"
#include "base/sha256.h"
#include "sora/adapter.h"

#define PACK_ALIGNMENT 64 // a cache line, and the widest vector load

struct sora_adapter {
    struct sora_adapter_info info;
    struct sora_lora lora;
    void *packed; // modules table, then a and bt of each module
    struct sora_adapter_module *modules;
    char *config_json, *base_json, *training_json;
};

static size_t aligned(size_t bytes)
{
    return (bytes + PACK_ALIGNMENT - 1) / PACK_ALIGNMENT * PACK_ALIGNMENT;
}

static size_t int8_bytes(size_t rank, size_t width)
{
    return aligned(rank * width);
}

static size_t pair_bytes(const struct adapter_pair *pair, bool int8)
{
    const size_t rank = (size_t)pair->rank;
    if (!int8)
        return aligned(pair->a->bytes) + aligned(pair->b->bytes);
    return int8_bytes(rank, (size_t)pair->d_in) + int8_bytes(rank, (size_t)pair->d_out) +
           aligned(rank * sizeof(float));
}

// Bytes of all tensors are bounded by SORA_ADAPTER_BYTES_MAX, so nothing here can overflow.
static size_t packed_bytes(const struct adapter_plan *plan, bool int8)
{
    size_t bytes =
        aligned((size_t)plan->layer_count * SORA_PROJ_COUNT * sizeof(struct sora_lora_module));
    for (int32_t i = 0; i < ADAPTER_MODULE_COUNT_MAX; i++)
        if (plan->pairs[i].a)
            bytes += pair_bytes(&plan->pairs[i], int8);
    return bytes;
}

// b [d_out, rank] to bt [rank, d_out]; b may be unaligned. Read in order, written in `rank` rows.
static inline void transpose_items(const uint8_t *b, size_t d_out, size_t rank, size_t item,
                                   uint8_t *bt)
{
    for (size_t o = 0; o < d_out; o++)
        for (size_t k = 0; k < rank; k++)
            memcpy(bt + (k * d_out + o) * item, b + (o * rank + k) * item, item);
}

// Elements of 2 or 4 bytes: the compiler sees which.
static void transpose(const uint8_t *b, int32_t d_out, int32_t rank, size_t item, uint8_t *bt)
{
    if (item == 4)
        transpose_items(b, (size_t)d_out, (size_t)rank, 4, bt);
    else
        transpose_items(b, (size_t)d_out, (size_t)rank, 2, bt);
}

static void pack_pair(const struct adapter_pair *pair, struct sora_lora_module *module,
                      uint8_t **next)
{
    uint8_t *a = *next, *bt = a + aligned(pair->a->bytes);
    memcpy(a, pair->a->data, pair->a->bytes);
    transpose(pair->b->data, pair->d_out, pair->rank, adapter_dtype_bytes(pair->dtype), bt);
    module->rank = pair->rank;
    module->scale = pair->scale;
    module->dtype = pair->dtype;
    module->a = a;
    module->bt = bt;
    *next = bt + aligned(pair->b->bytes);
}

// Lanes and no calls: loops that compilers turn into vectors, because a request waits for this.
static float largest_of(const float *values, size_t count)
{
    float lanes[8] = {0.0f};
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (int lane = 0; lane < 8; lane++) {
            const float size = fabsf(values[i + lane]);
            lanes[lane] = size > lanes[lane] ? size : lanes[lane];
        }
    for (; i < count; i++)
        lanes[0] = fabsf(values[i]) > lanes[0] ? fabsf(values[i]) : lanes[0];
    for (int lane = 1; lane < 8; lane++)
        lanes[0] = lanes[lane] > lanes[0] ? lanes[lane] : lanes[0];
    return lanes[0];
}

// A row of values to 8 bits; returns its scale.
static float round_row(const float *values, size_t count, int8_t *to)
{
    const float scale = largest_of(values, count) / 127.0f;
    const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    if (!isfinite(inverse)) { // so near zero that it counts as zero
        memset(to, 0, count);
        return 0.0f;
    }
    // At most 127 and its rounding; adding 1.5 * 2^23 rounds to an integer.
    for (size_t i = 0; i < count; i++)
        to[i] = (int8_t)(int32_t)((values[i] * inverse + 12582912.0f) - 12582912.0f);
    return scale;
}

// Row r of bt to its places in an I8 module (sora_lora_module).
static void place_columns(const int8_t *row, size_t r, size_t rank, size_t d_out, int8_t *bt)
{
    for (size_t o = 0; o < d_out; o += SORA_LORA_I8_COLUMNS) {
        const size_t left = d_out - o;
        const size_t width = left < SORA_LORA_I8_COLUMNS ? left : SORA_LORA_I8_COLUMNS;
        memcpy(bt + o * rank + r * width, row + o, width);
    }
}

// room: floats for the larger of A and twice B.
static sora_status pack_pair_int8(const struct adapter_pair *pair, float *room,
                                  struct sora_lora_module *module, uint8_t **next,
                                  struct sora_error *err)
{
    const size_t rank = (size_t)pair->rank;
    const size_t d_in = (size_t)pair->d_in, d_out = (size_t)pair->d_out;
    int8_t *a = (int8_t *)*next, *bt = a + int8_bytes(rank, d_in);
    float *scales = (float *)(void *)(bt + int8_bytes(rank, d_out));
    float *rows = room + rank * d_out;
    sora_status status = safetensors_to_f32(pair->a, room, err);
    for (size_t r = 0; status == SORA_OK && r < rank; r++)
        scales[r] = round_row(room + r * d_in, d_in, a + r * d_in);
    if (status == SORA_OK)
        status = safetensors_to_f32(pair->b, room, err);
    if (status != SORA_OK)
        return status;
    transpose((const uint8_t *)room, pair->d_out, pair->rank, sizeof *room, (uint8_t *)rows);
    for (size_t r = 0; r < rank; r++) {
        int8_t *row = (int8_t *)room; // B itself is needed no more
        scales[r] *= round_row(rows + r * d_out, d_out, row);
        place_columns(row, r, rank, d_out, bt);
    }
    *module = (struct sora_lora_module){.rank = pair->rank,
                                        .scale = pair->scale,
                                        .dtype = SORA_I8,
                                        .a = a,
                                        .bt = bt,
                                        .scales = scales};
    *next += pair_bytes(pair, true);
    return SORA_OK;
}

// Of all pairs' needs, the largest; NULL: no memory.
static float *make_room(const struct adapter_plan *plan)
{
    size_t most = 1;
    for (int32_t i = 0; i < ADAPTER_MODULE_COUNT_MAX; i++) {
        const struct adapter_pair *pair = &plan->pairs[i];
        const size_t d_in = (size_t)pair->d_in, twice = 2 * (size_t)pair->d_out;
        const size_t floats = (size_t)pair->rank * (d_in > twice ? d_in : twice);
        most = pair->a && floats > most ? floats : most;
    }
    return calloc(most, sizeof(float));
}

static void describe_pair(const struct adapter_pair *pair, int32_t slot,
                          struct sora_adapter *adapter)
{
    struct sora_adapter_info *info = &adapter->info;
    struct sora_adapter_module *module = &adapter->modules[info->module_count++];
    module->layer = slot / SORA_PROJ_COUNT;
    module->proj = (enum sora_proj)(slot % SORA_PROJ_COUNT);
    module->rank = pair->rank;
    module->alpha = pair->alpha;
    module->scale = pair->scale;
    info->parameters += (int64_t)pair->rank * ((int64_t)pair->d_in + pair->d_out);
    info->rank_mean += pair->rank; // the sum, until all are counted
    if (pair->rank > info->rank_max)
        info->rank_max = pair->rank;
}

static sora_status pack(const struct adapter_plan *plan, bool int8, struct sora_adapter *adapter,
                        struct sora_error *err)
{
    int32_t slot_count = plan->layer_count * SORA_PROJ_COUNT;
    adapter->info.packed_bytes = packed_bytes(plan, int8);
    adapter->info.int8_bytes = packed_bytes(plan, true);
    adapter->packed = pages_map(adapter->info.packed_bytes + PACK_ALIGNMENT);
    adapter->modules = calloc((size_t)plan->pair_count + 1, sizeof *adapter->modules);
    float *room = int8 ? make_room(plan) : NULL;
    if (!adapter->packed || !adapter->modules || (int8 && !room)) {
        free(room);
        return sora_fail(err, SORA_NO_MEMORY, "no memory for an adapter of %zu bytes",
                         adapter->info.packed_bytes);
    }
    sora_status status = SORA_OK;
    struct sora_lora_module *table = adapter->packed;
    uint8_t *next = (uint8_t *)adapter->packed + aligned((size_t)slot_count * sizeof *table);
    for (int32_t i = 0; i < slot_count && status == SORA_OK; i++) {
        if (!plan->pairs[i].a)
            continue;
        if (int8)
            status = pack_pair_int8(&plan->pairs[i], room, &table[i], &next, err);
        else
            pack_pair(&plan->pairs[i], &table[i], &next);
        describe_pair(&plan->pairs[i], i, adapter);
    }
    free(room);
    if (status != SORA_OK)
        return status;
    ASSERT(next == (uint8_t *)adapter->packed + adapter->info.packed_bytes);
    ASSERT(adapter->info.module_count == plan->pair_count);
    adapter->info.rank_mean = slot_count ? adapter->info.rank_mean / slot_count : 0.0;
    adapter->lora.layer_count = plan->layer_count;
    adapter->lora.modules = table;
    return SORA_OK;
}

// Copies a record; false when out of memory.
static bool copy_text(const char *text, char **out)
{
    *out = text ? strdup(text) : NULL;
    return !text || *out;
}

static sora_status build(const struct adapter_plan *plan, bool int8, struct sora_adapter *adapter,
                         struct sora_error *err)
{
    sora_status status = pack(plan, int8, adapter, err);
    if (status != SORA_OK)
        return status;
    if (!copy_text(plan->config_json, &adapter->config_json) ||
        !copy_text(plan->base_json, &adapter->base_json) ||
        !copy_text(plan->training_json, &adapter->training_json))
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the records of an adapter");
    adapter->info.r_max = plan->config.r;
    adapter->info.layer_count = plan->layer_count;
    adapter->info.modules = adapter->modules;
    adapter->info.config_json = adapter->config_json;
    adapter->info.base_json = adapter->base_json;
    adapter->info.training_json = adapter->training_json;
    return SORA_OK;
}

// What a tensor of a file takes when it is packed in int8: a byte for each value and, with A, a
// scale for each rank.
static size_t tensor_bytes_int8(const struct safetensors_tensor *tensor)
{
    const bool is_a = strstr(tensor->name, ".lora_A.") != NULL;
    const size_t rank = (size_t)tensor->shape[is_a ? 0 : 1];
    const size_t width = (size_t)tensor->shape[is_a ? 1 : 0];
    return int8_bytes(rank, width) + (is_a ? aligned(rank * sizeof(float)) : 0);
}

sora_status adapter_measure(const void *bytes, size_t byte_count, const struct sora_base *base,
                            bool int8, size_t *packed, struct sora_error *err)
{
    struct safetensors *file = NULL;
    sora_status status = safetensors_parse(bytes, byte_count, &file, err);
    if (status != SORA_OK)
        return status;
    // Every tensor of a good file is packed, each by itself.
    *packed =
        aligned((size_t)base->layer_count * SORA_PROJ_COUNT * sizeof(struct sora_lora_module));
    for (int32_t i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);
        *packed += int8 && tensor->rank == 2 ? tensor_bytes_int8(tensor) : aligned(tensor->bytes);
    }
    safetensors_destroy(file);
    return SORA_OK;
}

sora_status sora_adapter_parse(const void *bytes, size_t byte_count, const struct sora_base *base,
                               sora_adapter **adapter, struct sora_error *err)
{
    return sora_adapter_parse_as(bytes, byte_count, base, false, adapter, err);
}

sora_status sora_adapter_parse_as(const void *bytes, size_t byte_count,
                                  const struct sora_base *base, bool int8, sora_adapter **adapter,
                                  struct sora_error *err)
{
    char digest[65];
    *adapter = NULL;
    sora_status status = sha256_of(bytes, byte_count, digest, err);
    if (status == SORA_OK)
        status = adapter_parse_known(bytes, byte_count, base, digest, int8, adapter, err);
    return status;
}

sora_status adapter_parse_known(const void *bytes, size_t byte_count, const struct sora_base *base,
                                const char *digest, bool int8, sora_adapter **adapter,
                                struct sora_error *err)
{
    struct adapter_plan plan;
    *adapter = NULL;
    sora_status status = adapter_plan_read(bytes, byte_count, NULL, base, &plan, err);
    if (status != SORA_OK)
        return status;
    struct sora_adapter *built = calloc(1, sizeof *built);
    if (!built)
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for an adapter");
    if (status == SORA_OK)
        status = build(&plan, int8, built, err);
    if (status == SORA_OK) {
        built->info.bytes = byte_count;
        memcpy(built->info.digest, digest, sizeof built->info.digest);
    }
    adapter_plan_deinit(&plan);
    if (status != SORA_OK) {
        sora_adapter_destroy(built);
        return status;
    }
    *adapter = built;
    return SORA_OK;
}

static sora_status open_foreign(const char *path, const struct sora_base *base, bool int8,
                                sora_adapter **adapter, struct sora_error *err)
{
    uint8_t *bytes = NULL;
    size_t byte_count = 0;
    sora_status status = sora_adapter_import(path, base, &bytes, &byte_count, err);
    if (status == SORA_OK)
        status = sora_adapter_parse_as(bytes, byte_count, base, int8, adapter, err);
    free(bytes);
    return status;
}

sora_status sora_adapter_open(const char *path, const struct sora_base *base,
                              sora_adapter **adapter, struct sora_error *err)
{
    return sora_adapter_open_as(path, base, false, adapter, err);
}

sora_status sora_adapter_open_as(const char *path, const struct sora_base *base, bool int8,
                                 sora_adapter **adapter, struct sora_error *err)
{
    struct file_map map = {NULL, 0};
    *adapter = NULL;
    if (file_is_folder(path))
        return open_foreign(path, base, int8, adapter, err);
    sora_status status = file_map_open(path, &map, err);
    if (status != SORA_OK)
        return status;
    bool foreign = sora_adapter_is_gguf(map.data, map.bytes);
    if (!foreign)
        status = sora_adapter_parse_as(map.data, map.bytes, base, int8, adapter, err);
    file_map_close(&map);
    if (foreign)
        return open_foreign(path, base, int8, adapter, err);
    return status == SORA_OK ? status : sora_fail_within(err, status, "%s", path);
}

void sora_adapter_destroy(sora_adapter *adapter)
{
    if (!adapter)
        return;
    pages_unmap(adapter->packed, adapter->info.packed_bytes + PACK_ALIGNMENT);
    free(adapter->modules);
    free(adapter->config_json);
    free(adapter->base_json);
    free(adapter->training_json);
    free(adapter);
}

const struct sora_adapter_info *sora_adapter_get_info(const sora_adapter *adapter)
{
    return &adapter->info;
}

const struct sora_lora *sora_adapter_get_lora(const sora_adapter *adapter)
{
    return &adapter->lora;
}
