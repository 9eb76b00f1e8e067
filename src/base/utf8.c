// SPDX-License-Identifier: Apache-2.0
// UTF-8 by the table of well-formed sequences (Unicode 15, table 3-7), and escaping of foreign
// text for logs and errors. Pure functions; any thread.
#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"

// Length of the sequence that `lead` opens and the range of its second byte; 0: no such lead.
static size_t lead_length(uint8_t lead, uint8_t *second_min, uint8_t *second_max)
{
    *second_min = 0x80;
    *second_max = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF)
        return 2;
    if (lead >= 0xE0 && lead <= 0xEF) {
        if (lead == 0xE0)
            *second_min = 0xA0;
        if (lead == 0xED)
            *second_max = 0x9F;
        return 3;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        if (lead == 0xF0)
            *second_min = 0x90;
        if (lead == 0xF4)
            *second_max = 0x8F;
        return 4;
    }
    return 0;
}

size_t utf8_next(const void *data, size_t bytes, uint32_t *code)
{
    const uint8_t *at = data;
    if (at[0] < 0x80) {
        *code = at[0];
        return 1;
    }
    *code = UTF8_BROKEN;
    uint8_t min, max;
    size_t length = lead_length(at[0], &min, &max);
    if (length == 0)
        return 1;
    uint32_t value = at[0] & (0x7Fu >> length);
    for (size_t i = 1; i < length; ++i) {
        if (i >= bytes || at[i] < min || at[i] > max)
            return i;
        value = value << 6 | (at[i] & 0x3Fu);
        min = 0x80;
        max = 0xBF;
    }
    *code = value;
    return length;
}

bool utf8_valid(const void *data, size_t bytes)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < bytes;) {
        uint32_t code;
        i += utf8_next(at + i, bytes - i, &code);
        if (code == UTF8_BROKEN)
            return false;
    }
    return true;
}

size_t utf8_encode(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code >> 6 & 0x3F));
    out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

// Characters that could break a line or reorder what a terminal shows.
static bool is_unsafe(uint32_t code)
{
    return code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x2028 || code == 0x2029 ||
           (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
}

// The escaped form of one character of `length` source bytes; returns its length (up to 16).
static size_t escape_one(char out[17], const char *at, size_t length, uint32_t code, bool quoted)
{
    if (code == UTF8_BROKEN) {
        size_t bytes = 0;
        for (size_t i = 0; i < length; ++i)
            bytes += (size_t)snprintf(out + bytes, 5, "\\x%02X", (unsigned char)at[i]);
        return bytes;
    }
    if (code == '\n' || code == '\t' || code == '\r')
        return (size_t)snprintf(out, 17, "\\%c", code == '\n' ? 'n' : code == '\t' ? 't' : 'r');
    if (is_unsafe(code))
        return (size_t)snprintf(out, 17, code < 0x80 ? "\\x%02X" : "\\u%04X", code);
    if (quoted && (code == '"' || code == '\\'))
        return (size_t)snprintf(out, 17, "\\%c", (char)code);
    memcpy(out, at, length);
    return length;
}

size_t utf8_escape(char *out, size_t out_bytes, const char *text, size_t bytes, bool quoted)
{
    ASSERT(out_bytes >= 8);
    size_t used = 0;
    size_t cut = 0; // the last place where "..." still fits
    for (size_t i = 0; i < bytes;) {
        uint32_t code;
        char piece[17];
        size_t length = utf8_next(text + i, bytes - i, &code);
        size_t piece_bytes = escape_one(piece, text + i, length, code, quoted);
        if (used + piece_bytes >= out_bytes) {
            memcpy(out + cut, "...", 4);
            return cut + 3;
        }
        memcpy(out + used, piece, piece_bytes);
        used += piece_bytes;
        if (used + 3 < out_bytes)
            cut = used;
        i += length;
    }
    out[used] = 0;
    return used;
}
