// SPDX-License-Identifier: Apache-2.0
// See sse.h.
#include "server/sse.h"

void sse_begin(struct buf *out)
{
    buf_text(out, "data: ");
}

void sse_end(struct buf *out)
{
    buf_text(out, "\n\n");
}

void sse_comment(struct buf *out, const char *text)
{
    buf_printf(out, ": %s\n\n", text);
}

void sse_done(struct buf *out)
{
    sse_begin(out);
    buf_text(out, "[DONE]");
    sse_end(out);
}
