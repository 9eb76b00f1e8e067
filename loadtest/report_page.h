// SPDX-License-Identifier: Apache-2.0
// The frame of an HTML report: head with its style, title, tiles, legends. Everything is in the
// one file, light or dark as the reader's system says. Pure; any thread.
#ifndef LOADTEST_REPORT_PAGE_H
#define LOADTEST_REPORT_PAGE_H

#include "base/buf.h"

// Titles may be foreign text; NULL subtitle: none.
void report_page_begin(struct buf *out, const char *title, const char *subtitle);
void report_page_end(struct buf *out);
// A section with its heading and an explaining line (both ours; NULL note: none).
void report_section_begin(struct buf *out, const char *heading, const char *note);
void report_section_end(struct buf *out);
// One large figure with a name above and a smaller line below (NULL: none). All ours.
void report_tile(struct buf *out, const char *name, const char *figure, const char *detail);
// A swatch of the class's colour with its name (foreign text possible).
void report_legend(struct buf *out, const char *css, const char *name);

#endif
