/* SPDX-License-Identifier: MIT
 *
 * remote_link.c - the end of a remote handle's link, the making of a new one, and what both sides say
 * first on it (record.h): which tasks the daemon has, which are to be submitted again.
 *
 * By construction a task that has no outcome here is either in a slot of the daemon's segment, which
 * survives links and daemons, or never got there: a slot is free only when its outcome was taken here.
 * So what the daemon does not know is submitted again, in the order of its first submit, before
 * anything new.
 */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/clock.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "transport/remote.h"

/* Pauses between tries: double, and vary by half. The first try comes at once. */
#define PAUSE_FIRST_NS 2000000u
#define PAUSE_MOST_NS  2000000000u
/* One try. */
#define TRY_NS 5000000000ll
/* How long the daemon may take for an answer of the handshake: doubled when it does not come. The wire may
 * have gone again meanwhile. */
#define PATIENCE_NS   150000000u
#define PATIENCE_MOST 5000000000ull
/* A handle that only works, until the daemon has said for how long it keeps leases. */
#define WORKER_NS 10000000000ull
/* Tries where the last link was, before the name is asked for again. */
#define TRIES_THERE 5u
/* How long one call may wait for the daemon's answers, whatever its time-out: who calls rarely and
 * only tries would never be through with the handshake in the time the daemon allows for it. */
#define STEP_NS 20000000u

/* ---- down ---- */

/* silent: the daemon is not to hear of it before the next link is up, or it would give leases back. */
static void leave_link(struct remote *r, bool silent)
{
    remote_beat_end(r);
    for (int i = 0; i < 3; i++)
        loop_stop(r->loop, &r->src[i]);
    remote_big_drop(r);
    if (silent && !r->left)
        r->left = r->session;
    else
        session_break(r->session);
    r->session = NULL;
    r->lane = NULL;
    r->dom = NULL;
    r->hangup = 0;
    big_drop(&r->big_out);
    r->recalled = r->recall_said = false;
    /* what is not named on the next link is forgotten there */
    for (uint32_t i = 0; i < r->window && r->untold > 0; i++) {
        r->untold -= r->task[i].untold;
        r->task[i].untold = false;
    }
    r->tell_n = 0;
    r->untold_bulky = 0;
    CRASH_POINT("remote.down");
}

static void begin_outage(struct remote *r)
{
    uint64_t keep = r->info.keep_ns;
    if (!r->producer && (keep = session_patience(r->session)) == 0)
        keep = WORKER_NS;
    r->down_at = r->try_at = r->self.since_ns = clock_ns();
    remote_wire_rtt(r);
    r->give_up_at = r->down_at + keep;
    r->pause = PAUSE_FIRST_NS;
    r->patience = PATIENCE_NS;
    r->tries = 0;
}

int remote_link_down(struct remote *r, int why)
{
    char text[200];
    snprintf(text, sizeof text, "%s", err_text(why));
    (void)!session_progress(r->session); /* a good-bye said before it may not have been read yet */
    (void)err_set(why, "%s", text);
    if (!r->self.resume || (r->producer && r->info.keep_ns == 0) || session_ended(r->session) ||
        why == -EPROTO || why == -ENOMEM || why == -EMSGSIZE)
        return remote_broken(r, why);
    snprintf(r->why, sizeof r->why, "%s", err_text(why));
    begin_outage(r);
    struct session *probe = remote_wire_end(r, true);
    leave_link(r, false);
    r->link = LINK_DOWN;
    if (probe) { /* it has been looking for the daemon for a while */
        session_go_on(probe, r->patience);
        r->session = probe;
        r->link = LINK_JOINING;
    }
    return 1;
}

void remote_link_replace(struct remote *r, struct session *s)
{
    snprintf(r->why, sizeof r->why, "the wire was dead");
    begin_outage(r);
    leave_link(r, true);
    session_go_on(s, r->patience);
    r->session = s;
    r->link = LINK_JOINING;
}

/* Errors that another try will not mend. */
static bool is_final(int rc)
{
    return rc == -EACCES || rc == -EPROTO || rc == -ESTALE || rc == -EADDRINUSE || rc == -EINVAL ||
           rc == -ENOTSUP;
}

static int failed_try(struct remote *r, int rc)
{
    uint64_t now = clock_ns();
    if (r->session)
        session_break(r->session);
    r->session = NULL;
    r->link = LINK_DOWN;
    if (is_final(rc) || (!r->producer && rc == -ECONNREFUSED)) /* then its leases are void, too */
        return remote_broken(r, rc);
    if (rc == -ETIMEDOUT && r->patience < PATIENCE_MOST)
        r->patience *= 2;
    if (++r->tries == TRIES_THERE)
        r->self.at_len = 0;
    /* the low bits of the tick counter are as good as dice for this */
    r->try_at = now + r->pause / 2 + clock_ticks() * 0x9e3779b97f4a7c15ull % (r->pause / 2);
    r->pause = r->pause * 2 < PAUSE_MOST_NS ? r->pause * 2 : PAUSE_MOST_NS;
    return 0;
}

static int give_up(struct remote *r)
{
    char why[200];
    snprintf(why, sizeof why, "%s", r->why);
    if (r->session)
        session_break(r->session);
    r->session = NULL;
    return remote_broken(r, err_set(-EPIPE, "%.150s, and it did not come back in %.1f s", why,
                                    (double)r->info.keep_ns / 1e9));
}

int remote_link_step(struct remote *r)
{
    uint64_t now = clock_ns();
    if (now >= r->give_up_at)
        return give_up(r);
    if (r->link == LINK_DOWN) {
        struct fab_options o = r->opts;
        if (now < r->try_at)
            return 0;
        o.timeout_ns = TRY_NS;
        r->self.patience_ns = r->patience;
        int rc = session_begin(&r->session, r->provider, r->host, r->port, &o, true, &r->self);
        if (rc < 0) {
            r->session = NULL;
            return failed_try(r, rc);
        }
        r->link = LINK_JOINING;
    }
    int rc;
    while ((rc = session_step(r->session)) == -EAGAIN && !r->hurried && clock_ns() - now < STEP_NS)
        session_sleep(r->session, now + STEP_NS);
    if (rc == -EAGAIN)
        return 0;
    if (rc < 0)
        return failed_try(r, rc);
    if (r->left)
        session_break(r->left);
    r->left = NULL;
    rc = remote_link_joined(r);
    return rc < 0 ? remote_link_down(r, rc) : 1;
}

/* ---- up ---- */

static int by_seq(const void *a, const void *b, void *arg)
{
    const struct remote *r = arg;
    /* distances from the last: the number itself may have run over */
    uint32_t x = r->seq - r->task[*(const uint32_t *)a].seq,
             y = r->seq - r->task[*(const uint32_t *)b].seq;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* The tasks to be named: those without an outcome in the order of their submit, then, when another
 * handle may come for them, those with. */
static void make_list(struct remote *r)
{
    r->list_n = r->list_at = 0;
    for (int arrived = 0; arrived < (r->client[0] ? 2 : 1); arrived++) {
        for (uint32_t i = 0; i < r->window; i++)
            if (r->task[i].generation & 1 && r->task[i].arrived == arrived)
                r->list[r->list_n++] = i;
        if (!arrived) {
            qsort_r(r->list, r->list_n, sizeof *r->list, by_seq, r);
            r->list_arrived = r->list_n;
        }
    }
}

static bool is_resumed(const struct remote *r)
{
    return r->info.session == CTL_SESSION_RESUMED || r->info.session == CTL_SESSION_MOVED;
}

/* The first of what is to be named. */
static int begin_naming(struct remote *r)
{
    if (!r->producer && !r->held_lease)
        return err_set(-EPROTO, "%s asks for what this handle can't have", r->info.server);
    if (r->producer)
        make_list(r);
    r->naming = r->producer ? NAMING_TASKS : NAMING_LEASES;
    return 0;
}

static int make_leases(struct remote *r)
{
    if (r->held_lease && r->info.session == CTL_SESSION_MOVED)
        return r->lease_cap == r->info.lease_window ? remote_held_open(r, true)
                                                    : err_set(-EPROTO, "another window of leases");
    r->leases++;
    remote_drop_leases(r);
    remote_held_close(r);
    /* the daemon counts the leases of each link from anew: what was said of the last one's is over */
    free(r->mark);
    r->mark = calloc(r->info.lease_window, sizeof *r->mark);
    if (r->mark && r->lease && r->handed_ref && r->lease_cap == r->info.lease_window)
        return remote_held_open(r, false);
    free(r->lease);
    free(r->handed_ref);
    r->lease_cap = r->info.lease_window;
    r->lease = calloc(r->lease_cap, sizeof *r->lease);
    r->handed_ref = calloc(r->lease_cap, sizeof *r->handed_ref);
    return r->lease && r->mark && r->handed_ref ? remote_held_open(r, false)
                                                : err_set(-ENOMEM, "no memory for %u leases", r->lease_cap);
}

int remote_link_joined(struct remote *r)
{
    r->info = *session_info(r->session);
    r->tr = session_transport(r->session);
    r->dom = session_domain(r->session);
    r->lane = session_lane(r->session);
    r->links++;
    r->link = LINK_EXCHANGE;
    r->list_n = r->list_at = 0; /* what the last link had not submitted again: it is named anew */
    CRASH_POINT("remote.joined");
    r->want = 0;
    r->want_queue = REMOTE_NONE;
    /* What the lane can't hold waits for answers in any case; what it can hold would wait for one more. */
    r->big_out.offer = r->lane && lane_is_direct(r->lane) ? lane_tx_all(r->lane) : 0;
    r->echo_at = 0;
    session_at(r->session, &r->self);
    r->self.since_ns = 0;
    int rc = remote_watch(r);
    if (rc == 0)
        rc = make_leases(r);
    if (rc == 0)
        rc = remote_beat_begin(r);
    if (rc < 0)
        return rc;
    if (r->self.resume && (r->info.submit_window != r->window ||
                           r->info.session == CTL_SESSION_TAKEN_UP))
        return err_set(-EPROTO, "%s does not go on where it was", r->info.server);
    if (!r->self.resume && is_resumed(r))
        return err_set(-EPROTO, "%s goes on where nothing was", r->info.server);
    if (is_resumed(r)) {
        rc = begin_naming(r);
    } else if (r->info.session == CTL_SESSION_NEW) {
        if (r->self.resume)
            remote_lose_all(r);
        r->link = LINK_UP;
    }
    remote_wire_begin(r);
    return rc;
}

/* ---- the exchange ---- */

static int name_leases(struct remote *r)
{
    bool last = false;
    int rc = remote_held_name(r, &last);
    if (rc == 1 && last)
        r->naming = NAMED;
    return rc;
}

/* One record of the tasks to be named. 1; 0: no room now. */
static int name_some(struct remote *r)
{
    uint64_t refs[REMOTE_LIST];
    uint32_t n = 0, at = r->list_at;
    bool arrived = at >= r->list_arrived, leases = r->held_lease && r->info.session == CTL_SESSION_MOVED;
    uint32_t end = arrived ? r->list_n : r->list_arrived;
    for (; at < end && n < REMOTE_LIST; at++)
        if (r->task[r->list[at]].generation & 1) /* else it has been taken meanwhile */
            refs[n++] = htole64(remote_ref(r, r->list[at]));
    struct record rec = {.type = REC_RESUME,
                         .flags = at == r->list_n && !leases ? REC_LAST : 0,
                         .priority = arrived,
                         .len = n * 8,
                         .payload = (const uint8_t *)refs};
    if (!remote_try_put(r, &rec))
        return 0;
    CRASH_POINT("remote.named");
    r->list_at = at;
    if (at == r->list_n) {
        r->naming = leases ? NAMING_LEASES : NAMED;
        r->list_n = r->list_at = 0; /* now for those that come back as unknown */
    }
    return 1;
}

static int submit_again(struct remote *r)
{
    int rc = 1, n = 0;
    while (r->list_at < r->list_n && (rc = remote_put_task(r, r->list[r->list_at])) == 1) {
        r->list_at++;
        n++;
        CRASH_POINT("remote.submitted_again");
    }
    if (r->list_at == r->list_n)
        r->list_n = r->list_at = 0;
    return rc < 0 ? rc : n > 0;
}

static int withdraw_again(struct remote *r)
{
    int n = 0;
    for (; r->withdraw_at < r->window; r->withdraw_at++) {
        const struct rtask *t = &r->task[r->withdraw_at];
        struct record rec = {.type = REC_CANCEL,
                             .flags = t->stop ? 0 : REC_WAITING,
                             .ref = remote_ref(r, r->withdraw_at)};
        if (!(t->generation & 1) || t->arrived || !t->cancel)
            continue;
        if (!remote_try_put(r, &rec))
            break;
        n++;
    }
    return n > 0;
}

int remote_link_pump(struct remote *r)
{
    if (r->link == LINK_EXCHANGE && is_resumed(r) && r->naming != NAMED)
        return r->naming == NAMING_TASKS ? name_some(r) : name_leases(r);
    if (r->link != LINK_UP)
        return 0;
    int rc = 0, said = r->held_lease ? remote_held_say(r) : 0;
    if (r->list_n > 0)
        rc = submit_again(r);
    else if (r->withdraw_at < r->window)
        rc = withdraw_again(r);
    return rc < 0 ? rc : said + rc;
}

/* A task that the daemon does not have. */
static int unknown_task(struct remote *r, uint64_t ref)
{
    const struct rtask *t = remote_task(r, ref);
    if (!t || t->arrived || r->list_n == r->window)
        return err_set(-EPROTO, "a task is unknown that nobody named");
    if (t->placed)
        remote_lose(r, (uint32_t)ref); /* its argument was the daemon's to keep */
    else
        r->list[r->list_n++] = (uint32_t)ref;
    return 0;
}

int remote_unknown(struct remote *r, const struct record *rec)
{
    bool leases = rec->priority == REC_LEASES;
    if (r->link != LINK_EXCHANGE || !is_resumed(r) || r->naming != NAMED || !(leases || r->producer))
        return err_set(-EPROTO, "tasks are unknown that nobody named");
    for (uint32_t k = 0; k < rec_refs(rec); k++) {
        int rc = 0;
        if (leases)
            remote_held_drop(r, rec_ref_at(rec, k));
        else
            rc = unknown_task(r, rec_ref_at(rec, k));
        if (rc < 0)
            return rc;
    }
    if (!(rec->flags & REC_LAST))
        return 0;
    r->link = LINK_UP;
    r->withdraw_at = 0;
    if (r->held_lease) {
        remote_purge_leases(r);
        r->say_at = 0;
    }
    CRASH_POINT("remote.resumed");
    return 0;
}

int remote_kept(struct remote *r, const struct record *rec)
{
    uint32_t i = (uint32_t)rec->ref;
    if (r->link != LINK_EXCHANGE || r->info.session != CTL_SESSION_TAKEN_UP)
        return err_set(-EPROTO, "tasks of an earlier handle at the wrong time");
    if (rec->flags & REC_LAST) {
        remote_free_places(r);
        r->link = LINK_UP;
        CRASH_POINT("remote.taken_up");
        return 0;
    }
    if (i >= r->window || r->task[i].generation != 0 || !(rec->ref >> 32 & 1) || rec_refs(rec) != 1)
        return err_set(-EPROTO, "a task of an earlier handle makes no sense");
    r->task[i] = (struct rtask){.generation = (uint32_t)(rec->ref >> 32),
                                .seq = ++r->seq,
                                .placed = true,
                                .tag = rec_ref_at(rec, 0),
                                .kernel = rec->kernel};
    r->outstanding++;
    return 0;
}
