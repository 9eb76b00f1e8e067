// SPDX-License-Identifier: Apache-2.0
// The folder's own config.json, or one made from a GGUF file's metadata. One call, one thread.
#include "model/merge_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/gguf.h"
#include "base/json.h"
#include "kernel/rope.h"

// What Llama 3's scaling is made of; the context is that of all its models so far.
#define LLAMA3_LOW 1
#define LLAMA3_HIGH 4
#define LLAMA3_CONTEXT 8192

static const char *dtype_name(enum sora_dtype dtype)
{
    return dtype == SORA_F32 ? "float32" : dtype == SORA_F16 ? "float16" : "bfloat16";
}

static bool set_text(cJSON *tree, const char *key, const char *text)
{
    cJSON_DeleteItemFromObjectCaseSensitive(tree, key);
    return cJSON_AddStringToObject(tree, key, text) != NULL;
}

static sora_status print_tree(const cJSON *tree, struct buf *out, struct sora_error *err)
{
    char *text = cJSON_Print(tree);
    if (text == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "config.json: out of memory");
    buf_text(out, text);
    buf_text(out, "\n");
    cJSON_free(text);
    return buf_status(out, err);
}

// The folder's own config.json; only the type of the tensors changes.
static sora_status print_folders(const char *folder, enum sora_dtype dtype, struct buf *out,
                                 struct sora_error *err)
{
    char *path = file_join(folder, "config.json"), *text = NULL;
    size_t bytes = 0;
    cJSON *tree = NULL;
    sora_status status = path == NULL ? sora_fail(err, SORA_NO_MEMORY, "out of memory")
                                      : file_read(path, SORA_JSON_BYTES_MAX, &text, &bytes, err);
    if (status == SORA_OK)
        status = json_parse(text, bytes, &tree, err);
    // transformers 5 writes "dtype", those before it "torch_dtype".
    if (status == SORA_OK &&
        !set_text(tree, json_has(tree, "dtype") ? "dtype" : "torch_dtype", dtype_name(dtype)))
        status = sora_fail(err, SORA_NO_MEMORY, "config.json: out of memory");
    if (status == SORA_OK)
        status = print_tree(tree, out, err);
    cJSON_Delete(tree);
    free(text);
    free(path);
    return status;
}

// Llama 3's GGUF files have the divisors of the frequencies that its scaling comes to; Hugging
// Face's config has the numbers that they are made of. Low is 1 and high 4 in all of Meta's models;
// the largest divisor is the factor, and any divisor between it and 1 tells the context. Whether
// the four give these divisors is checked.
static sora_status find_scaling(const struct sora_base *base, double theta,
                                const struct checkpoint_tensor *factors,
                                struct rope_scaling *scaling, struct sora_error *err)
{
    int32_t count = base->head_dim / 2;
    const struct rope_scaling none = {0};
    float *plain = aligned_calloc(3 * (size_t)count, sizeof *plain);
    if (plain == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "out of memory");
    float *scaled = plain + count, *divisors = scaled + count;
    sora_status status = checkpoint_check_shape(factors, 1, count, err);
    if (status != SORA_OK)
        goto done;
    quant_row_to_f32(factors->type, factors->data, count, divisors);
    rope_frequencies(theta, base->head_dim, &none, plain);
    *scaling = (struct rope_scaling){1, LLAMA3_LOW, LLAMA3_HIGH, LLAMA3_CONTEXT};
    for (int32_t i = 0; i < count; i++)
        scaling->factor = fmaxf(scaling->factor, divisors[i]);
    for (int32_t i = 0; i < count; i++) {
        double inverse = 1.0 / (double)scaling->factor;
        double smooth = (1.0 / (double)divisors[i] - inverse) / (1.0 - inverse);
        if (smooth > 0.001 && smooth < 0.999)
            scaling->original_context = (float)rint(
                2 * M_PI / (double)plain[i] * (smooth * (LLAMA3_HIGH - LLAMA3_LOW) + LLAMA3_LOW));
    }
    rope_frequencies(theta, base->head_dim, scaling, scaled);
    for (int32_t i = 0; i < count; i++) {
        if (!(fabsf(plain[i] / divisors[i] - scaled[i]) <= 1e-4f * scaled[i]))
            status = sora_fail(err, SORA_UNSUPPORTED,
                               "tensor %s: its RoPE factors are not those of llama3 scaling with "
                               "low %d and high %d, so config.json cannot tell them",
                               factors->name, LLAMA3_LOW, LLAMA3_HIGH);
    }
done:
    free(plain);
    return status;
}

static bool add_numbers(cJSON *tree, const struct checkpoint *checkpoint)
{
    const struct sora_base *base = &checkpoint->base;
    const struct {
        const char *key;
        double value;
    } numbers[] = {
        {"hidden_size", base->hidden},
        {"intermediate_size", base->intermediate},
        {"num_hidden_layers", base->layer_count},
        {"num_attention_heads", base->head_count},
        {"num_key_value_heads", base->kv_head_count},
        {"head_dim", base->head_dim},
        {"vocab_size", base->vocab_size},
        {"max_position_embeddings", checkpoint->config.context_length},
        {"rope_theta", checkpoint->config.rope_theta},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (cJSON_AddNumberToObject(tree, numbers[i].key, numbers[i].value) == NULL)
            return false;
    }
    // The shortest decimal: an f32 of 1e-5 is no 9.99999974738e-06 in a config.
    char text[32];
    snprintf(text, sizeof text, "%.7g", (double)checkpoint->config.norm_eps);
    return cJSON_AddRawToObject(tree, "rms_norm_eps", text) != NULL &&
           cJSON_AddBoolToObject(tree, "tie_word_embeddings", checkpoint->config.tied_output) !=
               NULL &&
           cJSON_AddStringToObject(tree, "hidden_act", "silu") != NULL;
}

// llama with a sliding window is Hugging Face's mistral.
static bool add_family(cJSON *tree, const struct checkpoint *checkpoint)
{
    static const struct {
        const char *architecture, *type, *class_name;
        bool windowed;
    } families[] = {
        {"llama", "llama", "LlamaForCausalLM", false},
        {"llama", "mistral", "MistralForCausalLM", true},
        {"qwen2", "qwen2", "Qwen2ForCausalLM", false},
        {"qwen3", "qwen3", "Qwen3ForCausalLM", false},
    };
    int32_t window = checkpoint->config.sliding_window;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (strcmp(families[i].architecture, checkpoint->base.architecture) != 0 ||
            families[i].windowed != (window > 0))
            continue;
        cJSON *classes = cJSON_CreateStringArray(&families[i].class_name, 1);
        if (!cJSON_AddItemToObject(tree, "architectures", classes))
            return false;
        return cJSON_AddStringToObject(tree, "model_type", families[i].type) != NULL &&
               (window == 0 || cJSON_AddNumberToObject(tree, "sliding_window", window) != NULL);
    }
    return false;
}

static sora_status add_rope(cJSON *tree, struct checkpoint *checkpoint, struct sora_error *err)
{
    struct checkpoint_tensor factors;
    struct rope_scaling scaling;
    bool found = false;
    sora_status status =
        checkpoint->find(checkpoint, CHECKPOINT_ROPE_FACTORS, 0, &factors, &found, err);
    if (status != SORA_OK || !found)
        return status;
    status =
        find_scaling(&checkpoint->base, checkpoint->config.rope_theta, &factors, &scaling, err);
    if (status != SORA_OK)
        return status;
    cJSON *rope = cJSON_AddObjectToObject(tree, "rope_scaling");
    bool added =
        rope != NULL && cJSON_AddStringToObject(rope, "rope_type", "llama3") != NULL &&
        cJSON_AddNumberToObject(rope, "factor", (double)scaling.factor) != NULL &&
        cJSON_AddNumberToObject(rope, "low_freq_factor", (double)scaling.low_freq_factor) != NULL &&
        cJSON_AddNumberToObject(rope, "high_freq_factor", (double)scaling.high_freq_factor) !=
            NULL &&
        cJSON_AddNumberToObject(rope, "original_max_position_embeddings",
                                (double)scaling.original_context) != NULL;
    return added ? SORA_OK : sora_fail(err, SORA_NO_MEMORY, "config.json: out of memory");
}

// The special tokens that generation needs, where the file names them.
static sora_status add_tokens(cJSON *tree, const char *model_path, struct sora_error *err)
{
    static const char *const keys[][2] = {
        {"tokenizer.ggml.bos_token_id", "bos_token_id"},
        {"tokenizer.ggml.eos_token_id", "eos_token_id"},
        {"tokenizer.ggml.padding_token_id", "pad_token_id"},
    };
    struct gguf *gguf = NULL;
    sora_status status = gguf_open(model_path, &gguf, err);
    for (int i = 0; status == SORA_OK && i < 3; i++) {
        int64_t id;
        if (gguf_get_int(gguf, keys[i][0], &id) &&
            cJSON_AddNumberToObject(tree, keys[i][1], (double)id) == NULL)
            status = sora_fail(err, SORA_NO_MEMORY, "config.json: out of memory");
    }
    gguf_close(gguf);
    return status;
}

static sora_status print_ggufs(const char *model_path, struct checkpoint *checkpoint,
                               enum sora_dtype dtype, struct buf *out, struct sora_error *err)
{
    cJSON *tree = cJSON_CreateObject();
    sora_status status = SORA_OK;
    if (tree == NULL || !add_family(tree, checkpoint) || !add_numbers(tree, checkpoint) ||
        !set_text(tree, "torch_dtype", dtype_name(dtype)))
        status = sora_fail(err, SORA_UNSUPPORTED,
                           "no config.json can be made for architecture %s with a window of %d",
                           checkpoint->base.architecture, checkpoint->config.sliding_window);
    if (status == SORA_OK)
        status = add_rope(tree, checkpoint, err);
    if (status == SORA_OK)
        status = add_tokens(tree, model_path, err);
    if (status == SORA_OK)
        status = print_tree(tree, out, err);
    cJSON_Delete(tree);
    return status;
}

sora_status merge_config_print(const char *model_path, struct checkpoint *checkpoint,
                               enum sora_dtype dtype, struct buf *out, struct sora_error *err)
{
    return file_is_folder(model_path) ? print_folders(model_path, dtype, out, err)
                                      : print_ggufs(model_path, checkpoint, dtype, out, err);
}

sora_status merge_config_copy_tokenizer(const char *model_path, const char *folder,
                                        struct sora_error *err)
{
    static const char *const names[] = {
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "chat_template.jinja",
        "generation_config.json",
    };
    sora_status status = SORA_OK;
    if (!file_is_folder(model_path))
        return SORA_OK;
    for (size_t i = 0; status == SORA_OK && i < sizeof names / sizeof names[0]; i++) {
        struct file_map map = {NULL, 0};
        char *from = file_join(model_path, names[i]), *to = file_join(folder, names[i]);
        if (from == NULL || to == NULL)
            status = sora_fail(err, SORA_NO_MEMORY, "out of memory");
        else if (file_exists(from)) {
            status = file_map_open(from, &map, err);
            if (status == SORA_OK)
                status = file_write_atomic(to, map.data, map.bytes, err);
        }
        file_map_close(&map);
        free(from);
        free(to);
    }
    return status;
}
