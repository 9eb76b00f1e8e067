// SPDX-License-Identifier: Apache-2.0
// The line that shows a run while it goes on. Called by the client's thread.
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "loadtest/report.h"
#include "loadtest/report_text.h"

#define TERMINAL_EVERY_US 200000
#define PLAIN_EVERY_US 10000000
#define LINE_BYTES_MAX 1024
#define COLUMNS_DEFAULT 100

void report_live_init(struct report_live *live, FILE *out)
{
    *live = (struct report_live){.out = out, .terminal = isatty(fileno(out)) == 1};
}

static int done_percent(const struct report_progress *progress)
{
    double share = 0;
    if (progress->total > 0)
        share = (double)progress->done / (double)progress->total;
    else if (progress->duration_us > 0)
        share = (double)progress->now_us / (double)progress->duration_us;
    return share > 1 ? 100 : (int)(share * 100);
}

static void put_latency(struct buf *out, const char *name, const struct stats_latency *latency)
{
    char p50[REPORT_FIGURE_BYTES], p95[REPORT_FIGURE_BYTES];
    if (latency->count > 0)
        buf_printf(out, " | %s p50 %s p95 %s", name, report_duration(p50, (double)latency->p50_us),
                   report_duration(p95, (double)latency->p95_us));
}

void report_live_text(struct buf *out, struct stats *stats, const struct report_progress *progress)
{
    char rate[REPORT_FIGURE_BYTES], tokens[REPORT_FIGURE_BYTES];
    struct stats_recent recent;
    stats_recent(stats, progress->now_us, &recent);
    if (progress->warmup)
        buf_text(out, "warm-up ");
    else if (progress->total > 0 || progress->duration_us > 0)
        buf_printf(out, "%3d %% ", done_percent(progress));
    buf_printf(out, "%.0f s | %lld", (double)progress->now_us / 1e6, (long long)progress->done);
    if (progress->total > 0)
        buf_printf(out, "/%lld", (long long)progress->total);
    buf_printf(out, " done, %d running | %s req/s %s tok/s", progress->running,
               report_rate(rate, recent.ok_per_s), report_rate(tokens, recent.output_tokens_per_s));
    put_latency(out, "ttft", &recent.ttft);
    put_latency(out, "e2e", &recent.e2e);
    if (stats_error_count(stats) > 0)
        buf_printf(out, " | %lld errors", (long long)stats_error_count(stats));
}

static size_t columns_of(FILE *out)
{
    struct winsize size;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return COLUMNS_DEFAULT;
    return size.ws_col;
}

void report_live_update(struct report_live *live, struct stats *stats,
                        const struct report_progress *progress)
{
    int64_t every_us = live->terminal ? TERMINAL_EVERY_US : PLAIN_EVERY_US;
    if (progress->now_us - live->last_us < every_us && progress->now_us >= live->last_us)
        return;
    live->last_us = progress->now_us;
    struct buf line;
    buf_init(&line, LINE_BYTES_MAX);
    report_live_text(&line, stats, progress);
    if (live->terminal) { // all of it is ASCII: a byte is a column
        size_t columns = columns_of(live->out);
        int width = (int)(line.bytes < columns ? line.bytes : columns - 1);
        fprintf(live->out, "\r%.*s\x1b[K", width, line.data);
        live->drawn = true;
    } else {
        fprintf(live->out, "%s\n", line.data);
    }
    fflush(live->out);
    buf_deinit(&line);
}

void report_live_end(struct report_live *live)
{
    if (live->drawn)
        fputs("\r\x1b[K", live->out);
    live->drawn = false;
    fflush(live->out);
}
