/* SPDX-License-Identifier: MIT
 *
 * stages.h - when a task passed each stage of its life.
 *
 *   submitted: fab_submit() was called with it; slot.stamp, by its producer
 *
 *   published: there was room, and it was written; the producer's own list
 *
 *   claimed: a worker took its lease; times[], by that worker, as the next two
 *
 *   started: the worker turned to it, who may have been at others of its batch
 *
 *   finished: its result was there
 *
 *   taken: the producer saw the outcome; in the outcome
 *
 * Every task has all of them, always. What a worker writes is apart from the slot: the slot's line
 * goes from core to core with each task, while times[] is read only for who asks (fab_times()) and
 * for the tasks that are put into histograms; so it stays with the worker. A record is good for as
 * long as the slot is not used again; its epoch tells.
 *
 * Who reads the clock how often: a submit once a call, a claim once a batch, a completion once a call
 * (which is the start of the next task), a take once a call. Tasks that are completed as one share the
 * time of their batch evenly.
 *
 * Ticks of another core may be a little behind: a span that would be negative is 0.
 */
#ifndef FABRIC_STAGES_H
#define FABRIC_STAGES_H

#include "core/local.h"

/* The time between two stages, in ticks. */
static inline uint64_t span_between(uint64_t from, uint64_t to)
{
    return to > from ? to - from : 0;
}

/* How long a task waited for room, as the producer keeps it: in 32 bits (outstanding.h). */
#define ROOM_UNIT_SHIFT 10
static inline uint32_t room_pack(uint64_t ticks)
{
    uint64_t units = ticks >> ROOM_UNIT_SHIFT;
    return units < UINT32_MAX ? (uint32_t)units : UINT32_MAX;
}

/* Tasks that follow one another closely: one in so many is put into the histograms, for all of
 * them. Each is that comes a millisecond or more after the one before. (By time alone long tasks
 * would be counted for the short ones before them.) gap: ticks since the one before; n: how many
 * came at once. */
#define SPAN_PACE 128u
static inline bool span_due(struct span_pace *p, uint32_t n, uint64_t gap)
{
    p->n += n;
    return __builtin_expect(p->n >= SPAN_PACE || gap > p->apart, 0);
}
/* It will be the next one's turn. */
static inline bool span_turn(const struct span_pace *p, uint64_t gap)
{
    return __builtin_expect(p->n + 1 >= SPAN_PACE || gap > p->apart, 0);
}
/* For how many it stands then. */
static inline uint32_t span_weight(struct span_pace *p, uint32_t n, uint64_t gap)
{
    uint32_t all = p->n;
    if (gap > p->apart) { /* for itself; the others wait for their turn */
        p->n -= n;
        return n;
    }
    p->n = 0;
    return all;
}

/* Which of n that came at once: any, over time each as often as the others. */
static inline uint32_t span_pick(struct span_pace *p, uint32_t n)
{
    p->turn += 0x9e3779b9u; /* the golden ratio's part of 2^32 */
    return (uint32_t)((uint64_t)p->turn * n >> 32);
}

static inline void span_add(const struct local *l, enum seg_span span, uint64_t ticks, uint32_t n)
{
    hist_add_n(&l->self->latency.span[span], segment_ticks_to_ns(l->seg, ticks), n);
}

#endif
