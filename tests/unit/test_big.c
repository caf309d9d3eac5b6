/* SPDX-License-Identifier: MIT
 *
 * test_big.c - large payloads that a peer offers and fabricd reads (transport/big.h): what comes where,
 * what is refused, and that memory which is being read into is nobody else's.
 *
 * Threads: one. The peer is the test, as in test_link.c.
 */
#include "tests/unit/link_case.h"

#define LEN 20000u /* some pieces: the first two have LANE_READ_MIN cells of 1 KiB */

static struct net_stats stats_of(const struct scene *s)
{
    struct net_stats st;
    net_stats(s->p.net, &st);
    return st;
}

static struct scene *open_direct(void)
{
    struct scene *s = calloc(1, sizeof *s);
    copying_net = true;
    open_scene(s);
    s->big.offer = lane_tx_all(s->p.lane[0]);
    return s;
}

static void close_direct(struct scene *s)
{
    close_scene(s);
    free(s);
}

/* A task of the local handle's, leased by the peer; its ref. */
static uint64_t lease_one(struct scene *s, fab_id *id)
{
    struct fab_task t = {.kernel = 1, .arg = s->bytes, .len = 8};
    struct record r;
    uint8_t copy[CELL];
    cr_assert_eq(fab_submit(s->local, &t, 1, id, 0), 1);
    say(s, (struct record){.type = REC_WANT, .len = 1});
    cr_assert_eq(turn(s), 0);
    cr_assert(hear(s, &r, copy));
    cr_assert_eq(r.type, REC_LEASE);
    return r.ref;
}

/* The peer hears what fabricd says next, and does what a handle does with READ. */
static uint8_t hear_next(struct scene *s)
{
    struct record r;
    uint8_t copy[CELL];
    if (!hear(s, &r, copy))
        return 0;
    if (r.type == REC_READ)
        cr_assert_eq(big_was_read(&s->big, &r), 0, "%s", err_text(-1));
    return r.type;
}

/* It hears of the bytes that were read, until these are all. */
static void hear_all_read(struct scene *s)
{
    while (s->big.first) {
        cr_assert_eq(hear_next(s), REC_READ);
        cr_assert_eq(turn(s), 0);
    }
}

static struct record done_of(uint64_t ref, uint32_t len)
{
    return (struct record){.type = REC_DONE, .priority = FAB_COMPLETED, .ref = ref, .len = len};
}

/* ---- what is offered is read ---- */

Test(big, a_result_that_is_offered_is_read_into_the_segment)
{
    struct scene *s = open_direct();
    struct fab_outcome o;
    fab_id id;
    struct record done = done_of(lease_one(s, &id), LEN);
    uint64_t batches = stats_of(s).delivered;
    cr_assert_eq(big_send(&s->big, &done, s->bytes, NULL), 0);
    cr_assert_eq(turn(s), 0, "%s", err_text(-1));
    struct net_stats st = stats_of(s);
    cr_assert_geq(st.reads, 2, "by pieces");
    cr_assert_leq(st.delivered - batches, 4 + 2 * st.reads, "and not in records");
    cr_assert(big_is_offered(&s->big), "the bytes are the peer's until it hears that they were read");
    hear_all_read(s);
    cr_assert_eq(fab_wait(s->local, id, &o, 0), 0);
    cr_assert(o.status == FAB_COMPLETED && o.len == LEN && memcmp(o.data, s->bytes, LEN) == 0);
    cr_assert(local_is_block((struct local *)s->local, o.data));
    cr_assert_eq(s->link->in_flight, 0);
    close_direct(s);
}

Test(big, an_argument_that_is_offered_is_read_before_it_is_placed)
{
    struct scene *s = open_direct();
    struct record r = task(7, NULL, LEN);
    struct fab_lease l;
    cr_assert_eq(big_send(&s->big, &r, s->bytes, NULL), 0);
    uint8_t said[8] = {0};
    uint32_t n = 0, len, records;
    const uint8_t *batch;
    do { /* both words may be in one batch, which is one too many for hear() */
        cr_assert_eq(turn(s), 0, "%s", err_text(-1));
        if (!(batch = lane_rx_next(s->p.lane[0], &len, &records)))
            break;
        struct record got;
        uint32_t at = 0;
        while (rec_next(batch, len, &at, &got) == 1) {
            if (got.type == REC_READ)
                cr_assert_eq(big_was_read(&s->big, &got), 0);
            if (!big_is_offered(&s->big)) /* that all is read, and what comes behind it */
                said[n++ & 7] = got.type;
        }
        lane_rx_release(s->p.lane[0]);
    } while (n < 2);
    cr_assert(n == 2 && said[0] == REC_READ && said[1] == REC_PLACED);
    cr_assert_gt(stats_of(s).reads, 0);
    cr_assert_eq(fab_claim(s->local, 0, &l, 1, 0), 1);
    cr_assert(l.len == LEN && memcmp(fab_arg(&l), s->bytes, LEN) == 0);
    cr_assert_eq(fab_complete(s->local, &l, NULL, 0), 0);
    close_direct(s);
}

/* A payload that the lane holds would wait for an answer more. */
Test(big, what_the_lane_holds_is_not_offered)
{
    struct scene *s = open_direct();
    fab_id id;
    struct record done = done_of(lease_one(s, &id), lane_tx_all(s->p.lane[0]) - 1);
    cr_assert_eq(big_send(&s->big, &done, s->bytes, NULL), 0);
    cr_assert_eq(turn(s), 0);
    cr_assert_eq(stats_of(s).reads, 0);
    close_direct(s);
}

Test(big, one_over_the_arena_is_not_read_and_fails_its_task)
{
    struct scene *s = open_direct();
    struct fab_outcome o;
    fab_id id;
    struct record done = done_of(lease_one(s, &id), ARENA + 1000);
    cr_assert_eq(big_send(&s->big, &done, s->bytes, NULL), 0);
    cr_assert_eq(turn(s), 0);
    cr_assert_eq(stats_of(s).reads, 0);
    cr_assert_eq(hear_next(s), REC_READ);
    cr_assert_eq(fab_wait(s->local, id, &o, 0), 0);
    cr_assert_eq(o.status, FAB_FAILED);
    close_direct(s);
}

/* Without room in the arena the bytes come into memory of fabricd's, and the task says what is missing. */
Test(big, one_without_room_fails_its_task)
{
    struct scene *s = open_direct();
    struct fab_outcome o;
    fab_id id;
    void *all;
    struct record done = done_of(lease_one(s, &id), LEN);
    cr_assert_eq(fab_arg_new(s->local, ARENA, &all, 0), 0, "%s", err_text(-1));
    cr_assert_eq(big_send(&s->big, &done, s->bytes, NULL), 0);
    cr_assert_eq(turn(s), 0, "%s", err_text(-1));
    cr_assert_gt(stats_of(s).reads, 0);
    hear_all_read(s);
    cr_assert_eq(fab_wait(s->local, id, &o, 0), 0);
    cr_assert(o.status == FAB_FAILED && strstr(o.data, "arena"));
    fab_arg_drop(s->local, all);
    close_direct(s);
}

/* fabricd's transport reads memory later, or it was told not to: the offer is answered, the bytes come in
 * records. */
Test(big, an_offer_that_is_declined_goes_on_in_records)
{
    struct scene *s = calloc(1, sizeof *s);
    struct fab_outcome o;
    fab_id id;
    open_scene(s);
    s->big.offer = 1;
    struct record done = done_of(lease_one(s, &id), LEN);
    cr_assert_eq(big_send(&s->big, &done, s->bytes, NULL), 0);
    cr_assert_eq(turn(s), 0);
    cr_assert_eq(hear_next(s), REC_READ);
    cr_assert(s->big.first && s->big.first->how == BIG_RECORDS);
    cr_assert_eq(turn(s), 0, "%s", err_text(-1));
    cr_assert_eq(stats_of(s).reads, 0);
    cr_assert_null(s->big.first);
    cr_assert_eq(fab_wait(s->local, id, &o, 0), 0);
    cr_assert(o.status == FAB_COMPLETED && o.len == LEN && memcmp(o.data, s->bytes, LEN) == 0);
    close_direct(s);
}

/* ---- what a peer may say that it must not ---- */

static struct record offer(uint64_t ref, const uint8_t *where)
{
    return (struct record){.type = REC_OFFER, .ref = ref, .len = BIG_CLEAR_LEN, .payload = where};
}

static struct record announced(uint64_t ref)
{
    struct record r = task(ref, NULL, LEN);
    r.flags = REC_BIG;
    return r;
}

Test(big, offers_out_of_turn_end_the_link)
{
    uint8_t all[BIG_CLEAR_LEN], less[BIG_CLEAR_LEN];
    big_put_clear(all, &(struct tr_remote){.addr = 0, .key = 1, .len = LEN});
    big_put_clear(less, &(struct tr_remote){.addr = 0, .key = 1, .len = LEN - 1});
    const struct record data = {.type = REC_DATA, .ref = 7, .len = 8, .payload = all};
    struct record brief = offer(7, all);
    brief.len = 16;
    const struct {
        const char *what;
        struct record first, then;
    } bad[] = {{"nothing was announced", offer(7, all), offer(7, all)},
               {"something else was", announced(7), offer(8, all)},
               {"less than was announced", announced(7), offer(7, less)},
               {"no whole offer", announced(7), brief}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct scene *s = open_direct();
        say(s, bad[i].first);
        say(s, bad[i].then);
        cr_assert_eq(turn(s), -EPROTO, "%s", bad[i].what);
        cr_assert_eq(stats_of(s).reads, 0);
        close_direct(s);
    }
    const struct record late[] = {data, offer(7, all)};
    for (size_t i = 0; i < 2; i++) { /* behind an offer */
        struct scene *s = open_direct();
        say(s, announced(7));
        say(s, offer(7, all));
        say(s, late[i]);
        cr_assert_eq(turn(s), -EPROTO);
        close_direct(s);
    }
    struct scene *s = open_direct(); /* the first bytes came already */
    say(s, announced(7));
    say(s, data);
    say(s, offer(7, all));
    cr_assert_eq(turn(s), -EPROTO);
    close_direct(s);
}

/* Whoever names memory that is not open for it breaks its own connection. */
Test(big, an_offer_of_other_memory_ends_the_link)
{
    for (int writes = 0; writes < 2; writes++) {
        struct scene *s = open_direct();
        uint8_t where[BIG_CLEAR_LEN];
        struct tr_remote at;
        struct tr_mr *mr;
        cr_assert_eq(tr_net.mr_reg(s->p.dom[0], s->bytes, sizeof s->bytes,
                                   writes ? TR_PEER_WRITES : TR_LOCAL, &mr, &at),
                     0);
        big_put_clear(where, &at);
        say(s, announced(7));
        say(s, offer(7, where));
        cr_assert_eq(lane_tx_flush(s->p.lane[0]), 1);
        settle(&s->p);
        cr_assert_eq(link_work(s->link), 2);
        settle(&s->p);
        cr_assert_lt(s->p.closed[1], 0);
        cr_assert_eq(stats_of(s).reads, 0);
        tr_net.mr_close(mr);
        close_direct(s);
    }
}

Test(big, what_was_not_offered_was_not_read)
{
    struct scene *s = open_direct();
    struct record done = done_of(5, LEN);
    struct record read = {.type = REC_READ, .priority = REC_DONE, .len = LEN, .ref = 5};
    cr_assert_eq(big_was_read(&s->big, &read), -EPROTO, "nothing is there");
    cr_assert_eq(big_send(&s->big, &done, s->bytes, NULL), 0);
    cr_assert_eq(big_was_read(&s->big, &read), -EPROTO, "it has not been offered yet");
    cr_assert_gt(big_pump(&s->big, s->p.lane[0]), 0);
    struct record wrong[] = {read, read, read};
    wrong[0].ref = 6;
    wrong[1].priority = REC_SUBMIT;
    wrong[2].len = LEN + 1;
    for (size_t i = 0; i < 3; i++)
        cr_assert_eq(big_was_read(&s->big, &wrong[i]), -EPROTO);
    struct record some = read;
    some.len = 5000;
    cr_assert_eq(big_was_read(&s->big, &some), 0);
    cr_assert_eq(big_was_read(&s->big, &some), -EPROTO, "no more than before");
    cr_assert(big_is_offered(&s->big));
    cr_assert_eq(big_was_read(&s->big, &read), 0);
    cr_assert_null(s->big.first);
    close_direct(s);
}

/* ---- memory ---- */

/* Leaves the reads on their way. */
static void begin_read(struct scene *s, fab_id *id)
{
    struct record done = done_of(lease_one(s, id), LEN);
    cr_assert_eq(big_send(&s->big, &done, s->bytes, NULL), 0);
    cr_assert_gt(big_pump(&s->big, s->p.lane[0]), 0);
    settle(&s->p);
    cr_assert_geq(link_work(s->link), 0);
    cr_assert_eq(lane_reads(s->p.lane[1]), 2);
}

Test(big, a_link_that_ends_while_it_reads_gives_its_block_back)
{
    struct scene *s = open_direct();
    fab_id id;
    uint64_t before = arena_bytes_free(&s->seg);
    begin_read(s, &id);
    cr_assert_lt(arena_bytes_free(&s->seg), before);
    tr_net.ep_shutdown(s->p.ep[1]);
    tr_net.ep_free(s->p.ep[1]);
    s->p.ep[1] = NULL;
    link_close(s->link, &s->out, s->me, true, 0);
    cr_assert_eq(arena_bytes_free(&s->seg), before);
    /* what arrives late finds nothing to go to */
    void *mine;
    cr_assert_eq(fab_arg_new(s->local, ARENA, &mine, 0), 0);
    memset(mine, 0x5a, ARENA);
    net_settle(s->p.net);
    for (uint32_t i = 0; i < ARENA; i++)
        cr_assert_eq(((uint8_t *)mine)[i], 0x5a);
    fab_arg_drop(s->local, mine);
    struct link_params lp = scene_params(s, FAB_WORKER);
    cr_assert_eq(link_open(&s->link, &lp), 0); /* for close_scene() */
    close_direct(s);
}

/* What waits for room gives its block back, but not while it is read into. */
Test(big, a_full_list_of_waiting_tasks_leaves_a_read_alone)
{
    struct scene *s = open_direct();
    fab_id id;
    begin_read(s, &id);
    const uint8_t *at = s->link->big_in.data;
    s->link->pending_bytes = UINT64_MAX; /* as with many large arguments; they are not the subject here */
    cr_assert_geq(link_work(s->link), 0);
    cr_assert_eq(s->link->big_in.data, at);
    settle(&s->p);
    cr_assert_geq(link_work(s->link), 0);
    s->link->pending_bytes = 0;
    cr_assert_eq(turn(s), 0);
    struct fab_outcome o;
    cr_assert_eq(fab_wait(s->local, id, &o, 0), 0);
    cr_assert_eq((const uint8_t *)o.data, at);
    cr_assert_eq(memcmp(o.data, s->bytes, LEN), 0);
    close_direct(s);
}

/* On a slow wire the peer hears after each piece that fabricd is there. */
Test(big, the_peer_hears_of_each_piece)
{
    struct scene *s = open_direct();
    fab_id id;
    begin_read(s, &id);
    cr_assert_eq(lane_reads_bytes(s->p.lane[1]), 2 * LANE_READ_MIN * CELL);
    while (lane_reads(s->p.lane[1]) == 2) {
        cr_assert(net_step(s->p.net));
        (void)pump(&s->p);
    }
    cr_assert_geq(link_work(s->link), 0);
    settle(&s->p);
    cr_assert_eq(hear_next(s), REC_READ);
    cr_assert(big_is_offered(&s->big) && s->big.first->off == LANE_READ_MIN * CELL);
    cr_assert_eq(turn(s), 0);
    hear_all_read(s);
    close_direct(s);
}

/* Small records go past what is read. */
Test(big, a_small_task_does_not_wait_for_a_read)
{
    struct scene *s = open_direct();
    struct fab_lease l;
    fab_id id;
    begin_read(s, &id);
    say(s, task(9, s->bytes, 8));
    cr_assert_eq(lane_tx_flush(s->p.lane[0]), 1);
    while (lane_reads(s->p.lane[1]) > 0 && fab_claim(s->local, 0, &l, 1, 0) != 1) {
        cr_assert(net_step(s->p.net));
        (void)pump(&s->p);
        cr_assert_geq(link_work(s->link), 0);
    }
    cr_assert_gt(lane_reads(s->p.lane[1]) + s->link->big_in.offered, 0, "it was there first");
    close_direct(s);
}
