/* SPDX-License-Identifier: MIT
 *
 * scen_keys.c - deduplication keys: of two submits with the same key at the same time one wins, and
 * the other is called a duplicate of something. (Deaths in between are the model's, keys.pml.)
 *
 * Threads: two that enter the key, one that gives another key back, so that the two may find
 * different entries free. Failure: see model.h.
 */
#include "core/dedup.h"
#include "tests/orders/scenarios.h"

#define KEYS  (2 * DEDUP_BUCKET) /* both of a key's buckets, and no more */
#define KEY   7u
#define TRIES 3u

static uint32_t readies;

/* All entries are other keys' but the first, which is given back meanwhile, and the last. */
static void setup_keys(void)
{
    world_make(4, 8, 4);
    world.dedup_keys = KEYS;
    world.key = world_alloc(KEYS * sizeof *world.key);
    for (uint32_t i = 0; i < KEYS - 1; i++) {
        at_store(&world.key[i].key, 100 + i);
        at_store(&world.key[i].expires_ns, 1000);
        at_store(&world.key[i].word, key_word(KEY_HELD, 3, 3, 5));
    }
    at_store(&world.head->keys_used, 1);
    for (uint32_t i = 0; i < 2; i++)
        at_store(&world.slot[i].state, slot_word(1, i, 0, SLOT_FILLING));
    readies = 0;
}

static void enters(void)
{
    uint32_t me = (uint32_t)md_self(), epoch = 1, entry;
    uint64_t until;
    for (uint32_t tries = 0; tries < TRIES; tries++) {
        switch (dedup_enter(&world, me, me, epoch, 0, KEY, 100, &entry, &until)) {
        case KEY_ENTERED:
            MD_CHECK(readies++ == 0, "both have the key");
            at_store_rel(&world.slot[me].state, slot_word(epoch, me, 0, SLOT_READY));
            dedup_confirm(&world, me, entry, me, epoch);
            return;
        case KEY_DUPLICATE:
            MD_CHECK(readies == 1, "a duplicate of nothing");
            return;
        case KEY_BUSY:
        case KEY_FULL:
            at_store_rel(&world.slot[me].state, slot_word(++epoch, me, 0, SLOT_FILLING));
            md_yield();
        }
    }
}

static void gives_back(void)
{
    dedup_release(&world, 0, 3, 5);
}

const struct md_scenario keys = {
    .name = "keys",
    .what = "two enter the same key at once, a third frees an entry",
    .setup = setup_keys,
    .body = {enters, enters, gives_back},
    .dfs = {1, 1},
    .walks = 40000,
};
