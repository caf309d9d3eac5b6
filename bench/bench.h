/* SPDX-License-Identifier: MIT
 *
 * bench.h - what the parts of fabbench share: samples, rows, curves, turns, floors, the private
 * fabric they measure. docs/bench.md has the method.
 *
 * Threads: one; what works side by side are child processes, pinned, dead with their parent.
 * Failure: a measurement returns -errno with a message (core/error.h); the run ends with what it
 * has and exit status 1.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "bench/fixture.h"
#include "bench/stats.h"
#include "core/atomic.h"
#include "core/fabric.h"
#include "core/topology.h"

#define MUST __attribute__((warn_unused_result))

/* ---- samples ---- */

struct samples {
    uint64_t *ns; /* shared with children */
    size_t n, room;
    uint64_t spent, limit; /* ns: after limit (0: none) the series is cut short */
};
struct latency {
    double p50, p99, p999;
};

int samples_init(struct samples *s, size_t n) MUST;
void samples_free(struct samples *s);
/* The k-th sample. A series over its time limit is cut: n becomes k + 1. */
void samples_put(struct samples *s, size_t k, uint64_t ns);
/* Sorts, and gives the quantiles. */
struct latency samples_quantiles(struct samples *s);
/* The value at percentile p (0..100) of a sorted series; < 0 where fewer than five samples lie
 * beyond it: chance would speak. */
double samples_at(const struct samples *s, double p);
/* A tick stamp, and the ns between two less the cost of stamping. */
uint64_t stamp(void);
uint64_t stamp_ns(uint64_t from, uint64_t to);

/* ---- rows ---- */

#define TURNS_MAX STAT_TURNS_MAX

struct row {
    char name[40];
    bool latency;       /* quantiles of a duration; else one value */
    struct latency lat; /* ns, medians over the turns */
    double value;       /* median over the turns */
    const char *unit;
    bool less_is_better;
    bool bare; /* no code of the fabric's is in it: what the machine can do */
    unsigned batch;
    const char *floor;      /* name of the row it is compared with, NULL */
    double turn[TURNS_MAX]; /* p50 or value, turn by turn */
    size_t turns;
    char skipped[200]; /* why there is no figure, "" */
    char note[160];
};

/* A line of a picture. */
struct point {
    double x;
    struct spread y;
};
#define POINTS_MAX 24
struct curve {
    char name[40];
    const char *picture; /* curves of one picture are drawn together (bench/page) */
    const char *x, *y;   /* what, with its unit */
    struct point p[POINTS_MAX];
    size_t n;
};

#define ROWS_MAX   160
#define CURVES_MAX 40
struct report {
    struct row row[ROWS_MAX];
    struct curve curve[CURVES_MAX];
    size_t n, curves;
};

/* turn: n of them, in order. A latency row's figures are the medians, quantile by quantile. */
struct row *report_latency(struct report *r, const char *name, const struct latency *turn, size_t n,
                           const char *floor);
struct row *report_value(struct report *r, const char *name, const char *unit, const double *turn,
                         size_t n, const char *floor);
void report_skip(struct report *r, const char *name, const char *why);
struct curve *report_curve(struct report *r, const char *picture, const char *name, const char *x,
                           const char *y);
/* turn: n values of y there, one a turn. Points are kept in the order of x; no more than
 * POINTS_MAX.
 */
void curve_point(struct curve *c, double x, const double *turn, size_t n);
const struct row *report_find(const struct report *r, const char *name);
/* Against its floor, turn by turn. RATIO_UNKNOWN without one. */
struct ratio report_ratio(const struct report *r, const struct row *w);

struct settings;
void report_table(const struct report *r);
int report_json(const struct report *r, const char *file, const struct settings *st) MUST;
int report_csv(const struct report *r, const char *file) MUST;
/* Rows of foreign systems: an array of {name, rtt_p50_ns, rtt_p99_ns, throughput, guarantee}, or an
 * object with it as "rows". Numbers are optional; {name, skipped} says why there are none. */
int report_merge(struct report *r, const char *file) MUST;

/* ---- the machine, and what else ran on it ---- */

struct load_mark {
    double busy, steal, total; /* seconds of all cores since boot */
};
void load_begin(void);
/* Shares of the machine's cores since load_begin(): used by others than this process and its
 * children that were waited for; taken by the host. */
void load_others(double *others, double *steal);

/* ---- settings ---- */

struct settings {
    bool quick;
    unsigned turns;
    size_t rounds;      /* of a latency series */
    double seconds;     /* of a throughput series */
    double slice;       /* of a curve's point, each turn */
    const char *only;   /* row name prefix, NULL */
    const char *self;   /* this program */
    const char *build;  /* directory of fabricd */
    const char *source; /* directory of python_manager.py */
    struct cores cores; /* all we may use */
    int near_core, far_core;
};
/* Row `name` is wanted. */
bool wanted(const struct settings *st, const char *name);
/* Anything of a group (a prefix of row names) is wanted. extra: a quick run leaves it out unless
 * --only names it. */
bool group_wanted(const struct settings *st, const char *group, bool extra);
/* What is measured now, for who waits. NULL: nothing any more. */
void progress(const char *what, unsigned turn, unsigned turns);
void pin_near(const struct settings *st);
void pin_far(const struct settings *st);
/* One round of polling in vain: where both sides share one core, the other's turn. */
void poll_pause(const struct settings *st);
/* The n-th core in turn, for more threads than two. */
int core_of(const struct settings *st, unsigned n);
void nap_ns(uint64_t ns);

/* ---- turns: what is compared is measured alternately, forwards and backwards ---- */

typedef int series_fn(const struct settings *st, const void *arg, struct samples *out);
struct series {
    const char *name, *floor;
    series_fn *fn;
    const void *arg;
    size_t rounds; /* 0: the settings' */
    const char *note;
    bool bare;
};
/* Those wanted, and their floors. apart: each turn in a child, for what uses libfabric. */
int run_series(const struct settings *st, struct report *rep, const struct series *s, size_t n,
               bool apart) MUST;

/* One value a turn. */
typedef int probe_fn(const struct settings *st, const void *arg, double *out);
struct probe {
    const char *name, *unit, *floor;
    probe_fn *fn;
    const void *arg;
    unsigned batch;
    bool less_is_better, bare;
    const char *note;
};
int run_probes(const struct settings *st, struct report *rep, const struct probe *p, size_t n,
               unsigned turns) MUST;

/* ---- floors: bare round trips and rates, no code of the fabric's between ---- */

int floor_pingpong(const struct settings *st, struct samples *out) MUST;
double floor_vyukov(const struct settings *st);
double floor_spsc(const struct settings *st);
int floor_socket(const struct settings *st, bool busy, struct samples *out) MUST;
/* host: an address of this machine's that the provider can reach. */
int floor_fi(const struct settings *st, const char *provider, const char *host,
             struct samples *out) MUST;
/* Bytes a second one way in pieces of that size, by fi_send or fi_write, FLOOR_PIECES on their way at
 * once. < 0: failed. */
#define FLOOR_PIECES 8u
enum piece_how { PIECES_SENT, PIECES_WRITTEN, PIECES_COPIED /* into their place, then written */ };
double floor_fi_bandwidth(const struct settings *st, const char *provider, const char *host,
                          enum piece_how how, size_t bytes);

/* ZeroMQ, where its program was built: its best batch's tasks a second over tcp with answers, or one way
 * over ipc; so long each of its batches. < 0: failed. */
bool zeromq_there(const struct settings *st);
double zeromq_rate(const struct settings *st, bool one_way, double seconds);

/* ---- the fabric ---- */

/* One lane pair between two processes, a 64-byte record echoed. */
int lane_round_trip(const struct settings *st, const char *provider, const char *host, int mode,
                    bool sealed, struct samples *out) MUST;

/* A task that is measured, and its right answer. */
struct job {
    uint64_t kernel, expect;
    const void *arg;
    uint32_t len;
    bool any_answer; /* not to be checked */
    uint32_t res_len; /* not 0: the result is so many bytes, whose kernel_sink() is expect */
    bool in_place;   /* each argument is made anew in fab_arg_new()'s memory, a word a page */
};
struct job job_feb(void);
struct fab_task job_task(const struct job *j);
int job_check(const struct job *j, const struct fab_outcome *o) MUST;

struct worker_spec {
    const char *address, *key;
    unsigned batch;             /* most tasks a claim takes */
    bool together;              /* a batch of results of 8 bytes is completed as one */
    int64_t spin_ns;            /* as in fab_options */
    int core;                   /* -1: unpinned */
    struct worker_share *share; /* in shared memory; NULL: nothing is shared */
};
struct worker_share {
    _Alignas(HOT_LINE) _Atomic uint64_t done; /* completed tasks */
    _Alignas(HOT_LINE) _Atomic uint32_t stop; /* it ends when this is set, holding no task */
    _Atomic uint32_t pause; /* it waits while this is set, holding no task */
    _Atomic uint32_t batch; /* not 0: instead of the one it was started with */
    _Alignas(HOT_LINE) _Atomic uint32_t paused; /* by itself: it waits */
};
/* A worker process. Returns its pid. */
int worker_start(const struct worker_spec *w) MUST;
/* Ends one that shares: every task that it took is completed and counted. */
void worker_stop(const struct worker_spec *w, int pid);
/* Returns when it waits; lets it go on with that batch. */
void worker_pause(struct worker_share *share);
void worker_go_on(struct worker_share *share, unsigned batch);
/* Kernels that only these workers have: fixed work, bytes looked at, the tick of the start. */
int kernels_register(void) MUST;
uint64_t kernel_burn(uint64_t iterations);
uint64_t kernel_sink(const void *bytes, size_t len);
#define SOURCE_BYTE 0x5a /* what bench-source's results are made of */
/* Copies what kernel_sink() looks at. */
void kernel_sink_make(void *to, const void *bytes, size_t len);

int measure_task_rtt(const struct settings *st, const struct fixture *f, const char *worker_at,
                     struct samples *out) MUST;

struct load {
    const char *worker_at;
    struct job job;
    unsigned batch, producers, workers;
    uint64_t window; /* tasks a producer has outstanding; 0: as suits the batch */
    double seconds;
    bool together;   /* workers complete a batch as one: results of 8 bytes alone */
    bool every_core; /* workers from the first core on, not from the second */
};
/* Leased and answered tasks a second; every answer is checked. < 0: failed. */
double measure_rate(const struct settings *st, const struct fixture *f, const struct load *l);

/* The groups of rows, one a file. */
int bench_throughput(const struct settings *st, struct report *rep, const struct fixture *f,
                     const char *transport, const char *floor) MUST;
/* Tasks that nobody waits for, beside ZeroMQ's one way. */
int bench_one_way(const struct settings *st, struct report *rep, const struct fixture *f) MUST;
int bench_scale(const struct settings *st, struct report *rep, const struct fixture *f) MUST;
int bench_grain(const struct settings *st, struct report *rep, const struct fixture *f,
                const char *transport) MUST;
int bench_openloop(const struct settings *st, struct report *rep, const struct fixture *f,
                   const char *transport) MUST;
int bench_parked(const struct settings *st, struct report *rep, const struct fixture *f) MUST;
int bench_depth(const struct settings *st, struct report *rep) MUST;
int bench_fairness(const struct settings *st, struct report *rep) MUST;
int bench_idle(const struct settings *st, struct report *rep) MUST;
int bench_start(const struct settings *st, struct report *rep) MUST;
int bench_bandwidth(const struct settings *st, struct report *rep, const struct fixture *f) MUST;
int bench_instructions(const struct settings *st, struct report *rep, const struct fixture *f) MUST;
int bench_stamps(const struct settings *st, struct report *rep, const struct fixture *f) MUST;
/* The process under valgrind: n tasks on one thread. */
int instructions_child(const char *address, unsigned batch, unsigned long n) MUST;

/* Measures all that is wanted, in order. */
int plan_run(const struct settings *st, struct report *rep) MUST;

#endif
