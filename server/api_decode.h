// SPDX-License-Identifier: Apache-2.0
// The body of a request, checked and turned into plain values. Pure: no model, no tokenizer, no
// socket. Owned by the HTTP worker that decoded it.
#ifndef SERVER_API_DECODE_H
#define SERVER_API_DECODE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "server/api_error.h"
#include "sora/limits.h"
#include "sora/sampler.h"
#include "sora/text.h"

// What the server knows and a decoder must hold fields against.
struct api_limits {
    int32_t vocab_size;
    int32_t context_max; // tokens in one sequence, prompt and output
};

// A prompt is text, or tokens when text is NULL.
struct api_prompt {
    const char *text;
    const int32_t *tokens;
    int32_t token_count;
};

enum api_kind { API_COMPLETION, API_CHAT };

// One adapter that a request names.
struct api_adapter {
    const char *name; // NULL: by its id
    int32_t id;       // of GET /lora-adapters; -1: by its name
    float scale;
    int32_t max_rank; // 0: the request's
};

// What only LoRAX's and TGI's requests have.
struct api_tgi {
    bool on; // it is one
    bool details, full_text, sampled;
};

// Everything points into `tree` or `arena`.
struct api_request {
    cJSON *tree;
    struct arena arena;
    enum api_kind kind;
    const char *model; // NULL: the base
    // What "adapters", "lora" or "parameters" name beside `model`, composed in this order.
    struct api_adapter adapters[SORA_REQUEST_ADAPTERS_MAX];
    int32_t adapter_count;
    bool has_adapters; // one of them was given, if only to name none
    int32_t max_rank;  // of each adapter's modules; 0: all ranks
    bool elastic;      // under load the server may use fewer

    struct api_prompt *prompts; // completion: 1..SORA_REQUEST_PROMPTS_MAX
    int32_t prompt_count;
    struct sora_message *messages; // chat
    int32_t message_count;
    bool add_generation_prompt;
    bool add_special_tokens; // whether a text prompt gets the model's bos

    struct sora_sampling sampling;
    bool has_seed;
    int32_t max_tokens; // -1: the default
    int32_t min_tokens;
    int32_t n, best_of;
    const char *stops[SORA_STOP_COUNT_MAX];
    int32_t stop_count;
    int32_t stop_tokens[SORA_STOP_TOKEN_COUNT_MAX];
    int32_t stop_token_count;
    bool include_stop, ignore_eos, skip_special;
    int32_t logprobs; // top log-probabilities per token, -1: none at all
    bool echo, stream, include_usage, continuous_usage;
    bool return_token_ids, tokens_as_ids;
    struct api_tgi tgi;
};

// On failure *error tells the field and what it must be; on success api_request_deinit frees.
SORA_CHECKED sora_status api_decode_completion(const char *body, size_t bytes,
                                               const struct api_limits *limits,
                                               struct api_request *request,
                                               struct api_error *error);
SORA_CHECKED sora_status api_decode_chat(const char *body, size_t bytes,
                                         const struct api_limits *limits,
                                         struct api_request *request, struct api_error *error);
// LoRAX's and TGI's /generate, or /generate_stream.
SORA_CHECKED sora_status api_decode_tgi(const char *body, size_t bytes,
                                        const struct api_limits *limits, bool stream,
                                        struct api_request *request, struct api_error *error);
// vLLM's /tokenize: a text prompt or messages.
SORA_CHECKED sora_status api_decode_tokenize(const char *body, size_t bytes,
                                             struct api_request *request, bool *token_strings,
                                             struct api_error *error);
// vLLM's /detokenize: the tokens are prompts[0].
SORA_CHECKED sora_status api_decode_detokenize(const char *body, size_t bytes,
                                               const struct api_limits *limits,
                                               struct api_request *request,
                                               struct api_error *error);
// llama.cpp's [{"id","scale"}], without those whose scale is 0; adapters
// [SORA_REQUEST_ADAPTERS_MAX].
SORA_CHECKED sora_status api_decode_scales(const cJSON *list, struct api_adapter *adapters,
                                           int32_t *count, struct api_error *error);
void api_request_deinit(struct api_request *request);

#endif
