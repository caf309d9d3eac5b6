/* SPDX-License-Identifier: MIT
 *
 * rtt.c - see rtt.h.
 */
#include "apps/fabricd/rtt.h"
#include <stdlib.h>
#include <string.h>

#define RTT_UNIT_NS 64u /* 32 bits of these are 4.5 minutes */
/* Between two PINGs that measure: four a second for a few links, 1000 a second for all together. */
#define EVERY_NS      250000000u
#define EVERY_LINK_NS 1000000u
/* A fresh link gets so many whether it is used or not, at shorter steps. */
#define FRESH    8u
#define FRESH_NS 100000000u
/* Those of many links are due together, so that fabricd wakes once for all. */
#define GRID_NS 50000000u

void rtt_begin(struct rtt *r, uint64_t now_ns)
{
    r->last_ns = now_ns;
    r->sent_ns = 0;
}

void rtt_sent(struct rtt *r, uint64_t sent_ns)
{
    r->last_ns = sent_ns;
    if (!r->sent_ns)
        r->sent_ns = sent_ns;
}

bool rtt_answered(struct rtt *r, uint64_t sent_ns, uint64_t now_ns)
{
    if (sent_ns == 0 || sent_ns != r->sent_ns)
        return false;
    uint64_t took = (now_ns > sent_ns ? now_ns - sent_ns : 0) / RTT_UNIT_NS;
    r->kept[r->n++ % RTT_KEEP] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
    r->sent_ns = 0;
    return true;
}

static uint64_t on_grid(uint64_t ns)
{
    return (ns + GRID_NS - 1) / GRID_NS * GRID_NS;
}

bool rtt_due(const struct rtt *r, uint64_t heard_ns, uint32_t links, uint64_t now_ns,
             uint64_t *next)
{
    bool fresh = r->n < FRESH, due;
    uint64_t step = (fresh ? FRESH_NS : EVERY_NS) + (uint64_t)links * EVERY_LINK_NS;
    uint64_t then = r->last_ns + step;
    if (!fresh) /* a lane that was used since will be looked at again */
        return !r->sent_ns && heard_ns > r->last_ns && now_ns >= then;
    then = on_grid(then);
    due = now_ns >= then;
    if (due) /* for the next one; nobody looks because this one is answered */
        then = on_grid(now_ns + step);
    if (then < *next)
        *next = then;
    return due && !r->sent_ns;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

bool rtt_quantiles(struct rtt *r, uint64_t *p50_ns, uint64_t *p99_ns)
{
    uint32_t sorted[RTT_KEEP], n = r->n < RTT_KEEP ? r->n : RTT_KEEP;
    if (r->shown == r->n)
        return false;
    memcpy(sorted, r->kept, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_size);
    /* nearest rank, and never 0: that would be "not measured" */
    *p50_ns = (uint64_t)sorted[(n * 50 + 99) / 100 - 1] * RTT_UNIT_NS + RTT_UNIT_NS / 2;
    *p99_ns = (uint64_t)sorted[(n * 99 + 99) / 100 - 1] * RTT_UNIT_NS + RTT_UNIT_NS / 2;
    r->shown = r->n;
    return true;
}
