/* SPDX-License-Identifier: MIT
 *
 * plain.c - spin, sleep and echo: kernels for measuring and testing a fabric.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "core/clock.h"
#include "core/kernels/kernels.h"

static long arg_ns(struct kernel_ctx *ctx, const char *name, const void *arg, size_t len,
                   uint64_t *ns)
{
    int rc = kernel_arg_u64(ctx, name, arg, len, ns);
    if (rc == 0 && *ns > KERNEL_NS_MAX)
        return kernel_error(ctx, -EDOM, "%s: %llu ns is over an hour", name,
                            (unsigned long long)*ns);
    return rc;
}

static long spin(struct kernel_ctx *ctx, const void *arg, size_t len, const void **res)
{
    uint64_t ns, start = clock_ns();
    long rc = arg_ns(ctx, "spin", arg, len, &ns);
    if (rc < 0)
        return rc;
    uint64_t now = start;
    while (now - start < ns) {
        if (kernel_cancelled(ctx))
            return kernel_stopped(ctx);
        now = clock_ns();
    }
    return kernel_res_u64(ctx, now - start, res);
}

static long nap(struct kernel_ctx *ctx, const void *arg, size_t len, const void **res)
{
    uint64_t ns, start = clock_ns(), until;
    long rc = arg_ns(ctx, "sleep", arg, len, &ns);
    if (rc < 0)
        return rc;
    until = start + ns;
    while (ctx->sleep && clock_ns() < until) {
        if (kernel_cancelled(ctx))
            return kernel_stopped(ctx);
        if (!ctx->sleep(ctx->arg, until))
            break;
    }
    struct timespec t = {.tv_sec = (time_t)(until / 1000000000u),
                         .tv_nsec = (long)(until % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
    return kernel_res_u64(ctx, clock_ns() - start, res);
}

static long echo(struct kernel_ctx *ctx, const void *arg, size_t len, const void **res)
{
    (void)ctx;
    *res = arg;
    return (long)len;
}

static long parse_bytes(struct kernel_ctx *ctx, const char *text)
{
    size_t len = strlen(text);
    if (!kernel_buf(ctx, len + 1))
        return kernel_error(ctx, -ENOMEM, "no memory for the argument");
    memcpy(ctx->buf, text, len + 1);
    return (long)len;
}

/* Bytes as they are, control characters as \xHH. */
static long format_bytes(struct kernel_ctx *ctx, const void *res, size_t len)
{
    const uint8_t *p = res;
    char *to = kernel_buf(ctx, len * 4 + 1);
    size_t at = 0;
    if (!to)
        return -ENOMEM;
    for (size_t i = 0; i < len; i++) {
        if (p[i] < 0x20 || p[i] == 0x7f)
            at += (size_t)snprintf(to + at, 5, "\\x%02x", p[i]);
        else
            to[at++] = (char)p[i];
    }
    to[at] = 0;
    return (long)at;
}

struct kernel kernel_spin = {
    .name = "spin",
    .summary = "keeps the core busy; the result is how long it did, in ns",
    .argument = "DURATION (10us, 2ms, 1s; a plain number is ns)",
    .run = spin,
    .parse = kernel_parse_ns,
    .format = kernel_format_uint,
};

struct kernel kernel_sleep = {
    .name = "sleep",
    .summary = "sleeps; the result is how long it did, in ns",
    .argument = "DURATION (10us, 2ms, 1s; a plain number is ns)",
    .run = nap,
    .parse = kernel_parse_ns,
    .format = kernel_format_uint,
};

struct kernel kernel_echo = {
    .name = "echo",
    .summary = "returns its argument",
    .argument = "BYTES",
    .run = echo,
    .parse = parse_bytes,
    .format = format_bytes,
};
