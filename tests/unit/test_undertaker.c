/* SPDX-License-Identifier: MIT
 *
 * test_undertaker.c - whatever a participant held when it died is given back: slots in each state,
 * blocks and chunks at each step of their making, ring positions. And nothing of a live one's is
 * touched.
 */
#include <signal.h>
#include <sys/wait.h>
#include "core/clock.h"
#include "core/undertaker.h"
#include "unit.h"

#define SLOTS  128u
#define CHUNKS 16u

static struct segment seg;
static const struct wake_out out = {-1};
static uint32_t daemon_id;

static void begin(void)
{
    uint32_t generation;
    unit_segment(&seg, SLOTS, 8, CHUNKS * ARENA_CHUNK, 2);
    daemon_id = unit_participant(&seg, "fabricd", &generation);
}

static struct undertaker_report bury(fab_t *f, bool crashed)
{
    struct undertaker_report r;
    uint32_t id = unit_id(f);
    fab_close(f);
    undertaker_recover(&seg, &out, daemon_id, id, crashed, &r);
    cr_assert_eq(participant_life(at_load(&seg.participant[id].life)), LIFE_FREE);
    return r;
}

/* What fabricd does within a second of being asked to. */
static bool audit_if_wanted(void)
{
    struct undertaker_report r = {0};
    if (!at_swap(&seg.head->audit_wanted, 0))
        return false;
    undertaker_audit(&seg, &out, &r);
    return true;
}

/* A worker that does all there is to do. */
static void work_off(void)
{
    fab_t *w = unit_handle(&seg, "last", 0);
    struct fab_lease l;
    do
        while (fab_claim(w, 0, &l, 1, 0) == 1)
            cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    while (audit_if_wanted());
    bury(w, false);
}

/* Nothing leaks: every slot and every block is free, and can be had again. */
static void check_all_free(void)
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

static fab_id submit(fab_t *f, uint32_t len, uint16_t flags)
{
    static uint8_t bytes[200000];
    struct fab_task t = {.kernel = 3, .arg = bytes, .len = len, .flags = flags, .priority = 1};
    fab_id id = 0;
    unit_fill(bytes, len, len);
    long n = fab_submit(f, &t, 1, &id, 0);
    cr_assert_eq(n, 1, "%s", fab_errmsg());
    return id;
}

static struct fab_lease claim(fab_t *f)
{
    struct fab_lease l;
    memset(&l, 0, sizeof l);
    long n = fab_claim(f, 0, &l, 1, 0);
    cr_assert_eq(n, 1, "%s", fab_errmsg());
    cr_assert(unit_filled(fab_arg(&l), l.len, l.len), "an argument of %u bytes", l.len);
    return l;
}

/* ---- slots ---- */

Test(undertaker, frees_what_was_being_filled)
{
    begin();
    fab_t *p = unit_handle(&seg, "producer", 0);
    struct local *l = (struct local *)p;
    cr_assert_gt(slot_stock_refill(&seg, &l->stock, l->me, 5), 4);
    cr_assert_eq(unit_slots_in(&seg, SLOT_FILLING), 5);
    struct undertaker_report r = bury(p, true);
    cr_assert_eq(r.filling, 5);
    cr_assert_eq(at_load(&seg.head->dead_participants), 1);
    check_all_free();
}

Test(undertaker, an_argument_half_attached_goes_too)
{
    begin();
    fab_t *p = unit_handle(&seg, "producer", 0);
    struct local *l = (struct local *)p;
    uint32_t unit[3];
    cr_assert_gt(slot_stock_refill(&seg, &l->stock, l->me, 3), 2);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(arena_alloc(&seg, &l->arena, l->me, i == 2 ? 200000 : 300, &unit[i]), 0);
        uint32_t slot = l->stock.slot[i];
        if (i > 0)
            arena_attach(&seg, unit[i], BLOCK_ARG, l->me, slot,
                         slot_epoch(at_load(&seg.slot[slot].state)));
    }
    struct undertaker_report r = bury(p, true);
    cr_assert_eq(r.blocks, 3);
    cr_assert_eq(r.filling, 3);
    check_all_free();
}

Test(undertaker, gives_a_dead_workers_tasks_to_another)
{
    begin();
    static const uint32_t lens[] = {8, 40, 500, 70000, 150000};
    fab_t *p = unit_handle(&seg, "producer", 0), *w = unit_handle(&seg, "worker", 0);
    fab_id id[5];
    for (int i = 0; i < 5; i++)
        id[i] = submit(p, lens[i], 0);
    for (int i = 0; i < 4; i++)
        (void)claim(w);
    struct undertaker_report r = bury(w, true);
    cr_assert_eq(r.leases, 4);
    cr_assert_eq(r.dead, 0);
    cr_assert_eq(r.blocks, 0, "arguments are still needed");
    cr_assert_eq(at_load(&seg.head->recovered_leases), 4);
    w = unit_handle(&seg, "worker", 0);
    bool seen[5] = {false};
    for (int i = 0; i < 5; i++) {
        struct fab_lease l = claim(w);
        cr_assert_eq(l.attempt, l.len == lens[4] ? 1 : 2);
        for (int k = 0; k < 5; k++)
            seen[k] |= l.len == lens[k];
        cr_assert_eq(fab_complete(w, &l, fab_arg(&l), l.len), 0);
    }
    for (int i = 0; i < 5; i++) {
        struct fab_outcome o;
        cr_assert(seen[i]);
        cr_assert_eq(fab_wait(p, id[i], &o, 0), 0);
        cr_assert(o.status == FAB_COMPLETED && o.len == lens[i]);
        cr_assert(unit_filled(fab_data(&o), o.len, o.len));
    }
    bury(p, false);
    bury(w, false);
    check_all_free();
}

Test(undertaker, a_result_half_made_is_dropped)
{
    begin();
    fab_t *p = unit_handle(&seg, "producer", 0), *w = unit_handle(&seg, "worker", 0);
    struct local *l = (struct local *)w;
    struct fab_outcome o;
    fab_id id = submit(p, 500, 0);
    struct fab_lease lease = claim(w);
    uint32_t slot = (uint32_t)lease.ref[0], unit;
    /* as far as put_result() goes, short of the last step */
    cr_assert_eq(arena_alloc(&seg, &l->arena, l->me, 20000, &unit), 0);
    arena_attach(&seg, unit, BLOCK_RES, l->me, slot, slot_epoch(lease.ref[1]));
    seg.slot[slot].res = unit;
    seg.slot[slot].res_len = 20000;
    struct undertaker_report r = bury(w, true);
    cr_assert_eq(r.blocks, 1);
    cr_assert_eq(r.leases, 1);
    cr_assert_eq(fab_cancel(p, id), 0);
    cr_assert_eq(fab_wait(p, id, &o, 0), 0);
    cr_assert_eq(o.status, FAB_CANCELLED);
    cr_assert_eq(o.len, 0, "a withdrawn task has no result, but one of %u bytes was told", o.len);
    bury(p, false);
    check_all_free();
}

Test(undertaker, a_published_result_survives_its_worker)
{
    begin();
    static uint8_t res[100000];
    fab_t *p = unit_handle(&seg, "producer", 0), *w = unit_handle(&seg, "worker", 0);
    static const uint32_t lens[] = {8, 40, 500, 100000};
    fab_id id[4];
    for (int i = 0; i < 4; i++) {
        id[i] = submit(p, 40, 0);
        struct fab_lease l = claim(w);
        unit_fill(res, lens[i], lens[i]);
        cr_assert_eq(fab_complete(w, &l, res, lens[i]), 0);
    }
    struct undertaker_report r = bury(w, true);
    cr_assert_eq(r.blocks + r.leases + r.outcomes, 0);
    for (int i = 0; i < 4; i++) {
        struct fab_outcome o;
        cr_assert_eq(fab_wait(p, id[i], &o, 0), 0);
        cr_assert(o.status == FAB_COMPLETED && o.len == lens[i] &&
                  unit_filled(fab_data(&o), o.len, o.len));
    }
    bury(p, false);
    check_all_free();
}

Test(undertaker, a_dead_producers_outcomes_and_tasks_leave_nothing)
{
    begin();
    static const uint32_t lens[] = {8, 40, 500, 100000};
    fab_t *p = unit_handle(&seg, "producer", 0), *w = unit_handle(&seg, "worker", 0);
    struct fab_lease leased[4];
    static uint8_t res[30000];
    for (int i = 0; i < 4; i++) { /* done, failed, withdrawn: not taken */
        (void)submit(p, lens[i], 0);
        struct fab_lease l = claim(w);
        if (i & 1)
            cr_assert_eq(fab_fail(w, &l, "a sentence that needs more than eight bytes"), 0);
        else
            cr_assert_eq(fab_complete(w, &l, res, 30000), 0);
        fab_id id = submit(p, lens[i], 0);
        cr_assert_eq(fab_cancel(p, id), 0);
    }
    for (int i = 0; i < 4; i++)
        (void)submit(p, lens[i], 0);
    for (int i = 0; i < 4; i++)
        leased[i] = claim(w);
    for (int i = 0; i < 4; i++)
        (void)submit(p, lens[i], i & 1 ? FAB_NO_WAIT : 0);
    struct undertaker_report r = bury(p, true);
    cr_assert_eq(r.outcomes, 8);
    cr_assert_eq(r.orphans, 8);
    cr_assert_eq(unit_slots_in(&seg, SLOT_LEASED), 4, "a live worker's leases are its own");
    cr_assert_eq(unit_slots_in(&seg, SLOT_READY), 4);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(fab_complete(w, &leased[i], res, 30000), 0, "%s", fab_errmsg());
    for (int i = 0; i < 4; i++) {
        struct fab_lease l = claim(w);
        if (i & 1)
            cr_assert_eq(fab_complete(w, &l, res, 500), 0);
        else
            cr_assert_eq(fab_fail(w, &l, "nobody is there to read this"), 0);
    }
    bury(w, false);
    check_all_free();
}

/* The next participant gets the dead one's number: what is left of the first must not become its.
 */
Test(undertaker, a_number_used_again_brings_nothing_back)
{
    begin();
    struct fab_outcome o;
    fab_t *p = unit_handle(&seg, "first", 0), *w = unit_handle(&seg, "worker", 0);
    fab_id old = submit(p, 500, 0);
    uint32_t id = unit_id(p), generation = ((struct local *)p)->generation;
    bury(p, true);
    p = unit_handle(&seg, "second", 0);
    cr_assert_eq(unit_id(p), id);
    cr_assert_gt(((struct local *)p)->generation, generation);
    cr_assert_eq(fab_wait(p, old, &o, 0), -ENOENT);
    struct fab_lease l = claim(w);
    cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    cr_assert_eq(fab_outstanding(p), 0);
    fab_id mine = submit(p, 500, 0);
    l = claim(w);
    cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    cr_assert_eq(fab_wait(p, mine, &o, 0), 0);
    bury(p, false);
    bury(w, false);
    check_all_free();
}

/* fabricd dies between letting a process in and its hearing of it: the process comes again, for another
 * entry, and with a client id would find it taken by itself. */
Test(undertaker, who_was_let_in_and_does_not_know_is_let_go)
{
    struct participant_info info = {.pid = 1, .name = "guest"};
    uint32_t generation;
    begin();
    int id = participant_add(&seg, &info, &generation);
    cr_assert_geq(id, 0);
    cr_assert_eq(participant_life(at_load(&seg.participant[id].life)), LIFE_LIVE);
    cr_assert(participant_uninvite(&seg, (uint32_t)id));
    cr_assert_eq(participant_life(at_load(&seg.participant[id].life)), LIFE_LEFT);
    cr_assert_not(participant_join(&seg, (uint32_t)id, generation), "its answer comes too late");
    participant_remove(&seg, (uint32_t)id);
    cr_assert_eq(participant_add(&seg, &info, &generation), id);
    cr_assert_not(participant_join(&seg, (uint32_t)id, generation - 1), "another one's entry");
    cr_assert(participant_join(&seg, (uint32_t)id, generation));
    cr_assert_not(participant_uninvite(&seg, (uint32_t)id), "it knows");
    participant_leave(&seg, (uint32_t)id, generation);
    cr_assert_eq(participant_life(at_load(&seg.participant[id].life)), LIFE_LEFT);
    participant_remove(&seg, (uint32_t)id);
    segment_unmap(&seg);
}

/* ---- the crash budget ---- */

static void spend_budget(uint32_t len, uint16_t flags, uint32_t *dead)
{
    fab_t *p = unit_handle(&seg, "producer", 0);
    struct fab_outcome o;
    fab_id id = submit(p, len, flags);
    *dead = 0;
    for (uint32_t death = 1; death <= SLOT_CRASH_BUDGET; death++) {
        fab_t *w = unit_handle(&seg, "worker", 0);
        cr_assert_eq(claim(w).attempt, death);
        struct undertaker_report r = bury(w, true);
        *dead += r.dead;
        cr_assert_eq(r.leases, death < SLOT_CRASH_BUDGET);
    }
    if (!(flags & FAB_NO_WAIT)) {
        cr_assert_eq(fab_wait(p, id, &o, 0), 0);
        cr_assert_eq(o.status, FAB_DEAD);
        cr_assert_eq(o.attempts, SLOT_CRASH_BUDGET);
        cr_assert(memmem(fab_data(&o), o.len, len > 8 && len <= 64 ? "crash" : "died 3 times",
                         len > 8 && len <= 64 ? 5 : 12),
                  "%.*s", (int)o.len, (const char *)fab_data(&o));
    }
    bury(p, false);
}

Test(undertaker, a_task_that_kills_its_workers_is_given_up)
{
    static const uint32_t lens[] = {0, 8, 40, 500, 100000};
    begin();
    for (int i = 0; i < 5; i++) {
        uint32_t dead;
        spend_budget(lens[i], 0, &dead);
        cr_assert_eq(dead, 1);
        spend_budget(lens[i], FAB_NO_WAIT, &dead);
        cr_assert_eq(dead, 1);
    }
    check_all_free();
}

/* A worker dies with a batch: nobody knows of which task, so none is charged. One of them kills every
 * worker that starts it. */
Test(undertaker, one_tasks_crashes_do_not_spend_its_neighbours_budget)
{
    enum { N = 6, BAD = 2 };
    begin();
    fab_t *p = unit_handle(&seg, "producer", 0), *w = unit_handle(&seg, "worker", 0);
    struct fab_lease l[N];
    struct fab_outcome o;
    fab_id id[N];
    uint32_t deaths = 1, completed = 0;
    for (uint32_t i = 0; i < N; i++)
        id[i] = submit(p, 8, 0);
    cr_assert_eq(fab_claim(w, 0, l, N, 0), N);
    cr_assert_eq(bury(w, true).leases, N);
    w = unit_handle(&seg, "worker", 0);
    while (completed < N - 1 || deaths < 1 + SLOT_CRASH_BUDGET) {
        cr_assert_eq(fab_claim(w, 0, l, N, 0), 1, "they go one by one: %u", deaths);
        if (l[0].ref[0] == (uint32_t)id[BAD]) {
            cr_assert_eq(bury(w, true).dead, ++deaths == 1 + SLOT_CRASH_BUDGET);
            w = unit_handle(&seg, "worker", 0);
        } else {
            cr_assert_eq(fab_complete(w, &l[0], NULL, 0), 0);
            completed++;
        }
    }
    for (uint32_t i = 0; i < N; i++) {
        cr_assert_eq(fab_wait(p, id[i], &o, 0), 0);
        cr_assert_eq(o.status, i == BAD ? FAB_DEAD : FAB_COMPLETED);
        cr_assert_eq(o.attempts, i == BAD ? 4 : 2);
    }
    /* what is submitted next goes in batches again */
    for (uint32_t i = 0; i < N; i++)
        id[i] = submit(p, 8, 0);
    cr_assert_eq(fab_claim(w, 0, l, N, 0), N);
    bury(w, false);
    bury(p, false);
    audit_if_wanted();
    w = unit_handle(&seg, "worker", 0);
    cr_assert_eq(fab_claim(w, 0, l, N, 0), N); /* nobody died */
    for (uint32_t i = 0; i < N; i++)
        cr_assert_eq(fab_complete(w, &l[i], NULL, 0), 0);
    bury(w, false);
    check_all_free();
}

/* Who claims again while it holds leases never runs one alone: the second death charges them all. */
Test(undertaker, a_worker_that_holds_several_claims_spends_budgets_too)
{
    begin();
    fab_t *p = unit_handle(&seg, "producer", 0);
    (void)submit(p, 8, FAB_NO_WAIT);
    (void)submit(p, 8, FAB_NO_WAIT);
    for (uint32_t death = 1; death <= 1 + SLOT_CRASH_BUDGET; death++) {
        fab_t *w = unit_handle(&seg, "worker", 0);
        (void)claim(w);
        (void)claim(w);
        cr_assert_eq(bury(w, true).dead, death == 1 + SLOT_CRASH_BUDGET ? 2 : 0, "death %u", death);
    }
    bury(p, false);
    check_all_free();
}

Test(undertaker, leaving_properly_does_not_spend_the_budget)
{
    begin();
    fab_t *p = unit_handle(&seg, "producer", 0);
    struct fab_outcome o;
    fab_id id = submit(p, 40, 0);
    for (uint32_t i = 1; i <= 3 * SLOT_CRASH_BUDGET; i++) {
        fab_t *w = unit_handle(&seg, "worker", 0);
        cr_assert_eq(claim(w).attempt, i);
        struct undertaker_report r = bury(w, false);
        cr_assert_eq(r.leases, 1);
    }
    cr_assert_eq(fab_wait(p, id, &o, 0), -EAGAIN);
    cr_assert_eq(at_load(&seg.head->dead_participants), 0);
    bury(p, false);
    fab_t *w = unit_handle(&seg, "worker", 0);
    struct fab_lease l = claim(w);
    cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    bury(w, false);
    check_all_free();
}

/* A producer with a client id reads a large result; its worker, whose block it is, dies meanwhile. */
Test(undertaker, an_outcome_that_is_being_read_keeps_its_memory)
{
    begin();
    fab_t *f = unit_handle(&seg, "producer", 0), *w = unit_handle(&seg, "worker", 0);
    struct fab_task t = {.kernel = 1};
    struct fab_outcome o;
    struct fab_lease lease;
    struct arena_cache c = {0};
    uint8_t result[300];
    uint32_t unit;
    ((struct local *)f)->named = true;
    memset(result, 'r', sizeof result);
    cr_assert_eq(fab_submit(f, &t, 1, NULL, 0), 1);
    cr_assert_eq(fab_claim(w, 0, &lease, 1, 0), 1);
    cr_assert_eq(fab_complete(w, &lease, result, sizeof result), 0);
    cr_assert_eq(fab_wait_any(f, &o, 1, 0), 1);
    bury(w, true);
    while (arena_alloc(&seg, &c, daemon_id, sizeof result, &unit) == 0)
        memset(seg.arena + (uint64_t)unit * ARENA_BLOCK_MIN, 'x', sizeof result);
    cr_assert_eq(o.len, sizeof result);
    cr_assert_eq(memcmp(fab_data(&o), result, sizeof result), 0, "somebody else has its memory");
    bury(f, true);
    cr_assert_eq(unit_slots_in(&seg, SLOT_FREE), SLOTS);
}

/* ---- the arena, cut off at each step ---- */

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

/* ---- rings ---- */

Test(undertaker, closes_holes_and_puts_lost_hints_back)
{
    begin();
    uint32_t hint[4];
    fab_t *p = unit_handle(&seg, "producer", 0), *w = unit_handle(&seg, "worker", 0),
          *d = unit_handle(&seg, "dead", 0);
    fab_id id[4];
    for (int i = 0; i < 4; i++)
        id[i] = submit(p, 8, 0);
    struct seg_ring *ready = segment_ready_ring(&seg, 0, 1);
    cr_assert_eq(ring_take(&seg, ready, hint, 2), 2); /* taken by the dead, not claimed */
    cr_assert_eq(ring_take(&seg, seg.free_ring, hint, 3), 3);
    at_add(&ready->tail, 1);
    at_add(&segment_ready_ring(&seg, 1, 3)->tail, 2);
    at_add(&seg.free_ring->tail, 4);
    struct undertaker_report r = bury(d, true);
    cr_assert_eq(r.holes, 7);
    cr_assert_eq(r.requeued, 2 + 3);
    cr_assert_eq(at_load(&seg.head->requeued_hints), 5);
    for (int i = 0; i < 4; i++) {
        struct fab_lease l = claim(w);
        cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    }
    for (int i = 0; i < 4; i++) {
        struct fab_outcome o;
        cr_assert_eq(fab_wait(p, id[i], &o, 0), 0);
        cr_assert_eq(o.status, FAB_COMPLETED);
    }
    bury(p, false);
    bury(w, false);
    check_all_free();
}

Test(undertaker, an_audit_of_a_sound_segment_changes_nothing)
{
    begin();
    struct undertaker_report r = {0};
    fab_t *p = unit_handle(&seg, "producer", 0);
    for (int i = 0; i < 20; i++)
        (void)submit(p, 8, FAB_NO_WAIT);
    uint64_t depth = ring_depth(segment_ready_ring(&seg, 0, 1)), freed = ring_depth(seg.free_ring);
    for (int i = 0; i < 3; i++)
        undertaker_audit(&seg, &out, &r);
    cr_assert_eq(r.requeued, 0);
    cr_assert_eq(ring_depth(segment_ready_ring(&seg, 0, 1)), depth);
    cr_assert_eq(ring_depth(seg.free_ring), freed);
    fab_close(p);
    segment_unmap(&seg);
}

struct sleeper {
    fab_t *f;
    fab_id id;
    long rc;
    uint64_t until;
};

static void *sleep_in_claim(void *arg)
{
    struct sleeper *x = arg;
    struct fab_lease l;
    x->rc = fab_claim(x->f, 0, &l, 1, 20 * UNIT_SECOND);
    x->until = clock_ns();
    return NULL;
}

static void *sleep_in_wait(void *arg)
{
    struct sleeper *x = arg;
    struct fab_outcome o;
    x->rc = fab_wait(x->f, x->id, &o, 20 * UNIT_SECOND);
    x->until = clock_ns();
    return NULL;
}

static void until_parked(_Atomic uint32_t *parked)
{
    for (int i = 0; i < 20000 && at_load(parked) == 0; i++)
        usleep(500);
    cr_assert_neq(at_load(parked), 0);
}

Test(undertaker, wakes_who_is_waiting_for_what_the_dead_held, .timeout = 40)
{
    begin();
    fab_t *p = unit_handle(&seg, "producer", -1), *d = unit_handle(&seg, "dead", -1);
    pthread_t thread;
    struct sleeper x = {.f = unit_handle(&seg, "worker", -1)};
    (void)submit(p, 8, 0);
    (void)claim(d);
    cr_assert_eq(pthread_create(&thread, NULL, sleep_in_claim, &x), 0);
    until_parked(&seg.queue[0].parked);
    uint64_t start = clock_ns();
    bury(d, true);
    pthread_join(thread, NULL);
    cr_assert_eq(x.rc, 1);
    cr_assert_lt((int64_t)(x.until - start), UNIT_SECOND / 20,
                 "woken by time, not by the undertaker");

    /* the task's last two lives; its producer sleeps until it is told */
    fab_id id = submit(p, 8, 0);
    struct sleeper y = {.f = p, .id = id};
    cr_assert_eq(pthread_create(&thread, NULL, sleep_in_wait, &y), 0);
    until_parked(&seg.participant[unit_id(p)].bell_parked);
    for (uint32_t i = 0; i < SLOT_CRASH_BUDGET; i++) {
        d = unit_handle(&seg, "dead", -1);
        (void)claim(d);
        start = clock_ns();
        bury(d, true);
    }
    pthread_join(thread, NULL);
    cr_assert_eq(y.rc, 0);
    cr_assert_lt((int64_t)(y.until - start), UNIT_SECOND / 20);
    cr_assert_eq(at_load(&seg.head->net_catches), 0);
    bury(x.f, false);
    bury(p, false);
    work_off(); /* the first task has an orphan's life left */
    check_all_free();
}

/* ---- anything, in any order ---- */

static void do_something(fab_t *f, uint64_t *seed, fab_id *id, struct fab_lease *lease, bool *has)
{
    static uint8_t bytes[120000];
    static const uint32_t lens[] = {0, 8, 20, 64, 300, 5000, 20000, 120000};
    uint32_t len = lens[unit_random(seed) % 8];
    struct fab_task t = {.arg = bytes,
                         .len = len,
                         .queue = 0,
                         .priority = (uint8_t)(unit_random(seed) % 4),
                         .flags = unit_random(seed) % 8 == 0};
    struct fab_outcome o[4];
    switch (unit_random(seed) % 9) {
    case 0:
    case 1:
    case 2:
        (void)!fab_submit(f, &t, 1, id, 0);
        break;
    case 3:
        (void)!fab_cancel(f, *id);
        break;
    case 4:
        (void)!fab_wait_any(f, o, 4, 0);
        break;
    case 5:
        if (*has && fab_release(f, lease) == 0)
            *has = false;
        break;
    case 6:
        if (*has && fab_fail(f, lease, "it was not to be") == 0)
            *has = false;
        break;
    default:
        if (!*has)
            *has = fab_claim(f, 0, lease, 1, 0) == 1;
        else if (fab_complete(f, lease, bytes, len) == 0)
            *has = false;
    }
}

Test(undertaker, nothing_leaks_whoever_dies_when, .timeout = 40)
{
    begin();
    uint64_t seed = 4711;
    fab_t *f[5];
    fab_id id[5] = {0};
    struct fab_lease lease[5];
    bool has[5] = {false};
    for (int i = 0; i < 5; i++)
        f[i] = unit_handle(&seg, "someone", 0);
    for (int round = 0; round < 200000; round++) {
        int i = (int)(unit_random(&seed) % 5);
        do_something(f[i], &seed, &id[i], &lease[i], &has[i]);
        if (round % 50 == 49) {
            i = (int)(unit_random(&seed) % 5);
            bury(f[i], unit_random(&seed) & 1);
            f[i] = unit_handle(&seg, "another", 0);
            has[i] = false;
        }
    }
    for (int i = 0; i < 5; i++)
        bury(f[i], false);
    work_off(); /* tasks whose producers are gone still wait for a worker */
    check_all_free();
}

/* ---- real deaths ---- */

static pid_t start_worker(uint32_t id, uint32_t generation)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct segment mine;
        struct local *l;
        static uint8_t res[3000];
        if (segment_map(&mine, dup(seg.fd)) < 0 ||
            local_open(&l, &mine, id, generation, -1, -1, 0) < 0)
            _exit(1);
        for (;;) {
            struct fab_lease lease[4];
            long n = fab_claim(&l->base, 0, lease, 4, FAB_FOREVER);
            for (long i = 0; i < n; i++)
                (void)!fab_complete(&l->base, &lease[i], res, lease[i].len ^ 0xff);
        }
    }
    cr_assert_gt(pid, 0);
    return pid;
}

Test(undertaker, every_task_has_one_outcome_though_its_workers_are_killed, .timeout = 60)
{
    begin();
    enum { TASKS = 20000, KILLS = 60 };
    static uint8_t seen[TASKS];
    fab_t *p = unit_handle(&seg, "producer", 0);
    uint64_t seed = 8, next_kill = clock_ns();
    uint32_t sent = 0, done = 0, dead = 0, kills = 0, generation, id[2];
    pid_t pid[2];
    for (int i = 0; i < 2; i++) {
        id[i] = unit_participant(&seg, "worker", &generation);
        pid[i] = start_worker(id[i], generation);
    }
    while (done < TASKS || kills < KILLS) {
        struct fab_outcome o[8];
        static uint8_t arg[255];
        struct fab_task t = {.arg = arg, .len = (uint32_t)(unit_random(&seed) % 255), .tag = sent};
        if (sent < TASKS && fab_outstanding(p) < 50)
            sent += fab_submit(p, &t, 1, &(fab_id){0}, 0) == 1;
        long n = fab_outstanding(p) ? fab_wait_any(p, o, 8, UNIT_SECOND / 1000) : 0;
        for (long i = 0; i < n; i++, done++) {
            cr_assert_lt(o[i].tag, TASKS);
            cr_assert_eq(seen[o[i].tag]++, 0);
            dead += o[i].status == FAB_DEAD;
            cr_assert(o[i].status == FAB_COMPLETED || o[i].status == FAB_DEAD);
        }
        if (kills < KILLS && clock_ns() > next_kill) {
            int i = (int)(unit_random(&seed) & 1);
            struct undertaker_report r;
            kill(pid[i], SIGKILL);
            waitpid(pid[i], NULL, 0);
            undertaker_recover(&seg, &out, daemon_id, id[i], true, &r);
            id[i] = unit_participant(&seg, "worker", &generation);
            pid[i] = start_worker(id[i], generation);
            next_kill = clock_ns() + unit_random(&seed) % 3000000;
            kills++;
        }
    }
    cr_assert_lt(dead, TASKS / 100);
    for (int i = 0; i < 2; i++) {
        struct undertaker_report r;
        kill(pid[i], SIGKILL);
        waitpid(pid[i], NULL, 0);
        undertaker_recover(&seg, &out, daemon_id, id[i], true, &r);
    }
    bury(p, false);
    check_all_free();
}

/* The undertaker itself may be killed anywhere; the next one starts from the front, and buries it
 * as well. */
Test(undertaker, may_die_itself, .timeout = 60)
{
    begin();
    uint64_t seed = 21;
    uint32_t generation;
    for (int round = 0; round < 150; round++) {
        fab_t *d = unit_handle(&seg, "dead", 0), *w = unit_handle(&seg, "worker", 0);
        static const uint32_t lens[] = {8, 300, 20000, 100000};
        struct undertaker_report r;
        uint32_t dead = unit_id(d), old = unit_participant(&seg, "fabricd", &generation);
        for (int i = 0; i < 12; i++)
            (void)submit(d, lens[i % 4], 0);
        for (int i = 0; i < 6; i++) {
            struct fab_lease l = claim(w);
            if (i & 1)
                cr_assert_eq(fab_complete(w, &l, fab_arg(&l), l.len), 0);
        }
        fab_close(d);
        pid_t pid = fork();
        if (pid == 0) {
            struct segment mine;
            if (segment_map(&mine, dup(seg.fd)) < 0)
                _exit(1);
            undertaker_recover(&mine, &out, old, dead, true, &r);
            _exit(0);
        }
        usleep((useconds_t)(unit_random(&seed) % 1200));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        undertaker_recover(&seg, &out, daemon_id, dead, true, &r);
        undertaker_recover(&seg, &out, daemon_id, old, true, &r);
        bury(w, true);
        work_off();
        cr_assert_eq(unit_slots_in(&seg, SLOT_FREE), SLOTS, "round %d", round);
        cr_assert_eq(arena_bytes_free(&seg), seg.arena_bytes, "round %d", round);
    }
    check_all_free();
}

/* ---- damage ---- */

Test(undertaker, random_damage_neither_crashes_nor_hangs_it, .timeout = 40)
{
    begin();
    uint64_t seed = 12;
    for (int round = 0; round < 1000; round++) {
        struct undertaker_report r;
        for (uint32_t i = 0; i < SLOTS; i++) {
            struct seg_slot *sl = &seg.slot[i];
            uint64_t w = unit_random(&seed);
            at_store(&sl->state, slot_word((uint32_t)(w >> 40), (uint32_t)(w >> 8) % 9, 1,
                                           (enum slot_state)(w % 9)));
            at_store(&sl->meta,
                     w & 0x80 ? unit_random(&seed)
                              : slot_meta((uint32_t)(w >> 8) % 9, w >> 12 & 1, w >> 16 & 3, 0));
            sl->arg_len = (uint32_t)(unit_random(&seed) >> (32 + w % 32));
            sl->res_len = (uint32_t)(unit_random(&seed) >> (32 + w % 32));
            sl->arg = unit_random(&seed) >> (w % 64);
            sl->res = unit_random(&seed) >> (w % 64);
        }
        for (uint32_t i = 0; i < CHUNKS; i++)
            at_store(&seg.chunk_word[i],
                     chunk_word((enum chunk_state)(unit_random(&seed) % 6), unit_random(&seed) % 5,
                                unit_random(&seed) % 9, (uint32_t)(unit_random(&seed) % 20)));
        for (uint32_t u = 0; u < CHUNKS * ARENA_CHUNK_BLOCKS; u += 3)
            at_store(&seg.block_word[u],
                     block_word((enum block_state)(unit_random(&seed) % 5), unit_random(&seed) % 9,
                                unit_random(&seed) % 200, (uint32_t)unit_random(&seed) % 8));
        at_store(&segment_ready_ring(&seg, 0, 1)->head, unit_random(&seed));
        at_store(&seg.free_ring->tail, unit_random(&seed) >> (unit_random(&seed) % 64));
        undertaker_recover(&seg, &out, daemon_id, 1 + (uint32_t)(unit_random(&seed) % 7), true, &r);
    }
    segment_unmap(&seg);
}

/* ---- an audit beside the living ---- */

#define MANY 65536u

static _Atomic uint32_t submitted;

static void *submit_many(void *arg)
{
    fab_t *p = arg;
    uint32_t n = 0;
    struct fab_task t[64];
    for (int i = 0; i < 64; i++)
        t[i] = (struct fab_task){.kernel = 1, .flags = FAB_NO_WAIT};
    while (n < MANY / 2 && fab_submit(p, t, 64, NULL, 0) == 64)
        n += 64;
    at_store(&submitted, n);
    return NULL;
}

/* Entries put in a second time would fill the ring, and a fabric without workers would be full
 * before its slots are. */
Test(undertaker, an_audit_repeats_no_entry_of_a_living_producer)
{
    struct undertaker_report r = {0};
    uint32_t generation;
    pthread_t thread;
    unit_segment(&seg, MANY, 8, 0, 1);
    daemon_id = unit_participant(&seg, "fabricd", &generation);
    fab_t *p = unit_handle(&seg, "producer", 0);
    struct seg_ring *ring = segment_ready_ring(&seg, 0, 0);
    cr_assert_eq(pthread_create(&thread, NULL, submit_many, p), 0);
    do
        undertaker_audit(&seg, &out, &r);
    while (at_load(&submitted) == 0);
    pthread_join(thread, NULL);
    cr_assert_eq(at_load(&submitted), MANY / 2);
    uint64_t repeated = ring_depth(ring) - MANY / 2;
    cr_assert_lt(repeated, 1024, "%llu entries of %u tasks were put in again",
                 (unsigned long long)repeated, MANY / 2);
    fab_close(p);
}
