// SPDX-License-Identifier: Apache-2.0
// See metrics.h. The text format is Prometheus' exposition format 0.0.4. Any thread.
#include "server/metrics.h"

#include "base/assert.h"

struct metric {
    const char *name, *help;
    double unit; // one count in the unit of the metric's name
};

#define METRIC_ROW(id, text, about, unit) {text, about, unit},
#define GAUGE_ROW(id, text, about) {text, about, 1},
static const struct metric counters[] = {METRICS_COUNTERS(METRIC_ROW)};
static const struct metric gauges[] = {METRICS_GAUGES(GAUGE_ROW)};
static const struct metric histograms[] = {METRICS_HISTOGRAMS(METRIC_ROW)};

// Upper bounds: microseconds from 1 ms to 2 minutes, about doubling; rows in powers of two.
static const int64_t time_bounds[METRICS_BUCKET_COUNT] = {
    1000,   2500,   5000,    10000,   25000,   50000,    75000,    100000,
    250000, 500000, 1000000, 2500000, 5000000, 10000000, 30000000, 120000000};
static const int64_t row_bounds[METRICS_BUCKET_COUNT] = {1,  2,   4,   8,   12,  16,  24,  32,
                                                         64, 128, 192, 256, 320, 384, 448, 512};

static const int64_t *bounds_of(enum metrics_histogram histogram)
{
    return histogram == METRICS_STEP_ROWS ? row_bounds : time_bounds;
}

void metrics_add(struct metrics *metrics, enum metrics_counter counter, int64_t value)
{
    atomic_fetch_add_explicit(&metrics->counters[counter], value, memory_order_relaxed);
}

void metrics_set(struct metrics *metrics, enum metrics_gauge gauge, int64_t value)
{
    atomic_store_explicit(&metrics->gauges[gauge], value, memory_order_relaxed);
}

int64_t metrics_get(const struct metrics *metrics, enum metrics_gauge gauge)
{
    return atomic_load_explicit(&metrics->gauges[gauge], memory_order_relaxed);
}

void metrics_observe(struct metrics *metrics, enum metrics_histogram histogram, int64_t value)
{
    const int64_t *bounds = bounds_of(histogram);
    int bucket = 0;
    while (bucket < METRICS_BUCKET_COUNT && value > bounds[bucket])
        bucket++;
    struct metrics_buckets *to = &metrics->histograms[histogram];
    atomic_fetch_add_explicit(&to->counts[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&to->sum, value, memory_order_relaxed);
}

void metrics_reply(struct metrics *metrics, int32_t route, enum api_code code)
{
    ASSERT(route >= 0 && route < METRICS_ROUTE_MAX);
    atomic_fetch_add_explicit(&metrics->replies[route][code], 1, memory_order_relaxed);
}

void metrics_encode_head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s.\n# TYPE %s %s\n", name, help, name, type);
}

void metrics_encode_label(struct buf *out, const char *text)
{
    buf_text(out, "\"");
    for (; *text != '\0'; text++) {
        if (*text == '\n')
            buf_text(out, "\\n");
        else if (*text == '"' || *text == '\\')
            buf_printf(out, "\\%c", *text);
        else
            buf_append(out, text, 1);
    }
    buf_text(out, "\"");
}

static void encode_histogram(const struct metrics *metrics, enum metrics_histogram which,
                             struct buf *out)
{
    const struct metric *metric = &histograms[which];
    const struct metrics_buckets *from = &metrics->histograms[which];
    const int64_t *bounds = bounds_of(which);
    uint64_t below = 0;
    metrics_encode_head(out, metric->name, "histogram", metric->help);
    for (int i = 0; i < METRICS_BUCKET_COUNT; i++) {
        below += atomic_load_explicit(&from->counts[i], memory_order_relaxed);
        buf_printf(out, "%s_bucket{le=\"%g\"} %llu\n", metric->name,
                   (double)bounds[i] * metric->unit, (unsigned long long)below);
    }
    below += atomic_load_explicit(&from->counts[METRICS_BUCKET_COUNT], memory_order_relaxed);
    buf_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n", metric->name, (unsigned long long)below);
    int64_t sum = atomic_load_explicit(&from->sum, memory_order_relaxed);
    buf_printf(out, "%s_sum %.9g\n%s_count %llu\n", metric->name, (double)sum * metric->unit,
               metric->name, (unsigned long long)below);
}

static void encode_replies(const struct metrics *metrics, const char *const *routes,
                           int32_t route_count, struct buf *out)
{
    metrics_encode_head(out, "sora_requests_total", "counter", "Replies by route and status code");
    for (int32_t route = 0; route < route_count; route++) {
        for (int code = 0; code < API_CODE_COUNT; code++) {
            int64_t count =
                atomic_load_explicit(&metrics->replies[route][code], memory_order_relaxed);
            if (count == 0)
                continue;
            buf_text(out, "sora_requests_total{route=");
            metrics_encode_label(out, routes[route]);
            buf_printf(out, ",code=\"%d\"} %lld\n", api_code_http((enum api_code)code),
                       (long long)count);
        }
    }
}

void metrics_encode(const struct metrics *metrics, const char *const *routes, int32_t route_count,
                    struct buf *out)
{
    encode_replies(metrics, routes, route_count, out);
    for (int i = 0; i < METRICS_COUNTER_COUNT; i++) {
        int64_t value = atomic_load_explicit(&metrics->counters[i], memory_order_relaxed);
        metrics_encode_head(out, counters[i].name, "counter", counters[i].help);
        buf_printf(out, "%s %.15g\n", counters[i].name, (double)value * counters[i].unit);
    }
    for (int i = 0; i < METRICS_GAUGE_COUNT; i++) {
        metrics_encode_head(out, gauges[i].name, "gauge", gauges[i].help);
        buf_printf(out, "%s %lld\n", gauges[i].name,
                   (long long)metrics_get(metrics, (enum metrics_gauge)i));
    }
    for (int i = 0; i < METRICS_HISTOGRAM_COUNT; i++)
        encode_histogram(metrics, (enum metrics_histogram)i, out);
}
