/* SPDX-License-Identifier: MIT
 *
 * ofi_wait.c - completion queues, and what a sleeper watches.
 *
 * A completion queue with FI_WAIT_FD has one epoll descriptor, which is what an event loop wants.
 * With the tcp provider it makes every message dearer, slept or not: the sender's kernel queues the
 * socket into the epoll set, the reader takes it out and puts it back. FI_WAIT_POLLFD hands the
 * descriptors out, and while polling looks at each with poll(): cheaper for few, dearer for many. A
 * lane's round trip was 1.15 to 1.24 times that of bare libfabric with the first and is 1.0 times
 * with the second. So over tcp the first NEAR_EPS endpoints of a domain have a queue of the second
 * kind (for a handle that is all), the others one of the first kind. verbs, whose queues are the
 * device's, has one.
 *
 * For sleeping, the descriptors of the first kind are put into an epoll set of our own, and taken
 * out again when polling has gone on for a while: in that set they would cost the same again. A
 * domain that sleeps and wakes for single events leaves them there.
 *
 * Threads: the domain's. Failure: what can't be watched makes ofi_arm() return -EAGAIN: the caller
 * polls, awake.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/error.h"
#include "transport/ofi_internal.h"

#define NEAR_EPS    8u
#define CQ_MIN      64u
#define CQ_SOFT_MAX 8192u      /* a queue in our own memory grows by itself */
#define CQ_HARD_MAX (1u << 20) /* a device's is pinned memory */

/* ---- queues ---- */

static int open_cq(struct tr_domain *d, enum fi_wait_obj wait, uint32_t eps, uint32_t ops_per_ep)
{
    struct ofi_cq *q = &d->cq[d->cqs];
    uint64_t want = (uint64_t)eps * ops_per_ep * 2;
    uint64_t most = ofi_pins_memory(d) ? CQ_HARD_MAX : CQ_SOFT_MAX;
    struct fi_cq_attr a = {.size = want < CQ_MIN ? CQ_MIN
                                   : want < most ? want
                                                 : most,
                           .format = FI_CQ_FORMAT_MSG,
                           .wait_obj = wait};
    enum fi_wait_obj got;
    int rc;
    /* libfabric does not tell the device's max_cqe: come down to it */
    while ((rc = fi_cq_open(d->domain, &a, &q->cq, NULL)) == -FI_EINVAL && a.size > CQ_MIN)
        a.size = a.size - a.size / 8 > CQ_MIN ? a.size - a.size / 8 : CQ_MIN;
    if (rc)
        return rc;
    if (wait == FI_WAIT_POLLFD &&
        (fi_control(&q->cq->fid, FI_GETWAITOBJ, &got) || got != FI_WAIT_POLLFD)) {
        fi_close(&q->cq->fid);
        return -FI_ENOSYS; /* another libfabric's tcp */
    }
    q->eps = 0;
    q->eps_max = eps;
    q->pollfds = wait == FI_WAIT_POLLFD;
    d->cq_size = a.size;
    d->cqs++;
    return 0;
}

/* The queue that is cheap to poll, for the first endpoints. Returns for how many; 0: there is none.
 */
static uint32_t open_near(struct tr_domain *d, const struct tr_opts *opts)
{
    uint32_t n = opts->eps_max < NEAR_EPS ? opts->eps_max : NEAR_EPS;
    if (strcmp(d->provider, "tcp") != 0)
        return 0;
    d->watched.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (d->watched.epoll_fd < 0)
        return 0;
    if (open_cq(d, FI_WAIT_POLLFD, n, opts->ops_per_ep) == 0)
        return n;
    close(d->watched.epoll_fd);
    d->watched.epoll_fd = -1;
    return 0;
}

int ofi_queues_open(struct tr_domain *d, const struct tr_opts *opts)
{
    struct fi_eq_attr ea = {.size = 256, .wait_obj = FI_WAIT_FD};
    int rc = fi_eq_open(d->fabric, &ea, &d->eq, NULL);
    if (rc)
        return ofi_error(rc, "opening an event queue");
    uint32_t near = open_near(d, opts);
    if (near < opts->eps_max)
        rc = open_cq(d, FI_WAIT_FD, opts->eps_max - near, opts->ops_per_ep);
    return rc ? ofi_pin_error(d, rc, "opening a completion queue") : 0;
}

void ofi_queues_close(struct tr_domain *d)
{
    for (uint32_t i = 0; i < d->cqs; i++)
        fi_close(&d->cq[i].cq->fid);
    if (d->watched.epoll_fd >= 0)
        close(d->watched.epoll_fd);
}

struct ofi_cq *ofi_queue_for_one_more(struct tr_domain *d)
{
    uint32_t i = 0;
    while (i + 1 < d->cqs && d->cq[i].eps >= d->cq[i].eps_max)
        i++;
    return &d->cq[i];
}

/* ---- the set of a sleeper ---- */

/* What is to be watched now. False: it can't be. */
static bool list_fds(struct tr_domain *d, struct ofi_watched *w)
{
    w->n = 0;
    w->index = 0;
    for (uint32_t i = 0; i < d->cqs; i++) {
        if (d->cq[i].pollfds) {
            struct fi_wait_pollfd p = {.nfds = OFI_WATCHED_MAX - 1, .fd = w->fd};
            if (fi_control(&d->cq[i].cq->fid, FI_GETWAIT, &p))
                return false;
            w->n = (uint32_t)p.nfds;
            w->index = p.change_index;
        } else {
            w->fd[w->n].events = POLLIN;
            if (fi_control(&d->cq[i].cq->fid, FI_GETWAIT, &w->fd[w->n].fd))
                return false;
            w->n++;
        }
    }
    return true;
}

static bool same_fds(const struct ofi_watched *a, const struct ofi_watched *b)
{
    bool same = a->n == b->n && a->index == b->index;
    for (uint32_t i = 0; same && i < a->n; i++)
        same = a->fd[i].fd == b->fd[i].fd && a->fd[i].events == b->fd[i].events;
    return same;
}

void ofi_unwatch(struct tr_domain *d)
{
    struct ofi_watched *w = &d->watched;
    /* one that has been closed left the set by that: no error matters */
    for (uint32_t i = 0; w->on && i < w->n; i++)
        (void)epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, w->fd[i].fd, NULL);
    w->on = false;
}

/* libfabric's own wake-up from thread to thread. This domain has one thread: what it signals it
 * sees before it sleeps. And the descriptor is no good here: fi_cq_read() leaves it readable once
 * an endpoint has come or gone. */
static bool is_signal(int fd)
{
    int domain = 0;
    socklen_t len = sizeof domain;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX;
}

static int watch(struct tr_domain *d)
{
    struct ofi_watched now = {.epoll_fd = d->watched.epoll_fd, .on = true};
    if (!list_fds(d, &now))
        return -EAGAIN;
    d->watched.polls = 0;
    if (d->watched.on && same_fds(&now, &d->watched))
        return 0;
    ofi_unwatch(d);
    d->watched = now;
    for (uint32_t i = 0; i < now.n; i++) {
        /* POLLIN, POLLOUT are EPOLLIN, EPOLLOUT */
        struct epoll_event e = {.events = (uint32_t)(uint16_t)now.fd[i].events};
        if (!is_signal(now.fd[i].fd) &&
            epoll_ctl(now.epoll_fd, EPOLL_CTL_ADD, now.fd[i].fd, &e) < 0 && errno != EEXIST) {
            ofi_unwatch(d);
            return -EAGAIN;
        }
    }
    return 0;
}

int ofi_fds(struct tr_domain *d, int fd[2])
{
    fd[0] = d->watched.epoll_fd;
    if ((fd[0] < 0 && fi_control(&d->cq[0].cq->fid, FI_GETWAIT, &fd[0])) ||
        fi_control(&d->eq->fid, FI_GETWAIT, &fd[1]))
        return 0;
    return 2;
}

int ofi_arm(struct tr_domain *d)
{
    struct fid *fids[3] = {&d->eq->fid};
    int n = 1;
    d->eq_due = true; /* the sleep may end for its sake */
    if (d->starved) { /* room may have been made unseen since: post again before sleeping */
        d->starved = false;
        return -EAGAIN;
    }
    for (uint32_t i = 0; i < d->cqs; i++)
        fids[n++] = &d->cq[i].cq->fid;
    if (fi_trywait(d->fabric, fids, n))
        return -EAGAIN;
    return d->watched.epoll_fd >= 0 ? watch(d) : 0;
}
