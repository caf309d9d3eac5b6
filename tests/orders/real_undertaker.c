/* SPDX-License-Identifier: MIT
 *
 * real_undertaker.c - core/undertaker.c with doors to what is static in it; see world.h.
 */
#include "core/undertaker.c"
#include "tests/orders/world.h"

static const struct wake_out no_daemon = {.daemon_fd = -1};

void real_recover_task(uint32_t me, uint32_t dead, uint32_t slot)
{
    struct undertaker_report report = {0};
    struct job j = {
        .s = &world, .out = &no_daemon, .me = me, .dead = dead, .crashed = true, .report = &report};
    recover_task(&j, slot);
}

void real_recover(uint32_t me, uint32_t dead)
{
    struct undertaker_report report = {0};
    struct job j = {
        .s = &world, .out = &no_daemon, .me = me, .dead = dead, .crashed = true, .report = &report};
    participant_dead(&world, dead);
    recover_slots(&j);
    for (uint32_t pr = 0; pr < SEG_PRIORITIES; pr++)
        report.holes += ring_close_holes(&world, segment_ready_ring(&world, 0, pr));
    report.holes += ring_close_holes(&world, world.free_ring);
    undertaker_audit(&world, &no_daemon, &report);
    queue_wake(&world, &world.queue[0], &no_daemon, 1);
}
