/* SPDX-License-Identifier: MIT
 *
 * test_loop.c - the event loop: descriptors, accepting, timers, stopping at the worst moment.
 */
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include "core/clock.h"
#include "transport/loop.h"
#include "unit.h"

#define MS 1000000ll

static struct loop *loop;

static void open_loop(uint32_t sources)
{
    int rc = loop_open(&loop, sources);
    cr_assert_eq(rc, 0, "%s", err_text(rc));
}

struct note {
    struct loop_src src;
    int calls, last;
    struct loop_src *stop; /* stopped by the callback */
};

static void on_event(struct loop_src *src, int result)
{
    struct note *n = src->owner;
    n->calls++;
    n->last = result;
    if (n->stop)
        loop_stop(loop, n->stop);
}

/* Runs the loop until *what is at least n, five seconds at most. */
static void run_until(const int *what, int n)
{
    uint64_t end = clock_ns() + 5 * (uint64_t)UNIT_SECOND;
    while (*what < n && clock_ns() < end)
        cr_assert_geq(loop_run(loop, 100 * MS), 0);
    cr_assert_geq(*what, n);
}

static void watch(struct note *n, int fd, bool once)
{
    n->src.owner = n;
    int rc = loop_watch(loop, &n->src, fd, POLLIN, once, on_event);
    cr_assert_eq(rc, 0, "%s", err_text(rc));
}

static void say(int fd)
{
    cr_assert_eq(write(fd, "x", 1), 1);
}

static void hear(int fd)
{
    char c[64];
    cr_assert_gt(read(fd, c, sizeof c), 0);
}

/* ---- descriptors ---- */

Test(loop, a_watched_descriptor_calls_again_and_again)
{
    int p[2];
    struct note n = {0};
    open_loop(4);
    cr_assert_eq(pipe(p), 0);
    watch(&n, p[0], false);
    cr_assert_eq(loop_run(loop, 0), 0, "nothing to read yet");
    for (int i = 1; i <= 50; i++) {
        say(p[1]);
        run_until(&n.calls, i);
        cr_assert(n.last > 0 && n.last & POLLIN, "%x", (unsigned)n.last);
        hear(p[0]);
    }
    cr_assert_neq(n.src.slot, 0);
    close(p[1]);
    run_until(&n.calls, n.calls + 1);
    cr_assert(n.last & POLLHUP, "%x", (unsigned)n.last);
    loop_stop(loop, &n.src);
    cr_assert_eq(n.src.slot, 0);
    close(p[0]);
    loop_close(loop);
}

Test(loop, once_is_once)
{
    int p[2];
    struct note n = {0};
    open_loop(4);
    cr_assert_eq(pipe(p), 0);
    for (int i = 1; i <= 3; i++) {
        watch(&n, p[0], true);
        say(p[1]);
        run_until(&n.calls, i);
        cr_assert_eq(n.src.slot, 0, "it is stopped");
        say(p[1]);
        cr_assert_eq(loop_run(loop, 10 * MS), 0);
        hear(p[0]);
    }
    loop_stop(loop, &n.src); /* no-op */
    close(p[0]);
    close(p[1]);
    loop_close(loop);
}

Test(loop, a_bad_descriptor_is_told_to_its_callback)
{
    struct note n = {0};
    open_loop(4);
    watch(&n, 1000000, false);
    run_until(&n.calls, 1);
    cr_assert_eq(n.last, -EBADF);
    cr_assert_eq(loop_run(loop, 20 * MS), 0, "once, not for ever");
    loop_stop(loop, &n.src);
    loop_close(loop);
}

Test(loop, many_at_once)
{
    enum { N = 500 };
    static struct note n[N];
    int p[2];
    open_loop(N);
    cr_assert_eq(pipe(p), 0);
    for (int i = 0; i < N; i++)
        watch(&n[i], p[0], false);
    say(p[1]);
    uint64_t end = clock_ns() + 5 * (uint64_t)UNIT_SECOND;
    int called = 0;
    while (called < N && clock_ns() < end) {
        cr_assert_geq(loop_run(loop, 100 * MS), 0);
        called = 0;
        for (int i = 0; i < N; i++)
            called += n[i].calls > 0;
    }
    cr_assert_eq(called, N);
    struct note more = {0};
    int rc = loop_watch(loop, &more.src, p[0], POLLIN, false, on_event);
    cr_assert_eq(rc, -ENOSPC);
    loop_stop(loop, &n[7].src);
    watch(&more, p[0], false);
    run_until(&more.calls, 1);
    loop_close(loop); /* with all of them still watched */
    close(p[0]);
    close(p[1]);
}

/* ---- stopping ---- */

/* Both are ready; whichever comes first stops the other, which must not be called any more. */
Test(loop, a_stopped_source_is_silent_though_its_event_is_there)
{
    int p[2], q[2];
    struct note a = {0}, b = {0};
    open_loop(4);
    cr_assert_eq(pipe(p), 0);
    cr_assert_eq(pipe(q), 0);
    for (int i = 0; i < 200; i++) {
        watch(&a, p[0], i & 1);
        watch(&b, q[0], i & 2);
        a.stop = &b.src;
        b.stop = &a.src;
        a.calls = b.calls = 0;
        cr_assert_eq(loop_run(loop, 0), 0); /* armed */
        say(p[1]);
        say(q[1]);
        for (int k = 0; k < 3; k++)
            (void)loop_run(loop, MS);
        cr_assert(a.calls == 0 || b.calls == 0, "round %d: %d and %d", i, a.calls, b.calls);
        cr_assert_gt(a.calls + b.calls, 0);
        hear(p[0]);
        hear(q[0]);
        loop_stop(loop, &a.src);
        loop_stop(loop, &b.src);
    }
    close(p[0]);
    close(p[1]);
    close(q[0]);
    close(q[1]);
    loop_close(loop);
}

/* What a connection's end does: stop, close, free; the next connection gets the same descriptor and
 * entry. */
Test(loop, descriptors_and_memory_may_be_used_again_at_once)
{
    open_loop(1);
    for (int i = 0; i < 2000; i++) {
        int p[2];
        struct note *n = calloc(1, sizeof *n);
        cr_assert_eq(pipe(p), 0);
        watch(n, p[0], false);
        if (i & 1) {
            (void)loop_run(loop, 0);
            say(p[1]);
        }
        if (i & 2)
            run_until(&n->calls, i & 1);
        loop_stop(loop, &n->src);
        memset(n, 0xee, sizeof *n); /* a late callback would jump into this */
        free(n);
        close(p[0]);
        close(p[1]);
    }
    while (loop_run(loop, MS) > 0)
        ;
    loop_close(loop);
}

static void stop_self(struct loop_src *src, int result)
{
    struct note *n = src->owner;
    n->calls++;
    n->last = result;
    loop_stop(loop, src);
}

Test(loop, a_callback_may_stop_its_own_source)
{
    int p[2];
    struct note n = {0};
    open_loop(2);
    cr_assert_eq(pipe(p), 0);
    n.src.owner = &n;
    for (int i = 1; i <= 10; i++) {
        cr_assert_eq(loop_watch(loop, &n.src, p[0], POLLIN, false, stop_self), 0);
        say(p[1]);
        run_until(&n.calls, i);
        say(p[1]);
        cr_assert_eq(loop_run(loop, 5 * MS), 0);
        cr_assert_eq(n.calls, i);
        hear(p[0]);
    }
    struct note t = {0};
    t.src.owner = &t;
    cr_assert_eq(loop_timer(loop, &t.src, MS, MS, stop_self), 0);
    run_until(&t.calls, 1);
    cr_assert_eq(loop_run(loop, 10 * MS), 0);
    cr_assert_eq(t.calls, 1, "a periodic timer, too");
    close(p[0]);
    close(p[1]);
    loop_close(loop);
}

/* ---- timers ---- */

static void timer(struct note *n, int64_t ns, int64_t period)
{
    n->src.owner = n;
    cr_assert_eq(loop_timer(loop, &n->src, (uint64_t)ns, (uint64_t)period, on_event), 0);
}

Test(loop, timers_come_in_time_and_in_order)
{
    struct note late = {0}, early = {0}, never = {0}, many = {0};
    open_loop(8);
    uint64_t start = clock_ns();
    timer(&late, 60 * MS, 0);
    timer(&early, 20 * MS, 0);
    timer(&never, 30 * MS, 0);
    timer(&many, 5 * MS, 5 * MS);
    loop_stop(loop, &never.src);
    run_until(&early.calls, 1);
    uint64_t took = clock_ns() - start;
    cr_assert(took >= 20 * MS && took < 1000 * MS, "%llu ns", (unsigned long long)took);
    run_until(&late.calls, 1);
    took = clock_ns() - start;
    cr_assert_geq(took, 60u * MS);
    run_until(&many.calls, 20);
    took = clock_ns() - start;
    cr_assert_geq(took, 95u * MS, "a period is a period: %llu ns", (unsigned long long)took);
    cr_assert_eq(late.last, 0);
    cr_assert_eq(many.last, 0);
    cr_assert(late.calls == 1 && early.calls == 1 && never.calls == 0);
    cr_assert_eq(late.src.slot, 0, "a single shot stops itself");
    loop_stop(loop, &many.src);
    int calls = many.calls;
    cr_assert_eq(loop_run(loop, 20 * MS), 0);
    cr_assert_eq(many.calls, calls);
    loop_close(loop);
}

/* ---- accepting ---- */

struct host {
    struct loop_src src;
    int fd[64], n;
};

static void on_accept(struct loop_src *src, int result)
{
    struct host *h = src->owner;
    cr_assert_geq(result, 0, "%d", result);
    h->fd[h->n++] = result;
}

static int listen_on(struct sockaddr_in *a)
{
    socklen_t len = sizeof *a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *a = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    cr_assert_eq(bind(fd, (struct sockaddr *)a, sizeof *a), 0);
    cr_assert_eq(listen(fd, 64), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)a, &len), 0);
    return fd;
}

static int connect_to(const struct sockaddr_in *a)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (const struct sockaddr *)a, sizeof *a), 0);
    return fd;
}

static int open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

Test(loop, accepts_all_who_come)
{
    struct sockaddr_in a;
    struct host h = {0};
    int client[30], fd = listen_on(&a);
    open_loop(4);
    h.src.owner = &h;
    cr_assert_eq(loop_accept(loop, &h.src, fd, on_accept), 0);
    for (int i = 0; i < 30; i++) {
        client[i] = connect_to(&a);
        if (i % 10 == 0)
            run_until(&h.n, i + 1);
    }
    run_until(&h.n, 30);
    for (int i = 0; i < 30; i++) {
        cr_assert(fcntl(h.fd[i], F_GETFL) & O_NONBLOCK);
        cr_assert(fcntl(h.fd[i], F_GETFD) & FD_CLOEXEC);
        say(h.fd[i]);
        close(h.fd[i]);
    }
    for (int i = 0; i < 30; i++) {
        hear(client[i]);
        close(client[i]);
    }
    loop_stop(loop, &h.src);
    close(fd);
    loop_close(loop);
}

/* A connection accepted by the kernel and not yet told when the source is stopped: it is closed,
 * not lost. */
Test(loop, stopping_to_accept_leaks_no_descriptor)
{
    struct sockaddr_in a;
    struct host h = {0};
    int fd = listen_on(&a);
    open_loop(4);
    h.src.owner = &h;
    int before = open_descriptors();
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(loop_accept(loop, &h.src, fd, on_accept), 0);
        cr_assert_eq(loop_run(loop, 0), 0);
        int client = connect_to(&a);
        loop_stop(loop, &h.src);
        (void)loop_run(loop, MS);
        cr_assert_eq(h.n, 0);
        close(client);
    }
    (void)loop_run(loop, 20 * MS);
    cr_assert_eq(open_descriptors(), before);
    loop_close(loop);
    close(fd);
}

/* ---- waiting ---- */

Test(loop, waits_as_long_as_it_is_told)
{
    open_loop(2);
    uint64_t start = clock_ns();
    cr_assert_eq(loop_run(loop, 30 * MS), 0);
    uint64_t took = clock_ns() - start;
    cr_assert(took >= 30 * MS && took < 1000 * MS, "%llu ns", (unsigned long long)took);
    start = clock_ns();
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(loop_run(loop, 0), 0);
    cr_assert_lt((int64_t)(clock_ns() - start), 100 * MS);
    loop_close(loop);
}

static void *wake_it(void *arg)
{
    (void)arg;
    usleep(20000);
    loop_wake(loop);
    return NULL;
}

Test(loop, another_thread_can_end_a_wait, .timeout = 20)
{
    pthread_t thread;
    open_loop(2);
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(pthread_create(&thread, NULL, wake_it, NULL), 0);
        cr_assert_geq(loop_run(loop, FAB_FOREVER), 0);
        pthread_join(thread, NULL);
    }
    loop_wake(loop); /* before it waits: the wait ends at once; many are like one */
    loop_wake(loop);
    cr_assert_geq(loop_run(loop, FAB_FOREVER), 0);
    while (loop_run(loop, MS) > 0)
        ;
    uint64_t start = clock_ns();
    cr_assert_eq(loop_run(loop, 20 * MS), 0);
    cr_assert_geq(clock_ns() - start, 20u * MS);
    loop_close(loop);
}

struct moved {
    struct note *n;
    int fd;
};

static void *run_elsewhere(void *arg)
{
    struct moved *m = arg;
    uint64_t end = clock_ns() + 5 * (uint64_t)UNIT_SECOND;
    say(m->fd);
    while (m->n->calls == 0 && clock_ns() < end)
        (void)loop_run(loop, 50 * MS);
    return NULL;
}

/* A handle may be used by one thread after another; the loop in it moves along. */
Test(loop, may_move_to_another_thread)
{
    int p[2];
    struct note n = {0};
    pthread_t thread;
    open_loop(2);
    cr_assert_eq(pipe(p), 0);
    watch(&n, p[0], false);
    cr_assert_eq(loop_run(loop, 0), 0);
    struct moved m = {&n, p[1]};
    cr_assert_eq(pthread_create(&thread, NULL, run_elsewhere, &m), 0);
    pthread_join(thread, NULL);
    cr_assert_eq(n.calls, 1);
    hear(p[0]);
    say(p[1]);
    run_until(&n.calls, 2);
    close(p[0]);
    close(p[1]);
    loop_close(loop);
}
