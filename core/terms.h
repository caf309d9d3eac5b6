/* SPDX-License-Identifier: MIT
 *
 * terms.h - tasks with terms: not before, not after, not longer than, again after an error.
 *
 * Terms lie in the task's wide. fabricd keeps the time: whoever brings a task into a state that
 * time will end (DELAYED; READY with an expiry; LEASED with a limit) puts its slot into the timer
 * ring and rings the doorbell; fabricd looks at the slot, keeps the time in a heap of its own
 * (apps/fabricd/timers.h), and makes the transition if the slot's word is still the same by then.
 * Entries are hints, as in every ring: a lost one is found by the scan that an audit does.
 *
 * While no fabricd is there, times wait for the next one.
 */
#ifndef FABRIC_TERMS_H
#define FABRIC_TERMS_H

#include <stdbool.h>
#include "core/fabric.h"
#include "core/segment.h"
#include "core/wake.h"

static inline struct seg_terms *terms_of(const struct segment *s, uint32_t slot)
{
    return (struct seg_terms *)(void *)s->wide[slot].bytes;
}

/* 0 or -EINVAL: a number that can't be meant. */
int terms_check(const struct fab_terms *t) __attribute__((warn_unused_result));
/* Writes t for a task that is submitted now. */
void terms_put(const struct segment *s, uint32_t slot, const struct fab_terms *t);
/* Tells fabricd to look at the slot. */
void terms_note(const struct segment *s, const struct wake_out *out, uint32_t slot);
/* When the n-th pause (from 1) of these terms ends; clock_ns() for none. */
uint64_t terms_pause_end(const struct seg_terms *t, uint32_t n);
/* What an outcome SLOT_OVERRUN says. */
const char *terms_overrun_text(void);

#endif
