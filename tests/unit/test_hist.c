/* SPDX-License-Identifier: MIT
 *
 * test_hist.c - the histogram against the sorted samples themselves.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "core/hist.h"

#define SAMPLES 20000

static struct hist h;
static uint64_t sample[SAMPLES];

static const double quantiles[] = {0,    0.001, 0.01, 0.1,   0.25,   0.5,
                                   0.75, 0.9,   0.99, 0.999, 0.9999, 1};
#define QUANTILES (sizeof quantiles / sizeof quantiles[0])

/* xorshift: the same numbers in every run */
static uint64_t draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The value of rank ceil(q * n) among n ascending samples. */
static uint64_t true_quantile(const uint64_t *v, size_t n, double q)
{
    size_t rank = (size_t)ceil(q * (double)n);
    return v[rank == 0 ? 0 : rank > n ? n - 1 : rank - 1];
}

/* Adds the first n samples, sorts them, and compares all quantiles. */
static void check_samples(size_t n, const char *what)
{
    uint64_t sum = 0;
    hist_reset(&h);
    for (size_t i = 0; i < n; i++) {
        hist_add(&h, sample[i]);
        sum += sample[i];
    }
    qsort(sample, n, sizeof sample[0], ascending);
    for (size_t i = 0; i < QUANTILES; i++) {
        uint64_t exact = true_quantile(sample, n, quantiles[i]);
        uint64_t got = hist_quantile(&h, quantiles[i]);
        cr_assert(got >= exact && got <= exact + exact / 16, "%s: q %g: %lu is told, %lu is true",
                  what, quantiles[i], (unsigned long)got, (unsigned long)exact);
    }
    cr_assert_eq(hist_quantile(&h, 1), sample[n - 1], "%s: the largest value is exact", what);
    cr_assert_eq(at_load(&h.max), sample[n - 1]);
    cr_assert_eq(at_load(&h.count), n);
    cr_assert_eq(at_load(&h.sum), sum);
}

Test(hist, empty)
{
    hist_reset(&h);
    for (size_t i = 0; i < QUANTILES; i++)
        cr_assert_eq(hist_quantile(&h, quantiles[i]), 0);
}

Test(hist, uniform)
{
    uint64_t r = 1;
    for (size_t i = 0; i < SAMPLES; i++)
        sample[i] = draw(&r) % 1000000;
    check_samples(SAMPLES, "uniform");
}

Test(hist, every_magnitude)
{
    uint64_t r = 2;
    for (size_t i = 0; i < SAMPLES; i++)
        sample[i] = (draw(&r) >> 24) >> draw(&r) % 40; /* below 2^40 */
    check_samples(SAMPLES, "every magnitude");
}

Test(hist, long_tail)
{
    uint64_t r = 3;
    for (size_t i = 0; i < SAMPLES; i++) {
        double u = (double)(draw(&r) >> 11) / 9007199254740992.0;
        sample[i] = (uint64_t)(300 / pow(1 - u, 1.5)) & 0xffffffffff;
    }
    check_samples(SAMPLES, "long tail");
}

Test(hist, few_samples)
{
    uint64_t r = 4;
    for (size_t n = 1; n < 60; n++) {
        for (size_t i = 0; i < n; i++)
            sample[i] = draw(&r) % 5000;
        check_samples(n, "few");
    }
}

Test(hist, small_values_are_exact)
{
    for (uint64_t v = 0; v < 32; v++) {
        hist_reset(&h);
        hist_add(&h, v);
        hist_add(&h, 1000000);
        cr_assert_eq(hist_quantile(&h, 0.5), v);
    }
}

/* What hist_quantile tells for v alone, with something larger behind it. */
static uint64_t told(uint64_t v)
{
    hist_reset(&h);
    hist_add(&h, v);
    hist_add(&h, (1ull << HIST_MAX_BITS) - 1);
    return hist_quantile(&h, 0.5);
}

Test(hist, edges_of_every_bucket)
{
    for (int bit = HIST_SUB_BITS; bit < HIST_MAX_BITS; bit++) {
        for (uint64_t step = 0; step < 16; step++) {
            uint64_t width = 1ull << (bit - 4), edge = (1ull << bit) + step * width;
            cr_assert_eq(told(edge - 1), edge - 1, "the last value of a bucket is its edge");
            cr_assert_eq(told(edge), edge + width - 1, "%lu", (unsigned long)edge);
            cr_assert_eq(told(edge + width / 2), edge + width - 1, "%lu", (unsigned long)edge);
        }
    }
}

Test(hist, too_large_values_are_kept_in_the_last_bucket)
{
    hist_reset(&h);
    hist_add(&h, 10);
    hist_add(&h, 1ull << 50);
    hist_add(&h, UINT64_MAX / 4);
    cr_assert_eq(hist_quantile(&h, 0.3), 10);
    cr_assert_eq(hist_quantile(&h, 1), UINT64_MAX / 4);
    cr_assert_eq(at_load(&h.count), 3);
    cr_assert_eq(at_load_rlx(&h.bucket[HIST_BUCKETS - 1]), 2);
}

Test(hist, quantiles_out_of_range)
{
    hist_reset(&h);
    hist_add(&h, 3);
    hist_add(&h, 9);
    cr_assert_eq(hist_quantile(&h, -1), 3);
    cr_assert_eq(hist_quantile(&h, 7), 9);
    cr_assert_eq(hist_quantile(&h, NAN), 3);
    cr_assert_eq(hist_quantile(&h, INFINITY), 9);
}

Test(hist, add_n_is_n_times_add)
{
    static struct hist a, b;
    uint64_t r = 5;
    for (int i = 0; i < 200; i++) {
        uint64_t v = draw(&r) >> 30;
        uint32_t n = (uint32_t)(draw(&r) % 20); /* 0 among them */
        hist_add_n(&a, v, n);
        for (uint32_t k = 0; k < n; k++)
            hist_add(&b, v);
    }
    cr_assert_eq(memcmp(&a, &b, sizeof a), 0);
}

Test(hist, merge_is_adding_all)
{
    static struct hist a, b, all;
    uint64_t r = 6;
    for (int i = 0; i < 5000; i++) {
        uint64_t v = draw(&r) >> (24 + draw(&r) % 40);
        hist_add(i % 3 ? &a : &b, v);
        hist_add(&all, v);
    }
    hist_merge(&a, &b);
    cr_assert_eq(memcmp(&a, &all, sizeof a), 0);
    static struct hist none;
    hist_merge(&a, &none);
    cr_assert_eq(memcmp(&a, &all, sizeof a), 0);
    hist_merge(&none, &a);
    cr_assert_eq(memcmp(&none, &all, sizeof a), 0);
}

Test(hist, reset_is_zero)
{
    static const struct hist zero;
    hist_add(&h, 5);
    hist_add(&h, 1ull << 45);
    hist_reset(&h);
    cr_assert_eq(memcmp(&h, &zero, sizeof h), 0);
}

Test(hist, full_buckets_are_halved_not_wrapped)
{
    hist_reset(&h);
    hist_add_n(&h, 100, 1u << 31);
    hist_add_n(&h, 5000, 1000);
    hist_add_n(&h, 9, 1);
    hist_add_n(&h, 100, 1u << 31); /* 2^32: does not fit */
    uint64_t median = hist_quantile(&h, 0.5);
    cr_assert(median >= 100 && median <= 106, "%lu", (unsigned long)median);
    cr_assert_eq(at_load(&h.count), (1ull << 32) + 1001);
    cr_assert_eq(hist_quantile(&h, 0), 9, "a single value does not vanish");
    hist_add_n(&h, 100, UINT32_MAX);
    hist_add_n(&h, 5000, UINT32_MAX);
    hist_add_n(&h, 5000, UINT32_MAX);
    /* as many of one as of the other, but each halving has halved the weight of the earlier */
    uint64_t low = hist_quantile(&h, 0.1);
    cr_assert(low >= 100 && low <= 106, "%lu", (unsigned long)low);
    cr_assert_eq(hist_quantile(&h, 0.9), 5000);
}

Test(hist, merge_of_full_buckets_does_not_wrap)
{
    static struct hist a, b;
    hist_add_n(&a, 100, UINT32_MAX);
    hist_add_n(&a, 7, 1);
    hist_add_n(&b, 100, UINT32_MAX);
    hist_add_n(&b, 5000, 1u << 30);
    hist_merge(&a, &b);
    uint64_t median = hist_quantile(&a, 0.5);
    cr_assert(median >= 100 && median <= 106, "%lu", (unsigned long)median);
    cr_assert_eq(hist_quantile(&a, 0), 7);
    cr_assert_eq(hist_quantile(&a, 0.95), 5000);
    cr_assert_eq(at_load(&a.count), 2ull * UINT32_MAX + 1 + (1u << 30));
}

Test(hist, scribbled_memory_gives_numbers)
{
    uint64_t r = 7;
    for (int round = 0; round < 50; round++) {
        uint64_t *word = (uint64_t *)&h;
        for (size_t i = 0; i < sizeof h / sizeof *word; i++)
            word[i] = round == 0 ? UINT64_MAX : draw(&r);
        for (size_t i = 0; i < QUANTILES; i++)
            cr_assert_leq(hist_quantile(&h, quantiles[i]), at_load(&h.max));
        static struct hist sane;
        hist_merge(&sane, &h);
        for (size_t i = 0; i < QUANTILES; i++)
            cr_assert_leq(hist_quantile(&sane, quantiles[i]), at_load(&sane.max));
    }
}

static _Atomic bool stop;

static void *write_on(void *arg)
{
    uint64_t r = 8;
    (void)arg;
    while (!at_load(&stop))
        hist_add(&h, 1000 + draw(&r) % 1000);
    return NULL;
}

Test(hist, readers_beside_the_writer)
{
    pthread_t t;
    hist_reset(&h);
    hist_add(&h, 1000);
    cr_assert_eq(pthread_create(&t, NULL, write_on, NULL), 0);
    uint64_t seen = 0;
    for (int i = 0; i < 3000; i++) {
        static struct hist copy;
        uint64_t median = hist_quantile(&h, 0.5), count;
        cr_assert(median >= 1000 && median < 2000 + 2000 / 16, "%lu", (unsigned long)median);
        hist_reset(&copy);
        hist_merge(&copy, &h);
        median = hist_quantile(&copy, 0.99);
        cr_assert(median >= 1000 && median < 2000 + 2000 / 16, "%lu", (unsigned long)median);
        count = at_load(&copy.count);
        cr_assert_geq(count, seen);
        seen = count;
    }
    at_store(&stop, true);
    pthread_join(t, NULL);
    cr_assert_eq(hist_quantile(&h, 1), at_load(&h.max));
}
