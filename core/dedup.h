/* SPDX-License-Identifier: MIT
 *
 * dedup.h - deduplication keys: of the tasks of one queue that have the same key, one is run in a
 * window of time.
 *
 * The window counts from the submit of the first and from nothing else: while it lasts, another task
 * with the key isn't run and ends as FAB_DUPLICATE at once, whether the first waits, runs, has
 * completed or has failed; when it is over, the next one is run, even if the first has not finished.
 * (As with NATS' Msg-Id: whoever retries a submit that he got no answer to must not have to know how
 * far the first one is.) Only a first task that was never started - cancelled or
 * expired before any worker had it - gives its key back before.
 *
 * The table lies in the segment. A key has two buckets of DEDUP_BUCKET entries it may stand in, and
 * takes the emptier one. An
 * entry's word is {state, owner, slot, epoch}: the producer and the slot of the task it stands for.
 *
 *   FREE, or HELD and expired --CAS--> CLAIMED   its key and expiry are being written
 *        CLAIMED ------store---------> TENTATIVE the task is not READY yet; the others are looked at again
 *        TENTATIVE --CAS-------------> HELD      the task is READY: it will be run
 *        any -------CAS--------------> FREE      it will not (dedup_release)
 *
 * Two that enter the same key at the same time may take different entries. Each looks at all entries
 * of the key again after its own is TENTATIVE, and so one of them at least sees the other (seq_cst
 * stores and loads, as in Dekker's): the one whose entry stands higher gives way, the other waits
 * until that has happened or the other's task is READY.
 *
 * While an entry is TENTATIVE its slot tells whether the task came to be READY: it is FILLING and the
 * owner's, with the entry's epoch, if not. (A READY task with a key is not taken back for want of room
 * in its ring; an audit puts it there.) So what a dead producer has left is decidable, and a key is not burned without a run; the undertaker settles it
 * before it frees the slot. Who meets a TENTATIVE entry whose task isn't READY must wait for it:
 * "duplicate" would be a lie if its producer died now. That is the one place where a submit depends
 * on another process; it takes part in the submit's deadline.
 *
 * Every attempt to enter uses a {slot, epoch} of its own (the caller grows the epoch of a slot it has
 * entered in vain, after its entry is FREE), so that an equal word read twice means that key and expiry in between belong to it.
 *
 * Threads: any, of any process. Failure: see above; entries of no sense are check.c's.
 */
#ifndef FABRIC_DEDUP_H
#define FABRIC_DEDUP_H

#include <stdbool.h>
#include "core/segment.h"

#define DEDUP_BUCKET   16u
#define DEDUP_KEYS_MIN 64u
#define DEDUP_KEYS_MAX (1u << 24)
/* The longest window; an expiry farther off is damage. */
#define DEDUP_WINDOW_MAX 31536000000000000ull

enum key_state { KEY_FREE = 0, KEY_CLAIMED, KEY_TENTATIVE, KEY_HELD };

/* {epoch:22, slot:24, owner + 1:16, state:2} */
static inline uint64_t key_word(enum key_state st, uint32_t owner, uint32_t slot, uint32_t epoch)
{
    return (uint64_t)st | (uint64_t)((owner + 1) & 0xffff) << 2 | (uint64_t)(slot & 0xffffff) << 18 |
           (uint64_t)(epoch & 0x3fffff) << 42;
}
static inline enum key_state key_state(uint64_t w)
{
    return (enum key_state)(w & 3);
}
static inline uint32_t key_owner(uint64_t w)
{
    return ((uint32_t)(w >> 2) - 1) & 0xffff;
}
static inline uint32_t key_slot(uint64_t w)
{
    return (uint32_t)(w >> 18) & 0xffffff;
}
static inline uint32_t key_epoch(uint64_t w)
{
    return (uint32_t)(w >> 42);
}

enum key_found {
    KEY_ENTERED,
    KEY_DUPLICATE,
    KEY_BUSY, /* another task with it is just being submitted */
    KEY_FULL, /* no entry is free: until *until_ns at least */
};

/* Enters the key for the task that is to be in `slot`, FILLING with `epoch` and ours (me). ENTERED:
 * *entry is TENTATIVE; dedup_confirm() or dedup_release() follows. Else no entry is ours. */
enum key_found dedup_enter(const struct segment *s, uint32_t me, uint32_t slot, uint32_t epoch,
                           uint32_t queue, uint64_t key, uint64_t window_ns, uint32_t *entry,
                           uint64_t *until_ns);
/* The task is READY. */
void dedup_confirm(const struct segment *s, uint32_t me, uint32_t entry, uint32_t slot,
                   uint32_t epoch);
/* The task in {slot, epoch} will not be run: frees its entry, if that (still) is its own. */
void dedup_release(const struct segment *s, uint32_t entry, uint32_t slot, uint32_t epoch);
/* The same for a task that ends, by its slot's word w and its terms' `dedup`: no-op unless no worker
 * has ever had it. */
void dedup_never_started(const struct segment *s, uint32_t dedup, uint32_t slot, uint64_t w);
/* Undertaker, before it touches slots: settles what participants with a fate (enum fate, one byte
 * each) have left. Returns how many keys were freed. */
uint32_t dedup_settle(const struct segment *s, const uint8_t *fate);
/* Keys whose window has not ended (a sum over live words: not of one instant). */
uint32_t dedup_held(const struct segment *s);
/* The word means something; is_live tells who is alive. */
bool dedup_sound(const struct segment *s, uint32_t entry, uint64_t w, uint64_t now,
                 bool (*is_live)(const struct segment *, uint32_t));

#endif
