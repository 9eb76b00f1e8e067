// SPDX-License-Identifier: Apache-2.0
// What no single setting shows: contradictions between settings, and texts of two numbers. Pure.
#include <math.h>
#include <stdlib.h>

#include "loadtest/scenario.h"
#include "loadtest/slo.h"

bool scenario_token_range(const struct scenario *scenario, int32_t *low, int32_t *high)
{
    *low = *high = 0;
    if (scenario->token_ids == NULL)
        return false;
    char *middle = NULL, *end = NULL;
    long first = strtol(scenario->token_ids, &middle, 10);
    if (middle == scenario->token_ids || *middle != ':')
        return false;
    long last = strtol(middle + 1, &end, 10);
    if (end == middle + 1 || *end != '\0' || first < 0 || last <= first ||
        last > SORA_VOCAB_SIZE_MAX)
        return false;
    *low = (int32_t)first;
    *high = (int32_t)last;
    return true;
}

sora_status scenario_churn_weights(const char *text, double weights[3], struct sora_error *err)
{
    const char *at = text;
    double sum = 0;
    for (int32_t i = 0; i < 3; i++) {
        char *end = NULL;
        weights[i] = strtod(at, &end);
        if (end == at || !isfinite(weights[i]) || weights[i] < 0 || *end != (i < 2 ? ':' : '\0'))
            return sora_fail(err, SORA_MALFORMED,
                             "churn_mix \"%.80s\": three weights such as 1:1:1 are expected", text);
        sum += weights[i];
        at = end + 1;
    }
    if (!(sum > 0))
        return sora_fail(err, SORA_MALFORMED, "churn_mix \"%.80s\": all weights are zero", text);
    return SORA_OK;
}

static sora_status check_verify(const struct scenario *scenario, struct sora_error *err)
{
    if (scenario->verify && scenario->temperature > 0)
        return sora_fail(err, SORA_MALFORMED,
                         "verify compares greedy replies: temperature must be 0, it is %g",
                         scenario->temperature);
    if (scenario->verify && scenario->churn_rate > 0 && scenario->churn_served)
        return sora_fail(err, SORA_MALFORMED,
                         "verify with churn_served: an update may change the replies");
    return SORA_OK;
}

static sora_status check_group(const struct scenario *scenario, const struct scenario_group *group,
                               struct sora_error *err)
{
    const char *name = group->name != NULL ? group->name : "the load";
    if (scenario->token_ids != NULL && group->chat > 0)
        return sora_fail(err, SORA_MALFORMED, "%.80s: chat takes text, token_ids does not fit",
                         name);
    if ((group->prefixes > 0) != (group->prefix_tokens > 0))
        return sora_fail(err, SORA_MALFORMED, "%.80s: prefixes and prefix_tokens need one another",
                         name);
    return SORA_OK;
}

static sora_status check_arrivals(const struct scenario *scenario, struct sora_error *err)
{
    if (scenario->arrivals == ARRIVALS_TRACE && scenario->trace == NULL)
        return sora_fail(err, SORA_MALFORMED, "arrivals trace: no trace is given");
    if (scenario->arrivals != ARRIVALS_TRACE && scenario->trace != NULL)
        return sora_fail(err, SORA_MALFORMED, "a trace is given, but arrivals are %s",
                         scenario_arrivals_names[scenario->arrivals]);
    double seconds = scenario->duration_s + scenario->warmup_s;
    if (scenario->arrivals < ARRIVALS_TRACE && scenario->requests == 0 &&
        seconds * scenario->rate > SORA_LOADTEST_REQUESTS_MAX)
        return sora_fail(err, SORA_LIMIT, "%g s at %g requests/s exceed %d requests", seconds,
                         scenario->rate, SORA_LOADTEST_REQUESTS_MAX);
    return SORA_OK;
}

static sora_status check_models(const struct scenario *scenario, struct sora_error *err)
{
    int64_t made = 0;
    double share = 0;
    for (int32_t i = 0; i < scenario_group_count(scenario); i++) {
        made += scenario_group_at(scenario, i)->make;
        share += scenario_group_at(scenario, i)->share;
    }
    if (made >= SORA_LOADTEST_MODELS_MAX)
        return sora_fail(err, SORA_LIMIT, "make: %lld adapters exceed %d", (long long)made,
                         SORA_LOADTEST_MODELS_MAX - 1);
    if (!(share > 0))
        return sora_fail(err, SORA_MALFORMED, "the shares of all groups are zero");
    if (scenario->churn_rate > 0 && scenario->churn_served && made == 0)
        return sora_fail(err, SORA_MALFORMED, "churn_served updates made adapters only: make is 0");
    return SORA_OK;
}

sora_status scenario_check(const struct scenario *scenario, struct sora_error *err)
{
    struct slo slo;
    double weights[3];
    int32_t low = 0, high = 0;
    sora_status status = check_arrivals(scenario, err);
    if (status == SORA_OK)
        status = check_models(scenario, err);
    if (status == SORA_OK)
        status = check_verify(scenario, err);
    for (int32_t i = 0; status == SORA_OK && i < scenario_group_count(scenario); i++)
        status = check_group(scenario, scenario_group_at(scenario, i), err);
    if (status == SORA_OK)
        status = scenario_churn_weights(scenario->churn_mix, weights, err);
    if (status == SORA_OK && scenario->slo != NULL)
        status = slo_parse(scenario->slo, &slo, err);
    if (status == SORA_OK && scenario->token_ids != NULL &&
        !scenario_token_range(scenario, &low, &high))
        status = sora_fail(err, SORA_MALFORMED,
                           "token_ids \"%.80s\": LOW:HIGH with 0 <= LOW < HIGH <= %d is expected",
                           scenario->token_ids, SORA_VOCAB_SIZE_MAX);
    return status;
}
