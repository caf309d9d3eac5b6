/* SPDX-License-Identifier: MIT
 *
 * wire.c - see wire.h.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "bench/peers/peer.h"
#include "bench/peers/wire.h"

static int connect_unix(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    return fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0 ? fd : -1;
}

static int connect_tcp(const char *address)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const char *port = strrchr(address, ':');
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    a.sin_port = htons((unsigned short)(port ? atoi(port + 1) : 0));
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

struct wire *wire_open(const char *address)
{
    struct wire *w = calloc(1, sizeof *w);
    if (!w)
        peer_die("no memory");
    w->fd = address[0] == '/' ? connect_unix(address) : connect_tcp(address);
    if (w->fd < 0)
        peer_die("%s: %s", address, strerror(errno));
    return w;
}

void wire_close(struct wire *w)
{
    close(w->fd);
    free(w);
}

void wire_put(struct wire *w, const void *bytes, size_t n)
{
    if (n > sizeof w->out - w->out_n)
        wire_flush(w);
    if (n > sizeof w->out)
        peer_die("more bytes than a buffer");
    memcpy(w->out + w->out_n, bytes, n);
    w->out_n += n;
}

void wire_printf(struct wire *w, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof text)
        peer_die("a line too long");
    wire_put(w, text, (size_t)n);
}

void wire_flush(struct wire *w)
{
    for (size_t at = 0; at < w->out_n;) {
        ssize_t n = send(w->fd, w->out + at, w->out_n - at, MSG_NOSIGNAL);
        if (n <= 0)
            peer_die("the connection broke: %s", strerror(errno));
        at += (size_t)n;
    }
    w->out_n = 0;
}

static void fill(struct wire *w)
{
    if (w->from) {
        memmove(w->in, w->in + w->from, w->to - w->from);
        w->to -= w->from;
        w->from = 0;
    }
    if (w->to == sizeof w->in)
        peer_die("a line longer than a buffer");
    ssize_t n = recv(w->fd, w->in + w->to, sizeof w->in - w->to, 0);
    if (n <= 0)
        peer_die("the connection ended: %s", n ? strerror(errno) : "by the server");
    w->to += (size_t)n;
}

const char *wire_line(struct wire *w)
{
    size_t seen = 0;
    for (;;) {
        char *end = memchr(w->in + w->from + seen, '\n', w->to - w->from - seen);
        if (end) {
            char *line = w->in + w->from;
            w->from = (size_t)(end - w->in) + 1;
            if (end > line && end[-1] == '\r')
                end--;
            *end = 0;
            return line;
        }
        seen = w->to - w->from;
        fill(w);
    }
}

void wire_bytes(struct wire *w, void *to, size_t n)
{
    while (w->to - w->from < n)
        fill(w);
    memcpy(to, w->in + w->from, n);
    w->from += n;
}

bool wire_pending(const struct wire *w)
{
    return w->to > w->from;
}
