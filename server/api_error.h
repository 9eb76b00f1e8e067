// SPDX-License-Identifier: Apache-2.0
// What can go wrong with a request, as OpenAI's error object. The only place that knows HTTP status
// numbers is api_error.c; everything else says what happened. Plain values, any thread.
#ifndef SERVER_API_ERROR_H
#define SERVER_API_ERROR_H

#include "base/buf.h"
#include "sora/status.h"

enum api_code {
    API_OK,
    API_CREATED,
    API_PARTIAL,      // a Range of the bytes
    API_NOT_MODIFIED, // the client has these bytes
    API_BAD_REQUEST,
    API_UNAUTHORIZED, // no key, or not a good one
    API_FORBIDDEN,    // a good key, but not for this
    API_NOT_FOUND,
    API_BAD_METHOD,
    API_TOO_SLOW,
    API_NO_LENGTH,
    API_PRECONDITION,
    API_TOO_LARGE,
    API_BAD_MEDIA,
    API_BAD_RANGE,
    API_IMPOSSIBLE,  // well-formed, but not with this model
    API_DEPENDENCY,  // LoRAX's code for a generation that failed
    API_TOO_MANY,    // the queue is full, or a tenant's limit; comes with Retry-After
    API_CLIENT_GONE, // nobody reads the reply; for the metrics only
    API_INTERNAL,
    API_UNAVAILABLE, // starting or draining; comes with Retry-After
    API_FULL,
    API_CODE_COUNT
};

int api_code_http(enum api_code code);
const char *api_code_reason(enum api_code code);
// The code of an HTTP number that the HTTP library came up with by itself.
enum api_code api_code_from_http(int http);

struct api_error {
    enum api_code http;
    const char *code; // "model_not_found": static text, or NULL
    char param[64];   // the field that is wrong, or ""
    char message[512];
};

// Fills *error and returns a status for the caller's own use. code may be NULL, param may be NULL.
sora_status api_error_set(struct api_error *error, enum api_code http, const char *code,
                          const char *param, const char *format, ...) SORA_PRINTF(5, 6);

// Where a sora_status came from decides what it means to the client.
enum api_origin {
    API_FROM_BODY,    // the request's JSON and its fields
    API_FROM_ADAPTER, // the bytes of an adapter, its name or version
    API_FROM_MODEL    // the model a request names
};
sora_status api_error_from(struct api_error *error, enum api_origin origin,
                           const struct sora_error *cause);

// {"error":{"message","type","param","code"}}
void api_error_encode(struct buf *out, const struct api_error *error);

#endif
