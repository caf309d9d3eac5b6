/* SPDX-License-Identifier: MIT
 *
 * undertaker_case.c - see undertaker_case.h.
 */
#include "undertaker_case.h"

struct segment seg;
const struct wake_out out = {-1};
uint32_t daemon_id;

void begin(void)
{
    uint32_t generation;
    unit_segment(&seg, SLOTS, 8, CHUNKS * ARENA_CHUNK, 2);
    daemon_id = unit_participant(&seg, "fabricd", &generation);
}

struct undertaker_report bury(fab_t *f, bool crashed)
{
    uint32_t id = unit_id(f);
    struct undertaker_report r = unit_bury(&seg, daemon_id, f, crashed);
    cr_assert_eq(participant_life(at_load(&seg.participant[id].life)), LIFE_FREE);
    return r;
}

bool audit_if_wanted(void)
{
    struct undertaker_report r = {0};
    if (!at_swap(&seg.head->audit_wanted, 0))
        return false;
    undertaker_audit(&seg, &out, &r);
    return true;
}

void work_off(void)
{
    fab_t *w = unit_handle(&seg, "last", 0);
    struct fab_lease l;
    do
        while (fab_claim(w, 0, &l, 1, 0) == 1)
            cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    while (audit_if_wanted());
    bury(w, false);
}

void check_all_free(void)
{
    struct slot_stock all;
    struct arena_cache c = {0};
    uint32_t unit;
    cr_assert_eq(unit_slots_in(&seg, SLOT_FREE), SLOTS);
    cr_assert_eq(slot_stock_init(&all, SLOTS), 0);
    (void)slot_stock_refill(&seg, &all, daemon_id, SLOTS);
    if (all.n < SLOTS) {
        cr_assert(audit_if_wanted(), "%u free slots can't be had, and no audit is asked for",
                  SLOTS - all.n);
        (void)slot_stock_refill(&seg, &all, daemon_id, SLOTS);
    }
    cr_assert_eq(all.n, SLOTS);
    slot_stock_shrink(&seg, &all, daemon_id, 0);
    slot_stock_free(&all);
    cr_assert_eq(arena_bytes_free(&seg), seg.arena_bytes);
    for (uint32_t u = 0; u < CHUNKS * ARENA_CHUNK_BLOCKS; u++)
        cr_assert_eq(at_load(&seg.block_word[u]), 0, "unit %u", u);
    for (uint32_t i = 0; i < 2; i++) {
        cr_assert_eq(arena_alloc(&seg, &c, daemon_id, seg.arena_bytes, &unit), 0);
        arena_free(&seg, &c, daemon_id, unit, 0, 0);
        for (uint32_t u = 0; u < CHUNKS * ARENA_CHUNK_BLOCKS; u++)
            cr_assert_eq(arena_alloc(&seg, &c, daemon_id, 100, &unit), 0, "block %u", u);
        for (uint32_t u = 0; u < CHUNKS * ARENA_CHUNK_BLOCKS; u++)
            arena_free(&seg, &c, daemon_id, u, 0, 0);
    }
    segment_unmap(&seg);
}
