/* SPDX-License-Identifier: MIT
 *
 * floor_socket.c - 64 bytes there and back over a TCP connection on loopback, with blocking reads
 * and with busy polling.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/error.h"

#define BYTES 64

static int move(const struct settings *st, int fd, char *buf, bool out, bool busy)
{
    size_t at = 0;
    int flags = MSG_NOSIGNAL | (busy ? MSG_DONTWAIT : 0);
    while (at < BYTES) {
        ssize_t n =
            out ? send(fd, buf + at, BYTES - at, flags) : recv(fd, buf + at, BYTES - at, flags);
        if (n > 0)
            at += (size_t)n;
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            return -1;
        else
            poll_pause(st);
    }
    return 0;
}

static int listen_loopback(struct sockaddr_in *a)
{
    socklen_t len = sizeof *a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *a = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd >= 0 && bind(fd, (struct sockaddr *)a, len) == 0 && listen(fd, 1) == 0 &&
        getsockname(fd, (struct sockaddr *)a, &len) == 0)
        return fd;
    return -1;
}

int floor_socket(const struct settings *st, bool busy, struct samples *out)
{
    struct sockaddr_in a;
    char buf[BYTES] = {0};
    int one = 1, rc = 0, l = listen_loopback(&a);
    size_t warm = out->n / 5;
    if (l < 0)
        return err_set(-errno, "a loopback socket: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin_far(st);
        int fd = accept(l, NULL, NULL);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        while (move(st, fd, buf, false, busy) == 0 && move(st, fd, buf, true, busy) == 0)
            ;
        _exit(0);
    }
    pin_near(st);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        rc = err_set(-errno, "a loopback connection: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    for (size_t i = 0; rc == 0 && i < out->n + warm; i++) {
        uint64_t t = stamp();
        if (move(st, fd, buf, true, busy) < 0 || move(st, fd, buf, false, busy) < 0)
            rc = err_set(-EPIPE, "the loopback connection broke");
        if (i >= warm)
            samples_put(out, i - warm, stamp_ns(t, stamp()));
    }
    close(fd);
    close(l);
    child_stop(pid);
    return rc;
}
