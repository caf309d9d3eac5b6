/* SPDX-License-Identifier: MIT
 *
 * links.c - links that break, and client ids: what a producer has left when its link or its process
 * ended is there for the next handle with its id, and for nobody when its time is over.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "tests/conform/conform.h"

/* Shuts down the TCP connections of this process, as a router that forgets them would; returns how
 * many there were. */
static int cut_links(void)
{
    int n = 0;
    for (int fd = 3; fd < 1024; fd++) {
        struct sockaddr_storage a;
        socklen_t len = sizeof a;
        if (getpeername(fd, (struct sockaddr *)&a, &len) == 0 && a.ss_family == AF_INET)
            n += shutdown(fd, SHUT_RDWR) == 0;
    }
    return n;
}

static fab_t *open_client(const char *client)
{
    struct fab_options o = {
        .roles = FAB_PRODUCER, .key_file = fx.key, .name = "conform", .client = client};
    fab_t *f = NULL;
    int rc;
    /* fabricd may not have heard of its predecessor's death yet */
    for (uint64_t until = clock_ns() + (uint64_t)(5 * SECOND);
         (rc = fab_open(&f, address, &o)) == -EADDRINUSE && clock_ns() < until;)
        ;
    cr_assert_eq(rc, 0, "%s", fab_errmsg());
    return f;
}

static const int64_t forty_eight = 48;

static bool all_is_free(const char *json, long slots)
{
    const char *at = strstr(json, "\"slots_free\": ");
    return at && atol(at + 14) == slots && !strstr(json, "\"kept\": true");
}

/* Every slot free or in somebody's stock, no memory of the arena used. */
static void await_free(long slots)
{
    cr_assert(await_status(all_is_free, slots), "something is left");
}

Test(conform, a_link_that_is_cut_comes_back_with_its_tasks, .timeout = 60)
{
    fabric_begin("");
    pid_t w = worker(false, 16);
    fab_t *f = open_as(FAB_PRODUCER, address);
    static uint8_t answered[40000], large[20000];
    long sent = 0, got = 0, cuts = 0;
    memset(large, 7, sizeof large);
    while (got < (long)sizeof answered) {
        struct fab_task t[64];
        struct fab_outcome o[64];
        for (int i = 0; i < 64; i++) {
            bool big = (sent + i) % 997 == 5;
            t[i] = big ? task("echo", large, sizeof large) : task("feb", &forty_eight, 8);
            t[i].tag = (uint64_t)(sent + i);
        }
        long left = (long)sizeof answered - sent;
        if (left > 0) {
            long k = fab_submit(f, t, left < 64 ? (size_t)left : 64, NULL, 0);
            cr_assert(k > 0 || k == -EAGAIN, "%ld %s", k, fab_errmsg());
            sent += k > 0 ? k : 0;
        }
        long k = fab_wait_any(f, o, 64, left > 0 ? 0 : 10 * SECOND);
        cr_assert(k > 0 || k == -EAGAIN || k == -ENOENT, "%ld %s", k, fab_errmsg());
        for (long i = 0; i < k; i++, got++) {
            cr_assert_lt(o[i].tag, sizeof answered);
            cr_assert_eq(answered[o[i].tag]++, 0, "task %d is answered twice", (int)o[i].tag);
            cr_assert_eq(o[i].status, FAB_COMPLETED, "task %d: %u", (int)o[i].tag, o[i].status);
            if (o[i].tag % 997 == 5)
                cr_assert_eq(o[i].len, sizeof large);
            else
                cr_assert_eq(o[i].small, 106373551);
        }
        if (got / 4000 > cuts && got < (long)sizeof answered) {
            int n = cut_links();
            cr_assert(n > 0 || address == fx.local);
            cuts++;
        }
    }
    cr_assert_eq(fab_outstanding(f), 0);
    cr_assert_geq(cuts, 5);
    fab_close(f);
    worker_stop(w);
    fabric_end();
}

/* More than one lane's batch of them, results of several lengths among them. */
Test(conform, a_batch_is_completed_as_one, .timeout = 30)
{
    enum { N = 300 };
    static struct fab_lease l[N];
    static struct fab_result r[N];
    static uint8_t bytes[N];
    uint64_t n[N];
    fabric_begin("");
    fab_t *p = open_as(FAB_PRODUCER, fx.local), *w = open_as(FAB_WORKER, address);
    for (uint64_t i = 0; i < N; i++) {
        n[i] = i;
        bytes[i] = (uint8_t)(i * 7);
        struct fab_task t = task("feb", &n[i], 8);
        t.tag = i;
        cr_assert_eq(fab_submit(p, &t, 1, NULL, SECOND), 1, "%s", fab_errmsg());
    }
    for (long had = 0; had < N;) {
        long k = fab_claim(w, 0, l, N, 5 * SECOND);
        cr_assert_gt(k, 0, "%s", fab_errmsg());
        for (long i = 0; i < k; i++) {
            uint64_t of = *(const uint64_t *)fab_arg(&l[i]);
            r[i] = of % 50 == 3 ? (struct fab_result){bytes, (uint32_t)of} : (struct fab_result){&n[of], 8};
        }
        cr_assert_eq(fab_complete_many(w, l, r, (size_t)k), k, "%s", fab_errmsg());
        had += k;
    }
    cr_assert_eq(fab_flush(w), 0);
    for (int got = 0; got < N; got++) {
        struct fab_outcome o;
        cr_assert_eq(fab_wait_any(p, &o, 1, 5 * SECOND), 1, "%s", fab_errmsg());
        cr_assert_eq(o.status, FAB_COMPLETED);
        if (o.tag % 50 == 3)
            cr_assert(o.len == o.tag && memcmp(fab_data(&o), bytes, o.len) == 0);
        else
            cr_assert(o.len == 8 && o.small == o.tag);
    }
    fab_close(w);
    fab_close(p);
    fabric_end();
}

Test(conform, leases_end_with_their_link, .timeout = 30)
{
    fabric_begin("");
    fab_t *p = open_as(FAB_PRODUCER, address), *f = open_as(FAB_PRODUCER | FAB_WORKER, address);
    struct fab_task t = task("feb", &forty_eight, 8);
    struct fab_outcome o;
    struct fab_lease l;
    fab_id id;
    cr_assert_eq(fab_submit(p, &t, 1, &id, SECOND), 1);
    cr_assert_eq(fab_claim(f, 0, &l, 1, 5 * SECOND), 1, "%s", fab_errmsg());
    if (address == fx.remote) {
        cr_assert_gt(cut_links(), 0);
        cr_assert_eq(fab_claim(f, 0, &l, 1, 0), -EAGAIN);
        /* given to who comes first, which is us again */
        struct fab_lease old = l;
        cr_assert_eq(fab_claim(f, 0, &l, 1, 5 * SECOND), 1, "%s", fab_errmsg());
        cr_assert_eq(fab_complete(f, &old, &forty_eight, 8), -ESTALE);
    }
    cr_assert_eq(fab_complete(f, &l, &forty_eight, 8), 0, "%s", fab_errmsg());
    cr_assert_eq(fab_flush(f), 0);
    cr_assert_eq(fab_wait(p, id, &o, 5 * SECOND), 0, "%s", fab_errmsg());
    cr_assert_eq(o.status, FAB_COMPLETED);
    fab_close(p);
    fab_close(f);
    fabric_end();
}

static void collect_of(uint32_t result_len)
{
    pid_t w = worker(false, 16);
    await_workers(1);
    vanish("pricing-7", result_len);
    fab_t *f = open_client("pricing-7");
    bool seen[100] = {0};
    size_t n = fab_outstanding(f);
    /* over a link the word of what was taken last may have gone with the process */
    cr_assert(n == 90 || (address == fx.remote && n > 90 && n <= 100), "%zu are left", n);
    while (fab_outstanding(f) > 0) {
        struct fab_outcome o;
        cr_assert_eq(fab_wait_any(f, &o, 1, 10 * SECOND), 1, "%s", fab_errmsg());
        cr_assert_eq(o.status, FAB_COMPLETED);
        cr_assert_eq(o.len, result_len);
        cr_assert_eq(o.kernel, fab_kernel_id("echo"));
        cr_assert(o.tag >= 1000 && o.tag < 1100);
        cr_assert_not(seen[o.tag - 1000], "told twice");
        seen[o.tag - 1000] = true;
    }
    struct fab_task t = task("feb", &forty_eight, 8);
    struct fab_outcome o;
    fab_id id;
    cr_assert_eq(fab_submit(f, &t, 1, &id, SECOND), 1);
    cr_assert_eq(fab_wait(f, id, &o, 5 * SECOND), 0);
    cr_assert_eq(o.small, 106373551);
    fab_close(f);
    f = open_client("pricing-7");
    cr_assert_eq(fab_outstanding(f), 0, "a farewell gives up everything");
    fab_close(f);
    worker_stop(w);
}

Test(conform, what_a_killed_producer_has_left_is_another_handles_by_its_id, .timeout = 60)
{
    fabric_begin("");
    collect_of(8);
    collect_of(40);
    collect_of(1000);
    fabric_end();
}

Test(conform, tasks_of_a_killed_producer_go_on_meanwhile, .timeout = 30)
{
    fabric_begin("");
    pid_t w = worker(false, 4);
    await_workers(1);
    vanish("nightly", 8);
    worker_stop(w);
    /* those that were not run by then wait for a worker as they would have */
    fab_t *f = open_client("nightly");
    struct fab_task t = task("feb", &forty_eight, 8);
    cr_assert_eq(fab_submit(f, &t, 1, NULL, SECOND), 1);
    size_t n = fab_outstanding(f);
    w = worker(false, 4);
    for (size_t i = 0; i < n; i++) {
        struct fab_outcome o;
        cr_assert_eq(fab_wait_any(f, &o, 1, 10 * SECOND), 1, "%s", fab_errmsg());
        cr_assert_eq(o.status, FAB_COMPLETED);
    }
    fab_close(f);
    worker_stop(w);
    fabric_end();
}

Test(conform, a_client_id_is_one_handles_at_a_time, .timeout = 30)
{
    fabric_begin("");
    fab_t *f = open_client("one"), *g = NULL;
    struct fab_options o = {.roles = FAB_PRODUCER, .key_file = fx.key, .client = "one"};
    cr_assert_eq(fab_open(&g, address, &o), -EADDRINUSE);
    cr_assert(strstr(fab_errmsg(), "\"one\" is in use"), "%s", fab_errmsg());
    cr_assert_eq(fab_open(&g, fx.local, &o), -EADDRINUSE, "on this transport or another");
    o.client = "two";
    cr_assert_eq(fab_open(&g, address, &o), 0, "%s", fab_errmsg());
    fab_close(g);
    fab_close(f);
    f = open_client("one");
    fab_close(f);
    o.client = "";
    cr_assert_eq(fab_open(&g, address, &o), -EINVAL);
    o.client = "one";
    o.roles = FAB_WORKER;
    cr_assert_eq(fab_open(&g, address, &o), -EINVAL);
    fabric_end();
}

Test(conform, what_nobody_comes_for_is_freed_when_its_time_is_over, .timeout = 30)
{
    char tables[100];
    snprintf(tables, sizeof tables,
             "[segment]\nslots = 256\nparticipants = 16\nkeep_results = \"%llds\"\n",
             (long long)(2 * patience()));
    fabric_begin(tables);
    pid_t w = worker(false, 16);
    await_workers(1);
    uint64_t start = clock_ns();
    vanish("late", 1000);
    fab_t *f = open_client("late"); /* in time: taken up, and left again by a death */
    cr_assert_geq(fab_outstanding(f), 90);
    cr_assert_lt(clock_ns() - start, (uint64_t)(2 * SECOND), "the machine is too slow for this");
    struct fab_outcome o;
    for (size_t n = fab_outstanding(f); n > 0; n--)
        cr_assert_eq(fab_wait_any(f, &o, 1, 10 * SECOND), 1);
    fab_close(f);
    vanish("late", 1000);
    fab_t *tool = open_as(FAB_TOOL, fx.local);
    await_depth(tool, 0, 0); /* what is waiting when the last worker goes would wait for another */
    fab_close(tool);
    worker_stop(w);
    await_free(256);
    f = open_client("late");
    cr_assert_eq(fab_outstanding(f), 0, "its time was over");
    fab_close(f);
    fabric_end();
}
