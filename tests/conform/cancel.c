/* SPDX-License-Identifier: MIT
 *
 * cancel.c - a task is withdrawn before it starts, or cancelled while it runs.
 */
#include <errno.h>
#include <string.h>
#include "tests/conform/conform.h"

Test(conform, a_task_not_started_can_be_withdrawn, .timeout = 30)
{
    fabric_begin("");
    fab_t *f = open_as(FAB_PRODUCER, address);
    struct fab_task t = task("echo", "abc", 3);
    fab_id id[10];
    for (int i = 0; i < 10; i++)
        cr_assert_eq(fab_submit(f, &t, 1, &id[i], SECOND), 1);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(fab_cancel(f, id[2 * i]), 0, "%s", fab_errmsg());
    struct fab_outcome o;
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(fab_wait(f, id[2 * i], &o, 5 * SECOND), 0, "%s", fab_errmsg());
        cr_assert_eq(o.status, FAB_CANCELLED);
    }
    pid_t w = worker(false, 4);
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(fab_wait(f, id[2 * i + 1], &o, 5 * SECOND), 0, "%s", fab_errmsg());
        cr_assert_eq(o.status, FAB_COMPLETED);
    }
    fab_close(f);
    worker_stop(w);
    fabric_end();
}

Test(conform, a_task_that_runs_can_be_cancelled, .timeout = 30)
{
    static const char *const kernels[] = {"sleep", "spin", "feb-naive"};
    fabric_begin("");
    pid_t w = worker(false, 1);
    fab_t *f = open_as(FAB_PRODUCER, address);
    await_workers(1);
    for (int i = 0; i < 6; i++) {
        uint64_t arg = i % 3 == 2 ? 55 : 60000000000ull; /* minutes, all of them */
        struct fab_terms terms = {.retries = 5};
        struct fab_task t = task(kernels[i % 3], &arg, 8);
        struct fab_outcome o;
        fab_id id;
        t.terms = i < 3 ? NULL : &terms;
        cr_assert_eq(fab_submit(f, &t, 1, &id, SECOND), 1);
        await_leased();
        cr_assert_eq(fab_wait(f, id, &o, SECOND / 20), -ETIMEDOUT); /* it is being run */
        int rc = fab_withdraw(f, id);
        cr_assert(rc == -EBUSY || (rc == 0 && address == fx.remote), "%d: %s", rc, fab_errmsg());
        cr_assert_eq(fab_wait(f, id, &o, SECOND / 10), -ETIMEDOUT, "%s was stopped by a withdrawal",
                     kernels[i % 3]);
        uint64_t asked = clock_ns();
        cr_assert_eq(fab_cancel(f, id), 0, "%s", fab_errmsg());
        cr_assert_eq(fab_wait(f, id, &o, 10 * SECOND), 0, "%s: %s", kernels[i % 3], fab_errmsg());
        cr_assert_eq(o.status, FAB_CANCELLED, "%s: %u", kernels[i % 3], o.status);
        cr_assert_eq(o.attempts, 1);
        cr_assert_lt(clock_ns() - asked, (uint64_t)SECOND, "%s", kernels[i % 3]);
    }
    struct fab_task t = task("feb", &(int64_t){48}, 8);
    struct fab_outcome o;
    cr_assert_eq(fab_submit(f, &t, 1, NULL, SECOND), 1);
    cr_assert_eq(fab_wait_any(f, &o, 1, 5 * SECOND), 1);
    cr_assert_eq(o.small, 106373551);
    await_empty();
    fab_close(f);
    worker_stop(w);
    fabric_end();
}
