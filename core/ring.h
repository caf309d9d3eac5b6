/* SPDX-License-Identifier: MIT
 *
 * ring.h - the lock-free MPMC ring of slot indices: a ring of hints.
 *
 * Positions grow for ever; position p uses cell p mod cells in lap p / cells. A
 * cell holds {lap:32, value:32}; it is published for p when its lap is p's.
 *
 *   put:  P1 tail fetch-add  -> position(s)
 *         P2 cell CAS {an earlier lap} -> {this lap, slot}     (publish)
 *   take: T1 cell load, lap is head's                          (synchronises with P2)
 *         T2 head CAS head -> head + n                         (the n entries are ours)
 *
 * A consumer writes no cell: the next lap's producer overwrites it. A producer
 * that died or stalls between P1 and P2 leaves a hole that stops consumers; anyone may close it
 * with a tombstone (P2 with the value TOMB), and a live producer whose P2 then fails takes another
 * position. So no participant, dead or stopped, can wedge a ring.
 *
 * Entries are hints: an entry may lead to a slot that is no longer READY (it is skipped), the same
 * slot may stand here twice, and an entry taken by a consumer that died is lost until the
 * undertaker puts it back. The slot's state word alone decides.
 *
 * Room: a put is refused when more than cells / 2 entries are in. Since cells is twice the number
 * of slots and a participant puts only slots it owns, producers that pass that check at the same
 * time can't overrun the other half.
 *
 * Sources: fetch-add on tail as in LCRQ (Morrison, Afek 2013), cycle-tagged cells as in SCQ
 * (Nikolaev 2019); the tombstone is ours.
 */
#ifndef FABRIC_RING_H
#define FABRIC_RING_H

#include <stdbool.h>
#include "core/segment.h"

#define RING_TOMB 0xffffffffu

static inline uint64_t ring_cell_word(uint32_t lap, uint32_t value)
{
    return (uint64_t)lap << 32 | value;
}

/* An empty ring: positions start in lap 1, since zeroed cells are of lap 0. */
static inline void ring_init(struct seg_ring *r, uint32_t cells)
{
    at_store(&r->head, cells);
    at_store(&r->tail, cells);
}

/* The entry at head is published (a lone look, no promise). */
static inline bool ring_ready(const struct segment *s, struct seg_ring *r)
{
    /* acquire: T1, pairs with P2 */
    uint64_t head = at_load_acq(&r->head);
    uint64_t cell = at_load_acq(&r->cell[head & (s->ring_cells - 1)]);
    return (uint32_t)(cell >> 32) == (uint32_t)(head >> s->ring_shift);
}

/* Positions taken and not yet passed by head; more than 0 while anything is in or on its way in.
 * seq_cst: a sleeper's last look (wake.h) relies on it being ordered after its parked flag. */
static inline uint64_t ring_depth(struct seg_ring *r)
{
    uint64_t head = at_load(&r->head);
    uint64_t tail = at_load(&r->tail);
    return tail > head ? tail - head : 0;
}

/* After n entries were taken: has the slots of as many, a little further on, brought from memory meanwhile.
 * For a ring so deep that they are in no cache: a line that was just written is better left where it is. So
 * far, that who takes one by one does not come to them before they are there. */
#define RING_AHEAD 8u
static inline void ring_fetch_ahead(const struct segment *s, struct seg_ring *r, uint32_t n)
{
    uint64_t from = at_load_rlx(&r->head) + RING_AHEAD; /* relaxed: a guess */
    uint32_t at = (uint32_t)from & (s->ring_cells - 1), lap = (uint32_t)(from >> s->ring_shift);
    for (uint32_t i = at; i < at + n && i < s->ring_cells; i++) {
        uint64_t cell = at_load_rlx(&r->cell[i]); /* relaxed: nothing behind it is read */
        if ((uint32_t)(cell >> 32) != lap)
            break;
        cpu_prefetch_write(&s->slot[(uint32_t)cell & s->slot_mask]);
    }
}

/* Puts n slots, the lower halves of id, in order; returns how many fitted (the first so many).
 * known_head: what the caller last saw of head, kept by it from put to put and read anew only when the ring looks full by it:
 * head's line belongs to the consumers. */
uint32_t ring_put_many(const struct segment *s, struct seg_ring *r, uint64_t *known_head,
                       const uint64_t *id, uint32_t n);
/* Puts one slot, head read anew. False: no room. */
bool ring_put(const struct segment *s, struct seg_ring *r, uint32_t slot);
/* Takes up to max entries in order, tombstones left out, values checked to be slot numbers. 0:
 * nothing is published at head. */
uint32_t ring_take(const struct segment *s, struct seg_ring *r, uint32_t *slot, uint32_t max);
/* Closes the unpublished cells between head and tail with tombstones; returns how many. For the
 * undertaker, and for consumers that have waited at a hole for long. */
uint32_t ring_close_holes(const struct segment *s, struct seg_ring *r);
/* Calls see(slot) for each published entry between head and tail. */
void ring_scan(const struct segment *s, struct seg_ring *r, void (*see)(void *, uint32_t),
               void *arg);

#endif
