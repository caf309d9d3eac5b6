/* SPDX-License-Identifier: MIT
 *
 * scen_ring.c - the ring: each entry is taken exactly once, in its producer's order, and what was
 * written before the put is visible after the take; holes wedge nobody.
 *
 * Threads: as each scenario says. What is static here is the scenarios' own knowledge, outside of
 * the modelled memory. Failure: MD_CHECK, a race, or no end.
 */
#include <string.h>
#include "tests/orders/scenarios.h"

#define VALUES 8u

static uint64_t *payload;
static uint32_t taken[VALUES], taken_n;
static uint32_t last_of[2];
static bool put_done;

static void reset(uint32_t cells)
{
    world_make(VALUES, cells, 0);
    payload = world_alloc(VALUES * sizeof *payload);
    memset(taken, 0, sizeof taken);
    taken_n = 0;
    last_of[0] = last_of[1] = 0;
    put_done = false;
}

static void put_all(uint32_t first, uint32_t n, uint32_t batch)
{
    uint64_t value[VALUES], head = at_load_rlx(&world_ring()->head); /* as ring_put() */
    for (uint32_t i = 0; i < n; i++) {
        value[i] = first + i;
        payload[first + i] = world_answer(first + i);
    }
    for (uint32_t done = 0; done < n;) {
        uint32_t want = n - done < batch ? n - done : batch;
        uint32_t k = ring_put_many(&world, world_ring(), &head, value + done, want);
        done += k;
        if (k == 0)
            md_yield(); /* full */
    }
}

static void got(uint32_t value)
{
    MD_CHECK(value < VALUES, "took %u, which nobody put", value);
    MD_CHECK(++taken[value] == 1, "%u was taken twice", value);
    MD_CHECK(payload[value] == world_answer(value), "the payload of %u is not there", value);
    taken_n++;
}

static void take_until(uint32_t n, uint32_t batch, bool close)
{
    uint32_t value[VALUES];
    while (taken_n < n) {
        uint32_t k = ring_take(&world, world_ring(), value, batch);
        for (uint32_t i = 0; i < k; i++)
            got(value[i]);
        if (k == 0 && close && ring_depth(world_ring()))
            ring_close_holes(&world, world_ring());
        if (k == 0)
            md_yield();
    }
}

static void all_taken(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        MD_CHECK(taken[i] == 1, "%u was taken %u times", i, taken[i]);
    MD_CHECK(ring_depth(world_ring()) == 0, "the ring is not empty at the end");
}

/* ---- ring-mpsc ---- */

static void setup_4(void)
{
    reset(4);
}

static void mpsc_batch(void)
{
    put_all(0, 2, 2);
}

static void mpsc_singles(void)
{
    put_all(2, 2, 1);
}

static void mpsc_consumer(void)
{
    uint32_t value[2];
    while (taken_n < 4) {
        uint32_t k = ring_take(&world, world_ring(), value, 2);
        for (uint32_t i = 0; i < k; i++) {
            got(value[i]);
            MD_CHECK(value[i] % 2 == last_of[value[i] / 2]++, "%u out of order", value[i]);
        }
        if (k == 0)
            md_yield();
    }
}

static void four_taken(void)
{
    all_taken(4);
}

const struct md_scenario ring_mpsc = {
    .name = "ring-mpsc",
    .what = "2 producers (a batch of two; two singles), 1 consumer, 4 cells",
    .setup = setup_4,
    .body = {mpsc_batch, mpsc_singles, mpsc_consumer},
    .check = four_taken,
    .dfs = {2, 1},
    .dfs_long = {3, 1},
    .walks = 30000,
};

/* ---- ring-laps ---- */

static void laps_producer(void)
{
    put_all(0, 6, 2);
}

static void laps_consumer(void)
{
    take_until(6, 2, false);
}

static void six_taken(void)
{
    all_taken(6);
}

const struct md_scenario ring_laps = {
    .name = "ring-laps",
    .what = "1 producer goes round a 4-cell ring, 2 consumers compete",
    .setup = setup_4,
    .body = {laps_producer, laps_consumer, laps_consumer},
    .check = six_taken,
    .dfs = {1, 1},
    .dfs_long = {2, 1},
    .walks = 30000,
};

/* ---- ring-hole-death ---- */

static void death_mortal(void)
{
    payload[2] = world_answer(2);
    put_done = ring_put(&world, world_ring(), 2);
}

static void death_other(void)
{
    put_all(0, 2, 1);
}

static void death_consumer(void)
{
    while (!taken[0] || !taken[1])
        take_until(taken_n + 1, 2, true);
}

/* What the dead one may have left: a hole, its entry, or nothing. */
static void death_check(void)
{
    uint32_t value[VALUES], n;
    ring_close_holes(&world, world_ring());
    while ((n = ring_take(&world, world_ring(), value, VALUES)) > 0)
        for (uint32_t i = 0; i < n; i++)
            got(value[i]);
    MD_CHECK(!put_done || taken[2] == 1, "the entry of a put that returned is lost");
    MD_CHECK(ring_depth(world_ring()) == 0, "a hole was left");
}

const struct md_scenario ring_hole_death = {
    .name = "ring-hole-death",
    .what = "a producer dies anywhere in its put; another's entries come through, 4 cells",
    .setup = setup_4,
    .body = {death_mortal, death_other, death_consumer},
    .check = death_check,
    .mortal = 1,
    .dfs = {2, 1},
    .dfs_long = {3, 1},
    .walks = 20000,
};

/* ---- ring-hole-slow ---- */

static void slow_producer(void)
{
    put_all(0, 2, 2);
}

static void slow_closer(void)
{
    ring_close_holes(&world, world_ring());
    ring_close_holes(&world, world_ring());
}

static void slow_consumer(void)
{
    take_until(2, 2, false);
}

static void two_taken(void)
{
    ring_close_holes(&world, world_ring());
    uint32_t value[VALUES];
    MD_CHECK(ring_take(&world, world_ring(), value, VALUES) == 0, "an entry was put twice");
    all_taken(2);
}

const struct md_scenario ring_hole_slow = {
    .name = "ring-hole-slow",
    .what = "holes are closed under a producer that lives; it takes other positions, 4 cells",
    .setup = setup_4,
    .body = {slow_producer, slow_closer, slow_consumer},
    .check = two_taken,
    .dfs = {3, 1},
    .dfs_long = {4, 1},
    .walks = 20000,
};
