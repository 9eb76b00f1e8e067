// SPDX-License-Identifier: Apache-2.0
// ROUGE-L and BLEU, see text_score.h.
#include "train/text_score.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "sora/limits.h"

// A text cut into words: zero-terminated, one after another.
struct words {
    char *text;
    const char **at;
    int32_t count;
};

static void words_deinit(struct words *words)
{
    free(words->text);
    free(words->at);
    *words = (struct words){0};
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

// Takes the text of the buffer and cuts it at white space.
static sora_status split(struct buf *buf, struct words *words, struct sora_error *err)
{
    *words = (struct words){0};
    const sora_status status = buf_status(buf, err);
    size_t bytes = 0;
    if (status == SORA_OK)
        words->text = buf_take(buf, &bytes);
    buf_deinit(buf);
    if (status != SORA_OK)
        return status;
    // No two words are closer than two bytes.
    words->at = calloc(bytes / 2 + 1, sizeof(words->at[0]));
    if (words->text == NULL || words->at == NULL) {
        words_deinit(words);
        return sora_fail(err, SORA_NO_MEMORY, "no memory to compare texts");
    }
    bool inside = false;
    for (size_t i = 0; i < bytes; i++) {
        const bool space = is_space(words->text[i]);
        if (!space && !inside)
            words->at[words->count++] = words->text + i;
        if (space)
            words->text[i] = '\0';
        inside = !space;
    }
    return SORA_OK;
}

static sora_status rouge_words(const char *text, struct words *words, struct sora_error *err)
{
    struct buf buf;
    buf_init(&buf, SORA_TEXT_BYTES_MAX);
    for (; *text != '\0'; text++) {
        const char lower = (char)(*text >= 'A' && *text <= 'Z' ? *text + 32 : *text);
        const bool kept = is_digit(lower) || (lower >= 'a' && lower <= 'z');
        buf_append(&buf, kept ? &lower : " ", 1);
    }
    return split(&buf, words, err);
}

// Longest common subsequence; -1: no memory.
static int32_t common_length(const struct words *a, const struct words *b)
{
    int32_t *row = calloc((size_t)b->count + 1, sizeof(*row));
    if (row == NULL)
        return -1;
    for (int32_t i = 0; i < a->count; i++) {
        int32_t diagonal = 0;
        for (int32_t j = 0; j < b->count; j++) {
            const int32_t above = row[j + 1];
            if (strcmp(a->at[i], b->at[j]) == 0)
                row[j + 1] = diagonal + 1;
            else if (row[j] > above)
                row[j + 1] = row[j];
            diagonal = above;
        }
    }
    const int32_t length = row[b->count];
    free(row);
    return length;
}

sora_status text_score_rouge_l(const char *answer, const char *reference, double *f1,
                               struct sora_error *err)
{
    struct words ours = {0}, theirs = {0};
    sora_status status = rouge_words(answer, &ours, err);
    if (status == SORA_OK)
        status = rouge_words(reference, &theirs, err);
    if (status == SORA_OK) {
        const int32_t common = common_length(&ours, &theirs);
        if (common < 0)
            status = sora_fail(err, SORA_NO_MEMORY, "no memory to compare texts");
        // 2 P R / (P + R) with P = common / ours and R = common / theirs.
        *f1 = common > 0 ? 2.0 * common / ((double)ours.count + (double)theirs.count) : 0.0;
    }
    words_deinit(&ours);
    words_deinit(&theirs);
    return status;
}

// Replaces every `from` by `to` in the text of the buffer.
static void replace(struct buf *buf, const char *from, const char *to)
{
    struct buf made;
    buf_init(&made, buf->bytes_max);
    const size_t bytes = strlen(from);
    const char *at = buf->data != NULL ? buf->data : "", *found;
    for (; (found = strstr(at, from)) != NULL; at = found + bytes) {
        buf_append(&made, at, (size_t)(found - at));
        buf_text(&made, to);
    }
    buf_text(&made, at);
    buf_deinit(buf);
    *buf = made;
}

static bool is_symbol(char c)
{
    return (c >= ' ' && c <= '&') || (c >= '(' && c <= '+') || c == '/' || (c >= ':' && c <= '@') ||
           (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

static bool is_point(char c)
{
    return c == '.' || c == ',';
}

// The passes of mteval-v13a over a text between two spaces, each a substitution that goes on
// behind what it replaced.
enum pass { PASS_SYMBOLS, PASS_POINT_AFTER, PASS_POINT_BEFORE, PASS_DASH, PASS_COUNT };

static void run_pass(struct buf *buf, enum pass pass)
{
    struct buf made;
    buf_init(&made, buf->bytes_max);
    const char *text = buf->data != NULL ? buf->data : "";
    for (size_t i = 0; text[i] != '\0';) {
        const char a = text[i], b = text[i + 1];
        if (pass == PASS_SYMBOLS && is_symbol(a)) {
            buf_printf(&made, " %c ", a);
            i++;
        } else if (pass == PASS_POINT_AFTER && !is_digit(a) && is_point(b)) {
            buf_printf(&made, "%c %c ", a, b);
            i += 2;
        } else if (pass == PASS_POINT_BEFORE && is_point(a) && b != '\0' && !is_digit(b)) {
            buf_printf(&made, " %c %c", a, b);
            i += 2;
        } else if (pass == PASS_DASH && is_digit(a) && b == '-') {
            buf_printf(&made, "%c %c ", a, b);
            i += 2;
        } else {
            buf_append(&made, &a, 1);
            i++;
        }
    }
    buf_deinit(buf);
    *buf = made;
}

static sora_status bleu_words(const char *text, struct words *words, struct sora_error *err)
{
    static const char *const plain[][2] = {{"<skipped>", ""}, {"-\n", ""},    {"\n", " "},
                                           {"&quot;", "\""},  {"&amp;", "&"}, {"&lt;", "<"},
                                           {"&gt;", ">"}};
    struct buf buf;
    size_t bytes = strlen(text);
    while (bytes > 0 && is_space(text[bytes - 1]))
        bytes--;
    buf_init(&buf, SORA_TEXT_BYTES_MAX);
    buf_append(&buf, text, bytes);
    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
        replace(&buf, plain[i][0], plain[i][1]);
    struct buf spaced;
    buf_init(&spaced, SORA_TEXT_BYTES_MAX);
    buf_printf(&spaced, " %s ", buf.data != NULL ? buf.data : "");
    buf_deinit(&buf);
    for (enum pass pass = PASS_SYMBOLS; pass < PASS_COUNT; pass++)
        run_pass(&spaced, pass);
    return split(&spaced, words, err);
}

static bool same_gram(const char *const *a, const char *const *b, int32_t order)
{
    for (int32_t i = 0; i < order; i++)
        if (strcmp(a[i], b[i]) != 0)
            return false;
    return true;
}

// Occurrences of a gram in words from `first` on.
static int64_t occurrences(const char *const *gram, int32_t order, const struct words *words,
                           int32_t first)
{
    int64_t count = 0;
    for (int32_t i = first; i + order <= words->count; i++)
        count += same_gram(gram, words->at + i, order);
    return count;
}

static bool is_repeated(const struct words *words, int32_t at, int32_t order)
{
    for (int32_t i = 0; i < at; i++)
        if (same_gram(words->at + i, words->at + at, order))
            return true;
    return false;
}

// Each gram of the answer counts as often as the reference that has it most often has it.
static void count_grams(struct bleu *bleu, const struct words *answer,
                        const struct words *references, int32_t count, int32_t order)
{
    for (int32_t i = 0; i + order <= answer->count; i++) {
        bleu->total[order - 1]++;
        if (is_repeated(answer, i, order))
            continue;
        const char *const *gram = answer->at + i;
        const int64_t ours = occurrences(gram, order, answer, i);
        int64_t theirs = 0;
        for (int32_t r = 0; r < count; r++) {
            const int64_t there = occurrences(gram, order, &references[r], 0);
            theirs = there > theirs ? there : theirs;
        }
        bleu->right[order - 1] += ours < theirs ? ours : theirs;
    }
}

static int32_t closest_count(int32_t answer, const struct words *references, int32_t count)
{
    int32_t best = references[0].count;
    for (int32_t r = 1; r < count; r++) {
        const int32_t there = references[r].count;
        const int32_t gap = abs(there - answer), best_gap = abs(best - answer);
        if (gap < best_gap || (gap == best_gap && there < best))
            best = there;
    }
    return best;
}

sora_status bleu_add(struct bleu *bleu, const char *answer, const char *const *references,
                     int32_t count, struct sora_error *err)
{
    struct words ours = {0};
    struct words *theirs = calloc((size_t)count, sizeof(theirs[0]));
    if (theirs == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to compare texts");
    sora_status status = bleu_words(answer, &ours, err);
    for (int32_t r = 0; status == SORA_OK && r < count; r++)
        status = bleu_words(references[r], &theirs[r], err);
    if (status == SORA_OK) {
        bleu->answer_tokens += ours.count;
        bleu->reference_tokens += closest_count(ours.count, theirs, count);
        for (int32_t order = 1; order <= BLEU_ORDER_MAX; order++)
            count_grams(bleu, &ours, theirs, count, order);
    }
    for (int32_t r = 0; r < count; r++)
        words_deinit(&theirs[r]);
    words_deinit(&ours);
    free(theirs);
    return status;
}

double bleu_score(const struct bleu *bleu)
{
    double logs = 0.0, smooth = 1.0;
    bool any = false;
    for (int32_t n = 0; n < BLEU_ORDER_MAX; n++) {
        if (bleu->total[n] == 0)
            return 0.0;
        any = any || bleu->right[n] > 0;
        smooth *= bleu->right[n] == 0 ? 2.0 : 1.0;
        const double right = bleu->right[n] > 0 ? (double)bleu->right[n] : 1.0 / smooth;
        logs += log(right / (double)bleu->total[n]);
    }
    if (!any)
        return 0.0;
    const double ours = (double)bleu->answer_tokens, theirs = (double)bleu->reference_tokens;
    const double brevity = ours < theirs ? exp(1.0 - theirs / ours) : 1.0;
    return brevity * exp(logs / BLEU_ORDER_MAX);
}
