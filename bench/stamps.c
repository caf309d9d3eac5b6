/* SPDX-License-Identifier: MIT
 *
 * stamps.c - what it costs a task that its stages are always timed (core/stages.h): the same loop of
 * one thread with the library as it is and with one that does not read the clock, in turns. Nothing
 * in the library is there for it: the other one is built anew (FABRIC_STILL_CLOCK).
 *
 * The stamps are still stored in the second, and put into histograms: what falls out is the readings.
 *
 * Threads: this process waits; the loop is a child, pinned to the near core.
 * Failure: programs that were not built are told as the row's reason.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/error.h"

enum { REAL, STILL, CLOCKS };

static const char *const programs[CLOCKS] = {"stamps-real", "stamps-still"};

static bool there(const struct settings *st)
{
    char path[PATH_MAX];
    bool all = true;
    for (int i = 0; i < CLOCKS; i++) {
        snprintf(path, sizeof path, "%s/bench/%s", st->build, programs[i]);
        all = all && access(path, X_OK) == 0;
    }
    return all;
}

static int run(const struct settings *st, const struct fixture *f, int which, unsigned batch,
               double *ns, double *reads)
{
    char cmd[PATH_MAX + 300], line[128] = "";
    snprintf(cmd, sizeof cmd, "'%s/bench/%s' '%s' %u %.3f %d", st->build, programs[which],
             f->local + strlen("unix:"), batch, st->slice, st->near_core);
    FILE *p = popen(cmd, "re");
    if (p)
        (void)!fgets(line, sizeof line, p);
    int status = p ? pclose(p) : -1;
    return status == 0 && sscanf(line, "%lf %lf", ns, reads) == 2
               ? 0
               : err_set(-EIO, "%s failed", programs[which]);
}

static int measure(const struct settings *st, struct report *rep, const struct fixture *f,
                   const char *name, unsigned batch)
{
    double ns[CLOCKS][TURNS_MAX], cost[TURNS_MAX], reads = 0, none;
    int rc = 0;
    for (unsigned t = 0; t < st->turns && rc == 0; t++) {
        progress(name, t + 1, st->turns);
        for (int k = 0; k < CLOCKS && rc == 0; k++) {
            int which = t % 2 ? CLOCKS - 1 - k : k;
            rc = run(st, f, which, batch, &ns[which][t], which == STILL ? &reads : &none);
        }
        cost[t] = ns[REAL][t] - ns[STILL][t];
    }
    if (rc < 0) {
        fprintf(stderr, "fabbench: %s: %s\n", name, err_text(rc));
        return rc;
    }
    struct row *w = report_value(rep, name, "ns", cost, st->turns, NULL);
    w->less_is_better = true;
    w->batch = batch;
    snprintf(w->note, sizeof w->note,
             "of %.0f ns a task by one thread: %.3g readings of the clock a task, %.1f ns each",
             spread_of(ns[REAL], st->turns).median, reads,
             reads > 0 ? w->value / reads : 0);
    return 0;
}

int bench_stamps(const struct settings *st, struct report *rep, const struct fixture *f)
{
    if (!group_wanted(st, "shm.stamps", true))
        return 0;
    if (!there(st)) {
        report_skip(rep, "shm.stamps", "bench/stamps-real and bench/stamps-still were not built");
        return 0;
    }
    int rc = measure(st, rep, f, "shm.stamps", 16);
    return rc < 0 ? rc : measure(st, rep, f, "shm.stamps.batch1", 1);
}
