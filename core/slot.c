/* SPDX-License-Identifier: MIT
 *
 * slot.c - where free slots are and how they move between the free ring and a participant's stock.
 *
 * Threads: a stock belongs to one thread; the ring and the slots to all.
 * Failure: a death between taking a hint and the CAS leaves a FREE slot that no ring entry leads
 * to; the undertaker's audit puts it back (undertaker.c).
 */
#include <errno.h>
#include <stdlib.h>
#include "core/crashpoint.h"
#include "core/ring.h"
#include "core/room.h"
#include "core/slot.h"

#define BATCH 64u
/* Batches taken out of a full free ring in search of stale entries before that is left to an audit.
 */
#define PUT_TRIES 4u

int slot_stock_init(struct slot_stock *st, uint32_t cap)
{
    st->n = 0;
    st->cap = cap;
    st->lazy = false;
    st->out = NULL;
    st->id = calloc(cap, sizeof *st->id);
    return st->id ? 0 : -ENOMEM;
}

void slot_stock_free(struct slot_stock *st)
{
    free(st->id);
    st->id = NULL;
    st->n = st->cap = 0;
}

uint32_t slot_stock_refill(const struct segment *s, struct slot_stock *st, uint32_t me,
                           uint32_t want)
{
    uint32_t hint[BATCH];
    if (want > st->cap)
        want = st->cap;
    while (st->n < want) {
        uint32_t n = want - st->n < BATCH ? want - st->n : BATCH;
        n = ring_take(s, s->free_ring, hint, n);
        if (n == 0) {
            /* Empty, or a hole: its maker, if it lives, takes another position. */
            if (ring_close_holes(s, s->free_ring) == 0)
                break;
            continue;
        }
        CRASH_POINT("slot.hints");
        for (uint32_t i = 0; i < n; i++) {
            uint32_t slot = hint[i];
            uint64_t w = at_load(&s->slot[slot].state);
            /* A hint may be stale: only a slot that is FREE becomes ours. The epoch grows here, so
             * an id of the slot's former task can't name the next one. */
            uint32_t epoch = slot_epoch_after(slot_epoch(w));
            if (slot_state(w) == SLOT_FREE &&
                at_cas(&s->slot[slot].state, &w, slot_word(epoch, me, 0, SLOT_FILLING)))
                st->id[st->n++] = slot_id(slot, epoch);
            CRASH_POINT("slot.filling");
        }
    }
    return st->n;
}

/* Tombstones and repeated hints may leave the free ring without room: its front is taken out and
 * what is free put back behind. */
void slot_put_free(const struct segment *s, uint32_t slot)
{
    uint32_t hint[BATCH], n;
    for (uint32_t tries = 0; !ring_put(s, s->free_ring, slot); tries++) {
        if (tries == PUT_TRIES || (n = ring_take(s, s->free_ring, hint, BATCH)) == 0) {
            at_store(&s->head->audit_wanted, 1);
            return;
        }
        for (uint32_t i = 0; i < n; i++)
            /* as many as came out fit in again, unless others were quicker */
            if (slot_state(at_load(&s->slot[hint[i]].state)) == SLOT_FREE &&
                !ring_put(s, s->free_ring, hint[i]))
                at_store(&s->head->audit_wanted, 1);
    }
}

static bool free_slot(const struct segment *s, uint32_t slot, uint64_t w,
                      const struct wake_out *out)
{
    uint64_t expect = w;
    if (!at_cas(&s->slot[slot].state, &expect, slot_word(slot_epoch(w), NOBODY, 0, SLOT_FREE)))
        return false;
    CRASH_POINT("slot.freed");
    slot_put_free(s, slot);
    room_made(s, out, ROOM_SLOTS);
    return true;
}

bool slot_to_free(const struct segment *s, uint32_t slot, uint64_t w)
{
    return free_slot(s, slot, w, NULL);
}

static void settle(const struct segment *s, uint32_t me, uint64_t id)
{
    _Atomic uint64_t *state = &s->slot[(uint32_t)id].state;
    uint64_t w = at_load_rlx(state); /* ours, only we change it */
    /* release: pairs with whoever claims the next task in this slot; what we read of the old task
     * stays before it */
    if (slot_owner(w) == me && (slot_is_outcome(w) || slot_state(w) == SLOT_ZOMBIE))
        at_store_rel(state, slot_word((uint32_t)(id >> 32), me, 0, SLOT_FILLING));
}

void slot_settle_top(const struct segment *s, const struct slot_stock *st, uint32_t me)
{
    if (st->n > 0)
        settle(s, me, st->id[st->n - 1]);
}

void slot_stock_settle(const struct segment *s, struct slot_stock *st, uint32_t me)
{
    if (!st->lazy)
        return;
    st->lazy = false;
    for (uint32_t i = 0; i < st->n; i++)
        settle(s, me, st->id[i]);
}

void slot_stock_shrink(const struct segment *s, struct slot_stock *st, uint32_t me, uint32_t keep)
{
    while (st->n > keep) {
        uint64_t id = st->id[--st->n];
        uint32_t slot = (uint32_t)id;
        settle(s, me, id);
        uint64_t w = at_load(&s->slot[slot].state);
        if (slot_state(w) == SLOT_FILLING && slot_owner(w) == me)
            (void)free_slot(s, slot, w, st->out);
    }
}

void slot_renew_free_ring(const struct segment *s)
{
    uint32_t hint[BATCH], n;
    uint64_t left = ring_depth(s->free_ring);
    while (left > 0 &&
           (n = ring_take(s, s->free_ring, hint, left < BATCH ? (uint32_t)left : BATCH)) > 0)
        left -= n < left ? n : left;
    for (uint32_t i = 0; i < s->slots; i++)
        if (slot_state(at_load(&s->slot[i].state)) == SLOT_FREE && !ring_put(s, s->free_ring, i)) {
            at_store(&s->head->audit_wanted, 1); /* others have freed slots meanwhile */
            return;
        }
}

void slot_fill_free_ring(const struct segment *s)
{
    for (uint32_t i = 0; i < s->slots; i++)
        (void)!ring_put(s, s->free_ring, i);
}
