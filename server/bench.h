// SPDX-License-Identifier: Apache-2.0
// `sora-server bench`: what is measured, and how. The engine is called directly, with made token
// ids and made adapters; no server, no network. Every figure is a median over steps, and figures
// that are compared come from steps that alternate, so that noise reaches both: the machine's own
// rates are taken between the steps that are given as a share of them. Main thread only.
#ifndef SERVER_BENCH_H
#define SERVER_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "sora/engine.h"
#include "sora/lora.h"
#include "sora/machine.h"

#define BENCH_LIST_MAX 8    // batches, rank settings, prompt lengths
#define BENCH_BATCH_MAX 256 // sequences of a step
#define BENCH_ADAPTERS_MAX 1024
#define BENCH_RANK_MAX 256
#define BENCH_SUM_POINTS 8
#define BENCH_CONTEXT_TOKENS 64 // in each sequence before decoding is measured

enum bench_part {
    BENCH_PREFILL = 1,
    BENCH_DECODE = 2,
    BENCH_MIXED = 4,
    BENCH_RANK_SUM = 8,
    BENCH_SAMPLING = 16,
    BENCH_ALL = 31
};

// How the ranks of made adapters are drawn, and how sequences choose among them.
enum bench_kind { BENCH_UNIFORM, BENCH_RAGGED, BENCH_ZIPF };
struct bench_ranks {
    enum bench_kind kind;
    int32_t rank; // of every module; of ragged ones the largest
    char name[32];
};

struct bench_plan {
    unsigned parts;
    int32_t adapters; // made ones to choose from
    struct bench_ranks ranks[BENCH_LIST_MAX];
    int32_t rank_count;
    int32_t batches[BENCH_LIST_MAX];
    int32_t batch_count;
    int32_t prompts[BENCH_LIST_MAX]; // tokens
    int32_t prompt_count;
    int32_t steps; // measured, of each kind
    int32_t threads;
    enum sora_compute compute;
    uint64_t seed;
};

struct bench_prefill {
    int32_t tokens;
    double tok_per_s, of_sgemm;
};
struct bench_decode {
    int32_t batch;
    double tok_per_s, of_sgemm, of_stream;
};
struct bench_mixed {
    const char *ranks;
    int32_t adapters, batch;
    double tok_per_s, of_base, rank_sum, adapter_bytes; // the last two of a step
};
struct bench_split { // shares of a step's time
    double base_matmul, adapter, attention, rest;
};
struct bench_point {
    double rank_sum, adapter_us;
};
struct bench_sampling { // share of a step of 16 rows, sampled
    double greedy, filtered, penalized;
};

struct bench_result {
    double sgemm_gflops, stream_gbps; // medians over the whole run
    const struct sora_model_info *model;
    const char *compute;
    int32_t threads;
    struct bench_prefill prefill[BENCH_LIST_MAX];
    int32_t prefill_count;
    struct bench_decode decode[BENCH_LIST_MAX];
    int32_t decode_count;
    struct bench_mixed mixed[BENCH_LIST_MAX * BENCH_LIST_MAX];
    int32_t mixed_count;
    struct bench_point points[BENCH_SUM_POINTS];
    int32_t point_count;
    double slope_ns, r2; // of adapter time over rank sum, a line through zero
    struct bench_split base_split, mixed_split;
    bool has_base_split, has_mixed_split, has_sampling;
    struct bench_sampling sampling;
};

// What is being measured now, for a progress line; done of total.
typedef void bench_progress_fn(void *context, const char *what, int32_t done, int32_t total);

SORA_CHECKED sora_status bench_run(const sora_model *model, const struct bench_plan *plan,
                                   bench_progress_fn *progress, void *context,
                                   struct bench_result *result, struct sora_error *err);

// Made adapters; int8: packed as those of an engine that computes in int8.
struct bench_adapters;
SORA_CHECKED sora_status bench_adapters_create(const struct sora_base *base,
                                               const struct bench_ranks *ranks, int32_t count,
                                               bool int8, uint64_t seed,
                                               struct bench_adapters **adapters,
                                               struct sora_error *err);
// As many as `from` has, of one rank, at most that of each module there, in the memory of those,
// which stay until these are destroyed.
SORA_CHECKED sora_status bench_adapters_within(const struct sora_base *base,
                                               const struct bench_adapters *from, int32_t rank,
                                               struct bench_adapters **adapters,
                                               struct sora_error *err);
void bench_adapters_destroy(struct bench_adapters *adapters); // accepts NULL
const struct sora_lora *bench_adapters_get(const struct bench_adapters *adapters, int32_t index);
int64_t bench_adapters_parameters(const struct bench_adapters *adapters, int32_t index);

// "4,16,ragged,zipf" and "1,4,16". False: *err names the word.
SORA_CHECKED sora_status bench_parse_ranks(const char *text, struct bench_plan *plan,
                                           struct sora_error *err);
SORA_CHECKED sora_status bench_parse_counts(const char *text, const char *what, int32_t max,
                                            int32_t out[BENCH_LIST_MAX], int32_t *count,
                                            struct sora_error *err);
// "prefill,decode,mixed,rank-sum,sampling".
SORA_CHECKED sora_status bench_parse_parts(const char *text, unsigned *parts,
                                           struct sora_error *err);

// Least squares of y = slope x, and r2 = 1 - residual / spread around the mean.
void bench_fit(const struct bench_point *points, int32_t count, double *slope, double *r2);
double bench_median(double *values, int32_t count); // sorts

// The result as tables on stdout, or as one line of JSON.
void bench_print(const struct bench_result *result);
SORA_CHECKED sora_status bench_print_json(const struct bench_result *result,
                                          struct sora_error *err);

#endif
