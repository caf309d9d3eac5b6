/* SPDX-License-Identifier: MIT
 *
 * test_cancel.c - tasks that are cancelled while they run, and leases that end by a crash or an
 * overrun of their kernel: every way such an attempt can go, and that nothing of it stays.
 */
#include "tests/unit/unit.h"
#include "core/clock.h"

static struct segment seg;
static fab_t *p, *w;
static uint32_t me;
static struct wake_out nobody = {-1};

static void begin(void)
{
    uint32_t generation;
    unit_segment(&seg, 64, 8, 1 << 20, 1);
    me = unit_participant(&seg, "undertaker", &generation);
    p = unit_handle(&seg, "producer", 0);
    w = unit_handle(&seg, "worker", 0);
}

static struct undertaker_report bury(fab_t *f, bool crashed)
{
    return unit_bury(&seg, me, f, crashed);
}

static void end(void)
{
    (void)bury(p, false);
    (void)bury(w, false);
    cr_assert_eq(unit_slots_in(&seg, SLOT_FREE), seg.slots);
    cr_assert_eq(arena_bytes_free(&seg), seg.arena_bytes);
}

static fab_id submit(uint32_t len, const struct fab_terms *terms)
{
    static uint8_t arg[5000];
    struct fab_task t = {.kernel = 7, .arg = arg, .len = len, .terms = terms};
    fab_id id;
    cr_assert_eq(fab_submit(p, &t, 1, &id, 0), 1, "%s", fab_errmsg());
    return id;
}

static struct fab_lease claim(void)
{
    struct fab_lease l;
    cr_assert_eq(fab_claim(w, 0, &l, 1, 0), 1, "%s", fab_errmsg());
    return l;
}

static struct fab_outcome outcome(fab_id id)
{
    struct fab_outcome o;
    cr_assert_eq(fab_wait(p, id, &o, 0), 0, "%s", fab_errmsg());
    return o;
}

static void nothing_waits(void)
{
    struct fab_lease l;
    cr_assert_eq(fab_claim(w, 0, &l, 1, 0), -EAGAIN);
}

Test(cancel, every_end_but_a_result_is_cancelled)
{
    static const uint32_t lens[] = {8, 40, 5000};
    struct fab_terms terms = {.retries = 3, .backoff_ns = 1000};
    begin();
    for (int how = 0; how < 4; how++)
        for (size_t i = 0; i < 6; i++) {
            fab_id id = submit(lens[i % 3], i < 3 ? NULL : &terms);
            struct fab_lease l = claim();
            cr_assert_eq(fab_cancelled(w, &l), 0);
            cr_assert_eq(fab_cancel(p, id), 0);
            cr_assert_eq(fab_cancelled(w, &l), 1);
            struct fab_outcome o;
            cr_assert_eq(fab_wait(p, id, &o, 0), -EAGAIN, "it is asked, not ended");
            int rc = how == 0   ? fab_fail(w, &l, "a sentence that needs more than eight bytes")
                     : how == 1 ? fab_release(w, &l)
                     : how == 2 ? fab_crash(w, &l, "it crashed")
                                : fab_complete(w, &l, "result", 6);
            cr_assert_eq(rc, 0, "%s", fab_errmsg());
            o = outcome(id);
            cr_assert_eq(o.status, how == 3 ? FAB_COMPLETED : FAB_CANCELLED, "end %d: %u", how,
                         o.status);
            cr_assert_eq(o.attempts, 1);
            cr_assert_eq(fab_cancel(p, id), -ENOENT);
            nothing_waits();
        }
    end();
}

Test(cancel, a_dead_workers_marked_task_is_cancelled)
{
    begin();
    fab_id id = submit(5000, NULL), other = submit(8, NULL);
    (void)claim();
    (void)claim();
    cr_assert_eq(fab_cancel(p, id), 0);
    struct undertaker_report r = bury(w, true);
    cr_assert_eq(r.cancelled, 1);
    cr_assert_eq(r.leases, 1);
    w = unit_handle(&seg, "worker", 0);
    cr_assert_eq(outcome(id).status, FAB_CANCELLED);
    struct fab_lease l = claim();
    cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    cr_assert_eq(outcome(other).attempts, 2);
    end();
}

/* As a death between a release and the look at the mark leaves it: READY, with the mark. */
Test(cancel, a_task_that_waits_with_the_mark_is_not_run)
{
    begin();
    for (int by = 0; by < 2; by++) {
        fab_id id = submit(40, NULL);
        struct fab_lease l = claim();
        uint32_t slot = (uint32_t)id;
        cr_assert_eq(fab_release(w, &l), 0);
        at_or(&seg.slot[slot].meta, (uint64_t)META_CANCEL << 16);
        struct undertaker_report r = {0};
        if (by == 0)
            undertaker_audit(&seg, &nobody, &r);
        else
            nothing_waits();
        cr_assert_eq(r.cancelled, by == 0);
        cr_assert_eq(outcome(id).status, FAB_CANCELLED);
        nothing_waits();
    }
    end();
}

Test(cancel, an_orphan_with_the_mark_is_freed)
{
    begin();
    fab_id id = submit(5000, NULL);
    struct fab_lease l = claim();
    cr_assert_eq(fab_cancel(p, id), 0);
    (void)bury(p, true);
    p = unit_handle(&seg, "producer", 0);
    cr_assert_eq(fab_release(w, &l), 0);
    nothing_waits();
    end();
}

static void *cancel_soon(void *arg)
{
    usleep(20000); /* until the other thread sleeps; earlier is no failure */
    cr_assert_eq(fab_cancel(p, *(fab_id *)arg), 0);
    return NULL;
}

Test(cancel, a_worker_that_sleeps_is_woken, .timeout = 10)
{
    begin();
    pthread_t thread;
    fab_id id = submit(8, NULL);
    struct fab_lease l = claim();
    uint32_t word = 3;
    cr_assert_eq(fab_attend(w, &word, 2, -1, FAB_FOREVER), 0, "the word is another");
    while (fab_attend(w, &word, 3, -1, 1000000) == 0)
        ; /* what was rung before */
    pthread_create(&thread, NULL, cancel_soon, &id);
    uint64_t start = clock_ns();
    while (!fab_cancelled(w, &l))
        cr_assert_eq(fab_attend(w, &word, 3, -1, FAB_FOREVER), 0, "%s", fab_errmsg());
    cr_assert_lt(clock_ns() - start, 5 * UNIT_SECOND);
    pthread_join(thread, NULL);
    /* rung while it did not sleep: the next sleep ends at once */
    cr_assert_eq(fab_cancel(p, id), 0);
    cr_assert_eq(fab_attend(w, &word, 3, -1, FAB_FOREVER), 0);
    cr_assert_eq(fab_fail(w, &l, "cancelled"), 0);
    cr_assert_eq(outcome(id).status, FAB_CANCELLED);
    end();
}

Test(crash, counts_against_the_budget_as_a_death_does)
{
    struct fab_terms terms = {.crashes = 2};
    begin();
    for (int with = 0; with < 2; with++) {
        fab_id id = submit(with ? 40 : 8, with ? &terms : NULL);
        struct fab_lease l = {0};
        for (int i = 0; i < (with ? 2 : 3); i++) {
            l = claim();
            cr_assert_eq(l.attempt, i + 1);
            if (i == 0 && !with) { /* one of them a death */
                (void)bury(w, true);
                w = unit_handle(&seg, "worker", 0);
            } else {
                cr_assert_eq(fab_crash(w, &l, "its kernel died of SIGSEGV"), 0, "%s", fab_errmsg());
            }
        }
        struct fab_outcome o = outcome(id);
        cr_assert_eq(o.status, FAB_DEAD);
        cr_assert(o.len > 8 ? memmem(fab_data(&o), o.len, with ? "(2 times)" : "(3 times)", 9) != NULL
                            : memcmp(fab_data(&o), "crashed", 7) == 0,
                  "%.*s", (int)o.len, (const char *)fab_data(&o));
        cr_assert_gt(o.len, 8, "there is room for a sentence");
        cr_assert_eq(fab_crash(w, &l, "again"), -ESTALE);
        nothing_waits();
    }
    end();
}

Test(crash, that_was_counted_is_not_a_death_as_well)
{
    struct fab_terms terms = {.crashes = 2};
    begin();
    fab_id id = submit(8, &terms);
    struct fab_lease l = claim();
    _Atomic uint64_t *meta = &seg.slot[(uint32_t)id].meta;
    /* the worker died behind crash.counted */
    at_store(meta, meta_count_crash(at_load(meta), slot_attempt(l.ref[1])));
    (void)bury(w, true);
    w = unit_handle(&seg, "worker", 0);
    l = claim();
    cr_assert_eq(l.attempt, 2);
    cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    cr_assert_eq(outcome(id).status, FAB_COMPLETED);
    end();
}

Test(crash, waits_as_long_as_the_terms_say)
{
    struct fab_terms terms = {.backoff_ns = 1000000};
    begin();
    fab_id id = submit(8, &terms);
    struct fab_lease l = claim();
    cr_assert_eq(fab_crash(w, &l, "it crashed"), 0);
    cr_assert_eq(slot_state(at_load(&seg.slot[(uint32_t)id].state)), SLOT_DELAYED);
    cr_assert_eq(fab_withdraw(p, id), 0);
    cr_assert_eq(outcome(id).status, FAB_CANCELLED);
    end();
}

Test(overrun, is_told_once_whoever_sees_it_first)
{
    struct fab_terms terms = {.limit_ns = 1000000000};
    begin();
    fab_id id = submit(8, &terms);
    uint64_t before = clock_ns();
    struct fab_lease l = claim();
    cr_assert(l.due_ns >= before + terms.limit_ns && l.due_ns <= clock_ns() + terms.limit_ns);
    cr_assert_eq(fab_overrun(w, &l), 0, "%s", fab_errmsg());
    cr_assert_not(undertaker_end(&seg, &nobody, me, (uint32_t)id, l.ref[1], SLOT_OVERRUN));
    cr_assert_eq(outcome(id).status, FAB_OVERRUN);

    id = submit(8, &terms);
    l = claim();
    cr_assert(undertaker_end(&seg, &nobody, me, (uint32_t)id, l.ref[1], SLOT_OVERRUN));
    cr_assert_eq(fab_cancelled(w, &l), 1, "the lease is lost");
    cr_assert_eq(fab_overrun(w, &l), -ESTALE);
    cr_assert_eq(outcome(id).status, FAB_OVERRUN);

    id = submit(8, NULL);
    l = claim();
    cr_assert_eq(l.due_ns, 0);
    cr_assert_eq(fab_overrun(w, &l), -EINVAL);
    cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    cr_assert_eq(outcome(id).status, FAB_COMPLETED);
    end();
}
