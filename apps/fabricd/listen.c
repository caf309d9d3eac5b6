/* SPDX-License-Identifier: MIT
 *
 * listen.c - see listen.h.
 */
#include "apps/fabricd/listen.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/error.h"
#include "core/log.h"
#include "core/paths.h"

static const char *remedy(int error)
{
    switch (error) {
    case EADDRINUSE:
        return " (another fabricd? choose another port, or \"\" for no remote peers)";
    case EADDRNOTAVAIL:
        return " (no interface of this host has it: see `ip address`, or use \"0.0.0.0\" or "
               "\"[::]\" for all)";
    case EACCES:
        return " (choose a port above 1023)";
    case EAFNOSUPPORT:
        return " (this host has no such addresses: leave it out)";
    default:
        return "";
    }
}

/* An IPv6 wildcard takes IPv4 peers in as well, unless somebody else is to. */
static bool v6_only(const struct conf *c, const struct addrinfo *list, const char *port)
{
    struct fab_address a;
    for (; list; list = list->ai_next)
        if (list->ai_family == AF_INET)
            return true; /* the same name is an IPv4 address, too */
    for (uint32_t i = 0; i < c->addresses; i++)
        if (address_split(c->address[i], true, &a) == 0 && strcmp(a.host, "0.0.0.0") == 0 &&
            strcmp(a.port, port) == 0)
            return true;
    return false;
}

static void set_port(struct sockaddr_storage *a, uint16_t port)
{
    if (a->ss_family == AF_INET)
        ((struct sockaddr_in *)a)->sin_port = htons(port);
    else if (a->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)a)->sin6_port = htons(port);
}

static uint32_t site_of(struct listeners *l, const char *host)
{
    uint32_t i = 0;
    while (i < l->sites && strcmp(l->site[i], host) != 0)
        i++;
    if (i == l->sites)
        snprintf(l->site[l->sites++], SITE_MAX, "%s", host);
    return i;
}

/* Two names may be one address. */
static bool is_there(const struct listeners *l, const char *text)
{
    for (uint32_t i = 0; i < l->n; i++)
        if (strcmp(l->at[i].text, text) == 0)
            return true;
    return false;
}

static void put_text(char *text, size_t cap, const char *host, const char *port)
{
    snprintf(text, cap, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

/* 0, or -errno without a message. port: in and out, what a free one has become. */
static int bind_one(struct listeners *l, const struct addrinfo *ai, bool only_v6, char port[8])
{
    struct listener *new = &l->at[l->n];
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof a;
    char host[SITE_MAX] = "?";
    int one = 1, only = only_v6, rc;
    memcpy(&a, ai->ai_addr, ai->ai_addrlen);
    set_port(&a, (uint16_t)atoi(port));
    if (getnameinfo((struct sockaddr *)&a, ai->ai_addrlen, host, sizeof host, NULL, 0,
                    NI_NUMERICHOST))
        return -EINVAL;
    put_text(new->text, sizeof new->text, host, port);
    if (is_there(l, new->text))
        return 0;
    if (l->n == LISTENERS_MAX)
        return -E2BIG;
    new->fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (new->fd < 0)
        return -errno;
    if (setsockopt(new->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        (ai->ai_family == AF_INET6 &&
         setsockopt(new->fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only) < 0) ||
        bind(new->fd, (struct sockaddr *)&a, ai->ai_addrlen) < 0 || listen(new->fd, 256) < 0 ||
        getsockname(new->fd, (struct sockaddr *)&a, &len) < 0) {
        rc = -errno;
        close(new->fd);
        return rc;
    }
    (void)getnameinfo((struct sockaddr *)&a, len, NULL, 0, port, 8, NI_NUMERICSERV);
    put_text(new->text, sizeof new->text, host, port);
    new->site = site_of(l, host);
    l->n++;
    return 0;
}

static bool is_number(const char *host)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST}, *list;
    if (getaddrinfo(host, NULL, &hints, &list) != 0)
        return false;
    freeaddrinfo(list);
    return true;
}

/* All addresses of one entry of listen.address. */
static int listen_on(struct listeners *l, const struct conf *c, const char *entry)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
    struct fab_address a;
    uint32_t done = 0;
    int rc = address_split(entry, true, &a), last = 0;
    if (rc < 0)
        return rc;
    rc = getaddrinfo(a.host, a.port, &hints, &list);
    if (rc)
        return err_set(-EINVAL,
                       "listen.address = \"%s\": %s (correct the name, or write the address)",
                       entry, gai_strerror(rc));
    bool number = is_number(a.host), only_v6 = v6_only(c, list, a.port);
    char port[8];
    memcpy(port, a.port, sizeof port);
    for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
        rc = bind_one(l, ai, only_v6, port);
        done += rc == 0;
        if (rc == 0)
            continue;
        last = rc;
        if (number || (rc != -EADDRNOTAVAIL && rc != -EAFNOSUPPORT))
            break;
        log_info("listen.address = \"%s\": %s is not this host's", entry, l->at[l->n].text);
        rc = 0;
    }
    freeaddrinfo(list);
    if (rc == -E2BIG)
        return err_set(rc,
                       "listen.address: more than %u addresses, as names have several: name fewer",
                       LISTENERS_MAX);
    if (rc < 0 || done == 0)
        return err_set(last, "listen.address = \"%s\": %s%s", entry, strerror(-last),
                       remedy(-last));
    return 0;
}

/* Gives the sites that `all` contains to it. */
static void join_sites(struct listeners *l, const char *all)
{
    uint32_t to = 0;
    while (to < l->sites && strcmp(l->site[to], all) != 0)
        to++;
    if (to == l->sites)
        return;
    for (uint32_t i = 0; i < l->sites; i++)
        if (i != to && (strcmp(all, "::") == 0 || !strchr(l->site[i], ':')))
            l->site[i][0] = 0;
    for (uint32_t i = 0; i < l->n; i++)
        if (!l->site[l->at[i].site][0])
            l->at[i].site = to;
}

int listen_open(struct listeners *l, const struct conf *c)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < c->addresses; i++)
        rc = listen_on(l, c, c->address[i]);
    if (rc < 0)
        listen_close(l);
    join_sites(l, "::"); /* libfabric's is IPv4 as well */
    join_sites(l, "0.0.0.0");
    return rc;
}

void listen_close(struct listeners *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        close(l->at[i].fd);
    memset(l, 0, sizeof *l);
}

void listen_text(const struct listeners *l, char *text, size_t cap)
{
    size_t n = 0;
    text[0] = 0;
    for (uint32_t i = 0; i < l->n && n < cap; i++)
        n += (size_t)snprintf(text + n, cap - n, "%stcp://%s", i ? ", " : "", l->at[i].text);
}
