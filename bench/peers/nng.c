/* SPDX-License-Identifier: MIT
 *
 * nng.c - nng over tcp or ipc. reqrep: a request each task, as many contexts as tasks are out; the
 * library asks again when a peer goes. pushpull: one pipeline for tasks, one for answers.
 */
#include <arpa/inet.h>
#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench/peers/peer.h"

#define CONTEXTS 256u

struct nng {
    nng_socket out, in; /* reqrep: out only */
    nng_ctx ctx[CONTEXTS];
    nng_aio *aio[CONTEXTS];
    unsigned n_ctx;
    uint64_t sent, got;
};

static void must(int rc, const char *what)
{
    if (rc)
        peer_die("nng: %s: %s", what, nng_strerror(rc));
}

static void listen_at(nng_socket s, const char *address, const char *name, const char *suffix,
                      char *at, size_t cap)
{
    nng_listener l;
    nng_sockaddr sa;
    char where[120];
    bool ipc = strncmp(address, "ipc:", 4) == 0;
    snprintf(where, sizeof where, "%s%s%s", address, ipc ? name : "", ipc ? suffix : "");
    must(nng_listen(s, where, &l, 0), where);
    snprintf(at, cap, "%s", where);
    if (ipc)
        return;
    must(nng_listener_get_addr(l, NNG_OPT_LOCADDR, &sa), "the address");
    snprintf(at, cap, "tcp://127.0.0.1:%u", ntohs(sa.s_in.sa_port));
}

static void join(nng_socket s, struct peer_run *r, int i, bool worker)
{
    if (worker)
        must(nng_dial(s, r->at[i], NULL, 0), r->at[i]);
    else
        listen_at(s, r->address, r->name, i ? "-a" : "-t", r->at[i], sizeof r->at[i]);
}

static struct nng *new_nng(void)
{
    struct nng *g = calloc(1, sizeof *g);
    if (!g)
        peer_die("no memory");
    return g;
}

/* ---- push/pull ---- */

static void *p_open(struct peer_run *r, bool worker)
{
    struct nng *g = new_nng();
    must(nng_push0_open(&g->out), "push");
    must(nng_pull0_open(&g->in), "pull");
    join(worker ? g->in : g->out, r, 0, worker);
    join(worker ? g->out : g->in, r, 1, worker);
    return g;
}

static void p_close(void *p)
{
    struct nng *g = p;
    nng_close(g->out);
    nng_close(g->in);
    free(g);
}

static void push(struct nng *g, const void *v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        must(nng_send(g->out, (char *)(uintptr_t)v + 8 * i, 8, 0), "send");
}

static unsigned pull(struct nng *g, void *v, unsigned max)
{
    unsigned n = 0;
    while (n < max) {
        size_t len = 8;
        int rc = nng_recv(g->in, (char *)v + 8 * n, &len, n ? NNG_FLAG_NONBLOCK : 0);
        if (rc == NNG_EAGAIN && n)
            break;
        must(rc, "receive");
        if (len != 8)
            peer_die("nng: a message of %zu bytes", len);
        n++;
    }
    return n;
}

static void p_send(void *p, const int64_t *arg, unsigned n)
{
    push(p, arg, n);
}
static unsigned p_take(void *p, uint64_t *answer, unsigned max)
{
    return pull(p, answer, max);
}
static unsigned p_get(void *p, int64_t *arg, unsigned max)
{
    return pull(p, arg, max);
}
static void p_put(void *p, const uint64_t *answer, unsigned n)
{
    push(p, answer, n);
}

/* ---- request and reply ---- */

static void *q_open(struct peer_run *r, bool worker)
{
    struct nng *g = new_nng();
    must(worker ? nng_rep0_open(&g->out) : nng_req0_open(&g->out), "socket");
    join(g->out, r, 0, worker);
    for (; !worker && g->n_ctx < r->window; g->n_ctx++) {
        must(nng_ctx_open(&g->ctx[g->n_ctx], g->out), "context");
        must(nng_aio_alloc(&g->aio[g->n_ctx], NULL, NULL), "aio");
    }
    return g;
}

static void q_close(void *p)
{
    struct nng *g = p;
    for (unsigned i = 0; i < g->n_ctx; i++) {
        nng_ctx_close(g->ctx[i]);
        nng_aio_free(g->aio[i]);
    }
    nng_close(g->out);
    free(g);
}

static void q_send(void *p, const int64_t *arg, unsigned n)
{
    struct nng *g = p;
    for (unsigned i = 0; i < n; i++) {
        unsigned k = (unsigned)(g->sent++ % g->n_ctx);
        nng_msg *m;
        must(nng_msg_alloc(&m, 0), "message");
        must(nng_msg_append(m, &arg[i], 8), "message");
        nng_aio_set_msg(g->aio[k], m);
        nng_ctx_send(g->ctx[k], g->aio[k]);
        nng_aio_wait(g->aio[k]);
        must(nng_aio_result(g->aio[k]), "send");
        nng_ctx_recv(g->ctx[k], g->aio[k]);
    }
}

static unsigned q_take(void *p, uint64_t *answer, unsigned max)
{
    struct nng *g = p;
    unsigned k = (unsigned)(g->got++ % g->n_ctx);
    (void)max; /* the oldest only: whether the next is there can't be asked */
    nng_aio_wait(g->aio[k]);
    must(nng_aio_result(g->aio[k]), "receive");
    nng_msg *m = nng_aio_get_msg(g->aio[k]);
    if (nng_msg_len(m) != 8)
        peer_die("nng: a message of %zu bytes", nng_msg_len(m));
    memcpy(answer, nng_msg_body(m), 8);
    nng_msg_free(m);
    return 1;
}

static unsigned q_get(void *p, int64_t *arg, unsigned max)
{
    struct nng *g = p;
    size_t len = 8;
    (void)max;
    must(nng_recv(g->out, arg, &len, 0), "receive");
    return 1;
}
static void q_put(void *p, const uint64_t *answer, unsigned n)
{
    struct nng *g = p;
    (void)n;
    must(nng_send(g->out, (char *)(uintptr_t)answer, 8, 0), "send");
}

static const struct peer_ops *choose(const char *mode)
{
    static const struct peer_step windows[] = {{1, 1}, {1, 8}, {1, 64}, {1, CONTEXTS}, {0, 0}};
    static const struct peer_ops pipeline = {.open = p_open,
                                             .close = p_close,
                                             .send = p_send,
                                             .take = p_take,
                                             .get = p_get,
                                             .put = p_put,
                                             .step = windows};
    static const struct peer_ops request = {.open = q_open,
                                            .close = q_close,
                                            .send = q_send,
                                            .take = q_take,
                                            .get = q_get,
                                            .put = q_put,
                                            .step = windows};
    return strcmp(mode, "pushpull") == 0 ? &pipeline
           : strcmp(mode, "reqrep") == 0 ? &request
                                         : NULL;
}

int main(int argc, char **argv)
{
    return peer_main(argc, argv, choose);
}
