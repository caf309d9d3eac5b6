/* SPDX-License-Identifier: MIT
 *
 * worker.c - a worker process for the measurements: the loop of fabworker without its options.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/error.h"
#include "core/kernel.h"

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
        struct fab_options o = {
            .roles = FAB_WORKER, .name = "bench", .key_file = key, .spin_ns = spin_ns};
        fab_t *f;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin_far(st);
        if (kernel_register_builtin() < 0 || fab_open(&f, address, &o) < 0 ||
            write(ready[1], "!", 1) != 1) {
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
