// SPDX-License-Identifier: Apache-2.0
// See cli_report.h.
#include "server/cli_report.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define WRITTEN_BYTES_MAX 65536 // one path, one digest, two numbers

void cli_report_number(struct buf *out, const char *key, double value)
{
    if (isfinite(value))
        buf_printf(out, ",\"%s\":%.9g", key, value);
}

void cli_report_count(struct buf *out, const char *key, int64_t value)
{
    buf_printf(out, ",\"%s\":%lld", key, (long long)value);
}

void cli_report_text(struct buf *out, const char *key, const char *value)
{
    buf_printf(out, ",\"%s\":", key);
    buf_json_string(out, value, strlen(value));
}

void cli_report_eval_json(struct buf *out, const struct sora_eval_result *result)
{
    buf_printf(out, "{\"examples\":%lld", (long long)result->examples);
    cli_report_count(out, "tokens", result->tokens);
    cli_report_number(out, "loss", result->loss);
    cli_report_number(out, "perplexity", result->perplexity);
    if (result->has_accuracy) {
        cli_report_number(out, "accuracy", result->accuracy);
        cli_report_number(out, "mcc", result->mcc);
    }
    if (result->has_exact_match) {
        cli_report_number(out, "exact_match", result->exact_match);
        cli_report_number(out, "rouge_l", result->rouge_l);
        cli_report_number(out, "bleu", result->bleu);
    }
    cli_report_number(out, "seconds", result->seconds);
    buf_text(out, "}");
}

static void add_row(struct cli_table *table, const char *name, const char *format, double value)
{
    cli_table_add(table, "%s", name);
    char text[64];
    snprintf(text, sizeof text, format, value);
    cli_table_add(table, "%s", text);
}

void cli_report_eval_rows(struct cli_table *table, const struct sora_eval_result *result)
{
    add_row(table, "examples", "%.0f", (double)result->examples);
    add_row(table, "scored tokens", "%.0f", (double)result->tokens);
    add_row(table, "loss", "%.4f", result->loss);
    add_row(table, "perplexity", "%.3f", result->perplexity);
    if (result->has_accuracy)
        add_row(table, "accuracy", "%.4f", result->accuracy);
    if (result->has_accuracy && isfinite(result->mcc))
        add_row(table, "Matthews correlation", "%.4f", result->mcc);
    if (result->has_exact_match) {
        add_row(table, "exact match", "%.4f", result->exact_match);
        add_row(table, "ROUGE-L", "%.4f", result->rouge_l);
        add_row(table, "BLEU", "%.4f", result->bleu);
    }
    add_row(table, "seconds", "%.1f", result->seconds);
}

sora_status cli_report_print(struct buf *out, struct sora_error *err)
{
    buf_text(out, "\n");
    sora_status status = buf_status(out, err);
    if (status == SORA_OK &&
        (fwrite(out->data, 1, out->bytes, stdout) != out->bytes || fflush(stdout) != 0))
        status = sora_fail(err, SORA_IO, "standard output: %s", strerror(errno));
    buf_deinit(out);
    return status;
}

sora_status cli_report_written(const char *out, const struct sora_adapter_info *info, bool json,
                               bool quiet, struct sora_error *err)
{
    if (json) {
        struct buf line;
        buf_init(&line, WRITTEN_BYTES_MAX);
        buf_text(&line, "{\"out\":");
        buf_json_string(&line, out, strlen(out));
        cli_report_text(&line, "digest", info->digest);
        cli_report_count(&line, "parameters", info->parameters);
        cli_report_count(&line, "modules", info->module_count);
        buf_text(&line, "}");
        return cli_report_print(&line, err);
    }
    char count[32];
    if (!quiet)
        printf("%s: %s parameters in %d modules, digest %s\n", out,
               cli_print_count(count, info->parameters), info->module_count, info->digest);
    return SORA_OK;
}
