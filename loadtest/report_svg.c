// SPDX-License-Identifier: Apache-2.0
// Axes, lines and bars of the reports' pictures. Pure; any thread.
#include "loadtest/report_svg.h"

#include <math.h>
#include <string.h>

#include "base/assert.h"

#define TICKS_MAX 40 // of one axis; a bound for loops, not a wish
#define LABEL_ROW 13 // height of a row of labels above the plot
#define LETTER 7     // width of a letter, about

static double fraction(const struct svg_axis *axis, double value)
{
    double share = axis->log ? log(fmax(value, axis->min) / axis->min) / log(axis->max / axis->min)
                             : (value - axis->min) / (axis->max - axis->min);
    return share < 0 ? 0 : share > 1 ? 1 : share;
}

double svg_x(const struct svg_plot *plot, double value)
{
    return plot->left + fraction(&plot->x, value) * (plot->width - plot->left - plot->right);
}

double svg_y(const struct svg_plot *plot, double value)
{
    double height = plot->height - plot->top - plot->bottom;
    return plot->height - plot->bottom - fraction(&plot->y, value) * height;
}

// The 1-2-5 step that cuts a range into about `pieces`.
static double nice_step(double range, int pieces)
{
    double raw = range / pieces, power = pow(10, floor(log10(raw)));
    double lead = raw / power;
    return power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
}

struct svg_axis svg_axis_from_zero(double max, const char *(*format)(char *, double))
{
    double top = isfinite(max) && max > 1e-9 ? max : 1; // foreign figures may be denormal
    double step = nice_step(top, 4);
    return (struct svg_axis){.min = 0, .max = ceil(top / step - 1e-9) * step, .format = format};
}

struct svg_axis svg_axis_log(double min, double max, const char *(*format)(char *, double))
{
    double low = fmax(min, 1), high = fmax(max, low);
    if (high < 2 * low) {
        low /= 1.5;
        high *= 1.5;
    }
    return (struct svg_axis){.min = low * 0.97, .max = high * 1.03, .log = true, .format = format};
}

// The values of an axis that get a mark; returns how many.
static int ticks_of(const struct svg_axis *axis, int pieces, double out[TICKS_MAX])
{
    int count = 0;
    if (!axis->log) {
        double unit = axis->unit > 0 ? axis->unit : 1;
        double step = nice_step((axis->max - axis->min) / unit, pieces) * unit;
        double first = ceil(axis->min / step - 1e-9);
        for (; (first + count) * step <= axis->max * (1 + 1e-9) && count < TICKS_MAX; ++count)
            out[count] = (first + count) * step;
        return count;
    }
    static const double leads[] = {1, 2, 5};
    int used = log10(axis->max / axis->min) > 2.2 ? 1 : 3;
    for (double power = pow(10, floor(log10(axis->min))); power <= axis->max; power *= 10)
        for (int i = 0; i < used && count < TICKS_MAX; ++i)
            if (power * leads[i] >= axis->min && power * leads[i] <= axis->max)
                out[count++] = power * leads[i];
    return count;
}

static void put_x_axis(const struct svg_plot *plot)
{
    double ticks[TICKS_MAX], bottom = plot->height - plot->bottom;
    double free_from = 0; // where the last label ends
    int count = ticks_of(&plot->x, (int)(plot->width / 110), ticks);
    for (int i = 0; i < count; ++i) {
        char label[REPORT_FIGURE_BYTES];
        double x = svg_x(plot, ticks[i]);
        double half = LETTER / 2.0 * (double)strlen(plot->x.format(label, ticks[i]));
        if (x - half < free_from || x + half > plot->width) {
            buf_printf(plot->out, "<path class=tick d=\"M%.1f %.1fv4\"/>", x, bottom);
            continue;
        }
        free_from = x + half + LETTER;
        buf_printf(plot->out,
                   "<path class=tick d=\"M%.1f %.1fv4\"/><text x=%.1f y=%.1f "
                   "text-anchor=middle>%s</text>",
                   x, bottom, x, bottom + 17, label);
    }
    buf_printf(plot->out, "<path class=base d=\"M%.1f %.1fH%.1f\"/>\n", plot->left, bottom,
               plot->width - plot->right);
}

static void put_y_axis(const struct svg_plot *plot)
{
    double ticks[TICKS_MAX];
    int count = ticks_of(&plot->y, 4, ticks);
    for (int i = 0; i < count; ++i) {
        char label[REPORT_FIGURE_BYTES];
        double y = svg_y(plot, ticks[i]);
        buf_printf(plot->out,
                   "<path class=grid d=\"M%.1f %.1fH%.1f\"/><text x=%.1f y=%.1f "
                   "text-anchor=end>%s</text>",
                   plot->left, y, plot->width - plot->right, plot->left - 7, y + 4,
                   plot->y.format(label, ticks[i]));
    }
}

void svg_begin(const struct svg_plot *plot, const char *label)
{
    ASSERT(plot->x.max > plot->x.min && plot->y.max > plot->y.min);
    buf_printf(plot->out, "<svg viewBox=\"0 0 %.0f %.0f\" role=img aria-label=\"%s\">\n",
               plot->width, plot->height, label);
    if (plot->y.format != NULL)
        put_y_axis(plot);
    put_x_axis(plot);
}

void svg_end(const struct svg_plot *plot)
{
    buf_text(plot->out, "</svg>\n");
}

void svg_line_begin(struct svg_line *line, const struct svg_plot *plot, const char *css)
{
    *line = (struct svg_line){.plot = plot};
    buf_printf(plot->out, "<path class=\"line %s\" d=\"", css);
}

void svg_line_point(struct svg_line *line, double x, double y)
{
    // A line of no length makes its round ends a dot.
    buf_printf(line->plot->out, line->drawing ? "L%.1f %.1f" : "M%.1f %.1fh0", svg_x(line->plot, x),
               svg_y(line->plot, y));
    line->drawing = true;
}

void svg_line_gap(struct svg_line *line)
{
    line->drawing = false;
}

void svg_line_end(struct svg_line *line)
{
    buf_text(line->plot->out, "\"/>\n");
}

void svg_bar(const struct svg_plot *plot, const char *css, double x0, double x1, double y0,
             double y1)
{
    double left = svg_x(plot, x0), width = svg_x(plot, x1) - left;
    double top = svg_y(plot, y1), height = svg_y(plot, y0) - top;
    double gap = width > 6 ? 1.5 : width * 0.2;
    if (height > 0)
        buf_printf(plot->out, "<rect class=%s x=%.2f y=%.2f width=%.2f height=%.2f />", css,
                   left + gap / 2, top, width - gap, height);
}

void svg_rule(const struct svg_plot *plot, const char *css, double x, const char *label, int row)
{
    double at = svg_x(plot, x), top = label != NULL ? LABEL_ROW * (row + 1) - 9 : plot->top;
    // The label goes to the side with room.
    bool right = label != NULL && at + 5 + LETTER * (double)strlen(label) > plot->width;
    buf_printf(plot->out, "<path class=\"rule %s\" d=\"M%.1f %.1fV%.1f\"/>", css, at, top,
               plot->height - plot->bottom);
    if (label != NULL)
        buf_printf(plot->out, "<text class=note x=%.1f y=%.1f text-anchor=%s>%s</text>\n",
                   right ? at - 5 : at + 5, top + 9, right ? "end" : "start", label);
}

void svg_hover_begin(const struct svg_plot *plot, double x0, double x1)
{
    double left = svg_x(plot, x0), width = svg_x(plot, x1) - left;
    buf_printf(plot->out, "<rect class=hover x=%.1f y=%.1f width=%.1f height=%.1f><title>", left,
               plot->top, width, plot->height - plot->top - plot->bottom);
}

void svg_hover_end(const struct svg_plot *plot)
{
    buf_text(plot->out, "</title></rect>\n");
}

void svg_bins_add(struct svg_bins *bins, const struct svg_axis *x, double low, double high,
                  double count)
{
    double from = fraction(x, low) * SVG_BINS, to = fraction(x, high) * SVG_BINS;
    int first = from >= SVG_BINS ? SVG_BINS - 1 : (int)from;
    for (int i = first; i < SVG_BINS && i < to; ++i) {
        double overlap = fmin(to, i + 1) - fmax(from, i);
        bins->share[i] += to > from ? count * overlap / (to - from) : 0;
    }
    if (to <= from) // a width of zero on the axis: beyond one of its ends
        bins->share[first] += count;
}

void svg_bins_finish(struct svg_bins *bins, double total)
{
    for (int i = 0; i < SVG_BINS; ++i) {
        bins->share[i] = total > 0 ? bins->share[i] / total : 0;
        bins->max = fmax(bins->max, bins->share[i]);
    }
}
