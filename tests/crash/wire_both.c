/* SPDX-License-Identifier: MIT
 *
 * wire_both.c - see wire_both.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "core/fabric.h"
#include "tests/crash/wire_both.h"

#define NAP_NS  20000000ull
#define LOOK_NS 20000000ll

static int wrong(struct both *b, const char *what)
{
    snprintf(b->why, sizeof b->why, "%s: %s", what, fab_errmsg());
    return 1;
}

static int produce(struct both *b, fab_t *f, uint64_t *submitted)
{
    static uint64_t nap = NAP_NS;
    struct fab_task t = {
        .kernel = fab_kernel_id("sleep"), .arg = &nap, .len = sizeof nap, .tag = *submitted};
    struct fab_outcome o;
    long n = 0;
    if (fab_outstanding(f) == 0 && !at_load(&b->stop))
        n = fab_submit(f, &t, 1, NULL, 0);
    if (n < 0 && n != -EAGAIN)
        return wrong(b, "submit");
    *submitted += n == 1;
    n = fab_outstanding(f) ? fab_wait_any(f, &o, 1, 0) : 0;
    if (n < 0 && n != -EAGAIN)
        return wrong(b, "wait");
    if (n <= 0)
        return 0;
    if (o.status != FAB_COMPLETED || o.tag != b->answered)
        return wrong(b, "an outcome that is not that of the one task outstanding");
    b->answered++;
    b->again += o.attempts > 1;
    return 0;
}

static int work(struct both *b, fab_t *f)
{
    struct fab_lease l;
    uint64_t ns = 0;
    long n = fab_claim(f, 0, &l, 1, LOOK_NS);
    if (n == -ETIMEDOUT)
        return 0;
    if (n < 0)
        return wrong(b, "claim");
    memcpy(&ns, fab_arg(&l), l.len < sizeof ns ? l.len : sizeof ns);
    struct timespec nap = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    while (nanosleep(&nap, &nap) < 0 && errno == EINTR)
        ;
    int rc = fab_complete(f, &l, &ns, sizeof ns);
    if (rc < 0 && rc != -ESTALE)
        return wrong(b, "complete");
    b->ended++;
    b->late += rc == -ESTALE;
    return 0;
}

int both_run(struct both *b, const char *address, const char *key_file)
{
    struct fab_options o = {
        .roles = FAB_PRODUCER | FAB_WORKER, .name = "both", .key_file = key_file};
    uint64_t submitted = 0;
    fab_t *f;
    int rc = fab_open(&f, address, &o) < 0 ? wrong(b, "open") : 0;
    if (rc)
        return rc;
    while (rc == 0 && !(at_load(&b->stop) && fab_outstanding(f) == 0)) {
        rc = produce(b, f, &submitted);
        if (rc == 0)
            rc = work(b, f);
    }
    if (rc == 0 && b->answered != submitted)
        rc = wrong(b, "a task of its own has no answer");
    fab_close(f);
    return rc;
}
