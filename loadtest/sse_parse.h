// SPDX-License-Identifier: Apache-2.0
// Server-sent events (the WHATWG's algorithm): bytes in pieces of any size go in, the data of each
// event comes out. Lines end with \n, \r\n or \r; comments, `event`, `id`, `retry` and unknown
// fields are skipped; an event that the stream's end cuts off is not delivered. Untrusted input,
// bounded memory; pure, one owner.
#ifndef LOADTEST_SSE_PARSE_H
#define LOADTEST_SSE_PARSE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "sora/status.h"

struct sse_parse {
    struct buf line, data;
    bool after_cr; // a \n that follows belongs to the line before
    bool has_data; // the event has a data line, maybe an empty one
    bool started;  // past a byte order mark
};

// The data of one event (its lines joined by \n), zero-terminated. False ends the parsing.
typedef bool (*sse_event_fn)(void *context, const char *data, size_t bytes);

void sse_parse_init(struct sse_parse *parse);
void sse_parse_deinit(struct sse_parse *parse);
void sse_parse_clear(struct sse_parse *parse); // for the next stream; keeps the memory
// SORA_LIMIT: a line or an event over SORA_LOADTEST_EVENT_BYTES_MAX. SORA_CANCELLED: on_event
// returned false.
SORA_CHECKED sora_status sse_parse_feed(struct sse_parse *parse, const char *bytes, size_t count,
                                        sse_event_fn on_event, void *context,
                                        struct sora_error *err);
// Something of an event is there that no empty line ended.
bool sse_parse_is_inside(const struct sse_parse *parse);

#endif
