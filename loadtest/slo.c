// SPDX-License-Identifier: Apache-2.0
// Reads and writes the text of an SLO. Pure; any thread.
#include "loadtest/slo.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ERRORS_DEFAULT 0.01
#define LIMIT_MAX_US 600000000.0 // what the histograms tell apart
#define TERM_BYTES_MAX 64

const char *latency_kind_name(enum latency_kind kind)
{
    static const char *const names[LATENCY_KIND_COUNT] = {"ttft", "itl", "e2e"};
    return names[kind];
}

const char *latency_kind_title(enum latency_kind kind)
{
    static const char *const titles[LATENCY_KIND_COUNT] = {"time to first token",
                                                           "time between tokens", "end to end"};
    return titles[kind];
}

// A decimal number at the start of text that is finite and not negative; *end is behind it.
static bool read_number(const char *text, double *value, const char **end)
{
    char behind = text[strspn(text, "0123456789.")];
    if (!isdigit((unsigned char)text[0]) || behind == 'x' || behind == 'X')
        return false; // strtod would read hexadecimal
    char *stop = NULL;
    *value = strtod(text, &stop);
    *end = stop;
    return stop != text && isfinite(*value);
}

static sora_status parse_duration(const char *text, int64_t *us, struct sora_error *err)
{
    static const struct {
        const char *unit;
        double us;
    } units[] = {{"us", 1}, {"ms", 1e3}, {"s", 1e6}, {"min", 60e6}};
    double value;
    const char *unit = text;
    if (read_number(text, &value, &unit))
        for (size_t i = 0; i < sizeof units / sizeof units[0]; ++i) {
            if (strcmp(unit, units[i].unit) != 0)
                continue;
            double total = value * units[i].us;
            if (total < 1 || total > LIMIT_MAX_US)
                return sora_fail(err, SORA_MALFORMED, "SLO: %s is not within 1us and 10min", text);
            *us = llround(total);
            return SORA_OK;
        }
    return sora_fail(err, SORA_MALFORMED,
                     "SLO: \"%s\" is not a duration such as 500ms (units us, ms, s, min)", text);
}

static sora_status parse_errors(const char *text, double *share, struct sora_error *err)
{
    double value;
    const char *end = text;
    if (!read_number(text, &value, &end) || strcmp(end, "%") != 0 || value > 100)
        return sora_fail(err, SORA_MALFORMED, "SLO: errors=%s must be a share from 0%% to 100%%",
                         text);
    *share = value / 100;
    return SORA_OK;
}

static bool parse_figure(const char *text, struct slo_term *term)
{
    const char *end = text;
    double percent;
    if (strcmp(text, "mean") == 0)
        term->figure = SLO_MEAN;
    else if (strcmp(text, "max") == 0)
        term->figure = SLO_MAX;
    else if (text[0] == 'p' && read_number(text + 1, &percent, &end) && *end == 0 && percent > 0 &&
             percent < 100) {
        term->figure = SLO_QUANTILE;
        term->quantile = percent / 100;
    } else
        return false;
    return true;
}

// The left side of a term, "ttft_p95".
static sora_status parse_name(const char *name, struct slo_term *term, struct sora_error *err)
{
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind) {
        const char *prefix = latency_kind_name((enum latency_kind)kind);
        size_t bytes = strlen(prefix);
        if (strncmp(name, prefix, bytes) != 0 || name[bytes] != '_')
            continue;
        term->kind = (enum latency_kind)kind;
        if (parse_figure(name + bytes + 1, term))
            return SORA_OK;
    }
    return sora_fail(err, SORA_MALFORMED,
                     "SLO: \"%s\" is none of ttft, itl, e2e with _p50 (any percentile), _mean or "
                     "_max, nor errors",
                     name);
}

static sora_status add_term(struct slo *slo, const struct slo_term *term, const char *name,
                            struct sora_error *err)
{
    for (int32_t i = 0; i < slo->term_count; ++i) {
        const struct slo_term *other = &slo->terms[i];
        if (other->kind == term->kind && other->figure == term->figure &&
            other->quantile == term->quantile)
            return sora_fail(err, SORA_MALFORMED, "SLO: %s is given twice", name);
    }
    if (slo->term_count == SORA_LOADTEST_SLO_TERMS_MAX)
        return sora_fail(err, SORA_LIMIT, "SLO: more than %d terms", SORA_LOADTEST_SLO_TERMS_MAX);
    slo->terms[slo->term_count++] = *term;
    return SORA_OK;
}

static sora_status parse_term(char *text, struct slo *slo, bool *has_errors, struct sora_error *err)
{
    char *equals = strchr(text, '=');
    if (equals == NULL)
        return sora_fail(err, SORA_MALFORMED, "SLO: \"%s\" is not of the form ttft_p95=500ms",
                         text);
    *equals = 0;
    if (strcmp(text, "errors") == 0) {
        if (*has_errors)
            return sora_fail(err, SORA_MALFORMED, "SLO: errors is given twice");
        *has_errors = true;
        return parse_errors(equals + 1, &slo->errors_max, err);
    }
    struct slo_term term = {0};
    sora_status status = parse_name(text, &term, err);
    if (status == SORA_OK)
        status = parse_duration(equals + 1, &term.limit_us, err);
    return status == SORA_OK ? add_term(slo, &term, text, err) : status;
}

sora_status slo_parse(const char *text, struct slo *slo, struct sora_error *err)
{
    struct slo parsed = {.errors_max = ERRORS_DEFAULT};
    bool has_errors = false;
    for (const char *start = text;; ++start) {
        char term[TERM_BYTES_MAX];
        size_t bytes = strcspn(start, ",");
        if (bytes >= sizeof term)
            return sora_fail(err, SORA_MALFORMED, "SLO: \"%.80s\" is no term: over %d bytes", start,
                             TERM_BYTES_MAX - 1);
        memcpy(term, start, bytes);
        term[bytes] = 0;
        sora_status status = parse_term(term, &parsed, &has_errors, err);
        if (status != SORA_OK)
            return status;
        start += bytes;
        if (*start == 0)
            break;
    }
    if (parsed.term_count == 0)
        return sora_fail(err, SORA_MALFORMED,
                         "SLO: at least one latency is needed, such as "
                         "ttft_p95=500ms");
    *slo = parsed;
    return SORA_OK;
}

void slo_term_name(const struct slo_term *term, char out[SLO_TERM_NAME_BYTES])
{
    const char *kind = latency_kind_name(term->kind);
    if (term->figure == SLO_QUANTILE)
        snprintf(out, SLO_TERM_NAME_BYTES, "%s_p%.10g", kind, term->quantile * 100);
    else
        snprintf(out, SLO_TERM_NAME_BYTES, "%s_%s", kind,
                 term->figure == SLO_MEAN ? "mean" : "max");
}

void slo_text(const struct slo *slo, char out[SLO_TEXT_BYTES])
{
    size_t used = 0;
    out[0] = 0;
    for (int32_t i = 0; i < slo->term_count && used < SLO_TEXT_BYTES; ++i) {
        char name[SLO_TERM_NAME_BYTES];
        int64_t us = slo->terms[i].limit_us;
        slo_term_name(&slo->terms[i], name);
        bool whole_ms = us % 1000 == 0;
        used += (size_t)snprintf(out + used, SLO_TEXT_BYTES - used, "%s=%lld%s,", name,
                                 (long long)(whole_ms ? us / 1000 : us), whole_ms ? "ms" : "us");
    }
    if (used < SLO_TEXT_BYTES)
        snprintf(out + used, SLO_TEXT_BYTES - used, "errors=%.10g%%", slo->errors_max * 100);
}
