/* SPDX-License-Identifier: MIT
 *
 * fi_side.c - see fi_side.h.
 */
#include <errno.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "bench/fi_side.h"
#include "core/error.h"

int fi_side_fail(const char *what, long rc)
{
    return err_set(-EIO, "libfabric: %s: %s", what, fi_strerror((int)(rc < 0 ? -rc : rc)));
}

#define TRY(call, what)                                                                            \
    do {                                                                                           \
        long rc_ = (call);                                                                         \
        if (rc_)                                                                                   \
            return fi_side_fail(what, rc_);                                                        \
    } while (0)

int fi_side_open(struct fi_side *s, const char *provider, const char *host, bool source,
                 uint64_t caps, size_t bytes)
{
    struct fi_info *h = fi_allocinfo();
    if (!h)
        return -ENOMEM;
    h->caps = caps;
    h->ep_attr->type = FI_EP_MSG;
    h->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
    h->domain_attr->threading = FI_THREAD_DOMAIN;
    h->domain_attr->data_progress = FI_PROGRESS_MANUAL;
    h->fabric_attr->prov_name = strdup(provider);
    int rc = fi_getinfo(FI_VERSION(1, 17), host, NULL, source ? FI_SOURCE : 0, h, &s->info);
    fi_freeinfo(h);
    if (rc)
        return fi_side_fail("no such provider", rc);
    s->buf = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s->buf == MAP_FAILED) {
        s->buf = NULL;
        return -ENOMEM;
    }
    s->bytes = bytes;
    memset(s->buf, 1, bytes); /* pages of their own, not the zero page */
    /* a verbs completion queue must hold all that the endpoint's queues may */
    s->info->tx_attr->size = s->info->rx_attr->size = FI_SIDE_QUEUE;
    struct fi_eq_attr ea = {.wait_obj = FI_WAIT_UNSPEC};
    struct fi_cq_attr ca = {
        .size = 2 * FI_SIDE_QUEUE, .format = FI_CQ_FORMAT_CONTEXT, .wait_obj = FI_WAIT_NONE};
    uint64_t access = FI_SEND | FI_RECV | (caps & FI_RMA ? FI_WRITE | FI_REMOTE_WRITE : 0);
    TRY(fi_fabric(s->info->fabric_attr, &s->fabric, NULL), "fabric");
    TRY(fi_eq_open(s->fabric, &ea, &s->eq, NULL), "event queue");
    TRY(fi_domain(s->fabric, s->info, &s->domain, NULL), "domain");
    TRY(fi_cq_open(s->domain, &ca, &s->cq, NULL), "completion queue");
    TRY(fi_mr_reg(s->domain, s->buf, bytes, access, 0, 1, 0, &s->mr, NULL), "memory");
    return 0;
}

static int open_ep(struct fi_side *s, struct fi_info *info, int (*ready)(struct fi_side *))
{
    TRY(fi_endpoint(s->domain, info, &s->ep, NULL), "endpoint");
    TRY(fi_ep_bind(s->ep, &s->eq->fid, 0), "bind");
    TRY(fi_ep_bind(s->ep, &s->cq->fid, FI_TRANSMIT | FI_RECV), "bind");
    TRY(fi_enable(s->ep), "enable");
    return ready ? ready(s) : 0;
}

/* Waits for one connection event; a CONNREQ's info goes to *info. */
static int await(struct fi_side *s, uint32_t want, struct fi_info **info)
{
    uint8_t buf[sizeof(struct fi_eq_cm_entry) + 128];
    uint32_t event;
    for (;;) {
        ssize_t n = fi_eq_sread(s->eq, &event, buf, sizeof buf, 5000, 0);
        if (n < 0)
            return fi_side_fail("connecting", n);
        if (event != want)
            continue;
        if (info)
            *info = ((struct fi_eq_cm_entry *)buf)->info;
        return 0;
    }
}

int fi_side_serve(struct fi_side *s, int out_fd, int (*ready)(struct fi_side *))
{
    struct fi_card card = {.key = fi_mr_key(s->mr)};
    size_t len = sizeof card.addr;
    struct fi_info *info = NULL;
    if (s->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR)
        card.memory = (uint64_t)(uintptr_t)s->buf;
    TRY(fi_passive_ep(s->fabric, s->info, &s->pep, NULL), "passive endpoint");
    TRY(fi_pep_bind(s->pep, &s->eq->fid, 0), "bind");
    TRY(fi_listen(s->pep), "listen");
    TRY(fi_getname(&s->pep->fid, card.addr, &len), "name");
    if (write(out_fd, &card, sizeof card) != sizeof card)
        return -EIO;
    int rc = await(s, FI_CONNREQ, &info);
    if (rc == 0)
        rc = open_ep(s, info, ready);
    if (rc < 0)
        return rc;
    TRY(fi_accept(s->ep, NULL, 0), "accept");
    return await(s, FI_CONNECTED, NULL);
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

int fi_side_connect(struct fi_side *s, const struct fi_card *to, int (*ready)(struct fi_side *))
{
    int rc = aim(s->info, to->addr, sizeof to->addr);
    if (rc == 0)
        rc = open_ep(s, s->info, ready);
    if (rc < 0)
        return rc;
    TRY(fi_connect(s->ep, to->addr, NULL, 0), "connect");
    return await(s, FI_CONNECTED, NULL);
}

static void shut(struct fid *f)
{
    if (f)
        fi_close(f);
}

void fi_side_close(struct fi_side *s)
{
    shut(s->ep ? &s->ep->fid : NULL);
    shut(s->pep ? &s->pep->fid : NULL);
    shut(s->mr ? &s->mr->fid : NULL);
    shut(s->cq ? &s->cq->fid : NULL);
    shut(s->domain ? &s->domain->fid : NULL);
    shut(s->eq ? &s->eq->fid : NULL);
    shut(s->fabric ? &s->fabric->fid : NULL);
    if (s->info)
        fi_freeinfo(s->info);
    if (s->buf)
        munmap(s->buf, s->bytes);
}
