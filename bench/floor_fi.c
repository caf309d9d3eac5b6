/* SPDX-License-Identifier: MIT
 *
 * floor_fi.c - 64 bytes there and back with libfabric alone: FI_EP_MSG endpoints of a provider,
 * injected sends, receives posted ahead, completion queues polled. What fi_msg_pingpong of fabtests
 * does, on two pinned cores.
 */
#include <errno.h>
#include <rdma/fi_errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "bench/bench.h"
#include "bench/fi_side.h"
#include "core/error.h"

#define BYTES 64
#define DEPTH 8

static int post(struct fi_side *s, unsigned i)
{
    long rc;
    do
        rc = fi_recv(s->ep, s->buf + i % DEPTH * BYTES, BYTES, fi_mr_desc(s->mr), 0, NULL);
    while (rc == -FI_EAGAIN);
    return rc ? fi_side_fail("receive", rc) : 0;
}

static int post_all(struct fi_side *s)
{
    int rc = 0;
    for (unsigned i = 0; i < DEPTH && rc == 0; i++)
        rc = post(s, i);
    return rc;
}

static int turn(const struct settings *st, struct fi_side *s, bool send, unsigned *posted)
{
    struct fi_cq_entry e;
    ssize_t n;
    if (send) {
        do
            n = fi_inject(s->ep, s->buf + DEPTH * BYTES, BYTES, 0);
        while (n == -FI_EAGAIN && (fi_cq_read(s->cq, NULL, 0), poll_pause(st), true));
        return n ? fi_side_fail("send", n) : 0;
    }
    while ((n = fi_cq_read(s->cq, &e, 1)) == -FI_EAGAIN || n == 0)
        poll_pause(st);
    if (n != 1)
        return fi_side_fail("completion", n);
    return post(s, (*posted)++);
}

static int serve(const struct settings *st, const char *provider, const char *host, int out_fd)
{
    struct fi_side s = {0};
    unsigned posted = 0;
    if (fi_side_open(&s, provider, host, true, FI_MSG, (DEPTH + 1) * BYTES) < 0 ||
        fi_side_serve(&s, out_fd, post_all) < 0)
        return 1;
    while (turn(st, &s, false, &posted) == 0 && turn(st, &s, true, &posted) == 0)
        ;
    return 0;
}

int floor_fi(const struct settings *st, const char *provider, const char *host, struct samples *out)
{
    struct fi_side s = {0};
    struct fi_card card;
    unsigned posted = 0;
    int pipe_fd[2], rc;
    if (pipe(pipe_fd) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin_far(st);
        _exit(serve(st, provider, host, pipe_fd[1]));
    }
    close(pipe_fd[1]);
    pin_near(st);
    rc = fi_side_open(&s, provider, host, false, FI_MSG, (DEPTH + 1) * BYTES);
    if (rc == 0 && read(pipe_fd[0], &card, sizeof card) != sizeof card)
        rc = err_set(-EIO, "libfabric: the far side of the floor did not start");
    if (rc == 0)
        rc = fi_side_connect(&s, &card, post_all);
    size_t warm = out->n / 5;
    for (size_t i = 0; rc == 0 && i < out->n + warm; i++) {
        uint64_t t = stamp();
        rc = turn(st, &s, true, &posted);
        if (rc == 0)
            rc = turn(st, &s, false, &posted);
        if (i >= warm)
            samples_put(out, i - warm, stamp_ns(t, stamp()));
    }
    child_stop(pid);
    close(pipe_fd[0]);
    fi_side_close(&s);
    return rc;
}
