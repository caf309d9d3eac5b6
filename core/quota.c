/* SPDX-License-Identifier: MIT
 *
 * quota.c - see quota.h.
 */
#include "core/local.h"
#include "core/quota.h"
#include "core/ring.h"

/* Between two counts: this long at least, and this many times what the last one took. */
#define COUNT_PAUSE_NS 20000u
#define COUNT_PART     8u

static uint32_t waited(const struct local *l)
{
    return l->tasks.n + l->held_n + l->stock.n;
}

bool quota_own_hands(const struct local *l)
{
    return l->tasks.n + l->held_n >= l->seg->producer_share;
}

uint64_t quota_arena_share(const struct segment *s)
{
    return (uint64_t)((unsigned __int128)s->arena_bytes * s->producer_share / s->slots);
}

static uint64_t block_bytes(uint32_t arg_len, uint32_t res_len, uint32_t state)
{
    uint64_t n = slot_arg_place(arg_len) == PLACE_BLOCK ? slot_arg_len(arg_len) : 0;
    if (state >= SLOT_DONE && slot_res_place(arg_len, res_len) == PLACE_BLOCK)
        n += res_len;
    return n;
}

/* Counts what is ours in all of the segment. False: it is too soon for that. */
static bool count(struct local *l)
{
    uint64_t start = clock_ns(), bytes = 0;
    uint32_t n = 0;
    if (start < l->quota.count_again)
        return false;
    slot_stock_settle(l->seg, &l->stock, l->me); /* or they would be counted twice */
    for (uint32_t i = 0; i < l->seg->slots; i++) {
        const struct seg_slot *sl = &l->seg->slot[i];
        /* relaxed: numbers of nearly one moment; a slot that changes now is counted or not */
        uint64_t w = at_load_rlx(&sl->state), m;
        if (slot_state(w) < SLOT_ZOMBIE || slot_state(w) >= SLOT_STATES)
            continue;
        m = at_load_rlx(&sl->meta);
        if (meta_producer(m) != l->me || (meta_flags(m) & META_ORPHAN)) /* or of one before us */
            continue;
        n++;
        bytes += block_bytes(sl->arg_len, sl->res_len, slot_state(w));
    }
    uint64_t end = clock_ns(), pause = COUNT_PART * (end - start);
    l->quota.counted = n + l->stock.n;
    l->quota.taken = 0;
    l->quota.arena = bytes;
    l->quota.count_again = end + (pause > COUNT_PAUSE_NS ? pause : COUNT_PAUSE_NS);
    return true;
}

/* How many slots more the handle may take. */
static uint32_t allowance(struct local *l)
{
    uint32_t share = l->seg->producer_share, others = l->seg->slots - share, mine = waited(l);
    if (mine >= share)
        return 0;
    if (!l->unwaited || others == 0)
        return share - mine;
    uint64_t free = ring_depth(l->seg->free_ring);
    if (free > others)
        return free - others < share - mine ? (uint32_t)(free - others) : share - mine;
    for (;;) {
        uint32_t most = l->quota.counted + l->quota.taken;
        if (most < share)
            return share - most;
        if (!count(l) || l->quota.counted >= share)
            return 0;
    }
}

uint32_t quota_refill(struct local *l, uint32_t want, bool *own)
{
    uint32_t had = l->stock.n, more = want - had, may = allowance(l);
    *own = may == 0;
    if (may == 0)
        return had;
    uint32_t n = slot_stock_refill(l->seg, &l->stock, l->me, had + (more < may ? more : may));
    if (n > had && l->quota.taken < l->seg->slots) /* more than all of them says no more */
        l->quota.taken += n - had;
    return n;
}

bool quota_arena(struct local *l, uint64_t len)
{
    uint64_t share = quota_arena_share(l->seg);
    /* one always may; and what never fits is refused with better words elsewhere */
    if (l->quota.arena == 0 || l->quota.arena + len <= share || len > l->seg->arena_bytes)
        return true;
    return l->unwaited && count(l) && (l->quota.arena == 0 || l->quota.arena + len <= share);
}

void quota_arena_add(struct local *l, uint64_t len)
{
    l->quota.arena += len;
}

void quota_arena_sub(struct local *l, uint64_t len)
{
    l->quota.arena = l->quota.arena > len ? l->quota.arena - len : 0;
}
