/* SPDX-License-Identifier: MIT
 *
 * floor_fi.c - 64 bytes there and back with libfabric alone: FI_EP_MSG endpoints of a provider,
 * injected sends, receives posted ahead, completion queues polled. What fi_msg_pingpong of fabtests
 * does, on two pinned cores.
 */
#include <errno.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/error.h"

#define BYTES 64
#define DEPTH 8
#define QUEUE 32

struct side {
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_eq *eq;
    struct fid_cq *cq;
    struct fid_pep *pep;
    struct fid_ep *ep;
    struct fid_mr *mr;
    uint8_t buf[(DEPTH + 1) * BYTES];
};

static int fail(const char *what, long rc)
{
    return err_set(-EIO, "libfabric: %s: %s", what, fi_strerror((int)(rc < 0 ? -rc : rc)));
}

#define TRY(call, what)                                                                            \
    do {                                                                                           \
        long rc_ = (call);                                                                         \
        if (rc_)                                                                                   \
            return fail(what, rc_);                                                                \
    } while (0)

static int open_side(struct side *s, const char *provider, const char *host, bool source)
{
    struct fi_info *h = fi_allocinfo();
    if (!h)
        return -ENOMEM;
    h->caps = FI_MSG;
    h->ep_attr->type = FI_EP_MSG;
    h->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
    h->domain_attr->threading = FI_THREAD_DOMAIN;
    h->domain_attr->data_progress = FI_PROGRESS_MANUAL;
    h->fabric_attr->prov_name = strdup(provider);
    int rc = fi_getinfo(FI_VERSION(1, 17), host, NULL, source ? FI_SOURCE : 0, h, &s->info);
    fi_freeinfo(h);
    if (rc)
        return fail("no such provider", rc);
    /* a verbs completion queue must hold all that the endpoint's queues may */
    s->info->tx_attr->size = s->info->rx_attr->size = QUEUE;
    struct fi_eq_attr ea = {.wait_obj = FI_WAIT_UNSPEC};
    struct fi_cq_attr ca = {
        .size = 2 * QUEUE, .format = FI_CQ_FORMAT_CONTEXT, .wait_obj = FI_WAIT_NONE};
    TRY(fi_fabric(s->info->fabric_attr, &s->fabric, NULL), "fabric");
    TRY(fi_eq_open(s->fabric, &ea, &s->eq, NULL), "event queue");
    TRY(fi_domain(s->fabric, s->info, &s->domain, NULL), "domain");
    TRY(fi_cq_open(s->domain, &ca, &s->cq, NULL), "completion queue");
    TRY(fi_mr_reg(s->domain, s->buf, sizeof s->buf, FI_SEND | FI_RECV, 0, 1, 0, &s->mr, NULL),
        "memory");
    return 0;
}

static int post(struct side *s, unsigned i)
{
    long rc;
    do
        rc = fi_recv(s->ep, s->buf + i % DEPTH * BYTES, BYTES, fi_mr_desc(s->mr), 0, NULL);
    while (rc == -FI_EAGAIN);
    return rc ? fail("receive", rc) : 0;
}

static int open_ep(struct side *s, struct fi_info *info)
{
    TRY(fi_endpoint(s->domain, info, &s->ep, NULL), "endpoint");
    TRY(fi_ep_bind(s->ep, &s->eq->fid, 0), "bind");
    TRY(fi_ep_bind(s->ep, &s->cq->fid, FI_TRANSMIT | FI_RECV), "bind");
    TRY(fi_enable(s->ep), "enable");
    for (unsigned i = 0; i < DEPTH; i++)
        if (post(s, i) < 0)
            return -EIO;
    return 0;
}

/* Waits for one connection event; a CONNREQ's info goes to *info. */
static int await(struct side *s, uint32_t want, struct fi_info **info)
{
    uint8_t buf[sizeof(struct fi_eq_cm_entry) + 128];
    uint32_t event;
    for (;;) {
        ssize_t n = fi_eq_sread(s->eq, &event, buf, sizeof buf, 5000, 0);
        if (n < 0)
            return fail("connecting", n);
        if (event != want)
            continue;
        if (info)
            *info = ((struct fi_eq_cm_entry *)buf)->info;
        return 0;
    }
}

static int turn(const struct settings *st, struct side *s, bool send, unsigned *posted)
{
    struct fi_cq_entry e;
    ssize_t n;
    if (send) {
        do
            n = fi_inject(s->ep, s->buf + DEPTH * BYTES, BYTES, 0);
        while (n == -FI_EAGAIN && (fi_cq_read(s->cq, NULL, 0), poll_pause(st), true));
        return n ? fail("send", n) : 0;
    }
    while ((n = fi_cq_read(s->cq, &e, 1)) == -FI_EAGAIN || n == 0)
        poll_pause(st);
    if (n != 1)
        return fail("completion", n);
    return post(s, (*posted)++);
}

static int serve(const struct settings *st, struct side *s, const char *provider, const char *host,
                 int out_fd)
{
    uint8_t addr[64] = {0};
    size_t len = sizeof addr;
    struct fi_info *info = NULL;
    unsigned posted = 0;
    if (open_side(s, provider, host, true) < 0)
        return 1;
    TRY(fi_passive_ep(s->fabric, s->info, &s->pep, NULL), "passive endpoint");
    TRY(fi_pep_bind(s->pep, &s->eq->fid, 0), "bind");
    TRY(fi_listen(s->pep), "listen");
    TRY(fi_getname(&s->pep->fid, addr, &len), "name");
    if (write(out_fd, addr, sizeof addr) != sizeof addr)
        return 1;
    if (await(s, FI_CONNREQ, &info) < 0 || open_ep(s, info) < 0 || fi_accept(s->ep, NULL, 0) ||
        await(s, FI_CONNECTED, NULL) < 0)
        return 1;
    while (turn(st, s, false, &posted) == 0 && turn(st, s, true, &posted) == 0)
        ;
    return 0;
}

/* verbs connects to where its endpoint was opened for, whatever fi_connect() is told. */
static int aim(struct fi_info *info, const void *addr, size_t len)
{
    void *to = malloc(len);
    if (!to)
        return -ENOMEM;
    memcpy(to, addr, len);
    free(info->dest_addr);
    info->dest_addr = to;
    info->dest_addrlen = len;
    return 0;
}

int floor_fi(const struct settings *st, const char *provider, const char *host, struct samples *out)
{
    struct side *s = calloc(1, sizeof *s);
    uint8_t addr[64];
    unsigned posted = 0;
    int pipe_fd[2], rc;
    if (!s || pipe(pipe_fd) < 0) {
        free(s);
        return -ENOMEM;
    }
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin_far(st);
        _exit(serve(st, s, provider, host, pipe_fd[1]));
    }
    close(pipe_fd[1]);
    pin_near(st);
    rc = open_side(s, provider, host, false);
    if (rc == 0 && read(pipe_fd[0], addr, sizeof addr) != sizeof addr)
        rc = err_set(-EIO, "libfabric: the far side of the floor did not start");
    if (rc == 0)
        rc = aim(s->info, addr, sizeof addr);
    if (rc == 0)
        rc = open_ep(s, s->info);
    if (rc == 0 && fi_connect(s->ep, addr, NULL, 0))
        rc = err_set(-EIO, "libfabric: connecting");
    if (rc == 0)
        rc = await(s, FI_CONNECTED, NULL);
    size_t warm = out->n / 5;
    for (size_t i = 0; rc == 0 && i < out->n + warm; i++) {
        uint64_t t = stamp();
        rc = turn(st, s, true, &posted);
        if (rc == 0)
            rc = turn(st, s, false, &posted);
        if (i >= warm)
            samples_put(out, i - warm, stamp_ns(t, stamp()));
    }
    child_stop(pid);
    close(pipe_fd[0]);
    if (s->ep)
        fi_close(&s->ep->fid);
    if (s->mr)
        fi_close(&s->mr->fid);
    if (s->cq)
        fi_close(&s->cq->fid);
    if (s->domain)
        fi_close(&s->domain->fid);
    if (s->eq)
        fi_close(&s->eq->fid);
    if (s->fabric)
        fi_close(&s->fabric->fid);
    if (s->info)
        fi_freeinfo(s->info);
    free(s);
    return rc;
}
