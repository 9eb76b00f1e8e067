// SPDX-License-Identifier: Apache-2.0
// What is to be sent: every setting of a load, from a scenario file (JSON), from the command line,
// or both. One table (scenario_settings) names each setting once; an option of the command line is
// its key with dashes. Pure but for scenario_load; one owner at a time.
#ifndef LOADTEST_SCENARIO_H
#define LOADTEST_SCENARIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "loadtest/plan_length.h"
#include "sora/limits.h"
#include "sora/status.h"

enum scenario_arrivals {
    ARRIVALS_POISSON,
    ARRIVALS_GAMMA,
    ARRIVALS_CONSTANT,
    ARRIVALS_TRACE,
    ARRIVALS_CLOSED
};
extern const char *const scenario_arrivals_names[]; // ends with NULL

// One kind of traffic: which adapters, and what is asked of them.
struct scenario_group {
    char *name;
    char *popularity;
    double share; // weight of the group among the requests
    int64_t make; // adapters made and uploaded before the run
    struct length ranks, prompt_tokens, output_tokens;
    int64_t prefixes, prefix_tokens;
    double stream, chat, drop; // shares of the requests
};

struct scenario {
    char *title, *doc;
    int64_t seed;
    int arrivals; // enum scenario_arrivals
    double rate, burstiness, speed;
    int64_t clients, requests;
    double duration_s, warmup_s;
    char *trace;    // path
    char *adapters; // names with commas; NULL: the made ones, or what /v1/models lists
    int64_t adapters_max;
    char *base; // the base model's name, NULL: asked of the server when it is needed
    double base_share;
    struct scenario_group defaults; // for what a group does not say; the only group without groups
    struct scenario_group groups[SORA_LOADTEST_GROUPS_MAX];
    int32_t group_count;
    double churn_rate;
    char *churn_mix; // weights of uploads, updates, deletions: "1:1:1"
    char *churn_folder;
    bool churn_served;
    bool verify;
    double verify_repeat;
    char *token_ids; // "LOW:HIGH"
    double temperature;
    bool ignore_eos, usage;
    double timeout_s, drain_s;
    char *slo;
};

enum setting_kind {
    SETTING_TEXT,
    SETTING_LIST, // names with commas, or a JSON list of names
    SETTING_NUMBER,
    SETTING_SHARE, // a number in [0, 1], or "30%"
    SETTING_INT,
    SETTING_BOOL,
    SETTING_DURATION, // seconds, or "500ms", "60s", "2min"
    SETTING_LENGTH,
    SETTING_POPULARITY,
    SETTING_ARRIVALS
};

struct setting {
    const char *key, *arg, *doc;
    enum setting_kind kind;
    bool of_group; // a member of struct scenario_group
    size_t offset;
    double min, max;
};
extern const struct setting scenario_settings[]; // ends with key NULL; headings have no arg and
                                                 // no doc but a key that is a sentence

SORA_CHECKED sora_status scenario_init(struct scenario *scenario, struct sora_error *err);
void scenario_deinit(struct scenario *scenario);

// A JSON object on top of what is there. `name` stands before errors. SORA_MALFORMED names an
// unknown key and the nearest known one, or the key whose value is wrong.
SORA_CHECKED sora_status scenario_parse(struct scenario *scenario, const char *name,
                                        const char *json, size_t bytes, struct sora_error *err);
// A scenario of the program by its name, or a file.
SORA_CHECKED sora_status scenario_load(struct scenario *scenario, const char *name_or_path,
                                       struct sora_error *err);
// One setting from text; those of groups are set in every group.
SORA_CHECKED sora_status scenario_set(struct scenario *scenario, const struct setting *setting,
                                      const char *text, struct sora_error *err);
// Settings that contradict each other, and the bounds that involve two of them.
SORA_CHECKED sora_status scenario_check(const struct scenario *scenario, struct sora_error *err);

// The groups that count: the scenario's, or the defaults as the only one.
int32_t scenario_group_count(const struct scenario *scenario);
const struct scenario_group *scenario_group_at(const struct scenario *scenario, int32_t index);

// "LOW:HIGH" of token_ids; false: words are sent.
bool scenario_token_range(const struct scenario *scenario, int32_t *low, int32_t *high);
// Weights of churn_mix: uploads, updates, deletions.
SORA_CHECKED sora_status scenario_churn_weights(const char *text, double weights[3],
                                                struct sora_error *err);

// The scenarios inside the program.
struct scenario_builtin {
    const char *name, *json;
};
extern const struct scenario_builtin scenario_builtins[]; // ends with name NULL

#endif
