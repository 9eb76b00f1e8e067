// SPDX-License-Identifier: Apache-2.0
// See probe.h.
#include "kernel/probe.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "kernel/sgemm.h"

#define SGEMM_WIDTH 1536                     // 9.4 MB a matrix: the rate of large products
#define STREAM_BYTES ((size_t)512 << 20)     // larger than any last cache
#define STREAM_SHARE_BYTES ((size_t)4 << 20) // of one task
#define RUNS 6

struct sgemm_probe {
    const float *a, *b;
    float *c;
    int32_t rows_each;
};

static void sgemm_share(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct sgemm_probe *probe = context;
    int32_t first = index * probe->rows_each;
    int32_t rows = SGEMM_WIDTH - first < probe->rows_each ? SGEMM_WIDTH - first : probe->rows_each;
    if (rows > 0)
        sgemm(SGEMM_PLAIN, SGEMM_TRANSPOSED, rows, SGEMM_WIDTH, SGEMM_WIDTH, 1,
              probe->a + (size_t)first * SGEMM_WIDTH, SGEMM_WIDTH, probe->b, SGEMM_WIDTH, 0,
              probe->c + (size_t)first * SGEMM_WIDTH, SGEMM_WIDTH);
}

sora_status probe_sgemm(struct pool *pool, double *gflops, struct sora_error *err)
{
    const size_t count = (size_t)SGEMM_WIDTH * SGEMM_WIDTH;
    const int32_t threads = pool_threads(pool);
    float *memory = aligned_calloc(3 * count, sizeof(float));
    if (memory == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the sgemm probe");
    for (size_t i = 0; i < 2 * count; i++)
        memory[i] = (float)(i % 17) - 8;
    struct sgemm_probe probe = {memory, memory + count, memory + 2 * count,
                                (SGEMM_WIDTH + threads - 1) / threads};
    int64_t best_ns = INT64_MAX;
    for (int run = 0; run < RUNS; run++) {
        int64_t start_ns = clock_now_ns();
        pool_run(pool, threads, sgemm_share, &probe);
        int64_t spent_ns = clock_now_ns() - start_ns;
        best_ns = spent_ns < best_ns ? spent_ns : best_ns;
    }
    *gflops = 2.0 * SGEMM_WIDTH * (double)count / (double)best_ns;
    free(memory);
    return SORA_OK;
}

struct stream_probe {
    const uint64_t *words;
    uint64_t sums[STREAM_BYTES / STREAM_SHARE_BYTES]; // so that the reading is not left out
};

static void stream_share(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    struct stream_probe *probe = context;
    const size_t count = STREAM_SHARE_BYTES / sizeof(uint64_t);
    const uint64_t *words = probe->words + (size_t)index * count;
    uint64_t sums[16] = {0};
    for (size_t i = 0; i < count; i += 16)
        for (size_t lane = 0; lane < 16; lane++)
            sums[lane] += words[i + lane];
    uint64_t sum = 0;
    for (size_t lane = 0; lane < 16; lane++)
        sum += sums[lane];
    probe->sums[index] = sum;
}

sora_status probe_stream(struct pool *pool, double *gbps, struct sora_error *err)
{
    struct stream_probe *probe = calloc(1, sizeof *probe);
    uint64_t *words = aligned_calloc(STREAM_BYTES, 1);
    if (probe == NULL || words == NULL) {
        free(probe);
        free(words);
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the stream probe");
    }
    memset(words, 1, STREAM_BYTES);
    probe->words = words;
    int64_t best_ns = INT64_MAX;
    for (int run = 0; run < RUNS; run++) {
        int64_t start_ns = clock_now_ns();
        pool_run(pool, (int32_t)(STREAM_BYTES / STREAM_SHARE_BYTES), stream_share, probe);
        int64_t spent_ns = clock_now_ns() - start_ns;
        best_ns = spent_ns < best_ns ? spent_ns : best_ns;
    }
    *gbps = (double)STREAM_BYTES / (double)best_ns;
    free(words);
    free(probe);
    return SORA_OK;
}
