/* SPDX-License-Identifier: MIT
 *
 * test_tasks.c - two handles on one segment, in one process: every way a task can go, step by step,
 * and that nothing of it stays.
 */
#include "tests/unit/unit.h"

static struct segment seg;
static struct local *producer, *worker;
static struct wake_out nobody = {-1};
static uint32_t me;

static struct local *handle(const char *name)
{
    return (struct local *)unit_handle(&seg, name, 0);
}

static void begin(uint32_t slots, uint64_t arena)
{
    uint32_t generation;
    unit_segment(&seg, slots, 8, arena, 2);
    me = unit_participant(&seg, "undertaker", &generation);
    producer = handle("producer");
    worker = handle("worker");
}

/* The end of a handle, as fabricd sees it. */
static struct undertaker_report bury(struct local *l, bool crashed)
{
    return unit_bury(&seg, me, &l->base, crashed);
}

/* Every slot and block is free again, and every free slot can be had. */
static void check_empty(void)
{
    cr_assert_eq(unit_slots_in(&seg, SLOT_FREE), seg.slots, "%u of %u slots are free",
                 unit_slots_in(&seg, SLOT_FREE), seg.slots);
    cr_assert_eq(arena_bytes_free(&seg), seg.arena_bytes);
    struct slot_stock all;
    cr_assert_eq(slot_stock_init(&all, seg.slots), 0);
    cr_assert_eq(slot_stock_refill(&seg, &all, me, seg.slots), seg.slots);
    slot_stock_shrink(&seg, &all, me, 0);
    slot_stock_free(&all);
}

static fab_id submit(const void *arg, uint32_t len, uint16_t flags)
{
    struct fab_task t = {.kernel = 7, .arg = arg, .len = len, .flags = flags, .tag = 11};
    fab_id id = 0;
    long n = local_submit(&producer->base, &t, 1, &id, 0);
    cr_assert_eq(n, 1, "%s", err_text((int)n));
    return id;
}

static struct fab_lease claim(void)
{
    struct fab_lease l;
    cr_assert_eq(local_claim(&worker->base, 0, &l, 1, 0), 1);
    cr_assert_eq(l.kernel, 7);
    return l;
}

Test(tasks, go_from_submit_to_taken_with_payloads_of_every_place)
{
    static const uint32_t sizes[] = {0,   1,    8,     9,     64,    65,    256,
                                     257, 5000, 16384, 16385, 65536, 65537, 300000};
    static uint8_t bytes[300008];
    begin(256, 4 << 20);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    for (size_t a = 0; a < sizeof sizes / sizeof *sizes; a++) {
        for (size_t r = 0; r < sizeof sizes / sizeof *sizes; r++) {
            struct fab_outcome o;
            fab_id id = submit(bytes + 1, sizes[a], 0);
            struct fab_lease l = claim();
            cr_assert_eq(l.len, sizes[a]);
            cr_assert_eq(memcmp(fab_arg(&l), bytes + 1, sizes[a]), 0);
            cr_assert_eq(local_complete(&worker->base, &l, bytes + 2, sizes[r]), 0);
            cr_assert_eq(local_wait(&producer->base, id, &o, 0), 0);
            cr_assert(o.status == FAB_COMPLETED && o.len == sizes[r] && o.tag == 11 &&
                      o.attempts == 1);
            cr_assert_eq(memcmp(fab_data(&o), bytes + 2, sizes[r]), 0);
        }
    }
    bury(producer, false);
    bury(worker, false);
    check_empty();
}

Test(tasks, a_lease_ends_once)
{
    begin(64, 0);
    struct fab_outcome o;
    uint64_t v = 1;
    fab_id id = submit(&v, 8, 0);
    struct fab_lease l = claim();
    cr_assert_eq(local_wait(&producer->base, id, &o, 0), -EAGAIN);
    cr_assert_eq(local_release(&worker->base, &l), 0);
    cr_assert_eq(local_complete(&worker->base, &l, &v, 8), -ESTALE);
    struct fab_lease second = claim();
    cr_assert_eq(second.attempt, 2);
    cr_assert_eq(local_complete(&worker->base, &l, &v, 8), -ESTALE,
                 "the first attempt's result must not count");
    cr_assert_eq(local_fail(&worker->base, &second, "no"), 0);
    cr_assert_eq(local_fail(&worker->base, &second, "no"), -ESTALE);
    cr_assert_eq(local_wait(&producer->base, id, &o, 0), 0);
    cr_assert(o.status == FAB_FAILED && o.len == 2 && memcmp(fab_data(&o), "no", 2) == 0);
    cr_assert_eq(local_wait(&producer->base, id, &o, 0), -ENOENT);
    cr_assert_geq(at_load(&seg.head->late_results), 2);
}

Test(tasks, queues_and_priorities_are_kept_apart_and_in_order)
{
    begin(256, 0);
    struct fab_lease l[16];
    for (uint64_t i = 0; i < 8; i++) {
        struct fab_task t = {
            .kernel = 7, .arg = &i, .len = 8, .queue = i & 1, .priority = (uint8_t)(3 - i / 2)};
        cr_assert_eq(local_submit(&producer->base, &t, 1, NULL, 0), 1);
    }
    cr_assert_eq(local_claim(&worker->base, 0, l, 16, 0), 4);
    for (uint64_t i = 0; i < 4; i++)
        cr_assert_eq(l[i].small[0], 6 - 2 * i);
    cr_assert_eq(local_claim(&worker->base, 1, l, 16, 0), 4);
    cr_assert_eq(local_claim(&worker->base, 0, l, 16, 0), -EAGAIN);
    cr_assert_eq(local_claim(&worker->base, 2, l, 16, 0), -EINVAL);
}

Test(tasks, a_dead_worker_gives_back_and_three_deaths_end_a_task)
{
    begin(64, 1 << 20);
    char arg[1000] = "argument";
    struct fab_outcome o;
    fab_id id = submit(arg, sizeof arg, 0);
    for (uint32_t death = 1; death <= SLOT_CRASH_BUDGET; death++) {
        struct fab_lease l = claim();
        cr_assert_eq(l.attempt, death);
        cr_assert_eq(memcmp(fab_arg(&l), arg, sizeof arg), 0, "the argument is whole in attempt %u",
                     death);
        /* it dies with a half-made result */
        uint32_t unit;
        cr_assert_eq(arena_alloc(&seg, &worker->arena, worker->me, 20000, &unit), 0);
        arena_attach(&seg, unit, BLOCK_RES, worker->me, (uint32_t)l.ref[0], slot_epoch(l.ref[1]));
        struct undertaker_report r = bury(worker, true);
        cr_assert_eq(r.leases + r.dead, 1);
        cr_assert_eq(r.blocks, 1, "%u blocks", r.blocks);
        worker = handle("worker");
    }
    cr_assert_eq(local_wait(&producer->base, id, &o, 0), 0);
    cr_assert_eq(o.status, FAB_DEAD);
    cr_assert(memmem(fab_data(&o), o.len, "died", 4));
    bury(producer, false);
    bury(worker, false);
    check_empty();
}

Test(tasks, a_dead_producer_leaves_nothing)
{
    begin(256, 1 << 20);
    char arg[1000] = "x";
    struct fab_lease l[3];
    fab_id cancelled;
    for (int i = 0; i < 10; i++)
        submit(arg, i & 1 ? 1000 : 8, i == 9 ? FAB_NO_WAIT : 0);
    cancelled = submit(arg, 500, 0);
    cr_assert_eq(local_cancel(&producer->base, cancelled), 0);
    cr_assert_eq(local_claim(&worker->base, 0, l, 3, 0), 3);
    cr_assert_eq(local_complete(&worker->base, &l[0], arg, 1000), 0); /* done, not taken */
    struct undertaker_report r = bury(producer, true);
    cr_assert_eq(r.outcomes, 2);
    cr_assert_eq(r.orphans, 9);
    cr_assert_eq(local_complete(&worker->base, &l[1], arg, 1000),
                 0); /* nobody wants them any more */
    cr_assert_eq(local_complete(&worker->base, &l[2], arg, 8), 0);
    for (int i = 0; i < 7; i++) {
        struct fab_lease more = claim();
        cr_assert_eq(local_complete(&worker->base, &more, arg, 100), 0);
    }
    bury(worker, false);
    check_empty();
}

Test(tasks, a_hint_lost_with_its_consumer_is_put_back)
{
    begin(64, 0);
    uint64_t v = 5;
    struct undertaker_report r = {0};
    uint32_t hint[4];
    submit(&v, 8, 0);
    submit(&v, 8, 0);
    cr_assert_eq(ring_take(&seg, segment_ready_ring(&seg, 0, 0), hint, 4), 2); /* and dies here */
    struct fab_lease l;
    cr_assert_eq(local_claim(&worker->base, 0, &l, 1, 0), -EAGAIN);
    undertaker_audit(&seg, &nobody, &r);
    cr_assert_eq(r.requeued, 2);
    claim();
    claim();
}

Test(tasks, full_says_full_and_withdrawn_tasks_make_room)
{
    begin(64, 0);
    struct fab_task t = {.kernel = 7};
    fab_id id[64];
    struct fab_outcome o;
    int n = 0;
    while (n < 64 && local_submit(&producer->base, &t, 1, &id[n], 0) == 1)
        n++;
    cr_assert_eq(n, 64);
    cr_assert_eq(local_submit(&producer->base, &t, 1, NULL, 0), -EAGAIN);
    cr_assert_eq(local_submit(&producer->base, &t, 1, NULL, 2000000), -ETIMEDOUT);
    cr_assert_eq(local_cancel(&producer->base, id[3]), 0);
    cr_assert_eq(local_wait(&producer->base, id[3], &o, 0), 0);
    cr_assert_eq(o.status, FAB_CANCELLED);
    cr_assert_eq(local_submit(&producer->base, &t, 1, NULL, 0), 1);
    cr_assert_eq(local_cancel(&producer->base, id[3]), -ENOENT);
    cr_assert_eq(local_claim(&worker->base, 0, (struct fab_lease[64]){0}, 64, 0), 64);
    cr_assert_eq(local_withdraw(&producer->base, id[4]), -EBUSY);
    cr_assert_eq(local_cancel(&producer->base, id[4]), 0);
}

/* Two threads that always sleep in between: a wake-up that is lost would show as a catch of the
 * net. */
static void *serve(void *arg)
{
    struct fab_lease l;
    for (int i = 0; i < 20000; i++) {
        if (local_claim(&worker->base, 0, &l, 1, 5 * UNIT_SECOND) != 1 ||
            local_complete(&worker->base, &l, l.small, 8) < 0)
            return "failed";
    }
    return arg;
}

Test(tasks, of_low_priority_are_never_starved)
{
    begin(64, 0);
    struct fab_task low = {.kernel = 7, .priority = 3, .tag = 33}, high = {.kernel = 7};
    struct fab_outcome o;
    fab_id id;
    cr_assert_eq(local_submit(&producer->base, &low, 1, &id, 0), 1);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(local_submit(&producer->base, &high, 1, NULL, 0), 1);
    int claims = 0, priority = 0;
    while (priority != 3 && claims < 200) { /* there is always a better one waiting */
        struct fab_lease l = claim();
        priority = l.priority;
        claims++;
        cr_assert_eq(local_complete(&worker->base, &l, NULL, 0), 0);
        cr_assert_eq(local_submit(&producer->base, &high, 1, NULL, 0), 1);
        (void)!local_wait_any(&producer->base, &o, 1, 0);
    }
    cr_assert(claims <= 40, "claimed as the %d-th", claims);
    cr_assert_gt(claims, 1, "better ones go first");
}

/* ---- a lease that is taken from a living worker: both orders of what follows ---- */

static uint32_t overrun(fab_id *id, struct fab_lease *l, uint32_t len)
{
    static uint8_t arg[300];
    struct fab_terms terms = {.limit_ns = 1};
    struct fab_task t = {.kernel = 7, .arg = arg, .len = len, .tag = 5, .terms = &terms};
    cr_assert_eq(local_submit(&producer->base, &t, 1, id, 0), 1);
    *l = claim();
    uint32_t slot = (uint32_t)l->ref[0];
    cr_assert(
        undertaker_end(&seg, &nobody, me, slot, at_load(&seg.slot[slot].state), SLOT_OVERRUN));
    return slot;
}

Test(tasks, an_overrun_slot_stays_its_workers_until_that_notices)
{
    begin(64, 1 << 20);
    static uint8_t res[300];
    struct fab_outcome o;
    struct fab_lease l;
    fab_id id;
    uint32_t slot = overrun(&id, &l, 300);
    cr_assert_eq(local_wait(&producer->base, id, &o, 0), 0);
    cr_assert_eq(o.status, FAB_OVERRUN);
    cr_assert_eq(o.tag, 5);
    cr_assert_eq(slot_state(at_load(&seg.slot[slot].state)), SLOT_ZOMBIE);
    for (int i = 0; i < 200; i++) { /* no other task gets the slot */
        fab_id other = submit("x", 1, 0);
        cr_assert_neq((uint32_t)other, slot);
        struct fab_lease m = claim();
        cr_assert_eq(local_complete(&worker->base, &m, "y", 1), 0);
        cr_assert_eq(local_wait(&producer->base, other, &o, 0), 0);
    }
    cr_assert_eq(local_complete(&worker->base, &l, res, sizeof res), -ESTALE);
    cr_assert_neq(slot_state(at_load(&seg.slot[slot].state)), SLOT_ZOMBIE);
    cr_assert_eq(at_load(&seg.head->late_results), 1);
    bury(worker, false);
    bury(producer, false);
    check_empty();
}

Test(tasks, an_overrun_worker_that_notices_first_leaves_the_slot_to_its_producer)
{
    begin(64, 1 << 20);
    static uint8_t res[300];
    struct fab_outcome o;
    struct fab_lease l;
    fab_id id;
    uint32_t slot = overrun(&id, &l, 300);
    cr_assert_eq(local_complete(&worker->base, &l, res, sizeof res), -ESTALE);
    cr_assert_eq(slot_state(at_load(&seg.slot[slot].state)), SLOT_OVERRUN);
    cr_assert_eq(local_wait(&producer->base, id, &o, 0), 0);
    cr_assert_eq(o.status, FAB_OVERRUN);
    bury(worker, false);
    bury(producer, false);
    check_empty();
}

Test(tasks, an_overrun_slot_is_freed_when_both_have_died)
{
    for (int order = 0; order < 2; order++) {
        begin(64, 1 << 20);
        struct fab_lease l;
        fab_id id;
        (void)overrun(&id, &l, 300);
        bury(order ? worker : producer, true);
        bury(order ? producer : worker, true);
        check_empty();
    }
}

Test(waiting, loses_no_wake_up, .timeout = 60)
{
    pthread_t thread;
    void *end;
    begin(64, 0);
    spin_init(&producer->spin, seg.ticks_hz, -1);
    spin_init(&worker->spin, seg.ticks_hz, -1);
    cr_assert_eq(pthread_create(&thread, NULL, serve, NULL), 0);
    for (uint64_t i = 0; i < 20000; i++) {
        struct fab_outcome o;
        fab_id id = submit(&i, 8, 0);
        cr_assert_eq(local_wait(&producer->base, id, &o, 5 * UNIT_SECOND), 0);
        cr_assert_eq(o.small, i);
    }
    pthread_join(thread, &end);
    cr_assert_null(end);
    cr_assert_eq(at_load(&seg.head->net_catches), 0);
}
