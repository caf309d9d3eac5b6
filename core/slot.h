/* SPDX-License-Identifier: MIT
 *
 * slot.h - the slot's state word: the truth about a task.
 *
 *          alloc                submit               claim
 *   FREE ---------> FILLING ------------> READY ---------------> LEASED
 *     ^              ^   |                 ^  |                   |  |  |
 *     | free         |   | (owner dies:    |  | cancel            |  |  | complete / fail
 *     +--------------+---+  FREE)          |  v                   |  |  v
 *     ^              |                     |  CANCELLED           |  | DONE / FAILED
 *     |              | take (outcome taken by its producer)       |  |   |
 *     |              +---------------------+----------<-----------+--+---+
 *     |                                    +-- release, or owner dies (attempt + 1) --+
 *     +-- DEAD (crash budget spent) is an outcome like DONE; without a waiter LEASED -> FREE
 *
 * A producer cancels what runs by a mark in meta (cancel.c): LEASED -> CANCELLED in place of every
 * transition but the one to DONE.
 * What ended badly and nobody has seen to is kept (dead.h): LEASED, ZOMBIE, DEAD -> BURIED, and
 * BURIED -> READY or FILLING when somebody asks for it.
 *
 * With terms (terms.h): FILLING -> DELAYED -> READY; LEASED -> DELAYED for another attempt;
 * READY, DELAYED -> EXPIRED. LEASED -> OVERRUN is the one transition that takes a lease from a
 * living worker, which may write its result into the slot at any time after: OVERRUN and, once the
 * producer has taken that outcome, ZOMBIE name this worker as their owner, and the slot is used
 * again only when the worker has noticed (its lease's end finds another word) or died.
 *
 * The word is {epoch:32, owner:16, attempt:8, state:8}. Every transition that
 * another live participant could contend for is a CAS of the whole word; a word that
 * names a live owner is changed by that owner alone, or by the undertaker after its death.
 * owner + 1 is stored, so that 0 means nobody.
 *
 * epoch counts the tasks that lived in this slot: it grows when a slot is filled
 * anew, and a fab_id names {epoch, slot}. attempt counts the leases of one task: the
 * fencing token of a lease is {epoch, attempt}.
 *
 * A participant keeps a stock of FILLING slots of its own (struct slot_stock), so
 * that a steady producer reuses the slots whose outcomes it has taken without
 * touching shared rings. Free slots beyond that lie in the free ring; its entries
 * are hints, and the CAS FREE -> FILLING decides.
 *
 * Failure: whatever dies where, the undertaker finds a dead owner's slots by a scan for its number.
 */
#ifndef FABRIC_SLOT_H
#define FABRIC_SLOT_H

#include "core/segment.h"

enum slot_state {
    SLOT_FREE = 0,
    SLOT_FILLING,
    SLOT_ZOMBIE, /* its task is over; owner is a living worker that may still write to it */
    SLOT_READY,
    SLOT_LEASED,
    SLOT_DELAYED, /* not before its time: fabricd makes it READY */
    SLOT_BURIED, /* a dead letter (dead.h): nobody's, or whose who is kicking it */
    SLOT_DONE, /* from here on: outcomes, to be taken by the producer */
    SLOT_FAILED,
    SLOT_CANCELLED,
    SLOT_DEAD,
    SLOT_EXPIRED, /* not started in time */
    SLOT_OVERRUN, /* its attempt took too long; the owner is that worker until it has noticed */
    SLOT_DUPLICATE, /* FILLING -> here at once: another task has its key (dedup.h) */
    SLOT_STATES
};

static inline uint64_t slot_word(uint32_t epoch, uint32_t owner, uint32_t attempt,
                                 enum slot_state state)
{
    return (uint64_t)epoch << 32 | (uint64_t)((owner + 1) & 0xffff) << 16 |
           (uint64_t)(attempt & 0xff) << 8 | (uint64_t)state;
}
/* Beside READY in the state's byte: the task was submitted alone, with none of its producer's
 * outstanding, to the queue of the slot's task before it. So whoever completed that one may take
 * this one without the ring, and overtakes nothing (claim.c). */
#define SLOT_SOLO 0x80u
#define SLOT_ATTEMPT_MASK 0xff00u
static inline uint32_t slot_epoch(uint64_t w)
{
    return (uint32_t)(w >> 32);
}
static inline uint32_t slot_owner(uint64_t w)
{
    return (((uint32_t)w >> 16) - 1) & 0xffff;
}
static inline uint32_t slot_attempt(uint64_t w)
{
    return ((uint32_t)w >> 8) & 0xff;
}
static inline uint32_t slot_state(uint64_t w)
{
    return (uint32_t)w & 0x7f;
}
static inline bool slot_is_outcome(uint64_t w)
{
    return slot_state(w) >= SLOT_DONE && slot_state(w) < SLOT_STATES;
}

/* meta {producer:16, queue:8, priority:8, flags:16, counted:8, crashes:8}: written by the producer while
 * FILLING; later by read-modify-writes alone (crashes by the undertaker and the worker, META_ORPHAN
 * by the undertaker, META_CANCEL by the producer). Read by anyone: relaxed, the state word's CAS
 * tells whether what was read still holds. */
static inline uint64_t slot_meta(uint32_t producer, uint32_t queue, uint32_t priority,
                                 uint32_t flags)
{
    return (uint64_t)(producer & 0xffff) << 48 | (uint64_t)(queue & 0xff) << 40 |
           (uint64_t)(priority & 0xff) << 32 | (uint64_t)(flags & 0xffff) << 16;
}
static inline uint32_t meta_producer(uint64_t m)
{
    return (uint32_t)(m >> 48);
}
static inline uint32_t meta_queue(uint64_t m)
{
    return (uint32_t)(m >> 40) & 0xff;
}
static inline uint32_t meta_priority(uint64_t m)
{
    return (uint32_t)(m >> 32) & 0xff;
}
static inline uint32_t meta_flags(uint64_t m)
{
    return (uint32_t)(m >> 16) & 0xffff;
}
static inline uint32_t meta_crashes(uint64_t m)
{
    return (uint32_t)m & 0xff;
}
/* The attempt whose crash was counted last: attempts are counted from 1. */
static inline uint32_t meta_counted(uint64_t m)
{
    return (uint32_t)(m >> 8) & 0xff;
}
static inline uint64_t meta_count_crash(uint64_t m, uint32_t attempt)
{
    uint64_t crashes = meta_crashes(m) < 255 ? meta_crashes(m) + 1 : 255;
    return (m & ~0xffffull) | (uint64_t)(attempt & 0xff) << 8 | crashes;
}
/* Of that attempt's crash it is not known that it was this task's. */
static inline uint64_t meta_spare_crash(uint64_t m, uint32_t attempt)
{
    return (m & ~0xff00ull) | (uint64_t)(attempt & 0xff) << 8;
}
#define META_NO_WAIT   1u /* flags: FAB_NO_WAIT */
#define META_TERMS     4u /* flags: ARG_TERMS is set; for who looks without owning the slot */
#define META_ORPHAN    2u /* flags: the producer is gone, nobody waits */
#define META_CANCEL    8u /* flags: the producer wants it stopped (cancel.c) */
#define META_SUSPECT  16u /* flags: its worker died, of it or of another: it is claimed alone */

#define SLOT_CRASH_BUDGET 3u /* worker deaths a task survives less one */

/* Where an argument or a result lies: a function of the two lengths alone. */
enum slot_place { PLACE_SLOT, PLACE_WIDE, PLACE_BLOCK };
/* In arg_len: the wide holds the task's terms (terms.h), and no argument or result. */
#define ARG_TERMS 0x80000000u
static inline uint32_t slot_arg_len(uint32_t arg_len)
{
    return arg_len & ~ARG_TERMS;
}
static inline enum slot_place slot_arg_place(uint32_t arg_len)
{
    if (slot_arg_len(arg_len) <= 8)
        return PLACE_SLOT;
    return arg_len <= 64 ? PLACE_WIDE : PLACE_BLOCK; /* with ARG_TERMS it is more than 64 */
}
static inline enum slot_place slot_res_place(uint32_t arg_len, uint32_t res_len)
{
    if (res_len <= 8)
        return PLACE_SLOT;
    /* the wide is the argument's, which a later attempt may need again */
    return res_len <= 64 && slot_arg_place(arg_len) != PLACE_WIDE && !(arg_len & ARG_TERMS)
               ? PLACE_WIDE
               : PLACE_BLOCK;
}

/* A participant's private stock of FILLING slots: last in, first out, so that the next task uses
 * the line that is hot. cap is the most it keeps. An entry is what the slot's next task will be called,
 * epoch << 32 | slot: who fills it need not read the line that it is about to write. */
struct wake_out; /* wake.h */
struct slot_stock {
    uint64_t *id;
    uint32_t n, cap;
    bool lazy; /* some may still have the state words of their former tasks: see slot_give() */
    const struct wake_out *out; /* to ring fabricd when slots are given back; NULL: no need */
};

/* Epochs run over; 0 is no task's, so that no fab_id is 0. */
static inline uint32_t slot_epoch_after(uint32_t epoch)
{
    return epoch + 1 ? epoch + 1 : 1;
}

static inline uint64_t slot_id(uint32_t slot, uint32_t epoch)
{
    return (uint64_t)epoch << 32 | slot;
}
/* The same slot's id with the epoch after. */
static inline uint64_t slot_id_after(uint64_t id)
{
    uint64_t after;
    return __builtin_add_overflow(id, 1ull << 32, &after) ? after + (1ull << 32) : after;
}

/* The epoch of the next task in a slot whose state word is w. */
static inline uint32_t slot_next_epoch(uint64_t w)
{
    return slot_state(w) == SLOT_FILLING ? slot_epoch(w) : slot_epoch_after(slot_epoch(w));
}

int slot_stock_init(struct slot_stock *st, uint32_t cap) __attribute__((warn_unused_result));
void slot_stock_free(struct slot_stock *st);
/* Refills an empty stock from the free ring with up to want slots; returns how many it has now. */
uint32_t slot_stock_refill(const struct segment *s, struct slot_stock *st, uint32_t me,
                           uint32_t want);
/* Gives slots back to the free ring until the stock has at most keep. */
void slot_stock_shrink(const struct segment *s, struct slot_stock *st, uint32_t me, uint32_t keep);
/* Gives one slot, which me owns in any state, back: to the stock, or half of a full stock to the
 * free ring. id: its last task's. The slot's blocks have been freed before. The state word is not written until the slot
 * is used again: a worker may be watching its line, and the next task's READY is then the only
 * write that takes the line away from it. Until then the slot looks like an outcome that was not
 * taken; a recovery treats both alike. */
static inline void slot_give(const struct segment *s, struct slot_stock *st, uint32_t me,
                             uint64_t id)
{
    if (__builtin_expect(st->n == st->cap, 0))
        slot_stock_shrink(s, st, me, st->cap / 2);
    st->id[st->n++] = slot_id_after(id);
    st->lazy = true;
}
/* Writes what slot_give() put off: for the slot at the top of the stock, for all. Before others are
 * to tell from the slots what was taken, and before a sleep. */
void slot_settle_top(const struct segment *s, const struct slot_stock *st, uint32_t me);
void slot_stock_settle(const struct segment *s, struct slot_stock *st, uint32_t me);
/* FILLING or an outcome with word w -> FREE and into the free ring. False when the word was no
 * longer w. */
bool slot_to_free(const struct segment *s, uint32_t slot, uint64_t w);
/* A FREE slot into the free ring, which may be full of tombstones and repeated hints. */
void slot_put_free(const struct segment *s, uint32_t slot);
/* Takes everything out of the free ring and puts each FREE slot in once. For the undertaker. */
void slot_renew_free_ring(const struct segment *s);
/* At creation: all slots into the free ring. */
void slot_fill_free_ring(const struct segment *s);

#endif
