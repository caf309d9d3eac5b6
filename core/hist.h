/* SPDX-License-Identifier: MIT
 *
 * hist.h - log-linear histogram of durations.
 *
 * Values 0 .. 2^40-1 ns (18 minutes; larger ones are put in the last bucket)
 * with 16 sub-buckets for each power of two: a quantile is off by at most 1/16
 * (6.25 %). Fixed size, no pointers, so that it can live in shared memory; one
 * writer a histogram, any number of readers. The method is that of HdrHistogram
 * (Tene), cut down to one precision.
 *
 * Counters are relaxed atomics written by one thread; a reader sees each counter
 * whole but not all of them at one instant, which quantiles do not mind. Before
 * a bucket overflows (4 billion values) the writer halves all of them: quantiles
 * then favour what came later; count, sum and max stay exact.
 */
#ifndef FABRIC_HIST_H
#define FABRIC_HIST_H

#include <stdint.h>
#include "core/atomic.h"

#define HIST_SUB_BITS 4
#define HIST_MAX_BITS 40
#define HIST_BUCKETS  ((HIST_MAX_BITS - HIST_SUB_BITS + 1) << HIST_SUB_BITS)

struct hist {
    _Atomic uint64_t count;
    _Atomic uint64_t sum;
    _Atomic uint64_t max;
    _Atomic uint32_t bucket[HIST_BUCKETS];
};

void hist_add(struct hist *h, uint64_t ns);
void hist_add_n(struct hist *h, uint64_t ns, uint32_t n);
/* q in 0..1 (others count as the nearer of the two); 0 when empty. The upper edge of the bucket
 * that holds the value of rank ceil(q * count), at most max. */
uint64_t hist_quantile(const struct hist *h, double q);
/* into += from. The caller is the writer of `into`; `from` may be live. */
void hist_merge(struct hist *into, const struct hist *from);
void hist_reset(struct hist *h);

#endif
