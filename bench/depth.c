/* SPDX-License-Identifier: MIT
 *
 * depth.c - does it slow down as tasks pile up? 10 to 10,000,000 tasks wait in the lowest priority;
 * at each depth: the round trip of a task of the first priority past all of them, the rate at which
 * the waiting ones are run while as many are put behind, and the memory that a waiting task takes.
 *
 * Depth is held exactly: the worker counts what it completes in shared memory, and as many are
 * submitted again (outside of what is timed). Workers are asked to end, not killed, so that none
 * takes uncounted tasks with it.
 *
 * Threads: the producer is this process on the near core, the worker a child on the far one. A
 * fabricd of its own a turn, whose segment goes with it (segment.keep = 0s).
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/clock.h"
#include "core/error.h"

#define BATCH    256u
#define DEPTHS   7
#define PROBES   2000u
#define PER_SLOT 320u /* bytes of a touched slot with its cells, and room to spare */

struct pile {
    fab_t *f;
    struct job job;
    struct fab_task bulk[BATCH];
    struct worker_share *share; /* the worker's count */
    uint64_t probes, put;       /* submitted: of the first priority; of the pile */
};

/* Puts n more on the pile. */
static int put(struct pile *p, uint64_t n)
{
    while (n > 0) {
        long got = fab_submit(p->f, p->bulk, n < BATCH ? n : BATCH, NULL, 10000000000);
        if (got < 0)
            return err_prefix((int)got, "with %llu put and %llu done", (unsigned long long)p->put,
                              (unsigned long long)(at_load_rlx(&p->share->done) - p->probes));
        p->put += (uint64_t)got;
        n -= (uint64_t)got;
    }
    return 0;
}

/* As many as the worker has taken off; returns how many, or -errno. */
static long refill(struct pile *p, uint64_t depth)
{
    uint64_t taken = at_load_rlx(&p->share->done) - p->probes; /* a count */
    uint64_t lies = p->put - taken;
    int rc = lies < depth ? put(p, depth - lies) : 0;
    return rc < 0 ? rc : (long)(lies < depth ? depth - lies : 0);
}

static int probe(struct pile *p, uint64_t depth, struct samples *out)
{
    struct fab_task t = job_task(&p->job);
    struct fab_outcome o;
    fab_id id;
    t.priority = 0;
    for (size_t i = 0; i < out->n; i++) {
        uint64_t from = stamp();
        if (fab_submit(p->f, &t, 1, &id, FAB_FOREVER) != 1)
            return -EIO;
        int rc = fab_wait(p->f, id, &o, 5000000000);
        uint64_t to = stamp();
        if (rc == 0)
            rc = job_check(&p->job, &o);
        p->probes++;
        if (rc < 0)
            return rc;
        out->ns[i] = stamp_ns(from, to);
        long n = refill(p, depth);
        if (n < 0)
            return (int)n;
    }
    return 0;
}

static int drain_rate(const struct settings *st, struct pile *p, uint64_t depth, double *rate)
{
    uint64_t from = clock_ns(), had = at_load_rlx(&p->share->done), now = from;
    while (now - from < (uint64_t)(st->slice * 1e9)) {
        long n = refill(p, depth);
        if (n < 0)
            return (int)n;
        if (n == 0)
            poll_pause(st);
        now = clock_ns();
    }
    *rate = (double)(at_load_rlx(&p->share->done) - had) / ((double)(now - from) / 1e9);
    return 0;
}

/* Bytes of the segment that have been touched: what the kernel has given fabricd's memfd. */
static double segment_bytes(const struct fixture *f)
{
    char path[300], to[64];
    double most = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", f->pid);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat s;
        snprintf(path, sizeof path, "/proc/%d/fd/%s", f->pid, e->d_name);
        ssize_t n = readlink(path, to, sizeof to - 1);
        to[n > 0 ? n : 0] = 0;
        if (strncmp(to, "/memfd:", 7) == 0 && stat(path, &s) == 0 &&
            (double)s.st_blocks * 512 > most)
            most = (double)s.st_blocks * 512;
    }
    if (d)
        closedir(d);
    return most;
}

struct figures {
    double rtt[DEPTHS][TURNS_MAX], rate[DEPTHS][TURNS_MAX], bytes[TURNS_MAX];
    struct latency lat[DEPTHS][TURNS_MAX];
};

static int at_depth(const struct settings *st, const struct fixture *f, struct pile *p,
                    uint64_t depth, unsigned t, size_t i, struct figures *fig)
{
    struct samples out;
    struct worker_spec w = {
        .address = f->local, .batch = 1, .core = st->far_core, .share = p->share};
    int rc = samples_init(&out, PROBES), pid = worker_start(&w);
    if (rc == 0)
        rc = pid < 0 ? pid : probe(p, depth, &out);
    worker_stop(&w, pid);
    if (rc == 0) {
        fig->lat[i][t] = samples_quantiles(&out);
        fig->rtt[i][t] = fig->lat[i][t].p50;
        w.batch = 16;
        pid = worker_start(&w);
        rc = pid < 0 ? pid : drain_rate(st, p, depth, &fig->rate[i][t]);
        worker_stop(&w, pid);
    }
    samples_free(&out);
    return rc;
}

static int pile_open(const struct settings *st, uint64_t slots, struct fixture *f, struct pile *p)
{
    struct fab_options o = {.roles = FAB_PRODUCER, .name = "bench"};
    char conf[160];
    *p = (struct pile){.job = job_feb(), .share = MAP_FAILED};
    snprintf(conf, sizeof conf,
             "[segment]\nslots = %llu\nkeep = \"0s\"\nproducer_share = \"100%%\"\n",
             (unsigned long long)slots);
    int rc = fixture_start(f, st->build, conf);
    if (rc < 0)
        return rc;
    p->share =
        mmap(NULL, sizeof *p->share, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p->share == MAP_FAILED)
        return -ENOMEM;
    for (unsigned i = 0; i < BATCH; i++) {
        p->bulk[i] = job_task(&p->job);
        p->bulk[i].flags = FAB_NO_WAIT;
        p->bulk[i].priority = FAB_PRIORITIES - 1;
    }
    pin_near(st);
    return fab_open(&p->f, f->local, &o);
}

static void pile_close(struct fixture *f, struct pile *p)
{
    fab_close(p->f);
    if (p->share != MAP_FAILED)
        munmap(p->share, sizeof *p->share);
    child_stop(f->pid); /* it would wait for the pile */
    f->pid = 0;
    (void)fixture_stop(f);
}

/* All in: the segment's touched pages, whoever touched them, over the tasks that wait, on a fabric
 * in which nothing has run. */
static int bytes_turn(const struct settings *st, size_t depths, uint64_t slots, double *bytes)
{
    struct fixture f;
    struct pile p;
    uint64_t depth = 1;
    int rc = pile_open(st, slots, &f, &p);
    while (depths-- > 0)
        depth *= 10;
    if (rc == 0)
        rc = put(&p, depth);
    *bytes = segment_bytes(&f) / (double)depth;
    pile_close(&f, &p);
    return rc;
}

/* One fabricd, depth after depth. */
static int turn(const struct settings *st, size_t depths, uint64_t slots, unsigned t,
                struct figures *fig)
{
    struct fixture f;
    struct pile p;
    uint64_t depth = 10;
    int rc = bytes_turn(st, depths, slots, &fig->bytes[t]);
    if (rc < 0)
        return rc;
    rc = pile_open(st, slots, &f, &p);
    for (size_t i = 0; rc == 0 && i < depths; i++, depth *= 10) {
        rc = put(&p, depth - (p.put - (at_load_rlx(&p.share->done) - p.probes)));
        if (rc == 0)
            rc = at_depth(st, &f, &p, depth, t, i, fig);
    }
    pile_close(&f, &p);
    return rc;
}

/* How many of the depths fit: half of the available memory at most. */
static size_t fitting(uint64_t *slots)
{
    double kib = 0;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %lf", &kib) == 1)
            break;
    if (f)
        fclose(f);
    size_t n = 0;
    for (uint64_t depth = 10; n < DEPTHS && (double)depth * PER_SLOT < kib * 1024 / 2; depth *= 10)
        n++;
    uint64_t most = 10;
    for (size_t i = 1; i < n; i++)
        most *= 10;
    *slots = most + BATCH + 1024 < 65536 ? 65536 : most + BATCH + 1024; /* fabricd rounds up */
    return n;
}

static void to_report(struct report *rep, const struct figures *fig, size_t depths, unsigned turns)
{
    uint64_t depth = 10;
    struct curve *rtt = report_curve(rep, "depth", "round trip past them", "waiting tasks", "ns"),
                 *rate = report_curve(rep, "depth-rate", "run while as many are put behind",
                                      "waiting tasks", "tasks/s");
    for (size_t i = 0; i < depths; i++, depth *= 10) {
        char name[40];
        snprintf(name, sizeof name, "shm.depth.%llu", (unsigned long long)depth);
        report_latency(rep, name, fig->lat[i], turns, i ? "shm.depth.10" : NULL);
        snprintf(name, sizeof name, "shm.depth.%llu.rate", (unsigned long long)depth);
        report_value(rep, name, "tasks/s", fig->rate[i], turns, i ? "shm.depth.10.rate" : NULL);
        curve_point(rtt, (double)depth, fig->rtt[i], turns);
        curve_point(rate, (double)depth, fig->rate[i], turns);
    }
    struct row *w =
        report_value(rep, "shm.depth.bytes", "bytes a waiting task", fig->bytes, turns, NULL);
    w->less_is_better = true;
    snprintf(w->note, sizeof w->note, "all in: the segment's touched pages with %llu tasks waiting",
             (unsigned long long)depth / 10);
}

int bench_depth(const struct settings *st, struct report *rep)
{
    unsigned turns = st->turns < 3 ? st->turns : 3;
    uint64_t slots;
    if (!group_wanted(st, "shm.depth", true))
        return 0;
    size_t depths = fitting(&slots);
    if (depths < 4) {
        report_skip(rep, "shm.depth", "there is not enough free memory");
        return 0;
    }
    if (st->quick && depths > 5) {
        depths = 5;
        slots = 131072;
    }
    struct figures *fig = calloc(1, sizeof *fig);
    int rc = fig ? 0 : -ENOMEM;
    for (unsigned t = 0; t < turns && rc == 0; t++) {
        progress("shm.depth", t + 1, turns);
        rc = turn(st, depths, slots, t, fig);
    }
    if (rc == 0)
        to_report(rep, fig, depths, turns);
    else
        fprintf(stderr, "fabbench: shm.depth: %s\n", err_text(rc));
    free(fig);
    return rc;
}
