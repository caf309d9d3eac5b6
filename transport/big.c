/* SPDX-License-Identifier: MIT
 *
 * big.c - see big.h.
 */
#include <endian.h>
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
    if (q->direct && r->len >= q->direct) {
        b->head.flags |= REC_DIRECT;
        b->how = BIG_WAITS;
    } else if (q->offer && r->len >= q->offer) {
        b->how = BIG_OFFERS;
    }
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
    lane_offer_end(&b->offer);
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

/* The announcements of the first transfer and, of those to be written, some more. */
static uint32_t announce(struct big_queue *q, struct lane *lane)
{
    uint32_t n = 0, sum = 0;
    for (struct big_out *b = q->first; b && n < BIG_ANNOUNCED; b = b->next, n++) {
        if (b != q->first && (b->how == BIG_RECORDS || b->how == BIG_OFFERS))
            break;
        if (b->announced)
            continue;
        uint8_t *p = lane_tx_room(lane, rec_size(&b->head));
        if (!p)
            break;
        rec_put(p, &b->head);
        lane_tx_add(lane, rec_size(&b->head));
        b->announced = true;
        sum += rec_size(&b->head);
    }
    return sum;
}

/* Bytes that are told of at once: a message of its own costs as much as copying 16 KiB. */
#define TOLD_BYTES (1u << 20)

/* Writes a piece of the first transfer, and says so now and then. Its bytes; 0: not now; < 0. */
static long write_part(struct big_queue *q, struct lane *lane)
{
    struct big_out *b = q->first;
    uint32_t left = b->head.len - b->off, piece = lane_write_piece(lane);
    if (left == 0) { /* its bytes are the caller's until the last write is done */
        if (lane_writes(lane) > 0)
            return 0;
        pop(q);
        return 1;
    }
    uint32_t len = left < piece ? left : piece;
    bool tell = len == left || b->off + len - b->told >= TOLD_BYTES;
    uint8_t *p = tell ? lane_tx_room(lane, REC_HEAD) : NULL;
    if (tell && !p)
        return 0;
    int rc = lane_write(lane, b->data + b->off, len, &b->to, b->off);
    if (rc < 0)
        return rc == -EAGAIN ? 0 : rc;
    b->off += len;
    if (!tell)
        return len;
    struct record r = {.type = REC_DATA,
                       .flags = REC_BIG,
                       .priority = b->head.type,
                       .len = b->off - b->told,
                       .ref = b->head.ref};
    rec_put(p, &r);
    lane_tx_add(lane, rec_size(&r));
    b->told = b->off;
    rc = lane_tx_flush(lane); /* behind the writes */
    return rc < 0 && rc != -EAGAIN ? rc : (long)len;
}

/* Says where the first transfer, which is announced, lies. The record's bytes; 0: no room now, or it can't
 * be offered. */
static uint32_t put_offer(struct big_out *b, struct lane *lane)
{
    uint8_t where[BIG_CLEAR_LEN];
    struct record r = {
        .type = REC_OFFER, .len = sizeof where, .ref = b->head.ref, .payload = where};
    uint8_t *p = lane_tx_room(lane, rec_size(&r));
    if (!p)
        return 0;
    if (lane_offer(lane, b->data, b->head.len, &b->offer) < 0) {
        b->how = BIG_RECORDS;
        return 0;
    }
    big_put_clear(where, &b->offer.at);
    rec_put(p, &r);
    lane_tx_add(lane, rec_size(&r));
    b->how = BIG_OFFERED;
    return rec_size(&r);
}

/* Something of the first transfer. Its bytes; 0: no room now; < 0. */
static long put_part(struct big_queue *q, struct lane *lane)
{
    struct big_out *b = q->first;
    uint32_t left = b->head.len - b->off, have, said = announce(q, lane);
    if (b->how == BIG_DIRECT) {
        long n = write_part(q, lane);
        return n < 0 ? n : n + said;
    }
    if (b->how == BIG_OFFERS && b->announced)
        said += put_offer(b, lane);
    if (said > 0 || !b->announced || b->how != BIG_RECORDS)
        return said;
    uint32_t most = lane_tx_max(lane) - REC_HEAD;
    uint32_t want = left < most ? left : most & ~7u;
    uint32_t least = want < PART_MIN ? want : PART_MIN;
    uint8_t *p = room(lane, REC_HEAD + REC_PAD(want), REC_HEAD + REC_PAD(least), &have);
    if (!p)
        return 0;
    uint32_t part = have - REC_HEAD < left ? have - REC_HEAD : left;
    struct record r = {.type = REC_DATA,
                       .priority = b->head.type,
                       .len = part,
                       .ref = b->head.ref,
                       .payload = b->data + b->off};
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
        long n = put_part(q, lane);
        if (n < 0)
            return n;
        if (n == 0) {
            /* this batch is full: send it and try the next cell */
            int rc = lane_tx_flush(lane);
            if (rc < 0 && rc != -EAGAIN)
                return rc;
            if (rc != 1 || (n = put_part(q, lane)) == 0)
                break;
            if (n < 0)
                return n;
        }
        sum += n;
    }
    return sum;
}

static struct tr_remote get_clear(const struct record *r)
{
    uint64_t v[3];
    memcpy(v, r->payload, sizeof v);
    return (struct tr_remote){.addr = le64toh(v[0]), .key = le64toh(v[1]), .len = le64toh(v[2])};
}

int big_cleared(struct big_queue *q, const struct record *r)
{
    struct big_out *b = q->first;
    while (b && !(b->announced && b->how == BIG_WAITS && b->head.ref == r->ref &&
                  b->head.type == r->priority))
        b = b->next;
    if (!b || (r->len != 0 && r->len != BIG_CLEAR_LEN))
        return err_set(-EPROTO, "a place for a large payload that was not announced");
    b->how = BIG_RECORDS;
    if (r->len == 0)
        return 0;
    b->to = get_clear(r);
    if (b->to.len < b->head.len)
        return err_set(-EPROTO, "a place too small for a large payload");
    b->how = BIG_DIRECT;
    return 0;
}

void big_put_clear(uint8_t to[BIG_CLEAR_LEN], const struct tr_remote *at)
{
    const uint64_t v[3] = {htole64(at->addr), htole64(at->key), htole64(at->len)};
    memcpy(to, v, sizeof v);
}

int big_was_read(struct big_queue *q, const struct record *r)
{
    struct big_out *b = q->first;
    if (!big_is_offered(q) || b->head.ref != r->ref || b->head.type != r->priority ||
        (r->len != 0 && (r->len <= b->off || r->len > b->head.len)))
        return err_set(-EPROTO, "a large payload is said to be read that was not offered");
    b->off = r->len;
    if (r->len > 0 && r->len < b->head.len)
        return 0; /* the wire is there, slow as it may be */
    lane_offer_end(&b->offer);
    if (r->len == 0)
        b->how = BIG_RECORDS;
    else
        pop(q);
    return 0;
}

void big_conceal(struct big_queue *q)
{
    for (struct big_out *b = q->first; b; b = b->next)
        lane_offer_end(&b->offer);
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
        in->exposed = in->offered = false;
        in->head = *r;
        in->got = in->asked = in->told = 0;
        return 0;
    }
    /* without a payload: its bytes were written */
    if (!in->active || in->offered || (!r->payload && !in->exposed) || r->ref != in->head.ref ||
        r->len > in->head.len - in->got)
        return err_set(-EPROTO, "a part of a large payload does not fit what was announced");
    if (!in->over && r->payload)
        memcpy(in->data + in->got, r->payload, r->len);
    in->got += r->len;
    return in->got == in->head.len;
}

int big_on_offer(struct big_in *in, const struct record *r)
{
    if (!in->active || in->offered || in->got > 0 || r->ref != in->head.ref ||
        r->len != BIG_CLEAR_LEN)
        return err_set(-EPROTO, "an offer of a large payload that was not announced");
    in->from = get_clear(r);
    if (in->from.len < in->head.len)
        return err_set(-EPROTO, "an offer of less than the large payload that was announced");
    in->offered = true;
    return 0;
}

int big_pull(struct big_in *in, struct lane *lane)
{
    while (!in->over && in->asked < in->head.len) {
        uint32_t left = in->head.len - in->asked, piece = lane_read_piece(lane);
        uint32_t len = left < piece ? left : piece;
        int rc = lane_read(lane, in->data + in->asked, len, &in->from, in->asked);
        if (rc == -EAGAIN)
            break;
        if (rc < 0)
            return rc;
        in->asked += len;
    }
    in->got = in->asked - lane_reads_bytes(lane);
    return in->over || in->got == in->head.len;
}

uint8_t *big_take(struct big_in *in)
{
    uint8_t *data = in->data;
    in->data = NULL;
    in->active = in->offered = false;
    return data;
}

void big_in_drop(struct big_in *in)
{
    if (in->data && in->unroom)
        in->unroom(in->owner, in->data);
    else
        free(in->data);
    in->data = NULL;
    in->active = in->offered = false;
}
