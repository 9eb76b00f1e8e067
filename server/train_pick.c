// SPDX-License-Identifier: Apache-2.0
// See train_pick.h.
#include "server/train_pick.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/cli_report.h"

#define SMALLEST "smallest-within"
#define WITHIN_DEFAULT 0.005

static sora_status fail_pick(const char *text, struct sora_error *err)
{
    return sora_fail(err, SORA_MALFORMED,
                     "pick: \"%.64s\" is none of last, best, \"smallest-within P%%\" with P from 0 "
                     "to 100",
                     text);
}

sora_status train_pick_parse(const char *text, struct train_pick *pick, struct sora_error *err)
{
    const size_t prefix = strlen(SMALLEST);
    *pick = (struct train_pick){.rule = TRAIN_PICK_LAST};
    if (strcmp(text, "last") == 0)
        return SORA_OK;
    pick->rule = strcmp(text, "best") == 0 ? TRAIN_PICK_BEST : TRAIN_PICK_SMALLEST;
    if (pick->rule == TRAIN_PICK_BEST)
        return SORA_OK;
    pick->within = WITHIN_DEFAULT;
    if (strcmp(text, SMALLEST) == 0)
        return SORA_OK;
    if (strncmp(text, SMALLEST, prefix) != 0 || strchr(" =:", text[prefix]) == NULL)
        return fail_pick(text, err);
    char *end;
    const char *share = text + prefix + 1;
    const double percent = strtod(share, &end);
    if (end == share || strcmp(end, "%") != 0 || !(percent >= 0.0 && percent <= 100.0))
        return fail_pick(text, err);
    pick->within = percent / 100.0;
    return SORA_OK;
}

char **train_pick_join(int *argc, char **argv, char **joined)
{
    *joined = NULL;
    const int words = *argc;
    char **copy = calloc((size_t)words + 1, sizeof(copy[0]));
    if (copy == NULL)
        return NULL;
    int count = 0;
    for (int i = 0; i < words; i++) {
        copy[count++] = argv[i];
        const bool splits = *joined == NULL && i > 1 && i + 1 < words &&
                            strcmp(argv[i - 1], "--pick") == 0 && strcmp(argv[i], SMALLEST) == 0 &&
                            argv[i + 1][0] >= '0' && argv[i + 1][0] <= '9';
        if (!splits)
            continue;
        if (asprintf(joined, "%s %s", argv[i], argv[i + 1]) < 0) {
            *joined = NULL;
            free(copy);
            return NULL;
        }
        copy[count - 1] = *joined;
        i++;
    }
    *argc = count;
    return copy;
}

static double rung_value(const struct sora_train_rung *rung, enum sora_metric metric)
{
    return rung->has_eval ? sora_metric_value(metric, &rung->eval) : rung->loss;
}

static bool rung_rises(const struct sora_train_rung *rung, enum sora_metric metric)
{
    return rung->has_eval && sora_metric_rises(sora_metric_resolve(metric, &rung->eval));
}

int32_t train_pick_choose(const struct train_pick *pick, enum sora_metric metric,
                          const struct sora_train_rung *rungs, int32_t count)
{
    if (pick->rule == TRAIN_PICK_LAST)
        return count - 1;
    const double sign = rung_rises(&rungs[0], metric) ? 1.0 : -1.0;
    int32_t best = 0;
    for (int32_t i = 1; i < count; i++) {
        const double gain =
            sign * (rung_value(&rungs[i], metric) - rung_value(&rungs[best], metric));
        if (gain > 0.0 || (gain == 0.0 && rungs[i].parameters < rungs[best].parameters))
            best = i;
    }
    if (pick->rule == TRAIN_PICK_BEST)
        return best;
    const double top = rung_value(&rungs[best], metric);
    int32_t smallest = best;
    for (int32_t i = 0; i < count; i++) {
        const double lost = sign * (top - rung_value(&rungs[i], metric));
        if (lost <= pick->within * fabs(top) && rungs[i].parameters < rungs[smallest].parameters)
            smallest = i;
    }
    return smallest;
}

// "a" of "a.safetensors"; other names stay whole.
static int stem_bytes(const char *out)
{
    const char *end = strrchr(out, '.');
    const bool known = end != NULL && strcmp(end, ".safetensors") == 0;
    return (int)(known ? (size_t)(end - out) : strlen(out));
}

char *train_ladder_path(const char *out, int32_t stage)
{
    char *path;
    return asprintf(&path, "%.*s.xi-%04d.safetensors", stem_bytes(out), out, stage + 1) < 0 ? NULL
                                                                                            : path;
}

char *train_ladder_svg_path(const char *out)
{
    char *path;
    return asprintf(&path, "%.*s.ladder.svg", stem_bytes(out), out) < 0 ? NULL : path;
}

static const char *value_name(const struct train_ladder *ladder)
{
    const struct sora_train_rung *rung = &ladder->rungs[0];
    return rung->has_eval ? sora_metric_name(sora_metric_resolve(ladder->metric, &rung->eval))
                          : "training loss";
}

void train_ladder_print(const struct train_ladder *ladder, FILE *out)
{
    struct cli_table table;
    char count[32];
    cli_table_init(&table, 8, 0x3f);
    const char *const heads[] = {"stage", "xi", "parameters", "kept", "ranks"};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        cli_table_add(&table, "%s", heads[i]);
    cli_table_add(&table, "%s", value_name(ladder));
    cli_table_add(&table, "%s", "file");
    cli_table_add(&table, "%s", "");
    for (int32_t i = 0; i < ladder->count; i++) {
        const struct sora_train_rung *rung = &ladder->rungs[i];
        char *path = train_ladder_path(ladder->out, rung->stage);
        cli_table_add(&table, "%d", rung->stage + 1);
        cli_table_add(&table, "%.4g", rung->xi);
        cli_table_add(&table, "%s", cli_print_count(count, rung->parameters));
        cli_table_add(&table, "%.1f %%", 100 * rung->kept);
        cli_table_add(&table, "%lld", (long long)rung->gates_kept);
        cli_table_add(&table, "%.4f", rung_value(rung, ladder->metric));
        cli_table_add(&table, "%s", path != NULL ? path : "?");
        cli_table_add(&table, "%s", i == ladder->picked ? "<- picked" : "");
        free(path);
    }
    cli_table_print(&table, out);
    cli_table_deinit(&table);
}

void train_ladder_json(const struct train_ladder *ladder, struct buf *out)
{
    buf_text(out, ",\"stages\":[");
    for (int32_t i = 0; i < ladder->count; i++) {
        const struct sora_train_rung *rung = &ladder->rungs[i];
        char *path = train_ladder_path(ladder->out, rung->stage);
        buf_printf(out, "%s{\"stage\":%d", i > 0 ? "," : "", rung->stage + 1);
        cli_report_number(out, "xi", rung->xi);
        cli_report_count(out, "steps", rung->steps);
        cli_report_number(out, "seconds", rung->seconds);
        cli_report_number(out, "loss", rung->loss);
        cli_report_count(out, "parameters", rung->parameters);
        cli_report_number(out, "kept", rung->kept);
        cli_report_count(out, "ranks", rung->gates_kept);
        cli_report_text(out, "out", path != NULL ? path : "");
        if (rung->has_eval) {
            buf_text(out, ",\"eval\":");
            cli_report_eval_json(out, &rung->eval);
        }
        buf_text(out, "}");
        free(path);
    }
    buf_text(out, "]");
    cli_report_count(out, "picked", ladder->picked + 1);
    char *svg = train_ladder_svg_path(ladder->out);
    cli_report_text(out, "ladder", svg != NULL ? svg : "");
    free(svg);
}

enum {
    SVG_WIDTH = 720,
    SVG_HEIGHT = 440,
    SVG_LEFT = 84,
    SVG_RIGHT = 28,
    SVG_TOP = 56,
    SVG_BOTTOM = 66
};

struct svg_axis {
    double low, high, step;
    double from, to; // pixels of low and high
};

// About five round steps (1, 2 or 5 times a power of ten) that hold all values.
static struct svg_axis make_axis(double low, double high, double from, double to)
{
    const double span = high > low ? high - low : fmax(fabs(high) * 0.1, 1e-3);
    const double power = pow(10.0, floor(log10(span / 5.0)));
    const double part = span / 5.0 / power;
    const double step = power * (part <= 1.0 ? 1.0 : part <= 2.0 ? 2.0 : part <= 5.0 ? 5.0 : 10.0);
    struct svg_axis axis = {.step = step, .from = from, .to = to};
    axis.low = step * floor((low - (high > low ? 0.0 : step)) / step);
    axis.high = step * ceil((high + (high > low ? 0.0 : step)) / step);
    return axis;
}

static double place(const struct svg_axis *axis, double value)
{
    return axis->from + (value - axis->low) / (axis->high - axis->low) * (axis->to - axis->from);
}

static void draw_axes(struct buf *out, const struct svg_axis *x, const struct svg_axis *y,
                      const char *name)
{
    for (double v = x->low; v < x->high + 0.5 * x->step; v += x->step)
        buf_printf(out,
                   "<line x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f' class='grid'/>"
                   "<text x='%.1f' y='%d' text-anchor='middle'>%.4g %%</text>\n",
                   place(x, v), y->from, place(x, v), y->to, place(x, v),
                   SVG_HEIGHT - SVG_BOTTOM + 20, v);
    for (double v = y->low; v < y->high + 0.5 * y->step; v += y->step)
        buf_printf(out,
                   "<line x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f' class='grid'/>"
                   "<text x='%d' y='%.1f' text-anchor='end'>%.4g</text>\n",
                   x->from, place(y, v), x->to, place(y, v), SVG_LEFT - 8, place(y, v) + 4,
                   fabs(v) < 1e-12 ? 0.0 : v);
    buf_printf(out,
               "<text x='%.1f' y='%d' text-anchor='middle' class='name'>parameters kept</text>\n",
               0.5 * (x->from + x->to), SVG_HEIGHT - 18);
    buf_printf(out,
               "<text transform='translate(22 %.1f) rotate(-90)' text-anchor='middle' "
               "class='name'>%s</text>\n",
               0.5 * (y->from + y->to), name);
}

static void draw_points(const struct train_ladder *ladder, struct buf *out,
                        const struct svg_axis *x, const struct svg_axis *y)
{
    buf_text(out, "<polyline class='curve' points='");
    for (int32_t i = 0; i < ladder->count; i++)
        buf_printf(out, "%.1f,%.1f ", place(x, 100 * ladder->rungs[i].kept),
                   place(y, rung_value(&ladder->rungs[i], ladder->metric)));
    buf_text(out, "'/>\n");
    for (int32_t i = 0; i < ladder->count; i++) {
        const struct sora_train_rung *rung = &ladder->rungs[i];
        const double value = rung_value(rung, ladder->metric);
        const double px = place(x, 100 * rung->kept), py = place(y, value);
        const bool picked = i == ladder->picked;
        if (picked)
            buf_printf(out, "<circle cx='%.1f' cy='%.1f' r='10' class='ring'/>\n", px, py);
        // Labels change sides, so that those of neighbours do not lie on each other.
        buf_printf(out,
                   "<circle cx='%.1f' cy='%.1f' r='5' class='%s'><title>stage %d, xi %.4g: "
                   "%lld parameters, %s %.4f</title></circle>"
                   "<text x='%.1f' y='%.1f' text-anchor='middle' class='label'>%.3g</text>\n",
                   px, py, picked ? "picked" : "point", rung->stage + 1, rung->xi,
                   (long long)rung->parameters, value_name(ladder), value, px,
                   i % 2 == 0 ? py - 15 : py + 25, rung->xi);
    }
}

void train_ladder_svg(const struct train_ladder *ladder, struct buf *out)
{
    double low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
    for (int32_t i = 0; i < ladder->count; i++) {
        const double point[2] = {100 * ladder->rungs[i].kept,
                                 rung_value(&ladder->rungs[i], ladder->metric)};
        for (int32_t k = 0; k < 2; k++) {
            low[k] = fmin(low[k], point[k]);
            high[k] = fmax(high[k], point[k]);
        }
    }
    const struct svg_axis x = make_axis(low[0], high[0], SVG_LEFT, SVG_WIDTH - SVG_RIGHT);
    const struct svg_axis y = make_axis(low[1], high[1], SVG_HEIGHT - SVG_BOTTOM, SVG_TOP);
    const struct sora_train_rung *picked = &ladder->rungs[ladder->picked];
    buf_printf(out,
               "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' width='%d' "
               "height='%d' font-family='sans-serif' font-size='12' fill='#333'>\n"
               "<style>.grid{stroke:#ddd}.curve{fill:none;stroke:#2a6f97;stroke-width:2}"
               ".point{fill:#2a6f97}.picked{fill:#d1495b}.ring{fill:none;stroke:#d1495b;"
               "stroke-width:2}.label{fill:#666;font-size:11px}.name{font-size:13px}</style>\n"
               "<rect width='100%%' height='100%%' fill='#fff'/>\n"
               "<text x='%d' y='24' font-size='15' font-weight='bold'>Quality against size</text>"
               "<text x='%d' y='42'>each point is a stage, marked with its xi; picked: stage %d, "
               "%lld parameters</text>\n",
               SVG_WIDTH, SVG_HEIGHT, SVG_WIDTH, SVG_HEIGHT, SVG_LEFT, SVG_LEFT, picked->stage + 1,
               (long long)picked->parameters);
    draw_axes(out, &x, &y, value_name(ladder));
    draw_points(ladder, out, &x, &y);
    buf_text(out, "</svg>\n");
}
