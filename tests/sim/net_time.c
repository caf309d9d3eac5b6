/* SPDX-License-Identifier: MIT
 *
 * net_time.c - the clock of a net: what is due when, arrivals, ends of connections, faults.
 *
 * Invariants: a due entry is looked at once, in the order of (time, serial); a wire is taken from
 * its front only, and nothing passes an entry that can't arrive yet (no receive posted, time not
 * come), so that each direction is FIFO whatever the delays.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/sim/net_internal.h"

void *net_alloc(size_t bytes)
{
    void *p = calloc(1, bytes);
    if (!p) {
        fprintf(stderr, "net: no memory\n");
        abort();
    }
    return p;
}

uint64_t net_random(struct net *n, uint64_t limit)
{
    /* xorshift64*; the state is never 0 */
    n->random ^= n->random >> 12;
    n->random ^= n->random << 25;
    n->random ^= n->random >> 27;
    return (uint64_t)(((unsigned __int128)(n->random * 0x2545f4914f6cdd1du) * limit) >> 64);
}

uint64_t net_delay(struct net *n)
{
    return n->p.delay_min + net_random(n, (uint64_t)n->p.delay_max - n->p.delay_min + 1);
}

/* ---- what is due ---- */

static bool before(const struct due *a, const struct due *b)
{
    return a->at != b->at ? a->at < b->at : a->serial < b->serial;
}

void net_due(struct net *n, uint64_t at, struct due what)
{
    if (n->heap_n == n->heap_cap) {
        n->heap_cap = n->heap_cap ? n->heap_cap * 2 : 256;
        n->heap = realloc(n->heap, n->heap_cap * sizeof *n->heap);
        if (!n->heap)
            abort();
    }
    what.at = at;
    what.serial = n->serial++;
    uint32_t i = n->heap_n++;
    while (i > 0 && before(&what, &n->heap[(i - 1) / 2])) {
        n->heap[i] = n->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    n->heap[i] = what;
}

static struct due take_due(struct net *n)
{
    struct due top = n->heap[0], last = n->heap[--n->heap_n];
    uint32_t i = 0;
    for (;;) {
        uint32_t k = 2 * i + 1;
        if (k >= n->heap_n)
            break;
        if (k + 1 < n->heap_n && before(&n->heap[k + 1], &n->heap[k]))
            k++;
        if (!before(&n->heap[k], &last))
            break;
        n->heap[i] = n->heap[k];
        i = k;
    }
    if (n->heap_n > 0)
        n->heap[i] = last;
    return top;
}

/* ---- operations ---- */

struct op *net_get_op(struct net *n, struct tr_ep *ep, enum op_kind kind)
{
    if (!n->pool) {
        struct op_block *b = net_alloc(sizeof *b);
        b->next = n->blocks;
        n->blocks = b;
        for (uint32_t i = 0; i < 64; i++) {
            b->op[i].next = n->pool;
            n->pool = &b->op[i];
        }
    }
    struct op *op = n->pool;
    n->pool = op->next;
    op->generation++;
    op->next = op->prev_open = op->next_open = NULL;
    op->ep = ep;
    op->ctx = NULL;
    op->kind = kind;
    op->on_wire = op->open = op->copied = false;
    return op;
}

void net_put_op(struct net *n, struct op *op)
{
    if (op->on_wire || op->open)
        return;
    op->next = n->pool;
    n->pool = op;
}

void net_event(struct tr_domain *d, const struct tr_event *ev)
{
    if (d->n == d->cap) {
        uint32_t cap = d->cap ? d->cap * 2 : 64;
        struct tr_event *more = net_alloc(cap * sizeof *more);
        for (uint32_t i = 0; i < d->n; i++)
            more[i] = d->queue[(d->head + i) & (d->cap - 1)];
        free(d->queue);
        d->queue = more;
        d->cap = cap;
        d->head = 0;
    }
    d->queue[(d->head + d->n++) & (d->cap - 1)] = *ev;
}

void net_report(struct op *op, int error, uint32_t len)
{
    struct tr_ep *ep = op->ep;
    struct tr_event ev = {.kind = op->kind == OP_RECV ? TR_RECV : TR_SENT,
                          .error = error,
                          .ep = ep,
                          .ep_ctx = ep->ctx,
                          .ctx = op->ctx,
                          .len = len};
    if (op->kind == OP_RECV) {
        ep->nopen_recv--;
    } else {
        if (op->prev_open)
            op->prev_open->next_open = op->next_open;
        else
            ep->open_first = op->next_open;
        if (op->next_open)
            op->next_open->prev_open = op->prev_open;
        else
            ep->open_last = op->prev_open;
        ep->nopen_send--;
    }
    op->open = false;
    if (!ep->freed)
        net_event(ep->dom, &ev);
    net_put_op(ep->dom->net, op);
}

/* ---- the wire ---- */

static struct op *pop_wire(struct wire *w)
{
    struct op *op = w->first;
    w->first = op->next;
    if (!w->first)
        w->last = NULL;
    op->next = NULL;
    op->on_wire = false;
    return op;
}

void net_drop_wire(struct conn *c, int sender)
{
    while (c->wire[sender].first)
        net_put_op(c->net, pop_wire(&c->wire[sender]));
}

/* What the sender's memory is still needed for is lost with all that comes after it. */
static void truncate_wire(struct conn *c, int sender)
{
    struct wire *w = &c->wire[sender];
    struct op *keep = NULL, *op = w->first;
    while (op && op->copied) {
        keep = op;
        op = op->next;
    }
    while (op) {
        struct op *next = op->next;
        op->on_wire = false;
        op->next = NULL;
        net_put_op(c->net, op);
        op = next;
    }
    w->last = keep;
    if (keep)
        keep->next = NULL;
    else
        w->first = NULL;
}

static void break_conn(struct conn *c, int error_sender, int error_other, int sender)
{
    struct net *n = c->net;
    c->dead = true;
    net_drop_wire(c, 0);
    net_drop_wire(c, 1);
    net_due(n, n->now + net_delay(n),
            (struct due){.kind = DUE_BREAK, .conn = c, .side = sender, .error = error_sender});
    net_due(n, n->now + net_delay(n),
            (struct due){.kind = DUE_BREAK, .conn = c, .side = !sender, .error = error_other});
}

void net_end(struct tr_ep *ep, bool tell, int error)
{
    ep->closed = true;
    if (tell && !ep->freed) {
        struct tr_event ev = {.kind = TR_CLOSED, .error = error, .ep = ep, .ep_ctx = ep->ctx};
        net_event(ep->dom, &ev);
    }
    truncate_wire(ep->conn, ep->side); /* before the reports give the memory back */
    while (ep->recv_first) {
        struct op *op = ep->recv_first;
        ep->recv_first = op->next;
        net_report(op, -ECANCELED, 0);
    }
    ep->recv_last = NULL;
    while (ep->open_first)
        net_report(ep->open_first, -ECANCELED, 0);
}

static struct tr_mr *mr_of(struct tr_domain *d, const struct op *op, enum tr_access access)
{
    uint64_t at = op->to.addr + op->offset;
    for (struct tr_mr *m = d->mrs; m; m = m->next)
        if (m->key == op->to.key && m->access == access && at >= m->base && at - m->base <= m->len &&
            op->len <= m->len - (at - m->base))
            return m;
    return NULL;
}

/* The bytes that op asks for go back. */
static int answer(struct op *op, struct tr_ep *peer)
{
    struct net *n = peer->dom->net;
    struct tr_mr *m = mr_of(peer->dom, op, TR_PEER_READS);
    if (!m)
        return -EACCES;
    struct op *a = net_get_op(n, peer, OP_ANSWER);
    net_copy_bytes(a, m->buf + (op->to.addr + op->offset - m->base), op->len);
    a->len = op->len;
    a->asked = op;
    a->asked_generation = op->generation;
    net_put_on_wire(peer->conn, peer->side, a);
    n->st.reads++;
    return 0;
}

/* What was asked for is here. */
static void on_answer(struct op *a)
{
    struct op *op = a->asked;
    if (op->generation != a->asked_generation || !op->open)
        return; /* its endpoint has ended */
    memcpy(op->buf, a->copy, a->len);
    net_report(op, 0, (uint32_t)a->len);
}

/* Moves op's bytes to the peer. 0, or the error that breaks the connection. */
static int deliver(struct op *op, struct tr_ep *peer)
{
    const uint8_t *from = op->copied ? op->copy : op->buf;
    struct net *n = peer->dom->net;
    if (op->kind == OP_WRITE) {
        struct tr_mr *m = mr_of(peer->dom, op, TR_PEER_WRITES);
        if (!m)
            return -EACCES;
        memcpy(m->buf + (op->to.addr + op->offset - m->base), from, op->len);
        n->st.writes++;
    } else if (op->kind == OP_READ) {
        return answer(op, peer);
    } else if (op->kind == OP_ANSWER) {
        on_answer(op);
    } else {
        struct op *r = peer->recv_first;
        if (op->len > r->len)
            return -EMSGSIZE;
        memcpy(r->buf, from, op->len);
        peer->recv_first = r->next;
        if (!peer->recv_first)
            peer->recv_last = NULL;
        net_report(r, 0, (uint32_t)op->len);
    }
    n->st.delivered++;
    n->st.bytes += op->len;
    return 0;
}

void net_arrive(struct conn *c, int sender)
{
    struct net *n = c->net;
    struct op *op;
    while ((op = c->wire[sender].first) && op->arrives <= n->now && !c->dead && !c->partitioned) {
        struct tr_ep *peer = c->end[!sender];
        if (!peer || peer->closed)
            return; /* not accepted yet, or gone: its own end is on its way to us */
        if (op->kind == OP_FIN) {
            c->dead = true;
            net_drop_wire(c, sender);
            net_end(peer, true, -ECONNRESET);
            net_drop_wire(c, !sender);
            return;
        }
        if (op->kind == OP_SEND && !peer->recv_first)
            return; /* held until a receive is posted */
        int rc = deliver(op, peer);
        if (rc < 0) {
            break_conn(c, rc, -ECONNRESET, sender);
            return;
        }
        (void)pop_wire(&c->wire[sender]);
        if (op->kind == OP_READ && op->open)
            continue; /* its report comes with the answer */
        if (!op->open)
            net_put_op(n, op);
        else if (net_random(n, 4) == 0 && !(n->p.by_copy && op->kind == OP_WRITE))
            net_due(n, n->now + net_delay(n),
                    (struct due){.kind = DUE_REPORT, .op = op, .generation = op->generation});
        else
            net_report(op, 0, (uint32_t)op->len);
    }
}

/* ---- steps ---- */

static void on_request(struct net *n, struct due *d)
{
    struct conn *c = d->conn;
    if (c->dead)
        return;
    if (c->partitioned) { /* it is asked again until it is answered */
        net_due(n, n->now + 8 * net_delay(n) + 1, *d);
        return;
    }
    if (!c->to || c->to->closed || c->to->dom->killed) {
        c->dead = true;
        net_due(n, n->now + net_delay(n),
                (struct due){.kind = DUE_BREAK, .conn = c, .side = 0, .error = -ECONNREFUSED});
        return;
    }
    struct tr_event ev = {.kind = TR_CONNREQ, .request = c, .data_len = c->data_len};
    memcpy(ev.data, c->data, c->data_len);
    c->asked = true;
    net_event(c->to->dom, &ev);
}

static void on_connected(struct net *n, struct due *d)
{
    struct tr_ep *ep = d->conn->end[d->side];
    if (d->conn->dead || ep->closed)
        return;
    if (d->conn->partitioned && d->side == 0) {
        net_due(n, n->now + 8 * net_delay(n) + 1, *d);
        return;
    }
    struct tr_event ev = {.kind = TR_CONNECTED, .ep = ep, .ep_ctx = ep->ctx};
    ep->connected = true;
    net_event(ep->dom, &ev);
    net_arrive(d->conn, !d->side);
}

bool net_step(struct net *n)
{
    if (n->heap_n == 0)
        return false;
    struct due d = take_due(n);
    if (d.at > n->now)
        n->now = d.at;
    n->st.steps++;
    switch (d.kind) {
    case DUE_ARRIVAL:
        net_arrive(d.conn, d.side);
        break;
    case DUE_REPORT:
        if (d.op->generation == d.generation && d.op->open)
            net_report(d.op, 0, (uint32_t)d.op->len);
        break;
    case DUE_REQUEST:
        on_request(n, &d);
        break;
    case DUE_CONNECTED:
        on_connected(n, &d);
        break;
    case DUE_BREAK:
        if (d.conn->end[d.side] && !d.conn->end[d.side]->closed)
            net_end(d.conn->end[d.side], true, d.error);
        break;
    case DUE_STIR:
        d.dom->stirred = true;
        break;
    }
    return true;
}

uint64_t net_next(const struct net *n)
{
    return n->heap_n ? n->heap[0].at : UINT64_MAX;
}

void net_run_until(struct net *n, uint64_t time)
{
    while (net_next(n) <= time)
        (void)net_step(n);
    if (time > n->now)
        n->now = time;
}

uint64_t net_settle(struct net *n)
{
    uint64_t steps = 0;
    while (net_step(n))
        steps++;
    return steps;
}

/* ---- faults ---- */

void net_cut(struct tr_ep *ep)
{
    if (ep->conn->dead)
        return;
    ep->dom->net->st.cuts++;
    break_conn(ep->conn, -ECONNRESET, -ECONNRESET, ep->side);
}

void net_partition(struct tr_ep *ep, bool on)
{
    struct conn *c = ep->conn;
    struct net *n = c->net;
    c->partitioned = on;
    for (int side = 0; side < 2 && !on; side++)
        net_due(n, n->now + net_delay(n),
                (struct due){.kind = DUE_ARRIVAL, .conn = c, .side = side});
}

void net_timeout(struct tr_ep *ep)
{
    if (ep->closed)
        return;
    net_end(ep, true, -ETIMEDOUT);
    tr_net.ep_shutdown(ep);
}

void net_kill(struct tr_domain *d)
{
    d->killed = true;
    for (struct tr_ep *ep = d->net->eps; ep; ep = ep->next)
        if (ep->dom == d && !ep->freed)
            tr_net.ep_shutdown(ep);
}
