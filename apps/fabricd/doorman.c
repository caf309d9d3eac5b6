/* SPDX-License-Identifier: MIT
 *
 * doorman.c - accept, attach, watch, bury; see doorman.h.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include "apps/fabricd/doorman.h"
#include "apps/fabricd/keep.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/fabric.h"
#include "core/participant.h"
#include "core/undertaker.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* A connection: first a stranger (participant < 0), then a participant's. */
struct guest {
    struct guest *next, *prev;
    struct doorman *dm;
    struct loop_src sock_src, pid_src;
    int sock, pidfd;
    int participant;
    struct ucred who;
    uint64_t since_ns;
};

struct doorman {
    struct daemon *d;
    int fd;
    struct loop_src src;
    struct guest *guests;
    uint32_t strangers;
    bool refusing;
    struct log_limit limit;
};

static void guest_free(struct guest *g)
{
    struct loop *l = g->dm->d->loop;
    loop_stop(l, &g->sock_src);
    loop_stop(l, &g->pid_src);
    if (g->sock >= 0)
        close(g->sock);
    if (g->pidfd >= 0)
        close(g->pidfd);
    if (g->participant < 0)
        g->dm->strangers--;
    if (g->prev)
        g->prev->next = g->next;
    else
        g->dm->guests = g->next;
    if (g->next)
        g->next->prev = g->prev;
    free(g);
}

/* The participant is gone, by farewell or by death. */
static void bury(struct guest *g, bool crashed)
{
    struct daemon *d = g->dm->d;
    struct undertaker_report rep;
    char who[80], name[SEG_NAME];
    memcpy(name, d->seg.participant[g->participant].name, sizeof name);
    name[sizeof name - 1] = 0;
    snprintf(who, sizeof who, "participant %d (%s, pid %d)", g->participant, name, (int)g->who.pid);
    uint64_t until = keep_until(d, (uint32_t)g->participant, !crashed);
    if (until)
        undertaker_keep(&d->seg, &d->out, d->me, (uint32_t)g->participant, crashed, until, &rep);
    else
        undertaker_recover(&d->seg, &d->out, d->me, (uint32_t)g->participant, crashed, &rep);
    daemon_report(who, until ? "has gone and is kept" : crashed ? "died" : "left", &rep);
    d->stirred = true;
    guest_free(g);
}

static bool has_left(const struct guest *g)
{
    const struct segment *s = &g->dm->d->seg;
    return participant_life(at_load(&s->participant[g->participant].life)) == LIFE_LEFT;
}

static void on_death(struct loop_src *src, int result)
{
    struct guest *g = src->owner;
    (void)result;
    if (g->participant < 0) {
        guest_free(g);
        return;
    }
    /* A process that said good-bye in its last breath has crashed nothing. */
    struct attach_hello bye;
    bool left = (g->sock >= 0 && recv(g->sock, &bye, sizeof bye, MSG_DONTWAIT) == sizeof bye &&
                 bye.magic == ATTACH_BYE) ||
                has_left(g);
    bury(g, !left);
}

static void answer(struct guest *g, int error, uint32_t generation, bool taken_up,
                   const char *text)
{
    struct daemon *d = g->dm->d;
    struct attach_welcome w = {.magic = ATTACH_MAGIC,
                               .version = ATTACH_VERSION,
                               .error = error,
                               .participant = g->participant < 0 ? 0 : (uint32_t)g->participant,
                               .generation = generation,
                               .taken_up = taken_up,
                               .segment_id = d->seg.id};
    union {
        char buf[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {&w, sizeof w};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    int fds[2] = {d->seg.fd, d->out.daemon_fd};
    snprintf(w.text, sizeof w.text, "%s", text);
    if (error == 0) {
        m.msg_control = control.buf;
        m.msg_controllen = sizeof control.buf;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fds);
        memcpy(CMSG_DATA(c), fds, sizeof fds);
    }
    /* a fresh socket's buffer holds it; a client that is gone is noticed by its pidfd */
    (void)!sendmsg(g->sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int check_hello(const struct attach_hello *h, ssize_t n, char *why, size_t cap)
{
    if (n != sizeof *h || h->magic != ATTACH_MAGIC) {
        snprintf(why, cap, "this is not an attach message");
        return -EPROTO;
    }
    if (h->version != ATTACH_VERSION || h->layout != SEG_LAYOUT) {
        snprintf(why, cap,
                 "this fabricd speaks attach version %u with segment layout %u, the client %u with "
                 "%u: use "
                 "programs and fabricd of the same release",
                 ATTACH_VERSION, SEG_LAYOUT, h->version, h->layout);
        return -EPROTO;
    }
    if (h->client[0] && !(h->roles & FAB_PRODUCER)) {
        snprintf(why, cap, "a client id is for producers");
        return -EINVAL;
    }
    if (h->roles == 0 || h->roles & ~(uint32_t)(FAB_PRODUCER | FAB_WORKER | FAB_TOOL)) {
        snprintf(why, cap, "unknown roles %#x", h->roles);
        return -EINVAL;
    }
    return 0;
}

/* The process's pidfd: from the socket where the kernel can (6.5), else opened by number and
 * checked against reuse. */
static int open_pidfd(struct guest *g)
{
    int fd = -1;
    socklen_t len = sizeof fd;
    if (getsockopt(g->sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &len) == 0 && fd >= 0)
        return fd;
    if (g->who.pid <= 0) {
        errno = ESRCH;
        return -1;
    }
    return (int)syscall(SYS_pidfd_open, g->who.pid, 0);
}

/* Its death or farewell may wait in a queue behind the newcomer with the same client id. */
static void look_after(struct doorman *dm, uint32_t id)
{
    for (struct guest *g = dm->guests; g; g = g->next) {
        if (g->participant != (int)id)
            continue;
        struct pollfd p = {.fd = g->pidfd, .events = POLLIN};
        if (has_left(g) || poll(&p, 1, 0) == 1)
            on_death(&g->pid_src, 0);
        return;
    }
}

/* The entry for who, a kept one's or a new one. */
static int enter(struct guest *g, const struct participant_info *info, bool *taken_up,
                 uint32_t *generation)
{
    struct daemon *d = g->dm->d;
    int id = info->identity ? kept_find(&d->seg, info->identity) : -ENOENT;
    if (id >= 0 && !kept_is(&d->seg, (uint32_t)id)) {
        look_after(g->dm, (uint32_t)id);
        id = kept_find(&d->seg, info->identity);
    }
    *taken_up = id >= 0 && kept_is(&d->seg, (uint32_t)id);
    if (*taken_up) {
        participant_take_up(&d->seg, (uint32_t)id, info, generation);
        return id;
    }
    if (id >= 0)
        return err_set(-EADDRINUSE,
                       "client id \"%s\" is in use by participant %d: end that one, or choose "
                       "another id",
                       info->identity->text, id);
    id = participant_add(&d->seg, info, generation);
    if (id == -EUSERS && keep_make_room(d))
        id = participant_add(&d->seg, info, generation);
    return id;
}

static void admit(struct guest *g, struct attach_hello *h)
{
    struct daemon *d = g->dm->d;
    struct identity who;
    uint32_t generation;
    bool taken_up = false;
    h->name[sizeof h->name - 1] = 0;
    struct participant_info info = {.pid = (uint32_t)g->who.pid,
                                    .uid = g->who.uid,
                                    .roles = h->roles,
                                    .name = h->name,
                                    .identity = h->client[0] ? &who : NULL};
    if (g->who.pid <= 0 && d->conf->keep_ns > 0) {
        /* the next fabricd would take it for dead, and its entry for free */
        answer(g, -ESRCH, 0, false,
               "fabricd can't see your process (another pid namespace), and the next fabricd could "
               "not find it again: run both in one, or set segment.keep = \"0s\"");
        guest_free(g);
        return;
    }
    g->pidfd = open_pidfd(g);
    if (g->pidfd < 0) {
        answer(g, -ESRCH, 0, false, "your process can't be watched (another pid namespace?)");
        guest_free(g);
        return;
    }
    int id = keep_identity(&who, h->client, NULL);
    if (id == 0)
        id = enter(g, &info, &taken_up, &generation);
    if (id < 0) {
        answer(g, id, 0, false, err_text(id));
        guest_free(g);
        return;
    }
    CRASH_POINT("doorman.added");
    g->participant = id;
    g->dm->strangers--;
    g->pid_src.owner = g;
    int rc = loop_watch(d->loop, &g->pid_src, g->pidfd, POLLIN, true, on_death);
    if (rc < 0) {
        answer(g, rc, 0, false, "fabricd has no room to watch your process");
        bury(g, false);
        return;
    }
    log_debug("participant %d (%s, pid %d) attached", id, h->name, (int)g->who.pid);
    answer(g, 0, generation, taken_up, "");
    CRASH_POINT("doorman.answered");
}

static void on_message(struct loop_src *src, int result)
{
    struct guest *g = src->owner;
    struct attach_hello h;
    char why[224];
    (void)result;
    ssize_t n = recv(g->sock, &h, sizeof h, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (g->participant >= 0) {
        if (n == sizeof h && h.magic == ATTACH_BYE) {
            bury(g, false);
            return;
        }
        /* closed without farewell, or nonsense: the pidfd decides about the participant */
        loop_stop(g->dm->d->loop, &g->sock_src);
        return;
    }
    if (n <= 0) {
        guest_free(g);
        return;
    }
    int rc = g->dm->refusing ? -ESHUTDOWN : check_hello(&h, n, why, sizeof why);
    if (rc == -ESHUTDOWN)
        snprintf(why, sizeof why, "fabricd is draining and takes nobody in");
    if (rc < 0) {
        uint32_t more;
        if (log_allowed(&g->dm->limit, 5, 10000, &more))
            log_warn("refused pid %d: %s", (int)g->who.pid, why);
        answer(g, rc, 0, false, why);
        guest_free(g);
        return;
    }
    admit(g, &h);
}

static void on_accept(struct loop_src *src, int fd)
{
    struct doorman *dm = src->owner;
    if (fd < 0) {
        log_warn("accepting a local participant: %s", strerror(-fd));
        return;
    }
    struct guest *g = calloc(1, sizeof *g);
    socklen_t len = sizeof g->who;
    if (!g || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &g->who, &len) < 0 ||
        dm->strangers >= dm->d->conf->handshakes) {
        free(g);
        close(fd);
        return;
    }
    g->dm = dm;
    g->sock = fd;
    g->pidfd = -1;
    g->participant = -1;
    g->since_ns = clock_ns();
    g->sock_src.owner = g;
    g->next = dm->guests;
    if (g->next)
        g->next->prev = g;
    dm->guests = g;
    dm->strangers++;
    if (loop_watch(dm->d->loop, &g->sock_src, fd, POLLIN, false, on_message) < 0)
        guest_free(g);
}

static int socket_address(struct sockaddr_un *a, const char *path)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a->sun_path)
        return err_set(-ENAMETOOLONG,
                       "listen.socket: %s: a UNIX socket's path has at most %zu bytes", path,
                       sizeof a->sun_path - 1);
    strcpy(a->sun_path, path);
    return 0;
}

/* Does the process that listens there live? The kernel closes what an io_uring waits on a while after
 * its process was killed, so that a dead fabricd's socket can still be connected to. */
static bool listener_lives(int fd)
{
    struct ucred who;
    socklen_t len = sizeof who;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0 || who.pid == 0)
        return true; /* of another pid namespace: can't be told */
    struct pollfd p = {.fd = (int)syscall(SYS_pidfd_open, who.pid, 0), .events = POLLIN};
    if (p.fd < 0)
        return errno != ESRCH;
    bool dead = poll(&p, 1, 0) == 1;
    close(p.fd);
    return !dead;
}

int doorman_free(const char *path)
{
    struct sockaddr_un a;
    int rc = socket_address(&a, path);
    if (rc < 0)
        return rc;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(-errno, "socket: %s", strerror(errno));
    bool taken = connect(fd, (struct sockaddr *)&a, sizeof a) == 0 && listener_lives(fd);
    close(fd);
    return taken ? err_set(-EADDRINUSE,
                           "%s: another fabricd listens there; stop it, or set "
                           "listen.socket or node.runtime_dir",
                           path)
                 : 0;
}

/* Binds the socket; one that a dead fabricd left is removed. */
static int bind_socket(const char *path, unsigned mode)
{
    struct sockaddr_un a;
    int rc = socket_address(&a, path);
    if (rc < 0)
        return rc;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(-errno, "socket: %s", strerror(errno));
    if (unlink(path) < 0 && errno != ENOENT)
        goto fail;
    mode_t old = umask(0777); /* nobody gets in before the mode is set */
    rc = bind(fd, (struct sockaddr *)&a, sizeof a);
    umask(old);
    if (rc < 0 || chmod(path, mode) < 0 || listen(fd, 128) < 0)
        goto fail;
    return fd;
fail:
    rc = -errno;
    close(fd);
    return err_set(rc, "listen.socket: %s: %s", path, strerror(-rc));
}

int doorman_open(struct doorman **out, struct daemon *d)
{
    struct doorman *dm = calloc(1, sizeof *dm);
    if (!dm)
        return err_set(-ENOMEM, "no memory");
    dm->d = d;
    dm->src.owner = dm;
    dm->fd = bind_socket(d->socket_path, d->conf->socket_mode);
    int rc = dm->fd < 0 ? dm->fd : loop_accept(d->loop, &dm->src, dm->fd, on_accept);
    if (rc < 0) {
        if (dm->fd >= 0)
            close(dm->fd);
        free(dm);
        return rc;
    }
    *out = dm;
    return 0;
}

int doorman_watch(struct doorman *dm, uint32_t participant, uint32_t pid, int pidfd)
{
    struct guest *g = calloc(1, sizeof *g);
    if (!g) {
        close(pidfd);
        return err_set(-ENOMEM, "no memory");
    }
    g->dm = dm;
    g->sock = -1;
    g->pidfd = pidfd;
    g->participant = (int)participant;
    g->who.pid = (pid_t)pid;
    g->pid_src.owner = g;
    g->next = dm->guests;
    if (g->next)
        g->next->prev = g;
    dm->guests = g;
    int rc = loop_watch(dm->d->loop, &g->pid_src, pidfd, POLLIN, true, on_death);
    if (rc < 0)
        guest_free(g);
    return rc;
}

void doorman_sweep(struct doorman *dm)
{
    for (struct guest *g = dm->guests, *next; g; g = next) {
        next = g->next;
        if (g->participant >= 0 && has_left(g))
            bury(g, false);
    }
}

void doorman_tick(struct doorman *dm, uint64_t now_ns)
{
    for (struct guest *g = dm->guests, *next; g; g = next) {
        next = g->next;
        if (g->participant < 0 && now_ns - g->since_ns > dm->d->conf->handshake_timeout_ns)
            guest_free(g);
    }
}

void doorman_refuse(struct doorman *dm)
{
    dm->refusing = true;
}

void doorman_close(struct doorman *dm)
{
    loop_stop(dm->d->loop, &dm->src);
    close(dm->fd);
    unlink(dm->d->socket_path);
    while (dm->guests)
        guest_free(dm->guests);
    free(dm);
}
