/* SPDX-License-Identifier: MIT
 *
 * main.c - fabbench: which rows, in which order, how often.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/atomic.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/topology.h"
#include "transport/lane.h"

static const char help[] =
    "Usage: bench/run [OPTION...]\n"
    "Compares the fabric's transports with each other, each beside its floor from the same run.\n"
    "\n"
    "  --quick        shorter series: all of it in under 20 seconds\n"
    "  --only PREFIX  only rows whose name begins so (shm, tcp, tcp.throughput, ...)\n"
    "  --turns N      how often each measurement and its floor take turns (default 5, quick 3)\n"
    "  --json FILE    also write the rows for programs ('-': to standard output, without the "
    "table)\n"
    "  -h, --help     print this and exit\n"
    "\n"
    "Examples:\n"
    "  bench/run --quick\n"
    "  bench/run --only shm --json shm.json\n"
    "\n"
    "Exit status: 0 measured, 1 a measurement failed, 2 wrong usage.\n";

bool wanted(const struct settings *st, const char *name)
{
    return !st->only || strncmp(name, st->only, strlen(st->only)) == 0;
}

static bool any_wanted(const struct settings *st, const char *group)
{
    return !st->only || strncmp(st->only, group, strlen(group)) == 0;
}

void progress(const char *what)
{
    if (isatty(2))
        fprintf(stderr, what ? "\r\033[Kmeasuring %s" : "\r\033[K", what);
}

void pin_near(const struct settings *st)
{
    (void)!topo_pin(st->near_core); /* allowed: it comes from our own affinity mask */
}

void poll_pause(const struct settings *st)
{
    if (st->near_core == st->far_core)
        sched_yield();
    else
        cpu_relax();
}

void pin_far(const struct settings *st)
{
    (void)!topo_pin(st->far_core);
}

/* ---- a latency series and its floors, taken in turns ---- */

typedef int series_fn(const struct settings *st, const void *arg, struct samples *out);

struct series {
    const char *name, *floor;
    series_fn *fn;
    const void *arg;
    size_t rounds; /* 0: the settings' */
    const char *note;
};

/* One turn of a series, in a child of its own: once a process has opened a verbs device, children
 * forked later can't use one, and the far sides are such children. */
static int one_turn(const struct settings *st, const struct series *s, struct samples *out)
{
    struct {
        int rc;
        size_t n;
        char why[240];
    } said = {.rc = -EIO, .why = "it ended without a word"};
    int fd[2];
    if (pipe2(fd, O_CLOEXEC) < 0)
        return err_set(-errno, "a pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        said.rc = s->fn(st, s->arg, out);
        said.n = out->n;
        if (said.rc < 0)
            snprintf(said.why, sizeof said.why, "%s", err_text(said.rc));
        _exit(write(fd[1], &said, sizeof said) != sizeof said);
    }
    close(fd[1]);
    (void)!read(fd[0], &said, sizeof said); /* nothing read: as it was set above */
    close(fd[0]);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    if (said.rc < 0)
        return err_set(said.rc, "%s", said.why);
    out->n = said.n;
    return 0;
}

/* apart: each turn in a child, for what uses libfabric. */
static int run_series(const struct settings *st, struct report *rep, const struct series *s,
                      size_t n, bool apart)
{
    struct latency turns[8][32];
    int rc = 0;
    for (unsigned t = 0; t < st->turns && rc == 0; t++) {
        for (size_t i = 0; i < n && rc == 0; i++) {
            struct samples out;
            progress(s[i].name);
            rc = samples_init(&out, s[i].rounds ? s[i].rounds : st->rounds);
            out.limit = (uint64_t)(st->seconds * 10e9);
            if (rc == 0)
                rc = apart ? one_turn(st, &s[i], &out) : s[i].fn(st, s[i].arg, &out);
            if (rc == 0)
                turns[i][t] = samples_quantiles(&out);
            else
                fprintf(stderr, "fabbench: %s: %s\n", s[i].name, err_text(rc));
            samples_free(&out);
        }
    }
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct row *w =
            report_latency(rep, s[i].name, latency_median(turns[i], st->turns), s[i].floor);
        snprintf(w->note, sizeof w->note, "%s", s[i].note ? s[i].note : "");
    }
    return rc;
}

static int s_pingpong(const struct settings *st, const void *arg, struct samples *out)
{
    (void)arg;
    return floor_pingpong(st, out);
}
static int s_futex(const struct settings *st, const void *arg, struct samples *out)
{
    (void)arg;
    return floor_futex(st, out);
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
};

static int s_fi(const struct settings *st, const void *arg, struct samples *out)
{
    const struct net *n = arg;
    return floor_fi(st, n->provider, n->host, out);
}
static int s_lane(const struct settings *st, const void *arg, struct samples *out)
{
    const struct net *n = arg;
    return lane_round_trip(st, n->provider, n->host, n->mode, out);
}
static int s_task_local(const struct settings *st, const void *arg, struct samples *out)
{
    const struct fixture *f = arg;
    return measure_task_rtt(st, f, f->local, 0, out);
}
static int s_task_parked(const struct settings *st, const void *arg, struct samples *out)
{
    const struct fixture *f = arg;
    return measure_task_rtt(st, f, f->local, -1, out);
}
static int s_task_remote(const struct settings *st, const void *arg, struct samples *out)
{
    const struct fixture *f = ((const struct net *)arg)->f;
    return measure_task_rtt(st, f, f->remote, 0, out);
}

/* Series of one group only when rows of it are wanted, and not just its throughput. */
static bool latency_wanted(const struct settings *st, const char *group)
{
    return any_wanted(st, group) && !(st->only && strstr(st->only, "throughput"));
}

static int latencies(const struct settings *st, struct report *rep, const struct fixture *f)
{
    static const bool blocking = false, busy = true;
    const struct net send = {"tcp", "127.0.0.1", f, LANE_SEND},
                     write = {"tcp", "127.0.0.1", f, LANE_WRITE};
    size_t few = st->rounds / 20, net = st->rounds / 4;
    const struct series shm[] = {
        {"shm.pingpong", NULL, s_pingpong, NULL, 0, NULL},
        {"shm.task_rtt", "shm.pingpong", s_task_local, f, 0, NULL},
        {"shm.futex_pingpong", NULL, s_futex, NULL, few, NULL},
        {"shm.parked_rtt", "shm.futex_pingpong", s_task_parked, f, few,
         "both sides sleep in between"},
    };
    const struct series tcp[] = {
        {"tcp.fi_pingpong", NULL, s_fi, &send, net, NULL},
        {"tcp.lane_rtt", "tcp.fi_pingpong", s_lane, &send, net, NULL},
        {"tcp.lane_rtt.write", "tcp.fi_pingpong", s_lane, &write, net, NULL},
        {"tcp.socket_busy", NULL, s_socket, &busy, net, NULL},
        {"tcp.socket_blocking", NULL, s_socket, &blocking, few, NULL},
        {"tcp.task_rtt", "tcp.fi_pingpong", s_task_remote, &send, few,
         "3 processes: producer, fabricd, worker"},
    };
    int rc = 0;
    if (latency_wanted(st, "shm"))
        rc = run_series(st, rep, shm, sizeof shm / sizeof *shm, false);
    if (rc == 0 && latency_wanted(st, "tcp"))
        rc = run_series(st, rep, tcp, sizeof tcp / sizeof *tcp, true);
    return rc;
}

/* ---- throughput ---- */

static double rate_median(const struct settings *st, const struct fixture *f, const char *at,
                          unsigned batch)
{
    double v[32];
    for (unsigned t = 0; t < st->turns; t++) {
        v[t] = measure_rate(st, f, at, batch);
        if (v[t] < 0)
            return -1;
    }
    return median(v, st->turns);
}

static int rates(const struct settings *st, struct report *rep, const struct fixture *f,
                 const char *transport, const char *at, const char *floor)
{
    static const unsigned batches[] = {4, 16, 64, 256};
    char one[40], best[40];
    double top = 0;
    unsigned top_batch = 0;
    snprintf(one, sizeof one, "%s.throughput.batch1", transport);
    snprintf(best, sizeof best, "%s.throughput.best", transport);
    progress(one);
    double v = rate_median(st, f, at, 1);
    if (v < 0)
        goto fail;
    report_rate(rep, one, v, "tasks/s", 1, floor);
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        progress(best);
        v = rate_median(st, f, at, batches[i]);
        if (v < 0)
            goto fail;
        if (v > top) {
            top = v;
            top_batch = batches[i];
        }
    }
    report_rate(rep, best, top, "tasks/s", top_batch, floor);
    return 0;
fail:
    fprintf(stderr, "fabbench: %s throughput: %s\n", transport, fab_errmsg());
    return -EIO;
}

static int throughputs(const struct settings *st, struct report *rep, const struct fixture *f)
{
    int rc = 0;
    if (any_wanted(st, "shm")) {
        progress("bare rings");
        report_rate(rep, "shm.vyukov", floor_vyukov(st), "values/s", 0, NULL);
        report_rate(rep, "shm.spsc", floor_spsc(st), "values/s", 0, NULL);
        rc = rates(st, rep, f, "shm", f->local, "shm.vyukov");
    }
    if (rc == 0 && any_wanted(st, "tcp"))
        rc = rates(st, rep, f, "tcp", f->remote, NULL);
    return rc;
}

/* ---- the tutorial's design in Python ---- */

static int python(const struct settings *st, struct report *rep)
{
    char cmd[PATH_MAX + 64];
    double p50, p99, p999, rate;
    if (!any_wanted(st, "python"))
        return 0;
    progress("python");
    snprintf(cmd, sizeof cmd, "python3 '%s/python_manager.py' %s 2>&1", st->source,
             st->quick ? "1" : "3");
    FILE *p = popen(cmd, "re");
    char line[256] = "";
    if (p)
        (void)!fgets(line, sizeof line, p);
    int status = p ? pclose(p) : -1;
    if (status != 0 || sscanf(line, "%lf %lf %lf %lf", &p50, &p99, &p999, &rate) != 4) {
        line[strcspn(line, "\n")] = 0;
        report_skip(rep, "python", line[0] ? line : "python3 is not there");
        return 0;
    }
    report_latency(rep, "python.task_rtt", (struct latency){p50, p99, p999}, NULL);
    report_rate(rep, "python.throughput", rate, "tasks/s", 1, NULL);
    return 0;
}

/* ---- verbs, where there is a device ---- */

static int verbs(const struct settings *st, struct report *rep)
{
    struct fixture f;
    char host[64];
    if (!any_wanted(st, "verbs"))
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
    const struct net write = {"verbs", host, &f, LANE_WRITE}, send = {"verbs", host, &f, LANE_SEND};
    const struct series rows[] = {
        {"verbs.fi_pingpong", NULL, s_fi, &write, net, NULL},
        {"verbs.lane_rtt", "verbs.fi_pingpong", s_lane, &write, net, "one-sided writes"},
        {"verbs.lane_rtt.send", "verbs.fi_pingpong", s_lane, &send, net, NULL},
        {"verbs.task_rtt", "verbs.fi_pingpong", s_task_remote, &write, few,
         "3 processes: producer, fabricd, worker"},
    };
    if (latency_wanted(st, "verbs"))
        rc = run_series(st, rep, rows, sizeof rows / sizeof *rows, true);
    if (rc == 0)
        rc = rates(st, rep, &f, "verbs", f.remote, NULL);
    (void)fixture_stop(&f);
    return rc;
}

static int measure_all(const struct settings *st, struct report *rep)
{
    struct fixture f;
    int rc = fixture_start(&f, st->build, "");
    if (rc < 0) {
        fprintf(stderr, "fabbench: %s\n", err_text(rc));
        return rc;
    }
    rc = latencies(st, rep, &f);
    if (rc == 0)
        rc = throughputs(st, rep, &f);
    (void)fixture_stop(&f);
    if (rc == 0)
        rc = verbs(st, rep);
    if (rc == 0)
        rc = python(st, rep);
    progress(NULL);
    return rc;
}

static int find_paths(struct settings *st)
{
    static char self[PATH_MAX], build[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return -EIO;
    self[n] = 0;
    snprintf(build, sizeof build, "%s", self);
    st->build = dirname(dirname(build)); /* BUILD/bench/fabbench */
    if (!st->source)
        st->source = BENCH_SOURCE_DIR;
    return 0;
}

static int choose_cores(struct settings *st)
{
    struct cores c;
    int rc = topo_allowed(&c);
    if (rc < 0)
        return rc;
    st->near_core = c.core[0];
    st->far_core = c.core[c.n > 1 ? 1 : 0];
    if (c.n < 2)
        fprintf(
            stderr,
            "fabbench: warning: one core alone: both sides share it, and the figures measure the "
            "scheduler\n");
    return 0;
}

int main(int argc, char **argv)
{
    enum { OPT_QUICK = 256, OPT_ONLY, OPT_TURNS, OPT_JSON };
    static const struct option options[] = {{"quick", no_argument, NULL, OPT_QUICK},
                                            {"only", required_argument, NULL, OPT_ONLY},
                                            {"turns", required_argument, NULL, OPT_TURNS},
                                            {"json", required_argument, NULL, OPT_JSON},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct settings st = {.turns = 5, .rounds = 200000, .seconds = 1.0};
    const char *json = NULL;
    static struct report rep;
    int opt, turns = 0;
    while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (opt) {
        case OPT_QUICK:
            st.quick = true;
            st.turns = 3;
            st.rounds = 40000;
            st.seconds = 0.2;
            break;
        case OPT_ONLY:
            st.only = optarg;
            break;
        case OPT_TURNS:
            turns = atoi(optarg);
            if (turns < 1 || turns > 31) {
                fprintf(stderr, "fabbench: --turns: 1 to 31 (try --help)\n");
                return 2;
            }
            break;
        case OPT_JSON:
            json = optarg;
            break;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "fabbench: it takes no arguments (try --help)\n");
        return 2;
    }
    if (turns)
        st.turns = (unsigned)turns;
    signal(SIGPIPE, SIG_IGN);
    int rc = find_paths(&st);
    if (rc == 0)
        rc = choose_cores(&st);
    double load[1];
    if (getloadavg(load, 1) == 1 && load[0] > 0.5)
        fprintf(stderr, "fabbench: note: load average %.2f: other work disturbs the figures\n",
                load[0]);
    if (rc == 0)
        rc = measure_all(&st, &rep);
    if (!json || strcmp(json, "-") != 0)
        report_table(&rep);
    if (json && report_json(&rep, json, st.quick) < 0) {
        fprintf(stderr, "fabbench: %s\n", err_text(-EIO));
        return 1;
    }
    return rc < 0;
}
