// SPDX-License-Identifier: Apache-2.0
// Results that more than one subcommand prints, as JSON members and as rows of a table. Main
// thread only.
#ifndef SERVER_CLI_REPORT_H
#define SERVER_CLI_REPORT_H

#include "base/buf.h"
#include "server/cli_print.h"
#include "sora/adapter.h"
#include "sora/train.h"

// ,"key":value; a value that is not finite is left out, since JSON has no word for it.
void cli_report_number(struct buf *out, const char *key, double value);
void cli_report_count(struct buf *out, const char *key, int64_t value);
void cli_report_text(struct buf *out, const char *key, const char *value);

// The object of API.md's `eval`, with the measures that the data allowed.
void cli_report_eval_json(struct buf *out, const struct sora_eval_result *result);
// Two cells for each measure, into a table of two columns.
void cli_report_eval_rows(struct cli_table *table, const struct sora_eval_result *result);

// What import and export say about the adapter they wrote to `out`.
SORA_CHECKED sora_status cli_report_written(const char *out, const struct sora_adapter_info *info,
                                            bool json, bool quiet, struct sora_error *err);

// Prints the finished JSON text as one line on standard output and frees the buffer.
SORA_CHECKED sora_status cli_report_print(struct buf *out, struct sora_error *err);

#endif
