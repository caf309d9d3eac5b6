/* SPDX-License-Identifier: MIT
 *
 * zeromq.c - ZeroMQ: PUSH/PULL for tasks, another pair for answers; over tcp or ipc. Its library
 * batches small messages itself; there is no call for many.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>
#include "bench/peers/peer.h"

#define PEER_WINDOW 4096 /* within what its sockets are told to keep before they block */

struct zmq {
    void *ctx, *out, *in;
};

static void *socket_at(struct zmq *z, int type, const char *address, const char *suffix, char *at,
                       size_t cap, bool bind)
{
    char where[200];
    int linger = 0, high = 2 * PEER_WINDOW;
    void *s = zmq_socket(z->ctx, type);
    if (!s)
        peer_die("zmq_socket: %s", zmq_strerror(zmq_errno()));
    zmq_setsockopt(s, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(s, ZMQ_SNDHWM, &high, sizeof high);
    zmq_setsockopt(s, ZMQ_RCVHWM, &high, sizeof high);
    if (!bind) {
        if (zmq_connect(s, at) < 0)
            peer_die("%s: %s", at, zmq_strerror(zmq_errno()));
        return s;
    }
    /* tcp://127.0.0.1:* is any free port */
    snprintf(where, sizeof where, "%s%s", address, strncmp(address, "ipc:", 4) == 0 ? suffix : "");
    if (zmq_bind(s, where) < 0 || zmq_getsockopt(s, ZMQ_LAST_ENDPOINT, at, &cap) < 0)
        peer_die("%s: %s", where, zmq_strerror(zmq_errno()));
    return s;
}

static void *z_open(struct peer_run *r, bool worker)
{
    struct zmq *z = calloc(1, sizeof *z);
    char tasks[48], answers[48];
    if (!z || !(z->ctx = zmq_ctx_new()))
        peer_die("no memory");
    snprintf(tasks, sizeof tasks, "%s-t", r->name);
    snprintf(answers, sizeof answers, "%s-a", r->name);
    void *a = socket_at(z, worker ? ZMQ_PULL : ZMQ_PUSH, r->address, tasks, r->at[0],
                        sizeof r->at[0], !worker);
    void *b = socket_at(z, worker ? ZMQ_PUSH : ZMQ_PULL, r->address, answers, r->at[1],
                        sizeof r->at[1], !worker);
    z->out = worker ? b : a;
    z->in = worker ? a : b;
    return z;
}

static void z_close(void *p)
{
    struct zmq *z = p;
    zmq_close(z->out);
    zmq_close(z->in);
    zmq_ctx_term(z->ctx);
    free(z);
}

static void push(struct zmq *z, const void *v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (zmq_send(z->out, (const char *)v + 8 * i, 8, 0) != 8)
            peer_die("zmq_send: %s", zmq_strerror(zmq_errno()));
}

static unsigned pull(struct zmq *z, void *v, unsigned max)
{
    unsigned n = 0;
    while (n < max) {
        int got = zmq_recv(z->in, (char *)v + 8 * n, 8, n ? ZMQ_DONTWAIT : 0);
        if (got < 0 && n && zmq_errno() == EAGAIN)
            break;
        if (got != 8)
            peer_die("zmq_recv: %s",
                     got < 0 ? zmq_strerror(zmq_errno()) : "a message of another size");
        n++;
    }
    return n;
}

static void z_send(void *p, const int64_t *arg, unsigned n)
{
    push(p, arg, n);
}
static unsigned z_take(void *p, uint64_t *answer, unsigned max)
{
    return pull(p, answer, max);
}
static unsigned z_get(void *p, int64_t *arg, unsigned max)
{
    return pull(p, arg, max);
}
static void z_put(void *p, const uint64_t *answer, unsigned n)
{
    push(p, answer, n);
}

static const struct peer_ops *choose(const char *mode)
{
    static const struct peer_step steps[] = {{1, 64},     {16, 64},           {64, 256},
                                             {256, 1024}, {256, PEER_WINDOW}, {0, 0}};
    static const struct peer_step all[] = {{64, 1}, {0, 0}};
    static const struct peer_ops both = {.open = z_open,
                                         .close = z_close,
                                         .send = z_send,
                                         .take = z_take,
                                         .get = z_get,
                                         .put = z_put,
                                         .step = steps};
    static const struct peer_ops one_way = {.open = z_open,
                                            .close = z_close,
                                            .send = z_send,
                                            .take = z_take,
                                            .get = z_get,
                                            .put = z_put,
                                            .one_way = true,
                                            .step = all};
    return strcmp(mode, "answers") == 0 ? &both : strcmp(mode, "oneway") == 0 ? &one_way : NULL;
}

int main(int argc, char **argv)
{
    return peer_main(argc, argv, choose);
}
