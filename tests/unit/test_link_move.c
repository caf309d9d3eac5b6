/* SPDX-License-Identifier: MIT
 *
 * test_link_move.c - a worker's link that goes over to another connection (link_move() in
 * apps/fabricd/link.h): which leases both sides know of afterwards.
 */
#include "tests/unit/link_case.h"

/* A worker with n leases, whose refs go into ref[], of tasks of the local handle's. */
static void lease_some(struct scene *s, uint32_t n, uint64_t *ref)
{
    uint8_t copy[CELL];
    struct record r;
    struct fab_task t = {.kernel = 1, .arg = s->bytes, .len = 8};
    open_scene(s);
    link_close(s->link, &s->out, s->me, false, 0);
    struct link_params lp = scene_params(s, FAB_WORKER);
    cr_assert_eq(link_open(&s->link, &lp), 0, "%s", err_text(-1));
    s->link->lane = s->p.lane[1];
    say(s, (struct record){.type = REC_WANT, .len = n});
    cr_assert_eq(turn(s), 0);
    for (uint32_t i = 0; i < n; i++) {
        t.tag = i;
        cr_assert_eq(fab_submit(s->local, &t, 1, NULL, 0), 1);
        cr_assert_eq(turn(s), 0);
        cr_assert(hear(s, &r, copy));
        cr_assert_eq(r.type, REC_LEASE);
        ref[i] = r.ref;
    }
}

static void move(struct scene *s)
{
    struct link_params lp = scene_params(s, FAB_WORKER);
    const struct seg_link *sl = &s->seg.participant[s->link->participant].link;
    uint32_t before = at_load_rlx(&sl->reconnects); /* relaxed: of this thread's */
    link_move(s->link, &lp);
    cr_assert_eq(at_load_rlx(&sl->reconnects), before + 1);
    close_pair(&s->p);
    open_pair(&s->p, LANE_SEND, 23);
    s->link->lane = s->p.lane[1];
}

static struct record end_of(const struct scene *s, uint64_t ref)
{
    return (struct record){
        .type = REC_DONE, .priority = FAB_COMPLETED, .ref = ref, .len = 8, .payload = s->bytes};
}

/* The outcome of the task with this tag, at its first attempt. */
static void expect_outcome(struct scene *s, uint64_t tag)
{
    struct fab_outcome o;
    cr_assert_eq(fab_wait_any(s->local, &o, 1, 0), 1);
    cr_assert_eq(o.tag, tag);
    cr_assert_eq(o.status, FAB_COMPLETED);
    cr_assert_eq(o.attempts, 1, "the worker kept its lease");
}

Test(link_move, a_worker_that_comes_back_keeps_what_it_names)
{
    struct scene *s = calloc(1, sizeof *s);
    uint8_t copy[CELL];
    uint64_t ref[4];
    struct record r;
    struct fab_lease l;
    lease_some(s, 4, ref);
    say(s, end_of(s, ref[0]));
    cr_assert_eq(turn(s), 0);
    expect_outcome(s, 0);
    move(s);
    /* it does not know that its first end was heard; its last lease never arrived */
    say_refs(s, REC_RESUME, REC_LAST, 0, 3, ref);
    cr_assert_eq(turn(s), 0);
    cr_assert(hear(s, &r, copy));
    cr_assert_eq(r.type, REC_UNKNOWN);
    cr_assert_eq(r.flags & REC_LAST, REC_LAST);
    cr_assert_eq(rec_refs(&r), 1);
    cr_assert_eq(rec_ref_at(&r, 0), ref[0]);
    cr_assert_eq(s->link->in_flight, 2);
    cr_assert_eq(fab_claim(s->local, 0, &l, 1, 0), 1, "what it did not name is there for others");
    cr_assert_eq(fab_complete(s->local, &l, s->bytes, 8), 0);
    struct fab_outcome o;
    cr_assert_eq(fab_wait_any(s->local, &o, 1, 0), 1);
    cr_assert_eq(o.tag, 3);
    for (uint32_t i = 1; i < 3; i++) {
        say(s, end_of(s, ref[i]));
        cr_assert_eq(turn(s), 0);
        expect_outcome(s, i);
    }
    say(s, end_of(s, ref[3]));
    cr_assert_eq(turn(s), -EPROTO, "that lease is not its own any more");
    close_scene(s);
    free(s);
}

Test(link_move, a_worker_that_comes_back_late_has_lost_what_was_revoked)
{
    struct scene *s = calloc(1, sizeof *s);
    uint8_t copy[CELL];
    uint64_t ref[3];
    struct record r;
    lease_some(s, 3, ref);
    cr_assert_eq(link_revoke(s->link), 2, "all but the oldest");
    move(s);
    say_refs(s, REC_RESUME, REC_LAST, 0, 3, ref);
    cr_assert_eq(turn(s), 0);
    cr_assert(hear(s, &r, copy));
    cr_assert_eq(rec_refs(&r), 2);
    cr_assert_eq(rec_ref_at(&r, 0), ref[1]);
    cr_assert_eq(rec_ref_at(&r, 1), ref[2]);
    cr_assert_eq(s->link->revoked, 0);
    say(s, end_of(s, ref[0]));
    cr_assert_eq(turn(s), 0);
    expect_outcome(s, 0);
    /* and it gets work again */
    say(s, (struct record){.type = REC_WANT, .len = 1});
    cr_assert_eq(turn(s), 0);
    cr_assert(hear(s, &r, copy));
    cr_assert_eq(r.type, REC_LEASE);
    close_scene(s);
    free(s);
}

Test(link_move, leases_named_out_of_turn_end_the_link)
{
    struct scene *s = calloc(1, sizeof *s);
    uint64_t ref[2], many[WINDOW + 1];
    lease_some(s, 2, ref);
    say_refs(s, REC_RESUME, REC_LAST, 0, 2, ref);
    cr_assert_eq(turn(s), -EPROTO, "nobody asked");
    move(s);
    for (uint32_t i = 0; i <= WINDOW; i++)
        many[i] = ref[0];
    say_refs(s, REC_RESUME, REC_LAST, 0, WINDOW + 1, many);
    cr_assert_eq(turn(s), -EPROTO, "more than there can be");
    close_scene(s);
    free(s);
}
