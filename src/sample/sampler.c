// SPDX-License-Identifier: Apache-2.0
// Sampling in vLLM's order: logit_bias, penalties, banned tokens, then temperature, min_p, top_k,
// top_p, then inversion of the cumulative distribution with a uniform number. A sampler has one
// owner at a time, a thread's room serves all samplers in turn; only create allocates.
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
    // With penalties, else NULL: what is known of each token, and the tokens of which something is.
    struct history {
        int32_t count; // how often generated
        bool seen;     // in the prompt or generated
    } * history;       // [vocab_size]
    int32_t *known;    // [vocab_size]
    int32_t known_count;
};

// What one thread works in.
struct room {
    float *work;    // [vocab_size] logits after penalties, then weights
    float *maxima;  // [blocks] largest of each block
    float *ordered; // [blocks] the same, put in order for top_k
    uint64_t *keys; // [vocab_size] candidates of top_k
};

struct sora_sampler_scratch {
    int32_t vocab_size, threads;
    struct room *rooms; // [threads]
};

// A choice that is being made.
struct choice {
    const struct sora_sampler *sampler;
    const struct room *room;
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
    bool penalizes =
        s->presence_penalty != 0 || s->frequency_penalty != 0 || s->repetition_penalty != 1;
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
    return (!penalizes || (sampler->history != NULL && sampler->known != NULL)) &&
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
    free(sampler->history);
    free(sampler->known);
    free(sampler->bias);
    free(sampler);
}

static bool make_room(struct room *room, int32_t vocab_size)
{
    const size_t size = (size_t)vocab_size, blocks = (size_t)sample_block_count(vocab_size);
    room->work = calloc(size, sizeof *room->work);
    room->maxima = calloc(blocks, sizeof *room->maxima);
    room->ordered = calloc(blocks, sizeof *room->ordered);
    room->keys = calloc(size, sizeof *room->keys);
    return room->work != NULL && room->maxima != NULL && room->ordered != NULL &&
           room->keys != NULL;
}

sora_status sora_sampler_scratch_create(int32_t vocab_size, int32_t threads,
                                        sora_sampler_scratch **scratch, struct sora_error *err)
{
    ASSERT(vocab_size > 0 && threads > 0);
    *scratch = NULL;
    sora_sampler_scratch *made = calloc(1, sizeof *made);
    bool enough = made != NULL;
    if (enough) {
        made->vocab_size = vocab_size;
        made->rooms = calloc((size_t)threads, sizeof *made->rooms);
        made->threads = made->rooms != NULL ? threads : 0;
        enough = made->rooms != NULL;
    }
    for (int32_t i = 0; i < threads && enough; i++)
        enough = make_room(&made->rooms[i], vocab_size);
    if (!enough) {
        sora_sampler_scratch_destroy(made);
        return sora_fail(err, SORA_NO_MEMORY, "sampling of %d tokens on %d threads", vocab_size,
                         threads);
    }
    *scratch = made;
    return SORA_OK;
}

void sora_sampler_scratch_destroy(sora_sampler_scratch *scratch)
{
    if (scratch == NULL)
        return;
    for (int32_t i = 0; i < scratch->threads; i++) {
        free(scratch->rooms[i].work);
        free(scratch->rooms[i].maxima);
        free(scratch->rooms[i].ordered);
        free(scratch->rooms[i].keys);
    }
    free(scratch->rooms);
    free(scratch);
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
static int32_t argmax(const struct room *room, float best)
{
    int32_t block = 0;
    if (!(best > -INFINITY))
        return -1;
    while (room->maxima[block] != best)
        block++;
    int32_t token = block * SAMPLE_BLOCK_TOKENS;
    while (room->work[token] != best)
        token++;
    return token;
}

// Sets a token's logit, and its block's maximum, which is looked for only where the largest fell: a
// long prompt's penalties change thousands.
static void change_logit(const struct choice *choice, int32_t token, float logit)
{
    const struct room *room = choice->room;
    const int32_t block = token / SAMPLE_BLOCK_TOKENS, first = block * SAMPLE_BLOCK_TOKENS;
    const int32_t left = choice->sampler->vocab_size - first;
    const float before = room->work[token];
    room->work[token] = logit;
    if (logit >= room->maxima[block])
        room->maxima[block] = logit;
    else if (before == room->maxima[block])
        room->maxima[block] = sample_largest(
            room->work + first, left < SAMPLE_BLOCK_TOKENS ? left : SAMPLE_BLOCK_TOKENS);
}

// Logits with bias, penalties and bans into work, and their maxima. Returns the largest.
static float prepare(const struct choice *choice, const float *logits, const int32_t *banned,
                     int32_t banned_count)
{
    const struct sora_sampler *sampler = choice->sampler;
    const struct sora_sampling *s = &sampler->sampling;
    const struct room *room = choice->room;
    const float *work = room->work;
    sample_passes()->tame(logits, sampler->vocab_size, room->work, room->maxima);
    for (int32_t i = 0; i < s->logit_bias_count; i++) {
        const int32_t token = s->logit_bias[i].token;
        change_logit(choice, token, sample_tame(work[token] + s->logit_bias[i].bias));
    }
    for (int32_t i = 0; i < sampler->known_count; i++) {
        const int32_t token = sampler->known[i];
        change_logit(choice, token, penalized(s, &sampler->history[token], work[token]));
    }
    for (int32_t i = 0; i < banned_count; i++) {
        if (banned[i] >= 0 && banned[i] < sampler->vocab_size)
            change_logit(choice, banned[i], -INFINITY);
    }
    return sample_largest(room->maxima, sample_block_count(sampler->vocab_size));
}

// A bound that the top_k largest logits reach and most others do not: the top_k-th largest of the
// blocks' maxima, since each of those stands for one logit at least as large.
static float top_k_bound(const struct choice *choice, int32_t top_k)
{
    const int32_t blocks = sample_block_count(choice->sampler->vocab_size);
    if (top_k > blocks)
        return -INFINITY;
    memcpy(choice->room->ordered, choice->room->maxima,
           (size_t)blocks * sizeof *choice->room->ordered);
    return select_nth_value(choice->room->ordered, blocks, top_k);
}

// Turns the logits of blocks that reach the bound into weights e^((x - best) / temperature), and
// their maxima too. The weights of other blocks are left out, their maxima become 0.
static void to_weights(const struct choice *choice, float best, float bound)
{
    const struct sample_passes *passes = sample_passes();
    const float temperature = choice->sampler->sampling.temperature;
    const int32_t blocks = sample_block_count(choice->sampler->vocab_size);
    if (!(bound > -INFINITY)) {
        passes->weights(choice->room->work, choice->sampler->vocab_size, best, temperature);
        passes->weights(choice->room->maxima, blocks, best, temperature);
        return;
    }
    for (int32_t block = 0; block < blocks; block++) {
        const int32_t first = block * SAMPLE_BLOCK_TOKENS,
                      left = choice->sampler->vocab_size - first;
        if (choice->room->maxima[block] < bound) {
            choice->room->maxima[block] = 0;
            continue;
        }
        passes->weights(choice->room->work + first,
                        left < SAMPLE_BLOCK_TOKENS ? left : SAMPLE_BLOCK_TOKENS, best, temperature);
        passes->weights(&choice->room->maxima[block], 1, best, temperature);
    }
}

// The smallest weight that min_p lets through. The largest weight is 1 and always passes; a weight
// of 0 never does.
static float least_weight(const struct choice *choice)
{
    const float min_p = choice->sampler->sampling.min_p;
    return min_p > FLT_MIN ? min_p : FLT_MIN;
}

// A place in the order of tokens by weight, equal ones by id: before it are the tokens of a larger
// weight, and those of the same weight and a smaller id.
struct place {
    float weight;
    int32_t token;
};

static bool is_before(const struct choice *choice, int32_t token, const struct place *place)
{
    const float weight = choice->room->work[token];
    return weight > place->weight || (weight == place->weight && token < place->token);
}

// The sum of the weights of tokens [first, end) that are before the place.
static double sum_before(const struct choice *choice, int32_t first, int32_t end,
                         const struct place *place)
{
    const struct sample_passes *passes = sample_passes();
    const float *work = choice->room->work;
    const int32_t at = place->token < first ? first : place->token > end ? end : place->token;
    return passes->sum(work + first, at - first, place->weight) +
           passes->sum(work + at, end - at, sample_next(place->weight));
}

// The token before the place at which the running sum of their weights passes target, which is less
// than their sum but for rounding. There is such a token.
static int32_t draw_before(const struct choice *choice, const struct place *place, double target)
{
    enum { STRIDE = 16 * SAMPLE_BLOCK_TOKENS };
    const int32_t size = choice->sampler->vocab_size;
    double sum = 0;
    int32_t first = 0, end;
    for (;; first = end) {
        end = size - first < STRIDE ? size : first + STRIDE;
        const double part = sum_before(choice, first, end, place);
        if (sum + part > target || end == size)
            break;
        sum += part;
    }
    for (int32_t i = first; i < end; i++) {
        if (!is_before(choice, i, place))
            continue;
        sum += (double)choice->room->work[i];
        if (sum > target)
            return i;
    }
    while (!is_before(choice, end - 1, place))
        end--;
    return end - 1;
}

// What min_p and top_p leave, without an order of all: a token is drawn from what min_p leaves, and
// is one of the fewest that have top_p of that mass when those before it have less. Otherwise it
// and all after it are out, and the next is drawn from those before it. Each turn halves, in the
// mean, the mass that is too much.
static int32_t draw_mass(const struct choice *choice, struct rng *rng)
{
    const int32_t size = choice->sampler->vocab_size;
    const double top_p = (double)choice->sampler->sampling.top_p;
    struct place place = {least_weight(choice), size};
    double before = sum_before(choice, 0, size, &place);
    const double mass = top_p * before;
    for (;;) {
        const int32_t token = draw_before(choice, &place, rng_uniform(rng) * before);
        if (!(top_p < 1))
            return token;
        place = (struct place){choice->room->work[token], token};
        before = sum_before(choice, 0, size, &place);
        if (before < mass)
            return token;
    }
}

static double sum_keys(const uint64_t *keys, int32_t count)
{
    double sum = 0;
    for (int32_t i = 0; i < count; i++)
        sum += select_weight(keys[i]);
    return sum;
}

static int32_t draw_key(const uint64_t *keys, int32_t count, double uniform)
{
    const double target = uniform * sum_keys(keys, count);
    double sum = 0;
    for (int32_t i = 0; i < count; i++) {
        sum += select_weight(keys[i]);
        if (sum > target)
            return select_token(keys[i]);
    }
    return select_token(keys[count - 1]); // rounded up to the whole
}

// What min_p, top_k and top_p leave, by the keys of those that reach top_k's bound.
static int32_t draw_top_k(const struct choice *choice, int32_t top_k, struct rng *rng)
{
    const struct room *room = choice->room;
    const float top_p = choice->sampler->sampling.top_p;
    int32_t count = sample_passes()->collect(room->work, room->maxima, choice->sampler->vocab_size,
                                             least_weight(choice), room->keys);
    ASSERT(count > 0);
    if (count > top_k) {
        select_largest(room->keys, count, top_k);
        count = top_k;
    }
    if (top_p < 1)
        count = select_mass(room->keys, count, (double)top_p * sum_keys(room->keys, count));
    return draw_key(room->keys, count, rng_uniform(rng));
}

// One token from work; best is its largest entry, which is finite.
static int32_t sample(const struct choice *choice, struct rng *rng, float best)
{
    const int32_t top_k = top_k_of(choice->sampler);
    if (top_k == choice->sampler->vocab_size) {
        sample_passes()->weights(choice->room->work, top_k, best,
                                 choice->sampler->sampling.temperature);
        return draw_mass(choice, rng);
    }
    to_weights(choice, best, top_k_bound(choice, top_k));
    return draw_top_k(choice, top_k, rng);
}

int32_t sora_sampler_next(sora_sampler *sampler, const sora_sampler_scratch *scratch,
                          int32_t thread, const float *logits, const int32_t *banned,
                          int32_t banned_count)
{
    ASSERT(scratch->vocab_size >= sampler->vocab_size && thread < scratch->threads);
    const struct choice choice = {sampler, &scratch->rooms[thread]};
    const float best = prepare(&choice, logits, banned, banned_count);
    int32_t token = argmax(choice.room, best);
    if (token < 0) {
        // Everything is banned or no number: the model's own best, or token 0.
        token = argmax(choice.room, prepare(&choice, logits, NULL, 0));
        token = token < 0 ? 0 : token;
    } else if (sampler->sampling.temperature > 0) {
        token = sample(&choice, &sampler->rng, best);
    }
    if (sampler->history != NULL) {
        struct history *history = know(sampler, token);
        history->count += history->count < INT32_MAX;
    }
    return token;
}
