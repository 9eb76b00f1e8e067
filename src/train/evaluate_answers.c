// SPDX-License-Identifier: Apache-2.0
// Answers and their references, see evaluate_answers.h.
#include "train/evaluate_answers.h"

#include <stdlib.h>
#include <string.h>

#include "train/text_score.h"

// By the prompt's tokens, then by place.
static int32_t compare_prompts(const struct dataset *dataset, int32_t a, int32_t b)
{
    const struct dataset_example *x = &dataset->examples[a], *y = &dataset->examples[b];
    if (x->prompt_count != y->prompt_count)
        return x->prompt_count < y->prompt_count ? -1 : 1;
    return memcmp(dataset->tokens + x->first, dataset->tokens + y->first,
                  (size_t)x->prompt_count * sizeof(int32_t));
}

static int compare_examples(const void *a, const void *b, void *context)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    const int32_t order = compare_prompts(context, x, y);
    return order != 0 ? order : (x > y) - (x < y);
}

sora_status evaluate_answers_init(struct evaluate_answers *answers, const struct dataset *dataset,
                                  const bool *chosen, int32_t example_count, struct sora_error *err)
{
    const size_t room = (size_t)example_count + 1;
    *answers = (struct evaluate_answers){.example_count = example_count};
    answers->order = calloc(room, sizeof(answers->order[0]));
    answers->leads = calloc(room, sizeof(answers->leads[0]));
    answers->texts = calloc(room, sizeof(answers->texts[0]));
    if (answers->order == NULL || answers->leads == NULL || answers->texts == NULL) {
        evaluate_answers_deinit(answers);
        return sora_fail(err, SORA_NO_MEMORY, "no memory for %d answers", example_count);
    }
    for (int32_t i = 0; i < example_count; i++)
        if (chosen[i])
            answers->order[answers->count++] = i;
    qsort_r(answers->order, (size_t)answers->count, sizeof(answers->order[0]), compare_examples,
            (void *)(uintptr_t)dataset);
    for (int32_t i = 0; i < answers->count; i++)
        answers->leads[answers->order[i]] =
            i == 0 || compare_prompts(dataset, answers->order[i - 1], answers->order[i]) != 0;
    return SORA_OK;
}

void evaluate_answers_deinit(struct evaluate_answers *answers)
{
    for (int32_t i = 0; answers->texts != NULL && i < answers->example_count; i++)
        free(answers->texts[i]);
    free(answers->texts);
    free(answers->leads);
    free(answers->order);
    *answers = (struct evaluate_answers){0};
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static bool equal_trimmed(const char *a, const char *b)
{
    size_t a_bytes = strlen(a), b_bytes = strlen(b);
    for (; a_bytes > 0 && is_space(a[0]); a++)
        a_bytes--;
    for (; b_bytes > 0 && is_space(b[0]); b++)
        b_bytes--;
    while (a_bytes > 0 && is_space(a[a_bytes - 1]))
        a_bytes--;
    while (b_bytes > 0 && is_space(b[b_bytes - 1]))
        b_bytes--;
    return a_bytes == b_bytes && memcmp(a, b, a_bytes) == 0;
}

struct judgement {
    int64_t right, prompts;
    double rouge_sum;
    struct bleu bleu;
};

static sora_status judge_one(struct judgement *judgement, const char *answer,
                             const char *const *references, int32_t count, struct sora_error *err)
{
    double best = 0.0;
    for (int32_t i = 0; i < count; i++) {
        double f1;
        const sora_status status = text_score_rouge_l(answer, references[i], &f1, err);
        if (status != SORA_OK)
            return status;
        best = f1 > best ? f1 : best;
        judgement->right += equal_trimmed(answer, references[i]);
    }
    judgement->rouge_sum += best;
    judgement->prompts++;
    return bleu_add(&judgement->bleu, answer, references, count, err);
}

static sora_status decode_completion(const struct dataset *dataset, int32_t index,
                                     const sora_tokenizer *tokenizer, char **text,
                                     struct sora_error *err)
{
    const struct dataset_example *example = &dataset->examples[index];
    size_t bytes;
    return sora_tokenizer_decode(tokenizer,
                                 dataset->tokens + example->first + example->prompt_count,
                                 example->completion_count, true, text, &bytes, err);
}

// The examples order[first .. end) have one prompt.
static sora_status judge_prompt(const struct evaluate_answers *answers,
                                const struct dataset *dataset, const sora_tokenizer *tokenizer,
                                int32_t first, int32_t end, struct judgement *judgement,
                                struct sora_error *err)
{
    const int32_t count = end - first;
    char **references = calloc((size_t)count, sizeof(references[0]));
    sora_status status = references != NULL
                             ? SORA_OK
                             : sora_fail(err, SORA_NO_MEMORY, "no memory for %d texts", count);
    for (int32_t i = 0; status == SORA_OK && i < count; i++)
        status =
            decode_completion(dataset, answers->order[first + i], tokenizer, &references[i], err);
    if (status == SORA_OK)
        status = judge_one(judgement, answers->texts[answers->order[first]],
                           (const char *const *)references, count, err);
    for (int32_t i = 0; references != NULL && i < count; i++)
        free(references[i]);
    free(references);
    return status;
}

sora_status evaluate_answers_judge(const struct evaluate_answers *answers,
                                   const struct dataset *dataset, const sora_tokenizer *tokenizer,
                                   struct sora_eval_result *result, struct sora_error *err)
{
    struct judgement judgement = {0};
    for (int32_t first = 0, end; first < answers->count; first = end) {
        end = first + 1;
        while (end < answers->count && !answers->leads[answers->order[end]])
            end++;
        const sora_status status =
            judge_prompt(answers, dataset, tokenizer, first, end, &judgement, err);
        if (status != SORA_OK)
            return status;
    }
    result->has_exact_match = answers->count > 0;
    if (!result->has_exact_match)
        return SORA_OK;
    result->exact_match = (double)judgement.right / (double)answers->count;
    result->rouge_l = judgement.rouge_sum / (double)judgement.prompts;
    result->bleu = bleu_score(&judgement.bleu);
    return SORA_OK;
}
