/* SPDX-License-Identifier: MIT
 *
 * lane_direct.c - bytes that go past a lane's cells: written into memory that the peer has exported for
 * them, or read out of it; see lane.h.
 *
 * Their pieces are as large as what goes in LANE_DIRECT_NS of late, each direction by itself, and
 * DIRECT_MAX of them are open: the next is at hand when one is done, and a small record waits for
 * no more than these.
 *
 * Threads: the lane's. Failure: as lane.h says.
 */
#include <errno.h>
#include "core/clock.h"
#include "core/error.h"
#include "transport/lane_parts.h"

void lane_direct_new(struct lane *l, const struct tr_caps *caps)
{
    l->direct_ticks = clock_ticks_hz() / (1000000000u / LANE_DIRECT_NS);
    l->direct = caps->one_sided && caps->by_copy && !l->p.tx_seal.on; /* these bytes are not sealed */
    l->write = (struct direct){.ref.kind = REF_WRITE, .least = LANE_DIRECT_MIN * l->p.cell};
    l->read = (struct direct){.ref.kind = REF_READ, .least = LANE_READ_MIN * l->p.cell};
    l->write.piece = l->write.least;
    l->read.piece = l->read.least;
}

/* The oldest is done: how many bytes go in the time that a piece may take? */
void lane_direct_done(struct lane *l, uint8_t kind)
{
    struct direct *d = kind == REF_READ ? &l->read : &l->write;
    if (d->open == 0)
        return;
    uint64_t now = clock_ticks(), took = now > d->since ? now - d->since : 1;
    uint64_t most = LANE_DIRECT_MAX * l->p.cell;
    uint64_t fits = d->len[d->first] * l->direct_ticks / took;
    fits = fits < d->least ? d->least : fits < most ? fits : most;
    d->piece = (uint32_t)((3ull * d->piece + fits + 3) / 4) & ~63u;
    d->first = (d->first + 1) % DIRECT_MAX;
    d->since = now;
    d->open--;
}

/* An operation of len bytes was posted, with rc. */
static int posted(struct lane *l, struct direct *d, uint32_t len, int rc)
{
    if (rc < 0)
        return rc == -EAGAIN ? rc : lane_close(l, rc);
    if (d->open == 0)
        d->since = clock_ticks();
    d->len[(d->first + d->open++) % DIRECT_MAX] = len;
    return 0;
}

/* 0: one more may be open. */
static int may_post(const struct lane *l, const struct direct *d)
{
    if (l->closed)
        return err_set(-ENOTCONN, "the lane is closed");
    return d->open == DIRECT_MAX ? -EAGAIN : 0;
}

bool lane_is_direct(const struct lane *l)
{
    return l->direct;
}

uint32_t lane_write_piece(const struct lane *l)
{
    return l->write.piece;
}

int lane_write(struct lane *l, const void *buf, uint32_t len, const struct tr_remote *to,
               uint64_t offset)
{
    int rc = may_post(l, &l->write);
    if (rc < 0)
        return rc;
    rc = posted(l, &l->write, len,
                l->tr->post_write(l->ep, buf, len, NULL, to, offset, &l->write.ref));
    l->in_flight += rc == 0;
    return rc;
}

uint32_t lane_writes(const struct lane *l)
{
    return l->write.open;
}

uint32_t lane_read_piece(const struct lane *l)
{
    return l->read.piece;
}

int lane_read(struct lane *l, void *buf, uint32_t len, const struct tr_remote *from, uint64_t offset)
{
    int rc = may_post(l, &l->read);
    return rc < 0 ? rc
                  : posted(l, &l->read, len,
                           l->tr->post_read(l->ep, buf, len, NULL, from, offset, &l->read.ref));
}

uint32_t lane_reads(const struct lane *l)
{
    return l->read.open;
}

uint32_t lane_reads_bytes(const struct lane *l)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < l->read.open; i++)
        sum += l->read.len[(l->read.first + i) % DIRECT_MAX];
    return sum;
}

int lane_offer(struct lane *l, const void *buf, uint32_t len, struct lane_offer *out)
{
    out->tr = l->tr;
    return l->tr->mr_reg(l->dom, (void *)(uintptr_t)buf, len, TR_PEER_READS, &out->mr, &out->at);
}

void lane_offer_end(struct lane_offer *o)
{
    if (o->mr)
        o->tr->mr_close(o->mr);
    o->mr = NULL;
}
