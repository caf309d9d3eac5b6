/* SPDX-License-Identifier: MIT
 *
 * test_rtt.c - round trips of peers (apps/fabricd/rtt.h): which PINGs are timed, when one is sent
 * to measure, and the quantiles; and workers that come back (returns.h).
 */
#include <criterion/criterion.h>
#include "apps/fabricd/returns.h"
#include "apps/fabricd/rtt.h"

#define MS 1000000u
#define S  1000000000ull

static struct rtt r;

/* A PING at `at`, answered `took` later. */
static void trip(uint64_t at, uint64_t took)
{
    rtt_sent(&r, at);
    cr_assert(rtt_answered(&r, at, at + took));
}

static uint64_t p50, p99;

Test(rtt, quantiles_are_those_of_the_sorted_samples)
{
    rtt_begin(&r, S);
    cr_assert_not(rtt_quantiles(&r, &p50, &p99), "nothing yet");
    for (uint64_t i = 0; i < 100; i++)
        trip((2 + i) * S, (1 + i * 37 % 100) * MS); /* 1 to 100 ms, shuffled */
    cr_assert(rtt_quantiles(&r, &p50, &p99));
    cr_assert(p50 >= 50 * MS - 64 && p50 <= 50 * MS + 64, "%lu", p50);
    cr_assert(p99 >= 99 * MS - 64 && p99 <= 99 * MS + 64, "%lu", p99);
    cr_assert_not(rtt_quantiles(&r, &p50, &p99), "nothing new");
}

Test(rtt, old_ones_are_forgotten_and_short_ones_are_not_nothing)
{
    rtt_begin(&r, S);
    for (uint64_t i = 0; i < RTT_KEEP; i++)
        trip((2 + i) * S, S / 2);
    for (uint64_t i = 0; i < RTT_KEEP; i++)
        trip((1000 + i) * S, 1);
    cr_assert(rtt_quantiles(&r, &p50, &p99));
    cr_assert(p50 > 0 && p50 < 1000 && p99 < 1000);
}

Test(rtt, of_pings_on_their_way_the_first_is_timed)
{
    rtt_begin(&r, S);
    rtt_sent(&r, 10 * S);
    rtt_sent(&r, 11 * S);
    cr_assert_not(rtt_answered(&r, 11 * S, 12 * S), "the later one is not timed");
    cr_assert_not(rtt_answered(&r, 0, 12 * S));
    cr_assert(rtt_answered(&r, 10 * S, 12 * S));
    cr_assert_not(rtt_answered(&r, 10 * S, 13 * S), "an answer counts once");
    cr_assert(rtt_quantiles(&r, &p50, &p99));
    cr_assert(p50 >= 2 * S - 64 && p50 <= 2 * S + 64);
}

Test(rtt, a_link_on_another_connection_keeps_its_round_trips)
{
    rtt_begin(&r, S);
    trip(2 * S, MS);
    rtt_sent(&r, 3 * S);
    rtt_begin(&r, 4 * S);
    cr_assert_not(rtt_answered(&r, 3 * S, 5 * S), "that was asked over the old one");
    trip(6 * S, 3 * MS);
    cr_assert_eq(r.n, 2);
    cr_assert(rtt_quantiles(&r, &p50, &p99));
    cr_assert(p50 < 2 * MS && p99 > 2 * MS, "both");
}

/* Goes on from `now` to `end` as fabricd does, which sleeps until it is told to look; returns how
 * many PINGs were sent. step: how often the lane is heard; 0: it is not. */
static unsigned live(uint64_t now, uint64_t end, uint64_t step, uint32_t links)
{
    uint64_t heard = 0;
    unsigned n = 0;
    while (now < end) {
        uint64_t next = end;
        if (step)
            heard = now;
        if (rtt_due(&r, heard, links, now, &next)) {
            trip(now, 50000);
            n++;
        }
        cr_assert_gt(next, now, "fabricd would not sleep");
        now = step && now + step < next ? now + step : next;
    }
    return n;
}

Test(rtt, a_fresh_link_gets_some_and_an_idle_one_no_more)
{
    rtt_begin(&r, S);
    cr_assert_eq(live(S, 3 * S, 0, 1), 8);
    cr_assert_eq(live(3 * S, 1000 * S, 0, 1), 0, "heartbeats are enough");
}

Test(rtt, a_used_link_gets_a_few_a_second_and_less_the_more_there_are)
{
    rtt_begin(&r, S);
    cr_assert_eq(live(S, 3 * S, 0, 1), 8);
    unsigned n = live(10 * S, 20 * S, MS, 1);
    cr_assert(n >= 38 && n <= 40, "%u in 10 s", n);
    n = live(30 * S, 40 * S, MS, 1000);
    cr_assert(n >= 7 && n <= 8, "%u in 10 s", n);
}

Test(rtt, who_does_not_answer_is_not_asked_again)
{
    uint64_t next;
    rtt_begin(&r, S);
    rtt_sent(&r, 2 * S);
    for (uint64_t now = 3 * S; now < 30 * S; now = next) {
        next = 30 * S;
        cr_assert_not(rtt_due(&r, now, 1, now, &next));
        cr_assert_geq(next, now + 50 * MS, "it is not looked at all the time");
    }
}

Test(returns, a_worker_is_recognised_by_host_and_name)
{
    struct returns t;
    cr_assert_eq(returns_open(&t, 4), 0);
    cr_assert_eq(returns_came(&t, "10.0.0.1:1000", "fabworker/0"), 0);
    returns_broken(&t, "10.0.0.1:1000", "fabworker/0", 0);
    cr_assert_eq(returns_came(&t, "10.0.0.2:1000", "fabworker/0"), 0, "another host");
    cr_assert_eq(returns_came(&t, "10.0.0.1:1001", "fabworker/1"), 0, "another core");
    cr_assert_eq(returns_came(&t, "10.0.0.1:1001", "fabworker/0"), 1);
    cr_assert_eq(returns_came(&t, "10.0.0.1:1002", "fabworker/0"), 0,
                 "a second of that name is new");
    returns_broken(&t, "10.0.0.1:1001", "fabworker/0", 1);
    cr_assert_eq(returns_came(&t, "10.0.0.1:1003", "fabworker/0"), 2);
    for (uint32_t i = 0; i < 5; i++) {
        char name[8] = {'w', (char)('0' + i)};
        returns_broken(&t, "[::1]:7", name, 10 * i);
    }
    cr_assert_eq(returns_came(&t, "[::1]:8", "w0"), 0, "the oldest is forgotten");
    cr_assert_eq(returns_came(&t, "[::1]:8", "w4"), 41);
    returns_close(&t);
}
