// SPDX-License-Identifier: Apache-2.0
// See plan_length.h.
#include "loadtest/plan_length.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define LENGTH_TEXT_BYTES 64
#define LOGNORMAL_HIGH_MEDIANS 8.0 // a tail beyond this is one request in thousands

sora_status number_parse(const char *text, double min, double max, double *out,
                         struct sora_error *err)
{
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value))
        return sora_fail(err, SORA_MALFORMED, "\"%.80s\" is not a number", text);
    if (value < min || value > max)
        return sora_fail(err, SORA_LIMIT, "%.80s is outside [%.12g, %.12g]", text, min, max);
    *out = value;
    return SORA_OK;
}

static sora_status whole_parse(const char *text, int32_t min, int32_t max, int32_t *out,
                               struct sora_error *err)
{
    double value = 0;
    sora_status status = number_parse(text, min, max, &value, err);
    if (status == SORA_OK && value != floor(value))
        status = sora_fail(err, SORA_MALFORMED, "\"%.80s\" is not a whole number", text);
    if (status == SORA_OK)
        *out = (int32_t)value;
    return status;
}

// Splits "a:b:c" in place; returns how many parts, at most parts_max + 1.
static int32_t split_parts(char *text, char **parts, int32_t parts_max)
{
    int32_t count = 0;
    char *rest = NULL;
    for (char *part = strtok_r(text, ":", &rest); part != NULL; part = strtok_r(NULL, ":", &rest)) {
        if (count == parts_max)
            return parts_max + 1;
        parts[count++] = part;
    }
    return count;
}

static sora_status parse_lognormal(char **parts, int32_t count, int32_t min, int32_t max,
                                   struct length *out, struct sora_error *err)
{
    out->kind = LENGTH_LOGNORMAL;
    out->low = min;
    sora_status status = number_parse(parts[1], fmax(min, 1e-3), max, &out->median, err);
    if (status == SORA_OK)
        status = number_parse(parts[2], 0, 10, &out->sigma, err);
    if (status != SORA_OK)
        return status;
    out->high = (int32_t)fmin(max, out->median * LOGNORMAL_HIGH_MEDIANS);
    return count == 4 ? whole_parse(parts[3], min, max, &out->high, err) : SORA_OK;
}

static sora_status parse_parts(char **parts, int32_t count, int32_t min, int32_t max,
                               struct length *out, struct sora_error *err)
{
    if (count == 1 || (count == 2 && strcmp(parts[0], "fixed") == 0)) {
        out->kind = LENGTH_FIXED;
        sora_status status = whole_parse(parts[count - 1], min, max, &out->low, err);
        out->high = out->low;
        return status;
    }
    if (count == 3 && strcmp(parts[0], "uniform") == 0) {
        out->kind = LENGTH_UNIFORM;
        sora_status status = whole_parse(parts[1], min, max, &out->low, err);
        return status != SORA_OK ? status : whole_parse(parts[2], out->low, max, &out->high, err);
    }
    if ((count == 3 || count == 4) && strcmp(parts[0], "lognormal") == 0)
        return parse_lognormal(parts, count, min, max, out, err);
    return sora_fail(err, SORA_MALFORMED,
                     "expected N, fixed:N, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA[:MAX]");
}

sora_status length_parse(const char *text, int32_t min, int32_t max, struct length *length,
                         struct sora_error *err)
{
    char copy[LENGTH_TEXT_BYTES];
    char *parts[4];
    struct length found = {0};
    if (strlen(text) >= sizeof copy)
        return sora_fail(err, SORA_LIMIT, "\"%.40s...\" is longer than %d bytes", text,
                         LENGTH_TEXT_BYTES - 1);
    snprintf(copy, sizeof copy, "%s", text);
    int32_t count = split_parts(copy, parts, 4);
    sora_status status = parse_parts(parts, count, min, max, &found, err);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "length \"%s\"", text);
    *length = found;
    return SORA_OK;
}

int32_t length_sample(const struct length *length, struct rng *rng)
{
    double value = length->low;
    if (length->kind == LENGTH_UNIFORM)
        return length->low + (int32_t)rng_below(rng, (uint64_t)(length->high - length->low) + 1);
    if (length->kind == LENGTH_LOGNORMAL)
        value = round(length->median * exp(length->sigma * rng_normal(rng)));
    return (int32_t)fmin(fmax(value, length->low), length->high);
}

void length_print(const struct length *length, struct buf *out)
{
    if (length->kind == LENGTH_FIXED)
        buf_printf(out, "%d", (int)length->low);
    else if (length->kind == LENGTH_UNIFORM)
        buf_printf(out, "uniform:%d:%d", (int)length->low, (int)length->high);
    else
        buf_printf(out, "lognormal:%.12g:%.12g:%d", length->median, length->sigma,
                   (int)length->high);
}

// "5,3,1": one weight after the other, the last for all that follow.
static sora_status parse_given(const char *text, int32_t count, double *weights,
                               struct sora_error *err)
{
    const char *at = text;
    double value = 0, sum = 0;
    int32_t filled = 0;
    while (true) {
        char *end = NULL;
        value = strtod(at, &end);
        if (end == at || !isfinite(value) || value < 0 || (*end != ',' && *end != '\0'))
            return sora_fail(err, SORA_MALFORMED, "\"%.40s\" is not a weight", at);
        sum += value;
        if (weights != NULL && filled < count)
            weights[filled] = value;
        filled++;
        if (*end == '\0')
            break;
        at = end + 1;
    }
    if (!(sum > 0))
        return sora_fail(err, SORA_MALFORMED, "all weights are zero");
    for (int32_t i = filled; weights != NULL && i < count; i++)
        weights[i] = value;
    return SORA_OK;
}

sora_status popularity_parse(const char *text, int32_t count, double *weights,
                             struct sora_error *err)
{
    double exponent = 0;
    sora_status status = SORA_OK;
    if (strncmp(text, "given:", 6) == 0) {
        status = parse_given(text + 6, count, weights, err);
    } else {
        if (strncmp(text, "zipf:", 5) == 0)
            status = number_parse(text + 5, 0, 10, &exponent, err);
        else if (strcmp(text, "uniform") != 0)
            status = sora_fail(err, SORA_MALFORMED, "expected uniform, zipf:S or given:A,B,...");
        for (int32_t i = 0; status == SORA_OK && weights != NULL && i < count; i++)
            weights[i] = pow(i + 1, -exponent);
    }
    return status == SORA_OK ? status : sora_fail_within(err, status, "popularity \"%.80s\"", text);
}

void weights_accumulate(double *weights, int32_t count)
{
    ASSERT(count > 0);
    double sum = 0;
    for (int32_t i = 0; i < count; i++) {
        sum += weights[i];
        weights[i] = sum;
    }
    for (int32_t i = 0; i < count; i++)
        weights[i] = sum > 0 ? weights[i] / sum : (i + 1.0) / count;
    weights[count - 1] = 1;
}

int32_t weights_pick(const double *sums, int32_t count, double u)
{
    int32_t low = 0, high = count - 1;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (sums[middle] > u)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}
