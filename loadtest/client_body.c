// SPDX-License-Identifier: Apache-2.0
// See client_body.h.
#include "loadtest/client_body.h"

#include <string.h>

static void append_string(struct buf *body, const struct buf *text)
{
    buf_json_string(body, text->data != NULL ? text->data : "", text->bytes);
}

static void encode_messages(const struct plan *plan, const struct plan_request *request,
                            struct buf *body, struct buf *scratch)
{
    buf_text(body, ",\"messages\":[");
    if (request->prefix >= 0) {
        buf_clear(scratch);
        plan_prefix_text(plan, request, scratch);
        buf_text(body, "{\"role\":\"system\",\"content\":");
        append_string(body, scratch);
        buf_text(body, "},");
    }
    buf_clear(scratch);
    plan_prompt_text(request, scratch);
    buf_text(body, "{\"role\":\"user\",\"content\":");
    append_string(body, scratch);
    buf_text(body, "}]");
}

static void encode_prompt(const struct plan *plan, const struct plan_request *request,
                          struct buf *body, struct buf *scratch)
{
    buf_text(body, ",\"prompt\":");
    if (plan->token_ids) {
        plan_prompt_ids(plan, request, body);
        return;
    }
    buf_clear(scratch);
    if (request->prefix >= 0)
        plan_prefix_text(plan, request, scratch);
    plan_prompt_text(request, scratch);
    append_string(body, scratch);
}

// llama-server knows adapters by their place in its command line, which is ours in the list.
static void encode_model(const struct plan *plan, const struct plan_request *request,
                         enum client_selector selector, struct buf *body)
{
    const struct plan_models *models = plan->models;
    bool is_base = request->model == models->base;
    int32_t named = request->model;
    if (selector == CLIENT_BY_LORA && models->base >= 0)
        named = models->base;
    buf_text(body, "{\"model\":");
    buf_json_string(body, models->names[named], strlen(models->names[named]));
    if (selector == CLIENT_BY_LORA && is_base)
        buf_text(body, ",\"lora\":[]");
    else if (selector == CLIENT_BY_LORA)
        buf_printf(body, ",\"lora\":[{\"id\":%d,\"scale\":1.0}]", (int)request->model);
}

void client_body_encode(const struct plan *plan, const struct plan_request *request,
                        enum client_selector selector, struct buf *body, struct buf *scratch)
{
    const struct scenario *scenario = plan->scenario;
    buf_clear(body);
    encode_model(plan, request, selector, body);
    if (request->chat)
        encode_messages(plan, request, body, scratch);
    else
        encode_prompt(plan, request, body, scratch);
    buf_printf(body, ",\"max_tokens\":%d,\"temperature\":%.9g", (int)request->output_tokens,
               scenario->temperature);
    if (scenario->ignore_eos)
        buf_text(body, ",\"ignore_eos\":true");
    if (request->stream)
        buf_text(body, ",\"stream\":true");
    if (request->stream && scenario->usage)
        buf_text(body, ",\"stream_options\":{\"include_usage\":true}");
    buf_text(body, "}");
}

const char *client_body_path(const struct plan_request *request)
{
    return request->chat ? "/v1/chat/completions" : "/v1/completions";
}
