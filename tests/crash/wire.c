/* SPDX-License-Identifier: MIT
 *
 * wire.c - a wire that goes and comes again under a stream of tasks. fabricd is on one host, a
 * producer and a worker are on another, and what is between them drops all packets for a while:
 * sockets stay open, nobody is told. Every task must be answered once, rightly, and work must go on
 * soon after the wire does.
 *
 * Usage: wire BUILD_DIR [MODE [TIMES [TASKS [SEED]]]]
 *   both     (the default) the wire drops both ways, for 50 ms to 1.5 s, now and then for up to 4 s
 *   from-a   only what fabricd says is dropped
 *   from-b   only what it is told
 *   restart  fabricd is killed meanwhile, and started again: its host hears no end of connections
 *   hold     as both, with tasks of 20 ms, of which the worker has one at a time: it ends while the
 *            wire is away, and its result must be told afterwards, not the task be run again
 *   hold-both  the same with a worker whose handle produces, too (wire_both.h)
 *   slow     the wire stays; another producer and another worker on host B are stopped in the
 * middle of their work, for 3 s: the stream must not be, though both hold what is not theirs
 *   stopped  the wire stays; fabricd is stopped (SIGSTOP) for 15 s, and must find no crowd at its
 *            gate afterwards
 *
 * The n-th time comes when n parts of TIMES + 1 are answered. Measured are, from the moment the
 * wire is there again, the first answer, and the first answer to a task that was submitted after
 * it.
 *
 * Threads: one has the stream, one the wire. 77: skipped, where network namespaces can't be made.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "bench/fixture.h"
#include "core/atomic.h"
#include "core/clock.h"
#include "core/fabric.h"
#include "tests/crash/wire_both.h"
#include "tests/crash/wire_net.h"

#define SECOND   1000000000ull
#define MS       1000000ull
#define NAPS     (t.mode == HOLD || t.mode == HOLD_BOTH)
#define WINDOW   (NAPS ? 8u : 2048u)
#define BATCH    64u
#define RESERVE  (WINDOW < 2 * BATCH ? WINDOW / 2 : BATCH)
#define FEB_48   106373551u
#define WAIT_NS  (20 * MS)
#define LOST_NS  (60 * SECOND)
#define HOLD_NS  (20 * MS)
#define SLOW_NS  (500 * MS)
#define CROWD    20 /* of two handles, in 15 s */
/* Instrumented code says nothing about the bar. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define LIMIT_NS (1000 * MS)
#else
#define LIMIT_NS (100 * MS)
#endif

enum mode { BOTH, FROM_A, FROM_B, RESTART, HOLD, HOLD_BOTH, SLOW, STOPPED, MODES };
static const char *const mode_names[MODES] = {"both", "from-a",    "from-b", "restart",
                                              "hold", "hold-both", "slow",   "stopped"};

static struct {
    const char *build;
    enum mode mode;
    unsigned times;
    uint64_t seed;
    struct fixture fx;
    fab_t *f;
    uint64_t tasks, submitted, answered, again;
    uint8_t *seen;
    /* between the threads */
    _Atomic uint32_t due;   /* the stream asks for the wire to go: how often so far */
    _Atomic uint64_t up_at; /* the wire is there again since then; 0: not, or it has been seen */
    _Atomic uint32_t failed;
    pthread_mutex_t lock;
    pthread_cond_t asked;
    /* the stream's */
    bool waiting, progressed;
    uint64_t back_at, first_after;
    uint64_t answered_at, longest; /* the longest time without an answer */
    pid_t other[2];                /* SLOW: a producer and a worker */
    struct both *both;             /* HOLD_BOTH */
    uint64_t *first, *later;       /* by time: to the first answer, and to that of a later task */
    unsigned n;
} t = {.lock = PTHREAD_MUTEX_INITIALIZER, .asked = PTHREAD_COND_INITIALIZER};

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "wire: %s: %s\n", what, why);
    return 1;
}

static uint64_t roll(uint64_t below)
{
    t.seed ^= t.seed << 13;
    t.seed ^= t.seed >> 7;
    t.seed ^= t.seed << 17;
    return t.seed % below;
}

static void pause_for(uint64_t ns)
{
    struct timespec s = {.tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND)};
    while (nanosleep(&s, &s) < 0 && errno == EINTR)
        ;
}

/* ---- processes ---- */

static pid_t start(enum wire_host h, const char *program, char *const argv[], int err)
{
    char path[512];
    snprintf(path, sizeof path, "%s/apps/%s", t.build, program);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(err, 1);
        dup2(err, 2);
        if (wire_enter(h) == 0)
            execv(path, argv);
        _exit(127);
    }
    return pid;
}

static pid_t start_worker(void)
{
    char *argv[] = {"fabworker", "--cores",    "0",      "--server",
                    t.fx.remote, "--key-file", t.fx.key, NULL};
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    pid_t pid = start(WIRE_HOST_B, "fabworker", argv, null);
    close(null);
    return pid;
}

static pid_t start_both(void)
{
    pid_t pid = -1;
    t.both = mmap(NULL, sizeof *t.both, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (t.both != MAP_FAILED && (pid = fork()) == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(wire_enter(WIRE_HOST_B) < 0 ? 127 : both_run(t.both, t.fx.remote, t.fx.key));
    }
    return pid;
}

/* It has kept its leases, and its own tasks were answered. */
static int end_both(pid_t pid, bool well)
{
    const struct both *b = t.both;
    int status;
    at_store(&t.both->stop, 1);
    if (!well)
        kill(pid, SIGKILL); /* it may wait for ever */
    if (waitpid(pid, &status, 0) != pid || !well)
        return 1;
    if (status != 0)
        return fail("the handle that is both", b->why[0] ? b->why : "killed");
    printf("  the handle that is both: %llu leases ended, %llu of them too late; of its %llu own tasks %llu "
           "run again\n",
           (unsigned long long)b->ended, (unsigned long long)b->late,
           (unsigned long long)b->answered, (unsigned long long)b->again);
    return (b->late + b->again) * 4 > t.times ? fail("it has lost its leases", "") : 0;
}

/* Somebody else's producer and worker, who want as much as they can get. */
static void start_others(void)
{
    char *argv[] = {"fabctl",  "submit",     "--server", t.fx.remote, "--key-file", t.fx.key,
                    "--count", "1000000000", "feb",      "48",        NULL};
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    t.other[0] = start(WIRE_HOST_B, "fabctl", argv, null);
    t.other[1] = start_worker();
    close(null);
}

/* The producer takes back what it has asked for, so that nothing is kept for it. */
static void end_others(void)
{
    if (t.other[0] > 0 && kill(t.other[0], SIGINT) == 0)
        waitpid(t.other[0], NULL, 0);
    child_stop(t.other[1]);
}

static int signal_others(int signal)
{
    return kill(t.other[0], signal) < 0 || kill(t.other[1], signal) < 0 ? -errno : 0;
}

/* Until it says that it is ready; its later writes fail, and that is all. */
static int await_ready(int fd)
{
    char text[4096] = "";
    size_t n = 0;
    ssize_t got;
    while (!strstr(text, ": ready on ") && n < sizeof text - 1 &&
           (got = read(fd, text + n, sizeof text - 1 - n)) > 0)
        text[n += (size_t)got] = 0;
    return strstr(text, ": ready on ") ? 0 : -EIO;
}

/* fabricd again, with what it had. */
static int restart(void)
{
    char conf[128];
    int err[2];
    snprintf(conf, sizeof conf, "%s/node.toml", t.fx.dir);
    char *argv[] = {"fabricd", "-c", conf, NULL};
    kill(t.fx.pid, SIGKILL);
    waitpid(t.fx.pid, NULL, 0);
    if (pipe2(err, O_CLOEXEC) < 0)
        return -errno;
    t.fx.pid = start(WIRE_HOST_A, "fabricd", argv, err[1]);
    close(err[1]);
    int rc = await_ready(err[0]);
    close(err[0]);
    return rc;
}

/* ---- the wire ---- */

static uint64_t outage(unsigned i)
{
    if (t.mode == STOPPED || t.mode == SLOW)
        return t.mode == SLOW ? 3 * SECOND : 15 * SECOND;
    return i % 20 == 19 ? 2 * SECOND + roll(2 * SECOND) : 50 * MS + roll(1450 * MS);
}

static int go_and_come(unsigned i)
{
    int rc = 0;
    pause_for(roll(2 * MS));
    if (t.mode == STOPPED)
        kill(t.fx.pid, SIGSTOP);
    else if (t.mode == SLOW)
        rc = signal_others(SIGSTOP);
    else
        rc = wire_set(t.mode == FROM_B, t.mode == FROM_A);
    if (rc == 0 && t.mode == RESTART)
        rc = restart();
    pause_for(outage(i));
    if (t.mode == STOPPED)
        kill(t.fx.pid, SIGCONT);
    else if (t.mode == SLOW)
        rc = signal_others(SIGCONT);
    else if (rc == 0)
        rc = wire_set(true, true);
    at_store(&t.up_at, clock_ns());
    return rc;
}

static void *wire_main(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < t.times; i++) {
        pthread_mutex_lock(&t.lock);
        while (at_load(&t.due) <= i)
            pthread_cond_wait(&t.asked, &t.lock);
        pthread_mutex_unlock(&t.lock);
        if (go_and_come(i) < 0)
            at_store(&t.failed, 1);
    }
    /* a fabricd that this thread has started ends with it */
    pthread_mutex_lock(&t.lock);
    while (at_load(&t.due) <= t.times)
        pthread_cond_wait(&t.asked, &t.lock);
    pthread_mutex_unlock(&t.lock);
    return NULL;
}

static void ask_for_wire(unsigned n)
{
    pthread_mutex_lock(&t.lock);
    at_store(&t.due, n);
    pthread_cond_signal(&t.asked);
    pthread_mutex_unlock(&t.lock);
}

/* ---- the stream ---- */

static int submit_some(void)
{
    static uint64_t arg = 48, nap = HOLD_NS;
    struct fab_task task[BATCH];
    /* room is left for what is submitted after the wire has come back */
    uint64_t window = t.waiting || at_load(&t.due) == t.n ? WINDOW : WINDOW - RESERVE;
    /* and enough for the times to come */
    uint64_t part = t.tasks / (t.times + 1), end = t.n + 2 < t.times ? (t.n + 2) * part : t.tasks;
    if (t.mode == SLOW) /* as many as it takes */
        end = t.n == t.times ? t.submitted : t.tasks;
    end += t.waiting && end + WINDOW < t.tasks ? WINDOW : 0;
    size_t n = 0;
    while (n < BATCH && t.submitted + n < end && t.submitted + n - t.answered < window) {
        task[n] = (struct fab_task){.kernel = fab_kernel_id(NAPS ? "sleep" : "feb"),
                                    .arg = NAPS ? &nap : &arg,
                                    .len = 8,
                                    .tag = t.submitted + n};
        n++;
    }
    if (n == 0)
        return 0;
    long k = fab_submit(t.f, task, n, NULL, 0);
    if (k > 0)
        t.submitted += (uint64_t)k;
    return k >= 0 || k == -EAGAIN ? 0 : fail("submit", fab_errmsg());
}

static int take(const struct fab_outcome *o)
{
    uint32_t v = 0;
    if (o->tag >= t.tasks || t.seen[o->tag])
        return fail("a task is answered twice", "");
    memcpy(&v, fab_data(o), o->len < 4 ? o->len : 4);
    if (o->status != FAB_COMPLETED || (!NAPS && v != FEB_48)) {
        fprintf(stderr, "wire: task %llu: status %u after %u attempts\n",
                (unsigned long long)o->tag, o->status, o->attempts);
        return 1;
    }
    uint64_t now = clock_ns(), pause = t.answered ? now - t.answered_at : 0;
    t.longest = pause > t.longest ? pause : t.longest;
    t.answered_at = now;
    t.seen[o->tag] = 1;
    t.again += o->attempts > 1;
    t.answered++;
    if (t.waiting && !t.progressed) {
        t.first[t.n] = clock_ns() - t.back_at;
        t.progressed = true;
    }
    if (t.waiting && o->tag >= t.first_after) {
        t.later[t.n++] = clock_ns() - t.back_at;
        t.waiting = false;
    }
    return 0;
}

static int go_on(void)
{
    struct fab_outcome o[BATCH];
    uint64_t up = at_load(&t.up_at);
    if (up) {
        at_store(&t.up_at, 0);
        t.back_at = up;
        t.first_after = t.submitted;
        t.waiting = true;
        t.progressed = false;
    }
    int rc = submit_some();
    if (rc)
        return rc;
    long n = fab_wait_any(t.f, o, BATCH, (int64_t)WAIT_NS);
    if (n == -ETIMEDOUT || n == -ENOENT)
        return 0;
    if (n < 0)
        return fail("nothing is answered any more", fab_errmsg());
    for (long i = 0; i < n; i++)
        if ((rc = take(&o[i])))
            return rc;
    return 0;
}

static int run(void)
{
    uint64_t moved_at = clock_ns(), before = 0;
    while (t.answered < (t.mode == SLOW && t.n == t.times ? t.submitted : t.tasks)) {
        int rc = at_load(&t.failed) ? fail("the wire", wire_why()) : go_on();
        if (rc)
            return rc;
        if (t.answered != before)
            moved_at = clock_ns();
        before = t.answered;
        if (clock_ns() - moved_at > LOST_NS)
            return fail("nothing is answered for a minute", "");
        if (t.n < t.times && at_load(&t.due) == t.n &&
            t.answered >= (t.n + 1) * (t.tasks / (t.mode == SLOW ? 100 : t.times + 1)))
            ask_for_wire(t.n + 1);
    }
    return 0;
}

/* ---- the report ---- */

static int by_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static unsigned line(const char *what, uint64_t *ns)
{
    unsigned over = 0;
    qsort(ns, t.n, sizeof *ns, by_u64);
    for (unsigned i = 0; i < t.n; i++)
        over += ns[i] >= LIMIT_NS;
    printf("  %-40s p50 %.1f ms, p90 %.1f ms, at most %.1f ms; %u of %u over %llu ms\n", what,
           (double)ns[t.n / 2] / 1e6, (double)ns[t.n * 9 / 10] / 1e6, (double)ns[t.n - 1] / 1e6,
           over, t.n, LIMIT_NS / MS);
    return over;
}

/* Connections at fabricd's gate that came to nothing; negative: it does not say. */
static long refused(void)
{
    char *text, *at;
    long sum = 0;
    if (fab_status_json(t.f, &text, 5 * (int64_t)SECOND) < 0 || !(at = strstr(text, "\"refused\"")))
        return -1;
    for (at = strchr(at, '{'); at && *at && *at != '}'; at++)
        if (*at >= '0' && *at <= '9')
            sum += strtol(at, &at, 10), at--;
    free(text);
    return sum;
}

static int report(void)
{
    unsigned over;
    if (t.n < t.times)
        return fail("the stream was over before the wire had come back", "");
    printf("%s, %u times in %llu tasks: 0 lost, 0 answered twice, %llu run again\n",
           mode_names[t.mode], t.n, (unsigned long long)t.tasks, (unsigned long long)t.again);
    over = line("from the wire to the first answer:", t.first);
    if (NAPS) /* that waits for those before it */
        (void)line("to that of a task submitted after it:", t.later);
    else
        over = line("to that of a task submitted after it:", t.later);
    if (t.mode == SLOW) {
        printf("  the longest time without an answer: %.1f ms\n", (double)t.longest / 1e6);
        over = t.longest > SLOW_NS ? t.n : 0;
    }
    long crowd = refused();
    printf("  %ld connections were tried and given up\n", crowd);
    if (crowd < 0 || (t.mode == STOPPED && crowd > CROWD))
        return fail("a crowd at fabricd's gate", fab_errmsg());
    if (NAPS && t.again * 4 > t.n)
        return fail("tasks that were ended while the wire was away were run again", "");
    /* of a few times one: on a busy machine that is the scheduler's */
    return over > (t.n < 20 ? 1 : t.n / 10) ? fail("more than a tenth is over the bar", "") : 0;
}

static int stream(void)
{
    struct fab_options o = {.roles = FAB_PRODUCER, .name = "wire", .key_file = t.fx.key};
    pthread_t wire;
    int rc;
    if (wire_enter(WIRE_HOST_B) < 0)
        return fail("the wire", wire_why());
    if (fab_open(&t.f, t.fx.remote, &o) < 0)
        return fail("open", fab_errmsg());
    if (pthread_create(&wire, NULL, wire_main, NULL))
        return fail("a thread", strerror(errno));
    rc = run();
    if (rc == 0)
        rc = report();
    fab_close(t.f);
    return rc;
}

static int usage(void)
{
    fprintf(stderr, "usage: wire BUILD_DIR [both|from-a|from-b|restart|hold|hold-both|slow|stopped [TIMES "
                    "[TASKS, at least "
                    "10 a time [SEED]]]]\n");
    return 2;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return usage();
    t.build = argv[1];
    while (argc > 2 && t.mode < MODES && strcmp(argv[2], mode_names[t.mode]) != 0)
        t.mode++;
    t.times = argc > 3 ? (unsigned)atoi(argv[3]) : 8;
    t.tasks = argc > 4 ? strtoull(argv[4], NULL, 10) : 100000;
    t.seed = argc > 5 ? strtoull(argv[5], NULL, 10) : 1;
    if (t.mode == MODES || t.times < 1 || t.tasks < t.times * 10ull || t.seed == 0)
        return usage();
    if (wire_open() < 0) {
        fprintf(stderr, "skipped: no network namespaces here: %s\n", wire_why());
        return 77;
    }
    t.seen = calloc(t.tasks, 1);
    t.first = calloc(t.times, sizeof *t.first);
    t.later = calloc(t.times, sizeof *t.later);
    if (!t.seen || !t.first || !t.later)
        return fail("memory", "there is none");
    if (wire_enter(WIRE_HOST_A) < 0 || fixture_start_on(&t.fx, t.build, "tcp", WIRE_A, "") < 0)
        return fail("fabricd", fab_errmsg());
    pid_t worker = t.mode == HOLD_BOTH ? start_both() : start_worker();
    if (t.mode == SLOW)
        start_others();
    int rc = stream();
    end_others();
    if (t.mode != HOLD_BOTH)
        child_stop(worker);
    else if (end_both(worker, rc == 0) && rc == 0)
        rc = 1;
    kill(t.fx.pid, SIGCONT);
    int status = fixture_stop(&t.fx);
    if (rc == 0 && !(WIFEXITED(status) && WEXITSTATUS(status) == 0))
        rc = fail("fabricd did not end well", "");
    return rc;
}
