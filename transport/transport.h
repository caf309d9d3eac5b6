/* SPDX-License-Identifier: MIT
 *
 * transport.h - what a transport must do: the table of functions, each with its promise.
 *
 * A transport moves bytes between the memory of two processes, by messages
 * (send into a posted receive buffer) and, where it can, by one-sided writes
 * into memory the other side exported, and reads out of it. It knows nothing of tasks, lanes or
 * keys. Lanes (lane.h) are built on it, and everything above on lanes.
 *
 * Threads: a domain and all that was opened from it belong to one thread. No
 * function blocks, and none allocates after tr_domain_open/listen/connect/
 * accept/mr_reg. No callback: poll() is the only source of events.
 *
 * Order: operations posted to one endpoint complete at the other side in the
 * order they were posted (FIFO an endpoint, writes and sends alike). Nothing is
 * promised between endpoints.
 *
 * Life of an endpoint: connect/accept -> TR_CONNECTED -> posts -> ep_shutdown or
 * TR_CLOSED -> every operation still open is reported once, with -ECANCELED (or its real
 * outcome) -> ep_free. ep_free before that drops the remaining reports.
 *
 * Failure: a function that returns < 0 has done nothing. An endpoint that
 * breaks reports TR_CLOSED once; later posts to it return -ENOTCONN.
 */
#ifndef FABRIC_TRANSPORT_H
#define FABRIC_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define TR_PRIVATE_MAX 48 /* bytes of connect data every provider carries (verbs: 56) */
#define TR_ADDR_MAX    64 /* a provider address, as exchanged on the control channel */

struct tr_domain;
struct tr_listener;
struct tr_ep;
struct tr_mr;

struct tr_opts {
    const char *provider; /* "tcp" or "verbs" */
    const char *domain;   /* provider's domain (device) name, "" or NULL: any */
    const char *host; /* listening side: local address to bind; connecting side: peer's address */
    const char *port; /* "0" or NULL: any */
    bool listening;
    uint32_t eps_max;    /* endpoints open at once; sizes the queues */
    uint32_t ops_per_ep; /* operations an endpoint has open at once, each direction */
};

struct tr_caps {
    const char *provider; /* "tcp", "verbs" */
    char device[64];      /* domain name */
    bool one_sided;       /* post_write and post_read work */
    bool by_copy;         /* what is posted is copied, in order: mr may be NULL, and a write is reported
                           * as done before anything that was posted after it arrives */
    uint32_t inject_max;  /* sends up to this many bytes may be posted TR_INJECT */
    uint64_t msg_max;     /* largest send or write */
};

/* Where a peer may write, or read: the other side's exported memory. Goes over the wire as is
 * (little-endian). */
struct tr_remote {
    uint64_t addr; /* address or offset to name in post_write, post_read for the region's first byte */
    uint64_t key;
    uint64_t len;
};

enum tr_event_kind {
    TR_CONNREQ, /* listener: a peer asks; ev.data is its connect data; answer with accept or reject
                 */
    TR_CONNECTED, /* ep: posts may begin */
    TR_CLOSED,    /* ep: the peer went, refused, or the link broke; ev.error says which (-errno) */
    TR_RECV,      /* ep: a message arrived in the receive buffer ctx; ev.len bytes */
    TR_SENT,      /* ep: the send, write or read ctx is done with its buffer; ev.error 0 or -errno */
};

struct tr_event {
    enum tr_event_kind kind;
    int error;
    struct tr_ep *ep; /* for TR_CONNREQ: NULL */
    void *ep_ctx;     /* what tr_ep_context() set */
    void *ctx;        /* the operation's */
    uint32_t len;
    void *request; /* TR_CONNREQ: to be handed to accept or reject, exactly once */
    uint8_t data[TR_PRIVATE_MAX];
    uint32_t data_len;
};

enum tr_flags {
    TR_INJECT = 1, /* the buffer is free again when the post returns; no TR_SENT follows */
};

/* What else than local use memory is registered for. */
enum tr_access {
    TR_LOCAL,
    TR_PEER_WRITES,
    TR_PEER_READS,
};

struct tr_ops {
    size_t size; /* sizeof(struct tr_ops) of whoever filled the table */
    const char *name;

    /* Opens a domain: all memory and queues that endpoints will share. -ENODEV with a message that
     * says what to install or load when the provider has no device. */
    int (*domain_open)(struct tr_domain **dom, const struct tr_opts *opts);
    void (*domain_close)(struct tr_domain *dom); /* after everything opened from it is closed */
    void (*caps)(const struct tr_domain *dom, struct tr_caps *out);

    /* Starts to listen on opts.host:opts.port; *addr gets the address to give to connecting peers.
     */
    int (*listen)(struct tr_domain *dom, struct tr_listener **out, uint8_t addr[TR_ADDR_MAX],
                  uint32_t *addr_len);
    void (*listener_close)(struct tr_listener *l);

    /* Starts to connect; the outcome is TR_CONNECTED or TR_CLOSED. data: at most TR_PRIVATE_MAX
     * bytes. */
    int (*connect)(struct tr_domain *dom, struct tr_ep **out, const uint8_t *addr,
                   uint32_t addr_len, const void *data, uint32_t data_len);
    /* Answers a TR_CONNREQ. accept: receives may be posted to *out at once, before TR_CONNECTED. */
    int (*accept)(struct tr_domain *dom, struct tr_ep **out, void *request);
    void (*reject)(struct tr_domain *dom, void *request);
    void (*ep_context)(struct tr_ep *ep, void *ctx);
    /* Ends the connection: the peer sees TR_CLOSED; open operations come back through poll. */
    void (*ep_shutdown)(struct tr_ep *ep);
    void (*ep_free)(struct tr_ep *ep);

    /* Registers memory for local use and for what access says. */
    int (*mr_reg)(struct tr_domain *dom, void *buf, size_t len, enum tr_access access,
                  struct tr_mr **out, struct tr_remote *exported);
    void (*mr_close)(struct tr_mr *mr);

    /* Posts. 0: the transport owns buf until exactly one completion with ctx (none for TR_INJECT).
     * -EAGAIN: nothing happened, poll first. */
    int (*post_recv)(struct tr_ep *ep, void *buf, size_t len, struct tr_mr *mr, void *ctx);
    int (*post_send)(struct tr_ep *ep, const void *buf, size_t len, struct tr_mr *mr, void *ctx,
                     uint32_t flags);
    /* Optional (caps.one_sided), else -ENOSYS. Writes into the peer's exported memory, offset bytes
     * behind its start. The target gets no event: a send posted to the same endpoint after it
     * arrives after the bytes do. */
    int (*post_write)(struct tr_ep *ep, const void *buf, size_t len, struct tr_mr *mr,
                      const struct tr_remote *to, uint64_t offset, void *ctx);
    /* Optional as well. Reads out of the peer's exported memory; buf has the bytes when ctx is reported.
     * The other side gets no event. How many bytes a peer that does not keep to the protocol has sent is
     * not promised, only that none lies outside of buf. */
    int (*post_read)(struct tr_ep *ep, void *buf, size_t len, struct tr_mr *mr,
                     const struct tr_remote *from, uint64_t offset, void *ctx);

    /* Progress, and up to max events. Bounded work, no blocking, no allocation. */
    int (*poll)(struct tr_domain *dom, struct tr_event *ev, int max);
    /* The descriptors to wait on (readable = poll), at most 2; returns how many. */
    int (*fds)(struct tr_domain *dom, int fd[2]);
    /* Before sleeping on fds: 0 = armed, may sleep; -EAGAIN = events wait, poll instead. */
    int (*arm)(struct tr_domain *dom);
};

/* The libfabric transport (ofi.c): tcp and verbs through FI_EP_MSG. */
extern const struct tr_ops tr_ofi;

#endif
