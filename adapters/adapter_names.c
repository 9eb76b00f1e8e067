// SPDX-License-Identifier: Apache-2.0
// Names of projections and of the tensors in an adapter file. Pure functions, any thread.
#include "adapters/adapter_names.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "sora/adapter.h"

static const char *const proj_paths[SORA_PROJ_COUNT] = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj",
};

const char *sora_proj_path(enum sora_proj proj)
{
    ASSERT((int)proj >= 0 && proj < SORA_PROJ_COUNT);
    return proj_paths[proj];
}

const char *sora_proj_name(enum sora_proj proj)
{
    return strchr(sora_proj_path(proj), '.') + 1;
}

enum sora_proj sora_proj_from_name(const char *name)
{
    for (int p = 0; p < SORA_PROJ_COUNT; p++) {
        const char *full = sora_proj_name((enum sora_proj)p);
        size_t stem_bytes = strlen(full) - strlen("_proj");
        if (strcmp(name, full) == 0 ||
            (strlen(name) == stem_bytes && memcmp(name, full, stem_bytes) == 0))
            return (enum sora_proj)p;
    }
    return SORA_PROJ_COUNT;
}

void adapter_module_name(int32_t layer, enum sora_proj proj, char *out)
{
    snprintf(out, SORA_TENSOR_NAME_BYTES_MAX + 1, "model.layers.%d.%s", (int)layer,
             sora_proj_path(proj));
}

void adapter_tensor_name_print(int32_t layer, enum sora_proj proj, bool is_b, char *out)
{
    snprintf(out, SORA_TENSOR_NAME_BYTES_MAX + 1,
             "base_model.model.model.layers.%d.%s.lora_%c.weight", (int)layer, sora_proj_path(proj),
             is_b ? 'B' : 'A');
}

// Advances *text past the prefix when it is there.
static bool skip(const char **text, const char *prefix)
{
    size_t bytes = strlen(prefix);
    if (strncmp(*text, prefix, bytes) != 0)
        return false;
    *text += bytes;
    return true;
}

// A decimal number without sign or leading zeros, at most six digits; -1 otherwise.
static int32_t skip_number(const char **text)
{
    const char *p = *text;
    int32_t value = 0;
    int digits = 0;
    for (; *p >= '0' && *p <= '9' && digits < 7; p++, digits++)
        value = value * 10 + (*p - '0');
    if (digits == 0 || digits > 6 || (digits > 1 && **text == '0'))
        return -1;
    *text = p;
    return value;
}

static enum sora_proj skip_proj(const char **text)
{
    for (int p = 0; p < SORA_PROJ_COUNT; p++) {
        if (skip(text, proj_paths[p]))
            return (enum sora_proj)p;
    }
    return SORA_PROJ_COUNT;
}

// What a foreign name may stand for, so that the refusal says which feature it is.
static sora_status refuse_name(const char *name, struct sora_error *err)
{
    static const struct {
        const char *part, *what;
    } known[] = {
        {"lora_magnitude_vector", "DoRA (a lora_magnitude_vector)"},
        {"lora_embedding_", "an adapted embedding (lora_embedding_A/B)"},
        {"modules_to_save", "a fully trained module (modules_to_save)"},
        {"lora_B.bias", "a bias in lora_B (lora_bias)"},
        {"lora_B.default.bias", "a bias in lora_B (lora_bias)"},
        {"lora_diag", "KaSA (lora_diag)"},
        {"ia3_l", "IA3"},
        {"lm_head", "an adapted output head (lm_head)"},
        {"embed_tokens", "an adapted embedding (embed_tokens)"},
        {".bias", "a trained bias"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strstr(name, known[i].part))
            return sora_fail(err, SORA_UNSUPPORTED, "tensor \"%s\": %s is not supported", name,
                             known[i].what);
    }
    return sora_fail(err, SORA_MISMATCH,
                     "tensor \"%s\" matches no module of the base: expected "
                     "base_model.model.model.layers.<layer>.<self_attn|mlp>.<q|k|v|o|gate|up|down>"
                     "_proj.lora_<A|B>.weight",
                     name);
}

sora_status adapter_tensor_name_parse(const char *name, struct adapter_tensor_name *out,
                                      struct sora_error *err)
{
    const char *p = name;
    if (strlen(name) > SORA_TENSOR_NAME_BYTES_MAX || !skip(&p, "base_model.model."))
        return refuse_name(name, err);
    const char *module = p;
    skip(&p, "model.");
    if (!skip(&p, "layers."))
        return refuse_name(name, err);
    out->layer = skip_number(&p);
    if (out->layer < 0 || !skip(&p, "."))
        return refuse_name(name, err);
    out->proj = skip_proj(&p);
    if (out->proj == SORA_PROJ_COUNT)
        return refuse_name(name, err);
    memcpy(out->module, module, (size_t)(p - module));
    out->module[p - module] = 0;
    if (skip(&p, ".lora_A"))
        out->part = ADAPTER_PART_A;
    else if (skip(&p, ".lora_B"))
        out->part = ADAPTER_PART_B;
    else if (skip(&p, ".lora_E"))
        out->part = ADAPTER_PART_E;
    else
        return refuse_name(name, err);
    skip(&p, ".default");
    out->is_bare = *p == 0;
    if (!out->is_bare && (strcmp(p, ".weight") != 0 || out->part == ADAPTER_PART_E))
        return refuse_name(name, err);
    return SORA_OK;
}

static const char *const gguf_stems[SORA_PROJ_COUNT] = {
    "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down",
};

static sora_status refuse_gguf_name(const char *name, struct sora_error *err)
{
    static const struct {
        const char *part, *what;
    } known[] = {
        {"token_embd", "an adapted embedding (token_embd)"},
        {"output.weight", "an adapted output head (output)"},
        {"_exps", "an adapted mixture of experts"},
        {"_inp", "an adapted mixture of experts"},
        {"attn_qkv", "a fused projection (attn_qkv)"},
        {"norm", "a trained norm"},
        {".bias", "a trained bias"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strstr(name, known[i].part))
            return sora_fail(err, SORA_UNSUPPORTED, "tensor \"%s\": %s is not supported", name,
                             known[i].what);
    }
    return sora_fail(err, SORA_MISMATCH,
                     "tensor \"%s\" matches no module of the base: expected blk.<layer>."
                     "<attn_q|attn_k|attn_v|attn_output|ffn_gate|ffn_up|ffn_down>.weight."
                     "lora_<a|b>",
                     name);
}

sora_status adapter_tensor_name_parse_gguf(const char *name, struct adapter_tensor_name *out,
                                           struct sora_error *err)
{
    const char *p = name;
    if (!skip(&p, "blk."))
        return refuse_gguf_name(name, err);
    out->layer = skip_number(&p);
    if (out->layer < 0 || !skip(&p, "."))
        return refuse_gguf_name(name, err);
    size_t stem_bytes = strcspn(p, ".");
    out->proj = SORA_PROJ_COUNT;
    for (int i = 0; i < SORA_PROJ_COUNT; i++) {
        if (strlen(gguf_stems[i]) == stem_bytes && memcmp(p, gguf_stems[i], stem_bytes) == 0)
            out->proj = (enum sora_proj)i;
    }
    p += stem_bytes;
    bool is_b = strcmp(p, ".weight.lora_b") == 0;
    if (out->proj == SORA_PROJ_COUNT || (!is_b && strcmp(p, ".weight.lora_a") != 0))
        return refuse_gguf_name(name, err);
    out->part = is_b ? ADAPTER_PART_B : ADAPTER_PART_A;
    out->is_bare = false;
    adapter_module_name(out->layer, out->proj, out->module);
    return SORA_OK;
}

void adapter_tensor_name_print_gguf(int32_t layer, enum sora_proj proj, bool is_b, char *out)
{
    snprintf(out, SORA_TENSOR_NAME_BYTES_MAX + 1, "blk.%d.%s.weight.lora_%c", (int)layer,
             gguf_stems[proj], is_b ? 'b' : 'a');
}
