// SPDX-License-Identifier: Apache-2.0
// The planner against a simulated engine that checks every plan: thousands of requests, little KV
// memory, cancellations.
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
};

struct sim {
    struct sched_options options;
    struct sched *sched;
    int32_t blocks_free, open;
    int64_t steps, rows, finished, preemptions, cached;
};

// Admission: of a third of the prompts the first half is known already.
static int32_t sim_admit(void *context, struct sched_item *item)
{
    struct sim *sim = context;
    struct sim_seq *seq = item->owner;
    assert_false(seq->open);
    seq->open = true;
    sim->open++;
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
    *sim = (struct sim){.options = {.begin = sim_admit,
                                    .begin_context = sim,
                                    .seqs_max = seqs,
                                    .rows_max = rows,
                                    .logit_rows_max = seqs > 32 ? seqs : 32,
                                    .blocks_total = blocks,
                                    .block_tokens = 16},
                        .blocks_free = blocks};
    assert_int_equal(sched_create(&sim->options, &sim->sched, NULL), SORA_OK);
}

static void sim_add(struct sim *sim, struct sim_seq *seq, int32_t prompt, int32_t output,
                    bool score)
{
    *seq = (struct sim_seq){.target = prompt + output};
    seq->item.length = prompt;
    seq->item.score_end = score ? prompt - 1 : 0;
    seq->item.owner = seq;
    sched_add(sim->sched, &seq->item);
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
        if (seq->item.length >= seq->target)
            sim_finish(sim, seq);
    }
}

static bool sim_step(struct sim *sim)
{
    const struct sched_plan *plan = sched_next(sim->sched);
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

static void thousands_of_requests_all_finish_within_every_bound(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    static struct sim_seq seqs[COUNT];
    struct sim sim;
    struct rng rng;
    rng_seed(&rng, 1);
    sim_begin(&sim, 24, 512, 200); // 200 blocks: about 3,200 tokens for 24 sequences
    int32_t added = 0, cancelled = 0;
    while (sim.finished < COUNT) {
        for (uint64_t n = rng_below(&rng, 4); n > 0 && added < COUNT; n--) {
            int32_t prompt = 1 + (int32_t)rng_below(&rng, rng_below(&rng, 10) == 0 ? 1500 : 100);
            sim_add(&sim, &seqs[added], prompt, 1 + (int32_t)rng_below(&rng, 120),
                    rng_below(&rng, 8) == 0);
            added++;
        }
        if (added > 0 && rng_below(&rng, 20) == 0) {
            struct sim_seq *seq = &seqs[rng_below(&rng, (uint64_t)added)];
            if (!seq->done) {
                sim_finish(&sim, seq);
                cancelled++;
            }
        }
        (void)sim_step(&sim);
        assert_true(sim.steps < 1000000);
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
    assert_int_equal(sched_next(sim.sched)->rows, 0);
    sim_end(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thousands_of_requests_all_finish_within_every_bound),
        cmocka_unit_test(the_oldest_request_is_never_put_back),
        cmocka_unit_test(a_short_prompt_does_not_wait_behind_a_long_one),
        cmocka_unit_test(running_sequences_get_a_token_in_every_step),
        cmocka_unit_test(a_scored_prompt_has_every_row_scored_once),
        cmocka_unit_test(nothing_to_do_is_an_empty_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
