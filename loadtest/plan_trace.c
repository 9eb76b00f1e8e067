// SPDX-License-Identifier: Apache-2.0
// See plan_trace.h.
#include "loadtest/plan_trace.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "sora/limits.h"

#define TRACE_MS_MAX 604800e3 // a week

// Cuts the next field off *rest; NULL when there is none.
static char *take_field(char **rest)
{
    return strsep(rest, ",");
}

static bool take_tokens(char **rest, int32_t *out)
{
    char *field = take_field(rest), *end = NULL;
    if (field == NULL || *field == '\0')
        return false;
    errno = 0;
    long value = strtol(field, &end, 10);
    while (*end == ' ')
        end++;
    if (*end != '\0' || errno != 0 || value < 1 || value > SORA_CONTEXT_MAX)
        return false;
    *out = (int32_t)value;
    return true;
}

static bool take_time(char **rest, int64_t *at_us)
{
    char *field = take_field(rest), *end = NULL;
    if (field == NULL || *field == '\0')
        return false;
    double ms = strtod(field, &end);
    while (*end == ' ')
        end++;
    if (*end != '\0' || !(ms >= 0 && ms <= TRACE_MS_MAX))
        return false;
    *at_us = (int64_t)llround(ms * 1000);
    return true;
}

static const char *trimmed(char *text)
{
    while (*text == ' ')
        text++;
    size_t bytes = strlen(text);
    while (bytes > 0 && text[bytes - 1] == ' ')
        text[--bytes] = '\0';
    return text;
}

static sora_status parse_line(char *text, int32_t number, struct trace_line *line,
                              struct sora_error *err)
{
    char *rest = text;
    bool good = take_time(&rest, &line->at_us);
    char *adapter = good ? take_field(&rest) : NULL;
    good = adapter != NULL && strlen(adapter) <= SORA_ADAPTER_NAME_BYTES_MAX &&
           take_tokens(&rest, &line->prompt_tokens) && take_tokens(&rest, &line->output_tokens) &&
           rest == NULL;
    if (!good)
        return sora_fail(err, SORA_MALFORMED,
                         "trace, line %d: expected t_ms,adapter,prompt_tokens,output_tokens",
                         (int)number);
    line->adapter = trimmed(adapter);
    return SORA_OK;
}

static int compare_lines(const void *left, const void *right)
{
    const struct trace_line *a = left, *b = right;
    if (a->at_us != b->at_us)
        return a->at_us < b->at_us ? -1 : 1;
    return (a->adapter > b->adapter) - (a->adapter < b->adapter); // their order in the file
}

static sora_status add_line(struct trace *trace, int32_t *capacity, char *text, int32_t number,
                            struct sora_error *err)
{
    if (trace->count == SORA_LOADTEST_REQUESTS_MAX)
        return sora_fail(err, SORA_LIMIT, "trace, line %d: more than %d requests", (int)number,
                         SORA_LOADTEST_REQUESTS_MAX);
    if (trace->count == *capacity) {
        *capacity = *capacity > 0 ? *capacity * 2 : 1024;
        struct trace_line *grown =
            reallocarray(trace->lines, (size_t)*capacity, sizeof *trace->lines);
        if (grown == NULL)
            return sora_fail(err, SORA_NO_MEMORY, "no memory for a trace");
        trace->lines = grown;
    }
    sora_status status = parse_line(text, number, &trace->lines[trace->count], err);
    if (status == SORA_OK)
        trace->count++;
    return status;
}

sora_status trace_parse(const char *text, size_t bytes, struct trace *trace, struct sora_error *err)
{
    int32_t capacity = 0, number = 0;
    sora_status status = SORA_OK;
    *trace = (struct trace){.text = calloc(bytes + 1, 1)};
    if (trace->text == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a trace");
    memcpy(trace->text, text, bytes);
    if (strlen(trace->text) != bytes)
        status = sora_fail(err, SORA_MALFORMED, "trace: a zero byte");
    char *rest = trace->text, *line;
    while (status == SORA_OK && (line = strsep(&rest, "\n")) != NULL) {
        number++;
        size_t length = strlen(line);
        if (length > 0 && line[length - 1] == '\r')
            line[length - 1] = '\0';
        if (*line == '\0' || *line == '#' || (number == 1 && isalpha((unsigned char)*line)))
            continue;
        status = add_line(trace, &capacity, line, number, err);
    }
    if (status == SORA_OK && trace->count == 0)
        status = sora_fail(err, SORA_MALFORMED, "trace: no line");
    if (status != SORA_OK) {
        trace_deinit(trace);
        return status;
    }
    qsort(trace->lines, (size_t)trace->count, sizeof *trace->lines, compare_lines);
    return SORA_OK;
}

void trace_deinit(struct trace *trace)
{
    free(trace->text);
    free(trace->lines);
    *trace = (struct trace){0};
}
