/* SPDX-License-Identifier: MIT
 *
 * test_local_many.c - fab_complete_many(): the same as fab_complete() for each, whatever is among them.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include "core/local.h"
#include "tests/unit/local_pair.h"

#define N 40u

static uint64_t number[N];
static uint8_t bytes[3 * MIB];

static void submit_numbers(fab_t *f, uint32_t n, uint32_t flags, fab_id *ids)
{
    struct fab_task t[N];
    for (uint32_t i = 0; i < n; i++) {
        number[i] = 1000 + i;
        t[i] = task_of(&number[i], 8);
        t[i].tag = i;
        t[i].flags = (uint8_t)flags;
    }
    cr_assert_eq(fab_submit(f, t, n, ids, 0), n, "%s", fab_errmsg());
}

/* Results of the tasks' own arguments. */
static void answers(const struct fab_lease *l, struct fab_result *r, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        r[i] = (struct fab_result){.data = fab_arg(&l[i]), .len = 8};
}

static void take_numbers(fab_t *f, uint32_t n)
{
    struct fab_outcome o;
    for (uint32_t i = 0; i < n; i++) {
        cr_assert_eq(fab_wait_any(f, &o, 1, 0), 1, "%s", fab_errmsg());
        cr_assert_eq(o.status, FAB_COMPLETED);
        cr_assert_eq(o.small, 1000 + o.tag);
    }
}

static uint64_t completed(fab_t *f)
{
    return at_load(&((struct local *)f)->self->counts[0].completed);
}

/* Outcomes in the slots that belong to f. */
static uint32_t done_for(const struct segment *s, fab_t *f)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->slots; i++) {
        uint64_t w = at_load(&s->slot[i].state);
        n += slot_state(w) == SLOT_DONE && slot_owner(w) == ((struct local *)f)->me;
    }
    return n;
}

Test(local_many, a_batch_of_one_kind_ends_whole)
{
    struct pair t;
    struct fab_lease l[N];
    struct fab_result r[N];
    pair_make(&t, MIB);
    submit_numbers(t.p, N, 0, NULL);
    cr_assert_eq(fab_claim(t.w, 0, l, N, 0), N);
    answers(l, r, N);
    cr_assert_eq(fab_complete_many(t.w, l, r, 0), 0);
    cr_assert_eq(fab_complete_many(t.w, l, r, N), N, "%s", fab_errmsg());
    cr_assert_eq(completed(t.w), N);
    take_numbers(t.p, N);
    pair_end(&t);
}

/* Long results, empty ones, results nobody waits for, and tasks of two producers among them. */
Test(local_many, tasks_of_all_kinds_end_in_one_call)
{
    struct pair t;
    struct fab_lease l[N];
    struct fab_result r[N];
    fab_id ids[10];
    pair_make(&t, MIB);
    fab_t *other = unit_handle(&t.s, "other", 0);
    submit_numbers(t.p, 10, 0, ids);
    submit_numbers(other, 5, 0, NULL);
    submit_numbers(t.p, 5, FAB_NO_WAIT, NULL);
    submit_numbers(other, 5, 0, NULL);
    cr_assert_eq(fab_claim(t.w, 0, l, N, 0), 25);
    answers(l, r, 25);
    unit_fill(bytes, 5000, 1);
    r[3] = (struct fab_result){.data = bytes, .len = 5000};
    r[4] = (struct fab_result){.data = bytes, .len = 40};
    r[9] = (struct fab_result){.data = "", .len = 0};
    cr_assert_eq(fab_complete_many(t.w, l, r, 25), 25, "%s", fab_errmsg());
    cr_assert_eq(completed(t.w), 25);
    cr_assert_eq(unit_slots_in(&t.s, SLOT_DONE), 20, "what nobody waits for is free");
    cr_assert_eq(done_for(&t.s, t.p), 10);
    cr_assert_eq(done_for(&t.s, other), 10, "each is its own producer's");
    for (uint32_t i = 0; i < 10; i++) {
        struct fab_outcome o = outcome(t.p, ids[i]);
        cr_assert_eq(o.len, r[i].len);
        cr_assert_eq(memcmp(fab_data(&o), i == 3 || i == 4 ? bytes : (void *)&number[i], o.len), 0);
    }
    take_numbers(other, 10);
    fab_close(other);
    pair_end(&t);
}

/* A lease that went to others is dropped and counted, and does not stop the rest. */
Test(local_many, what_is_no_longer_held_is_late_and_the_rest_goes_on)
{
    struct pair t;
    struct fab_lease l[N];
    struct fab_result r[N];
    pair_make(&t, MIB);
    submit_numbers(t.p, N, 0, NULL);
    cr_assert_eq(fab_claim(t.w, 0, l, N, 0), N);
    answers(l, r, N);
    cr_assert_eq(fab_release(t.w, &l[7]), 0);
    cr_assert_eq(fab_complete_many(t.w, l, r, N), N, "%s", fab_errmsg());
    cr_assert_eq(completed(t.w), N - 1);
    cr_assert_eq(at_load(&t.s.head->late_results), 1);
    take_numbers(t.p, N - 1);
    struct fab_lease again = claim(t.w, 0);
    complete(t.w, &again, fab_arg(&again), 8);
    take_numbers(t.p, 1);
    pair_end(&t);
}

Test(local_many, it_stops_where_there_is_no_room)
{
    struct pair t;
    struct fab_lease l[4];
    struct fab_result r[4];
    pair_make(&t, MIB);
    submit_numbers(t.p, 4, 0, NULL);
    cr_assert_eq(fab_claim(t.w, 0, l, 4, 0), 4);
    answers(l, r, 4);
    r[2] = (struct fab_result){.data = bytes, .len = sizeof bytes};
    cr_assert_eq(fab_complete_many(t.w, l, r, 4), 2);
    cr_assert_eq(fab_complete_many(t.w, l + 2, r + 2, 2), -EMSGSIZE);
    r[2].len = FAB_ARG_MAX + 1;
    cr_assert_eq(fab_complete_many(t.w, l + 2, r + 2, 2), -EMSGSIZE);
    r[2].len = 8;
    r[2].data = fab_arg(&l[2]);
    cr_assert_eq(fab_complete_many(t.w, l + 2, r + 2, 2), 2, "%s", fab_errmsg());
    take_numbers(t.p, 4);
    pair_end(&t);
}

Test(local_many, a_lease_of_nobody_is_refused)
{
    struct pair t;
    struct fab_lease l[2];
    struct fab_result r[2];
    pair_make(&t, MIB);
    submit_numbers(t.p, 2, 0, NULL);
    cr_assert_eq(fab_claim(t.w, 0, l, 2, 0), 2);
    answers(l, r, 2);
    uint64_t slot = l[1].ref[0];
    l[1].ref[0] = SLOTS;
    cr_assert_eq(fab_complete_many(t.w, l, r, 2), 1);
    cr_assert_eq(fab_complete_many(t.w, l + 1, r + 1, 1), -EINVAL);
    l[1].ref[0] = slot;
    cr_assert_eq(fab_complete_many(t.w, l + 1, r + 1, 1), 1);
    take_numbers(t.p, 2);
    pair_end(&t);
}

/* They end with their batch: one after the other, in equal parts of its time. */
Test(local_many, a_batch_shares_its_time_evenly)
{
    struct pair t;
    struct fab_lease l[8];
    struct fab_result r[8];
    struct fab_outcome o[8];
    struct timespec nap = {.tv_nsec = 8000000};
    uint64_t run = 0;
    pair_make(&t, MIB);
    submit_numbers(t.p, 8, 0, NULL);
    cr_assert_eq(fab_claim(t.w, 0, l, 8, 0), 8);
    answers(l, r, 8);
    nanosleep(&nap, NULL);
    cr_assert_eq(fab_complete_many(t.w, l, r, 8), 8);
    cr_assert_eq(fab_wait_any(t.p, o, 8, 0), 8);
    for (uint32_t i = 0; i < 8; i++) {
        struct fab_times s;
        cr_assert_eq(fab_times(t.p, &o[i], &s), 0, "%s", fab_errmsg());
        cr_assert_geq(s.run_ns, 1000000 - 5);
        cr_assert_leq(s.held_ns + 10, i * s.run_ns + 20);
        cr_assert_geq(s.held_ns + 20, i * s.run_ns);
        cr_assert(i == 0 || (s.run_ns <= run + 5 && run <= s.run_ns + 5), "all the same");
        run = s.run_ns;
    }
    pair_end(&t);
}
