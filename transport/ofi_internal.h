/* SPDX-License-Identifier: MIT
 *
 * ofi_internal.h - what the libfabric transport's files share. One thread a domain.
 */
#ifndef FABRIC_OFI_INTERNAL_H
#define FABRIC_OFI_INTERNAL_H

#include <poll.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include "transport/transport.h"

#define OFI_WATCHED_MAX 16
#define OFI_AWAKE_POLLS 64u /* so many polls without a sleep: the next one is not near */

#define OFI_VERSION FI_VERSION(1, 17)

/* An operation between post and completion. Lives in its domain's pool, so that a completion that
 * comes after its endpoint was freed finds memory, and no owner. */
struct ofi_op {
    struct fi_context2 context; /* first: libfabric hands back its address */
    struct tr_ep *ep;           /* NULL: the endpoint is gone, drop the completion */
    void *ctx;
    struct ofi_op *next;
    bool recv;
};

struct tr_domain {
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct ofi_cq {
        struct fid_cq *cq;
        uint32_t eps, eps_max; /* bound to it; at most */
        bool pollfds;          /* its descriptors are an array, not an epoll descriptor */
        bool stale; /* no endpoint is left, but completions of the last one may be: with them nobody
                       could sleep */
    } cq[2];                   /* ofi_wait.c has why two */
    uint32_t cqs;
    struct ofi_watched {
        int epoll_fd; /* -1: the one queue has a descriptor of its own */
        bool on;      /* fd[] is in it */
        uint32_t n, polls; /* polls since the last ofi_arm() */
        uint64_t index;
        struct pollfd fd[OFI_WATCHED_MAX];
    } watched;
    struct fid_eq *eq;
    struct ofi_op *free_ops;
    struct ofi_op **pools; /* the ops, 2 * ops_per_ep each */
    uint32_t npools, ops_per_ep, ops_free;
    struct tr_ep *eps;   /* all, to find one by its fid */
    struct fid_pep *pep; /* the listener's, for rejecting */
    uint32_t neps;
    size_t cq_size;
    uint32_t polls, joining; /* endpoints that are neither connected yet nor closed */
    bool eq_due;  /* look at the event queue in the next poll */
    bool starved; /* a post found its queue full since the last arm */
    char provider[16];
};

struct tr_listener {
    struct tr_domain *dom;
    struct fid_pep *pep;
};

struct tr_ep {
    struct tr_domain *dom;
    struct fid_ep *ep;
    struct tr_ep *next, *prev;
    void *ctx;
    struct ofi_cq *cq;
    bool connected, closed;
};

struct tr_mr {
    struct fid_mr *mr;
};

struct fi_info *ofi_hints(const struct tr_opts *opts);
/* "what: text" from a libfabric error (positive or negative); returns -errno. */
int ofi_error(int rc, const char *what);
/* The same for what pins memory: -ENOMEM names RLIMIT_MEMLOCK when there is such a limit. */
int ofi_pin_error(const struct tr_domain *d, int rc, const char *what);
/* Does the device read and write our memory itself? Then it is locked there, and queues have an end. */
bool ofi_pins_memory(const struct tr_domain *d);
int ofi_add_ops(struct tr_domain *d, uint32_t n);
/* Open operations of ep: their completions will be dropped. */
void ofi_disown(struct tr_domain *d, const struct tr_ep *ep);

int ofi_listen(struct tr_domain *dom, struct tr_listener **out, uint8_t addr[TR_ADDR_MAX],
               uint32_t *addr_len);
void ofi_listener_close(struct tr_listener *l);
int ofi_connect(struct tr_domain *dom, struct tr_ep **out, const uint8_t *addr, uint32_t addr_len,
                const void *data, uint32_t data_len);
int ofi_accept(struct tr_domain *dom, struct tr_ep **out, void *request);
void ofi_reject(struct tr_domain *dom, void *request);
void ofi_ep_context(struct tr_ep *ep, void *ctx);
void ofi_ep_shutdown(struct tr_ep *ep);
void ofi_ep_free(struct tr_ep *ep);
/* Its connection has ended; nothing is said to the peer. */
void ofi_ep_close(struct tr_ep *ep);
/* ofi_wait.c */
int ofi_queues_open(struct tr_domain *d, const struct tr_opts *opts);
void ofi_queues_close(struct tr_domain *d);
struct ofi_cq *ofi_queue_for_one_more(struct tr_domain *d);
void ofi_unwatch(struct tr_domain *d);
static inline void ofi_unwatch_later(struct tr_domain *d)
{
    if (d->watched.on && ++d->watched.polls > OFI_AWAKE_POLLS)
        ofi_unwatch(d);
}
int ofi_fds(struct tr_domain *d, int fd[2]);
int ofi_arm(struct tr_domain *d);
/* Connection events; returns 1 with *ev filled in, 0 when there is none. */
int ofi_read_eq(struct tr_domain *d, struct tr_event *ev);

#endif
