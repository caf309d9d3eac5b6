/* SPDX-License-Identifier: MIT
 *
 * redis.c - Redis over a Unix socket. Lists: RPUSH of many, BLMPOP of many, no ack. Streams:
 * pipelined XADD, XREADGROUP of many, and in one pipeline RPUSH of the answers and XACK.
 */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench/peers/peer.h"

struct redis {
    redisContext *c;
    char tasks[64], answers[64];
    char id[PEER_BATCH_MAX][32]; /* streams: what was got and not acknowledged */
    unsigned ids;
};

static redisReply *reply(struct redis *r)
{
    void *v = NULL;
    if (redisGetReply(r->c, &v) != REDIS_OK)
        peer_die("redis: %s", r->c->errstr);
    redisReply *got = v;
    if (got->type == REDIS_REPLY_ERROR)
        peer_die("redis: %s", got->str);
    return got;
}

static void *r_open(struct peer_run *run, bool worker)
{
    struct redis *r = calloc(1, sizeof *r);
    if (!r)
        peer_die("no memory");
    r->c = redisConnectUnix(run->address);
    if (!r->c || r->c->err)
        peer_die("%s: %s", run->address, r->c ? r->c->errstr : "no memory");
    snprintf(r->tasks, sizeof r->tasks, "tasks-%s", run->name);
    snprintf(r->answers, sizeof r->answers, "answers-%s", run->name);
    if (!worker && strcmp(run->mode, "streams") == 0) {
        redisAppendCommand(r->c, "XGROUP CREATE %s workers $ MKSTREAM", r->tasks);
        freeReplyObject(reply(r));
    }
    return r;
}

static void r_close(void *p)
{
    struct redis *r = p;
    redisAppendCommand(r->c, "DEL %s %s", r->tasks, r->answers);
    freeReplyObject(reply(r));
    redisFree(r->c);
    free(r);
}

/* ---- lists ---- */

static void append_push(struct redis *r, const char *key, const void *v, unsigned n)
{
    const char *arg[PEER_BATCH_MAX + 2] = {"RPUSH", key};
    size_t len[PEER_BATCH_MAX + 2] = {5, strlen(key)};
    for (unsigned i = 0; i < n; i++) {
        arg[i + 2] = (const char *)v + 8 * i;
        len[i + 2] = 8;
    }
    redisAppendCommandArgv(r->c, (int)n + 2, arg, len);
}

static unsigned pop(struct redis *r, const char *key, void *v, unsigned max)
{
    redisAppendCommand(r->c, "BLMPOP 0 1 %s LEFT COUNT %u", key, max);
    redisReply *got = reply(r);
    if (got->type != REDIS_REPLY_ARRAY || got->elements != 2)
        peer_die("redis: BLMPOP answers something else");
    const redisReply *list = got->element[1];
    unsigned n = (unsigned)list->elements;
    for (unsigned i = 0; i < n && i < max; i++) {
        if (list->element[i]->len != 8)
            peer_die("redis: an element of another size");
        memcpy((char *)v + 8 * i, list->element[i]->str, 8);
    }
    freeReplyObject(got);
    return n;
}

static void l_send(void *p, const int64_t *arg, unsigned n)
{
    struct redis *r = p;
    append_push(r, r->tasks, arg, n);
    freeReplyObject(reply(r));
}
static unsigned r_take(void *p, uint64_t *answer, unsigned max)
{
    struct redis *r = p;
    return pop(r, r->answers, answer, max);
}
static unsigned l_get(void *p, int64_t *arg, unsigned max)
{
    struct redis *r = p;
    return pop(r, r->tasks, arg, max);
}
static void l_put(void *p, const uint64_t *answer, unsigned n)
{
    struct redis *r = p;
    append_push(r, r->answers, answer, n);
    freeReplyObject(reply(r));
}

/* ---- streams ---- */

static void s_send(void *p, const int64_t *arg, unsigned n)
{
    struct redis *r = p;
    for (unsigned i = 0; i < n; i++) /* MAXLEN far beyond the window: memory stays bounded */
        redisAppendCommand(r->c, "XADD %s MAXLEN ~ 10000 * n %b", r->tasks, &arg[i], (size_t)8);
    for (unsigned i = 0; i < n; i++)
        freeReplyObject(reply(r));
}

static unsigned s_get(void *p, int64_t *arg, unsigned max)
{
    struct redis *r = p;
    redisAppendCommand(r->c, "XREADGROUP GROUP workers w COUNT %u BLOCK 0 STREAMS %s >", max,
                       r->tasks);
    redisReply *got = reply(r);
    if (got->type != REDIS_REPLY_ARRAY || got->elements != 1 || got->element[0]->elements != 2)
        peer_die("redis: XREADGROUP answers something else");
    const redisReply *list = got->element[0]->element[1];
    unsigned n = r->ids = (unsigned)list->elements;
    for (unsigned i = 0; i < n && i < max; i++) {
        const redisReply *e = list->element[i], *value = e->element[1]->element[1];
        if (value->len != 8)
            peer_die("redis: an entry of another size");
        memcpy(&arg[i], value->str, 8);
        snprintf(r->id[i], sizeof r->id[i], "%s", e->element[0]->str);
    }
    freeReplyObject(got);
    return n;
}

static void s_put(void *p, const uint64_t *answer, unsigned n)
{
    struct redis *r = p;
    const char *arg[PEER_BATCH_MAX + 3] = {"XACK", r->tasks, "workers"};
    for (unsigned i = 0; i < n; i++)
        arg[i + 3] = r->id[i];
    append_push(r, r->answers, answer, n);
    redisAppendCommandArgv(r->c, (int)n + 3, arg, NULL);
    freeReplyObject(reply(r));
    redisReply *acked = reply(r);
    if (acked->integer != (long long)n)
        peer_die("redis: %lld of %u acknowledged", acked->integer, n);
    freeReplyObject(acked);
}

static const struct peer_ops *choose(const char *mode)
{
    static const struct peer_ops lists = {.open = r_open,
                                          .close = r_close,
                                          .send = l_send,
                                          .take = r_take,
                                          .get = l_get,
                                          .put = l_put};
    static const struct peer_ops streams = {.open = r_open,
                                            .close = r_close,
                                            .send = s_send,
                                            .take = r_take,
                                            .get = s_get,
                                            .put = s_put};
    return strcmp(mode, "lists") == 0 ? &lists : strcmp(mode, "streams") == 0 ? &streams : NULL;
}

int main(int argc, char **argv)
{
    return peer_main(argc, argv, choose);
}
