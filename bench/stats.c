/* SPDX-License-Identifier: MIT
 *
 * stats.c - see stats.h.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "bench/stats.h"

double stat_quantile(const double *sorted, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t i = (size_t)at;
    if (i + 1 >= n)
        return sorted[n - 1];
    return sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]);
}

static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

struct spread spread_of(const double *v, size_t n)
{
    double sorted[STAT_TURNS_MAX];
    if (n > STAT_TURNS_MAX)
        n = STAT_TURNS_MAX;
    if (n == 0)
        return (struct spread){0};
    memcpy(sorted, v, n * sizeof *v);
    qsort(sorted, n, sizeof *sorted, by_double);
    return (struct spread){.q1 = stat_quantile(sorted, n, 0.25),
                           .median = stat_quantile(sorted, n, 0.5),
                           .q3 = stat_quantile(sorted, n, 0.75),
                           .n = n};
}

struct ratio ratio_of(const double *a, const double *b, size_t n)
{
    double r[STAT_TURNS_MAX] = {0};
    struct ratio out = {.verdict = RATIO_UNKNOWN};
    if (n > STAT_TURNS_MAX)
        n = STAT_TURNS_MAX;
    for (size_t i = 0; i < n; i++) {
        if (!(b[i] > 0))
            return out;
        r[i] = a[i] / b[i];
    }
    out.s = spread_of(r, n);
    if (n < 2)
        return out;
    if (out.s.q3 > RATIO_SPREAD_MAX * out.s.q1)
        out.verdict = RATIO_SWALLOWED;
    else if (out.s.q1 <= 1 && out.s.q3 >= 1)
        out.verdict = RATIO_SAME;
    else
        out.verdict = RATIO_SURE;
    return out;
}

struct pair {
    double grain, efficiency;
};

static int by_grain(const void *a, const void *b)
{
    return by_double(&((const struct pair *)a)->grain, &((const struct pair *)b)->grain);
}

double stat_metg(const double *grain, const double *efficiency, size_t n, double level)
{
    struct pair p[STAT_TURNS_MAX];
    if (n > STAT_TURNS_MAX)
        n = STAT_TURNS_MAX;
    for (size_t i = 0; i < n; i++)
        p[i] = (struct pair){grain[i], efficiency[i]};
    qsort(p, n, sizeof *p, by_grain);
    size_t first = n;
    while (first > 0 && p[first - 1].efficiency >= level)
        first--;
    if (first == n)
        return -1;
    if (first == 0)
        return p[0].grain;
    double below = p[first - 1].efficiency, above = p[first].efficiency;
    double from = log(p[first - 1].grain), to = log(p[first].grain);
    return exp(from + (to - from) * (level - below) / (above - below));
}

/* splitmix64: a number in (0, 1] */
static double uniform(uint64_t *seed)
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (double)((z >> 11) + 1) * 0x1p-53;
}

void openloop_init(struct openloop *o, uint64_t start, double mean, uint64_t seed)
{
    *o = (struct openloop){.next = (double)start, .mean = mean, .seed = seed};
    if (mean > 0)
        o->next -= mean * log(uniform(&o->seed));
}

size_t openloop_due(struct openloop *o, uint64_t now, uint64_t *arrival, size_t max)
{
    size_t n = 0;
    while (n < max && o->next <= (double)now) {
        arrival[n++] = o->mean > 0 ? (uint64_t)o->next : now;
        if (o->mean > 0)
            o->next -= o->mean * log(uniform(&o->seed));
    }
    return n;
}
