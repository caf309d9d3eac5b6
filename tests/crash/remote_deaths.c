/* SPDX-License-Identifier: MIT
 *
 * remote_deaths.c - the ways in which somebody of the remote campaign dies and is replaced; see
 * remote_campaign.h.
 *
 * A process that opens a link or resumes one comes by its points then and only then. So there are
 * ways to die (enum way): one that works is ordered to die and waited for; one is killed and its
 * successor dies as it starts; a producer dies in the resumption after fabricd's death; a fabricd
 * dies as its peers come back, or as one comes anew. Every fabricd chooses between SEND, WRITE and
 * encrypted lanes by dice, so that links change from the one to the other.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "tests/common/dice.h"
#include "tests/crash/remote_campaign.h"

#define PATIENCE_MS 60 /* for a victim to come by its crash point */
#define OPENING_MS  300
#define RESUMING_MS 1000          /* handles pause between their tries */
#define FABRICD     REMOTE_ACTORS /* the victim's number */

enum way { AT_WORK, AT_START, AT_RESUMING, FABRICD_AT_WORK, FABRICD_AT_OPENING, FABRICD_AT_RETURN };

/* ---- fabricd ---- */

static int write_conf(struct campaign *c)
{
    static const char *const lanes[][2] = {
        {"send", "authenticated"}, {"write", "authenticated"}, {"send", "encrypted"}};
    const char *const *as = lanes[roll(&c->dice) % 3];
    FILE *f = fopen(c->fabricd.conf, "we");
    if (!f)
        return -errno;
    fprintf(f,
            "[node]\nruntime_dir = \"%s\"\nstate_dir = \"%s\"\nlog_level = \"info\"\n"
            "[listen]\naddress = \"127.0.0.1:%u\"\n"
            /* what killed plain producers leave is kept until the round's end */
            "[segment]\nslots = 8192\nparticipants = 256\narena = \"128MiB\"\nkeep = \"60s\"\n"
            "keep_results = \"120s\"\ndedup_keys = 262144\n"
            "[fabric]\nprovider = \"tcp\"\nlane = \"%s\"\nlane_cell = \"4KiB\"\nlane_cells = 4\n"
            "lease_window = 32\nsubmit_window = 64\n[auth]\nsecurity = \"%s\"\n",
            c->fabricd.dir, c->fabricd.dir, c->port, as[0], as[1]);
    return fclose(f) == 0 ? 0 : -errno;
}

bool conf_and_start(struct campaign *c)
{
    return write_conf(c) == 0 && fabricd_start(&c->fabricd);
}

static bool fabricd_revive(struct campaign *c)
{
    crash_order(c->fabricd.plan, "", 0);
    fabricd_bury(&c->fabricd);
    for (int i = 0; i < 5; i++) {
        if (conf_and_start(c))
            return true;
        fabricd_kill(&c->fabricd);
        fabricd_bury(&c->fabricd);
    }
    remote_trouble(c->st, "fabricd does not start any more");
    return false;
}

/* ---- actors ---- */

bool actor_start(struct campaign *c, unsigned i, const char *point, uint32_t nth)
{
    struct remote_actor *a = actor(c, i);
    crash_order(&a->plan, point ? point : "", nth);
    at_store(&a->plan.taking, 0);
    a->life++;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(remote_actor_run(c->st, i));
    }
    a->pid = pid; /* not by the child, which shares it */
    a->pidfd = pidfd_of(pid);
    return a->pidfd >= 0;
}

int actor_bury(struct campaign *c, unsigned i)
{
    int status = 0;
    struct remote_actor *a = actor(c, i);
    waitpid(a->pid, &status, 0);
    close(a->pidfd);
    a->pid = 0;
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    c->st->taken_along += i == WANDERER && at_load(&a->plan.taking);
    return -1;
}

static bool actor_revive(struct campaign *c, unsigned i, const char *point, uint32_t nth)
{
    if (actor_bury(c, i) > 0) /* it ended by itself, with trouble */
        return false;
    return actor_start(c, i, point, nth);
}

/* ---- killing ---- */

/* The points at which one can die in each way, and who. */
static const char *const at_work_producer[] = {
    "lane.p",    "lane.a",    "lane.r",      "lane.w",       "lane.c", "remote.arr",
    "remote.ta", "remote.te", "remote.told", "remote.large", NULL};
static const char *const at_work_worker[] = {
    "lane.p", "lane.a", "lane.r", "lane.w", "lane.c", "remote.l", "remote.ended", "remote.w", NULL};
static const char *const at_work_local[] = {"submit.",  "take.", "cancel.", "claim.", "complete.",
                                            "release.", "wake.", "arena.",  "ring.",  NULL};
static const char *const at_start[] = {"session.",        "lane.bound",    "remote.joined",
                                       "remote.taken_up", "remote.wanted", NULL};
static const char *const at_resuming[] = {
    "session.",       "remote.down", "remote.joined", "remote.named",
    "remote.resumed", "remote.sub",  "lane.bound",    NULL};
static const char *const fabricd_at_work[] = {"lane.a",  "lane.p",      "lane.r",     "lane.w",
                                              "lane.c",  "link.placed", "link.taken", "producer.",
                                              "worker.", NULL};
static const char *const fabricd_at_opening[] = {"gate.",       "peer.",        "link.closed",
                                                 "lane.bound",  "resume.known", "participant.",
                                                 "undertaker.", "worker.let",   NULL};
static const char *const fabricd_at_return[] = {
    "resume.", "gate.", "peer.", "participant.ta", "adopt.", "lane.bound", "lane.received", NULL};

static const char *const *points_of(enum way way, unsigned victim)
{
    switch (way) {
    case AT_WORK:
        return !IS_REMOTE(victim)    ? at_work_local
               : IS_PRODUCER(victim) ? at_work_producer
                                     : at_work_worker;
    case AT_START:
        return at_start;
    case AT_RESUMING:
        return at_resuming;
    case FABRICD_AT_WORK:
        return fabricd_at_work;
    case FABRICD_AT_OPENING:
        return fabricd_at_opening;
    default:
        return fabricd_at_return;
    }
}

/* A point for this. */
static struct point *choose_for(struct campaign *c, enum way way, unsigned victim)
{
    struct point *p;
    do
        p = choose_point(&c->deaths, &c->dice, points_of(way, victim));
    while (!p); /* every way has some */
    p->tried++;
    return p;
}

/* At which visit. What opens and resumes is come by once. */
static uint32_t nth(struct campaign *c, const struct point *p)
{
    static const char *const often[] = {
        "lane.a",   "lane.p",   "lane.r",    "lane.w",     "lane.c",    "remote.arr",
        "remote.t", "remote.l", "remote.e",  "remote.sub", "producer.", "worker.c",
        "worker.s", "worker.d", "link.p",    "link.t",     "submit.",   "take.",
        "cancel.",  "claim.",   "complete.", "release.",   "wake.",     NULL};
    static const char *const once[] = {"remote.taken_up", "worker.ca", "producer.p", NULL};
    return is_of(p->name, often) && !is_of(p->name, once) ? 1 + (uint32_t)(roll(&c->dice) % 16) : 1;
}

/* Waits for an actor to die at its point, or kills it now. */
static void actor_ends(struct campaign *c, unsigned i, struct point *p, int ms)
{
    const struct remote_actor *a = actor(c, i);
    see_off(&c->deaths, a->pid, a->pidfd, &a->plan, p, ms, false);
}

static void fabricd_ends(struct campaign *c, struct point *p, int ms)
{
    see_off(&c->deaths, c->fabricd.pid, c->fabricd.pidfd, c->fabricd.plan, p, ms, true);
}

static void a_moment(struct campaign *c)
{
    struct timespec t = {.tv_nsec = (long)(roll(&c->dice) % 3000000)};
    nanosleep(&t, NULL);
}

/* One of those that work dies, and sometimes another one with it. */
static bool die_at_work(struct campaign *c)
{
    unsigned victim[2] = {(unsigned)(roll(&c->dice) % REMOTE_ACTORS),
                          (unsigned)(roll(&c->dice) % REMOTE_ACTORS)};
    unsigned n = roll(&c->dice) % 4 == 0 && victim[0] != victim[1] ? 2 : 1;
    struct point *p[2];
    for (unsigned i = 0; i < n; i++) {
        p[i] = roll(&c->dice) % 4 ? choose_for(c, AT_WORK, victim[i]) : NULL;
        if (p[i])
            crash_order(&actor(c, victim[i])->plan, p[i]->name, nth(c, p[i]));
    }
    a_moment(c);
    for (unsigned i = 0; i < n; i++)
        actor_ends(c, victim[i], p[i], PATIENCE_MS);
    c->deaths.pairs += n == 2;
    for (unsigned i = 0; i < n; i++)
        if (!actor_revive(c, victim[i], NULL, 0))
            return false;
    return true;
}

static unsigned a_remote_one(struct campaign *c)
{
    unsigned i;
    do
        i = (unsigned)(roll(&c->dice) % REMOTE_ACTORS);
    while (!IS_REMOTE(i));
    return i;
}

static bool die_at_start(struct campaign *c)
{
    unsigned i = a_remote_one(c);
    struct point *p = choose_for(c, AT_START, i);
    if (strcmp(p->name, "remote.taken_up") == 0)
        i = WANDERER;
    actor_ends(c, i, NULL, 0);
    if (!actor_revive(c, i, p->name, nth(c, p)))
        return false;
    actor_ends(c, i, p, OPENING_MS);
    return actor_revive(c, i, NULL, 0);
}

/* fabricd dies, and a producer while it comes back. */
static bool die_resuming(struct campaign *c)
{
    unsigned i = roll(&c->dice) % 2 ? WANDERER : REMOTE_PRODUCER;
    struct point *p = choose_for(c, AT_RESUMING, i);
    crash_order(&actor(c, i)->plan, p->name, nth(c, p));
    fabricd_ends(c, NULL, 0);
    c->deaths.pairs++;
    if (!fabricd_revive(c))
        return false;
    actor_ends(c, i, p, RESUMING_MS);
    return actor_revive(c, i, NULL, 0);
}

static bool fabricd_dies_at_work(struct campaign *c)
{
    struct point *p = roll(&c->dice) % 3 ? choose_for(c, FABRICD_AT_WORK, FABRICD) : NULL;
    unsigned other = (unsigned)(roll(&c->dice) % (2 * REMOTE_ACTORS));
    if (p)
        crash_order(c->fabricd.plan, p->name, nth(c, p));
    a_moment(c);
    fabricd_ends(c, p, PATIENCE_MS);
    if (other < REMOTE_ACTORS) {
        actor_ends(c, other, NULL, 0);
        c->deaths.pairs++;
    }
    bool fine = fabricd_revive(c);
    return fine && (other >= REMOTE_ACTORS || actor_revive(c, other, NULL, 0));
}

/* fabricd dies of somebody's end, or of his successor's coming. */
static bool fabricd_dies_at_opening(struct campaign *c)
{
    unsigned i = a_remote_one(c);
    struct point *p = choose_for(c, FABRICD_AT_OPENING, FABRICD);
    crash_order(c->fabricd.plan, p->name, 1);
    actor_ends(c, i, NULL, 0);
    c->deaths.pairs++;
    if (!actor_revive(c, i, NULL, 0))
        return false;
    fabricd_ends(c, p, OPENING_MS);
    return fabricd_revive(c);
}

/* fabricd dies, and its successor, too, as all come back. */
static bool fabricd_dies_at_return(struct campaign *c)
{
    struct point *p = choose_for(c, FABRICD_AT_RETURN, FABRICD);
    int fd;
    fabricd_ends(c, NULL, 0);
    fabricd_bury(&c->fabricd);
    crash_order(c->fabricd.plan, p->name, nth(c, p));
    if (write_conf(c) < 0 || !fabricd_begin(&c->fabricd, &fd))
        return false;
    (void)fabricd_await_ready(fd);
    fabricd_ends(c, p, RESUMING_MS);
    return fabricd_revive(c);
}

bool revive_poisoned(struct campaign *c, unsigned from)
{
    for (unsigned i = from; i < REMOTE_ACTORS; i++) {
        if (!dies_within(actor(c, i)->pidfd, 0))
            continue;
        c->deaths.kills++;
        c->deaths.poisoned++;
        if (!actor_revive(c, i, NULL, 0))
            return false;
    }
    return true;
}

bool one_kill(struct campaign *c)
{
    static bool (*const ways[])(struct campaign *) = {die_at_work,
                                                      die_at_work,
                                                      die_at_work,
                                                      die_at_work,
                                                      die_at_work,
                                                      die_at_start,
                                                      die_at_start,
                                                      die_at_start,
                                                      die_resuming,
                                                      fabricd_dies_at_work,
                                                      fabricd_dies_at_opening,
                                                      fabricd_dies_at_return};
    if (!revive_poisoned(c, 0))
        return false;
    return ways[roll(&c->dice) % (sizeof ways / sizeof *ways)](c) && at_load(&c->st->trouble) == 0;
}
