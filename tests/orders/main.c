/* SPDX-License-Identifier: MIT
 *
 * main.c - runs the scenarios with the orders as they stand in the core, then checks the explorer
 * itself: each access of the table below is weakened in turn, and must be caught.
 *
 *   orders [--scenario NAME] [--seed N] [--walks N] [--depth N] [--bounds P,S] [--long]
 * [--no-self-test]
 *          [--weak NAME] [--replay CHOICES] [--survey] [--list]
 *
 * Threads: one. Failure: status 1, with the execution printed; 2 for a wrong command line.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tests/orders/explore.h"
#include "tests/orders/scenarios.h"

#define LONG_FACTOR 20u

const struct md_scenario *const md_scenarios[] = {
    &mp_ra,      &mp_rlx,    &mp_plain_ra,  &mp_plain_rlx,    &sb_sc,          &sb_ra,
    &corr_rlx,   &iriw_sc,   &iriw_ra,      &wrc_ra,          &wrc_rlx,        &sequence,
    &count,      &ring_mpsc, &ring_laps,    &ring_hole_death, &ring_hole_slow, &wake_one,
    &wake_many,  &wake_bell, &wake_any,     &slot_handover,   &slot_hot,       &slot_cancel,
    &slot_run,   &slot_stock, &orphan,    &orphan_run,    &orphan_reuse, &worker_dies,     &producer_dies,  &keys,
    &overrun_buried, &overrun_unstarted, &expired_orphan, &orphan_overrun, NULL};

#define CELL "&c[seen]"

const struct md_weak md_weaks[] = {
    {"P1-relaxed", "put_one", "at_add", "&r->tail", MD_RLX, "wake-one"},
    {"P2-one-relaxed", "put_one", "at_cas", "cell", MD_RLX, "ring-mpsc"},
    {"P2-relaxed", "publish_run", "at_cas", "cell", MD_RLX, "ring-mpsc"},
    {"T1-relaxed", "ring_take", "at_load_acq", CELL, MD_RLX, "ring-mpsc"},
    {"parked-set-relaxed", "park", "at_or", "&q->parked", MD_RLX, "wake-one"},
    {"parked-look-relaxed", "queue_wake", "at_load", "&q->parked", MD_RLX, "wake-one"},
    {"depth-look-relaxed", "ring_depth", "at_load", NULL, MD_RLX, "wake-one"},
    {"depth-look-acquire", "ring_depth", "at_load", NULL, MD_ACQ, "wake-one"},
    {"bell-set-release", "local_wait", "at_store", "&l->self->bell_parked", MD_REL, "wake-bell"},
    {"bell-look-acquire", "local_complete", "at_load", "&s->participant[producer].bell_parked", MD_ACQ,
     "wake-bell"},
    {"outcome-acquire", "outcome_of", "at_load", NULL, MD_ACQ, "wake-bell"},
    {"outcome-relaxed", "outcome_of", "at_load", NULL, MD_RLX, "slot-handover"},
    {"any-set-release", "local_wait_any", "at_store", NULL, MD_REL, "wake-any"},
    {"done-acq_rel", "local_complete", "at_cas", "&sl->state", MD_ACQ_REL, "wake-bell"},
    {"run-done-acq_rel", "complete_run", "at_cas", "&sl->state", MD_ACQ_REL, "wake-any"},
    {"run-done-relaxed", "complete_run", "at_cas", "&sl->state", MD_RLX, "slot-run"},
    {"run-bell-look-acquire", "bell_ring", "at_load", "&p->bell_parked", MD_ACQ, "wake-any"},
    {"done-relaxed", "local_complete", "at_cas", "&sl->state", MD_RLX, "slot-handover"},
    {"READY-relaxed", "write_task", "at_store_rel", "&sl->state", MD_RLX, "slot-hot"},
    {"any-outcome-relaxed", "look_plain", "at_load_acq", NULL, MD_RLX, "wake-any"},
    {"hot-claim-relaxed", "claim_hot", "at_cas", "&sl->state", MD_RLX, "slot-hot"},
    {"orphan-look-relaxed", "local_complete", "at_load", "&sl->meta", MD_RLX, "orphan"},
    {"orphan-run-look-relaxed", "run_of", "at_load", "&p->life", MD_RLX, "orphan-run"},
    {"orphan-mark-acq_rel", "orphan", "at_cas", "&sl->meta", MD_ACQ_REL, "orphan"},
    {"orphan-state-acquire", "orphan", "at_load", "&sl->state", MD_ACQ, "orphan"},
    {"key-publish-release", "take_entry", "at_store", "&e->word", MD_REL, "keys"},
    {"key-look-acquire", "look_at", "at_load", "&e->word", MD_ACQ, "keys"},
    {NULL, NULL, NULL, NULL, MD_RLX, NULL}};

static struct {
    const char *scenario, *weak, *replay;
    struct md_bounds bounds; /* both 0: the scenario's own */
    uint64_t seed, walks, depth;
    bool more, no_self_test, survey, list;
} opt = {.seed = 1, .depth = 400000};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t walks_of(const struct md_scenario *sc)
{
    return opt.walks ? opt.walks : opt.more ? (uint64_t)sc->walks * LONG_FACTOR : sc->walks;
}

static uint64_t depth_of(void)
{
    return opt.more ? opt.depth * LONG_FACTOR : opt.depth;
}

static struct md_bounds bounds_of(const struct md_scenario *sc)
{
    if (opt.bounds.preempt || opt.bounds.stale)
        return opt.bounds;
    return opt.more && sc->dfs_long.preempt ? sc->dfs_long : sc->dfs;
}

static void tell_failure(const struct md_scenario *sc, bool walk, uint64_t seed)
{
    printf("%s: %s\n", sc->name, md_failure());
    trace_print();
    if (walk)
        printf("  again: --scenario %s --seed %" PRIu64 " --walks 1 --depth 0\n", sc->name, seed);
    else
        explore_print_choices();
}

/* Both ways; false: an execution failed. quiet: say nothing, that is what is hoped for. */
static bool explore(const struct md_scenario *sc, bool quiet, struct explored *dfs,
                    struct explored *walks, bool *by_walk)
{
    struct md_bounds b = bounds_of(sc);
    bool ok = true;
    memset(dfs, 0, sizeof *dfs);
    memset(walks, 0, sizeof *walks);
    *by_walk = false;
    if (depth_of() && (b.preempt || b.stale))
        ok = explore_dfs(sc, &b, depth_of(), dfs);
    if (ok && walks_of(sc)) {
        *by_walk = true;
        ok = explore_walks(sc, opt.seed, walks_of(sc), walks);
    }
    if (!ok && !quiet)
        tell_failure(sc, *by_walk, walks->seed);
    return ok;
}

static bool run_scenario(const struct md_scenario *sc)
{
    struct explored dfs, walks;
    struct md_bounds b = bounds_of(sc);
    bool by_walk;
    double start = now();
    if (explore(sc, sc->must_fail, &dfs, &walks, &by_walk) == sc->must_fail) {
        if (sc->must_fail)
            printf("%-16s NOT met: the explorer misses it\n", sc->name);
        return false;
    }
    printf("%-16s %8" PRIu64 " executions depth first (%u preemptions, %u old values%s), %7" PRIu64
           " walks, %.2f s%s\n",
           sc->name, dfs.runs, b.preempt, b.stale,
           dfs.runs == 0  ? ", not run"
           : dfs.complete ? ", all"
                          : ", cut",
           walks.runs, now() - start, sc->must_fail ? ": met, as it must be" : "");
    return true;
}

static const struct md_scenario *find(const char *name)
{
    for (int i = 0; md_scenarios[i]; i++)
        if (strcmp(md_scenarios[i]->name, name) == 0)
            return md_scenarios[i];
    return NULL;
}

/* One weakened access must make its scenario fail. */
static bool self_test(const struct md_weak *w)
{
    const struct md_scenario *sc = find(w->scenario);
    struct explored dfs, walks;
    bool by_walk, caught;
    if (!sc) {
        printf("%-22s no scenario %s\n", w->name, w->scenario);
        return false;
    }
    mem_weaken(w);
    caught = !explore(sc, true, &dfs, &walks, &by_walk);
    uint32_t places = mem_weakened();
    mem_weaken(NULL);
    if (caught && places)
        printf("%-22s caught by %s after %" PRIu64 " %s: %.90s\n", w->name, sc->name,
               by_walk ? walks.runs : dfs.runs, by_walk ? "walks" : "executions", md_failure());
    else
        printf("%-22s NOT caught by %s: %s\n", w->name, sc->name,
               places ? "the explorer misses it" : "no access has that name any more");
    return caught && places;
}

static bool same_place(const struct md_site *a, const struct md_site *b)
{
    return strcmp(a->func, b->func) == 0 && strcmp(a->op, b->op) == 0 &&
           strcmp(a->what, b->what) == 0;
}

/* A place of the core's that can be weakened and was not met before in the list. */
static bool worth_a_survey(struct md_site *const *list, uint32_t i)
{
    for (uint32_t k = 0; k < i; k++)
        if (same_place(list[k], list[i]))
            return false;
    return list[i]->order != MD_RLX && strncmp(list[i]->op, "at_", 3) == 0;
}

/* Each access of the core in turn made relaxed, in all scenarios: which of them does something
 * rest on, as far as the scenarios can tell? */
static void survey(void)
{
    struct md_site *const *list;
    uint32_t n = mem_sites(&list);
    for (uint32_t i = 0; i < n; i++) {
        const struct md_scenario *by = NULL;
        struct md_weak w = {NULL, list[i]->func, list[i]->op, list[i]->what, MD_RLX, NULL};
        struct explored dfs, walks;
        bool by_walk;
        if (!worth_a_survey(list, i))
            continue;
        mem_weaken(&w);
        for (int k = 0; md_scenarios[k] && !by; k++)
            if (!md_scenarios[k]->must_fail &&
                !explore(md_scenarios[k], true, &dfs, &walks, &by_walk))
                by = md_scenarios[k];
        printf("%-18s %-13s %-36s %s%s\n", list[i]->func, list[i]->op, list[i]->what,
               by ? "needed: " : "no scenario needs it", by ? by->name : "");
    }
    mem_weaken(NULL);
}

static int parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"scenario", 1, NULL, 's'}, {"seed", 1, NULL, 'S'},   {"walks", 1, NULL, 'w'},
        {"depth", 1, NULL, 'd'},    {"long", 0, NULL, 'l'},   {"no-self-test", 0, NULL, 'n'},
        {"weak", 1, NULL, 'W'},     {"replay", 1, NULL, 'r'}, {"survey", 0, NULL, 'v'},
        {"list", 0, NULL, 'L'},     {"bounds", 1, NULL, 'b'}, {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        switch (c) {
        case 's':
            opt.scenario = optarg;
            break;
        case 'S':
            opt.seed = strtoull(optarg, NULL, 0);
            break;
        case 'w':
            opt.walks = strtoull(optarg, NULL, 0);
            break;
        case 'd':
            opt.depth = strtoull(optarg, NULL, 0);
            break;
        case 'b':
            if (sscanf(optarg, "%u,%u", &opt.bounds.preempt, &opt.bounds.stale) != 2)
                return -1;
            break;
        case 'l':
            opt.more = true;
            break;
        case 'n':
            opt.no_self_test = true;
            break;
        case 'W':
            opt.weak = optarg;
            break;
        case 'r':
            opt.replay = optarg;
            break;
        case 'v':
            opt.survey = true;
            break;
        case 'L':
            opt.list = true;
            break;
        default:
            return -1;
        }
    }
    return optind == argc ? 0 : -1;
}

static int print_list(void)
{
    for (int i = 0; md_scenarios[i]; i++)
        printf("%-16s %s\n", md_scenarios[i]->name, md_scenarios[i]->what);
    for (int i = 0; md_weaks[i].name; i++)
        printf("weak %-22s %s\n", md_weaks[i].name, md_weaks[i].scenario);
    return 0;
}

/* --weak alone shows how its scenario fails; --replay runs one execution. */
static int run_one(void)
{
    const struct md_weak *w = NULL;
    for (int i = 0; opt.weak && md_weaks[i].name; i++)
        if (strcmp(md_weaks[i].name, opt.weak) == 0)
            w = &md_weaks[i];
    const char *name = opt.scenario ? opt.scenario : w ? w->scenario : NULL;
    const struct md_scenario *sc = name ? find(name) : NULL;
    if (!sc || (opt.weak && !w)) {
        fprintf(stderr, "orders: no such name; see --list\n");
        return 2;
    }
    mem_weaken(w);
    if (!opt.replay)
        return !run_scenario(sc);
    struct md_bounds b = bounds_of(sc);
    bool ok = explore_replay(sc, &b, opt.replay);
    printf("%s: %s\n", sc->name, ok ? "no failure" : md_failure());
    trace_print();
    return !ok;
}

int main(int argc, char **argv)
{
    bool ok = true;
    double start = now();
    if (parse(argc, argv) < 0) {
        fprintf(stderr, "usage: orders [--scenario NAME] [--seed N] [--walks N] [--depth N] "
                        "[--bounds P,S] [--long] [--no-self-test] [--weak NAME] "
                        "[--replay CHOICES] [--survey] [--list]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (opt.list)
        return print_list();
    if (opt.weak || opt.replay || opt.scenario)
        return run_one();
    printf("seed %" PRIu64 "\n", opt.seed);
    for (int i = 0; md_scenarios[i]; i++)
        ok &= run_scenario(md_scenarios[i]);
    if (ok && opt.survey)
        survey();
    for (int i = 0; ok && !opt.survey && !opt.no_self_test && md_weaks[i].name; i++)
        ok &= self_test(&md_weaks[i]);
    printf("%s in %.1f s\n", ok ? "all well" : "FAILED", now() - start);
    return !ok;
}
