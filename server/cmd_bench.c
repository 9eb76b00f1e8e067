// SPDX-License-Identifier: Apache-2.0
// `sora-server bench`: options and progress. Main thread only.
#include "server/bench.h"
#include "server/cli.h"
#include "server/cli_print.h"
#include "server/commands.h"
#include "sora/limits.h"

struct bench_args {
    const char *model, *ranks, *batch, *prompts, *only;
    int32_t adapters, steps, threads;
    enum sora_compute compute;
    uint64_t seed;
    bool quick, json, quiet;
};

#define AT(field) offsetof(struct bench_args, field)

static const struct cli_option bench_options[] = {
    {"model", 'm', CLI_TEXT, AT(model), "F",
     "The base: a .gguf file, or a folder with config.json and *.safetensors", 0, 0, true},
    {"adapters", 0, CLI_INT, AT(adapters), "N", "Made adapters to choose from (default 32)", 1,
     BENCH_ADAPTERS_MAX, false},
    {"ranks", 0, CLI_TEXT, AT(ranks), "LIST",
     "Ranks of made adapters: a number is that rank in every module, ragged is what SoRA leaves, "
     "zipf is ragged with popularity by Zipf's law (default 4,16,64,ragged,zipf)",
     0, 0, false},
    {"batch", 0, CLI_TEXT, AT(batch), "LIST", "Sequences decoded at once (default 1,4,16,32)", 0, 0,
     false},
    {"prompts", 0, CLI_TEXT, AT(prompts), "LIST",
     "Tokens of prompts for prefill (default 32,128,512,2048)", 0, 0, false},
    {"only", 0, CLI_TEXT, AT(only), "LIST",
     "Only these parts, of prefill,decode,mixed,rank-sum,sampling (default: all)", 0, 0, false},
    {"steps", 0, CLI_INT, AT(steps), "N", "Steps of each kind; medians are shown (default 30)", 3,
     1000, false},
    {"quick", 0, CLI_FLAG, AT(quick), NULL,
     "A look in seconds: one batch of 16, ranks 16 and ragged, one prompt of 128, 8 steps", 0, 0,
     false},
    {"compute", 0, CLI_CHOICE, AT(compute), "auto|f32|int8",
     "Arithmetic of the base's matrices, as 'serve' has it (default auto)", 0, 0, false},
    {"threads", 't', CLI_INT, AT(threads), "N", "Threads (default 0: all processors)", 0,
     SORA_THREADS_MAX, false},
    {"seed", 's', CLI_SEED, AT(seed), "N", "Of token ids and adapters (default 1)", 0, 0, false},
    {"json", 0, CLI_FLAG, AT(json), NULL, "One JSON object on standard output", 0, 0, false},
    {"quiet", 'q', CLI_FLAG, AT(quiet), NULL, "No progress", 0, 0, false},
};

static const struct cli_command bench_command = {
    .doc = "Measure prefill, decode and mixed adapters on this machine.\v"
           "Each figure stands beside its share of what the machine can do, taken between the same "
           "steps: 'of sgemm', two operations for each weight and token against what OpenBLAS "
           "multiplies in a second (in 8 bits it can pass 1); 'of stream', the weights' bytes read "
           "a second against what memory gives; 'of base', the pace of the same batch without "
           "adapters. Decoding starts at 64 tokens of context. Nothing else should run "
           "meanwhile.\n\n"
           "Examples:\n"
           "  sora-server bench -m model.gguf\n"
           "  sora-server bench -m model.gguf --only mixed --ranks ragged --batch 16",
    .options = bench_options,
    .option_count = sizeof bench_options / sizeof bench_options[0],
};

static void show_progress(void *context, const char *what, int32_t done, int32_t total)
{
    cli_progress_show(context, done, total, what);
}

static sora_status make_plan(const struct bench_args *args, struct bench_plan *plan,
                             struct sora_error *err)
{
    const char *ranks = args->ranks != NULL ? args->ranks
                        : args->quick       ? "16,ragged"
                                            : "4,16,64,ragged,zipf";
    const char *batch = args->batch != NULL ? args->batch : args->quick ? "16" : "1,4,16,32";
    const char *prompts = args->prompts != NULL ? args->prompts
                          : args->quick         ? "128"
                                                : "32,128,512,2048";
    *plan = (struct bench_plan){.parts = BENCH_ALL,
                                .adapters = args->adapters,
                                .steps = args->steps > 0 ? args->steps
                                         : args->quick   ? 8
                                                         : 30,
                                .threads = args->threads,
                                .compute = args->compute,
                                .seed = args->seed};
    sora_status status = bench_parse_ranks(ranks, plan, err);
    if (status == SORA_OK)
        status = bench_parse_counts(batch, "--batch", BENCH_BATCH_MAX, plan->batches,
                                    &plan->batch_count, err);
    if (status == SORA_OK)
        status = bench_parse_counts(prompts, "--prompts", SORA_CONTEXT_MAX, plan->prompts,
                                    &plan->prompt_count, err);
    if (status == SORA_OK && args->only != NULL)
        status = bench_parse_parts(args->only, &plan->parts, err);
    return status;
}

static sora_status run(const struct bench_args *args, const struct bench_plan *plan,
                       struct sora_error *err)
{
    sora_model *model = NULL;
    struct bench_result result;
    struct cli_progress progress;
    cli_progress_init(&progress, args->quiet);
    sora_status status = sora_model_open(args->model, &model, err);
    if (status == SORA_OK)
        status = bench_run(model, plan, show_progress, &progress, &result, err);
    cli_progress_clear(&progress);
    if (status == SORA_OK && args->json)
        status = bench_print_json(&result, err);
    else if (status == SORA_OK)
        bench_print(&result);
    sora_model_close(model);
    return status;
}

int cmd_bench(int argc, char **argv)
{
    struct bench_args args = {.adapters = 32, .seed = 1};
    struct bench_plan plan;
    struct sora_error err;
    int exit_code = CLI_GOOD;
    if (!cli_parse(&bench_command, argc, argv, &args, &exit_code))
        return exit_code;
    if (make_plan(&args, &plan, &err) != SORA_OK)
        return cli_usage(argv[0], "%s", err.text);
    if (run(&args, &plan, &err) != SORA_OK)
        return cli_fail(argv[0], &err);
    return CLI_GOOD;
}
