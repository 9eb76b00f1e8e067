// SPDX-License-Identifier: Apache-2.0
// The planner against a simulated engine that checks every plan and keeps the time: tens of
// thousands of requests of many tenants, little KV memory, cancellations.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/rng.h"
#include "server/sched.h"
#include "sora/limits.h"

struct sim_seq {
    struct sched_item item;
    int32_t target;           // length at which it is done
    int32_t computed, blocks; // what the simulated engine holds
    bool open, done;
    int32_t scored; // rows scored
    int32_t preempted;
    int64_t added_us, begun_us;
};

struct sim {
    struct sched_options options;
    struct sched *sched;
    int32_t blocks_free, open;
    int64_t steps, rows, finished, preemptions, cached;
    int64_t now_us, step_us, row_us; // a step takes step_us and row_us for every row
    int64_t longest_us;              // step
    int64_t served[4];               // tokens chosen, by tenant
    int32_t begun[4];                // sequences
};

// Admission: of a third of the prompts the first half is known already.
static int32_t sim_admit(void *context, struct sched_item *item)
{
    struct sim *sim = context;
    struct sim_seq *seq = item->owner;
    assert_false(seq->open);
    seq->open = true;
    sim->open++;
    if (seq->begun_us < 0) {
        seq->begun_us = sim->now_us;
        sim->begun[item->tenant % 4]++;
    }
    if (item->length % 3 != 0 || item->score_next < item->score_end)
        return 0;
    seq->computed = item->length / 2 / 16 * 16;
    seq->blocks = seq->computed / 16;
    sim->blocks_free -= seq->blocks;
    sim->cached += seq->computed;
    return seq->computed;
}

static void sim_begin(struct sim *sim, int32_t seqs, int32_t rows, int32_t blocks)
{
    *sim = (struct sim){.step_us = 10000,
                        .row_us = 700,
                        .options = {.begin = sim_admit,
                                    .begin_context = sim,
                                    .seqs_max = seqs,
                                    .rows_max = rows,
                                    .logit_rows_max = seqs > 32 ? seqs : 32,
                                    .blocks_total = blocks,
                                    .block_tokens = 16},
                        .blocks_free = blocks};
    assert_int_equal(sched_create(&sim->options, &sim->sched, NULL), SORA_OK);
}

static void sim_add_of(struct sim *sim, struct sim_seq *seq, uint64_t tenant, uint64_t adapter,
                       int32_t prompt, int32_t output)
{
    *seq = (struct sim_seq){.target = prompt + output, .added_us = sim->now_us, .begun_us = -1};
    seq->item.tenant = tenant;
    seq->item.adapter = adapter;
    seq->item.length = prompt;
    seq->item.owner = seq;
    sched_add(sim->sched, &seq->item, sim->now_us);
}

static void sim_add(struct sim *sim, struct sim_seq *seq, int32_t prompt, int32_t output,
                    bool score)
{
    *seq = (struct sim_seq){.target = prompt + output, .added_us = sim->now_us, .begun_us = -1};
    seq->item.length = prompt;
    seq->item.score_end = score ? prompt - 1 : 0;
    seq->item.owner = seq;
    sched_add(sim->sched, &seq->item, sim->now_us);
}

static void sim_close(struct sim *sim, struct sim_seq *seq)
{
    sim->blocks_free += seq->blocks;
    sim->open -= seq->open;
    seq->blocks = seq->computed = 0;
    seq->open = false;
}

static void sim_finish(struct sim *sim, struct sim_seq *seq)
{
    sched_remove(sim->sched, &seq->item);
    sim_close(sim, seq);
    seq->done = true;
    sim->finished++;
}

// Does what a real engine would do, and checks what it would need.
static void sim_compute(struct sim *sim, const struct sched_span *span)
{
    struct sim_seq *seq = span->item->owner;
    assert_true(seq->open && !seq->done);
    assert_int_equal(span->start, seq->computed);
    assert_true(span->count > 0 && span->start + span->count <= seq->item.length);
    seq->computed += span->count;
    int32_t need = (seq->computed + 15) / 16;
    if (need > seq->blocks) {
        sim->blocks_free -= need - seq->blocks;
        seq->blocks = need;
    }
    assert_true(sim->blocks_free >= 0);
    assert_true(span->item->blocks >= need);
    assert_int_equal(span->last_logits, seq->computed == seq->item.length);
    for (int32_t p = span->start; p < seq->computed; p++) {
        if (p == seq->item.score_next && p < seq->item.score_end) {
            assert_true(span->all_logits); // a row that must be scored has logits
            seq->item.score_next++;
            seq->scored++;
        }
    }
    if (span->last_logits) {
        assert_int_equal(seq->item.score_next, seq->item.score_end);
        seq->item.length++;
        sim->served[seq->item.tenant % 4]++;
        if (seq->item.length >= seq->target)
            sim_finish(sim, seq);
    }
}

static bool sim_step(struct sim *sim)
{
    const struct sched_plan *plan = sched_next(sim->sched, sim->now_us);
    int32_t rows = 0, logit_rows = 0;
    for (int32_t i = 0; i < plan->preempted_count; i++) {
        struct sim_seq *seq = plan->preempted[i]->owner;
        assert_true(seq->open);
        sim_close(sim, seq);
        seq->preempted++;
        sim->preemptions++;
    }
    assert_true(sim->open <= sim->options.seqs_max);
    for (int32_t i = 0; i < plan->span_count; i++) {
        rows += plan->spans[i].count;
        logit_rows += plan->spans[i].all_logits ? plan->spans[i].count : plan->spans[i].last_logits;
    }
    assert_int_equal(rows, plan->rows);
    assert_true(rows <= sim->options.rows_max && logit_rows <= sim->options.logit_rows_max);
    for (int32_t i = 0; i < plan->span_count; i++)
        sim_compute(sim, &plan->spans[i]);
    int64_t took_us = rows > 0 ? sim->step_us + rows * sim->row_us : 0;
    sim->now_us += took_us;
    sim->longest_us = took_us > sim->longest_us ? took_us : sim->longest_us;
    sched_took(sim->sched, took_us);
    sim->steps++;
    sim->rows += rows;
    return rows > 0;
}

static void sim_end(struct sim *sim)
{
    assert_int_equal(sched_running(sim->sched), 0);
    assert_int_equal(sched_waiting(sim->sched), 0);
    assert_int_equal(sched_blocks_used(sim->sched), 0);
    assert_int_equal(sim->blocks_free, sim->options.blocks_total);
    sched_destroy(sim->sched);
}

static void tens_of_thousands_of_requests_all_finish_within_every_bound(void **state)
{
    (void)state;
    enum { COUNT = 15000 };
    static struct sim_seq seqs[COUNT];
    struct sim sim;
    struct rng rng;
    rng_seed(&rng, 1);
    sim_begin(&sim, 24, 512, 200); // 200 blocks: about 3,200 tokens for 24 sequences
    int32_t added = 0, cancelled = 0;
    while (sim.finished < COUNT) {
        for (uint64_t n = rng_below(&rng, 4); n > 0 && added < COUNT; n--) {
            int32_t prompt = 1 + (int32_t)rng_below(&rng, rng_below(&rng, 10) == 0 ? 1500 : 100);
            struct sim_seq *seq = &seqs[added++];
            if (rng_below(&rng, 8) == 0)
                sim_add(&sim, seq, prompt, 1 + (int32_t)rng_below(&rng, 120), true);
            else
                sim_add_of(&sim, seq, rng_below(&rng, 5), rng_below(&rng, 300), prompt,
                           1 + (int32_t)rng_below(&rng, 120));
        }
        if (added > 0 && rng_below(&rng, 20) == 0) {
            struct sim_seq *seq = &seqs[rng_below(&rng, (uint64_t)added)];
            if (!seq->done) {
                sim_finish(&sim, seq);
                cancelled++;
            }
        }
        (void)sim_step(&sim);
        assert_true(sim.steps < 10000000);
    }
    assert_true(sim.preemptions > 0 && cancelled > 0);
    for (int32_t i = 0; i < COUNT; i++)
        assert_true(seqs[i].done);
    sim_end(&sim);
}

static void the_oldest_request_is_never_put_back(void **state)
{
    (void)state;
    struct sim_seq seqs[8];
    struct sim sim;
    sim_begin(&sim, 8, 512, 20);
    for (int i = 0; i < 8; i++)
        sim_add(&sim, &seqs[i], 30, 250, false);
    while (!seqs[0].done)
        assert_true(sim_step(&sim));
    assert_int_equal(seqs[0].preempted, 0);
    assert_int_equal(sim.steps, 250); // it was never slowed down: prompt, then a token a step
    while (sim_step(&sim))
        continue;
    assert_int_equal(sim.finished, 8);
    assert_true(sim.preemptions > 0);
    sim_end(&sim);
}

static void a_short_prompt_does_not_wait_behind_a_long_one(void **state)
{
    (void)state;
    struct sim_seq longer, shorter;
    struct sim sim;
    sim_begin(&sim, 8, 512, 1000);
    sim_add(&sim, &longer, 4000, 1, false);
    sim_add(&sim, &shorter, 20, 1, false);
    assert_true(sim_step(&sim));
    assert_true(shorter.done);
    assert_int_equal(longer.computed, SORA_STEP_ROWS_DEFAULT - 20); // and no row is wasted
    while (sim_step(&sim))
        continue;
    assert_true(sim.steps <= 4000 / SORA_STEP_ROWS_DEFAULT + 3); // the last is empty
    sim_end(&sim);
}

static void running_sequences_get_a_token_in_every_step(void **state)
{
    (void)state;
    struct sim_seq seqs[4], prompt;
    struct sim sim;
    sim_begin(&sim, 8, 512, 1000);
    for (int i = 0; i < 4; i++)
        sim_add(&sim, &seqs[i], 5, 100, false);
    assert_true(sim_step(&sim));
    sim_add(&sim, &prompt, 5000, 5, false);
    for (int step = 1; step <= 10; step++) {
        assert_true(sim_step(&sim));
        for (int i = 0; i < 4; i++)
            assert_int_equal(seqs[i].item.length, 5 + 1 + step);
    }
    assert_true(prompt.computed >= 10 * (SORA_STEP_ROWS_DEFAULT - 4) - 1);
    for (int i = 0; i < 4; i++)
        sim_finish(&sim, &seqs[i]);
    sim_finish(&sim, &prompt);
    sim_end(&sim);
}

static void a_scored_prompt_has_every_row_scored_once(void **state)
{
    (void)state;
    struct sim_seq seqs[6];
    struct sim sim;
    sim_begin(&sim, 6, 512, 60); // 960 tokens: not all six at once
    for (int i = 0; i < 6; i++)
        sim_add(&sim, &seqs[i], 100 + 50 * i, 60, true);
    while (sim_step(&sim))
        continue;
    for (int i = 0; i < 6; i++)
        assert_int_equal(seqs[i].scored, 100 + 50 * i - 1);
    sim_end(&sim);
}

static void nothing_to_do_is_an_empty_plan(void **state)
{
    (void)state;
    struct sim sim;
    sim_begin(&sim, 1, 512, 4);
    assert_int_equal(sched_tokens_max(sim.sched), 64);
    assert_int_equal(sched_next(sim.sched, 0)->rows, 0);
    sim_end(&sim);
}

// Ends what is left of a flood.
static void sim_drop(struct sim *sim, struct sim_seq *seqs, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        if (!seqs[i].done)
            sim_finish(sim, &seqs[i]);
}

// Both always have work: tenant 1 short answers of fifty adapters, tenant 2 long ones of one.
static void two_tenants_with_work_get_the_same_tokens(void **state)
{
    (void)state;
    enum { EACH = 10000, DEEP = 50 };
    static struct sim_seq seqs[2][EACH];
    struct sim sim;
    struct rng rng;
    rng_seed(&rng, 2);
    sim_begin(&sim, 16, 512, 400);
    int32_t added[2] = {0};
    while (sim.steps < 12000) {
        for (; added[0] - sim.begun[1] < DEEP; added[0]++)
            sim_add_of(&sim, &seqs[0][added[0]], 1, rng_below(&rng, 50), 10, 40);
        for (; added[1] - sim.begun[2] < DEEP; added[1]++)
            sim_add_of(&sim, &seqs[1][added[1]], 2, 7, 10, 120);
        assert_true(added[0] < EACH && added[1] < EACH);
        assert_true(sim_step(&sim));
    }
    assert_true(sim.served[1] > 50000);
    // 90 virtual tokens for 40, 250 for 120: 1.08, give or take what the places hold.
    double ratio = (double)sim.served[2] / (double)sim.served[1];
    assert_true(ratio > 1.0 && ratio < 1.16);
    sim_drop(&sim, seqs[0], added[0]);
    sim_drop(&sim, seqs[1], added[1]);
    sim_end(&sim);
}

static void adapters_of_a_tenant_share_alike(void **state)
{
    (void)state;
    enum { COUNT = 12000 };
    static struct sim_seq seqs[COUNT];
    struct sim sim;
    sim_begin(&sim, 8, 512, 400);
    int32_t added = 0, backlog = 0; // adapter 1 sends nine of ten requests
    while (sim.steps < 3000) {
        for (; added < COUNT && sched_waiting(sim.sched) < 500; added++)
            sim_add_of(&sim, &seqs[added], 0, added % 10 == 0 ? 2 : 1, 20, 30);
        assert_true(sim_step(&sim));
    }
    int64_t served[3] = {0};
    for (int32_t i = 0; i < added; i++) {
        served[seqs[i].item.adapter] += seqs[i].item.length - 20;
        backlog += seqs[i].item.adapter == 2 && !seqs[i].done;
    }
    // The quiet one never waits: it has all it asked for, the loud one the rest.
    assert_true(backlog <= 8);
    assert_true(served[1] > served[2]);
    sim_drop(&sim, seqs, added);
    sim_end(&sim);
}

static void a_flood_hardly_delays_another_tenant(void **state)
{
    (void)state;
    enum { FLOOD = 10000, PROBES = 100, DEEP = 500 };
    static struct sim_seq flood[FLOOD], probes[PROBES];
    struct sim sim;
    sim_begin(&sim, 16, 512, 400);
    int32_t added = 0;
    for (int32_t i = 0; i < PROBES; i++) {
        sim_add_of(&sim, &probes[i], 2, 1, 50, 10);
        while (!probes[i].done) {
            for (; added < FLOOD && sched_waiting(sim.sched) < DEEP; added++)
                sim_add_of(&sim, &flood[added], 1, 1, 50, 60);
            assert_true(sim_step(&sim));
        }
        // In order of arrival it would wait for 500 others: more than half a minute.
        assert_true(probes[i].begun_us - probes[i].added_us < 3000000);
    }
    sim_drop(&sim, flood, added);
    sim_end(&sim);
}

// Ever new tenants, each ahead of the old one by its counter, take all the places they can.
static void the_old_are_served_however_many_new_tenants_come(void **state)
{
    (void)state;
    enum { NEW = 20000 };
    static struct sim_seq news[NEW], old[20];
    struct sim sim;
    sim_begin(&sim, 4, 512, 400);
    sim_add_of(&sim, &old[0], 1, 0, 3000, 400); // far ahead of everybody
    while (!old[0].done)
        assert_true(sim_step(&sim));
    for (int32_t i = 1; i < 20; i++)
        sim_add_of(&sim, &old[i], 1, 0, 20, 20);
    int32_t added = 0;
    while (!old[19].done) {
        while (added < NEW && sched_waiting(sim.sched) < 40) {
            sim_add_of(&sim, &news[added], 100 + (uint64_t)added, 0, 20, 20);
            added++;
        }
        assert_true(added < NEW);
        assert_true(sim_step(&sim));
    }
    // Nineteen places of the oldest, one in four, and 21 steps a place with four at once.
    assert_true(sim.steps < 400 + 3000 / 16 + 19 * 21 * 2 + 100);
    sim_drop(&sim, news, added);
    sim_end(&sim);
}

static void a_place_is_made_for_a_flow_that_runs_nothing(void **state)
{
    (void)state;
    struct sim_seq takers[8], guest;
    struct sim sim;
    sim_begin(&sim, 8, 512, 1000);
    for (int i = 0; i < 8; i++)
        sim_add_of(&sim, &takers[i], 1, (uint64_t)i % 2, 20, 1000);
    for (int i = 0; i < 10; i++)
        assert_true(sim_step(&sim));
    sim_add_of(&sim, &guest, 2, 0, 20, 5);
    while (!guest.done)
        assert_true(sim_step(&sim));
    int64_t waited_us = guest.begun_us - guest.added_us;
    assert_true(waited_us >= SORA_FAIR_WAIT_US && waited_us < SORA_FAIR_WAIT_US + 200000);
    assert_int_equal(sim.preemptions, 1);
    assert_int_equal(takers[0].preempted, 0);
    while (sim_step(&sim))
        continue;
    assert_int_equal(sim.finished, 9);
    assert_int_equal(sim.preemptions, 1);
    sim_end(&sim);
}

static void a_long_prompt_holds_nobody_longer_than_the_step_bound(void **state)
{
    (void)state;
    struct sim_seq talkers[4], longer[3];
    struct sim sim;
    sim_begin(&sim, 8, 512, 1000);
    sched_destroy(sim.sched);
    sim.options.step_us_max = 60000;
    assert_int_equal(sched_create(&sim.options, &sim.sched, NULL), SORA_OK);
    for (int i = 0; i < 4; i++)
        sim_add(&sim, &talkers[i], 40, 400, false); // the pace is learnt from their prompts
    assert_true(sim_step(&sim));
    sim.longest_us = 0;
    for (int i = 0; i < 3; i++)
        sim_add(&sim, &longer[i], 3000, 5, false);
    while (!longer[0].done && !longer[1].done)
        assert_true(sim_step(&sim));
    assert_true(sim.longest_us <= 60000 * 5 / 4);
    assert_true(sim.longest_us > 60000 / 2); // and the bound is made use of
    while (sim_step(&sim))
        continue;
    sim_end(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tens_of_thousands_of_requests_all_finish_within_every_bound),
        cmocka_unit_test(the_oldest_request_is_never_put_back),
        cmocka_unit_test(a_short_prompt_does_not_wait_behind_a_long_one),
        cmocka_unit_test(running_sequences_get_a_token_in_every_step),
        cmocka_unit_test(a_scored_prompt_has_every_row_scored_once),
        cmocka_unit_test(nothing_to_do_is_an_empty_plan),
        cmocka_unit_test(two_tenants_with_work_get_the_same_tokens),
        cmocka_unit_test(adapters_of_a_tenant_share_alike),
        cmocka_unit_test(a_flood_hardly_delays_another_tenant),
        cmocka_unit_test(the_old_are_served_however_many_new_tenants_come),
        cmocka_unit_test(a_place_is_made_for_a_flow_that_runs_nothing),
        cmocka_unit_test(a_long_prompt_holds_nobody_longer_than_the_step_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
