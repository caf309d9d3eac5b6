/* SPDX-License-Identifier: MIT
 *
 * link_sim.c - random schedules of the link protocol: remote producers and workers and fabricd's
 * links over a network that delays, cuts, partitions and kills, in virtual time, with an oracle
 * (oracle.c) that knows what every submit, attempt and outcome must be.
 *
 * A schedule follows from its seed alone: sizes, windows, modes, programs, faults and every delay.
 * It ends when all producers have their outcomes and all workers have left; then every slot and
 * every block of the segment must be free. A schedule in which nothing happens any more before that
 * is a wedge.
 *
 * Usage: link_sim [--seed N] [--steps N] [--schedules N] [--twice] [--trace] [--scene NAME]
 * Runs schedules N, N+1, ... until that many steps or schedules are done. --twice runs each two
 * times and compares what happened. --trace tells what happens. --scene plays a fixed one (scenes.h). Exit status: 0, or 1 with the seed.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "core/arena.h"
#include "core/error.h"
#include "core/participant.h"
#include "core/slot.h"
#include "core/undertaker.h"
#include "tests/sim/scenes.h"
#include "tests/sim/world.h"

#define STEPS_MAX  3000000u
#define FAULTS_MAX 40
/* Real time after which a schedule hangs: within one step, since steps are limited. */
#define HANG_S 60

struct world world;

static struct {
    uint64_t next_fault, calm_at, storm_until;
    uint64_t favourite; /* half of the faults are of this kind */
    uint32_t done;
} weather;

struct totals {
    uint64_t schedules, steps, ns, submitted, outcomes, attempts, lost, cancelled, dead, unwaited,
        refused, released, moved[4], crashes, links, faults, posts, again, taken_up, told_again, recalls, asked_back,
        revoked, pings, mute, written, read;
};

/* ---- faults ---- */

static struct line *pick_line(void)
{
    struct line *found = NULL;
    uint32_t n = 0;
    for (struct line *l = world.lines; l; l = l->next)
        if (line_ep(l) && sim_roll(++n) == 0)
            found = l;
    return found;
}

static void heal(struct line *l)
{
    l->partitioned = false;
    l->heal_at = UINT64_MAX;
    l->host_patience = l->client_patience = UINT64_MAX;
    if (line_ep(l))
        net_partition(line_ep(l), false);
    /* what was said meanwhile arrives now */
    if (l->client_end_due != UINT64_MAX)
        sim_wake(world.host, sim_now() + 1);
    if (l->host_end_due != UINT64_MAX)
        sim_wake(l->client, sim_now() + 1);
    sim_trace("link %u is healed", l->number);
}

static void partition(struct line *l)
{
    if (l->partitioned)
        return;
    sim_trace("link %u is partitioned", l->number);
    l->partitioned = true;
    l->whole = sim_roll(2);
    l->heal_at = sim_now() + 1 + sim_roll(world.keepalive * 2);
    l->host_patience = sim_now() + world.keepalive + sim_roll(world.keepalive);
    l->client_patience = sim_now() + world.keepalive + sim_roll(world.keepalive);
    sim_wake(world.host, l->host_patience);
    sim_wake(l->client, l->client_patience);
    net_partition(line_ep(l), true);
}

static void one_fault(void)
{
    struct line *l = pick_line();
    struct net_params *np = net_params(sim.net);
    uint64_t kind = sim_roll(2) ? weather.favourite : sim_roll(10);
    weather.done++;
    if (kind == 0) {
        (void)actor_kill((uint32_t)sim_roll(actors_remote()));
    } else if (kind == 1) {
        np->delay_max = np->delay_min + (uint32_t)sim_roll(200000);
        weather.storm_until = sim_now() + sim_roll(300000);
    } else if (kind == 2) {
        np->again = (uint32_t)sim_roll(400);
    } else if (kind == 8) {
        host_die();
    } else if (kind == 9) {
        actor_stop((uint32_t)sim_roll(actors_remote()), sim_roll(2 * world.dead_after));
    } else if (l) {
        l->harmed = true;
        if (kind == 3 || kind == 4) {
            sim_trace("link %u is cut", l->number);
            net_cut(line_ep(l));
        } else if (kind == 5 || kind == 6) {
            partition(l);
        } else if (sim_roll(2)) {
            sim_trace("link %u: one end gives up", l->number);
            net_timeout(line_ep(l));
        } else {
            host_drop(l);
        }
    }
}

static void calm_down(void)
{
    struct net_params *np = net_params(sim.net);
    world.calm = true;
    np->again = 0;
    np->delay_max = np->delay_min + 5000;
    for (struct line *l = world.lines; l; l = l->next)
        if (l->partitioned)
            heal(l);
    sim_trace("calm");
}

static void weather_run(struct actor *a)
{
    uint64_t now = sim_now();
    if (world.faults && !world.calm && now >= weather.next_fault) {
        one_fault();
        weather.next_fault = now + 1 + sim_roll(weather.favourite == 0 ? 30000 : 400000);
    }
    if (now >= weather.storm_until) {
        net_params(sim.net)->delay_max = net_params(sim.net)->delay_min + 5000;
        weather.storm_until = UINT64_MAX;
    }
    for (struct line *l = world.lines; l; l = l->next)
        if (l->partitioned && l->heal_at <= now)
            heal(l);
    if (!world.calm && (now >= weather.calm_at || weather.done >= FAULTS_MAX))
        calm_down();
    a->wake_at = UINT64_MAX;
    if (world.calm)
        return;
    a->wake_at = weather.calm_at < weather.next_fault ? weather.calm_at : weather.next_fault;
    if (weather.storm_until < a->wake_at)
        a->wake_at = weather.storm_until;
    for (struct line *l = world.lines; l; l = l->next)
        if (l->partitioned && l->heal_at < a->wake_at)
            a->wake_at = l->heal_at;
}

/* ---- a schedule ---- */

static void make_segment(void)
{
    static const char *const names[] = {"default", "second"};
    struct segment_params p = {.name = "sim",
                               .version = "0",
                               .slots = scene_chosen() ? 8192 : sim_roll(3) ? 64 : 256,
                               .participants = 16,
                               .arena_bytes = (sim_roll(2) ? 2 : 16) * (uint64_t)ARENA_CHUNK,
                               .queues = world.queues,
                               .queue_names = names,
                               .huge = SEGMENT_HUGE_NEVER,
                               .numa_node = -1};
    if (segment_create(&world.seg, &p) < 0)
        sim_fail("%s", fab_errmsg());
}

static void open_world(uint64_t seed)
{
    static const uint64_t ticks[] = {50000, 1000000, 100000000, 1000000000};
    struct net_params np = {.seed = seed,
                            .provider = "tcp",
                            .delay_min = 500,
                            .delay_max = 5500,
                            .inject_max = seed % 3 ? 64 : 256,
                            .by_copy = seed % 5 > 0,
                            .virtual_addresses = seed & 1};
    uint32_t tasks = world.oracle.tasks, handles = world.oracle.handles;
    memset(world.oracle.task, 0, (tasks + 1) * sizeof world.oracle.task[0]);
    memset(world.oracle.handle, 0, (handles + 1) * sizeof world.oracle.handle[0]);
    memset(&world, 0, offsetof(struct world, oracle));
    memset(&world.oracle.tasks, 0, sizeof world.oracle - offsetof(struct oracle, tasks));
    sim_open(seed, &np);
    net_params(sim.net)->again = sim_roll(3) ? 0 : (uint32_t)sim_roll(300);
    world.cells = 2u << sim_roll(3);
    world.cell = 1024u << sim_roll(2);
    world.lease_window = 1 + (uint32_t)sim_roll(32);
    world.submit_window = 1 + (uint32_t)sim_roll(48);
    world.queues = 1 + (uint32_t)sim_roll(2);
    world.mode = (int)sim_roll(3); /* AUTO, WRITE, SEND */
    world.faults = sim_roll(4) > 0;
    world.tick = ticks[sim_roll(4)];
    world.keepalive = 100000 + sim_roll(900000);
    world.patient = sim_roll(3) > 0;
    world.keep = world.patient ? 300000000 : sim_roll(2) ? sim_roll(3000000) : 0;
    /* shorter than kernels, and than outages */
    world.heartbeat = 100000 + sim_roll(900000);
    world.dead_after = 2 * world.heartbeat + sim_roll(600000);
    world.idle = 1000 + sim_roll(20000);
    world.late = world.idle + sim_roll(30000);
    world.slow = world.late + sim_roll(30000);
    if (scene_chosen())
        scene_params();
    make_segment();
    host_open();
    beats_open();
    memset(&weather, 0, sizeof weather);
    weather.next_fault = sim_roll(300000);
    weather.favourite = sim_roll(10);
    weather.calm_at = world.faults && !world.calm ? 1000000 + sim_roll(6000000) : 0;
    weather.storm_until = UINT64_MAX;
    world.weather = sim_actor("weather", true, weather_run, NULL);
    if (scene_chosen()) {
        actors_clear();
        scene_open();
    } else {
        actors_open();
    }
}

static bool all_left(void)
{
    for (uint32_t i = 0; i < sim.actors; i++)
        if (!sim.actor[i].plain && !sim.actor[i].done)
            return false;
    return true;
}

static void say_who_sleeps(void)
{
    for (uint32_t i = 0; i < sim.actors; i++)
        if (!sim.actor[i].plain && !sim.actor[i].done)
            fprintf(stderr, "link_sim: %s has not finished\n", sim.actor[i].name);
}

static void run_world(void)
{
    while (!all_left()) {
        if (!sim_step()) {
            say_who_sleeps();
            sim_fail("wedged: nothing will happen any more");
        }
        if (sim.steps > STEPS_MAX) {
            say_who_sleeps();
            sim_fail("wedged: %u of %u producers are done", world.producers_done, world.producers);
        }
        if (world.producers_done == world.producers)
            world.stop = true;
    }
}

static void check_segment(void)
{
    const struct segment *s = &world.seg;
    for (uint32_t i = 0; i < s->slots; i++)
        if (slot_state(at_load(&s->slot[i].state)) != SLOT_FREE)
            sim_fail("slot %u is left in state %u", i, slot_state(at_load(&s->slot[i].state)));
    for (uint32_t u = 0; u < s->chunks * ARENA_CHUNK_BLOCKS; u++)
        if (block_state(at_load(&s->block_word[u])) != BLOCK_FREE)
            sim_fail("block %u is left", u);
    if (at_load(&s->head->net_catches))
        sim_fail("a sleep missed its wake-up");
}

static void close_world(void)
{
    struct undertaker_report rep;
    oracle_end(world.faults);
    host_close();
    undertaker_recover(&world.seg, &world.out, world.me, world.me, false, &rep);
    check_segment();
    if (net_open_objects(sim.net))
        sim_fail("%u objects of the network are left", net_open_objects(sim.net));
    segment_unmap(&world.seg);
}

static void on_alarm(int signal)
{
    (void)signal; /* the program ends here, so that what printf may not do does not matter */
    sim_fail("hangs: no time passes any more");
}

static uint64_t run_schedule(uint64_t seed, struct totals *t)
{
    struct net_stats st;
    const struct oracle *o = &world.oracle;
    alarm(HANG_S);
    open_world(seed);
    run_world();
    net_stats(sim.net, &st);
    if (scene_chosen())
        scene_check();
    close_world();
    t->schedules++;
    t->steps += sim.steps;
    t->ns += sim_now();
    t->submitted += o->submitted;
    t->outcomes += o->outcomes;
    t->attempts += o->attempts;
    t->lost += o->lost;
    t->cancelled += o->cancelled;
    t->dead += o->dead;
    t->unwaited += o->unwaited;
    t->refused += o->refused;
    t->released += o->released;
    t->taken_up += o->taken_up;
    t->told_again += o->again;
    for (int roles = 0; roles < 4; roles++)
        t->moved[roles] += world.moved[roles];
    t->crashes += world.crashes;
    t->recalls += world.recalls;
    t->asked_back += world.asked_back;
    t->revoked += world.revoked;
    t->pings += world.pings;
    t->mute += world.mute_deaths;
    t->links += world.lines_made;
    t->faults += world.faults ? weather.done : 0;
    t->posts += st.posts;
    t->again += st.refused;
    t->written += st.writes;
    t->read += st.reads;
    uint64_t digest = sim.digest;
    sim_close();
    return digest;
}

/* ---- the program ---- */

static void report(const struct totals *t, double seconds)
{
#define N(x) ((unsigned long long)t->x)
    printf("link_sim: %llu schedules, %llu steps, %.3f s of virtual time\n", N(schedules), N(steps),
           (double)t->ns / 1e9);
    printf("  tasks: %llu submitted (%llu of them unwaited), %llu refused; %llu attempts, %llu "
           "released\n",
           N(submitted), N(unwaited), N(refused), N(attempts), N(released));
    printf("  outcomes: %llu, of them %llu lost with their session, %llu cancelled, %llu dead\n",
           N(outcomes), N(lost), N(cancelled), N(dead));
    printf("  taken up by later handles: %llu, of them %llu told again\n", N(taken_up),
           N(told_again));
    printf("  links: %llu, %llu of them crashed; %llu faults; %llu posts, %llu of them refused\n",
           N(links), N(crashes), N(faults), N(posts), N(again));
    printf("  came back before the link had ended: %llu workers, %llu producers, %llu that are both\n",
           N(moved[FAB_WORKER]), N(moved[FAB_PRODUCER]), N(moved[FAB_PRODUCER | FAB_WORKER]));
    printf("  heartbeats: %llu, %llu links ended for want of an answer; asked back %llu times, %llu "
           "tasks that were claimed; %llu leases revoked\n",
           N(pings), N(mute), N(recalls), N(asked_back), N(revoked));
    printf("  past the cells: %llu pieces written, %llu read\n", N(written), N(read));
    printf("  %.1f s: %.0f steps a second\n", seconds, (double)t->steps / seconds);
#undef N
}

static double seconds_since(const struct timespec *from)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - from->tv_sec) + (double)(now.tv_nsec - from->tv_nsec) / 1e9;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},      {"steps", required_argument, NULL, 'n'},
        {"schedules", required_argument, NULL, 'k'}, {"twice", no_argument, NULL, '2'},
        {"trace", no_argument, NULL, 't'},           {"scene", required_argument, NULL, 'c'},
        {NULL, 0, NULL, 0}};
    uint64_t seed = 1, steps = 4000000, schedules = UINT64_MAX;
    struct totals t = {0}, again = {0};
    struct timespec start;
    bool twice = false;
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 's':
            seed = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            steps = strtoull(optarg, NULL, 0);
            break;
        case 'k':
            schedules = strtoull(optarg, NULL, 0);
            break;
        case '2':
            twice = true;
            break;
        case 'c':
            if (!scene_choose(optarg)) {
                fprintf(stderr, "link_sim: no scene %s; there is:", optarg);
                for (unsigned i = 0; scene_name(i); i++)
                    fprintf(stderr, " %s", scene_name(i));
                fputc('\n', stderr);
                return 2;
            }
            break;
        case 't':
            sim.trace = true;
            break;
        default:
            fprintf(stderr, "usage: link_sim [--seed N] [--steps N] [--schedules N] [--twice] "
                            "[--trace] [--scene NAME]\n");
            return 2;
        }
    }
    signal(SIGALRM, on_alarm);
    printf("link_sim: from seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (; t.steps < steps && t.schedules < schedules; seed++) {
        uint64_t digest = run_schedule(seed, &t);
        if (twice && run_schedule(seed, &again) != digest) {
            fprintf(stderr, "link_sim: seed %llu does not give the same run twice\n",
                    (unsigned long long)seed);
            return 1;
        }
    }
    report(&t, seconds_since(&start));
    return 0;
}
