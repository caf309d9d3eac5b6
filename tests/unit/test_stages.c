/* SPDX-License-Identifier: MIT
 *
 * test_stages.c - stage times: every task has all of them, they add up, and what is measured for
 * histograms stands for all tasks (stages.h).
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <time.h>
#include "core/clock.h"
#include "core/fabric.h"
#include "core/stages.h"
#include "tests/unit/unit.h"

#define MS 1000000

static struct segment seg;
static fab_t *p, *w;

static void make(uint32_t slots)
{
    unit_segment(&seg, slots, 4, 4 * ARENA_CHUNK, 1);
    p = unit_handle(&seg, "producer", -1);
    w = unit_handle(&seg, "worker", -1);
}

static void nap(long ns)
{
    struct timespec t = {.tv_nsec = ns};
    nanosleep(&t, NULL);
}

static void submit(uint32_t n, uint32_t len, fab_id *ids)
{
    static const uint8_t bytes[4096];
    struct fab_task t[64];
    for (uint32_t i = 0; i < n; i++)
        t[i] = (struct fab_task){.kernel = 1, .arg = bytes, .len = len, .tag = i};
    cr_assert_eq(fab_submit(p, t, n, ids, 0), n, "%s", fab_errmsg());
}

static struct hist *span(fab_t *f, enum seg_span s)
{
    return &((struct local *)f)->self->latency.span[s];
}

/* Of every length of argument and result, that is on every way through submit, claim and complete.
 */
Test(stages, every_task_has_all_its_times_and_they_add_up)
{
    static const uint32_t sizes[] = {0, 4, 8, 9, 64, 65, 4096};
    static const uint8_t bytes[4096];
    make(256);
    for (size_t a = 0; a < sizeof sizes / sizeof *sizes; a++)
        for (size_t r = 0; r < sizeof sizes / sizeof *sizes; r++) {
            struct fab_lease l[2];
            struct fab_outcome o[2];
            struct fab_times t;
            fab_id ids[2];
            submit(2, sizes[a], ids);
            nap(2 * MS);
            cr_assert_eq(fab_claim(w, 0, l, 2, 0), 2);
            nap(1 * MS);
            cr_assert_eq(fab_complete(w, &l[0], bytes, sizes[r]), 0);
            nap(3 * MS);
            cr_assert_eq(fab_complete(w, &l[1], bytes, sizes[r]), 0);
            cr_assert_eq(fab_wait(p, ids[1], &o[1], 0), 0);
            nap(1 * MS);
            cr_assert_eq(fab_wait_any(p, o, 1, 0), 1);
            cr_assert_eq(fab_times(p, &o[0], &t), 0, "%s", fab_errmsg());
            cr_assert_geq(t.wait_ns, 2 * MS);
            cr_assert_lt(t.held_ns, MS, "the first one is turned to at once");
            cr_assert_geq(t.run_ns, MS);
            cr_assert_geq(t.fetch_ns, 4 * MS);
            uint64_t sum = t.room_ns + t.wait_ns + t.held_ns + t.run_ns + t.fetch_ns;
            cr_assert(sum <= t.total_ns + 5 && t.total_ns <= sum + 5, "%lu of %lu",
                      (unsigned long)sum, (unsigned long)t.total_ns);
            cr_assert_eq(fab_times(p, &o[1], &t), 0, "%s", fab_errmsg());
            cr_assert_geq(t.held_ns, MS, "the second waits for the first");
            cr_assert_geq(t.run_ns, 3 * MS);
            cr_assert_lt(t.fetch_ns, MS);
            fab_id next[2];
            submit(2, 8, next); /* the slots are used again */
            cr_assert_eq(fab_times(p, &o[1], &t), -ENODATA);
            cr_assert_eq(fab_claim(w, 0, l, 2, 0), 2);
            cr_assert_eq(fab_fail(w, &l[0], "no"), 0);
            cr_assert_eq(fab_complete(w, &l[1], NULL, 0), 0);
            cr_assert_eq(fab_wait_any(p, o, 2, 0), 2);
            cr_assert_eq(fab_times(p, &o[0], &t), 0, "a failed one has times, too");
        }
}

Test(stages, a_withdrawn_task_has_none_and_other_numbers_are_refused)
{
    struct fab_outcome o, none = {.id = 0xffffffff};
    struct fab_times t;
    fab_id id;
    make(256);
    submit(1, 8, &id);
    cr_assert_eq(fab_withdraw(p, id), 0);
    cr_assert_eq(fab_wait(p, id, &o, 0), 0);
    cr_assert_eq(fab_times(p, &o, &t), -ENODATA);
    cr_assert_eq(fab_times(p, &none, &t), -EINVAL);
}

/* What waits for room says so. */
Test(stages, the_wait_for_room_is_told_apart)
{
    make(64);
    struct fab_lease l;
    struct fab_outcome o;
    struct fab_times t;
    fab_id id;
    unsigned n = 0;
    struct fab_task task = {.kernel = 1};
    while (fab_submit(p, &task, 1, &id, 0) == 1)
        n++;
    cr_assert_eq(fab_submit(p, &task, 1, &id, 3 * MS), -ETIMEDOUT);
    /* room comes while it waits: from another thread it would be later */
    cr_assert_eq(fab_claim(w, 0, &l, 1, 0), 1);
    cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    cr_assert_eq(fab_wait_any(p, &o, 1, 0), 1);
    cr_assert_eq(fab_submit(p, &task, 1, &id, 0), 1);
    for (unsigned i = 0; i < n; i++) {
        cr_assert_eq(fab_claim(w, 0, &l, 1, 0), 1);
        cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
        cr_assert_eq(fab_wait_any(p, &o, 1, 0), 1);
        cr_assert_eq(fab_times(p, &o, &t), 0);
        cr_assert_eq(t.room_ns, 0);
    }
    cr_assert_eq(room_pack(0), 0);
    cr_assert_eq(room_pack(UINT64_MAX), UINT32_MAX);
    cr_assert_eq((uint64_t)room_pack(5000000) << ROOM_UNIT_SHIFT, 5000000 / 1024 * 1024);
}

/* Quick ones one by one: a histogram has one in SPAN_PACE, and counts it for all. */
Test(stages, one_of_many_stands_for_all)
{
    enum { N = 64 * 40 };
    make(256);
    for (unsigned i = 0; i < N / 64; i++) {
        struct fab_lease l[64];
        struct fab_outcome o[64];
        uint64_t eight = 8;
        submit(64, 8, NULL);
        cr_assert_eq(fab_claim(w, 0, l, 64, 0), 64);
        for (int k = 0; k < 64; k++)
            cr_assert_eq(fab_complete(w, &l[k], &eight, sizeof eight), 0);
        cr_assert_eq(fab_wait_any(p, o, 64, 0), 64);
    }
    uint64_t run = at_load(&span(w, SPAN_RUN)->count), round = at_load(&span(p, SPAN_ROUND)->count);
    cr_assert(run > N - (int)SPAN_PACE && run <= N, "%lu of %d", (unsigned long)run, N);
    cr_assert(round > N - (int)SPAN_PACE && round <= N, "%lu of %d", (unsigned long)round, N);
    cr_assert_eq(at_load(&span(w, SPAN_WAIT)->count), run);
    cr_assert_eq(at_load(&span(w, SPAN_ROUND)->count), 0, "that is the producer's");
}

/* A long task among short ones is counted for itself alone: it stands for no others. */
Test(stages, a_long_task_stands_for_itself)
{
    enum { ROUNDS = 30, SHORT = 50 };
    make(256);
    uint64_t eight = 8;
    for (int i = 0; i < ROUNDS; i++) {
        struct fab_lease l[SHORT + 1];
        struct fab_outcome o[64];
        submit(SHORT + 1, 8, NULL);
        cr_assert_eq(fab_claim(w, 0, l, SHORT + 1, 0), SHORT + 1);
        for (int k = 0; k <= SHORT; k++) {
            if (k == SHORT)
                nap(2 * MS);
            cr_assert_eq(fab_complete(w, &l[k], &eight, sizeof eight), 0);
        }
        cr_assert_eq(fab_wait_any(p, o, 64, 0), SHORT + 1);
    }
    const struct hist *h = span(w, SPAN_RUN);
    uint64_t all = at_load(&h->count);
    cr_assert(all > ROUNDS * (SHORT + 1) - SPAN_PACE && all <= ROUNDS * (SHORT + 1));
    cr_assert_lt(hist_quantile(h, 0.9), MS, "nine of ten are short");
    cr_assert_geq(hist_quantile(h, 0.995), 2 * MS, "one of 51 is long");
    uint64_t sum = at_load(&h->sum);
    cr_assert_lt(sum, 2ull * ROUNDS * 20 * MS,
                 "it would be 50 times as much if it stood for others");
}
