// SPDX-License-Identifier: Apache-2.0
// UTF-8 in pieces: gives out whole code points of bytes that arrive a few at a time, and replaces
// broken ones by U+FFFD, one for each maximal broken part (as Unicode recommends, and as Python
// and Rust do). A stream belongs to one owner.
#ifndef TEXT_UTF8_STREAM_H
#define TEXT_UTF8_STREAM_H

#include <stddef.h>

struct utf8_stream {
    char kept[4]; // the start of a code point
    size_t kept_bytes;
};

// Room that push needs for `count` new bytes: every byte may become U+FFFD.
#define UTF8_STREAM_ROOM(count) (3 * ((count) + 4))

// Writes what became final to out [UTF8_STREAM_ROOM(count)]; returns its bytes. A zeroed stream
// is ready for use.
size_t utf8_stream_push(struct utf8_stream *stream, const char *bytes, size_t count, char *out);
// Ends the stream: a kept start becomes U+FFFD (out [3]). The stream is empty afterwards.
size_t utf8_stream_finish(struct utf8_stream *stream, char *out);

#endif
