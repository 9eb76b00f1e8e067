// SPDX-License-Identifier: Apache-2.0
// The one reader of untrusted binary bytes: little-endian, bounds-checked, with a sticky error
// that knows the byte where it happened. Reads after an error give zeros.
#ifndef BASE_CURSOR_H
#define BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/status.h"

struct cursor {
    const uint8_t *data;
    size_t bytes, pos;
    bool failed;
    size_t failed_at;
};

void cursor_init(struct cursor *cursor, const void *data, size_t bytes);
uint8_t cursor_u8(struct cursor *cursor);
uint16_t cursor_u16(struct cursor *cursor);
uint32_t cursor_u32(struct cursor *cursor);
uint64_t cursor_u64(struct cursor *cursor);
float cursor_f32(struct cursor *cursor);
double cursor_f64(struct cursor *cursor);
// A view of the next bytes, or NULL (and failed) when they are not there.
const void *cursor_bytes(struct cursor *cursor, size_t bytes);
void cursor_align(struct cursor *cursor, size_t alignment); // skips to a multiple
size_t cursor_left(const struct cursor *cursor);
// SORA_MALFORMED "what: truncated at byte N of M" when failed.
SORA_CHECKED sora_status cursor_status(const struct cursor *cursor, const char *what,
                                       struct sora_error *err);

#endif
