// SPDX-License-Identifier: Apache-2.0
// A growing byte buffer, born with a maximum. Errors are sticky: append freely, check once with
// buf_status. Always zero-terminated after data (the zero is not counted).
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/status.h"

struct buf {
    char *data;
    size_t bytes, capacity, bytes_max;
    sora_status status;
};

void buf_init(struct buf *buf, size_t bytes_max);
void buf_deinit(struct buf *buf);
void buf_clear(struct buf *buf); // keeps the memory, clears the status
void buf_append(struct buf *buf, const void *data, size_t bytes);
void buf_text(struct buf *buf, const char *text);
void buf_printf(struct buf *buf, const char *format, ...) SORA_PRINTF(2, 3);
void buf_vprintf(struct buf *buf, const char *format, va_list args);
// Text as the inside of a JSON string with its quotes; broken UTF-8 becomes U+FFFD.
void buf_json_string(struct buf *buf, const char *text, size_t bytes);
SORA_CHECKED sora_status buf_status(const struct buf *buf, struct sora_error *err);
// The memory, zero-terminated, now the caller's; the buffer is empty afterwards. NULL when the
// status is not OK (or, for an empty buffer, memory has run out).
char *buf_take(struct buf *buf, size_t *bytes);

#endif
