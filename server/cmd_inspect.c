// SPDX-License-Identifier: Apache-2.0
// `sora-server inspect`: what is in a model, an adapter file or a PEFT folder, as a table and a
// picture, or as JSON. Runs in the main thread.
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/gguf.h"
#include "base/json.h"
#include "base/safetensors.h"
#include "base/sha256.h"
#include "server/cli.h"
#include "server/cli_print.h"
#include "server/cli_report.h"
#include "server/commands.h"
#include "server/rank_picture.h"
#include "sora/adapter.h"
#include "sora/engine.h"

struct inspect_args {
    const char *path;
    bool all, json;
};

#define AT(field) offsetof(struct inspect_args, field)

static const struct cli_option inspect_options[] = {
    {"FILE", 0, CLI_POSITIONAL, AT(path), "FILE", NULL, 0, 0, true},
    {"all", 0, CLI_FLAG, AT(all), NULL,
     "Every tensor of a model, every module of an adapter, in a row of its own", 0, 0, false},
    {"json", 0, CLI_FLAG, AT(json), NULL, "One JSON object on standard output", 0, 0, false},
};

static const struct cli_command inspect_command = {
    .doc = "Tell what is in a model or an adapter.\v"
           "FILE is a .gguf file, a Hugging Face folder, an adapter file (ours, PEFT's or "
           "llama.cpp's), or a PEFT folder. Of an "
           "adapter you also see which ranks were kept: the rank of each module (rows) in each "
           "layer (columns).\n\n"
           "Example:\n"
           "  sora-server inspect my.safetensors",
    .options = inspect_options,
    .option_count = sizeof inspect_options / sizeof inspect_options[0],
};

static bool is_in_folder(const char *folder, const char *name)
{
    char *path = file_join(folder, name);
    bool found = path != NULL && file_exists(path);
    free(path);
    return found;
}

// By what is in the file, not by its name: GGUF begins with its name, a folder has a config.
enum content { CONTENT_MODEL, CONTENT_GGUF_ADAPTER, CONTENT_ADAPTER };

static enum content find_content(const char *path)
{
    if (file_is_folder(path))
        return is_in_folder(path, "config.json") && !is_in_folder(path, "adapter_config.json")
                   ? CONTENT_MODEL
                   : CONTENT_ADAPTER;
    struct file_map map;
    struct gguf *gguf = NULL;
    struct gguf_string type = {"", 0};
    enum content content = CONTENT_ADAPTER;
    if (file_map_open(path, &map, NULL) != SORA_OK)
        return CONTENT_ADAPTER;
    if (sora_adapter_is_gguf(map.data, map.bytes)) {
        content = CONTENT_MODEL; // also when it is broken: the model's reader says how
        if (gguf_parse(map.data, map.bytes, &gguf, NULL) == SORA_OK &&
            gguf_get_string(gguf, "general.type", &type) && type.bytes == strlen("adapter") &&
            memcmp(type.data, "adapter", type.bytes) == 0)
            content = CONTENT_GGUF_ADAPTER;
        gguf_close(gguf);
    }
    file_map_close(&map);
    return content;
}

// A member of a description as text for a cell.
static void add_member(struct cli_table *table, const cJSON *item)
{
    char text[32];
    cli_table_add(table, "%s", item->string);
    if (cJSON_IsString(item))
        cli_table_add(table, "%s", item->valuestring);
    else if (cJSON_IsBool(item))
        cli_table_add(table, "%s", cJSON_IsTrue(item) ? "yes" : "no");
    else if (strcmp(item->string, "bytes") == 0)
        cli_table_add(table, "%s", cli_print_bytes(text, item->valuedouble));
    else if (strcmp(item->string, "parameters") == 0)
        cli_table_add(table, "%s", cli_print_count(text, (int64_t)item->valuedouble));
    else
        cli_table_add(table, "%.9g", item->valuedouble);
}

// "blk.7.attn_q.weight" as "blk.*.attn_q.weight", so that layers that are alike share a row.
static void tensor_pattern(const char *name, char *out, size_t out_bytes)
{
    size_t used = 0;
    for (const char *part = name; *part != '\0' && used + 1 < out_bytes;) {
        size_t bytes = strcspn(part, "."), digits = strspn(part, "0123456789");
        bool number = bytes > 0 && digits == bytes;
        used += (size_t)snprintf(out + used, out_bytes - used, "%.*s%s", (int)(number ? 1 : bytes),
                                 number ? "*" : part, part[bytes] == '.' ? "." : "");
        part += bytes + (part[bytes] == '.');
    }
}

static void shape_text(const cJSON *shape, char *out, size_t out_bytes)
{
    size_t used = 0;
    const cJSON *item;
    out[0] = '\0';
    cJSON_ArrayForEach(item, shape)
    {
        if (used < out_bytes)
            used += (size_t)snprintf(out + used, out_bytes - used, used > 0 ? " x %.0f" : "%.0f",
                                     item->valuedouble);
    }
}

// One row of the tensor table: tensors of the same pattern, type and shape.
struct tensor_row {
    char pattern[SORA_TENSOR_NAME_BYTES_MAX + 1];
    char shape[96];
    const char *type;
    int64_t count;
};

static bool same_row(const struct tensor_row *a, const struct tensor_row *b)
{
    return strcmp(a->pattern, b->pattern) == 0 && strcmp(a->shape, b->shape) == 0 &&
           strcmp(a->type, b->type) == 0;
}

#define TENSOR_ROW_COUNT_MAX 512 // patterns; a model has about 20

static sora_status print_tensors(const cJSON *tensors, bool all, struct sora_error *err)
{
    struct tensor_row *rows = calloc(TENSOR_ROW_COUNT_MAX, sizeof *rows);
    if (rows == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "out of memory");
    struct cli_table table;
    int32_t row_count = 0;
    cli_table_init(&table, 4, 1u << 3);
    const cJSON *tensor;
    cJSON_ArrayForEach(tensor, tensors)
    {
        struct tensor_row row = {.count = 1};
        const char *name = cJSON_GetObjectItem(tensor, "name")->valuestring;
        row.type = cJSON_GetObjectItem(tensor, "type")->valuestring;
        shape_text(cJSON_GetObjectItem(tensor, "shape"), row.shape, sizeof row.shape);
        snprintf(row.pattern, sizeof row.pattern, "%s", name);
        if (!all)
            tensor_pattern(name, row.pattern, sizeof row.pattern);
        int32_t i = 0;
        while (!all && i < row_count && !same_row(&rows[i], &row))
            i++;
        if (!all && i < row_count) {
            rows[i].count++;
            continue;
        }
        if (!all && row_count < TENSOR_ROW_COUNT_MAX) {
            rows[row_count++] = row;
            continue;
        }
        cli_table_add(&table, "%s", row.pattern);
        cli_table_add(&table, "%s", row.type);
        cli_table_add(&table, "%s", row.shape);
        cli_table_add(&table, "1");
    }
    for (int32_t i = 0; i < row_count; i++) {
        cli_table_add(&table, "%s", rows[i].pattern);
        cli_table_add(&table, "%s", rows[i].type);
        cli_table_add(&table, "%s", rows[i].shape);
        cli_table_add(&table, "%lld", (long long)rows[i].count);
    }
    fputc('\n', stdout);
    cli_table_print(&table, stdout);
    cli_table_deinit(&table);
    free(rows);
    return SORA_OK;
}

static sora_status inspect_model(const struct inspect_args *args, struct sora_error *err)
{
    char *text = NULL;
    cJSON *tree = NULL;
    sora_status status = sora_model_describe(args->path, &text, err);
    if (status != SORA_OK)
        return status;
    if (args->json) {
        puts(text);
        goto done;
    }
    status = json_parse(text, strlen(text), &tree, err);
    if (status != SORA_OK)
        goto done;
    struct cli_table table;
    cli_table_init(&table, 2, 0);
    const cJSON *item;
    cJSON_ArrayForEach(item, tree)
    {
        if (!cJSON_IsArray(item))
            add_member(&table, item);
    }
    cli_table_print(&table, stdout);
    cli_table_deinit(&table);
    status = print_tensors(cJSON_GetObjectItem(tree, "tensors"), args->all, err);
done:
    cJSON_Delete(tree);
    free(text);
    return status;
}

// "sora-adapter" when the file says so, otherwise "peft".
static const char *adapter_format(const char *path)
{
    struct file_map map = {0};
    struct safetensors *file = NULL;
    bool ours = false;
    if (!file_is_folder(path) && file_map_open(path, &map, NULL) == SORA_OK) {
        if (safetensors_parse(map.data, map.bytes, &file, NULL) == SORA_OK) {
            const char *format = safetensors_metadata(file, "format");
            ours = format != NULL && strcmp(format, "sora-adapter") == 0;
        }
        safetensors_destroy(file);
        file_map_close(&map);
    }
    return ours ? "sora-adapter" : "peft";
}

static sora_status print_adapter_json(const struct sora_adapter_info *info, const char *format,
                                      struct sora_error *err)
{
    struct buf out;
    buf_init(&out, SORA_JSON_BYTES_MAX);
    buf_printf(&out, "{\"format\":\"%s\"", format);
    cli_report_text(&out, "digest", info->digest);
    cli_report_count(&out, "bytes", (int64_t)info->bytes);
    cli_report_count(&out, "parameters", info->parameters);
    cli_report_number(&out, "rank_mean", info->rank_mean);
    cli_report_count(&out, "rank_max", info->rank_max);
    buf_text(&out, ",\"modules\":[");
    for (int32_t i = 0; i < info->module_count; i++) {
        const struct sora_adapter_module *module = &info->modules[i];
        buf_printf(&out, "%s{\"layer\":%d,\"module\":\"%s\",\"rank\":%d", i > 0 ? "," : "",
                   module->layer, sora_proj_name(module->proj), module->rank);
        cli_report_number(&out, "alpha", module->alpha);
        cli_report_number(&out, "scale", module->scale);
        buf_text(&out, "}");
    }
    buf_printf(&out, "],\"base\":%s,\"training\":%s}",
               info->base_json != NULL ? info->base_json : "null",
               info->training_json != NULL ? info->training_json : "null");
    return cli_report_print(&out, err);
}

// The members of a record, flat; lists and objects as JSON text.
static void add_record(struct cli_table *table, const char *title, const char *json)
{
    cJSON *tree = json != NULL ? cJSON_Parse(json) : NULL;
    const cJSON *item;
    cJSON_ArrayForEach(item, tree)
    {
        char *text = cJSON_PrintUnformatted(item);
        cli_table_add(table, "%s %s", title, item->string != NULL ? item->string : "");
        if (cJSON_IsString(item))
            cli_table_add(table, "%s", item->valuestring);
        else
            cli_table_add(table, "%s", text != NULL ? text : "");
        free(text);
    }
    cJSON_Delete(tree);
}

static void print_modules(const struct sora_adapter_info *info)
{
    struct cli_table table;
    cli_table_init(&table, 5, 1u | 1u << 2 | 1u << 3 | 1u << 4);
    const char *const titles[] = {"layer", "module", "rank", "alpha", "scale"};
    for (size_t i = 0; i < sizeof titles / sizeof titles[0]; i++)
        cli_table_add(&table, "%s", titles[i]);
    for (int32_t i = 0; i < info->module_count; i++) {
        const struct sora_adapter_module *module = &info->modules[i];
        cli_table_add(&table, "%d", module->layer);
        cli_table_add(&table, "%s", sora_proj_name(module->proj));
        cli_table_add(&table, "%d", module->rank);
        cli_table_add(&table, "%g", module->alpha);
        cli_table_add(&table, "%g", (double)module->scale);
    }
    fputc('\n', stdout);
    cli_table_print(&table, stdout);
    cli_table_deinit(&table);
}

static void print_adapter(const struct inspect_args *args, const struct sora_adapter_info *info,
                          const char *format)
{
    struct cli_table table;
    char text[32];
    cli_table_init(&table, 2, 0);
    cli_table_add(&table, "format");
    cli_table_add(&table, "%s", format);
    cli_table_add(&table, "digest");
    cli_table_add(&table, "%s", info->digest);
    cli_table_add(&table, "bytes");
    cli_table_add(&table, "%s", cli_print_bytes(text, (double)info->bytes));
    cli_table_add(&table, "parameters");
    cli_table_add(&table, "%s", cli_print_count(text, info->parameters));
    cli_table_add(&table, "rank mean");
    cli_table_add(&table, "%.2f of %d", info->rank_mean, info->r_max);
    cli_table_add(&table, "rank max");
    cli_table_add(&table, "%d", info->rank_max);
    cli_table_add(&table, "modules");
    cli_table_add(&table, "%d of %d have a rank", info->module_count,
                  info->layer_count * SORA_PROJ_COUNT);
    add_record(&table, "base", info->base_json);
    add_record(&table, "training", info->training_json);
    cli_table_print(&table, stdout);
    cli_table_deinit(&table);
    fputc('\n', stdout);
    rank_picture_print(stdout, info, cli_print_width(stdout, 100), cli_print_is_terminal(stdout));
    if (args->all)
        print_modules(info);
}

static sora_status show_adapter(const struct inspect_args *args,
                                const struct sora_adapter_info *info, const char *format,
                                struct sora_error *err)
{
    if (args->json)
        return print_adapter_json(info, format, err);
    print_adapter(args, info, format);
    return SORA_OK;
}

static sora_status inspect_adapter(const struct inspect_args *args, struct sora_error *err)
{
    sora_adapter *adapter = NULL;
    sora_status status = sora_adapter_open(args->path, NULL, &adapter, err);
    if (status == SORA_MALFORMED || status == SORA_LIMIT)
        return sora_fail_within(err, status, "neither a GGUF file nor a sound adapter");
    if (status == SORA_OK)
        status =
            show_adapter(args, sora_adapter_get_info(adapter), adapter_format(args->path), err);
    sora_adapter_destroy(adapter);
    return status;
}

// Digest and size are those of the file itself: what an import makes of it depends on the base.
static sora_status inspect_gguf_adapter(const struct inspect_args *args, struct sora_error *err)
{
    sora_adapter *adapter = NULL;
    struct file_map map;
    sora_status status = file_map_open(args->path, &map, err);
    if (status != SORA_OK)
        return status;
    status = sora_adapter_look_at_gguf(map.data, map.bytes, &adapter, err);
    if (status == SORA_OK) {
        struct sora_adapter_info info = *sora_adapter_get_info(adapter);
        info.bytes = map.bytes;
        status = sha256_of(map.data, map.bytes, info.digest, err);
        if (status == SORA_OK)
            status = show_adapter(args, &info, "gguf", err);
    } else {
        status = sora_fail_within(err, status, "%s", args->path);
    }
    sora_adapter_destroy(adapter);
    file_map_close(&map);
    return status;
}

int cmd_inspect(int argc, char **argv)
{
    struct inspect_args args = {0};
    struct sora_error err;
    int exit_code = CLI_GOOD;
    if (!cli_parse(&inspect_command, argc, argv, &args, &exit_code))
        return exit_code;
    enum content content = find_content(args.path);
    sora_status status = content == CONTENT_MODEL          ? inspect_model(&args, &err)
                         : content == CONTENT_GGUF_ADAPTER ? inspect_gguf_adapter(&args, &err)
                                                           : inspect_adapter(&args, &err);
    return status == SORA_OK ? CLI_GOOD : cli_fail(argv[0], &err);
}
