// SPDX-License-Identifier: Apache-2.0
// The growing byte buffer. One owner at a time.
#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/assert.h"
#include "base/utf8.h"

#define CAPACITY_FIRST 256u

// What an empty buffer shows; capacity 0 says that it is not heap memory. Never written.
static char empty_text[1];

void buf_init(struct buf *buf, size_t bytes_max)
{
    *buf = (struct buf){.data = empty_text, .bytes_max = bytes_max, .status = SORA_OK};
}

void buf_deinit(struct buf *buf)
{
    if (buf->capacity > 0)
        free(buf->data);
    buf_init(buf, buf->bytes_max);
}

void buf_clear(struct buf *buf)
{
    buf->bytes = 0;
    buf->status = SORA_OK;
    if (buf->capacity > 0)
        buf->data[0] = 0;
}

// Makes room for `more` bytes and the final zero; false and a sticky status otherwise.
static bool reserve(struct buf *buf, size_t more)
{
    if (buf->status != SORA_OK)
        return false;
    if (more > buf->bytes_max || buf->bytes > buf->bytes_max - more) {
        buf->status = SORA_LIMIT;
        return false;
    }
    size_t need = buf->bytes + more;
    if (need < buf->capacity)
        return true;
    ASSERT(!alloc_guard_active());
    size_t capacity = buf->capacity > 0 ? buf->capacity : CAPACITY_FIRST;
    while (capacity <= need)
        capacity = capacity > SIZE_MAX / 2 ? SIZE_MAX : capacity * 2;
    char *data = realloc(buf->capacity > 0 ? buf->data : NULL, capacity);
    if (data == NULL) {
        buf->status = SORA_NO_MEMORY;
        return false;
    }
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

void buf_append(struct buf *buf, const void *data, size_t bytes)
{
    if (bytes == 0 || !reserve(buf, bytes))
        return;
    memcpy(buf->data + buf->bytes, data, bytes);
    buf->bytes += bytes;
    buf->data[buf->bytes] = 0;
}

void buf_text(struct buf *buf, const char *text)
{
    buf_append(buf, text, strlen(text));
}

void buf_vprintf(struct buf *buf, const char *format, va_list args)
{
    if (!reserve(buf, 0))
        return;
    va_list again;
    va_copy(again, args);
    size_t room = buf->capacity - buf->bytes;
    int length = vsnprintf(buf->data + buf->bytes, room, format, args);
    if (length < 0) {
        buf->status = SORA_INTERNAL;
    } else if ((size_t)length >= room || buf->bytes + (size_t)length > buf->bytes_max) {
        if (reserve(buf, (size_t)length))
            vsnprintf(buf->data + buf->bytes, (size_t)length + 1, format, again);
    }
    va_end(again);
    if (buf->status == SORA_OK)
        buf->bytes += (size_t)length;
    buf->data[buf->bytes] = 0;
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    buf_vprintf(buf, format, args);
    va_end(args);
}

// The escape of one ASCII character inside a JSON string, or NULL when it stands for itself.
static const char *json_escape(unsigned char c, char out[8])
{
    switch (c) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    case '\b':
        return "\\b";
    case '\f':
        return "\\f";
    default:
        break;
    }
    if (c >= 0x20 && c != 0x7F)
        return NULL;
    snprintf(out, 8, "\\u%04x", c);
    return out;
}

void buf_json_string(struct buf *buf, const char *text, size_t bytes)
{
    buf_append(buf, "\"", 1);
    size_t plain = 0; // start of what is copied as it stands
    for (size_t i = 0; i < bytes;) {
        uint32_t code;
        char escape[8];
        const char *instead = NULL;
        size_t length = utf8_next(text + i, bytes - i, &code);
        if (code == UTF8_BROKEN)
            instead = "\xEF\xBF\xBD";
        else if (code < 0x80)
            instead = json_escape((unsigned char)code, escape);
        if (instead != NULL) {
            buf_append(buf, text + plain, i - plain);
            buf_text(buf, instead);
            plain = i + length;
        }
        i += length;
    }
    buf_append(buf, text + plain, bytes - plain);
    buf_append(buf, "\"", 1);
}

sora_status buf_status(const struct buf *buf, struct sora_error *err)
{
    switch (buf->status) {
    case SORA_OK:
        return SORA_OK;
    case SORA_LIMIT:
        return sora_fail(err, SORA_LIMIT, "buffer exceeds its bound of %zu bytes", buf->bytes_max);
    case SORA_NO_MEMORY:
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a buffer beyond %zu bytes",
                         buf->bytes);
    default:
        return sora_fail(err, buf->status, "text could not be formatted");
    }
}

char *buf_take(struct buf *buf, size_t *bytes)
{
    char *data = NULL;
    size_t count = 0;
    if (buf->status == SORA_OK) {
        data = buf->capacity > 0 ? buf->data : calloc(1, 1);
        count = buf->bytes;
    } else if (buf->capacity > 0) {
        free(buf->data);
    }
    if (bytes != NULL)
        *bytes = data != NULL ? count : 0;
    buf_init(buf, buf->bytes_max);
    return data;
}
