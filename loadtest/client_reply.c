// SPDX-License-Identifier: Apache-2.0
// See client_reply.h.
#include "loadtest/client_reply.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "sora/limits.h"

#define EVENT_VALUES_MAX 65536 // of one event or body; 50 log-probabilities a token are 200 values

static sora_status read_usage(const cJSON *tree, struct reply *reply, struct sora_error *err)
{
    int64_t prompt = -1, output = -1;
    const cJSON *usage = cJSON_GetObjectItemCaseSensitive(tree, "usage");
    reply->prompt_tokens = reply->output_tokens = -1;
    if (usage == NULL || cJSON_IsNull(usage))
        return SORA_OK;
    if (!cJSON_IsObject(usage))
        return sora_fail(err, SORA_MALFORMED, "usage is not an object");
    sora_status status = json_get_int(usage, "prompt_tokens", 0, INT32_MAX, &prompt, err);
    if (status == SORA_OK)
        status = json_get_int(usage, "completion_tokens", 0, INT32_MAX, &output, err);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "usage");
    reply->prompt_tokens = (int32_t)prompt;
    reply->output_tokens = (int32_t)output;
    return SORA_OK;
}

// Appends a member that must be a string or null when it is there.
static sora_status take_text(const cJSON *object, const char *name, struct reply *reply,
                             struct buf *text, struct sora_error *err)
{
    const char *value = NULL;
    sora_status status = json_get_string(object, name, &value, err);
    if (status != SORA_OK || value == NULL)
        return status;
    size_t bytes = strlen(value);
    reply->text_bytes += bytes;
    reply->has_token = reply->has_token || bytes > 0;
    if (text == NULL)
        return SORA_OK;
    buf_append(text, value, bytes);
    return buf_status(text, err);
}

// Chat: {"delta":{...}} of a stream or {"message":{...}}; completions: {"text":...}.
static sora_status read_choice(const cJSON *choice, struct reply *reply, struct buf *text,
                               struct sora_error *err)
{
    const char *finish = NULL;
    if (!cJSON_IsObject(choice))
        return sora_fail(err, SORA_MALFORMED, "choices[0] is not an object");
    const cJSON *inner = cJSON_GetObjectItemCaseSensitive(choice, "delta");
    if (inner == NULL)
        inner = cJSON_GetObjectItemCaseSensitive(choice, "message");
    sora_status status = json_get_string(choice, "finish_reason", &finish, err);
    reply->finished = finish != NULL;
    if (status != SORA_OK)
        return status;
    if (inner == NULL) {
        if (!json_has(choice, "text"))
            return sora_fail(err, SORA_MALFORMED, "choices[0] has no text, delta or message");
        return take_text(choice, "text", reply, text, err);
    }
    if (!cJSON_IsObject(inner))
        return sora_fail(err, SORA_MALFORMED, "choices[0].delta is not an object");
    status = take_text(inner, "reasoning_content", reply, text, err);
    if (status == SORA_OK)
        status = take_text(inner, "content", reply, text, err);
    reply->has_token = reply->has_token || json_has(inner, "tool_calls");
    return status;
}

// An error object in a stream or in a body that came with a good status.
static sora_status read_error(const cJSON *tree, struct sora_error *err)
{
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(tree, "error");
    const cJSON *message = cJSON_GetObjectItemCaseSensitive(error, "message");
    if (error == NULL || cJSON_IsNull(error))
        return SORA_OK;
    return sora_fail(err, SORA_IO, "error in the reply: %.200s",
                     cJSON_IsString(message) ? message->valuestring
                     : cJSON_IsString(error) ? error->valuestring
                                             : "no message");
}

static sora_status read_tree(const cJSON *tree, bool whole, struct reply *reply, struct buf *text,
                             struct sora_error *err)
{
    if (!cJSON_IsObject(tree))
        return sora_fail(err, SORA_MALFORMED, "not a JSON object");
    sora_status status = read_error(tree, err);
    if (status == SORA_OK)
        status = read_usage(tree, reply, err);
    if (status != SORA_OK)
        return status;
    const cJSON *choices = cJSON_GetObjectItemCaseSensitive(tree, "choices");
    if (!cJSON_IsArray(choices))
        return whole || reply->output_tokens < 0
                   ? sora_fail(err, SORA_MALFORMED, "no list of choices")
                   : SORA_OK;
    if (choices->child == NULL)
        return whole ? sora_fail(err, SORA_MALFORMED, "choices is empty") : SORA_OK;
    return read_choice(choices->child, reply, text, err);
}

static sora_status read_json(const char *data, size_t bytes, bool whole, struct reply *reply,
                             struct buf *text, struct sora_error *err)
{
    cJSON *tree = NULL;
    *reply = (struct reply){.prompt_tokens = -1, .output_tokens = -1};
    sora_status status = json_parse_within(data, bytes, EVENT_VALUES_MAX, &tree, err);
    if (status == SORA_OK)
        status = read_tree(tree, whole, reply, text, err);
    cJSON_Delete(tree);
    return status;
}

sora_status reply_read_event(const char *data, size_t bytes, struct reply *reply, struct buf *text,
                             struct sora_error *err)
{
    if (bytes == 6 && memcmp(data, "[DONE]", 6) == 0) {
        *reply = (struct reply){.done = true, .prompt_tokens = -1, .output_tokens = -1};
        return SORA_OK;
    }
    sora_status status = read_json(data, bytes, false, reply, text, err);
    return status == SORA_OK || status == SORA_IO ? status : sora_fail_within(err, status, "event");
}

sora_status reply_read_body(const char *data, size_t bytes, struct reply *reply, struct buf *text,
                            struct sora_error *err)
{
    sora_status status = read_json(data, bytes, true, reply, text, err);
    return status == SORA_OK || status == SORA_IO ? status : sora_fail_within(err, status, "reply");
}

void reply_error_text(const char *data, size_t bytes, char *out, size_t out_bytes)
{
    cJSON *tree = NULL;
    const cJSON *found = NULL;
    if (json_parse_within(data, bytes, EVENT_VALUES_MAX, &tree, NULL) == SORA_OK) {
        const cJSON *error = cJSON_GetObjectItemCaseSensitive(tree, "error");
        found = cJSON_GetObjectItemCaseSensitive(error, "message");
        if (found == NULL)
            found =
                cJSON_IsString(error) ? error : cJSON_GetObjectItemCaseSensitive(tree, "message");
        if (found == NULL)
            found = cJSON_GetObjectItemCaseSensitive(tree, "detail");
    }
    if (cJSON_IsString(found))
        utf8_escape(out, out_bytes, found->valuestring, strlen(found->valuestring), false);
    else
        utf8_escape(out, out_bytes, data, bytes, false);
    cJSON_Delete(tree);
}
