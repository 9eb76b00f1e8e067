// SPDX-License-Identifier: Apache-2.0
// See plan.h. Each purpose has random numbers of its own, so that changing one setting leaves what
// the others decided.
#include "loadtest/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "loadtest/plan_arrivals.h"
#include "loadtest/plan_churn.h"

#define DEFAULT_DURATION_S 30.0
#define CLOSED_RATE_MAX 2000.0   // requests a second that a closed loop of some duration plans for
#define CLOSED_REQUESTS_MIN 1000 // ... and at least
#define FOREVER_US INT64_MAX
#define DROP_MS_MIN 50 // when a reply is not streamed, its connection is dropped after 50 ms to 1 s
#define DROP_MS_MAX 1000

enum stream { STREAM_ARRIVALS = 1, STREAM_REQUEST, STREAM_REPEAT, STREAM_PREFIX, STREAM_CHURN };

static uint64_t mix_seed(uint64_t seed, uint64_t stream, uint64_t index)
{
    struct rng rng;
    rng_seed(&rng, seed * 0x9E3779B97F4A7C15u + stream);
    uint64_t mixed = rng_u64(&rng);
    rng_seed(&rng, mixed + index);
    return rng_u64(&rng);
}

// Weights of everything that is drawn, as running sums.
struct mix {
    double groups[SORA_LOADTEST_GROUPS_MAX];
    double *models[SORA_LOADTEST_GROUPS_MAX]; // of each group
    int32_t *originals;                       // indices of requests that repeat no other
    int32_t original_count;
};

static void mix_deinit(struct mix *mix)
{
    for (int32_t g = 0; g < SORA_LOADTEST_GROUPS_MAX; g++)
        free(mix->models[g]);
    free(mix->originals);
}

static sora_status mix_init(struct mix *mix, const struct plan *plan, struct sora_error *err)
{
    int32_t groups = scenario_group_count(plan->scenario);
    *mix = (struct mix){.original_count = 0};
    mix->originals = calloc((size_t)plan->request_count + 1, sizeof *mix->originals);
    if (mix->originals == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a plan");
    for (int32_t g = 0; g < groups; g++) {
        const struct scenario_group *group = scenario_group_at(plan->scenario, g);
        int32_t count = plan->models->groups[g].count;
        mix->groups[g] = group->share;
        mix->models[g] = calloc((size_t)count + 1, sizeof *mix->models[g]);
        if (mix->models[g] == NULL)
            return sora_fail(err, SORA_NO_MEMORY, "no memory for a plan");
        sora_status status = popularity_parse(group->popularity, count, mix->models[g], err);
        if (status != SORA_OK)
            return status;
        weights_accumulate(mix->models[g], count);
    }
    weights_accumulate(mix->groups, groups);
    return SORA_OK;
}

// How the connection ends early: decided from the reply's length.
static void plan_drop(struct plan_request *request, struct rng *rng)
{
    if (request->stream)
        request->drop_tokens = 1 + (int32_t)rng_below(rng, (uint64_t)request->output_tokens);
    else
        request->drop_ms = DROP_MS_MIN + (int32_t)rng_below(rng, DROP_MS_MAX - DROP_MS_MIN);
}

static void fill_fresh(const struct plan *plan, const struct mix *mix, int32_t index,
                       struct rng *rng)
{
    struct plan_request *request = &plan->requests[index];
    int32_t g = weights_pick(mix->groups, scenario_group_count(plan->scenario), rng_uniform(rng));
    const struct scenario_group *group = scenario_group_at(plan->scenario, g);
    request->group = g;
    request->content = index;
    request->prompt_seed = rng_u64(rng);
    request->model = plan->models->groups[g].first +
                     weights_pick(mix->models[g], plan->models->groups[g].count, rng_uniform(rng));
    if (rng_uniform(rng) < plan->scenario->base_share && plan->models->base >= 0)
        request->model = plan->models->base;
    request->prompt_tokens = length_sample(&group->prompt_tokens, rng);
    request->output_tokens = length_sample(&group->output_tokens, rng);
    request->prefix = group->prefixes > 0 ? (int32_t)rng_below(rng, (uint64_t)group->prefixes) : -1;
    request->chat = rng_uniform(rng) < group->chat;
}

static void fill_request(const struct plan *plan, struct mix *mix, int32_t index)
{
    struct plan_request *request = &plan->requests[index];
    uint64_t seed = (uint64_t)plan->scenario->seed;
    struct rng rng, repeat;
    rng_seed(&rng, mix_seed(seed, STREAM_REQUEST, (uint64_t)index));
    rng_seed(&repeat, mix_seed(seed, STREAM_REPEAT, (uint64_t)index));
    fill_fresh(plan, mix, index, &rng);
    if (plan->scenario->verify && mix->original_count > 0 &&
        rng_uniform(&repeat) < plan->scenario->verify_repeat) {
        int32_t other = mix->originals[rng_below(&repeat, (uint64_t)mix->original_count)];
        int64_t planned_us = request->planned_us;
        bool warmup = request->warmup;
        *request = plan->requests[other];
        request->planned_us = planned_us;
        request->warmup = warmup;
        request->drop_tokens = request->drop_ms = 0;
    } else {
        mix->originals[mix->original_count++] = index;
    }
    const struct scenario_group *group = scenario_group_at(plan->scenario, request->group);
    request->stream = rng_uniform(&rng) < group->stream;
    if (rng_uniform(&rng) < group->drop)
        plan_drop(request, &rng);
}

// Names of a trace are numbers of the list, or names in it.
static sora_status trace_model(const struct plan_models *models, const char *adapter,
                               int32_t *index, struct sora_error *err)
{
    char *end = NULL;
    for (int32_t i = 0; i < models->count; i++) {
        if (strcmp(models->names[i], adapter) == 0) {
            *index = i;
            return SORA_OK;
        }
    }
    if (*adapter == '\0' && models->base >= 0) {
        *index = models->base;
        return SORA_OK;
    }
    long number = strtol(adapter, &end, 10);
    if (end == adapter || *end != '\0' || number < 0 || number >= models->count)
        return sora_fail(err, SORA_NOT_FOUND,
                         "trace: adapter \"%.128s\" is no name and no number of the %d models",
                         adapter, (int)models->count);
    *index = (int32_t)number;
    return SORA_OK;
}

static sora_status fill_from_trace(const struct plan *plan, const struct trace *trace,
                                   struct sora_error *err)
{
    for (int32_t i = 0; i < plan->request_count; i++) {
        struct plan_request *request = &plan->requests[i];
        const struct trace_line *line = &trace->lines[i];
        // A repeat keeps the content of what it repeats.
        if (request->content != i) {
            const struct plan_request *original = &plan->requests[request->content];
            request->model = original->model;
            request->prompt_tokens = original->prompt_tokens;
            request->output_tokens = original->output_tokens;
            continue;
        }
        sora_status status = trace_model(plan->models, line->adapter, &request->model, err);
        if (status != SORA_OK)
            return status;
        request->prompt_tokens = line->prompt_tokens;
        request->output_tokens = line->output_tokens;
        if (request->drop_tokens > request->output_tokens)
            request->drop_tokens = request->output_tokens;
    }
    return SORA_OK;
}

// An upper bound of how many requests the settings can mean.
static int32_t count_bound(const struct scenario *scenario, const struct trace *trace,
                           double seconds)
{
    double count = SORA_LOADTEST_REQUESTS_MAX;
    if (trace != NULL)
        count = trace->count;
    else if (scenario->requests > 0)
        count = (double)scenario->requests;
    else if (scenario->arrivals == ARRIVALS_CLOSED)
        count = fmax(CLOSED_REQUESTS_MIN, ceil(seconds * CLOSED_RATE_MAX));
    return (int32_t)fmin(count, SORA_LOADTEST_REQUESTS_MAX);
}

// Sets planned_us of each request until one is past the end; returns how many there are.
static int32_t fill_times(const struct plan *plan, const struct trace *trace, int32_t count_max)
{
    const struct scenario *scenario = plan->scenario;
    double at_s = 0;
    struct rng rng;
    rng_seed(&rng, mix_seed((uint64_t)scenario->seed, STREAM_ARRIVALS, 0));
    for (int32_t i = 0; i < count_max; i++) {
        struct plan_request *request = &plan->requests[i];
        if (trace != NULL)
            request->planned_us = (int64_t)llround((double)trace->lines[i].at_us / scenario->speed);
        else if (!plan->closed) {
            at_s += arrivals_gap_s((enum scenario_arrivals)scenario->arrivals, scenario->rate,
                                   scenario->burstiness, &rng);
            request->planned_us = (int64_t)llround(at_s * 1e6);
        }
        if (request->planned_us >= plan->send_us)
            return i;
        request->warmup = !plan->closed && request->planned_us < plan->warmup_us;
    }
    return count_max;
}

static sora_status allocate(struct plan *plan, int32_t count, struct sora_error *err)
{
    free(plan->requests);
    plan->requests = calloc((size_t)count + 1, sizeof *plan->requests);
    plan->request_count = count;
    return plan->requests != NULL ? SORA_OK
                                  : sora_fail(err, SORA_NO_MEMORY, "no memory for a plan");
}

static sora_status fill_plan(struct plan *plan, const struct trace *trace, struct sora_error *err)
{
    struct mix mix;
    int32_t count = fill_times(plan, trace, plan->request_count);
    if (count == 0)
        return sora_fail(err, SORA_MALFORMED,
                         "the plan is empty: no request falls into the duration");
    plan->request_count = count;
    sora_status status = mix_init(&mix, plan, err);
    for (int32_t i = 0; i < count && status == SORA_OK; i++)
        fill_request(plan, &mix, i);
    if (status == SORA_OK && trace != NULL)
        status = fill_from_trace(plan, trace, err);
    mix_deinit(&mix);
    return status;
}

sora_status plan_create(const struct scenario *scenario, const struct plan_models *models,
                        const struct trace *trace, struct plan *plan, struct sora_error *err)
{
    bool bounded = scenario->duration_s >= 0 || (scenario->requests == 0 && trace == NULL);
    double seconds = scenario->duration_s >= 0 ? scenario->duration_s : DEFAULT_DURATION_S;
    *plan = (struct plan){
        .scenario = scenario,
        .models = models,
        .closed = scenario->arrivals == ARRIVALS_CLOSED,
        .clients = (int32_t)scenario->clients,
        .warmup_us = (int64_t)(scenario->warmup_s * 1e6),
        .send_us = bounded ? (int64_t)((seconds + scenario->warmup_s) * 1e6) : FOREVER_US,
    };
    plan->token_ids = scenario_token_range(scenario, &plan->token_low, &plan->token_high);
    int32_t count = count_bound(scenario, trace, seconds + scenario->warmup_s);
    sora_status status = allocate(plan, count, err);
    if (status == SORA_OK)
        status = fill_plan(plan, trace, err);
    if (status == SORA_OK && scenario->churn_rate > 0)
        status = churn_plan(plan, mix_seed((uint64_t)scenario->seed, STREAM_CHURN, 0), err);
    if (status != SORA_OK)
        plan_deinit(plan);
    return status;
}

sora_status plan_create_alone(const struct plan *plan, int32_t count, struct plan *alone,
                              struct sora_error *err)
{
    *alone = *plan;
    alone->requests = NULL;
    alone->churn = NULL;
    alone->churn_count = 0;
    alone->closed = true;
    alone->clients = 1;
    alone->warmup_us = 0;
    alone->send_us = FOREVER_US;
    sora_status status = allocate(alone, count, err);
    if (status != SORA_OK)
        return status;
    alone->request_count = 0;
    for (int32_t i = 0; i < plan->request_count && alone->request_count < count; i++) {
        const struct plan_request *request = &plan->requests[i];
        bool seen = request->content == i;
        for (int32_t j = 0; j < alone->request_count; j++)
            seen = seen || alone->requests[j].content == request->content;
        if (seen)
            continue;
        struct plan_request *copy = &alone->requests[alone->request_count++];
        *copy = plan->requests[request->content];
        copy->drop_tokens = copy->drop_ms = 0;
        copy->warmup = false;
        copy->planned_us = 0;
    }
    return SORA_OK;
}

void plan_deinit(struct plan *plan)
{
    free(plan->requests);
    free(plan->churn);
    *plan = (struct plan){0};
}

int32_t plan_prompt_tokens(const struct plan *plan, const struct plan_request *request)
{
    const struct scenario_group *group = scenario_group_at(plan->scenario, request->group);
    return request->prompt_tokens + (request->prefix >= 0 ? (int32_t)group->prefix_tokens : 0);
}

uint64_t plan_prefix_seed(const struct plan *plan, const struct plan_request *request)
{
    uint64_t index = (uint64_t)request->group << 32 | (uint32_t)request->prefix;
    return mix_seed((uint64_t)plan->scenario->seed, STREAM_PREFIX, index);
}
