// SPDX-License-Identifier: Apache-2.0
// The training record, see train_record.h.
#include "train/train_record.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "sora/adapter.h"

enum { RECORD_BYTES_MAX = 64 << 10 }; // 64 xi values and some 30 fields take under 4 KB

static void add_number(struct buf *buf, const char *name, double value)
{
    if (isfinite(value))
        buf_printf(buf, ",\"%s\":%.9g", name, value);
}

static void add_xi(struct buf *buf, const struct sora_train_options *options)
{
    if (options->target_params > 0.0) {
        add_number(buf, "target_params", options->target_params);
        return;
    }
    if (options->xi_count == 1) {
        add_number(buf, "xi", options->xi[0]);
        return;
    }
    buf_text(buf, ",\"xi_schedule\":[");
    for (int32_t i = 0; i < options->xi_count; i++)
        buf_printf(buf, "%s%.9g", i > 0 ? "," : "", options->xi[i]);
    buf_text(buf, "]");
}

static void add_targets(struct buf *buf, const struct sora_train_options *options)
{
    const char *comma = "";
    buf_text(buf, ",\"targets\":[");
    for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++) {
        if (!options->targets[proj])
            continue;
        buf_printf(buf, "%s\"%s\"", comma, sora_proj_name((enum sora_proj)proj));
        comma = ",";
    }
    buf_text(buf, "]");
}

static void add_method(struct buf *buf, const struct sora_train_options *options)
{
    const bool gated = options->method == SORA_METHOD_SORA;
    buf_printf(buf, "{\"method\":\"%s\",\"r_max\":%d", gated ? "sora" : "lora", options->rank);
    add_number(buf, "alpha", options->alpha);
    add_targets(buf, options);
    if (gated) {
        add_xi(buf, options);
        add_number(buf, "lambda", options->lambda);
        add_number(buf, "gate_lr", options->gate_lr);
        buf_printf(buf, ",\"threshold\":\"%s\"",
                   options->threshold == SORA_THRESHOLD_PAPER ? "paper" : "reference");
    }
    add_number(buf, "dropout", options->dropout);
    add_number(buf, "lr", options->lr);
    add_number(buf, "weight_decay", options->weight_decay);
    add_number(buf, "warmup", options->warmup);
    add_number(buf, "clip", options->clip);
    add_number(buf, "epochs", options->epochs);
    buf_printf(buf, ",\"batch_tokens\":%d,\"seed\":%" PRIu64, options->batch_tokens, options->seed);
    buf_printf(buf, ",\"compute\":\"%s\"", options->compute == SORA_COMPUTE_INT8 ? "int8" : "f32");
}

static void add_metrics(struct buf *buf, const struct sora_train_rung *result)
{
    buf_printf(buf, ",\"metrics\":{\"parameters\":%" PRId64 ",\"parameters_full\":%" PRId64,
               result->parameters, result->parameters_full);
    add_number(buf, "kept", result->kept);
    add_number(buf, "loss", result->loss);
    if (result->has_eval) {
        add_number(buf, "eval_loss", result->eval.loss);
        if (result->eval.has_accuracy)
            add_number(buf, "eval_accuracy", result->eval.accuracy);
        if (result->eval.has_accuracy)
            add_number(buf, "eval_mcc", result->eval.mcc);
        if (result->eval.has_exact_match) {
            add_number(buf, "eval_exact_match", result->eval.exact_match);
            add_number(buf, "eval_rouge_l", result->eval.rouge_l);
            add_number(buf, "eval_bleu", result->eval.bleu);
        }
    }
    buf_text(buf, "}");
}

sora_status train_record_encode(const struct sora_train_options *options,
                                const struct sora_base *base, const char *data_digest,
                                const struct sora_train_rung *rung, char **json,
                                struct sora_error *err)
{
    struct buf buf;
    buf_init(&buf, RECORD_BYTES_MAX);
    add_method(&buf, options);
    if (options->xi_count > 1) {
        buf_printf(&buf, ",\"stage\":%d", rung->stage + 1);
        add_number(&buf, "xi", rung->xi);
    }
    buf_printf(&buf, ",\"steps\":%" PRId64 ",\"tokens\":%" PRId64 ",\"scored_tokens\":%" PRId64,
               rung->steps, rung->tokens, rung->scored_tokens);
    buf_text(&buf, ",\"data_digest\":");
    buf_json_string(&buf, data_digest, strlen(data_digest));
    buf_text(&buf, ",\"weight_type\":");
    buf_json_string(&buf, base->weight_type, strlen(base->weight_type));
    add_metrics(&buf, rung);
    buf_text(&buf, ",\"version\":\"" SORA_VERSION "\"}");
    const sora_status status = buf_status(&buf, err);
    size_t bytes;
    if (status == SORA_OK)
        *json = buf_take(&buf, &bytes);
    buf_deinit(&buf);
    return status;
}
