/* SPDX-License-Identifier: MIT
 *
 * remote_campaign.c - as campaign.c, but over links: kills remote producers and workers, local ones
 * beside them, and fabricd, at the named crash points of lanes, handshakes, links and their
 * resumption and at random moments, alone and in pairs, on tcp over loopback; remote.h says what must
 * hold for every task. At the end of a round the segment must be exactly empty.
 *
 * A process that opens a link or resumes one comes by its points then and only then. So there are
 * ways to die (enum way): one that works is ordered to die and waited for; one is killed and its
 * successor dies as it starts; a producer dies in the resumption after fabricd's death; a fabricd dies
 * as its peers come back, or as one comes anew. Every fabricd chooses between SEND, WRITE and
 * encrypted lanes by dice, so that links change from the one to the other.
 *
 * Seeds make the choice of victims and points repeatable; when exactly a process dies at a random kill
 * is the scheduler's.
 *
 * Usage: campaign-remote BUILD_DIR SEED KILLS POINT...  (tests/crash/campaign-remote-run finds the
 * points)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "core/arena.h"
#include "core/fabric.h"
#include "core/local.h"
#include "core/participant.h"
#include "core/ring.h"
#include "tests/crash/remote.h"
#include "transport/ofi_load.h"

#define POINTS_MAX  128
#define ROUND_KILLS 150
#define PATIENCE_MS 60 /* for a victim to come by its crash point */
#define OPENING_MS  300
#define RESUMING_MS 1000 /* handles pause between their tries */
#define SETTLE_NS   30000000000ull
#define FABRICD     REMOTE_ACTORS /* the victim's number */

enum way { AT_WORK, AT_START, AT_RESUMING, FABRICD_AT_WORK, FABRICD_AT_OPENING, FABRICD_AT_RETURN, WAYS };

struct point {
    const char *name;
    uint32_t tried, fired;
};

struct campaign {
    struct remote_stage *st;
    const char *build;
    char dir[64], conf[96], plan_path[96];
    uint16_t port;
    struct crash_plan *plan; /* fabricd's */
    pid_t fabricd;
    int fabricd_fd;
    uint64_t dice;
    struct point point[POINTS_MAX];
    uint32_t points;
    uint32_t kills, poisoned, at_points, at_random, of_fabricd, pairs, rounds;
    uint64_t net_catches, sums[8];
};

static uint64_t roll(struct campaign *c)
{
    c->dice ^= c->dice >> 12;
    c->dice ^= c->dice << 25;
    c->dice ^= c->dice >> 27;
    return c->dice * 0x2545f4914f6cdd1dull;
}

static bool dies_within(int pidfd, int ms)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    return poll(&p, 1, ms) == 1;
}

/* ---- fabricd ---- */

static int write_conf(struct campaign *c)
{
    static const char *const lanes[][2] = {
        {"send", "authenticated"}, {"write", "authenticated"}, {"send", "encrypted"}};
    const char *const *as = lanes[roll(c) % 3];
    FILE *f = fopen(c->conf, "we");
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
            c->dir, c->dir, c->port, as[0], as[1]);
    return fclose(f) == 0 ? 0 : -errno;
}

/* Reads its stderr until it is ready. False: it died before. */
static bool await_ready(int fd)
{
    char text[8192];
    size_t n = 0;
    ssize_t got;
    while (n < sizeof text - 1 && (got = read(fd, text + n, sizeof text - 1 - n)) > 0) {
        n += (size_t)got;
        text[n] = 0;
        if (strstr(text, "ready on"))
            return true;
    }
    return false;
}

/* *ready: its stderr, for await_ready(). */
static bool fabricd_begin(struct campaign *c, int *ready)
{
    int err[2];
    char program[512];
    if (write_conf(c) < 0 || pipe2(err, O_CLOEXEC) < 0)
        return false;
    snprintf(program, sizeof program, "%s/tests/fabricd-crash", c->build);
    c->fabricd = fork();
    if (c->fabricd == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(err[1], 2);
        setenv("FABRIC_CRASH_PLAN", c->plan_path, 1);
        execl(program, "fabricd", "-c", c->conf, (char *)NULL);
        _exit(127);
    }
    close(err[1]);
    c->fabricd_fd = (int)syscall(SYS_pidfd_open, c->fabricd, 0);
    *ready = err[0];
    return c->fabricd_fd >= 0;
}

static bool fabricd_start(struct campaign *c)
{
    int fd;
    if (!fabricd_begin(c, &fd))
        return false;
    bool up = await_ready(fd);
    close(fd); /* its later messages go nowhere; SIGPIPE is ignored there */
    return up;
}

static void fabricd_bury(struct campaign *c)
{
    waitpid(c->fabricd, NULL, 0);
    close(c->fabricd_fd);
}

static bool fabricd_revive(struct campaign *c)
{
    crash_order(c->plan, "", 0);
    fabricd_bury(c);
    for (int i = 0; i < 5; i++) {
        if (fabricd_start(c))
            return true;
        kill(c->fabricd, SIGKILL);
        fabricd_bury(c);
    }
    c->fabricd = 0;
    remote_trouble(c->st, "fabricd does not start any more");
    return false;
}

/* ---- actors ---- */

static struct remote_actor *actor(struct campaign *c, unsigned i)
{
    return &c->st->actor[i];
}

/* point NULL: it is to live. */
static bool actor_start(struct campaign *c, unsigned i, const char *point, uint32_t nth)
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
    a->pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    return a->pidfd >= 0;
}

/* Its exit status, -1: by a signal. */
static int actor_bury(struct campaign *c, unsigned i)
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

static bool is_of(const char *point, const char *const *prefix)
{
    for (; *prefix; prefix++)
        if (strncmp(point, *prefix, strlen(*prefix)) == 0)
            return true;
    return false;
}

/* The points at which one can die in each way, and who. */
static const char *const at_work_producer[] = {"lane.p", "lane.a", "lane.r", "lane.w", "lane.c", "remote.arr", "remote.ta", "remote.te",
                                               "remote.told", "remote.large", NULL};
static const char *const at_work_worker[] = {"lane.p", "lane.a", "lane.r", "lane.w", "lane.c", "remote.l", "remote.ended", "remote.w", NULL};
static const char *const at_work_local[] = {"submit.", "take.", "cancel.", "claim.", "complete.", "release.", "wake.", "arena.", "ring.", NULL};
static const char *const at_start[] = {"session.", "lane.bound", "remote.joined", "remote.taken_up", "remote.wanted", NULL};
static const char *const at_resuming[] = {"session.", "remote.down", "remote.joined", "remote.named", "remote.resumed", "remote.sub", "lane.bound", NULL};
static const char *const fabricd_at_work[] = {"lane.a", "lane.p", "lane.r", "lane.w", "lane.c", "link.placed", "link.taken", "producer.", "worker.", NULL};
static const char *const fabricd_at_opening[] = {"gate.", "peer.", "link.closed", "lane.bound", "resume.known", "participant.", "undertaker.", "worker.let", NULL};
static const char *const fabricd_at_return[] = {"resume.", "gate.", "peer.", "participant.ta", "adopt.", "lane.bound", "lane.received", NULL};

static const char *const *points_of(enum way way, unsigned victim)
{
    switch (way) {
    case AT_WORK:
        return !IS_REMOTE(victim) ? at_work_local : IS_PRODUCER(victim) ? at_work_producer : at_work_worker;
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

/* A point for this: the less often one was tried, the likelier. */
static struct point *choose_point(struct campaign *c, enum way way, unsigned victim)
{
    const char *const *own = points_of(way, victim);
    struct point *best = NULL;
    for (int tries = 0; tries < 64 || !best; tries++) { /* every way has some */
        struct point *p = &c->point[roll(c) % c->points];
        if (is_of(p->name, own) && (!best || p->tried < best->tried))
            best = p;
    }
    if (best)
        best->tried++;
    return best;
}

static void count(struct campaign *c, struct crash_plan *plan, struct point *p, bool daemon)
{
    bool fired = p && at_load(&plan->fired);
    if (fired)
        p->fired++;
    c->at_points += fired;
    c->at_random += !fired;
    c->kills++;
    c->of_fabricd += daemon;
}

/* At which visit. What opens and resumes is come by once. */
static uint32_t nth(struct campaign *c, const struct point *p)
{
    static const char *const often[] = {"lane.a", "lane.p", "lane.r", "lane.w", "lane.c", "remote.arr", "remote.t", "remote.l", "remote.e", "remote.sub", "producer.", "worker.c", "worker.s", "worker.d", "link.p", "link.t", "submit.", "take.", "cancel.", "claim.", "complete.", "release.", "wake.", NULL};
    static const char *const once[] = {"remote.taken_up", "worker.ca", "producer.p", NULL};
    return is_of(p->name, often) && !is_of(p->name, once) ? 1 + (uint32_t)(roll(c) % 16) : 1;
}

/* Waits for an actor to die at its point, or kills it now. */
static void see_off(struct campaign *c, unsigned i, struct point *p, int ms)
{
    struct remote_actor *a = actor(c, i);
    if (!p || !dies_within(a->pidfd, ms))
        kill(a->pid, SIGKILL);
    (void)dies_within(a->pidfd, -1);
    count(c, &a->plan, p, false);
}

static void see_off_fabricd(struct campaign *c, struct point *p, int ms)
{
    if (!p || !dies_within(c->fabricd_fd, ms))
        kill(c->fabricd, SIGKILL);
    (void)dies_within(c->fabricd_fd, -1);
    count(c, c->plan, p, true);
}

static void a_moment(struct campaign *c)
{
    struct timespec t = {.tv_nsec = (long)(roll(c) % 3000000)};
    nanosleep(&t, NULL);
}

/* One of those that work dies, and sometimes another one with it. */
static bool die_at_work(struct campaign *c)
{
    unsigned victim[2] = {(unsigned)(roll(c) % REMOTE_ACTORS), (unsigned)(roll(c) % REMOTE_ACTORS)};
    unsigned n = roll(c) % 4 == 0 && victim[0] != victim[1] ? 2 : 1;
    struct point *p[2];
    for (unsigned i = 0; i < n; i++) {
        p[i] = roll(c) % 4 ? choose_point(c, AT_WORK, victim[i]) : NULL;
        if (p[i])
            crash_order(&actor(c, victim[i])->plan, p[i]->name, nth(c, p[i]));
    }
    a_moment(c);
    for (unsigned i = 0; i < n; i++)
        see_off(c, victim[i], p[i], PATIENCE_MS);
    c->pairs += n == 2;
    for (unsigned i = 0; i < n; i++)
        if (!actor_revive(c, victim[i], NULL, 0))
            return false;
    return true;
}

static unsigned a_remote_one(struct campaign *c)
{
    unsigned i;
    do
        i = (unsigned)(roll(c) % REMOTE_ACTORS);
    while (!IS_REMOTE(i));
    return i;
}

static bool die_at_start(struct campaign *c)
{
    unsigned i = a_remote_one(c);
    struct point *p = choose_point(c, AT_START, i);
    if (strcmp(p->name, "remote.taken_up") == 0)
        i = WANDERER;
    see_off(c, i, NULL, 0);
    if (!actor_revive(c, i, p->name, nth(c, p)))
        return false;
    see_off(c, i, p, OPENING_MS);
    return actor_revive(c, i, NULL, 0);
}

/* fabricd dies, and a producer while it comes back. */
static bool die_resuming(struct campaign *c)
{
    unsigned i = roll(c) % 2 ? WANDERER : REMOTE_PRODUCER;
    struct point *p = choose_point(c, AT_RESUMING, i);
    crash_order(&actor(c, i)->plan, p->name, nth(c, p));
    see_off_fabricd(c, NULL, 0);
    c->pairs++;
    if (!fabricd_revive(c))
        return false;
    see_off(c, i, p, RESUMING_MS);
    return actor_revive(c, i, NULL, 0);
}

static bool fabricd_dies_at_work(struct campaign *c)
{
    struct point *p = roll(c) % 3 ? choose_point(c, FABRICD_AT_WORK, FABRICD) : NULL;
    unsigned other = (unsigned)(roll(c) % (2 * REMOTE_ACTORS));
    if (p)
        crash_order(c->plan, p->name, nth(c, p));
    a_moment(c);
    see_off_fabricd(c, p, PATIENCE_MS);
    if (other < REMOTE_ACTORS) {
        see_off(c, other, NULL, 0);
        c->pairs++;
    }
    bool fine = fabricd_revive(c);
    return fine && (other >= REMOTE_ACTORS || actor_revive(c, other, NULL, 0));
}

/* fabricd dies of somebody's end, or of his successor's coming. */
static bool fabricd_dies_at_opening(struct campaign *c)
{
    unsigned i = a_remote_one(c);
    struct point *p = choose_point(c, FABRICD_AT_OPENING, FABRICD);
    crash_order(c->plan, p->name, 1);
    see_off(c, i, NULL, 0);
    c->pairs++;
    if (!actor_revive(c, i, NULL, 0))
        return false;
    see_off_fabricd(c, p, OPENING_MS);
    return fabricd_revive(c);
}

/* fabricd dies, and its successor, too, as all come back. */
static bool fabricd_dies_at_return(struct campaign *c)
{
    struct point *p = choose_point(c, FABRICD_AT_RETURN, FABRICD);
    int fd;
    see_off_fabricd(c, NULL, 0);
    fabricd_bury(c);
    crash_order(c->plan, p->name, nth(c, p));
    if (!fabricd_begin(c, &fd))
        return false;
    (void)await_ready(fd);
    close(fd);
    see_off_fabricd(c, p, RESUMING_MS);
    return fabricd_revive(c);
}

/* Workers that a poisoned task has killed, from that one on. */
static bool revive_poisoned(struct campaign *c, unsigned from)
{
    for (unsigned i = from; i < REMOTE_ACTORS; i++) {
        if (!dies_within(actor(c, i)->pidfd, 0))
            continue;
        c->kills++;
        c->poisoned++;
        if (!actor_revive(c, i, NULL, 0))
            return false;
    }
    return true;
}

static bool one_kill(struct campaign *c)
{
    static bool (*const ways[])(struct campaign *) = {
        die_at_work, die_at_work, die_at_work, die_at_work, die_at_work, die_at_start, die_at_start, die_at_start,
        die_resuming, fabricd_dies_at_work, fabricd_dies_at_opening, fabricd_dies_at_return};
    if (!revive_poisoned(c, 0))
        return false;
    return ways[roll(c) % (sizeof ways / sizeof *ways)](c) && at_load(&c->st->trouble) == 0;
}

/* ---- the end of a round ---- */

static bool actors_finish(struct campaign *c, unsigned from, unsigned to)
{
    bool fine = true;
    for (unsigned i = from; i < to; i++) {
        bool ended = false;
        for (int ms = 0; !ended && ms < 90000; ms += 100) {
            ended = dies_within(actor(c, i)->pidfd, 100);
            if (!ended && !(at_load(&c->st->stop) & 2) && !revive_poisoned(c, LOCAL_PRODUCER + 1))
                return false;
        }
        if (!ended) {
            remote_trouble(c->st, "actor %u does not end", i);
            kill(actor(c, i)->pid, SIGKILL);
        }
        int status = actor_bury(c, i);
        if (status < 0 && !IS_PRODUCER(i) && !at_load(&c->st->trouble)) {
            c->kills++; /* its task was poisoned */
            c->poisoned++;
            fine = actor_start(c, i--, NULL, 0) && fine;
        } else if (status != 0) {
            remote_trouble(c->st, "actor %u ended badly", i);
            fine = false;
        }
    }
    return fine;
}

/* Runs what is left: tasks whose producers died, and tasks nobody waits for; then throws the dead
 * letters away. */
static void run_rest(struct remote_stage *st, fab_t *f)
{
    struct fab_lease l[32];
    long k;
    uint32_t n;
    while ((k = fab_claim(f, 0, l, 32, 200000000)) > 0)
        for (long i = 0; i < k; i++) {
            if (!remote_started(st, fab_arg(&l[i]), l[i].len, &n))
                remote_trouble(st, "what is left is no task's argument");
            (void)!fab_fail(f, &l[i], "wanted");
        }
    (void)!fab_dead_purge(f, 0, FAB_ANY_QUEUE, 0);
}

struct leak {
    uint32_t participants, kept, slots, in_ring, letters, states[16];
    uint64_t bytes;
};

static void count_seen(void *arg, uint32_t slot)
{
    (void)slot;
    ++*(uint32_t *)arg;
}

static bool all_free(const struct segment *s, struct leak *l)
{
    memset(l, 0, sizeof *l);
    for (uint32_t i = 0; i < s->participants; i++) {
        enum life life = participant_life(at_load(&s->participant[i].life));
        l->participants += life != LIFE_FREE;
        l->kept += life == LIFE_KEPT;
        if (life == LIFE_KEPT) /* the round is over: fabricd's next tick ends it */
            at_store(&s->participant[i].identity.keep_until_ns, 1);
    }
    l->participants -= 2; /* fabricd and we */
    for (uint32_t i = 0; i < s->slots; i++) {
        uint32_t st = slot_state(at_load(&s->slot[i].state));
        l->states[st & 15]++;
        l->slots += st != SLOT_FREE;
    }
    ring_scan(s, s->free_ring, count_seen, &l->in_ring);
    l->bytes = s->arena_bytes - arena_bytes_free(s);
    l->letters = at_load(&s->head->dead_letters);
    if (l->letters) /* who died with one in its hands: the audit tells */
        at_store(&s->head->audit_wanted, 1);
    return !l->letters && !l->participants && !l->slots && !l->bytes && l->in_ring >= s->slots;
}

static void check_words(struct campaign *c, const struct segment *s)
{
    if (at_load(&s->head->damage))
        remote_trouble(c->st, "%llu words taken for damaged",
                       (unsigned long long)at_load(&s->head->damage));
    c->net_catches = at_load(&s->head->net_catches);
    /* some may be wakers that were not given the processor for a hundred milliseconds */
    if (c->net_catches > 1 + c->kills / 100)
        remote_trouble(c->st, "wake-ups are lost: %llu sleeps ended by time with work there",
                       (unsigned long long)c->net_catches);
}

/* Everybody has gone: is every slot, block and entry free again? fabricd may still be burying. */
static bool nothing_leaks(struct campaign *c)
{
    struct fab_options o = {.roles = FAB_WORKER, .name = "auditor"};
    struct leak l;
    fab_t *f = NULL;
    bool free = false;
    for (uint64_t until = clock_ns() + SETTLE_NS; !free && clock_ns() < until;) {
        if (fab_open(&f, c->st->local, &o) < 0) {
            remote_trouble(c->st, "the auditor: %s", fab_errmsg());
            return false;
        }
        run_rest(c->st, f);
        struct local *h = (struct local *)f;
        slot_stock_shrink(h->seg, &h->stock, h->me, 0);
        for (int i = 0; i < 100 && !(free = all_free(h->seg, &l)); i++)
            nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        check_words(c, h->seg);
        fab_close(f);
    }
    if (!free)
        remote_trouble(c->st,
                       "a leak: %u participants (%u kept), %u slots (filling %u zombie %u ready %u leased "
                       "%u delayed %u), %u letters, %u entries in the free ring, %llu bytes",
                       l.participants, l.kept, l.slots, l.states[1], l.states[2], l.states[3],
                       l.states[4], l.states[5], l.letters, l.in_ring, (unsigned long long)l.bytes);
    return free;
}

static void sum_up(struct campaign *c)
{
    for (unsigned i = 0; i < REMOTE_ACTORS; i++) {
        struct remote_actor *a = actor(c, i);
        _Atomic uint64_t *const from[] = {&a->accepted, &a->told, &a->ran, &a->dead,
                                          &a->cancelled, &a->ended, &a->taken_up, &a->links};
        for (size_t k = 0; k < sizeof from / sizeof *from; k++)
            c->sums[k] += at_swap(from[k], 0);
    }
}

static bool one_round(struct campaign *c, uint32_t until)
{
    struct remote_stage *st = c->st;
    bool fine = true;
    at_store(&st->stop, 0);
    at_store(&st->next, 0);
    memset((void *)st->note, 0, sizeof st->note);
    memset((void *)st->runner, 0, sizeof st->runner);
    st->taken_along = 0;
    st->round = c->rounds;
    for (unsigned i = 0; fine && i < REMOTE_ACTORS; i++)
        fine = actor_start(c, i, NULL, 0);
    while (fine && c->kills < until && at_load(&st->next) < NOTES_MAX / 2)
        fine = one_kill(c);
    crash_order(c->plan, "", 0);
    at_store(&st->stop, 1);
    fine = fine && actors_finish(c, 0, LOCAL_PRODUCER + 1);
    at_store(&st->stop, 3);
    fine = fine && actors_finish(c, LOCAL_PRODUCER + 1, REMOTE_ACTORS);
    remote_check_told(st);
    fine = fine && nothing_leaks(c);
    sum_up(c);
    c->rounds++;
    return fine && !at_load(&st->trouble);
}

/* ---- start and report ---- */

/* A port that nobody has now. fabricd must come back at the same one each time. */
static int free_port(uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 ||
                     getsockname(fd, (struct sockaddr *)&a, &len) < 0
                 ? -errno
                 : 0;
    *port = ntohs(a.sin_port);
    if (fd >= 0)
        close(fd);
    return rc;
}

static int prepare(struct campaign *c)
{
    struct remote_stage *st = c->st;
    strcpy(c->dir, "/tmp/fabric-crash-XXXXXX");
    if (!mkdtemp(c->dir))
        return -errno;
    snprintf(c->conf, sizeof c->conf, "%s/node.toml", c->dir);
    snprintf(c->plan_path, sizeof c->plan_path, "%s/plan", c->dir);
    snprintf(st->local, sizeof st->local, "unix:%s/fabricd.sock", c->dir);
    snprintf(st->key, sizeof st->key, "%s/authkey", c->dir);
    int rc = free_port(&c->port);
    if (rc < 0)
        return rc;
    snprintf(st->remote, sizeof st->remote, "tcp://127.0.0.1:%u", c->port);
    int fd = open(c->plan_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 4096) < 0)
        return -errno;
    c->plan = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return c->plan == MAP_FAILED ? -errno : 0;
}

static void clean_up(struct campaign *c)
{
    static const char *const names[] = {"node.toml", "plan", "authkey", "fabricd.sock",
                                        "fabricd.sock.keep"};
    char path[160];
    for (unsigned i = 0; i < REMOTE_ACTORS; i++)
        if (actor(c, i)->pid > 0) {
            kill(actor(c, i)->pid, SIGKILL);
            (void)actor_bury(c, i);
        }
    if (c->fabricd > 0) {
        kill(c->fabricd, SIGTERM);
        if (!dies_within(c->fabricd_fd, 15000)) {
            remote_trouble(c->st, "fabricd does not drain");
            kill(c->fabricd, SIGKILL);
        }
        fabricd_bury(c);
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", c->dir, names[i]);
        unlink(path);
    }
    rmdir(c->dir);
}

static int report(const struct campaign *c)
{
    uint32_t never = 0;
    printf("seed %llu: %u kills in %u rounds: %u at crash points, %u at random moments, %u by their "
           "task; %u of fabricd, %u in pairs\n",
           (unsigned long long)c->st->seed, c->kills, c->rounds, c->at_points, c->at_random,
           c->poisoned, c->of_fabricd, c->pairs);
    printf("%llu tasks accepted, %llu outcomes (%llu dead, %llu cancelled, %llu expired or overrun, %llu "
           "duplicates), %llu results computed; %llu links made; %llu tasks taken up by the client id, "
           "%llu outcomes told again to it\n",
           (unsigned long long)c->sums[0], (unsigned long long)c->sums[1],
           (unsigned long long)c->sums[3], (unsigned long long)c->sums[4],
           (unsigned long long)c->sums[5], (unsigned long long)at_load(&c->st->duplicates),
           (unsigned long long)c->sums[2], (unsigned long long)c->sums[7],
           (unsigned long long)c->sums[6], (unsigned long long)at_load(&c->st->told_again));
    printf("deaths at each point:");
    for (uint32_t i = 0; i < c->points; i++) {
        never += c->point[i].tried > 0 && c->point[i].fired == 0;
        if (c->point[i].tried)
            printf(" %s %u/%u", c->point[i].name, c->point[i].fired, c->point[i].tried);
    }
    printf("\n%u points were tried and not died at; %llu sleeps ended by time with work there\n", never,
           (unsigned long long)c->net_catches);
    if (at_load(&c->st->trouble)) {
        printf("BROKEN: %s\n", c->st->what);
        return 1;
    }
    printf("0 lost, 0 answered twice, 0 wedged, 0 leaked\n");
    return 0;
}

int main(int argc, char **argv)
{
    static struct campaign c;
    if (argc < 5) {
        fprintf(stderr, "usage: campaign-remote BUILD_DIR SEED KILLS POINT...\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    c.st = mmap(NULL, sizeof *c.st, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (c.st == MAP_FAILED)
        return 1;
    c.build = argv[1];
    c.st->seed = strtoull(argv[2], NULL, 10);
    c.dice = c.st->seed * 0x9e3779b97f4a7c15ull + 1;
    uint32_t kills = (uint32_t)strtoul(argv[3], NULL, 10);
    for (int i = 4; i < argc && c.points < POINTS_MAX; i++)
        c.point[c.points++].name = argv[i];
    ofi_warm(); /* a third of a second that every actor would need */
    int rc = prepare(&c);
    if (rc < 0 || !fabricd_start(&c)) {
        fprintf(stderr, "campaign-remote: it can't start: %s\n", strerror(-rc));
        clean_up(&c);
        return 1;
    }
    while (c.kills < kills &&
           one_round(&c, c.kills + ROUND_KILLS < kills ? c.kills + ROUND_KILLS : kills))
        ;
    clean_up(&c);
    return report(&c);
}
