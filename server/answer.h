// SPDX-License-Identifier: Apache-2.0
// The JSON of completions and chats: whole answers and the chunks of a stream. Pure functions on
// what the HTTP worker has gathered.
#ifndef SERVER_ANSWER_H
#define SERVER_ANSWER_H

#include <stdint.h>

#include "server/choice.h"

struct answer {
    enum api_kind kind;
    bool stream;
    const char *id;
    int64_t created_s;
    const char *model; // as the request named it
    const struct api_request *api;
    // usage
    int64_t prompt_tokens, completion_tokens, cached_tokens;
    int32_t rank_limit; // what load has left an elastic request of its adapters; 0: all
};

// One choice as it goes into an answer.
struct answer_choice {
    const struct choice *choice;
    int32_t index;
    const int32_t *prompt_tokens; // for return_token_ids; NULL: leave out
    int32_t prompt_token_count;
    bool first; // first chunk of a chat stream: only the role
};

// ,"sora":{"rank_limit"} where "elastic" was asked for.
void answer_encode_elastic(const struct answer *answer, struct buf *out);
void answer_encode(const struct answer *answer, const struct answer_choice *choices,
                   int32_t choice_count, struct buf *out);
// "data: {...}\n\n" for one choice; with NULL the chunk that carries the usage.
void answer_encode_chunk(const struct answer *answer, const struct answer_choice *choice,
                         struct buf *out);

#endif
