/* SPDX-License-Identifier: MIT
 *
 * grain.c - efficiency against the size of a task, and METG(50 %): the smallest task that still
 * leaves half of the cores' time to the tasks' own work. Definition: Slaughter et al., "Task Bench:
 * A Parameterized Benchmark for Evaluating Parallel Runtime Performance", SC20.
 *
 * granularity = wall time * cores / tasks; efficiency = work done / work the same cores do without
 * a fabric in that time. The work is a fixed number of multiplications (kernels.c), timed bare on
 * the worker's core in the same turn.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "bench/bench.h"
#include "core/clock.h"
#include "core/error.h"

/* iterations; about a nanosecond each */
static const uint64_t grains[] = {100,   200,   500,    1000,   2000,   5000,   10000,
                                  20000, 50000, 100000, 200000, 500000, 1000000};
/* Below this with tasks of half a millisecond it is not the fabric that takes the time, and no METG
 * is told. */
#define PLATEAU 0.85
#define GRAINS  (sizeof grains / sizeof *grains)

/* ns of one task's work without a fabric, undisturbed: the best of many blocks, because the work is
 * the same in each and whatever makes one longer is somebody else's. */
static double bare(const struct settings *st, uint64_t iterations)
{
    volatile uint64_t n = iterations, sink; /* each call is made */
    uint64_t calls = 1 + 20000 / iterations, best = UINT64_MAX, start = clock_ns();
    pin_far(st);
    for (int blocks = 0; blocks < 8 || clock_ns() - start < 5000000; blocks++) {
        uint64_t t = stamp();
        for (uint64_t i = 0; i < calls; i++)
            sink = kernel_burn(n);
        t = stamp_ns(t, stamp());
        best = t < best ? t : best;
    }
    (void)sink;
    pin_near(st);
    return (double)best / (double)calls;
}

struct machine_part {
    const char *row, *curve;
    unsigned cores; /* that are counted */
    bool every_core;
};

/* One point, one turn. */
static int point(const struct settings *st, const struct fixture *f, const char *at,
                 const struct machine_part *m, uint64_t iterations, double *grain, double *eff)
{
    double alone = bare(st, iterations);
    uint64_t window = (uint64_t)(20e6 / alone); /* 20 ms of work */
    struct load l = {.worker_at = at,
                     .batch = 16,
                     .producers = 1,
                     .workers = m->cores,
                     .every_core = m->every_core,
                     .window = window < 64     ? 64
                               : window > 4096 ? 4096
                                               : window,
                     .seconds = st->slice};
    l.job = (struct job){.kernel = fab_kernel_id("bench-burn"),
                         .expect = kernel_burn(iterations),
                         .arg = &iterations,
                         .len = sizeof iterations};
    double rate = measure_rate(st, f, &l);
    if (rate <= 0)
        return -EIO;
    *grain = 1e9 * m->cores / rate;
    *eff = alone / *grain;
    return 0;
}

static int measure(const struct settings *st, struct report *rep, const struct fixture *f,
                   const char *at, const struct machine_part *m)
{
    double grain[GRAINS][TURNS_MAX], eff[GRAINS][TURNS_MAX], metg[TURNS_MAX];
    bool reached = true;
    for (unsigned t = 0; t < st->turns; t++) {
        double g[GRAINS], e[GRAINS];
        for (size_t k = 0; k < GRAINS; k++) {
            size_t i = t % 2 ? GRAINS - 1 - k : k;
            progress(m->row, t + 1, st->turns);
            if (point(st, f, at, m, grains[i], &grain[i][t], &eff[i][t]) < 0) {
                fprintf(stderr, "fabbench: %s: %s\n", m->row, fab_errmsg());
                return -EIO;
            }
            g[i] = grain[i][t];
            e[i] = eff[i][t];
        }
        metg[t] = stat_metg(g, e, GRAINS, 0.5);
        reached = reached && metg[t] > 0;
    }
    struct curve *c = report_curve(rep, "grain", m->curve, "granularity, ns", "efficiency");
    for (size_t i = 0; i < GRAINS; i++)
        curve_point(c, spread_of(grain[i], st->turns).median, eff[i], st->turns);
    double plateau = spread_of(eff[GRAINS - 2], st->turns).median;
    if (!reached || plateau < PLATEAU) {
        char why[160];
        snprintf(why, sizeof why,
                 "tasks of half a millisecond left only %.0f %% of the cores to their own work: "
                 "something else took the rest",
                 100 * plateau);
        report_skip(rep, m->row, why);
        return 0;
    }
    struct row *w = report_value(rep, m->row, "ns", metg, st->turns, NULL);
    w->less_is_better = true;
    snprintf(w->note, sizeof w->note, "METG(50 %%), %u of %d cores counted: %s", m->cores,
             st->cores.n,
             m->every_core ? "workers on all, the producer among them" : "the worker's");
    return 0;
}

int bench_grain(const struct settings *st, struct report *rep, const struct fixture *f,
                const char *transport)
{
    char group[40], row[2][40], curve[2][40];
    bool local = strcmp(transport, "shm") == 0;
    snprintf(group, sizeof group, "%s.grain", transport);
    if (!group_wanted(st, group, true))
        return 0;
    for (int i = 0; i < 2; i++) {
        snprintf(row[i], sizeof row[i], "%s.grain.metg50%s", transport, i ? ".all_cores" : "");
        snprintf(curve[i], sizeof curve[i], "%s%s", transport, i ? ", all cores counted" : "");
    }
    const char *at = local ? f->local : f->remote;
    struct machine_part one = {row[0], curve[0], 1, false},
                        all = {row[1], curve[1], (unsigned)st->cores.n, true};
    int rc = measure(st, rep, f, at, &one);
    if (rc == 0 && local && all.cores > 1 && all.cores <= 32)
        rc = measure(st, rep, f, at, &all);
    return rc;
}
