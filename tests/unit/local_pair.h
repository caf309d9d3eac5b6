/* SPDX-License-Identifier: MIT
 *
 * local_pair.h - what the tests of local handles have in common: a segment with a producer and a
 * worker, and the calls that must not fail.
 */
#ifndef TESTS_LOCAL_PAIR_H
#define TESTS_LOCAL_PAIR_H

#include "unit.h"

#define SLOTS 64u
#define MIB   (1u << 20)

struct pair {
    struct segment s;
    fab_t *p, *w; /* producer, worker */
};

static inline void pair_make(struct pair *t, uint64_t arena_bytes)
{
    unit_segment(&t->s, SLOTS, 8, arena_bytes, 2);
    t->p = unit_handle(&t->s, "producer", 0);
    t->w = unit_handle(&t->s, "worker", 0);
}

/* Nothing is under way any more, and no block is in use. */
static inline void pair_end(struct pair *t)
{
    struct fab_outcome o;
    cr_assert_eq(fab_outstanding(t->p), 0);
    cr_assert_eq(fab_wait(t->p, 1, &o, 0), -ENOENT); /* gives back what the last outcome held */
    cr_assert_eq(unit_slots_in(&t->s, SLOT_READY) + unit_slots_in(&t->s, SLOT_LEASED), 0);
    cr_assert_eq(arena_bytes_free(&t->s), t->s.arena_bytes);
    cr_assert_eq(at_load(&t->s.head->net_catches), 0);
    fab_close(t->p);
    fab_close(t->w);
    segment_unmap(&t->s);
}

static inline struct fab_task task_of(const void *arg, uint32_t len)
{
    return (struct fab_task){
        .kernel = 0x1234567890abcdef, .arg = arg, .len = len, .priority = FAB_PRIORITY_NORMAL};
}

static inline fab_id submit(fab_t *f, const struct fab_task *t)
{
    fab_id id = 0;
    long rc = fab_submit(f, t, 1, &id, 0);
    cr_assert_eq(rc, 1, "%ld %s", rc, fab_errmsg());
    cr_assert_neq(id, 0);
    return id;
}

static inline struct fab_lease claim(fab_t *f, uint32_t queue)
{
    struct fab_lease l;
    memset(&l, 0, sizeof l);
    long rc = fab_claim(f, queue, &l, 1, 0);
    cr_assert_eq(rc, 1, "%ld %s", rc, fab_errmsg());
    return l;
}

static inline void complete(fab_t *f, const struct fab_lease *l, const void *res, uint32_t len)
{
    int rc = fab_complete(f, l, res, len);
    cr_assert_eq(rc, 0, "%d %s", rc, fab_errmsg());
}

static inline struct fab_outcome outcome(fab_t *f, fab_id id)
{
    struct fab_outcome o;
    memset(&o, 0, sizeof o);
    int rc = fab_wait(f, id, &o, 0);
    cr_assert_eq(rc, 0, "%d %s", rc, fab_errmsg());
    cr_assert_eq(o.id, id);
    return o;
}

#endif
