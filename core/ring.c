/* SPDX-License-Identifier: MIT
 *
 * ring.c - putting, taking, closing holes. Lock-free: any thread may stop at any instruction and
 * the others go on.
 */
#include "core/crashpoint.h"
#include "core/ring.h"

/* Closed positions a put meets before it gives up. One is rare; so many mean a damaged tail. */
#define TRIES_MAX 64u

static inline uint32_t lap_of(const struct segment *s, uint64_t pos)
{
    return (uint32_t)(pos >> s->ring_shift);
}

/* P2. False: somebody closed the position. */
SELDOM static bool publish(const struct segment *s, struct seg_ring *r, uint64_t pos,
                           uint32_t value)
{
    _Atomic uint64_t *cell = &r->cell[pos & (s->ring_cells - 1)];
    uint32_t lap = lap_of(s, pos);
    uint64_t old = at_load_rlx(cell); /* a guess for the CAS, which checks it */
    do {
        if ((int32_t)((uint32_t)(old >> 32) - lap) >= 0)
            return false;
        /* seq_cst: besides publishing to T1 it orders this put before the putter's look for
         * sleepers (wake.h) */
    } while (!at_cas(cell, &old, ring_cell_word(lap, value)));
    return true;
}

static bool has_room(const struct segment *s, struct seg_ring *r, uint64_t *known_head,
                     uint64_t tail, uint32_t n)
{
    if (tail + n <= *known_head + s->ring_cells / 2)
        return true;
    *known_head = at_load_rlx(&r->head); /* relaxed: an old head only makes the ring look fuller */
    return tail + n <= *known_head + s->ring_cells / 2;
}

/* P2 for n positions from pos on, all in one lap. Returns how many of the slots are in: a position
 * closed under us is skipped, its slot takes the next. */
static inline uint32_t publish_run(const struct segment *s, struct seg_ring *r, uint64_t pos,
                                   const uint64_t *id, uint32_t n)
{
    const uint64_t high = ring_cell_word(lap_of(s, pos), 0);
    _Atomic uint64_t *cell = &r->cell[pos & (s->ring_cells - 1)], *end = cell + n;
    const uint64_t *next = id;
    for (; cell < end; cell++) {
        uint64_t old = at_load_rlx(cell); /* a guess for the CAS, which checks it */
        /* the common case: the cell has nothing newer (laps are compared as in publish(), in place);
         * seq_cst as there */
        if ((int64_t)(old - high) < 0 && at_cas(cell, &old, high | (uint32_t)*next))
            next++;
        else
            next += publish(s, r, pos + (uint64_t)(n - (end - cell)), (uint32_t)*next);
        CRASH_POINT("ring.p2");
    }
    return (uint32_t)(next - id);
}

/* One of one, if all goes well. */
static inline bool put_one(const struct segment *s, struct seg_ring *r, uint64_t *known_head,
                           uint32_t slot)
{
    if (!has_room(s, r, known_head, at_load_rlx(&r->tail), 1))
        return false;
    uint64_t pos = at_add(&r->tail, 1); /* P1 */
    CRASH_POINT("ring.p1");
    _Atomic uint64_t *cell = &r->cell[pos & (s->ring_cells - 1)];
    uint64_t old = at_load_rlx(cell); /* a guess for the CAS, which checks it */
    uint32_t lap = lap_of(s, pos);
    /* seq_cst as in publish() */
    bool in =
        (int32_t)((uint32_t)(old >> 32) - lap) < 0 && at_cas(cell, &old, ring_cell_word(lap, slot));
    CRASH_POINT("ring.p2");
    return in || publish(s, r, pos, slot);
}

uint32_t ring_put_many(const struct segment *s, struct seg_ring *r, uint64_t *known_head,
                       const uint64_t *id, uint32_t n)
{
    uint32_t done = 0;
    if (n == 1 && put_one(s, r, known_head, (uint32_t)*id))
        return 1;
    for (uint32_t tries = 0; done < n && tries < TRIES_MAX; tries++) {
        uint32_t k = n - done;
        uint64_t tail = at_load_rlx(&r->tail);
        if (!has_room(s, r, known_head, tail, k)) {
            k = 1;
            if (!has_room(s, r, known_head, tail, k))
                break;
        }
        uint64_t pos = at_add(&r->tail, k); /* P1 for k at once */
        CRASH_POINT("ring.p1");
        for (uint32_t piece; k > 0; k -= piece, pos += piece) { /* what was skipped stays for the next round */
            uint32_t before_lap = s->ring_cells - (uint32_t)(pos & (s->ring_cells - 1));
            piece = k < before_lap ? k : before_lap;
            done += publish_run(s, r, pos, id + done, piece);
        }
    }
    return done;
}

bool ring_put(const struct segment *s, struct seg_ring *r, uint32_t slot)
{
    uint64_t head = at_load_rlx(&r->head); /* as in has_room() */
    return ring_put_many(s, r, &head, &(uint64_t){slot}, 1) == 1;
}

uint32_t ring_take(const struct segment *s, struct seg_ring *r, uint32_t *slot, uint32_t max)
{
    const uint32_t mask = s->ring_cells - 1, slots = s->slots;
    for (;;) {
        uint64_t head = at_load_acq(&r->head); /* pairs with T2 of other consumers */
        uint32_t at = (uint32_t)head & mask, lap = lap_of(s, head), n = 0;
        uint32_t most = max < mask + 1 - at ? max : mask + 1 - at, seen = 0; /* within the lap */
        for (const _Atomic uint64_t *c = &r->cell[at]; seen < most; seen++) {
            /* acquire: T1, synchronises with P2: the slot's content is visible */
            uint64_t cell = at_load_acq(&c[seen]);
            if ((uint32_t)(cell >> 32) != lap)
                break;
            slot[n] = (uint32_t)cell;
            n += (uint32_t)cell < slots; /* else a tombstone, or damage */
            cpu_prefetch_write(&s->slot[(uint32_t)cell & s->slot_mask]); /* who takes it looks there next */
        }
        if (seen == 0)
            return 0;
        if (!at_cas(&r->head, &head, head + seen)) { /* T2 */
            cpu_relax();
            continue;
        }
        CRASH_POINT("ring.t2");
        if (n)
            return n;
        /* only tombstones: look further */
    }
}

uint32_t ring_close_holes(const struct segment *s, struct seg_ring *r)
{
    uint64_t head = at_load(&r->head), tail = at_load(&r->tail);
    uint32_t closed = 0;
    if (tail < head || tail - head > s->ring_cells) /* damage, or head ran on meanwhile */
        return 0;
    for (uint64_t pos = head; pos < tail; pos++) {
        closed += publish(s, r, pos, RING_TOMB);
        CRASH_POINT("ring.closing");
    }
    return closed;
}

void ring_scan(const struct segment *s, struct seg_ring *r, void (*see)(void *, uint32_t),
               void *arg)
{
    uint64_t head = at_load(&r->head), tail = at_load(&r->tail);
    if (tail < head || tail - head > s->ring_cells)
        return;
    for (uint64_t pos = head; pos < tail; pos++) {
        uint64_t cell = at_load_acq(&r->cell[pos & (s->ring_cells - 1)]); /* T1 */
        if ((uint32_t)(cell >> 32) == lap_of(s, pos) && (uint32_t)cell < s->slots)
            see(arg, (uint32_t)cell);
    }
}
