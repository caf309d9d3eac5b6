/* SPDX-License-Identifier: MIT
 *
 * unruly.c - abort and hang: what a broken kernel does, to be tried where a worker survives it
 * (fabworker --isolate). Nobody else registers them.
 */
#include <errno.h>
#include <signal.h>
#include <unistd.h>
#include "core/atomic.h"
#include "core/kernels/kernels.h"

static long die(struct kernel_ctx *ctx, const void *arg, size_t len, const void **res)
{
    uint64_t number;
    int rc = kernel_arg_u64(ctx, "abort", arg, len, &number);
    if (rc < 0)
        return rc;
    if (number == 0 || number > 64)
        return kernel_error(ctx, -EDOM, "abort: no signal has the number %llu",
                            (unsigned long long)number);
    signal((int)number, SIG_DFL);
    kill(getpid(), (int)number);
    return kernel_res_u64(ctx, number, res); /* one that does not kill */
}

static long hang(struct kernel_ctx *ctx, const void *arg, size_t len, const void **res)
{
    (void)ctx, (void)arg, (void)len, (void)res;
    for (;;)
        cpu_relax();
    return 0;
}

struct kernel kernel_abort = {
    .name = "abort",
    .summary = "dies of a signal (with --isolate only)",
    .argument = "SIGNAL (a number: 6, 9, 11)",
    .run = die,
    .parse = kernel_parse_i64,
    .format = kernel_format_uint,
};

struct kernel kernel_hang = {
    .name = "hang",
    .summary = "never returns (with --isolate only)",
    .argument = "ANYTHING",
    .run = hang,
};
