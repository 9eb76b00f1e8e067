// SPDX-License-Identifier: Apache-2.0
// Pre-tokenizers by PCRE2. Compiled patterns are read-only and shared by threads; match data
// belongs to one call. Each piece is matched as a text of its own, so look-ahead ends with it, as
// in Hugging Face's tokenizers.
#include "text/pretokenize.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

// White space as Unicode's White_Space has it; PCRE2's \s also takes U+180E.
#define SPACES                                                                                   \
    "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}" \
    "\\x{3000}"
#define SPACE "[" SPACES "]"
#define NO_SPACE "[^" SPACES "]"
#define SPACE_TAIL SPACE "+(?!" NO_SPACE ")|" SPACE "+"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACES "\\p{L}\\p{N}]+|" SPACE_TAIL
#define LLAMA3_WITH(digits)                                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^" SPACES \
    "\\p{L}\\p{N}]+[\\r\\n]*|" SPACE "*[\\r\\n]+|" SPACE_TAIL
#define LLAMA3 LLAMA3_WITH("\\p{N}{1,3}")
#define QWEN2 LLAMA3_WITH("\\p{N}")

#define MATCH_LIMIT 10000000u      // backtracking steps of one match; ours need none
#define MATCH_HEAP_KIBIBYTES 65536 // memory of one match outside of the JIT

const char *const pretokenize_gpt2 = GPT2;
const char *const pretokenize_digit = "\\p{N}";
const char *const pretokenize_digits = "\\p{N}+";

struct pretokenizer {
    int32_t stage_count;
    pcre2_code *stages[PRETOKENIZE_STAGES_MAX];
};

// smollm: the reference ids of SmolLM2 come from GPT-2's pattern on the whole text; single digits
// follow from a vocabulary without merges of digits. (llama.cpp cuts the digits out first, which
// differs for two and more spaces before a digit.)
static const struct pretokenize_preset presets[] = {
    {"smollm", {GPT2}, false, false, false}, {"starcoder", {"\\p{N}", GPT2}, false, false, false},
    {"gpt-2", {GPT2}, false, false, false},  {"llama-bpe", {LLAMA3}, true, true, false},
    {"qwen2", {QWEN2}, false, false, true},
};

const struct pretokenize_preset *pretokenize_find_preset(const char *name, size_t bytes)
{
    for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++) {
        if (strlen(presets[i].name) == bytes && memcmp(presets[i].name, name, bytes) == 0)
            return &presets[i];
    }
    return NULL;
}

const char *pretokenize_preset_names(void)
{
    return "smollm, starcoder, gpt-2, llama-bpe, qwen2";
}

// The texts in Hugging Face files whose meaning of \s is known; other patterns are taken as they
// are.
static const char *known_pattern(const char *pattern)
{
#define HF_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define HF_HEAD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
    static const struct {
        const char *text, *pattern;
    } known[] = {
        {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
         GPT2},
        {"'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", GPT2},
        {HF_HEAD "\\p{N}{1,3}" HF_TAIL, LLAMA3},
        {HF_HEAD "\\p{N}" HF_TAIL, QWEN2},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].text, pattern) == 0)
            return known[i].pattern;
    }
    return pattern;
}

sora_status pretokenizer_create(const char *const *patterns, int32_t pattern_count,
                                struct pretokenizer **pretokenizer, struct sora_error *err)
{
    *pretokenizer = NULL;
    if (pattern_count > PRETOKENIZE_STAGES_MAX)
        return sora_fail(err, SORA_LIMIT, "pre-tokenizer: %d stages exceed %d", pattern_count,
                         PRETOKENIZE_STAGES_MAX);
    struct pretokenizer *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "pre-tokenizer");
    for (int32_t i = 0; i < pattern_count; i++) {
        int code;
        PCRE2_SIZE place;
        const char *pattern = known_pattern(patterns[i]);
        pcre2_code *stage =
            pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &place, NULL);
        if (stage == NULL) {
            PCRE2_UCHAR text[128];
            (void)pcre2_get_error_message(code, text, sizeof text);
            pretokenizer_destroy(made);
            return sora_fail(err, SORA_UNSUPPORTED, "pre-tokenizer: pattern %.100s: %s at byte %zu",
                             pattern, (const char *)text, (size_t)place);
        }
        (void)pcre2_jit_compile(stage, PCRE2_JIT_COMPLETE); // without it, the interpreter runs
        made->stages[made->stage_count++] = stage;
    }
    *pretokenizer = made;
    return SORA_OK;
}

void pretokenizer_destroy(struct pretokenizer *pretokenizer)
{
    if (pretokenizer == NULL)
        return;
    for (int32_t i = 0; i < pretokenizer->stage_count; i++)
        pcre2_code_free(pretokenizer->stages[i]);
    free(pretokenizer);
}

struct split_call {
    const struct pretokenizer *pretokenizer;
    pcre2_match_context *limits;
    pcre2_match_data *matches[PRETOKENIZE_STAGES_MAX];
    pretokenize_word word;
    void *context;
};

// Finds the next match in text [pos, bytes); *found is false when there is none.
static sora_status next_match(const struct split_call *call, int32_t stage, const char *text,
                              size_t bytes, size_t pos, bool *found, size_t *start, size_t *end,
                              struct sora_error *err)
{
    const uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY; // valid by split_call
    pcre2_code *code = call->pretokenizer->stages[stage];
    pcre2_match_data *match = call->matches[stage];
    int count = pcre2_match(code, (PCRE2_SPTR)text, bytes, pos, options, match, call->limits);
    if (count == PCRE2_ERROR_JIT_STACKLIMIT)
        count = pcre2_match(code, (PCRE2_SPTR)text, bytes, pos, options | PCRE2_NO_JIT, match,
                            call->limits);
    *found = count >= 0;
    if (count == PCRE2_ERROR_NOMATCH)
        return SORA_OK;
    if (count == PCRE2_ERROR_NOMEMORY)
        return sora_fail(err, SORA_NO_MEMORY, "pre-tokenizer: matching");
    if (count < 0)
        return sora_fail(err, SORA_LIMIT, "pre-tokenizer: stage %d gives up at byte %zu (%d)",
                         stage, pos, count);
    *start = pcre2_get_ovector_pointer(match)[0];
    *end = pcre2_get_ovector_pointer(match)[1];
    return SORA_OK;
}

// Splits one piece by the stages from `stage` on. Recursion is as deep as there are stages.
static sora_status split_piece(const struct split_call *call, int32_t stage, const char *text,
                               size_t bytes, struct sora_error *err)
{
    if (bytes == 0)
        return SORA_OK;
    if (stage == call->pretokenizer->stage_count)
        return call->word(call->context, text, bytes, err);
    size_t pos = 0;
    while (pos < bytes) {
        bool found;
        size_t start = bytes, end = bytes;
        sora_status status = next_match(call, stage, text, bytes, pos, &found, &start, &end, err);
        if (status != SORA_OK)
            return status;
        if (!found || start < pos || end <= start) // \K may move a start; such a match is no piece
            start = end = bytes;
        status = split_piece(call, stage + 1, text + pos, start - pos, err);
        if (status == SORA_OK)
            status = split_piece(call, stage + 1, text + start, end - start, err);
        if (status != SORA_OK)
            return status;
        pos = end;
    }
    return SORA_OK;
}

// Length of the run of valid, or of broken, UTF-8 at the start of text.
static size_t run_bytes(const char *text, size_t bytes, bool *valid)
{
    size_t pos = 0;
    while (pos < bytes) {
        uint32_t code;
        size_t length = utf8_next(text + pos, bytes - pos, &code);
        bool this_valid = code != UTF8_BROKEN;
        if (pos == 0)
            *valid = this_valid;
        if (this_valid != *valid)
            break;
        pos += length;
    }
    return pos;
}

static sora_status call_init(struct split_call *call, struct sora_error *err)
{
    call->limits = pcre2_match_context_create(NULL);
    bool made = call->limits != NULL;
    for (int32_t i = 0; made && i < call->pretokenizer->stage_count; i++) {
        call->matches[i] =
            pcre2_match_data_create_from_pattern(call->pretokenizer->stages[i], NULL);
        made = call->matches[i] != NULL;
    }
    if (!made)
        return sora_fail(err, SORA_NO_MEMORY, "pre-tokenizer: match data");
    (void)pcre2_set_match_limit(call->limits, MATCH_LIMIT);
    (void)pcre2_set_heap_limit(call->limits, MATCH_HEAP_KIBIBYTES);
    return SORA_OK;
}

sora_status pretokenizer_split(const struct pretokenizer *pretokenizer, const char *text,
                               size_t bytes, pretokenize_word word, void *context,
                               struct sora_error *err)
{
    struct split_call call = {.pretokenizer = pretokenizer, .word = word, .context = context};
    sora_status status = call_init(&call, err);
    for (size_t pos = 0; status == SORA_OK && pos < bytes;) {
        bool valid = true;
        size_t run = run_bytes(text + pos, bytes - pos, &valid);
        status = split_piece(&call, valid ? 0 : pretokenizer->stage_count, text + pos, run, err);
        pos += run;
    }
    for (int32_t i = 0; i < pretokenizer->stage_count; i++)
        pcre2_match_data_free(call.matches[i]);
    pcre2_match_context_free(call.limits);
    return status;
}
