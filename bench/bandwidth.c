/* SPDX-License-Identifier: MIT
 *
 * bandwidth.c - tasks with 1 MiB of argument to a remote worker, in bytes a second, beside bare
 * libfabric moving pieces of the same size by fi_send and by fi_write, as many on their way at
 * once.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include "bench/bench.h"
#include "core/error.h"

#define PIECE (1u << 20)

static int floor_turn(const struct settings *st, const void *arg, double *out)
{
    *out = floor_fi_bandwidth(st, "tcp", "127.0.0.1", *(const enum piece_how *)arg, PIECE);
    return *out < 0 ? -EIO : 0;
}

/* Payloads a second. Each side of the floor has a core. fabricd has what one of these sides does, on the same
 * core if beside: its producer needs no time to speak of when nothing is copied. Left to the scheduler,
 * fabricd lands beside the worker, who wakes it. */
static double moved(const struct settings *st, const struct fixture *f, const struct load *l,
                    bool beside)
{
    cpu_set_t all, near;
    bool pin = beside && sched_getaffinity(f->pid, sizeof all, &all) == 0;
    CPU_ZERO(&near);
    CPU_SET((unsigned)st->near_core, &near);
    if (pin)
        (void)!sched_setaffinity(f->pid, sizeof near, &near);
    double rate = measure_rate(st, f, l);
    if (pin)
        (void)!sched_setaffinity(f->pid, sizeof all, &all);
    return rate;
}

static int measure(const struct settings *st, const struct fixture *f, bool in_place, double *out)
{
    uint64_t *bytes = calloc(1, PIECE);
    if (!bytes)
        return -ENOMEM;
    for (size_t i = 0; i < PIECE / sizeof *bytes; i++)
        bytes[i] = i * 0x9e3779b97f4a7c15u;
    struct load l = {.worker_at = f->remote,
                     .batch = 1,
                     .producers = 1,
                     .workers = 1,
                     .window = FLOOR_PIECES,
                     .seconds = st->slice};
    l.job = (struct job){.kernel = fab_kernel_id("bench-sink"),
                         .expect = kernel_sink(bytes, PIECE),
                         .arg = bytes,
                         .len = PIECE,
                         .in_place = in_place};
    double rate = moved(st, f, &l, in_place);
    *out = rate * PIECE;
    free(bytes);
    return rate < 0 ? -EIO : 0;
}

static int copied_turn(const struct settings *st, const void *arg, double *out)
{
    return measure(st, arg, false, out);
}

static int in_place_turn(const struct settings *st, const void *arg, double *out)
{
    return measure(st, arg, true, out);
}

static int result_turn(const struct settings *st, const void *arg, double *out)
{
    const struct fixture *f = arg;
    static const uint64_t n = PIECE;
    uint8_t *bytes = malloc(PIECE);
    if (!bytes)
        return -ENOMEM;
    memset(bytes, SOURCE_BYTE, PIECE);
    struct load l = {.worker_at = f->remote,
                     .batch = 1,
                     .producers = 1,
                     .workers = 1,
                     .window = FLOOR_PIECES,
                     .seconds = st->slice};
    l.job = (struct job){.kernel = fab_kernel_id("bench-source"),
                         .expect = kernel_sink(bytes, PIECE),
                         .arg = &n,
                         .len = sizeof n,
                         .res_len = PIECE};
    double rate = moved(st, f, &l, true);
    *out = rate * PIECE;
    free(bytes);
    return rate < 0 ? -EIO : 0;
}

/* What is compared with the floor is compared with the better one. */
static void choose_floor(struct report *rep)
{
    const struct row *send = report_find(rep, "tcp.bandwidth.fi_send"),
                     *write = report_find(rep, "tcp.bandwidth.fi_write");
    for (size_t i = 0; send && write && i < rep->n; i++)
        if (rep->row[i].floor && strcmp(rep->row[i].floor, send->name) == 0)
            rep->row[i].floor = send->value >= write->value ? send->name : write->name;
}

int bench_bandwidth(const struct settings *st, struct report *rep, const struct fixture *f)
{
    static const enum piece_how sent = PIECES_SENT, written = PIECES_WRITTEN,
                                copied = PIECES_COPIED;
    const struct probe p[] = {
        {.name = "tcp.bandwidth.fi_send",
         .unit = "bytes/s",
         .fn = floor_turn,
         .arg = &sent,
         .bare = true,
         .note = "1 MiB pieces, bare libfabric"},
        {.name = "tcp.bandwidth.fi_write",
         .unit = "bytes/s",
         .fn = floor_turn,
         .arg = &written,
         .bare = true,
         .note = "1 MiB pieces, bare libfabric"},
        {.name = "tcp.bandwidth.in_place",
         .unit = "bytes/s",
         .floor = "tcp.bandwidth.fi_send",
         .fn = in_place_turn,
         .arg = f,
         .note = "1 MiB arguments to a remote worker, made where they lie"},
        {.name = "tcp.bandwidth.fi_write.copied",
         .unit = "bytes/s",
         .floor = "tcp.bandwidth.fi_send", /* what a copy costs without us */
         .fn = floor_turn,
         .arg = &copied,
         .bare = true,
         .note = "bare libfabric, each piece copied first"},
        {.name = "tcp.bandwidth.task",
         .unit = "bytes/s",
         .floor = "tcp.bandwidth.fi_send",
         .fn = copied_turn,
         .arg = f,
         .note = "1 MiB arguments to a remote worker, copied by fab_submit()"},
        {.name = "tcp.bandwidth.result",
         .unit = "bytes/s",
         .floor = "tcp.bandwidth.fi_send",
         .fn = result_turn,
         .arg = f,
         .note = "1 MiB results of a remote worker"},
    };
    if (!group_wanted(st, "tcp.bandwidth", true))
        return 0;
    int rc = run_probes(st, rep, p, sizeof p / sizeof *p, st->turns);
    choose_floor(rep);
    return rc;
}
