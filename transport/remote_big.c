/* SPDX-License-Identifier: MIT
 *
 * remote_big.c - large payloads that come to a remote handle: arguments of leases, and outcomes.
 *
 * One that fabricd offers to write is given memory, which is registered for its writes until the
 * last one has come, and told of by CLEAR. Where that can't be had the bytes come in records.
 *
 * Memory of arguments is used again: fresh pages cost as much as the bytes that come into them.
 *
 * Threads: the handle's. Failure: a payload that does not fit what was announced ends the link.
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include "core/error.h"
#include "transport/remote.h"

/* What is kept for being used again. */
#define SPARE_MIN (32u << 10)
#define SPARE_MAX (4u << 20)

static uint8_t *room(void *owner, const struct record *head)
{
    struct remote *r = owner;
    for (uint32_t i = 0; i < r->spares; i++) {
        uint8_t *p = r->spare[i];
        size_t have = malloc_usable_size(p);
        if (have >= REC_PAD(head->len) && have / 2 <= head->len) {
            r->spare[i] = r->spare[--r->spares];
            return p;
        }
    }
    return NULL;
}

void remote_spare(struct remote *r, void *data)
{
    size_t have = data ? malloc_usable_size(data) : 0;
    if (have < SPARE_MIN || have > SPARE_MAX) {
        free(data);
        return;
    }
    if (r->spares == REMOTE_SPARES) /* sizes change: the oldest goes */
        free(r->spare[--r->spares]);
    r->spare[r->spares++] = data;
}

static void unroom(void *owner, uint8_t *data)
{
    remote_spare(owner, data);
}

void remote_big_open(struct remote *r)
{
    for (uint32_t i = 0; i < REMOTE_BIG; i++) {
        struct big_in *in = &r->big[i].in;
        *in = (struct big_in){.room = room, .unroom = unroom, .owner = r};
    }
}

static void conceal(struct remote *r, struct remote_big *b)
{
    if (b->mr)
        r->tr->mr_close(b->mr);
    b->mr = NULL;
    b->in.exposed = b->clear_due = false;
}

static void expose(struct remote *r, struct remote_big *b)
{
    b->clear_due = true;
    if (r->tr->mr_reg(r->dom, b->in.data, b->in.head.len, TR_PEER_WRITES, &b->mr, &b->at) < 0)
        b->mr = NULL;
    b->in.exposed = b->mr != NULL;
}

bool remote_big_coming(const struct remote *r)
{
    for (uint32_t i = 0; i < REMOTE_BIG; i++)
        if (r->big[i].in.exposed)
            return true;
    return false;
}

int remote_big_clear(struct remote *r)
{
    int n = 0;
    for (uint32_t i = 0; i < REMOTE_BIG; i++) {
        struct remote_big *b = &r->big[i];
        uint8_t where[BIG_CLEAR_LEN];
        struct record rec = {.type = REC_CLEAR,
                             .priority = b->in.head.type,
                             .len = b->mr ? sizeof where : 0,
                             .ref = b->in.head.ref,
                             .payload = where};
        if (!b->clear_due)
            continue;
        if (b->mr)
            big_put_clear(where, &b->at);
        if (!remote_try_put(r, &rec))
            break;
        b->clear_due = false;
        n++;
    }
    return n;
}

/* Where rec belongs: a transfer's announcement to a free place, a part to its transfer. */
static struct remote_big *place_of(struct remote *r, const struct record *rec)
{
    for (uint32_t i = 0; i < REMOTE_BIG; i++) {
        struct big_in *in = &r->big[i].in;
        if (rec->type == REC_DATA
                ? in->active && in->head.ref == rec->ref && in->head.type == rec->priority
                : !in->active)
            return &r->big[i];
    }
    return NULL;
}

int remote_on_big(struct remote *r, const struct record *rec, struct record *whole, uint8_t **data)
{
    struct remote_big *b = place_of(r, rec);
    if (!b)
        return err_set(-EPROTO, "a large payload, or a part of one, that was not expected");
    int rc = big_feed(&b->in, rec, FAB_ARG_MAX);
    if (rc >= 0 && b->in.over)
        return err_set(-EMSGSIZE, "a payload of %u bytes is over the limit of %u", b->in.head.len,
                       FAB_ARG_MAX);
    if (rc == 0 && rec->type != REC_DATA && rec->flags & REC_DIRECT)
        expose(r, b);
    if (rc != 1)
        return rc;
    conceal(r, b); /* from here on the bytes are ours alone */
    *whole = b->in.head;
    *data = big_take(&b->in);
    return 1;
}

void remote_big_drop(struct remote *r)
{
    big_conceal(&r->big_out);
    for (uint32_t i = 0; i < REMOTE_BIG; i++) {
        conceal(r, &r->big[i]);
        big_in_drop(&r->big[i].in);
    }
}

void remote_big_close(struct remote *r)
{
    remote_big_drop(r);
    while (r->spares > 0)
        free(r->spare[--r->spares]);
}
