// SPDX-License-Identifier: Apache-2.0
// Reading fields of a request's JSON: base/json.h's accessors, with the failure as OpenAI's error
// that names the field in `param`. Pure; used by the api_decode files only.
#ifndef SERVER_API_FIELD_H
#define SERVER_API_FIELD_H

#include "base/json.h"
#include "server/api_decode.h"

// Every call leaves *out alone when the field is absent or null.
SORA_CHECKED sora_status api_field_int(const cJSON *object, const char *name, int64_t min,
                                       int64_t max, int32_t *out, struct api_error *error);
SORA_CHECKED sora_status api_field_float(const cJSON *object, const char *name, double min,
                                         double max, float *out, struct api_error *error);
SORA_CHECKED sora_status api_field_bool(const cJSON *object, const char *name, bool *out,
                                        struct api_error *error);
SORA_CHECKED sora_status api_field_string(const cJSON *object, const char *name, const char **out,
                                          struct api_error *error);
// "seed", or one by chance.
SORA_CHECKED sora_status api_field_seed(const cJSON *object, struct api_request *request,
                                        struct api_error *error);
// The body as one JSON object with the server's bounds; the arena is ready for use.
SORA_CHECKED sora_status api_field_parse(const char *body, size_t bytes,
                                         struct api_request *request, struct api_error *error);
// A list of token ids into the arena. `name` is what the error calls it.
SORA_CHECKED sora_status api_field_tokens(struct api_request *request, const cJSON *array,
                                          const char *name, int32_t vocab_size,
                                          const int32_t **tokens, int32_t *token_count,
                                          struct api_error *error);
// api_decode_prompt.c: "prompt" and "messages".
SORA_CHECKED sora_status api_decode_prompts(struct api_request *request,
                                            const struct api_limits *limits,
                                            struct api_error *error);
SORA_CHECKED sora_status api_decode_messages(struct api_request *request, struct api_error *error);
// api_decode_adapters.c: "adapters", "lora", "parameters", "max_rank" and "elastic".
SORA_CHECKED sora_status api_decode_adapters(struct api_request *request, struct api_error *error);

#endif
