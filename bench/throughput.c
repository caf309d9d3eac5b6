/* SPDX-License-Identifier: MIT
 *
 * throughput.c - rates against the batch, and against the number of producers and workers.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "bench/bench.h"
#include "core/error.h"

static const unsigned quick_batches[] = {1, 4, 16, 32, 64, 256},
                      all_batches[] = {1, 2, 4, 8, 16, 32, 64, 128, 256};
#define ZEROMQ "zeromq.tcp" /* a floor with a program of its own */
#define BATCHES_MAX (sizeof all_batches / sizeof *all_batches)

static double turn_rate(const struct settings *st, const struct fixture *f, const char *at,
                        unsigned batch)
{
    struct load l = {.worker_at = at,
                     .job = job_feb(),
                     .batch = batch,
                     .together = true,
                     .producers = 1,
                     .workers = 1,
                     .seconds = st->quick ? st->seconds : st->slice};
    return measure_rate(st, f, &l);
}

/* What the rates are compared with: bare rings, or ZeroMQ. */
static int floor_turn(const struct settings *st, const char *floor, unsigned t,
                      double (*floors)[TURNS_MAX])
{
    if (strcmp(floor, ZEROMQ) == 0) {
        floors[0][t] = zeromq_rate(st, false, st->quick ? st->seconds : st->slice);
        return floors[0][t] < 0 ? -EIO : 0;
    }
    floors[0][t] = floor_vyukov(st);
    floors[1][t] = floor_spsc(st);
    return 0;
}

static int turn(const struct settings *st, const struct fixture *f, const char *at,
                const unsigned *batch, size_t n, unsigned t, double (*v)[TURNS_MAX],
                const char *floor, double (*floors)[TURNS_MAX])
{
    for (size_t k = 0; k < n; k++) {
        size_t i = t % 2 ? n - 1 - k : k;
        v[i][t] = turn_rate(st, f, at, batch[i]);
        if (v[i][t] < 0)
            return -EIO;
    }
    return floor ? floor_turn(st, floor, t, floors) : 0;
}

static void to_report(const struct settings *st, struct report *rep, const char *transport,
                      const unsigned *batch, size_t n, double (*v)[TURNS_MAX], const char *floor)
{
    char name[40];
    size_t best = 0;
    struct row *w;
    snprintf(name, sizeof name, "%s.throughput.batch1", transport);
    w = report_value(rep, name, "tasks/s", v[0], st->turns, floor);
    w->batch = 1;
    for (size_t i = 1; i < n; i++)
        if (spread_of(v[i], st->turns).median > spread_of(v[best], st->turns).median || best == 0)
            best = i;
    snprintf(name, sizeof name, "%s.throughput.best", transport);
    w = report_value(rep, name, "tasks/s", v[best], st->turns, floor);
    w->batch = batch[best];
    struct curve *c = report_curve(rep, "batch", transport, "tasks a batch", "tasks/s");
    for (size_t i = 0; i < n; i++)
        curve_point(c, batch[i], v[i], st->turns);
}

int bench_throughput(const struct settings *st, struct report *rep, const struct fixture *f,
                     const char *transport, const char *floor)
{
    const unsigned *batch = st->quick ? quick_batches : all_batches;
    size_t n = st->quick ? sizeof quick_batches / sizeof *batch : BATCHES_MAX;
    const char *at = strcmp(transport, "shm") == 0 ? f->local : f->remote;
    double v[BATCHES_MAX][TURNS_MAX], floors[2][TURNS_MAX];
    char group[40];
    snprintf(group, sizeof group, "%s.throughput", transport);
    if (!group_wanted(st, group, false) && !(floor && group_wanted(st, floor, false)))
        return 0;
    for (unsigned t = 0; t < st->turns; t++) {
        progress(group, t + 1, st->turns);
        if (turn(st, f, at, batch, n, t, v, floor, floors) < 0) {
            fprintf(stderr, "fabbench: %s: %s\n", group, fab_errmsg());
            return -EIO;
        }
    }
    if (floor && strcmp(floor, ZEROMQ) == 0) {
        struct row *w = report_value(rep, ZEROMQ, "tasks/s", floors[0], st->turns, NULL);
        w->bare = true;
        snprintf(w->note, sizeof w->note, "PUSH/PULL with answers, its best batch; no ack");
    } else if (floor) {
        report_value(rep, "shm.vyukov", "values/s", floors[0], st->turns, NULL)->bare = true;
        report_value(rep, "shm.spsc", "values/s", floors[1], st->turns, NULL)->bare = true;
    }
    to_report(st, rep, transport, batch, n, v, floor);
    return 0;
}

/* ---- more producers and workers ---- */

int bench_scale(const struct settings *st, struct report *rep, const struct fixture *f)
{
    static const unsigned each[] = {1, 2, 4};
    enum { N = sizeof each / sizeof *each };
    double v[N][TURNS_MAX];
    if (!group_wanted(st, "shm.scale", true))
        return 0;
    for (unsigned t = 0; t < st->turns; t++)
        for (size_t k = 0; k < N; k++) {
            size_t i = t % 2 ? N - 1 - k : k;
            struct load l = {.worker_at = f->local,
                             .job = job_feb(),
                             .batch = 16,
                             .together = true,
                             .producers = each[i],
                             .workers = each[i],
                             .seconds = st->slice};
            progress("shm.scale", t + 1, st->turns);
            v[i][t] = measure_rate(st, f, &l);
            if (v[i][t] < 0) {
                fprintf(stderr, "fabbench: shm.scale: %s\n", fab_errmsg());
                return -EIO;
            }
        }
    struct curve *c = report_curve(rep, "scale", "shm", "producers and as many workers", "tasks/s");
    for (size_t i = 0; i < N; i++) {
        char name[40];
        snprintf(name, sizeof name, "shm.scale.%u+%u", each[i], each[i]);
        struct row *w =
            report_value(rep, name, "tasks/s", v[i], st->turns, i > 0 ? "shm.scale.1+1" : NULL);
        w->batch = 16;
        if (2 * (int)each[i] > st->cores.n)
            snprintf(w->note, sizeof w->note, "%u threads on %d cores", 2 * each[i], st->cores.n);
        curve_point(c, each[i], v[i], st->turns);
    }
    return 0;
}
