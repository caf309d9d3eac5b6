/* SPDX-License-Identifier: MIT
 *
 * zeromq.c - ZeroMQ at the same work in the same run: PUSH/PULL over tcp with answers beside
 * tcp.throughput, one way over ipc beside shm.one_way. Its program is bench/peers/zeromq.c, which is
 * there when its library was found.
 *
 * Threads: it runs as processes of its own while this one waits. Failure: a program that fails ends
 * the run; one that is not there leaves its row out.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/clock.h"
#include "core/error.h"

#define ONE_WAY_BATCH 64u

static void program(const struct settings *st, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/bench/peers/peer-zeromq", st->build);
}

bool zeromq_there(const struct settings *st)
{
    char path[PATH_MAX];
    program(st, path);
    return access(path, X_OK) == 0;
}

double zeromq_rate(const struct settings *st, bool one_way, double seconds)
{
    char path[PATH_MAX], cmd[PATH_MAX + 128], address[64], line[512] = "";
    double rate = -1;
    program(st, path);
    /* any free port; a name of the abstract namespace, which leaves nothing behind */
    snprintf(address, sizeof address, one_way ? "ipc://@fabbench-%d-" : "tcp://127.0.0.1:*", (int)getpid());
    snprintf(cmd, sizeof cmd, "'%s' %s '%s' %.3f 2>&1", path, one_way ? "oneway" : "answers", address,
             seconds);
    FILE *p = popen(cmd, "re");
    if (p)
        (void)!fgets(line, sizeof line, p);
    int status = p ? pclose(p) : -1;
    const char *found = strstr(line, "\"throughput\": ");
    if (status != 0 || !found || sscanf(found + 14, "%lf", &rate) != 1 || rate <= 0) {
        line[strcspn(line, "\n")] = 0;
        return err_set(-EIO, "%s: %s", path, line[0] ? line : "it said nothing"), -1;
    }
    return rate;
}

/* ---- one way through the fabric ---- */

static void submit_for_ever(const struct settings *st, const struct fixture *fx)
{
    struct fab_options o = {.roles = FAB_PRODUCER, .name = "bench"};
    struct job job = job_feb();
    struct fab_task t[ONE_WAY_BATCH];
    fab_t *f;
    long n = 1;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin_near(st);
    if (fab_open(&f, fx->local, &o) < 0)
        n = -1;
    for (unsigned i = 0; i < ONE_WAY_BATCH; i++) {
        t[i] = job_task(&job);
        t[i].flags = FAB_NO_WAIT;
    }
    while (n > 0)
        n = fab_submit(f, t, ONE_WAY_BATCH, NULL, FAB_FOREVER);
    fprintf(stderr, "fabbench: the producer: %s\n", fab_errmsg());
    _exit(1);
}

/* What the worker has completed between two readings. */
static int one_way_turn(const struct settings *st, const void *arg, double *out)
{
    const struct fixture *f = arg;
    struct worker_share *share =
        mmap(NULL, sizeof *share, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (share == MAP_FAILED)
        return -ENOMEM;
    struct worker_spec w = {
        .address = f->local, .key = f->key, .batch = ONE_WAY_BATCH, .core = st->far_core, .share = share};
    int worker = worker_start(&w), rc = worker < 0 ? worker : 0;
    pid_t producer = rc == 0 ? fork() : -1;
    if (producer == 0)
        submit_for_ever(st, f);
    if (rc == 0) {
        nap_ns((uint64_t)(st->slice * 2e8));
        uint64_t from = clock_ns(), had = at_load_rlx(&share->done); /* counts */
        nap_ns((uint64_t)(st->slice * 1e9));
        *out = (double)(at_load_rlx(&share->done) - had) / ((double)(clock_ns() - from) / 1e9);
        rc = *out > 0 ? 0 : err_set(-EIO, "no task was done");
        child_stop(producer);
        worker_stop(&w, worker);
    }
    munmap(share, sizeof *share);
    return rc;
}

static int ipc_turn(const struct settings *st, const void *arg, double *out)
{
    (void)arg;
    *out = zeromq_rate(st, true, st->slice);
    return *out < 0 ? -EIO : 0;
}

int bench_one_way(const struct settings *st, struct report *rep, const struct fixture *f)
{
    bool there = zeromq_there(st);
    const struct probe p[] = {
        {.name = "shm.one_way",
         .unit = "tasks/s",
         .floor = there ? "zeromq.ipc.one_way" : NULL,
         .fn = one_way_turn,
         .arg = f,
         .batch = ONE_WAY_BATCH,
         .note = "no outcome is wanted; leased and completed all the same"},
        {.name = "zeromq.ipc.one_way",
         .unit = "tasks/s",
         .fn = ipc_turn,
         .batch = ONE_WAY_BATCH,
         .bare = true,
         .note = "PUSH/PULL, no ack, no answer"},
    };
    return group_wanted(st, "shm.one_way", true) ? run_probes(st, rep, p, there ? 2 : 1, st->turns) : 0;
}
