// SPDX-License-Identifier: Apache-2.0
// Log lines in logfmt. Any thread; a mutex keeps lines whole and in order at the sink.
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/utf8.h"

#define LINE_BYTES 2048 // a sora_error's text (512) escaped, with room for the other fields

static _Atomic int level_min = LOG_INFO;
static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static void (*sink_write)(void *context, const char *line, size_t bytes);
static void *sink_context;

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&level_min, (int)level, memory_order_relaxed);
}

void log_set_sink(void (*write)(void *context, const char *line, size_t bytes), void *context)
{
    pthread_mutex_lock(&sink_lock);
    sink_write = write;
    sink_context = context;
    pthread_mutex_unlock(&sink_lock);
}

static void emit(const char *line, size_t bytes)
{
    pthread_mutex_lock(&sink_lock);
    if (sink_write != NULL) {
        sink_write(sink_context, line, bytes);
    } else if (write(STDERR_FILENO, line, bytes) < 0) {
        // Nowhere is left to say it.
    }
    pthread_mutex_unlock(&sink_lock);
}

void log_write(enum log_level level, const char *module, const char *event, const char *format, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if (level >= LOG_NONE || (int)level < atomic_load_explicit(&level_min, memory_order_relaxed))
        return;
    char raw[LINE_BYTES];
    va_list args;
    va_start(args, format);
    int raw_bytes = vsnprintf(raw, sizeof raw, format, args);
    va_end(args);
    if (raw_bytes < 0)
        raw_bytes = 0;
    if (raw_bytes >= (int)sizeof raw)
        raw_bytes = (int)sizeof raw - 1;

    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    char line[LINE_BYTES];
    int head = snprintf(line, 256, "t_us=%lld level=%s module=%.64s event=%.64s%s",
                        (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000, names[level], module,
                        event, raw_bytes > 0 ? " " : "");
    size_t bytes = (size_t)head;
    bytes += utf8_escape(line + bytes, sizeof line - bytes - 1, raw, (size_t)raw_bytes, false);
    line[bytes++] = '\n';
    emit(line, bytes);
}

const char *log_quote(char out[LOG_QUOTE_BYTES], const char *text)
{
    if (text == NULL)
        text = "";
    out[0] = '"';
    size_t bytes = utf8_escape(out + 1, LOG_QUOTE_BYTES - 2, text, strlen(text), true);
    out[1 + bytes] = '"';
    out[2 + bytes] = 0;
    return out;
}
