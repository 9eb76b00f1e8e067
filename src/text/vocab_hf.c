// SPDX-License-Identifier: Apache-2.0
// The vocabulary of a Hugging Face folder: tokenizer.json of the tokenizers library, and the ids
// and the chat template beside it. What is not understood is refused by name, never guessed.
// Called once per model by the thread that opens the tokenizer.
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "sora/limits.h"
#include "text/tokenizer.h"

#define HF_CONFIG_BYTES_MAX (4u << 20) // tokenizer_config.json repeats every added token

static const cJSON *member(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNull(item) ? NULL : item;
}

// The string member, or "" when it is absent or no string.
static const char *text_of(const cJSON *object, const char *name)
{
    const char *text = cJSON_GetStringValue(member(object, name));
    return text != NULL ? text : "";
}

static bool is_empty_text(const cJSON *object, const char *name)
{
    const cJSON *item = member(object, name);
    return item == NULL || (cJSON_IsString(item) && item->valuestring[0] == 0);
}

static bool is_true(const cJSON *object, const char *name)
{
    return cJSON_IsTrue(member(object, name));
}

static sora_status unsupported(struct sora_error *err, const char *what, const char *found)
{
    return sora_fail(err, SORA_UNSUPPORTED, "tokenizer.json: %s \"%.80s\" is not supported", what,
                     found);
}

static sora_status id_of(const cJSON *item, const char *token, int64_t *id, struct sora_error *err)
{
    double value = cJSON_IsNumber(item) ? item->valuedouble : -1;
    if (!(value >= 0 && value < SORA_VOCAB_SIZE_MAX) || value != (double)(int64_t)value)
        return sora_fail(err, SORA_MALFORMED,
                         "tokenizer.json: the id of token \"%.80s\" is no integer in [0, %d)",
                         token, SORA_VOCAB_SIZE_MAX);
    *id = (int64_t)value;
    return SORA_OK;
}

// One more than the largest id.
static sora_status count_tokens(const cJSON *words, const cJSON *added, int64_t *count,
                                struct sora_error *err)
{
    const cJSON *item;
    int64_t id = 0;
    *count = 0;
    cJSON_ArrayForEach(item, words)
    {
        sora_status status = id_of(item, item->string, &id, err);
        if (status != SORA_OK)
            return status;
        *count = id >= *count ? id + 1 : *count;
    }
    cJSON_ArrayForEach(item, added)
    {
        sora_status status = id_of(member(item, "id"), text_of(item, "content"), &id, err);
        if (status != SORA_OK)
            return status;
        *count = id >= *count ? id + 1 : *count;
    }
    return SORA_OK;
}

static sora_status load_words(const cJSON *words, struct vocab *vocab, struct sora_error *err)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, words)
    {
        int32_t id = (int32_t)item->valuedouble;
        if (vocab->tokens[id].byte_count > 0)
            return sora_fail(err, SORA_MALFORMED, "tokenizer.json: two tokens have the id %d", id);
        sora_status status =
            vocab_set_token(vocab, id, item->string, strlen(item->string), VOCAB_NORMAL, err);
        if (status != SORA_OK)
            return status;
    }
    return SORA_OK;
}

static sora_status load_added(const cJSON *added, struct vocab *vocab, struct sora_error *err)
{
    static const char *const flags[] = {"lstrip", "rstrip", "single_word"};
    const cJSON *item;
    cJSON_ArrayForEach(item, added)
    {
        const char *content = text_of(item, "content");
        if (content[0] == 0)
            return sora_fail(err, SORA_MALFORMED, "tokenizer.json: an added token is empty");
        for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
            if (is_true(item, flags[i]))
                return sora_fail(err, SORA_UNSUPPORTED,
                                 "tokenizer.json: %s of added token \"%.80s\" is not supported",
                                 flags[i], content);
        }
        enum vocab_kind kind = is_true(item, "special") ? VOCAB_CONTROL : VOCAB_USER;
        sora_status status = vocab_set_token(vocab, (int32_t)member(item, "id")->valuedouble,
                                             content, strlen(content), kind, err);
        if (status != SORA_OK)
            return status;
    }
    return SORA_OK;
}

static sora_status load_merges(const cJSON *merges, struct vocab *vocab, struct sora_error *err)
{
    int32_t rank = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, merges)
    {
        bool added = false;
        if (cJSON_IsString(item)) {
            added = vocab_add_merge_line(vocab, item->valuestring, strlen(item->valuestring), rank);
        } else if (cJSON_IsArray(item) && cJSON_GetArraySize(item) == 2) {
            const char *left = cJSON_GetStringValue(item->child);
            const char *right = cJSON_GetStringValue(item->child->next);
            added = left != NULL && right != NULL &&
                    vocab_add_merge(vocab, left, strlen(left), right, strlen(right), rank);
        }
        if (!added)
            return sora_fail(err, SORA_MALFORMED,
                             "tokenizer.json: merge %d is not of two tokens that give a token",
                             rank);
        rank++;
    }
    return SORA_OK;
}

static sora_status check_model(const cJSON *model, struct sora_error *err)
{
    if (strcmp(text_of(model, "type"), "BPE") != 0)
        return unsupported(err, "model type", text_of(model, "type"));
    const cJSON *dropout = member(model, "dropout");
    if (dropout != NULL && !(cJSON_IsNumber(dropout) && dropout->valuedouble == 0))
        return unsupported(err, "model setting", "dropout");
    if (is_true(model, "byte_fallback"))
        return unsupported(err, "model setting", "byte_fallback");
    if (!is_empty_text(model, "continuing_subword_prefix"))
        return unsupported(err, "model setting", "continuing_subword_prefix");
    if (!is_empty_text(model, "end_of_word_suffix"))
        return unsupported(err, "model setting", "end_of_word_suffix");
    if (!cJSON_IsObject(member(model, "vocab")) || !cJSON_IsArray(member(model, "merges")))
        return sora_fail(err, SORA_MALFORMED,
                         "tokenizer.json: model.vocab or model.merges is "
                         "missing");
    return SORA_OK;
}

struct patterns {
    const char *list[PRETOKENIZE_STAGES_MAX];
    int32_t count;
    bool byte_level; // seen; nothing may follow it
};

// Adds what one pre_tokenizer that is no Sequence does.
static sora_status add_pattern(const cJSON *item, struct patterns *patterns, struct sora_error *err)
{
    const char *type = text_of(item, "type");
    const char *pattern = NULL;
    if (patterns->byte_level)
        return unsupported(err, "a pre_tokenizer after ByteLevel:", type);
    if (strcmp(type, "ByteLevel") == 0) {
        patterns->byte_level = true;
        if (is_true(item, "add_prefix_space"))
            return unsupported(err, "ByteLevel setting", "add_prefix_space");
        if (cJSON_IsFalse(member(item, "use_regex")))
            return SORA_OK;
        pattern = pretokenize_gpt2;
    } else if (strcmp(type, "Digits") == 0) {
        pattern = is_true(item, "individual_digits") ? pretokenize_digit : pretokenize_digits;
    } else if (strcmp(type, "Split") == 0) {
        if (strcmp(text_of(item, "behavior"), "Isolated") != 0 || is_true(item, "invert"))
            return unsupported(err, "Split behavior", text_of(item, "behavior"));
        pattern = text_of(member(item, "pattern"), "Regex");
        if (pattern[0] == 0)
            return unsupported(err, "Split pattern", text_of(member(item, "pattern"), "String"));
    } else {
        return unsupported(err, "pre_tokenizer", type);
    }
    if (patterns->count == PRETOKENIZE_STAGES_MAX)
        return sora_fail(err, SORA_LIMIT, "tokenizer.json: pre_tokenizer has more than %d stages",
                         PRETOKENIZE_STAGES_MAX);
    patterns->list[patterns->count++] = pattern;
    return SORA_OK;
}

static sora_status load_pretokenizer(const cJSON *root, struct sora_tokenizer *tokenizer,
                                     struct sora_error *err)
{
    struct patterns patterns = {0};
    const cJSON *top = member(root, "pre_tokenizer");
    sora_status status = SORA_OK;
    if (strcmp(text_of(top, "type"), "Sequence") == 0) {
        const cJSON *item;
        cJSON_ArrayForEach(item, member(top, "pretokenizers"))
        {
            status = add_pattern(item, &patterns, err);
            if (status != SORA_OK)
                return status;
        }
    } else {
        status = add_pattern(top, &patterns, err);
        if (status != SORA_OK)
            return status;
    }
    if (!patterns.byte_level)
        return unsupported(err, "a pre_tokenizer without ByteLevel:", text_of(top, "type"));
    return pretokenizer_create(patterns.list, patterns.count, &tokenizer->pretokenizer, err);
}

static sora_status load_normalizer(const cJSON *root, struct vocab *vocab, struct sora_error *err)
{
    const cJSON *normalizer = member(root, "normalizer");
    const char *type = text_of(normalizer, "type");
    const cJSON *steps = member(normalizer, "normalizers");
    bool empty = strcmp(type, "Sequence") == 0 && cJSON_IsArray(steps) && steps->child == NULL;
    if (normalizer == NULL || empty)
        return SORA_OK;
    if (strcmp(type, "NFC") != 0)
        return unsupported(err, "normalizer", type);
    vocab->normalizes_nfc = true;
    return SORA_OK;
}

// The first special token that the post_processor puts before a text; NULL: none.
static const char *leading_token(const cJSON *processor)
{
    if (strcmp(text_of(processor, "type"), "Sequence") == 0) {
        const cJSON *item;
        cJSON_ArrayForEach(item, member(processor, "processors"))
        {
            if (strcmp(text_of(item, "type"), "TemplateProcessing") == 0)
                return leading_token(item);
        }
        return NULL;
    }
    if (strcmp(text_of(processor, "type"), "TemplateProcessing") != 0)
        return NULL;
    const cJSON *single = member(processor, "single");
    const cJSON *first = cJSON_IsArray(single) ? single->child : NULL;
    return cJSON_GetStringValue(member(member(first, "SpecialToken"), "id"));
}

// A token named in tokenizer_config.json, as text or as {"content": text}; -1: none.
static int32_t named_token(const cJSON *config, const char *name, const struct vocab *vocab)
{
    const cJSON *item = member(config, name);
    const char *text = cJSON_IsObject(item) ? text_of(item, "content") : text_of(config, name);
    int32_t id = vocab_find_added(vocab, text, strlen(text));
    return id >= 0 ? id : vocab_find(vocab, text, strlen(text));
}

// eos_token_id of a config: one id or a list. All of them end a generation; the first is eos
// when nothing named it before. Ids beyond the vocabulary are left out.
static void load_end_ids(const cJSON *config, struct vocab *vocab)
{
    const cJSON *item = member(config, "eos_token_id");
    if (cJSON_IsArray(item))
        item = item->child;
    for (; item != NULL; item = item->next) {
        if (!cJSON_IsNumber(item) || item->valuedouble < 0 ||
            item->valuedouble >= vocab->token_count)
            continue;
        int32_t id = (int32_t)item->valuedouble;
        vocab->tokens[id].ends = true;
        if (vocab->eos < 0)
            vocab->eos = id;
        if (!cJSON_IsArray(member(config, "eos_token_id")))
            return; // `next` of a lone item is another member
    }
}

static enum chat_kind chat_of(const cJSON *config)
{
    const cJSON *chat = member(config, "chat_template");
    if (cJSON_IsArray(chat)) { // several, by name
        const cJSON *item, *list = chat;
        chat = NULL;
        cJSON_ArrayForEach(item, list)
        {
            if (strcmp(text_of(item, "name"), "default") == 0)
                chat = member(item, "template");
        }
    }
    const char *text = cJSON_GetStringValue(chat);
    return text != NULL ? chat_template_recognise(text, strlen(text)) : CHAT_NONE;
}

static sora_status load_vocab(const cJSON *root, struct sora_tokenizer *tokenizer,
                              struct sora_error *err)
{
    const cJSON *model = member(root, "model");
    const cJSON *added = member(root, "added_tokens");
    sora_status status = check_model(model, err);
    if (status != SORA_OK)
        return status;
    const cJSON *words = member(model, "vocab");
    const cJSON *merges = member(model, "merges");
    int64_t count;
    status = count_tokens(words, added, &count, err);
    if (status == SORA_OK)
        status = vocab_create(count, &tokenizer->vocab, err);
    if (status == SORA_OK)
        status = load_words(words, tokenizer->vocab, err);
    if (status == SORA_OK)
        status = load_added(added, tokenizer->vocab, err);
    if (status == SORA_OK)
        status = vocab_index(tokenizer->vocab, cJSON_GetArraySize(merges), err);
    if (status == SORA_OK)
        status = load_merges(merges, tokenizer->vocab, err);
    if (status == SORA_OK) {
        tokenizer->vocab->ignores_merges = is_true(model, "ignore_merges");
        tokenizer->vocab->unk = named_token(model, "unk_token", tokenizer->vocab);
    }
    return status;
}

// Parses an optional file; *tree is NULL without one.
static sora_status parse_optional(const char *name, const char *text, size_t bytes, cJSON **tree,
                                  struct sora_error *err)
{
    *tree = NULL;
    if (text == NULL)
        return SORA_OK;
    sora_status status = json_parse(text, bytes, tree, err);
    return status == SORA_OK ? SORA_OK : sora_fail_within(err, status, "%s", name);
}

static void apply_configs(const cJSON *root, const cJSON *tokenizer_config,
                          const cJSON *generation_config, const cJSON *config,
                          struct sora_tokenizer *tokenizer)
{
    struct vocab *vocab = tokenizer->vocab;
    const char *leading = leading_token(member(root, "post_processor"));
    vocab->bos = named_token(tokenizer_config, "bos_token", vocab);
    vocab->eos = named_token(tokenizer_config, "eos_token", vocab);
    if (vocab->bos < 0 && leading != NULL)
        vocab->bos = vocab_find_added(vocab, leading, strlen(leading));
    vocab->adds_bos = leading != NULL && vocab->bos >= 0 &&
                      vocab_find_added(vocab, leading, strlen(leading)) == vocab->bos;
    const cJSON *adds = member(tokenizer_config, "add_bos_token");
    if (cJSON_IsBool(adds))
        vocab->adds_bos = cJSON_IsTrue(adds);
    load_end_ids(generation_config, vocab);
    load_end_ids(config, vocab);
    vocab_mark_ends(vocab);
    tokenizer->chat = chat_of(tokenizer_config);
}

sora_status vocab_hf_parse(const struct vocab_hf_files *files, struct sora_tokenizer *tokenizer,
                           struct sora_error *err)
{
    cJSON *root = NULL, *tokenizer_config = NULL, *generation_config = NULL, *config = NULL;
    sora_status status =
        parse_optional("tokenizer.json", files->tokenizer, files->tokenizer_bytes, &root, err);
    if (status == SORA_OK)
        status = parse_optional("tokenizer_config.json", files->tokenizer_config,
                                files->tokenizer_config_bytes, &tokenizer_config, err);
    if (status == SORA_OK)
        status = parse_optional("generation_config.json", files->generation_config,
                                files->generation_config_bytes, &generation_config, err);
    if (status == SORA_OK)
        status = parse_optional("config.json", files->config, files->config_bytes, &config, err);
    if (status == SORA_OK)
        status = load_vocab(root, tokenizer, err);
    if (status == SORA_OK)
        status = load_normalizer(root, tokenizer->vocab, err);
    if (status == SORA_OK)
        status = load_pretokenizer(root, tokenizer, err);
    const char *decoder = text_of(member(root, "decoder"), "type");
    if (status == SORA_OK && decoder[0] != 0 && strcmp(decoder, "ByteLevel") != 0)
        status = unsupported(err, "decoder", decoder);
    if (status == SORA_OK) {
        apply_configs(root, tokenizer_config, generation_config, config, tokenizer);
        if (tokenizer->chat == CHAT_NONE && files->chat_template != NULL)
            tokenizer->chat =
                chat_template_recognise(files->chat_template, files->chat_template_bytes);
    }
    cJSON_Delete(root);
    cJSON_Delete(tokenizer_config);
    cJSON_Delete(generation_config);
    cJSON_Delete(config);
    return status;
}

// Reads a file of the folder; a missing one gives *text = NULL.
static sora_status read_file(const char *folder, const char *name, size_t bytes_max, char **text,
                             size_t *bytes, struct sora_error *err)
{
    *text = NULL;
    *bytes = 0;
    char *path = file_join(folder, name);
    if (path == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "%s", name);
    sora_status status = file_exists(path) ? file_read(path, bytes_max, text, bytes, err) : SORA_OK;
    free(path);
    return status;
}

sora_status vocab_hf_load(const char *folder, struct sora_tokenizer *tokenizer,
                          struct sora_error *err)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "generation_config.json", "config.json",
                                        "chat_template.jinja"};
    char *texts[5] = {0};
    size_t bytes[5] = {0};
    sora_status status = SORA_OK;
    for (int i = 0; status == SORA_OK && i < 5; i++)
        status = read_file(folder, names[i], i == 0 ? SORA_JSON_BYTES_MAX : HF_CONFIG_BYTES_MAX,
                           &texts[i], &bytes[i], err);
    if (status == SORA_OK && texts[0] == NULL)
        status = sora_fail(err, SORA_NOT_FOUND, "%s has no tokenizer.json", folder);
    struct vocab_hf_files files = {texts[0], bytes[0], texts[1], bytes[1], texts[2],
                                   bytes[2], texts[3], bytes[3], texts[4], bytes[4]};
    if (status == SORA_OK)
        status = vocab_hf_parse(&files, tokenizer, err);
    for (int i = 0; i < 5; i++)
        free(texts[i]);
    return status;
}
