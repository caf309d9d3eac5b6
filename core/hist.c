/* SPDX-License-Identifier: MIT
 *
 * hist.c - log-linear histogram.
 *
 * Threads: one writer a histogram, any number of readers. All accesses are relaxed: each counter
 * is a lone number that publishes nothing, and readers accept counters of slightly different
 * moments. The writer's read-modify-write is a load and a store, since nobody else writes.
 *
 * A histogram may lie in memory that another process has scribbled over: any content gives some
 * number, none an access out of bounds or an endless loop.
 */
#include "core/hist.h"

#define SUB (1u << HIST_SUB_BITS)

/* Values below SUB have a bucket each; above, the row is the highest bit and the column the
 * HIST_SUB_BITS bits after it. */
static uint32_t bucket_of(uint64_t v)
{
    if (v < SUB)
        return (uint32_t)v;
    if (v >> HIST_MAX_BITS)
        return HIST_BUCKETS - 1;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(v) - HIST_SUB_BITS;
    return ((shift + 1) << HIST_SUB_BITS) + ((uint32_t)(v >> shift) & (SUB - 1));
}

/* The largest value of bucket i. */
static uint64_t upper_edge(uint32_t i)
{
    if (i < SUB)
        return i;
    if (i == HIST_BUCKETS - 1) /* it has all that is larger, too */
        return UINT64_MAX;
    uint32_t shift = (i >> HIST_SUB_BITS) - 1;
    return ((uint64_t)(SUB + (i & (SUB - 1)) + 1) << shift) - 1;
}

/* Rounded up: a rare outlier stays visible. */
static void halve(struct hist *h)
{
    for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
        uint32_t n = at_load_rlx(&h->bucket[i]); /* relaxed: see the top */
        at_store_rlx(&h->bucket[i], n / 2 + (n & 1));
    }
}

void hist_add_n(struct hist *h, uint64_t ns, uint32_t n)
{
    if (n == 0)
        return;
    _Atomic uint32_t *b = &h->bucket[bucket_of(ns)];
    uint64_t now = (uint64_t)at_load_rlx(b) + n; /* relaxed: see the top; so are all below */
    if (__builtin_expect(now > UINT32_MAX, 0)) {
        halve(h);
        now /= 2;
    }
    if (ns > at_load_rlx(&h->max))
        at_store_rlx(&h->max, ns);
    at_store_rlx(b, (uint32_t)now);
    at_store_rlx(&h->count, at_load_rlx(&h->count) + n);
    at_store_rlx(&h->sum, at_load_rlx(&h->sum) + ns * n);
}

void hist_add(struct hist *h, uint64_t ns)
{
    hist_add_n(h, ns, 1);
}

uint64_t hist_quantile(const struct hist *h, double q)
{
    /* The buckets' own sum, for the count is of another moment. Relaxed: see the top. */
    uint64_t total = 0, seen = 0;
    for (uint32_t i = 0; i < HIST_BUCKETS; i++)
        total += at_load_rlx(&h->bucket[i]);
    uint64_t max = at_load_rlx(&h->max);
    if (total == 0)
        return 0;
    double exact = q > 0 ? q * (double)total : 0; /* not a number: the smallest */
    uint64_t rank = exact >= (double)total ? total : (uint64_t)exact;
    if ((double)rank < exact && rank < total) /* the ceiling; 1 is the smallest value */
        rank++;
    if (rank == 0)
        rank = 1;
    for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
        seen += at_load_rlx(&h->bucket[i]);
        if (seen >= rank)
            return upper_edge(i) < max ? upper_edge(i) : max;
    }
    return max; /* halved under our eyes */
}

void hist_merge(struct hist *into, const struct hist *from)
{
    /* relaxed: see the top */
    uint64_t most = 0, max = at_load_rlx(&from->max);
    for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
        uint64_t n = (uint64_t)at_load_rlx(&into->bucket[i]) + at_load_rlx(&from->bucket[i]);
        most = n > most ? n : most;
    }
    uint32_t shift = most > UINT32_MAX; /* as if `into` had been added to until it was halved */
    for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
        uint64_t n = (uint64_t)at_load_rlx(&into->bucket[i]) + at_load_rlx(&from->bucket[i]);
        n = (n + shift) >> shift;
        at_store_rlx(&into->bucket[i], n < UINT32_MAX ? (uint32_t)n : UINT32_MAX);
    }
    if (max > at_load_rlx(&into->max))
        at_store_rlx(&into->max, max);
    at_store_rlx(&into->count, at_load_rlx(&into->count) + at_load_rlx(&from->count));
    at_store_rlx(&into->sum, at_load_rlx(&into->sum) + at_load_rlx(&from->sum));
}

void hist_reset(struct hist *h)
{
    for (uint32_t i = 0; i < HIST_BUCKETS; i++)
        at_store_rlx(&h->bucket[i], 0); /* relaxed: see the top */
    at_store_rlx(&h->count, 0);
    at_store_rlx(&h->sum, 0);
    at_store_rlx(&h->max, 0);
}
