/* SPDX-License-Identifier: MIT
 *
 * undertaker.h - gives back what a dead participant held.
 *
 * Runs in fabricd's loop thread while everybody else goes on. Each step is a CAS from the state it
 * expects, so a recovery that was cut off anywhere is simply run again.
 *
 * Precondition: the participant's process is gone (its pidfd was readable) or has said that it will
 * not touch the segment again. A live participant is never robbed.
 */
#ifndef FABRIC_UNDERTAKER_H
#define FABRIC_UNDERTAKER_H

#include "core/slot.h"
#include "core/wake.h"

struct undertaker_report {
    uint32_t leases;   /* tasks returned to READY */
    uint32_t cancelled; /* tasks that ended so because their producer had asked for it */
    uint32_t dead;     /* tasks whose crash budget is spent */
    uint32_t filling;  /* half-made or stocked slots freed */
    uint32_t outcomes; /* untaken outcomes freed */
    uint32_t orphans;  /* tasks that go on without a waiter */
    uint32_t holes;    /* ring positions closed */
    uint32_t requeued; /* READY or FREE slots put back into their rings */
    uint32_t blocks;   /* arena blocks freed */
};

/* What is to be done about a participant. CRASHED: its leases count against the tasks' crash
 * budgets. KEEP_*: what it held is given back, but its own tasks and their outcomes stay, and its
 * entry is kept until identity.keep_until_ns (which the caller has set). */
enum fate { FATE_NONE, FATE_LEFT, FATE_CRASHED, FATE_KEEP_LEFT, FATE_KEEP_CRASHED };

/* Recovers what all participants with a fate held, in one pass, and frees their entries. fate: one
 * byte (enum fate) for each entry of the table. */
void undertaker_recover_many(const struct segment *s, const struct wake_out *out, uint32_t me,
                             const uint8_t *fate, struct undertaker_report *report);
/* Ends the task in a slot with word w: EXPIRED, OVERRUN for a lease, CANCELLED. Its
 * producer is told; a task nobody waits for is freed. False: the word was no longer w. */
bool undertaker_end(const struct segment *s, const struct wake_out *out, uint32_t me, uint32_t slot,
                    uint64_t w, enum slot_state as);
/* Gives back one slot whose word w names an owner, or whose task a producer, that is nobody
 * (damage). */
void undertaker_stray(const struct segment *s, const struct wake_out *out, uint32_t me,
                      uint32_t slot, uint64_t w);
/* Recovers what participant `dead` held and frees its entry. crashed: its leases count against the
 * tasks' crash budgets. me: the daemon's own participant number, which holds blocks while they are
 * being freed. */
void undertaker_recover(const struct segment *s, const struct wake_out *out, uint32_t me,
                        uint32_t dead, bool crashed, struct undertaker_report *report);
/* The same for one whose tasks and outcomes are to be kept until then (clock_ns). */
void undertaker_keep(const struct segment *s, const struct wake_out *out, uint32_t me,
                     uint32_t dead, bool crashed, uint64_t until_ns,
                     struct undertaker_report *report);
/* Puts READY and FREE slots that no ring entry leads to back. Safe at any time: an entry too many
 * is skipped. */
void undertaker_audit(const struct segment *s, const struct wake_out *out,
                      struct undertaker_report *report);

#endif
