/* SPDX-License-Identifier: MIT
 *
 * timers.h - keeps the time of tasks with terms (core/terms.h): makes DELAYED tasks READY, ends
 * what has expired or overrun.
 *
 * A heap of {time, slot, word} in fabricd's own memory, fed from the timer ring. An entry whose
 * slot has another word by then is dropped: whoever changed the word has noted the slot anew. The
 * heap is rebuilt by a scan of the slots at the start and when somebody may have died before it noted a slot
 * (scan_wanted).
 *
 * Threads: the loop thread. Failure: without memory for the heap the slot is looked at again at the
 * next scan.
 */
#ifndef FABRICD_TIMERS_H
#define FABRICD_TIMERS_H

#include "core/segment.h"
#include "core/wake.h"

struct timer_entry {
    uint64_t due_ns, word;
    uint32_t slot;
};

struct timers {
    /* Told of a lease that its producer wants to stop, whose worker is behind a link. */
    void (*cancelled)(void *arg, uint32_t owner, uint32_t slot, uint64_t word);
    void *arg;
    struct timer_entry *heap;
    uint32_t n, cap;
};

/* Looks at every slot. */
void timers_scan(struct timers *t, const struct segment *s);
/* Takes in what was noted and does what is due; returns how many slots were looked at or changed.
 */
long timers_run(struct timers *t, const struct segment *s, const struct wake_out *out, uint32_t me);
/* Before sleeping, after daemon_parked was set: nothing is noted. */
bool timers_armed(const struct segment *s);
/* ns until the next is due, -1: none. */
int64_t timers_wait(const struct timers *t);
void timers_free(struct timers *t);

#endif
