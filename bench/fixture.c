/* SPDX-License-Identifier: MIT
 *
 * fixture.c - see fixture.h.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench/fixture.h"
#include "core/clock.h"
#include "core/error.h"

void child_stop(int pid)
{
    if (pid <= 0)
        return;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* A port that was free a moment ago. */
static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), port = -1;
    if (fd >= 0 && bind(fd, (struct sockaddr *)&a, len) == 0 &&
        getsockname(fd, (struct sockaddr *)&a, &len) == 0)
        port = ntohs(a.sin_port);
    if (fd >= 0)
        close(fd);
    return port;
}

/* Reads fabricd's stderr until it says that it is ready. */
static int await_ready(int fd)
{
    char text[4096];
    size_t n = 0;
    uint64_t until = clock_ns() + 10000000000u;
    while (n < sizeof text - 1) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (clock_ns() > until || poll(&p, 1, 1000) < 0)
            break;
        ssize_t got = p.revents ? read(fd, text + n, sizeof text - 1 - n) : 0;
        if (p.revents && got <= 0)
            break;
        n += (size_t)got;
        text[n] = 0;
        if (strstr(text, ": ready on "))
            return 0;
    }
    text[n] = 0;
    return err_set(-EIO, "fabricd did not start: %s", n ? text : "it said nothing");
}

int fixture_start(struct fixture *f, const char *build, const char *tables)
{
    char conf[128], program[512];
    int port = free_port(), err[2];
    memset(f, 0, sizeof *f);
    strcpy(f->dir, "/tmp/fabbench-XXXXXX");
    if (!mkdtemp(f->dir))
        return err_set(-errno, "a directory in /tmp: %s", strerror(errno));
    snprintf(conf, sizeof conf, "%s/node.toml", f->dir);
    snprintf(f->local, sizeof f->local, "unix:%s/fabricd.sock", f->dir);
    snprintf(f->remote, sizeof f->remote, "tcp://127.0.0.1:%d", port);
    snprintf(f->key, sizeof f->key, "%s/authkey", f->dir);
    FILE *c = fopen(conf, "we");
    if (!c || pipe2(err, O_CLOEXEC) < 0)
        return err_set(-errno, "%s: %s", conf, strerror(errno));
    fprintf(c,
            "[node]\nruntime_dir = \"%s\"\nstate_dir = \"%s\"\n[listen]\naddress = "
            "\"127.0.0.1:%d\"\n%s",
            f->dir, f->dir, port, tables);
    fclose(c);
    snprintf(program, sizeof program, "%s/apps/fabricd", build);
    f->pid = fork();
    if (f->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(err[1], 2);
        execl(program, "fabricd", "-c", conf, (char *)NULL);
        fprintf(stderr, "%s: %s\n", program, strerror(errno));
        _exit(1);
    }
    close(err[1]);
    int rc = await_ready(err[0]);
    close(err[0]); /* nobody reads what it says later; its writes fail and that is all */
    if (rc < 0)
        (void)fixture_stop(f);
    return rc;
}

/* Waits for the end of a child by its pidfd, at most ms. */
static bool ended(int pid, int ms)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    bool gone = fd >= 0 && poll(&p, 1, ms) == 1;
    if (fd >= 0)
        close(fd);
    return gone;
}

int fixture_stop(struct fixture *f)
{
    int status = -1;
    if (f->pid > 0) {
        kill(f->pid, SIGTERM);
        if (ended(f->pid, 10000))
            waitpid(f->pid, &status, 0);
        else
            child_stop(f->pid);
    }
    const char *names[] = {"node.toml", "authkey", "fabricd.sock"};
    char path[160];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", f->dir, names[i]);
        unlink(path);
    }
    rmdir(f->dir);
    f->pid = 0;
    return status;
}
