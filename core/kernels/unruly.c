/* SPDX-License-Identifier: MIT
 *
 * unruly.c - abort and hang: what a broken kernel does, to be tried where a worker survives it
 * (fabworker --isolate). Nobody else registers them.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "core/atomic.h"
#include "core/kernels/kernels.h"

static long die(struct kernel_ctx *ctx, const void *arg, size_t len, const void **res)
{
    char text[8] = "";
    memcpy(text, arg, len < sizeof text ? len : 0);
    int number = atoi(text);
    if (number < 1 || number > 64)
        return kernel_error(ctx, -EDOM, "abort: the argument must be a signal's number");
    signal(number, SIG_DFL);
    kill(getpid(), number);
    *res = arg; /* it was one that does not kill */
    return (long)len;
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
};

struct kernel kernel_hang = {
    .name = "hang",
    .summary = "never returns (with --isolate only)",
    .argument = "ANYTHING",
    .run = hang,
};
