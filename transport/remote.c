/* SPDX-License-Identifier: MIT
 *
 * remote.c - opening, progress, waiting and closing of a remote handle; its halves are
 * remote_submit.c and remote_claim.c, the making of new links is remote_link.c.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/clock.h"
#include "core/error.h"
#include "transport/remote.h"

#define EVENTS      32
#define SPIN_MAX_NS 100000
/* Spins in a row while a large payload is on its way. */
#define COMING_SPINS 10u
#define FLUSH_WAIT_NS 100000000u /* fab_flush(): see there */
/* How long a closing handle waits for its last bytes to leave, and for the word that tasks nobody
 * waits for have been taken in (a full fabric takes its time). */
#define CLOSE_NS          200000000u
#define CLOSE_UNWAITED_NS 10000000000u
/* Results over this take a millisecond or more to send. */
#define GIVE_BACK_MIN (4u << 20)
#define OPEN_NS       10000000000ll
/* A worker's results are sent after so long at the latest, while it has tasks at hand: remote_claim.c. */
#define FLUSH_NS 50000u

int remote_broken(struct remote *r, int why)
{
    if (!r->broken) {
        r->broken = why < 0 ? why : -EPIPE;
        snprintf(r->why, sizeof r->why, "%s", err_text(why));
        remote_lose_all(r);
    }
    return err_set(-EPIPE, "the link to %s is gone: %s", r->info.server, r->why);
}

void remote_hang_up(struct remote *r, int why)
{
    r->hangup = why;
    snprintf(r->hangup_why, sizeof r->hangup_why, "%s", err_text(why));
}

static int take_record(struct remote *r, const struct record *rec)
{
    int rc;
    if (rec->flags & REC_BIG || rec->type == REC_DATA) {
        struct record whole;
        uint8_t *data;
        rc = remote_on_big(r, rec, &whole, &data);
        if (rc != 1)
            return rc;
        return whole.type == REC_LEASE ? remote_lease(r, &whole, data)
               : whole.type == REC_OUTCOME
                   ? remote_outcome(r, &whole, data)
                   : (free(data), err_set(-EPROTO, "a large payload of no use"));
    }
    switch (rec->type) {
    case REC_LEASE:
        return remote_lease(r, rec, NULL);
    case REC_OUTCOME:
        return remote_outcome(r, rec, NULL);
    case REC_CANCEL:
    case REC_TERMS:
        return remote_on_mark(r, rec);
    case REC_PLACED:
        return remote_placed(r, rec);
    case REC_READ:
        return big_was_read(&r->big_out, rec);
    case REC_UNKNOWN:
        return remote_unknown(r, rec);
    case REC_KEPT:
        return remote_kept(r, rec);
    case REC_RECALL:
        r->recalled = true;
        return 0;
    case REC_ECHO:
        r->wire.echoing = false;
        r->wire.echoed = true;
        remote_on_echo(r, rec);
        return 0;
    default:
        break;
    }
    return err_set(-EPROTO, "a record of type %u is not for this side", rec->type);
}

static int take_batches(struct remote *r)
{
    uint32_t len, records;
    const uint8_t *batch;
    bool work = false;
    int n = 0, rc;
    while ((batch = lane_rx_next(r->lane, &len, &records))) {
        struct record rec;
        uint32_t at = 0;
        while ((rc = rec_next(batch, len, &at, &rec)) == 1) {
            rc = take_record(r, &rec);
            if (rc < 0)
                return rc;
            work |= rec.type != REC_ECHO;
            n++;
        }
        if (rc < 0)
            return rc;
        lane_rx_release(r->lane);
    }
    r->wire.worked |= work;
    return n;
}

static int take_events(struct remote *r)
{
    struct tr_event ev[EVENTS];
    int n = r->tr->poll(r->dom, ev, EVENTS);
    for (int i = 0; i < n; i++) {
        int rc = session_on_event(r->session, &ev[i]);
        if (rc < 0)
            return rc;
    }
    return n;
}

/* Events and records; then what is to go out. */
int remote_progress_link(struct remote *r)
{
    int events = r->hangup ? err_set(r->hangup, "%s", r->hangup_why) : take_events(r);
    if (events < 0) {
        /* outcomes that came before the end are no losses; after a fault in them it is as it was */
        char why[200];
        snprintf(why, sizeof why, "%s", err_text(events));
        while (take_events(r) > 0)
            ;
        (void)!take_batches(r);
        return err_set(events, "%s", why);
    }
    int records = take_batches(r);
    if (records < 0)
        return records;
    if (records > 0)
        remote_tell_taken(r, false);
    int more = remote_link_pump(r);
    if (more < 0)
        return more;
    if (r->recalled)
        remote_recall(r);
    long put = big_pump(&r->big_out, r->lane);
    if (put < 0)
        return (int)put;
    put += remote_big_clear(r);
    /* also sends the credits that are due */
    if (lane_tx_idle(r->lane) || put || more)
        (void)remote_flush(r);
    return events + records + more + (put > 0);
}

int remote_progress(struct remote *r)
{
    if (r->broken)
        return remote_broken(r, r->broken);
    if (r->link == LINK_DOWN || r->link == LINK_JOINING)
        return remote_link_step(r);
    int rc = remote_progress_link(r);
    return rc < 0 ? remote_link_down(r, rc) : rc;
}

int remote_flush(struct remote *r)
{
    if (!r->lane || r->hangup)
        return 0;
    int rc = lane_tx_flush(r->lane);
    if (rc < 0 && rc != -EAGAIN) /* -EAGAIN: the batch is kept; progress sends it */
        remote_hang_up(r, rc);
    return rc == 1;
}

static void on_readable(struct loop_src *src, int result)
{
    (void)src;
    (void)result; /* what is readable is found by polling */
}

static void on_control(struct loop_src *src, int result)
{
    struct remote *r = src->owner;
    (void)result;
    int rc = session_progress(r->session);
    if (rc < 0)
        remote_hang_up(r, rc);
}

int remote_watch(struct remote *r)
{
    r->src[2].owner = r;
    return loop_watch(r->loop, &r->src[2], session_fd(r->session), POLLIN, false, on_control);
}

/* Sleeps in the loop until something is readable or ns are over. A watch that did not fire stays
 * for the next sleep. */
int remote_sleep(struct remote *r, int64_t ns)
{
    int fd[2], n = r->tr->fds(r->dom, fd), rc = 0;
    if (r->hangup || r->tr->arm(r->dom) != 0) /* events wait already */
        return 0;
    for (int i = 0; i < n && rc == 0; i++)
        if (r->src[i].slot == 0)
            rc = loop_watch(r->loop, &r->src[i], fd[i], POLLIN, true, on_readable);
    if (rc == 0)
        rc = loop_run(r->loop, ns);
    return rc < 0 ? remote_broken(r, rc) : 0;
}

static int64_t ns_until(uint64_t deadline, uint64_t now)
{
    return deadline == UINT64_MAX || deadline - now > INT64_MAX ? -1 : (int64_t)(deadline - now);
}

/* The link is not there: until it may be time for the next step towards it. */
static int sleep_down(struct remote *r, uint64_t deadline)
{
    uint64_t now = clock_ns(), until = deadline < r->give_up_at ? deadline : r->give_up_at;
    if (now >= deadline)
        return -ETIMEDOUT;
    if (r->link == LINK_JOINING) {
        session_sleep(r->session, until);
        return 0;
    }
    if (r->try_at < until)
        until = r->try_at;
    int rc = until > now ? loop_run(r->loop, ns_until(until, now)) : 0;
    return rc < 0 ? remote_broken(r, rc) : 0;
}

int remote_wait(struct remote *r, uint64_t deadline)
{
    int rc = remote_progress(r);
    if (rc > 0) {
        /* Something has come, if not yet what is waited for: a part of a large argument, say. The spin
         * is for what comes next; counted from the beginning it ended in a sleep and a wake-up in the
         * middle of each. */
        if (r->spin.round > 0)
            spin_hit(&r->spin);
        spin_start(&r->spin);
        return 0;
    }
    if (rc < 0)
        return rc;
    if (r->link == LINK_DOWN || r->link == LINK_JOINING)
        return sleep_down(r, deadline);
    /* What is being written to us comes for sure, and no event tells of it before a part is whole. Spins that
     * end in sleeps would make the sender wake us for each of the wire's pieces, and what is on its way
     * would pile up in the kernel, out of every cache. The same holds for what is being read. */
    if (remote_big_coming(r) || big_is_offered(&r->big_out))
        r->spin.ticks = COMING_SPINS * r->spin.ticks_max;
    else if (r->spin.ticks > r->spin.ticks_max)
        r->spin.ticks = r->spin.ticks_max;
    if (spin_on(&r->spin)) {
        spin_share(&r->spin);
        return 0;
    }
    uint64_t now = clock_ns();
    if (now >= deadline)
        return -ETIMEDOUT;
    rc = r->producing ? remote_give_back(r) : 0;
    remote_tell_taken(r, true);
    (void)remote_flush(r);
    if (rc == 0 && (r->link == LINK_UP || r->link == LINK_EXCHANGE) &&
        remote_wire_look(r, now, &deadline))
        return 0;
    if (rc < 0 || r->hangup || (r->link != LINK_UP && r->link != LINK_EXCHANGE))
        return rc == -ESTALE ? 0 : rc;
    spin_miss(&r->spin);
    rc = remote_sleep(r, r->spin.busy ? 0 : ns_until(deadline, now));
    spin_start(&r->spin);
    return rc;
}

int remote_await_up(struct remote *r, uint64_t deadline)
{
    int rc = 0;
    while (!remote_is_up(r) && rc == 0)
        rc = remote_wait(r, deadline);
    return rc;
}

int remote_wait_outcome(struct remote *r, uint64_t deadline)
{
    r->producing = true;
    int rc = remote_wait(r, deadline);
    r->producing = false;
    return rc;
}

int remote_try_put(struct remote *r, const struct record *rec)
{
    uint32_t size = rec_size(rec);
    uint8_t *room = lane_tx_room(r->lane, size);
    if (!room && (remote_flush(r) != 1 || !(room = lane_tx_room(r->lane, size))))
        return 0;
    rec_put(room, rec);
    lane_tx_add(r->lane, size);
    return 1;
}

static int link_gone(void)
{
    return err_set(-ESTALE, "the link has ended meanwhile");
}

int remote_put(struct remote *r, const struct record *rec, uint64_t deadline)
{
    uint32_t links = r->links;
    bool waited = false;
    for (;;) {
        if (r->broken)
            return remote_broken(r, r->broken);
        if (!remote_is_up(r) || r->links != links)
            return link_gone();
        if (remote_try_put(r, rec))
            return 0;
        if (!waited) {
            spin_start(&r->spin);
            waited = true;
        }
        int rc = remote_wait(r, deadline);
        if (rc < 0)
            return rc;
    }
}

int remote_put_any(struct remote *r, struct record *rec, const void *data, uint64_t deadline)
{
    uint32_t small = lane_tx_max(r->lane) - REC_HEAD - REC_KERNEL - REC_TAG, links = r->links;
    rec->payload = data;
    if (rec->len <= small)
        return remote_put(r, rec, deadline);
    /* it takes long: what was not begun is for others meanwhile */
    int rc = rec->len > GIVE_BACK_MIN ? remote_give_back(r) : 0;
    if (rc == 0)
        rc = big_send(&r->big_out, rec, data, NULL);
    if (rc < 0)
        return rc;
    /* The bytes are the caller's: they must be out before we return. No deadline: half a payload
     * can't be taken back. */
    spin_start(&r->spin);
    while (r->big_out.first && r->links == links) {
        rc = remote_wait(r, UINT64_MAX);
        /* and those that were on their way to us */
        if (rc == 0 && rec->len > GIVE_BACK_MIN && r->lease_n > 0 && r->links == links)
            rc = remote_give_back(r);
        if (rc == -ESTALE) /* the link has ended: told below */
            rc = 0;
        if (rc < 0) {
            big_drop(&r->big_out);
            return rc;
        }
    }
    return remote_is_up(r) && r->links == links ? 0 : link_gone();
}

/* ---- the rest of the table ---- */

int remote_queue(fab_t *f, const char *name, uint32_t *queue)
{
    const struct session_info *in = &((struct remote *)f)->info;
    char list[512] = "";
    for (uint32_t i = 0; i < in->queues; i++) {
        if (strcmp(in->queue[i], name) == 0) {
            *queue = i;
            return 0;
        }
        size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", in->queue[i]);
    }
    return err_set(-ENOENT,
                   "no queue \"%s\" (there is: %s); add [[queue]] to fabricd's configuration", name,
                   list);
}

size_t remote_outstanding(const fab_t *f)
{
    return ((const struct remote *)f)->outstanding;
}

int remote_flush_op(fab_t *f)
{
    struct remote *r = (struct remote *)f;
    uint64_t deadline = 0;
    int rc = remote_progress(r);
    (void)remote_flush(r);
    /* The caller may do nothing with the link for a long time now: what the transport does not take at once,
     * or the peer has no room for, is tried again for a while. */
    while (rc >= 0 && remote_is_up(r) && r->lane && lane_tx_gathered(r->lane)) {
        if (deadline == 0) {
            deadline = clock_ns() + FLUSH_WAIT_NS;
            spin_start(&r->spin);
        }
        rc = remote_wait(r, deadline);
        (void)remote_flush(r);
    }
    return rc < 0 && rc != -ETIMEDOUT ? rc : 0;
}

int remote_status(fab_t *f, char **text, int64_t timeout_ns)
{
    struct remote *r = (struct remote *)f;
    int rc = r->lane || !remote_is_up(r) ? remote_await_up(r, deadline_of(timeout_ns)) : 0;
    if (rc < 0)
        return rc == -ETIMEDOUT ? deadline_error(timeout_ns, "the link did not come back") : rc;
    return session_status(r->session, text, timeout_ns);
}

int remote_admin(fab_t *f, const struct admin_request *q, struct admin_reply *reply,
                        int64_t timeout_ns)
{
    struct remote *r = (struct remote *)f;
    if (r->broken)
        return remote_broken(r, r->broken);
    return session_admin(r->session, q, reply, timeout_ns);
}

/* What was completed is worth a last moment; tasks nobody waits for are accepted, and the good-bye
 * on the control connection may overtake them: they wait for the daemon's word. */
static void say_all(struct remote *r)
{
    uint64_t now = clock_ns();
    spin_start(&r->spin);
    for (;;) {
        (void)remote_flush(r);
        bool said = remote_is_up(r) ? lane_tx_settle(r->lane) != 0 : r->unwaited == 0;
        if (r->broken || (r->unwaited == 0 && said))
            return;
        if (remote_wait(r, now + (r->unwaited > 0 ? CLOSE_UNWAITED_NS : CLOSE_NS)) < 0)
            return;
    }
}

void remote_close(fab_t *f)
{
    struct remote *r = (struct remote *)f;
    if (r->task && !r->broken && (r->lane || r->link != LINK_UP))
        say_all(r);
    remote_beat_end(r);
    if (r->loop)
        (void)remote_wire_end(r, false);
    for (int i = 0; i < 4 && r->loop; i++)
        loop_stop(r->loop, &r->src[i]);
    if (r->loop)
        loop_close(r->loop);
    remote_big_close(r);
    if (r->session)
        session_close(r->session);
    if (r->left)
        session_break(r->left);
    big_drop(&r->big_out);
    for (uint32_t i = 0; r->task && i < r->window; i++) {
        free(r->task[i].data);
        free(r->task[i].terms);
    }
    remote_drop_leases(r);
    while (r->held_n > 0)
        free(r->held[--r->held_n]);
    free(r->held);
    free(r->task);
    remote_held_close(r);
    free(r->mark);
    free(r->list);
    free(r->tell);
    while (r->lent_n > 0)
        free(r->lent[--r->lent_n].at);
    free(r->lent);
    free(r->lease);
    free(r->handed_ref);
    free((char *)r->opts.key_file);
    free(r);
}

static int make_tables(struct remote *r)
{
    r->window = r->info.submit_window;
    r->task = calloc(r->window, sizeof *r->task);
    r->list = calloc(r->window, sizeof *r->list);
    r->tell = calloc(r->window, sizeof *r->tell);
    if (!r->task || !r->list || !r->tell)
        return err_set(-ENOMEM, "no memory for a window of %u tasks", r->window);
    remote_free_places(r);
    r->done_first = r->done_last = REMOTE_NONE;
    r->self.window = r->withdraw_at = r->window;
    return 0;
}

/* What later links need of the caller's options. */
static int keep_options(struct remote *r, const char *provider, const char *host, const char *port,
                        const struct fab_options *opts)
{
    r->opts = *opts;
    r->opts.key_file = NULL;
    snprintf(r->provider, sizeof r->provider, "%s", provider);
    snprintf(r->host, sizeof r->host, "%s", host);
    snprintf(r->port, sizeof r->port, "%s", port);
    if (opts->key_file && !(r->opts.key_file = strdup(opts->key_file)))
        return err_set(-ENOMEM, "no memory for a handle");
    snprintf(r->name, sizeof r->name, "%s",
             opts->name ? opts->name : program_invocation_short_name);
    r->opts.name = r->name;
    if (opts->client) {
        snprintf(r->client, sizeof r->client, "%s", opts->client);
        r->opts.client = r->client;
    }
    r->producer = opts->roles == 0 || opts->roles & FAB_PRODUCER;
    r->works = opts->roles == 0 || opts->roles & FAB_WORKER;
    session_new_instance(r->self.instance);
    return 0;
}

/* The first link, and with a client id what an earlier handle has left. */
static int first_link(struct remote *r)
{
    int64_t timeout = r->opts.timeout_ns ? r->opts.timeout_ns : OPEN_NS;
    uint64_t deadline = deadline_of(timeout);
    bool with_data = r->opts.roles == 0 || r->opts.roles & (FAB_PRODUCER | FAB_WORKER);
    int rc =
        session_open(&r->session, r->provider, r->host, r->port, &r->opts, with_data, &r->self);
    if (rc < 0)
        return rc;
    r->info = *session_info(r->session);
    rc = make_tables(r);
    if (rc == 0)
        rc = remote_link_joined(r);
    while (rc == 0 && r->link == LINK_EXCHANGE)
        rc = remote_wait(r, deadline);
    r->self.resume = with_data;
    return rc == -ETIMEDOUT ? err_set(rc, "%s does not tell which tasks it has", r->info.server)
                            : rc;
}

int remote_open(fab_t **out, const char *scheme, const char *host, const char *port,
                const struct fab_options *opts)
{
    struct remote *r = calloc(1, sizeof *r);
    if (!r)
        return err_set(-ENOMEM, "no memory for a handle");
    r->base.ops = &remote_guarded;
    remote_big_open(r);
    guard_init(&r->guard);
    guard_enter(&r->guard);
    r->ticks_hz = clock_ticks_hz();
    r->ns_per_tick = 1e9 / (double)r->ticks_hz;
    r->flush_ticks = r->ticks_hz / (1000000000u / FLUSH_NS);
    spin_init(&r->spin, r->ticks_hz, opts->spin_ns);
    if (opts->spin_ns == 0) /* a network's round trip is longer than a cache line's */
        r->spin.ticks = r->spin.ticks_max = r->ticks_hz / (1000000000 / SPIN_MAX_NS);
    int rc = keep_options(r, scheme, host, port, opts);
    if (rc == 0)
        rc = loop_open(&r->loop, 8);
    if (rc == 0)
        rc = first_link(r);
    if (rc < 0) {
        r->broken = rc; /* nothing to flush */
        remote_close(&r->base);
        return rc;
    }
    remote_leave(r);
    *out = &r->base;
    return 0;
}
