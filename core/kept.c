/* SPDX-License-Identifier: MIT
 *
 * kept.c - see kept.h. No state of its own.
 */
#include <errno.h>
#include <string.h>
#include "core/error.h"
#include "core/kept.h"
#include "core/slot.h"

static const uint8_t zero[16];

static bool is_zero(const uint8_t hash[16])
{
    return memcmp(hash, zero, sizeof zero) == 0;
}

static bool in_use(const struct segment *s, uint32_t id)
{
    if (s->living)
        return s->living[id] != LIVING_NOT;
    enum life l = participant_life(at_load(&s->participant[id].life));
    return l == LIFE_LIVE || l == LIFE_LEFT || l == LIFE_KEPT;
}

int kept_find(const struct segment *s, const struct identity *who)
{
    bool named = !is_zero(who->client);
    if (!named && is_zero(who->instance))
        return -ENOENT;
    for (uint32_t i = 0; i < s->participants; i++) {
        const struct seg_identity *own = &s->participant[i].identity;
        if (!in_use(s, i) || memcmp(own->client, who->client, sizeof own->client) != 0)
            continue;
        if (named || memcmp(own->instance, who->instance, sizeof own->instance) == 0)
            return (int)i;
    }
    return -ENOENT;
}

bool kept_same_instance(const struct segment *s, uint32_t id, const struct identity *who)
{
    const struct seg_identity *own = &s->participant[id].identity;
    return !is_zero(who->instance) &&
           memcmp(own->instance, who->instance, sizeof own->instance) == 0;
}

bool kept_is(const struct segment *s, uint32_t id)
{
    if (s->living)
        return s->living[id] == LIVING_KEPT;
    return participant_life(at_load(&s->participant[id].life)) == LIFE_KEPT;
}

bool kept_has_identity(const struct segment *s, uint32_t id)
{
    const struct seg_identity *own = &s->participant[id].identity;
    return !is_zero(own->client) || !is_zero(own->instance);
}

bool kept_has_tasks(const struct segment *s, uint32_t id)
{
    for (uint32_t i = 0; i < s->slots; i++) {
        uint64_t w = at_load(&s->slot[i].state), m = at_load_rlx(&s->slot[i].meta);
        if (slot_state(w) >= SLOT_READY && slot_state(w) < SLOT_STATES && meta_producer(m) == id &&
            !(meta_flags(m) & (META_NO_WAIT | META_ORPHAN)))
            return true;
    }
    return false;
}

int kept_first(const struct segment *s)
{
    uint64_t least = UINT64_MAX;
    int first = -ENOENT;
    bool named = true;
    for (uint32_t i = 0; i < s->participants; i++) {
        if (!kept_is(s, i))
            continue;
        const struct seg_identity *own = &s->participant[i].identity;
        uint64_t until = at_load_rlx(&own->keep_until_ns); /* fabricd's own word */
        bool has_name = !is_zero(own->client);
        if (first >= 0 && (named != has_name ? has_name : until >= least))
            continue;
        first = (int)i;
        least = until;
        named = has_name;
    }
    return first;
}
