// SPDX-License-Identifier: Apache-2.0
// The state of a run as JSON, see run_state.h. One table for both directions.
#include "train/run_state.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"

// 65 rungs of some 25 numbers take under 64 KB.
enum { STATE_BYTES_MAX = 256 << 10, NUMBER_BYTES_MAX = 64 };
#define COUNT_MAX ((int64_t)1 << 53) // what JSON's numbers hold exactly

enum field_kind {
    FIELD_END,
    FIELD_COUNT,  // int64_t, 0 or more
    FIELD_INT,    // int32_t, 0 or more
    FIELD_BOOL,   // bool
    FIELD_NUMBER, // double, as the text of a hexadecimal float: exact, and NaN has a word
};

struct field {
    const char *name;
    enum field_kind kind;
    size_t offset;
};

#define STATE(name, kind)                             \
    {                                                 \
#name, kind, offsetof(struct run_state, name) \
    }
static const struct field state_fields[] = {STATE(step, FIELD_COUNT),
                                            STATE(steps_done, FIELD_COUNT),
                                            STATE(eval_pending, FIELD_BOOL),
                                            STATE(evals_stale, FIELD_COUNT),
                                            STATE(xi, FIELD_NUMBER),
                                            STATE(seconds, FIELD_NUMBER),
                                            STATE(loss, FIELD_NUMBER),
                                            STATE(epoch_loss, FIELD_NUMBER),
                                            STATE(epoch_scored, FIELD_COUNT),
                                            STATE(tokens, FIELD_COUNT),
                                            STATE(scored_tokens, FIELD_COUNT),
                                            STATE(has_best, FIELD_BOOL),
                                            {NULL, FIELD_END, 0}};

#define RUNG(name, kind)                                    \
    {                                                       \
#name, kind, offsetof(struct sora_train_rung, name) \
    }
static const struct field rung_fields[] = {
    RUNG(stage, FIELD_INT),        RUNG(xi, FIELD_NUMBER),
    RUNG(step, FIELD_COUNT),       RUNG(steps, FIELD_COUNT),
    RUNG(tokens, FIELD_COUNT),     RUNG(scored_tokens, FIELD_COUNT),
    RUNG(gates_kept, FIELD_COUNT), RUNG(gates, FIELD_COUNT),
    RUNG(seconds, FIELD_NUMBER),   RUNG(loss, FIELD_NUMBER),
    RUNG(parameters, FIELD_COUNT), RUNG(parameters_full, FIELD_COUNT),
    RUNG(kept, FIELD_NUMBER),      RUNG(has_eval, FIELD_BOOL),
    {NULL, FIELD_END, 0}};

#define EVAL(name, kind)                                     \
    {                                                        \
#name, kind, offsetof(struct sora_eval_result, name) \
    }
static const struct field eval_fields[] = {EVAL(examples, FIELD_COUNT),
                                           EVAL(tokens, FIELD_COUNT),
                                           EVAL(loss, FIELD_NUMBER),
                                           EVAL(perplexity, FIELD_NUMBER),
                                           EVAL(seconds, FIELD_NUMBER),
                                           EVAL(has_accuracy, FIELD_BOOL),
                                           EVAL(accuracy, FIELD_NUMBER),
                                           EVAL(mcc, FIELD_NUMBER),
                                           EVAL(has_exact_match, FIELD_BOOL),
                                           EVAL(exact_match, FIELD_NUMBER),
                                           EVAL(rouge_l, FIELD_NUMBER),
                                           EVAL(bleu, FIELD_NUMBER),
                                           {NULL, FIELD_END, 0}};

static void write_fields(struct buf *buf, const struct field *fields, const void *values)
{
    for (const struct field *field = fields; field->kind != FIELD_END; field++) {
        const char *at = (const char *)values + field->offset;
        buf_printf(buf, "%s\"%s\":", field == fields ? "" : ",", field->name);
        switch (field->kind) {
        case FIELD_COUNT:
            buf_printf(buf, "%" PRId64, *(const int64_t *)(const void *)at);
            break;
        case FIELD_INT:
            buf_printf(buf, "%d", *(const int32_t *)(const void *)at);
            break;
        case FIELD_BOOL:
            buf_text(buf, *(const bool *)(const void *)at ? "true" : "false");
            break;
        default:
            buf_printf(buf, "\"%a\"", *(const double *)(const void *)at);
        }
    }
}

static void write_rung(struct buf *buf, const struct sora_train_rung *rung)
{
    buf_text(buf, "{");
    write_fields(buf, rung_fields, rung);
    if (rung->has_eval) {
        buf_text(buf, ",\"eval\":{");
        write_fields(buf, eval_fields, &rung->eval);
        buf_text(buf, "}");
    }
    buf_text(buf, "}");
}

sora_status run_state_encode(const struct run_state *state, char **json, struct sora_error *err)
{
    struct buf buf;
    buf_init(&buf, STATE_BYTES_MAX);
    buf_text(&buf, "{");
    write_fields(&buf, state_fields, state);
    if (state->has_best) {
        buf_text(&buf, ",\"best\":");
        write_rung(&buf, &state->best);
    }
    buf_text(&buf, ",\"rungs\":[");
    for (int32_t i = 0; i < state->rung_count; i++) {
        buf_text(&buf, i > 0 ? "," : "");
        write_rung(&buf, &state->rungs[i]);
    }
    buf_text(&buf, "]}");
    const sora_status status = buf_status(&buf, err);
    size_t bytes;
    *json = status == SORA_OK ? buf_take(&buf, &bytes) : NULL;
    buf_deinit(&buf);
    return status;
}

static sora_status read_number(const cJSON *object, const char *name, double *out,
                               struct sora_error *err)
{
    const char *text = NULL;
    const sora_status status = json_get_string(object, name, &text, err);
    if (status != SORA_OK)
        return status;
    char *end;
    const size_t bytes = strlen(text);
    *out = strtod(text, &end);
    if (bytes == 0 || bytes > NUMBER_BYTES_MAX || end != text + bytes)
        return sora_fail(err, SORA_MALFORMED, "\"%s\" is \"%.64s\", which is no number", name,
                         text);
    return SORA_OK;
}

static sora_status read_fields(const cJSON *object, const struct field *fields, void *values,
                               struct sora_error *err)
{
    if (!cJSON_IsObject(object))
        return sora_fail(err, SORA_MALFORMED, "it is no object");
    sora_status status = SORA_OK;
    for (const struct field *field = fields; status == SORA_OK && field->kind != FIELD_END;
         field++) {
        char *at = (char *)values + field->offset;
        int64_t count = 0;
        if (!json_has(object, field->name))
            return sora_fail(err, SORA_MALFORMED, "\"%s\" is missing", field->name);
        switch (field->kind) {
        case FIELD_COUNT:
            status = json_get_int(object, field->name, 0, COUNT_MAX, (int64_t *)(void *)at, err);
            break;
        case FIELD_INT:
            status = json_get_int(object, field->name, 0, INT32_MAX, &count, err);
            *(int32_t *)(void *)at = (int32_t)count;
            break;
        case FIELD_BOOL:
            status = json_get_bool(object, field->name, (bool *)(void *)at, err);
            break;
        default:
            status = read_number(object, field->name, (double *)(void *)at, err);
        }
    }
    return status;
}

static sora_status read_rung(const cJSON *object, struct sora_train_rung *rung,
                             struct sora_error *err)
{
    sora_status status = read_fields(object, rung_fields, rung, err);
    if (status == SORA_OK && rung->stage >= SORA_XI_COUNT_MAX)
        status =
            sora_fail(err, SORA_MALFORMED, "stage %d, limit %d", rung->stage, SORA_XI_COUNT_MAX);
    if (status == SORA_OK && rung->has_eval)
        status = read_fields(cJSON_GetObjectItemCaseSensitive(object, "eval"), eval_fields,
                             &rung->eval, err);
    return status;
}

static sora_status read_rungs(const cJSON *array, struct run_state *state, struct sora_error *err)
{
    if (!cJSON_IsArray(array) || cJSON_GetArraySize(array) > SORA_XI_COUNT_MAX)
        return sora_fail(err, SORA_MALFORMED, "\"rungs\" is no array of at most %d",
                         SORA_XI_COUNT_MAX);
    const cJSON *item;
    cJSON_ArrayForEach(item, array)
    {
        const sora_status status = read_rung(item, &state->rungs[state->rung_count], err);
        if (status != SORA_OK)
            return sora_fail_within(err, status, "rung %d", state->rung_count);
        state->rung_count++;
    }
    return SORA_OK;
}

sora_status run_state_decode(const char *json, size_t bytes, struct run_state *state,
                             struct sora_error *err)
{
    *state = (struct run_state){0};
    cJSON *object = NULL;
    sora_status status = json_parse(json, bytes, &object, err);
    if (status == SORA_OK)
        status = read_fields(object, state_fields, state, err);
    if (status == SORA_OK && state->has_best)
        status = read_rung(cJSON_GetObjectItemCaseSensitive(object, "best"), &state->best, err);
    if (status == SORA_OK)
        status = read_rungs(cJSON_GetObjectItemCaseSensitive(object, "rungs"), state, err);
    cJSON_Delete(object);
    return status;
}
