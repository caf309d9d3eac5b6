/* SPDX-License-Identifier: MIT
 *
 * times.c - what a producer is told of its task's stage times (stages.h).
 *
 * Threads: the handle's. Failure: a record that another task has overwritten is seen by its epoch.
 */
#include <errno.h>
#include "core/error.h"
#include "core/stages.h"

int local_times(const fab_t *f, const struct fab_outcome *o, struct fab_times *out)
{
    const struct local *l = (const struct local *)f;
    const struct segment *s = l->seg;
    uint32_t slot = (uint32_t)o->id;
    if (slot >= s->slots)
        return err_set(-EINVAL, "not an outcome of this handle");
    struct seg_times t = s->times[slot]; /* read once */
    uint64_t submitted = s->slot[slot].stamp;
    uint64_t published = submitted + ((uint64_t)outstanding_room(&l->tasks, o->id) << ROOM_UNIT_SHIFT);
    /* the slot may be in use again, or the task never have been started */
    if (slot_epoch(at_load(&s->slot[slot].state)) - (uint32_t)(o->id >> 32) > 1 ||
        outstanding_in_slot(&l->tasks, slot) || slot_epoch(t.lease) != (uint32_t)(o->id >> 32) || submitted == 0)
        return err_set(-ENODATA, "nothing is known of this task's times (any more)");
    *out =
        (struct fab_times){.room_ns = segment_ticks_to_ns(s, published - submitted),
                           .wait_ns = segment_ticks_to_ns(s, span_between(published, t.claimed)),
                           .held_ns = segment_ticks_to_ns(s, span_between(t.claimed, t.started)),
                           .run_ns = segment_ticks_to_ns(s, span_between(t.started, t.finished)),
                           .fetch_ns = segment_ticks_to_ns(s, span_between(t.finished, o->taken)),
                           .total_ns = segment_ticks_to_ns(s, span_between(submitted, o->taken))};
    return 0;
}
