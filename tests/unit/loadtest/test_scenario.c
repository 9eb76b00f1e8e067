// SPDX-License-Identifier: Apache-2.0
// Scenario files: what they set, and how wrong ones are refused.
#include "load_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "temp_folder.h"

static sora_status parse_and_check(struct scenario *scenario, const char *json,
                                   struct sora_error *err)
{
    assert_int_equal(scenario_init(scenario, err), SORA_OK);
    sora_status status = scenario_parse(scenario, "test.json", json, strlen(json), err);
    return status == SORA_OK ? scenario_check(scenario, err) : status;
}

static void every_setting_is_read(void **state)
{
    (void)state;
    struct scenario scenario;
    struct sora_error err = {.text = ""};
    static const char json[] =
        "{\"title\": \"t\", \"seed\": 9, \"arrivals\": \"gamma\", \"rate\": 2.5, "
        "\"burstiness\": 0.5, \"duration\": \"2min\", \"warmup\": 1.5, \"timeout\": \"500ms\", "
        "\"adapters\": [\"a\", \"b/c\"], \"base_share\": \"5%\", \"popularity\": \"zipf:0.9\", "
        "\"stream\": true, \"ignore_eos\": false, \"slo\": \"ttft_p95=500ms\", "
        "\"groups\": [{\"name\": \"x\", \"share\": 2, \"chat\": 1}, {\"name\": \"y\"}]}";
    if (parse_and_check(&scenario, json, &err) != SORA_OK)
        fail_msg("%s", err.text);
    assert_int_equal(scenario.seed, 9);
    assert_int_equal(scenario.arrivals, ARRIVALS_GAMMA);
    assert_true(scenario.rate == 2.5 && scenario.burstiness == 0.5);
    assert_true(scenario.duration_s == 120 && scenario.warmup_s == 1.5);
    assert_true(fabs(scenario.timeout_s - 0.5) < 1e-12 && fabs(scenario.base_share - 0.05) < 1e-12);
    assert_string_equal(scenario.adapters, "a,b/c");
    assert_false(scenario.ignore_eos);
    assert_int_equal(scenario_group_count(&scenario), 2);
    assert_string_equal(scenario_group_at(&scenario, 1)->popularity, "zipf:0.9");
    assert_true(scenario_group_at(&scenario, 0)->chat == 1);
    assert_true(scenario_group_at(&scenario, 1)->chat == 0);
    scenario_deinit(&scenario);
}

static void a_wrong_scenario_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"{\"ratee\": 1}", "unknown key \"ratee\"; did you mean \"rate\"?"},
        {"{\"groups\": [{\"name\": \"x\", \"rate\": 1}]}", "groups[0]: unknown key \"rate\""},
        {"{\"groups\": [{\"share\": 1}]}", "no name"},
        {"{\"groups\": []}", "groups"},
        {"{\"groups\": [1]}", "not an object"},
        {"{\"rate\": \"3\"}", "rate: the value has the wrong type"},
        {"{\"rate\": 0}", "rate: 0 is outside"},
        {"{\"rate\": 1e9}", "outside"},
        {"{\"clients\": 1.5}", "clients: \"1.5\" is not a whole number"},
        {"{\"stream\": 1.5}", "stream"},
        {"{\"stream\": \"130%\"}", "stream"},
        {"{\"duration\": \"3 weeks\"}", "unknown unit"},
        {"{\"arrivals\": \"poison\"}", "did you mean \"poisson\"?"},
        {"{\"popularity\": \"zipf\"}", "popularity"},
        {"{\"popularity\": \"given:0,0\"}", "zero"},
        {"{\"popularity\": \"given:1,x\"}", "weight"},
        {"{\"prompt_tokens\": \"uniform:5:1\"}", "prompt_tokens"},
        {"{\"adapters\": [1]}", "adapters"},
        {"{\"adapters\": [\"a,b\"]}", "adapters"},
        {"{\"title\": 3}", "title"},
        {"{\"verify\": 1}", "verify"},
        {"{\"verify\": true, \"temperature\": 1}", "temperature must be 0"},
        {"{\"verify\": true, \"churn_rate\": 1, \"churn_served\": true, \"make\": 2}", "churn"},
        {"{\"churn_rate\": 1, \"churn_served\": true}", "make is 0"},
        {"{\"churn_mix\": \"1:1\"}", "churn_mix"},
        {"{\"churn_mix\": \"0:0:0\"}", "zero"},
        {"{\"arrivals\": \"trace\"}", "no trace"},
        {"{\"arrivals\": \"closed\", \"trace\": \"x\"}", "closed"},
        {"{\"prefixes\": 3}", "prefix_tokens"},
        {"{\"token_ids\": \"5:5\"}", "token_ids"},
        {"{\"token_ids\": \"0:10\", \"chat\": 1}", "chat"},
        {"{\"rate\": 100000, \"duration\": \"10h\"}", "exceed"},
        {"{\"slo\": \"ttft=1\"}", "ttft"},
        {"{\"rate\": 1", "test.json"},
        {"[]", "object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct scenario scenario;
        struct sora_error err = {.text = ""};
        if (parse_and_check(&scenario, cases[i].json, &err) == SORA_OK)
            fail_msg("accepted: %s", cases[i].json);
        if (strstr(err.text, cases[i].says) == NULL)
            fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].json, err.text, cases[i].says);
        scenario_deinit(&scenario);
    }
}

static void the_command_line_wins_in_every_group(void **state)
{
    (void)state;
    struct scenario scenario;
    struct sora_error err = {.text = ""};
    static const char json[] = "{\"groups\": [{\"name\": \"x\", \"output_tokens\": 9}, "
                               "{\"name\": \"y\", \"output_tokens\": 10}]}";
    assert_int_equal(parse_and_check(&scenario, json, &err), SORA_OK);
    for (const struct setting *at = scenario_settings; at->key != NULL; at++) {
        if (at->arg != NULL && strcmp(at->key, "output_tokens") == 0)
            assert_int_equal(scenario_set(&scenario, at, "4", &err), SORA_OK);
    }
    assert_int_equal(scenario.groups[0].output_tokens.high, 4);
    assert_int_equal(scenario.groups[1].output_tokens.high, 4);
    scenario_deinit(&scenario);
}

static void the_built_in_scenarios_are_right_and_can_be_planned(void **state)
{
    (void)state;
    int count = 0;
    for (const struct scenario_builtin *at = scenario_builtins; at->name != NULL; at++, count++) {
        struct load_fixture load;
        load_fixture_init(&load, at->json, NULL, "base");
        assert_non_null(load.scenario.title);
        assert_non_null(load.scenario.doc);
        assert_true(load.plan.request_count > 10);
        load_fixture_deinit(&load);
    }
    assert_int_equal(count, 6);
}

static void a_scenario_is_found_by_name_and_by_path(void **state)
{
    (void)state;
    struct scenario scenario;
    struct sora_error err = {.text = ""};
    char *folder = temp_folder_create(), *path = file_join(folder, "own.json");
    assert_int_equal(file_write_atomic(path, "{\"rate\": 7}", 11, &err), SORA_OK);
    assert_int_equal(scenario_init(&scenario, &err), SORA_OK);
    assert_int_equal(scenario_load(&scenario, path, &err), SORA_OK);
    assert_true(scenario.rate == 7);
    assert_int_equal(scenario_load(&scenario, "churn", &err), SORA_OK);
    assert_int_equal(scenario_load(&scenario, "chrun", &err), SORA_NOT_FOUND);
    assert_non_null(strstr(err.text, "did you mean \"churn\"?"));
    scenario_deinit(&scenario);
    free(path);
    temp_folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_setting_is_read),
        cmocka_unit_test(a_wrong_scenario_is_refused_by_name),
        cmocka_unit_test(the_command_line_wins_in_every_group),
        cmocka_unit_test(the_built_in_scenarios_are_right_and_can_be_planned),
        cmocka_unit_test(a_scenario_is_found_by_name_and_by_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
