// SPDX-License-Identifier: Apache-2.0
// The checked reader of untrusted bytes. One owner at a time; the bytes are only read.
#include "base/cursor.h"

#include <string.h>

void cursor_init(struct cursor *cursor, const void *data, size_t bytes)
{
    *cursor = (struct cursor){.data = data, .bytes = bytes};
}

static void fail(struct cursor *cursor)
{
    if (!cursor->failed) {
        cursor->failed = true;
        cursor->failed_at = cursor->pos;
    }
}

size_t cursor_left(const struct cursor *cursor)
{
    return cursor->failed ? 0 : cursor->bytes - cursor->pos;
}

const void *cursor_bytes(struct cursor *cursor, size_t bytes)
{
    if (cursor->failed || bytes > cursor->bytes - cursor->pos) {
        fail(cursor);
        return NULL;
    }
    // An empty view of an empty source is not an error: its address is never read.
    const uint8_t *at = cursor->data != NULL ? cursor->data + cursor->pos : (const uint8_t *)"";
    cursor->pos += bytes;
    return at;
}

// The next `bytes` (up to 8) as a little-endian number.
static uint64_t read_number(struct cursor *cursor, size_t bytes)
{
    const uint8_t *at = cursor_bytes(cursor, bytes);
    uint64_t value = 0;
    if (at == NULL)
        return 0;
    for (size_t i = 0; i < bytes; ++i)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

uint8_t cursor_u8(struct cursor *cursor)
{
    return (uint8_t)read_number(cursor, 1);
}

uint16_t cursor_u16(struct cursor *cursor)
{
    return (uint16_t)read_number(cursor, 2);
}

uint32_t cursor_u32(struct cursor *cursor)
{
    return (uint32_t)read_number(cursor, 4);
}

uint64_t cursor_u64(struct cursor *cursor)
{
    return read_number(cursor, 8);
}

float cursor_f32(struct cursor *cursor)
{
    uint32_t bits = cursor_u32(cursor);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

double cursor_f64(struct cursor *cursor)
{
    uint64_t bits = cursor_u64(cursor);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void cursor_align(struct cursor *cursor, size_t alignment)
{
    size_t rest = alignment > 0 ? cursor->pos % alignment : 0;
    if (rest > 0)
        (void)cursor_bytes(cursor, alignment - rest);
}

sora_status cursor_status(const struct cursor *cursor, const char *what, struct sora_error *err)
{
    if (!cursor->failed)
        return SORA_OK;
    return sora_fail(err, SORA_MALFORMED, "%s: truncated at byte %zu of %zu", what,
                     cursor->failed_at, cursor->bytes);
}
