/* SPDX-License-Identifier: MIT
 *
 * tasks.c - the common way of a task: argument there, result back, of every size, in order, alone
 * and in batches, with and without somebody who waits; and what can't be run.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/conform/conform.h"

Test(conform, answers_are_right_and_carry_their_tags, .timeout = 30)
{
    fabric_begin("");
    pid_t w = worker(false, 16);
    fab_t *f = open_as(FAB_PRODUCER, address);
    int64_t n[100];
    for (int i = 0; i < 100; i++) {
        n[i] = i;
        struct fab_task t = task("feb", &n[i], 8);
        t.tag = 1000 + (uint64_t)i;
        cr_assert_eq(fab_submit(f, &t, 1, NULL, SECOND), 1, "%s", fab_errmsg());
    }
    cr_assert_eq(fab_outstanding(f), 100);
    uint64_t feb[100] = {1, 1, 2, 3, 5};
    for (int i = 5; i < 100; i++)
        feb[i] = feb[i - 1] + feb[i - 2] - feb[i - 5];
    for (int got = 0; got < 100;) {
        struct fab_outcome o[7];
        long k = fab_wait_any(f, o, 7, 5 * SECOND);
        cr_assert_gt(k, 0, "%s", fab_errmsg());
        for (long i = 0; i < k; i++, got++) {
            cr_assert_eq(o[i].status, FAB_COMPLETED);
            cr_assert(o[i].tag >= 1000 && o[i].tag < 1100);
            cr_assert_eq(o[i].small, feb[o[i].tag - 1000]);
        }
    }
    cr_assert_eq(fab_outstanding(f), 0);
    struct fab_outcome o;
    cr_assert_eq(fab_wait_any(f, &o, 1, 0), -ENOENT);
    fab_close(f);
    worker_stop(w);
    fabric_end();
}

Test(conform, one_worker_starts_one_producers_tasks_in_order, .timeout = 30)
{
    fabric_begin("");
    pid_t w = worker(true, 8);
    fab_t *f = open_as(FAB_PRODUCER, address);
    fab_id id[512];
    for (int round = 0; round < 20; round++) {
        struct fab_task t[512];
        long sent = 0;
        for (int i = 0; i < 512; i++)
            t[i] = task("echo", "x", 1);
        while (sent < 512) {
            /* batches of many sizes, singles among them */
            size_t k = (size_t)(1 + (sent * 7 + round) % 40);
            long n = fab_submit(f, t + sent, sent + (long)k > 512 ? (size_t)(512 - sent) : k,
                                id + sent, SECOND);
            cr_assert_gt(n, 0, "%s", fab_errmsg());
            sent += n;
        }
        for (int i = 0; i < 512; i++) {
            struct fab_outcome o;
            cr_assert_eq(fab_wait(f, id[i], &o, 5 * SECOND), 0, "%s", fab_errmsg());
            cr_assert_eq(o.small, (uint64_t)(round * 512 + i),
                         "task %d of round %d was started as %llu", i, round,
                         (unsigned long long)o.small);
        }
    }
    fab_close(f);
    worker_stop(w);
    fabric_end();
}

Test(conform, payloads_of_every_size_come_back_whole, .timeout = 60)
{
    static const uint32_t sizes[] = {0,     1,      7,        8,      9,     63,    64,
                                     65,    255,    256,      257,    1024,  4096,  16300,
                                     16343, 16344,  16368,    16384,  16385, 65535, 65536,
                                     65537, 200000, 1u << 20, 5000001};
    fabric_begin("");
    pid_t w = worker(false, 4);
    fab_t *f = open_as(FAB_PRODUCER, address);
    uint8_t *bytes = malloc(6000000);
    for (uint32_t i = 0; i < 6000000; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 24);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct fab_task t[2] = {task("echo", bytes + i, sizes[i]),
                                task("echo", bytes + 2 * i, sizes[i] / 2)};
        struct fab_outcome o;
        fab_id id[2];
        cr_assert_eq(fab_submit(f, t, 1, id, SECOND), 1, "%u bytes: %s", sizes[i], fab_errmsg());
        cr_assert_eq(fab_submit(f, t + 1, 1, id + 1, SECOND), 1, "%u bytes: %s", sizes[i],
                     fab_errmsg());
        for (int k = 0; k < 2; k++) {
            cr_assert_eq(fab_wait(f, id[k], &o, 10 * SECOND), 0, "%u bytes: %s", sizes[i],
                         fab_errmsg());
            cr_assert_eq(o.status, FAB_COMPLETED, "%u bytes", sizes[i]);
            cr_assert_eq(o.len, t[k].len);
            cr_assert_eq(memcmp(fab_data(&o), t[k].arg, o.len), 0, "%u bytes came back altered",
                         sizes[i]);
        }
    }
    free(bytes);
    fab_close(f);
    worker_stop(w);
    fabric_end();
}

Test(conform, what_can_not_be_run_fails_alone, .timeout = 30)
{
    fabric_begin("");
    pid_t w = worker(false, 4);
    fab_t *f = open_as(FAB_PRODUCER, address);
    int64_t n = 48, much = 1000001;
    struct fab_task t[4] = {task("no-such-kernel", &n, 8), task("feb", "abc", 3),
                            task("feb", &much, 8), task("feb", &n, 8)};
    fab_id id[4];
    struct fab_outcome o;
    cr_assert_eq(fab_submit(f, t, 4, id, SECOND), 4);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(fab_wait(f, id[i], &o, 5 * SECOND), 0, "%s", fab_errmsg());
        cr_assert_eq(o.status, FAB_FAILED);
        cr_assert_gt(o.len, 8);
        cr_assert(memmem(fab_data(&o), o.len, i == 0 ? "kernel" : "feb", i == 0 ? 6 : 3), "task %d",
                  i);
    }
    cr_assert_eq(fab_wait(f, id[3], &o, 5 * SECOND), 0);
    cr_assert_eq(o.small, 106373551);
    t[0].queue = 63;
    cr_assert_eq(fab_submit(f, t, 1, id, 0), -EINVAL);
    t[0].queue = 0;
    t[0].priority = 4;
    cr_assert_eq(fab_submit(f, t, 1, id, 0), -EINVAL);
    t[0].priority = 0;
    t[0].flags = 0x8000;
    cr_assert_eq(fab_submit(f, t, 1, id, 0), -EINVAL);
    fab_close(f);
    worker_stop(w);
    fabric_end();
}

Test(conform, no_wait_tasks_are_run_and_forgotten, .timeout = 30)
{
    fabric_begin("[segment]\nslots = 64\nparticipants = 8\n");
    pid_t w = worker(false, 16);
    fab_t *f = open_as(FAB_PRODUCER, address);
    struct fab_task t = task("echo", "abc", 3);
    t.flags = FAB_NO_WAIT;
    for (int i = 0; i < 2000; i++) /* many times what fits */
        cr_assert_eq(fab_submit(f, &t, 1, NULL, 5 * SECOND), 1, "task %d: %s", i, fab_errmsg());
    cr_assert_eq(fab_outstanding(f), 0);
    fab_close(f); /* what is on its way arrives before this returns */
    await_empty();
    worker_stop(w);
    fabric_end();
}

Test(conform, many_batches_through_many_handles, .timeout = 60)
{
    fabric_begin("");
    pid_t w[2] = {worker(false, 64), worker(false, 1)};
    fab_t *f[3];
    for (int i = 0; i < 3; i++)
        f[i] = open_as(FAB_PRODUCER, address);
    int64_t n = 48;
    struct fab_task t[64];
    for (int i = 0; i < 64; i++)
        t[i] = task("feb", &n, 8);
    long sent[3] = {0}, got[3] = {0};
    while (got[0] + got[1] + got[2] < 3 * 30000) {
        for (int i = 0; i < 3; i++) {
            struct fab_outcome o[64];
            if (sent[i] < 30000) {
                long k = fab_submit(f[i], t, 30000 - sent[i] < 64 ? (size_t)(30000 - sent[i]) : 64,
                                    NULL, 0);
                cr_assert(k > 0 || k == -EAGAIN, "%ld %s", k, fab_errmsg());
                sent[i] += k > 0 ? k : 0;
            }
            if (fab_outstanding(f[i]) == 0)
                continue;
            long k = fab_wait_any(f[i], o, 64, sent[i] == 30000 ? 5 * SECOND : 0);
            cr_assert(k > 0 || k == -EAGAIN, "%ld %s", k, fab_errmsg());
            for (long j = 0; j < k; j++)
                cr_assert_eq(o[j].small, 106373551);
            got[i] += k > 0 ? k : 0;
        }
    }
    for (int i = 0; i < 3; i++)
        fab_close(f[i]);
    worker_stop(w[0]);
    worker_stop(w[1]);
    fabric_end();
}

Test(conform, a_child_opens_a_handle_of_its_own_or_is_told_that_it_cant, .timeout = 30)
{
    fabric_begin("");
    fab_t *f = open_as(FAB_PRODUCER, address);
    int want = strncmp(address, "verbs:", 6) == 0 ? -ENOTSUP : 0, status = -1;
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        struct fab_options o = {.roles = FAB_PRODUCER, .key_file = fx.key, .name = "child"};
        fab_t *own = NULL;
        int rc = fab_open(&own, address, &o);
        if (rc != want)
            fprintf(stderr, "the child: %d: %s\n", rc, fab_errmsg());
        if (rc == 0)
            fab_close(own);
        _exit(rc != want);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    fab_close(f);
    fabric_end();
}
