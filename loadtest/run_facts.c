// SPDX-License-Identifier: Apache-2.0
// See run_facts.h.
#include "loadtest/run_facts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define VALUE_BYTES_MAX 1024

static sora_status add(struct run_facts *facts, const char *name, struct buf *value,
                       struct sora_error *err)
{
    ASSERT(facts->count < RUN_FACTS_MAX);
    char *text = buf_take(value, NULL);
    if (text == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the report's facts");
    facts->values[facts->count] = text;
    facts->facts[facts->count++] = (struct report_fact){name, text};
    return SORA_OK;
}

void run_facts_deinit(struct run_facts *facts)
{
    for (int32_t i = 0; i < facts->count; i++)
        free(facts->values[i]);
    free(facts->title);
    *facts = (struct run_facts){.count = 0};
}

static void print_arrivals(const struct plan *plan, struct buf *out)
{
    const struct scenario *scenario = plan->scenario;
    buf_text(out, scenario_arrivals_names[scenario->arrivals]);
    if (plan->closed)
        buf_printf(out, ", %d clients", (int)plan->clients);
    else if (scenario->arrivals == ARRIVALS_TRACE)
        buf_printf(out, " %.200s, %d requests, speed %g", scenario->trace, (int)plan->request_count,
                   scenario->speed);
    else
        buf_printf(out, ", %g requests/s", scenario->rate);
    if (scenario->arrivals == ARRIVALS_GAMMA)
        buf_printf(out, ", burstiness %g", scenario->burstiness);
    if (plan->send_us != INT64_MAX)
        buf_printf(out, ", %g s", (double)(plan->send_us - plan->warmup_us) / 1e6);
    else
        buf_printf(out, ", %d requests", (int)plan->request_count);
    if (plan->warmup_us > 0)
        buf_printf(out, " after %g s of warm-up", scenario->warmup_s);
}

static void print_group(const struct plan *plan, int32_t g, struct buf *out)
{
    const struct scenario_group *group = scenario_group_at(plan->scenario, g);
    buf_printf(out, "%d models, popularity %.200s, prompts of ", (int)plan->models->groups[g].count,
               group->popularity);
    length_print(&group->prompt_tokens, out);
    if (group->prefixes > 0)
        buf_printf(out, " after one of %d prefixes of %d", (int)group->prefixes,
                   (int)group->prefix_tokens);
    buf_text(out, " tokens, replies of ");
    length_print(&group->output_tokens, out);
    if (group->make > 0 && plan->models->made_count > 0) {
        buf_text(out, ", made with ranks ");
        length_print(&group->ranks, out);
    }
    if (scenario_group_count(plan->scenario) > 1)
        buf_printf(out, ", share %g", group->share);
    if (group->stream < 1)
        buf_printf(out, ", %g %% streamed", 100 * group->stream);
    if (group->chat > 0)
        buf_printf(out, ", %g %% chat", 100 * group->chat);
    if (group->drop > 0)
        buf_printf(out, ", %g %% dropped midway", 100 * group->drop);
}

static void print_churn(const struct plan *plan, const struct churn *churn, struct buf *out)
{
    struct churn_counts counts;
    churn_get_counts(churn, &counts);
    buf_printf(out,
               "%g a second: %lld uploads, %lld updates, %lld deletions, %lld refused; %.1f MB, "
               "%.1f ms each",
               plan->scenario->churn_rate, (long long)counts.done[CHURN_UPLOAD],
               (long long)counts.done[CHURN_UPDATE], (long long)counts.done[CHURN_DELETE],
               (long long)counts.failed, (double)counts.bytes / 1e6, (double)counts.mean_us / 1e3);
}

static void print_title(const struct plan *plan, struct buf *out)
{
    const struct scenario *scenario = plan->scenario;
    if (scenario->title != NULL)
        buf_printf(out, "%.200s: ", scenario->title);
    print_arrivals(plan, out);
}

sora_status run_facts_init(struct run_facts *facts, const struct plan *plan,
                           const char *scenario_name, const char *digest,
                           const struct verify *verify, const struct churn *churn,
                           struct sora_error *err)
{
    struct buf text;
    sora_status status = SORA_OK;
    buf_init(&text, VALUE_BYTES_MAX);
    *facts = (struct run_facts){.count = 0};
    if (scenario_name != NULL) {
        buf_printf(&text, "%.200s", scenario_name);
        status = add(facts, "scenario", &text, err);
    }
    if (status == SORA_OK) {
        print_arrivals(plan, &text);
        status = add(facts, "arrivals", &text, err);
    }
    for (int32_t g = 0; g < scenario_group_count(plan->scenario) && status == SORA_OK; g++) {
        print_group(plan, g, &text);
        const char *name = scenario_group_at(plan->scenario, g)->name;
        status = add(facts, name != NULL ? name : "mix", &text, err);
    }
    if (status == SORA_OK) {
        buf_printf(&text, "%lld", (long long)plan->scenario->seed);
        status = add(facts, "seed", &text, err);
    }
    if (status == SORA_OK && digest != NULL) {
        buf_printf(&text, "%d requests, %.16s", (int)plan->request_count, digest);
        status = add(facts, "plan", &text, err);
    }
    if (status == SORA_OK && churn != NULL) {
        print_churn(plan, churn, &text);
        status = add(facts, "churn", &text, err);
    }
    if (status == SORA_OK && verify != NULL) {
        struct verify_counts counts = verify_counts(verify);
        buf_printf(&text, "%lld distinct requests, %lld replies compared, %lld different",
                   (long long)counts.kept, (long long)counts.compared, (long long)counts.different);
        status = add(facts, "verify", &text, err);
    }
    if (status == SORA_OK) {
        print_title(plan, &text);
        facts->title = buf_take(&text, NULL);
    }
    buf_deinit(&text);
    if (status != SORA_OK)
        run_facts_deinit(facts);
    return status;
}
