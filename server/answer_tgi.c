// SPDX-License-Identifier: Apache-2.0
// See answer_tgi.h.
#include "server/answer_tgi.h"

#include <string.h>

#include "server/sse.h"
#include "sora/limits.h"

void answer_tgi_init(struct answer_tgi *tgi, const struct answer *answer)
{
    *tgi = (struct answer_tgi){.answer = answer};
    buf_init(&tgi->text, SORA_REPLY_BYTES_MAX);
    buf_init(&tgi->tokens, SORA_REPLY_BYTES_MAX);
    buf_init(&tgi->piece, SORA_REPLY_BYTES_MAX);
}

void answer_tgi_deinit(struct answer_tgi *tgi)
{
    if (tgi->answer == NULL)
        return;
    buf_deinit(&tgi->text);
    buf_deinit(&tgi->tokens);
    buf_deinit(&tgi->piece);
}

static void encode_token(const struct answer_tgi *tgi, struct buf *out)
{
    buf_printf(out, "{\"id\":%d,\"text\":", (int)tgi->token);
    buf_json_string(out, tgi->piece.data, tgi->piece.bytes);
    buf_printf(out, ",\"logprob\":%.9g,\"special\":%s}", (double)tgi->logprob,
               tgi->special ? "true" : "false");
}

static const char *finish_reason(const struct choice *choice)
{
    if (choice->finish == FINISH_LENGTH)
        return "length";
    return choice->stop.hit >= 0 ? "stop_sequence" : "eos_token";
}

// Members that details of a stream and of a whole answer share.
static void encode_details(const struct answer_tgi *tgi, const struct choice *choice,
                           struct buf *out)
{
    const struct api_request *api = tgi->answer->api;
    buf_printf(out, "\"finish_reason\":\"%s\",\"prompt_tokens\":%lld,\"generated_tokens\":%d",
               finish_reason(choice), (long long)tgi->answer->prompt_tokens,
               (int)choice->token_count);
    if (api->tgi.sampled)
        buf_printf(out, ",\"seed\":%llu", (unsigned long long)api->sampling.seed);
    else
        buf_text(out, ",\"seed\":null");
    answer_encode_elastic(tgi->answer, out);
}

static void encode_text(const struct answer_tgi *tgi, struct buf *out)
{
    const struct api_request *api = tgi->answer->api;
    struct buf whole;
    buf_init(&whole, SORA_REPLY_BYTES_MAX);
    if (api->tgi.full_text)
        buf_text(&whole, api->prompts[0].text);
    buf_append(&whole, tgi->text.data, tgi->text.bytes);
    buf_json_string(out, whole.data, whole.bytes);
    out->status = out->status != SORA_OK ? out->status : whole.status;
    buf_deinit(&whole);
}

// The token that was held: with the end of its sequence when `end`.
static void put_token(struct answer_tgi *tgi, const struct choice *choice, bool end,
                      struct buf *out)
{
    buf_append(&tgi->text, tgi->piece.data, tgi->piece.bytes);
    if (out == NULL) {
        buf_text(&tgi->tokens, tgi->tokens.bytes > 0 ? "," : "");
        encode_token(tgi, &tgi->tokens);
        return;
    }
    sse_begin(out);
    buf_text(out, "{\"token\":");
    encode_token(tgi, out);
    buf_text(out, ",\"generated_text\":");
    if (end)
        encode_text(tgi, out);
    else
        buf_text(out, "null");
    buf_text(out, ",\"details\":");
    if (end && tgi->answer->api->tgi.details) {
        buf_text(out, "{");
        encode_details(tgi, choice, out);
        buf_text(out, "}");
    } else {
        buf_text(out, "null");
    }
    buf_text(out, "}");
    sse_end(out);
}

static bool is_last(const struct answer_tgi *tgi, const struct choice *choice, int32_t token)
{
    if (choice->done || choice->token_count >= tgi->max_tokens)
        return true;
    for (int32_t i = 0; i < tgi->end_token_count && !tgi->answer->api->ignore_eos; i++)
        if (tgi->end_tokens[i] == token)
            return true;
    return false;
}

static void use_token(struct answer_tgi *tgi, struct choice *choice, const struct event *event,
                      struct buf *out)
{
    const sora_tokenizer *tokenizer = choice->options->tokenizer;
    if (tgi->stopped)
        return; // behind a stop string
    tgi->token = event->token;
    tgi->logprob = event->logprob;
    tgi->special = tokenizer != NULL && sora_tokenizer_is_special(tokenizer, event->token);
    buf_clear(&tgi->piece);
    buf_append(&tgi->piece, choice->text.data, choice->text.bytes);
    choice_clear(choice);
    tgi->stopped = choice->done;
    if (!is_last(tgi, choice, event->token))
        put_token(tgi, choice, false, out);
}

void answer_tgi_event(struct answer_tgi *tgi, struct choice *choice, const struct event *event,
                      struct buf *out)
{
    if (event->kind == EVENT_TOKEN)
        use_token(tgi, choice, event, out);
    bool good = choice->finish == FINISH_STOP || choice->finish == FINISH_LENGTH;
    if (event->kind != EVENT_DONE || !good || tgi->ended)
        return;
    buf_append(&tgi->piece, choice->text.data, choice->text.bytes); // what was held back
    choice_clear(choice);
    put_token(tgi, choice, true, out);
    tgi->ended = true;
}

void answer_tgi_encode(const struct answer_tgi *tgi, const struct choice *choice, struct buf *out)
{
    buf_text(out, "{\"generated_text\":");
    encode_text(tgi, out);
    if (tgi->answer->api->tgi.details) {
        buf_text(out, ",\"details\":{");
        encode_details(tgi, choice, out);
        buf_text(out, ",\"prefill\":[],\"tokens\":[");
        buf_append(out, tgi->tokens.data, tgi->tokens.bytes);
        buf_text(out, "]}");
        out->status = out->status != SORA_OK ? out->status : tgi->tokens.status;
    }
    buf_text(out, "}");
}

enum api_code answer_tgi_code(enum api_code code)
{
    switch (code) {
    case API_BAD_REQUEST:
        return API_IMPOSSIBLE;
    case API_NOT_FOUND:
    case API_INTERNAL:
        return API_DEPENDENCY; // what failed there is the generation
    default:
        return code;
    }
}

void answer_tgi_error(struct buf *out, const struct api_error *error)
{
    const char *type = "validation", *prefix = "Input validation error: ";
    enum api_code code = answer_tgi_code(error->http);
    if (code == API_DEPENDENCY) {
        type = "generation";
        prefix = "Request failed during generation: ";
    } else if (code == API_TOO_MANY) {
        type = "overloaded";
        prefix = "Model is overloaded: ";
    } else if (code == API_UNAVAILABLE) {
        type = "incomplete_generation";
        prefix = "Incomplete generation: ";
    }
    buf_text(out, "{\"error\":");
    struct buf text;
    buf_init(&text, 4096);
    buf_printf(&text, "%s%s", prefix, error->message);
    buf_json_string(out, text.data, text.bytes);
    buf_deinit(&text);
    buf_printf(out, ",\"error_type\":\"%s\"}", type);
}
