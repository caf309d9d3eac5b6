/* SPDX-License-Identifier: MIT
 *
 * test_lane.c - two lanes over a simulated network, in both modes: order, batches, credits, refused
 * posts, the end in the middle; choosing and making a lane. What a peer may send that it must not
 * is in test_lane_peer.c.
 */
#include "tests/unit/lane_pair.h"

/* ---- pairs ---- */

ALL(one_batch_arrives_as_it_was_put)
{
    struct pair p;
    uint32_t len, records;
    open_pair(&p, mode, 1);
    cr_assert(lane_tx_idle(p.lane[0]));
    cr_assert_eq(lane_tx_flush(p.lane[0]), 0, "nothing to post");
    for (uint64_t i = 0; i < 3; i++)
        cr_assert(put(p.lane[0], i, 64));
    cr_assert_not(lane_tx_idle(p.lane[0]));
    cr_assert_null(lane_rx_next(p.lane[1], &len, &records));
    cr_assert_eq(lane_tx_flush(p.lane[0]), 1);
    settle(&p);
    cr_assert(lane_tx_idle(p.lane[0]));
    const void *batch = lane_rx_next(p.lane[1], &len, &records);
    cr_assert_not_null(batch);
    cr_assert_eq(records, 3);
    check_batch(batch, len, records, 0, 64);
    cr_assert_eq(((uintptr_t)batch) % 8, 0);
    lane_rx_release(p.lane[1]);
    cr_assert_null(lane_rx_next(p.lane[1], &len, &records));
    close_pair(&p);
}

ALL(a_batch_holds_what_it_says)
{
    struct pair p;
    uint32_t len, records;
    open_pair(&p, mode, 2);
    cr_assert_eq(lane_tx_max(p.lane[0]), CELL - OVERHEAD);
    cr_assert_null(lane_tx_room(p.lane[0], CELL - OVERHEAD + 1));
    cr_assert(put(p.lane[0], 9, CELL - OVERHEAD));
    cr_assert_null(lane_tx_room(p.lane[0], 8), "the batch is full");
    cr_assert_eq(lane_tx_flush(p.lane[0]), 1);
    cr_assert(put(p.lane[0], 10, 8), "there is a next cell");
    cr_assert_eq(lane_tx_flush(p.lane[0]), 1);
    settle(&p);
    const void *batch = lane_rx_next(p.lane[1], &len, &records);
    cr_assert_not_null(batch);
    check_batch(batch, len, records, 9, CELL - OVERHEAD);
    lane_rx_release(p.lane[1]);
    batch = lane_rx_next(p.lane[1], &len, &records);
    cr_assert(batch && len == 8 && records == 1);
    close_pair(&p);
}

ALL(everything_arrives_once_and_in_order)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct pair p;
        open_pair(&p, mode, seed);
        exchange(&p, seed, 0);
        close_pair(&p);
    }
}

ALL(refused_posts_lose_nothing)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct pair p;
        open_pair(&p, mode, seed);
        exchange(&p, seed, 300);
        close_pair(&p);
    }
}

ALL(a_refused_post_keeps_the_batch)
{
    struct pair p;
    uint32_t len, records;
    open_pair(&p, mode, 3);
    cr_assert(put(p.lane[0], 1, 64));
    net_params(p.net)->again = 1000;
    for (int i = 0; i < 10; i++)
        cr_assert_eq(lane_tx_flush(p.lane[0]), -EAGAIN);
    net_params(p.net)->again = 0;
    cr_assert_eq(lane_tx_flush(p.lane[0]), 1);
    cr_assert_eq(lane_tx_flush(p.lane[0]), 0, "it went once");
    settle(&p);
    const void *batch = lane_rx_next(p.lane[1], &len, &records);
    cr_assert_not_null(batch);
    cr_assert_eq(records, 1);
    check_batch(batch, len, records, 1, 64);
    lane_rx_release(p.lane[1]);
    cr_assert_null(lane_rx_next(p.lane[1], &len, &records));
    close_pair(&p);
}

/* The receives that were refused at binding are posted later. */
ALL(receives_refused_at_binding_are_posted_later)
{
    struct pair p;
    uint32_t len, records;
    open_net(&p, 4);
    for (int i = 0; i < 2; i++)
        p.lane[i] = make_lane(&p, i, mode);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(lane_peer(p.lane[i], &p.exported[!i]), 0);
    net_params(p.net)->again = 1000;
    connect_pair(&p);
    net_params(p.net)->again = 0;
    cr_assert_eq(net_open_ops(p.ep[1]), 0);
    cr_assert(put(p.lane[0], 1, 64));
    cr_assert_eq(lane_tx_flush(p.lane[0]), 1);
    cr_assert_eq(lane_tx_flush(p.lane[1]), 0);
    cr_assert_eq(net_open_ops(p.ep[1]), CELLS + 2);
    settle(&p);
    cr_assert_not_null(lane_rx_next(p.lane[1], &len, &records));
    close_pair(&p);
}

ALL(no_more_batches_than_cells_without_credit)
{
    struct pair p;
    struct lane_stats st;
    open_pair(&p, mode, 6);
    for (uint64_t i = 0; i < CELLS; i++) {
        cr_assert(put(p.lane[0], i, 8));
        cr_assert_eq(lane_tx_flush(p.lane[0]), 1);
    }
    lane_stats(p.lane[0], &st);
    cr_assert_eq(st.credits, 0);
    settle(&p);
    for (int i = 0; i < 3; i++)
        cr_assert_null(lane_tx_room(p.lane[0], 8));
    lane_stats(p.lane[0], &st);
    cr_assert_eq(st.tx_stalls, 3);
    cr_assert_eq(lane_tx_flush(p.lane[0]), 0);
    close_pair(&p);
}

ALL(credits_come_back_in_bare_heads)
{
    struct pair p;
    struct lane_stats st;
    uint32_t len, records;
    open_pair(&p, mode, 7);
    for (int lap = 0; lap < 50; lap++) {
        for (uint64_t i = 0; i < CELLS; i++) {
            cr_assert(put(p.lane[0], i, 8), "lap %d", lap);
            cr_assert_eq(lane_tx_flush(p.lane[0]), 1);
        }
        settle(&p);
        for (uint32_t i = 0; i < CELLS; i++) {
            cr_assert_not_null(lane_rx_next(p.lane[1], &len, &records));
            lane_rx_release(p.lane[1]);
            cr_assert_eq(lane_tx_flush(p.lane[1]), 0);
        }
        settle(&p);
        lane_stats(p.lane[0], &st);
        cr_assert_eq(st.credits, CELLS, "half of the cells owed is enough, twice");
    }
    lane_stats(p.lane[1], &st);
    cr_assert_eq(st.tx_batches, 0, "a bare head is no batch");
    cr_assert_eq(st.credits, CELLS, "and costs no credit");
    close_pair(&p);
}

ALL(credits_ride_on_batches)
{
    struct pair p;
    struct lane_stats st;
    uint32_t len, records;
    open_pair(&p, mode, 8);
    cr_assert(put(p.lane[0], 1, 8));
    cr_assert_eq(lane_tx_flush(p.lane[0]), 1);
    settle(&p);
    cr_assert_not_null(lane_rx_next(p.lane[1], &len, &records));
    lane_rx_release(p.lane[1]);
    cr_assert_eq(lane_tx_flush(p.lane[1]), 0);
    settle(&p);
    lane_stats(p.lane[0], &st);
    cr_assert_eq(st.credits, CELLS - 1, "one owed cell is no reason for a message");
    cr_assert(put(p.lane[1], 1, 8));
    cr_assert_eq(lane_tx_flush(p.lane[1]), 1);
    settle(&p);
    lane_stats(p.lane[0], &st);
    cr_assert_eq(st.credits, CELLS);
    close_pair(&p);
}

/* ---- the end ---- */

ALL(a_cut_closes_both_ends_in_the_middle)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct pair p;
        uint32_t len, records;
        uint64_t next = 0;
        const void *batch;
        open_pair(&p, mode, seed);
        for (uint64_t i = 0; i < CELLS; i++) {
            cr_assert(put(p.lane[0], i, 512));
            cr_assert_eq(lane_tx_flush(p.lane[0]), 1);
        }
        cr_assert(put(p.lane[1], 7, 8));
        net_run_until(p.net, net_now(p.net) + seed * 200);
        net_cut(p.ep[0]);
        settle(&p);
        for (int i = 0; i < 2; i++) {
            cr_assert_eq(p.closed[i], -ECONNRESET);
            cr_assert_eq(net_open_ops(p.ep[i]), 0);
            cr_assert_null(lane_tx_room(p.lane[i], 8));
            cr_assert_eq(lane_tx_flush(p.lane[i]), -ENOTCONN);
        }
        while ((batch = lane_rx_next(p.lane[1], &len, &records))) { /* what came before, in order */
            next = check_batch(batch, len, records, next, 512);
            lane_rx_release(p.lane[1]);
        }
        cr_assert_leq(next, CELLS);
        cr_assert_null(lane_rx_next(p.lane[0], &len, &records));
        close_pair(&p);
    }
}

ALL(what_arrived_before_the_end_can_be_read)
{
    struct pair p;
    uint32_t len, records;
    open_pair(&p, mode, 12);
    for (uint64_t i = 0; i < 3; i++) {
        cr_assert(put(p.lane[0], i, 64));
        cr_assert_eq(lane_tx_flush(p.lane[0]), 1);
    }
    net_settle(p.net); /* arrived, but nobody has looked */
    net_cut(p.ep[1]);
    settle(&p);
    cr_assert_eq(p.closed[1], -ECONNRESET);
    for (uint64_t i = 0; i < 3; i++) {
        const void *batch = lane_rx_next(p.lane[1], &len, &records);
        cr_assert_not_null(batch);
        check_batch(batch, len, records, i, 64);
        lane_rx_release(p.lane[1]);
    }
    cr_assert_null(lane_rx_next(p.lane[1], &len, &records));
    close_pair(&p);
}

ALL(a_peer_that_ends_is_seen)
{
    struct pair p;
    open_pair(&p, mode, 9);
    cr_assert(put(p.lane[0], 1, 8));
    tr_net.ep_shutdown(p.ep[1]);
    settle(&p);
    cr_assert_eq(p.closed[0], -ECONNRESET);
    cr_assert_eq(p.closed[1], -ECANCELED, "its own receives came back");
    cr_assert_eq(lane_tx_flush(p.lane[0]), -ENOTCONN);
    close_pair(&p);
}

ALL(nothing_arrives_through_a_partition)
{
    struct pair p;
    uint32_t len, records;
    open_pair(&p, mode, 10);
    net_partition(p.ep[0], true);
    cr_assert(put(p.lane[0], 1, 8));
    cr_assert_eq(lane_tx_flush(p.lane[0]), 1);
    settle(&p);
    cr_assert_null(lane_rx_next(p.lane[1], &len, &records));
    cr_assert(p.closed[0] == 0 && p.closed[1] == 0, "nobody is told");
    net_partition(p.ep[0], false);
    settle(&p);
    cr_assert_not_null(lane_rx_next(p.lane[1], &len, &records));
    net_partition(p.ep[0], true);
    net_timeout(p.ep[1]);
    settle(&p);
    cr_assert(p.closed[0] == 0 && p.closed[1] == -ETIMEDOUT);
    net_partition(p.ep[0], false);
    settle(&p);
    cr_assert_eq(p.closed[0], -ECONNRESET);
    close_pair(&p);
}

/* ---- choosing and making ---- */

Test(lane, the_mode_follows_the_provider)
{
    struct tr_caps tcp = {.provider = "tcp", .one_sided = true},
                   verbs = {.provider = "verbs", .one_sided = true},
                   bare = {.provider = "verbs", .one_sided = false};
    cr_assert_eq(lane_choose(LANE_AUTO, &tcp), LANE_SEND);
    cr_assert_eq(lane_choose(LANE_AUTO, &verbs), LANE_WRITE);
    cr_assert_eq(lane_choose(LANE_AUTO, &bare), LANE_SEND);
    cr_assert_eq(lane_choose(LANE_WRITE, &tcp), LANE_WRITE);
    cr_assert_eq(lane_choose(LANE_SEND, &verbs), LANE_SEND);
    cr_assert_eq(lane_choose(LANE_WRITE, &bare), -ENOTSUP);
    cr_assert_not_null(strstr(err_text(-ENOTSUP), "fabric.lane"), "the remedy is named");
}

Test(lane, unsound_parameters_are_refused)
{
#define BAD(m, bytes, n) {.mode = (m), .cell = (bytes), .cells = (n), .incarnation = 1}
    const struct seal on = {.on = true};
    const struct lane_params bad[] = {
        BAD(LANE_AUTO, 1024, 4),
        BAD(LANE_SEND, 0, 4),
        BAD(LANE_SEND, 1000, 4),
        BAD(LANE_SEND, 1056 + 8, 4),
        BAD(LANE_SEND, 2u << 20, 4),
        BAD(LANE_SEND, 1024, 0),
        BAD(LANE_SEND, 1024, 1),
        BAD(LANE_SEND, 1024, 3),
        BAD(LANE_WRITE, 1024, 512),
        BAD((enum lane_mode)7, 1024, 4),
        BAD(LANE_WRITE, UINT32_MAX, 4),
        {.mode = LANE_WRITE, .cell = 1024, .cells = 4, .tx_seal = on, .rx_seal = on},
        {.mode = LANE_SEND, .cell = 1024, .cells = 4, .tx_seal = on}};
    struct pair p;
    struct lane *l;
    struct tr_remote r;
    open_net(&p, 13);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(lane_new(&l, &tr_net, p.dom[0], &bad[i], &r), -EPROTO, "case %zu", i);
    close_pair(&p);
}
