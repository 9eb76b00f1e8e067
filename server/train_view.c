// SPDX-License-Identifier: Apache-2.0
// See train_view.h.
#include "server/train_view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"
#include "server/cli_report.h"
#include "server/train_pick.h"

#define LINE_BYTES_MAX 65536 // of the log

static void fail_log(struct train_view *view)
{
    if (!view->log_failed)
        (void)sora_fail(&view->log_error, SORA_IO, "--log %s: %s", view->log_path, strerror(errno));
    view->log_failed = true;
}

sora_status train_view_open(struct train_view *view, struct sora_error *err)
{
    cli_progress_init(&view->progress, view->quiet);
    if (view->log_path == NULL)
        return SORA_OK;
    // Reading and writing without cutting: whether it is cut is known when the run starts.
    const bool is_new = !file_exists(view->log_path);
    view->log = fopen(view->log_path, is_new ? "w+" : "r+");
    if (view->log == NULL)
        return sora_fail(err, SORA_IO, "--log %s: %s", view->log_path, strerror(errno));
    return SORA_OK;
}

sora_status train_view_close(struct train_view *view, struct sora_error *err)
{
    cli_progress_clear(&view->progress);
    if (view->log != NULL && fclose(view->log) != 0)
        fail_log(view);
    view->log = NULL;
    if (!view->log_failed)
        return SORA_OK;
    return sora_fail(err, SORA_IO, "%s", view->log_error.text);
}

// Whether a line of the log tells of what the checkpoint knows: steps up to its own, and the
// evaluation after that one unless it has to be done again.
static bool line_is_known(const char *line, size_t bytes, const struct sora_train_start *start)
{
    cJSON *object = NULL;
    int64_t step = 0;
    struct sora_error err;
    bool known = json_parse(line, bytes, &object, &err) == SORA_OK && json_has(object, "step") &&
                 json_get_int(object, "step", 1, INT64_C(1) << 53, &step, &err) == SORA_OK;
    if (known && json_has(object, "eval") && start->resumed_eval_pending)
        step++;
    known = known && step <= start->resumed_step;
    cJSON_Delete(object);
    return known;
}

// Bytes at the log's beginning that stay.
static long known_bytes(FILE *log, const struct sora_train_start *start)
{
    char *line = NULL;
    size_t capacity = 0;
    long kept = 0;
    for (;;) {
        const ssize_t bytes = getline(&line, &capacity, log);
        if (bytes <= 0 || bytes > LINE_BYTES_MAX || line[bytes - 1] != '\n' ||
            !line_is_known(line, (size_t)bytes, start))
            break;
        kept += bytes;
    }
    free(line);
    return kept;
}

static void cut_log(struct train_view *view, const struct sora_train_start *start)
{
    if (view->log == NULL)
        return;
    const long kept = start->resumed ? known_bytes(view->log, start) : 0;
    if (fseek(view->log, kept, SEEK_SET) != 0 || ftruncate(fileno(view->log), kept) != 0)
        fail_log(view);
}

void train_view_on_start(void *context, const struct sora_train_start *start)
{
    struct train_view *view = context;
    char examples[32], tokens[32], scored[32], steps[32];
    view->start = *start;
    view->progress.skipped = start->resumed_step;
    cut_log(view, start);
    if (view->quiet)
        return;
    fprintf(stderr, "data: %s examples, %s tokens, %s of them scored (%.1f %%), longest %lld",
            cli_print_count(examples, start->examples), cli_print_count(tokens, start->tokens),
            cli_print_count(scored, start->scored_tokens),
            100 * (double)start->scored_tokens / (double)start->tokens, (long long)start->longest);
    if (start->cut_examples > 0)
        fprintf(stderr, ", %lld cut", (long long)start->cut_examples);
    fprintf(stderr, "; %s steps\n", cli_print_count(steps, start->steps));
    if (start->resumed)
        fprintf(stderr, "goes on after step %lld\n", (long long)start->resumed_step);
}

static void log_line(struct train_view *view, struct buf *line)
{
    buf_text(line, "\n");
    if (line->status != SORA_OK || fwrite(line->data, 1, line->bytes, view->log) != line->bytes ||
        fflush(view->log) != 0)
        fail_log(view);
    buf_deinit(line);
}

static void log_step(struct train_view *view, const struct sora_train_progress *at)
{
    struct buf line;
    buf_init(&line, LINE_BYTES_MAX);
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

void train_view_on_step(void *context, const struct sora_train_progress *at)
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

static void print_eval(const struct sora_train_progress *at, const struct sora_eval_result *result)
{
    fprintf(stderr, "step %lld, stage %d of %d, xi %g: eval loss %.4f", (long long)at->step,
            at->stage + 1, at->stage_count, at->xi, result->loss);
    if (result->has_accuracy)
        fprintf(stderr, ", accuracy %.4f", result->accuracy);
    if (result->has_exact_match)
        fprintf(stderr, ", exact match %.4f, ROUGE-L %.4f, BLEU %.4f", result->exact_match,
                result->rouge_l, result->bleu);
    fprintf(stderr, ", ranks %lld/%lld\n", (long long)at->gates_kept, (long long)at->gates);
}

void train_view_on_eval(void *context, const struct sora_train_progress *at,
                        const struct sora_eval_result *result)
{
    struct train_view *view = context;
    cli_progress_clear(&view->progress);
    if (!view->quiet)
        print_eval(at, result);
    if (view->log == NULL)
        return;
    struct buf line;
    buf_init(&line, LINE_BYTES_MAX);
    buf_printf(&line, "{\"step\":%lld", (long long)at->step);
    cli_report_count(&line, "stage", at->stage);
    cli_report_number(&line, "xi", at->xi);
    cli_report_count(&line, "gates_kept", at->gates_kept);
    buf_text(&line, ",\"eval\":");
    cli_report_eval_json(&line, result);
    buf_text(&line, "}");
    log_line(view, &line);
}

sora_status train_view_on_rung(void *context, const struct sora_train_rung *rung,
                               const uint8_t *bytes, size_t byte_count, struct sora_error *err)
{
    struct train_view *view = context;
    view->gates_kept = rung->gates_kept;
    if (!view->has_stages)
        return SORA_OK;
    char *path = train_ladder_path(view->out, rung->stage);
    if (path == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a path");
    const sora_status status = file_write_atomic(path, bytes, byte_count, err);
    free(path);
    return status;
}
