// SPDX-License-Identifier: Apache-2.0
// See train_compare.h.
#include "server/train_compare.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "server/cli_print.h"
#include "server/cli_report.h"

static void describe(const sora_adapter *adapter, const char *name, struct train_compare_side *side)
{
    const struct sora_adapter_info *info = sora_adapter_get_info(adapter);
    cJSON *record = NULL;
    const char *method = NULL;
    struct sora_error err;
    *side =
        (struct train_compare_side){.parameters = info->parameters, .bytes = (int64_t)info->bytes};
    snprintf(side->name, sizeof side->name, "%s", name);
    for (int32_t i = 0; i < info->module_count; i++)
        side->ranks += info->modules[i].rank;
    if (info->training_json != NULL &&
        json_parse(info->training_json, strlen(info->training_json), &record, &err) == SORA_OK &&
        json_get_string(record, "method", &method, &err) != SORA_OK)
        method = NULL;
    snprintf(side->method, sizeof side->method, "%s", method != NULL ? method : "-");
    cJSON_Delete(record);
}

static sora_status evaluate(const struct train_compare_source *source, const struct sora_lora *lora,
                            struct train_compare_side *side, struct sora_error *err)
{
    const struct sora_eval_options options = {.threads = source->threads};
    if (source->eval_data == NULL)
        return SORA_OK;
    side->has_eval = true;
    return sora_eval_run(source->model, source->tokenizer, lora, source->eval_data, &options,
                         &side->eval, err);
}

sora_status train_compare_run(const struct train_compare_source *source, const char *other,
                              const sora_adapter *made, const struct sora_eval_result *eval,
                              struct train_compare *compare, struct sora_error *err)
{
    sora_adapter *adapter = NULL;
    char stem[64];
    *compare = (struct train_compare){.base = {.name = "base", .method = "-"}};
    const bool int8 = sora_compute_for(source->model, SORA_COMPUTE_AUTO) == SORA_COMPUTE_INT8;
    sora_status status =
        sora_adapter_open_as(other, &sora_model_get_info(source->model)->base, int8, &adapter, err);
    if (status != SORA_OK)
        return status;
    file_stem(other, stem, sizeof stem);
    describe(adapter, stem, &compare->other);
    describe(made, "this one", &compare->made);
    compare->made.has_eval = eval != NULL;
    if (eval != NULL)
        compare->made.eval = *eval;
    status = evaluate(source, NULL, &compare->base, err);
    if (status == SORA_OK)
        status = evaluate(source, sora_adapter_get_lora(adapter), &compare->other, err);
    sora_adapter_destroy(adapter);
    return status;
}

static void add_measure(struct cli_table *table, const struct train_compare *compare,
                        const char *name, enum sora_metric metric)
{
    const struct train_compare_side *const sides[] = {&compare->base, &compare->other,
                                                      &compare->made};
    if (!isfinite(sora_metric_value(metric, &compare->made.eval)))
        return;
    cli_table_add(table, "%s", name);
    for (int32_t i = 0; i < 3; i++)
        cli_table_add(table, "%.4f", sora_metric_value(metric, &sides[i]->eval));
}

void train_compare_print(const struct train_compare *compare, FILE *out)
{
    const struct train_compare_side *const sides[] = {&compare->base, &compare->other,
                                                      &compare->made};
    struct cli_table table;
    char text[32];
    cli_table_init(&table, 4, 0xe);
    cli_table_add(&table, "%s", "");
    for (int32_t i = 0; i < 3; i++)
        cli_table_add(&table, "%s", sides[i]->name);
    cli_table_add(&table, "method");
    for (int32_t i = 0; i < 3; i++)
        cli_table_add(&table, "%s", sides[i]->method);
    cli_table_add(&table, "parameters");
    for (int32_t i = 0; i < 3; i++)
        cli_table_add(&table, "%s", cli_print_count(text, sides[i]->parameters));
    cli_table_add(&table, "ranks");
    for (int32_t i = 0; i < 3; i++)
        cli_table_add(&table, "%s", cli_print_count(text, sides[i]->ranks));
    cli_table_add(&table, "file");
    for (int32_t i = 0; i < 3; i++)
        cli_table_add(&table, "%s", cli_print_bytes(text, (double)sides[i]->bytes));
    if (compare->made.has_eval) {
        add_measure(&table, compare, "loss", SORA_METRIC_LOSS);
        add_measure(&table, compare, "accuracy", SORA_METRIC_ACCURACY);
        add_measure(&table, compare, "Matthews correlation", SORA_METRIC_MCC);
    }
    cli_table_print(&table, out);
    cli_table_deinit(&table);
}

static void add_side(struct buf *out, const char *key, const struct train_compare_side *side)
{
    buf_printf(out, "\"%s\":{\"method\":\"%s\"", key, side->method);
    cli_report_count(out, "parameters", side->parameters);
    cli_report_count(out, "ranks", side->ranks);
    cli_report_count(out, "bytes", side->bytes);
    if (side->has_eval) {
        buf_text(out, ",\"eval\":");
        cli_report_eval_json(out, &side->eval);
    }
    buf_text(out, "}");
}

void train_compare_json(const struct train_compare *compare, struct buf *out)
{
    buf_text(out, ",\"compare\":{");
    add_side(out, "base", &compare->base);
    buf_text(out, ",");
    add_side(out, "other", &compare->other);
    buf_text(out, "}");
}
