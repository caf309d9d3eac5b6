/* SPDX-License-Identifier: MIT
 *
 * test_link.c - fabricd's end of a link (apps/fabricd/link.c) against a peer that is the test: a
 * lane over a simulated network on one side, a segment with a local producer and worker on the
 * other. What a peer may send that it must not, what fits nowhere, and when the link may sleep.
 * Random schedules of the whole are in tests/sim; a worker's link that goes over to another
 * connection is in test_link_move.c.
 */
#include <sys/eventfd.h>
#include "core/undertaker.h"
#include "tests/unit/link_case.h"
#include "transport/remote.h"

/* ---- records that make no sense ---- */

Test(link, a_part_announced_as_large_ends_the_link)
{
    struct scene *s = calloc(1, sizeof *s);
    open_scene(s);
    say(s, (struct record){.type = REC_SUBMIT, .flags = REC_BIG, .ref = 1, .len = 5000});
    say(s, (struct record){.type = REC_DATA, .flags = REC_BIG, .ref = 1, .len = 64});
    cr_assert_eq(turn(s), -EPROTO);
    close_scene(s);
    free(s);
}

Test(link, a_large_payload_of_nothing_ends_the_link)
{
    struct scene *s = calloc(1, sizeof *s);
    open_scene(s);
    say(s, (struct record){.type = REC_SUBMIT, .flags = REC_BIG, .ref = 1, .len = 0});
    cr_assert_eq(turn(s), -EPROTO);
    close_scene(s);
    free(s);
}

/* Its argument would go on leaving the segment, whose memory is somebody else's by then. */
Test(link, a_lease_does_not_end_before_its_argument_has_left)
{
    struct scene *s = calloc(1, sizeof *s);
    struct record r;
    uint8_t copy[CELL];
    open_scene(s);
    struct fab_task t = {.kernel = 1, .arg = s->bytes, .len = 20000};
    fab_id id;
    cr_assert_eq(fab_submit(s->local, &t, 1, &id, 0), 1);
    say(s, (struct record){.type = REC_WANT, .len = 1});
    cr_assert_eq(turn(s), 0, "all of the peer's cells are full");
    uint32_t len, records, at = 0;
    const void *batch = lane_rx_next(s->p.lane[0], &len, &records);
    memcpy(copy, batch, len);
    cr_assert_eq(rec_next(copy, len, &at, &r), 1);
    cr_assert(r.type == REC_LEASE && r.flags & REC_BIG);
    say(s,
        (struct record){
            .type = REC_DONE, .priority = FAB_COMPLETED, .ref = r.ref, .len = 8, .payload = copy});
    cr_assert_eq(turn(s), -EPROTO);
    close_scene(s);
    free(s);
}

/* Results are gathered and completed many at once, but a lease ends when its result is read. */
Test(link, a_second_result_for_a_lease_ends_the_link_and_the_first_counts)
{
    struct scene *s = calloc(1, sizeof *s);
    struct record r;
    struct fab_outcome o;
    uint8_t copy[CELL];
    uint64_t answers[] = {41, 42};
    open_scene(s);
    struct fab_task t = {.kernel = 1, .arg = s->bytes, .len = 8};
    fab_id id;
    cr_assert_eq(fab_submit(s->local, &t, 1, &id, 0), 1);
    say(s, (struct record){.type = REC_WANT, .len = 1});
    cr_assert_eq(turn(s), 0);
    cr_assert(hear(s, &r, copy));
    cr_assert_eq(r.type, REC_LEASE);
    for (int i = 0; i < 2; i++)
        say(s, (struct record){.type = REC_DONE,
                               .priority = FAB_COMPLETED,
                               .ref = r.ref,
                               .len = 8,
                               .payload = (uint8_t *)&answers[i]});
    cr_assert_eq(turn(s), -EPROTO);
    cr_assert_eq(fab_wait(s->local, id, &o, 0), 0);
    cr_assert_eq(o.small, 41);
    cr_assert_eq(s->link->in_flight, 0);
    close_scene(s);
    free(s);
}

/* ---- how long it ran ---- */

/* A lease of 10 ms and more, of which its worker says that it was at the task for so long. */
static struct fab_times told(struct scene *s, uint64_t ran_ns)
{
    struct record r;
    struct fab_outcome o;
    struct fab_times t;
    struct timespec ten = {.tv_nsec = 10000000};
    uint8_t copy[CELL];
    struct fab_task task = {.kernel = 1, .arg = s->bytes, .len = 8};
    fab_id id;
    cr_assert_eq(fab_submit(s->local, &task, 1, &id, 0), 1);
    say(s, (struct record){.type = REC_WANT, .len = 1});
    cr_assert_eq(turn(s), 0);
    cr_assert(hear(s, &r, copy));
    cr_assert_eq(r.type, REC_LEASE);
    nanosleep(&ten, NULL); /* the time that is told of */
    say(s, (struct record){.type = REC_DONE,
                           .priority = FAB_COMPLETED,
                           .attempts = rec_time(ran_ns),
                           .ref = r.ref,
                           .len = 8,
                           .payload = copy});
    cr_assert_eq(turn(s), 0);
    cr_assert_eq(fab_wait(s->local, id, &o, 0), 0);
    cr_assert_eq(fab_times(s->local, &o, &t), 0);
    return t;
}

Test(link, the_way_to_a_worker_is_told_from_its_work)
{
    struct scene *s = calloc(1, sizeof *s);
    open_scene(s);
    struct fab_times t = told(s, 3000000);
    cr_assert(t.run_ns > 2800000 && t.run_ns < 3300000, "%llu", (unsigned long long)t.run_ns);
    cr_assert_geq(t.held_ns, 6500000);
    t = told(s, 0);
    cr_assert_lt(t.run_ns, 1000000, "the shortest that can be told");
    t = told(s, 60000000000);
    cr_assert_geq(t.run_ns, 10000000, "nothing is told");
    cr_assert_eq(t.held_ns, 0);
    t = told(s, 10000000000);
    cr_assert_geq(t.run_ns, 10000000, "it was not its own for longer");
    cr_assert_eq(t.held_ns, 0);
    cr_assert_lt(t.run_ns, 5000000000);
    close_scene(s);
    free(s);
}

/* ---- what fits nowhere ---- */

Test(link, an_argument_over_the_arena_fails_alone)
{
    struct scene *s = calloc(1, sizeof *s);
    struct record r = task(7, NULL, ARENA + 1000);
    uint8_t copy[CELL];
    open_scene(s);
    cr_assert_eq(big_send(&s->big, &r, s->bytes, NULL), 0);
    cr_assert_eq(turn(s), 0, "%s", err_text(-1));
    cr_assert(hear(s, &r, copy));
    cr_assert(r.type == REC_OUTCOME && r.priority == FAB_FAILED && r.ref == 7 && r.len > 20);
    /* the link goes on */
    say(s, task(8, s->bytes, 8));
    cr_assert_eq(turn(s), 0);
    struct fab_lease l;
    cr_assert_eq(fab_claim(s->local, 0, &l, 1, 0), 1);
    cr_assert_eq(fab_complete(s->local, &l, s->bytes, 8), 0);
    cr_assert_eq(turn(s), 0);
    cr_assert(hear(s, &r, copy));
    cr_assert(r.ref == 8 && r.priority == FAB_COMPLETED);
    cr_assert_eq(s->link->unanswered, 0);
    close_scene(s);
    free(s);
}

Test(link, a_result_over_the_arena_fails_its_task)
{
    struct scene *s = calloc(1, sizeof *s);
    struct record r;
    struct fab_outcome o;
    uint8_t copy[CELL];
    open_scene(s);
    struct fab_task t = {.kernel = 1, .arg = s->bytes, .len = 8};
    fab_id id;
    cr_assert_eq(fab_submit(s->local, &t, 1, &id, 0), 1);
    say(s, (struct record){.type = REC_WANT, .len = 1});
    cr_assert_eq(turn(s), 0);
    cr_assert(hear(s, &r, copy));
    cr_assert_eq(r.type, REC_LEASE);
    struct record done = {
        .type = REC_DONE, .priority = FAB_COMPLETED, .ref = r.ref, .len = ARENA + 1000};
    cr_assert_eq(big_send(&s->big, &done, s->bytes, NULL), 0);
    cr_assert_eq(turn(s), 0);
    cr_assert_eq(fab_wait(s->local, id, &o, 0), 0);
    cr_assert_eq(o.status, FAB_FAILED);
    cr_assert_eq(s->link->in_flight, 0);
    close_scene(s);
    free(s);
}

/* ---- memory and sleep ---- */

/* So many of the arena's blocks hold results. */
static uint32_t results(const struct segment *seg)
{
    uint32_t n = 0;
    for (uint32_t u = 0; u < seg->chunks * ARENA_CHUNK_BLOCKS; u++)
        n += block_state(at_load(&seg->block_word[u])) == BLOCK_RES;
    return n;
}

static uint32_t outcomes(const struct segment *seg)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < seg->slots; i++)
        n += slot_is_outcome(at_load(&seg->slot[i].state));
    return n;
}

static void run_one(struct scene *s, uint32_t result)
{
    struct fab_lease l;
    cr_assert_eq(fab_claim(s->local, 0, &l, 1, 0), 1);
    cr_assert_eq(fab_complete(s->local, &l, s->bytes, result), 0);
}

Test(link, an_outcome_stays_until_it_is_known_to_be_taken)
{
    struct scene *s = calloc(1, sizeof *s);
    open_scene(s);
    uint64_t ref = 1ull << 32 | 1;
    say(s, task(ref, s->bytes, 8));
    cr_assert_eq(turn(s), 0);
    run_one(s, 300);
    cr_assert_eq(turn(s), 0);
    cr_assert_eq(s->link->unanswered, 0);
    cr_assert_eq(results(&s->seg), 1, "the link may break before the peer has it");
    say_refs(s, REC_TAKEN, 0, 0, 1, &ref);
    cr_assert_eq(turn(s), 0);
    cr_assert_eq(results(&s->seg), 0);
    cr_assert_eq(outcomes(&s->seg), 0);
    /* the use of its place says it, too */
    ref += 2ull << 32;
    say(s, task(ref, s->bytes, 8));
    cr_assert_eq(turn(s), 0);
    run_one(s, 300);
    cr_assert_eq(turn(s), 0);
    cr_assert_eq(results(&s->seg), 1);
    say(s, task(ref + (2ull << 32), s->bytes, 8));
    cr_assert_eq(turn(s), 0);
    cr_assert_eq(results(&s->seg), 0);
    close_scene(s);
    free(s);
}

Test(link, what_was_not_told_can_not_be_taken)
{
    struct scene *s = calloc(1, sizeof *s);
    open_scene(s);
    uint64_t ref = 1ull << 32 | 1, outside = WINDOW;
    say(s, task(ref, s->bytes, 8));
    cr_assert_eq(turn(s), 0);
    say_refs(s, REC_TAKEN, 0, 0, 1, &ref);
    cr_assert_eq(turn(s), -EPROTO);
    close_scene(s);
    open_scene(s);
    say_refs(s, REC_TAKEN, 0, 0, 1, &outside);
    cr_assert_eq(turn(s), -EPROTO);
    close_scene(s);
    open_scene(s);
    say_refs(s, REC_RESUME, REC_LAST, 0, 0, &ref);
    cr_assert_eq(turn(s), -EPROTO, "nobody asked for a list");
    close_scene(s);
    free(s);
}

/* ---- a new link for an old session ---- */

static void again(struct scene *s, enum link_session how)
{
    uint32_t kept = s->link->participant;
    struct identity who = {.client = "test"};
    link_close(s->link, &s->out, s->me, true, UINT64_MAX);
    close_pair(&s->p);
    cr_assert_eq(participant_life(at_load(&s->seg.participant[kept].life)), LIFE_KEPT);
    open_pair(&s->p, LANE_SEND, 22);
    struct link_params lp = scene_params(s, FAB_PRODUCER | FAB_WORKER);
    lp.identity = &who;
    lp.session = how;
    lp.kept = kept;
    lp.window = how == LINK_RESUMED ? WINDOW : 0;
    cr_assert_eq(link_open(&s->link, &lp), 0, "%s", err_text(-1));
    s->link->lane = s->p.lane[1];
}

static uint64_t ref_at(uint32_t i)
{
    return 1ull << 32 | i;
}

/* Five tasks: 0 and 1 answered, of which 0 was taken; 2 is done, 3 waits; 4 never arrived. */
static void five_tasks(struct scene *s)
{
    struct record r;
    uint8_t copy[CELL];
    open_scene(s);
    for (uint32_t i = 0; i < 4; i++) {
        say(s, task(ref_at(i), s->bytes, 8));
        cr_assert_eq(turn(s), 0);
    }
    for (uint32_t i = 0; i < 2; i++) {
        run_one(s, 300);
        cr_assert_eq(turn(s), 0);
    }
    while (hear(s, &r, copy))
        ;
    run_one(s, 8);
    cr_assert_eq(outcomes(&s->seg), 3);
}

Test(link, after_a_break_both_sides_know_what_is_to_be_done)
{
    struct scene *s = calloc(1, sizeof *s);
    uint64_t open[3] = {ref_at(2), ref_at(3), ref_at(4)}, arrived[1] = {ref_at(1)};
    struct record r;
    uint8_t copy[CELL];
    five_tasks(s);
    again(s, LINK_RESUMED);
    cr_assert_eq(turn(s), 0);
    cr_assert_not(hear(s, &r, copy), "outcomes wait until it is clear which are wanted");
    say_refs(s, REC_RESUME, 0, 0, 3, open);
    say_refs(s, REC_RESUME, REC_LAST, 1, 1, arrived);
    cr_assert_eq(turn(s), 0);
    cr_assert(hear(s, &r, copy));
    cr_assert_eq(r.type, REC_UNKNOWN);
    cr_assert(r.flags & REC_LAST);
    cr_assert_eq(rec_refs(&r), 1);
    cr_assert_eq(rec_ref_at(&r, 0), ref_at(4));
    cr_assert(hear(s, &r, copy));
    cr_assert_eq(r.type, REC_OUTCOME);
    cr_assert_eq(r.ref, ref_at(2));
    cr_assert_eq(outcomes(&s->seg), 2, "0 was taken; 1 has arrived, 2 is told");
    /* and it goes on */
    say(s, task(ref_at(4), s->bytes, 8));
    cr_assert_eq(turn(s), 0);
    for (uint32_t i = 3; i < 5; i++) {
        run_one(s, 8);
        cr_assert_eq(turn(s), 0);
        cr_assert(hear(s, &r, copy));
        cr_assert_eq(r.type, REC_OUTCOME);
        cr_assert_eq(r.ref, ref_at(i));
    }
    cr_assert_eq(s->link->unanswered, 0);
    close_scene(s);
    free(s);
}

Test(link, another_handle_takes_up_what_an_earlier_one_has_left)
{
    struct scene *s = calloc(1, sizeof *s);
    struct record r = {0};
    uint32_t len, records, at = 0, kept = 0, done = 0;
    five_tasks(s);
    again(s, LINK_TAKEN_UP);
    cr_assert_eq(s->link->submit_window, WINDOW + 4);
    cr_assert_eq(turn(s), 0);
    const void *batch = lane_rx_next(s->p.lane[0], &len, &records);
    cr_assert_not_null(batch);
    while (rec_next(batch, len, &at, &r) == 1 && r.type == REC_KEPT && !(r.flags & REC_LAST)) {
        cr_assert_eq(r.ref, ref_at(kept));
        cr_assert_eq(r.kernel, 1);
        kept++;
    }
    cr_assert_eq(kept, 4);
    cr_assert(r.flags & REC_LAST);
    lane_rx_release(s->p.lane[0]);
    while ((batch = lane_rx_next(s->p.lane[0], &len, &records))) {
        for (at = 0; rec_next(batch, len, &at, &r) == 1; done++)
            cr_assert_eq(r.type, REC_OUTCOME);
        lane_rx_release(s->p.lane[0]);
    }
    cr_assert_eq(done, 3);
    close_scene(s);
    free(s);
}

Test(link, a_list_that_makes_no_sense_ends_the_link)
{
    struct scene *s = calloc(1, sizeof *s);
    uint64_t outside = ref_at(WINDOW), twice[2] = {ref_at(2), ref_at(2)};
    five_tasks(s);
    again(s, LINK_RESUMED);
    say_refs(s, REC_RESUME, REC_LAST, 0, 1, &outside);
    cr_assert_eq(turn(s), -EPROTO);
    again(s, LINK_RESUMED);
    say_refs(s, REC_RESUME, REC_LAST, 0, 2, twice);
    cr_assert_eq(turn(s), -EPROTO);
    again(s, LINK_RESUMED);
    say(s, task(ref_at(4), s->bytes, 8));
    cr_assert_eq(turn(s), -EPROTO, "a task before the list");
    again(s, LINK_RESUMED);
    uint64_t many[WINDOW + 1];
    for (uint32_t i = 0; i <= WINDOW; i++)
        many[i] = 7ull << 32 | i % WINDOW;
    say_refs(s, REC_RESUME, 0, 0, WINDOW + 1, many);
    cr_assert_eq(turn(s), -EPROTO, "more than there can be");
    close_scene(s);
    free(s);
}

Test(link, a_peer_that_does_not_read_lets_fabricd_sleep)
{
    struct scene *s = calloc(1, sizeof *s);
    struct fab_lease l;
    open_scene(s);
    for (uint64_t i = 0; i < CELLS + 2; i++) {
        say(s, task(i, s->bytes, 8));
        cr_assert_eq(turn(s), 0);
    }
    for (uint32_t i = 0; i < CELLS + 2; i++) { /* one batch each, until there is no credit */
        cr_assert_eq(fab_claim(s->local, 0, &l, 1, 0), 1);
        cr_assert_eq(fab_complete(s->local, &l, s->bytes, 8), 0);
        for (int k = 0; k < 4; k++)
            cr_assert_geq(link_work(s->link), 0);
        settle(&s->p);
    }
    cr_assert_eq(s->link->unanswered, 2, "what has no credit waits");
    cr_assert_eq(link_work(s->link), 0);
    cr_assert(link_arm(s->link), "nothing can be done before the peer reads");
    /* when it reads, they go */
    for (int i = 0; i < 3; i++) {
        uint32_t len, records;
        while (lane_rx_next(s->p.lane[0], &len, &records))
            lane_rx_release(s->p.lane[0]);
        cr_assert_eq(turn(s), 0);
    }
    cr_assert_eq(s->link->unanswered, 0);
    close_scene(s);
    free(s);
}

/* ---- the peer's side: what a daemon may send that it must not ---- */

/* ---- room ---- */

static uint32_t tasks_of(const struct segment *s, uint32_t producer)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->slots; i++)
        n += slot_state(at_load(&s->slot[i].state)) >= SLOT_READY &&
             meta_producer(at_load(&s->slot[i].meta)) == producer;
    return n;
}

Test(link, a_remote_producer_gets_its_share_and_no_more)
{
    struct scene *s = calloc(1, sizeof *s);
    uint64_t arg = 1;
    fab_id id;
    open_scene(s);
    s->seg.producer_share = 20;
    for (uint64_t i = 0; i < WINDOW; i++) {
        struct record r = task(i, &arg, 8);
        r.flags = i % 2 ? REC_NO_WAIT : 0;
        say(s, r);
        cr_assert_eq(turn(s), 0);
        uint32_t len, records;
        while (lane_rx_next(s->p.lane[0], &len, &records)) /* tasks nobody waits for are answered */
            lane_rx_release(s->p.lane[0]);
    }
    cr_assert_eq(tasks_of(&s->seg, s->link->participant), 20);
    cr_assert_eq(s->link->pending_n, WINDOW - 20);
    s->seg.producer_share = 64; /* the other has no share to keep to here */
    struct fab_task t = {.kernel = 1, .arg = &arg, .len = 8};
    for (int i = 0; i < 40; i++)
        cr_assert_eq(fab_submit(s->local, &t, 1, &id, 0), 1, "%s", fab_errmsg());
    close_scene(s);
    free(s);
}

/* Not at the next tick of the daemon's timer: by the doorbell. */
Test(link, a_link_that_waits_for_room_is_rung_when_there_is_some)
{
    struct scene *s = calloc(1, sizeof *s);
    struct local *l;
    uint64_t arg = 1, rung = 0;
    fab_id id;
    open_scene(s);
    l = (struct local *)s->local;
    l->out.daemon_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct fab_task t = {.kernel = 1, .arg = &arg, .len = 8, .flags = FAB_NO_WAIT};
    while (fab_submit(s->local, &t, 1, &id, 0) == 1)
        ;
    say(s, task(0, &arg, 8));
    cr_assert_eq(turn(s), 0);
    cr_assert_eq(s->link->pending_n, 1);
    at_store(&s->seg.head->daemon_parked, 1);
    cr_assert(link_arm(s->link));
    cr_assert_lt(read(l->out.daemon_fd, &rung, 8), 0);
    struct fab_lease lease[64];
    long n = fab_claim(s->local, 0, lease, 64, 0);
    for (long i = 0; i < n; i++)
        cr_assert_eq(fab_complete(s->local, &lease[i], NULL, 0), 0);
    slot_stock_shrink(&s->seg, &l->stock, l->me, 0);
    cr_assert_eq(read(l->out.daemon_fd, &rung, 8), 8, "nobody rang");
    cr_assert(!link_arm(s->link), "there is room now");
    cr_assert_eq(turn(s), 0);
    cr_assert_eq(s->link->pending_n, 0);
    close(l->out.daemon_fd);
    close_scene(s);
    free(s);
}

Test(remote, small_payloads_that_came_as_large_ones_are_read)
{
    struct rlease ring[2] = {0};
    struct rtask tasks[1] = {{.generation = 1}};
    struct rmark marks[2] = {0};
    uint64_t tell[1];
    struct remote r = {.lease = ring,
                       .mark = marks,
                       .lease_cap = 2,
                       .tell = tell,
                       .task = tasks,
                       .window = 1,
                       .done_first = REMOTE_NONE,
                       .done_last = REMOTE_NONE};
    for (uint32_t len = 5; len <= 40; len += 35) {
        uint8_t *data = malloc(64);
        memset(data, 0x42, 64);
        struct record lease = {.type = REC_LEASE, .flags = REC_BIG, .len = len, .ref = 1};
        cr_assert_eq(remote_lease(&r, &lease, data), 0);
    }
    cr_assert_eq(ring[0].lease.small[0], 0x4242424242);
    cr_assert_eq(memcmp(ring[1].lease.small, "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB", 40), 0);
    uint8_t *data = malloc(8);
    memset(data, 0x42, 8);
    struct record out = {.type = REC_OUTCOME,
                         .flags = REC_BIG,
                         .priority = FAB_COMPLETED,
                         .len = 5,
                         .ref = 1ull << 32};
    cr_assert_eq(remote_outcome(&r, &out, data), 0);
    cr_assert_eq(tasks[0].small, 0x4242424242);
    cr_assert_null(tasks[0].data);
}
