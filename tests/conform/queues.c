/* SPDX-License-Identifier: MIT
 *
 * queues.c - queues that are paused, drained and set going again, over any handle.
 */
#include <errno.h>
#include <string.h>
#include "tests/conform/conform.h"

static const int64_t forty_eight = 48;

static void queue_to(fab_t *f, enum fab_queue_state state)
{
    cr_assert_eq(fab_queue_set(f, 0, state, SECOND), 0, "%s", fab_errmsg());
    cr_assert_eq(queue_info(f).state, state);
}

Test(conform, a_paused_queue_takes_tasks_and_starts_none, .timeout = 30)
{
    fabric_begin("");
    pid_t w = worker(false, 8);
    fab_t *f = open_as(FAB_PRODUCER, address);
    fab_t *tool = open_as(FAB_TOOL, address); /* over a link: without lanes */
    struct fab_task t = task("feb", &(int64_t){48}, 8);
    struct fab_outcome o;
    fab_id id[20];
    t.arg = &(uint64_t){(uint64_t)SECOND / 4};
    t.kernel = fab_kernel_id("sleep");
    cr_assert_eq(fab_submit(f, &t, 1, id, SECOND), 1);
    cr_assert_eq(fab_flush(f), 0);
    await_depth(tool, 0, 1);
    queue_to(tool, FAB_QUEUE_PAUSED);
    cr_assert_eq(fab_wait(f, id[0], &o, 10 * SECOND), 0); /* what was started goes on */
    cr_assert_eq(o.status, FAB_COMPLETED);
    t = task("feb", &(int64_t){48}, 8);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(fab_submit(f, &t, 1, &id[i], SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(fab_wait_any(f, &o, 1, SECOND / 5), -ETIMEDOUT);
    await_depth(f, 20, 0); /* any handle may ask */
    uint64_t start = clock_ns();
    queue_to(f, FAB_QUEUE_RUNNING);
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(fab_wait(f, id[i], &o, 10 * SECOND), 0, "%s", fab_errmsg());
        cr_assert_eq(o.small, 106373551);
    }
    cr_assert(clock_ns() - start < (uint64_t)SECOND / 2, "%llu ns after it was resumed",
              (unsigned long long)(clock_ns() - start));
    fab_close(tool);
    fab_close(f);
    worker_stop(w);
    fabric_end();
}

Test(conform, a_draining_queue_refuses_tasks_and_runs_the_rest, .timeout = 30)
{
    fabric_begin("");
    fab_t *f = open_as(FAB_PRODUCER, address);
    struct fab_task t = task("feb", &(int64_t){48}, 8);
    struct fab_outcome o;
    fab_id id, refused;
    cr_assert_eq(fab_submit(f, &t, 1, &id, SECOND), 1);
    cr_assert_eq(fab_flush(f), 0);
    await_depth(f, 1, 0);
    queue_to(f, FAB_QUEUE_DRAINING);
    long rc = fab_submit(f, &t, 1, &refused, SECOND);
    if (address == fx.local) {
        cr_assert_eq(rc, -ESHUTDOWN, "%ld", rc);
        cr_assert(strstr(fab_errmsg(), "draining"));
    } else { /* the daemon refuses it, and the outcome tells */
        cr_assert_eq(rc, 1);
        cr_assert_eq(fab_wait(f, refused, &o, 5 * SECOND), 0, "%s", fab_errmsg());
        cr_assert_eq(o.status, FAB_FAILED);
        cr_assert(memmem(fab_data(&o), o.len, "draining", 8));
    }
    pid_t w = worker(false, 8);
    cr_assert_eq(fab_wait(f, id, &o, 10 * SECOND), 0, "%s", fab_errmsg());
    cr_assert_eq(o.small, 106373551);
    await_depth(f, 0, 0);
    queue_to(f, FAB_QUEUE_RUNNING);
    cr_assert_eq(fab_submit(f, &t, 1, &id, SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(fab_wait(f, id, &o, 10 * SECOND), 0, "%s", fab_errmsg());
    cr_assert_eq(o.small, 106373551);
    struct fab_queue_info i;
    cr_assert_eq(fab_queue_set(f, 63, FAB_QUEUE_PAUSED, SECOND), -EINVAL);
    cr_assert_eq(fab_queue_set(f, 0, (enum fab_queue_state)7, SECOND), -EINVAL);
    cr_assert_eq(fab_queue_info(f, 63, &i, SECOND), -EINVAL);
    cr_assert(strstr(fab_errmsg(), "queue 63"), "%s", fab_errmsg());
    fab_close(f);
    worker_stop(w);
    fabric_end();
}

/* What a handle has at hand of one queue is not what it gets when it claims from another, and does not
 * stay with it then. */
Test(conform, a_claim_gives_tasks_of_its_queue_alone, .timeout = 30)
{
    enum { EACH = 200 };
    fabric_begin("[[queue]]\nname = \"a\"\n[[queue]]\nname = \"b\"\n");
    fab_t *p = open_as(FAB_PRODUCER, fx.local), *w = open_as(FAB_WORKER, address);
    uint32_t queue[2];
    int had[2] = {0, 0};
    cr_assert_eq(fab_queue(w, "a", &queue[0]), 0);
    cr_assert_eq(fab_queue(w, "b", &queue[1]), 0);
    for (int i = 0; i < 2 * EACH; i++) {
        struct fab_task t = task("feb", &(int64_t){48}, 8);
        t.queue = (uint8_t)queue[i % 2];
        cr_assert_eq(fab_submit(p, &t, 1, NULL, SECOND), 1, "%s", fab_errmsg());
    }
    uint64_t start = clock_ns();
    for (int i = 0; had[0] + had[1] < 2 * EACH; i++) {
        struct fab_lease l[8];
        int q = had[i % 2] < EACH ? i % 2 : !(i % 2);
        long n = fab_claim(w, queue[q], l, 8, 5 * SECOND);
        cr_assert_gt(n, 0, "%s", fab_errmsg());
        for (long k = 0; k < n; k++) {
            cr_assert_eq(l[k].queue, queue[q]);
            cr_assert_eq(fab_complete(w, &l[k], &forty_eight, 8), 0, "%s", fab_errmsg());
        }
        had[q] += (int)n;
    }
    cr_assert(clock_ns() - start < (uint64_t)4 * SECOND, "the other queue's tasks went back at once");
    cr_assert_eq(fab_flush(w), 0);
    for (int i = 0; i < 2 * EACH; i++) {
        struct fab_outcome o;
        cr_assert_eq(fab_wait_any(p, &o, 1, 5 * SECOND), 1, "%s", fab_errmsg());
        cr_assert_eq(o.status, FAB_COMPLETED);
    }
    fab_close(w);
    fab_close(p);
    fabric_end();
}
