/* SPDX-License-Identifier: MIT
 *
 * test_feb.c - the built-in kernels: exact answers, limits, malformed arguments, words in and out.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <gmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/fabric.h"
#include "core/kernel.h"

static struct kernel_ctx ctx;

static const struct kernel *get(const char *name)
{
    cr_assert_eq(kernel_register_builtin(), 0);
    const struct kernel *k = kernel_by_name(name);
    cr_assert_not_null(k);
    return k;
}

/* feb(n) as a GMP number. */
static void feb(int64_t n, mpz_t out)
{
    const void *res;
    long len = get("feb")->run(&ctx, &n, sizeof n, &res);
    cr_assert_gt(len, 0, "feb(%lld): %s", (long long)n, ctx.error);
    cr_assert_eq(len % 8, 0);
    mpz_import(out, (size_t)len / 8, -1, 8, -1, 0, res);
}

Test(feb, agrees_with_the_recurrence)
{
    static const unsigned long first[5] = {1, 1, 2, 3, 5};
    mpz_t f[5], got, next;
    mpz_init(got);
    mpz_init(next);
    for (int i = 0; i < 5; i++)
        mpz_init_set_ui(f[i], first[i]);
    for (int64_t n = 0; n <= 3000; n++) {
        feb(n, got);
        cr_assert_eq(mpz_cmp(got, f[0]), 0, "feb(%lld)", (long long)n);
        mpz_add(next, f[4], f[3]);
        mpz_sub(next, next, f[0]);
        for (int i = 0; i < 4; i++)
            mpz_swap(f[i], f[i + 1]);
        mpz_set(f[4], next);
    }
}

Test(feb, of_a_million_agrees_modulo_primes)
{
    static const uint64_t primes[] = {1000000007, 998244353, 4294967291u};
    mpz_t got;
    mpz_init(got);
    feb(1000000, got);
    for (int k = 0; k < 3; k++) {
        uint64_t p = primes[k], f[5] = {1, 1, 2, 3, 5};
        for (int i = 5; i <= 1000000; i++) {
            uint64_t next = (f[4] + f[3] + p - f[0]) % p;
            memmove(f, f + 1, 4 * sizeof *f);
            f[4] = next;
        }
        cr_assert_eq(mpz_fdiv_ui(got, p), f[4], "modulo %llu", (unsigned long long)p);
    }
}

Test(feb, known_values_and_limits)
{
    static const struct {
        int64_t n;
        uint64_t value;
    } known[] = {{48, 106373551}, {0, 1}, {1, 1}, {-1, 1},
                 {INT64_MIN, 1},  {4, 5}, {5, 7}, {115, 14102563701622686179u}};
    const void *res;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint64_t v;
        cr_assert_eq(get("feb")->run(&ctx, &known[i].n, 8, &res), 8);
        memcpy(&v, res, 8);
        cr_assert_eq(v, known[i].value, "feb(%lld)", (long long)known[i].n);
    }
    int64_t n = 116;
    cr_assert_eq(get("feb")->run(&ctx, &n, 8, &res), 16);
    n = 1000001;
    cr_assert_eq(get("feb")->run(&ctx, &n, 8, &res), -EDOM);
    cr_assert(strstr(ctx.error, "limit"));
    cr_assert_eq(get("feb")->run(&ctx, &n, 4, &res), -EINVAL);
    cr_assert(strstr(ctx.error, "8 bytes"));
    n = 61;
    cr_assert_eq(get("feb-naive")->run(&ctx, &n, 8, &res), -EDOM);
    for (n = -2; n < 25; n++) {
        uint64_t a, b;
        cr_assert_eq(get("feb-naive")->run(&ctx, &n, 8, &res), 8);
        memcpy(&a, res, 8);
        cr_assert_eq(get("feb")->run(&ctx, &n, 8, &res), 8);
        memcpy(&b, res, 8);
        cr_assert_eq(a, b, "feb-naive(%lld)", (long long)n);
    }
}

Test(feb, words_in_and_out)
{
    static const char *const bad[] = {"", "x", "1x", " 1", "1.5", "9223372036854775808", "0x10"};
    int64_t v;
    cr_assert_eq(get("feb")->parse(&ctx, "-9223372036854775808"), 8);
    memcpy(&v, ctx.buf, 8);
    cr_assert_eq(v, INT64_MIN);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(get("feb")->parse(&ctx, bad[i]), -EINVAL, "\"%s\"", bad[i]);
    uint64_t big[2] = {0, 1}; /* 2^64 */
    cr_assert_gt(get("feb")->format(&ctx, big, 16), 0);
    cr_assert_str_eq((char *)ctx.buf, "18446744073709551616");
    cr_assert_lt(get("feb")->format(&ctx, big, 7), 0);
    cr_assert_eq(get("sleep")->parse(&ctx, "250ms"), 8);
    memcpy(&v, ctx.buf, 8);
    cr_assert_eq(v, 250000000);
    cr_assert_eq(get("spin")->parse(&ctx, "2h"), -EINVAL);
    cr_assert_eq(get("spin")->parse(&ctx, "9999999s"), -EINVAL);
    cr_assert_eq(get("echo")->format(&ctx, "a\001b", 3), 6);
    cr_assert_str_eq((char *)ctx.buf, "a\\x01b");
}

Test(registry, refuses_what_it_must)
{
    static struct kernel mine = {.name = "mine"}, again = {.name = "mine"}, many[256];
    static char names[256][8];
    cr_assert_eq(kernel_register_builtin(), 0);
    cr_assert_eq(kernel_register_builtin(), 0);
    cr_assert_eq(kernel_register(&mine), 0);
    cr_assert_eq(kernel_register(&again), -EEXIST);
    cr_assert_eq(kernel_by_id(fab_kernel_id("mine")), &mine);
    cr_assert_null(kernel_by_id(fab_kernel_id("another")));
    int rc = 0, n = 0;
    for (; rc == 0 && n < 256; n++) {
        snprintf(names[n], sizeof names[n], "k%d", n);
        many[n].name = names[n];
        rc = kernel_register(&many[n]);
    }
    cr_assert_eq(rc, -ENOSPC);
    cr_assert_neq(fab_kernel_id(""), 0);
}
