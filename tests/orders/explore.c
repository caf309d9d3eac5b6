/* SPDX-License-Identifier: MIT
 *
 * explore.c - choices: depth first within bounds, at random from a seed, or as written down.
 *
 * Invariant: an execution is a function of its choices. Depth first, the list of choices so far is
 * a stack; the next execution repeats it up to the last choice that has another alternative.
 *
 * Threads: one; see model.h. Failure: a scenario that offers other choices when it is repeated is
 * reported as a fault of the scenario.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/orders/explore.h"

#define CHOICES_MAX (4 * MD_STEPS)

static struct {
    uint16_t pick, n;
} choices[CHOICES_MAX];
static uint32_t depth, known; /* choices made; depth first: how many are given */

static enum { DEPTH_FIRST, RANDOM } mode;
static uint32_t preempt_left, stale_left;
static uint64_t random_state;
/* of 256: how often a walk switches, reads an old value, kills */
static uint32_t odds[CHOOSE_DEATH + 1];

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t random64(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

bool md_may_preempt(void)
{
    return mode == RANDOM || preempt_left > 0;
}

bool md_may_stale(void)
{
    return mode == RANDOM || stale_left > 0;
}

static uint32_t draw(enum md_choice what, uint32_t n)
{
    if (what == CHOOSE_NEXT)
        return (uint32_t)(random64() % n);
    if ((random64() & 0xff) >= odds[what])
        return 0;
    return 1 + (uint32_t)(random64() % (n - 1));
}

uint32_t md_choose(enum md_choice what, uint32_t n)
{
    uint32_t pick;
    if (depth == CHOICES_MAX)
        md_fail("more than %u choices", CHOICES_MAX);
    if (mode == RANDOM)
        pick = draw(what, n);
    else
        pick = depth < known ? choices[depth].pick : 0;
    if (mode == DEPTH_FIRST && depth < known && choices[depth].n && choices[depth].n != n)
        md_fail("the scenario is not a function of the choices: fix the scenario");
    if (pick >= n)
        md_fail("choice %u is %u of %u: not a choice of this scenario", depth, pick, n);
    choices[depth].pick = (uint16_t)pick;
    choices[depth++].n = (uint16_t)n;
    if (pick && what == CHOOSE_PREEMPT)
        preempt_left--;
    if (pick && what == CHOOSE_STORE)
        stale_left--;
    return pick;
}

static bool run(const struct md_scenario *sc, const struct md_bounds *b)
{
    depth = 0;
    preempt_left = b->preempt;
    stale_left = b->stale;
    return md_execute(sc);
}

/* The next list of choices; false: there is none. */
static bool next(void)
{
    while (depth > 0 && choices[depth - 1].pick + 1 == choices[depth - 1].n)
        depth--;
    if (depth == 0)
        return false;
    choices[depth - 1].pick++;
    known = depth;
    return true;
}

bool explore_dfs(const struct md_scenario *sc, const struct md_bounds *b, uint64_t most,
                 struct explored *e)
{
    mode = DEPTH_FIRST;
    known = 0;
    e->complete = false;
    for (e->runs = 0; e->runs < most;) {
        bool ok = run(sc, b);
        e->runs++;
        if (!ok)
            return false;
        if (!next()) {
            e->complete = true;
            break;
        }
    }
    return true;
}

bool explore_walks(const struct md_scenario *sc, uint64_t seed, uint64_t n, struct explored *e)
{
    static const struct md_bounds none = {0, 0};
    static const uint8_t often[] = {0, 4, 12, 32, 96};
    mode = RANDOM;
    e->complete = false;
    for (e->runs = 0; e->runs < n;) {
        e->seed = random_state = seed + e->runs;
        /* walks of different tempers find different faults */
        for (int i = 0; i <= CHOOSE_DEATH; i++)
            odds[i] = often[random64() % sizeof often];
        bool ok = run(sc, &none);
        e->runs++;
        if (!ok)
            return false;
    }
    return true;
}

void explore_print_choices(void)
{
    const char *comma = "";
    if (mode == RANDOM)
        return;
    printf("  choices ");
    for (uint32_t i = 0; i < depth; i++)
        if (choices[i].pick) {
            printf("%s%u:%u", comma, i, choices[i].pick);
            comma = ",";
        }
    printf("%s\n", *comma ? "" : "-");
}

bool explore_replay(const struct md_scenario *sc, const struct md_bounds *b, const char *list)
{
    mode = DEPTH_FIRST;
    known = CHOICES_MAX;
    memset(choices, 0, sizeof choices); /* n = 0: any */
    while (*list) {
        char *end;
        unsigned long at = strtoul(list, &end, 10);
        if (*end != ':' || at >= CHOICES_MAX)
            break;
        choices[at].pick = (uint16_t)strtoul(end + 1, &end, 10);
        list = *end == ',' ? end + 1 : end;
    }
    return run(sc, b);
}
