/* SPDX-License-Identifier: MIT
 *
 * isolate.c - the worker thread's side of --isolate: hands tasks to its child, takes results, and
 * ends a child whose kernel crashed, was cancelled or runs over its limit. See isolate.h.
 *
 * The parent never spins: the child is pinned to the same core. It sleeps in fab_attend() until the
 * child has told, the main thread has (a SIGCHLD), a lease was cancelled, or the running task's limit
 * is over.
 *
 * Who is to blame: when a child is gone, its task `done` is the one that was running, if it was
 * started; those before have results, those after are handed to the next child by the same leases.
 *
 * Threads: as isolate.h says. Failure: children that die again and again before they start a task
 * end the worker.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "apps/fabworker/isolate.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"
#include "core/wake.h"

#define STILLBORN_MAX 5
#define GATHER_NS     200000 /* then results are taken one by one */

enum reason { GOES_ON, DIED, CANCELLED, OVERRUN };

/* ---- the child ---- */

int isolate_open(struct isolate **out, int core, bool remote)
{
    struct isolate *iso = calloc(1, sizeof *iso);
    if (!iso)
        return err_set(-ENOMEM, "no memory");
    int error;
    iso->core = core;
    iso->remote = remote;
    iso->fd = memfd_create("fabworker-isolate", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    iso->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (iso->fd < 0 || iso->bell < 0 || ftruncate(iso->fd, (off_t)ISOLATE_BYTES) < 0 ||
        fcntl(iso->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        goto fail;
    iso->s = mmap(NULL, ISOLATE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, iso->fd,
                  0);
    if (iso->s == MAP_FAILED)
        goto fail;
    *out = iso;
    return 0;
fail:
    error = errno;
    iso->s = NULL;
    isolate_close(iso);
    return err_set(-error, "--isolate: no memory to share with a child: %s", strerror(error));
}

void isolate_close(struct isolate *iso)
{
    if (!iso)
        return;
    if (iso->s)
        munmap(iso->s, ISOLATE_BYTES);
    if (iso->fd >= 0)
        close(iso->fd);
    if (iso->bell >= 0)
        close(iso->bell);
    free(iso);
}

void isolate_ring(struct isolate *iso)
{
    uint64_t one = 1;
    at_add(&iso->deaths, 1);
    at_add(&iso->s->told, 1);
    futex_wake(&iso->s->told, 1);
    (void)!write(iso->bell, &one, sizeof one);
}

static int spawn(struct isolate *iso)
{
    struct nursery *y = iso->nursery;
    pid_t pid = -1;
    at_store(&iso->s->go, 0);
    at_store(&iso->s->ended, 0);
    iso->batch = 0;
    iso->deaths_seen = at_load(&iso->deaths);
    pthread_mutex_lock(&y->lock);
    bool told = send(y->sock, &iso->index, sizeof iso->index, MSG_NOSIGNAL) == sizeof iso->index &&
                recv(y->sock, &pid, sizeof pid, 0) == sizeof pid;
    pthread_mutex_unlock(&y->lock);
    if (!told || pid < 0)
        return err_set(told ? (int)pid : -ECHILD, "--isolate: no child: %s",
                       told ? strerror((int)-pid) : "the process that makes them is gone");
    iso->pid = pid;
    return 0;
}

/* Its wait status. */
static int bury(struct isolate *iso, bool killing)
{
    int status = 0;
    if (killing)
        kill(iso->pid, SIGKILL); /* ours, not reaped: the number is still its own */
    while (waitpid(iso->pid, &status, 0) < 0 && errno == EINTR)
        ;
    iso->pid = 0;
    return status;
}

void isolate_stop(struct isolate *iso)
{
    if (iso->pid)
        (void)bury(iso, true);
}

/* ---- a batch ---- */

/* Leases [from, n), as many as go together, into the child's hands; returns how many. */
static uint32_t hand_over(struct worker *w, long from, long n)
{
    struct isolate_shared *s = w->iso->s;
    uint64_t at = ISOLATE_ARGS;
    uint32_t k = 0;
    for (; from + k < n && k < WORKER_BATCH_MAX; k++) {
        const struct fab_lease *l = &w->lease[from + k];
        if (k > 0 && at - ISOLATE_ARGS + l->len > ISOLATE_GROUP)
            break;
        s->task[k] = (struct isolate_task){.kernel = l->kernel, .arg_at = at, .arg_len = l->len};
        if (l->len)
            memcpy((uint8_t *)s + at, fab_arg(l), l->len);
        at_store_rlx(&s->skip[k], 0); /* published by go */
        at += (l->len + 63ull) & ~63ull;
    }
    at_store(&s->n, k);
    at_store(&s->started, 0);
    at_store(&s->done, 0);
    at_store(&s->spent_ns, 0);
    at_store(&s->stop, 0);
    at_store(&s->eager, 0);
    at_store(&s->go, ++w->iso->batch);
    futex_wake(&s->go, 1);
    return k;
}

/* The result of task i of the batch, which lease l was handed over as. */
static int take(struct worker *w, const struct fab_lease *l, uint32_t i)
{
    const uint8_t *base = (const uint8_t *)w->iso->s;
    const struct isolate_task t = w->iso->s->task[i]; /* read once: kernels write there */
    const struct kernel *k = w->kernel;
    uint64_t len = t.res_len < 0 ? t.text_len : (uint64_t)t.res_len;
    char why[256] = "";
    w->counters.tasks++;
    if (!k || k->id != l->kernel)
        w->kernel = k = kernel_by_id(l->kernel);
    if (len > FAB_ARG_MAX || t.res_at < ISOLATE_ARGS || t.res_at > ISOLATE_BYTES - len ||
        t.res_len < -4095)
        return worker_fail(w, l, "its kernel wrote over memory that was not its own");
    if (!k)
        snprintf(why, sizeof why, "%s", w->sh->unknown);
    else if (t.res_len < 0)
        snprintf(why, sizeof why, "%.*s", (int)(len < 255 ? len : 255), base + t.res_at);
    if (t.res_len < 0 && !why[0])
        snprintf(why, sizeof why, "%s", strerror((int)-t.res_len));
    if (w->sh->o->print)
        print_task(w, k, fab_arg(l), l->len, base + t.res_at, (long)len, why[0] ? why : NULL);
    return why[0] ? worker_fail(w, l, why) : worker_complete(w, l, base + t.res_at, (uint32_t)len);
}

/* Late ends are counted, and are no failure. */
static int late(struct worker *w, int rc)
{
    w->counters.dropped += rc == -ESTALE;
    return rc == -ESTALE ? 0 : rc;
}

/* What the child has done of batch [from, from + k) beyond *taken. */
static int take_done(struct worker *w, long from, uint32_t k, uint32_t *taken)
{
    uint32_t done = at_load(&w->iso->s->done); /* read once */
    int rc = 0;
    for (; *taken < done && *taken < k && rc == 0; ++*taken)
        rc = late(w, take(w, &w->lease[from + *taken], *taken));
    return rc;
}

static enum reason look(struct worker *w, long from, uint32_t k, uint32_t taken)
{
    struct isolate *iso = w->iso;
    const struct fab_lease *l = &w->lease[from + taken];
    uint32_t deaths = at_load(&iso->deaths);
    siginfo_t si = {0};
    if (deaths != iso->deaths_seen) {
        iso->deaths_seen = deaths;
        if (waitid(P_PID, (id_t)iso->pid, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid)
            return DIED;
    }
    if (l->due_ns && clock_ns() >= l->due_ns)
        return OVERRUN;
    for (uint32_t i = taken + 1; i < k; i++)
        if (fab_cancelled(w->f, &w->lease[from + i]))
            at_store(&iso->s->skip[i], 1);
    return fab_cancelled(w->f, l) ? CANCELLED : GOES_ON;
}

static int crashed(struct worker *w, const struct fab_lease *l, int status)
{
    char text[128];
    if (WIFSIGNALED(status))
        snprintf(text, sizeof text, "its kernel died of SIG%s", sigabbrev_np(WTERMSIG(status)));
    else
        snprintf(text, sizeof text, "its kernel ended its process with status %d",
                 WEXITSTATUS(status));
    log_warn("core %d: a task's %s", w->core, text + 4);
    w->counters.crashed++;
    return fab_crash(w->f, l, text);
}

/* The child is dead, or to be killed: its results are taken, its running task ended, and another
 * child started. */
static int end_child(struct worker *w, long from, uint32_t k, uint32_t *taken, enum reason why)
{
    struct isolate *iso = w->iso;
    uint32_t was = *taken;
    int status = bury(iso, why != DIED), up = spawn(iso); /* it starts while we tell */
    int rc = take_done(w, from, k, taken);
    bool started = at_load(&iso->s->started) > *taken;
    iso->stillborn = why == DIED && !started ? iso->stillborn + 1 : 0;
    if (rc == 0 && *taken < k && (started || why != DIED) && (*taken == was || why == DIED)) {
        const struct fab_lease *l = &w->lease[from + *taken];
        w->counters.tasks++;
        rc = late(w, why == DIED      ? crashed(w, l, status)
                     : why == OVERRUN ? fab_overrun(w->f, l)
                                      : fab_fail(w->f, l, "cancelled"));
        ++*taken;
    }
    if ((up < 0 || iso->stillborn >= STILLBORN_MAX) && worker_stop(w->sh, 1))
        log_error("core %d: %s", w->core,
                  up < 0 ? err_text(up) : "--isolate: children die before they run anything");
    return rc;
}

/* Until something has happened; told: as of the last look. */
static int doze(struct worker *w, uint32_t told, uint64_t due_ns, bool gather)
{
    struct isolate *iso = w->iso;
    struct isolate_shared *s = iso->s;
    uint64_t now = clock_ns(), count;
    int64_t ns = gather ? GATHER_NS : FAB_FOREVER;
    if (due_ns && (ns < 0 || due_ns < now + (uint64_t)ns))
        ns = due_ns > now ? (int64_t)(due_ns - now) : 1;
    at_store(&s->parked, iso->remote ? ISOLATE_ON_BELL : ISOLATE_ON_FUTEX);
    int rc = fab_attend(w->f, (uint32_t *)&s->told, told, iso->bell, ns);
    at_store(&s->parked, ISOLATE_AWAKE);
    if (iso->remote)
        (void)!read(iso->bell, &count, sizeof count);
    if (rc == -ETIMEDOUT && gather)
        at_store(&s->eager, 1);
    return rc == -ETIMEDOUT ? 0 : rc;
}

/* One hand-over, from lease `from` on; *next gets the first that was not started. */
static int run_some(struct worker *w, long from, long n, long *next, uint64_t start_ns,
                    uint64_t *spent_ns)
{
    struct isolate_shared *s = w->iso->s;
    uint32_t k = hand_over(w, from, n), taken = 0;
    int rc = 0;
    for (bool first = true;; first = false) {
        uint32_t told = at_load(&s->told);
        bool ended = at_load(&s->ended) == w->iso->batch; /* before `done` */
        rc = take_done(w, from, k, &taken);
        if (rc < 0 || taken == k || ended)
            break;
        enum reason why = look(w, from, k, taken);
        if (why != GOES_ON) {
            rc = end_child(w, from, k, &taken, why);
            break;
        }
        if (worker_stopping(w->sh) || clock_ns() - start_ns > WORKER_BATCH_MOST_NS)
            at_store(&s->stop, 1);
        rc = doze(w, told, w->lease[from + taken].due_ns, first && k > 1);
        if (rc < 0)
            break;
    }
    *spent_ns += at_load(&s->spent_ns);
    *next = from + taken;
    if (taken > 0)
        w->iso->stillborn = 0;
    return rc;
}

int isolate_batch(struct worker *w, long n, uint32_t *ran, uint64_t *spent_ns)
{
    uint64_t start = clock_ns();
    struct isolate *iso = w->iso;
    int rc = 0;
    long i = 0;
    *spent_ns = 0;
    if (!iso->pid && (rc = spawn(iso)) < 0) {
        if (worker_stop(w->sh, 1))
            log_error("core %d: %s", w->core, err_text(rc));
        rc = 0;
    }
    while (i < n && rc == 0 && iso->pid && !worker_stopping(w->sh) &&
           (i == 0 || clock_ns() - start < WORKER_BATCH_MOST_NS))
        rc = run_some(w, i, n, &i, start, spent_ns);
    if (rc < 0 && iso->pid) /* what it runs is void, and must not stand in the way of what comes */
        (void)bury(iso, true);
    uint64_t most = 0;
    for (long j = 0; j < i; j++)
        most = w->lease[j].len > most ? w->lease[j].len : most;
    if (most > ISOLATE_GROUP || *spent_ns > WORKER_BATCH_MOST_NS) /* large results take their time */
        (void)fallocate(iso->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        (off_t)(ISOLATE_ARGS + ISOLATE_GROUP),
                        (off_t)(ISOLATE_BYTES - ISOLATE_ARGS - ISOLATE_GROUP));
    *ran = (uint32_t)i;
    return rc;
}
