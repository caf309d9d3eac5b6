/* SPDX-License-Identifier: MIT
 *
 * scen_wake.c - no wake-up is lost: S1 to S3 against W1 to W3 (wake.h). No sleep of the model ends
 * by time, so a lost one leaves everybody asleep, which fails the execution.
 *
 * Threads: as each scenario says. Failure: see model.h.
 */
#include <string.h>
#include "tests/orders/scenarios.h"

static uint32_t wanted, consumed;
static uint64_t *seen;

/* What local_claim() does of it, without its 16 rounds of looking first: real_park() and, after a
 * sleep, the wake-up of the next sleeper. */
static void worker(struct local *l)
{
    uint32_t value, patience = 0;
    struct seg_queue *q = &world.queue[0];
    for (;;) {
        if (ring_ready(&world, world_ring()) && ring_take(&world, world_ring(), &value, 1)) {
            MD_CHECK(seen[value] == world_answer(value), "the task's content is not there");
            if (l->woken && ring_ready(&world, world_ring()))
                queue_wake(&world, q, &l->out, 1);
            l->woken = false;
            if (++consumed == wanted) { /* the end, as fabricd does it */
                at_store(&world.head->state, SEG_CLOSED);
                queue_wake_all(q);
            }
            continue;
        }
        if (real_park(l, &patience) < 0)
            return;
    }
}

static void submit(uint32_t value)
{
    static const struct wake_out no_daemon = {.daemon_fd = -1};
    seen[value] = world_answer(value);
    MD_CHECK(ring_put(&world, world_ring(), value), "no room");
    queue_wake(&world, &world.queue[0], &no_daemon, 1);
}

static void setup(uint32_t tasks)
{
    world_make(4, 8, MD_THREADS);
    seen = world_alloc(4 * sizeof *seen);
    wanted = tasks;
    consumed = 0;
    for (uint32_t i = 0; i < MD_THREADS; i++)
        (void)world_local(i, 1);
}

static struct local *handles[MD_THREADS];

static void own_worker(void)
{
    worker(handles[md_self()]);
}

static void check(void)
{
    MD_CHECK(consumed == wanted, "%u of %u tasks were run", consumed, wanted);
}

/* ---- wake-one ---- */

static void setup_one(void)
{
    setup(1);
    handles[1] = world_local(1, 1);
}

static void submit_one(void)
{
    submit(0);
}

const struct md_scenario wake_one = {
    .name = "wake-one",
    .what = "a task is submitted while the only worker goes to sleep",
    .setup = setup_one,
    .body = {submit_one, own_worker},
    .check = check,
    .dfs = {3, 2},
    .dfs_long = {5, 3},
    .walks = 20000,
};

/* ---- wake-many ---- */

static void setup_many(void)
{
    setup(3);
    for (uint32_t i = 2; i < 4; i++)
        handles[i] = world_local(i, 1);
}

static void submit_two(void)
{
    submit(1);
    submit(2);
}

const struct md_scenario wake_many = {
    .name = "wake-many",
    .what = "2 producers, 3 tasks, 2 workers that sleep and wake each other",
    .setup = setup_many,
    .body = {submit_one, submit_two, own_worker, own_worker},
    .check = check,
    .dfs = {1, 1},
    .dfs_long = {2, 1},
    .walks = 40000,
};

/* ---- wake-bell ---- */

static struct fab_lease lease;
static fab_id id;

/* The task has been submitted and claimed already. */
static void setup_bell(void)
{
    static const uint64_t arg = 5;
    struct fab_task t = world_task(&arg, sizeof arg);
    setup(1);
    slot_fill_free_ring(&world);
    handles[0] = world_local(0, 1);
    handles[1] = world_local(1, 1);
    MD_CHECK(local_submit(&handles[0]->base, &t, 1, &id, 0) == 1, "submit");
    MD_CHECK(real_claim_rings(handles[1], &lease, 1) == 1, "claim");
}

static void bell_producer(void)
{
    struct fab_outcome o;
    int rc = local_wait(&handles[0]->base, id, &o, FAB_FOREVER);
    MD_CHECK(rc == 0 && o.status == FAB_COMPLETED, "wait says %d, status %u", rc, o.status);
    MD_CHECK(o.len == 8 && o.small == world_answer(5), "the result is not there");
    consumed++;
}

static void bell_worker(void)
{
    uint64_t res = world_answer(lease.small[0]);
    MD_CHECK(local_complete(&handles[1]->base, &lease, &res, sizeof res) == 0, "complete");
}

const struct md_scenario wake_bell = {
    .name = "wake-bell",
    .what = "a task is completed while its producer goes to sleep",
    .setup = setup_bell,
    .body = {bell_producer, bell_worker},
    .check = check,
    .dfs = {6, 2},
    .dfs_long = {8, 3},
    .walks = 20000,
};

/* ---- wake-any ---- */

static void any_producer(void)
{
    struct fab_outcome o;
    long n = local_wait_any(&handles[0]->base, &o, 1, FAB_FOREVER);
    MD_CHECK(n == 1 && o.status == FAB_COMPLETED, "wait_any says %ld, status %u", n, o.status);
    MD_CHECK(o.len == 8 && o.small == world_answer(5), "the result is not there");
    consumed++;
}

static void any_worker(void)
{
    uint64_t answer = world_answer(lease.small[0]);
    struct fab_result res = {.data = &answer, .len = sizeof answer};
    MD_CHECK(local_complete_many(&handles[1]->base, &lease, &res, 1) == 1, "complete");
}

const struct md_scenario wake_any = {
    .name = "wake-any",
    .what = "as wake-bell, in local_wait_any() and local_complete_many()",
    .setup = setup_bell,
    .body = {any_producer, any_worker},
    .check = check,
    .dfs = {6, 2},
    .dfs_long = {8, 3},
    .walks = 10000,
};
