// SPDX-License-Identifier: Apache-2.0
// Pictures as SVG inside an HTML page: a plot with axes, and the marks drawn into it. Colours are
// CSS classes of report_page.c, so that light and dark follow the reader. Pure; any thread.
#ifndef LOADTEST_REPORT_SVG_H
#define LOADTEST_REPORT_SVG_H

#include <stdbool.h>

#include "base/buf.h"
#include "loadtest/report_text.h"

struct svg_axis {
    double min, max; // max > min; min > 0 when log
    bool log;
    double unit; // marks are round in this unit; 0: 1
    const char *(*format)(char out[REPORT_FIGURE_BYTES], double value); // of the marks' labels
};

struct svg_plot {
    struct buf *out;
    struct svg_axis x, y;
    double width, height;            // of the picture in its own units
    double left, right, top, bottom; // margins around the plot
};

// Opens the picture and draws the axes. label: what a reader who cannot see it is told (ours).
void svg_begin(const struct svg_plot *plot, const char *label);
void svg_end(const struct svg_plot *plot);
double svg_x(const struct svg_plot *plot, double value); // clamped into the plot
double svg_y(const struct svg_plot *plot, double value);

// A line through points; a gap where one is missing, a dot where it stands alone.
struct svg_line {
    const struct svg_plot *plot;
    bool drawing;
};
void svg_line_begin(struct svg_line *line, const struct svg_plot *plot, const char *css);
void svg_line_point(struct svg_line *line, double x, double y);
void svg_line_gap(struct svg_line *line);
void svg_line_end(struct svg_line *line);

// A bar from value y0 up to y1 between values x0 and x1.
void svg_bar(const struct svg_plot *plot, const char *css, double x0, double x1, double y0,
             double y1);
// A vertical line at x over the whole height, with an optional label on the given row (0: topmost).
void svg_rule(const struct svg_plot *plot, const char *css, double x, const char *label, int row);
// An invisible bar over the whole height that shows text to the pointer; text is opened and closed
// by the caller's own writing between the two calls.
void svg_hover_begin(const struct svg_plot *plot, double x0, double x1);
void svg_hover_end(const struct svg_plot *plot);

// An axis that starts at 0 and ends at a round value above `max`.
struct svg_axis svg_axis_from_zero(double max, const char *(*format)(char *, double));
// A logarithmic one around [min, max], at least a factor of 2 wide.
struct svg_axis svg_axis_log(double min, double max, const char *(*format)(char *, double));

// A distribution over a logarithmic x axis, as shares of all values in `bins` bars.
#define SVG_BINS 48
struct svg_bins {
    double share[SVG_BINS];
    double max;
};
// Adds `count` values of [low, high) to the bars that they overlap.
void svg_bins_add(struct svg_bins *bins, const struct svg_axis *x, double low, double high,
                  double count);
void svg_bins_finish(struct svg_bins *bins, double total);

#endif
