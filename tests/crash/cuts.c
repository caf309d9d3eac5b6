/* SPDX-License-Identifier: MIT
 *
 * cuts.c - links that are cut in the middle of a stream of tasks, again and again: the kernel is told to
 * destroy the connections (what `ss -K` does), of the producer and of the worker alike. Every task must
 * be answered once, rightly; and it must go on soon after each cut.
 *
 * Usage: cuts BUILD_DIR [CUTS [TASKS]]      default 10 cuts in 100,000 tasks
 *
 * The stream is told where to be cut by its own progress: the n-th cut comes when n parts of
 * CUTS + 1 are answered. The time until it goes on is that from the cut to the first answer of a task
 * that was submitted after it.
 *
 * 77: skipped, where connections can't be destroyed.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench/fixture.h"
#include "core/clock.h"
#include "core/fabric.h"
#include "tests/common/program.h"

#define SECOND   1000000000ll
#define WINDOW   2048u
#define BATCH    64u
#define FEB_48   106373551u
#define LIMIT_NS 20000000u
/* Instrumented code says nothing about the bar. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SLOWNESS 20u
#else
#define SLOWNESS 1u
#endif

struct stream {
    fab_t *f;
    uint64_t tasks, submitted, answered;
    uint8_t *seen;
    uint64_t cut_at, first_after; /* when; the number of the first task submitted after the cut */
    bool waiting;                 /* for that one's answer, or a later one's */
    uint64_t *took, took_n;
};

/* Destroys all connections of a fabricd's process but the listening ones, by both ends' ports. */
static int cut(const struct fixture *fx)
{
    char command[400], out[256] = "";
    snprintf(command, sizeof command,
             "ss -Htnp state established | grep 'pid=%d,' | while read -r r s local peer more; do "
             "ss -Kt src \"$local\" dst \"$peer\"; done 2>&1 | grep -i 'not permitted'",
             fx->pid);
    FILE *p = popen(command, "re");
    if (!p)
        return -errno;
    (void)!fgets(out, sizeof out, p);
    (void)pclose(p);
    return out[0] ? -EPERM : 0;
}

static pid_t start_worker(const struct fixture *fx, const char *build)
{
    char program[512];
    snprintf(program, sizeof program, "%s/apps/fabworker", build);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 2);
        execl(program, "fabworker", "--cores", "0", "--server", fx->remote, "--key-file", fx->key,
              (char *)NULL);
        _exit(127);
    }
    return pid;
}

/* ---- the stream ---- */

static int submit_some(struct stream *s)
{
    static uint64_t arg = 48;
    struct fab_task t[BATCH];
    size_t n = 0;
    while (n < BATCH && s->submitted + n < s->tasks &&
           s->submitted + n - s->answered < WINDOW) {
        t[n] = (struct fab_task){
            .kernel = fab_kernel_id("feb"), .arg = &arg, .len = 8, .tag = s->submitted + n};
        n++;
    }
    if (n == 0)
        return 0;
    long k = fab_submit(s->f, t, n, NULL, 0);
    if (k > 0)
        s->submitted += (uint64_t)k;
    return k >= 0 || k == -EAGAIN ? 0 : fail("submit");
}

static int take(struct stream *s, const struct fab_outcome *o)
{
    uint32_t v = 0;
    if (o->tag >= s->tasks || s->seen[o->tag])
        return fail("a task is answered twice");
    memcpy(&v, fab_data(o), o->len < 4 ? o->len : 4);
    if (o->status != FAB_COMPLETED || v != FEB_48) {
        fprintf(stderr, "cuts: task %llu: status %u after %u attempts\n", (unsigned long long)o->tag,
                o->status, o->attempts);
        return 1;
    }
    s->seen[o->tag] = 1;
    s->answered++;
    if (s->waiting && o->tag >= s->first_after) {
        s->took[s->took_n++] = clock_ns() - s->cut_at;
        s->waiting = false;
    }
    return 0;
}

static int go_on(struct stream *s)
{
    struct fab_outcome o[BATCH];
    int rc = submit_some(s);
    if (rc)
        return rc;
    long n = fab_wait_any(s->f, o, BATCH, 30 * SECOND);
    if (n < 0)
        return fail("nothing is answered any more");
    for (long i = 0; i < n; i++)
        if ((rc = take(s, &o[i])))
            return rc;
    return 0;
}

static int run(const struct fixture *fx, struct stream *s, unsigned cuts)
{
    for (unsigned c = 0; s->answered < s->tasks;) {
        int rc = go_on(s);
        if (rc)
            return rc;
        if (c == cuts || s->waiting || s->answered < (c + 1) * (s->tasks / (cuts + 1)))
            continue;
        if ((rc = cut(fx)) < 0) {
            fprintf(stderr, "skipped: connections can't be destroyed here (ss -K: %s)\n", strerror(-rc));
            return 77;
        }
        s->cut_at = clock_ns();
        s->first_after = s->submitted;
        s->waiting = true;
        c++;
    }
    return 0;
}

static int report(struct stream *s, unsigned cuts)
{
    sort_u64(s->took, s->took_n);
    double p50 = s->took_n ? (double)s->took[s->took_n / 2] / 1e6 : 0,
           most = s->took_n ? (double)s->took[s->took_n - 1] / 1e6 : 0;
    printf("%u cuts in %llu tasks: 0 lost, 0 answered twice; a task submitted after a cut was answered after "
           "p50 %.1f ms, at most %.1f ms\n",
           cuts, (unsigned long long)s->tasks, p50, most);
    if (s->took_n < cuts)
        return fail("a cut came too late");
    if (p50 * 1e6 >= LIMIT_NS * SLOWNESS) {
        fprintf(stderr, "cuts: over the bar of %u ms\n", LIMIT_NS * SLOWNESS / 1000000);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    unsigned cuts = argc > 2 ? (unsigned)atoi(argv[2]) : 10;
    struct stream s = {.tasks = argc > 3 ? strtoull(argv[3], NULL, 10) : 100000};
    struct fab_options o = {.roles = FAB_PRODUCER, .name = "cuts"};
    struct fixture fx;
    int rc = 1;
    if (argc < 2 || cuts < 1 || s.tasks < cuts * 100ull) {
        fprintf(stderr, "usage: cuts BUILD_DIR [CUTS [TASKS, at least 100 a cut]]\n");
        return 2;
    }
    s.seen = calloc(s.tasks, 1);
    s.took = calloc(cuts, sizeof *s.took);
    if (!s.seen || !s.took || fixture_start(&fx, argv[1], "") < 0)
        return fail("fabricd");
    o.key_file = fx.key;
    pid_t worker = start_worker(&fx, argv[1]);
    if (fab_open(&s.f, fx.remote, &o) < 0)
        rc = fail("open");
    else
        rc = run(&fx, &s, cuts);
    if (rc == 0)
        rc = report(&s, cuts);
    fab_close(s.f);
    child_stop(worker);
    int status = fixture_stop(&fx);
    if (rc == 0 && !(WIFEXITED(status) && WEXITSTATUS(status) == 0))
        rc = fail("fabricd did not end well");
    free(s.seen);
    free(s.took);
    return rc;
}
