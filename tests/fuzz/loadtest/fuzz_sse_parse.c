// SPDX-License-Identifier: Apache-2.0
// A stream as a hostile server would send it: the events must not depend on how the bytes were cut,
// and reading each as a reply must not crash. The first byte says where to cut. One thread.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "loadtest/client_reply.h"
#include "loadtest/sse_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    struct buf events, text;
};

static bool note_event(void *context, const char *data, size_t bytes)
{
    struct seen *seen = context;
    struct reply reply;
    buf_append(&seen->events, data, bytes);
    buf_append(&seen->events, "\x01", 1);
    sora_status status = reply_read_event(data, bytes, &reply, &seen->text, NULL);
    ASSERT(status != SORA_OK || reply.output_tokens >= -1);
    return true;
}

static void parse(const char *bytes, size_t count, size_t cut, struct seen *seen)
{
    struct sse_parse parser;
    sse_parse_init(&parser);
    buf_init(&seen->events, 1 << 24);
    buf_init(&seen->text, 1 << 24);
    for (size_t at = 0; at < count; at += cut) {
        size_t piece = count - at < cut ? count - at : cut;
        if (sse_parse_feed(&parser, bytes + at, piece, note_event, seen, NULL) != SORA_OK)
            break;
    }
    sse_parse_deinit(&parser);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen whole, cut;
    char text[64];
    if (size < 2)
        return 0;
    parse((const char *)data + 1, size - 1, size, &whole);
    parse((const char *)data + 1, size - 1, 1 + data[0] % 64u, &cut);
    ASSERT(whole.events.bytes == cut.events.bytes);
    ASSERT(whole.events.bytes == 0 ||
           memcmp(whole.events.data, cut.events.data, cut.events.bytes) == 0);
    reply_error_text((const char *)data, size, text, sizeof text);
    ASSERT(strlen(text) < sizeof text);
    buf_deinit(&whole.events);
    buf_deinit(&whole.text);
    buf_deinit(&cut.events);
    buf_deinit(&cut.text);
    return 0;
}
