// SPDX-License-Identifier: Apache-2.0
// GGUF parser: one pass over the header with a checked cursor, then two sorted indexes (keys and
// tensor names) for lookup. The caller that opened it owns it; immutable afterwards, so any thread
// may read. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#include "base/gguf.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/assert.h"
#include "base/cursor.h"
#include "base/file.h"

#define GGUF_MAGIC 0x46554747u // "GGUF" read little-endian
#define GGUF_ARRAY_DEPTH_MAX 4
#define GGUF_ALIGNMENT_DEFAULT 32
#define GGUF_ALIGNMENT_MAX (1u << 20) // beyond a huge page nothing is gained
#define GGUF_KEY_BYTES_MAX 65535      // the format's own bound
#define GGUF_KV_BYTES_MIN 13          // empty key, type, one byte
#define GGUF_TENSOR_INFO_BYTES_MIN 32 // empty name, rank, one dimension, type, offset

enum value_type {
    VALUE_U8,
    VALUE_I8,
    VALUE_U16,
    VALUE_I16,
    VALUE_U32,
    VALUE_I32,
    VALUE_F32,
    VALUE_BOOL,
    VALUE_STRING,
    VALUE_ARRAY,
    VALUE_U64,
    VALUE_I64,
    VALUE_F64,
    VALUE_TYPE_COUNT
};

struct gguf_kv {
    struct gguf_string key;
    uint32_t type;
    uint32_t item_type;   // of an array
    uint64_t item_count;  // of an array
    const uint8_t *value; // scalar bytes, the string's length field, or the first array item
    size_t bytes;         // from value to the end of the value
};

struct gguf {
    struct file_map map; // empty when the bytes are the caller's
    uint32_t kv_count;
    struct gguf_kv *kvs; // sorted by key
    int32_t tensor_count;
    struct gguf_tensor *tensors;       // in the file's order
    const struct gguf_tensor **sorted; // by name
};

// Values and bytes of one block of each GGML type, by type id; 0 where the id is not in use.
static const struct {
    uint16_t values, bytes;
} blocks[] = {
    [0] = {1, 4},      // F32
    [1] = {1, 2},      // F16
    [2] = {32, 18},    // Q4_0
    [3] = {32, 20},    // Q4_1
    [6] = {32, 22},    // Q5_0
    [7] = {32, 24},    // Q5_1
    [8] = {32, 34},    // Q8_0
    [9] = {32, 36},    // Q8_1
    [10] = {256, 84},  // Q2_K
    [11] = {256, 110}, // Q3_K
    [12] = {256, 144}, // Q4_K
    [13] = {256, 176}, // Q5_K
    [14] = {256, 210}, // Q6_K
    [15] = {256, 292}, // Q8_K
    [16] = {256, 66},  // IQ2_XXS
    [17] = {256, 74},  // IQ2_XS
    [18] = {256, 98},  // IQ3_XXS
    [19] = {256, 50},  // IQ1_S
    [20] = {32, 18},   // IQ4_NL
    [21] = {256, 110}, // IQ3_S
    [22] = {256, 82},  // IQ2_S
    [23] = {256, 136}, // IQ4_XS
    [24] = {1, 1},     // I8
    [25] = {1, 2},     // I16
    [26] = {1, 4},     // I32
    [27] = {1, 8},     // I64
    [28] = {1, 8},     // F64
    [29] = {256, 56},  // IQ1_M
    [30] = {1, 2},     // BF16
    [34] = {256, 54},  // TQ1_0
    [35] = {256, 66},  // TQ2_0
    [39] = {32, 17},   // MXFP4
};

static bool type_known(uint32_t type)
{
    return type < sizeof blocks / sizeof blocks[0] && blocks[type].values > 0;
}

// Bytes of a value of fixed size; 0 for strings, arrays and unknown types.
static size_t scalar_bytes(uint32_t type)
{
    static const uint8_t bytes[VALUE_TYPE_COUNT] = {
        [VALUE_U8] = 1,  [VALUE_I8] = 1,  [VALUE_U16] = 2, [VALUE_I16] = 2,
        [VALUE_U32] = 4, [VALUE_I32] = 4, [VALUE_F32] = 4, [VALUE_BOOL] = 1,
        [VALUE_U64] = 8, [VALUE_I64] = 8, [VALUE_F64] = 8,
    };
    return type < VALUE_TYPE_COUNT ? bytes[type] : 0;
}

static int string_compare(struct gguf_string a, struct gguf_string b)
{
    size_t shared = a.bytes < b.bytes ? a.bytes : b.bytes;
    int order = shared > 0 ? memcmp(a.data, b.data, shared) : 0;
    return order != 0 ? order : (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

static struct gguf_string string_of(const char *text)
{
    return (struct gguf_string){text, strlen(text)};
}

// For error texts: at most 80 bytes of a foreign string.
static int shown_bytes(struct gguf_string text)
{
    return text.bytes < 80 ? (int)text.bytes : 80;
}

// A string; on failure the cursor has failed and the view is empty.
static struct gguf_string read_string(struct cursor *in)
{
    uint64_t bytes = cursor_u64(in);
    const char *data = cursor_bytes(in, bytes);
    return data != NULL ? (struct gguf_string){data, bytes} : (struct gguf_string){"", 0};
}

static sora_status skip_array(struct cursor *in, int depth, uint32_t *item_type,
                              uint64_t *item_count, struct sora_error *err)
{
    *item_type = cursor_u32(in);
    *item_count = cursor_u64(in);
    sora_status status = cursor_status(in, "array", err);
    if (status != SORA_OK)
        return status;
    if (depth > GGUF_ARRAY_DEPTH_MAX)
        return sora_fail(err, SORA_LIMIT, "arrays nest deeper than %d", GGUF_ARRAY_DEPTH_MAX);
    if (*item_type >= VALUE_TYPE_COUNT)
        return sora_fail(err, SORA_MALFORMED, "array of unknown value type %u", *item_type);
    if (*item_count > SORA_GGUF_ARRAY_COUNT_MAX)
        return sora_fail(err, SORA_LIMIT, "array of %llu items exceeds %u",
                         (unsigned long long)*item_count, SORA_GGUF_ARRAY_COUNT_MAX);
    size_t item_bytes = scalar_bytes(*item_type);
    if (item_bytes > 0) {
        (void)cursor_bytes(in, *item_count * item_bytes);
        return cursor_status(in, "array", err);
    }
    for (uint64_t i = 0; i < *item_count && !in->failed; i++) {
        if (*item_type == VALUE_STRING) {
            (void)read_string(in);
            continue;
        }
        uint32_t inner_type;
        uint64_t inner_count;
        status = skip_array(in, depth + 1, &inner_type, &inner_count, err);
        if (status != SORA_OK)
            return status;
    }
    return cursor_status(in, "array", err);
}

static sora_status parse_value(struct cursor *in, struct gguf_kv *kv, struct sora_error *err)
{
    size_t start = in->pos;
    if (kv->type == VALUE_STRING) {
        (void)read_string(in);
    } else if (kv->type == VALUE_ARRAY) {
        sora_status status = skip_array(in, 1, &kv->item_type, &kv->item_count, err);
        if (status != SORA_OK)
            return status;
        start += 12; // item type and count
    } else if (scalar_bytes(kv->type) > 0) {
        (void)cursor_bytes(in, scalar_bytes(kv->type));
    } else {
        return sora_fail(err, SORA_MALFORMED, "unknown value type %u", kv->type);
    }
    sora_status status = cursor_status(in, "value", err);
    if (status != SORA_OK)
        return status;
    kv->value = in->data + start;
    kv->bytes = in->pos - start;
    if (kv->type == VALUE_BOOL && kv->value[0] > 1)
        return sora_fail(err, SORA_MALFORMED, "bool with value %u", kv->value[0]);
    return SORA_OK;
}

static int kv_order(const void *a, const void *b)
{
    return string_compare(((const struct gguf_kv *)a)->key, ((const struct gguf_kv *)b)->key);
}

static sora_status parse_kvs(struct gguf *gguf, struct cursor *in, uint64_t count,
                             struct sora_error *err)
{
    if (count > SORA_GGUF_KV_COUNT_MAX)
        return sora_fail(err, SORA_LIMIT, "gguf: %llu metadata keys exceed %d",
                         (unsigned long long)count, SORA_GGUF_KV_COUNT_MAX);
    if (count > cursor_left(in) / GGUF_KV_BYTES_MIN)
        return sora_fail(err, SORA_MALFORMED, "gguf: %llu metadata keys do not fit the file",
                         (unsigned long long)count);
    gguf->kvs = calloc(count > 0 ? count : 1, sizeof *gguf->kvs);
    if (gguf->kvs == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "gguf: metadata");
    gguf->kv_count = (uint32_t)count;
    for (uint32_t i = 0; i < gguf->kv_count; i++) {
        struct gguf_kv *kv = &gguf->kvs[i];
        kv->key = read_string(in);
        kv->type = cursor_u32(in);
        sora_status status = cursor_status(in, "gguf: metadata key", err);
        if (status != SORA_OK)
            return status;
        if (kv->key.bytes > GGUF_KEY_BYTES_MAX)
            return sora_fail(err, SORA_LIMIT, "gguf: key of %zu bytes exceeds %d", kv->key.bytes,
                             GGUF_KEY_BYTES_MAX);
        status = parse_value(in, kv, err);
        if (status != SORA_OK)
            return sora_fail_within(err, status, "gguf: key %.*s", shown_bytes(kv->key),
                                    kv->key.data);
    }
    qsort(gguf->kvs, gguf->kv_count, sizeof *gguf->kvs, kv_order);
    for (uint32_t i = 1; i < gguf->kv_count; i++) {
        struct gguf_string key = gguf->kvs[i].key;
        if (string_compare(gguf->kvs[i - 1].key, key) == 0)
            return sora_fail(err, SORA_MALFORMED, "gguf: key %.*s appears twice", shown_bytes(key),
                             key.data);
    }
    return SORA_OK;
}

// Bytes of a tensor from type and shape; 0 with SORA_OK for an unknown type.
static sora_status tensor_bytes(const struct gguf_tensor *tensor, size_t *bytes,
                                struct sora_error *err)
{
    *bytes = 0;
    size_t values = 1;
    for (int32_t i = 0; i < tensor->rank; i++) {
        if (!checked_mul(values, (size_t)tensor->shape[i], &values) || values > INT64_MAX)
            return sora_fail(err, SORA_LIMIT, "number of values overflows");
    }
    if (!type_known((uint32_t)tensor->type))
        return SORA_OK;
    uint32_t block_values = blocks[tensor->type].values;
    if (tensor->shape[0] % block_values != 0)
        return sora_fail(err, SORA_MALFORMED, "row of %lld values is no multiple of %u (type %d)",
                         (long long)tensor->shape[0], block_values, tensor->type);
    if (!checked_mul(values / block_values, blocks[tensor->type].bytes, bytes))
        return sora_fail(err, SORA_LIMIT, "number of bytes overflows");
    return SORA_OK;
}

// Reads one directory entry; *offset is relative to the data section.
static sora_status parse_tensor_info(struct cursor *in, struct gguf_tensor *tensor,
                                     uint64_t *offset, struct sora_error *err)
{
    tensor->name = read_string(in);
    uint32_t rank = cursor_u32(in);
    sora_status status = cursor_status(in, "name", err);
    if (status != SORA_OK)
        return status;
    if (tensor->name.bytes == 0 || tensor->name.bytes > SORA_TENSOR_NAME_BYTES_MAX)
        return sora_fail(err, SORA_LIMIT, "name of %zu bytes is not in [1, %d]", tensor->name.bytes,
                         SORA_TENSOR_NAME_BYTES_MAX);
    if (rank == 0 || rank > SORA_TENSOR_RANK_MAX)
        return sora_fail(err, SORA_LIMIT, "%u dimensions are not in [1, %d]", rank,
                         SORA_TENSOR_RANK_MAX);
    tensor->rank = (int32_t)rank;
    for (uint32_t i = 0; i < rank; i++) {
        uint64_t size = cursor_u64(in);
        if (!in->failed && (size == 0 || size > INT64_MAX))
            return sora_fail(err, SORA_MALFORMED, "dimension %u is %llu", i,
                             (unsigned long long)size);
        tensor->shape[i] = (int64_t)size;
    }
    uint32_t type = cursor_u32(in);
    *offset = cursor_u64(in);
    if (type > INT32_MAX)
        return sora_fail(err, SORA_MALFORMED, "type %u", type);
    tensor->type = (int32_t)type;
    return cursor_status(in, "shape, type and offset", err);
}

// Sets data and bytes from an offset into the data section [data, data + data_bytes).
static sora_status bind_tensor(struct gguf_tensor *tensor, uint64_t offset, uint32_t alignment,
                               const uint8_t *data, size_t data_bytes, struct sora_error *err)
{
    if (offset % alignment != 0)
        return sora_fail(err, SORA_MALFORMED, "offset %llu is no multiple of %u",
                         (unsigned long long)offset, alignment);
    size_t bytes;
    sora_status status = tensor_bytes(tensor, &bytes, err);
    if (status != SORA_OK)
        return status;
    if (offset > data_bytes || bytes > data_bytes - offset)
        return sora_fail(err, SORA_MALFORMED,
                         "%zu bytes at offset %llu leave the data section of %zu bytes", bytes,
                         (unsigned long long)offset, data_bytes);
    tensor->bytes = bytes;
    tensor->data = type_known((uint32_t)tensor->type) ? data + offset : NULL;
    return SORA_OK;
}

static int tensor_order(const void *a, const void *b)
{
    return string_compare((*(const struct gguf_tensor *const *)a)->name,
                          (*(const struct gguf_tensor *const *)b)->name);
}

static sora_status index_tensors(struct gguf *gguf, struct sora_error *err)
{
    for (int32_t i = 0; i < gguf->tensor_count; i++)
        gguf->sorted[i] = &gguf->tensors[i];
    qsort(gguf->sorted, (size_t)gguf->tensor_count, sizeof *gguf->sorted, tensor_order);
    for (int32_t i = 1; i < gguf->tensor_count; i++) {
        struct gguf_string name = gguf->sorted[i]->name;
        if (string_compare(gguf->sorted[i - 1]->name, name) == 0)
            return sora_fail(err, SORA_MALFORMED, "gguf: tensor %.*s appears twice",
                             shown_bytes(name), name.data);
    }
    return SORA_OK;
}

static sora_status read_alignment(const struct gguf *gguf, uint32_t *alignment,
                                  struct sora_error *err)
{
    int64_t value = GGUF_ALIGNMENT_DEFAULT;
    (void)gguf_get_int(gguf, "general.alignment", &value);
    if (value < 1 || value > GGUF_ALIGNMENT_MAX || (value & (value - 1)) != 0)
        return sora_fail(err, SORA_MALFORMED,
                         "gguf: general.alignment %lld is no power of two in [1, %u]",
                         (long long)value, GGUF_ALIGNMENT_MAX);
    *alignment = (uint32_t)value;
    return SORA_OK;
}

static sora_status parse_tensors(struct gguf *gguf, struct cursor *in, uint64_t count,
                                 struct sora_error *err)
{
    if (count > SORA_TENSOR_COUNT_MAX)
        return sora_fail(err, SORA_LIMIT, "gguf: %llu tensors exceed %d", (unsigned long long)count,
                         SORA_TENSOR_COUNT_MAX);
    if (count > cursor_left(in) / GGUF_TENSOR_INFO_BYTES_MIN)
        return sora_fail(err, SORA_MALFORMED, "gguf: %llu tensors do not fit the file",
                         (unsigned long long)count);
    uint32_t alignment = GGUF_ALIGNMENT_DEFAULT;
    sora_status status = read_alignment(gguf, &alignment, err);
    if (status != SORA_OK)
        return status;
    size_t slots = count > 0 ? count : 1;
    uint64_t *offsets = calloc(slots, sizeof *offsets);
    gguf->tensors = calloc(slots, sizeof *gguf->tensors);
    gguf->sorted = calloc(slots, sizeof *gguf->sorted);
    if (offsets == NULL || gguf->tensors == NULL || gguf->sorted == NULL) {
        status = sora_fail(err, SORA_NO_MEMORY, "gguf: tensor directory");
        goto done;
    }
    gguf->tensor_count = (int32_t)count;
    for (uint64_t i = 0; status == SORA_OK && i < count; i++) {
        status = parse_tensor_info(in, &gguf->tensors[i], &offsets[i], err);
        if (status != SORA_OK)
            status = sora_fail_within(err, status, "gguf: tensor %llu", (unsigned long long)i);
    }
    if (status != SORA_OK)
        goto done;
    size_t data_start = in->pos + (alignment - in->pos % alignment) % alignment;
    size_t data_bytes = data_start < in->bytes ? in->bytes - data_start : 0;
    const uint8_t *data = data_bytes > 0 ? in->data + data_start : NULL;
    for (uint64_t i = 0; status == SORA_OK && i < count; i++) {
        struct gguf_tensor *tensor = &gguf->tensors[i];
        status = bind_tensor(tensor, offsets[i], alignment, data, data_bytes, err);
        if (status != SORA_OK)
            status = sora_fail_within(err, status, "gguf: tensor %.*s", shown_bytes(tensor->name),
                                      tensor->name.data);
    }
    if (status == SORA_OK)
        status = index_tensors(gguf, err);
done:
    free(offsets);
    return status;
}

static sora_status parse_into(struct gguf *gguf, const void *bytes, size_t byte_count,
                              struct sora_error *err)
{
    struct cursor in;
    cursor_init(&in, bytes, byte_count);
    uint32_t magic = cursor_u32(&in);
    uint32_t version = cursor_u32(&in);
    if (!in.failed && magic != GGUF_MAGIC)
        return sora_fail(err, SORA_MALFORMED, "gguf: the file does not start with GGUF");
    if (!in.failed && version != 2 && version != 3)
        return sora_fail(err, SORA_UNSUPPORTED,
                         "gguf: version %u is not 2 or 3 (little-endian files only)", version);
    uint64_t tensor_count = cursor_u64(&in);
    uint64_t kv_count = cursor_u64(&in);
    sora_status status = cursor_status(&in, "gguf: header", err);
    if (status == SORA_OK)
        status = parse_kvs(gguf, &in, kv_count, err);
    if (status == SORA_OK)
        status = parse_tensors(gguf, &in, tensor_count, err);
    return status;
}

sora_status gguf_parse(const void *bytes, size_t byte_count, struct gguf **gguf,
                       struct sora_error *err)
{
    *gguf = NULL;
    struct gguf *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "gguf");
    sora_status status = parse_into(made, bytes, byte_count, err);
    if (status != SORA_OK) {
        gguf_close(made);
        return status;
    }
    *gguf = made;
    return SORA_OK;
}

sora_status gguf_open(const char *path, struct gguf **gguf, struct sora_error *err)
{
    *gguf = NULL;
    struct file_map map;
    sora_status status = file_map_open(path, &map, err);
    if (status != SORA_OK)
        return status;
    status = gguf_parse(map.data, map.bytes, gguf, err);
    if (status != SORA_OK) {
        file_map_close(&map);
        return sora_fail_within(err, status, "%s", path);
    }
    (*gguf)->map = map;
    return SORA_OK;
}

void gguf_close(struct gguf *gguf)
{
    if (gguf == NULL)
        return;
    free(gguf->kvs);
    free(gguf->tensors);
    free(gguf->sorted);
    if (gguf->map.data != NULL)
        file_map_close(&gguf->map);
    free(gguf);
}

int32_t gguf_tensor_count(const struct gguf *gguf)
{
    return gguf->tensor_count;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, int32_t index)
{
    ASSERT(index >= 0 && index < gguf->tensor_count);
    return &gguf->tensors[index];
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *gguf, const char *name)
{
    struct gguf_string wanted = string_of(name);
    int32_t low = 0, high = gguf->tensor_count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        int order = string_compare(gguf->sorted[middle]->name, wanted);
        if (order == 0)
            return gguf->sorted[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

void gguf_forget_tensor(const struct gguf *gguf, const struct gguf_tensor *tensor)
{
    if (gguf->map.data != NULL && tensor->data != NULL)
        file_map_forget(&gguf->map, tensor->data, tensor->bytes);
}

int32_t gguf_rotary_row(int32_t row, int32_t head_dim)
{
    int32_t head = row / head_dim, within = row % head_dim, half_dim = head_dim / 2;
    return head * head_dim + 2 * (within % half_dim) + within / half_dim;
}

static const struct gguf_kv *find_kv(const struct gguf *gguf, const char *key)
{
    struct gguf_kv wanted = {.key = string_of(key)};
    return bsearch(&wanted, gguf->kvs, gguf->kv_count, sizeof *gguf->kvs, kv_order);
}

// One integer of a fixed-size type; false for other types and for u64 beyond int64.
static bool read_int(struct cursor *in, uint32_t type, int64_t *value)
{
    uint64_t wide;
    switch (type) {
    case VALUE_U8:
        *value = cursor_u8(in);
        return true;
    case VALUE_I8:
        *value = (int8_t)cursor_u8(in);
        return true;
    case VALUE_U16:
        *value = cursor_u16(in);
        return true;
    case VALUE_I16:
        *value = (int16_t)cursor_u16(in);
        return true;
    case VALUE_U32:
        *value = cursor_u32(in);
        return true;
    case VALUE_I32:
        *value = (int32_t)cursor_u32(in);
        return true;
    case VALUE_U64:
        wide = cursor_u64(in);
        *value = (int64_t)wide;
        return wide <= INT64_MAX;
    case VALUE_I64:
        *value = (int64_t)cursor_u64(in);
        return true;
    default:
        return false;
    }
}

bool gguf_get_int(const struct gguf *gguf, const char *key, int64_t *value)
{
    const struct gguf_kv *kv = find_kv(gguf, key);
    if (kv == NULL)
        return false;
    struct cursor in;
    cursor_init(&in, kv->value, kv->bytes);
    int64_t read;
    if (!read_int(&in, kv->type, &read))
        return false;
    *value = read;
    return true;
}

bool gguf_get_number(const struct gguf *gguf, const char *key, double *value)
{
    const struct gguf_kv *kv = find_kv(gguf, key);
    if (kv == NULL)
        return false;
    struct cursor in;
    cursor_init(&in, kv->value, kv->bytes);
    int64_t whole;
    if (kv->type == VALUE_F32)
        *value = cursor_f32(&in);
    else if (kv->type == VALUE_F64)
        *value = cursor_f64(&in);
    else if (read_int(&in, kv->type, &whole))
        *value = (double)whole;
    else
        return false;
    return true;
}

bool gguf_get_bool(const struct gguf *gguf, const char *key, bool *value)
{
    const struct gguf_kv *kv = find_kv(gguf, key);
    if (kv == NULL || kv->type != VALUE_BOOL)
        return false;
    *value = kv->value[0] != 0;
    return true;
}

bool gguf_get_string(const struct gguf *gguf, const char *key, struct gguf_string *value)
{
    const struct gguf_kv *kv = find_kv(gguf, key);
    if (kv == NULL || kv->type != VALUE_STRING)
        return false;
    struct cursor in;
    cursor_init(&in, kv->value, kv->bytes);
    *value = read_string(&in);
    return true;
}

static const struct gguf_kv *find_array(const struct gguf *gguf, const char *key, uint32_t type_a,
                                        uint32_t type_b)
{
    const struct gguf_kv *kv = find_kv(gguf, key);
    if (kv == NULL || kv->type != VALUE_ARRAY)
        return NULL;
    return kv->item_type == type_a || kv->item_type == type_b ? kv : NULL;
}

int64_t gguf_get_strings(const struct gguf *gguf, const char *key)
{
    const struct gguf_kv *kv = find_array(gguf, key, VALUE_STRING, VALUE_STRING);
    return kv != NULL ? (int64_t)kv->item_count : -1;
}

void gguf_copy_strings(const struct gguf *gguf, const char *key, struct gguf_string *values)
{
    const struct gguf_kv *kv = find_array(gguf, key, VALUE_STRING, VALUE_STRING);
    ASSERT(kv != NULL);
    struct cursor in;
    cursor_init(&in, kv->value, kv->bytes);
    for (uint64_t i = 0; i < kv->item_count; i++)
        values[i] = read_string(&in);
}

int64_t gguf_get_ints(const struct gguf *gguf, const char *key)
{
    const struct gguf_kv *kv = find_array(gguf, key, VALUE_I32, VALUE_U32);
    return kv != NULL ? (int64_t)kv->item_count : -1;
}

void gguf_copy_ints(const struct gguf *gguf, const char *key, int32_t *values)
{
    const struct gguf_kv *kv = find_array(gguf, key, VALUE_I32, VALUE_U32);
    ASSERT(kv != NULL);
    struct cursor in;
    cursor_init(&in, kv->value, kv->bytes);
    for (uint64_t i = 0; i < kv->item_count; i++) {
        int64_t value = 0;
        (void)read_int(&in, kv->item_type, &value);
        values[i] = value > INT32_MAX ? INT32_MAX : (int32_t)value; // a large u32 is clamped
    }
}
