/* SPDX-License-Identifier: MIT
 *
 * notify.c - the few lines of systemd's protocols that fabricd needs, without its library.
 *
 * Failure: what can't be sent is not sent; systemd then goes on without it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "apps/fabricd/notify.h"

#define FIRST_FD 3 /* SD_LISTEN_FDS_START */

static void send_to_systemd(const char *text, int with_fd)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    if (!path || strlen(path) >= sizeof a.sun_path)
        return;
    strcpy(a.sun_path, path);
    if (a.sun_path[0] == '@')
        a.sun_path[0] = 0;
    struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
    struct msghdr m = {.msg_name = &a,
                       .msg_namelen =
                           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)),
                       .msg_iov = &iov,
                       .msg_iovlen = 1};
    if (with_fd >= 0) {
        m.msg_control = control.buf;
        m.msg_controllen = sizeof control.buf;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &with_fd, sizeof with_fd);
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)!sendmsg(fd, &m, MSG_NOSIGNAL);
    close(fd);
}

void notify(const char *text)
{
    send_to_systemd(text, -1);
}

void notify_store(const char *name, int fd)
{
    char text[128];
    snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%s", name);
    send_to_systemd(text, fd);
}

void notify_forget(const char *name)
{
    char text[128];
    snprintf(text, sizeof text, "FDSTOREREMOVE=1\nFDNAME=%s", name);
    send_to_systemd(text, -1);
}

int notify_stored(const char *name)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS"),
               *names = getenv("LISTEN_FDNAMES");
    size_t len = strlen(name);
    if (!pid || !count || !names || strtol(pid, NULL, 10) != getpid())
        return -1;
    long n = strtol(count, NULL, 10);
    for (int i = 0; i < n && *names; i++) {
        size_t this = strcspn(names, ":");
        if (this == len && memcmp(names, name, len) == 0 &&
            fcntl(FIRST_FD + i, F_SETFD, FD_CLOEXEC) == 0)
            return FIRST_FD + i;
        names += this + (names[this] == ':');
    }
    return -1;
}
