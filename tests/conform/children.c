/* SPDX-License-Identifier: MIT
 *
 * children.c - what the children of the nursery do: work as a worker, or as a producer that
 * submits, takes a little and is then killed. They die with the nursery.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "core/kernel.h"
#include "tests/conform/conform.h"

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

void work(bool sequence, unsigned batch)
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

void be_killed(int tell, const char *client, uint32_t result_len)
{
    static uint8_t bytes[1000];
    struct fab_options o = {
        .roles = FAB_PRODUCER, .key_file = fx.key, .name = "vanishes", .client = client};
    struct fab_task t[100];
    struct fab_outcome out;
    fab_t *f;
    int rc = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    long before = submitted();
    if (fab_open(&f, address, &o) < 0)
        rc = 1;
    for (int i = 0; i < 100; i++) {
        t[i] = task("echo", bytes, result_len);
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
    (void)!write(tell, &rc, sizeof rc);
    pause();
    _exit(0);
}
