// SPDX-License-Identifier: Apache-2.0
// Everything that will be sent, decided before the run: the same settings, models and seed give the
// same plan on every machine, whatever server it is sent to. What request i asks depends on the
// seed and on i alone, so plans of different rates ask the same. Immutable once made; pure.
#ifndef LOADTEST_PLAN_H
#define LOADTEST_PLAN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "loadtest/plan_trace.h"
#include "loadtest/scenario.h"
#include "sora/status.h"

// Who can be asked. Groups share the adapters out among themselves.
struct plan_models {
    char **names; // count of them
    int32_t count;
    int32_t base; // index of the base model, -1: not known, never asked
    struct {
        int32_t first, count;
    } groups[SORA_LOADTEST_GROUPS_MAX];
    int32_t made_count; // the first so many names are adapters that the load test makes
};

struct plan_request {
    int64_t planned_us; // since the start of the run; closed loop: 0, sent when a client is free
    uint64_t prompt_seed;
    int32_t model, group;
    int32_t prompt_tokens, output_tokens; // prompt without its prefix
    int32_t prefix;                       // index among those of the group, -1: none
    int32_t content;                      // the request that it repeats, or its own index
    int32_t drop_tokens;                  // closed after so many events with tokens, 0: not
    int32_t drop_ms;                      // not streamed: closed after so long, 0: not
    bool stream, chat, warmup;
};

enum plan_churn_kind { CHURN_UPLOAD, CHURN_UPDATE, CHURN_DELETE };

struct plan_churn {
    int64_t at_us;
    enum plan_churn_kind kind;
    int32_t name;   // number of an own name, or of a model when `served`
    int32_t number; // of the file to send, counting up
    bool served;
};

struct plan {
    const struct scenario *scenario;
    const struct plan_models *models;
    struct plan_request *requests;
    int32_t request_count;
    struct plan_churn *churn;
    int32_t churn_count;
    bool closed;
    int32_t clients;
    int64_t warmup_us;
    int64_t send_us; // after it nothing more is sent, warm-up included
    bool token_ids;
    int32_t token_low, token_high;
};

// The names of a group: the made ones; with a list (adapters given or discovered) parts of the list
// in proportion to `make`, in equal parts without it. base may be NULL. `list` is a text of names
// with commas, NULL: made ones ("none": no adapter at all).
SORA_CHECKED sora_status plan_models_create(const struct scenario *scenario, const char *list,
                                            const char *base, struct plan_models *models,
                                            struct sora_error *err);
void plan_models_deinit(struct plan_models *models);
// Index of a name, appended when it is not there.
SORA_CHECKED sora_status plan_models_add(struct plan_models *models, const char *name,
                                         int32_t *index, struct sora_error *err);

// trace: for ARRIVALS_TRACE, else NULL. scenario and models must outlive the plan.
SORA_CHECKED sora_status plan_create(const struct scenario *scenario,
                                     const struct plan_models *models, const struct trace *trace,
                                     struct plan *plan, struct sora_error *err);
// The replies of a run again, one by one: at most `count` of the requests that others repeat.
SORA_CHECKED sora_status plan_create_alone(const struct plan *plan, int32_t count,
                                           struct plan *alone, struct sora_error *err);
void plan_deinit(struct plan *plan);

// The prompt of a request as text, its prefix (may be empty) and the rest apart, since a chat sends
// them as two messages.
void plan_prefix_text(const struct plan *plan, const struct plan_request *request, struct buf *out);
void plan_prompt_text(const struct plan_request *request, struct buf *out);
// Prefix and prompt as a JSON list of token ids.
void plan_prompt_ids(const struct plan *plan, const struct plan_request *request, struct buf *out);
// Tokens of prompt and prefix as planned.
int32_t plan_prompt_tokens(const struct plan *plan, const struct plan_request *request);

// SHA-256 over all that is decided; two plans with one digest send the same.
SORA_CHECKED sora_status plan_digest(const struct plan *plan, char hex[65], struct sora_error *err);
// One line a request (CSV with a header), one comment line a change of adapters.
void plan_print(const struct plan *plan, FILE *out);
const char *plan_churn_kind_name(enum plan_churn_kind kind);
// "loadtest-churn-7", or the model's name.
void plan_churn_name(const struct plan *plan, const struct plan_churn *op, char *out,
                     size_t out_bytes);

#endif
