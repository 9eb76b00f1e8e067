// SPDX-License-Identifier: Apache-2.0
// Sampling in vLLM's order: logit_bias, penalties, banned tokens, then temperature, min_p, top_k,
// top_p, then inversion of the cumulative distribution with one uniform number per token. A
// sampler has one owner at a time and allocates only in create.
#include "sora/sampler.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/rng.h"
#include "sample/sample_math.h"
#include "sample/sample_passes.h"
#include "sample/sample_select.h"

#define TEMPERATURE_MAX 100
#define REPETITION_MAX 10
#define BIAS_MAX 100 // OpenAI's range

struct sora_sampler {
    struct sora_sampling sampling; // logit_bias points to `bias`
    struct sora_logit_bias *bias;
    int32_t vocab_size;
    struct rng rng;
    float *work;    // [vocab_size] logits after penalties, then weights
    float *maxima;  // [blocks] largest logit of each block
    float *ordered; // [blocks] the same, put in order for top_k; or NULL
    uint64_t *keys; // [vocab_size] candidates, when something truncates; or NULL
    // With penalties, else NULL: what is known of each token, and the tokens of which something is.
    struct history {
        int32_t count; // how often generated
        bool seen;     // in the prompt or generated
    } * history;       // [vocab_size]
    int32_t *known;    // [vocab_size]
    int32_t known_count;
};

struct sora_sampling sora_sampling_defaults(void)
{
    return (struct sora_sampling){
        .temperature = 1, .top_p = 1, .min_p = 0, .top_k = 0, .repetition_penalty = 1};
}

static sora_status check_range(const char *name, double value, double min, double max,
                               struct sora_error *err)
{
    if (value >= min && value <= max)
        return SORA_OK;
    return sora_fail(err, SORA_MALFORMED, "%s: %g is not in [%g, %g]", name, value, min, max);
}

static sora_status check_bias(const struct sora_sampling *sampling, int32_t vocab_size,
                              struct sora_error *err)
{
    if (sampling->logit_bias_count < 0 || sampling->logit_bias_count > SORA_LOGIT_BIAS_COUNT_MAX)
        return sora_fail(err, SORA_MALFORMED, "logit_bias: %d entries are not in [0, %d]",
                         sampling->logit_bias_count, SORA_LOGIT_BIAS_COUNT_MAX);
    for (int32_t i = 0; i < sampling->logit_bias_count; i++) {
        struct sora_logit_bias bias = sampling->logit_bias[i];
        if (bias.token < 0 || bias.token >= vocab_size)
            return sora_fail(err, SORA_MALFORMED, "logit_bias: token %d is not in [0, %d)",
                             bias.token, vocab_size);
        sora_status status = check_range("logit_bias", bias.bias, -BIAS_MAX, BIAS_MAX, err);
        if (status != SORA_OK)
            return status;
    }
    return SORA_OK;
}

static sora_status check(const struct sora_sampling *s, int32_t vocab_size, struct sora_error *err)
{
    const struct {
        const char *name;
        double value, min, max;
        bool above_min; // min itself is not allowed
    } ranges[] = {
        {"vocab_size", vocab_size, 1, SORA_VOCAB_SIZE_MAX, false},
        {"temperature", s->temperature, 0, TEMPERATURE_MAX, false},
        {"top_p", s->top_p, 0, 1, true},
        {"min_p", s->min_p, 0, 1, false},
        {"top_k", s->top_k, -1, INT32_MAX, false},
        {"presence_penalty", s->presence_penalty, -2, 2, false},
        {"frequency_penalty", s->frequency_penalty, -2, 2, false},
        {"repetition_penalty", s->repetition_penalty, 0, REPETITION_MAX, true},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (ranges[i].above_min && ranges[i].value == ranges[i].min)
            return sora_fail(err, SORA_MALFORMED, "%s: %g is not in (%g, %g]", ranges[i].name,
                             ranges[i].value, ranges[i].min, ranges[i].max);
        sora_status status =
            check_range(ranges[i].name, ranges[i].value, ranges[i].min, ranges[i].max, err);
        if (status != SORA_OK)
            return status;
    }
    return check_bias(s, vocab_size, err);
}

// top_k as a number of tokens that it leaves; vocab_size when it is off.
static int32_t top_k_of(const struct sora_sampler *sampler)
{
    int32_t top_k = sampler->sampling.top_k;
    return top_k <= 0 || top_k > sampler->vocab_size ? sampler->vocab_size : top_k;
}

static bool allocate(struct sora_sampler *sampler)
{
    const struct sora_sampling *s = &sampler->sampling;
    const size_t size = (size_t)sampler->vocab_size;
    const size_t blocks = (size_t)sample_block_count(sampler->vocab_size);
    bool truncates = s->temperature > 0 &&
                     (s->top_p < 1 || s->min_p > 0 || top_k_of(sampler) < sampler->vocab_size);
    bool penalizes =
        s->presence_penalty != 0 || s->frequency_penalty != 0 || s->repetition_penalty != 1;
    sampler->work = calloc(size, sizeof *sampler->work);
    sampler->maxima = calloc(blocks, sizeof *sampler->maxima);
    if (truncates) {
        sampler->keys = calloc(size, sizeof *sampler->keys);
        sampler->ordered = calloc(blocks, sizeof *sampler->ordered);
    }
    if (penalizes) {
        sampler->history = calloc(size, sizeof *sampler->history);
        sampler->known = calloc(size, sizeof *sampler->known);
    }
    size_t bias_bytes = (size_t)s->logit_bias_count * sizeof *sampler->bias;
    if (bias_bytes > 0) {
        sampler->bias = malloc(bias_bytes);
        if (sampler->bias != NULL)
            memcpy(sampler->bias, s->logit_bias, bias_bytes);
    }
    sampler->sampling.logit_bias = sampler->bias;
    return sampler->work != NULL && sampler->maxima != NULL &&
           (!truncates || (sampler->keys != NULL && sampler->ordered != NULL)) &&
           (!penalizes || (sampler->history != NULL && sampler->known != NULL)) &&
           (bias_bytes == 0 || sampler->bias != NULL);
}

sora_status sora_sampler_create(const struct sora_sampling *sampling, int32_t vocab_size,
                                sora_sampler **sampler, struct sora_error *err)
{
    *sampler = NULL;
    sora_status status = check(sampling, vocab_size, err);
    if (status != SORA_OK)
        return status;
    struct sora_sampler *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "sampler");
    made->sampling = *sampling;
    made->vocab_size = vocab_size;
    rng_seed(&made->rng, sampling->seed);
    if (!allocate(made)) {
        sora_sampler_destroy(made);
        return sora_fail(err, SORA_NO_MEMORY, "sampler for %d tokens", vocab_size);
    }
    *sampler = made;
    return SORA_OK;
}

void sora_sampler_destroy(sora_sampler *sampler)
{
    if (sampler == NULL)
        return;
    free(sampler->work);
    free(sampler->maxima);
    free(sampler->keys);
    free(sampler->ordered);
    free(sampler->history);
    free(sampler->known);
    free(sampler->bias);
    free(sampler);
}

// The token's history, listed among the known ones from now on.
static struct history *know(struct sora_sampler *sampler, int32_t token)
{
    struct history *history = &sampler->history[token];
    if (!history->seen)
        sampler->known[sampler->known_count++] = token;
    history->seen = true;
    return history;
}

void sora_sampler_see_prompt(sora_sampler *sampler, const int32_t *tokens, int32_t token_count)
{
    if (sampler->sampling.repetition_penalty == 1)
        return;
    for (int32_t i = 0; i < token_count; i++) {
        if (tokens[i] >= 0 && tokens[i] < sampler->vocab_size)
            know(sampler, tokens[i]);
    }
}

// repetition_penalty of what was seen, then the others of what was generated.
static float penalized(const struct sora_sampling *s, const struct history *history, float logit)
{
    if (s->repetition_penalty != 1)
        logit = logit > 0 ? logit / s->repetition_penalty : logit * s->repetition_penalty;
    if (history->count > 0 && (s->frequency_penalty != 0 || s->presence_penalty != 0))
        logit -= s->frequency_penalty * (float)history->count + s->presence_penalty;
    return sample_tame(logit); // it may have overflowed
}

// The first token of the largest logit, by the blocks' maxima; -1 when none is above -inf.
static int32_t argmax(const struct sora_sampler *sampler, float best)
{
    int32_t block = 0;
    if (!(best > -INFINITY))
        return -1;
    while (sampler->maxima[block] != best)
        block++;
    int32_t token = block * SAMPLE_BLOCK_TOKENS;
    while (sampler->work[token] != best)
        token++;
    return token;
}

// Logits with bias, penalties and bans into work, and their maxima. Returns the largest.
static float prepare(struct sora_sampler *sampler, const float *logits, const int32_t *banned,
                     int32_t banned_count)
{
    const struct sample_passes *passes = sample_passes();
    float *work = sampler->work;
    passes->tame(logits, sampler->vocab_size, work);
    for (int32_t i = 0; i < sampler->sampling.logit_bias_count; i++)
        work[sampler->bias[i].token] =
            sample_tame(work[sampler->bias[i].token] + sampler->bias[i].bias);
    for (int32_t i = 0; i < sampler->known_count; i++) {
        int32_t token = sampler->known[i];
        work[token] = penalized(&sampler->sampling, &sampler->history[token], work[token]);
    }
    for (int32_t i = 0; i < banned_count; i++) {
        if (banned[i] >= 0 && banned[i] < sampler->vocab_size)
            work[banned[i]] = -INFINITY;
    }
    return passes->maxima(work, sampler->vocab_size, sampler->maxima);
}

// A bound that the top_k largest logits reach and most others do not: the top_k-th largest of the
// blocks' maxima, since each of those stands for one logit at least as large.
static float top_k_bound(struct sora_sampler *sampler, int32_t top_k)
{
    const int32_t blocks = sample_block_count(sampler->vocab_size);
    if (top_k > blocks)
        return -INFINITY;
    memcpy(sampler->ordered, sampler->maxima, (size_t)blocks * sizeof *sampler->ordered);
    return select_nth_value(sampler->ordered, blocks, top_k);
}

// Turns the logits of blocks that reach the bound into weights e^((x - best) / temperature), and
// their maxima too. The weights of other blocks are left out, their maxima become 0.
static void to_weights(struct sora_sampler *sampler, float best, float bound)
{
    const struct sample_passes *passes = sample_passes();
    const float temperature = sampler->sampling.temperature;
    const int32_t blocks = sample_block_count(sampler->vocab_size);
    if (!(bound > -INFINITY)) {
        passes->weights(sampler->work, sampler->vocab_size, best, temperature);
        passes->weights(sampler->maxima, blocks, best, temperature);
        return;
    }
    for (int32_t block = 0; block < blocks; block++) {
        const int32_t first = block * SAMPLE_BLOCK_TOKENS, left = sampler->vocab_size - first;
        if (sampler->maxima[block] < bound) {
            sampler->maxima[block] = 0;
            continue;
        }
        passes->weights(sampler->work + first,
                        left < SAMPLE_BLOCK_TOKENS ? left : SAMPLE_BLOCK_TOKENS, best, temperature);
        passes->weights(&sampler->maxima[block], 1, best, temperature);
    }
}

// Sum of the weights that are at least min_weight, in four lanes: always the same order.
static double sum_weights(const struct sora_sampler *sampler, float min_weight)
{
    double lanes[4] = {0};
    sample_passes()->sums(sampler->work, sampler->vocab_size, min_weight, lanes);
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

// The keys of weights that are at least `cut`; returns how many.
static int32_t collect(struct sora_sampler *sampler, float cut)
{
    const int32_t blocks = sample_block_count(sampler->vocab_size);
    int32_t count = 0;
    for (int32_t block = 0; block < blocks; block++) {
        if (sampler->maxima[block] < cut)
            continue;
        const int32_t first = block * SAMPLE_BLOCK_TOKENS;
        int32_t end = first + SAMPLE_BLOCK_TOKENS;
        end = end < sampler->vocab_size ? end : sampler->vocab_size;
        for (int32_t i = first; i < end; i++) {
            sampler->keys[count] = select_key(sampler->work[i], i);
            count += sampler->work[i] >= cut;
        }
    }
    return count;
}

// Collects what min_p, top_k and top_p leave into keys; returns how many. The largest weight is 1
// and always stays.
static int32_t truncate_weights(struct sora_sampler *sampler, int32_t top_k)
{
    const struct sora_sampling *s = &sampler->sampling;
    float cut = s->min_p > FLT_MIN ? s->min_p : FLT_MIN;
    double total = 0;
    if (s->top_p < 1 && top_k == sampler->vocab_size) {
        // All weights below (1 - p) * total / n together are below the mass that top_p leaves
        // out, so none of them can be chosen; the factor covers rounding.
        total = sum_weights(sampler, cut);
        double unreachable = 0.99 * (1.0 - (double)s->top_p) * total / sampler->vocab_size;
        cut = unreachable > cut ? (float)unreachable : cut;
    }
    int32_t count = collect(sampler, cut);
    ASSERT(count > 0);
    if (count > top_k) {
        select_largest(sampler->keys, count, top_k);
        count = top_k;
    }
    if (s->top_p < 1) {
        if (total == 0) {
            for (int32_t i = 0; i < count; i++)
                total += select_weight(sampler->keys[i]);
        }
        count = select_mass(sampler->keys, count, (double)s->top_p * total);
    }
    return count;
}

// Draws from keys in proportion to their weights.
static int32_t draw_key(const uint64_t *keys, int32_t count, double uniform)
{
    double total = 0;
    for (int32_t i = 0; i < count; i++)
        total += select_weight(keys[i]);
    double target = uniform * total, sum = 0;
    for (int32_t i = 0; i < count; i++) {
        sum += select_weight(keys[i]);
        if (sum > target)
            return select_token(keys[i]);
    }
    return select_token(keys[count - 1]); // uniform * total rounded up to total
}

// Draws from all weights in proportion.
static int32_t draw_weight(const struct sora_sampler *sampler, double uniform)
{
    double target = uniform * sum_weights(sampler, 0), sum = 0;
    int32_t last = 0;
    for (int32_t i = 0; i < sampler->vocab_size; i++) {
        sum += sampler->work[i];
        if (sum > target)
            return i;
        if (sampler->work[i] > 0)
            last = i;
    }
    return last;
}

// One token from work; best is its largest entry, which is finite.
static int32_t sample(struct sora_sampler *sampler, float best)
{
    double uniform = rng_uniform(&sampler->rng);
    if (sampler->keys == NULL) {
        to_weights(sampler, best, -INFINITY);
        return draw_weight(sampler, uniform);
    }
    int32_t top_k = top_k_of(sampler);
    float bound = top_k < sampler->vocab_size ? top_k_bound(sampler, top_k) : -INFINITY;
    to_weights(sampler, best, bound);
    return draw_key(sampler->keys, truncate_weights(sampler, top_k), uniform);
}

int32_t sora_sampler_next(sora_sampler *sampler, const float *logits, const int32_t *banned,
                          int32_t banned_count)
{
    float best = prepare(sampler, logits, banned, banned_count);
    int32_t token = argmax(sampler, best);
    if (token < 0) {
        // Everything is banned or no number: the model's own best, or token 0.
        token = argmax(sampler, prepare(sampler, logits, NULL, 0));
        token = token < 0 ? 0 : token;
    } else if (sampler->sampling.temperature > 0) {
        token = sample(sampler, best);
    }
    if (sampler->history != NULL) {
        struct history *history = know(sampler, token);
        history->count += history->count < INT32_MAX;
    }
    return token;
}
