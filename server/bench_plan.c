// SPDX-License-Identifier: Apache-2.0
// The lists of `bench`'s options, and the little statistics it needs.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/bench.h"

#define RAGGED_RANK_MAX 16

// The next word of a comma-separated list; false at the end.
static bool next_word(const char **text, char word[32], bool *fits)
{
    if (**text == 0)
        return false;
    size_t length = strcspn(*text, ",");
    *fits = length > 0 && length < 32;
    snprintf(word, 32, "%.*s", *fits ? (int)length : 0, *text);
    *text += length;
    if (**text == ',')
        (*text)++;
    return true;
}

static bool count_of(const char *word, int32_t max, int32_t *count)
{
    char *end = NULL;
    long value = strtol(word, &end, 10);
    if (end == word || *end != 0 || value < 1 || value > max)
        return false;
    *count = (int32_t)value;
    return true;
}

sora_status bench_parse_counts(const char *text, const char *what, int32_t max,
                               int32_t out[BENCH_LIST_MAX], int32_t *count, struct sora_error *err)
{
    char word[32];
    bool fits;
    *count = 0;
    while (next_word(&text, word, &fits)) {
        if (*count == BENCH_LIST_MAX)
            return sora_fail(err, SORA_LIMIT, "%s: more than %d values", what, BENCH_LIST_MAX);
        if (!fits || !count_of(word, max, &out[(*count)++]))
            return sora_fail(err, SORA_MALFORMED, "%s: '%s' is no number from 1 to %d", what, word,
                             (int)max);
    }
    if (*count == 0)
        return sora_fail(err, SORA_MALFORMED, "%s: the list is empty", what);
    return SORA_OK;
}

sora_status bench_parse_ranks(const char *text, struct bench_plan *plan, struct sora_error *err)
{
    char word[32];
    bool fits;
    plan->rank_count = 0;
    while (next_word(&text, word, &fits)) {
        if (plan->rank_count == BENCH_LIST_MAX)
            return sora_fail(err, SORA_LIMIT, "--ranks: more than %d settings", BENCH_LIST_MAX);
        struct bench_ranks *ranks = &plan->ranks[plan->rank_count++];
        *ranks = (struct bench_ranks){.rank = RAGGED_RANK_MAX};
        if (fits && strcmp(word, "ragged") == 0)
            ranks->kind = BENCH_RAGGED;
        else if (fits && strcmp(word, "zipf") == 0)
            ranks->kind = BENCH_ZIPF;
        else if (!fits || !count_of(word, BENCH_RANK_MAX, &ranks->rank))
            return sora_fail(err, SORA_MALFORMED,
                             "--ranks: '%s' is neither a rank from 1 to %d nor ragged or zipf",
                             word, BENCH_RANK_MAX);
        snprintf(ranks->name, sizeof ranks->name, "%s", word);
    }
    if (plan->rank_count == 0)
        return sora_fail(err, SORA_MALFORMED, "--ranks: the list is empty");
    return SORA_OK;
}

sora_status bench_parse_parts(const char *text, unsigned *parts, struct sora_error *err)
{
    static const char *const names[] = {"prefill", "decode", "mixed", "rank-sum", "sampling"};
    char word[32];
    bool fits;
    *parts = 0;
    while (next_word(&text, word, &fits)) {
        unsigned part = 0;
        for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
            part |= fits && strcmp(word, names[i]) == 0 ? 1u << i : 0;
        if (part == 0)
            return sora_fail(err, SORA_MALFORMED,
                             "--only: '%s' is none of prefill, decode, mixed, rank-sum, sampling",
                             word);
        *parts |= part;
    }
    if (*parts == 0)
        return sora_fail(err, SORA_MALFORMED, "--only: the list is empty");
    return SORA_OK;
}

void bench_fit(const struct bench_point *points, int32_t count, double *slope, double *r2)
{
    double xy = 0, xx = 0, mean = 0, residual = 0, spread = 0;
    for (int32_t i = 0; i < count; i++) {
        xy += points[i].rank_sum * points[i].adapter_us;
        xx += points[i].rank_sum * points[i].rank_sum;
        mean += points[i].adapter_us / count;
    }
    *slope = xx > 0 ? xy / xx : 0;
    for (int32_t i = 0; i < count; i++) {
        double error = points[i].adapter_us - *slope * points[i].rank_sum;
        residual += error * error;
        spread += (points[i].adapter_us - mean) * (points[i].adapter_us - mean);
    }
    *r2 = spread > 0 ? 1 - residual / spread : 0;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double bench_median(double *values, int32_t count)
{
    if (count == 0)
        return 0;
    qsort(values, (size_t)count, sizeof *values, by_size);
    return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}
