// SPDX-License-Identifier: Apache-2.0
// What LoRAX and TGI answer to POST /generate and /generate_stream, and how they say what is wrong.
// A request there has one sequence. Belongs to the HTTP worker of its request.
#ifndef SERVER_ANSWER_TGI_H
#define SERVER_ANSWER_TGI_H

#include "server/answer.h"

struct answer_tgi {
    const struct answer *answer;
    const int32_t *end_tokens; // of the model, borrowed
    int32_t end_token_count, max_tokens;
    struct buf text;   // all of it
    struct buf tokens; // of "details": items of the list
    struct buf piece;  // text of the last token
    int32_t token;
    float logprob;
    bool special, stopped, ended;
};

void answer_tgi_init(struct answer_tgi *tgi, const struct answer *answer);
void answer_tgi_deinit(struct answer_tgi *tgi); // zeros too

// One event of the sequence, after the choice has taken it. In a stream, what there is to send goes
// to out; otherwise out is NULL. The last token waits for the end of its sequence: it comes with
// the whole text.
void answer_tgi_event(struct answer_tgi *tgi, struct choice *choice, const struct event *event,
                      struct buf *out);
// {"generated_text","details"}
void answer_tgi_encode(const struct answer_tgi *tgi, const struct choice *choice, struct buf *out);

// {"error","error_type"}; the status is theirs too.
enum api_code answer_tgi_code(enum api_code code);
void answer_tgi_error(struct buf *out, const struct api_error *error);

#endif
