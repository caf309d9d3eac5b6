/* SPDX-License-Identifier: MIT
 *
 * fixture.c - a private fabricd and its workers: own directories, own ports, ended by pid, dead with their parent at the latest.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/kernel.h"

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

int fixture_start(struct fixture *f, const struct settings *st)
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
    fprintf(c, "[node]\nruntime_dir = \"%s\"\nstate_dir = \"%s\"\n[listen]\naddress = \"127.0.0.1:%d\"\n",
            f->dir, f->dir, port);
    fclose(c);
    snprintf(program, sizeof program, "%s/apps/fabricd", st->build);
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
    /* what it says later is not read: the pipe is non-blocking for nobody, so keep it small by its own log level */
    close(err[0]);
    if (rc < 0)
        fixture_stop(f);
    return rc;
}

void fixture_stop(struct fixture *f)
{
    if (f->pid > 0) {
        kill(f->pid, SIGTERM);
        for (int i = 0; i < 200; i++) {
            if (waitpid(f->pid, NULL, WNOHANG) == f->pid) {
                f->pid = 0;
                break;
            }
            struct timespec t = {.tv_nsec = 10000000};
            nanosleep(&t, NULL);
        }
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
}

static void work(fab_t *f, unsigned batch)
{
    struct kernel_ctx ctx = {0};
    struct fab_lease lease[256];
    for (;;) {
        long n = fab_claim(f, 0, lease, batch, FAB_FOREVER);
        if (n < 0)
            return;
        for (long i = 0; i < n; i++) {
            const struct kernel *k = kernel_by_id(lease[i].kernel);
            const void *res;
            long len = k ? k->run(&ctx, fab_arg(&lease[i]), lease[i].len, &res) : -ENOENT;
            int rc = len < 0 ? fab_fail(f, &lease[i], ctx.error)
                             : fab_complete(f, &lease[i], res, (uint32_t)len);
            if (rc < 0)
                return;
        }
    }
}

int worker_start(const struct settings *st, const char *address, const char *key, unsigned batch,
                 int64_t spin_ns)
{
    int ready[2];
    char ok = 0;
    if (pipe2(ready, O_CLOEXEC) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0) {
        struct fab_options o = {.roles = FAB_WORKER, .name = "bench", .key_file = key, .spin_ns = spin_ns};
        fab_t *f;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin_far(st);
        if (kernel_register_builtin() < 0 || fab_open(&f, address, &o) < 0 || write(ready[1], "!", 1) != 1) {
            fprintf(stderr, "fabbench: the worker: %s\n", fab_errmsg());
            _exit(1);
        }
        work(f, batch);
        _exit(1);
    }
    close(ready[1]);
    if (read(ready[0], &ok, 1) != 1) {
        child_stop(pid);
        pid = err_set(-EIO, "the worker did not start");
    }
    close(ready[0]);
    return pid;
}
