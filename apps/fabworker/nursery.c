/* SPDX-License-Identifier: MIT
 *
 * nursery.c - the process that makes the children of --isolate. See isolate.h.
 *
 * It is forked while the worker has one thread and no handle, and stays so: a request on its socket
 * names a worker thread, the answer is the pid of a new child, which is the worker's to wait for.
 *
 * Threads: the nursery has one; worker threads ask under a lock. Failure: when it is gone, asking
 * fails, and the worker ends with a message.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "apps/fabworker/isolate.h"
#include "core/error.h"

static _Noreturn void serve(int sock, struct worker *w, uint32_t n, pid_t parent)
{
    sigset_t mask;
    uint32_t index;
    /* a terminal's Ctrl-C is the worker's to obey; so for the children, who inherit this */
    sigemptyset(&mask);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGHUP);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    while (recv(sock, &index, sizeof index, 0) == sizeof index && index < n) {
        /* fork() with its parent for a parent: glibc has no name for it */
        long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
        pid_t answer = pid < 0 ? -errno : (pid_t)pid;
        if (pid == 0)
            isolate_child(w[index].iso, parent);
        if (send(sock, &answer, sizeof answer, MSG_NOSIGNAL) != sizeof answer)
            break;
    }
    _exit(0);
}

int nursery_open(struct nursery *y, struct worker *w, uint32_t n)
{
    int pair[2];
    pid_t self = getpid();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_set(-errno, "--isolate: no socket: %s", strerror(errno));
    pthread_mutex_init(&y->lock, NULL);
    y->sock = pair[0];
    y->pid = fork();
    if (y->pid == 0) {
        close(pair[0]);
        serve(pair[1], w, n, self);
    }
    int error = errno;
    close(pair[1]);
    if (y->pid > 0)
        return 0;
    close(y->sock);
    return err_set(-error, "--isolate: no process: %s", strerror(error));
}

void nursery_close(struct nursery *y)
{
    if (y->pid <= 0)
        return;
    close(y->sock);
    while (waitpid(y->pid, NULL, 0) < 0 && errno == EINTR)
        ;
}
