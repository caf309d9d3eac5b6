/* SPDX-License-Identifier: MIT
 *
 * test_slot.c - the state word, where bytes lie, and the stock of free slots.
 */
#include "unit.h"

#define SLOTS 64u

/* ---- words ---- */

Test(slot, word_keeps_its_parts)
{
    static const uint32_t owners[] = {0, 1, 255, 16383, NOBODY};
    static const uint32_t epochs[] = {0, 1, 0x7fffffff, 0xffffffff};
    for (size_t o = 0; o < sizeof owners / sizeof *owners; o++) {
        for (size_t e = 0; e < sizeof epochs / sizeof *epochs; e++) {
            for (uint32_t st = SLOT_FREE; st < SLOT_STATES; st++) {
                for (uint32_t attempt = 0; attempt < 256; attempt += 51) {
                    uint64_t w = slot_word(epochs[e], owners[o], attempt, (enum slot_state)st);
                    cr_assert_eq(slot_epoch(w), epochs[e]);
                    cr_assert_eq(slot_owner(w), owners[o]);
                    cr_assert_eq(slot_attempt(w), attempt);
                    cr_assert_eq(slot_state(w), st);
                }
            }
        }
    }
}

Test(slot, zeroed_memory_is_free_and_nobodys)
{
    cr_assert_eq(slot_word(0, NOBODY, 0, SLOT_FREE), 0);
    cr_assert_eq(slot_owner(0), NOBODY);
    cr_assert_eq(slot_state(0), SLOT_FREE);
}

Test(slot, attempts_never_spill_into_the_owner)
{
    uint64_t w = slot_word(7, 3, 256, SLOT_LEASED);
    cr_assert_eq(slot_attempt(w), 0);
    cr_assert_eq(slot_owner(w), 3);
    cr_assert_eq(slot_epoch(w), 7);
}

Test(slot, outcomes_are_the_last_states)
{
    for (uint32_t st = 0; st < 128; st++) { /* the eighth bit is SLOT_SOLO */
        bool outcome =
            st == SLOT_DONE || st == SLOT_FAILED || st == SLOT_CANCELLED || st == SLOT_DEAD ||
            st == SLOT_EXPIRED || st == SLOT_OVERRUN || st == SLOT_DUPLICATE;
        cr_assert_eq(slot_is_outcome(slot_word(1, 1, 1, (enum slot_state)st)), outcome, "%u", st);
    }
}

Test(slot, meta_keeps_its_parts)
{
    uint64_t m = slot_meta(16383, 63, 3, META_NO_WAIT | META_ORPHAN);
    cr_assert_eq(meta_producer(m), 16383);
    cr_assert_eq(meta_queue(m), 63);
    cr_assert_eq(meta_priority(m), 3);
    cr_assert_eq(meta_flags(m), META_NO_WAIT | META_ORPHAN);
    cr_assert_eq(meta_crashes(m), 0);
    m = meta_count_crash(m, 1);
    m = meta_count_crash(m, 2);
    cr_assert_eq(meta_counted(m), 2);
    m |= (uint64_t)META_ORPHAN << 16;
    cr_assert_eq(meta_crashes(m), 2);
    cr_assert_eq(meta_flags(m), META_NO_WAIT | META_ORPHAN | META_ORPHAN);
    cr_assert_eq(meta_producer(m), 16383);
    cr_assert_eq(meta_priority(m), 3);
}

Test(slot, places_follow_from_lengths)
{
    cr_assert_eq(slot_arg_place(0), PLACE_SLOT);
    cr_assert_eq(slot_arg_place(8), PLACE_SLOT);
    cr_assert_eq(slot_arg_place(9), PLACE_WIDE);
    cr_assert_eq(slot_arg_place(64), PLACE_WIDE);
    cr_assert_eq(slot_arg_place(65), PLACE_BLOCK);
    cr_assert_eq(slot_res_place(9, 8), PLACE_SLOT);
    cr_assert_eq(slot_res_place(8, 9), PLACE_WIDE);
    cr_assert_eq(slot_res_place(65, 64), PLACE_WIDE);
    cr_assert_eq(slot_res_place(8, 65), PLACE_BLOCK);
    /* the argument is in the wide, and a later attempt may need it */
    cr_assert_eq(slot_res_place(9, 9), PLACE_BLOCK);
    cr_assert_eq(slot_res_place(64, 64), PLACE_BLOCK);
}

/* ---- stock ---- */

static uint64_t word(const struct segment *s, uint32_t slot)
{
    return at_load(&s->slot[slot].state);
}

Test(stock, refill_takes_free_slots_once)
{
    struct segment s;
    struct slot_stock a, b;
    bool seen[SLOTS] = {false};
    unit_segment(&s, SLOTS, 4, 0, 1);
    cr_assert_eq(slot_stock_init(&a, 40), 0);
    cr_assert_eq(slot_stock_init(&b, 40), 0);
    cr_assert_eq(slot_stock_refill(&s, &a, 1, 10), 10);
    cr_assert_eq(slot_stock_refill(&s, &a, 1, 5), 10, "it has enough");
    cr_assert_eq(slot_stock_refill(&s, &a, 1, 1000), 40, "cap is the most it keeps");
    cr_assert_eq(slot_stock_refill(&s, &b, 2, 40), SLOTS - 40, "all there are");
    cr_assert_eq(slot_stock_refill(&s, &b, 2, 40), SLOTS - 40);
    for (uint32_t i = 0; i < SLOTS; i++) {
        uint32_t slot = i < 40 ? (uint32_t)a.id[i] : (uint32_t)b.id[i - 40];
        cr_assert_lt(slot, SLOTS);
        cr_assert_not(seen[slot]);
        seen[slot] = true;
        cr_assert_eq(word(&s, slot), slot_word(1, i < 40 ? 1 : 2, 0, SLOT_FILLING));
    }
    slot_stock_free(&a);
    slot_stock_free(&b);
    segment_unmap(&s);
}

Test(stock, shrink_gives_back_what_is_ours)
{
    struct segment s;
    struct slot_stock a;
    unit_segment(&s, SLOTS, 4, 0, 1);
    cr_assert_eq(slot_stock_init(&a, 32), 0);
    cr_assert_eq(slot_stock_refill(&s, &a, 1, 32), 32);
    uint32_t stolen = (uint32_t)a.id[20];
    at_store(&s.slot[stolen].state, slot_word(1, 2, 1, SLOT_LEASED));
    slot_stock_shrink(&s, &a, 1, 16);
    cr_assert_eq(a.n, 16);
    cr_assert_eq(unit_slots_in(&s, SLOT_FREE), SLOTS - 32 + 15);
    cr_assert_eq(word(&s, stolen), slot_word(1, 2, 1, SLOT_LEASED), "not ours, not touched");
    slot_stock_shrink(&s, &a, 1, 0);
    cr_assert_eq(a.n, 0);
    cr_assert_eq(unit_slots_in(&s, SLOT_FREE), SLOTS - 1);
    cr_assert_eq(slot_stock_refill(&s, &a, 1, 32), 32, "the ring has them again");
    slot_stock_free(&a);
    segment_unmap(&s);
}

Test(stock, stale_hints_are_skipped)
{
    struct segment s;
    struct slot_stock a;
    unit_segment(&s, SLOTS, 4, 0, 1);
    cr_assert_eq(slot_stock_init(&a, SLOTS), 0);
    for (uint32_t i = 0; i < SLOTS; i += 2)
        at_store(&s.slot[i].state, slot_word(3, 2, 0, SLOT_READY));
    cr_assert_eq(slot_stock_refill(&s, &a, 1, SLOTS), SLOTS / 2);
    for (uint32_t i = 0; i < a.n; i++)
        cr_assert_eq(a.id[i] % 2, 1);
    for (uint32_t i = 0; i < SLOTS; i += 2)
        cr_assert_eq(word(&s, i), slot_word(3, 2, 0, SLOT_READY));
    slot_stock_free(&a);
    segment_unmap(&s);
}

/* A producer that was stopped (not killed) between the two steps of a put must not starve the
 * others: a ring can't be wedged by anybody (ring.h). */
Test(stock, a_hole_in_the_free_ring_does_not_hide_the_slots_behind_it)
{
    struct segment s;
    struct slot_stock a, b;
    unit_segment(&s, SLOTS, 4, 0, 1);
    cr_assert_eq(slot_stock_init(&a, SLOTS), 0);
    cr_assert_eq(slot_stock_init(&b, SLOTS), 0);
    cr_assert_eq(slot_stock_refill(&s, &a, 1, SLOTS), SLOTS);
    at_add(&s.free_ring->tail, 1);
    slot_stock_shrink(&s, &a, 1, 0);
    cr_assert_eq(unit_slots_in(&s, SLOT_FREE), SLOTS);
    uint32_t got = 0;
    for (int tries = 0; tries < 1000 && got == 0; tries++)
        got = slot_stock_refill(&s, &b, 2, 8);
    cr_assert_eq(got, 8);
    slot_stock_free(&a);
    slot_stock_free(&b);
    segment_unmap(&s);
}

Test(stock, give_puts_off_the_state_word)
{
    struct segment s;
    struct slot_stock a;
    unit_segment(&s, SLOTS, 4, 0, 1);
    cr_assert_eq(slot_stock_init(&a, 8), 0);
    uint64_t done = slot_word(5, 1, 2, SLOT_DONE);
    at_store(&s.slot[9].state, done);
    slot_give(&s, &a, 1, slot_id(9, 5));
    cr_assert_eq(a.n, 1);
    cr_assert_eq(word(&s, 9), done, "put off");
    cr_assert_eq(a.id[0], slot_id(9, 6), "the next task has a new epoch");
    slot_stock_settle(&s, &a, 1);
    cr_assert_eq(word(&s, 9), slot_word(6, 1, 0, SLOT_FILLING));
    cr_assert_eq(a.id[0], slot_id(9, 6), "counted once");
    slot_stock_settle(&s, &a, 1);
    cr_assert_eq(word(&s, 9), slot_word(6, 1, 0, SLOT_FILLING));

    at_store(&s.slot[10].state, done);
    at_store(&s.slot[11].state, done);
    slot_give(&s, &a, 1, slot_id(10, 5));
    slot_give(&s, &a, 1, slot_id(11, 5));
    cr_assert_eq(word(&s, 10), done, "several at once");
    slot_settle_top(&s, &a, 1);
    cr_assert_eq(word(&s, 11), slot_word(6, 1, 0, SLOT_FILLING));
    cr_assert_eq(word(&s, 10), done, "the top alone");
    slot_stock_shrink(&s, &a, 1, 0);
    cr_assert_eq(slot_state(word(&s, 9)) + slot_state(word(&s, 10)) + slot_state(word(&s, 11)),
                 SLOT_FREE);
    slot_stock_free(&a);
    segment_unmap(&s);
}

Test(stock, a_full_one_gives_half_to_the_free_ring)
{
    struct segment s;
    struct slot_stock a;
    unit_segment(&s, SLOTS, 4, 0, 1);
    cr_assert_eq(slot_stock_init(&a, 8), 0);
    cr_assert_eq(slot_stock_refill(&s, &a, 1, 8), 8);
    at_store(&s.slot[60].state, slot_word(1, 1, 1, SLOT_FAILED));
    slot_give(&s, &a, 1, slot_id(60, 1));
    cr_assert_eq(a.n, 5);
    cr_assert_eq(a.id[4], slot_id(60, 2), "last in, first out");
    cr_assert_eq(unit_slots_in(&s, SLOT_FREE), SLOTS - 8 + 4 - 1);
    slot_stock_shrink(&s, &a, 1, 0);
    cr_assert_eq(unit_slots_in(&s, SLOT_FREE), SLOTS);
    slot_stock_free(&a);
    segment_unmap(&s);
}

Test(stock, one_slot_is_room_enough)
{
    struct segment s;
    struct slot_stock a;
    unit_segment(&s, SLOTS, 4, 0, 1);
    cr_assert_eq(slot_stock_init(&a, 1), 0);
    for (uint32_t i = 0; i < 10; i++) {
        at_store(&s.slot[i].state, slot_word(1, 1, 1, SLOT_DONE));
        slot_give(&s, &a, 1, slot_id(i, 1));
        cr_assert_eq(a.n, 1);
    }
    slot_stock_shrink(&s, &a, 1, 0);
    cr_assert_eq(unit_slots_in(&s, SLOT_FREE), SLOTS);
    slot_stock_free(&a);
    segment_unmap(&s);
}

Test(stock, epochs_grow_with_each_use)
{
    struct segment s;
    struct slot_stock a;
    uint32_t last[SLOTS] = {0};
    unit_segment(&s, SLOTS, 4, 0, 1);
    cr_assert_eq(slot_stock_init(&a, SLOTS), 0);
    for (int round = 0; round < 100; round++) {
        cr_assert_eq(slot_stock_refill(&s, &a, 1, SLOTS), SLOTS);
        for (uint32_t i = 0; i < SLOTS; i++) {
            uint32_t slot = (uint32_t)a.id[i], epoch = slot_epoch(word(&s, slot));
            cr_assert_eq(a.id[i], slot_id(slot, epoch));
            cr_assert_gt(epoch, last[slot]);
            last[slot] = epoch;
        }
        slot_stock_shrink(&s, &a, 1, 0);
    }
    slot_stock_free(&a);
    segment_unmap(&s);
}

Test(stock, to_free_needs_the_word_it_was_told)
{
    struct segment s;
    uint32_t slot;
    unit_segment(&s, SLOTS, 4, 0, 1);
    cr_assert_eq(ring_take(&s, s.free_ring, &slot, 1), 1);
    uint64_t w = slot_word(8, 1, 3, SLOT_DONE);
    at_store(&s.slot[slot].state, w);
    cr_assert_not(slot_to_free(&s, slot, slot_word(8, 1, 2, SLOT_DONE)));
    cr_assert_eq(word(&s, slot), w);
    cr_assert(slot_to_free(&s, slot, w));
    cr_assert_eq(word(&s, slot), slot_word(8, NOBODY, 0, SLOT_FREE), "the epoch stays");
    cr_assert_eq(ring_depth(s.free_ring), SLOTS);
    segment_unmap(&s);
}

/* ---- many hands ---- */

struct taker {
    const struct segment *s;
    uint32_t me;
    _Atomic uint32_t *held, *errors;
};

static void *taker_thread(void *arg)
{
    struct taker *t = arg;
    struct slot_stock st;
    if (slot_stock_init(&st, 24) < 0)
        return NULL;
    for (int round = 0; round < 20000; round++) {
        uint32_t n = slot_stock_refill(t->s, &st, t->me, 1 + (uint32_t)round % 24);
        for (uint32_t i = 0; i < n; i++)
            if (at_add(&t->held[(uint32_t)st.id[i]], 1))
                at_add(t->errors, 1);
        for (uint32_t i = 0; i < n; i++)
            at_sub(&t->held[(uint32_t)st.id[i]], 1);
        slot_stock_shrink(t->s, &st, t->me, (uint32_t)round % 3);
        if (round % 3)
            slot_stock_shrink(t->s, &st, t->me, 0);
    }
    slot_stock_free(&st);
    return NULL;
}

Test(stock, a_slot_is_never_in_two_stocks, .timeout = 30)
{
    struct segment s;
    static _Atomic uint32_t held[SLOTS], errors;
    struct taker t[4];
    pthread_t thread[4];
    unit_segment(&s, SLOTS, 4, 0, 1);
    for (uint32_t i = 0; i < 4; i++) {
        t[i] = (struct taker){.s = &s, .me = i, .held = held, .errors = &errors};
        cr_assert_eq(pthread_create(&thread[i], NULL, taker_thread, &t[i]), 0);
    }
    for (uint32_t i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    cr_assert_eq(at_load(&errors), 0);
    cr_assert_eq(unit_slots_in(&s, SLOT_FREE), SLOTS);
    cr_assert_eq(ring_depth(s.free_ring), SLOTS);
    segment_unmap(&s);
}
