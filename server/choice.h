// SPDX-License-Identifier: Apache-2.0
// One choice of an answer on its way out: tokens become text, stop strings are found, and the JSON
// of log-probabilities and token ids grows. Belongs to the HTTP worker of its request; the engine
// thread never sees text.
#ifndef SERVER_CHOICE_H
#define SERVER_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "server/api_decode.h"
#include "server/event_ring.h"
#include "server/stop_match.h"
#include "sora/text.h"

// Shared by the choices of a request.
struct choice_options {
    const sora_tokenizer *tokenizer; // NULL: the model has none; text stays ""
    const struct api_request *api;
};

struct choice {
    const struct choice_options *options;
    sora_detokenizer *detokenizer;
    struct stop_match stop;
    // Since the last choice_clear: in a stream the next chunk, otherwise everything.
    struct buf text;
    struct buf token_ids;                     // "1,2,3"
    struct buf tokens, values, tops, offsets; // completions: items of the four lists
    struct buf content;                       // chat: items of the list
    int32_t entries;                          // items in the lists
    int32_t ids;                              // items in token_ids

    int64_t characters; // code points of text before the next token, for text_offset
    int32_t token_count;
    double logprob_sum;
    bool done;
    enum event_finish finish;
    int32_t stop_token; // the end token, -1: none
};

SORA_CHECKED sora_status choice_init(struct choice *choice, const struct choice_options *options,
                                     struct sora_error *err);
void choice_deinit(struct choice *choice);

// echo: the prompt's text goes first; with logprobs also its tokens. `event` is NULL for the first
// token of a prompt, which has no log-probability.
SORA_CHECKED sora_status choice_echo(struct choice *choice, const char *text, const int32_t *tokens,
                                     int32_t token_count, struct sora_error *err);
void choice_prompt_token(struct choice *choice, int32_t token, const struct event *event);
// A generated token. True: a stop string is complete and the choice is done; what follows is not
// part of the answer.
bool choice_token(struct choice *choice, const struct event *event);
// The engine says that the sequence ends.
void choice_end(struct choice *choice, enum event_finish finish);
// Forgets what was sent.
void choice_clear(struct choice *choice);

// "stop", "length", or NULL while it runs.
const char *choice_finish_reason(const struct choice *choice);
// vLLM's stop_reason: the stop string, the stop token of stop_token_ids, or null.
void choice_encode_stop_reason(const struct choice *choice, struct buf *out);
// The value of "logprobs".
void choice_encode_logprobs(const struct choice *choice, struct buf *out);

#endif
