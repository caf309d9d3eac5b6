/* SPDX-License-Identifier: MIT
 *
 * waits.c - a full fabric, shares of it, time-outs, and what ends a wait before its time: a
 * producer's leaving, a worker's death, fabricd's end.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include "tests/conform/conform.h"

Test(conform, a_full_fabric_says_so_waits_and_goes_on, .timeout = 30)
{
    fabric_begin("[segment]\nslots = 64\nparticipants = 8\n");
    fab_t *f = open_as(FAB_PRODUCER, address);
    struct fab_task t = task("echo", "abc", 3);
    long accepted = 0, n;
    while ((n = fab_submit(f, &t, 1, NULL, 0)) == 1)
        accepted++;
    cr_assert_eq(n, -EAGAIN, "%ld %s", n, fab_errmsg());
    cr_assert(accepted >= 16 && accepted <= 64, "%ld accepted", accepted);
    uint64_t start = clock_ns();
    cr_assert_eq(fab_submit(f, &t, 1, NULL, SECOND / 10), -ETIMEDOUT);
    int64_t took = (int64_t)(clock_ns() - start);
    cr_assert(took >= SECOND / 10 && took < 2 * SECOND, "waited %lld ns", (long long)took);
    pid_t w = worker(false, 4);
    for (long got = 0; got < accepted;) {
        struct fab_outcome o[16];
        n = fab_wait_any(f, o, 16, 5 * SECOND);
        cr_assert_gt(n, 0, "%s", fab_errmsg());
        got += n;
    }
    cr_assert_eq(fab_submit(f, &t, 1, NULL, SECOND), 1, "%s", fab_errmsg());
    struct fab_outcome o;
    cr_assert_eq(fab_wait_any(f, &o, 1, 5 * SECOND), 1);
    fab_close(f);
    worker_stop(w);
    fabric_end();
}

Test(conform, waits_end_at_their_time, .timeout = 30)
{
    fabric_begin("");
    fab_t *f = open_as(FAB_PRODUCER | FAB_WORKER, address);
    struct fab_task t = task("echo", "abc", 3);
    struct fab_outcome o;
    struct fab_lease l;
    fab_id id;
    cr_assert_eq(fab_claim(f, 0, &l, 1, 0), -EAGAIN);
    uint64_t start = clock_ns();
    cr_assert_eq(fab_claim(f, 0, &l, 1, SECOND / 20), -ETIMEDOUT);
    int64_t took = (int64_t)(clock_ns() - start);
    cr_assert(took >= SECOND / 20 && took < 3 * SECOND / 2, "claim waited %lld ns",
              (long long)took);
    cr_assert_eq(fab_wait_any(f, &o, 1, 0), -ENOENT);
    fab_t *p = open_as(FAB_PRODUCER, address);
    t.queue = 0;
    cr_assert_eq(fab_submit(p, &t, 1, &id, SECOND), 1);
    cr_assert_eq(fab_wait(p, id + (1ull << 32), &o, 0), -ENOENT);
    start = clock_ns();
    int rc = fab_wait(p, id, &o, SECOND / 20);
    took = (int64_t)(clock_ns() - start);
    /* over a link the claim above may have left a wish for leases, and the task lies with f */
    cr_assert_eq(rc, -ETIMEDOUT, "%d", rc);
    cr_assert(took >= SECOND / 20 && took < 3 * SECOND / 2, "wait waited %lld ns", (long long)took);
    fab_close(f); /* it gives the task back, if it had it */
    pid_t w = worker(false, 1);
    cr_assert_eq(fab_wait(p, id, &o, 5 * SECOND), 0, "%s", fab_errmsg());
    worker_stop(w);
    fab_close(p);
    fabric_end();
}

/* One holds all that it gets: outcomes it doesn't take, then tasks nobody waits for. The other
 * works beside it. */
Test(conform, a_producer_that_takes_nothing_leaves_the_others_their_part, .timeout = 60)
{
    fabric_begin("[segment]\nslots = 128\nparticipants = 16\n");
    pid_t w = worker(false, 4);
    for (uint16_t flags = 0; flags <= FAB_NO_WAIT; flags += FAB_NO_WAIT) {
        fab_t *hog = open_as(FAB_PRODUCER, address), *f = open_as(FAB_PRODUCER, address);
        uint64_t ns = flags ? 200000 : 1000;
        struct fab_task t = task("sleep", &ns, 8);
        struct fab_outcome o;
        fab_id id;
        t.flags = flags;
        while (fab_submit(hog, &t, 1, &id, 0) == 1)
            ;
        for (int i = 0; i < 100; i++) {
            struct fab_task mine = task("feb", &(int64_t){48}, 8);
            mine.priority = 0;
            cr_assert_eq(fab_submit(f, &mine, 1, &id, SECOND), 1, "%d: %s", i, fab_errmsg());
            cr_assert_eq(fab_wait(f, id, &o, 5 * SECOND), 0, "%d: %s", i, fab_errmsg());
            cr_assert_eq(o.small, 106373551);
            (void)!fab_submit(hog, &t, 1, &id, 0);
        }
        fab_close(f);
        fab_close(hog);
        await_empty();
    }
    worker_stop(w);
    fabric_end();
}

Test(conform, a_producer_that_leaves_holds_nothing, .timeout = 30)
{
    fabric_begin("[segment]\nslots = 256\nparticipants = 16\n");
    char text[9] = "leaving";
    for (int i = 0; i < 50; i++) {
        fab_t *f = open_as(FAB_PRODUCER, address);
        struct fab_task t[4] = {task("echo", text, 8), task("echo", text, 1), task("echo", text, 8),
                                task("echo", text, 8)};
        cr_assert_eq(fab_submit(f, t, 4, NULL, SECOND), 4, "round %d: %s", i, fab_errmsg());
        fab_close(f);
    }
    /* the tasks go on without a waiter */
    pid_t w = worker(false, 16);
    await_empty();
    worker_stop(w);
    fabric_end();
}

Test(conform, a_killed_workers_task_is_finished_by_another, .timeout = 30)
{
    fabric_begin("");
    pid_t first = worker(false, 1);
    fab_t *f = open_as(FAB_PRODUCER, address);
    uint64_t ns = (uint64_t)SECOND;
    struct fab_task t = task("sleep", &ns, 8);
    struct fab_outcome o;
    fab_id id;
    await_workers(1);
    cr_assert_eq(fab_submit(f, &t, 1, &id, SECOND), 1);
    cr_assert_eq(fab_wait(f, id, &o, SECOND / 5), -ETIMEDOUT); /* it is being run */
    pid_t second = worker(false, 1);
    await_workers(2);
    cr_assert_eq(fab_wait(f, id, &o, SECOND / 20), -ETIMEDOUT);
    uint64_t killed = clock_ns();
    worker_stop(first);
    cr_assert_eq(fab_wait(f, id, &o, 10 * SECOND), 0, "%s", fab_errmsg());
    uint64_t took = clock_ns() - killed;
    cr_assert_eq(o.status, FAB_COMPLETED);
    cr_assert_eq(o.attempts, 2);
    /* all of it again, and no time-out (12 s at least) in between; how many milliseconds it takes,
     * kill-latency measures */
    cr_assert(took >= ns && took < ns + (uint64_t)(4 * SECOND), "%llu ns after the kill",
              (unsigned long long)took);
    fab_close(f);
    worker_stop(second);
    fabric_end();
}

Test(conform, a_fabric_that_ends_is_noticed, .timeout = 30)
{
    fabric_begin("");
    fab_t *f = open_as(FAB_PRODUCER, address);
    fab_t *w = open_as(FAB_WORKER, address);
    struct fab_lease l;
    kill(fx.pid, SIGTERM);
    long rc = fab_claim(w, 0, &l, 1, 5 * SECOND);
    cr_assert_eq(rc, -EPIPE, "%ld: %s", rc, fab_errmsg());
    struct fab_task t = task("echo", "abc", 3);
    rc = fab_submit(f, &t, 1, NULL, SECOND);
    /* over a link the end may not have been noticed yet: then the outcome tells */
    struct fab_outcome o;
    if (rc == 1 && address == fx.remote && fab_wait_any(f, &o, 1, 5 * SECOND) == 1)
        rc = o.status == FAB_LOST ? -EPIPE : 1;
    cr_assert_eq(rc, -EPIPE, "%ld: %s", rc, fab_errmsg());
    fab_close(f);
    fab_close(w);
    fabric_end();
}
