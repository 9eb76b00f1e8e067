// SPDX-License-Identifier: Apache-2.0
// `sora-server train`: makes an adapter from examples with sora_train_run, shows how it goes and
// writes the file. Runs in the main thread; Ctrl-C ends it after the running step.
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
#include "server/upload.h"
#include "sora/adapter.h"
#include "sora/train.h"

#define JSON_BYTES_MAX 65536 // of one line that this command prints

struct train_args {
    const char *model, *data, *out, *eval_data, *log;
    const char *targets, *xi, *xi_schedule, *target_params;
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
     "Steer xi so that the run ends with this share, or number, of the parameters", 0, 0, false},
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
    {"threads", 't', CLI_INT, AT(options.threads), "N", "Threads (default 0: all processors)", 0,
     SORA_THREADS_MAX, false},
    {.kind = CLI_HEADING, .doc = "Where it goes beside --out:"},
    {"upload", 0, CLI_TEXT, AT(upload.url), "URL",
     "Put it into the running server at http://HOST:PORT when it is done", 0, 0, false},
    {"name", 0, CLI_TEXT, AT(upload.name), "NAME", "Its name there; needed with --upload", 0, 0,
     false},
    {"key-file", 0, CLI_TEXT, AT(upload.key_file), "F", "A file with the API key for --upload", 0,
     0, false},
    {.kind = CLI_HEADING, .doc = "What is printed:"},
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
           "  sora-server train -m model.gguf -d faq.jsonl -o faq.safetensors --xi 1e-3\n"
           "Fewer ranks at the end: raise --xi. Poor answers: lower --xi, raise --epochs or --lr.",
    .options = train_options,
    .option_count = sizeof train_options / sizeof train_options[0],
};

// What the hooks of the running training write to.
struct train_view {
    struct cli_progress progress;
    FILE *log;
    bool quiet;
    bool log_failed;
    int64_t gates_kept, gates;
};

static atomic_bool cancelled;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    atomic_store(&cancelled, true);
}

static void log_line(struct train_view *view, struct buf *line)
{
    buf_text(line, "\n");
    if (line->status != SORA_OK || fwrite(line->data, 1, line->bytes, view->log) != line->bytes ||
        fflush(view->log) != 0)
        view->log_failed = true;
    buf_deinit(line);
}

static void log_step(struct train_view *view, const struct sora_train_progress *at)
{
    struct buf line;
    buf_init(&line, JSON_BYTES_MAX);
    buf_printf(&line, "{\"step\":%lld", (long long)at->step);
    cli_report_count(&line, "steps", at->steps);
    cli_report_count(&line, "stage", at->stage);
    cli_report_number(&line, "xi", at->xi);
    cli_report_number(&line, "loss", at->loss);
    cli_report_number(&line, "gate_l1", at->gate_l1);
    cli_report_number(&line, "grad_norm", at->grad_norm);
    cli_report_number(&line, "lr_factor", at->lr_factor);
    cli_report_count(&line, "tokens", at->tokens);
    cli_report_count(&line, "scored_tokens", at->scored_tokens);
    cli_report_number(&line, "tokens_per_second", at->tokens_per_second);
    cli_report_number(&line, "seconds", at->seconds);
    cli_report_count(&line, "gates_kept", at->gates_kept);
    cli_report_count(&line, "gates", at->gates);
    buf_text(&line, "}");
    log_line(view, &line);
}

static void on_step(void *context, const struct sora_train_progress *at)
{
    struct train_view *view = context;
    char text[128], ranks[64] = "";
    if (at->gates > 0)
        snprintf(ranks, sizeof ranks, "  ranks %lld/%lld", (long long)at->gates_kept,
                 (long long)at->gates);
    snprintf(text, sizeof text, "loss %.3f  %.0f tok/s%s", at->loss, at->tokens_per_second, ranks);
    cli_progress_show(&view->progress, at->step, at->steps, text);
    view->gates_kept = at->gates_kept;
    view->gates = at->gates;
    if (view->log != NULL)
        log_step(view, at);
}

static void on_eval(void *context, const struct sora_train_progress *at,
                    const struct sora_eval_result *result)
{
    struct train_view *view = context;
    cli_progress_clear(&view->progress);
    if (!view->quiet) {
        fprintf(stderr, "stage %d of %d, xi %g: eval loss %.4f", at->stage + 1, at->stage_count,
                at->xi, result->loss);
        if (result->has_accuracy)
            fprintf(stderr, ", accuracy %.4f", result->accuracy);
        if (result->has_exact_match)
            fprintf(stderr, ", exact match %.4f", result->exact_match);
        fprintf(stderr, ", ranks %lld/%lld\n", (long long)at->gates_kept, (long long)at->gates);
    }
    if (view->log == NULL)
        return;
    struct buf line;
    buf_init(&line, JSON_BYTES_MAX);
    buf_printf(&line, "{\"step\":%lld", (long long)at->step);
    cli_report_count(&line, "stage", at->stage);
    cli_report_number(&line, "xi", at->xi);
    cli_report_count(&line, "gates_kept", at->gates_kept);
    buf_text(&line, ",\"eval\":");
    cli_report_eval_json(&line, result);
    buf_text(&line, "}");
    log_line(view, &line);
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

static sora_status run_training(const struct train_args *args, const sora_model *model,
                                const sora_tokenizer *tokenizer, struct train_view *view,
                                struct sora_train_result *result, struct sora_error *err)
{
    struct sora_train_hooks hooks = {
        .context = view, .on_step = on_step, .on_eval = on_eval, .cancel = &cancelled};
    struct sigaction interrupt = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &interrupt, NULL);
    sigaction(SIGTERM, &interrupt, NULL);
    sora_status status = sora_train_run(model, tokenizer, args->data, args->eval_data,
                                        &args->options, &hooks, result, err);
    cli_progress_clear(&view->progress);
    if (status == SORA_OK && view->log_failed)
        status = sora_fail(err, SORA_IO, "--log %s could not be written", args->log);
    return status;
}

static sora_status print_json(const struct train_args *args, const struct sora_train_result *result,
                              const char *digest, struct sora_error *err)
{
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
    cli_report_text(&out, "digest", digest);
    if (result->has_eval) {
        buf_text(&out, ",\"eval\":");
        cli_report_eval_json(&out, &result->eval);
    }
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
                               const struct sora_train_result *result, const char *digest,
                               struct sora_error *err)
{
    sora_adapter *adapter = NULL;
    sora_status status = sora_adapter_parse(result->bytes, result->byte_count, NULL, &adapter, err);
    if (status != SORA_OK)
        return status;
    struct cli_table table;
    cli_table_init(&table, 2, 0);
    add_training_rows(&table, args, view, result, digest);
    if (result->has_eval) {
        cli_table_add(&table, "evaluation");
        cli_table_add(&table, "%s", args->eval_data);
        cli_report_eval_rows(&table, &result->eval);
    }
    cli_table_print(&table, stdout);
    cli_table_deinit(&table);
    fputc('\n', stdout);
    rank_picture_print(stdout, sora_adapter_get_info(adapter), cli_print_width(stdout, 100),
                       cli_print_is_terminal(stdout));
    sora_adapter_destroy(adapter);
    return SORA_OK;
}

static sora_status train(const struct train_args *args, struct sora_error *err)
{
    sora_model *model = NULL;
    sora_tokenizer *tokenizer = NULL;
    struct sora_train_result result = {0};
    struct train_view view = {.quiet = args->quiet};
    char digest[65];
    sora_status status = check_out(args->out, err);
    if (status == SORA_OK && args->log != NULL && (view.log = fopen(args->log, "w")) == NULL)
        status = sora_fail(err, SORA_IO, "--log %s: %s", args->log, strerror(errno));
    if (status == SORA_OK)
        status = sora_model_open(args->model, &model, err);
    if (status == SORA_OK)
        status = sora_tokenizer_open(args->model, &tokenizer, err);
    if (status != SORA_OK)
        goto done;
    cli_progress_init(&view.progress, args->quiet);
    status = run_training(args, model, tokenizer, &view, &result, err);
    if (status == SORA_OK)
        status = sha256_of(result.bytes, result.byte_count, digest, err);
    if (status == SORA_OK)
        status = file_write_atomic(args->out, result.bytes, result.byte_count, err);
    if (status != SORA_OK)
        goto done;
    if (args->json)
        status = print_json(args, &result, digest, err);
    else if (!args->quiet)
        status = print_table(args, &view, &result, digest, err);
    if (status == SORA_OK && args->upload.url != NULL &&
        upload_adapter(&args->upload, result.bytes, result.byte_count, err) != SORA_OK)
        status = sora_fail_within(err, SORA_IO, "%s is written, but the upload failed", args->out);
done:
    if (view.log != NULL && fclose(view.log) != 0 && status == SORA_OK)
        status = sora_fail(err, SORA_IO, "--log %s: %s", args->log, strerror(errno));
    free(result.bytes);
    sora_tokenizer_close(tokenizer);
    sora_model_close(model);
    return status;
}

int cmd_train(int argc, char **argv)
{
    struct train_args args = {.options = sora_train_options_defaults()};
    struct sora_error err;
    int exit_code = CLI_GOOD;
    if (!cli_parse(&train_command, argc, argv, &args, &exit_code) ||
        !parse_texts(&args, argv[0], &exit_code))
        return exit_code;
    return train(&args, &err) == SORA_OK ? CLI_GOOD : cli_fail(argv[0], &err);
}
