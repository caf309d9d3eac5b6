/* SPDX-License-Identifier: MIT
 *
 * stats.h - what is made of measured numbers: quantiles, spread over turns, ratios that may not be
 * printed, METG, and the schedule of an open loop.
 *
 * Pure functions over their arguments: no clock, no allocation, any thread. Tested by
 * tests/unit/test_bench_stats.c against numbers worked out by hand.
 */
#ifndef BENCH_STATS_H
#define BENCH_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* q in 0..1 of n >= 1 ascending values, linear between neighbours (type 7 of Hyndman and Fan). */
double stat_quantile(const double *sorted, size_t n, double q);

/* Median and quartiles of the turns. n: how many; a spread of one turn is not known. */
struct spread {
    double q1, median, q3;
    size_t n;
};
/* v is left as it is; n is cut to STAT_TURNS_MAX. n == 0: all zero. */
struct spread spread_of(const double *v, size_t n);
#define STAT_TURNS_MAX 32

/* Turn by turn a[i] / b[i], which were measured beside each other: what disturbs both is left out.
 */
enum verdict {
    RATIO_UNKNOWN,   /* fewer than two pairs, or a zero among b: nothing can be said */
    RATIO_SURE,      /* may be printed */
    RATIO_SAME,      /* the quartiles lie on both sides of 1: no difference was seen */
    RATIO_SWALLOWED, /* they lie further apart than RATIO_SPREAD_MAX: the spread is the figure */
};
#define RATIO_SPREAD_MAX 1.5
struct ratio {
    struct spread s;
    enum verdict verdict;
};
struct ratio ratio_of(const double *a, const double *b, size_t n);

/* Minimum effective task granularity (Slaughter et al., Task Bench, SC20): the smallest granularity
 * at which efficiency reaches `level`, interpolated over the logarithm of granularity between the
 * last point below and the first one at or above, after which it stays there. Points in any order,
 * STAT_TURNS_MAX at most. < 0: never reached. Reached from the first point on: its granularity. */
double stat_metg(const double *grain, const double *efficiency, size_t n, double level);

/* An open loop: arrivals that do not wait for answers, at exponential distances (Poisson) from a
 * fixed seed. Latency counts from the arrival, whenever the sender came to it: a stall is charged
 * to all that arrived during it (coordinated omission). Times in ticks of any clock. */
struct openloop {
    double next, mean; /* mean 0: everything is due at once */
    uint64_t seed;
};
void openloop_init(struct openloop *o, uint64_t start, double mean, uint64_t seed);
/* Arrivals up to `now` that were not given out yet, at most max; returns how many. */
size_t openloop_due(struct openloop *o, uint64_t now, uint64_t *arrival, size_t max);
static inline uint64_t openloop_latency(uint64_t arrival, uint64_t now)
{
    return now > arrival ? now - arrival : 0;
}

#endif
