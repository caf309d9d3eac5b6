/* SPDX-License-Identifier: MIT
 *
 * campaign.c - kills producers, workers and fabricd at every named crash point and at random
 * moments, alone and in pairs, while they work, and checks after each round that nothing was lost,
 * answered twice, wedged or leaked.
 *
 * A round: actors run; `KILLS` deaths; then all finish, and the segment must be exactly as empty as
 * it was. The actors check every task they see (actors.c). Seeds make the choice of victims and
 * points repeatable; when exactly a process dies at a random kill is the scheduler's.
 *
 * Usage: campaign BUILD_DIR SEED KILLS POINT...     (tests/crash/campaign-run finds the points)
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "core/dedup.h"
#include "core/fabric.h"
#include "core/local.h"
#include "tests/common/dice.h"
#include "tests/crash/actors.h"
#include "tests/crash/driver.h"

#define ROUND_KILLS 100
#define PATIENCE_MS 40 /* for a victim to come by its crash point */
#define SETTLE_NS   10000000000ull
#define FABRICD     ACTORS /* the victim's number */

struct campaign {
    struct stage *st;
    struct crash_fabricd fabricd;
    uint64_t dice;
    struct deaths deaths;
    struct point *on_its_way_up; /* where the next fabricd shall die while it starts */
    bool died_on_its_way_up;
    uint32_t rounds;
    uint64_t net_catches, late, ended, accepted, answered, ran, dead, cancelled, taken_up;
};

/* Again and again: it may have been told to die on its way up. */
static bool fabricd_restart(struct campaign *c)
{
    c->died_on_its_way_up = false;
    for (int i = 0; i < 20; i++) {
        fabricd_bury(&c->fabricd);
        c->died_on_its_way_up |= i > 0 && at_load(&c->fabricd.plan->fired);
        if (i > 0)
            crash_order(c->fabricd.plan, "", 0);
        if (fabricd_start(&c->fabricd))
            return true;
        fabricd_kill(&c->fabricd);
    }
    stage_trouble(c->st, "fabricd does not start any more");
    return false;
}

/* ---- actors ---- */

static bool actor_start(struct campaign *c, unsigned i)
{
    struct actor *a = &c->st->actor[i];
    crash_order(&a->plan, "", 0);
    at_store(&a->working, 0);
    a->life++;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(actor_run(c->st, i));
    }
    a->pid = pid;
    a->pidfd = pidfd_of(pid);
    return a->pidfd >= 0;
}

/* Its exit status, -1: by a signal. */
static int actor_bury(struct campaign *c, unsigned i)
{
    int status = 0;
    waitpid(c->st->actor[i].pid, &status, 0);
    close(c->st->actor[i].pidfd);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- killing ---- */

/* A point that this victim may come by: the less often it was tried, the likelier. */
static struct point *choose_point_of(struct campaign *c, unsigned victim)
{
    static const char *const producers[] = {"submit.", "take.",  "cancel.", "ring.p", "slot.",
                                            "dedup.",  "room.w", "wake.",   "arena.", "attach.",
                                            "detach.", "queue.", "dead.",   NULL};
    static const char *const workers[] = {"room.",   "claim.",  "complete.", "release.", "park.",
                                          "lease.",  "crash.",  "ring.",     "bell.",    "arena.",
                                          "attach.", "detach.", "dead.",     NULL};
    static const char *const daemons[] = {"undertaker.", "participant.", "adopt.",     "doorman.",
                                          "timers.",     "ring.",        "slot.freed", "room.",
                                          "arena.f",     "dead.",        NULL};
    const char *const *own = victim == FABRICD ? daemons : victim < PRODUCERS ? producers : workers;
    return choose_point(&c->deaths, &c->dice, own);
}

static struct crash_plan *plan_of(struct campaign *c, unsigned victim)
{
    return victim == FABRICD ? c->fabricd.plan : &c->st->actor[victim].plan;
}

static void order(struct campaign *c, unsigned victim, struct point *p)
{
    static const char *const rare[] = {"dedup.",  "dead.",      "room.",   "attach.", "detach.",
                                       "arena.r", "complete.o", "lease.o", "crash.t", NULL};
    uint32_t nth =
        1 + (uint32_t)(roll(&c->dice) % (victim == FABRICD || is_of(p->name, rare) ? 2 : 24));
    p->tried++;
    crash_order(plan_of(c, victim), p->name, nth);
}

/* Waits for the victim to die at its point, or kills it now. */
static void victim_ends(struct campaign *c, unsigned victim, struct point *p)
{
    bool daemon = victim == FABRICD;
    see_off(&c->deaths, daemon ? c->fabricd.pid : c->st->actor[victim].pid,
            daemon ? c->fabricd.pidfd : c->st->actor[victim].pidfd, plan_of(c, victim), p,
            PATIENCE_MS, daemon);
}

static bool revive(struct campaign *c, unsigned victim)
{
    if (victim == FABRICD) {
        struct point *p = c->on_its_way_up;
        c->on_its_way_up = NULL;
        crash_order(c->fabricd.plan, p ? p->name : "", 1);
        if (!fabricd_restart(c))
            return false;
        if (p) {
            p->tried++;
            p->fired += c->died_on_its_way_up;
            c->deaths.at_points += c->died_on_its_way_up;
            c->deaths.kills += c->died_on_its_way_up;
            c->deaths.of_fabricd += c->died_on_its_way_up;
        }
        return true;
    }
    int status = actor_bury(c, victim);
    if (status > 0) /* it ended by itself, with trouble */
        return false;
    return actor_start(c, victim);
}

/* Workers that a poisoned task has killed. */
static bool revive_poisoned(struct campaign *c)
{
    for (unsigned i = 0; i < ACTORS; i++) {
        if (!dies_within(c->st->actor[i].pidfd, 0))
            continue;
        c->deaths.kills++;
        c->deaths.poisoned++;
        if (!revive(c, i))
            return false;
    }
    return true;
}

static bool one_kill(struct campaign *c)
{
    if (!revive_poisoned(c))
        return false;
    unsigned victim[2] = {(unsigned)(roll(&c->dice) % (ACTORS * 8 + 6) / 8), 0}, n = 1;
    struct point *p[2];
    if (roll(&c->dice) % 5 == 0) {
        victim[1] = (unsigned)(roll(&c->dice) % (ACTORS * 8 + 6) / 8);
        n = victim[1] != victim[0] ? 2 : 1;
    }
    c->deaths.pairs += n == 2;
    for (unsigned i = 0; i < n; i++) {
        p[i] = roll(&c->dice) % 4 ? choose_point_of(c, victim[i]) : NULL;
        if (victim[i] == FABRICD && p[i] && strncmp(p[i]->name, "adopt.", 6) == 0) {
            c->on_its_way_up = p[i];
            p[i] = NULL;
        }
        if (p[i])
            order(c, victim[i], p[i]);
    }
    if (n == 1 && victim[0] == FABRICD && p[0]) { /* the undertaker needs somebody to bury */
        victim[n++] = (unsigned)(roll(&c->dice) % ACTORS);
        p[1] = p[0];
        p[0] = NULL;
        victim[0] = victim[1];
        victim[1] = FABRICD;
    }
    if (!p[0]) { /* a random moment of the next two milliseconds */
        struct timespec t = {.tv_nsec = (long)(roll(&c->dice) % 2000000)};
        nanosleep(&t, NULL);
    }
    for (unsigned i = 0; i < n; i++)
        victim_ends(c, victim[i], p[i]);
    for (unsigned i = 0; i < n; i++)
        if (!revive(c, victim[i]))
            return false;
    return at_load(&c->st->trouble) == 0;
}

/* ---- the end of a round ---- */

/* While actor i ends: the workers behind it are needed. */
static bool revive_poisoned_workers(struct campaign *c, unsigned i)
{
    for (unsigned k = i + 1 < PRODUCERS ? PRODUCERS : i + 1; k < ACTORS; k++)
        if (k >= PRODUCERS && dies_within(c->st->actor[k].pidfd, 0) &&
            (at_load(&c->st->stop) & 2) == 0) {
            c->deaths.kills++;
            c->deaths.poisoned++;
            if (!revive(c, k))
                return false;
        }
    return true;
}

static bool actors_finish(struct campaign *c, unsigned from, unsigned to)
{
    bool fine = true;
    for (unsigned i = from; i < to; i++) {
        bool ended = false;
        for (int ms = 0; !ended && ms < 60000 && revive_poisoned_workers(c, i); ms += 100)
            ended = dies_within(c->st->actor[i].pidfd, 100);
        if (!ended) {
            stage_trouble(c->st, "%s %u does not end", i < PRODUCERS ? "producer" : "worker", i);
            kill(c->st->actor[i].pid, SIGKILL);
        }
        int status = actor_bury(c, i);
        if (status < 0 && i >= PRODUCERS && !at_load(&c->st->trouble)) {
            c->deaths.kills++; /* its task was poisoned */
            c->deaths.poisoned++;
            fine = actor_start(c, i--) && fine;
        } else if (status != 0) {
            stage_trouble(c->st, "%s %u ended badly", i < PRODUCERS ? "producer" : "worker", i);
            fine = false;
        }
    }
    return fine;
}

/* Runs what is left: tasks whose producers died, and tasks nobody waits for; then throws the dead
 * letters away. */
static void run_rest(struct stage *st, fab_t *f)
{
    struct fab_lease l[32];
    long k;
    while ((k = fab_claim(f, 0, l, 32, 200000000)) > 0)
        for (long i = 0; i < k; i++) {
            uint32_t n;
            memcpy(&n, fab_arg(&l[i]), 4);
            stage_started(st, n);
            (void)!fab_fail(f, &l[i], "wanted");
        }
    (void)!fab_dead_purge(f, 0, FAB_ANY_QUEUE, 0);
}

/* Everybody has gone: is every slot, block and entry free again? fabricd may still be burying. */
static bool nothing_leaks(struct campaign *c)
{
    struct fab_options o = {.roles = FAB_WORKER, .name = "auditor"};
    struct leak l;
    fab_t *f = NULL;
    bool free = false;
    for (uint64_t until = clock_ns() + SETTLE_NS; !free && clock_ns() < until;) {
        if (fab_open(&f, c->st->address, &o) < 0) {
            stage_trouble(c->st, "the auditor: %s", fab_errmsg());
            return false;
        }
        run_rest(c->st, f);
        struct local *h = (struct local *)f;
        slot_stock_shrink(h->seg, &h->stock, h->me, 0);
        if (at_load(&h->seg->head->damage))
            stage_trouble(c->st, "%llu words taken for damaged",
                          (unsigned long long)at_load(&h->seg->head->damage));
        c->late = at_load(&h->seg->head->late_results);
        /* one may be a waker that was not given the processor for a hundred milliseconds */
        if (at_load(&h->seg->head->net_catches) > 1 + c->deaths.kills / 200)
            stage_trouble(c->st, "wake-ups are lost: %llu sleeps ended by time with work there",
                          (unsigned long long)at_load(&h->seg->head->net_catches));
        c->net_catches = at_load(&h->seg->head->net_catches);
        for (int i = 0; i < 600 && !(free = all_free(h->seg, &l, false)); i++)
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        fab_close(f);
    }
    if (!free)
        stage_trouble(
            c->st,
            "a leak: %u participants, %u slots (free %u filling %u zombie %u ready %u leased "
            "%u delayed %u buried %u done %u failed %u cancelled %u dead %u expired %u overrun "
            "%u duplicate %u), %u entries in the free ring, %u letters "
            "by the counter, %llu bytes",
            l.participants, l.slots, l.states[0], l.states[1], l.states[2], l.states[3],
            l.states[4], l.states[5], l.states[6], l.states[7], l.states[8], l.states[9],
            l.states[10], l.states[11], l.states[12], l.states[13], l.in_ring, l.letters,
            (unsigned long long)l.bytes);
    return free;
}

/* Everything is done: of each key a task was started if one was accepted, and no entry is half
 * made. */
static void check_keys(struct campaign *c)
{
    struct fab_options o = {.roles = FAB_TOOL, .name = "auditor"};
    fab_t *f = NULL;
    for (uint32_t k = 0; k < KEYS_MAX; k++)
        if (at_load(&c->st->promised[k]) && !at_load(&c->st->runner[k]))
            stage_trouble(c->st, "tasks with key %u were accepted, and none was run", k);
    if (fab_open(&f, c->st->address, &o) < 0)
        return;
    const struct segment *s = ((struct local *)f)->seg;
    for (uint32_t i = 0; i < s->dedup_keys; i++) {
        uint64_t w = at_load(&s->key[i].word);
        if (key_state(w) != KEY_FREE && key_state(w) != KEY_HELD)
            stage_trouble(c->st, "key %u is left half made: %#llx", i, (unsigned long long)w);
    }
    fab_close(f);
}

static bool one_round(struct campaign *c, uint32_t kills)
{
    struct stage *st = c->st;
    bool fine = true;
    at_store(&st->stop, 0);
    at_store(&st->next, 0);
    memset((void *)st->answered, 0, sizeof st->answered);
    memset((void *)st->ran, 0, sizeof st->ran);
    memset((void *)st->promised, 0, sizeof st->promised);
    memset((void *)st->runner, 0, sizeof st->runner);
    st->round = c->rounds;
    for (unsigned i = 0; fine && i < ACTORS; i++)
        fine = actor_start(c, i);
    for (uint32_t until = c->deaths.kills + kills; fine && c->deaths.kills < until;)
        fine = one_kill(c) && at_load(&st->next) < TASKS_MAX / 2;
    if (!at_load(&st->trouble) && at_load(&st->next) >= TASKS_MAX / 2)
        fine = true; /* out of numbers: the round ends early */
    crash_order(c->fabricd.plan, "", 0);
    at_store(&st->stop, 1);
    fine = actors_finish(c, 0, PRODUCERS) && fine;
    at_store(&st->stop, 3);
    fine = actors_finish(c, PRODUCERS, ACTORS) && fine;
    fine = fine && nothing_leaks(c);
    if (fine)
        check_keys(c);
    for (unsigned i = 0; i < ACTORS; i++) {
        struct actor *a = &st->actor[i];
        c->accepted += at_swap(&a->accepted, 0);
        c->answered += at_swap(&a->answered, 0);
        c->ran += at_swap(&a->ran, 0);
        c->dead += at_swap(&a->dead, 0);
        c->cancelled += at_swap(&a->cancelled, 0);
        c->ended += at_swap(&a->ended, 0);
        c->taken_up += at_swap(&a->taken_up, 0);
        (void)at_swap(&a->failed, 0);
    }
    c->rounds++;
    return fine && !at_load(&st->trouble);
}

/* ---- start and report ---- */

static int prepare(struct campaign *c)
{
    int rc = fabricd_prepare(&c->fabricd);
    if (rc < 0)
        return rc;
    snprintf(c->st->address, sizeof c->st->address, "unix:%s/fabricd.sock", c->fabricd.dir);
    FILE *f = fopen(c->fabricd.conf, "we");
    if (!f)
        return -errno;
    fprintf(f,
            "[node]\nruntime_dir = \"%s\"\nstate_dir = \"%s\"\nlog_level = \"info\"\n[listen]\n"
            "address = \"\"\n[segment]\nslots = 256\nparticipants = 16\narena = \"16MiB\"\n"
            "producer_share = 60\n" /* a bit over WINDOW and the stock: some submits wait */
            "dead_letters = 32\nkeep = \"60s\"\n"
            "dedup_keys = 262144\n", /* a key's window is longer than most campaigns */
            c->fabricd.dir, c->fabricd.dir);
    return fclose(f) == 0 ? 0 : -errno;
}

static void clean_up(struct campaign *c)
{
    if (!fabricd_end(&c->fabricd, 5000))
        stage_trouble(c->st, "fabricd does not drain");
}

static int report(const struct campaign *c)
{
    uint32_t never = 0;
    for (uint32_t i = 0; i < c->deaths.points; i++)
        never += c->deaths.point[i].fired == 0;
    printf("seed %llu: %u kills in %u rounds: %u at crash points, %u at random moments, %u "
           "by their task; %u of fabricd, %u in pairs\n",
           (unsigned long long)c->st->seed, c->deaths.kills, c->rounds, c->deaths.at_points,
           c->deaths.at_random, c->deaths.poisoned, c->deaths.of_fabricd, c->deaths.pairs);
    printf("%llu tasks accepted, %llu outcomes (%llu cancelled, %llu dead, %llu expired or "
           "overrun), %llu results computed, %llu late ones dropped; %llu taken up by client id\n",
           (unsigned long long)c->accepted, (unsigned long long)c->answered,
           (unsigned long long)c->cancelled, (unsigned long long)c->dead,
           (unsigned long long)c->ended, (unsigned long long)c->ran, (unsigned long long)c->late,
           (unsigned long long)c->taken_up);
    printf("%llu tasks were duplicates\n", (unsigned long long)at_load(&c->st->duplicates));
    printf("deaths at each point:");
    for (uint32_t i = 0; i < c->deaths.points; i++)
        printf(" %s %u%s", c->deaths.point[i].name, c->deaths.point[i].fired,
               i + 1 < c->deaths.points ? "," : "\n");
    printf("%llu sleeps ended by time with work there\n", (unsigned long long)c->net_catches);
    if (never)
        printf("%u of %u points were not died at\n", never, c->deaths.points);
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
        fprintf(stderr, "usage: campaign BUILD_DIR SEED KILLS POINT...\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    c.st = mmap(NULL, sizeof *c.st, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (c.st == MAP_FAILED)
        return 1;
    c.fabricd.build = argv[1];
    c.st->seed = strtoull(argv[2], NULL, 10);
    c.dice = c.st->seed * 0x9e3779b97f4a7c15ull + 1;
    uint32_t kills = (uint32_t)strtoul(argv[3], NULL, 10);
    for (int i = 4; i < argc && c.deaths.points < POINTS_MAX; i++)
        c.deaths.point[c.deaths.points++].name = argv[i];
    int rc = prepare(&c);
    if (rc < 0 || !fabricd_start(&c.fabricd)) {
        fprintf(stderr, "campaign: it can't start: %s\n", strerror(-rc));
        clean_up(&c);
        return 1;
    }
    while (c.deaths.kills < kills && one_round(&c, ROUND_KILLS))
        ;
    for (unsigned i = 0; i < ACTORS; i++)
        if (c.st->actor[i].pid > 0 && waitpid(c.st->actor[i].pid, NULL, WNOHANG) == 0) {
            kill(c.st->actor[i].pid, SIGKILL);
            waitpid(c.st->actor[i].pid, NULL, 0);
        }
    clean_up(&c);
    return report(&c);
}
