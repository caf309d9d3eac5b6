/* SPDX-License-Identifier: MIT
 *
 * fixture.h - a private fabricd for benchmarks and tests: own directories, own port, ended by pid,
 * dead with its parent at the latest. Any number may run side by side.
 */
#ifndef BENCH_FIXTURE_H
#define BENCH_FIXTURE_H

#include <stddef.h>

struct fixture {
    char dir[64];
    char local[128], remote[128]; /* addresses */
    char key[128];
    int pid;
};

/* build: the build directory with apps/fabricd in it. tables: more of the configuration, as text;
 * [node] and [listen] are taken. Returns when fabricd is ready. */
int fixture_start(struct fixture *f, const char *build, const char *tables)
    __attribute__((warn_unused_result));
/* The same with remote peers on this host's address and over this provider ("tcp", "verbs"); host
 * NULL: no remote peers. */
int fixture_start_on(struct fixture *f, const char *build, const char *provider, const char *host,
                     const char *tables) __attribute__((warn_unused_result));
/* The address of an RDMA device of this machine, for verbs. -ENODEV with a message: there is none.
 */
int fixture_verbs_host(char *host, size_t cap) __attribute__((warn_unused_result));
/* SIGTERM, and SIGKILL after ten seconds; returns its exit status as waitpid() gives it, -1 if it
 * had to be killed. */
int fixture_stop(struct fixture *f);
void child_stop(int pid);

#endif
