/* SPDX-License-Identifier: MIT
 *
 * dial.c - see dial.h.
 */
#include "transport/dial.h"
#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>
#include "core/error.h"

void dial_init(struct dial *d)
{
    memset(d, 0, sizeof *d);
    d->error = -EHOSTUNREACH;
}

void dial_add(struct dial *d, const struct sockaddr *address, socklen_t len)
{
    if (d->n == DIAL_MAX || len > sizeof d->at[0].address)
        return;
    struct dial_try *t = &d->at[d->n++];
    memcpy(&t->address, address, len);
    t->len = len;
    t->fd = -1;
}

/* The next in the list of the first one's family, or of the others. */
static const struct addrinfo *next_of(const struct addrinfo *a, int family, bool same)
{
    while (a && (a->ai_family == family) != same)
        a = a->ai_next;
    return a;
}

int dial_resolve(struct dial *d, const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
    int rc = getaddrinfo(host, port, &hints, &list);
    if (rc)
        return err_set(-EHOSTUNREACH, "%s: %s", host, gai_strerror(rc));
    int family = list->ai_family;
    const struct addrinfo *a[2] = {list, next_of(list, family, false)};
    for (int turn = 0; a[0] || a[1]; turn = !turn) {
        if (!a[turn])
            continue;
        dial_add(d, a[turn]->ai_addr, a[turn]->ai_addrlen);
        a[turn] = next_of(a[turn]->ai_next, family, turn == 0);
    }
    freeaddrinfo(list);
    return 0;
}

static void failed(struct dial *d, struct dial_try *t, int error)
{
    if (t->fd >= 0)
        close(t->fd);
    t->fd = -1;
    d->error = error;
}

/* 0: it is under way. */
static int start(struct dial *d, struct dial_try *t)
{
    t->fd = socket(t->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (t->fd >= 0 &&
        (connect(t->fd, (const struct sockaddr *)&t->address, t->len) == 0 || errno == EINPROGRESS))
        return 0;
    failed(d, t, -errno);
    return d->error;
}

/* -EAGAIN: nothing is known yet; 0: it is connected, or has failed. */
static int look(struct dial *d, struct dial_try *t)
{
    struct pollfd p = {.fd = t->fd, .events = POLLOUT};
    int error = 0;
    socklen_t len = sizeof error;
    if (poll(&p, 1, 0) <= 0)
        return -EAGAIN;
    if (getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    if (error)
        failed(d, t, -error);
    return 0;
}

int dial_step(struct dial *d, uint64_t now_ns)
{
    for (;;) {
        uint32_t open = 0;
        bool one_failed = false;
        for (uint32_t i = 0; i < d->tried; i++) {
            struct dial_try *t = &d->at[i];
            if (t->fd < 0)
                continue;
            int rc = look(d, t);
            if (rc == 0 && t->fd >= 0) {
                int fd = t->fd;
                t->fd = -1;
                d->won = i;
                dial_end(d);
                return fd;
            }
            one_failed |= rc == 0;
            open += rc != 0;
        }
        if (d->tried == d->n)
            return open ? -EAGAIN : d->error;
        if (open && !one_failed && now_ns < d->next_ns)
            return -EAGAIN;
        while (d->tried < d->n && start(d, &d->at[d->tried++]) < 0)
            ;
        d->next_ns = now_ns + DIAL_STEP_NS;
    }
}

void dial_again(struct dial *d)
{
    dial_end(d);
    for (uint32_t i = 0; i < d->tried; i++)
        (void)start(d, &d->at[i]); /* who can't be tried has failed again */
}

const struct dial_try *dial_winner(const struct dial *d)
{
    return &d->at[d->won];
}

uint32_t dial_polls(const struct dial *d, struct pollfd *p, uint64_t *next_ns)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < d->tried; i++)
        if (d->at[i].fd >= 0)
            p[n++] = (struct pollfd){.fd = d->at[i].fd, .events = POLLOUT};
    *next_ns = d->tried < d->n ? d->next_ns : UINT64_MAX;
    return n;
}

void dial_end(struct dial *d)
{
    for (uint32_t i = 0; i < d->n; i++) {
        if (d->at[i].fd >= 0)
            close(d->at[i].fd);
        d->at[i].fd = -1;
    }
}
