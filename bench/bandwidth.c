/* SPDX-License-Identifier: MIT
 *
 * bandwidth.c - tasks with 1 MiB of argument to a remote worker, in bytes a second, beside bare
 * libfabric moving pieces of the same size by fi_send and by fi_write.
 */
#include <errno.h>
#include <stdlib.h>
#include "bench/bench.h"
#include "core/error.h"

#define PIECE (1u << 20)

static int floor_turn(const struct settings *st, double *out, bool one_sided)
{
    *out = floor_fi_bandwidth(st, "tcp", "127.0.0.1", one_sided, PIECE);
    return *out < 0 ? -EIO : 0;
}

static int fi_send_turn(const struct settings *st, const void *arg, double *out)
{
    (void)arg;
    return floor_turn(st, out, false);
}

static int fi_write_turn(const struct settings *st, const void *arg, double *out)
{
    (void)arg;
    return floor_turn(st, out, true);
}

static int task_turn(const struct settings *st, const void *arg, double *out)
{
    const struct fixture *f = arg;
    uint64_t *bytes = calloc(1, PIECE);
    if (!bytes)
        return -ENOMEM;
    for (size_t i = 0; i < PIECE / sizeof *bytes; i++)
        bytes[i] = i * 0x9e3779b97f4a7c15u;
    struct load l = {.worker_at = f->remote,
                     .batch = 1,
                     .producers = 1,
                     .workers = 1,
                     .window = 16,
                     .seconds = st->slice};
    l.job = (struct job){.kernel = fab_kernel_id("bench-sink"),
                         .expect = kernel_sink(bytes, PIECE),
                         .arg = bytes,
                         .len = PIECE};
    double rate = measure_rate(st, f, &l);
    *out = rate * PIECE;
    free(bytes);
    return rate < 0 ? -EIO : 0;
}

int bench_bandwidth(const struct settings *st, struct report *rep, const struct fixture *f)
{
    const struct probe p[] = {
        {.name = "tcp.bandwidth.fi_send",
         .unit = "bytes/s",
         .fn = fi_send_turn,
         .bare = true,
         .note = "1 MiB pieces, bare libfabric"},
        {.name = "tcp.bandwidth.fi_write",
         .unit = "bytes/s",
         .fn = fi_write_turn,
         .bare = true,
         .note = "1 MiB pieces, bare libfabric"},
        {.name = "tcp.bandwidth.task",
         .unit = "bytes/s",
         .floor = "tcp.bandwidth.fi_send",
         .fn = task_turn,
         .arg = f,
         .note = "1 MiB arguments to a remote worker"},
    };
    return group_wanted(st, "tcp.bandwidth", true)
               ? run_probes(st, rep, p, sizeof p / sizeof *p, st->turns)
               : 0;
}
