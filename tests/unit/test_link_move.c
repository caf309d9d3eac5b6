/* SPDX-License-Identifier: MIT
 *
 * test_link_move.c - a link that goes over to another connection (link_move() in
 * apps/fabricd/link.h): which leases and tasks both sides know of afterwards.
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

static void move_as(struct scene *s, uint32_t roles, enum link_session as)
{
    struct link_params lp = scene_params(s, roles);
    const struct seg_link *sl = &s->seg.participant[s->link->participant].link;
    uint32_t before = at_load_rlx(&sl->reconnects); /* relaxed: of this thread's */
    cr_assert_eq(link_move(s->link, &lp), as);
    cr_assert_eq(at_load_rlx(&sl->reconnects), before + 1);
    close_pair(&s->p);
    open_pair(&s->p, LANE_SEND, 23);
    s->link->lane = s->p.lane[1];
}

static void move(struct scene *s)
{
    move_as(s, FAB_WORKER, LINK_MOVED);
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
    say_refs(s, REC_RESUME, REC_LAST, REC_LEASES, 3, ref);
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
    say_refs(s, REC_RESUME, REC_LAST, REC_LEASES, 3, ref);
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
    say_refs(s, REC_RESUME, REC_LAST, REC_LEASES, 2, ref);
    cr_assert_eq(turn(s), -EPROTO, "nobody asked");
    move(s);
    for (uint32_t i = 0; i <= WINDOW; i++)
        many[i] = ref[0];
    say_refs(s, REC_RESUME, REC_LAST, REC_LEASES, WINDOW + 1, many);
    cr_assert_eq(turn(s), -EPROTO, "more than there can be");
    close_scene(s);
    free(s);
}

/* ---- a handle that produces, too ---- */

#define ROLES (FAB_PRODUCER | FAB_WORKER)

static uint64_t ref_at(uint32_t i)
{
    return 1ull << 32 | i;
}

static void run_one(struct scene *s)
{
    struct fab_lease l;
    cr_assert_eq(fab_claim(s->local, 0, &l, 1, 0), 1);
    cr_assert_eq(fab_complete(s->local, &l, s->bytes, 8), 0);
    cr_assert_eq(turn(s), 0);
}

/* Of the handle's own tasks 0 to 3 the first two are answered and the third waits; it has two leases of
 * others', of which one is ended. */
static void both_ways(struct scene *s, uint64_t lease[2])
{
    struct fab_task t = {.kernel = 1, .arg = s->bytes, .len = 8};
    uint8_t copy[CELL];
    struct record r;
    open_scene(s);
    for (uint32_t i = 0; i < 2; i++) {
        say(s, (struct record){.type = REC_WANT, .len = 2});
        t.tag = i;
        cr_assert_eq(fab_submit(s->local, &t, 1, NULL, 0), 1);
        cr_assert_eq(turn(s), 0);
        cr_assert(hear(s, &r, copy));
        cr_assert_eq(r.type, REC_LEASE);
        lease[i] = r.ref;
    }
    for (uint32_t i = 0; i < 3; i++) {
        say(s, task(ref_at(i), s->bytes, 8));
        cr_assert_eq(turn(s), 0);
        if (i < 2)
            run_one(s);
    }
    say(s, (struct record){.type = REC_WANT, .len = 1});
    say(s, end_of(s, lease[0]));
    cr_assert_eq(turn(s), 0);
    expect_outcome(s, 0);
}

/* All that fabricd says, a count by type; of UNKNOWN the last refs of tasks and leases. */
struct heard {
    uint32_t n[REC_TYPE_MAX], outcome_of;
    uint64_t unknown[2];
};

static struct heard hear_all(struct scene *s)
{
    struct heard h = {0};
    struct record r;
    uint32_t len, records, at;
    const void *batch;
    while ((batch = lane_rx_next(s->p.lane[0], &len, &records))) {
        for (at = 0; rec_next(batch, len, &at, &r) == 1;) {
            h.n[r.type]++;
            if (r.type == REC_OUTCOME)
                h.outcome_of |= 1u << (uint32_t)r.ref;
            if (r.type != REC_UNKNOWN)
                continue;
            cr_assert_eq(rec_refs(&r), 1);
            h.unknown[r.priority == REC_LEASES] = rec_ref_at(&r, 0);
            cr_assert_eq(r.flags & REC_LAST, r.priority == REC_LEASES ? REC_LAST : 0);
        }
        lane_rx_release(s->p.lane[0]);
    }
    return h;
}

Test(link_move, a_handle_that_is_both_keeps_its_leases_and_its_tasks)
{
    struct scene *s = calloc(1, sizeof *s);
    uint64_t lease[2], open[3] = {ref_at(1), ref_at(2), ref_at(3)};
    both_ways(s, lease);
    move_as(s, ROLES, LINK_MOVED);
    cr_assert_eq(turn(s), 0);
    cr_assert_eq(hear_all(s).n[REC_OUTCOME], 0, "they wait until it is clear which are wanted");
    /* it has the outcome of task 0, and took it; that of 1 was lost; 3 never arrived */
    say_refs(s, REC_RESUME, 0, 0, 3, open);
    say_refs(s, REC_RESUME, REC_LAST, REC_LEASES, 2, lease);
    cr_assert_eq(turn(s), 0);
    struct heard h = hear_all(s);
    cr_assert_eq(h.n[REC_UNKNOWN], 2);
    cr_assert_eq(h.unknown[0], ref_at(3));
    cr_assert_eq(h.unknown[1], lease[0], "its end was heard");
    cr_assert_eq(h.outcome_of, 1u << 1, "told again");
    cr_assert_eq(s->link->in_flight, 1, "the other lease is its own yet");
    say(s, end_of(s, lease[1]));
    cr_assert_eq(turn(s), 0);
    expect_outcome(s, 1);
    /* and the rest of its own */
    say(s, task(ref_at(3), s->bytes, 8));
    cr_assert_eq(turn(s), 0);
    run_one(s);
    run_one(s);
    cr_assert_eq(hear_all(s).outcome_of, 1u << 2 | 1u << 3);
    cr_assert_eq(s->link->unanswered, 0);
    close_scene(s);
    free(s);
}

Test(link_move, what_a_link_never_had_is_not_asked_for)
{
    struct scene *s = calloc(1, sizeof *s);
    uint64_t none = ref_at(0);
    open_scene(s);
    move_as(s, ROLES, LINK_RESUMED);
    say_refs(s, REC_RESUME, REC_LAST, REC_LEASES, 1, &none);
    cr_assert_eq(turn(s), -EPROTO, "leases it holds are of a link before");
    close_scene(s);
    open_scene(s);
    link_close(s->link, &s->out, s->me, false, 0);
    struct link_params lp = scene_params(s, FAB_WORKER);
    cr_assert_eq(link_open(&s->link, &lp), 0);
    move_as(s, FAB_WORKER, LINK_NEW);
    say(s, (struct record){.type = REC_WANT, .len = 1});
    cr_assert_eq(turn(s), 0, "and it works at once");
    close_scene(s);
    free(s);
}
