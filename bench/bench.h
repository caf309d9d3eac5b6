/* SPDX-License-Identifier: MIT
 *
 * bench.h - what the parts of fabbench share: samples, rows, floors, the private fabric they
 * measure.
 *
 * Method: the near side is pinned to the first core, the far side to the second; a warm-up precedes
 * each series; a floor and what is compared with it are measured in turns in one run, and medians
 * over the turns are reported. Every round trip is timed by itself with the processor's tick
 * counter; the counter's own cost, measured first, is subtracted from all alike.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "bench/fixture.h"
#include "core/fabric.h"

/* ---- samples ---- */

struct samples {
    uint64_t *ns; /* shared with children */
    size_t n, room;
    uint64_t spent, limit; /* ns: after limit (0: none) the series is cut short */
};
struct latency {
    double p50, p99, p999;
};

int samples_init(struct samples *s, size_t n) __attribute__((warn_unused_result));
void samples_free(struct samples *s);
/* The k-th sample. A series over its time limit is cut: n becomes k + 1. */
void samples_put(struct samples *s, size_t k, uint64_t ns);
/* Sorts, and gives the quantiles. */
struct latency samples_quantiles(struct samples *s);
/* Median over turns, quantile by quantile. */
struct latency latency_median(const struct latency *turns, size_t n);
double median(double *v, size_t n);
/* A tick stamp, and the ns between two less the cost of stamping. */
uint64_t stamp(void);
uint64_t stamp_ns(uint64_t from, uint64_t to);

/* ---- rows ---- */

struct row {
    char name[40];
    bool throughput;
    struct latency lat; /* ns */
    double value;       /* a second */
    const char *unit;
    unsigned batch;
    const char *floor; /* name of the row it is compared with, NULL */
    char skipped[200]; /* why there is no figure, "" */
    char note[120];
};

#define ROWS_MAX 64
struct report {
    struct row row[ROWS_MAX];
    size_t n;
};

struct row *report_latency(struct report *r, const char *name, struct latency l, const char *floor);
struct row *report_rate(struct report *r, const char *name, double per_s, const char *unit,
                        unsigned batch, const char *floor);
void report_skip(struct report *r, const char *name, const char *why);
void report_table(const struct report *r);
int report_json(const struct report *r, const char *file, bool quick)
    __attribute__((warn_unused_result));

/* ---- settings ---- */

struct settings {
    bool quick;
    unsigned turns;
    size_t rounds;      /* of a latency series */
    double seconds;     /* of a throughput series */
    const char *only;   /* row name prefix, NULL */
    const char *build;  /* directory of fabricd */
    const char *source; /* directory of python_manager.py */
    int near_core, far_core;
};
bool wanted(const struct settings *st, const char *name);
void progress(const char *what);
void pin_near(const struct settings *st);
void pin_far(const struct settings *st);
/* One round of polling in vain: where both sides share one core, the other's turn. */
void poll_pause(const struct settings *st);

/* ---- floors: bare round trips and rates, no code of the fabric's between ---- */

int floor_pingpong(const struct settings *st, struct samples *out)
    __attribute__((warn_unused_result));
int floor_futex(const struct settings *st, struct samples *out) __attribute__((warn_unused_result));
double floor_vyukov(const struct settings *st);
double floor_spsc(const struct settings *st);
int floor_socket(const struct settings *st, bool busy, struct samples *out)
    __attribute__((warn_unused_result));
/* host: an address of this machine's that the provider can reach. */
int floor_fi(const struct settings *st, const char *provider, const char *host, struct samples *out)
    __attribute__((warn_unused_result));

/* ---- the fabric ---- */

/* One lane pair between two processes, a 64-byte record echoed. */
int lane_round_trip(const struct settings *st, const char *provider, const char *host, int mode,
                    struct samples *out) __attribute__((warn_unused_result));

/* A worker process on the far core; batch: most tasks a claim takes; spin_ns as in fab_options.
 * Returns its pid. */
int worker_start(const struct settings *st, const char *address, const char *key, unsigned batch,
                 int64_t spin_ns) __attribute__((warn_unused_result));

int measure_task_rtt(const struct settings *st, const struct fixture *f, const char *worker_at,
                     int64_t spin_ns, struct samples *out) __attribute__((warn_unused_result));
/* Leased and answered tasks a second; every answer is checked. < 0: failed. */
double measure_rate(const struct settings *st, const struct fixture *f, const char *worker_at,
                    unsigned batch);

#endif
