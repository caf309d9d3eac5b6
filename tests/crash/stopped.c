/* SPDX-License-Identifier: MIT
 *
 * stopped.c - remote peers that are stopped (SIGSTOP) for a minute in the middle of their work: two
 * workers and two producers, of each one that is a process of this program and one that is fabworker
 * or fabctl. Beside them a producer (this process) and two workers go on, one at each of two queues; our
 * worker that is stopped is at the second one, where there is enough for it. Held against it:
 *   - what a stopped worker had is answered within fabric.dead_after and two seconds, and before it goes on
 *   - the others' tasks are not slowed once the stopped have been asked after: of a hundred at most one
 *     takes LATE_NS or more, as a busy machine may have it; who waited for the stopped waited for seconds
 *   - who goes on comes back by itself, works, and what it says late changes nothing
 *   - every task of every producer is answered once, with its own bytes
 *
 * Usage: stopped BUILD_DIR [SECONDS, of the stop: more than dead_after, 10, and less than that and
 * segment.keep_results, 70]
 *
 * Threads: one a process. Failure: says what, and ends with 1; its processes die with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "bench/fixture.h"
#include "core/atomic.h"
#include "core/clock.h"
#include "core/fabric.h"

#define SECOND   1000000000ull
#define MS       1000000ull
#define TASKS    400000u
#define WINDOW   512u
#define BATCH    8u
#define EVERY_NS (5 * MS) /* a batch */
#define NAP_NS   (5 * MS) /* the stopped worker's, for each task */
#define HOLDS    4u
#define DEAD_NS  (10 * SECOND)
#define SLACK_NS (2 * SECOND)
#define ASKED_NS (5 * SECOND) /* after so long it has missed a heartbeat, and gets no more leases */
#define LATE_NS  (500 * MS)
#define BACK_NS  (5 * SECOND)
#define COUNT    "300000" /* fabctl's */
#define QUEUES   "[[queue]]\nname = \"all\"\n[[queue]]\nname = \"held\"\n"

enum { MINE, STOPPED, PRODUCERS };

/* What a task's argument is; a worker of ours adds the attempt. */
struct arg {
    uint32_t producer, number, attempt, none;
};
#define ARG_LEN    8u
#define RESULT_LEN 16u

struct producer {
    uint32_t who, submitted, again;
    _Atomic uint32_t answered;
    uint64_t due; /* the next batch */
    uint64_t at[TASKS], took[TASKS]; /* submitted, and until the answer; 0: not yet */
};

/* Between the processes. */
static struct shared {
    _Atomic uint32_t first_only; /* nothing more into the second queue */
    _Atomic uint32_t produce_no_more, work_no_more, failed;
    _Atomic uint32_t holding[HOLDS]; /* the stopped worker's: of MINE, number + 1; 0: none */
    _Atomic uint64_t ended[2];       /* by the workers of this program */
    struct producer producer[PRODUCERS];
} *s;

static struct fixture fx;

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "stopped: %s: %s\n", what, why);
    at_store(&s->failed, 1);
    return 1;
}

static void pause_for(uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND)};
    while (nanosleep(&t, &t) < 0 && errno == EINTR)
        ;
}

static int open_handle(fab_t **f, uint32_t roles, const char *name)
{
    struct fab_options o = {.roles = roles, .name = name, .key_file = fx.key};
    return fab_open(f, fx.remote, &o) < 0 ? fail(name, fab_errmsg()) : 0;
}

/* ---- producers ---- */

static int submit_some(fab_t *f, struct producer *p)
{
    struct fab_task t[BATCH];
    struct arg a[BATCH];
    uint64_t now = clock_ns();
    uint32_t n = 0;
    if (now < p->due || p->submitted - at_load(&p->answered) > WINDOW)
        return 0;
    for (; n < BATCH && p->submitted + n < TASKS; n++) {
        a[n] = (struct arg){.producer = p->who, .number = p->submitted + n};
        t[n] = (struct fab_task){
            .kernel = fab_kernel_id("echo"), .arg = &a[n], .len = ARG_LEN, .queue = n == 0 && !at_load(&s->first_only)};
        p->at[a[n].number] = now;
    }
    long k = n ? fab_submit(f, t, n, NULL, 0) : fail("too many tasks", "");
    if (k < 0 && k != -EAGAIN)
        return fail("submit", fab_errmsg());
    p->submitted += k > 0 ? (uint32_t)k : 0;
    p->due = now + EVERY_NS;
    return 0;
}

static int take(struct producer *p, const struct fab_outcome *o)
{
    struct arg a = {0};
    if (o->status != FAB_COMPLETED || (o->len != ARG_LEN && o->len != RESULT_LEN))
        return fail("an outcome is no result", o->len ? fab_data(o) : "it is empty");
    memcpy(&a, fab_data(o), o->len);
    if (a.producer != p->who || a.number >= p->submitted)
        return fail("a result is somebody else's", "");
    if (p->took[a.number])
        return fail("a task is answered twice", "");
    if (o->len == RESULT_LEN && a.attempt != o->attempts)
        return fail("a result is of another attempt", "");
    p->took[a.number] = clock_ns() - p->at[a.number] + 1;
    p->again += o->attempts > 1;
    at_add(&p->answered, 1);
    return 0;
}

/* A batch now and then, and what is answered until the next is due. */
static int produce(fab_t *f, struct producer *p)
{
    struct fab_outcome o[64];
    int rc = at_load(&s->produce_no_more) ? 0 : submit_some(f, p);
    uint64_t now = clock_ns();
    if (fab_outstanding(f) == 0) {
        pause_for(EVERY_NS);
        return rc;
    }
    long n = fab_wait_any(f, o, 64, now < p->due ? (int64_t)(p->due - now) : (int64_t)EVERY_NS);
    if (n < 0 && n != -ETIMEDOUT)
        return fail("wait", fab_errmsg());
    for (long i = 0; i < n && rc == 0; i++)
        rc = take(p, &o[i]);
    return rc;
}

static int stopped_producer(void)
{
    struct producer *p = &s->producer[STOPPED];
    fab_t *f;
    int rc = open_handle(&f, FAB_PRODUCER, "stopped-producer");
    if (rc)
        return rc;
    while (rc == 0 && !(at_load(&s->produce_no_more) && fab_outstanding(f) == 0))
        rc = produce(f, p);
    if (rc == 0 && at_load(&p->answered) != p->submitted)
        rc = fail("the stopped producer's tasks", "some have no answer");
    fab_close(f);
    return rc;
}

/* ---- workers ---- */

static int work(fab_t *f, uint32_t queue, bool stopped)
{
    struct fab_lease l[HOLDS];
    long n = fab_claim(f, queue, l, HOLDS, (int64_t)(10 * MS));
    if (n == -ETIMEDOUT)
        return 0;
    if (n < 0)
        return fail("claim", fab_errmsg());
    for (long i = 0; i < n; i++) {
        struct arg a = {0};
        memcpy(&a, fab_arg(&l[i]), l[i].len < ARG_LEN ? l[i].len : ARG_LEN);
        if (stopped && l[i].len == ARG_LEN && a.producer == MINE)
            at_store(&s->holding[i], a.number + 1);
    }
    for (long i = 0; i < n; i++) {
        struct arg a = {0};
        bool ours = l[i].kernel == fab_kernel_id("echo") && l[i].len == ARG_LEN;
        memcpy(&a, fab_arg(&l[i]), ours ? ARG_LEN : 0);
        a.attempt = l[i].attempt;
        if (queue)
            pause_for(stopped ? NAP_NS : NAP_NS / 3); /* so that there is something for the other, too */
        /* fabctl's are feb(5) */
        int rc = ours ? fab_complete(f, &l[i], &a, RESULT_LEN) : fab_complete(f, &l[i], &(uint64_t){7}, 8);
        at_store(&s->holding[i], stopped ? 0 : at_load(&s->holding[i]));
        if (rc < 0 && rc != -ESTALE)
            return fail("complete", fab_errmsg());
        at_add(&s->ended[stopped], rc == 0);
    }
    return 0;
}

static int worker(const char *name, uint32_t queue, bool stopped)
{
    fab_t *f;
    int rc = open_handle(&f, FAB_WORKER, name);
    while (rc == 0 && !at_load(&s->work_no_more))
        rc = work(f, queue, stopped);
    if (rc == 0)
        fab_close(f);
    return rc;
}

static int stopped_worker(void)
{
    return worker("stopped-worker", 1, true);
}

static int first_worker(void)
{
    return worker("first-worker", 0, false);
}

static int second_worker(void)
{
    return worker("second-worker", 1, false);
}

/* ---- processes ---- */

static pid_t start(int (*body)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(body());
    }
    return pid;
}

static pid_t start_program(const char *build, const char *name, char *const argv[], const char *out)
{
    char path[512];
    snprintf(path, sizeof path, "%s/apps/%s", build, name);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(fd, 1);
        execv(path, argv);
        _exit(127);
    }
    return pid;
}

static int await_end(pid_t pid, const char *who)
{
    int status = 0;
    return waitpid(pid, &status, 0) == pid && status == 0 ? 0 : fail(who, "did not end well");
}

/* Stopped, seen to be. */
static int stop(pid_t pid)
{
    int status;
    return kill(pid, SIGSTOP) == 0 && waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status)
               ? 0
               : fail("a process can't be stopped", strerror(errno));
}

/* ---- the minute ---- */

static int go_on_for(fab_t *f, uint64_t ns)
{
    int rc = 0;
    for (uint64_t until = clock_ns() + ns; clock_ns() < until && rc == 0;)
        rc = at_load(&s->failed) ? 1 : produce(f, &s->producer[MINE]);
    return rc;
}

static uint32_t held(void)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < HOLDS; i++)
        n += at_load(&s->holding[i]) != 0;
    return n;
}

/* With tasks of ours in its hands, the oldest among them: that moves on at the end of the link, the others
 * before. */
static int stop_holding(fab_t *f, pid_t pid)
{
    int rc = stop(pid);
    for (int i = 0; rc == 0 && at_load(&s->holding[0]) == 0; i++) {
        kill(pid, SIGCONT);
        rc = i < 1000 ? go_on_for(f, 3 * MS) : fail("the worker", "gets none of our tasks");
        rc = rc ? rc : stop(pid);
    }
    return rc;
}

/* The stopped worker has ended a hundred more, and the stopped producer has as many answers more. */
static int await_back(fab_t *f)
{
    const struct producer *p = &s->producer[STOPPED];
    uint64_t ended = at_load(&s->ended[1]) + 100, answers = at_load(&p->answered) + 100;
    uint64_t since = clock_ns(), worked = 0, answered = 0;
    int rc = 0;
    while (rc == 0 && !(worked && answered) && clock_ns() - since < BACK_NS) {
        rc = go_on_for(f, MS);
        if (!worked && at_load(&s->ended[1]) >= ended)
            worked = clock_ns() - since;
        if (!answered && at_load(&p->answered) >= answers)
            answered = clock_ns() - since;
    }
    printf("  100 tasks done by the worker after %.0f ms, 100 answers for the producer after %.0f ms\n",
           (double)worked / 1e6, (double)answered / 1e6);
    if (rc == 0 && !worked)
        return fail("the worker", "it does not come back");
    return rc == 0 && !answered ? fail("the producer", "it does not come back") : rc;
}

/* What our tasks took, of those submitted from then on until then. */
static uint64_t longest(uint64_t from, uint64_t to, uint64_t over, uint32_t *many, uint64_t *when)
{
    const struct producer *p = &s->producer[MINE];
    uint64_t most = 0;
    *many = 0;
    for (uint32_t i = 0; i < p->submitted; i++) {
        uint64_t took = p->took[i] ? p->took[i] : clock_ns() - p->at[i];
        if (p->at[i] < from || p->at[i] >= to)
            continue;
        *when = took > most ? p->at[i] : *when;
        most = took > most ? took : most;
        *many += took > over;
    }
    return most;
}

static int check_minute(uint64_t stopped_at, uint64_t now, const uint32_t *had)
{
    const struct producer *p = &s->producer[MINE];
    uint32_t slow, late;
    uint64_t when = stopped_at;
    uint64_t most = longest(stopped_at - 3 * SECOND, stopped_at + ASKED_NS, LATE_NS, &slow, &when);
    uint64_t after = longest(stopped_at + ASKED_NS, now, LATE_NS, &late, &when);
    printf("  of our tasks before and in the first %llu s the longest took %.2f s, %u over %llu ms; then "
           "%.1f ms (%.1f s after the stop), %u\n",
           ASKED_NS / SECOND, (double)most / 1e9, slow, LATE_NS / MS, (double)after / 1e6,
           (double)(when - stopped_at) / 1e9, late);
    for (uint32_t i = 0; i < HOLDS; i++)
        if (had[i] && !p->took[had[i] - 1])
            return fail("a task of the stopped worker's", "it has not moved on");
    if (most > DEAD_NS + SLACK_NS)
        return fail("a stopped worker's leases", "they moved on too late");
    return late * 100 > p->submitted ? fail("the others", "they are slowed") : 0;
}

/* Until fabctl has printed something. */
static int await_line(fab_t *f, const char *path)
{
    struct stat st = {0};
    int rc = 0;
    for (uint64_t since = clock_ns(); rc == 0 && (stat(path, &st) < 0 || st.st_size == 0);)
        rc = clock_ns() - since < DEAD_NS ? go_on_for(f, MS) : fail("fabctl", "it says nothing");
    return rc;
}

/* All four, fabctl in the middle of what it was just started for, the worker with tasks of ours. */
static int stop_all(fab_t *f, const char *build, const char *lines, pid_t pid[4])
{
    char *fabctl[] = {"fabctl",  "submit",  "--server", fx.remote, "--key-file", fx.key,
                      "--count", COUNT,     "feb",      "5",       NULL};
    int rc = go_on_for(f, 3 * SECOND);
    pid[3] = start_program(build, "fabctl", fabctl, lines);
    rc = rc ? rc : await_line(f, lines);
    for (int i = 1; i < 4 && rc == 0; i++)
        rc = stop(pid[i]);
    return rc ? rc : stop_holding(f, pid[0]);
}

static int minute(fab_t *f, uint64_t ns, const pid_t pid[4])
{
    struct producer *p = &s->producer[STOPPED];
    uint32_t had[HOLDS];
    int rc = 0;
    uint64_t at = clock_ns(), before = at_load(&p->answered);
    for (uint32_t i = 0; i < HOLDS; i++)
        had[i] = at_load(&s->holding[i]);
    printf("stopped for %llu s, a worker with %u of our tasks\n", (unsigned long long)(ns / SECOND), held());
    rc = rc ? rc : go_on_for(f, ns);
    rc = rc ? rc : check_minute(at, clock_ns() - LATE_NS, had);
    if (rc == 0 && at_load(&p->answered) != before)
        rc = fail("the stopped producer", "it was not stopped");
    for (int i = 0; i < 4; i++)
        kill(pid[i], SIGCONT);
    rc = rc ? rc : await_back(f);
    return rc ? rc : go_on_for(f, 3 * SECOND);
}

/* Every line is feb(5). */
static int check_lines(const char *path)
{
    char line[64];
    unsigned long n = 0;
    FILE *in = fopen(path, "r");
    while (in && fgets(line, sizeof line, in) && strcmp(line, "7\n") == 0)
        n++;
    bool whole = in && feof(in) && n == strtoul(COUNT, NULL, 10);
    if (in)
        fclose(in);
    return whole ? 0 : fail("fabctl", "it has not printed every result once");
}

/* The workers of this program leave: fabworker alone is there, which was stopped. */
static int end_of_all(fab_t *f, const pid_t pid[4], const pid_t other[2], const char *lines)
{
    struct producer *p = &s->producer[MINE];
    at_store(&s->first_only, 1);
    int rc = go_on_for(f, SECOND);
    at_store(&s->work_no_more, 1);
    rc = rc ? rc : await_end(pid[0], "the worker") + await_end(other[0], "the first worker") +
                  await_end(other[1], "the second worker");
    uint32_t from = at_load(&p->answered);
    rc = rc ? rc : go_on_for(f, SECOND);
    if (rc == 0 && at_load(&p->answered) - from < 10)
        rc = fail("fabworker", "it does not work any more");
    at_store(&s->produce_no_more, 1);
    for (uint64_t since = clock_ns(); rc == 0 && at_load(&p->answered) < p->submitted;)
        rc = clock_ns() - since > DEAD_NS ? fail("our tasks", "some have no answer") : go_on_for(f, 10 * MS);
    rc = rc ? rc : await_end(pid[2], "the producer");
    rc = rc ? rc : await_end(pid[3], "fabctl");
    rc = rc ? rc : check_lines(lines);
    printf("  %u and %u tasks answered once each, %u of ours run again, and " COUNT " of fabctl\n", at_load(&p->answered),
           at_load(&s->producer[STOPPED].answered), p->again);
    return rc;
}

static int run(const char *build, uint64_t ns)
{
    char lines[128];
    snprintf(lines, sizeof lines, "%s/lines", fx.dir);
    char *fabworker[] = {"fabworker", "--cores", "0", "--server", fx.remote, "--key-file", fx.key, NULL};
    fab_t *f;
    s->producer[STOPPED].who = STOPPED;
    pid_t other[2] = {start(first_worker), start(second_worker)};
    pid_t pid[4] = {start(stopped_worker), start_program(build, "fabworker", fabworker, "/dev/null"),
                    start(stopped_producer)};
    int rc = open_handle(&f, FAB_PRODUCER, "stopped");
    if (rc)
        return rc;
    rc = stop_all(f, build, lines, pid);
    rc = rc ? rc : minute(f, ns, pid);
    rc = rc ? rc : end_of_all(f, pid, other, lines);
    fab_close(f);
    for (int i = 0; i < 4 && rc; i++)
        child_stop(pid[i]);
    for (int i = 0; i < 2 && rc; i++)
        child_stop(other[i]);
    if (rc == 0 && kill(pid[1], SIGTERM) == 0)
        rc = await_end(pid[1], "fabworker");
    return rc;
}

int main(int argc, char **argv)
{
    long seconds = argc > 2 ? atol(argv[2]) : 60;
    if (argc < 2 || argc > 3 || seconds < 13 || seconds > 65) {
        fprintf(stderr, "usage: stopped BUILD_DIR [SECONDS, 13 to 65]\n");
        return 2;
    }
    s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED || fixture_start(&fx, argv[1], QUEUES) < 0) {
        fprintf(stderr, "stopped: %s\n", fab_errmsg());
        return 1;
    }
    int rc = run(argv[1], (uint64_t)seconds * SECOND);
    int status = fixture_stop(&fx);
    if (rc == 0 && !(WIFEXITED(status) && WEXITSTATUS(status) == 0))
        rc = fail("fabricd", "it did not end well");
    return rc;
}
