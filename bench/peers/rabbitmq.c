/* SPDX-License-Identifier: MIT
 *
 * rabbitmq.c - RabbitMQ by librabbitmq: transient messages through classic queues, manual acks, one
 * for a batch (multiple), prefetch of twice the batch. The answers' consumer asks for no acks.
 */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include "bench/peers/peer.h"

#define CHANNEL 1

struct rabbit {
    amqp_connection_state_t c;
    char out[64], in[64];
    uint64_t tag; /* of the last message got */
};

static void check(struct rabbit *r, const char *what)
{
    amqp_rpc_reply_t reply = amqp_get_rpc_reply(r->c);
    if (reply.reply_type != AMQP_RESPONSE_NORMAL)
        peer_die("rabbitmq: %s: %s", what,
                 reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION
                     ? amqp_error_string2(reply.library_error)
                     : "the server refuses");
}

static void declare(struct rabbit *r, const char *queue)
{
    amqp_queue_declare(r->c, CHANNEL, amqp_cstring_bytes(queue), 0, 0, 0, 0, amqp_empty_table);
    check(r, "queue.declare");
}

static void *r_open(struct peer_run *run, bool worker)
{
    struct rabbit *r = calloc(1, sizeof *r);
    const char *port = strrchr(run->address, ':');
    if (!r || !(r->c = amqp_new_connection()))
        peer_die("no memory");
    amqp_socket_t *s = amqp_tcp_socket_new(r->c);
    int rc = s ? amqp_socket_open(s, "127.0.0.1", port ? atoi(port + 1) : 0) : -1;
    if (rc < 0)
        peer_die("%s: %s", run->address, amqp_error_string2(rc));
    amqp_rpc_reply_t in = amqp_login(r->c, "/", 0, AMQP_DEFAULT_FRAME_SIZE, 0,
                                     AMQP_SASL_METHOD_PLAIN, "guest", "guest");
    if (in.reply_type != AMQP_RESPONSE_NORMAL)
        peer_die("rabbitmq: the login failed");
    amqp_channel_open(r->c, CHANNEL);
    check(r, "channel.open");
    snprintf(r->out, sizeof r->out, "%s-%s", worker ? "answers" : "tasks", run->name);
    snprintf(r->in, sizeof r->in, "%s-%s", worker ? "tasks" : "answers", run->name);
    declare(r, r->out);
    declare(r, r->in);
    if (worker) {
        amqp_basic_qos(r->c, CHANNEL, 0, (uint16_t)(run->batch * 2), 0);
        check(r, "basic.qos");
    }
    amqp_basic_consume(r->c, CHANNEL, amqp_cstring_bytes(r->in), amqp_empty_bytes, 0, !worker, 0,
                       amqp_empty_table);
    check(r, "basic.consume");
    return r;
}

static void r_close(void *p)
{
    struct rabbit *r = p;
    amqp_queue_delete(r->c, CHANNEL, amqp_cstring_bytes(r->in), 0, 0);
    amqp_queue_delete(r->c, CHANNEL, amqp_cstring_bytes(r->out), 0, 0);
    amqp_connection_close(r->c, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(r->c);
    free(r);
}

static void publish(struct rabbit *r, const void *v, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        amqp_bytes_t body = {.len = 8, .bytes = (char *)(uintptr_t)v + 8 * i};
        int rc = amqp_basic_publish(r->c, CHANNEL, amqp_empty_bytes, amqp_cstring_bytes(r->out), 0,
                                    0, NULL, body);
        if (rc != AMQP_STATUS_OK)
            peer_die("rabbitmq: publish: %s", amqp_error_string2(rc));
    }
}

static unsigned consume(struct rabbit *r, void *v, unsigned max)
{
    unsigned n = 0;
    while (n < max) {
        struct timeval now = {0};
        amqp_envelope_t e;
        amqp_maybe_release_buffers(r->c);
        amqp_rpc_reply_t rc = amqp_consume_message(r->c, &e, n ? &now : NULL, 0);
        if (n && rc.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION &&
            rc.library_error == AMQP_STATUS_TIMEOUT)
            break;
        if (rc.reply_type != AMQP_RESPONSE_NORMAL)
            peer_die("rabbitmq: consume: %s", rc.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION
                                                  ? amqp_error_string2(rc.library_error)
                                                  : "the server refuses");
        if (e.message.body.len != 8)
            peer_die("rabbitmq: a message of %zu bytes", e.message.body.len);
        memcpy((char *)v + 8 * n++, e.message.body.bytes, 8);
        r->tag = e.delivery_tag;
        amqp_destroy_envelope(&e);
    }
    return n;
}

static void r_send(void *p, const int64_t *arg, unsigned n)
{
    publish(p, arg, n);
}
static unsigned r_take(void *p, uint64_t *answer, unsigned max)
{
    return consume(p, answer, max);
}
static unsigned r_get(void *p, int64_t *arg, unsigned max)
{
    return consume(p, arg, max);
}
static void r_put(void *p, const uint64_t *answer, unsigned n)
{
    struct rabbit *r = p;
    publish(r, answer, n);
    int rc = amqp_basic_ack(r->c, CHANNEL, r->tag, n > 1);
    if (rc != AMQP_STATUS_OK)
        peer_die("rabbitmq: ack: %s", amqp_error_string2(rc));
}

static const struct peer_ops *choose(const char *mode)
{
    static const struct peer_ops ops = {.open = r_open,
                                        .close = r_close,
                                        .send = r_send,
                                        .take = r_take,
                                        .get = r_get,
                                        .put = r_put};
    return strcmp(mode, "queues") == 0 ? &ops : NULL;
}

int main(int argc, char **argv)
{
    return peer_main(argc, argv, choose);
}
