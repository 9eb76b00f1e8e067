// SPDX-License-Identifier: Apache-2.0
// See api_decode.h. Unknown fields are ignored, as vLLM does; a field that asks for something this
// server does not do is refused by name.
#include "server/api_decode.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/api_field.h"

static sora_status unsupported(struct api_error *error, const char *field, const char *what)
{
    return api_error_set(error, API_BAD_REQUEST, "unsupported", field, "%s: %s", field, what);
}

static bool has_items(const cJSON *root, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(root, name);
    return value != NULL && value->child != NULL;
}

// What would change the answer and is not done here must not be ignored.
static sora_status refuse_unsupported(const cJSON *root, struct api_error *error)
{
    const cJSON *choice = cJSON_GetObjectItemCaseSensitive(root, "tool_choice");
    bool no_tools = cJSON_IsString(choice) && strcmp(choice->valuestring, "none") == 0;
    if (!no_tools && (has_items(root, "tools") || has_items(root, "functions")))
        return unsupported(error, "tools", "calling tools is not built yet");
    const cJSON *format = cJSON_GetObjectItemCaseSensitive(root, "response_format");
    if (format != NULL && !cJSON_IsNull(format)) {
        const cJSON *type = cJSON_GetObjectItemCaseSensitive(format, "type");
        if (!cJSON_IsString(type) || strcmp(type->valuestring, "text") != 0)
            return unsupported(error, "response_format", "only {\"type\":\"text\"} is built yet");
    }
    const cJSON *suffix = cJSON_GetObjectItemCaseSensitive(root, "suffix");
    if (suffix != NULL && !cJSON_IsNull(suffix))
        return unsupported(error, "suffix", "inserting text before a suffix is not supported");
    return SORA_OK;
}

static sora_status decode_stops(struct api_request *request, struct api_error *error)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(request->tree, "stop");
    if (value == NULL || cJSON_IsNull(value))
        return SORA_OK;
    const cJSON *item = cJSON_IsArray(value) ? value->child : value;
    for (; item != NULL; item = value == item ? NULL : item->next) {
        size_t bytes = cJSON_IsString(item) ? strlen(item->valuestring) : 0;
        if (bytes == 0 || bytes > SORA_STOP_BYTES_MAX)
            return api_error_set(error, API_BAD_REQUEST, "invalid_value", "stop",
                                 "stop: must be a string of 1 to %d bytes or a list of such",
                                 SORA_STOP_BYTES_MAX);
        if (request->stop_count == SORA_STOP_COUNT_MAX)
            return api_error_set(error, API_BAD_REQUEST, "over_limit", "stop",
                                 "stop: more than %d strings", SORA_STOP_COUNT_MAX);
        request->stops[request->stop_count++] = item->valuestring;
    }
    return SORA_OK;
}

static sora_status decode_stop_tokens(struct api_request *request, const struct api_limits *limits,
                                      struct api_error *error)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(request->tree, "stop_token_ids");
    if (value == NULL || cJSON_IsNull(value))
        return SORA_OK;
    const int32_t *tokens;
    int32_t count;
    sora_status status = api_field_tokens(request, value, "stop_token_ids", limits->vocab_size,
                                          &tokens, &count, error);
    if (status != SORA_OK)
        return status;
    if (count > SORA_STOP_TOKEN_COUNT_MAX)
        return api_error_set(error, API_BAD_REQUEST, "over_limit", "stop_token_ids",
                             "stop_token_ids: more than %d tokens", SORA_STOP_TOKEN_COUNT_MAX);
    memcpy(request->stop_tokens, tokens, (size_t)count * sizeof *tokens);
    request->stop_token_count = count;
    return SORA_OK;
}

static sora_status decode_logit_bias(struct api_request *request, const struct api_limits *limits,
                                     struct api_error *error)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(request->tree, "logit_bias");
    if (value == NULL || cJSON_IsNull(value))
        return SORA_OK;
    int32_t count = cJSON_IsObject(value) ? cJSON_GetArraySize(value) : -1;
    if (count < 0 || count > SORA_LOGIT_BIAS_COUNT_MAX)
        return api_error_set(error, API_BAD_REQUEST, "invalid_value", "logit_bias",
                             "logit_bias: must be an object of at most %d token ids",
                             SORA_LOGIT_BIAS_COUNT_MAX);
    struct sora_logit_bias *list = arena_alloc(&request->arena, (size_t)count + 1, sizeof *list);
    if (list == NULL)
        return api_error_set(error, API_UNAVAILABLE, "no_memory", "logit_bias", "no memory");
    int32_t at = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, value)
    {
        char *end;
        long token = strtol(item->string, &end, 10);
        bool is_id = end != item->string && *end == '\0' && token >= 0;
        if (!is_id || token >= limits->vocab_size || !cJSON_IsNumber(item) ||
            !(fabs(item->valuedouble) <= 100))
            return api_error_set(error, API_BAD_REQUEST, "invalid_value", "logit_bias",
                                 "logit_bias: \"%.32s\" must be a token id in [0, %d) with a bias "
                                 "in [-100, 100]",
                                 item->string, limits->vocab_size);
        list[at++] = (struct sora_logit_bias){(int32_t)token, (float)item->valuedouble};
    }
    request->sampling.logit_bias = list;
    request->sampling.logit_bias_count = count;
    return SORA_OK;
}

struct float_field {
    const char *name;
    double min, max;
    float *to;
};

static sora_status decode_sampling(struct api_request *request, const struct api_limits *limits,
                                   struct api_error *error)
{
    struct sora_sampling *sampling = &request->sampling;
    const struct float_field floats[] = {
        {"temperature", 0, 100, &sampling->temperature},
        {"top_p", 0, 1, &sampling->top_p},
        {"min_p", 0, 1, &sampling->min_p},
        {"presence_penalty", -2, 2, &sampling->presence_penalty},
        {"frequency_penalty", -2, 2, &sampling->frequency_penalty},
        {"repetition_penalty", 0.01, 10, &sampling->repetition_penalty},
    };
    const cJSON *root = request->tree;
    for (size_t i = 0; i < sizeof floats / sizeof floats[0]; i++) {
        const struct float_field *field = &floats[i];
        sora_status status =
            api_field_float(root, field->name, field->min, field->max, field->to, error);
        if (status != SORA_OK)
            return status;
    }
    if (sampling->top_p <= 0)
        return api_error_set(error, API_BAD_REQUEST, "invalid_value", "top_p",
                             "top_p: must be in (0, 1], found 0");
    sora_status status = api_field_int(root, "top_k", -1, INT32_MAX, &sampling->top_k, error);
    if (status != SORA_OK)
        return status;
    status = api_field_seed(root, request, error);
    if (status != SORA_OK)
        return status;
    return decode_logit_bias(request, limits, error);
}

static sora_status decode_counts(struct api_request *request, const struct api_limits *limits,
                                 struct api_error *error)
{
    const cJSON *root = request->tree;
    struct {
        const char *name;
        int64_t min, max;
        int32_t *to;
    } fields[] = {
        {"max_tokens", 0, SORA_CONTEXT_MAX, &request->max_tokens},
        {"max_completion_tokens", 0, SORA_CONTEXT_MAX, &request->max_tokens},
        {"min_tokens", 0, SORA_CONTEXT_MAX, &request->min_tokens},
        {"n", 1, SORA_REQUEST_CHOICES_MAX, &request->n},
    };
    request->n = 1;
    request->max_tokens = -1;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        sora_status status =
            api_field_int(root, fields[i].name, fields[i].min, fields[i].max, fields[i].to, error);
        if (status != SORA_OK)
            return status;
    }
    request->best_of = request->n;
    sora_status status = SORA_OK;
    if (request->kind == API_COMPLETION)
        status = api_field_int(root, "best_of", request->n, SORA_REQUEST_CHOICES_MAX,
                               &request->best_of, error);
    if (status != SORA_OK)
        return status;
    if (request->max_tokens >= 0 && request->min_tokens > request->max_tokens)
        return api_error_set(error, API_BAD_REQUEST, "invalid_value", "min_tokens",
                             "min_tokens: %d exceeds max_tokens %d", request->min_tokens,
                             request->max_tokens);
    if (request->min_tokens > limits->context_max)
        return api_error_set(error, API_BAD_REQUEST, "invalid_value", "min_tokens",
                             "min_tokens: %d exceeds the context of %d tokens", request->min_tokens,
                             limits->context_max);
    return SORA_OK;
}

static sora_status decode_flags(struct api_request *request, struct api_error *error)
{
    struct {
        const char *name;
        bool *to;
    } flags[] = {
        {"stream", &request->stream},
        {"ignore_eos", &request->ignore_eos},
        {"include_stop_str_in_output", &request->include_stop},
        {"skip_special_tokens", &request->skip_special},
        {"return_token_ids", &request->return_token_ids},
        {"return_tokens_as_token_ids", &request->tokens_as_ids},
        {"add_special_tokens", &request->add_special_tokens},
    };
    request->skip_special = true;
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        sora_status status = api_field_bool(request->tree, flags[i].name, flags[i].to, error);
        if (status != SORA_OK)
            return status;
    }
    const cJSON *options = cJSON_GetObjectItemCaseSensitive(request->tree, "stream_options");
    if (options == NULL || cJSON_IsNull(options))
        return SORA_OK;
    if (!request->stream || !cJSON_IsObject(options))
        return api_error_set(error, API_BAD_REQUEST, "invalid_value", "stream_options",
                             "stream_options: must be an object, and only with \"stream\": true");
    sora_status status = api_field_bool(options, "include_usage", &request->include_usage, error);
    if (status == SORA_OK)
        status =
            api_field_bool(options, "continuous_usage_stats", &request->continuous_usage, error);
    return status;
}

// Fields that completions and chats share.
static sora_status decode_common(struct api_request *request, const struct api_limits *limits,
                                 struct api_error *error)
{
    request->sampling = sora_sampling_defaults();
    request->logprobs = -1;
    sora_status status = refuse_unsupported(request->tree, error);
    if (status == SORA_OK)
        status = api_field_string(request->tree, "model", &request->model, error);
    if (status == SORA_OK)
        status = decode_counts(request, limits, error);
    if (status == SORA_OK)
        status = decode_sampling(request, limits, error);
    if (status == SORA_OK)
        status = decode_flags(request, error);
    if (status == SORA_OK)
        status = decode_stops(request, error);
    if (status == SORA_OK)
        status = decode_stop_tokens(request, limits, error);
    if (status == SORA_OK)
        status = api_decode_adapters(request, error);
    return status;
}

static sora_status decode_completion(struct api_request *request, const struct api_limits *limits,
                                     struct api_error *error)
{
    request->kind = API_COMPLETION;
    request->add_special_tokens = true;
    sora_status status = decode_common(request, limits, error);
    if (status == SORA_OK)
        status = api_field_int(request->tree, "logprobs", 0, SORA_LOGPROBS_MAX, &request->logprobs,
                               error);
    if (status == SORA_OK)
        status = api_field_bool(request->tree, "echo", &request->echo, error);
    if (status == SORA_OK)
        status = api_decode_prompts(request, limits, error);
    if (status != SORA_OK)
        return status;
    if (request->stream && request->best_of > request->n)
        return api_error_set(error, API_BAD_REQUEST, "invalid_value", "best_of",
                             "best_of: a stream cannot choose afterwards; best_of must equal n");
    if (request->prompt_count * request->best_of > SORA_REQUEST_SEQS_MAX)
        return api_error_set(error, API_BAD_REQUEST, "over_limit", "best_of",
                             "%d prompts of %d choices exceed the %d sequences of one request",
                             request->prompt_count, request->best_of, SORA_REQUEST_SEQS_MAX);
    return SORA_OK;
}

static sora_status decode_chat(struct api_request *request, const struct api_limits *limits,
                               struct api_error *error)
{
    request->kind = API_CHAT;
    sora_status status = decode_common(request, limits, error);
    bool logprobs = false;
    int32_t top = 0;
    if (status == SORA_OK)
        status = api_field_bool(request->tree, "logprobs", &logprobs, error);
    if (status == SORA_OK)
        status = api_field_int(request->tree, "top_logprobs", 0, SORA_LOGPROBS_MAX, &top, error);
    if (status == SORA_OK && top > 0 && !logprobs)
        status = api_error_set(error, API_BAD_REQUEST, "invalid_value", "top_logprobs",
                               "top_logprobs: only with \"logprobs\": true");
    if (logprobs)
        request->logprobs = top;
    if (status == SORA_OK)
        status = api_decode_messages(request, error);
    return status;
}

sora_status api_decode_completion(const char *body, size_t bytes, const struct api_limits *limits,
                                  struct api_request *request, struct api_error *error)
{
    sora_status status = api_field_parse(body, bytes, request, error);
    if (status == SORA_OK)
        status = decode_completion(request, limits, error);
    if (status != SORA_OK)
        api_request_deinit(request);
    return status;
}

sora_status api_decode_chat(const char *body, size_t bytes, const struct api_limits *limits,
                            struct api_request *request, struct api_error *error)
{
    sora_status status = api_field_parse(body, bytes, request, error);
    if (status == SORA_OK)
        status = decode_chat(request, limits, error);
    if (status != SORA_OK)
        api_request_deinit(request);
    return status;
}

static sora_status decode_tokenize(struct api_request *request, bool *token_strings,
                                   struct api_error *error)
{
    const struct api_limits no_tokens = {.vocab_size = 0};
    const cJSON *root = request->tree;
    bool chat = json_has(root, "messages");
    request->kind = chat ? API_CHAT : API_COMPLETION;
    request->add_special_tokens = !chat;
    *token_strings = false;
    sora_status status = api_field_string(root, "model", &request->model, error);
    if (status == SORA_OK)
        status = api_field_bool(root, "add_special_tokens", &request->add_special_tokens, error);
    if (status == SORA_OK)
        status = api_field_bool(root, "return_token_strs", token_strings, error);
    if (status == SORA_OK && !chat &&
        !cJSON_IsString(cJSON_GetObjectItemCaseSensitive(root, "prompt")))
        status = api_error_set(error, API_BAD_REQUEST, "invalid_type", "prompt",
                               "prompt: a string (or messages) is required");
    if (status != SORA_OK)
        return status;
    return chat ? api_decode_messages(request, error)
                : api_decode_prompts(request, &no_tokens, error);
}

sora_status api_decode_tokenize(const char *body, size_t bytes, struct api_request *request,
                                bool *token_strings, struct api_error *error)
{
    sora_status status = api_field_parse(body, bytes, request, error);
    if (status == SORA_OK)
        status = decode_tokenize(request, token_strings, error);
    if (status != SORA_OK)
        api_request_deinit(request);
    return status;
}

sora_status api_decode_detokenize(const char *body, size_t bytes, const struct api_limits *limits,
                                  struct api_request *request, struct api_error *error)
{
    sora_status status = api_field_parse(body, bytes, request, error);
    if (status == SORA_OK)
        status = api_field_string(request->tree, "model", &request->model, error);
    struct api_prompt *prompt = NULL;
    if (status == SORA_OK) {
        prompt = arena_alloc(&request->arena, 1, sizeof *prompt);
        if (prompt == NULL)
            status = api_error_set(error, API_UNAVAILABLE, "no_memory", NULL, "no memory");
    }
    if (status == SORA_OK)
        status = api_field_tokens(
            request, cJSON_GetObjectItemCaseSensitive(request->tree, "tokens"), "tokens",
            limits->vocab_size, &prompt->tokens, &prompt->token_count, error);
    if (status != SORA_OK) {
        api_request_deinit(request);
        return status;
    }
    request->prompts = prompt;
    request->prompt_count = 1;
    return SORA_OK;
}

void api_request_deinit(struct api_request *request)
{
    cJSON_Delete(request->tree);
    request->tree = NULL;
    arena_deinit(&request->arena);
}
