// SPDX-License-Identifier: Apache-2.0
// From logits to a token. A sora_sampler holds the settings, the random state and the token
// history of one sequence, and is used by one thread at a time; what a choice works in is the
// thread's, a sora_sampler_scratch. Nothing is allocated after create.
// The token depends on the settings, the seed, the history and the logits alone.
#ifndef SORA_SAMPLER_H
#define SORA_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "sora/limits.h"
#include "sora/status.h"

typedef struct sora_sampler sora_sampler;
typedef struct sora_sampler_scratch sora_sampler_scratch;

struct sora_logit_bias {
    int32_t token;
    float bias;
};

struct sora_sampling {
    float temperature; // 0: greedy, the first of equal maxima
    float top_p;       // 1: off
    float min_p;       // 0: off
    int32_t top_k;     // 0 or -1: off
    uint64_t seed;
    float presence_penalty;   // over generated tokens, as OpenAI
    float frequency_penalty;  // over generated tokens, as OpenAI
    float repetition_penalty; // over prompt and generated tokens, as vLLM; 1: off
    const struct sora_logit_bias *logit_bias;
    int32_t logit_bias_count;
};
struct sora_sampling sora_sampling_defaults(void); // temperature 1, everything else off

// Log-probabilities of one position under the model itself: natural log, before penalties,
// temperature and truncation (as vLLM's raw_logprobs).
struct sora_logprobs {
    int32_t token;
    float logprob;
    int32_t rank; // 1: the most likely
    int32_t top_count;
    int32_t top_tokens[SORA_LOGPROBS_MAX]; // most likely first; equal ones by smaller id
    float top_logprobs[SORA_LOGPROBS_MAX];
};

// Errors: a value out of its range is SORA_MALFORMED and names the field and its range.
SORA_CHECKED sora_status sora_sampler_create(const struct sora_sampling *sampling,
                                             int32_t vocab_size, sora_sampler **sampler,
                                             struct sora_error *err);
void sora_sampler_destroy(sora_sampler *sampler);

// The scratch of threads 0 .. threads - 1, for samplers of up to this vocabulary: 13 bytes a token
// each.
SORA_CHECKED sora_status sora_sampler_scratch_create(int32_t vocab_size, int32_t threads,
                                                     sora_sampler_scratch **scratch,
                                                     struct sora_error *err);
void sora_sampler_scratch_destroy(sora_sampler_scratch *scratch);

// Tells the sampler a token of the prompt (for repetition_penalty).
void sora_sampler_see_prompt(sora_sampler *sampler, const int32_t *tokens, int32_t token_count);
// Chooses the next token from logits [vocab_size] and adds it to the history; thread: whose part of
// the scratch is used.
// banned: tokens that may not be chosen now (ends of text while min_tokens or ignore_eos asks so).
int32_t sora_sampler_next(sora_sampler *sampler, const sora_sampler_scratch *scratch,
                          int32_t thread, const float *logits, const int32_t *banned,
                          int32_t banned_count);

// Fills *out for `token` at a position with the given logits; top_count <= SORA_LOGPROBS_MAX.
void sora_logprobs_of(const float *logits, int32_t vocab_size, int32_t token, int32_t top_count,
                      struct sora_logprobs *out);

#endif
