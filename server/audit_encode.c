// SPDX-License-Identifier: Apache-2.0
// A record of a change as JSON, for the route and for `keys audit`. Pure.
#include <string.h>

#include "server/audit.h"

static void encode_text(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, ",\"%s\":", name);
    if (text[0] != '\0')
        buf_json_string(out, text, strlen(text));
    else
        buf_text(out, "null");
}

void audit_encode(const struct sora_audit *record, struct buf *out)
{
    buf_printf(out, "{\"number\":%lld,\"time\":%lld", (long long)record->number,
               (long long)record->time_s);
    encode_text(out, "key", record->key_id);
    encode_text(out, "tenant", record->tenant);
    encode_text(out, "request", record->request_id);
    encode_text(out, "action", record->action);
    encode_text(out, "object", record->object);
    if (record->version > 0)
        buf_printf(out, ",\"version\":%d", (int)record->version);
    else
        buf_text(out, ",\"version\":null");
    encode_text(out, "digest", record->digest);
    encode_text(out, "outcome", record->outcome);
    buf_text(out, "}");
}
