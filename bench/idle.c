/* SPDX-License-Identifier: MIT
 *
 * idle.c - what an idle fabric uses: fabricd, a parked local worker and a remote worker with its
 * link, over some seconds, by the kernel's own account of each (/proc/PID/schedstat of all
 * threads).
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "bench/bench.h"
#include "core/clock.h"
#include "core/error.h"

/* ns on a core so far, all threads. */
static double used(int pid)
{
    char path[300];
    double sum = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        unsigned long long ns;
        snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, e->d_name);
        FILE *f = e->d_name[0] == '.' ? NULL : fopen(path, "re");
        if (f && fscanf(f, "%llu", &ns) == 1)
            sum += (double)ns;
        if (f)
            fclose(f);
    }
    if (d)
        closedir(d);
    return sum;
}

static int measure(const struct settings *st, const int *pid, size_t n, double *percent)
{
    nap_ns(500000000); /* all have parked */
    uint64_t from = clock_ns();
    double before[4], spent = 0;
    for (size_t i = 0; i < n; i++)
        before[i] = used(pid[i]);
    nap_ns((uint64_t)((st->quick ? 1 : 10) * 1e9));
    for (size_t i = 0; i < n; i++)
        spent += used(pid[i]) - before[i];
    if (before[0] <= 0)
        return err_set(-ENOSYS, "this kernel keeps no /proc/PID/schedstat");
    *percent = 100 * spent / (double)(clock_ns() - from);
    return 0;
}

int bench_idle(const struct settings *st, struct report *rep)
{
    static const char name[] = "idle.cpu";
    struct fixture f;
    double percent = 0;
    if (!group_wanted(st, "idle", true))
        return 0;
    progress(name, 1, 1);
    int rc = fixture_start(&f, st->build, "");
    if (rc < 0)
        goto fail;
    struct worker_spec near = {.address = f.local, .key = f.key, .batch = 1, .core = st->far_core},
                       link = {.address = f.remote, .key = f.key, .batch = 1, .core = st->far_core};
    int pid[3] = {f.pid, worker_start(&near), worker_start(&link)};
    rc = pid[1] < 0 ? pid[1] : pid[2] < 0 ? pid[2] : measure(st, pid, 3, &percent);
    child_stop(pid[1]);
    child_stop(pid[2]);
    (void)fixture_stop(&f);
fail:
    if (rc < 0) {
        fprintf(stderr, "fabbench: %s: %s\n", name, err_text(rc));
        return rc;
    }
    struct row *w = report_value(rep, name, "% of a core", &percent, 1, NULL);
    w->less_is_better = true;
    snprintf(w->note, sizeof w->note,
             "fabricd, a parked worker, a parked worker over a tcp link, %d s", st->quick ? 1 : 10);
    return 0;
}
