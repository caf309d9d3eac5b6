/* SPDX-License-Identifier: MIT
 *
 * wake.h - waiting: spin while it pays, then sleep on a futex, and never miss a wake-up.
 *
 * Two places to sleep: a queue (workers without work) and a participant's bell
 * (a producer without outcomes). Each has a `parked` word and a `seq` futex.
 *
 *   sleeper                                   waker
 *   S1  parked = 1          (seq_cst)         W1  publish: ring cell or slot state, CAS (seq_cst)
 *   S2  look for work       (seq_cst loads)   W2  load parked              (seq_cst)
 *   S3  futex_wait(seq, value read before S1) W3  seq + 1, futex_wake; parked -> 0 when none sleeps
 *
 * S1 < S2 and W1 < W2 in the single order of seq_cst operations: either the
 * sleeper sees the work or the waker sees the sleeper. On x86-64 W2 is a plain
 * load behind a LOCKed instruction that W1 needs anyway: a waker pays nothing while
 * nobody sleeps.
 *
 * `parked` says that somebody may sleep; it is not a count, so a sleeper that is killed
 * leaves nothing to repair. W3 wakes as many as there are new tasks; while that many wake, more may
 * sleep, and the mark stays. When fewer do, it is taken away, and whoever has set it meanwhile is
 * woken to look again. A woken worker that finds more work than its own wakes the next (queue_wake
 * after a claim), and the undertaker wakes everybody after a death.
 *
 * Every sleep is limited to WAKE_NET_NS. That net should never catch anything: the segment's
 * net_catches counts the sleeps that ended by time with work there to be done.
 */
#ifndef FABRIC_WAKE_H
#define FABRIC_WAKE_H

#include <stdbool.h>
#include "core/clock.h"
#include "core/segment.h"

#define WAKE_NET_NS 100000000u

/* How to ring the daemon: an eventfd, -1 when there is none. */
struct wake_out {
    int daemon_fd;
};

/* Sleeps while *word == expect, at most ns. Returns 0 woken (or value changed, or a signal),
 * -ETIMEDOUT. Shared futex. */
int futex_sleep(_Atomic uint32_t *word, uint32_t expect, uint64_t ns);
/* Returns how many were woken. */
int futex_wake(_Atomic uint32_t *word, int n);

/* A sleep ended by time and there was work: counts it, unless the wake-up was only just on its way
 * (seq still changes within a millisecond). */
void wake_net_caught(const struct segment *s, _Atomic uint32_t *seq, uint32_t expect);

/* Rings fabricd's doorbell if it sleeps. */
void daemon_ring(const struct segment *s, const struct wake_out *out);
void queue_wake_slow(const struct segment *s, struct seg_queue *q, const struct wake_out *out,
                     uint32_t tasks);
/* Wakes every worker that sleeps on q: the fabric's state has changed. */
void queue_wake_all(struct seg_queue *q);
void bell_ring_slow(const struct segment *s, struct seg_participant *p, const struct wake_out *out);

/* After tasks were published in q (W2, W3). */
static inline void queue_wake(const struct segment *s, struct seg_queue *q,
                              const struct wake_out *out, uint32_t tasks)
{
    if (__builtin_expect(at_load(&q->parked) != 0, 0))
        queue_wake_slow(s, q, out, tasks);
}

/* After an outcome of participant p's was published (W2, W3). */
static inline void bell_ring(const struct segment *s, struct seg_participant *p,
                             const struct wake_out *out)
{
    if (__builtin_expect(at_load(&p->bell_parked) != 0, 0))
        bell_ring_slow(s, p, out);
}

/* How long to spin before sleeping. Adaptive: doubles while spinning finds work, halves while it
 * ends in sleep, so that on a machine with more threads than cores the spinner soon leaves the core
 * to whom it waits for. */
struct spin {
    uint64_t ticks; /* the present budget */
    uint64_t ticks_min, ticks_max;
    uint64_t until; /* of the present wait */
    uint32_t round;
    bool busy; /* when the budget is used up, the wait looks at its time and spins on */
    /* spin_share(): */
    uint32_t crowd;    /* how often of late a yield has let somebody run */
    bool slept;        /* since the last yield to one who computes */
    uint64_t share_at; /* the next yield, not before; ticks, as the rest */
    uint64_t keep;     /* how long there was none after one that went to who computes */
    uint64_t probe_ticks, switch_ticks, hog_ticks;
};

/* ns: 0 adaptive (between 1 and 50 us), > 0 fixed, < 0 none, FAB_SPIN_ALWAYS: busy. */
void spin_init(struct spin *sp, uint64_t ticks_hz, int64_t ns);
static inline void spin_start(struct spin *sp)
{
    sp->round = 0;
}
/* One round of waiting; false when the budget is used up. Looks at the clock every 16 rounds. */
static inline bool spin_on(struct spin *sp)
{
    cpu_relax();
    if (sp->round == 0)
        sp->until = clock_ticks() + sp->ticks;
    return (++sp->round & 15) || clock_ticks() < sp->until;
}
/* After a round in vain of one who waits for processes, not for a line: where more threads poll than
 * there are cores they wait for each other's time slices, milliseconds for what takes microseconds. So
 * each yields the core after a round in vain. One who computes and does not poll would keep it for all
 * of his time slice, and we should react to nothing meanwhile; who sleeps gets it back at once. So after
 * a yield that took long there are none for a while, and the spin ends in sleep as it does anyway. Where
 * nobody wants the core it is a yield a millisecond. */
void spin_share(struct spin *sp);

/* How long to wait before the first look at a line that somebody else is about to write. A look that
 * comes too early takes the line away from him, and costs both a trip between their cores. In rounds of
 * cpu_relax(); learnt from how many looks it took: one may have come late, a third was too early by
 * one, and many say nothing about it. */
#define PATIENCE_MAX 24u
static inline void patience_wait(uint32_t patience)
{
    while (patience-- > 0)
        cpu_relax();
}
static inline void patience_learn(uint32_t *patience, uint32_t looks)
{
    if (looks == 1 && *patience > 0)
        --*patience;
    else if (looks > 2 && looks <= 32 && *patience < PATIENCE_MAX)
        ++*patience;
}

void spin_hit(struct spin *sp);  /* the wait ended while spinning */
void spin_miss(struct spin *sp); /* the wait ended in sleep */

#endif
