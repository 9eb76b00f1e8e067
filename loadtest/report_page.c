// SPDX-License-Identifier: Apache-2.0
// Style and frame of the HTML reports. Pure; any thread.
#include "loadtest/report_page.h"

#include "loadtest/report_text.h"

// c1..c8 tell runs and kinds apart (neighbours differ for colour-blind readers too); q1..q3 are one
// hue from weak to strong, for p50, p95, p99.
#define LIGHT                                                                                   \
    "--page:#f9f9f7;--card:#fcfcfb;--ink:#0b0b0b;--soft:#52514e;--grid:#e6e5df;--axis:#b5b4ac;" \
    "--c1:#2a78d6;--c2:#eb6834;--c3:#1baf7a;--c4:#eda100;--c5:#4a3aa7;--c6:#e34948;"            \
    "--c7:#e87ba4;--c8:#008300;--q1:#86b6ef;--q2:#2a78d6;--q3:#104281;--bad:#d03b3b;"           \
    "--good:#006300;--warn:#fdf1d3;--warnline:#eda100;"
#define DARK                                                                                 \
    "--page:#0d0d0d;--card:#1a1a19;--ink:#fff;--soft:#c3c2b7;--grid:#2e2e2b;--axis:#5a5953;" \
    "--c1:#3987e5;--c2:#d95926;--c3:#199e70;--c4:#c98500;--c5:#9085e9;--c6:#e66767;"         \
    "--c7:#d55181;--c8:#3aa83a;--q1:#256abf;--q2:#5598e7;--q3:#b7d3f6;--bad:#e66767;"        \
    "--good:#0ca30c;--warn:#3a2f12;--warnline:#c98500;"

static const char style[] =
    ":root{color-scheme:light dark;" LIGHT "}\n"
    "@media(prefers-color-scheme:dark){:root{" DARK "}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;max-width:1080px;padding:28px 20px 60px;background:var(--page);"
    "color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif}\n"
    "h1{font-size:25px;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}\n"
    "h2{font-size:17px;margin:0}h3{font-size:14px;margin:14px 0 2px}\n"
    ".sub,.note2{color:var(--soft);margin:0;overflow-wrap:anywhere}.note2{font-size:13px}\n"
    "section{background:var(--card);border:1px solid var(--grid);border-radius:8px;"
    "padding:16px 18px;margin-top:16px}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(128px,1fr));gap:12px;"
    "margin-top:18px}\n"
    ".tile{background:var(--card);border:1px solid var(--grid);border-radius:8px;"
    "padding:10px 14px}\n"
    ".tile b{display:block;font-size:24px;font-weight:600;line-height:1.3}\n"
    ".tile span{color:var(--soft);font-size:13px}\n"
    ".warn{background:var(--warn);border:1px solid var(--warnline);border-radius:8px;"
    "padding:10px 14px;margin-top:16px}\n"
    ".trio{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:18px}\n"
    "svg{display:block;width:100%;height:auto;overflow:visible;margin-top:4px}\n"
    "svg text{fill:var(--soft);font-size:12px;font-variant-numeric:tabular-nums}"
    "svg .note{fill:var(--ink);paint-order:stroke;stroke:var(--card);stroke-width:4px}\n"
    ".grid{stroke:var(--grid);fill:none}.base,.tick{stroke:var(--axis);fill:none}\n"
    ".line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\n"
    ".rule{fill:none;stroke-width:1.5}.churn{stroke-width:1.2;stroke-opacity:.75}\n"
    ".faint{stroke:var(--soft);stroke-opacity:.55}\n"
    ".limit{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:5 4;fill:none}\n"
    ".hover{fill:transparent}.hover:hover{fill:var(--ink);fill-opacity:.07}\n"
    ".legend{display:inline-flex;align-items:center;gap:6px;margin-right:16px;font-size:13px;"
    "color:var(--soft)}\n"
    ".legend svg{width:14px;height:10px;margin:0;display:inline-block}\n"
    ".scroll{overflow-x:auto}\n"
    "table{border-collapse:collapse;width:100%;margin-top:8px;font-size:14px;"
    "font-variant-numeric:tabular-nums}\n"
    "th,td{text-align:right;padding:4px 10px;border-bottom:1px solid var(--grid);"
    "white-space:nowrap}\n"
    "th{color:var(--soft);font-weight:500}th:first-child,td:first-child{text-align:left;"
    "padding-left:0}\n"
    "td.ratio{color:var(--soft);padding-left:0;font-size:13px;text-align:left;width:1%}\n"
    "td.text{text-align:left;white-space:normal;overflow-wrap:anywhere}\n"
    "td.name{max-width:260px;overflow:hidden;text-overflow:ellipsis}\n"
    "td.bar{width:18%;min-width:90px;text-align:left}\n"
    ".trio td.bar{width:45%}\n"
    "td.bar i{display:block;height:10px;border-radius:0 3px 3px 0;background:var(--c1);"
    "min-width:1px}\n"
    ".bad{color:var(--bad);font-weight:600}.good{color:var(--good);font-weight:600}\n"
    "details{margin-top:10px}summary{cursor:pointer;color:var(--soft)}\n"
    "footer{color:var(--soft);font-size:13px;margin-top:18px}\n";

// One class for a line and one for an area of each colour.
static void put_colours(struct buf *out)
{
    static const char *const names[] = {"c1", "c2", "c3", "c4", "c5", "c6",
                                        "c7", "c8", "q1", "q2", "q3"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i)
        buf_printf(out, ".%s{stroke:var(--%s)}.f%s{fill:var(--%s)}\n", names[i], names[i], names[i],
                   names[i]);
}

void report_page_begin(struct buf *out, const char *title, const char *subtitle)
{
    buf_text(out, "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>\n"
                  "<meta name=viewport content=\"width=device-width,initial-scale=1\">\n<title>");
    report_escape(out, title);
    buf_text(out, "</title>\n<style>\n");
    buf_text(out, style);
    put_colours(out);
    buf_text(out, "</style></head><body>\n<h1>");
    report_escape(out, title);
    buf_text(out, "</h1>\n");
    if (subtitle != NULL) {
        buf_text(out, "<p class=sub>");
        report_escape(out, subtitle);
        buf_text(out, "</p>\n");
    }
}

void report_page_end(struct buf *out)
{
    buf_text(out, "<footer>sora-loadtest " SORA_VERSION
                  ". Latencies count from the planned send time; quantiles are within 1 %."
                  "</footer>\n</body></html>\n");
}

void report_section_begin(struct buf *out, const char *heading, const char *note)
{
    buf_printf(out, "<section><h2>%s</h2>\n", heading);
    if (note != NULL)
        buf_printf(out, "<p class=note2>%s</p>\n", note);
}

void report_section_end(struct buf *out)
{
    buf_text(out, "</section>\n");
}

void report_tile(struct buf *out, const char *name, const char *figure, const char *detail)
{
    buf_printf(out, "<div class=tile><span>%s</span><b>%s</b><span>%s</span></div>\n", name, figure,
               detail != NULL ? detail : "");
}

void report_legend(struct buf *out, const char *css, const char *name)
{
    buf_printf(out,
               "<span class=legend><svg viewBox=\"0 0 14 10\"><path class=\"line %s\" "
               "d=\"M1 5H13\"/></svg>",
               css);
    report_escape(out, name);
    buf_text(out, "</span>\n");
}
