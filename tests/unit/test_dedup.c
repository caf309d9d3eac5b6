/* SPDX-License-Identifier: MIT
 *
 * test_dedup.c - deduplication keys: the window, what gives a key back, a full table, and what a
 * producer leaves that died in the middle of a submit.
 */
#include "core/check.h"
#include "core/clock.h"
#include "core/dedup.h"
#include "core/fabric.h"
#include "core/queue.h"
#include "core/terms.h"
#include "core/undertaker.h"
#include "tests/unit/unit.h"
#include <sched.h>

#define MS 1000000ull

static struct segment seg;
static fab_t *p, *q, *w; /* two producers, a worker */
static const struct wake_out nobody = {.daemon_fd = -1};

static void make(uint32_t keys)
{
    static const char *const names[] = {"default", "second"};
    struct segment_params params = {.name = "unit",
                                    .version = "0",
                                    .slots = 256,
                                    .participants = 8,
                                    .arena_bytes = 0,
                                    .queues = 2,
                                    .queue_names = names,
                                    .dedup_keys = keys,
                                    .huge = SEGMENT_HUGE_NEVER,
                                    .numa_node = -1};
    cr_assert_eq(segment_create(&seg, &params), 0, "%s", fab_errmsg());
    p = unit_handle(&seg, "p", -1);
    q = unit_handle(&seg, "q", -1);
    w = unit_handle(&seg, "w", -1);
}

static long put(fab_t *f, uint64_t key, uint64_t window_ns, uint32_t queue, fab_id *id,
                int64_t timeout_ns)
{
    struct fab_terms terms = {.key = key, .dedup_ns = window_ns};
    struct fab_task t = {.kernel = 1, .queue = (uint8_t)queue, .tag = key, .terms = &terms};
    return fab_submit(f, &t, 1, id, timeout_ns);
}

static fab_id must_put(fab_t *f, uint64_t key, uint64_t window_ns, uint32_t queue)
{
    fab_id id = 0;
    cr_assert_eq(put(f, key, window_ns, queue, &id, 0), 1, "%s", fab_errmsg());
    cr_assert_neq(id, 0);
    return id;
}

static struct fab_outcome taken(fab_t *f, fab_id id)
{
    struct fab_outcome o;
    cr_assert_eq(fab_wait(f, id, &o, 0), 0, "%s", fab_errmsg());
    return o;
}

/* The same, and it is no duplicate. */
static fab_id fresh(fab_t *f, uint64_t key, uint64_t window_ns, uint32_t queue)
{
    struct fab_outcome o;
    fab_id id = must_put(f, key, window_ns, queue);
    cr_assert_eq(fab_wait(f, id, &o, 0), -EAGAIN, "it has an outcome");
    return id;
}

/* Claims and completes whatever is there; returns how many. */
static int run_all(uint32_t queue)
{
    struct fab_lease l;
    int n = 0;
    while (fab_claim(w, queue, &l, 1, 0) == 1) {
        cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
        n++;
    }
    return n;
}

static void is_duplicate(fab_t *f, uint64_t key)
{
    size_t before = fab_outstanding(f);
    fab_id id = must_put(f, key, 1000 * MS, 0);
    struct fab_outcome o = taken(f, id);
    cr_assert_eq(o.status, FAB_DUPLICATE);
    cr_assert_eq(o.tag, key);
    cr_assert(o.attempts == 0 && o.len == 0);
    cr_assert_eq(fab_outstanding(f), before);
    cr_assert_eq(fab_wait(f, id, &o, 0), -ENOENT, "exactly one outcome");
}

Test(dedup, one_is_run_in_a_window_whatever_becomes_of_it)
{
    make(1024);
    fab_id first = fresh(p, 7, 60000 * MS, 0);
    is_duplicate(p, 7); /* it waits */
    is_duplicate(q, 7);
    struct fab_lease l;
    cr_assert_eq(fab_claim(w, 0, &l, 1, 0), 1);
    is_duplicate(q, 7); /* it is being run */
    cr_assert_eq(fab_fail(w, &l, "no"), 0);
    is_duplicate(q, 7); /* it has failed */
    cr_assert_eq(taken(p, first).status, FAB_FAILED);
    is_duplicate(q, 7); /* its outcome is taken */
    cr_assert_eq(run_all(0), 0);
    /* another key, and the same one in another queue, are others */
    fab_id other = fresh(q, 8, 60000 * MS, 0), second = fresh(q, 7, 60000 * MS, 1);
    cr_assert_eq(run_all(0) + run_all(1), 2);
    cr_assert_eq(taken(q, other).status, FAB_COMPLETED);
    cr_assert_eq(taken(q, second).status, FAB_COMPLETED);
    cr_assert_eq(dedup_held(&seg), 3);
}

Test(dedup, the_window_counts_from_the_first_submit)
{
    make(1024);
    uint64_t start = clock_ns();
    fab_id first = fresh(p, 7, 100 * MS, 0), again;
    do { /* duplicates don't prolong it, and it need not have been run */
        again = must_put(q, 7, 60000 * MS, 0);
    } while (fab_cancel(q, again) != 0 && taken(q, again).status == FAB_DUPLICATE);
    uint64_t took = clock_ns() - start;
    cr_assert(took >= 100 * MS && took < 5000 * MS, "%llu ns", (unsigned long long)took);
    cr_assert_eq(run_all(0), 1);
    cr_assert_eq(taken(p, first).status, FAB_COMPLETED);
}

Test(dedup, a_task_that_was_never_started_gives_its_key_back)
{
    make(1024);
    fab_id id = fresh(p, 7, 60000 * MS, 0);
    cr_assert_eq(fab_cancel(p, id), 0);
    fab_id next = fresh(q, 7, 60000 * MS, 0);
    cr_assert_eq(taken(p, id).status, FAB_CANCELLED);
    struct fab_lease l;
    cr_assert_eq(fab_claim(w, 0, &l, 1, 0), 1);
    cr_assert_eq(fab_release(w, &l), 0);
    cr_assert_eq(fab_cancel(q, next), 0); /* a worker has had it */
    cr_assert_eq(taken(q, next).status, FAB_CANCELLED);
    is_duplicate(p, 7);
    /* one that expires, ended by fabricd's timers and by a worker */
    for (int by_worker = 0; by_worker < 2; by_worker++) {
        struct fab_terms terms = {.key = 9, .dedup_ns = 60000 * MS, .expire_ns = 1};
        struct fab_task t = {.kernel = 1, .terms = &terms};
        cr_assert_eq(fab_submit(p, &t, 1, &id, 0), 1);
        uint64_t word = at_load(&seg.slot[(uint32_t)id].state);
        if (by_worker)
            cr_assert_eq(run_all(0), 0);
        else
            cr_assert(undertaker_end(&seg, &nobody, unit_id(w), (uint32_t)id, word, SLOT_EXPIRED));
        cr_assert_eq(taken(p, id).status, FAB_EXPIRED);
    }
    fresh(q, 9, 60000 * MS, 0);
}

Test(dedup, duplicates_nobody_waits_for_vanish)
{
    make(1024);
    struct fab_terms terms = {.key = 7, .dedup_ns = 60000 * MS};
    struct fab_task t = {.kernel = 1, .terms = &terms, .flags = FAB_NO_WAIT};
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(fab_submit(p, &t, 1, NULL, 0), 1, "%s", fab_errmsg());
    cr_assert_eq(fab_outstanding(p), 0);
    cr_assert_eq(at_load(&seg.participant[unit_id(p)].counts[0].duplicates), 999);
    cr_assert_eq(at_load(&seg.participant[unit_id(p)].counts[0].submitted), 1);
    cr_assert_eq(run_all(0), 1);
    fab_t *all[] = {p, w};
    for (int i = 0; i < 2; i++) {
        struct local *l = (struct local *)all[i];
        slot_stock_shrink(&seg, &l->stock, l->me, 0);
    }
    cr_assert_eq(unit_slots_in(&seg, SLOT_FREE), seg.slots);
}

Test(dedup, a_full_table_is_no_room)
{
    make(64);
    uint64_t n = 0, start = clock_ns();
    fab_id id;
    while (put(p, ++n, 1000 * MS, 0, &id, 0) == 1)
        cr_assert_leq(n, 64);
    cr_assert_eq(put(p, n, 1000 * MS, 0, &id, 0), -EAGAIN);
    cr_assert(strstr(fab_errmsg(), "segment.dedup_keys"), "%s", fab_errmsg());
    cr_assert_gt(n, 48, "%u", (unsigned)n);
    cr_assert_eq(put(p, n, 1000 * MS, 0, &id, 10 * MS), -ETIMEDOUT);
    cr_assert(strstr(fab_errmsg(), "segment.dedup_keys"), "%s", fab_errmsg());
    is_duplicate(q, 1); /* no room is needed for that */
    /* windows end by themselves, and who waits for it gets in then */
    cr_assert_eq(put(p, n, 1000 * MS, 0, &id, UNIT_SECOND * 5), 1, "%s", fab_errmsg());
    uint64_t took = clock_ns() - start;
    cr_assert(took >= 1000 * MS && took < 4000 * MS, "%llu ns", (unsigned long long)took);
    cr_assert_eq(run_all(0), (int)n);
}

Test(dedup, a_fabric_without_keys_says_so)
{
    make(0);
    fab_id id;
    cr_assert_eq(put(p, 7, MS, 0, &id, FAB_FOREVER), -ENOTSUP);
    cr_assert(strstr(fab_errmsg(), "segment.dedup_keys"), "%s", fab_errmsg());
    struct fab_terms bad[] = {{.key = 1}, {.dedup_ns = 1}, {.key = 1, .dedup_ns = UINT64_MAX}};
    segment_unmap(&seg);
    make(64);
    for (int i = 0; i < 3; i++) {
        struct fab_task t = {.kernel = 1, .terms = &bad[i]};
        cr_assert_eq(fab_submit(p, &t, 1, &id, 0), -EINVAL, "%d", i);
    }
}

/* A slot that p fills, as a submit that has come as far as its key. */
static uint32_t filling(uint32_t *epoch, uint32_t *entry, uint64_t key)
{
    struct local *l = (struct local *)p;
    uint64_t until;
    cr_assert_geq(slot_stock_refill(&seg, &l->stock, l->me, 1), 1);
    slot_stock_settle(&seg, &l->stock, l->me);
    uint32_t slot = (uint32_t)l->stock.id[--l->stock.n];
    *epoch = slot_epoch(at_load(&seg.slot[slot].state));
    cr_assert_eq(dedup_enter(&seg, l->me, slot, *epoch, 0, key, 60000 * MS, entry, &until),
                 KEY_ENTERED);
    return slot;
}

static void dies(fab_t *f)
{
    struct undertaker_report r;
    undertaker_recover(&seg, &nobody, unit_id(w), unit_id(f), true, &r);
}

Test(dedup, a_producer_that_dies_before_its_task_is_ready_burns_no_key)
{
    make(1024);
    uint32_t epoch, entry;
    (void)filling(&epoch, &entry, 7);
    fab_id id;
    /* "duplicate" would be a lie, and so would "run it" */
    cr_assert_eq(put(q, 7, MS, 0, &id, 0), -EAGAIN);
    cr_assert(strstr(fab_errmsg(), "same key"), "%s", fab_errmsg());
    cr_assert_eq(put(q, 7, MS, 0, &id, 20 * MS), -ETIMEDOUT);
    /* killed before it had written the key */
    at_store(&seg.key[100].word, key_word(KEY_CLAIMED, unit_id(p), 3, 1));
    dies(p);
    cr_assert_eq(at_load(&seg.key[100].word), 0);
    fresh(q, 7, 60000 * MS, 0);
    cr_assert_eq(run_all(0), 1);
    is_duplicate(q, 7);
}

Test(dedup, a_producer_that_dies_after_it_keeps_the_key)
{
    make(1024);
    uint32_t epoch, entry, slot = filling(&epoch, &entry, 7);
    queue_use(&seg, 0, 0);
    at_store(&seg.slot[slot].meta, slot_meta(unit_id(p), 0, 0, 0));
    at_store(&seg.slot[slot].state, slot_word(epoch, unit_id(p), 0, SLOT_READY));
    is_duplicate(q, 7); /* not confirmed, but certain */
    dies(p);
    cr_assert_eq(key_state(at_load(&seg.key[entry].word)), KEY_HELD);
    is_duplicate(q, 7);
    cr_assert_eq(run_all(0), 1);
    is_duplicate(q, 7);
}

Test(dedup, a_producer_that_dies_while_it_cancels_burns_no_key)
{
    make(1024);
    fab_id id = fresh(p, 7, 60000 * MS, 0);
    uint64_t word = at_load(&seg.slot[(uint32_t)id].state);
    at_store(&seg.slot[(uint32_t)id].state,
             slot_word(slot_epoch(word), unit_id(p), 0, SLOT_CANCELLED));
    dies(p);
    fresh(q, 7, 60000 * MS, 0);
}

Test(dedup, damaged_entries_are_found_and_hold_nobody_up)
{
    make(64);
    fresh(p, 7, 60000 * MS, 0);
    struct check_report r;
    cr_assert_eq(segment_check(&seg, &nobody, unit_id(w), &r), 0, "%s", r.first);
    at_store(&seg.key[3].word, key_word(KEY_HELD, unit_id(p), seg.slots + 1, 1));
    at_store(&seg.key[4].word, key_word(KEY_TENTATIVE, 7, 1, 1)); /* nobody's */
    at_store(&seg.key[5].word, key_word(KEY_HELD, unit_id(p), 1, 1));
    at_store(&seg.key[5].expires_ns, UINT64_MAX);
    at_store(&seg.key[6].word, key_word(KEY_FREE, unit_id(p), 1, 1));
    cr_assert_eq(segment_check(&seg, &nobody, unit_id(w), &r), 4, "%s", r.first);
    cr_assert_eq(r.keys, 4);
    cr_assert_eq(segment_check(&seg, &nobody, unit_id(w), &r), 0, "%s", r.first);
}

/* ---- two at the same time ---- */

#define RACE_ROUNDS 60000u

static struct racer {
    uint32_t me, slot, epoch;
    uint64_t dice;
    uint32_t won, busy;
    _Atomic uint32_t round, done;
    const char *trouble;
} racers[2];
static _Atomic uint32_t winners;

static void fill_anew(struct racer *r)
{
    at_store(&seg.slot[r->slot].state, slot_word(++r->epoch, r->me, 0, SLOT_FILLING));
}

/* As a submit does it, until the key is its own or another's. */
static bool wins(struct racer *r, uint64_t key, uint64_t window, uint32_t *entry)
{
    uint64_t until;
    for (;;) {
        fill_anew(r);
        switch (dedup_enter(&seg, r->me, r->slot, r->epoch, 0, key, window, entry, &until)) {
        case KEY_ENTERED:
            at_store_rel(&seg.slot[r->slot].state, slot_word(r->epoch, r->me, 0, SLOT_READY));
            dedup_confirm(&seg, r->me, *entry, r->slot, r->epoch);
            return true;
        case KEY_DUPLICATE:
            return false;
        case KEY_BUSY:
            r->busy++;
            break;
        case KEY_FULL:
            r->trouble = "full";
            return false;
        }
    }
}

static void await(_Atomic uint32_t *word, uint32_t least)
{
    for (int i = 0; at_load(word) < least; i++)
        if (i % 64 == 63)
            sched_yield();
}

static void *race(void *arg)
{
    struct racer *r = arg, *other = &racers[r == racers];
    uint32_t entry, filler;
    for (uint32_t k = 1; k <= RACE_ROUNDS; k++) {
        /* Entries that expire just now make the two choose different ones. */
        for (uint32_t i = unit_random(&r->dice) % 4; i > 0; i--)
            (void)wins(r, unit_random(&r->dice) | 1ull << 63, unit_random(&r->dice) % 4000 + 1,
                       &filler);
        at_store(&r->round, k);
        await(&other->round, k);
        bool won = wins(r, k, 60000 * MS, &entry);
        if (won && at_add(&winners, 1) != k - 1)
            r->trouble = "two had the key";
        r->won += won;
        at_store(&r->done, k);
        await(&other->done, k);
        if (at_load(&winners) != k)
            r->trouble = "nobody had the key, or two";
        if (won)
            dedup_release(&seg, entry, r->slot, r->epoch);
        if (r->trouble) {
            at_store(&r->round, RACE_ROUNDS);
            at_store(&r->done, RACE_ROUNDS);
            break;
        }
    }
    return NULL;
}

Test(dedup, of_two_at_the_same_time_one_wins, .timeout = 50)
{
    pthread_t thread;
    make(64);
    for (uint32_t i = 0; i < 2; i++)
        racers[i] = (struct racer){.me = unit_id(i ? p : q), .slot = i, .epoch = 1, .dice = 77 + i};
    cr_assert_eq(pthread_create(&thread, NULL, race, &racers[1]), 0);
    race(&racers[0]);
    pthread_join(thread, NULL);
    for (int i = 0; i < 2; i++)
        cr_assert(!racers[i].trouble, "%s", racers[i].trouble);
    cr_assert_eq(racers[0].won + racers[1].won, RACE_ROUNDS);
    cr_log_info("%u to %u, busy %u", racers[0].won, racers[1].won, racers[0].busy + racers[1].busy);
}

Test(dedup, keys_of_texts_differ_and_stay)
{
    cr_assert_eq(fab_key("price-1"), fab_key_bytes("price-1", 7));
    cr_assert_neq(fab_key("price-1"), fab_key("price-2"));
    cr_assert_neq(fab_key(""), 0);
    cr_assert_eq(fab_key("price-1"), 0x9574e4e2c0d7cca9u, "%#llx", (unsigned long long)fab_key("price-1"));
}
