// SPDX-License-Identifier: Apache-2.0
// See scenario.h. Values from a file and from the command line take the same way: JSON becomes
// text first, and scenario_set reads the text.
#include "loadtest/scenario.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/file.h"
#include "base/json.h"
#include "loadtest/nearest.h"
#include "loadtest/slo.h"

#define VALUE_TEXT_BYTES 64 // a number or a short word of a scenario as text
#define ADAPTERS_BYTES_MAX ((SORA_ADAPTER_NAME_BYTES_MAX + 1u) * SORA_LOADTEST_MODELS_MAX)

static const struct setting group_settings[] = {
    {.key = "name",
     .kind = SETTING_TEXT,
     .of_group = true,
     .offset = offsetof(struct scenario_group, name)},
    {.key = "share",
     .kind = SETTING_NUMBER,
     .of_group = true,
     .offset = offsetof(struct scenario_group, share),
     .min = 0,
     .max = 1e6},
};
static const struct setting file_settings[] = {
    {.key = "title", .kind = SETTING_TEXT, .offset = offsetof(struct scenario, title)},
    {.key = "doc", .kind = SETTING_TEXT, .offset = offsetof(struct scenario, doc)},
};

// The strings of a group or a scenario, so that init, copy and deinit treat all of them.
static char **group_string(struct scenario_group *group, int32_t index)
{
    char **const strings[] = {&group->name, &group->popularity, NULL};
    return strings[index];
}

static char **scenario_string(struct scenario *scenario, int32_t index)
{
    char **const strings[] = {&scenario->title,     &scenario->doc,
                              &scenario->trace,     &scenario->adapters,
                              &scenario->churn_mix, &scenario->churn_folder,
                              &scenario->token_ids, &scenario->slo,
                              &scenario->base,      NULL};
    return strings[index];
}

static sora_status replace_string(char **slot, const char *text, struct sora_error *err)
{
    char *copy = text != NULL ? strdup(text) : NULL;
    if (text != NULL && copy == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a setting");
    free(*slot);
    *slot = copy;
    return SORA_OK;
}

static sora_status group_copy(struct scenario_group *to, const struct scenario_group *from,
                              struct sora_error *err)
{
    *to = *from;
    to->name = to->popularity = NULL;
    sora_status status = replace_string(&to->name, from->name, err);
    return status != SORA_OK ? status : replace_string(&to->popularity, from->popularity, err);
}

static void group_deinit(struct scenario_group *group)
{
    for (int32_t i = 0; group_string(group, i) != NULL; i++)
        free(*group_string(group, i));
}

sora_status scenario_init(struct scenario *scenario, struct sora_error *err)
{
    static const struct length tokens = {.kind = LENGTH_FIXED, .low = 32, .high = 32};
    static const struct length ranks = {.kind = LENGTH_UNIFORM, .low = 0, .high = 16};
    *scenario = (struct scenario){
        .seed = 1,
        .rate = 1,
        .burstiness = 1,
        .speed = 1,
        .clients = 8,
        .duration_s = -1,
        .verify_repeat = 0.5,
        .ignore_eos = true,
        .usage = true,
        .timeout_s = 600,
        .drain_s = 300,
        .defaults = {.share = 1,
                     .stream = 1,
                     .ranks = ranks,
                     .prompt_tokens = tokens,
                     .output_tokens = tokens},
    };
    sora_status status = replace_string(&scenario->churn_mix, "1:1:1", err);
    if (status == SORA_OK)
        status = replace_string(&scenario->defaults.popularity, "uniform", err);
    if (status != SORA_OK)
        scenario_deinit(scenario);
    return status;
}

void scenario_deinit(struct scenario *scenario)
{
    for (int32_t i = 0; scenario_string(scenario, i) != NULL; i++)
        free(*scenario_string(scenario, i));
    group_deinit(&scenario->defaults);
    for (int32_t i = 0; i < scenario->group_count; i++)
        group_deinit(&scenario->groups[i]);
    *scenario = (struct scenario){0};
}

static sora_status parse_suffixed(const char *text, const char *const *units, const double *factors,
                                  double min, double max, double *out, struct sora_error *err)
{
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || !isfinite(value))
        return sora_fail(err, SORA_MALFORMED, "\"%.80s\" is not a number", text);
    int32_t unit = 0;
    while (units[unit] != NULL && strcmp(units[unit], end) != 0)
        unit++;
    if (units[unit] == NULL)
        return sora_fail(err, SORA_MALFORMED, "\"%.80s\" has an unknown unit", text);
    value *= factors[unit];
    if (value < min || value > max)
        return sora_fail(err, SORA_LIMIT, "%.80s is outside [%.12g, %.12g]", text, min, max);
    *out = value;
    return SORA_OK;
}

static sora_status parse_bool(const char *text, bool *out, struct sora_error *err)
{
    static const char *const words[] = {"false", "true", "no", "yes", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(text, words[i]) == 0) {
            *out = i % 2 == 1;
            return SORA_OK;
        }
    }
    return sora_fail(err, SORA_MALFORMED, "\"%.80s\" is neither true nor false", text);
}

static sora_status parse_int(const char *text, const struct setting *setting, int64_t *out,
                             struct sora_error *err)
{
    double value = 0;
    sora_status status = number_parse(text, setting->min, setting->max, &value, err);
    if (status == SORA_OK && value != floor(value))
        status = sora_fail(err, SORA_MALFORMED, "\"%.80s\" is not a whole number", text);
    if (status == SORA_OK)
        *out = (int64_t)value;
    return status;
}

static sora_status parse_choice(const char *text, const char *const *names, int *out,
                                struct sora_error *err)
{
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], text) == 0) {
            *out = i;
            return SORA_OK;
        }
    }
    return sora_fail(err, SORA_MALFORMED, "\"%.80s\" is unknown; did you mean \"%s\"?", text,
                     nearest_name(text, names));
}

// Reads text into the member at setting->offset of base.
static sora_status set_member(void *base, const struct setting *setting, const char *text,
                              struct sora_error *err)
{
    static const char *const time_units[] = {"", "s", "ms", "min", "h", NULL};
    static const double time_factors[] = {1, 1, 1e-3, 60, 3600};
    static const char *const share_units[] = {"", "%", NULL};
    static const double share_factors[] = {1, 0.01};
    void *slot = (char *)base + setting->offset;
    sora_status status;
    switch (setting->kind) {
    case SETTING_TEXT:
    case SETTING_LIST:
        return replace_string(slot, text, err);
    case SETTING_NUMBER:
        return number_parse(text, setting->min, setting->max, slot, err);
    case SETTING_SHARE:
        return parse_suffixed(text, share_units, share_factors, 0, 1, slot, err);
    case SETTING_DURATION:
        return parse_suffixed(text, time_units, time_factors, setting->min, setting->max, slot,
                              err);
    case SETTING_INT:
        return parse_int(text, setting, slot, err);
    case SETTING_BOOL:
        return parse_bool(text, slot, err);
    case SETTING_LENGTH:
        return length_parse(text, (int32_t)setting->min, (int32_t)setting->max, slot, err);
    case SETTING_POPULARITY:
        status = popularity_parse(text, 0, NULL, err);
        return status != SORA_OK ? status : replace_string(slot, text, err);
    case SETTING_ARRIVALS:
        return parse_choice(text, scenario_arrivals_names, slot, err);
    }
    ASSERT(false);
}

sora_status scenario_set(struct scenario *scenario, const struct setting *setting, const char *text,
                         struct sora_error *err)
{
    void *base = setting->of_group ? (void *)&scenario->defaults : (void *)scenario;
    sora_status status = set_member(base, setting, text, err);
    for (int32_t i = 0; setting->of_group && i < scenario->group_count && status == SORA_OK; i++)
        status = set_member(&scenario->groups[i], setting, text, err);
    // A trace or a number of clients says what the arrivals are.
    if (status == SORA_OK && setting->offset == offsetof(struct scenario, trace) &&
        !setting->of_group)
        scenario->arrivals = ARRIVALS_TRACE;
    return status == SORA_OK ? status : sora_fail_within(err, status, "%s", setting->key);
}

static sora_status join_list(const cJSON *value, struct buf *out, struct sora_error *err)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, value)
    {
        if (!cJSON_IsString(item) || strchr(item->valuestring, ',') != NULL)
            return sora_fail(err, SORA_MALFORMED, "a list of names without commas is expected");
        buf_printf(out, "%s%s", out->bytes > 0 ? "," : "", item->valuestring);
    }
    return buf_status(out, err);
}

static sora_status value_text(const cJSON *value, const struct setting *setting, struct buf *out,
                              struct sora_error *err)
{
    if (setting->kind == SETTING_LIST && cJSON_IsArray(value))
        return join_list(value, out, err);
    if (cJSON_IsString(value) && setting->kind != SETTING_NUMBER && setting->kind != SETTING_INT &&
        setting->kind != SETTING_BOOL)
        buf_text(out, value->valuestring);
    else if (cJSON_IsNumber(value) && setting->kind != SETTING_TEXT &&
             setting->kind != SETTING_LIST && setting->kind != SETTING_BOOL)
        buf_printf(out, "%.17g", value->valuedouble);
    else if (cJSON_IsBool(value) && setting->kind == SETTING_BOOL)
        buf_text(out, cJSON_IsTrue(value) ? "true" : "false");
    else if (cJSON_IsBool(value) && setting->kind == SETTING_SHARE)
        buf_text(out, cJSON_IsTrue(value) ? "1" : "0");
    else
        return sora_fail(err, SORA_MALFORMED, "the value has the wrong type");
    return buf_status(out, err);
}

static sora_status set_json(void *base, const struct setting *setting, const cJSON *value,
                            struct sora_error *err)
{
    struct buf text;
    buf_init(&text, ADAPTERS_BYTES_MAX);
    sora_status status = value_text(value, setting, &text, err);
    if (status == SORA_OK)
        status = set_member(base, setting, text.data != NULL ? text.data : "", err);
    buf_deinit(&text);
    return status == SORA_OK ? status : sora_fail_within(err, status, "%s", setting->key);
}

// Settings in the order of preference; NULL when none has this key.
static const struct setting *find_setting(const char *key, bool in_group)
{
    const struct setting *own = in_group ? group_settings : file_settings;
    for (int32_t i = 0; i < 2; i++) {
        if (strcmp(own[i].key, key) == 0)
            return &own[i];
    }
    for (const struct setting *at = scenario_settings; at->key != NULL; at++) {
        if (at->arg != NULL && strcmp(at->key, key) == 0 && (at->of_group || !in_group))
            return at;
    }
    return NULL;
}

static sora_status unknown_key(const char *key, bool in_group, struct sora_error *err)
{
    const char *names[96];
    int32_t count = 0;
    const struct setting *own = in_group ? group_settings : file_settings;
    names[count++] = own[0].key;
    names[count++] = own[1].key;
    for (const struct setting *at = scenario_settings; at->key != NULL && count < 94; at++) {
        if (at->arg != NULL && (at->of_group || !in_group))
            names[count++] = at->key;
    }
    if (!in_group)
        names[count++] = "groups";
    names[count] = NULL;
    return sora_fail(err, SORA_MALFORMED, "unknown key \"%.80s\"; did you mean \"%s\"?", key,
                     nearest_name(key, names));
}

// All members of an object but "groups".
static sora_status set_members(void *base, const cJSON *object, bool in_group,
                               struct sora_error *err)
{
    const cJSON *member = NULL;
    cJSON_ArrayForEach(member, object)
    {
        if (!in_group && strcmp(member->string, "groups") == 0)
            continue;
        const struct setting *setting = find_setting(member->string, in_group);
        if (setting == NULL)
            return unknown_key(member->string, in_group, err);
        void *target = base;
        if (!in_group && setting->of_group)
            target = &((struct scenario *)base)->defaults;
        sora_status status = set_json(target, setting, member, err);
        if (status != SORA_OK)
            return status;
    }
    return SORA_OK;
}

static sora_status parse_groups(struct scenario *scenario, const cJSON *list,
                                struct sora_error *err)
{
    const cJSON *item = NULL;
    if (list != NULL && (!cJSON_IsArray(list) || cJSON_GetArraySize(list) == 0))
        return sora_fail(err, SORA_MALFORMED, "groups: a list of objects is expected");
    cJSON_ArrayForEach(item, list)
    {
        int32_t index = scenario->group_count;
        if (index == SORA_LOADTEST_GROUPS_MAX)
            return sora_fail(err, SORA_LIMIT, "groups: more than %d", SORA_LOADTEST_GROUPS_MAX);
        if (!cJSON_IsObject(item))
            return sora_fail(err, SORA_MALFORMED, "groups: item %d is not an object", (int)index);
        struct scenario_group *group = &scenario->groups[scenario->group_count++];
        sora_status status = group_copy(group, &scenario->defaults, err);
        if (status == SORA_OK)
            status = set_members(group, item, true, err);
        if (status == SORA_OK && group->name == NULL)
            status = sora_fail(err, SORA_MALFORMED, "it has no name");
        if (status != SORA_OK)
            return sora_fail_within(err, status, "groups[%d]", (int)index);
    }
    return SORA_OK;
}

sora_status scenario_parse(struct scenario *scenario, const char *name, const char *json,
                           size_t bytes, struct sora_error *err)
{
    cJSON *tree = NULL;
    sora_status status = json_parse(json, bytes, &tree, err);
    if (status == SORA_OK && !cJSON_IsObject(tree))
        status = sora_fail(err, SORA_MALFORMED, "a JSON object is expected");
    if (status == SORA_OK)
        status = set_members(scenario, tree, false, err);
    if (status == SORA_OK && scenario->trace != NULL && !json_has(tree, "arrivals"))
        scenario->arrivals = ARRIVALS_TRACE;
    if (status == SORA_OK)
        status = parse_groups(scenario, cJSON_GetObjectItemCaseSensitive(tree, "groups"), err);
    cJSON_Delete(tree);
    return status == SORA_OK ? status : sora_fail_within(err, status, "scenario %.200s", name);
}

sora_status scenario_load(struct scenario *scenario, const char *name_or_path,
                          struct sora_error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    const char *names[64];
    int32_t count = 0;
    for (const struct scenario_builtin *at = scenario_builtins; at->name != NULL; at++) {
        if (strcmp(at->name, name_or_path) == 0)
            return scenario_parse(scenario, at->name, at->json, strlen(at->json), err);
        if (count < 63)
            names[count++] = at->name;
    }
    names[count] = NULL;
    if (strchr(name_or_path, '/') == NULL && !file_exists(name_or_path))
        return sora_fail(err, SORA_NOT_FOUND,
                         "no scenario and no file \"%.200s\"; did you mean \"%s\"? "
                         "--list-scenarios shows all",
                         name_or_path, nearest_name(name_or_path, names));
    sora_status status = file_read(name_or_path, SORA_LOADTEST_FILE_BYTES_MAX, &text, &bytes, err);
    if (status == SORA_OK)
        status = scenario_parse(scenario, name_or_path, text, bytes, err);
    free(text);
    return status;
}

int32_t scenario_group_count(const struct scenario *scenario)
{
    return scenario->group_count > 0 ? scenario->group_count : 1;
}

const struct scenario_group *scenario_group_at(const struct scenario *scenario, int32_t index)
{
    ASSERT(index >= 0 && index < scenario_group_count(scenario));
    return scenario->group_count > 0 ? &scenario->groups[index] : &scenario->defaults;
}
