/* SPDX-License-Identifier: MIT
 *
 * feb.c - "goat breeding": f(n) = 1 below 2, f(n-1) + f(n-2) below 5, f(n-1) + f(n-2) - f(n-5) from
 * 5 on.
 *
 * Up to n = 115 the value fits 64 bits: a table, filled once from the recurrence. Beyond, the
 * recurrence is linear with characteristic polynomial x^5 - x^4 - x^3 + 1, so f(n) is the
 * combination of f(0..4) by the coefficients of x^n modulo that polynomial, found by squaring (the
 * method of Fiduccia, 1985): about 20 squarings for n = 1,000,000.
 *
 * feb-naive is the recursion as the tutorial writes it, for burning CPU.
 *
 * Threads: the table is filled before main() (constructor), read-only afterwards.
 */
#include <errno.h>
#include <gmp.h>
#include "core/kernels/kernels.h"

#define FEB_64BIT 115
#define FEB_MAX   1000000
#define NAIVE_MAX 60
#define NAIVE_LOOK 22
#define DEGREE    5

static uint64_t table[FEB_64BIT + 1];

__attribute__((constructor)) static void fill_table(void)
{
    static const uint64_t first[DEGREE] = {1, 1, 2, 3, 5};
    for (int i = 0; i <= FEB_64BIT; i++)
        table[i] = i < DEGREE ? first[i] : table[i - 1] + table[i - 2] - table[i - 5];
}

/* p (9 coefficients) modulo x^5 - x^4 - x^3 + 1, in place: x^k = x^(k-1) + x^(k-2) - x^(k-5). */
static void reduce(mpz_t p[2 * DEGREE - 1])
{
    for (int k = 2 * DEGREE - 2; k >= DEGREE; k--) {
        mpz_add(p[k - 1], p[k - 1], p[k]);
        mpz_add(p[k - 2], p[k - 2], p[k]);
        mpz_sub(p[k - 5], p[k - 5], p[k]);
        mpz_set_ui(p[k], 0);
    }
}

static void square(mpz_t out[2 * DEGREE - 1], mpz_t in[DEGREE], mpz_t t)
{
    for (int i = 0; i < 2 * DEGREE - 1; i++)
        mpz_set_ui(out[i], 0);
    for (int i = 0; i < DEGREE; i++) {
        mpz_mul(t, in[i], in[i]);
        mpz_add(out[2 * i], out[2 * i], t);
        for (int j = i + 1; j < DEGREE; j++) {
            mpz_mul(t, in[i], in[j]);
            mpz_addmul_ui(out[i + j], t, 2);
        }
    }
}

/* x^n modulo the polynomial into c, from the top bit of n downwards. False: cancelled. */
static bool power(struct kernel_ctx *ctx, mpz_t c[DEGREE], unsigned long n)
{
    bool whole = true;
    mpz_t p[2 * DEGREE - 1], t;
    mpz_init(t);
    for (int i = 0; i < 2 * DEGREE - 1; i++)
        mpz_init(p[i]);
    mpz_set_ui(c[0], 1); /* x^0 */
    for (int bit = 63 - __builtin_clzl(n); bit >= 0 && (whole = !kernel_cancelled(ctx)); bit--) {
        square(p, c, t);
        reduce(p);
        if (n >> bit & 1) { /* times x */
            for (int i = DEGREE; i > 0; i--)
                mpz_swap(p[i], p[i - 1]);
            mpz_set_ui(p[0], 0);
            reduce(p);
        }
        for (int i = 0; i < DEGREE; i++)
            mpz_swap(c[i], p[i]);
    }
    for (int i = 0; i < 2 * DEGREE - 1; i++)
        mpz_clear(p[i]);
    mpz_clear(t);
    return whole;
}

static long feb_big(struct kernel_ctx *ctx, unsigned long n, const void **res)
{
    mpz_t c[DEGREE], sum;
    size_t words;
    long len = -ENOMEM;
    mpz_init(sum);
    for (int i = 0; i < DEGREE; i++)
        mpz_init(c[i]);
    if (!power(ctx, c, n)) {
        len = kernel_stopped(ctx);
        goto out;
    }
    for (int i = 0; i < DEGREE; i++)
        mpz_addmul_ui(sum, c[i], table[i]);
    words = (mpz_sizeinbase(sum, 2) + 63) / 64;
    if (kernel_buf(ctx, words * 8)) {
        mpz_export(ctx->buf, &words, -1, 8, -1, 0, sum);
        *res = ctx->buf;
        len = (long)(words * 8);
    } else {
        kernel_error(ctx, -ENOMEM, "feb: no memory for the result");
    }
out:
    for (int i = 0; i < DEGREE; i++)
        mpz_clear(c[i]);
    mpz_clear(sum);
    return len;
}

static long feb(struct kernel_ctx *ctx, const void *arg, size_t len, const void **res)
{
    uint64_t v;
    int rc = kernel_arg_u64(ctx, "feb", arg, len, &v);
    int64_t n = (int64_t)v;
    if (rc < 0)
        return rc;
    if (n <= FEB_64BIT)
        return kernel_res_u64(ctx, n < 0 ? 1 : table[n], res);
    if (n > FEB_MAX)
        return kernel_error(ctx, -EDOM, "feb: %lld is over the limit of %d", (long long)n, FEB_MAX);
    return feb_big(ctx, (unsigned long)n, res);
}

/* noipa: the point is that the calls are made. */
__attribute__((noipa)) static uint64_t recurse(int64_t n)
{
    if (n < 2)
        return 1;
    if (n < 5)
        return recurse(n - 1) + recurse(n - 2);
    return recurse(n - 1) + recurse(n - 2) - recurse(n - 5);
}

/* The same, asking before each part that takes a millisecond or so whether to go on. */
static uint64_t recurse_until(const struct kernel_ctx *ctx, int64_t n, bool *stop)
{
    if (*stop)
        return 0;
    if (n <= NAIVE_LOOK) {
        *stop = kernel_cancelled(ctx);
        return *stop ? 0 : recurse(n);
    }
    return recurse_until(ctx, n - 1, stop) + recurse_until(ctx, n - 2, stop) -
           recurse_until(ctx, n - 5, stop);
}

static long feb_naive(struct kernel_ctx *ctx, const void *arg, size_t len, const void **res)
{
    uint64_t v;
    int rc = kernel_arg_u64(ctx, "feb-naive", arg, len, &v);
    int64_t n = (int64_t)v;
    if (rc < 0)
        return rc;
    if (n > NAIVE_MAX)
        return kernel_error(ctx, -EDOM,
                            "feb-naive: %lld would take years; the limit is %d, use feb",
                            (long long)n, NAIVE_MAX);
    bool stop = false;
    uint64_t value = recurse_until(ctx, n, &stop);
    return stop ? kernel_stopped(ctx) : kernel_res_u64(ctx, value, res);
}

struct kernel kernel_feb = {
    .name = "feb",
    .summary = "goat breeding: f(n-1) + f(n-2) - f(n-5), exact",
    .argument = "N (up to 1000000; 1 for N < 2)",
    .run = feb,
    .parse = kernel_parse_i64,
    .format = kernel_format_uint,
};

struct kernel kernel_feb_naive = {
    .name = "feb-naive",
    .summary = "the same by plain recursion, to burn CPU",
    .argument = "N (up to 60; 48 takes minutes)",
    .run = feb_naive,
    .parse = kernel_parse_i64,
    .format = kernel_format_uint,
};
