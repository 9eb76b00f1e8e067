// SPDX-License-Identifier: Apache-2.0
// Server-sent events, as far as OpenAI's streams use them: one "data:" line per event, comments to
// keep a silent connection open. Pure; the data must have no newline, which JSON never does.
#ifndef SERVER_SSE_H
#define SERVER_SSE_H

#include "base/buf.h"

// An event's data goes between the two.
void sse_begin(struct buf *out);
void sse_end(struct buf *out);
void sse_comment(struct buf *out, const char *text);
// OpenAI's mark of the end.
void sse_done(struct buf *out);

#endif
