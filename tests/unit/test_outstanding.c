/* SPDX-License-Identifier: MIT
 *
 * test_outstanding.c - the queue of outstanding tasks (core/outstanding.h) against a plain list that does the
 * same.
 */
#include <criterion/criterion.h>
#include <string.h>
#include "core/outstanding.h"
#include "tests/unit/unit.h"

#define SLOTS 4096u

/* The list: ids in order, a slot at most once. */
static struct model {
    uint64_t id[SLOTS];
    uint32_t n, epoch[SLOTS];
    bool used[SLOTS];
} model;

static struct outstanding o;

static void make(void)
{
    memset(&model, 0, sizeof model);
    cr_assert_eq(outstanding_init(&o, SLOTS), 0);
}

static uint64_t add(uint64_t *seed)
{
    uint32_t slot;
    do
        slot = (uint32_t)(unit_random(seed) % SLOTS);
    while (model.used[slot]);
    uint64_t id = (uint64_t)++model.epoch[slot] << 32 | slot;
    model.used[slot] = true;
    model.id[model.n++] = id;
    cr_assert(outstanding_reserve(&o, 1));
    outstanding_add(&o, id, id * 3);
    return id;
}

static void forget(uint32_t at, uint32_t k)
{
    for (uint32_t i = at; i < at + k; i++)
        model.used[(uint32_t)model.id[i]] = false;
    memmove(model.id + at, model.id + at + k, (model.n - at - k) * sizeof *model.id);
    model.n -= k;
}

static void take(uint32_t at)
{
    uint32_t pos;
    uint64_t id = model.id[at];
    cr_assert(outstanding_find(&o, id, &pos));
    outstanding_remove(&o, pos);
    forget(at, 1);
    cr_assert_not(outstanding_find(&o, id, &pos), "it is gone");
    cr_assert_not(outstanding_in_slot(&o, (uint32_t)id));
}

static void compare(void)
{
    uint32_t k = 0;
    for (uint32_t pos = o.head; pos != o.tail; pos++) {
        uint64_t id = outstanding_at(&o, pos);
        if (!id)
            continue;
        uint32_t found;
        cr_assert_eq(id, model.id[k++]);
        cr_assert_eq(o.tag[pos & o.mask], id * 3);
        cr_assert(outstanding_find(&o, id, &found) && found == pos);
        cr_assert(outstanding_in_slot(&o, (uint32_t)id));
        cr_assert_not(outstanding_find(&o, id + (1ull << 32), &found), "another task in its slot");
    }
    cr_assert_eq(k, model.n);
    cr_assert_eq(o.n, model.n);
    cr_assert(o.n == 0 || outstanding_at(&o, o.head) != 0, "a gap at the head");
}

Test(outstanding, does_what_a_list_does)
{
    uint64_t seed = 5;
    make();
    o.head = o.tail = o.cursor = UINT32_MAX - 3000; /* positions run over */
    add(&seed);
    for (int round = 0; round < 400; round++) {
        uint32_t many = (uint32_t)(unit_random(&seed) % 200), mode = (uint32_t)(unit_random(&seed) % 4);
        for (uint32_t i = 0; i < many && model.n < SLOTS / 2; i++)
            add(&seed);
        for (uint32_t i = 0; i < many && model.n > (mode == 3 ? 0 : 1); i++)
            take(mode == 0 ? 0 : mode == 1 ? model.n - 1 : (uint32_t)(unit_random(&seed) % model.n));
        compare();
        outstanding_tidy(&o);
        compare();
    }
    outstanding_free(&o);
}

Test(outstanding, runs_leave_at_once)
{
    uint64_t seed = 9;
    make();
    for (int round = 0; round < 200; round++) {
        while (model.n < 300)
            add(&seed);
        uint32_t at = (uint32_t)(unit_random(&seed) % 3) * 50, k = (uint32_t)(unit_random(&seed) % 100) + 1;
        uint32_t pos = 0, last = 0;
        cr_assert(outstanding_find(&o, model.id[at], &pos));
        for (uint32_t i = 1; i < k; i++) /* as far as there is no gap between */
            if (!outstanding_find(&o, model.id[at + i], &last) || last != pos + i)
                k = i;
        outstanding_remove_run(&o, pos, k);
        forget(at, k);
        compare();
    }
    outstanding_free(&o);
}

/* One task that is never taken, and a million that come and go behind it. */
Test(outstanding, memory_follows_the_tasks_not_the_time)
{
    uint64_t seed = 3;
    make();
    uint64_t old = add(&seed);
    for (int i = 0; i < 1000000; i++) {
        add(&seed);
        take(model.n - 1);
    }
    cr_assert_leq(o.mask, 1023);
    outstanding_tidy(&o);
    cr_assert_leq(o.tail - o.head, 2 + OUTSTANDING_GAPS);
    compare();
    uint32_t pos;
    cr_assert(outstanding_find(&o, old, &pos));
    while (model.n < 3000)
        add(&seed);
    compare();
    cr_assert_leq(o.mask, 8191);
    outstanding_free(&o);
}

Test(outstanding, room_enough_stays_room_enough)
{
    uint64_t seed = 7;
    make();
    cr_assert(outstanding_reserve(&o, 2 * 700)); /* as local_link() does for 700 */
    uint32_t mask = o.mask;
    outstanding_no_tags(&o);
    cr_assert_null(o.tag);
    while (model.n < 700)
        add(&seed);
    for (int i = 0; i < 20000; i++) {
        take((uint32_t)(unit_random(&seed) % model.n));
        add(&seed);
    }
    cr_assert_eq(o.mask, mask, "it did not grow");
    cr_assert_eq(o.n, 700);
    outstanding_free(&o);
}

/* Two entries for one slot: somebody wrote over the first task, and its slot came to us again. */
Test(outstanding, the_later_of_two_tasks_in_a_slot_is_found)
{
    uint64_t seed = 1;
    make();
    uint64_t first = 7ull << 32 | 5, second = 9ull << 32 | 5;
    uint32_t pos;
    cr_assert(outstanding_reserve(&o, 2));
    outstanding_add(&o, first, 0);
    outstanding_add(&o, second, 0);
    cr_assert(outstanding_find(&o, second, &pos));
    cr_assert_not(outstanding_find(&o, first, &pos));
    model.used[5] = true;
    for (int i = 0; i < 2000; i++) { /* so that gaps are closed */
        add(&seed);
        take(model.n - 1);
    }
    cr_assert_eq(outstanding_at(&o, o.head), first);
    cr_assert(outstanding_find(&o, second, &pos) && pos == o.head + 1);
    outstanding_remove(&o, o.head);
    cr_assert_eq(outstanding_at(&o, o.head), second);
    cr_assert_eq(o.n, 1);
    outstanding_free(&o);
}

Test(outstanding, who_waited_is_known_by_its_id)
{
    make();
    uint64_t id = 3ull << 32 | 8;
    outstanding_waited(&o, id, 0);
    cr_assert_eq(outstanding_room(&o, id), 0);
    outstanding_waited(&o, id, 55);
    cr_assert_eq(outstanding_room(&o, id), 55);
    cr_assert_eq(outstanding_room(&o, id + (1ull << 32)), 0, "the slot's next task did not wait");
    outstanding_free(&o);
}
