// SPDX-License-Identifier: Apache-2.0
// See answer.h. Any thread.
#include "server/answer.h"

#include <string.h>

#include "server/sse.h"

// What became of "elastic":true. Nothing where it was not asked for.
void answer_encode_elastic(const struct answer *answer, struct buf *out)
{
    if (answer->api->elastic && answer->rank_limit > 0)
        buf_printf(out, ",\"sora\":{\"rank_limit\":%d}", (int)answer->rank_limit);
    else if (answer->api->elastic)
        buf_text(out, ",\"sora\":{\"rank_limit\":null}");
}

static void encode_head(const struct answer *answer, struct buf *out)
{
    const char *object = answer->kind == API_COMPLETION ? "text_completion"
                         : answer->stream               ? "chat.completion.chunk"
                                                        : "chat.completion";
    buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", answer->id,
               object, (long long)answer->created_s);
    buf_json_string(out, answer->model, strlen(answer->model));
    answer_encode_elastic(answer, out);
    buf_text(out, ",\"choices\":[");
}

static void encode_usage(const struct answer *answer, struct buf *out)
{
    buf_printf(out,
               "\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,"
               "\"total_tokens\":%lld,\"prompt_tokens_details\":{\"cached_tokens\":%lld}",
               (long long)answer->prompt_tokens, (long long)answer->completion_tokens,
               (long long)(answer->prompt_tokens + answer->completion_tokens),
               (long long)answer->cached_tokens);
    answer_encode_elastic(answer, out);
    buf_text(out, "}");
}

static void encode_ids(const char *name, const int32_t *tokens, int32_t count, struct buf *out)
{
    buf_printf(out, ",\"%s\":[", name);
    for (int32_t i = 0; i < count; i++)
        buf_printf(out, i > 0 ? ",%d" : "%d", (int)tokens[i]);
    buf_text(out, "]");
}

static void encode_text(const struct answer *answer, const struct answer_choice *item,
                        struct buf *out)
{
    const struct buf *text = &item->choice->text;
    if (answer->kind == API_COMPLETION) {
        buf_text(out, "\"text\":");
        buf_json_string(out, text->data, text->bytes);
    } else if (!answer->stream) {
        buf_text(out, "\"message\":{\"role\":\"assistant\",\"content\":");
        buf_json_string(out, text->data, text->bytes);
        buf_text(out, "}");
    } else if (item->first) {
        buf_text(out, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}");
    } else if (text->bytes > 0 || choice_finish_reason(item->choice) == NULL) {
        buf_text(out, "\"delta\":{\"content\":");
        buf_json_string(out, text->data, text->bytes);
        buf_text(out, "}");
    } else {
        buf_text(out, "\"delta\":{}");
    }
    out->status = out->status != SORA_OK ? out->status : text->status;
}

static void encode_choice(const struct answer *answer, const struct answer_choice *item,
                          struct buf *out)
{
    const struct choice *choice = item->choice;
    buf_printf(out, "{\"index\":%d,", (int)item->index);
    encode_text(answer, item, out);
    buf_text(out, ",\"logprobs\":");
    if (choice->entries > 0 || !answer->stream)
        choice_encode_logprobs(choice, out);
    else
        buf_text(out, "null");
    const char *reason = item->first ? NULL : choice_finish_reason(choice);
    buf_printf(out, reason != NULL ? ",\"finish_reason\":\"%s\"" : ",\"finish_reason\":null",
               reason);
    if (reason != NULL) {
        buf_text(out, ",\"stop_reason\":");
        choice_encode_stop_reason(choice, out);
    }
    if (answer->api->return_token_ids && !item->first) {
        buf_text(out, ",\"token_ids\":[");
        buf_append(out, choice->token_ids.data, choice->token_ids.bytes);
        buf_text(out, "]");
    }
    if (answer->kind == API_COMPLETION && item->prompt_tokens != NULL)
        encode_ids("prompt_token_ids", item->prompt_tokens, item->prompt_token_count, out);
    buf_text(out, "}");
}

// A chat has one prompt: its ids stand beside the choices.
static void encode_chat_prompt(const struct answer *answer, const struct answer_choice *item,
                               struct buf *out)
{
    if (answer->kind == API_CHAT && item->prompt_tokens != NULL)
        encode_ids("prompt_token_ids", item->prompt_tokens, item->prompt_token_count, out);
}

void answer_encode(const struct answer *answer, const struct answer_choice *choices,
                   int32_t choice_count, struct buf *out)
{
    encode_head(answer, out);
    for (int32_t i = 0; i < choice_count; i++) {
        buf_text(out, i > 0 ? "," : "");
        encode_choice(answer, &choices[i], out);
    }
    buf_text(out, "],");
    encode_usage(answer, out);
    encode_chat_prompt(answer, &choices[0], out);
    buf_text(out, "}");
}

void answer_encode_chunk(const struct answer *answer, const struct answer_choice *choice,
                         struct buf *out)
{
    sse_begin(out);
    encode_head(answer, out);
    if (choice != NULL)
        encode_choice(answer, choice, out);
    buf_text(out, "]");
    if (choice == NULL || answer->api->continuous_usage) {
        buf_text(out, ",");
        encode_usage(answer, out);
    } else if (answer->api->include_usage) {
        buf_text(out, ",\"usage\":null"); // as OpenAI: present in every chunk, null until the last
    }
    if (choice != NULL)
        encode_chat_prompt(answer, choice, out);
    buf_text(out, "}");
    sse_end(out);
}
