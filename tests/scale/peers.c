/* SPDX-License-Identifier: MIT
 *
 * peers.c - many remote peers at one fabricd: what an idle one costs there in memory and processor time,
 * whether others come and go undisturbed, and whether one that works gets on meanwhile.
 *
 * Usage: peers BUILD_DIR [PEERS [COMING]]      default 60, of whom 12 come and go
 *
 * One process, one thread: the peers are idle handles (half of them producers, half workers that
 * want a task and get none), each with a link of its own. Each does one task or claim first, as idle
 * ones have. Fails when the daemon needs more than 64 KiB for one, or more than 0.2 % of a core for one,
 * or when one is refused or a task of the one that works is lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "bench/fixture.h"
#include "core/clock.h"
#include "core/fabric.h"
#include "tests/common/program.h"

#define SECOND    1000000000ll
/* The thread sanitizer keeps several times the program's own memory beside it. */
#ifdef __SANITIZE_THREAD__
#define BYTES_MAX 1048576.0
#else
#define BYTES_MAX 65536.0
#endif
#define CORE_MAX  0.002
/* Descriptors that a handle needs here: libfabric opens several. */
#define FILES_EACH 12u

/* ---- what the daemon uses ---- */

/* Its own memory: what it would give back if it ended (the segment is shared, and not counted). */
static double own_bytes(pid_t pid)
{
    char path[64], line[256];
    double kib = 0, sum = 0;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Private_Clean: %lf", &kib) == 1 || sscanf(line, "Private_Dirty: %lf", &kib) == 1)
            sum += kib;
    if (f)
        fclose(f);
    return sum * 1024;
}

static double core_seconds(pid_t pid)
{
    char path[64], text[1024] = "";
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (f) {
        (void)!fread(text, 1, sizeof text - 1, f);
        fclose(f);
    }
    const char *rest = strrchr(text, ')');
    if (rest)
        (void)!sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* ---- peers ---- */

static int join(const struct fixture *fx, unsigned i, fab_t **f)
{
    struct fab_options o = {.roles = i % 2 ? FAB_WORKER : FAB_PRODUCER,
                            .key_file = fx->key,
                            .name = i % 2 ? "idle-worker" : "idle-producer",
                            .spin_ns = -1};
    int rc = fab_open(f, fx->remote, &o);
    if (rc < 0)
        return fail("a peer is not let in");
    if (i % 2) {
        struct fab_lease l;
        long n = fab_claim(*f, 1, &l, 1, 1000000); /* a queue that nobody submits to */
        return n == -ETIMEDOUT || n == -EAGAIN ? 0 : fail("an idle claim");
    }
    uint64_t arg = 48;
    struct fab_task t = {.kernel = fab_kernel_id("feb"), .arg = &arg, .len = 8};
    struct fab_outcome out;
    if (fab_submit(*f, &t, 1, NULL, SECOND) != 1 || fab_wait_any(*f, &out, 1, 10 * SECOND) != 1 ||
        out.status != FAB_COMPLETED)
        return fail("an idle peer's one task");
    return 0;
}

/* Workers on the first queue, and a remote producer with a task at a time; counts them into pipe `to`. */
static void pay(const struct fixture *fx, int to)
{
    struct fab_options o = {.roles = FAB_PRODUCER, .key_file = fx->key, .name = "paying"};
    uint64_t arg = 48, done = 0, worst = 0;
    struct fab_outcome out;
    fab_t *f;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (fab_open(&f, fx->remote, &o) < 0)
        _exit(fail("the paying peer"));
    for (;;) {
        struct fab_task t = {.kernel = fab_kernel_id("feb"), .arg = &arg, .len = 8};
        uint64_t start = clock_ns();
        if (fab_submit(f, &t, 1, NULL, SECOND) != 1 || fab_wait_any(f, &out, 1, 20 * SECOND) != 1 ||
            out.status != FAB_COMPLETED)
            _exit(fail("a paid task"));
        uint64_t took = clock_ns() - start, said[2];
        worst = took > worst ? took : worst;
        said[0] = ++done;
        said[1] = worst;
        if (write(to, said, sizeof said) != sizeof said)
            _exit(0);
    }
}

static void work(const struct fixture *fx)
{
    struct fab_options o = {.roles = FAB_WORKER};
    struct fab_lease l[64];
    uint64_t answer = 106373551;
    fab_t *f;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (fab_open(&f, fx->local, &o) < 0)
        _exit(fail("the worker"));
    for (;;) {
        long n = fab_claim(f, 0, l, 64, FAB_FOREVER);
        if (n < 0)
            _exit(0);
        for (long i = 0; i < n; i++)
            if (fab_complete(f, &l[i], &answer, 8) < 0)
                _exit(1);
    }
}

static pid_t start_child(const struct fixture *fx, int to)
{
    pid_t pid = fork();
    if (pid == 0) {
        if (to < 0)
            work(fx);
        pay(fx, to);
    }
    return pid;
}

/* What has been paid for until now. */
static void drain(int from, uint64_t said[2])
{
    uint64_t buf[512];
    ssize_t n;
    while ((n = read(from, buf, sizeof buf)) > 0)
        memcpy(said, (char *)buf + n - 16, 16);
}

struct figures {
    double each, core;
    uint64_t joined_ns;
};

static int idle_ones(const struct fixture *fx, fab_t **peer, unsigned n, struct figures *out)
{
    double before = 0, first_cpu;
    uint64_t start = clock_ns();
    /* the first ones load what all share */
    unsigned warm = n < 16 ? n / 2 : 8;
    for (unsigned i = 0; i < n; i++) {
        if (i == warm)
            before = own_bytes(fx->pid);
        if (join(fx, i, &peer[i]))
            return 1;
    }
    out->joined_ns = (clock_ns() - start) / n;
    out->each = (own_bytes(fx->pid) - before) / (n - warm);
    first_cpu = core_seconds(fx->pid);
    nanosleep(&(struct timespec){.tv_sec = 2}, NULL); /* what is measured is that nothing happens */
    out->core = (core_seconds(fx->pid) - first_cpu) / 2 / n;
    return 0;
}

static int come_and_go(const struct fixture *fx, fab_t **peer, unsigned n, unsigned coming, int from,
                       uint64_t paid[2])
{
    uint64_t before[2];
    drain(from, paid);
    memcpy(before, paid, sizeof before);
    for (unsigned i = 0; i < coming; i++) {
        unsigned k = i * 7 % n;
        fab_close(peer[k]);
        peer[k] = NULL;
        if (join(fx, k, &peer[k]))
            return 1;
    }
    drain(from, paid);
    paid[0] -= before[0];
    return 0;
}

static int room_for(unsigned n)
{
    struct rlimit r;
    rlim_t want = 64 + (rlim_t)n * FILES_EACH;
    if (getrlimit(RLIMIT_NOFILE, &r) < 0)
        return -errno;
    if (r.rlim_cur >= want)
        return 0;
    r.rlim_cur = want;
    r.rlim_max = r.rlim_max < want ? want : r.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &r) < 0 ? -errno : 0;
}

int main(int argc, char **argv)
{
    unsigned n = argc > 2 ? (unsigned)atoi(argv[2]) : 60, coming = argc > 3 ? (unsigned)atoi(argv[3]) : n / 5;
    struct figures fig = {0};
    struct fixture fx;
    uint64_t paid[2] = {0};
    char tables[200];
    int says[2], rc = 1;
    if (argc < 2 || n < 4 || n > 16000) {
        fprintf(stderr, "usage: peers BUILD_DIR [PEERS, 4 to 16000 [COMING]]\n");
        return 2;
    }
    if (room_for(n) < 0) {
        fprintf(stderr, "skipped: no %u open files (ulimit -n) for %u peers in one process\n",
                64 + n * FILES_EACH, n);
        return 77;
    }
    fab_t **peer = calloc(n, sizeof *peer);
    snprintf(tables, sizeof tables,
             "[fabric]\nlinks = %u\n[segment]\nparticipants = %u\n[[queue]]\nname = \"busy\"\n"
             "[[queue]]\nname = \"empty\"\n",
             n + 8, n + 16);
    if (!peer || pipe2(says, O_CLOEXEC | O_NONBLOCK) < 0 || fixture_start(&fx, argv[1], tables) < 0)
        return fail("fabricd");
    pid_t worker = start_child(&fx, -1);
    if (idle_ones(&fx, peer, n, &fig))
        goto out;
    pid_t payer = start_child(&fx, says[1]);
    rc = come_and_go(&fx, peer, n, coming, says[0], paid);
    child_stop(payer);
    printf("%u idle peers: %.1f KiB and %.4f %% of a core at fabricd each, %.1f ms to join; while %u of them left "
           "and came again, one that worked did %llu tasks, the slowest in %.1f ms\n",
           n, fig.each / 1024, fig.core * 100, (double)fig.joined_ns / 1e6, coming,
           (unsigned long long)paid[0], (double)paid[1] / 1e6);
    if (rc == 0 && (fig.each > BYTES_MAX || fig.core > CORE_MAX || (coming && paid[0] == 0))) {
        fprintf(stderr, "peers: over the bar of %.0f KiB, %.1f %% of a core, or nothing was done\n",
                BYTES_MAX / 1024, CORE_MAX * 100);
        rc = 1;
    }
out:
    for (unsigned i = 0; i < n; i++)
        fab_close(peer[i]);
    child_stop(worker);
    int status = fixture_stop(&fx);
    free(peer);
    if (!(WIFEXITED(status) && WEXITSTATUS(status) == 0)) {
        fprintf(stderr, "peers: fabricd ended with %x\n", status);
        rc = 1;
    }
    return rc;
}
