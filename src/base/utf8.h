// SPDX-License-Identifier: Apache-2.0
// One step of UTF-8 decoding, and making foreign text safe to print. Pure; any thread.
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_BROKEN UINT32_MAX

// Decodes one code point of data[0, bytes), bytes > 0. Returns the bytes consumed (1..4). Broken
// input gives *code = UTF8_BROKEN and consumes the longest prefix of a valid sequence (at least
// one byte), so that one U+FFFD per call is what Unicode recommends. No overlong forms, no
// surrogates, nothing beyond U+10FFFF.
size_t utf8_next(const void *data, size_t bytes, uint32_t *code);
bool utf8_valid(const void *data, size_t bytes);
// Writes 1..4 bytes of a valid code point; returns how many.
size_t utf8_encode(uint32_t code, char out[4]);

// Copies text into out, always terminated, cut with "..." at a whole character when it does not
// fit (out_bytes >= 8). Control characters, line separators, direction overrides and broken bytes
// become \n, \t, \r, \xNN or \uNNNN. With `quoted`, quotes and backslashes get a backslash.
// Returns the length written.
size_t utf8_escape(char *out, size_t out_bytes, const char *text, size_t bytes, bool quoted);

#endif
