/* SPDX-License-Identifier: MIT
 *
 * session_dial.c - the client's control connection: where it is dialled and when again (dial.h has
 * the addresses and the sockets), frames in and out.
 *
 * A handle that comes back dials where its link was, without asking for names, and dials anew when
 * the wire does not answer: the kernel repeats a SYN only after a second, two, four, so that a wire
 * that is there again would not be noticed for as long. A fresh SYN finds it at once.
 *
 *   the first 10 s   every 30 ms, and twice the round trip; by a quarter more or less
 *   two minutes      every 250 ms
 *   later            every second
 *
 * (So a round trip that has grown beyond the first pause is found after 10 s.)
 *
 * A connection that was taken, but whose HELLO is not answered, is one of a fabricd that is stopped
 * or busy, or the wire has gone again: it is given up after UNHEARD_NS, twice that, four times
 * that. So a stopped fabricd finds a few of them, not hundreds.
 *
 * Threads: the handle's. Failure: -errno with a message that names the host and the remedy.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/error.h"
#include "transport/session_parts.h"

#define REDIAL_NS    30000000u
#define QUICK_NS     10000000000u
#define SLOW_NS      120000000000u
#define UNHEARD_NS   150000000ull
#define UNHEARD_MOST 8u

/* ---- the socket ---- */

int session_await(struct session *s, short events)
{
    struct pollfd p = {.fd = s->fd, .events = events};
    uint64_t now = clock_ns();
    if (now >= s->deadline)
        return err_set(-ETIMEDOUT, "%s:%s does not answer", s->host, s->port);
    int rc = poll(&p, 1, (int)((s->deadline - now) / 1000000 + 1));
    if (rc < 0 && errno != EINTR)
        return err_set(-errno, "poll: %s", strerror(errno));
    return 0;
}

/* As fabricd's side (gate.c): a host that dies or is cut off is found in about 12 s. */
static void set_options(int fd)
{
    const struct {
        int level, name, value;
    } opts[] = {{IPPROTO_TCP, TCP_NODELAY, 1},  {SOL_SOCKET, SO_KEEPALIVE, 1},
                {IPPROTO_TCP, TCP_KEEPIDLE, 5}, {IPPROTO_TCP, TCP_KEEPINTVL, 2},
                {IPPROTO_TCP, TCP_KEEPCNT, 3},  {IPPROTO_TCP, TCP_USER_TIMEOUT, 12000}};
    for (size_t i = 0; i < sizeof opts / sizeof *opts; i++)
        (void)setsockopt(fd, opts[i].level, opts[i].name, &opts[i].value, sizeof(int));
}

static int no_connection(const struct session *s, int rc)
{
    if (rc == -ECONNREFUSED)
        return err_set(
            rc,
            "no fabricd listens at %s:%s: start one there with listen.address set to an address "
            "that this host reaches",
            s->host, s->port);
    return err_set(rc, "%s:%s: %s", s->host, s->port, strerror(-rc));
}

/* By a quarter more or less: the handles of many hosts lose the same wire at the same time. */
static uint64_t about(uint64_t ns)
{
    return ns - ns / 4 + clock_ticks() * 0x9e3779b97f4a7c15ull % (ns / 2);
}

/* The last try has begun now: when is the next due? */
static void plan_next(struct session *s)
{
    uint64_t now = clock_ns(), spent = now - s->since;
    uint64_t pause = spent < QUICK_NS ? REDIAL_NS : spent < SLOW_NS ? 250000000u : 1000000000u;
    s->redial_at = s->hello.resume ? now + about(pause) + 2 * s->rtt_ns : UINT64_MAX;
}

int session_dial(struct session *s, const struct session_self *self)
{
    int rc = self->at_len ? 0 : dial_resolve(&s->dial, s->host, s->port);
    if (self->at_len)
        dial_add(&s->dial, (const struct sockaddr *)&self->at, self->at_len);
    plan_next(s);
    return rc;
}

void session_redial(struct session *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    s->stage = CONNECT;
    s->in.have = 0;
    dial_again(&s->dial);
    plan_next(s);
}

int session_dialled(struct session *s)
{
    int fd = dial_step(&s->dial, clock_ns());
    if (fd < 0)
        return fd == -EAGAIN ? fd : no_connection(s, fd);
    s->fd = fd;
    set_options(fd);
    uint32_t more = s->unheard < UNHEARD_MOST ? s->unheard++ : UNHEARD_MOST;
    if (s->hello.resume)
        s->redial_at = clock_ns() + about(UNHEARD_NS << more) + 4 * s->rtt_ns;
    return 0;
}

int session_send(struct session *s, enum ctl_type type, const uint8_t *body, uint32_t len)
{
    uint8_t out[CTL_HEAD + 1024 + SEAL_TAG];
    if (len > sizeof out - CTL_HEAD - SEAL_TAG)
        return err_set(-EMSGSIZE, "a control frame of %u bytes", len);
    uint32_t n = ctl_frame_seal(&s->seals.tx, out, type, body, len), at = 0;
    while (at < n) {
        ssize_t put = send(s->fd, out + at, n - at, MSG_NOSIGNAL);
        if (put > 0) {
            at += (uint32_t)put;
            continue;
        }
        if (put < 0 && errno != EAGAIN && errno != EINTR)
            return err_set(-EPIPE, "%s:%s hung up", s->host, s->port);
        int rc = session_await(s, POLLOUT);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Reads what is there. 0 nothing more now, -EPIPE. */
int session_fill(struct session *s)
{
    uint32_t room;
    uint8_t *to = ctl_reader_room(&s->in, &room);
    ssize_t n = recv(s->fd, to, room, 0);
    if (n > 0) {
        ctl_reader_add(&s->in, (uint32_t)n);
        return 1;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return err_set(-EPIPE, "%s:%s hung up", s->host, s->port);
}

/* The next frame, opened, into s->frame. As ctl_reader_next(). */
int session_frame(struct session *s)
{
    int rc = ctl_reader_next(&s->in, &s->frame);
    if (rc != 1)
        return rc;
    /* who refuses our proof has no key in common with us */
    if (s->stage == WELCOME && s->frame.type == CTL_REFUSE && !s->frame.sealed)
        return 1;
    rc = ctl_frame_open(&s->seals.rx, &s->frame);
    return rc < 0 ? rc : 1;
}

/* The next frame, into s->frame, which must be of this type. -EAGAIN: it has not come yet. */
int session_expect(struct session *s, enum ctl_type type)
{
    int rc;
    while ((rc = session_frame(s)) == 0) {
        rc = session_fill(s);
        if (rc <= 0)
            return rc == 0 ? -EAGAIN : rc;
    }
    if (rc < 0)
        return err_prefix(rc, "%s:%s is no fabricd", s->host, s->port);
    if (s->frame.type == CTL_REFUSE) {
        struct ctl_refuse r;
        rc = ctl_get_refuse(&s->frame, &r);
        return rc < 0 ? rc : err_set(-r.error, "%s:%s refused: %s", s->host, s->port, r.text);
    }
    if (s->frame.type != type)
        return err_set(-EPROTO, "%s:%s sent a frame of type %u in place of %d", s->host, s->port,
                       s->frame.type, type);
    return 0;
}
