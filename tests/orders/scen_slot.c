/* SPDX-License-Identifier: MIT
 *
 * scen_slot.c - slots: a task goes from READY to LEASED to DONE with its argument and its result,
 * by way of the ring or of a watched slot, and is claimed once; free slots have one owner.
 *
 * Threads: as each scenario says. Failure: see model.h.
 */
#include <errno.h>
#include <string.h>
#include "tests/orders/scenarios.h"

#define TASKS 2u

static struct local *handles[MD_THREADS];
static uint32_t run_n[16], ran; /* by argument */
static uint32_t wanted;
static bool over;

static void setup(uint32_t tasks, uint32_t participants)
{
    world_make(4, 8, participants);
    slot_fill_free_ring(&world);
    for (uint32_t i = 0; i < participants; i++)
        handles[i] = world_local(i, 1);
    memset(run_n, 0, sizeof run_n);
    ran = 0;
    wanted = tasks;
    over = false;
}

/* The task's answer; each task is to come once. */
static uint64_t run_argument(const struct fab_lease *lease)
{
    const uint64_t *arg = fab_arg(lease);
    MD_CHECK(arg[0] < 16, "argument %#llx was never submitted", (unsigned long long)arg[0]);
    MD_CHECK(++run_n[arg[0]] == 1, "task %u was run twice", (unsigned)arg[0]);
    MD_CHECK(lease->len == 8 || arg[lease->len / 8 - 1] == world_answer(arg[0]),
             "half an argument");
    ran++;
    return world_answer(arg[0]);
}

static void run_task(struct local *l, const struct fab_lease *lease)
{
    uint64_t res = run_argument(lease);
    MD_CHECK(local_complete(&l->base, lease, &res, sizeof res) == 0, "complete");
}

static void ring_worker(void)
{
    struct local *l = handles[md_self()];
    struct fab_lease lease;
    while (ran < wanted)
        if (real_claim_rings(l, &lease, 1))
            run_task(l, &lease);
        else
            md_yield();
}

static void hot_worker(void)
{
    struct local *l = handles[md_self()];
    struct fab_lease lease;
    while (ran < wanted)
        if (real_claim_hot(l, &lease) || real_claim_rings(l, &lease, 1))
            run_task(l, &lease);
        else
            md_yield();
}

static void submit(struct local *l, uint64_t number, uint32_t len, fab_id *id)
{
    uint64_t arg[8] = {number};
    struct fab_task t = world_task(arg, len);
    if (len > 8)
        arg[len / 8 - 1] = world_answer(number);
    MD_CHECK(local_submit(&l->base, &t, 1, id, 0) == 1, "submit");
}

static void await(struct local *l, fab_id id, uint64_t number)
{
    struct fab_outcome o;
    int rc;
    /* a try, not a sleep: the sleep is scen_wake.c's */
    while ((rc = local_wait(&l->base, id, &o, 0)) != 0) {
        MD_CHECK(rc == -EAGAIN, "wait says %d", rc);
        md_yield();
    }
    MD_CHECK(o.status == FAB_COMPLETED && o.len == 8, "status %u, %u bytes", o.status, o.len);
    MD_CHECK(o.small == world_answer(number), "the result is not there");
}

static void producer(void)
{
    struct local *l = handles[md_self()];
    for (uint64_t i = 0; i < wanted; i++) {
        fab_id id;
        submit(l, i, i % 2 ? 64 : 8, &id);
        await(l, id, i);
    }
    over = true;
}

static void check(void)
{
    MD_CHECK(over && ran == wanted, "%u of %u tasks were run", ran, wanted);
    for (uint32_t i = 0; i < wanted; i++)
        MD_CHECK(run_n[i] == 1, "task %u was run %u times", i, run_n[i]);
}

/* ---- slot-handover ---- */

static void setup_handover(void)
{
    setup(TASKS, 3);
}

const struct md_scenario slot_handover = {
    .name = "slot-handover",
    .what = "READY, LEASED, DONE through the ring: 1 producer, 2 workers, 2 tasks",
    .setup = setup_handover,
    .body = {producer, ring_worker, ring_worker},
    .check = check,
    .dfs = {1, 1},
    .dfs_long = {2, 1},
    .walks = 30000,
};

/* ---- slot-hot ---- */

const struct md_scenario slot_hot = {
    .name = "slot-hot",
    .what = "the next task in the same slot: one worker watches it, another looks into the ring",
    .setup = setup_handover,
    .body = {producer, hot_worker, ring_worker},
    .check = check,
    .dfs = {1, 1},
    .dfs_long = {2, 1},
    .walks = 40000,
};

/* ---- slot-cancel ---- */

static void cancel_producer(void)
{
    struct local *l = handles[0];
    struct fab_outcome o;
    fab_id id;
    int rc;
    submit(l, 0, 64, &id);
    bool withdrawn = local_withdraw(&l->base, id) == 0;
    while ((rc = local_wait(&l->base, id, &o, 0)) != 0)
        md_yield();
    MD_CHECK(o.status == (withdrawn ? FAB_CANCELLED : FAB_COMPLETED), "status %u", o.status);
    MD_CHECK(withdrawn || o.small == world_answer(0), "the result is not there");
    /* the slot's next task, with a stale entry of the first one in the ring if that was withdrawn
     */
    submit(l, 1, 8, &id);
    await(l, id, 1);
    MD_CHECK(run_n[0] == !withdrawn, "withdrawn %d, run %u times", withdrawn, run_n[0]);
    wanted = ran;
    over = true;
}

const struct md_scenario slot_cancel = {
    .name = "slot-cancel",
    .what = "a task is withdrawn while it is claimed; then the slot has another",
    .setup = setup_handover,
    .body = {cancel_producer, hot_worker},
    .dfs = {2, 1},
    .dfs_long = {3, 2},
    .walks = 20000,
};

/* ---- slot-run ---- */

/* Two at once, twice: written, claimed and taken by the loops for runs of plain tasks. */
static void run_producer(void)
{
    struct local *l = handles[md_self()];
    struct fab_outcome o[TASKS];
    for (uint64_t round = 0; round < 2; round++) {
        uint64_t arg[TASKS] = {round * TASKS, round * TASKS + 1};
        struct fab_task t[TASKS] = {world_task(&arg[0], 8), world_task(&arg[1], 8)};
        MD_CHECK(local_submit(&l->base, t, TASKS, NULL, 0) == TASKS, "submit");
        for (uint32_t got = 0; got < TASKS;) {
            long n = local_wait_any(&l->base, o, TASKS, 0);
            for (long i = 0; i < n; i++)
                MD_CHECK(o[i].status == FAB_COMPLETED &&
                             (o[i].small == world_answer(arg[0]) ||
                              o[i].small == world_answer(arg[1])),
                         "the result is not there");
            MD_CHECK(n > 0 || n == -EAGAIN, "wait says %ld", n);
            got += n > 0 ? (uint32_t)n : 0;
            if (n < 0)
                md_yield();
        }
    }
    over = true;
}

static void run_worker(void)
{
    struct local *l = handles[md_self()];
    struct fab_lease lease[TASKS];
    while (ran < wanted) {
        struct fab_result res[TASKS];
        uint64_t answer[TASKS];
        uint32_t n = real_claim_rings(l, lease, TASKS);
        for (uint32_t i = 0; i < n; i++) {
            answer[i] = run_argument(&lease[i]);
            res[i] = (struct fab_result){.data = &answer[i], .len = sizeof answer[i]};
        }
        MD_CHECK(local_complete_many(&l->base, lease, res, n) == n, "complete");
        if (n == 0)
            md_yield();
    }
}

static void setup_run(void)
{
    setup(2 * TASKS, 3);
    handles[0] = world_local(0, TASKS);
}

const struct md_scenario slot_run = {
    .name = "slot-run",
    .what = "tasks two by two: 1 producer, 2 workers, 4 tasks",
    .setup = setup_run,
    .body = {run_producer, run_worker, run_worker},
    .check = check,
    .dfs = {1, 1},
    .dfs_long = {2, 1},
    .walks = 30000,
};

/* ---- slot-stock ---- */

static int owner[4]; /* 0: free */

static void stock_user(void)
{
    struct local *l = handles[md_self()];
    for (int round = 0; round < 2; round++) {
        slot_stock_refill(&world, &l->stock, l->me, 2);
        for (uint32_t i = 0; i < l->stock.n; i++) {
            uint32_t slot = (uint32_t)l->stock.id[i];
            MD_CHECK(owner[slot] == 0, "slot %u has two owners", slot);
            owner[slot] = 1 + md_self();
            world.slot[slot].tag = l->me; /* a race unless the hand-over orders it */
        }
        for (uint32_t i = 0; i < l->stock.n; i++)
            owner[(uint32_t)l->stock.id[i]] = 0;
        slot_stock_shrink(&world, &l->stock, l->me, 0);
    }
}

static void stock_closer(void)
{
    ring_close_holes(&world, world.free_ring);
}

static void setup_stock(void)
{
    setup(0, 2);
    handles[0] = world_local(0, 2);
    handles[1] = world_local(1, 2);
    memset(owner, 0, sizeof owner);
}

static uint32_t entries[4];

static void count_entry(void *arg, uint32_t slot)
{
    (void)arg;
    entries[slot]++;
}

/* A tombstone may leave a slot without room in the ring: then the audit has been asked for. */
static void check_stock(void)
{
    bool audit = at_load(&world.head->audit_wanted);
    memset(entries, 0, sizeof entries);
    ring_scan(&world, world.free_ring, count_entry, NULL);
    for (uint32_t i = 0; i < 4; i++) {
        MD_CHECK(slot_state(at_load(&world.slot[i].state)) == SLOT_FREE, "slot %u is not free", i);
        MD_CHECK(entries[i] == 1 || (entries[i] == 0 && audit), "slot %u has %u entries", i,
                 entries[i]);
    }
}

const struct md_scenario slot_stock = {
    .name = "slot-stock",
    .what = "2 participants take free slots and give them back while holes are closed",
    .setup = setup_stock,
    .body = {stock_user, stock_user, stock_closer},
    .check = check_stock,
    .dfs = {1, 2},
    .dfs_long = {2, 2},
    .walks = 30000,
};
