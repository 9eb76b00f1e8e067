// SPDX-License-Identifier: Apache-2.0
// The catalog in a PostgreSQL that several servers share. Owned by a store or a sora_access, which
// lets one thread in at a time.
#include "adapters/catalog_postgres.h"

#include <stdlib.h>
#include <string.h>

#include "base/secret.h"

static void free_secret(char *text)
{
    if (text != NULL)
        secret_wipe(text, strlen(text));
    free(text);
}

static void close_catalog(struct catalog *catalog)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    if (c == NULL)
        return;
    catalog_postgres_disconnect(c);
    free_secret(c->url);
    free_secret(c->password);
    free(c);
}

sora_status catalog_postgres_open(const char *url, bool create, struct catalog **catalog,
                                  struct sora_error *err)
{
    static const struct catalog_ops ops = {
        .close = close_catalog,
        .put = catalog_postgres_put,
        .activate = catalog_postgres_activate,
        .pin = catalog_postgres_pin,
        .remove = catalog_postgres_remove,
        .list = catalog_postgres_list,
        .uses = catalog_postgres_uses,
        .add_key = catalog_postgres_add_key,
        .revoke_key = catalog_postgres_revoke_key,
        .list_keys = catalog_postgres_list_keys,
        .set_limits = catalog_postgres_set_limits,
        .list_limits = catalog_postgres_list_limits,
        .stamp = catalog_postgres_stamp,
        .add_audit = catalog_postgres_add_audit,
        .list_audit = catalog_postgres_list_audit,
        .stored = catalog_postgres_stored,
        .fetch = catalog_postgres_fetch,
        .changes = catalog_postgres_changes,
        .wait = catalog_postgres_wait,
    };
    *catalog = NULL;
    struct catalog_postgres *c = calloc(1, sizeof *c);
    if (c == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the catalog");
    c->base.ops = &ops;
    c->create = create;
    sora_status status = catalog_postgres_read_url(c, url, err);
    if (status == SORA_OK)
        status = catalog_postgres_connect(c, err);
    if (status != SORA_OK) {
        close_catalog(&c->base);
        return status;
    }
    *catalog = &c->base;
    return SORA_OK;
}
