/* SPDX-License-Identifier: MIT
 *
 * test_bench_stats.c - the benchmark's statistics against numbers worked out by hand.
 */
#include <criterion/criterion.h>
#include <math.h>
#include "bench/stats.h"

static void near(double got, double want)
{
    cr_assert(fabs(got - want) <= 1e-9 * (1 + fabs(want)), "%.12g, not %.12g", got, want);
}

Test(bench_stats, quantiles_are_linear_between_neighbours)
{
    const double v[] = {10, 20, 30, 40};
    near(stat_quantile(v, 4, 0), 10);
    near(stat_quantile(v, 4, 1), 40);
    near(stat_quantile(v, 4, 0.5), 25);
    near(stat_quantile(v, 4, 0.25), 17.5);
    near(stat_quantile(v, 1, 0.99), 10);
}

Test(bench_stats, a_spread_is_the_quartiles_in_any_order)
{
    const double v[] = {5, 1, 4, 2, 3};
    struct spread s = spread_of(v, 5);
    near(s.q1, 2);
    near(s.median, 3);
    near(s.q3, 4);
    cr_assert_eq(s.n, 5);
    cr_assert_eq(v[0], 5, "what was given is left as it was");
    cr_assert_eq(spread_of(v, 0).n, 0);
}

Test(bench_stats, a_ratio_is_taken_turn_by_turn)
{
    /* both doubled in the third turn: what disturbed both is not in the ratio */
    const double a[] = {200, 210, 400}, b[] = {100, 105, 200};
    struct ratio r = ratio_of(a, b, 3);
    cr_assert_eq(r.verdict, RATIO_SURE);
    near(r.s.median, 2);
    near(r.s.q1, 2);
    near(r.s.q3, 2);
}

Test(bench_stats, a_ratio_that_the_spread_swallows_is_none)
{
    const double floor[] = {100, 100, 100, 100, 100};
    const double wide[] = {110, 150, 200, 290, 400}, even[] = {96, 98, 100, 102, 104};
    cr_assert_eq(ratio_of(wide, floor, 5).verdict, RATIO_SWALLOWED); /* 1.5 to 2.9 */
    cr_assert_eq(ratio_of(even, floor, 5).verdict, RATIO_SAME);
    cr_assert_eq(ratio_of(even, floor, 1).verdict, RATIO_UNKNOWN);
    const double zero[] = {100, 0, 100, 100, 100};
    cr_assert_eq(ratio_of(even, zero, 5).verdict, RATIO_UNKNOWN);
}

Test(bench_stats, metg_is_where_efficiency_crosses_the_level)
{
    const double grain[] = {100, 1000, 10000, 100000}, eff[] = {0.1, 0.4, 0.6, 0.9};
    near(stat_metg(grain, eff, 4, 0.5), sqrt(1000.0 * 10000)); /* half way on the logarithm */
    near(stat_metg(grain, eff, 4, 0.4), 1000);
    cr_assert_lt(stat_metg(grain, eff, 4, 0.95), 0, "never reached");
    near(stat_metg(grain, eff, 4, 0.05), 100);
    const double mixed[] = {10000, 100, 100000, 1000}, mixed_eff[] = {0.6, 0.1, 0.9, 0.4};
    near(stat_metg(mixed, mixed_eff, 4, 0.5), sqrt(1000.0 * 10000));
}

Test(bench_stats, metg_counts_from_where_efficiency_stays)
{
    /* a lucky point at 200 does not make tasks of 200 efficient */
    const double grain[] = {100, 200, 400, 800}, eff[] = {0.1, 0.7, 0.3, 0.7};
    near(stat_metg(grain, eff, 4, 0.5), sqrt(400.0 * 800));
}

Test(bench_stats, an_open_loop_gives_each_arrival_once_and_in_time)
{
    struct openloop o;
    uint64_t at[64], last = 1000, n = 0;
    openloop_init(&o, 1000, 50, 7);
    for (uint64_t now = 1000; now <= 1001000; now += 300) {
        size_t k = openloop_due(&o, now, at, 64);
        cr_assert_lt(k, 64);
        for (size_t i = 0; i < k; i++) {
            cr_assert(at[i] <= now && at[i] >= last);
            last = at[i];
        }
        n += k;
    }
    /* 20,000 expected; Poisson: within five standard deviations */
    cr_assert(n > 20000 - 5 * 142 && n < 20000 + 5 * 142, "%llu arrivals", (unsigned long long)n);
}

/* A server that answers in one tick and stands still from 50,000 to 60,000. */
static uint64_t answered(uint64_t sent)
{
    return sent >= 50000 && sent < 60000 ? 60001 : sent + 1;
}

Test(bench_stats, a_stall_is_charged_to_all_that_arrived_in_it)
{
    struct openloop o;
    uint64_t at[4096], late = 0, closed_late = 0, worst = 0;
    openloop_init(&o, 0, 100, 3);
    for (uint64_t now = 0; now < 100000;) {
        size_t k = openloop_due(&o, now, at, 4096);
        uint64_t done = answered(now);
        for (size_t i = 0; i < k; i++) {
            uint64_t l = openloop_latency(at[i], done);
            late += l > 1000;
            worst = l > worst ? l : worst;
            closed_late += openloop_latency(now, done) > 1000; /* counted from the send: omission */
        }
        now = done;
    }
    cr_assert(late > 60 && late < 120, "%llu of about 90 were late", (unsigned long long)late);
    cr_assert(worst > 9000 && worst <= 10001);
    cr_assert_leq(closed_late, 2, "a closed loop would have seen one");
}

Test(bench_stats, at_the_peak_everything_is_due_at_once)
{
    struct openloop o;
    uint64_t at[8];
    openloop_init(&o, 10, 0, 1);
    cr_assert_eq(openloop_due(&o, 20, at, 8), 8);
    cr_assert_eq(at[7], 20);
    cr_assert_eq(openloop_due(&o, 30, at, 8), 8);
    cr_assert_eq(openloop_latency(30, 20), 0, "never negative");
}
