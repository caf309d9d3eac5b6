/* SPDX-License-Identifier: MIT
 *
 * test_quota.c - what one producer may hold, that the others get on beside it, and that who waits for
 * room is told of it.
 */
#include "core/clock.h"
#include "core/fabric.h"
#include "core/quota.h"
#include "tests/unit/unit.h"

#define MS    1000000ull
#define SLOTS 256u
#define SHARE 192u

static struct segment seg;
static fab_t *hog, *other, *w;

static void make(uint32_t share)
{
    static const char *const names[] = {"default"};
    struct segment_params params = {.name = "unit",
                                    .version = "0",
                                    .slots = SLOTS,
                                    .participants = 16,
                                    .arena_bytes = 16 * ARENA_CHUNK,
                                    .queues = 1,
                                    .queue_names = names,
                                    .producer_share = share,
                                    .huge = SEGMENT_HUGE_NEVER,
                                    .numa_node = -1};
    cr_assert_eq(segment_create(&seg, &params), 0, "%s", fab_errmsg());
    hog = unit_handle(&seg, "hog", -1);
    other = unit_handle(&seg, "other", -1);
    w = unit_handle(&seg, "w", -1);
}

static uint32_t held_by(const fab_t *f)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < seg.slots; i++) {
        uint64_t word = at_load(&seg.slot[i].state);
        n += slot_state(word) >= SLOT_READY
                 ? meta_producer(at_load(&seg.slot[i].meta)) == unit_id(f)
                 : slot_state(word) == SLOT_FILLING && slot_owner(word) == unit_id(f);
    }
    return n;
}

/* Submits until nothing is taken any more. */
static uint32_t flood(fab_t *f, uint16_t flags, uint32_t batch)
{
    static struct fab_task t[64];
    fab_id id[64];
    uint32_t n = 0;
    long k;
    for (uint32_t i = 0; i < batch; i++)
        t[i] = (struct fab_task){.kernel = 1, .flags = flags};
    while ((k = fab_submit(f, t, batch, id, 0)) > 0)
        n += (uint32_t)k;
    cr_assert_eq(k, -EAGAIN, "%s", fab_errmsg());
    return n;
}

static int run_some(int most)
{
    struct fab_lease l;
    int n = 0;
    while (n < most && fab_claim(w, 0, &l, 1, 0) == 1) {
        cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
        n++;
    }
    return n;
}

/* One task there and back; whatever stands before it in the queue is run, too. */
static void trip(fab_t *f)
{
    struct fab_task t = {.kernel = 2};
    struct fab_outcome o;
    fab_id id;
    cr_assert_eq(fab_submit(f, &t, 1, &id, 0), 1, "%s", fab_errmsg());
    (void)run_some(SLOTS);
    cr_assert_eq(fab_wait(f, id, &o, 0), 0, "%s", fab_errmsg());
}

Test(quota, outcomes_nobody_takes_leave_the_others_their_part)
{
    make(SHARE);
    cr_assert_eq(flood(hog, 0, 7), SHARE);
    cr_assert(strstr(fab_errmsg(), "segment.producer_share"), "%s", fab_errmsg());
    cr_assert_eq(run_some(SLOTS), SHARE); /* they are done, and stay there */
    cr_assert_eq(flood(hog, 0, 1), 0);
    for (int i = 0; i < 20000; i++)
        trip(other);
    cr_assert_leq(held_by(hog), SHARE);
    /* a batch of the other's finds its quarter, too */
    cr_assert_eq(flood(other, 0, 5), SLOTS - SHARE);
    cr_assert(strstr(fab_errmsg(), "segment.slots"), "%s", fab_errmsg());
    struct fab_outcome o[16];
    cr_assert_eq(fab_wait_any(hog, o, 16, 0), 16); /* what is taken may be used again */
    cr_assert_eq(flood(hog, 0, 1), 16);
}

Test(quota, a_flood_nobody_waits_for_leaves_the_others_their_part)
{
    make(SHARE);
    for (int round = 0; round < 200; round++) {
        uint32_t n = flood(hog, FAB_NO_WAIT, round % 7 + 1);
        cr_assert_leq(held_by(hog), SHARE, "%u", held_by(hog));
        cr_assert(round > 0 || n >= SHARE - 16, "%u", n);
        for (int i = 0; i < 10; i++) {
            struct fab_task t = {.kernel = 2};
            fab_id id;
            cr_assert_eq(fab_submit(other, &t, 1, &id, 0), 1, "round %d: %s", round, fab_errmsg());
        }
        (void)run_some(round % 3 ? 50 : SLOTS); /* the count follows what is done */
        struct fab_outcome o[16];
        while (fab_outstanding(other) > 0) {
            (void)run_some(SLOTS);
            cr_assert_gt(fab_wait_any(other, o, 16, UNIT_SECOND), 0);
        }
    }
    cr_assert_gt(at_load(&seg.participant[unit_id(hog)].counts[0].submitted), 200 * 50);
}

Test(quota, both_kinds_together_keep_to_the_share)
{
    make(SHARE);
    cr_assert_leq(flood(hog, FAB_NO_WAIT, 3), SHARE);
    (void)run_some(100);
    usleep(1000); /* a new count is not made at once */
    (void)flood(hog, 0, 3);
    cr_assert_leq(held_by(hog), SHARE);
    cr_assert_gt(held_by(hog), SHARE - 16);
    trip(other);
}

Test(quota, a_wait_that_could_never_end_is_refused)
{
    make(SHARE);
    struct fab_task t = {.kernel = 1};
    fab_id id;
    (void)flood(hog, 0, 1);
    cr_assert_eq(fab_submit(hog, &t, 1, &id, FAB_FOREVER), -EDEADLK);
    cr_assert(strstr(fab_errmsg(), "take outcomes"), "%s", fab_errmsg());
    uint64_t start = clock_ns();
    cr_assert_eq(fab_submit(hog, &t, 1, &id, 20 * MS), -ETIMEDOUT);
    cr_assert_geq(clock_ns() - start, 20 * MS);
    cr_assert(strstr(fab_errmsg(), "segment.producer_share"), "%s", fab_errmsg());
}

Test(quota, large_arguments_keep_to_the_share_of_the_arena)
{
    static uint8_t arg[ARENA_CHUNK];
    make(SHARE);
    struct fab_task t = {.kernel = 1, .arg = arg, .len = sizeof arg}, whole = t;
    fab_id id[16];
    int n = 0;
    while (fab_submit(hog, &t, 1, &id[n], 0) == 1)
        n++;
    cr_assert_eq(n, 12);
    cr_assert(strstr(fab_errmsg(), "share of segment.arena"), "%s", fab_errmsg());
    cr_assert_eq(fab_submit(hog, &t, 1, &id[n], FAB_FOREVER), -EDEADLK);
    for (int i = 0; i < 100; i++) {
        struct fab_outcome o;
        fab_id own;
        cr_assert_eq(fab_submit(other, &t, 1, &own, 0), 1, "%s", fab_errmsg());
        cr_assert_eq(fab_cancel(other, own), 0);
        cr_assert_eq(fab_wait(other, own, &o, 0), 0);
    }
    for (int i = 0; i < n; i++) {
        struct fab_outcome o;
        cr_assert_eq(fab_cancel(hog, id[i]), 0);
        cr_assert_eq(fab_wait(hog, id[i], &o, 0), 0);
    }
    /* alone it may be larger than that */
    static uint8_t large[15 * ARENA_CHUNK];
    whole.arg = large;
    whole.len = sizeof large;
    cr_assert_eq(fab_submit(hog, &whole, 1, id, 0), 1, "%s", fab_errmsg());
}

Test(quota, arguments_in_place_keep_to_the_share_of_the_arena)
{
    void *arg[16], *one;
    fab_id id;
    int n = 0;
    make(SHARE);
    while (fab_arg_new(hog, ARENA_CHUNK, &arg[n], 0) == 0)
        n++;
    cr_assert_eq(n, 12);
    cr_assert_null(arg[n]);
    cr_assert(strstr(fab_errmsg(), "share of segment.arena"), "%s", fab_errmsg());
    cr_assert_eq(fab_arg_new(hog, ARENA_CHUNK, &one, FAB_FOREVER), -EDEADLK);
    cr_assert_eq(fab_arg_new(hog, ARENA_CHUNK, &one, 5 * MS), -ETIMEDOUT);
    cr_assert_eq(fab_arg_new(hog, 17 * ARENA_CHUNK, &one, 0), -EMSGSIZE);
    cr_assert_eq(fab_arg_new(other, 4 * ARENA_CHUNK, &one, 0), 0, "%s", fab_errmsg());
    cr_assert_eq(fab_arg_new(other, ARENA_CHUNK, &arg[n], 0), -EAGAIN);
    cr_assert(strstr(fab_errmsg(), "(segment.arena) is full"), "%s", fab_errmsg());
    fab_arg_drop(other, one);
    fab_arg_drop(hog, arg[0]);
    cr_assert_eq(fab_arg_new(hog, ARENA_CHUNK, &arg[0], 0), 0, "%s", fab_errmsg());
    /* submitted they count once */
    for (int i = 0; i < n; i++) {
        struct fab_task t = {.kernel = 1, .arg = arg[i], .len = ARENA_CHUNK, .flags = FAB_IN_PLACE};
        cr_assert_eq(fab_submit(hog, &t, 1, &id, 0), 1, "%s", fab_errmsg());
        cr_assert_eq(fab_arg_new(hog, ARENA_CHUNK, &one, 0), -EAGAIN);
    }
    for (int i = 0; i < n; i++) {
        struct fab_lease l;
        struct fab_outcome o;
        cr_assert_eq(fab_claim(w, 0, &l, 1, 0), 1);
        cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
        cr_assert_eq(fab_wait_any(hog, &o, 1, 0), 1);
    }
    cr_assert_eq(fab_wait_any(hog, &(struct fab_outcome){0}, 1, 0), -ENOENT);
    cr_assert_eq(fab_arg_new(hog, ARENA_CHUNK, &one, 0), 0, "%s", fab_errmsg());
    fab_arg_drop(hog, one);
    cr_assert_eq(arena_bytes_free(&seg), seg.arena_bytes);
}

/* ---- waiting for room ---- */

static uint64_t given_back;

static void *frees_later(void *arg)
{
    usleep(30000);
    given_back = clock_ns();
    (void)run_some(*(int *)arg);
    return NULL;
}

/* The net is 100 ms: who is woken by it alone comes late. */
Test(quota, who_waits_for_slots_is_woken_when_some_flow_back)
{
    make(0);
    pthread_t thread;
    int some = SLOTS;
    struct fab_task t = {.kernel = 1};
    fab_id id;
    struct fab_task silent = {.kernel = 1, .flags = FAB_NO_WAIT};
    while (fab_submit(hog, &silent, 1, NULL, 0) == 1)
        ;
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(fab_submit(other, &t, 1, &id, 0), -EAGAIN);
        cr_assert_eq(pthread_create(&thread, NULL, frees_later, &some), 0);
        cr_assert_eq(fab_submit(other, &t, 1, &id, UNIT_SECOND), 1, "%s", fab_errmsg());
        uint64_t took = clock_ns() - given_back;
        pthread_join(thread, NULL);
        cr_assert_lt(took, 40 * MS, "%llu ns", (unsigned long long)took);
        (void)run_some(SLOTS);
        struct fab_outcome o;
        cr_assert_eq(fab_wait(other, id, &o, 0), 0);
        struct local *l = (struct local *)other;
        slot_stock_shrink(&seg, &l->stock, l->me, 0);
        while (fab_submit(hog, &silent, 1, NULL, 0) == 1)
            ;
    }
    cr_assert_eq(at_load(&seg.head->net_catches), 0);
}

struct taker {
    fab_t *f;
    fab_id id;
};

static void *takes_later(void *arg)
{
    struct taker *t = arg;
    struct fab_outcome o;
    usleep(30000);
    (void)!fab_wait(t->f, t->id, &o, 0);
    given_back = clock_ns();
    (void)!fab_wait_any(t->f, &o, 1, 0); /* lets go of the bytes */
    return NULL;
}

Test(quota, who_waits_for_the_arena_is_woken_when_a_block_is_freed)
{
    static uint8_t res[10 * ARENA_CHUNK];
    make(0);
    pthread_t thread;
    struct fab_task t = {.kernel = 1};
    struct fab_lease l[2];
    struct taker later = {.f = hog};
    fab_id second;
    int rc, tries = 0;
    cr_assert_eq(fab_submit(hog, &t, 1, &later.id, 0), 1);
    cr_assert_eq(fab_submit(other, &t, 1, &second, 0), 1);
    cr_assert_eq(fab_claim(w, 0, l, 2, 0), 2);
    cr_assert_eq(fab_complete(w, &l[0], res, sizeof res), 0);
    cr_assert_eq(fab_complete(w, &l[1], res, sizeof res), -ENOSPC);
    cr_assert_eq(fab_wait_room(w, 0), 0, "the first time at once");
    cr_assert_eq(fab_wait_room(w, 5 * MS), -ETIMEDOUT);
    cr_assert_eq(pthread_create(&thread, NULL, takes_later, &later), 0);
    while ((rc = fab_complete(w, &l[1], res, sizeof res)) == -ENOSPC) {
        cr_assert_eq(fab_wait_room(w, 2 * UNIT_SECOND), 0, "%s", fab_errmsg());
        tries++;
    }
    uint64_t took = clock_ns() - given_back;
    pthread_join(thread, NULL);
    cr_assert_eq(rc, 0, "%s", fab_errmsg());
    cr_assert_lt(took, 40 * MS, "%llu ns", (unsigned long long)took);
    cr_assert_lt(tries, 20, "it slept in between");
}
