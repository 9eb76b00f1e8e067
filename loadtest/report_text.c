// SPDX-License-Identifier: Apache-2.0
// Figures for people. Pure; any thread.
#include "loadtest/report_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

const char *report_duration(char out[REPORT_FIGURE_BYTES], double us)
{
    const char *unit = us < 999.5 ? "us" : us < 999.5e3 ? "ms" : "s";
    double value = us < 999.5 ? us : us < 999.5e3 ? us / 1e3 : us / 1e6;
    int digits = us < 999.5 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
    if (us < 0)
        snprintf(out, REPORT_FIGURE_BYTES, "-");
    else
        snprintf(out, REPORT_FIGURE_BYTES, "%.*f %s", digits, value, unit);
    return out;
}

const char *report_duration_tick(char out[REPORT_FIGURE_BYTES], double us)
{
    if (us <= 0)
        snprintf(out, REPORT_FIGURE_BYTES, "0");
    else if (us < 999.5)
        snprintf(out, REPORT_FIGURE_BYTES, "%.3g us", us);
    else if (us < 999.5e3)
        snprintf(out, REPORT_FIGURE_BYTES, "%.3g ms", us / 1e3);
    else
        snprintf(out, REPORT_FIGURE_BYTES, "%.3g s", us / 1e6);
    return out;
}

const char *report_count(char out[REPORT_FIGURE_BYTES], int64_t count)
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)count);
    int used = 0;
    for (int i = 0; i < length; ++i) {
        if (i > 0 && digits[i - 1] != '-' && (length - i) % 3 == 0)
            out[used++] = ',';
        out[used++] = digits[i];
    }
    out[used] = 0;
    return out;
}

const char *report_rate(char out[REPORT_FIGURE_BYTES], double per_s)
{
    if (per_s < 0)
        snprintf(out, REPORT_FIGURE_BYTES, "-");
    else if (per_s >= 999.5)
        return report_count(out, llround(fmin(per_s, 1e15)));
    else
        snprintf(out, REPORT_FIGURE_BYTES, "%.*f",
                 per_s >= 99.95   ? 0
                 : per_s >= 9.995 ? 1
                                  : 2,
                 per_s);
    return out;
}

const char *report_rate_tick(char out[REPORT_FIGURE_BYTES], double value)
{
    if (value >= 999.5)
        return report_count(out, llround(fmin(value, 1e15)));
    snprintf(out, REPORT_FIGURE_BYTES, "%.3g", value);
    return out;
}

const char *report_share(char out[REPORT_FIGURE_BYTES], double share)
{
    double percent = fmin(share * 100, 1e9);
    if (share < 0)
        snprintf(out, REPORT_FIGURE_BYTES, "-");
    else
        snprintf(out, REPORT_FIGURE_BYTES, "%.*f %%",
                 percent >= 99.995 || percent == 0 ? 0
                 : percent >= 9.995                ? 1
                                                   : 2,
                 percent);
    return out;
}

static void escape_one(struct buf *out, uint32_t code, const char *bytes, size_t count)
{
    if (code == '&')
        buf_text(out, "&amp;");
    else if (code == '<')
        buf_text(out, "&lt;");
    else if (code == '>')
        buf_text(out, "&gt;");
    else if (code == '"')
        buf_text(out, "&quot;");
    else if (code == '\'')
        buf_text(out, "&#39;");
    else
        buf_append(out, bytes, count);
}

void report_escape(struct buf *out, const char *text)
{
    size_t left = strlen(text);
    while (left > 0) {
        uint32_t code;
        size_t count = utf8_next(text, left, &code);
        // Direction overrides would rearrange what stands beside a foreign name.
        bool override = (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
        if (code == UTF8_BROKEN || code < 0x20 || (code >= 0x7F && code < 0xA0) || override)
            buf_text(out, "\xEF\xBF\xBD");
        else
            escape_one(out, code, text, count);
        text += count;
        left -= count;
    }
}

struct order {
    int64_t requests;
    int32_t index;
};

static int compare_order(const void *a, const void *b)
{
    const struct order *left = a, *right = b;
    if (left->requests != right->requests)
        return left->requests < right->requests ? 1 : -1;
    return left->index < right->index ? -1 : left->index > right->index;
}

int32_t *report_order(const struct stats *stats, int32_t *count)
{
    int32_t all = stats_adapter_count(stats), used = 0;
    struct order *order = calloc((size_t)all, sizeof *order);
    int32_t *indices = calloc((size_t)all, sizeof *indices);
    if (order == NULL || indices == NULL) {
        free(order);
        free(indices);
        return NULL;
    }
    for (int32_t i = 0; i < all; ++i) {
        int64_t requests = stats_adapter_requests(stats, i);
        if (requests > 0)
            order[used++] = (struct order){.requests = requests, .index = i};
    }
    qsort(order, (size_t)used, sizeof *order, compare_order);
    for (int32_t i = 0; i < used; ++i)
        indices[i] = order[i].index;
    free(order);
    *count = used;
    return indices;
}
