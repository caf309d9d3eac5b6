/* SPDX-License-Identifier: MIT
 *
 * scenes.c - remote workers of different speed, with long tasks among short ones, and stopped ones:
 * who gets which task, and when (apps/fabricd/pulse.h, transport/remote_flow.c). See scenes.h.
 *
 * Kernels here only let time pass and call nothing, like one that computes. Times are those that a
 * real fabricd has by default.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "apps/fabricd/pulse.h"
#include "core/error.h"
#include "tests/sim/scenes.h"
#include "tests/sim/world.h"
#include "transport/remote.h"

#define US      1000ull
#define MS      1000000ull
#define S       1000000000ull
#define CLAIM   32u
#define PHASES  3u
#define WORKERS 2u

/* So many tasks of this time (for a worker of speed 1), after all before are answered. at: the k-th
 * task of a phase takes long_ns instead. */
struct phase {
    uint32_t tasks;
    uint64_t ns, long_ns;
    uint32_t at;
};

struct scene {
    const char *name;
    struct phase phase[PHASES];
    uint32_t slower[WORKERS];  /* 0: there is no such worker */
    uint64_t join[WORKERS];    /* when it comes */
    uint64_t stop_at, stop_ns; /* the first worker is stopped: after the last phase has begun */
    void (*check)(const struct scene *s);
};

static struct {
    const struct scene *scene;
    uint64_t begun[PHASES], first[PHASES],
        last[PHASES]; /* of the submit; of short tasks' outcomes */
    uint64_t last_but_one[PHASES];
    uint64_t before_ns; /* the last outcome of those before the long one */
    uint64_t long_at;   /* the long one's */
    uint32_t done[WORKERS], begins[WORKERS];
    uint32_t links_lost;
    bool all_in; /* the last phase has been submitted */
} play;

/* ---- actors ---- */

static uint64_t time_of(const struct phase *p, uint32_t i)
{
    return p->long_ns && i == p->at ? p->long_ns : p->ns;
}

static void note_outcome(uint32_t phase, uint32_t i)
{
    const struct phase *p = &play.scene->phase[phase];
    uint64_t now = sim_now();
    if (p->long_ns && i == p->at) {
        play.long_at = now;
        return;
    }
    if (p->long_ns && i < p->at)
        play.before_ns = now;
    if (!play.first[phase])
        play.first[phase] = now;
    play.last_but_one[phase] = play.last[phase];
    play.last[phase] = now;
}

static void run_phase(fab_t *f, uint32_t handle, uint32_t phase)
{
    const struct phase *p = &play.scene->phase[phase];
    uint32_t *number = calloc(p->tasks, sizeof *number), back = 0;
    struct fab_outcome o[32];
    uint8_t arg[8];
    play.begun[phase] = sim_now();
    for (uint32_t i = 0; i < p->tasks; i++) {
        struct fab_task t = {.kernel = time_of(p, i), .len = 8};
        fab_id id;
        number[i] = oracle_offer(handle, &t, arg);
        if (fab_submit(f, &t, 1, &id, FAB_FOREVER) != 1)
            sim_fail("submit: %s", fab_errmsg());
        oracle_accepted(number[i]);
    }
    (void)!fab_flush(f);
    play.all_in = phase + 1 == PHASES || play.scene->phase[phase + 1].tasks == 0;
    while (back < p->tasks) {
        long n = fab_wait_any(f, o, 32, FAB_FOREVER);
        if (n < 0)
            sim_fail("wait: %s", fab_errmsg());
        for (long k = 0; k < n; k++) {
            oracle_outcome(handle, &o[k]);
            note_outcome(phase, ((uint32_t)o[k].tag ^ 0x5555) - number[0]);
        }
        back += (uint32_t)n;
    }
    free(number);
}

static fab_t *enter(const char *name, uint32_t roles)
{
    struct fab_options opts = {.roles = roles, .flags = FAB_BEGINS, .name = name, .spin_ns = -1};
    fab_t *f;
    while (remote_open(&f, "tcp", "sim", "1", &opts) < 0)
        sim_sleep(10 * MS);
    return f;
}

static void producer_body(struct actor *a)
{
    fab_t *f = enter(a->name, FAB_PRODUCER);
    uint32_t handle = oracle_handle(true);
    sim_sleep(MS); /* workers that are there from the beginning are there */
    for (uint32_t i = 0; i < PHASES && play.scene->phase[i].tasks; i++)
        run_phase(f, handle, i);
    oracle_drained(handle);
    world.producers_done++;
    fab_close(f);
}

static int run_one(fab_t *f, const struct fab_lease *l, uint32_t me)
{
    uint8_t result[256];
    int rc = fab_begin(f, l);
    if (rc == -ESTALE)
        world.asked_back++;
    if (rc < 0)
        return rc;
    oracle_begin(l);
    play.begins[me]++;
    sim_sleep(l->kernel * play.scene->slower[me]);
    rc = fab_complete(f, l, result, oracle_result(l, result, sizeof result));
    play.done[me] += rc == 0;
    return rc;
}

static void worker_body(struct actor *a)
{
    uint32_t me = (uint32_t)(uintptr_t)a->arg;
    struct fab_lease l[CLAIM];
    uint32_t batch = 1;
    fab_t *f = enter(a->name, FAB_WORKER);
    while (!world.stop) {
        /* as fabworker's adapt() (thread.c), roughly */
        uint64_t start = sim_now();
        long n = fab_claim(f, 0, l, batch, 10 * (int64_t)MS);
        for (long i = 0; i < n; i++)
            (void)!run_one(f, &l[i], me);
        if (n > 0)
            batch = (sim_now() - start) / (uint64_t)n > 20 * US ? 1
                    : batch < CLAIM                             ? 2 * batch
                                                                : CLAIM;
        if (n == -EPIPE) {
            play.links_lost++;
            fab_close(f);
            f = enter(a->name, FAB_WORKER);
        }
    }
    fab_close(f);
}

static void fate_body(struct actor *a)
{
    const struct scene *s = play.scene;
    (void)a;
    while (!play.all_in)
        sim_sleep(10 * US);
    sim_sleep(s->stop_at);
    actor_stop(0, s->stop_ns);
}

/* ---- what must come out ---- */

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

static void within(const char *what, uint64_t ns, uint64_t most)
{
    printf("  %s: %.3f ms, at most %.3f\n", what, ms(ns), ms(most));
    if (ns > most)
        sim_fail("%s took %.3f ms, over %.3f", what, ms(ns), ms(most));
}

/* The least time for n tasks of ns by both workers. */
static uint64_t least_ns(const struct scene *s, uint32_t n, uint64_t ns)
{
    uint64_t t = ns;
    while (t / (ns * s->slower[0]) + t / (ns * s->slower[1]) < n)
        t += ns;
    return t;
}

static void check_fair(const struct scene *s)
{
    const struct phase *p = &s->phase[1];
    uint64_t least = least_ns(s, p->tasks, p->ns), took = play.last[1] - play.begun[1];
    within("two workers, one ten times slower", took, least + least / 10);
    printf("  that is %.3f times the least; the slow one did %u\n", (double)took / (double)least,
           play.done[1]);
}

static void check_long(const struct scene *s)
{
    within("short tasks before the long one", play.before_ns - play.begun[1], 10 * MS);
    within("short tasks behind it", play.last[1] - play.begun[1], 10 * MS);
    within("the long one", play.long_at - play.begun[1], s->phase[1].long_ns + 10 * MS);
    if (world.mute_deaths)
        sim_fail("a worker that computes was taken for dead");
}

/* One worker alone: nothing can be run beside the long one, but what was done is told. */
static void check_alone(const struct scene *s)
{
    within("short tasks before the long one", play.before_ns - play.begun[1], 30 * MS);
    within("all of them", play.last[1] - play.begun[1], s->phase[1].long_ns + 10 * MS);
    if (world.mute_deaths || play.links_lost)
        sim_fail("a worker that computes was taken for dead");
}

static void check_stopped(const struct scene *s)
{
    const struct pulse_conf c = {.heartbeat_ns = world.heartbeat,
                                 .dead_after_ns = world.dead_after};
    (void)s;
    /* all but the one it was at; and that one when its link has ended */
    uint64_t end = c.dead_after_ns + S;
    within("a stopped worker's tasks, but the one it was at", play.last_but_one[1] - play.begun[1],
           2 * world.heartbeat);
    within("all of them", play.last[1] - play.begun[1], end);
    printf("  %llu leases were revoked\n", (unsigned long long)world.revoked);
    if (world.mute_deaths != 1 || world.revoked == 0)
        sim_fail("%llu links ended for want of an answer, %llu leases were revoked",
                 (unsigned long long)world.mute_deaths, (unsigned long long)world.revoked);
}

static void check_paused(const struct scene *s)
{
    (void)s;
    within("a paused worker's tasks, but the one it was at", play.last_but_one[1] - play.begun[1],
           2 * world.heartbeat);
    within("all of them", play.last[1] - play.begun[1], world.dead_after);
    printf("  %llu leases were revoked, %u attempts begun, %u results taken or dropped\n",
           (unsigned long long)world.revoked, play.begins[0] + play.begins[1],
           play.done[0] + play.done[1]);
    if (world.mute_deaths || play.links_lost)
        sim_fail("its link ended though it came back in time");
    if (world.revoked == 0)
        sim_fail("no lease was revoked");
}

static const struct scene scenes[] = {
    /* Used to tasks of no length, both hold hundreds when the long ones come. */
    {.name = "fair",
     .phase = {{4000, US, 0, 0}, {220, 3 * MS, 0, 0}},
     .slower = {1, 10},
     .check = check_fair},
    {.name = "long",
     .phase = {{4000, US, 0, 0}, {101, 5 * US, 1 * S, 50}},
     .slower = {1, 1},
     .check = check_long},
    /* Minutes: heartbeats are answered meanwhile. */
    {.name = "alone",
     .phase = {{4000, US, 0, 0}, {101, 5 * US, 300 * S, 50}},
     .slower = {1, 0},
     .check = check_alone},
    /* Stopped for good in the middle of a pile that it has at hand; the other joins then. */
    {.name = "stopped",
     .phase = {{4000, US, 0, 0}, {300, 50 * US, 0, 0}},
     .slower = {1, 1},
     .join = {0, 100 * MS},
     .stop_at = 200 * US,
     .stop_ns = 60 * S,
     .check = check_stopped},
    /* Stopped for less than dead_after: the link goes on, and what it does late is dropped. */
    {.name = "paused",
     .phase = {{4000, US, 0, 0}, {300, 50 * US, 0, 0}},
     .slower = {1, 1},
     .join = {0, 100 * MS},
     .stop_at = 200 * US,
     .stop_ns = 5 * S,
     .check = check_paused},
};
#define SCENES (sizeof scenes / sizeof *scenes)

const char *scene_name(unsigned i)
{
    return i < SCENES ? scenes[i].name : NULL;
}

bool scene_choose(const char *name)
{
    play.scene = NULL;
    for (size_t i = 0; i < SCENES; i++)
        if (strcmp(scenes[i].name, name) == 0)
            play.scene = &scenes[i];
    return play.scene != NULL;
}

bool scene_chosen(void)
{
    return play.scene != NULL;
}

void scene_params(void)
{
    const struct scene *s = play.scene;
    memset(&play, 0, sizeof play);
    play.scene = s;
    net_params(sim.net)->again = 0;
    world.cells = 8;
    world.cell = 16384;
    world.lease_window = 1024;
    world.submit_window = 4096;
    world.queues = 1;
    world.mode = LANE_SEND;
    world.faults = s->stop_ns > 0;
    world.calm = true;
    world.tick = S;
    world.keepalive = 12 * S;
    world.patient = true;
    world.keep = 60 * S;
    world.heartbeat = 2 * S;
    world.dead_after = 10 * S;
    world.idle = PULSE_IDLE_NS;
    world.late = PULSE_LATE_NS;
    world.slow = PULSE_SLOW_NS;
}

void scene_open(void)
{
    static const char *const names[WORKERS] = {"worker-a", "worker-b"};
    const struct scene *s = play.scene;
    for (uint32_t i = 0; i < WORKERS; i++) {
        if (!s->slower[i])
            continue;
        struct actor *a = sim_actor(names[i], false, worker_body, (void *)(uintptr_t)i);
        a->wake_at = s->join[i];
        actors_adopt(a);
    }
    sim_actor("producer", false, producer_body, NULL)->wake_at = 100 * US;
    world.producers = 1;
    if (s->stop_ns)
        sim_actor("fate", false, fate_body, NULL)->wake_at = 0;
}

void scene_check(void)
{
    printf("scene %s: seed %llu, %.3f s\n", play.scene->name, (unsigned long long)sim.seed,
           (double)sim_now() / 1e9);
    play.scene->check(play.scene);
    printf("  asked back %llu times, %llu tasks that were claimed; %llu heartbeats\n",
           (unsigned long long)world.recalls, (unsigned long long)world.asked_back,
           (unsigned long long)world.pings);
}
