// SPDX-License-Identifier: Apache-2.0
// Error texts (sora/status.h). Allocates nothing; any thread, each on its own struct sora_error.
#include "sora/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/utf8.h"

// Longer than sora_error.text, so that what vsnprintf cuts is cut again by the escaping, which
// does it at a whole character.
#define RAW_BYTES 1024

const char *sora_status_name(sora_status status)
{
    switch (status) {
#define STATUS_CASE(name, text) \
    case SORA_##name:           \
        return text;
        SORA_STATUS_LIST(STATUS_CASE)
#undef STATUS_CASE
    }
    return "unknown";
}

// Formats into raw; returns the length that is there.
static size_t format_raw(char raw[RAW_BYTES], const char *format, va_list args)
{
    int length = vsnprintf(raw, RAW_BYTES, format, args);
    if (length < 0) {
        raw[0] = 0;
        return 0;
    }
    return length < RAW_BYTES ? (size_t)length : RAW_BYTES - 1;
}

sora_status sora_fail(struct sora_error *err, sora_status code, const char *format, ...)
{
    ASSERT(code != SORA_OK);
    if (err == NULL)
        return code;
    char raw[RAW_BYTES];
    va_list args;
    va_start(args, format);
    size_t length = format_raw(raw, format, args);
    va_end(args);
    err->code = code;
    utf8_escape(err->text, sizeof err->text, raw, length, false);
    return code;
}

sora_status sora_fail_within(struct sora_error *err, sora_status code, const char *format, ...)
{
    ASSERT(code != SORA_OK);
    if (err == NULL)
        return code;
    char raw[RAW_BYTES + sizeof err->text + 2];
    va_list args;
    va_start(args, format);
    size_t length = format_raw(raw, format, args);
    va_end(args);
    int added = snprintf(raw + length, sizeof raw - length, ": %s", err->text);
    err->code = code;
    utf8_escape(err->text, sizeof err->text, raw, length + (size_t)added, false);
    return code;
}
