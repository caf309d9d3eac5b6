/* SPDX-License-Identifier: MIT
 *
 * kernels.c - kernels that only the benchmark's workers have.
 *
 * bench-burn does a fixed number of dependent multiplications. A kernel that waits for a clock
 * would count time in which its thread did not run as work done; this one doesn't. bench-sink looks
 * at a large argument, bench-source makes a large result. bench-when answers with the tick at which it was started.
 *
 * Threads: registered before workers are forked, read afterwards.
 */
#include <errno.h>
#include <string.h>
#include "bench/bench.h"
#include "core/clock.h"
#include "core/kernels/kernels.h"

uint64_t kernel_burn(uint64_t iterations)
{
    uint64_t x = iterations;
    for (uint64_t i = 0; i < iterations; i++)
        x = x * 6364136223846793005u + 1442695040888963407u;
    return x;
}

/* One word of each page: what the bytes cost is the way here, not the looking. */
uint64_t kernel_sink(const void *bytes, size_t len)
{
    uint64_t sum = len, word;
    for (size_t at = 0; at + sizeof word <= len; at += 4096) {
        memcpy(&word, (const uint8_t *)bytes + at, sizeof word);
        sum += word;
    }
    return sum;
}

void kernel_sink_make(void *to, const void *bytes, size_t len)
{
    for (size_t at = 0; at + sizeof(uint64_t) <= len; at += 4096)
        memcpy((uint8_t *)to + at, (const uint8_t *)bytes + at, sizeof(uint64_t));
}

static long burn(struct kernel_ctx *ctx, const void *arg, size_t len, const void **res)
{
    uint64_t n;
    int rc = kernel_arg_u64(ctx, "bench-burn", arg, len, &n);
    return rc < 0 ? rc : kernel_res_u64(ctx, kernel_burn(n), res);
}

static long sink(struct kernel_ctx *ctx, const void *arg, size_t len, const void **res)
{
    return kernel_res_u64(ctx, kernel_sink(arg, len), res);
}

/* So many bytes, the same each time: making them costs nothing here. */
static long source(struct kernel_ctx *ctx, const void *arg, size_t len, const void **res)
{
    uint64_t n;
    int rc = kernel_arg_u64(ctx, "bench-source", arg, len, &n);
    if (rc < 0)
        return rc;
    if (ctx->cap < n && kernel_buf(ctx, n))
        memset(ctx->buf, SOURCE_BYTE, n);
    *res = ctx->buf;
    return ctx->cap < n ? -ENOMEM : (long)n;
}

static long when(struct kernel_ctx *ctx, const void *arg, size_t len, const void **res)
{
    (void)arg;
    (void)len;
    return kernel_res_u64(ctx, clock_ticks(), res);
}

static struct kernel ours[] = {
    {.name = "bench-burn", .summary = "fixed work", .argument = "N", .run = burn},
    {.name = "bench-sink", .summary = "looks at the bytes", .argument = "BYTES", .run = sink},
    {.name = "bench-source", .summary = "so many bytes", .argument = "N", .run = source},
    {.name = "bench-when", .summary = "the tick it starts at", .argument = "", .run = when},
};

int kernels_register(void)
{
    static bool done;
    int rc = done ? 0 : kernel_register_builtin();
    for (size_t i = 0; rc == 0 && !done && i < sizeof ours / sizeof *ours; i++)
        rc = kernel_register(&ours[i]);
    done = rc == 0;
    return rc;
}
