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
#define STREAM_SHARES (STREAM_BYTES / STREAM_SHARE_BYTES)

struct probe {
    struct pool *pool;
    float *matrices; // a, b and c
    int32_t rows_each;
    uint64_t *words;              // [STREAM_BYTES / 8]
    uint64_t sums[STREAM_SHARES]; // so that the reading is not left out
};

sora_status probe_create(int32_t threads, struct probe **probe, struct sora_error *err)
{
    const size_t count = (size_t)SGEMM_WIDTH * SGEMM_WIDTH;
    struct probe *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the probe of the machine");
    made->rows_each = (SGEMM_WIDTH + threads - 1) / threads;
    made->matrices = aligned_calloc(3 * count, sizeof(float));
    made->words = aligned_calloc(STREAM_BYTES, 1);
    sora_status status = pool_create(threads, &made->pool, err);
    if (status == SORA_OK && (made->matrices == NULL || made->words == NULL))
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for the probe of the machine: %zu MB",
                           (STREAM_BYTES + 3 * count * sizeof(float)) >> 20);
    if (status != SORA_OK) {
        probe_destroy(made);
        return status;
    }
    for (size_t i = 0; i < 2 * count; i++)
        made->matrices[i] = (float)(i % 17) - 8;
    memset(made->words, 1, STREAM_BYTES);
    *probe = made;
    return SORA_OK;
}

void probe_destroy(struct probe *probe)
{
    if (probe == NULL)
        return;
    pool_destroy(probe->pool);
    free(probe->matrices);
    free(probe->words);
    free(probe);
}

static void sgemm_share(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct probe *probe = context;
    const size_t count = (size_t)SGEMM_WIDTH * SGEMM_WIDTH;
    int32_t first = index * probe->rows_each;
    int32_t rows = SGEMM_WIDTH - first < probe->rows_each ? SGEMM_WIDTH - first : probe->rows_each;
    if (rows > 0)
        sgemm(SGEMM_PLAIN, SGEMM_TRANSPOSED, rows, SGEMM_WIDTH, SGEMM_WIDTH, 1,
              probe->matrices + (size_t)first * SGEMM_WIDTH, SGEMM_WIDTH, probe->matrices + count,
              SGEMM_WIDTH, 0, probe->matrices + 2 * count + (size_t)first * SGEMM_WIDTH,
              SGEMM_WIDTH);
}

double probe_sgemm(struct probe *probe)
{
    int64_t start_ns = clock_now_ns();
    pool_run(probe->pool, pool_threads(probe->pool), sgemm_share, probe);
    return 2.0 * SGEMM_WIDTH * SGEMM_WIDTH * SGEMM_WIDTH / (double)(clock_now_ns() - start_ns);
}

static void stream_share(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    struct probe *probe = context;
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

double probe_stream(struct probe *probe)
{
    int64_t start_ns = clock_now_ns();
    pool_run(probe->pool, (int32_t)STREAM_SHARES, stream_share, probe);
    return (double)STREAM_BYTES / (double)(clock_now_ns() - start_ns);
}
