/* SPDX-License-Identifier: MIT
 *
 * fi_side.h - one end of a bare libfabric connection (FI_EP_MSG) with registered memory: what the
 * libfabric floors share. Nothing of the fabric's transport code is used.
 *
 * Threads: one a side. Failure: -errno with a message; fi_side_close() takes any half-opened side.
 */
#ifndef BENCH_FI_SIDE_H
#define BENCH_FI_SIDE_H

#include <rdma/fabric.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fi_side {
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_eq *eq;
    struct fid_cq *cq;
    struct fid_pep *pep;
    struct fid_ep *ep;
    struct fid_mr *mr;
    uint8_t *buf; /* page aligned, zeroed, registered */
    size_t bytes;
};

/* How the other side is reached, passed through a pipe. */
struct fi_card {
    uint8_t addr[64];
    uint64_t memory, key;
};

#define FI_SIDE_QUEUE 32

int fi_side_fail(const char *what, long rc) __attribute__((warn_unused_result));
/* caps: FI_MSG, and FI_RMA for one-sided writes. source: it will listen. */
int fi_side_open(struct fi_side *s, const char *provider, const char *host, bool source,
                 uint64_t caps, size_t bytes) __attribute__((warn_unused_result));
/* The listening end: its card is written to out_fd, one peer accepted. ready is called with the
 * endpoint enabled and before the peer may send: it posts what must be posted; NULL: nothing. */
int fi_side_serve(struct fi_side *s, int out_fd, int (*ready)(struct fi_side *))
    __attribute__((warn_unused_result));
/* The other end. */
int fi_side_connect(struct fi_side *s, const struct fi_card *to, int (*ready)(struct fi_side *))
    __attribute__((warn_unused_result));
void fi_side_close(struct fi_side *s);

#endif
