// SPDX-License-Identifier: Apache-2.0
// How near a generated text is to its references. Pure; any thread, each on its own sums.
//   ROUGE-L (Lin 2004): F1 of the longest common subsequence of words, as Google's rouge_score
//     gives it without a stemmer: words are runs of a-z and 0-9 after lower-casing.
//   BLEU (Papineni et al. 2002) of a whole set, as sacrebleu gives it by default: tokens of
//     mteval-v13a, orders 1 to 4, the closest reference's length, exponential smoothing; here from
//     0 to 1.
#ifndef TRAIN_TEXT_SCORE_H
#define TRAIN_TEXT_SCORE_H

#include <stdint.h>

#include "sora/status.h"

enum { BLEU_ORDER_MAX = 4 };

SORA_CHECKED sora_status text_score_rouge_l(const char *answer, const char *reference, double *f1,
                                            struct sora_error *err);

struct bleu {
    int64_t answer_tokens, reference_tokens;
    int64_t right[BLEU_ORDER_MAX], total[BLEU_ORDER_MAX];
};
// Adds one answer with its references [count], count > 0.
SORA_CHECKED sora_status bleu_add(struct bleu *bleu, const char *answer,
                                  const char *const *references, int32_t count,
                                  struct sora_error *err);
double bleu_score(const struct bleu *bleu); // 0 of nothing

#endif
