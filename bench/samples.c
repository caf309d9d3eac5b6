/* SPDX-License-Identifier: MIT
 *
 * samples.c - samples, quantiles, stamps.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "bench/bench.h"
#include "core/clock.h"

int samples_init(struct samples *s, size_t n)
{
    s->n = s->room = n;
    s->spent = s->limit = 0;
    s->ns =
        mmap(NULL, n * sizeof *s->ns, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s->ns != MAP_FAILED)
        return 0;
    s->ns = NULL;
    return -ENOMEM;
}

void samples_put(struct samples *s, size_t k, uint64_t ns)
{
    s->ns[k] = ns;
    s->spent += ns;
    if (s->limit && s->spent > s->limit && k >= 99)
        s->n = k + 1;
}

void samples_free(struct samples *s)
{
    if (s->ns)
        munmap(s->ns, s->room * sizeof *s->ns);
    s->ns = NULL;
}

static int by_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The tick counter of some machines moves in steps as long as a good part of a round trip: the
 * median is taken as the mean of the middle tenth, which resolves finer than one step. */
static double middle(const struct samples *s)
{
    size_t from = s->n * 45 / 100, to = s->n * 55 / 100 + 1;
    double sum = 0;
    for (size_t i = from; i < to; i++)
        sum += (double)s->ns[i];
    return sum / (double)(to - from);
}

struct latency samples_quantiles(struct samples *s)
{
    qsort(s->ns, s->n, sizeof *s->ns, by_u64);
    return (struct latency){.p50 = middle(s),
                            .p99 = (double)s->ns[s->n * 99 / 100],
                            .p999 = (double)s->ns[s->n * 999 / 1000]};
}

double samples_at(const struct samples *s, double p)
{
    double beyond = (double)s->n * (1 - p / 100);
    if (s->n == 0 || (p > 50 && beyond < 5))
        return -1;
    return (double)s->ns[s->n - 1 - (size_t)(beyond < 1 ? 0 : beyond - 1)];
}

uint64_t stamp(void)
{
    return clock_ticks();
}

static uint64_t stamp_cost(void)
{
    static uint64_t cost;
    uint64_t d[1001];
    if (cost)
        return cost;
    for (int i = 0; i < 1001; i++) {
        uint64_t t = stamp();
        d[i] = stamp() - t;
    }
    qsort(d, 1001, sizeof *d, by_u64);
    cost = d[500] ? d[500] : 1;
    return cost;
}

uint64_t stamp_ns(uint64_t from, uint64_t to)
{
    uint64_t span = to - from, cost = stamp_cost();
    return clock_ticks_to_ns(span > cost ? span - cost : 0, clock_ticks_hz());
}
