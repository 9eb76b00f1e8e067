// SPDX-License-Identifier: Apache-2.0
// Scenarios and plans for the tests of the load test, from a few lines of JSON. A test's thread.
#ifndef LOADTEST_LOAD_FIXTURE_H
#define LOADTEST_LOAD_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>
#include <string.h>

#include "loadtest/plan.h"
#include "loadtest/scenario.h"

struct load_fixture {
    struct scenario scenario;
    struct plan_models models;
    struct plan plan;
};

// Parses the JSON, checks it and plans it for this list of names ("a,b"; NULL: made ones).
static inline void load_fixture_init(struct load_fixture *load, const char *json, const char *list,
                                     const char *base)
{
    struct sora_error err = {.text = ""};
    assert_int_equal(scenario_init(&load->scenario, &err), SORA_OK);
    sora_status status = scenario_parse(&load->scenario, "test", json, strlen(json), &err);
    if (status == SORA_OK)
        status = scenario_check(&load->scenario, &err);
    if (status == SORA_OK)
        status = plan_models_create(&load->scenario, list, base, &load->models, &err);
    if (status == SORA_OK)
        status = plan_create(&load->scenario, &load->models, NULL, &load->plan, &err);
    if (status != SORA_OK)
        fail_msg("%s", err.text);
}

static inline void load_fixture_deinit(struct load_fixture *load)
{
    plan_deinit(&load->plan);
    plan_models_deinit(&load->models);
    scenario_deinit(&load->scenario);
}

#endif
