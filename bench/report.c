/* SPDX-License-Identifier: MIT
 *
 * report.c - the rows and curves, and the table for people.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench/bench.h"

static struct row *add(struct report *r, const char *name)
{
    if (r->n == ROWS_MAX)
        abort(); /* the rows are a fixed list of ours; merged ones are counted before */
    struct row *w = &r->row[r->n++];
    memset(w, 0, sizeof *w);
    snprintf(w->name, sizeof w->name, "%s", name);
    return w;
}

struct row *report_latency(struct report *r, const char *name, const struct latency *turn, size_t n,
                           const char *floor)
{
    struct row *w = add(r, name);
    double b[TURNS_MAX], c[TURNS_MAX];
    for (size_t i = 0; i < n; i++) {
        w->turn[i] = turn[i].p50;
        b[i] = turn[i].p99;
        c[i] = turn[i].p999;
    }
    w->turns = n;
    w->latency = w->less_is_better = true;
    w->lat = (struct latency){spread_of(w->turn, n).median, spread_of(b, n).median,
                              spread_of(c, n).median};
    w->unit = "ns";
    w->floor = floor;
    return w;
}

struct row *report_value(struct report *r, const char *name, const char *unit, const double *turn,
                         size_t n, const char *floor)
{
    struct row *w = add(r, name);
    memcpy(w->turn, turn, n * sizeof *turn);
    w->turns = n;
    w->value = spread_of(turn, n).median;
    w->unit = unit;
    w->floor = floor;
    return w;
}

void report_skip(struct report *r, const char *name, const char *why)
{
    snprintf(add(r, name)->skipped, sizeof r->row[0].skipped, "%s", why);
}

struct curve *report_curve(struct report *r, const char *picture, const char *name, const char *x,
                           const char *y)
{
    if (r->curves == CURVES_MAX)
        abort(); /* a fixed list of ours */
    struct curve *c = &r->curve[r->curves++];
    *c = (struct curve){.picture = picture, .x = x, .y = y};
    snprintf(c->name, sizeof c->name, "%s", name);
    return c;
}

void curve_point(struct curve *c, double x, const double *turn, size_t n)
{
    size_t i = c->n;
    if (i == POINTS_MAX)
        return;
    for (; i > 0 && c->p[i - 1].x > x; i--)
        c->p[i] = c->p[i - 1];
    c->p[i] = (struct point){.x = x, .y = spread_of(turn, n)};
    c->n++;
}

const struct row *report_find(const struct report *r, const char *name)
{
    for (size_t i = 0; name && i < r->n; i++)
        if (strcmp(r->row[i].name, name) == 0 && !r->row[i].skipped[0])
            return &r->row[i];
    return NULL;
}

struct ratio report_ratio(const struct report *r, const struct row *w)
{
    const struct row *f = report_find(r, w->floor);
    if (!f || f->turns != w->turns)
        return (struct ratio){.verdict = RATIO_UNKNOWN};
    return ratio_of(w->turn, f->turn, w->turns);
}

/* ---- the table ---- */

static const char *ns_text(double ns, char *buf, size_t cap)
{
    if (!isfinite(ns))
        snprintf(buf, cap, "-");
    else if (ns < 1000)
        snprintf(buf, cap, "%.0f ns", ns);
    else if (ns < 1e6)
        snprintf(buf, cap, "%.2f us", ns / 1e3);
    else
        snprintf(buf, cap, "%.2f ms", ns / 1e6);
    return buf;
}

/* How far the turns lie apart: half of the quartiles' distance, against the median. */
static const char *spread_text(const struct row *w, char *buf, size_t cap)
{
    struct spread s = spread_of(w->turn, w->turns);
    if (s.n < 2 || s.median <= 0)
        snprintf(buf, cap, "one turn");
    else
        snprintf(buf, cap, "+-%.0f %%", 50 * (s.q3 - s.q1) / s.median);
    return buf;
}

static void print_ratio(const struct report *r, const struct row *w)
{
    struct ratio q = report_ratio(r, w);
    if (!report_find(r, w->floor))
        return;
    switch (q.verdict) {
    case RATIO_SURE:
        printf("  %.3gx (%.3g to %.3g) %s", q.s.median, q.s.q1, q.s.q3, w->floor);
        break;
    case RATIO_SAME:
        printf("  no difference seen from %s (%.3g to %.3g)", w->floor, q.s.q1, q.s.q3);
        break;
    case RATIO_SWALLOWED:
        printf("  no ratio: %.3g to %.3g of %s, the spread swallows it", q.s.q1, q.s.q3, w->floor);
        break;
    case RATIO_UNKNOWN:
        printf("  no ratio: one turn of %s alone has no spread", w->floor);
        break;
    }
}

static void print_row(const struct report *r, const struct row *w)
{
    char a[24], b[24], c[24], d[24], batch[24] = "";
    if (w->batch)
        snprintf(batch, sizeof batch, "batch %u", w->batch);
    if (w->latency)
        printf("  %-26s %11s %11s %11s  %8s", w->name, ns_text(w->lat.p50, a, sizeof a),
               ns_text(w->lat.p99, b, sizeof b), ns_text(w->lat.p999, c, sizeof c),
               spread_text(w, d, sizeof d));
    else if (strcmp(w->unit, "ns") == 0)
        printf("  %-26s %14s %-9s %8s", w->name, ns_text(w->value, a, sizeof a), batch,
               spread_text(w, d, sizeof d));
    else if (w->value >= 1e4)
        printf("  %-26s %10.3f M %-8s %-9s %8s", w->name, w->value / 1e6, w->unit, batch,
               spread_text(w, d, sizeof d));
    else
        printf("  %-26s %12.4g %s %-9s %8s", w->name, w->value, w->unit, batch,
               spread_text(w, d, sizeof d));
    print_ratio(r, w);
    printf("%s%s\n", w->note[0] ? "  " : "", w->note);
}

static void print_part(const struct report *r, bool latency, const char *head)
{
    bool said = false;
    for (size_t i = 0; i < r->n; i++) {
        if (r->row[i].latency != latency || r->row[i].skipped[0])
            continue;
        if (!said)
            printf("\n%s\n", head);
        said = true;
        print_row(r, &r->row[i]);
    }
}

void report_table(const struct report *r)
{
    char head[128];
    snprintf(head, sizeof head, "  %-26s %11s %11s %11s  %8s  %s", "round trip", "p50", "p99",
             "p99.9", "turns", "against its floor (p50, quartiles of the turns)");
    print_part(r, true, head);
    snprintf(head, sizeof head, "  %-26s", "rates and other figures");
    print_part(r, false, head);
    for (size_t i = 0; i < r->n; i++)
        if (r->row[i].skipped[0])
            printf("\n  %s: not measured: %s\n", r->row[i].name, r->row[i].skipped);
}
