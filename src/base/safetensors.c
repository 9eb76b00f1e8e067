// SPDX-License-Identifier: Apache-2.0
// Reader and writer of the safetensors container. A parsed file is immutable and may be read from
// any thread; the bytes belong to the caller.
#include "base/safetensors.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/assert.h"
#include "base/buf.h"
#include "base/cursor.h"
#include "base/half.h"
#include "base/json.h"

// A tensor's entry has 10 values at rank 4; the metadata of a file has a handful.
#define HEADER_VALUES_MAX (SORA_TENSOR_COUNT_MAX * 16u)
#define SAFE_INTEGER_MAX 9007199254740991.0

struct safetensors {
    cJSON *header; // owns the names and the metadata
    const cJSON *metadata;
    int32_t count;
    struct safetensors_tensor *tensors; // in the order of the header
    const struct safetensors_tensor **by_name;
};

static const struct {
    const char *name;
    uint8_t bytes;
} dtypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2},     {"BF16", 2},    {"I64", 8},
              {"I32", 4}, {"I16", 2}, {"I8", 1},      {"U64", 8},     {"U32", 4},
              {"U16", 2}, {"U8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"BOOL", 1}};

// Bytes of one item; 0: unknown type.
static size_t dtype_bytes(const char *name)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; ++i)
        if (strcmp(dtypes[i].name, name) == 0)
            return dtypes[i].bytes;
    return 0;
}

// A JSON number that is a whole size; false otherwise.
static bool read_size(const cJSON *item, size_t *out)
{
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) ||
        item->valuedouble > SAFE_INTEGER_MAX || item->valuedouble != floor(item->valuedouble))
        return false;
    *out = (size_t)item->valuedouble;
    return true;
}

static sora_status read_shape(const cJSON *entry, struct safetensors_tensor *tensor, size_t *items,
                              struct sora_error *err)
{
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(entry, "shape");
    const cJSON *item;
    *items = 1;
    if (!cJSON_IsArray(shape))
        return sora_fail(err, SORA_MALFORMED, "tensor %s: no shape", tensor->name);
    cJSON_ArrayForEach(item, shape)
    {
        size_t size;
        if (tensor->rank == SORA_TENSOR_RANK_MAX)
            return sora_fail(err, SORA_LIMIT, "tensor %s: more than %d dimensions", tensor->name,
                             SORA_TENSOR_RANK_MAX);
        if (!read_size(item, &size))
            return sora_fail(err, SORA_MALFORMED, "tensor %s: dimension %d is not a size",
                             tensor->name, tensor->rank);
        if (!checked_mul(*items, size, items))
            return sora_fail(err, SORA_MALFORMED, "tensor %s: the shape overflows", tensor->name);
        tensor->shape[tensor->rank++] = (int64_t)size;
    }
    return SORA_OK;
}

static sora_status read_offsets(const cJSON *entry, struct safetensors_tensor *tensor,
                                const uint8_t *data, size_t data_bytes, struct sora_error *err)
{
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(entry, "data_offsets");
    size_t begin, end;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        !read_size(offsets->child, &begin) || !read_size(offsets->child->next, &end))
        return sora_fail(err, SORA_MALFORMED, "tensor %s: data_offsets are not two sizes",
                         tensor->name);
    if (begin > end || end > data_bytes)
        return sora_fail(err, SORA_MALFORMED, "tensor %s: data_offsets [%zu, %zu] in %zu bytes",
                         tensor->name, begin, end, data_bytes);
    tensor->data = data + begin;
    tensor->bytes = end - begin;
    return SORA_OK;
}

static sora_status read_tensor(const cJSON *entry, struct safetensors_tensor *tensor,
                               const uint8_t *data, size_t data_bytes, struct sora_error *err)
{
    const char *name = entry->string;
    if (strlen(name) > SORA_TENSOR_NAME_BYTES_MAX)
        return sora_fail(err, SORA_LIMIT, "tensor %.64s...: name longer than %d bytes", name,
                         SORA_TENSOR_NAME_BYTES_MAX);
    tensor->name = name;
    if (!cJSON_IsObject(entry))
        return sora_fail(err, SORA_MALFORMED, "tensor %s: the entry is not an object", name);
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(entry, "dtype");
    size_t item_bytes = cJSON_IsString(dtype) ? dtype_bytes(dtype->valuestring) : 0;
    if (item_bytes == 0)
        return sora_fail(err, SORA_MALFORMED, "tensor %s: unknown dtype %.32s", name,
                         cJSON_IsString(dtype) ? dtype->valuestring : "(none)");
    snprintf(tensor->dtype, sizeof tensor->dtype, "%s", dtype->valuestring);
    size_t items, want;
    sora_status status = read_shape(entry, tensor, &items, err);
    if (status != SORA_OK)
        return status;
    status = read_offsets(entry, tensor, data, data_bytes, err);
    if (status != SORA_OK)
        return status;
    if (!checked_mul(items, item_bytes, &want) || want != tensor->bytes)
        return sora_fail(err, SORA_MALFORMED, "tensor %s: %zu bytes, but shape and %s ask for %zu",
                         name, tensor->bytes, tensor->dtype, items * item_bytes);
    return SORA_OK;
}

static sora_status check_metadata(const cJSON *metadata, struct sora_error *err)
{
    const cJSON *item;
    if (!cJSON_IsObject(metadata))
        return sora_fail(err, SORA_MALFORMED, "__metadata__ is not an object");
    cJSON_ArrayForEach(item, metadata)
    {
        if (!cJSON_IsString(item))
            return sora_fail(err, SORA_MALFORMED, "__metadata__ %.64s: not a string", item->string);
    }
    return SORA_OK;
}

static sora_status read_tensors(struct safetensors *file, const uint8_t *data, size_t data_bytes,
                                struct sora_error *err)
{
    size_t count = 0;
    const cJSON *entry;
    cJSON_ArrayForEach(entry, file->header)++ count;
    if (count > SORA_TENSOR_COUNT_MAX)
        return sora_fail(err, SORA_LIMIT, "%zu tensors exceed %d", count, SORA_TENSOR_COUNT_MAX);
    file->tensors = calloc(count + 1, sizeof *file->tensors);
    file->by_name = calloc(count + 1, sizeof *file->by_name);
    if (file->tensors == NULL || file->by_name == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for %zu tensors", count);
    cJSON_ArrayForEach(entry, file->header)
    {
        sora_status status;
        if (strcmp(entry->string, "__metadata__") == 0) {
            file->metadata = entry;
            status = check_metadata(entry, err);
        } else {
            status = read_tensor(entry, &file->tensors[file->count], data, data_bytes, err);
            file->by_name[file->count] = &file->tensors[file->count];
            ++file->count;
        }
        if (status != SORA_OK)
            return status;
    }
    return SORA_OK;
}

typedef const struct safetensors_tensor *tensor_ref;

// By position; an empty tensor comes before the one that begins at the same byte.
static int compare_position(const void *a, const void *b)
{
    tensor_ref x = *(const tensor_ref *)a, y = *(const tensor_ref *)b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int compare_name(const void *a, const void *b)
{
    return strcmp((*(const tensor_ref *)a)->name, (*(const tensor_ref *)b)->name);
}

// The tensors must cover the data without a hole or an overlap. Uses by_name as scratch.
static sora_status check_cover(struct safetensors *file, const uint8_t *data, size_t data_bytes,
                               struct sora_error *err)
{
    size_t next = 0;
    qsort(file->by_name, (size_t)file->count, sizeof *file->by_name, compare_position);
    for (int32_t i = 0; i < file->count; ++i) {
        tensor_ref tensor = file->by_name[i];
        size_t begin = (size_t)(tensor->data - data);
        if (begin != next)
            return sora_fail(err, SORA_MALFORMED, "tensor %s: %s (begins at byte %zu, not %zu)",
                             tensor->name, begin < next ? "overlaps another" : "a hole before it",
                             begin, next);
        next += tensor->bytes;
    }
    if (next != data_bytes)
        return sora_fail(err, SORA_MALFORMED, "%zu bytes after the last tensor", data_bytes - next);
    return SORA_OK;
}

// Splits the file into header text and data.
static sora_status split(const void *bytes, size_t byte_count, const char **header,
                         size_t *header_bytes, struct cursor *cursor, struct sora_error *err)
{
    cursor_init(cursor, bytes, byte_count);
    uint64_t length = cursor_u64(cursor);
    if (!cursor->failed && length > SORA_SAFETENSORS_HEADER_BYTES_MAX)
        return sora_fail(err, SORA_LIMIT, "safetensors: header of %llu bytes exceeds %u",
                         (unsigned long long)length, SORA_SAFETENSORS_HEADER_BYTES_MAX);
    *header = cursor_bytes(cursor, (size_t)length);
    *header_bytes = (size_t)length;
    sora_status status = cursor_status(cursor, "safetensors", err);
    if (status != SORA_OK)
        return status;
    if (length == 0 || (*header)[0] != '{')
        return sora_fail(err, SORA_MALFORMED, "safetensors: the header does not begin with '{'");
    return SORA_OK;
}

sora_status safetensors_parse(const void *bytes, size_t byte_count, struct safetensors **file,
                              struct sora_error *err)
{
    struct cursor cursor;
    const char *header = NULL;
    size_t header_bytes = 0;
    sora_status status = split(bytes, byte_count, &header, &header_bytes, &cursor, err);
    if (status != SORA_OK)
        return status;
    struct safetensors *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a safetensors header");
    size_t data_bytes = cursor_left(&cursor);
    const uint8_t *data = cursor_bytes(&cursor, data_bytes);
    status = json_parse_within(header, header_bytes, HEADER_VALUES_MAX, &made->header, err);
    if (status != SORA_OK) {
        status = sora_fail_within(err, status, "safetensors header");
        goto done;
    }
    status = read_tensors(made, data, data_bytes, err);
    if (status != SORA_OK)
        goto done;
    status = check_cover(made, data, data_bytes, err);
    if (status != SORA_OK)
        goto done;
    qsort(made->by_name, (size_t)made->count, sizeof *made->by_name, compare_name);
    *file = made;
    made = NULL;
done:
    safetensors_destroy(made);
    return status;
}

void safetensors_destroy(struct safetensors *file)
{
    if (file == NULL)
        return;
    cJSON_Delete(file->header);
    free((void *)file->by_name);
    free(file->tensors);
    free(file);
}

int32_t safetensors_count(const struct safetensors *file)
{
    return file->count;
}

const struct safetensors_tensor *safetensors_at(const struct safetensors *file, int32_t index)
{
    ASSERT(index >= 0 && index < file->count);
    return &file->tensors[index];
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name)
{
    const struct safetensors_tensor wanted = {.name = name};
    tensor_ref key = &wanted;
    tensor_ref *found =
        bsearch(&key, file->by_name, (size_t)file->count, sizeof *file->by_name, compare_name);
    return found != NULL ? *found : NULL;
}

const char *safetensors_metadata(const struct safetensors *file, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(file->metadata, key);
    return item != NULL ? item->valuestring : NULL;
}

sora_status safetensors_to_f32(const struct safetensors_tensor *tensor, float *out,
                               struct sora_error *err)
{
    if (strcmp(tensor->dtype, "F32") == 0) {
        if (tensor->bytes > 0)
            memcpy(out, tensor->data, tensor->bytes);
        return SORA_OK;
    }
    bool bf16 = strcmp(tensor->dtype, "BF16") == 0;
    if (!bf16 && strcmp(tensor->dtype, "F16") != 0)
        return sora_fail(err, SORA_UNSUPPORTED, "tensor %s: %s is not a float type read here",
                         tensor->name, tensor->dtype);
    for (size_t i = 0; i < tensor->bytes / 2; ++i) {
        // Byte by byte: the data of a file has no alignment.
        uint16_t bits = (uint16_t)(tensor->data[2 * i] | tensor->data[2 * i + 1] << 8);
        out[i] = bf16 ? half_from_bf16(bits) : half_from_f16(bits);
    }
    return SORA_OK;
}

static void write_metadata(struct buf *header, const struct safetensors_meta *meta, int32_t count)
{
    buf_text(header, "\"__metadata__\":{");
    for (int32_t i = 0; i < count; ++i) {
        buf_text(header, i > 0 ? "," : "");
        buf_json_string(header, meta[i].key, strlen(meta[i].key));
        buf_text(header, ":");
        buf_json_string(header, meta[i].value, strlen(meta[i].value));
    }
    buf_text(header, "}");
}

static void write_entry(struct buf *header, const struct safetensors_tensor *tensor, size_t begin)
{
    buf_json_string(header, tensor->name, strlen(tensor->name));
    buf_printf(header, ":{\"dtype\":\"%s\",\"shape\":[", tensor->dtype);
    for (int32_t i = 0; i < tensor->rank; ++i)
        buf_printf(header, "%s%lld", i > 0 ? "," : "", (long long)tensor->shape[i]);
    buf_printf(header, "],\"data_offsets\":[%zu,%zu]}", begin, begin + tensor->bytes);
}

// The header text, padded so that the data begins at a multiple of 8.
static sora_status write_header(struct buf *header, const struct safetensors_meta *meta,
                                int32_t meta_count, const struct safetensors_tensor *tensors,
                                int32_t tensor_count, size_t *data_bytes, struct sora_error *err)
{
    size_t begin = 0;
    buf_text(header, "{");
    if (meta_count > 0)
        write_metadata(header, meta, meta_count);
    for (int32_t i = 0; i < tensor_count; ++i) {
        ASSERT(tensors[i].rank >= 0 && tensors[i].rank <= SORA_TENSOR_RANK_MAX);
        buf_text(header, i > 0 || meta_count > 0 ? "," : "");
        write_entry(header, &tensors[i], begin);
        if (!checked_add(begin, tensors[i].bytes, &begin))
            return sora_fail(err, SORA_LIMIT, "tensor %s: the file is too large", tensors[i].name);
    }
    buf_text(header, "}");
    while (header->status == SORA_OK && header->bytes % 8 != 0)
        buf_text(header, " ");
    *data_bytes = begin;
    sora_status status = buf_status(header, err);
    return status == SORA_OK ? SORA_OK : sora_fail_within(err, status, "safetensors header");
}

sora_status safetensors_encode_header(const struct safetensors_meta *meta, int32_t meta_count,
                                      const struct safetensors_tensor *tensors,
                                      int32_t tensor_count, struct buf *out, struct sora_error *err)
{
    struct buf header;
    size_t data_bytes = 0;
    buf_init(&header, SORA_SAFETENSORS_HEADER_BYTES_MAX);
    sora_status status =
        write_header(&header, meta, meta_count, tensors, tensor_count, &data_bytes, err);
    if (status == SORA_OK) {
        uint8_t length[8];
        for (int i = 0; i < 8; ++i)
            length[i] = (uint8_t)((uint64_t)header.bytes >> (8 * i));
        buf_append(out, length, sizeof length);
        buf_append(out, header.data, header.bytes);
        status = buf_status(out, err);
    }
    buf_deinit(&header);
    return status;
}

// What is written must be readable: the reader's own check, over names, shapes and types.
static sora_status check_readable(const uint8_t *bytes, size_t byte_count, struct sora_error *err)
{
    struct safetensors *file = NULL;
    sora_status status = safetensors_parse(bytes, byte_count, &file, err);
    safetensors_destroy(file);
    return status;
}

sora_status safetensors_encode(const struct safetensors_meta *meta, int32_t meta_count,
                               const struct safetensors_tensor *tensors, int32_t tensor_count,
                               uint8_t **bytes, size_t *byte_count, struct sora_error *err)
{
    struct buf header;
    uint8_t *made = NULL;
    size_t data_bytes = 0, total = 0;
    buf_init(&header, SORA_SAFETENSORS_HEADER_BYTES_MAX);
    sora_status status =
        write_header(&header, meta, meta_count, tensors, tensor_count, &data_bytes, err);
    if (status != SORA_OK)
        goto done;
    if (checked_add(8 + header.bytes, data_bytes, &total))
        made = malloc(total);
    if (made == NULL) {
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for a safetensors file");
        goto done;
    }
    for (int i = 0; i < 8; ++i)
        made[i] = (uint8_t)((uint64_t)header.bytes >> (8 * i));
    memcpy(made + 8, header.data, header.bytes);
    size_t at = 8 + header.bytes;
    for (int32_t i = 0; i < tensor_count; ++i) {
        if (tensors[i].bytes > 0)
            memcpy(made + at, tensors[i].data, tensors[i].bytes);
        at += tensors[i].bytes;
    }
    status = check_readable(made, total, err);
    if (status != SORA_OK)
        goto done;
    *bytes = made;
    *byte_count = total;
    made = NULL;
done:
    free(made);
    buf_deinit(&header);
    return status;
}
