// SPDX-License-Identifier: Apache-2.0
// The plan of a run: every epoch visits every example once, steps keep to batch_tokens, the seed
// decides the order.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "temp_folder.h"
#include "train/batches.h"

enum { EXAMPLES = 20 };

// Example i: i % 7 + 2 tokens, all with the id i.
static void make_data(struct example_index *data)
{
    char *folder = temp_folder_create();
    char *path = file_join(folder, "d.jsonl");
    char text[8192];
    size_t at = 0;
    for (int32_t i = 0; i < EXAMPLES; i++) {
        at += (size_t)snprintf(text + at, sizeof(text) - at, "{\"tokens\":[%d", i);
        for (int32_t t = 1; t < i % 7 + 2; t++)
            at += (size_t)snprintf(text + at, sizeof(text) - at, ",%d", i);
        at += (size_t)snprintf(text + at, sizeof(text) - at, "]}\n");
    }
    const struct dataset_rules rules = {.vocab_size = 100, .example_tokens_max = 100};
    struct sora_error err;
    assert_int_equal(file_write_atomic(path, text, at, &err), SORA_OK);
    assert_int_equal(example_index_open(path, &rules, data, &err), SORA_OK);
    free(path);
    temp_folder_remove(folder); // what is open stays readable
}

static struct sora_train_options options_with(double epochs, int32_t batch_tokens, int32_t stages)
{
    struct sora_train_options options = sora_train_options_defaults();
    options.epochs = epochs;
    options.batch_tokens = batch_tokens;
    options.xi_count = stages;
    return options;
}

static void every_epoch_visits_every_example_once(void **state)
{
    (void)state;
    struct example_index data;
    struct batches batches;
    struct sora_error err;
    make_data(&data);
    const struct sora_train_options options = options_with(2.0, 16, 3);
    assert_int_equal(batches_init(&batches, &data, &options, &err), SORA_OK);
    int32_t visits[EXAMPLES] = {0}, epochs = 0, stages = 0;
    for (int64_t step = 0; step < batches.step_count; step++) {
        struct train_batch batch;
        assert_int_equal(batches_get(&batches, step, &batch, &err), SORA_OK);
        assert_true(batch.token_count <= 16);
        assert_int_equal(batches.steps[step].stage, stages);
        assert_int_equal(batch.scored_count, batch.token_count - batch.sequence_count);
        for (int32_t s = 0; s < batch.sequence_count; s++)
            visits[batch.tokens[batch.starts[s]]]++;
        if (!batches.steps[step].ends_epoch)
            continue;
        epochs++;
        for (int32_t i = 0; i < EXAMPLES; i++)
            assert_int_equal(visits[i], epochs);
        assert_int_equal(batches.steps[step].ends_stage, epochs % 2 == 0);
        stages += batches.steps[step].ends_stage;
    }
    assert_int_equal(epochs, 6);
    assert_int_equal(stages, 3);
    batches_deinit(&batches);
    example_index_close(&data);
}

static void an_example_longer_than_a_step_stands_alone(void **state)
{
    (void)state;
    struct example_index data;
    struct batches batches;
    struct sora_error err;
    make_data(&data);
    const struct sora_train_options options = options_with(1.0, 1, 1);
    assert_int_equal(batches_init(&batches, &data, &options, &err), SORA_OK);
    assert_int_equal(batches.step_count, EXAMPLES);
    assert_int_equal(batches.tokens_max, 8);
    batches_deinit(&batches);
    example_index_close(&data);
}

static void a_part_of_an_epoch_takes_a_part_of_the_examples(void **state)
{
    (void)state;
    const struct {
        double epochs;
        int64_t visits;
    } rows[] = {{0.25, 5}, {0.01, 1}, {1.5, 30}, {2.0, 40}};
    struct example_index data;
    make_data(&data);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct batches batches;
        struct sora_error err;
        const struct sora_train_options options = options_with(rows[i].epochs, 16, 1);
        assert_int_equal(batches_init(&batches, &data, &options, &err), SORA_OK);
        int64_t visits = 0;
        for (int64_t step = 0; step < batches.step_count; step++)
            visits += batches.steps[step].count;
        assert_int_equal(visits, rows[i].visits);
        batches_deinit(&batches);
    }
    example_index_close(&data);
}

static void the_seed_decides_the_order(void **state)
{
    (void)state;
    struct example_index data;
    struct batches a, b, c;
    struct sora_error err;
    make_data(&data);
    struct sora_train_options options = options_with(2.0, 16, 1);
    assert_int_equal(batches_init(&a, &data, &options, &err), SORA_OK);
    assert_int_equal(batches_init(&b, &data, &options, &err), SORA_OK);
    options.seed = 1;
    assert_int_equal(batches_init(&c, &data, &options, &err), SORA_OK);
    assert_memory_equal(a.order, b.order, 2 * EXAMPLES * sizeof(int32_t));
    assert_memory_not_equal(a.order, c.order, 2 * EXAMPLES * sizeof(int32_t));
    assert_memory_not_equal(a.order, a.order + EXAMPLES, EXAMPLES * sizeof(int32_t));
    batches_deinit(&a);
    batches_deinit(&b);
    batches_deinit(&c);
    example_index_close(&data);
}

static void too_many_visits_are_refused(void **state)
{
    (void)state;
    struct example_index data;
    struct batches batches;
    struct sora_error err;
    make_data(&data);
    const struct sora_train_options options = options_with(1e6, 16, 64);
    assert_int_equal(batches_init(&batches, &data, &options, &err), SORA_LIMIT);
    example_index_close(&data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_epoch_visits_every_example_once),
        cmocka_unit_test(an_example_longer_than_a_step_stands_alone),
        cmocka_unit_test(a_part_of_an_epoch_takes_a_part_of_the_examples),
        cmocka_unit_test(the_seed_decides_the_order),
        cmocka_unit_test(too_many_visits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
