/* SPDX-License-Identifier: MIT
 *
 * participants.c - what processes do to each other besides dying: being stopped and going on,
 * forking, leaving without a farewell, living in another pid namespace. Over shared memory and over
 * tcp where both make sense.
 *
 * Each test has a private fabricd. Children report and are told to go on through pipes, stops are
 * seen by waitpid(): nothing is waited for by time but in `settled()`, which has no event to wait
 * for. At the end of every test all slots and all of the arena must be free.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <jansson.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/fabric.h"
#include "tests/common/fabricd.h"

#define SECOND  1000000000ll
#define PATIENT (20 * SECOND)
#define LEASES  4

static struct fixture fx;
static int to_child[2], to_test[2];

static void begin(void)
{
    fabricd_up(&fx, "[segment]\nslots = 256\narena = \"4MiB\"\nkeep_results = \"1s\"\n");
    cr_assert_eq(pipe(to_child), 0);
    cr_assert_eq(pipe(to_test), 0);
}

static fab_t *open_at(const char *address, uint32_t roles)
{
    struct fab_options o = {.roles = roles, .key_file = fx.key, .name = "participants"};
    fab_t *f = NULL;
    cr_assert_eq(fab_open(&f, address, &o), 0, "%s", fab_errmsg());
    return f;
}

static long number(fab_t *tool, const char *name)
{
    char *text = NULL;
    cr_assert_eq(fab_status_json(tool, &text, PATIENT), 0, "%s", fab_errmsg());
    json_t *top = json_loads(text, 0, NULL);
    json_t *n = json_object_get(json_object_get(top, "fabric"), name);
    cr_assert(json_is_integer(n), "no %s", name);
    long value = (long)json_integer_value(n);
    json_decref(top);
    free(text);
    return value;
}

/* All has come back, at the latest after ten seconds: fabricd buries on its own time. */
static bool settled(fab_t *tool)
{
    uint64_t until = clock_ns() + 10 * SECOND;
    long slots = number(tool, "slots"), arena = number(tool, "arena_bytes");
    while (number(tool, "slots_free") != slots || number(tool, "arena_free") != arena) {
        if (clock_ns() > until)
            return false;
        sched_yield();
    }
    return true;
}

static void end(fab_t *tool)
{
    cr_assert(settled(tool), "%ld of %ld slots free, %ld of %ld bytes", number(tool, "slots_free"),
              number(tool, "slots"), number(tool, "arena_free"), number(tool, "arena_bytes"));
    fab_close(tool);
    fabricd_down(&fx);
}

static pid_t spawn(void (*body)(const char *address), const char *address)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    body(address);
    _exit(0);
}

static void tell(int fd[2])
{
    if (write(fd[1], "x", 1) != 1)
        _exit(90);
}

static void hear(int fd[2])
{
    char c;
    if (read(fd[0], &c, 1) != 1)
        _exit(91);
}

static void must(bool yes, int code) /* in children */
{
    if (!yes) {
        fprintf(stderr, "child: check %d failed: %s\n", code, fab_errmsg());
        _exit(code);
    }
}

static int exit_code(pid_t pid)
{
    int status = -1;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void submit(fab_t *f, unsigned n, const void *arg, uint32_t len, const struct fab_terms *terms)
{
    struct fab_task t = {.kernel = fab_kernel_id("echo"), .arg = arg, .len = len, .terms = terms};
    for (unsigned i = 0; i < n; i++) {
        t.tag = i;
        cr_assert_eq(fab_submit(f, &t, 1, NULL, PATIENT), 1, "%s", fab_errmsg());
    }
}

static void outcomes(fab_t *f, unsigned n, uint16_t status)
{
    struct fab_outcome o[64];
    for (unsigned got = 0; got < n;) {
        long k = fab_wait_any(f, o, 64, PATIENT);
        cr_assert_gt(k, 0, "%s", fab_errmsg());
        for (long i = 0; i < k; i++)
            cr_assert_eq(o[i].status, status, "status %u in place of %u", o[i].status, status);
        got += (unsigned)k;
    }
}

static fab_t *child_open(const char *address, uint32_t roles)
{
    struct fab_options o = {.roles = roles, .key_file = fx.key, .name = "child"};
    fab_t *f = NULL;
    must(fab_open(&f, address, &o) == 0, 10);
    return f;
}

/* ---- stopped, and going on ---- */

/* Claims, is stopped, and finds when it goes on that its leases are gone. */
static void stopped_over_limit(const char *address)
{
    fab_t *f = child_open(address, FAB_WORKER);
    struct fab_lease l[LEASES];
    long n = 0;
    while (n < LEASES) {
        long k = fab_claim(f, 0, l + n, (size_t)(LEASES - n), PATIENT);
        must(k > 0, 11);
        n += k;
    }
    raise(SIGSTOP);
    for (n = 0; n < LEASES; n++) {
        int rc = fab_complete(f, &l[n], "late", 4);
        /* a remote worker's completion is only sent here; fabricd drops it */
        must(rc == -ESTALE || (rc == 0 && strncmp(address, "unix:", 5) != 0), 12);
    }
    must(fab_flush(f) == 0, 13);
    fab_close(f);
}

static void a_zombie_does_no_harm(bool remote)
{
    begin();
    const char *address = remote ? fx.remote : fx.local;
    pid_t pid = spawn(stopped_over_limit, address);
    fab_t *tool = open_at(fx.local, FAB_TOOL), *f = open_at(fx.local, FAB_PRODUCER | FAB_WORKER);
    struct fab_terms terms = {.limit_ns = SECOND / 5};
    submit(f, LEASES, "12345678", 8, &terms);
    int status;
    cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
    cr_assert(WIFSTOPPED(status));
    outcomes(f, LEASES, FAB_OVERRUN);
    /* The fabric is full of other tasks when it goes on: none of them may see its results. */
    long slots = number(tool, "slots");
    struct fab_task t = {.kernel = fab_kernel_id("echo"), .arg = "new task", .len = 8};
    long n = 0, k;
    while ((k = fab_submit(f, &t, 1, NULL, 0)) == 1)
        n++;
    cr_assert_eq(k, -EAGAIN);
    cr_assert_geq(n, slots / 2);
    kill(pid, SIGCONT);
    cr_assert_eq(exit_code(pid), 0);
    for (long i = 0; i < n; i++) {
        struct fab_lease l;
        struct fab_outcome o;
        cr_assert_eq(fab_claim(f, 0, &l, 1, PATIENT), 1, "%s", fab_errmsg());
        if (!remote) /* what its link had asked for goes to the stopped peer and comes back from it */
            cr_assert_eq(l.attempt, 1);
        cr_assert_eq(memcmp(fab_arg(&l), "new task", 8), 0);
        cr_assert_eq(fab_complete(f, &l, fab_arg(&l), l.len), 0, "%s", fab_errmsg());
        cr_assert_eq(fab_wait_any(f, &o, 1, PATIENT), 1, "%s", fab_errmsg());
        cr_assert_eq(o.status, FAB_COMPLETED);
        cr_assert(o.len == 8 && memcmp(fab_data(&o), "new task", 8) == 0);
    }
    if (!remote) /* its connection may end before its results arrive */
        cr_assert_geq(number(tool, "late_results"), LEASES);
    fab_close(f);
    end(tool);
}

Test(participants, a_worker_stopped_over_its_limit_does_no_harm, .timeout = 60)
{
    a_zombie_does_no_harm(false);
}

Test(participants, a_remote_worker_stopped_over_its_limit_does_no_harm, .timeout = 60)
{
    a_zombie_does_no_harm(true);
}

/* Without a limit the lease of a living process is nobody else's, however long it is stopped. */
static void stopped_without_limit(const char *address)
{
    fab_t *f = child_open(address, FAB_WORKER);
    struct fab_lease l;
    must(fab_claim(f, 0, &l, 1, PATIENT) == 1, 11);
    raise(SIGSTOP);
    must(fab_complete(f, &l, "done", 4) == 0, 12);
    fab_close(f);
}

Test(participants, a_stopped_worker_is_not_robbed, .timeout = 60)
{
    begin();
    fab_t *tool = open_at(fx.local, FAB_TOOL), *f = open_at(fx.local, FAB_PRODUCER | FAB_WORKER);
    pid_t pid = spawn(stopped_without_limit, fx.local);
    struct fab_task t = {.kernel = fab_kernel_id("echo"), .arg = "x", .len = 1};
    fab_id first, id;
    int status;
    cr_assert_eq(fab_submit(f, &t, 1, &first, PATIENT), 1);
    cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
    struct fab_outcome o;
    for (int i = 0; i < 1000; i++) {
        struct fab_lease l;
        cr_assert_eq(fab_submit(f, &t, 1, &id, PATIENT), 1);
        cr_assert_eq(fab_claim(f, 0, &l, 1, PATIENT), 1, "%s", fab_errmsg());
        cr_assert_eq(fab_complete(f, &l, "y", 1), 0, "%s", fab_errmsg());
        cr_assert_eq(fab_wait(f, id, &o, PATIENT), 0, "%s", fab_errmsg());
    }
    cr_assert_eq(fab_wait(f, first, &o, 0), -EAGAIN);
    kill(pid, SIGCONT);
    cr_assert_eq(fab_wait(f, first, &o, PATIENT), 0, "%s", fab_errmsg());
    cr_assert(o.status == FAB_COMPLETED && o.attempts == 1 && o.len == 4 &&
              memcmp(fab_data(&o), "done", 4) == 0);
    cr_assert_eq(exit_code(pid), 0);
    fab_close(f);
    end(tool);
}

static void stopped_producer(const char *address)
{
    fab_t *f = child_open(address, FAB_PRODUCER);
    struct fab_outcome o[64];
    struct fab_task t = {.kernel = fab_kernel_id("echo"), .arg = "mine", .len = 4};
    for (unsigned i = 0; i < 50; i++)
        must(fab_submit(f, &t, 1, NULL, PATIENT) == 1, 11);
    raise(SIGSTOP);
    for (long n = 0, k; n < 50; n += k) {
        k = fab_wait_any(f, o, 64, PATIENT);
        must(k > 0, 12);
        for (long i = 0; i < k; i++)
            must(o[i].status == FAB_COMPLETED && o[i].len == 4 &&
                     memcmp(fab_data(&o[i]), "mine", 4) == 0,
                 13);
    }
    fab_close(f);
}

static void work_through(fab_t *f, unsigned n)
{
    struct fab_lease l;
    for (unsigned i = 0; i < n; i++) {
        cr_assert_eq(fab_claim(f, 0, &l, 1, PATIENT), 1, "%s", fab_errmsg());
        cr_assert_eq(fab_complete(f, &l, fab_arg(&l), l.len), 0, "%s", fab_errmsg());
    }
}

Test(participants, a_stopped_producer_finds_its_outcomes, .timeout = 60)
{
    begin();
    fab_t *tool = open_at(fx.local, FAB_TOOL), *f = open_at(fx.local, FAB_PRODUCER | FAB_WORKER);
    pid_t pid = spawn(stopped_producer, fx.local);
    int status;
    cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
    work_through(f, 50);
    for (int i = 0; i < 10; i++) { /* others have the rest of the fabric */
        submit(f, 100, "z", 1, NULL);
        work_through(f, 100);
        outcomes(f, 100, FAB_COMPLETED);
    }
    kill(pid, SIGCONT);
    cr_assert_eq(exit_code(pid), 0);
    fab_close(f);
    end(tool);
}

/* ---- fork ---- */

Test(participants, a_forked_child_that_closes_the_handle_does_nothing, .timeout = 60)
{
    for (int remote = 0; remote < 2; remote++) {
        begin();
        fab_t *tool = open_at(fx.local, FAB_TOOL), *w = open_at(fx.local, FAB_WORKER);
        fab_t *f = open_at(remote ? fx.remote : fx.local, FAB_PRODUCER);
        submit(f, 10, "a", 1, NULL);
        pid_t pid = fork();
        if (pid == 0) {
            fab_close(f);
            _exit(0);
        }
        cr_assert_eq(exit_code(pid), 0);
        work_through(w, 10);
        outcomes(f, 10, FAB_COMPLETED);
        submit(f, 10, "b", 1, NULL);
        work_through(w, 10);
        outcomes(f, 10, FAB_COMPLETED);
        fab_close(f);
        fab_close(w);
        end(tool);
    }
}

/* Its child holds the same socket and mapping, and lives on. */
static void leaves_a_child(const char *address)
{
    fab_t *f = child_open(address, FAB_WORKER);
    struct fab_lease l[LEASES];
    for (long n = 0, k; n < LEASES; n += k)
        must((k = fab_claim(f, 0, l + n, (size_t)(LEASES - n), PATIENT)) > 0, 11);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, 0);
        tell(to_test);
        hear(to_child);
        _exit(0);
    }
    pause();
}

Test(participants, a_death_is_seen_though_a_forked_child_holds_the_socket, .timeout = 60)
{
    begin();
    fab_t *tool = open_at(fx.local, FAB_TOOL), *f = open_at(fx.local, FAB_PRODUCER | FAB_WORKER);
    pid_t pid = spawn(leaves_a_child, fx.local);
    submit(f, LEASES, "q", 1, NULL);
    hear(to_test);
    kill(pid, SIGKILL);
    cr_assert_eq(exit_code(pid), 128 + SIGKILL);
    work_through(f, LEASES);
    outcomes(f, LEASES, FAB_COMPLETED);
    tell(to_child); /* the grandchild ends */
    fab_close(f);
    end(tool);
}

/* ---- gone without a farewell ---- */

static int how;

static void leaves_all_behind(const char *address)
{
    fab_t *f = child_open(address, FAB_PRODUCER | FAB_WORKER);
    static char big[100000];
    struct fab_task t = {.kernel = fab_kernel_id("echo"), .arg = big, .len = sizeof big};
    struct fab_lease l[8];
    must(fab_submit(f, &t, 1, NULL, PATIENT) == 1, 11);
    must(fab_claim(f, 0, l, 1, PATIENT) == 1, 12);
    must(fab_complete(f, l, big, sizeof big) == 0, 13); /* an outcome that nobody takes */
    for (int i = 0; i < 6; i++)
        must(fab_submit(f, &t, 1, NULL, PATIENT) == 1, 14);
    for (long n = 0, k; n < 3; n += k) /* leases that nobody ends, tasks that nobody ran */
        must((k = fab_claim(f, 0, l + n, (size_t)(3 - n), PATIENT)) > 0, 15);
    switch (how) {
    case 0:
        exit(7);
    case 1:
        _exit(7);
    case 2:
        signal(SIGABRT, SIG_DFL);
        abort();
    default:
        signal(SIGTERM, SIG_DFL);
        raise(SIGTERM);
    }
}

Test(participants, who_exits_without_detaching_leaves_nothing, .timeout = 60)
{
    for (how = 0; how < 4; how++)
        for (int remote = 0; remote < 2; remote++) {
            begin();
            fab_t *tool = open_at(fx.local, FAB_TOOL);
            static const int codes[] = {7, 7, 128 + SIGABRT, 128 + SIGTERM};
            int code = exit_code(spawn(leaves_all_behind, remote ? fx.remote : fx.local));
            cr_assert_eq(code, codes[how], "%d: ended with %d", how, code);
            /* what it submitted is still run: accepted is accepted */
            fab_t *w = open_at(fx.local, FAB_WORKER);
            work_through(w, 6);
            fab_close(w);
            end(tool);
        }
}

/* ---- other pid namespaces ---- */

static void works_and_is_killed(const char *address)
{
    fab_t *f = child_open(address, FAB_WORKER);
    struct fab_lease l[LEASES];
    must(getpid() < 10, 9); /* a namespace of its own */
    must(fab_claim(f, 0, l, 1, PATIENT) == 1, 11);
    must(fab_complete(f, l, "n", 1) == 0, 12);
    for (long n = 0, k; n < LEASES; n += k)
        must((k = fab_claim(f, 0, l + n, (size_t)(LEASES - n), PATIENT)) > 0, 13);
    raise(SIGKILL);
}

static void in_a_namespace(const char *address)
{
    if (unshare(CLONE_NEWPID) < 0)
        _exit(77);
    /* the first process there is its init, which signals from inside don't kill: the second works */
    pid_t first = fork();
    if (first == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(exit_code(spawn(works_and_is_killed, address)));
    }
    _exit(exit_code(first));
}

Test(participants, a_worker_in_another_pid_namespace, .timeout = 60)
{
    begin();
    fab_t *tool = open_at(fx.local, FAB_TOOL), *f = open_at(fx.local, FAB_PRODUCER | FAB_WORKER);
    pid_t pid = spawn(in_a_namespace, fx.local);
    struct fab_task t = {.kernel = fab_kernel_id("echo"), .arg = "x", .len = 1};
    struct fab_outcome o;
    fab_id id;
    cr_assert_eq(fab_submit(f, &t, 1, &id, PATIENT), 1);
    int rc = fab_wait(f, id, &o, PATIENT), code;
    if (rc < 0) {
        code = exit_code(pid);
        cr_assert_eq(code, 77, "the worker ended with %d", code);
        work_through(f, 1);
        outcomes(f, 1, FAB_COMPLETED);
        fab_close(f);
        end(tool);
        cr_skip_test("no pid namespaces here");
    }
    submit(f, LEASES, "x", 1, NULL);
    code = exit_code(pid);
    cr_assert_eq(code, 128 + SIGKILL, "the worker ended with %d", code);
    work_through(f, LEASES);
    outcomes(f, LEASES, FAB_COMPLETED);
    fab_close(f);
    end(tool);
}
