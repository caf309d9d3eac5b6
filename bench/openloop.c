/* SPDX-License-Identifier: MIT
 *
 * openloop.c - latency under load: tasks arrive at times drawn beforehand (Poisson), whether
 * answers have come or not, at 10 to 95 % of what the same producer and worker reach when they are
 * never out of tasks. Latency counts from the arrival, so a stall is charged to every task that
 * arrived in it (no coordinated omission); what had arrived but could not be submitted before the
 * end counts with the time it has waited.
 *
 * Threads: the producer is this process on the near core, polling; the worker a child on the far
 * one.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench/bench.h"
#include "core/clock.h"
#include "core/error.h"

#define SAMPLES_MAX (1u << 20)
#define BURST       64

static const unsigned loads[] = {10, 25, 50, 75, 85, 90, 95}; /* % of the peak */
#define LOADS (sizeof loads / sizeof *loads)

struct stream {
    fab_t *f;
    struct job job;
    struct openloop arrivals;
    uint64_t waiting[BURST]; /* arrived, not accepted yet */
    size_t waiting_n;
    uint64_t closed; /* > 0: a closed loop with so many outstanding, for the peak */
    bool shares; /* there are more that poll than cores */
    uint64_t done;
    struct samples *out; /* NULL: not wanted */
};

static void note(struct stream *s, uint64_t arrival, uint64_t now)
{
    s->done++;
    if (s->out && s->out->n < s->out->room)
        s->out->ns[s->out->n++] =
            clock_ticks_to_ns(openloop_latency(arrival, now), clock_ticks_hz());
}

static int submit_due(struct stream *s)
{
    struct fab_task t[BURST];
    size_t room = BURST - s->waiting_n;
    if (s->closed) {
        size_t free = s->closed > fab_outstanding(s->f) ? s->closed - fab_outstanding(s->f) : 0;
        room = free > s->waiting_n ? (free - s->waiting_n < room ? free - s->waiting_n : room) : 0;
    }
    s->waiting_n += openloop_due(&s->arrivals, clock_ticks(), s->waiting + s->waiting_n, room);
    if (s->waiting_n == 0)
        return 0;
    for (size_t i = 0; i < s->waiting_n; i++) {
        t[i] = job_task(&s->job);
        t[i].tag = s->waiting[i];
    }
    long n = fab_submit(s->f, t, s->waiting_n, NULL, 0);
    if (n == -EAGAIN)
        return 0;
    if (n < 0)
        return (int)n;
    s->waiting_n -= (size_t)n;
    memmove(s->waiting, s->waiting + n, s->waiting_n * sizeof *s->waiting);
    return 0;
}

static int take(struct stream *s, int64_t timeout_ns)
{
    struct fab_outcome o[BURST];
    long n = fab_wait_any(s->f, o, BURST, timeout_ns);
    if (n == -EAGAIN)
        return 0;
    uint64_t now = clock_ticks();
    int rc = n < 0 ? (int)n : 0;
    for (long i = 0; rc == 0 && i < n; i++) {
        rc = job_check(&s->job, &o[i]);
        note(s, o[i].tag, now);
    }
    return rc;
}

/* Nothing is due and nothing has come. With fewer cores than processes that poll the producer would
 * keep one from them for all of its time slice, to look at a clock; what a yield makes it late counts as
 * latency like everything else. */
static void idle_round(const struct settings *st, struct stream *s)
{
    if (s->shares)
        sched_yield();
    else
        poll_pause(st);
}

static int stream_run(const struct settings *st, struct stream *s, uint64_t until)
{
    int rc = 0;
    while (rc == 0 && clock_ticks() < until) {
        uint64_t had = s->done;
        rc = submit_due(s);
        if (rc == 0 && fab_outstanding(s->f) > 0)
            rc = take(s, 0);
        if (rc == 0 && s->done == had && s->waiting_n == 0)
            idle_round(st, s);
    }
    return rc;
}

/* mean: ticks between arrivals, 0: the peak. *rate: answered tasks a second. */
static int run(const struct settings *st, const struct fixture *fx, const char *at, double mean,
               uint64_t window, struct samples *out, double *rate)
{
    bool remote = strcmp(at, fx->local) != 0; /* fabricd polls, too */
    struct stream s = {.job = job_feb(), .shares = remote && st->cores.n < 3};
    struct worker_spec w = {.address = at, .key = fx->key, .batch = 16, .core = st->far_core};
    struct fab_options po = {.roles = FAB_PRODUCER, .name = "bench"};
    uint64_t hz = clock_ticks_hz(), length = (uint64_t)(st->slice * (double)hz);
    int pid = worker_start(&w), rc = pid;
    pin_near(st);
    if (pid > 0)
        rc = fab_open(&s.f, fx->local, &po);
    uint64_t start = clock_ticks();
    openloop_init(&s.arrivals, start, mean, 20);
    s.closed = mean > 0 ? 0 : window;
    if (rc == 0)
        rc = stream_run(st, &s, start + length / 5); /* warm-up, from here on it counts */
    s.done = 0;
    s.out = out;
    start = clock_ticks();
    if (rc == 0)
        rc = stream_run(st, &s, start + length);
    uint64_t end = clock_ticks(), late;
    *rate = (double)s.done / ((double)(end - start) / (double)hz);
    for (size_t i = 0; i < s.waiting_n && mean > 0; i++)
        note(&s, s.waiting[i], end);
    while (mean > 0 && openloop_due(&s.arrivals, end, &late, 1) == 1)
        note(&s, late, end);
    while (rc == 0 && fab_outstanding(s.f) > 0)
        rc = take(&s, 5000000000);
    fab_close(s.f);
    child_stop(pid);
    return rc;
}

struct table {
    double peak[TURNS_MAX];
    struct latency lat[LOADS][TURNS_MAX];
    double v[LOADS][3][TURNS_MAX];
};

static int one_load(const struct settings *st, const struct fixture *f, const char *at, double mean,
                    struct latency *lat)
{
    struct samples out;
    double rate;
    int rc = samples_init(&out, SAMPLES_MAX);
    out.n = 0;
    if (rc == 0)
        rc = run(st, f, at, mean, 0, &out, &rate);
    if (rc == 0 && out.n < 100)
        rc = err_set(-EIO, "only %zu tasks in %g s", out.n, st->slice);
    if (rc == 0)
        *lat = samples_quantiles(&out);
    samples_free(&out);
    return rc;
}

static int turn(const struct settings *st, const struct fixture *f, const char *group,
                const char *at, unsigned t, struct table *tab)
{
    uint64_t window = strcmp(at, f->local) == 0 ? 256 : 4096;
    progress(group, t + 1, st->turns);
    int rc = run(st, f, at, 0, window, NULL, &tab->peak[t]);
    for (size_t k = 0; k < LOADS && rc == 0; k++) {
        size_t i = t % 2 ? LOADS - 1 - k : k;
        double a_second = tab->peak[t] * loads[i] / 100;
        progress(group, t + 1, st->turns);
        rc = one_load(st, f, at, (double)clock_ticks_hz() / a_second, &tab->lat[i][t]);
        tab->v[i][0][t] = tab->lat[i][t].p50;
        tab->v[i][1][t] = tab->lat[i][t].p99;
        tab->v[i][2][t] = tab->lat[i][t].p999;
    }
    return rc;
}

static void to_report(const struct settings *st, struct report *rep, const char *transport,
                      const struct table *tab)
{
    static const char *const which[] = {"p50", "p99", "p99.9"};
    char name[40];
    snprintf(name, sizeof name, "%s.load.peak", transport);
    report_value(rep, name, "tasks/s", tab->peak, st->turns, NULL);
    for (size_t i = 0; i < LOADS; i++) {
        snprintf(name, sizeof name, "%s.load.%u%%", transport, loads[i]);
        report_latency(rep, name, tab->lat[i], st->turns, NULL);
    }
    for (int q = 0; q < 3; q++) {
        snprintf(name, sizeof name, "%s %s", transport, which[q]);
        struct curve *c = report_curve(rep, "load", name, "% of the peak", "latency, ns");
        for (size_t i = 0; i < LOADS; i++)
            curve_point(c, loads[i], tab->v[i][q], st->turns);
    }
}

int bench_openloop(const struct settings *st, struct report *rep, const struct fixture *f,
                   const char *transport)
{
    char group[40];
    snprintf(group, sizeof group, "%s.load", transport);
    if (!group_wanted(st, group, true))
        return 0;
    struct table *tab = calloc(1, sizeof *tab);
    int rc = tab ? 0 : -ENOMEM;
    for (unsigned t = 0; t < st->turns && rc == 0; t++)
        rc = turn(st, f, group, strcmp(transport, "shm") == 0 ? f->local : f->remote, t, tab);
    if (rc == 0)
        to_report(st, rep, transport, tab);
    else
        fprintf(stderr, "fabbench: %s: %s\n", group, err_text(rc));
    free(tab);
    return rc;
}
