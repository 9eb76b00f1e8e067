// SPDX-License-Identifier: Apache-2.0
// The one error type of the project. A fallible function returns a sora_status, which may not be
// ignored, and explains itself in the struct sora_error that its last parameter points to (may be
// NULL). The text names the thing and the bound: "layer 3 q_proj: rank 96 exceeds d_in 64".
#ifndef SORA_STATUS_H
#define SORA_STATUS_H

#define SORA_CHECKED __attribute__((warn_unused_result))
#define SORA_PRINTF(format_index, first_arg) \
    __attribute__((format(printf, format_index, first_arg)))

// clang-format off
#define SORA_STATUS_LIST(X)                                                                   \
    X(OK,           "ok")            /* done */                                               \
    X(MALFORMED,    "malformed")     /* bytes or arguments that do not parse */               \
    X(MISMATCH,     "mismatch")      /* well-formed, but impossible with this model */        \
    X(LIMIT,        "limit")         /* over a named bound */                                 \
    X(NOT_FOUND,    "not_found")     /* no such file, adapter, version */                     \
    X(PRECONDITION, "precondition")  /* the caller's condition (If-Match) does not hold */    \
    X(UNSUPPORTED,  "unsupported")   /* known, but not done here; named */                    \
    X(FULL,         "full")          /* disk or budget is full */                             \
    X(BUSY,         "busy")          /* try again later */                                    \
    X(CANCELLED,    "cancelled")     /* the caller gave up */                                 \
    X(UNAVAILABLE,  "unavailable")   /* another machine is away; what is here goes on */      \
    X(IO,           "io")            /* the operating system said no */                       \
    X(NO_MEMORY,    "no_memory")     /* allocation failed */                                  \
    X(INTERNAL,     "internal")      /* our own fault */
// clang-format on

typedef enum sora_status {
#define SORA_STATUS_ENUM(name, text) SORA_##name,
    SORA_STATUS_LIST(SORA_STATUS_ENUM)
#undef SORA_STATUS_ENUM
} sora_status;

struct sora_error {
    sora_status code;
    char text[512]; // one line of UTF-8, foreign bytes escaped
};

// Name of a status as it appears in logs and JSON ("not_found").
const char *sora_status_name(sora_status status);

// Fills *err (when not NULL) and returns `code`, so that a failure is one statement:
//     return sora_fail(err, SORA_LIMIT, "rank %d exceeds d_in %d", rank, d_in);
// Control characters and broken UTF-8 in the result are escaped.
sora_status sora_fail(struct sora_error *err, sora_status code, const char *format, ...)
    SORA_PRINTF(3, 4);

// Puts "prefix: " before the text of a failure on its way up, and returns its code.
sora_status sora_fail_within(struct sora_error *err, sora_status code, const char *format, ...)
    SORA_PRINTF(3, 4);

#endif
