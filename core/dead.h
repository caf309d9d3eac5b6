/* SPDX-License-Identifier: MIT
 *
 * dead.h - dead letters: tasks that ended badly and that nobody has seen to, kept in their slots.
 *
 *   LEASED -> BURIED    the crash budget is spent, or an error for good, and nobody waits for it
 *   ZOMBIE -> BURIED    it took too long, nobody waits for it, and its worker has noticed (or died)
 *   DEAD   -> BURIED    its producer has taken this outcome, or will never take it
 *   BURIED -> READY     kicked: a task nobody waits for, attempts and crashes counted anew
 *   BURIED -> FILLING   purged: the slot goes back
 *
 * A BURIED slot has no owner. It still holds the task: argument, error text (as its result), kernel,
 * tag, terms, attempts. Beside the slots lie the graves, one a slot: which worker it was, and when.
 * A grave is written by whoever owns the slot, before the transition; so each burial is one CAS, and
 * a death before it leaves what was there: a lease, a zombie or an outcome.
 * A kick takes the slot first (BURIED with the kicker as owner); should it die, the undertaker puts
 * the owner back to nobody, and the letter is there to be kicked again (its error text and crash
 * count may be gone).
 *
 * The kicked task keeps its epoch, so that its id and its blocks stay as they are. Its READY word
 * names nobody as owner: no word from its life before is the same.
 *
 * At most s->dead_letters are kept, by a counter in the header. A death between the counter and the
 * burial leaves it one too high; each audit sets it right.
 *
 * Which FAILED outcomes its producer has seen can't be told after its death (slot_give() leaves the
 * word as it was): of a dead producer's outcomes only DEAD ones become letters, besides what ends
 * after its death.
 *
 * Threads: any of any process.
 */
#ifndef FABRIC_DEAD_H
#define FABRIC_DEAD_H

#include "core/slot.h"
#include "core/wake.h"

enum dead_cause { DEAD_NOTED = 0, DEAD_CRASHED, DEAD_FAILED, DEAD_OVERRUN, DEAD_CAUSES };

#define DEAD_ANY_QUEUE UINT32_MAX

/* Notes in the slot's grave that this worker's attempt ended the task with word w. The caller owns
 * the slot. */
void dead_note(const struct segment *s, uint32_t slot, uint64_t w, uint32_t worker,
               enum dead_cause cause);
/* Word w, the caller's -> BURIED. cause DEAD_NOTED: noted before. False: no more letters are kept
 * (counted), or the word was no longer w; nothing has been changed, and the caller ends the task in
 * another way. */
bool dead_bury(const struct segment *s, uint32_t slot, uint64_t w, uint32_t worker,
               enum dead_cause cause) __attribute__((warn_unused_result));
/* A ZOMBIE that nobody waited for, and whose worker won't write to it any more. False as above.
 * out: to announce the memory of its late result; NULL: we are fabricd. */
bool dead_bury_zombie(const struct segment *s, const struct wake_out *out, uint32_t me,
                      uint32_t slot, uint64_t w, uint32_t worker) __attribute__((warn_unused_result));
/* Undertaker: BURIED with an owner who is dead. */
void dead_let_go(const struct segment *s, uint32_t slot, uint64_t w);
/* Undertaker's audit: before it counted BURIED slots the counter was `before`. */
void dead_recount(const struct segment *s, uint32_t before, uint32_t counted);

/* id: {epoch, slot}, of a task or a letter; or 0: all of the queue (DEAD_ANY_QUEUE: of all).
 * *done: how many. -ENOENT: there is no such letter; -EBUSY: somebody is at it; -ESHUTDOWN (kick):
 * its queue is draining; -EINVAL: no such queue. */
int dead_kick(const struct segment *s, const struct wake_out *out, uint32_t me, uint64_t id,
              uint32_t queue, uint64_t *done) __attribute__((warn_unused_result));
int dead_purge(const struct segment *s, const struct wake_out *out, uint32_t me, uint64_t id,
               uint32_t queue, uint64_t *done) __attribute__((warn_unused_result));

/* -ENOENT with a message. The letter's word, which a reader compares with after it has read. */
int dead_find(const struct segment *s, uint64_t id, uint32_t *slot, uint64_t *w)
    __attribute__((warn_unused_result));

/* ---- dead_json.c ---- */

/* The letters of a queue, or of all, as JSON text, malloc'ed: the format of `fabctl dead list
 * --json`. No more than DEAD_LISTED, so that a link takes it; `unlisted` says how many others there
 * are. */
#define DEAD_LISTED 5000u
int dead_list(const struct segment *s, uint32_t queue, char **text)
    __attribute__((warn_unused_result));
/* One letter with its argument (the first DEAD_SHOWN bytes of it, in hexadecimal). */
#define DEAD_SHOWN 65536u
int dead_show(const struct segment *s, uint64_t id, char **text)
    __attribute__((warn_unused_result));

#endif
