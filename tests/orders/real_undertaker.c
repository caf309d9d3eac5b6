/* SPDX-License-Identifier: MIT
 *
 * real_undertaker.c - core/undertaker.c with doors to what is static in it; see world.h. The dead
 * one's histograms are not summed up: they are numbers for people, and thousands of words.
 */
#define participant_remove world_participant_remove
#include "core/undertaker.c"
#undef participant_remove
#include "tests/orders/world.h"

static const struct wake_out no_daemon = {.daemon_fd = -1};

void world_participant_remove(const struct segment *s, uint32_t id)
{
    uint64_t w = at_load(&s->participant[id].life);
    at_store(&s->participant[id].life, participant_word(participant_generation(w), LIFE_FREE));
}

void real_orphan(uint32_t me, uint32_t dead, uint32_t slot)
{
    struct undertaker_report report = {0};
    struct job j = {.s = &world, .out = &no_daemon, .me = me, .report = &report};
    uint64_t meta = at_load(&world.slot[slot].meta);
    if (meta_producer(meta) == dead)
        orphan(&j, slot, meta);
}

void real_recover(uint32_t me, uint32_t dead)
{
    struct undertaker_report report;
    uint8_t fate[MD_THREADS] = {FATE_NONE};
    fate[dead] = FATE_CRASHED;
    undertaker_recover_many(&world, &no_daemon, me, fate, &report);
}

void real_recover_slot(uint32_t me, uint32_t dead, uint32_t slot)
{
    struct undertaker_report report = {0};
    uint8_t fate[MD_THREADS] = {FATE_NONE};
    struct job j = {.s = &world, .out = &no_daemon, .me = me, .fate = fate, .report = &report};
    uint64_t w = at_load(&world.slot[slot].state);
    fate[dead] = FATE_CRASHED;
    if (fate_of(&j, slot_owner(w)) != FATE_NONE)
        recover_own(&j, slot, w);
}
