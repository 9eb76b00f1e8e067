// SPDX-License-Identifier: Apache-2.0
// Measures of an evaluation by name, see sora/train.h. Pure, any thread.
#include <math.h>

#include "sora/train.h"

enum sora_metric sora_metric_resolve(enum sora_metric metric, const struct sora_eval_result *result)
{
    if (metric != SORA_METRIC_AUTO)
        return metric;
    return result->has_accuracy ? SORA_METRIC_ACCURACY : SORA_METRIC_LOSS;
}

const char *sora_metric_name(enum sora_metric metric)
{
    switch (metric) {
    case SORA_METRIC_LOSS:
        return "loss";
    case SORA_METRIC_ACCURACY:
        return "accuracy";
    case SORA_METRIC_MCC:
        return "mcc";
    case SORA_METRIC_EXACT_MATCH:
        return "exact_match";
    case SORA_METRIC_ROUGE_L:
        return "rouge_l";
    case SORA_METRIC_BLEU:
        return "bleu";
    default:
        return "auto";
    }
}

double sora_metric_value(enum sora_metric metric, const struct sora_eval_result *result)
{
    switch (sora_metric_resolve(metric, result)) {
    case SORA_METRIC_ACCURACY:
        return result->has_accuracy ? result->accuracy : NAN;
    case SORA_METRIC_MCC:
        return result->has_accuracy ? result->mcc : NAN;
    case SORA_METRIC_EXACT_MATCH:
        return result->has_exact_match ? result->exact_match : NAN;
    case SORA_METRIC_ROUGE_L:
        return result->has_exact_match ? result->rouge_l : NAN;
    case SORA_METRIC_BLEU:
        return result->has_exact_match ? result->bleu : NAN;
    default:
        return result->loss;
    }
}

bool sora_metric_rises(enum sora_metric metric)
{
    return metric != SORA_METRIC_LOSS;
}
