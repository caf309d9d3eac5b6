/* SPDX-License-Identifier: MIT
 *
 * scen_death.c - deaths: a worker, or a producer, dies at any access; the undertaker recovers while
 * the others go on; the task has one outcome, nothing leaks.
 *
 * Threads: as each scenario says. Failure: see model.h.
 */
#include <errno.h>
#include <string.h>
#include "core/participant.h"
#include "tests/orders/scenarios.h"

#define UNDERTAKER 9u /* a participant's number that no thread has */

static struct local *handles[MD_THREADS];
static uint32_t ran;
static bool answered;
static fab_id id;
static struct fab_lease lease;

/* The audit looks at slots in groups of 64. */
static void setup(uint32_t slots)
{
    world_make(slots, 2 * slots, MD_THREADS);
    for (uint32_t i = 0; i < MD_THREADS; i++)
        handles[i] = world_local(i, 1);
    ran = 0;
    answered = false;
}

static void submit(struct local *l)
{
    static const uint64_t arg = 3;
    struct fab_task t = world_task(&arg, sizeof arg);
    MD_CHECK(local_submit(&l->base, &t, 1, &id, 0) == 1, "submit");
}

static void complete(struct local *l)
{
    uint64_t res = world_answer(lease.small[0]);
    MD_CHECK(lease.small[0] == 3, "the argument is not there");
    ran++;
    MD_CHECK(local_complete(&l->base, &lease, &res, sizeof res) == 0, "complete");
}

/* How often a slot stands where it can be taken from: a stock, or free with an entry. */
static uint32_t standing;

static void count_entry(void *slot, uint32_t entry)
{
    standing += entry == *(uint32_t *)slot;
}

static void check_home(uint32_t slot, bool stocks)
{
    uint64_t w = at_load(&world.slot[slot].state);
    standing = 0;
    ring_scan(&world, world.free_ring, count_entry, &slot);
    MD_CHECK(standing == 0 || slot_state(w) == SLOT_FREE, "an entry leads to a slot in use");
    for (uint32_t i = 0; stocks && i < MD_THREADS; i++)
        for (uint32_t k = 0; k < handles[i]->stock.n; k++)
            standing += (uint32_t)handles[i]->stock.id[k] == slot;
    MD_CHECK(standing == 1, "slot %u in state %u stands in %u places", slot, slot_state(w),
             standing);
}

/* ---- orphan ---- */

/* Participant 0 has submitted a task and died; worker 1 has claimed it. */
static void setup_orphan(void)
{
    setup(4);
    slot_fill_free_ring(&world);
    submit(handles[0]);
    MD_CHECK(real_claim_rings(handles[1], &lease, 1) == 1, "claim");
}

static void orphan_worker(void)
{
    complete(handles[1]);
}

static void orphan_run_worker(void)
{
    uint64_t answer = world_answer(lease.small[0]);
    struct fab_result res = {.data = &answer, .len = sizeof answer};
    ran++;
    MD_CHECK(local_complete_many(&handles[1]->base, &lease, &res, 1) == 1, "complete");
}

static void orphan_undertaker(void)
{
    real_orphan(UNDERTAKER, 0, (uint32_t)id);
}

/* In the order of undertaker_recover_many(), which complete_many relies on. */
static void orphan_run_undertaker(void)
{
    participant_dead(&world, 0);
    real_orphan(UNDERTAKER, 0, (uint32_t)id);
}

static void orphan_check(void)
{
    check_home((uint32_t)id, true);
}

const struct md_scenario orphan = {
    .name = "orphan",
    .what = "a task is completed while its dead producer's tasks are marked: one of both frees it",
    .setup = setup_orphan,
    .body = {orphan_worker, orphan_undertaker},
    .check = orphan_check,
    .dfs = {4, 2},
    .dfs_long = {8, 4},
    .walks = 10000,
};

const struct md_scenario orphan_run = {
    .name = "orphan-run",
    .what = "the same where the task is completed as one of many",
    .setup = setup_orphan,
    .body = {orphan_run_worker, orphan_run_undertaker},
    .check = orphan_check,
    .dfs = {4, 2},
    .dfs_long = {8, 4},
    .walks = 10000,
};

/* ---- orphan-reuse ---- */

/* Worker 1 completes the dead one's task and uses the slot, which is then in its stock, for a task
 * of its own; nothing of the dead one's must be looked for in that. */
static void reuse_worker(void)
{
    struct local *l = handles[1];
    struct fab_outcome o;
    int rc;
    complete(l);
    submit(l);
    while ((rc = local_wait(&l->base, id, &o, 0)) == -EAGAIN)
        md_yield();
    MD_CHECK(rc == 0 && o.status == FAB_COMPLETED, "wait says %d, status %u", rc, o.status);
    MD_CHECK(o.small == world_answer(3), "the result is not there");
    answered = true;
}

static void reuse_other(void)
{
    struct fab_lease mine;
    while (!answered) {
        if (real_claim_rings(handles[2], &mine, 1)) {
            uint64_t res = world_answer(mine.small[0]);
            MD_CHECK(local_complete(&handles[2]->base, &mine, &res, sizeof res) == 0, "complete");
        }
        md_yield();
    }
}

static uint32_t first_slot;

static void setup_reuse(void)
{
    setup_orphan();
    first_slot = (uint32_t)id;
}

static void reuse_undertaker(void)
{
    real_orphan(UNDERTAKER, 0, first_slot);
}

static void reuse_check(void)
{
    MD_CHECK(answered, "no outcome");
    check_home(first_slot, true);
}

const struct md_scenario orphan_reuse = {
    .name = "orphan-reuse",
    .what = "as orphan; then the slot has a living producer's task",
    .setup = setup_reuse,
    .body = {reuse_worker, reuse_other, reuse_undertaker},
    .check = reuse_check,
    .dfs = {2, 1},
    .dfs_long = {3, 1},
    .walks = 10000,
};

/* ---- worker-dies ---- */

static void setup_worker_dies(void)
{
    setup(64);
    slot_fill_free_ring(&world);
}

static void dies_producer(void)
{
    struct fab_outcome o;
    submit(handles[0]);
    int rc = local_wait(&handles[0]->base, id, &o, FAB_FOREVER);
    MD_CHECK(rc == 0 && o.status == FAB_COMPLETED, "wait says %d, status %u", rc, o.status);
    MD_CHECK(o.small == world_answer(3), "the result is not there");
    answered = true;
    at_store(&world.head->state, SEG_CLOSED); /* the end, as fabricd does it */
    queue_wake_all(&world.queue[0]);
}

static void dies_worker(void)
{
    struct local *l = handles[md_self()];
    struct fab_lease mine;
    while (local_claim(&l->base, 0, &mine, 1, FAB_FOREVER) == 1) {
        uint64_t res = world_answer(mine.small[0]);
        ran++;
        MD_CHECK(mine.small[0] == 3, "the argument is not there");
        MD_CHECK(local_complete(&l->base, &mine, &res, sizeof res) == 0, "complete");
    }
}

static void dies_undertaker(void)
{
    if (md_await_end(1))
        real_recover(UNDERTAKER, 1);
}

static void dies_check(void)
{
    MD_CHECK(answered, "no outcome");
    MD_CHECK(ran >= 1 && ran <= 2, "run %u times", ran);
}

const struct md_scenario worker_dies = {
    .name = "worker-dies",
    .what = "one of 2 workers dies between any two accesses; the other has the task, or gets it",
    .setup = setup_worker_dies,
    .body = {dies_producer, dies_worker, dies_undertaker, dies_worker},
    .check = dies_check,
    .mortal = 2,
    .walks = 20000,
};

/* ---- producer-dies ---- */

static bool recovered; /* the producer has ended and, if it died, been recovered */

static void pdies_worker(void)
{
    struct local *l = handles[1];
    struct fab_lease mine;
    while (!recovered || ring_depth(world_ring())) {
        if (real_claim_rings(l, &mine, 1)) {
            uint64_t res = world_answer(mine.small[0]);
            MD_CHECK(mine.small[0] == 3, "the argument is not there");
            MD_CHECK(local_complete(&l->base, &mine, &res, sizeof res) == 0, "complete");
        }
        md_yield();
    }
}

static void pdies_undertaker(void)
{
    if (md_await_end(0))
        real_recover(UNDERTAKER, 0);
    recovered = true;
}

static void pdies_setup(void)
{
    setup_worker_dies();
    recovered = false;
}

/* Nothing of the dead producer's is left: all slots are in the free ring or in the worker's stock;
 * a producer that lived has its slot back in its own. */
static void pdies_check(void)
{
    for (uint32_t i = 0; i < world.slots; i++) {
        uint64_t w = at_load(&world.slot[i].state);
        bool in_stock = handles[1]->stock.n && (uint32_t)handles[1]->stock.id[0] == i;
        if (!answered)
            MD_CHECK(slot_state(w) == SLOT_FREE || in_stock, "slot %u is left in state %u", i,
                     slot_state(w));
    }
}

const struct md_scenario producer_dies = {
    .name = "producer-dies",
    .what = "a producer dies between any two accesses; nothing of its is left",
    .setup = pdies_setup,
    .body = {dies_producer, pdies_worker, pdies_undertaker},
    .check = pdies_check,
    .mortal = 1,
    .walks = 20000,
};
