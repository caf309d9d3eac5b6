/* SPDX-License-Identifier: MIT
 *
 * test_local_limits.c - a producer's and a worker's handle on one segment where something comes to
 * its end: room, time, the fabric, the caller's hold on a result, the range of a number; and what
 * is wrong in a task or damaged in the segment.
 */
#include "core/clock.h"
#include "local_pair.h"

/* ---- a full fabric ---- */

Test(local, a_full_fabric_says_so_in_time)
{
    struct pair t;
    struct fab_task task[100];
    fab_id id[100];
    uint64_t arg = 0;
    pair_make(&t, 0);
    for (int i = 0; i < 100; i++)
        task[i] = task_of(&arg, 8);
    cr_assert_eq(fab_submit(t.p, task, 100, id, 0), SLOTS, "as many as fit");
    cr_assert_eq(fab_outstanding(t.p), SLOTS);
    cr_assert_eq(fab_submit(t.p, task, 1, id + SLOTS, 0), -EAGAIN);
    uint64_t start = clock_ns();
    cr_assert_eq(fab_submit(t.p, task, 3, id + SLOTS, UNIT_SECOND / 20), -ETIMEDOUT);
    uint64_t took = clock_ns() - start;
    cr_assert(took >= UNIT_SECOND / 20 && took < UNIT_SECOND, "%llu ns", (unsigned long long)took);

    /* an outcome that is there but not taken frees nothing; taken, it does */
    struct fab_lease l = claim(t.w, 0);
    complete(t.w, &l, NULL, 0);
    cr_assert_eq(fab_submit(t.p, task, 1, id + SLOTS, 0), -EAGAIN);
    (void)outcome(t.p, id[0]);
    cr_assert_eq(fab_submit(t.p, task, 3, id + SLOTS, UNIT_SECOND), 1,
                 "one fits: no waiting for the rest");
    for (uint32_t i = 0; i < SLOTS; i++) {
        l = claim(t.w, 0);
        complete(t.w, &l, NULL, 0);
        (void)outcome(t.p, id[i + 1]);
    }
    pair_end(&t);
}

/* An arena without room is a full fabric, too, and not an error. */
Test(local, a_full_arena_is_a_full_fabric)
{
    struct pair t;
    static uint8_t arg[2 * MIB];
    fab_id id[3];
    pair_make(&t, MIB);
    struct fab_task task = task_of(arg, 400000);
    id[0] = submit(t.p, &task);
    id[1] = submit(t.p, &task);
    cr_assert_eq(fab_submit(t.p, &task, 1, &id[2], 0), -EAGAIN);
    cr_assert_eq(fab_submit(t.p, &task, 1, &id[2], 10000000), -ETIMEDOUT);
    struct fab_task huge = task_of(arg, 2 * MIB);
    cr_assert_eq(fab_submit(t.p, &huge, 1, &id[2], FAB_FOREVER), -EMSGSIZE, "it never fits");
    huge.len = FAB_ARG_MAX + 1u;
    cr_assert_eq(fab_submit(t.p, &huge, 1, &id[2], FAB_FOREVER), -EMSGSIZE);
    struct fab_task small = task_of(arg, 64);
    id[2] = submit(t.p, &small);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(fab_cancel(t.p, id[i]), 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(outcome(t.p, id[i]).status, FAB_CANCELLED);
    pair_end(&t);
}

struct later {
    struct pair *t;
    uint32_t n;
};

static void *worker_after_a_while(void *arg)
{
    struct later *x = arg;
    struct fab_lease l;
    usleep(30000);
    for (uint32_t i = 0; i < x->n; i++)
        if (fab_claim(x->t->w, 0, &l, 1, UNIT_SECOND) == 1)
            (void)!fab_complete(x->t->w, &l, NULL, 0);
    return NULL;
}

/* The producer's own outcomes are what makes room; another handle's worker makes room without its
 * doing. */
Test(local, submit_waits_for_room)
{
    struct pair t;
    pthread_t thread;
    struct fab_task task = {.flags = FAB_NO_WAIT};
    pair_make(&t, 0);
    for (uint32_t i = 0; i < SLOTS; i++)
        cr_assert_eq(fab_submit(t.p, &task, 1, NULL, 0), 1);
    struct later x = {&t, SLOTS + 1};
    cr_assert_eq(pthread_create(&thread, NULL, worker_after_a_while, &x), 0);
    cr_assert_eq(fab_submit(t.p, &task, 1, NULL, 10 * UNIT_SECOND), 1, "%s", fab_errmsg());
    pthread_join(thread, NULL);
    pair_end(&t);
}

/* ---- what is wrong with a task ---- */

Test(local, bad_tasks_are_refused_and_good_ones_before_them_accepted)
{
    struct pair t;
    uint64_t arg = 0;
    struct fab_task task[4];
    fab_id id[4] = {0};
    pair_make(&t, 0);
    for (int i = 0; i < 4; i++)
        task[i] = task_of(&arg, 8);
    task[0].queue = 2;
    cr_assert_eq(fab_submit(t.p, task, 1, id, 0), -EINVAL);
    task[0].queue = 0;
    task[0].priority = 4;
    cr_assert_eq(fab_submit(t.p, task, 1, id, 0), -EINVAL);
    task[0].priority = 0;
    task[0].flags = 0x8000;
    cr_assert_eq(fab_submit(t.p, task, 1, id, 0), -EINVAL);
    task[0].flags = 0;
    cr_assert_eq(fab_outstanding(t.p), 0);

    task[0].priority = task[1].priority = task[2].priority = 1;
    task[2].flags = 0x8000;
    cr_assert_eq(fab_submit(t.p, task, 4, id, 0), 2);
    cr_assert_eq(fab_submit(t.p, task + 2, 2, id + 2, 0), -EINVAL);
    cr_assert_eq(fab_submit(t.p, task, 0, id, 0), 0);
    for (int i = 0; i < 2; i++) {
        struct fab_lease l = claim(t.w, 0);
        complete(t.w, &l, NULL, 0);
        (void)outcome(t.p, id[i]);
    }
    pair_end(&t);
}

/* ---- time-outs ---- */

static void takes_about(uint64_t since, int64_t ns, const char *what)
{
    uint64_t took = clock_ns() - since;
    cr_assert(took >= (uint64_t)ns && took < (uint64_t)ns + UNIT_SECOND, "%s: %llu ns", what,
              (unsigned long long)took);
}

Test(local, waits_end_in_time)
{
    struct pair t;
    uint64_t arg = 0, start;
    struct fab_outcome o;
    struct fab_lease l;
    pair_make(&t, 0);
    start = clock_ns();
    cr_assert_eq(fab_claim(t.w, 0, &l, 1, 30000000), -ETIMEDOUT);
    takes_about(start, 30000000, "claim");
    cr_assert_eq(fab_claim(t.w, 0, &l, 1, 0), -EAGAIN);
    cr_assert_eq(fab_claim(t.w, 0, &l, 0, FAB_FOREVER), 0);
    cr_assert_eq(fab_wait_any(t.p, &o, 1, FAB_FOREVER), -ENOENT);

    struct fab_task task = task_of(&arg, 8);
    fab_id id = submit(t.p, &task);
    cr_assert_eq(fab_wait(t.p, id, &o, 0), -EAGAIN);
    cr_assert_eq(fab_wait_any(t.p, &o, 1, 0), -EAGAIN);
    cr_assert_eq(fab_wait_any(t.p, &o, 0, FAB_FOREVER), 0);
    start = clock_ns();
    cr_assert_eq(fab_wait(t.p, id, &o, 30000000), -ETIMEDOUT);
    takes_about(start, 30000000, "wait");
    start = clock_ns();
    cr_assert_eq(fab_wait_any(t.p, &o, 1, 250000000), -ETIMEDOUT);
    takes_about(start, 250000000, "wait_any, longer than a sleep");
    cr_assert(strstr(fab_errmsg(), "0.250 s"), "%s", fab_errmsg());
    l = claim(t.w, 0);
    complete(t.w, &l, NULL, 0);
    (void)outcome(t.p, id);
    pair_end(&t);
}

/* ---- the end of the fabric ---- */

Test(local, a_draining_fabric_takes_no_tasks_but_finishes_those_it_has)
{
    struct pair t;
    uint64_t arg = 0;
    pair_make(&t, 0);
    struct fab_task task = task_of(&arg, 8);
    fab_id id = submit(t.p, &task), none;
    at_store(&t.s.head->state, SEG_DRAINING);
    cr_assert_eq(fab_submit(t.p, &task, 1, &none, FAB_FOREVER), -EPIPE);
    cr_assert(strstr(fab_errmsg(), "draining"), "%s", fab_errmsg());
    struct fab_lease l = claim(t.w, 0);
    complete(t.w, &l, NULL, 0);
    (void)outcome(t.p, id);
    pair_end(&t);
}

Test(local, a_closed_fabric_ends_every_wait, .timeout = 20)
{
    struct pair t;
    uint64_t arg = 0;
    struct fab_outcome o;
    struct fab_lease l;
    pair_make(&t, 0);
    struct fab_task task = task_of(&arg, 8);
    fab_id id = submit(t.p, &task), none;
    l = claim(t.w, 0);
    at_store(&t.s.head->state, SEG_CLOSED);
    cr_assert_eq(fab_submit(t.p, &task, 1, &none, FAB_FOREVER), -EPIPE);
    cr_assert_eq(fab_wait(t.p, id, &o, FAB_FOREVER), -EPIPE);
    cr_assert_eq(fab_wait_any(t.p, &o, 1, FAB_FOREVER), -EPIPE);
    struct fab_lease more;
    cr_assert_eq(fab_claim(t.w, 0, &more, 1, FAB_FOREVER), -EPIPE);
    complete(t.w, &l, NULL, 0);
    cr_assert_eq(fab_wait(t.p, id, &o, FAB_FOREVER), 0, "what is there can be taken");
    pair_end(&t);
}

/* ---- outcomes that the caller still reads ---- */

Test(local, outcome_bytes_stay_until_the_next_wait)
{
    struct segment s;
    enum { N = 600 };
    static uint8_t res[N][40];
    static struct fab_outcome o[N];
    static struct fab_lease l[N];
    static struct fab_task task[N];
    fab_id id[N];
    unit_segment(&s, 1024, 2, MIB, 1);
    fab_t *p = unit_handle(&s, "producer", 0), *w = unit_handle(&s, "worker", 0);
    for (uint32_t i = 0; i < N; i++)
        task[i] = (struct fab_task){.priority = 1, .tag = i};
    cr_assert_eq(fab_submit(p, task, N, id, 0), N);
    for (uint32_t i = 0; i < N; i++) {
        l[i] = claim(w, 0);
        unit_fill(res[i], sizeof res[i], i);
        complete(w, &l[i], res[i], sizeof res[i]);
    }
    uint32_t done = 0;
    while (done < N) {
        long n = fab_wait_any(p, o, N, 0);
        cr_assert(n > 0 && n <= LOCAL_HELD_MAX, "%ld", n);
        for (long i = 0; i < n; i++)
            cr_assert(unit_filled(fab_data(&o[i]), 40, (uint32_t)o[i].tag), "task %llu",
                      (unsigned long long)o[i].tag);
        done += (uint32_t)n;
    }
    cr_assert_eq(fab_outstanding(p), 0);
    fab_close(p);
    fab_close(w);
    segment_unmap(&s);
}

/* ---- numbers that run over ---- */

/* A producer that sends one task at a time uses one slot: its epoch runs over within minutes. */
Test(local, epochs_run_over_unnoticed)
{
    struct pair t;
    uint64_t arg = 0;
    pair_make(&t, 0);
    for (uint32_t i = 0; i < SLOTS; i++)
        at_store(&t.s.slot[i].state, slot_word(0xfffffffcu, NOBODY, 0, SLOT_FREE));
    for (int i = 0; i < 10; i++) {
        struct fab_task task = task_of(&arg, 8);
        fab_id id = submit(t.p, &task);
        struct fab_lease l = claim(t.w, 0);
        complete(t.w, &l, &arg, 8);
        cr_assert_eq(outcome(t.p, id).status, FAB_COMPLETED, "task %d", i);
        cr_assert_eq(fab_outstanding(t.p), 0, "task %d", i);
    }
    pair_end(&t);
}

/* ---- damage ---- */

Test(local, a_damaged_argument_fails_its_task_alone)
{
    struct pair t;
    uint8_t arg[100];
    struct fab_lease l;
    pair_make(&t, MIB);
    struct fab_task task = task_of(arg, sizeof arg), good = task_of(arg, 8);
    fab_id id = submit(t.p, &task);
    uint32_t slot = (uint32_t)id;
    uint64_t was = t.s.slot[slot].arg;
    t.s.slot[slot].arg = UINT64_MAX / 256;
    cr_assert_eq(fab_claim(t.w, 0, &l, 1, 0), -EAGAIN);
    struct fab_outcome o = outcome(t.p, id);
    cr_assert_eq(o.status, FAB_FAILED);
    arena_free(&t.s, NULL, unit_id(t.p), was, slot, (uint32_t)(id >> 32));
    id = submit(t.p, &good);
    l = claim(t.w, 0);
    complete(t.w, &l, NULL, 0);
    cr_assert_eq(outcome(t.p, id).status, FAB_COMPLETED);
    pair_end(&t);
}

Test(local, a_damaged_result_length_is_not_followed)
{
    struct pair t;
    uint64_t arg = 0;
    static const uint32_t bad[] = {UINT32_MAX, 0x80000000u, 2 * MIB};
    pair_make(&t, MIB);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct fab_task task = task_of(&arg, 8);
        fab_id id = submit(t.p, &task);
        struct fab_lease l = claim(t.w, 0);
        complete(t.w, &l, &arg, 8);
        t.s.slot[(uint32_t)id].res_len = bad[i];
        struct fab_outcome o = outcome(t.p, id);
        cr_assert_eq(o.status, FAB_FAILED);
        cr_assert_eq(o.len, 0);
    }
    pair_end(&t);
}

Test(local, a_damaged_queue_or_slot_number_is_skipped)
{
    struct pair t;
    uint64_t arg = 0;
    struct fab_lease l;
    pair_make(&t, 0);
    struct fab_task task = task_of(&arg, 8);
    fab_id id = submit(t.p, &task);
    struct seg_slot *sl = &t.s.slot[(uint32_t)id];
    uint64_t meta = at_load(&sl->meta);
    at_store(&sl->meta, slot_meta(0xffff, 200, 200, 0));
    cr_assert_eq(fab_claim(t.w, 0, &l, 1, 0), -EAGAIN);
    at_store(&sl->meta, meta);
    cr_assert_eq(fab_cancel(t.p, id), 0);
    (void)outcome(t.p, id);

    /* leased, then the producer's number is damaged: nobody is told, nothing is touched outside the
     * table */
    id = submit(t.p, &task);
    l = claim(t.w, 0);
    at_store(&t.s.slot[l.ref[0]].meta, slot_meta(0xfff0, 0, 1, 0));
    cr_assert_eq(fab_complete(t.w, &l, NULL, 0), 0);
    cr_assert_eq(outcome(t.p, id).status, FAB_COMPLETED);
    pair_end(&t);
}
