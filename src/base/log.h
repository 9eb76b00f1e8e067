// SPDX-License-Identifier: Apache-2.0
// One log line per record, logfmt: t_us=... level=info module=sched event=admit key=value.
// The sink is set by main (stderr by default); any thread may log. Foreign strings go through
// LOG_QUOTE_BYTES buffers with log_quote. Kernels and pure decoders never log.
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>

#include "sora/status.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_NONE };

void log_set_level(enum log_level level);
// write gets a whole line with its newline; NULL restores stderr.
void log_set_sink(void (*write)(void *context, const char *line, size_t bytes), void *context);

void log_write(enum log_level level, const char *module, const char *event, const char *format, ...)
    SORA_PRINTF(4, 5);
#define log_debug(module, event, ...) log_write(LOG_DEBUG, module, event, __VA_ARGS__)
#define log_info(module, event, ...) log_write(LOG_INFO, module, event, __VA_ARGS__)
#define log_warn(module, event, ...) log_write(LOG_WARN, module, event, __VA_ARGS__)
#define log_error(module, event, ...) log_write(LOG_ERROR, module, event, __VA_ARGS__)

// Quotes and escapes foreign text into out (always terminated, cut with "..." when too long);
// returns out.
#define LOG_QUOTE_BYTES 256
const char *log_quote(char out[LOG_QUOTE_BYTES], const char *text);

#endif
