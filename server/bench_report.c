// SPDX-License-Identifier: Apache-2.0
// See bench.h: the tables for people and the line of JSON for machines.
#include <cJSON.h>
#include <stdio.h>
#include <stdlib.h>

#include "server/bench.h"
#include "server/cli_print.h"

static void print_prefill(const struct bench_result *result)
{
    struct cli_table table;
    cli_table_init(&table, 3, 6);
    cli_table_add(&table, "prefill, tokens");
    cli_table_add(&table, "tok/s");
    cli_table_add(&table, "of sgemm");
    for (int32_t i = 0; i < result->prefill_count; i++) {
        const struct bench_prefill *row = &result->prefill[i];
        cli_table_add(&table, "%d", (int)row->tokens);
        cli_table_add(&table, "%.0f", row->tok_per_s);
        cli_table_add(&table, "%.2f", row->of_sgemm);
    }
    cli_table_print(&table, stdout);
    cli_table_deinit(&table);
}

static void print_decode(const struct bench_result *result)
{
    struct cli_table table;
    cli_table_init(&table, 4, 14);
    cli_table_add(&table, "decode, sequences");
    cli_table_add(&table, "tok/s");
    cli_table_add(&table, "of sgemm");
    cli_table_add(&table, "of stream");
    for (int32_t i = 0; i < result->decode_count; i++) {
        const struct bench_decode *row = &result->decode[i];
        cli_table_add(&table, "%d", (int)row->batch);
        cli_table_add(&table, "%.0f", row->tok_per_s);
        cli_table_add(&table, "%.2f", row->of_sgemm);
        cli_table_add(&table, "%.2f", row->of_stream);
    }
    cli_table_print(&table, stdout);
    cli_table_deinit(&table);
}

static void print_mixed(const struct bench_result *result)
{
    struct cli_table table;
    cli_table_init(&table, 6, 62);
    static const char *const heads[] = {"mixed, ranks", "sequences", "adapters",
                                        "tok/s",        "of base",   "adapters read"};
    for (int i = 0; i < 6; i++)
        cli_table_add(&table, "%s", heads[i]);
    for (int32_t i = 0; i < result->mixed_count; i++) {
        const struct bench_mixed *row = &result->mixed[i];
        char bytes[32];
        cli_table_add(&table, "%s", row->ranks);
        cli_table_add(&table, "%d", (int)row->batch);
        cli_table_add(&table, "%d", (int)row->adapters);
        cli_table_add(&table, "%.0f", row->tok_per_s);
        cli_table_add(&table, "%.2f", row->of_base);
        cli_table_add(&table, "%s", cli_print_bytes(bytes, row->adapter_bytes));
    }
    cli_table_print(&table, stdout);
    cli_table_deinit(&table);
}

static void print_split(const char *what, const struct bench_split *split)
{
    printf("%s: base matrices %.1f %%, adapters %.1f %%, attention %.1f %%, rest %.1f %%\n", what,
           100 * split->base_matmul, 100 * split->adapter, 100 * split->attention,
           100 * split->rest);
}

void bench_print(const struct bench_result *result)
{
    printf("%s, %s, %d threads, compute %s\n", sora_machine_cpu(), sora_machine_isa(),
           (int)result->threads, result->compute);
    printf("sgemm %.0f GFLOPS, streaming reads %.1f GB/s\n", result->sgemm_gflops,
           result->stream_gbps);
    printf("%s: %.1f M parameters, %.1f MB read a step, loaded in %.2f s\n\n", result->model->name,
           (double)result->model->parameters * 1e-6, (double)result->model->step_bytes * 1e-6,
           result->model->load_seconds);
    if (result->prefill_count > 0) {
        print_prefill(result);
        printf("\n");
    }
    if (result->decode_count > 0) {
        print_decode(result);
        printf("\n");
    }
    if (result->mixed_count > 0) {
        print_mixed(result);
        printf("\n");
    }
    if (result->point_count > 0)
        printf("adapter time by rank sum, 16 sequences: %.2f ns for each rank of a row, r2 %.4f\n",
               result->slope_ns, result->r2);
    if (result->has_base_split)
        print_split("a step of 16", &result->base_split);
    if (result->has_mixed_split)
        print_split("a step of 16 with ragged adapters", &result->mixed_split);
    if (result->has_sampling)
        printf("sampling, share of a step of 16: greedy %.1f %%, top-k and top-p %.1f %%, with "
               "penalties %.1f %%\n",
               100 * result->sampling.greedy, 100 * result->sampling.filtered,
               100 * result->sampling.penalized);
}

// Digits enough for ratios; cJSON would print all 17.
static void add_number(cJSON *object, const char *key, double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.6g", value);
    cJSON_AddRawToObject(object, key, text);
}

static cJSON *add_row(cJSON *array)
{
    cJSON *row = cJSON_CreateObject();
    cJSON_AddItemToArray(array, row);
    return row;
}

static void add_split(cJSON *object, const char *key, const struct bench_split *split)
{
    cJSON *shares = cJSON_AddObjectToObject(object, key);
    add_number(shares, "base_matmul", split->base_matmul);
    add_number(shares, "adapter", split->adapter);
    add_number(shares, "attention", split->attention);
    add_number(shares, "rest", split->rest);
}

static void add_lists(cJSON *root, const struct bench_result *result)
{
    cJSON *prefill = cJSON_AddArrayToObject(root, "prefill");
    for (int32_t i = 0; i < result->prefill_count; i++) {
        cJSON *row = add_row(prefill);
        add_number(row, "tokens", result->prefill[i].tokens);
        add_number(row, "tok_per_s", result->prefill[i].tok_per_s);
        add_number(row, "of_sgemm", result->prefill[i].of_sgemm);
    }
    cJSON *decode = cJSON_AddArrayToObject(root, "decode");
    for (int32_t i = 0; i < result->decode_count; i++) {
        cJSON *row = add_row(decode);
        add_number(row, "batch", result->decode[i].batch);
        add_number(row, "tok_per_s", result->decode[i].tok_per_s);
        add_number(row, "of_sgemm", result->decode[i].of_sgemm);
        add_number(row, "of_stream", result->decode[i].of_stream);
    }
    cJSON *mixed = cJSON_AddArrayToObject(root, "mixed");
    for (int32_t i = 0; i < result->mixed_count; i++) {
        cJSON *row = add_row(mixed);
        add_number(row, "adapters", result->mixed[i].adapters);
        cJSON_AddStringToObject(row, "ranks", result->mixed[i].ranks);
        add_number(row, "batch", result->mixed[i].batch);
        add_number(row, "tok_per_s", result->mixed[i].tok_per_s);
        add_number(row, "of_base", result->mixed[i].of_base);
        add_number(row, "rank_sum", result->mixed[i].rank_sum);
        add_number(row, "adapter_bytes", result->mixed[i].adapter_bytes);
    }
}

static void add_rest(cJSON *root, const struct bench_result *result)
{
    cJSON *split = cJSON_AddObjectToObject(root, "step_split");
    if (result->has_base_split)
        add_split(split, "base", &result->base_split);
    if (result->has_mixed_split)
        add_split(split, "ragged", &result->mixed_split);
    if (result->point_count > 0) {
        cJSON *sums = cJSON_AddObjectToObject(root, "rank_sum");
        add_number(sums, "slope_ns", result->slope_ns);
        add_number(sums, "r2", result->r2);
        cJSON *points = cJSON_AddArrayToObject(sums, "points");
        for (int32_t i = 0; i < result->point_count; i++) {
            cJSON *row = add_row(points);
            add_number(row, "rank_sum", result->points[i].rank_sum);
            add_number(row, "adapter_us", result->points[i].adapter_us);
        }
    }
    if (result->has_sampling) {
        cJSON *sampling = cJSON_AddObjectToObject(root, "sampling");
        add_number(sampling, "greedy", result->sampling.greedy);
        add_number(sampling, "filtered", result->sampling.filtered);
        add_number(sampling, "penalized", result->sampling.penalized);
    }
}

sora_status bench_print_json(const struct bench_result *result, struct sora_error *err)
{
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "cpu", sora_machine_cpu());
    cJSON_AddStringToObject(root, "isa", sora_machine_isa());
    add_number(root, "threads", result->threads);
    cJSON_AddStringToObject(root, "compute", result->compute);
    add_number(root, "sgemm_gflops", result->sgemm_gflops);
    add_number(root, "stream_gbps", result->stream_gbps);
    add_number(root, "load_seconds", result->model->load_seconds);
    add_lists(root, result);
    add_rest(root, result);
    char *text = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    if (text == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the report");
    printf("%s\n", text);
    free(text);
    return SORA_OK;
}
