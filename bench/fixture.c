/* SPDX-License-Identifier: MIT
 *
 * fixture.c - see fixture.h.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <rdma/fabric.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_errno.h>
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
    uint64_t until = clock_ns() + 60000000000u; /* a net: emulated machines are slow */
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

static int find_verbs_host(char *host, size_t cap)
{
    struct fi_info *hints = fi_allocinfo(), *list = NULL;
    int rc = -FI_ENOMEM;
    if (hints) {
        hints->ep_attr->type = FI_EP_MSG;
        hints->addr_format = FI_SOCKADDR_IN;
        hints->domain_attr->mr_mode =
            FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
        hints->fabric_attr->prov_name = strdup("verbs");
        rc = fi_getinfo(FI_VERSION(1, 17), NULL, NULL, 0, hints, &list);
        fi_freeinfo(hints);
    }
    if (rc)
        return -1;
    const struct fi_info *i = list;
    while (i && (!i->src_addr || ((const struct sockaddr *)i->src_addr)->sa_family != AF_INET))
        i = i->next;
    return i ? getnameinfo(i->src_addr, (socklen_t)i->src_addrlen, host, (socklen_t)cap, NULL, 0,
                           NI_NUMERICHOST)
             : -1;
}

/* In a child: once a process has opened a verbs device, its later children can't. */
int fixture_verbs_host(char *host, size_t cap)
{
    int fd[2];
    char text[64] = "";
    if (pipe2(fd, O_CLOEXEC) < 0)
        return err_set(-errno, "a pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        bool found = find_verbs_host(text, sizeof text) == 0;
        _exit(found && write(fd[1], text, sizeof text) == sizeof text ? 0 : 1);
    }
    close(fd[1]);
    ssize_t n = read(fd[0], text, sizeof text);
    close(fd[0]);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    if (n != sizeof text)
        return err_set(
            -ENODEV,
            "there is no RDMA device with an IPv4 address here (tests/verbs/run makes one in a "
            "virtual machine)");
    snprintf(host, cap, "%s", text);
    return 0;
}

int fixture_start(struct fixture *f, const char *build, const char *tables)
{
    return fixture_start_on(f, build, "tcp", "127.0.0.1", tables);
}

int fixture_start_on(struct fixture *f, const char *build, const char *provider, const char *host,
                     const char *tables)
{
    char conf[128], program[512];
    int port = free_port(), err[2];
    memset(f, 0, sizeof *f);
    const char *tmp = getenv("TMPDIR");
    if (!tmp || strlen(tmp) > 40) /* a socket's name has 107 bytes */
        tmp = "/tmp";
    snprintf(f->dir, sizeof f->dir, "%s/fabbench-XXXXXX", tmp);
    if (!mkdtemp(f->dir))
        return err_set(-errno, "a directory in %s: %s", tmp, strerror(errno));
    snprintf(conf, sizeof conf, "%s/node.toml", f->dir);
    snprintf(f->local, sizeof f->local, "unix:%s/fabricd.sock", f->dir);
    snprintf(f->remote, sizeof f->remote, "%s://%s:%d", provider, host ? host : "none", port);
    snprintf(f->key, sizeof f->key, "%s/authkey", f->dir);
    FILE *c = fopen(conf, "we");
    if (!c || pipe2(err, O_CLOEXEC) < 0)
        return err_set(-errno, "%s: %s", conf, strerror(errno));
    fprintf(c, "[node]\nruntime_dir = \"%s\"\nstate_dir = \"%s\"\n[listen]\n", f->dir, f->dir);
    if (host)
        fprintf(c, "address = \"%s:%d\"\n%s", host, port, tables);
    else
        fprintf(c, "address = \"\"\n%s", tables);
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
    const char *names[] = {"node.toml", "authkey", "fabricd.sock", "fabricd.sock.keep"};
    char path[160];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", f->dir, names[i]);
        unlink(path);
    }
    rmdir(f->dir);
    f->pid = 0;
    return status;
}
