// SPDX-License-Identifier: Apache-2.0
// Attention in training: forward against plain sums in double, gradients against finite
// differences of them, with grouped heads, several sequences, windows, lengths past one block, and
// with some tokens alone as queries.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "kernel/attention_train.h"

enum { N_MAX = 160, H = 4, G = 2, D = 4, Q_WIDTH = H * D, K_WIDTH = G * D };

struct fixture {
    struct attention_shape shape;
    int32_t starts[4], query_starts[4], positions[N_MAX], query_rows[N_MAX];
    int32_t sequence_count, n, length_max;
    double q[N_MAX * Q_WIDTH], k[N_MAX * K_WIDTH], v[N_MAX * K_WIDTH];
    float fq[N_MAX * Q_WIDTH], fk[N_MAX * K_WIDTH], fv[N_MAX * K_WIDTH];
    float out[N_MAX * Q_WIDTH], dout[N_MAX * Q_WIDTH];
    float queries[N_MAX * Q_WIDTH], query_out[N_MAX * Q_WIDTH];   // of the queries alone
    float query_dout[N_MAX * Q_WIDTH], query_dq[N_MAX * Q_WIDTH]; // alike
    float dq[N_MAX * Q_WIDTH], dk[N_MAX * K_WIDTH], dv[N_MAX * K_WIDTH];
};

// One head of one query, in double.
static void attend(const struct fixture *f, int32_t start, int32_t pos, int32_t head, double *out)
{
    const int32_t kv = head / (H / G);
    const double *q = f->q + (start + pos) * Q_WIDTH + head * D;
    const int32_t from =
        f->shape.window > 0 && pos >= f->shape.window ? pos - f->shape.window + 1 : 0;
    double sum = 0.0;
    memset(out, 0, D * sizeof(double));
    for (int32_t j = from; j <= pos; j++) {
        double score = 0.0;
        for (int32_t e = 0; e < D; e++)
            score += q[e] * f->k[(start + j) * K_WIDTH + kv * D + e];
        const double p = exp((double)f->shape.scale * score);
        sum += p;
        for (int32_t e = 0; e < D; e++)
            out[e] += p * f->v[(start + j) * K_WIDTH + kv * D + e];
    }
    for (int32_t e = 0; e < D; e++)
        out[e] /= sum;
}

static bool is_query(const struct fixture *f, int32_t row)
{
    for (int32_t i = 0; i < f->query_starts[f->sequence_count]; i++)
        if (f->query_rows[i] == row)
            return true;
    return false;
}

// sum dout * out; with `worst`, also the largest difference to the kernel's output.
static double objective(const struct fixture *f, double *worst)
{
    double sum = 0.0, out[D];
    for (int32_t s = 0; s < f->sequence_count; s++)
        for (int32_t pos = 0; pos < f->starts[s + 1] - f->starts[s]; pos++)
            for (int32_t head = 0; head < H; head++) {
                attend(f, f->starts[s], pos, head, out);
                for (int32_t e = 0; e < D; e++) {
                    const int32_t at = (f->starts[s] + pos) * Q_WIDTH + head * D + e;
                    sum += out[e] * (double)f->dout[at];
                    if (worst != NULL && is_query(f, f->starts[s] + pos))
                        *worst = fmax(*worst, fabs(out[e] - (double)f->out[at]));
                }
            }
    return sum;
}

// Every `query_step`th token of a sequence is a query; 0: of the second sequence none is.
static void place_queries(struct fixture *f, int32_t query_step)
{
    int32_t at = 0;
    for (int32_t s = 0; s < f->sequence_count; s++) {
        f->query_starts[s] = at;
        const int32_t step = query_step > 0 ? query_step : 1;
        for (int32_t i = 0; i < f->starts[s + 1] - f->starts[s]; i++) {
            if (i % step != step - 1 || (query_step == 0 && s == 1))
                continue;
            f->positions[at] = i;
            f->query_rows[at++] = f->starts[s] + i;
        }
    }
    f->query_starts[f->sequence_count] = at;
}

static struct fixture *make(const int32_t *lengths, int32_t sequence_count, int32_t window,
                            int32_t query_step)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->shape = (struct attention_shape){H, G, D, window, 0.5f};
    f->sequence_count = sequence_count;
    for (int32_t s = 0; s < sequence_count; s++) {
        f->starts[s + 1] = f->starts[s] + lengths[s];
        f->length_max = lengths[s] > f->length_max ? lengths[s] : f->length_max;
    }
    f->n = f->starts[sequence_count];
    assert_true(f->n <= N_MAX);
    place_queries(f, query_step);
    struct rng rng;
    rng_seed(&rng, 5);
    for (int32_t i = 0; i < f->n * Q_WIDTH; i++) {
        f->fq[i] = (float)rng_normal(&rng);
        f->q[i] = (double)f->fq[i];
    }
    for (int32_t i = 0; i < f->query_starts[sequence_count]; i++)
        for (int32_t j = 0; j < Q_WIDTH; j++)
            f->dout[f->query_rows[i] * Q_WIDTH + j] = (float)rng_normal(&rng);
    for (int32_t i = 0; i < f->n * K_WIDTH; i++) {
        f->fk[i] = (float)rng_normal(&rng);
        f->fv[i] = (float)rng_normal(&rng);
        f->k[i] = (double)f->fk[i];
        f->v[i] = (double)f->fv[i];
    }
    return f;
}

// The queries' rows of an array of all tokens, and back.
static void pick(const struct fixture *f, const float *all, float *queries)
{
    for (int32_t i = 0; i < f->query_starts[f->sequence_count]; i++)
        memcpy(queries + i * Q_WIDTH, all + f->query_rows[i] * Q_WIDTH, Q_WIDTH * sizeof(float));
}

static void put(const struct fixture *f, const float *queries, float *all)
{
    for (int32_t i = 0; i < f->query_starts[f->sequence_count]; i++)
        memcpy(all + f->query_rows[i] * Q_WIDTH, queries + i * Q_WIDTH, Q_WIDTH * sizeof(float));
}

static void compute(struct fixture *f, int32_t threads)
{
    struct pool *pool;
    struct sora_error err;
    assert_int_equal(pool_create(threads, &pool, &err), SORA_OK);
    float *scratch = calloc(attention_train_scratch_count(f->length_max, threads), sizeof(float));
    assert_non_null(scratch);
    const struct attention_train attention = {.shape = &f->shape,
                                              .starts = f->starts,
                                              .query_starts = f->query_starts,
                                              .positions = f->positions,
                                              .sequence_count = f->sequence_count,
                                              .length_max = f->length_max,
                                              .q = f->queries,
                                              .k = f->fk,
                                              .v = f->fv,
                                              .scratch = scratch};
    pick(f, f->fq, f->queries);
    pick(f, f->dout, f->query_dout);
    attention_train_forward(pool, &attention, f->query_out);
    attention_train_backward(pool, &attention, f->query_dout, f->query_dq, f->dk, f->dv);
    put(f, f->query_out, f->out);
    put(f, f->query_dq, f->dq);
    free(scratch);
    pool_destroy(pool);
}

static double worst_slope_error(struct fixture *f, double *values, const float *gradients,
                                int32_t count)
{
    double worst = 0.0;
    const int32_t step = count > 60 ? count / 60 : 1; // a sample: the plain sums are slow
    for (int32_t i = 0; i < count; i += step) {
        const double before = values[i];
        values[i] = before + 1e-5;
        const double up = objective(f, NULL);
        values[i] = before - 1e-5;
        const double down = objective(f, NULL);
        values[i] = before;
        worst = fmax(worst, fabs((up - down) / 2e-5 - (double)gradients[i]));
    }
    return worst;
}

static void check_queries(const int32_t *lengths, int32_t sequence_count, int32_t window,
                          int32_t query_step)
{
    struct fixture *f = make(lengths, sequence_count, window, query_step);
    compute(f, 2);
    double worst = 0.0;
    objective(f, &worst);
    assert_true(worst < 1e-5);
    assert_true(worst_slope_error(f, f->q, f->dq, f->n * Q_WIDTH) < 1e-4);
    assert_true(worst_slope_error(f, f->k, f->dk, f->n * K_WIDTH) < 1e-4);
    assert_true(worst_slope_error(f, f->v, f->dv, f->n * K_WIDTH) < 1e-4);
    f->dq[0] += 1e-3f; // the comparison can fail
    assert_false(worst_slope_error(f, f->q, f->dq, f->n * Q_WIDTH) < 1e-4);
    free(f);
}

static void check(const int32_t *lengths, int32_t sequence_count, int32_t window)
{
    check_queries(lengths, sequence_count, window, 1);
}

static void short_sequences_attend_to_themselves_alone(void **state)
{
    (void)state;
    check((const int32_t[]){5, 1, 9}, 3, 0);
}

static void a_sequence_longer_than_a_block_of_queries_is_exact(void **state)
{
    (void)state;
    check((const int32_t[]){130, 7}, 2, 0);
}

static void a_window_hides_what_is_before_it(void **state)
{
    (void)state;
    check((const int32_t[]){12, 20}, 2, 5);
    check((const int32_t[]){100}, 1, 30);
    check((const int32_t[]){70}, 1, 1);
    check((const int32_t[]){20}, 1, 64);
}

static void some_tokens_alone_can_be_queries(void **state)
{
    (void)state;
    check_queries((const int32_t[]){5, 6, 9}, 3, 0, 3);
    check_queries((const int32_t[]){5, 6, 9}, 3, 0, 0); // none in the second
    check_queries((const int32_t[]){140, 3}, 2, 0, 2);  // the last sees all of three blocks
    check_queries((const int32_t[]){140}, 1, 30, 2);
}

static void the_number_of_threads_changes_no_bit(void **state)
{
    (void)state;
    struct fixture *one = make((const int32_t[]){70, 40, 3}, 3, 0, 1);
    struct fixture *three = make((const int32_t[]){70, 40, 3}, 3, 0, 1);
    compute(one, 1);
    compute(three, 3);
    assert_memory_equal(one, three, sizeof(*one));
    free(one);
    free(three);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_sequences_attend_to_themselves_alone),
        cmocka_unit_test(a_sequence_longer_than_a_block_of_queries_is_exact),
        cmocka_unit_test(a_window_hides_what_is_before_it),
        cmocka_unit_test(some_tokens_alone_can_be_queries),
        cmocka_unit_test(the_number_of_threads_changes_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
