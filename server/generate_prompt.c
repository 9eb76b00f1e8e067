// SPDX-License-Identifier: Apache-2.0
// What comes before the engine: the model's name, the prompt's tokens. See generate.h.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/generate.h"
#include "server/names.h"

struct api_limits generate_limits(const struct server *server)
{
    return (struct api_limits){.vocab_size = server->info->base.vocab_size,
                               .context_max = server->context_max};
}

// Whoever looks at the metrics sees the adapters that requests wait for.
static sora_status pin_noted(struct server *server, const char *stored, sora_pin **pin,
                             struct sora_error *cause)
{
    struct request_wait wait = {.adapter = stored};
    request_table_wait(&server->requests, &wait);
    sora_status status = sora_registry_pin(server->registry, stored, pin, cause);
    request_table_forget(&server->requests, &wait);
    return status;
}

sora_status generate_unknown(const struct server *server, const char *name, const char *field,
                             struct api_error *error)
{
    return api_error_set(error, API_NOT_FOUND, "model_not_found", field,
                         "the model \"%.200s\" does not exist: it is neither the base \"%s\" "
                         "nor the name of an adapter here; GET /v1/models lists them",
                         name, server->base_name);
}

sora_status generate_pin_stored(struct server *server, const struct auth_caller *caller,
                                const char *stored, const char *field, sora_pin **pin,
                                struct api_error *error)
{
    struct sora_error cause;
    sora_status status = pin_noted(server, stored, pin, &cause);
    if (status == SORA_OK)
        return SORA_OK;
    // A name that cannot be an adapter's is unknown like any other.
    if (status == SORA_NOT_FOUND || status == SORA_MALFORMED)
        return generate_unknown(server, names_shown(caller, stored), field, error);
    (void)api_error_from(error, API_FROM_MODEL, &cause);
    snprintf(error->param, sizeof error->param, "%s", field);
    if (status == SORA_BUSY)
        error->code = "adapter_memory_busy";
    names_show_in(caller, error->message);
    return status;
}

sora_status generate_pin(struct server *server, const struct auth_caller *caller, const char *name,
                         sora_pin **pin, struct api_error *error)
{
    char stored[NAMES_BYTES];
    *pin = NULL;
    if (name == NULL || strcmp(name, server->base_name) == 0)
        return SORA_OK;
    if (!names_resolve(server->registry, caller, name, stored, NULL))
        return generate_unknown(server, name, "model", error);
    return generate_pin_stored(server, caller, stored, "model", pin, error);
}

static sora_status no_tokenizer(struct api_error *error, const char *param)
{
    return api_error_set(error, API_BAD_REQUEST, "no_tokenizer", param,
                         "%s: this model has no tokenizer; send the prompt to /v1/completions as a "
                         "list of token ids",
                         param);
}

static sora_status encode_text(struct server *server, const char *text, size_t bytes, bool add_bos,
                               int32_t **tokens, int32_t *token_count, struct api_error *error)
{
    struct sora_error cause;
    // The texts of special tokens count as such in a prompt, as in vLLM and transformers.
    sora_status status = sora_tokenizer_encode(server->tokenizer, text, bytes, true, add_bos,
                                               tokens, token_count, &cause);
    return status == SORA_OK ? SORA_OK : api_error_from(error, API_FROM_BODY, &cause);
}

static sora_status encode_chat(struct server *server, const struct api_request *api,
                               int32_t **tokens, int32_t *token_count, struct api_error *error)
{
    struct sora_error cause;
    char *text = NULL;
    size_t bytes = 0;
    sora_status status =
        sora_chat_render(server->tokenizer, server->config.chat_template, api->messages,
                         api->message_count, api->add_generation_prompt, &text, &bytes, &cause);
    if (status != SORA_OK)
        return api_error_from(error, API_FROM_BODY, &cause);
    status = encode_text(server, text, bytes, api->add_special_tokens, tokens, token_count, error);
    free(text);
    return status;
}

sora_status generate_tokens(struct server *server, const struct api_request *api,
                            const struct api_prompt *prompt, int32_t **tokens, int32_t *token_count,
                            struct api_error *error)
{
    sora_status status = SORA_OK;
    *tokens = NULL;
    if (prompt != NULL && prompt->text == NULL) {
        size_t bytes = (size_t)prompt->token_count * sizeof **tokens;
        *tokens = malloc(bytes + 1);
        *token_count = prompt->token_count;
        if (*tokens == NULL)
            return api_error_set(error, API_UNAVAILABLE, "no_memory", "prompt", "no memory");
        memcpy(*tokens, prompt->tokens, bytes);
        return SORA_OK;
    }
    if (server->tokenizer == NULL)
        return no_tokenizer(error, prompt != NULL ? "prompt" : "messages");
    if (prompt == NULL)
        status = encode_chat(server, api, tokens, token_count, error);
    else
        status = encode_text(server, prompt->text, strlen(prompt->text),
                             api->add_special_tokens && sora_tokenizer_adds_bos(server->tokenizer),
                             tokens, token_count, error);
    return status;
}
