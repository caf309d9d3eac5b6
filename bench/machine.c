/* SPDX-License-Identifier: MIT
 *
 * machine.c - what else ran on this machine while we measured: the kernel's count of busy time less
 * our own and our children's. A load average says neither how much of it is ours nor what happened
 * in between.
 */
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>
#include "bench/bench.h"

static struct load_mark mark;
static double own_mark;

static struct load_mark now(void)
{
    double v[8] = {0}, hz = (double)sysconf(_SC_CLK_TCK);
    struct load_mark m = {0};
    FILE *f = fopen("/proc/stat", "re");
    /* user nice system idle iowait irq softirq steal */
    if (f && fscanf(f, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &v[0], &v[1], &v[2], &v[3], &v[4],
                    &v[5], &v[6], &v[7]) == 8) {
        m.busy = (v[0] + v[1] + v[2] + v[5] + v[6]) / hz;
        m.steal = v[7] / hz;
        m.total = m.busy + m.steal + (v[3] + v[4]) / hz;
    }
    if (f)
        fclose(f);
    return m;
}

static double own(void)
{
    double sum = 0;
    const int who[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
    for (int i = 0; i < 2; i++) {
        struct rusage u;
        getrusage(who[i], &u);
        sum += (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
               (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
    }
    return sum;
}

void load_begin(void)
{
    mark = now();
    own_mark = own();
}

void load_others(double *others, double *steal)
{
    struct load_mark m = now();
    double total = m.total - mark.total, busy = m.busy - mark.busy - (own() - own_mark);
    *others = total > 0 && busy > 0 ? busy / total : 0;
    *steal = total > 0 ? (m.steal - mark.steal) / total : 0;
}
