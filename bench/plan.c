/* SPDX-License-Identifier: MIT
 *
 * plan.c - which rows, in which order.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench/bench.h"
#include "core/error.h"
#include "transport/lane.h"

static int s_pingpong(const struct settings *st, const void *arg, struct samples *out)
{
    (void)arg;
    return floor_pingpong(st, out);
}
static int s_socket(const struct settings *st, const void *arg, struct samples *out)
{
    return floor_socket(st, *(const bool *)arg, out);
}
/* What a series over a network needs. */
struct net {
    const char *provider, *host;
    const struct fixture *f;
    int mode;
    bool encrypted; /* of a lane without a fabric */
};

static int s_fi(const struct settings *st, const void *arg, struct samples *out)
{
    const struct net *n = arg;
    return floor_fi(st, n->provider, n->host, out);
}
static int s_lane(const struct settings *st, const void *arg, struct samples *out)
{
    const struct net *n = arg;
    return lane_round_trip(st, n->provider, n->host, n->mode, n->encrypted, out);
}
static int s_task_local(const struct settings *st, const void *arg, struct samples *out)
{
    const struct fixture *f = arg;
    return measure_task_rtt(st, f, f->local, out);
}
static int s_task_remote(const struct settings *st, const void *arg, struct samples *out)
{
    const struct fixture *f = ((const struct net *)arg)->f;
    return measure_task_rtt(st, f, f->remote, out);
}

#define THREE "3 processes: producer, fabricd, worker"

static int latencies(const struct settings *st, struct report *rep, const struct fixture *f)
{
    static const bool blocking = false, busy = true;
    const struct net send = {"tcp", "127.0.0.1", f, LANE_SEND, false},
                     write = {"tcp", "127.0.0.1", f, LANE_WRITE, false};
    size_t few = st->rounds / 20, net = st->rounds / 4;
    const struct series shm[] = {
        {"shm.pingpong", NULL, s_pingpong, NULL, 0, NULL, true},
        {"shm.task_rtt", "shm.pingpong", s_task_local, f, 0, NULL, false},
    };
    const struct series tcp[] = {
        {"tcp.fi_pingpong", NULL, s_fi, &send, net, NULL, true},
        {"tcp.lane_rtt", "tcp.fi_pingpong", s_lane, &send, net, NULL, false},
        {"tcp.lane_rtt.write", "tcp.fi_pingpong", s_lane, &write, net, NULL, false},
        {"tcp.socket_busy", NULL, s_socket, &busy, net, NULL, true},
        {"tcp.socket_blocking", NULL, s_socket, &blocking, few, NULL, true},
        {"tcp.task_rtt", "tcp.fi_pingpong", s_task_remote, &send, few, THREE, false},
    };
    int rc = run_series(st, rep, shm, sizeof shm / sizeof *shm, false);
    if (rc == 0)
        rc = bench_parked(st, rep, f);
    if (rc == 0)
        rc = run_series(st, rep, tcp, sizeof tcp / sizeof *tcp, true);
    return rc;
}

/* ---- the tutorial's design in Python ---- */

static int python(const struct settings *st, struct report *rep)
{
    char cmd[PATH_MAX + 64];
    struct latency lat;
    double rate;
    if (!group_wanted(st, "python", false))
        return 0;
    progress("python", 1, 1);
    snprintf(cmd, sizeof cmd, "python3 '%s/python_manager.py' %s 2>&1", st->source,
             st->quick ? "1" : "3");
    FILE *p = popen(cmd, "re");
    char line[256] = "";
    if (p)
        (void)!fgets(line, sizeof line, p);
    int status = p ? pclose(p) : -1;
    if (status != 0 || sscanf(line, "%lf %lf %lf %lf", &lat.p50, &lat.p99, &lat.p999, &rate) != 4) {
        line[strcspn(line, "\n")] = 0;
        report_skip(rep, "python", line[0] ? line : "python3 is not there");
        return 0;
    }
    report_latency(rep, "python.task_rtt", &lat, 1, NULL)->bare = true;
    struct row *w = report_value(rep, "python.throughput", "tasks/s", &rate, 1, NULL);
    w->batch = 1;
    w->bare = true;
    return 0;
}

/* ---- encrypted tcp, beside plain ---- */

static int encrypted(const struct settings *st, struct report *rep, const struct fixture *plain)
{
    struct fixture f;
    if (!group_wanted(st, "tcp.encrypted", true))
        return 0;
    int rc = fixture_start(&f, st->build, "[auth]\nsecurity = \"encrypted\"\n");
    if (rc < 0) {
        fprintf(stderr, "fabbench: %s\n", err_text(rc));
        return rc;
    }
    const struct net open = {"tcp", "127.0.0.1", plain, LANE_SEND, false},
                     sealed = {"tcp", "127.0.0.1", &f, LANE_SEND, true};
    size_t few = st->rounds / 20, net = st->rounds / 4;
    const struct series rows[] = {
        {"tcp.plain.lane_rtt", NULL, s_lane, &open, net, "as tcp.lane_rtt", true},
        {"tcp.encrypted.lane_rtt", "tcp.plain.lane_rtt", s_lane, &sealed, net, NULL, false},
        {"tcp.plain.task_rtt", NULL, s_task_remote, &open, few, "as tcp.task_rtt", true},
        {"tcp.encrypted.task_rtt", "tcp.plain.task_rtt", s_task_remote, &sealed, few, THREE, false},
    };
    rc = run_series(st, rep, rows, sizeof rows / sizeof *rows, true);
    if (rc == 0)
        rc = bench_throughput(st, rep, &f, "tcp.encrypted", NULL);
    (void)fixture_stop(&f);
    return rc;
}

/* ---- verbs, where there is a device ---- */

static int verbs(const struct settings *st, struct report *rep)
{
    struct fixture f;
    char host[64];
    if (!group_wanted(st, "verbs", false))
        return 0;
    int rc = fixture_verbs_host(host, sizeof host);
    if (rc < 0) {
        report_skip(rep, "verbs", err_text(rc));
        return 0;
    }
    rc = fixture_start_on(&f, st->build, "verbs", host, "[fabric]\nprovider = \"verbs\"\n");
    if (rc < 0) {
        fprintf(stderr, "fabbench: %s\n", err_text(rc));
        return rc;
    }
    size_t few = st->rounds / 20, net = st->rounds / 4;
    const struct net write = {"verbs", host, &f, LANE_WRITE, false},
                     send = {"verbs", host, &f, LANE_SEND, false};
    const struct series rows[] = {
        {"verbs.fi_pingpong", NULL, s_fi, &write, net, NULL, true},
        {"verbs.lane_rtt", "verbs.fi_pingpong", s_lane, &write, net, "one-sided writes", false},
        {"verbs.lane_rtt.send", "verbs.fi_pingpong", s_lane, &send, net, NULL, false},
        {"verbs.task_rtt", "verbs.fi_pingpong", s_task_remote, &write, few, THREE, false},
    };
    rc = run_series(st, rep, rows, sizeof rows / sizeof *rows, true);
    if (rc == 0)
        rc = bench_throughput(st, rep, &f, "verbs", NULL);
    (void)fixture_stop(&f);
    return rc;
}

/* What a full run has beyond a quick one. */
static int curves(const struct settings *st, struct report *rep, const struct fixture *f)
{
    int rc = bench_one_way(st, rep, f);
    if (rc == 0)
        rc = bench_scale(st, rep, f);
    if (rc == 0)
        rc = bench_grain(st, rep, f, "shm");
    if (rc == 0)
        rc = bench_grain(st, rep, f, "tcp");
    if (rc == 0)
        rc = bench_openloop(st, rep, f, "shm");
    if (rc == 0)
        rc = bench_openloop(st, rep, f, "tcp");
    if (rc == 0)
        rc = bench_bandwidth(st, rep, f);
    if (rc == 0)
        rc = bench_instructions(st, rep, f);
    if (rc == 0)
        rc = bench_stamps(st, rep, f);
    return rc;
}

int plan_run(const struct settings *st, struct report *rep)
{
    struct fixture f;
    int rc = fixture_start(&f, st->build, "");
    if (rc < 0) {
        fprintf(stderr, "fabbench: %s\n", err_text(rc));
        return rc;
    }
    rc = latencies(st, rep, &f);
    if (rc == 0)
        rc = bench_throughput(st, rep, &f, "shm", "shm.vyukov");
    if (rc == 0)
        rc = bench_throughput(st, rep, &f, "tcp", zeromq_there(st) ? "zeromq.tcp" : NULL);
    if (rc == 0)
        rc = encrypted(st, rep, &f);
    if (rc == 0)
        rc = curves(st, rep, &f);
    (void)fixture_stop(&f);
    if (rc == 0)
        rc = bench_fairness(st, rep);
    if (rc == 0)
        rc = bench_depth(st, rep);
    if (rc == 0)
        rc = bench_start(st, rep);
    if (rc == 0)
        rc = bench_idle(st, rep);
    if (rc == 0)
        rc = verbs(st, rep);
    if (rc == 0)
        rc = python(st, rep);
    progress(NULL, 0, 0);
    return rc;
}
