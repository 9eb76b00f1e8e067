// SPDX-License-Identifier: Apache-2.0
// What a reply says: one event of a stream, or a whole body. Untrusted input; pure.
#ifndef LOADTEST_CLIENT_REPLY_H
#define LOADTEST_CLIENT_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "sora/status.h"

struct reply {
    bool done;             // "[DONE]"
    bool finished;         // a finish_reason
    bool has_token;        // text, or a part of a tool call
    int32_t prompt_tokens; // of `usage`, -1: not told
    int32_t output_tokens; // of `usage`, -1: not told
    size_t text_bytes;     // what was appended to `text`
};

// The data of one event. Appends the text of the first choice to `text` (may be NULL). SORA_IO:
// the event is an error object, with its message; SORA_MALFORMED: not what the API says.
SORA_CHECKED sora_status reply_read_event(const char *data, size_t bytes, struct reply *reply,
                                          struct buf *text, struct sora_error *err);
// A whole body of a reply that is not streamed; it must have a choice with text.
SORA_CHECKED sora_status reply_read_body(const char *data, size_t bytes, struct reply *reply,
                                         struct buf *text, struct sora_error *err);
// The message of an error body in any of the usual shapes, or its first bytes; one line, cut.
void reply_error_text(const char *data, size_t bytes, char *out, size_t out_bytes);

#endif
