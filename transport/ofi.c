/* SPDX-License-Identifier: MIT
 *
 * ofi.c - the libfabric transport: domain, memory, posts and polling. Connections are in ofi_ep.c.
 *
 * Providers "tcp" and "verbs" by the same path: FI_EP_MSG endpoints, one or two completion queues and
 * one event queue a domain, manual progress, FI_THREAD_DOMAIN. Memory registration modes are offered
 * and the provider's choice obeyed: tcp takes offsets and keys of ours (random, 64 bits), verbs
 * virtual addresses and keys of its own.
 *
 * Completion queues and waiting are in ofi_wait.c. The event queue is read when a sleep has ended, while a connection
 * is being made (which happens by looking at it), and now and then otherwise: a look costs as much as a
 * message.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>
#include "core/atomic.h"
#include "core/error.h"
#include "transport/ofi_internal.h"
#include "transport/ofi_load.h"

#define EQ_EVERY 64u

/* Before libfabric reads it, and while there is one thread. Who set it has the last word, and
 * domain_open() finds out. */
__attribute__((constructor)) static void no_registration_cache(void)
{
    (void)setenv("FI_MR_CACHE_MAX_COUNT", "0", 0);
}

int ofi_error(int rc, const char *what)
{
    int e = rc < 0 ? -rc : rc;
    /* libfabric's own numbers start at 256 and mean nothing to errno's readers */
    return err_set(e < 256 ? -e : -EIO, "%s: %s", what, fi_strerror(e));
}

/* Does the device read and write our memory itself? Then it is locked there. */
bool ofi_pins_memory(const struct tr_domain *d)
{
    return (d->info->domain_attr->mr_mode & FI_MR_ALLOCATED) != 0;
}

int ofi_pin_error(const struct tr_domain *d, int rc, const char *what)
{
    struct rlimit lim;
    if (rc != -FI_ENOMEM || !ofi_pins_memory(d) || getrlimit(RLIMIT_MEMLOCK, &lim) < 0 ||
        lim.rlim_cur == RLIM_INFINITY)
        return ofi_error(rc, what);
    return err_set(-ENOMEM,
                   "%s for %s: over the limit of locked memory (RLIMIT_MEMLOCK, %llu KiB here): "
                   "raise it with `ulimit -l`, LimitMEMLOCK= or limits.conf, or lower "
                   "fabric.lane_cells or fabric.lane_cell",
                   what, d->provider, (unsigned long long)lim.rlim_cur / 1024);
}

struct fi_info *ofi_hints(const struct tr_opts *opts)
{
    struct fi_info *h = fi_allocinfo();
    if (!h)
        return NULL;
    h->caps = FI_MSG | FI_RMA;
    h->ep_attr->type = FI_EP_MSG;
    h->addr_format = FI_SOCKADDR; /* IPv4 or IPv6, whichever the host is given in */
    h->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
    h->domain_attr->threading = FI_THREAD_DOMAIN;
    h->domain_attr->data_progress = FI_PROGRESS_MANUAL;
    h->domain_attr->control_progress = FI_PROGRESS_MANUAL;
    h->domain_attr->resource_mgmt = FI_RM_ENABLED;
    h->fabric_attr->prov_name = strdup(opts->provider);
    if (opts->domain && opts->domain[0])
        h->domain_attr->name = strdup(opts->domain);
    return h;
}

static int no_device(const struct tr_opts *opts, int rc)
{
    struct fi_info *hints, *any = NULL;
    if (strcmp(opts->provider, "verbs") != 0)
        return err_set(-ENODEV, "libfabric has no %s provider for %s%s%s: %s", opts->provider,
                       opts->host ? opts->host : "this host",
                       opts->domain && opts->domain[0] ? " on " : "",
                       opts->domain ? opts->domain : "", fi_strerror(-rc));
    hints = ofi_hints(opts);
    if (hints && opts->host && fi_getinfo(OFI_VERSION, NULL, NULL, 0, hints, &any) == 0) {
        rc = err_set(-ENODEV,
                     opts->listening
                         ? "verbs: %s is not the address of an RDMA device (%s is one; `rdma link` "
                           "shows which network interface is its): set listen.address to that "
                           "interface's address"
                         : "verbs: %s can't be reached through an RDMA device (%s is one; `rdma "
                           "link` shows which network interface is its)",
                     opts->host, any->domain_attr->name);
        fi_freeinfo(any);
    } else {
        rc = err_set(
            -ENODEV,
            "verbs: no RDMA device (`ibv_devices` lists none%s): install ibverbs-providers and "
            "rdma-core and load the device's driver; without hardware: modprobe rdma_rxe; rdma "
            "link add "
            "rxe0 type rxe netdev eth0",
            opts->domain && opts->domain[0] ? ", or none of that name" : "");
    }
    if (hints)
        fi_freeinfo(hints);
    return rc;
}

int ofi_add_ops(struct tr_domain *d, uint32_t n)
{
    struct ofi_op **more = realloc(d->pools, (d->npools + 1) * sizeof *more);
    struct ofi_op *ops = calloc(n, sizeof *ops);
    if (more)
        d->pools = more;
    if (!more || !ops) {
        free(ops);
        return err_set(-ENOMEM, "no memory for an endpoint");
    }
    d->pools[d->npools++] = ops;
    for (uint32_t i = 0; i < n; i++) {
        ops[i].next = d->free_ops;
        d->free_ops = &ops[i];
    }
    d->ops_free += n;
    return 0;
}

void ofi_disown(struct tr_domain *d, const struct tr_ep *ep)
{
    for (uint32_t p = 0; p < d->npools; p++)
        for (uint32_t i = 0; i < 2 * d->ops_per_ep; i++)
            if (d->pools[p][i].ep == ep)
                d->pools[p][i].ep = NULL;
}

static void domain_close(struct tr_domain *d)
{
    ofi_queues_close(d);
    if (d->domain)
        fi_close(&d->domain->fid);
    if (d->eq)
        fi_close(&d->eq->fid);
    if (d->fabric)
        fi_close(&d->fabric->fid);
    if (d->info)
        fi_freeinfo(d->info);
    for (uint32_t i = 0; i < d->npools; i++)
        free(d->pools[i]);
    free(d->pools);
    free(d);
}

/* ---- opening ---- */

static bool is_wildcard(const char *host)
{
    return !host || !host[0] || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

/* Listen on every address: verbs answers that with a placeholder that is no device. So the device
 * is chosen first, then the address is opened up. */
static int wildcard_info(struct tr_domain *d, const struct tr_opts *opts,
                         const struct fi_info *hints)
{
    uint16_t port = htons((uint16_t)(opts->port ? atoi(opts->port) : 0));
    bool six = opts->host && strchr(opts->host, ':');
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = port};
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = port};
    size_t len = six ? sizeof a6 : sizeof a4;
    int rc = fi_getinfo(OFI_VERSION, NULL, NULL, 0, hints, &d->info);
    if (rc)
        return rc;
    void *addr = malloc(len);
    if (!addr)
        return -FI_ENOMEM;
    memcpy(addr, six ? (void *)&a6 : (void *)&a4, len);
    free(d->info->src_addr);
    d->info->src_addr = addr;
    d->info->src_addrlen = len;
    d->info->addr_format = six ? FI_SOCKADDR_IN6 : FI_SOCKADDR_IN;
    return 0;
}

static bool same_address(const struct sockaddr *a, const struct sockaddr *b)
{
    if (!a || a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET)
        return memcmp(&((const struct sockaddr_in *)a)->sin_addr,
                      &((const struct sockaddr_in *)b)->sin_addr, 4) == 0;
    return a->sa_family == AF_INET6 &&
           memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr,
                  &((const struct sockaddr_in6 *)b)->sin6_addr, 16) == 0;
}

/* For an address that is no device's, 127.0.0.1 for one, verbs proposes to listen on its device's:
 * to more of the world than was asked for. */
static bool proposes(const struct fi_info *info, const char *host)
{
    struct addrinfo *list, *a;
    if (getaddrinfo(host, NULL, NULL, &list) != 0)
        return false;
    for (a = list; a && !same_address(info->src_addr, a->ai_addr); a = a->ai_next)
        ;
    freeaddrinfo(list);
    return a != NULL;
}

static int get_info(struct tr_domain *d, const struct tr_opts *opts, const struct fi_info *hints)
{
    const char *port = opts->port ? opts->port : "0";
    int rc = opts->listening && is_wildcard(opts->host) && strcmp(opts->provider, "verbs") == 0
                 ? wildcard_info(d, opts, hints)
                 : fi_getinfo(OFI_VERSION, opts->host, opts->listening || opts->host ? port : NULL,
                              opts->listening ? FI_SOURCE : 0, hints, &d->info);
    if (rc)
        return rc;
    if (opts->listening && !is_wildcard(opts->host) && !proposes(d->info, opts->host))
        return -FI_ENODATA;
    /* queues of what is needed: a device's are pinned memory, and the completion queue must hold
     * them all */
    if (d->info->tx_attr->size > opts->ops_per_ep)
        d->info->tx_attr->size = opts->ops_per_ep;
    if (d->info->rx_attr->size > opts->ops_per_ep)
        d->info->rx_attr->size = opts->ops_per_ep;
    return 0;
}

static int mr_reg(struct tr_domain *d, void *buf, size_t len, enum tr_access access,
                  struct tr_mr **out, struct tr_remote *exported);
static void mr_close(struct tr_mr *m);

/* Is the cache of registrations really off? See above. */
static int check_keys(struct tr_domain *d)
{
    struct tr_mr *ours = NULL, *peers = NULL;
    struct tr_remote a, b;
    void *page;
    int rc;
    if (!(d->info->domain_attr->mr_mode & FI_MR_PROV_KEY))
        return 0;
    page = aligned_alloc(4096, 4096);
    if (!page)
        return err_set(-ENOMEM, "no memory for a domain");
    rc = mr_reg(d, page, 4096, TR_LOCAL, &ours, &a);
    if (rc == 0)
        rc = mr_reg(d, page, 4096, TR_PEER_WRITES, &peers, &b);
    if (rc == 0 && a.key == b.key)
        rc = err_set(-EPERM,
                     "libfabric's registration cache would open more memory to a peer than it is "
                     "meant to write: set FI_MR_CACHE_MAX_COUNT=0 in the environment");
    if (peers)
        mr_close(peers);
    if (ours)
        mr_close(ours);
    free(page);
    return rc;
}

/* The kernel refuses a device's descriptors to children forked after they were opened; every post
 * would then fail as if the queue were full, for ever. */
static int check_fork(const char *provider)
{
    static _Atomic pid_t first;
    pid_t none = 0, self = getpid();
    if (strcmp(provider, "verbs") != 0 || at_cas(&first, &none, self) || none == self)
        return 0;
    return err_set(-ENOTSUP, "verbs can't be used by a process that was forked after its parent "
                             "used verbs: fork first, or exec");
}

static int domain_open(struct tr_domain **out, const struct tr_opts *opts)
{
    int rc = ofi_load();
    if (rc == 0)
        rc = check_fork(opts->provider);
    if (rc < 0)
        return rc;
    struct fi_info *hints = ofi_hints(opts);
    struct tr_domain *d = calloc(1, sizeof *d);
    if (!hints || !d) {
        free(d);
        if (hints)
            fi_freeinfo(hints);
        return err_set(-ENOMEM, "no memory for a domain");
    }
    snprintf(d->provider, sizeof d->provider, "%s", opts->provider);
    d->ops_per_ep = opts->ops_per_ep;
    d->watched.epoll_fd = -1;
    rc = get_info(d, opts, hints);
    fi_freeinfo(hints);
    if (rc) {
        rc = rc == -FI_ENOMEM ? ofi_error(rc, "opening a domain") : no_device(opts, rc);
        goto fail;
    }
    rc = fi_fabric(d->info->fabric_attr, &d->fabric, NULL);
    if (rc) {
        rc = ofi_error(rc, "opening the fabric");
        goto fail;
    }
    rc = fi_domain(d->fabric, d->info, &d->domain, NULL);
    if (rc) {
        rc = ofi_error(rc, "opening the domain");
        goto fail;
    }
    rc = ofi_queues_open(d, opts);
    if (rc == 0)
        rc = check_keys(d);
    if (rc < 0)
        goto fail;
    *out = d;
    return 0;
fail:
    domain_close(d);
    return rc;
}

static void caps(const struct tr_domain *d, struct tr_caps *out)
{
    memset(out, 0, sizeof *out);
    out->provider = d->provider;
    snprintf(out->device, sizeof out->device, "%s", d->info->domain_attr->name);
    out->by_copy = !(d->info->domain_attr->mr_mode & FI_MR_LOCAL) && !getenv("FI_TCP_ZEROCOPY_SIZE");
    out->one_sided = (d->info->caps & FI_RMA) != 0;
    out->inject_max = (uint32_t)d->info->tx_attr->inject_size;
    out->msg_max = d->info->ep_attr->max_msg_size;
}

/* ---- memory ---- */

static int mr_reg(struct tr_domain *d, void *buf, size_t len, enum tr_access access,
                  struct tr_mr **out, struct tr_remote *exported)
{
    static const uint64_t peers[] = {[TR_PEER_WRITES] = FI_REMOTE_WRITE, [TR_PEER_READS] = FI_REMOTE_READ};
    uint64_t key = 0, flags = FI_SEND | FI_RECV | FI_WRITE | peers[access];
    struct tr_mr *m = calloc(1, sizeof *m);
    int mode = d->info->domain_attr->mr_mode;
    if (!m)
        return err_set(-ENOMEM, "no memory to register memory");
    if (!(mode & FI_MR_PROV_KEY) && getrandom(&key, sizeof key, 0) != sizeof key) {
        free(m);
        return err_set(-EIO, "no random bytes for a memory key");
    }
    int rc = fi_mr_reg(d->domain, buf, len, flags, 0, key, 0, &m->mr, NULL);
    if (rc) {
        char what[64];
        free(m);
        snprintf(what, sizeof what, "registering %zu bytes of memory", len);
        return ofi_pin_error(d, rc, what);
    }
    if (exported) {
        exported->addr = mode & FI_MR_VIRT_ADDR ? (uint64_t)(uintptr_t)buf : 0;
        exported->key = fi_mr_key(m->mr);
        exported->len = len;
    }
    *out = m;
    return 0;
}

static void mr_close(struct tr_mr *m)
{
    fi_close(&m->mr->fid);
    free(m);
}

/* ---- posts ---- */

static struct ofi_op *get_op(struct tr_ep *ep, void *ctx, bool recv)
{
    struct ofi_op *op = ep->dom->free_ops;
    if (!op)
        return NULL;
    ep->dom->free_ops = op->next;
    ep->dom->ops_free--;
    op->ep = ep;
    op->ctx = ctx;
    op->recv = recv;
    return op;
}

static void put_op(struct tr_domain *d, struct ofi_op *op)
{
    op->next = d->free_ops;
    d->free_ops = op;
    d->ops_free++;
}

/* The queue is full. What makes room in it may come without an event (injected sends): see ofi_arm().
 */
static int try_later(struct tr_domain *d)
{
    d->starved = true;
    return -EAGAIN;
}

static int posted(struct tr_ep *ep, struct ofi_op *op, ssize_t rc)
{
    if (rc == 0)
        return 0;
    put_op(ep->dom, op);
    if (rc == -FI_EAGAIN)
        return try_later(ep->dom);
    return ep->closed ? err_set(-ENOTCONN, "the peer has closed the connection")
                      : ofi_error((int)rc, "posting to an endpoint");
}

static int post_recv(struct tr_ep *ep, void *buf, size_t len, struct tr_mr *mr, void *ctx)
{
    struct ofi_op *op = ep->closed ? NULL : get_op(ep, ctx, true);
    if (!op)
        return ep->closed ? -ENOTCONN : try_later(ep->dom);
    return posted(ep, op, fi_recv(ep->ep, buf, len, mr ? fi_mr_desc(mr->mr) : NULL, 0, op));
}

static int post_send(struct tr_ep *ep, const void *buf, size_t len, struct tr_mr *mr, void *ctx,
                     uint32_t flags)
{
    if (ep->closed)
        return -ENOTCONN;
    if (flags & TR_INJECT) {
        ssize_t rc = fi_inject(ep->ep, buf, len, 0);
        return rc == 0 ? 0 : rc == -FI_EAGAIN ? try_later(ep->dom) : ofi_error((int)rc, "sending");
    }
    struct ofi_op *op = get_op(ep, ctx, false);
    if (!op)
        return try_later(ep->dom);
    return posted(ep, op, fi_send(ep->ep, buf, len, mr ? fi_mr_desc(mr->mr) : NULL, 0, op));
}

/* For an operation whose end is to be told. NULL: *rc says why not. */
static struct ofi_op *op_to_post(struct tr_ep *ep, void *ctx, int *rc)
{
    struct ofi_op *op = ep->closed ? NULL : get_op(ep, ctx, false);
    if (!op)
        *rc = ep->closed ? -ENOTCONN : try_later(ep->dom);
    return op;
}

static int post_write(struct tr_ep *ep, const void *buf, size_t len, struct tr_mr *mr,
                      const struct tr_remote *to, uint64_t offset, void *ctx)
{
    int rc;
    struct ofi_op *op = op_to_post(ep, ctx, &rc);
    if (!op)
        return rc;
    return posted(ep, op,
                  fi_write(ep->ep, buf, len, mr ? fi_mr_desc(mr->mr) : NULL, 0, to->addr + offset,
                           to->key, op));
}

static int post_read(struct tr_ep *ep, void *buf, size_t len, struct tr_mr *mr,
                     const struct tr_remote *from, uint64_t offset, void *ctx)
{
    int rc;
    struct ofi_op *op = op_to_post(ep, ctx, &rc);
    if (!op)
        return rc;
    return posted(ep, op,
                  fi_read(ep->ep, buf, len, mr ? fi_mr_desc(mr->mr) : NULL, 0, from->addr + offset,
                          from->key, op));
}

/* ---- events ---- */

/* A completion -> an event. 0: nobody's. */
static int to_event(struct tr_domain *d, struct ofi_op *op, size_t len, int error,
                    struct tr_event *ev)
{
    struct tr_ep *ep = op->ep;
    void *ctx = op->ctx;
    bool recv = op->recv;
    put_op(d, op);
    if (!ep)
        return 0;
    *ev = (struct tr_event){.kind = recv && !error ? TR_RECV : TR_SENT,
                            .error = error,
                            .ep = ep,
                            .ep_ctx = ep->ctx,
                            .ctx = ctx,
                            .len = (uint32_t)len};
    if (error) { /* an operation that failed means the end of an endpoint of this kind */
        ev->kind = TR_CLOSED;
        if (ep->closed)
            return 0;
        ofi_ep_close(ep);
    }
    return 1;
}

static int read_error(struct tr_domain *d, struct fid_cq *cq, struct tr_event *ev)
{
    struct fi_cq_err_entry e;
    memset(&e, 0, sizeof e); /* err_data_size 0: no extra data wanted */
    if (fi_cq_readerr(cq, &e, 0) < 0 || !e.op_context)
        return 0;
    return to_event(d, e.op_context, 0, e.err > 0 && e.err < 256 ? -e.err : -EIO, ev);
}

static int read_cq(struct tr_domain *d, struct fid_cq *cq, struct tr_event *ev, int max)
{
    struct fi_cq_msg_entry e[16];
    int n = 0;
    while (n < max) {
        ssize_t got = fi_cq_read(cq, e, (size_t)(max - n < 16 ? max - n : 16));
        if (got == -FI_EAVAIL) {
            n += read_error(d, cq, &ev[n]);
            continue;
        }
        if (got <= 0)
            break;
        for (ssize_t i = 0; i < got; i++)
            n += to_event(d, e[i].op_context, e[i].len, 0, &ev[n]);
        if (got < 16) /* most likely it is empty */
            break;
    }
    return n;
}

static int poll_domain(struct tr_domain *d, struct tr_event *ev, int max)
{
    int n = 0;
    ofi_unwatch_later(d);
    for (uint32_t i = 0; i < d->cqs; i++) {
        if (d->cq[i].eps == 0 && !d->cq[i].stale)
            continue;
        int got = read_cq(d, d->cq[i].cq, &ev[n], max - n);
        if (got == 0 && d->cq[i].eps == 0)
            d->cq[i].stale = false;
        n += got;
    }
    /* connections are made by looking at the event queue */
    if (d->eq_due || d->joining > 0 || ++d->polls % EQ_EVERY == 0) {
        while (n < max && ofi_read_eq(d, &ev[n]))
            n++;
        d->eq_due = n == max;
    }
    return n;
}

const struct tr_ops tr_ofi = {
    .size = sizeof(struct tr_ops),
    .name = "ofi",
    .domain_open = domain_open,
    .domain_close = domain_close,
    .caps = caps,
    .listen = ofi_listen,
    .listener_close = ofi_listener_close,
    .connect = ofi_connect,
    .accept = ofi_accept,
    .reject = ofi_reject,
    .ep_context = ofi_ep_context,
    .ep_shutdown = ofi_ep_shutdown,
    .ep_free = ofi_ep_free,
    .mr_reg = mr_reg,
    .mr_close = mr_close,
    .post_recv = post_recv,
    .post_send = post_send,
    .post_write = post_write,
    .post_read = post_read,
    .poll = poll_domain,
    .fds = ofi_fds,
    .arm = ofi_arm,
};
