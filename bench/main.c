/* SPDX-License-Identifier: MIT
 *
 * main.c - fabbench: options, cores, progress, and where the figures go.
 */
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/clock.h"
#include "core/error.h"

static const char help[] =
    "Usage: bench/run [OPTION...]\n"
    "Compares the fabric's transports with each other, each beside its floor from the same run.\n"
    "What is compared takes turns; a ratio whose spread over the turns swallows it is not "
    "printed.\n"
    "\n"
    "  --quick         round trips and rates only, shorter series: about 20 seconds\n"
    "                  (without it: all rows and pictures, about 8 minutes)\n"
    "  --only PREFIX   only rows whose name begins so (shm, tcp, shm.grain, tcp.load, shm.depth,\n"
    "                  shm.scale, shm.parked, tcp.bandwidth, shm.instructions, shm.stamps, start,\n"
    "                  idle, ...)\n"
    "  --turns N       how often each measurement and its floor take turns (default 5, quick 3)\n"
    "  --json FILE     also write the rows for programs ('-': to standard output, without the "
    "table)\n"
    "  --csv FILE      also write the rows as a table for spreadsheets\n"
    "  --report DIR    also make DIR/index.html and DIR/report.md with pictures (needs gnuplot)\n"
    "  --peers         also measure the foreign systems that are installed (bench/peers/run)\n"
    "  -h, --help      print this and exit\n"
    "\n"
    "Examples:\n"
    "  bench/run --quick\n"
    "  bench/run --only shm --json shm.json\n"
    "  bench/run --report figures --json new.json; bench/compare old.json new.json\n"
    "\n"
    "docs/bench.md says what is measured and how.\n"
    "Exit status: 0 measured, 1 a measurement failed, 2 wrong usage.\n";

bool wanted(const struct settings *st, const char *name)
{
    return !st->only || strncmp(name, st->only, strlen(st->only)) == 0;
}

bool group_wanted(const struct settings *st, const char *group, bool extra)
{
    if (st->only && strncmp(st->only, group, strlen(group)) == 0)
        return true; /* rows of it by name */
    return wanted(st, group) && !(extra && st->quick);
}

void progress(const char *what, unsigned turn, unsigned turns)
{
    static uint64_t start;
    if (!isatty(2))
        return;
    if (!start)
        start = clock_ns();
    unsigned s = (unsigned)((clock_ns() - start) / 1000000000u);
    if (what)
        fprintf(stderr, "\r\033[K%u:%02u  measuring %s, turn %u of %u", s / 60, s % 60, what, turn,
                turns);
    else
        fprintf(stderr, "\r\033[K");
}

void pin_near(const struct settings *st)
{
    (void)!topo_pin(st->near_core); /* allowed: it comes from our own affinity mask */
}

void pin_far(const struct settings *st)
{
    (void)!topo_pin(st->far_core);
}

int core_of(const struct settings *st, unsigned n)
{
    return st->cores.core[n % (unsigned)st->cores.n];
}

void poll_pause(const struct settings *st)
{
    if (st->near_core == st->far_core)
        sched_yield();
    else
        cpu_relax();
}

void nap_ns(uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    while (nanosleep(&t, &t) < 0 && errno == EINTR)
        ;
}

static int find_paths(struct settings *st)
{
    static char self[PATH_MAX], build[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return -EIO;
    self[n] = 0;
    snprintf(build, sizeof build, "%s", self);
    st->self = self;
    st->build = dirname(dirname(build)); /* BUILD/bench/fabbench */
    st->source = BENCH_SOURCE_DIR;
    return 0;
}

static int choose_cores(struct settings *st)
{
    int rc = topo_allowed(&st->cores);
    if (rc < 0)
        return rc;
    st->near_core = core_of(st, 0);
    st->far_core = core_of(st, 1);
    if (st->cores.n < 2)
        fprintf(
            stderr,
            "fabbench: warning: one core alone: both sides share it, and the figures measure the "
            "scheduler\n");
    return 0;
}

struct outputs {
    const char *json, *csv, *merge;
};

enum { OPT_QUICK = 256, OPT_ONLY, OPT_TURNS, OPT_JSON, OPT_CSV, OPT_MERGE };

/* 0 go on, 1 done, 2 wrong usage */
static int options(int argc, char **argv, struct settings *st, struct outputs *to)
{
    static const struct option known[] = {{"quick", no_argument, NULL, OPT_QUICK},
                                          {"only", required_argument, NULL, OPT_ONLY},
                                          {"turns", required_argument, NULL, OPT_TURNS},
                                          {"json", required_argument, NULL, OPT_JSON},
                                          {"csv", required_argument, NULL, OPT_CSV},
                                          {"merge", required_argument, NULL, OPT_MERGE},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    int opt, turns = 0;
    *st = (struct settings){.turns = 5, .rounds = 200000, .seconds = 1.0, .slice = 0.4};
    while ((opt = getopt_long(argc, argv, "h", known, NULL)) != -1) {
        switch (opt) {
        case OPT_QUICK:
            *st = (struct settings){.quick = true,
                                    .turns = 3,
                                    .rounds = 20000,
                                    .seconds = 0.1,
                                    .slice = 0.06,
                                    .only = st->only};
            break;
        case OPT_ONLY:
            st->only = optarg;
            break;
        case OPT_TURNS:
            turns = atoi(optarg);
            if (turns < 1 || turns > TURNS_MAX) {
                fprintf(stderr, "fabbench: --turns: 1 to %d (try --help)\n", TURNS_MAX);
                return 2;
            }
            break;
        case OPT_JSON:
            to->json = optarg;
            break;
        case OPT_CSV:
            to->csv = optarg;
            break;
        case OPT_MERGE:
            to->merge = optarg;
            break;
        case 'h':
            fputs(help, stdout);
            return 1;
        default:
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "fabbench: it takes no arguments (try --help)\n");
        return 2;
    }
    if (turns)
        st->turns = (unsigned)turns;
    return 0;
}

/* What was not good about this run, for people, on stderr. */
static void warn_of_load(void)
{
    double others, steal;
    load_others(&others, &steal);
    if (others > 0.03)
        fprintf(stderr,
                "fabbench: note: other programs used %.0f %% of the machine meanwhile: the figures "
                "are worse than it can do\n",
                others * 100);
    if (steal > 0.01)
        fprintf(stderr, "fabbench: note: the host took %.0f %% of this machine's time\n",
                steal * 100);
}

static int write_all(const struct report *rep, const struct settings *st, const struct outputs *to)
{
    int rc = 0;
    if (!to->json || strcmp(to->json, "-") != 0)
        report_table(rep);
    fflush(stdout);
    if (to->json)
        rc = report_json(rep, to->json, st);
    if (rc == 0 && to->csv)
        rc = report_csv(rep, to->csv);
    return rc;
}

int main(int argc, char **argv)
{
    static struct report rep;
    struct settings st;
    struct outputs to = {0};
    if (argc == 5 && strcmp(argv[1], "--instructions-child") == 0)
        return instructions_child(argv[4], (unsigned)strtoul(argv[2], NULL, 10),
                                  strtoul(argv[3], NULL, 10)) < 0;
    int rc = options(argc, argv, &st, &to);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    signal(SIGPIPE, SIG_IGN);
    load_begin();
    rc = find_paths(&st);
    if (rc == 0)
        rc = choose_cores(&st);
    if (rc == 0)
        rc = kernels_register();
    if (rc < 0)
        fprintf(stderr, "fabbench: %s\n", err_text(rc));
    else
        rc = plan_run(&st, &rep); /* says itself what failed */
    int merged = to.merge ? report_merge(&rep, to.merge) : 0;
    if (merged < 0)
        fprintf(stderr, "fabbench: %s\n", err_text(merged));
    int written = write_all(&rep, &st, &to);
    if (written < 0)
        fprintf(stderr, "fabbench: %s\n", err_text(written));
    warn_of_load();
    return rc < 0 || merged < 0 || written < 0;
}
