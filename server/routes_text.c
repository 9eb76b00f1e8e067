// SPDX-License-Identifier: Apache-2.0
// vLLM's /tokenize and /detokenize. HTTP workers only.
#include <stdlib.h>
#include <string.h>

#include "server/generate.h"
#include "server/routes.h"

static void encode_tokens(struct server *server, const int32_t *tokens, int32_t count, bool strings,
                          struct buf *out)
{
    buf_printf(out, "{\"count\":%d,\"max_model_len\":%d,\"tokens\":[", (int)count,
               (int)server->context_max);
    for (int32_t i = 0; i < count; i++)
        buf_printf(out, i > 0 ? ",%d" : "%d", (int)tokens[i]);
    buf_text(out, strings ? "],\"token_strs\":[" : "],\"token_strs\":null}");
    for (int32_t i = 0; strings && i < count; i++) {
        size_t bytes = 0;
        const char *piece = sora_tokenizer_piece(server->tokenizer, tokens[i], &bytes);
        buf_text(out, i > 0 ? "," : "");
        buf_json_string(out, piece, bytes);
    }
    if (strings)
        buf_text(out, "]}");
}

// The model of a request must exist, even where the tokenizer is the same for all of them.
static sora_status check_model(struct server *server, const struct http_call *call,
                               const char *name, struct api_error *error)
{
    sora_pin *pin = NULL;
    sora_status status = generate_pin(server, &call->caller, name, &pin, error);
    if (pin != NULL)
        sora_registry_unpin(server->registry, pin);
    return status;
}

void routes_tokenize(struct server *server, struct http_call *call, const char *name)
{
    (void)name;
    struct api_request api = {.tree = NULL};
    struct api_error error;
    struct http_body body;
    struct buf out;
    int32_t *tokens = NULL, count = 0;
    bool strings = false;
    buf_init(&out, SORA_REPLY_BYTES_MAX);
    sora_status status = http_read_body(call, SORA_BODY_BYTES_MAX, NULL, &body, &error);
    if (status != SORA_OK)
        goto done;
    status = api_decode_tokenize(body.data, body.bytes, &api, &strings, &error);
    http_body_free(&body);
    if (status != SORA_OK)
        goto done;
    status = check_model(server, call, api.model, &error);
    if (status == SORA_OK)
        status = generate_tokens(server, &api, api.kind == API_CHAT ? NULL : &api.prompts[0],
                                 &tokens, &count, &error);
    if (status == SORA_OK)
        encode_tokens(server, tokens, count, strings, &out);
    api_request_deinit(&api);
done:
    if (status == SORA_OK)
        http_reply_json(call, API_OK, &out);
    else
        http_reply_error(call, &error);
    free(tokens);
    buf_deinit(&out);
}

static sora_status detokenize(struct server *server, const struct http_call *call,
                              const struct api_request *api, struct buf *out,
                              struct api_error *error)
{
    struct sora_error cause;
    char *text = NULL;
    size_t bytes = 0;
    sora_status status = check_model(server, call, api->model, error);
    if (status != SORA_OK)
        return status;
    if (server->tokenizer == NULL)
        return api_error_set(error, API_BAD_REQUEST, "no_tokenizer", "tokens",
                             "tokens: this model has no tokenizer");
    status = sora_tokenizer_decode(server->tokenizer, api->prompts[0].tokens,
                                   api->prompts[0].token_count, false, &text, &bytes, &cause);
    if (status != SORA_OK)
        return api_error_from(error, API_FROM_BODY, &cause);
    buf_text(out, "{\"prompt\":");
    buf_json_string(out, text, bytes);
    buf_text(out, "}");
    free(text);
    return SORA_OK;
}

void routes_detokenize(struct server *server, struct http_call *call, const char *name)
{
    (void)name;
    struct api_request api = {.tree = NULL};
    struct api_limits limits = generate_limits(server);
    struct api_error error;
    struct http_body body;
    struct buf out;
    buf_init(&out, SORA_REPLY_BYTES_MAX);
    sora_status status = http_read_body(call, SORA_BODY_BYTES_MAX, NULL, &body, &error);
    if (status == SORA_OK) {
        status = api_decode_detokenize(body.data, body.bytes, &limits, &api, &error);
        http_body_free(&body);
        if (status == SORA_OK) {
            status = detokenize(server, call, &api, &out, &error);
            api_request_deinit(&api);
        }
    }
    if (status == SORA_OK)
        http_reply_json(call, API_OK, &out);
    else
        http_reply_error(call, &error);
    buf_deinit(&out);
}
