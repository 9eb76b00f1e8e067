// SPDX-License-Identifier: Apache-2.0
// Raw log-probabilities of one position. Pure; any thread; no allocation.
#include <math.h>

#include "base/assert.h"
#include "sample/sample_math.h"
#include "sora/sampler.h"

#define BLOCK_TOKENS 64

// log of the sum of e^(x - best); best is the largest logit. 0 values above -inf give log(count),
// as if all were equal.
static double log_sum(const float *logits, int32_t vocab_size, float best)
{
    if (best == -INFINITY)
        return log((double)vocab_size);
    double sum = 0;
    for (int32_t start = 0; start < vocab_size; start += BLOCK_TOKENS) {
        float weights[BLOCK_TOKENS]; // the exponentials as vectors, their sum in order
        int32_t count = vocab_size - start < BLOCK_TOKENS ? vocab_size - start : BLOCK_TOKENS;
        for (int32_t i = 0; i < count; i++)
            weights[i] = sample_exp(sample_tame(logits[start + i]) - best);
        for (int32_t i = 0; i < count; i++)
            sum += weights[i];
    }
    return log(sum);
}

// Largest first, equal ones by smaller id: tokens arrive by id, so an equal one goes behind.
static void insert_top(struct sora_logprobs *out, int32_t top_count, int32_t token, float logit)
{
    int32_t at = out->top_count < top_count ? out->top_count++ : top_count - 1;
    for (; at > 0 && out->top_logprobs[at - 1] < logit; at--) {
        out->top_logprobs[at] = out->top_logprobs[at - 1];
        out->top_tokens[at] = out->top_tokens[at - 1];
    }
    out->top_logprobs[at] = logit;
    out->top_tokens[at] = token;
}

void sora_logprobs_of(const float *logits, int32_t vocab_size, int32_t token, int32_t top_count,
                      struct sora_logprobs *out)
{
    ASSERT(token >= 0 && token < vocab_size);
    ASSERT(top_count >= 0 && top_count <= SORA_LOGPROBS_MAX);
    if (top_count > vocab_size)
        top_count = vocab_size;
    float own = sample_tame(logits[token]), best = -INFINITY;
    *out = (struct sora_logprobs){.token = token, .rank = 1};
    for (int32_t i = 0; i < vocab_size; i++) {
        float logit = sample_tame(logits[i]);
        best = logit > best ? logit : best;
        out->rank += logit > own || (logit == own && i < token);
        if (top_count > 0 &&
            (out->top_count < top_count || logit > out->top_logprobs[top_count - 1]))
            insert_top(out, top_count, i, logit);
    }
    double normalizer = log_sum(logits, vocab_size, best);
    if (best > -INFINITY)
        normalizer += best;
    out->logprob = best > -INFINITY ? (float)(own - normalizer) : (float)-normalizer;
    for (int32_t i = 0; i < out->top_count; i++)
        out->top_logprobs[i] =
            best > -INFINITY ? (float)(out->top_logprobs[i] - normalizer) : (float)-normalizer;
}
