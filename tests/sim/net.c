/* SPDX-License-Identifier: MIT
 *
 * net.c - struct tr_ops over a net: domains, memory regions, connections and posts; see net.h. What
 * becomes of what is posted is in net_time.c.
 *
 * Invariants: an operation of an endpoint that is open is reported exactly once unless the endpoint
 * is freed; a closed endpoint takes no posts; addresses are listener numbers.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/error.h"
#include "tests/sim/net_internal.h"

static struct net *current;

struct net *net_new(const struct net_params *p)
{
    struct net *n = net_alloc(sizeof *n);
    n->p = *p;
    /* one step of splitmix64, so that seeds that lie side by side give different runs */
    uint64_t z = p->seed + 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    n->random = (z ^ (z >> 31)) | 1;
    return n;
}

void net_use(struct net *n)
{
    current = n;
}

struct net_params *net_params(struct net *n)
{
    return &n->p;
}

uint64_t net_now(const struct net *n)
{
    return n->now;
}

#define FREE_LIST(type, first)                                                                     \
    for (type *at = (first), *after; at; at = after) {                                             \
        after = at->next;                                                                          \
        free(at);                                                                                  \
    }

void net_free(struct net *n)
{
    for (struct tr_domain *d = n->domains; d; d = d->next) {
        FREE_LIST(struct tr_mr, d->mrs)
        free(d->queue);
    }
    for (struct op_block *b = n->blocks; b; b = b->next)
        for (uint32_t i = 0; i < 64; i++)
            free(b->op[i].copy);
    FREE_LIST(struct op_block, n->blocks)
    FREE_LIST(struct conn, n->conns)
    FREE_LIST(struct tr_ep, n->eps)
    FREE_LIST(struct tr_listener, n->listeners)
    FREE_LIST(struct tr_domain, n->domains)
    free(n->heap);
    if (current == n)
        current = NULL;
    free(n);
}

bool net_pending(const struct tr_domain *d)
{
    return d->n > 0 || d->stirred;
}

void net_stats(const struct net *n, struct net_stats *out)
{
    *out = n->st;
}

uint32_t net_open_ops(const struct tr_ep *ep)
{
    return ep->nopen_recv + ep->nopen_send;
}

uint32_t net_open_objects(const struct net *n)
{
    return n->objects;
}

/* ---- domains ---- */

static int domain_open(struct tr_domain **out, const struct tr_opts *opts)
{
    if (!current)
        return err_set(-ENODEV, "no net is in use: net_use() comes first");
    struct tr_domain *d = net_alloc(sizeof *d);
    d->net = current;
    d->ops_per_ep = opts->ops_per_ep;
    d->next = current->domains;
    current->domains = d;
    current->objects++;
    *out = d;
    return 0;
}

static void domain_close(struct tr_domain *d)
{
    d->closed = d->killed = true;
    d->n = 0;
    d->net->objects--;
}

static void caps(const struct tr_domain *d, struct tr_caps *out)
{
    memset(out, 0, sizeof *out);
    out->provider = d->net->p.provider;
    strcpy(out->device, "net");
    out->by_copy = d->net->p.by_copy;
    out->one_sided = !d->net->p.no_writes;
    out->inject_max = d->net->p.inject_max;
    out->msg_max = 1u << 30;
}

/* ---- connections ---- */

static int listen_at(struct tr_domain *d, struct tr_listener **out, uint8_t addr[TR_ADDR_MAX],
                     uint32_t *addr_len)
{
    struct tr_listener *l = net_alloc(sizeof *l);
    l->dom = d;
    l->number = ++d->net->listeners_made;
    l->next = d->net->listeners;
    d->net->listeners = l;
    d->net->objects++;
    memset(addr, 0, TR_ADDR_MAX);
    memcpy(addr, &l->number, sizeof l->number);
    *addr_len = sizeof l->number;
    *out = l;
    return 0;
}

static void listener_close(struct tr_listener *l)
{
    l->closed = true;
    l->dom->net->objects--;
}

static struct tr_ep *make_ep(struct tr_domain *d, struct conn *c, int side)
{
    struct tr_ep *ep = net_alloc(sizeof *ep);
    ep->dom = d;
    ep->conn = c;
    ep->side = side;
    ep->next = d->net->eps;
    d->net->eps = ep;
    d->net->objects++;
    c->end[side] = ep;
    return ep;
}

static int connect_to(struct tr_domain *d, struct tr_ep **out, const uint8_t *addr,
                      uint32_t addr_len, const void *data, uint32_t data_len)
{
    struct net *n = d->net;
    uint64_t number = 0;
    if (d->killed)
        return err_set(-ENOTCONN, "the process of this domain was killed");
    if (data_len > TR_PRIVATE_MAX)
        return err_set(-EINVAL, "%u bytes of connect data are too many", data_len);
    memcpy(&number, addr, addr_len < sizeof number ? addr_len : sizeof number);
    struct conn *c = net_alloc(sizeof *c);
    c->net = n;
    for (c->to = n->listeners; c->to && c->to->number != number; c->to = c->to->next)
        ;
    memcpy(c->data, data, data_len);
    c->data_len = data_len;
    c->next = n->conns;
    n->conns = c;
    *out = make_ep(d, c, 0);
    net_due(n, n->now + net_delay(n), (struct due){.kind = DUE_REQUEST, .conn = c});
    return 0;
}

static int accept_it(struct tr_domain *d, struct tr_ep **out, void *request)
{
    struct conn *c = request;
    struct net *n = d->net;
    *out = make_ep(d, c, 1);
    if (c->dead) { /* it broke while it waited here */
        net_due(n, n->now + net_delay(n),
                (struct due){.kind = DUE_BREAK, .conn = c, .side = 1, .error = -ECONNRESET});
        return 0;
    }
    for (int side = 0; side < 2; side++)
        net_due(n, n->now + net_delay(n),
                (struct due){.kind = DUE_CONNECTED, .conn = c, .side = side});
    return 0;
}

static void reject(struct tr_domain *d, void *request)
{
    struct conn *c = request;
    if (c->dead)
        return;
    c->dead = true;
    net_due(d->net, d->net->now + net_delay(d->net),
            (struct due){.kind = DUE_BREAK, .conn = c, .side = 0, .error = -ECONNREFUSED});
}

static void ep_context(struct tr_ep *ep, void *ctx)
{
    ep->ctx = ctx;
    /* what was told before has the context of before; like a transport that reads it late */
    struct tr_domain *d = ep->dom;
    for (uint32_t i = 0; i < d->n; i++)
        if (d->queue[(d->head + i) & (d->cap - 1)].ep == ep)
            d->queue[(d->head + i) & (d->cap - 1)].ep_ctx = ctx;
}

void net_put_on_wire(struct conn *c, int sender, struct op *op)
{
    struct net *n = c->net;
    struct wire *w = &c->wire[sender];
    op->arrives = n->now + net_delay(n);
    if (op->arrives < w->last_arrival)
        op->arrives = w->last_arrival;
    w->last_arrival = op->arrives;
    op->on_wire = true;
    op->next = NULL;
    if (w->last)
        w->last->next = op;
    else
        w->first = op;
    w->last = op;
    net_due(n, op->arrives, (struct due){.kind = DUE_ARRIVAL, .conn = c, .side = sender});
}

/* Also called for an endpoint that has ended, to tell its peer. */
static void ep_shutdown(struct tr_ep *ep)
{
    struct conn *c = ep->conn;
    if (!ep->closed)
        net_end(ep, false, 0);
    if (c->dead)
        return;
    struct op *last = c->wire[ep->side].last;
    if (last && last->kind == OP_FIN)
        return;
    /* the end may overtake, as a reset does, any part of what went before it */
    if (net_random(c->net, 4) == 0)
        net_drop_wire(c, ep->side);
    struct op *fin = net_get_op(c->net, ep, OP_FIN);
    fin->copied = true;
    net_put_on_wire(c, ep->side, fin);
}

static void ep_free(struct tr_ep *ep)
{
    struct tr_domain *d = ep->dom;
    ep_shutdown(ep);
    ep->freed = true;
    d->net->objects--;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < d->n; i++) {
        struct tr_event *ev = &d->queue[(d->head + i) & (d->cap - 1)];
        if (ev->ep != ep)
            d->queue[(d->head + kept++) & (d->cap - 1)] = *ev;
    }
    d->n = kept;
}

/* ---- memory ---- */

static int mr_reg(struct tr_domain *d, void *buf, size_t len, enum tr_access access,
                  struct tr_mr **out, struct tr_remote *exported)
{
    struct tr_mr *m = net_alloc(sizeof *m);
    m->dom = d;
    m->buf = buf;
    m->len = len;
    m->key = ++d->net->keys * 0x9e3779b97f4a7c15u;
    m->base = d->net->p.virtual_addresses ? (uint64_t)(uintptr_t)buf : 0;
    m->access = access;
    m->next = d->mrs;
    d->mrs = m;
    d->net->objects++;
    if (exported)
        *exported = (struct tr_remote){.addr = m->base, .key = m->key, .len = len};
    *out = m;
    return 0;
}

static void mr_close(struct tr_mr *m)
{
    struct tr_mr **at = &m->dom->mrs;
    while (*at != m)
        at = &(*at)->next;
    *at = m->next;
    m->dom->net->objects--;
    free(m);
}

/* ---- posts ---- */

static int may_post(struct tr_ep *ep, uint32_t open, const void *buf, size_t len,
                    const struct tr_mr *m)
{
    struct net *n = ep->dom->net;
    if (ep->closed)
        return -ENOTCONN;
    if (m && (m->dom != ep->dom || (const uint8_t *)buf < m->buf || len > m->len ||
              (size_t)((const uint8_t *)buf - m->buf) > m->len - len))
        return err_set(-EINVAL, "a buffer outside of its memory region");
    n->st.posts++;
    if (open >= ep->dom->ops_per_ep || (n->p.again && net_random(n, 1000) < n->p.again)) {
        n->st.refused++;
        net_due(n, n->now + net_delay(n), (struct due){.kind = DUE_STIR, .dom = ep->dom});
        return -EAGAIN;
    }
    return 0;
}

static int post_recv(struct tr_ep *ep, void *buf, size_t len, struct tr_mr *mr, void *ctx)
{
    int rc = may_post(ep, ep->nopen_recv, buf, len, mr);
    if (rc < 0)
        return rc;
    struct op *op = net_get_op(ep->dom->net, ep, OP_RECV);
    op->buf = buf;
    op->len = len;
    op->ctx = ctx;
    op->open = true;
    if (ep->recv_last)
        ep->recv_last->next = op;
    else
        ep->recv_first = op;
    ep->recv_last = op;
    ep->nopen_recv++;
    net_arrive(ep->conn, !ep->side); /* something may have waited for it */
    return 0;
}

void net_copy_bytes(struct op *op, const void *buf, size_t len)
{
    if (len > op->copy_cap) {
        free(op->copy);
        op->copy_cap = (len + 255) & ~(size_t)255;
        op->copy = net_alloc(op->copy_cap);
    }
    memcpy(op->copy, buf, len);
    op->copied = true;
}

static void add_open(struct tr_ep *ep, struct op *op)
{
    op->open = true;
    op->prev_open = ep->open_last;
    if (ep->open_last)
        ep->open_last->next_open = op;
    else
        ep->open_first = op;
    ep->open_last = op;
    ep->nopen_send++;
}

/* Puts an operation with its bytes on the wire. Those of a third of the operations are taken now
 * (as by a socket with room) and reported soon, whether they arrive or not. */
static void start(struct tr_ep *ep, struct op *op, const void *buf, size_t len, void *ctx,
                  bool inject)
{
    struct net *n = ep->dom->net;
    bool now = inject || net_random(n, 3) == 0;
    op->buf = (uint8_t *)(uintptr_t)buf;
    op->len = len;
    op->ctx = ctx;
    if (now)
        net_copy_bytes(op, buf, len);
    if (!inject)
        add_open(ep, op);
    net_put_on_wire(ep->conn, ep->side, op);
    if (now && !inject)
        net_due(n, n->now + net_random(n, n->p.delay_min + 1),
                (struct due){.kind = DUE_REPORT, .op = op, .generation = op->generation});
}

static int post_send(struct tr_ep *ep, const void *buf, size_t len, struct tr_mr *mr, void *ctx,
                     uint32_t flags)
{
    bool inject = (flags & TR_INJECT) != 0;
    int rc = may_post(ep, inject ? 0 : ep->nopen_send, buf, len, inject ? NULL : mr);
    if (rc == 0 && !ep->connected)
        rc = err_set(-ENOTCONN, "a send before the connection is there");
    if (rc == 0 && inject && len > ep->dom->net->p.inject_max)
        rc = err_set(-EMSGSIZE, "%zu bytes are too many to inject", len);
    if (rc == 0)
        start(ep, net_get_op(ep->dom->net, ep, OP_SEND), buf, len, ctx, inject);
    return rc;
}

static int post_write(struct tr_ep *ep, const void *buf, size_t len, struct tr_mr *mr,
                      const struct tr_remote *to, uint64_t offset, void *ctx)
{
    if (ep->dom->net->p.no_writes)
        return err_set(-ENOSYS, "this net has no one-sided writes");
    int rc = may_post(ep, ep->nopen_send, buf, len, mr);
    if (rc == 0 && !ep->connected)
        rc = err_set(-ENOTCONN, "a write before the connection is there");
    if (rc < 0)
        return rc;
    struct op *op = net_get_op(ep->dom->net, ep, OP_WRITE);
    op->to = *to;
    op->offset = offset;
    start(ep, op, buf, len, ctx, false);
    return 0;
}

static int post_read(struct tr_ep *ep, void *buf, size_t len, struct tr_mr *mr,
                     const struct tr_remote *from, uint64_t offset, void *ctx)
{
    if (ep->dom->net->p.no_writes)
        return err_set(-ENOSYS, "this net has no one-sided reads");
    int rc = may_post(ep, ep->nopen_send, buf, len, mr);
    if (rc == 0 && !ep->connected)
        rc = err_set(-ENOTCONN, "a read before the connection is there");
    if (rc < 0)
        return rc;
    struct op *op = net_get_op(ep->dom->net, ep, OP_READ);
    op->to = *from;
    op->offset = offset;
    op->buf = buf;
    op->len = len;
    op->ctx = ctx;
    op->copied = true; /* what goes out now needs no bytes of ours */
    add_open(ep, op);
    net_put_on_wire(ep->conn, ep->side, op);
    return 0;
}

/* ---- events ---- */

static int poll_events(struct tr_domain *d, struct tr_event *ev, int max)
{
    int n = 0;
    d->stirred = false;
    if (max > 1 && d->n > 1 && net_random(d->net, 4) == 0)
        max = 1 + (int)net_random(d->net, (uint64_t)max);
    while (n < max && d->n > 0) {
        ev[n++] = d->queue[d->head];
        d->head = (d->head + 1) & (d->cap - 1);
        d->n--;
    }
    return n;
}

static int fds(struct tr_domain *d, int fd[2])
{
    (void)d;
    (void)fd; /* nothing of the kernel's: who sleeps asks net_pending() */
    return 0;
}

static int arm(struct tr_domain *d)
{
    return net_pending(d) ? -EAGAIN : 0;
}

const struct tr_ops tr_net = {
    .size = sizeof(struct tr_ops),
    .name = "net",
    .domain_open = domain_open,
    .domain_close = domain_close,
    .caps = caps,
    .listen = listen_at,
    .listener_close = listener_close,
    .connect = connect_to,
    .accept = accept_it,
    .reject = reject,
    .ep_context = ep_context,
    .ep_shutdown = ep_shutdown,
    .ep_free = ep_free,
    .mr_reg = mr_reg,
    .mr_close = mr_close,
    .post_recv = post_recv,
    .post_send = post_send,
    .post_write = post_write,
    .post_read = post_read,
    .poll = poll_events,
    .fds = fds,
    .arm = arm,
};
