/* SPDX-License-Identifier: MIT
 *
 * keeper.c - the process that holds the segment while fabricd is down; see keeper.h.
 *
 * The keeper is fabricd's own program executed anew: nothing of fabricd's memory, libraries or
 * io_uring is in it. It has one thread, one poll(), and three descriptors that matter. It maps the
 * segment only when fabricd is down.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "apps/fabricd/keeper.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"
#include "core/slot.h"
#include "core/wake.h"

#define KEEP_MAGIC   0x5045454bu /* "KEEP" */
#define KEEP_VERSION 1u
#define TICK_MS      1000

enum keep_what { KEEP_HERE = 1, KEEP_BUSY, KEEP_DONE, KEEP_DRAIN };

struct keep_msg {
    uint32_t magic, version, what, layout;
    uint64_t segment_id;
    uint32_t pid; /* BUSY: of the fabricd that has it */
    uint32_t pad;
};

/* Where the keeper finds what it was started with. */
enum { FD_SEGMENT = 3, FD_BELL, FD_LISTENER, FD_FABRICD, FD_END };

static int keep_address(struct sockaddr_un *a, const char *socket_path)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    if ((size_t)snprintf(a->sun_path, sizeof a->sun_path, "%s.keep", socket_path) >=
        sizeof a->sun_path)
        return err_set(-ENAMETOOLONG, "%s.keep: too long for a UNIX socket", socket_path);
    return 0;
}

static int send_msg(int sock, const struct keep_msg *msg, const int *fds, size_t nfds)
{
    union {
        char buf[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)msg, sizeof *msg};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (nfds) {
        m.msg_control = control.buf;
        m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
    }
    return sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof *msg ? 0 : -EPIPE;
}

/* One message and up to two descriptors; got[] are -1 where none came. */
static int recv_msg(int sock, struct keep_msg *msg, int got[2])
{
    union {
        char buf[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {msg, sizeof *msg};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.buf,
                       .msg_controllen = sizeof control.buf};
    got[0] = got[1] = -1;
    ssize_t n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
    if (n < 0)
        return -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); n > 0 && c; c = CMSG_NXTHDR(&m, c)) {
        size_t len = c->cmsg_len - CMSG_LEN(0);
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            memcpy(got, CMSG_DATA(c), len < 2 * sizeof(int) ? len : 2 * sizeof(int));
    }
    return n == sizeof *msg && msg->magic == KEEP_MAGIC && msg->version == KEEP_VERSION ? 0
                                                                                        : -EPROTO;
}

/* ---- fabricd's side ---- */

/* Its segment has another layout: only the old program can let it run dry. */
static int refuse_layout(struct keeper *k, const struct keep_msg *m)
{
    struct keep_msg drain = {.magic = KEEP_MAGIC, .version = KEEP_VERSION, .what = KEEP_DRAIN};
    int rc = send_msg(k->sock, &drain, NULL, 0);
    close(k->sock);
    k->sock = -1;
    return err_set(-EPROTO,
                   "the segment kept from the fabricd before this one has layout %u, this program "
                   "knows %u: %s; start again when its workers have finished, or stop the keeper "
                   "to give it up",
                   m->layout, SEG_LAYOUT,
                   rc < 0 ? "its keeper does not answer" : "its keeper lets it run dry now");
}

int keeper_ask(struct keeper *k, const char *socket_path, struct segment *seg, int *bell)
{
    struct sockaddr_un a;
    struct keep_msg m;
    int got[2], rc = keep_address(&a, socket_path);
    k->sock = -1;
    if (rc < 0)
        return rc;
    k->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (k->sock < 0)
        return err_set(-errno, "socket: %s", strerror(errno));
    if (connect(k->sock, (struct sockaddr *)&a, sizeof a) < 0) {
        close(k->sock);
        k->sock = -1;
        return 0;
    }
    struct timeval limit = {.tv_sec = 5};
    (void)setsockopt(k->sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    rc = recv_msg(k->sock, &m, got);
    if (rc == 0 && m.what == KEEP_BUSY)
        rc = err_set(-EADDRINUSE, "fabricd (pid %u) has the segment of %s: stop it first", m.pid,
                     socket_path);
    else if (rc == 0 && m.layout != SEG_LAYOUT)
        return refuse_layout(k, &m);
    else if (rc == 0 && (m.what != KEEP_HERE || got[0] < 0 || got[1] < 0))
        rc = err_set(-EPROTO, "%s sent no segment", a.sun_path);
    else if (rc < 0)
        rc = 0; /* it ends just now, or is something else: nothing to adopt */
    else
        rc = segment_map(seg, got[0]) < 0 ? -EPROTO : 1;
    if (rc == 1 && at_load(&seg->head->state) == SEG_CLOSED) {
        segment_unmap(seg);
        got[0] = -1;
        rc = 0;
    }
    if (rc == 1) {
        *bell = got[1];
        return 1;
    }
    for (int i = 0; i < 2; i++)
        if (got[i] >= 0)
            close(got[i]);
    close(k->sock);
    k->sock = -1;
    return rc;
}

static int listen_at(const char *socket_path)
{
    struct sockaddr_un a;
    int rc = keep_address(&a, socket_path);
    if (rc < 0)
        return rc;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set(-errno, "socket: %s", strerror(errno));
    unlink(a.sun_path);
    mode_t old = umask(0177);
    rc = bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 8) < 0 ? -errno : 0;
    umask(old);
    if (rc < 0) {
        close(fd);
        return err_set(rc, "%s: %s", a.sun_path, strerror(-rc));
    }
    return fd;
}

/* Executes the keeper with its four descriptors in their places. */
static int spawn_keeper(const char *socket_path, uint64_t keep_ns, const int fds[4], pid_t *pid)
{
    char keep[32];
    char *argv[] = {"fabricd-keeper", KEEPER_OPTION, (char *)(uintptr_t)socket_path, keep, NULL};
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t at;
    sigset_t none;
    int moved[4], rc = 0;
    snprintf(keep, sizeof keep, "%llu", (unsigned long long)keep_ns);
    /* out of the way of 3 to 6 first */
    for (int i = 0; i < 4; i++) {
        moved[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 100);
        if (moved[i] < 0)
            rc = -errno;
    }
    sigemptyset(&none);
    posix_spawn_file_actions_init(&fa);
    posix_spawnattr_init(&at);
    /* a session of its own: Ctrl-C at fabricd's terminal is not meant for it */
    posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
    posix_spawnattr_setsigmask(&at, &none);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
    for (int i = 0; i < 4; i++)
        posix_spawn_file_actions_adddup2(&fa, moved[i], FD_SEGMENT + i);
    if (rc == 0)
        rc = -posix_spawn(pid, "/proc/self/exe", &fa, &at, argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    posix_spawnattr_destroy(&at);
    for (int i = 0; i < 4; i++)
        if (moved[i] >= 0)
            close(moved[i]);
    return rc < 0 ? err_set(rc, "starting the keeper: %s", strerror(-rc)) : 0;
}

int keeper_start(struct keeper *k, const char *socket_path, const struct segment *seg, int bell,
                 uint64_t keep_ns)
{
    int pair[2], rc;
    pid_t pid = 0;
    k->sock = -1;
    int listener = listen_at(socket_path);
    if (listener < 0)
        return listener;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        rc = err_set(-errno, "socketpair: %s", strerror(errno));
        close(listener);
        return rc;
    }
    rc = spawn_keeper(socket_path, keep_ns, (int[]){seg->fd, bell, listener, pair[1]}, &pid);
    close(listener);
    close(pair[1]);
    if (rc < 0) {
        close(pair[0]);
        return rc;
    }
    at_store(&seg->head->keeper_pid, (uint32_t)pid);
    k->sock = pair[0];
    return 0;
}

void keeper_done(struct keeper *k)
{
    struct keep_msg m = {.magic = KEEP_MAGIC, .version = KEEP_VERSION, .what = KEEP_DONE};
    if (k->sock < 0)
        return;
    (void)!send_msg(k->sock, &m, NULL, 0); /* it is gone: nothing to tell */
    close(k->sock);
    k->sock = -1;
}

/* ---- the keeper's side ---- */

struct kept {
    struct segment seg; /* mapped while fabricd is down */
    const char *socket_path;
    uint64_t keep_ns, until_ns;
    int fabricd; /* connection to it; -1: it is down */
    uint32_t fabricd_pid;
    int signals;
    bool draining, over;
};

static bool ran_dry(const struct segment *s)
{
    for (uint32_t i = 0; i < s->slots; i++) {
        uint32_t st = slot_state(at_load(&s->slot[i].state));
        if (st == SLOT_READY || st == SLOT_LEASED || st == SLOT_DELAYED)
            return false;
    }
    return true;
}

/* The end of the fabric: everybody who sleeps is woken and told. */
static void close_segment(struct kept *k)
{
    struct wake_out nobody = {.daemon_fd = -1};
    if (!k->seg.base)
        return;
    at_store(&k->seg.head->state, SEG_CLOSED);
    for (uint32_t q = 0; q < k->seg.queues; q++)
        queue_wake_all(&k->seg.queue[q]);
    for (uint32_t i = 0; i < k->seg.participants; i++)
        bell_ring(&k->seg, &k->seg.participant[i], &nobody);
}

static void fabricd_down(struct kept *k)
{
    close(k->fabricd);
    k->fabricd = -1;
    k->until_ns = clock_ns() + k->keep_ns;
    int fd = fcntl(FD_SEGMENT, F_DUPFD_CLOEXEC, FD_END);
    int rc = fd < 0 ? -errno : segment_map(&k->seg, fd);
    if (rc < 0) {
        log_error("the segment can't be kept: %s", err_text(rc));
        if (fd >= 0)
            close(fd);
        k->over = true;
        return;
    }
    log_warn("fabricd (pid %u) is gone; its segment is kept for %llu s", k->fabricd_pid,
             (unsigned long long)(k->keep_ns / 1000000000u));
}

static void on_fabricd(struct kept *k)
{
    struct keep_msg m;
    int got[2];
    int rc = recv_msg(k->fabricd, &m, got);
    for (int i = 0; i < 2; i++)
        if (got[i] >= 0)
            close(got[i]);
    if (rc == 0 && m.what == KEEP_DONE) {
        k->over = true;
    } else if (rc == 0 && m.what == KEEP_DRAIN) {
        fabricd_down(k);
        k->draining = true;
        if (k->seg.base)
            at_store(&k->seg.head->state, SEG_DRAINING);
    } else {
        fabricd_down(k);
    }
}

static void on_connect(struct kept *k)
{
    struct ucred who;
    socklen_t len = sizeof who;
    struct keep_msg m = {
        .magic = KEEP_MAGIC, .version = KEEP_VERSION, .what = KEEP_HERE, .layout = SEG_LAYOUT};
    int fds[2] = {FD_SEGMENT, FD_BELL};
    int fd = accept4(FD_LISTENER, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0 ||
        (who.uid != geteuid() && who.uid != 0)) {
        close(fd);
        return;
    }
    if (k->fabricd >= 0) {
        m.what = KEEP_BUSY;
        m.pid = k->fabricd_pid;
        (void)!send_msg(fd, &m, NULL, 0); /* if it is gone it need not know */
        close(fd);
        return;
    }
    if (send_msg(fd, &m, fds, 2) < 0) {
        close(fd);
        return;
    }
    k->fabricd = fd;
    k->fabricd_pid = (uint32_t)who.pid;
    segment_unmap(&k->seg);
}

/* Once a second while fabricd is down. */
static void tick(struct kept *k)
{
    struct sockaddr_un a;
    struct stat st;
    at_store(&k->seg.head->alive_ns, clock_ns());
    bool unlinked = keep_address(&a, k->socket_path) < 0 || stat(a.sun_path, &st) < 0;
    if (clock_ns() < k->until_ns && !unlinked && !(k->draining && ran_dry(&k->seg)))
        return;
    log_warn("%s", k->draining ? "the old segment has run dry"
                   : unlinked  ? "the runtime directory is gone: the segment is given up"
                               : "no fabricd has come: the segment is given up");
    close_segment(k);
    k->over = true;
}

static void on_signal(struct kept *k)
{
    struct signalfd_siginfo si;
    /* systemd sends SIGTERM to fabricd and us alike: while fabricd lives, it is in charge */
    if (read(k->signals, &si, sizeof si) == sizeof si && k->fabricd < 0) {
        close_segment(k);
        k->over = true;
    }
}

int keeper_main(int argc, char **argv)
{
    struct kept k = {.seg.fd = -1, .fabricd = FD_FABRICD, .fabricd_pid = (uint32_t)getppid()};
    struct sockaddr_un a;
    sigset_t set;
    log_open("fabricd-keeper", LOG_INFO);
    if (argc != 4 || fcntl(FD_FABRICD, F_GETFD) < 0) {
        fprintf(stderr, "fabricd: %s is not for people\n", KEEPER_OPTION);
        return 2;
    }
    k.socket_path = argv[2];
    k.keep_ns = strtoull(argv[3], NULL, 10);
    for (int fd = FD_SEGMENT; fd < FD_END; fd++)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0 ||
        (k.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)) < 0)
        return 1;
    if (chdir("/") < 0)
        return 1;
    while (!k.over) {
        struct pollfd p[] = {{.fd = FD_LISTENER, .events = POLLIN},
                             {.fd = k.signals, .events = POLLIN},
                             {.fd = k.fabricd, .events = POLLIN}};
        int n = poll(p, 3, k.fabricd < 0 ? TICK_MS : -1);
        if (n < 0 && errno != EINTR)
            break;
        if (n > 0 && p[2].revents)
            on_fabricd(&k);
        if (n > 0 && p[1].revents)
            on_signal(&k);
        if (n > 0 && p[0].revents && !k.over)
            on_connect(&k);
        if (k.fabricd < 0 && !k.over && k.seg.base)
            tick(&k);
    }
    if (keep_address(&a, k.socket_path) == 0)
        unlink(a.sun_path);
    return 0;
}
