// SPDX-License-Identifier: Apache-2.0
// Decodes with base/utf8 and keeps the start of a code point for the next call. No allocation; a
// stream has one owner.
#include "text/utf8_stream.h"

#include <stdbool.h>
#include <string.h>

#include "base/assert.h"
#include "base/utf8.h"

static size_t put_replacement(char *out)
{
    memcpy(out, "\xef\xbf\xbd", 3);
    return 3;
}

// Broken bytes that end with the text may be the start of a code point: all of them fit its table
// and the lead byte asks for more.
static bool is_start(const char *bytes, size_t length, size_t count)
{
    unsigned char lead = (unsigned char)bytes[0];
    size_t wanted = 0;
    if (lead >= 0xc2 && lead <= 0xf4)
        wanted = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    return length == count && length < wanted;
}

// Decodes bytes to out; stops before the start of a code point at the end. Returns the bytes read.
static size_t decode(const char *bytes, size_t count, char *out, size_t *out_bytes)
{
    size_t pos = 0;
    while (pos < count) {
        uint32_t code;
        size_t length = utf8_next(bytes + pos, count - pos, &code);
        if (code != UTF8_BROKEN) {
            memcpy(out + *out_bytes, bytes + pos, length);
            *out_bytes += length;
        } else if (is_start(bytes + pos, length, count - pos)) {
            break;
        } else {
            *out_bytes += put_replacement(out + *out_bytes);
        }
        pos += length;
    }
    return pos;
}

size_t utf8_stream_push(struct utf8_stream *stream, const char *bytes, size_t count, char *out)
{
    size_t pos = 0, out_bytes = 0;
    // Completes the kept start one byte at a time; at most three steps.
    while (stream->kept_bytes > 0 && pos < count) {
        ASSERT(stream->kept_bytes < sizeof stream->kept);
        stream->kept[stream->kept_bytes++] = bytes[pos++];
        size_t done = decode(stream->kept, stream->kept_bytes, out, &out_bytes);
        memmove(stream->kept, stream->kept + done, stream->kept_bytes - done);
        stream->kept_bytes -= done;
    }
    if (pos == count)
        return out_bytes;
    pos += decode(bytes + pos, count - pos, out, &out_bytes);
    ASSERT(count - pos < sizeof stream->kept);
    memcpy(stream->kept, bytes + pos, count - pos);
    stream->kept_bytes = count - pos;
    return out_bytes;
}

size_t utf8_stream_finish(struct utf8_stream *stream, char *out)
{
    size_t bytes = stream->kept_bytes > 0 ? put_replacement(out) : 0;
    stream->kept_bytes = 0;
    return bytes;
}
