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
// With tokens to choose from in so many blocks at most, choosing among them all is faster than to
// estimate first which ones can be meant.
#define FEW_BLOCKS 256

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

// Sum of the weights of tokens [first, end) that are at least `least`.
static double sum_weights(const struct sora_sampler *sampler, int32_t first, int32_t end,
                          float least)
{
    return sample_passes()->sum(sampler->work + first, end - first, least);
}

// The keys of weights that are at least `cut` and below `upper`; returns how many.
static int32_t collect(struct sora_sampler *sampler, float cut, float upper)
{
    return sample_passes()->collect(sampler->work, sampler->maxima, sampler->vocab_size, cut, upper,
                                    sampler->keys);
}

static double sum_keys(const uint64_t *keys, int32_t count)
{
    double sum = 0;
    for (int32_t i = 0; i < count; i++)
        sum += select_weight(keys[i]);
    return sum;
}

// What may be drawn: all tokens whose weight is at least `upper`, and those of the first keys.
struct chosen {
    float upper;  // INFINITY: none
    double above; // their sum
    int32_t key_count;
};

// Between low and high, by their bits, which are about logarithms.
static void set_levels(float low, float high, float levels[SAMPLE_LEVELS])
{
    uint32_t from, to;
    memcpy(&from, &low, sizeof from);
    memcpy(&to, &high, sizeof to);
    for (uint32_t i = 0; i < SAMPLE_LEVELS; i++) {
        const uint32_t bits =
            from + (uint32_t)((uint64_t)(to - from) * (i + 1) / (SAMPLE_LEVELS + 1));
        memcpy(&levels[i], &bits, sizeof bits);
    }
}

// Weights that surely belong to the largest ones of this mass, and a bound below which none does:
// what is left between the two is little. Two rounds of estimates; the result is checked.
static struct chosen narrow(const struct sora_sampler *sampler, double mass, float *low)
{
    const float given = *low;
    float high = nextafterf(1.0f, INFINITY); // above the largest weight, which is 1
    for (int round = 0; round < 2; round++) {
        float levels[SAMPLE_LEVELS], masses[SAMPLE_LEVELS];
        set_levels(*low, high, levels);
        sample_passes()->masses(sampler->work, sampler->vocab_size, levels, masses);
        int i = 0;
        while (i < SAMPLE_LEVELS && (double)masses[i] >= mass * (1.0 - 1e-3))
            *low = levels[i++];
        if (i < SAMPLE_LEVELS)
            high = levels[i];
    }
    const double above = sum_weights(sampler, 0, sampler->vocab_size, high);
    if (above < mass)
        return (struct chosen){.upper = high, .above = above};
    *low = given;
    return (struct chosen){.upper = INFINITY};
}

// Blocks that hold a weight of at least `cut`.
static int32_t blocks_reaching(const struct sora_sampler *sampler, float cut)
{
    int32_t count = 0;
    for (int32_t block = 0; block < sample_block_count(sampler->vocab_size); block++)
        count += sampler->maxima[block] >= cut;
    return count;
}

// A bound above which there surely is this mass, by the blocks' largest weights alone: enough where
// few tokens have most of it. Else `cut`.
static float raise_cut(const struct sora_sampler *sampler, float cut, double mass)
{
    float levels[SAMPLE_LEVELS], masses[SAMPLE_LEVELS];
    set_levels(cut, nextafterf(1.0f, INFINITY), levels);
    sample_passes()->masses(sampler->maxima, sample_block_count(sampler->vocab_size), levels,
                            masses);
    for (int i = 0; i < SAMPLE_LEVELS && (double)masses[i] >= mass * (1.0 + 1e-3); i++)
        cut = levels[i];
    return cut;
}

// top_p alone: the fewest largest weights of at least `cut` that sum to its share of all of those.
static struct chosen choose_mass(struct sora_sampler *sampler, float cut)
{
    const double top_p = (double)sampler->sampling.top_p;
    const double total = sum_weights(sampler, 0, sampler->vocab_size, cut), mass = top_p * total;
    // All weights below (1 - p) * total / n together are below the mass that top_p leaves out, so
    // none of them can be chosen; the factor covers rounding.
    const double unreachable = 0.99 * (1.0 - top_p) * total / sampler->vocab_size;
    cut = unreachable > (double)cut ? (float)unreachable : cut;
    cut = raise_cut(sampler, cut, mass);
    if (blocks_reaching(sampler, cut) <= FEW_BLOCKS) {
        const int32_t few = collect(sampler, cut, INFINITY);
        return (struct chosen){.upper = INFINITY,
                               .key_count = select_mass(sampler->keys, few, mass)};
    }
    float low = cut;
    struct chosen chosen = narrow(sampler, mass, &low);
    int32_t count = collect(sampler, low, chosen.upper);
    if (low > cut && chosen.above + sum_keys(sampler->keys, count) < mass)
        count = collect(sampler, cut, chosen.upper); // the estimate was too high
    ASSERT(count > 0);
    chosen.key_count = select_mass(sampler->keys, count, mass - chosen.above);
    return chosen;
}

// What min_p, top_k and top_p leave. The largest weight is 1 and always stays.
static struct chosen truncate_weights(struct sora_sampler *sampler, int32_t top_k)
{
    const struct sora_sampling *s = &sampler->sampling;
    const float cut = s->min_p > FLT_MIN ? s->min_p : FLT_MIN;
    if (s->top_p < 1 && top_k == sampler->vocab_size)
        return choose_mass(sampler, cut);
    int32_t count = collect(sampler, cut, INFINITY);
    ASSERT(count > 0);
    if (count > top_k) {
        select_largest(sampler->keys, count, top_k);
        count = top_k;
    }
    if (s->top_p < 1)
        count =
            select_mass(sampler->keys, count, (double)s->top_p * sum_keys(sampler->keys, count));
    return (struct chosen){.upper = INFINITY, .key_count = count};
}

// Whether a token may be drawn by its weight.
static bool reaches(const struct sora_sampler *sampler, int32_t token, float least)
{
    return sampler->work[token] >= least && sampler->work[token] > 0;
}

// The token at which the running sum of the weights that are at least `least` passes target, which
// is less than their sum but for rounding. There is such a weight.
static int32_t draw_weight(const struct sora_sampler *sampler, float least, double target)
{
    enum { STRIDE = 16 * SAMPLE_BLOCK_TOKENS };
    const int32_t size = sampler->vocab_size;
    double sum = 0;
    int32_t first = 0, end;
    for (;; first = end) {
        end = size - first < STRIDE ? size : first + STRIDE;
        const double part = sum_weights(sampler, first, end, least);
        if (sum + part > target || end == size)
            break;
        sum += part;
    }
    for (int32_t i = first; i < end; i++) {
        if (!reaches(sampler, i, least))
            continue;
        sum += (double)sampler->work[i];
        if (sum > target)
            return i;
    }
    while (!reaches(sampler, end - 1, least))
        end--;
    return end - 1;
}

// Draws in proportion to the weights.
static int32_t draw(const struct sora_sampler *sampler, const struct chosen *chosen, double uniform)
{
    const double target = uniform * (chosen->above + sum_keys(sampler->keys, chosen->key_count));
    if (target < chosen->above)
        return draw_weight(sampler, chosen->upper, target);
    double sum = chosen->above;
    for (int32_t i = 0; i < chosen->key_count; i++) {
        sum += select_weight(sampler->keys[i]);
        if (sum > target)
            return select_token(sampler->keys[i]);
    }
    return select_token(sampler->keys[chosen->key_count - 1]); // rounded up to the whole
}

// One token from work; best is its largest entry, which is finite.
static int32_t sample(struct sora_sampler *sampler, float best)
{
    double uniform = rng_uniform(&sampler->rng);
    if (sampler->keys == NULL) {
        to_weights(sampler, best, -INFINITY);
        return draw_weight(sampler, 0, uniform * sum_weights(sampler, 0, sampler->vocab_size, 0));
    }
    int32_t top_k = top_k_of(sampler);
    float bound = top_k < sampler->vocab_size ? top_k_bound(sampler, top_k) : -INFINITY;
    to_weights(sampler, best, bound);
    const struct chosen chosen = truncate_weights(sampler, top_k);
    return draw(sampler, &chosen, uniform);
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
