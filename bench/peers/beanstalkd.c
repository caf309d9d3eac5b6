/* SPDX-License-Identifier: MIT
 *
 * beanstalkd.c - beanstalkd by its text protocol. Every task is put, reserved and deleted, every
 * answer too. Batches are pipelined commands: one reserve that waits, the others with a time limit
 * of 0.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench/peers/peer.h"
#include "bench/peers/wire.h"

struct beanstalk {
    struct wire *w;
    unsigned long long id[PEER_BATCH_MAX]; /* reserved and not deleted */
};

static void expect(struct wire *w, const char *begin)
{
    const char *line = wire_line(w);
    if (strncmp(line, begin, strlen(begin)) != 0)
        peer_die("beanstalkd says '%s' where %s is due", line, begin);
}

static void *b_open(struct peer_run *r, bool worker)
{
    struct beanstalk *b = calloc(1, sizeof *b);
    if (!b)
        peer_die("no memory");
    b->w = wire_open(r->address);
    wire_printf(b->w, "use %s-%s\r\nwatch %s-%s\r\n", worker ? "answers" : "tasks", r->name,
                worker ? "tasks" : "answers", r->name);
    wire_printf(b->w, "ignore default\r\n");
    wire_flush(b->w);
    expect(b->w, "USING");
    expect(b->w, "WATCHING");
    expect(b->w, "WATCHING");
    return b;
}

static void b_close(void *p)
{
    struct beanstalk *b = p;
    wire_close(b->w);
    free(b);
}

static void put(struct wire *w, const void *v, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        wire_put(w, "put 0 0 60 8\r\n", 14);
        wire_put(w, (const char *)v + 8 * i, 8);
        wire_put(w, "\r\n", 2);
    }
}

static unsigned reserve(struct beanstalk *b, void *v, unsigned max)
{
    char end[2];
    unsigned n = 0;
    wire_printf(b->w, "reserve\r\n");
    for (unsigned i = 1; i < max; i++)
        wire_printf(b->w, "reserve-with-timeout 0\r\n");
    wire_flush(b->w);
    for (unsigned i = 0; i < max; i++) {
        const char *line = wire_line(b->w);
        if (strcmp(line, "TIMED_OUT") == 0)
            continue;
        if (sscanf(line, "RESERVED %llu 8", &b->id[n]) != 1)
            peer_die("beanstalkd says '%s' to a reserve", line);
        wire_bytes(b->w, (char *)v + 8 * n++, 8);
        wire_bytes(b->w, end, 2);
    }
    return n;
}

static void delete (struct beanstalk *b, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        wire_printf(b->w, "delete %llu\r\n", b->id[i]);
}

static void b_send(void *p, const int64_t *arg, unsigned n)
{
    struct beanstalk *b = p;
    put(b->w, arg, n);
    wire_flush(b->w);
    for (unsigned i = 0; i < n; i++)
        expect(b->w, "INSERTED");
}

static unsigned b_take(void *p, uint64_t *answer, unsigned max)
{
    struct beanstalk *b = p;
    unsigned n = reserve(b, answer, max < 512 ? max : 512);
    delete (b, n);
    wire_flush(b->w);
    for (unsigned i = 0; i < n; i++)
        expect(b->w, "DELETED");
    return n;
}

static unsigned b_get(void *p, int64_t *arg, unsigned max)
{
    return reserve(p, arg, max);
}

static void b_put(void *p, const uint64_t *answer, unsigned n)
{
    struct beanstalk *b = p;
    put(b->w, answer, n);
    delete (b, n);
    wire_flush(b->w);
    for (unsigned i = 0; i < n; i++)
        expect(b->w, "INSERTED");
    for (unsigned i = 0; i < n; i++)
        expect(b->w, "DELETED");
}

static const struct peer_ops *choose(const char *mode)
{
    static const struct peer_ops ops = {.open = b_open,
                                        .close = b_close,
                                        .send = b_send,
                                        .take = b_take,
                                        .get = b_get,
                                        .put = b_put};
    return strcmp(mode, "tubes") == 0 ? &ops : NULL;
}

int main(int argc, char **argv)
{
    return peer_main(argc, argv, choose);
}
