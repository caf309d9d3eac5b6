/* SPDX-License-Identifier: MIT
 *
 * driver.c - see peer.h.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "bench/peers/peer.h"

#define ARGS        64u
#define SAMPLES_MAX 1000000u
#define WORKER      "--worker"
#define STOP        (-1) /* the argument that ends a one-way series */

static const struct peer_step usual_steps[] = {{1, 64},     {8, 64},      {32, 128}, {128, 512},
                                               {512, 2048}, {1024, 4096}, {0, 0}};
static uint64_t table[ARGS];
static const char *self;
static double seconds;

void peer_die(const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "%s: ", self);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    _exit(1);
}

static void too_slow(int sig)
{
    static const char text[] = "peer: no answer for too long\n";
    (void)sig;
    (void)!write(2, text, sizeof text - 1);
    _exit(1);
}

static void fill_table(void)
{
    static const uint64_t first[5] = {1, 1, 2, 3, 5};
    for (unsigned i = 0; i < ARGS; i++)
        table[i] = i < 5 ? first[i] : table[i - 1] + table[i - 2] - table[i - 5];
    if (table[48] != 106373551)
        peer_die("feb(48) is wrong");
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- the worker ---- */

uint64_t peer_feb(int64_t n)
{
    if (n < 0 || n >= (int64_t)ARGS)
        peer_die("the worker: a wrong task, %lld", (long long)n);
    return table[n];
}

static void work(const struct peer_ops *ops, const struct peer_run *r, void *p)
{
    int64_t arg[PEER_BATCH_MAX];
    uint64_t answer[PEER_BATCH_MAX], count = 0;
    if (ops->work)
        ops->work(p);
    for (;;) {
        unsigned n = ops->get(p, arg, r->batch);
        if (n == 0)
            return; /* only where both sides were started by somebody else */
        for (unsigned i = 0; i < n && arg[i] != STOP; i++, count++) {
            answer[i] = peer_feb(arg[i]);
            if (ops->one_way && arg[i] != (int64_t)(count % ARGS))
                peer_die("the worker: task %llu is lost", (unsigned long long)count);
        }
        if (!ops->one_way)
            ops->put(p, answer, n);
        else if (arg[n - 1] == STOP)
            ops->put(p, &count, 1);
    }
}

/* The worker is this program anew, since some libraries do not bear a fork. It reads the run when
 * the producer's side is open, and writes a byte when its own is. */
static int start_worker(const struct peer_run *r, int *io)
{
    int s[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s) < 0)
        peer_die("a socket pair: %s", strerror(errno));
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        peer_die("fork: %s", strerror(errno));
    if (pid == 0) {
        char fd[16];
        int theirs = dup(s[1]); /* without CLOEXEC */
        snprintf(fd, sizeof fd, "%d", theirs);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            execl("/proc/self/exe", self, WORKER, r->mode, r->address, fd, (char *)NULL);
        _exit(1);
    }
    close(s[1]);
    *io = s[0];
    return pid;
}

static int worker_main(char **argv, const struct peer_ops *(*choose)(const char *mode))
{
    const struct peer_ops *ops = choose(argv[2]);
    struct peer_run r;
    int io = atoi(argv[4]);
    if (!ops || read(io, &r, sizeof r) != sizeof r)
        return 1;
    r.mode = argv[2];
    r.address = argv[3];
    void *p = ops->open(&r, true);
    if (write(io, "!", 1) != 1)
        return 1;
    work(ops, &r, p);
    return 1;
}

/* ---- the producer ---- */

struct series {
    const struct peer_ops *ops;
    void *p;
    uint64_t sent, got;
};

static void send_tasks(struct series *s, unsigned n)
{
    int64_t arg[PEER_BATCH_MAX];
    for (unsigned i = 0; i < n; i++)
        arg[i] = (int64_t)((s->sent + i) % ARGS);
    s->ops->send(s->p, arg, n);
    s->sent += n;
}

static unsigned take_answers(struct series *s, unsigned max)
{
    uint64_t answer[PEER_BATCH_MAX];
    unsigned n = s->ops->take(s->p, answer, max < PEER_BATCH_MAX ? max : PEER_BATCH_MAX);
    for (unsigned i = 0; i < n; i++, s->got++)
        if (answer[i] != table[s->got % ARGS])
            peer_die("a wrong answer: %llu to feb(%llu)", (unsigned long long)answer[i],
                     (unsigned long long)(s->got % ARGS));
    return n;
}

static int by_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void measure_rtt(struct series *s, double *p50, double *p99)
{
    uint64_t *ns = calloc(SAMPLES_MAX, sizeof *ns), n = 0;
    double start = now(), warm = start + seconds / 5, end = start + seconds * 1.2, from = start, to;
    if (!ns)
        peer_die("no memory");
    while ((from < end || n < 100) && n < SAMPLES_MAX) {
        from = now();
        send_tasks(s, 1);
        take_answers(s, 1);
        to = now();
        if (from >= warm)
            ns[n++] = (uint64_t)((to - from) * 1e9);
    }
    qsort(ns, n, sizeof *ns, by_u64);
    *p50 = (double)ns[n / 2];
    *p99 = (double)ns[n * 99 / 100];
    free(ns);
}

static double measure_rate(struct series *s, const struct peer_run *r)
{
    double start = now(), warm = start + seconds / 5, end = 0, t = start;
    uint64_t base = 0;
    while (end == 0 || t < end) {
        while (s->sent - s->got + r->batch <= r->window)
            send_tasks(s, r->batch);
        take_answers(s, (unsigned)(s->sent - s->got));
        t = now();
        if (end == 0 && t >= warm) {
            base = s->got;
            start = t;
            end = t + seconds;
        }
    }
    double rate = (double)(s->got - base) / (t - start);
    while (s->got < s->sent)
        take_answers(s, (unsigned)(s->sent - s->got));
    return rate;
}

/* Tasks out as fast as they go; counted when the worker says how many came in. */
static double measure_one_way(struct series *s, const struct peer_run *r)
{
    static const int64_t stop = STOP;
    uint64_t count;
    double start = now(), t = start;
    while (t < start + seconds) {
        for (int i = 0; i < 64; i++)
            send_tasks(s, r->batch);
        t = now();
    }
    s->ops->send(s->p, &stop, 1);
    while (s->ops->take(s->p, &count, 1) != 1)
        ;
    if (count != s->sent)
        peer_die("%llu of %llu tasks came in", (unsigned long long)count,
                 (unsigned long long)s->sent);
    return (double)count / (now() - start);
}

/* ---- a series with both its sides ---- */

struct figures {
    double p50, p99, rate;
    unsigned batch, window;
};

static void produce(struct series *s, const struct peer_run *r, bool rtt, struct figures *f)
{
    double rate;
    if (rtt) {
        measure_rtt(s, &f->p50, &f->p99);
        return;
    }
    rate = s->ops->one_way ? measure_one_way(s, r) : measure_rate(s, r);
    if (rate > f->rate) {
        f->rate = rate;
        f->batch = r->batch;
        f->window = r->window;
    }
}

static void one_series(const struct peer_ops *ops, struct peer_run *r, bool rtt, struct figures *f)
{
    struct series s = {.ops = ops};
    bool together = ops->is_worker != NULL;
    char ok = 0;
    int io = -1, pid = together ? 0 : start_worker(r, &io);
    alarm((unsigned)(seconds * 4) + 20);
    s.p = ops->open(r, together && ops->is_worker());
    if (together && ops->is_worker()) {
        work(ops, r, s.p);
    } else {
        if (!together && (write(io, r, sizeof *r) != sizeof *r || read(io, &ok, 1) != 1))
            peer_die("the worker did not start");
        produce(&s, r, rtt, f);
    }
    if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        close(io);
    }
    ops->close(s.p);
    alarm(0);
}

int peer_main(int argc, char **argv, const struct peer_ops *(*choose)(const char *mode))
{
    const struct peer_ops *ops;
    struct figures f = {0};
    self = argv[0];
    signal(SIGPIPE, SIG_IGN);
    fill_table();
    if (argc == 5 && strcmp(argv[1], WORKER) == 0)
        return worker_main(argv, choose);
    ops = argc == 4 ? choose(argv[1]) : NULL;
    seconds = argc == 4 ? atof(argv[3]) : 0;
    if (!ops || !(seconds > 0)) {
        fprintf(stderr, "Usage: %s MODE ADDRESS SECONDS (bench/peers/run starts it)\n", argv[0]);
        return 2;
    }
    signal(SIGALRM, too_slow);
    const struct peer_step *step = ops->step ? ops->step : usual_steps;
    struct peer_run r = {.mode = argv[1], .address = argv[2], .batch = 1, .window = 1};
    snprintf(r.name, sizeof r.name, "rtt-%d", (int)getpid());
    if (!ops->one_way)
        one_series(ops, &r, true, &f);
    for (unsigned i = 0; step[i].batch; i++) {
        r.batch = step[i].batch;
        r.window = step[i].window;
        snprintf(r.name, sizeof r.name, "rate%u-%d", i, (int)getpid());
        one_series(ops, &r, false, &f);
    }
    if (ops->is_worker && ops->is_worker())
        return 0;
    printf("{");
    if (!ops->one_way)
        printf("\"rtt_p50_ns\": %.0f, \"rtt_p99_ns\": %.0f, ", f.p50, f.p99);
    printf("\"throughput\": %.0f, \"batch\": %u, \"window\": %u}\n", f.rate, f.batch, f.window);
    return 0;
}
