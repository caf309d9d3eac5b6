/* SPDX-License-Identifier: MIT
 *
 * adopt.c - making or taking over the segment; see adopt.h. Runs once, in fabricd's start.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "apps/fabricd/adopt.h"
#include "apps/fabricd/doorman.h"
#include "apps/fabricd/keep.h"
#include "apps/fabricd/notify.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/fabric.h"
#include "core/participant.h"
#include "core/undertaker.h"

#define STORED_SEGMENT "segment"
#define STORED_BELL    "doorbell"

/* In slots; at least one. The segment rounds its slots up, and the share with them. */
static uint32_t share_of(const struct conf *c)
{
    if (c->producer_share > 0)
        return (uint32_t)c->producer_share;
    uint64_t n = (uint64_t)c->slots * (uint32_t)-c->producer_share / 100;
    return n ? (uint32_t)n : 1;
}

static int make(struct daemon *d)
{
    const struct conf *c = d->conf;
    const char *names[SEG_QUEUES_MAX];
    char host[64];
    struct segment_params p = {.name = c->name,
                               .version = FABRIC_VERSION,
                               .slots = c->slots,
                               .participants = c->participants,
                               .arena_bytes = c->arena_bytes,
                               .dead_letters = c->dead_letters < c->slots / 2
                                                   ? c->dead_letters
                                                   : c->slots / 2 - 1,
                               .queues = c->queues,
                               .queue_names = names,
                               .dedup_keys = c->dedup_keys,
                               .producer_share = share_of(c),
                               .huge = (enum segment_huge)c->huge_pages,
                               .numa_node = c->numa_node};
    if (!c->name[0]) {
        gethostname(host, sizeof host);
        host[sizeof host - 1] = 0;
        p.name = host;
    }
    for (uint32_t i = 0; i < c->queues; i++)
        names[i] = c->queue[i];
    d->out.daemon_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (d->out.daemon_fd < 0)
        return err_set(-errno, "eventfd: %s", strerror(errno));
    return segment_create(&d->seg, &p);
}

/* What systemd stored. 1: taken over, 0: nothing. */
static int take_stored(struct daemon *d)
{
    int seg = notify_stored(STORED_SEGMENT), bell = notify_stored(STORED_BELL), rc = 0;
    if (seg < 0 || bell < 0)
        goto none;
    rc = segment_map(&d->seg, seg);
    if (rc == 0 && at_load(&d->seg.head->state) != SEG_CLOSED) {
        d->out.daemon_fd = bell;
        return 1;
    }
    if (rc < 0)
        log_warn("the segment that systemd kept is of no use: %s", err_text(rc));
    else
        segment_unmap(&d->seg);
    if (rc == 0)
        seg = -1; /* closed with it */
none:
    if (seg >= 0)
        close(seg);
    if (bell >= 0)
        close(bell);
    return 0;
}

/* What the configuration says and an adopted segment can't follow. */
static void compare(const struct daemon *d)
{
    const struct conf *c = d->conf;
    const char *until = "holds when a new segment is made (stop fabricd with SIGTERM first)";
    if (c->slots != d->seg.slots)
        log_warn("segment.slots: %u in the adopted segment; %u %s", d->seg.slots, c->slots, until);
    if (c->participants != d->seg.participants)
        log_warn("segment.participants: %u in the adopted segment; %u %s", d->seg.participants,
                 c->participants, until);
    if ((c->dead_letters < c->slots / 2 ? c->dead_letters : c->slots / 2 - 1) !=
        d->seg.dead_letters)
        log_warn("segment.dead_letters: %u in the adopted segment; %u %s", d->seg.dead_letters,
                 c->dead_letters, until);
    bool same = c->queues == d->seg.queues;
    for (uint32_t i = 0; same && i < c->queues; i++)
        same = strncmp(d->seg.queue[i].name, c->queue[i], SEG_NAME) == 0;
    if (!same)
        log_warn("[[queue]]: the adopted segment has other queues; the new list %s", until);
}

/* Our own entry. A full table has one that is surely dead: that of the fabricd before us, which we
 * use until the undertaker has made room. */
static int enter(struct daemon *d, int last_resort)
{
    struct participant_info self = {
        .pid = (uint32_t)getpid(), .uid = getuid(), .roles = FAB_TOOL, .name = "fabricd"};
    uint32_t generation;
    int rc = participant_add(&d->seg, &self, &generation);
    if (rc == -EUSERS && last_resort >= 0)
        rc = last_resort;
    if (rc < 0)
        return rc;
    d->me = (uint32_t)rc;
    return 0;
}

static void sign(struct daemon *d)
{
    struct seg_header *h = d->seg.head;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at_store(&h->daemon_pid, (uint32_t)getpid());
    at_store(&h->daemon_started_unix_ns,
             (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
    at_store(&h->alive_ns, clock_ns());
}

int adopt_or_make(struct daemon *d)
{
    bool kept = false;
    int rc = keeper_ask(&d->keeper, d->socket_path, &d->seg, &d->out.daemon_fd);
    if (rc < 0)
        return rc;
    kept = rc == 1;
    CRASH_POINT("adopt.asked");
    if (rc == 0)
        rc = take_stored(d);
    d->adopted = rc == 1;
    if (d->adopted && segment_host(&d->seg) < 0)
        return -ENOMEM;
    if (rc == 0)
        rc = make(d);
    if (rc >= 0 && !kept && d->conf->keep_ns > 0)
        rc = keeper_start(&d->keeper, d->socket_path, &d->seg, d->out.daemon_fd, d->conf->keep_ns);
    if (rc < 0)
        return rc;
    if (d->adopted)
        return 0;
    if (rc == 0) {
        notify_store(STORED_SEGMENT, d->seg.fd);
        notify_store(STORED_BELL, d->out.daemon_fd);
        rc = enter(d, -1);
        if (rc == 0)
            sign(d);
    }
    return rc;
}

/* Its owner is no more: what becomes of it. */
static int gone(struct daemon *d, uint32_t id, uint8_t *fate)
{
    uint64_t until = keep_until(d, id, false);
    if (until) {
        at_store(&d->seg.participant[id].identity.keep_until_ns, until);
        *fate = *fate == FATE_CRASHED ? FATE_KEEP_CRASHED : FATE_KEEP_LEFT;
    }
    return 0;
}

/* A link of the fabricd before us: its worker may come back. */
static void note_worker(struct daemon *d, const struct seg_participant *p)
{
    char peer[sizeof p->link.peer],
        name[sizeof p->name]; /* copies: anybody may have written there */
    if (!p->remote || !(p->roles & FAB_WORKER) || (p->roles & FAB_PRODUCER))
        return;
    snprintf(peer, sizeof peer, "%.*s", (int)sizeof peer - 1, p->link.peer);
    snprintf(name, sizeof name, "%.*s", (int)sizeof name - 1, p->name);
    returns_broken(&d->returns, peer, name,
                   at_load_rlx(&p->link.reconnects)); /* relaxed: for people */
}

/* LIVE by its word: is its process? Then the doorman watches it from here on. */
static int look_at(struct daemon *d, uint32_t id, uint32_t old_daemon, uint8_t *fate)
{
    const struct seg_participant *p = &d->seg.participant[id];
    uint32_t pid = p->pid; /* read once */
    *fate = p->remote || pid == old_daemon ? FATE_LEFT : FATE_CRASHED;
    d->seg.living[id] = LIVING;
    note_worker(d, p);
    if (*fate == FATE_CRASHED && participant_uninvite(&d->seg, id))
        *fate = FATE_LEFT;
    if (*fate == FATE_LEFT || pid == 0 || pid > INT32_MAX)
        return gone(d, id, fate);
    /* the descriptor first, then the start time: a number that was reused in between shows */
    int pidfd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    if (pidfd < 0)
        return gone(d, id, fate);
    if (participant_start_ticks(pid) != p->start_ticks) {
        close(pidfd);
        return gone(d, id, fate);
    }
    *fate = FATE_NONE;
    return doorman_watch(d->doorman, id, pid, pidfd);
}

int adopt_participants(struct daemon *d)
{
    struct undertaker_report rep;
    uint32_t live = 0, old_daemon = at_load(&d->seg.head->daemon_pid);
    uint64_t start = clock_ns();
    int rc = 0, old_entry = -1;
    if (!d->adopted)
        return 0;
    uint8_t *fate = calloc(1, d->seg.participants);
    if (!fate)
        return err_set(-ENOMEM, "no memory");
    CRASH_POINT("adopt.begun");
    compare(d);
    for (uint32_t i = 0; rc == 0 && i < d->seg.participants; i++) {
        enum life life = participant_life(at_load(&d->seg.participant[i].life));
        if (life == LIFE_LIVE)
            rc = look_at(d, i, old_daemon, &fate[i]);
        else if (life == LIFE_KEPT)
            d->seg.living[i] = LIVING_KEPT;
        else if (life != LIFE_FREE)
            fate[i] = life == LIFE_LEFT ? FATE_LEFT : FATE_CRASHED;
        live += life == LIFE_LIVE && fate[i] == FATE_NONE;
        if (fate[i] == FATE_LEFT || fate[i] == FATE_CRASHED)
            old_entry = (int)i;
    }
    if (rc == 0)
        rc = enter(d, old_entry);
    if (rc == 0) {
        CRASH_POINT("adopt.entered");
        undertaker_recover_many(&d->seg, &d->out, d->me, fate, &rep);
        if (fate[d->me] != FATE_NONE)
            rc = enter(d, -1);
    }
    free(fate);
    if (rc < 0)
        return rc;
    CRASH_POINT("adopt.recovered");
    sign(d);
    CRASH_POINT("adopt.signed");
    at_store(&d->seg.head->state, SEG_RUNNING);
    at_add(&d->seg.head->adoptions, 1);
    log_info("took over the segment of fabricd %u with %u living participants in %.1f ms",
             old_daemon, live, (double)(clock_ns() - start) / 1e6);
    daemon_check(d);
    daemon_report("what the others held", "was given back", &rep);
    return 0;
}

void adopt_end(struct daemon *d)
{
    notify_forget(STORED_SEGMENT);
    notify_forget(STORED_BELL);
    keeper_done(&d->keeper);
}
