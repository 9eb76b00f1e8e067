// SPDX-License-Identifier: Apache-2.0
// The body of LoRAX's and TGI's POST /generate: {"inputs","parameters"}. What would change the
// answer and is not done here is refused by name. Pure; any thread.
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "server/api_field.h"

static sora_status unsupported(struct api_error *error, const char *field)
{
    return api_error_set(error, API_BAD_REQUEST, "unsupported", field,
                         "parameters.%s: is not supported here", field);
}

static bool is_set(const cJSON *parameters, const char *name)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(parameters, name);
    return value != NULL && !cJSON_IsNull(value) && !cJSON_IsFalse(value);
}

static sora_status refuse_unsupported(const cJSON *parameters, struct api_error *error)
{
    static const char *const fields[] = {
        "truncate",
        "watermark",
        "return_k_alternatives",
        "response_format",
        "decoder_input_details",
        "apply_chat_template",
        "typical_p",
        "grammar",
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (is_set(parameters, fields[i]))
            return unsupported(error, fields[i]);
    return SORA_OK;
}

// As LoRAX decides: greedy, unless something asks for chance.
static sora_status decode_sampling(struct api_request *request, const cJSON *parameters,
                                   struct api_error *error)
{
    struct sora_sampling *sampling = &request->sampling;
    bool sample = false;
    int32_t best_of = 1;
    sora_status status = api_field_bool(parameters, "do_sample", &sample, error);
    if (status == SORA_OK)
        status = api_field_int(parameters, "best_of", 1, 1, &best_of, error);
    if (status == SORA_OK)
        status =
            api_field_float(parameters, "temperature", 1e-6, 100, &sampling->temperature, error);
    if (status == SORA_OK)
        status = api_field_float(parameters, "top_p", 1e-6, 1, &sampling->top_p, error);
    if (status == SORA_OK)
        status = api_field_int(parameters, "top_k", 1, INT32_MAX, &sampling->top_k, error);
    if (status == SORA_OK)
        status = api_field_float(parameters, "repetition_penalty", 0.01, 10,
                                 &sampling->repetition_penalty, error);
    if (status == SORA_OK)
        status = api_field_float(parameters, "frequency_penalty", -2, 2,
                                 &sampling->frequency_penalty, error);
    if (status == SORA_OK)
        status = api_field_seed(parameters, request, error);
    bool warped = sampling->temperature != 1 || json_has(parameters, "top_k") ||
                  (json_has(parameters, "top_p") && sampling->top_p < 1);
    request->tgi.sampled = sample || warped;
    if (!request->tgi.sampled)
        sampling->temperature = 0;
    return status;
}

static sora_status decode_stop(struct api_request *request, const cJSON *parameters,
                               struct api_error *error)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(parameters, "stop"), *item;
    if (list == NULL || cJSON_IsNull(list))
        return SORA_OK;
    bool good = cJSON_IsArray(list) && cJSON_GetArraySize(list) <= SORA_STOP_COUNT_MAX;
    cJSON_ArrayForEach(item, list)
    {
        size_t bytes = cJSON_IsString(item) ? strlen(item->valuestring) : 0;
        good = good && bytes > 0 && bytes <= SORA_STOP_BYTES_MAX;
        if (good)
            request->stops[request->stop_count++] = item->valuestring;
    }
    if (good)
        return SORA_OK;
    return api_error_set(error, API_BAD_REQUEST, "invalid_value", "stop",
                         "parameters.stop: must be a list of at most %d strings of 1 to %d bytes",
                         SORA_STOP_COUNT_MAX, SORA_STOP_BYTES_MAX);
}

static sora_status decode_parameters(struct api_request *request, const cJSON *parameters,
                                     struct api_error *error)
{
    sora_status status = refuse_unsupported(parameters, error);
    if (status == SORA_OK)
        status = api_field_int(parameters, "max_new_tokens", 1, SORA_CONTEXT_MAX,
                               &request->max_tokens, error);
    if (status == SORA_OK)
        status = api_field_bool(parameters, "ignore_eos_token", &request->ignore_eos, error);
    if (status == SORA_OK)
        status = api_field_bool(parameters, "return_full_text", &request->tgi.full_text, error);
    if (status == SORA_OK)
        status = api_field_bool(parameters, "details", &request->tgi.details, error);
    if (status == SORA_OK)
        status = decode_sampling(request, parameters, error);
    if (status == SORA_OK)
        status = decode_stop(request, parameters, error);
    return status;
}

// Text, or, for models without a tokenizer, a list of token ids.
static sora_status decode_inputs(struct api_request *request, const struct api_limits *limits,
                                 struct api_error *error)
{
    const cJSON *inputs = cJSON_GetObjectItemCaseSensitive(request->tree, "inputs");
    struct api_prompt *prompt = arena_alloc(&request->arena, 1, sizeof *prompt);
    if (prompt == NULL)
        return api_error_set(error, API_UNAVAILABLE, "no_memory", "inputs", "no memory");
    request->prompts = prompt;
    request->prompt_count = 1;
    sora_status status = SORA_OK;
    if (cJSON_IsString(inputs))
        prompt->text = inputs->valuestring;
    else if (cJSON_IsArray(inputs) && inputs->child != NULL)
        status = api_field_tokens(request, inputs, "inputs", limits->vocab_size, &prompt->tokens,
                                  &prompt->token_count, error);
    else
        status = api_error_set(error, API_BAD_REQUEST, "invalid_type", "inputs",
                               "inputs: a string is required");
    if (status == SORA_OK && request->tgi.full_text && prompt->text == NULL)
        status = api_error_set(error, API_BAD_REQUEST, "invalid_value", "return_full_text",
                               "parameters.return_full_text: only with inputs that are text");
    return status;
}

sora_status api_decode_tgi(const char *body, size_t bytes, const struct api_limits *limits,
                           bool stream, struct api_request *request, struct api_error *error)
{
    sora_status status = api_field_parse(body, bytes, request, error);
    if (status != SORA_OK) {
        api_request_deinit(request);
        return status;
    }
    const cJSON *parameters = cJSON_GetObjectItemCaseSensitive(request->tree, "parameters");
    request->kind = API_COMPLETION;
    request->tgi.on = true;
    request->stream = stream;
    request->sampling = sora_sampling_defaults();
    request->n = request->best_of = 1;
    request->max_tokens = -1;
    request->logprobs = 0; // every token comes with its own
    request->add_special_tokens = request->skip_special = request->include_stop = true;
    if (parameters != NULL && !cJSON_IsNull(parameters) && !cJSON_IsObject(parameters))
        status = api_error_set(error, API_BAD_REQUEST, "invalid_type", "parameters",
                               "parameters: must be an object");
    if (status == SORA_OK)
        status = decode_parameters(request, parameters, error);
    if (status == SORA_OK)
        status = api_decode_adapters(request, error);
    if (status == SORA_OK)
        status = decode_inputs(request, limits, error);
    if (status != SORA_OK)
        api_request_deinit(request);
    return status;
}
