/* SPDX-License-Identifier: MIT
 *
 * lane.h - a lane pair: batches of records to and from one peer, in order, by credit.
 *
 * Each direction is a single-producer single-consumer ring of `cells` cells of
 * `cell` bytes. The sender builds a batch in a cell of its own registered
 * memory and posts it; the receiver reads it in place and releases the cell;
 * released cells travel back as credits in the header of the next batch the
 * other way, or in an empty batch once half of the cells are owed and nothing else goes that way. A
 * sender without credit posts nothing, so a receiver is never overrun and holds
 * a fixed amount of memory.
 *
 * Two ways to move a batch, same protocol: SEND into receive buffers that are
 * the receiver's cells; WRITE one-sidedly into the receiver's cell (the n-th batch into cell n mod
 * cells), announced by a send of the head alone; a batch of LANE_NOTE bytes or less goes into the
 * announcement itself, for one message has half the latency of two. (Not by immediate data: with
 * one completion queue for all links it could not be told whose it is, and one peer could disturb
 * another's lane.)
 *
 * Threads: one thread a lane pair, that of its transport domain.
 *
 * Trust: a batch header comes from the peer. Length, sequence, incarnation and credits are checked;
 * a batch that fails closes the lane with -EPROTO. The records inside are the next layer's to
 * check.
 *
 * Encrypted (seal.h), each batch is sealed in its cell when it is posted, the head readable and covered by
 * the tag, and opened in the receive buffer, which nobody else can write to in SEND mode. In WRITE mode
 * the peer's network card could alter a cell between its check and its use: not offered.
 *
 * A post that the transport refuses for now (-EAGAIN) is tried again at the next event or flush;
 * nothing is lost by it.
 *
 * Failure: an operation that comes back with an error closes the lane. After lane_on_event returned
 * < 0 the lane is closed: tx returns -ENOTCONN; rx gives what had arrived by then, and nothing when
 * the peer broke the protocol.
 */
#ifndef FABRIC_LANE_H
#define FABRIC_LANE_H

#include "transport/seal.h"
#include "transport/transport.h"

/* The bytes of a lane_write() or lane_read(), in cells, at least and at most; in between as many as have gone in
 * LANE_DIRECT_NS of late: small records wait behind two of them. Large pieces cost less: 1 MiB by
 * four writes took fabricd 280 us, by one 200. */
#define LANE_DIRECT_MIN 8u
#define LANE_READ_MIN   2u /* on a slow wire the other side hears after each piece that we are there */
#define LANE_DIRECT_MAX 32u
#define LANE_DIRECT_NS  300000u
#define LANE_NOTE 256u /* both sides', head included */

enum lane_mode { LANE_AUTO, LANE_WRITE, LANE_SEND };

/* Front of every cell, on the wire little-endian. */
struct lane_head {
    uint32_t seq;         /* batch number in this direction, from 0 */
    uint32_t len;         /* bytes behind the head, 0 for a bare credit return */
    uint32_t incarnation; /* the link's, agreed on the control channel */
    uint16_t credits;     /* cells released since the last batch the same way */
    uint16_t records;     /* number of records, for the next layer */
};

struct lane_params {
    enum lane_mode mode; /* not LANE_AUTO: decided before (lane_choose) */
    uint32_t cell;       /* bytes, multiple of 64 */
    uint32_t cells;      /* power of two, each direction */
    uint32_t incarnation;
    struct seal tx_seal, rx_seal; /* on: batches are encrypted; SEND mode only */
};

struct lane;

/* Operations that a lane of so many cells has open at once on its endpoint, each direction: for
 * tr_opts.ops_per_ep. */
uint32_t lane_ops(uint32_t cells);

/* The mode for wanted on caps: AUTO is SEND on tcp, WRITE on verbs; -ENOTSUP with a message when
 * the provider cannot do what was asked. */
int lane_choose(enum lane_mode wanted, const struct tr_caps *caps);

/* Makes a lane pair in dom: allocates and registers memory, nothing is posted. *exported is what
 * the peer needs to write to us (sent to it on the control channel). -ENOMEM names RLIMIT_MEMLOCK
 * when that is why. */
int lane_new(struct lane **out, const struct tr_ops *tr, struct tr_domain *dom,
             const struct lane_params *p, struct tr_remote *exported);
/* What the peer exported to us (WRITE mode). -EPROTO when it is too small for the agreed cells. */
int lane_peer(struct lane *l, const struct tr_remote *to);
/* Binds the endpoint and posts the receives. For the accepting side: right after accept. */
int lane_bind(struct lane *l, struct tr_ep *ep);
/* Frees it; the endpoint has been freed before. */
void lane_free(struct lane *l);

/* Feeds one event of this lane's endpoint. 0, or < 0: the lane is closed for this reason. */
int lane_on_event(struct lane *l, const struct tr_event *ev);

/* Room in the batch being built: pointer to `len` bytes, 8-byte aligned, or NULL when this batch
 * has no room (post it, try again) or no cell or credit is free (wait for events). lane_tx_add()
 * makes them part of the batch. */
void *lane_tx_room(struct lane *l, uint32_t len);
void lane_tx_add(struct lane *l, uint32_t len);
/* Most bytes one batch can hold. */
uint32_t lane_tx_max(const struct lane *l);
/* Most bytes that can be on their way before the peer has answered. */
uint32_t lane_tx_all(const struct lane *l);
/* Posts the batch being built, if it has records (or credits are due). Returns 1 posted, 0 nothing
 * to post, -EAGAIN: poll first (the batch is kept), < 0: closed. */
int lane_tx_flush(struct lane *l);

/* The next batch received: its bytes, length and record count in *len, *records; NULL when there is
 * none. The bytes are the caller's to read until lane_rx_release(), which must be called for each
 * batch in order. The peer can still write to them in WRITE mode: read once, then check. */
const void *lane_rx_next(struct lane *l, uint32_t *len, uint32_t *records);
void lane_rx_release(struct lane *l);

struct lane_stats {
    uint64_t tx_batches, tx_records, tx_bytes, rx_batches, rx_records, rx_bytes;
    uint64_t tx_stalls; /* lane_tx_room() refused for want of credit */
    uint32_t credits;   /* cells we may still send */
};
/* Batches that may be posted now, and the most that may be on their way. */
uint32_t lane_credits(const struct lane *l);
uint32_t lane_cells(const struct lane *l);
/* Messages posted so far, and arrived, bare credits among them: the other side's numbers are the same
 * when nothing is on its way. */
void lane_counts(const struct lane *l, uint32_t *sent, uint32_t *arrived);
void lane_stats(const struct lane *l, struct lane_stats *out);
/* Bytes straight into memory that the peer has exported for them, apart from its cells, or out of it.
 * False: this transport reads the memory later, or has no such writes, or the lane is encrypted. */
bool lane_is_direct(const struct lane *l);
/* The largest piece that may be written, or read, now. */
uint32_t lane_write_piece(const struct lane *l);
uint32_t lane_read_piece(const struct lane *l);
/* Writes such a piece; buf stays until lane_writes() is 0. What is flushed after it arrives after it.
 * 0; -EAGAIN: not now; < 0: closed. */
int lane_write(struct lane *l, const void *buf, uint32_t len, const struct tr_remote *to,
               uint64_t offset) __attribute__((warn_unused_result));
uint32_t lane_writes(const struct lane *l); /* still open */
/* Reads one; its bytes are there when lane_reads() is 0, and until then, or until the endpoint was freed, buf
 * stays. 0; -EAGAIN: not now; < 0: closed. */
int lane_read(struct lane *l, void *buf, uint32_t len, const struct tr_remote *from,
              uint64_t offset) __attribute__((warn_unused_result));
uint32_t lane_reads(const struct lane *l); /* still open */
uint32_t lane_reads_bytes(const struct lane *l); /* the bytes of these: they end in the order of their beginning */
/* Memory that the peer may read. Zeroed at the start; ended before the lane's domain is closed. */
struct lane_offer {
    const struct tr_ops *tr;
    struct tr_mr *mr;    /* NULL: it may not */
    struct tr_remote at; /* what the peer is told */
};
int lane_offer(struct lane *l, const void *buf, uint32_t len, struct lane_offer *out)
    __attribute__((warn_unused_result));
void lane_offer_end(struct lane_offer *o);
bool lane_tx_gathered(const struct lane *l); /* a batch is being built, or waits to be posted */
bool lane_tx_idle(const struct lane *l); /* no batch being built, none in flight */
/* After a flush: nothing more can be sent before an event of this lane's endpoint (a credit, a cell
 * that is free again, a refused batch that may be tried again). */
bool lane_tx_blocked(const struct lane *l);
/* Before the endpoint is shut down: has all that was posted gone out? 1 yes; 0 not yet: flush, poll
 * and ask again; < 0: closed. (Small batches go by injection, of whose end nothing is heard, and a
 * shutdown throws away what still waits in a verbs queue: so a last message that is heard of is
 * sent behind them.) */
int lane_tx_settle(struct lane *l);

#endif
