/* SPDX-License-Identifier: MIT
 *
 * carrier.c - see carrier.h.
 *
 * Failure: a provider that can't be opened ends fabricd's start with its message, except verbs when
 * the configuration leaves the choice to us.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "apps/fabricd/carrier.h"
#include "core/error.h"
#include "transport/lane.h"
#include "transport/ofi_load.h"

/* ---- getting ready ---- */

static void *warm(void *arg)
{
    const struct daemon *d = arg;
    ofi_warm();
    if (eventfd_write(d->warm.fd, 1) < 0)
        log_error("eventfd: %s", strerror(errno)); /* of 1 to a counter of 0: can't be */
    return NULL;
}

static void warm_end(struct daemon *d)
{
    if (d->warm.fd < 0)
        return;
    pthread_join(d->warm.thread, NULL);
    loop_stop(d->loop, &d->warm.src);
    close(d->warm.fd);
    d->warm.fd = -1;
}

static void on_warm(struct loop_src *src, int result)
{
    struct daemon *d = src->owner;
    (void)result;
    warm_end(d);
    d->warm.done(d);
}

int carriers_prepare(struct daemon *d, void (*done)(struct daemon *d))
{
    sigset_t all, before;
    char bytes[24];
    snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)d->conf->inline_bytes);
    if (d->conf->inline_bytes) /* libfabric reads it when it is first used, and nowhere else */
        (void)setenv("FI_VERBS_INLINE_SIZE", bytes, 1);
    d->warm.done = done;
    d->warm.src.owner = d;
    d->warm.fd = eventfd(0, EFD_CLOEXEC);
    if (d->warm.fd < 0)
        return err_set(-errno, "eventfd: %s", strerror(errno));
    /* signals are the loop thread's */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int rc = pthread_create(&d->warm.thread, NULL, warm, d);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        close(d->warm.fd);
        d->warm.fd = -1;
        return err_set(-rc, "a thread: %s", strerror(rc));
    }
    return loop_watch(d->loop, &d->warm.src, d->warm.fd, POLLIN, true, on_warm);
}

/* ---- opening ---- */

static int open_carrier(struct daemon *d, const char *provider, const struct listeners *l,
                        uint32_t site)
{
    struct carrier *c = &d->carrier[d->carriers];
    const char *host = l->site[site];
    char port[8];
    snprintf(port, sizeof port, "%u", d->conf->data_port);
    /* with both providers it names the RDMA device */
    bool other = d->conf->provider == CONF_PROVIDER_AUTO && strcmp(provider, "tcp") == 0;
    struct tr_opts o = {.provider = provider,
                        .domain = other ? "" : d->conf->domain,
                        .host = host,
                        .port = port,
                        .listening = true,
                        .eps_max = d->conf->links,
                        .ops_per_ep = lane_ops(d->conf->lane_cells)};
    c->tr = &tr_ofi;
    int rc = c->tr->domain_open(&c->dom, &o);
    if (rc < 0)
        return rc;
    rc = c->tr->listen(c->dom, &c->listener, c->addr, &c->addr_len);
    if (rc < 0) {
        c->tr->domain_close(c->dom);
        return rc;
    }
    c->site = site;
    c->tr->caps(c->dom, &c->caps);
    log_info("data connections by %s: %s%s%s, batches to %u bytes inline", provider, c->caps.device,
             l->sites > 1 ? " at " : "", l->sites > 1 ? host : "", c->caps.inject_max);
    d->carriers++;
    return 0;
}

int carriers_open(struct daemon *d, const struct listeners *l)
{
    int which = d->conf->provider, rc = 0, missing = 0;
    char why[256] = "";
    bool verbs = false;
    for (uint32_t i = 0; rc == 0 && i < l->sites; i++) {
        if (!l->site[i][0])
            continue;
        if (which != CONF_PROVIDER_VERBS)
            rc = open_carrier(d, "tcp", l, i);
        if (rc < 0 || which == CONF_PROVIDER_TCP)
            continue;
        rc = open_carrier(d, "verbs", l, i);
        verbs |= rc == 0;
        if (rc < 0 && which == CONF_PROVIDER_AUTO) {
            missing = rc;
            snprintf(why, sizeof why, "%s", err_text(rc));
            log_debug("%s", why);
            rc = 0;
        }
    }
    return rc == 0 && !verbs && missing && d->conf->domain[0] ? err_set(missing, "%s", why) : rc;
}

struct carrier *carrier_for(struct daemon *d, const char *provider, uint32_t site)
{
    for (uint32_t i = 0; i < d->carriers; i++)
        if (d->carrier[i].site == site && strcmp(d->carrier[i].caps.provider, provider) == 0)
            return &d->carrier[i];
    return NULL;
}

static void on_data_fd(struct loop_src *src, int result)
{
    struct daemon *d = src->owner;
    (void)result; /* polling finds what is there */
    d->stirred = true;
}

bool carriers_arm(struct daemon *d)
{
    for (uint32_t i = 0; i < d->carriers; i++) {
        struct carrier *c = &d->carrier[i];
        int fd[2], n = c->tr->fds(c->dom, fd);
        if (c->tr->arm(c->dom) != 0)
            return false;
        for (int k = 0; k < n; k++) {
            c->src[k].owner = d;
            if (c->src[k].slot == 0 &&
                loop_watch(d->loop, &c->src[k], fd[k], POLLIN, true, on_data_fd) < 0)
                return false;
        }
    }
    return true;
}

void carriers_close(struct daemon *d)
{
    warm_end(d);
    for (uint32_t i = 0; i < d->carriers; i++) {
        struct carrier *c = &d->carrier[i];
        loop_stop(d->loop, &c->src[0]);
        loop_stop(d->loop, &c->src[1]);
        c->tr->listener_close(c->listener);
        c->tr->domain_close(c->dom);
    }
}
