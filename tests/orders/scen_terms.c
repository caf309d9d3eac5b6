/* SPDX-License-Identifier: MIT
 *
 * scen_terms.c - a time limit that passes just when something else happens to the task: its worker is
 * buried, or finds that it has expired, or frees it because its producer is dead. Whoever is last must
 * leave the slot to somebody. (tests/model/terms.pml has the same with more steps and deaths.)
 *
 * Threads: as each scenario says. Failure: see model.h.
 */
#include <errno.h>
#include "core/terms.h"
#include "core/undertaker.h"
#include "tests/orders/scenarios.h"

#define UNDERTAKER 9u /* a participant's number that no thread has */
#define PRODUCER   0u
#define WORKER     1u

static struct local *handles[2];
static fab_id id;
static uint32_t slot;
static uint64_t leased; /* the word of the worker's lease */
static struct fab_lease lease;
static const struct wake_out no_daemon = {.daemon_fd = -1};

/* A task with a time limit that waits; time stands still at 1. */
static void setup(uint64_t expires_ns)
{
    static const uint64_t arg = 3;
    struct fab_terms terms = {.limit_ns = 1000};
    struct fab_task t = world_task(&arg, sizeof arg);
    world_make(4, 8, 2);
    for (uint32_t i = 0; i < 2; i++)
        handles[i] = world_local(i, 1);
    slot_fill_free_ring(&world);
    t.terms = &terms;
    MD_CHECK(local_submit(&handles[PRODUCER]->base, &t, 1, &id, 0) == 1, "submit");
    slot = (uint32_t)id;
    terms_of(&world, slot)->expires_ns = expires_ns;
    leased = slot_word((uint32_t)(id >> 32), WORKER, 1, SLOT_LEASED);
}

static void setup_leased(void)
{
    setup(0);
    MD_CHECK(real_claim_rings(handles[WORKER], &lease, 1) == 1, "claim");
}

static void setup_overrun(void)
{
    setup_leased();
    MD_CHECK(undertaker_end(&world, &no_daemon, UNDERTAKER, slot, leased, SLOT_OVERRUN), "overrun");
}

static void setup_expired(void)
{
    setup(1);
}

static void take(void)
{
    struct fab_outcome o;
    int rc;
    while ((rc = local_wait(&handles[PRODUCER]->base, id, &o, 0)) == -EAGAIN)
        md_yield();
    MD_CHECK(rc == 0 && (o.status == FAB_OVERRUN || o.status == FAB_EXPIRED), "wait says %d, status %u",
             rc, o.status);
}

static void claim(void)
{
    MD_CHECK(real_claim_rings(handles[WORKER], &lease, 1) == 0, "an expired task is started");
}

static void complete(void)
{
    uint64_t res = world_answer(3);
    int rc = local_complete(&handles[WORKER]->base, &lease, &res, sizeof res);
    MD_CHECK(rc == 0 || rc == -ESTALE, "complete says %d", rc);
}

static void bury_worker(void)
{
    real_recover_slot(UNDERTAKER, WORKER, slot);
}

static void orphan_it(void)
{
    real_orphan(UNDERTAKER, PRODUCER, slot);
}

/* As soon as it is leased, as fabricd's timer does it. */
static void overrun_it(void)
{
    uint64_t w;
    while (slot_state(w = at_load(&world.slot[slot].state)) == SLOT_READY)
        md_yield();
    if (w == leased)
        (void)undertaker_end(&world, &no_daemon, UNDERTAKER, slot, w, SLOT_OVERRUN);
}

static void orphan_and_overrun(void)
{
    orphan_it();
    (void)undertaker_end(&world, &no_daemon, UNDERTAKER, slot, leased, SLOT_OVERRUN);
}

/* How often it stands where it can be taken from: a stock, or free with an entry. */
static uint32_t standing;

static void count_entry(void *arg, uint32_t entry)
{
    (void)arg;
    standing += entry == slot;
}

static void check(void)
{
    uint64_t w = at_load(&world.slot[slot].state);
    standing = 0;
    if (slot_state(w) == SLOT_FREE)
        ring_scan(&world, world.free_ring, count_entry, NULL);
    for (uint32_t i = 0; i < 2; i++)
        for (uint32_t k = 0; k < handles[i]->stock.n; k++)
            standing += (uint32_t)handles[i]->stock.id[k] == slot;
    MD_CHECK(standing == 1, "slot %u, in state %u of owner %u, stands in %u places", slot, slot_state(w),
             slot_owner(w), standing);
}

const struct md_scenario overrun_buried = {
    .name = "overrun-buried",
    .what = "the outcome of an attempt that took too long is taken while its worker is buried",
    .setup = setup_overrun,
    .body = {take, bury_worker},
    .check = check,
    .dfs = {4, 1},
    .walks = 5000,
};

const struct md_scenario overrun_unstarted = {
    .name = "overrun-unstarted",
    .what = "a claimer finds that the task has expired, and its time limit passes meanwhile",
    .setup = setup_expired,
    .body = {take, claim, overrun_it},
    .check = check,
    .dfs = {3, 0},
    .dfs_long = {4, 1},
    .walks = 5000,
};

const struct md_scenario expired_orphan = {
    .name = "expired-orphan",
    .what = "a claimer finds that the task has expired while its dead producer's tasks are marked",
    .setup = setup_expired,
    .body = {claim, orphan_it},
    .check = check,
    .dfs = {4, 1},
    .walks = 5000,
};

const struct md_scenario orphan_overrun = {
    .name = "orphan-overrun",
    .what = "a dead producer's task is completed when its time limit passes: it is freed once",
    .setup = setup_leased,
    .body = {complete, orphan_and_overrun},
    .check = check,
    .dfs = {4, 1},
    .walks = 5000,
};
