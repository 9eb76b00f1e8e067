// SPDX-License-Identifier: Apache-2.0
// See audit.h.
#include "server/audit.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

static void fill(const struct http_call *call, const struct audit_change *change,
                 const char *outcome, struct sora_audit *record)
{
    *record = (struct sora_audit){.number = 0};
    snprintf(record->key_id, sizeof record->key_id, "%s",
             call != NULL ? call->caller.key_id : "operator");
    if (call != NULL) {
        snprintf(record->tenant, sizeof record->tenant, "%s", call->caller.tenant);
        snprintf(record->request_id, sizeof record->request_id, "%s", call->request_id);
    }
    snprintf(record->action, sizeof record->action, "%s", change->action);
    snprintf(record->object, sizeof record->object, "%.*s", SORA_STORED_NAME_BYTES_MAX,
             change->stored);
    record->version = change->version;
    if (change->digest != NULL)
        snprintf(record->digest, sizeof record->digest, "%s", change->digest);
    snprintf(record->outcome, sizeof record->outcome, "%.*s", SORA_AUDIT_OUTCOME_BYTES_MAX,
             outcome);
}

// Notes what has been decided already: failing is for the operator's log only.
static void note(struct server *server, struct sora_audit *record)
{
    struct sora_error err;
    char quoted[LOG_QUOTE_BYTES];
    if (sora_access_add_audit(auth_access(server->auth), record, &err) != SORA_OK)
        log_error("audit", "lost", "action=%s request=%s outcome=\"%.40s\" error=%s",
                  record->action, record->request_id, record->outcome, log_quote(quoted, err.text));
}

sora_status audit_begin(struct server *server, const struct http_call *call,
                        const struct audit_change *change, struct sora_audit *record,
                        struct sora_error *err)
{
    fill(call, change, "begun", record);
    sora_status status = sora_access_add_audit(auth_access(server->auth), record, err);
    return status == SORA_OK
               ? status
               : sora_fail_within(err, status, "the change cannot be recorded, so it is not made");
}

void audit_end(struct server *server, struct sora_audit *record, sora_status status,
               const struct sora_store_entry *entry, const struct sora_error *cause)
{
    if (status == SORA_OK && entry != NULL) {
        record->version = entry->version;
        memcpy(record->digest, entry->digest, sizeof record->digest);
    }
    snprintf(record->outcome, sizeof record->outcome, "%.*s", SORA_AUDIT_OUTCOME_BYTES_MAX,
             status == SORA_OK ? "done" : cause->text);
    note(server, record);
}

void audit_refused(struct server *server, const struct http_call *call, const char *action,
                   const char *stored, const char *why)
{
    struct sora_audit record;
    struct audit_change change = {.action = action, .stored = stored};
    fill(call, &change, why, &record);
    note(server, &record);
}
