/* SPDX-License-Identifier: MIT
 *
 * remote_campaign.c - as campaign.c, but over links: kills remote producers and workers, local ones
 * beside them, and fabricd, at the named crash points of lanes, handshakes, links and their
 * resumption and at random moments, alone and in pairs, on tcp over loopback; remote.h says what
 * must hold for every task. At the end of a round the segment must be exactly empty.
 *
 * Seeds make the choice of victims and points repeatable; when exactly a process dies at a random
 * kill is the scheduler's.
 *
 * Usage: campaign-remote BUILD_DIR SEED KILLS POINT...  (tests/crash/campaign-remote-run finds the
 * points)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "core/local.h"
#include "tests/crash/remote_campaign.h"
#include "transport/ofi_load.h"

#define ROUND_KILLS 150
#define SETTLE_NS   30000000000ull

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
            c->deaths.kills++; /* its task was poisoned */
            c->deaths.poisoned++;
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

static void check_words(struct campaign *c, const struct segment *s)
{
    if (at_load(&s->head->damage))
        remote_trouble(c->st, "%llu words taken for damaged",
                       (unsigned long long)at_load(&s->head->damage));
    c->net_catches = at_load(&s->head->net_catches);
    /* some may be wakers that were not given the processor for a hundred milliseconds */
    if (c->net_catches > 1 + c->deaths.kills / 100)
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
        for (int i = 0; i < 100 && !(free = all_free(h->seg, &l, true)); i++)
            nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        check_words(c, h->seg);
        fab_close(f);
    }
    if (!free)
        remote_trouble(
            c->st,
            "a leak: %u participants (%u kept), %u slots (filling %u zombie %u ready %u leased "
            "%u delayed %u), %u letters, %u entries in the free ring, %llu bytes",
            l.participants, l.kept, l.slots, l.states[1], l.states[2], l.states[3], l.states[4],
            l.states[5], l.letters, l.in_ring, (unsigned long long)l.bytes);
    return free;
}

static void sum_up(struct campaign *c)
{
    for (unsigned i = 0; i < REMOTE_ACTORS; i++) {
        struct remote_actor *a = actor(c, i);
        _Atomic uint64_t *const from[] = {&a->accepted,  &a->told,  &a->ran,      &a->dead,
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
    while (fine && c->deaths.kills < until && at_load(&st->next) < NOTES_MAX / 2)
        fine = one_kill(c);
    crash_order(c->fabricd.plan, "", 0);
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
    int rc = fabricd_prepare(&c->fabricd);
    rc = rc < 0 ? rc : free_port(&c->port);
    snprintf(st->local, sizeof st->local, "unix:%s/fabricd.sock", c->fabricd.dir);
    snprintf(st->key, sizeof st->key, "%s/authkey", c->fabricd.dir);
    snprintf(st->remote, sizeof st->remote, "tcp://127.0.0.1:%u", c->port);
    return rc;
}

static void clean_up(struct campaign *c)
{
    for (unsigned i = 0; i < REMOTE_ACTORS; i++)
        if (c->st->actor[i].pid > 0) {
            kill(c->st->actor[i].pid, SIGKILL);
            (void)actor_bury(c, i);
        }
    if (!fabricd_end(&c->fabricd, 15000))
        remote_trouble(c->st, "fabricd does not drain");
}

static int report(const struct campaign *c)
{
    uint32_t never = 0;
    printf(
        "seed %llu: %u kills in %u rounds: %u at crash points, %u at random moments, %u by their "
        "task; %u of fabricd, %u in pairs\n",
        (unsigned long long)c->st->seed, c->deaths.kills, c->rounds, c->deaths.at_points,
        c->deaths.at_random, c->deaths.poisoned, c->deaths.of_fabricd, c->deaths.pairs);
    printf("%llu tasks accepted, %llu outcomes (%llu dead, %llu cancelled, %llu expired or "
           "overrun, %llu "
           "duplicates), %llu results computed; %llu links made; %llu tasks taken up by the client "
           "id, "
           "%llu outcomes told again to it\n",
           (unsigned long long)c->sums[0], (unsigned long long)c->sums[1],
           (unsigned long long)c->sums[3], (unsigned long long)c->sums[4],
           (unsigned long long)c->sums[5], (unsigned long long)at_load(&c->st->duplicates),
           (unsigned long long)c->sums[2], (unsigned long long)c->sums[7],
           (unsigned long long)c->sums[6], (unsigned long long)at_load(&c->st->told_again));
    printf("deaths at each point:");
    for (uint32_t i = 0; i < c->deaths.points; i++) {
        never += c->deaths.point[i].tried > 0 && c->deaths.point[i].fired == 0;
        if (c->deaths.point[i].tried)
            printf(" %s %u/%u", c->deaths.point[i].name, c->deaths.point[i].fired,
                   c->deaths.point[i].tried);
    }
    printf("\n%u points were tried and not died at; %llu sleeps ended by time with work there\n",
           never, (unsigned long long)c->net_catches);
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
    c.fabricd.build = argv[1];
    c.st->seed = strtoull(argv[2], NULL, 10);
    c.dice = c.st->seed * 0x9e3779b97f4a7c15ull + 1;
    uint32_t kills = (uint32_t)strtoul(argv[3], NULL, 10);
    for (int i = 4; i < argc && c.deaths.points < POINTS_MAX; i++)
        c.deaths.point[c.deaths.points++].name = argv[i];
    ofi_warm(); /* a third of a second that every actor would need */
    int rc = prepare(&c);
    if (rc < 0 || !conf_and_start(&c)) {
        fprintf(stderr, "campaign-remote: it can't start: %s\n", strerror(-rc));
        clean_up(&c);
        return 1;
    }
    while (
        c.deaths.kills < kills &&
        one_round(&c, c.deaths.kills + ROUND_KILLS < kills ? c.deaths.kills + ROUND_KILLS : kills))
        ;
    clean_up(&c);
    return report(&c);
}
