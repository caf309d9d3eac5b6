/* SPDX-License-Identifier: MIT
 *
 * fairness.c - two remote workers, one ten times slower: how long a pile of equal tasks takes,
 * against the least time it could take.
 *
 * Both sleep instead of computing, so that the figure is about who gets which task and not about
 * the cores of this machine; they do so without a call into the fabric, as a kernel that computes
 * would. Before it both have had thousands of tasks of no length and ask for hundreds at once; each
 * claims CLAIM at a time. So the slow one begins with far too many, and has to lose them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/clock.h"
#include "core/error.h"

#define TASKS  220u
#define TASK   3000000u /* ns, for the fast one */
#define SLOWER 10u
#define SHORT  20000u
#define CLAIM  16u

static int run_one(fab_t *f, const struct fab_lease *l, uint64_t factor)
{
    uint64_t ns = *(const uint64_t *)fab_arg(l) * factor;
    int rc = fab_begin(f, l);
    if (rc == -ESTALE)
        return 0;
    if (rc < 0)
        return rc;
    if (ns)
        nap_ns(ns);
    return fab_complete(f, l, &factor, sizeof factor);
}

static void worker(const struct fixture *f, uint64_t factor, int ready)
{
    struct fab_options o = {
        .roles = FAB_WORKER, .flags = FAB_BEGINS, .name = "fairness", .key_file = f->key};
    struct fab_lease l[CLAIM];
    fab_t *h;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (fab_open(&h, f->remote, &o) < 0 || write(ready, "!", 1) != 1) {
        fprintf(stderr, "fabbench: the worker: %s\n", fab_errmsg());
        _exit(1);
    }
    for (;;) {
        long n = fab_claim(h, 0, l, CLAIM, FAB_FOREVER);
        int rc = n < 0 ? (int)n : 0;
        for (long i = 0; i < n && rc >= 0; i++)
            rc = run_one(h, &l[i], factor);
        if (rc < 0)
            _exit(0);
    }
}

static int start_worker(const struct fixture *f, uint64_t factor)
{
    int ready[2];
    char ok = 0;
    if (pipe(ready) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0)
        worker(f, factor, ready[1]);
    close(ready[1]);
    if (read(ready[0], &ok, 1) != 1) {
        child_stop(pid);
        pid = err_set(-EIO, "the worker did not start");
    }
    close(ready[0]);
    return pid;
}

/* Submits n tasks of that length and waits for all; *slow gets how many the slow one did. */
static int pile(fab_t *f, size_t n, uint64_t ns, uint64_t *took, double *slow)
{
    struct fab_task *t = calloc(n, sizeof *t);
    struct fab_outcome o[64];
    uint64_t start = clock_ns();
    size_t at = 0, back = 0;
    long rc = t ? 0 : -ENOMEM;
    for (size_t i = 0; t && i < n; i++)
        t[i] = (struct fab_task){.kernel = 1, .arg = &ns, .len = sizeof ns};
    *slow = 0;
    while (rc >= 0 && back < n) {
        if (at < n && (rc = fab_submit(f, t + at, n - at, NULL, FAB_FOREVER)) > 0)
            at += (size_t)rc;
        if (rc < 0 || (rc = fab_wait_any(f, o, 64, FAB_FOREVER)) < 0)
            break;
        for (long i = 0; i < rc; i++)
            *slow += o[i].status == FAB_COMPLETED && o[i].small == SLOWER;
        back += (size_t)rc;
    }
    *took = clock_ns() - start;
    free(t);
    return rc < 0 ? (int)rc : 0;
}

/* The least time in which n equal tasks can be done by one worker of each kind. */
static uint64_t least_ns(size_t n)
{
    uint64_t t = TASK;
    while (t / TASK + t / (TASK * SLOWER) < n)
        t += TASK;
    return t;
}

static int measure(const struct fixture *f, double *ratio, double *slow)
{
    struct fab_options o = {.roles = FAB_PRODUCER, .name = "fairness"};
    uint64_t took = 0;
    fab_t *h;
    int rc = fab_open(&h, f->local, &o);
    if (rc < 0)
        return rc;
    rc = pile(h, SHORT, 0, &took, slow);
    if (rc == 0)
        rc = pile(h, TASKS, TASK, &took, slow);
    *ratio = (double)took / (double)least_ns(TASKS);
    fab_close(h);
    return rc;
}

int bench_fairness(const struct settings *st, struct report *rep)
{
    static const char name[] = "tcp.fairness";
    double ratio[TURNS_MAX], slow = 0;
    struct fixture f;
    if (!group_wanted(st, name, true))
        return 0;
    int rc = fixture_start(&f, st->build, "");
    if (rc < 0)
        goto fail;
    int pid[2] = {start_worker(&f, 1), start_worker(&f, SLOWER)};
    rc = pid[0] < 0 ? pid[0] : pid[1] < 0 ? pid[1] : 0;
    for (unsigned i = 0; i < st->turns && rc == 0; i++) {
        progress(name, i + 1, st->turns);
        rc = measure(&f, &ratio[i], &slow);
    }
    child_stop(pid[0]);
    child_stop(pid[1]);
    (void)fixture_stop(&f);
fail:
    if (rc < 0) {
        fprintf(stderr, "fabbench: %s: %s\n", name, err_text(rc));
        return rc;
    }
    struct row *w = report_value(rep, name, "x the least time", ratio, st->turns, NULL);
    w->less_is_better = true;
    snprintf(
        w->note, sizeof w->note,
        "2 remote workers, one %ux slower: %u tasks of %.0f ms, %.0f ms at least; the slow one did "
        "%.0f of them",
        SLOWER, TASKS, TASK / 1e6, (double)least_ns(TASKS) / 1e6, slow);
    return 0;
}
