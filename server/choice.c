// SPDX-License-Identifier: Apache-2.0
// See choice.h. The fields are OpenAI's, with vLLM's answers where OpenAI is silent: the token that
// was chosen is always among the top ones of a completion, and minus infinity is -9999.
#include "server/choice.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "sora/limits.h"

#define LOGPROB_MIN (-9999.0)

static struct buf *const *all_buffers(struct choice *choice, struct buf *list[7])
{
    list[0] = &choice->text;
    list[1] = &choice->token_ids;
    list[2] = &choice->tokens;
    list[3] = &choice->values;
    list[4] = &choice->tops;
    list[5] = &choice->offsets;
    list[6] = &choice->content;
    return list;
}

sora_status choice_init(struct choice *choice, const struct choice_options *options,
                        struct sora_error *err)
{
    struct buf *list[7];
    const struct api_request *api = options->api;
    *choice = (struct choice){.options = options, .stop_token = -1};
    (void)all_buffers(choice, list);
    for (int i = 0; i < 7; i++)
        buf_init(list[i], SORA_REPLY_BYTES_MAX);
    stop_match_init(&choice->stop, api->stops, api->stop_count);
    if (options->tokenizer == NULL)
        return SORA_OK;
    return sora_detokenizer_create(options->tokenizer, api->skip_special, &choice->detokenizer,
                                   err);
}

void choice_deinit(struct choice *choice)
{
    struct buf *list[7];
    (void)all_buffers(choice, list);
    for (int i = 0; i < 7; i++)
        buf_deinit(list[i]);
    stop_match_deinit(&choice->stop);
    if (choice->detokenizer != NULL)
        sora_detokenizer_destroy(choice->detokenizer);
    choice->detokenizer = NULL;
}

void choice_clear(struct choice *choice)
{
    struct buf *list[7];
    (void)all_buffers(choice, list);
    for (int i = 0; i < 7; i++)
        buf_clear(list[i]);
    choice->entries = choice->ids = 0;
}

static int64_t count_characters(const char *text, size_t bytes)
{
    int64_t count = 0;
    for (size_t i = 0; i < bytes; i++)
        count += ((unsigned char)text[i] & 0xc0) != 0x80; // not a continuation byte
    return count;
}

// A token's name as a JSON string: its text, bytes:\xNN when that is no UTF-8, or token_id:N.
static void encode_name(const struct choice *choice, int32_t token, struct buf *out)
{
    size_t bytes = 0;
    const char *piece = NULL;
    if (choice->options->tokenizer != NULL && !choice->options->api->tokens_as_ids)
        piece = sora_tokenizer_piece(choice->options->tokenizer, token, &bytes);
    if (piece == NULL) {
        buf_printf(out, "\"token_id:%d\"", (int)token);
    } else if (utf8_valid(piece, bytes)) {
        buf_json_string(out, piece, bytes);
    } else {
        buf_text(out, "\"bytes:");
        for (size_t i = 0; i < bytes; i++)
            buf_printf(out, "\\\\x%02x", (unsigned char)piece[i]);
        buf_text(out, "\"");
    }
}

static void encode_value(float logprob, struct buf *out)
{
    double value = (double)logprob;
    buf_printf(out, "%.9g", value >= LOGPROB_MIN ? value : LOGPROB_MIN);
}

// Whether an earlier of the top tokens has the same name: an object may not hold it twice.
static bool is_repeated(const struct choice *choice, const struct event *event, int32_t at)
{
    const struct choice_options *options = choice->options;
    if (options->tokenizer == NULL || options->api->tokens_as_ids)
        return false;
    size_t bytes, other_bytes;
    int32_t token = at < event->top_count ? event->top_tokens[at] : event->token;
    const char *piece = sora_tokenizer_piece(options->tokenizer, token, &bytes);
    for (int32_t i = 0; i < at; i++) {
        const char *other =
            sora_tokenizer_piece(options->tokenizer, event->top_tokens[i], &other_bytes);
        if (bytes == other_bytes && memcmp(piece, other, bytes) == 0)
            return true;
    }
    return false;
}

static bool is_in_top(const struct event *event)
{
    for (int32_t i = 0; i < event->top_count; i++)
        if (event->top_tokens[i] == event->token)
            return true;
    return false;
}

// {"name": logprob, ...} of a completion.
static void encode_tops(const struct choice *choice, const struct event *event, struct buf *out)
{
    int32_t count = event->top_count + (is_in_top(event) ? 0 : 1);
    const char *comma = "";
    buf_text(out, "{");
    for (int32_t i = 0; i < count; i++) {
        if (is_repeated(choice, event, i))
            continue;
        bool listed = i < event->top_count;
        buf_text(out, comma);
        encode_name(choice, listed ? event->top_tokens[i] : event->token, out);
        buf_text(out, ":");
        encode_value(listed ? event->top_logprobs[i] : event->logprob, out);
        comma = ",";
    }
    buf_text(out, "}");
}

// {"token","logprob","bytes" of a chat, without the closing brace.
static void encode_chat_token(const struct choice *choice, int32_t token, float logprob,
                              struct buf *out)
{
    size_t bytes = 0;
    const char *piece = NULL;
    if (choice->options->tokenizer != NULL)
        piece = sora_tokenizer_piece(choice->options->tokenizer, token, &bytes);
    buf_text(out, "{\"token\":");
    encode_name(choice, token, out);
    buf_text(out, ",\"logprob\":");
    encode_value(logprob, out);
    if (piece == NULL) {
        buf_text(out, ",\"bytes\":null");
        return;
    }
    buf_text(out, ",\"bytes\":[");
    for (size_t i = 0; i < bytes; i++)
        buf_printf(out, i > 0 ? ",%d" : "%d", (unsigned char)piece[i]);
    buf_text(out, "]");
}

static void add_chat_entry(struct choice *choice, const struct event *event)
{
    struct buf *out = &choice->content;
    buf_text(out, choice->entries > 0 ? "," : "");
    encode_chat_token(choice, event->token, event->logprob, out);
    buf_text(out, ",\"top_logprobs\":[");
    for (int32_t i = 0; i < event->top_count; i++) {
        buf_text(out, i > 0 ? "," : "");
        encode_chat_token(choice, event->top_tokens[i], event->top_logprobs[i], out);
        buf_text(out, "}");
    }
    buf_text(out, "]}");
    choice->entries++;
}

// event NULL: a token without a log-probability.
static void add_completion_entry(struct choice *choice, int32_t token, const struct event *event)
{
    const char *comma = choice->entries > 0 ? "," : "";
    buf_text(&choice->tokens, comma);
    encode_name(choice, token, &choice->tokens);
    buf_text(&choice->values, comma);
    buf_text(&choice->tops, comma);
    if (event == NULL) {
        buf_text(&choice->values, "null");
        buf_text(&choice->tops, "null");
    } else {
        encode_value(event->logprob, &choice->values);
        encode_tops(choice, event, &choice->tops);
    }
    buf_printf(&choice->offsets, "%s%lld", comma, (long long)choice->characters);
    choice->entries++;
}

sora_status choice_echo(struct choice *choice, const char *text, const int32_t *tokens,
                        int32_t token_count, struct sora_error *err)
{
    if (text != NULL) {
        buf_text(&choice->text, text);
    } else if (choice->options->tokenizer != NULL) {
        char *decoded = NULL;
        size_t bytes = 0;
        sora_status status =
            sora_tokenizer_decode(choice->options->tokenizer, tokens, token_count,
                                  choice->options->api->skip_special, &decoded, &bytes, err);
        if (status != SORA_OK)
            return status;
        buf_append(&choice->text, decoded, bytes);
        free(decoded);
    }
    if (choice->options->api->logprobs < 0)
        choice->characters = count_characters(choice->text.data, choice->text.bytes);
    return buf_status(&choice->text, err);
}

void choice_prompt_token(struct choice *choice, int32_t token, const struct event *event)
{
    size_t bytes = 0;
    add_completion_entry(choice, token, event);
    if (choice->options->tokenizer != NULL) {
        const char *piece = sora_tokenizer_piece(choice->options->tokenizer, token, &bytes);
        if (!choice->options->api->skip_special ||
            !sora_tokenizer_is_special(choice->options->tokenizer, token))
            choice->characters += count_characters(piece, bytes);
    }
}

bool choice_token(struct choice *choice, const struct event *event)
{
    const struct api_request *api = choice->options->api;
    if (choice->done)
        return false;
    choice->token_count++;
    choice->logprob_sum += (double)event->logprob;
    if (api->return_token_ids)
        buf_printf(&choice->token_ids, choice->ids++ > 0 ? ",%d" : "%d", (int)event->token);
    if (api->logprobs >= 0 && api->kind == API_CHAT)
        add_chat_entry(choice, event);
    else if (api->logprobs >= 0)
        add_completion_entry(choice, event->token, event);
    choice->stop_token = event->token;
    if (choice->detokenizer == NULL)
        return false;
    size_t bytes = 0;
    const char *text = sora_detokenizer_push(choice->detokenizer, event->token, &bytes);
    choice->characters += count_characters(text, bytes);
    if (bytes == 0 ||
        !stop_match_push(&choice->stop, text, bytes, api->include_stop, &choice->text))
        return false;
    choice->done = true;
    choice->finish = FINISH_STOP;
    return true;
}

void choice_end(struct choice *choice, enum event_finish finish)
{
    if (choice->done)
        return;
    const struct api_request *api = choice->options->api;
    size_t bytes = 0;
    choice->done = true;
    choice->finish = finish;
    if (choice->detokenizer == NULL)
        return;
    const char *text = sora_detokenizer_flush(choice->detokenizer, &bytes);
    if (bytes > 0 && stop_match_push(&choice->stop, text, bytes, api->include_stop, &choice->text))
        choice->finish = FINISH_STOP;
    stop_match_flush(&choice->stop, &choice->text);
}

const char *choice_finish_reason(const struct choice *choice)
{
    if (!choice->done)
        return NULL;
    return choice->finish == FINISH_STOP ? "stop" : "length";
}

void choice_encode_stop_reason(const struct choice *choice, struct buf *out)
{
    const struct api_request *api = choice->options->api;
    if (choice->done && choice->stop.hit >= 0) {
        const char *stop = api->stops[choice->stop.hit];
        buf_json_string(out, stop, strlen(stop));
        return;
    }
    for (int32_t i = 0; choice->finish == FINISH_STOP && i < api->stop_token_count; i++) {
        if (api->stop_tokens[i] == choice->stop_token) {
            buf_printf(out, "%d", (int)choice->stop_token);
            return;
        }
    }
    buf_text(out, "null");
}

void choice_encode_logprobs(const struct choice *choice, struct buf *out)
{
    const struct api_request *api = choice->options->api;
    if (api->logprobs < 0) {
        buf_text(out, "null");
    } else if (api->kind == API_CHAT) {
        buf_printf(out, "{\"content\":[");
        buf_append(out, choice->content.data, choice->content.bytes);
        buf_text(out, "]}");
    } else {
        const struct {
            const char *name;
            const struct buf *items;
        } lists[] = {{"{\"tokens\":[", &choice->tokens},
                     {"],\"token_logprobs\":[", &choice->values},
                     {"],\"top_logprobs\":[", &choice->tops},
                     {"],\"text_offset\":[", &choice->offsets}};
        for (int i = 0; i < 4; i++) {
            buf_text(out, lists[i].name);
            buf_append(out, lists[i].items->data, lists[i].items->bytes);
        }
        buf_text(out, "]}");
    }
}
