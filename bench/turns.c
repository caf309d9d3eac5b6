/* SPDX-License-Identifier: MIT
 *
 * turns.c - measurements that are compared take turns: first to last, then last to first, and so
 * on, so that what changes on the machine meanwhile falls on all of them alike.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/error.h"

#define SERIES_MAX 8

/* Where the latency pictures have points, in percent. */
static const double levels[] = {0,  1,  5,    10,   25,    50,    75,     90,
                                95, 99, 99.5, 99.9, 99.95, 99.99, 99.999, 99.9999};
#define LEVELS (sizeof levels / sizeof *levels)
static_assert(LEVELS <= POINTS_MAX, "a curve has room for the levels");

/* One turn of a series, in a child of its own: once a process has opened a verbs device, children
 * forked later can't use one, and the far sides are such children. */
static int one_turn(const struct settings *st, const struct series *s, struct samples *out)
{
    struct {
        int rc;
        size_t n;
        char why[240];
    } said = {.rc = -EIO, .why = "it ended without a word"};
    int fd[2];
    if (pipe2(fd, O_CLOEXEC) < 0)
        return err_set(-errno, "a pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        said.rc = s->fn(st, s->arg, out);
        said.n = out->n;
        if (said.rc < 0)
            snprintf(said.why, sizeof said.why, "%s", err_text(said.rc));
        _exit(write(fd[1], &said, sizeof said) != sizeof said);
    }
    close(fd[1]);
    (void)!read(fd[0], &said, sizeof said); /* nothing read: as it was set above */
    close(fd[0]);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    if (said.rc < 0)
        return err_set(said.rc, "%s", said.why);
    out->n = said.n;
    return 0;
}

/* Of one series: all turns. */
struct collected {
    struct latency lat[TURNS_MAX];
    double at[LEVELS][TURNS_MAX];
};

static int measure_turn(const struct settings *st, const struct series *s, unsigned t, bool apart,
                        struct collected *c)
{
    struct samples out;
    progress(s->name, t + 1, st->turns);
    int rc = samples_init(&out, s->rounds ? s->rounds : st->rounds);
    out.limit = (uint64_t)(st->seconds * 10e9);
    if (rc == 0)
        rc = apart ? one_turn(st, s, &out) : s->fn(st, s->arg, &out);
    if (rc == 0) {
        c->lat[t] = samples_quantiles(&out);
        for (size_t l = 0; l < LEVELS; l++)
            c->at[l][t] = samples_at(&out, levels[l]);
    } else {
        fprintf(stderr, "fabbench: %s: %s\n", s->name, err_text(rc));
    }
    samples_free(&out);
    return rc;
}

static void to_report(const struct settings *st, struct report *rep, const struct series *s,
                      const struct collected *c)
{
    struct row *w = report_latency(rep, s->name, c->lat, st->turns, s->floor);
    snprintf(w->note, sizeof w->note, "%s", s->note ? s->note : "");
    w->bare = s->bare;
    struct curve *k = report_curve(rep, "latency", s->name, "percentile", "round trip, ns");
    for (size_t l = 0; l < LEVELS; l++) {
        bool known = true;
        for (unsigned t = 0; t < st->turns; t++)
            known = known && c->at[l][t] >= 0;
        if (known)
            curve_point(k, levels[l], c->at[l], st->turns);
    }
}

static bool needed(const struct settings *st, const struct series *s, size_t n, size_t i)
{
    bool yes = wanted(st, s[i].name);
    for (size_t k = 0; k < n && !yes; k++)
        yes = wanted(st, s[k].name) && s[k].floor && strcmp(s[k].floor, s[i].name) == 0;
    return yes;
}

int run_series(const struct settings *st, struct report *rep, const struct series *all, size_t n,
               bool apart)
{
    struct series s[SERIES_MAX];
    size_t m = 0;
    int rc = 0;
    for (size_t i = 0; i < n && m < SERIES_MAX; i++)
        if (needed(st, all, n, i))
            s[m++] = all[i];
    struct collected *c = calloc(SERIES_MAX, sizeof *c);
    if (!c)
        return -ENOMEM;
    for (unsigned t = 0; t < st->turns && rc == 0; t++)
        for (size_t k = 0; k < m && rc == 0; k++) {
            size_t i = t % 2 ? m - 1 - k : k;
            rc = measure_turn(st, &s[i], t, apart, &c[i]);
        }
    for (size_t i = 0; i < m && rc == 0; i++)
        to_report(st, rep, &s[i], &c[i]);
    free(c);
    return rc;
}

static bool probe_needed(const struct settings *st, const struct probe *p, size_t n, size_t i)
{
    bool yes = wanted(st, p[i].name);
    for (size_t k = 0; k < n && !yes; k++)
        yes = wanted(st, p[k].name) && p[k].floor && strcmp(p[k].floor, p[i].name) == 0;
    return yes;
}

int run_probes(const struct settings *st, struct report *rep, const struct probe *p, size_t n,
               unsigned turns)
{
    double v[SERIES_MAX][TURNS_MAX];
    int rc = 0;
    for (unsigned t = 0; t < turns && rc == 0; t++)
        for (size_t k = 0; k < n && rc == 0; k++) {
            size_t i = t % 2 ? n - 1 - k : k;
            if (!probe_needed(st, p, n, i))
                continue;
            progress(p[i].name, t + 1, turns);
            rc = p[i].fn(st, p[i].arg, &v[i][t]);
            if (rc < 0)
                fprintf(stderr, "fabbench: %s: %s\n", p[i].name, err_text(rc));
        }
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (!probe_needed(st, p, n, i))
            continue;
        struct row *w = report_value(rep, p[i].name, p[i].unit, v[i], turns, p[i].floor);
        w->batch = p[i].batch;
        w->less_is_better = p[i].less_is_better;
        w->bare = p[i].bare;
        snprintf(w->note, sizeof w->note, "%s", p[i].note ? p[i].note : "");
    }
    return rc;
}
