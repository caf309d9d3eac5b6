/* SPDX-License-Identifier: MIT
 *
 * lane.c - batches in cells, credits, the two ways to move a batch; see lane.h.
 *
 * Memory of one side, one registered region:
 *   tx cells   [cells]  batches are built here and stay until the transport is done with them
 *   rx cells   [cells]  SEND: receive buffers; WRITE: where the peer writes
 *   notes      [cells + NOTES]  WRITE's receives: announcements, small batches, bare heads
 *   last   [1]       the message of lane_tx_settle()
 *
 * In SEND mode a bare head may land in any posted receive. Its receive is posted again at once and
 * takes no credit; NOTES more receives than cells are posted so that one always fits. (Were there
 * none, both providers hold the message back and lose nothing.)
 *
 * A receive that the transport refuses for now (-EAGAIN) is remembered and posted at the next event
 * or flush; what arrives meanwhile is held back by the transport.
 */
#include <endian.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/pages.h"
#include "transport/lane_parts.h"

#define NOTES 2u
#define NOTE  LANE_NOTE
#define HEAD  ((uint32_t)sizeof(struct lane_head))
#define NO_RX UINT32_MAX
#define ALONE (HEAD + SEAL_TAG) /* most of a head without a batch */

uint32_t lane_ops(uint32_t cells)
{
    /* receiving: a cell each and the notes; sending: a write and its announcement a cell, and bare
     * heads */
    return 2 * cells + 2 * NOTES + 2 * DIRECT_MAX;
}

int lane_choose(enum lane_mode wanted, const struct tr_caps *caps)
{
    if (wanted == LANE_AUTO)
        return strcmp(caps->provider, "verbs") == 0 && caps->one_sided ? LANE_WRITE : LANE_SEND;
    if (wanted == LANE_WRITE && !caps->one_sided)
        return err_set(-ENOTSUP, "%s has no one-sided writes: set fabric.lane = \"send\"",
                       caps->provider);
    return wanted;
}

static bool params_sound(const struct lane_params *p)
{
    return (p->mode == LANE_SEND || (p->mode == LANE_WRITE && !p->tx_seal.on && !p->rx_seal.on)) &&
           p->tx_seal.on == p->rx_seal.on && p->cell >= 1024 &&
           p->cell % 64 == 0 && p->cell <= 1u << 20 && p->cells >= 2 && p->cells <= 256 &&
           !(p->cells & (p->cells - 1));
}

int lane_new(struct lane **out, const struct tr_ops *tr, struct tr_domain *dom,
             const struct lane_params *p, struct tr_remote *exported)
{
    struct lane *l = NULL;
    struct tr_caps caps;
    int rc = -ENOMEM;
    if (!params_sound(p))
        return err_set(-EPROTO, "lane of mode %d, %u cells of %u bytes", (int)p->mode, p->cells,
                       p->cell);
    l = calloc(1, sizeof *l);
    if (!l)
        return err_set(-ENOMEM, "no memory for a lane");
    tr->caps(dom, &caps);
    if (caps.inject_max < HEAD + seal_tail(&p->tx_seal)) {
        free(l);
        return err_set(-ENOTSUP, "%s (%s) sends %u bytes at once at most; a lane needs %u",
                       caps.provider, caps.device, caps.inject_max,
                       HEAD + seal_tail(&p->tx_seal));
    }
    l->tr = tr;
    l->dom = dom;
    l->p = *p;
    l->inject_max = caps.inject_max;
    lane_direct_new(l, &caps);
    l->receives = p->cells + NOTES;
    /* in SEND mode every receive may get a whole batch */
    size_t rx_len = (size_t)p->cell * (p->mode == LANE_SEND ? l->receives : p->cells);
    l->mem_len = (size_t)p->cell * p->cells + rx_len + (size_t)NOTE * (l->receives + 1);
    l->mem_len = (l->mem_len + 4095) & ~(size_t)4095;
    /* Fresh zero pages, of which an idle peer's lane uses few: a thousand of them fit. */
    l->mem = pages_new(l->mem_len);
    l->nrefs = p->cells + l->receives;
    l->refs = calloc(l->nrefs, sizeof *l->refs);
    l->again = calloc(l->receives, sizeof *l->again);
    l->tx_free = calloc(p->cells, sizeof *l->tx_free);
    l->ready = calloc(p->cells, sizeof *l->ready);
    if (!l->mem || !l->refs || !l->again || !l->tx_free || !l->ready) {
        err_set(rc, "no memory for a lane of %u cells of %u bytes", p->cells, p->cell);
        goto fail;
    }
    l->tx = l->mem;
    l->rx = l->tx + (size_t)p->cell * p->cells;
    l->notes = l->rx + rx_len;
    l->last = l->notes + (size_t)NOTE * l->receives;
    l->credits = p->cells;
    while (l->tx_free_n < p->cells) {
        l->tx_free[l->tx_free_n] = p->cells - 1 - l->tx_free_n;
        l->tx_free_n++;
    }
    /* The region as a whole is registered for our own use; a peer that writes gets a region of the
     * rx cells alone. */
    rc = tr->mr_reg(dom, l->mem, l->mem_len, TR_LOCAL, &l->mr, NULL);
    if (rc < 0)
        goto fail;
    if (p->mode == LANE_WRITE) {
        rc = tr->mr_reg(dom, l->rx, rx_len, TR_PEER_WRITES, &l->rx_mr, exported);
        if (rc < 0)
            goto fail;
    } else {
        memset(exported, 0, sizeof *exported);
    }
    *out = l;
    return 0;
fail:
    lane_free(l);
    return rc;
}

int lane_peer(struct lane *l, const struct tr_remote *to)
{
    if (l->p.mode == LANE_WRITE && to->len < (uint64_t)l->p.cell * l->p.cells)
        return err_set(-EPROTO, "the peer's lane of %llu bytes is too small",
                       (unsigned long long)to->len);
    l->to = *to;
    return 0;
}

int lane_close(struct lane *l, int why)
{
    if (!l->closed)
        l->closed = why;
    return why;
}

static int try_receive(struct lane *l, uint32_t i)
{
    struct cell_ref *ref = &l->refs[l->p.cells + i];
    ref->kind = REF_RX;
    ref->index = i;
    bool send = l->p.mode == LANE_SEND;
    return l->tr->post_recv(l->ep,
                            send ? l->rx + (size_t)i * l->p.cell : l->notes + (size_t)i * NOTE,
                            send ? l->p.cell : NOTE, l->mr, ref);
}

static int post_receive(struct lane *l, uint32_t i)
{
    int rc = l->again_n ? -EAGAIN : try_receive(l, i);
    if (rc == -ENOTCONN) /* it has ended; TR_CLOSED comes behind what had arrived */
        return 0;
    if (rc != -EAGAIN)
        return rc;
    l->again[l->again_n++] = i;
    return 0;
}

/* Those that were refused before. */
static int post_again(struct lane *l)
{
    while (l->again_n > 0) {
        int rc = try_receive(l, l->again[l->again_n - 1]);
        if (rc < 0)
            return rc == -EAGAIN || rc == -ENOTCONN ? 0 : rc;
        l->again_n--;
    }
    return 0;
}

int lane_bind(struct lane *l, struct tr_ep *ep)
{
    l->ep = ep;
    for (uint32_t i = 0; i < l->receives; i++) {
        int rc = post_receive(l, i);
        if (rc < 0)
            return rc;
    }
    CRASH_POINT("lane.bound");
    return 0;
}

void lane_free(struct lane *l)
{
    if (l->rx_mr)
        l->tr->mr_close(l->rx_mr);
    if (l->mr)
        l->tr->mr_close(l->mr);
    sodium_memzero(&l->p, sizeof l->p);
    pages_free(l->mem, l->mem_len);
    free(l->refs);
    free(l->again);
    free(l->tx_free);
    free(l->ready);
    free(l);
}

/* ---- receiving ---- */

/* len: of the message, head and all. */
static int take_head(struct lane *l, uint8_t *from, uint32_t len, struct lane_head *h)
{
    uint32_t tail = seal_tail(&l->p.rx_seal);
    memcpy(h, from, sizeof *h); /* read once */
    h->seq = le32toh(h->seq);
    h->len = le32toh(h->len);
    h->incarnation = le32toh(h->incarnation);
    h->credits = le16toh(h->credits);
    h->records = le16toh(h->records);
    if (tail) {
        if (h->len != len - HEAD - tail)
            return err_set(-EBADMSG, "a sealed batch of %u bytes in a message of %u: it was changed on its way",
                           h->len, len);
        int rc = seal_open(&l->p.rx_seal, from, HEAD, from + HEAD, h->len);
        if (rc < 0)
            return rc;
    }
    if (h->incarnation != l->p.incarnation)
        return err_set(-EPROTO, "a batch of another incarnation of the link");
    if (h->credits > l->p.cells - l->credits)
        return err_set(-EPROTO, "the peer returns more credits than it had");
    l->credits += h->credits;
    return 0;
}

static int on_batch(struct lane *l, uint32_t rx, const struct lane_head *h, const uint8_t *data)
{
    if (h->seq != l->rx_seq)
        return err_set(-EPROTO, "batch %u came in place of %u", h->seq, l->rx_seq);
    if (h->len > l->p.cell - HEAD)
        return err_set(-EPROTO, "a batch of %u bytes does not fit its cell", h->len);
    if (l->ready_n + l->owed >= l->p.cells)
        return err_set(-EPROTO, "a batch without credit");
    struct ready *r = &l->ready[(l->ready_head + l->ready_n) & (l->p.cells - 1)];
    *r = (struct ready){.data = data, .len = h->len, .records = h->records, .rx = rx};
    l->ready_n++;
    l->rx_seq++;
    l->st.rx_batches++;
    l->st.rx_records += h->records;
    l->st.rx_bytes += h->len;
    return 0;
}

static int on_received(struct lane *l, uint32_t i, uint32_t len)
{
    struct lane_head h;
    bool send = l->p.mode == LANE_SEND;
    uint8_t *buf = send ? l->rx + (size_t)i * l->p.cell : l->notes + (size_t)i * NOTE;
    if (len < HEAD + seal_tail(&l->p.rx_seal))
        return err_set(l->p.rx_seal.on ? -EBADMSG : -EPROTO, "a message of %u bytes is no batch", len);
    int rc = take_head(l, buf, len, &h);
    CRASH_POINT("lane.received");
    if (rc < 0)
        return rc;
    l->arrived++;
    if (h.len == 0) /* credits alone */
        return post_receive(l, i);
    if (send || len > HEAD) {
        if (h.len > len - HEAD)
            return err_set(-EPROTO, "a batch of %u bytes in a message of %u", h.len, len);
        return on_batch(l, i, &h, buf + HEAD);
    }
    rc = on_batch(l, NO_RX, &h, l->rx + (size_t)(h.seq & (l->p.cells - 1)) * l->p.cell + HEAD);
    CRASH_POINT("lane.announced");
    return rc < 0 ? rc : post_receive(l, i);
}

int lane_on_event(struct lane *l, const struct tr_event *ev)
{
    const struct cell_ref *ref = ev->ctx;
    int rc = 0;
    if (l->closed)
        return l->closed;
    /* bytes that did not go, or did not come: the ones after them are worth nothing */
    if (ev->error && (ev->kind == TR_SENT || ev->kind == TR_RECV))
        return lane_close(l, err_set(ev->error, "an operation of the lane failed"));
    switch (ev->kind) {
    case TR_SENT:
        if (ref->kind == REF_TX)
            l->tx_free[l->tx_free_n++] = ref->index;
        if (ref->kind == REF_WRITE || ref->kind == REF_READ)
            lane_direct_done(l, ref->kind);
        l->in_flight -= ref->kind != REF_READ;
        break;
    case TR_RECV:
        rc = on_received(l, ref->index, ev->len);
        break;
    case TR_CLOSED:
        rc = err_set(ev->error ? ev->error : -ECONNRESET, "the peer closed the connection");
        break;
    default:
        break;
    }
    if (rc == 0)
        rc = post_again(l);
    return rc < 0 ? lane_close(l, rc) : 0;
}

const void *lane_rx_next(struct lane *l, uint32_t *len, uint32_t *records)
{
    if (l->ready_n == 0 || l->closed == -EPROTO)
        return NULL;
    const struct ready *r = &l->ready[l->ready_head];
    *len = r->len;
    *records = r->records;
    return r->data;
}

void lane_rx_release(struct lane *l)
{
    const struct ready *r = &l->ready[l->ready_head];
    int rc = r->rx != NO_RX && !l->closed ? post_receive(l, r->rx) : 0;
    if (rc < 0)
        lane_close(l, rc);
    l->ready_head = (l->ready_head + 1) & (l->p.cells - 1);
    l->ready_n--;
    l->owed++;
    CRASH_POINT("lane.released");
}

/* ---- sending ---- */

uint32_t lane_tx_max(const struct lane *l)
{
    return l->p.cell - HEAD - seal_tail(&l->p.tx_seal);
}

uint32_t lane_tx_all(const struct lane *l)
{
    return lane_tx_max(l) * l->p.cells;
}

void *lane_tx_room(struct lane *l, uint32_t len)
{
    if (l->closed || l->written)
        return NULL;
    if (l->used == 0) {
        if (l->credits == 0 || l->tx_free_n == 0) {
            l->st.tx_stalls += l->credits == 0;
            return NULL;
        }
        l->tx_cell = l->tx_free[--l->tx_free_n];
        l->used = HEAD;
        l->records = 0;
    }
    /* 65535 records is what the head can count */
    if (len > l->p.cell - l->used - seal_tail(&l->p.tx_seal) || l->records == UINT16_MAX || l->sealed)
        return NULL;
    return l->tx + (size_t)l->tx_cell * l->p.cell + l->used;
}

void lane_tx_add(struct lane *l, uint32_t len)
{
    l->used += len;
    l->records++;
    CRASH_POINT("lane.added");
}

static struct lane_head make_head(const struct lane *l, uint32_t len, uint32_t records)
{
    return (struct lane_head){.seq = htole32(l->tx_seq),
                              .len = htole32(len),
                              .incarnation = htole32(l->p.incarnation),
                              .credits = htole16((uint16_t)l->owed),
                              .records = htole16((uint16_t)records)};
}

/* A head without a batch behind it, sealed where that is asked for. Returns its length. */
static uint32_t put_head(const struct lane *l, uint32_t len, uint32_t records, uint8_t to[ALONE])
{
    struct lane_head h = make_head(l, len, records);
    memcpy(to, &h, sizeof h);
    if (l->p.tx_seal.on)
        seal_put(&l->p.tx_seal, to, HEAD, to + HEAD, 0);
    return HEAD + seal_tail(&l->p.tx_seal);
}

static void head_sent(struct lane *l, uint32_t credits, bool injected)
{
    l->owed -= credits;
    l->injected = injected;
    l->sent++;
    seal_sent(&l->p.tx_seal);
}

/* A head alone, by injection: no buffer to keep. */
static int send_head(struct lane *l, uint32_t len, uint32_t records)
{
    uint8_t h[ALONE];
    uint32_t n = put_head(l, len, records, h);
    int rc = l->tr->post_send(l->ep, h, n, l->mr, NULL, TR_INJECT);
    if (rc == 0)
        head_sent(l, l->owed, true);
    return rc;
}

/* Puts the head before the batch in its cell, and seals it, once: a batch that could not be posted is
 * posted as it is. Returns the message's length. */
static uint32_t finish_batch(struct lane *l, uint8_t *cell)
{
    uint32_t tail = seal_tail(&l->p.tx_seal);
    if (!l->sealed) {
        struct lane_head h = make_head(l, l->used - HEAD, l->records);
        memcpy(cell, &h, sizeof h);
        l->sealed_credits = l->owed;
        if (tail)
            seal_put(&l->p.tx_seal, cell, HEAD, cell + HEAD, l->used - HEAD);
        l->sealed = tail > 0;
    }
    return l->used + tail;
}

static int post_batch(struct lane *l)
{
    uint32_t i = l->tx_cell, len = l->used - HEAD;
    uint8_t *cell = l->tx + (size_t)i * l->p.cell;
    struct cell_ref *ref = &l->refs[i];
    int rc;
    ref->kind = REF_TX;
    ref->index = i;
    if (l->p.mode == LANE_SEND || l->used <= NOTE) {
        uint32_t n = finish_batch(l, cell);
        bool inject = n <= l->inject_max;
        rc = l->tr->post_send(l->ep, cell, n, l->mr, ref, inject ? TR_INJECT : 0);
        if (rc < 0)
            return rc;
        l->sealed = false;
        head_sent(l, l->sealed_credits, inject);
        if (inject)
            l->tx_free[l->tx_free_n++] = i;
        else
            l->in_flight++;
        return 0;
    }
    if (!l->written) {
        rc = l->tr->post_write(l->ep, cell + HEAD, len, l->mr, &l->to,
                               (uint64_t)(l->tx_seq & (l->p.cells - 1)) * l->p.cell + HEAD, ref);
        if (rc < 0)
            return rc;
        l->in_flight++;
        l->written = true;
        CRASH_POINT("lane.written");
    }
    return send_head(l, len, l->records);
}

int lane_tx_flush(struct lane *l)
{
    int rc;
    if (l->closed)
        return err_set(-ENOTCONN, "the lane is closed");
    rc = post_again(l);
    if (rc < 0)
        return lane_close(l, rc);
    if (l->used > HEAD) {
        rc = post_batch(l);
        if (rc < 0)
            return rc == -EAGAIN ? rc : lane_close(l, rc);
        CRASH_POINT("lane.posted");
        l->st.tx_batches++;
        l->st.tx_records += l->records;
        l->st.tx_bytes += l->used - HEAD;
        l->written = false;
        l->used = 0;
        l->credits--;
        l->tx_seq++;
        return 1;
    }
    if (l->owed >= (l->p.cells + 1) / 2) {
        rc = send_head(l, 0, 0);
        CRASH_POINT("lane.credited");
        if (rc < 0)
            return rc == -EAGAIN ? rc : lane_close(l, rc);
    }
    return 0;
}

int lane_tx_settle(struct lane *l)
{
    uint8_t h[ALONE];
    if (l->closed)
        return err_set(-ENOTCONN, "the lane is closed");
    if (!lane_tx_idle(l) || !l->injected)
        return lane_tx_idle(l);
    uint32_t n = put_head(l, 0, 0, h);
    memcpy(l->last, h, n);
    l->last_ref.kind = REF_LAST;
    CRASH_POINT("lane.settling");
    int rc = l->tr->post_send(l->ep, l->last, n, l->mr, &l->last_ref, 0);
    if (rc < 0)
        return rc == -EAGAIN ? 0 : lane_close(l, rc);
    head_sent(l, l->owed, false);
    l->in_flight++;
    return 0;
}

void lane_counts(const struct lane *l, uint32_t *sent, uint32_t *arrived)
{
    *sent = l->sent;
    *arrived = l->arrived;
}

uint32_t lane_credits(const struct lane *l)
{
    return l->credits;
}

uint32_t lane_cells(const struct lane *l)
{
    return l->p.cells;
}

void lane_stats(const struct lane *l, struct lane_stats *out)
{
    *out = l->st;
    out->credits = l->credits;
}

bool lane_tx_idle(const struct lane *l)
{
    return l->in_flight == 0 && l->used <= HEAD;
}

bool lane_tx_gathered(const struct lane *l)
{
    return !l->closed && l->used > HEAD;
}

bool lane_tx_blocked(const struct lane *l)
{
    if (l->closed || l->used > HEAD)
        return true;
    return l->used == 0 && (l->credits == 0 || l->tx_free_n == 0);
}
