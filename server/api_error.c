// SPDX-License-Identifier: Apache-2.0
// HTTP status numbers live here and nowhere else. Pure functions, any thread.
#include "server/api_error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int http;
    const char *reason;
    const char *type; // of the error object
    const char *code; // when the place of failure gave none
} codes[API_CODE_COUNT] = {
    [API_OK] = {200, "OK", "", NULL},
    [API_CREATED] = {201, "Created", "", NULL},
    [API_PARTIAL] = {206, "Partial Content", "", NULL},
    [API_NOT_MODIFIED] = {304, "Not Modified", "", NULL},
    [API_BAD_REQUEST] = {400, "Bad Request", "invalid_request_error", "invalid_request"},
    [API_UNAUTHORIZED] = {401, "Unauthorized", "invalid_request_error", "invalid_api_key"},
    [API_FORBIDDEN] = {403, "Forbidden", "invalid_request_error", "insufficient_permissions"},
    [API_NOT_FOUND] = {404, "Not Found", "invalid_request_error", "not_found"},
    [API_BAD_METHOD] = {405, "Method Not Allowed", "invalid_request_error", "method_not_allowed"},
    [API_TOO_SLOW] = {408, "Request Timeout", "invalid_request_error", "body_too_slow"},
    [API_NO_LENGTH] = {411, "Length Required", "invalid_request_error", "length_required"},
    [API_PRECONDITION] = {412, "Precondition Failed", "invalid_request_error",
                          "precondition_failed"},
    [API_TOO_LARGE] = {413, "Payload Too Large", "invalid_request_error", "body_too_large"},
    [API_BAD_MEDIA] = {415, "Unsupported Media Type", "invalid_request_error",
                       "unsupported_media_type"},
    [API_BAD_RANGE] = {416, "Range Not Satisfiable", "invalid_request_error", "bad_range"},
    [API_IMPOSSIBLE] = {422, "Unprocessable Entity", "invalid_request_error", "unprocessable"},
    [API_DEPENDENCY] = {424, "Failed Dependency", "server_error", "generation_failed"},
    [API_TOO_MANY] = {429, "Too Many Requests", "rate_limit_error", "queue_full"},
    [API_CLIENT_GONE] = {499, "Client Closed Request", "invalid_request_error", "client_gone"},
    [API_INTERNAL] = {500, "Internal Server Error", "server_error", "internal_error"},
    [API_UNAVAILABLE] = {503, "Service Unavailable", "server_error", "unavailable"},
    [API_FULL] = {507, "Insufficient Storage", "server_error", "store_full"},
};

int api_code_http(enum api_code code)
{
    return codes[code].http;
}

const char *api_code_reason(enum api_code code)
{
    return codes[code].reason;
}

enum api_code api_code_from_http(int http)
{
    for (int i = 0; i < API_CODE_COUNT; i++)
        if (codes[i].http == http)
            return (enum api_code)i;
    return http >= 400 && http < 500 ? API_BAD_REQUEST : API_INTERNAL;
}

// How a handler's caller sees an error: only the kind matters there.
static sora_status status_of(enum api_code http)
{
    switch (http) {
    case API_NOT_FOUND:
        return SORA_NOT_FOUND;
    case API_TOO_MANY:
    case API_UNAVAILABLE:
        return SORA_BUSY;
    case API_INTERNAL:
        return SORA_INTERNAL;
    default:
        return SORA_MALFORMED;
    }
}

sora_status api_error_set(struct api_error *error, enum api_code http, const char *code,
                          const char *param, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    struct sora_error line;
    char text[sizeof line.text];
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)sora_fail(&line, SORA_MALFORMED, "%s", text); // escapes foreign bytes
    error->http = http;
    error->code = code != NULL ? code : codes[http].code;
    snprintf(error->param, sizeof error->param, "%s", param != NULL ? param : "");
    snprintf(error->message, sizeof error->message, "%s", line.text);
    return status_of(http);
}

static enum api_code code_of(enum api_origin origin, sora_status status, const char **code)
{
    switch (status) {
    case SORA_MALFORMED:
        *code = origin == API_FROM_ADAPTER ? "invalid_adapter" : NULL;
        return API_BAD_REQUEST;
    case SORA_MISMATCH:
        *code = "adapter_mismatch";
        return API_IMPOSSIBLE;
    case SORA_UNSUPPORTED:
        *code = "unsupported";
        return origin == API_FROM_ADAPTER ? API_IMPOSSIBLE : API_BAD_REQUEST;
    case SORA_LIMIT:
        *code = "over_limit";
        return origin == API_FROM_BODY ? API_BAD_REQUEST : API_IMPOSSIBLE;
    case SORA_NOT_FOUND:
        *code = origin == API_FROM_ADAPTER ? "adapter_not_found" : "model_not_found";
        return API_NOT_FOUND;
    case SORA_PRECONDITION:
        return API_PRECONDITION;
    case SORA_FULL:
        return API_FULL;
    case SORA_BUSY:
        return API_TOO_MANY;
    case SORA_UNAVAILABLE:
        *code = "catalog_unavailable";
        return API_UNAVAILABLE;
    case SORA_CANCELLED:
    case SORA_NO_MEMORY:
        return API_UNAVAILABLE;
    default:
        return API_INTERNAL;
    }
}

sora_status api_error_from(struct api_error *error, enum api_origin origin,
                           const struct sora_error *cause)
{
    const char *code = NULL;
    enum api_code http = code_of(origin, cause->code, &code);
    const char *param = origin == API_FROM_MODEL ? "model" : NULL;
    // Where the database is and why it fails is for the operator's log.
    const char *text = cause->code == SORA_UNAVAILABLE
                           ? "the shared catalog of adapters cannot be reached now: adapters that "
                             "are on this server are served, changes have to wait; try again"
                           : cause->text;
    (void)api_error_set(error, http, code, param, "%s", text);
    return cause->code;
}

static void encode_field(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, ",\"%s\":", name);
    if (text == NULL || text[0] == '\0')
        buf_text(out, "null");
    else
        buf_json_string(out, text, strlen(text));
}

void api_error_encode(struct buf *out, const struct api_error *error)
{
    buf_text(out, "{\"error\":{\"message\":");
    buf_json_string(out, error->message, strlen(error->message));
    encode_field(out, "type", codes[error->http].type);
    encode_field(out, "param", error->param);
    encode_field(out, "code", error->code);
    buf_text(out, "}}");
}
