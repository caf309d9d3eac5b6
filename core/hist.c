/* SPDX-License-Identifier: MIT
 *
 * hist.c - see hist.h. Relaxed throughout: each counter has one writer and readers want numbers,
 * not order.
 */
#include "core/hist.h"

#define SUB (1u << HIST_SUB_BITS)

static uint32_t index_of(uint64_t v)
{
    if (v < SUB)
        return (uint32_t)v;
    if (v >> HIST_MAX_BITS)
        return HIST_BUCKETS - 1;
    uint32_t top = 63u - (uint32_t)__builtin_clzll(v); /* >= HIST_SUB_BITS */
    uint32_t shift = top - HIST_SUB_BITS;
    return ((shift + 1) << HIST_SUB_BITS) + (uint32_t)((v >> shift) & (SUB - 1));
}

/* The largest value that falls into bucket i. */
static uint64_t upper_edge(uint32_t i)
{
    if (i < SUB)
        return i;
    uint32_t shift = (i >> HIST_SUB_BITS) - 1;
    return ((uint64_t)(SUB + (i & (SUB - 1)) + 1) << shift) - 1;
}

void hist_add_n(struct hist *h, uint64_t ns, uint32_t n)
{
    _Atomic uint32_t *b = &h->bucket[index_of(ns)];
    at_store_rlx(b, at_load_rlx(b) + n);
    at_store_rlx(&h->count, at_load_rlx(&h->count) + n);
    at_store_rlx(&h->sum, at_load_rlx(&h->sum) + ns * n);
    if (ns > at_load_rlx(&h->max))
        at_store_rlx(&h->max, ns);
}

void hist_add(struct hist *h, uint64_t ns)
{
    hist_add_n(h, ns, 1);
}

uint64_t hist_quantile(const struct hist *h, double q)
{
    uint64_t total = 0, seen = 0, max = at_load_rlx(&h->max);
    /* the buckets' own sum: `count` may be ahead of or behind them */
    for (uint32_t i = 0; i < HIST_BUCKETS; i++)
        total += at_load_rlx(&h->bucket[i]);
    if (total == 0)
        return 0;
    uint64_t rank = (uint64_t)(q * (double)total);
    if (rank >= total)
        rank = total - 1;
    for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
        seen += at_load_rlx(&h->bucket[i]);
        if (seen > rank)
            return i == HIST_BUCKETS - 1 || upper_edge(i) > max ? max : upper_edge(i);
    }
    return max;
}

void hist_merge(struct hist *into, const struct hist *from)
{
    uint64_t max = at_load_rlx(&from->max);
    for (uint32_t i = 0; i < HIST_BUCKETS; i++)
        at_store_rlx(&into->bucket[i],
                     at_load_rlx(&into->bucket[i]) + at_load_rlx(&from->bucket[i]));
    at_store_rlx(&into->count, at_load_rlx(&into->count) + at_load_rlx(&from->count));
    at_store_rlx(&into->sum, at_load_rlx(&into->sum) + at_load_rlx(&from->sum));
    if (max > at_load_rlx(&into->max))
        at_store_rlx(&into->max, max);
}

void hist_reset(struct hist *h)
{
    for (uint32_t i = 0; i < HIST_BUCKETS; i++)
        at_store_rlx(&h->bucket[i], 0);
    at_store_rlx(&h->count, 0);
    at_store_rlx(&h->sum, 0);
    at_store_rlx(&h->max, 0);
}
