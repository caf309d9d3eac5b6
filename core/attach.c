/* SPDX-License-Identifier: MIT
 *
 * attach.c - the client's half of attaching (the daemon's is fabricd's doorman).
 *
 * Trust: the descriptors come from whoever listens on the socket. The segment's seals, size and
 * header are checked before use (segment_map); a participant number is checked against the table.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "core/attach.h"
#include "core/clock.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/participant.h"

#define TIMEOUT_NS 10000000000ll

static int connect_to(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path)
        return err_set(-ENAMETOOLONG, "%s: a UNIX socket's path has at most %zu bytes", path,
                       sizeof a.sun_path - 1);
    strcpy(a.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set(-errno, "socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        int e = errno;
        close(fd);
        if (e == ENOENT || e == ECONNREFUSED)
            return err_set(
                -e,
                "no fabricd listens at %s: start one (fabricd -c conf/node.toml), or name another "
                "with --server or $FABRIC_SERVER",
                path);
        if (e == EACCES)
            return err_set(-e,
                           "%s: not permitted: the socket belongs to another user (see "
                           "listen.socket_mode)",
                           path);
        return err_set(-e, "%s: %s", path, strerror(e));
    }
    return fd;
}

static int say_hello(int fd, const struct fab_options *opts)
{
    struct attach_hello h = {.magic = ATTACH_MAGIC,
                             .version = ATTACH_VERSION,
                             .layout = SEG_LAYOUT,
                             .roles = opts->roles ? opts->roles : FAB_PRODUCER | FAB_WORKER};
    snprintf(h.name, sizeof h.name, "%s", opts->name ? opts->name : program_invocation_short_name);
    if (opts->client)
        snprintf(h.client, sizeof h.client, "%s", opts->client);
    if (send(fd, &h, sizeof h, MSG_NOSIGNAL) != sizeof h)
        return err_set(-EPIPE, "fabricd hung up");
    return 0;
}

/* The answer and its two descriptors; got[] are -1 where none came. */
static int read_welcome(int fd, int64_t timeout_ns, struct attach_welcome *w, int got[2])
{
    union {
        char buf[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {w, sizeof *w};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.buf,
                       .msg_controllen = sizeof control.buf};
    struct pollfd p = {.fd = fd, .events = POLLIN};
    got[0] = got[1] = -1;
    memset(w, 0, sizeof *w);
    int rc = poll(&p, 1, timeout_ns < 0 ? -1 : (int)(timeout_ns / 1000000));
    if (rc == 0)
        return err_set(-ETIMEDOUT, "fabricd accepted the connection but does not answer");
    ssize_t n = rc < 0 ? -1 : recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    if (n < 0)
        return err_set(-errno, "fabricd: %s", strerror(errno));
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            memcpy(got, CMSG_DATA(c),
                   c->cmsg_len - CMSG_LEN(0) < 2 * sizeof(int) ? c->cmsg_len - CMSG_LEN(0)
                                                               : 2 * sizeof(int));
    w->text[sizeof w->text - 1] = 0;
    if (n == 0)
        return err_set(-EPIPE, "fabricd hung up");
    if (n != sizeof *w || w->magic != ATTACH_MAGIC)
        return err_set(-EPROTO, "what listens there does not speak as fabricd does");
    if (w->error)
        return err_set(w->error < 0 && w->error > -4096 ? w->error : -EPROTO, "fabricd refused: %s",
                       w->text);
    if (w->version != ATTACH_VERSION)
        return err_set(-EPROTO, "fabricd speaks attach version %u, this program %u", w->version,
                       ATTACH_VERSION);
    if (got[0] < 0 || got[1] < 0)
        return err_set(-EPROTO, "fabricd sent no segment");
    return 0;
}

int attach_open(struct local **out, const char *path, const struct fab_options *opts)
{
    struct attach_welcome w;
    struct segment seg = {.fd = -1};
    int got[2] = {-1, -1}, rc;
    int sock = connect_to(path);
    if (sock < 0)
        return sock;
    rc = say_hello(sock, opts);
    CRASH_POINT("attach.hello");
    if (rc == 0)
        rc = read_welcome(sock, opts->timeout_ns ? opts->timeout_ns : TIMEOUT_NS, &w, got);
    if (rc < 0)
        goto fail;
    CRASH_POINT("attach.welcome");
    rc = segment_map(&seg, got[0]);
    if (rc < 0)
        goto fail;
    got[0] = -1; /* the segment's now */
    if (w.participant >= seg.participants || w.segment_id != seg.id) {
        rc = err_set(-EPROTO, "fabricd sent a segment and a participant number that do not fit");
        goto fail;
    }
    if (!participant_join(&seg, w.participant, w.generation)) {
        rc = err_set(-ECONNREFUSED, "fabricd died while it let this process in: try again");
        goto fail;
    }
    CRASH_POINT("attach.joined");
    rc = local_open(out, &seg, w.participant, w.generation, got[1], sock, opts->spin_ns);
    if (rc < 0)
        goto fail;
    CRASH_POINT("attach.mapped");
    (*out)->own = seg;
    (*out)->seg = &(*out)->own;
    (*out)->named = opts->client != NULL;
    rc = w.taken_up ? local_take_up(*out) : 0;
    if (rc < 0)
        fab_close(&(*out)->base); /* with all that is below */
    CRASH_POINT("attach.taken_up");
    return rc;
fail:
    segment_unmap(&seg);
    for (int i = 0; i < 2; i++)
        if (got[i] >= 0)
            close(got[i]);
    close(sock);
    return rc;
}
