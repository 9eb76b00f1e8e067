// SPDX-License-Identifier: Apache-2.0
// The record of who changed which adapter, in the catalog (sora/access.h). A change is noted before
// it is made and again with its outcome: whatever a crash leaves done was noted as begun. HTTP
// workers, and the main thread at the start.
#ifndef SERVER_AUDIT_H
#define SERVER_AUDIT_H

#include "server/server.h"

struct audit_change {
    const char *action; // "adapter.publish", ...
    const char *stored; // the adapter's name in the store
    int32_t version;    // 0: not known yet, or none
    const char *digest; // of the file that comes, goes, or is gone back to; NULL: not known
};
// `call` NULL: what the command line asked for. A change whose beginning cannot be noted must not
// be made.
SORA_CHECKED sora_status audit_begin(struct server *server, const struct http_call *call,
                                     const struct audit_change *change, struct sora_audit *record,
                                     struct sora_error *err);
// entry: what the change left as version and digest; NULL: as they were noted at the beginning.
// cause: of a status that is not OK.
void audit_end(struct server *server, struct sora_audit *record, sora_status status,
               const struct sora_store_entry *entry, const struct sora_error *cause);
// A change that was refused before it began.
void audit_refused(struct server *server, const struct http_call *call, const char *action,
                   const char *stored, const char *why);

// {"number":1,...}
void audit_encode(const struct sora_audit *record, struct buf *out);

#endif
