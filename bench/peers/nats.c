/* SPDX-License-Identifier: MIT
 *
 * nats.c - NATS by its text protocol. Core: publish and a queue group, no ack. JetStream: a
 * work-queue stream in the server's memory whose publications are acknowledged (asynchronously), a
 * push consumer, an explicit ack a task; the answers come by core NATS. Batches are pipelined
 * publications and acks.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench/peers/peer.h"
#include "bench/peers/wire.h"

enum { SID_DATA = 1, SID_ACCEPTED, SID_API };

struct nats {
    struct wire *w;
    bool stream;
    char tasks[64], answers[64], accepted[64], stream_name[64];
    uint64_t published, acknowledged;
    char reply[PEER_BATCH_MAX][160]; /* where the ack of what was got goes */
    char *body;                      /* of the last message that is not a task or an answer */
};

struct msg {
    unsigned sid;
    char reply[160];
    uint64_t value;
};

/* The next message; what is no message is dealt with. false: a PONG. */
static bool next(struct nats *c, struct msg *m)
{
    for (;;) {
        const char *line = wire_line(c->w);
        char subject[160], a[160], b[32];
        char end[2];
        if (strcmp(line, "PONG") == 0)
            return false;
        if (strcmp(line, "PING") == 0) {
            wire_printf(c->w, "PONG\r\n");
            wire_flush(c->w);
        }
        if (strncmp(line, "-ERR", 4) == 0)
            peer_die("nats says %s", line);
        if (strncmp(line, "MSG ", 4) != 0)
            continue;
        int n = sscanf(line, "MSG %159s %u %159s %31s", subject, &m->sid, a, b);
        size_t len = (size_t)atol(n == 4 ? b : a);
        snprintf(m->reply, sizeof m->reply, "%s", n == 4 ? a : "");
        if (n < 3 || len >= 4096)
            peer_die("nats says %s", line);
        if (m->sid == SID_DATA && len == sizeof m->value)
            wire_bytes(c->w, &m->value, len);
        else
            wire_bytes(c->w, c->body, len);
        if (m->sid != SID_DATA)
            c->body[len] = 0;
        else if (len != sizeof m->value)
            peer_die("nats: a message of %zu bytes", len);
        wire_bytes(c->w, end, 2);
        return true;
    }
}

static void sync_with_server(struct nats *c)
{
    struct msg m;
    wire_printf(c->w, "PING\r\n");
    wire_flush(c->w);
    while (next(c, &m))
        ;
}

static void api(struct nats *c, const char *subject, const char *json)
{
    struct msg m;
    wire_printf(c->w, "PUB $JS.API.%s api-%s %zu\r\n%s\r\n", subject, c->stream_name, strlen(json),
                json);
    wire_flush(c->w);
    do {
        if (!next(c, &m))
            peer_die("nats: a PONG out of turn");
    } while (m.sid != SID_API);
    if (strstr(c->body, "\"error\""))
        peer_die("nats: %s: %s", subject, c->body);
}

static void make_stream(struct nats *c)
{
    char json[512], subject[160];
    wire_printf(c->w, "SUB api-%s %d\r\nSUB %s %d\r\n", c->stream_name, SID_API, c->accepted,
                SID_ACCEPTED);
    snprintf(subject, sizeof subject, "STREAM.CREATE.%s", c->stream_name);
    snprintf(json, sizeof json,
             "{\"name\":\"%s\",\"subjects\":[\"%s\"],\"retention\":\"workqueue\",\"storage\":"
             "\"memory\",\"num_replicas\":1,\"max_bytes\":67108864,\"discard\":\"new\"}",
             c->stream_name, c->tasks);
    api(c, subject, json);
    snprintf(subject, sizeof subject, "CONSUMER.DURABLE.CREATE.%s.workers", c->stream_name);
    snprintf(json, sizeof json,
             "{\"stream_name\":\"%s\",\"config\":{\"durable_name\":\"workers\",\"deliver_subject\":"
             "\"push-%s\",\"ack_policy\":\"explicit\",\"ack_wait\":30000000000,"
             "\"max_ack_pending\":4096}}",
             c->stream_name, c->stream_name);
    api(c, subject, json);
}

static void *n_open(struct peer_run *r, bool worker)
{
    struct nats *c = calloc(1, sizeof *c);
    if (!c || !(c->body = malloc(4096)))
        peer_die("no memory");
    c->w = wire_open(r->address);
    c->stream = strcmp(r->mode, "jetstream") == 0;
    snprintf(c->tasks, sizeof c->tasks, "tasks-%s", r->name);
    snprintf(c->answers, sizeof c->answers, "answers-%s", r->name);
    snprintf(c->accepted, sizeof c->accepted, "accepted-%s", r->name);
    snprintf(c->stream_name, sizeof c->stream_name, "stream-%s", r->name);
    wire_printf(
        c->w,
        "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"c\",\"version\":\"1\"}\r\n");
    if (!worker)
        wire_printf(c->w, "SUB %s %d\r\n", c->answers, SID_DATA);
    else if (c->stream)
        wire_printf(c->w, "SUB push-%s %d\r\n", c->stream_name, SID_DATA);
    else
        wire_printf(c->w, "SUB %s workers %d\r\n", c->tasks, SID_DATA);
    if (c->stream && !worker)
        make_stream(c);
    sync_with_server(c);
    return c;
}

static void n_close(void *p)
{
    struct nats *c = p;
    struct msg m;
    char subject[160];
    while (c->acknowledged < c->published && next(c, &m))
        c->acknowledged += m.sid == SID_ACCEPTED;
    snprintf(subject, sizeof subject, "STREAM.DELETE.%s", c->stream_name);
    if (c->stream)
        api(c, subject, "");
    wire_close(c->w);
    free(c->body);
    free(c);
}

/* At least one message of data, and what else is here. */
static unsigned take(struct nats *c, void *v, unsigned max)
{
    unsigned n = 0;
    while (n == 0 || (n < max && wire_pending(c->w))) {
        struct msg m;
        if (!next(c, &m))
            peer_die("nats: a PONG out of turn");
        if (m.sid == SID_ACCEPTED) {
            c->acknowledged++;
            if (strstr(c->body, "\"error\""))
                peer_die("nats: %s", c->body);
            continue;
        }
        memcpy((char *)v + 8 * n, &m.value, 8);
        if (c->stream)
            snprintf(c->reply[n], sizeof c->reply[n], "%s", m.reply);
        n++;
    }
    return n;
}

static void publish(struct nats *c, const char *head, const void *v, unsigned n)
{
    size_t len = strlen(head);
    for (unsigned i = 0; i < n; i++) {
        wire_put(c->w, head, len);
        wire_put(c->w, (const char *)v + 8 * i, 8);
        wire_put(c->w, "\r\n", 2);
    }
}

static void n_send(void *p, const int64_t *arg, unsigned n)
{
    struct nats *c = p;
    char head[200];
    snprintf(head, sizeof head, "PUB %s %s%s8\r\n", c->tasks, c->stream ? c->accepted : "",
             c->stream ? " " : "");
    publish(c, head, arg, n);
    wire_flush(c->w);
    c->published += c->stream ? n : 0;
}
static unsigned n_take(void *p, uint64_t *answer, unsigned max)
{
    return take(p, answer, max);
}
static unsigned n_get(void *p, int64_t *arg, unsigned max)
{
    return take(p, arg, max);
}
static void n_put(void *p, const uint64_t *answer, unsigned n)
{
    struct nats *c = p;
    char head[200];
    snprintf(head, sizeof head, "PUB %s 8\r\n", c->answers);
    publish(c, head, answer, n);
    for (unsigned i = 0; c->stream && i < n; i++)
        wire_printf(c->w, "PUB %s 4\r\n+ACK\r\n", c->reply[i]);
    wire_flush(c->w);
}

static const struct peer_ops *choose(const char *mode)
{
    static const struct peer_ops ops = {.open = n_open,
                                        .close = n_close,
                                        .send = n_send,
                                        .take = n_take,
                                        .get = n_get,
                                        .put = n_put};
    return strcmp(mode, "core") == 0 || strcmp(mode, "jetstream") == 0 ? &ops : NULL;
}

int main(int argc, char **argv)
{
    return peer_main(argc, argv, choose);
}
