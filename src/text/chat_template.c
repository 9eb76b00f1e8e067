// SPDX-License-Identifier: Apache-2.0
// Chat templates: a model's own template (Jinja text) is recognised as a known one or not at all,
// and known ones are rendered here. Pure functions; any thread.
#include <ctype.h>
#include <string.h>

#include "base/buf.h"
#include "sora/limits.h"
#include "text/tokenizer.h"

#define TEMPLATE_BYTES_MAX 4096 // the known ones are under 600

#define SMOLLM_SYSTEM                                                                          \
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face" \
    "<|im_end|>\n"
#define CHATML_MESSAGE                                                                       \
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}" \
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
#define LOOP "{% for message in messages %}"
#define PROMPT_DEFAULT                                                                     \
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}" \
    "{% endif %}"

static const struct {
    enum chat_kind kind;
    const char *text;
} known[] = {
    {CHAT_SMOLLM, LOOP "{% if loop.first and messages[0]['role'] != 'system' %}{{ '" SMOLLM_SYSTEM
                       "' }}{% endif %}" CHATML_MESSAGE},
    {CHAT_CHATML, LOOP CHATML_MESSAGE},
    {CHAT_CHATML, PROMPT_DEFAULT LOOP CHATML_MESSAGE},
};

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

// Copies a string literal of a tag, from its quote at text[pos]; returns the place after it.
// Quotes become ', and the escape \n a newline.
static size_t copy_literal(const char *text, size_t bytes, size_t pos, char *out, size_t *count)
{
    char quote = text[pos++];
    out[(*count)++] = '\'';
    while (pos < bytes && text[pos] != quote) {
        if (text[pos] == '\\' && pos + 1 < bytes) {
            if (text[pos + 1] == 'n') {
                out[(*count)++] = '\n';
            } else {
                out[(*count)++] = text[pos];
                out[(*count)++] = text[pos + 1];
            }
            pos += 2;
        } else {
            out[(*count)++] = text[pos++];
        }
    }
    out[(*count)++] = '\'';
    return pos < bytes ? pos + 1 : pos;
}

// Writes the text with space inside of tags reduced to what separates words, to out [bytes + 2].
// Text outside of tags is kept as it is. Returns its bytes.
static size_t normalise(const char *text, size_t bytes, char *out)
{
    size_t count = 0, pos = 0;
    bool in_tag = false, space = false;
    while (pos < bytes) {
        char c = text[pos];
        char next = pos + 1 < bytes ? text[pos + 1] : 0;
        if (!in_tag) {
            in_tag = c == '{' && (next == '{' || next == '%');
            out[count++] = c;
            pos++;
            if (in_tag)
                out[count++] = text[pos++];
            space = false;
        } else if (isspace((unsigned char)c)) {
            space = true;
            pos++;
        } else if (c == '\'' || c == '"') {
            pos = copy_literal(text, bytes, pos, out, &count);
            space = false;
        } else {
            if (space && is_word(c) && is_word(out[count - 1]))
                out[count++] = ' ';
            space = false;
            out[count++] = c;
            pos++;
            if ((c == '}' || c == '%') && next == '}') {
                out[count++] = text[pos++];
                in_tag = false;
            }
        }
    }
    return count;
}

enum chat_kind chat_template_recognise(const char *text, size_t bytes)
{
    char given[TEMPLATE_BYTES_MAX + 2], wanted[TEMPLATE_BYTES_MAX + 2];
    if (bytes > TEMPLATE_BYTES_MAX)
        return CHAT_UNKNOWN;
    size_t given_bytes = normalise(text, bytes, given);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        size_t wanted_bytes = normalise(known[i].text, strlen(known[i].text), wanted);
        if (wanted_bytes == given_bytes && memcmp(wanted, given, given_bytes) == 0)
            return known[i].kind;
    }
    return CHAT_UNKNOWN;
}

static sora_status choose(const sora_tokenizer *tokenizer, const char *name, enum chat_kind *kind,
                          struct sora_error *err)
{
#define CHOICE "choose one with --chat-template smollm|chatml"
    *kind = tokenizer != NULL ? tokenizer->chat : CHAT_NONE;
    if (name != NULL) {
        if (strcmp(name, "smollm") == 0)
            *kind = CHAT_SMOLLM;
        else if (strcmp(name, "chatml") == 0)
            *kind = CHAT_CHATML;
        else
            return sora_fail(err, SORA_UNSUPPORTED, "chat template \"%.80s\" is not known; " CHOICE,
                             name);
    }
    if (*kind == CHAT_NONE)
        return sora_fail(err, SORA_UNSUPPORTED, "the model has no chat template; " CHOICE);
    if (*kind == CHAT_UNKNOWN)
        return sora_fail(err, SORA_UNSUPPORTED,
                         "the model's chat template is not a known one; " CHOICE);
    return SORA_OK;
}

sora_status sora_chat_render(const sora_tokenizer *tokenizer, const char *name,
                             const struct sora_message *messages, int32_t message_count,
                             bool add_generation_prompt, char **text, size_t *text_bytes,
                             struct sora_error *err)
{
    *text = NULL;
    *text_bytes = 0;
    enum chat_kind kind;
    sora_status status = choose(tokenizer, name, &kind, err);
    if (status != SORA_OK)
        return status;
    struct buf out;
    buf_init(&out, SORA_TEXT_BYTES_MAX);
    if (kind == CHAT_SMOLLM && message_count > 0 && strcmp(messages[0].role, "system") != 0)
        buf_text(&out, SMOLLM_SYSTEM);
    for (int32_t i = 0; i < message_count; i++) {
        buf_text(&out, "<|im_start|>");
        buf_text(&out, messages[i].role);
        buf_text(&out, "\n");
        buf_text(&out, messages[i].content);
        buf_text(&out, "<|im_end|>\n");
    }
    if (add_generation_prompt)
        buf_text(&out, "<|im_start|>assistant\n");
    status = buf_status(&out, err);
    if (status == SORA_OK) {
        *text = buf_take(&out, text_bytes);
        if (*text == NULL)
            status = sora_fail(err, SORA_NO_MEMORY, "chat text");
    }
    buf_deinit(&out);
    return status;
}
