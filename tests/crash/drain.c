/* SPDX-License-Identifier: MIT
 *
 * drain.c - a fabricd that drains (SIGTERM) beside an idle remote worker that asks whether it is there,
 * on and on: it ends when its last words have left, at once, and does not wait until it happens to look
 * between two answers. It looks once a second besides, so it is told to drain just after such a look.
 *
 * Threads: one. Failure: Criterion's.
 */
#include <errno.h>
#include <signal.h>
#include "core/clock.h"
#include "core/local.h"
#include "tests/common/fabricd.h"
#include "transport/remote.h"

#define MS 1000000ull
/* From the word to the end; the next look by time is a second away. */
#define END_NS (700 * MS)

/* One question at a time, so that each answer is a message of its own, so small that nobody hears when it
 * has left. False: the link has ended. */
static bool ask(struct remote *r)
{
    struct record rec = {.type = REC_ECHO, .ref = clock_ticks()};
    guard_enter(&r->guard);
    bool up = remote_is_up(r) && r->lane;
    if (up && !r->wire.echoing)
        r->wire.echoing = remote_try_put(r, &rec) == 1;
    if (up) {
        (void)remote_flush(r);
        up = remote_progress(r) >= 0 && remote_is_up(r);
    }
    remote_leave(r);
    return up;
}

/* Until fabricd has looked: it stamps its time each second. */
static void await_tick(struct remote *r, const struct local *l)
{
    uint64_t was = at_load(&l->seg->head->alive_ns), since = clock_ns();
    while (at_load(&l->seg->head->alive_ns) == was) {
        cr_assert(ask(r));
        cr_assert_lt(clock_ns() - since, 10000 * MS, "fabricd does not tick");
    }
}

static bool has_ended(int pid)
{
    siginfo_t si = {0};
    return waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid == pid;
}

Test(drain, an_idle_worker_that_asks_on_and_on_does_not_keep_fabricd, .timeout = 60)
{
    struct fixture fx;
    struct fab_lease lease;
    fab_t *f, *local;
    fabricd_up(&fx, "");
    struct fab_options o = {.roles = FAB_WORKER, .name = "idle", .key_file = fx.key},
                       tool = {.roles = FAB_TOOL, .name = "tool"};
    cr_assert_eq(fab_open(&f, fx.remote, &o), 0, "%s", fab_errmsg());
    cr_assert_eq(fab_open(&local, fx.local, &tool), 0, "%s", fab_errmsg());
    cr_assert_eq(fab_claim(f, 0, &lease, 1, (int64_t)MS), -ETIMEDOUT);
    await_tick((struct remote *)f, (struct local *)local);
    uint64_t since = clock_ns();
    bool up = true;
    cr_assert_eq(kill(fx.pid, SIGTERM), 0);
    while (!has_ended(fx.pid) && clock_ns() - since < 10 * END_NS)
        up = up && ask((struct remote *)f);
    uint64_t took = clock_ns() - since;
    cr_assert_lt(took, END_NS, "it took %.3f s", (double)took / 1e9);
    fab_close(f);
    fab_close(local);
    fabricd_down(&fx);
}
