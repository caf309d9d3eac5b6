/* SPDX-License-Identifier: MIT
 *
 * fixture.c - see conform.h: fabricd over the transport under test, the nursery that forks
 * workers and doomed producers, and ways to wait for a state of the fabric, over its local socket
 * whatever the transport is.
 *
 * Workers, and producers that are to be killed, are forked by a process that has never touched
 * libfabric, the nursery: after fork() a verbs device can't be used any more, and the test itself
 * opens one.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "core/kernel.h"
#include "tests/common/fabricd.h"
#include "tests/conform/conform.h"

int64_t patience(void)
{
    const char *text = getenv("CONFORM_PATIENCE");
    int64_t n = text ? atoll(text) : 1;
    return n < 1 || n > 100 ? 1 : n;
}

ReportHook(PRE_ALL)(struct criterion_test_set *all)
{
    FOREACH_SET(struct criterion_suite_set * suite, all->suites)
    {
        if (!suite->tests)
            continue;
        FOREACH_SET(struct criterion_test * t, suite->tests)
        {
            t->data->timeout *= (double)patience();
        }
    }
}

struct fixture fx;
const char *address;

/* What the nursery is told to fork. */
struct order {
    bool sequence;
    unsigned batch;
    char client[32]; /* not "": a producer with this id; see vanish() */
    uint32_t result_len;
};
static int nursery = -1;
static pid_t nurse;

fab_t *open_as(uint32_t roles, const char *at)
{
    struct fab_options o = {
        .roles = roles, .key_file = fx.key, .name = "conform", .timeout_ns = 10 * SECOND};
    fab_t *f = NULL;
    cr_assert_eq(fab_open(&f, at, &o), 0, "%s", fab_errmsg());
    return f;
}

static void start_nursery(void)
{
    int pair[2];
    struct order o;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    nurse = fork();
    cr_assert_geq(nurse, 0);
    nursery = pair[nurse == 0];
    close(pair[nurse != 0]);
    if (nurse)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGCHLD, SIG_IGN);
    while (read(nursery, &o, sizeof o) == sizeof o) {
        pid_t pid = fork();
        if (pid == 0 && o.client[0])
            be_killed(nursery, o.client, o.result_len);
        else if (pid == 0)
            work(o.sequence, o.batch);
        if (write(nursery, &pid, sizeof pid) != sizeof pid)
            break;
    }
    _exit(0);
}

void fabric_begin(const char *tables)
{
    const char *which = getenv("CONFORM");
    char all[512], host[64] = "127.0.0.1";
    cr_assert(which, "set CONFORM to a transport, as in conform.h");
    bool verbs = strncmp(which, "verbs-", 6) == 0;
    snprintf(all, sizeof all,
             "%s\n[auth]\nsecurity = \"%s\"\n[fabric]\nprovider = \"%s\"\nlane = \"%s\"\n", tables,
             strstr(which, "-encrypted") ? "encrypted" : "authenticated", verbs ? "verbs" : "tcp",
             strstr(which, "-write") ? "write" : "send");
    cr_assert_eq(kernel_register_builtin(), 0);
    if (verbs)
        cr_assert_eq(fixture_verbs_host(host, sizeof host), 0, "%s", fab_errmsg());
    fabricd_up_on(&fx, verbs ? "verbs" : "tcp", host, all);
    address = strcmp(which, "unix") == 0 ? fx.local : fx.remote;
    start_nursery();
}

void fabric_end(void)
{
    fabricd_down(&fx);
    close(nursery);
    child_stop(nurse);
}

pid_t worker(bool sequence, unsigned batch)
{
    struct order o = {.sequence = sequence, .batch = batch};
    pid_t pid = -1;
    cr_assert_eq(write(nursery, &o, sizeof o), (ssize_t)sizeof o);
    cr_assert_eq(read(nursery, &pid, sizeof pid), (ssize_t)sizeof pid);
    cr_assert_gt(pid, 0);
    return pid;
}

void worker_stop(pid_t pid)
{
    kill(pid, SIGKILL); /* the nursery reaps it */
}

void vanish(const char *client, uint32_t result_len)
{
    struct order o = {.result_len = result_len};
    pid_t child = -1;
    int rc = -1;
    snprintf(o.client, sizeof o.client, "%s", client);
    cr_assert_eq(write(nursery, &o, sizeof o), (ssize_t)sizeof o);
    cr_assert_eq(read(nursery, &child, sizeof child), (ssize_t)sizeof child);
    cr_assert_gt(child, 0);
    cr_assert_eq(read(nursery, &rc, sizeof rc), (ssize_t)sizeof rc);
    cr_assert_eq(rc, 0, "the child has failed at step %d", rc);
    int fd = (int)syscall(SYS_pidfd_open, child, 0); /* the nursery reaps it */
    struct pollfd p = {.fd = fd, .events = POLLIN};
    cr_assert_geq(fd, 0);
    kill(child, SIGKILL);
    cr_assert_eq(poll(&p, 1, (int)(5 * SECOND / 1000000)), 1);
    close(fd);
}

struct fab_task task(const char *kernel, const void *arg, uint32_t len)
{
    return (struct fab_task){
        .kernel = fab_kernel_id(kernel), .arg = arg, .len = len, .priority = FAB_PRIORITY_NORMAL};
}

struct fab_outcome run_with(fab_t *f, const char *kernel, uint64_t arg,
                            const struct fab_terms *terms)
{
    struct fab_task t = task(kernel, &arg, 8);
    struct fab_outcome o;
    fab_id id;
    t.terms = terms;
    cr_assert_eq(fab_submit(f, &t, 1, &id, SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(fab_wait(f, id, &o, 20 * SECOND), 0, "%s", fab_errmsg());
    return o;
}

bool await_status(bool (*as_wanted)(const char *json, long n), long n)
{
    fab_t *look = open_as(FAB_TOOL, fx.local);
    bool is = false;
    for (uint64_t until = clock_ns() + (uint64_t)(10 * SECOND); !is && clock_ns() < until;) {
        char *json;
        cr_assert_eq(fab_status_json(look, &json, SECOND), 0);
        is = as_wanted(json, n);
        free(json);
    }
    fab_close(look);
    return is;
}

static bool is_empty(const char *json, long n)
{
    (void)n;
    return strstr(json, "\"ready\": 0,") && strstr(json, "\"leased\": 0,");
}

void await_empty(void)
{
    cr_assert(await_status(is_empty, 0), "tasks are left in the fabric");
}

static bool one_is_leased(const char *json, long n)
{
    (void)n;
    return strstr(json, "\"leased\": 1,") != NULL;
}

void await_leased(void)
{
    cr_assert(await_status(one_is_leased, 0), "nobody runs the task");
}

static bool has_workers(const char *json, long n)
{
    for (; (json = strstr(json, "\"kind\": \"worker\"")); json++)
        n--;
    return n == 0;
}

void await_workers(int n)
{
    cr_assert(await_status(has_workers, n), "there are not %d workers", n);
}

struct fab_queue_info queue_info(fab_t *f)
{
    struct fab_queue_info i;
    cr_assert_eq(fab_queue_info(f, 0, &i, SECOND), 0, "%s", fab_errmsg());
    return i;
}

void await_depth(fab_t *f, uint64_t ready, uint64_t leased)
{
    struct fab_queue_info i;
    uint64_t until = clock_ns() + (uint64_t)(10 * SECOND);
    do
        i = queue_info(f);
    while ((i.ready != ready || i.leased != leased) && clock_ns() < until);
    cr_assert(i.ready == ready && i.leased == leased, "%llu ready, %llu leased",
              (unsigned long long)i.ready, (unsigned long long)i.leased);
}
