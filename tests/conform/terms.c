/* SPDX-License-Identifier: MIT
 *
 * terms.c - not before, not after, not longer than, again after an error, not after so many
 * crashes; and of the tasks with a key one alone.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "tests/conform/conform.h"

Test(conform, a_task_is_not_started_before_its_time, .timeout = 30)
{
    fabric_begin("");
    pid_t w = worker(false, 8);
    fab_t *f = open_as(FAB_PRODUCER, address);
    struct fab_terms terms = {.delay_ns = 300000000};
    uint64_t start = clock_ns();
    struct fab_outcome o = run_with(f, "feb", 48, &terms);
    uint64_t took = clock_ns() - start;
    cr_assert_eq(o.status, FAB_COMPLETED);
    cr_assert_eq(o.small, 106373551);
    cr_assert(took >= 300000000, "%llu ns", (unsigned long long)took);
    /* the ones behind it are not held up, and it can be withdrawn */
    struct fab_task t = task("feb", &(int64_t){48}, 8);
    fab_id id;
    t.terms = &(struct fab_terms){.delay_ns = 20ull * SECOND};
    cr_assert_eq(fab_submit(f, &t, 1, &id, SECOND), 1);
    cr_assert_eq(run_with(f, "feb", 48, NULL).small, 106373551);
    cr_assert_eq(fab_cancel(f, id), 0, "%s", fab_errmsg());
    cr_assert_eq(fab_wait(f, id, &o, 5 * SECOND), 0, "%s", fab_errmsg());
    cr_assert_eq(o.status, FAB_CANCELLED);
    fab_close(f);
    worker_stop(w);
    fabric_end();
}

Test(conform, a_task_nobody_starts_in_time_expires, .timeout = 30)
{
    fabric_begin("");
    fab_t *f = open_as(FAB_PRODUCER, address);
    struct fab_terms terms = {.expire_ns = 100000000};
    struct fab_outcome o = run_with(f, "feb", 48, &terms);
    cr_assert_eq(o.status, FAB_EXPIRED);
    cr_assert_eq(o.attempts, 0);
    pid_t w = worker(false, 8); /* nothing is left for it */
    terms.expire_ns = 20ull * SECOND;
    cr_assert_eq(run_with(f, "feb", 48, &terms).status, FAB_COMPLETED);
    await_empty();
    fab_close(f);
    worker_stop(w);
    fabric_end();
}

Test(conform, an_attempt_over_its_limit_ends_its_task, .timeout = 30)
{
    fabric_begin("[segment]\nslots = 64\nparticipants = 8\n");
    pid_t w = worker(false, 1);
    fab_t *f = open_as(FAB_PRODUCER, address);
    struct fab_terms terms = {.limit_ns = (uint64_t)(SECOND / 20)};
    uint64_t start = clock_ns();
    struct fab_outcome o = run_with(f, "sleep", 6 * SECOND / 10, &terms);
    uint64_t took = clock_ns() - start;
    cr_assert_eq(o.status, FAB_OVERRUN);
    cr_assert(o.len > 20 && strstr(fab_data(&o), "limit"));
    cr_assert(took < (uint64_t)(6 * SECOND / 10), "told after %llu ns", (unsigned long long)took);
    /* the worker comes back, its result is dropped, and the slot is used again */
    for (int i = 0; i < 200; i++)
        cr_assert_eq(run_with(f, "feb", 48, i % 2 ? &terms : NULL).small, 106373551);
    await_empty();
    fab_close(f);
    worker_stop(w);
    fabric_end();
}

Test(conform, an_error_is_tried_again_as_often_as_asked, .timeout = 30)
{
    fabric_begin("");
    pid_t w = worker(false, 1);
    fab_t *f = open_as(FAB_PRODUCER, address);
    struct fab_terms terms = {.retries = 3};
    struct fab_outcome o = run_with(f, "feb", 5000000, &terms); /* over feb's limit: an error */
    cr_assert_eq(o.status, FAB_FAILED);
    cr_assert_eq(o.attempts, 4);
    terms.backoff_ns = 40000000;
    uint64_t start = clock_ns();
    o = run_with(f, "feb", 5000000, &terms);
    uint64_t took = clock_ns() - start;
    cr_assert_eq(o.status, FAB_FAILED);
    cr_assert_eq(o.attempts, 4);
    /* 40 + 80 + 160 ms, each a quarter more or less */
    cr_assert(took >= 210000000, "%llu ns", (unsigned long long)took);
    cr_assert_eq(run_with(f, "feb", 5000000, NULL).attempts, 1);
    fab_close(f);
    worker_stop(w);
    fabric_end();
}

Test(conform, a_kernels_crash_counts_as_its_workers_death, .timeout = 30)
{
    fabric_begin("");
    pid_t w = worker(false, 1);
    fab_t *f = open_as(FAB_PRODUCER, address);
    for (uint32_t n = 0; n < 4; n++) {
        struct fab_terms terms = {.crashes = n, .backoff_ns = n == 3 ? 10000000 : 0};
        struct fab_outcome o = run_with(f, "crash", 1, n ? &terms : NULL);
        uint32_t budget = n ? n : 3;
        char times[16];
        snprintf(times, sizeof times, "(%u time", budget);
        cr_assert_eq(o.status, FAB_DEAD);
        cr_assert_eq(o.attempts, budget);
        cr_assert(memmem(fab_data(&o), o.len, "died of a test", 14), "%u bytes", o.len);
        cr_assert(memmem(fab_data(&o), o.len, times, strlen(times)));
    }
    struct fab_terms limit = {.limit_ns = 20ull * SECOND};
    struct fab_outcome o = run_with(f, "overrun", 1, &limit);
    cr_assert_eq(o.status, FAB_OVERRUN);
    cr_assert_eq(run_with(f, "feb", 48, &limit).small, 106373551);
    await_empty();
    fab_close(f);
    worker_stop(w);
    fabric_end();
}

Test(conform, terms_that_make_no_sense_are_refused, .timeout = 30)
{
    fabric_begin("");
    fab_t *f = open_as(FAB_PRODUCER, address);
    struct fab_terms bad[] = {
        {.delay_ns = SECOND, .expire_ns = SECOND}, {.limit_ns = UINT64_MAX}, {.crashes = 256}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct fab_task t = task("feb", &(int64_t){1}, 8);
        fab_id id;
        t.terms = &bad[i];
        cr_assert_eq(fab_submit(f, &t, 1, &id, SECOND), -EINVAL);
    }
    fab_close(f);
    fabric_end();
}

/* ---- keys ---- */

Test(conform, of_the_tasks_with_a_key_one_is_run_in_its_window, .timeout = 30)
{
    fabric_begin("");
    pid_t w = worker(false, 8);
    fab_t *f[2] = {open_as(FAB_PRODUCER, address), open_as(FAB_PRODUCER, address)};
    struct fab_terms terms = {.key = fab_key("price-1"), .dedup_ns = (uint64_t)(20 * SECOND)};
    struct fab_outcome o;
    int completed = 0, duplicates = 0;
    for (int i = 0; i < 20; i++) {
        o = run_with(f[i % 2], "feb", 48, &terms);
        completed += o.status == FAB_COMPLETED && o.small == 106373551;
        duplicates += o.status == FAB_DUPLICATE && o.attempts == 0 && o.len == 0;
    }
    cr_assert(completed == 1 && duplicates == 19, "%d run, %d duplicates", completed, duplicates);
    /* several at once, nobody waits for some: one outcome for each that is waited for */
    struct fab_terms other = {.key = fab_key("price-2"), .dedup_ns = (uint64_t)(20 * SECOND)};
    struct fab_task t[8];
    int64_t arg = 48;
    for (int i = 0; i < 8; i++) {
        t[i] = task("feb", &arg, 8);
        t[i].terms = &other;
        t[i].flags = i % 2 ? FAB_NO_WAIT : 0;
    }
    for (size_t at = 0; at < 8;) {
        fab_id id[8];
        long n = fab_submit(f[0], t + at, 8 - at, id, SECOND);
        cr_assert_gt(n, 0, "%s", fab_errmsg());
        at += (size_t)n;
    }
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(fab_wait_any(f[0], &o, 1, 5 * SECOND), 1, "%s", fab_errmsg());
        completed += o.status == FAB_COMPLETED;
        duplicates += o.status == FAB_DUPLICATE;
    }
    cr_assert(completed == 2 && duplicates == 22, "%d run, %d duplicates", completed, duplicates);
    cr_assert_eq(fab_wait_any(f[0], &o, 1, 0), -ENOENT);
    /* the window ends */
    terms = (struct fab_terms){.key = 3, .dedup_ns = 300000000};
    cr_assert_eq(run_with(f[0], "feb", 48, &terms).status, FAB_COMPLETED);
    uint64_t start = clock_ns();
    while (run_with(f[1], "feb", 48, &terms).status == FAB_DUPLICATE)
        ;
    uint64_t took = clock_ns() - start;
    cr_assert(took < 300000000 + (uint64_t)SECOND, "%llu ns", (unsigned long long)took);
    fab_close(f[0]);
    fab_close(f[1]);
    worker_stop(w);
    fabric_end();
}

Test(conform, a_key_is_given_back_by_a_task_that_was_never_started, .timeout = 30)
{
    fabric_begin("");
    fab_t *f = open_as(FAB_PRODUCER, address);
    struct fab_terms terms = {.key = 7, .dedup_ns = (uint64_t)(20 * SECOND), .expire_ns = 50000000};
    cr_assert_eq(run_with(f, "feb", 48, &terms).status, FAB_EXPIRED);
    terms.expire_ns = 0;
    struct fab_task t = task("feb", &(int64_t){48}, 8);
    struct fab_outcome o;
    fab_id id;
    t.terms = &terms;
    cr_assert_eq(fab_submit(f, &t, 1, &id, SECOND), 1);
    cr_assert_eq(fab_cancel(f, id), 0);
    cr_assert_eq(fab_wait(f, id, &o, 5 * SECOND), 0);
    cr_assert_eq(o.status, FAB_CANCELLED);
    pid_t w = worker(false, 8);
    cr_assert_eq(run_with(f, "feb", 48, &terms).status, FAB_COMPLETED);
    cr_assert_eq(run_with(f, "feb", 48, &terms).status, FAB_DUPLICATE);
    fab_close(f);
    worker_stop(w);
    fabric_end();
}
