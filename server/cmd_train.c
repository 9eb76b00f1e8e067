// SPDX-License-Identifier: Apache-2.0
// `sora-server train`: makes an adapter from examples with sora_train_run, shows how it goes and
// writes the file. Runs in the main thread; Ctrl-C ends it after the running step, with a
// checkpoint where there is a folder for one.
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/file.h"
#include "base/sha256.h"
#include "server/cli.h"
#include "server/cli_print.h"
#include "server/cli_report.h"
#include "server/commands.h"
#include "server/rank_picture.h"
#include "server/train_compare.h"
#include "server/train_mpi.h"
#include "server/train_pick.h"
#include "server/train_view.h"
#include "server/upload.h"
#include "sora/adapter.h"
#include "sora/train.h"

#define JSON_BYTES_MAX (256u << 10) // of the line that it prints: 64 stages, under 1 KB each
#define SVG_BYTES_MAX (256u << 10)  // 64 points, under 400 bytes each

struct train_args {
    const char *model, *data, *out, *eval_data, *log;
    const char *targets, *xi, *xi_schedule, *target_params, *pick_text, *compare;
    struct train_pick pick;
    struct upload_target upload; // url NULL: none
    struct sora_train_options options;
    bool json, quiet;
};

#define AT(field) offsetof(struct train_args, field)

static const struct cli_option train_options[] = {
    {.kind = CLI_HEADING, .doc = "Files:"},
    {"model", 'm', CLI_TEXT, AT(model), "F",
     "The base: a .gguf file, or a folder with config.json and *.safetensors", 0, 0, true},
    {"data", 'd', CLI_TEXT, AT(data), "F.jsonl", "The examples to learn from", 0, 0, true},
    {"out", 'o', CLI_TEXT, AT(out), "F.safetensors", "The adapter file to write", 0, 0, true},
    {"eval-data", 0, CLI_TEXT, AT(eval_data), "F.jsonl",
     "Examples to measure on at the end; keep them apart from --data", 0, 0, false},
    {"example-tokens", 0, CLI_INT, AT(options.example_tokens_max), "N",
     "Longest example; a longer one is an error that names its line (default: the model's "
     "context)",
     2, SORA_CONTEXT_MAX, false},
    {"cut", 0, CLI_FLAG, AT(options.cut), NULL,
     "Cut longer examples at their end instead, and say how many", 0, 0, false},
    {"log", 0, CLI_TEXT, AT(log), "F.jsonl", "Write one JSON object for every step", 0, 0, false},
    {.kind = CLI_HEADING, .doc = "What the adapter may become:"},
    {"method", 0, CLI_CHOICE, AT(options.method), "sora|lora",
     "sora prunes ranks while it trains; lora keeps all of them (default sora)", 0, 0, false},
    {"rank", 'r', CLI_INT, AT(options.rank), "N",
     "Ranks each module starts with. More can learn more and costs more time; SoRA cuts what is "
     "not needed (default 16)",
     1, SORA_TRAIN_RANK_MAX, false},
    {"alpha", 0, CLI_DOUBLE, AT(options.alpha), "X",
     "The adapter counts alpha/rank times: larger learns faster and less steadily (default 32)",
     1e-6, 1e6, false},
    {"targets", 0, CLI_TEXT, AT(targets), "LIST",
     "The projections that get a module (default q,k,v,o,gate,up,down)", 0, 0, false},
    {"dropout", 0, CLI_DOUBLE, AT(options.dropout), "X",
     "Part of a module's input to drop at random, against learning by heart (default 0)", 0, 0.95,
     false},
    {.kind = CLI_HEADING, .doc = "How many ranks are pruned:"},
    {"xi", 0, CLI_TEXT, AT(xi), "X",
     "What every gate shrinks by in a step. The larger, the more ranks end at zero; 0 prunes "
     "nothing. Compare it with --gate-lr, the most a gate can grow in a step (default 1e-3)",
     0, 0, false},
    {"xi-schedule", 0, CLI_TEXT, AT(xi_schedule), "S",
     "Raise xi in stages of --epochs each: linear:FROM:TO:COUNT, log-linear:..., exp-linear:..., "
     "or list:A,B,C. With --eval-data each stage is measured: quality against size in one run",
     0, 0, false},
    {"target-params", 0, CLI_TEXT, AT(target_params), "P%|N",
     "Steer xi so that the run ends with this share, or number, of the parameters, whatever the "
     "data, its length and the rates: at most that, and less by no more than a rank. Without "
     "--xi and --xi-schedule it is 50%; 100% prunes nothing",
     0, 0, false},
    {"pick", 0, CLI_TEXT, AT(pick_text), "RULE",
     "Which stage of --xi-schedule becomes --out: last; best, by --metric; or smallest-within "
     "P%, the smallest whose metric is that near the best. Every stage is also written beside "
     "it, as F.xi-0001.safetensors and so on, with a picture in F.ladder.svg (default last)",
     0, 0, false},
    {"keep-ranks", 0, CLI_FLAG, AT(options.keep_zero_ranks), NULL,
     "With --xi-schedule: keep ranks whose gate is zero in the training between stages, where a "
     "later stage may revive them. Otherwise they are cut out, and later stages run faster",
     0, 0, false},
    {"lambda", 0, CLI_DOUBLE, AT(options.lambda), "X",
     "Weight of the gates' mean size in the loss; pulls all of them down a little (default 1e-3)",
     0, 1e6, false},
    {"threshold", 0, CLI_CHOICE, AT(options.threshold), "paper|reference",
     "The shrinking as the paper writes it, or as its authors' program does it, which zeroes "
     "more (default paper)",
     0, 0, false},
    {.kind = CLI_HEADING, .doc = "How it learns:"},
    {"epochs", 'e', CLI_DOUBLE, AT(options.epochs), "X",
     "Times over the data, for each stage. Too few: nothing learnt; too many: learnt by heart "
     "(default 3)",
     1e-3, 1e5, false},
    {"batch-tokens", 0, CLI_INT, AT(options.batch_tokens), "N",
     "Tokens in a step. Smaller: more and noisier steps in the same time (default 512)", 1, 1048576,
     false},
    {"lr", 0, CLI_DOUBLE, AT(options.lr), "X",
     "Learning rate. Lower it when the loss jumps, raise it when the loss hardly falls (default "
     "1e-3)",
     0, 10, false},
    {"gate-lr", 0, CLI_DOUBLE, AT(options.gate_lr), "X",
     "Learning rate of the gates (default 1e-3)", 0, 10, false},
    {"weight-decay", 0, CLI_DOUBLE, AT(options.weight_decay), "X",
     "Pull of A and B towards zero, as AdamW's (default 0.1)", 0, 10, false},
    {"warmup", 0, CLI_DOUBLE, AT(options.warmup), "X",
     "Part of the steps in which the learning rate rises, or their number from 1 on "
     "(default 0.06)",
     0, 1e6, false},
    {"clip", 0, CLI_DOUBLE, AT(options.clip), "X",
     "Longest gradient that a step follows (default 0.1)", 0, 1e6, false},
    {"seed", 0, CLI_SEED, AT(options.seed), "N",
     "Same seed, data and options: the same file, byte for byte (default 0)", 0, 0, false},
    {"compute", 0, CLI_CHOICE, AT(options.compute), "auto|f32|int8",
     "Multiply the base forwards as serving with int8 does: faster, and what is learnt is learnt "
     "on "
     "the numbers that serving computes. Gradients are f32 in both (default auto: f32)",
     0, 0, false},
    {"recompute", 0, CLI_FLAG, AT(options.recompute), NULL,
     "Keep one activation a layer and compute the others again: a fraction of the memory for long "
     "examples, about a third more time",
     0, 0, false},
    {"threads", 't', CLI_INT, AT(options.threads), "N", "Threads (default 0: all processors)", 0,
     SORA_THREADS_MAX, false},
    {.kind = CLI_HEADING, .doc = "Runs that last:"},
    {"checkpoint", 0, CLI_TEXT, AT(options.checkpoint), "DIR",
     "Save all that the run needs to go on there, about once a minute and on Ctrl-C. A run that "
     "was stopped or killed at any moment, and is resumed, ends in the same file byte for byte",
     0, 0, false},
    {"resume", 0, CLI_FLAG, AT(options.resume), NULL,
     "Go on from the checkpoint in DIR; from the start when there is none. One of another model, "
     "data or options is refused",
     0, 0, false},
    {"checkpoint-every", 0, CLI_INT, AT(options.checkpoint_steps), "N",
     "Steps between two checkpoints instead of a minute", 1, INT32_MAX, false},
    {"eval-every", 0, CLI_INT, AT(options.eval_steps), "N",
     "Measure on --eval-data every N steps too", 1, INT32_MAX, false},
    {"patience", 0, CLI_INT, AT(options.patience), "N",
     "End a stage after N measurements without a better one, and take its best. Needs "
     "--eval-every. With a target only measurements within it count",
     1, INT32_MAX, false},
    {"metric", 0, CLI_CHOICE, AT(options.metric), "auto|loss|accuracy|mcc|exact_match|rouge_l|bleu",
     "What --patience and --pick go by; the last three generate answers (default auto: accuracy "
     "where the data has choices, otherwise loss)",
     0, 0, false},
    {.kind = CLI_HEADING, .doc = "Where it goes beside --out:"},
    {"upload", 0, CLI_TEXT, AT(upload.url), "URL",
     "Put it into the running server at http://HOST:PORT when it is done", 0, 0, false},
    {"name", 0, CLI_TEXT, AT(upload.name), "NAME", "Its name there; needed with --upload", 0, 0,
     false},
    {"key-file", 0, CLI_TEXT, AT(upload.key_file), "F", "A file with the API key for --upload", 0,
     0, false},
    {.kind = CLI_HEADING, .doc = "What is printed:"},
    {"compare", 0, CLI_TEXT, AT(compare), "F",
     "Show the result beside the base and this adapter, such as a --method lora of the same data",
     0, 0, false},
    {"json", 0, CLI_FLAG, AT(json), NULL, "One JSON object on standard output", 0, 0, false},
    {"quiet", 'q', CLI_FLAG, AT(quiet), NULL, "No progress, no table", 0, 0, false},
};

static const struct cli_command train_command = {
    .doc = "Make an adapter of a base model from examples.\v"
           "Each line of the data is one JSON object: {\"prompt\",\"completion\"}, with "
           "\"choices\":[...] for classification; {\"messages\":[{\"role\",\"content\"}...]}, of "
           "which every assistant turn is learnt; or {\"text\"}. A line that is none of these "
           "is an error with its number, and nothing is trained.\n\n"
           "The base stays as it is. The file that comes out holds, for every module, only the "
           "ranks whose gate did not reach zero, the most important first; it serves here and "
           "loads in PEFT as it is.\n\n"
           "Example, a few minutes on two cores:\n"
           "  sora-server train -m model.gguf -d faq.jsonl -o faq.safetensors\n"
           "which keeps half of the parameters. Fewer: --target-params 30%. Poor answers: a higher "
           "target, more --epochs, a higher --lr.\n\n"
           "Several machines, or sockets: mpirun -n N sora-server train ... spreads each step's "
           "examples over N processes and adds their gradients (needs a build with OpenMPI).\n\n"
           "Exit code: 0 done, 1 failed, 2 wrong usage, 130 or 143 stopped by Ctrl-C or SIGTERM "
           "(with --checkpoint, what was reached is saved).",
    .options = train_options,
    .option_count = sizeof train_options / sizeof train_options[0],
};

static atomic_bool cancelled;
static atomic_int cancelled_by;

static void on_interrupt(int signal_number)
{
    atomic_store(&cancelled_by, signal_number);
    atomic_store(&cancelled, true);
}

static int64_t peak_rss_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * 1024 : 0;
}

// Finds out before the training, not after it, that the file cannot be written.
static sora_status check_out(const char *path, struct sora_error *err)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL   ? strdup(".")
                   : slash == path ? strdup("/")
                                   : strndup(path, (size_t)(slash - path));
    sora_status status = SORA_OK;
    if (folder == NULL)
        status = sora_fail(err, SORA_NO_MEMORY, "out of memory");
    else if (file_is_folder(path))
        status = sora_fail(err, SORA_IO, "--out %s is a folder, not a file", path);
    else if (access(folder, W_OK) != 0)
        status = sora_fail(err, SORA_IO, "--out %s: cannot write to %s: %s", path, folder,
                           strerror(errno));
    free(folder);
    return status;
}

// Options that need others.
static sora_status check_together(const struct train_args *args, struct sora_error *err)
{
    if (args->options.resume && args->options.checkpoint == NULL)
        return sora_fail(err, SORA_MALFORMED, "--resume needs --checkpoint DIR");
    if (args->options.checkpoint_steps > 0 && args->options.checkpoint == NULL)
        return sora_fail(err, SORA_MALFORMED, "--checkpoint-every needs --checkpoint DIR");
    if (args->options.eval_steps > 0 && args->eval_data == NULL)
        return sora_fail(err, SORA_MALFORMED, "--eval-every needs --eval-data F.jsonl");
    if (args->options.patience > 0 && args->options.eval_steps == 0)
        return sora_fail(err, SORA_MALFORMED, "--patience needs --eval-every N");
    if (args->pick_text != NULL && args->options.xi_count == 1)
        return sora_fail(err, SORA_MALFORMED, "--pick chooses among the stages of --xi-schedule");
    return SORA_OK;
}

// The options that the table leaves as text. False: wrong usage, said on stderr.
static bool parse_texts(struct train_args *args, const char *program, int *exit_code)
{
    struct sora_error err;
    const char *xi = args->xi_schedule != NULL ? args->xi_schedule : args->xi;
    if ((args->xi != NULL) + (args->xi_schedule != NULL) + (args->target_params != NULL) > 1) {
        *exit_code = cli_usage(program, "--xi, --xi-schedule and --target-params exclude each "
                                        "other");
        return false;
    }
    sora_status status = SORA_OK;
    if (xi != NULL)
        status = sora_train_parse_xi(xi, &args->options, &err);
    else if (args->options.method == SORA_METHOD_SORA)
        args->options.target_params = SORA_TRAIN_TARGET_PARAMS_DEFAULT;
    if (status == SORA_OK && args->pick_text != NULL)
        status = train_pick_parse(args->pick_text, &args->pick, &err);
    if (status == SORA_OK)
        status = check_together(args, &err);
    if (status == SORA_OK && args->target_params != NULL)
        status = sora_train_parse_target_params(args->target_params, &args->options, &err);
    if (status == SORA_OK && args->targets != NULL)
        status = sora_train_parse_targets(args->targets, &args->options, &err);
    if (status == SORA_OK && args->upload.url != NULL)
        status = upload_check(&args->upload, &err);
    else if (status == SORA_OK && (args->upload.name != NULL || args->upload.key_file != NULL))
        status = sora_fail(&err, SORA_MALFORMED, "--name and --key-file go with --upload");
    if (status != SORA_OK)
        *exit_code = cli_usage(program, "%s", err.text);
    return status == SORA_OK;
}

// A second one ends the process at once.
static void catch_signals(void)
{
    struct sigaction interrupt = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &interrupt, NULL);
    sigaction(SIGTERM, &interrupt, NULL);
}

static sora_status run_training(const struct train_args *args, const sora_model *model,
                                const sora_tokenizer *tokenizer, struct train_view *view,
                                struct sora_train_result *result, struct sora_error *err)
{
    struct sora_train_hooks hooks = {.context = view,
                                     .on_step = train_view_on_step,
                                     .on_eval = train_view_on_eval,
                                     .cancel = &cancelled,
                                     .on_start = train_view_on_start,
                                     .on_rung = train_view_on_rung};
    const sora_status status = sora_train_run(model, tokenizer, args->data, args->eval_data,
                                              &args->options, &hooks, result, err);
    struct sora_error log_error;
    const sora_status closed = train_view_close(view, &log_error);
    if (status == SORA_OK && closed != SORA_OK)
        *err = log_error;
    return status == SORA_OK ? closed : status;
}

// The stage that --pick chooses takes the place of the last one; its file was written when it
// ended.
static sora_status take_picked(const struct train_args *args, struct train_view *view,
                               struct train_ladder *ladder, struct sora_train_result *result,
                               struct sora_error *err)
{
    *ladder = (struct train_ladder){.rungs = result->rungs,
                                    .count = result->rung_count,
                                    .picked = result->rung_count - 1,
                                    .metric = args->options.metric,
                                    .out = args->out};
    ladder->picked =
        train_pick_choose(&args->pick, args->options.metric, result->rungs, result->rung_count);
    const struct sora_train_rung *rung = &result->rungs[ladder->picked];
    view->gates_kept = rung->gates_kept;
    if (ladder->picked == result->rung_count - 1)
        return SORA_OK;
    char *path = train_ladder_path(args->out, rung->stage), *bytes = NULL;
    size_t byte_count;
    sora_status status = path != NULL
                             ? file_read(path, SORA_ADAPTER_BYTES_MAX, &bytes, &byte_count, err)
                             : sora_fail(err, SORA_NO_MEMORY, "no memory for a path");
    free(path);
    if (status != SORA_OK)
        return status;
    free(result->bytes);
    result->bytes = (uint8_t *)bytes;
    result->byte_count = byte_count;
    result->parameters = rung->parameters;
    result->kept = rung->kept;
    result->loss = rung->loss;
    result->has_eval = rung->has_eval;
    result->eval = rung->eval;
    return SORA_OK;
}

static sora_status write_files(const struct train_args *args, const struct train_ladder *ladder,
                               const struct sora_train_result *result, struct sora_error *err)
{
    sora_status status = file_write_atomic(args->out, result->bytes, result->byte_count, err);
    if (status != SORA_OK || ladder->count < 2)
        return status;
    struct buf svg;
    char *path = train_ladder_svg_path(args->out);
    buf_init(&svg, SVG_BYTES_MAX);
    train_ladder_svg(ladder, &svg);
    status = buf_status(&svg, err);
    if (status == SORA_OK && path == NULL)
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for a path");
    if (status == SORA_OK)
        status = file_write_atomic(path, svg.data, svg.bytes, err);
    free(path);
    buf_deinit(&svg);
    return status;
}

// What is shown at the end.
struct train_outcome {
    struct sora_train_result result;
    struct train_ladder ladder;
    bool has_compare;
    struct train_compare compare;
    char digest[65];
};

static void add_data_json(struct buf *out, const struct sora_train_start *start)
{
    buf_printf(out, ",\"data\":{\"examples\":%lld", (long long)start->examples);
    cli_report_count(out, "tokens", start->tokens);
    cli_report_count(out, "scored_tokens", start->scored_tokens);
    cli_report_count(out, "longest", start->longest);
    cli_report_count(out, "cut", start->cut_examples);
    buf_text(out, "}");
}

static sora_status print_json(const struct train_args *args, const struct train_view *view,
                              const struct train_outcome *outcome, struct sora_error *err)
{
    const struct sora_train_result *result = &outcome->result;
    struct buf out;
    buf_init(&out, JSON_BYTES_MAX);
    buf_printf(&out, "{\"steps\":%lld", (long long)result->steps);
    cli_report_count(&out, "tokens", result->tokens);
    cli_report_count(&out, "scored_tokens", result->scored_tokens);
    cli_report_number(&out, "seconds", result->seconds);
    cli_report_number(&out, "tokens_per_second", result->tokens_per_second);
    cli_report_number(&out, "loss", result->loss);
    cli_report_count(&out, "parameters", result->parameters);
    cli_report_count(&out, "parameters_full", result->parameters_full);
    cli_report_number(&out, "kept", result->kept);
    cli_report_count(&out, "peak_rss_bytes", peak_rss_bytes());
    cli_report_text(&out, "out", args->out);
    cli_report_text(&out, "digest", outcome->digest);
    if (result->has_eval) {
        buf_text(&out, ",\"eval\":");
        cli_report_eval_json(&out, &result->eval);
    }
    add_data_json(&out, &view->start);
    if (outcome->ladder.count > 1)
        train_ladder_json(&outcome->ladder, &out);
    if (outcome->has_compare)
        train_compare_json(&outcome->compare, &out);
    buf_text(&out, "}");
    return cli_report_print(&out, err);
}

static void add_training_rows(struct cli_table *table, const struct train_args *args,
                              const struct train_view *view, const struct sora_train_result *result,
                              const char *digest)
{
    char a[32], b[32];
    cli_table_add(table, "steps");
    cli_table_add(table, "%lld", (long long)result->steps);
    cli_table_add(table, "tokens");
    cli_table_add(table, "%s, %s of them scored", cli_print_count(a, result->tokens),
                  cli_print_count(b, result->scored_tokens));
    cli_table_add(table, "time");
    cli_table_add(table, "%s, %.0f tokens/s", cli_print_seconds(a, result->seconds),
                  result->tokens_per_second);
    cli_table_add(table, "loss");
    cli_table_add(table, "%.4f", result->loss);
    cli_table_add(table, "parameters");
    cli_table_add(table, "%s of %s kept (%.0f %%)", cli_print_count(a, result->parameters),
                  cli_print_count(b, result->parameters_full), 100 * result->kept);
    if (view->gates > 0) {
        cli_table_add(table, "ranks");
        cli_table_add(table, "%lld of %lld kept (%.0f %%)", (long long)view->gates_kept,
                      (long long)view->gates, 100 * (double)view->gates_kept / (double)view->gates);
    }
    cli_table_add(table, "file");
    cli_table_add(table, "%s, %s", args->out, cli_print_bytes(a, (double)result->byte_count));
    cli_table_add(table, "digest");
    cli_table_add(table, "%s", digest);
}

static sora_status print_table(const struct train_args *args, const struct train_view *view,
                               const struct train_outcome *outcome, const sora_adapter *adapter,
                               struct sora_error *err)
{
    const struct sora_train_result *result = &outcome->result;
    struct cli_table table;
    cli_table_init(&table, 2, 0);
    add_training_rows(&table, args, view, result, outcome->digest);
    if (result->has_eval) {
        cli_table_add(&table, "evaluation");
        cli_table_add(&table, "%s", args->eval_data);
        cli_report_eval_rows(&table, &result->eval);
    }
    cli_table_print(&table, stdout);
    cli_table_deinit(&table);
    fputc('\n', stdout);
    if (outcome->ladder.count > 1) {
        train_ladder_print(&outcome->ladder, stdout);
        fputc('\n', stdout);
    }
    if (outcome->has_compare) {
        train_compare_print(&outcome->compare, stdout);
        fputc('\n', stdout);
    }
    rank_picture_print(stdout, sora_adapter_get_info(adapter), cli_print_width(stdout, 100),
                       cli_print_is_terminal(stdout));
    return fflush(stdout) == 0 ? SORA_OK : sora_fail(err, SORA_IO, "standard output failed");
}

static sora_status report(const struct train_args *args, const sora_model *model,
                          const sora_tokenizer *tokenizer, const struct train_view *view,
                          struct train_outcome *outcome, struct sora_error *err)
{
    const struct sora_train_result *result = &outcome->result;
    const struct train_compare_source source = {model, tokenizer, args->eval_data,
                                                args->options.threads};
    sora_adapter *adapter = NULL;
    sora_status status = sora_adapter_parse(result->bytes, result->byte_count, NULL, &adapter, err);
    if (status == SORA_OK && args->compare != NULL) {
        status = train_compare_run(&source, args->compare, adapter,
                                   result->has_eval ? &result->eval : NULL, &outcome->compare, err);
        outcome->has_compare = status == SORA_OK;
    }
    if (status == SORA_OK && args->json)
        status = print_json(args, view, outcome, err);
    else if (status == SORA_OK && !args->quiet)
        status = print_table(args, view, outcome, adapter, err);
    sora_adapter_destroy(adapter);
    return status;
}

// What can be found out before the training rather than after it.
static sora_status check_files(const struct train_args *args, const sora_model *model,
                               struct sora_error *err)
{
    sora_adapter *other = NULL;
    if (args->compare == NULL)
        return SORA_OK;
    const sora_status status =
        sora_adapter_open(args->compare, &sora_model_get_info(model)->base, &other, err);
    sora_adapter_destroy(other);
    return status == SORA_OK ? status : sora_fail_within(err, status, "--compare");
}

static sora_status train(const struct train_args *args, struct sora_error *err)
{
    sora_model *model = NULL;
    sora_tokenizer *tokenizer = NULL;
    struct train_outcome outcome = {0};
    struct sora_train_result *result = &outcome.result;
    struct train_view view = {.log_path = args->log,
                              .out = args->out,
                              .quiet = args->quiet,
                              .has_stages = args->options.xi_count > 1};
    sora_status status = check_out(args->out, err);
    if (status == SORA_OK)
        status = sora_model_open(args->model, &model, err);
    if (status == SORA_OK)
        status = sora_tokenizer_open(args->model, &tokenizer, err);
    if (status == SORA_OK)
        status = check_files(args, model, err);
    if (status == SORA_OK)
        status = train_view_open(&view, err);
    if (status == SORA_OK)
        status = run_training(args, model, tokenizer, &view, result, err);
    if (status == SORA_OK)
        status = take_picked(args, &view, &outcome.ladder, result, err);
    if (status == SORA_OK)
        status = sha256_of(result->bytes, result->byte_count, outcome.digest, err);
    if (status == SORA_OK)
        status = write_files(args, &outcome.ladder, result, err);
    if (status == SORA_OK)
        status = report(args, model, tokenizer, &view, &outcome, err);
    if (status == SORA_OK && args->upload.url != NULL &&
        upload_adapter(&args->upload, result->bytes, result->byte_count, err) != SORA_OK)
        status = sora_fail_within(err, SORA_IO, "%s is written, but the upload failed", args->out);
    free(result->bytes);
    sora_tokenizer_close(tokenizer);
    sora_model_close(model);
    return status;
}

// A process of a group that is not the first: it computes its share, and that is all.
static sora_status follow(const struct train_args *args, struct sora_error *err)
{
    sora_model *model = NULL;
    sora_tokenizer *tokenizer = NULL;
    struct sora_train_result result = {0};
    const struct sora_train_hooks hooks = {.cancel = &cancelled};
    sora_status status = sora_model_open(args->model, &model, err);
    if (status == SORA_OK)
        status = sora_tokenizer_open(args->model, &tokenizer, err);
    if (status == SORA_OK)
        status = sora_train_run(model, tokenizer, args->data, args->eval_data, &args->options,
                                &hooks, &result, err);
    free(result.bytes);
    sora_tokenizer_close(tokenizer);
    sora_model_close(model);
    return status;
}

static sora_status train_in_group(struct train_args *args, const struct sora_train_group **group,
                                  struct sora_error *err)
{
    catch_signals();
    sora_status status = train_mpi_begin(group, err);
    args->options.group = *group;
    if (status == SORA_OK)
        status = *group == NULL || (*group)->rank == 0 ? train(args, err) : follow(args, err);
    return status;
}

static int run_train(int argc, char **argv)
{
    struct train_args args = {.options = sora_train_options_defaults()};
    const struct sora_train_group *group;
    struct sora_error err;
    int exit_code = CLI_GOOD;
    if (!cli_parse(&train_command, argc, argv, &args, &exit_code) ||
        !parse_texts(&args, argv[0], &exit_code))
        return exit_code;
    const sora_status status = train_in_group(&args, &group, &err);
    const bool speaks = group == NULL || group->rank == 0 || status != SORA_CANCELLED;
    if (status != SORA_OK && speaks)
        exit_code = cli_fail(argv[0], &err);
    if (status == SORA_CANCELLED)
        exit_code = 128 + (atomic_load(&cancelled_by) != 0 ? atomic_load(&cancelled_by) : SIGINT);
    train_mpi_end(group, status, exit_code);
    return exit_code;
}

int cmd_train(int argc, char **argv)
{
    char *joined;
    char **words = train_pick_join(&argc, argv, &joined);
    if (words == NULL) {
        struct sora_error err;
        (void)sora_fail(&err, SORA_NO_MEMORY, "no memory for the arguments");
        return cli_fail(argv[0], &err);
    }
    const int exit_code = run_train(argc, words);
    free(joined);
    free(words);
    return exit_code;
}
