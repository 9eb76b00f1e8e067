// SPDX-License-Identifier: Apache-2.0
// "prompt" in its four shapes, and "messages" of a chat. Pure; any thread.
#include <string.h>

#include "base/buf.h"
#include "server/api_field.h"

static sora_status wrong_prompt(struct api_error *error, const char *what)
{
    return api_error_set(error, API_BAD_REQUEST, "invalid_type", "prompt",
                         "prompt: must be a string, a list of strings, a list of token ids or a "
                         "list of such lists; %s",
                         what);
}

static sora_status decode_one(struct api_request *request, const struct api_limits *limits,
                              const cJSON *value, struct api_prompt *prompt,
                              struct api_error *error)
{
    if (cJSON_IsString(value)) {
        prompt->text = value->valuestring;
        return SORA_OK;
    }
    sora_status status = api_field_tokens(request, value, "prompt", limits->vocab_size,
                                          &prompt->tokens, &prompt->token_count, error);
    if (status == SORA_OK && prompt->token_count == 0)
        return wrong_prompt(error, "a list of token ids is empty");
    return status;
}

sora_status api_decode_prompts(struct api_request *request, const struct api_limits *limits,
                               struct api_error *error)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(request->tree, "prompt");
    if (value == NULL || cJSON_IsNull(value))
        return api_error_set(error, API_BAD_REQUEST, "missing_field", "prompt",
                             "prompt: is required");
    if (!cJSON_IsString(value) && !cJSON_IsArray(value))
        return wrong_prompt(error, "found something else");
    const cJSON *first = cJSON_IsArray(value) ? value->child : NULL;
    if (cJSON_IsArray(value) && first == NULL)
        return wrong_prompt(error, "found an empty list");
    bool many = first != NULL && !cJSON_IsNumber(first);
    int32_t count = many ? cJSON_GetArraySize(value) : 1;
    if (count > SORA_REQUEST_PROMPTS_MAX)
        return api_error_set(error, API_BAD_REQUEST, "over_limit", "prompt",
                             "prompt: %d prompts exceed the %d of one request", count,
                             SORA_REQUEST_PROMPTS_MAX);
    request->prompts = arena_alloc(&request->arena, (size_t)count, sizeof *request->prompts);
    if (request->prompts == NULL)
        return api_error_set(error, API_UNAVAILABLE, "no_memory", "prompt", "prompt: no memory");
    request->prompt_count = count;
    if (!many)
        return decode_one(request, limits, value, &request->prompts[0], error);
    int32_t i = 0;
    for (const cJSON *item = first; item != NULL; item = item->next) {
        if (!cJSON_IsString(item) && !cJSON_IsArray(item))
            return wrong_prompt(error, "found a list of something else");
        sora_status status = decode_one(request, limits, item, &request->prompts[i++], error);
        if (status != SORA_OK)
            return status;
    }
    return SORA_OK;
}

static sora_status wrong_message(struct api_error *error, int32_t index, const char *what)
{
    return api_error_set(error, API_BAD_REQUEST, "invalid_value", "messages", "messages[%d]%s",
                         index, what);
}

// Text parts of a content list, joined by newlines as vLLM does, in the arena.
static sora_status join_parts(struct api_request *request, const cJSON *parts, int32_t index,
                              const char **content, struct api_error *error)
{
    size_t bytes = 1;
    const cJSON *part;
    cJSON_ArrayForEach(part, parts)
    {
        const cJSON *type = cJSON_GetObjectItemCaseSensitive(part, "type");
        const cJSON *text = cJSON_GetObjectItemCaseSensitive(part, "text");
        if (!cJSON_IsString(type) || strcmp(type->valuestring, "text") != 0 ||
            !cJSON_IsString(text))
            return wrong_message(error, index,
                                 ".content: every part must be {\"type\":\"text\",\"text\":...}; "
                                 "this model reads text only");
        bytes += strlen(text->valuestring) + 1;
    }
    char *joined = arena_alloc(&request->arena, bytes, 1);
    if (joined == NULL)
        return api_error_set(error, API_UNAVAILABLE, "no_memory", "messages", "no memory");
    char *to = joined;
    cJSON_ArrayForEach(part, parts)
    {
        const char *text = cJSON_GetObjectItemCaseSensitive(part, "text")->valuestring;
        size_t length = strlen(text);
        if (to != joined)
            *to++ = '\n';
        memcpy(to, text, length);
        to += length;
    }
    *content = joined; // the arena's memory is zero behind it
    return SORA_OK;
}

static sora_status decode_message(struct api_request *request, const cJSON *item, int32_t index,
                                  struct sora_message *message, struct api_error *error)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    const cJSON *role = cJSON_GetObjectItemCaseSensitive(item, "role");
    const cJSON *content = cJSON_GetObjectItemCaseSensitive(item, "content");
    if (!cJSON_IsObject(item))
        return wrong_message(error, index, ": must be an object with role and content");
    if (!cJSON_IsString(role))
        return wrong_message(error, index, ".role: must be a string");
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        if (strcmp(role->valuestring, roles[i]) == 0)
            message->role = roles[i];
    if (message->role == NULL)
        return wrong_message(error, index,
                             ".role: must be system, developer, user, assistant or tool");
    if (strcmp(message->role, "developer") == 0) // OpenAI's newer name of the same
        message->role = "system";
    if (content == NULL || cJSON_IsNull(content)) {
        message->content = "";
        return strcmp(message->role, "assistant") == 0
                   ? SORA_OK
                   : wrong_message(error, index, ".content: is required");
    }
    if (cJSON_IsString(content)) {
        message->content = content->valuestring;
        return SORA_OK;
    }
    if (!cJSON_IsArray(content))
        return wrong_message(error, index, ".content: must be a string or a list of text parts");
    return join_parts(request, content, index, &message->content, error);
}

sora_status api_decode_messages(struct api_request *request, struct api_error *error)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(request->tree, "messages");
    if (!cJSON_IsArray(list) || list->child == NULL)
        return api_error_set(error, API_BAD_REQUEST, "invalid_type", "messages",
                             "messages: a list with at least one message is required");
    int32_t count = cJSON_GetArraySize(list);
    request->messages = arena_alloc(&request->arena, (size_t)count, sizeof *request->messages);
    if (request->messages == NULL)
        return api_error_set(error, API_UNAVAILABLE, "no_memory", "messages", "no memory");
    request->message_count = count;
    request->add_generation_prompt = true;
    int32_t i = 0;
    for (const cJSON *item = list->child; item != NULL; item = item->next, i++) {
        sora_status status = decode_message(request, item, i, &request->messages[i], error);
        if (status != SORA_OK)
            return status;
    }
    return api_field_bool(request->tree, "add_generation_prompt", &request->add_generation_prompt,
                          error);
}
