// SPDX-License-Identifier: Apache-2.0
// Options of a training run, see schedule.h and sora/train.h. Pure, any thread.
#include "train/schedule.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sora/adapter.h"

struct sora_train_options sora_train_options_defaults(void)
{
    struct sora_train_options options = {.method = SORA_METHOD_SORA,
                                         .rank = 16,
                                         .alpha = 32.0,
                                         .xi = {1e-3},
                                         .xi_count = 1,
                                         .lambda = 1e-3,
                                         .threshold = SORA_THRESHOLD_PAPER,
                                         .epochs = 3.0,
                                         .batch_tokens = 512,
                                         .lr = 1e-3,
                                         .gate_lr = 1e-3,
                                         .weight_decay = 0.1,
                                         .warmup = 0.06,
                                         .clip = 0.1,
                                         .dtype = SORA_F32};
    for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++)
        options.targets[proj] = true;
    return options;
}

double schedule_factor(int64_t step, int64_t steps, int64_t warmup_steps)
{
    const int64_t rise = warmup_steps > 1 ? warmup_steps : 1;
    const int64_t fall = steps - warmup_steps > 1 ? steps - warmup_steps : 1;
    const double up = (double)step / (double)rise;
    const double down = (double)(steps - step) / (double)fall;
    return up < down ? up : down;
}

int64_t schedule_warmup_steps(double warmup, int64_t steps)
{
    const double count = floor(warmup < 1.0 ? warmup * (double)steps : warmup);
    return count < (double)steps ? (int64_t)count : steps;
}

struct option_range {
    const char *name;
    double value, min, max;
};

sora_status schedule_check_options(const struct sora_train_options *options, struct sora_error *err)
{
    const struct option_range ranges[] = {
        {"rank", options->rank, 1, SORA_TRAIN_RANK_MAX},
        {"alpha", options->alpha, 1e-6, 1e6},
        {"dropout", options->dropout, 0, 0.99},
        {"number of xi values", options->xi_count, 1, SORA_XI_COUNT_MAX},
        {"lambda", options->lambda, 0, 1e6},
        {"epochs", options->epochs, 1e-6, 1e6},
        {"batch_tokens", options->batch_tokens, 1, SORA_CONTEXT_MAX},
        {"lr", options->lr, 0, 1e3},
        {"gate_lr", options->gate_lr, 0, 1e3},
        {"weight_decay", options->weight_decay, 0, 1e3},
        {"warmup", options->warmup, 0, 1e12},
        {"clip", options->clip, 0, 1e12},
        {"threads", options->threads, 0, SORA_THREADS_MAX},
        {"example_tokens_max", options->example_tokens_max, 0, SORA_CONTEXT_MAX},
        {"target_params", options->target_params, 0, 1e15},
        {"eval_steps", options->eval_steps, 0, INT32_MAX},
        {"patience", options->patience, 0, INT32_MAX},
        {"checkpoint_steps", options->checkpoint_steps, 0, INT32_MAX},
    };
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
        if (!(ranges[i].value >= ranges[i].min && ranges[i].value <= ranges[i].max))
            return sora_fail(err, SORA_LIMIT, "%s is %g, expected %g to %g", ranges[i].name,
                             ranges[i].value, ranges[i].min, ranges[i].max);
    for (int32_t i = 0; i < options->xi_count; i++)
        if (!(options->xi[i] >= 0.0 && options->xi[i] <= 1e6))
            return sora_fail(err, SORA_LIMIT, "xi is %g, expected 0 to 1e6", options->xi[i]);
    if (options->target_params > 0.0 &&
        (options->xi_count > 1 || options->method != SORA_METHOD_SORA))
        return sora_fail(err, SORA_MALFORMED,
                         "target_params steers the one xi of method sora: neither an xi schedule "
                         "nor method lora goes with it");
    return SORA_OK;
}

// A number up to `end` (a ':' , a ',' or the end of the text).
static sora_status parse_number(const char **text, char end, double *value, struct sora_error *err)
{
    char *after;
    errno = 0;
    *value = strtod(*text, &after);
    if (after == *text || !isfinite(*value) || *value < 0.0 || *after != end)
        return sora_fail(err, SORA_MALFORMED, "xi: \"%.64s\" does not start with a number >= 0%s%c",
                         *text, end == '\0' ? " that ends the text" : " and then ",
                         end == '\0' ? '.' : end);
    *text = after + (end != '\0');
    return SORA_OK;
}

static sora_status parse_list(const char *text, struct sora_train_options *options,
                              struct sora_error *err)
{
    double values[SORA_XI_COUNT_MAX];
    int32_t count = 0;
    for (bool more = true; more; count++) {
        if (count == SORA_XI_COUNT_MAX)
            return sora_fail(err, SORA_LIMIT, "xi: more than %d values", SORA_XI_COUNT_MAX);
        more = strchr(text, ',') != NULL;
        const sora_status status = parse_number(&text, more ? ',' : '\0', &values[count], err);
        if (status != SORA_OK)
            return status;
    }
    memcpy(options->xi, values, (size_t)count * sizeof(values[0]));
    options->xi_count = count;
    return SORA_OK;
}

enum spacing { SPACING_LINEAR, SPACING_LOG_LINEAR, SPACING_EXP_LINEAR };

// The authors' three schedules: evenly spaced values, logarithms of evenly spaced exponentials,
// exponentials of evenly spaced logarithms. Both ends are exact.
static double spaced(enum spacing spacing, double first, double last, int32_t index, int32_t count)
{
    if (index == 0)
        return first;
    if (index == count - 1)
        return last;
    const double part = (double)index / (double)(count - 1);
    switch (spacing) {
    case SPACING_LOG_LINEAR:
        return log(exp(first) + part * (exp(last) - exp(first)));
    case SPACING_EXP_LINEAR:
        return exp(log(first) + part * (log(last) - log(first)));
    default:
        return first + part * (last - first);
    }
}

static sora_status parse_range(const char *text, enum spacing spacing,
                               struct sora_train_options *options, struct sora_error *err)
{
    double first, last, count;
    sora_status status = parse_number(&text, ':', &first, err);
    if (status == SORA_OK)
        status = parse_number(&text, ':', &last, err);
    if (status == SORA_OK)
        status = parse_number(&text, '\0', &count, err);
    if (status != SORA_OK)
        return status;
    if (count != floor(count) || count < 2 || count > SORA_XI_COUNT_MAX)
        return sora_fail(err, SORA_LIMIT, "xi: %g stages, expected a whole number from 2 to %d",
                         count, SORA_XI_COUNT_MAX);
    if (spacing == SPACING_EXP_LINEAR && (first == 0.0 || last == 0.0))
        return sora_fail(err, SORA_MALFORMED, "xi: exp-linear takes logarithms, so 0 is no end");
    if (spacing == SPACING_LOG_LINEAR && (first > 100.0 || last > 100.0))
        return sora_fail(err, SORA_LIMIT, "xi: log-linear takes exponentials of at most 100");
    options->xi_count = (int32_t)count;
    for (int32_t i = 0; i < options->xi_count; i++)
        options->xi[i] = spaced(spacing, first, last, i, options->xi_count);
    return SORA_OK;
}

sora_status sora_train_parse_xi(const char *text, struct sora_train_options *options,
                                struct sora_error *err)
{
    static const struct {
        const char *prefix;
        enum spacing spacing;
    } ranges[] = {{"linear:", SPACING_LINEAR},
                  {"log-linear:", SPACING_LOG_LINEAR},
                  {"exp-linear:", SPACING_EXP_LINEAR}};
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        const size_t bytes = strlen(ranges[i].prefix);
        if (strncmp(text, ranges[i].prefix, bytes) == 0)
            return parse_range(text + bytes, ranges[i].spacing, options, err);
    }
    if (strncmp(text, "list:", 5) == 0)
        return parse_list(text + 5, options, err);
    if (strchr(text, ':') != NULL)
        return sora_fail(err, SORA_MALFORMED,
                         "xi: \"%.64s\" is none of a number, linear:, log-linear:, exp-linear: "
                         "first:last:count, list:a,b,c",
                         text);
    double value;
    const sora_status status = parse_number(&text, '\0', &value, err);
    if (status != SORA_OK)
        return status;
    options->xi[0] = value;
    options->xi_count = 1;
    return SORA_OK;
}

sora_status sora_train_parse_target_params(const char *text, struct sora_train_options *options,
                                           struct sora_error *err)
{
    char *end;
    errno = 0;
    const double value = strtod(text, &end);
    const bool percent = end > text && strcmp(end, "%") == 0;
    const bool count = end > text && *end == '\0' && value >= 1.0 && value == floor(value);
    if ((!percent && !count) || !(value > 0.0) || value > (percent ? 100.0 : 1e15))
        return sora_fail(err, SORA_MALFORMED,
                         "target params: \"%.64s\" is neither a share above 0%% up to 100%% nor a "
                         "count of parameters",
                         text);
    // All of them is no target.
    options->target_params = percent ? (value < 100.0 ? value / 100.0 : 0.0) : value;
    return SORA_OK;
}

sora_status sora_train_parse_targets(const char *text, struct sora_train_options *options,
                                     struct sora_error *err)
{
    bool targets[SORA_PROJ_COUNT] = {false};
    for (bool more = true; more;) {
        const size_t bytes = strcspn(text, ",");
        char name[32];
        if (bytes >= sizeof(name))
            return sora_fail(err, SORA_MALFORMED, "targets: \"%.64s\" is no projection", text);
        memcpy(name, text, bytes);
        name[bytes] = '\0';
        const enum sora_proj proj = sora_proj_from_name(name);
        if (proj == SORA_PROJ_COUNT)
            return sora_fail(err, SORA_MALFORMED,
                             "targets: \"%s\" is none of q, k, v, o, gate, up, down", name);
        targets[proj] = true;
        more = text[bytes] == ',';
        text += bytes + more;
    }
    memcpy(options->targets, targets, sizeof(targets));
    return SORA_OK;
}
