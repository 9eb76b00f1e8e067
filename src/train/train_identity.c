// SPDX-License-Identifier: Apache-2.0
// The identity of a training run, see train_identity.h.
#include "train/train_identity.h"

#include <inttypes.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "sora/adapter.h"

enum { IDENTITY_BYTES_MAX = 64 << 10, DIFFERENCES_BYTES_MAX = 4096 };

static void add_text(struct buf *buf, const char *name, const char *value)
{
    buf_printf(buf, "%s\"%s\":", buf->bytes > 1 ? "," : "", name);
    buf_json_string(buf, value, strlen(value));
}

static void add_count(struct buf *buf, const char *name, int64_t value)
{
    buf_printf(buf, ",\"%s\":\"%" PRId64 "\"", name, value);
}

static void add_number(struct buf *buf, const char *name, double value)
{
    buf_printf(buf, ",\"%s\":\"%.17g\"", name, value);
}

static void add_lists(struct buf *buf, const struct sora_train_options *options)
{
    buf_text(buf, ",\"targets\":\"");
    for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++)
        if (options->targets[proj])
            buf_printf(buf, " %s", sora_proj_name((enum sora_proj)proj));
    buf_text(buf, "\",\"xi\":\"");
    if (options->target_params == 0.0 && options->method == SORA_METHOD_SORA)
        for (int32_t i = 0; i < options->xi_count; i++)
            buf_printf(buf, "%s%.17g", i > 0 ? "," : "", options->xi[i]);
    buf_text(buf, "\"");
}

static void add_options(struct buf *buf, const struct sora_train_options *options)
{
    add_text(buf, "method", options->method == SORA_METHOD_SORA ? "sora" : "lora");
    add_text(buf, "compute", sora_compute_name(options->compute));
    add_count(buf, "rank", options->rank);
    add_number(buf, "alpha", options->alpha);
    add_lists(buf, options);
    add_number(buf, "target-params", options->target_params);
    add_number(buf, "dropout", options->dropout);
    add_number(buf, "lambda", options->lambda);
    add_text(buf, "threshold", options->threshold == SORA_THRESHOLD_PAPER ? "paper" : "reference");
    add_number(buf, "epochs", options->epochs);
    add_count(buf, "batch-tokens", options->batch_tokens);
    add_number(buf, "lr", options->lr);
    add_number(buf, "gate-lr", options->gate_lr);
    add_number(buf, "weight-decay", options->weight_decay);
    add_number(buf, "warmup", options->warmup);
    add_number(buf, "clip", options->clip);
    buf_printf(buf, ",\"seed\":\"%" PRIu64 "\"", options->seed);
    add_count(buf, "example-tokens", options->example_tokens_max);
    add_text(buf, "cut", options->cut ? "yes" : "no");
    add_text(buf, "keep-zero-ranks", options->keep_zero_ranks ? "yes" : "no");
    add_count(buf, "eval-every", options->eval_steps);
    add_count(buf, "patience", options->patience);
    add_text(buf, "metric", sora_metric_name(options->metric));
    add_count(buf, "dtype", (int64_t)options->dtype);
    add_text(buf, "chat-template", options->chat_template != NULL ? options->chat_template : "");
}

sora_status train_identity_encode(const struct sora_train_options *options,
                                  const struct sora_base *base, const char *data_digest,
                                  const char *eval_digest, char **json, struct sora_error *err)
{
    struct buf buf;
    buf_init(&buf, IDENTITY_BYTES_MAX);
    buf_text(&buf, "{");
    add_text(&buf, "model", base->fingerprint);
    add_text(&buf, "model weights", base->weight_type);
    add_text(&buf, "data", data_digest);
    add_text(&buf, "eval-data", eval_digest);
    add_options(&buf, options);
    buf_text(&buf, "}");
    const sora_status status = buf_status(&buf, err);
    size_t bytes;
    *json = status == SORA_OK ? buf_take(&buf, &bytes) : NULL;
    buf_deinit(&buf);
    return status;
}

// Digests are told apart by their first digits.
static void add_difference(struct buf *buf, const char *name, const char *was, const char *is)
{
    const bool digest = strlen(is) == 64 || strlen(was) == 64;
    buf_printf(buf, digest ? "%s%s was %.12s, is %.12s" : "%s%s was \"%.64s\", is \"%.64s\"",
               buf->bytes > 0 ? "; " : "", name, was, is);
}

static sora_status compare_members(const cJSON *was, const cJSON *is, struct sora_error *err)
{
    struct buf differences;
    buf_init(&differences, DIFFERENCES_BYTES_MAX);
    const cJSON *member;
    cJSON_ArrayForEach(member, is)
    {
        const cJSON *saved = cJSON_GetObjectItemCaseSensitive(was, member->string);
        const char *text = cJSON_IsString(saved) ? saved->valuestring : "not recorded";
        if (strcmp(text, member->valuestring) != 0)
            add_difference(&differences, member->string, text, member->valuestring);
    }
    sora_status status = SORA_OK;
    if (differences.bytes > 0)
        status = sora_fail(err, SORA_MISMATCH, "it is of another run: %s", differences.data);
    buf_deinit(&differences);
    return status;
}

sora_status train_identity_compare(const char *saved, const char *own, struct sora_error *err)
{
    cJSON *was = NULL, *is = NULL;
    sora_status status = json_parse(saved, strlen(saved), &was, err);
    if (status == SORA_OK)
        status = json_parse(own, strlen(own), &is, err);
    if (status == SORA_OK)
        status = compare_members(was, is, err);
    cJSON_Delete(was);
    cJSON_Delete(is);
    return status;
}
