/* SPDX-License-Identifier: MIT
 *
 * test_undertaker_arena.c - blocks and chunks of the arena are given back at each step of their
 * making and freeing at which their owner may die, and those of the living stay.
 */
#include "undertaker_case.h"

static void hold_chunks(uint32_t dead, uint32_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        at_store(&seg.chunk_word[first + i], chunk_word(CHUNK_HELD, 0, dead, 0));
}

static void hold_block(uint32_t dead, uint32_t unit)
{
    at_store(&seg.block_word[unit], block_word(BLOCK_HELD, dead, 0, 0));
}

Test(undertaker, runs_half_made_or_half_freed_are_freed)
{
    for (int step = 0; step < 7; step++) {
        begin();
        fab_t *d = unit_handle(&seg, "dead", 0);
        uint32_t me = unit_id(d), unit = 4 * ARENA_CHUNK_BLOCKS;
        hold_chunks(me, 4, 3); /* 0: the chunks are held */
        if (step >= 1)         /* 1: and the block */
            hold_block(me, unit);
        if (step >= 2) /* 2: the tail is marked */
            at_store(&seg.chunk_word[6], chunk_word(CHUNK_CONT, 0, me, 2));
        if (step >= 3) { /* 3: all of it, not yet attached */
            at_store(&seg.chunk_word[5], chunk_word(CHUNK_CONT, 0, me, 1));
            at_store(&seg.chunk_word[4], chunk_word(CHUNK_RUN, 0, me, 3));
        }
        if (step >= 4) /* 4: being freed: the first of the tail is gone */
            at_store(&seg.chunk_word[5], 0);
        if (step >= 5) { /* 5: and the rest, the head is held */
            at_store(&seg.chunk_word[6], 0);
            at_store(&seg.chunk_word[4], chunk_word(CHUNK_HELD, 0, me, 0));
        }
        if (step >= 6) /* 6: and the block is free */
            at_store(&seg.block_word[unit], 0);
        bury(d, true);
        cr_assert_eq(arena_bytes_free(&seg), seg.arena_bytes, "step %d", step);
        check_all_free();
    }
}

Test(undertaker, a_chunk_half_reclaimed_is_free_again)
{
    for (int step = 0; step < 4; step++) {
        begin();
        fab_t *d = unit_handle(&seg, "dead", 0);
        uint32_t me = unit_id(d), base = 2 * ARENA_CHUNK_BLOCKS;
        at_store(&seg.chunk_word[2], chunk_word(CHUNK_CLASS, 1, NOBODY, 0));
        for (uint32_t u = 0; u < ARENA_CHUNK_BLOCKS; u += 4) /* 0: some blocks held, 1: all */
            if (step > 0 || u < 100)
                hold_block(me, base + u);
        if (step >= 2) /* 2: the chunk is free, the blocks are not yet */
            at_store(&seg.chunk_word[2], 0);
        if (step == 3) /* 3: and somebody has made something else of it since */
            at_store(&seg.chunk_word[2], chunk_word(CHUNK_CLASS, 0, NOBODY, 0));
        bury(d, true);
        for (uint32_t u = 0; u < ARENA_CHUNK_BLOCKS; u++)
            cr_assert_eq(at_load(&seg.block_word[base + u]), 0, "step %d, unit %u", step, u);
        check_all_free();
    }
}

/* The chunk changed between an allocator's look at it and its CAS on the block, and it died there.
 */
Test(undertaker, a_block_held_in_the_middle_of_a_run_is_freed_and_the_run_is_not)
{
    static const uint32_t at[] = {ARENA_CHUNK_BLOCKS, ARENA_CHUNK_BLOCKS + 8, 4,
                                  2 * ARENA_CHUNK_BLOCKS + 255};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        begin();
        struct arena_cache c = {0};
        uint32_t run;
        fab_t *d = unit_handle(&seg, "dead", 0), *live = unit_handle(&seg, "live", 0);
        cr_assert_eq(arena_alloc(&seg, &c, unit_id(live), 3 * ARENA_CHUNK, &run), 0);
        hold_block(unit_id(d), run + at[i]);
        bury(d, true);
        uint64_t left = at_load(&seg.block_word[run + at[i]]);
        cr_assert_eq(left, 0, "unit %u", at[i]);
        cr_assert_eq(arena_bytes_free(&seg), seg.arena_bytes - 3 * ARENA_CHUNK,
                     "unit %u: the run must stay", at[i]);
        arena_free(&seg, &c, unit_id(live), run, 0, 0);
        bury(live, false);
        check_all_free();
    }
}

Test(undertaker, chunks_a_live_one_is_about_to_join_stay)
{
    begin();
    fab_t *d = unit_handle(&seg, "dead", 0), *live = unit_handle(&seg, "live", 0);
    hold_chunks(unit_id(live), 4, 3);
    hold_block(unit_id(d), 4 * ARENA_CHUNK_BLOCKS);
    bury(d, true);
    for (uint32_t i = 4; i < 7; i++) {
        uint64_t w = at_load(&seg.chunk_word[i]);
        cr_assert(chunk_state(w) == CHUNK_HELD && chunk_owner(w) == unit_id(live), "chunk %u", i);
    }
    bury(live, true);
    check_all_free();
}

Test(undertaker, what_the_living_hold_stays)
{
    begin();
    struct arena_cache c = {0};
    uint32_t small, run;
    fab_t *d = unit_handle(&seg, "dead", 0), *live = unit_handle(&seg, "live", 0);
    struct local *l = (struct local *)live;
    cr_assert_eq(arena_alloc(&seg, &c, l->me, 300, &small), 0);
    cr_assert_eq(arena_alloc(&seg, &c, l->me, 200000, &run), 0);
    cr_assert_gt(slot_stock_refill(&seg, &l->stock, l->me, 4), 3);
    struct undertaker_report r = bury(d, true);
    cr_assert_eq(r.blocks + r.filling + r.leases + r.outcomes, 0);
    cr_assert_eq(unit_slots_in(&seg, SLOT_FILLING), 4);
    cr_assert_eq(block_owner(at_load(&seg.block_word[small])), l->me);
    cr_assert_eq(chunk_state(at_load(&seg.chunk_word[run / ARENA_CHUNK_BLOCKS])), CHUNK_RUN);
    r = bury(live, false);
    cr_assert_eq(r.blocks, 2);
    cr_assert_eq(r.filling, 4);
    check_all_free();
}
