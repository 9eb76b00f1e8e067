// SPDX-License-Identifier: Apache-2.0
// forward_batch: which rows stay when only logits are left to compute.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "model/forward_batch.h"

enum { ROWS = 8, GROUPS = 3 };

struct lists {
    int32_t tokens[ROWS], positions[ROWS], slots[ROWS], logit_rows[ROWS];
    int32_t group_rows[ROWS * LORA_PARTS_MAX];
    struct attention_row rows[ROWS];
    struct lora_group groups[GROUPS];
};

// Rows 0 and 5 are the base's; one adapter has 1 2 6, another 3 4 7; a second part of 6 and 7.
static struct forward_batch batch_of(struct lists *lists)
{
    static const int32_t listed[] = {1, 2, 6, 3, 4, 7, 6, 7};
    memset(lists, 0, sizeof *lists);
    memcpy(lists->group_rows, listed, sizeof listed);
    for (int32_t i = 0; i < ROWS; i++) {
        lists->tokens[i] = 10 + i;
        lists->positions[i] = 20 + i;
        lists->slots[i] = 30 + i;
        lists->rows[i] = (struct attention_row){&lists->slots[i], 40 + i};
    }
    for (int32_t i = 0; i < GROUPS; i++)
        lists->groups[i] = (struct lora_group){.scale = (float)(i + 1),
                                               .rows = lists->group_rows + 3 * i,
                                               .row_count = i == 2 ? 2 : 3};
    return (struct forward_batch){.row_count = ROWS,
                                  .tokens = lists->tokens,
                                  .positions = lists->positions,
                                  .rows = lists->rows,
                                  .slots = lists->slots,
                                  .group_count = GROUPS,
                                  .groups = lists->groups,
                                  .group_rows = lists->group_rows,
                                  .logit_rows = lists->logit_rows};
}

static void rows_with_logits_are_kept_under_new_numbers(void **state)
{
    (void)state;
    struct lists lists;
    struct forward_batch batch = batch_of(&lists);
    const int32_t wanted[] = {2, 5, 6};
    memcpy(lists.logit_rows, wanted, sizeof wanted);
    batch.logit_row_count = 3;
    forward_batch_keep_logit_rows(&batch);
    assert_int_equal(batch.row_count, 3);
    for (int32_t i = 0; i < 3; i++) {
        assert_int_equal(batch.tokens[i], 10 + wanted[i]);
        assert_int_equal(batch.positions[i], 20 + wanted[i]);
        assert_int_equal(batch.slots[i], 30 + wanted[i]);
        assert_int_equal(batch.rows[i].pos, 40 + wanted[i]);
        assert_ptr_equal(batch.rows[i].blocks, &lists.slots[wanted[i]]);
        assert_int_equal(batch.logit_rows[i], wanted[i]);
    }
    assert_int_equal(batch.group_count, 2); // the second adapter has no row left
    assert_true(batch.groups[0].scale == 1);
    assert_int_equal(batch.groups[0].row_count, 2);
    assert_int_equal(batch.groups[0].rows[0], 0);
    assert_int_equal(batch.groups[0].rows[1], 2);
    assert_true(batch.groups[1].scale == 3);
    assert_int_equal(batch.groups[1].row_count, 1);
    assert_int_equal(batch.groups[1].rows[0], 2);
}

static void nothing_is_kept_without_logits(void **state)
{
    (void)state;
    struct lists lists;
    struct forward_batch batch = batch_of(&lists);
    forward_batch_keep_logit_rows(&batch);
    assert_int_equal(batch.row_count, 0);
    assert_int_equal(batch.group_count, 0);
}

static void all_rows_with_logits_stay_as_they_are(void **state)
{
    (void)state;
    struct lists lists, before;
    struct forward_batch batch = batch_of(&lists);
    batch.logit_row_count = ROWS;
    for (int32_t i = 0; i < ROWS; i++)
        lists.logit_rows[i] = i;
    before = lists;
    forward_batch_keep_logit_rows(&batch);
    assert_int_equal(batch.row_count, ROWS);
    assert_int_equal(batch.group_count, GROUPS);
    assert_memory_equal(&lists, &before, sizeof lists);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_with_logits_are_kept_under_new_numbers),
        cmocka_unit_test(nothing_is_kept_without_logits),
        cmocka_unit_test(all_rows_with_logits_stay_as_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
