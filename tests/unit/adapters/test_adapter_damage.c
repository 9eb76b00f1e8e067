// SPDX-License-Identifier: Apache-2.0
// Every kind of damage to a valid file is refused with a text that names the thing. One thread.
#include "adapter_fixture.h"

#include "base/safetensors.h"

// The file that is damaged: three modules,
//   tensor 0, 1: layer 0 q_proj    A [2, 16], B [16, 2]
//   tensor 2, 3: layer 1 v_proj    A [3, 16], B [8, 3]
//   tensor 4, 5: layer 2 down_proj A [1, 24], B [16, 1]
static const int32_t ranks[] = {2, 3, 1};
static const enum sora_proj projs[] = {SORA_PROJ_Q, SORA_PROJ_V, SORA_PROJ_DOWN};

#define PREFIX "base_model.model.model.layers."

enum kind {
    TRUNCATE,  // to `number` bytes; negative: that many off the end
    APPEND,    // `number` bytes
    BYTE,      // at `tensor`, becomes `number`
    TEXT,      // in the header: `from` becomes `to`, of the same length
    RENAME,    // tensor `tensor` is called `to`
    DROP,      // tensor `tensor` is left out
    COPY,      // tensor `tensor` comes again as `to`
    DTYPE,     // of the tensor: `to`, with as many bytes
    SHAPE,     // of the tensor: `number` x `number2`, with the bytes for it
    FLAT,      // the tensor gets one dimension
    DEEP,      // the tensor gets three dimensions
    VALUE,     // bits `number` at element `number2` of the tensor
    META,      // key `from` has value `to`; NULL: is left out
    META_TEXT, // in the value of key `from2`: `from` becomes `to`
};

struct damage {
    const char *what;
    enum kind kind;
    int tensor;
    int64_t number, number2;
    const char *from, *to, *from2;
    sora_status status; // SORA_OK: any but OK
    const char *part;   // of the text
};

static const struct damage damages[] = {
    {"nothing at all", TRUNCATE, .number = 0, .part = "safetensors"},
    {"half a length", TRUNCATE, .number = 4, .part = "safetensors"},
    {"a length alone", TRUNCATE, .number = 8, .part = "safetensors"},
    {"half a header", TRUNCATE, .number = 300, .part = "safetensors"},
    {"one byte short", TRUNCATE, .number = -1, .part = "tensor"},
    {"half of the data", TRUNCATE, .number = -400, .part = "tensor"},
    {"one byte too many", APPEND, .number = 1, .part = "after the last tensor"},
    {"a huge header length", BYTE, .tensor = 5, .number = 255, .part = "header"},
    {"a header length one off", BYTE, .tensor = 0, .number = 255, .part = "header"},
    {"no JSON object", BYTE, .tensor = 8, .number = '[', .part = "header"},
    {"a raw zero in the header", BYTE, .tensor = 20, .number = 0, .part = "header"},
    {"broken UTF-8 in the header", BYTE, .tensor = 20, .number = 0xff, .part = "header"},
    {"a length of many gigabytes", BYTE, .tensor = 7, .number = 0x10, .part = "header"},
    {"an unknown type", TEXT, .from = "\"dtype\":\"F32\"", .to = "\"dtype\":\"F99\"",
     .part = "F99"},
    {"no type", TEXT, .from = "\"dtype\":", .to = "\"dtypo\":", .part = "layers.0"},
    {"no shape", TEXT, .from = "\"shape\":", .to = "\"shapo\":", .part = "layers.0"},
    {"no offsets", TEXT,
     .from = "\"data_offsets\":", .to = "\"data_offsetz\":", .part = "layers.0"},
    {"a shape that is no size", TEXT, .from = "[2,16]", .to = "[-,16]", .part = "header"},
    {"a negative shape", TEXT, .from = "[16,2]", .to = "[16,-]", .part = "header"},
    {"a fractional shape", TEXT, .from = "[2,16]", .to = "[2,.6]", .part = "header"},
    {"overlapping tensors", TEXT, .from = "[128,256]", .to = "[127,255]", .part = "tensor"},
    {"offsets the wrong way round", TEXT, .from = "[128,256]", .to = "[256,128]", .part = "tensor"},
    {"metadata that is no text", TEXT, .from = "\"format_version\":\"1\"",
     .to = "\"format_version\":123", .part = "format_version"},

    {"a name without a module", RENAME, .tensor = 0, .to = "weights", .status = SORA_MISMATCH,
     .part = "\"weights\" matches no module"},
    {"an unknown projection", RENAME, .tensor = 0, .to = PREFIX "0.self_attn.z_proj.lora_A.weight",
     .status = SORA_MISMATCH, .part = "z_proj"},
    {"a projection in the wrong block", RENAME, .tensor = 0,
     .to = PREFIX "0.mlp.q_proj.lora_A.weight", .status = SORA_MISMATCH, .part = "mlp.q_proj"},
    {"a fused projection", RENAME, .tensor = 0, .to = PREFIX "0.self_attn.qkv_proj.lora_A.weight",
     .status = SORA_MISMATCH, .part = "qkv_proj"},
    {"a layer that the base lacks", RENAME, .tensor = 0,
     .to = PREFIX "3.self_attn.q_proj.lora_A.weight", .status = SORA_MISMATCH,
     .part = "expected a layer below 3, found 3"},
    {"a huge layer", RENAME, .tensor = 0,
     .to = PREFIX "999999999999.self_attn.q_proj.lora_A.weight", .status = SORA_MISMATCH,
     .part = "999999999999"},
    {"a negative layer", RENAME, .tensor = 0, .to = PREFIX "-1.self_attn.q_proj.lora_A.weight",
     .status = SORA_MISMATCH, .part = "layers.-1"},
    {"a layer with a leading zero", RENAME, .tensor = 0,
     .to = PREFIX "00.self_attn.q_proj.lora_A.weight", .status = SORA_MISMATCH,
     .part = "layers.00"},
    {"a layer without a number", RENAME, .tensor = 0,
     .to = PREFIX ".self_attn.q_proj.lora_A.weight", .status = SORA_MISMATCH, .part = "layers."},
    {"a name with a tail", RENAME, .tensor = 0, .to = PREFIX "0.self_attn.q_proj.lora_A.weight.x",
     .status = SORA_MISMATCH, .part = "weight.x"},
    {"another adapter's name", RENAME, .tensor = 0,
     .to = PREFIX "0.self_attn.q_proj.lora_A.other.weight", .status = SORA_MISMATCH,
     .part = "other"},
    {"a lora_C", RENAME, .tensor = 0, .to = PREFIX "0.self_attn.q_proj.lora_C.weight",
     .status = SORA_MISMATCH, .part = "lora_C"},
    {"another model's blocks", RENAME, .tensor = 0,
     .to = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight", .status = SORA_MISMATCH,
     .part = "c_attn"},
    {"a name without its prefix", RENAME, .tensor = 0,
     .to = "model.layers.0.self_attn.q_proj.lora_A.weight", .status = SORA_MISMATCH,
     .part = "\"model.layers.0"},
    {"DoRA", RENAME, .tensor = 0, .to = PREFIX "0.self_attn.q_proj.lora_magnitude_vector",
     .status = SORA_UNSUPPORTED, .part = "DoRA"},
    {"an adapted embedding", RENAME, .tensor = 0,
     .to = "base_model.model.model.embed_tokens.lora_embedding_A", .status = SORA_UNSUPPORTED,
     .part = "lora_embedding"},
    {"an adapted head", RENAME, .tensor = 0, .to = "base_model.model.lm_head.lora_A.weight",
     .status = SORA_UNSUPPORTED, .part = "lm_head"},
    {"a whole head", RENAME, .tensor = 0,
     .to = "base_model.model.lm_head.modules_to_save.default.weight", .status = SORA_UNSUPPORTED,
     .part = "modules_to_save"},
    {"a bias", RENAME, .tensor = 0, .to = PREFIX "0.self_attn.q_proj.lora_B.bias",
     .status = SORA_UNSUPPORTED, .part = "lora_bias"},
    {"an A without its B", DROP, .tensor = 1, .status = SORA_MISMATCH, .part = "no lora_B"},
    {"a B without its A", DROP, .tensor = 0, .status = SORA_MISMATCH, .part = "no lora_A"},
    {"a module that comes twice", COPY, .tensor = 0,
     .to = PREFIX "0.self_attn.q_proj.lora_A.default.weight", .status = SORA_MISMATCH,
     .part = "same module"},
    {"a module that comes twice by its short name", COPY, .tensor = 3,
     .to = "base_model.model.layers.1.self_attn.v_proj.lora_B.weight", .status = SORA_MISMATCH,
     .part = "same module"},
    {"two tensors of one name", COPY, .tensor = 0, .to = PREFIX "0.self_attn.q_proj.lora_A.weight",
     .part = "lora_A"},

    {"an integer type", DTYPE, .tensor = 2, .to = "I32", .status = SORA_MISMATCH,
     .part = "expected type F32, F16 or BF16, found I32"},
    {"a double type", DTYPE, .tensor = 0, .to = "F64", .part = "F64"},
    {"two types in one module", DTYPE, .tensor = 3, .to = "BF16", .status = SORA_MISMATCH,
     .part = "expected type F32"},
    {"a wrong width of A", SHAPE, .tensor = 0, .number = 2, .number2 = 15, .status = SORA_MISMATCH,
     .part = "expected shape [2, 16], found [2, 15]"},
    {"a transposed A", SHAPE, .tensor = 0, .number = 16, .number2 = 2, .status = SORA_MISMATCH,
     .part = "expected shape [2, 16], found [16, 2]"},
    {"a wrong height of B", SHAPE, .tensor = 1, .number = 17, .number2 = 2, .status = SORA_MISMATCH,
     .part = "expected shape [16, 2], found [17, 2]"},
    {"a rank of B that is not A's", SHAPE, .tensor = 1, .number = 16, .number2 = 3,
     .status = SORA_MISMATCH, .part = "expected shape [16, 2], found [16, 3]"},
    {"a rank that is not the config's", SHAPE, .tensor = 2, .number = 4, .number2 = 16,
     .status = SORA_MISMATCH, .part = "expected shape [3, 16], found [4, 16]"},
    {"one dimension", FLAT, .tensor = 0, .status = SORA_MISMATCH, .part = "found [32]"},
    {"three dimensions", DEEP, .tensor = 0, .status = SORA_MISMATCH, .part = "found [1, 2, 16]"},
    {"a rank over d_in", META_TEXT, .from2 = "adapter_config",
     .from = "\"model.layers.1.self_attn.v_proj\":3,", .to = "\"v_proj\":70000,",
     .part = "rank_pattern"},
    {"NaN at the first place", VALUE, .tensor = 0, .number = 0x7fc00000, .number2 = 0,
     .status = SORA_MISMATCH, .part = "index 0"},
    {"a signalling NaN", VALUE, .tensor = 2, .number = 0x7f800001, .number2 = 17,
     .status = SORA_MISMATCH, .part = "index 17 (row 1, column 1)"},
    {"infinity at the last place", VALUE, .tensor = 5, .number = 0x7f800000, .number2 = 15,
     .status = SORA_MISMATCH, .part = "index 15"},
    {"minus infinity", VALUE, .tensor = 3, .number = (int64_t)0xff800000, .number2 = 5,
     .status = SORA_MISMATCH, .part = "layers.1.self_attn.v_proj.lora_B.weight"},

    {"no format version", META, .from = "format_version", .to = NULL, .status = SORA_MALFORMED,
     .part = "format_version"},
    {"a newer format version", META, .from = "format_version", .to = "2",
     .status = SORA_UNSUPPORTED, .part = "newer version"},
    {"no config", META, .from = "adapter_config", .to = NULL, .status = SORA_MALFORMED,
     .part = "scale of the adapter is unknown"},
    {"an empty config", META, .from = "adapter_config", .to = "", .status = SORA_MALFORMED,
     .part = "adapter_config"},
    {"a config that is no object", META, .from = "adapter_config", .to = "[]",
     .status = SORA_MALFORMED, .part = "adapter_config"},
    {"a config without r", META, .from = "adapter_config", .to = "{\"lora_alpha\":8}",
     .status = SORA_MALFORMED, .part = "\"r\""},
    {"a config without alpha", META, .from = "adapter_config", .to = "{\"r\":8}",
     .status = SORA_MALFORMED, .part = "\"lora_alpha\""},
    {"a config cut short", META_TEXT, .from2 = "adapter_config", .from = "}", .to = "",
     .status = SORA_MALFORMED, .part = "adapter_config"},
    {"r of nought", META_TEXT, .from2 = "adapter_config", .from = "\"r\":8", .to = "\"r\":0",
     .status = SORA_MALFORMED, .part = "r"},
    {"a fractional rank", META_TEXT, .from2 = "adapter_config",
     .from = "\"model.layers.1.self_attn.v_proj\":3,", .to = "\"v_proj\":3.5,",
     .status = SORA_MALFORMED, .part = "3.5"},
    {"an alpha beyond all bounds", META_TEXT, .from2 = "adapter_config",
     .from = "\"lora_alpha\":16", .to = "\"lora_alpha\":1e999", .status = SORA_MALFORMED,
     .part = "adapter_config"},
    {"an alpha that is text", META_TEXT, .from2 = "adapter_config", .from = "\"lora_alpha\":16",
     .to = "\"lora_alpha\":\"16\"", .status = SORA_MALFORMED, .part = "lora_alpha"},
    {"another method", META_TEXT, .from2 = "adapter_config", .from = "\"LORA\"", .to = "\"IA3\"",
     .status = SORA_UNSUPPORTED, .part = "IA3"},
    {"a base record that is no object", META, .from = "base", .to = "7", .status = SORA_MALFORMED,
     .part = "base record"},
    {"a base record without a fingerprint", META_TEXT, .from2 = "base", .from = "\"fingerprint\"",
     .to = "\"finger\"", .status = SORA_MALFORMED, .part = "fingerprint"},
    {"a fingerprint that is none", META_TEXT, .from2 = "base", .from = "0011", .to = "xyz",
     .status = SORA_MALFORMED, .part = "fingerprint"},
    {"another fingerprint", META_TEXT, .from2 = "base", .from = "0011", .to = "ffff",
     .status = SORA_MISMATCH, .part = "fingerprint ffff"},
    {"another layer count", META_TEXT, .from2 = "base", .from = "\"layers\":3",
     .to = "\"layers\":4", .status = SORA_MISMATCH, .part = "layers 4, this base has 3"},
    {"another width", META_TEXT, .from2 = "base", .from = "\"hidden\":16", .to = "\"hidden\":32",
     .status = SORA_MISMATCH, .part = "hidden 32"},
    {"a base record without a width", META_TEXT, .from2 = "base", .from = "\"hidden\"",
     .to = "\"hiden\"", .status = SORA_MALFORMED, .part = "hidden"},
    {"another architecture", META_TEXT, .from2 = "base", .from = "\"llama\"", .to = "\"qwen2\"",
     .status = SORA_MISMATCH, .part = "qwen2"},
    {"a training record that is no JSON", META, .from = "training", .to = "{",
     .status = SORA_MALFORMED, .part = "training record"},
};
#define DAMAGE_COUNT (sizeof damages / sizeof damages[0])

// The file taken apart, to be changed and put together again.
struct bench {
    struct safetensors_tensor tensors[8];
    struct safetensors_meta meta[8];
    int32_t tensor_count, meta_count;
    uint8_t data[4096]; // of a tensor that was changed
    char text[8192];    // of a metadata value that was changed
};

static void make_good_file(const struct sora_base *base, uint8_t **bytes, size_t *byte_count)
{
    struct fixture_pairs *some = calloc(1, sizeof *some);
    assert_non_null(some);
    for (int i = 0; i < 3; i++) {
        struct rng rng;
        rng_seed(&rng, (uint64_t)i);
        size_t rank = (size_t)ranks[i];
        some->items[i] = (struct sora_adapter_tensor_pair){
            .layer = i,
            .proj = projs[i],
            .rank = ranks[i],
            .scale = 2.0,
            .a = fixture_values(&rng, rank * (size_t)base->d_in[projs[i]]),
            .b = fixture_values(&rng, rank * (size_t)base->d_out[projs[i]]),
        };
    }
    some->count = 3;
    fixture_file_of(base, some, SORA_F32, bytes, byte_count);
    fixture_pairs_free(some);
}

static size_t replace(const char *text, size_t bytes, const char *from, const char *to, char *out)
{
    const char *at = memmem(text, bytes, from, strlen(from));
    if (!at)
        fail_msg("\"%s\" is not in the file", from);
    size_t before = (size_t)(at - text), after = bytes - before - strlen(from);
    memcpy(out, text, before);
    memcpy(out + before, to, strlen(to));
    memcpy(out + before + strlen(to), at + strlen(from), after);
    return before + strlen(to) + after;
}

static void set_dtype(struct safetensors_tensor *tensor, const char *dtype)
{
    snprintf(tensor->dtype, sizeof tensor->dtype, "%s", dtype);
    if (strcmp(dtype, "F64") == 0)
        tensor->shape[1] /= 2;
    if (strcmp(dtype, "BF16") == 0)
        tensor->shape[0] *= 2;
}

static void damage_tensor(struct bench *bench, const struct damage *damage)
{
    struct safetensors_tensor *tensor = &bench->tensors[damage->tensor];
    memcpy(bench->data, tensor->data, tensor->bytes);
    tensor->data = bench->data;
    switch (damage->kind) {
    case RENAME:
        tensor->name = damage->to;
        break;
    case DTYPE:
        set_dtype(tensor, damage->to);
        break;
    case SHAPE:
        tensor->shape[0] = damage->number;
        tensor->shape[1] = damage->number2;
        tensor->bytes = (size_t)(damage->number * damage->number2) * 4;
        break;
    case FLAT:
        tensor->rank = 1;
        tensor->shape[0] *= tensor->shape[1];
        break;
    case DEEP:
        tensor->rank = 3;
        tensor->shape[2] = tensor->shape[1];
        tensor->shape[1] = tensor->shape[0];
        tensor->shape[0] = 1;
        break;
    default: {
        uint32_t bits = (uint32_t)damage->number;
        memcpy(bench->data + 4 * damage->number2, &bits, 4);
    }
    }
}

static void damage_meta(struct bench *bench, const struct damage *damage)
{
    const char *key = damage->kind == META ? damage->from : damage->from2;
    for (int32_t i = 0; i < bench->meta_count; i++) {
        if (strcmp(bench->meta[i].key, key) != 0)
            continue;
        if (damage->kind == META_TEXT) {
            const char *value = bench->meta[i].value;
            bench->text[replace(value, strlen(value), damage->from, damage->to, bench->text)] = 0;
            bench->meta[i].value = bench->text;
        } else if (damage->to) {
            bench->meta[i].value = damage->to;
        } else {
            bench->meta[i] = bench->meta[--bench->meta_count];
        }
        return;
    }
    fail_msg("no metadata %s", key);
}

// What has to be done below the container's own level.
static bool damage_parts(struct bench *bench, const struct damage *damage)
{
    int32_t *count = &bench->tensor_count;
    switch (damage->kind) {
    case DROP:
        memmove(&bench->tensors[damage->tensor], &bench->tensors[damage->tensor + 1],
                (size_t)(--*count - damage->tensor) * sizeof bench->tensors[0]);
        return true;
    case COPY:
        bench->tensors[*count] = bench->tensors[damage->tensor];
        bench->tensors[(*count)++].name = damage->to;
        return true;
    case META:
    case META_TEXT:
        damage_meta(bench, damage);
        return true;
    case TRUNCATE:
    case APPEND:
    case BYTE:
    case TEXT:
        return false;
    default:
        damage_tensor(bench, damage);
        return true;
    }
}

static void damage_bytes(const struct damage *damage, const uint8_t *good, size_t good_bytes,
                         uint8_t **bytes, size_t *byte_count)
{
    *bytes = calloc(1, good_bytes + 16);
    assert_non_null(*bytes);
    memcpy(*bytes, good, good_bytes);
    *byte_count = good_bytes;
    if (damage->kind == TRUNCATE)
        *byte_count =
            damage->number >= 0 ? (size_t)damage->number : good_bytes - (size_t)-damage->number;
    else if (damage->kind == APPEND)
        *byte_count += (size_t)damage->number;
    else if (damage->kind == BYTE)
        (*bytes)[damage->tensor] = (uint8_t)damage->number;
    else
        replace((const char *)good, good_bytes, damage->from, damage->to, (char *)*bytes);
}

// safetensors_encode refuses to write what cannot be read; its own words are as good then.
static sora_status make_damaged(const struct damage *damage, const uint8_t *good, size_t good_bytes,
                                uint8_t **bytes, size_t *byte_count, struct sora_error *err)
{
    static const char *const keys[] = {"format", "format_version", "adapter_config", "base",
                                       "training"};
    static struct bench bench;
    struct safetensors *file = NULL;
    memset(&bench, 0, sizeof bench);
    if (safetensors_parse(good, good_bytes, &file, err) != SORA_OK)
        fail_msg("the good file: %s", err->text);
    for (bench.tensor_count = 0; bench.tensor_count < safetensors_count(file); bench.tensor_count++)
        bench.tensors[bench.tensor_count] = *safetensors_at(file, bench.tensor_count);
    for (bench.meta_count = 0; bench.meta_count < 5; bench.meta_count++)
        bench.meta[bench.meta_count] = (struct safetensors_meta){
            keys[bench.meta_count], safetensors_metadata(file, keys[bench.meta_count])};
    sora_status status = SORA_OK;
    if (damage_parts(&bench, damage))
        status = safetensors_encode(bench.meta, bench.meta_count, bench.tensors, bench.tensor_count,
                                    bytes, byte_count, err);
    else
        damage_bytes(damage, good, good_bytes, bytes, byte_count);
    safetensors_destroy(file);
    return status;
}

static void check_damage(const struct damage *damage, const struct sora_base *base,
                         const uint8_t *good, size_t good_bytes)
{
    struct sora_error err = {SORA_OK, ""};
    uint8_t *bytes = NULL, *exact = NULL;
    size_t byte_count = 0;
    sora_adapter *adapter = NULL;
    sora_status status = make_damaged(damage, good, good_bytes, &bytes, &byte_count, &err);
    if (status == SORA_OK) {
        // In memory of just that size, so that a sanitizer sees a read beyond it.
        exact = malloc(byte_count ? byte_count : 1);
        assert_non_null(exact);
        memcpy(exact, bytes, byte_count);
        status = sora_adapter_parse(exact, byte_count, base, &adapter, &err);
    }
    if (status == SORA_OK)
        fail_msg("%s: was accepted", damage->what);
    assert_null(adapter);
    if (damage->status != SORA_OK && status != damage->status)
        fail_msg("%s: expected %s, found %s: %s", damage->what, sora_status_name(damage->status),
                 sora_status_name(status), err.text);
    if (!strstr(err.text, damage->part))
        fail_msg("%s: expected \"%s\" in: %s", damage->what, damage->part, err.text);
    free(bytes);
    free(exact);
}

static void every_damage_is_refused_and_named(void **state)
{
    (void)state;
    struct sora_base base = fixture_base();
    uint8_t *good;
    size_t good_bytes;
    assert_true(DAMAGE_COUNT >= 60);
    make_good_file(&base, &good, &good_bytes);
    for (size_t i = 0; i < DAMAGE_COUNT; i++)
        check_damage(&damages[i], &base, good, good_bytes);
    free(good);
}

// The harness itself must be able to fail: undamaged, the file is accepted.
static void the_undamaged_file_is_accepted(void **state)
{
    (void)state;
    struct sora_base base = fixture_base();
    struct sora_error err = {SORA_OK, ""};
    const struct damage none = {"nothing", TRUNCATE, .number = -0};
    uint8_t *good, *bytes;
    size_t good_bytes, byte_count;
    sora_adapter *adapter = NULL;
    make_good_file(&base, &good, &good_bytes);
    struct damage whole = none;
    whole.number = (int64_t)good_bytes;
    assert_ok(make_damaged(&whole, good, good_bytes, &bytes, &byte_count, &err));
    assert_ok(sora_adapter_parse(bytes, byte_count, &base, &adapter, &err));
    assert_int_equal(sora_adapter_get_info(adapter)->module_count, 3);
    sora_adapter_destroy(adapter);
    free(bytes);
    free(good);
}

// Cut anywhere, and with any one bit of the header flipped, the file never crashes the reader; cut
// files are always refused.
static void no_cut_and_no_flipped_bit_crashes_the_reader(void **state)
{
    (void)state;
    struct sora_base base = fixture_base();
    struct sora_error err;
    uint8_t *good;
    size_t good_bytes;
    sora_adapter *adapter = NULL;
    make_good_file(&base, &good, &good_bytes);
    for (size_t cut = 0; cut < good_bytes; cut += 7) {
        uint8_t *part = malloc(cut ? cut : 1);
        assert_non_null(part);
        memcpy(part, good, cut);
        assert_int_not_equal(sora_adapter_parse(part, cut, &base, &adapter, &err), SORA_OK);
        free(part);
    }
    for (size_t bit = 0; bit < 8 * (good_bytes - 600); bit += 3) {
        good[bit / 8] ^= (uint8_t)(1 << (bit % 8));
        if (sora_adapter_parse(good, good_bytes, &base, &adapter, &err) == SORA_OK)
            sora_adapter_destroy(adapter);
        good[bit / 8] ^= (uint8_t)(1 << (bit % 8));
    }
    free(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_damage_is_refused_and_named),
        cmocka_unit_test(the_undamaged_file_is_accepted),
        cmocka_unit_test(no_cut_and_no_flipped_bit_crashes_the_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
