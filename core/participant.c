/* SPDX-License-Identifier: MIT
 *
 * participant.c - giving out and taking back entries of the participant table.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/participant.h"

uint64_t participant_start_ticks(uint32_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    /* the second field is the name in parentheses and may hold anything: count from the last ')' */
    char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

static void put_identity(struct seg_participant *p, const struct identity *who)
{
    memset(&p->identity, 0, offsetof(struct seg_identity, keep_until_ns)); /* the deadline stays */
    if (!who)
        return;
    memcpy(p->identity.client, who->client, sizeof who->client);
    memcpy(p->identity.instance, who->instance, sizeof who->instance);
    memcpy(p->identity.text, who->text, sizeof who->text);
}

static void put_owner(struct seg_participant *p, const struct participant_info *info)
{
    p->pid = info->pid;
    p->uid = info->uid;
    p->start_ticks = info->remote ? 0 : participant_start_ticks(info->pid);
    p->roles = info->roles;
    p->remote = info->remote;
    memset(p->name, 0, sizeof p->name);
    snprintf(p->name, sizeof p->name, "%s", info->name);
    memset(&p->link, 0, sizeof p->link);
    at_store(&p->queue, 0);
    at_store(&p->submits_to, 0);
    at_store(&p->bell_parked, 0);
    at_store(&p->bell_kind, info->remote ? BELL_DAEMON : BELL_FUTEX);
    put_identity(p, info->identity);
}

/* Links and fabricd itself are nobody's to invite. */
static uint64_t invited(const struct participant_info *info)
{
    return info->remote || info->pid == (uint32_t)getpid() ? 0 : PARTICIPANT_INVITED;
}

int participant_add(const struct segment *s, const struct participant_info *info,
                    uint32_t *generation)
{
    for (uint32_t i = 0; i < s->participants; i++) {
        struct seg_participant *p = &s->participant[i];
        uint64_t w = at_load(&p->life);
        if (participant_life(w) != LIFE_FREE)
            continue;
        put_owner(p, info);
        memset(p->counts, 0, sizeof p->counts);
        memset(&p->latency, 0, sizeof p->latency);
        *generation = participant_generation(w) + 1;
        if (s->living)
            s->living[i] = LIVING;
        CRASH_POINT("participant.filled");
        at_store(&p->life, participant_word(*generation, LIFE_LIVE) | invited(info));
        CRASH_POINT("participant.live");
        return (int)i;
    }
    return err_set(-EUSERS,
                   "all %u participant entries are taken: raise segment.participants in fabricd's "
                   "configuration",
                   s->participants);
}

void participant_take_up(const struct segment *s, uint32_t id, const struct participant_info *info,
                         uint32_t *generation)
{
    struct seg_participant *p = &s->participant[id];
    /* A death of ours before the last store leaves it KEPT, with an identity of the same client. */
    put_owner(p, info);
    *generation = participant_generation(at_load(&p->life)) + 1;
    if (s->living)
        s->living[id] = LIVING;
    CRASH_POINT("participant.taking_up");
    at_store(&p->life, participant_word(*generation, LIFE_LIVE) | invited(info));
    CRASH_POINT("participant.taken_up");
}

void participant_keep(const struct segment *s, uint32_t id)
{
    struct seg_participant *p = &s->participant[id];
    at_store(&p->bell_parked, 0); /* nobody sleeps */
    if (s->living)
        s->living[id] = LIVING_KEPT;
    CRASH_POINT("participant.keeping");
    at_store(&p->life, participant_word(participant_generation(at_load(&p->life)), LIFE_KEPT));
    CRASH_POINT("participant.kept");
}

bool participant_join(const struct segment *s, uint32_t id, uint32_t generation)
{
    uint64_t live = participant_word(generation, LIFE_LIVE), w = live | PARTICIPANT_INVITED;
    return at_cas(&s->participant[id].life, &w, live);
}

bool participant_uninvite(const struct segment *s, uint32_t id)
{
    uint64_t w = at_load(&s->participant[id].life);
    return participant_life(w) == LIFE_LIVE && (w & PARTICIPANT_INVITED) &&
           at_cas(&s->participant[id].life, &w,
                  participant_word(participant_generation(w), LIFE_LEFT));
}

void participant_leave(const struct segment *s, uint32_t id, uint32_t generation)
{
    uint64_t w = participant_word(generation, LIFE_LIVE);
    /* another word: fabricd has buried us already */
    if (at_cas(&s->participant[id].life, &w, participant_word(generation, LIFE_LEFT)))
        at_store(&s->head->sweep_wanted, 1);
}

void participant_dead(const struct segment *s, uint32_t id)
{
    uint64_t w = at_load(&s->participant[id].life);
    at_store(&s->participant[id].life, participant_word(participant_generation(w), LIFE_DEAD));
}

static void add_counts(struct seg_counts *to, struct seg_counts *from)
{
    /* relaxed: sums for people; the owner of `from` is gone */
    at_add_rlx(&to->submitted, at_load_rlx(&from->submitted));
    at_add_rlx(&to->completed, at_load_rlx(&from->completed));
    at_add_rlx(&to->failed, at_load_rlx(&from->failed));
    at_add_rlx(&to->cancelled, at_load_rlx(&from->cancelled));
    at_add_rlx(&to->released, at_load_rlx(&from->released));
    at_add_rlx(&to->duplicates, at_load_rlx(&from->duplicates));
}

void participant_remove(const struct segment *s, uint32_t id)
{
    struct seg_participant *p = &s->participant[id];
    uint64_t w = at_load(&p->life);
    uint32_t q;
    for (uint32_t i = 0; i < s->queues; i++)
        add_counts(&s->queue[i].past, &p->counts[i]);
    for (int i = 0; i < SPANS; i++) {
        q = participant_span_queue(p, i);
        if (q < s->queues)
            hist_merge(&s->queue[q].past_latency.span[i], &p->latency.span[i]);
    }
    if (s->living)
        s->living[id] = LIVING_NOT;
    CRASH_POINT("participant.summed");
    at_store(&p->life, participant_word(participant_generation(w), LIFE_FREE));
    CRASH_POINT("participant.free");
}
