/* SPDX-License-Identifier: MIT
 *
 * loop.c - the io_uring event loop.
 *
 * A source is an entry of a fixed table. A request's user_data is {kind:8, generation:24,
 * index:32}: a completion whose generation is no longer the entry's belongs to a stopped source and
 * is dropped (an accepted descriptor in it is closed).
 *
 * The ring is set up without SINGLE_ISSUER and DEFER_TASKRUN: a handle may move from thread to
 * thread, and completions then appear in the completion queue by themselves, so that loop_run(0) is
 * a look at memory.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/error.h"
#include "transport/loop.h"

#define GENERATION 0xffffffu

enum kind { KIND_NONE, KIND_POLL, KIND_POLL_ONCE, KIND_ACCEPT, KIND_TIMER };

struct entry {
    struct loop_src *src; /* NULL: free */
    uint32_t generation, next;
    enum kind kind;
    uint32_t events;
    int fd;
    bool armed;
    uint64_t period_ns;
    struct __kernel_timespec when; /* read by the kernel at submission */
};

struct loop {
    struct io_uring ring;
    struct entry *entry;
    uint32_t entries, free;
    int wake_fd;
    struct loop_src wake_src;
};

#define NONE UINT32_MAX

static uint64_t user_data(const struct loop *l, uint32_t i)
{
    const struct entry *e = &l->entry[i];
    return (uint64_t)e->kind << 56 | (uint64_t)(e->generation & GENERATION) << 32 | i;
}

static struct io_uring_sqe *get_sqe(struct loop *l)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&l->ring);
    if (!sqe) { /* the submission queue is full: hand it over */
        io_uring_submit(&l->ring);
        sqe = io_uring_get_sqe(&l->ring);
    }
    return sqe;
}

static int arm(struct loop *l, uint32_t i)
{
    struct entry *e = &l->entry[i];
    struct io_uring_sqe *sqe = get_sqe(l);
    if (!sqe)
        return err_set(-EBUSY, "the event loop's submission queue stays full");
    switch (e->kind) {
    case KIND_POLL:
        io_uring_prep_poll_multishot(sqe, e->fd, e->events);
        break;
    case KIND_POLL_ONCE:
        io_uring_prep_poll_add(sqe, e->fd, e->events);
        break;
    case KIND_ACCEPT:
        io_uring_prep_multishot_accept(sqe, e->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        break;
    default:
        io_uring_prep_timeout(sqe, &e->when, 0, 0);
        break;
    }
    io_uring_sqe_set_data64(sqe, user_data(l, i));
    e->armed = true;
    return 0;
}

static int add(struct loop *l, struct loop_src *s, const struct entry *what, loop_fn *fn)
{
    uint32_t i = l->free;
    if (i == NONE)
        return err_set(-ENOSPC, "the event loop has no room for another descriptor");
    uint32_t generation = l->entry[i].generation;
    l->free = l->entry[i].next;
    l->entry[i] = *what;
    l->entry[i].generation = generation;
    l->entry[i].src = s;
    int rc = arm(l, i);
    if (rc < 0) {
        l->entry[i].src = NULL;
        l->entry[i].next = l->free;
        l->free = i;
        return rc;
    }
    s->fn = fn;
    s->fd = what->fd;
    s->slot = i + 1;
    return 0;
}

int loop_watch(struct loop *l, struct loop_src *s, int fd, uint32_t events, bool once, loop_fn *fn)
{
    struct entry e = {.kind = once ? KIND_POLL_ONCE : KIND_POLL, .fd = fd, .events = events};
    return add(l, s, &e, fn);
}

int loop_accept(struct loop *l, struct loop_src *s, int listen_fd, loop_fn *fn)
{
    struct entry e = {.kind = KIND_ACCEPT, .fd = listen_fd};
    return add(l, s, &e, fn);
}

static struct __kernel_timespec timespec_of(uint64_t ns)
{
    return (struct __kernel_timespec){.tv_sec = (long long)(ns / 1000000000u),
                                      .tv_nsec = (long long)(ns % 1000000000u)};
}

int loop_timer(struct loop *l, struct loop_src *s, uint64_t ns, uint64_t period_ns, loop_fn *fn)
{
    struct entry e = {
        .kind = KIND_TIMER, .fd = -1, .period_ns = period_ns, .when = timespec_of(ns)};
    return add(l, s, &e, fn);
}

static void release(struct loop *l, uint32_t i)
{
    struct entry *e = &l->entry[i];
    e->src->slot = 0;
    e->src = NULL;
    e->generation++;
    e->next = l->free;
    l->free = i;
}

void loop_stop(struct loop *l, struct loop_src *s)
{
    if (s->slot == 0)
        return;
    uint32_t i = s->slot - 1;
    if (l->entry[i].armed) {
        /* Submitted at once: the caller is about to close the descriptor, and a request that waits
         * in the queue would name another one by then. A cancel that is lost leaves a poll behind
         * whose completion is dropped. */
        struct io_uring_sqe *sqe = get_sqe(l);
        if (sqe) {
            if (l->entry[i].kind == KIND_TIMER)
                io_uring_prep_timeout_remove(sqe, user_data(l, i), 0);
            else
                io_uring_prep_cancel64(sqe, user_data(l, i), 0);
            io_uring_sqe_set_data64(sqe, 0);
        }
        io_uring_submit(&l->ring);
    }
    release(l, i);
}

/* One completion; 1 when a callback ran. */
static int dispatch(struct loop *l, uint64_t data, int res, uint32_t flags)
{
    uint32_t i = (uint32_t)data, generation = (uint32_t)(data >> 32) & GENERATION;
    enum kind kind = (enum kind)(data >> 56);
    if (kind == KIND_NONE) /* the answer to a cancel */
        return 0;
    struct entry *e = &l->entry[i];
    if (i >= l->entries || !e->src || (e->generation & GENERATION) != generation) {
        if (kind == KIND_ACCEPT && res >= 0)
            close(res);
        return 0;
    }
    struct loop_src *src = e->src;
    loop_fn *fn = src->fn;
    if (!(flags & IORING_CQE_F_MORE))
        e->armed = false;
    if (kind == KIND_TIMER) {
        if (res == -ETIME)
            res = 0;
        if (e->period_ns) {
            e->when = timespec_of(e->period_ns);
            (void)!arm(l, i);
        } else {
            release(l, i);
        }
    } else if (kind == KIND_POLL_ONCE) {
        release(l, i);
    } else if (!e->armed) {
        /* The kernel ended a multishot (overflow, or an older kernel): again, unless the descriptor
         * itself failed. */
        if (res >= 0 || res == -ECANCELED || res == -ENOBUFS || res == -EMFILE || res == -ENFILE ||
            res == -ECONNABORTED)
            (void)!arm(l, i);
    }
    fn(src, res);
    return 1;
}

/* Runs the callbacks of all completions that are there; returns how many. */
static int drain(struct loop *l)
{
    struct io_uring_cqe *cqe;
    int ran = 0;
    while (io_uring_peek_cqe(&l->ring, &cqe) == 0) {
        uint64_t data = cqe->user_data;
        int res = cqe->res;
        uint32_t flags = cqe->flags;
        io_uring_cqe_seen(&l->ring, cqe); /* before the callback, which may add requests */
        ran += dispatch(l, data, res, flags);
    }
    return ran;
}

static bool is_failure(int rc)
{
    return rc < 0 && rc != -ETIME && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY;
}

static int run_now(struct loop *l)
{
    int rc = 0;
    if (io_uring_sq_ready(&l->ring))
        rc = io_uring_submit(&l->ring);
    if (io_uring_cq_has_overflow(&l->ring))
        rc = io_uring_get_events(&l->ring);
    return is_failure(rc) ? err_set(rc, "io_uring: %s", strerror(-rc)) : drain(l);
}

int loop_run(struct loop *l, int64_t timeout_ns)
{
    if (timeout_ns == 0)
        return run_now(l);
    uint64_t now = clock_ns(), deadline = now + (uint64_t)timeout_ns;
    /* Completions without a callback (answers to cancels, what was stopped) end a wait of the
     * kernel's, not of ours. */
    for (;;) {
        struct io_uring_cqe *cqe;
        struct __kernel_timespec ts = timespec_of(deadline - now);
        int rc =
            io_uring_submit_and_wait_timeout(&l->ring, &cqe, 1, timeout_ns < 0 ? NULL : &ts, NULL);
        if (is_failure(rc))
            return err_set(rc, "io_uring: %s", strerror(-rc));
        int ran = drain(l);
        if (ran > 0 || rc == -EINTR)
            return ran;
        now = clock_ns();
        if (timeout_ns > 0 && now >= deadline)
            return 0;
    }
}

static void on_wake(struct loop_src *src, int result)
{
    uint64_t n;
    (void)result;
    (void)!read(src->fd, &n, sizeof n);
}

void loop_wake(struct loop *l)
{
    uint64_t one = 1;
    (void)!write(l->wake_fd, &one, sizeof one); /* full: it is awake already */
}

int loop_open(struct loop **out, uint32_t sources_max)
{
    struct loop *l = calloc(1, sizeof *l);
    uint32_t n = sources_max + 1;
    if (!l)
        return err_set(-ENOMEM, "no memory for an event loop");
    l->wake_fd = -1;
    l->ring.ring_fd = -1;
    l->entries = n;
    l->entry = calloc(n, sizeof *l->entry);
    if (!l->entry) {
        free(l);
        return err_set(-ENOMEM, "no memory for an event loop of %u sources", n);
    }
    for (uint32_t i = 0; i < n; i++)
        l->entry[i].next = i + 1 < n ? i + 1 : NONE;
    struct io_uring_params p = {.flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
                                .cq_entries = n < 32      ? 64
                                              : n < 16384 ? 2 * n
                                                          : 32768};
    int rc = io_uring_queue_init_params(n < 256 ? 32 : 256, &l->ring, &p);
    if (rc < 0) {
        free(l->entry);
        free(l);
        if (rc == -EPERM)
            return err_set(
                rc, "io_uring is forbidden here: `sysctl kernel.io_uring_disabled` must be 0 (or 1 "
                    "with your group in kernel.io_uring_group), and a container's seccomp profile "
                    "must allow io_uring_setup, io_uring_enter and io_uring_register");
        if (rc == -ENOSYS)
            return err_set(rc, "this kernel has no io_uring: Linux 5.19 or later is needed");
        return err_set(rc, "io_uring: %s%s", strerror(-rc),
                       rc == -ENOMEM ? " (raise RLIMIT_MEMLOCK: ulimit -l)" : "");
    }
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rc = l->wake_fd < 0 ? err_set(-errno, "eventfd: %s", strerror(errno))
                        : loop_watch(l, &l->wake_src, l->wake_fd, POLLIN, false, on_wake);
    if (rc < 0) {
        loop_close(l);
        return rc;
    }
    *out = l;
    return 0;
}

void loop_close(struct loop *l)
{
    io_uring_queue_exit(&l->ring);
    if (l->wake_fd >= 0)
        close(l->wake_fd);
    free(l->entry);
    free(l);
}
