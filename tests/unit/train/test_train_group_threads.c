// SPDX-License-Identifier: Apache-2.0
// Data-parallel runs, with threads in the place of processes: the same loss at every step as alone,
// the same file in all, one that speaks, and failures and cancels of one that are those of all.
#include "train_fixture.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>

#include "sora/train.h"
#include "train/train_group.h"

enum { SIZE_MAX_HERE = 3, STEPS_MAX = 4096 };

// Where the threads of a group meet.
struct meeting {
    pthread_barrier_t barrier;
    int32_t size;
    void *slots[SIZE_MAX_HERE];
};

struct member {
    struct meeting *meeting;
    struct sora_train_group group;
    struct sora_train_options options;
    const char *data_path;
    pthread_t thread;
    atomic_bool cancel;
    int64_t cancel_at; // of the hook's steps; 0: never
    int64_t steps;
    double losses[STEPS_MAX];
    struct sora_train_start start;
    struct sora_train_result result;
    sora_status status;
    struct sora_error err;
};

static void meet(struct member *member)
{
    pthread_barrier_wait(&member->meeting->barrier);
}

// All have shown theirs, so that the first may add.
static void show_all(struct member *member, void *values)
{
    member->meeting->slots[member->group.rank] = values;
    meet(member);
}

// What the first holds goes to all.
static void take_firsts(struct member *member, void *values, size_t byte_count)
{
    meet(member);
    if (member->group.rank > 0)
        memcpy(values, member->meeting->slots[0], byte_count);
    meet(member);
}

static void sum_floats(void *context, float *values, size_t count)
{
    struct member *member = context;
    show_all(member, values);
    for (int32_t r = 1; member->group.rank == 0 && r < member->meeting->size; r++)
        for (size_t i = 0; i < count; i++)
            values[i] += ((float *)member->meeting->slots[r])[i];
    take_firsts(member, values, count * sizeof *values);
}

static void sum_doubles(void *context, double *values, size_t count)
{
    struct member *member = context;
    show_all(member, values);
    for (int32_t r = 1; member->group.rank == 0 && r < member->meeting->size; r++)
        for (size_t i = 0; i < count; i++)
            values[i] += ((double *)member->meeting->slots[r])[i];
    take_firsts(member, values, count * sizeof *values);
}

static void broadcast(void *context, void *bytes, size_t byte_count)
{
    struct member *member = context;
    show_all(member, bytes);
    take_firsts(member, bytes, byte_count);
}

static void on_start(void *context, const struct sora_train_start *start)
{
    struct member *member = context;
    member->start = *start;
}

static void on_step(void *context, const struct sora_train_progress *progress)
{
    struct member *member = context;
    assert_true(member->steps < STEPS_MAX);
    member->losses[member->steps++] = progress->loss;
    if (member->steps == member->cancel_at)
        atomic_store(&member->cancel, true);
}

static void *run(void *context)
{
    struct member *member = context;
    const struct sora_train_hooks hooks = {
        .context = member, .on_start = on_start, .on_step = on_step, .cancel = &member->cancel};
    member->status = sora_train_run(model, tokenizer, member->data_path, eval_path,
                                    &member->options, &hooks, &member->result, &member->err);
    return NULL;
}

static void run_group(struct member *members, int32_t size)
{
    struct meeting meeting = {.size = size};
    assert_int_equal(pthread_barrier_init(&meeting.barrier, NULL, (unsigned)size), 0);
    for (int32_t r = 0; r < size; r++) {
        struct member *member = &members[r];
        member->meeting = &meeting;
        member->group = (struct sora_train_group){.rank = r,
                                                  .size = size,
                                                  .context = member,
                                                  .sum = sum_floats,
                                                  .sum_doubles = sum_doubles,
                                                  .broadcast = broadcast};
        member->options.group = &member->group;
    }
    for (int32_t r = 0; r < size; r++)
        assert_int_equal(pthread_create(&members[r].thread, NULL, run, &members[r]), 0);
    for (int32_t r = 0; r < size; r++)
        pthread_join(members[r].thread, NULL);
    pthread_barrier_destroy(&meeting.barrier);
}

static struct member *new_members(int32_t size)
{
    struct member *members = calloc((size_t)size, sizeof *members);
    assert_non_null(members);
    for (int32_t r = 0; r < size; r++) {
        struct sora_train_options *options = &members[r].options;
        *options = sora_train_options_defaults();
        options->rank = 8;
        options->alpha = 16.0;
        options->target_params = 0.5;
        options->epochs = 12.0;
        options->batch_tokens = 40; // three examples or four
        options->threads = 1;
        options->seed = 3;
        members[r].data_path = data_path;
    }
    return members;
}

static void free_members(struct member *members, int32_t size)
{
    for (int32_t r = 0; r < size; r++)
        free(members[r].result.bytes);
    free(members);
}

static void shares_are_neighbours_of_like_cost(void **state)
{
    (void)state;
    const int32_t costs[] = {5, 1, 1, 1, 4, 4, 2, 7, 1};
    const int32_t count = (int32_t)(sizeof costs / sizeof costs[0]);
    for (int32_t size = 1; size <= 12; size++) {
        int32_t next = 0;
        for (int32_t rank = 0; rank < size; rank++) {
            const struct sora_train_group group = {.rank = rank, .size = size};
            int32_t first, shared, cost = 0;
            train_group_share(&group, costs, count, &first, &shared);
            if (shared > 0)
                assert_int_equal(first, next);
            for (int32_t i = 0; i < shared; i++)
                cost += costs[first + i];
            next += shared;
            assert_true(cost <= 26 / size + 7); // half a thing too much at either end
        }
        assert_int_equal(next, count);
    }
    const int32_t one[] = {9};
    const struct sora_train_group second = {.rank = 1, .size = 2};
    int32_t first, shared;
    train_group_share(&second, one, 1, &first, &shared);
    assert_int_equal(shared, 1); // its middle is in the second half
    train_group_share(NULL, costs, count, &first, &shared);
    assert_true(first == 0 && shared == count);
}

static void a_group_computes_what_one_does(void **state)
{
    (void)state;
    struct member *alone = new_members(1);
    run(alone);
    assert_int_equal(alone->status, SORA_OK);
    assert_true(alone->steps >= 20);
    for (int32_t size = 2; size <= SIZE_MAX_HERE; size++) {
        struct member *members = new_members(size);
        run_group(members, size);
        for (int32_t r = 0; r < size; r++) {
            if (members[r].status != SORA_OK)
                fail_msg("%s", members[r].err.text);
            // All could write the same file, one speaks.
            assert_int_equal(members[r].result.byte_count, members[0].result.byte_count);
            assert_memory_equal(members[r].result.bytes, members[0].result.bytes,
                                members[0].result.byte_count);
            assert_int_equal(members[r].steps, r == 0 ? alone->steps : 0);
        }
        assert_int_equal(members[0].result.tokens, alone->result.tokens);
        assert_int_equal(members[0].result.scored_tokens, alone->result.scored_tokens);
        assert_int_equal(members[0].result.parameters, alone->result.parameters);
        for (int64_t i = 0; i < alone->steps; i++)
            assert_true(fabs(members[0].losses[i] - alone->losses[i]) < 1e-4);
        assert_true(fabs(members[0].result.eval.loss - alone->result.eval.loss) < 1e-4);
        free_members(members, size);
    }
    free_members(alone, 1);
}

static void an_example_alone_leaves_others_without_work(void **state)
{
    (void)state;
    struct member *alone = new_members(1), *members = new_members(3);
    alone->options.batch_tokens = 1;
    alone->options.epochs = 2.0;
    for (int32_t r = 0; r < 3; r++) {
        members[r].options.batch_tokens = 1; // one example in each step
        members[r].options.epochs = 2.0;
    }
    run(alone);
    run_group(members, 3);
    assert_int_equal(alone->status, SORA_OK);
    assert_int_equal(members[0].status, SORA_OK);
    assert_int_equal(alone->steps, 8);
    for (int64_t i = 0; i < alone->steps; i++)
        assert_true(members[0].losses[i] == alone->losses[i]); // nothing was added to it
    free_members(members, 3);
    free_members(alone, 1);
}

static void what_differs_between_processes_is_an_error(void **state)
{
    (void)state;
    struct member *members = new_members(2);
    members[1].data_path = eval_path;
    run_group(members, 2);
    assert_int_equal(members[1].status, SORA_MISMATCH);
    assert_non_null(strstr(members[1].err.text, "process 1"));
    assert_int_equal(members[0].status, SORA_UNAVAILABLE);
    assert_int_equal(members[0].steps, 0);
    free_members(members, 2);

    members = new_members(2);
    members[1].options.lr = 2e-3;
    run_group(members, 2);
    assert_int_equal(members[1].status, SORA_MISMATCH);
    free_members(members, 2);

    members = new_members(2);
    members[0].data_path = "/nonexistent/train.jsonl";
    run_group(members, 2);
    assert_int_equal(members[0].status, SORA_NOT_FOUND);
    assert_int_equal(members[1].status, SORA_UNAVAILABLE);
    free_members(members, 2);
}

static void stopped_by_one_and_resumed_by_all(void **state)
{
    (void)state;
    struct member *whole = new_members(2);
    run_group(whole, 2);
    char *checkpoint = NULL;
    assert_true(asprintf(&checkpoint, "%s/group-ck", folder) > 0);
    struct member *members = new_members(2);
    members[0].options.checkpoint = members[1].options.checkpoint = checkpoint;
    members[0].cancel_at = 7;
    run_group(members, 2);
    assert_int_equal(members[0].status, SORA_CANCELLED);
    assert_int_equal(members[1].status, SORA_CANCELLED);
    free_members(members, 2);

    members = new_members(2);
    members[0].options.checkpoint = members[1].options.checkpoint = checkpoint;
    members[0].options.resume = members[1].options.resume = true;
    run_group(members, 2);
    if (members[0].status != SORA_OK)
        fail_msg("%s", members[0].err.text);
    assert_true(members[0].start.resumed && members[0].start.resumed_step == 7);
    assert_int_equal(members[0].result.byte_count, whole[0].result.byte_count);
    assert_memory_equal(members[0].result.bytes, whole[0].result.bytes, whole[0].result.byte_count);
    free_members(members, 2);
    free_members(whole, 2);
    free(checkpoint);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_neighbours_of_like_cost),
        cmocka_unit_test(a_group_computes_what_one_does),
        cmocka_unit_test(an_example_alone_leaves_others_without_work),
        cmocka_unit_test(what_differs_between_processes_is_an_error),
        cmocka_unit_test(stopped_by_one_and_resumed_by_all),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
