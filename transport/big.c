/* SPDX-License-Identifier: MIT
 *
 * big.c - see big.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/error.h"
#include "transport/big.h"

/* A part smaller than this is not worth a record while a fresh batch would hold more. */
#define PART_MIN 256u

int big_send(struct big_queue *q, const struct record *r, const uint8_t *data, void *owned)
{
    struct big_out *b = calloc(1, sizeof *b);
    if (!b) {
        free(owned);
        return err_set(-ENOMEM, "no memory to send %u bytes", r->len);
    }
    b->head = *r;
    b->head.flags |= REC_BIG;
    b->head.payload = NULL;
    b->data = data;
    b->owned = owned;
    if (q->last)
        q->last->next = b;
    else
        q->first = b;
    q->last = b;
    q->n++;
    return 0;
}

static void pop(struct big_queue *q)
{
    struct big_out *b = q->first;
    q->first = b->next;
    if (!q->first)
        q->last = NULL;
    q->n--;
    free(b->owned);
    free(b);
}

/* Room for a record of want bytes or, in what is left of this batch, at least least bytes. *have
 * says how many; NULL: none now. */
static uint8_t *room(struct lane *lane, uint32_t want, uint32_t least, uint32_t *have)
{
    uint32_t sizes[3] = {want, (want / 2) & ~7u, least};
    for (int i = 0; i < 3; i++) {
        if (sizes[i] < least || sizes[i] > want)
            continue;
        uint8_t *p = lane_tx_room(lane, sizes[i]);
        if (p) {
            *have = sizes[i];
            return p;
        }
    }
    return NULL;
}

/* One record of the first transfer. Its bytes; 0: no room now. */
static uint32_t put_part(struct big_queue *q, struct lane *lane)
{
    struct big_out *b = q->first;
    uint32_t left = b->head.len - b->off, have;
    if (!b->announced) {
        uint8_t *p = lane_tx_room(lane, rec_size(&b->head));
        if (!p)
            return 0;
        rec_put(p, &b->head);
        lane_tx_add(lane, rec_size(&b->head));
        b->announced = true;
        return rec_size(&b->head);
    }
    uint32_t most = lane_tx_max(lane) - REC_HEAD;
    uint32_t want = left < most ? left : most & ~7u;
    uint32_t least = want < PART_MIN ? want : PART_MIN;
    uint8_t *p = room(lane, REC_HEAD + REC_PAD(want), REC_HEAD + REC_PAD(least), &have);
    if (!p)
        return 0;
    uint32_t part = have - REC_HEAD < left ? have - REC_HEAD : left;
    struct record r = {
        .type = REC_DATA, .len = part, .ref = b->head.ref, .payload = b->data + b->off};
    rec_put(p, &r);
    lane_tx_add(lane, rec_size(&r));
    b->off += part;
    if (b->off == b->head.len)
        pop(q);
    return rec_size(&r);
}

long big_pump(struct big_queue *q, struct lane *lane)
{
    long sum = 0;
    while (q->first) {
        uint32_t n = put_part(q, lane);
        if (n == 0) {
            /* this batch is full: send it and try the next cell */
            int rc = lane_tx_flush(lane);
            if (rc < 0 && rc != -EAGAIN)
                return rc;
            if (rc != 1 || (n = put_part(q, lane)) == 0)
                break;
        }
        sum += n;
    }
    return sum;
}

void big_drop(struct big_queue *q)
{
    while (q->first)
        pop(q);
}

int big_feed(struct big_in *in, const struct record *r, uint64_t limit)
{
    if (r->type != REC_DATA) {
        if (in->active)
            return err_set(-EPROTO, "a large payload begins before the one before it ended");
        if (r->len == 0)
            return err_set(-EPROTO, "a large payload of no bytes");
        in->over = r->len > limit;
        in->data = in->over || !in->room ? NULL : in->room(in->owner, r);
        if (!in->over && !in->data)
            in->data = malloc(((size_t)r->len + 7) & ~(size_t)7);
        if (!in->over && !in->data)
            return err_set(-ENOMEM, "no memory for a payload of %u bytes", r->len);
        in->active = true;
        in->head = *r;
        in->got = 0;
        return 0;
    }
    /* a DATA record announced as a large one itself has no bytes */
    if (!in->active || !r->payload || r->ref != in->head.ref || r->len > in->head.len - in->got)
        return err_set(-EPROTO, "a part of a large payload does not fit what was announced");
    if (!in->over)
        memcpy(in->data + in->got, r->payload, r->len);
    in->got += r->len;
    return in->got == in->head.len;
}

uint8_t *big_take(struct big_in *in)
{
    uint8_t *data = in->data;
    in->data = NULL;
    in->active = false;
    return data;
}

void big_in_drop(struct big_in *in)
{
    if (in->data && in->unroom)
        in->unroom(in->owner, in->data);
    else
        free(in->data);
    in->data = NULL;
    in->active = false;
}
