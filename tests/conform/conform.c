/* SPDX-License-Identifier: MIT
 *
 * conform.c - what every transport must do, through the public API alone. Run once for each
 * transport: CONFORM is "unix", "tcp-send", "tcp-write", "verbs-send" or "verbs-write".
 *
 * Each test has a private fabricd and forks its workers; the test's process is the producer. Both
 * come in over the transport under test.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench/fixture.h"
#include "core/clock.h"
#include "core/fabric.h"
#include "core/kernel.h"

/* CONFORM_PATIENCE (1 to 100): how many times slower the machine may be. */
static int64_t patience(void)
{
    const char *text = getenv("CONFORM_PATIENCE");
    int64_t n = text ? atoll(text) : 1;
    return n < 1 || n > 100 ? 1 : n;
}

#define SECOND (1000000000 * patience())

ReportHook(PRE_ALL)(struct criterion_test_set *all)
{
    FOREACH_SET(struct criterion_suite_set * suite, all->suites)
    {
        if (!suite->tests)
            continue;
        FOREACH_SET(struct criterion_test * t, suite->tests)
        {
            t->data->timeout *= (double)patience();
        }
    }
}

static struct fixture fx;
static const char *address;

/* Workers, and producers that are to be killed, are forked by a process that has never touched
 * libfabric: after fork() a verbs device can't be used any more, and the test itself opens one. */
struct order {
    bool sequence;
    unsigned batch;
    char client[32]; /* not "": a producer with this id; see vanish() */
    uint32_t result_len;
};
static int nursery = -1;
static pid_t nurse;

static void start_nursery(void);
static void be_killed(const struct order *o);

static void begin(const char *tables)
{
    const char *which = getenv("CONFORM"), *build = getenv("BUILD_DIR");
    char all[512], host[64] = "127.0.0.1";
    cr_assert(which && build, "set CONFORM and BUILD_DIR");
    bool verbs = strncmp(which, "verbs-", 6) == 0;
    snprintf(all, sizeof all, "%s\n[auth]\nsecurity = \"%s\"\n[fabric]\nprovider = \"%s\"\nlane = \"%s\"\n",
             tables, strstr(which, "-encrypted") ? "encrypted" : "authenticated",
             verbs ? "verbs" : "tcp", strstr(which, "-write") ? "write" : "send");
    cr_assert_eq(kernel_register_builtin(), 0);
    if (verbs)
        cr_assert_eq(fixture_verbs_host(host, sizeof host), 0, "%s", fab_errmsg());
    cr_assert_eq(fixture_start_on(&fx, build, verbs ? "verbs" : "tcp", host, all), 0, "%s",
                 fab_errmsg());
    address = strcmp(which, "unix") == 0 ? fx.local : fx.remote;
    start_nursery();
}

static void end(void)
{
    int status = fixture_stop(&fx);
    close(nursery);
    child_stop(nurse);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "fabricd ended with %x", status);
}

static fab_t *open_as(uint32_t roles, const char *at)
{
    struct fab_options o = {
        .roles = roles, .key_file = fx.key, .name = "conform", .timeout_ns = 10 * SECOND};
    fab_t *f = NULL;
    cr_assert_eq(fab_open(&f, at, &o), 0, "%s", fab_errmsg());
    return f;
}

/* What a kernel asks while it runs. */
struct asking {
    fab_t *f;
    const struct fab_lease *l;
};

static bool is_cancelled(void *arg)
{
    struct asking *a = arg;
    return fab_cancelled(a->f, a->l) != 0;
}

static bool sleep_until(void *arg, uint64_t until)
{
    struct asking *a = arg;
    uint64_t now = clock_ns();
    int rc = until > now ? fab_attend(a->f, NULL, 0, -1, (int64_t)(until - now)) : 0;
    return rc == 0 || rc == -ETIMEDOUT;
}

/* Kernels of this worker's own: one whose process crashed, one that was stopped at its limit. */
static int end_badly(fab_t *f, const struct fab_lease *l)
{
    return l->kernel == fab_kernel_id("crash") ? fab_crash(f, l, "its kernel died of a test")
                                               : fab_overrun(f, l);
}

static void work(bool sequence, unsigned batch)
{
    struct fab_options o = {
        .roles = FAB_WORKER, .key_file = fx.key, .name = "worker", .timeout_ns = 10 * SECOND};
    struct kernel_ctx ctx = {0};
    struct fab_lease l[64];
    fab_t *f;
    uint64_t started = 0;
    struct asking asking;
    ctx.cancelled = is_cancelled;
    ctx.sleep = sleep_until;
    ctx.arg = &asking;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (fab_open(&f, address, &o) < 0) {
        fprintf(stderr, "the worker: %s\n", fab_errmsg());
        _exit(1);
    }
    for (;;) {
        long n = fab_claim(f, 0, l, batch, FAB_FOREVER);
        if (n < 0)
            _exit(2);
        for (long i = 0; i < n; i++) {
            const struct kernel *k = kernel_by_id(l[i].kernel);
            if (l[i].kernel == fab_kernel_id("die"))
                kill(getpid(), SIGKILL);
            asking = (struct asking){f, &l[i]};
            if (l[i].kernel == fab_kernel_id("crash") || l[i].kernel == fab_kernel_id("overrun")) {
                if (end_badly(f, &l[i]) < 0)
                    _exit(4);
                continue;
            }
            const void *res = &started;
            long len = sequence ? 8 : k ? k->run(&ctx, fab_arg(&l[i]), l[i].len, &res) : -ENOENT;
            int rc = len < 0 ? fab_fail(f, &l[i], k ? ctx.error : "unknown kernel")
                             : fab_complete(f, &l[i], res, (uint32_t)len);
            started++;
            if (rc < 0 && rc != -ESTALE) /* it took too long */
                _exit(3);
        }
    }
}

static void start_nursery(void)
{
    int pair[2];
    struct order o;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    nurse = fork();
    cr_assert_geq(nurse, 0);
    nursery = pair[nurse == 0];
    close(pair[nurse != 0]);
    if (nurse)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGCHLD, SIG_IGN);
    while (read(nursery, &o, sizeof o) == sizeof o) {
        pid_t pid = fork();
        if (pid == 0 && o.client[0])
            be_killed(&o);
        else if (pid == 0)
            work(o.sequence, o.batch);
        if (write(nursery, &pid, sizeof pid) != sizeof pid)
            break;
    }
    _exit(0);
}

/* A worker process, to be ended by worker_stop(); sequence: it answers with the number of the task
 * in its own order of starting, in place of a kernel. */
static pid_t worker(bool sequence, unsigned batch)
{
    struct order o = {.sequence = sequence, .batch = batch};
    pid_t pid = -1;
    cr_assert_eq(write(nursery, &o, sizeof o), (ssize_t)sizeof o);
    cr_assert_eq(read(nursery, &pid, sizeof pid), (ssize_t)sizeof pid);
    cr_assert_gt(pid, 0);
    return pid;
}

static void worker_stop(pid_t pid)
{
    kill(pid, SIGKILL); /* the nursery reaps it */
}

/* Until no task is anywhere in the fabric. */
static void await_empty(void)
{
    fab_t *look = open_as(FAB_TOOL, fx.local);
    bool empty = false;
    for (uint64_t until = clock_ns() + (uint64_t)(10 * SECOND); !empty && clock_ns() < until;) {
        char *json;
        cr_assert_eq(fab_status_json(look, &json, SECOND), 0);
        empty = strstr(json, "\"ready\": 0,") && strstr(json, "\"leased\": 0,");
        free(json);
    }
    fab_close(look);
    cr_assert(empty, "tasks are left in the fabric");
}

/* Until one task is being run, or is with the peer that will. */
static void await_leased(void)
{
    fab_t *look = open_as(FAB_TOOL, fx.local);
    bool leased = false;
    for (uint64_t until = clock_ns() + (uint64_t)(10 * SECOND); !leased && clock_ns() < until;) {
        char *json;
        cr_assert_eq(fab_status_json(look, &json, SECOND), 0);
        leased = strstr(json, "\"leased\": 1,") != NULL;
        free(json);
    }
    fab_close(look);
    cr_assert(leased, "nobody runs the task");
}

/* Until so many workers are there; those that were killed may be so for a moment. */
static void await_workers(int n)
{
    fab_t *look = open_as(FAB_TOOL, fx.local);
    int seen = 0;
    for (uint64_t until = clock_ns() + (uint64_t)(10 * SECOND); seen != n && clock_ns() < until;) {
        char *json;
        cr_assert_eq(fab_status_json(look, &json, SECOND), 0);
        seen = 0;
        for (char *at = json; (at = strstr(at, "\"kind\": \"worker\"")); at++)
            seen++;
        free(json);
    }
    fab_close(look);
    cr_assert_eq(seen, n, "%d workers came, not %d", seen, n);
}

static struct fab_task task(const char *kernel, const void *arg, uint32_t len)
{
    return (struct fab_task){
        .kernel = fab_kernel_id(kernel), .arg = arg, .len = len, .priority = FAB_PRIORITY_NORMAL};
}

Test(conform, answers_are_right_and_carry_their_tags, .timeout = 30)
{
    begin("");
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
    end();
}

Test(conform, one_worker_starts_one_producers_tasks_in_order, .timeout = 30)
{
    begin("");
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
    end();
}

Test(conform, payloads_of_every_size_come_back_whole, .timeout = 60)
{
    static const uint32_t sizes[] = {0,     1,      7,        8,      9,     63,    64,
                                     65,    255,    256,      257,    1024,  4096,  16300,
                                     16343, 16344,  16368,    16384,  16385, 65535, 65536,
                                     65537, 200000, 1u << 20, 5000001};
    begin("");
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
    end();
}

Test(conform, arguments_made_in_place_come_back_whole, .timeout = 60)
{
    static const uint32_t sizes[] = {0, 8, 9, 64, 65, 4096, 4097, 100000, 1u << 20, 3000001};
    begin("");
    pid_t w = worker(false, 4);
    fab_t *f = open_as(FAB_PRODUCER, address);
    for (size_t i = 0; i < 3 * sizeof sizes / sizeof *sizes; i++) {
        uint32_t len = sizes[i / 3];
        struct fab_outcome o;
        fab_id id;
        void *arg, *spare;
        cr_assert_eq(fab_arg_new(f, len, &arg, SECOND), 0, "%u bytes: %s", len, fab_errmsg());
        cr_assert_eq(fab_arg_new(f, len, &spare, SECOND), 0, "%u bytes: %s", len, fab_errmsg());
        for (uint32_t k = 0; k < len; k++)
            ((uint8_t *)arg)[k] = (uint8_t)((k + i) * 2654435761u >> 24);
        struct fab_task t = task("echo", arg, len);
        t.flags = FAB_IN_PLACE;
        cr_assert_eq(fab_submit(f, &t, 1, &id, SECOND), 1, "%u bytes: %s", len, fab_errmsg());
        cr_assert_eq(fab_submit(f, &t, 1, &id, SECOND), -EINVAL, "it is the caller's no more");
        cr_assert_eq(fab_wait(f, id, &o, 10 * SECOND), 0, "%u bytes: %s", len, fab_errmsg());
        cr_assert_eq(o.status, FAB_COMPLETED, "%u bytes", len);
        cr_assert_eq(o.len, len);
        for (uint32_t k = 0; k < len; k++)
            cr_assert_eq(((const uint8_t *)fab_data(&o))[k], (uint8_t)((k + i) * 2654435761u >> 24),
                         "byte %u of %u", k, len);
        fab_arg_drop(f, spare);
    }
    void *left; /* the handle's end frees it */
    cr_assert_eq(fab_arg_new(f, 100000, &left, SECOND), 0, "%s", fab_errmsg());
    fab_close(f);
    await_empty();
    worker_stop(w);
    end();
}

Test(conform, a_full_fabric_says_so_waits_and_goes_on, .timeout = 30)
{
    begin("[segment]\nslots = 64\nparticipants = 8\n");
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
    end();
}

Test(conform, waits_end_at_their_time, .timeout = 30)
{
    begin("");
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
    end();
}

Test(conform, a_task_not_started_can_be_withdrawn, .timeout = 30)
{
    begin("");
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
    end();
}

Test(conform, a_task_that_runs_can_be_cancelled, .timeout = 30)
{
    static const char *const kernels[] = {"sleep", "spin", "feb-naive"};
    begin("");
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
    end();
}

Test(conform, what_can_not_be_run_fails_alone, .timeout = 30)
{
    begin("");
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
    end();
}

Test(conform, a_killed_workers_task_is_finished_by_another, .timeout = 30)
{
    begin("");
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
    end();
}

Test(conform, a_producer_that_leaves_holds_nothing, .timeout = 30)
{
    begin("[segment]\nslots = 256\nparticipants = 16\n");
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
    end();
}

Test(conform, no_wait_tasks_are_run_and_forgotten, .timeout = 30)
{
    begin("[segment]\nslots = 64\nparticipants = 8\n");
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
    end();
}

/* ---- terms ---- */

static struct fab_outcome run_with(fab_t *f, const char *kernel, uint64_t arg,
                                   const struct fab_terms *terms)
{
    struct fab_task t = task(kernel, &arg, 8);
    struct fab_outcome o;
    fab_id id;
    t.terms = terms;
    cr_assert_eq(fab_submit(f, &t, 1, &id, SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(fab_wait(f, id, &o, 20 * SECOND), 0, "%s", fab_errmsg());
    return o;
}

Test(conform, a_task_is_not_started_before_its_time, .timeout = 30)
{
    begin("");
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
    end();
}

Test(conform, a_task_nobody_starts_in_time_expires, .timeout = 30)
{
    begin("");
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
    end();
}

Test(conform, an_attempt_over_its_limit_ends_its_task, .timeout = 30)
{
    begin("[segment]\nslots = 64\nparticipants = 8\n");
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
    end();
}

Test(conform, an_error_is_tried_again_as_often_as_asked, .timeout = 30)
{
    begin("");
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
    end();
}

Test(conform, a_kernels_crash_counts_as_its_workers_death, .timeout = 30)
{
    begin("");
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
    end();
}

Test(conform, terms_that_make_no_sense_are_refused, .timeout = 30)
{
    begin("");
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
    end();
}

/* ---- keys and shares ---- */

Test(conform, of_the_tasks_with_a_key_one_is_run_in_its_window, .timeout = 30)
{
    begin("");
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
    end();
}

Test(conform, a_key_is_given_back_by_a_task_that_was_never_started, .timeout = 30)
{
    begin("");
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
    end();
}

/* One holds all that it gets: outcomes it doesn't take, then tasks nobody waits for. The other
 * works beside it. */
Test(conform, a_producer_that_takes_nothing_leaves_the_others_their_part, .timeout = 60)
{
    begin("[segment]\nslots = 128\nparticipants = 16\n");
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
    end();
}

/* ---- administration ---- */

static struct fab_queue_info queue_info(fab_t *f)
{
    struct fab_queue_info i;
    cr_assert_eq(fab_queue_info(f, 0, &i, SECOND), 0, "%s", fab_errmsg());
    return i;
}

static void queue_to(fab_t *f, enum fab_queue_state state)
{
    cr_assert_eq(fab_queue_set(f, 0, state, SECOND), 0, "%s", fab_errmsg());
    cr_assert_eq(queue_info(f).state, state);
}

/* Until so many are ready and leased. */
static void await_depth(fab_t *f, uint64_t ready, uint64_t leased)
{
    struct fab_queue_info i;
    uint64_t until = clock_ns() + (uint64_t)(10 * SECOND);
    do
        i = queue_info(f);
    while ((i.ready != ready || i.leased != leased) && clock_ns() < until);
    cr_assert(i.ready == ready && i.leased == leased, "%llu ready, %llu leased",
              (unsigned long long)i.ready, (unsigned long long)i.leased);
}

Test(conform, a_paused_queue_takes_tasks_and_starts_none, .timeout = 30)
{
    begin("");
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
    end();
}

Test(conform, a_draining_queue_refuses_tasks_and_runs_the_rest, .timeout = 30)
{
    begin("");
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
    end();
}

/* The number of dead letters, and whether the list has this in it. */
static long letters(fab_t *f, const char *needle)
{
    char *text;
    long n = 0;
    cr_assert_eq(fab_dead_list(f, FAB_ANY_QUEUE, &text, SECOND), 0, "%s", fab_errmsg());
    for (char *at = text; (at = strstr(at, "\"id\": ")); at++)
        n++;
    cr_assert(!needle || strstr(text, needle), "%s is not in %s", needle, text);
    free(text);
    return n;
}

static fab_id first_letter(fab_t *f)
{
    char *text;
    unsigned epoch, slot;
    cr_assert_eq(fab_dead_list(f, 0, &text, SECOND), 0, "%s", fab_errmsg());
    char *at = strstr(text, "\"id\": \"");
    cr_assert_not_null(at);
    cr_assert_eq(sscanf(at + 7, "%u-%u", &epoch, &slot), 2);
    free(text);
    return (fab_id)epoch << 32 | slot;
}

static void await_letters(fab_t *f, long n)
{
    uint64_t until = clock_ns() + (uint64_t)(10 * SECOND);
    while (letters(f, NULL) != n && clock_ns() < until)
        ;
    cr_assert_eq(letters(f, NULL), n);
}

/* Dies with the task it claims. */
static void kill_one_worker(void)
{
    pid_t w = worker(false, 1);
    fab_t *look = open_as(FAB_TOOL, fx.local);
    await_depth(look, 0, 1);
    worker_stop(w);
    uint64_t until = clock_ns() + (uint64_t)(10 * SECOND);
    struct fab_queue_info i;
    do
        i = queue_info(look);
    while (i.leased && clock_ns() < until);
    cr_assert_eq(i.leased, 0);
    fab_close(look);
}

Test(conform, errors_nobody_waits_for_are_kept_shown_and_tried_again, .timeout = 30)
{
    begin("[segment]\nslots = 64\nparticipants = 8\n");
    pid_t w = worker(false, 8);
    fab_t *f = open_as(FAB_PRODUCER, address);
    fab_t *tool = open_as(FAB_TOOL, address);
    uint8_t large[5000];
    char *text;
    memset(large, 'z', sizeof large);
    struct fab_task t = task("no-such-kernel", large, sizeof large);
    t.flags = FAB_NO_WAIT;
    for (int i = 0; i < 3; i++)
        cr_assert_eq(fab_submit(f, &t, 1, NULL, SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(fab_flush(f), 0);
    await_letters(tool, 3);
    letters(tool, "unknown kernel");
    letters(tool, "\"worker\": \"worker\"");
    letters(tool, "\"argument_len\": 5000");
    fab_id id = first_letter(tool);
    cr_assert_eq(fab_dead_show(tool, id, &text, SECOND), 0, "%s", fab_errmsg());
    char *hex = strstr(text, "\"argument_hex\": \"7a7a");
    cr_assert(hex && strspn(hex + 17, "7a") == 10000, "%s", text);
    free(text);
    cr_assert_eq(fab_dead_kick(tool, id, FAB_ANY_QUEUE, SECOND), 1, "%s", fab_errmsg());
    await_letters(tool, 3); /* it fails again, with the same id */
    cr_assert_eq(fab_dead_purge(tool, id, FAB_ANY_QUEUE, SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(fab_dead_purge(tool, id, FAB_ANY_QUEUE, SECOND), -ENOENT);
    cr_assert_eq(fab_dead_show(tool, id, &text, SECOND), -ENOENT);
    cr_assert_eq(letters(f, NULL), 2);
    cr_assert_eq(fab_dead_purge(f, 0, 0, SECOND), 2);
    cr_assert_eq(letters(f, NULL), 0);
    await_empty();
    fab_close(tool);
    fab_close(f);
    worker_stop(w);
    end();
}

Test(conform, a_task_that_kills_its_workers_is_answered_and_kept, .timeout = 60)
{
    begin("");
    fab_t *f = open_as(FAB_PRODUCER, address);
    fab_t *tool = open_as(FAB_TOOL, address);
    uint64_t ns = 60ull * (uint64_t)SECOND;
    struct fab_task t = task("sleep", &ns, 8);
    struct fab_outcome o;
    fab_id id;
    cr_assert_eq(fab_submit(f, &t, 1, &id, SECOND), 1);
    cr_assert_eq(fab_flush(f), 0);
    for (int i = 0; i < 3; i++)
        kill_one_worker();
    cr_assert_eq(fab_wait(f, id, &o, 10 * SECOND), 0, "%s", fab_errmsg());
    cr_assert_eq(o.status, FAB_DEAD);
    cr_assert_eq(o.attempts, 3);
    cr_assert_eq(fab_wait_any(f, &o, 1, 0), -ENOENT); /* lets its bytes go, too */
    await_letters(tool, 1);
    letters(tool, "\"cause\": \"crashed\"");
    letters(tool, "its worker died 3 times");
    letters(tool, "\"worker\": \"worker\"");
    letters(tool, address == fx.local ? "\"pid\": " : "\"peer\": \"");
    fab_id letter = first_letter(tool);
    cr_assert_eq(fab_dead_kick(tool, letter, FAB_ANY_QUEUE, SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(letters(tool, NULL), 0);
    for (int i = 0; i < 3; i++)
        kill_one_worker();
    await_letters(tool, 1); /* nobody waits for it now */
    cr_assert_eq(fab_dead_purge(tool, letter, FAB_ANY_QUEUE, SECOND), 1, "%s", fab_errmsg());
    fab_close(tool);
    fab_close(f);
    end();
}

Test(conform, a_task_that_kills_its_workers_takes_no_others_with_it, .timeout = 60)
{
    enum { N = 12, BAD = 4 };
    uint64_t arg = 1;
    struct fab_outcome o;
    begin("");
    fab_t *f = open_as(FAB_PRODUCER, address);
    for (uint32_t i = 0; i < N; i++) {
        struct fab_task t = task(i == BAD ? "die" : "feb", &arg, 8);
        t.tag = i;
        cr_assert_eq(fab_submit(f, &t, 1, NULL, SECOND), 1);
    }
    cr_assert_eq(fab_flush(f), 0);
    for (int i = 0; i < 5; i++) /* four die of it; the last goes with the nursery */
        (void)worker(false, 8);
    for (uint32_t i = 0; i < N; i++) {
        cr_assert_eq(fab_wait_any(f, &o, 1, 20 * SECOND), 1, "%s", fab_errmsg());
        cr_assert_eq(o.status, o.tag == BAD ? FAB_DEAD : FAB_COMPLETED, "task %d: status %u",
                     (int)o.tag, o.status);
    }
    fab_close(f);
    end();
}

Test(conform, a_kicked_tasks_time_limit_counts_from_its_new_start, .timeout = 30)
{
    begin("");
    fab_t *f = open_as(FAB_PRODUCER, address), *w = open_as(FAB_WORKER, address);
    struct fab_terms terms = {.limit_ns = (uint64_t)SECOND};
    struct fab_task t = task("echo", "x", 1);
    struct fab_lease l;
    t.terms = &terms;
    t.flags = FAB_NO_WAIT;
    cr_assert_eq(fab_submit(f, &t, 1, NULL, SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(fab_flush(f), 0);
    cr_assert_eq(fab_claim(w, 0, &l, 1, 5 * SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(fab_fail(w, &l, "for now"), 0);
    cr_assert_eq(fab_flush(w), 0);
    await_letters(f, 1);
    usleep((useconds_t)(SECOND / 1000 * 6 / 10));
    cr_assert_eq(fab_dead_kick(f, 0, FAB_ANY_QUEUE, SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(fab_claim(w, 0, &l, 1, 5 * SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(l.attempt, 1);
    usleep((useconds_t)(SECOND / 1000 * 6 / 10)); /* the first attempt's limit passes */
    cr_assert_eq(fab_complete(w, &l, "x", 1), 0, "%s", fab_errmsg());
    cr_assert_eq(fab_flush(w), 0);
    await_empty();
    cr_assert_eq(letters(f, NULL), 0);
    fab_close(w);
    fab_close(f);
    end();
}

Test(conform, a_fabric_that_ends_is_noticed, .timeout = 30)
{
    begin("");
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
    end();
}

/* ---- client ids and links that break ---- */

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

Test(conform, a_link_that_is_cut_comes_back_with_its_tasks, .timeout = 60)
{
    begin("");
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
    end();
}

Test(conform, leases_end_with_their_link, .timeout = 30)
{
    begin("");
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
    end();
}

/* Tasks that the fabric has taken in so far. */
static long submitted(void)
{
    fab_t *look = open_as(FAB_TOOL, fx.local);
    char *json, *at;
    cr_assert_eq(fab_status_json(look, &json, SECOND), 0);
    at = strstr(json, "\"submitted\": "); /* the first is the queue's */
    long n = at ? atol(at + 13) : -1;
    free(json);
    fab_close(look);
    return n;
}

/* A producer that submits 100 tasks with the tags 1000.., takes ten outcomes and tells the test
 * when it may be killed. */
static void be_killed(const struct order *order)
{
    static uint8_t bytes[1000];
    struct fab_options o = {
        .roles = FAB_PRODUCER, .key_file = fx.key, .name = "vanishes", .client = order->client};
    struct fab_task t[100];
    struct fab_outcome out;
    fab_t *f;
    int rc = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    long before = submitted();
    if (fab_open(&f, address, &o) < 0)
        rc = 1;
    for (int i = 0; i < 100; i++) {
        t[i] = task("echo", bytes, order->result_len);
        t[i].tag = 1000 + (uint64_t)i;
    }
    if (rc == 0 && fab_submit(f, t, 100, NULL, SECOND) != 100)
        rc = 2;
    for (int i = 0; i < 10 && rc == 0; i++)
        rc = fab_wait_any(f, &out, 1, 5 * SECOND) == 1 ? 0 : 3;
    while (rc == 0 && submitted() < before + 100) /* what is not sent goes with the process */
        rc = fab_flush(f) < 0 ? 4 : 0;
    if (rc)
        fprintf(stderr, "the producer, step %d: %s\n", rc, fab_errmsg());
    (void)!write(nursery, &rc, sizeof rc);
    pause();
    _exit(0);
}

static void vanish(const char *client, uint32_t result_len)
{
    struct order o = {.result_len = result_len};
    pid_t child = -1;
    int rc = -1;
    snprintf(o.client, sizeof o.client, "%s", client);
    cr_assert_eq(write(nursery, &o, sizeof o), (ssize_t)sizeof o);
    cr_assert_eq(read(nursery, &child, sizeof child), (ssize_t)sizeof child);
    cr_assert_gt(child, 0);
    cr_assert_eq(read(nursery, &rc, sizeof rc), (ssize_t)sizeof rc);
    cr_assert_eq(rc, 0, "the child has failed at step %d", rc);
    int fd = (int)syscall(SYS_pidfd_open, child, 0); /* the nursery reaps it */
    struct pollfd p = {.fd = fd, .events = POLLIN};
    cr_assert_geq(fd, 0);
    kill(child, SIGKILL);
    cr_assert_eq(poll(&p, 1, (int)(5 * SECOND / 1000000)), 1);
    close(fd);
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
    begin("");
    collect_of(8);
    collect_of(40);
    collect_of(1000);
    end();
}

Test(conform, tasks_of_a_killed_producer_go_on_meanwhile, .timeout = 30)
{
    begin("");
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
    end();
}

Test(conform, a_client_id_is_one_handles_at_a_time, .timeout = 30)
{
    begin("");
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
    end();
}

/* Every slot free or in somebody's stock, no memory of the arena used. */
static void await_free(void)
{
    fab_t *look = open_as(FAB_TOOL, fx.local);
    bool free_now = false;
    for (uint64_t until = clock_ns() + (uint64_t)(10 * SECOND); !free_now && clock_ns() < until;) {
        char *json, *at;
        long slots_free = 0, kept = 0;
        cr_assert_eq(fab_status_json(look, &json, SECOND), 0);
        if ((at = strstr(json, "\"slots_free\": ")))
            slots_free = atol(at + 14);
        kept = strstr(json, "\"kept\": true") != NULL;
        free_now = slots_free == 256 && !kept;
        free(json);
    }
    fab_close(look);
    cr_assert(free_now, "something is left");
}

Test(conform, what_nobody_comes_for_is_freed_when_its_time_is_over, .timeout = 30)
{
    char tables[100];
    snprintf(tables, sizeof tables,
             "[segment]\nslots = 256\nparticipants = 16\nkeep_results = \"%llds\"\n",
             (long long)(2 * patience()));
    begin(tables);
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
    worker_stop(w);
    await_free();
    f = open_client("late");
    cr_assert_eq(fab_outstanding(f), 0, "its time was over");
    fab_close(f);
    end();
}

Test(conform, many_batches_through_many_handles, .timeout = 60)
{
    begin("");
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
    end();
}

Test(conform, a_child_opens_a_handle_of_its_own_or_is_told_that_it_cant, .timeout = 30)
{
    begin("");
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
    end();
}
