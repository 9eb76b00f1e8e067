// SPDX-License-Identifier: Apache-2.0
// See sse_parse.h.
#include "loadtest/sse_parse.h"

#include <string.h>

#include "sora/limits.h"

#define BYTE_ORDER_MARK "\xEF\xBB\xBF"

void sse_parse_init(struct sse_parse *parse)
{
    *parse = (struct sse_parse){.started = false};
    buf_init(&parse->line, SORA_LOADTEST_EVENT_BYTES_MAX);
    buf_init(&parse->data, SORA_LOADTEST_EVENT_BYTES_MAX);
}

void sse_parse_deinit(struct sse_parse *parse)
{
    buf_deinit(&parse->line);
    buf_deinit(&parse->data);
}

void sse_parse_clear(struct sse_parse *parse)
{
    buf_clear(&parse->line);
    buf_clear(&parse->data);
    parse->after_cr = parse->has_data = parse->started = false;
}

static sora_status dispatch(struct sse_parse *parse, sse_event_fn on_event, void *context,
                            struct sora_error *err)
{
    if (!parse->has_data)
        return SORA_OK;
    buf_append(&parse->data, "", 0); // an empty event too has its terminating zero
    bool more =
        on_event(context, parse->data.data != NULL ? parse->data.data : "", parse->data.bytes);
    buf_clear(&parse->data);
    parse->has_data = false;
    return more ? SORA_OK : sora_fail(err, SORA_CANCELLED, "the event was refused");
}

static sora_status end_line(struct sse_parse *parse, sse_event_fn on_event, void *context,
                            struct sora_error *err)
{
    const char *line = parse->line.data;
    size_t bytes = parse->line.bytes;
    if (!parse->started && bytes >= 3 && memcmp(line, BYTE_ORDER_MARK, 3) == 0) {
        line += 3;
        bytes -= 3;
    }
    parse->started = true;
    if (bytes == 0) {
        buf_clear(&parse->line);
        return dispatch(parse, on_event, context, err);
    }
    if (bytes >= 4 && memcmp(line, "data", 4) == 0 && (bytes == 4 || line[4] == ':')) {
        size_t at = bytes > 4 ? 5 : 4;
        if (at < bytes && line[at] == ' ')
            at++;
        if (parse->has_data)
            buf_append(&parse->data, "\n", 1);
        buf_append(&parse->data, line + at, bytes - at);
        parse->has_data = true;
    }
    buf_clear(&parse->line);
    sora_status status = buf_status(&parse->data, err);
    return status == SORA_OK ? status : sora_fail_within(err, status, "event");
}

sora_status sse_parse_feed(struct sse_parse *parse, const char *bytes, size_t count,
                           sse_event_fn on_event, void *context, struct sora_error *err)
{
    size_t at = 0;
    while (at < count) {
        if (parse->after_cr && bytes[at] == '\n') {
            parse->after_cr = false;
            at++;
            continue;
        }
        parse->after_cr = false;
        size_t end = at;
        while (end < count && bytes[end] != '\n' && bytes[end] != '\r')
            end++;
        buf_append(&parse->line, bytes + at, end - at);
        sora_status status = buf_status(&parse->line, err);
        if (status != SORA_OK)
            return sora_fail_within(err, status, "line of the stream");
        if (end == count)
            break;
        parse->after_cr = bytes[end] == '\r';
        status = end_line(parse, on_event, context, err);
        if (status != SORA_OK)
            return status;
        at = end + 1;
    }
    return SORA_OK;
}

bool sse_parse_is_inside(const struct sse_parse *parse)
{
    return parse->has_data || parse->line.bytes > 0;
}
