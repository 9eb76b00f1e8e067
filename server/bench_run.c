// SPDX-License-Identifier: Apache-2.0
// See bench.h: the measurements. One engine serves all of them.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/rng.h"
#include "server/bench.h"
#include "sora/limits.h"
#include "sora/sampler.h"

#define PREFILL_RUNS 5
#define DECODE_RATES 5 // times that the machine's rates are taken beside a batch's steps
#define RATES_MAX 512  // of all taken in a run
#define STEPS_MAX 1000
#define SUM_ROUNDS 4   // in which the steps of the rank sums are taken
#define SPLIT_BATCH 16 // rows of the step whose time is split, and of the rank sums

// Ranks of the points of the rank-sum line.
static const int32_t sum_ranks[BENCH_SUM_POINTS] = {1, 2, 4, 6, 8, 12, 16, 24};

struct bench {
    const struct bench_plan *plan;
    const struct sora_model_info *info;
    struct bench_result *result;
    sora_engine *engine;
    sora_machine *machine;
    double sgemm[RATES_MAX], stream[RATES_MAX]; // all that were taken
    int32_t rate_count;
    bench_progress_fn *progress;
    void *context;
    int32_t done, total;
    struct rng rng;
    int32_t *tokens; // random ids, as many as the longest prompt has
    int32_t token_count;
};

// One decode batch: open sequences at the same length, and what their steps are made of.
struct batch {
    int32_t count;
    int32_t seqs[BENCH_BATCH_MAX];
    struct sora_lora_part parts[BENCH_BATCH_MAX];
    struct sora_span spans[BENCH_BATCH_MAX];
};

static void show(struct bench *bench, const char *what)
{
    if (bench->progress != NULL)
        bench->progress(bench->context, what, bench->done, bench->total);
    bench->done++;
}

static void take_rates(struct bench *bench)
{
    if (bench->rate_count == RATES_MAX)
        return;
    bench->sgemm[bench->rate_count] = sora_machine_sgemm_gflops(bench->machine);
    bench->stream[bench->rate_count++] = sora_machine_stream_gbps(bench->machine);
}

// Median of the rates taken since there were `from` of them; `rates` are kept as they are.
static double rate_since(const struct bench *bench, const double *rates, int32_t from)
{
    double sorted[RATES_MAX];
    if (from >= bench->rate_count) // none since: all of them
        from = 0;
    memcpy(sorted, rates + from, (size_t)(bench->rate_count - from) * sizeof *sorted);
    return bench_median(sorted, bench->rate_count - from);
}

static bool computes_int8(const struct bench *bench)
{
    return sora_engine_compute(bench->engine) == SORA_COMPUTE_INT8;
}

static sora_status feed(struct bench *bench, int32_t seq, int32_t count, struct sora_error *err)
{
    if (!sora_engine_seq_reserve(bench->engine, seq, count))
        return sora_fail(err, SORA_LIMIT, "no room for %d tokens of keys and values", (int)count);
    for (int32_t first = 0; first < count; first += SORA_STEP_ROWS_MAX) {
        int32_t left = count - first;
        struct sora_span span = {
            .seq = seq,
            .tokens = bench->tokens + first,
            .token_count = left < SORA_STEP_ROWS_MAX ? left : SORA_STEP_ROWS_MAX,
            .want = left <= SORA_STEP_ROWS_MAX ? SORA_LOGITS_LAST : SORA_LOGITS_NONE};
        sora_engine_step(bench->engine, &span, 1, NULL);
    }
    return SORA_OK;
}

static sora_status measure_prefill(struct bench *bench, int32_t tokens, struct sora_error *err)
{
    double seconds[PREFILL_RUNS];
    const int32_t from = bench->rate_count;
    show(bench, "prefill");
    for (int run = 0; run < PREFILL_RUNS; run++) {
        int32_t seq = sora_engine_seq_open(bench->engine);
        int64_t start_ns = clock_now_ns();
        sora_status status = feed(bench, seq, tokens, err);
        seconds[run] = (double)(clock_now_ns() - start_ns) * 1e-9;
        sora_engine_seq_close(bench->engine, seq);
        if (status != SORA_OK)
            return status;
        take_rates(bench);
    }
    const double rate = tokens / bench_median(seconds, PREFILL_RUNS);
    bench->result->prefill[bench->result->prefill_count++] =
        (struct bench_prefill){tokens, rate,
                               2e-9 * (double)bench->info->projection_parameters * rate /
                                   rate_since(bench, bench->sgemm, from)};
    return SORA_OK;
}

static void close_batch(struct bench *bench, struct batch *batch)
{
    for (int32_t i = 0; i < batch->count; i++)
        sora_engine_seq_close(bench->engine, batch->seqs[i]);
    batch->count = 0;
}

// Sequences of BENCH_CONTEXT_TOKENS tokens, with room for all steps to come.
static sora_status open_batch(struct bench *bench, int32_t count, int32_t steps,
                              struct batch *batch, struct sora_error *err)
{
    sora_status status = SORA_OK;
    memset(batch, 0, sizeof *batch);
    while (batch->count < count && status == SORA_OK) {
        int32_t seq = sora_engine_seq_open(bench->engine);
        batch->seqs[batch->count++] = seq;
        status = feed(bench, seq, BENCH_CONTEXT_TOKENS, err);
        if (status == SORA_OK &&
            !sora_engine_seq_reserve(bench->engine, seq, BENCH_CONTEXT_TOKENS + steps))
            status = sora_fail(err, SORA_LIMIT, "no room for %d sequences", (int)count);
    }
    if (status != SORA_OK)
        close_batch(bench, batch);
    return status;
}

// One decode step; loras [count] or NULL. Its wall time in microseconds.
static double decode_step(struct bench *bench, struct batch *batch,
                          const struct sora_lora *const *loras, struct sora_step_stats *stats)
{
    for (int32_t i = 0; i < batch->count; i++) {
        const struct sora_lora *lora = loras != NULL ? loras[i] : NULL;
        batch->parts[i] = (struct sora_lora_part){.lora = lora, .scale = 1.0f};
        batch->spans[i] = (struct sora_span){
            .seq = batch->seqs[i],
            .tokens = bench->tokens + (size_t)(i % bench->token_count),
            .token_count = 1,
            .parts = &batch->parts[i],
            .part_count = lora != NULL,
            .want = SORA_LOGITS_LAST,
        };
    }
    int64_t start_ns = clock_now_ns();
    sora_engine_step(bench->engine, batch->spans, batch->count, stats);
    return (double)(clock_now_ns() - start_ns) * 1e-3;
}

static void add_split(struct bench_split *split, const struct sora_step_stats *stats, double us)
{
    split->base_matmul += (double)stats->base_matmul_us / us;
    split->adapter += (double)stats->adapter_us / us;
    split->attention += (double)stats->attention_us / us;
}

static void finish_split(struct bench_split *split, int32_t steps)
{
    split->base_matmul /= steps;
    split->adapter /= steps;
    split->attention /= steps;
    split->rest = 1 - split->base_matmul - split->adapter - split->attention;
}

static sora_status measure_decode(struct bench *bench, int32_t count, struct sora_error *err)
{
    const int32_t steps = bench->plan->steps;
    struct batch batch;
    double us[STEPS_MAX];
    struct bench_split split = {0};
    const int32_t from = bench->rate_count;
    show(bench, "decode");
    sora_status status = open_batch(bench, count, steps + 1, &batch, err);
    if (status != SORA_OK)
        return status;
    decode_step(bench, &batch, NULL, NULL); // the first one warms up
    for (int32_t i = 0; i < steps; i++) {
        struct sora_step_stats stats = {0};
        us[i] = decode_step(bench, &batch, NULL, &stats);
        add_split(&split, &stats, us[i]);
        if ((i + 1) * DECODE_RATES / steps > i * DECODE_RATES / steps)
            take_rates(bench);
    }
    close_batch(bench, &batch);
    struct bench_result *result = bench->result;
    const double step_s = bench_median(us, steps) * 1e-6, rate = count / step_s;
    result->decode[result->decode_count++] = (struct bench_decode){
        count, rate,
        2e-9 * (double)bench->info->step_parameters * rate / rate_since(bench, bench->sgemm, from),
        1e-9 * (double)bench->info->step_bytes / step_s / rate_since(bench, bench->stream, from)};
    if (count == SPLIT_BATCH) {
        finish_split(&split, steps);
        result->base_split = split;
        result->has_base_split = true;
    }
    return SORA_OK;
}

// Which adapter each sequence of a batch asks for.
static void choose_adapters(struct bench *bench, const struct bench_ranks *ranks,
                            const struct bench_adapters *adapters, int32_t made, int32_t count,
                            const struct sora_lora **loras, struct bench_mixed *mixed)
{
    bool used[BENCH_ADAPTERS_MAX] = {false};
    double weights = 0;
    for (int32_t i = 0; i < made; i++)
        weights += 1.0 / (i + 1);
    mixed->adapters = 0;
    for (int32_t i = 0; i < count; i++) {
        int32_t index = i % made;
        if (ranks->kind == BENCH_ZIPF) {
            double at = rng_uniform(&bench->rng) * weights;
            for (index = 0; index < made - 1 && at >= 1.0 / (index + 1); index++)
                at -= 1.0 / (index + 1);
        }
        loras[i] = bench_adapters_get(adapters, index);
        if (!used[index]) {
            mixed->adapter_bytes += (computes_int8(bench) ? 1.0 : 2.0) *
                                    (double)bench_adapters_parameters(adapters, index);
            mixed->adapters++;
        }
        used[index] = true;
    }
}

// Steps with and without adapters in turn, over the same sequences.
static sora_status measure_mixed(struct bench *bench, const struct bench_ranks *ranks,
                                 const struct bench_adapters *adapters, int32_t made, int32_t count,
                                 struct sora_error *err)
{
    const int32_t steps = bench->plan->steps;
    const struct sora_lora *loras[BENCH_BATCH_MAX];
    struct bench_mixed mixed = {.ranks = ranks->name, .batch = count};
    struct bench_split split = {0};
    struct batch batch;
    double with[STEPS_MAX], without[STEPS_MAX];
    sora_status status = open_batch(bench, count, 2 * steps + 2, &batch, err);
    if (status != SORA_OK)
        return status;
    choose_adapters(bench, ranks, adapters, made, count, loras, &mixed);
    decode_step(bench, &batch, NULL, NULL);
    decode_step(bench, &batch, loras, NULL);
    for (int32_t i = 0; i < steps; i++) {
        struct sora_step_stats stats = {0};
        without[i] = decode_step(bench, &batch, NULL, NULL);
        with[i] = decode_step(bench, &batch, loras, &stats);
        mixed.rank_sum = (double)stats.rank_sum;
        add_split(&split, &stats, with[i]);
    }
    close_batch(bench, &batch);
    const double median = bench_median(with, steps);
    mixed.tok_per_s = count / median * 1e6;
    mixed.of_base = bench_median(without, steps) / median;
    bench->result->mixed[bench->result->mixed_count++] = mixed;
    if (count == SPLIT_BATCH && ranks->kind == BENCH_RAGGED) {
        finish_split(&split, steps);
        bench->result->mixed_split = split;
        bench->result->has_mixed_split = true;
    }
    return SORA_OK;
}

static sora_status measure_ranks(struct bench *bench, const struct bench_ranks *ranks,
                                 struct sora_error *err)
{
    // Uniform adapters are all alike: as many as a step has rows are enough.
    int32_t made = bench->plan->adapters, most = 1;
    for (int32_t i = 0; i < bench->plan->batch_count; i++)
        most = bench->plan->batches[i] > most ? bench->plan->batches[i] : most;
    if (ranks->kind != BENCH_ZIPF && made > most)
        made = most;
    struct bench_adapters *adapters = NULL;
    show(bench, ranks->name);
    sora_status status = bench_adapters_create(
        &bench->info->base, ranks, made, computes_int8(bench), bench->plan->seed, &adapters, err);
    for (int32_t i = 0; status == SORA_OK && i < bench->plan->batch_count; i++)
        status = measure_mixed(bench, ranks, adapters, made, bench->plan->batches[i], err);
    bench_adapters_destroy(adapters);
    return status;
}

// Steps of one round of the rank sums, for each point.
static int32_t round_steps(int32_t steps)
{
    return (steps + SUM_ROUNDS - 1) / SUM_ROUNDS;
}

struct sum_points {
    struct bench_adapters *adapters[BENCH_SUM_POINTS];
    double us[BENCH_SUM_POINTS][STEPS_MAX + SUM_ROUNDS]; // of each step
    double rank_sums[BENCH_SUM_POINTS];
    int32_t count; // steps of each point so far
};

static double sum_step(struct bench *bench, struct batch *batch, struct sum_points *points,
                       int32_t p)
{
    const struct sora_lora *loras[SPLIT_BATCH];
    struct sora_step_stats stats = {0};
    for (int32_t i = 0; i < SPLIT_BATCH; i++)
        loras[i] = bench_adapters_get(points->adapters[p], i);
    decode_step(bench, batch, loras, &stats);
    points->rank_sums[p] = (double)stats.rank_sum;
    return (double)stats.adapter_us;
}

// Steps that take all points in turn: a machine's pace changes within seconds.
static sora_status add_round(struct bench *bench, struct sum_points *points, struct sora_error *err)
{
    const int32_t steps = round_steps(bench->plan->steps);
    struct batch batch;
    sora_status status = open_batch(bench, SPLIT_BATCH, BENCH_SUM_POINTS * steps + 1, &batch, err);
    if (status != SORA_OK)
        return status;
    (void)sum_step(bench, &batch, points, 0);
    for (int32_t i = 0; i < steps; i++, points->count++)
        for (int32_t p = 0; p < BENCH_SUM_POINTS; p++)
            points->us[p][points->count] = sum_step(bench, &batch, points, p);
    close_batch(bench, &batch);
    return SORA_OK;
}

// The adapters of all points; the last ones' memory serves all.
static sora_status make_points(const struct bench *bench, struct sum_points *points,
                               struct sora_error *err)
{
    const int32_t last = BENCH_SUM_POINTS - 1;
    const struct sora_base *base = &bench->info->base;
    const struct bench_ranks ranks = {.kind = BENCH_UNIFORM, .rank = sum_ranks[last]};
    sora_status status = bench_adapters_create(base, &ranks, SPLIT_BATCH, computes_int8(bench),
                                               bench->plan->seed, &points->adapters[last], err);
    for (int32_t p = 0; p < last && status == SORA_OK; p++)
        status = bench_adapters_within(base, points->adapters[last], sum_ranks[p],
                                       &points->adapters[p], err);
    return status;
}

// Adapter time of steps whose rank sum grows, each row with an adapter of its own.
static sora_status measure_rank_sums(struct bench *bench, struct sora_error *err)
{
    struct bench_result *result = bench->result;
    struct sum_points points = {.count = 0};
    sora_status status = make_points(bench, &points, err);
    for (int32_t round = 0; status == SORA_OK && round < SUM_ROUNDS; round++) {
        show(bench, "rank sums");
        status = add_round(bench, &points, err);
    }
    for (int32_t p = 0; p < BENCH_SUM_POINTS; p++)
        bench_adapters_destroy(points.adapters[p]);
    if (status != SORA_OK)
        return status;
    for (int32_t p = 0; p < BENCH_SUM_POINTS; p++)
        result->points[result->point_count++] =
            (struct bench_point){points.rank_sums[p], bench_median(points.us[p], points.count)};
    double slope_us;
    bench_fit(result->points, result->point_count, &slope_us, &result->r2);
    result->slope_ns = slope_us * 1e3;
    return SORA_OK;
}

struct sampling_step {
    sora_sampler **samplers;
    sora_sampler_scratch *scratch;
    const struct batch *batch;
};

static void sample_one(void *context, int32_t index, int32_t thread)
{
    const struct sampling_step *step = context;
    const float *logits = step->batch->spans[index].logits;
    sora_sampler_next(step->samplers[index], step->scratch, thread, logits, NULL, 0);
}

// As the server does it: on all threads.
static sora_status sampled_share(struct bench *bench, const struct sora_sampling *sampling,
                                 struct batch *batch, double step_us, double *share,
                                 struct sora_error *err)
{
    const int32_t vocab = bench->info->base.vocab_size;
    sora_sampler *samplers[SPLIT_BATCH] = {NULL};
    sora_sampler_scratch *scratch;
    sora_status status =
        sora_sampler_scratch_create(vocab, sora_engine_threads(bench->engine), &scratch, err);
    double us[STEPS_MAX];
    for (int32_t i = 0; i < SPLIT_BATCH && status == SORA_OK; i++) {
        status = sora_sampler_create(sampling, vocab, &samplers[i], err);
        if (status == SORA_OK)
            sora_sampler_see_prompt(samplers[i], bench->tokens, BENCH_CONTEXT_TOKENS);
    }
    for (int32_t step = 0; status == SORA_OK && step < bench->plan->steps; step++) {
        int64_t start_ns = clock_now_ns();
        struct sampling_step sampling_step = {samplers, scratch, batch};
        sora_engine_share(bench->engine, SPLIT_BATCH, sample_one, &sampling_step);
        us[step] = (double)(clock_now_ns() - start_ns) * 1e-3;
    }
    if (status == SORA_OK) {
        double median = bench_median(us, bench->plan->steps);
        *share = median / (median + step_us);
    }
    for (int32_t i = 0; i < SPLIT_BATCH; i++)
        sora_sampler_destroy(samplers[i]);
    sora_sampler_scratch_destroy(scratch);
    return status;
}

static sora_status measure_sampling(struct bench *bench, struct sora_error *err)
{
    struct batch batch;
    double us[STEPS_MAX];
    const int32_t steps = bench->plan->steps;
    struct sora_sampling greedy = sora_sampling_defaults(), filtered = greedy, penalized = greedy;
    greedy.temperature = 0;
    filtered.temperature = 0.8f;
    filtered.top_p = 0.95f;
    filtered.top_k = 40;
    penalized.temperature = 0.8f;
    penalized.top_p = 0.95f;
    penalized.repetition_penalty = 1.1f;
    penalized.presence_penalty = 0.5f;
    show(bench, "sampling");
    sora_status status = open_batch(bench, SPLIT_BATCH, steps, &batch, err);
    if (status != SORA_OK)
        return status;
    for (int32_t i = 0; i < steps; i++)
        us[i] = decode_step(bench, &batch, NULL, NULL);
    const double step_us = bench_median(us, steps);
    struct bench_sampling *sampling = &bench->result->sampling;
    status = sampled_share(bench, &greedy, &batch, step_us, &sampling->greedy, err);
    if (status == SORA_OK)
        status = sampled_share(bench, &filtered, &batch, step_us, &sampling->filtered, err);
    if (status == SORA_OK)
        status = sampled_share(bench, &penalized, &batch, step_us, &sampling->penalized, err);
    bench->result->has_sampling = status == SORA_OK;
    close_batch(bench, &batch);
    return status;
}

static sora_status measure_all(struct bench *bench, struct sora_error *err)
{
    const struct bench_plan *plan = bench->plan;
    sora_status status = SORA_OK;
    for (int32_t i = 0; i < plan->prompt_count && plan->parts & BENCH_PREFILL; i++)
        if (status == SORA_OK)
            status = measure_prefill(bench, plan->prompts[i], err);
    for (int32_t i = 0; i < plan->batch_count && plan->parts & BENCH_DECODE; i++)
        if (status == SORA_OK)
            status = measure_decode(bench, plan->batches[i], err);
    for (int32_t i = 0; i < plan->rank_count && plan->parts & BENCH_MIXED; i++)
        if (status == SORA_OK)
            status = measure_ranks(bench, &plan->ranks[i], err);
    if (status == SORA_OK && plan->parts & BENCH_RANK_SUM)
        status = measure_rank_sums(bench, err);
    if (status == SORA_OK && plan->parts & BENCH_SAMPLING)
        status = measure_sampling(bench, err);
    return status;
}

static int32_t largest(const int32_t *values, int32_t count, int32_t least)
{
    for (int32_t i = 0; i < count; i++)
        least = values[i] > least ? values[i] : least;
    return least;
}

static sora_status create_engine(struct bench *bench, const sora_model *model,
                                 struct sora_error *err)
{
    const struct bench_plan *plan = bench->plan;
    struct sora_engine_options options = sora_engine_options_defaults(model);
    const int32_t sums = plan->parts & BENCH_RANK_SUM ? round_steps(plan->steps) : 0;
    const int32_t in_turn[] = {2 * plan->steps, BENCH_SUM_POINTS * sums};
    const int32_t decoded = BENCH_CONTEXT_TOKENS + largest(in_turn, 2, 0) + 2;
    bool prompts = plan->parts & BENCH_PREFILL;
    options.threads = plan->threads;
    options.compute = plan->compute;
    options.seqs_max = largest(plan->batches, plan->batch_count, SPLIT_BATCH);
    options.context_max = largest(plan->prompts, prompts ? plan->prompt_count : 0, decoded);
    bench->token_count = options.context_max;
    if (options.context_max > bench->info->context_length)
        return sora_fail(err, SORA_LIMIT,
                         "%d tokens in a sequence are more than the model's context of %d: ask for "
                         "fewer --steps or shorter --prompts",
                         (int)options.context_max, (int)bench->info->context_length);
    return sora_engine_create(model, &options, &bench->engine, err);
}

sora_status bench_run(const sora_model *model, const struct bench_plan *plan,
                      bench_progress_fn *progress, void *context, struct bench_result *result,
                      struct sora_error *err)
{
    struct bench bench = {.plan = plan,
                          .info = sora_model_get_info(model),
                          .result = result,
                          .progress = progress,
                          .context = context};
    *result = (struct bench_result){.model = bench.info};
    result->threads = plan->threads > 0 ? plan->threads : cpu_count();
    bench.total = 1 + (plan->parts & BENCH_PREFILL ? plan->prompt_count : 0) +
                  (plan->parts & BENCH_DECODE ? plan->batch_count : 0) +
                  (plan->parts & BENCH_MIXED ? plan->rank_count : 0) +
                  (plan->parts & BENCH_RANK_SUM ? SUM_ROUNDS : 0) +
                  (plan->parts & BENCH_SAMPLING ? 1 : 0);
    rng_seed(&bench.rng, plan->seed);
    show(&bench, "the machine");
    sora_status status = sora_machine_open(plan->threads, &bench.machine, err);
    if (status == SORA_OK)
        status = create_engine(&bench, model, err);
    if (status != SORA_OK)
        goto done;
    result->compute = sora_compute_name(sora_engine_compute(bench.engine));
    bench.tokens = calloc((size_t)bench.token_count, sizeof *bench.tokens);
    if (bench.tokens == NULL) {
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for %d tokens", (int)bench.token_count);
        goto done;
    }
    for (int32_t i = 0; i < bench.token_count; i++)
        bench.tokens[i] = (int32_t)rng_below(&bench.rng, (uint64_t)bench.info->base.vocab_size);
    take_rates(&bench);
    status = measure_all(&bench, err);
    take_rates(&bench);
    result->sgemm_gflops = rate_since(&bench, bench.sgemm, 0);
    result->stream_gbps = rate_since(&bench, bench.stream, 0);
done:
    sora_machine_close(bench.machine);
    free(bench.tokens);
    if (bench.engine != NULL)
        sora_engine_destroy(bench.engine);
    return status;
}
