/* SPDX-License-Identifier: MIT
 *
 * lane_parts.h - between the files of a lane: lane.c (batches) and lane_direct.c (bytes that go past
 * them). Nobody else includes it.
 */
#ifndef FABRIC_LANE_PARTS_H
#define FABRIC_LANE_PARTS_H

#include "transport/lane.h"

/* lane_write()s open at once, and lane_read()s. */
#define DIRECT_MAX 2u

struct cell_ref { /* an operation's context */
    uint8_t kind;
    uint32_t index;
};
enum { REF_TX, REF_RX, REF_LAST, REF_WRITE, REF_READ };

struct ready { /* a received batch, not yet released */
    const uint8_t *data;
    uint32_t len, records, rx; /* rx: the receive it lies in, NO_RX: it was written */
};

/* One direction of what goes past the cells. */
struct direct {
    struct cell_ref ref;
    uint32_t open; /* operations */
    uint32_t len[DIRECT_MAX], first;
    uint64_t since; /* ticks: the last was done, or the first posted */
    uint32_t piece, least;
};

struct lane {
    const struct tr_ops *tr;
    struct tr_domain *dom;
    struct tr_ep *ep;
    struct lane_params p;
    struct tr_mr *mr, *rx_mr; /* all of it for us; the rx cells for the peer's writes */
    struct tr_remote to;
    uint8_t *mem;
    size_t mem_len;
    uint8_t *tx, *rx, *notes, *last;
    struct cell_ref *refs;
    struct cell_ref last_ref;
    bool direct; /* bytes may go past the cells */
    struct direct write, read;
    uint64_t direct_ticks;
    uint32_t nrefs, receives;
    uint32_t *again, again_n; /* receives that are still to be posted */
    uint32_t inject_max;
    int closed;

    uint32_t tx_seq;  /* of the batch being built, or the next one */
    uint32_t tx_cell; /* its cell, when there is one being built */
    uint32_t *tx_free, tx_free_n; /* the others that are free: the one used last is used next */
    uint32_t used;    /* bytes in the batch being built, HEAD included; 0: none */
    uint32_t records;
    bool written;     /* WRITE: the batch is written, its announcement is not yet posted */
    bool sealed;      /* it is encrypted, with `sealed_credits` in its head, and not yet posted */
    uint32_t sealed_credits;
    uint32_t credits; /* cells of the peer's we may fill */
    uint32_t in_flight; /* what was sent; reads are not */
    bool injected; /* since the last message that is heard of */

    uint32_t rx_seq;
    struct ready *ready; /* ring of cells entries */
    uint32_t ready_head, ready_n;
    uint32_t owed; /* credits to give back */
    uint32_t sent, arrived; /* messages, bare credits among them */
    struct lane_stats st;
};

/* lane.c: nothing more goes; returns why. */
int lane_close(struct lane *l, int why);
/* lane_direct.c: of a new lane; one of its operations is done. */
void lane_direct_new(struct lane *l, const struct tr_caps *caps);
void lane_direct_done(struct lane *l, uint8_t kind);

#endif
