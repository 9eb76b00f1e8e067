// SPDX-License-Identifier: Apache-2.0
// One line of a data file into tokens. Prompt and completion are encoded apart, so that a scored
// token never holds a piece of the prompt. See dataset.h; the caller's thread only.
#include "train/dataset_line.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "sora/limits.h"

// A line on its way: the dataset, and the example that grows at its end.
struct line_builder {
    struct dataset *dataset;
    const struct dataset_rules *rules;
    struct dataset_example example;
};

static sora_status add_tokens(struct line_builder *builder, const int32_t *tokens, int32_t count,
                              bool scored, struct sora_error *err)
{
    struct dataset *dataset = builder->dataset;
    struct dataset_example *example = &builder->example;
    const int32_t room = builder->rules->example_tokens_max - example->token_count;
    if (count > room && !builder->rules->cut)
        return sora_fail(err, SORA_LIMIT, "the example has more than %d tokens",
                         builder->rules->example_tokens_max);
    if (count > room) {
        count = room;
        example->is_cut = true;
    }
    // Both arrays have the one capacity, so the second must follow the first.
    int64_t capacity = dataset->token_capacity;
    const bool grown = dataset_grow((void **)&dataset->tokens, sizeof(int32_t),
                                    dataset->token_count, count, &capacity) &&
                       dataset_grow((void **)&dataset->scored, 1, dataset->token_count, count,
                                    &dataset->token_capacity);
    if (!grown)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the tokens");
    for (int32_t i = 0; i < count; i++) {
        const bool first = example->token_count == 0;
        dataset->tokens[dataset->token_count] = tokens[i];
        dataset->scored[dataset->token_count] = scored && !first;
        example->scored_count += scored && !first;
        example->token_count++;
        dataset->token_count++;
    }
    return SORA_OK;
}

static sora_status encode(const struct line_builder *builder, const char *text, size_t bytes,
                          bool parse_special, bool add_bos, int32_t **tokens, int32_t *count,
                          struct sora_error *err)
{
    *tokens = NULL;
    *count = 0;
    sora_status status = sora_tokenizer_encode(builder->rules->tokenizer, text, bytes,
                                               parse_special, add_bos, tokens, count, err);
    for (int32_t i = 0; status == SORA_OK && i < *count; i++)
        if ((*tokens)[i] < 0 || (*tokens)[i] >= builder->rules->vocab_size)
            status =
                sora_fail(err, SORA_MISMATCH, "token %d is outside the model's vocabulary of %d",
                          (*tokens)[i], builder->rules->vocab_size);
    if (status != SORA_OK) {
        free(*tokens);
        *tokens = NULL;
    }
    return status;
}

// Tokens of a text at the end of the example; *count may be NULL.
static sora_status add_text(struct line_builder *builder, const char *text, bool add_bos,
                            bool scored, int32_t *count, struct sora_error *err)
{
    int32_t *tokens, token_count;
    sora_status status =
        encode(builder, text, strlen(text), false, add_bos, &tokens, &token_count, err);
    if (status == SORA_OK)
        status = add_tokens(builder, tokens, token_count, scored, err);
    free(tokens);
    if (count != NULL)
        *count = token_count;
    return status;
}

static sora_status add_end(struct line_builder *builder, struct sora_error *err)
{
    const int32_t end = sora_tokenizer_eos(builder->rules->tokenizer);
    return end >= 0 ? add_tokens(builder, &end, 1, true, err) : SORA_OK;
}

static sora_status add_choice(struct line_builder *builder, const char *text,
                              struct sora_error *err)
{
    struct dataset *dataset = builder->dataset;
    struct dataset_choice choice = {.first = dataset->choice_token_count};
    int32_t *tokens;
    sora_status status =
        encode(builder, text, strlen(text), false, false, &tokens, &choice.token_count, err);
    if (status != SORA_OK)
        return status;
    if (choice.token_count == 0)
        status = sora_fail(err, SORA_MALFORMED, "a choice has no tokens");
    else if (!builder->rules->cut && choice.token_count > builder->rules->example_tokens_max -
                                                              builder->example.prompt_count)
        status = sora_fail(err, SORA_LIMIT, "a choice makes the example longer than %d tokens",
                           builder->rules->example_tokens_max);
    else if (!dataset_grow((void **)&dataset->choice_tokens, sizeof(int32_t),
                           dataset->choice_token_count, choice.token_count,
                           &dataset->choice_token_capacity) ||
             !dataset_grow((void **)&dataset->choices, sizeof(choice), dataset->choice_count, 1,
                           &dataset->choice_capacity))
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for the choices");
    if (status == SORA_OK) {
        memcpy(dataset->choice_tokens + dataset->choice_token_count, tokens,
               (size_t)choice.token_count * sizeof(int32_t));
        dataset->choice_token_count += choice.token_count;
        dataset->choices[dataset->choice_count++] = choice;
    }
    free(tokens);
    return status;
}

static sora_status add_choices(struct line_builder *builder, const cJSON *choices,
                               const char *completion, struct sora_error *err)
{
    if (!cJSON_IsArray(choices))
        return sora_fail(err, SORA_MALFORMED, "\"choices\" is no array");
    const int32_t count = cJSON_GetArraySize(choices);
    if (count < 2 || count > SORA_TRAIN_CHOICES_MAX)
        return sora_fail(err, SORA_LIMIT, "%d choices, expected 2 to %d", count,
                         SORA_TRAIN_CHOICES_MAX);
    struct dataset_example *example = &builder->example;
    if (example->prompt_count == 0)
        return sora_fail(err, SORA_MALFORMED, "choices need a prompt that is not empty");
    example->choice_first = builder->dataset->choice_count;
    example->choice_count = count;
    example->choice_right = -1;
    int32_t index = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, choices)
    {
        if (!cJSON_IsString(item))
            return sora_fail(err, SORA_MALFORMED, "choice %d is no string", index);
        if (strcmp(item->valuestring, completion) == 0) {
            if (example->choice_right >= 0)
                return sora_fail(err, SORA_MALFORMED, "choices %d and %d are the same",
                                 example->choice_right, index);
            example->choice_right = index;
        }
        const sora_status status = add_choice(builder, item->valuestring, err);
        if (status != SORA_OK)
            return status;
        index++;
    }
    if (example->choice_right < 0)
        return sora_fail(err, SORA_MALFORMED, "the completion is none of the choices");
    return SORA_OK;
}

static sora_status need_string(const cJSON *object, const char *name, const char **text,
                               struct sora_error *err)
{
    *text = NULL;
    const sora_status status = json_get_string(object, name, text, err);
    if (status == SORA_OK && *text == NULL)
        return sora_fail(err, SORA_MALFORMED, "\"%s\" is missing", name);
    return status;
}

static sora_status add_prompt(struct line_builder *builder, const cJSON *object,
                              struct sora_error *err)
{
    struct dataset_example *example = &builder->example;
    const sora_tokenizer *tokenizer = builder->rules->tokenizer;
    const char *prompt, *completion;
    sora_status status = need_string(object, "prompt", &prompt, err);
    if (status == SORA_OK)
        status = need_string(object, "completion", &completion, err);
    if (status == SORA_OK)
        status = add_text(builder, prompt, sora_tokenizer_adds_bos(tokenizer), false,
                          &example->prompt_count, err);
    if (status == SORA_OK)
        status = add_text(builder, completion, false, true, &example->completion_count, err);
    if (status == SORA_OK && example->completion_count == 0)
        status = sora_fail(err, SORA_MALFORMED, "the completion is empty");
    if (status == SORA_OK)
        status = add_end(builder, err);
    if (status == SORA_OK && json_has(object, "choices"))
        status = add_choices(builder, cJSON_GetObjectItemCaseSensitive(object, "choices"),
                             completion, err);
    return status;
}

// The part of a turn that is scored ends with its last end token: what a template writes after it
// (a line break) is never generated.
static sora_status add_turn(struct line_builder *builder, const char *text, size_t bytes,
                            bool scored, struct sora_error *err)
{
    int32_t *tokens, count;
    const bool add_bos =
        builder->example.token_count == 0 && sora_tokenizer_adds_bos(builder->rules->tokenizer);
    sora_status status = encode(builder, text, bytes, true, add_bos, &tokens, &count, err);
    if (status != SORA_OK)
        return status;
    int32_t scored_count = count;
    while (scored_count > 0 &&
           !sora_tokenizer_is_end(builder->rules->tokenizer, tokens[scored_count - 1]))
        scored_count--;
    if (scored_count == 0)
        scored_count = count;
    if (!scored)
        scored_count = 0;
    status = add_tokens(builder, tokens, scored_count, true, err);
    if (status == SORA_OK)
        status = add_tokens(builder, tokens + scored_count, count - scored_count, false, err);
    free(tokens);
    return status;
}

// Renders the first `count` messages and adds what goes beyond *done bytes of the text so far.
static sora_status add_rendered(struct line_builder *builder, const struct sora_message *messages,
                                int32_t count, bool generation_prompt, char **so_far, bool scored,
                                struct sora_error *err)
{
    char *text;
    size_t bytes;
    sora_status status = sora_chat_render(builder->rules->tokenizer, builder->rules->chat_template,
                                          messages, count, generation_prompt, &text, &bytes, err);
    if (status != SORA_OK)
        return status;
    const size_t done = *so_far != NULL ? strlen(*so_far) : 0;
    if (done > bytes || (done > 0 && memcmp(text, *so_far, done) != 0))
        status = sora_fail(err, SORA_UNSUPPORTED,
                           "the chat template rewrites earlier turns, so message %d cannot be "
                           "scored alone",
                           count);
    else
        status = add_turn(builder, text + done, bytes - done, scored, err);
    free(*so_far);
    *so_far = text;
    return status;
}

static sora_status read_messages(const cJSON *array, struct sora_message *messages, int32_t count,
                                 struct sora_error *err)
{
    int32_t index = 0;
    for (const cJSON *item = array->child; item != NULL && index < count; item = item->next) {
        sora_status status =
            cJSON_IsObject(item) ? SORA_OK : sora_fail(err, SORA_MALFORMED, "it is no object");
        if (status == SORA_OK)
            status = need_string(item, "role", &messages[index].role, err);
        if (status == SORA_OK)
            status = need_string(item, "content", &messages[index].content, err);
        if (status != SORA_OK)
            return sora_fail_within(err, status, "message %d", index);
        index++;
    }
    return SORA_OK;
}

static bool is_assistant(const struct sora_message *message)
{
    return strcmp(message->role, "assistant") == 0;
}

// Tokens after the last scored one teach nothing.
static void cut_unscored_tail(struct line_builder *builder)
{
    struct dataset *dataset = builder->dataset;
    while (builder->example.token_count > 0 && !dataset->scored[dataset->token_count - 1]) {
        builder->example.token_count--;
        dataset->token_count--;
    }
}

static sora_status add_messages(struct line_builder *builder, const cJSON *object,
                                struct sora_error *err)
{
    const cJSON *array = cJSON_GetObjectItemCaseSensitive(object, "messages");
    if (!cJSON_IsArray(array))
        return sora_fail(err, SORA_MALFORMED, "\"messages\" is no array");
    const int32_t count = cJSON_GetArraySize(array);
    if (count < 1 || count > SORA_TRAIN_MESSAGES_MAX)
        return sora_fail(err, SORA_LIMIT, "%d messages, expected 1 to %d", count,
                         SORA_TRAIN_MESSAGES_MAX);
    struct sora_message *messages = calloc((size_t)count, sizeof(*messages));
    if (messages == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for %d messages", count);
    char *so_far = NULL;
    sora_status status = read_messages(array, messages, count, err);
    int32_t turns = 0;
    for (int32_t i = 0; status == SORA_OK && i < count; i++) {
        if (!is_assistant(&messages[i]))
            continue;
        turns++;
        if (i > 0)
            status = add_rendered(builder, messages, i, true, &so_far, false, err);
        if (status == SORA_OK)
            status = add_rendered(builder, messages, i + 1, false, &so_far, true, err);
    }
    if (status == SORA_OK && turns == 0)
        status = sora_fail(err, SORA_MALFORMED, "no message has the role \"assistant\"");
    if (status == SORA_OK)
        cut_unscored_tail(builder);
    free(so_far);
    free(messages);
    return status;
}

static sora_status add_plain(struct line_builder *builder, const cJSON *object,
                             struct sora_error *err)
{
    const char *text;
    sora_status status = need_string(object, "text", &text, err);
    if (status == SORA_OK)
        status = add_text(builder, text, sora_tokenizer_adds_bos(builder->rules->tokenizer), true,
                          NULL, err);
    if (status == SORA_OK)
        status = add_end(builder, err);
    return status;
}

static sora_status add_ids(struct line_builder *builder, const cJSON *object,
                           struct sora_error *err)
{
    const cJSON *array = cJSON_GetObjectItemCaseSensitive(object, "tokens");
    if (!cJSON_IsArray(array))
        return sora_fail(err, SORA_MALFORMED, "\"tokens\" is no array");
    int64_t loss_from = 1;
    sora_status status = json_get_int(object, "loss_from", 0, INT32_MAX, &loss_from, err);
    const int32_t vocab_size = builder->rules->vocab_size;
    int32_t index = 0;
    for (const cJSON *item = array->child; status == SORA_OK && item != NULL; item = item->next) {
        if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0.0) ||
            !(item->valuedouble < (double)vocab_size) ||
            item->valuedouble != (double)(int32_t)item->valuedouble)
            return sora_fail(err, SORA_MALFORMED, "token %d is no id from 0 to %d", index,
                             vocab_size - 1);
        const int32_t token = (int32_t)item->valuedouble;
        status = add_tokens(builder, &token, 1, index >= loss_from, err);
        index++;
    }
    if (status == SORA_OK && json_has(object, "loss_from") && loss_from >= index)
        return sora_fail(err, SORA_MALFORMED, "\"loss_from\" is %lld, but there are %d tokens",
                         (long long)loss_from, index);
    return status;
}

struct line_shape {
    const char *key;
    bool needs_tokenizer;
    sora_status (*add)(struct line_builder *builder, const cJSON *object, struct sora_error *err);
};

static sora_status add_object(struct line_builder *builder, const cJSON *object,
                              struct sora_error *err)
{
    static const struct line_shape shapes[] = {{"prompt", true, add_prompt},
                                               {"messages", true, add_messages},
                                               {"text", true, add_plain},
                                               {"tokens", false, add_ids}};
    const struct line_shape *found = NULL;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        if (!json_has(object, shapes[i].key))
            continue;
        if (found != NULL)
            return sora_fail(err, SORA_MALFORMED, "both \"%s\" and \"%s\"", found->key,
                             shapes[i].key);
        found = &shapes[i];
    }
    if (found == NULL)
        return sora_fail(err, SORA_MALFORMED,
                         "none of \"prompt\", \"messages\", \"text\", \"tokens\"");
    if (found->needs_tokenizer && builder->rules->tokenizer == NULL)
        return sora_fail(err, SORA_UNSUPPORTED,
                         "\"%s\" needs a tokenizer, and this model has none; use \"tokens\"",
                         found->key);
    return found->add(builder, object, err);
}

sora_status dataset_line_add(struct dataset *dataset, const char *text, size_t bytes, int32_t line,
                             const struct dataset_rules *rules, struct sora_error *err)
{
    struct line_builder builder = {.dataset = dataset, .rules = rules};
    builder.example.first = dataset->token_count;
    builder.example.line = line;
    cJSON *object = NULL;
    sora_status status = json_parse(text, bytes, &object, err);
    if (status != SORA_OK)
        return status;
    if (!cJSON_IsObject(object))
        status = sora_fail(err, SORA_MALFORMED, "it is no JSON object");
    if (status == SORA_OK)
        status = add_object(&builder, object, err);
    if (status == SORA_OK && builder.example.scored_count == 0)
        status =
            sora_fail(err, SORA_MALFORMED, "%d tokens%s, none of them scored",
                      builder.example.token_count, builder.example.is_cut ? " after the cut" : "");
    if (status == SORA_OK && !dataset_grow((void **)&dataset->examples, sizeof(builder.example),
                                           dataset->example_count, 1, &dataset->example_capacity))
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for the examples");
    if (status == SORA_OK) {
        dataset->examples[dataset->example_count++] = builder.example;
        if (builder.example.token_count > dataset->longest)
            dataset->longest = builder.example.token_count;
    }
    cJSON_Delete(object);
    return status;
}
