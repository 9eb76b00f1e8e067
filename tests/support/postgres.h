// SPDX-License-Identifier: Apache-2.0
// A PostgreSQL of a test's own: in a temporary folder, on a Unix socket in it, as an unprivileged
// user when the test is root's (PostgreSQL refuses to be). It ends with the test program, also when
// that crashes. Clusters of the machine are left alone.
#ifndef SUPPORT_POSTGRES_H
#define SUPPORT_POSTGRES_H

struct postgres;

// Makes and starts one; NULL when PostgreSQL is not installed. Fails the test otherwise.
struct postgres *postgres_create(void);
void postgres_destroy(struct postgres *postgres); // accepts NULL
void postgres_stop(struct postgres *postgres);    // connections are closed at once
void postgres_start(struct postgres *postgres);
// The URL of a schema of its own in the one database, malloc'ed; it must be made first.
char *postgres_url(const struct postgres *postgres, const char *schema);

#endif
