/* SPDX-License-Identifier: MIT
 *
 * depth.c - does it slow down as tasks pile up? 10 to 10,000,000 tasks wait in the lowest priority;
 * at each depth: the round trip of a task of the first priority past all of them, the rate at which
 * tasks are put behind and taken from the front, and the memory that a waiting task takes.
 *
 * All depths are alike but for the depth: the same calls with the same batch (fewer than the
 * smallest depth), in the same fabric, all of whose pages have been used by everybody before. A page
 * that is touched for the first time costs more than all that is done in it, and the deepest queue
 * would be the one to meet them; what they cost is a row of its own. Turns go down the depths and
 * up again.
 *
 * Depth is held exactly. .rate: one thread puts a batch and takes a batch; so nobody waits for the
 * other side, which with 10 tasks waiting is most of what two processes do. .two: two processes,
 * one puts as many as the other has taken, which that one counts in shared memory.
 *
 * Threads: the producer is this process on the near core, with a worker's handle beside it; the
 * other worker a child on the far one, which holds no task when it is told to pause. A fabricd of its
 * own, whose segment goes with it (segment.keep = 0s).
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

#define BATCH    8u   /* of what is measured */
#define BULK     256u /* of what makes depths */
#define GROUP    64u
#define GROUPS   65536u
#define DEPTHS   7
#define PROBES   20000u
#define PER_SLOT 320u /* bytes of a touched slot with its cells, and room to spare */

struct pile {
    fab_t *f, *taker;
    struct job job;
    struct fab_task bulk[BULK];
    struct worker_share *share; /* the far worker's count */
    uint64_t probes, put;       /* submitted: of the first priority; of the pile */
    uint64_t taken;             /* of the pile, by ourselves */
};

static uint64_t waiting(const struct pile *p)
{
    return p->put - p->taken - (at_load_rlx(&p->share->done) - p->probes); /* a count */
}

/* Puts n more on the pile. */
static int put(struct pile *p, uint64_t n, unsigned batch)
{
    while (n > 0) {
        long got = fab_submit(p->f, p->bulk, n < batch ? n : batch, NULL, 10000000000);
        if (got < 0)
            return err_prefix((int)got, "with %llu waiting", (unsigned long long)waiting(p));
        p->put += (uint64_t)got;
        n -= (uint64_t)got;
    }
    return 0;
}

/* Takes n off its front and completes them. */
static int take(struct pile *p, uint64_t n, unsigned batch)
{
    struct fab_lease l[BULK];
    while (n > 0) {
        long got = fab_claim(p->taker, 0, l, n < batch ? n : batch, 10000000000);
        if (got < 0)
            return err_prefix((int)got, "with %llu waiting", (unsigned long long)waiting(p));
        for (long i = 0; i < got; i++) {
            int rc = fab_complete(p->taker, &l[i], &p->job.expect, sizeof p->job.expect);
            if (rc < 0)
                return rc;
        }
        p->taken += (uint64_t)got;
        n -= (uint64_t)got;
    }
    return 0;
}

/* As many as the far worker has taken off; returns how many, or -errno. */
static long refill(struct pile *p, uint64_t depth)
{
    uint64_t lies = waiting(p);
    int rc = lies < depth ? put(p, depth - lies, BATCH) : 0;
    return rc < 0 ? rc : (long)(lies < depth ? depth - lies : 0);
}

static int to_depth(struct pile *p, uint64_t depth)
{
    uint64_t lies = waiting(p);
    return lies < depth ? put(p, depth - lies, BULK) : take(p, lies - depth, BULK);
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

/* One thread: a batch behind, a batch from the front. The rate is that of the median group of 64 tasks:
 * what else runs on this core takes its time out of some groups, not out of that. */
static int rate_alone(const struct settings *st, struct pile *p, double *rate)
{
    struct samples g;
    uint64_t end = clock_ns() + (uint64_t)(st->slice * 1e9);
    int rc = samples_init(&g, GROUPS);
    for (g.n = 0; rc == 0 && g.n < GROUPS && (g.n < 100 || clock_ns() < end); g.n++) {
        uint64_t from = stamp();
        for (unsigned i = 0; i < GROUP && rc == 0; i += BATCH) {
            rc = put(p, BATCH, BATCH);
            if (rc == 0)
                rc = take(p, BATCH, BATCH);
        }
        g.ns[g.n] = stamp_ns(from, stamp());
    }
    if (rc == 0)
        *rate = GROUP * 1e9 / samples_quantiles(&g).p50;
    samples_free(&g);
    return rc;
}

static int rate_of_two(const struct settings *st, struct pile *p, uint64_t depth, double seconds,
                       double *rate)
{
    uint64_t from = clock_ns(), had = at_load_rlx(&p->share->done), now = from;
    while (now - from < (uint64_t)(seconds * 1e9)) {
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
    double rtt[DEPTHS][TURNS_MAX], alone[DEPTHS][TURNS_MAX], two[DEPTHS][TURNS_MAX];
    struct latency lat[DEPTHS][TURNS_MAX];
    double bytes, first; /* a waiting task; tasks a second put into pages never touched before */
};

static int at_depth(const struct settings *st, struct pile *p, uint64_t depth, unsigned t, size_t i,
                    struct figures *fig)
{
    struct samples out;
    int rc = to_depth(p, depth);
    if (rc == 0)
        rc = rate_alone(st, p, &fig->alone[i][t]);
    if (rc < 0 || (rc = samples_init(&out, PROBES)) < 0)
        return rc;
    worker_go_on(p->share, 1);
    rc = probe(p, depth, &out);
    if (rc == 0) {
        fig->lat[i][t] = samples_quantiles(&out);
        fig->rtt[i][t] = fig->lat[i][t].p50;
        worker_pause(p->share);
        worker_go_on(p->share, BATCH);
        rc = rate_of_two(st, p, depth, st->slice, &fig->two[i][t]);
    }
    worker_pause(p->share);
    samples_free(&out);
    return rc;
}

static int pile_open(const struct settings *st, uint64_t slots, struct fixture *f, struct pile *p)
{
    struct fab_options o = {.roles = FAB_PRODUCER, .name = "bench"},
                       w = {.roles = FAB_WORKER, .name = "bench"};
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
    for (unsigned i = 0; i < BULK; i++) {
        p->bulk[i] = job_task(&p->job);
        p->bulk[i].flags = FAB_NO_WAIT;
        p->bulk[i].priority = FAB_PRIORITIES - 1;
    }
    pin_near(st);
    rc = fab_open(&p->f, f->local, &o);
    return rc < 0 ? rc : fab_open(&p->taker, f->local, &w);
}

static void pile_close(struct fixture *f, struct pile *p)
{
    fab_close(p->taker);
    fab_close(p->f);
    if (p->share != MAP_FAILED)
        munmap(p->share, sizeof *p->share);
    child_stop(f->pid); /* it would wait for the pile */
    f->pid = 0;
    (void)fixture_stop(f);
}

/* The first pile, as deep as it gets, on a fabric in which nothing has run: its bytes, and what
 * fresh pages cost. Then the rings, which have two cells for each slot, go round once by our own hands
 * and half by the far worker's: no page is new to anybody after that. */
static int first_pile(const struct settings *st, const struct fixture *f, struct pile *p,
                      uint64_t depth, uint64_t slots, struct figures *fig)
{
    uint64_t from = clock_ns(), round = 1;
    double rate;
    while (round < slots)
        round *= 2;
    int rc = put(p, depth, BATCH);
    fig->first = (double)depth / ((double)(clock_ns() - from) / 1e9);
    fig->bytes = segment_bytes(f) / (double)depth;
    for (uint64_t n = 0; rc == 0 && n < 2 * round; n += BATCH) {
        rc = put(p, BATCH, BATCH);
        if (rc == 0)
            rc = take(p, BATCH, BATCH);
    }
    worker_go_on(p->share, BATCH);
    for (uint64_t until = at_load_rlx(&p->share->done) + round;
         rc == 0 && at_load_rlx(&p->share->done) < until;)
        rc = rate_of_two(st, p, depth, 0.05, &rate);
    worker_pause(p->share);
    return rc;
}

/* All turns in one fabric: down, up, down. */
static int measure(const struct settings *st, size_t depths, uint64_t slots, unsigned turns,
                   struct figures *fig)
{
    struct fixture f;
    struct pile p;
    uint64_t depth[DEPTHS] = {10};
    int rc = pile_open(st, slots, &f, &p), pid = 0;
    for (size_t i = 1; i < depths; i++)
        depth[i] = depth[i - 1] * 10;
    struct worker_spec w = {.address = f.local, .core = st->far_core, .share = p.share};
    progress("shm.depth", 1, turns);
    if (rc == 0) {
        at_store(&p.share->pause, 1);
        rc = pid = worker_start(&w);
    }
    if (rc > 0)
        rc = first_pile(st, &f, &p, depth[depths - 1], slots, fig);
    for (unsigned t = 0; rc == 0 && t < turns; t++) {
        progress("shm.depth", t + 1, turns);
        for (size_t k = 0; rc == 0 && k < depths; k++) {
            size_t i = t % 2 ? k : depths - 1 - k;
            rc = at_depth(st, &p, depth[i], t, i, fig);
        }
    }
    worker_stop(&w, pid);
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
    *slots = most + BULK + 1024 < 65536 ? 65536 : most + BULK + 1024; /* fabricd rounds up */
    return n;
}

/* Worst depth against best, by their medians. Turn by turn it would be that of the noise. */
static void flat_row(struct report *rep, const char *name, double v[DEPTHS][TURNS_MAX], size_t depths,
                     unsigned turns)
{
    double least = 0, most = 0;
    size_t at_least = 0, at_most = 0;
    for (size_t i = 0; i < depths; i++) {
        double m = spread_of(v[i], turns).median;
        if (i == 0 || m < least) {
            least = m;
            at_least = i;
        }
        if (m > most) {
            most = m;
            at_most = i;
        }
    }
    double ratio = least > 0 ? most / least : 0;
    struct row *w = report_value(rep, name, "x", &ratio, 1, NULL);
    w->less_is_better = true;
    snprintf(w->note, sizeof w->note,
             "the most of the depths' medians over the least: with 10^%zu and with 10^%zu waiting",
             at_most + 1, at_least + 1);
}

static void depth_rows(struct report *rep, const struct figures *fig, size_t i, unsigned turns,
                       uint64_t depth)
{
    char name[40];
    snprintf(name, sizeof name, "shm.depth.%llu", (unsigned long long)depth);
    report_latency(rep, name, fig->lat[i], turns, i ? "shm.depth.10" : NULL);
    snprintf(name, sizeof name, "shm.depth.%llu.rate", (unsigned long long)depth);
    report_value(rep, name, "tasks/s", fig->alone[i], turns, i ? "shm.depth.10.rate" : NULL)->batch =
        BATCH;
    snprintf(name, sizeof name, "shm.depth.%llu.two", (unsigned long long)depth);
    report_value(rep, name, "tasks/s", fig->two[i], turns, i ? "shm.depth.10.two" : NULL)->batch =
        BATCH;
}

static void to_report(struct report *rep, struct figures *fig, size_t depths, unsigned turns)
{
    uint64_t depth = 10;
    struct curve *rtt = report_curve(rep, "depth", "round trip past them", "waiting tasks", "ns"),
                 *alone = report_curve(rep, "depth-rate", "put behind and taken by one thread",
                                       "waiting tasks", "tasks/s"),
                 *two = report_curve(rep, "depth-rate", "taken by one process, put by another",
                                     "waiting tasks", "tasks/s");
    for (size_t i = 0; i < depths; i++, depth *= 10) {
        depth_rows(rep, fig, i, turns, depth);
        curve_point(rtt, (double)depth, fig->rtt[i], turns);
        curve_point(alone, (double)depth, fig->alone[i], turns);
        curve_point(two, (double)depth, fig->two[i], turns);
    }
    flat_row(rep, "shm.depth.flat", fig->rtt, depths, turns);
    flat_row(rep, "shm.depth.flat.rate", fig->alone, depths, turns);
    struct row *w = report_value(rep, "shm.depth.first", "tasks/s", &fig->first, 1, NULL);
    w->batch = BATCH;
    snprintf(w->note, sizeof w->note, "put, the first time %llu wait: each into memory never touched",
             (unsigned long long)depth / 10);
    w = report_value(rep, "shm.depth.bytes", "bytes a waiting task", &fig->bytes, 1, NULL);
    w->less_is_better = true;
    snprintf(w->note, sizeof w->note, "all in: the segment's touched pages with %llu tasks waiting",
             (unsigned long long)depth / 10);
}

int bench_depth(const struct settings *st, struct report *rep)
{
    unsigned turns = st->turns;
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
    int rc = fig ? measure(st, depths, slots, turns, fig) : -ENOMEM;
    if (rc == 0)
        to_report(rep, fig, depths, turns);
    else
        fprintf(stderr, "fabbench: shm.depth: %s\n", err_text(rc));
    free(fig);
    return rc;
}
