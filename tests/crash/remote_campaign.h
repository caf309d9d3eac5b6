/* SPDX-License-Identifier: MIT
 *
 * remote_campaign.h - the driver of the remote crash campaign in two parts: rounds, their end and
 * the report (remote_campaign.c), and who dies how (remote_deaths.c).
 */
#ifndef TESTS_CRASH_REMOTE_CAMPAIGN_H
#define TESTS_CRASH_REMOTE_CAMPAIGN_H

#include "tests/crash/driver.h"
#include "tests/crash/remote.h"

struct campaign {
    struct remote_stage *st;
    struct crash_fabricd fabricd;
    uint16_t port;
    uint64_t dice;
    struct deaths deaths;
    uint32_t rounds;
    uint64_t net_catches, sums[8];
};

static inline struct remote_actor *actor(struct campaign *c, unsigned i)
{
    return &c->st->actor[i];
}

/* A fabricd with a new choice of lanes. */
bool conf_and_start(struct campaign *c) __attribute__((warn_unused_result));
/* point NULL: it is to live. */
bool actor_start(struct campaign *c, unsigned i, const char *point, uint32_t nth)
    __attribute__((warn_unused_result));
/* Its exit status, -1: by a signal. */
int actor_bury(struct campaign *c, unsigned i);
/* Workers that a poisoned task has killed, from that one on. */
bool revive_poisoned(struct campaign *c, unsigned from) __attribute__((warn_unused_result));
/* One or two die, each in one of the ways, and are replaced. False: the campaign is over. */
bool one_kill(struct campaign *c) __attribute__((warn_unused_result));

#endif
