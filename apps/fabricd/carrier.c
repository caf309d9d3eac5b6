/* SPDX-License-Identifier: MIT
 *
 * carrier.c - see carrier.h.
 *
 * Failure: a provider that can't be opened ends fabricd's start with its message, except verbs when
 * the configuration leaves the choice to us.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include "apps/fabricd/carrier.h"
#include "core/error.h"
#include "transport/lane.h"

static int open_carrier(struct daemon *d, const char *provider, const char *host)
{
    struct carrier *c = &d->carrier[d->carriers];
    char port[8];
    snprintf(port, sizeof port, "%u", d->conf->data_port);
    struct tr_opts o = {.provider = provider,
                        .domain = d->conf->domain,
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
    c->tr->caps(c->dom, &c->caps);
    d->carriers++;
    return 0;
}

int carriers_open(struct daemon *d, const char *host)
{
    int which = d->conf->provider, rc = 0;
    if (which != CONF_PROVIDER_VERBS)
        rc = open_carrier(d, "tcp", host);
    if (rc == 0 && which != CONF_PROVIDER_TCP) {
        rc = open_carrier(d, "verbs", host);
        if (rc < 0 && which == CONF_PROVIDER_AUTO) {
            log_debug("%s", err_text(rc));
            rc = 0;
        }
    }
    return rc;
}

struct carrier *carrier_for(struct daemon *d, const char *provider)
{
    for (uint32_t i = 0; i < d->carriers; i++)
        if (strcmp(d->carrier[i].caps.provider, provider) == 0)
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
    for (uint32_t i = 0; i < d->carriers; i++) {
        struct carrier *c = &d->carrier[i];
        loop_stop(d->loop, &c->src[0]);
        loop_stop(d->loop, &c->src[1]);
        c->tr->listener_close(c->listener);
        c->tr->domain_close(c->dom);
    }
}
