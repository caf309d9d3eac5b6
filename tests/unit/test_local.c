/* SPDX-License-Identifier: MIT
 *
 * test_local.c - a producer's and a worker's handle on one segment, the common way: tasks there and
 * results back, their order, the ends of a lease, tasks nobody waits for, threads side by side.
 * What goes wrong is in test_local_limits.c.
 */
#include "local_pair.h"

/* ---- the common way ---- */

Test(local, a_task_goes_there_and_its_result_comes_back)
{
    struct pair t;
    uint64_t arg = 48, res = 7049156;
    pair_make(&t, 0);
    struct fab_task task = task_of(&arg, 8);
    task.tag = 0xfedcba9876543210;
    task.priority = 2;
    task.queue = 1;
    fab_id id = submit(t.p, &task);
    arg = 0; /* it was copied */
    cr_assert_eq(fab_outstanding(t.p), 1);

    struct fab_lease l = claim(t.w, 1);
    cr_assert_eq(l.kernel, task.kernel);
    cr_assert_eq(l.len, 8);
    cr_assert_eq(*(const uint64_t *)fab_arg(&l), 48);
    cr_assert_eq(l.attempt, 1);
    cr_assert_eq(l.queue, 1);
    cr_assert_eq(l.priority, 2);
    complete(t.w, &l, &res, 8);

    struct fab_outcome o = outcome(t.p, id);
    cr_assert_eq(o.status, FAB_COMPLETED);
    cr_assert_eq(o.tag, task.tag);
    cr_assert_eq(o.attempts, 1);
    cr_assert_eq(o.len, 8);
    cr_assert_eq(o.small, 7049156);
    cr_assert_eq(fab_data(&o), &o.small);
    cr_assert_eq(fab_outstanding(t.p), 0);

    struct fab_outcome again;
    cr_assert_eq(fab_wait(t.p, id, &again, 0), -ENOENT, "an outcome is told once");
    cr_assert_eq(fab_wait(t.p, id, &again, FAB_FOREVER), -ENOENT);
    pair_end(&t);
}

Test(local, every_length_of_argument_and_result)
{
    static const uint32_t lens[] = {0,   1,    7,    8,     9,     63,    64,    65,      255, 256,
                                    257, 1024, 5000, 16384, 16385, 65536, 65537, MIB - 1, MIB};
    struct pair t;
    static uint8_t arg[MIB], res[MIB];
    const size_t n = sizeof lens / sizeof *lens;
    pair_make(&t, 4 * MIB);
    for (uint32_t a = 0; a < n; a++) {
        for (uint32_t r = 0; r < n; r++) {
            unit_fill(arg, lens[a], a + 1);
            unit_fill(res, lens[r], r + 100);
            struct fab_task task = task_of(arg, lens[a]);
            fab_id id = submit(t.p, &task);
            memset(arg, 0, lens[a]);
            struct fab_lease l = claim(t.w, 0);
            cr_assert_eq(l.len, lens[a]);
            cr_assert_eq((uintptr_t)fab_arg(&l) % 8, 0);
            cr_assert(unit_filled(fab_arg(&l), lens[a], a + 1), "argument of %u", lens[a]);
            complete(t.w, &l, res, lens[r]);
            memset(res, 0, lens[r]);
            struct fab_outcome o = outcome(t.p, id);
            cr_assert_eq(o.status, FAB_COMPLETED);
            cr_assert_eq(o.len, lens[r]);
            cr_assert_eq((uintptr_t)fab_data(&o) % 8, 0);
            cr_assert(unit_filled(fab_data(&o), lens[r], r + 100), "argument of %u, result of %u",
                      lens[a], lens[r]);
        }
    }
    pair_end(&t);
}

Test(local, order_is_that_of_priority_then_of_submission)
{
    struct pair t;
    static const uint8_t priorities[] = {3, 1, 0, 2, 0, 1, 3, 2, 0};
    static const uint64_t want[] = {2, 4, 8, 1, 5, 3, 7, 0, 6};
    struct fab_lease l[16];
    fab_id id[9];
    pair_make(&t, 0);
    for (uint64_t i = 0; i < 9; i++) {
        struct fab_task task = task_of(&i, 8);
        task.priority = priorities[i];
        id[i] = submit(t.p, &task);
    }
    cr_assert_eq(fab_claim(t.w, 0, l, 16, 0), 9);
    for (size_t i = 0; i < 9; i++) {
        cr_assert_eq(l[i].small[0], want[i], "place %zu", i);
        complete(t.w, &l[i], NULL, 0);
    }
    for (size_t i = 0; i < 9; i++)
        (void)outcome(t.p, id[i]);
    pair_end(&t);
}

Test(local, a_batch_keeps_its_order)
{
    struct pair t;
    struct fab_task task[SLOTS];
    struct fab_lease l[SLOTS];
    struct fab_outcome o[SLOTS];
    fab_id id[SLOTS];
    uint64_t arg[SLOTS];
    pair_make(&t, 0);
    for (int round = 0; round < 50; round++) {
        for (uint32_t i = 0; i < SLOTS; i++) {
            arg[i] = i * 3;
            task[i] = task_of(&arg[i], 8);
            task[i].tag = i;
        }
        cr_assert_eq(fab_submit(t.p, task, SLOTS, id, 0), SLOTS);
        uint32_t n = 0;
        while (n < SLOTS) {
            long k = fab_claim(t.w, 0, l + n, 7, 0);
            cr_assert(k >= 1 && k <= 7, "%ld", k);
            n += (uint32_t)k;
        }
        for (uint32_t i = 0; i < SLOTS; i++) {
            cr_assert_eq(l[i].small[0], i * 3);
            complete(t.w, &l[i], &arg[i], 8);
        }
        for (n = 0; n < SLOTS;) {
            long k = fab_wait_any(t.p, o + n, SLOTS - n, 0);
            cr_assert_gt(k, 0);
            n += (uint32_t)k;
        }
        for (uint32_t i = 0; i < SLOTS; i++) {
            cr_assert_eq(o[i].tag, i, "finished in order, found in order");
            cr_assert_eq(o[i].id, id[i]);
            cr_assert_eq(o[i].small, i * 3);
        }
    }
    pair_end(&t);
}

/* One task at a time takes the short cut past the ring: a task that came before must not be
 * overtaken. */
Test(local, the_short_cut_overtakes_nobody)
{
    struct pair t;
    uint64_t n = 0;
    pair_make(&t, 0);
    fab_t *other = unit_handle(&t.s, "other", 0);
    for (int round = 0; round < 200; round++) {
        fab_id id[4];
        struct fab_task task = task_of(&n, 8);
        for (int i = 0; i < 1 + round % 4; i++, n++)
            id[i] = submit(t.p, &task);
        uint64_t elsewhere = 1u << 30;
        struct fab_task more = task_of(&elsewhere, 8);
        fab_id other_id = submit(other, &more);
        uint64_t want = n - 1 - (uint64_t)(round % 4);
        for (int i = 0; i < 2 + round % 4; i++) {
            struct fab_lease l;
            cr_assert_eq(fab_claim(t.w, 0, &l, 1, UNIT_SECOND), 1);
            if (l.small[0] != elsewhere)
                cr_assert_eq(l.small[0], want++, "round %d", round);
            complete(t.w, &l, NULL, 0);
        }
        for (int i = 0; i < 1 + round % 4; i++)
            (void)outcome(t.p, id[i]);
        (void)outcome(other, other_id);
    }
    fab_close(other);
    pair_end(&t);
}

/* ---- queues ---- */

Test(local, queues_are_found_by_name_and_kept_apart)
{
    struct pair t;
    uint32_t q = 99;
    uint64_t arg = 5;
    struct fab_lease l;
    pair_make(&t, 0);
    cr_assert_eq(fab_queue(t.p, "second", &q), 0);
    cr_assert_eq(q, 1);
    cr_assert_eq(fab_queue(t.p, "default", &q), 0);
    cr_assert_eq(q, 0);
    cr_assert_eq(fab_queue(t.p, "third", &q), -ENOENT);
    cr_assert(strstr(fab_errmsg(), "default, second"), "%s", fab_errmsg());
    struct fab_task task = task_of(&arg, 8);
    task.queue = 1;
    fab_id id = submit(t.p, &task);
    cr_assert_eq(fab_claim(t.w, 0, &l, 1, 0), -EAGAIN);
    cr_assert_eq(fab_claim(t.w, 2, &l, 1, 0), -EINVAL);
    l = claim(t.w, 1);
    complete(t.w, &l, NULL, 0);
    (void)outcome(t.p, id);
    pair_end(&t);
}

/* ---- ends of a lease ---- */

static void fail_with(struct pair *t, uint32_t arg_len, const char *message, const char *kept)
{
    uint8_t arg[300] = {0};
    struct fab_task task = task_of(arg, arg_len);
    fab_id id = submit(t->p, &task);
    struct fab_lease l = claim(t->w, 0);
    cr_assert_eq(fab_fail(t->w, &l, message), 0);
    struct fab_outcome o = outcome(t->p, id);
    cr_assert_eq(o.status, FAB_FAILED);
    cr_assert_eq(o.len, strlen(kept));
    cr_assert_arr_eq(fab_data(&o), kept, o.len);
}

Test(local, a_failure_brings_its_sentence)
{
    struct pair t;
    char text[400], kept[256];
    pair_make(&t, MIB);
    memset(text, 'x', sizeof text);
    text[399] = 0;
    memset(kept, 'x', sizeof kept);
    kept[255] = 0;
    static const uint32_t lens[] = {8, 40, 300};
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        fail_with(&t, lens[i], "", "");
        fail_with(&t, lens[i], "no", "no");
        fail_with(&t, lens[i], "feb: -1 is under the limit of 0",
                  "feb: -1 is under the limit of 0");
        fail_with(&t, lens[i], text, kept);
    }
    pair_end(&t);
}

Test(local, without_an_arena_a_failure_brings_a_word)
{
    struct pair t;
    pair_make(&t, 0);
    fail_with(&t, 8, "the kernel was not amused", "the kernel was not amused");
    fail_with(&t, 40, "overflow in the kernel", "overflow");
    pair_end(&t);
}

Test(local, a_released_task_is_claimed_again)
{
    struct pair t;
    uint8_t arg[500];
    pair_make(&t, MIB);
    unit_fill(arg, sizeof arg, 9);
    static const uint32_t lens[] = {8, 40, 500};
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        struct fab_task task = task_of(arg, lens[i]);
        fab_id id = submit(t.p, &task);
        struct fab_lease l = claim(t.w, 0), old = l;
        cr_assert_eq(fab_release(t.w, &l), 0);
        cr_assert_eq(fab_release(t.w, &old), -ESTALE);
        l = claim(t.w, 0);
        cr_assert_eq(l.attempt, 2);
        cr_assert(unit_filled(fab_arg(&l), lens[i], 9));
        cr_assert_eq(fab_complete(t.w, &old, "late", 4), -ESTALE, "the first lease is over");
        cr_assert_eq(fab_release(t.w, &old), -ESTALE);
        complete(t.w, &l, "good", 4);
        cr_assert_eq(fab_complete(t.w, &l, "late", 4), -ESTALE);
        cr_assert_eq(fab_fail(t.w, &l, "late"), -ESTALE);
        struct fab_outcome o = outcome(t.p, id);
        cr_assert_eq(o.attempts, 2);
        cr_assert_arr_eq(fab_data(&o), "good", 4);
    }
    pair_end(&t);
}

Test(local, somebody_elses_lease_is_refused)
{
    struct pair t;
    uint64_t arg = 1;
    pair_make(&t, 0);
    fab_t *other = unit_handle(&t.s, "other", 0);
    struct fab_task task = task_of(&arg, 8);
    fab_id id = submit(t.p, &task);
    struct fab_lease l = claim(t.w, 0), bad = l;
    cr_assert_lt(fab_complete(other, &l, NULL, 0), 0);
    cr_assert_lt(fab_release(other, &l), 0);
    bad.ref[0] = SLOTS;
    cr_assert_eq(fab_complete(t.w, &bad, NULL, 0), -EINVAL);
    cr_assert_eq(fab_release(t.w, &bad), -EINVAL);
    bad.ref[0] = UINT64_MAX;
    cr_assert_eq(fab_complete(t.w, &bad, NULL, 0), -EINVAL);
    memset(&bad, 0, sizeof bad);
    cr_assert_lt(fab_complete(t.w, &bad, NULL, 0), 0);
    cr_assert_lt(fab_release(t.w, &bad), 0);
    complete(t.w, &l, NULL, 0);
    cr_assert_eq(outcome(t.p, id).status, FAB_COMPLETED);
    fab_close(other);
    pair_end(&t);
}

Test(local, a_result_without_room_leaves_the_lease)
{
    struct pair t;
    static uint8_t big[4 * MIB];
    pair_make(&t, MIB);
    struct fab_task task = task_of(big, 700000);
    fab_id id = submit(t.p, &task);
    struct fab_lease l = claim(t.w, 0);
    cr_assert_eq(fab_complete(t.w, &l, big, 4 * MIB), -EMSGSIZE);
    cr_assert_eq(fab_complete(t.w, &l, big, 700000), -ENOSPC, "the argument still fills it");
    cr_assert_eq(fab_complete(t.w, &l, big, FAB_ARG_MAX + 1u), -EMSGSIZE);
    complete(t.w, &l, "small", 5);
    struct fab_outcome o = outcome(t.p, id);
    cr_assert_eq(o.status, FAB_COMPLETED);
    cr_assert_eq(o.len, 5);
    pair_end(&t);
}

/* ---- cancel ---- */

Test(local, a_task_that_waits_can_be_withdrawn)
{
    struct pair t;
    struct fab_lease l;
    uint8_t arg[70000];
    pair_make(&t, MIB);
    static const uint32_t lens[] = {8, 40, 500, 70000};
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        struct fab_task task = task_of(arg, lens[i]);
        fab_id id = submit(t.p, &task);
        cr_assert_eq(fab_cancel(t.p, id), 0);
        cr_assert_eq(fab_cancel(t.p, id), -EBUSY, "no longer waiting");
        cr_assert_eq(fab_claim(t.w, 0, &l, 1, 0), -EAGAIN);
        struct fab_outcome o = outcome(t.p, id);
        cr_assert_eq(o.status, FAB_CANCELLED);
        cr_assert_eq(o.len, 0);
        cr_assert_eq(o.attempts, 0);
        cr_assert_eq(fab_cancel(t.p, id), -ENOENT);
    }
    pair_end(&t);
}

Test(local, a_started_task_can_only_be_stopped)
{
    struct pair t;
    uint64_t arg = 3;
    pair_make(&t, 0);
    struct fab_task task = task_of(&arg, 8);
    fab_id id = submit(t.p, &task);
    struct fab_lease l = claim(t.w, 0);
    cr_assert_eq(fab_withdraw(t.p, id), -EBUSY);
    cr_assert_eq(fab_cancelled(t.w, &l), 0);
    cr_assert_eq(fab_cancel(t.p, id), 0);
    cr_assert_eq(fab_cancelled(t.w, &l), 1);
    complete(t.w, &l, &arg, 8); /* a result that comes first wins */
    cr_assert_eq(fab_cancel(t.p, id), -EBUSY);
    cr_assert_eq(outcome(t.p, id).status, FAB_COMPLETED);
    cr_assert_eq(fab_cancel(t.p, 0), -ENOENT);
    cr_assert_eq(fab_cancel(t.p, UINT64_MAX), -ENOENT);
    pair_end(&t);
}

/* ---- tasks without a waiter ---- */

Test(local, a_task_without_waiter_leaves_nothing)
{
    struct pair t;
    static uint8_t arg[100000];
    struct fab_outcome o;
    pair_make(&t, MIB);
    static const uint32_t lens[] = {0, 8, 40, 500, 100000};
    for (uint32_t round = 0; round < 10 * SLOTS; round++) {
        struct fab_task task = task_of(arg, lens[round % 5]);
        task.flags = FAB_NO_WAIT;
        cr_assert_eq(fab_submit(t.p, &task, 1, NULL, 0), 1, "round %u: %s", round, fab_errmsg());
        cr_assert_eq(fab_outstanding(t.p), 0);
        struct fab_lease l = claim(t.w, 0);
        if (round % 3)
            complete(t.w, &l, arg, lens[(round + 2) % 5]);
        else
            cr_assert_eq(fab_fail(t.w, &l, "nobody reads this sentence"), 0);
        cr_assert_eq(fab_complete(t.w, &l, NULL, 0), -ESTALE);
        cr_assert_eq(arena_bytes_free(&t.s), t.s.arena_bytes);
    }
    cr_assert_eq(fab_wait_any(t.p, &o, 1, 0), -ENOENT);
    pair_end(&t);
}

/* ---- side by side ---- */

struct side {
    fab_t *f;
    uint32_t tasks;
    _Atomic uint32_t *errors, *left;
};

static void *side_worker(void *arg)
{
    struct side *x = arg;
    fab_t *f = x->f;
    struct fab_lease l[16];
    uint64_t seed = 7;
    while (at_load(x->left) > 0) {
        long n = fab_claim(f, 0, l, unit_random(&seed) % 16 + 1, UNIT_SECOND / 100);
        for (long i = 0; i < n; i++) {
            uint64_t res = l[i].small[0] + 1;
            if (unit_random(&seed) % 50 == 0) {
                if (fab_release(f, &l[i]) < 0)
                    at_add(x->errors, 1);
            } else if (fab_complete(f, &l[i], &res, 8) < 0) {
                at_add(x->errors, 1);
            }
        }
    }
    return NULL;
}

static void *side_producer(void *arg)
{
    struct side *x = arg;
    fab_t *f = x->f;
    uint8_t *seen = calloc(x->tasks, 1);
    uint32_t next = 0, done = 0;
    while (done < x->tasks) {
        struct fab_task task[8];
        uint64_t arg8[8];
        fab_id id[8];
        uint32_t k = 0;
        for (; k < 8 && next + k < x->tasks; k++) {
            arg8[k] = (uint64_t)(next + k) * 3;
            task[k] = task_of(&arg8[k], 8);
            task[k].tag = next + k;
        }
        long n = k && fab_outstanding(f) < 100 ? fab_submit(f, task, k, id, 0) : 0;
        next += n > 0 ? (uint32_t)n : 0;
        struct fab_outcome o[16];
        n = fab_outstanding(f) ? fab_wait_any(f, o, 16, n > 0 ? 0 : UNIT_SECOND) : 0;
        for (long i = 0; i < n; i++) {
            if (o[i].status != FAB_COMPLETED || o[i].tag >= x->tasks || seen[o[i].tag]++ ||
                o[i].small != o[i].tag * 3 + 1)
                at_add(x->errors, 1);
            done++;
        }
    }
    at_sub(x->left, 1);
    free(seen);
    return NULL;
}

Test(local, every_task_has_one_outcome, .timeout = 50)
{
    struct segment s;
    static _Atomic uint32_t errors, left = 2;
    struct side x[4];
    pthread_t thread[4];
    unit_segment(&s, 256, 8, 0, 1);
    for (int i = 0; i < 4; i++)
        x[i] = (struct side){unit_handle(&s, "side", 0), 60000, &errors, &left};
    for (int i = 0; i < 4; i++) {
        void *(*run)(void *) = i < 2 ? side_producer : side_worker;
        cr_assert_eq(pthread_create(&thread[i], NULL, run, &x[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    cr_assert_eq(at_load(&errors), 0);
    cr_assert_eq(unit_slots_in(&s, SLOT_READY) + unit_slots_in(&s, SLOT_LEASED), 0);
    cr_assert_eq(at_load(&s.head->net_catches), 0);
    cr_assert_eq(at_load(&s.head->late_results), 0);
    for (int i = 0; i < 4; i++)
        fab_close(x[i].f);
    segment_unmap(&s);
}
