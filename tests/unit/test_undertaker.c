/* SPDX-License-Identifier: MIT
 *
 * test_undertaker.c - whatever a participant held when it died is given back: slots in each state,
 * half-made arguments and results, ring positions; budgets are spent as they should be. And nothing
 * of a live one's is touched. What is left in the arena: test_undertaker_arena.c; processes that
 * really die: test_undertaker_deaths.c.
 */
#include "core/clock.h"
#include "undertaker_case.h"

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
        uint32_t slot = (uint32_t)l->stock.id[i];
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
        id[i] = unit_submit(p, lens[i], 0, NULL);
    for (int i = 0; i < 4; i++)
        (void)unit_claim(w);
    struct undertaker_report r = bury(w, true);
    cr_assert_eq(r.leases, 4);
    cr_assert_eq(r.dead, 0);
    cr_assert_eq(r.blocks, 0, "arguments are still needed");
    cr_assert_eq(at_load(&seg.head->recovered_leases), 4);
    w = unit_handle(&seg, "worker", 0);
    bool seen[5] = {false};
    for (int i = 0; i < 5; i++) {
        struct fab_lease l = unit_claim(w);
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
    fab_id id = unit_submit(p, 500, 0, NULL);
    struct fab_lease lease = unit_claim(w);
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
        id[i] = unit_submit(p, 40, 0, NULL);
        struct fab_lease l = unit_claim(w);
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
        (void)unit_submit(p, lens[i], 0, NULL);
        struct fab_lease l = unit_claim(w);
        if (i & 1)
            cr_assert_eq(fab_fail(w, &l, "a sentence that needs more than eight bytes"), 0);
        else
            cr_assert_eq(fab_complete(w, &l, res, 30000), 0);
        fab_id id = unit_submit(p, lens[i], 0, NULL);
        cr_assert_eq(fab_cancel(p, id), 0);
    }
    for (int i = 0; i < 4; i++)
        (void)unit_submit(p, lens[i], 0, NULL);
    for (int i = 0; i < 4; i++)
        leased[i] = unit_claim(w);
    for (int i = 0; i < 4; i++)
        (void)unit_submit(p, lens[i], i & 1 ? FAB_NO_WAIT : 0, NULL);
    struct undertaker_report r = bury(p, true);
    cr_assert_eq(r.outcomes, 8);
    cr_assert_eq(r.orphans, 8);
    cr_assert_eq(unit_slots_in(&seg, SLOT_LEASED), 4, "a live worker's leases are its own");
    cr_assert_eq(unit_slots_in(&seg, SLOT_READY), 4);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(fab_complete(w, &leased[i], res, 30000), 0, "%s", fab_errmsg());
    for (int i = 0; i < 4; i++) {
        struct fab_lease l = unit_claim(w);
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
    fab_id old = unit_submit(p, 500, 0, NULL);
    uint32_t id = unit_id(p), generation = ((struct local *)p)->generation;
    bury(p, true);
    p = unit_handle(&seg, "second", 0);
    cr_assert_eq(unit_id(p), id);
    cr_assert_gt(((struct local *)p)->generation, generation);
    cr_assert_eq(fab_wait(p, old, &o, 0), -ENOENT);
    struct fab_lease l = unit_claim(w);
    cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    cr_assert_eq(fab_outstanding(p), 0);
    fab_id mine = unit_submit(p, 500, 0, NULL);
    l = unit_claim(w);
    cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    cr_assert_eq(fab_wait(p, mine, &o, 0), 0);
    bury(p, false);
    bury(w, false);
    check_all_free();
}

/* fabricd dies between letting a process in and its hearing of it: the process comes again, for
 * another entry, and with a client id would find it taken by itself. */
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

/* A producer with a client id reads a large result; its worker, whose block it is, dies meanwhile.
 */
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

/* ---- the crash budget ---- */

static void spend_budget(uint32_t len, uint16_t flags, uint32_t *dead)
{
    fab_t *p = unit_handle(&seg, "producer", 0);
    struct fab_outcome o;
    fab_id id = unit_submit(p, len, flags, NULL);
    *dead = 0;
    for (uint32_t death = 1; death <= SLOT_CRASH_BUDGET; death++) {
        fab_t *w = unit_handle(&seg, "worker", 0);
        cr_assert_eq(unit_claim(w).attempt, death);
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

/* A worker dies with a batch: nobody knows of which task, so none is charged. One of them kills
 * every worker that starts it. */
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
        id[i] = unit_submit(p, 8, 0, NULL);
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
        id[i] = unit_submit(p, 8, 0, NULL);
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

/* Who claims again while it holds leases never runs one alone: the second death charges them all.
 */
Test(undertaker, a_worker_that_holds_several_claims_spends_budgets_too)
{
    begin();
    fab_t *p = unit_handle(&seg, "producer", 0);
    (void)unit_submit(p, 8, FAB_NO_WAIT, NULL);
    (void)unit_submit(p, 8, FAB_NO_WAIT, NULL);
    for (uint32_t death = 1; death <= 1 + SLOT_CRASH_BUDGET; death++) {
        fab_t *w = unit_handle(&seg, "worker", 0);
        (void)unit_claim(w);
        (void)unit_claim(w);
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
    fab_id id = unit_submit(p, 40, 0, NULL);
    for (uint32_t i = 1; i <= 3 * SLOT_CRASH_BUDGET; i++) {
        fab_t *w = unit_handle(&seg, "worker", 0);
        cr_assert_eq(unit_claim(w).attempt, i);
        struct undertaker_report r = bury(w, false);
        cr_assert_eq(r.leases, 1);
    }
    cr_assert_eq(fab_wait(p, id, &o, 0), -EAGAIN);
    cr_assert_eq(at_load(&seg.head->dead_participants), 0);
    bury(p, false);
    fab_t *w = unit_handle(&seg, "worker", 0);
    struct fab_lease l = unit_claim(w);
    cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    bury(w, false);
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
        id[i] = unit_submit(p, 8, 0, NULL);
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
        struct fab_lease l = unit_claim(w);
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
        (void)unit_submit(p, 8, FAB_NO_WAIT, NULL);
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
    (void)unit_submit(p, 8, 0, NULL);
    (void)unit_claim(d);
    cr_assert_eq(pthread_create(&thread, NULL, sleep_in_claim, &x), 0);
    until_parked(&seg.queue[0].parked);
    uint64_t start = clock_ns();
    bury(d, true);
    pthread_join(thread, NULL);
    cr_assert_eq(x.rc, 1);
    cr_assert_lt((int64_t)(x.until - start), UNIT_SECOND / 20,
                 "woken by time, not by the undertaker");

    /* the task's last two lives; its producer sleeps until it is told */
    fab_id id = unit_submit(p, 8, 0, NULL);
    struct sleeper y = {.f = p, .id = id};
    cr_assert_eq(pthread_create(&thread, NULL, sleep_in_wait, &y), 0);
    until_parked(&seg.participant[unit_id(p)].bell_parked);
    for (uint32_t i = 0; i < SLOT_CRASH_BUDGET; i++) {
        d = unit_handle(&seg, "dead", -1);
        (void)unit_claim(d);
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
