/* SPDX-License-Identifier: MIT
 *
 * ofi_ep.c - listening, connecting, accepting, connection events and the end of endpoints.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/error.h"
#include "transport/ofi_internal.h"

int ofi_listen(struct tr_domain *d, struct tr_listener **out, uint8_t addr[TR_ADDR_MAX],
               uint32_t *addr_len)
{
    struct tr_listener *l = calloc(1, sizeof *l);
    size_t len = TR_ADDR_MAX;
    int rc;
    if (!l)
        return err_set(-ENOMEM, "no memory to listen");
    l->dom = d;
    rc = fi_passive_ep(d->fabric, d->info, &l->pep, l);
    if (rc) {
        free(l);
        return ofi_error(rc, "opening a passive endpoint");
    }
    rc = fi_pep_bind(l->pep, &d->eq->fid, 0);
    if (!rc)
        rc = fi_listen(l->pep);
    if (!rc)
        rc = fi_getname(&l->pep->fid, addr, &len);
    if (rc) {
        rc = ofi_error(rc, "listening for data connections");
        ofi_listener_close(l);
        return rc;
    }
    *addr_len = (uint32_t)len;
    d->pep = l->pep;
    *out = l;
    return 0;
}

void ofi_listener_close(struct tr_listener *l)
{
    l->dom->pep = NULL;
    fi_close(&l->pep->fid);
    free(l);
}

/* One endpoint more must not overrun a completion queue of fixed size: that would end them all. */
static bool has_room(const struct tr_domain *d)
{
    return !ofi_pins_memory(d) || (d->neps + 1ull) * 2 * d->ops_per_ep <= d->cq_size;
}

static int make_ep(struct tr_domain *d, struct fi_info *info, struct tr_ep **out)
{
    struct tr_ep *ep = calloc(1, sizeof *ep);
    int rc;
    if (!ep)
        return err_set(-ENOMEM, "no memory for an endpoint");
    ep->dom = d;
    if (!has_room(d)) {
        free(ep);
        return err_set(
            -EUSERS,
            "the %s device's completion queue holds %zu operations, enough for %u links: "
            "lower fabric.lane_cells or fabric.links",
            d->provider, d->cq_size, d->neps);
    }
    if (d->ops_free < 2 * d->ops_per_ep && ofi_add_ops(d, 2 * d->ops_per_ep) < 0) {
        free(ep);
        return -ENOMEM;
    }
    ep->cq = ofi_queue_for_one_more(d);
    rc = fi_endpoint(d->domain, info, &ep->ep, ep);
    if (rc) {
        free(ep);
        return ofi_error(rc, "opening an endpoint");
    }
    rc = fi_ep_bind(ep->ep, &d->eq->fid, 0);
    if (!rc)
        rc = fi_ep_bind(ep->ep, &ep->cq->cq->fid, FI_TRANSMIT | FI_RECV);
    if (!rc)
        rc = fi_enable(ep->ep);
    if (rc) {
        fi_close(&ep->ep->fid);
        free(ep);
        return ofi_pin_error(d, rc, "making the queues of an endpoint");
    }
    d->neps++;
    ep->cq->eps++;
    ep->next = d->eps;
    if (ep->next)
        ep->next->prev = ep;
    d->eps = ep;
    d->joining++;
    *out = ep;
    return 0;
}

int ofi_connect(struct tr_domain *d, struct tr_ep **out, const uint8_t *addr, uint32_t addr_len,
                const void *data, uint32_t data_len)
{
    struct fi_info *info = fi_dupinfo(d->info);
    struct tr_ep *ep;
    int rc;
    if (!info)
        return err_set(-ENOMEM, "no memory for an endpoint");
    free(info->dest_addr);
    info->dest_addr = malloc(addr_len);
    info->dest_addrlen = addr_len;
    if (!info->dest_addr) {
        fi_freeinfo(info);
        return err_set(-ENOMEM, "no memory for an endpoint");
    }
    memcpy(info->dest_addr, addr, addr_len);
    /* tcp would bind to what fi_getinfo() proposed, which may be another interface's */
    if (strcmp(d->provider, "tcp") == 0) {
        free(info->src_addr);
        info->src_addr = NULL;
        info->src_addrlen = 0;
    }
    rc = make_ep(d, info, &ep);
    if (rc == 0) {
        rc = fi_connect(ep->ep, info->dest_addr, data, data_len);
        if (rc) {
            rc = ofi_error(rc, "connecting");
            ofi_ep_free(ep);
        } else {
            *out = ep;
        }
    }
    fi_freeinfo(info);
    return rc;
}

int ofi_accept(struct tr_domain *d, struct tr_ep **out, void *request)
{
    struct fi_info *info = request;
    struct tr_ep *ep;
    if (!has_room(d) && d->pep) /* the peer would wait for an answer in vain */
        fi_reject(d->pep, info->handle, NULL, 0);
    int rc = make_ep(d, info, &ep);
    if (rc == 0) {
        rc = fi_accept(ep->ep, NULL, 0);
        if (rc) {
            rc = ofi_error(rc, "accepting");
            ofi_ep_free(ep);
        } else {
            *out = ep;
        }
    }
    fi_freeinfo(info);
    return rc;
}

void ofi_reject(struct tr_domain *d, void *request)
{
    struct fi_info *info = request;
    if (d->pep)
        fi_reject(d->pep, info->handle, NULL, 0);
    fi_freeinfo(info);
}

void ofi_ep_context(struct tr_ep *ep, void *ctx)
{
    ep->ctx = ctx;
}

/* It is connected now, or never will be. */
static void settled(struct tr_ep *ep)
{
    ep->dom->joining -= !ep->connected && !ep->closed;
}

void ofi_ep_close(struct tr_ep *ep)
{
    settled(ep);
    ep->closed = true;
}

void ofi_ep_shutdown(struct tr_ep *ep)
{
    if (!ep->closed)
        fi_shutdown(ep->ep, 0);
    ofi_ep_close(ep);
}

void ofi_ep_free(struct tr_ep *ep)
{
    struct tr_domain *d = ep->dom;
    ofi_ep_close(ep);
    ofi_disown(d, ep);
    ofi_unwatch(d); /* its socket is about to be closed, and a forked child may have it, too */
    fi_close(&ep->ep->fid);
    d->neps--;
    if (--ep->cq->eps == 0)
        ep->cq->stale = true; /* closing it may have ended operations */
    if (ep->prev)
        ep->prev->next = ep->next;
    else
        d->eps = ep->next;
    if (ep->next)
        ep->next->prev = ep->prev;
    free(ep);
}

static struct tr_ep *ep_of(struct tr_domain *d, struct fid *fid)
{
    for (struct tr_ep *ep = d->eps; ep; ep = ep->next)
        if (&ep->ep->fid == fid)
            return ep;
    return NULL;
}

static int eq_error(struct tr_domain *d, struct tr_event *ev)
{
    struct fi_eq_err_entry e;
    memset(&e, 0, sizeof e);
    if (fi_eq_readerr(d->eq, &e, 0) < 0)
        return 0;
    struct tr_ep *ep = ep_of(d, e.fid);
    if (!ep || ep->closed)
        return 0;
    ofi_ep_close(ep);
    *ev = (struct tr_event){.kind = TR_CLOSED,
                            .error = e.err > 0 && e.err < 256 ? -e.err : -EIO,
                            .ep = ep,
                            .ep_ctx = ep->ctx};
    return 1;
}

int ofi_read_eq(struct tr_domain *d, struct tr_event *ev)
{
    uint8_t buf[sizeof(struct fi_eq_cm_entry) + 256];
    struct fi_eq_cm_entry *cm = (struct fi_eq_cm_entry *)buf;
    uint32_t event;
    for (;;) {
        ssize_t n = fi_eq_read(d->eq, &event, buf, sizeof buf, 0);
        if (n == -FI_EAVAIL) {
            if (eq_error(d, ev))
                return 1;
            continue;
        }
        if (n < (ssize_t)sizeof *cm)
            return 0;
        memset(ev, 0, sizeof *ev);
        if (event == FI_CONNREQ) {
            size_t len = (size_t)n - sizeof *cm;
            ev->kind = TR_CONNREQ;
            ev->request = cm->info;
            ev->data_len = (uint32_t)(len < TR_PRIVATE_MAX ? len : TR_PRIVATE_MAX);
            memcpy(ev->data, cm->data, ev->data_len);
            return 1;
        }
        struct tr_ep *ep = ep_of(d, cm->fid);
        if (!ep || ep->closed)
            continue;
        ev->ep = ep;
        ev->ep_ctx = ep->ctx;
        if (event == FI_CONNECTED) {
            settled(ep);
            ep->connected = true;
            ev->kind = TR_CONNECTED;
            return 1;
        }
        if (event == FI_SHUTDOWN) {
            ofi_ep_close(ep);
            ev->kind = TR_CLOSED;
            ev->error = -ECONNRESET;
            return 1;
        }
    }
}
