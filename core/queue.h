/* SPDX-License-Identifier: MIT
 *
 * queue.h - a queue's control word: running, paused, draining.
 *
 *   running   as ever
 *   paused    submits are accepted, nothing is claimed: workers treat the queue as empty
 *   draining  submits are refused (-ESHUTDOWN), what is there is run
 *
 * Who submits or claims looks at the word by one relaxed load; so a claim or a submit that is being
 * made at that moment may still go through. Leases that are held go on. The word lies in the
 * segment: it holds for everybody, fabricd's links included, and outlives fabricd.
 *
 * Sleep and wake (wake.h): a sleeper looks at the word in its last look (S2), before the rings. Who
 * ends a pause stores the word (W1) and then wakes everybody, whatever the parked marks say; so a
 * sleeper that saw the pause is woken after it. Who publishes in a paused queue wakes nobody: the
 * end of the pause comes after its publication, and wakes.
 *
 * Any value that is none of the three (damage) counts as running; check.c finds it.
 */
#ifndef FABRIC_QUEUE_H
#define FABRIC_QUEUE_H

#include "core/admin.h"

/* Which priorities have ever had a task, so that claimers look at no more rings than there is use for.
 * Set before a task's publication, never taken back. A claimer that does not see a bit yet, or not any
 * more (damage), looks at all rings before it sleeps (claim.c), and sets it. Relaxed: a hint. */
static inline void queue_use(const struct segment *s, uint32_t queue, uint32_t priority)
{
    if (__builtin_expect(!(at_load_rlx(&s->queue[queue].priorities) >> priority & 1), 0))
        at_or(&s->queue[queue].priorities, 1u << priority);
}
static inline uint32_t queue_priorities(const struct segment *s, uint32_t queue)
{
    return at_load_rlx(&s->queue[queue].priorities) & ((1u << SEG_PRIORITIES) - 1);
}

/* For who is about to claim. Relaxed: a look, see above. */
static inline bool queue_paused(const struct segment *s, uint32_t queue)
{
    return __builtin_expect(at_load_rlx(&s->queue[queue].control) == QUEUE_PAUSED, 0);
}
/* For who is about to submit. */
static inline bool queue_draining(const struct segment *s, uint32_t queue)
{
    return __builtin_expect(at_load_rlx(&s->queue[queue].control) == QUEUE_DRAINING, 0);
}
/* -ESHUTDOWN with a sentence that names the queue and the remedy. */
int queue_refuses(const struct segment *s, uint32_t queue);

/* control: enum queue_control, checked here. -EINVAL. */
int queue_set(const struct segment *s, const struct wake_out *out, uint32_t queue,
              uint64_t control) __attribute__((warn_unused_result));
/* number[]: control, then tasks ready, delayed, leased (those over their time limit whose workers
 * have not noticed yet included). A scan of all slots, not of one instant. */
int queue_count(const struct segment *s, uint32_t queue, uint64_t number[ADMIN_NUMBERS])
    __attribute__((warn_unused_result));
const char *queue_control_name(uint32_t control);

#endif
