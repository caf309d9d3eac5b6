/* SPDX-License-Identifier: MIT
 *
 * check.h - looks for what no program of ours would have written into the segment.
 *
 * Any participant can write anywhere in the segment, by fault or by malice. Everybody reads it with
 * care; this finds out that it has happened, says where, and puts right what can be put right:
 *
 *   a queue's control word   running
 *   header, queue names      restored from the view that was taken when the segment was made
 *   rings                    a head or tail out of range: the ring is emptied, and the audit fills
 *                            it again from the slots
 *   slots                    a word without meaning: FREE, with a new epoch; its task is lost, and
 *                            its producer is told (FAB_LOST) when it next sleeps
 *   lease or stock of nobody given back, as after a death
 *   blocks, chunks           words without meaning: FREE
 *   keys                     words without meaning, windows without end: FREE
 *   participants             as fabricd's own record has them
 *
 * What looks right is taken to be right: changed argument bytes, or a state turned into another
 * that might be, can't be told.
 *
 * Threads: fabricd's loop thread alone; everybody else goes on. Safe at any time: each repair is a
 * CAS from the damaged word.
 */
#ifndef FABRIC_CHECK_H
#define FABRIC_CHECK_H

#include "core/segment.h"
#include "core/wake.h"

struct check_report {
    uint32_t header, queues, participants, rings, slots, strays, blocks, keys; /* damaged ones */
    char first[160];                                                     /* what, of the first */
};

/* Returns how many damaged words there were (all are counted in the header's `damage`, too).
 * me: fabricd's participant number. */
uint32_t segment_check(const struct segment *s, const struct wake_out *out, uint32_t me,
                       struct check_report *report);

#endif
