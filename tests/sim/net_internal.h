/* SPDX-License-Identifier: MIT
 *
 * net_internal.h - what net.c (connections, memory, posts, events) and net_time.c (the clock, what
 * is due when, faults) share; see net.h.
 *
 * Objects live until net_free(), freed or not, so that whatever is still due may look at them.
 * Operations come from a pool and go back to it when they are both reported and off the wire.
 */
#ifndef TESTS_SIM_NET_INTERNAL_H
#define TESTS_SIM_NET_INTERNAL_H

#include "tests/sim/net.h"

/* ANSWER: the bytes that a READ asked for, on their way back. */
enum op_kind { OP_RECV, OP_SEND, OP_WRITE, OP_READ, OP_ANSWER, OP_FIN };

struct op {
    struct op *next;                  /* on the wire, in the list of receives, or in the pool */
    struct op *prev_open, *next_open; /* sends, writes and reads of an endpoint that are not reported */
    struct tr_ep *ep;
    void *ctx;
    uint32_t generation; /* counts uses, so that what is due later can tell */
    enum op_kind kind;
    bool on_wire, open; /* open: to be reported */
    bool copied;        /* the bytes are in copy */
    uint8_t *buf;
    size_t len;
    uint8_t *copy;
    size_t copy_cap;
    struct tr_remote to;
    uint64_t offset, arrives;
    struct op *asked; /* ANSWER: the READ, if its generation is still this */
    uint32_t asked_generation;
};

struct op_block {
    struct op_block *next;
    struct op op[64];
};

/* One direction: what its sender posted and has not arrived, in order. */
struct wire {
    struct op *first, *last;
    uint64_t last_arrival;
};

struct conn {
    struct conn *next;
    struct net *net;
    struct tr_ep *end[2]; /* 0: who connected, 1: who accepted */
    struct wire wire[2];  /* by sender */
    struct tr_listener *to;
    bool partitioned, dead; /* dead: nothing more arrives */
    bool asked;             /* TR_CONNREQ was told */
    uint8_t data[TR_PRIVATE_MAX];
    uint32_t data_len;
};

struct tr_ep {
    struct tr_ep *next; /* of the net */
    struct tr_domain *dom;
    struct conn *conn;
    int side;
    void *ctx;
    bool connected, closed, freed;
    struct op *recv_first, *recv_last;
    struct op *open_first, *open_last; /* sends, writes and reads not reported */
    uint32_t nopen_recv, nopen_send;
};

struct tr_mr {
    struct tr_mr *next; /* of the domain */
    struct tr_domain *dom;
    uint8_t *buf;
    size_t len;
    uint64_t key, base;
    enum tr_access access;
};

struct tr_listener {
    struct tr_listener *next;
    struct tr_domain *dom;
    uint64_t number;
    bool closed;
};

struct tr_domain {
    struct tr_domain *next;
    struct net *net;
    struct tr_event *queue; /* ring of cap entries */
    uint32_t cap, head, n;
    struct tr_mr *mrs;
    uint32_t ops_per_ep;
    bool stirred; /* a refused post is worth another try */
    bool killed, closed;
};

enum due_kind { DUE_ARRIVAL, DUE_REPORT, DUE_REQUEST, DUE_CONNECTED, DUE_BREAK, DUE_STIR };

struct due {
    uint64_t at, serial; /* the order of things */
    enum due_kind kind;
    int side, error;
    uint32_t generation;
    struct conn *conn;
    struct op *op;
    struct tr_domain *dom; /* DUE_STIR */
};

struct net {
    struct net_params p;
    uint64_t now, random, serial, keys, listeners_made;
    struct due *heap;
    uint32_t heap_n, heap_cap;
    struct op *pool;
    struct op_block *blocks;
    struct conn *conns;
    struct tr_ep *eps;
    struct tr_domain *domains;
    struct tr_listener *listeners;
    struct net_stats st;
    uint32_t objects;
};

void *net_alloc(size_t bytes);
void net_due(struct net *n, uint64_t at, struct due what);
uint64_t net_delay(struct net *n);
struct op *net_get_op(struct net *n, struct tr_ep *ep, enum op_kind kind);
void net_put_op(struct net *n, struct op *op);
void net_event(struct tr_domain *d, const struct tr_event *ev);
/* Reports op (with error 0 or -errno) and forgets it as far as its poster is concerned. */
void net_report(struct op *op, int error, uint32_t len);
/* Ends an endpoint: TR_CLOSED when tell, -ECANCELED for what is open. */
void net_end(struct tr_ep *ep, bool tell, int error);
/* Puts op behind what its sender has on the wire; copies bytes into it. */
void net_put_on_wire(struct conn *c, int sender, struct op *op);
void net_copy_bytes(struct op *op, const void *buf, size_t len);
/* Lets arrive what is due in this direction. */
void net_arrive(struct conn *c, int sender);
/* Everything on this wire is lost. */
void net_drop_wire(struct conn *c, int sender);

#endif
