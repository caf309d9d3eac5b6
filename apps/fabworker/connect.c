/* SPDX-License-Identifier: MIT
 *
 * connect.c - a thread's connection to the fabric, lost and found again.
 *
 * The first connection must succeed (with --wait: once a fabricd is there). Later losses are healed
 * for ever, with waits that double from 4 ms to 5 s and vary by half, so that the threads of many hosts
 * do not return in step. (A handle comes back by itself from a link that breaks while fabricd is there.)
 *
 * Messages: one when the first thread loses its connection, one when the last has it again, however
 * many threads there are.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "apps/common/text.h"
#include "apps/fabworker/fabworker.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"

#define WAIT_MOST_NS 5000000000ull
/* For trying again: a stop must not have to wait for the usual 10 s. */
#define AGAIN_TIMEOUT_NS 2000000000

int connection_open(struct connection *c)
{
    pthread_condattr_t attr;
    if (pthread_mutex_init(&c->lock, NULL) || pthread_condattr_init(&attr) ||
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) || pthread_cond_init(&c->stopping, &attr))
        return err_set(-ENOMEM, "no memory for a lock");
    pthread_condattr_destroy(&attr);
    return 0;
}

void connection_wake(struct connection *c)
{
    pthread_mutex_lock(&c->lock);
    pthread_cond_broadcast(&c->stopping);
    pthread_mutex_unlock(&c->lock);
}

/* xorshift: spreading waits needs no better */
static uint64_t random_below(struct worker *w, uint64_t n)
{
    w->seed ^= w->seed << 13;
    w->seed ^= w->seed >> 7;
    w->seed ^= w->seed << 17;
    return w->seed % n;
}

/* Half of ns to ns, less when all are stopping. */
static void wait_a_while(struct worker *w, uint64_t ns)
{
    struct connection *c = &w->sh->connection;
    uint64_t until = clock_ns() + ns / 2 + random_below(w, ns / 2);
    struct timespec t = {.tv_sec = (time_t)(until / 1000000000),
                         .tv_nsec = (long)(until % 1000000000)};
    pthread_mutex_lock(&c->lock);
    while (!worker_stopping(w->sh) && pthread_cond_timedwait(&c->stopping, &c->lock, &t) == 0)
        ;
    pthread_mutex_unlock(&c->lock);
}

static int try_open(struct worker *w, int64_t timeout_ns)
{
    const struct worker_options *o = w->sh->o;
    struct fab_options options = {.roles = FAB_WORKER,
                                  /* an isolated batch is handed over at once, and is begun then */
                                  .flags = w->iso ? 0 : FAB_BEGINS,
                                  .name = w->name,
                                  .key_file = o->key_file,
                                  .timeout_ns = timeout_ns,
                                  .spin_ns = o->spin_ns};
    int rc = fab_open(&w->f, o->server, &options);
    if (rc < 0) {
        w->f = NULL;
        return rc;
    }
    const char *at = o->server ? o->server : getenv("FABRIC_SERVER");
    w->begins = !w->iso && at && strncmp(at, "unix:", 5) != 0;
    w->queue = 0;
    if (!o->queue)
        return 0;
    rc = fab_queue(w->f, o->queue, &w->queue);
    if (rc < 0) {
        char why[512];
        snprintf(why, sizeof why, "%s", fab_errmsg());
        fab_close(w->f);
        w->f = NULL;
        /* not -ENOENT, which says that no fabricd is there: waiting does not help */
        rc = err_set(rc == -ENOENT ? -ENXIO : rc, "%s", why);
    }
    return rc;
}

/* Errors that say "nobody is there (yet)", as opposed to "you can't come in". */
static bool may_come(int rc)
{
    switch (rc) {
    case -ECONNREFUSED:
    case -ENOENT:
    case -ETIMEDOUT:
    case -EAGAIN:
    case -ECONNRESET:
    case -ECONNABORTED:
    case -EPIPE:
    case -ENOTCONN:
    case -EHOSTUNREACH:
    case -EHOSTDOWN:
    case -ENETUNREACH:
    case -ENETDOWN:
        return true;
    default:
        return false;
    }
}

static void say_waiting(struct connection *c)
{
    pthread_mutex_lock(&c->lock);
    if (!c->said_waiting)
        log_info("waiting for the fabric: %s", fab_errmsg());
    c->said_waiting = true;
    pthread_mutex_unlock(&c->lock);
}

int worker_connect(struct worker *w)
{
    bool patient = w->sh->o->wait;
    for (uint64_t wait = WORKER_RETRY_FIRST_NS;; wait *= 2) {
        int rc = try_open(w, patient ? AGAIN_TIMEOUT_NS : 0);
        if (rc == 0)
            return 0;
        if (!patient || !may_come(rc)) {
            if (worker_stop(w->sh, 1)) /* the others fail for the same reason: one says it */
                log_error("%s", fab_errmsg());
            return rc;
        }
        say_waiting(&w->sh->connection);
        if (wait > WAIT_MOST_NS)
            wait = WAIT_MOST_NS;
        wait_a_while(w, wait);
        if (worker_stopping(w->sh))
            return -ECANCELED;
    }
}

static void say_lost(struct connection *c, const char *why)
{
    pthread_mutex_lock(&c->lock);
    if (c->lost++ == 0) {
        c->lost_ns = clock_ns();
        c->losses++;
        log_warn("the connection to the fabric was lost (%s); trying again", why);
    }
    pthread_mutex_unlock(&c->lock);
}

static void say_back(struct connection *c)
{
    char span[TEXT_NUMBER];
    pthread_mutex_lock(&c->lock);
    if (--c->lost == 0)
        log_info("connected again after %s", text_nanos(span, (double)(clock_ns() - c->lost_ns)));
    pthread_mutex_unlock(&c->lock);
}

int worker_reconnect(struct worker *w, int rc)
{
    struct connection *c = &w->sh->connection;
    char why[256];
    snprintf(why, sizeof why, "%s", err_text(rc));
    fab_close(w->f);
    w->f = NULL;
    if (worker_stopping(w->sh))
        return rc;
    say_lost(c, why);
    for (;;) {
        /* Also before the first try: a fabric that lets us in and drops us at once must not make us
         * spin. */
        wait_a_while(w, w->wait_ns);
        if (worker_idle(w->sh))
            worker_stop(w->sh, 0);
        if (worker_stopping(w->sh))
            return -ECANCELED;
        w->wait_ns = 2 * w->wait_ns < WAIT_MOST_NS ? 2 * w->wait_ns : WAIT_MOST_NS;
        rc = try_open(w, AGAIN_TIMEOUT_NS);
        if (rc == 0) {
            say_back(c);
            return 0;
        }
        log_debug("core %d: %s", w->core, fab_errmsg());
    }
}
