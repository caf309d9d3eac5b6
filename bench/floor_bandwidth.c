/* SPDX-License-Identifier: MIT
 *
 * floor_bandwidth.c - bytes a second one way with libfabric alone: pieces sent into posted buffers,
 * or written into the other side's memory, with or without a copy of each before; eight on their
 * way at once.
 *
 * Measured in a child of its own, because a process that has used verbs can't have children that
 * do. What is counted is the sender's completions over a time in which eight pieces more or less
 * are a small part.
 */
#include <errno.h>
#include <fcntl.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench/bench.h"
#include "bench/fi_side.h"
#include "core/clock.h"
#include "core/error.h"

struct flow {
    struct fi_side s;
    struct fi_card to;
    size_t piece;
    enum piece_how how;
    uint8_t *source; /* PIECES_COPIED: of one piece */
    uint64_t posted, completed, copied;
};

static int post_receive(struct fi_side *s, unsigned i)
{
    size_t piece = s->bytes / FLOOR_PIECES;
    long rc;
    while ((rc = fi_recv(s->ep, s->buf + i % FLOOR_PIECES * piece, piece, fi_mr_desc(s->mr), 0,
                         NULL)) == -FI_EAGAIN)
        (void)fi_cq_read(s->cq, NULL, 0);
    return rc ? fi_side_fail("receive", rc) : 0;
}

static int post_all(struct fi_side *s)
{
    int rc = 0;
    for (unsigned i = 0; i < FLOOR_PIECES && rc == 0; i++)
        rc = post_receive(s, i);
    return rc;
}

/* Takes what comes until the other side goes; polling is what moves one-sided writes on, too. */
static int receive(const char *provider, const char *host, bool one_sided, size_t piece, int out_fd)
{
    struct fi_side s = {0};
    struct fi_cq_entry e[FLOOR_PIECES];
    unsigned posted = 0;
    int rc = fi_side_open(&s, provider, host, true, FI_MSG | (one_sided ? FI_RMA : 0),
                          FLOOR_PIECES * piece);
    if (rc == 0)
        rc = fi_side_serve(&s, out_fd, post_all);
    while (rc == 0) {
        ssize_t n = fi_cq_read(s.cq, e, FLOOR_PIECES);
        if (n < 0 && n != -FI_EAGAIN)
            break;
        for (ssize_t i = 0; i < n && rc == 0; i++)
            rc = post_receive(&s, posted++);
    }
    return rc < 0;
}

static int post_piece(struct flow *f)
{
    size_t at = f->posted % FLOOR_PIECES * f->piece;
    void *desc = fi_mr_desc(f->s.mr);
    if (f->source && f->copied == f->posted) {
        memcpy(f->s.buf + at, f->source, f->piece);
        f->copied++;
    }
    long rc = f->how != PIECES_SENT ? fi_write(f->s.ep, f->s.buf + at, f->piece, desc, 0,
                                               f->to.memory + at, f->to.key, NULL)
                                    : fi_send(f->s.ep, f->s.buf + at, f->piece, desc, 0, NULL);
    if (rc == -FI_EAGAIN)
        return 0;
    f->posted += rc == 0;
    return rc ? fi_side_fail("send", rc) : 0;
}

static int pump(struct flow *f, uint64_t ns)
{
    struct fi_cq_entry e[FLOOR_PIECES];
    uint64_t start = clock_ns();
    int rc = 0;
    while (rc == 0 && clock_ns() - start < ns) {
        while (rc == 0 && f->posted - f->completed < FLOOR_PIECES) {
            uint64_t before = f->posted;
            rc = post_piece(f);
            if (f->posted == before)
                break;
        }
        ssize_t n = fi_cq_read(f->s.cq, e, FLOOR_PIECES);
        if (n > 0)
            f->completed += (uint64_t)n;
        else if (n < 0 && n != -FI_EAGAIN)
            rc = fi_side_fail("completion", n);
    }
    return rc;
}

static double send_all(const struct settings *st, const char *provider, const char *host,
                       struct flow *f, int in_fd)
{
    uint64_t limit = (uint64_t)(st->slice * 1e9);
    int rc = fi_side_open(&f->s, provider, host, false,
                          FI_MSG | (f->how != PIECES_SENT ? FI_RMA : 0), FLOOR_PIECES * f->piece);
    if (rc == 0 && read(in_fd, &f->to, sizeof f->to) != sizeof f->to)
        rc = err_set(-EIO, "libfabric: the far side of the floor did not start");
    if (rc == 0)
        rc = fi_side_connect(&f->s, &f->to, NULL);
    if (rc == 0 && f->how == PIECES_COPIED) {
        f->source = malloc(f->piece);
        rc = f->source ? 0 : -ENOMEM;
    }
    if (rc == 0 && f->source)
        memset(f->source, 2, f->piece);
    if (rc == 0)
        rc = pump(f, limit / 5);
    uint64_t had = f->completed, start = clock_ns();
    if (rc == 0)
        rc = pump(f, limit);
    return rc < 0
               ? -1
               : (double)((f->completed - had) * f->piece) / ((double)(clock_ns() - start) / 1e9);
}

double floor_fi_bandwidth(const struct settings *st, const char *provider, const char *host,
                          enum piece_how how, size_t bytes)
{
    int card[2], result[2];
    double rate = -1;
    if (pipe2(card, O_CLOEXEC) < 0 || pipe2(result, O_CLOEXEC) < 0)
        return err_set(-errno, "a pipe"), -1;
    pid_t far = fork();
    if (far == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin_far(st);
        _exit(receive(provider, host, how != PIECES_SENT, bytes, card[1]));
    }
    pid_t near = fork();
    if (near == 0) {
        struct flow f = {.piece = bytes, .how = how};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(card[1]);
        pin_near(st);
        rate = send_all(st, provider, host, &f, card[0]);
        if (rate < 0)
            fprintf(stderr, "fabbench: %s\n", fab_errmsg());
        _exit(write(result[1], &rate, sizeof rate) != sizeof rate);
    }
    close(card[1]);
    close(result[1]);
    if (read(result[0], &rate, sizeof rate) != sizeof rate || rate < 0)
        rate = err_set(-EIO, "bare libfabric moved nothing");
    waitpid(near, NULL, 0);
    child_stop(far);
    close(card[0]);
    close(result[0]);
    return rate;
}
